//! Sessions of legacy clients: who may use an id, where, and for how long.

use std::time::Duration;

use http::HeaderValue;
use serde_json::{Value, json};
use tidegate_gateway::session::{FRESH, SESSION_MAX};

use crate::converse::talk::{Client, VERSION, asking, everything, form};
use crate::world::{Ask, Said, Script, Setup, Told, World, legacy, modern};

fn world() -> World {
    Setup::new()
        .upstream("up", &Script::modern(&["ask"]))
        .start()
}

#[test]
fn any_isolate_takes_a_session_with_at_most_one_look_at_its_state_in_two_seconds() {
    let world = world();
    let client = Client::of(&world, everything());
    let looks = || world.sim.atomic.operations("");
    assert_eq!(looks(), 0, "none to open it");
    let elsewhere = world.isolate();
    for (isolate, expected) in [(&world, 1), (&elsewhere, 2)] {
        for _ in 0..5 {
            assert_eq!(isolate.call(client.tool()).status, 200);
        }
        assert_eq!(looks(), expected);
    }
    world.sim.clock.advance(FRESH - Duration::from_millis(1));
    world.call(client.tool());
    assert_eq!(looks(), 2);
    world.sim.clock.advance(Duration::from_millis(1));
    world.call(client.tool());
    elsewhere.call(client.tool());
    assert_eq!(looks(), 4);
    assert_eq!(
        world.sim.atomic.keys(),
        [""; 0],
        "nothing has changed, so nothing is kept"
    );
}

/// Everything a legacy client can send in a session.
fn everything_sent() -> Vec<(&'static str, Ask)> {
    let answer = json!({ "jsonrpc": "2.0", "id": format!("{}.1", "0".repeat(32)), "result": {} });
    let refusal = json!({ "jsonrpc": "2.0", "id": "x", "error": { "code": -1, "message": "m" } });
    let told = |method: &str| legacy(VERSION, method, json!({ "requestId": 1 }));
    let call = legacy("2025-03-26", "ping", json!({})).message;
    vec![
        (
            "a call",
            legacy(VERSION, "tools/call", json!({ "name": "up__ask" })).id(json!("mine")),
        ),
        (
            "a ping",
            legacy(VERSION, "ping", json!({})).id(json!("mine")),
        ),
        (
            "an unserved method",
            legacy(VERSION, "logging/setLevel", json!({ "level": "info" })).id(json!("mine")),
        ),
        ("an answer", Ask::post(answer.clone())),
        ("a refusal", Ask::post(refusal)),
        ("a cancellation", told("notifications/cancelled")),
        ("a notification", told("notifications/initialized")),
        ("another", told("notifications/roots/list_changed")),
        ("a batch", Ask::post(json!([call]))),
        ("a batch of answers", Ask::post(json!([answer]))),
        (
            "a batch of notifications",
            Ask::post(json!([told("notifications/initialized").message])),
        ),
        ("GET", Ask::http("GET", "/mcp")),
        ("DELETE", Ask::http("DELETE", "/mcp")),
    ]
}

/// Sends a request under any session id.
fn send(world: &World, ask: Ask, id: &[u8]) -> Told {
    let mut request = world.request(ask);
    let id = HeaderValue::from_bytes(id).unwrap();
    request.headers_mut().insert("mcp-session-id", id);
    world.serve(request)
}

#[track_caller]
fn unknown(told: &Told, case: &str) {
    assert_eq!(told.refusal(), (404, -31_000), "{case}: {told:?}");
    assert_eq!(told.reason(), "session_unknown", "{case}");
    assert!(told.headers.get("mcp-session-id").is_none());
}

#[test]
fn a_session_that_is_not_ones_own_is_unknown_whatever_is_sent_in_it() {
    let world = world();
    let own = Client::of(&world, everything()).session;
    let foreign = Client::by(&world, "ben", everything()).session;
    let params = json!({ "protocolVersion": VERSION, "capabilities": {}, "clientInfo": {} });
    let one = json!({ "sub": "ada", "aud": "https://gw.example.com/servers/up/mcp" });
    let initialize = legacy(VERSION, "initialize", params).token(&world.token(&one));
    let elsewhere = world.call(initialize.to("/servers/up/mcp"));
    let elsewhere = elsewhere.header("mcp-session-id").to_owned();
    assert!(!elsewhere.is_empty());
    let sealing = format!("{}=", "A".repeat(43));
    let stranger = Setup::new()
        .secret("TIDEGATE_SEALING_KEY", &sealing)
        .upstream("up", &Script::modern(&["ask"]))
        .start();
    let stranger = Client::of(&stranger, everything()).session;
    let changed = |at: usize| {
        let mut id = own.clone().into_bytes();
        id[at] = if id[at] == b'A' { b'B' } else { b'A' };
        id
    };
    let ids: Vec<(&str, Vec<u8>)> = vec![
        ("another principal's", foreign.into()),
        ("another endpoint's", elsewhere.into()),
        ("another deployment's", stranger.into()),
        ("tampered", changed(60)),
        ("tampered at the end", changed(own.len() - 2)),
        ("tampered at the start", changed(0)),
        ("cut", own[..own.len() - 4].into()),
        ("twice", own.repeat(2).into()),
        ("empty", Vec::new()),
        ("oversize", vec![b'A'; 5_000]),
        ("non-ASCII", "s\u{e4}ssion".into()),
        ("not text", vec![0xff, 0xfe]),
        ("a path", b"../../config".to_vec()),
    ];
    for (whose, id) in &ids {
        for (what, ask) in everything_sent() {
            let told = send(&world, ask, id);
            unknown(&told, &format!("{what} in {whose}"));
            let echoed = if told.json()["id"] == "mine" {
                "mine"
            } else {
                ""
            };
            assert_eq!(
                echoed == "mine",
                what.starts_with("a call") || what == "a ping" || what.contains("unserved"),
                "{what}"
            );
        }
    }
    assert_eq!(world.sim.atomic.operations(""), 0, "unknown without a look");
    assert_eq!(world.count("up", "tools/call"), 0);
}

#[test]
fn a_session_is_over_after_a_day() {
    let world = world();
    let client = Client::of(&world, everything());
    let send_all = |known: bool| {
        for (what, ask) in everything_sent() {
            if what == "DELETE" || what == "GET" && known {
                continue;
            }
            let told = send(&world, ask, client.session.as_bytes());
            if known {
                assert!(told.status.is_success(), "{what}: {told:?}");
            } else {
                unknown(&told, what);
            }
        }
    };
    send_all(true);
    world
        .sim
        .clock
        .advance(SESSION_MAX - Duration::from_millis(1));
    send_all(true);
    world.sim.clock.advance(Duration::from_millis(1));
    send_all(false);
}

#[test]
fn an_ended_session_is_unknown_here_at_once_and_elsewhere_soon() {
    let world = world();
    let client = Client::of(&world, everything());
    let other = Client::of(&world, everything());
    let elsewhere = world.isolate();
    let fresh = world.isolate();
    assert_eq!(elsewhere.call(client.tool()).status, 200);
    let ended = send(
        &world,
        Ask::http("DELETE", "/mcp"),
        client.session.as_bytes(),
    );
    assert!(
        ended.status.is_success() && ended.text.is_empty(),
        "{ended:?}"
    );
    for (what, ask) in everything_sent() {
        unknown(&send(&world, ask.clone(), client.session.as_bytes()), what);
        unknown(&send(&fresh, ask, client.session.as_bytes()), what);
    }
    elsewhere.sim.clock.advance(FRESH);
    for (what, ask) in everything_sent() {
        unknown(&send(&elsewhere, ask, client.session.as_bytes()), what);
    }
    assert_eq!(world.call(other.tool()).status, 200, "others go on");
    let keys = world.sim.atomic.keys();
    assert_eq!(keys.len(), 1);
    world.sim.clock.advance(SESSION_MAX);
    assert_eq!(
        world.sim.atomic.keys(),
        [""; 0],
        "kept no longer than the id"
    );
}

#[test]
fn without_a_session_nothing_changes() {
    let world = world();
    for (what, ask) in everything_sent() {
        let told = world.ask(ask);
        let expected = if matches!(what, "GET" | "DELETE") {
            405
        } else if told.text.is_empty() {
            202
        } else {
            200
        };
        assert_eq!(told.status, expected, "{what}: {told:?}");
        assert!(told.headers.get("mcp-session-id").is_none(), "{what}");
    }
    assert_eq!(world.sim.atomic.operations(""), 0);
}

#[test]
fn to_modern_clients_a_session_id_means_nothing() {
    let world = world();
    let ended = Client::of(&world, everything());
    send(
        &world,
        Ask::http("DELETE", "/mcp"),
        ended.session.as_bytes(),
    );
    for id in [ended.session.as_bytes(), b"x", b"", &[0xff]] {
        for method in ["tools/list", "server/discover"] {
            let told = send(&world, modern(method, json!({})), id);
            assert_eq!(told.status, 200);
            assert!(told.headers.get("mcp-session-id").is_none());
        }
        let cancel = legacy(
            VERSION,
            "notifications/cancelled",
            json!({ "requestId": 1 }),
        );
        let told = send(
            &world,
            cancel.header("mcp-protocol-version", "2026-07-28"),
            id,
        );
        assert_eq!(told.status, 202, "{told:?}");
    }
}

#[test]
fn without_its_store_a_session_is_served_but_cannot_be_ended() {
    let world = world();
    let client = Client::of(&world, everything());
    world.sim.atomic.faults.outage(true);
    for (what, ask) in everything_sent() {
        if what == "GET" {
            continue;
        }
        let told = send(&world, ask, client.session.as_bytes());
        match what {
            "DELETE" => assert_eq!(told.status, 500, "{told:?}"),
            // A store that cannot be asked may hold the mailbox it is for.
            "an answer" | "a cancellation" | "a batch of answers" => {
                assert_eq!(told.status, 500, "{what}")
            }
            "an unserved method" => assert_eq!(told.code(), -32603),
            _ => assert!(told.status.is_success(), "{what}: {told:?}"),
        }
    }
    let ask = Ask::http("DELETE", "/mcp").header("mcp-session-id", &client.session);
    assert_eq!(world.ask(ask).code(), -32603);
    world.sim.atomic.faults.outage(false);
    assert_eq!(world.call(client.tool()).status, 200);
}

#[test]
fn a_session_of_2025_03_26_takes_batches() {
    let world = world();
    let params = json!({ "protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } });
    let told = world.call(legacy("2025-03-26", "initialize", params));
    let session = told.header("mcp-session-id").to_owned();
    let call = |id: u32| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "up__ask" } });
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let batch = json!([call(1), note, call(2)]);
    let told = send(&world, Ask::post(batch), session.as_bytes());
    assert_eq!(told.status, 200);
    let ids: Vec<&Value> = told
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| &answer["id"])
        .collect();
    assert_eq!(ids, [1, 2]);
    assert_eq!(world.audits().len(), 3);
}

#[test]
fn capabilities_of_any_size_make_an_id_of_a_bounded_one() {
    let (script, _) = asking(&[("elicitation/create", form())]);
    let world = Setup::new().upstream("up", &script).start();
    let mut large = everything();
    large["experimental"] = json!({ "x": "y".repeat(100_000) });
    large["sampling"] = json!({ "tools": {}, "context": {}, "filler": "z".repeat(2_000) });
    let client = Client::of(&world, large);
    assert!(client.session.len() < 4_096, "{}", client.session.len());
    assert_eq!(client.call().question()["method"], "elicitation/create");
    let kept = json!({ "roots": {}, "sampling": { "context": {}, "tools": {} }, "elicitation": { "form": {}, "url": {} } });
    let declared = world.bodies("up", "initialize");
    assert_eq!(declared.last().unwrap()["params"]["capabilities"], kept);
    for odd in [
        json!(null),
        json!(5),
        json!([]),
        json!({ "elicitation": null, "roots": 5, "sampling": [] }),
    ] {
        let client = Client::of(&world, odd);
        client.call().end();
    }
}

#[test]
fn an_initialize_that_takes_long_names_its_session_all_the_same() {
    let world = world();
    let slow = world.isolate();
    world.server("up").head_delay.set(Duration::from_secs(7));
    let params = json!({ "protocolVersion": VERSION, "capabilities": {}, "clientInfo": {} });
    let told = slow.call(legacy(VERSION, "initialize", params));
    assert!(told.streamed());
    let session = told.header("mcp-session-id").as_bytes().to_vec();
    let ping = legacy(VERSION, "ping", json!({}));
    assert_eq!(send(&world, ping, &session).status, 200);
}

#[test]
fn a_session_remembers_the_revision_where_no_header_says_it() {
    let script = Script::modern(&["ask"]);
    script.on("tools/call", |_| {
        let audio = json!({ "type": "audio", "data": "AAAA", "mimeType": "audio/wav" });
        let link = json!({ "type": "resource_link", "uri": "file:///a", "name": "a" });
        Said::Result(json!({ "resultType": "complete", "content": [audio, link] }))
    });
    let world = Setup::new().upstream("up", &script).start();
    for (version, kinds) in [
        ("2024-11-05", ["text", "text"]),
        ("2025-03-26", ["audio", "text"]),
        ("2025-06-18", ["audio", "resource_link"]),
        (VERSION, ["audio", "resource_link"]),
    ] {
        let params = json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": {} });
        let told = world.call(legacy(version, "initialize", params));
        let session = told.header("mcp-session-id").as_bytes().to_vec();
        let call = legacy("2025-03-26", "tools/call", json!({ "name": "up__ask" }));
        let told = send(&world, call, &session);
        let told = told.result()["content"].as_array().unwrap();
        let told: Vec<&Value> = told.iter().map(|block| &block["type"]).collect();
        assert_eq!(told, kinds, "{version}");
    }
}
