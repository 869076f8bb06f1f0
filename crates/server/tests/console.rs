//! The console from outside: who gets in, what a form may do, what pages show of hostile text.

#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::body::Body;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use perilune_chat::model::Usage;
use perilune_server::app::App;
use perilune_server::console::{COOKIE, Console, Entry, Memory, ModelCard, Session, first_admin_key};
use perilune_server::routes;
use perilune_server::store::{Key, KeyKind, KeyLimits, Opened, Outcome, Status, Store};
use tower::ServiceExt;

const HOST: &str = "127.0.0.1:8080";
const HOSTILE: &str = "<script>alert(1)</script>\"'&";

/// A server with a console, and its first admin key.
struct House {
    app: App,
    router: Router,
    admin: String,
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    text: String,
}

/// A logged-in browser: its cookie and the token in its pages.
struct Browser {
    cookie: String,
    token: String,
}

impl House {
    async fn new() -> Self {
        Self::with(Console::new(None, false)).await
    }

    async fn with(console: Console) -> Self {
        let store = Store::in_memory().unwrap();
        let admin = first_admin_key(&store).await.unwrap().unwrap().secret;
        let app = App::new(store, true).unwrap();
        let router = routes::router(app.clone(), console.routes(&app));
        Self { app, router, admin }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    async fn get(&self, path: &str, browser: Option<&Browser>) -> Answer {
        self.send(request(Method::GET, path, browser).body(Body::empty()).unwrap()).await
    }

    /// Sends a form as given: with a token only where `fields` have one.
    async fn post(&self, path: &str, browser: Option<&Browser>, fields: &[(&str, &str)]) -> Answer {
        self.send(form(request(Method::POST, path, browser), fields)).await
    }

    /// Sends a form with the browser's token.
    async fn submit(&self, path: &str, browser: &Browser, fields: &[(&str, &str)]) -> Answer {
        let mut all = vec![("form_token", browser.token.as_str())];
        all.extend(fields);
        self.post(path, Some(browser), &all).await
    }

    async fn login(&self) -> Browser {
        let answer = self.post("/console/login", None, &[("key", &self.admin)]).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        let line = answer.headers[header::SET_COOKIE].to_str().unwrap();
        let cookie = line.split(';').next().unwrap().to_owned();
        let mut browser = Browser { cookie, token: String::new() };
        let page = self.get("/console/keys", Some(&browser)).await;
        browser.token = between(&page.text, "name=\"perilune-token\" content=\"", "\"").to_owned();
        browser
    }

    async fn keys(&self) -> Vec<Key> {
        self.app.store().keys().await.unwrap()
    }
}

fn request(method: Method, path: &str, browser: Option<&Browser>) -> http::request::Builder {
    let request = Request::builder().method(method).uri(path).header(header::HOST, HOST);
    match browser {
        Some(browser) => request.header(header::COOKIE, format!("other=1; {}", browser.cookie)),
        None => request,
    }
}

fn form(request: http::request::Builder, fields: &[(&str, &str)]) -> Request<Body> {
    let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    let kind = "application/x-www-form-urlencoded";
    request.header(header::CONTENT_TYPE, kind).body(Body::from(pairs.join("&"))).unwrap()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("{before:?} in {text}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("{after:?} in {rest}")).0
}

const PAGES: [&str; 6] =
    ["/console/chat", "/console/keys", "/console/prices", "/console/usage", "/console/api", "/console/model"];

#[tokio::test]
async fn every_page_needs_a_login() {
    let house = House::new().await;
    for path in PAGES {
        let answer = house.get(path, None).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path}");
        assert_eq!(answer.headers[header::LOCATION], format!("/console/login?next={path}"));
        let forged = Browser { cookie: format!("{COOKIE}={}", "0".repeat(64)), token: String::new() };
        assert_eq!(house.get(path, Some(&forged)).await.status, StatusCode::SEE_OTHER, "{path}");
    }
    let browser = house.login().await;
    for path in PAGES {
        let answer = house.get(path, Some(&browser)).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert!(answer.text.contains(&format!("href=\"{path}\" aria-current=\"page\"")), "{path}");
    }
}

#[tokio::test]
async fn only_an_admin_key_in_force_logs_in() {
    let house = House::new().await;
    let store = house.app.store();
    let api = store.create_key("api", KeyKind::Api, KeyLimits::default(), None).await.unwrap().secret;
    let ended = store.create_key("ended", KeyKind::Admin, KeyLimits::default(), None).await.unwrap();
    store.revoke_key(&ended.key.id.to_string()).await.unwrap();
    for key in ["", "sk-wrong", &api, &ended.secret] {
        let answer = house.post("/console/login", None, &[("key", key)]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{key}");
        assert!(!answer.headers.contains_key(header::SET_COOKIE));
        assert!(key.is_empty() || !answer.text.contains(key), "the page repeats what was typed");
    }
    assert!(first_admin_key(store).await.unwrap().is_none(), "there is one already");
}

#[tokio::test]
async fn the_cookie_is_for_this_site_and_no_script() {
    let house = House::new().await;
    let cookie = async |house: &House| {
        let answer = house.post("/console/login", None, &[("key", &house.admin)]).await;
        answer.headers[header::SET_COOKIE].to_str().unwrap().to_owned()
    };
    let line = cookie(&house).await;
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!line.contains("Secure"));
    assert!(cookie(&House::with(Console::new(None, true)).await).await.ends_with("; Secure"));
    assert!(!line.contains(&house.admin));
}

#[tokio::test]
async fn a_login_goes_to_known_pages_only() {
    let house = House::new().await;
    for (next, to) in [
        ("/console/usage", "/console/usage"),
        ("/console/keys/7", "/console/keys/7"),
        ("/console/usages", "/console/"),
        ("/console/keys/7?a=b", "/console/"),
        ("https://example.com/", "/console/"),
        ("//example.com", "/console/"),
        ("", "/console/"),
    ] {
        let answer = house.post("/console/login", None, &[("key", &house.admin), ("next", next)]).await;
        assert_eq!(answer.headers[header::LOCATION], to, "{next}");
    }
    let page = house.get("/console/login?next=%22%3E%3Cscript%3E", None).await;
    assert!(page.text.contains("&quot;&gt;&lt;script&gt;") && !page.text.contains("\"><script>"));
}

#[tokio::test]
async fn foreign_forms_are_refused() {
    let house = House::new().await;
    let browser = house.login().await;
    let n_keys = house.keys().await.len();
    let path = "/console/keys";
    let without = house.post(path, Some(&browser), &[("name", "x")]).await;
    assert_eq!(without.status, StatusCode::FORBIDDEN);
    let wrong = house.post(path, Some(&browser), &[("name", "x"), ("form_token", &"0".repeat(64))]).await;
    assert_eq!(wrong.status, StatusCode::FORBIDDEN);
    let other = house.login().await;
    let others = house.post(path, Some(&browser), &[("name", "x"), ("form_token", &other.token)]).await;
    assert_eq!(others.status, StatusCode::FORBIDDEN, "another session's token");
    let anonymous = house.post(path, None, &[("name", "x"), ("form_token", &browser.token)]).await;
    assert_eq!(anonymous.status, StatusCode::FORBIDDEN);
    let fields = [("name", "x"), ("form_token", browser.token.as_str())];
    for (name, value) in [
        ("origin", "http://example.com"),
        ("origin", "http://127.0.0.1:9090"),
        ("origin", "null"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "cross-site"),
    ] {
        for (path, browser) in [(path, Some(&browser)), ("/console/login", None)] {
            let foreign = request(Method::POST, path, browser).header(name, value);
            assert_eq!(house.send(form(foreign, &fields)).await.status, StatusCode::FORBIDDEN, "{value}");
        }
    }
    assert_eq!(house.keys().await.len(), n_keys, "nothing was made");
    let own = request(Method::POST, path, Some(&browser))
        .header("origin", format!("http://{HOST}"))
        .header("sec-fetch-site", "same-origin");
    assert_eq!(house.send(form(own, &fields)).await.status, StatusCode::SEE_OTHER);
    assert_eq!(house.keys().await.len(), n_keys + 1);
}

#[tokio::test]
async fn a_token_is_shown_once_works_and_ends() {
    let house = House::new().await;
    let browser = house.login().await;
    let fields = [
        ("name", "reader"),
        ("kind", "api"),
        ("requests_per_min", "60"),
        ("tokens_per_min", ""),
        ("concurrency", " 2 "),
        ("balance", "2.5"),
    ];
    let made = house.submit("/console/keys", &browser, &fields).await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.text);
    let first = house.get("/console/keys", Some(&browser)).await;
    let secret = format!("sk-{}", between(&first.text, "tabindex=\"0\">sk-", "<"));
    assert_eq!(secret.len(), 67);
    let again = house.get("/console/keys", Some(&browser)).await;
    assert!(!again.text.contains(&secret), "it is shown once");
    assert!(again.text.contains("reader") && again.text.contains(&format!("{}…", &secret[..10])));
    let key = house.keys().await.pop().unwrap();
    assert_eq!(
        (key.limits.requests_per_min, key.limits.tokens_per_min, key.limits.concurrency),
        (Some(60), None, Some(2))
    );
    assert_eq!(key.balance.unwrap().nano, 2_500_000_000);

    let models = async || {
        let request = request(Method::GET, "/v1/models", None);
        let request = request.header(header::AUTHORIZATION, format!("Bearer {secret}"));
        house.send(request.body(Body::empty()).unwrap()).await.status
    };
    assert_eq!(models().await, StatusCode::OK);
    let ended = house.submit(&format!("/console/keys/{}/revoke", key.id), &browser, &[]).await;
    assert_eq!(ended.status, StatusCode::SEE_OTHER);
    assert_eq!(models().await, StatusCode::UNAUTHORIZED);
    assert!(house.get("/console/keys", Some(&browser)).await.text.contains("revoked"));
}

#[tokio::test]
async fn wrong_fields_are_told_and_kept() {
    let house = House::new().await;
    let browser = house.login().await;
    let n_keys = house.keys().await.len();
    let long = "x".repeat(101);
    for fields in [
        [("name", " "), ("balance", "")],
        [("name", long.as_str()), ("balance", "")],
        [("name", "two\nlines"), ("balance", "")],
        [("name", "kept"), ("requests_per_min", "0")],
        [("name", "kept"), ("tokens_per_min", "-1")],
        [("name", "kept"), ("concurrency", "4294967296")],
        [("name", "kept"), ("balance", "NaN")],
        [("name", "kept"), ("balance", "-1")],
        [("name", "kept"), ("balance", "1e300")],
        [("name", "kept"), ("kind", "root")],
    ] {
        let answer = house.submit("/console/keys", &browser, &fields).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{fields:?}");
        assert!(answer.text.contains("role=\"alert\""), "{fields:?}");
        assert!(answer.text.contains(&format!("value=\"{}\"", fields[0].1)), "{fields:?}");
    }
    let huge = "x".repeat(2 << 20);
    let answer = house.submit("/console/keys", &browser, &[("name", &huge)]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(house.keys().await.len(), n_keys);
}

#[tokio::test]
async fn the_last_admin_key_stays() {
    let house = House::new().await;
    let browser = house.login().await;
    let path = format!("/console/keys/{}/revoke", house.keys().await[0].id);
    let refused = house.submit(&path, &browser, &[]).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    house.submit("/console/keys", &browser, &[("name", "second"), ("kind", "admin")]).await;
    assert_eq!(house.submit(&path, &browser, &[]).await.status, StatusCode::SEE_OTHER);
    let after = house.get("/console/keys", Some(&browser)).await;
    assert_eq!(after.status, StatusCode::SEE_OTHER, "the login ends with its key");
    assert_eq!(house.submit("/console/keys/999/revoke", &browser, &[]).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_session_ends_with_its_logout() {
    let house = House::new().await;
    let browser = house.login().await;
    assert_eq!(house.get("/console/logout", Some(&browser)).await.status, StatusCode::METHOD_NOT_ALLOWED);
    let answer = house.submit("/console/logout", &browser, &[]).await;
    assert!(answer.headers[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(house.get("/console/keys", Some(&browser)).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn hostile_names_stay_text() {
    let card = ModelCard {
        name: HOSTILE.to_owned(),
        architecture: vec![(HOSTILE.to_owned(), HOSTILE.to_owned())],
        memory: vec![Memory { name: HOSTILE.to_owned(), bytes: 1, note: HOSTILE.to_owned() }],
        verdict: Some(HOSTILE.to_owned()),
        kernels: vec![(HOSTILE.to_owned(), HOSTILE.to_owned())],
        ..ModelCard::default()
    };
    let house = House::with(Console::new(Some(card), false)).await;
    let browser = house.login().await;
    house.submit("/console/keys", &browser, &[("name", HOSTILE)]).await;
    let price = [("model", HOSTILE), ("input", "1"), ("output", "2")];
    assert_eq!(house.submit("/console/prices", &browser, &price).await.status, StatusCode::SEE_OTHER);
    let key = house.keys().await.pop().unwrap();
    assert_eq!(key.name, HOSTILE);
    line(&house.app, "r1", Some(key.id), HOSTILE, Status::Done, [1, 0, 1, 0]).await;
    let try_it = [("path", "/v1/chat/completions"), ("body", "</textarea><script>alert(1)</script>")];
    let tried = house.submit("/console/api", &browser, &try_it).await;
    assert!(tried.text.contains("&lt;/textarea&gt;&lt;script&gt;") && tried.text.contains("400"));
    let mut pages = vec![tried.text];
    pages.push(house.get(&format!("/console/keys/{}", key.id), Some(&browser)).await.text);
    for path in PAGES {
        pages.push(house.get(path, Some(&browser)).await.text);
    }
    let hostile_host = Request::builder().uri("/console/api").header(header::HOST, "\"><script>x");
    let hostile_host = hostile_host.header(header::COOKIE, &browser.cookie).body(Body::empty()).unwrap();
    pages.push(house.send(hostile_host).await.text);
    for page in &pages {
        for script in page.split("<script").skip(1) {
            assert!(script.starts_with(" type=\"module\" src=\"/console/static/"), "{script:.80}");
        }
        assert!(!page.contains("style=\"") && !page.contains(" onclick"), "the policy forbids inline code");
    }
    assert!(pages.iter().filter(|page| page.contains("&lt;script&gt;alert(1)&lt;/script&gt;")).count() >= 4);
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let house = House::new().await;
    let browser = house.login().await;
    let static_file = "/console/static/console.css";
    for (path, browser) in
        [("/console/login", None), ("/console/keys", Some(&browser)), ("/console/keys", None)]
            .into_iter()
            .chain([(static_file, None), ("/", None)])
    {
        let headers = house.get(path, browser).await.headers;
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        for part in ["default-src 'none'", "script-src 'self';", "frame-ancestors 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        assert_eq!(headers[header::X_FRAME_OPTIONS], "DENY", "{path}");
        let cache = if path == static_file { "no-cache" } else { "no-store" };
        assert_eq!(headers[header::CACHE_CONTROL], cache, "{path}");
    }
    assert_eq!(house.get("/console/static/..%2FCargo.toml", None).await.status, StatusCode::NOT_FOUND);
}

/// A settled line of the ledger: prompt, cached, completion, reasoning tokens.
async fn line(app: &App, id: &str, key_id: Option<i64>, model: &str, status: Status, tokens: [u64; 4]) {
    let [prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens] = tokens;
    let opened = Opened {
        request_id: id.to_owned(),
        key_id,
        model: model.to_owned(),
        class: "throughput",
        route: "/v1/chat/completions",
    };
    app.store().open_line(opened).await.unwrap();
    let usage = Usage { prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens };
    app.store().settle_line(id.to_owned(), Outcome { status, usage });
}

#[tokio::test]
async fn the_usage_page_shows_the_ledgers_numbers() {
    let house = House::new().await;
    let browser = house.login().await;
    let empty = house.get("/console/usage", Some(&browser)).await.text;
    assert!(empty.contains("Cost: $0.00 in all") && empty.contains("None in this period."), "{empty}");
    let store = house.app.store();
    let key = store.create_key("reader", KeyKind::Api, KeyLimits::default(), None).await.unwrap().key;
    line(&house.app, "r1", Some(key.id), "kimi-k2-thinking", Status::Done, [1_000, 400, 500, 300]).await;
    line(&house.app, "r2", Some(key.id), "kimi-k2-thinking-turbo", Status::Cancelled, [2_000, 0, 100, 0])
        .await;
    line(&house.app, "r3", None, "kimi-k2-thinking", Status::Failed, [10, 0, 0, 0]).await;
    let page = house.get("/console/usage?days=7", Some(&browser)).await.text;
    // 600·0.60 + 400·0.15 + 500·2.50 and 2000·1.15 + 100·8.00 dollars a million; what failed costs nothing.
    for expected in [
        ": 2,610 prompt</title>",
        ": 400 prompt, cached</title>",
        ": 300 thinking</title>",
        ": 300 answer</title>",
        ": 3 requests</title>",
        "Tokens: 3,610 in all",
        "Cost: $0.0048 in all",
        "<td class=\"number\">0.001670</td>",
        "<td class=\"number\">0.003100</td>",
        "<td class=\"number\">0.004770</td>",
        "without a token",
        "<code>r2</code>",
        "cancelled",
    ] {
        assert!(page.contains(expected), "{expected} in {page}");
    }
    let mine = house.get(&format!("/console/usage?days=1&key={}", key.id), Some(&browser)).await.text;
    assert!(mine.contains(": 2 requests</title>") && !mine.contains("<code>r3</code>"));
    for query in ["?days=x&key=y", "?days=-1", "?key=999999", "?days=999999999999"] {
        let answer = house.get(&format!("/console/usage{query}"), Some(&browser)).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}");
        assert!(!answer.text.contains("NaN"), "{query}");
    }
}

#[tokio::test]
async fn the_api_page_names_this_server_and_asks_it() {
    let house = House::new().await;
    let browser = house.login().await;
    let page = house.get("/console/api", Some(&browser)).await.text;
    assert!(page.contains(&format!("http://{HOST}/v1/chat/completions")));
    assert!(page.contains("OpenAI(base_url=&quot;http://127.0.0.1:8080/v1&quot;"));
    let tried = house.submit("/console/api", &browser, &[("path", "/v1/models")]).await;
    assert!(
        tried.text.contains("Answer: 200 OK") && tried.text.contains("&quot;object&quot;: &quot;list&quot;")
    );
    let unknown = house.submit("/console/api", &browser, &[("path", "/console/keys")]).await;
    assert!(unknown.text.contains("Choose one of the endpoints"));
}

#[tokio::test]
async fn scripts_need_the_token_beside_the_cookie() {
    let house = House::new().await;
    let browser = house.login().await;
    house.app.store().create_key("api", KeyKind::Api, KeyLimits::default(), None).await.unwrap();
    let ask = async |token: Option<&str>, with_cookie: bool| {
        let mut ask = request(Method::GET, "/v1/models", with_cookie.then_some(&browser));
        if let Some(token) = token {
            ask = ask.header("x-perilune-token", token);
        }
        house.send(ask.body(Body::empty()).unwrap()).await.status
    };
    assert_eq!(ask(Some(&browser.token), true).await, StatusCode::OK);
    assert_eq!(ask(None, true).await, StatusCode::UNAUTHORIZED, "a cookie alone opens nothing");
    assert_eq!(ask(Some("wrong"), true).await, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(Some(&browser.token), false).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_admin_key_alone_leaves_loopback_open() {
    let house = House::new().await;
    assert_eq!(house.get("/v1/models", None).await.status, StatusCode::OK);
    house.app.store().create_key("api", KeyKind::Api, KeyLimits::default(), None).await.unwrap();
    assert_eq!(house.get("/v1/models", None).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_licences_line_stands_where_k2_runs() {
    let house = House::with(Console::new(None, false)).await;
    assert!(!house.get("/console/login", None).await.text.contains("Kimi K2"));
    let card = ModelCard { is_kimi_k2: true, ..ModelCard::default() };
    let house = House::with(Console::new(Some(card), false)).await;
    let browser = house.login().await;
    for path in PAGES {
        assert!(house.get(path, Some(&browser)).await.text.contains("Kimi K2</span>"), "{path}");
    }
    assert!(house.get("/console/login", None).await.text.contains("Kimi K2</span>"));
}

#[tokio::test]
async fn guests_stand_behind_the_same_login_in_the_same_frame() {
    let console = Console::new(None, false);
    let entry = Entry { path: "/console/runs".to_owned(), name: "Runs".to_owned() };
    let show = async |console: axum::Extension<Console>, session: axum::Extension<Session>| {
        axum::response::Html(console.guest_page(&session, "/console/runs", "Runs", "<p>three runs</p>"))
    };
    let guests = Router::new().route("/console/runs", axum::routing::get(show).post(async || "done"));
    let house = House::with(console.with_guests(vec![entry], guests)).await;
    assert_eq!(house.get("/console/runs", None).await.status, StatusCode::SEE_OTHER);
    let browser = house.login().await;
    let page = house.get("/console/runs", Some(&browser)).await.text;
    assert!(page.contains("<p>three runs</p>") && page.contains("href=\"/console/runs\" aria-current"));
    assert!(house.get("/console/keys", Some(&browser)).await.text.contains("href=\"/console/runs\">Runs"));
    assert_eq!(house.post("/console/runs", Some(&browser), &[]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(house.submit("/console/runs", &browser, &[]).await.text, "done");
}
