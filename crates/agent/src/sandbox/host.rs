//! The host's side: start the stages, hear their reports, keep the output within bounds, kill in time.

use super::cgroup::ControlGroup;
use super::layers::{Layer, Layers};
use super::limits::{FRAME_MARGIN_BYTES, KILL_GRACE_MS, Limits, START_MS};
use super::output::Captured;
use super::view::View;
use super::wire::{
    FRAME_BYTES_MAX, FRAME_HEAD_BYTES, Outer, Plan, Program, RESERVED, Report, frame, kind, read_frame,
};
use nix::unistd::geteuid;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::time::{sleep_until, timeout};

/// Bytes read from a stream at once.
const PIECE_BYTES: usize = 64 << 10;

/// Why a program was not run, or was lost.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel refused a layer that may not be missing.
    #[error(
        "the sandbox refuses to run: this system does not give it `{layer}` ({why}); \
         name that layer among those that may be missing only if you accept running without it"
    )]
    Refused {
        /// The layer that could not be put up.
        layer: Layer,
        /// The kernel's reason.
        why: String,
    },
    /// All layers stand, but the program was not found or is not executable.
    #[error("nothing was run: {0}")]
    NotStarted(String),
    /// A path or command line that the sandbox cannot take.
    #[error("the sandbox cannot take this: {0}")]
    BadPlan(String),
    /// The sandbox's own processes could not be started or ended without a report.
    #[error("the sandbox failed: {0}; nothing more is known of what ran inside")]
    Failed(#[from] io::Error),
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit status.
    Exited(i32),
    /// By the signal of this number.
    Signalled(i32),
    /// Killed, with all that it started, after the wall-clock limit.
    TimedOut,
    /// Killed, with all that it started, for writing this many bytes to storage.
    OverDisk(u64),
    /// Killed by the caller, or lost with its first process.
    Killed,
}

/// What a program left.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Its output; with [`Sandbox::run`], errors too, in the order in which they were written.
    pub output: Captured,
    /// Wall-clock time, milliseconds, with the start of the sandbox.
    pub wall_ms: u64,
    /// Processor time, milliseconds, of it and of all that it waited for.
    pub cpu_ms: u64,
    /// Largest resident size of one process, bytes.
    pub peak_rss_bytes: u64,
    /// Layers that the kernel refused and that may be missing, with its reason.
    pub missing: Vec<(Layer, String)>,
}

/// Everything that the caller decides about a sandbox; programs are then started in it one by one.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Binary that calls [`super::enter_if_asked`] first in its `main`; `/proc/self/exe` is this one.
    pub binary: PathBuf,
    /// Layers that are wanted, and which may be missing.
    pub layers: Layers,
    /// How much may be taken.
    pub limits: Limits,
    /// What can be seen.
    pub view: View,
}

impl Sandbox {
    /// All layers and the standard limits around this view, entered through this very binary.
    pub fn new(view: View) -> Self {
        Self { binary: "/proc/self/exe".into(), layers: Layers::default(), limits: Limits::default(), view }
    }

    /// Run a program to its end, at most [`Limits::wall_ms`]. Each piece of output goes to `sink` as it comes; the
    /// outcome keeps [`Limits::output_bytes`] of it. `input` is used where the program takes any.
    ///
    /// # Errors
    /// [`SandboxError`]: nothing was run, or the sandbox itself failed; how the program fared is in the outcome.
    pub async fn run(
        &self,
        program: &Program,
        input: &[u8],
        sink: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<Outcome, SandboxError> {
        let begin = Instant::now();
        let (reader, writer) = io::pipe()?;
        let errors = writer.try_clone()?;
        let mut running = self.start_with(program, writer.into(), errors.into()).await?;
        if program.takes_input {
            // A program may end without reading all of it.
            let _ = running.write(input).await;
            let _ = running.end_input().await;
        }
        let mut output = pipe::Receiver::from_owned_fd(reader.into())?;
        let mut kept = Captured::new(self.limits.output_bytes);
        let deadline = begin + Duration::from_millis(self.limits.wall_ms);
        let end = running.collect(&mut output, &mut kept, sink, deadline).await;
        let (cpu_ms, peak_rss_bytes) = running.usage;
        let wall_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Outcome { end, output: kept, wall_ms, cpu_ms, peak_rss_bytes, missing: running.missing })
    }

    /// Start a program and hand back its streams; it lives until it ends, is killed, or the handle is dropped.
    /// [`Limits::wall_ms`] and [`Limits::output_bytes`] are the caller's to hold.
    ///
    /// # Errors
    /// [`SandboxError`]: nothing was run.
    pub async fn start(&self, program: &Program) -> Result<(Running, Streams), SandboxError> {
        let ((output, to_output), (errors, to_errors)) = (io::pipe()?, io::pipe()?);
        let running = self.start_with(program, to_output.into(), to_errors.into()).await?;
        let receiver = |reader: io::PipeReader| pipe::Receiver::from_owned_fd(reader.into());
        Ok((running, Streams { output: receiver(output)?, errors: receiver(errors)? }))
    }

    async fn start_with(
        &self,
        program: &Program,
        output: OwnedFd,
        errors: OwnedFd,
    ) -> Result<Running, SandboxError> {
        let group =
            if self.layers.wants(Layer::ControlGroup) { ControlGroup::make(&self.limits) } else { None };
        let frames = self.frames(program, group.as_ref())?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (reports, control) = UnixStream::from_std(ours)?.into_split();
        let mut command = Command::new(&self.binary);
        command.args([RESERVED, "outer"]).kill_on_drop(true);
        if self.layers.wants(Layer::CleanStart) {
            command.env_clear();
        }
        command
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(output))
            .stderr(Stdio::from(errors));
        let child = command.spawn()?;
        drop(command);
        let mut running = Running {
            child,
            control: Some(control),
            reports,
            inbox: Vec::new(),
            end: None,
            usage: (0, 0),
            missing: Vec::new(),
            _group: group,
        };
        let started = async {
            running.send(&frames).await?;
            running.await_start().await
        };
        match timeout(Duration::from_millis(START_MS), started).await {
            Ok(started) => started?,
            Err(_) => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
        Ok(running)
    }

    fn frames(&self, program: &Program, group: Option<&ControlGroup>) -> Result<Vec<u8>, SandboxError> {
        if let Some(fault) = self.view.fault() {
            return Err(SandboxError::BadPlan(fault));
        }
        let outer = Outer {
            layers: self.layers.clone(),
            cgroup_procs: group.map(ControlGroup::procs).unwrap_or_default(),
        };
        let plan = Plan {
            layers: self.layers.clone(),
            limits: self.limits.clone(),
            view: self.view.resolved(),
            program: program.clone(),
            root_outside: geteuid().is_root(),
            in_cgroup: group.is_some(),
        };
        let bad = |error: serde_json::Error| SandboxError::BadPlan(error.to_string());
        let (outer, plan) =
            (serde_json::to_vec(&outer).map_err(bad)?, serde_json::to_vec(&plan).map_err(bad)?);
        if plan.len() > FRAME_BYTES_MAX - FRAME_MARGIN_BYTES {
            return Err(SandboxError::BadPlan(format!("a command line of {} bytes is too long", plan.len())));
        }
        Ok([frame(kind::OUTER, &outer), frame(kind::PLAN, &plan)].concat())
    }
}

/// Output and errors of a started program.
pub struct Streams {
    /// What it writes to standard output.
    pub output: pipe::Receiver,
    /// What it writes to standard error.
    pub errors: pipe::Receiver,
}

/// A started program. Dropping it kills everything inside.
pub struct Running {
    child: Child,
    control: Option<OwnedWriteHalf>,
    reports: OwnedReadHalf,
    inbox: Vec<u8>,
    end: Option<End>,
    usage: (u64, u64),
    missing: Vec<(Layer, String)>,
    _group: Option<ControlGroup>,
}

impl Running {
    /// Process id, outside, of the parent of the first process inside; `None` once it has ended.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Layers that the kernel refused and that may be missing, with its reason.
    pub fn missing(&self) -> &[(Layer, String)] {
        &self.missing
    }

    /// Hand bytes to the program's input.
    ///
    /// # Errors
    /// The sandbox has ended.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE_BYTES) {
            self.send(&frame(kind::INPUT, piece)).await?;
        }
        Ok(())
    }

    /// End the program's input.
    ///
    /// # Errors
    /// The sandbox has ended.
    pub async fn end_input(&mut self) -> io::Result<()> {
        self.send(&frame(kind::END_OF_INPUT, &[])).await
    }

    /// Send the program `SIGINT`, as Ctrl-C would.
    ///
    /// # Errors
    /// The sandbox has ended.
    pub async fn interrupt(&mut self) -> io::Result<()> {
        self.send(&frame(kind::INTERRUPT, &[])).await
    }

    /// Wait for the end; all processes inside are gone when this returns. May be dropped and asked again.
    pub async fn wait(&mut self) -> End {
        let end = match self.end {
            Some(end) => end,
            None => self.await_end().await,
        };
        self.end = Some(end);
        self.kill().await;
        end
    }

    async fn await_end(&mut self) -> End {
        loop {
            match self.next_report().await {
                Some(Report::Ended { code, signal, cpu_ms, peak_rss_bytes }) => {
                    self.usage = (cpu_ms, peak_rss_bytes);
                    return code.map(End::Exited).or(signal.map(End::Signalled)).unwrap_or(End::Killed);
                }
                Some(Report::OverDisk { written_bytes }) => return End::OverDisk(written_bytes),
                Some(_) => {}
                None => return End::Killed,
            }
        }
    }

    /// Kill everything inside, and return when it is gone.
    pub async fn kill(&mut self) {
        // The first process inside ends when our end of the socket closes, and its namespace with it; its parent ends
        // only after that.
        self.control = None;
        if timeout(Duration::from_millis(KILL_GRACE_MS), self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.control {
            Some(control) => control.write_all(bytes).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// The next report; what has arrived of it is kept when this is dropped.
    async fn next_report(&mut self) -> Option<Report> {
        loop {
            if let Ok((_, body)) = read_frame(&mut self.inbox.as_slice()) {
                self.inbox.drain(..FRAME_HEAD_BYTES + body.len());
                return serde_json::from_slice(&body).ok();
            }
            if self.reports.read_buf(&mut self.inbox).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn await_start(&mut self) -> Result<(), SandboxError> {
        loop {
            match self.next_report().await {
                Some(Report::Missing { layer, why }) => self.missing.push((layer, why)),
                Some(Report::Refused { layer, why }) => return Err(SandboxError::Refused { layer, why }),
                Some(Report::NotStarted { why }) => return Err(SandboxError::NotStarted(why)),
                Some(_) => return Ok(()),
                None => {
                    let what = "its first process ended before the program started; does the binary call \
                                `enter_if_asked` first in its `main`?";
                    return Err(io::Error::other(what).into());
                }
            }
        }
    }

    /// Read output until the program has ended and its output too, or the time is over.
    async fn collect(
        &mut self,
        output: &mut pipe::Receiver,
        kept: &mut Captured,
        sink: &mut (dyn FnMut(&[u8]) + Send),
        deadline: Instant,
    ) -> End {
        let mut buffer = vec![0; PIECE_BYTES];
        let mut end = None;
        let mut until = deadline;
        loop {
            tokio::select! {
                read = output.read(&mut buffer) => match read {
                    Ok(n) if n > 0 => { kept.push(&buffer[..n]); sink(&buffer[..n]); }
                    _ => break,
                },
                ended = self.wait_unless(end.is_some()) => {
                    end = Some(ended);
                    // Whoever still holds the stream escaped the namespace's end, which only a missing layer permits.
                    until = Instant::now() + Duration::from_millis(KILL_GRACE_MS);
                }
                () = sleep_until(until.into()) => break,
            }
        }
        match end {
            Some(end) => end,
            None if Instant::now() >= deadline => {
                self.kill().await;
                End::TimedOut
            }
            // The program closed its output and still runs.
            None => timeout_at(deadline, self).await,
        }
    }

    async fn wait_unless(&mut self, ended: bool) -> End {
        if ended { std::future::pending().await } else { self.wait().await }
    }
}

async fn timeout_at(deadline: Instant, running: &mut Running) -> End {
    match tokio::time::timeout_at(deadline.into(), running.wait()).await {
        Ok(end) => end,
        Err(_) => {
            running.kill().await;
            End::TimedOut
        }
    }
}
