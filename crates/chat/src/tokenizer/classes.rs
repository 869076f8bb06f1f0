//! Which of the pattern's character sets a code point is in: a two-stage table, one byte a code point.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// `\p{Han}`.
pub(super) const HAN: u8 = 1;
/// The set before the last letters of a word: upper, title, modifier and other letters and marks, not Han.
pub(super) const UPPER: u8 = 1 << 1;
/// The set of the last letters of a word: lower, modifier and other letters and marks, not Han.
pub(super) const LOWER: u8 = 1 << 2;
/// `\p{L}`.
pub(super) const LETTER: u8 = 1 << 3;
/// `\p{N}`.
pub(super) const NUMBER: u8 = 1 << 4;
/// `\s`.
pub(super) const SPACE: u8 = 1 << 5;
/// `[\r\n]`.
pub(super) const NEWLINE: u8 = 1 << 6;

/// Each bit with the set as the published pattern writes it.
const SETS: [(u8, &str); 7] = [
    (HAN, r"[\p{Han}]"),
    (UPPER, r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"),
    (LOWER, r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"),
    (LETTER, r"[\p{L}]"),
    (NUMBER, r"[\p{N}]"),
    (SPACE, r"[\s]"),
    (NEWLINE, r"[\r\n]"),
];

const PAGE: usize = 256;
const N_CODE_POINTS: usize = 0x11_0000;

/// Character sets of every code point; equal pages are stored once.
pub(super) struct ClassTable {
    /// Page number of `code point / PAGE`.
    page_of: Vec<u16>,
    /// Pages of `PAGE` bytes, end to end.
    pages: Vec<u8>,
    /// The first 128 code points again, found with one look-up.
    ascii: [u8; 128],
}

/// The table of the K2 pattern, made at first use.
pub(super) static CLASSES: LazyLock<ClassTable> = LazyLock::new(ClassTable::new);

impl ClassTable {
    fn new() -> Self {
        let mut bits = vec![0u8; N_CODE_POINTS];
        for (bit, set) in SETS {
            for (first, last) in ranges(set) {
                bits[first as usize..=last as usize].iter_mut().for_each(|b| *b |= bit);
            }
        }
        let mut table =
            Self { page_of: Vec::with_capacity(N_CODE_POINTS / PAGE), pages: Vec::new(), ascii: [0; 128] };
        table.ascii.copy_from_slice(&bits[..128]);
        let mut page_idx = rustc_hash::FxHashMap::default();
        for page in bits.chunks_exact(PAGE) {
            let idx = *page_idx.entry(page).or_insert_with(|| {
                table.pages.extend_from_slice(page);
                (table.pages.len() / PAGE - 1) as u16
            });
            table.page_of.push(idx);
        }
        table
    }

    /// Set bits of an ASCII byte, `None` for the bytes of other characters.
    #[inline(always)]
    pub(super) fn ascii(&self, byte: u8) -> Option<u8> {
        self.ascii.get(byte as usize).copied()
    }

    /// Set bits of `code_point` (below 0x110000).
    #[inline]
    pub(super) fn get(&self, code_point: u32) -> u8 {
        let page = self.page_of[code_point as usize / PAGE] as usize;
        self.pages[page * PAGE + code_point as usize % PAGE]
    }
}

/// Inclusive code point ranges of one bracketed set.
fn ranges(set: &str) -> Vec<(u32, u32)> {
    let hir = regex_syntax::parse(set)
        .expect("the pattern's own sets are valid and Unicode tables are compiled in");
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => {
            class.ranges().iter().map(|r| (r.start() as u32, r.end() as u32)).collect()
        }
        _ => unreachable!("every entry of SETS is a set of at least two characters"),
    }
}
