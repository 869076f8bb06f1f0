//! What a page shows: its fenced blocks, and the remark before each that says what a test does with it.

use std::path::Path;

/// One fenced block.
pub(crate) struct Block {
    /// Line of the fence, from 1.
    pub(crate) line: usize,
    /// Word behind the fence, such as `sh`.
    pub(crate) kind: String,
    pub(crate) text: String,
    pub(crate) remark: Remark,
}

/// `<!-- test: ... -->` before a block.
#[derive(Debug, PartialEq)]
pub(crate) enum Remark {
    /// There is none.
    None,
    /// `not run: WHY`
    NotRun(String),
    /// `exits with N`
    Exit(i32),
    /// `in the background`: a server, which is ready before the next block and ends with the page.
    Background,
    /// `printed`: every line stands in what the last command wrote.
    Printed,
    /// `file NAME`: the block is that file.
    File(String),
}

impl Remark {
    fn read(text: &str, place: &str) -> Self {
        let text = text.trim();
        if let Some(why) = text.strip_prefix("not run:") {
            assert!(why.split_whitespace().count() >= 3, "{place}: say why it is not run");
            return Self::NotRun(why.trim().to_owned());
        }
        if let Some(name) = text.strip_prefix("file ") {
            return Self::File(name.trim().to_owned());
        }
        if let Some(code) = text.strip_prefix("exits with ") {
            return Self::Exit(
                code.parse().unwrap_or_else(|_| panic!("{place}: {code:?} is no exit status")),
            );
        }
        match text {
            "in the background" => Self::Background,
            "printed" => Self::Printed,
            other => panic!("{place}: there is no remark {other:?}"),
        }
    }
}

/// The blocks of a page; a remark belongs to the block that follows it with nothing but blank lines between.
pub(crate) fn blocks(path: &Path) -> Vec<Block> {
    let page = std::fs::read_to_string(path).unwrap();
    let (mut blocks, mut remark) = (Vec::new(), Remark::None);
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let place = format!("{}:{}", path.display(), at + 1);
        let line = line.trim();
        if let Some(inner) = line.strip_prefix("<!-- test:").and_then(|it| it.strip_suffix("-->")) {
            assert!(remark == Remark::None, "{place}: two remarks for one block");
            remark = Remark::read(inner, &place);
        } else if let Some(kind) = line.strip_prefix("```") {
            let inner = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```");
            let text = inner.collect::<Vec<_>>().join("\n");
            let remark = std::mem::replace(&mut remark, Remark::None);
            blocks.push(Block { line: at + 1, kind: kind.to_owned(), text, remark });
        } else if !line.is_empty() {
            assert!(remark == Remark::None, "{place}: a remark without a block");
        }
    }
    blocks
}

#[test]
fn a_remark_belongs_to_the_block_behind_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let page = "# A\n<!-- test: not run: it needs a network -->\n\n```sh\na\nb\n```\n\n```toml\nc\n```\n";
    std::fs::write(file.path(), page).unwrap();
    let blocks = blocks(file.path());
    assert_eq!((blocks[0].text.as_str(), blocks[0].line), ("a\nb", 4));
    assert_eq!(blocks[0].remark, Remark::NotRun("it needs a network".to_owned()));
    assert_eq!((blocks[1].kind.as_str(), &blocks[1].remark), ("toml", &Remark::None));
}
