//! Weights as the exported file will hold them.

use super::TrainError;
use super::parameters::{ParamClass, Parameters};
use crate::config::Config;
use crate::layout;
use perilune_kernels::GROUP;
use perilune_kernels::cpu::Cpu;
use perilune_kernels::quant::{round_bf16, round_int4};
use perilune_kernels::train::for_parts;
use std::ops::Range;

/// Values a task takes: whole groups of 32.
const PIECE: usize = 1 << 14;

/// Whether `parameters` are those of a model of `config`, of widths that INT4 can group where it shall.
pub(super) fn check(config: &Config, parameters: &Parameters, is_int4: bool) -> Result<(), TrainError> {
    let (found, expected) = (parameters.flat().len(), layout::parameters(config).total as usize);
    if found != expected {
        return Err(TrainError::OtherConfig { found, expected });
    }
    let widths =
        [("hidden_size", config.hidden_size), ("moe_intermediate_size", config.moe_intermediate_size)];
    match widths.into_iter().find(|(_, width)| is_int4 && width % GROUP != 0) {
        Some((name, width)) => Err(TrainError::WidthNotGrouped { name, width }),
        None => Ok(()),
    }
}

/// Round every tensor as the export does ([`super::Quant::Int4Experts`]) into `out`, laid out as the weights and
/// resized to them.
pub fn round_as_exported(cpu: &Cpu, parameters: &Parameters, out: &mut Vec<f32>) {
    out.resize(parameters.flat().len(), 0.0);
    let pieces: Vec<(Range<usize>, ParamClass)> = parameters
        .specs()
        .iter()
        .flat_map(|spec| {
            let end = spec.range.end;
            let starts = spec.range.clone().step_by(PIECE);
            starts.map(move |start| (start..end.min(start + PIECE), spec.class))
        })
        .collect();
    let ranges: Vec<Range<usize>> = pieces.iter().map(|(range, _)| range.clone()).collect();
    for_parts(cpu, out, &ranges, |i, out| {
        let (range, class) = &pieces[i];
        let w = &parameters.flat()[range.clone()];
        match class {
            ParamClass::Expert => round_int4(w, out),
            ParamClass::Bias => out.copy_from_slice(w),
            _ => round_bf16(w, out),
        }
    });
}
