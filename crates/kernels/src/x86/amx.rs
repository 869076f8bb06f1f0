//! AMX: a group of 32 columns of 16 rows of weights by 16 rows of x in one instruction (`tdpbssd`; Intel 64 and IA-32
//! Architectures Software Developer's Manual, volume 1, chapter 18). All else is AVX-512's.
//!
//! Weights are the left tile: a row's codes of a group side by side, nibbles taken apart. Rows of x are the right one, in
//! panels whose words are transposed once for many tiles of weights. The sums of a group leave the tile as integers, get
//! their scales in the registers of AVX-512, and go to the lane of the definition: all groups of one lane come one after
//! the other, so that its sums stay in registers.
//!
//! The intrinsics of tiles are not stable: inline assembly.

// Counted loops over registers: an iterator's closure would not have the features of the function around it.
#![allow(clippy::needless_range_loop)]

pub(crate) use super::avx512::*;

use super::{ask_ahead, ask_scales_ahead, prefetch, prefetch_second};
use crate::panels::{PANEL_ROWS, PanelGroup, Panels, group_place, n_places};
use crate::quant::QuantRow;
use crate::reference::{LINE, TILE_ROWS};
use crate::versions::{Int4, Int8};
use crate::{GROUP, LANES, QUAD};
use half::bf16;
use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

/// Whether the processor has tiles of 8-bit integers and the system lets this process use them; asks it the first time.
pub(crate) fn is_granted() -> bool {
    static IS_GRANTED: OnceLock<bool> = OnceLock::new();
    *IS_GRANTED.get_or_init(|| {
        /// Bits of EDX of CPUID leaf 7: AMX-TILE and AMX-INT8.
        const TILES: u32 = 1 << 24 | 1 << 25;
        __cpuid_count(7, 0).edx & TILES == TILES && ask_system()
    })
}

/// Linux gives a process the state of tiles on demand (Documentation/arch/x86/xstate.rst).
#[cfg(target_os = "linux")]
fn ask_system() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: the call changes only what this process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn ask_system() -> bool {
    false
}

/// What `ldtilecfg` reads: palette 1, and for each tile its rows and the bytes of each.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    n_rows: [u8; 16],
}

impl Config {
    /// Tiles 0 to 3 hold sums, 4 and 5 weights, 6 and 7 rows of x.
    const fn new(left: (u8, u16), right: (u8, u16)) -> Self {
        let (mut row_bytes, mut n_rows) = ([0; 16], [0; 16]);
        let mut tile = 0;
        while tile < 8 {
            (n_rows[tile], row_bytes[tile]) = match tile {
                0..4 => (16, 64),
                4..6 => left,
                _ => right,
            };
            tile += 1;
        }
        Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, n_rows }
    }
}

/// Bytes of four columns of a panel.
const RIGHT_BYTES: usize = 4 * PANEL_ROWS;

/// A group of 32 columns.
static OF_GROUPS: Config = Config::new((16, GROUP as u16), ((GROUP / 4) as u8, RIGHT_BYTES as u16));
/// Whole tiles.
static WHOLE: Config = Config::new((16, 64), (16, 64));

/// Tiles as configured, for as long as this lives.
struct Configured;

impl Configured {
    #[inline(always)]
    unsafe fn take(config: &'static Config) -> Self {
        // SAFETY: reads the 64 bytes of a configuration that the processor allows.
        unsafe { asm!("ldtilecfg [{}]", in(reg) config, options(nostack, preserves_flags, readonly)) };
        Configured
    }
}

impl Drop for Configured {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: only this module uses tiles, and each use takes them first.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}

/// Up to 16 rows of x as a panel of `n_groups`: every place of `out` is written.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn pack_panel(x: &[QuantRow<'_>], n_groups: usize, out: &mut [MaybeUninit<PanelGroup>]) {
    assert!(x.len() <= PANEL_ROWS && x.iter().all(|x| x.holds(n_groups)) && out.len() == n_places(n_groups));
    let out = out.as_mut_ptr().cast::<PanelGroup>();
    // SAFETY: rows hold whole quads and runs of 16 scales for `n_groups`; every group has its place in `out`.
    unsafe {
        // Groups that are not there stand behind the others of their lane.
        for group in n_groups..n_places(n_groups) {
            out.add(group_place(group, n_groups)).write_bytes(0, 1);
        }
        for base in (0..n_groups).step_by(LANES) {
            let mut rows = [_mm512_setzero_si512(); PANEL_ROWS];
            for t in 0..x.len() {
                rows[t] = _mm512_loadu_si512(x[t].scales.as_ptr().add(base).cast());
            }
            for (group, scales) in (base..n_groups).zip(transpose(rows)) {
                let to = &raw mut (*out.add(group_place(group, n_groups))).scales;
                _mm512_store_si512(to.cast(), scales);
            }
        }
        for quad in 0..n_groups.div_ceil(4) {
            for half in 0..2 {
                let mut rows = [_mm512_setzero_si512(); PANEL_ROWS];
                for t in 0..x.len() {
                    let from = x[t].codes.as_ptr().add(quad * QUAD + half * QUAD / 2);
                    rows[t] = _mm512_loadu_si512(from.cast());
                }
                let words = transpose(rows);
                for (i, words) in words.chunks_exact(4).enumerate().take(n_groups - quad * 4) {
                    let to = &raw mut (*out.add(group_place(quad * 4 + i, n_groups))).codes;
                    for (word, words) in words.iter().enumerate() {
                        let to = to.cast::<i8>().add((4 * half + word) * RIGHT_BYTES);
                        _mm512_store_si512(to.cast(), *words);
                    }
                }
            }
        }
    }
}

/// Two groups of 16 rows of weights, of neighbouring lanes of the definition: a row's codes of both side by side.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct GroupPair {
    codes: [i8; TILE_ROWS * 2 * GROUP],
    scales: [[f32; TILE_ROWS]; 2],
}

/// Bytes from one row of a [`GroupPair`] to the next.
const PAIR_BYTES: usize = 2 * GROUP;

/// Pairs that `n_groups` groups take.
const fn n_pairs(n_groups: usize) -> usize {
    n_places(n_groups) / 2
}

/// Where the pair that a group belongs to stands: those of one pair of lanes are neighbours.
#[inline(always)]
const fn pair_place(group: usize, n_groups: usize) -> usize {
    group % LANES / 2 * n_groups.div_ceil(LANES) + group / LANES
}

/// 16 rows of weights, unpacked into `out` of [`n_pairs`].
#[inline(always)]
unsafe fn unpack<C: Codes>(w: C, first_row: usize, n_groups: usize, out: *mut GroupPair) {
    // SAFETY: `w` has 16 rows of `n_groups` groups from `first_row`, `out` a place for each pair, by the caller.
    unsafe {
        let first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
        let second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
        for base in (0..n_groups).step_by(LANES) {
            let n = LANES.min(n_groups - base);
            let mut scales = [_mm512_setzero_si512(); TILE_ROWS];
            for row in 0..TILE_ROWS {
                scales[row] = _mm512_castps_si512(w.scales(first_row + row, base, n));
                ask_scales_ahead(w, first_row + row, TILE_ROWS, base + LANES, n_groups);
            }
            for (group, scales) in (base..base + LANES).zip(transpose(scales)) {
                let to = &raw mut (*out.add(pair_place(group, n_groups))).scales[group % 2];
                _mm512_store_si512(to.cast(), scales);
            }
            for quad in base / 4..(base + n).div_ceil(4) {
                let n = 4.min(n_groups - quad * 4);
                let at = pair_place(quad * 4, n_groups);
                let low = (&raw mut (*out.add(at)).codes).cast::<i8>();
                let high = (&raw mut (*out.add(at + n_groups.div_ceil(LANES))).codes).cast::<i8>();
                for row in 0..TILE_ROWS {
                    let [even, odd] = C::signed(w.raw(first_row + row, quad, n));
                    ask_ahead(w, first_row + row, TILE_ROWS, quad, n_groups);
                    let (to_low, to_high) = (low.add(row * PAIR_BYTES), high.add(row * PAIR_BYTES));
                    _mm512_store_si512(to_low.cast(), _mm512_permutex2var_epi64(even, first, odd));
                    _mm512_store_si512(to_high.cast(), _mm512_permutex2var_epi64(even, second, odd));
                }
            }
        }
    }
}

/// Tiles of weights that meet one or two panels at a time.
const N_LEFT: usize = 2;
/// Groups whose sums are taken from the tiles before they get their scales.
const N_AT_ONCE: usize = 4;
/// Groups of a lane ahead of those being multiplied that are asked for.
const GROUPS_AHEAD: usize = 2;

/// Sums of one group, [rows of weights, rows of x].
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Products([[i32; PANEL_ROWS]; TILE_ROWS]);

/// Sums of a panel with 16 rows of weights, by lane of the definition, then by row of weights; each register the rows of
/// x.
type PanelSums = [[__m512; TILE_ROWS]; LANES];

thread_local! {
    /// The tiles of weights that are multiplied, unpacked once for all panels.
    static UNPACKED: RefCell<Vec<GroupPair>> = const { RefCell::new(Vec::new()) };
    /// Sums of each panel with each of those tiles.
    static SUMS: RefCell<Vec<PanelSums>> = const { RefCell::new(Vec::new()) };
}

/// One lane's groups of two tiles of weights and `N_RIGHT` panels, one or two, and where their sums go.
struct Lane<const N_RIGHT: usize> {
    /// Which of the two groups of a pair is the lane's.
    half: usize,
    /// First pair of each tile.
    left: [*const GroupPair; N_LEFT],
    /// First group of each panel.
    right: [*const PanelGroup; N_RIGHT],
    /// Groups.
    n: usize,
    /// Groups from the first of these panels to that of the next ones.
    next_panels: usize,
    /// What of the next rows of weights is to be asked for meanwhile: from where on, and lines for each group.
    next_rows: (*const u8, usize),
    /// The lane's sums of each panel with each tile.
    to: [[*mut [__m512; TILE_ROWS]; N_LEFT]; N_RIGHT],
}

impl<const N_RIGHT: usize> Lane<N_RIGHT> {
    #[inline(always)]
    unsafe fn sum(&self) {
        let mut products = MaybeUninit::<[[[Products; N_LEFT]; N_RIGHT]; N_AT_ONCE]>::uninit();
        // SAFETY: the groups are there, and the tiles are configured, by the caller; products are read as far as they
        // were written.
        unsafe {
            for to in self.to.as_flattened() {
                to.write([_mm512_setzero_ps(); TILE_ROWS]);
            }
            for first in (0..self.n).step_by(N_AT_ONCE) {
                let n = N_AT_ONCE.min(self.n - first);
                for i in 0..n {
                    self.ask_ahead(first + i);
                    self.multiply(
                        first + i,
                        products.as_mut_ptr().cast::<[[Products; N_LEFT]; N_RIGHT]>().add(i).cast(),
                    );
                }
                for panel in 0..N_RIGHT {
                    for tile in 0..N_LEFT {
                        let mut sums = *self.to[panel][tile];
                        for i in 0..n {
                            let of_w = &(*self.left[tile].add(first + i)).scales[self.half];
                            let of_x = &(*self.right[panel].add(first + i)).scales;
                            add_scaled(&(*products.as_ptr())[i][panel][tile], of_w, of_x, &mut sums);
                        }
                        *self.to[panel][tile] = sums;
                    }
                }
            }
        }
    }

    /// Ask for the panels' groups [`GROUPS_AHEAD`] of the one at `at`; past the lane's end, for those of the next panels.
    /// And for a part of the rows of weights that come next: they leave memory while these are multiplied. To ask for the
    /// unpacked weights costs more than it brings.
    #[inline(always)]
    fn ask_ahead(&self, at: usize) {
        let ahead = at + GROUPS_AHEAD;
        let ahead = if ahead < self.n { ahead } else { ahead - self.n + self.next_panels };
        for right in self.right {
            prefetch::<{ size_of::<PanelGroup>() / LINE }>(right.wrapping_add(ahead).cast());
        }
        let (next, n_lines) = self.next_rows;
        for line in 0..n_lines {
            prefetch_second::<1>(next.wrapping_add((at * n_lines + line) * LINE));
        }
    }

    /// The sums of the group at `at` to `N_LEFT` times `N_RIGHT` [`Products`], those of a panel side by side.
    #[inline(always)]
    unsafe fn multiply(&self, at: usize, to: *mut Products) {
        // SAFETY: tiles are configured, the group is there, and so are the places for its products, by the caller.
        unsafe {
            let left = |tile: usize| {
                (&raw const (*self.left[tile].add(at)).codes).cast::<i8>().add(self.half * GROUP)
            };
            match N_RIGHT {
                1 => asm!(
                    "tileloadd tmm4, [{a} + {pair}*1]",
                    "tileloadd tmm6, [{x} + {row}*1]",
                    "tileloadd tmm5, [{b} + {pair}*1]",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tdpbssd tmm1, tmm5, tmm6",
                    "tilestored [{to} + {row}*1], tmm0",
                    "tilestored [{to} + {row}*1 + 1024], tmm1",
                    a = in(reg) left(0),
                    b = in(reg) left(1),
                    x = in(reg) self.right[0].add(at),
                    to = in(reg) to,
                    pair = in(reg) PAIR_BYTES,
                    row = in(reg) RIGHT_BYTES,
                    options(nostack, preserves_flags),
                ),
                _ => asm!(
                    "tileloadd tmm4, [{a} + {pair}*1]",
                    "tileloadd tmm6, [{x} + {row}*1]",
                    "tileloadd tmm5, [{b} + {pair}*1]",
                    "tileloadd tmm7, [{y} + {row}*1]",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tdpbssd tmm1, tmm5, tmm6",
                    "tdpbssd tmm2, tmm4, tmm7",
                    "tdpbssd tmm3, tmm5, tmm7",
                    "tilestored [{to} + {row}*1], tmm0",
                    "tilestored [{to} + {row}*1 + 1024], tmm1",
                    "tilestored [{to} + {row}*1 + 2048], tmm2",
                    "tilestored [{to} + {row}*1 + 3072], tmm3",
                    a = in(reg) left(0),
                    b = in(reg) left(1),
                    x = in(reg) self.right[0].add(at),
                    y = in(reg) self.right[N_RIGHT - 1].add(at),
                    to = in(reg) to,
                    pair = in(reg) PAIR_BYTES,
                    row = in(reg) RIGHT_BYTES,
                    options(nostack, preserves_flags),
                ),
            }
        }
    }
}

/// A group's sums, times both scales, added to the lane's.
#[inline(always)]
unsafe fn add_scaled(
    products: &Products,
    of_w: &[f32; TILE_ROWS],
    of_x: &[f32; PANEL_ROWS],
    sums: &mut [__m512; TILE_ROWS],
) {
    // SAFETY: each is 16 values.
    unsafe {
        let of_x = _mm512_load_ps(of_x.as_ptr());
        for row in 0..TILE_ROWS {
            let product = _mm512_cvtepi32_ps(_mm512_load_si512(products.0[row].as_ptr().cast()));
            let both = _mm512_mul_ps(_mm512_set1_ps(of_w[row]), of_x);
            sums[row] = _mm512_fmadd_ps(product, both, sums[row]);
        }
    }
}

/// The products of one panel with 16 rows of weights to `n` rows of `out`, `stride` values apart.
#[inline(always)]
unsafe fn fold_panel(sums: &PanelSums, n: usize, out: *mut f32, stride: usize) {
    // SAFETY: arithmetic, and stores of 16 values to each row of `out`, which are there by the caller.
    unsafe {
        let mut rows = [_mm512_setzero_si512(); TILE_ROWS];
        for row in 0..TILE_ROWS {
            let mut lanes = [_mm512_setzero_ps(); LANES];
            for lane in 0..LANES {
                lanes[lane] = sums[lane][row];
            }
            rows[row] = _mm512_castps_si512(fold_lanes(lanes));
        }
        for (t, row) in transpose(rows).iter().enumerate().take(n) {
            _mm512_storeu_si512(out.add(t * stride).cast(), *row);
        }
    }
}

/// What a lane multiplies of two tiles of weights and of one or two panels from `panel_idx` on, its sums among `sums`.
#[inline(always)]
unsafe fn lane_of<const N_RIGHT: usize>(
    x: &Panels,
    panel_idx: usize,
    tiles: [*const GroupPair; N_LEFT],
    next_rows: (*const u8, usize),
    sums: *mut PanelSums,
    lane: usize,
) -> Lane<N_RIGHT> {
    let n_groups = x.n_groups();
    let mut it = Lane {
        half: lane % 2,
        left: tiles,
        right: [x.panel(panel_idx).as_ptr(); N_RIGHT],
        n: (n_groups + LANES - 1 - lane) / LANES,
        next_panels: N_RIGHT * n_places(n_groups),
        next_rows,
        to: [[std::ptr::null_mut(); N_LEFT]; N_RIGHT],
    };
    // SAFETY: tiles and panels have a place for every group, `sums` one for every panel with each tile, by the caller.
    unsafe {
        for tile in 0..N_LEFT {
            it.left[tile] = tiles[tile].add(pair_place(lane, n_groups));
        }
        for panel in 0..N_RIGHT {
            it.right[panel] = x.panel(panel_idx + panel).as_ptr().add(group_place(lane, n_groups));
            for tile in 0..N_LEFT {
                let of_both = sums.add((panel_idx + panel) * N_LEFT + tile);
                it.to[panel][tile] = of_both.cast::<[__m512; TILE_ROWS]>().add(lane);
            }
        }
    }
    it
}

/// All panels with `n_rows` rows of weights, 16 or 32: `out` [T, n_rows].
#[inline(always)]
unsafe fn panels<C: Codes>(x: &Panels, w: C, n_rows: usize, n_groups: usize, out: &mut [f32]) {
    assert!(n_rows == TILE_ROWS || n_rows == N_LEFT * TILE_ROWS);
    assert!(out.len() == x.n_rows() * n_rows && x.n_groups() == n_groups);
    let (mut unpacked, mut sums) = (UNPACKED.take(), SUMS.take());
    let (n_tiles, n_panels) = (n_rows / TILE_ROWS, x.n_panels());
    unpacked.clear();
    unpacked.reserve(N_LEFT * n_pairs(n_groups));
    sums.clear();
    sums.reserve(N_LEFT * n_panels);
    let (first, sums_at) = (unpacked.as_mut_ptr(), sums.as_mut_ptr());
    let (next, n_bytes) = w.next_rows(n_rows);
    let n_lines = n_bytes.div_ceil(n_groups * LINE);
    // SAFETY: `w` has `n_rows` rows of `n_groups` by the caller; there is room for two tiles, and for each panel's sums
    // with each of them. A single tile of weights stands in for its neighbour, whose sums nobody reads.
    unsafe {
        for tile in 0..n_tiles {
            unpack(w, tile * TILE_ROWS, n_groups, first.add(tile * n_pairs(n_groups)));
        }
        let tiles = [first.cast_const(), first.add((n_tiles - 1) * n_pairs(n_groups))];
        let configured = Configured::take(&OF_GROUPS);
        for lane in 0..LANES {
            // Once, beside the first panels.
            let mut next_rows = (next.wrapping_add(group_place(lane, n_groups) * n_lines * LINE), n_lines);
            for panel in (0..n_panels).step_by(2) {
                match n_panels - panel {
                    1 => lane_of::<1>(x, panel, tiles, next_rows, sums_at, lane).sum(),
                    _ => lane_of::<2>(x, panel, tiles, next_rows, sums_at, lane).sum(),
                }
                next_rows.1 = 0;
            }
        }
        drop(configured);
        for panel in 0..n_panels {
            let first = panel * PANEL_ROWS;
            for tile in 0..n_tiles {
                let to = out.as_mut_ptr().add(first * n_rows + tile * TILE_ROWS);
                let n = PANEL_ROWS.min(x.n_rows() - first);
                fold_panel(&*sums_at.add(panel * N_LEFT + tile), n, to, n_rows);
            }
        }
    }
    UNPACKED.set(unpacked);
    SUMS.set(sums);
}

/// [`crate::reference::band_q4`] of the rows in panels with 16 or 32 rows of weights.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn panels_q4(x: &Panels, packed: &[u8], scales: &[bf16], n_rows: usize, out: &mut [f32]) {
    let w = Int4::new(packed, scales, n_rows);
    // SAFETY: the features are enabled here; the rows hold codes for every scale.
    unsafe { panels(x, w, n_rows, w.n_groups, out) }
}

/// [`crate::reference::band_q8`] of the rows in panels with 16 or 32 rows of weights.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn panels_q8(x: &Panels, codes: &[i8], scales: &[bf16], n_rows: usize, out: &mut [f32]) {
    let w = Int8::new(codes, scales, n_rows);
    // SAFETY: the features are enabled here; the rows hold codes for every scale.
    unsafe { panels(x, w, n_rows, w.n_groups, out) }
}

/// See [`crate::reference::integer_multiply_adds`]; whole tiles, 16 by 16 by 64.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn integer_multiply_adds(rounds: usize) -> usize {
    const PER_ROUND: usize = 4;
    // SAFETY: the tiles are configured, and nothing but tiles is read or written.
    unsafe {
        let configured = Configured::take(&WHOLE);
        asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
        asm!("tilezero tmm4", "tilezero tmm6", options(nostack, nomem));
        for _ in 0..rounds {
            asm!(
                "tdpbssd tmm0, tmm4, tmm6",
                "tdpbssd tmm1, tmm4, tmm6",
                "tdpbssd tmm2, tmm4, tmm6",
                "tdpbssd tmm3, tmm4, tmm6",
                options(nostack, nomem, preserves_flags)
            );
        }
        drop(configured);
    }
    rounds * PER_ROUND * 16 * 16 * 64
}
