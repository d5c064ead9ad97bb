//! Sealed tokens: what the gateway hands to clients and must recognise later.
//!
//! Cursors, task handles, request state and session ids are encrypted and authenticated
//! (XChaCha20-Poly1305), so a client can neither read nor alter them, and any isolate can
//! open them without a store. The purpose is authenticated too: a cursor is no handle.
//! A deployment has one current key and may keep the previous one for opening.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::error::Fault;
use crate::platform::{Platform, Secret};

/// Secret that holds the current sealing key: 32 bytes in standard Base64.
pub const SEALING_KEY: &str = "TIDEGATE_SEALING_KEY";
/// Secret that holds the key used before, still accepted for opening.
pub const SEALING_KEY_PREVIOUS: &str = "TIDEGATE_SEALING_KEY_PREVIOUS";
/// Longest sealed text that is opened, in bytes; longer ones are refused unread.
pub const SEALED_MAX: usize = 64 * 1024;

const FORMAT: u8 = 1;
const KEY_ID: usize = 4;
const NONCE: usize = 24;
const HEAD: usize = 1 + KEY_ID + NONCE;

/// What a sealed token is for; one cannot be used as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A place in a list.
    Cursor,
    /// A task handle.
    Task,
    /// The state of a multi round-trip request.
    RequestState,
    /// A legacy client's session id.
    Session,
    /// Tokens for an upstream, as the atomic store keeps them.
    Grant,
    /// The link a user follows to connect an account at an upstream.
    Link,
    /// The `state` of an authorization request to an upstream's authorization server.
    Authorization,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Cursor => b"tidegate cursor",
            Self::Task => b"tidegate task",
            Self::RequestState => b"tidegate request state",
            Self::Session => b"tidegate session",
            Self::Grant => b"tidegate grant",
            Self::Link => b"tidegate link",
            Self::Authorization => b"tidegate authorization",
        }
    }
}

/// The deployment's sealing keys, the current one first.
pub struct Sealer {
    keys: Vec<SealingKey>,
}

struct SealingKey {
    id: [u8; KEY_ID],
    cipher: XChaCha20Poly1305,
    fingerprint: [u8; 32],
}

impl Sealer {
    /// Reads the deployment's keys from the platform's secrets.
    pub async fn load<P: Platform>(platform: &P) -> Result<Self, Fault> {
        let Some(current) = platform.secret(SEALING_KEY).await.map_err(Fault::unread)? else {
            return Err(Fault::SecretMissing(format!(
                "{SEALING_KEY} is not set; create one with `openssl rand -base64 32`"
            )));
        };
        let mut keys = vec![SealingKey::parse(SEALING_KEY, &current)?];
        let previous = platform.secret(SEALING_KEY_PREVIOUS).await;
        if let Some(previous) = previous.map_err(Fault::unread)? {
            keys.push(SealingKey::parse(SEALING_KEY_PREVIOUS, &previous)?);
        }
        Ok(Self { keys })
    }

    /// Seals `value` for `purpose`; the text is URL- and header-safe.
    pub fn seal<P: Platform>(
        &self,
        platform: &P,
        purpose: Purpose,
        value: &impl Serialize,
    ) -> Result<String, Fault> {
        let [key, ..] = self.keys.as_slice() else {
            return Err(Fault::SecretMissing(SEALING_KEY.to_owned()));
        };
        let plain =
            serde_json::to_vec(value).map_err(|e| Fault::Internal(format!("sealing: {e}")))?;
        let mut nonce = [0; NONCE];
        platform.random(&mut nonce);
        let sealed = key
            .cipher
            .encrypt(
                XNonce::from_slice(&nonce),
                Payload {
                    msg: &plain,
                    aad: purpose.label(),
                },
            )
            .map_err(|_| Fault::Internal("sealing failed".to_owned()))?;
        let mut token = Vec::with_capacity(HEAD + sealed.len());
        token.push(FORMAT);
        token.extend_from_slice(&key.id);
        token.extend_from_slice(&nonce);
        token.extend_from_slice(&sealed);
        Ok(URL_SAFE_NO_PAD.encode(token))
    }

    /// Opens what was sealed for `purpose`; `None` for anything else, without saying why.
    pub fn open<T: DeserializeOwned>(&self, purpose: Purpose, token: &str) -> Option<T> {
        if token.len() > SEALED_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        if bytes.len() < HEAD || bytes[0] != FORMAT {
            return None;
        }
        let (id, nonce, sealed) = (&bytes[1..=KEY_ID], &bytes[1 + KEY_ID..HEAD], &bytes[HEAD..]);
        let key = self.keys.iter().find(|key| key.id == id)?;
        let plain = key
            .cipher
            .decrypt(
                XNonce::from_slice(nonce),
                Payload {
                    msg: sealed,
                    aad: purpose.label(),
                },
            )
            .ok()?;
        serde_json::from_slice(&plain).ok()
    }

    /// Keyed fingerprint of `bytes`, 32 hexadecimal digits: equal inputs can be told,
    /// inputs cannot be guessed from it without the key.
    pub fn fingerprint(&self, bytes: &[u8]) -> String {
        let Some(mut mac) = self
            .keys
            .first()
            .and_then(|key| <Hmac<Sha256> as Mac>::new_from_slice(&key.fingerprint).ok())
        else {
            return String::new();
        };
        mac.update(bytes);
        hex(&mac.finalize().into_bytes()[..16])
    }
}

impl SealingKey {
    fn parse(name: &str, secret: &Secret) -> Result<Self, Fault> {
        let bytes = STANDARD
            .decode(secret.expose().trim())
            .ok()
            .filter(|bytes| bytes.len() == 32);
        let Some(bytes) = bytes else {
            return Err(Fault::SecretMissing(format!(
                "{name} is not 32 bytes in Base64"
            )));
        };
        let digest = Sha256::digest(&bytes);
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&digest[..KEY_ID]);
        let mut labelled = Sha256::new();
        labelled.update(b"tidegate fingerprint");
        labelled.update(&bytes);
        Ok(Self {
            id,
            cipher: XChaCha20Poly1305::new(Key::from_slice(&bytes)),
            fingerprint: labelled.finalize().into(),
        })
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)])
        .collect()
}
