//! What a run may use: flags, presets, and what tokens cost.

use crate::verbs::data::{DataArgs, wait};
use anyhow::bail;
use clap::ValueEnum;
use perilune_agent::run::{Budget, Price};
use std::time::Duration;

/// Millionths of a dollar for a million tokens, for each billionth of a dollar for one.
const MICROS_PER_NANO: u64 = 1_000;
/// Tokens of one answer beside its thinking.
const WORDS_TOKENS: u64 = 8_192;
/// Share of the context for one answer of a large model.
const REPLY_SHARE: u64 = 4;
/// Dollars that a limit may have.
const DOLLARS_MAX: f64 = 1e6;

/// The flags.
#[derive(clap::Args, Clone)]
pub(super) struct BudgetArgs {
    /// Steps, and tokens of thinking in each: the published protocols. A step's answer takes a quarter of --context
    /// at most, thinking included
    #[arg(long, value_enum, default_value_t = Preset::Reasoning)]
    preset: Preset,
    /// Turns of the model at most [default: those of --preset]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Tokens at most, prompts and answers of all turns together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    tokens: Option<u64>,
    /// Dollars at most, by the model's price as `prices set` keeps it
    #[arg(long, value_name = "USD", value_parser = parse_dollars)]
    cost: Option<f64>,
    /// Minutes at most that a process works on the run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=525_600))]
    minutes: Option<u64>,
    /// Seconds that a question of the policy or of the model waits for its answer, in place of the policy's own time
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    approval_timeout: Option<u64>,
}

/// `--preset`.
#[derive(Clone, Copy, ValueEnum)]
enum Preset {
    /// 120 steps, 48k tokens of thinking each
    #[value(name = "120x48k")]
    Reasoning,
    /// 300 steps, 24k tokens of thinking each
    #[value(name = "300x24k")]
    Search,
}

fn parse_dollars(text: &str) -> Result<f64, String> {
    let dollars = text.parse().ok().filter(|dollars| *dollars > 0.0 && *dollars <= DOLLARS_MAX);
    dollars.ok_or_else(|| "expected dollars, such as 2.50, up to 1000000".to_owned())
}

impl BudgetArgs {
    pub(super) fn budget(&self) -> Budget {
        let preset = match self.preset {
            Preset::Reasoning => Budget::STEPS_120,
            Preset::Search => Budget::STEPS_300,
        };
        Budget {
            n_steps_max: self.steps.unwrap_or(preset.n_steps_max),
            tokens_max: self.tokens,
            cost_micros_max: self.cost.map(|dollars| (dollars * 1e6).ceil() as u64),
            wall_ms_max: self.minutes.map(|minutes| minutes * 60_000),
            ..preset
        }
    }

    /// Tokens of one answer, thinking included, of a model that holds `context_tokens`.
    pub(super) fn reply_tokens(&self, context_tokens: usize) -> usize {
        let wanted = self.budget().step_reasoning_tokens_max + WORDS_TOKENS;
        usize::try_from((context_tokens as u64 / REPLY_SHARE).min(wanted)).unwrap_or(usize::MAX)
    }

    pub(super) fn approval_timeout(&self, of_policy: Option<Duration>) -> Option<Duration> {
        self.approval_timeout.map(Duration::from_secs).or(of_policy)
    }

    /// What the model's tokens cost, where that is known.
    pub(super) fn price(&self, model: &str, data: &DataArgs) -> anyhow::Result<Option<Price>> {
        if self.cost.is_none() && !data.has_store() {
            return Ok(None);
        }
        let price = match wait(data.store()?.price(model))?? {
            Some(price) => price,
            None if self.cost.is_none() => return Ok(None),
            None => bail!(
                "--cost needs the price of {model}; set it with `perilune prices set {model} --input USD --output USD`"
            ),
        };
        let micros = |nano: i64| nano.unsigned_abs().saturating_mul(MICROS_PER_NANO);
        Ok(Some(Price {
            prompt_micros: micros(price.input.nano),
            cached_micros: micros(price.cached.nano),
            completion_micros: micros(price.output.nano),
        }))
    }

    /// The flags as they were given, to be given again.
    pub(super) fn given(&self) -> Vec<String> {
        let preset = self.preset.to_possible_value().map(|it| it.get_name().to_owned());
        let mut all = vec![("--preset", preset.filter(|_| !matches!(self.preset, Preset::Reasoning)))];
        all.extend([
            ("--steps", self.steps.map(|it| it.to_string())),
            ("--tokens", self.tokens.map(|it| it.to_string())),
            ("--cost", self.cost.map(|it| it.to_string())),
            ("--minutes", self.minutes.map(|it| it.to_string())),
            ("--approval-timeout", self.approval_timeout.map(|it| it.to_string())),
        ]);
        all.into_iter().filter_map(|(flag, value)| Some([flag.to_owned(), value?])).flatten().collect()
    }
}
