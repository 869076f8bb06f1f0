//! How many tokens of a prompt pass together.
//!
//! A pass reads every dense matrix once, and each routed expert that one of its rows chose (of K2's 384 a row chooses 8,
//! so 64 rows read three quarters of them and 512 all), and it expands the keys and values of every token cached
//! before it. A longer chunk shares that among more rows; but whoever runs beside it waits until it ends, and its
//! buffers grow with its rows. So the chunk is the shortest that costs nearly as little a token as the longest allowed.
//!
//! Bytes and operations are added up, not overlapped: a core that fetches and unpacks weights does not multiply
//! meanwhile.

use crate::cache::{CacheForm, mla_shape};
use crate::config::Config;
use crate::forward::Model;
use crate::layout::Kind;
use perilune_kernels::BLOCK_TOKENS;

/// What a token may cost more than in the longest chunk that is allowed.
const TOLERANCE: f64 = 1.05;

/// How fast a machine works, measured or assumed. Only the ratios count for [`chunk_tokens`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speeds {
    /// Bytes of weights read in a second.
    pub bytes_per_s: f64,
    /// Operations of products with weights in a second (a multiplication and an addition are two).
    pub products_per_s: f64,
    /// Operations of attention in a second, in `f32`.
    pub attention_per_s: f64,
}

impl Speeds {
    /// Two cores of the Zen 3 machine of `docs/speed.md`: bandwidth and `f32` peak as its runs measured them, products as
    /// whole passes achieve them (512 tokens of its 2-layer slice come to 10.8 s; 10.5 to 11.6 were measured).
    pub const ASSUMED: Speeds = Speeds { bytes_per_s: 18e9, products_per_s: 100e9, attention_per_s: 92e9 };
}

/// What the passes of a prompt cost, as far as a chunk's length has a say in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PassCosts {
    /// Bytes of weights that every pass reads: all but embedding and routed experts.
    pub pass_bytes: f64,
    /// Bytes of all routed experts of all layers.
    pub routed_bytes: f64,
    /// E.
    pub n_experts: usize,
    /// K.
    pub n_chosen: usize,
    /// Operations of a row's products with weights.
    pub row_operations: f64,
    /// Operations that expand a cached token's keys and values, once in every pass after it.
    pub expand_operations: f64,
    /// Whether those are products of 8-bit rows.
    pub expands_in_8_bits: bool,
    /// Operations of a row with a token that it attends to.
    pub pair_operations: f64,
}

impl PassCosts {
    /// Those of prefill passes of `model` over its own form of cache.
    pub fn of(model: &Model) -> Self {
        let config = model.config();
        let (n_experts, n_chosen) = (config.n_routed_experts.max(1), config.num_experts_per_tok);
        let (mut pass_bytes, mut routed_bytes, mut row_operations) = (0.0, 0.0, 0.0);
        for (kind, matrix) in model.weights().matrices() {
            let (bytes, products) = (matrix.bytes() as f64, 2.0 * (matrix.n_rows() * matrix.n_cols()) as f64);
            match kind {
                Kind::Embedding => {}
                Kind::RoutedExpert => {
                    routed_bytes += bytes;
                    row_operations += products * n_chosen as f64 / n_experts as f64;
                }
                // One row of a chunk gives logits at most.
                Kind::Head => pass_bytes += bytes,
                _ => {
                    pass_bytes += bytes;
                    row_operations += products;
                }
            }
        }
        let (expand_operations, pair_operations) = attention_operations(config, model.cache_form());
        PassCosts {
            pass_bytes,
            routed_bytes,
            n_experts,
            n_chosen,
            row_operations,
            expand_operations,
            expands_in_8_bits: model.weights().layers.iter().any(|layer| layer.attention.kv_b.is_integer()),
            pair_operations,
        }
    }

    /// Seconds that a token takes in a chunk of `n_rows` after `n_before` cached tokens. What the rows of a chunk have to
    /// do with each other is left out: over a whole prompt it comes to the same for any chunks.
    pub fn seconds_per_token(&self, speeds: &Speeds, n_rows: usize, n_before: usize) -> f64 {
        let (n, before) = (n_rows as f64, n_before as f64);
        let missed = (1.0 - self.n_chosen as f64 / self.n_experts as f64).powf(n);
        let bytes = (self.pass_bytes + self.routed_bytes * (1.0 - missed)) / n;
        let expand_per_s =
            if self.expands_in_8_bits { speeds.products_per_s } else { speeds.attention_per_s };
        bytes / speeds.bytes_per_s
            + self.row_operations / speeds.products_per_s
            + before * self.expand_operations / n / expand_per_s
            + before * self.pair_operations / speeds.attention_per_s
    }
}

/// Operations of expanding one cached token, and of one row with one token, in all layers.
fn attention_operations(config: &Config, form: CacheForm) -> (f64, f64) {
    let shape = mla_shape(config);
    let heads = 2.0 * (config.num_hidden_layers * shape.n_heads) as f64;
    let expand = if form == CacheForm::Expanded { 0 } else { shape.key_value() * shape.rank };
    (heads * expand as f64, heads * (shape.query() + shape.v) as f64)
}

/// The shortest chunk of whole blocks that takes at most a twentieth more time for a token than the longest of `most`
/// tokens, after `n_before` cached ones. At least one block, and no more than `most` where that is a block.
///
/// Faster products ask for longer chunks unless expansion is one of them; before anything is cached, faster memory asks for
/// shorter ones.
pub fn chunk_tokens(costs: &PassCosts, speeds: &Speeds, n_before: usize, most: usize) -> usize {
    let longest = (most / BLOCK_TOKENS * BLOCK_TOKENS).max(BLOCK_TOKENS);
    let seconds = |n: usize| costs.seconds_per_token(speeds, n, n_before);
    let enough = TOLERANCE * seconds(longest);
    (BLOCK_TOKENS..longest).step_by(BLOCK_TOKENS).find(|&n| seconds(n) <= enough).unwrap_or(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kimi K2 Thinking as published, by the tables of `docs/speed.md`.
    const K2: PassCosts = PassCosts {
        pass_bytes: 21.1e9,
        routed_bytes: 570.7e9,
        n_experts: 384,
        n_chosen: 8,
        row_operations: 61.1e9,
        expand_operations: 2.0 * 61.0 * 64.0 * 256.0 * 512.0,
        expands_in_8_bits: false,
        pair_operations: 2.0 * 61.0 * 64.0 * 320.0,
    };

    /// SplitMix64, as a factor between a tenth and ten.
    struct Rng(u64);

    impl Rng {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        }

        fn below(&mut self, n: usize) -> usize {
            (self.next() % n as u64) as usize
        }

        fn factor(&mut self) -> f64 {
            10f64.powf((self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0)
        }

        fn case(&mut self) -> (PassCosts, Speeds) {
            let n_experts = 1 + self.below(500);
            let costs = PassCosts {
                pass_bytes: K2.pass_bytes * self.factor(),
                routed_bytes: K2.routed_bytes * self.factor(),
                n_experts,
                n_chosen: 1 + self.below(n_experts.min(16)),
                row_operations: K2.row_operations * self.factor(),
                expand_operations: K2.expand_operations * self.factor(),
                expands_in_8_bits: self.below(2) == 1,
                pair_operations: K2.pair_operations * self.factor(),
            };
            let Speeds { bytes_per_s, products_per_s, attention_per_s } = Speeds::ASSUMED;
            let speeds = Speeds {
                bytes_per_s: bytes_per_s * self.factor(),
                products_per_s: products_per_s * self.factor(),
                attention_per_s: attention_per_s * self.factor(),
            };
            (costs, speeds)
        }
    }

    #[test]
    fn a_chunk_is_the_shortest_that_costs_little_more_than_the_longest() {
        let mut rng = Rng(1);
        for _ in 0..2_000 {
            let (costs, speeds) = rng.case();
            let (before, most) = (rng.below(200_000), 1 + rng.below(5_000));
            let n = chunk_tokens(&costs, &speeds, before, most);
            assert!(
                n.is_multiple_of(BLOCK_TOKENS) && n >= BLOCK_TOKENS && n <= most.max(BLOCK_TOKENS),
                "{n} of {most}"
            );
            let longest = (most / BLOCK_TOKENS * BLOCK_TOKENS).max(BLOCK_TOKENS);
            let seconds = |n: usize| costs.seconds_per_token(&speeds, n, before);
            assert!(seconds(n) <= TOLERANCE * seconds(longest));
            assert!(n == BLOCK_TOKENS || seconds(n - BLOCK_TOKENS) > TOLERANCE * seconds(longest));
        }
    }

    #[test]
    fn chunks_lengthen_with_what_they_share_and_with_what_is_allowed() {
        let mut rng = Rng(2);
        for _ in 0..2_000 {
            let (costs, speeds) = rng.case();
            let (before, most, factor) = (rng.below(200_000), 64 + rng.below(5_000), 1.0 + rng.factor());
            let n = chunk_tokens(&costs, &speeds, before, most);
            assert!(chunk_tokens(&costs, &speeds, before, most + rng.below(3_000)) >= n);
            let products = Speeds { products_per_s: speeds.products_per_s * factor, ..speeds };
            let in_f32 = PassCosts { expands_in_8_bits: false, ..costs };
            let n_in_f32 = chunk_tokens(&in_f32, &speeds, before, most);
            assert!(chunk_tokens(&in_f32, &products, before, most) >= n_in_f32, "faster products");
            let memory = Speeds { bytes_per_s: speeds.bytes_per_s * factor, ..speeds };
            let from_nothing = |speeds| chunk_tokens(&costs, speeds, 0, most);
            assert!(from_nothing(&memory) <= from_nothing(&speeds), "faster memory");
            let expanding = PassCosts { pair_operations: 0.0, ..costs };
            let after = |before| chunk_tokens(&expanding, &speeds, before, most);
            assert!(after(before + rng.below(100_000)) >= after(before), "more to expand");
        }
    }

    #[test]
    fn a_longer_chunk_never_costs_a_token_more() {
        let mut rng = Rng(3);
        for _ in 0..2_000 {
            let (costs, speeds) = rng.case();
            let (before, n) = (rng.below(200_000), 1 + rng.below(4_000));
            let seconds = |n| costs.seconds_per_token(&speeds, n, before);
            assert!(seconds(n + 1 + rng.below(1_000)) <= seconds(n));
        }
    }

    #[test]
    fn k2_wants_most_of_512_tokens_and_all_of_128_or_of_a_long_context() {
        let chunk = |before, most| chunk_tokens(&K2, &Speeds::ASSUMED, before, most);
        assert!((256..512).contains(&chunk(0, 512)), "{}", chunk(0, 512));
        assert_eq!(chunk(0, 128), 128);
        assert!(chunk(32_768, 512) > chunk(0, 512));
        assert!(chunk(0, 4_096) > 512);
    }

    #[test]
    fn without_experts_or_a_cache_that_is_expanded_nothing_but_the_dense_matrices_counts() {
        let costs = PassCosts { routed_bytes: 0.0, n_experts: 1, n_chosen: 0, expand_operations: 0.0, ..K2 };
        let seconds = costs.seconds_per_token(&Speeds::ASSUMED, 100, 0);
        assert!((seconds - (21.1e9 / 100.0 / 18e9 + 0.611)).abs() < 1e-12);
    }
}
