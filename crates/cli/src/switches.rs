//! `tidegate kill` and `tidegate revive`: what operators switch off and on again, at the
//! gateway's own door for it.

use std::io::Write;

use serde_json::{Value, json};

use crate::args::{Kill, Revive};
use crate::door::Gateway;
use crate::tasks::text;
use crate::{Failure, now_ms, print_json};

/// Where the door is.
const PATH: &str = "/admin/switches";

/// Switches something off, or lists what is.
pub fn kill(kill: &Kill, out: &mut impl Write) -> Result<(), Failure> {
    let gateway = Gateway::open(&kill.door.gateway)?;
    let Some(what) = &kill.what else {
        let answer = gateway.get(PATH, &[])?;
        return match kill.door.json {
            true => print_json(&answer, out),
            false => list(&answer, out),
        };
    };
    let mut asked = named(what, kill.issuer.as_deref())?;
    asked["reason"] = kill.reason.clone().into();
    if let Some(lasts) = kill.lasts {
        asked["forMs"] = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX).into();
    }
    let answer = gateway.change(PATH, &asked, false)?;
    match kill.door.json {
        true => print_json(&answer, out),
        false => Ok(writeln!(
            out,
            "{what} is switched off, everywhere within 75 seconds (a second, where revocation is immediate)"
        )?),
    }
}

/// Switches something on again.
pub fn revive(revive: &Revive, out: &mut impl Write) -> Result<(), Failure> {
    let gateway = Gateway::open(&revive.door.gateway)?;
    let asked = named(&revive.what, revive.issuer.as_deref())?;
    let answer = gateway.change(PATH, &asked, true)?;
    match revive.door.json {
        true => print_json(&answer, out),
        false => Ok(writeln!(
            out,
            "{} is on again, everywhere as soon as a kill would be",
            revive.what
        )?),
    }
}

/// What is meant, as the gateway is asked.
fn named(what: &str, issuer: Option<&str>) -> Result<Value, Failure> {
    let (kind, value) = what.split_once(':').unwrap_or((what, ""));
    let known = ["all", "upstream", "tool", "tenant", "principal"];
    if !known.contains(&kind) || (kind == "all") != value.is_empty() {
        let words = "say what is meant: all, upstream:NAME, tool:UPSTREAM__NAME, tenant:NAME or principal:SUBJECT";
        return Err(Failure::Usage(words.to_owned()));
    }
    if (kind == "principal") != issuer.is_some() {
        let words = "a principal needs --issuer, whose subject it is; nothing else has one";
        return Err(Failure::Usage(words.to_owned()));
    }
    let mut asked = json!({ "kind": kind });
    if !value.is_empty() {
        asked["value"] = value.into();
    }
    if let Some(issuer) = issuer {
        asked["issuer"] = issuer.into();
    }
    Ok(asked)
}

fn list(answer: &Value, out: &mut impl Write) -> Result<(), Failure> {
    let none = Vec::new();
    let switches = answer["switches"].as_array().unwrap_or(&none);
    if switches.is_empty() {
        return Ok(writeln!(out, "nothing is switched off")?);
    }
    for switch in switches {
        let mut what = text(switch, "kind");
        let (value, issuer) = (text(switch, "value"), text(switch, "issuer"));
        if !value.is_empty() {
            what = format!("{what}:{value}");
        }
        if !issuer.is_empty() {
            what = format!("{what} --issuer {issuer}");
        }
        let left = switch["untilMs"].as_u64().map(|until| {
            let seconds = until.saturating_sub(now_ms()).div_ceil(1000);
            format!(" (for another {seconds} s)")
        });
        let left = left.unwrap_or_default();
        writeln!(out, "{what}  {}{left}", text(switch, "reason"))?;
    }
    Ok(())
}
