//! Forced completions by random choice on a real vocabulary, judged from outside, with the time of each mask.
//!
//! Run: `cargo run --release -p perilune-chat --example grammar_soak -- tiktoken.model [completions] [seed]`

#![allow(clippy::print_stdout)] // Its output is its purpose.

#[path = "../tests/support/forced.rs"]
#[allow(dead_code)] // Shared with the tests, which use more of it.
mod forced;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use forced::{Judge, Rng, bounded_tools, choose, read_section};
use perilune_chat::grammar::{GrammarFactory, ToolSpec, Tools};
use perilune_chat::message::ToolChoice;
use perilune_chat::scanner::Opening;
use perilune_chat::tokenizer::{SpecialText, Tokenizer};
use serde_json::Value;

/// Tokens after which a completion counts as failed.
const N_TOKENS_MAX: usize = 8_192;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: grammar_soak RANK_FILE [COMPLETIONS] [SEED]")?;
    let n_completions: usize = args.next().map_or(Ok(1_000), |arg| arg.parse())?;
    let seed: u64 = args.next().map_or(Ok(1), |arg| arg.parse())?;
    let tokenizer = Arc::new(Tokenizer::from_rank_file(Path::new(&path))?);
    let before = resident_mib();
    let start = Instant::now();
    let factory = GrammarFactory::new(Arc::clone(&tokenizer))?;
    let took = millis(start);
    let grown = resident_mib() - before;
    println!("vocabulary {} ids, factory {took:.0} ms, {grown:.0} MiB", tokenizer.n_vocab());
    compile_times(&tokenizer)?;
    written_calls(&factory, &tokenizer)?;
    soak(&factory, &tokenizer, n_completions, seed)
}

/// Resident memory of this process, in MiB; 0 where the system does not tell.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn specs(n_tools: usize) -> Vec<ToolSpec> {
    let tools = bounded_tools();
    (0..n_tools)
        .map(|idx| {
            let (name, schema) = &tools[idx % tools.len()];
            let mut schema = schema.clone();
            // A title per copy makes each schema new to the cache.
            schema["title"] = Value::from(idx);
            ToolSpec { name: format!("{name}{idx}"), parameters: Some(schema), strict: false }
        })
        .collect()
}

fn compile_times(tokenizer: &Arc<Tokenizer>) -> Result<(), Box<dyn std::error::Error>> {
    let factory = GrammarFactory::new(Arc::clone(tokenizer))?;
    for n_tools in [1, 10, 40] {
        let tools = Tools { specs: specs(n_tools), choice: ToolChoice::Required, ..Tools::default() };
        let fresh = GrammarFactory::new(Arc::clone(tokenizer))?;
        let start = Instant::now();
        drop(fresh.tool_calls(tools.clone(), Opening::Answer)?);
        let first = millis(start);
        drop(factory.tool_calls(tools.clone(), Opening::Answer)?);
        let start = Instant::now();
        drop(factory.tool_calls(tools, Opening::Answer)?);
        println!("compile {n_tools:2} tools: {first:.2} ms, again (remembered) {:.3} ms", millis(start));
    }
    Ok(())
}

/// Calls as a model writes them.
const WRITTEN: &str = concat!(
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.mail:0<|tool_call_argument_begin|>",
    r#"{"to": ["anna@example.org", "li.wei@example.cn"], "subject": "Trip to Beijing in October", "body": "Dear both,\n"#,
    r#"please find attached the plan for our trip. We arrive on Monday at 10:30 and stay until Friday. "#,
    r#"请确认酒店预订和会议时间，谢谢。\nBest regards,\nAnna", "priority": 2}"#,
    "<|tool_call_end|><|tool_call_begin|>functions.write:1<|tool_call_argument_begin|>",
    r#"{"path": "/home/anna/plan.py", "content": "def main():\n    for i in range(10):\n        print(f\"{i}: {i * i}\")\n"}"#,
    "<|tool_call_end|><|tool_calls_section_end|><|im_end|>"
);

/// Times of the masks along written calls, for strings with and without `maxLength`.
fn written_calls(factory: &GrammarFactory, tokenizer: &Tokenizer) -> Result<(), Box<dyn std::error::Error>> {
    let limited = serde_json::json!({"type": "string", "maxLength": 500});
    for (name, text) in [("free strings", serde_json::json!({"type": "string"})), ("maxLength 500", limited)]
    {
        let object = |properties: Value| serde_json::json!({"type": "object", "properties": properties});
        let mail =
            object(serde_json::json!({"to": {"type": "array", "items": text}, "subject": text, "body": text,
            "priority": {"type": "integer", "minimum": 1, "maximum": 5}}));
        let write = object(serde_json::json!({"path": text, "content": text}));
        let spec =
            |name: &str, schema| ToolSpec { name: name.into(), parameters: Some(schema), strict: true };
        let tools = Tools { specs: vec![spec("mail", mail), spec("write", write)], ..Tools::default() };
        let mut times = Times::default();
        for _ in 0..20 {
            let mut constraint = factory.tool_calls(tools.clone(), Opening::Answer)?;
            let mut mask = vec![0; constraint.n_mask_words()];
            for id in tokenizer.encode(WRITTEN, SpecialText::AsTokens) {
                let start = Instant::now();
                constraint.fill_mask(&mut mask)?;
                times.mask_ns.push(start.elapsed().as_nanos() as u64);
                let start = Instant::now();
                constraint.accept(id)?;
                times.accept_ns.push(start.elapsed().as_nanos() as u64);
            }
        }
        println!("written calls, {name}:");
        times.print();
    }
    Ok(())
}

fn soak(
    factory: &GrammarFactory,
    tokenizer: &Tokenizer,
    n_completions: usize,
    seed: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    let tools = bounded_tools();
    let judges: Vec<Judge> = tools.iter().map(|(_, schema)| Judge::new(schema)).collect();
    let specs: Vec<ToolSpec> = tools
        .iter()
        .map(|(name, schema)| ToolSpec {
            name: name.clone(),
            parameters: Some(schema.clone()),
            strict: false,
        })
        .collect();
    let mut times = Times::default();
    let (mut n_good, mut n_calls, mut n_tokens, mut longest) = (0, 0, 0, 0);
    for completion in 0..n_completions {
        let mut rng = Rng(seed.wrapping_mul(1_000_003).wrapping_add(completion as u64));
        let next_call_idx = rng.below(1_000) as u32;
        let request =
            Tools { specs: specs.clone(), choice: ToolChoice::Required, next_call_idx, ..Tools::default() };
        let mut constraint = factory.tool_calls(request, Opening::Answer)?;
        if completion == 0 {
            for report in constraint.reports() {
                println!(
                    "{:?}: at most {:?} bytes, not enforced {:?}",
                    report.tool, report.bytes_max, report.unenforced
                );
            }
        }
        let mut mask = vec![0; constraint.n_mask_words()];
        let mut ids = Vec::new();
        while !constraint.is_complete() && ids.len() < N_TOKENS_MAX {
            let start = Instant::now();
            constraint.fill_mask(&mut mask)?;
            let mask_ns = start.elapsed().as_nanos() as u64;
            times.mask_ns.push(mask_ns);
            times.keep_slow(mask_ns, || tail(tokenizer, &ids));
            let id = choose(&mask, &mut rng);
            let start = Instant::now();
            constraint.accept(id)?;
            times.accept_ns.push(start.elapsed().as_nanos() as u64);
            ids.push(id);
        }
        n_tokens += ids.len();
        longest = longest.max(ids.len());
        let verdict = if constraint.is_complete() {
            judge(tokenizer, &ids, &tools, &judges, next_call_idx)
        } else {
            Err("the token limit was reached".into())
        };
        match verdict {
            Ok(n) => {
                n_good += 1;
                n_calls += n;
            }
            Err(reason) => println!("completion {completion} (seed {seed}) failed: {reason}"),
        }
    }
    println!(
        "{n_good} of {n_completions} completions parse and validate (seed {seed}); {n_calls} calls, {n_tokens} tokens, longest {longest}"
    );
    times.print();
    Ok(())
}

fn judge(
    tokenizer: &Tokenizer,
    ids: &[u32],
    tools: &[(String, Value)],
    judges: &[Judge],
    next_call_idx: u32,
) -> Result<usize, String> {
    let calls = read_section(tokenizer, ids)?;
    for (nth, call) in calls.iter().enumerate() {
        let tool_idx = tools.iter().position(|(name, _)| *name == call.name).ok_or("an undeclared name")?;
        if call.idx != next_call_idx + nth as u32 {
            return Err(format!("call {nth} has index {}", call.idx));
        }
        let value: Value =
            serde_json::from_str(&call.arguments).map_err(|error| format!("{error}: {}", call.arguments))?;
        judges[tool_idx]
            .check(&value)
            .map_err(|error| format!("{error}: {} {}", call.name, call.arguments))?;
    }
    Ok(calls.len())
}

/// The text before a mask.
fn tail(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    tokenizer.decode(&ids[ids.len().saturating_sub(16)..])
}

/// Slowest masks that are shown.
const N_SLOW: usize = 12;

#[derive(Default)]
struct Times {
    mask_ns: Vec<u64>,
    slow: Vec<(u64, String)>,
    accept_ns: Vec<u64>,
}

impl Times {
    fn keep_slow(&mut self, mask_ns: u64, text: impl FnOnce() -> String) {
        if self.slow.len() < N_SLOW || mask_ns > self.slow[N_SLOW - 1].0 {
            self.slow.push((mask_ns, text()));
            self.slow.sort_by_key(|(ns, _)| std::cmp::Reverse(*ns));
            self.slow.truncate(N_SLOW);
        }
    }

    fn print(mut self) {
        for (ns, text) in &self.slow {
            println!("slow mask {:.0} µs after {text:?}", *ns as f64 / 1e3);
        }
        for (name, times) in [("mask", &mut self.mask_ns), ("accept", &mut self.accept_ns)] {
            times.sort_unstable();
            let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize] as f64 / 1e3;
            let mean = times.iter().sum::<u64>() as f64 / times.len() as f64 / 1e3;
            println!(
                "{name} µs: median {:.1}, mean {mean:.1}, p95 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1} ({} samples)",
                at(0.5),
                at(0.95),
                at(0.99),
                at(0.999),
                at(1.0),
                times.len()
            );
        }
    }
}
