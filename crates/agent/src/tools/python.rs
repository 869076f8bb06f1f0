//! `python`: CPython in the sandbox. One interpreter lives through a run, so variables and imports stay.

use super::arguments::{parse, text};
use super::confined::tell;
use super::workspace::{ARTEFACTS, OWN_FOLDER};
use super::{Arguments, Confined, Declaration, Output, Parameter, Scope, Tool};
use crate::gate::{Access, BoxFuture, Effect, Resource};
use crate::sandbox::{Access as Mounted, Captured, End, Interpreter, Program, Running, Streams};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

/// Runs in the interpreter: takes pieces of code, answers when each is done.
const DRIVER: &str = include_str!("driver.py");
/// Where artefacts are written, inside.
const ARTEFACTS_INSIDE: &str = "/artefacts";
/// Time for an interrupted piece of code to stop, before its interpreter is killed with its variables.
const INTERRUPT_GRACE: Duration = Duration::from_millis(2_000);
/// Processor time of an interpreter through the whole run, s.
const CPU_S: u64 = 6 * 3_600;
/// Most artefacts that one call names.
const N_ARTEFACTS_MAX: usize = 64;
/// Longest answer of the driver, bytes.
const REPLY_BYTES_MAX: usize = 1 << 12;

const LOST: &str = "the interpreter's variables and imports are lost; the next call starts a new one";

/// Runs Python code, in one interpreter through the run; figures and tables become artefacts.
pub struct Python {
    confined: Confined,
    interpreter: Interpreter,
    artefacts: PathBuf,
    session: Mutex<Option<Session>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    code: String,
    #[serde(default)]
    timeout_s: Option<u64>,
}

impl Python {
    /// The tool of one run, whose own folder (see [`super::Workspace::with_own_folder`]) is `own_folder`.
    ///
    /// # Errors
    /// The folder for artefacts cannot be made.
    pub fn new(confined: Confined, interpreter: Interpreter, own_folder: &Path) -> io::Result<Self> {
        let artefacts = own_folder.join(ARTEFACTS);
        std::fs::create_dir_all(&artefacts)?;
        Ok(Self { confined, interpreter, artefacts, session: Mutex::new(None) })
    }
}

impl Tool for Python {
    fn declaration(&self) -> Declaration {
        let parameters = [
            Parameter::required("code", "string", "Python 3; the last expression is shown"),
            Parameter::optional("timeout_s", "integer", "seconds until it is stopped"),
        ];
        let description = "Runs Python in the workspace, without network; variables stay. Files written to /artefacts, \
                           open figures and shown tables are kept.";
        Declaration::flat("python", description, &parameters)
    }

    /// Nobody can tell afterwards how far the code came.
    fn effect(&self) -> Effect {
        Effect::Irreversible
    }

    fn resources(&self, arguments: &Arguments) -> Vec<Resource> {
        let code = text(arguments, "code");
        let touched = code.map(|_| {
            let everywhere = Resource::Path { access: Access::Write, path: ".".to_owned() };
            [Resource::Command { text: "python3 -".to_owned() }, everywhere]
        });
        touched.into_iter().flatten().collect()
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, scope: &'a Scope) -> BoxFuture<'a, Output> {
        Box::pin(async move {
            match parse::<Args>(&self.declaration(), arguments) {
                Ok(args) => self.execute(args, scope).await.unwrap_or_else(Output::failed),
                Err(error) => error.into(),
            }
        })
    }

    /// A thread of the interpreter may still write.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Some(mut session) = self.session.lock().await.take() {
                session.running.kill().await;
            }
        })
    }
}

impl Python {
    async fn execute(&self, args: Args, scope: &Scope) -> Result<Output, String> {
        let wall = self.confined.wall(args.timeout_s)?;
        let mut kept = self.session.lock().await;
        // While a call runs its session stands outside the lock: a call that is given up takes it along.
        let mut session = match kept.take() {
            Some(session) => session,
            None => self.begin(scope).await?,
        };
        let before = artefacts(&self.artefacts);
        let mut output = Captured::new(self.confined.limits.output_bytes);
        let answer = session.run(&args.code, &mut output, wall).await;
        let made = changed(&before, &artefacts(&self.artefacts));
        if !matches!(answer, Answer::Lost(_)) {
            *kept = Some(session);
        }
        Ok(present(&output, &answer, &made, wall))
    }

    async fn begin(&self, scope: &Scope) -> Result<Session, String> {
        let mut sandbox = self.confined.sandbox(scope);
        sandbox.limits.cpu_s = CPU_S;
        let view = self.interpreter.add_to(sandbox.view);
        sandbox.view = view.with(&self.artefacts, Path::new(ARTEFACTS_INSIDE), Mounted::ReadWrite);
        let executable = self.interpreter.executable.to_str();
        let executable = executable.ok_or("the interpreter's path is not UTF-8")?;
        let mut program = Program::new([executable, "-u", "-c", DRIVER, ARTEFACTS_INSIDE]);
        program.takes_input = true;
        program.env = [("MPLBACKEND", "Agg"), ("MPLCONFIGDIR", "/tmp"), ("PYTHONDONTWRITEBYTECODE", "1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let (running, Streams { output, errors }) =
            sandbox.start(&program).await.map_err(|error| error.to_string())?;
        Ok(Session { running, replies: BufReader::new(output), printed: errors, n_calls: 0 })
    }
}

/// What became of a piece of code.
enum Answer {
    /// It ran to its end.
    Done,
    /// It raised; the traceback is in the output.
    Raised,
    /// It was stopped after its time; variables are kept.
    Stopped,
    /// The interpreter is gone.
    Lost(End),
}

/// A living interpreter.
struct Session {
    running: Running,
    replies: BufReader<pipe::Receiver>,
    printed: pipe::Receiver,
    n_calls: u64,
}

impl Session {
    /// Run one piece of code; what it prints goes to `output`.
    async fn run(&mut self, code: &str, output: &mut Captured, wall: Duration) -> Answer {
        self.n_calls += 1;
        let mark = format!("\0done {}\n", self.n_calls);
        let request = serde_json::json!({ "code": code, "mark": mark }).to_string();
        let deadline = Instant::now() + wall;
        if self.running.write(format!("{}\n{request}", request.len()).as_bytes()).await.is_err() {
            return Answer::Lost(self.running.wait().await);
        }
        let mut cut = Cut { mark: mark.into_bytes(), pending: Vec::new(), is_over: false };
        match timeout_at(deadline, self.finish(&mut cut, output)).await {
            Ok(Ok(is_done)) => return if is_done { Answer::Done } else { Answer::Raised },
            Ok(Err(_)) => return Answer::Lost(self.running.wait().await),
            Err(_) => drop(self.running.interrupt().await),
        }
        match timeout_at(Instant::now() + INTERRUPT_GRACE, self.finish(&mut cut, output)).await {
            Ok(Ok(_)) => Answer::Stopped,
            _ => {
                self.running.kill().await;
                cut.flush(output);
                Answer::Lost(End::TimedOut)
            }
        }
    }

    /// Take what is printed until the mark, then the driver's answer. May be dropped and asked again.
    async fn finish(&mut self, cut: &mut Cut, output: &mut Captured) -> io::Result<bool> {
        let mut piece = [0; 16 << 10];
        while !cut.is_over {
            match self.printed.read(&mut piece).await? {
                0 => {
                    cut.flush(output);
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                n => cut.take(&piece[..n], output),
            }
        }
        // The answer is written whole right after the mark.
        let mut line = Vec::new();
        let n = (&mut self.replies).take(REPLY_BYTES_MAX as u64).read_until(b'\n', &mut line).await?;
        if n == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(line == b"done\n") }
    }
}

/// Cuts a stream at a mark that may come in pieces.
struct Cut {
    mark: Vec<u8>,
    pending: Vec<u8>,
    is_over: bool,
}

impl Cut {
    fn take(&mut self, piece: &[u8], output: &mut Captured) {
        self.pending.extend_from_slice(piece);
        let found = self.pending.windows(self.mark.len()).position(|window| window == self.mark);
        self.is_over = found.is_some();
        let n_safe = found.unwrap_or((self.pending.len() + 1).saturating_sub(self.mark.len()));
        output.push(&self.pending[..n_safe]);
        self.pending.drain(..n_safe);
    }

    /// Nothing more will come: what looked like the beginning of the mark was none.
    fn flush(&mut self, output: &mut Captured) {
        output.push(&std::mem::take(&mut self.pending));
    }
}

/// Plain files in the artefact folder: name to time of change and size.
fn artefacts(folder: &Path) -> BTreeMap<String, (Option<SystemTime>, u64)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| {
        let meta = entry.path().symlink_metadata().ok().filter(std::fs::Metadata::is_file)?;
        let name = entry.file_name().into_string().ok().filter(|name| is_plain(name))?;
        Some((name, (meta.modified().ok(), meta.len())))
    });
    files.collect()
}

/// A name that says nothing but a name.
fn is_plain(name: &str) -> bool {
    name.len() <= 128 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._- ".contains(&byte))
}

type Files = BTreeMap<String, (Option<SystemTime>, u64)>;

fn changed(before: &Files, after: &Files) -> Vec<(String, u64)> {
    let new = after.iter().filter(|(name, state)| before.get(*name) != Some(*state));
    new.take(N_ARTEFACTS_MAX).map(|(name, (_, bytes))| (name.clone(), *bytes)).collect()
}

fn present(output: &Captured, answer: &Answer, made: &[(String, u64)], wall: Duration) -> Output {
    let mut lines = vec![output.text().trim_end().to_owned()];
    lines.retain(|text| !text.is_empty());
    lines.extend(
        made.iter().map(|(name, bytes)| format!("(kept {OWN_FOLDER}/{ARTEFACTS}/{name}, {bytes} bytes)")),
    );
    match answer {
        Answer::Done if lines.is_empty() => lines.push("(no output)".to_owned()),
        Answer::Done | Answer::Raised => {}
        Answer::Stopped => {
            lines.push(format!("(stopped after {} s; variables are kept)", wall.as_secs_f32()))
        }
        Answer::Lost(end) => lines.push(format!("{} {LOST}", tell(*end, wall))),
    }
    Output {
        is_done: matches!(answer, Answer::Done),
        artefacts: made.iter().map(|(name, _)| format!("{ARTEFACTS}/{name}")).collect(),
        ..Output::files(lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_in_any_pieces() {
        let stream = b"a\0done 1\0done 12\nrest";
        for step in 1..stream.len() {
            let mut output = Captured::new(100);
            let mut cut = Cut { mark: b"\0done 12\n".to_vec(), pending: Vec::new(), is_over: false };
            let mut pieces = stream.chunks(step);
            while !cut.is_over {
                cut.take(pieces.next().unwrap(), &mut output);
            }
            assert_eq!(output.text(), "a\0done 1", "step {step}");
        }
    }

    #[test]
    fn names_that_could_deceive_are_no_artefacts() {
        assert!(is_plain("figure-1.png"));
        for name in ["a\nb", "a/b", "\u{202e}gnp.exe", "$(x)"] {
            assert!(!is_plain(name), "{name}");
        }
    }
}
