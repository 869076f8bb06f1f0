//! `shell`: a command line in the sandbox.

use super::arguments::{parse, text};
use super::confined::tell;
use super::{Arguments, Confined, Declaration, Output, Parameter, Scope, Tool};
use crate::gate::{BoxFuture, Effect, Resource};
use crate::sandbox::{End, Program};

/// Runs a line by `/bin/sh` in the workspace, each call from anew: no network, nothing of the host but the workspace.
#[derive(Debug, Clone, Default)]
pub struct Shell {
    /// How it is confined.
    pub confined: Confined,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    command: String,
    #[serde(default)]
    timeout_s: Option<u64>,
}

impl Tool for Shell {
    fn declaration(&self) -> Declaration {
        let parameters = [
            Parameter::required("command", "string", "line for /bin/sh"),
            Parameter::optional("timeout_s", "integer", "seconds until it is killed"),
        ];
        Declaration::flat("shell", "Runs a command line in the workspace, without network.", &parameters)
    }

    /// Nobody can tell afterwards how far a line came.
    fn effect(&self) -> Effect {
        Effect::Irreversible
    }

    fn resources(&self, arguments: &Arguments) -> Vec<Resource> {
        let command = text(arguments, "command").map(|text| Resource::Command { text: text.to_owned() });
        command.into_iter().collect()
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, scope: &'a Scope) -> BoxFuture<'a, Output> {
        Box::pin(async move {
            match parse::<Args>(&self.declaration(), arguments) {
                Ok(args) => self.execute(args, scope).await.unwrap_or_else(Output::failed),
                Err(error) => error.into(),
            }
        })
    }
}

impl Shell {
    async fn execute(&self, args: Args, scope: &Scope) -> Result<Output, String> {
        if args.command.trim().is_empty() {
            return Err("command is empty; give a line for /bin/sh".to_owned());
        }
        let wall = self.confined.wall(args.timeout_s)?;
        let mut sandbox = self.confined.sandbox(scope);
        sandbox.limits.wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        let program = Program::new(["/bin/sh", "-c", &args.command]);
        let ran = sandbox.run(&program, &[], &mut |_| ()).await;
        let outcome = ran.map_err(|error| error.to_string())?;
        let mut text = outcome.output.text();
        if outcome.end == End::Exited(0) {
            let nothing = text.trim().is_empty();
            return Ok(if nothing { Output::done("(no output)") } else { Output::files(text) });
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&tell(outcome.end, wall));
        Ok(Output { is_done: false, ..Output::files(text) })
    }
}
