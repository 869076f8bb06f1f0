//! Other names for the agent's tools: what a tool does and what a parameter means stands in its description only.

use super::names::Names;
use super::rng::Rng;
use super::tools::Costume;
use perilune_agent::tools::Declaration;
use serde_json::{Map, Value, json};

/// A tool, its parameters, and the words for them.
struct Wardrobe {
    tool: &'static str,
    names: &'static [&'static str],
    descriptions: &'static [&'static str],
    parameters: &'static [Words],
}

/// A parameter and the words for it.
struct Words {
    real: &'static str,
    names: &'static [&'static str],
    descriptions: &'static [&'static str],
}

const PATH: Words = Words {
    real: "path",
    names: &["path", "file", "name", "target", "filename", "document"],
    descriptions: &["file", "which file", "name of the file", "the file's path"],
};

const WARDROBES: &[Wardrobe] = &[
    Wardrobe {
        tool: "read_file",
        names: &["read_file", "open", "get_text", "show", "cat", "load_document", "view_file", "fetch_text"],
        descriptions: &[
            "Reads a file.",
            "Shows a file's text.",
            "Returns the lines of a file.",
            "Opens a file to read it.",
        ],
        parameters: &[PATH],
    },
    Wardrobe {
        tool: "write_file",
        names: &["write_file", "save", "put_text", "store", "create_document", "set_file", "output"],
        descriptions: &[
            "Writes a file.",
            "Saves text as a file.",
            "Creates a file with this text.",
            "Stores text in a file.",
        ],
        parameters: &[
            PATH,
            Words {
                real: "text",
                names: &["text", "content", "data", "body", "value", "string"],
                descriptions: &["its whole content", "what to write", "the text", "text to save"],
            },
        ],
    },
    Wardrobe {
        tool: "search_files",
        names: &["search_files", "grep", "find", "lookup", "locate", "find_lines", "query"],
        descriptions: &[
            "Finds lines with a word.",
            "Searches a file for words.",
            "Looks for a word in a file.",
            "Returns the lines that hold a word.",
        ],
        parameters: &[
            Words {
                real: "query",
                names: &["query", "word", "key", "what", "term", "pattern"],
                descriptions: &["words to find", "the word", "what to look for", "search word"],
            },
            Words {
                real: "path",
                names: &["path", "file", "where", "in_file", "source"],
                descriptions: &["file to search", "where to look", "file or folder", "the file searched"],
            },
        ],
    },
    Wardrobe {
        tool: "calculate",
        names: &["calculate", "calc", "eval", "math", "compute", "arithmetic", "solve"],
        descriptions: &[
            "Calculates exactly.",
            "Evaluates an expression.",
            "Does arithmetic.",
            "Computes a number.",
        ],
        parameters: &[Words {
            real: "expression",
            names: &["expression", "expr", "formula", "term", "input", "sum"],
            descriptions: &["such as 1.5*(2+3)", "what to calculate", "numbers and signs", "the expression"],
        }],
    },
    Wardrobe {
        tool: "list_files",
        names: &["list_files", "ls", "dir", "contents", "browse", "show_folder", "tree"],
        descriptions: &[
            "Lists a folder.",
            "Shows the names in a folder.",
            "Returns the files of a folder.",
            "Tells what a folder holds.",
        ],
        parameters: &[Words {
            real: "path",
            names: &["path", "folder", "directory", "where", "place"],
            descriptions: &["folder", "which folder", "the folder's path", "folder to list"],
        }],
    },
];

/// Tools that never help.
const DISTRACTORS: &[(&str, &str, &str, &str)] = &[
    ("send_mail", "Sends a message to a person.", "message", "what to send"),
    ("weather", "Tells the weather of a town.", "town", "which town"),
    ("translate", "Translates a sentence.", "sentence", "what to translate"),
    ("remind", "Reminds the user later.", "minutes", "how long to wait"),
    ("play_sound", "Plays a sound.", "sound", "which sound"),
    ("set_colour", "Changes the colour of the screen.", "colour", "which colour"),
    ("convert", "Turns one currency into another.", "currency", "which currency"),
    ("open_page", "Opens a page of the web.", "address", "where it is"),
];
/// Most of them beside the others.
const N_DISTRACTORS_MAX: usize = 2;

/// The embedded model's tools but `edit_file`, in random order, renamed, their parameters renamed and reordered, with up
/// to two tools that do nothing.
pub fn draw(names: &mut Names<'_>, rng: &mut Rng) -> Vec<Costume> {
    loop {
        let mut costumes: Vec<Costume> =
            WARDROBES.iter().map(|wardrobe| dress(wardrobe, names, rng)).collect();
        for _ in 0..rng.below(N_DISTRACTORS_MAX + 1) {
            let (name, description, parameter, meaning) = *rng.pick(DISTRACTORS);
            let declaration = declaration(name, description, &[(parameter.to_owned(), meaning)]);
            costumes.push(Costume { tool: None, declaration, real_names: vec!["none"] });
        }
        rng.shuffle(&mut costumes);
        let mut all: Vec<&str> = costumes.iter().map(|it| it.declaration.name.as_str()).collect();
        all.sort_unstable();
        all.dedup();
        if all.len() == costumes.len() {
            return costumes;
        }
    }
}

fn dress(wardrobe: &Wardrobe, names: &mut Names<'_>, rng: &mut Rng) -> Costume {
    let name = named(wardrobe.names, names, rng);
    let mut parameters: Vec<&Words> = wardrobe.parameters.iter().collect();
    rng.shuffle(&mut parameters);
    let mut declared: Vec<(String, &str)> = Vec::new();
    for words in &parameters {
        let mut name = named(words.names, names, rng);
        while declared.iter().any(|(taken, _)| *taken == name) {
            name = named(words.names, names, rng);
        }
        declared.push((name, *rng.pick(words.descriptions)));
    }
    let description = wardrobe.descriptions[rng.below(wardrobe.descriptions.len())];
    Costume {
        tool: Some(wardrobe.tool),
        declaration: declaration(&name, description, &declared),
        real_names: parameters.iter().map(|words| words.real).collect(),
    }
}

/// One of the usual names, or, one time in three, one that means nothing.
fn named(usual: &[&str], names: &mut Names<'_>, rng: &mut Rng) -> String {
    if rng.one_in(3) { names.name(rng).replace('-', "_") } else { (*rng.pick(usual)).to_owned() }
}

fn declaration(name: &str, description: &str, parameters: &[(String, &str)]) -> Declaration {
    let mut properties = Map::new();
    for (name, meaning) in parameters {
        properties.insert(name.clone(), json!({ "type": "string", "description": meaning }));
    }
    let required: Vec<&String> = parameters.iter().map(|(name, _)| name).collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), Value::from("object"));
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("required".to_owned(), json!(required));
    Declaration { name: name.to_owned(), description: description.to_owned(), parameters: schema }
}
