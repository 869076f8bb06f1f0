//! `todo`: the plan, kept outside the window.

use super::arguments::parse;
use super::{Arguments, Declaration, Output, Parameter, Scope, Tool, ready};
use crate::gate::{BoxFuture, Effect, Resource};

/// Longest plan in bytes.
const PLAN_BYTES_MAX: usize = 8_000;

/// Replaces the plan; the context shows it again whenever old turns fold.
pub struct Todo;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    plan: String,
}

impl Tool for Todo {
    fn declaration(&self) -> Declaration {
        let parameters = [Parameter::required("plan", "string", "the whole plan, done and open")];
        Declaration::flat("todo", "Keeps the plan in sight.", &parameters)
    }

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn resources(&self, _arguments: &Arguments) -> Vec<Resource> {
        Vec::new()
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, _scope: &'a Scope) -> BoxFuture<'a, Output> {
        ready(match parse::<Args>(&self.declaration(), arguments) {
            Ok(args) if args.plan.len() > PLAN_BYTES_MAX => Output::failed(format!(
                "the plan has {} bytes, {PLAN_BYTES_MAX} are allowed; shorten it",
                args.plan.len()
            )),
            Ok(args) => Output { plan: Some(args.plan), ..Output::done("the plan is kept") },
            Err(error) => error.into(),
        })
    }
}
