//! Signing in at an authorization server nobody here wrote: npm `oidc-provider`, found by
//! its own metadata, with the SDKs' own code for discovery, PKCE and step-up.

use std::sync::{Arc, OnceLock};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::client::{Client, Request, node, root};
use crate::gateway::Gateway;
use crate::upstream::oidc_provider;
use crate::work::trial;
use crate::world::{World, text, texts};

/// What the gateway is at the authorization server.
const CLIENT: (&str, &str) = ("gateway", "a secret between the two of them");

pub fn trials(world: &Arc<World>) -> Vec<Trial> {
    let gateway: Arc<OnceLock<Gateway>> = Arc::default();
    let mut trials = Vec::new();
    for client in [Client::Npm1, Client::Npm2] {
        let gateway = Arc::clone(&gateway);
        let name = format!(
            "login::{}: signs in, then steps up for a tool that needs more",
            client.label()
        );
        trials.push(trial(world, name, move |world| {
            steps_up(gateway.get_or_init(|| start(world)), client);
        }));
    }
    let shared = Arc::clone(&gateway);
    trials.push(trial(
        world,
        "login::npm mcp-remote signs in by itself".to_owned(),
        move |world| remote_signs_in(shared.get_or_init(|| start(world))),
    ));
    trials.push(trial(
        world,
        "login::a token proven with npm jose is taken, its copy is not, and opaque ones are asked about".to_owned(),
        move |world| bound_and_opaque(gateway.get_or_init(|| start(world))),
    ));
    trials
}

fn start(world: &World) -> Gateway {
    let issuer = oidc_provider(CLIENT);
    let introspection = json!({
        "endpoint": format!("{issuer}/token/introspection"),
        "clientId": CLIENT.0,
        "clientSecret": "${secret:IDP_SECRET}",
    });
    let settings = json!({
        "authentication": { "type": "jwt", "issuers": [
            { "issuer": issuer, "dpop": "accept", "introspection": introspection },
        ] },
        "upstreams": [{ "name": "everything", "url": world.recorders().0.url() }],
        "tools": [
            { "name": "everything__get-sum", "requiredScopes": ["harbour:write"] },
            { "name": "everything__echo", "requiredScopes": ["harbour:read"] },
        ],
    });
    let secret = format!("IDP_SECRET={}", CLIENT.1);
    Gateway::start_with("login", settings, &["--own-issuers", "--secret", &secret])
}

fn steps_up(gateway: &Gateway, client: Client) {
    let seen = client.run_one(&Request {
        url: gateway.mcp(),
        scenarios: "step_up",
        ..Request::default()
    });
    let told = seen.ok();
    assert_eq!(told["resource"], gateway.mcp(), "{told}");
    assert_eq!(told["echo"], "Echo: ahoy", "{told}");
    assert_eq!(told["refused"], "UnauthorizedError", "{told}");
    let asked = text(told, "/asked");
    assert!(
        asked.split(' ').any(|scope| scope == "harbour:write"),
        "{told}"
    );
    assert!(text(told, "/sum").contains('5'), "{told}");
    let challenge = text(seen.response(403), "/challenge");
    assert!(
        challenge.starts_with(r#"Bearer error="insufficient_scope", scope="harbour:write", "#),
        "{challenge}"
    );
}

/// Runs a script that prints one JSON line.
fn script(name: &str, arguments: &[&str]) -> Value {
    let output = std::process::Command::new(node())
        .arg(root().join("tests/hosts/clients").join(name))
        .args(arguments)
        .output()
        .expect("node starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|e| {
        panic!(
            "{name}: {e}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

fn remote_signs_in(gateway: &Gateway) {
    let told = script("mcp_remote_login.mjs", &[&gateway.mcp()]);
    assert!(
        texts(&told, "/names").contains(&"everything__echo"),
        "{told}"
    );
    assert_eq!(told["authorized"], true, "{told}");
}

fn bound_and_opaque(gateway: &Gateway) {
    let told = script(
        "bound.mjs",
        &[&gateway.mcp(), &gateway.server("everything")],
    );
    let expected = json!({
        "type": "DPoP",
        "proven": 200,
        "copied": [401, "invalid_dpop_proof"],
        "as bearer": [401, "invalid_token"],
        "elsewhere": [401, "invalid_dpop_proof"],
        "opaque": 200,
        "opaque elsewhere": [401, "invalid_token"],
    });
    assert_eq!(told, expected);
}
