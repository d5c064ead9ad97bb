//! What is no longer accepted, at once and by what is published; and the gateway's own keys,
//! made and ended with the command line.

use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::call::{Answer, Call, send};
use crate::client::{node, root};
use crate::gateway::{ADMIN_TOKEN, Gateway, Host};
use crate::stopwatch::wait_for;
use crate::work::trial;
use crate::world::World;

/// Longest until what is published is in force: what the README says, KV's own delay being
/// nothing here, and a request to notice.
const LIST_MAX: Duration = Duration::from_secs(15 + 5);
/// The same of a gateway key.
const KEY_MAX: Duration = Duration::from_secs(30 + 5);

type Claim = fn(&Gateway);

pub fn trials(world: &Arc<World>) -> Vec<Trial> {
    let mut claims: Vec<(&str, Claim)> = vec![(
        "what an operator revokes is refused by the next request",
        at_once,
    )];
    if Host::chosen() == Host::Workerd {
        // The command line publishes through wrangler.
        claims.push((
            "a gateway key is accepted once made, and refused once revoked",
            a_gateway_key,
        ));
        claims.push((
            "a subject on the published list is refused, and accepted again when lifted",
            published,
        ));
    }
    let gateway: Arc<OnceLock<Gateway>> = Arc::default();
    let claims = claims.into_iter().map(|(name, claim)| {
        let gateway = Arc::clone(&gateway);
        trial(world, format!("revocation::{name}"), move |world| {
            claim(gateway.get_or_init(|| start(world)));
        })
    });
    claims.collect()
}

fn start(world: &World) -> Gateway {
    let settings = json!({
        "authentication": {
            "type": "jwt",
            "issuers": [{ "issuer": "http://127.0.0.1:9787", "jwksUri": "http://127.0.0.1:9787/jwks.json" }],
            "gatewayKeys": true,
            "revocation": "immediate",
        },
        "upstreams": [{ "name": "everything", "url": world.recorders().0.url() }],
    });
    Gateway::start("revocation", settings)
}

fn call(gateway: &Gateway, token: &str) -> Answer {
    send(
        &gateway.mcp(),
        &Call::tool("everything__echo")
            .with_arguments(r#"{"message":"tide"}"#)
            .with_token(token),
    )
}

/// Refused as a revoked one is.
fn is_revoked(answer: &Answer) -> bool {
    answer.status == 401 && answer.header("www-authenticate").contains("revoked")
}

/// The door, told to revoke at once.
fn revoke(gateway: &Gateway, entry: &Value, secret: &str) -> u16 {
    let told = Call::modern("tools/list", json!({}))
        .raw(&entry.to_string())
        .with_token(secret);
    send(&gateway.at("/admin/revocations"), &told).status
}

fn at_once(gateway: &Gateway) {
    let (token, other) = (
        gateway.mint_for("revoked-at-once"),
        gateway.mint_for("kept"),
    );
    assert_eq!(call(gateway, token).status, 200);
    let issuer = gateway.issuer();
    let entry = json!({ "kind": "subject", "issuer": issuer, "value": "revoked-at-once" });
    assert_eq!(
        revoke(gateway, &entry, "another-secret-of-some-length"),
        401
    );
    assert_eq!(call(gateway, token).status, 200);
    assert!((200..300).contains(&revoke(gateway, &entry, ADMIN_TOKEN)));
    let refused = call(gateway, token);
    assert!(is_revoked(&refused), "{refused:?}");
    assert_eq!(call(gateway, other).status, 200);
}

fn a_gateway_key(gateway: &Gateway) {
    let audience = gateway.mcp();
    let (key, _) = tidegate(
        gateway,
        &["keys", "create", "ships", "--audience", &audience],
    );
    let key = key.trim();
    assert_eq!(call(gateway, key).status, 200);
    let (listed, _) = tidegate(gateway, &["keys", "list"]);
    assert!(
        listed.contains("ships") && !listed.contains(key),
        "{listed}"
    );
    let id = listed.split_whitespace().next().expect("the key's id");
    tidegate(gateway, &["keys", "revoke", id]);
    wait_for("the key's end", KEY_MAX, || {
        (call(gateway, key).status == 401).then_some(())
    });
}

fn published(gateway: &Gateway) {
    let token = gateway.mint_for("on-the-list");
    assert_eq!(call(gateway, token).status, 200);
    let named = ["revoke", "--subject", "on-the-list", "--issuer"];
    let named = [&named[..], &[gateway.issuer()]].concat();
    tidegate(gateway, &named);
    wait_for("the list to be in force", LIST_MAX, || {
        is_revoked(&call(gateway, token)).then_some(())
    });
    tidegate(gateway, &[&named[..], &["--lift"]].concat());
    wait_for("the list to be lifted", LIST_MAX, || {
        (call(gateway, token).status == 200).then_some(())
    });
}

/// The command line's output and remarks, when it does as it is asked with the gateway's KV.
fn tidegate(gateway: &Gateway, arguments: &[&str]) -> (String, String) {
    // wrangler is a script that looks for node.
    let (node, path) = (node(), std::env::var("PATH").unwrap_or_default());
    let node = node.parent().expect("a folder of node");
    let output = Command::new(crate::client::tidegate())
        .args(arguments)
        .args(["--local", "--wrangler-config", "wrangler.toml"])
        .arg("--persist-to")
        .arg(gateway.folder().join("state"))
        .env("PATH", format!("{}:{path}", node.display()))
        .env("WRANGLER_SEND_METRICS", "false")
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .expect("the command starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let (said, remarks) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{arguments:?}: {said}{remarks}");
    (said, remarks)
}
