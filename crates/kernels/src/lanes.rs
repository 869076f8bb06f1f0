//! Sixteen `f32` lanes, the unit in which the versions for one instruction set differ.
//!
//! Every `f32` operation is written once over this trait (in the `simd` functions of the operations' modules)
//! and instantiated inside a function that enables the features; [`crate::reference`] does not use it.

use crate::{GROUP, LANES};

/// Sixteen `f32` values and the few operations the kernels need of them.
///
/// # Safety
/// Every method may be called only where the processor has the features of the implementing type, and pointers
/// must be valid for the elements named.
pub(crate) trait Lanes: Copy {
    /// Whether there are 32 registers of 16 lanes: enough for large tiles.
    const IS_WIDE: bool;
    unsafe fn splat(value: f32) -> Self;
    /// Load 16 values.
    unsafe fn load(ptr: *const f32) -> Self;
    /// Load 16 BF16 values (their bits) as `f32`.
    unsafe fn load_bf16(ptr: *const u16) -> Self;
    /// Load 16 signed bytes as `f32`.
    unsafe fn load_i8(ptr: *const i8) -> Self;
    unsafe fn store(self, ptr: *mut f32);
    /// Ask for the line at `ptr`, wherever that is.
    unsafe fn prefetch(ptr: *const u8);
    /// `self * b + c`, rounded once.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    unsafe fn add(self, b: Self) -> Self;
    unsafe fn sub(self, b: Self) -> Self;
    unsafe fn mul(self, b: Self) -> Self;
    unsafe fn div(self, b: Self) -> Self;
    /// `self > b ? self : b` (so a NaN in `b` passes through).
    unsafe fn max(self, b: Self) -> Self;
    /// `self < b ? self : b` (so a NaN in `b` passes through).
    unsafe fn min(self, b: Self) -> Self;
    /// Nearest integer, ties to even.
    unsafe fn round(self) -> Self;
    /// `2^self` for integer values in -126..=127.
    unsafe fn pow2(self) -> Self;
    /// Sum of the lanes, folded by halves: 16, 8, 4, 2, 1.
    unsafe fn fold_add(self) -> f32;
    /// [`Lanes::fold_add`] of 16 at once: lane `4 t + n` is that of `sums[4 n + t]`.
    unsafe fn fold_tile(sums: &[Self; LANES]) -> Self;

    /// Load `n <= 16` values, the other lanes zero.
    #[inline(always)]
    unsafe fn load_part(ptr: *const f32, n: usize) -> Self {
        let mut buf = [0.0f32; LANES];
        // SAFETY: `n <= LANES` values are readable by the caller's contract.
        unsafe {
            std::ptr::copy_nonoverlapping(ptr, buf.as_mut_ptr(), n);
            Self::load(buf.as_ptr())
        }
    }

    /// As [`Lanes::load_part`], from BF16.
    #[inline(always)]
    unsafe fn load_part_bf16(ptr: *const u16, n: usize) -> Self {
        let mut buf = [0u16; LANES];
        // SAFETY: `n <= LANES` values are readable by the caller's contract.
        unsafe {
            std::ptr::copy_nonoverlapping(ptr, buf.as_mut_ptr(), n);
            Self::load_bf16(buf.as_ptr())
        }
    }

    /// Store the first `n <= 16` lanes.
    #[inline(always)]
    unsafe fn store_part(self, ptr: *mut f32, n: usize) {
        let mut buf = [0.0f32; LANES];
        // SAFETY: `n <= LANES` values are writable by the caller's contract.
        unsafe {
            self.store(buf.as_mut_ptr());
            std::ptr::copy_nonoverlapping(buf.as_ptr(), ptr, n);
        }
    }

    /// Largest magnitude of a group, these lanes and those of `b`: compared as integers, so NaN is the largest.
    #[inline(always)]
    unsafe fn magnitude(self, b: Self) -> f32 {
        let mut values = [0.0f32; GROUP];
        // SAFETY: 16 lanes at 0 and 16 of an array of 32.
        unsafe {
            self.store(values.as_mut_ptr());
            b.store(values.as_mut_ptr().add(LANES));
        }
        f32::from_bits(values.iter().map(|value| value.to_bits() & 0x7fff_ffff).max().unwrap_or(0))
    }

    /// Round a group, these lanes and those of `b`, to codes (NaN to 0), and store the 16 of even columns at `even`, the
    /// 16 of odd columns at `odd`. No magnitude exceeds 127.
    #[inline(always)]
    unsafe fn store_codes(self, b: Self, even: *mut i8, odd: *mut i8) {
        let mut values = [0.0f32; GROUP];
        // SAFETY: 16 lanes at 0 and 16 of an array of 32; 16 codes are writable by the caller's contract.
        unsafe {
            self.round().store(values.as_mut_ptr());
            b.round().store(values.as_mut_ptr().add(LANES));
            for (k, pair) in values.as_chunks::<2>().0.iter().enumerate() {
                *even.add(k) = pair[0] as i8;
                *odd.add(k) = pair[1] as i8;
            }
        }
    }

    /// `e^self`: Cephes' `expf` reduction and polynomial, as in [`crate::reference::exp`].
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        use crate::reference::exp_constants as c;
        // SAFETY: arithmetic only; features are the caller's contract.
        unsafe {
            let x = Self::splat(c::MIN).max(self);
            let x = Self::splat(c::MAX).min(x);
            let n = x.mul(Self::splat(c::LOG2_E)).round();
            let r = n.fma(Self::splat(c::NEG_LN2_HI), x);
            let r = n.fma(Self::splat(c::NEG_LN2_LO), r);
            let mut p = Self::splat(c::POLY[0]);
            for &coefficient in &c::POLY[1..] {
                p = p.fma(r, Self::splat(coefficient));
            }
            let y = p.fma(r.mul(r), r).add(Self::splat(1.0));
            y.mul(n.pow2())
        }
    }

    /// `1 / (1 + e^-self)`.
    #[inline(always)]
    unsafe fn sigmoid(self) -> Self {
        // SAFETY: arithmetic only; features are the caller's contract.
        unsafe {
            let one = Self::splat(1.0);
            one.div(one.add(Self::splat(0.0).sub(self).exp()))
        }
    }
}
