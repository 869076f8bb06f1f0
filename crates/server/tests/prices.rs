//! Prices, limits and balances that change while the server runs: by the console's forms, with the next request.

#![allow(clippy::unwrap_used)]

mod common;

use axum::body::Body;
use common::{House, chat};
use http::{Request, StatusCode, header};
use perilune_server::console::{Console, first_admin_key};
use perilune_server::routes;
use perilune_server::store::{BalanceChange, KeyChange, KeyKind, KeyLimits, Price, Store, StoreError, Usd};
use serde_json::json;
use std::time::Duration;

/// A logged-in browser: its cookie and the token of its forms.
struct Browser {
    cookie: String,
    token: String,
}

async fn house(store: &Store) -> (House, Browser) {
    let admin = first_admin_key(store).await.unwrap().unwrap().secret;
    let mut house = House::with(Duration::ZERO, store.clone());
    let console = Console::new(None, false);
    house.router = routes::router(house.app.clone(), console.routes(&house.app));
    let mut browser = Browser { cookie: String::new(), token: String::new() };
    let (_, headers, _) = form(&house, "/console/login", &browser, &[("key", &admin)]).await;
    let line = headers[header::SET_COOKIE].to_str().unwrap();
    browser.cookie = line.split(';').next().unwrap().to_owned();
    let page = get(&house, "/console/prices", &browser).await;
    let token = page.split_once("name=\"perilune-token\" content=\"").unwrap().1;
    browser.token = token.split('"').next().unwrap().to_owned();
    (house, browser)
}

async fn form(
    house: &House,
    path: &str,
    browser: &Browser,
    fields: &[(&str, &str)],
) -> (StatusCode, http::HeaderMap, String) {
    let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let token = (!browser.token.is_empty()).then_some(("form_token", browser.token.as_str()));
    let fields = fields.iter().copied().chain(token);
    let pairs: Vec<String> =
        fields.map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    let request = Request::post(path)
        .header(header::HOST, "127.0.0.1")
        .header(header::COOKIE, &browser.cookie)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let response = house.send(request.body(Body::from(pairs.join("&"))).unwrap()).await;
    let (status, headers) = (response.status(), response.headers().clone());
    (status, headers, common::text(response).await)
}

async fn get(house: &House, path: &str, browser: &Browser) -> String {
    let request =
        Request::get(path).header(header::HOST, "127.0.0.1").header(header::COOKIE, &browser.cookie);
    common::text(house.send(request.body(Body::empty()).unwrap()).await).await
}

/// Asks for `n` tokens with a key; the status.
async fn ask(house: &House, secret: &str, n: u32) -> u16 {
    let text = house.script(&"word ".repeat(50));
    house.post_as("/v1/chat/completions", Some(secret), &chat(&text, &json!({ "max_tokens": n }))).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_set_in_the_console_is_charged_from_the_next_request_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("perilune.db");
    let store = Store::open(&path).unwrap();
    let (house, browser) = house(&store).await;
    let new = store.create_key("k", KeyKind::Api, KeyLimits::default(), Some(Usd::from_dollars(100.0))).await;
    let new = new.unwrap();
    let balance =
        async || store.keys().await.unwrap().into_iter().find(|key| key.id == new.key.id).unwrap().balance;
    let spent = async |n: u32| {
        store.flush().await.unwrap();
        let before = balance().await.unwrap().nano;
        assert_eq!(ask(&house, &new.secret, n).await, 200);
        store.flush().await.unwrap();
        before - balance().await.unwrap().nano
    };
    let model = ("model", "kimi-k2-thinking");
    let set = [model, ("input", "0"), ("cached", "0"), ("output", "1000")];
    let (status, headers, text) = form(&house, "/console/prices", &browser, &set).await;
    assert_eq!(
        (status, headers[header::LOCATION].to_str().unwrap()),
        (StatusCode::SEE_OTHER, "/console/prices"),
        "{text}"
    );
    assert_eq!(spent(4).await, 4 * 1_000_000, "four tokens at a thousandth of a dollar");
    let again = [model, ("input", "1"), ("cached", ""), ("output", "0")];
    form(&house, "/console/prices", &browser, &again).await;
    let price = store.price("kimi-k2-thinking").await.unwrap().unwrap();
    assert_eq!(
        price,
        Price::per_million(1.0, 1.0, 0.0),
        "cached input costs as input where it is left empty"
    );
    assert!(get(&house, "/console/prices", &browser).await.contains("1.000"));
    assert_eq!(form(&house, "/console/prices/remove", &browser, &[model]).await.0, StatusCode::SEE_OTHER);
    assert_eq!(spent(4).await, 0, "without a price nothing is charged");
    form(&house, "/console/prices", &browser, &set).await;
    drop(house);
    let kept = Store::open(&path).unwrap().price("kimi-k2-thinking").await.unwrap();
    assert_eq!(kept, Some(Price::per_million(0.0, 0.0, 1000.0)), "it is in the file");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_balances_follow_with_the_next_request() {
    let store = Store::in_memory().unwrap();
    let (house, browser) = house(&store).await;
    let limits = KeyLimits { requests_per_min: Some(1), ..KeyLimits::default() };
    let new = store.create_key("k", KeyKind::Api, limits, None).await.unwrap();
    let path = format!("/console/keys/{}", new.key.id);
    assert_eq!((ask(&house, &new.secret, 1).await, ask(&house, &new.secret, 1).await), (200, 429));
    let raise = [("requests_per_min", ""), ("tokens_per_min", ""), ("concurrency", "3")];
    let (status, _, text) = form(&house, &path, &browser, &raise).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{text}");
    assert_eq!(ask(&house, &new.secret, 1).await, 200, "the limit is gone");
    assert!(get(&house, &path, &browser).await.contains("name=\"concurrency\" value=\"3\""));
    form(&house, &path, &browser, &[("tokens_per_min", "1")]).await;
    assert_eq!(
        ask(&house, &new.secret, 1).await,
        200,
        "a full bucket lets one request larger than itself in"
    );
    assert_eq!(ask(&house, &new.secret, 1).await, 429);
    form(&house, &path, &browser, &[]).await;

    let money = format!("{path}/balance");
    let (status, _, text) = form(&house, &money, &browser, &[("what", "add"), ("amount", "5")]).await;
    assert_eq!((status, text.contains("no balance to add to")), (StatusCode::CONFLICT, true), "{text}");
    form(&house, &money, &browser, &[("what", "set"), ("amount", "0")]).await;
    assert_eq!(ask(&house, &new.secret, 1).await, 429, "used up");
    form(&house, &money, &browser, &[("what", "add"), ("amount", "0.5")]).await;
    assert_eq!(ask(&house, &new.secret, 1).await, 200, "topped up");
    form(&house, &money, &browser, &[("what", "none"), ("amount", "")]).await;
    assert_eq!(store.keys().await.unwrap().pop().unwrap().balance, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_elsewhere_and_wrong_values_change_nothing() {
    let store = Store::in_memory().unwrap();
    let (house, browser) = house(&store).await;
    let new = store
        .create_key("k", KeyKind::Api, KeyLimits::default(), Some(Usd::from_dollars(1.0)))
        .await
        .unwrap();
    let state = async || (store.prices().await.unwrap(), store.keys().await.unwrap());
    let before = state().await;
    let (path, money) =
        (format!("/console/keys/{}", new.key.id), format!("/console/keys/{}/balance", new.key.id));
    let bare = Browser { cookie: browser.cookie.clone(), token: String::new() };
    for (path, fields) in [
        (path.as_str(), vec![("concurrency", "1")]),
        (&money, vec![("what", "add"), ("amount", "5")]),
        ("/console/prices", vec![("model", "m"), ("input", "1"), ("output", "1")]),
        ("/console/prices/remove", vec![("model", "kimi-k2-thinking")]),
    ] {
        assert_eq!(
            form(&house, path, &bare, &fields).await.0,
            StatusCode::FORBIDDEN,
            "{path} without a token"
        );
    }
    for amount in ["", "x", "NaN", "inf", "1e300"] {
        let (status, _, text) = form(&house, &money, &browser, &[("what", "set"), ("amount", amount)]).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{amount}");
        assert!(text.contains("role=\"alert\""));
        let price = [("model", "m"), ("input", amount), ("output", "1")];
        assert_eq!(
            form(&house, "/console/prices", &browser, &price).await.0,
            StatusCode::UNPROCESSABLE_ENTITY
        );
    }
    for limit in ["0", "-1", "1.5", "4294967296"] {
        let sent = form(&house, &path, &browser, &[("tokens_per_min", limit)]).await;
        assert_eq!(sent.0, StatusCode::UNPROCESSABLE_ENTITY, "{limit}");
    }
    let negative = form(&house, &money, &browser, &[("what", "set"), ("amount", "-1")]).await;
    assert_eq!(negative.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(form(&house, "/console/keys/999", &browser, &[]).await.0, StatusCode::NOT_FOUND);
    assert_eq!(state().await, before);
}

#[tokio::test]
async fn what_cannot_change_says_why() {
    let store = Store::in_memory().unwrap();
    let new = store.create_key("k", KeyKind::Api, KeyLimits::default(), None).await.unwrap();
    let id = new.key.id.to_string();
    let add = KeyChange { balance: Some(BalanceChange::Add(Usd::from_dollars(1.0))), ..KeyChange::default() };
    assert!(matches!(store.change_key(&id, add).await, Err(StoreError::NoBalance { .. })));
    let set =
        KeyChange { balance: Some(BalanceChange::Set(Some(Usd { nano: i64::MAX }))), ..KeyChange::default() };
    store.change_key(&new.secret, set).await.unwrap();
    assert_eq!(
        store.change_key(&id, add).await.unwrap().balance,
        Some(Usd { nano: i64::MAX }),
        "sums stop at the end"
    );
    store.revoke_key(&id).await.unwrap();
    assert!(matches!(store.change_key(&id, add).await, Err(StoreError::Revoked { .. })));
    assert!(matches!(store.change_key("77", add).await, Err(StoreError::NoSuchKey { .. })));
    assert!(matches!(store.remove_price("none").await, Err(StoreError::NoSuchPrice { .. })));
}
