//! Everything that one attempt might reach: made fresh for each, outside the sandbox, and looked at from there.

use nix::pty::{OpenptyResult, openpty};
use std::fs::{self, File};
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// One process as the host sees it.
pub(crate) struct Process {
    pub(crate) pid: u32,
}

impl Process {
    fn path(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join(file)
    }

    pub(crate) fn text(&self, file: &str) -> String {
        fs::read(self.path(file))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    pub(crate) fn link(&self, file: &str) -> String {
        fs::read_link(self.path(file)).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// What each of its descriptors is.
    pub(crate) fn descriptors(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("fd")).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
            .collect()
    }

    /// Size of the largest file that it holds open, bytes.
    pub(crate) fn largest_file(&self) -> u64 {
        let entries = fs::read_dir(self.path("fd")).into_iter().flatten().flatten();
        let metas = entries.filter_map(|entry| fs::metadata(entry.path()).ok());
        metas.filter(|meta| meta.is_file()).map(|meta| meta.len()).max().unwrap_or(0)
    }

    /// A row of its status file.
    pub(crate) fn status(&self, name: &str) -> String {
        let status = self.text("status");
        let row = status.lines().find_map(|row| row.strip_prefix(name)?.strip_prefix(':'));
        row.unwrap_or_default().trim().to_owned()
    }

    /// Resident memory, bytes.
    pub(crate) fn resident(&self) -> u64 {
        let row = self.status("VmRSS");
        row.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
    }
}

/// The host around one attempt.
pub(crate) struct World {
    pub(crate) workspace: TempDir,
    pub(crate) outside: TempDir,
    /// A word that is nowhere but outside.
    pub(crate) secret: String,
    /// A word that marks what the attempt makes.
    pub(crate) mark: String,
    pub(crate) victim: Child,
    tcp: TcpListener,
    udp: UdpSocket,
    abstract_socket: UnixListener,
    path_socket: UnixListener,
    terminal: OpenptyResult,
}

impl World {
    pub(crate) fn new() -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{}x{n}x{}", std::process::id(), crate::nanos());
        let (secret, mark) = (format!("secret{unique}"), format!("mark{unique}"));
        let (workspace, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let out = outside.path();
        fs::write(out.join("secret"), &secret).unwrap();
        fs::write(out.join("precious"), "keep").unwrap();
        fs::create_dir(out.join("list")).unwrap();
        fs::write(out.join("list").join(&secret), "").unwrap();
        symlink(out.join("secret"), workspace.path().join("planted")).unwrap();
        let abstract_socket =
            UnixListener::bind_addr(&SocketAddr::from_abstract_name(&mark).unwrap()).unwrap();
        let path_socket = UnixListener::bind(out.join("sock")).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        abstract_socket.set_nonblocking(true).unwrap();
        path_socket.set_nonblocking(true).unwrap();
        let victim = Command::new("/bin/sleep")
            .args(["600"])
            .env_clear()
            .env("VICTIM", &secret)
            .stdin(File::open(out.join("secret")).unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // A spawned child has let go of our files before its environment stands; an attempt needs the address of it.
        let begun = std::time::Instant::now();
        while !(Process { pid: victim.id() }).text("environ").contains(&secret) {
            assert!(begun.elapsed() < Duration::from_secs(60), "sleep did not start within 60 s");
            std::thread::sleep(Duration::from_millis(1));
        }
        let terminal = openpty(None, None).unwrap();
        Self { workspace, outside, secret, mark, victim, tcp, udp, abstract_socket, path_socket, terminal }
    }

    /// Variables that tell the attempt where things are; none holds the secret.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let victim = self.victim_process();
        let stat = victim.text("stat");
        let env_start = stat.rsplit(' ').nth(2).unwrap_or_default().trim().to_owned();
        let port = |address: std::io::Result<std::net::SocketAddr>| address.unwrap().port().to_string();
        let terminal = nix::unistd::ttyname(&self.terminal.slave).unwrap().to_string_lossy().into_owned();
        [
            ("OUT", self.outside.path().to_string_lossy().into_owned()),
            ("MARK", self.mark.clone()),
            ("VICTIM", victim.pid.to_string()),
            ("ENV_START", env_start),
            ("TCP", port(self.tcp.local_addr())),
            ("UDP", port(self.udp.local_addr())),
            ("TTY_OUTSIDE", terminal),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    pub(crate) fn victim_process(&self) -> Process {
        Process { pid: self.victim.id() }
    }

    /// Whether the victim dies; a killed process on a busy machine takes a moment.
    pub(crate) fn victim_dies(&mut self) -> bool {
        for _ in 0..100 {
            if !matches!(self.victim.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Whether any listener outside heard the mark.
    pub(crate) fn heard(&self) -> bool {
        let mut heard = Vec::new();
        let mut hear = |stream: &mut dyn Read| drop(stream.take(1 << 10).read_to_end(&mut heard));
        if let Ok((mut stream, _)) = self.tcp.accept() {
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            hear(&mut stream);
        }
        for listener in [&self.abstract_socket, &self.path_socket] {
            if let Ok((mut stream, _)) = listener.accept() {
                stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                hear(&mut stream);
            }
        }
        let mut packet = [0; 256];
        if let Ok(n) = self.udp.recv(&mut packet) {
            heard.extend_from_slice(&packet[..n]);
        }
        String::from_utf8_lossy(&heard).contains(&self.mark)
    }

    /// What stands in the input queue of the terminal outside.
    pub(crate) fn typed(&self) -> String {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        fcntl(&self.terminal.slave, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut bytes = [0; 64];
        let n = nix::unistd::read(&self.terminal.slave, &mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    }

    /// Every process of the host that carries the mark in its environment.
    pub(crate) fn marked(&self) -> Vec<Process> {
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let processes =
            pids.filter_map(|entry| Some(Process { pid: entry.file_name().to_str()?.parse().ok()? }));
        let word = format!("MARK={}", self.mark);
        processes.filter(|process| process.text("environ").contains(&word)).collect()
    }

    /// Bytes in files of the workspace.
    pub(crate) fn workspace_bytes(&self) -> u64 {
        let entries = fs::read_dir(self.workspace.path()).unwrap().flatten();
        entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
    }

    /// Content of a file outside; empty where there is none.
    pub(crate) fn outside_file(&self, name: &str) -> String {
        fs::read_to_string(self.outside.path().join(name)).unwrap_or_default()
    }

    pub(crate) fn outside_mode(&self, name: &str) -> u32 {
        fs::metadata(self.outside.path().join(name)).map_or(0, |meta| meta.permissions().mode() & 0o777)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for process in self.marked() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(process.pid).unwrap());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.victim.kill();
        let _ = self.victim.wait();
        let _ = fs::remove_file(Path::new("/dev/shm").join(&self.mark));
    }
}
