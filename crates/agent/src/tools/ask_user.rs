//! `ask_user`: a question to the person, where one is there.

use super::arguments::parse;
use super::{Arguments, Declaration, Output, Parameter, Scope, Tool};
use crate::gate::{BoxFuture, Effect, Resource};

/// Asks the person and waits for the answer; says so where nobody is there.
pub struct AskUser;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    question: String,
}

impl Tool for AskUser {
    fn declaration(&self) -> Declaration {
        let parameters = [Parameter::required("question", "string", "one question")];
        Declaration::flat("ask_user", "Asks the user.", &parameters)
    }

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn resources(&self, _arguments: &Arguments) -> Vec<Resource> {
        Vec::new()
    }

    fn waits_for_person(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, scope: &'a Scope) -> BoxFuture<'a, Output> {
        Box::pin(async move {
            let question = match parse::<Args>(&self.declaration(), arguments) {
                Ok(args) => args.question,
                Err(error) => return error.into(),
            };
            let answer = match &scope.person {
                Some(person) => person.ask(&question).await,
                None => None,
            };
            match answer {
                Some(answer) => Output::done(answer),
                None => Output::failed("nobody is there to answer; decide yourself and say what you assumed"),
            }
        })
    }
}
