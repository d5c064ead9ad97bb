//! What is known of an upstream's tools, and what a call must agree with before it is sent.
//!
//! A definition decides which headers mirror which arguments (`x-mcp-header`, MCP
//! 2026-07-28, "Custom headers from tool parameters"): towards clients the gateway is the
//! server that compares them, towards upstreams the client that sends them. Definitions
//! are kept for [`KNOWN_FOR`] also where the list itself may not be cached: they answer no
//! client, and a wrong one costs a refresh, because the upstream compares for itself.
//!
//! It also holds the schemas: arguments that do not fit the input schema never reach the
//! upstream, and the caller, often a model, reads in a tool result what was expected where
//! (`isError`, MCP "Tools", error handling). `structuredContent` that does not fit the
//! declared output schema is not passed on as if it did.
//!
//! Where a definition cannot be had the call goes on unchecked, with the client's own
//! headers: the upstream refuses what does not agree, and must validate its arguments
//! itself. Only an upstream that cannot be reached ends the call here; it was not sent.

mod judge;
mod mirror;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::json;
use tidegate_mcp::headers::{self, HeaderError, HeaderParam};
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{INVALID_PARAMS, RpcError};
use tidegate_mcp::method::Method;
use tidegate_mcp::version::Era;

use crate::auth::PrincipalId;
use crate::catalog;
use crate::config::Upstream;
use crate::context::Context;
use crate::credentials;
use crate::egress::Reply;
use crate::error::{Error, Rejection};
use crate::ingress::Call;
use crate::memory::Bounded;
use crate::platform::{LogLevel, Platform};
use crate::policy::Hints;
use crate::route::One;
use crate::schema::{self, Document};
use crate::tasks;
use crate::time::Timestamp;
use crate::upstream::{self, Declares, Outgoing};
use judge::Tool;
pub(crate) use judge::held;
use mirror::{agree, arguments, mirrored};

/// How long a definition is used before the upstream is asked for its list again.
const KNOWN_FOR: Duration = Duration::from_secs(300);
/// How long an upstream whose list cannot be had is not asked for it again.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);
/// A list younger than this is not doubted: whatever a client sends or an upstream answers,
/// the list is not asked for more often.
const DOUBT_AFTER: Duration = Duration::from_secs(10);
/// How long a call waits for the list before it goes on without it.
pub(crate) const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// Most lists of definitions one isolate keeps.
const LISTS_MAX: usize = 128;
/// Most bytes of definitions one isolate keeps, all lists together.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What an isolate remembers of tools.
pub(crate) struct Memory {
    lists: Bounded<ListKey, Known>,
    /// Bytes of all that was learnt since there was last too much of it.
    bytes: Cell<usize>,
    schemas: schema::Memory,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            lists: Bounded::new(LISTS_MAX),
            bytes: Cell::new(0),
            schemas: schema::Memory::default(),
        }
    }
}

/// Configuration, upstream, and for a private list the principal.
type ListKey = (String, String, Option<String>);

/// One upstream's definitions by the tools' own names.
type Definitions = BTreeMap<String, Rc<Definition>>;

#[derive(Clone)]
struct Known {
    /// `None` where they could not be had.
    tools: Option<Rc<Definitions>>,
    at: Timestamp,
}

/// What one tool wants of a call.
pub(crate) struct Definition {
    /// The arguments it wants mirrored. An error means it must not be used over HTTP.
    params: Result<Vec<HeaderParam>, HeaderError>,
    input: Option<Document>,
    output: Option<Document>,
    hints: Hints,
}

impl Definition {
    fn of(item: &Object) -> Self {
        let params = item.get("inputSchema").map(headers::header_params);
        Self {
            params: params.unwrap_or_else(|| Ok(Vec::new())),
            input: item.get("inputSchema").map(Document::new),
            output: item.get("outputSchema").map(Document::new),
            hints: Hints::of(item),
        }
    }
}

/// Remembers the definitions in an upstream's list of tools; `owner` is the principal it
/// is for, unless it is for all.
pub(crate) fn learn<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    owner: Option<&PrincipalId>,
    items: &[Object],
    asked_at: Timestamp,
) {
    let named = items.iter().filter_map(|item| {
        let name = item.get_str("name")?.into_owned();
        Some((name, Rc::new(Definition::of(item))))
    });
    // Of two tools with one name the first counts, as it does in the merged list.
    let mut tools = Definitions::new();
    for (name, definition) in named {
        tools.entry(name).or_insert(definition);
    }
    let known = Known {
        tools: Some(Rc::new(tools)),
        at: asked_at,
    };
    let memory = &context.memory.tools;
    let size: usize = items.iter().map(Object::text_len).sum();
    let mut bytes = memory.bytes.get().saturating_add(size);
    if bytes > KEPT_BYTES_MAX {
        // Those in use are soon back.
        memory.lists.forget(|_| true);
        bytes = size;
    }
    memory.bytes.set(bytes);
    context
        .memory
        .tools
        .lists
        .insert(key(context, upstream, owner), known);
}

/// What the upstream says the tool does; the worst where it says nothing or cannot be asked.
pub(crate) async fn hints<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &PrincipalId,
    tool: &str,
) -> Result<Hints, Error> {
    let definition = definition(context, upstream, principal, tool).await?;
    Ok(definition.map_or_else(Hints::default, |definition| definition.hints))
}

/// Judges a call before anything of it is sent (ladder step 14, then the input schema).
/// Gives the answer where the arguments are what is wrong.
pub(crate) async fn check<P: Platform>(
    context: &Context<P>,
    principal: &PrincipalId,
    one: &One,
    call: &Call,
    received: &[(HeaderName, HeaderValue)],
) -> Result<Option<Object>, Error> {
    if one.method != Method::ToolsCall {
        return Ok(None);
    }
    let Some(definition) = definition(context, &one.upstream, principal, &one.own).await? else {
        return Ok(None);
    };
    let arguments = arguments(&one.params)?;
    match &definition.params {
        // It is in no list a client sees either.
        Err(_) => {
            let unknown = RpcError::invalid_params(format!("Unknown tool: {}", one.exposed));
            return Err(Rejection::protocol(unknown).into());
        }
        Ok(params) if call.version.era() == Era::Modern => {
            agree(params, &arguments, received).map_err(Rejection::protocol)?;
        }
        // Older revisions have no such headers.
        Ok(_) => {}
    }
    let tool = Tool {
        context,
        upstream: &one.upstream,
        name: &one.own,
        definition: &definition,
    };
    let violations = tool.input(&one.params)?;
    Ok((!violations.is_empty()).then(|| judge::told(&one.exposed, &violations)))
}

/// Whether the upstream lists the tool. Of names nobody lists there is no end.
pub(crate) async fn lists<P: Platform>(
    context: &Context<P>,
    principal: &PrincipalId,
    one: &One,
) -> bool {
    let known = definition(context, &one.upstream, principal, &one.own).await;
    matches!(known, Ok(Some(_)))
}

/// Whether a tool is listed, and takes these arguments.
pub(crate) async fn takes<P: Platform>(
    context: &Context<P>,
    principal: &PrincipalId,
    one: &One,
) -> bool {
    let known = definition(context, &one.upstream, principal, &one.own).await;
    let Ok(Some(definition)) = known else {
        return false;
    };
    let tool = Tool {
        context,
        upstream: &one.upstream,
        name: &one.own,
        definition: &definition,
    };
    let fits = tool.input(&one.params);
    definition.params.is_ok() && fits.is_ok_and(|violations| violations.is_empty())
}

/// The tool a request calls, if it calls one, and for whom.
pub(crate) struct Called {
    tool: Option<String>,
    principal: PrincipalId,
}

impl Called {
    pub(crate) fn of(outgoing: &Outgoing) -> Self {
        let tool = outgoing.params.get_str("name");
        let tool = tool.filter(|_| outgoing.method == Method::ToolsCall);
        Self {
            tool: tool.map(std::borrow::Cow::into_owned),
            principal: outgoing.principal.clone(),
        }
    }
}

/// [`upstream::call`] with what the tool's definition adds: mirrored arguments on the way
/// there, [`hold`] on the way back. An upstream that disagrees with the headers has changed
/// the tool: its list is asked for again, and the call, which was not acted on, is sent
/// once more.
pub(crate) async fn call<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    outgoing: Outgoing,
) -> Result<Reply, Error> {
    let called = Called::of(&outgoing);
    let (Some(tool), principal) = (&called.tool, &called.principal) else {
        return upstream::call(context, upstream, outgoing).await;
    };
    let known = definition(context, upstream, principal, tool).await?;
    let sent = mirrored(known.as_deref(), outgoing.clone())?;
    let mut reply = upstream::call(context, upstream, sent).await;
    // It was not acted on.
    if matches!(outgoing.tasks, Declares::Insisted | Declares::Offered)
        && reply.as_ref().is_err_and(tasks::theirs::wanted_by)
    {
        let again = Outgoing {
            tasks: Declares::Always,
            ..outgoing.clone()
        };
        let sent = mirrored(known.as_deref(), again)?;
        reply = upstream::call(context, upstream, sent).await;
    }
    let (known, reply) = match reply {
        Err(Error::Rejection(Rejection::HeadersRefused { .. }))
            if doubt(context, upstream, principal) =>
        {
            let known = definition(context, upstream, principal, tool).await?;
            let sent = mirrored(known.as_deref(), outgoing)?;
            (known, upstream::call(context, upstream, sent).await?)
        }
        reply => {
            if let Err(Error::Rejection(Rejection::Protocol { error, .. })) = &reply
                && names_no_tool(error)
            {
                doubt(context, upstream, principal);
            }
            (known, reply?)
        }
    };
    match known {
        Some(known) => judge::hold(context, upstream, tool, known, reply),
        None => Ok(reply),
    }
}

/// Whether an upstream says that it has no such tool. There is no code for that alone: these
/// are the words of the common servers.
fn names_no_tool(error: &RpcError) -> bool {
    let words = error.message.to_ascii_lowercase();
    error.code == INVALID_PARAMS
        && words.contains("tool")
        && (words.contains("unknown") || words.contains("not found"))
}

/// The reply of a call that was made elsewhere, whose result must fit what the tool
/// declares. The tool has run: nothing is asked for now, only what is known counts.
pub(crate) fn hold<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    called: &Called,
    reply: Reply,
) -> Result<Reply, Error> {
    let Some(tool) = &called.tool else {
        return Ok(reply);
    };
    let known = remembered(context, upstream, &called.principal);
    match known.and_then(|known| known.tools?.get(tool).cloned()) {
        Some(known) => judge::hold(context, upstream, tool, known, reply),
        None => Ok(reply),
    }
}

/// Forgets the definitions of an upstream that says it lists something else.
pub(crate) fn forget<P: Platform>(context: &Context<P>, upstream: &str) {
    let lists = &context.memory.tools.lists;
    lists.forget(|(_, of, _)| of == upstream);
}

/// The tool's definition: memory → its upstream's list. `None` where it cannot be had: the
/// list does not answer, or does not name the tool.
async fn definition<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &PrincipalId,
    tool: &str,
) -> Result<Option<Rc<Definition>>, Error> {
    if let Some(known) = remembered(context, upstream, principal) {
        let age = context.now().since(known.at);
        match &known.tools {
            None => return Ok(None),
            Some(tools) => match tools.get(tool) {
                Some(definition) => return Ok(Some(Rc::clone(definition))),
                // It may be new.
                None if age >= DOUBT_AFTER => {
                    doubt(context, upstream, principal);
                }
                None => return Ok(None),
            },
        }
    }
    if let Err(error) = catalog::tools(context, upstream, principal).await {
        return unknown(context, upstream, principal, error).await;
    }
    let known = remembered(context, upstream, principal).and_then(|known| known.tools);
    Ok(known.and_then(|tools| tools.get(tool).cloned()))
}

/// The list could not be had.
async fn unknown<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &PrincipalId,
    error: Error,
) -> Result<Option<Rc<Definition>>, Error> {
    let unreachable = matches!(
        error,
        Error::Fault(_)
            | Error::Rejection(
                Rejection::UpstreamUnavailable { .. } | Rejection::UpstreamLost { .. }
            )
    );
    // Nor can the tool be: the call itself has not been sent.
    if unreachable
        || upstream::facts::known(context, upstream, principal, Era::Modern)
            .await
            .is_none()
    {
        return Err(upstream::not_asked(error));
    }
    let fields = json!({ "upstream": upstream.name, "reason": error.to_string() });
    context.log(LogLevel::Warn, "tools_unchecked", fields);
    let known = Known {
        tools: None,
        at: context.now(),
    };
    let lists = &context.memory.tools.lists;
    lists.insert(key(context, upstream, Some(principal)), known);
    Ok(None)
}

/// What is remembered of the upstream's tools for this principal, while it may be used.
fn remembered<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &PrincipalId,
) -> Option<Known> {
    let now = context.now();
    let fresh = |known: &Known| {
        let keep = if known.tools.is_some() {
            KNOWN_FOR
        } else {
            UNKNOWN_FOR
        };
        now.since(known.at) < keep
    };
    let lists = &context.memory.tools.lists;
    [None, Some(principal)]
        .into_iter()
        .filter_map(|owner| lists.get(&key(context, upstream, owner)).filter(fresh))
        .max_by_key(|known| known.at)
}

/// Forgets what is remembered of the upstream's tools, unless it has just been learnt;
/// tells whether it was forgotten.
fn doubt<P: Platform>(context: &Context<P>, upstream: &Upstream, principal: &PrincipalId) -> bool {
    let now = context.now();
    let young = remembered(context, upstream, principal)
        .is_some_and(|known| now.since(known.at) < DOUBT_AFTER);
    if young {
        return false;
    }
    let lists = &context.memory.tools.lists;
    for owner in [None, Some(principal)] {
        lists.remove(&key(context, upstream, owner));
    }
    catalog::forget_tools(context, upstream, principal);
    true
}

fn key<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    owner: Option<&PrincipalId>,
) -> ListKey {
    (
        context.settings.digest.clone(),
        upstream.key().clone(),
        owner.map(|owner| credentials::known_as(context, upstream, owner)),
    )
}
