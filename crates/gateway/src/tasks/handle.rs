//! Handles of tasks: sealed, and self-describing. Whose task it is, of which tool, and how
//! long it can be read is known without a store, so that a foreign, expired or forged handle
//! is refused in the same words as an unknown one and costs no read.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tidegate_mcp::jsonrpc::RpcError;

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
        let sealer = &context.settings.sealer;
        let text = sealer.seal(context.platform.as_ref(), Purpose::Task, self)?;
        match text.len() {
            ..=HANDLE_MAX => Ok(text),
            _ => Err(Fault::Internal("a task handle is too long".to_owned()).into()),
        }
    }

    /// What a handle says, if it is this principal's and its time is not over.
    pub(crate) fn open<P: Platform>(
        context: &Context<P>,
        principal: &Principal,
        text: &str,
    ) -> Option<Self> {
        if text.len() > HANDLE_MAX {
            return None;
        }
        let handle: Self = context.settings.sealer.open(Purpose::Task, text)?;
        let until = Timestamp(handle.created_at_ms) + Duration::from_millis(handle.ttl_ms);
        (handle.owner == principal.id && context.now() < until).then_some(handle)
    }

    /// Whether it was given for a task of this.
    pub(crate) fn is_of(&self, of: &Of<'_>) -> bool {
        self.of == of.digest()
    }
}

/// What is said of a task nobody knows, whatever the reason.
pub(crate) fn unknown() -> Error {
    Rejection::protocol(RpcError::invalid_params("unknown task")).into()
}
