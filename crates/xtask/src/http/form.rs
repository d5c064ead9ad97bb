//! `application/x-www-form-urlencoded`: what OAuth requests and queries are written in.

use std::collections::BTreeMap;

/// Decodes `a=b&c=d` pairs.
pub fn parse(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (byte, hex) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (other, _) => out.push(other),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Encodes a value for a query.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_value_survives_encoding_and_decoding() {
        for value in [
            "plain",
            "http://127.0.0.1:8787/mcp?a=b&c",
            "ümlaut 100%",
            "",
        ] {
            let pair = format!("name={}", encode(value));
            assert_eq!(parse(&pair).get("name").map(String::as_str), Some(value));
        }
    }

    #[test]
    fn a_plus_sign_in_a_form_is_a_space_and_a_stray_percent_stays() {
        assert_eq!(parse("scope=a+b&x=%zz")["scope"], "a b");
        assert_eq!(parse("scope=a+b&x=%zz")["x"], "%zz");
    }
}
