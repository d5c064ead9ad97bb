//! `WWW-Authenticate` headers for bearer tokens (RFC 6750 section 3, RFC 9728 section 5.1).
//!
//! Whatever text goes in, one well-formed header line comes out.

use std::collections::BTreeSet;

use http::HeaderValue;

use super::Resource;

/// For a request without a token. It names no error: nothing was wrong with what was not sent.
pub fn no_credentials(resource: &Resource, scopes: &BTreeSet<String>) -> HeaderValue {
    Challenge::new().scope(scopes).resource(resource).finish()
}

/// For a token that is malformed, expired, revoked, or meant for somebody else.
pub fn invalid_token(resource: &Resource, description: &str) -> HeaderValue {
    Challenge::new()
        .parameter("error", "invalid_token")
        .parameter("error_description", description)
        .resource(resource)
        .finish()
}

/// For a token that is good but does not reach; `needed` is all the operation needs.
pub fn insufficient_scope(resource: &Resource, needed: &BTreeSet<String>) -> HeaderValue {
    Challenge::new()
        .parameter("error", "insufficient_scope")
        .scope(needed)
        .resource(resource)
        .finish()
}

struct Challenge {
    text: String,
}

impl Challenge {
    fn new() -> Self {
        Self {
            text: "Bearer".to_owned(),
        }
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
                invalid_token(&resource, "The token has expired."),
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
            let header = invalid_token(&resource(), text);
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
        }
    }
}
