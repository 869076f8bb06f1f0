//! The values of a synthetic tensor, any piece of it at once: counter-based, so that no piece waits for another.

use crate::layout::{Kind, Role, TensorSpec};
use half::bf16;
use safetensors::Dtype;
use std::sync::LazyLock;

/// Bytes that one random number makes.
const STEP_BYTES: usize = 8;

/// Mean square of a code drawn by [`codes_of`]: -7..=7 evenly, 0 twice.
const CODE_MEAN_SQUARE: f32 = 17.5;

/// Input columns that share a scale.
const GROUP: usize = 32;

/// Deviation of norm weights around 1.
const NORM_SPREAD: f32 = 0.05;

/// Deviation of a scale around its tensor's mean, relative; small enough that no scale reaches zero.
const SCALE_SPREAD: f32 = 0.1;

/// Deviation of the selection bias around 0; a router's score has a deviation of about 0.2.
const BIAS_SPREAD: f32 = 0.01;

/// Fill `out` with the bytes of `spec` from byte `at` on, a multiple of eight.
pub(super) fn fill(spec: &TensorSpec, seed: u64, at: u64, out: &mut [u8]) {
    let stream = Stream::new(seed, &spec.name, at / STEP_BYTES as u64);
    match (spec.role, spec.dtypes[0]) {
        (Role::StoredShape(shape), _) => fill_shape(shape, at, out),
        (Role::Codes, _) => stream.fill(out, |random| codes_of(random).to_le_bytes()),
        (_, Dtype::F32) => fill_f32(stream, Distribution::of(spec), out),
        _ => fill_bf16(stream, Distribution::of(spec), out),
    }
}

/// Mean and deviation of a tensor's elements.
#[derive(Clone, Copy)]
struct Distribution {
    mean: f32,
    deviation: f32,
}

impl Distribution {
    fn of(spec: &TensorSpec) -> Distribution {
        let n_in = spec.shape.last().copied().unwrap_or(1);
        let centred = |deviation| Distribution { mean: 0.0, deviation };
        match (spec.role, spec.kind) {
            (Role::Scales, _) => {
                let mean = 1.0 / ((n_in * GROUP) as f32 * CODE_MEAN_SQUARE).sqrt();
                Distribution { mean, deviation: mean * SCALE_SPREAD }
            }
            (_, Kind::Norm) => Distribution { mean: 1.0, deviation: NORM_SPREAD },
            (_, Kind::Embedding) => centred(1.0),
            (_, Kind::Router) if spec.shape.len() == 1 => centred(BIAS_SPREAD),
            _ => centred(1.0 / (n_in as f32).sqrt()),
        }
    }

    /// The normal table stretched to this distribution.
    fn table<T: Copy>(self, of: impl Fn(f32) -> T) -> Vec<T> {
        NORMAL.iter().map(|x| of(self.mean + self.deviation * x)).collect()
    }
}

/// Bits of a random number that choose an element of [`NORMAL`].
const TABLE_BITS: u32 = 12;

/// Standard normal draws: symmetric, so that their mean is 0, and scaled to a mean square of 1.
static NORMAL: LazyLock<Vec<f32>> = LazyLock::new(|| {
    const HALF: u64 = 1 << (TABLE_BITS - 1);
    let uniform = |counter| (random(0, 1, counter) >> 11) as f64 / (1u64 << 53) as f64;
    let draw =
        |i| (-2.0 * (1.0 - uniform(2 * i)).ln()).sqrt() * (std::f64::consts::TAU * uniform(2 * i + 1)).cos();
    let draws: Vec<f64> = (0..HALF).map(draw).collect();
    let deviation = (draws.iter().map(|x| x * x).sum::<f64>() / HALF as f64).sqrt();
    draws.iter().flat_map(|x| [(x / deviation) as f32, (-x / deviation) as f32]).collect()
});

/// The element of a [`NORMAL`]-sized table that part `i` (16 bits each) of a random number chooses.
fn pick<T: Copy>(table: &[T], random: u64, i: u32) -> T {
    table[(random >> (16 * i)) as usize & ((1 << TABLE_BITS) - 1)]
}

fn fill_bf16(stream: Stream, distribution: Distribution, out: &mut [u8]) {
    let table = distribution.table(|x| bf16::from_f32(x).to_bits());
    stream.fill(out, |random| {
        let element = |i| u64::from(pick(&table, random, i)) << (16 * i);
        (element(0) | element(1) | element(2) | element(3)).to_le_bytes()
    });
}

fn fill_f32(stream: Stream, distribution: Distribution, out: &mut [u8]) {
    let table = distribution.table(f32::to_bits);
    stream.fill(out, |random| {
        let element = |i| u64::from(pick(&table, random, i)) << (32 * i);
        (element(0) | element(1)).to_le_bytes()
    });
}

/// `[out, in]` as two I32, the part from byte `at` on.
fn fill_shape([n_out, n_in]: [usize; 2], at: u64, out: &mut [u8]) {
    let bytes = [n_out, n_in].map(|size| (size as i32).to_le_bytes()).concat();
    let start = at as usize;
    out.copy_from_slice(&bytes[start..start + out.len()]);
}

/// Sixteen stored nibbles (code + 8) from sixteen random ones: -8 becomes 0, which makes the codes symmetric.
fn codes_of(random: u64) -> u64 {
    const LOWEST_BITS: u64 = 0x1111_1111_1111_1111;
    let zero_nibbles = !(random | random >> 1 | random >> 2 | random >> 3) & LOWEST_BITS;
    random | zero_nibbles << 3
}

/// The random numbers of one tensor, from a counter on.
#[derive(Clone, Copy)]
struct Stream {
    first_key: u64,
    second_key: u64,
    counter: u64,
}

impl Stream {
    fn new(seed: u64, name: &str, counter: u64) -> Stream {
        // FNV-1a over the name; the two rounds make keys that differ in every bit.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Stream { first_key: random(seed, hash, 1), second_key: random(seed, hash, 2), counter }
    }

    /// Fill `out` with eight bytes per counter; the last may be cut.
    fn fill(self, out: &mut [u8], bytes_of: impl Fn(u64) -> [u8; STEP_BYTES]) {
        let step = |i: usize| bytes_of(random(self.first_key, self.second_key, self.counter + i as u64));
        let (whole, rest) = out.as_chunks_mut::<STEP_BYTES>();
        for (i, chunk) in whole.iter_mut().enumerate() {
            *chunk = step(i);
        }
        let last = step(whole.len());
        let n_rest = rest.len();
        rest.copy_from_slice(&last[..n_rest]);
    }
}

/// The random number of a counter under two keys: SplitMix64 (Steele, Lea, Flood 2014), the second key mixed in
/// half-way so that streams of different tensors never share a stretch.
fn random(first_key: u64, second_key: u64, counter: u64) -> u64 {
    let x = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(first_key);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ second_key;
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::layout;

    fn spec(suffix: &str) -> TensorSpec {
        let config = Config::from_json(include_str!("../../tests/data/k2_thinking_config.json")).unwrap();
        layout::expected(&config).find(|spec| spec.name.ends_with(suffix)).unwrap()
    }

    fn bf16s(spec: &TensorSpec, seed: u64) -> Vec<f64> {
        let mut bytes = vec![0; 1 << 20];
        fill(spec, seed, 0, &mut bytes);
        bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f64()).collect()
    }

    #[test]
    fn a_piece_is_the_same_alone_and_within_the_whole() {
        for suffix in ["o_proj.weight", "weight_packed", "weight_scale", "score_correction_bias"] {
            let spec = spec(suffix);
            let (mut whole, mut piece) = (vec![0; 1200], vec![0; 403]);
            fill(&spec, 7, 0, &mut whole);
            fill(&spec, 7, 400, &mut piece);
            assert_eq!(whole[400..803], piece, "{suffix}");
            fill(&spec, 8, 400, &mut piece);
            assert_ne!(whole[400..803], piece, "{suffix}: another seed gives other bytes");
        }
    }

    #[test]
    fn plain_weights_keep_the_variance_of_their_input() {
        let spec = spec("q_a_proj.weight");
        let weights = bf16s(&spec, 1);
        let mean_square = weights.iter().map(|w| w * w).sum::<f64>() / weights.len() as f64;
        assert!((mean_square * 7168.0 - 1.0).abs() < 0.01, "{mean_square}");
        assert!((weights.iter().sum::<f64>() / weights.len() as f64).abs() * 7168f64.sqrt() < 0.01);
    }

    #[test]
    fn packed_weights_keep_the_variance_of_their_input() {
        let (codes_spec, scales_spec) = (spec("down_proj.weight_packed"), spec("down_proj.weight_scale"));
        let mut bytes = vec![0; 1 << 20];
        fill(&codes_spec, 1, 0, &mut bytes);
        let codes = || bytes.iter().flat_map(|b| [i32::from(b & 15) - 8, i32::from(b >> 4) - 8]);
        assert_eq!(codes().min(), Some(-7));
        let mean_square = codes().map(|q| f64::from(q * q)).sum::<f64>() / codes().count() as f64;
        assert!((codes().sum::<i32>() as f64 / codes().count() as f64).abs() < 0.02);
        let scales = bf16s(&scales_spec, 1);
        assert!(scales.iter().all(|s| *s > 0.0 && s.is_finite()));
        let scale_square = scales.iter().map(|s| s * s).sum::<f64>() / scales.len() as f64;
        // The spread of scales adds a hundredth.
        assert!((mean_square * scale_square * 2048.0 - 1.01).abs() < 0.02);
    }
}
