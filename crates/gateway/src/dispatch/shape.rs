//! How one upstream's result is shown to the client.

use std::rc::Rc;

use tidegate_mcp::catalog::CacheHints;
use tidegate_mcp::input::ResultType;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{INTERNAL_ERROR, RpcError};
use tidegate_mcp::meta::ClientCapabilities;
use tidegate_mcp::method::Method;
use tidegate_mcp::version::{Era, ProtocolVersion};

use super::Ask;
use crate::context::Context;
use crate::egress::Question;
use crate::error::{Error, Rejection};
use crate::names;
use crate::platform::Platform;
use crate::rounds;
use crate::tasks::passed;
use crate::tasks::theirs::{Maker, Minted};

/// What is known of the request a result is for.
pub(super) struct Shape<P> {
    pub(super) context: Context<P>,
    /// Whether what requires input is a call parked in a keeper.
    pub(super) parked: bool,
    pub(super) request: String,
    pub(super) upstream: String,
    pub(super) method: Method,
    pub(super) prefixed: bool,
    /// The version whose state it carries.
    pub(super) version: Option<String>,
    /// Whether an extension may have added types of results.
    pub(super) extended: bool,
    pub(super) client: Client,
    /// What becomes of a task, and who makes it.
    pub(super) minted: Option<(Minted, Rc<Maker>)>,
}

/// Whom a result is for.
pub(super) enum Client {
    /// Can be asked for input of the kinds it declared.
    Asked(ClientCapabilities),
    /// Is asked by the gateway while the call runs; the upstream's state stays here.
    Conversing(ClientCapabilities),
    /// Cannot: it speaks an older revision, or there is none, as when a task runs.
    NotAsked,
}

impl Client {
    pub(super) fn of(ask: &Ask) -> Self {
        let declared = || ask.meta.client_capabilities.clone();
        match ProtocolVersion::parse(&ask.meta.protocol_version).map(ProtocolVersion::era) {
            Some(Era::Modern) => Self::Asked(declared()),
            Some(Era::Legacy) if ask.asks => Self::Conversing(declared()),
            Some(Era::Legacy) | None => Self::NotAsked,
        }
    }
}

impl<P: Platform> Shape<P> {
    /// Says who asks, where the client sees several upstreams as one.
    pub(super) fn question(&self, mut question: Question) -> Question {
        if self.prefixed {
            names::say_who_asks(&self.upstream, &mut question.params);
        }
        question
    }

    pub(super) fn result(&self, mut result: Object) -> Result<Object, Error> {
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
                let upstream = &self.upstream;
                if self.prefixed {
                    names::say_who_requires(upstream, &mut result);
                }
                match &self.client {
                    Client::Asked(client) => {
                        let round = rounds::Round {
                            request: &self.request,
                            upstream,
                            version: self.version.as_deref(),
                            parked: self.parked,
                        };
                        rounds::suspend(&self.context, &round, client, &mut result)?;
                    }
                    Client::Conversing(client) => drop(rounds::check(upstream, client, &result)?),
                    Client::NotAsked => {
                        let reason = "The upstream asks for input, which cannot be asked for here.";
                        let error = RpcError::new(INTERNAL_ERROR, reason);
                        return Err(Rejection::protocol(error).into());
                    }
                }
            }
            ResultType::Task if let Some((minted, maker)) = &self.minted => {
                return match (minted, &self.client) {
                    (Minted::Passed, Client::Asked(client)) => {
                        passed::created(&self.context, maker, client, result)
                    }
                    // Whoever called knows what to do.
                    _ => Ok(result),
                };
            }
            ResultType::Other(_) if self.extended => {}
            // No extension that adds result types was declared to the upstream.
            ResultType::InputRequired | ResultType::Task | ResultType::Other(_) => {
                let upstream = self.upstream.clone();
                let reason = "a result type nobody asked for".to_owned();
                return Err(Rejection::UpstreamInvalid {
                    upstream,
                    reason,
                    asked: true,
                }
                .into());
            }
        }
        if !result.contains("resultType") {
            result.insert("resultType", &ResultType::COMPLETE);
        }
        Ok(result)
    }
}
