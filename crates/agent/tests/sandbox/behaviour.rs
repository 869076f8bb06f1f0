//! What the sandbox does for those who keep to the rules, and to those who take too long.

use crate::host::Host;
use crate::world::World;
use perilune_agent::sandbox::{
    Access, End, Layer, Layers, Outcome, Program, Sandbox, SandboxError, View, examine,
};
use std::path::Path;
use std::process::{Command, Stdio, exit};
use std::time::{Duration, Instant};

/// First argument that makes this test a host that starts one sandbox and waits.
const STARTER: &str = "__starter";

/// Whether every layer stands here, and whether a control group does; or the refusal, which must be one.
pub(crate) async fn refusal_or_layers() -> Result<bool, SandboxError> {
    let workspace = tempfile::tempdir().unwrap();
    for finding in examine(workspace.path()).await? {
        let how = finding.refused.as_ref().map_or("works".to_owned(), |why| format!("REFUSED: {why}"));
        println!("layer {:18} {how}", finding.layer.name());
    }
    let sandbox = Sandbox::new(View::new(workspace.path(), Access::ReadWrite));
    let outcome = sandbox.run(&sh("echo ran > ran"), &[], &mut |_| ()).await;
    if let Err(SandboxError::Refused { .. }) = &outcome {
        assert!(!workspace.path().join("ran").exists(), "the sandbox refused and ran all the same");
    }
    Ok(!outcome?.missing.iter().any(|(layer, _)| *layer == Layer::ControlGroup))
}

fn sh(line: &str) -> Program {
    Program::new(["/bin/sh", "-c", line])
}

struct Bench {
    world: World,
    runtime: tokio::runtime::Runtime,
    sandbox: Sandbox,
}

impl Bench {
    fn new(host: &Host) -> Self {
        let world = World::new();
        let mut sandbox = Sandbox::new(View::new(world.workspace.path(), Access::ReadWrite));
        sandbox.layers = host.all_layers();
        Self { world, runtime: crate::runtime(), sandbox }
    }

    fn run(&self, program: &Program, input: &[u8]) -> Result<Outcome, SandboxError> {
        let mut program = program.clone();
        program.env.extend(self.world.variables());
        self.runtime.block_on(self.sandbox.run(&program, input, &mut |_| ()))
    }
}

type Test = (&'static str, fn(&mut Bench));

const TESTS: &[Test] = &[
    ("status, output and files come back", |bench| {
        let outcome = bench.run(&sh("echo out; echo err >&2; echo kept > f; exit 7"), &[]).unwrap();
        assert_eq!(outcome.end, End::Exited(7));
        assert_eq!(outcome.output.text(), "out\nerr\n");
        assert_eq!(std::fs::read_to_string(bench.world.workspace.path().join("f")).unwrap(), "kept\n");
        assert_eq!(bench.run(&sh("kill -11 $$"), &[]).unwrap().end, End::Signalled(11));
    }),
    ("input arrives, whatever its size, and a program may leave it", |bench| {
        let mut program = Program::new(["/usr/bin/wc", "-c"]);
        program.takes_input = true;
        assert_eq!(bench.run(&program, &vec![b'x'; 3_000_000]).unwrap().output.text().trim(), "3000000");
        program.argv = ["/bin/true"].map(str::to_owned).into();
        assert_eq!(bench.run(&program, &vec![b'x'; 3_000_000]).unwrap().end, End::Exited(0));
    }),
    ("output is streamed and kept within bounds", |bench| {
        bench.sandbox.limits.output_bytes = 1000;
        let mut streamed = 0;
        let program = sh("i=0; while [ $i -lt 2000 ]; do echo 0123456789; i=$((i+1)); done");
        let outcome = bench
            .runtime
            .block_on(bench.sandbox.run(&program, &[], &mut |piece| streamed += piece.len()))
            .unwrap();
        assert_eq!((outcome.output.total_bytes(), streamed), (22_000, 22_000));
        assert_eq!(outcome.output.dropped_bytes(), 21_000);
    }),
    ("a program that is not there is said to be missing", |bench| {
        let error = bench.run(&Program::new(["/bin/no-such-program"]), &[]).unwrap_err();
        assert!(
            matches!(&error, SandboxError::NotStarted(why) if why.contains("no-such-program")),
            "{error}"
        );
    }),
    ("a workspace that is not there stops the run", |bench| {
        bench.sandbox.view = View::new(Path::new("/nowhere/at/all"), Access::ReadWrite);
        assert!(matches!(
            bench.run(&sh("true"), &[]),
            Err(SandboxError::Refused { layer: Layer::MountNamespace, .. })
        ));
        bench.sandbox.view = View::new(Path::new("/"), Access::ReadWrite);
        assert!(matches!(bench.run(&sh("true"), &[]), Err(SandboxError::BadPlan(_))));
    }),
    ("time over: all that was started is gone", |bench| {
        bench.sandbox.limits.wall_ms = 300;
        let begin = Instant::now();
        let outcome = bench.run(&sh("(setsid sleep 300 &) ; trap '' TERM INT; sleep 300"), &[]).unwrap();
        assert_eq!(outcome.end, End::TimedOut);
        assert!(begin.elapsed() < Duration::from_secs(200));
        wait_until_gone(&bench.world);
    }),
    ("a program that ends leaves nothing running", |bench| {
        assert_eq!(bench.run(&sh("sleep 300 & sleep 300 &"), &[]).unwrap().end, End::Exited(0));
        assert!(bench.world.marked().is_empty());
    }),
    ("too much on disk: killed and said so", |bench| {
        bench.sandbox.limits.disk_bytes = 4 << 20;
        let line =
            "i=0; while [ $i -lt 300 ]; do head -c 1000000 /dev/zero > f$i; sleep 0.02; i=$((i+1)); done";
        assert!(matches!(bench.run(&sh(line), &[]).unwrap().end, End::OverDisk(bytes) if bytes > 4 << 20));
    }),
    ("dropping the handle kills what runs", |bench| {
        let mut program = sh("sleep 300");
        program.env = bench.world.variables();
        let (running, streams) = bench.runtime.block_on(bench.sandbox.start(&program)).unwrap();
        wait_until_there(&bench.world);
        drop((running, streams));
        wait_until_gone(&bench.world);
    }),
    ("a host that is killed takes its sandbox along", |bench| {
        let mut starter = Command::new("/proc/self/exe")
            .arg(STARTER)
            .arg(bench.world.workspace.path())
            .arg(&bench.world.mark)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(starter.stdout.take().unwrap()), &mut line)
            .unwrap();
        wait_until_there(&bench.world);
        starter.kill().unwrap();
        starter.wait().unwrap();
        wait_until_gone(&bench.world);
    }),
    ("a layer that cannot stand is refused unless it may be missing", |bench| {
        let demanded = Layers::default().demand_all();
        let path = Path::new("/sys/kernel/no-such-path");
        bench.sandbox.view = bench.sandbox.view.clone().with(path, Path::new("/x"), Access::ReadOnly);
        bench.sandbox.layers = demanded.clone();
        let refused = bench.run(&sh("echo bare"), &[]);
        let first = if refused_group(&refused) { Layer::ControlGroup } else { Layer::MountNamespace };
        assert!(matches!(refused, Err(SandboxError::Refused { layer, .. }) if layer == first));
    }),
    ("nothing but the fixed few variables is seen", |bench| {
        let outcome =
            bench.runtime.block_on(bench.sandbox.run(&Program::new(["/usr/bin/env"]), &[], &mut |_| ()));
        let text = outcome.unwrap().output.text();
        let mut names: Vec<_> = text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        names.sort_unstable();
        assert_eq!(names, ["HOME", "LANG", "PATH", "TERM", "TMPDIR", "USER"]);
    }),
];

fn refused_group(refused: &Result<Outcome, SandboxError>) -> bool {
    matches!(refused, Err(SandboxError::Refused { layer: Layer::ControlGroup, .. }))
}

/// A process that is being executed shows its environment a little later.
fn wait_until_there(world: &World) {
    let begin = Instant::now();
    while world.marked().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(60), "no process was started");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn wait_until_gone(world: &World) {
    let begin = Instant::now();
    while !world.marked().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(60), "processes live on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Be the host that is about to be killed.
pub(crate) fn be_starter_if_asked() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).map(String::as_str) != Some(STARTER) {
        return;
    }
    let sandbox = Sandbox::new(View::new(Path::new(&args[2]), Access::ReadWrite));
    let mut program = sh("trap '' TERM INT HUP; (setsid sleep 300 &); sleep 300");
    program.env = vec![("MARK".into(), args[3].clone())];
    crate::runtime().block_on(async {
        let (mut running, _streams) = sandbox.start(&program).await.unwrap();
        println!("started");
        running.wait().await;
    });
    exit(0)
}

/// Run every test whose name fits; the number of those that failed.
pub(crate) fn run_all(filter: &str, host: &Host) -> usize {
    let chosen = TESTS.iter().filter(|(name, _)| name.contains(filter));
    let mut failed = 0;
    for (name, test) in chosen {
        let result = std::panic::catch_unwind(|| test(&mut Bench::new(host)));
        println!("{}  {name}", if result.is_ok() { "ok        " } else { "FAILED    " });
        failed += usize::from(result.is_err());
    }
    failed
}
