//! The paged cache of a model: blocks of 64 tokens, the same block numbers in every layer.
//!
//! What is cached of a token is latent attention's compressed pair (DeepSeek-V2 report, section 2.1), or on the exact
//! path what it expands to.

use crate::config::Config;
use half::bf16;
use half::slice::HalfBitsSliceExt;
use perilune_kernels::attention::{Latents, MlaShape};
use perilune_kernels::reference::{self, stored_width};
use perilune_kernels::{BLOCK_TOKENS, GROUP};
use serde::Serialize;

/// What is kept of a token in each layer; R is `kv_lora_rank`, rope `qk_rope_head_dim`, H heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheForm {
    /// Latent after its norm and rotated shared key, in BF16 (the fast path): 2 (R + rope) bytes.
    LatentBf16,
    /// The same in 8 bits with a BF16 scale a group of 32 (the fast path, where it is asked for): a byte a value, in
    /// whole runs of 128, and 2 bytes a group.
    LatentInt8,
    /// The same in `f32`: 4 (R + rope) bytes.
    LatentF32,
    /// Every head's key and value and the rotated shared key in `f32` (the exact path, the form training
    /// differentiates): 4 (H (nope + v) + rope) bytes.
    Expanded,
}

impl CacheForm {
    /// Bytes a token takes in all layers together.
    pub fn bytes_per_token(self, config: &Config) -> usize {
        let shape = mla_shape(config);
        let width = shape.latent_width();
        let row = match self {
            CacheForm::LatentBf16 => width * size_of::<bf16>(),
            CacheForm::LatentInt8 => stored_width(width) + width.div_ceil(GROUP) * size_of::<bf16>(),
            CacheForm::LatentF32 => width * size_of::<f32>(),
            CacheForm::Expanded => shape.expanded_width() * size_of::<f32>(),
        };
        row * config.num_hidden_layers
    }
}

/// Widths of the attention of `config`, in elements.
pub fn mla_shape(config: &Config) -> MlaShape {
    MlaShape {
        n_heads: config.num_attention_heads,
        nope: config.qk_nope_head_dim,
        rope: config.qk_rope_head_dim,
        v: config.v_head_dim,
        rank: config.kv_lora_rank,
    }
}

/// Blocks of cached tokens for all layers.
pub struct Cache {
    form: CacheForm,
    width: usize,
    n_blocks: usize,
    layers: Vec<Layer>,
    /// A row on its way to 8 bits, with zeros behind it.
    whole_groups: Vec<f32>,
}

enum Layer {
    F32(Vec<f32>),
    /// Bits of BF16: a vector of integers is zeroed lazily by the system.
    Bf16(Vec<u16>),
    /// Rows of [`stored_width`] codes, and the bits of one BF16 scale a group.
    Int8 {
        codes: Vec<i8>,
        scales: Vec<u16>,
    },
}

impl Cache {
    /// A cache of `n_blocks` blocks of 64 tokens; its memory becomes resident as blocks are written.
    pub fn new(config: &Config, form: CacheForm, n_blocks: usize) -> Self {
        let shape = mla_shape(config);
        let width = match form {
            CacheForm::LatentBf16 | CacheForm::LatentInt8 | CacheForm::LatentF32 => shape.latent_width(),
            CacheForm::Expanded => shape.expanded_width(),
        };
        let n_rows = n_blocks * BLOCK_TOKENS;
        let n = n_rows * width;
        let layer = || match form {
            CacheForm::LatentBf16 => Layer::Bf16(vec![0; n]),
            CacheForm::LatentInt8 => {
                let n_groups = width.div_ceil(GROUP);
                Layer::Int8 {
                    codes: vec![0; n_rows * stored_width(width)],
                    scales: vec![0; n_rows * n_groups],
                }
            }
            CacheForm::LatentF32 | CacheForm::Expanded => Layer::F32(vec![0.0; n]),
        };
        let layers = (0..config.num_hidden_layers).map(|_| layer()).collect();
        Cache { form, width, n_blocks, layers, whole_groups: Vec::new() }
    }

    /// Blocks that hold `n_tokens`, the last one perhaps in part.
    pub fn blocks_for(n_tokens: usize) -> usize {
        n_tokens.div_ceil(BLOCK_TOKENS)
    }

    /// What is kept of a token.
    pub fn form(&self) -> CacheForm {
        self.form
    }

    /// Blocks of 64 tokens in all, of every layer alike.
    pub fn n_blocks(&self) -> usize {
        self.n_blocks
    }

    /// Write one token's row (of the form's width, rounded to it) at `position` of the sequence with `blocks`.
    pub(crate) fn write(&mut self, layer_idx: usize, blocks: &[u32], position: usize, row: &[f32]) {
        let slot = blocks[position / BLOCK_TOKENS] as usize * BLOCK_TOKENS + position % BLOCK_TOKENS;
        let span = slot * self.width..(slot + 1) * self.width;
        match &mut self.layers[layer_idx] {
            Layer::F32(rows) => rows[span].copy_from_slice(row),
            Layer::Bf16(rows) => {
                rows[span].iter_mut().zip(row).for_each(|(slot, v)| *slot = bf16::from_f32(*v).to_bits())
            }
            Layer::Int8 { codes, scales } => {
                let (stored, n_groups) = (stored_width(self.width), self.width.div_ceil(GROUP));
                let codes = &mut codes[slot * stored..(slot + 1) * stored];
                let scales = &mut scales[slot * n_groups..(slot + 1) * n_groups];
                self.whole_groups.resize(n_groups * GROUP, 0.0);
                self.whole_groups[..row.len()].copy_from_slice(row);
                reference::encode_row(&self.whole_groups, codes, scales.reinterpret_cast_mut());
            }
        }
    }

    /// Let the first `n_tokens` of the sequence with `blocks` hold seeded noise, evenly in -1..1, for measuring what
    /// a long context costs without computing it.
    ///
    /// # Panics
    /// If the blocks hold fewer tokens, or one is not of this cache.
    pub fn fill_with_noise(&mut self, blocks: &[u32], n_tokens: usize, seed: u64) {
        let mut row = vec![0.0f32; self.width];
        let mut state = seed;
        for layer_idx in 0..self.layers.len() {
            for position in 0..n_tokens {
                for value in &mut row {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    *value = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
                }
                self.write(layer_idx, blocks, position, &row);
            }
        }
    }

    /// The first `n_tokens` of a sequence as attention takes them.
    pub(crate) fn view(&self, layer_idx: usize, blocks: &[u32], n_tokens: usize) -> View<'_> {
        let blocks = &blocks[..Cache::blocks_for(n_tokens)];
        let width = self.width;
        let span = |b: &u32, width: usize| {
            *b as usize * BLOCK_TOKENS * width..(*b as usize + 1) * BLOCK_TOKENS * width
        };
        match &self.layers[layer_idx] {
            Layer::F32(rows) => View::F32(blocks.iter().map(|b| &rows[span(b, width)]).collect()),
            Layer::Bf16(rows) => {
                View::Bf16(blocks.iter().map(|b| rows[span(b, width)].reinterpret_cast::<bf16>()).collect())
            }
            Layer::Int8 { codes, scales } => {
                let (stored, n_groups) = (stored_width(width), width.div_ceil(GROUP));
                View::Int8 {
                    codes: blocks.iter().map(|b| &codes[span(b, stored)]).collect(),
                    scales: blocks.iter().map(|b| scales[span(b, n_groups)].reinterpret_cast()).collect(),
                }
            }
        }
    }
}

/// One sequence's blocks in one layer.
pub(crate) enum View<'a> {
    F32(Vec<&'a [f32]>),
    Bf16(Vec<&'a [bf16]>),
    Int8 { codes: Vec<&'a [i8]>, scales: Vec<&'a [bf16]> },
}

impl View<'_> {
    pub(crate) fn latents(&self) -> Latents<'_> {
        match self {
            View::F32(blocks) => Latents::F32(blocks),
            View::Bf16(blocks) => Latents::Bf16(blocks),
            View::Int8 { codes, scales } => Latents::Int8 { codes, scales },
        }
    }
}
