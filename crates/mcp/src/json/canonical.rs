//! One text for each JSON value: the JSON Canonicalization Scheme (RFC 8785).
//!
//! Stricter than the scheme in one respect: a number that is not exactly what its double
//! prints has no canonical form, for two such numbers would share one text and readers with
//! other arithmetic could tell them apart.

use std::fmt::Write as _;

use serde_json::value::RawValue;

use super::{Object, as_str, elements};

/// The value's canonical text; `None` if it has none: a name twice in one object, a string
/// that is not Unicode, a number no double holds, or more of anything than is looked at.
#[must_use]
pub fn canonical(value: &RawValue) -> Option<String> {
    let mut text = String::new();
    write(value, &mut text).map(|()| text)
}

fn write(value: &RawValue, out: &mut String) -> Option<()> {
    match value.get().as_bytes().first()? {
        b'{' => object(value, out),
        b'[' => {
            out.push('[');
            for (index, element) in elements(value).ok()?.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(element, out)?;
            }
            out.push(']');
            Some(())
        }
        b'"' => {
            string(&as_str(value)?, out);
            Some(())
        }
        b'-' | b'0'..=b'9' => number(value.get(), out),
        _ => {
            out.push_str(value.get());
            Some(())
        }
    }
}

fn object(value: &RawValue, out: &mut String) -> Option<()> {
    let object = Object::from_raw(value).ok()?;
    let mut members: Vec<(&str, &RawValue)> = object.iter().collect();
    // By UTF-16 code units (section 3.2.3).
    members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    out.push('{');
    for (index, (name, value)) in members.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        string(name, out);
        out.push(':');
        write(value, out)?;
    }
    out.push('}');
    Some(())
}

/// Section 3.2.2.2.
fn string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            // Writing to a string does not fail.
            '\0'..='\u{1f}' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// Section 3.2.2.3: as ECMAScript prints numbers.
fn number(text: &str, out: &mut String) -> Option<()> {
    let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
    let printed = Decimal::of(&format!("{value:e}"))?;
    if printed != Decimal::of(text)? {
        return None;
    }
    let Decimal {
        negative,
        digits,
        point,
    } = printed;
    if digits.is_empty() {
        out.push('0');
        return Some(());
    }
    if negative {
        out.push('-');
    }
    let count = i64::try_from(digits.len()).ok()?;
    match usize::try_from(point).ok() {
        Some(whole) if point >= count && point <= 21 => {
            out.push_str(&digits);
            out.extend(std::iter::repeat_n('0', whole - digits.len()));
        }
        Some(whole) if point > 0 && point <= 21 => {
            let (before, after) = digits.split_at(whole);
            out.extend([before, ".", after]);
        }
        _ if point <= 0 && point > -6 => {
            out.push_str("0.");
            out.extend((point..0).map(|_| '0'));
            out.push_str(&digits);
        }
        _ => {
            let (first, rest) = digits.split_at(1);
            out.push_str(first);
            if !rest.is_empty() {
                out.extend([".", rest]);
            }
            let _ = write!(out, "e{:+}", point - 1);
        }
    }
    Some(())
}

/// A decimal number: `0.digits` times ten to the power of `point`.
#[derive(PartialEq, Eq)]
struct Decimal {
    negative: bool,
    /// Without zeros at either end; none for zero.
    digits: String,
    point: i64,
}

impl Decimal {
    fn of(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0');
        let skipped = i64::try_from(all.len() - digits.len()).ok()?;
        let digits = digits.trim_end_matches('0');
        if digits.is_empty() {
            // There is one zero (section 3.2.2.3).
            return Some(Self {
                negative: false,
                digits: String::new(),
                point: 0,
            });
        }
        let point = i64::try_from(whole.len()).ok()? - skipped + i64::from(exponent);
        let digits = digits.to_owned();
        Some(Self {
            negative,
            digits,
            point,
        })
    }
}

#[cfg(test)]
mod tests;
