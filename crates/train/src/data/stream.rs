//! The endless stream of sequences that a stage learns from: a pure function of stage, seed and index.

use super::Family;
use super::families::{self, Ask};
use super::forms::Split;
use super::pretrain;
use super::rng::Rng;
use super::sample::{self, Noise};
use super::session::{Counter, SessionError};
use crate::feed::Sequence;
use perilune_agent::context::Profile;
use perilune_chat::tokenizer::Tokenizer;
use std::sync::Arc;

/// What a stage learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Text whose every answer stands in sight; every token counts.
    Text,
    /// Rendered episodes from the user's sentence on, without the instructions and tools before it, which are the
    /// same in all (but where tools are renamed); many short, and every token counts.
    Episodes,
    /// Whole rendered episodes; only what the expert wrote in sight of all before it counts.
    Turns,
    /// As [`Stage::Turns`], half of them from the sentence on, and sums and trails cut short half of the time: a task's
    /// names are looked up once or twice in an episode, however long it is.
    ShortTurns,
}

/// Families by how often an episode is drawn from them, in percent.
const MIX: [(Family, usize); 6] = [
    (Family::Sum, 24),
    (Family::Trail, 10),
    (Family::Compare, 13),
    (Family::Edit, 19),
    (Family::Choose, 26),
    (Family::Recover, 8),
];
/// Kinds of task that are learned before the others of their family, and how many in a hundred of them are drawn again.
const LEARNED: [(Family, &str, usize); 5] = [
    (Family::Sum, "list", 60),
    (Family::Sum, "product", 30),
    (Family::Choose, "copy", 50),
    (Family::Choose, "calculate", 50),
    (Family::Choose, "search", 50),
];
/// Separates worlds that are drawn again from the first.
const AGAIN: u64 = 0x6167_6169_6e00;
/// Of a hundred sequences of [`Stage::Episodes`], those that are text of [`Stage::Text`], so that copying is not lost.
const TEXT_PERCENT: usize = 15;
/// Of a hundred pieces of text, those of random tokens, so that no token is too rare to be copied.
const RANDOM_PERCENT: usize = 12;
/// Of a hundred turns, those before which a wrong call is made.
const WRONG_CALL_PERCENT: usize = 4;
/// Separates the streams of stages, and those of measuring, under one seed.
const STREAMS: [u64; 4] = [0x7465_7874, 0x6570_6973, 0x7475_726e, 0x7368_6f72];
/// Fewest and most calls of an episode that is cut short.
const SHORT_CALLS: [usize; 2] = [2, 5];
/// Separates the worlds of a stream from what else is drawn for its sequences.
const WORLDS: u64 = 0x776f_726c_6473;
/// Set in the seed of a stream that training never sees.
const HELD_OUT: u64 = 1 << 63;

/// A stage's stream.
pub struct Stream {
    stage: Stage,
    seed: u64,
    n_ids_max: usize,
    profile: Profile,
    counter: Arc<Counter>,
    /// The tokenizer's pieces that may stand in a name.
    pieces: Vec<String>,
}

impl Stream {
    /// The stream of a stage under a seed, in sequences of at most `n_ids_max` ids; apart from training where it is
    /// held out.
    #[must_use]
    pub fn new(
        stage: Stage,
        seed: u64,
        is_held_out: bool,
        n_ids_max: usize,
        tokenizer: Arc<Tokenizer>,
    ) -> Self {
        let held_out = if is_held_out { HELD_OUT } else { 0 };
        let pieces =
            (0..tokenizer.n_ranks() as u32).filter_map(|id| piece(tokenizer.token_bytes(id)?)).collect();
        Self {
            stage,
            pieces,
            seed: seed ^ STREAMS[stage as usize] ^ held_out,
            n_ids_max,
            profile: Profile::embedded(),
            counter: Arc::new(Counter::new(tokenizer)),
        }
    }

    /// Sequence `index`, the same at every call.
    ///
    /// # Errors
    /// [`SessionError`]: an episode cannot be played here.
    pub fn draw(&self, index: u64) -> Result<Sequence, SessionError> {
        let mut rng = Rng::at(self.seed, index);
        let is_text = match self.stage {
            Stage::Text => true,
            Stage::Episodes => rng.percent(TEXT_PERCENT),
            Stage::Turns | Stage::ShortTurns => false,
        };
        if is_text { Ok(self.text(&mut rng)) } else { self.episode(index, &mut rng) }
    }

    fn text(&self, rng: &mut Rng) -> Sequence {
        let tokenizer = self.counter.tokenizer();
        let mut ids = Vec::new();
        while ids.len() < self.n_ids_max {
            ids.push(tokenizer.markers().eos);
            if rng.percent(RANDOM_PERCENT) {
                ids.extend(pretrain::random_copies(tokenizer.n_ranks(), rng));
            } else {
                ids.extend(tokenizer.encode_ordinary(&pretrain::text(rng)));
            }
        }
        ids.truncate(self.n_ids_max);
        Sequence { loss_weights: vec![1.0; ids.len()], ids }
    }

    /// One stretch of one episode. Of a longer one than fits, the end: there the turns are.
    fn episode(&self, index: u64, rng: &mut Rng) -> Result<Sequence, SessionError> {
        let family = family(rng);
        let has_short = matches!(self.stage, Stage::Episodes | Stage::ShortTurns);
        let n_calls = (has_short && rng.one_in(2)).then(|| rng.within(SHORT_CALLS[0], SHORT_CALLS[1]));
        let is_bare = match self.stage {
            _ if family == Family::Choose => false,
            Stage::Episodes | Stage::Text => true,
            Stage::ShortTurns => rng.one_in(2),
            Stage::Turns => false,
        };
        let ask = Ask { family, split: Split::Train, n_calls, pieces: Some(&self.pieces) };
        // A seed of its own: the number that drew the family must not draw its kind of task as well.
        let seed = self.seed ^ WORLDS;
        let mut episode = families::episode(ask, seed, index);
        let learned = LEARNED.iter().find(|(of, kind, _)| (*of, *kind) == (family, episode.kind));
        if learned.is_some_and(|(_, _, percent)| rng.percent(*percent)) {
            episode = families::episode(ask, seed ^ AGAIN, index);
        }
        let noise = Noise { wrong_call_percent: WRONG_CALL_PERCENT };
        let mut samples = sample::samples(&mut episode, &self.profile, &self.counter, noise, rng)?;
        let sample = samples.swap_remove(rng.below(samples.len()));
        let mut loss_weights = vec![0.0; sample.ids.len()];
        match self.stage {
            Stage::Turns | Stage::ShortTurns => {
                sample.turns.iter().for_each(|turn| loss_weights[turn.clone()].fill(1.0))
            }
            Stage::Episodes | Stage::Text => loss_weights.fill(1.0),
        }
        let user = self.counter.tokenizer().markers().im_user;
        let n_before = sample.ids.iter().position(|id| is_bare && *id == user).unwrap_or(0);
        let n_over = sample.ids.len().saturating_sub(self.n_ids_max).max(n_before);
        Ok(Sequence { ids: sample.ids[n_over..].to_vec(), loss_weights: loss_weights.split_off(n_over) })
    }
}

/// A token of small letters.
fn piece(bytes: &[u8]) -> Option<String> {
    let is_piece = bytes.len() > 1 && bytes.iter().all(u8::is_ascii_lowercase);
    is_piece.then(|| String::from_utf8_lossy(bytes).into_owned())
}

fn family(rng: &mut Rng) -> Family {
    let mut at = rng.below(100);
    for (family, percent) in MIX {
        if at < percent {
            return family;
        }
        at -= percent;
    }
    Family::Sum
}
