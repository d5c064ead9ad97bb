//! Header fields that end at a host: they belong to one connection (RFC 9110, section 7.6.1).
//! Hosts take them out of whatever they send on.

use http::{HeaderMap, HeaderName, header};

/// What belongs to one connection whether or not it says so.
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

/// Removes what must not travel on: the connection's fields, those it names, and the
/// length, which is stated anew from the body that is sent.
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
