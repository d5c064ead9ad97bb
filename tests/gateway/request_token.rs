//! Tools that take only calls their caller's orchestrator has signed.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::platform::Clock;
use tidegate_gateway::request_token::Asked;

use crate::world::{Ask, Script, Setup, Told, World, issuer, legacy, modern, tool};

const SECRET: &str = "the orchestrator's own secret, of 44 bytes..";
const OLD: &str = "the secret of before, which is 40 bytes.";

/// What a token says, and how it is made.
#[derive(Clone)]
struct Call {
    secret: &'static str,
    issuer: &'static str,
    tenant: Option<&'static str>,
    subject: &'static str,
    tool: &'static str,
    arguments: Value,
    age: i64,
    nonce: String,
}

fn call(nonce: &str) -> Call {
    Call {
        secret: SECRET,
        issuer: issuer::ISSUER,
        tenant: Some("acme"),
        subject: "sam",
        tool: "pay__send",
        arguments: json!({ "to": "ada", "amount": 100 }),
        age: 0,
        nonce: nonce.to_owned(),
    }
}

impl Call {
    fn token(&self, world: &World) -> String {
        let now = i64::try_from(world.sim.clock.now().as_secs()).unwrap();
        let arguments = serde_json::value::to_raw_value(&self.arguments).unwrap();
        let asked = Asked {
            issuer: self.issuer,
            tenant: self.tenant,
            subject: self.subject,
            tool: self.tool,
            arguments: &arguments,
        };
        let seconds = u64::try_from(now - self.age).unwrap();
        asked.sign(self.secret, seconds, &self.nonce).unwrap()
    }
}

fn world() -> World {
    let script = Script::modern(&["send", "see"]);
    let token = json!({
        "secret": "${secret:ORCHESTRATOR}", "previousSecret": "${secret:ORCHESTRATOR_BEFORE}", "maxAgeSeconds": 30,
    });
    Setup::new()
        .upstream("pay", &script)
        .rule(json!({ "name": "pay__send", "requestToken": token }))
        .config(&json!({ "authentication": { "type": "jwt", "issuers": [{
            "issuer": issuer::ISSUER, "jwksUri": format!("{}/keys", issuer::ISSUER), "tenantClaim": "tenant",
        }] } }))
        .secret("ORCHESTRATOR", SECRET)
        .secret("ORCHESTRATOR_BEFORE", OLD)
        .start()
}

/// The call the tokens are for, and its caller.
fn send(world: &World) -> Ask {
    let sam = world.token(&json!({ "sub": "sam", "tenant": "acme" }));
    tool("pay__send")
        .param("arguments", json!({ "amount": 100, "to": "ada" }))
        .token(&sam)
}

fn with(world: &World, token: &str) -> Told {
    world.call(send(world).header("tidegate-request-token", token))
}

#[track_caller]
fn refused(told: &Told, why: &str) {
    assert_eq!(told.status, 403, "{told:?}");
    let data = &told.error()["data"];
    assert_eq!(
        (&data["reason"], &data["requestToken"]),
        (&json!("request_token"), &json!(why)),
        "{told:?}"
    );
}

#[test]
fn a_signed_call_goes_through_once() {
    let world = world();
    let token = call("a").token(&world);
    assert_eq!(with(&world, &token).status, 200);
    refused(&with(&world, &token), "replayed");
    refused(&with(&world.isolate(), &token), "replayed");
    let carried = |token: &str| send(&world).meta("io.tidegate/requestToken", json!(token));
    assert_eq!(world.call(carried(&call("b").token(&world))).status, 200);
    refused(&world.call(carried(&token)), "replayed");
    // The same twice is one token.
    let both = call("c").token(&world);
    let told = world.call(carried(&both).header("tidegate-request-token", &both));
    assert_eq!(told.status, 200, "{told:?}");
    // The upstream hears of none of it.
    for exchange in world.exchanges("pay") {
        let said = format!(
            "{:?} {}",
            exchange.headers,
            String::from_utf8_lossy(&exchange.body())
        );
        assert!(
            !said.contains("equest-token") && !said.contains("requestToken"),
            "{said}"
        );
    }
    assert_eq!(world.count("pay", "tools/call"), 3);
}

#[test]
fn a_token_is_for_this_call_by_this_caller_and_now() {
    let world = world();
    let rows: Vec<(&str, Call)> = vec![
        (
            "forged",
            Call {
                secret: "another secret, also of 40 bytes or more",
                ..call("a")
            },
        ),
        (
            "forged",
            Call {
                issuer: "https://other.example.com",
                ..call("b")
            },
        ),
        (
            "forged",
            Call {
                tenant: Some("globex"),
                ..call("c")
            },
        ),
        (
            "forged",
            Call {
                tenant: None,
                ..call("d")
            },
        ),
        (
            "forged",
            Call {
                subject: "ada",
                ..call("e")
            },
        ),
        (
            "forged",
            Call {
                tool: "pay__see",
                ..call("f")
            },
        ),
        (
            "forged",
            Call {
                tool: "pay__*",
                ..call("g")
            },
        ),
        (
            "forged",
            Call {
                arguments: json!({ "to": "ada", "amount": 101 }),
                ..call("h")
            },
        ),
        (
            "forged",
            Call {
                arguments: json!({ "to": "ada" }),
                ..call("i")
            },
        ),
        (
            "forged",
            Call {
                arguments: json!({ "to": "ada", "amount": "100" }),
                ..call("j")
            },
        ),
        (
            "expired",
            Call {
                age: 30,
                ..call("k")
            },
        ),
        (
            "expired",
            Call {
                age: 86_400,
                ..call("l")
            },
        ),
        (
            "expired",
            Call {
                age: -32,
                ..call("m")
            },
        ),
        (
            "",
            Call {
                age: 29,
                ..call("n")
            },
        ),
        (
            "",
            Call {
                age: -29,
                ..call("o")
            },
        ),
        (
            "",
            Call {
                secret: OLD,
                ..call("p")
            },
        ),
    ];
    for (why, one) in rows {
        let told = with(&world, &one.token(&world));
        match why {
            "" => assert_eq!(told.status, 200, "{}: {told:?}", one.nonce),
            why => refused(&told, why),
        }
    }
    let good = call("q").token(&world);
    let spoiled = |from: &str, to: &str| good.replacen(from, to, 1);
    for (why, token) in [
        ("malformed", String::new()),
        ("malformed", "v1".to_owned()),
        ("malformed", spoiled("v1", "v2")),
        ("malformed", format!("{good}, {good}")),
        ("malformed", format!("{good}=")),
        ("forged", spoiled(".q.", ".r.")),
        ("forged", format!("{}A", &good[..good.len() - 1])),
    ] {
        let token = if token == good {
            spoiled(".q.", ".s.")
        } else {
            token
        };
        refused(&with(&world, &token), why);
    }
    refused(&world.call(send(&world)), "missing");
    let twice = send(&world)
        .header("tidegate-request-token", &good)
        .also("tidegate-request-token", &good);
    refused(&world.call(twice), "malformed");
    let differ = send(&world)
        .header("tidegate-request-token", &good)
        .meta("io.tidegate/requestToken", json!("v1"));
    refused(&world.call(differ), "malformed");
    refused(
        &world.call(send(&world).meta("io.tidegate/requestToken", json!(7))),
        "malformed",
    );
    assert_eq!(world.count("pay", "tools/call"), 3);
    // Nothing of this used the good one up.
    assert_eq!(with(&world, &good).status, 200);
}

#[test]
fn arguments_are_compared_by_what_they_are_and_not_by_how_they_are_written() {
    let world = world();
    let sam = world.token(&json!({ "sub": "sam", "tenant": "acme" }));
    let written = |arguments: &str, nonce: &str| {
        let token = call(nonce).token(&world);
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"pay__send","arguments":{arguments},"_meta":{{
              "io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
        );
        world.call(
            tool("pay__send")
                .token(&sam)
                .body(body)
                .header("tidegate-request-token", &token),
        )
    };
    assert_eq!(
        written(r#"{ "amount": 1.0e2, "to": "\u0061da" }"#, "a").status,
        200
    );
    refused(
        &written(r#"{"amount":100,"to":"ada","more":null}"#, "b"),
        "forged",
    );
    refused(
        &written(r#"{"amount":{"x":1,"x":1},"to":"ada"}"#, "c"),
        "arguments",
    );
    refused(
        &written(r#"{"amount":100.00000000000000001,"to":"ada"}"#, "d"),
        "arguments",
    );
}

#[test]
fn a_tool_that_needs_one_is_listed_and_others_need_none() {
    let world = world();
    assert_eq!(world.list("tools/list"), ["pay__send", "pay__see"]);
    assert_eq!(world.tool("pay__see").status, 200);
    // Of no use there, it does no harm there either, and goes no further.
    let told = world.call(tool("pay__see").meta("io.tidegate/requestToken", json!("x")));
    assert_eq!(told.status, 200);
    assert!(
        !world
            .bodies("pay", "tools/call")
            .iter()
            .any(|body| body.to_string().contains("requestToken"))
    );
}

#[test]
fn each_call_of_an_older_client_needs_one_too() {
    let world = world();
    let sam = world.token(&json!({ "sub": "sam", "tenant": "acme" }));
    let params = json!({ "name": "pay__send", "arguments": { "to": "ada", "amount": 100 } });
    let ask = || legacy("2025-11-25", "tools/call", params.clone()).token(&sam);
    refused(&world.call(ask()), "missing");
    let told = world.call(ask().meta("io.tidegate/requestToken", json!(call("a").token(&world))));
    assert_eq!(told.status, 200, "{told:?}");
}

#[test]
fn a_token_is_used_up_only_by_a_call_that_is_made() {
    let world = Setup::new()
        .upstream("pay", &Script::modern(&["send"]))
        .rule(
            json!({ "name": "pay__send", "rateLimit": { "requests": 1, "windowMs": 60_000 },
            "requestToken": { "secret": "${secret:ORCHESTRATOR}", "maxAgeSeconds": 600 } }),
        )
        .secret("ORCHESTRATOR", SECRET)
        .start();
    let send = |nonce: &str| {
        let call = Call {
            tenant: None,
            subject: "ada",
            arguments: json!({}),
            ..call(nonce)
        };
        let ask = modern(
            "tools/call",
            json!({ "name": "pay__send", "arguments": {} }),
        );
        ask.header("tidegate-request-token", &call.token(&world))
    };
    let (first, second) = (send("a"), send("b"));
    assert_eq!(world.call(first).status, 200);
    assert_eq!(world.call(second.clone()).status, 429);
    world.later(Duration::from_secs(121));
    assert_eq!(world.call(second).status, 200);
}

#[test]
fn while_nobody_knows_what_was_used_nothing_is_accepted() {
    let world = world();
    let token = call("a").token(&world);
    world.sim.atomic.faults.outage(true);
    assert_eq!(with(&world, &token).status, 500);
    world.sim.atomic.faults.outage(false);
    assert_eq!(world.count("pay", "tools/call"), 0);
    assert_eq!(with(&world, &token).status, 200);
}
