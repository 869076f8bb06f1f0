//! The engine on its thread: requests in, events out, cancel, drain, stop, and rest.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::{Fake, VOCAB, clock};
use perilune_engine::forward::{ForwardModel, Forwarded};
use perilune_engine::request::{
    Class, Delivery, Event, EventSink, Failure, Finish, Request, SubmitError, Usage,
};
use perilune_engine::sampler::Sampling;
use perilune_engine::{Engine, EngineThread, Settings};
use perilune_model::forward::Segment;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a pass for each permit it is sent.
struct Gated {
    fake: Fake,
    permits: Receiver<()>,
}

impl ForwardModel for Gated {
    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn n_positions_max(&self) -> usize {
        100_000
    }

    fn n_blocks(&self) -> usize {
        self.fake.n_blocks()
    }

    fn phases_differ(&self) -> bool {
        false
    }

    fn forward(&mut self, segments: &[Segment<'_>]) -> Result<Forwarded, String> {
        // Without a sender the model runs freely.
        let _ = self.permits.recv();
        assert!(segments.iter().all(|s| s.ids[0] != 50), "id 50 panics");
        if segments.iter().any(|s| s.ids[0] == 51) {
            return Err("id 51 fails".into());
        }
        self.fake.forward(segments)
    }
}

fn gated(settings: Settings) -> (EngineThread, Sender<()>) {
    let (permit, permits) = channel();
    let model = Gated { fake: Fake::new(40, false), permits };
    (EngineThread::start(Engine::new(model, settings, clock())).unwrap(), permit)
}

fn sink() -> (EventSink, Receiver<Event>) {
    let (sender, receiver) = channel();
    let tell = move |event| if sender.send(event).is_ok() { Delivery::Taken } else { Delivery::Gone };
    (Box::new(tell), receiver)
}

fn last(events: &Receiver<Event>) -> (Finish, Usage, usize) {
    let mut n_tokens = 0;
    loop {
        match events.recv_timeout(PATIENCE).unwrap() {
            Event::Finished { finish, usage } => return (finish, usage, n_tokens),
            Event::Token(_) => n_tokens += 1,
            Event::Started { .. } => {}
        }
    }
}

#[test]
fn requests_finish_and_the_engine_rests() {
    let engine = Engine::new(Fake::new(40, false), Settings::default(), clock());
    let thread = EngineThread::start(engine).unwrap();
    let handle = thread.handle();
    let mut all = Vec::new();
    for i in 0..20 {
        let (sink, events) = sink();
        handle.submit(Request::greedy(vec![i; 10], 5), sink).unwrap().detach();
        all.push(events);
    }
    for events in &all {
        assert_eq!(last(events), (Finish::Length, Usage { n_prompt: 10, n_cached: 0, n_generated: 5 }, 5));
    }
    let steps = || handle.stats().steps;
    // The count of a step is published after its events.
    while handle.stats().completed < 20 {
        std::thread::yield_now();
    }
    let before = steps();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(steps(), before, "no step without work");
    thread.drain();
    let stats = handle.stats();
    assert_eq!((stats.completed, stats.running, stats.waiting), (20, [0, 0], [0, 0]));
    let (sink, _events) = sink();
    assert_eq!(handle.submit(Request::greedy(vec![1], 1), sink).err(), Some(SubmitError::Stopping));
}

#[test]
fn a_dropped_ticket_and_a_gone_sink_stop_the_work_within_one_step() {
    let (thread, permit) = gated(Settings::default());
    let handle = thread.handle();
    let (first, first_events) = sink();
    let (second, second_events) = sink();
    let ticket = handle.submit(Request::greedy(vec![1; 10], 1_000), first).unwrap();
    handle.submit(Request::greedy(vec![2; 10], 1_000), second).unwrap().detach();
    (0..3).for_each(|_| permit.send(()).unwrap());
    while first_events.recv_timeout(PATIENCE).unwrap() == (Event::Started { n_cached: 0 }) {}
    drop(ticket);
    drop(second_events);
    (0..3).for_each(|_| permit.send(()).unwrap());
    assert_eq!(last(&first_events).0, Finish::Cancelled);
    drop(permit);
    thread.drain();
    let stats = handle.stats();
    assert_eq!((stats.cancelled, stats.blocks_used), (2, 0));
    assert!(stats.generated_tokens <= 12, "{} tokens for nobody", stats.generated_tokens);
}

#[test]
fn full_queues_and_impossible_requests_are_refused_at_once() {
    let settings = Settings { n_running_max: 1, n_waiting_max: [1, 2], ..Settings::default() };
    let (thread, permit) = gated(settings);
    let handle = thread.handle();
    let submit = |request: Request| {
        let (sink, events) = sink();
        handle.submit(request, sink).map(|ticket| {
            ticket.detach();
            events
        })
    };
    let running = submit(Request::greedy(vec![1], 3)).unwrap();
    assert_eq!(running.recv_timeout(PATIENCE).unwrap(), Event::Started { n_cached: 0 });
    let _a = submit(Request::greedy(vec![2], 3)).unwrap();
    let _b = submit(Request::greedy(vec![3], 3)).unwrap();
    let full = submit(Request::greedy(vec![4], 3)).err();
    assert_eq!(full, Some(SubmitError::QueueFull { queued: 2 }));
    let _c = submit(Request { class: Class::Latency, ..Request::greedy(vec![5], 3) }).unwrap();
    let refused = |request: Request| submit(request).err().unwrap().to_string();
    assert!(refused(Request::greedy(vec![], 3)).contains("the prompt is empty"));
    assert!(refused(Request::greedy(vec![1], 0)).contains("at least one"));
    assert!(refused(Request::greedy(vec![1, 67], 3)).contains("token id 67 is outside the vocabulary of 67"));
    assert!(refused(Request::greedy(vec![1; 2_000], 561)).contains("2561 tokens"));
    assert!(refused(Request::greedy(vec![1], usize::MAX)).contains("exceed the context of 2560"));
    let sampling = Sampling { temperature: f32::NAN, ..Sampling::default() };
    assert!(refused(Request { sampling, ..Request::greedy(vec![1], 1) }).contains("temperature is NaN"));
    let stop_ids = vec![1; 65];
    assert!(refused(Request { stop_ids, ..Request::greedy(vec![1], 1) }).contains("65 stop ids"));
    drop(permit);
    thread.drain();
    assert_eq!(handle.stats().completed, 4);
}

#[test]
fn stopping_cancels_what_runs_and_waits() {
    let (thread, permit) = gated(Settings { n_running_max: 1, ..Settings::default() });
    let handle = thread.handle();
    let all: Vec<_> = (0..3)
        .map(|i| {
            let (sink, events) = sink();
            handle.submit(Request::greedy(vec![i], 1_000), sink).unwrap().detach();
            events
        })
        .collect();
    assert_eq!(all[0].recv_timeout(PATIENCE).unwrap(), Event::Started { n_cached: 0 });
    handle.abort();
    drop(permit);
    thread.stop();
    assert!(all.iter().all(|events| last(events).0 == Finish::Cancelled));
}

#[test]
fn a_failing_pass_fails_its_requests_and_a_panic_is_told() {
    let (thread, permit) = gated(Settings::default());
    drop(permit);
    let handle = thread.handle();
    let ask = |id| {
        let (sink, events) = sink();
        handle.submit(Request::greedy(vec![id], 3), sink).map(|ticket| {
            ticket.detach();
            last(&events).0
        })
    };
    assert_eq!(ask(51).unwrap(), Finish::Failed(Failure::Forward("id 51 fails".into())));
    assert_eq!(ask(1).unwrap(), Finish::Length);
    assert!(matches!(ask(50).unwrap(), Finish::Failed(Failure::Forward(why)) if why.contains("panicked")));
    thread.drain();
    assert_eq!(ask(1), Err(SubmitError::Stopping));
}
