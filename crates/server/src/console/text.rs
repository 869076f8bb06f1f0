//! Numbers and times as the pages write them, and as people type them.

/// Milliseconds of a day.
pub(super) const DAY_MS: i64 = 86_400_000;

/// Dollars that a balance may have.
const DOLLARS_MAX: f64 = 1e9;

/// A limit as typed; empty is none.
pub(super) fn limit(typed: &str) -> Result<Option<u32>, &'static str> {
    match typed.trim() {
        "" => Ok(None),
        typed => match typed.parse::<u32>() {
            Ok(n) if n > 0 => Ok(Some(n)),
            _ => Err("A limit is a whole number from 1 to 4,294,967,295; leave it empty for none."),
        },
    }
}

/// An amount from `least` as typed; empty is none.
pub(super) fn dollars(typed: &str, least: f64) -> Result<Option<f64>, &'static str> {
    match typed.trim() {
        "" => Ok(None),
        typed => match typed.parse::<f64>() {
            Ok(dollars) if (least..=DOLLARS_MAX).contains(&dollars) => Ok(Some(dollars)),
            _ => Err("A balance is an amount in dollars, such as 25 or 0.5; leave it empty for none."),
        },
    }
}

/// `1234567` as `1,234,567`.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes in the unit that keeps the number between 1 and 1000, as disks are sold: 1 GB is 10^9 bytes.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let places = usize::from(unit > 0) * (usize::from(value < 99.95) + usize::from(value < 9.995));
    format!("{value:.places$} {}", UNITS[unit])
}

/// The day (UTC) that is `days` after 1970-01-01, as `2025-11-24`.
///
/// Days are counted in eras of 400 years that begin in March, so that the leap day ends a year.
pub(super) fn day(days: i64) -> String {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Unix milliseconds as `2025-11-24 19:53` (UTC).
#[must_use]
pub fn time(ms: i64) -> String {
    let minutes = ms.rem_euclid(DAY_MS) / 60_000;
    format!("{} {:02}:{:02}", day(ms.div_euclid(DAY_MS)), minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_scaled() {
        let counts = [0, 999, 1_000, 1_234_567].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "1,234,567"]);
        let sizes = [0, 999, 1_000, 12_340, 999_499, 999_600, 594_000_000_000].map(bytes);
        assert_eq!(sizes, ["0 B", "999 B", "1.00 kB", "12.3 kB", "999 kB", "1.00 MB", "594 GB"]);
    }

    #[test]
    fn days_have_their_calendar_names() {
        // From `date -u -d @SECONDS +%F`.
        for (days, name) in [
            (-1, "1969-12-31"),
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_416, "2025-11-24"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(day(days), name);
        }
        assert_eq!(time(20_416 * DAY_MS + 86_399_999), "2025-11-24 23:59");
    }
}
