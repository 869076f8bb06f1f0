//! The web tools against servers on this machine, and what they refuse to reach.
#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::extract::Query;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use perilune_agent::gate::{BoxFuture, Resource};
use perilune_agent::policy::host::is_public;
use perilune_agent::secrets::Secrets;
use perilune_agent::tools::{Arguments, FetchUrl, Limits, Output, Scope, Tool, WebSearch, Workspace};
use perilune_agent::web::{Corpus, Engine, Fetcher, Hit, Resolve, Searcher, to_markdown};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Every name is this machine; counts how often it is asked.
#[derive(Default)]
struct Here(AtomicUsize);

impl Resolve for Here {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(Ok(vec![Ipv4Addr::LOCALHOST.into()])))
    }
}

/// Answers with one list after the other, the last for ever.
struct Turns(Mutex<Vec<Vec<IpAddr>>>);

impl Resolve for Turns {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let mut turns = self.0.lock().unwrap();
        let now = if turns.len() > 1 { turns.remove(0) } else { turns[0].clone() };
        Box::pin(std::future::ready(Ok(now)))
    }
}

fn anything(_: IpAddr) -> bool {
    true
}

fn here() -> Fetcher {
    Fetcher::with(Arc::new(Here::default()), anything)
}

async fn serve(app: Router) -> u16 {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    port
}

fn to(location: String) -> impl IntoResponse {
    (StatusCode::FOUND, [(header::LOCATION, location)])
}

fn app() -> Router {
    let html = "<html><head><title>t</title><style>x</style></head><body><h1>Moons</h1><script>evil()</script>\
                <p>The <b>moon</b> has <a href=\"/p\">phases</a>.</p><ul><li>new</li><li>full</li></ul></body></html>";
    let long: String = (0..4000).map(|n| format!("line {n}\n")).collect();
    Router::new()
        .route(
            "/page",
            get(move || async move { ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html) }),
        )
        .route("/long", get(move || async move { long }))
        .route(
            "/latin",
            get(|| async { ([(header::CONTENT_TYPE, "text/plain; charset=ISO-8859-1")], vec![0x63, 0xe9]) }),
        )
        .route("/picture", get(|| async { ([(header::CONTENT_TYPE, "image/png")], "PNG") }))
        .route("/paper", get(|| async { ([(header::CONTENT_TYPE, "application/pdf")], "%PDF-1.4 ...") }))
        .route("/large", get(|| async { "x".repeat((8 << 20) + 1) }))
        .route("/once", get(|| async { to("/page".to_owned()) }))
        .route("/loop", get(|| async { to("/loop".to_owned()) }))
        .route("/away", get(|| async { to("http://elsewhere.example.org/x".to_owned()) }))
        .route("/file", get(|| async { to("file:///etc/passwd".to_owned()) }))
        .route("/fails", get(|| async { StatusCode::IM_A_TEAPOT }))
}

async fn call(tool: &dyn Tool, arguments: Value) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let scope = Scope::new(Workspace::open(folder.path()).unwrap(), Limits::default());
    let arguments: Arguments = arguments.as_object().unwrap().clone();
    tool.run(&arguments, &scope).await
}

#[tokio::test]
async fn pages_become_text_and_failures_sentences() {
    let port = serve(app()).await;
    let tool = FetchUrl::new(here(), None);
    let page = "# Moons\n\nThe **moon** has [phases](/p).\n\n*   new\n*   full";
    let table = [
        ("page", page),
        ("once", page),
        ("latin", "cé"),
        ("picture", "error: the page is \"image/png\", which cannot be read as text"),
        (
            "paper",
            "error: this is a PDF, and poppler's pdftotext cannot be run here; ask the user for a text of it",
        ),
        ("large", "error: the page has more than 8388608 bytes"),
        ("loop", "error: the page was redirected more than 5 times"),
        (
            "away",
            "error: the page has moved to http://elsewhere.example.org/x; fetch that address if it is wanted",
        ),
        ("file", "error: \"file:///etc/passwd\" cannot be fetched: only http and https are fetched"),
        ("fails", "error: the host answered 418 I'm a teapot"),
        ("nothing", "error: the host answered 404 Not Found"),
    ];
    for (path, expected) in table {
        let output = call(&tool, json!({"url": format!("http://docs.example.org:{port}/{path}")})).await;
        assert_eq!(output.text, expected, "{path}");
    }
}

#[tokio::test]
async fn a_long_page_is_read_in_pages_and_fetched_once() {
    let port = serve(app()).await;
    let resolver = Arc::new(Here::default());
    let tool = FetchUrl::new(Fetcher::with(resolver.clone(), anything), None);
    let url = format!("http://docs.example.org:{port}/long");
    let mut lines = Vec::new();
    for number in 1..=3 {
        let output = call(&tool, json!({"url": url, "page": number})).await;
        lines.extend(output.text.lines().filter(|line| line.starts_with("line")).map(str::to_owned));
        assert_eq!(
            output.text.contains(&format!("(page {number} of 3; go on with page {})", number + 1)),
            number < 3
        );
    }
    let expected: Vec<_> = (0..4000).map(|n| format!("line {n}")).collect();
    assert_eq!(lines, expected);
    assert_eq!(resolver.0.load(Ordering::SeqCst), 1);
    let output = call(&tool, json!({"url": url, "page": 9})).await;
    assert_eq!(output.text, "error: the text has pages 1 to 3; ask for one of these");
}

#[tokio::test]
async fn texts_of_a_few_pages_are_kept_and_no_more() {
    let port = serve(app()).await;
    let resolver = Arc::new(Here::default());
    let tool = FetchUrl::new(Fetcher::with(resolver.clone(), anything), None);
    let fetch = async |n: u32, page: u32| {
        let url = format!("http://docs.example.org:{port}/long?n={n}");
        assert!(call(&tool, json!({"url": url, "page": page})).await.is_done);
        resolver.0.load(Ordering::SeqCst)
    };
    for n in 1..=9 {
        fetch(n, 1).await;
    }
    for n in 2..=9 {
        assert_eq!(fetch(n, 2).await, 9, "{n} was fetched again");
    }
    assert_eq!(fetch(1, 2).await, 10, "the ninth pushes out the first");
    assert_eq!(fetch(1, 1).await, 11, "a first page is always fetched");
}

#[test]
fn of_a_long_document_the_beginning_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes");
    std::fs::create_dir(&notes).unwrap();
    let limit = 8 << 20;
    let text = format!("head{}within beyond", " ".repeat(limit - "headwithin".len()));
    std::fs::write(notes.join("long.txt"), text).unwrap();
    let corpus = Corpus::of_folder(&folder.path().join("documents.db"), &notes, &Secrets::none()).unwrap();
    let n_found = ["head", "within", "beyond"].map(|word| corpus.search(word, 8).unwrap().len());
    assert_eq!(n_found, [1, 1, 0]);
    assert_eq!(corpus.page("doc:long.txt").unwrap().unwrap().text.len(), limit);
}

#[tokio::test]
async fn no_private_address_is_reached_by_any_name() {
    let port = serve(app()).await;
    let private: [IpAddr; 10] = [
        "127.0.0.1",
        "10.1.2.3",
        "172.20.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "::1",
        "fd00::1",
        "::ffff:127.0.0.1",
    ]
    .map(|address| address.parse().unwrap());
    for address in private {
        // One private address among public ones spoils the name.
        let resolver = Turns(Mutex::new(vec![vec!["93.184.215.14".parse().unwrap(), address]]));
        let fetcher = Fetcher::with(Arc::new(resolver), is_public);
        let error =
            fetcher.page(&format!("http://docs.example.org:{port}/page")).await.unwrap_err().to_string();
        assert!(error.contains("which is no address of the public internet"), "{address}: {error}");
    }
    for host in ["127.0.0.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:7f00:1]"] {
        let error = Fetcher::new().page(&format!("http://{host}:{port}/page")).await.unwrap_err().to_string();
        assert!(error.contains("which is no address of the public internet"), "{host}: {error}");
    }
}

/// A name server that says something else the second time: the check and the connection use one answer.
#[tokio::test]
async fn a_name_is_resolved_once_for_check_and_connection() {
    fn only_second(address: IpAddr) -> bool {
        address == IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))
    }
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app()).await.unwrap() });
    let turns = vec![vec![Ipv4Addr::new(127, 0, 0, 2).into()], vec![Ipv4Addr::LOCALHOST.into()]];
    let fetcher = Fetcher::with(Arc::new(Turns(Mutex::new(turns))), only_second);
    let url = format!("http://rebinding.example.org:{port}/page");
    // Nobody listens at the address that was checked; had the second answer been used, the page would be here.
    let first = fetcher.page(&url).await.unwrap_err().to_string();
    assert!(first.contains("cannot be reached"), "{first}");
    let second = fetcher.page(&url).await.unwrap_err().to_string();
    assert!(second.contains("is no address of the public internet"), "{second}");
    assert!(here().page(&url).await.is_ok());
}

#[test]
fn addresses_that_name_users_or_other_schemes_are_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for url in [
        "ftp://example.org/",
        "file:///etc/passwd",
        "http://user:word@example.org/",
        "example.org",
        "http://",
        "gopher://x/",
    ] {
        let error = runtime.block_on(here().page(url)).unwrap_err().to_string();
        assert!(error.contains("cannot be fetched"), "{url}: {error}");
    }
}

#[tokio::test]
async fn every_engine_answers_alike() {
    let answer = |query: HashMap<String, String>, key: &str| {
        let hits = json!([{"url": "https://a.example.org/", "title": "A", "content": query["q"], "description": key}]);
        axum::Json(json!({"results": hits, "web": {"results": hits}}))
    };
    let app = Router::new()
        .route(
            "/search",
            get(move |Query(query): Query<HashMap<String, String>>| async move {
                assert_eq!(query["format"], "json");
                answer(query, "")
            }),
        )
        .route(
            "/res/v1/web/search",
            get(move |headers: HeaderMap, Query(query): Query<HashMap<String, String>>| async move {
                let key = headers["x-subscription-token"].to_str().unwrap().to_owned();
                answer(query, &key)
            }),
        )
        .route(
            "/tavily/search",
            post(|headers: HeaderMap, body: String| async move {
                let body: Value = serde_json::from_str(&body).unwrap();
                assert_eq!(headers["authorization"], "Bearer k-2");
                let text = format!("{} {}", body["query"].as_str().unwrap(), body["max_results"]);
                axum::Json(
                    json!({"results": [{"url": "https://a.example.org/", "title": "A", "content": text}]}),
                )
            }),
        );
    let port = serve(app).await;
    let base = format!("http://search.example.org:{port}");
    let engines = [
        (Engine::Searxng { url: base.clone() }, "full moon & co"),
        (Engine::Brave { url: base.clone(), key: "k-1".into() }, "k-1"),
        (Engine::Tavily { url: format!("{base}/tavily"), key: "k-2".into() }, "full moon & co 8"),
    ];
    for (engine, extract) in engines {
        let tool = WebSearch(Searcher::new(engine, here()));
        assert_eq!(
            tool.resources(&Arguments::new()),
            [Resource::Host { host: "search.example.org".into(), port: None }]
        );
        let output = call(&tool, json!({"query": "full moon & co"})).await;
        assert_eq!(output.text, format!("1. A\n   https://a.example.org/\n   {extract}"));
    }
    let broken = serve(Router::new().route("/search", get(|| async { "{}" }))).await;
    let engine = Engine::Searxng { url: format!("http://search.example.org:{broken}") };
    let output = call(&WebSearch(Searcher::new(engine, here())), json!({"query": "x"})).await;
    assert_eq!(output.text, "error: the search engine's answer has another form than expected");
}

#[tokio::test]
async fn documents_on_this_machine_are_found_without_a_network() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("documents.db");
    let documents = [
        ("doc:tides", "Tides", "The moon pulls the sea. Tides rise twice a day."),
        ("doc:phases", "Phases of the moon", "New, half and full moons follow each other."),
        ("doc:sun", "The sun", "A star of the main sequence."),
    ];
    let corpus = Arc::new(Corpus::build(&file, documents).unwrap());
    let found = |query: &str| -> Vec<String> {
        corpus.search(query, 8).unwrap().into_iter().map(|hit: Hit| hit.url).collect()
    };
    assert_eq!(found("moon"), ["doc:phases", "doc:tides"]);
    assert_eq!(found("rising tide"), ["doc:tides"]);
    assert_eq!(found("star moon"), ["doc:sun", "doc:phases", "doc:tides"]);
    for odd in ["\"", "moon\" OR url:*", "NEAR(moon sea)", "moon AND", "-", "*", "title:moon'"] {
        corpus.search(odd, 8).unwrap();
    }
    let search = WebSearch(Searcher::new(Engine::Corpus(corpus.clone()), Fetcher::new()));
    assert!(search.resources(&Arguments::new()).is_empty());
    assert!(call(&search, json!({"query": "sun"})).await.text.starts_with("1. The sun\n   doc:sun\n"));
    assert_eq!(call(&search, json!({"query": "comet"})).await.text, "nothing was found for comet");
    let fetch = FetchUrl::new(Fetcher::new(), Some(corpus));
    let url = |url: &str| json!({"url": url}).as_object().unwrap().clone();
    assert!(fetch.resources(&url("doc:sun")).is_empty());
    assert_eq!(fetch.resources(&url("https://example.org/")).len(), 1);
    assert_eq!(fetch.resources(&url("doc:other")).len(), 1);
    assert_eq!(call(&fetch, json!({"url": "doc:sun"})).await.text, "A star of the main sequence.");
    // The same address again replaces its text.
    let again = Corpus::build(&file, [("doc:sun", "The sun", "Ours.")]).unwrap();
    assert_eq!(again.page("doc:sun").unwrap().unwrap().text, "Ours.");
    assert!(again.search("sequence", 8).unwrap().is_empty());
}

#[tokio::test]
async fn a_folder_becomes_a_collection() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = folder.path().join("notes").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let file = folder.path().join("documents.db");
    let (notes, secrets) = (folder.path().join("notes"), Secrets::new([("KEY", "hunter2hunter2")]).unwrap());
    let refused = Corpus::of_folder(&file, &notes, &secrets).err().unwrap().to_string();
    assert!(refused.contains(&notes.display().to_string()), "{refused}");
    put("tides.md", "# Tides\n\nThe moon pulls the sea; the key is hunter2hunter2.");
    put("deep/phases.html", "<h1>Phases</h1><p>Half and full <b>moon</b>.</p>");
    put("sun.txt", "# no heading in plain text");
    put(".hidden.md", "moon");
    put("picture.png", "moon");
    std::os::unix::fs::symlink("/etc/hostname", notes.join("link.txt")).unwrap();
    let corpus = Corpus::of_folder(&file, &notes, &secrets).unwrap();
    let hits: Vec<_> =
        corpus.search("moon", 8).unwrap().into_iter().map(|hit| (hit.url, hit.title)).collect();
    let pair = |url: &str, title: &str| (url.to_owned(), title.to_owned());
    assert_eq!(hits, [pair("doc:deep/phases.html", "Phases"), pair("doc:tides.md", "Tides")]);
    assert_eq!(corpus.search("heading", 8).unwrap()[0].title, "sun.txt");
    let bytes = std::fs::read(&file).unwrap();
    assert!(!bytes.windows(14).any(|window| window == b"hunter2hunter2"), "a secret is in the collection");
    // Made anew it holds what the folder holds now.
    std::fs::remove_file(notes.join("tides.md")).unwrap();
    drop(corpus);
    let again = Corpus::of_folder(&file, &notes, &secrets).unwrap();
    assert_eq!(again.search("moon", 8).unwrap().len(), 1);
}

#[test]
fn what_no_reader_sees_is_left_out() {
    let html =
        "<p>a</p><script>b</script><style>c</style><!-- d --><noscript>e</noscript><template>f</template>";
    assert_eq!(to_markdown(html).unwrap(), "a");
}
