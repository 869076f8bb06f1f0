//! Why a policy is refused: one sentence with the file's line.

/// A policy that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not TOML, a key that is not known, a value of another kind.
    #[error("{file} line {line}: {what}")]
    Text {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A rule that cannot hold.
    #[error("{file} line {line}: the rule {rule:?} {what}")]
    Rule {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// The rule's name.
        rule: String,
        /// What is wrong.
        what: String,
    },
    /// An example that says what the rule does not do.
    #[error(
        "{file} line {line}: the rule {rule:?} lies: its example {example} must {expected}, but does{actual}; mend the rule or the example"
    )]
    Lie {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// The rule's name.
        rule: String,
        /// The example.
        example: String,
        /// `match` or `not match`.
        expected: &'static str,
        /// ` not`, or nothing.
        actual: &'static str,
    },
    /// The file cannot be read.
    #[error("the policy {file} cannot be read: {cause}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        cause: String,
    },
}
