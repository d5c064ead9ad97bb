//! A client's request in, the gateway's response out.

use std::net::SocketAddr;

use http::{HeaderMap, Request, Response, StatusCode};
use spin_sdk::http::Request as Incoming;
use tidegate_gateway::body::Body;
use tidegate_gateway::hop;
use tidegate_gateway::ingress::Peer;

use crate::body::{self, Outgoing};

/// Where Spin puts the client's address and port: after whatever the client itself sent under
/// that name.
const CLIENT_ADDRESS: &str = "spin-client-addr";

/// Reads a client's request; its body is read only when the gateway asks for it.
pub fn request(incoming: Incoming) -> Request<Body> {
    let mut request = incoming.map(body::arriving);
    let peer = Peer {
        address: address(request.headers()),
        country: None,
        certificate: None,
    };
    request.extensions_mut().insert(peer);
    request
}

/// The client's address, as Spin has it. Only the last value is Spin's own.
fn address(headers: &HeaderMap) -> Option<String> {
    let told = headers.get_all(CLIENT_ADDRESS).iter().next_back()?;
    let address: SocketAddr = told.to_str().ok()?.parse().ok()?;
    Some(address.ip().to_string())
}

/// Writes the gateway's response. A whole body is sent with its length, a stream chunk by
/// chunk as it comes.
pub fn response(response: Response<Body>) -> Response<Outgoing> {
    let (mut parts, body) = response.into_parts();
    hop::end_connection(&mut parts.headers);
    let mut announced = HeaderMap::new();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn told(values: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CLIENT_ADDRESS, http::HeaderValue::from_static(value));
        }
        address(&headers)
    }

    #[test]
    fn a_client_is_where_spin_says_and_not_where_it_says_itself() {
        let address = |text: &str| Some(text.to_owned());
        assert_eq!(told(&["192.0.2.1:7"]), address("192.0.2.1"));
        assert_eq!(told(&["[2001:db8::7]:7"]), address("2001:db8::7"));
        assert_eq!(told(&["10.0.0.1:1", "192.0.2.1:7"]), address("192.0.2.1"));
        assert_eq!(told(&["10.0.0.1:1", "nonsense"]), None);
        assert_eq!(told(&[]), None);
    }
}
