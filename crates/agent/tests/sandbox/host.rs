//! What this machine has, found once before the attempts.

use crate::escapes::{Case, Script};
use crate::judge::Needs;
use crate::world::{Process, World};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::geteuid;
use perilune_agent::sandbox::{Interpreter, Layer, Layers};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

/// Variable of this process's own environment that holds a secret.
pub(crate) const INHERITED: &str = "PERILUNE_TEST_SECRET";
/// Makes a System V segment that holds its second argument, and removes it when its input ends.
const SEGMENT: &str = "import ctypes, sys\nL = ctypes.CDLL(None); L.shmat.restype = ctypes.c_void_p\n\
    L.shmdt.argtypes = [ctypes.c_void_p]\ni = L.shmget(int(sys.argv[1]), 4096, 0o1600)\nassert i >= 0\n\
    a = L.shmat(i, 0, 0); ctypes.memmove(a, sys.argv[2].encode(), len(sys.argv[2])); L.shmdt(a)\n\
    print('made', flush=True); sys.stdin.read(); L.shmctl(i, 0, 0)\n";
/// Prints the kernel's handle of a file, in hex.
const HANDLE: &str = "import ctypes, struct, sys\nb = ctypes.create_string_buffer(struct.pack('Ii', 128, 0), 136)\n\
    m = ctypes.c_int()\nassert ctypes.CDLL(None).name_to_handle_at(-100, sys.argv[1].encode(), b, ctypes.byref(m), 0) == 0\n\
    print(b.raw[:8 + struct.unpack('I', b.raw[:4])[0]].hex())\n";

pub(crate) struct Host {
    pub(crate) python: Option<Interpreter>,
    pub(crate) inherited_secret: String,
    pub(crate) boot_id: String,
    pub(crate) name: String,
    control_group: bool,
    cgroup_root: Option<String>,
    kernel: (u32, u32),
    leaked: OwnedFd,
    _leaked_file: tempfile::NamedTempFile,
    shm_key: Option<i32>,
    _segment: Option<Segment>,
    ticks_per_s: u64,
}

/// The helper that holds the segment; it ends with its input.
struct Segment(Child);

impl Drop for Segment {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Host {
    pub(crate) fn find(control_group: bool) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let python =
            Interpreter::find(&path).inspect_err(|error| println!("SKIPPED all of Python: {error}")).ok();
        let inherited_secret = std::env::var(INHERITED).expect("main sets it");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &inherited_secret).unwrap();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        let kernel = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let segment = python.as_ref().and_then(|python| make_segment(python, &inherited_secret));
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        Self {
            python,
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            name: read("/proc/sys/kernel/hostname"),
            control_group,
            cgroup_root: pids_root(),
            kernel,
            leaked: open(file.path(), OFlag::O_RDONLY, Mode::empty()).unwrap(),
            _leaked_file: file,
            shm_key: segment.as_ref().map(|(key, _)| *key),
            _segment: segment.map(|(_, segment)| segment),
            inherited_secret,
            ticks_per_s: nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
                .unwrap()
                .unwrap()
                .unsigned_abs(),
        }
    }

    /// Every layer; the control group where this machine gives one.
    pub(crate) fn all_layers(&self) -> Layers {
        let layers = Layers::default().demand_all();
        if self.control_group { layers } else { layers.without(Layer::ControlGroup) }
    }

    /// Why the case would show nothing here.
    pub(crate) fn lacks(&self, case: &Case) -> Option<String> {
        if matches!(case.script, Script::Py(_)) && self.python.is_none() {
            return Some("there is no CPython".into());
        }
        case.needs.iter().find_map(|need| self.lacks_one(*need))
    }

    fn lacks_one(&self, need: Needs) -> Option<String> {
        let (fits, why) = match need {
            Needs::Root => (geteuid().is_root(), "only root could do this without the sandbox".to_owned()),
            Needs::User => (!geteuid().is_root(), "the kernel exempts root from this limit".into()),
            Needs::X86 => (cfg!(target_arch = "x86_64"), "its call numbers are those of x86-64".into()),
            Needs::Emulation32 => {
                let known = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
                (
                    known.contains(" ia32_sys_call") || known.contains("do_int80_emulation"),
                    "no 32-bit calls are known to be here".into(),
                )
            }
            Needs::ControlGroup => (self.control_group, "no control group can be made here".into()),
            Needs::PidMax => {
                (self.kernel >= (6, 14), "a process namespace has no limit of its own before 6.14".into())
            }
            Needs::LandlockTcp => (self.kernel >= (6, 7), "Landlock knows no TCP before 6.7".into()),
            Needs::LandlockScopes => (self.kernel >= (6, 12), "Landlock has no scopes before 6.12".into()),
            Needs::SharedSegment => (self.shm_key.is_some(), "no shared segment could be made".into()),
            Needs::File(path) => (fs::exists(path).unwrap_or(false), format!("{path} does not exist")),
            Needs::Sysctl(path, most) => {
                let value = fs::read_to_string(format!("/proc/sys/{path}")).unwrap_or_default();
                (
                    value.trim().parse::<i64>().is_ok_and(|v| v <= most),
                    format!("the host forbids it to all users by {path}"),
                )
            }
            Needs::ReadOnlyWorkspace | Needs::SetUserId | Needs::Handle => (true, String::new()),
        };
        (!fits).then_some(why)
    }

    /// Put into the world what every attempt may find there.
    pub(crate) fn furnish(&self, world: &World, case: &Case) {
        if !needs(case, |need| matches!(need, Needs::SetUserId)) {
            return;
        }
        let target = world.workspace.path().join("setuid");
        if fs::copy("/bin/sleep", &target).is_ok() {
            let _ = std::os::unix::fs::chown(&target, Some(65534), None);
            let _ = fs::set_permissions(&target, fs::Permissions::from_mode(0o4755));
        }
    }

    pub(crate) fn variables(&self, world: &World, case: &Case) -> Vec<(String, String)> {
        let secret = world.outside.path().join("secret");
        let handle = self
            .python
            .as_ref()
            .filter(|_| needs(case, |need| matches!(need, Needs::Handle)))
            .and_then(|python| {
                let told =
                    Command::new(&python.executable).args(["-I", "-c", HANDLE]).arg(secret).output().ok()?;
                Some(String::from_utf8_lossy(&told.stdout).trim().to_owned())
            });
        [
            ("LEAKED_FD", Some(self.leaked.as_raw_fd().to_string())),
            ("CGROUP_ROOT", self.cgroup_root.clone()),
            ("SHM_KEY", self.shm_key.map(|key| key.to_string())),
            ("HANDLE", handle),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
    }

    /// Processor time of a process, ms.
    pub(crate) fn cpu_ms(&self, process: &Process) -> u64 {
        let stat = process.text("stat");
        let fields: Vec<u64> =
            stat.rsplit(')').next().unwrap_or("").split(' ').map(|f| f.parse().unwrap_or(0)).collect();
        (fields.get(12).unwrap_or(&0) + fields.get(13).unwrap_or(&0)) * 1000 / self.ticks_per_s
    }
}

fn needs(case: &Case, which: impl Fn(&Needs) -> bool) -> bool {
    case.needs.iter().any(which)
}

fn make_segment(python: &Interpreter, secret: &str) -> Option<(i32, Segment)> {
    let key = i32::try_from(std::process::id()).ok()? + 0x5000_0000;
    let mut command = Command::new(&python.executable);
    command.args(["-I", "-c", SEGMENT, &key.to_string(), secret]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
    let segment = Segment(child);
    (line.trim() == "made").then_some((key, segment))
}

/// Directory of this process's own group where processes are counted.
fn pids_root() -> Option<String> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let v1 = own
        .lines()
        .find_map(|row| row.split_once(":pids:").map(|(_, path)| format!("/sys/fs/cgroup/pids{path}")));
    v1.or_else(|| {
        own.lines().find_map(|row| row.strip_prefix("0::").map(|path| format!("/sys/fs/cgroup{path}")))
    })
}
