//! What can be done in one turn: a thought and a call, in the words of the agent's own tools.

use serde_json::{Map, Value};

/// A call of a tool by its real name.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Name of the agent's tool.
    pub tool: String,
    /// Arguments in declared order.
    pub arguments: Map<String, Value>,
}

/// One turn of the expert.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The thinking: one line.
    pub thought: String,
    /// The call; `None` ends the task.
    pub call: Option<Call>,
    /// The answer, where there is no call.
    pub answer: String,
    /// Whether the step is over even when its call fails: the failure is what it finds out.
    pub may_fail: bool,
}

impl Step {
    fn calling(tool: &str, arguments: &[(&str, Value)]) -> Self {
        let arguments = arguments.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let call = Call { tool: tool.to_owned(), arguments };
        Self { thought: String::new(), call: Some(call), answer: String::new(), may_fail: false }
    }

    /// The step with this thinking.
    #[must_use]
    pub fn thinking(mut self, thought: &str) -> Self {
        thought.clone_into(&mut self.thought);
        self
    }

    /// The step that is over even when its call fails.
    #[must_use]
    pub fn that_may_fail(mut self) -> Self {
        self.may_fail = true;
        self
    }
}

/// The first page of a file.
#[must_use]
pub fn read(path: &str) -> Step {
    Step::calling("read_file", &[("path", path.into())])
}

/// The page of a file that begins at a line, from 1.
#[must_use]
pub fn read_from(path: &str, line: usize) -> Step {
    Step::calling("read_file", &[("path", path.into()), ("from", line.into())])
}

/// A whole file written.
#[must_use]
pub fn write(path: &str, text: &str) -> Step {
    Step::calling("write_file", &[("path", path.into()), ("text", text.into())])
}

/// A passage replaced.
#[must_use]
pub fn edit(path: &str, old: &str, new: &str) -> Step {
    Step::calling("edit_file", &[("path", path.into()), ("old", old.into()), ("new", new.into())])
}

/// The lines of a file that hold a word.
#[must_use]
pub fn search(query: &str, path: &str) -> Step {
    Step::calling("search_files", &[("query", query.into()), ("path", path.into())])
}

/// The names in a folder; the workspace itself where there is none.
#[must_use]
pub fn list(folder: Option<&str>) -> Step {
    let arguments: Vec<(&str, Value)> = folder.map(|path| ("path", path.into())).into_iter().collect();
    Step::calling("list_files", &arguments)
}

/// An expression's value.
#[must_use]
pub fn calculate(expression: &str) -> Step {
    Step::calling("calculate", &[("expression", expression.into())])
}

/// The end, with what was written where.
#[must_use]
pub fn wrote(text: &str, path: &str) -> Step {
    answer(&format!("Wrote {text} to {path}."))
}

/// The end, with these words.
#[must_use]
pub fn answer(text: &str) -> Step {
    Step { thought: "done".to_owned(), call: None, answer: text.to_owned(), may_fail: false }
}
