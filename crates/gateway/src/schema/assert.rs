//! The keywords that look at one value alone: types, bounds, lengths, equality.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

const TYPES: [&str; 7] = [
    "null", "boolean", "integer", "number", "string", "array", "object",
];

/// Whether a keyword without subschemas has the form it must have. Unknown ones have any.
pub(super) fn well_formed(keyword: &str, value: &Value) -> bool {
    let name = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
    match keyword {
        "type" => value
            .as_array()
            .map_or_else(|| name(value), |names| names.iter().all(name)),
        "required" => strings(value).is_some(),
        "dependentRequired" => value
            .as_object()
            .is_some_and(|all| all.values().all(|names| strings(names).is_some())),
        "enum" => value.is_array(),
        "minimum" | "maximum" => value.is_number(),
        "exclusiveMinimum" | "exclusiveMaximum" => value.is_number() || value.is_boolean(),
        "multipleOf" => value.as_f64().is_some_and(|by| by > 0.0),
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties"
        | "minContains" | "maxContains" => count(value).is_some(),
        "uniqueItems" => value.is_boolean(),
        // With another form they would have been read as what they are.
        "allOf" | "anyOf" | "oneOf" | "properties" | "patternProperties" | "dependentSchemas"
        | "dependencies" | "prefixItems" | "$ref" | "pattern" | "$defs" | "definitions" => false,
        _ => true,
    }
}

/// A list of names.
pub(super) fn strings(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

/// A bound on a number of things; `3.0` is one, too.
pub(super) fn count(value: &Value) -> Option<usize> {
    let whole = value
        .as_f64()
        .filter(|bound| *bound >= 0.0 && bound.fract() == 0.0);
    whole.map(|bound| bound as usize)
}

/// What a value is, by the name a schema has for it.
pub(super) const fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What was expected, if the value is not as the keyword wants it.
pub(super) fn fault(
    keyword: &str,
    want: &Value,
    beside: &Map<String, Value>,
    value: &Value,
) -> Option<String> {
    match (keyword, value) {
        ("type", _) => wrong_type(want, value),
        ("const", _) => (!equal(want, value)).then(|| format!("expected {want}")),
        ("enum", _) => {
            let listed = want
                .as_array()
                .is_some_and(|all| all.iter().any(|one| equal(one, value)));
            (!listed).then(|| format!("expected one of {want}"))
        }
        (_, Value::Number(number)) => wrong_number(keyword, want, beside, number),
        ("minLength" | "maxLength", Value::String(text)) => {
            out_of_bounds(keyword, want, text.chars().count(), "characters")
        }
        ("minItems" | "maxItems", Value::Array(items)) => {
            out_of_bounds(keyword, want, items.len(), "items")
        }
        ("minProperties" | "maxProperties", Value::Object(members)) => {
            out_of_bounds(keyword, want, members.len(), "properties")
        }
        ("required", Value::Object(members)) => missing(want, members),
        ("dependentRequired" | "dependencies", Value::Object(members)) => {
            let all = want.as_object()?;
            let mut needed = all.iter().filter(|(name, _)| members.contains_key(*name));
            needed.find_map(|(name, wanted)| {
                let missing = missing(wanted, members)?;
                Some(format!("{missing}, which `{name}` needs beside it"))
            })
        }
        _ => None,
    }
}

fn wrong_type(want: &Value, value: &Value) -> Option<String> {
    let whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
    let is = |name: &Value| match name.as_str() {
        Some("integer") => whole,
        Some(name) => name == type_of(value),
        None => false,
    };
    let names = want
        .as_array()
        .map_or(std::slice::from_ref(want), Vec::as_slice);
    if names.iter().any(is) {
        return None;
    }
    let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
    Some(format!(
        "expected {}, not {}",
        names.join(" or "),
        type_of(value)
    ))
}

fn out_of_bounds(keyword: &str, want: &Value, got: usize, what: &str) -> Option<String> {
    let bound = count(want)?;
    match keyword.starts_with("min") {
        true => (got < bound).then(|| format!("expected at least {bound} {what}")),
        false => (got > bound).then(|| format!("expected at most {bound} {what}")),
    }
}

/// The required members that are not there.
fn missing(want: &Value, members: &Map<String, Value>) -> Option<String> {
    let mut names = strings(want)?;
    names.retain(|name| !members.contains_key(*name));
    (!names.is_empty()).then(|| format!("missing {}", properties(&names)))
}

/// Names of properties, to be read.
pub(super) fn properties(names: &[&str]) -> String {
    let word = if names.len() == 1 {
        "property"
    } else {
        "properties"
    };
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    format!("{word} {}", names.join(", "))
}

fn wrong_number(
    keyword: &str,
    want: &Value,
    beside: &Map<String, Value>,
    number: &Number,
) -> Option<String> {
    // In draft 4 the exclusive bounds are flags beside the others.
    let exclusive = |flag: &str| beside.get(flag) == Some(&Value::Bool(true));
    let Value::Number(bound) = want else {
        return None;
    };
    let order = compare(number, bound)?;
    match keyword {
        "minimum" if exclusive("exclusiveMinimum") => {
            (order != Ordering::Greater).then(|| format!("expected more than {bound}"))
        }
        "minimum" => (order == Ordering::Less).then(|| format!("expected at least {bound}")),
        "maximum" if exclusive("exclusiveMaximum") => {
            (order != Ordering::Less).then(|| format!("expected less than {bound}"))
        }
        "maximum" => (order == Ordering::Greater).then(|| format!("expected at most {bound}")),
        "exclusiveMinimum" => {
            (order != Ordering::Greater).then(|| format!("expected more than {bound}"))
        }
        "exclusiveMaximum" => {
            (order != Ordering::Less).then(|| format!("expected less than {bound}"))
        }
        "multipleOf" => {
            (!multiple(number, bound)).then(|| format!("expected a multiple of {bound}"))
        }
        _ => None,
    }
}

/// A number without a fraction, exactly, if it was written as one.
fn exact(number: &Number) -> Option<i128> {
    let signed = number.as_i64().map(i128::from);
    signed.or_else(|| number.as_u64().map(i128::from))
}

fn compare(one: &Number, other: &Number) -> Option<Ordering> {
    match (exact(one), exact(other)) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
    }
}

/// Whether a number is a whole multiple. Fractions have no exact form: 0.0075 is one of
/// 0.0001 although their quotient is not whole.
fn multiple(number: &Number, of: &Number) -> bool {
    if let (Some(number), Some(of)) = (exact(number), exact(of)) {
        return of != 0 && number % of == 0;
    }
    let (Some(number), Some(of)) = (number.as_f64(), of.as_f64()) else {
        return true;
    };
    let quotient = number / of;
    let tolerance = f64::EPSILON * 4.0 * quotient.abs().max(1.0);
    quotient.is_finite() && (quotient - quotient.round()).abs() <= tolerance
        || !quotient.is_finite() && number % of == 0.0
}

/// Whether two values are the same JSON: numbers by value, objects in any order.
pub(super) fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => compare(one, other) == Some(Ordering::Equal),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let same = |(name, one)| other.get(name).is_some_and(|other| equal(one, other));
            one.len() == other.len() && one.iter().all(same)
        }
        (one, other) => one == other,
    }
}

/// The first two items that are the same JSON.
pub(super) fn repeated(items: &[Value]) -> Option<(usize, usize)> {
    let mut seen = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        let mut form = String::new();
        canonical(item, &mut form);
        if let Some(first) = seen.insert(form, index) {
            return Some((first, index));
        }
    }
    None
}

/// One text for all that is the same JSON.
fn canonical(value: &Value, form: &mut String) {
    match value {
        Value::Number(number) => match (exact(number), number.as_f64()) {
            (Some(whole), _) => form.push_str(&whole.to_string()),
            // Within the range in which every whole number has a form of its own.
            (None, Some(float)) if float.fract() == 0.0 && float.abs() < 9e15 => {
                form.push_str(&format!("{float:.0}"));
            }
            (None, _) => form.push_str(&number.to_string()),
        },
        Value::Array(items) => {
            form.push('[');
            for item in items {
                canonical(item, form);
                form.push(',');
            }
            form.push(']');
        }
        Value::Object(members) => {
            let sorted: BTreeMap<&String, &Value> = members.iter().collect();
            form.push('{');
            for (name, member) in sorted {
                form.push_str(&Value::from(name.as_str()).to_string());
                canonical(member, form);
                form.push(',');
            }
            form.push('}');
        }
        Value::Null | Value::Bool(_) | Value::String(_) => form.push_str(&value.to_string()),
    }
}
