//! What the verbs that run a model share: their flags, and opening the model they name.

use crate::embedded::{self, Unpacked};
use crate::settings;
use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use perilune_kernels::cpu::{Cpu, Isa};
use perilune_kernels::pool::{Binding, MAX_THREADS};
use perilune_kernels::topology::Topology;
use perilune_model::cache::{Cache, CacheForm};
use perilune_model::checkpoint::Checkpoint;
use perilune_model::forward::{Arithmetic, ForwardError, Model, check_cache, check_widths};
use perilune_model::weights::{Dense, Weights};
use std::path::{Path, PathBuf};

/// What is said first of a folder that no flag of this call named.
const OF_THE_SETTING: &str =
    "the setting `model`, of which `perilune config show --origin` says where it is set, is wrong";

/// Arguments of every verb that runs a model.
#[derive(Args, Clone)]
pub(crate) struct ModelArgs {
    /// Folder of the checkpoint: config.json and safetensors, as published
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

impl ModelArgs {
    /// Open the checkpoint and put its weights on the processor, showing progress on a terminal.
    pub(crate) fn model(&self) -> anyhow::Result<Model> {
        let run = &self.run;
        run.model_on(&self.dir, run.cpu_on(run.n_threads())?, run.path.arithmetic(), run.dense.dense())
    }
}

/// The model of a verb that has one without being told.
pub(crate) struct Chosen {
    pub(crate) args: ModelArgs,
    /// Its name in outputs.
    pub(crate) name: String,
    /// Keeps a folder that is removed at the end.
    _embedded: Option<Unpacked>,
}

impl Chosen {
    /// The checkpoint in `dir`; without one, that of the setting `model`, else the embedded model.
    pub(crate) fn new(dir: Option<&Path>, run: &RunArgs) -> anyhow::Result<Self> {
        let is_told = dir.is_some();
        if let Some(dir) = dir.map(Path::to_path_buf).or_else(|| settings::get().model.value.clone()) {
            check_folder(&dir)
                .map_err(|error| if is_told { error } else { error.context(OF_THE_SETTING) })?;
            let name = dir.display().to_string();
            return Ok(Self { args: ModelArgs { dir, run: run.clone() }, name, _embedded: None });
        }
        let unpacked = embedded::unpack()?;
        let args = ModelArgs { dir: unpacked.folder().to_path_buf(), run: run.clone() };
        Ok(Self { args, name: embedded::NAME.to_owned(), _embedded: Some(unpacked) })
    }
}

/// How to run it.
#[derive(Args, Clone)]
pub(crate) struct RunArgs {
    /// Arithmetic: `exact` is f32 throughout, `fast` takes 8-bit activations for quantised weights
    #[arg(long, value_enum, default_value_t = PathChoice::Fast)]
    pub(crate) path: PathChoice,
    /// How attention, shared experts, dense layers and head are held: as published, or re-encoded to 8 bits at load
    #[arg(long, value_enum, default_value_t = DenseChoice::Bf16)]
    pub(crate) dense: DenseChoice,
    /// Threads to compute on [default: the setting `threads`, else all cores]
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    pub(crate) threads: Option<usize>,
    /// Instruction set of the kernels: scalar, avx2, avx512-vnni, amx-int8, neon or neon-dotprod [default: the widest that
    /// this processor has]
    #[arg(long, value_name = "NAME", value_parser = parse_isa)]
    pub(crate) isa: Option<Isa>,
    /// What is kept of a token on the fast path: its latent in BF16, or in 8 bits with a scale a group of 32
    #[arg(long, value_enum, default_value_t = CacheChoice::Bf16)]
    pub(crate) cache: CacheChoice,
    /// Where threads stay: on the cores of their NUMA node where there are several, each on a core of its own, or
    /// wherever the system puts them
    #[arg(long, value_enum, default_value_t = BindChoice::Node)]
    pub(crate) bind: BindChoice,
}

/// `--cache`.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum CacheChoice {
    Bf16,
    Int8,
}

impl CacheChoice {
    /// The form of cache that this asks of `arithmetic`.
    pub(crate) fn form(self, arithmetic: Arithmetic) -> CacheForm {
        match self {
            CacheChoice::Bf16 => arithmetic.cache_form(),
            CacheChoice::Int8 => CacheForm::LatentInt8,
        }
    }
}

/// `--bind`.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum BindChoice {
    Node,
    Core,
    Free,
}

impl BindChoice {
    fn binding(self) -> Binding {
        match self {
            BindChoice::Node => Binding::Node,
            BindChoice::Core => Binding::Core,
            BindChoice::Free => Binding::Free,
        }
    }
}

/// `--path`.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum PathChoice {
    Exact,
    Fast,
}

impl PathChoice {
    pub(crate) fn arithmetic(self) -> Arithmetic {
        match self {
            PathChoice::Exact => Arithmetic::Exact,
            PathChoice::Fast => Arithmetic::Fast,
        }
    }
}

/// `--dense`.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum DenseChoice {
    Bf16,
    Int8,
}

impl DenseChoice {
    pub(crate) fn dense(self) -> Dense {
        match self {
            DenseChoice::Bf16 => Dense::AsPublished,
            DenseChoice::Int8 => Dense::Int8,
        }
    }
}

fn parse_isa(name: &str) -> Result<Isa, String> {
    let isa = Isa::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Isa::ALL.iter().map(|isa| isa.name()).collect();
        format!("no kernels of that name; there are {}", names.join(", "))
    })?;
    if isa.is_present() { Ok(isa) } else { Err("this processor cannot run them".to_owned()) }
}

impl RunArgs {
    /// The flags as they were given, to be given again.
    pub(crate) fn given(&self) -> Vec<String> {
        let (path, dense) = (self.path.to_possible_value(), self.dense.to_possible_value());
        let path = path.filter(|_| !matches!(self.path, PathChoice::Fast));
        let dense = dense.filter(|_| !matches!(self.dense, DenseChoice::Bf16));
        let bind = self.bind.to_possible_value().filter(|_| !matches!(self.bind, BindChoice::Node));
        let cache = self.cache.to_possible_value().filter(|_| !matches!(self.cache, CacheChoice::Bf16));
        let all = [
            ("--cache", cache.map(|it| it.get_name().to_owned())),
            ("--bind", bind.map(|it| it.get_name().to_owned())),
            ("--path", path.map(|it| it.get_name().to_owned())),
            ("--dense", dense.map(|it| it.get_name().to_owned())),
            ("--threads", self.threads.map(|it| it.to_string())),
            ("--isa", self.isa.map(|it| it.name().to_owned())),
        ];
        all.into_iter().filter_map(|(flag, value)| Some([flag.to_owned(), value?])).flatten().collect()
    }

    /// Threads that the flags or the settings ask for.
    pub(crate) fn n_threads(&self) -> usize {
        let asked = settings::get().threads.or_flag(self.threads.map(Some));
        asked.value.unwrap_or_else(Cpu::n_available)
    }

    /// The kernels that the flags ask for, on `n_threads`.
    pub(crate) fn cpu_on(&self, n_threads: usize) -> anyhow::Result<Cpu> {
        let isa = self.isa.unwrap_or_else(Isa::best);
        let cpu = Cpu::on(isa, Topology::of_machine(), self.bind.binding(), n_threads);
        cpu.ok_or_else(|| anyhow!("this processor lacks {}", isa.name()))
    }

    /// Open the checkpoint in `dir` and put its weights on `cpu`, showing progress on a terminal.
    pub(crate) fn model_on(
        &self,
        dir: &Path,
        cpu: Cpu,
        arithmetic: Arithmetic,
        dense: Dense,
    ) -> anyhow::Result<Model> {
        self.model_of(open(dir)?, cpu, arithmetic, dense)
    }

    /// Put the weights of an opened checkpoint on `cpu`, showing progress on a terminal.
    pub(crate) fn model_of(
        &self,
        checkpoint: Checkpoint,
        cpu: Cpu,
        arithmetic: Arithmetic,
        dense: Dense,
    ) -> anyhow::Result<Model> {
        if (arithmetic, dense) == (Arithmetic::Exact, Dense::Int8) {
            bail!("the exact path runs the weights as published; take `--dense bf16`, or the fast path");
        }
        check_widths(&checkpoint.config, arithmetic)?;
        let is_asked = arithmetic == self.path.arithmetic();
        let cache = if is_asked { self.cache.form(arithmetic) } else { arithmetic.cache_form() };
        check_cache(arithmetic, cache)?;
        let bar = crate::terminal::bar("loading", "layers");
        let weights = Weights::load(&checkpoint, dense, &cpu, |done, of| {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        Ok(Model::new(checkpoint.config, weights, cpu, arithmetic)?.with_cache(cache)?)
    }
}

/// Say what is wanted, where a folder that was named is not there.
pub(crate) fn check_folder(dir: &Path) -> anyhow::Result<()> {
    if !dir.is_dir() {
        bail!(
            "{} is not a folder; give the folder that holds config.json and the safetensors files",
            dir.display()
        );
    }
    Ok(())
}

/// Open a checkpoint, saying which folder was asked for where that fails.
pub(crate) fn open(dir: &Path) -> anyhow::Result<Checkpoint> {
    check_folder(dir)?;
    Checkpoint::open(dir).with_context(|| format!("cannot open {}", dir.display()))
}

/// Whether `n_sequences` sequences of `n_tokens` each fit the model's positions and this machine's memory.
///
/// # Errors
/// More tokens than the model has positions, or a cache larger than this machine's memory; with both figures.
pub(crate) fn check_context(model: &Model, n_tokens: usize, n_sequences: usize) -> anyhow::Result<()> {
    let limit = model.config().max_position_embeddings;
    if n_tokens > limit {
        return Err(ForwardError::BeyondModel { needed: n_tokens, limit }.into());
    }
    let per_token = model.cache_form().bytes_per_token(model.config());
    let rounded = Cache::blocks_for(n_tokens) * perilune_kernels::BLOCK_TOKENS;
    let needed = (rounded as u64).saturating_mul(per_token as u64).saturating_mul(n_sequences as u64);
    let ram = crate::machine::ram_bytes()?;
    if needed > ram {
        bail!(
            "the cache of {n_sequences} x {n_tokens} tokens takes {}, this machine has {}; ask for fewer tokens",
            crate::terminal::bytes(needed),
            crate::terminal::bytes(ram)
        );
    }
    Ok(())
}

/// A number of threads.
pub(crate) fn parse_threads(text: &str) -> Result<usize, String> {
    let n = text.parse().ok().filter(|n| (1..=MAX_THREADS).contains(n));
    n.ok_or_else(|| format!("expected a number of threads from 1 to {MAX_THREADS}"))
}

/// Token ids from `1,2,3` (commas, spaces or both).
pub(crate) fn parse_ids(text: &str) -> Result<Vec<u32>, String> {
    let parts = text.split([',', ' ', '\n', '\t']).filter(|part| !part.is_empty());
    let id = |part: &str| part.parse().map_err(|_| format!("'{part}' is not a token id; write ids as 1,2,3"));
    parts.map(id).collect()
}

/// Where non-finite logits came from, as an error: the first damaged tensor of the checkpoint.
pub(crate) fn not_finite(dir: &Path) -> anyhow::Error {
    let Ok(checkpoint) = open(dir) else {
        return anyhow!(
            "the model gave logits that are not finite, and the checkpoint can no longer be opened"
        );
    };
    match checkpoint.check_values() {
        Err(damage) => anyhow!(damage).context("the model gave logits that are not finite"),
        Ok(()) => anyhow!(
            "the model gave logits that are not finite although every weight is; \
             try `--path exact`, and check the config against the publisher's"
        ),
    }
}
