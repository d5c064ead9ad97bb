//! Header fields between JavaScript and the `http` crate, and which of them end here.
//!
//! The runtime reads and writes fields as UTF-8 and replaces what is not, before we see it.
//! ASCII, which is all that MCP uses, passes unchanged; nothing a peer sends can fail the
//! request.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use worker::js_sys::Array;
use worker::wasm_bindgen::{JsCast, JsValue};
use worker::web_sys::Headers;

/// Fields that belong to one connection (RFC 9110, section 7.6.1).
const OF_THE_CONNECTION: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Reads every field; one whose name or value is impossible is left out.
pub fn read(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    for pair in headers.entries().into_iter().flatten() {
        let pair: Array = pair.unchecked_into();
        let (Some(name), Some(value)) = (pair.get(0).as_string(), pair.get(1).as_string()) else {
            continue;
        };
        if let (Ok(name), Ok(value)) = (
            name.parse::<HeaderName>(),
            HeaderValue::from_bytes(value.as_bytes()),
        ) {
            map.append(name, value);
        }
    }
    map
}

/// Writes every field on its own line; the order of equal names is kept.
pub fn write(map: &HeaderMap) -> Result<JsValue, JsValue> {
    let headers = Headers::new()?;
    for (name, value) in map {
        headers.append(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))?;
    }
    Ok(headers.into())
}

/// Removes what must not travel on: the connection's fields, those it names, and the
/// length, which the runtime states from the body it sends.
pub fn end_connection(map: &mut HeaderMap) {
    let named: Vec<HeaderName> = map
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named
        .iter()
        .chain(&OF_THE_CONNECTION)
        .chain([&header::CONTENT_LENGTH])
    {
        map.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_connection_end_here_and_the_others_stay() {
        let mut map = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("mcp-session-id", "s"),
        ] {
            map.append(name, value.parse().unwrap());
        }
        end_connection(&mut map);
        assert_eq!(
            map.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["mcp-session-id"]
        );
    }
}
