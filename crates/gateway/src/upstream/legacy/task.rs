//! A tool that its server, of 2025-11-25, calls only as a task (`taskSupport: required`).
//!
//! Such a server refuses the plain call with −32601, without having run it. It is then called
//! as a task, and `tasks/result` waited for, on whose stream the server asks and reports as it
//! would on the call's own: whoever made the call sees one that takes its time, and may make
//! a task of the gateway's of it. A call nobody waits for any longer is cancelled by
//! `tasks/cancel`. Spec: 2025-11-25, "Tasks".

use std::cell::Cell;
use std::rc::Rc;

use async_stream::stream;
use futures_util::StreamExt;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{METHOD_NOT_FOUND, Message, Request, RequestId, Response};
use tidegate_mcp::meta;

use crate::context::Context;
use crate::error::{Error, Rejection};
use crate::platform::Platform;
use crate::upstream::session::{self, Lost, Session};
use crate::upstream::wire::{Broken, Messages};
use crate::upstream::{Exchange, Outgoing};

/// Largest id of a task that is waited for, in bytes.
const ID_MAX: usize = 1024;

/// Whether a call that came to this is to be made as a task.
pub(super) fn is_wanted(session: &Session, outgoing: &Outgoing, lost: &Lost) -> bool {
    let refused = |error: &Error| {
        matches!(error, Error::Rejection(Rejection::Protocol { error, .. })
            if error.code == METHOD_NOT_FOUND)
    };
    session.makes_tasks && outgoing.tool().is_some() && lost.error().is_some_and(refused)
}

/// The param that asks for one, kept for as long as it is waited for.
pub(super) fn param<P: Platform>(exchange: &Exchange<'_, P>) -> Object {
    let ttl = u64::try_from(exchange.timeout.as_millis()).unwrap_or(u64::MAX);
    Object::new().with("ttl", &ttl)
}

/// The messages of a call whose first answer is a task: those of the task's result, as if they
/// were the call's own. Takes the call's id out of `open` once it is a task, because the call
/// itself has been answered then.
pub(super) fn seen_through<P: Platform>(
    exchange: &Exchange<'_, P>,
    session: &Rc<Session>,
    messages: Messages,
    id: RequestId,
    open: Rc<Cell<Option<RequestId>>>,
    read: impl AsyncFn(&Exchange<'_, P>, &RequestId, Object) -> Result<Messages, Error> + 'static,
) -> Messages {
    let (context, upstream) = (exchange.context.clone(), exchange.upstream.clone());
    let (principal, session) = (exchange.principal.clone(), Rc::clone(session));
    let (deadline, timeout) = (exchange.deadline, exchange.timeout);
    stream! {
        let mut messages = messages;
        let task = loop {
            match messages.next().await {
                Some(Ok(Message::Response(response))) if response.id.as_ref() == Some(&id) => {
                    match made(&response) {
                        Some(task) => break task,
                        None => {
                            yield Ok(Message::Response(response));
                            return;
                        }
                    }
                }
                Some(other) => yield other,
                None => return,
            }
        };
        drop(messages);
        open.take();
        let wanted = Wanted { context: context.clone(), session, task, ended: Cell::new(false) };
        let exchange = Exchange {
            context: &context,
            upstream: &upstream,
            principal: &principal,
            deadline,
            timeout,
        };
        let asked = exchange.next_id();
        let params = Object::new().with("taskId", &wanted.task);
        let mut messages = match read(&exchange, &asked, params).await {
            Ok(messages) => messages,
            Err(Error::Rejection(Rejection::UpstreamTimeout { .. })) => {
                yield Err(Broken::Late);
                return;
            }
            Err(_) => {
                yield Err(Broken::Invalid("its task could not be asked for its result".to_owned()));
                return;
            }
        };
        while let Some(message) = messages.next().await {
            yield match message {
                Ok(Message::Response(response)) if response.id.as_ref() == Some(&asked) => {
                    wanted.ended.set(true);
                    let id = Some(id.clone());
                    Ok(Message::Response(Response { id, ..response }))
                }
                Ok(Message::Request(mut request)) => {
                    // That is between the server and the gateway.
                    meta::strip(&mut request.params, &[meta::RELATED_TASK]);
                    Ok(Message::Request(request))
                }
                other => other,
            };
        }
    }
    .boxed_local()
}

/// The id of the task that a call has become.
fn made(response: &Response) -> Option<String> {
    let task = response.outcome.as_ref().ok()?.get_object("task")?.ok()?;
    let id = task.get_str("taskId")?;
    (id.len() <= ID_MAX).then(|| id.into_owned())
}

/// A task somebody waits for.
struct Wanted<P: Platform> {
    context: Context<P>,
    session: Rc<Session>,
    task: String,
    ended: Cell<bool>,
}

impl<P: Platform> Drop for Wanted<P> {
    fn drop(&mut self) {
        if self.ended.get() {
            return;
        }
        let cancel = Request {
            id: self.context.memory.upstream.next_id(),
            method: "tasks/cancel".to_owned(),
            params: Object::new().with("taskId", &self.task),
        };
        let (context, session) = (self.context.clone(), Rc::clone(&self.session));
        self.context.platform.defer(async move {
            session::tell(&context, &session, cancel.to_json()).await;
        });
    }
}
