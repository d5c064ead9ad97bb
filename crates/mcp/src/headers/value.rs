//! Header values that may not be plain ASCII: `=?base64?…?=`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::HeaderError;

const PREFIX: &str = "=?base64?";
const SUFFIX: &str = "?=";

/// Reads a header value: trimmed of outer spaces and tabs, then decoded if it bears the
/// marker. Anything else, also an uppercase marker, is literal and must be printable ASCII.
pub fn decode_value(value: &str) -> Result<Cow<'_, str>, HeaderError> {
    let value = trim(value);
    let Some(encoded) = value
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_suffix(SUFFIX))
    else {
        let printable = value
            .bytes()
            .all(|byte| byte == b'\t' || is_printable(byte));
        return if printable {
            Ok(Cow::Borrowed(value))
        } else {
            Err(HeaderError::InvalidCharacter)
        };
    };
    let bytes = STANDARD
        .decode(encoded)
        .map_err(|_| HeaderError::MalformedBase64)?;
    String::from_utf8(bytes)
        .map(Cow::Owned)
        .map_err(|_| HeaderError::MalformedBase64)
}

/// Writes a header value, encoding what a header cannot carry or what would be misread. So is
/// the empty value, which some peers drop.
#[must_use]
pub fn encode_value(value: &str) -> Cow<'_, str> {
    let plain = !value.is_empty()
        && value.bytes().all(is_printable)
        && trim(value) == value
        && !(value.starts_with(PREFIX) && value.ends_with(SUFFIX));
    if plain {
        return Cow::Borrowed(value);
    }
    Cow::Owned(format!("{PREFIX}{}{SUFFIX}", STANDARD.encode(value)))
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7E)
}

/// Without outer spaces and tabs, as HTTP field values are compared.
pub(super) fn trim(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}
