//! Handles of tasks: sealed, and self-describing. Whose task it is, of which tool, and how
//! long it can be read is known without a store, so that a foreign, expired or forged handle
//! is refused in the same words as an unknown one and costs no read.
//!
//! A task of the gateway's own is in a record, which its handle names. One an upstream made is
//! at the upstream: its handle says all there is to know, and nothing is stored.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::RpcError;
use tidegate_mcp::meta::ClientCapabilities;

use crate::auth::{Principal, PrincipalId};
use crate::context::Context;
use crate::error::{Error, Fault, Rejection};
use crate::platform::Platform;
use crate::seal::{Purpose, hex};
use crate::time::Timestamp;

/// Longest task handle, in bytes: it travels in the `Mcp-Name` header.
pub const HANDLE_MAX: usize = 512;

/// What a handle says; short names, for it must fit a header.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Handle {
    /// Key of the record.
    #[serde(rename = "k")]
    pub(crate) id: String,
    #[serde(rename = "o")]
    owner: PrincipalId,
    /// Whose data it is: tenant, upstream and tool, hashed.
    #[serde(rename = "b")]
    of: String,
    #[serde(rename = "c")]
    created_at_ms: u64,
    #[serde(rename = "t")]
    ttl_ms: u64,
}

/// What a task is of.
pub(crate) struct Of<'a> {
    pub(crate) tenant: Option<&'a str>,
    pub(crate) upstream: &'a str,
    pub(crate) tool: &'a str,
}

impl Of<'_> {
    fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for part in [self.tenant.unwrap_or_default(), self.upstream, self.tool] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hex(&hash.finalize()[..8])
    }
}

impl Handle {
    pub(crate) fn new(
        id: String,
        owner: PrincipalId,
        of: &Of<'_>,
        created_at: Timestamp,
        ttl: Duration,
    ) -> Self {
        Self {
            id,
            owner,
            of: of.digest(),
            created_at_ms: created_at.0,
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(crate) fn seal<P: Platform>(&self, context: &Context<P>) -> Result<String, Error> {
        sealed(context, self)?
            .ok_or_else(|| Fault::Internal("a task handle is too long".to_owned()).into())
    }

    /// What a handle says, if it is this principal's and its time is not over.
    pub(crate) fn open<P: Platform>(
        context: &Context<P>,
        principal: &Principal,
        text: &str,
    ) -> Option<Self> {
        let handle: Self = opened(context, text)?;
        let whose = (&handle.owner, handle.created_at_ms, handle.ttl_ms);
        holds(context, principal, whose).then_some(handle)
    }

    /// Whether it was given for a task of this.
    pub(crate) fn is_of(&self, of: &Of<'_>) -> bool {
        self.of == of.digest()
    }
}

/// The handle of a task an upstream made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Passed {
    #[serde(rename = "o")]
    pub(crate) owner: PrincipalId,
    #[serde(rename = "c")]
    pub(crate) created_at_ms: u64,
    #[serde(rename = "t")]
    pub(crate) ttl_ms: u64,
    /// Configured name of the upstream.
    #[serde(rename = "u")]
    pub(crate) upstream: String,
    /// Which version of it, if not the upstream itself.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// The tool's own name at the upstream.
    #[serde(rename = "n")]
    pub(crate) tool: String,
    /// Whether names and URIs are shown with their upstream's prefix.
    #[serde(rename = "p")]
    pub(crate) prefixed: bool,
    /// The upstream's id of the task.
    #[serde(rename = "i")]
    pub(crate) id: String,
    /// What the client can be asked.
    #[serde(rename = "a")]
    pub(crate) askable: Askable,
}

impl Passed {
    /// The handle's text, if it fits a header.
    pub(crate) fn seal<P: Platform>(&self, context: &Context<P>) -> Result<Option<String>, Error> {
        sealed(context, self)
    }
}

/// What a handle names.
pub(crate) enum Named {
    /// A task of the gateway's own.
    Ours(Handle),
    /// A task of an upstream.
    Theirs(Passed),
}

impl Named {
    /// [`Handle::open`] for handles of either kind.
    pub(crate) fn open<P: Platform>(
        context: &Context<P>,
        principal: &Principal,
        text: &str,
    ) -> Option<Self> {
        if let Some(handle) = Handle::open(context, principal, text) {
            return Some(Self::Ours(handle));
        }
        let passed: Passed = opened(context, text)?;
        let whose = (&passed.owner, passed.created_at_ms, passed.ttl_ms);
        holds(context, principal, whose).then_some(Self::Theirs(passed))
    }
}

/// The kinds of input a client declared it can be asked for, in a number: a handle has little
/// room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Askable(u8);

impl Askable {
    const FORM: u8 = 1;
    const URL: u8 = 2;
    const SAMPLING: u8 = 4;
    const SAMPLING_TOOLS: u8 = 8;
    const ROOTS: u8 = 16;

    pub(crate) fn of(client: &ClientCapabilities) -> Self {
        let kinds = [
            (Self::FORM, client.elicitation_form()),
            (Self::URL, client.elicitation_url()),
            (Self::SAMPLING, client.sampling()),
            (
                Self::SAMPLING_TOOLS,
                client.declares(&["sampling", "tools"]),
            ),
            (Self::ROOTS, client.roots()),
        ];
        let declared = kinds.iter().filter(|(_, declared)| *declared);
        Self(declared.map(|(kind, _)| kind).sum())
    }

    pub(crate) fn capabilities(self) -> ClientCapabilities {
        let modes = |kinds: [(u8, &str); 2]| {
            let declared = kinds.into_iter().filter(|(kind, _)| self.0 & kind != 0);
            declared.fold(Object::new(), |modes, (_, mode)| {
                modes.with(mode, &Object::new())
            })
        };
        let elicitation = modes([(Self::FORM, "form"), (Self::URL, "url")]);
        let mut declared = Object::new();
        if !elicitation.is_empty() {
            declared.insert("elicitation", &elicitation);
        }
        if self.0 & Self::SAMPLING != 0 {
            let tools = modes([(Self::SAMPLING_TOOLS, "tools"), (0, "")]);
            declared.insert("sampling", &tools);
        }
        if self.0 & Self::ROOTS != 0 {
            declared.insert("roots", &Object::new());
        }
        ClientCapabilities(declared)
    }
}

/// A handle's text, unless it is longer than a header may be.
fn sealed<P: Platform>(
    context: &Context<P>,
    handle: &impl Serialize,
) -> Result<Option<String>, Error> {
    let sealer = &context.settings.sealer;
    let text = sealer.seal(context.platform.as_ref(), Purpose::Task, handle)?;
    Ok((text.len() <= HANDLE_MAX).then_some(text))
}

fn opened<P: Platform, T: DeserializeOwned>(context: &Context<P>, text: &str) -> Option<T> {
    if text.len() > HANDLE_MAX {
        return None;
    }
    context.settings.sealer.open(Purpose::Task, text)
}

/// Whether a handle is this principal's and its time is not over.
fn holds<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    (owner, created_at_ms, ttl_ms): (&PrincipalId, u64, u64),
) -> bool {
    let until = Timestamp(created_at_ms) + Duration::from_millis(ttl_ms);
    *owner == principal.id && context.now() < until
}

/// What is said of a task nobody knows, whatever the reason.
pub(crate) fn unknown() -> Error {
    Rejection::protocol(RpcError::invalid_params("unknown task")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_can_be_asked_comes_back_from_its_handle() {
        for declared in [
            "{}",
            r#"{"elicitation":{"form":{}}}"#,
            r#"{"elicitation":{"url":{}}}"#,
            r#"{"elicitation":{"form":{},"url":{}},"roots":{}}"#,
            r#"{"sampling":{}}"#,
            r#"{"elicitation":{"form":{}},"sampling":{"tools":{}},"roots":{}}"#,
        ] {
            let client = ClientCapabilities(Object::parse(declared.as_bytes()).unwrap());
            assert_eq!(Askable::of(&client).capabilities(), client, "{declared}");
        }
        let client = ClientCapabilities(Object::parse(br#"{"elicitation":{}}"#).unwrap());
        assert!(Askable::of(&client).capabilities().elicitation_form());
    }
}
