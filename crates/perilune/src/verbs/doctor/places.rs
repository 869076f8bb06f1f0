//! Settings, keys, folders, disk and port.

use super::{Line, State};
use crate::embedded::COPY_BYTES;
use crate::machine::{self, user_folder};
use crate::settings::{self, FILE_VARIABLE};
use crate::terminal::bytes;
use crate::verbs::data::{DataArgs, wait};
use crate::verbs::open::open;
use crate::verbs::run::SEARCH_KEY;
use crate::verbs::sentence;
use crate::verbs::upstream::ONE_KEY;
use perilune_server::store::KeyKind;
use rustix::fs::{Access, access};
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Free bytes below which a ledger and journals soon have no room.
const ROOM: u64 = 256 << 20;
/// Free bytes below which nothing can be kept: an empty ledger and an empty journal take so much.
const ROOM_LEAST: u64 = 1 << 20;

pub(super) fn look(data: &DataArgs, listen: SocketAddr) -> Vec<Line> {
    let place = data.place();
    let (keys, n_keys) = keys(data);
    let mut lines = vec![settings_file(), model(), keys];
    lines.extend([ONE_KEY, SEARCH_KEY].map(variable));
    lines.extend(folders(place.as_deref()));
    lines.extend(port(listen, n_keys, place.as_deref()));
    lines
}

fn settings_file() -> Line {
    let Some(path) = settings::file() else {
        return Line::unknown("settings", "file", "neither XDG_CONFIG_HOME nor HOME says where it would be");
    };
    match settings::load() {
        Ok(_) if path.exists() => Line::ok("settings", "file", path.display().to_string()),
        Ok(_) => Line::ok("settings", "file", format!("{} is not there: defaults hold", path.display())),
        Err(error) => Line::problem(
            "settings",
            "file",
            sentence(&error),
            format!(
                "mend that line, or name another file with {FILE_VARIABLE}; docs/reference/settings.md lists them"
            ),
        ),
    }
}

fn model() -> Line {
    let Some(dir) = &settings::get().model.value else {
        return Line::ok("settings", "model", "the embedded one, where a verb is given none");
    };
    match open(dir) {
        Ok(checkpoint) => {
            let n_layers = checkpoint.config.num_hidden_layers;
            Line::ok("settings", "model", format!("{} opens: {n_layers} layers", dir.display()))
        }
        Err(error) => Line::problem(
            "settings",
            "model",
            sentence(&error),
            "set `model` to a folder with config.json and safetensors; `perilune config show --origin` says where it is set",
        ),
    }
}

/// What the store holds, and how many API keys are in force; `None` where that is unknown.
fn keys(data: &DataArgs) -> (Line, Option<usize>) {
    if !data.has_store() {
        let found = "none yet: a server answers this machine only; `perilune keys create NAME` makes one";
        return (Line::ok("keys", "server", found), Some(0));
    }
    let read = data.store().and_then(|store| Ok(wait(store.keys())??));
    match read {
        Ok(keys) => {
            let in_force =
                |kind| keys.iter().filter(|key| key.kind == kind && key.revoked_ms.is_none()).count();
            let (api, admin) = (in_force(KeyKind::Api), in_force(KeyKind::Admin));
            let n_api = keys.iter().filter(|key| key.kind == KeyKind::Api).count();
            (
                Line::ok("keys", "server", format!("in force: {api} for the APIs, {admin} for the console")),
                Some(n_api),
            )
        }
        Err(error) => {
            let remedy = "take the folder's copy from a backup, or name another folder with --data";
            (Line::problem("keys", "server", sentence(&error), remedy), None)
        }
    }
}

/// A key in the environment: whether it is there, never what it is.
fn variable(name: &str) -> Line {
    let used_by = if name == ONE_KEY { "--upstream" } else { "--search brave or tavily" };
    match std::env::var(name) {
        Ok(key) if key.trim().is_empty() => {
            let found = format!("is empty, so {used_by} sends none");
            Line::limit("keys", name, found, "set it to the key, or unset it")
        }
        Ok(_) => {
            Line::ok("keys", name, format!("is set; whether {used_by} takes it shows with the first request"))
        }
        Err(std::env::VarError::NotUnicode(_)) => {
            Line::problem("keys", name, "is not UTF-8", "set it to the key's text")
        }
        Err(_) => Line::ok("keys", name, format!("is not set; only {used_by} needs it")),
    }
}

fn folders(data: Option<&Path>) -> Vec<Line> {
    let cache = user_folder("XDG_CACHE_HOME", ".cache");
    let mut lines = Vec::new();
    match data {
        Some(data) => {
            lines.push(folder(
                "data",
                data,
                "name another with --data or the setting `data`",
                State::Problem,
            ));
            lines.extend(privacy(data));
            lines.push(room("data", data, ROOM));
        }
        None => lines.push(Line::problem(
            "folders",
            "data",
            "neither XDG_DATA_HOME nor HOME is set",
            "name a folder with --data or the setting `data`",
        )),
    }
    match cache {
        Some(cache) => {
            let remedy = "set XDG_CACHE_HOME to a folder that can be written; until then the embedded model is unpacked anew \
                          by each call, in TMPDIR";
            lines.push(folder("cache", &cache, remedy, State::Limit));
            lines.push(room("cache", &cache, COPY_BYTES));
        }
        None => lines.push(Line::limit(
            "folders",
            "cache",
            "neither XDG_CACHE_HOME nor HOME is set: the embedded model is unpacked anew by each call, in TMPDIR",
            "set one of them",
        )),
    }
    // Stable: folders in their order, then the disks.
    lines.sort_by_key(|line| line.area != "folders");
    lines
}

/// Whether a folder can be written, or made.
fn folder(name: &str, path: &Path, remedy: &str, otherwise: State) -> Line {
    let shown = path.display();
    let Some(standing) = standing(path) else {
        return Line::unknown("folders", name, format!("{shown}: no folder above it is there"));
    };
    let is_there = standing == path;
    let refused = if standing.is_dir() {
        access(&standing, Access::WRITE_OK | Access::EXEC_OK).err().map(|error| error.to_string())
    } else {
        Some("it is no folder".to_owned())
    };
    match refused {
        None if is_there => Line::ok("folders", name, format!("{shown} can be written")),
        None => Line::ok("folders", name, format!("{shown} is not there yet and can be made")),
        Some(why) => {
            let found = format!("{} cannot be written: {why}", standing.display());
            Line { state: otherwise, ..Line::problem("folders", name, found, remedy) }
        }
    }
}

/// The path itself, or what stands nearest above it.
fn standing(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    absolute.ancestors().find(|above| above.symlink_metadata().is_ok()).map(Path::to_path_buf)
}

/// Keys and journals are their owner's alone.
fn privacy(path: &Path) -> Option<Line> {
    let mode = path.metadata().ok()?.permissions().mode() & 0o077;
    (mode != 0).then(|| {
        let found = format!("{} can be opened by other users", path.display());
        Line::limit("folders", "privacy", found, format!("chmod 700 {}", path.display()))
    })
}

fn room(name: &str, path: &Path, wanted: u64) -> Line {
    let name = format!("{name}'s disk");
    match machine::free_bytes(path) {
        Some(free) if free < wanted => {
            let (found, remedy) = (
                format!("{} free", bytes(free)),
                format!("{} and more are wanted there: free some", bytes(wanted)),
            );
            if free < ROOM_LEAST {
                Line::problem("disk", name, found, remedy)
            } else {
                Line::limit("disk", name, found, remedy)
            }
        }
        Some(free) => Line::ok("disk", name, format!("{} free", bytes(free))),
        None => Line::unknown("disk", name, "the system does not say what is free"),
    }
}

fn port(listen: SocketAddr, n_keys: Option<usize>, data: Option<&Path>) -> Vec<Line> {
    let elsewhere = "name another with --listen or the setting `listen`; 127.0.0.1:0 takes any free port";
    let tried = match TcpListener::bind(listen) {
        Ok(_) => Line::ok("port", "listen", format!("{listen} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_served(data) => Line::ok(
            "port",
            "listen",
            format!("{listen} is taken, and a server of Perilune works on the data folder"),
        ),
        Err(error) => Line::problem("port", "listen", format!("{listen}: {error}"), elsewhere),
    };
    let is_open = !listen.ip().is_loopback() && n_keys == Some(0);
    let refused = is_open.then(|| {
        let found = format!("{listen} is for other machines, and there is no API key: `serve` refuses");
        Line::problem("port", "keys", found, "`perilune keys create NAME` makes one; or listen on 127.0.0.1")
    });
    [Some(tried), refused].into_iter().flatten().collect()
}

/// Whether a server holds the data folder's lock.
fn is_served(data: Option<&Path>) -> bool {
    let lock = data.and_then(|data| File::open(data.join(crate::verbs::serve::LOCK_FILE)).ok());
    lock.is_some_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}
