//! Sessions with legacy upstreams: one for each principal, kept while in use, closed after.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Said, Script, Setup, Step, World, complete, legacy, tool};

const IDLE: Duration = Duration::from_secs(10);

#[test]
fn a_session_is_opened_once_and_used_for_every_call_of_its_principal() {
    let (world, _) = world();
    for _ in 0..3 {
        assert_eq!(world.tool("files__a").status, 200);
    }
    assert_eq!(
        world
            .call(legacy(
                "2025-06-18",
                "tools/call",
                json!({ "name": "files__a" })
            ))
            .status,
        200
    );
    assert_eq!(
        (
            world.count("files", "initialize"),
            world.count("files", "notifications/initialized")
        ),
        (1, 1)
    );
    for exchange in world.exchanges("files").iter().skip(2) {
        assert_eq!(exchange.headers["mcp-session-id"], "session-1");
        assert_eq!(exchange.headers["mcp-protocol-version"], "2025-06-18");
    }
}

#[test]
fn principals_never_share_a_session() {
    let (world, _) = world();
    for subject in ["ada", "ben", "ada", "ben"] {
        assert_eq!(world.call(tool("files__a").by(subject)).status, 200);
    }
    assert_eq!(world.count("files", "initialize"), 2);
    let sessions = sessions_of_calls(&world);
    assert_eq!(
        sessions,
        ["session-1", "session-2", "session-1", "session-2"]
    );
}

#[test]
fn what_the_client_declared_is_not_declared_for_the_gateway() {
    let (world, _) = world();
    let capabilities =
        json!({ "elicitation": {}, "sampling": {}, "roots": {}, "extensions": { "x/y": {} } });
    world.call(tool("files__a").meta("clientCapabilities", capabilities));
    let initialize = &world.bodies("files", "initialize")[0]["params"];
    assert_eq!(
        initialize["capabilities"],
        json!({}),
        "nobody could answer what it asked"
    );
    assert_eq!(initialize["clientInfo"]["name"], "edge");
    assert_eq!(initialize["protocolVersion"], "2025-11-25");
}

#[test]
fn a_lost_session_is_opened_again_and_the_call_made_once_more() {
    let (world, script) = world();
    assert_eq!(world.tool("files__a").status, 200);
    script.lose_sessions();
    assert_eq!(world.tool("files__a").said(), "CANARY-RESULT a");
    assert_eq!(
        (
            world.count("files", "initialize"),
            world.count("files", "tools/call")
        ),
        (2, 3)
    );
    assert_eq!(
        world.tool("files__a").status,
        200,
        "and the new one is kept"
    );
    assert_eq!(world.count("files", "initialize"), 2);
}

#[test]
fn a_session_lost_again_at_once_is_an_error_and_not_a_loop() {
    let (world, script) = world();
    script.on("tools/call", |_| Said::Raw(404, "text/plain", Vec::new()));
    assert_eq!(world.tool("files__a").reason(), "upstream_invalid");
    assert_eq!(
        (
            world.count("files", "initialize"),
            world.count("files", "tools/call")
        ),
        (2, 2)
    );
}

#[test]
fn a_refusal_of_the_call_itself_is_not_a_lost_session() {
    let (world, script) = world();
    script.on("tools/call", |heard| {
        let error = json!({ "code": -32602, "message": "Unknown argument" });
        Said::Refusal(
            400,
            json!({ "jsonrpc": "2.0", "id": heard.message["id"], "error": error }),
        )
    });
    let told = world.tool("files__a");
    assert_eq!(
        (told.code(), told.error()["message"].as_str()),
        (-32602, Some("Unknown argument"))
    );
    assert_eq!(
        (
            world.count("files", "initialize"),
            world.count("files", "tools/call")
        ),
        (1, 1)
    );
}

#[test]
fn a_400_about_the_session_is_a_lost_session() {
    let (world, script) = world();
    let refused = std::cell::Cell::new(false);
    script.on("tools/call", move |_| {
        if refused.replace(true) {
            return Said::Result(complete("again"));
        }
        Said::Refusal(400, json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32000, "message": "No valid session ID" } }))
    });
    assert_eq!(world.tool("files__a").said(), "again");
    assert_eq!(world.count("files", "initialize"), 2);
}

#[test]
fn an_idle_session_is_closed() {
    let (world, script) = world();
    assert_eq!(world.tool("files__a").status, 200);
    assert_eq!(script.sessions(), 1);
    world.settle();
    assert_eq!(script.sessions(), 0);
    let delete = world.exchanges("files").pop().unwrap();
    assert_eq!(
        (delete.method.as_str(), &delete.headers["mcp-session-id"]),
        ("DELETE", &"session-1".parse().unwrap())
    );
    assert_eq!(
        world.tool("files__a").status,
        200,
        "the next call opens another"
    );
    assert_eq!(world.count("files", "initialize"), 2);
}

#[test]
fn a_session_is_not_closed_under_a_running_call() {
    let script = Script::legacy("2025-06-18", &["a"]);
    script.on("tools/call", |_| {
        Said::After(IDLE * 3, Box::new(Said::Result(complete("slow"))))
    });
    let world = Setup::new()
        .upstream_with("files", &script, &json!({ "timeoutMs": 60_000 }))
        .start();
    let mut running = world.start(tool("files__a"));
    assert!(running.step().is_none());
    let mut told = None;
    for _ in 0..600 {
        world.sim.clock.advance(Duration::from_millis(100));
        // The host lets deferred work run beside the call.
        world.step_deferred();
        told = running.step();
        if told.is_some() {
            break;
        }
        assert_eq!(
            world.count("files", "DELETE"),
            0,
            "closed under a running call"
        );
    }
    assert_eq!(told.unwrap().status(), 200);
}

#[test]
fn a_session_that_was_busy_for_long_is_closed_when_it_is_idle_at_last() {
    let (world, script) = world();
    for _ in 0..30 {
        assert_eq!(world.tool("files__a").status, 200);
        for _ in 0..20 {
            world.sim.clock.advance(Duration::from_millis(100));
            world.step_deferred();
        }
    }
    assert_eq!(world.count("files", "initialize"), 1, "in use all the time");
    for _ in 0..300 {
        world.sim.clock.advance(Duration::from_millis(100));
        world.step_deferred();
    }
    assert_eq!(script.sessions(), 0, "closed within its time");
}

#[test]
fn looking_at_the_health_of_an_upstream_leaves_no_session_behind() {
    let (world, script) = world();
    for _ in 0..5 {
        world.ask(crate::world::Ask::http("GET", "/health/deep"));
        world.sim.clock.advance(Duration::from_secs(11));
    }
    world.settle();
    assert_eq!(script.sessions(), 0);
}

#[test]
fn an_upstream_without_sessions_gets_none() {
    let script = Script::legacy("2025-03-26", &["a"]);
    script.sessionless();
    let world = Setup::new().upstream("files", &script).start();
    assert_eq!(world.tool("files__a").status, 200);
    world.settle();
    assert!(
        world
            .exchanges("files")
            .iter()
            .all(|exchange| exchange.headers.get("mcp-session-id").is_none())
    );
    assert_eq!(world.count("files", "DELETE"), 0);
}

#[test]
fn each_isolate_has_sessions_of_its_own() {
    let (world, script) = world();
    let other = world.isolate();
    world.tool("files__a");
    other.tool("files__a");
    assert_eq!(script.sessions(), 2);
    world.settle();
    other.settle();
    assert_eq!(script.sessions(), 0);
}

#[test]
fn an_upstream_that_asks_back_is_answered_and_goes_on() {
    for (method, answered) in [
        ("elicitation/create", false),
        ("sampling/createMessage", false),
        ("roots/list", false),
        ("vendor/unknown", false),
        ("ping", true),
    ] {
        let script = Script::legacy("2025-06-18", &["a"]);
        let heard_answer = std::rc::Rc::new(std::cell::RefCell::new(None));
        let (hearing, waiting) = (
            std::rc::Rc::clone(&heard_answer),
            std::rc::Rc::clone(&heard_answer),
        );
        script.on("", move |heard| {
            *hearing.borrow_mut() = Some(heard.message.clone());
            Said::Raw(202, "text/plain", Vec::new())
        });
        script.on("tools/call", move |heard| {
            let ask = json!({ "jsonrpc": "2.0", "id": "q-1", "method": method, "params": {} });
            let (waiting, end) = (
                std::rc::Rc::clone(&waiting),
                heard.response(&complete("went on")),
            );
            Said::Stream(vec![
                Step::Send(ask),
                Step::Until(std::rc::Rc::new(move || waiting.borrow().is_some())),
                Step::Send(end),
            ])
        });
        let world = Setup::new().upstream("files", &script).start();
        assert_eq!(
            world.tool("files__a").said(),
            "went on",
            "{method}: it waits for the answer before it goes on"
        );
        let answer: Value = heard_answer.borrow().clone().unwrap();
        assert_eq!(answer["id"], "q-1");
        assert_eq!(
            answer["error"]["code"].is_i64(),
            !answered,
            "{method}: {answer}"
        );
        assert_eq!(answer["result"].is_object(), answered, "{method}: {answer}");
        let exchange = world
            .exchanges("files")
            .into_iter()
            .find(|e| e.body().starts_with(b"{\"jsonrpc\":\"2.0\",\"id\":\"q-1\""))
            .unwrap();
        assert_eq!(exchange.headers["mcp-session-id"], "session-1");
    }
}

#[test]
fn a_client_that_leaves_cancels_its_call() {
    let (world, script) = world();
    script.on("tools/call", |_| {
        Said::After(
            Duration::from_secs(20),
            Box::new(Said::Result(complete("late"))),
        )
    });
    let mut running = world.start(tool("files__a"));
    assert!(running.step().is_none());
    let id = world.bodies("files", "tools/call")[0]["id"].clone();
    drop(running);
    world.settle();
    let cancelled = world.bodies("files", "notifications/cancelled");
    assert_eq!(
        cancelled.len(),
        1,
        "an older server does not take a closed connection for a cancellation"
    );
    assert_eq!(cancelled[0]["params"]["requestId"], id);
    assert_eq!(world.audits()[0]["outcome"], "disconnected");
}

#[test]
fn a_call_that_takes_too_long_is_cancelled_too() {
    let script = Script::legacy("2025-06-18", &["a"]);
    script.on("tools/call", |_| {
        Said::After(
            Duration::from_secs(20),
            Box::new(Said::Result(complete("late"))),
        )
    });
    let world = Setup::new()
        .upstream_with("files", &script, &json!({ "timeoutMs": 1000 }))
        .start();
    assert_eq!(world.tool("files__a").reason(), "upstream_timeout");
    world.settle();
    assert_eq!(world.count("files", "notifications/cancelled"), 1);
}

#[test]
fn an_answered_call_is_not_cancelled() {
    let (world, script) = world();
    assert_eq!(world.tool("files__a").status, 200);
    script.on("tools/call", |_| Said::Error(-32603));
    world.tool("files__a");
    world.settle();
    assert_eq!(world.count("files", "notifications/cancelled"), 0);
}

fn world() -> (World, Script) {
    let script = Script::legacy("2025-06-18", &["a"]);
    (Setup::new().upstream("files", &script).start(), script)
}

fn sessions_of_calls(world: &World) -> Vec<String> {
    let calls = world.exchanges("files").into_iter().filter(|exchange| {
        serde_json::from_slice::<Value>(&exchange.body())
            .is_ok_and(|body| body["method"] == "tools/call")
    });
    calls
        .map(|exchange| {
            exchange.headers["mcp-session-id"]
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect()
}
