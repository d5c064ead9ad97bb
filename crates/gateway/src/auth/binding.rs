//! What a token is bound to (RFC 7800 `cnf`): a key of the client's, proven for each request
//! (RFC 9449), or its TLS certificate (RFC 8705).
//!
//! A token that is bound is never taken for a bearer token, and one bound in a way that is
//! not understood here is refused: whoever bound it meant it not to work without.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::challenge::Scheme;
use super::claims::Claims;
use super::{Refused, Sha256Digest};
use crate::config::{Binding, Issuer};

const KEY: &str = "jkt";
const CERTIFICATE: &str = "x5t#S256";

const UNKNOWN: Refused = Refused("The token is bound to something unknown.");

/// Judges everything but the proof itself.
pub(super) fn check(
    issuer: &Issuer,
    claims: &Claims,
    scheme: Scheme,
    certificate: Option<&Sha256Digest>,
) -> Result<(), Refused> {
    let none = Map::new();
    let bound = match claims.get("cnf") {
        None => &none,
        Some(Value::Object(bound)) if !bound.is_empty() => bound,
        Some(_) => return Err(UNKNOWN),
    };
    let known = |(name, value): (&String, &Value)| {
        (name == KEY || name == CERTIFICATE) && value.is_string()
    };
    if !bound.iter().all(known) {
        return Err(UNKNOWN);
    }
    check_key(bound.contains_key(KEY), issuer.dpop, scheme)?;
    check_certificate(bound.get(CERTIFICATE), issuer.mtls, certificate)
}

const fn check_key(bound: bool, binding: Binding, scheme: Scheme) -> Result<(), Refused> {
    match (bound, binding, scheme) {
        (true, Binding::Off, _) | (true, _, Scheme::Bearer) => Err(Refused(
            "The token is bound to a key and cannot be used as a bearer token.",
        )),
        (false, _, Scheme::DPoP) => Err(Refused("The token is not bound to a key.")),
        (false, Binding::Require, Scheme::Bearer) => {
            Err(Refused("Only tokens bound to a key are accepted here."))
        }
        (true, Binding::Accept | Binding::Require, Scheme::DPoP)
        | (false, Binding::Off | Binding::Accept, Scheme::Bearer) => Ok(()),
    }
}

fn check_certificate(
    bound: Option<&Value>,
    binding: Binding,
    certificate: Option<&Sha256Digest>,
) -> Result<(), Refused> {
    let shown = certificate.map(|digest| Value::String(URL_SAFE_NO_PAD.encode(digest)));
    match (bound, binding) {
        (Some(_), Binding::Off) => Err(Refused(
            "The token is bound to a certificate, and none is asked for here.",
        )),
        (Some(bound), Binding::Accept | Binding::Require) if shown.as_ref() != Some(bound) => Err(
            Refused("The token is bound to another certificate than this connection's."),
        ),
        (None, Binding::Require) => Err(Refused(
            "Only tokens bound to the client's certificate are accepted here.",
        )),
        (Some(_), Binding::Accept | Binding::Require) | (None, Binding::Off | Binding::Accept) => {
            Ok(())
        }
    }
}

/// The thumbprint of the key a token is bound to.
pub(super) fn key(claims: &Claims) -> Option<&str> {
    claims.get("cnf")?.get(KEY)?.as_str()
}
