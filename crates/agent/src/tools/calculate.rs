//! `calculate`: exact arithmetic on decimals.
//!
//! Numbers are fractions of integers of any length, so nothing is rounded on the way. A result whose decimal
//! form does not end within [`N_DIGITS_MAX`] digits after the point is rounded there and marked with `~`.

use super::arguments::parse;
use super::{Arguments, Declaration, Output, Parameter, Scope, Tool, ready};
use crate::gate::{BoxFuture, Effect, Resource};
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

/// Digits after the point at most.
const N_DIGITS_MAX: usize = 30;
/// Longest expression in bytes.
const EXPRESSION_BYTES_MAX: usize = 10_000;
/// Deepest nesting of brackets and signs.
const DEPTH_MAX: usize = 100;
/// Largest exponent, either way.
const EXPONENT_MAX: i64 = 10_000;
/// Bits of a numerator or denominator.
const BITS_MAX: u64 = 100_000;

/// Calculates exactly.
pub struct Calculate;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    expression: String,
}

impl Tool for Calculate {
    fn declaration(&self) -> Declaration {
        let parameters = [Parameter::required("expression", "string", "such as 1.5*(2+3)")];
        Declaration::flat("calculate", "Calculates exactly.", &parameters)
    }

    fn effect(&self) -> Effect {
        Effect::Read
    }

    fn resources(&self, _arguments: &Arguments) -> Vec<Resource> {
        Vec::new()
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, _scope: &'a Scope) -> BoxFuture<'a, Output> {
        ready(match parse::<Args>(&self.declaration(), arguments) {
            Ok(args) => match evaluate(&args.expression) {
                Ok(result) => Output::done(result),
                Err(error) => Output::failed(error.to_string()),
            },
            Err(error) => error.into(),
        })
    }
}

/// Why an expression has no value. The sentence is for the model.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CalculateError {
    /// Nothing to calculate.
    #[error("the expression is empty")]
    Empty,
    /// Something that does not belong there.
    #[error("{found} at character {at} was not expected; write numbers, + - * / % ^ and brackets")]
    Unexpected {
        /// What stands there.
        found: String,
        /// Number of the character, from 1.
        at: usize,
    },
    /// An unknown function.
    #[error(
        "there is no function {name}; there are sum, product, min, max, mean, abs, round(x, digits), sqrt"
    )]
    Function {
        /// As written.
        name: String,
    },
    /// A function with the wrong number of values.
    #[error("{name} does not take {n} values")]
    Arity {
        /// The function.
        name: String,
        /// Values given.
        n: usize,
    },
    /// Division by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// A root without an exact value.
    #[error("{what} has no exact value")]
    NotExact {
        /// What was asked.
        what: String,
    },
    /// Beyond a limit.
    #[error("{what} is too large to calculate")]
    TooLarge {
        /// What is beyond it.
        what: &'static str,
    },
}

/// The value of an expression in decimal digits, at most 30 after the point; one that was rounded there ends in `~`.
///
/// # Errors
/// [`CalculateError`]: the expression is not one, has no exact value, or is beyond a limit.
pub fn evaluate(expression: &str) -> Result<String, CalculateError> {
    if expression.len() > EXPRESSION_BYTES_MAX {
        return Err(CalculateError::TooLarge { what: "the expression" });
    }
    let mut reader = Reader { chars: expression.chars().collect(), at: 0, depth: 0 };
    if reader.peek().is_none() {
        return Err(CalculateError::Empty);
    }
    let value = reader.sum()?;
    match reader.peek() {
        None => Ok(decimal(&value)),
        Some(_) => Err(reader.unexpected()),
    }
}

/// Reads an expression: sums of products of powers of signed numbers, brackets and functions.
struct Reader {
    chars: Vec<char>,
    at: usize,
    depth: usize,
}

impl Reader {
    /// The next character that is not blank.
    fn peek(&mut self) -> Option<char> {
        while self.chars.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
        self.chars.get(self.at).copied()
    }

    fn take(&mut self, wanted: char) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn unexpected(&mut self) -> CalculateError {
        match self.peek() {
            Some(found) => CalculateError::Unexpected { found: found.to_string(), at: self.at + 1 },
            None => CalculateError::Unexpected { found: "the end".to_owned(), at: self.chars.len() + 1 },
        }
    }

    fn sum(&mut self) -> Result<BigRational, CalculateError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(CalculateError::TooLarge { what: "the nesting" });
        }
        let mut value = self.product()?;
        loop {
            value = match self.peek() {
                Some('+') => value + self.after_sign()?,
                Some('-' | '−' | '–') => value - self.after_sign()?,
                _ => break,
            };
            bounded(&value)?;
        }
        self.depth -= 1;
        Ok(value)
    }

    fn after_sign(&mut self) -> Result<BigRational, CalculateError> {
        self.at += 1;
        self.product()
    }

    fn product(&mut self) -> Result<BigRational, CalculateError> {
        let mut value = self.signed()?;
        loop {
            let sign = match self.peek() {
                Some('*') if self.chars.get(self.at + 1) == Some(&'*') => break,
                Some(sign @ ('*' | '/' | '%' | '×' | '·' | '÷')) => sign,
                _ => break,
            };
            self.at += 1;
            let right = self.signed()?;
            if right.is_zero() && matches!(sign, '/' | '÷' | '%') {
                return Err(CalculateError::DivisionByZero);
            }
            value = match sign {
                '/' | '÷' => value / right,
                '%' => &value - (&value / &right).floor() * &right,
                _ => value * right,
            };
            bounded(&value)?;
        }
        Ok(value)
    }

    fn signed(&mut self) -> Result<BigRational, CalculateError> {
        let mut is_negative = false;
        while let Some(sign @ ('+' | '-' | '−' | '–')) = self.peek() {
            is_negative ^= sign != '+';
            self.at += 1;
        }
        let value = self.power()?;
        Ok(if is_negative { -value } else { value })
    }

    fn power(&mut self) -> Result<BigRational, CalculateError> {
        let base = self.atom()?;
        let is_power = self.take('^') || {
            let is_stars = self.peek() == Some('*') && self.chars.get(self.at + 1) == Some(&'*');
            self.at += 2 * usize::from(is_stars);
            is_stars
        };
        if !is_power {
            return Ok(base);
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(CalculateError::TooLarge { what: "the nesting" });
        }
        let exponent = self.signed()?;
        self.depth -= 1;
        power(&base, &exponent)
    }

    fn atom(&mut self) -> Result<BigRational, CalculateError> {
        match self.peek() {
            Some('(') => {
                self.at += 1;
                let value = self.sum()?;
                if self.take(')') { Ok(value) } else { Err(self.unexpected()) }
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some(c) if c.is_ascii_alphabetic() => self.function(),
            _ => Err(self.unexpected()),
        }
    }

    /// Digits with a point, commas between groups of three, an exponent.
    fn number(&mut self) -> Result<BigRational, CalculateError> {
        let start = self.at;
        let mut digits = self.digits();
        let mut scale = 0;
        if self.chars.get(self.at) == Some(&'.') {
            self.at += 1;
            let after = self.digits();
            scale = after.len() as i64;
            digits += &after;
        }
        let Ok(mantissa) = digits.parse::<BigInt>() else {
            self.at = start;
            return Err(self.unexpected());
        };
        let exponent = self.exponent()? - scale;
        if exponent.abs() > EXPONENT_MAX {
            return Err(CalculateError::TooLarge { what: "an exponent" });
        }
        let power = BigInt::from(10).pow(exponent.unsigned_abs() as u32);
        Ok(if exponent < 0 { BigRational::new(mantissa, power) } else { (mantissa * power).into() })
    }

    fn digits(&mut self) -> String {
        let start = self.at;
        while self.chars.get(self.at).is_some_and(|c| c.is_ascii_digit() || *c == '_') {
            self.at += 1;
        }
        self.chars[start..self.at].iter().filter(|c| **c != '_').collect()
    }

    fn exponent(&mut self) -> Result<i64, CalculateError> {
        let Some('e' | 'E') = self.chars.get(self.at) else { return Ok(0) };
        let mark = self.at;
        self.at += 1;
        let is_negative = self.chars.get(self.at) == Some(&'-');
        self.at += usize::from(matches!(self.chars.get(self.at), Some('+' | '-')));
        let digits = self.digits();
        if digits.is_empty() {
            self.at = mark;
            return Err(self.unexpected());
        }
        let exponent: i64 = digits.parse().map_err(|_| CalculateError::TooLarge { what: "an exponent" })?;
        Ok(if is_negative { -exponent } else { exponent })
    }

    fn function(&mut self) -> Result<BigRational, CalculateError> {
        let start = self.at;
        while self.chars.get(self.at).is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_') {
            self.at += 1;
        }
        let name: String = self.chars[start..self.at].iter().collect();
        if !self.take('(') {
            return Err(CalculateError::Function { name });
        }
        let mut values = Vec::new();
        if !self.take(')') {
            loop {
                values.push(self.sum()?);
                if self.take(')') {
                    break;
                }
                if !self.take(',') && !self.take(';') {
                    return Err(self.unexpected());
                }
            }
        }
        apply(&name.to_lowercase(), &values)
    }
}

fn apply(name: &str, values: &[BigRational]) -> Result<BigRational, CalculateError> {
    let arity = || CalculateError::Arity { name: name.to_owned(), n: values.len() };
    // Each step is bounded: thousands of long numbers joined into one would take hours.
    let joined = |first: BigRational, join: fn(BigRational, &BigRational) -> BigRational| {
        values.iter().try_fold(first, |so_far, value| {
            let value = join(so_far, value);
            bounded(&value).map(|()| value)
        })
    };
    let sum = || joined(BigRational::zero(), |sum, value| sum + value);
    let result = match (name, values) {
        ("sum", _) => sum()?,
        ("product", _) => joined(BigRational::one(), |product, value| product * value)?,
        ("mean" | "average" | "avg", [_, ..]) => sum()? / BigRational::from(BigInt::from(values.len())),
        ("min", [_, ..]) => values.iter().min().cloned().ok_or_else(arity)?,
        ("max", [_, ..]) => values.iter().max().cloned().ok_or_else(arity)?,
        ("abs", [value]) => value.abs(),
        ("floor", [value]) => value.floor(),
        ("ceil", [value]) => value.ceil(),
        ("sqrt", [value]) => root(value)?,
        ("round", [value]) => value.round(),
        ("round", [value, digits]) => rounded(value, digits)?,
        ("mean" | "average" | "avg" | "min" | "max" | "abs" | "floor" | "ceil" | "sqrt" | "round", _) => {
            return Err(arity());
        }
        _ => return Err(CalculateError::Function { name: name.to_owned() }),
    };
    bounded(&result)?;
    Ok(result)
}

/// Half away from zero, as people round sums of money.
fn rounded(value: &BigRational, digits: &BigRational) -> Result<BigRational, CalculateError> {
    let digits = digits.to_integer().to_u32().filter(|_| digits.is_integer());
    let digits = digits.filter(|digits| i64::from(*digits) <= EXPONENT_MAX);
    let digits = digits.ok_or(CalculateError::TooLarge { what: "the number of digits" })?;
    let power = BigRational::from(BigInt::from(10).pow(digits));
    Ok((value * &power).round() / power)
}

fn root(value: &BigRational) -> Result<BigRational, CalculateError> {
    let not_exact = || CalculateError::NotExact { what: format!("sqrt({})", decimal(value)) };
    if value.is_negative() {
        return Err(not_exact());
    }
    let root = BigRational::new(value.numer().sqrt(), value.denom().sqrt());
    if &root * &root == *value { Ok(root) } else { Err(not_exact()) }
}

fn power(base: &BigRational, exponent: &BigRational) -> Result<BigRational, CalculateError> {
    if !exponent.is_integer() {
        let what = format!("{} ^ {}", decimal(base), decimal(exponent));
        return Err(CalculateError::NotExact { what });
    }
    let too_large = CalculateError::TooLarge { what: "a power" };
    let Some(exponent) = exponent.to_integer().to_i64().filter(|it| it.abs() <= EXPONENT_MAX) else {
        return Err(too_large);
    };
    if base.is_zero() && exponent < 0 {
        return Err(CalculateError::DivisionByZero);
    }
    let bits = base.numer().bits().max(base.denom().bits());
    if bits > 1 && bits.saturating_mul(exponent.unsigned_abs()) > BITS_MAX {
        return Err(too_large);
    }
    Ok(base.pow(exponent as i32))
}

fn bounded(value: &BigRational) -> Result<(), CalculateError> {
    match value.numer().bits().max(value.denom().bits()) {
        bits if bits > BITS_MAX => Err(CalculateError::TooLarge { what: "a number" }),
        _ => Ok(()),
    }
}

/// Decimal digits of a fraction: exact, or rounded with a mark.
fn decimal(value: &BigRational) -> String {
    let ten = BigInt::from(10);
    let mut scaled = value.abs();
    let mut n_digits = 0;
    while !scaled.is_integer() && n_digits < N_DIGITS_MAX {
        scaled *= &ten;
        n_digits += 1;
    }
    let is_exact = scaled.is_integer();
    let digits = format!("{:0>width$}", scaled.round().to_integer(), width = n_digits + 1);
    let (whole, fraction) = digits.split_at(digits.len() - n_digits);
    let sign = if value.is_negative() { "-" } else { "" };
    let mark = if is_exact { "" } else { "~" };
    if fraction.is_empty() {
        format!("{mark}{sign}{whole}")
    } else {
        format!("{mark}{sign}{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::evaluate;

    #[track_caller]
    fn check(expression: &str, expected: &str) {
        let found = evaluate(expression).unwrap_or_else(|error| error.to_string());
        assert_eq!(found, expected, "{expression}");
    }

    #[test]
    fn values_are_exact() {
        check("0.1+0.2", "0.3");
        check("1.5*(2+3)", "7.5");
        check("-2^2", "-4");
        check("2^-2", "0.25");
        check("2**3**2", "512");
        check("10-4-3", "3");
        check("100/8/2", "6.25");
        check("7%3", "1");
        check("-7%3", "2");
        check("1/3", "~0.333333333333333333333333333333");
        check("2/3*3", "2");
        check("123456789012345678901234567890*10", "1234567890123456789012345678900");
        check("1e3+.5", "1000.5");
        check("1_000*2", "2000");
        check("sum(1, 2.5, 3)", "6.5");
        check("mean(1;2)", "1.5");
        check("round(2.345, 2)", "2.35");
        check("round(-0.5)", "-1");
        check("sqrt(6.25)", "2.5");
        check("3 × 4 ÷ 2 − 1", "5");
        check("0*-1", "0");
    }

    #[test]
    fn sentences_say_what_is_wrong() {
        check("", "the expression is empty");
        check("1/0", "division by zero");
        check("1+", "the end at character 3 was not expected; write numbers, + - * / % ^ and brackets");
        check("2 apples", "a at character 3 was not expected; write numbers, + - * / % ^ and brackets");
        check("(1", "the end at character 3 was not expected; write numbers, + - * / % ^ and brackets");
        check(".", ". at character 1 was not expected; write numbers, + - * / % ^ and brackets");
        check(
            "log(2)",
            "there is no function log; there are sum, product, min, max, mean, abs, round(x, digits), sqrt",
        );
        check("abs(1,2)", "abs does not take 2 values");
        check("sqrt(2)", "sqrt(2) has no exact value");
        check("9^9^9", "a power is too large to calculate");
        let many = |name: &str, value: &str| format!("{name}({value}{})", format!(",{value}").repeat(999));
        check(&many("product", "9e9999"), "a number is too large to calculate");
        check("1e99999", "an exponent is too large to calculate");
        check(&"(".repeat(2000), "the nesting is too large to calculate");
        check(&"1^".repeat(2000), "the nesting is too large to calculate");
        check(&"1".repeat(10_001), "the expression is too large to calculate");
    }
}
