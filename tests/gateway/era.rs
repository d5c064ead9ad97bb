//! Which era an upstream speaks: what is evidence, what is not, and how long it holds.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::platform::HttpError;

use crate::world::{Answer, Said, Script, Setup, World, modern, tool};

#[test]
fn a_modern_upstream_is_discovered_and_never_initialized() {
    let world = upstream(&Script::modern(&["a"]));
    assert_eq!(world.tool("up__a").status, 200);
    assert_eq!(world.tool("up__a").status, 200);
    assert_eq!(
        world.asked("up"),
        ["server/discover", "tools/list", "tools/call", "tools/call"]
    );
}

#[test]
fn an_upstream_that_does_not_know_discovery_is_initialized() {
    let bodies: [(&str, &[u8]); 5] = [
        (
            "application/json",
            br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request"}}"#,
        ),
        (
            "application/json",
            br#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Missing session ID"}}"#,
        ),
        ("application/json", br#"{"error":"invalid"}"#),
        ("text/html", b"<html>Not here</html>"),
        ("text/plain", b""),
    ];
    for status in [400, 404, 405] {
        for (kind, body) in bodies {
            let script = Script::legacy("2025-06-18", &["a"]);
            script.on("server/discover", move |_| {
                Said::Raw(status, kind, body.to_vec())
            });
            let world = upstream(&script);
            assert_eq!(world.tool("up__a").status, 200, "{status} {kind}");
            let expected = [
                "server/discover",
                "initialize",
                "notifications/initialized",
                "tools/list",
                "tools/call",
            ];
            assert_eq!(world.asked("up"), expected, "{status} {kind}");
        }
    }
    let script = Script::legacy("2025-06-18", &["a"]);
    script.on("server/discover", |_| Said::Error(-32601));
    assert_eq!(
        upstream(&script).tool("up__a").status,
        200,
        "some answer under 200"
    );
}

#[test]
fn an_answer_only_a_modern_server_gives_is_proof_of_one() {
    for code in [-32020, -32021, -32022] {
        let script = Script::modern(&["a"]);
        script.on("server/discover", move |heard| {
            let data = json!({ "supported": ["2027-01-01"], "requested": "2026-07-28", "requiredCapabilities": {} });
            let error = json!({ "code": code, "message": "no", "data": data });
            Said::Refusal(400, json!({ "jsonrpc": "2.0", "id": heard.message["id"], "error": error }))
        });
        let world = upstream(&script);
        let told = world.tool("up__a");
        assert_eq!(
            (told.status.as_u16(), told.reason()),
            (502, "upstream_invalid"),
            "{code}"
        );
        assert_eq!(
            world.asked("up"),
            ["server/discover"],
            "{code}: nothing about initialize"
        );
    }
}

#[test]
fn refused_credentials_failures_and_silence_say_nothing_of_the_era() {
    let answers: [(&str, Answer, &str); 8] = [
        (
            "401",
            |_| Said::Raw(401, "text/plain", Vec::new()),
            "upstream_unauthorized",
        ),
        (
            "403",
            |_| Said::Raw(403, "application/json", b"{}".to_vec()),
            "upstream_unauthorized",
        ),
        (
            "500",
            |_| Said::Raw(500, "text/plain", Vec::new()),
            "upstream_invalid",
        ),
        (
            "503 in JSON-RPC",
            |_| {
                Said::Refusal(
                    503,
                    json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32603, "message": "x" } }),
                )
            },
            "upstream_invalid",
        ),
        (
            "a page",
            |_| Said::Raw(200, "text/html", b"<html>".to_vec()),
            "upstream_invalid",
        ),
        (
            "a reset",
            |_| Said::NoAnswer(HttpError::MaybeSent("reset".to_owned())),
            "upstream_unavailable",
        ),
        (
            "no connection",
            |_| Said::NoAnswer(HttpError::NotSent("refused".to_owned())),
            "upstream_unavailable",
        ),
        (
            "silence",
            |_| Said::After(Duration::from_secs(3600), Box::new(Said::Error(1))),
            "upstream_timeout",
        ),
    ];
    for (what, answer, reason) in answers {
        let script = Script::modern(&["a"]);
        script.on("server/discover", answer);
        script.on("initialize", |_| panic!("no evidence of an older upstream"));
        let world = upstream(&script);
        assert_eq!(world.tool("up__a").reason(), reason, "{what}");
        script.off("server/discover");
        assert_eq!(
            world.tool("up__a").status,
            200,
            "{what}: asked again, nothing was remembered"
        );
    }
}

#[test]
fn a_verdict_is_shared_with_other_isolates() {
    for script in [Script::modern(&["a"]), Script::legacy("2025-11-25", &["a"])] {
        let world = upstream(&script);
        assert_eq!(world.tool("up__a").status, 200);
        world.settle();
        let other = world.isolate();
        assert_eq!(other.tool("up__a").status, 200);
        assert_eq!(world.count("up", "server/discover"), 1);
    }
}

#[test]
fn a_legacy_verdict_expires_so_that_an_upgrade_is_noticed() {
    let script = Script::legacy("2025-11-25", &["a"]);
    let world = upstream(&script);
    assert_eq!(world.tool("up__a").status, 200);
    world.step_deferred();
    world.sim.clock.advance(Duration::from_secs(599));
    assert_eq!(world.tool("up__a").status, 200);
    assert_eq!(world.count("up", "server/discover"), 1);
    world.sim.clock.advance(Duration::from_secs(1));
    script.upgrade("2026-07-28");
    assert_eq!(world.tool("up__a").status, 200);
    assert_eq!(world.count("up", "server/discover"), 2);
    let version = world.exchanges("up").pop().unwrap().headers["mcp-protocol-version"].clone();
    assert_eq!(version, "2026-07-28");
}

#[test]
fn an_upgraded_upstream_that_forgot_its_sessions_is_not_lost_until_then() {
    let script = Script::legacy("2025-11-25", &["a"]);
    let world = upstream(&script);
    assert_eq!(world.tool("up__a").status, 200);
    world.sim.clock.advance(Duration::from_secs(60));
    script.upgrade("2026-07-28");
    script.on("tools/call", |heard| match heard.header("mcp-session-id") {
        "" => Said::Result(crate::world::complete("modern")),
        _ => Said::Raw(404, "text/plain", Vec::new()),
    });
    assert_eq!(
        world.tool("up__a").said(),
        "modern",
        "it is asked anew what it is"
    );
    assert_eq!(world.tool("up__a").said(), "modern", "and that is kept");
    assert_eq!(world.count("up", "server/discover"), 2);
}

#[test]
fn a_modern_verdict_is_looked_at_again_after_an_hour() {
    let world = upstream(&Script::modern(&["a"]));
    assert_eq!(world.tool("up__a").status, 200);
    world.later(Duration::from_secs(3599));
    world.tool("up__a");
    assert_eq!(world.count("up", "server/discover"), 1);
    world.later(Duration::from_secs(1));
    world.tool("up__a");
    assert_eq!(world.count("up", "server/discover"), 2);
}

#[test]
fn a_configured_era_is_not_doubted() {
    let legacy = Script::legacy("2025-06-18", &["a"]);
    let world = Setup::new()
        .upstream_with("up", &legacy, &json!({ "era": "legacy" }))
        .start();
    assert_eq!(world.tool("up__a").status, 200);
    assert_eq!(world.count("up", "server/discover"), 0);
    let world = Setup::new()
        .upstream_with("up", &legacy, &json!({ "era": "modern" }))
        .start();
    assert_eq!(world.tool("up__a").reason(), "upstream_invalid");
    assert_eq!(world.count("up", "initialize"), 0);
}

#[test]
fn an_upstream_at_another_url_is_another_upstream() {
    let script = Script::legacy("2025-11-25", &["a"]);
    let world = upstream(&script);
    assert_eq!(world.tool("up__a").status, 200);
    world.settle();
    let moved = json!({ "url": "https://up.example.com/v2/mcp" });
    world.sim.kv.publish(
        "config",
        Setup::new().upstream_with("up", &script, &moved).snapshot(),
    );
    world.sim.clock.advance(Duration::from_secs(31));
    world.tool("up__a");
    world.settle();
    assert_eq!(world.tool("up__a").status, 200);
    assert_eq!(world.count("up", "server/discover"), 2);
}

#[test]
fn what_kv_holds_of_an_upstream_is_a_hint_and_no_more() {
    let world = upstream(&Script::modern(&["a"]));
    assert_eq!(world.tool("up__a").status, 200);
    world.settle();
    let key = world
        .sim
        .kv
        .keys()
        .into_iter()
        .find(|key| key.starts_with("upstream/"))
        .unwrap();
    for garbage in ["", "{}", "[]", "{\"v\":99}", "\u{0}"] {
        world.sim.kv.publish(&key, garbage);
        assert_eq!(world.isolate().tool("up__a").status, 200, "{garbage:?}");
    }
    let other = world.isolate();
    other.sim.kv.faults.outage(true);
    // No configuration either: that comes from KV alone.
    assert_eq!(other.tool_status(), 503);
}

#[test]
fn an_upstream_that_answers_initialize_oddly_is_an_error_in_words() {
    let answers: [(&str, Value); 3] = [
        ("no version", json!({ "capabilities": {} })),
        (
            "an unknown version",
            json!({ "protocolVersion": "1999-01-01", "capabilities": {} }),
        ),
        (
            "a modern version",
            json!({ "protocolVersion": "2026-07-28", "capabilities": {} }),
        ),
    ];
    for (what, result) in answers {
        let script = Script::legacy("2025-06-18", &["a"]);
        script.on("initialize", move |_| Said::Result(result.clone()));
        assert_eq!(
            upstream(&script).tool("up__a").reason(),
            "upstream_invalid",
            "{what}"
        );
    }
    let script = Script::legacy("2025-06-18", &["a"]);
    script.on("initialize", |_| Said::Error(-32603));
    assert_eq!(upstream(&script).tool("up__a").reason(), "upstream_invalid");
}

#[test]
fn discovery_may_come_as_a_stream() {
    let script = Script::modern(&["a"]);
    script.on("server/discover", |heard| {
        let result = json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} } });
        Said::Stream(vec![crate::world::Step::Send(heard.response(&result))])
    });
    assert_eq!(
        upstream(&script)
            .call(modern("tools/list", json!({})))
            .names(),
        ["up__a"]
    );
}

fn upstream(script: &Script) -> World {
    Setup::new().upstream("up", script).start()
}

impl World {
    fn tool_status(&self) -> u16 {
        self.ask(tool("up__a")).status.as_u16()
    }
}
