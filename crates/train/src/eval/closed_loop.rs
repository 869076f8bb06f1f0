//! A model in the expert's place: each call is made for real, and the files judge the end.

use crate::data::Family;
use crate::data::episode::Episode;
use crate::data::families::{Ask, episode};
use crate::data::forms::Split;
use crate::data::sample::Guide;
use crate::data::session::{Session, SessionError, SharedCounter, Wanted};
use crate::data::steps::Call;
use futures_util::{StreamExt, stream};
use perilune_agent::context::{Profile, View};
use perilune_chat::message::Request;
use perilune_chat::model::{ChatModel, Event, ModelError};
use perilune_chat::scanner::Reply;
use serde::Serialize;
use serde_json::{Map, Value};

/// Episodes under way at the same time.
const N_AT_ONCE: usize = 8;
/// Calls in a row that the expert would not make, after which an episode is given up.
const N_ASTRAY_MAX: usize = 12;
/// Calls of an episode at most: so many, and twice as many as are asked for.
const N_CALLS_SPARE: usize = 100;
/// Set in the seed, so that no seed of training gives the same worlds.
const EVALUATION: u64 = 0x6576_616c << 32;
/// One held-out sentence is asked for so many of known form.
const HELD_OUT_SHARE: usize = 5;
/// Episodes with held-out sentences at least.
const N_HELD_OUT_MIN: usize = 10;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The skill.
    pub family: Family,
    /// Episodes with sentences of forms that training sees; a fifth as many, at least ten, have others.
    pub n_episodes: usize,
    /// Numbers to add, files of the trail; other families have their own length. `None` draws it.
    pub n_calls: Option<usize>,
    /// Seed of the worlds.
    pub seed: u64,
}

impl Question {
    /// The world of an index, from 0: none that training sees.
    #[must_use]
    pub fn episode(&self, split: Split, index: u64) -> Episode {
        let ask = Ask { family: self.family, split, n_calls: self.n_calls, pieces: None };
        episode(ask, self.seed ^ EVALUATION, index)
    }
}

/// What an evaluation came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Sentences of forms that training sees.
    #[serde(flatten)]
    pub known: Tally,
    /// Sentences of forms that it never sees.
    pub held_out: Tally,
}

/// Counts over episodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Episodes played.
    pub episodes: u64,
    /// Of these, left with the right files.
    pub solved: u64,
    /// Calls made, and calls that were due and not made.
    pub calls: u64,
    /// Of these, as the expert would have made them in the same place.
    pub exact_calls: u64,
    /// Both counts for the first call of an episode, the second, and so on.
    pub exactness_by_call: Vec<AtIndex>,
    /// Why episodes were not solved and their first call that the expert would not have made, a line each; of the first
    /// ten alone.
    pub failures: Vec<String>,
}

/// Counts at one place of the episodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct AtIndex {
    /// Calls made or due at this place.
    pub calls: u64,
    /// Of these, as the expert would have made them.
    pub exact_calls: u64,
}

/// Failures that a tally keeps in words.
const N_FAILURES_MAX: usize = 10;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The world cannot be played here.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The world cannot be read.
    #[error("the episode's files cannot be read: {0}")]
    Files(#[from] std::io::Error),
    /// The model does not answer.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl Tally {
    fn call(&mut self, index: usize, is_exact: bool) {
        self.calls += 1;
        self.exact_calls += u64::from(is_exact);
        if self.exactness_by_call.len() <= index {
            self.exactness_by_call.resize(index + 1, AtIndex::default());
        }
        self.exactness_by_call[index].calls += 1;
        self.exactness_by_call[index].exact_calls += u64::from(is_exact);
    }

    fn add(&mut self, other: Self) {
        self.episodes += other.episodes;
        self.solved += other.solved;
        self.calls += other.calls;
        self.exact_calls += other.exact_calls;
        let n = self.exactness_by_call.len().max(other.exactness_by_call.len());
        self.exactness_by_call.resize(n, AtIndex::default());
        for (sum, more) in self.exactness_by_call.iter_mut().zip(other.exactness_by_call) {
            sum.calls += more.calls;
            sum.exact_calls += more.exact_calls;
        }
        let n_free = N_FAILURES_MAX - self.failures.len();
        self.failures.extend(other.failures.into_iter().take(n_free));
    }
}

/// Puts a model into the expert's place, at temperature 0 and one call a turn. `watch` hears of every episode that is
/// over: how many, of how many.
///
/// # Errors
/// [`EvalError`]: the model does not answer, or worlds cannot be laid out here.
pub async fn evaluate(
    model: &dyn ChatModel,
    question: Question,
    counter: &SharedCounter,
    watch: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<Report, EvalError> {
    let n_held_out = (question.n_episodes / HELD_OUT_SHARE).max(N_HELD_OUT_MIN);
    let known = (0..question.n_episodes as u64).map(|index| (Split::Train, index));
    let held_out = (0..n_held_out as u64).map(|index| (Split::HeldOut, index));
    let agent = Profile::embedded();
    let agent = &agent;
    let play = |(split, index)| async move {
        let episode = question.episode(split, index);
        let n_calls_max = N_CALLS_SPARE + 2 * question.n_calls.unwrap_or_default();
        attempt(model, episode, agent, counter, n_calls_max).await.map(|tally| (split, tally))
    };
    let mut tallies = stream::iter(known.chain(held_out)).map(play).buffered(N_AT_ONCE);
    let mut report = Report::default();
    let (mut n_over, n_all) = (0, question.n_episodes + n_held_out);
    while let Some(played) = tallies.next().await {
        let (split, tally) = played?;
        match split {
            Split::Train => report.known.add(tally),
            Split::HeldOut => report.held_out.add(tally),
        }
        n_over += 1;
        watch(n_over, n_all);
    }
    Ok(report)
}

async fn attempt(
    model: &dyn ChatModel,
    mut episode: Episode,
    agent: &Profile,
    counter: &SharedCounter,
    n_calls_max: usize,
) -> Result<Tally, EvalError> {
    let mut session = Session::open(&episode, agent, counter)?;
    let (mut guide, mut tally) = (Guide::default(), Tally { episodes: 1, ..Tally::default() });
    let (mut n_calls, mut n_astray, mut first_astray) = (0, 0, None);
    while n_calls < n_calls_max && n_astray < N_ASTRAY_MAX {
        let view = session.view()?;
        let due = guide.next(&mut episode, view.conversation.messages()).call;
        let reply = ask(model, view, agent).await?;
        if reply.tool_calls.is_empty() {
            if due.is_some() {
                tally.call(n_calls, false);
            }
            break;
        }
        let calls: Vec<Wanted> = reply
            .tool_calls
            .into_iter()
            .map(|call| Wanted { name: call.name, arguments: call.arguments })
            .collect();
        let is_exact =
            calls.len() == 1 && due.as_ref().is_some_and(|due| is_same(&calls[0], &episode.tools.worn(due)));
        for idx in 0..calls.len() {
            tally.call(n_calls + idx, is_exact);
        }
        n_calls += calls.len();
        if !is_exact {
            first_astray.get_or_insert_with(|| astray(n_calls, &calls[0], due.as_ref()));
        }
        n_astray = if is_exact { 0 } else { n_astray + 1 };
        let done = session.act(&reply.reasoning, &reply.content, &calls);
        if let Some(due) = due.filter(|_| is_exact) {
            guide.settle(&mut episode, &due, done[0]);
        }
    }
    match episode.goal.judge(session.files_before(), &session.files()?) {
        Ok(()) => tally.solved = 1,
        Err(reason) => {
            let astray = first_astray.map_or_else(String::new, |astray| format!("; {astray}"));
            tally.failures.push(format!("{} -> {reason}{astray}", episode.sentence));
        }
    }
    Ok(tally)
}

/// The first call that the expert would not have made, and what it would have.
fn astray(number: usize, made: &Wanted, due: Option<&Call>) -> String {
    let due = due.map_or_else(
        || "an answer".to_owned(),
        |due| format!("{} {}", due.tool, Value::Object(due.arguments.clone())),
    );
    format!("call {number} was {} {}, not {due}", made.name, made.arguments)
}

/// Greedy, one call at a time.
async fn ask(model: &dyn ChatModel, view: View, agent: &Profile) -> Result<Reply, ModelError> {
    let mut request = Request::new(view.conversation);
    request.sampling.temperature = Some(0.0);
    request.max_tokens = Some(agent.policy.reply_tokens_max as u64);
    request.single_tool_call = true;
    let mut events = model.answer(request);
    let mut reply = Reply::default();
    while let Some(event) = events.next().await {
        if let Event::Delta(delta) = event? {
            reply.add(delta);
        }
    }
    Ok(reply)
}

fn is_same(made: &Wanted, due: &Call) -> bool {
    let arguments = serde_json::from_str::<Map<String, Value>>(&made.arguments);
    made.name == due.tool && arguments.is_ok_and(|arguments| arguments == due.arguments)
}
