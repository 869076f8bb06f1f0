//! Documents that run: Markdown with one case per `##` heading, its input and expectations in fences.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// A document.
pub struct Document {
    pub path: PathBuf,
    pub cases: Vec<Case>,
}

/// One heading with its lines.
pub struct Case {
    pub title: String,
    pub blocks: Vec<Block>,
}

/// Prose, or the body of a fence with its info word.
pub struct Block {
    /// `None` for prose.
    pub kind: Option<String>,
    pub body: String,
}

impl Case {
    pub fn get(&self, kind: &str) -> Option<&str> {
        self.blocks.iter().find(|block| block.kind.as_deref() == Some(kind)).map(|block| block.body.as_str())
    }

    /// Replaces the body of a fence.
    pub fn set(&mut self, kind: &str, body: &str) {
        let block = self.blocks.iter_mut().find(|block| block.kind.as_deref() == Some(kind));
        block.unwrap().body = body.to_owned();
    }
}

impl Document {
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let mut cases = vec![Case { title: String::new(), blocks: Vec::new() }];
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(title) = line.strip_prefix("## ") {
                cases.push(Case { title: title.to_owned(), blocks: Vec::new() });
                continue;
            }
            let case = cases.last_mut().unwrap();
            if let Some(kind) = line.strip_prefix("```") {
                let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
                case.blocks.push(Block { kind: Some(kind.to_owned()), body: body.join("\n") });
            } else {
                case.blocks.push(Block { kind: None, body: line.to_owned() });
            }
        }
        Self { path: path.to_owned(), cases }
    }

    pub fn write(&self) {
        let mut text = String::new();
        for case in &self.cases {
            if !case.title.is_empty() {
                writeln!(text, "## {}", case.title).unwrap();
            }
            for block in &case.blocks {
                match &block.kind {
                    Some(kind) => writeln!(text, "```{kind}\n{}\n```", block.body).unwrap(),
                    None => writeln!(text, "{}", block.body).unwrap(),
                }
            }
        }
        std::fs::write(&self.path, text).unwrap();
    }
}

/// Every `.md` file under a folder, in order.
pub fn all(dir: &Path) -> Vec<Document> {
    let mut paths = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "md") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    paths.iter().map(|path| Document::read(path)).collect()
}
