//! Errors put in on purpose, to see whether the simulator's judge catches them. Only tests can switch one on.

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) enum Mutant {
    /// The attempt is not announced.
    SkipIntent,
    /// The announcement of an effect that must happen once is not synced.
    UnsyncedIntent,
    /// What is unknown after a crash is attempted again without a look.
    RepeatUnknown,
    /// What is unknown after a crash is taken for done.
    AssumeDone,
    /// Each attempt has another key.
    FreshKey,
    /// What came of an attempt is not journalled.
    SkipOutcome,
    /// Denied calls are attempted.
    IgnoreGate,
    /// Calls of a turn run in another order.
    Reorder,
    /// The model is not told about calls that cannot be made.
    SwallowCalls,
    /// Thinking is not sent back.
    DropReasoning,
    /// Calls in the thinking are lost.
    LoseLeakedCalls,
    /// Limits do not hold.
    IgnoreBudget,
    /// Circles do not stop the run.
    IgnoreCircles,
    /// Two processes may work on one run.
    LoseLock,
    /// A person is asked again after a crash.
    ForgetAnswers,
}

#[cfg(test)]
thread_local! {
    /// The error that is switched on in this thread.
    pub(crate) static ON: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Whether this error is switched on.
#[cfg(test)]
pub(crate) fn is(mutant: Mutant) -> bool {
    ON.get() == Some(mutant)
}

/// Never, outside tests.
#[cfg(not(test))]
pub(crate) const fn is(_mutant: Mutant) -> bool {
    false
}
