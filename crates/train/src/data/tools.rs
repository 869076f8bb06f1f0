//! The agent's tools as an episode has them: under other names, beside others, or busy at first.

use super::rng::Rng;
use super::steps::Call;
use perilune_agent::gate::{BoxFuture, Effect, Resource};
use perilune_agent::tools::{Arguments, Declaration, Output, Registry, RegistryError, Scope, Tool};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is special about an episode's tools.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kit {
    /// Other names for tools, in the order in which they are declared; empty for the agent's own declarations.
    pub costumes: Vec<Costume>,
    /// A tool that is busy at first.
    pub fault: Option<Fault>,
}

/// A declaration that the model sees in place of a tool's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Costume {
    /// The agent's tool behind it; `None` for one that does nothing.
    pub tool: Option<&'static str>,
    /// What the model reads.
    pub declaration: Declaration,
    /// For each declared parameter in order, the real tool's name of it; of no use for a tool that does nothing.
    pub real_names: Vec<&'static str>,
}

/// A tool that does not answer the first times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Name of the agent's tool.
    pub tool: String,
    /// Number of calls that fail, before the first that does not.
    pub n_times: usize,
    /// What a failing call answers.
    pub sentence: &'static str,
}

/// What a busy tool says.
const BUSY: &[&str] = &[
    "the disk is busy; try again",
    "timed out; call again",
    "temporary failure; try again",
    "not ready yet; try the same call again",
    "the service is restarting; try again",
    "interrupted; nothing was done, call again",
];

impl Fault {
    /// A fault with a random sentence.
    pub fn draw(tool: &str, n_times: usize, rng: &mut Rng) -> Self {
        Self { tool: tool.to_owned(), n_times, sentence: *rng.pick(BUSY) }
    }
}

impl Kit {
    /// The tools of one episode. Its faults begin anew with each registry.
    ///
    /// # Errors
    /// [`RegistryError`]: costumes with the same or an illegal name.
    pub fn registry(&self, agent: &Registry) -> Result<Registry, RegistryError> {
        let tools: Vec<Arc<dyn Tool>> = agent.tools().iter().map(|tool| self.with_fault(tool)).collect();
        if self.costumes.is_empty() {
            return Registry::new(tools);
        }
        let by_name = |name: &str| tools.iter().find(|tool| tool.declaration().name == name).cloned();
        let dressed = self.costumes.iter().map(|costume| -> Arc<dyn Tool> {
            let inner = costume.tool.and_then(by_name);
            Arc::new(Dressed { inner, costume: costume.clone() })
        });
        Registry::new(dressed.collect())
    }

    fn with_fault(&self, tool: &Arc<dyn Tool>) -> Arc<dyn Tool> {
        match &self.fault {
            Some(fault) if fault.tool == tool.declaration().name => {
                let left = AtomicUsize::new(fault.n_times);
                Arc::new(Busy { inner: Arc::clone(tool), left, sentence: fault.sentence })
            }
            _ => Arc::clone(tool),
        }
    }

    /// A call as the model writes it: the declared names for a real tool and its parameters.
    #[must_use]
    pub fn worn(&self, call: &Call) -> Call {
        let Some(costume) = self.costumes.iter().find(|it| it.tool == Some(call.tool.as_str())) else {
            return call.clone();
        };
        let declared = costume.names().zip(&costume.real_names);
        let arguments =
            declared.filter_map(|(name, real)| Some((name.clone(), call.arguments.get(*real)?.clone())));
        Call { tool: costume.declaration.name.clone(), arguments: arguments.collect() }
    }
}

impl Costume {
    /// Names of the declared parameters, in order.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        let properties = self.declaration.parameters.get("properties").and_then(Value::as_object);
        properties.into_iter().flat_map(Map::keys)
    }

    /// What it does in one word, its name, and after each parameter what its declaration says of it and what that is
    /// by the agent's own name for it.
    #[must_use]
    pub fn naming(&self) -> String {
        let described = self.names().zip(&self.real_names).map(|(name, real)| {
            let description = &self.declaration.parameters["properties"][name]["description"];
            format!("; {name}: {}: {real}", description.as_str().unwrap_or_default())
        });
        let verb = match self.tool.unwrap_or("none") {
            "search_files" => "find",
            tool => tool.split('_').next().unwrap_or(tool),
        };
        format!("{verb} {}{}", self.declaration.name, described.collect::<String>())
    }
}

/// A tool under another declaration.
struct Dressed {
    inner: Option<Arc<dyn Tool>>,
    costume: Costume,
}

impl Dressed {
    fn real(&self, arguments: &Arguments) -> Arguments {
        let declared: Vec<_> = self.costume.names().zip(&self.costume.real_names).collect();
        let real = |name: &String| {
            let found = declared.iter().find(|(declared, _)| *declared == name);
            found.map_or_else(|| name.clone(), |(_, real)| (**real).to_owned())
        };
        arguments.iter().map(|(name, value)| (real(name), value.clone())).collect()
    }
}

impl Tool for Dressed {
    fn declaration(&self) -> Declaration {
        self.costume.declaration.clone()
    }

    fn effect(&self) -> Effect {
        self.inner.as_ref().map_or(Effect::Read, |inner| inner.effect())
    }

    fn resources(&self, arguments: &Arguments) -> Vec<Resource> {
        self.inner.as_ref().map_or_else(Vec::new, |inner| inner.resources(&self.real(arguments)))
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, scope: &'a Scope) -> BoxFuture<'a, Output> {
        Box::pin(async move {
            match &self.inner {
                Some(inner) => inner.run(&self.real(arguments), scope).await,
                None => Output::failed("this does not help here; use another tool"),
            }
        })
    }
}

/// A tool that is busy the first times.
struct Busy {
    inner: Arc<dyn Tool>,
    left: AtomicUsize,
    sentence: &'static str,
}

impl Tool for Busy {
    fn declaration(&self) -> Declaration {
        self.inner.declaration()
    }

    fn effect(&self) -> Effect {
        self.inner.effect()
    }

    fn resources(&self, arguments: &Arguments) -> Vec<Resource> {
        self.inner.resources(arguments)
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, scope: &'a Scope) -> BoxFuture<'a, Output> {
        let is_busy =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if is_busy.is_ok() {
            return Box::pin(std::future::ready(Output::failed(self.sentence)));
        }
        self.inner.run(arguments, scope)
    }
}
