//! The table of attempts. Each is made four ways and more: with every layer; with each of the layers that stop it
//! standing alone among them; and with none of them, when it must succeed, or it would show nothing.

use crate::judge::{Needs, Proof};
use perilune_agent::sandbox::Layer::{self, *};
use perilune_agent::sandbox::Limits;

/// What is run inside.
pub(crate) enum Script {
    Sh(&'static str),
    /// Lines after a prelude: `L` (the C library), `sc(nr, args...)` (a system call that raises), `E` (variables),
    /// `child(go)` (a process that does `go`, then waits; returns when it has done so or died).
    Py(&'static str),
}
use Script::{Py, Sh};

/// One attempt.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) script: Script,
    /// Layers each of which stops it alone.
    pub(crate) stops: &'static [Layer],
    /// What shows, seen from outside, that it got through.
    pub(crate) proof: Proof,
    /// Layers that are absent in every run, because they stand in the way only sometimes.
    pub(crate) off: &'static [Layer],
    pub(crate) needs: &'static [Needs],
    pub(crate) limits: fn(&mut Limits),
}

const fn case(name: &'static str, script: Script, stops: &'static [Layer], proof: Proof) -> Case {
    Case { name, script, stops, proof, off: &[], needs: &[], limits: |_| () }
}

impl Case {
    const fn off(mut self, off: &'static [Layer]) -> Self {
        self.off = off;
        self
    }
    const fn needs(mut self, needs: &'static [Needs]) -> Self {
        self.needs = needs;
        self
    }
    const fn limits(mut self, limits: fn(&mut Limits)) -> Self {
        self.limits = limits;
        self
    }
}

const FILES: &[Layer] = &[MountNamespace, Landlock];
const OTHERS: &[Layer] = &[PidNamespace, Landlock, Seccomp, UserNamespace];

pub(crate) const CASES: &[Case] = &[
    // Files: paths, links, and what they lead to.
    case("read an absolute path", Sh("cat $OUT/secret"), FILES, Proof::Leaks),
    case("read by climbing", Sh("cat ../../../../../../../../..$OUT/secret"), FILES, Proof::Leaks),
    case("read through an own symbolic link", Sh("ln -s $OUT/secret l; cat l"), FILES, Proof::Leaks),
    case("read through a link that was there", Sh("cat planted"), FILES, Proof::Leaks),
    case("read through a link to the root", Sh("ln -s / r; cat r$OUT/secret"), FILES, Proof::Leaks),
    case("read through a hard link", Sh("ln $OUT/secret h; cat h"), FILES, Proof::Leaks),
    case("list a directory", Sh("ls $OUT/list"), FILES, Proof::Leaks),
    case("write an absolute path", Sh("echo $MARK > $OUT/hit"), FILES, Proof::Writes),
    case("write through a linked directory", Sh("ln -s $OUT d; echo $MARK > d/hit"), FILES, Proof::Writes),
    case("move a file out", Sh("echo $MARK > f; mv f $OUT/hit"), FILES, Proof::Writes),
    case("copy over a file", Sh("echo $MARK > f; cp f $OUT/precious"), FILES, Proof::Spoils),
    case("truncate a file", Py("os.truncate(E['OUT'] + '/precious', 0)"), FILES, Proof::Spoils),
    case("remove a file", Sh("rm -f $OUT/precious"), FILES, Proof::Spoils),
    case("change a file's mode", Sh("chmod 777 $OUT/secret"), &[MountNamespace], Proof::Opens),
    case("write to the host's shared memory", Sh("echo $MARK > /dev/shm/$MARK"), FILES, Proof::SharedMemory),
    case("write to a read-only workspace", Sh("echo $MARK > hit"), FILES, Proof::WritesWorkspace)
        .needs(&[Needs::ReadOnlyWorkspace]),
    case("open a file by handle", Py("m = os.open('.', os.O_RDONLY); h = bytes.fromhex(E['HANDLE'])\n\
         b = ctypes.create_string_buffer(h, len(h)); print(os.read(sc(304, m, b, 0), 99))"),
        &[Seccomp, Capabilities, UserNamespace], Proof::Leaks)
        .off(&[Landlock]).needs(&[Needs::Root, Needs::X86, Needs::Handle]),
    case("make a device", Sh("mknod d b 7 99"), &[UserNamespace, Capabilities, Seccomp, Landlock], Proof::Device)
        .needs(&[Needs::Root]),
    case("open the terminal multiplexer", Py("keep = os.open('/dev/ptmx', os.O_RDWR)"), FILES, Proof::Holds(|all| {
        all.iter().any(|process| process.descriptors().iter().any(|fd| fd.contains("ptmx")))
    })),
    case("run a set-user-id file", Sh("./setuid 30 & sleep 2"), &[MountNamespace, UserNamespace, Capabilities],
        Proof::Holds(|all| all.iter().any(|process| process.status("Uid").contains("65534"))))
        .off(&[Landlock, Seccomp]).needs(&[Needs::Root, Needs::SetUserId]),
    // /proc
    case("read by another process's root", Sh("cat /proc/$VICTIM/root$OUT/secret"),
        &[MountNamespace, Landlock, UserNamespace], Proof::Leaks).off(&[Capabilities]).needs(&[Needs::Root]),
    case("read by the own root", Sh("cat /proc/self/root$OUT/secret"), FILES, Proof::Leaks),
    case("read another's environment", Sh("cat /proc/$VICTIM/environ"), &[MountNamespace, Landlock, UserNamespace],
        Proof::Leaks).off(&[Capabilities]).needs(&[Needs::Root]),
    case("read another's open file", Sh("cat /proc/$VICTIM/fd/0"), &[MountNamespace, Landlock, UserNamespace],
        Proof::Leaks).off(&[Capabilities]).needs(&[Needs::Root]),
    case("read the host's kernel settings", Sh("cat /proc/sys/kernel/random/boot_id"), FILES, Proof::LeaksBootId),
    case("see the host's control groups", Sh("cat /proc/self/cgroup"), &[CgroupNamespace],
        Proof::LeaksText("perilune-sandbox-")).needs(&[Needs::ControlGroup]),
    case("leave the control group", Sh("echo $$ > $CGROUP_ROOT/cgroup.procs"), FILES, Proof::Holds(|all| {
        !all.is_empty() && all.iter().any(|p| !pids_group(&p.text("cgroup")).contains("perilune-sandbox-"))
    })).needs(&[Needs::ControlGroup, Needs::Root]),
    // What the host left open
    case("read the environment", Sh("env"), &[CleanStart], Proof::LeaksInherited),
    case("read an inherited descriptor", Py("print(os.pread(int(E['LEAKED_FD']), 99, 0))"), &[CleanStart],
        Proof::LeaksInherited),
    case("type into the host's terminal", Py("import fcntl\n\
         t = os.open(E['TTY_OUTSIDE'], os.O_RDWR | os.O_NOCTTY)\nfor c in b'esc\\n': fcntl.ioctl(t, 0x5412, bytes([c]))"),
        &[MountNamespace, Landlock, Seccomp, UserNamespace, Capabilities], Proof::Types).needs(&[Needs::Root]),
    // Other processes
    case("kill a process", Sh("kill -9 $VICTIM"), &[PidNamespace, Landlock], Proof::Kills)
        .needs(&[Needs::LandlockScopes]),
    case("slow a process down", Sh("renice 9 -p $VICTIM"), &[PidNamespace], Proof::Slows).off(&[Capabilities]),
    case("limit a process", Py("sc(302, int(E['VICTIM']), 7, struct.pack('QQ', 5, 5), 0)"), &[PidNamespace, Seccomp],
        Proof::Limits).needs(&[Needs::X86]),
    case("trace a process", Py("sc(101, 0x4206, int(E['VICTIM']), 0, 0)"), OTHERS, Proof::Traces)
        .off(&[Capabilities]).needs(&[Needs::Root, Needs::X86]),
    case("read a process's memory", Py("b = ctypes.create_string_buffer(256)\n\
         class V(ctypes.Structure): _fields_ = [('p', ctypes.c_void_p), ('n', ctypes.c_size_t)]\n\
         sc(310, int(E['VICTIM']), ctypes.byref(V(ctypes.addressof(b), 128)), 1, \
         ctypes.byref(V(int(E['ENV_START']), 128)), 1, 0); print(b.raw)"), OTHERS, Proof::Leaks)
        .off(&[Capabilities]).needs(&[Needs::Root, Needs::X86]),
    case("take a process's descriptor", Py("fd = sc(438, sc(434, int(E['VICTIM']), 0), 0, 0)\nprint(os.pread(fd, 99, 0))"),
        OTHERS, Proof::Leaks).off(&[Capabilities]).needs(&[Needs::Root]),
    case("outlive the sandbox", Sh("setsid sh -c 'echo > up; exec sleep 300' > /dev/null 2>&1 < /dev/null &\n\
         while [ ! -e up ]; do sleep 0.01; done"), &[PidNamespace], Proof::Survives),
    case("outlive it as a deaf daemon", Py("import signal\n\
         def daemon():\n  os.setsid()\n  if os.fork(): os._exit(0)\n\
         \x20 for s in range(1, 32):\n    if s not in (9, 19): signal.signal(s, signal.SIG_IGN)\n\
         \x20 n = os.open('/dev/null', 2); [os.dup2(n, i) for i in (0, 1, 2)]\nchild(daemon)"),
        &[PidNamespace], Proof::Survives),
    // Namespaces and mounts
    case("make a user namespace", Py("child(lambda: sc(272, 0x10000000))"), &[Seccomp],
        Proof::Holds(two_user_namespaces)).needs(&[Needs::X86]),
    case("clone into a user namespace", Py("child(lambda: 0, lambda: sc(56, 0x10000011, 0, 0, 0, 0))"), &[Seccomp],
        Proof::Holds(two_user_namespaces)).needs(&[Needs::X86]),
    case("clone3 into a user namespace", Py("a = struct.pack('11Q', 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)\n\
         child(lambda: 0, lambda: sc(435, a, 88))"), &[Seccomp], Proof::Holds(two_user_namespaces)),
    case("make a namespace by 32-bit calls", Py("import mmap\nm = mmap.mmap(-1, 4096, prot=7)\n\
         m.write(bytes.fromhex('53b836010000bb00000010cd805bc3'))\n\
         child(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m))))"), &[Seccomp],
        Proof::Holds(two_user_namespaces)).needs(&[Needs::X86, Needs::Emulation32]),
    case("mount", Py("sc(165, b'escape', b'/tmp', b'tmpfs', 0, 0)"), &[Seccomp, Capabilities, Landlock],
        Proof::Holds(|all| all.iter().any(|process| process.text("mountinfo").contains(" tmpfs escape ")))),
    case("make a system directory writable", Py("sc(165, 0, b'/usr', 0, 4096 | 32 | 2 | 4, 0)"),
        &[Seccomp, Capabilities, Landlock], Proof::Holds(|all| all.iter().any(usr_is_writable))).needs(&[Needs::X86]),
    case("change the root", Py("sc(161, b'.')"), &[Seccomp, Capabilities],
        Proof::Holds(|all| all.iter().any(|process| process.link("root").ends_with("/workspace")))).needs(&[Needs::X86]),
    case("join the host's network", Py("sc(308, os.open(f\"/proc/{E['VICTIM']}/ns/net\", 0), 0)"),
        &[MountNamespace, Landlock, Seccomp, Capabilities, UserNamespace], Proof::Holds(|all| {
            let own = std::fs::read_link("/proc/self/ns/net").unwrap();
            all.iter().any(|process| process.link("ns/net") == own.to_string_lossy())
        })).needs(&[Needs::Root, Needs::X86]),
    // Kernel interfaces
    case("add a key", Py("sc(248, b'user', E['MARK'].encode(), b'x', 1, -2)"), &[Seccomp], Proof::Keys)
        .needs(&[Needs::X86]),
    case("make a BPF map", Py("keep = sc(321, 0, struct.pack('IIII', 2, 4, 4, 1) + bytes(56), 72)"), &[Seccomp],
        Proof::Descriptor("bpf-map")).off(&[Capabilities, UserNamespace]).needs(&[Needs::Root, Needs::X86]),
    case("open a performance counter", Py("keep = sc(298, struct.pack('IIQQQQQ', 1, 64, 0, 0, 0, 0, 0x61) + bytes(16), 0, -1, -1, 0)"),
        &[Seccomp], Proof::Descriptor("perf_event")).needs(&[Needs::X86, Needs::Sysctl("kernel/perf_event_paranoid", 2)]),
    case("open an io_uring", Py("keep = sc(425, 1, ctypes.create_string_buffer(120))"), &[Seccomp],
        Proof::Descriptor("io_uring")).needs(&[Needs::Sysctl("kernel/io_uring_disabled", 0)]),
    case("open a userfaultfd", Py("keep = sc(323, 1)"), &[Seccomp], Proof::Descriptor("userfaultfd"))
        .needs(&[Needs::X86]),
    case("watch a whole file system", Py("keep = sc(300, 0x200, 0)"), &[Seccomp], Proof::Descriptor("fanotify"))
        .needs(&[Needs::X86]),
    case("switch off address randomisation", Py("sc(135, 0x40000)"), &[Seccomp], Proof::Holds(|all| {
        all.iter().any(|process| process.text("personality").trim() == "00040000")
    })).needs(&[Needs::X86]),
    case("learn the host's name", Sh("uname -n"), &[UtsNamespace], Proof::LeaksHostName),
    case("read the host's shared memory segment", Py("L.shmat.restype = ctypes.c_void_p\n\
         i = L.shmget(int(E['SHM_KEY']), 4096, 0)\nif i >= 0: print(ctypes.string_at(L.shmat(i, 0, 0o10000)))"),
        &[IpcNamespace], Proof::LeaksInherited).needs(&[Needs::SharedSegment]),
    // Network
    case("connect to the host", Py("import socket\n\
         s = socket.create_connection(('127.0.0.1', int(E['TCP'])), 2); s.send(E['MARK'].encode())"),
        &[NetworkNamespace, Landlock, Seccomp], Proof::Heard).needs(&[Needs::LandlockTcp]),
    case("send a datagram", Py("import socket\n\
         s = socket.socket(2, 2); s.sendto(E['MARK'].encode(), ('127.0.0.1', int(E['UDP'])))"),
        &[NetworkNamespace, Seccomp], Proof::Heard).off(&[Landlock]),
    case("reach an abstract socket", Py("import socket\n\
         s = socket.socket(1, 1); s.connect('\\0' + E['MARK']); s.send(E['MARK'].encode())"),
        &[NetworkNamespace, Landlock], Proof::Heard).needs(&[Needs::LandlockScopes]),
    case("reach a socket by its path", Py("import socket\n\
         s = socket.socket(1, 1); s.connect(E['OUT'] + '/sock'); s.send(E['MARK'].encode())"),
        &[MountNamespace], Proof::Heard).off(&[Landlock]),
    case("open a raw socket", Py("import socket\n\
         keep = socket.socket(2, 3, 255)"), &[Seccomp, Capabilities],
        Proof::Holds(|all| all.iter().any(|process| process.text("net/raw").lines().count() > 1))),
    case("open a packet socket", Py("import socket\n\
         keep = socket.socket(17, 3, 0)"), &[Seccomp, Capabilities],
        Proof::Holds(|all| all.iter().any(|process| process.text("net/packet").lines().count() > 1))),
    case("open a netlink socket", Py("import socket\n\
         keep = socket.socket(16, 3, 0)"), &[Seccomp], Proof::Descriptor("socket:")),
    case("open a socket to the hypervisor", Py("import socket\n\
         keep = socket.socket(40, 1, 0)"), &[Seccomp],
        Proof::Descriptor("socket:")).needs(&[Needs::File("/dev/vsock")]),
    // Taking too much. Bounds are small, and what exceeds them stays small.
    case("open many files", Py("keep = [os.open('/dev/null', 0) for _ in range(80)]"), &[ResourceLimits],
        Proof::Holds(|all| all.iter().any(|process| process.descriptors().len() > 60))).limits(|l| l.n_files = 40),
    case("write a large file", Py("f = open('big', 'wb')\nfor _ in range(4): f.write(bytes(1 << 20)); f.flush()"),
        &[ResourceLimits], Proof::FillsWorkspace(3 << 20)).limits(|l| l.file_bytes = 1 << 20),
    case("write many files", Py("for i in range(12):\n  f = open(f'part{i}', 'wb'); f.write(bytes(4 << 20)); f.close(); time.sleep(0.04)"),
        &[ResourceLimits], Proof::FillsWorkspace(44 << 20)).limits(|l| l.disk_bytes = 8 << 20),
    case("reserve space without writing", Py("for i in range(3): sc(285, os.open(f'part{i}', 66), 0, 0, 4 << 20)"),
        &[Seccomp], Proof::FillsWorkspace(10 << 20)).needs(&[Needs::X86]),
    case("fill the temporary directory", Py("import tempfile\nf = tempfile.TemporaryFile(dir='/tmp'); f.write(bytes(3 << 20)); f.flush()"),
        FILES, Proof::Holds(|all| all.iter().any(|process| process.largest_file() >= 3 << 20)))
        .limits(|l| l.tmp_bytes = 1 << 20),
    case("take much memory", Py("keep = bytearray(b'x') * (160 << 20)"), &[ResourceLimits],
        Proof::Holds(|all| all.iter().any(|process| process.resident() > 150 << 20)))
        .limits(|l| l.address_space_bytes = 128 << 20),
    case("take memory in many processes", Py("keep = []\n\
         for _ in range(4): child(lambda: keep.append(bytearray(b'x') * (40 << 20)))"),
        &[ControlGroup], Proof::Holds(|all| all.iter().map(|process| process.resident()).sum::<u64>() > 150 << 20))
        .limits(|l| l.memory_bytes = 80 << 20).needs(&[Needs::ControlGroup]),
    case("take much processor time", Py("t = time.process_time()\nwhile time.process_time() - t < 1.6: pass"),
        &[ResourceLimits], Proof::Burns(1_500)).limits(|l| l.cpu_s = 1),
    case("fork, under a control group", Py(FORK_40), &[ControlGroup], Proof::Holds(|all| all.len() > 34))
        .limits(|l| l.n_processes = 20).needs(&[Needs::ControlGroup]).off(&[ResourceLimits]),
    case("fork, under the limit of a user", Py(FORK_40), &[ResourceLimits], Proof::Holds(|all| all.len() > 34))
        .limits(|l| l.n_processes = 20).needs(&[Needs::User]).off(&[ControlGroup]),
    case("fork, under the namespace's limit", Py("for _ in range(360): child(lambda: 0)"),
        &[ResourceLimits], Proof::Holds(|all| all.len() > 330))
        .limits(|l| l.n_processes = 300).needs(&[Needs::Root, Needs::PidMax]).off(&[ControlGroup]),
];

const FORK_40: &str = "for _ in range(40): child(lambda: 0)";

fn pids_group(groups: &str) -> String {
    let row = groups.lines().find(|row| row.contains(":pids:") || row.starts_with("0::"));
    row.unwrap_or("perilune-sandbox-").to_owned()
}

fn two_user_namespaces(all: &[crate::world::Process]) -> bool {
    let names: std::collections::BTreeSet<_> = all.iter().map(|process| process.link("ns/user")).collect();
    names.iter().filter(|name| !name.is_empty()).count() > 1
}

fn usr_is_writable(process: &crate::world::Process) -> bool {
    let mounts = process.text("mountinfo");
    mounts.lines().any(|row| {
        row.split(' ').nth(4) == Some("/usr") && row.split(' ').nth(5).is_some_and(|o| o.starts_with("rw"))
    })
}
