//! Asking a user to connect an account: a link to the gateway's own page, brought to them as
//! their client takes it (MCP 2026-07-28 and 2025-11-25, URL mode elicitation).
//!
//! A link is sealed, holds for [`LINK_HOLDS`], and is made only for a caller whose request is
//! being answered. What is granted by it belongs to that principal and to nobody else, and
//! spends every link made before. It carries no credential and opens nothing by itself.
//!
//! Where the configuration says of any issuer how people sign in there, an account is
//! connected by nobody who has not: whoever's issuer cannot be asked gets no link.

mod door;
mod page;
mod visit;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_mcp::input::ResultType;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{RpcError, URL_ELICITATION_REQUIRED_LEGACY};
use tidegate_mcp::method::Method;
use tidegate_mcp::version::{Era, ProtocolVersion};

use super::{caller, grant, token};
use crate::auth::PrincipalId;
use crate::config::{Grant, Upstream};
use crate::context::Context;
use crate::egress::Reply;
use crate::error::{Error, Rejection};
use crate::ingress::Call;
use crate::platform::Platform;
use crate::route::One;
use crate::seal::{Purpose, hex};
use crate::time::Timestamp;
pub(crate) use door::serve;
pub(super) use visit::is_vouched_for;

/// Where users connect accounts, and come back to when they have.
pub(crate) const CONNECT: &str = "/connect";
/// How long a link may be followed, to the end of what it leads to.
pub const LINK_HOLDS: Duration = Duration::from_secs(900);
/// How long a retry waits for an account that is about to be connected.
const CONNECTED_WITHIN: Duration = Duration::from_secs(20);

const STATE: &str = "requestState";
const ANSWERS: &str = "inputResponses";
/// The key of the gateway's own question.
const QUESTION: &str = "connect";

/// The tool an upstream has for who has no account connected, in place of its own.
const CONNECT_TOOL: &str = "connect-account";

/// What a link says.
#[derive(Serialize, Deserialize)]
struct Link {
    principal: PrincipalId,
    /// Who vouched for them.
    issuer: String,
    /// Whose account is to be connected, in the words of the token: shown on the page.
    subject: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    upstream: String,
    made_at: Timestamp,
}

/// The `requestState` of the gateway's own question.
#[derive(Serialize, Deserialize)]
struct Asked {
    principal: PrincipalId,
    upstream: String,
    until: Timestamp,
}

/// The caller has to connect an account at this upstream first.
pub(super) fn required<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &PrincipalId,
) -> Error {
    let link = caller(context, principal).and_then(|caller| {
        let link = Link {
            principal: principal.clone(),
            issuer: caller.issuer.clone(),
            subject: caller.subject.clone(),
            client: caller.client.clone(),
            upstream: upstream.name.clone(),
            made_at: context.now(),
        };
        let sealer = &context.settings.sealer;
        let sealed = sealer.seal(context.platform.as_ref(), Purpose::Link, &link);
        let origin = context.settings.config.public_url.as_str();
        let origin = origin.trim_end_matches('/');
        let (name, sealed) = (&upstream.name, sealed.ok()?);
        Some(format!("{origin}{CONNECT}/{name}?link={sealed}"))
    });
    Rejection::NotConnected {
        upstream: upstream.name.clone(),
        link,
    }
    .into()
}

/// What an upstream lists for who has no account connected: nobody could call anything, and
/// be asked for one, otherwise.
pub(crate) fn connect_tool(upstream: &str) -> Object {
    let description = format!(
        "Connects an account of the user's at `{upstream}`. The other tools of `{upstream}` are \
         listed once that is done."
    );
    Object::default()
        .with("name", &CONNECT_TOOL)
        .with("description", &description)
        .with("inputSchema", &json!({ "type": "object" }))
}

/// Whether a tool of an upstream's is [`connect_tool`]; no other of that name is ever called.
pub(crate) fn is_connect_tool(upstream: &Upstream, own: &str) -> bool {
    let oauth = upstream.credentials.oauth();
    own == CONNECT_TOOL && oauth.is_some_and(|oauth| oauth.grant == Grant::User)
}

/// Whether a call is of [`connect_tool`].
pub(crate) fn connects(one: &One) -> bool {
    one.method == Method::ToolsCall && is_connect_tool(&one.upstream, &one.own)
}

/// The answer to a call of [`connect_tool`] by who has an account connected.
pub(crate) fn connected(one: &One) -> Option<Reply> {
    connects(one).then(|| {
        let text = "The account is connected. List the tools again.";
        let result = Object::default()
            .with("resultType", &ResultType::COMPLETE)
            .with("content", &json!([{ "type": "text", "text": text }]));
        Reply::Result(result)
    })
}

/// Sees to it that a call finds what its upstream is shown on the caller's behalf, before
/// anything is made of the call, and takes out what answers the gateway's own question.
pub(crate) async fn ready<P: Platform>(
    context: &Context<P>,
    principal: &PrincipalId,
    one: &mut One,
) -> Result<(), Error> {
    let Some(oauth) = one.upstream.credentials.oauth() else {
        return Ok(());
    };
    match oauth.grant {
        Grant::Client => return Ok(()),
        Grant::Exchange => {}
        Grant::User => {
            if answered(context, principal, &one.upstream.name, &mut one.params)? {
                let (upstream, within) = (&one.upstream, CONNECTED_WITHIN);
                grant::awaited(context, upstream, oauth, principal, within).await;
            }
        }
    }
    token(context, &one.upstream, oauth, principal, None)
        .await
        .map(drop)
}

/// Whether this retry follows the gateway's own question; one that says no ends here.
fn answered<P: Platform>(
    context: &Context<P>,
    principal: &PrincipalId,
    upstream: &str,
    params: &mut Object,
) -> Result<bool, Error> {
    let sealer = &context.settings.sealer;
    let state = params.get_str(STATE);
    let state = state.and_then(|state| sealer.open::<Asked>(Purpose::Link, &state));
    let ours = |asked: &Asked| asked.principal == *principal && asked.upstream == upstream;
    if !state.is_some_and(|asked| ours(&asked) && context.now() < asked.until) {
        return Ok(false);
    }
    let object = |of: &Object, name| of.get_object(name).and_then(Result::ok).unwrap_or_default();
    let answer = object(&object(params, ANSWERS), QUESTION);
    params.remove(STATE);
    params.remove(ANSWERS);
    match answer.get_str("action").as_deref() {
        Some("decline" | "cancel") => Err(Rejection::NotConnected {
            upstream: upstream.to_owned(),
            link: None,
        }
        .into()),
        Some(_) | None => Ok(true),
    }
}

/// How a caller can be asked to connect an account.
pub(crate) struct Asking {
    principal: PrincipalId,
    version: ProtocolVersion,
    takes_urls: bool,
    takes_rounds: bool,
}

impl Asking {
    /// The client of this call, if an upstream may need an account of its user's.
    pub(crate) fn of<P: Platform>(
        context: &Context<P>,
        principal: &PrincipalId,
        call: &Call,
    ) -> Option<Self> {
        // Where no upstream is personal nobody is looked at.
        context.caller.as_ref()?;
        Some(Self {
            principal: principal.clone(),
            version: call.version,
            takes_urls: call.meta.client_capabilities.elicitation_url(),
            takes_rounds: call.method.may_require_input() && call.method != Method::TasksGet,
        })
    }
}

/// What came of a call, with the wish for an account as the client can be asked for it.
pub(crate) fn answer<P: Platform>(
    context: &Context<P>,
    asking: Option<Asking>,
    outcome: Result<Reply, Error>,
) -> Result<Reply, Error> {
    let (asking, upstream, link) = match (asking, outcome) {
        (
            Some(asking),
            Err(Error::Rejection(Rejection::NotConnected {
                upstream,
                link: Some(link),
            })),
        ) if asking.takes_urls => (asking, upstream, link),
        (_, outcome) => return outcome,
    };
    let message =
        format!("Upstream `{upstream}` needs an account of yours. Open the link to connect it.");
    let mut question = json!({ "mode": "url", "message": message, "url": link });
    match asking.version.era() {
        Era::Modern if asking.takes_rounds => {
            let state = Asked {
                principal: asking.principal,
                upstream,
                until: context.now() + LINK_HOLDS,
            };
            let sealer = &context.settings.sealer;
            let state = sealer.seal(context.platform.as_ref(), Purpose::Link, &state)?;
            let asked = json!({ "method": "elicitation/create", "params": question });
            let result = Object::default()
                .with("resultType", &ResultType::INPUT_REQUIRED)
                .with("inputRequests", &json!({ QUESTION: asked }))
                .with(STATE, &state);
            Ok(Reply::Result(result))
        }
        // Older revisions know neither the code nor the mode.
        Era::Legacy if asking.version == ProtocolVersion::LATEST_LEGACY => {
            question["elicitationId"] = hex(&context.random::<16>()).into();
            let error = RpcError::new(URL_ELICITATION_REQUIRED_LEGACY, message)
                .with_data(json!({ "elicitations": [question] }));
            Err(Rejection::protocol(error).into())
        }
        Era::Modern | Era::Legacy => Err(Rejection::NotConnected {
            upstream,
            link: Some(link),
        }
        .into()),
    }
}
