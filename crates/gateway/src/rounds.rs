//! Multi round-trip requests (MCP 2026-07-28): a result that asks for input, and the retry
//! that brings it.
//!
//! The upstream's `requestState` steers what it does next, and ours steers which upstream
//! gets it, so the client only ever holds it sealed: bound to the principal, the method,
//! the name and the params it belongs to, and to a time. Nothing is stored.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidegate_mcp::input::{InputError, InputRequired};
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::RpcError;
use tidegate_mcp::meta::ClientCapabilities;

use crate::auth::PrincipalId;
use crate::canary;
use crate::context::Context;
use crate::error::{Error, Rejection};
use crate::platform::Platform;
use crate::route::One;
use crate::seal::{Purpose, hex};
use crate::time::Timestamp;

/// How long a client may take to answer one round.
const ANSWER_WITHIN: Duration = Duration::from_secs(3600);

const STATE: &str = "requestState";
const ANSWERS: &str = "inputResponses";

#[derive(Serialize, Deserialize)]
struct State {
    /// The request it belongs to: upstream, method, name, params and principal.
    digest: String,
    until: Timestamp,
    /// Exactly what the upstream gave, or the name of the parked call.
    state: String,
    /// Which version of the upstream gave it, if not the upstream itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Whether the call is parked in a keeper.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    parked: bool,
}

/// Opens the state a retry brings: the upstream gets its own text back, and of a call that
/// is parked the name is given.
pub fn resume<P: Platform>(
    context: &Context<P>,
    principal: &PrincipalId,
    one: &mut One,
) -> Result<Option<String>, Error> {
    let Some(sealed) = one.params.get(STATE) else {
        return Ok(None);
    };
    let refused = || {
        Error::from(Rejection::protocol(RpcError::invalid_params(
            "requestState is not valid here",
        )))
    };
    let sealed: String = serde_json::from_str(sealed.get()).map_err(|_| refused())?;
    let state: State = context
        .settings
        .sealer
        .open(Purpose::RequestState, &sealed)
        .ok_or_else(refused)?;
    if state.until < context.now() || state.digest != digest(principal, one) {
        return Err(refused());
    }
    let version = state.version.as_deref();
    if version != one.upstream.version.as_deref() {
        let configured = context.settings.upstream(&one.upstream.name);
        let configured = configured.unwrap_or(&one.upstream);
        one.upstream = canary::pinned(context, configured, version).clone();
    }
    if state.parked {
        one.params.remove(STATE);
        return Ok(Some(state.state));
    }
    one.params.insert(STATE, &state.state);
    Ok(None)
}

/// What a result asks for, if the client declared all of it. Whatever an upstream makes of
/// it, a client is asked only what it declared.
pub fn check(
    upstream: &str,
    client: &ClientCapabilities,
    result: &Object,
) -> Result<InputRequired, Error> {
    let invalid = |e: InputError| match e.to_rpc_error() {
        Some(undeclared) => Rejection::protocol(undeclared),
        None => Rejection::UpstreamInvalid {
            upstream: upstream.to_owned(),
            reason: e.to_string(),
            asked: true,
        },
    };
    let asked = InputRequired::parse(result).map_err(invalid)?;
    asked.check(client).map_err(invalid)?;
    Ok(asked)
}

/// One round of a request: what is known of it when its result asks for input.
pub struct Round<'a> {
    /// The request's digest.
    pub request: &'a str,
    /// The upstream's name.
    pub upstream: &'a str,
    /// Which version of it, if not the upstream itself.
    pub version: Option<&'a str>,
    /// Whether the call is parked in a keeper.
    pub parked: bool,
}

/// Seals the state of a result that asks for input.
pub fn suspend<P: Platform>(
    context: &Context<P>,
    round: &Round<'_>,
    client: &ClientCapabilities,
    result: &mut Object,
) -> Result<(), Error> {
    let asked = check(round.upstream, client, result)?;
    let Some(state) = asked.request_state else {
        return Ok(());
    };
    let state = State {
        digest: round.request.to_owned(),
        until: context.now() + ANSWER_WITHIN,
        state,
        version: round.version.map(str::to_owned),
        parked: round.parked,
    };
    let sealed =
        context
            .settings
            .sealer
            .seal(context.platform.as_ref(), Purpose::RequestState, &state)?;
    result.insert(STATE, &sealed);
    Ok(())
}

/// Identifies a request across its rounds: what stays the same when it is retried.
pub fn digest(principal: &PrincipalId, one: &One) -> String {
    let mut same = one.params.clone();
    same.remove(STATE);
    same.remove(ANSWERS);
    let mut hash = Sha256::new();
    for part in [
        principal.as_str(),
        &one.upstream.name,
        one.method.as_str(),
        &one.own,
        same.to_raw().get(),
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize())
}
