//! The stream a legacy client holds open within its session (`GET`): what changes at the
//! upstreams, until the session is over.

use std::rc::Rc;

use async_stream::stream;
use bytes::Bytes;
use http::Response;
use tidegate_mcp::sse;

use crate::body::Body;
use crate::context::Context;
use crate::egress::{self, KEEP_ALIVE};
use crate::platform::{Clock, Platform};
use crate::session::{self, Session};

/// Opens the stream.
pub fn stream<P: Platform>(context: &Context<P>, session: Rc<Session>) -> Response<Body> {
    let context = context.clone();
    egress::streamed(stream! {
        let mut seen = None;
        loop {
            yield Bytes::from_static(sse::COMMENT.as_bytes());
            match session::changed(&context, &session, seen, KEEP_ALIVE).await {
                Ok((_, state)) if state.ended => return,
                Ok((version, _)) => seen = version,
                Err(_) => context.platform.clock().sleep(KEEP_ALIVE).await,
            }
        }
    })
}
