//! A film as an SVG that plays once, by CSS alone, and is its last screen wherever nothing moves.

use super::film::{Film, Line, Span};
use std::fmt::Write;
use vt100::Color;

/// Size of the characters, in pixels.
const FONT_PX: f64 = 14.0;
/// Width of a column: most fixed fonts are 0.6 of their size wide, and text is stretched to it.
const COLUMN_PX: f64 = 8.4;
/// Height of a row.
const ROW_PX: f64 = 19.0;
/// Where a row's characters stand, from its top.
const BASELINE_PX: f64 = 14.0;
/// Paper around the text.
const MARGIN_PX: f64 = 14.0;
const PAPER: &str = "#15181e";
const INK: &str = "#d9dee7";
/// Black, red, green, yellow, blue, magenta, cyan, white; then the same, bright. All but black have a contrast of at
/// least 4.5 on the paper.
const PALETTE: [&str; 16] = [
    "#3b4252", "#e57b85", "#a3c38c", "#ebcb8b", "#83a9d8", "#c79bc0", "#88c0d0", "#d9dee7", "#7f8aa0",
    "#ef949d", "#b5d69e", "#f2d9a4", "#9bbde6", "#d8b1d1", "#9fd4e3", "#ffffff",
];
/// Hidden until it comes; seen from when it comes until it goes; the last screen where motion is unwelcome.
const RULES: &str = "@keyframes h{from,to{visibility:hidden}}@keyframes v{from,to{visibility:visible}}\
.o{visibility:hidden}.d{opacity:.62}.b{font-weight:bold}.i{font-style:italic}.u{text-decoration:underline}\
text{white-space:pre}@media(prefers-reduced-motion:reduce){*{animation:none!important}}";

/// The film as the text of an SVG file, `title` for readers who do not see it.
pub fn draw(film: &Film, title: &str) -> String {
    let (width, height) = (f64::from(film.size.columns) * COLUMN_PX, f64::from(film.size.rows) * ROW_PX);
    let (outer_width, outer_height) = (width + 2.0 * MARGIN_PX, height + 2.0 * MARGIN_PX);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {outer_width} {outer_height}\" \
         width=\"{outer_width}\" height=\"{outer_height}\" role=\"img\">\n<title>{}</title>\n<style>{RULES}{}</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{PAPER}\"/>\n\
         <svg x=\"{MARGIN_PX}\" y=\"{MARGIN_PX}\" width=\"{width}\" height=\"{height}\">\n\
         <g class=\"film\" fill=\"{INK}\" font-family=\"ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace\" \
         font-size=\"{FONT_PX}\">\n",
        escaped(title),
        motion(film)
    );
    film.lines.iter().for_each(|line| out += &line_of(line));
    out += "</g>\n</svg>\n</svg>\n";
    out
}

/// The strip's way past the screen; where it rests is where it stands without animation.
fn motion(film: &Film) -> String {
    let Some((_, last)) = film.scrolls.last() else { return String::new() };
    let seconds = film.length.as_secs_f64();
    let place = |gone: u16| format!("transform:translateY(-{}px)", f64::from(gone) * ROW_PX);
    let mut frames = "0%{transform:none}".to_owned();
    for (at, gone) in &film.scrolls {
        frames += &format!("{:.3}%{{{}}}", 100.0 * at.as_secs_f64() / seconds, place(*gone));
    }
    format!("@keyframes s{{{frames}}}.film{{{};animation:s {seconds:.2}s step-end}}", place(*last))
}

fn line_of(line: &Line) -> String {
    let top = f64::from(line.row) * ROW_PX;
    let from = line.from.as_secs_f64();
    let when = match line.until {
        Some(until) => {
            let seconds = until.as_secs_f64() - from;
            format!(" class=\"o\" style=\"animation:v {seconds:.2}s {from:.2}s\"")
        }
        None if from > 0.0 => format!(" style=\"animation:h {from:.2}s\""),
        None => String::new(),
    };
    let mut out = format!("<g{when}>");
    for span in &line.spans {
        out += &span_of(span, top);
    }
    out + "</g>\n"
}

fn span_of(span: &Span, top: f64) -> String {
    let (left, width) = (f64::from(span.column) * COLUMN_PX, f64::from(span.width) * COLUMN_PX);
    let mut out = String::new();
    if let Some(paper) = colour(span.style.paper) {
        out += &format!(
            "<rect x=\"{left:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{ROW_PX}\" fill=\"{paper}\"/>"
        );
    }
    let style = span.style;
    let classes = [(style.dim, "d"), (style.bold, "b"), (style.italic, "i"), (style.underline, "u")];
    let classes: Vec<&str> =
        classes.into_iter().filter(|(is_so, _)| *is_so).map(|(_, class)| class).collect();
    let class = if classes.is_empty() { String::new() } else { format!(" class=\"{}\"", classes.join(" ")) };
    let ink = colour(style.ink).map_or_else(String::new, |ink| format!(" fill=\"{ink}\""));
    // Blanks at the ends show nothing, and are not stretched.
    let text = span.text.trim_start_matches(' ');
    let indent = (span.text.len() - text.len()) as f64 * COLUMN_PX;
    let trimmed = text.trim_end_matches(' ');
    let after = (text.len() - trimmed.len()) as f64 * COLUMN_PX;
    let (text, x, y, length) = (trimmed, left + indent, top + BASELINE_PX, width - indent - after);
    if !text.is_empty() {
        let text = escaped(text);
        out += &format!("<text x=\"{x:.1}\" y=\"{y}\" textLength=\"{length:.1}\"{class}{ink}>{text}</text>");
    }
    out
}

/// A colour as CSS; `None` for the terminal's own.
fn colour(colour: Color) -> Option<String> {
    match colour {
        Color::Default => None,
        Color::Idx(idx @ 0..16) => Some(PALETTE[usize::from(idx)].to_owned()),
        Color::Idx(idx @ 16..232) => {
            // A cube of six levels a channel, as xterm has it.
            let level = |n: u8| if n == 0 { 0 } else { 55 + 40 * n };
            let idx = idx - 16;
            Some(hex(level(idx / 36), level(idx / 6 % 6), level(idx % 6)))
        }
        Color::Idx(idx) => {
            let grey = 8 + 10 * (idx - 232);
            Some(hex(grey, grey, grey))
        }
        Color::Rgb(red, green, blue) => Some(hex(red, green, blue)),
    }
}

fn hex(red: u8, green: u8, blue: u8) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // A string takes everything that is written to it.
        let _ = match c {
            '&' => out.write_str("&amp;"),
            '<' => out.write_str("&lt;"),
            '>' => out.write_str("&gt;"),
            // XML has no other control characters.
            c if c.is_control() => Ok(()),
            c => out.write_char(c),
        };
    }
    out
}
