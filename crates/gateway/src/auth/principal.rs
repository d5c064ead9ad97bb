//! Who a verified token speaks for.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Refused;
use super::claims::Claims;
use super::gateway_key::{KEY_ISSUER, KeyRecord};
use crate::config::Issuer;
use crate::seal::hex;
use crate::time::Timestamp;

/// Names a principal everywhere it owns something: 32 hexadecimal digits that follow from
/// issuer, tenant, subject and client id, and reveal none of them. Safe as a key part.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrincipalId(String);

impl PrincipalId {
    /// The principal of these digits; `None` if they cannot be a principal's.
    pub fn parse(digits: &str) -> Option<Self> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (digits.len() == 32 && digits.bytes().all(digit)).then(|| Self(digits.to_owned()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(issuer: &str, tenant: Option<&str>, subject: &str, client_id: Option<&str>) -> Self {
        let mut hash = Sha256::new();
        for part in [Some(issuer), tenant, Some(subject), client_id] {
            // An absent part differs from an empty one, and no part runs into the next.
            hash.update([u8::from(part.is_some())]);
            let part = part.unwrap_or_default();
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hex(&hash.finalize()[..16]))
    }
}

/// The subject of an accepted token, with what the token lets it do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Authorization server that vouches for it; empty when nobody does.
    pub issuer: String,
    /// The token's `sub`: a person or a workload.
    pub subject: String,
    /// The OAuth client it acts through: `client_id`, or `azp`.
    pub client_id: Option<String>,
    /// Value of the issuer's tenant claim.
    pub tenant: Option<String>,
    /// Scopes of `scope` and `scp`.
    pub scopes: BTreeSet<String>,
    /// Values of the issuer's roles claim.
    pub roles: BTreeSet<String>,
    /// The token's `jti`, or the name of a gateway key.
    pub token_id: Option<String>,
    /// When the token ends.
    pub expires_at: Option<Timestamp>,
    /// Names this principal as an owner.
    pub id: PrincipalId,
}

impl Principal {
    /// Everybody, where nobody is asked.
    pub fn anonymous() -> Self {
        Self::anonymous_of(None)
    }

    /// Everybody at one tenant's endpoint.
    pub(super) fn anonymous_of(tenant: Option<String>) -> Self {
        Self {
            id: PrincipalId::of("", tenant.as_deref(), "", None),
            issuer: String::new(),
            subject: String::new(),
            client_id: None,
            tenant,
            scopes: BTreeSet::new(),
            roles: BTreeSet::new(),
            token_id: None,
            expires_at: None,
        }
    }

    /// The holder of a gateway key. Its name, not its secret, makes it who it is, so what it
    /// owns stays its own when the secret changes.
    pub(super) fn of_key(key: &KeyRecord, here: Option<&str>) -> Self {
        let tenant = key.tenant.clone().or_else(|| here.map(str::to_owned));
        let issuer = KEY_ISSUER.to_owned();
        let subject = key.id.clone();
        Self {
            id: PrincipalId::of(&issuer, tenant.as_deref(), &subject, None),
            issuer,
            client_id: None,
            tenant,
            scopes: key.scopes.iter().cloned().collect(),
            roles: key.roles.iter().cloned().collect(),
            token_id: Some(subject.clone()),
            subject,
            expires_at: Some(Timestamp(key.expires_at_ms)),
        }
    }

    /// The principal of a verified token, shown where the URL may say whose it is: where no
    /// token of its issuer names a tenant it is of that one, for it was made for that URL
    /// alone. Else it must name it: some issuers let anybody choose an audience.
    pub(super) fn of(issuer: &Issuer, token: &Claims, here: Option<&str>) -> Result<Self, Refused> {
        let subject = text(token.get("sub"), "The token's `sub` is not a text.")?;
        let subject = subject.ok_or(Refused("The token names no subject (`sub`)."))?;
        let client_id = text(
            token.get("client_id"),
            "The token's `client_id` is not a text.",
        )?;
        let client_id = match client_id {
            Some(client_id) => Some(client_id),
            None => text(token.get("azp"), "The token's `azp` is not a text.")?,
        };
        let tenant = match issuer.tenant_claim.as_deref() {
            Some(name) => text(token.at(name), "The token's tenant is not a text.")?,
            None => here.map(str::to_owned),
        };
        if tenant.is_none() && here.is_some() {
            return Err(Refused("The token does not name its tenant."));
        }
        let mut scopes = words(token.get("scope"));
        scopes.append(&mut words(token.get("scp")));
        Ok(Self {
            id: PrincipalId::of(
                &issuer.issuer,
                tenant.as_deref(),
                &subject,
                client_id.as_deref(),
            ),
            issuer: issuer.issuer.clone(),
            subject,
            client_id,
            tenant,
            scopes,
            roles: names(token.at(&issuer.roles_claim)),
            token_id: text(token.get("jti"), "The token's `jti` is not a text.")?,
            expires_at: token.expires_at(),
        })
    }
}

/// A claim that is a text if it is there at all. An empty one says nothing.
fn text(claim: Option<&Value>, otherwise: &'static str) -> Result<Option<String>, Refused> {
    match claim {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok((!text.is_empty()).then(|| text.clone())),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(Refused(otherwise))
        }
    }
}

/// A list of names as an array of texts, or one name as a text.
fn names(claim: Option<&Value>) -> BTreeSet<String> {
    match claim {
        Some(Value::String(name)) => BTreeSet::from([name.clone()]),
        Some(Value::Array(names)) => names
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        None | Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            BTreeSet::new()
        }
    }
}

/// As [`names`], but a text is a list separated by spaces (RFC 6749 section 3.3).
fn words(claim: Option<&Value>) -> BTreeSet<String> {
    match claim {
        Some(Value::String(words)) => words
            .split(' ')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect(),
        Some(
            Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_),
        )
        | None => names(claim),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn different_parts_make_different_ids() {
        let ids = [
            PrincipalId::of("a", None, "b", None),
            PrincipalId::of("a", Some(""), "b", None),
            PrincipalId::of("a", None, "b", Some("")),
            PrincipalId::of("ab", None, "", None),
            PrincipalId::of("", None, "ab", None),
            PrincipalId::of("a", Some("b"), "", None),
            PrincipalId::of("a", None, "", Some("b")),
            Principal::anonymous().id,
        ];
        let different: BTreeSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
        for id in &ids {
            assert!(id.as_str().len() == 32 && id.as_str().bytes().all(|b| b.is_ascii_hexdigit()));
        }
    }

    #[test]
    fn scopes_and_roles_are_read_in_every_form_they_come_in() {
        let set = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<BTreeSet<_>>()
        };
        let cases = [
            (
                json!({ "scope": "a b  c" }),
                set(&["a", "b", "c"]),
                set(&[]),
            ),
            (json!({ "scp": ["a", "b"] }), set(&["a", "b"]), set(&[])),
            (
                json!({ "scp": "a b", "scope": "c" }),
                set(&["a", "b", "c"]),
                set(&[]),
            ),
            (
                json!({ "scope": 7, "roles": { "a": 1 } }),
                set(&[]),
                set(&[]),
            ),
            (
                json!({ "roles": ["admin", 3, "ops lead"] }),
                set(&[]),
                set(&["admin", "ops lead"]),
            ),
            (json!({ "roles": "ops lead" }), set(&[]), set(&["ops lead"])),
        ];
        for (claims, scopes, roles) in cases {
            let principal = principal(claims).unwrap();
            assert_eq!((principal.scopes, principal.roles), (scopes, roles));
        }
    }

    #[test]
    fn roles_and_tenant_may_lie_deeper_in_the_token() {
        let issuer = Issuer {
            roles_claim: "realm_access.roles".to_owned(),
            tenant_claim: Some("https://corp.example/tenant".to_owned()),
            ..issuer()
        };
        let claims = json!({
            "sub": "ada",
            "realm_access": { "roles": ["ops"] },
            "https://corp.example/tenant": "north",
        });
        let principal = Principal::of(&issuer, &Claims::of(&claims), None).unwrap();
        assert_eq!(principal.roles, BTreeSet::from(["ops".to_owned()]));
        assert_eq!(principal.tenant.as_deref(), Some("north"));
    }

    #[test]
    fn the_client_is_named_by_client_id_or_else_by_azp() {
        let client = |claims| principal(claims).unwrap().client_id;
        assert_eq!(
            client(json!({ "client_id": "a", "azp": "b" })).as_deref(),
            Some("a")
        );
        assert_eq!(client(json!({ "azp": "b" })).as_deref(), Some("b"));
        assert_eq!(client(json!({})), None);
    }

    #[test]
    fn a_token_whose_identity_is_unclear_has_no_principal() {
        for claims in [
            json!({ "sub": "" }),
            json!({ "sub": 7 }),
            json!({ "sub": null }),
            json!({ "client_id": 7 }),
            json!({ "tid": ["a"] }),
        ] {
            assert!(principal(claims.clone()).is_err(), "{claims}");
        }
    }

    fn principal(claims: Value) -> Result<Principal, Refused> {
        let mut all = json!({ "sub": "ada" });
        all.as_object_mut()
            .unwrap()
            .extend(claims.as_object().unwrap().clone());
        Principal::of(&issuer(), &Claims::of(&all), None)
    }

    fn issuer() -> Issuer {
        serde_json::from_value(json!({
            "issuer": "https://login.example",
            "jwksUri": "https://login.example/keys",
            "tenantClaim": "tid",
        }))
        .unwrap()
    }
}
