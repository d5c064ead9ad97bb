//! What a client is told of its limits with every answer: `RateLimit-Policy` and `RateLimit`
//! (draft-ietf-httpapi-ratelimit-headers-10), structured fields.

use std::fmt::Write;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::Rate;

/// The limits that hold.
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What is left of them.
const STANDING: HeaderName = HeaderName::from_static("ratelimit");

/// How one limit stands after a request was admitted within it, or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The limit's name.
    pub name: String,
    /// The limit.
    pub rate: Rate,
    /// How much of it is left, as far as is known here.
    pub remaining: u64,
    /// When a new window begins.
    pub reset: Duration,
}

/// How the limits stand that a request was counted in. Those shared with others are not
/// among them: what is left there would tell what the others do.
#[derive(Debug, Default)]
pub struct Standings(Vec<Standing>);

impl Standings {
    /// Notes how one stands.
    pub fn note(&mut self, standing: Standing) {
        self.0.retain(|known| known.name != standing.name);
        self.0.push(standing);
    }

    /// Says so in an answer's headers.
    pub fn write(&self, headers: &mut HeaderMap) {
        let (mut policy, mut standing) = (String::new(), String::new());
        for known in &self.0 {
            let name = quoted(&known.name);
            let window = known.rate.window_ms.div_ceil(1000);
            let reset = known.reset.as_millis().div_ceil(1000);
            let comma = if policy.is_empty() { "" } else { ", " };
            let _ = write!(policy, "{comma}{name};q={};w={window}", known.rate.requests);
            let _ = write!(standing, "{comma}{name};r={};t={reset}", known.remaining);
        }
        for (name, value) in [(POLICY, policy), (STANDING, standing)] {
            if let Ok(value) = HeaderValue::from_str(&value)
                && !value.is_empty()
            {
                headers.insert(name, value);
            }
        }
    }
}

/// A name as a string of a structured field (RFC 9651), which holds ASCII alone.
fn quoted(name: &str) -> String {
    let mut text = String::from("\"");
    for char in name.chars() {
        match char {
            '"' | '\\' => text.extend(['\\', char]),
            ' '..='~' => text.push(char),
            _ => text.push('?'),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(name: &str, requests: u32, remaining: u64) -> Standing {
        Standing {
            name: name.to_owned(),
            rate: Rate {
                requests,
                window_ms: 60_000,
            },
            remaining,
            reset: Duration::from_millis(29_001),
        }
    }

    #[test]
    fn every_limit_is_said_with_what_is_left_of_it() {
        let mut standings = Standings::default();
        let mut headers = HeaderMap::new();
        standings.write(&mut headers);
        assert!(headers.is_empty(), "no limit, no header");
        standings.note(standing("per-client", 100, 7));
        standings.note(standing("a \"b\" ü", 5, 0));
        standings.note(standing("per-client", 100, 6));
        standings.write(&mut headers);
        assert_eq!(
            headers["ratelimit-policy"],
            r#""a \"b\" ?";q=5;w=60, "per-client";q=100;w=60"#
        );
        assert_eq!(
            headers["ratelimit"],
            r#""a \"b\" ?";r=0;t=30, "per-client";r=6;t=30"#
        );
    }
}
