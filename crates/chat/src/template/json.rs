//! JSON text as Python's `json.dumps(..., ensure_ascii=False)` writes it: what the template's `tojson` prints.
//!
//! Integers beyond 64 bits are read as floating point by our JSON reader and print as such.

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::Formatter;
use std::io;

/// JSON with `,` and `:`, as the tool declaration prints it.
#[must_use]
pub fn compact(value: &Value) -> String {
    write(value, Python { comma: ",", colon: ":" })
}

/// JSON with Python's default separators `, ` and `: `, as object arguments are printed.
#[must_use]
pub fn python(value: &Value) -> String {
    write(value, Python { comma: ", ", colon: ": " })
}

/// A number as Python prints it (`str` of an int or a float).
#[must_use]
pub fn number(value: &serde_json::Number) -> String {
    match value.as_f64() {
        Some(float) if value.is_f64() => float_repr(float),
        _ => value.to_string(),
    }
}

fn write(value: &Value, formatter: Python) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    value.serialize(&mut serializer).expect("a JSON value always has a text, and a Vec takes every write");
    String::from_utf8(bytes).expect("JSON text is UTF-8")
}

struct Python {
    comma: &'static str,
    colon: &'static str,
}

impl Formatter for Python {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(float_repr(value).as_bytes())
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(self.comma.as_bytes()) }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(self.comma.as_bytes()) }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.colon.as_bytes())
    }
}

/// Python's `repr` of a finite float: the shortest digits that read back equal, with an exponent below
/// 1e-4 and from 1e16.
fn float_repr(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("`{:e}` always writes an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` writes a decimal exponent");
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = value.to_string();
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_python_prints_them() {
        // Right column: python3 -c 'print(repr(x))'.
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e15, "1000000000000000.0"),
            (9999999999999998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (1.2345678901234568e17, "1.2345678901234568e+17"),
            (1e100, "1e+100"),
            (-2.5e-300, "-2.5e-300"),
            (5e-324, "5e-324"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
        ] {
            assert_eq!(float_repr(value), expected);
        }
    }
}
