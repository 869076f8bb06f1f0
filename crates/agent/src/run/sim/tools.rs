//! Tools of each effect class, rules of each kind, and a person.

use super::world::World;
use crate::gate::{
    Approval, Approver, BoxFuture, Decision, Effect, Gate, GateError, OnNoAnswer, ProposedCall, Question,
    Resource,
};
use crate::tools::{Arguments, Declaration, Output, Parameter, Probe, Scope, Tool};
use serde_json::Value;
use std::sync::Arc;

/// A tool that counts in the world.
struct Doer {
    name: &'static str,
    effect: Effect,
    takes_key: bool,
    can_probe: bool,
    world: Arc<World>,
}

/// `look` reads, `put` repeats, `pay` takes a key, `send` can be probed, `drop` can do neither, `launch` is not to be
/// repeated; `forbid` is denied and `confirm` asked.
pub(super) fn all(world: &Arc<World>) -> Vec<Arc<dyn Tool>> {
    let tools = [
        ("look", Effect::Read, false, false),
        ("put", Effect::Idempotent, false, false),
        ("pay", Effect::Once, true, false),
        ("send", Effect::Once, false, true),
        ("drop", Effect::Once, false, false),
        ("launch", Effect::Irreversible, false, false),
        ("forbid", Effect::Idempotent, false, false),
        ("confirm", Effect::Once, false, true),
    ];
    let tools = tools.into_iter().map(|(name, effect, takes_key, can_probe)| {
        Arc::new(Doer { name, effect, takes_key, can_probe, world: Arc::clone(world) }) as Arc<dyn Tool>
    });
    tools.collect()
}

fn id(arguments: &Arguments) -> u64 {
    arguments.get("id").and_then(Value::as_u64).unwrap_or(0)
}

impl Tool for Doer {
    fn declaration(&self) -> Declaration {
        Declaration::flat(self.name, "Counts.", &[Parameter::required("id", "integer", "what")])
    }

    fn effect(&self) -> Effect {
        self.effect
    }

    fn resources(&self, _arguments: &Arguments) -> Vec<Resource> {
        Vec::new()
    }

    fn takes_key(&self) -> bool {
        self.takes_key
    }

    fn probe(&self, arguments: &Arguments, _note: &Value, _scope: &Scope) -> Probe {
        match (self.can_probe, self.world.has_done(id(arguments))) {
            (false, _) => Probe::Unknown,
            (true, true) => Probe::Done(Output::done(format!("did {}", id(arguments)))),
            (true, false) => Probe::NotStarted,
        }
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, scope: &'a Scope) -> BoxFuture<'a, Output> {
        let id = id(arguments);
        self.world.act(self.name, id, &scope.key);
        Box::pin(std::future::ready(Output::done(format!("did {id}"))))
    }
}

/// `forbid` is denied, `confirm` asked, all else allowed.
pub(super) struct Rules;

impl Gate for Rules {
    fn decide(&self, call: &ProposedCall) -> Decision {
        let rule = "rule".to_owned();
        match call.tool.as_str() {
            "forbid" => Decision::Deny { rule, reason: "not here".to_owned() },
            "confirm" => Decision::Ask { rule, reason: "sure?".to_owned(), unattended: OnNoAnswer::Deny },
            _ => Decision::Allow { rule },
        }
    }

    fn remember(&self, _call: &ProposedCall, _approval: &Approval) -> Result<(), GateError> {
        Ok(())
    }
}

/// Looks at the world before answering about what is unknown; says yes to even ids otherwise.
pub(super) struct Person(pub(super) Arc<World>);

impl Approver for Person {
    fn ask<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Approval> {
        let id = id(&question.call.arguments);
        let is_unknown = question.rule != "rule";
        let is_yes = if is_unknown { !self.0.has_done(id) } else { id.is_multiple_of(2) };
        let answer = if is_yes { Approval::AllowOnce } else { Approval::Denied { reason: "no".to_owned() } };
        Box::pin(std::future::ready(answer))
    }
}
