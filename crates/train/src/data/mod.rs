//! What does the small model learn from? Worlds of files with a task, solved by a scripted expert with the
//! agent's own tools.

pub mod costumes;
pub mod decimal;
pub mod episode;
pub mod families;
pub mod forms;
pub mod names;
pub mod phrasing;
pub mod pretrain;
pub mod rng;
pub mod sample;
pub mod session;
pub mod steps;
pub mod stream;
pub mod tools;
pub mod vocabulary;

/// A skill of the small model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Running sums and products over numbers found in files.
    Sum,
    /// A trail of files, each naming the next, to its end.
    Trail,
    /// Keys looked up in two files, and compared.
    Compare,
    /// A line edited and read back.
    Edit,
    /// Tools whose names and parameters have to be read from their declaration.
    Choose,
    /// Errors and empty results on the way.
    Recover,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 6] =
        [Self::Sum, Self::Trail, Self::Compare, Self::Edit, Self::Choose, Self::Recover];

    /// The family's name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Trail => "trail",
            Self::Compare => "compare",
            Self::Edit => "edit",
            Self::Choose => "choose",
            Self::Recover => "recover",
        }
    }

    /// The family of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }
}
