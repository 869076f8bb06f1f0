//! Rotary position embedding: base, YaRN, and the frequencies they give.

use super::ConfigProblem;
use super::fields::Fields;
use serde_json::Value;

/// Smallest base: below it the frequencies hardly fall and YaRN's ramp has no meaning.
const THETA_MIN: f64 = 2.0;

/// Rotary position embedding (Su et al. 2021) of the `qk_rope_head_dim` part of queries and keys, applied to
/// interleaved pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of frequencies (`rope_theta`).
    pub theta: f64,
    /// Context extension; `None` means plain frequencies.
    pub yarn: Option<Yarn>,
}

/// YaRN context extension (Peng et al. 2023, arXiv:2309.00071), as transformers' `yarn` rope reads it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// Ratio of the extended to the original context.
    pub factor: f64,
    /// Context the model was first trained at, tokens.
    pub original_max_position_embeddings: f64,
    /// Rotations over the original context above which a frequency is kept.
    pub beta_fast: f64,
    /// Rotations over the original context below which a frequency is divided by `factor`.
    pub beta_slow: f64,
    /// Magnitude coefficient; 0 means absent.
    pub mscale: f64,
    /// Magnitude coefficient of all dimensions, which enters the softmax scale; 0 means absent.
    pub mscale_all_dim: f64,
    /// Factor on cos and sin where the file states it instead of the coefficients.
    pub attention_factor: Option<f64>,
}

impl Rope {
    /// Radians a pair turns per position, one per pair: `[dim / 2]`. `dim` is `qk_rope_head_dim`. With [`Yarn`], its
    /// blend of kept and divided frequencies (arXiv:2309.00071).
    ///
    /// Computed in f32 in the order of transformers' `yarn`, so that angles at far positions agree with it.
    pub fn inv_freq(&self, dim: usize) -> Vec<f32> {
        let wavelength = |i: usize| (self.theta as f32).powf((2 * i) as f32 / dim as f32);
        let Some(yarn) = self.yarn else { return (0..dim / 2).map(|i| 1.0 / wavelength(i)).collect() };
        let (low, high) = yarn.ramp(self.theta, dim);
        let blend = |i: usize| {
            let kept = 1.0 - ((i as f32 - low) / (high - low)).clamp(0.0, 1.0);
            let (extrapolated, interpolated) =
                (1.0 / wavelength(i), 1.0 / (yarn.factor as f32 * wavelength(i)));
            interpolated * (1.0 - kept) + extrapolated * kept
        };
        (0..dim / 2).map(blend).collect()
    }

    /// Factor on cos and sin: 1 without YaRN; else the file's own, else the ratio of the magnitudes of `mscale` and
    /// `mscale_all_dim` (1 where the two are equal), else, where one is absent, `0.1 ln(factor) + 1`.
    pub fn attention_factor(&self) -> f32 {
        let Some(yarn) = self.yarn else { return 1.0 };
        let from_coefficients = || {
            if yarn.mscale != 0.0 && yarn.mscale_all_dim != 0.0 {
                yarn.magnitude(yarn.mscale) / yarn.magnitude(yarn.mscale_all_dim)
            } else {
                yarn.magnitude(1.0)
            }
        };
        yarn.attention_factor.unwrap_or_else(from_coefficients) as f32
    }

    pub(crate) fn from_fields(config: &Fields<'_>) -> Result<Rope, ConfigProblem> {
        let parameters = config.object("rope_parameters")?;
        let scaling = match config.object("rope_scaling")? {
            Some(scaling) => Some(scaling),
            None => config.object("rope_parameters")?,
        };
        let theta = match &parameters {
            Some(inner) if inner.get("rope_theta").is_some() => inner.positive("rope_theta")?,
            _ => config.positive("rope_theta")?,
        };
        if theta < THETA_MIN {
            let found = theta.to_string();
            return Err(ConfigProblem::Wrong {
                key: "rope_theta".into(),
                found,
                expected: format!("a number of at least {THETA_MIN}"),
            });
        }
        let yarn = scaling.as_ref().map(Yarn::from_fields).transpose()?.flatten();
        Ok(Rope { theta, yarn })
    }
}

impl Yarn {
    /// Square root of YaRN's factor on the softmax scale; 1 where `mscale_all_dim` is absent.
    pub(crate) fn softmax_magnitude(&self) -> f64 {
        if self.mscale_all_dim == 0.0 { 1.0 } else { self.magnitude(self.mscale_all_dim) }
    }

    fn magnitude(&self, mscale: f64) -> f64 {
        if self.factor <= 1.0 { 1.0 } else { 0.1 * mscale * self.factor.ln() + 1.0 }
    }

    /// First and last pair of the ramp between kept and divided frequencies.
    fn ramp(&self, theta: f64, dim: usize) -> (f32, f32) {
        let pair_of = |rotations: f64| {
            let wavelength = self.original_max_position_embeddings / (rotations * std::f64::consts::TAU);
            dim as f64 * wavelength.ln() / (2.0 * theta.ln())
        };
        let low = pair_of(self.beta_fast).floor().max(0.0);
        let high = pair_of(self.beta_slow).ceil().min(dim as f64 - 1.0);
        // Equal ends would divide by zero; the reference widens them by this much.
        (low as f32, if low == high { high + 0.001 } else { high } as f32)
    }

    /// `None` for `default` rope.
    fn from_fields(f: &Fields<'_>) -> Result<Option<Yarn>, ConfigProblem> {
        let is_set = |key: &str| f.get(key).is_some_and(|value| !value.is_null());
        let key = if is_set("rope_type") { "rope_type" } else { "type" };
        match f.text(key)? {
            None | Some("default") => return Ok(None),
            Some("yarn") => {}
            Some(other) => {
                return Err(f.unsupported(key, &Value::from(other), "Perilune runs `yarn` and `default`"));
            }
        }
        f.only("truncate", &Value::Bool(true))?;
        Ok(Some(Yarn {
            factor: f.positive("factor")?,
            original_max_position_embeddings: f.positive("original_max_position_embeddings")?,
            beta_fast: positive_or(f, "beta_fast", 32.0)?,
            beta_slow: positive_or(f, "beta_slow", 1.0)?,
            mscale: f.number_or("mscale", 0.0)?,
            mscale_all_dim: f.number_or("mscale_all_dim", 0.0)?,
            attention_factor: is_set("attention_factor")
                .then(|| f.positive("attention_factor"))
                .transpose()?,
        }))
    }
}

fn positive_or(f: &Fields<'_>, key: &str, default: f64) -> Result<f64, ConfigProblem> {
    match f.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(_) => f.positive(key),
    }
}
