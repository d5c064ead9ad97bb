//! Doing what was permitted: asking the upstream, merging lists, or starting a task.

use std::future::ready;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use http::{HeaderName, HeaderValue};
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::RpcError;
use tidegate_mcp::meta::{EXT_TASKS, LOG_LEVELS, RequestMeta};
use tidegate_mcp::method::Method;
use tidegate_mcp::task::created_result;
use tidegate_mcp::version::{Era, ProtocolVersion};

use crate::audit::AnsweredBy;
use crate::auth::{Principal, PrincipalId};
use crate::canary;
use crate::catalog;
use crate::config::{Execution, ToolRule};
use crate::context::Context;
use crate::converse::{self, Conversation};
use crate::credentials::{self, Asking};
use crate::discover;
use crate::dry_run;
use crate::egress::{Dispatch, Event, Reply};
use crate::error::{Error, Rejection};
use crate::fallback::Plan;
use crate::idempotency;
use crate::ingress::{Call, Endpoint};
use crate::listen;
use crate::mirror;
use crate::notices;
use crate::park::{self, Part};
use crate::platform::Platform;
use crate::policy::Permit;
use crate::quotas::{Bill, Charge, Unmade};
use crate::rounds;
use crate::route::{One, Own, Target};
use crate::session;
use crate::tasks::follow::Follower;
use crate::tasks::theirs::{Maker, Minted};
use crate::tasks::{self, When};
use crate::tools;
use crate::upstream::{self, Outgoing};

mod shape;

use shape::{Client, Shape};

/// A permitted call with everything that is needed to do it.
pub struct Work {
    /// Where it was sent.
    pub endpoint: Endpoint,
    /// The call.
    pub call: Call,
    /// The proof that it may be done.
    pub permit: Permit,
    /// What quotas it is counted in.
    pub(crate) bill: Option<Bill>,
    /// `Mcp-Param-*` headers of the client's request, for a modern upstream.
    pub param_headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether the tool is only to try.
    pub dry_run: bool,
    /// The idempotency key in the request's headers.
    pub idempotency_key: Option<String>,
    /// Where it is noted that another upstream answered.
    pub answered_by: AnsweredBy,
}

/// Begins the work. Nothing has happened until the result is awaited.
pub fn begin<P: Platform>(context: &Context<P>, work: Work) -> Dispatch {
    let context = context.clone();
    let asking = Asking::of(&context, &work.permit.principal.id, &work.call);
    let done = once(&context, work);
    async move { credentials::answer(&context, asking, done.await) }.boxed_local()
}

/// Does the work, once where it has a key.
fn once<P: Platform>(context: &Context<P>, mut work: Work) -> Dispatch {
    let keyed = idempotency::keyed(context, &mut work);
    let unmade = Unmade::new(context, work.bill.take());
    let context = context.clone();
    let make = move || {
        work.bill = unmade.take();
        make(&context, work)
    };
    match keyed {
        Ok(None) => make(),
        Ok(Some(keyed)) => keyed.once(make),
        Err(error) => ready(Err(error)).boxed_local(),
    }
}

/// Does the work; of a dry run the result says so.
fn make<P: Platform>(context: &Context<P>, work: Work) -> Dispatch {
    match work.dry_run {
        true => dry_run::marked(perform(context, work)),
        false => perform(context, work),
    }
}

/// Does it, here or at the upstream's fallback, and sees to it that what comes of it is
/// counted.
fn perform<P: Platform>(context: &Context<P>, mut work: Work) -> Dispatch {
    let bill = work.bill.take();
    let charges = bill.as_ref().map(Bill::charges).unwrap_or_default();
    let plan = Plan::of(context, &work);
    let made = made(context.clone(), work, charges);
    let doing = match plan {
        None => made.boxed_local(),
        Some(plan) => plan.see_through(made).boxed_local(),
    };
    match bill {
        None => doing,
        Some(bill) => bill.see_through(context, doing),
    }
}

async fn made<P: Platform>(
    context: Context<P>,
    work: Work,
    charges: Vec<Charge>,
) -> Result<Reply, Error> {
    let Work {
        endpoint,
        call,
        permit,
        param_headers,
        ..
    } = work;
    let Permit {
        principal,
        target,
        rule,
        ..
    } = permit;
    match target {
        Target::Own(own) => answer_own(&context, &endpoint, &principal, own, &call).await,
        Target::Changes => listen::answer(&context.unhurried(), &endpoint, &principal, &call),
        Target::Every(kind) => {
            let cursor = match call.params.get("cursor") {
                None => None,
                Some(cursor) => {
                    Some(serde_json::from_str::<String>(cursor.get()).map_err(|_| cursor_type())?)
                }
            };
            let asked = catalog::Asked {
                kind,
                cursor: cursor.as_deref(),
                version: call.version,
            };
            let list = catalog::list(&context, &endpoint, &principal, asked);
            list.await.map(Reply::Result)
        }
        Target::One(one) => {
            let sent = Sent {
                endpoint,
                call,
                principal,
                rule,
                param_headers,
                charges,
            };
            ask_one(&context, one, sent).await
        }
    }
}

/// What was sent with a request for one upstream, and by whom.
struct Sent {
    endpoint: Endpoint,
    call: Call,
    principal: Rc<Principal>,
    rule: Option<ToolRule>,
    param_headers: Vec<(HeaderName, HeaderValue)>,
    charges: Vec<Charge>,
}

/// Asks the one upstream a request is for, or makes a task of the call.
async fn ask_one<P: Platform>(
    context: &Context<P>,
    mut one: Box<One>,
    sent: Sent,
) -> Result<Reply, Error> {
    let Sent {
        endpoint,
        mut call,
        principal,
        rule,
        param_headers,
        charges,
    } = sent;
    if one.method == Method::ToolsCall {
        // How a client of 2025-11-25 asks for a task: between it and the gateway.
        one.params.remove("task");
    }
    credentials::ready(context, &principal.id, &mut one).await?;
    if let Some(reply) = credentials::connected(&one) {
        return Ok(reply);
    }
    let parked = rounds::resume(context, &principal.id, &mut one)?;
    let client = &mut call.meta.client_capabilities;
    discover::carry(&context.settings, &endpoint, client);
    let when = match &parked {
        None => tasks::when(rule.as_ref(), &one, &call, &context.settings)?,
        Some(_) => When::Never,
    };
    let asked = || {
        let (settings, rule) = (&context.settings, rule.as_ref());
        tasks::Asked::of(settings, &principal, rule, &one, &call)
            .with_headers(&param_headers)
            .charged(charges.clone())
    };
    let legacy = call.version.era() == Era::Legacy;
    let judged = tools::check(context, &principal.id, &one, &call, &param_headers);
    if let Some(refusal) = judged.await? {
        let result = match when {
            When::Now if legacy => tasks::legacy::answered(context, asked(), refusal),
            When::Now | When::Never | When::After(_) => {
                return Ok(Reply::Result(refusal));
            }
        };
        return result.await.map(Reply::Result);
    }
    let timeout = rule
        .as_ref()
        .and_then(|rule| rule.timeout_ms)
        .unwrap_or(one.upstream.timeout_ms);
    let timeout = Duration::from_millis(timeout);
    match when {
        When::Never if !says_sync(rule.as_ref()) && parked.is_none() => {
            if asks_as_task(context, &principal, &one, &call.meta).await? {
                let asked = asked().within(timeout);
                return tasks::race::call(context, asked, call.meta, timeout).await;
            }
        }
        When::Never => {}
        When::Now => {
            let record = tasks::create(context, asked()).await?;
            return Ok(Reply::Result(match legacy {
                true => tasks::legacy::created(&record),
                false => created_result(&record.shown()),
            }));
        }
        When::After(threshold) => {
            return tasks::race::call(context, asked(), call.meta, threshold).await;
        }
    }
    let timeout = context.within(timeout);
    let minted = Minted::of(rule.as_ref(), &one, &call);
    let session = call.session.filter(|_| call.streams);
    let meta = call.meta;
    let place = place(context, &principal, &one, &meta, parked).await?;
    let ask = Ask {
        asks: session.is_some(),
        place,
        meta,
        param_headers,
        timeout,
        minted,
    };
    match session {
        Some(session) => {
            converse::converse(Conversation {
                context: context.unhurried(),
                principal: principal.id.clone(),
                session,
                id: call.id,
                one: *one,
                ask,
            })
            .await
        }
        None => ask_upstream(context, &principal.id, one, ask).await,
    }
}

fn cursor_type() -> Error {
    let error = RpcError::invalid_params("`cursor` must be a string");
    Rejection::protocol(error).into()
}

async fn answer_own<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Rc<Principal>,
    own: Own,
    call: &Call,
) -> Result<Reply, Error> {
    let result = match own {
        Own::TaskResult => return tasks::legacy::result(context, endpoint, principal, call).await,
        Own::Discover => discover::discover(context, endpoint, principal).await,
        Own::Initialize => discover::initialize(context, endpoint, principal, &call.params).await,
        Own::Ping => Ok(Object::default()),
        Own::TaskGet => tasks::get(context, endpoint, principal, call).await,
        Own::TaskUpdate => tasks::update(context, endpoint, principal, call).await,
        Own::TaskCancel => tasks::cancel(context, endpoint, principal, call).await,
        Own::TaskList => tasks::legacy::list(context, principal, call).await,
        Own::SetLevel => set_level(context, call).await,
        Own::Subscribe => notices::subscribe(context, endpoint, principal, call).await,
        Own::Unsubscribe => notices::unsubscribe(context, call).await,
    };
    result.map(Reply::Result)
}

/// `logging/setLevel`: the session remembers it for the calls to come.
async fn set_level<P: Platform>(context: &Context<P>, call: &Call) -> Result<Object, Error> {
    let level = call.params.get_str("level");
    let Some(level) = level.filter(|level| LOG_LEVELS.contains(&level.as_ref())) else {
        let reason = format!("`level` must be one of {}", LOG_LEVELS.join(", "));
        return Err(Rejection::protocol(RpcError::invalid_params(reason)).into());
    };
    if let Some(session) = &call.session {
        session::change(context, session, |state| {
            state.log_level = Some(level.clone().into_owned());
            Ok(())
        })
        .await?;
    }
    Ok(Object::default())
}

/// Where the call is made: in a keeper if the client can be asked things only by
/// `input_required`, while the upstream would ask on the call's own stream.
async fn place<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    one: &One,
    meta: &RequestMeta,
    parked: Option<String>,
) -> Result<Place, Error> {
    if let Some(name) = parked {
        return Ok(Place::Keeper(Part::Next(name)));
    }
    if context.platform.keeper().is_none() || !is_asked_by_result(one, meta) {
        return Ok(Place::Here);
    }
    let facts = upstream::facts(context, &one.upstream, principal).await?;
    Ok(match facts.era() {
        Era::Modern => Place::Here,
        Era::Legacy => Place::Keeper(Part::First),
    })
}

/// Whether the client can be asked things, and only by `input_required`.
fn is_asked_by_result(one: &One, meta: &RequestMeta) -> bool {
    let modern = ProtocolVersion::parse(&meta.protocol_version)
        .is_some_and(|version| version.era() == Era::Modern);
    let declared = !discover::askable(&meta.client_capabilities).is_empty();
    modern && declared && one.method.may_require_input()
}

/// Whether the tool's calls are never to become tasks.
fn says_sync(rule: Option<&ToolRule>) -> bool {
    rule.is_some_and(|rule| rule.execution == Execution::Sync)
}

/// Whether a call that is asked something becomes a task: where nothing can be parked, for
/// whoever takes tasks.
async fn asks_as_task<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    one: &One,
    meta: &RequestMeta,
) -> Result<bool, Error> {
    let tasks = one.method == Method::ToolsCall
        && meta.client_capabilities.has_extension(EXT_TASKS)
        && tasks::are_made(&context.settings);
    if context.platform.keeper().is_some() || !tasks || !is_asked_by_result(one, meta) {
        return Ok(false);
    }
    let facts = upstream::facts(context, &one.upstream, principal).await?;
    Ok(facts.era() == Era::Legacy)
}

/// Where an upstream is asked.
#[derive(Clone)]
pub(crate) enum Place {
    /// In this isolate.
    Here,
    /// In the keeper of the principal and the upstream.
    Keeper(Part),
}

/// What goes with a request to an upstream besides the request itself.
#[derive(Clone)]
pub(crate) struct Ask {
    /// Where it is asked.
    pub(crate) place: Place,
    /// Whether the client can be asked things while the call runs.
    pub(crate) asks: bool,
    pub(crate) meta: RequestMeta,
    pub(crate) param_headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) timeout: Duration,
    /// What becomes of a task the upstream makes of it.
    pub(crate) minted: Minted,
}

/// Asks one upstream for one thing, and shows its answer in the names the client knows.
pub(crate) async fn ask_upstream<P: Platform>(
    context: &Context<P>,
    principal: &PrincipalId,
    one: Box<One>,
    ask: Ask,
) -> Result<Reply, Error> {
    let maker = Maker::of_call(&one, principal, ask.minted);
    let follower = maker
        .as_ref()
        .and_then(|maker| Follower::of_call(context, maker, &ask));
    let shape = Shape {
        minted: maker.map(|maker| (ask.minted, maker)),
        parked: matches!(ask.place, Place::Keeper(_)),
        context: context.clone(),
        request: rounds::digest(principal, &one),
        upstream: one.upstream.name.clone(),
        version: one.upstream.version.clone(),
        method: one.method,
        prefixed: one.prefixed,
        extended: discover::declares_unknown(&ask.meta.client_capabilities),
        client: Client::of(&ask),
    };
    let outgoing = Outgoing {
        method: one.method,
        params: one.params,
        meta: ask.meta,
        param_headers: ask.param_headers,
        asks: ask.asks,
        rather: match shape.client {
            // Asked on the call's own stream.
            Client::Conversing(_) => Era::Legacy,
            Client::Asked(_) | Client::NotAsked => Era::Modern,
        },
        tasks: ask.minted.declares(),
        principal: principal.clone(),
        timeout: ask.timeout,
    };
    let copy = mirror::copy(context, &one.upstream, &one.own, &outgoing);
    let upstream = &one.upstream;
    let watched = canary::watch(context, upstream);
    let reply = match ask.place {
        Place::Here => tools::call(context, upstream, outgoing).await,
        Place::Keeper(part) => {
            let called = tools::Called::of(&outgoing);
            let reply = park::call(context, upstream, outgoing, part).await;
            reply.and_then(|reply| tools::hold(context, upstream, &called, reply))
        }
    };
    let reply = match watched {
        Some(watched) => watched.see(reply)?,
        None => reply?,
    };
    let reply = match copy {
        Some(copy) => copy.after(reply),
        None => reply,
    };
    let reply = match reply {
        Reply::Result(result) => Reply::Result(shape.result(result)?),
        Reply::Stream(events) => Reply::Stream(
            events
                .map(move |event| match event {
                    Event::Notification(_) | Event::Request(_) => event,
                    Event::Question(question) => Event::Question(shape.question(question)),
                    Event::End(end) => Event::End(end.and_then(|result| shape.result(result))),
                })
                .boxed_local(),
        ),
    };
    Ok(match follower {
        Some(follower) => follower.see_through(reply),
        None => reply,
    })
}
