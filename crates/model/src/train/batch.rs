//! What a pass takes and gives.

/// How a pass sees the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quant {
    /// As they are, `f32`.
    #[default]
    Off,
    /// As the exported file will hold them: routed experts as INT4 codes times scales, every other tensor rounded to
    /// BF16 but the selection bias; gradients pass straight through the rounding.
    Int4Experts,
}

/// Settings of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Options {
    /// How the weights are seen.
    pub quant: Quant,
    /// Factor of the sequence-wise balance loss (DeepSeek-V3 report, section 2.1.2); 0 leaves it out.
    pub seq_aux_alpha: f32,
}

/// Sequences packed one after the other; a token sees its own sequence only, and positions start at 0 in each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Token ids `[T]`.
    pub ids: Vec<u32>,
    /// Tokens of each sequence; their sum is T.
    pub lengths: Vec<usize>,
    /// The id each token should predict `[T]`.
    pub targets: Vec<u32>,
    /// Factor of each token's loss `[T]`; 0 leaves the token out.
    pub weights: Vec<f32>,
}

/// What a pass measured. Sums, so that the micro-batches of a step can be put together by [`Stats::merge`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Sum over tokens of weight times `-ln p(target)`, in nats.
    pub loss_sum: f64,
    /// Sum of the weights.
    pub weight_sum: f64,
    /// Tokens that chose each expert, `[L][E]` with L layers; empty for dense layers.
    pub expert_load: Vec<Vec<u64>>,
    /// Largest attention logit of each head, `[L][H]`: over the pairs of tokens that see each other, after the
    /// softmax scale.
    pub max_logit: Vec<Vec<f32>>,
    /// Tokens of weight other than 0 whose largest logit is the target's.
    pub n_correct: u64,
    /// Tokens of weight other than 0.
    pub n_weighted: u64,
    /// Sum over sequences and MoE layers of the sequence's weight times its balance loss, without its factor.
    pub seq_aux: f64,
}

impl Stats {
    /// Take in another pass's measures, of the same config: sums are added, of largest logits the larger is kept.
    pub fn merge(&mut self, other: &Stats) {
        self.loss_sum += other.loss_sum;
        self.weight_sum += other.weight_sum;
        self.n_correct += other.n_correct;
        self.n_weighted += other.n_weighted;
        self.seq_aux += other.seq_aux;
        if self.max_logit.is_empty() {
            self.max_logit.clone_from(&other.max_logit);
            self.expert_load.clone_from(&other.expert_load);
            return;
        }
        let loads = self.expert_load.iter_mut().flatten().zip(other.expert_load.iter().flatten());
        loads.for_each(|(mine, other)| *mine += other);
        let logits = self.max_logit.iter_mut().flatten().zip(other.max_logit.iter().flatten());
        logits.for_each(|(mine, other)| *mine = mine.max(*other));
    }
}

/// Experts chosen in every layer: `[L]` times [T, K] indices, ascending in each row; empty for dense layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// One list a layer.
    pub layers: Vec<Vec<u32>>,
}

/// What a forward pass alone gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// `ln p(target)` of every token `[T]`, weighted or not.
    pub log_probs: Vec<f32>,
    /// Id of every token's largest logit `[T]`, ties to the lower.
    pub argmax: Vec<u32>,
    /// The experts chosen.
    pub routing: Routing,
    /// The pass's measures.
    pub stats: Stats,
}

/// Why a pass cannot run. Nothing was changed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TrainError {
    /// A token id or target the model has no row for.
    #[error(
        "token id {id} at place {place} of the batch is outside the vocabulary of {vocab_size}; tokenize with this model's rank file"
    )]
    OutsideVocabulary {
        /// The id.
        id: u32,
        /// Its place in the batch.
        place: usize,
        /// V.
        vocab_size: usize,
    },
    /// Lists of different lengths, or none.
    #[error(
        "a batch needs as many targets and weights as ids, and sequence lengths that add up to them, none of them 0: {n_ids} ids, {n_targets} targets, {n_weights} weights, lengths that add up to {n_in_sequences}"
    )]
    Lengths {
        /// Ids.
        n_ids: usize,
        /// Targets.
        n_targets: usize,
        /// Weights.
        n_weights: usize,
        /// Sum of the lengths.
        n_in_sequences: usize,
    },
    /// A sequence longer than the model's positions.
    #[error(
        "a sequence of {length} tokens is longer than this model's {limit} positions (max_position_embeddings)"
    )]
    BeyondModel {
        /// Its tokens.
        length: usize,
        /// `max_position_embeddings`.
        limit: usize,
    },
    /// A width that INT4 cannot group.
    #[error(
        "{name} = {width} is not a multiple of 32, which INT4 needs; train without quantisation or change the width"
    )]
    WidthNotGrouped {
        /// Config key.
        name: &'static str,
        /// Its value.
        width: usize,
    },
    /// Weights of another shape.
    #[error(
        "the weights hold {found} values and this config's model has {expected}; use the checkpoint's own config"
    )]
    OtherConfig {
        /// Values of the weights.
        found: usize,
        /// Values of the model.
        expected: usize,
    },
    /// A config that training does not serve.
    #[error("training does not serve n_group = {n_group}: set it to 1")]
    Grouped {
        /// `n_group`.
        n_group: usize,
    },
}
