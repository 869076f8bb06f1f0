//! ECMA-262 regular expressions (the `pattern` of JSON Schema) in the dialect of the constraint library.

use llguidance::derivre::RegexBuilder;
use llguidance::regex_to_lark;
use regex_syntax::hir::Look;

/// White space that every dialect agrees on; `\s` generates only these.
const SPACE: &str = r" \t\n\r\f\x0B";
/// White space of any dialect; `\S` generates none of these.
const SPACE_ANY: &str = r"\s\x1C-\x1F\x{85}\x{FEFF}";
/// What `.` does not match in ECMA-262.
const LINE_ENDS: &str = r"\n\r\x{2028}\x{2029}";

/// The expression rewritten so that what it generates matches `pattern` as ECMA-262 reads it, or why it cannot be.
pub(super) fn translate(pattern: &str) -> Result<String, &'static str> {
    let mut translator = Translator { rest: pattern.chars().peekable(), out: String::new() };
    translator.run()?;
    compiles(&translator.out)?;
    Ok(translator.out)
}

/// Most bytes of a text that matches a translated pattern, where it is anchored on both sides and finite.
pub(super) fn most_bytes(translated: &str) -> Option<u64> {
    let hir = regex_syntax::parse(&regex_to_lark(translated, "dw")).ok()?;
    let properties = hir.properties();
    let is_anchored = properties.look_set_prefix().contains(Look::Start)
        && properties.look_set_suffix().contains(Look::End);
    if is_anchored { properties.maximum_len().map(|n_bytes| n_bytes as u64) } else { None }
}

/// Whether the constraint library can read the expression.
fn compiles(pattern: &str) -> Result<(), &'static str> {
    let unreadable = "the pattern uses a construct that cannot be generated";
    RegexBuilder::new().mk_regex_for_serach(&regex_to_lark(pattern, "dw")).map(|_| ()).map_err(|_| unreadable)
}

struct Translator<'p> {
    rest: std::iter::Peekable<std::str::Chars<'p>>,
    out: String,
}

impl Translator<'_> {
    fn run(&mut self) -> Result<(), &'static str> {
        while let Some(c) = self.rest.next() {
            match c {
                '\\' => self.escape(false, false)?,
                '[' => self.class()?,
                '.' => self.out.push_str(&format!("[^{LINE_ENDS}]")),
                '(' => self.group()?,
                _ => self.out.push(c),
            }
        }
        Ok(())
    }

    /// After `(`: plain, non-capturing and named groups are kept as groups.
    fn group(&mut self) -> Result<(), &'static str> {
        self.out.push_str("(?:");
        if self.rest.peek() != Some(&'?') {
            return Ok(());
        }
        self.rest.next();
        match self.rest.next() {
            Some(':') => Ok(()),
            Some('<') => self.group_name(),
            Some('P') if self.rest.next() == Some('<') => self.group_name(),
            _ => Err("lookaround and inline flags cannot be generated"),
        }
    }

    fn group_name(&mut self) -> Result<(), &'static str> {
        if matches!(self.rest.peek(), Some('=' | '!')) {
            return Err("lookaround and inline flags cannot be generated");
        }
        self.rest.by_ref().find(|&c| c == '>').map(|_| ()).ok_or("the pattern has an unfinished group name")
    }

    /// After `[`: brackets and set operators inside are literal in ECMA-262.
    fn class(&mut self) -> Result<(), &'static str> {
        let negated = self.rest.next_if_eq(&'^').is_some();
        self.out.push_str(if negated { "[^" } else { "[" });
        if self.rest.peek() == Some(&']') {
            return Err("empty character classes cannot be generated");
        }
        while let Some(c) = self.rest.next() {
            match c {
                ']' => {
                    self.out.push(']');
                    return Ok(());
                }
                '\\' => self.escape(true, negated)?,
                '[' | '&' | '~' => self.out.extend(['\\', c]),
                _ => self.out.push(c),
            }
        }
        Err("the pattern has an unfinished character class")
    }

    /// After a backslash.
    fn escape(&mut self, in_class: bool, negated: bool) -> Result<(), &'static str> {
        let Some(c) = self.rest.next() else { return Err("the pattern ends in a backslash") };
        match c {
            's' => self.set(if negated { SPACE_ANY } else { SPACE }, false),
            'S' => self.set(if negated { SPACE } else { SPACE_ANY }, true),
            'd' | 'D' | 'w' | 'W' | 'n' | 'r' | 't' | 'f' | 'x' | 'u' => self.out.extend(['\\', c]),
            'v' => self.out.push_str(r"\x0B"),
            'p' | 'P' => self.out.extend(['\\', c]),
            'b' if in_class => self.out.push_str(r"\x08"),
            c if c.is_ascii_alphanumeric() => {
                return Err("back-references, word boundaries and rare escapes cannot be generated");
            }
            '<' | '>' => self.out.push(c),
            c if c.is_ascii_punctuation() || c == ' ' => self.out.extend(['\\', c]),
            c => self.out.push(c),
        }
        Ok(())
    }

    fn set(&mut self, members: &str, complement: bool) {
        self.out.push_str(if complement { "[^" } else { "[" });
        self.out.push_str(members);
        self.out.push(']');
    }
}

#[cfg(test)]
mod tests {
    use super::translate;

    fn check(pattern: &str, expect: Result<&str, &str>) {
        match (translate(pattern), expect) {
            (Ok(found), Ok(expect)) => assert_eq!(found, expect, "pattern {pattern}"),
            (Err(found), Err(expect)) => assert!(found.contains(expect), "pattern {pattern}: {found}"),
            (found, _) => panic!("pattern {pattern}: {found:?}"),
        }
    }

    #[test]
    fn keeps_the_common_language() {
        check("^[A-Z]{2}-\\d{4}$", Ok("^[A-Z]{2}-\\d{4}$"));
        check("^(?<year>\\d+)(?:x|y)$", Ok("^(?:\\d+)(?:x|y)$"));
        check("^(?P<stop>a)b$", Ok("^(?:a)b$"));
        check("^a.b$", Ok("^a[^\\n\\r\\x{2028}\\x{2029}]b$"));
        check("^[[&&]]$", Ok("^[\\[\\&\\&]]$"));
        check("^\\s$", Ok("^[ \\t\\n\\r\\f\\x0B]$"));
        check("^\\/a\\<b$", Ok("^\\/a<b$"));
    }

    #[test]
    fn names_what_cannot_be_generated() {
        check("^(?=.*x)a", Err("lookaround"));
        check("^(?<!x)a", Err("lookaround"));
        check("^(a)\\1$", Err("back-references"));
        check("\\bword\\b", Err("word boundaries"));
        check("^(?i)a", Err("inline flags"));
        check("(a", Err("cannot be generated"));
        check("[a", Err("unfinished character class"));
    }
}
