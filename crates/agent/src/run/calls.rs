//! The calls of a turn, in declared order: gate, intent, attempt, outcome. Reads side by side, all else alone.

use super::{Book, Intent, OpenCall, Run, RunError};
use crate::context::{self, call_file, words};
use crate::gate::{
    Access, Approval, BoxFuture, Decision, Effect, GateError, GateEvent, OnNoAnswer, Outside, ProposedCall,
    Question, Record, Resource, Settlement, Verdict, settle,
};
use crate::journal::{Entry, Event, JournalError};
use crate::mutant::{Mutant, is};
use crate::tools::{ARTEFACTS, Arguments, OWN_FOLDER, Output, Probe, Scope, Tool};
use futures_util::future::{Either, join_all, select};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::error::Error;
use std::sync::Arc;

/// Longest time that an attempt may take; one that waits for a person takes the person's.
const ATTEMPT_MS_MAX: u64 = 900_000;
/// Name of the rule that asks about an effect of which nobody knows whether it happened.
pub(super) const UNKNOWN_RULE: &str = "unknown-after-crash";

/// An attempt that may be made.
struct Attempt {
    number: u64,
    tool: Arc<dyn Tool>,
    intent: Intent,
}

impl Run {
    /// Settles the next calls of the open turn.
    pub(super) async fn calls(&mut self) -> Result<(), RunError> {
        let batch = self.batch();
        let mut attempts = Vec::new();
        for call in batch {
            attempts.extend(self.admit(&call).await?);
        }
        for attempt in &attempts {
            self.announce(attempt)?;
        }
        let outcomes = join_all(attempts.iter().map(|it| self.attempt(it))).await;
        for (attempt, (output, took_ms)) in attempts.iter().zip(outcomes) {
            self.keep_outcome(attempt, output, took_ms)?;
        }
        Ok(())
    }

    /// The unsettled calls that come next: all leading reads, or one other.
    fn batch(&self) -> Vec<OpenCall> {
        let open = self.book.state.open.iter().flat_map(|open| &open.calls);
        let mut open: Vec<OpenCall> = open.filter(|call| call.result.is_none()).cloned().collect();
        if is(Mutant::Reorder) {
            open.reverse();
        }
        let is_parallel = |call: &OpenCall| {
            self.hands.profile.tools.get(&call.text.name).is_some_and(|tool| tool.is_parallel())
        };
        let n_reads = open.iter().take_while(|call| is_parallel(call)).count();
        open.truncate(n_reads.max(1));
        open
    }

    /// Whether a call may be attempted; if not, the model is told why.
    async fn admit(&mut self, call: &OpenCall) -> Result<Option<Attempt>, RunError> {
        let Some(tool) = self.hands.profile.tools.get(&call.text.name).map(Arc::clone) else {
            if call.intent.is_some() {
                let why = words::tool_is_gone(&call.text.name);
                return self.tell(call.number, &words::unknown_outcome(&why));
            }
            let names = self.hands.profile.tools.names().join(", ");
            return self.tell(call.number, &words::no_tool(&call.text.name, &names));
        };
        if let Some(intent) = &call.intent {
            return self.recover(call, &tool, intent.clone()).await;
        }
        let arguments = match serde_json::from_str::<Value>(&call.text.arguments) {
            Ok(Value::Object(arguments)) => arguments,
            Ok(_) => return self.tell(call.number, words::NOT_AN_OBJECT),
            Err(error) => return self.tell(call.number, &words::not_json(&error.to_string())),
        };
        if let Err(error) = tool.declaration().check(&arguments) {
            return self.tell(call.number, &words::not_taken(&error.to_string()));
        }
        match self.decide(call, &tool, arguments.clone()).await? {
            Verdict::Go { call: allowed, outside, .. } => {
                Ok(Some(self.planned(call.number, tool, allowed.arguments, outside)))
            }
            Verdict::Refused { .. } if is(Mutant::IgnoreGate) => {
                Ok(Some(self.planned(call.number, tool, arguments, Vec::new())))
            }
            Verdict::Refused { told, .. } => self.tell(call.number, &words::denied(&told)),
        }
    }

    async fn decide(
        &mut self,
        call: &OpenCall,
        tool: &Arc<dyn Tool>,
        arguments: Arguments,
    ) -> Result<Verdict, GateError> {
        let proposed = self.proposed(call.number, tool, arguments);
        let prepare = |arguments: &Arguments| -> Result<Vec<Resource>, String> {
            tool.declaration().check(arguments).map_err(|error| error.to_string())?;
            Ok(tool.resources(arguments))
        };
        let answered = if is(Mutant::ForgetAnswers) { Vec::new() } else { call.approvals.clone() };
        let mut record = Recorder { book: &mut self.book, call: call.number };
        let with = Settlement {
            gate: self.hands.gate.as_ref(),
            approver: self.hands.approver.as_ref(),
            prepare: &prepare,
            record: &mut record,
            answered,
        };
        settle(with, proposed).await
    }

    fn proposed(&self, number: u64, tool: &Arc<dyn Tool>, arguments: Arguments) -> ProposedCall {
        ProposedCall {
            run: self.book.state.opened.run.clone(),
            step: number - 1,
            tool: tool.declaration().name,
            effect: tool.effect(),
            resources: tool.resources(&arguments),
            arguments,
        }
    }

    fn planned(
        &self,
        number: u64,
        tool: Arc<dyn Tool>,
        arguments: Arguments,
        outside: Vec<Outside>,
    ) -> Attempt {
        let (name, effect) = (tool.declaration().name, tool.effect());
        let key = self.key(number, &name, &arguments);
        let note = tool.prepare(&arguments, &self.hands.scope.for_call(&key, &outside));
        Attempt { number, tool, intent: Intent { tool: name, effect, arguments, key, note, outside } }
    }

    /// What an attempt may reach.
    fn scope(&self, intent: &Intent) -> Scope {
        self.hands.scope.for_call(&intent.key, &intent.outside)
    }

    /// The same for each attempt of a call, and for no other call of any run. What is called counts too: a machine
    /// that dies may forget an answer of the model, and the next one has calls of the same numbers.
    fn key(&self, number: u64, tool: &str, arguments: &Arguments) -> String {
        let mut hasher = Sha256::new();
        hasher.update(self.book.state.opened.run.as_bytes());
        hasher.update(number.to_le_bytes());
        hasher.update(tool.as_bytes());
        hasher.update(Value::Object(arguments.clone()).to_string().as_bytes());
        if is(Mutant::FreshKey) {
            hasher.update(self.book.clock.now_ms().to_le_bytes());
        }
        hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The attempt was announced and nothing is known of its outcome: the process died in between.
    async fn recover(
        &mut self,
        call: &OpenCall,
        tool: &Arc<dyn Tool>,
        mut intent: Intent,
    ) -> Result<Option<Attempt>, RunError> {
        if is(Mutant::FreshKey) {
            intent.key = self.key(call.number, &intent.tool, &intent.arguments);
        }
        let scope = self.scope(&intent);
        for resource in tool.resources(&intent.arguments) {
            if let Resource::Path { access: Access::Write, path } = resource {
                scope.workspace.sweep(&path);
            }
        }
        let again = Attempt { number: call.number, tool: Arc::clone(tool), intent };
        if is(Mutant::RepeatUnknown) {
            return Ok(Some(again));
        }
        if is(Mutant::AssumeDone) {
            self.keep_outcome(&again, Output::done("done"), 0)?;
            return Ok(None);
        }
        match again.intent.effect {
            Effect::Read | Effect::Idempotent => return self.once_more(again),
            Effect::Once if tool.takes_key() => return self.once_more(again),
            Effect::Once => {
                let note = again.intent.note.clone().unwrap_or_default();
                match tool.probe(&again.intent.arguments, &note, &scope) {
                    Probe::Done(output) => {
                        self.keep_outcome(&again, output, 0)?;
                        return Ok(None);
                    }
                    Probe::NotStarted => return self.once_more(again),
                    Probe::Unknown => {}
                }
            }
            Effect::Irreversible => {}
        }
        match self.ask_about(call, &again).await? {
            Approval::Denied { reason } | Approval::Unanswered { reason } => {
                self.tell(call.number, &words::unknown_outcome(&reason))
            }
            // What may have happened had the old arguments; another attempt with them is not what was answered.
            Approval::Edited { .. } => {
                let reason = "the user wants other arguments, so it is not attempted again; make a new call";
                self.tell(call.number, &words::unknown_outcome(reason))
            }
            Approval::AllowOnce | Approval::AllowForRun | Approval::AllowAlways => self.once_more(again),
        }
    }

    /// The attempt again, unless policy denies by now what it let happen before.
    fn once_more(&mut self, again: Attempt) -> Result<Option<Attempt>, RunError> {
        let proposed = self.proposed(again.number, &again.tool, again.intent.arguments.clone());
        let decision = self.hands.gate.decide(&proposed);
        let Decision::Deny { reason, .. } = &decision else { return Ok(Some(again)) };
        let told = words::unknown_outcome(reason);
        let decided = GateEvent::Decided { decision };
        self.book.keep(Event::Gate { call: again.number, gate: decided }, false)?;
        self.tell(again.number, &told)
    }

    /// A person decides whether an effect of which nobody knows is attempted again.
    async fn ask_about(&mut self, call: &OpenCall, again: &Attempt) -> Result<Approval, RunError> {
        if let Some(answered) = call.approvals.last().filter(|_| !is(Mutant::ForgetAnswers)) {
            return Ok(answered.approval.clone());
        }
        let question = Question {
            call: self.proposed(call.number, &again.tool, again.intent.arguments.clone()),
            rule: UNKNOWN_RULE.to_owned(),
            reason: "the run was interrupted during this call, and nobody knows whether it happened: \
                     allow it to attempt it again, deny it if it has happened or should not"
                .to_owned(),
            // To go on without knowing would be to guess, and a guess may do it twice.
            unattended: OnNoAnswer::Stop,
            outside: again.intent.outside.clone(),
        };
        let asked = GateEvent::Asked { question: question.clone() };
        self.book.keep(Event::Gate { call: call.number, gate: asked }, true)?;
        let approval = question.answered(self.hands.approver.ask(&question).await)?;
        let answered = GateEvent::Answered { approval: approval.clone() };
        self.book.keep(Event::Gate { call: call.number, gate: answered }, true)?;
        Ok(approval)
    }

    /// Intents of what cannot be repeated are on the disk before the attempt.
    fn announce(&mut self, attempt: &Attempt) -> Result<(), RunError> {
        if is(Mutant::SkipIntent) {
            return Ok(());
        }
        let Intent { tool, arguments, effect, key, note, outside } = attempt.intent.clone();
        let is_synced = matches!(effect, Effect::Once | Effect::Irreversible) && !is(Mutant::UnsyncedIntent);
        let event = Event::Intent { call: attempt.number, tool, arguments, effect, key, note, outside };
        self.book.keep(event, is_synced)
    }

    async fn attempt(&self, attempt: &Attempt) -> (Output, u64) {
        let started_ms = self.hands.clock.now_ms();
        let scope = self.scope(&attempt.intent);
        let (tool, arguments) = (Arc::clone(&attempt.tool), attempt.intent.arguments.clone());
        let patience: BoxFuture<'static, ()> = match tool.waits_for_person() {
            true => Box::pin(std::future::pending()),
            false => self.hands.clock.sleep_ms(ATTEMPT_MS_MAX),
        };
        let run = self.hands.clock.apart(Box::pin(async move { tool.run(&arguments, &scope).await }));
        let output = match select(run, patience).await {
            Either::Left((output, _)) => output,
            Either::Right(_) => Output::failed(words::NEVER_RETURNED),
        };
        (output, self.hands.clock.now_ms().saturating_sub(started_ms))
    }

    fn keep_outcome(&mut self, attempt: &Attempt, mut output: Output, took_ms: u64) -> Result<(), RunError> {
        // Before it is cut: half a value would not be recognised any more.
        output.redact(&self.hands.scope.secrets);
        if attempt.intent.effect != Effect::Read {
            self.redact_artefacts()?;
        }
        if is(Mutant::SkipOutcome) {
            return self.tell(attempt.number, &output.text).map(drop);
        }
        let arguments = Value::Object(attempt.intent.arguments.clone()).to_string();
        let (policy, counter) = (&self.hands.profile.policy, self.hands.counter.as_ref());
        let name = &attempt.intent.tool;
        let shown = context::show(attempt.number, name, &arguments, &output, policy, counter);
        let event = Event::Outcome { call: attempt.number, output, shown: shown.text, took_ms };
        self.book.keep(event, attempt.intent.effect == Effect::Irreversible)?;
        self.write_file(attempt.number, &shown.file)
    }

    /// Takes secret values out of what programs left for people.
    pub(super) fn redact_artefacts(&mut self) -> Result<(), RunError> {
        let scope = &self.hands.scope;
        let redacted = scope.workspace.redact_own(ARTEFACTS, &scope.secrets, &mut self.clean);
        redacted.map_err(|error| own_file(ARTEFACTS, &error))
    }

    /// No attempt: the model is told why.
    fn tell(&mut self, number: u64, text: &str) -> Result<Option<Attempt>, RunError> {
        let text = if is(Mutant::SwallowCalls) { "" } else { text };
        self.book.keep(Event::Told { call: number, text: text.to_owned() }, false)?;
        let call = self.book.state.call(number).map(|call| call.text.clone());
        if let Some(call) = call {
            self.write_file(number, &format!("{} {}\n{text}\n", call.name, call.arguments))?;
        }
        Ok(None)
    }

    /// The call's own file, which stubs name.
    fn write_file(&self, number: u64, content: &str) -> Result<(), RunError> {
        let path = call_file(number);
        let beneath = path.strip_prefix(OWN_FOLDER).unwrap_or(&path).trim_start_matches('/');
        let content = self.hands.scope.secrets.redact(content);
        let written = self.hands.scope.workspace.write_own(beneath, content.as_bytes());
        written.map_err(|error| own_file(&path, &error))
    }

    /// Writes the files of calls that a crash, or a fork, left without one.
    pub(super) fn restore_files(&mut self, entries: &[Entry]) -> Result<(), RunError> {
        let mut texts = Vec::new();
        for entry in entries {
            match &entry.event {
                Event::Answered { calls, .. } => texts.extend(calls.iter().cloned()),
                Event::Outcome { call, output, .. } => {
                    let (policy, counter) = (&self.hands.profile.policy, self.hands.counter.as_ref());
                    let file = context::show(*call, "", "", output, policy, counter).file;
                    self.restore(*call, &texts, file.trim_start())?;
                }
                Event::Told { call, text } => self.restore(*call, &texts, &format!("{text}\n"))?,
                _ => {}
            }
        }
        Ok(())
    }

    fn restore(&self, number: u64, texts: &[crate::journal::CallText], result: &str) -> Result<(), RunError> {
        let is_there = self.hands.scope.workspace.read(&call_file(number), u64::MAX - 1).is_ok();
        let text = usize::try_from(number - 1).ok().and_then(|idx| texts.get(idx));
        match text {
            Some(text) if !is_there => {
                self.write_file(number, &format!("{} {}\n{result}", text.name, text.arguments))
            }
            _ => Ok(()),
        }
    }
}

/// A file of the run's own that cannot be written.
fn own_file(path: &str, error: &std::io::Error) -> RunError {
    RunError::Journal(JournalError::Io { path: path.into(), problem: error.to_string() })
}

/// The gate's events, into the journal. A person's part is synced.
struct Recorder<'a> {
    book: &'a mut Book,
    call: u64,
}

impl Record for Recorder<'_> {
    fn record(&mut self, event: &GateEvent) -> Result<(), Box<dyn Error + Send + Sync>> {
        let is_synced = !matches!(event, GateEvent::Decided { .. });
        let event = Event::Gate { call: self.call, gate: event.clone() };
        self.book.keep(event, is_synced).map_err(|error| error.to_string().into())
    }
}
