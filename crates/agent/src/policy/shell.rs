//! Which commands would a line for the shell run? Parsed into words, never matched as text.
//!
//! Only lines that can be read without running them are plain: words, quotes, pipes, lists, redirections to
//! a written path. Everything else (variables, substitutions, subshells, keywords, here-documents, commands
//! that run other commands) makes the line opaque: policy then asks, whatever a rule allows. From an opaque
//! line, the commands that can be guessed are kept for rules that deny. Grammar: POSIX.1-2017, section 2,
//! "Shell Command Language", and what bash adds to its operators.

use crate::gate::Access;

/// Longest line that is parsed, in bytes; a longer one is opaque.
pub const COMMAND_BYTES_MAX: usize = 16 << 10;

/// A line, parsed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// The commands, in order of writing; pipes and lists are taken apart.
    pub commands: Vec<Command>,
    /// Files that redirections open, as written.
    pub redirects: Vec<(Access, String)>,
    /// Why the line cannot be read without running it; `None` for a plain one.
    pub opaque: Option<&'static str>,
    /// For an opaque line: commands that it may hold. For rules that deny, never for rules that allow.
    pub guesses: Vec<Command>,
}

/// One command: its name and arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Command {
    /// Its words; never empty in a parsed [`Line`].
    pub words: Vec<Word>,
}

/// One word after quotes are taken off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Word {
    /// The text.
    pub text: String,
    /// Whether the shell would put something else in its place (`*`, `?`, `[`, `~`, braces).
    pub expands: bool,
}

impl Command {
    /// The name without its folder: `rm` of `/bin/rm`.
    #[must_use]
    pub fn base_name(&self) -> &str {
        self.words.first().map_or("", |word| word.text.rsplit('/').next().unwrap_or_default())
    }
}

/// Reads a line; one of more than [`COMMAND_BYTES_MAX`] bytes is opaque.
#[must_use]
pub fn parse(text: &str) -> Line {
    let mut line = Line::default();
    let read = if text.len() > COMMAND_BYTES_MAX {
        Err("it is too long")
    } else {
        tokens(text).and_then(|tokens| assemble(&tokens, &mut line))
    };
    let read = read.and_then(|()| check_commands(&line));
    if let Err(why) = read {
        line = Line { opaque: Some(why), guesses: guesses(text, 0), ..Line::default() };
    }
    line
}

/// Words that open a construct of the shell where a command's name could stand.
const KEYWORDS: [&str; 21] = [
    "if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "select",
    "function", "coproc", "in", "{", "}", "!", "[[", "((",
];

/// Commands that run the command in their arguments.
const RUNNERS: [&str; 42] = [
    "env",
    "sudo",
    "doas",
    "su",
    "nohup",
    "nice",
    "ionice",
    "setsid",
    "stdbuf",
    "timeout",
    "time",
    "command",
    "builtin",
    "exec",
    "xargs",
    "chroot",
    "unshare",
    "nsenter",
    "strace",
    "ltrace",
    "watch",
    "parallel",
    "busybox",
    "eval",
    "source",
    ".",
    "trap",
    "alias",
    "ssh",
    "script",
    "flock",
    "setarch",
    "taskset",
    "chrt",
    "prlimit",
    "numactl",
    "setpriv",
    "runuser",
    "pkexec",
    "fakeroot",
    "systemd-run",
    "unbuffer",
];

/// Commands after which the shell reads its next words otherwise.
const CHANGERS: [&str; 20] = [
    "declare",
    "export",
    "typeset",
    "local",
    "readonly",
    "read",
    "mapfile",
    "readarray",
    "set",
    "shopt",
    "enable",
    "hash",
    "unset",
    "getopts",
    "bind",
    "complete",
    "let",
    "wait",
    "umask",
    "ulimit",
];

const SHELLS: [&str; 11] =
    ["sh", "bash", "rbash", "dash", "ash", "zsh", "ksh", "mksh", "csh", "tcsh", "fish"];

#[derive(Debug, PartialEq)]
enum Token {
    /// A word, and whether any of it was quoted.
    Word(Word, bool),
    /// Between two commands: `|`, `&&`, `;`, a new line.
    Separator,
    /// A redirection; the next word is its target. `None` for a copy of a descriptor.
    Redirect(Option<Access>),
}

fn tokens(text: &str) -> Result<Vec<Token>, &'static str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = match first {
            ' ' | '\t' => &rest[1..],
            '#' => rest.find('\n').map_or("", |end| &rest[end..]),
            '\n' | ';' | '|' | '&' | '<' | '>' | '(' | ')' => operator(rest, &mut found)?,
            '\\' if rest.starts_with("\\\n") => &rest[2..],
            _ => word(rest, &mut found)?,
        };
    }
    Ok(found)
}

fn operator<'a>(rest: &'a str, found: &mut Vec<Token>) -> Result<&'a str, &'static str> {
    const REFUSED: [(&str, &str); 4] = [
        ("<<", "it holds a here-document"),
        ("(", "it holds a subshell"),
        (")", "it holds a subshell"),
        (";;", "it holds a case"),
    ];
    const SEPARATORS: [&str; 7] = ["&&", "||", "|&", "|", ";", "\n", "&"];
    const WRITES: [&str; 6] = ["&>>", "&>", ">>", ">|", "<>", ">"];
    if let Some((_, why)) = REFUSED.iter().find(|(text, _)| rest.starts_with(text)) {
        return Err(why);
    }
    for copy in [">&", "<&"] {
        if let Some(after) = rest.strip_prefix(copy) {
            let is_number = after.starts_with(|c: char| c.is_ascii_digit() || c == '-');
            found.push(Token::Redirect((!is_number).then_some(Access::Write)));
            return Ok(after);
        }
    }
    if let Some(write) = WRITES.iter().find(|text| rest.starts_with(**text)) {
        found.push(Token::Redirect(Some(Access::Write)));
        return Ok(&rest[write.len()..]);
    }
    if let Some(separator) = SEPARATORS.iter().find(|text| rest.starts_with(**text)) {
        found.push(Token::Separator);
        return Ok(&rest[separator.len()..]);
    }
    found.push(Token::Redirect(Some(Access::Read)));
    Ok(&rest[1..])
}

fn word<'a>(rest: &'a str, found: &mut Vec<Token>) -> Result<&'a str, &'static str> {
    let mut word = Word::default();
    let mut quoted = false;
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | ';' | '|' | '&' | '(' | ')' | '<' | '>' => {
                let is_descriptor = matches!(c, '<' | '>')
                    && !quoted
                    && !word.text.is_empty()
                    && word.text.bytes().all(|b| b.is_ascii_digit());
                if !is_descriptor {
                    found.push(Token::Word(word, quoted));
                }
                return Ok(&rest[at..]);
            }
            '\'' => {
                quoted = true;
                let end = chars.by_ref().find_map(|(end, c)| (c == '\'').then_some(end));
                let end = end.ok_or("a quote is not closed")?;
                word.text.push_str(&rest[at + 1..end]);
            }
            '"' => {
                quoted = true;
                double_quoted(&mut chars, &mut word.text)?;
            }
            '\\' => match chars.next() {
                None => return Err("it ends in a backslash"),
                Some((_, '\n')) => {}
                Some((_, c)) => {
                    quoted = true;
                    word.text.push(c);
                }
            },
            '$' => return Err("it holds a variable or a substitution"),
            '`' => return Err("it holds a substitution"),
            '\0' => return Err("it holds a zero byte"),
            _ => {
                let home = c == '~' && (at == 0 || word.text.ends_with(['=', ':']));
                word.expands |= home || matches!(c, '*' | '?' | '[' | '{' | '}');
                word.text.push(c);
            }
        }
    }
    found.push(Token::Word(word, quoted));
    Ok("")
}

fn double_quoted(chars: &mut std::str::CharIndices<'_>, text: &mut String) -> Result<(), &'static str> {
    while let Some((_, c)) = chars.next() {
        match c {
            '"' => return Ok(()),
            '$' | '`' => return Err("it holds a variable or a substitution"),
            '\0' => return Err("it holds a zero byte"),
            '\\' => match chars.next() {
                Some((_, '\n')) => {}
                Some((_, c)) if matches!(c, '$' | '`' | '"' | '\\') => text.push(c),
                Some((_, c)) => text.extend(['\\', c]),
                None => return Err("a quote is not closed"),
            },
            _ => text.push(c),
        }
    }
    Err("a quote is not closed")
}

/// Joins tokens to commands and redirections.
fn assemble(tokens: &[Token], line: &mut Line) -> Result<(), &'static str> {
    let mut command = Command::default();
    let mut tokens = tokens.iter();
    while let Some(token) = tokens.next() {
        match token {
            Token::Separator => end(&mut command, line),
            Token::Redirect(access) => {
                let Some(Token::Word(target, _)) = tokens.next() else {
                    return Err("a redirection has no target");
                };
                if target.expands {
                    return Err("a redirection's target is made by the shell");
                }
                if access.is_none() && !is_descriptor(&target.text) {
                    return Err("a redirection's target cannot be read");
                }
                line.redirects.extend(access.map(|access| (access, target.text.clone())));
            }
            Token::Word(word, quoted) => {
                if command.words.is_empty() && !quoted && KEYWORDS.contains(&word.text.as_str()) {
                    return Err("it holds a construct of the shell");
                }
                if command.words.is_empty() && is_assignment(&word.text) {
                    return Err("it sets a variable");
                }
                if command.words.is_empty() && word.expands {
                    return Err("a command's name is made by the shell");
                }
                command.words.push(word.clone());
            }
        }
    }
    end(&mut command, line);
    if line.commands.is_empty() && line.redirects.is_empty() { Err("it holds no command") } else { Ok(()) }
}

fn end(command: &mut Command, line: &mut Line) {
    if !command.words.is_empty() {
        line.commands.push(std::mem::take(command));
    }
}

/// `2`, `-` or `2-`: what follows `>&` when it copies or closes a descriptor.
fn is_descriptor(target: &str) -> bool {
    let digits = target.strip_suffix('-').unwrap_or(target);
    !target.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        let name = name.strip_suffix('+').unwrap_or(name);
        let name = name.split_once('[').map_or(name, |(name, _)| name);
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// Commands that hide others, and redirections that a change of folder would lead elsewhere.
fn check_commands(line: &Line) -> Result<(), &'static str> {
    for command in &line.commands {
        let name = command.base_name();
        if RUNNERS.contains(&name) || SHELLS.contains(&name) {
            return Err("it runs a command that runs others");
        }
        let sets = name == "printf" && command.words.iter().any(|word| word.text.starts_with("-v"));
        if CHANGERS.contains(&name) || sets {
            return Err("it changes the shell that runs it");
        }
        let runs = |word: &Word| ["-exec", "-ok"].iter().any(|flag| word.text.starts_with(flag));
        if name == "find" && command.words.iter().any(runs) {
            return Err("it runs a command that runs others");
        }
        if matches!(name, "cd" | "pushd" | "popd") && !line.redirects.is_empty() {
            return Err("it changes the folder before a redirection");
        }
    }
    Ok(())
}

/// How deep commands within commands are guessed.
const GUESS_DEPTH_MAX: usize = 3;
/// Most guesses of one line.
const N_GUESSES_MAX: usize = 512;

/// The commands that an opaque line may hold: cut at every operator, quotes taken off; behind a command that
/// runs others, every later word may be a name, and every quoted text a line.
fn guesses(text: &str, depth: usize) -> Vec<Command> {
    let mut found = Vec::new();
    let text = &text[..text.floor_char_boundary(COMMAND_BYTES_MAX)];
    let pieces = text.split(['\n', ';', '|', '&', '(', ')', '`', '<', '>']);
    for piece in pieces.flat_map(|piece| piece.split("$(")) {
        let piece = piece.trim_start_matches(['{', '}', '!', '$', ' ', '\t', '"', '\'']);
        let words: Vec<_> = piece.split_whitespace().map(bare).filter(|word| !word.text.is_empty()).collect();
        for at in 0..words.len().min(32) {
            found.push(Command { words: words[at..].to_vec() });
        }
    }
    if depth < GUESS_DEPTH_MAX {
        for quote in ['"', '\''] {
            let inner = text.split(quote).skip(1).step_by(2).filter(|inner| inner.contains(' '));
            found.extend(inner.flat_map(|inner| guesses(inner, depth + 1)));
        }
    }
    found.truncate(N_GUESSES_MAX);
    found
}

fn bare(word: &str) -> Word {
    Word { text: word.replace(['"', '\'', '\\'], ""), expands: false }
}
