//! Exact decimals, apart from the agent's own arithmetic: an expert should not be judged by what it uses.

use std::fmt;

/// Digits after the point that are kept at most.
const PLACES_MAX: u32 = 12;

/// A decimal number: an integer of 128 bits and its digits after the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    units: i128,
    places: u32,
}

impl Decimal {
    /// A whole number.
    #[must_use]
    pub fn whole(units: i128) -> Self {
        Self { units, places: 0 }
    }

    /// Reads digits with an optional sign and point.
    ///
    /// # Panics
    /// On anything else: only generated numbers are read.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let units = format!("{whole}{fraction}").parse().expect("a generated number has digits only");
        Self { units, places: fraction.len() as u32 }
    }

    /// The sum.
    ///
    /// # Panics
    /// Beyond 128 bits, where overflow is checked.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let places = self.places.max(other.places);
        Self { units: self.at(places) + other.at(places), places }
    }

    /// The difference.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.plus(Self { units: -other.units, ..other })
    }

    /// The product.
    ///
    /// # Panics
    /// When it has more than 12 digits after the point; beyond 128 bits, where overflow is checked.
    #[must_use]
    pub fn times(self, other: Self) -> Self {
        let places = self.places + other.places;
        assert!(places <= PLACES_MAX, "generated products have few decimals");
        Self { units: self.units * other.units, places }
    }

    /// Whether it is below zero.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.units < 0
    }

    /// Whether it is zero.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.units == 0
    }

    fn at(self, places: u32) -> i128 {
        self.units * 10i128.pow(places - self.places)
    }
}

impl fmt::Display for Decimal {
    /// Without zeros at the end of the fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:0>width$}", self.units.abs(), width = self.places as usize + 1);
        let (whole, fraction) = digits.split_at(digits.len() - self.places as usize);
        let fraction = fraction.trim_end_matches('0');
        let sign = if self.units < 0 { "-" } else { "" };
        if fraction.is_empty() { write!(f, "{sign}{whole}") } else { write!(f, "{sign}{whole}.{fraction}") }
    }
}
