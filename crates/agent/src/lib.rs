//! Here is a task, do it within the rules.
