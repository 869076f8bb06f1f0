//! A body as text for the model.

/// Elements whose content no reader sees.
const UNSEEN: [&str; 9] =
    ["script", "style", "noscript", "template", "iframe", "object", "svg", "head", "nav"];

/// HTML as Markdown.
///
/// # Errors
/// The converter's, where the text cannot be read as HTML.
pub fn to_markdown(html: &str) -> std::io::Result<String> {
    let text = htmd::HtmlToMarkdown::builder().skip_tags(UNSEEN.to_vec()).build().convert(html)?;
    Ok(text.trim().to_owned())
}

/// A body as text, by its content type; `None` for what is no text.
pub(super) fn to_text(content_type: &str, body: &[u8]) -> Option<String> {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_latin = content_type.to_ascii_lowercase().contains("charset=iso-8859-1");
    let decoded = || match is_latin {
        true => body.iter().map(|byte| char::from(*byte)).collect(),
        false => String::from_utf8_lossy(body).into_owned(),
    };
    match kind.as_str() {
        "text/html" | "application/xhtml+xml" => to_markdown(&decoded()).ok(),
        "application/json" | "application/xml" | "application/javascript" => Some(decoded()),
        kind if kind.starts_with("text/") || kind.ends_with("+json") || kind.ends_with("+xml") => {
            Some(decoded())
        }
        "" => std::str::from_utf8(body).ok().map(str::to_owned),
        _ => None,
    }
}
