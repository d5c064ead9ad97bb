//! One request to an upstream of 2026-07-28: an envelope and headers of the gateway's own.

use http::{HeaderMap, HeaderValue};
use tidegate_mcp::headers;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{Request, RequestId};
use tidegate_mcp::meta::{self, RequestMeta};
use tidegate_mcp::version::{Era, ProtocolVersion};

use super::facts::{self, Facts};
use super::{Declares, Exchange, Outgoing, legacy, reply, wire};
use crate::context::Context;
use crate::egress::Reply;
use crate::error::Error;
use crate::platform::Platform;

pub(super) async fn call<P: Platform>(
    exchange: &Exchange<'_, P>,
    mut outgoing: Outgoing,
    facts: &Facts,
) -> Result<Reply, Error> {
    let (version, id) = (facts.version, exchange.next_id());
    let relay = reply::Relay::of(&outgoing, &id);
    let mut params = std::mem::take(&mut outgoing.params);
    let mut envelope = modern_meta(exchange.context, &outgoing.meta, version, &id);
    let understood = match outgoing.tasks {
        Declares::Never | Declares::Insisted => false,
        Declares::Offered => facts.offers_tasks(),
        Declares::Always => true,
    };
    if understood {
        declare_tasks(&mut envelope);
    }
    params.insert("_meta", &envelope);
    let mut head = HeaderMap::new();
    head.insert(
        headers::MCP_PROTOCOL_VERSION,
        HeaderValue::from_static(version.as_str()),
    );
    head.insert(
        headers::MCP_METHOD,
        HeaderValue::from_static(outgoing.method.as_str()),
    );
    if let Some(name) = headers::expected_name(outgoing.method.as_str(), &params) {
        let value = HeaderValue::from_str(&headers::encode_value(&name));
        head.insert(
            headers::MCP_NAME,
            value.map_err(|_| exchange.invalid("a name that fits no header"))?,
        );
    }
    head.extend(std::mem::take(&mut outgoing.param_headers));
    let mut request = Request {
        id: id.clone(),
        method: outgoing.method.as_str().to_owned(),
        params,
    };
    let patience = exchange.patience();
    let mut answer = wire::post(exchange, head, request.to_json()).await?;
    if answer.knows_no_modern(exchange).await? && facts.doubt(exchange) {
        // It did not act on the request. What answers now may be another server.
        let asked = facts::ask(exchange, &outgoing.principal, outgoing.spoken()).await;
        if asked.is_ok_and(|facts| facts.era() == Era::Legacy) {
            request.params.remove("_meta");
            outgoing.params = request.params;
            return legacy::afresh(exchange, &outgoing).await;
        }
    }
    let messages = answer.into_messages(exchange, &id, &patience).await?;
    reply::read(exchange, messages, id, relay, reply::Dialect::Modern).await
}

/// Says in an envelope that tasks of the upstream's own are understood.
fn declare_tasks(envelope: &mut Object) {
    let object = |of: &Object, name| of.get_object(name).and_then(Result::ok).unwrap_or_default();
    let capabilities = object(envelope, meta::CLIENT_CAPABILITIES);
    let extensions = object(&capabilities, "extensions").with(meta::EXT_TASKS, &Object::new());
    let capabilities = capabilities.with("extensions", &extensions);
    envelope.insert(meta::CLIENT_CAPABILITIES, &capabilities);
}

/// `_meta` of a request the gateway makes: its own identity, what the client can do and we
/// can carry, and everything that is not ours to decide.
pub(crate) fn modern_meta<P: Platform>(
    context: &Context<P>,
    client: &RequestMeta,
    version: ProtocolVersion,
    id: &RequestId,
) -> Object {
    let mut carried = client.rest.clone();
    carried.insert(meta::PROTOCOL_VERSION, &version.as_str());
    carried.insert(
        meta::CLIENT_INFO,
        &crate::discover::server_info(&context.settings),
    );
    carried.insert(
        meta::CLIENT_CAPABILITIES,
        &crate::discover::bridged(&client.client_capabilities),
    );
    if let Some(level) = &client.log_level {
        carried.insert(meta::LOG_LEVEL, level);
    }
    if client.progress_token.is_some() {
        carried.insert(meta::PROGRESS_TOKEN, id);
    }
    trace(&mut carried, client);
    carried
}

pub(super) fn trace(carried: &mut Object, client: &RequestMeta) {
    let trace = &client.trace;
    let fields = [
        (meta::TRACEPARENT, &trace.traceparent),
        (meta::TRACESTATE, &trace.tracestate),
        (meta::BAGGAGE, &trace.baggage),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            carried.insert(name, value);
        }
    }
}
