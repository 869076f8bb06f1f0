//! The frame around every page: head, navigation, footer. All text is escaped by the template's macro.

use super::{Console, Session};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// A page of the navigation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path of its address, such as `/console/chat`.
    pub path: String,
    /// Its name in the navigation.
    pub name: String,
}

impl Console {
    /// A page in the frame; `path` is marked in the navigation, `title` heads it.
    #[must_use]
    pub fn page(&self, session: &Session, path: &str, title: &str, body: &Markup) -> Markup {
        let header = html! {
            nav aria-label="Pages" {
                @for entry in self.entries() {
                    a href=(entry.path) aria-current=[(entry.path == path).then_some("page")] { (entry.name) }
                }
            }
            form.leave method="post" action="/console/logout" {
                (token_field(session))
                button.quiet type="submit" { "Log out" }
            }
        };
        let main = html! { h1 { (title) } (body) };
        self.document(title, Some(&session.token), &header, &main)
    }

    /// The same for pages of elsewhere: `body` is HTML that its maker has escaped.
    #[must_use]
    pub fn guest_page(&self, session: &Session, path: &str, title: &str, body: &str) -> String {
        self.page(session, path, title, &PreEscaped(body.to_owned())).into_string()
    }

    /// A page for whoever is not logged in.
    pub(super) fn bare_page(&self, title: &str, body: &Markup) -> Markup {
        self.document(title, None, &html! {}, &html! { div.narrow { h1 { (title) } (body) } })
    }

    fn document(&self, title: &str, token: Option<&str>, header: &Markup, main: &Markup) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    @if let Some(token) = token { meta name="perilune-token" content=(token); }
                    title { (title) " · Perilune" }
                    link rel="icon" href="/console/static/moon.svg" type="image/svg+xml";
                    link rel="stylesheet" href="/console/static/console.css";
                    script type="module" src="/console/static/copy.js" {}
                }
                body {
                    a.skip href="#main" { "To the content" }
                    header.top {
                        div.brand {
                            a href="/console/" { "Perilune" }
                            @if self.is_kimi_k2() { span.weights { "Kimi K2" } }
                        }
                        (header)
                    }
                    main id="main" tabindex="-1" { (main) }
                    footer {
                        "Perilune " (env!("CARGO_PKG_VERSION"))
                        @if self.is_kimi_k2() { " · running the weights of Kimi K2, by Moonshot AI" }
                    }
                }
            }
        }
    }
}

/// The hidden field [`super::TOKEN_FIELD`], which every form of a logged-in page carries.
#[must_use]
pub fn token_field(session: &Session) -> Markup {
    html! { input type="hidden" name=(super::session::TOKEN_FIELD) value=(session.token); }
}

/// A sentence that something went wrong, read out when the page opens.
pub(super) fn alert(message: Option<&str>) -> Markup {
    html! { @if let Some(message) = message { p.alert role="alert" { (message) } } }
}

/// A wide table that narrow screens scroll, by keyboard too.
pub(super) fn scroll(label: &str, table: &Markup) -> Markup {
    html! { div.scroll role="region" aria-label=(label) tabindex="0" { (table) } }
}
