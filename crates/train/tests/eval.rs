//! The evaluation, held to models whose skill is known: the expert itself, one that errs once, one that gives up.
#![allow(clippy::unwrap_used)]

use futures_util::stream;
use perilune_agent::context::{Bytes, Profile};
use perilune_chat::message::{Arguments, Message, Request};
use perilune_chat::model::{ChatModel, Event, EventStream};
use perilune_chat::scanner::{Closing, Delta, Finish};
use perilune_chat::tokenizer::Tokenizer;
use perilune_train::data::Family;
use perilune_train::data::families::{Ask, episode};
use perilune_train::data::forms::Split;
use perilune_train::data::rng::Rng;
use perilune_train::data::sample::{self, Noise};
use perilune_train::data::session::{Counter, SharedCounter};
use perilune_train::eval::closed_loop::{Question, Report, evaluate};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

const SEED: u64 = 9;

/// One turn of a script.
#[derive(Clone)]
struct Line {
    reasoning: String,
    content: String,
    call: Option<(String, String)>,
}

/// Answers from a script, found by the task and the number of calls so far.
struct Script {
    lines: HashMap<(String, u64), Line>,
    /// Changes the last digit in the arguments of this call.
    errs_at: Option<u64>,
    /// Answers without a call from this one on.
    gives_up_at: Option<u64>,
}

fn counter() -> SharedCounter {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/tokenizer");
    Arc::new(Counter::new(Arc::new(Tokenizer::from_dir(&folder).unwrap())))
}

/// Calls that a conversation has seen, those folded included.
fn n_calls_of(task: &str, messages: &[Message]) -> u64 {
    let folded = task
        .split_once("(calls 1 to ")
        .map_or(0, |(_, rest)| rest.split(' ').next().unwrap().parse::<u64>().unwrap());
    let shown = messages.iter().filter(|message| matches!(message, Message::ToolResult(_))).count();
    folded + shown as u64
}

/// What the expert writes in the worlds that the evaluation will ask for.
fn script(question: Question) -> HashMap<(String, u64), Line> {
    let mut lines = HashMap::new();
    let counter = counter();
    for split in [Split::Train, Split::HeldOut] {
        for index in 0..10.max(question.n_episodes as u64) {
            let mut episode = question.episode(split, index);
            let sentence = episode.sentence.clone();
            let take = &mut |stretch: sample::Stretch| {
                let messages = stretch.conversation.messages();
                let Message::User { text: task, .. } = &messages[1] else { panic!("the task comes second") };
                for at in 0..messages.len() {
                    if let Message::Assistant(turn) = &messages[at] {
                        let call = turn.tool_calls.first().map(|call| match &call.arguments {
                            Arguments::Text(text) => (call.name.clone(), text.clone()),
                            Arguments::Object(_) => unreachable!("the expert writes text"),
                        });
                        let line =
                            Line { reasoning: turn.reasoning.clone(), content: turn.content.clone(), call };
                        lines.insert((sentence.clone(), n_calls_of(task, &messages[..at])), line);
                    }
                }
            };
            let agent = Profile::embedded();
            sample::play(&mut episode, &agent, &counter, Noise::NONE, &mut Rng::at(0, 0), take).unwrap();
        }
    }
    lines
}

impl ChatModel for Script {
    fn name(&self) -> &str {
        "script"
    }

    fn answer(&self, request: Request) -> EventStream {
        let messages = request.conversation.messages();
        let Message::User { text: task, .. } = &messages[1] else { panic!("the task comes second") };
        let at = n_calls_of(task, messages);
        let sentence = task.split("\n\n(calls ").next().unwrap();
        let line = self.lines[&(sentence.to_owned(), at)].clone();
        let mut events = vec![Delta::Reasoning(line.reasoning), Delta::Content(line.content)];
        if let Some((name, mut arguments)) =
            line.call.filter(|_| self.gives_up_at.is_none_or(|last| at < last))
        {
            if self.errs_at == Some(at) {
                let place = arguments.rfind(|c: char| c.is_ascii_digit()).unwrap();
                let other = if arguments[place..].starts_with('3') { "4" } else { "3" };
                arguments.replace_range(place..=place, other);
            }
            let id = format!("functions.{name}:{}", request.conversation.n_calls());
            events.push(Delta::ToolCallBegin { index: 0, id, name });
            events.push(Delta::ToolCallArguments { index: 0, text: arguments });
            events.push(Delta::ToolCallEnd { index: 0, closing: Closing::Marker });
        }
        let end = Event::Finish { finish: Finish::Stop, left_open: None };
        let events = events.into_iter().map(Event::Delta).chain([end]).map(Ok).collect::<Vec<_>>();
        Box::pin(stream::iter(events))
    }
}

fn run(question: Question, errs_at: Option<u64>, gives_up_at: Option<u64>) -> Report {
    let model = Script { lines: script(question), errs_at, gives_up_at };
    let mut heard = 0;
    let watch = &mut |n_over: usize, n_all: usize| heard = n_over.max(n_all);
    let report = futures_executor(evaluate(&model, question, &counter(), watch));
    assert_eq!(heard as u64, report.known.episodes + report.held_out.episodes);
    report
}

/// Polls a future that never waits.
fn futures_executor<F: Future<Output = Result<Report, perilune_train::eval::closed_loop::EvalError>>>(
    future: F,
) -> Report {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(report) = future.as_mut().poll(&mut context) {
            return report.unwrap();
        }
    }
}

fn question(family: Family, n_calls: Option<usize>) -> Question {
    Question { family, n_episodes: 12, n_calls, seed: SEED }
}

#[test]
fn the_expert_itself_is_exact_everywhere() {
    for family in Family::ALL {
        let report = run(question(family, None), None, None);
        for tally in [&report.known, &report.held_out] {
            assert!(tally.episodes >= 10);
            assert_eq!(tally.solved, tally.episodes, "{}: {:?}", family.name(), tally.failures);
            assert_eq!(tally.exact_calls, tally.calls, "{}", family.name());
            assert_eq!(tally.exactness_by_call[0].calls, tally.episodes);
            assert_eq!(tally.exactness_by_call.iter().map(|at| at.calls).sum::<u64>(), tally.calls);
        }
    }
}

#[test]
fn a_long_trail_is_played_to_its_end() {
    let report = run(Question { n_episodes: 2, ..question(Family::Trail, Some(300)) }, None, None);
    assert_eq!((report.known.solved, report.known.exactness_by_call.len()), (2, 301));
}

#[test]
fn one_wrong_digit_fails_a_sum() {
    let report = run(question(Family::Sum, Some(3)), Some(4), None);
    assert_eq!(report.known.solved, 0, "a wrong digit went unseen");
    let at = |index: usize| report.known.exactness_by_call[index];
    assert_eq!(at(3).exact_calls, at(3).calls);
    assert_eq!(at(4).exact_calls, 0);
    assert_eq!(report.known.failures.len(), 10);
}

#[test]
fn who_gives_up_has_solved_nothing() {
    let report = run(question(Family::Trail, Some(5)), None, Some(3));
    assert_eq!(report.known.solved, 0);
    assert_eq!((report.known.calls, report.known.exact_calls), (48, 36));
}

#[test]
fn counting_by_bytes_serves_models_without_a_tokenizer() {
    let counter: SharedCounter = Arc::new(Bytes);
    let mut episode =
        episode(Ask { family: Family::Trail, split: Split::Train, n_calls: Some(3), pieces: None }, 1, 1);
    let agent = Profile::embedded();
    let played =
        sample::play(&mut episode, &agent, &counter, Noise::NONE, &mut Rng::at(0, 0), &mut |_| {}).unwrap();
    assert_eq!(episode.goal.judge(played.files_before(), &played.files().unwrap()), Ok(()));
}
