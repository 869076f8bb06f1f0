//! What is proposed: a tool, its arguments, and what of the world they touch.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One call before its decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProposedCall {
    /// Name of the run.
    pub run: String,
    /// The call's number in the run, from 0: one less than its number in the journal.
    pub step: u64,
    /// Name of the tool.
    pub tool: String,
    /// The tool's effect class.
    pub effect: Effect,
    /// The arguments, valid under the tool's schema.
    pub arguments: Map<String, Value>,
    /// Everything that the call touches, as the tool itself reads its arguments. Paths and commands stand
    /// here as the model wrote them: the gate resolves and parses them.
    pub resources: Vec<Resource>,
}

impl ProposedCall {
    /// The same call about the places themselves that its paths led to when it was decided: what an answer is about
    /// that reaches beyond it, wherever a link leads by now.
    #[must_use]
    pub fn led_to(&self, outside: &[Outside]) -> Self {
        let mut call = self.clone();
        for resource in &mut call.resources {
            if let Resource::Path { access, path } = resource
                && let Some(it) = outside.iter().find(|it| it.access == *access && it.path == *path)
            {
                path.clone_from(&it.real);
            }
        }
        call
    }
}

/// What a repetition of an attempt would do, and so what happens to one whose outcome a crash hid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Changes nothing: run again.
    Read,
    /// The second attempt changes nothing more: run again with the same key.
    Idempotent,
    /// Must happen once; takes a key or can be probed for its effect.
    Once,
    /// Cannot be taken back or probed: a person decides.
    Irreversible,
}

/// One thing of the world that a call touches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Resource {
    /// A file or folder.
    Path {
        /// What is done with it.
        access: Access,
        /// As the model wrote it: relative to the workspace, or absolute.
        path: String,
    },
    /// A host on the network.
    Host {
        /// Name or address, without port.
        host: String,
        /// Port where one is named.
        port: Option<u16>,
    },
    /// A line for the shell.
    Command {
        /// The text as the model wrote it.
        text: String,
    },
}

/// A path outside the workspace that a call may open: exactly this one, for this call alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Outside {
    /// What is done with it.
    pub access: Access,
    /// As the model wrote it.
    pub path: String,
    /// Where it led when it was decided: absolute, without links and without `..`.
    pub real: String,
}

/// What is done with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Looked at.
    Read,
    /// Made, changed or removed.
    Write,
}
