//! Header fields between JavaScript and the `http` crate.
//!
//! The runtime reads and writes fields as UTF-8 and replaces what is not, before we see it.
//! ASCII, which is all that MCP uses, passes unchanged; nothing a peer sends can fail the
//! request.

use http::{HeaderMap, HeaderName, HeaderValue};
use worker::js_sys::Array;
use worker::wasm_bindgen::{JsCast, JsValue};
use worker::web_sys::Headers;

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
