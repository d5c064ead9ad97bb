//! A call that is seen through although its client has gone: what is left of it then is
//! deferred, for as long as the host lets it.

use std::future::{poll_fn, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::stream::{LocalBoxStream, Stream, StreamExt};

use crate::egress::{self, Dispatch, Event, Reply};
use crate::error::{Error, Fault};
use crate::platform::Platform;

/// Does the work, also when what it gives, the reply or its stream, is dropped.
pub(super) async fn see<P: Platform>(platform: Rc<P>, work: Dispatch) -> Result<Reply, Error> {
    let left = Some(Left::Call(work));
    let mut through = Through { platform, left };
    match poll_fn(|context| through.poll_call(context)).await? {
        Reply::Result(result) => Ok(Reply::Result(result)),
        Reply::Stream(events) => {
            through.left = Some(Left::Events(events));
            Ok(Reply::Stream(through.boxed_local()))
        }
    }
}

/// What is under way.
struct Through<P: Platform> {
    platform: Rc<P>,
    left: Option<Left>,
}

/// What is left of a call.
enum Left {
    Call(Dispatch),
    Events(LocalBoxStream<'static, Event>),
}

impl<P: Platform> Through<P> {
    fn poll_call(&mut self, context: &mut Context<'_>) -> Poll<Result<Reply, Error>> {
        let Some(Left::Call(call)) = &mut self.left else {
            let reason = "a call was asked for its answer again".to_owned();
            return Poll::Ready(Err(Fault::Internal(reason).into()));
        };
        let reply = call.poll_unpin(context);
        if reply.is_ready() {
            self.left = None;
        }
        reply
    }
}

impl<P: Platform> Stream for Through<P> {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let Some(Left::Events(events)) = &mut self.left else {
            return Poll::Ready(None);
        };
        let event = events.poll_next_unpin(context);
        if matches!(event, Poll::Ready(None | Some(Event::End(_)))) {
            self.left = None;
        }
        event
    }
}

impl<P: Platform> Drop for Through<P> {
    fn drop(&mut self) {
        let reply = match self.left.take() {
            None => return,
            Some(Left::Call(call)) => call,
            Some(Left::Events(events)) => ready(Ok(Reply::Stream(events))).boxed_local(),
        };
        let rest = async move { drop(egress::whole(reply.await).await) };
        self.platform.defer(rest);
    }
}
