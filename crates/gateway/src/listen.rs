//! What changes behind an endpoint, told to one principal for as long as it listens.
//!
//! One line is opened to each upstream ([`line`]) and all are gathered into one stream
//! ([`fan`]), under the names the endpoint shows. The stream is acknowledged after
//! [`ACKNOWLEDGE_AFTER`] at the latest: an upstream that is slow or away by then costs the
//! others nothing, is tried again for as long as anybody listens, and is caught up on when
//! it is back, by saying that all it was asked about may have changed.
//!
//! Tasks are the gateway's own: what becomes of those that were asked about comes from their
//! records ([`watch`]).
//!
//! Nobody listens past the end of the token that let them in, nor by a configuration that
//! is no longer in force, nor longer than [`LIFETIME_MAX`]: then the stream ends in good
//! order and the client asks again.
//!
//! Spec: 2026-07-28, "Subscriptions".

mod fan;
mod line;
mod seat;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future;
use futures_util::stream::{self, LocalBoxStream};
use tidegate_mcp::json::{Object, raw};
use tidegate_mcp::jsonrpc::{Notification, RequestId, RpcError};
use tidegate_mcp::meta::{self, EXT_TASKS};
use tidegate_mcp::subscription::{ACKNOWLEDGED, Filter};

use crate::auth::Principal;
use crate::config::Upstream;
use crate::context::Context;
use crate::egress::{Event, Reply};
use crate::error::{Error, Rejection};
use crate::ingress::{Call, Endpoint};
use crate::platform::Platform;
use crate::policy;
use crate::route::{self, Target};
use crate::tasks::{self, watch};
use fan::Fan;

pub(crate) use seat::Seat;
pub use seat::{LISTENS_MAX, LISTENS_PER_PRINCIPAL_MAX};

/// Longest a client waits for the acknowledgement.
pub const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(500);
/// Longest one stream lives, whoever listens.
pub const LIFETIME_MAX: Duration = Duration::from_secs(3600);

/// What an isolate remembers of those who listen.
#[derive(Default)]
pub(crate) struct Memory {
    seats: seat::Memory,
}

/// What will be told, and the telling.
pub struct Listening {
    /// As much of what was wanted as the upstreams deliver, and the principal's own tasks.
    pub honoured: Filter,
    /// Notifications of those kinds alone, in the endpoint's names. It ends when the
    /// principal may listen no longer; dropping it closes every line.
    pub changes: LocalBoxStream<'static, Notification>,
}

/// Listens to the upstreams behind an endpoint; gives the stream once it is acknowledged.
pub async fn open<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Rc<Principal>,
    wanted: Filter,
) -> Result<Listening, Error> {
    let seat = Seat::take(context, &principal.id)?;
    let listener = Listener {
        context: context.clone(),
        endpoint: endpoint.clone(),
        principal: Rc::clone(principal),
    };
    Ok(listener.begin(wanted, seat).await)
}

/// Answers `subscriptions/listen`: the acknowledgement, what changes, and the end, each
/// marked as this request's.
pub(crate) fn answer<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Rc<Principal>,
    call: &Call,
) -> Result<Reply, Error> {
    let wanted = asked(call)?;
    let seat = Seat::take(context, &principal.id)?;
    let listener = Listener {
        context: context.clone(),
        endpoint: endpoint.clone(),
        principal: Rc::clone(principal),
    };
    let frames = stream::once(async move { listener.begin(wanted, seat).await });
    let frames = frames.flat_map(|listening| {
        let acknowledgement = Notification {
            method: ACKNOWLEDGED.to_owned(),
            params: Object::new().with("notifications", &listening.honoured.to_object()),
        };
        stream::iter([acknowledgement]).chain(listening.changes)
    });
    let (of, end) = (call.id.clone(), end(&call.id));
    let frames = frames.map(move |frame| Event::Notification(marked(frame, &of)));
    let end = stream::iter([Event::End(Ok(end))]);
    Ok(Reply::Stream(frames.chain(end).boxed_local()))
}

fn asked(call: &Call) -> Result<Filter, Error> {
    if !call.streams {
        return Err(Rejection::NotAcceptable.into());
    }
    let filter = call.params.get_object("notifications");
    let tasks = matches!(filter, Some(Ok(filter)) if filter.contains("taskIds"));
    if tasks && !call.meta.client_capabilities.has_extension(EXT_TASKS) {
        return Err(tasks::undeclared());
    }
    Filter::of_request(&call.params).map_err(|error| Rejection::protocol(error).into())
}

fn marked(mut frame: Notification, listen: &RequestId) -> Notification {
    meta::set(&mut frame.params, meta::SUBSCRIPTION_ID, &raw(listen));
    frame
}

fn end(listen: &RequestId) -> Object {
    let mut result = Object::new().with("resultType", &"complete");
    meta::set(&mut result, meta::SUBSCRIPTION_ID, &raw(listen));
    result
}

/// Whose a resource is, and its own URI there, if this principal may read it. One it may not
/// read is unknown to it: changes would tell that it is there.
pub(crate) async fn readable<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Rc<Principal>,
    uri: &str,
) -> Result<(Upstream, String), Error> {
    let listener = Listener {
        context: context.clone(),
        endpoint: endpoint.clone(),
        principal: Rc::clone(principal),
    };
    let found = resources(&listener, &BTreeSet::from([uri.to_owned()])).await;
    let unknown = || Rejection::protocol(RpcError::resource_not_found(uri)).into();
    found.into_iter().next().ok_or_else(unknown)
}

/// [`readable`] for many; what is not is left out.
async fn resources<P: Platform>(
    listener: &Listener<P>,
    uris: &BTreeSet<String>,
) -> Vec<(Upstream, String)> {
    let Listener {
        context,
        endpoint,
        principal,
    } = listener;
    let resource = endpoint.resource(&context.settings.config);
    let readable = |target| {
        let principal = Rc::clone(principal);
        match policy::authorize(context, principal, target, None, &resource) {
            Ok(permit) => match permit.target {
                Target::One(one) => Some((one.upstream, one.own)),
                Target::Own(_) | Target::Every(_) | Target::Changes => None,
            },
            Err(_) => None,
        }
    };
    let found = route::resources(context, endpoint, principal, uris).await;
    found.into_iter().filter_map(readable).collect()
}

/// Who listens, and where.
struct Listener<P> {
    context: Context<P>,
    endpoint: Endpoint,
    principal: Rc<Principal>,
}

impl<P: Platform> Listener<P> {
    async fn begin(self, wanted: Filter, seat: Seat) -> Listening {
        let now = self.context.now();
        let until = now + LIFETIME_MAX;
        let until = self
            .principal
            .expires_at
            .map_or(until, |ends| until.min(ends));
        let deadline = now + ACKNOWLEDGE_AFTER;
        let resources = resources(&self, &wanted.uris);
        let tasks = async {
            match &wanted.tasks {
                Some(ids) => watch::known(&self.context, &self.principal, ids, deadline).await,
                None => Vec::new(),
            }
        };
        // What is not found out in time is left out.
        let resources = self.context.until(deadline, resources);
        let (resources, tasks) = future::join(resources, tasks).await;
        let resources = resources.unwrap_or_default();
        let mut fan = Fan::open(self, &wanted, (resources, tasks), until, seat);
        fan.gather(deadline).await;
        let honoured = fan.acknowledge().await;
        Listening {
            honoured,
            changes: fan.into_stream(),
        }
    }
}
