//! The tools of a run, by name.

use super::{
    AskUser, Calculate, Declaration, EditFile, Finish, ListFiles, ReadFile, SearchFiles, Todo, Tool,
    WriteFile,
};
use perilune_chat::message;
use std::sync::Arc;

/// Why tools cannot stand together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RegistryError {
    /// Two tools have one name.
    #[error("two tools are called {name}; rename one")]
    Twice {
        /// The name.
        name: String,
    },
    /// A declaration that no model can read.
    #[error("the tool {name} cannot be declared: {problem}")]
    Declaration {
        /// The name.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// The tools of a run in declared order.
#[derive(Clone, Default)]
pub struct Registry {
    tools: Vec<Arc<dyn Tool>>,
    declared: Vec<message::Tool>,
}

impl Registry {
    /// These tools, in this order.
    ///
    /// # Errors
    /// [`RegistryError`]: two have one name, or a declaration is not legal.
    pub fn new(tools: Vec<Arc<dyn Tool>>) -> Result<Self, RegistryError> {
        let mut registry = Self::default();
        for tool in tools {
            registry.add(tool)?;
        }
        Ok(registry)
    }

    /// Tools on files and numbers: what the embedded model was trained with.
    #[must_use]
    pub fn embedded() -> Self {
        let tools: Vec<Arc<dyn Tool>> = vec![
            Arc::new(ListFiles),
            Arc::new(ReadFile),
            Arc::new(WriteFile),
            Arc::new(EditFile),
            Arc::new(SearchFiles),
            Arc::new(Calculate),
        ];
        Self::new(tools).expect("the tools of this crate have legal and different names")
    }

    /// Those of [`Registry::embedded`], and plan, questions and the answer as a call.
    #[must_use]
    pub fn standard() -> Self {
        let mut registry = Self::embedded();
        let more: [Arc<dyn Tool>; 3] = [Arc::new(Todo), Arc::new(AskUser), Arc::new(Finish)];
        for tool in more {
            registry.add(tool).expect("the tools of this crate have legal and different names");
        }
        registry
    }

    /// One more tool, last in order.
    ///
    /// # Errors
    /// [`RegistryError`]: its name is taken, or its declaration is not legal.
    pub fn add(&mut self, tool: Arc<dyn Tool>) -> Result<(), RegistryError> {
        let declaration = tool.declaration();
        let name = declaration.name.clone();
        if self.get(&name).is_some() {
            return Err(RegistryError::Twice { name });
        }
        let declared = declaration.to_tool();
        let declared =
            declared.map_err(|error| RegistryError::Declaration { name, problem: error.to_string() })?;
        self.declared.push(declared);
        self.tools.push(tool);
        Ok(())
    }

    /// The tool of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Tool>> {
        let idx = self.declared.iter().position(|tool| tool.name() == name)?;
        self.tools.get(idx)
    }

    /// All tools in declared order.
    #[must_use]
    pub fn tools(&self) -> &[Arc<dyn Tool>] {
        &self.tools
    }

    /// The declarations as the chat template takes them.
    #[must_use]
    pub fn declared(&self) -> &[message::Tool] {
        &self.declared
    }

    /// Names in declared order.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.declared.iter().map(message::Tool::name).collect()
    }

    /// The declarations, in order.
    #[must_use]
    pub fn declarations(&self) -> Vec<Declaration> {
        self.tools.iter().map(|tool| tool.declaration()).collect()
    }
}
