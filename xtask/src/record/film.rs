//! From bytes in time to lines in time: which line stood where, from when until when.

use super::terminal::{Piece, Size};
use anyhow::{Context, Result, ensure};
use std::num::NonZeroU16;
use std::time::Duration;
use vt100::{Cell, Color, Parser, Screen};

/// Lines that a recording may have; none scrolls out of the model, which is as tall as this.
const LINES_MAX: u16 = 4_096;
/// What is written within this time is shown at once.
const FRAME: Duration = Duration::from_millis(40);

/// A recording, as a strip of lines that the screen moves down along.
#[derive(Debug)]
pub struct Film {
    /// Size of the terminal.
    pub size: Size,
    /// Versions of lines, by the time they came.
    pub lines: Vec<Line>,
    /// From when on, since the start, how many lines have left the screen at its top.
    pub scrolls: Vec<(Duration, u16)>,
    /// Time of the last change, since the start.
    pub length: Duration,
}

/// One version of a line.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Row, from 0 at the first line of the recording.
    pub row: u16,
    /// When it came, since the start.
    pub from: Duration,
    /// When another version took its place; `None` for the last.
    pub until: Option<Duration>,
    /// Its text from left to right; never empty in a film.
    pub spans: Vec<Span>,
}

/// Neighbouring characters in one style.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Column of the first character, from 0.
    pub column: u16,
    /// Columns that it takes.
    pub width: u16,
    /// Its characters.
    pub text: String,
    /// How they look.
    pub style: Style,
}

/// How characters look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Colour of the characters.
    pub ink: Color,
    /// Colour behind them.
    pub paper: Color,
    /// Whether they are strong.
    pub bold: bool,
    /// Whether they are faint.
    pub dim: bool,
    /// Whether they are slanted.
    pub italic: bool,
    /// Whether they have a line beneath.
    pub underline: bool,
}

impl Film {
    /// Follow the pieces on a screen of this size.
    ///
    /// # Errors
    /// When a recording has more lines than a film may.
    pub fn new(pieces: &[Piece], size: Size) -> Result<Self> {
        let rows = NonZeroU16::new(LINES_MAX).context("a film has lines")?;
        let columns = NonZeroU16::new(size.columns).context("a terminal has columns")?;
        let mut parser = Parser::new(rows, columns, 0);
        let mut film = Self { size, lines: Vec::new(), scrolls: Vec::new(), length: Duration::ZERO };
        let mut shown: Vec<Vec<Span>> = Vec::new();
        let mut pieces = pieces.iter().peekable();
        while let Some(piece) = pieces.next() {
            parser.process(&piece.bytes);
            while let Some(piece) = pieces.next_if(|next| next.at < piece.at + FRAME) {
                parser.process(&piece.bytes);
            }
            film.take(parser.screen(), &mut shown, piece.at)?;
        }
        film.lines.retain(|line| !line.spans.is_empty());
        Ok(film)
    }

    /// Takes in what differs from what was shown.
    fn take(&mut self, screen: &Screen, shown: &mut Vec<Vec<Span>>, at: Duration) -> Result<()> {
        let bottom = screen.cursor_position().0;
        ensure!(
            bottom + 1 < LINES_MAX,
            "the recording has more than {LINES_MAX} lines; record a shorter run"
        );
        self.length = at;
        for row in 0..=bottom.max(shown.len() as u16) {
            let spans = spans(screen, row, self.size.columns);
            if shown.len() <= usize::from(row) {
                shown.push(Vec::new());
            }
            if shown[usize::from(row)] == spans {
                continue;
            }
            shown[usize::from(row)].clone_from(&spans);
            if let Some(line) = self.lines.iter_mut().rfind(|line| line.row == row) {
                line.until = Some(at);
            }
            self.lines.push(Line { row, from: at, until: None, spans });
        }
        let gone = (bottom + 1).saturating_sub(self.size.rows);
        if gone > self.scrolls.last().map_or(0, |(_, gone)| *gone) {
            self.scrolls.push((at, gone));
        }
        Ok(())
    }
}

/// The text of a row, without blanks at its end that show nothing.
fn spans(screen: &Screen, row: u16, columns: u16) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for column in 0..columns {
        let Some(cell) = screen.cell(row, column).filter(|cell| !cell.is_wide_continuation()) else {
            continue;
        };
        let (style, width) = (style(cell), 1 + u16::from(cell.is_wide()));
        let text = if cell.has_contents() { cell.contents() } else { " " };
        match spans.last_mut() {
            Some(span) if span.style == style => {
                span.text.push_str(text);
                span.width += width;
            }
            _ => spans.push(Span { column, width, text: text.to_owned(), style }),
        }
    }
    spans.retain(|span| !span.text.trim().is_empty() || span.style.paper != Color::Default);
    if let Some(span) = spans.last_mut().filter(|span| span.style.paper == Color::Default) {
        let blanks = span.text.len() - span.text.trim_end().len();
        span.text.truncate(span.text.len() - blanks);
        span.width -= blanks as u16;
    }
    spans
}

fn style(cell: &Cell) -> Style {
    let (mut ink, mut paper) = (cell.fgcolor(), cell.bgcolor());
    if cell.inverse() {
        (ink, paper) = (paper, ink);
    }
    let (bold, dim) = (cell.bold(), cell.dim());
    Style { ink, paper, bold, dim, italic: cell.italic(), underline: cell.underline() }
}
