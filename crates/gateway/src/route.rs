//! Which upstream, or which part of the gateway itself, answers a call.

use std::collections::BTreeSet;

use tidegate_mcp::catalog::Kind;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::RpcError;
use tidegate_mcp::method::Method;
use tidegate_mcp::version::Era;

use crate::auth::Principal;
use crate::catalog;
use crate::config::Upstream;
use crate::context::Context;
use crate::discover::upstreams;
use crate::error::{Error, Rejection};
use crate::ingress::{Call, Endpoint};
use crate::names;
use crate::platform::Platform;
use crate::tasks;

/// What a reference to a prompt says it is (`completion/complete`).
pub(crate) const PROMPT_REFERENCE: &str = "ref/prompt";

/// What answers a call.
pub enum Target {
    /// The gateway itself.
    Own(Own),
    /// Every upstream of the endpoint, merged.
    Every(Kind),
    /// One thing of one upstream.
    One(Box<One>),
    /// What changes at every upstream.
    Changes,
}

/// What the gateway answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// `server/discover`.
    Discover,
    /// `initialize`.
    Initialize,
    /// `ping`.
    Ping,
    /// `tasks/get`.
    TaskGet,
    /// `tasks/update`.
    TaskUpdate,
    /// `tasks/cancel`.
    TaskCancel,
    /// `tasks/result` (2025-11-25).
    TaskResult,
    /// `tasks/list` (2025-11-25).
    TaskList,
    /// `logging/setLevel`.
    SetLevel,
    /// `resources/subscribe`.
    Subscribe,
    /// `resources/unsubscribe`.
    Unsubscribe,
}

/// One tool, prompt, resource or completion of one upstream.
#[derive(Clone)]
pub struct One {
    /// Whose it is.
    pub upstream: Upstream,
    /// The method that asks for it.
    pub method: Method,
    /// Its name or URI as the client knows it.
    pub exposed: String,
    /// Its name or URI at the upstream.
    pub own: String,
    /// The call's params in the upstream's names.
    pub params: Object,
    /// Whether the client knows the upstream's things under prefixed names.
    pub prefixed: bool,
}

impl Target {
    /// The upstream, if it is one.
    pub fn upstream(&self) -> Option<&str> {
        match self {
            Self::One(one) => Some(&one.upstream.name),
            Self::Own(_) | Self::Every(_) | Self::Changes => None,
        }
    }

    /// Upstream and own name, if a tool is called.
    pub fn tool(&self) -> Option<(&str, &str)> {
        match self {
            Self::One(one) if one.method == Method::ToolsCall => {
                Some((&one.upstream.name, &one.own))
            }
            Self::One(_) | Self::Own(_) | Self::Every(_) | Self::Changes => None,
        }
    }
}

/// Finds what answers the call.
pub async fn resolve<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
    call: &Call,
) -> Result<Target, Error> {
    // Among the older revisions one has tasks, of its own kind.
    let settings = &context.settings;
    let foreign =
        call.version.era() == Era::Legacy && !tasks::legacy::offered(settings, call.version);
    let own = match call.method {
        Method::TasksGet | Method::TasksUpdate | Method::TasksCancel if foreign => {
            return Err(
                Rejection::protocol(RpcError::method_not_found(call.method.as_str())).into(),
            );
        }
        Method::TasksResult if !foreign => Own::TaskResult,
        Method::TasksList if tasks::legacy::listed(settings, call.version) => Own::TaskList,
        Method::ServerDiscover => Own::Discover,
        Method::Initialize => Own::Initialize,
        Method::Ping => Own::Ping,
        Method::TasksGet => Own::TaskGet,
        Method::TasksUpdate => Own::TaskUpdate,
        Method::TasksCancel => Own::TaskCancel,
        Method::ToolsCall => return named(context, endpoint, principal, call, Kind::Tools).await,
        Method::PromptsGet => {
            return named(context, endpoint, principal, call, Kind::Prompts).await;
        }
        Method::ResourcesRead => return read(context, endpoint, principal, call).await,
        Method::CompletionComplete => return completion(context, endpoint, principal, call).await,
        Method::ToolsList => return Ok(Target::Every(Kind::Tools)),
        Method::ResourcesList => return Ok(Target::Every(Kind::Resources)),
        Method::ResourceTemplatesList => return Ok(Target::Every(Kind::ResourceTemplates)),
        Method::PromptsList => return Ok(Target::Every(Kind::Prompts)),
        Method::SubscriptionsListen => return Ok(Target::Changes),
        // Only a session can remember these.
        Method::LoggingSetLevel if call.session.is_some() => Own::SetLevel,
        Method::ResourcesSubscribe if call.session.is_some() => Own::Subscribe,
        Method::ResourcesUnsubscribe if call.session.is_some() => Own::Unsubscribe,
        Method::LoggingSetLevel
        | Method::ResourcesSubscribe
        | Method::ResourcesUnsubscribe
        | Method::TasksResult
        | Method::TasksList => {
            return Err(
                Rejection::protocol(RpcError::method_not_found(call.method.as_str())).into(),
            );
        }
    };
    Ok(Target::Own(own))
}

async fn named<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
    call: &Call,
    kind: Kind,
) -> Result<Target, Error> {
    let exposed = required(&call.params, "name")?;
    let (upstream, own) = by_name(context, endpoint, principal, kind, &exposed).await?;
    let mut params = call.params.clone();
    params.insert("name", &own);
    Ok(one(
        context,
        endpoint,
        upstream,
        call.method,
        exposed,
        own,
        params,
    ))
}

async fn read<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
    call: &Call,
) -> Result<Target, Error> {
    let exposed = required(&call.params, "uri")?;
    let (upstream, own) = by_uri(context, endpoint, principal, &exposed).await?;
    let mut params = call.params.clone();
    params.insert("uri", &own);
    Ok(one(
        context,
        endpoint,
        upstream,
        call.method,
        exposed,
        own,
        params,
    ))
}

/// What reading each of these resources would be, as far as it is known whose they are: for
/// what else is done with them, which is for those who may read them. However many there
/// are, each list is asked for once.
pub(crate) async fn resources<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
    uris: &BTreeSet<String>,
) -> Vec<Target> {
    let mut found: Vec<(Upstream, String, String)> = Vec::new();
    let mut left = uris.clone();
    let bare = !names::prefixed(&context.settings, endpoint) && only(context, endpoint).is_none();
    for kind in [Kind::Resources, Kind::ResourceTemplates] {
        if bare && !left.is_empty() {
            let owners = catalog::owners(context, endpoint, principal, kind, &left).await;
            for (uri, upstream) in owners.unwrap_or_default() {
                left.remove(&uri);
                found.push((upstream.clone(), uri.clone(), uri));
            }
        }
    }
    if !bare {
        for uri in left {
            if let Ok((upstream, own)) = by_uri(context, endpoint, principal, &uri).await {
                found.push((upstream, uri, own));
            }
        }
    }
    let reading = found.into_iter().map(|(upstream, exposed, own)| {
        let params = Object::new().with("uri", &own);
        let method = Method::ResourcesRead;
        one(context, endpoint, upstream, method, exposed, own, params)
    });
    reading.collect()
}

async fn completion<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
    call: &Call,
) -> Result<Target, Error> {
    let Some(Ok(mut reference)) = call.params.get_object("ref") else {
        return Err(invalid("`ref` must be an object"));
    };
    let (member, exposed, found) = match reference.get_str("type").as_deref() {
        Some(PROMPT_REFERENCE) => {
            let exposed = required(&reference, "name")?;
            (
                "name",
                exposed.clone(),
                by_name(context, endpoint, principal, Kind::Prompts, &exposed).await?,
            )
        }
        Some("ref/resource") => {
            let exposed = required(&reference, "uri")?;
            (
                "uri",
                exposed.clone(),
                by_uri(context, endpoint, principal, &exposed).await?,
            )
        }
        _ => return Err(invalid("`ref.type` must be `ref/prompt` or `ref/resource`")),
    };
    let (upstream, own) = found;
    reference.insert(member, &own);
    let mut params = call.params.clone();
    params.insert("ref", &reference);
    Ok(one(
        context,
        endpoint,
        upstream,
        call.method,
        exposed,
        own,
        params,
    ))
}

fn one<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    upstream: Upstream,
    method: Method,
    exposed: String,
    own: String,
    params: Object,
) -> Target {
    let prefixed = names::prefixed(&context.settings, endpoint);
    Target::One(Box::new(One {
        upstream,
        method,
        exposed,
        own,
        params,
        prefixed,
    }))
}

async fn by_name<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
    kind: Kind,
    exposed: &str,
) -> Result<(Upstream, String), Error> {
    let unknown = || {
        let what = if kind == Kind::Tools {
            "tool"
        } else {
            "prompt"
        };
        Error::from(Rejection::protocol(RpcError::invalid_params(format!(
            "Unknown {what}: {exposed}"
        ))))
    };
    if names::prefixed(&context.settings, endpoint) {
        let named = names::split_name(&context.settings, exposed);
        let named = named.filter(|(upstream, _)| endpoint.shows(upstream));
        let (upstream, own) = named.ok_or_else(unknown)?;
        if names::may_be_short(exposed) {
            let alone = endpoint.alone(&upstream.name);
            let meant = |own: &str| names::exposed_name(true, &upstream.name, own) == exposed;
            let listed = catalog::named(context, &alone, principal, kind, meant).await?;
            if let Some(listed) = listed {
                return Ok(listed);
            }
        }
        return Ok((upstream.clone(), own));
    }
    let only = only(context, endpoint);
    if let Some(only) = only.filter(|_| !names::may_be_short(exposed)) {
        return Ok((only.clone(), exposed.to_owned()));
    }
    let meant = |own: &str| own == exposed || names::exposed_name(false, "", own) == exposed;
    match (
        catalog::named(context, endpoint, principal, kind, meant).await?,
        only,
    ) {
        (Some(listed), _) => Ok(listed),
        (None, Some(only)) => Ok((only.clone(), exposed.to_owned())),
        (None, None) => Err(unknown()),
    }
}

async fn by_uri<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
    exposed: &str,
) -> Result<(Upstream, String), Error> {
    let unknown = || Error::from(Rejection::protocol(RpcError::resource_not_found(exposed)));
    if names::prefixed(&context.settings, endpoint) {
        let named = names::split_uri(&context.settings, exposed);
        let named = named.filter(|(upstream, _)| endpoint.shows(upstream));
        let (upstream, own) = named.ok_or_else(unknown)?;
        return Ok((upstream.clone(), own));
    }
    if let Some(only) = only(context, endpoint) {
        return Ok((only.clone(), exposed.to_owned()));
    }
    for kind in [Kind::Resources, Kind::ResourceTemplates] {
        if let Some(owner) = catalog::owner(context, endpoint, principal, kind, exposed).await? {
            return Ok((owner.clone(), exposed.to_owned()));
        }
    }
    Err(unknown())
}

/// The endpoint's upstream, if it has just one: nothing needs to be looked up.
fn only<'a, P: Platform>(context: &'a Context<P>, endpoint: &'a Endpoint) -> Option<&'a Upstream> {
    let mut all = upstreams(&context.settings, endpoint);
    all.next().filter(|_| all.next().is_none())
}

fn required(params: &Object, member: &str) -> Result<String, Error> {
    match params.get_str(member) {
        Some(text) => Ok(text.into_owned()),
        None => Err(invalid(&format!("`{member}` must be a string"))),
    }
}

fn invalid(reason: &str) -> Error {
    Rejection::protocol(RpcError::invalid_params(reason)).into()
}
