//! How the gateway gets tokens for an upstream.

use url::Url;

use super::Findings;
use super::upstreams::secret;
use crate::config::{Authentication, Config, Grant, OAuth, SignIn};

pub(super) fn oauth(at: &str, oauth: &OAuth, config: &Config, findings: &mut Findings) {
    let issuer = format!("{at}/issuer");
    match Url::parse(&oauth.issuer) {
        Ok(url) if url.query().is_none() => findings.remote_url(&issuer, &url),
        Ok(_) | Err(_) => findings.add(
            issuer,
            "is not an issuer identifier",
            "write it exactly as the authorization server's metadata does, such as https://login.example.com",
        ),
    }
    for (name, url) in [
        ("tokenEndpoint", &oauth.token_endpoint),
        ("authorizationEndpoint", &oauth.authorization_endpoint),
        ("resource", &oauth.resource),
    ] {
        if let Some(url) = url {
            findings.remote_url(&format!("{at}/{name}"), url);
        }
    }
    findings.short_text(&format!("{at}/clientId"), &oauth.client_id);
    match &oauth.client_secret {
        Some(reference) => secret(format!("{at}/clientSecret"), reference, findings),
        None if oauth.grant == Grant::User => {}
        None => findings.add(
            format!("{at}/clientSecret"),
            "is missing",
            "store it with `wrangler secret put NAME` and write ${secret:NAME} here",
        ),
    }
    findings.names(&format!("{at}/scopes"), &oauth.scopes, "scopes");
    for (index, scope) in oauth.scopes.iter().enumerate() {
        if scope.contains(' ') {
            findings.add(
                format!("{at}/scopes/{index}"),
                "is more than one scope",
                "list each scope by itself",
            );
        }
    }
    if let Some(audience) = &oauth.audience {
        findings.short_text(&format!("{at}/audience"), audience);
    }
    fits(at, oauth, findings);
    if oauth.grant != Grant::Client && matches!(config.authentication, Authentication::None) {
        findings.add(
            format!("{at}/grant"),
            "needs to know who is asking, and authentication is off",
            "use authentication of type jwt, or grant client",
        );
    }
}

pub(super) fn sign_in(at: &str, sign_in: &SignIn, findings: &mut Findings) {
    findings.short_text(&format!("{at}/clientId"), &sign_in.client_id);
    if let Some(reference) = &sign_in.client_secret {
        secret(format!("{at}/clientSecret"), reference, findings);
    }
}

/// Members that mean something with this grant only.
fn fits(at: &str, oauth: &OAuth, findings: &mut Findings) {
    if oauth.audience.is_some() && oauth.grant != Grant::Exchange {
        findings.add(
            format!("{at}/audience"),
            "is for grant exchange only",
            "remove it, or use `resource`",
        );
    }
    if oauth.grant == Grant::User {
        if oauth.token_endpoint.is_some() != oauth.authorization_endpoint.is_some() {
            findings.add(
                at,
                "names one of the authorization server's endpoints and not the other",
                "name tokenEndpoint and authorizationEndpoint, or neither",
            );
        }
    } else if oauth.authorization_endpoint.is_some() {
        findings.add(
            format!("{at}/authorizationEndpoint"),
            "is for grant user only",
            "remove it",
        );
    }
}
