//! Sessions with legacy upstreams: opened with `initialize`, kept for the next call of the
//! same principal, closed with `DELETE` once they have been idle.
//!
//! A session belongs to one principal and to one set of [`Terms`]: legacy servers keep state
//! in it, and may ask back what was declared in it. One that may ask has one call at a time,
//! so that it is known which call a question is for. It lives in
//! isolate memory; an isolate that is killed leaves its sessions to the upstream's own
//! expiry, and costs the next call one `initialize`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Method as HttpMethod, Request as HttpRequest, Uri};
use tidegate_mcp::era;
use tidegate_mcp::headers::MCP_PROTOCOL_VERSION;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{Message, Notification, Request, RequestId};
use tidegate_mcp::method::Method;
use tidegate_mcp::version::{Era, ProtocolVersion};

use super::wire::{self, Answer, COURTESY, Messages, SESSION_ID};
use super::{Exchange, Outgoing};
use crate::auth::PrincipalId;
use crate::body::Body;
use crate::config::Upstream;
use crate::context::Context;
use crate::discover;
use crate::egress::{Event, Reply};
use crate::error::{Error, Rejection};
use crate::memory::Bounded;
use crate::platform::{Clock, Platform};
use crate::time::Timestamp;

/// Most sessions one isolate keeps; the oldest is closed to make room.
const SESSIONS_MAX: usize = 256;
/// Most tools of one session of which it is remembered that they are called as tasks only.
const INSISTING_MAX: usize = 256;
/// A session nobody used for this long is closed. Well within the time a host lets work
/// run on after a response.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// What an isolate remembers of sessions: the open ones by upstream and principal.
pub(crate) struct Memory {
    open: Bounded<Owner, Rc<Session>>,
}

type Owner = (String, PrincipalId, Terms);

impl Default for Memory {
    fn default() -> Self {
        Self {
            open: Bounded::new(SESSIONS_MAX),
        }
    }
}

/// What a session is opened with: sessions are shared only between calls that agree on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Terms {
    /// Client capabilities as `initialize` declares them, as JSON text.
    capabilities: String,
    /// Whether they are for something that can be asked.
    asks: bool,
    /// The least severe log level wanted.
    log_level: Option<String>,
}

impl Terms {
    /// The terms of a call: a client that cannot be asked declares nothing.
    pub(crate) fn of(outgoing: &Outgoing) -> Self {
        let client = &outgoing.meta.client_capabilities;
        let mut declared = discover::bridged(client);
        let askable = discover::askable(client);
        if !outgoing.asks {
            for name in askable.keys() {
                declared.remove(name);
            }
        }
        let lowered = era::lower_client_capabilities(declared, ProtocolVersion::LATEST_LEGACY);
        Self {
            capabilities: if lowered.is_empty() {
                String::new()
            } else {
                lowered.to_raw().get().to_owned()
            },
            asks: outgoing.asks && !askable.is_empty(),
            log_level: outgoing.meta.log_level.clone(),
        }
    }

    fn capabilities(&self) -> Object {
        Object::parse(self.capabilities.as_bytes()).unwrap_or_default()
    }

    /// Whether the upstream may ask things back. Which call it asks for can be told only
    /// while the session has one.
    pub(crate) fn ask(&self) -> bool {
        self.asks
    }
}

/// One session with a legacy upstream.
pub(crate) struct Session {
    upstream: Upstream,
    principal: PrincipalId,
    terms: Terms,
    /// Its id; servers may do without.
    pub(crate) id: Option<HeaderValue>,
    /// Where its messages go, if not to the upstream's URL (HTTP+SSE only).
    pub(crate) endpoint: Uri,
    /// The revision that was agreed on.
    pub(crate) version: ProtocolVersion,
    /// Whether the server can make tasks of tool calls.
    pub(crate) makes_tasks: bool,
    /// The tools it calls only so.
    insisting: RefCell<BTreeSet<String>>,
    /// Whether the server speaks outside of calls, once that is known.
    pub(crate) speaks_aside: Cell<Option<bool>>,
    last_used: Cell<Timestamp>,
    in_use: Cell<usize>,
    watched_until: Cell<Timestamp>,
}

/// Why a call in a session gave nothing.
pub(crate) enum Lost {
    /// The upstream does not know the session.
    Session,
    /// Anything else.
    Error(Error),
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Lost {
    /// What went wrong, if it was not the session.
    pub(crate) const fn error(&self) -> Option<&Error> {
        match self {
            Self::Session => None,
            Self::Error(error) => Some(error),
        }
    }

    pub(crate) fn into_error<P: Platform>(self, exchange: &Exchange<'_, P>) -> Error {
        match self {
            Self::Session => exchange.invalid("it does not know the session it has just opened"),
            Self::Error(error) => error,
        }
    }
}

impl Session {
    /// Whose session it is.
    pub(crate) fn principal(&self) -> &PrincipalId {
        &self.principal
    }

    fn owner(&self) -> Owner {
        (
            self.upstream.key().clone(),
            self.principal.clone(),
            self.terms.clone(),
        )
    }

    /// Whether the server is known to call this tool only as a task.
    pub(crate) fn insists(&self, tool: &str) -> bool {
        self.insisting.borrow().contains(tool)
    }

    /// The server has refused to call this tool otherwise.
    pub(crate) fn will_insist(&self, tool: &str) {
        let mut insisting = self.insisting.borrow_mut();
        if insisting.len() < INSISTING_MAX {
            insisting.insert(tool.to_owned());
        }
    }

    /// Whether the upstream may ask things back in it.
    pub(crate) fn asks(&self) -> bool {
        self.terms.ask()
    }

    /// The headers every message of the session carries.
    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(id) = &self.id {
            headers.insert(SESSION_ID, id.clone());
        }
        // Revisions before 2025-06-18 do not know this header and ignore it.
        headers.insert(
            MCP_PROTOCOL_VERSION,
            HeaderValue::from_static(self.version.as_str()),
        );
        headers
    }
}

/// The principal's session with the upstream, opened if there is none.
pub(crate) async fn open<P: Platform>(
    exchange: &Exchange<'_, P>,
    principal: &PrincipalId,
    terms: &Terms,
) -> Result<Rc<Session>, Error> {
    let key = (
        exchange.upstream.key().clone(),
        principal.clone(),
        terms.clone(),
    );
    let known = exchange.context.memory.upstream.sessions.open.get(&key);
    match known.filter(|session| !terms.ask() || session.in_use.get() == 0) {
        Some(session) => Ok(session),
        None => initialize(exchange, principal, terms)
            .await
            .map(|(session, _)| session),
    }
}

/// Opens a session for the principal's calls and gives the upstream's `initialize` result
/// with it.
pub(crate) async fn initialize<P: Platform>(
    exchange: &Exchange<'_, P>,
    principal: &PrincipalId,
    terms: &Terms,
) -> Result<(Rc<Session>, Object), Error> {
    let (session, result) = handshake(exchange, principal, terms).await?;
    let sessions = &exchange.context.memory.upstream.sessions.open;
    // Whatever had to make room is closed by its own watch once it is idle.
    sessions.insert(session.owner(), Rc::clone(&session));
    watch(exchange.context, &session);
    Ok((session, result))
}

/// Opens a session no call will use: whoever opens it closes it.
pub(crate) async fn handshake<P: Platform>(
    exchange: &Exchange<'_, P>,
    principal: &PrincipalId,
    terms: &Terms,
) -> Result<(Rc<Session>, Object), Error> {
    let request = greeting(exchange, terms);
    let answer = wire::post(exchange, HeaderMap::new(), request.to_json()).await?;
    let session_id = answer.session_id();
    let patience = exchange.patience();
    let mut messages = answer
        .into_messages(exchange, &request.id, &patience)
        .await?;
    let result = greeted(exchange, &mut messages, &request.id).await?;
    drop(messages);
    let mut session = Session::agreed(exchange, principal, terms, &result)?;
    session.id = session_id;
    let session = Rc::new(session);
    session.begin(exchange, &result).await?;
    Ok((session, result))
}

/// The `initialize` that opens a session on these terms.
pub(crate) fn greeting<P: Platform>(exchange: &Exchange<'_, P>, terms: &Terms) -> Request {
    let mut params = Object::default();
    params.insert("protocolVersion", &ProtocolVersion::LATEST_LEGACY.as_str());
    params.insert("capabilities", &terms.capabilities());
    params.insert(
        "clientInfo",
        &discover::server_info(&exchange.context.settings),
    );
    Request {
        id: exchange.next_id(),
        method: Method::Initialize.as_str().to_owned(),
        params,
    }
}

/// The result of an `initialize`.
pub(crate) async fn greeted<P: Platform>(
    exchange: &Exchange<'_, P>,
    messages: &mut Messages,
    id: &RequestId,
) -> Result<Object, Error> {
    loop {
        match messages.next().await {
            Some(Ok(Message::Response(response))) if response.id.as_ref() == Some(id) => {
                return response.outcome.map_err(|error| {
                    exchange.invalid(format!("it refuses `initialize`: code {}", error.code))
                });
            }
            Some(Ok(_)) => {}
            Some(Err(wire::Broken::Late)) => return Err(exchange.timed_out()),
            Some(Err(wire::Broken::Invalid(_))) | None => {
                return Err(exchange.invalid("it does not answer `initialize`"));
            }
        }
    }
}

impl Session {
    /// What an upstream's `initialize` result agrees to.
    pub(crate) fn agreed<P: Platform>(
        exchange: &Exchange<'_, P>,
        principal: &PrincipalId,
        terms: &Terms,
        result: &Object,
    ) -> Result<Self, Error> {
        let version = result
            .get_str("protocolVersion")
            .and_then(|text| ProtocolVersion::parse(&text));
        let Some(version) = version.filter(|version| version.era() == Era::Legacy) else {
            return Err(exchange.invalid(
                "it answers `initialize` with a protocol version the gateway does not speak",
            ));
        };
        Ok(Self {
            upstream: exchange.upstream.clone(),
            principal: principal.clone(),
            terms: terms.clone(),
            id: None,
            endpoint: Uri::default(),
            version,
            makes_tasks: makes_tasks(result),
            insisting: RefCell::default(),
            speaks_aside: Cell::new(None),
            last_used: Cell::new(exchange.context.now()),
            in_use: Cell::new(0),
            watched_until: Cell::new(Timestamp::default()),
        })
    }

    /// Says that the session begins, and which logs are wanted in it.
    pub(crate) async fn begin<P: Platform>(
        &self,
        exchange: &Exchange<'_, P>,
        result: &Object,
    ) -> Result<(), Error> {
        let initialized = Notification {
            method: "notifications/initialized".to_owned(),
            params: Object::default(),
        };
        // The answer to a notification carries nothing; reading its head is enough.
        self.post(exchange, initialized.to_json()).await?;
        let logs =
            matches!(result.get_object("capabilities"), Some(Ok(c)) if c.contains("logging"));
        if let Some(level) = self.terms.log_level.as_ref().filter(|_| logs) {
            let request = Request {
                id: exchange.next_id(),
                method: Method::LoggingSetLevel.as_str().to_owned(),
                params: Object::default().with("level", level),
            };
            // A server that refuses sends what it likes; what is not wanted is left out later.
            self.post(exchange, request.to_json()).await?;
        }
        Ok(())
    }

    /// Posts one message in the session.
    pub(crate) async fn post<P: Platform>(
        &self,
        exchange: &Exchange<'_, P>,
        message: String,
    ) -> Result<Answer, Error> {
        wire::post_to(exchange, self.endpoint.clone(), self.headers(), message).await
    }
}

/// Whether an `initialize` result says that calls of tools may be tasks (2025-11-25).
fn makes_tasks(result: &Object) -> bool {
    let path = ["capabilities", "tasks", "requests", "tools"];
    let tools = path.iter().try_fold(result.clone(), |object, name| {
        object.get_object(name).and_then(Result::ok)
    });
    tools.is_some_and(|tools| tools.contains("call"))
}

/// No new call will take the session. Another may have its place already.
pub(crate) fn withdraw<P: Platform>(context: &Context<P>, session: &Rc<Session>) {
    let open = &context.memory.upstream.sessions.open;
    let owner = session.owner();
    if open
        .get(&owner)
        .is_some_and(|known| Rc::ptr_eq(&known, session))
    {
        open.remove(&owner);
    }
}

/// One running call of a session: while there is one, the session is not closed.
pub(crate) struct InUse<P: Platform> {
    context: Context<P>,
    session: Rc<Session>,
    /// Its request, while that is unanswered.
    open: Rc<Cell<Option<RequestId>>>,
}

impl<P: Platform> InUse<P> {
    /// Begins a call with this request.
    pub(crate) fn begin(context: &Context<P>, session: &Rc<Session>, id: &RequestId) -> Self {
        session.in_use.set(session.in_use.get() + 1);
        Self {
            context: context.clone(),
            session: Rc::clone(session),
            open: Rc::new(Cell::new(Some(id.clone()))),
        }
    }

    /// The request, while it is unanswered.
    pub(crate) fn open(&self) -> Rc<Cell<Option<RequestId>>> {
        Rc::clone(&self.open)
    }

    /// The request has come to an end. Only of one nobody waits for any longer does the
    /// upstream not know that.
    pub(crate) fn ended(&self, error: Option<&Error>) {
        if !matches!(
            error,
            Some(Error::Rejection(Rejection::UpstreamTimeout { .. }))
        ) {
            self.open.take();
        }
    }

    /// The call goes on for as long as its reply is read.
    pub(crate) fn until_read(self, reply: Reply) -> Reply {
        match reply {
            Reply::Result(result) => {
                self.ended(None);
                Reply::Result(result)
            }
            Reply::Stream(events) => Reply::Stream(
                events
                    .inspect(move |event: &Event| {
                        self.session.last_used.set(self.context.now());
                        if let Event::End(end) = event {
                            self.ended(end.as_ref().err());
                        }
                    })
                    .boxed_local(),
            ),
        }
    }
}

impl<P: Platform> Drop for InUse<P> {
    fn drop(&mut self) {
        self.session.last_used.set(self.context.now());
        let others = self.session.in_use.get().saturating_sub(1);
        self.session.in_use.set(others);
        if let Some(id) = self.open.take() {
            cancel(&self.context, &self.session, &id);
        }
        watch(&self.context, &self.session);
    }
}

/// Tells the upstream that nobody waits for the answer any longer: servers of these
/// revisions do not take a closed connection for that.
fn cancel<P: Platform>(context: &Context<P>, session: &Rc<Session>, id: &RequestId) {
    let mut params = Object::default();
    params.insert("requestId", id);
    let cancelled = Notification {
        method: "notifications/cancelled".to_owned(),
        params,
    };
    let (telling, session) = (context.clone(), Rc::clone(session));
    context.platform.defer(async move {
        tell(&telling, &session, cancelled.to_json()).await;
    });
}

/// Closes the session after the response once it has been idle. Looks twice, so that the
/// work stays within what a host allows; whoever uses the session longer watches it anew.
fn watch<P: Platform>(context: &Context<P>, session: &Rc<Session>) {
    let now = context.now();
    // A watch that looks once more after this call has been idle for long enough is enough.
    if session.watched_until.get() >= now + IDLE_MAX {
        return;
    }
    session.watched_until.set(now + IDLE_MAX + IDLE_MAX);
    let (watching, session) = (context.clone(), Rc::clone(session));
    context.platform.defer(async move {
        for _ in 0..2 {
            watching.platform.clock().sleep(IDLE_MAX).await;
            let idle = watching.now().since(session.last_used.get()) >= IDLE_MAX;
            if session.in_use.get() == 0 && idle {
                withdraw(&watching, &session);
                close(&watching, &session).await;
                return;
            }
        }
    });
}

/// Closes the session at the upstream, if it has an id to close it by.
pub(crate) async fn close<P: Platform>(context: &Context<P>, session: &Session) {
    if session.id.is_none() {
        return;
    }
    let mut request = HttpRequest::new(Body::empty());
    *request.method_mut() = HttpMethod::DELETE;
    request.headers_mut().extend(session.headers());
    let exchange = courtesy(context, session);
    // 405 means the server keeps sessions as long as it likes; every answer is fine.
    let _ = wire::send(&exchange, request).await;
}

/// Posts a message in the session, expecting no answer.
pub(crate) async fn tell<P: Platform>(
    context: &Context<P>,
    session: &Rc<Session>,
    message: String,
) {
    let exchange = courtesy(context, session);
    let _ = session.post(&exchange, message).await;
}

fn courtesy<'a, P: Platform>(context: &'a Context<P>, session: &'a Session) -> Exchange<'a, P> {
    Exchange {
        context,
        upstream: &session.upstream,
        principal: &session.principal,
        deadline: context.now() + COURTESY,
        timeout: COURTESY,
    }
}
