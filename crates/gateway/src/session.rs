//! Sessions of legacy clients (MCP 2025-03-26 to 2025-11-25, "Session management").
//!
//! A session id is a sealed token that says all `initialize` agreed on: whose it is, at
//! which endpoint, the revision, what the client can be asked. So any isolate serves any
//! request of it without a store. What changes later (log level, subscriptions, the
//! session's end) is one small atomic record, made by the first change and looked at by
//! each isolate again after [`FRESH`].
//!
//! A session authenticates nobody: the token of every request does, and a session of
//! another principal is unknown here.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use http::HeaderValue;
use serde::{Deserialize, Serialize};
use tidegate_mcp::era;
use tidegate_mcp::json::Object;
use tidegate_mcp::meta::ClientCapabilities;
use tidegate_mcp::version::{ProtocolVersion, negotiate_legacy};

use crate::auth::{Principal, PrincipalId};
use crate::context::Context;
use crate::error::{Error, Fault, Rejection};
use crate::ingress::Endpoint;
use crate::keyspace::{self, Family, Key, ReadError, Store};
use crate::memory::Bounded;
use crate::platform::{AtomicStore, LogLevel, Platform, Swap, Version};
use crate::seal::{Purpose, hex};
use crate::time::Timestamp;

/// Longest a session lasts; its client then opens another.
pub const SESSION_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an isolate goes by what it last read of a session's state: a session ended or
/// changed through another isolate is noticed here within this time.
pub const FRESH: Duration = Duration::from_secs(2);
/// The log level of a session whose client has set none: the revisions leave it to the
/// server.
pub const LOG_LEVEL: &str = "info";
/// Most resources one session subscribes to.
pub const SUBSCRIPTIONS_MAX: usize = 128;
/// Largest capabilities a session id carries, in bytes; of larger ones only the kinds and
/// modes of questions are kept.
const CAPABILITIES_MAX: usize = 1024;
/// Longest session id that is opened, in bytes.
const ID_MAX: usize = 4096;
/// How often a lost race over the record is tried again.
const SWAPS_MAX: usize = 8;
/// Most sessions whose state one isolate remembers.
const REMEMBERED_MAX: usize = 4096;

/// What an isolate remembers of sessions: their state, and when it was read.
pub(crate) struct Memory {
    states: Bounded<String, (Rc<State>, Timestamp)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            states: Bounded::new(REMEMBERED_MAX),
        }
    }
}

/// What a session id says; short names, for it travels with every request.
#[derive(Serialize, Deserialize)]
struct Sealed {
    /// Key of the record.
    k: String,
    /// Whose it is.
    p: PrincipalId,
    /// Path of its endpoint.
    e: String,
    /// The revision that was agreed on.
    v: String,
    /// What the client declared, in modern form.
    c: Object,
    /// Opened, milliseconds since the epoch.
    t: u64,
}

/// One session, as its id describes it.
#[derive(Debug)]
pub struct Session {
    /// Names it among all sessions; unguessable.
    pub key: String,
    /// The revision that was agreed on.
    pub version: ProtocolVersion,
    /// What the client can be asked, in modern form.
    pub capabilities: ClientCapabilities,
    until: Timestamp,
}

impl Session {
    /// The same session, of a client that has only now said which revision it speaks and what
    /// it can be asked.
    pub(crate) fn declaring(&self, initialize: &Object) -> Self {
        Self {
            key: self.key.clone(),
            version: negotiate_legacy(&initialize.get_str("protocolVersion").unwrap_or_default()),
            capabilities: declared(initialize),
            until: self.until,
        }
    }
}

/// What changed in a session since it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Shape of this record.
    pub v: u32,
    /// Whether the client has ended it.
    pub ended: bool,
    /// The least severe log level the client wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// Resources the client wants to hear about, by exposed URI.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub subscriptions: BTreeSet<String>,
}

/// The family of [`State`], by session key.
pub struct SessionFamily;

impl Family for SessionFamily {
    type Record = State;
    const NAME: &'static str = "session";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = Some(SESSION_MAX);
}

/// Opens a session for the client that sent this `initialize`; gives its id.
pub fn begin<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
    version: ProtocolVersion,
    params: &Object,
) -> Result<HeaderValue, Error> {
    let sealed = Sealed {
        k: hex(&context.random::<16>()),
        p: principal.id.clone(),
        e: endpoint.key(),
        v: version.as_str().to_owned(),
        c: declared(params).0,
        t: context.now().0,
    };
    let sealer = &context.settings.sealer;
    let id = sealer.seal(context.platform.as_ref(), Purpose::Session, &sealed)?;
    HeaderValue::try_from(id).map_err(|e| Fault::Internal(e.to_string()).into())
}

/// What the client that sent this `initialize` can be asked, in modern form.
fn declared(initialize: &Object) -> ClientCapabilities {
    let declared = match initialize.get_object("capabilities") {
        Some(Ok(declared)) => declared,
        Some(Err(_)) | None => Object::default(),
    };
    bounded(era::lift_client_capabilities(declared))
}

fn bounded(declared: ClientCapabilities) -> ClientCapabilities {
    if declared.0.to_raw().get().len() <= CAPABILITIES_MAX {
        return declared;
    }
    let empty = Object::default();
    let mut kept = Object::default();
    for (kind, modes) in [
        ("roots", &[] as &[&str]),
        ("sampling", &["context", "tools"]),
        ("elicitation", &["form", "url"]),
    ] {
        if declared.declares(&[kind]) {
            let declared = modes.iter().filter(|mode| declared.declares(&[kind, mode]));
            let modes = declared.fold(empty.clone(), |modes, mode| modes.with(mode, &empty));
            kept.insert(kind, &modes);
        }
    }
    ClientCapabilities(kept)
}

/// The session an id names, if it is this principal's, at this endpoint, and not over.
pub async fn open<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
    id: &str,
) -> Result<(Rc<Session>, Rc<State>), Error> {
    let unknown = || Error::from(Rejection::SessionUnknown);
    if id.len() > ID_MAX {
        return Err(unknown());
    }
    let sealer = &context.settings.sealer;
    let sealed: Sealed = sealer.open(Purpose::Session, id).ok_or_else(unknown)?;
    let until = Timestamp(sealed.t) + SESSION_MAX;
    let version = ProtocolVersion::parse(&sealed.v).ok_or_else(unknown)?;
    if sealed.p != principal.id || sealed.e != endpoint.key() || until <= context.now() {
        return Err(unknown());
    }
    let session = Rc::new(Session {
        key: sealed.k,
        version,
        capabilities: ClientCapabilities(sealed.c),
        until,
    });
    let state = state(context, &session).await;
    if state.ended {
        return Err(unknown());
    }
    Ok((session, state))
}

/// The session's state: from memory for [`FRESH`], then from the store. A store that does
/// not answer ends nobody's session.
pub async fn state<P: Platform>(context: &Context<P>, session: &Session) -> Rc<State> {
    let now = context.now();
    let known = &context.memory.sessions.states;
    if let Some((state, _)) = known
        .get(&session.key)
        .filter(|(_, read)| now.since(*read) < FRESH)
    {
        return state;
    }
    match keyspace::atomic_get(context.platform.atomic(), &key(&session.key)).await {
        Ok(found) => match known.get(&session.key).filter(|(_, read)| now <= *read) {
            // Changed here while the store was asked: the change is not to be forgotten.
            Some((state, _)) => state,
            None => remember(context, session, found.map(|(_, state)| state)),
        },
        Err(error) => {
            let fields = serde_json::json!({ "reason": error.to_string() });
            context.log(LogLevel::Warn, "session_state_unknown", fields);
            known
                .get(&session.key)
                .map_or_else(Rc::default, |(state, _)| state)
        }
    }
}

fn remember<P: Platform>(
    context: &Context<P>,
    session: &Session,
    state: Option<State>,
) -> Rc<State> {
    let state = Rc::new(state.unwrap_or_default());
    let entry = (Rc::clone(&state), context.now());
    let known = &context.memory.sessions.states;
    known.insert(session.key.clone(), entry);
    state
}

/// Changes the session's state, whoever else does at the same time.
pub async fn change<P: Platform>(
    context: &Context<P>,
    session: &Session,
    change: impl Fn(&mut State) -> Result<(), Error>,
) -> Result<(), Error> {
    let (atomic, key) = (context.platform.atomic(), key(&session.key));
    for _ in 0..SWAPS_MAX {
        let found = match keyspace::atomic_get(atomic, &key).await {
            Ok(found) => found,
            Err(ReadError::Unavailable(e)) => return Err(e.into()),
            Err(e @ ReadError::Unreadable { .. }) => {
                return Err(Fault::Internal(e.to_string()).into());
            }
        };
        let (version, mut state) = match found {
            Some((version, state)) => (Some(version), state),
            None => (None, State::default()),
        };
        state.v = 1;
        change(&mut state)?;
        let swapped = keyspace::atomic_swap(atomic, &key, version, &state, session.until).await?;
        if let Swap::Done(_) = swapped {
            remember(context, session, Some(state));
            return Ok(());
        }
    }
    Err(Fault::Dependency("a session's record is too contended".to_owned()).into())
}

/// Waits until the session's state is no longer as `seen`, for a while; gives it and the
/// version to wait from next.
pub async fn changed<P: Platform>(
    context: &Context<P>,
    session: &Session,
    seen: Option<Version>,
    within: Duration,
) -> Result<(Option<Version>, Rc<State>), Error> {
    let found = context
        .platform
        .atomic()
        .wait(key(&session.key).as_str(), seen, within)
        .await?;
    let Some((version, bytes)) = found else {
        return Ok((None, remember(context, session, None)));
    };
    let state = serde_json::from_slice(&bytes).map_err(|e| Fault::Internal(e.to_string()))?;
    Ok((Some(version), remember(context, session, Some(state))))
}

fn key(session: &str) -> Key<SessionFamily> {
    Key::of(&[session])
}
