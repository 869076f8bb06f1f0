//! A mixture of experts over rows sorted by expert, the sequence-wise balance loss, and the derivatives.

use super::mlp::{SwiGluTape, back_input, back_weight, product};
use super::places::{MoePlaces, Place, SwiGluPlaces};
use perilune_kernels::cpu::Cpu;
use perilune_kernels::router::{Chosen, RouterRule, choose_by_scores, weigh, weigh_back};
use perilune_kernels::train::product::{self, GradGroup, Store};
use perilune_kernels::train::{Group, elementwise, for_chunk_pairs, for_chunks};
use std::ops::Range;

/// Rows that a task takes.
const ROWS_PER_TASK: usize = 64;

/// What every mixture of a pass shares.
pub(super) struct MoeFrame<'a> {
    pub(super) cpu: &'a Cpu,
    /// The weights as the pass sees them.
    pub(super) w: &'a [f32],
    /// C.
    pub(super) c: usize,
    pub(super) rule: &'a RouterRule,
    pub(super) sequences: &'a [Range<usize>],
    /// Sum of the token weights of each sequence.
    pub(super) sequence_weights: &'a [f64],
    /// Factor of the balance loss.
    pub(super) alpha: f32,
}

/// What the derivative needs of one mixture.
#[derive(Default)]
pub(super) struct MixtureTape {
    /// Sigmoids of the router products [T, E].
    scores: Vec<f32>,
    /// [T, K], ascending in each row.
    pub(super) chosen: Vec<Chosen>,
    /// Row of each assignment, experts ascending, then rows.
    tokens: Vec<u32>,
    /// Assignment of each choice [T, K].
    slots: Vec<u32>,
    /// Assignments of each expert.
    pub(super) groups: Vec<Range<usize>>,
    experts: SwiGluTape,
    shared: SwiGluTape,
}

/// Buffers of a mixture, shared by the layers.
#[derive(Default)]
pub(super) struct MixtureScratch {
    gathered: Vec<f32>,
    results: Vec<f32>,
    dhidden: Vec<f32>,
    dweights: Vec<f32>,
    drouter: Vec<f32>,
    shared: Vec<f32>,
}

impl MixtureTape {
    /// `out` [T, C] from `x` [T, C]; `replay` [T, K] fixes the choice.
    pub(super) fn forward(
        &mut self,
        f: &MoeFrame<'_>,
        p: &MoePlaces,
        x: &[f32],
        replay: Option<&[u32]>,
        s: &mut MixtureScratch,
        out: &mut Vec<f32>,
    ) {
        let (cpu, w, c) = (f.cpu, f.w, f.c);
        product(cpu, w, &p.router, x, c, &mut self.scores);
        elementwise::sigmoid(cpu, &mut self.scores);
        self.choose(f, &w[p.bias.clone()], replay);
        self.group(f.rule.n_chosen, p.experts.len());
        gather(cpu, x, c, &self.tokens, &mut s.gathered);
        let width = p.experts.first().map_or(0, |expert| expert.gate.len() / c);
        let n = self.tokens.len();
        let groups = |of: fn(&SwiGluPlaces) -> &Place| groups(w, &self.groups, &p.experts, of);
        for (buffer, of) in [
            (&mut self.experts.gate, (|e| &e.gate) as fn(&SwiGluPlaces) -> &Place),
            (&mut self.experts.up, |e| &e.up),
        ] {
            buffer.resize(n * width, 0.0);
            product::forward(cpu, &s.gathered, c, &groups(of), buffer);
        }
        self.experts.hidden.resize(n * width, 0.0);
        elementwise::silu_mul(cpu, &self.experts.gate, &self.experts.up, &mut self.experts.hidden);
        s.results.resize(n * c, 0.0);
        product::forward(cpu, &self.experts.hidden, width, &groups(|e| &e.down), &mut s.results);
        self.combine(f, &s.results, out);
        if let Some(shared) = &p.shared {
            self.shared.forward(cpu, w, shared, x, c, &mut s.shared);
            elementwise::add(cpu, out, &s.shared);
        }
    }

    fn choose(&mut self, f: &MoeFrame<'_>, bias: &[f32], replay: Option<&[u32]>) {
        let (n_experts, k) = (bias.len(), f.rule.n_chosen);
        let n_rows = self.scores.len() / n_experts;
        self.chosen.resize(n_rows * k, Chosen { expert_idx: 0, weight: 0.0 });
        let scores = &self.scores;
        for_chunks(f.cpu, &mut self.chosen, ROWS_PER_TASK * k, |i, rows| {
            for (t, row) in (i * ROWS_PER_TASK..).zip(rows.chunks_exact_mut(k)) {
                let scores = &scores[t * n_experts..(t + 1) * n_experts];
                let chosen = match replay {
                    Some(experts) => weigh(f.rule, scores, &experts[t * k..(t + 1) * k]),
                    None => choose_by_scores(f.rule, scores, bias),
                };
                row.copy_from_slice(&chosen);
            }
        });
    }

    /// Sort the choices by expert.
    fn group(&mut self, k: usize, n_experts: usize) {
        let mut counts = vec![0usize; n_experts];
        self.chosen.iter().for_each(|c| counts[c.expert_idx as usize] += 1);
        let mut end = 0;
        self.groups.clear();
        for count in counts {
            self.groups.push(end..end + count);
            end += count;
        }
        let mut next: Vec<usize> = self.groups.iter().map(|group| group.start).collect();
        self.tokens.resize(self.chosen.len(), 0);
        self.slots.resize(self.chosen.len(), 0);
        for (i, c) in self.chosen.iter().enumerate() {
            let slot = &mut next[c.expert_idx as usize];
            self.tokens[*slot] = (i / k) as u32;
            self.slots[i] = *slot as u32;
            *slot += 1;
        }
    }

    /// `out[t] = sum over its experts, ascending, of weight * result`.
    fn combine(&self, f: &MoeFrame<'_>, results: &[f32], out: &mut Vec<f32>) {
        let (c, k) = (f.c, f.rule.n_chosen);
        out.resize(self.chosen.len() / k * c, 0.0);
        for_chunks(f.cpu, out, ROWS_PER_TASK * c, |i, rows| {
            for (t, row) in (i * ROWS_PER_TASK..).zip(rows.chunks_exact_mut(c)) {
                row.fill(0.0);
                for (chosen, slot) in self.choices(t, k) {
                    elementwise::add_scaled(f.cpu, row, chosen.weight, &results[slot * c..(slot + 1) * c]);
                }
            }
        });
    }

    /// The choices of row `t` and their assignments.
    fn choices(&self, t: usize, k: usize) -> impl Iterator<Item = (&Chosen, usize)> {
        let span = t * k..(t + 1) * k;
        self.chosen[span.clone()].iter().zip(self.slots[span].iter().map(|&slot| slot as usize))
    }

    /// `dx` [T, C] becomes the gradient of the input from that of the output, `dout`; those of weights are added.
    pub(super) fn backward(
        &mut self,
        f: &MoeFrame<'_>,
        p: &MoePlaces,
        (x, dout): (&[f32], &[f32]),
        s: &mut MixtureScratch,
        dx: &mut Vec<f32>,
        dw: &mut [f32],
    ) {
        let (cpu, w, c) = (f.cpu, f.w, f.c);
        gather(cpu, dout, c, &self.tokens, &mut s.gathered);
        self.backward_down(f, p, s, dw);
        gather(cpu, x, c, &self.tokens, &mut s.gathered);
        s.results.resize(s.gathered.len(), 0.0);
        for (store, grad, of) in [
            (Store::Overwrite, &self.experts.gate, (|e| &e.gate) as fn(&SwiGluPlaces) -> &Place),
            (Store::Accumulate, &self.experts.up, |e| &e.up),
        ] {
            let places = grad_groups(&self.groups, &p.experts, of);
            product::backward_weight(cpu, grad, &s.gathered, c, &places, dw);
            let groups = groups(w, &self.groups, &p.experts, of);
            product::backward_input(cpu, grad, c, &groups, store, &mut s.results);
        }
        self.scatter(f, &s.results, dx);
        self.backward_router(f, p.experts.len(), s);
        back_weight(cpu, &p.router, &s.drouter, x, c, dw);
        back_input(cpu, w, &p.router, &s.drouter, c, Store::Accumulate, dx);
        if let Some(shared) = &p.shared {
            self.shared.backward(cpu, w, shared, (x, c), dout, &mut s.dhidden, (Store::Accumulate, dx), dw);
        }
    }

    /// From the rows' gradients in `s.gathered` through the down-projection and SwiGLU's product; leaves the
    /// gradients of gate and up in the tape and that of each choice's weight in `s.dweights`.
    fn backward_down(&mut self, f: &MoeFrame<'_>, p: &MoePlaces, s: &mut MixtureScratch, dw: &mut [f32]) {
        let (cpu, n) = (f.cpu, self.tokens.len());
        let width = self.experts.hidden.len() / n.max(1);
        s.dhidden.resize(n * width, 0.0);
        s.dweights.resize(n, 0.0);
        let down: fn(&SwiGluPlaces) -> &Place = |e| &e.down;
        let groups = groups(f.w, &self.groups, &p.experts, down);
        product::backward_input(cpu, &s.gathered, width, &groups, Store::Overwrite, &mut s.dhidden);
        let mut weights = vec![0.0f32; n];
        self.chosen.iter().zip(&self.slots).for_each(|(c, &slot)| weights[slot as usize] = c.weight);
        let hidden = &self.experts.hidden;
        let sizes = (ROWS_PER_TASK * width, ROWS_PER_TASK);
        for_chunk_pairs(cpu, (&mut s.dhidden, &mut s.dweights), sizes, |i, dhidden, dweights| {
            for ((a, dhidden), dweight) in
                (i * ROWS_PER_TASK..).zip(dhidden.chunks_exact_mut(width)).zip(dweights)
            {
                let hidden = &hidden[a * width..(a + 1) * width];
                *dweight = elementwise::dot(cpu, hidden, dhidden);
                dhidden.iter_mut().for_each(|d| *d *= weights[a]);
            }
        });
        for_chunks(cpu, &mut self.experts.hidden, ROWS_PER_TASK * width, |i, rows| {
            for (weight, hidden) in weights[i * ROWS_PER_TASK..].iter().zip(rows.chunks_exact_mut(width)) {
                hidden.iter_mut().for_each(|h| *h *= weight);
            }
        });
        let places = grad_groups(&self.groups, &p.experts, down);
        product::backward_weight(cpu, &s.gathered, &self.experts.hidden, width, &places, dw);
        elementwise::silu_mul_back(cpu, &mut self.experts.gate, &mut self.experts.up, &s.dhidden);
    }

    /// `dx[t] = sum over its assignments of their gradient`.
    fn scatter(&self, f: &MoeFrame<'_>, grads: &[f32], dx: &mut Vec<f32>) {
        let (c, k) = (f.c, f.rule.n_chosen);
        dx.resize(self.chosen.len() / k * c, 0.0);
        for_chunks(f.cpu, dx, ROWS_PER_TASK * c, |i, rows| {
            for (t, row) in (i * ROWS_PER_TASK..).zip(rows.chunks_exact_mut(c)) {
                row.fill(0.0);
                for (_, slot) in self.choices(t, k) {
                    row.iter_mut().zip(&grads[slot * c..(slot + 1) * c]).for_each(|(d, g)| *d += g);
                }
            }
        });
    }

    /// Gradient of the router's products in `s.drouter` [T, E], from that of the weights and the balance loss.
    fn backward_router(&self, f: &MoeFrame<'_>, n_experts: usize, s: &mut MixtureScratch) {
        let k = f.rule.n_chosen;
        s.drouter.resize(self.scores.len(), 0.0);
        let shares = self.shares(f, n_experts);
        let dweights = &s.dweights;
        let row_of = |t: usize, row: &mut [f32]| {
            let scores = &self.scores[t * n_experts..(t + 1) * n_experts];
            let of_row: Vec<f32> = self.choices(t, k).map(|(_, slot)| dweights[slot]).collect();
            row.fill(0.0);
            weigh_back(f.rule, scores, &self.chosen[t * k..(t + 1) * k], &of_row, row);
            if f.alpha != 0.0 {
                balance_back(f, &shares, t, scores, row);
            }
            row.iter_mut().zip(scores).for_each(|(d, s)| *d *= s * (1.0 - s));
        };
        for_chunks(f.cpu, &mut s.drouter, ROWS_PER_TASK * n_experts, |i, rows| {
            for (t, row) in (i * ROWS_PER_TASK..).zip(rows.chunks_exact_mut(n_experts)) {
                row_of(t, row);
            }
        });
    }

    /// Each expert's share of a sequence's choices, times E / K, [sequences, E].
    fn shares(&self, f: &MoeFrame<'_>, n_experts: usize) -> Vec<f32> {
        let k = f.rule.n_chosen;
        let mut shares = vec![0.0f32; f.sequences.len() * n_experts];
        for (rows, shares) in f.sequences.iter().zip(shares.chunks_exact_mut(n_experts)) {
            let chosen = &self.chosen[rows.start * k..rows.end * k];
            chosen.iter().for_each(|c| shares[c.expert_idx as usize] += 1.0);
            let factor = n_experts as f32 / (k * rows.len()) as f32;
            shares.iter_mut().for_each(|share| *share *= factor);
        }
        shares
    }

    /// Sum over sequences of their weight times their balance loss: `sum over e of share[e] * mean over t of
    /// score[t, e] / sum of score[t]` (DeepSeek-V3 report, equations 17 to 20).
    pub(super) fn balance(&self, f: &MoeFrame<'_>, n_experts: usize) -> f64 {
        let shares = self.shares(f, n_experts);
        let mut total = 0.0f64;
        for ((rows, shares), weight) in
            f.sequences.iter().zip(shares.chunks_exact(n_experts)).zip(f.sequence_weights)
        {
            let mut sum = 0.0f64;
            for scores in self.scores[rows.start * n_experts..rows.end * n_experts].chunks_exact(n_experts) {
                let (along, all) = scores
                    .iter()
                    .zip(shares)
                    .fold((0.0f32, 0.0f32), |(along, all), (s, share)| (along + s * share, all + s));
                sum += f64::from(along / all);
            }
            total += weight * sum / rows.len() as f64;
        }
        total
    }
}

/// Add the balance loss's gradient of row `t`'s scores.
fn balance_back(f: &MoeFrame<'_>, shares: &[f32], t: usize, scores: &[f32], dscores: &mut [f32]) {
    let sequence = f.sequences.partition_point(|rows| rows.end <= t);
    let shares = &shares[sequence * scores.len()..(sequence + 1) * scores.len()];
    let all: f32 = scores.iter().sum();
    let along: f32 = scores.iter().zip(shares).map(|(score, share)| score * share).sum::<f32>() / all;
    let weight = f.sequence_weights[sequence] / f.sequences[sequence].len() as f64;
    let factor = f.alpha * weight as f32 / all;
    dscores.iter_mut().zip(shares).for_each(|(d, share)| *d += factor * (share - along));
}

/// `out[a] = x[tokens[a]]`.
fn gather(cpu: &Cpu, x: &[f32], c: usize, tokens: &[u32], out: &mut Vec<f32>) {
    out.resize(tokens.len() * c, 0.0);
    for_chunks(cpu, out, ROWS_PER_TASK * c, |i, rows| {
        for (t, row) in tokens[i * ROWS_PER_TASK..].iter().zip(rows.chunks_exact_mut(c)) {
            row.copy_from_slice(&x[*t as usize * c..(*t as usize + 1) * c]);
        }
    });
}

/// One matrix of every expert, with its rows.
fn groups<'w>(
    w: &'w [f32],
    rows: &[Range<usize>],
    experts: &[SwiGluPlaces],
    of: impl Fn(&SwiGluPlaces) -> &Place,
) -> Vec<Group<'w>> {
    rows.iter()
        .zip(experts)
        .map(|(rows, expert)| Group { rows: rows.clone(), w: &w[of(expert).clone()] })
        .collect()
}

/// The place of one matrix's gradient of every expert, with its rows.
fn grad_groups(
    rows: &[Range<usize>],
    experts: &[SwiGluPlaces],
    of: impl Fn(&SwiGluPlaces) -> &Place,
) -> Vec<GradGroup> {
    rows.iter()
        .zip(experts)
        .map(|(rows, expert)| GradGroup { rows: rows.clone(), place: of(expert).clone() })
        .collect()
}
