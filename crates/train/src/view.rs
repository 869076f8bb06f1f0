//! A run as a terminal shows it: a block of lines that is drawn anew after each step.

use crate::log::Record;
use std::collections::VecDeque;

/// Steps that the loss curve shows.
const CURVE_STEPS: usize = 40;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What the view remembers: the losses of the last 40 steps and the newest held-out measures.
#[derive(Default)]
pub struct View {
    losses: VecDeque<f64>,
    held_out: Option<String>,
}

impl View {
    /// Take in a step, and give the block of lines to show, each ended by a line break.
    pub fn block(&mut self, record: &Record) -> String {
        self.losses.push_back(record.loss);
        if self.losses.len() > CURVE_STEPS {
            self.losses.pop_front();
        }
        if let (Some(loss), Some(accuracy)) = (record.held_out_loss, record.held_out_accuracy) {
            let turns = record.held_out_turns.map(|share| format!(", {:.1} % of turns whole", 100.0 * share));
            let turns = turns.unwrap_or_default();
            self.held_out = Some(format!("{loss:.4}, {:.1} % right{turns}", 100.0 * accuracy));
        }
        let held_out = self.held_out.as_deref().unwrap_or("not measured yet");
        let quantised = if record.is_quantised { ", weights seen as INT4" } else { "" };
        [
            format!(
                "{} step {} of {}, {} tokens in all{quantised}",
                record.stage, record.step, record.n_steps, record.tokens
            ),
            format!(
                "loss        {:.4}, {:.1} % right  {}",
                record.loss,
                100.0 * record.accuracy,
                self.curve()
            ),
            format!("held out    {held_out}"),
            format!(
                "speed       {:.0} tokens/s, {} left; learning rate {:.2e}",
                record.tokens_per_s,
                duration(record.left_s),
                record.lr
            ),
            format!(
                "max logit   {}  heads clipped {}",
                joined(&record.max_logit, 1),
                record.n_clipped.iter().sum::<usize>()
            ),
            format!(
                "expert load {} of the mean, {} dead",
                joined(&record.load_max, 2),
                record.n_dead.iter().sum::<usize>()
            ),
            format!("gradient    Muon {:.3}, AdamW {:.3}", record.grad_norm_muon, record.grad_norm_adamw),
        ]
        .map(|line| line + "\n")
        .concat()
    }

    fn curve(&self) -> String {
        let (min, max) = self
            .losses
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), loss| (min.min(*loss), max.max(*loss)));
        let bar =
            |loss: &f64| BARS[((loss - min) / (max - min).max(1e-9) * 7.0).round().clamp(0.0, 7.0) as usize];
        self.losses.iter().map(bar).collect()
    }
}

/// A step in one line, where there is no terminal.
pub fn line(record: &Record) -> String {
    let held_out = record.held_out_loss.map_or(String::new(), |loss| format!(", held out {loss:.4}"));
    format!(
        "{} {}/{}: loss {:.4}{held_out}, {:.0} tokens/s, lr {:.2e}, max logit {:.1}, busiest expert {:.2} of the mean, {} left",
        record.stage,
        record.step,
        record.n_steps,
        record.loss,
        record.tokens_per_s,
        record.lr,
        record.max_logit.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        record.load_max.iter().copied().fold(0.0, f64::max),
        duration(record.left_s)
    )
}

fn joined<T: Copy + Into<f64>>(values: &[T], places: usize) -> String {
    let shown: Vec<String> = values.iter().map(|value| format!("{:.places$}", (*value).into())).collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(" ") }
}

/// Seconds in words: `2 h 05 min`, `3 min 20 s`, `12 s`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.clamp(0.0, 1e9).round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
    }
}
