//! One JSON Web Token: its text taken apart, judged by its claims, and its signature
//! checked with one key (RFC 7515, RFC 7519, RFC 8725, RFC 9068).
//!
//! Three things are refused outright because accepting them has broken others: a header
//! that names its own key, an algorithm the key was not made for, and a token of another
//! kind (an ID-JAG, a proof, a logout token) in place of an access token.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwt_simple::prelude as jwt;
use jwt_simple::prelude::{ECDSAP256PublicKeyLike, EdDSAPublicKeyLike, RSAPublicKeyLike};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::jwks::{Key, Verifier};
use super::{Refused, TOKEN_MAX};
use crate::config::{Algorithm, Issuer};
use crate::time::Timestamp;

/// How far an issuer's clock may be ahead of ours. A token that has expired gets no grace:
/// its client can have another.
pub(super) const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

/// `typ` of an access token; absent in many. Other kinds of token say so here.
const ACCESS_TOKEN_TYPES: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

/// What a token must be, to be accepted here and now.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a Issuer,
    pub(super) resource: &'a str,
    pub(super) now: Timestamp,
}

/// A token taken apart; nothing in it is verified yet.
pub(super) struct Token<'a> {
    text: &'a str,
    algorithm: Algorithm,
    key_id: Option<String>,
    claims: Map<String, Value>,
}

impl<'a> Token<'a> {
    /// Takes a token apart and refuses what can never be accepted.
    pub(super) fn parse(text: &'a str) -> Result<Self, Refused> {
        const MALFORMED: Refused = Refused("The token is not a JSON Web Token.");
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(MALFORMED);
        };
        let header = members(header).ok_or(MALFORMED)?;
        // RFC 7515 section 4.1.11: what we do not understand must not be passed over.
        if header.contains_key("crit") {
            return Err(Refused(
                "The token's header has critical parts that are not understood here.",
            ));
        }
        let kind = header
            .get("typ")
            .map(|kind| kind.as_str().unwrap_or_default());
        if kind.is_some_and(|kind| {
            !ACCESS_TOKEN_TYPES
                .iter()
                .any(|known| kind.eq_ignore_ascii_case(known))
        }) {
            return Err(Refused("The token is not an access token."));
        }
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(MALFORMED)?;
        let algorithm =
            algorithm_named(algorithm).ok_or(Refused("The token's algorithm is not accepted."))?;
        let key_id = match header.get("kid") {
            None => None,
            Some(key_id) => Some(key_id.as_str().ok_or(MALFORMED)?.to_owned()),
        };
        Ok(Self {
            text,
            algorithm,
            key_id,
            claims: members(claims).ok_or(MALFORMED)?,
        })
    }

    pub(super) const fn text(&self) -> &str {
        self.text
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    pub(super) fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.get(name)
    }

    /// The claim of exactly this name, or else the one `a.b.c` leads to through objects.
    pub(super) fn claim_at(&self, path: &str) -> Option<&Value> {
        self.claims.get(path).or_else(|| {
            let (first, rest) = path.split_once('.')?;
            rest.split('.')
                .try_fold(self.claims.get(first)?, |value, name| value.get(name))
        })
    }

    pub(super) fn issuer(&self) -> Option<&str> {
        self.claim("iss")?.as_str()
    }

    pub(super) fn expires_at(&self) -> Option<Timestamp> {
        self.time("exp").ok().flatten()
    }

    /// Judges everything but the signature.
    pub(super) fn check(&self, expected: &Expected<'_>) -> Result<(), Refused> {
        let issuer = expected.issuer;
        if !issuer.algorithms.contains(&self.algorithm) {
            return Err(Refused("The token's algorithm is not accepted."));
        }
        self.check_audience(expected)?;
        self.check_times(expected.now)?;
        // RFC 9449 section 7.1: a token bound to a key proves nothing without the proof.
        if self.claim("cnf").is_some() {
            return Err(Refused(
                "The token is bound to a key and cannot be used as a bearer token.",
            ));
        }
        let met = |(name, value): (&String, &Value)| match self.claim_at(name) {
            Some(Value::Array(values)) => values.contains(value),
            Some(found) => found == value,
            None => false,
        };
        match issuer.required_claims.iter().all(met) {
            true => Ok(()),
            false => Err(Refused("The token lacks a claim that is required here.")),
        }
    }

    fn check_audience(&self, expected: &Expected<'_>) -> Result<(), Refused> {
        let ours = |audience: &Value| {
            let Some(audience) = audience.as_str() else {
                return false;
            };
            audience == expected.resource
                || expected
                    .issuer
                    .audiences
                    .iter()
                    .any(|accepted| accepted == audience)
        };
        let meant = match self.claim("aud") {
            Some(Value::Array(audiences)) => audiences.iter().any(ours),
            Some(audience) => ours(audience),
            None => false,
        };
        if meant {
            Ok(())
        } else {
            Err(Refused("The token is not meant for this resource."))
        }
    }

    fn check_times(&self, now: Timestamp) -> Result<(), Refused> {
        let expires_at = self
            .time("exp")?
            .ok_or(Refused("The token says no time at which it ends."))?;
        if now >= expires_at {
            return Err(Refused("The token has expired."));
        }
        for name in ["nbf", "iat"] {
            if self
                .time(name)?
                .is_some_and(|from| from > now + CLOCK_SKEW_MAX)
            {
                return Err(Refused("The token is not valid yet."));
            }
        }
        Ok(())
    }

    /// A NumericDate (RFC 7519 section 2): seconds, perhaps with a fraction.
    fn time(&self, name: &str) -> Result<Option<Timestamp>, Refused> {
        let Some(value) = self.claim(name) else {
            return Ok(None);
        };
        match (value.as_u64(), value.as_f64()) {
            (Some(seconds), _) => Ok(Some(Timestamp::from_secs(seconds))),
            // Saturates: a time beyond all reckoning is the last one there is.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "not negative, and saturating"
            )]
            (None, Some(seconds)) if seconds >= 0.0 => {
                Ok(Some(Timestamp((seconds * 1000.0) as u64)))
            }
            (None, _) => Err(Refused(
                "The token has a time that is not a number of seconds.",
            )),
        }
    }

    /// Whether `key` signed this token. The key decides the algorithm; the token's word on
    /// it must agree.
    pub(super) fn is_signed_by(&self, key: &Key, expected: &Expected<'_>) -> bool {
        if key.algorithm() != self.algorithm {
            return false;
        }
        let options = Some(options(expected));
        let verified = match &key.verifier {
            Verifier::Rs256(key) => key.verify_token::<jwt::NoCustomClaims>(self.text, options),
            Verifier::Es256(key) => key.verify_token::<jwt::NoCustomClaims>(self.text, options),
            Verifier::EdDsa(key) => key.verify_token::<jwt::NoCustomClaims>(self.text, options),
        };
        verified.is_ok()
    }

    #[cfg(test)]
    pub(super) fn unsigned(claims: &Value) -> Token<'static> {
        let claims = claims.as_object().cloned().unwrap_or_default();
        Token {
            text: "",
            algorithm: Algorithm::EdDSA,
            key_id: None,
            claims,
        }
    }
}

/// What the library is to check once more, on its own reading of the token.
fn options(expected: &Expected<'_>) -> jwt::VerificationOptions {
    let mut audiences: HashSet<String> = expected.issuer.audiences.iter().cloned().collect();
    audiences.insert(expected.resource.to_owned());
    jwt::VerificationOptions {
        allowed_issuers: Some(HashSet::from([expected.issuer.issuer.clone()])),
        allowed_audiences: Some(audiences),
        time_tolerance: Some(jwt::Duration::from_secs(CLOCK_SKEW_MAX.as_secs())),
        max_token_length: Some(TOKEN_MAX),
        // Its own clock does not exist in wasm.
        artificial_time: Some(jwt::UnixTimeStamp::from_secs(expected.now.as_secs())),
        ..jwt::VerificationOptions::default()
    }
}

fn algorithm_named(name: &str) -> Option<Algorithm> {
    match name {
        "RS256" => Some(Algorithm::RS256),
        "ES256" => Some(Algorithm::ES256),
        // The second is its fully specified name (RFC 9864).
        "EdDSA" | "Ed25519" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

fn members(part: &str) -> Option<Map<String, Value>> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice::<UniqueMembers>(&json)
        .ok()
        .map(|members| members.0)
}

/// A JSON object in which no member is named twice, so that no two readers can disagree on
/// what it says (RFC 7519 section 4).
struct UniqueMembers(Map<String, Value>);

impl<'de> Deserialize<'de> for UniqueMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueMembersVisitor)
    }
}

struct UniqueMembersVisitor;

impl<'de> Visitor<'de> for UniqueMembersVisitor {
    type Value = UniqueMembers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<UniqueMembers, A::Error> {
        let mut members = Map::new();
        while let Some((name, value)) = access.next_entry::<String, Value>()? {
            if members.insert(name, value).is_some() {
                return Err(de::Error::custom("a member is named twice"));
            }
        }
        Ok(UniqueMembers(members))
    }
}

#[cfg(test)]
mod tests;
