//! Every weight in one flat `f32` buffer, under the published names.

use crate::checkpoint::{Checkpoint, CheckpointError, Dtype};
use crate::config::Config;
use crate::layout::{self, Kind, TensorSpec};
use perilune_kernels::matrix::{Buffer, Matrix, MatrixData};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// What an optimizer must know a tensor by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamClass {
    /// Token embedding.
    Embedding,
    /// Output matrix.
    Head,
    /// Any norm.
    Norm,
    /// `q_a_proj`.
    QA,
    /// `q_b_proj`.
    QB,
    /// `kv_a_proj_with_mqa`.
    KvA,
    /// `kv_b_proj`.
    KvB,
    /// `o_proj`.
    O,
    /// MLP of a dense layer.
    Dense,
    /// Shared experts.
    Shared,
    /// Router matrix.
    Router,
    /// Selection bias: no gradient reaches it.
    Bias,
    /// A routed expert.
    Expert,
}

impl ParamClass {
    /// Every class.
    pub const ALL: [ParamClass; 13] = [
        ParamClass::Embedding,
        ParamClass::Head,
        ParamClass::Norm,
        ParamClass::QA,
        ParamClass::QB,
        ParamClass::KvA,
        ParamClass::KvB,
        ParamClass::O,
        ParamClass::Dense,
        ParamClass::Shared,
        ParamClass::Router,
        ParamClass::Bias,
        ParamClass::Expert,
    ];

    fn of(spec: &TensorSpec) -> ParamClass {
        let projections = [
            ("q_a_proj", ParamClass::QA),
            ("q_b_proj", ParamClass::QB),
            ("kv_a_proj_with_mqa", ParamClass::KvA),
            ("kv_b_proj", ParamClass::KvB),
        ];
        match spec.kind {
            Kind::Embedding => ParamClass::Embedding,
            Kind::Head => ParamClass::Head,
            Kind::Norm => ParamClass::Norm,
            Kind::DenseMlp => ParamClass::Dense,
            Kind::SharedExpert => ParamClass::Shared,
            Kind::RoutedExpert => ParamClass::Expert,
            Kind::Router if spec.shape.len() == 1 => ParamClass::Bias,
            Kind::Router => ParamClass::Router,
            Kind::Attention => {
                let known = projections.into_iter().find(|(name, _)| spec.name.contains(name));
                known.map_or(ParamClass::O, |(_, class)| class)
            }
        }
    }
}

/// One tensor of the flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamSpec {
    /// Published name, `.weight` at the end also where the file packs it.
    pub name: String,
    /// N of a matrix [N, K]; 1 for a vector.
    pub rows: usize,
    /// K of a matrix; the length of a vector.
    pub cols: usize,
    /// What it is.
    pub class: ParamClass,
    /// Its layer; `None` outside the layers.
    pub layer_idx: Option<usize>,
    /// Its routed expert; `None` for every other tensor.
    pub expert_idx: Option<usize>,
    /// Its place in the flat buffer, in elements: `rows * cols` of them, row by row.
    pub range: Range<usize>,
}

/// The list of tensors of a config, in the order of the flat buffer.
#[derive(Debug)]
struct Table {
    specs: Vec<ParamSpec>,
    by_name: HashMap<String, usize>,
    n_values: usize,
}

impl Table {
    fn new(config: &Config) -> Table {
        let plain = Config { quantization: None, ..config.clone() };
        let (mut specs, mut by_name, mut end) = (Vec::new(), HashMap::new(), 0);
        for spec in layout::expected(&plain) {
            let cols = spec.shape.last().copied().unwrap_or(1);
            let rows = if spec.shape.len() == 2 { spec.shape[0] } else { 1 };
            let range = end..end + rows * cols;
            end = range.end;
            by_name.insert(spec.name.clone(), specs.len());
            specs.push(ParamSpec {
                rows,
                cols,
                class: ParamClass::of(&spec),
                layer_idx: number_after(&spec.name, "layers."),
                expert_idx: number_after(&spec.name, ".experts."),
                range,
                name: spec.name,
            });
        }
        Table { specs, by_name, n_values: end }
    }
}

/// The number that follows `mark` in `name`.
fn number_after(name: &str, mark: &str) -> Option<usize> {
    let (_, rest) = name.split_once(mark)?;
    rest.split('.').next()?.parse().ok()
}

/// Every weight of a model, `f32`.
#[derive(Clone, Debug)]
pub struct Parameters {
    table: Arc<Table>,
    values: Vec<f32>,
}

/// A gradient of every weight, laid out as [`Parameters`].
#[derive(Clone, Debug)]
pub struct Gradients {
    table: Arc<Table>,
    values: Vec<f32>,
}

/// Deviation of random embeddings.
const EMBEDDING_DEVIATION: f32 = 0.1;
/// Deviation of a random matrix, times the root of its fan-in.
const MATRIX_GAIN: f32 = 0.5;
/// The same of a router: small, so that experts start alike.
const ROUTER_GAIN: f32 = 0.1;

impl Parameters {
    /// All zero, for `config`.
    pub fn zeros(config: &Config) -> Parameters {
        let table = Arc::new(Table::new(config));
        Parameters { values: vec![0.0; table.n_values], table }
    }

    /// Random weights to start training from: matrices centred on 0 with deviation about `1/sqrt(fan-in)`, those that
    /// write to the residual stream smaller with depth, norms 1, the selection bias 0.
    ///
    /// A tensor's values depend on the seed, its name and its size alone, and use sums and products only, so they are
    /// the same everywhere.
    pub fn random(config: &Config, seed: u64) -> Parameters {
        let mut parameters = Parameters::zeros(config);
        let depth = 1.0 / ((2 * config.num_hidden_layers) as f32).sqrt();
        for spec in &parameters.table.specs {
            let values = &mut parameters.values[spec.range.clone()];
            let fan = 1.0 / (spec.cols as f32).sqrt();
            let deviation = match spec.class {
                ParamClass::Norm => {
                    values.fill(1.0);
                    continue;
                }
                ParamClass::Bias => continue,
                ParamClass::Embedding => EMBEDDING_DEVIATION,
                ParamClass::Router => ROUTER_GAIN * fan,
                ParamClass::O => MATRIX_GAIN * fan * depth,
                _ if spec.name.ends_with("down_proj.weight") => MATRIX_GAIN * fan * depth,
                _ => MATRIX_GAIN * fan,
            };
            let mut stream = Normal::new(seed, &spec.name);
            values.iter_mut().for_each(|value| *value = stream.next() * deviation);
        }
        parameters
    }

    /// The weights of an opened checkpoint, packed experts as codes times scales.
    ///
    /// # Errors
    /// [`CheckpointError`] for a tensor that is absent, not finite, or packed with a false shape.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Parameters, CheckpointError> {
        let mut parameters = Parameters::zeros(&checkpoint.config);
        let table = Arc::clone(&parameters.table);
        for spec in &table.specs {
            let out = &mut parameters.values[spec.range.clone()];
            if spec.class == ParamClass::Expert && checkpoint.config.quantization.is_some() {
                unpack(checkpoint, spec, out)?;
            } else {
                checkpoint.check_finite(&spec.name)?;
                let tensor = checkpoint.require(&spec.name)?;
                copy_floats(tensor.dtype, tensor.bytes(), out);
            }
        }
        Ok(parameters)
    }

    /// The tensors, in the order of the flat buffer.
    pub fn specs(&self) -> &[ParamSpec] {
        &self.table.specs
    }

    /// Index of the tensor called `name` in [`Parameters::specs`].
    pub fn find(&self, name: &str) -> Option<usize> {
        self.table.by_name.get(name).copied()
    }

    /// Values of tensor `i`, row by row.
    ///
    /// # Panics
    /// If there is no tensor `i`.
    pub fn tensor(&self, i: usize) -> &[f32] {
        &self.values[self.table.specs[i].range.clone()]
    }

    /// The same, to be changed.
    ///
    /// # Panics
    /// If there is no tensor `i`.
    pub fn tensor_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.values[self.table.specs[i].range.clone()]
    }

    /// All values, in the order of [`ParamSpec::range`].
    pub fn flat(&self) -> &[f32] {
        &self.values
    }

    /// The same, to be changed.
    pub fn flat_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// A gradient of zeros for these weights.
    pub fn gradients(&self) -> Gradients {
        Gradients { table: Arc::clone(&self.table), values: vec![0.0; self.values.len()] }
    }
}

impl Gradients {
    /// The tensors, in the order of the flat buffer.
    pub fn specs(&self) -> &[ParamSpec] {
        &self.table.specs
    }

    /// Values of tensor `i`, row by row.
    ///
    /// # Panics
    /// If there is no tensor `i`.
    pub fn tensor(&self, i: usize) -> &[f32] {
        &self.values[self.table.specs[i].range.clone()]
    }

    /// The same, to be changed.
    ///
    /// # Panics
    /// If there is no tensor `i`.
    pub fn tensor_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.values[self.table.specs[i].range.clone()]
    }

    /// All values, in the order of [`ParamSpec::range`].
    pub fn flat(&self) -> &[f32] {
        &self.values
    }

    /// The same, to be changed.
    pub fn flat_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Set every value to 0.
    pub fn zero(&mut self) {
        self.values.fill(0.0);
    }

    /// Add another gradient of the same model.
    ///
    /// # Panics
    /// If it is of another size.
    pub fn add(&mut self, other: &Gradients) {
        assert_eq!(self.values.len(), other.values.len(), "gradients of one model");
        self.values.iter_mut().zip(&other.values).for_each(|(mine, other)| *mine += other);
    }

    /// Multiply every value by `factor`.
    pub fn scale(&mut self, factor: f32) {
        self.values.iter_mut().for_each(|value| *value *= factor);
    }
}

fn copy_floats(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        Dtype::F32 => {
            let floats = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
            out.iter_mut().zip(floats).for_each(|(out, value)| *out = value);
        }
        _ => {
            let floats = bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32());
            out.iter_mut().zip(floats).for_each(|(out, value)| *out = value);
        }
    }
}

fn unpack(checkpoint: &Checkpoint, spec: &ParamSpec, out: &mut [f32]) -> Result<(), CheckpointError> {
    let stem = spec.name.strip_suffix(".weight").unwrap_or(&spec.name);
    checkpoint.check_matrix(stem)?;
    let packed = checkpoint.require(&format!("{stem}.weight_packed"))?;
    let scales = checkpoint.require(&format!("{stem}.weight_scale"))?;
    let data = MatrixData::Int4 {
        packed: Buffer::mapped(packed.file, packed.range),
        scales: Buffer::mapped(scales.file, scales.range),
    };
    let matrix = Matrix::new(spec.rows, spec.cols, data);
    out.chunks_exact_mut(spec.cols).enumerate().for_each(|(row_idx, out)| matrix.row(row_idx, out));
    Ok(())
}

/// Nearly normal random numbers: the sum of twelve uniform ones less 6 (Irwin-Hall), from SplitMix64 (Steele, Lea,
/// Flood 2014).
struct Normal {
    state: u64,
}

impl Normal {
    fn new(seed: u64, name: &str) -> Normal {
        // FNV-1a over the name, so that tensors draw from streams of their own.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let mut mixed = Normal { state: seed ^ hash.rotate_left(17) };
        mixed.state = mixed.bits() ^ hash;
        mixed
    }

    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn next(&mut self) -> f32 {
        const PARTS: u64 = 4;
        let part = |bits: u64, i: u64| bits >> (16 * i) & 0xffff;
        let sum: u64 = (0..3).map(|_| self.bits()).flat_map(|b| (0..PARTS).map(move |i| part(b, i))).sum();
        // Twelve parts of 0..=65535 have the mean 6 * 65535.
        (sum as f32 - 6.0 * 65_535.0) / 65_536.0
    }
}
