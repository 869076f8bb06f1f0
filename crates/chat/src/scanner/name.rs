//! Which tool does a call id name?

/// The tool's name in a call id such as `functions.search:3` (Kimi K2 report, appendix B); `None` where nothing is
/// left of it.
///
/// The name is what stands between the first `functions.` and the last `:`, dots and hyphens included. Where that is
/// no declared name, the id without its number, or a part after one of its dots, is taken if it is one.
#[must_use]
pub fn tool_name(id: &str, declared: &[String]) -> Option<String> {
    let id = id.trim();
    let whole = id.rsplit_once(':').map_or(id, |(name, _)| name).trim_end();
    let name = whole.strip_prefix("functions.").unwrap_or(whole).trim();
    let is_declared = |candidate: &&str| declared.iter().any(|one| one == candidate);
    let after_dots = whole.match_indices('.').map(|(dot, _)| whole[dot + 1..].trim());
    let known = [name, whole].into_iter().chain(after_dots).find(is_declared);
    Some(known.unwrap_or(name)).filter(|name| !name.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_odd_ids() {
        let declared = ["mcp.files.read-all".to_owned(), "functions.odd".to_owned(), "search".to_owned()];
        for (id, known, unknown) in [
            ("functions.search:0", "search", "search"),
            ("search:2", "search", "search"),
            ("search", "search", "search"),
            (" functions.search : 1 ", "search", "search"),
            ("functions.mcp.files.read-all:12", "mcp.files.read-all", "mcp.files.read-all"),
            ("functions.functions.odd:0", "functions.odd", "functions.odd"),
            ("functions.odd:0", "functions.odd", "odd"),
            ("tools.search:0", "search", "tools.search"),
            ("functions.search:x", "search", "search"),
            ("functions.unheard-of:0", "unheard-of", "unheard-of"),
        ] {
            assert_eq!(tool_name(id, &declared).as_deref(), Some(known), "{id:?} with declared tools");
            assert_eq!(tool_name(id, &[]).as_deref(), Some(unknown), "{id:?} without");
        }
        for id in ["", ":", "functions.:0", "functions.", " :7"] {
            assert_eq!(tool_name(id, &declared), None, "{id:?}");
        }
    }
}
