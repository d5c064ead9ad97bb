//! One signed JSON Web Token: its text taken apart, and its signature checked with one key
//! (RFC 7515, RFC 7519, RFC 8725, RFC 9068).
//!
//! Two things are refused outright because accepting them has broken others: an algorithm
//! the key was not made for, and a token of another kind (an ID-JAG, a proof, a logout token)
//! in place of an access token. A key, or the place of one, that a header names (`jwk`, `jku`,
//! `x5c`, `x5u`) is not looked at: some issuers send one, and their published keys alone
//! count.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::Refused;
use super::claims::{Claims, Expected};
use super::jwks::Key;
use crate::config::Algorithm;

/// `typ` of an access token; absent in many. Other kinds of token say so here.
const ACCESS_TOKEN_TYPES: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

/// Whether a text is to be read as a JSON Web Token, whatever is wrong with it: three parts,
/// of which the first is an object.
pub(super) fn is_one(text: &str) -> bool {
    let header = text.split('.').next().and_then(members);
    header.is_some() && text.split('.').count() == 3
}

/// A token taken apart; nothing in it is verified yet.
pub(super) struct Token<'a> {
    text: &'a str,
    header: Claims,
    algorithm: Algorithm,
    key_id: Option<String>,
    pub(super) claims: Claims,
}

impl<'a> Token<'a> {
    /// Takes an access token apart and refuses what can never be one.
    pub(super) fn parse(text: &'a str) -> Result<Self, Refused> {
        let token = Self::take_apart(text)?;
        let known = |kind: &Value| {
            let kind = kind.as_str().unwrap_or_default();
            let is = |known: &&str| kind.eq_ignore_ascii_case(known);
            ACCESS_TOKEN_TYPES.iter().any(is)
        };
        match token.header.get("typ").is_none_or(known) {
            true => Ok(token),
            false => Err(Refused("The token is not an access token.")),
        }
    }

    /// Takes a token of any kind apart.
    pub(super) fn take_apart(text: &'a str) -> Result<Self, Refused> {
        const MALFORMED: Refused = Refused("The token is not a JSON Web Token.");
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(MALFORMED);
        };
        let header = members(header).ok_or(MALFORMED)?;
        // RFC 7515 section 4.1.11: what we do not understand must not be passed over.
        if header.get("crit").is_some() {
            return Err(Refused(
                "The token's header has critical parts that are not understood here.",
            ));
        }
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(MALFORMED)?;
        let algorithm =
            Algorithm::named(algorithm).ok_or(Refused("The token's algorithm is not accepted."))?;
        let key_id = match header.get("kid") {
            None => None,
            Some(key_id) => Some(key_id.as_str().ok_or(MALFORMED)?.to_owned()),
        };
        Ok(Self {
            text,
            header,
            algorithm,
            key_id,
            claims: members(claims).ok_or(MALFORMED)?,
        })
    }

    pub(super) const fn text(&self) -> &str {
        self.text
    }

    pub(super) const fn header(&self) -> &Claims {
        &self.header
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Judges everything but the signature.
    pub(super) fn check(&self, expected: &Expected<'_>) -> Result<(), Refused> {
        if !expected.issuer.algorithms.contains(&self.algorithm) {
            return Err(Refused("The token's algorithm is not accepted."));
        }
        self.claims.check(expected, true)
    }

    /// Whether `key` signed this token. The key decides the algorithm; the token's word on
    /// it must agree.
    pub(super) fn is_signed_by(&self, key: &Key) -> bool {
        let Some((text, signature)) = self.text.rsplit_once('.') else {
            return false;
        };
        let signature = URL_SAFE_NO_PAD.decode(signature);
        signature.is_ok_and(|signature| key.signed(text, self.algorithm, &signature))
    }
}

fn members(part: &str) -> Option<Claims> {
    Claims::parse(&URL_SAFE_NO_PAD.decode(part).ok()?)
}

#[cfg(test)]
mod tests;
