//! What [`tidegate_gateway::platform`] promises, as checks any host can run on itself.
//!
//! [`run`] needs nothing but the platform; [`run_beside`] also uses a server the caller
//! provides. Keys carry a random part, so runs do not disturb each other or real records.
//! A host is checked where nobody else writes and its KV answers from one place: staleness
//! is allowed by the contract, so a store that shows it there fails only the check that
//! says so. A host without keepers is not checked for any.

mod atomic;
mod keeper;
mod kv;
mod net;
mod wait;

use serde_json::{Value, json};
use tidegate_gateway::platform::{KV_KEY_MAX, Platform};

/// One promise and whether the platform kept it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The promise, as a sentence.
    pub name: &'static str,
    /// Kept, or what was seen instead.
    pub outcome: Result<(), String>,
}

/// What a check comes to: `Err` says what was seen instead.
type Outcome = Result<(), String>;

/// How many operations race in the checks about concurrency.
const RACERS: usize = 8;

/// Not text, not JSON, and with the bytes encodings trip over.
const BINARY: &[u8] = &[0, 255, b'"', b'\\', b'\n', 0xc3, 0x28, 0, 0x80];

/// Runs every check that needs nothing but the platform.
pub async fn run<P: Platform>(platform: &P) -> Vec<Check> {
    run_beside(platform, None).await
}

/// Runs every check. `server` is the origin of a server that answers `GET /redirect` with
/// a redirection to `/elsewhere`, and `/elsewhere` with 200.
pub async fn run_beside<P: Platform>(platform: &P, server: Option<&str>) -> Vec<Check> {
    let subject = Subject {
        platform,
        prefix: prefix(platform),
    };
    let mut checks = atomic::checks(&subject).await;
    checks.extend(wait::checks(&subject).await);
    checks.extend(keeper::checks(&subject).await);
    checks.extend(kv::checks(&subject).await);
    checks.extend(net::checks(&subject, server).await);
    checks
}

/// The checks as JSON: `{"passed": …, "checks": [{"name": …, "outcome": "kept" | reason}]}`.
pub fn report(checks: &[Check]) -> Value {
    let passed = checks.iter().all(|check| check.outcome.is_ok());
    let line = |check: &Check| {
        let outcome = check.outcome.as_ref().err().map_or("kept", String::as_str);
        json!({ "name": check.name, "outcome": outcome })
    };
    json!({ "passed": passed, "checks": checks.iter().map(line).collect::<Vec<_>>() })
}

/// What is checked, and where its keys begin.
struct Subject<'a, P> {
    platform: &'a P,
    prefix: String,
}

impl<P> Subject<'_, P> {
    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }
}

fn prefix<P: Platform>(platform: &P) -> String {
    let mut random = [0; 8];
    platform.random(&mut random);
    format!("contract/{:016x}", u64::from_be_bytes(random))
}

fn check(name: &'static str, outcome: Outcome) -> Check {
    Check { name, outcome }
}

/// `Ok` if `kept`, else what was seen.
fn expect(kept: bool, seen: impl FnOnce() -> String) -> Outcome {
    if kept { Ok(()) } else { Err(seen()) }
}

/// An operation that should simply have worked.
fn done<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("failed: {error}"))
}

/// `key` lengthened to the most any store takes.
fn longest(key: &str) -> String {
    format!("{key:_<KV_KEY_MAX$}")
}

#[cfg(test)]
mod tests;
