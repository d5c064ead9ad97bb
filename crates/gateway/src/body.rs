//! HTTP bodies: whole bytes or a local stream, and the one bounded way to read them.

use bytes::{Bytes, BytesMut};
use futures_util::stream::{LocalBoxStream, Stream, StreamExt};

/// A body was cut off, or the peer reset the connection, while it was being read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("body_interrupted")]
pub struct BodyError(pub String);

/// The body of a request or a response.
///
/// Not `Send`: every host runs the gateway on one thread.
pub enum Body {
    /// All of it; hosts send a `content-length`.
    Full(Bytes),
    /// Chunks as they come; dropping the stream cancels what produces it.
    Stream(LocalBoxStream<'static, Result<Bytes, BodyError>>),
}

impl Body {
    /// No bytes at all.
    pub const fn empty() -> Self {
        Self::Full(Bytes::new())
    }

    /// Wraps a stream of chunks.
    pub fn stream(chunks: impl Stream<Item = Result<Bytes, BodyError>> + 'static) -> Self {
        Self::Stream(chunks.boxed_local())
    }

    /// Reads the whole body, refusing to hold more than `max` bytes.
    pub async fn read(self, max: usize) -> Result<Bytes, ReadError> {
        match self {
            Self::Full(bytes) if bytes.len() > max => Err(ReadError::TooLarge { max }),
            Self::Full(bytes) => Ok(bytes),
            Self::Stream(mut chunks) => {
                let mut whole = BytesMut::new();
                while let Some(chunk) = chunks.next().await {
                    let chunk = chunk.map_err(ReadError::Interrupted)?;
                    if whole.len() + chunk.len() > max {
                        return Err(ReadError::TooLarge { max });
                    }
                    whole.extend_from_slice(&chunk);
                }
                Ok(whole.freeze())
            }
        }
    }

    /// The body as a stream of chunks, whichever form it has.
    pub fn into_stream(self) -> LocalBoxStream<'static, Result<Bytes, BodyError>> {
        match self {
            Self::Full(bytes) if bytes.is_empty() => futures_util::stream::empty().boxed_local(),
            Self::Full(bytes) => futures_util::stream::iter([Ok(bytes)]).boxed_local(),
            Self::Stream(chunks) => chunks,
        }
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self::Full(bytes.into())
    }
}

impl std::fmt::Debug for Body {
    // Contents may hold arguments or results, which are never logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full(bytes) => write!(f, "Body::Full({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Body::Stream"),
        }
    }
}

/// Why a body could not be read whole.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// It is larger than the named bound.
    #[error("body_too_large")]
    TooLarge {
        /// The bound, in bytes.
        max: usize,
    },
    /// It ended before its end.
    #[error(transparent)]
    Interrupted(BodyError),
}
