//! The one table that turns what stopped a request into a response.

use std::time::Duration;

use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;
use tidegate_mcp::jsonrpc::{self, RpcError};

use super::{Error, Fault, KeyRefusal, Rejection};

/// JSON-RPC code of refusals that are the gateway's own: outside the reserved ranges.
pub const REFUSED: i64 = -31_000;
/// JSON-RPC code of upstream failures.
pub const UPSTREAM_FAILED: i64 = -31_001;
/// JSON-RPC code of a limit that was reached.
pub const RATE_LIMITED: i64 = -31_002;

/// When it is worth asking again where there was no room.
const FULL_FOR: Duration = Duration::from_secs(1);

/// An error as a response: status, headers, and the JSON-RPC error in its body.
pub(crate) struct ErrorResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) error: RpcError,
}

impl Error {
    /// The one table: what the caller sees. `correlation_id` finds the log line of a fault.
    pub(crate) fn response(&self, correlation_id: &str) -> ErrorResponse {
        match self {
            Self::Rejection(rejection) => rejection.response(),
            Self::Fault(Fault::NoConfiguration(_)) => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                RpcError::new(
                    jsonrpc::INTERNAL_ERROR,
                    "This gateway has no configuration yet. Its operator publishes one: `tidegate push` on Cloudflare; on Spin, what `tidegate compile` prints as the value of `config` in the key-value store.",
                )
                .with_data(json!({ "correlationId": correlation_id })),
            ),
            Self::Fault(Fault::TaskUnsettled(_)) => plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                RpcError::new(
                    jsonrpc::INTERNAL_ERROR,
                    "Whether the task was made is not known; if it was, its tool will be run. See what the tool has done before you call it again.",
                )
                .with_data(json!({ "correlationId": correlation_id, "reason": "task_unsettled" })),
            ),
            Self::Fault(_) => plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                RpcError::new(
                    jsonrpc::INTERNAL_ERROR,
                    "The gateway failed. Tell its operator the correlation id.",
                )
                .with_data(json!({ "correlationId": correlation_id })),
            ),
        }
    }
}

impl Rejection {
    fn response(&self) -> ErrorResponse {
        let label = self.to_string();
        let refused =
            |text: &str| RpcError::new(REFUSED, text).with_data(json!({ "reason": label }));
        let failed = |upstream: &str, text: String| {
            RpcError::new(UPSTREAM_FAILED, text)
                .with_data(json!({ "reason": label, "upstream": upstream }))
        };
        match self {
            Self::NotFound => plain(StatusCode::NOT_FOUND, refused("No such endpoint. MCP is served at /mcp.")),
            Self::AddressNotAllowed => plain(
                StatusCode::FORBIDDEN,
                refused("This gateway is not open to the network address the request came from."),
            ),
            Self::CountryNotAllowed => plain(
                StatusCode::FORBIDDEN,
                refused("This gateway is not open to the country the request came from."),
            ),
            Self::HeadersTooLarge { fields, bytes } => plain(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                RpcError::new(REFUSED, format!("Send at most {fields} header fields, of {bytes} bytes together."))
                    .with_data(json!({ "reason": label, "maxHeaders": fields, "maxHeaderBytes": bytes })),
            ),
            Self::OriginNotAllowed => plain(
                StatusCode::FORBIDDEN,
                refused("This origin may not call the gateway. Its operator lists origins under `allowedOrigins`."),
            ),
            Self::HostNotAllowed => plain(
                StatusCode::FORBIDDEN,
                refused("Authentication is off, so only this machine is served, by a loopback host name."),
            ),
            Self::MethodNotAllowed { allow } => with_header(
                StatusCode::METHOD_NOT_ALLOWED,
                (ALLOW, HeaderValue::from_static(allow)),
                refused("This endpoint does not take this HTTP method."),
            ),
            Self::UnsupportedMediaType => plain(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                refused("Send `Content-Type: application/json`."),
            ),
            Self::NotAcceptable => plain(
                StatusCode::NOT_ACCEPTABLE,
                refused("Send `Accept: application/json, text/event-stream`."),
            ),
            Self::BodyTooLarge { max } => plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                RpcError::new(REFUSED, format!("The request body is larger than {max} bytes."))
                    .with_data(json!({ "reason": label, "maxBytes": max })),
            ),
            Self::BodyInterrupted => plain(StatusCode::BAD_REQUEST, refused("The request body ended early.")),
            Self::Unauthenticated { challenge, reason } => {
                with_header(StatusCode::UNAUTHORIZED, (WWW_AUTHENTICATE, challenge.clone()), refused(reason))
            }
            Self::OtherTenant => plain(
                StatusCode::FORBIDDEN,
                refused("The token is of another tenant than this endpoint."),
            ),
            Self::Denied { rule, disclose } => {
                let text = "The gateway's policy does not permit this call.";
                let error = match disclose {
                    true => RpcError::new(REFUSED, text).with_data(json!({ "reason": label, "rule": rule })),
                    false => refused(text),
                };
                plain(StatusCode::FORBIDDEN, error)
            }
            Self::KeyRefused(refusal) => refusal.response(),
            Self::Killed { kind, reason, retry_after, .. } => {
                let error = RpcError::new(REFUSED, format!("Switched off by the operator: {reason}"))
                    .with_data(json!({ "reason": label, "switch": kind, "message": reason }));
                match retry_after {
                    Some(after) => with_header(StatusCode::SERVICE_UNAVAILABLE, retry_after_header(*after), error),
                    None => plain(StatusCode::SERVICE_UNAVAILABLE, error),
                }
            }
            Self::RequestToken { why } => {
                let text = match *why {
                    "missing" => "This tool takes only calls with a request-scope token (Tidegate-Request-Token).",
                    "malformed" => "The request-scope token is not written as one.",
                    "expired" => "The request-scope token is too old, or of the future.",
                    "replayed" => "The request-scope token has been used before.",
                    "arguments" => "These arguments have no canonical form (RFC 8785), so no token can be for them.",
                    _ => "The request-scope token is not for this call by this caller.",
                };
                let data = json!({ "reason": label, "requestToken": why });
                plain(StatusCode::FORBIDDEN, RpcError::new(REFUSED, text).with_data(data))
            }
            Self::InsufficientScope { challenge, .. } => with_header(
                StatusCode::FORBIDDEN,
                (WWW_AUTHENTICATE, challenge.clone()),
                refused("The token lacks a scope this tool needs; see WWW-Authenticate."),
            ),
            Self::RateLimited { limit, retry_after } => with_header(
                StatusCode::TOO_MANY_REQUESTS,
                retry_after_header(*retry_after),
                RpcError::new(RATE_LIMITED, format!("Too many requests for limit `{limit}`; retry later.")).with_data(
                    json!({ "reason": label, "limit": limit, "retryAfterMs": millis(*retry_after) }),
                ),
            ),
            Self::QuotaExceeded { quota, unit, resets_at, retry_after } => with_header(
                StatusCode::TOO_MANY_REQUESTS,
                retry_after_header(*retry_after),
                RpcError::new(RATE_LIMITED, format!("Quota `{quota}` is used up until {resets_at}.")).with_data(json!({
                    "reason": label, "quota": quota, "unit": unit, "resetsAt": resets_at,
                    "retryAfterMs": millis(*retry_after),
                })),
            ),
            Self::TooManyTasks { limit, max, retry_after } => with_header(
                StatusCode::TOO_MANY_REQUESTS,
                retry_after_header(*retry_after),
                RpcError::new(
                    RATE_LIMITED,
                    format!("{max} tasks are open, as many as `{limit}` allows; wait for one to end, or cancel one."),
                )
                .with_data(json!({ "reason": label, "limit": limit, "max": max, "retryAfterMs": millis(*retry_after) })),
            ),
            // By this status a client of these revisions knows that it must initialize anew.
            Self::SessionUnknown => plain(
                StatusCode::NOT_FOUND,
                refused("No such session, or it is over. Send `initialize` for a new one."),
            ),
            Self::Protocol { status, error, .. } => plain(*status, error.clone()),
            Self::UpstreamUnavailable { upstream, retry_after } => {
                let error = failed(upstream, format!("Upstream `{upstream}` cannot be reached."));
                match retry_after {
                    Some(after) => with_header(StatusCode::SERVICE_UNAVAILABLE, retry_after_header(*after), error),
                    None => plain(StatusCode::BAD_GATEWAY, error),
                }
            }
            Self::UpstreamFull { upstream } => with_header(
                StatusCode::SERVICE_UNAVAILABLE,
                retry_after_header(FULL_FOR),
                failed(
                    upstream,
                    format!(
                        "As many calls to upstream `{upstream}` are under way as the gateway makes at once; retry later."
                    ),
                ),
            ),
            Self::Overloaded => with_header(
                StatusCode::SERVICE_UNAVAILABLE,
                retry_after_header(FULL_FOR),
                RpcError::new(
                    REFUSED,
                    "The gateway has as much to do as it takes on at once; nothing was done. Send the request again after the time in Retry-After, and fewer at once.",
                )
                .with_data(json!({ "reason": label, "retryAfterMs": millis(FULL_FOR) })),
            ),
            Self::UpstreamLost { upstream } => plain(
                StatusCode::BAD_GATEWAY,
                failed(
                    upstream,
                    format!("Upstream `{upstream}` cannot be reached, or closed the connection before it answered."),
                ),
            ),
            Self::UpstreamTimeout { upstream, timeout, .. } => plain(
                StatusCode::GATEWAY_TIMEOUT,
                failed(upstream, format!("Upstream `{upstream}` did not answer within {} ms.", millis(*timeout))),
            ),
            Self::UpstreamBusy { upstream, limited, retry_after, .. } => busy(upstream, *limited, *retry_after, &label),
            Self::UpstreamInvalid { upstream, reason, .. } => plain(
                StatusCode::BAD_GATEWAY,
                failed(upstream, format!("Upstream `{upstream}` answered with something that is not MCP: {reason}.")),
            ),
            Self::UpstreamRefused { upstream } | Self::HeadersRefused { upstream } => plain(
                StatusCode::BAD_GATEWAY,
                failed(
                    upstream,
                    format!("Upstream `{upstream}` refuses the form of the request."),
                ),
            ),
            Self::NoCredentials { upstream, reason } => plain(
                StatusCode::BAD_GATEWAY,
                failed(upstream, format!("The gateway has no token for upstream `{upstream}`: {reason}.")),
            ),
            Self::NotConnected { upstream, link: Some(link) } => plain(
                StatusCode::FORBIDDEN,
                RpcError::new(
                    REFUSED,
                    format!("Upstream `{upstream}` needs an account of yours. Connect it at {link} and try again."),
                )
                .with_data(json!({ "reason": label, "upstream": upstream, "url": link })),
            ),
            Self::NotConnected { upstream, link: None } => plain(
                StatusCode::FORBIDDEN,
                RpcError::new(
                    REFUSED,
                    format!("Upstream `{upstream}` needs an account of yours, and none is connected."),
                )
                .with_data(json!({ "reason": label, "upstream": upstream })),
            ),
            Self::UpstreamUnauthorized { upstream } => plain(
                StatusCode::BAD_GATEWAY,
                failed(upstream, format!("Upstream `{upstream}` refuses the gateway's credentials.")),
            ),
        }
    }
}

impl KeyRefusal {
    fn response(&self) -> ErrorResponse {
        let label = self.to_string();
        let refused =
            |text: &str| RpcError::new(REFUSED, text).with_data(json!({ "reason": label }));
        match self {
            Self::Malformed => plain(
                StatusCode::BAD_REQUEST,
                refused(
                    "The idempotency key is not one text of 1 to 255 visible characters, or `_meta` names another than the header.",
                ),
            ),
            Self::InProgress(after) => with_header(
                StatusCode::CONFLICT,
                retry_after_header(*after),
                RpcError::new(
                    REFUSED,
                    "The first call with this idempotency key has not ended; ask again.",
                )
                .with_data(json!({ "reason": label, "retryAfterMs": millis(*after) })),
            ),
            Self::Other => plain(
                StatusCode::UNPROCESSABLE_ENTITY,
                refused("This idempotency key was used for another tool or other arguments."),
            ),
            Self::Unknown => plain(
                StatusCode::CONFLICT,
                refused(
                    "It is not known whether the first call with this idempotency key was done; it was not made again. Find out, then use another key.",
                ),
            ),
            Self::TooLarge(bytes) => plain(
                StatusCode::CONFLICT,
                RpcError::new(
                    REFUSED,
                    format!(
                        "The call was done; its result of {bytes} bytes was too large to be kept."
                    ),
                )
                .with_data(json!({ "reason": label, "bytes": bytes })),
            ),
        }
    }
}

fn busy(upstream: &str, limited: bool, after: Option<Duration>, label: &str) -> ErrorResponse {
    let text = match limited {
        true => format!("Upstream `{upstream}` is asked too often; retry later."),
        false => format!("Upstream `{upstream}` has too much to do; retry later."),
    };
    let mut data = json!({ "reason": label, "upstream": upstream });
    if let Some(after) = after {
        data["retryAfterMs"] = millis(after).into();
    }
    let error = RpcError::new(UPSTREAM_FAILED, text).with_data(data);
    match after {
        Some(after) => with_header(
            StatusCode::SERVICE_UNAVAILABLE,
            retry_after_header(after),
            error,
        ),
        None => plain(StatusCode::SERVICE_UNAVAILABLE, error),
    }
}

fn plain(status: StatusCode, error: RpcError) -> ErrorResponse {
    ErrorResponse {
        status,
        headers: HeaderMap::new(),
        error,
    }
}

fn with_header(
    status: StatusCode,
    (name, value): (http::HeaderName, HeaderValue),
    error: RpcError,
) -> ErrorResponse {
    let mut headers = HeaderMap::new();
    headers.insert(name, value);
    ErrorResponse {
        status,
        headers,
        error,
    }
}

fn retry_after_header(after: Duration) -> (http::HeaderName, HeaderValue) {
    // RFC 9110: whole seconds; rounded up, so that a client never returns too early.
    (
        RETRY_AFTER,
        HeaderValue::from(after.as_secs() + u64::from(after.subsec_nanos() > 0)),
    )
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
