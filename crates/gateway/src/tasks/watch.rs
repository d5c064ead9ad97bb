//! What becomes of tasks, told to whoever listens for it (`notifications/tasks`).
//!
//! A listener waits on the record itself, so it hears of a change wherever that was made;
//! of several in a row it may hear the last only. What it is told is the whole task, as
//! `tasks/get` shows it, and the end is the last it hears of it.
//!
//! Spec: extension `io.modelcontextprotocol/tasks`, "Task Notifications".

use std::collections::BTreeSet;

use async_stream::stream;
use futures_util::future::join_all;
use futures_util::stream::Stream;
use tidegate_mcp::jsonrpc::Notification;
use tidegate_mcp::subscription::TASK_CHANGED;
use tidegate_mcp::task::{TaskStatus, notification_params};

use super::handle::Handle;
use super::run::STORE_PAUSE;
use super::store::{self, Known};
use super::{is_shown, read, repair};
use crate::auth::Principal;
use crate::context::Context;
use crate::platform::{Clock, Platform, WAIT_MAX};
use crate::time::Timestamp;

/// Most tasks one listener is told of: each is waited for by itself.
pub const WATCHED_MAX: usize = 16;

/// A task that is listened to.
pub(crate) struct Watched {
    id: String,
    known: Known,
}

impl Watched {
    /// The id its client knows it by.
    pub(crate) fn handle(&self) -> String {
        self.known.1.handle.clone()
    }
}

/// Those of these tasks that are the principal's own, of tools it may still call, and can be
/// read in time, as many as one
/// listener is told of.
pub(crate) async fn known<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    handles: &BTreeSet<String>,
    deadline: Timestamp,
) -> Vec<Watched> {
    let own = handles.iter();
    let own = own.filter_map(|text| Handle::open(context, principal, text));
    let known = own.take(WATCHED_MAX).map(|handle| async move {
        let known = context.until(deadline, read(context, &handle)).await;
        let known = known?.ok()?;
        if !is_shown(context, principal, &known.1) {
            return None;
        }
        let id = handle.id;
        Some(Watched { id, known })
    });
    join_all(known).await.into_iter().flatten().collect()
}

/// What becomes of a task from now on, until its end. What its client must do something
/// about, or can no longer miss, is said at once.
pub(crate) fn changes<P: Platform>(
    context: Context<P>,
    watched: Watched,
) -> impl Stream<Item = Notification> {
    stream! {
        let Watched { id, known: (mut version, mut record) } = watched;
        let working = record.status == TaskStatus::Working;
        let mut told = working.then(|| notification_params(&record.shown(), &record.detail()));
        loop {
            let Ok(detail) = store::detail(&context, &id, &record).await else {
                context.platform.clock().sleep(STORE_PAUSE).await;
                continue;
            };
            let params = notification_params(&record.shown(), &detail);
            // Who runs it is nothing to its client.
            if told.as_ref() != Some(&params) {
                told = Some(params.clone());
                yield Notification { method: TASK_CHANGED.to_owned(), params };
            }
            if record.status.is_terminal() {
                return;
            }
            repair(&context, &id, &record).await;
            match store::changed(&context, &id, version, WAIT_MAX).await {
                Ok(Some(known)) => (version, record) = known,
                Ok(None) => return,
                Err(_) => {}
            }
        }
    }
}
