//! A command at a pseudo-terminal: what it writes, and when.

use anyhow::{Context, Result};
use nix::pty::{OpenptyResult, Winsize, openpty};
use std::fs::File;
use std::io::Read;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// Bytes read at once.
const READ_BYTES: usize = 1 << 16;

/// Columns and rows of a terminal.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Characters in a row.
    pub columns: u16,
    /// Rows on the screen.
    pub rows: u16,
}

/// What was written at one moment.
#[derive(Debug)]
pub struct Piece {
    /// Time since the start.
    pub at: Duration,
    /// Bytes as the terminal gets them.
    pub bytes: Vec<u8>,
}

/// Run a command with all three streams at a terminal of this size, until everything that holds the terminal has ended.
///
/// # Errors
/// When no terminal can be had or the command cannot be started.
pub fn record(mut command: Command, size: Size) -> Result<(Vec<Piece>, ExitStatus)> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } =
        openpty(Some(&size), None).context("no pseudo-terminal can be had")?;
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
    let begun = Instant::now();
    let mut child = command.spawn().with_context(|| format!("{command:?} cannot be started"))?;
    // It holds the terminal's other end open.
    drop(command);
    let (mut master, mut pieces, mut buffer) = (File::from(master), Vec::new(), vec![0; READ_BYTES]);
    // Linux ends the reading of a terminal that nobody holds with an error.
    while let Ok(n) = master.read(&mut buffer)
        && n > 0
    {
        pieces.push(Piece { at: begun.elapsed(), bytes: buffer[..n].to_vec() });
    }
    Ok((pieces, child.wait()?))
}
