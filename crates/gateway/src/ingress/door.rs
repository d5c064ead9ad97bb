//! The cheap checks, by the head of a request alone: origin, host, HTTP method (ladder steps 1
//! and 2), and which door the request comes through.

use std::net::IpAddr;

use http::header::{ACCEPT, HOST, ORIGIN};
use http::{HeaderMap, Method as HttpMethod, Request as HttpRequest};

use super::{Endpoint, Head, Peer};
use crate::body::Body;
use crate::config::{Authentication, Environment};
use crate::error::{Error, Rejection};
use crate::http_sse::{self, Half};
use crate::settings::Settings;
use crate::upstream::SESSION_ID;

/// The HTTP method a request came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Calls, and what is said within them.
    Post,
    /// A stream of changes, within a session.
    Get,
    /// The end of a session.
    Delete,
    /// The stream of HTTP+SSE (2024-11-05).
    Sse,
    /// Messages of HTTP+SSE.
    Messages,
}

/// The transport a path is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Streamable HTTP.
    Streamable,
    /// HTTP+SSE (2024-11-05).
    HttpSse(Half),
}
/// Checks origin, host and method (ladder steps 1 and 2).
pub fn check(
    request: HttpRequest<Body>,
    endpoint: Endpoint,
    way: Way,
    settings: &Settings,
) -> Result<(Head, Body), Error> {
    let (parts, body) = request.into_parts();
    for origin in parts.headers.get_all(ORIGIN) {
        let allowed = origin
            .to_str()
            .is_ok_and(|origin| origin_allowed(origin, settings));
        if !allowed {
            return Err(Rejection::OriginNotAllowed.into());
        }
    }
    if matches!(settings.config.authentication, Authentication::None) {
        let header = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = header.or_else(|| parts.uri.authority().map(|authority| authority.as_str()));
        let peer = parts.extensions.get::<Peer>();
        let address = peer.and_then(|peer| peer.address.as_deref());
        // A host's name is the client's to choose, where it comes from is not.
        if !host.is_some_and(is_loopback) || !address.is_none_or(is_here) {
            return Err(Rejection::HostNotAllowed.into());
        }
    }
    let session = match way {
        Way::Streamable => {
            let session = parts.headers.get(SESSION_ID);
            session.map(|id| id.to_str().unwrap_or_default().to_owned())
        }
        // What names none is as unknown as what names a wrong one.
        Way::HttpSse(_) => {
            let named = parts.uri.query().unwrap_or_default().split('&');
            let mut named = named.filter_map(|pair| pair.split_once('='));
            let session = named.find(|(name, _)| *name == http_sse::SESSION);
            Some(session.map_or_else(String::new, |(_, id)| id.to_owned()))
        }
    };
    let door = match (way, parts.method.clone()) {
        (Way::Streamable, HttpMethod::POST) => Door::Post,
        // Only sessions have something to listen to or to end.
        (Way::Streamable, HttpMethod::GET) if session.is_some() => Door::Get,
        (Way::Streamable, HttpMethod::DELETE) if session.is_some() => Door::Delete,
        (Way::HttpSse(Half::Stream), HttpMethod::GET) => Door::Sse,
        (Way::HttpSse(Half::Messages), HttpMethod::POST) => Door::Messages,
        (Way::HttpSse(Half::Stream), _) => {
            return Err(Rejection::MethodNotAllowed { allow: "GET" }.into());
        }
        _ => return Err(Rejection::MethodNotAllowed { allow: "POST" }.into()),
    };
    if door == Door::Get && !takes_stream(&parts.headers)? {
        return Err(Rejection::NotAcceptable.into());
    }
    let peer = parts.extensions.get::<Peer>().cloned().unwrap_or_default();
    Ok((
        Head {
            endpoint,
            path: parts.uri.path().to_owned(),
            method: parts.method,
            headers: parts.headers,
            peer,
            door,
            session,
        },
        body,
    ))
}

/// Whether pages of `origin` may call the gateway: its own, the configured ones, and in
/// environment `dev` those of the developer's own machine.
pub fn origin_allowed(origin: &str, settings: &Settings) -> bool {
    let config = &settings.config;
    if config.public_url.origin().ascii_serialization() == origin {
        return true;
    }
    if config
        .allowed_origins
        .iter()
        .any(|allowed| allowed == origin)
    {
        return true;
    }
    let authority = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    config.metadata.environment == Environment::Dev && authority.is_some_and(is_loopback)
}

/// Whether `host[:port]` names this machine.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

/// Whether this address is of this machine.
fn is_here(address: &str) -> bool {
    let address = address.parse::<IpAddr>();
    address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Checks `Accept`; tells whether an event stream is welcome.
pub(super) fn takes_stream(headers: &HeaderMap) -> Result<bool, Rejection> {
    let mut ranges = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .peekable();
    if ranges.peek().is_none() {
        return Ok(false);
    }
    let accept = ranges.collect::<Vec<_>>().join(",").to_ascii_lowercase();
    let takes = |kinds: &[&str]| {
        accept
            .split(',')
            .map(|range| range.split(';').next().unwrap_or_default().trim())
            .any(|r| kinds.contains(&r))
    };
    let json = takes(&["application/json", "application/*", "*/*"]);
    let stream = takes(&["text/event-stream", "text/*", "*/*"]);
    if json || stream {
        Ok(stream)
    } else {
        Err(Rejection::NotAcceptable)
    }
}
