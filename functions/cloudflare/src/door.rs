//! A client's request in, the gateway's response out.

use std::future::pending;

use http::{Method, Request, Response, StatusCode, Uri};
use tidegate_gateway::body::Body;
use tidegate_gateway::hop;
use tidegate_gateway::ingress::Peer;
use worker::js_sys::Promise;
use worker::js_sys::futures::JsFuture;
use worker::web_sys;
use worker::worker_sys::TlsClientAuth;
use worker::worker_sys::ext::RequestExt;

use crate::{body, headers};

/// Where the edge puts the client's address; clients cannot set it.
const CLIENT_ADDRESS: &str = "cf-connecting-ip";

/// What the edge says of a client's certificate that it trusts and that has not ended.
const VERIFIED: &str = "SUCCESS";

/// Not sent to anybody: what the runtime's log shows for a client that did not wait.
pub const CLIENT_GONE: u16 = 499;
/// For a request that could not be read.
pub const BAD_REQUEST: u16 = 400;

/// A request the `http` crate cannot hold: an odd method or URL.
pub struct Unreadable;

/// Reads a client's request; its body is read only when the gateway asks for it.
pub fn request(raw: &web_sys::Request) -> Result<Request<Body>, Unreadable> {
    let method = Method::from_bytes(raw.method().as_bytes()).map_err(|_| Unreadable)?;
    let uri: Uri = raw.url().parse().map_err(|_| Unreadable)?;
    let headers = headers::read(&raw.headers());
    let mut request = Request::new(body::arriving(Clone::clone(raw), &headers, ()));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let peer = peer(raw, &request);
    request.extensions_mut().insert(peer);
    Ok(request)
}

fn peer(raw: &web_sys::Request, request: &Request<Body>) -> Peer {
    let address = request
        .headers()
        .get(CLIENT_ADDRESS)
        .and_then(|value| value.to_str().ok());
    let cf = raw.cf();
    let country = cf.as_ref().and_then(|cf| cf.country().ok().flatten());
    let certificate = cf.and_then(|cf| cf.tls_client_auth().ok().flatten());
    Peer {
        address: address.map(str::to_owned),
        country,
        certificate: certificate.and_then(|certificate| digest(&certificate)),
    }
}

/// Digest of the client's certificate, if the edge found the certificate good.
fn digest(certificate: &TlsClientAuth) -> Option<[u8; 32]> {
    if certificate.cert_verified().ok()? != VERIFIED {
        return None;
    }
    let digits = certificate.cert_fingerprint_sha256().ok()?;
    let mut digest = [0; 32];
    let pairs = digits.as_bytes().chunks_exact(2);
    if digits.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

/// Writes the gateway's response. A whole body is sent with its length, a stream chunk by
/// chunk as it comes.
pub fn response(response: Response<Body>) -> worker::Result<web_sys::Response> {
    let (mut parts, body) = response.into_parts();
    hop::end_connection(&mut parts.headers);
    let init = web_sys::ResponseInit::new();
    init.set_status(parts.status.as_u16());
    init.set_headers(&headers::write(&parts.headers)?);
    Ok(match body {
        body if bodiless(parts.status) => {
            drop(body);
            web_sys::Response::new_with_opt_str_and_init(None, &init)?
        }
        Body::Full(bytes) if bytes.is_empty() => {
            web_sys::Response::new_with_opt_str_and_init(None, &init)?
        }
        Body::Full(bytes) => web_sys::Response::new_with_opt_buffer_source_and_init(
            Some(&body::array(&bytes)),
            &init,
        )?,
        Body::Stream(chunks) => web_sys::Response::new_with_opt_readable_stream_and_init(
            Some(&body::readable(chunks)),
            &init,
        )?,
    })
}

/// Statuses for which the runtime refuses any body (Fetch Standard, "null body status").
fn bodiless(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::SWITCHING_PROTOCOLS
            | StatusCode::NO_CONTENT
            | StatusCode::RESET_CONTENT
            | StatusCode::NOT_MODIFIED
    )
}

/// A response of the host's own, without a body.
pub fn refused(status: u16) -> worker::Result<web_sys::Response> {
    let init = web_sys::ResponseInit::new();
    init.set_status(status);
    Ok(web_sys::Response::new_with_opt_str_and_init(None, &init)?)
}

/// Completes when the client has gone away before its response began; needs the
/// compatibility flag `enable_request_signal`. (Once a body is being sent, the runtime
/// cancels that instead.)
pub async fn gone(raw: &web_sys::Request) {
    let signal = raw.signal();
    let aborted = Promise::new(&mut |resolve, _reject| signal.set_onabort(Some(&resolve)));
    if !signal.aborted() && JsFuture::from(aborted).await.is_err() {
        pending::<()>().await;
    }
}
