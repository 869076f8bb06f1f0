//! Calls and random numbers for tests.

use perilune_agent::gate::{Access, Decision, Effect, ProposedCall, Resource};
use serde_json::{Map, Value};

/// A call of `tool` that touches what `touch` says: `read PATH`, `write PATH`, `host NAME`, `run LINE`, or nothing.
pub(crate) fn call(tool: &str, touch: &str) -> ProposedCall {
    let (verb, rest) = touch.split_once(' ').unwrap_or((touch, ""));
    let resource = match verb {
        "read" => Some(Resource::Path { access: Access::Read, path: rest.to_owned() }),
        "write" => Some(Resource::Path { access: Access::Write, path: rest.to_owned() }),
        "host" => Some(Resource::Host { host: rest.to_owned(), port: None }),
        "run" => Some(Resource::Command { text: rest.to_owned() }),
        _ => None,
    };
    let arguments = Map::from_iter([("input".to_owned(), Value::from(rest))]);
    ProposedCall {
        run: "run".to_owned(),
        step: 0,
        tool: tool.to_owned(),
        effect: Effect::Once,
        arguments,
        resources: resource.into_iter().collect(),
    }
}

/// `allow RULE`, `ask RULE`, `deny RULE`.
pub(crate) fn told(decision: &Decision) -> String {
    let word = match decision {
        Decision::Allow { .. } => "allow",
        Decision::Ask { .. } => "ask",
        Decision::Deny { .. } => "deny",
    };
    format!("{word} {}", decision.rule())
}

/// Random numbers from a seed (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}
