//! The files of the pages, part of the binary.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

/// Name, media type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("console.css", "text/css; charset=utf-8", include_str!("../../assets/console.css")),
    ("chat.js", "text/javascript; charset=utf-8", include_str!("../../assets/chat.js")),
    ("copy.js", "text/javascript; charset=utf-8", include_str!("../../assets/copy.js")),
    ("moon.svg", "image/svg+xml", include_str!("../../assets/moon.svg")),
];

/// One file; browsers ask again whenever a page is opened, so an upgrade shows at once.
pub(super) async fn serve(Path(name): Path<String>) -> Response {
    let Some((_, kind, content)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    ([(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, "no-cache")], *content).into_response()
}
