//! Processor and memory.

use super::Line;
use crate::machine;
use crate::settings::{self, Origin};
use crate::terminal::bytes;
use crate::verbs::card;
use perilune_kernels::cpu::{Cpu, Isa};
use std::fs::read_to_string;

/// Memory that must be free before some is taken for a measurement, bytes.
const FREE_TO_MEASURE: u64 = 1 << 30;
/// Memory below which a run of the embedded model with its usual cache is tight, bytes.
const SMALL: u64 = 1 << 30;

pub(super) fn look(is_quick: bool) -> Vec<Line> {
    vec![processor(), features(), kernels(), threads(), size(), free(), bandwidth(is_quick)]
}

fn processor() -> Line {
    let text = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    match name {
        Some((_, name)) => Line::ok("processor", "name", name.trim()),
        None => Line::unknown("processor", "name", "/proc/cpuinfo names no model"),
    }
}

/// The instructions that some kernel asks for, and whether they are there.
fn features() -> Line {
    #[cfg(target_arch = "x86_64")]
    let all = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
    ];
    #[cfg(target_arch = "aarch64")]
    let all = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let all: [(&str, bool); 0] = [];
    if all.is_empty() {
        return Line::unknown(
            "processor",
            "features",
            "only x86-64 and 64-bit Arm have kernels of their own",
        );
    }
    let names = |wanted: bool| {
        let names: Vec<&str> = all.iter().filter(|(_, is)| *is == wanted).map(|(name, _)| *name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(" ") }
    };
    Line::ok("processor", "features", format!("has {}; lacks {}", names(true), names(false)))
}

fn kernels() -> Line {
    let best = Isa::best();
    let usable: Vec<&str> = Isa::ALL.into_iter().filter(|isa| isa.is_present()).map(Isa::name).collect();
    let found = format!("{} of {}", best.name(), usable.join(", "));
    match best {
        Isa::Scalar => Line::limit(
            "processor",
            "kernels",
            "scalar: the plain reference, many times slower",
            "run on an x86-64 processor with AVX2, or on a 64-bit Arm one; a virtual machine may hide what it has",
        ),
        _ => Line::ok("processor", "kernels", found),
    }
}

fn threads() -> Line {
    let available = Cpu::n_available();
    let set = &settings::get().threads;
    match (set.value, set.origin) {
        (Some(n), origin) if origin != Origin::Default && n > available => Line::limit(
            "processor",
            "threads",
            format!("{n} by the setting, on {available} processors: they wait for each other"),
            format!(
                "set `threads` to {available} or less; `perilune config show --origin` says where it is set"
            ),
        ),
        (Some(n), _) => {
            Line::ok("processor", "threads", format!("{n} of {available} processors, by the setting"))
        }
        (None, _) => Line::ok("processor", "threads", format!("{available}, one for each processor given")),
    }
}

fn size() -> Line {
    match machine::ram_bytes() {
        Ok(n) if n < SMALL => Line::limit(
            "memory",
            "size",
            bytes(n),
            "`perilune plan` says what a model takes; fewer --cache-tokens or --context take less",
        ),
        Ok(n) => Line::ok("memory", "size", format!("{}; `perilune plan` says what fits it", bytes(n))),
        Err(_) => {
            Line::unknown("memory", "size", "/proc/meminfo does not say; tell `perilune plan` with --ram")
        }
    }
}

fn free() -> Line {
    match machine::available_bytes() {
        Some(n) => Line::ok("memory", "free", bytes(n)),
        None => Line::unknown("memory", "free", "/proc/meminfo does not say"),
    }
}

fn bandwidth(is_quick: bool) -> Line {
    let unknown = |why: &str| Line::unknown("memory", "read bandwidth", why);
    if is_quick {
        return unknown("not measured, because --quick was given");
    }
    if machine::available_bytes().is_none_or(|free| free < FREE_TO_MEASURE) {
        return unknown("not measured: that takes memory, and less than 1 GiB is known to be free");
    }
    let n_threads = settings::get().threads.value.unwrap_or_else(Cpu::n_available);
    let gb_per_s = card::read_gb_per_s(&Cpu::new(n_threads));
    let found = format!("{gb_per_s:.1} GB/s on {n_threads} threads, measured just now");
    Line::ok("memory", "read bandwidth", found + "; other work on the machine lowers it")
}
