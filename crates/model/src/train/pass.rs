//! The pass: forward through every block, the loss, and back.

use super::attend::{AttendScratch, AttendTape, Frame};
use super::batch::{Batch, Evaluation, Options, Quant, Routing, Stats, TrainError};
use super::mixture::{MixtureScratch, MixtureTape, MoeFrame};
use super::mlp::SwiGluTape;
use super::parameters::{Gradients, Parameters};
use super::places::{LayerPlaces, MlpPlaces, Places};
use super::round::{self, round_as_exported};
use crate::cache::mla_shape;
use crate::config::Config;
use perilune_kernels::cpu::Cpu;
use perilune_kernels::rope::RopeTable;
use perilune_kernels::router::{LogSoftmax, RouterRule, arg_max};
use perilune_kernels::train::elementwise::{
    NormInput, TokenLoss, add, cross_entropy, rms_norm, rms_norm_back,
};
use perilune_kernels::train::product::{self, GradGroup, Into};
use perilune_kernels::train::{Group, for_chunk_pairs};
use std::ops::Range;

/// Rows whose logits are held at a time.
const LOGIT_ROWS: usize = 512;

/// Buffers and tables of passes over one config's model; they grow to the largest batch seen.
pub struct Pass {
    config: Config,
    places: Places,
    rule: RouterRule,
    inv_freq: Vec<f32>,
    replay: Option<Routing>,
    /// The rows of the batch that passed last.
    layout: Layout,
    /// The weights as the exported file will hold them, where the pass sees them so.
    rounded: Vec<f32>,
    rope: RopeTable,
    layers: Vec<LayerTape>,
    /// Output of the last block, and of the final norm.
    last: Vec<f32>,
    normed: Vec<f32>,
    scratch: Scratch,
}

/// What the derivative needs of one block.
#[derive(Default)]
struct LayerTape {
    attend: AttendTape,
    /// Input of the feed-forward part [T, C], before and after its norm.
    x: Vec<f32>,
    normed: Vec<f32>,
    mixture: MixtureTape,
    dense: SwiGluTape,
}

#[derive(Default)]
struct Scratch {
    attend: AttendScratch,
    mixture: MixtureScratch,
    dhidden: Vec<f32>,
    dnormed: Vec<f32>,
    dx: Vec<f32>,
    rows: Vec<f32>,
    drows: Vec<f32>,
    logits: Vec<f32>,
}

/// A batch's rows, once checked.
#[derive(Default)]
struct Layout {
    sequences: Vec<Range<usize>>,
    sequence_weights: Vec<f64>,
}

impl Pass {
    /// Tables for `config`; buffers come with the first pass.
    ///
    /// # Errors
    /// [`TrainError::Grouped`]: training serves no groups of experts.
    pub fn new(config: &Config) -> Result<Pass, TrainError> {
        if config.n_group > 1 {
            return Err(TrainError::Grouped { n_group: config.n_group });
        }
        let rule = RouterRule {
            n_chosen: config.num_experts_per_tok,
            n_group: config.n_group,
            topk_group: config.topk_group,
            normalize: config.norm_topk_prob,
            scale: config.routed_scaling_factor,
        };
        Ok(Pass {
            places: Places::new(config),
            rule,
            inv_freq: config.rope.inv_freq(config.qk_rope_head_dim),
            replay: None,
            layout: Layout::default(),
            rounded: Vec::new(),
            rope: RopeTable::default(),
            layers: (0..config.num_hidden_layers).map(|_| LayerTape::default()).collect(),
            last: Vec::new(),
            normed: Vec::new(),
            scratch: Scratch::default(),
            config: config.clone(),
        })
    }

    /// Fix the choice of experts of the passes that follow (the weights of the chosen are computed as ever), or free
    /// it again.
    ///
    /// The passes panic where the routing is not that of a batch of as many tokens, with a list for every layer.
    pub fn replay(&mut self, routing: Option<Routing>) {
        self.replay = routing;
    }

    /// Loss of a batch and its gradient: adds to `gradients` that of
    /// `sum of weight * -ln p(target) + seq_aux_alpha * seq_aux` ([`Stats`]).
    ///
    /// # Errors
    /// [`TrainError`], before anything is written: a batch or weights that cannot be run.
    pub fn forward_backward(
        &mut self,
        cpu: &Cpu,
        parameters: &Parameters,
        batch: &Batch,
        options: &Options,
        gradients: &mut Gradients,
    ) -> Result<Stats, TrainError> {
        let layout = self.check(parameters, batch, options)?;
        let rounded = self.round(cpu, parameters, options);
        let w = rounded.as_deref().unwrap_or(parameters.flat());
        let dw = gradients.flat_mut();
        self.forward(cpu, w, batch, &layout, options);
        let mut stats = self.stats(cpu, w, batch, &layout, options);
        self.loss(cpu, w, batch, dw, &mut stats);
        self.backward(cpu, w, &layout, options, dw);
        self.embed_back(batch, dw);
        self.rounded = rounded.unwrap_or_default();
        self.layout = layout;
        Ok(stats)
    }

    /// The forward pass alone, and the log-probability of every target.
    ///
    /// # Errors
    /// [`TrainError`] for a batch or weights that cannot be run.
    pub fn evaluate(
        &mut self,
        cpu: &Cpu,
        parameters: &Parameters,
        batch: &Batch,
        options: &Options,
    ) -> Result<Evaluation, TrainError> {
        let layout = self.check(parameters, batch, options)?;
        let rounded = self.round(cpu, parameters, options);
        let w = rounded.as_deref().unwrap_or(parameters.flat());
        self.forward(cpu, w, batch, &layout, options);
        let mut stats = self.stats(cpu, w, batch, &layout, options);
        let n = batch.ids.len();
        let mut found = vec![(0.0f32, 0u32); n];
        for first in (0..n).step_by(LOGIT_ROWS) {
            let end = n.min(first + LOGIT_ROWS);
            self.logits_of(cpu, w, first..end);
            let (v, logits) = (self.config.vocab_size, &self.scratch.logits);
            let task = |i: usize, found: &mut [(f32, u32)], _: &mut [()]| {
                let row = &logits[i * v..(i + 1) * v];
                let log_prob = LogSoftmax::new(row).of(row[batch.targets[first + i] as usize]);
                found[0] = (log_prob, arg_max(row).unwrap_or(0) as u32);
            };
            for_chunk_pairs(cpu, (&mut found[first..end], &mut vec![(); end - first]), (1, 1), task);
        }
        let log_probs: Vec<f32> = found.iter().map(|(log_prob, _)| *log_prob).collect();
        let argmax: Vec<u32> = found.iter().map(|(_, id)| *id).collect();
        for (t, &weight) in batch.weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
            stats.loss_sum -= f64::from(weight) * f64::from(log_probs[t]);
            stats.n_correct += u64::from(argmax[t] == batch.targets[t]);
        }
        self.rounded = rounded.unwrap_or_default();
        self.layout = layout;
        Ok(Evaluation { log_probs, argmax, routing: self.routing(), stats })
    }

    /// Logits [T, V] of every row of a batch.
    ///
    /// # Errors
    /// [`TrainError`] for a batch or weights that cannot be run.
    pub fn logits(
        &mut self,
        cpu: &Cpu,
        parameters: &Parameters,
        batch: &Batch,
        options: &Options,
    ) -> Result<Vec<f32>, TrainError> {
        let layout = self.check(parameters, batch, options)?;
        let rounded = self.round(cpu, parameters, options);
        let w = rounded.as_deref().unwrap_or(parameters.flat());
        self.forward(cpu, w, batch, &layout, options);
        self.logits_of(cpu, w, 0..batch.ids.len());
        self.rounded = rounded.unwrap_or_default();
        self.layout = layout;
        Ok(self.scratch.logits.clone())
    }

    /// The largest attention logit of each head of one layer `[H]` with these weights, its input what it was in the
    /// batch that passed last: what QK-Clip (Kimi K2 report, section 2.1) promises is about these. Empty before the
    /// first batch.
    ///
    /// # Errors
    /// [`TrainError`] for weights that cannot be run.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn max_logits_again(
        &mut self,
        cpu: &Cpu,
        parameters: &Parameters,
        options: &Options,
        layer_idx: usize,
    ) -> Result<Vec<f32>, TrainError> {
        round::check(&self.config, parameters, options.quant == Quant::Int4Experts)?;
        let rounded = self.round(cpu, parameters, options);
        let w = rounded.as_deref().unwrap_or(parameters.flat());
        let frame = frame(&self.config, cpu, w, &self.rope, &self.layout.sequences);
        let tape = &mut self.layers[layer_idx].attend;
        tape.forward(&frame, &self.places.layers[layer_idx], &mut Vec::new());
        let found = tape.max_logit.clone();
        self.rounded = rounded.unwrap_or_default();
        Ok(found)
    }

    fn check(&self, parameters: &Parameters, batch: &Batch, options: &Options) -> Result<Layout, TrainError> {
        round::check(&self.config, parameters, options.quant == Quant::Int4Experts)?;
        let (vocab_size, limit) = (self.config.vocab_size, self.config.max_position_embeddings);
        let n_ids = batch.ids.len();
        let (n_targets, n_weights) = (batch.targets.len(), batch.weights.len());
        let n_in_sequences = batch.lengths.iter().sum();
        if [n_targets, n_weights, n_in_sequences] != [n_ids; 3] || n_ids == 0 || batch.lengths.contains(&0) {
            return Err(TrainError::Lengths { n_ids, n_targets, n_weights, n_in_sequences });
        }
        if let Some(&length) = batch.lengths.iter().find(|length| **length > limit) {
            return Err(TrainError::BeyondModel { length, limit });
        }
        for ids in [&batch.ids, &batch.targets] {
            if let Some(place) = ids.iter().position(|&id| id as usize >= vocab_size) {
                return Err(TrainError::OutsideVocabulary { id: ids[place], place, vocab_size });
            }
        }
        Ok(Layout::new(batch))
    }

    /// The rounded weights, where the options ask for them; the buffer is given back at the end of a pass.
    fn round(&mut self, cpu: &Cpu, parameters: &Parameters, options: &Options) -> Option<Vec<f32>> {
        (options.quant == Quant::Int4Experts).then(|| {
            let mut rounded = std::mem::take(&mut self.rounded);
            round_as_exported(cpu, parameters, &mut rounded);
            rounded
        })
    }

    fn forward(&mut self, cpu: &Cpu, w: &[f32], batch: &Batch, layout: &Layout, options: &Options) {
        let c = self.config.hidden_size;
        let positions: Vec<usize> = batch.lengths.iter().flat_map(|&length| 0..length).collect();
        self.rope.fill(&positions, &self.inv_freq, self.config.rope.attention_factor());
        let frame = frame(&self.config, cpu, w, &self.rope, &layout.sequences);
        let moe = moe_frame(&self.config, &self.rule, cpu, w, layout, options);
        let mut x = std::mem::take(&mut self.last);
        x.clear();
        let embedding = &w[self.places.embedding.clone()];
        batch
            .ids
            .iter()
            .for_each(|&id| x.extend_from_slice(&embedding[id as usize * c..(id as usize + 1) * c]));
        for (layer_idx, (tape, p)) in self.layers.iter_mut().zip(&self.places.layers).enumerate() {
            let replay = self.replay.as_ref().map(|routing| &routing.layers[layer_idx][..]);
            std::mem::swap(&mut tape.attend.x, &mut x);
            tape.forward(&frame, &moe, p, replay, &mut self.scratch, &mut x);
        }
        self.normed.resize(x.len(), 0.0);
        rms_norm(cpu, &x, c, &w[self.places.norm.clone()], self.config.rms_norm_eps, &mut self.normed);
        self.last = x;
    }

    /// The measures that the forward pass alone gives, and the batch's weight.
    fn stats(&self, cpu: &Cpu, w: &[f32], batch: &Batch, layout: &Layout, options: &Options) -> Stats {
        let moe = moe_frame(&self.config, &self.rule, cpu, w, layout, options);
        let is_moe = |layer_idx: usize| self.config.is_moe_layer(layer_idx);
        let load = |(layer_idx, tape): (usize, &LayerTape)| {
            let groups = if is_moe(layer_idx) { &tape.mixture.groups[..] } else { &[] };
            groups.iter().map(|group| group.len() as u64).collect()
        };
        let mixtures = self.layers.iter().enumerate().filter(|(layer_idx, _)| is_moe(*layer_idx));
        Stats {
            weight_sum: batch.weights.iter().map(|w| f64::from(*w)).sum(),
            n_weighted: batch.weights.iter().filter(|w| **w != 0.0).count() as u64,
            expert_load: self.layers.iter().enumerate().map(load).collect(),
            max_logit: self.layers.iter().map(|tape| tape.attend.max_logit.clone()).collect(),
            seq_aux: mixtures.map(|(_, tape)| tape.mixture.balance(&moe, self.config.n_routed_experts)).sum(),
            ..Stats::default()
        }
    }

    fn routing(&self) -> Routing {
        let layer = |(layer_idx, tape): (usize, &LayerTape)| {
            let chosen = if self.config.is_moe_layer(layer_idx) { &tape.mixture.chosen[..] } else { &[] };
            chosen.iter().map(|c| c.expert_idx).collect()
        };
        Routing { layers: self.layers.iter().enumerate().map(layer).collect() }
    }

    /// Logits of some rows into the scratch.
    fn logits_of(&mut self, cpu: &Cpu, w: &[f32], rows: Range<usize>) {
        let c = self.config.hidden_size;
        self.scratch.logits.resize(rows.len() * self.config.vocab_size, 0.0);
        let group = Group { rows: 0..rows.len(), w: &w[self.places.head.clone()] };
        let x = &self.normed[rows.start * c..rows.end * c];
        product::forward(cpu, x, c, &[group], &mut self.scratch.logits);
    }

    /// The loss of the weighted rows; leaves the gradient of the last block's output in the scratch.
    fn loss(&mut self, cpu: &Cpu, w: &[f32], batch: &Batch, dw: &mut [f32], stats: &mut Stats) {
        let (c, v, s) = (self.config.hidden_size, self.config.vocab_size, &mut self.scratch);
        let wanted: Vec<usize> = (0..batch.ids.len()).filter(|&t| batch.weights[t] != 0.0).collect();
        s.dnormed.clear();
        s.dnormed.resize(self.normed.len(), 0.0);
        let head = &self.places.head;
        for rows in wanted.chunks(LOGIT_ROWS) {
            s.rows.clear();
            rows.iter().for_each(|t| s.rows.extend_from_slice(&self.normed[t * c..(t + 1) * c]));
            s.logits.resize(rows.len() * v, 0.0);
            let group = [Group { rows: 0..rows.len(), w: &w[head.clone()] }];
            product::forward(cpu, &s.rows, c, &group, &mut s.logits);
            let targets: Vec<u32> = rows.iter().map(|&t| batch.targets[t]).collect();
            let weights: Vec<f32> = rows.iter().map(|&t| batch.weights[t]).collect();
            let mut losses = vec![TokenLoss::default(); rows.len()];
            cross_entropy(cpu, &mut s.logits, &targets, &weights, &mut losses);
            for (loss, weight) in losses.iter().zip(&weights) {
                stats.loss_sum += f64::from(loss.loss) * f64::from(*weight);
                stats.n_correct += u64::from(loss.is_correct);
            }
            let place = GradGroup { rows: 0..rows.len(), place: head.clone() };
            product::backward_weight(cpu, &s.logits, &s.rows, c, &[place], dw);
            s.drows.resize(rows.len() * c, 0.0);
            product::backward_input(cpu, &s.logits, c, &group, Into::Set, &mut s.drows);
            for (t, drow) in rows.iter().zip(s.drows.chunks_exact(c)) {
                s.dnormed[t * c..(t + 1) * c].copy_from_slice(drow);
            }
        }
        s.dx.clear();
        s.dx.resize(self.last.len(), 0.0);
        let place = self.places.norm.clone();
        let input =
            NormInput { x: &self.last, stride: c, weight: &w[place.clone()], eps: self.config.rms_norm_eps };
        rms_norm_back(cpu, &input, &s.dnormed, &mut s.dx, &mut dw[place]);
    }

    /// Back through the blocks.
    fn backward(&mut self, cpu: &Cpu, w: &[f32], layout: &Layout, options: &Options, dw: &mut [f32]) {
        let frame = frame(&self.config, cpu, w, &self.rope, &layout.sequences);
        let moe = moe_frame(&self.config, &self.rule, cpu, w, layout, options);
        for (tape, p) in self.layers.iter_mut().zip(&self.places.layers).rev() {
            tape.backward(&frame, &moe, p, &mut self.scratch, dw);
        }
    }

    fn embed_back(&self, batch: &Batch, dw: &mut [f32]) {
        let c = self.config.hidden_size;
        let dembedding = &mut dw[self.places.embedding.clone()];
        for (&id, dx) in batch.ids.iter().zip(self.scratch.dx.chunks_exact(c)) {
            let row = &mut dembedding[id as usize * c..(id as usize + 1) * c];
            row.iter_mut().zip(dx).for_each(|(sum, d)| *sum += d);
        }
    }
}

impl Layout {
    fn new(batch: &Batch) -> Layout {
        let mut sequences = Vec::with_capacity(batch.lengths.len());
        let mut first = 0;
        for length in &batch.lengths {
            sequences.push(first..first + length);
            first += length;
        }
        let weight = |rows: &Range<usize>| batch.weights[rows.clone()].iter().map(|w| f64::from(*w)).sum();
        let sequence_weights = sequences.iter().map(weight).collect();
        Layout { sequences, sequence_weights }
    }
}

impl LayerTape {
    /// From the block's input, in its tape, to its output `out`.
    fn forward(
        &mut self,
        f: &Frame<'_>,
        moe: &MoeFrame<'_>,
        p: &LayerPlaces,
        replay: Option<&[u32]>,
        s: &mut Scratch,
        out: &mut Vec<f32>,
    ) {
        self.attend.forward(f, p, &mut self.x);
        self.normed.resize(self.x.len(), 0.0);
        rms_norm(f.cpu, &self.x, f.c, &f.w[p.post_norm.clone()], f.eps.0, &mut self.normed);
        match &p.mlp {
            MlpPlaces::Dense(mlp) => self.dense.forward(f.cpu, f.w, mlp, &self.normed, f.c, out),
            MlpPlaces::Moe(mlp) => self.mixture.forward(moe, mlp, &self.normed, replay, &mut s.mixture, out),
        }
        add(f.cpu, out, &self.x);
    }

    /// The gradient in the scratch goes from the block's output to its input.
    fn backward(
        &mut self,
        f: &Frame<'_>,
        moe: &MoeFrame<'_>,
        p: &LayerPlaces,
        s: &mut Scratch,
        dw: &mut [f32],
    ) {
        let (c, cpu) = (f.c, f.cpu);
        match &p.mlp {
            MlpPlaces::Dense(mlp) => {
                let input = (&self.normed[..], c);
                let into = (Into::Set, &mut s.dnormed);
                self.dense.backward(cpu, f.w, mlp, input, &s.dx, &mut s.dhidden, into, dw);
            }
            MlpPlaces::Moe(mlp) => {
                let rows = (&self.normed[..], &s.dx[..]);
                self.mixture.backward(moe, mlp, rows, &mut s.mixture, &mut s.dnormed, dw);
            }
        }
        let place = p.post_norm.clone();
        let input = NormInput { x: &self.x, stride: c, weight: &f.w[place.clone()], eps: f.eps.0 };
        rms_norm_back(cpu, &input, &s.dnormed, &mut s.dx, &mut dw[place]);
        self.attend.backward(f, p, &mut s.attend, &mut s.dx, dw);
    }
}

fn frame<'a>(
    config: &Config,
    cpu: &'a Cpu,
    w: &'a [f32],
    rope: &'a RopeTable,
    sequences: &'a [Range<usize>],
) -> Frame<'a> {
    Frame {
        cpu,
        w,
        c: config.hidden_size,
        shape: mla_shape(config),
        q_rank: config.q_lora_rank,
        eps: (config.rms_norm_eps, config.latent_norm_eps),
        scale: config.softmax_scale(),
        rope,
        sequences,
    }
}

fn moe_frame<'a>(
    config: &Config,
    rule: &'a RouterRule,
    cpu: &'a Cpu,
    w: &'a [f32],
    layout: &'a Layout,
    options: &Options,
) -> MoeFrame<'a> {
    MoeFrame {
        cpu,
        w,
        c: config.hidden_size,
        rule,
        sequences: &layout.sequences,
        sequence_weights: &layout.sequence_weights,
        alpha: options.seq_aux_alpha,
    }
}
