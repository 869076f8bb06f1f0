//! Runs attempts and looks from outside at what came of them. What an attempt says about itself counts for nothing,
//! but a secret in its output could only have come from where it should not have been.

use crate::escapes::{Case, Script};
use crate::host::Host;
use crate::world::{Process, World};
use perilune_agent::sandbox::{Access, Layer, Layers, Program, Sandbox, SandboxError, View};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

/// What shows that an attempt got through.
pub(crate) enum Proof {
    /// Its output holds the word that stands outside only.
    Leaks,
    /// Its output holds the word that only the host's own environment, descriptors or segments hold.
    LeaksInherited,
    LeaksBootId,
    LeaksHostName,
    LeaksText(&'static str),
    /// The mark stands in the file `hit` outside.
    Writes,
    WritesWorkspace,
    /// The file `precious` outside is not what it was.
    Spoils,
    /// The mode of `secret` outside is 777.
    Opens,
    SharedMemory,
    Device,
    Types,
    Kills,
    Slows,
    Limits,
    Traces,
    /// A process that carries the mark lives after the sandbox has ended.
    Survives,
    Keys,
    Heard,
    /// A process that carries the mark has a descriptor of this kind.
    Descriptor(&'static str),
    /// The processes that carry the mark, while it waits.
    Holds(fn(&[Process]) -> bool),
    /// At least this many bytes stand in the workspace.
    FillsWorkspace(u64),
    /// A process that carries the mark used more processor time than this, ms.
    Burns(u64),
}

/// What the machine must have for the attempt to show anything.
#[derive(Clone, Copy)]
pub(crate) enum Needs {
    Root,
    User,
    X86,
    Emulation32,
    ControlGroup,
    PidMax,
    LandlockTcp,
    LandlockScopes,
    ReadOnlyWorkspace,
    SetUserId,
    Handle,
    SharedSegment,
    File(&'static str),
    /// A number under /proc/sys that is at most this.
    Sysctl(&'static str, i64),
}

/// Time for an attempt, s.
const ATTEMPT_S: u64 = 200;

const PRELUDE: &str = "import ctypes, os, struct, sys, time\n\
    E = os.environ; L = ctypes.CDLL(None, use_errno=True); L.syscall.restype = ctypes.c_long\n\
    def sc(nr, *a):\n\
    \x20 a = [ctypes.c_long(x) if isinstance(x, int) else x for x in a]\n\
    \x20 r = L.syscall(ctypes.c_long(nr), *a)\n\
    \x20 if r < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))\n\
    \x20 return r\n\
    def child(go, fork=os.fork):\n\
    \x20 r, w = os.pipe()\n\
    \x20 if fork() == 0:\n\
    \x20   try: go(); os.write(w, b'x'); time.sleep(30)\n\
    \x20   except BaseException as error: print(repr(error), flush=True)\n\
    \x20   os._exit(0)\n\
    \x20 os.close(w); os.read(r, 1); os.close(r)\n";

impl Case {
    fn program(&self, host: &Host) -> Option<Program> {
        match &self.script {
            Script::Sh(line) => {
                Some(Program::new(["/bin/sh", "-c", &format!("{line}\necho READY\nsleep 30")]))
            }
            Script::Py(body) => {
                let body: String = body.lines().map(|line| format!("  {line}\n")).collect();
                let text = format!(
                    "{PRELUDE}try:\n{body}except BaseException as error: print(repr(error), flush=True)\n\
                     print('READY', flush=True); time.sleep(30)"
                );
                let python = host.python.as_ref()?.executable.to_str().unwrap();
                Some(Program::new([python, "-I", "-S", "-c", &text]))
            }
        }
    }

    fn read_only(&self) -> bool {
        self.needs.iter().any(|need| matches!(need, Needs::ReadOnlyWorkspace))
    }
}

/// One attempt with these layers: whether it got through, and what it printed.
pub(crate) async fn attempt(
    case: &Case,
    layers: Layers,
    host: &Host,
) -> Result<(bool, String), SandboxError> {
    let mut world = World::new();
    host.furnish(&world, case);
    let access = if case.read_only() { Access::ReadOnly } else { Access::ReadWrite };
    let mut view = View::new(world.workspace.path(), access);
    if let Some(python) = &host.python {
        view = python.add_to(view);
    }
    let mut sandbox = Sandbox::new(view);
    sandbox.layers = layers;
    (case.limits)(&mut sandbox.limits);
    let mut program = case.program(host).expect("cases without their interpreter are skipped");
    program.env = world.variables();
    program.env.extend(host.variables(&world, case));
    let (mut running, mut streams) = sandbox.start(&program).await?;
    let mut output = Vec::new();
    let read = async {
        while !output.ends_with(b"READY\n") && streams.output.read_buf(&mut output).await.unwrap_or(0) > 0 {}
    };
    let in_time = timeout(Duration::from_secs(ATTEMPT_S), read).await.is_ok();
    assert!(in_time, "the attempt `{}` neither got ready nor ended", case.name);
    let text = String::from_utf8_lossy(&output).into_owned();
    let shown = if matches!(case.proof, Proof::Survives) {
        false
    } else {
        shows(&case.proof, &mut world, &text, host)
    };
    running.kill().await;
    let survived = matches!(case.proof, Proof::Survives) && lives_on(&world).await;
    let mut errors = Vec::new();
    let _ = timeout(Duration::from_millis(100), streams.errors.read_to_end(&mut errors)).await;
    Ok((shown || survived, text + &String::from_utf8_lossy(&errors)))
}

/// A killed process may take a moment to vanish from the table; one that is still there after a while lives.
async fn lives_on(world: &World) -> bool {
    for _ in 0..20 {
        if world.marked().is_empty() {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}

fn shows(proof: &Proof, world: &mut World, text: &str, host: &Host) -> bool {
    let holds = |needle: &str| !needle.is_empty() && text.contains(needle);
    match proof {
        Proof::Leaks => holds(&world.secret),
        Proof::LeaksInherited => holds(&host.inherited_secret),
        Proof::LeaksBootId => holds(&host.boot_id),
        Proof::LeaksHostName => holds(&host.name),
        Proof::LeaksText(needle) => holds(needle),
        Proof::Writes => world.outside_file("hit").contains(&world.mark),
        Proof::WritesWorkspace => world.workspace.path().join("hit").exists(),
        Proof::Spoils => world.outside_file("precious") != "keep",
        Proof::Opens => world.outside_mode("secret") == 0o777,
        Proof::SharedMemory => std::path::Path::new("/dev/shm").join(&world.mark).exists(),
        Proof::Device => {
            use std::os::unix::fs::FileTypeExt;
            let made = std::fs::symlink_metadata(world.workspace.path().join("d"));
            made.is_ok_and(|meta| meta.file_type().is_block_device())
        }
        Proof::Types => world.typed().contains("esc"),
        Proof::Kills => world.victim_dies(),
        Proof::Slows => {
            world.victim_process().text("stat").rsplit(')').next().and_then(|s| s.split(' ').nth(17))
                == Some("9")
        }
        Proof::Limits => {
            let limits = world.victim_process().text("limits");
            limits
                .lines()
                .any(|row| row.starts_with("Max open files") && row.split_whitespace().nth(3) == Some("5"))
        }
        Proof::Traces => world.victim_process().status("TracerPid") != "0",
        Proof::Survives => false,
        Proof::Keys => std::fs::read_to_string("/proc/keys").is_ok_and(|keys| keys.contains(&world.mark)),
        Proof::Heard => world.heard(),
        Proof::Descriptor(kind) => {
            world.marked().iter().any(|process| process.descriptors().iter().any(|fd| fd.contains(kind)))
        }
        Proof::Holds(look) => look(&world.marked()),
        Proof::FillsWorkspace(bytes) => world.workspace_bytes() >= *bytes,
        Proof::Burns(ms) => world.marked().iter().any(|process| host.cpu_ms(process) > *ms),
    }
}

/// What became of a case.
pub(crate) enum Verdict {
    Contained(String),
    Skipped(String),
    Failed(String),
}

/// All runs of one case.
pub(crate) async fn judge(case: &Case, host: &Host) -> Verdict {
    if let Some(why) = host.lacks(case) {
        return Verdict::Skipped(why);
    }
    let all = host.all_layers();
    let all = case.off.iter().fold(all, |layers, &layer| layers.without(layer));
    let bare = case.stops.iter().fold(all.clone(), |layers, &layer| layers.without(layer));
    match attempt(case, bare, host).await {
        Ok((true, _)) => {}
        Ok((false, text)) => {
            return Verdict::Failed(format!("shows nothing: it fails without {:?} too:\n{text}", case.stops));
        }
        Err(error) => {
            return Verdict::Skipped(format!("cannot be made without {:?} here: {error}", case.stops));
        }
    }
    for &alone in case.stops {
        let others = case.stops.iter().filter(|&&layer| layer != alone);
        let layers = others.fold(all.clone(), |layers, &layer| layers.without(layer));
        match attempt(case, layers, host).await {
            Ok((false, _)) => {}
            Ok((true, text)) => return Verdict::Failed(format!("{alone} alone did not stop it:\n{text}")),
            Err(error) => return Verdict::Failed(format!("with {alone} alone nothing ran: {error}")),
        }
    }
    match attempt(case, host.all_layers(), host).await {
        Ok((false, _)) => Verdict::Contained(names(case.stops)),
        Ok((true, text)) => Verdict::Failed(format!("ESCAPED with every layer standing:\n{text}")),
        Err(error) => Verdict::Failed(format!("with every layer nothing ran: {error}")),
    }
}

fn names(layers: &[Layer]) -> String {
    layers.iter().map(|layer| layer.name()).collect::<Vec<_>>().join(", ")
}
