//! Settings that several verbs share: one table, each value from a flag, the environment, the user's file or a default.

use crate::machine::user_folder;
use crate::verbs::open::parse_threads;
use anyhow::{Context, anyhow, bail};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use toml::{Spanned, Value};

/// Variable that names another file than the usual one.
pub(crate) const FILE_VARIABLE: &str = "PERILUNE_CONFIG";
/// Longest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What is said of a setting: its reference page and `config show` are made from this.
pub(crate) struct Entry {
    /// Key in the file.
    pub(crate) name: &'static str,
    /// Environment variable.
    pub(crate) variable: &'static str,
    /// The flag that beats both; empty where there is none.
    pub(crate) flag: &'static str,
    /// Its value where nothing is set.
    pub(crate) default: &'static str,
    /// What it is, and who uses it.
    pub(crate) help: &'static str,
}

pub(crate) const LISTEN: Entry = Entry {
    name: "listen",
    variable: "PERILUNE_LISTEN",
    flag: "--listen",
    default: "127.0.0.1:8080",
    help: "Address and port that `serve` listens on.",
};
pub(crate) const DATA: Entry = Entry {
    name: "data",
    variable: "PERILUNE_DATA",
    flag: "--data",
    default: "$XDG_DATA_HOME/perilune, else ~/.local/share/perilune",
    help: "Folder of keys, prices and usage; the journals of runs lie in its folder `runs`.",
};
pub(crate) const MODEL: Entry = Entry {
    name: "model",
    variable: "PERILUNE_MODEL",
    flag: "--model",
    default: "the embedded model",
    help: "Folder of the checkpoint that `run`, `serve`, `chat` and `eval tools` take where none is named.",
};
pub(crate) const THREADS: Entry = Entry {
    name: "threads",
    variable: "PERILUNE_THREADS",
    flag: "--threads",
    default: "all cores",
    help: "Threads of every verb that computes or reads whole checkpoints.",
};
pub(crate) const COLOUR: Entry = Entry {
    name: "colour",
    variable: "PERILUNE_COLOUR",
    flag: "",
    default: "auto",
    help: "`always`, `never`, or `auto`: colours on a terminal, unless NO_COLOR is set or TERM is `dumb`.",
};

/// All settings.
pub(crate) const TABLE: [&Entry; 5] = [&LISTEN, &DATA, &MODEL, &THREADS, &COLOUR];

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody set it.
    Default,
    /// The user's file, in this line.
    File(usize),
    /// The setting's variable.
    Environment,
    /// A flag of this call.
    Flag,
}

/// A value and its origin.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

impl<T: Clone> Found<T> {
    /// The same, unless a flag was given.
    pub(crate) fn or_flag(&self, flag: Option<T>) -> Self {
        flag.map_or_else(|| self.clone(), |value| Self { value, origin: Origin::Flag })
    }
}

/// `colour`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Auto,
    Always,
    Never,
}

/// Every setting's value.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) listen: Found<SocketAddr>,
    /// `None` where neither the user nor the system names a folder.
    pub(crate) data: Found<Option<PathBuf>>,
    /// `None` is the embedded model.
    pub(crate) model: Found<Option<PathBuf>>,
    /// `None` is all cores.
    pub(crate) threads: Found<Option<usize>>,
    pub(crate) colour: Found<Colour>,
}

impl Default for Settings {
    fn default() -> Self {
        let data = user_folder("XDG_DATA_HOME", ".local/share");
        Self {
            listen: unset(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))),
            data: unset(data),
            model: unset(None),
            threads: unset(None),
            colour: unset(Colour::Auto),
        }
    }
}

fn unset<T>(value: T) -> Found<T> {
    Found { value, origin: Origin::Default }
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();

/// The settings of this process: those that [`keep`] was given, else the defaults.
pub(crate) fn get() -> &'static Settings {
    SETTINGS.get_or_init(Settings::default)
}

/// Keep the settings for the rest of the process.
pub(crate) fn keep(settings: Settings) {
    // A process reads them once.
    let _ = SETTINGS.set(settings);
}

/// The file, which need not be there; `None` where the system names no folder for it.
pub(crate) fn file() -> Option<PathBuf> {
    let named = std::env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty());
    named.map(PathBuf::from).or_else(|| Some(user_folder("XDG_CONFIG_HOME", ".config")?.join("config.toml")))
}

/// Read the file and the environment.
///
/// # Errors
/// One sentence: which setting, in which line or variable, and what it may be.
pub(crate) fn load() -> anyhow::Result<Settings> {
    let file = match file() {
        Some(path) => File::read(&path)?,
        None => File::default(),
    };
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let path = |text: &str| parse_path(text, home.as_deref());
    let default = Settings::default();
    Ok(Settings {
        listen: file.find(&LISTEN, parse_listen)?.unwrap_or(default.listen),
        data: file.find(&DATA, |text| path(text).map(Some))?.unwrap_or(default.data),
        model: file.find(&MODEL, |text| path(text).map(Some))?.unwrap_or(default.model),
        threads: file.find(&THREADS, |text| parse_threads(text).map(Some))?.unwrap_or(default.threads),
        colour: file.find(&COLOUR, parse_colour)?.unwrap_or(default.colour),
    })
}

/// An address with its port, as `127.0.0.1:8080`.
pub(crate) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected ADDR:PORT, such as 127.0.0.1:8080".to_owned())
}

fn parse_colour(text: &str) -> Result<Colour, String> {
    match text {
        "auto" => Ok(Colour::Auto),
        "always" => Ok(Colour::Always),
        "never" => Ok(Colour::Never),
        _ => Err("expected auto, always or never".to_owned()),
    }
}

/// A whole path, or one beneath the user's home: what a relative one means would change with each call's folder.
fn parse_path(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    let path = match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(text),
    };
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("expected a whole path, such as /srv/model or ~/model".to_owned())
    }
}

/// The user's file: each key's value as text, and its line.
#[derive(Default)]
struct File {
    path: PathBuf,
    values: BTreeMap<String, (String, usize)>,
}

impl File {
    /// A file that is not there says nothing, unless [`FILE_VARIABLE`] names it.
    fn read(path: &Path) -> anyhow::Result<Self> {
        let is_named = std::env::var_os(FILE_VARIABLE).is_some_and(|path| !path.is_empty());
        let text = match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_named => {
                return Ok(Self::default());
            }
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
                bail!("{}: a file of settings has at most {FILE_BYTES_MAX} bytes", path.display())
            }
            _ => std::fs::read_to_string(path),
        };
        let text = text.with_context(|| format!("the settings in {} cannot be read", path.display()))?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> anyhow::Result<Self> {
        let line_at = |at: usize| text[..text.floor_char_boundary(at)].matches('\n').count() + 1;
        let at = |line: usize| format!("{}:{line}", path.display());
        let read: BTreeMap<Spanned<String>, Spanned<Value>> = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_at(span.start));
            anyhow!("{}: {}", at(line), error.message().replace('\n', " "))
        })?;
        let mut values = BTreeMap::new();
        for (key, value) in read {
            let line = line_at(key.span().start);
            let key = key.into_inner();
            if TABLE.iter().all(|entry| entry.name != key) {
                let names = TABLE.map(|entry| entry.name).join(", ");
                bail!("{}: there is no setting `{key}`; there are {names}", at(line));
            }
            let text = match value.into_inner() {
                Value::String(text) => text,
                Value::Integer(n) => n.to_string(),
                _ => bail!("{}: `{key}` is a string or a number", at(line)),
            };
            values.insert(key, (text, line));
        }
        Ok(Self { path: path.to_owned(), values })
    }

    /// A setting's value in the environment, else in this file.
    fn find<T>(
        &self,
        entry: &Entry,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> anyhow::Result<Option<Found<T>>> {
        let (name, variable) = (entry.name, entry.variable);
        if let Some(text) = std::env::var_os(variable).filter(|text| !text.is_empty()) {
            let text = text.to_str().ok_or_else(|| anyhow!("{variable} is not UTF-8"))?;
            let value = parse(text).map_err(|wrong| anyhow!("{variable} is `{text}`: {wrong}"))?;
            return Ok(Some(Found { value, origin: Origin::Environment }));
        }
        let Some((text, line)) = self.values.get(name) else { return Ok(None) };
        let value = parse(text)
            .map_err(|wrong| anyhow!("{}:{line}: `{name}` is `{text}`: {wrong}", self.path.display()))?;
        Ok(Some(Found { value, origin: Origin::File(*line) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<File, String> {
        File::parse(Path::new("c.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_says_values_and_their_lines() {
        let file = parsed("# mine\nlisten = \"0.0.0.0:80\"\n\nthreads = 3\n")
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(file.values["listen"], ("0.0.0.0:80".to_owned(), 2));
        assert_eq!(file.values["threads"], ("3".to_owned(), 4));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, says) in [
            (
                "lisen = \"x\"",
                "c.toml:1: there is no setting `lisen`; there are listen, data, model, threads, colour",
            ),
            ("\nthreads = [1]", "c.toml:2: `threads` is a string or a number"),
            ("\n\nthreads = ", "c.toml:3: "),
        ] {
            let Err(error) = parsed(text) else { panic!("{text:?} was read") };
            assert!(error.starts_with(says), "{error}");
        }
    }

    #[test]
    fn paths_are_whole_or_beneath_the_home() {
        let home = Path::new("/home/a");
        assert_eq!(parse_path("~/m", Some(home)), Ok("/home/a/m".into()));
        assert_eq!(parse_path("/m", None), Ok("/m".into()));
        assert!(parse_path("m", Some(home)).is_err() && parse_path("~/m", None).is_err());
    }
}
