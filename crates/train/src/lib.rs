//! Here is data, make better weights.
