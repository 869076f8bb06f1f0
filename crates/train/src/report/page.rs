//! The page itself.

use super::plot::{Line, Plot, colour};
use super::{Eval, Run, Verdict, verdicts};
use crate::log::Record;
use crate::view::duration;
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 860px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #8884; } th:first-child, td:first-child { text-align: left; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
.grid { stroke: #8884; } .key { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: 13px; }
.key i { display: inline-block; width: 1.4rem; border-top: 3px solid; vertical-align: middle; margin-right: .3rem; }
";

pub(super) fn page(runs: &[Run]) -> Markup {
    let verdicts = verdicts(runs);
    html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { "Perilune: training report" } style { (PreEscaped(STYLE)) } }
            body {
                h1 { "Training report" }
                (summary(runs))
                @if !verdicts.is_empty() { (comparison(runs, &verdicts)) }
                (section("Loss on held-out sequences", held_out(runs)))
                (section("Held-out turns without a wrong token", by_step(runs, "share", true, |r| r.held_out_turns)))
                (section("Loss of each step", by_step(runs, "loss, nats", false, |r| Some(r.loss))))
                (section("Largest attention logit", by_step(runs, "logit", true, max_logit)))
                (section("Heads that QK-Clip scaled", by_step(runs, "heads", true, |r| Some(r.n_clipped.iter().sum::<usize>() as f64))))
                (section("Load of the busiest expert over the mean", by_step(runs, "times the mean", true, load_max)))
                (section("Experts that no token chose", by_step(runs, "experts", true, |r| Some(r.n_dead.iter().sum::<usize>() as f64))))
                (section("Norm of the gradient, AdamW's tensors before clipping", by_step(runs, "norm", true, |r| Some(r.grad_norm_adamw))))
                (section("Learning rate", by_step(runs, "rate", true, |r| Some(f64::from(r.lr)))))
                (evaluations(runs))
            }
        }
    }
}

fn summary(runs: &[Run]) -> Markup {
    html! {
        table {
            tr { th { "run" } th { "stages" } th { "steps" } th { "tokens" } th { "time" } th { "held-out loss" }
                th { "right" } th { "tokens/s" } th { "max logit" } th { "busiest expert" } }
            @for run in runs {
                @let last = run.records.last();
                @let measured = run.records.iter().rev().find(|r| r.held_out_loss.is_some());
                tr {
                    td { (run.name) }
                    td { (stages(&run.records).join(", ")) }
                    td { (last.map_or(0, |r| r.total_step)) }
                    td { (last.map_or(0, |r| r.tokens)) }
                    td { (duration(last.map_or(0.0, |r| r.seconds))) }
                    td { (measured.and_then(|r| r.held_out_loss).map_or("not measured".into(), |l| format!("{l:.4}"))) }
                    td { (measured.and_then(|r| r.held_out_accuracy).map_or(String::new(), |a| format!("{:.1} %", 100.0 * a))) }
                    td { (format!("{:.0}", last.map_or(0.0, |r| r.tokens as f64 / r.seconds.max(1e-9)))) }
                    td { (format!("{:.1}", run.records.iter().filter_map(max_logit).fold(f64::NEG_INFINITY, f64::max))) }
                    td { (format!("{:.2}", last.and_then(load_max).unwrap_or(0.0))) }
                }
            }
        }
    }
}

fn stages(records: &[Record]) -> Vec<String> {
    let mut names: Vec<String> = records.iter().map(|record| record.stage.clone()).collect();
    names.dedup();
    names
}

/// Optimizers by learning rate, and the best of each as curves over tokens.
fn comparison(runs: &[Run], verdicts: &[Verdict]) -> Markup {
    let mut best: Vec<&Verdict> = verdicts.iter().collect();
    best.dedup_by(|later, first| later.optimizer == first.optimizer);
    let chosen: Vec<&Run> =
        runs.iter().filter(|run| best.iter().any(|verdict| verdict.runs.contains(&run.name))).collect();
    let lines = chosen.iter().map(|run| held_out_line(run)).collect();
    let plot = Plot { x_label: "tokens", y_label: "held-out loss, nats", lines, from_zero: false };
    html! {
        h2 { "Optimizers compared, each at the end of its complete schedule" }
        table {
            tr { th { "optimizer" } th { "learning rate" } th { "tokens" } th { "seeds" } th { "held-out loss, mean" } th { "of each seed" } }
            @for verdict in verdicts {
                tr {
                    td { (verdict.optimizer) } td { (verdict.lr) } td { (verdict.tokens) } td { (verdict.losses.len()) }
                    td { (format!("{:.4}", verdict.loss())) }
                    td { (verdict.losses.iter().map(|loss| format!("{loss:.4}")).collect::<Vec<_>>().join(", ")) }
                }
            }
        }
        @if let Some(sentence) = sentence(&best) { p { (sentence) } }
        (drawn(&plot))
    }
}

/// MuonClip against AdamW, in words.
fn sentence(best: &[&Verdict]) -> Option<String> {
    let find = |name: &str| best.iter().find(|verdict| verdict.optimizer == name);
    let (muon, adamw) = (find("muonclip")?, find("adamw")?);
    let (m, a) = (muon.loss(), adamw.loss());
    let order = if m <= a { "no higher than" } else { "higher than" };
    Some(format!(
        "MuonClip's best (learning rate {}) ends after {} tokens at {m:.4}, {order} AdamW's best (learning rate {}) after {} tokens at {a:.4}.",
        muon.lr, muon.tokens, adamw.lr, adamw.tokens
    ))
}

fn held_out_line(run: &Run) -> Line {
    let points = run.records.iter().filter_map(|r| Some((r.tokens as f64, r.held_out_loss?))).collect();
    Line { name: run.name.clone(), points, is_dashed: run.name.starts_with("adamw") }
}

fn held_out(runs: &[Run]) -> Plot {
    let lines = runs.iter().map(held_out_line).collect();
    Plot { x_label: "tokens", y_label: "loss, nats", lines, from_zero: false }
}

fn by_step(
    runs: &[Run],
    y_label: &'static str,
    from_zero: bool,
    of: impl Fn(&Record) -> Option<f64>,
) -> Plot {
    let line = |run: &Run| Line {
        name: run.name.clone(),
        points: run.records.iter().filter_map(|r| Some((r.tokens as f64, of(r)?))).collect(),
        is_dashed: run.name.starts_with("adamw"),
    };
    Plot { x_label: "tokens", y_label, lines: runs.iter().map(line).collect(), from_zero }
}

fn max_logit(record: &Record) -> Option<f64> {
    record.max_logit.iter().copied().map(f64::from).reduce(f64::max)
}

fn load_max(record: &Record) -> Option<f64> {
    record.load_max.iter().copied().reduce(f64::max)
}

fn section(title: &str, plot: Plot) -> Markup {
    html! { @if plot.lines.iter().any(|line| !line.points.is_empty()) { h2 { (title) } (drawn(&plot)) } }
}

fn drawn(plot: &Plot) -> Markup {
    html! {
        figure style="margin:0" {
            (PreEscaped(plot.svg()))
            figcaption class="key" {
                @for (i, line) in plot.lines.iter().enumerate() {
                    span { i style=(format!("border-color:{}", colour(i))) {} (line.name) }
                }
            }
        }
    }
}

/// Exactness of calls by their place, one line an evaluation.
fn evaluations(runs: &[Run]) -> Markup {
    let all: Vec<(&Run, &Eval)> =
        runs.iter().flat_map(|run| run.evals.iter().map(move |eval| (run, eval))).collect();
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let line = |(run, eval): &(&Run, &Eval)| Line {
        name: format!("{} {}", run.name, eval.name),
        points: eval
            .tally
            .exactness_by_call
            .iter()
            .enumerate()
            .filter(|(_, at)| at.calls > 0)
            .map(|(i, at)| ((i + 1) as f64, share(at.exact_calls, at.calls)))
            .collect(),
        is_dashed: false,
    };
    let plot = Plot {
        x_label: "call",
        y_label: "share exact",
        lines: all.iter().map(line).collect(),
        from_zero: true,
    };
    html! {
        @if !all.is_empty() {
            h2 { "Exactness of calls by their place in the episode" }
            table {
                tr { th { "evaluation" } th { "solved" } th { "episodes" } th { "exact calls" } th { "calls" } }
                @for (run, eval) in &all {
                    tr {
                        td { (run.name) " " (eval.name) }
                        td { (eval.tally.solved) } td { (eval.tally.episodes) }
                        td { (format!("{:.2} %", 100.0 * share(eval.tally.exact_calls, eval.tally.calls))) }
                        td { (eval.tally.calls) }
                    }
                }
            }
            (drawn(&plot))
        }
    }
}
