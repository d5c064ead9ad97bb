//! Doing what was permitted: asking the upstream, merging lists, or starting a task.

use std::rc::Rc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use http::{HeaderName, HeaderValue};
use tidegate_mcp::catalog::CacheHints;
use tidegate_mcp::input::ResultType;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{INTERNAL_ERROR, RpcError};
use tidegate_mcp::meta::{ClientCapabilities, RequestMeta};
use tidegate_mcp::method::Method;
use tidegate_mcp::version::{Era, ProtocolVersion};

use crate::auth::{Principal, PrincipalId};
use crate::catalog;
use crate::context::Context;
use crate::discover;
use crate::egress::{Dispatch, Event, Reply};
use crate::error::{Error, Rejection};
use crate::ingress::{Call, Endpoint};
use crate::listen;
use crate::names;
use crate::platform::Platform;
use crate::policy::Permit;
use crate::rounds;
use crate::route::{One, Own, Target};
use crate::tasks;
use crate::upstream::{self, Outgoing};

/// A permitted call with everything that is needed to do it.
pub struct Work {
    /// Where it was sent.
    pub endpoint: Endpoint,
    /// The call.
    pub call: Call,
    /// The proof that it may be done.
    pub permit: Permit,
    /// `Mcp-Param-*` headers of the client's request, for a modern upstream.
    pub param_headers: Vec<(HeaderName, HeaderValue)>,
}

/// Begins the work. Nothing has happened until the result is awaited.
pub fn begin<P: Platform>(context: &Context<P>, work: Work) -> Dispatch {
    let context = context.clone();
    async move {
        let Work {
            endpoint,
            call,
            permit,
            param_headers,
        } = work;
        let Permit {
            principal,
            target,
            rule,
            ..
        } = permit;
        match target {
            Target::Own(own) => answer_own(&context, &endpoint, &principal, own, &call)
                .await
                .map(Reply::Result),
            Target::Changes => listen::answer(&context, &endpoint, &principal, &call),
            Target::Every(kind) => {
                let cursor = match call.params.get("cursor") {
                    None => None,
                    Some(cursor) => Some(
                        serde_json::from_str::<String>(cursor.get()).map_err(|_| cursor_type())?,
                    ),
                };
                let list = catalog::list(&context, &endpoint, &principal, kind, cursor.as_deref());
                list.await.map(Reply::Result)
            }
            Target::One(mut one) => {
                rounds::resume(&context, &principal.id, &mut one)?;
                if tasks::wanted(rule.as_ref(), &one, &call)? {
                    return tasks::create(&context, &principal, rule.as_ref(), one)
                        .await
                        .map(Reply::Result);
                }
                let timeout = rule
                    .as_ref()
                    .and_then(|rule| rule.timeout_ms)
                    .unwrap_or(one.upstream.timeout_ms);
                let timeout = Duration::from_millis(timeout);
                let ask = Ask {
                    meta: call.meta,
                    param_headers,
                    timeout,
                };
                ask_upstream(&context, &principal.id, one, ask).await
            }
        }
    }
    .boxed_local()
}

fn cursor_type() -> Error {
    let error = tidegate_mcp::jsonrpc::RpcError::invalid_params("`cursor` must be a string");
    Rejection::protocol(error).into()
}

async fn answer_own<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Rc<Principal>,
    own: Own,
    call: &Call,
) -> Result<Object, Error> {
    match own {
        Own::Discover => discover::discover(context, endpoint, principal).await,
        Own::Initialize => discover::initialize(context, endpoint, principal, &call.params).await,
        Own::Ping => Ok(Object::default()),
        Own::TaskGet => tasks::get(context, principal, call).await,
        Own::TaskUpdate => tasks::update(context, principal, call).await,
        Own::TaskCancel => tasks::cancel(context, principal, call).await,
    }
}

/// What goes with a request to an upstream besides the request itself.
pub(crate) struct Ask {
    pub(crate) meta: RequestMeta,
    pub(crate) param_headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) timeout: Duration,
}

/// Asks one upstream for one thing, and shows its answer in the names the client knows.
pub(crate) async fn ask_upstream<P: Platform>(
    context: &Context<P>,
    principal: &PrincipalId,
    one: Box<One>,
    ask: Ask,
) -> Result<Reply, Error> {
    let shape = Shape {
        context: context.clone(),
        request: rounds::digest(principal, &one),
        upstream: one.upstream.name.clone(),
        method: one.method,
        prefixed: one.prefixed,
        client: Client::of(&ask.meta),
    };
    let outgoing = Outgoing {
        method: one.method,
        params: one.params,
        meta: ask.meta,
        param_headers: ask.param_headers,
        principal: principal.clone(),
        timeout: ask.timeout,
    };
    match upstream::call(context, &one.upstream, outgoing).await? {
        Reply::Result(result) => shape.result(result).map(Reply::Result),
        Reply::Stream(events) => Ok(Reply::Stream(
            events
                .map(move |event| match event {
                    Event::Notification(notification) => Event::Notification(notification),
                    Event::End(end) => Event::End(end.and_then(|result| shape.result(result))),
                })
                .boxed_local(),
        )),
    }
}

/// How one upstream's result is shown to the client.
struct Shape<P> {
    context: Context<P>,
    request: String,
    upstream: String,
    method: Method,
    prefixed: bool,
    client: Client,
}

/// Whom a result is for.
enum Client {
    /// Can be asked for input of the kinds it declared.
    Asked(ClientCapabilities),
    /// Cannot: it speaks an older revision, or there is none, as when a task runs.
    NotAsked,
}

impl Client {
    fn of(meta: &RequestMeta) -> Self {
        match ProtocolVersion::parse(&meta.protocol_version).map(ProtocolVersion::era) {
            Some(Era::Modern) => Self::Asked(meta.client_capabilities.clone()),
            Some(Era::Legacy) | None => Self::NotAsked,
        }
    }
}

impl<P: Platform> Shape<P> {
    fn result(&self, mut result: Object) -> Result<Object, Error> {
        match ResultType::of(&result) {
            ResultType::Complete => {
                if self.prefixed {
                    names::expose_result(self.method, &self.upstream, &mut result);
                }
                if self.method.is_cacheable() {
                    // Also where the upstream forgot them.
                    CacheHints::of(&result).write(&mut result);
                }
            }
            ResultType::InputRequired if self.method.may_require_input() => {
                let Client::Asked(client) = &self.client else {
                    let reason = "The upstream asks for input, which cannot be asked for here.";
                    let error = RpcError::new(INTERNAL_ERROR, reason);
                    return Err(Rejection::protocol(error).into());
                };
                let (request, upstream) = (&self.request, &self.upstream);
                rounds::suspend(&self.context, request, upstream, client, &mut result)?;
            }
            // No extension that adds result types was declared to the upstream.
            ResultType::InputRequired | ResultType::Task | ResultType::Other(_) => {
                let upstream = self.upstream.clone();
                let reason = "a result type nobody asked for".to_owned();
                return Err(Rejection::UpstreamInvalid { upstream, reason }.into());
            }
        }
        if !result.contains("resultType") {
            result.insert("resultType", &ResultType::COMPLETE);
        }
        Ok(result)
    }
}
