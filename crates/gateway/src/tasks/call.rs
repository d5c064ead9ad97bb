//! The call a task's record tells of.

use std::borrow::Cow;
use std::time::Duration;

use futures_util::future::FutureExt;
use http::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use tidegate_mcp::json::{Object, raw};
use tidegate_mcp::jsonrpc::{INTERNAL_ERROR, RpcError};
use tidegate_mcp::meta::{self, ClientCapabilities, RequestMeta, Trace};
use tidegate_mcp::method::Method;
use tidegate_mcp::version::ProtocolVersion;

use super::drive::Events;
use super::record::{Answer, Record};
use super::theirs::Minted;
use crate::canary;
use crate::context::Context;
use crate::dispatch::{self, Ask, Place};
use crate::egress;
use crate::error::{Error, Rejection};
use crate::idempotency::{IDEMPOTENCY_KEY, IDEMPOTENCY_META};
use crate::platform::Platform;
use crate::rounds;
use crate::route::One;
use crate::seal::hex;

/// Makes the call a record tells of, and gives what comes of it. Log messages are for
/// clients that are still there.
pub(super) fn call<P: Platform>(
    context: &Context<P>,
    record: &Record,
    log_level: Option<String>,
) -> Result<Events, Error> {
    let upstream = context.settings.upstream(&record.upstream);
    let upstream = upstream.ok_or_else(gone)?;
    let upstream = canary::pinned(context, upstream, record.version.as_deref());
    let mut one = One {
        upstream: upstream.clone(),
        method: Method::ToolsCall,
        exposed: record.tool.clone(),
        own: record.tool.clone(),
        params: record.params.clone(),
        prefixed: record.prefixed,
    };
    if record.rounds > 0 {
        // Of the round before; that of a first call is its client's.
        one.params.remove("inputResponses");
        one.params.remove("requestState");
    }
    if let Some(answers) = answers(record) {
        one.params.insert("inputResponses", &answers);
    }
    if let Some(state) = &record.state {
        one.params.insert("requestState", state);
        if rounds::resume(context, &record.owner, &mut one).is_err() {
            let reason = "The answers came too late for the tool to go on.";
            return Err(Rejection::protocol(RpcError::new(INTERNAL_ERROR, reason)).into());
        }
    }
    let mut meta = meta_of(record, log_level);
    let mut param_headers = headers(record);
    if upstream.idempotency_keys {
        let key = idempotency_key(record);
        meta.rest.insert(IDEMPOTENCY_META, &key);
        if let Ok(value) = HeaderValue::from_str(&format!("\"{key}\"")) {
            param_headers.push((IDEMPOTENCY_KEY, value));
        }
    }
    let ask = Ask {
        asks: true,
        place: Place::Here,
        meta,
        param_headers,
        timeout: Duration::from_millis(record.timeout_ms),
        minted: Minted::Followed,
    };
    let (context, owner) = (context.clone(), record.owner.clone());
    let call = async move { dispatch::ask_upstream(&context, &owner, Box::new(one), ask).await };
    Ok(egress::events(call.boxed_local()))
}

/// Names one round of one task, the same whoever runs it. A call with a client's key has one
/// already, which is the same should it come again and become another task.
fn idempotency_key(record: &Record) -> String {
    let call = record.meta.get_str(IDEMPOTENCY_META);
    let call = call.unwrap_or(Cow::Borrowed(&record.handle));
    if record.rounds == 0 && call != record.handle {
        return call.into_owned();
    }
    let mut hash = Sha256::new();
    hash.update(call.as_bytes());
    hash.update(record.rounds.to_be_bytes());
    hex(&hash.finalize()[..16])
}

/// The headers the call came with.
fn headers(record: &Record) -> Vec<(HeaderName, HeaderValue)> {
    let headers = record.param_headers.iter();
    headers
        .filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)))
        .collect()
}

/// What becomes of a task whose upstream was taken out of the configuration.
pub(super) fn gone() -> Error {
    let reason = "The upstream of this task is no longer configured.";
    Rejection::protocol(RpcError::new(INTERNAL_ERROR, reason)).into()
}

/// What the client answered in the last round, under the upstream's own keys.
fn answers(record: &Record) -> Option<Object> {
    let mut answers = Object::new();
    for asked in record.questions.values() {
        if let (Some(key), Some(Answer::Result(answer))) = (&asked.key, &asked.answer) {
            answers.insert(key, answer);
        }
    }
    (!answers.is_empty()).then_some(answers)
}

pub(super) fn meta_of(record: &Record, log_level: Option<String>) -> RequestMeta {
    let mut rest = record.meta.clone();
    let mut take = |name| {
        let value = rest.get_str(name).map(Cow::into_owned);
        rest.remove(name);
        value
    };
    let trace = Trace {
        traceparent: take(meta::TRACEPARENT),
        tracestate: take(meta::TRACESTATE),
        baggage: take(meta::BAGGAGE),
    };
    RequestMeta {
        protocol_version: ProtocolVersion::LATEST.as_str().to_owned(),
        client_capabilities: ClientCapabilities(record.capabilities.clone()),
        log_level,
        progress_token: Some(raw(&0)),
        trace,
        rest,
        ..RequestMeta::default()
    }
}
