//! Bodies between JavaScript streams and the gateway's [`Body`].
//!
//! A stream is pulled, one chunk at a time, by whoever reads it: nothing is buffered on the
//! way, so a chunk leaves the moment it exists and a slow reader slows its source. When the
//! reader goes away the runtime cancels the JavaScript stream, which drops the Rust one.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{Stream, once, unfold};
use http::{HeaderMap, header};
use tidegate_gateway::body::{Body, BodyError};
use wasm_streams::ReadableStream;
use worker::js_sys::futures::JsFuture;
use worker::js_sys::{Promise, Uint8Array};
use worker::wasm_bindgen::{JsCast, JsValue};
use worker::web_sys;

use crate::platform::reason;

/// Longest body fetched from the runtime in one piece when its length was announced: a
/// stream costs several turns of the event loop more.
const WHOLE_MAX: u64 = 64 * 1024;

/// A message that arrived and whose body has not been read.
pub trait Message: 'static {
    /// Its body, if it has one.
    fn stream(&self) -> Option<web_sys::ReadableStream>;
    /// All of its body, later.
    fn whole(&self) -> Result<Promise, JsValue>;
}

impl Message for web_sys::Request {
    fn stream(&self) -> Option<web_sys::ReadableStream> {
        self.body()
    }

    fn whole(&self) -> Result<Promise, JsValue> {
        self.array_buffer()
    }
}

impl Message for web_sys::Response {
    fn stream(&self) -> Option<web_sys::ReadableStream> {
        self.body()
    }

    fn whole(&self) -> Result<Promise, JsValue> {
        self.array_buffer()
    }
}

/// Something that must live until a body has been read.
pub trait Kept: 'static {
    /// The body came to its end by itself.
    fn over(self);
}

impl Kept for () {
    fn over(self) {}
}

/// The body of a message that arrived with these headers; nothing is read before the body
/// is. `kept` lives as long as it is read and is told when it has come to its end.
pub fn arriving(message: impl Message, headers: &HeaderMap, kept: impl Kept) -> Body {
    let Some(stream) = message.stream() else {
        kept.over();
        return Body::empty();
    };
    if announced(headers).is_some_and(|length| length <= WHOLE_MAX) {
        return Body::stream(once(whole(message, kept)));
    }
    let chunks = ReadableStream::from_raw(stream).into_stream();
    Body::stream(unfold(Some((chunks, kept)), |state| async {
        let (mut chunks, kept) = state?;
        match chunks.next().await {
            Some(Ok(chunk)) => Some((Ok(bytes(chunk)), Some((chunks, kept)))),
            Some(Err(error)) => {
                kept.over();
                Some((Err(BodyError(reason(&error))), None))
            }
            None => {
                kept.over();
                None
            }
        }
    }))
}

async fn whole(message: impl Message, kept: impl Kept) -> Result<Bytes, BodyError> {
    let body = match message.whole() {
        Ok(promise) => JsFuture::from(promise).await,
        Err(error) => Err(error),
    };
    kept.over();
    body.map(bytes).map_err(|error| BodyError(reason(&error)))
}

/// The body's length as announced; that of a compressed body says nothing.
fn announced(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return None;
    }
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// A body's chunks as a stream the runtime can read.
pub fn readable(
    chunks: impl Stream<Item = Result<Bytes, BodyError>> + 'static,
) -> web_sys::ReadableStream {
    let chunks = chunks.map(|chunk| match chunk {
        Ok(bytes) => Ok(array(&bytes).into()),
        Err(BodyError(text)) => Err(JsValue::from_str(&text)),
    });
    ReadableStream::from_stream(chunks).into_raw()
}

/// Copies bytes out to JavaScript.
pub fn array(bytes: &[u8]) -> Uint8Array {
    Uint8Array::from(bytes)
}

/// Copies bytes in from JavaScript: an array, a buffer, or text as its UTF-8.
pub fn bytes(value: JsValue) -> Bytes {
    match value.dyn_into::<Uint8Array>() {
        Ok(array) => Bytes::from(array.to_vec()),
        Err(value) => match value.as_string() {
            Some(text) => Bytes::from(text),
            None => Bytes::from(Uint8Array::new(&value).to_vec()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_counts_only_when_it_is_that_of_the_bytes_we_read() {
        for (fields, length) in [
            (vec![("content-length", "5")], Some(5)),
            (vec![], None),
            (vec![("content-length", "-5")], None),
            (vec![("content-length", "5, 6")], None),
            (
                vec![("content-length", "5"), ("content-encoding", "gzip")],
                None,
            ),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in &fields {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(announced(&headers), length, "{fields:?}");
        }
    }
}
