//! Grammars of formats, exact to the day.

/// Formats that have a grammar, ours or the constraint library's.
pub(super) const NAMES: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];

/// The local part of an address has at most 64 characters (RFC 5321, 4.5.3.1.1); a whole one of that length is safe.
const EMAIL_CHARS_MAX: u64 = 64;
/// Longest host name (RFC 1035, 2.3.4, without the length bytes).
const HOSTNAME_CHARS_MAX: u64 = 253;

/// Years 0001 to 9999 with their months and days; 29 February in leap years.
const DATE: &str = concat!(
    "(?:(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-(?:",
    "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|",
    "02-(?:0[1-9]|1[0-9]|2[0-8]))|",
    "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29)"
);
/// A time of day with its offset (RFC 3339), without leap seconds.
const TIME: &str = concat!(
    "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?",
    "(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
);

/// The anchored pattern of a format whose grammar is ours.
pub(super) fn pattern(format: &str) -> Option<String> {
    match format {
        "date" => Some(format!("^{DATE}$")),
        "time" => Some(format!("^{TIME}$")),
        "date-time" => Some(format!("^{DATE}[tT]{TIME}$")),
        _ => None,
    }
}

/// Most characters of a format whose standard limits them.
pub(super) fn most_chars(format: &str) -> Option<u64> {
    match format {
        "email" => Some(EMAIL_CHARS_MAX),
        "hostname" => Some(HOSTNAME_CHARS_MAX),
        _ => None,
    }
}
