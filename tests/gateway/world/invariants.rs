//! What must hold whatever a test does, checked when its world ends:
//!
//! * nothing of a client's credentials reaches an upstream or the issuer, or is stored;
//! * log lines are JSON and hold no argument, result, token or secret;
//! * a message the queue holds is small and has no argument in it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tidegate_gateway::time::Timestamp;
use tidegate_simulator::{Exchange, Server, Simulator};

use super::host::Host;
use super::issuer::Issuer;
use super::{ARGUMENT, RESULT, authority};

/// Cookie every request carries.
pub const COOKIE: &str = "CANARY-COOKIE";
/// Proof every request carries.
pub const PROOF: &str = "CANARY-PROOF";

/// What all isolates of a world have in common.
pub struct Shared {
    pub issuer: Issuer,
    pub servers: RefCell<BTreeMap<String, Rc<Server>>>,
    pub hosts: RefCell<Vec<Rc<Host>>>,
    /// Tokens of clients, whatever became of them.
    pub secrets: RefCell<BTreeSet<String>>,
    /// The token each subject holds, and until when.
    pub tokens: RefCell<BTreeMap<String, (Timestamp, String)>>,
    /// What the platform keeps secret.
    pub vault: RefCell<Vec<String>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let hosts = self.hosts.take();
        for host in &hosts {
            // Futures in there hold the host itself.
            host.lose_deferred();
        }
        if std::thread::panicking() {
            return;
        }
        // Shorter ones are no secrets: they are there to be refused.
        let (mut secrets, mut vault) = (Vec::from_iter(self.secrets.take()), self.vault.take());
        secrets.retain(|secret| secret.len() > 16);
        vault.retain(|secret| secret.len() > 16);
        for host in &hosts {
            check_log(host.lines(), &secrets, &vault);
        }
        if let Some(isolate) = hosts.first().map(|host| &host.sim) {
            let kept = isolate.keeper.log_lines().into_iter();
            check_log(kept.map(|(_, line)| line).collect(), &secrets, &vault);
            for name in self.servers.borrow().keys() {
                let exchanges = isolate.http.exchanges(&authority(name));
                exchanges
                    .iter()
                    .for_each(|exchange| check_exchange(exchange, &secrets, &vault));
            }
            check_stores(isolate, &secrets);
        }
    }
}

fn check_exchange(exchange: &Exchange, secrets: &[String], vault: &[String]) {
    let told = |text: &str| {
        for secret in secrets.iter().map(String::as_str).chain([COOKIE, PROOF]) {
            assert!(
                !text.contains(secret),
                "a client's credential reached {}",
                exchange.uri
            );
        }
    };
    for (name, value) in &exchange.headers {
        let text = String::from_utf8_lossy(value.as_bytes());
        told(&text);
        assert!(
            !matches!(name.as_str(), "cookie" | "dpop"),
            "{name} reached {}",
            exchange.uri
        );
        let ours =
            name != "authorization" || vault.iter().any(|secret| text.ends_with(secret.as_str()));
        assert!(
            ours,
            "an authorization that is not the gateway's reached {}",
            exchange.uri
        );
    }
    told(&String::from_utf8_lossy(&exchange.body()));
    told(&exchange.uri.to_string());
}

fn check_log(lines: Vec<String>, secrets: &[String], vault: &[String]) {
    for line in lines {
        let parsed = serde_json::from_str::<serde_json::Value>(&line);
        assert!(
            parsed.is_ok_and(|line| line["event"].is_string()),
            "not a log line: {line}"
        );
        let planted = secrets
            .iter()
            .chain(vault)
            .map(String::as_str)
            .chain([COOKIE, PROOF, ARGUMENT, RESULT]);
        for secret in planted {
            assert!(!line.contains(secret), "recorded: {line}");
        }
    }
}

fn check_stores(isolate: &Simulator, secrets: &[String]) {
    let kv = isolate
        .kv
        .keys()
        .into_iter()
        .filter_map(|key| isolate.kv.stored(&key));
    let atomic = isolate
        .atomic
        .keys()
        .into_iter()
        .filter_map(|key| isolate.atomic.stored(&key));
    for value in kv.chain(atomic) {
        let text = String::from_utf8_lossy(&value);
        assert!(
            !secrets.iter().any(|secret| text.contains(secret.as_str())),
            "a token was stored"
        );
    }
    isolate
        .clock
        .advance(std::time::Duration::from_secs(86_400));
    for message in isolate.queue.take() {
        assert!(
            message.len() < 1024 && !String::from_utf8_lossy(&message).contains(ARGUMENT),
            "a payload was queued"
        );
    }
}
