//! How a token is shown: none, several, too long, in the wrong place; and what is not
//! allowed to one that is good.

use serde_json::json;

use super::forge::SCOPES;
use super::{Attack, Sent, Stage};

const UNWRITTEN: &str = "The token is not written as a token.";

pub fn rows(stage: &Stage) -> Vec<Attack> {
    let call = || Sent::call(stage.tool);
    let good = stage.good(json!({}));
    let header = |value: &[u8]| call().with("authorization", value);
    let named = |text: &str| header(text.as_bytes());
    let long = "a".repeat(16 * 1024);
    let mut rows = vec![
        stage.nothing("no credentials", call()),
        stage.nothing("an empty header", header(b"")),
        stage.nothing("a password", header(b"Basic YWRhOnB3")),
        stage.nothing("an unknown scheme", named(&format!("Token {good}"))),
        stage.nothing("no scheme", named(&good)),
        stage.nothing(
            "a scheme run into the token",
            named(&format!("Bearer{good}")),
        ),
        stage.nothing(
            "a token in the query",
            call().to(&format!("/mcp?access_token={good}")),
        ),
        stage.nothing(
            "a token in a cookie",
            call().with(
                "cookie",
                format!("access_token={good}; Authorization=Bearer {good}"),
            ),
        ),
        stage.nothing(
            "a token in another header",
            call().with("x-authorization", format!("Bearer {good}")),
        ),
        stage.nothing(
            "a token for the proxy",
            call().with("proxy-authorization", format!("Bearer {good}")),
        ),
        stage.token("a scheme alone", header(b"Bearer"), UNWRITTEN),
        stage.token(
            "two tokens in one",
            named(&format!("Bearer {good} {good}")),
            UNWRITTEN,
        ),
        stage.token(
            "a token in quotes",
            named(&format!("Bearer \"{good}\"")),
            UNWRITTEN,
        ),
        stage.token(
            "a token with a parameter",
            named(&format!("Bearer {good};a=b")),
            UNWRITTEN,
        ),
        stage.token(
            "a token with a tab in it",
            header(b"Bearer a\tb"),
            UNWRITTEN,
        ),
        stage.token(
            "a token that is only padding",
            header(b"Bearer ===="),
            UNWRITTEN,
        ),
        stage.token(
            "a token in another script",
            header("Bearer käse".as_bytes()),
            UNWRITTEN,
        ),
        stage.token(
            "a token that is too long",
            named(&format!("Bearer {long}")),
            "The token is too long.",
        ),
        stage.malformed("two headers, both good", call().bearer(&good).bearer(&good)),
        stage.malformed(
            "two headers, the second good",
            call().bearer("a.b.c").bearer(&good),
        ),
        stage.malformed(
            "two headers in one",
            named(&format!("Bearer {good}, Bearer {good}")),
        ),
        stage.malformed(
            "a good token, then a password",
            named(&format!("Bearer {good},Basic YTpi")),
        ),
    ];
    rows.extend(reach(stage));
    rows
}

/// Good tokens that do not reach.
fn reach(stage: &Stage) -> Vec<Attack> {
    let all = format!(
        r#"Bearer error="insufficient_scope", scope="{SCOPES}", resource_metadata="{}/.well-known/oauth-protected-resource/mcp""#,
        stage.origin
    );
    let rows = [
        ("no scope", json!(null)),
        ("half of the scopes", json!("harbour:read")),
        ("scopes run together", json!("harbour:readharbour:write")),
        ("scopes as a number", json!(7)),
        (
            "scopes in another case",
            json!("Harbour:Read Harbour:Write"),
        ),
        ("a wildcard", json!("harbour:*")),
    ];
    let row = |(name, scope): (&str, serde_json::Value)| {
        let token = stage.good(json!({ "scope": scope }));
        let sent = Sent::call(stage.scoped).bearer(&token);
        stage.row(
            &format!("{name} for a tool that needs two"),
            sent,
            403,
            Some(all.clone()),
        )
    };
    rows.into_iter().map(row).collect()
}
