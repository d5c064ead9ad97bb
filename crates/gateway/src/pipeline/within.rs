//! What legacy clients do within their sessions: calls that go by what was agreed on, and
//! words that are no calls.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::stream::{self, LocalBoxStream, StreamExt};
use http::Response;
use tidegate_mcp::headers::MCP_PROTOCOL_VERSION;
use tidegate_mcp::jsonrpc;
use tidegate_mcp::sse;
use tidegate_mcp::version::Era;

use super::{accepted, asked, malformed, permit, work};
use crate::audit::Pending;
use crate::auth::Principal;
use crate::body::Body;
use crate::context::Context;
use crate::dispatch;
use crate::egress;
use crate::error::Error;
use crate::http_sse;
use crate::ingress::{self, Call, Head, Word};
use crate::limits::standing::Standings;
use crate::mailbox::{self, Address, Letter};
use crate::notices;
use crate::platform::Platform;
use crate::session::{self, Session};
use crate::settings;
use crate::switches;

/// Finds the session a legacy client's call names; what the client declared when it was
/// opened, and the log level it has set since, hold for the call.
pub(super) async fn attach<P: Platform>(
    context: &Context<P>,
    head: &Head,
    principal: &Principal,
    call: &mut Call,
) -> Result<(), Error> {
    let named = head.session.as_deref();
    let Some(id) = named.filter(|_| call.version.era() == Era::Legacy) else {
        return Ok(());
    };
    let (session, state) = session::open(context, &head.endpoint, principal, id).await?;
    // Revisions before 2025-06-18 say theirs in `initialize` alone.
    if !head.headers.contains_key(MCP_PROTOCOL_VERSION) {
        call.version = session.version;
        let version = session.version.as_str();
        version.clone_into(&mut call.meta.protocol_version);
    }
    within(call, session, &state);
    Ok(())
}

fn within(call: &mut Call, session: Rc<Session>, state: &session::State) {
    if call.streams {
        call.meta.client_capabilities = session.capabilities.clone();
        let level = state.log_level.as_deref().unwrap_or(session::LOG_LEVEL);
        call.meta.log_level = Some(level.to_owned());
    }
    call.session = Some(session);
}

/// Carries one call of a client of 2024-11-05, which has been admitted where it was posted,
/// to its answer on the client's stream. What is in force now decides, however long the
/// stream has been open.
pub(crate) async fn told<P: Platform>(
    context: &Context<P>,
    head: &Head,
    principal: Rc<Principal>,
    session: Rc<Session>,
    request: jsonrpc::Request,
) -> LocalBoxStream<'static, Bytes> {
    let in_force = settings::load(&context.platform, &context.memory).await;
    let context = &Context {
        settings: in_force.unwrap_or_else(|_| Rc::clone(&context.settings)),
        ..context.clone()
    };
    let (platform, path) = (Rc::clone(&context.platform), head.endpoint.key());
    let mut audit = Pending::begin(platform, path, context.settings.digest.clone());
    audit.principal(&principal);
    audit.record.address.clone_from(&context.peer.address);
    let once = |text: String| {
        let chunk = Bytes::from(sse::encode_message(&text));
        stream::iter([chunk]).boxed_local()
    };
    let mut call = match ingress::legacy(request, session.version, true) {
        Ok(call) => call,
        Err((id, error)) => return once(malformed(id, error, audit)),
    };
    let state = session::state(context, &session).await;
    within(&mut call, session, &state);
    let context = &context.hurried();
    let asked = asked(&call);
    // Nobody reads headers here: the stream's are long gone.
    let mut standings = Standings::default();
    let permitted = async {
        switches::admit(context, &principal).await?;
        let (call, audit) = (&mut call, &mut audit);
        permit(context, head, principal, call, audit, &mut standings).await
    };
    match permitted.await {
        Ok(granted) => {
            let work = dispatch::begin(context, work(head, call, granted, &audit));
            egress::on_stream(context, asked, work, audit)
        }
        Err(error) => once(egress::error_message(context, &asked, &error, audit)),
    }
}

/// What a legacy client says within a session that is no call.
pub(super) async fn heard<P: Platform>(
    context: &Context<P>,
    head: &Head,
    principal: &Rc<Principal>,
    word: Word,
) -> Result<Response<Body>, Error> {
    // Without a session there is nothing that could be waiting for it.
    let Some(id) = &head.session else {
        return Ok(accepted());
    };
    let (session, _) = session::open(context, &head.endpoint, principal, id).await?;
    match word {
        Word::Answer(response) => {
            let question = response.id.as_ref().and_then(Address::of_question);
            if let Some((address, number)) = question {
                let letter = mailbox::answer(number, response.outcome);
                mailbox::post(context, &session, &address, &letter).await?;
            }
        }
        Word::Cancel(id) => {
            let address = Address::of(&session, &id);
            mailbox::post(context, &session, &address, &Letter::Cancelled).await?;
        }
        Word::Call(request) => http_sse::bring(context, &session, principal, &request).await?,
        Word::Aside => {}
        Word::Listen => {
            return notices::stream(context, &head.endpoint, principal, session).await;
        }
        Word::End => {
            session::change(context, &session, |state| {
                state.ended = true;
                Ok(())
            })
            .await?;
        }
    }
    Ok(accepted())
}
