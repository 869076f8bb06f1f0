//! `finish`: the answer as a call, for models that are told to always call a tool.

use super::arguments::parse;
use super::{Arguments, Declaration, Output, Parameter, Scope, Tool, ready};
use crate::gate::{BoxFuture, Effect, Resource};

/// Ends the run with an answer.
pub struct Finish;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    answer: String,
}

impl Tool for Finish {
    fn declaration(&self) -> Declaration {
        let parameters = [Parameter::required("answer", "string", "the answer")];
        Declaration::flat("finish", "Ends the task with its answer.", &parameters)
    }

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn resources(&self, _arguments: &Arguments) -> Vec<Resource> {
        Vec::new()
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, _scope: &'a Scope) -> BoxFuture<'a, Output> {
        ready(match parse::<Args>(&self.declaration(), arguments) {
            Ok(args) => Output { answer: Some(args.answer), ..Output::done("finished") },
            Err(error) => error.into(),
        })
    }
}
