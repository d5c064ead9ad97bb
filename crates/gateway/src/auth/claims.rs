//! What is said of a token, by itself or by its issuer: judged the same way whichever it is
//! (RFC 7519, RFC 7662, RFC 9068).

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{Refused, Resource};
use crate::config::Issuer;
use crate::time::Timestamp;

/// How far an issuer's clock may be ahead of ours. A token that has expired gets no grace:
/// its client can have another.
pub(super) const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

/// What a token must be, to be accepted here and now.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a Issuer,
    pub(super) resource: &'a Resource,
    pub(super) now: Timestamp,
}

/// A JSON object in which no member is named twice, so that no two readers can disagree on
/// what it says (RFC 7519 section 4).
#[derive(Debug, Clone)]
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// The members of an object in JSON.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The claim of exactly this name, or else the one `a.b.c` leads to through objects.
    pub(super) fn at(&self, path: &str) -> Option<&Value> {
        self.0.get(path).or_else(|| {
            let (first, rest) = path.split_once('.')?;
            rest.split('.')
                .try_fold(self.0.get(first)?, |value, name| value.get(name))
        })
    }

    pub(super) fn issuer(&self) -> Option<&str> {
        self.get("iss")?.as_str()
    }

    /// The tenant it says it is of, where its issuer's tokens say so.
    pub(super) fn tenant(&self, issuer: &Issuer) -> Option<&str> {
        let said = self.at(issuer.tenant_claim.as_deref()?)?.as_str();
        said.filter(|said| !said.is_empty())
    }

    /// Whether the issuer may have said this, and where it is shown now.
    pub(super) fn may_be_of(&self, issuer: &Issuer, here: Option<&str>) -> bool {
        issuer.is_known_at(here) && issuer.speaks_for(self.tenant(issuer).or(here))
    }

    pub(super) fn expires_at(&self) -> Option<Timestamp> {
        self.time("exp").ok().flatten()
    }

    /// Where no subject is named, the client acts for itself (RFC 7662 leaves `sub` out
    /// where RFC 9068 repeats the client in it).
    pub(super) fn of_a_workload(mut self) -> Self {
        if let (false, Some(client)) = (self.0.contains_key("sub"), self.0.get("client_id")) {
            let client = client.clone();
            self.0.insert("sub".to_owned(), client);
        }
        self
    }

    /// Judges audience, times and the claims the configuration asks for. Whoever says when
    /// a token ends each time it is asked need not say it in the token.
    pub(super) fn check(&self, expected: &Expected<'_>, ends: bool) -> Result<(), Refused> {
        self.check_audience(expected)?;
        self.check_times(expected.now, ends)?;
        let met = |(name, value): (&String, &Value)| match self.at(name) {
            Some(Value::Array(values)) => values.contains(value),
            Some(found) => found == value,
            None => false,
        };
        match expected.issuer.required_claims.iter().all(met) {
            true => Ok(()),
            false => Err(Refused("The token lacks a claim that is required here.")),
        }
    }

    fn check_audience(&self, expected: &Expected<'_>) -> Result<(), Refused> {
        let Expected {
            issuer, resource, ..
        } = expected;
        // At one tenant's URL a token must be meant for that URL, or else say whose it is:
        // what is meant for all of the gateway does not say.
        let general = resource.tenant.is_none() || self.tenant(issuer).is_some();
        let ours = |audience: &Value| {
            audience.as_str().is_some_and(|audience| {
                audience == resource.url
                    || general && issuer.audiences.iter().any(|accepted| accepted == audience)
            })
        };
        let meant = match self.get("aud") {
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

    fn check_times(&self, now: Timestamp, ends: bool) -> Result<(), Refused> {
        let expires_at = self.time("exp")?;
        if ends && expires_at.is_none() {
            return Err(Refused("The token says no time at which it ends."));
        }
        if expires_at.is_some_and(|expires_at| now >= expires_at) {
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
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, Refused> {
        let Some(value) = self.get(name) else {
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

    #[cfg(test)]
    pub(super) fn of(claims: &Value) -> Self {
        Self(claims.as_object().cloned().unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueMembers)
    }
}

struct UniqueMembers;

impl<'de> Visitor<'de> for UniqueMembers {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Claims, A::Error> {
        let mut members = Map::new();
        while let Some((name, value)) = access.next_entry::<String, Value>()? {
            if members.insert(name, value).is_some() {
                return Err(de::Error::custom("a member is named twice"));
            }
        }
        Ok(Claims(members))
    }
}
