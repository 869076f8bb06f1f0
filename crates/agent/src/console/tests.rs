//! The pages from outside: hostile text, hostile paths, answers that fit and answers that do not.

use super::*;
use crate::gate::{Decision, Effect, GateEvent, OnNoAnswer, ProposedCall, Question};
use crate::journal::{self, CallText, Event, Journal, Opened, TokenUse, own_folder};
use crate::tools::Output;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;

const HOSTILE: &str = "<script>alert(1)</script>\"'&";
const FIELDS: &str = "<input type=hidden name=form_token value=t>";

/// A console with no login.
struct Bare;

impl Frame for Bare {
    fn page(&self, _request: &Extensions, title: &str, body: &str) -> String {
        format!("<h1>{}</h1>{body}", html! { (title) }.into_string())
    }

    fn form_fields(&self, _request: &Extensions) -> String {
        FIELDS.to_owned()
    }

    fn time(&self, ms: u64) -> String {
        ms.to_string()
    }

    fn count(&self, n: u64) -> String {
        n.to_string()
    }

    fn bytes(&self, n: u64) -> String {
        n.to_string()
    }
}

struct House {
    runs: tempfile::TempDir,
    router: Router,
}

impl House {
    fn new() -> Self {
        let runs = tempfile::tempdir().unwrap();
        let router = routes(Pages::new(runs.path(), Arc::new(Bare)));
        Self { runs, router }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, http::HeaderMap, String) {
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8_lossy(&body).into_owned())
    }

    async fn get(&self, path: &str) -> (StatusCode, http::HeaderMap, String) {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn page(&self, path: &str) -> String {
        let (status, _, text) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        text
    }

    async fn post(&self, path: &str, form: &str) -> (StatusCode, String) {
        let request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        let (status, _, text) = self.send(request.body(Body::from(form.to_owned())).unwrap()).await;
        (status, text)
    }
}

/// A run whose every text is hostile, with a question that waits.
fn hostile(house: &House, name: &str) -> Journal {
    let folder = house.runs.path().join(name);
    let text = || HOSTILE.to_owned();
    let opened =
        Opened { run: name.to_owned(), task: text(), model: text(), workspace: text(), ..Opened::default() };
    let (mut journal, _) = journal::create(&folder, 1, opened).unwrap();
    let mut keep = |event| journal.append(2, event, false).map(drop).unwrap();
    let calls = vec![CallText { name: text(), arguments: json!({ HOSTILE: HOSTILE }).to_string() }; 2];
    let tokens = TokenUse { prompt: 10, completion: 5, ..TokenUse::default() };
    keep(Event::ModelFailed { error: text(), attempt: 1 });
    keep(Event::Answered { reasoning: text(), content: text(), calls, tokens, is_cut: false });
    let decision = Decision::Allow { rule: text() };
    keep(Event::Gate { call: 1, gate: GateEvent::Decided { decision } });
    let output = Output { artefacts: vec![format!("artefacts/{HOSTILE}.png")], ..Output::files(HOSTILE) };
    keep(Event::Outcome { call: 1, output, shown: text(), took_ms: 3 });
    let arguments = serde_json::Map::from_iter([("path".to_owned(), json!(HOSTILE))]);
    let resources = vec![crate::gate::Resource::Command { text: text() }];
    let call =
        ProposedCall { run: text(), step: 1, tool: text(), effect: Effect::Once, arguments, resources };
    let question =
        Question { call, rule: text(), reason: text(), unattended: OnNoAnswer::Deny, outside: Vec::new() };
    keep(Event::Gate { call: 2, gate: GateEvent::Asked { question } });
    journal
}

fn id(house: &House, name: &str) -> String {
    let entries = journal::read(&house.runs.path().join(name)).unwrap();
    journal::Summary::of(&entries).waiting.unwrap().id
}

#[tokio::test]
async fn every_text_of_a_run_is_shown_as_text() {
    let house = House::new();
    let _journal = hostile(&house, "one");
    let own = own_folder(&house.runs.path().join("one"));
    std::fs::create_dir_all(own.join("artefacts")).unwrap();
    std::fs::write(own.join("artefacts/<b>.png"), "x").unwrap();
    let shown =
        ["", "/inbox", "/cost", "/run/one", "/run/one/files", "/run/one?q=alert", "/run/one?q=%3Cscript%3E"];
    for path in shown {
        let text = house.page(&format!("{ROOT}{path}")).await;
        assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{path}: {text}");
        assert!(!text.contains("<script>") && !text.contains("<b>"), "{path}: {text}");
    }
    let text = house.page(&format!("{ROOT}/run/one/later?seen=0&stand=x&seq=2&step=1&call=1")).await;
    assert!(text.contains("&lt;script&gt;") && !text.contains("<script>"), "{text}");
    assert!(house.page(&format!("{ROOT}/run/one?q=nowhere")).await.contains("0 steps hold"));
}

#[tokio::test]
async fn a_trace_grows_by_what_happened_since() {
    let house = House::new();
    let mut journal = hostile(&house, "one");
    let later = |seen: u64, seq: u64, step: u64, call: u64| {
        format!("{ROOT}/run/one/later?seen={seen}&stand=waiting&seq={seq}&step={step}&call={call}")
    };
    assert_eq!(house.get(&later(6, 2, 1, 1)).await.0, StatusCode::NO_CONTENT);
    let (status, _, text) = house.get(&later(0, 70, 1, 1)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{text}");
    assert!(text.contains("the run has 6 events, and none of number 70"), "{text}");
    journal.append(7, Event::Told { call: 2, text: "no".to_owned() }, false).unwrap();
    journal.append(8, Event::TurnEnded { remark: None }, false).unwrap();
    let calls = vec![CallText { name: "look".to_owned(), arguments: "no JSON".to_owned() }];
    let (reasoning, tokens) = (String::new(), TokenUse::default());
    let answered = Event::Answered { reasoning, content: String::new(), calls, tokens, is_cut: true };
    journal.append(9, answered, false).unwrap();
    let grown: serde_json::Value = serde_json::from_str(&house.page(&later(6, 2, 1, 1)).await).unwrap();
    let steps = grown["steps"].as_str().unwrap();
    // What a person types into is neither in the head nor, while it is the same, replaced with the question.
    assert!(!grown["head"].as_str().unwrap().contains("<form"), "{grown}");
    assert_eq!((&grown["question"], &grown["n_steps"]), (&json!(""), &json!(2)));
    assert_eq!(
        (&grown["seen"], &grown["stand"], &grown["is_over"]),
        (&json!(9), &json!("running"), &json!(false))
    );
    assert!(steps.contains("id=\"step-1\"") && steps.contains("id=\"step-2\""), "{steps}");
    assert!(steps.contains("Call 3: <code>look</code>"), "{steps}");
    let last: serde_json::Value = serde_json::from_str(&house.page(&later(8, 9, 2, 3)).await).unwrap();
    let (whole, part) =
        (house.page(&format!("{ROOT}/run/one")).await, last["steps"].as_str().unwrap().to_owned());
    assert!(!part.contains("step-1\"") && whole.contains(&part), "{part}");
}

#[tokio::test]
async fn an_answer_reaches_the_question_that_waits_and_no_other() {
    let house = House::new();
    let _journal = hostile(&house, "one");
    let (path, id) = (format!("{ROOT}/run/one/answer"), id(&house, "one"));
    assert!(house.page(&format!("{ROOT}/inbox")).await.contains(&format!("value=\"{id}\"")));
    assert!(house.page(&format!("{ROOT}/run/one")).await.contains(FIELDS));
    let refused = [
        (format!("id={id}&answer=perhaps"), StatusCode::UNPROCESSABLE_ENTITY),
        (format!("id={id}&answer=edit&arguments=%5B1%5D"), StatusCode::UNPROCESSABLE_ENTITY),
        (format!("id={id}&answer=say&words=yes"), StatusCode::UNPROCESSABLE_ENTITY),
        ("id=../../x&answer=once".to_owned(), StatusCode::CONFLICT),
    ];
    for (form, status) in refused {
        assert_eq!(house.post(&path, &form).await.0, status, "{form}");
    }
    let edit = format!("id={id}&answer=edit&arguments=%7B%22path%22%3A%22a%22%7D&back=inbox");
    assert_eq!(house.post(&path, &edit).await.0, StatusCode::SEE_OTHER);
    let given = std::fs::read_to_string(house.runs.path().join("one/answers").join(&id)).unwrap();
    assert_eq!(given, r#"{"approval":{"answer":"edited","arguments":{"path":"a"}}}"#);
    let (status, text) = house.post(&path, &format!("id={id}&answer=deny")).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(text.contains("answered before"), "{text}");
}

#[tokio::test]
async fn files_are_pictures_plain_text_or_downloads() {
    let house = House::new();
    let _journal = hostile(&house, "one");
    let own = own_folder(&house.runs.path().join("one"));
    std::fs::create_dir_all(own.join("artefacts")).unwrap();
    std::fs::write(house.runs.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(house.runs.path().join("secret"), own.join("artefacts/link.txt")).unwrap();
    let files: [(&str, &[u8], &str, &str); 5] = [
        ("a.png", b"\x89PNG", "image/png", "inline"),
        ("a.html", HOSTILE.as_bytes(), "text/plain; charset=utf-8", "inline"),
        ("a.svg", b"<svg onload='alert(1)'/>", "text/plain; charset=utf-8", "inline"),
        ("a.js", b"alert(1)", "text/plain; charset=utf-8", "inline"),
        ("a.bin", b"\xff\xfe", "application/octet-stream", "attachment"),
    ];
    for (name, content, kind, disposition) in files {
        std::fs::write(own.join("artefacts").join(name), content).unwrap();
        let (status, headers, text) = house.get(&format!("{ROOT}/run/one/file/artefacts/{name}")).await;
        assert_eq!(status, StatusCode::OK, "{name}");
        assert_eq!(
            (&headers["content-type"], &headers["content-disposition"]),
            (&kind.parse().unwrap(), &disposition.parse().unwrap())
        );
        assert_eq!(text, String::from_utf8_lossy(content));
    }
    let outside = ["artefacts/link.txt", "..%2Fjournal.sqlite", "%2Fetc%2Fpasswd", "artefacts", "none"];
    for path in outside {
        let (status, _, text) = house.get(&format!("{ROOT}/run/one/file/{path}")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {text}");
    }
    let page = house.page(&format!("{ROOT}/run/one/files")).await;
    assert!(page.contains("<img src=\"/console/runs/run/one/file/artefacts/a.png\""), "{page}");
    assert!(!page.contains("link.txt"), "a link is listed");
}

#[tokio::test]
async fn what_is_not_there_or_damaged_is_named() {
    let house = House::new();
    drop(hostile(&house, "one"));
    for path in ["/run/none", "/run/..%2Fone", "/run/none/files", "/run/one/export/pdf", "/static/x.js"] {
        assert_eq!(house.get(&format!("{ROOT}{path}")).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    let (status, text) = house.post(&format!("{ROOT}/run/one/fork"), "step=7").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(text.contains("fork at 0 to 0"), "{text}");
    assert_eq!(house.post(&format!("{ROOT}/run/one/fork"), "step=0").await.0, StatusCode::SEE_OTHER);
    assert!(house.page(&format!("{ROOT}/run/one/export/jsonl")).await.starts_with("{\"seq\":1,"));
    std::fs::write(house.runs.path().join("one/journal.sqlite"), "nothing that could be read").unwrap();
    let (status, _, text) = house.get(&format!("{ROOT}/run/one")).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(text.contains("is corrupt"), "{text}");
    assert!(house.page(ROOT).await.contains("is corrupt"), "the list names it");
}

/// Starts nothing, and keeps what it was asked to start.
struct Fake {
    root: std::path::PathBuf,
    started: std::sync::Mutex<Vec<(String, std::path::PathBuf, String)>>,
    resumed: std::sync::Mutex<Vec<(String, String, Option<u64>)>>,
}

impl Fake {
    fn of(root: &FilePath) -> Self {
        Self {
            root: root.to_owned(),
            started: std::sync::Mutex::default(),
            resumed: std::sync::Mutex::default(),
        }
    }
}

impl Starter for Fake {
    fn profiles(&self) -> Vec<String> {
        vec!["large".to_owned(), "embedded".to_owned()]
    }

    fn root(&self) -> &FilePath {
        &self.root
    }

    fn start(&self, task: &str, workspace: &FilePath, profile: &str) -> Result<String, String> {
        if task == "fail" {
            return Err(format!("cannot {HOSTILE}"));
        }
        self.started.lock().unwrap().push((task.to_owned(), workspace.to_owned(), profile.to_owned()));
        Ok("new".to_owned())
    }

    fn resume(&self, run: &str, profile: &str, n_steps_max: Option<u64>) -> Result<(), String> {
        if profile == "embedded" {
            return Err(format!("cannot {HOSTILE}"));
        }
        self.resumed.lock().unwrap().push((run.to_owned(), profile.to_owned(), n_steps_max));
        Ok(())
    }

    fn profile_of(&self, _: &str) -> Option<String> {
        Some("embedded".to_owned())
    }

    fn pending(&self) -> Vec<Pending> {
        let text = || HOSTILE.to_owned();
        vec![
            Pending { run: "one".to_owned(), task: text(), failure: None },
            Pending { run: "two".to_owned(), task: text(), failure: Some(text()) },
        ]
    }
}

#[tokio::test]
async fn a_run_is_started_in_a_folder_that_is_allowed_and_in_no_other() {
    let mut house = House::new();
    let path = start::PATH;
    assert!(!house.page(ROOT).await.contains("<form"), "a form that starts nothing");
    let (status, _) = house.post(path, "task=t&workspace=.&profile=large").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let root = folder.join("root");
    std::fs::create_dir_all(root.join("inside/deep")).unwrap();
    std::fs::create_dir_all(folder.join("root2")).unwrap();
    std::fs::write(root.join("file"), "").unwrap();
    std::os::unix::fs::symlink("../root2", root.join("out")).unwrap();
    std::os::unix::fs::symlink("inside/deep", root.join("link")).unwrap();
    let fake = Arc::new(Fake::of(&root));
    let pages = Pages::new(house.runs.path(), Arc::new(Bare)).with_starter(Arc::clone(&fake) as Arc<_>);
    house.router = routes(pages);
    let page = house.page(ROOT).await;
    assert!(page.contains(FIELDS) && page.contains("<option value=\"large\">"), "{page}");
    assert!(page.contains("did not begin") && !page.contains("<script>"), "{page}");
    let outside = folder.join("root2").display().to_string();
    let refused = [
        ("", ".", "large"),
        ("%20", ".", "large"),
        ("a%00b", ".", "large"),
        ("t", ".", "small"),
        ("t", "none", "large"),
        ("t", "file", "large"),
        ("t", "..", "large"),
        ("t", "../root2", "large"),
        ("t", "out", "large"),
        ("t", "inside/../../root2", "large"),
        ("t", outside.as_str(), "large"),
        ("fail", ".", "large"),
    ];
    for (task, workspace, profile) in refused {
        let form = format!("task={task}&workspace={workspace}&profile={profile}");
        let (status, text) = house.post(path, &form).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{form}: {text}");
        assert!(!text.contains("<script>"), "{text}");
    }
    assert!(fake.started.lock().unwrap().is_empty());
    for (workspace, real) in [(".", ""), ("inside", "inside"), ("link", "inside/deep")] {
        let form = format!("task=+t&workspace={workspace}&profile=embedded");
        assert_eq!(house.post(path, &form).await.0, StatusCode::SEE_OTHER);
        let started = fake.started.lock().unwrap().pop().unwrap();
        assert_eq!(started, ("t".to_owned(), root.join(real).canonicalize().unwrap(), "embedded".to_owned()));
    }
}

/// A run in this workspace, and whoever works on it.
fn run_in(house: &House, name: &str, workspace: &FilePath) -> Journal {
    let (run, workspace) = (name.to_owned(), workspace.display().to_string());
    journal::create(&house.runs.path().join(name), 1, Opened { run, workspace, ..Opened::default() })
        .unwrap()
        .0
}

#[tokio::test]
async fn a_run_is_controlled_where_runs_are_started_and_as_it_stands() {
    let mut house = House::new();
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("inside")).unwrap();
    let mut journal = run_in(&house, "mine", &root.join("inside"));
    drop(run_in(&house, "away", house.runs.path()));
    let path = |run: &str, what: &str| format!("{ROOT}/run/{run}{what}");
    // Where nothing is started nothing is controlled.
    assert!(!house.page(&path("mine", "")).await.contains("/stop\""));
    assert_eq!(house.post(&path("mine", "/stop"), "").await.0, StatusCode::FORBIDDEN);
    let fake = Arc::new(Fake::of(&root));
    let pages = Pages::new(house.runs.path(), Arc::new(Bare)).with_starter(Arc::clone(&fake) as Arc<_>);
    house.router = routes(pages);
    for what in ["/stop", "/resume"] {
        assert_eq!(house.post(&path("away", what), "profile=large").await.0, StatusCode::FORBIDDEN, "{what}");
        assert_eq!(house.post(&path("none", what), "profile=large").await.0, StatusCode::NOT_FOUND, "{what}");
    }
    assert!(!house.page(&path("away", "")).await.contains("/resume\""));
    let page = house.page(&path("mine", "")).await;
    assert!(page.contains("/run/mine/stop\"") && !page.contains("/run/mine/resume\""), "{page}");
    assert!(page.contains(FIELDS));
    assert_eq!(house.post(&path("mine", "/resume"), "profile=large").await.0, StatusCode::CONFLICT);
    // The process is this one and does not listen: the page gives up waiting.
    assert_eq!(house.post(&path("mine", "/stop"), "").await.0, StatusCode::SEE_OTHER);
    let asked = house.runs.path().join("mine/stop");
    assert!(asked.exists());
    journal.append(2, Event::Ended { how: journal::How::Budget, text: "enough".to_owned() }, true).unwrap();
    drop(journal);
    let page = house.page(&path("mine", "")).await;
    assert!(
        page.contains("name=\"steps\"") && page.contains("<option value=\"embedded\" selected>"),
        "{page}"
    );
    assert_eq!(house.post(&path("mine", "/stop"), "").await.0, StatusCode::CONFLICT);
    for (form, status) in [
        ("profile=small", StatusCode::UNPROCESSABLE_ENTITY),
        ("profile=large&steps=0", StatusCode::UNPROCESSABLE_ENTITY),
        ("profile=large&steps=-1", StatusCode::UNPROCESSABLE_ENTITY),
        ("profile=embedded&steps=4", StatusCode::UNPROCESSABLE_ENTITY),
        ("profile=large&steps=40", StatusCode::SEE_OTHER),
        ("profile=large", StatusCode::SEE_OTHER),
    ] {
        let (found, text) = house.post(&path("mine", "/resume"), form).await;
        assert!(found == status && !text.contains("<script>"), "{form}: {found} {text}");
    }
    let resumed = fake.resumed.lock().unwrap().clone();
    let large = |n_steps| ("mine".to_owned(), "large".to_owned(), n_steps);
    assert_eq!(resumed, [large(Some(40)), large(None)]);
}
