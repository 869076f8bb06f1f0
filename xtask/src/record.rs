//! `cargo xtask record`: the pictures of README, made by the program itself.
//!
//! The first command of README runs at a terminal; what it writes, and when, becomes an SVG that plays once and rests
//! on its last screen. The console's test in Chromium gives the other picture.

mod film;
mod svg;
mod terminal;

pub use film::{Film, Line, Span, Style};
pub use svg::draw;
pub use terminal::{Piece, Size, record};

use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where the pictures lie, from the repository's root.
const PICTURES: &str = "docs/pictures";
/// Columns and rows of the recorded terminal.
const SIZE: Size = Size { columns: 80, rows: 24 };
/// Time between a command's end and the next prompt.
const PAUSE: Duration = Duration::from_millis(800);
/// What the first command leaves, from the repository's root.
const LEFT: &str = "examples/workspace/code.txt";

/// Make both pictures anew; without `chromedriver` the console's stays as it is.
///
/// # Errors
/// When a build or a recorded command fails, or a file cannot be written.
pub fn pictures(root: &Path) -> Result<()> {
    let page = std::fs::read_to_string(root.join("README.md")).context("README.md cannot be read")?;
    let first = first_command(&page).context("README.md has no block of commands marked `sh`")?;
    done(Command::new("cargo").args(["build", "--release", "-p", "perilune"]).current_dir(root))?;
    let pictures = root.join(PICTURES);
    std::fs::create_dir_all(&pictures).with_context(|| format!("{PICTURES} cannot be made"))?;
    let pieces = session(root, &[first, &format!("cat {LEFT}")])?;
    let film = Film::new(&pieces, SIZE)?;
    let title = format!("A terminal in which `{first}` runs");
    std::fs::write(pictures.join("first-run.svg"), draw(&film, &title))?;
    eprintln!("{PICTURES}/first-run.svg: {:.1} s, {} lines", film.length.as_secs_f64(), film.lines.len());
    console(root, &pictures)
}

/// The first line of commands of a page.
fn first_command(page: &str) -> Option<&str> {
    page.split_once("```sh\n").and_then(|(_, rest)| rest.lines().next())
}

/// Commands one after the other at one terminal, each behind its prompt.
fn session(root: &Path, commands: &[&str]) -> Result<Vec<Piece>> {
    let left = root.join(LEFT);
    if left.exists() {
        std::fs::remove_file(&left).with_context(|| format!("{LEFT} of an earlier run cannot be removed"))?;
    }
    let data = tempfile::tempdir()?;
    let (mut pieces, mut begun) = (Vec::new(), Duration::ZERO);
    for line in commands {
        pieces.push(Piece { at: begun, bytes: format!("\x1b[1m$ {line}\x1b[0m\r\n").into_bytes() });
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(root);
        // A reader's own settings are not what a newcomer sees; the build's lines are left out.
        command
            .env("PERILUNE_DATA", data.path())
            .env("CARGO_TERM_QUIET", "true")
            .env("TERM", "xterm-256color");
        command.env_remove("NO_COLOR").env_remove("COLUMNS");
        let (shown, status) = record(command, SIZE)?;
        ensure!(status.success(), "`{line}` ended with {status}; the pictures stay as they are");
        pieces.extend(shown.into_iter().map(|piece| Piece { at: begun + piece.at, bytes: piece.bytes }));
        begun = pieces.last().map_or(begun, |piece| piece.at) + PAUSE;
    }
    Ok(pieces)
}

/// The console's picture, as its test takes it.
fn console(root: &Path, pictures: &Path) -> Result<()> {
    if Command::new("chromedriver").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!(
            "{PICTURES}/console.png stays as it is: install chromium and chromium-driver to take it anew"
        );
        return Ok(());
    }
    let shots = tempfile::tempdir()?;
    let mut test = Command::new("cargo");
    test.args(["test", "-p", "perilune", "--test", "console"]).current_dir(root);
    done(test.env("PERILUNE_SHOTS", shots.path()))?;
    std::fs::copy(shots.path().join("readme.png"), pictures.join("console.png"))
        .context("the console's test took no picture readme.png")?;
    eprintln!("{PICTURES}/console.png");
    Ok(())
}

fn done(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?} cannot be started"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::first_command;

    #[test]
    fn the_first_command_is_the_first_line_marked_sh() {
        assert_eq!(first_command("# A\n\n```text\nno\n```\n```sh\nyes\nno\n```\n"), Some("yes"));
        assert_eq!(first_command("# A\n"), None);
    }
}
