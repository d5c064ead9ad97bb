//! The development issuer: an OAuth authorization server on loopback that says yes.
//!
//! It exists so that `cargo xtask dev` needs no identity provider. It signs with a key made
//! on first run, serves the key set the gateway reads, and lets a real MCP client log in
//! without a human: registration, authorization with PKCE, and tokens for the resource the
//! client names (RFC 8414, 7591, 7636, 8707, 9207). Nothing but a gateway whose
//! configuration says `environment: dev` should ever be told to trust it.

pub mod grants;
pub mod keys;

use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::http::{self, Request, Response, form};
use crate::issuer::grants::Grants;
use crate::issuer::keys::{Claims, Signer};

/// The port tried first, so that tokens outlive a restart.
pub const PORT: u16 = 9787;

/// How long a token lasts: a working day.
pub const TOKEN_SECONDS: u64 = 12 * 3600;

/// A running issuer.
pub struct Issuer {
    url: String,
    signer: Arc<Signer>,
}

impl Issuer {
    /// Starts serving on `port` or the next free one, in threads of this process.
    pub fn start(signer: Signer, port: u16, default_audience: &str) -> Result<Self> {
        let listener: TcpListener = http::listen_from(port)?;
        let url = format!("http://{}", listener.local_addr()?);
        let signer = Arc::new(signer);
        let server = Server {
            url: url.clone(),
            default_audience: default_audience.to_owned(),
            signer: Arc::clone(&signer),
            grants: Mutex::default(),
        };
        http::serve(listener, move |request| server.answer(&request));
        Ok(Self { url, signer })
    }

    /// The issuer identifier: its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Signs a token for `claims`.
    pub fn mint(&self, claims: &Claims) -> Result<String> {
        self.signer.sign(claims)
    }
}

struct Server {
    url: String,
    default_audience: String,
    signer: Arc<Signer>,
    grants: Mutex<Grants>,
}

impl Server {
    fn answer(&self, request: &Request) -> Response {
        // A page of another site must not talk to this issuer through a browser, neither
        // by name rebinding nor across origins.
        let host = request.header("host").unwrap_or_default();
        let origin = request.header("origin");
        if !is_loopback(host) || origin.is_some_and(|o| !is_loopback_origin(o)) {
            return Response::json(403, &json!({"error": "access_denied"}));
        }
        let response = self.route(request);
        match origin {
            Some(origin) => response
                .header("access-control-allow-origin", origin)
                .header("access-control-allow-headers", "*")
                .header("vary", "origin"),
            None => response,
        }
    }

    fn route(&self, request: &Request) -> Response {
        match (request.method.as_str(), request.path.as_str()) {
            ("OPTIONS", _) => Response::empty(204),
            (
                "GET",
                "/.well-known/openid-configuration" | "/.well-known/oauth-authorization-server",
            ) => Response::json(200, &self.metadata()),
            ("GET", "/jwks.json") => Response::json(200, &self.signer.key_set()),
            ("POST", "/register") => register(&request.body),
            ("GET", "/authorize") => self.authorize(&request.query),
            ("POST", "/token") => self.token(&request.body),
            _ => Response::json(404, &json!({"error": "not_found"})),
        }
    }

    fn metadata(&self) -> Value {
        let url = &self.url;
        json!({
            "issuer": url,
            "authorization_endpoint": format!("{url}/authorize"),
            "token_endpoint": format!("{url}/token"),
            "registration_endpoint": format!("{url}/register"),
            "jwks_uri": format!("{url}/jwks.json"),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "client_credentials"],
            "token_endpoint_auth_methods_supported":
                ["none", "client_secret_post", "client_secret_basic"],
            "code_challenge_methods_supported": ["S256"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "authorization_response_iss_parameter_supported": true,
        })
    }

    fn authorize(&self, query: &str) -> Response {
        let asked = form::parse(query);
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        match grants.authorize(&asked) {
            Ok((redirect, code)) => {
                let separator = if redirect.contains('?') { '&' } else { '?' };
                let mut location = format!("{redirect}{separator}code={code}");
                if let Some(state) = asked.get("state") {
                    location.push_str(&format!("&state={}", form::encode(state)));
                }
                location.push_str(&format!("&iss={}", form::encode(&self.url)));
                Response::empty(302).header("location", &location)
            }
            Err(error) => oauth_error(&error),
        }
    }

    fn token(&self, body: &[u8]) -> Response {
        let asked = form::parse(&String::from_utf8_lossy(body));
        let granted = {
            let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
            grants.redeem(&asked)
        };
        let signed = granted.and_then(|granted| {
            let audience = granted
                .resource
                .as_deref()
                .unwrap_or(&self.default_audience);
            let mut claims = Claims::new(&self.url, audience);
            claims.set("client_id", granted.client.into());
            if let Some(scope) = granted.scope {
                claims.set("scope", scope.into());
            }
            let scope = claims.get("scope").cloned();
            Ok((self.signer.sign(&claims)?, scope))
        });
        match signed {
            Ok((token, scope)) => Response::json(
                200,
                &json!({
                    "access_token": token,
                    "token_type": "Bearer",
                    "expires_in": TOKEN_SECONDS,
                    "scope": scope,
                }),
            )
            .header("cache-control", "no-store"),
            Err(error) => oauth_error(&error),
        }
    }
}

fn oauth_error(error: &anyhow::Error) -> Response {
    let text = error.to_string();
    let (code, description) = text.split_once(": ").unwrap_or(("invalid_request", &text));
    Response::json(
        400,
        &json!({"error": code, "error_description": description}),
    )
}

fn register(body: &[u8]) -> Response {
    let registered = grants::register(body);
    match registered {
        Ok(client) => Response::json(201, &client),
        Err(error) => oauth_error(&error),
    }
}

/// Whether `host[:port]` names this machine.
fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|b| b.is_ascii_digit()) {
            name
        } else {
            host
        }
    });
    matches!(name, "127.0.0.1" | "localhost" | "[::1]")
}

fn is_loopback_origin(origin: &str) -> bool {
    origin.strip_prefix("http://").is_some_and(is_loopback)
}

/// Checks that a redirect leads back to this machine and nowhere else.
fn loopback_redirect(redirect: &str) -> Result<()> {
    let authority = redirect
        .strip_prefix("http://")
        .and_then(|rest| rest.split(['/', '?', '#']).next());
    match authority {
        Some(authority) if is_loopback(authority) => Ok(()),
        _ => bail!("invalid_request: redirect_uri must be an http URL on loopback"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9787",
            "localhost:1",
            "[::1]:80",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "127.0.0.1.example.com:80",
            "localhost@evil:80",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_redirect_to_another_machine_is_refused() {
        assert!(loopback_redirect("http://127.0.0.1:3000/callback?x=1").is_ok());
        assert!(loopback_redirect("http://localhost/cb").is_ok());
        for redirect in [
            "https://example.com/cb",
            "http://example.com/cb",
            "http://127.0.0.1@example.com/",
            "http://example.com#127.0.0.1",
            "cursor://callback",
        ] {
            assert!(loopback_redirect(redirect).is_err(), "{redirect}");
        }
    }
}
