//! The file on a real disk: locks, damage, versions, forks.

use super::*;
use crate::gate::{
    Approval, Approver, BoxFuture, Effect, Elsewhere, GateEvent, OnNoAnswer, ProposedCall, Question,
    Unattended,
};
use crate::mutant::{Mutant, ON};
use crate::secrets::Secrets;
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;

fn answered(name: &str) -> Event {
    let calls = vec![CallText { name: name.to_owned(), arguments: "{}".to_owned() }];
    let (reasoning, content) = ("because".to_owned(), String::new());
    Event::Answered { reasoning, content, calls, tokens: TokenUse::default(), is_cut: false }
}

/// A run of two turns.
fn run(folder: &Path) -> Vec<Entry> {
    let opened = Opened { run: "first".to_owned(), task: "Do it.".to_owned(), ..Opened::default() };
    let (mut journal, entry) = create(folder, 1, opened).unwrap();
    let mut entries = vec![entry];
    for (at_ms, name) in [(2, "look"), (5, "put")] {
        entries.push(journal.append(at_ms, answered(name), false).unwrap());
        let told = Event::Told { call: at_ms / 2, text: "no".to_owned() };
        entries.push(journal.append(at_ms + 1, told, true).unwrap());
        entries.push(journal.append(at_ms + 2, Event::TurnEnded { remark: None }, false).unwrap());
    }
    entries
}

fn damage(folder: &Path, sql: &str) {
    let connection = Connection::open(folder.join(JOURNAL_FILE)).unwrap();
    connection.execute_batch(sql).unwrap();
    connection.pragma_update(None, "wal_checkpoint", "truncate").unwrap();
}

/// The sentence that every way to open it says; no byte of the file is changed by them.
fn refused(folder: &Path) -> String {
    let path = folder.join(JOURNAL_FILE);
    let before = std::fs::read(&path).unwrap();
    let sentence = resume(folder).map(drop).unwrap_err().to_string();
    assert_eq!(read(folder).unwrap_err().to_string(), sentence);
    assert_eq!(std::fs::read(&path).unwrap(), before, "the file was changed");
    sentence
}

#[test]
fn what_was_kept_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let entries = run(folder.path());
    assert_eq!(read(folder.path()).unwrap(), entries);
    let (mut journal, found) = resume(folder.path()).unwrap();
    assert_eq!(found, entries);
    let last = journal.append(9, Event::Resumed, false).unwrap();
    assert_eq!(last.seq, 8);
    assert_eq!(read(folder.path()).unwrap().last(), Some(&last));
}

/// Two processes are two opened files to the system, as are two handles of one.
fn second_is_refused(folder: &Path) -> Result<(), String> {
    let held = resume(folder).map_err(|error| error.to_string())?;
    let second = resume(folder).map(drop);
    drop(held);
    match second {
        Err(JournalError::Locked { .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn one_process_a_run() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path());
    second_is_refused(folder.path()).unwrap();
    resume(folder.path()).unwrap();
    ON.set(Some(Mutant::LoseLock));
    let found = second_is_refused(folder.path());
    ON.set(None);
    assert!(found.is_err(), "a lost lock was not noticed");
}

#[test]
fn damage_is_named_and_nothing_is_changed() {
    let cases = [
        (
            "UPDATE events SET body = replace(body, 'look', 'lock') WHERE seq = 2",
            "event 2: its hash does not fit",
        ),
        ("UPDATE events SET at_ms = 7 WHERE seq = 3", "event 3: its hash does not fit"),
        ("DELETE FROM events WHERE seq = 4", "event 4: an event is missing"),
        ("UPDATE events SET hash = zeroblob(32) WHERE seq = 7", "event 7: its hash does not fit"),
        ("DELETE FROM events", "event 1: it holds no event"),
        ("PRAGMA application_id = 1", "event 1: it is not a journal of a run"),
        ("PRAGMA user_version = 9", "was written by a newer version (schema 9, this program knows 1)"),
    ];
    for (sql, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path());
        damage(folder.path(), sql);
        let sentence = if sql == "DELETE FROM events" {
            resume(folder.path()).map(drop).unwrap_err().to_string()
        } else {
            refused(folder.path())
        };
        assert!(sentence.contains(expected), "{sql}: {sentence}");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(JOURNAL_FILE), "not a database, but long enough to be read as one")
        .unwrap();
    assert!(refused(folder.path()).contains("is corrupt"), "a text file was taken for a journal");
}

#[test]
fn a_run_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(resume(folder.path()), Err(JournalError::Missing { .. })));
    let entries = run(folder.path());
    let again = create(folder.path(), 1, Opened::default()).map(drop);
    assert!(matches!(again, Err(JournalError::Exists { .. })), "{again:?}");
    assert_eq!(read(folder.path()).unwrap(), entries);
}

#[test]
fn what_a_process_left_that_died_while_it_made_a_run_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let partial = folder.path().join("journal.sqlite.partial");
    // As a process leaves them that was killed: SQLite closes a file and removes its companions, so they are copied.
    let connection = Connection::open(&partial).unwrap();
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
    connection.execute_batch("CREATE TABLE events (other INTEGER); INSERT INTO events VALUES (1)").unwrap();
    let companions = ["-wal", "-shm"].map(|end| folder.path().join(format!("journal.sqlite.partial{end}")));
    let left = companions.each_ref().map(|path| std::fs::read(path).unwrap());
    drop(connection);
    companions.iter().zip(&left).for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    let entries = run(folder.path());
    assert_eq!(read(folder.path()).unwrap(), entries);
    assert!(!partial.exists() && companions.iter().all(|path| !path.exists()));
}

#[test]
fn a_fork_starts_with_the_same_steps() {
    let runs = tempfile::tempdir().unwrap();
    let (from, to) = (runs.path().join("first"), runs.path().join("second"));
    let entries = run(&from);
    fork(&from, &to, "second", 1).unwrap();
    let forked = read(&to).unwrap();
    assert_eq!(forked[1..], entries[1..4]);
    let Event::Opened(opened) = &forked[0].event else { panic!("{forked:?}") };
    assert_eq!((opened.run.as_str(), opened.forked_from.as_deref()), ("second", Some("first")));
    let again = fork(&from, &to, "second", 1);
    assert!(matches!(again, Err(JournalError::Exists { .. })), "{again:?}");
    let sentence = fork(&from, &runs.path().join("third"), "third", 3).unwrap_err().to_string();
    assert_eq!(sentence, "the run has 2 whole steps; fork at 0 to 2");
    let listed = Runs::new(runs.path()).list().unwrap();
    let steps: Vec<u64> = listed.iter().map(|it| it.state.as_ref().unwrap().0.ledger.n_steps).collect();
    assert_eq!((steps.len(), steps.iter().sum::<u64>()), (2, 3), "a refused fork left something");
}

#[test]
fn steps_before_the_damage_can_be_forked() {
    let runs = tempfile::tempdir().unwrap();
    let from = runs.path().join("first");
    let entries = run(&from);
    damage(&from, "UPDATE events SET body = replace(body, 'put', 'got') WHERE seq = 5");
    let sentence = fork(&from, &runs.path().join("third"), "third", 2).unwrap_err().to_string();
    assert!(sentence.starts_with("1 whole steps stand before the damage, so fork at 0 to 1"), "{sentence}");
    assert!(sentence.contains("corrupt at event 5: its hash does not fit"), "{sentence}");
    let to = runs.path().join("second");
    fork(&from, &to, "second", 1).unwrap();
    assert_eq!(read(&to).unwrap()[1..], entries[1..4]);
    let listed = Runs::new(runs.path()).list().unwrap();
    assert_eq!(listed.iter().filter(|it| it.state.is_err()).count(), 1);
}

#[test]
fn a_fork_takes_its_artefacts_along_and_no_link_of_another_hand() {
    let runs = tempfile::tempdir().unwrap();
    let (from, to) = (runs.path().join("first"), runs.path().join("second"));
    let (mut journal, _) = create(&from, 1, Opened::default()).unwrap();
    journal.append(2, answered("python"), false).unwrap();
    let made = ["artefacts/a.png", "artefacts/link", "../../secret"].map(str::to_owned).to_vec();
    let output = crate::tools::Output { artefacts: made, ..crate::tools::Output::done("drawn") };
    journal.append(3, Event::Outcome { call: 1, output, shown: String::new(), took_ms: 1 }, false).unwrap();
    journal.append(4, Event::TurnEnded { remark: None }, false).unwrap();
    std::fs::create_dir_all(own_folder(&from).join("artefacts")).unwrap();
    std::fs::write(own_folder(&from).join("artefacts/a.png"), "picture").unwrap();
    std::fs::write(runs.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(runs.path().join("secret"), own_folder(&from).join("artefacts/link")).unwrap();
    fork(&from, &to, "second", 1).unwrap();
    assert_eq!(std::fs::read_to_string(own_folder(&to).join("artefacts/a.png")).unwrap(), "picture");
    assert!(!own_folder(&to).join("artefacts/link").exists());
}

#[test]
fn an_export_is_one_event_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let entries = run(folder.path());
    let mut out = Vec::new();
    lines(&entries, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let read: Vec<Entry> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read, entries);
    assert!(text.starts_with(r#"{"seq":1,"at_ms":1,"event":"opened","run":"first""#), "{text}");
}

#[test]
fn no_text_leaves_its_fence_in_markdown() {
    let folder = tempfile::tempdir().unwrap();
    let mut entries = run(folder.path());
    let hostile = "````\n# not a heading\n`````\n<script>".to_owned();
    entries.push(Entry { seq: 8, at_ms: 9, event: Event::Ended { how: How::Answer, text: hostile } });
    let text = markdown(&entries);
    assert!(text.contains("\n``````text\n````\n# not a heading\n`````\n<script>\n``````\n"), "{text}");
    assert!(text.contains("## Step 2\n") && text.contains("### Call 2: ` put `\n"), "{text}");
}

#[test]
fn a_list_follows_a_run_through_its_stands() {
    let folder = tempfile::tempdir().unwrap();
    let runs = Runs::new(folder.path());
    assert!(runs.list().unwrap().is_empty());
    let stand = || runs.summary("first").unwrap().1;
    let (mut journal, _) = create(&folder.path().join("first"), 1, Opened::default()).unwrap();
    assert_eq!(stand(), Stand::Running);
    journal.append(2, answered("look"), false).unwrap();
    journal.append(3, asked(1), true).unwrap();
    assert_eq!(stand(), Stand::Waiting);
    drop(journal);
    assert_eq!(stand(), Stand::Paused);
    let (mut journal, entries) = resume(&folder.path().join("first")).unwrap();
    journal.append(4, Event::Resumed, false).unwrap();
    let whole = read(&folder.path().join("first")).unwrap();
    assert_eq!(runs.summary("first").unwrap().0, Summary::of(&whole), "what was read before counts on");
    assert_eq!(whole.len(), entries.len() + 1);
    journal.append(5, Event::Ended { how: How::Stuck, text: "no".to_owned() }, true).unwrap();
    assert_eq!(stand(), Stand::Ended(How::Stuck));
    drop(journal);
    std::fs::remove_dir_all(folder.path().join("first")).unwrap();
    run(&folder.path().join("first"));
    assert_eq!(runs.summary("first").unwrap().0.ledger.n_steps, 2, "another run of the same name");
    for name in ["", ".", "..", "a/b", ".hidden", "../x", "a\nb"] {
        assert!(matches!(runs.summary(name), Err(JournalError::BadName { .. })), "{name}");
    }
    assert!(matches!(runs.summary("none"), Err(JournalError::Missing { .. })));
}

fn question(call: u64) -> Question {
    let arguments = serde_json::Map::from_iter([("path".to_owned(), serde_json::json!("../a"))]);
    let call = ProposedCall {
        run: "first".to_owned(),
        step: call - 1,
        tool: "write_file".to_owned(),
        effect: Effect::Idempotent,
        arguments,
        resources: Vec::new(),
    };
    Question {
        call,
        rule: "outside".to_owned(),
        reason: "It is outside.".to_owned(),
        unattended: OnNoAnswer::Deny,
        outside: Vec::new(),
    }
}

fn asked(call: u64) -> Event {
    Event::Gate { call, gate: GateEvent::Asked { question: question(call) } }
}

/// Answers once it is told to.
struct Person(tokio::sync::Notify, Approval);

impl Approver for Person {
    fn ask<'a>(&'a self, _question: &'a Question) -> BoxFuture<'a, Approval> {
        Box::pin(async move {
            self.0.notified().await;
            self.1.clone()
        })
    }
}

#[tokio::test]
async fn the_first_answer_counts_wherever_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = create(folder.path(), 1, Opened::default()).unwrap();
    journal.append(2, answered("write_file"), false).unwrap();
    journal.append(3, asked(1), true).unwrap();
    let id = Summary::of(&read(folder.path()).unwrap()).waiting.unwrap().id;
    let denied = |reason: &str| Approval::Denied { reason: reason.to_owned() };
    // From elsewhere, while the person at hand thinks.
    let at_hand = Arc::new(Person(tokio::sync::Notify::new(), denied("at hand")));
    let inbox = Inbox::new(folder.path(), Arc::clone(&at_hand), Arc::new(Secrets::none()));
    let question = question(1);
    let (answer, is_first) = tokio::join!(inbox.ask(&question), async {
        give(folder.path(), &id, &Answer::Approval(Approval::AllowOnce)).unwrap()
    });
    assert_eq!((answer, is_first), (Approval::AllowOnce, true));
    // A second answer comes too late, at hand as well.
    assert!(!give(folder.path(), &id, &Answer::Approval(denied("late"))).unwrap());
    at_hand.0.notify_one();
    assert_eq!(inbox.ask(&question).await, Approval::AllowOnce);
    // The process died before the answer was kept: the next one asks the same question and finds it.
    journal.append(4, Event::Resumed, false).unwrap();
    journal.append(5, asked(1), true).unwrap();
    let next = Inbox::new(folder.path(), Arc::new(Elsewhere), Arc::new(Secrets::none()));
    assert_eq!(next.ask(&question).await, Approval::AllowOnce);
    // Once it was kept, the next question on the same call is another.
    journal
        .append(6, Event::Gate { call: 1, gate: GateEvent::Answered { approval: Approval::AllowOnce } }, true)
        .unwrap();
    journal.append(7, asked(1), true).unwrap();
    at_hand.0.notify_one();
    assert_eq!(inbox.ask(&question).await, denied("at hand"));
    let id = Summary::of(&read(folder.path()).unwrap()).waiting.unwrap().id;
    assert!(!give(folder.path(), &id, &Answer::Approval(Approval::AllowOnce)).unwrap());
}

#[tokio::test]
async fn what_was_answered_while_nobody_worked_on_it_counts_where_nobody_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = create(folder.path(), 1, Opened::default()).unwrap();
    journal.append(2, answered("write_file"), false).unwrap();
    journal.append(3, asked(1), true).unwrap();
    let id = Summary::of(&read(folder.path()).unwrap()).waiting.unwrap().id;
    give(folder.path(), &id, &Answer::Approval(Approval::AllowOnce)).unwrap();
    let inbox = Inbox::new(folder.path(), Arc::new(Unattended), Arc::new(Secrets::none()));
    assert_eq!(inbox.ask(&question(1)).await, Approval::AllowOnce);
}

#[tokio::test]
async fn what_the_model_asks_is_answered_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = create(folder.path(), 1, Opened::default()).unwrap();
    journal.append(2, answered("ask_user"), false).unwrap();
    let arguments = serde_json::Map::from_iter([("question".to_owned(), serde_json::json!("Which?"))]);
    let (tool, key) = ("ask_user".to_owned(), "k".to_owned());
    let (effect, outside) = (Effect::Idempotent, Vec::new());
    let intent = Event::Intent { call: 1, tool, arguments, effect, key, note: None, outside };
    journal.append(3, intent, false).unwrap();
    let waiting = Summary::of(&read(folder.path()).unwrap()).waiting.unwrap();
    assert_eq!(waiting.asked, Asked::Words("Which?".to_owned()));
    assert!(give(folder.path(), &waiting.id, &Answer::Words(Some("The red one.".to_owned()))).unwrap());
    let inbox = Inbox::new(folder.path(), Arc::new(Elsewhere), Arc::new(Secrets::none()));
    let answer = crate::tools::Person::ask(&inbox, "Which?").await;
    assert_eq!(answer.as_deref(), Some("The red one."));
}

#[tokio::test]
async fn no_answer_keeps_a_secret_value() {
    const VALUE: &str = "tok-0123456789";
    let secrets = Arc::new(Secrets::new([("TOKEN", VALUE)]).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = create(folder.path(), 1, Opened::default()).unwrap();
    journal.append(2, answered("write_file"), false).unwrap();
    journal.append(3, asked(1), true).unwrap();
    let id = Summary::of(&read(folder.path()).unwrap()).waiting.unwrap().id;
    let file = |id: &str| std::fs::read_to_string(folder.path().join("answers").join(id)).unwrap();
    let denied = |text: &str| Approval::Denied { reason: text.to_owned() };
    give(folder.path(), &id, &Answer::Approval(denied(&format!("use {VALUE}")))).unwrap();
    assert!(file(&id).contains(VALUE), "nothing to take out, so this shows nothing");
    let inbox = Inbox::new(folder.path(), Arc::new(Elsewhere), Arc::clone(&secrets));
    assert_eq!(inbox.ask(&question(1)).await, denied("use [secret TOKEN]"));
    assert!(!file(&id).contains(VALUE), "{}", file(&id));
    // Given while nobody worked on the run, in each place that a text may have.
    let arguments = serde_json::Map::from_iter([(VALUE.to_owned(), serde_json::json!([VALUE]))]);
    let others = [
        Answer::Words(Some(VALUE.to_owned())),
        Answer::Approval(Approval::Edited { arguments }),
        Answer::Approval(Approval::Unanswered { reason: VALUE.to_owned() }),
        Answer::Approval(Approval::AllowOnce),
    ];
    for (name, answer) in ["a", "b", "c", "d"].into_iter().zip(&others) {
        give(folder.path(), name, answer).unwrap();
    }
    std::fs::write(folder.path().join("answers/half"), format!("{{\"words\":\"{VALUE}")).unwrap();
    redact_answers(folder.path(), &secrets).unwrap();
    assert!(["a", "b", "c", "d"].into_iter().all(|name| !file(name).contains(VALUE)));
    assert_eq!(file("a"), r#"{"words":"[secret TOKEN]"}"#);
    assert!(!folder.path().join("answers/half").exists());
    // What the person at hand says is not written down either.
    journal
        .append(4, Event::Gate { call: 1, gate: GateEvent::Answered { approval: Approval::AllowOnce } }, true)
        .unwrap();
    journal.append(5, asked(1), true).unwrap();
    let at_hand = Arc::new(Person(tokio::sync::Notify::new(), denied(VALUE)));
    at_hand.0.notify_one();
    let inbox = Inbox::new(folder.path(), at_hand, secrets);
    assert_eq!(inbox.ask(&question(1)).await, denied("[secret TOKEN]"));
    let id = Summary::of(&read(folder.path()).unwrap()).waiting.unwrap().id;
    assert!(!file(&id).contains(VALUE));
}

#[test]
fn a_run_that_ended_at_a_limit_is_not_over_when_it_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let runs = Runs::new(folder.path());
    let stand = || runs.summary("first").unwrap().1;
    for (how, expected) in [(How::Budget, Stand::Paused), (How::Stuck, Stand::Ended(How::Stuck))] {
        let run = folder.path().join("first");
        let (mut journal, _) = create(&run, 1, Opened::default()).unwrap();
        journal.append(2, Event::Ended { how, text: "no".to_owned() }, true).unwrap();
        assert_eq!(stand(), Stand::Ended(how));
        journal.append(9, Event::Resumed, true).unwrap();
        drop(journal);
        if how == How::Budget {
            assert_eq!((stand(), runs.summary("first").unwrap().0.ledger.wall_ms), (expected, 1));
            assert_eq!(Trace::of(&read(&run).unwrap()).ended, None);
        } else {
            let state = crate::run::State::of(&read(&run).unwrap());
            assert_eq!(state.ended.map(|(how, _)| Stand::Ended(how)), Some(expected));
        }
        std::fs::remove_dir_all(run).unwrap();
    }
}

#[test]
fn a_journal_knows_whether_its_process_opened_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = create(folder.path(), 1, Opened::default()).unwrap();
    assert!(!journal.is_resumed());
    drop(journal);
    assert!(resume(folder.path()).unwrap().0.is_resumed());
}
