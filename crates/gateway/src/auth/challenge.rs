//! `WWW-Authenticate` headers (RFC 6750 section 3, RFC 9449 section 7.1, RFC 9728 section 5.1).
//!
//! Whatever text goes in, one well-formed header line comes out.

use std::collections::BTreeSet;

use http::HeaderValue;

use super::Resource;
use crate::config::Algorithm;

/// Most bytes of scopes in a challenge for who has shown nothing. Where there are more, the
/// metadata alone says which: a header that is too long is lost on the way.
const SCOPES_MAX: usize = 2048;

/// How a token is shown (RFC 6750 section 2.1, RFC 9449 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Whoever has it may use it.
    Bearer,
    /// With a proof for each request.
    DPoP,
}

/// For a request without a token. It names no error: nothing was wrong with what was not sent;
/// `scopes` are all that anything at the resource asks for.
pub fn no_credentials(resource: &Resource, scopes: &BTreeSet<String>) -> HeaderValue {
    let bytes: usize = scopes.iter().map(|scope| scope.len() + 1).sum();
    let none = BTreeSet::new();
    let scopes = if bytes <= SCOPES_MAX { scopes } else { &none };
    Challenge::new(Scheme::Bearer)
        .scope(scopes)
        .resource(resource)
        .also_proven(resource)
        .finish()
}

/// For a token that is malformed, expired, revoked, or meant for somebody else.
pub fn invalid_token(resource: &Resource, scheme: Scheme, description: &str) -> HeaderValue {
    let challenge = Challenge::new(scheme)
        .parameter("error", "invalid_token")
        .parameter("error_description", description);
    match scheme {
        Scheme::Bearer => challenge.resource(resource).also_proven(resource),
        Scheme::DPoP => challenge.algorithms().resource(resource),
    }
    .finish()
}

/// For a proof that is missing, malformed, or of another request (RFC 9449 section 7.1).
pub fn invalid_proof(resource: &Resource, description: &str) -> HeaderValue {
    Challenge::new(Scheme::DPoP)
        .parameter("error", "invalid_dpop_proof")
        .parameter("error_description", description)
        .algorithms()
        .resource(resource)
        .finish()
}

/// For a token that is good but does not reach; `needed` is all the operation needs.
pub fn insufficient_scope(resource: &Resource, needed: &BTreeSet<String>) -> HeaderValue {
    Challenge::new(Scheme::Bearer)
        .parameter("error", "insufficient_scope")
        .scope(needed)
        .resource(resource)
        .finish()
}

struct Challenge {
    text: String,
}

impl Challenge {
    fn new(scheme: Scheme) -> Self {
        let scheme = match scheme {
            Scheme::Bearer => "Bearer",
            Scheme::DPoP => "DPoP",
        };
        Self {
            text: scheme.to_owned(),
        }
    }

    /// A second challenge, where tokens may be bound to a key. The first stays the one that
    /// every client reads.
    fn also_proven(mut self, resource: &Resource) -> Self {
        if !resource.proofs {
            return self;
        }
        self.text.push_str(", DPoP");
        self.algorithms()
    }

    /// The algorithms a proof may be signed with.
    fn algorithms(self) -> Self {
        self.parameter("algs", &Algorithm::ALL.map(Algorithm::name).join(" "))
    }

    fn resource(self, resource: &Resource) -> Self {
        self.parameter("resource_metadata", &resource.metadata_url)
    }

    fn scope(self, scopes: &BTreeSet<String>) -> Self {
        if scopes.is_empty() {
            return self;
        }
        let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
        self.parameter("scope", &scopes.join(" "))
    }

    /// Appends `name="value"` as a quoted-string (RFC 9110 section 5.6.4).
    fn parameter(mut self, name: &str, value: &str) -> Self {
        self.text
            .push_str(if self.text.ends_with('"') { ", " } else { " " });
        self.text.push_str(name);
        self.text.push_str("=\"");
        for c in value.chars() {
            match c {
                '"' | '\\' => self.text.extend(['\\', c]),
                ' '..='~' => self.text.push(c),
                // Controls would end the line, and other text has no encoding here.
                _ => self.text.push('?'),
            }
        }
        self.text.push('"');
        self
    }

    fn finish(self) -> HeaderValue {
        HeaderValue::try_from(self.text).unwrap_or_else(|_| HeaderValue::from_static("Bearer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_challenge_says_what_its_rfc_asks_for() {
        let resource = resource();
        let scopes = BTreeSet::from(["files:read".to_owned(), "files:write".to_owned()]);
        let many = (0..200).map(|number| format!("many:{number:06}")).collect();
        let metadata =
            r#"resource_metadata="https://gw.example/.well-known/oauth-protected-resource/mcp""#;
        let cases = [
            (
                no_credentials(&resource, &BTreeSet::new()),
                format!("Bearer {metadata}"),
            ),
            (
                no_credentials(&resource, &scopes),
                format!(r#"Bearer scope="files:read files:write", {metadata}"#),
            ),
            (
                no_credentials(&resource, &many),
                format!("Bearer {metadata}"),
            ),
            (
                invalid_token(&resource, Scheme::Bearer, "The token has expired."),
                format!(
                    r#"Bearer error="invalid_token", error_description="The token has expired.", {metadata}"#
                ),
            ),
            (
                insufficient_scope(&resource, &scopes),
                format!(
                    r#"Bearer error="insufficient_scope", scope="files:read files:write", {metadata}"#
                ),
            ),
        ];
        for (challenge, expected) in cases {
            assert_eq!(challenge.to_str().unwrap(), expected);
        }
    }

    #[test]
    fn where_proofs_are_taken_each_challenge_says_so() {
        let resource = Resource {
            proofs: true,
            ..resource()
        };
        let algorithms = r#"algs="RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 EdDSA""#;
        let metadata = format!(r#"resource_metadata="{}""#, resource.metadata_url);
        let error = r#"error="invalid_token", error_description="No.""#;
        let cases = [
            (
                no_credentials(&resource, &BTreeSet::new()),
                format!("Bearer {metadata}, DPoP {algorithms}"),
            ),
            (
                invalid_token(&resource, Scheme::Bearer, "No."),
                format!("Bearer {error}, {metadata}, DPoP {algorithms}"),
            ),
            (
                invalid_token(&resource, Scheme::DPoP, "No."),
                format!("DPoP {error}, {algorithms}, {metadata}"),
            ),
            (
                invalid_proof(&resource, "No."),
                format!(
                    r#"DPoP error="invalid_dpop_proof", error_description="No.", {algorithms}, {metadata}"#
                ),
            ),
        ];
        for (challenge, expected) in cases {
            assert_eq!(challenge.to_str().unwrap(), expected);
        }
    }

    #[test]
    fn no_text_can_end_a_parameter_or_the_line() {
        let hostile = [
            "a\", error=\"b",
            "a\\",
            "a\r\nSet-Cookie: b",
            "a\u{0}b",
            "käse\u{2028}",
            "\u{7f}",
        ];
        for text in hostile {
            let header = invalid_token(&resource(), Scheme::Bearer, text);
            let line = header.to_str().unwrap();
            let parameters = unquote(line);
            assert_eq!(
                parameters,
                ["error", "error_description", "resource_metadata"],
                "{line}"
            );
        }
    }

    /// The parameters' names, as a strict reader of quoted-strings sees them.
    fn unquote(line: &str) -> Vec<String> {
        let mut rest = line.strip_prefix("Bearer ").unwrap();
        let mut names = Vec::new();
        while !rest.is_empty() {
            let (name, tail) = rest.split_once("=\"").unwrap();
            names.push(name.to_owned());
            let mut escaped = false;
            let end = tail.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            rest = &tail[end.unwrap() + 1..];
            rest = rest.strip_prefix(", ").unwrap_or(rest);
        }
        names
    }

    fn resource() -> Resource {
        Resource {
            url: "https://gw.example/mcp".to_owned(),
            metadata_url: "https://gw.example/.well-known/oauth-protected-resource/mcp".to_owned(),
            proofs: false,
            tenant: None,
        }
    }
}
