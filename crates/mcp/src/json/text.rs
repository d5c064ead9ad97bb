//! Single JSON values as text: what may be one, and reading the simple ones.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

/// Most elements one array may have where we look inside it.
pub const ELEMENTS_MAX: usize = 10_000;
/// Deepest nesting of objects and arrays, counting the outermost as one.
pub const DEPTH_MAX: usize = 64;

/// Why a text is not an acceptable JSON value. `Display` is a fixed label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or not UTF-8.
    #[error("invalid JSON")]
    Syntax,
    /// JSON, but not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// JSON, but not an array.
    #[error("not a JSON array")]
    NotAnArray,
    /// Two members share a name; parsers differ in which one they take.
    #[error("duplicate member name")]
    DuplicateMember(String),
    /// More than [`MEMBERS_MAX`](super::MEMBERS_MAX) members.
    #[error("too many members")]
    TooManyMembers,
    /// More than [`ELEMENTS_MAX`] elements.
    #[error("too many elements")]
    TooManyElements,
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("nested too deeply")]
    TooDeep,
}

/// The JSON form of a value. A value that has none (which no type of ours is) becomes `null`.
#[must_use]
pub fn raw<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The elements of a JSON array, each as the text it arrived in.
pub fn elements(value: &RawValue) -> Result<Vec<Box<RawValue>>, JsonError> {
    let text = value.get().as_bytes();
    check_depth(text)?;
    if first_byte(text) != Some(b'[') {
        return Err(JsonError::NotAnArray);
    }
    let elements: Vec<Box<RawValue>> =
        serde_json::from_slice(text).map_err(|_| JsonError::Syntax)?;
    if elements.len() > ELEMENTS_MAX {
        return Err(JsonError::TooManyElements);
    }
    Ok(elements)
}

/// The content of a value that is a JSON string.
#[must_use]
pub fn as_str(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(text).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// The first byte that is not JSON whitespace.
pub(crate) fn first_byte(text: &[u8]) -> Option<u8> {
    text.iter()
        .copied()
        .find(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

/// One scan over the text: raw values are skipped without recursion, so nothing else bounds
/// how deep a text may nest before somebody behind us overflows on it.
pub(crate) fn check_depth(text: &[u8]) -> Result<(), JsonError> {
    let mut depth = 0usize;
    let mut in_string = false;
    let mut escaped = false;
    for byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(JsonError::TooDeep);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}
