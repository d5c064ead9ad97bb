//! `tidegate health`: how the upstreams of a running gateway are, asked with the operators'
//! token, so that their probes are called.

use std::io::Write;

use serde_json::Value;

use crate::args::Door;
use crate::door::Gateway;
use crate::tasks::text;
use crate::{Failure, print_json};

/// Says how they are.
pub fn health(door: &Door, out: &mut impl Write) -> Result<(), Failure> {
    let answer = Gateway::open(&door.gateway)?.health()?;
    match door.json {
        true => print_json(&answer, out)?,
        false => list(&answer, out)?,
    }
    match answer["status"].as_str() {
        Some("healthy") => Ok(()),
        // Said already.
        Some(_) | None => Err(Failure::Problems),
    }
}

fn list(answer: &Value, out: &mut impl Write) -> Result<(), Failure> {
    writeln!(out, "{}", text(answer, "status"))?;
    let none = Vec::new();
    for upstream in answer["upstreams"].as_array().unwrap_or(&none) {
        let (name, status) = (text(upstream, "name"), text(upstream, "status"));
        let mut line = format!("  {name}  {status}, {} ms", upstream["latencyMs"]);
        for (member, word) in [("tool", " with "), ("reason", ": ")] {
            let text = text(upstream, member);
            if !text.is_empty() {
                line.push_str(word);
                line.push_str(&text);
            }
        }
        writeln!(out, "{line}")?;
    }
    Ok(())
}
