//! Tables: columns where the terminal is wide enough, else a paragraph for each row.

use crate::terminal::{columns, fold};

/// Blanks between two columns, and between two figures of a paragraph.
const GAP: &str = "  ";
/// How far in a paragraph goes on.
const HANG: usize = 2;
/// Columns that a cut last column keeps at least.
const CUT_COLUMNS_MIN: usize = 16;

/// Rows under headings.
pub(crate) struct Table<const N: usize> {
    heads: [Head; N],
    rows: Vec<[String; N]>,
    cuts_last: bool,
}

/// A column's heading, and the side that its cells stand at.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    name: &'static str,
    is_right: bool,
}

/// A column of words.
pub(crate) const fn words(name: &'static str) -> Head {
    Head { name, is_right: false }
}

/// A column of figures, one beneath the other.
pub(crate) const fn figures(name: &'static str) -> Head {
    Head { name, is_right: true }
}

impl<const N: usize> Table<N> {
    /// A table without rows.
    pub(crate) fn new(heads: [Head; N]) -> Self {
        Self { heads, rows: Vec::new(), cuts_last: false }
    }

    /// Cuts cells of the last column rather than give up columns.
    pub(crate) fn cutting_last(self) -> Self {
        Self { cuts_last: true, ..self }
    }

    /// Adds a row at the end.
    pub(crate) fn push(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    /// The table for standard output.
    pub(crate) fn text(&self) -> String {
        self.text_within(columns().unwrap_or(usize::MAX))
    }

    fn text_within(&self, columns: usize) -> String {
        let mut widths = self.widths();
        let gaps = GAP.len() * N.saturating_sub(1);
        let wide = gaps + widths.iter().sum::<usize>();
        if wide <= columns {
            return self.in_columns(&widths);
        }
        match widths.last_mut() {
            Some(last) if self.cuts_last && columns + *last >= wide + CUT_COLUMNS_MIN => {
                *last = columns + *last - wide;
                self.in_columns(&widths)
            }
            _ => self.rows.iter().map(|row| self.paragraph(row, columns)).collect(),
        }
    }

    /// Columns of each column.
    fn widths(&self) -> [usize; N] {
        std::array::from_fn(|at| {
            let cells = self.rows.iter().map(|row| row[at].as_str());
            cells.chain([self.heads[at].name]).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
    }

    fn in_columns(&self, widths: &[usize; N]) -> String {
        let names: [String; N] = self.heads.map(|head| head.name.to_owned());
        let mut out = String::new();
        for row in std::iter::once(&names).chain(&self.rows) {
            let cells = row.iter().zip(&self.heads).zip(widths).map(|((cell, head), &width)| {
                let cell = cut(cell, width);
                if head.is_right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            out += cells.collect::<Vec<_>>().join(GAP).trim_end();
            out.push('\n');
        }
        out
    }

    /// A row as `heading cell`, `heading cell`, ...; none is parted while it fits a line.
    fn paragraph(&self, row: &[String; N], columns: usize) -> String {
        let cells = self.heads.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
        let (mut out, mut line) = (String::new(), String::new());
        for (head, cell) in cells {
            let item = format!("{} {cell}", head.name);
            let n_chars = |text: &str| text.chars().count();
            if !line.is_empty() && n_chars(&line) + GAP.len() + n_chars(&item) > columns {
                out += &(line + "\n");
                line = " ".repeat(HANG) + &item;
            } else {
                let gap = if line.is_empty() { "" } else { GAP };
                line += &format!("{gap}{item}");
            }
        }
        fold(&(out + &line), HANG, columns)
    }
}

/// The cell, or its start where it is wider.
fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    cell.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table<4> {
        let mut table = Table::new([words("model"), figures("asked"), figures("cost USD"), words("task")]);
        table.push(["kimi", "12", "0.5", "sum up all bills"].map(str::to_owned));
        table.push(["a-longer-name", "1,200", "", "é"].map(str::to_owned));
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let expected = "model          asked  cost USD  task\n\
                        kimi              12       0.5  sum up all bills\n\
                        a-longer-name  1,200            é\n";
        assert_eq!(table().text_within(48), expected);
        assert_eq!(table().text_within(usize::MAX), expected);
    }

    #[test]
    fn a_narrow_terminal_gets_paragraphs() {
        let expected = "model kimi  asked 12  cost USD 0.5\n  task sum up all bills\n\
                        model a-longer-name  asked 1,200\n  task é\n";
        assert_eq!(table().text_within(35), expected);
        assert!(table().text_within(20).lines().all(|line| line.chars().count() <= 20));
    }

    #[test]
    fn a_last_column_is_cut_while_something_of_it_stays() {
        let mut table = Table::new([words("run"), words("task")]).cutting_last();
        table.push(["r1", "a task of many words, of which few fit"].map(str::to_owned));
        assert_eq!(table.text_within(24), "run  task\nr1   a task of many wor…\n");
        assert_eq!(table.text_within(20), "run r1\n  task a task of\n  many words, of\n  which few fit\n");
    }
}
