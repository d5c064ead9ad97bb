//! Everything that stops a request early; [`response`] is the one table of what callers see.
//!
//! A [`Rejection`] is the caller's: its `Display` is a fixed label (it is also the audit
//! outcome and a metric), its details are fields. A [`Fault`] is ours: it is logged once,
//! where the request ends, and the caller sees only a correlation id.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use tidegate_mcp::jsonrpc::{self, RequestId, RpcError};

mod response;

pub use response::{RATE_LIMITED, REFUSED, UPSTREAM_FAILED};

/// Why a request got no ordinary answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller can do something about it.
    #[error(transparent)]
    Rejection(#[from] Rejection),
    /// We, or what we stand on, failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// What the caller did, or may not do.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// No such path.
    #[error("not_found")]
    NotFound,
    /// A client from an address that is not let in, or that is not known.
    #[error("address_not_allowed")]
    AddressNotAllowed,
    /// A client from a country that is not let in, or that is not known.
    #[error("country_not_allowed")]
    CountryNotAllowed,
    /// More header fields than are looked at.
    #[error("headers_too_large")]
    HeadersTooLarge {
        /// Most fields.
        fields: usize,
        /// Most bytes of all of them.
        bytes: usize,
    },
    /// A browser page of an origin that is not allowed.
    #[error("origin_not_allowed")]
    OriginNotAllowed,
    /// With authentication off only loopback names may be addressed.
    #[error("host_not_allowed")]
    HostNotAllowed,
    /// The path does not take this HTTP method.
    #[error("method_not_allowed")]
    MethodNotAllowed {
        /// The methods it takes.
        allow: &'static str,
    },
    /// The body is not declared as JSON.
    #[error("unsupported_media_type")]
    UnsupportedMediaType,
    /// The client takes neither JSON nor an event stream.
    #[error("not_acceptable")]
    NotAcceptable,
    /// The body is larger than the bound.
    #[error("body_too_large")]
    BodyTooLarge {
        /// The bound, in bytes.
        max: usize,
    },
    /// The body was cut off before its end.
    #[error("body_interrupted")]
    BodyInterrupted,
    /// No token, or one that is not accepted (RFC 6750 section 3).
    #[error("unauthenticated")]
    Unauthenticated {
        /// The `WWW-Authenticate` header.
        challenge: HeaderValue,
        /// What is wrong, in words that reveal nothing secret.
        reason: &'static str,
    },
    /// A good token, at another tenant's endpoint than its own.
    #[error("other_tenant")]
    OtherTenant,
    /// The policy does not let this principal do this.
    #[error("denied")]
    Denied {
        /// The rule that decided.
        rule: String,
        /// Whether the caller is told which it was.
        disclose: bool,
    },
    /// An operator has switched it off.
    #[error("killed")]
    Killed {
        /// The switch's name, for the audit record.
        switch: String,
        /// What kind of switch it is.
        kind: &'static str,
        /// Why, in the operator's words.
        reason: String,
        /// When it ends, if that is known.
        retry_after: Option<Duration>,
    },
    /// The call is not made under this idempotency key.
    #[error(transparent)]
    KeyRefused(KeyRefusal),
    /// The call's request-scope token is not one that lets it be made.
    #[error("request_token")]
    RequestToken {
        /// `missing`, `malformed`, `forged`, `expired`, `replayed` or `arguments`.
        why: &'static str,
    },
    /// The token's scopes do not reach.
    #[error("insufficient_scope")]
    InsufficientScope {
        /// The `WWW-Authenticate` header, naming every scope needed.
        challenge: HeaderValue,
        /// The rule that asks for them, for the audit record.
        rule: String,
    },
    /// Too many requests in the rule's window.
    #[error("rate_limited")]
    RateLimited {
        /// Which limit.
        limit: String,
        /// When the next request may be admitted.
        retry_after: Duration,
    },
    /// A quota is used up.
    #[error("quota_exceeded")]
    QuotaExceeded {
        /// Which.
        quota: String,
        /// What it counts.
        unit: &'static str,
        /// When the next period begins, as RFC 3339.
        resets_at: String,
        /// When the call may be admitted.
        retry_after: Duration,
    },
    /// As many tasks are open as may be.
    #[error("too_many_tasks")]
    TooManyTasks {
        /// Which limit.
        limit: &'static str,
        /// How many may be open.
        max: u32,
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// The session is not known here: never opened, over, or another principal's.
    #[error("session_unknown")]
    SessionUnknown,
    /// A protocol error of the JSON-RPC layer, with the status it travels under.
    #[error("protocol_error")]
    Protocol {
        /// HTTP status.
        status: StatusCode,
        /// The error as the client reads it.
        error: RpcError,
        /// The request it answers, where only the body could tell.
        id: Option<RequestId>,
    },
    /// The upstream certainly was not asked: it is down, or its circuit is open.
    #[error("upstream_unavailable")]
    UpstreamUnavailable {
        /// Its configured name.
        upstream: String,
        /// When to try again, if that is known.
        retry_after: Option<Duration>,
    },
    /// The connection to the upstream failed or was lost before it answered; whether it
    /// acted on the request is unknown.
    #[error("upstream_lost")]
    UpstreamLost {
        /// Its configured name.
        upstream: String,
    },
    /// The upstream did not answer in time.
    #[error("upstream_timeout")]
    UpstreamTimeout {
        /// Its configured name.
        upstream: String,
        /// How long it had.
        timeout: Duration,
        /// Whether the request itself was sent to it, or only what comes before.
        asked: bool,
    },
    /// The upstream says that it is asked too often, or has too much to do.
    #[error("upstream_busy")]
    UpstreamBusy {
        /// Its configured name.
        upstream: String,
        /// Whether it is asked too often (429): it then did not act on the request.
        limited: bool,
        /// When to try again, if it said so.
        retry_after: Option<Duration>,
        /// Whether the request itself was sent to it, or only what comes before.
        asked: bool,
    },
    /// The upstream answered something that is not MCP.
    #[error("upstream_invalid")]
    UpstreamInvalid {
        /// Its configured name.
        upstream: String,
        /// What is wrong with the answer.
        reason: String,
        /// Whether the request itself was sent to it, or only what comes before.
        asked: bool,
    },
    /// As many calls to the upstream are under way here as may be: it was not asked.
    #[error("upstream_full")]
    UpstreamFull {
        /// Its configured name.
        upstream: String,
    },
    /// As many requests are under way here as are taken at once.
    #[error("overloaded")]
    Overloaded,
    /// The upstream refuses the request without acting on it. What a client sends can
    /// cause this, so it says nothing of the upstream's health.
    #[error("upstream_refused")]
    UpstreamRefused {
        /// Its configured name.
        upstream: String,
    },
    /// The upstream finds that the headers do not say what the body says, and did not act
    /// on the request. Between it and the gateway: never the client's to see.
    #[error("upstream_refused")]
    HeadersRefused {
        /// Its configured name.
        upstream: String,
    },
    /// There is nothing to show the upstream, so it was not asked.
    #[error("no_credentials")]
    NoCredentials {
        /// Its configured name.
        upstream: String,
        /// Why not, in words that reveal nothing secret.
        reason: String,
    },
    /// The caller has no account connected at the upstream, so it was not asked.
    #[error("not_connected")]
    NotConnected {
        /// Its configured name.
        upstream: String,
        /// Where the caller, and nobody else, connects one.
        link: Option<String>,
    },
    /// The upstream refuses the gateway's own credentials.
    #[error("upstream_unauthorized")]
    UpstreamUnauthorized {
        /// Its configured name.
        upstream: String,
    },
}

/// Why a call is not made under its idempotency key
/// (draft-ietf-httpapi-idempotency-key-header section 2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// It is no key, or there are two.
    #[error("idempotency_key_malformed")]
    Malformed,
    /// The first call is being made; when to come again.
    #[error("idempotency_in_progress")]
    InProgress(Duration),
    /// The key stands for another call.
    #[error("idempotency_key_reused")]
    Other,
    /// It is not known whether the first call was done.
    #[error("idempotency_outcome_unknown")]
    Unknown,
    /// The first call's result, of so many bytes, was not kept.
    #[error("idempotency_result_too_large")]
    TooLarge(usize),
}

/// What failed on our side. Never shown to the caller.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No configuration has been published, or none can be read.
    #[error("no_configuration: {0}")]
    NoConfiguration(String),
    /// A store or the queue is out of reach.
    #[error("dependency_unavailable: {0}")]
    Dependency(String),
    /// A secret the configuration names is not set.
    #[error("secret_missing: {0}")]
    SecretMissing(String),
    /// Whether a secret is set could not be found out.
    #[error("secret_unread: {0}")]
    SecretUnread(String),
    /// Whether a task was made is not known: the store did not say.
    #[error("task_unsettled: {0}")]
    TaskUnsettled(String),
    /// Something that cannot happen did.
    #[error("internal: {0}")]
    Internal(String),
}

impl From<crate::platform::Unavailable> for Error {
    fn from(e: crate::platform::Unavailable) -> Self {
        Fault::Dependency(e.to_string()).into()
    }
}

impl Fault {
    /// Of the platform's secret store, which does not say.
    pub fn unread(error: crate::platform::Unavailable) -> Self {
        Self::SecretUnread(error.0)
    }
}

impl Rejection {
    /// A protocol error under the status it belongs to (digest of MCP 2026-07-28, errors).
    pub fn protocol(error: RpcError) -> Self {
        let status = match error.code {
            jsonrpc::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
            jsonrpc::PARSE_ERROR
            | jsonrpc::INVALID_REQUEST
            | jsonrpc::HEADER_MISMATCH
            | jsonrpc::MISSING_REQUIRED_CLIENT_CAPABILITY
            | jsonrpc::UNSUPPORTED_PROTOCOL_VERSION => StatusCode::BAD_REQUEST,
            _ => StatusCode::OK,
        };
        Self::Protocol {
            status,
            error,
            id: None,
        }
    }

    /// The request itself is malformed: 400, whatever the code.
    pub const fn envelope(error: RpcError) -> Self {
        Self::Protocol {
            status: StatusCode::BAD_REQUEST,
            error,
            id: None,
        }
    }
}

impl Error {
    /// Whether an upstream that was asked may have acted on it.
    pub(crate) const fn may_have_run(&self) -> bool {
        matches!(
            self,
            Self::Rejection(
                Rejection::UpstreamLost { .. }
                    | Rejection::UpstreamTimeout { asked: true, .. }
                    | Rejection::UpstreamInvalid { asked: true, .. }
                    | Rejection::UpstreamBusy {
                        limited: false,
                        asked: true,
                        ..
                    }
            )
        )
    }

    /// Whether the upstream certainly was not asked, or not listened to for being asked too
    /// often: asked again, it or another may do it.
    pub(crate) const fn is_not_taken(&self) -> bool {
        matches!(
            self,
            Self::Rejection(
                Rejection::UpstreamUnavailable { .. }
                    | Rejection::UpstreamFull { .. }
                    | Rejection::UpstreamTimeout { asked: false, .. }
                    | Rejection::UpstreamInvalid { asked: false, .. }
                    | Rejection::UpstreamBusy { limited: true, .. }
                    | Rejection::UpstreamBusy { asked: false, .. }
            )
        )
    }

    /// Whether certainly nothing was done: the upstream did not take the request, or refused
    /// it, or there was nothing to show it.
    pub(crate) const fn is_not_done(&self) -> bool {
        self.is_not_taken()
            || matches!(
                self,
                Self::Rejection(
                    Rejection::UpstreamRefused { .. }
                        | Rejection::HeadersRefused { .. }
                        | Rejection::UpstreamUnauthorized { .. }
                        | Rejection::NoCredentials { .. }
                        | Rejection::NotConnected { .. }
                )
            )
    }

    /// Whether an upstream did not answer in the time it had.
    pub(crate) const fn is_timeout(&self) -> bool {
        matches!(self, Self::Rejection(Rejection::UpstreamTimeout { .. }))
    }

    /// What a call came to that failed so and, made again, failed as `again` says: that the
    /// second attempt certainly was not made says nothing of the first.
    pub(crate) fn after(again: Self, first: Option<Self>) -> Self {
        match first {
            Some(first) if first.may_have_run() && !again.may_have_run() => first,
            Some(_) | None => again,
        }
    }

    /// The fixed label of this error, for audit and metrics.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Rejection(rejection) => rejection.to_string(),
            Self::Fault(_) => "fault".to_owned(),
        }
    }

    /// The rule that refused the request, if one did.
    pub(crate) fn decided_by(&self) -> Option<String> {
        match self {
            Self::Rejection(
                Rejection::Denied { rule, .. } | Rejection::InsufficientScope { rule, .. },
            ) => Some(rule.clone()),
            Self::Rejection(_) | Self::Fault(_) => None,
        }
    }

    /// The operators' switch that stopped the request, if one did.
    pub(crate) fn switch(&self) -> Option<String> {
        match self {
            Self::Rejection(Rejection::Killed { switch, .. }) => Some(switch.clone()),
            Self::Rejection(_) | Self::Fault(_) => None,
        }
    }

    /// The id of the request this answers, where only the body could tell.
    pub(crate) fn request_id(&self) -> Option<RequestId> {
        match self {
            Self::Rejection(Rejection::Protocol { id, .. }) => id.clone(),
            Self::Rejection(_) | Self::Fault(_) => None,
        }
    }
}
