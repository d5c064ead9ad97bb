//! What a keeper says to the isolate that asked it: one JSON value per event.

use async_stream::stream;
use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tidegate_mcp::json::Object;
use tidegate_mcp::sse;

use std::time::Duration;

use crate::body::Body;
use crate::error::{Error, Fault, Rejection};
use crate::tasks::record::Failure;
use crate::upstream::not_asked;

/// One thing a keeper says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Frame {
    /// A notification of the upstream.
    Notification { method: String, params: Object },
    /// The call is parked under this name until the client has answered.
    #[serde(rename_all = "camelCase")]
    Required {
        call: String,
        input_requests: Object,
    },
    /// The call's result.
    Result(Object),
    /// The call's failure.
    Failed(Failed),
}

impl Frame {
    pub(crate) fn encode(&self) -> Bytes {
        let text = serde_json::to_string(self).unwrap_or_default();
        Bytes::from(sse::encode_message(&text))
    }
}

/// Reads what a keeper says, to its end or to the first thing that is none of this.
pub(crate) fn read(body: Body) -> impl Stream<Item = Result<Frame, String>> {
    stream! {
        let mut decoder = sse::Decoder::default();
        let mut chunks = body.into_stream();
        while let Some(chunk) = chunks.next().await {
            let events = match chunk {
                Ok(chunk) => decoder.push(&chunk).map_err(|e| e.to_string()),
                Err(_) => Err("a keeper's answer was cut off".to_owned()),
            };
            match events {
                Ok(events) => {
                    for event in events {
                        yield serde_json::from_str(&event.data).map_err(|e| e.to_string());
                    }
                }
                Err(reason) => {
                    yield Err(reason);
                    return;
                }
            }
        }
    }
}

/// An [`Error`] on its way between two isolates of one deployment.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Failed {
    Protocol(u16, Failure),
    Unavailable(String, Option<u64>),
    Busy(String, bool, Option<u64>),
    Lost(String),
    Timeout(String, u64),
    Invalid(String, String),
    Full(String),
    Refused(String),
    Unauthorized(String),
    NoCredentials(String, String),
    NotConnected(String, Option<String>),
    /// That was met before the upstream was asked.
    NotAsked(Box<Self>),
    /// Ours; what the log of the asking isolate says.
    Fault(String),
}

impl Failed {
    /// This, met when the upstream was asked or before.
    fn met(self, asked: bool) -> Self {
        match asked {
            true => self,
            false => Self::NotAsked(Box::new(self)),
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        match error {
            Error::Fault(fault) => Self::Fault(fault.to_string()),
            Error::Rejection(rejection) => match rejection {
                Rejection::Protocol { status, error, .. } => {
                    Self::Protocol(status.as_u16(), error.into())
                }
                Rejection::UpstreamUnavailable {
                    upstream,
                    retry_after,
                } => Self::Unavailable(upstream, retry_after.map(millis)),
                Rejection::UpstreamBusy {
                    upstream,
                    limited,
                    retry_after,
                    asked,
                } => Self::Busy(upstream, limited, retry_after.map(millis)).met(asked),
                Rejection::UpstreamLost { upstream } => Self::Lost(upstream),
                Rejection::UpstreamTimeout {
                    upstream,
                    timeout,
                    asked,
                } => Self::Timeout(upstream, millis(timeout)).met(asked),
                Rejection::UpstreamInvalid {
                    upstream,
                    reason,
                    asked,
                } => Self::Invalid(upstream, reason).met(asked),
                Rejection::UpstreamFull { upstream } => Self::Full(upstream),
                Rejection::UpstreamRefused { upstream }
                | Rejection::HeadersRefused { upstream } => Self::Refused(upstream),
                Rejection::UpstreamUnauthorized { upstream } => Self::Unauthorized(upstream),
                Rejection::NoCredentials { upstream, reason } => {
                    Self::NoCredentials(upstream, reason)
                }
                Rejection::NotConnected { upstream, link } => Self::NotConnected(upstream, link),
                // What the asking isolate decides itself never comes from a keeper.
                Rejection::NotFound
                | Rejection::OriginNotAllowed
                | Rejection::HostNotAllowed
                | Rejection::MethodNotAllowed { .. }
                | Rejection::UnsupportedMediaType
                | Rejection::NotAcceptable
                | Rejection::BodyTooLarge { .. }
                | Rejection::BodyInterrupted
                | Rejection::Unauthenticated { .. }
                | Rejection::Denied { .. }
                | Rejection::InsufficientScope { .. }
                | Rejection::RateLimited { .. }
                | Rejection::SessionUnknown
                | Rejection::QuotaExceeded { .. }
                | Rejection::Overloaded
                | Rejection::TooManyTasks { .. }
                | Rejection::OtherTenant
                | Rejection::RequestToken { .. }
                | Rejection::AddressNotAllowed
                | Rejection::CountryNotAllowed
                | Rejection::HeadersTooLarge { .. }
                | Rejection::Killed { .. }
                | Rejection::KeyRefused(_) => Self::Fault(rejection.to_string()),
            },
        }
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Protocol(status, error) => Rejection::Protocol {
                status: StatusCode::from_u16(status).unwrap_or(StatusCode::OK),
                error: error.into(),
                id: None,
            }
            .into(),
            Failed::Unavailable(upstream, retry_after) => Rejection::UpstreamUnavailable {
                upstream,
                retry_after: retry_after.map(Duration::from_millis),
            }
            .into(),
            Failed::Busy(upstream, limited, retry_after) => Rejection::UpstreamBusy {
                upstream,
                limited,
                retry_after: retry_after.map(Duration::from_millis),
                asked: true,
            }
            .into(),
            Failed::Lost(upstream) => Rejection::UpstreamLost { upstream }.into(),
            Failed::Timeout(upstream, timeout) => Rejection::UpstreamTimeout {
                upstream,
                timeout: Duration::from_millis(timeout),
                asked: true,
            }
            .into(),
            Failed::Invalid(upstream, reason) => Rejection::UpstreamInvalid {
                upstream,
                reason,
                asked: true,
            }
            .into(),
            Failed::NotAsked(failed) => not_asked((*failed).into()),
            Failed::Full(upstream) => Rejection::UpstreamFull { upstream }.into(),
            Failed::Refused(upstream) => Rejection::UpstreamRefused { upstream }.into(),
            Failed::Unauthorized(upstream) => Rejection::UpstreamUnauthorized { upstream }.into(),
            Failed::NoCredentials(upstream, reason) => {
                Rejection::NoCredentials { upstream, reason }.into()
            }
            Failed::NotConnected(upstream, link) => {
                Rejection::NotConnected { upstream, link }.into()
            }
            Failed::Fault(reason) => Fault::Dependency(format!("in a keeper: {reason}")).into(),
        }
    }
}
