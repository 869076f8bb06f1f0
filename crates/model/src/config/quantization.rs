//! `quantization_config`: the one packing that is read, compressed-tensors `pack-quantized` INT4 in groups of 32.

use super::ConfigProblem;
use super::fields::Fields;
use serde_json::Value;

/// How the routed experts' weights are packed: signed 4-bit codes along the input dimension, eight to an I32, least
/// significant nibble first, stored as `code + 8`, and one scale per group (compressed-tensors `pack-quantized`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantization {
    /// Bits of a code: 4.
    pub num_bits: usize,
    /// Input columns that share one scale: 32.
    pub group_size: usize,
}

const PACKED_INT4: Quantization = Quantization::INT4;

const READS: &str =
    "Perilune reads compressed-tensors `pack-quantized` INT4 with group size 32, or plain BF16 and F32";

impl Quantization {
    /// The only packing that is read.
    pub const INT4: Quantization = Quantization { num_bits: 4, group_size: 32 };

    pub(crate) fn from_fields(config: &Fields<'_>) -> Result<Option<Quantization>, ConfigProblem> {
        let Some(quantization) = config.object("quantization_config")? else { return Ok(None) };
        check_method(&quantization)?;
        for key in ["kv_cache_scheme", "sparsity_config", "transform_config"] {
            quantization.never(key, READS)?;
        }
        let groups = quantization.object("config_groups")?.ok_or_else(|| ConfigProblem::Missing {
            key: quantization.name_of("config_groups"),
            expected: "an object with one group".into(),
        })?;
        let groups: Vec<_> = groups.objects().collect::<Result<_, _>>()?;
        let [group] = &groups[..] else {
            return Err(ConfigProblem::Unsupported {
                key: quantization.name_of("config_groups"),
                found: format!("an object with {} groups", groups.len()),
                supported: "exactly one group is read".into(),
            });
        };
        check_group(group)?;
        Ok(Some(PACKED_INT4))
    }
}

fn check_method(quantization: &Fields<'_>) -> Result<(), ConfigProblem> {
    let refuse = |key: &str, wanted: &str| match quantization.get(key) {
        Some(found) if found == &Value::from(wanted) => Ok(()),
        Some(found) => Err(quantization.unsupported(key, found, READS)),
        None => {
            Err(ConfigProblem::Missing { key: quantization.name_of(key), expected: format!("`{wanted}`") })
        }
    };
    refuse("quant_method", "compressed-tensors")?;
    refuse("format", "pack-quantized")?;
    quantization.only_text("quantization_status", "compressed")
}

fn check_group(group: &Fields<'_>) -> Result<(), ConfigProblem> {
    group.never("input_activations", READS)?;
    group.never("output_activations", READS)?;
    group.only_text("format", "pack-quantized")?;
    let weights = group.object("weights")?.ok_or_else(|| ConfigProblem::Missing {
        key: group.name_of("weights"),
        expected: "the weights' quantisation".into(),
    })?;
    let wanted: [(&str, Value); 6] = [
        ("num_bits", PACKED_INT4.num_bits.into()),
        ("type", "int".into()),
        ("symmetric", true.into()),
        ("strategy", "group".into()),
        ("group_size", PACKED_INT4.group_size.into()),
        ("dynamic", false.into()),
    ];
    for (key, value) in wanted {
        if weights.get(key).is_none_or(Value::is_null) {
            let expected = value.to_string();
            return Err(ConfigProblem::Missing { key: weights.name_of(key), expected });
        }
        weights.only(key, &value)?;
    }
    weights.never("actorder", READS)?;
    weights.never("block_structure", READS)
}
