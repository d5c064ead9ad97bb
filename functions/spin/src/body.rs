//! Bodies between WASI's streams and the gateway's [`Body`].
//!
//! Both ways one chunk at a time, by whoever reads: nothing is collected on the way. When
//! the reader goes away, the next write fails and what produced the body is dropped.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::LocalBoxStream;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use spin_sdk::http::body::IncomingBodyExt;
use spin_sdk::wasip3::http_compat::{IncomingBody, IncomingMessage};
use tidegate_gateway::body::{Body, BodyError};

/// A body on its way out.
pub type Outgoing = StreamBody<LocalBoxStream<'static, Result<Frame<Bytes>, BodyError>>>;

/// The body of a message that arrived; nothing is read before it is.
pub fn arriving<T: IncomingMessage + 'static>(body: IncomingBody<T>) -> Body {
    let chunks = body.stream();
    Body::stream(chunks.map(|chunk| chunk.map_err(|error| BodyError(error.to_string()))))
}

/// A body to send. That of a whole one is announced in `headers`: without its length the
/// host would send it in chunks, which costs a round trip of delay.
pub fn leaving(body: Body, headers: &mut HeaderMap) -> Outgoing {
    if let Body::Full(bytes) = &body {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    }
    let frames = body.into_stream().map(|chunk| chunk.map(Frame::data));
    StreamBody::new(frames.boxed_local())
}
