//! The one token of a request, as it was sent (RFC 6750 section 2.1, RFC 9449 section 7.1).
//! Tokens in the query or the body are never looked for.

use std::collections::BTreeSet;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tidegate_mcp::jsonrpc::RpcError;

use super::challenge::{self, Scheme};
use super::{Refused, Resource, TOKEN_MAX};
use crate::error::{Error, REFUSED, Rejection};

/// A token and how it was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Credentials<'a> {
    pub(super) scheme: Scheme,
    pub(super) token: &'a str,
}

impl<'a> Credentials<'a> {
    /// Reads the `Authorization` header, of which there must be exactly one. Who has sent none
    /// is told which scopes there are.
    pub(super) fn read(
        headers: &'a HeaderMap,
        resource: &Resource,
        scopes: impl FnOnce() -> BTreeSet<String>,
    ) -> Result<Self, Error> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let bytes = values.next().map_or(&b""[..], |value| value.as_bytes());
        // Some hosts join equal headers with a comma, which no token contains.
        if values.next().is_some() || bytes.contains(&b',') {
            let error = RpcError::new(REFUSED, "Send exactly one `Authorization` header.");
            return Err(Rejection::envelope(error).into());
        }
        let (scheme, token) = match bytes.iter().position(|byte| *byte == b' ') {
            Some(space) => (&bytes[..space], &bytes[space..]),
            None => (bytes, &b""[..]),
        };
        let scheme = if scheme.eq_ignore_ascii_case(b"bearer") {
            Scheme::Bearer
        } else if resource.proofs && scheme.eq_ignore_ascii_case(b"dpop") {
            Scheme::DPoP
        } else {
            let challenge = challenge::no_credentials(resource, &scopes());
            let reason =
                "Send `Authorization: Bearer …`; see WWW-Authenticate for where to get a token.";
            return Err(Rejection::Unauthenticated { challenge, reason }.into());
        };
        let refuse = |reason| Refused(reason).rejection(resource, scheme);
        if token.len() > TOKEN_MAX {
            return Err(refuse("The token is too long."));
        }
        let token = token.trim_ascii();
        match std::str::from_utf8(token) {
            Ok(text) if is_token68(token) => Ok(Self {
                scheme,
                token: text,
            }),
            Ok(_) | Err(_) => Err(refuse("The token is not written as a token.")),
        }
    }
}

/// RFC 6750 section 2.1: `b64token`.
fn is_token68(token: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    let padded = token.iter().rev().take_while(|byte| **byte == b'=').count();
    let text = &token[..token.len() - padded];
    !text.is_empty() && text.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn exactly_one_well_formed_bearer_token_is_read() {
        let long = format!("Bearer {}", "a".repeat(TOKEN_MAX + 1));
        let cases: [(&[&str], Result<&str, &str>); 17] = [
            (&["Bearer a.b.c"], Ok("a.b.c")),
            (&["bearer a.b.c"], Ok("a.b.c")),
            (&["BEARER   a.b.c "], Ok("a.b.c")),
            (&[], Err("no credentials")),
            (&[""], Err("no credentials")),
            (&["Basic dXNlcjpwdw=="], Err("no credentials")),
            (&["DPoP a.b.c"], Err("no credentials")),
            (&["Bearer"], Err("invalid_token")),
            (&["Bearer  "], Err("invalid_token")),
            (&["Bearer a.b.c d.e.f"], Err("invalid_token")),
            (&["Bearer ~+/-._aZ9=="], Ok("~+/-._aZ9==")),
            (&["Bearer =="], Err("invalid_token")),
            (&["Bearer a=b"], Err("invalid_token")),
            (&["Bearer a;b"], Err("invalid_token")),
            (&["Bearer a.b.c,Bearer d.e.f"], Err("bad request")),
            (&[&long], Err("invalid_token")),
            (&["Bearer a.b.c", "Bearer a.b.c"], Err("bad request")),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(read(&headers), expected.map(str::to_owned), "{values:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_no_token() {
        for bytes in [
            &b"Bearer \xff\xfe"[..],
            "Bearer käse".as_bytes(),
            b"Bearer a\tb",
        ] {
            let mut headers = HeaderMap::new();
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(bytes).unwrap());
            assert_eq!(read(&headers), Err("invalid_token"));
        }
    }

    fn read(headers: &HeaderMap) -> Result<String, &'static str> {
        let resource = Resource {
            url: "https://gw.example/mcp".to_owned(),
            metadata_url: "https://gw.example/metadata".to_owned(),
            proofs: false,
            tenant: None,
        };
        match Credentials::read(headers, &resource, BTreeSet::new) {
            Ok(credentials) => Ok(credentials.token.to_owned()),
            Err(Error::Rejection(Rejection::Unauthenticated { challenge, .. })) => {
                let challenge = challenge.to_str().unwrap();
                assert!(challenge.contains("resource_metadata="));
                Err(if challenge.contains("error=\"invalid_token\"") {
                    "invalid_token"
                } else {
                    "no credentials"
                })
            }
            Err(Error::Rejection(Rejection::Protocol { status, .. })) if status == 400 => {
                Err("bad request")
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}
