//! A newcomer's machine: a home of its own, the repository's examples, the binary on the path.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// What pages may name of the repository.
const COPIED: [&str; 3] = ["examples", "recipes", "packaging"];
/// The published config, which pages plan with.
pub(crate) const CONFIG: &str = "crates/model/tests/data/k2_thinking_config.json";
/// Stands for cargo: what pages say to run in the repository is run with the binary that is tested.
const CARGO: &str = "#!/bin/sh\nif [ \"$1 $2 $3 $4 $5\" = 'run --release -p perilune --' ]; then shift 5; exec perilune \"$@\"; fi\n\
                     echo \"no test runs: cargo $*\" >&2; exit 99\n";

pub(crate) struct World {
    folder: TempDir,
    /// Port of the server that a page starts, in place of 8080.
    pub(crate) port: u16,
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let world = Self { folder, port };
        for dir in ["bin", "home", "here"] {
            std::fs::create_dir(world.at(dir)).unwrap();
        }
        for name in COPIED {
            crate::folder::copy_folder(&repository().join(name), &world.at("here").join(name));
        }
        let config = world.at("here").join(CONFIG);
        std::fs::create_dir_all(config.parent().unwrap()).unwrap();
        std::fs::copy(repository().join(CONFIG), config).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_perilune"), world.at("bin/perilune")).unwrap();
        std::fs::write(world.at("bin/cargo"), CARGO).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(world.at("bin/cargo"), mode).unwrap();
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder in which commands are run.
    pub(crate) fn here(&self) -> PathBuf {
        self.at("here")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.at("home")
    }

    /// A program as the newcomer calls it: nothing of the environment but what is set here.
    pub(crate) fn command(&self, program: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command.env_clear().current_dir(self.here()).stdin(Stdio::null());
        command.env("PATH", format!("{}:{path}", self.at("bin").display()));
        command.env("HOME", self.home()).env("PERILUNE_LISTEN", format!("127.0.0.1:{}", self.port));
        command
    }

    /// The binary with these arguments: exit code, standard output, standard error.
    pub(crate) fn perilune(&self, args: &[&str]) -> (Option<i32>, String, String) {
        said(self.command(env!("CARGO_BIN_EXE_perilune")).args(args))
    }
}

/// Exit code, standard output, standard error.
pub(crate) fn said(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Whether a program can be called.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}
