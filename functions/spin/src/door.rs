//! A client's request in, the gateway's response out.

use std::net::SocketAddr;

use http::{Request, Response, StatusCode};
use spin_sdk::http::Request as Incoming;
use tidegate_gateway::body::Body;
use tidegate_gateway::hop;
use tidegate_gateway::ingress::Peer;

use crate::body::{self, Outgoing};

/// Where Spin puts the client's address and port, over whatever the client sent.
const CLIENT_ADDRESS: &str = "spin-client-addr";

/// Reads a client's request; its body is read only when the gateway asks for it.
pub fn request(incoming: Incoming) -> Request<Body> {
    let mut request = incoming.map(body::arriving);
    let address = request
        .headers()
        .get(CLIENT_ADDRESS)
        .and_then(|value| value.to_str().ok()?.parse::<SocketAddr>().ok());
    request.extensions_mut().insert(Peer {
        address: address.map(|address| address.ip().to_string()),
        country: None,
        certificate: None,
    });
    request
}

/// Writes the gateway's response. A whole body is sent with its length, a stream chunk by
/// chunk as it comes.
pub fn response(response: Response<Body>) -> Response<Outgoing> {
    let (mut parts, body) = response.into_parts();
    hop::end_connection(&mut parts.headers);
    let mut announced = http::HeaderMap::new();
    let body = body::leaving(body, &mut announced);
    if !bodiless(parts.status) {
        parts.headers.extend(announced);
    }
    Response::from_parts(parts, body)
}

/// Statuses that have no body, and no length of one (RFC 9110, section 8.6).
fn bodiless(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// A response of the host's own, without a body.
pub fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
