//! HTTP+SSE on both sides: a client and a server that know no later transport, one SDK's,
//! with the gateway between them.

use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::client::{python, root};
use crate::gateway::Gateway;
use crate::upstream::old_server;

pub fn trials() -> Vec<Trial> {
    vec![Trial::test(
        "old::a client of HTTP+SSE works with a server of HTTP+SSE, which asks it back",
        || {
            holds();
            Ok(())
        },
    )]
}

fn holds() {
    // Nothing says how it speaks: that is found out.
    let upstreams = json!([{ "name": "old", "url": old_server() }]);
    let gateway = Gateway::start("old", json!({ "upstreams": upstreams }));
    let output = Command::new(python("py-mcp1"))
        .arg(root().join("tests/hosts/clients/old_client.py"))
        .arg(gateway.at("/sse"))
        .env("TOKEN", gateway.token())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .expect("python starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let told: Value = serde_json::from_str(&said)
        .unwrap_or_else(|e| panic!("{e}: {said}{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(told["tools"], json!(["old__consult", "old__greet"]));
    assert_eq!(told["said"]["old__greet"], "Hello, Ada!");
    assert_eq!(told["said"]["old__consult"], "Thus spoke m-7.");
}
