//! From an episode to training sequences: one for each stretch in which the context only grew.
//!
//! What the expert wrote in such a stretch it wrote in sight of everything before it in the sequence. So each
//! sequence is the last view of its stretch with the expert's last turn, and only turns that were written in it
//! carry weight: thinking, answer, call and the closing marks, as the model will have to write them.

use super::episode::Episode;
use super::rng::Rng;
use super::session::{Counter, Session, SessionError, SharedCounter, Wanted};
use super::steps::{Call, Step};
use perilune_agent::context::Profile;
use perilune_chat::message::{Arguments, Assistant, Conversation, Message, Thinking, ToolCall};
use perilune_chat::template::{Rendered, Segment, Special, Template};
use perilune_chat::tokenizer::Tokenizer;
use std::ops::Range;
use std::sync::Arc;

/// More turns than any expert needs: an expert that goes in circles is a bug.
const N_TURNS_MAX: usize = 2_000;

/// How often things go wrong on the way, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noise {
    /// Of a hundred turns, those before which a wrong call is made; it carries no weight, and the right one follows.
    pub wrong_call_percent: usize,
}

impl Noise {
    /// Nothing goes wrong but what the episode itself brings.
    pub const NONE: Self = Self { wrong_call_percent: 0 };
}

/// A training sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Token ids `[T]`.
    pub ids: Vec<u32>,
    /// The assistant turns that carry weight, as ranges of `ids`; each begins with its thinking and ends with its
    /// end-of-message token.
    pub turns: Vec<Range<usize>>,
}

/// The samples of one episode, in order; at least one.
///
/// # Errors
/// [`SessionError`]: the world cannot be played here.
pub fn samples(
    episode: &mut Episode,
    agent: &Profile,
    counter: &Arc<Counter>,
    noise: Noise,
    rng: &mut Rng,
) -> Result<Vec<Sample>, SessionError> {
    let mut samples = Vec::new();
    let shared: SharedCounter = counter.clone();
    play(episode, agent, &shared, noise, rng, &mut |stretch| {
        samples.push(encode(&stretch, counter.tokenizer()));
    })?;
    Ok(samples)
}

/// A stretch: the whole dialogue in sight at its end.
pub struct Stretch {
    /// The dialogue, the last turn included.
    pub conversation: Conversation,
    /// For each assistant message in order, whether it carries weight.
    pub has_weight: Vec<bool>,
}

/// Plays an episode with its expert; `take` gets each stretch. Returns the world as it was left.
///
/// # Errors
/// [`SessionError`]: the world cannot be played here.
pub fn play(
    episode: &mut Episode,
    agent: &Profile,
    counter: &SharedCounter,
    noise: Noise,
    rng: &mut Rng,
    take: &mut dyn FnMut(Stretch),
) -> Result<Session, SessionError> {
    let mut session = Session::open(episode, agent, counter)?;
    let mut guide = Guide::default();
    let mut is_right: Vec<bool> = Vec::new();
    let mut open: Option<Stretch> = None;
    for _ in 0..N_TURNS_MAX {
        let view = session.view()?;
        if view.is_new_stretch {
            open.take().into_iter().for_each(&mut *take);
        }
        let right = guide.next(episode, view.conversation.messages());
        let wrong = right
            .call
            .as_ref()
            .filter(|_| rng.percent(noise.wrong_call_percent))
            .and_then(|call| spoil(call, rng));
        let is_wrong = wrong.is_some();
        let step = Step { call: wrong.or_else(|| right.call.clone()), ..right };
        let worn = step.call.as_ref().map(|call| episode.tools.worn(call));
        is_right.push(!is_wrong);
        open = Some(stretch(&view.conversation, &step, worn.as_ref(), &session, &is_right));
        let Some(worn) = worn else { break };
        let done = session.act(&step.thought, "", &[wanted(&worn)]);
        let call = step.call.as_ref().expect("a call in other words is a call");
        guide.settle(episode, call, done[0]);
    }
    open.into_iter().for_each(take);
    Ok(session)
}

/// The expert, and what it has to know of the last call.
#[derive(Default)]
pub struct Guide {
    failed: Option<Call>,
}

impl Guide {
    /// What comes next; a call that failed and is made again says so.
    pub fn next(&mut self, episode: &mut Episode, visible: &[Message]) -> Step {
        let step = episode.expert.next(visible);
        if self.failed.is_some() && self.failed == step.call {
            return Step { thought: format!("again {}", step.thought), ..step };
        }
        step
    }

    /// Learns what was called, and whether the tool did it.
    pub fn settle(&mut self, episode: &mut Episode, call: &Call, is_done: bool) {
        self.failed = Some(call.clone()).filter(|_| !is_done);
        episode.expert.settle(call, is_done);
    }
}

/// A call with its arguments as JSON text.
#[must_use]
pub fn wanted(call: &Call) -> Wanted {
    let arguments = serde_json::to_string(&call.arguments).expect("a map of strings and numbers is JSON");
    Wanted { name: call.tool.clone(), arguments }
}

fn stretch(
    conversation: &Conversation,
    step: &Step,
    worn: Option<&Call>,
    session: &Session,
    is_right: &[bool],
) -> Stretch {
    let calls = worn.map(wanted).map(|call| ToolCall {
        id: "next".to_owned(),
        name: call.name,
        arguments: Arguments::Text(call.arguments),
    });
    let last = Assistant {
        name: None,
        reasoning: step.thought.clone(),
        content: step.answer.clone(),
        tool_calls: calls.into_iter().collect(),
    };
    let mut messages = conversation.messages().to_vec();
    messages.push(Message::Assistant(last));
    let conversation = Conversation::new(messages, conversation.tools().to_vec())
        .expect("a dialogue stays legal with one more turn of the assistant");
    let first = session.n_turns_folded();
    let has_weight = (first..is_right.len()).map(|turn| turn >= session.n_turns_before() && is_right[turn]);
    Stretch { conversation, has_weight: has_weight.collect() }
}

/// The call with a slip that a tool will notice; `None` where a slip could do harm.
fn spoil(call: &Call, rng: &mut Rng) -> Option<Call> {
    let mut wrong = call.clone();
    let place = match call.tool.as_str() {
        "read_file" => "path",
        "edit_file" => "old",
        "calculate" => {
            let expression = call.arguments["expression"].as_str()?;
            wrong.arguments.insert("expression".to_owned(), format!("{expression}+").into());
            return Some(wrong);
        }
        _ => return None,
    };
    let right = call.arguments[place].as_str()?;
    wrong.arguments.insert(place.to_owned(), slip(right, rng)?.into());
    Some(wrong)
}

/// One letter or digit left out, doubled, or it and what follows it in other letters; never a part of the text itself,
/// which might do as well.
fn slip(text: &str, rng: &mut Rng) -> Option<String> {
    let letters: Vec<usize> =
        text.char_indices().filter(|(_, c)| c.is_ascii_alphanumeric()).map(|(at, _)| at).collect();
    if letters.len() < 2 {
        return None;
    }
    let at = *rng.pick(&letters);
    let mut slipped = text.to_owned();
    let letter = slipped.remove(at);
    match rng.below(3) {
        0 => {}
        1 => slipped.insert_str(at, &format!("{letter}{letter}")),
        _ => {
            slipped.truncate(at);
            let others: String = (0..2).map(|_| (b'a' + rng.below(26) as u8) as char).collect();
            slipped += &others;
            slipped += text.get(at + 2..).unwrap_or_default();
        }
    }
    (!text.contains(&slipped)).then_some(slipped)
}

/// A stretch as token ids.
#[must_use]
pub fn encode(stretch: &Stretch, tokenizer: &Tokenizer) -> Sample {
    let template = Template { generation_prompt: false, ..Template::default() };
    // An answer without calls would hide the thinking before it; while it is written, that thinking is in sight.
    let thinking = Thinking { preserve: true, ..Thinking::default() };
    let rendered = template.render(&stretch.conversation, thinking);
    let (ids, turns) = ids_and_turns(&rendered, tokenizer);
    let weighty = turns.into_iter().zip(&stretch.has_weight).filter(|(_, has_weight)| **has_weight);
    Sample { ids, turns: weighty.map(|(turn, _)| turn).collect() }
}

/// Token ids, and for each assistant message the range that the model wrote.
fn ids_and_turns(rendered: &Rendered, tokenizer: &Tokenizer) -> (Vec<u32>, Vec<Range<usize>>) {
    let mut ids: Vec<u32> = Vec::new();
    let mut turns = Vec::new();
    let (mut is_assistant, mut start) = (false, None);
    for segment in rendered.segments() {
        match segment {
            Segment::Text(text) => ids.extend(tokenizer.encode_ordinary(text)),
            Segment::Special(special) => {
                ids.push(special.id(tokenizer.markers()));
                match special {
                    Special::ImAssistant => is_assistant = true,
                    Special::ImMiddle if is_assistant => start = Some(ids.len()),
                    Special::ImEnd => {
                        turns.extend(start.take().map(|start| start..ids.len()));
                        is_assistant = false;
                    }
                    _ => {}
                }
            }
        }
    }
    (ids, turns)
}

/// The texts of a stretch between special tokens, for training a vocabulary.
#[must_use]
pub fn texts(stretch: &Stretch) -> Vec<String> {
    let template = Template { generation_prompt: false, ..Template::default() };
    let thinking = Thinking { preserve: true, ..Thinking::default() };
    let rendered = template.render(&stretch.conversation, thinking);
    let text = |segment: &Segment| match segment {
        Segment::Text(text) => Some(text.clone()),
        Segment::Special(_) => None,
    };
    rendered.segments().iter().filter_map(text).collect()
}
