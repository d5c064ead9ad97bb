//! Outbound HTTP: `wasi:http/client`.
//!
//! Redirects are given back, not followed. Dropping the pending exchange, or its response's
//! body before the end, ends the connection to the upstream. A body arrives as it was sent:
//! nothing is decompressed. How long an answer may take is the gateway's affair: the host is
//! told to wait for longer than that.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use spin_sdk::http::send;
use spin_sdk::wasip3::http::types::{
    self, ErrorCode, Fields, RequestOptions, RequestOptionsError, Scheme,
};
use spin_sdk::wasip3::http_compat::{RequestOptionsExtension, http_into_wasi_request};
use spin_sdk::wasip3::wit_future;
use tidegate_gateway::body::Body;
use tidegate_gateway::hop;
use tidegate_gateway::platform::{HttpClient, HttpError};

use crate::body;

/// How long the host waits for an answer to begin, and for more of it. Spin's own ten minutes
/// are less than a task may take, and than a stream of changes may be silent for. For a
/// connection they are enough: no system waits for one as long.
const HOST_WAITS: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// The host's HTTP client, within `allowed_outbound_hosts`.
pub struct Outbound;

impl HttpClient for Outbound {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, HttpError> {
        let request = outgoing(request).map_err(|error| HttpError::NotSent(error.to_string()))?;
        polled_again().await;
        let response = send(request).await.map_err(failed)?;
        let mut response = response.map(body::arriving);
        hop::end_connection(response.headers_mut());
        Ok(response)
    }
}

/// Has this task polled once more, before anything else is waited for.
///
/// The SDK spawns what writes a request's body, and the executor (wit-bindgen 0.57) takes up
/// what was spawned only after it has polled, without polling again: where other work is under
/// way in the task, the body would stay behind until something else happens to it, such as
/// the end of the call's time.
async fn polled_again() {
    let mut polled = false;
    poll_fn(|context| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn outgoing(request: Request<Body>) -> Result<types::Request, ErrorCode> {
    let (mut parts, body) = request.into_parts();
    hop::end_connection(&mut parts.headers);
    // The host writes it from the address.
    parts.headers.remove(http::header::HOST);
    // No body and an empty one differ only where a body is expected.
    if matches!(&body, Body::Full(bytes) if bytes.is_empty()) && parts.method.is_safe() {
        return bodiless(&parts);
    }
    let body = body::leaving(body, &mut parts.headers);
    parts.extensions.insert(RequestOptionsExtension(patient()?));
    http_into_wasi_request(Request::from_parts(parts, body))
}

/// Options by which the host does not give up before the gateway does.
fn patient() -> Result<RequestOptions, ErrorCode> {
    let refused = |error: RequestOptionsError| ErrorCode::InternalError(Some(error.to_string()));
    let waits = u64::try_from(HOST_WAITS.as_nanos()).ok();
    let options = RequestOptions::new();
    options.set_first_byte_timeout(waits).map_err(refused)?;
    options.set_between_bytes_timeout(waits).map_err(refused)?;
    Ok(options)
}

/// A request without a body, of which the SDK's conversion knows none: it would announce
/// chunks.
fn bodiless(parts: &http::request::Parts) -> Result<types::Request, ErrorCode> {
    let fields: Vec<(String, Vec<u8>)> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    let fields = Fields::from_list(&fields)
        .map_err(|error| ErrorCode::InternalError(Some(error.to_string())))?;
    let (_no_trailers, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = types::Request::new(fields, None, trailers, Some(patient()?));
    let uri = &parts.uri;
    let set = request
        .set_method(&(&parts.method).into())
        .and_then(|()| request.set_scheme(uri.scheme().map(Scheme::from).as_ref()))
        .and_then(|()| request.set_authority(uri.authority().map(http::uri::Authority::as_str)))
        .and_then(|()| {
            let path = uri.path_and_query().map(http::uri::PathAndQuery::as_str);
            request.set_path_with_query(path)
        });
    match set {
        Ok(()) => Ok(request),
        Err(()) => Err(ErrorCode::HttpRequestUriInvalid),
    }
}

/// What the host says of an exchange that gave no response.
fn failed(code: ErrorCode) -> HttpError {
    if never_left(&code) {
        HttpError::NotSent(code.to_string())
    } else {
        HttpError::MaybeSent(code.to_string())
    }
}

/// Whether the host says so before there is a connection to send anything on.
///
/// Whatever else there is, or will be, may be said after the request was sent.
fn never_left(code: &ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::DnsTimeout
            | ErrorCode::DnsError(_)
            | ErrorCode::DestinationNotFound
            | ErrorCode::DestinationUnavailable
            | ErrorCode::DestinationIpProhibited
            | ErrorCode::DestinationIpUnroutable
            | ErrorCode::ConnectionRefused
            | ErrorCode::ConnectionTimeout
            | ErrorCode::ConnectionLimitReached
            | ErrorCode::TlsCertificateError
            | ErrorCode::HttpRequestDenied
            | ErrorCode::HttpRequestMethodInvalid
            | ErrorCode::HttpRequestUriInvalid
            | ErrorCode::HttpRequestUriTooLong
    )
}

#[cfg(test)]
mod tests {
    use tidegate_gateway::config::bounds;

    use super::*;

    #[test]
    fn the_host_waits_for_longer_than_the_longest_call() {
        for longest in [bounds::TIMEOUT_MS, bounds::TASK_TIMEOUT_MS] {
            assert!(HOST_WAITS > Duration::from_millis(*longest.end()));
        }
    }

    #[test]
    fn only_what_is_said_before_a_connection_means_not_sent() {
        for (code, sent) in [
            (ErrorCode::ConnectionRefused, false),
            (ErrorCode::HttpRequestDenied, false),
            (ErrorCode::ConnectionTerminated, true),
            (ErrorCode::ConnectionReadTimeout, true),
            (ErrorCode::HttpProtocolError, true),
            (ErrorCode::InternalError(None), true),
        ] {
            let text = code.to_string();
            let maybe = matches!(failed(code), HttpError::MaybeSent(_));
            assert_eq!(maybe, sent, "{text}");
        }
    }
}
