//! What a plain scalar is: null, a truth value, a number or text.

use serde_json::{Number, Value};

/// A plain scalar under YAML's core schema (YAML 1.2.2 section 10.3.2).
pub(super) fn plain(text: &str) -> Option<Value> {
    let value = match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => true.into(),
        "false" | "False" | "FALSE" => false.into(),
        ".nan" | ".NaN" | ".NAN" => return None,
        _ if matches!(
            text.trim_start_matches(['+', '-']),
            ".inf" | ".Inf" | ".INF"
        ) =>
        {
            return None;
        }
        _ => match number(text) {
            Some(number) => Value::Number(number?),
            None => text.into(),
        },
    };
    Some(value)
}

/// `None`: not a number. `Some(None)`: a number too large for JSON.
fn number(text: &str) -> Option<Option<Number>> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text
            .strip_prefix(prefix)
            .filter(|d| !d.is_empty() && d.chars().all(|c| c.is_digit(radix)))
        {
            return Some(u64::from_str_radix(digits, radix).ok().map(Number::from));
        }
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let allowed = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || !unsigned.chars().all(allowed)
    {
        return None;
    }
    let signed = text.strip_prefix('+').unwrap_or(text);
    if let Ok(whole) = signed.parse::<i64>() {
        return Some(Some(whole.into()));
    }
    if let Ok(whole) = signed.parse::<u64>() {
        return Some(Some(whole.into()));
    }
    signed.parse::<f64>().ok().map(Number::from_f64)
}
