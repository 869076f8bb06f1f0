//! Panels: 16 rows of 8-bit activations with the same words side by side, as products by tiles (AMX) take them.

use crate::cpu::Isa;
use crate::quant::QuantRow;
use crate::x86::amx;
use crate::{GROUP, LANES};
use half::bf16;
use std::cell::RefCell;

/// Rows of x in a panel.
pub(crate) const PANEL_ROWS: usize = 16;

/// A group of 32 columns of a panel: for each four columns the codes of 16 rows, and the rows' scales.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct PanelGroup {
    pub(crate) codes: [i8; PANEL_ROWS * GROUP],
    pub(crate) scales: [f32; PANEL_ROWS],
}

/// Where a group stands among the `n_groups` of a panel: those whose sums go to one lane are neighbours.
#[inline(always)]
pub(crate) const fn group_place(group: usize, n_groups: usize) -> usize {
    group % LANES * n_groups.div_ceil(LANES) + group / LANES
}

/// Places that `n_groups` groups take, some of them empty.
#[inline(always)]
pub(crate) const fn n_places(n_groups: usize) -> usize {
    n_groups.next_multiple_of(LANES)
}

thread_local! {
    static FREE: RefCell<Vec<Vec<PanelGroup>>> = const { RefCell::new(Vec::new()) };
}

/// Some rows of x in panels of 16, the last filled up with zeros. Its memory goes back to its thread.
pub(crate) struct Panels {
    groups: Vec<PanelGroup>,
    n_groups: usize,
    n_rows: usize,
}

impl Panels {
    /// Rows of weights that they meet at a time.
    pub(crate) const BAND: usize = 32;

    /// The rows in panels, where `isa` multiplies panels. Each holds `n_groups`.
    pub(crate) fn of(isa: Isa, x: &[QuantRow<'_>], n_groups: usize) -> Option<Self> {
        if isa != Isa::Amx {
            return None;
        }
        assert!(x.iter().all(|x| x.holds(n_groups)));
        let mut groups = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        let n = x.len().div_ceil(PANEL_ROWS) * n_places(n_groups);
        groups.clear();
        groups.reserve(n);
        let room = &mut groups.spare_capacity_mut()[..n];
        for (x, panel) in x.chunks(PANEL_ROWS).zip(room.chunks_exact_mut(n_places(n_groups))) {
            // SAFETY: a `Cpu` of this set exists only where `Isa::is_present` found the features; the rows were checked.
            unsafe { amx::pack_panel(x, n_groups, panel) };
        }
        // SAFETY: `pack_panel` wrote every place.
        unsafe { groups.set_len(n) };
        Some(Panels { groups, n_groups, n_rows: x.len() })
    }

    /// See [`crate::reference::band_q4`]; `n_rows` is 16 or [`Self::BAND`].
    pub(crate) fn products_q4(&self, packed: &[u8], scales: &[bf16], n_rows: usize, out: &mut [f32]) {
        // SAFETY: panels are made only where the features are.
        unsafe { amx::panels_q4(self, packed, scales, n_rows, out) };
    }

    /// See [`crate::reference::band_q8`]; likewise.
    pub(crate) fn products_q8(&self, codes: &[i8], scales: &[bf16], n_rows: usize, out: &mut [f32]) {
        // SAFETY: panels are made only where the features are.
        unsafe { amx::panels_q8(self, codes, scales, n_rows, out) };
    }

    /// Rows of x.
    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Groups of each row.
    pub(crate) fn n_groups(&self) -> usize {
        self.n_groups
    }

    /// Panels.
    pub(crate) fn n_panels(&self) -> usize {
        self.n_rows.div_ceil(PANEL_ROWS)
    }

    /// One of them: the places of its groups.
    pub(crate) fn panel(&self, panel_idx: usize) -> &[PanelGroup] {
        &self.groups[panel_idx * n_places(self.n_groups)..(panel_idx + 1) * n_places(self.n_groups)]
    }
}

impl Drop for Panels {
    fn drop(&mut self) {
        let groups = std::mem::take(&mut self.groups);
        // A thread that is ending has no list any more; the memory then goes with it.
        let _ = FREE.try_with(|free| free.borrow_mut().push(groups));
    }
}
