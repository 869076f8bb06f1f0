//! The files of a run's own folder: artefacts, whole results, diffs. What another hand wrote is shown as a picture
//! of a known kind, as plain text, or not at all: it is downloaded.

use super::{Pages, Problem, run_path};
use crate::journal::own_folder;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use http::{Extensions, StatusCode, header};
use maud::{Markup, html};
use std::io::Read;

/// Largest file that is sent, bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Most files that the page lists.
const N_FILES_MAX: usize = 2_000;
/// How deep folders are looked into.
const DEPTH_MAX: usize = 8;
/// Endings of pictures that no browser runs anything of, and their media types.
const PICTURES: [(&str, &str); 5] = [
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
];

/// A file of the folder.
struct Found {
    path: String,
    n_bytes: u64,
    changed_ms: u64,
}

fn picture(path: &str) -> Option<&'static str> {
    let (_, ending) = path.rsplit_once('.')?;
    PICTURES.iter().find(|(known, _)| ending.eq_ignore_ascii_case(known)).map(|(_, kind)| *kind)
}

/// A link to a file, with the picture where it is one.
pub(super) fn shown(run: &str, path: &str) -> Markup {
    let address = format!("{}/file/{}", run_path(run), escaped(path));
    html! {
        a href=(address) { (path) }
        @if picture(path).is_some() {
            a.picture href=(address) { img src=(address) alt=(format!("Picture {path}")) loading="lazy"; }
        }
    }
}

/// A path as a part of an address.
fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte);
    path.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The page.
pub(super) async fn show(
    State(pages): State<Pages>,
    Path(run): Path<String>,
    request: Extensions,
) -> Response {
    pages
        .answer(request, move |pages, request| {
            let (summary, _) = pages.runs.summary(&run)?;
            let mut found = Vec::new();
            if let Ok(dir) = Dir::open_ambient_dir(own_folder(&pages.runs.folder(&run)?), ambient_authority())
            {
                walk(&dir, "", 0, &mut found);
            }
            let is_result = |file: &&Found| file.path.starts_with("calls/");
            let (mut results, mut left): (Vec<&Found>, Vec<&Found>) = found.iter().partition(is_result);
            results.sort_by_key(|file| number(&file.path));
            left.sort_by(|a, b| a.path.cmp(&b.path));
            let body = html! {
                p { a href=(run_path(&run)) { "Back to the run" } }
                div.text.task { (summary.opened.task) }
                section { h2 { "Left by the run" } (table(pages, &run, &left)) }
                section { h2 { "Whole results of calls" } (table(pages, &run, &results)) }
            };
            Ok(pages.page(request, &format!("Files of run {run}"), &body))
        })
        .await
}

/// `calls/7.txt` is 7.
fn number(path: &str) -> u64 {
    path.trim_start_matches("calls/").trim_end_matches(".txt").parse().unwrap_or(u64::MAX)
}

/// Plain files; no link is followed.
fn walk(dir: &Dir, before: &str, depth: usize, found: &mut Vec<Found>) {
    let entries = dir.entries().into_iter().flatten().flatten();
    for entry in entries {
        let Ok(meta) = entry.metadata() else { continue };
        let path = format!("{before}{}", entry.file_name().to_string_lossy());
        if found.len() >= N_FILES_MAX {
            return;
        }
        if meta.is_dir() && depth < DEPTH_MAX {
            if let Ok(inner) = entry.open_dir() {
                walk(&inner, &format!("{path}/"), depth + 1, found);
            }
        } else if meta.is_file() {
            let changed =
                meta.modified().ok().and_then(|it| it.into_std().duration_since(std::time::UNIX_EPOCH).ok());
            let changed_ms = changed.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(0));
            found.push(Found { path, n_bytes: meta.len(), changed_ms });
        }
    }
}

fn table(pages: &Pages, run: &str, files: &[&Found]) -> Markup {
    html! {
        @if files.is_empty() { p.hint { "None." } }
        @else { div.scroll role="region" aria-label="Files" tabindex="0" { table {
            thead { tr { th { "File" } th.number { "Size" } th { "Changed (UTC)" } } }
            tbody { @for file in files { tr {
                td.name { (shown(run, &file.path)) }
                td.number { (pages.frame.bytes(file.n_bytes)) }
                td { (pages.time(file.changed_ms)) }
            } } }
        } } }
    }
}

/// One file.
pub(super) async fn file(
    State(pages): State<Pages>,
    Path((run, path)): Path<(String, String)>,
    request: Extensions,
) -> Response {
    pages
        .answer(request, move |pages, _| {
            let content = read(&own_folder(&pages.runs.folder(&run)?), &path)?;
            let (kind, is_shown) = match picture(&path) {
                Some(kind) => (kind, true),
                None if std::str::from_utf8(&content).is_ok() => ("text/plain; charset=utf-8", true),
                None => ("application/octet-stream", false),
            };
            let disposition = if is_shown { "inline" } else { "attachment" };
            let headers = [(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, disposition)];
            Ok((headers, content).into_response())
        })
        .await
}

/// A plain file beneath the folder; no link leads out of it.
fn read(own: &std::path::Path, path: &str) -> Result<Vec<u8>, Problem> {
    let missing = |_| Problem(StatusCode::NOT_FOUND, format!("the run has no file {path:?}"));
    let dir = Dir::open_ambient_dir(own, ambient_authority()).map_err(missing)?;
    // What was left in place of a file may be a pipe, and opening one waits for its writer.
    let options = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).clone();
    let file = dir.open_with(path, &options).map_err(missing)?;
    let meta = file.metadata().map_err(missing)?;
    if !meta.is_file() {
        return Err(Problem(StatusCode::NOT_FOUND, format!("{path:?} is no file")));
    }
    if meta.len() > FILE_BYTES_MAX {
        let message = format!("{path:?} is larger than {} MiB; open it on the server", FILE_BYTES_MAX >> 20);
        return Err(Problem(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut content).map_err(missing)?;
    Ok(content)
}
