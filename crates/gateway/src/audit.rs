//! One structured line per call: who asked for what, what was decided by which rule, what
//! came of it. Never arguments, results, tokens or secrets.
//!
//! The line is written when the answer has ended, also when the client went away first:
//! a [`Pending`] record that is dropped unfinished says so.

use std::cell::OnceCell;
use std::rc::Rc;

use serde::{Serialize, Serializer};

use crate::auth::Principal;
use crate::error::Error;
use crate::platform::{Clock, LogLevel, Platform};
use crate::time::Timestamp;

/// What is known of one call.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    event: &'static str,
    /// When the request arrived, milliseconds since the epoch.
    pub at_ms: u64,
    /// Finds the other lines, and the client's error, of the same request.
    pub correlation_id: String,
    /// W3C trace id, where the client sent a trace context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Token issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Token subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// OAuth client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The client's network address, as the platform saw it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Path of the endpoint.
    pub endpoint: String,
    /// MCP revision the client spoke.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<&'static str>,
    /// JSON-RPC method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'static str>,
    /// Exposed name of the tool or prompt, or the resource's scheme and authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Configured name of the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Configured name of the upstream that answered in its place, if one did.
    #[serde(skip_serializing_if = "AnsweredBy::is_nobody")]
    pub answered_by: AnsweredBy,
    /// Which version of it, where it has a canary: `stable`, `canary`, `rolledBack`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<&'static str>,
    /// Keyed fingerprint of the arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argument_fingerprint: Option<String>,
    /// The tool's own rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The rule that decided whether it may be done, of the policy or the tool's own;
    /// `(default)` if none did, `(clearance)` if the principal is not cleared for the
    /// upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_rule: Option<String>,
    /// Whether the tool was only to try.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// The operators' switch that stopped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch: Option<String>,
    /// The quotas that are nearly used up, or in the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<String>,
    /// `ok`, `tool_error`, `input_required`, `task`, `cancelled`, `disconnected`, or an
    /// error's label.
    pub outcome: String,
    /// JSON-RPC error code, where the answer was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<i64>,
    /// From the request's arrival to the end of its answer.
    pub duration_ms: u64,
    /// Digest of the configuration that decided.
    pub config: String,
}

/// Which other upstream answered a call; noted by whoever makes it, while it is under way.
#[derive(Debug, Clone, Default)]
pub struct AnsweredBy(Rc<OnceCell<String>>);

impl AnsweredBy {
    /// Notes who is asked in the first one's place.
    pub(crate) fn note(&self, upstream: &str) {
        // Nobody is asked after that one.
        let _ = self.0.set(upstream.to_owned());
    }

    pub(crate) fn is_nobody(&self) -> bool {
        self.0.get().is_none()
    }
}

impl Serialize for AnsweredBy {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.get().serialize(to)
    }
}

/// A record that will be written exactly once.
pub struct Pending<P: Platform> {
    platform: Rc<P>,
    started: Timestamp,
    /// What is known so far.
    pub record: Record,
}

impl<P: Platform> Pending<P> {
    /// Begins the record of a request that has just arrived.
    pub fn begin(platform: Rc<P>, endpoint: String, config: String) -> Self {
        let started = platform.clock().now();
        let mut id = [0; 16];
        platform.random(&mut id);
        let record = Record {
            event: "audit",
            at_ms: started.0,
            correlation_id: crate::seal::hex(&id),
            endpoint,
            config,
            ..Record::default()
        };
        Self {
            platform,
            started,
            record,
        }
    }

    /// A record for another member of the same batch.
    pub fn sibling(&self) -> Self {
        let from = &self.record;
        let record = Record {
            event: "audit",
            at_ms: from.at_ms,
            correlation_id: from.correlation_id.clone(),
            issuer: from.issuer.clone(),
            subject: from.subject.clone(),
            client_id: from.client_id.clone(),
            tenant: from.tenant.clone(),
            address: from.address.clone(),
            endpoint: from.endpoint.clone(),
            config: from.config.clone(),
            ..Record::default()
        };
        Self {
            platform: Rc::clone(&self.platform),
            started: self.started,
            record,
        }
    }

    /// Notes who asks.
    pub fn principal(&mut self, principal: &Principal) {
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        self.record.issuer = known(&principal.issuer);
        self.record.subject = known(&principal.subject);
        self.record.client_id.clone_from(&principal.client_id);
        self.record.tenant.clone_from(&principal.tenant);
    }

    /// Notes what stopped it: a rule, wherever it was asked, or an operator's switch.
    pub(crate) fn stopped(&mut self, error: &Error) {
        if let Some(rule) = error.decided_by() {
            self.record.policy_rule = Some(rule);
        }
        self.record.switch = error.switch();
    }

    /// Writes the record.
    pub fn finish(mut self, outcome: impl Into<String>) {
        self.record.outcome = outcome.into();
    }

    /// Writes nothing for this record: what arrived was no call, or its members have
    /// records of their own.
    pub fn discard(&mut self) {
        self.record.event = "";
    }
}

impl<P: Platform> Drop for Pending<P> {
    fn drop(&mut self) {
        if self.record.event.is_empty() {
            return;
        }
        if self.record.outcome.is_empty() {
            self.record.outcome = "disconnected".to_owned();
        }
        let elapsed = self.platform.clock().now().since(self.started);
        self.record.duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        if let Ok(line) = serde_json::to_string(&self.record) {
            self.platform.log(LogLevel::Info, &line);
        }
    }
}
