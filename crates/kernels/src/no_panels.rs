//! Panels where no processor multiplies them: there are none.

use crate::cpu::Isa;
use crate::quant::QuantRow;
use half::bf16;

/// See the module of that name for x86-64.
pub(crate) enum Panels {}

impl Panels {
    pub(crate) const BAND: usize = 32;

    pub(crate) fn of(_isa: Isa, _x: &[QuantRow<'_>], _n_groups: usize) -> Option<Self> {
        None
    }

    pub(crate) fn products_q4(&self, _packed: &[u8], _scales: &[bf16], _n_rows: usize, _out: &mut [f32]) {
        match *self {}
    }

    pub(crate) fn products_q8(&self, _codes: &[i8], _scales: &[bf16], _n_rows: usize, _out: &mut [f32]) {
        match *self {}
    }
}
