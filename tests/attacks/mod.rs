//! Tokens and requests that must not be let in, each with the exact answer it must get.
//!
//! One table for every host: the gateway on the simulator and the function on its real
//! runtime are attacked with the same rows. [`forge`] makes what an attacker could make,
//! [`authority`] is the pair of issuers the gateway trusts, the other modules hold the rows.

pub mod authority;
mod bound;
mod claims;
mod forge;
mod head;
mod opaque;
mod shape;
mod signed;

use serde_json::{Value, json};

pub use authority::Authority;
pub use forge::Stage;
pub use head::{edge, tenants};

/// An HTTP request, byte for byte.
#[derive(Debug, Clone)]
pub struct Sent {
    pub method: &'static str,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(&'static str, Vec<u8>)>,
    pub body: String,
}

impl Sent {
    /// A call of a tool, without credentials.
    pub fn call(tool: &str) -> Self {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let params = json!({ "name": tool, "arguments": { "message": "hello" }, "_meta": meta });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let headers = [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", tool),
        ];
        Self {
            method: "POST",
            target: "/mcp".to_owned(),
            headers: headers.map(|(name, value)| (name, value.into())).to_vec(),
            body: body.to_string(),
        }
    }

    /// Sends one more header.
    pub fn with(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name, value.as_ref().to_vec()));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.with("authorization", format!("Bearer {token}"))
    }

    pub fn to(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }
}

/// One row.
#[derive(Debug, Clone)]
pub struct Attack {
    pub name: String,
    /// Sent first, and let in.
    pub before: Option<Sent>,
    pub sent: Sent,
    pub status: u16,
    /// The whole `WWW-Authenticate`.
    pub challenge: Option<String>,
}

/// Every row.
pub fn table(stage: &Stage) -> Vec<Attack> {
    let mut rows = shape::rows(stage);
    rows.extend(signed::rows(stage));
    rows.extend(claims::rows(stage));
    rows.extend(bound::rows(stage));
    rows.extend(opaque::rows(stage));
    rows.extend(head::rows(stage));
    rows
}

/// What must be let in: an attack that is refused because nothing is accepted shows nothing.
pub fn controls(stage: &Stage) -> Vec<(&'static str, Sent)> {
    let call = || Sent::call(stage.tool);
    let mut good = vec![
        ("EdDSA", call().bearer(&stage.good(json!({})))),
        ("RS256", call().bearer(&stage.by_rsa(json!({})))),
        ("ES256", call().bearer(&stage.by_ec(json!({})))),
        ("PS384", call().bearer(&stage.by_pss(json!({})))),
        ("another issuer", call().bearer(&stage.by_other(json!({})))),
        ("an opaque token", call().bearer(authority::ACTIVE)),
        ("a bound token with its proof", bound::good(stage)),
    ];
    good.extend(head::forged(stage));
    good
}

/// The rest of every challenge: what the gateway says of itself.
fn tail(stage: &Stage, path: &str) -> String {
    let metadata = format!(
        r#"resource_metadata="{}/.well-known/oauth-protected-resource{path}""#,
        stage.origin
    );
    format!("{metadata}, DPoP {}", algorithms())
}

fn algorithms() -> &'static str {
    r#"algs="RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 EdDSA""#
}

impl Stage {
    fn row(&self, name: &str, sent: Sent, status: u16, challenge: Option<String>) -> Attack {
        Attack {
            name: name.to_owned(),
            before: None,
            sent,
            status,
            challenge,
        }
    }

    /// No token was shown.
    fn nothing(&self, name: &str, sent: Sent) -> Attack {
        let challenge = format!(
            r#"Bearer scope="{}", {}"#,
            forge::SCOPES,
            tail(self, "/mcp")
        );
        self.row(name, sent, 401, Some(challenge))
    }

    /// The request itself is not one.
    fn malformed(&self, name: &str, sent: Sent) -> Attack {
        self.row(name, sent, 400, None)
    }

    /// The token is refused, for this reason.
    fn token(&self, name: &str, sent: Sent, reason: &str) -> Attack {
        self.token_at(name, sent, reason, "/mcp")
    }

    fn token_at(&self, name: &str, sent: Sent, reason: &str, path: &str) -> Attack {
        let challenge = format!(
            r#"Bearer error="invalid_token", error_description="{reason}", {}"#,
            tail(self, path)
        );
        self.row(name, sent, 401, Some(challenge))
    }

    /// A bearer token is refused, for this reason.
    fn bearer(&self, name: &str, token: &str, reason: &str) -> Attack {
        self.token(name, Sent::call(self.tool).bearer(token), reason)
    }

    /// Refused in the terms of proofs.
    fn proof(&self, name: &str, sent: Sent, error: &str, reason: &str) -> Attack {
        let metadata = format!(
            r#"resource_metadata="{}/.well-known/oauth-protected-resource/mcp""#,
            self.origin
        );
        let challenge = format!(
            r#"DPoP error="{error}", error_description="{reason}", {}, {metadata}"#,
            algorithms()
        );
        self.row(name, sent, 401, Some(challenge))
    }
}

/// Lays `over` on an object; `null` takes a member away.
fn changed(mut value: Value, over: Value) -> Value {
    if let (Some(members), Value::Object(over)) = (value.as_object_mut(), over) {
        members.extend(over);
        members.retain(|_, member| !member.is_null());
    }
    value
}
