//! The stream a legacy server may use for what it asks outside of any call (`GET`).
//!
//! Many servers ask their questions there although a call is what they ask for. While a
//! session has only one call, there is no doubt which: its messages are read as if they came
//! on the call's own stream.

use std::rc::Rc;
use std::time::Duration;

use async_stream::stream;
use futures_util::future::{self, Either};
use futures_util::stream::StreamExt;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};

use super::Exchange;
use super::patience::Patience;
use super::session::Session;
use super::wire::{self, Messages};
use crate::body::Body;
use crate::platform::Platform;

/// How long the stream's head is waited for: a server that asks there sends it at once.
const OPEN_WITHIN: Duration = Duration::from_secs(2);

/// Opens the stream, if the server has one.
pub(crate) async fn open<P: Platform>(
    exchange: &Exchange<'_, P>,
    session: &Rc<Session>,
    patience: &Patience,
) -> Option<Messages> {
    if session.speaks_aside.get() == Some(false) {
        return None;
    }
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.extend(session.headers());
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    let until = exchange.context.now() + OPEN_WITHIN;
    let sent = wire::send(exchange, request);
    let response = exchange.context.until(until, sent).await?.ok()?;
    let kind = response.headers().get(CONTENT_TYPE);
    let streams = kind
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.starts_with("text/event-stream"));
    let opened = response.status() == StatusCode::OK && streams;
    session.speaks_aside.set(Some(opened));
    let context = exchange.context.clone();
    opened.then(|| {
        let events = wire::events(context, response.into_body(), patience.clone());
        wire::messages(events)
    })
}

/// The messages of a call and what is said aside, until the call's own end.
pub(crate) fn beside(mut call: Messages, aside: Option<Messages>) -> Messages {
    let Some(mut aside) = aside else {
        return call;
    };
    stream! {
        let mut listening = true;
        loop {
            let said = if listening {
                match future::select(call.next(), aside.next()).await {
                    Either::Left((said, _)) => said,
                    Either::Right((Some(Ok(said)), _)) => Some(Ok(said)),
                    Either::Right((Some(Err(_)) | None, _)) => {
                        listening = false;
                        continue;
                    }
                }
            } else {
                call.next().await
            };
            match said {
                Some(said) => yield said,
                None => return,
            }
        }
    }
    .boxed_local()
}
