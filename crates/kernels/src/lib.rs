//! Here are buffers, give me the result.
//!
//! Arithmetic on plain buffers, on the processor this runs on. The crate knows nothing of layers, tokens or
//! requests: callers hand in slices and shapes.
//!
//! **Axes**, one letter each, used by every shape in these docs: B batch, T tokens (rows), H heads, D head
//! width, C channels (K: the reduced axis of a product, N: the axis it produces), I inner width of an MLP, E experts,
//! R latent rank, V vocabulary, G groups of 32 along K. Beside experts K is how many of them a token chooses. A slice
//! of shape [T, C] holds `T * C` elements, row by row without gaps. A shorter one is its caller's mistake: the
//! operation panics or leaves out what is missing, and touches nothing outside the slice.
//!
//! **Definition and versions.** [`mod@reference`] holds the plain scalar form of every operation; it is the
//! definition and is kept forever. The versions chosen at run time (`avx2`, `avx512`, `amx`, `neon`) give *the same bits*:
//! each reduction has one written order (an inner product: [`LANES`] partial sums, folded by halves), so the result
//! of a row depends neither on the instruction set, nor on the batch it is in, nor on the number of threads. (Two
//! exceptions: where K is not a multiple of 16, a sum that underflowed to minus zero may come out as plus zero; and
//! derivatives, in [`train`], are near the definition's and the same for any number of threads, but may differ between
//! instruction sets.)
//!
//! Reading order: [`bf16`](half::bf16) buffers in [`matrix`], the processor in [`cpu`], then one module an
//! operation: [`matmul`], [`norm`], [`rope`], [`activation`], [`logits`], [`router`], [`experts`],
//! [`attention`].

pub mod matrix;
pub mod quant;

pub mod cpu;
pub mod pool;
pub mod topology;

pub mod activation;
pub mod attention;
pub mod experts;
pub mod logits;
pub mod matmul;
pub mod norm;
pub mod rope;
pub mod router;
pub mod train;

pub mod ahead;
pub mod map;
pub mod probe;
pub mod reference;

#[cfg(target_arch = "aarch64")]
mod arm;
mod lanes;
#[cfg(target_arch = "x86_64")]
mod panels;
#[cfg(not(target_arch = "x86_64"))]
#[path = "no_panels.rs"]
mod panels;
mod shared;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod simd;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod tiles;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod versions;
#[cfg(target_arch = "x86_64")]
mod x86;

/// Partial sums of an `f32` inner product, norm or softmax: element `k` goes to lane `k % LANES`.
pub const LANES: usize = 16;

/// Columns along K that share one scale: of INT4 weights (`group_size` of the published checkpoint), 8-bit weights
/// and 8-bit activations alike.
pub const GROUP: usize = 32;

/// Columns along K whose 8-bit codes are stored together, four groups ([`reference::stored_position`]).
pub const QUAD: usize = 4 * GROUP;

/// Tokens in one block of a paged cache.
///
/// Blocks start at multiples of it, in every sequence.
pub const BLOCK_TOKENS: usize = 64;
