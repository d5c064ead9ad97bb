//! Idempotency keys: what comes of a call that comes again, and that no schedule makes it
//! twice.

mod schedules;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join;
use serde_json::{Value, json};
use tidegate_gateway::platform::HttpError;
use tidegate_simulator::Fault;

use crate::tasks::{get, handle};
use crate::world::{
    Answer, Ask, RESULT, Said, Script, Setup, Step, World, complete, legacy, modern, tool,
};

const SECOND: Duration = Duration::from_secs(1);
const META: &str = "io.tidegate/idempotencyKey";

#[test]
fn the_same_key_gives_the_first_result_again_and_says_so() {
    let (world, runs) = world(&json!({}));
    let first = world.call(keyed("k-1"));
    let again = world.isolate().call(keyed("k-1"));
    assert_eq!(first.result()["content"], again.result()["content"]);
    let replayed = "io.tidegate/idempotentReplay";
    assert!(first.result()["_meta"].get(replayed).is_none());
    assert_eq!(again.result()["_meta"][replayed], true);
    assert_eq!(runs.get(), 1);
    // By `_meta`, without quotes, and from an older revision it is the same key.
    let by_meta = modern(
        "tools/call",
        json!({ "name": "up__a", "arguments": { "q": "one" } }),
    );
    assert_eq!(
        said(&world, by_meta.meta(META, "k-1".into())),
        said(&world, keyed("k-1"))
    );
    assert_eq!(
        said(&world, call().header("idempotency-key", "k-1")),
        said(&world, keyed("k-1"))
    );
    let params = json!({ "name": "up__a", "arguments": { "q": "one" }, "_meta": { META: "k-1" } });
    let told = world.call(legacy("2025-06-18", "tools/call", params));
    assert_eq!(told.result()["content"], first.result()["content"]);
    assert_eq!(runs.get(), 1);
    for other in [call(), call(), keyed("k-2"), keyed("k-1").by("eve")] {
        let before = runs.get();
        assert!(world.call(other).result()["_meta"].get(replayed).is_none());
        assert_eq!(runs.get(), before + 1);
    }
}

#[test]
fn a_key_that_was_used_for_something_else_is_refused() {
    let (world, runs) = world(&json!({}));
    world.call(keyed("k"));
    for params in [
        json!({ "name": "up__a", "arguments": { "q": "two" } }),
        json!({ "name": "up__b", "arguments": { "q": "one" } }),
    ] {
        let told = world.call(modern("tools/call", params).header("idempotency-key", "\"k\""));
        assert_eq!(
            (told.status.as_u16(), told.reason()),
            (422, "idempotency_key_reused")
        );
    }
    for (header, meta) in [
        ("\"\"", None),
        ("k", Some(json!("other"))),
        ("k", Some(json!(1))),
        (&*"x".repeat(256), None),
    ] {
        let mut ask = call().header("idempotency-key", header);
        if let Some(meta) = meta {
            ask = ask.meta(META, meta);
        }
        let told = world.call(ask);
        assert_eq!(told.status, 400, "{header}");
        assert_eq!(told.reason(), "idempotency_key_malformed");
    }
    let twice = call()
        .header("idempotency-key", "a")
        .also("idempotency-key", "a");
    assert_eq!(world.call(twice).status, 400);
    assert_eq!(runs.get(), 1);
}

#[test]
fn keys_are_honoured_where_the_configuration_says_so_and_cost_nothing_elsewhere() {
    for (config, rule, times) in [
        (json!({ "enabled": false }), Value::Null, 2),
        (json!({ "enabled": false }), json!(true), 1),
        (json!({ "enabled": true }), json!(false), 2),
        (json!({ "enabled": true }), Value::Null, 1),
    ] {
        let (script, runs) = counted();
        let mut ruled = json!({ "name": "up__a" });
        if rule.is_boolean() {
            ruled["idempotencyKeys"] = rule;
        }
        let world = Setup::new()
            .upstream("up", &script)
            .config(&json!({ "idempotency": config }))
            .rule(ruled)
            .start();
        world.call(keyed("k"));
        world.call(keyed("k"));
        assert_eq!(runs.get(), times);
        let stored = world.sim.atomic.operations("idempotency/");
        assert_eq!(stored > 0, times == 1);
    }
}

#[test]
fn who_comes_while_the_first_is_under_way_waits_a_moment_and_is_then_told_to_come_again() {
    for (takes, status) in [(2, 200), (10, 409)] {
        let (world, runs) = world(&json!({}));
        world.call(tool("up__a"));
        world.server("up").head_delay.set(SECOND * takes);
        let other = world.isolate();
        let (first, second) = world.sim.run(join(
            world.answering(keyed("k")),
            other.answering(keyed("k").header("accept", "application/json, text/event-stream")),
        ));
        assert_eq!(first.status, 200);
        assert_eq!(second.status, status);
        if status == 409 {
            assert_eq!(second.reason(), "idempotency_in_progress");
            assert_eq!(second.header("retry-after"), "2");
        }
        assert_eq!(runs.get(), 2);
        assert_eq!(world.call(keyed("k")).status, 200);
        assert_eq!(runs.get(), 2);
    }
}

#[test]
fn what_may_have_been_done_is_not_done_again_unless_that_does_no_harm() {
    for idempotent in [false, true] {
        let (world, runs) = world(&json!({ "idempotent": idempotent }));
        world.tool("up__a");
        world.server("up").cut_before_head.set(true);
        assert_eq!(world.call(keyed("k")).reason(), "upstream_lost");
        world.server("up").cut_before_head.set(false);
        let told = world.call(keyed("k"));
        match idempotent {
            true => assert_eq!((told.status.as_u16(), runs.get()), (200, 3)),
            false => {
                let seen = (told.status.as_u16(), told.reason());
                assert_eq!(seen, (409, "idempotency_outcome_unknown"));
                assert_eq!(runs.get(), 2);
            }
        }
    }
}

#[test]
fn an_upstream_that_knows_keys_is_given_one_and_asked_again() {
    let (script, runs) = counted();
    let world = Setup::new()
        .upstream_with("up", &script, &json!({ "idempotencyKeys": true }))
        .config(&json!({ "idempotency": { "enabled": true } }))
        .start();
    world.list("tools/list");
    world.server("up").cut_before_head.set(true);
    assert_eq!(world.call(keyed("k")).reason(), "upstream_lost");
    world.server("up").cut_before_head.set(false);
    assert_eq!(world.call(keyed("k")).status, 200);
    world.call(keyed("k").by("eve"));
    world.call(call());
    let sent: Vec<Option<String>> = world
        .exchanges("up")
        .iter()
        .filter(|exchange| String::from_utf8_lossy(&exchange.body()).contains("tools/call"))
        .map(|exchange| {
            let key = exchange.headers.get("idempotency-key")?;
            Some(key.to_str().unwrap().to_owned())
        })
        .collect();
    assert_eq!(sent.len(), 4);
    assert_eq!(sent[0], sent[1]);
    assert!(sent[0].is_some() && sent[2].is_some() && sent[0] != sent[2]);
    assert_eq!((&sent[3], runs.get()), (&None, 4));
    assert_ne!(sent[0].as_deref(), Some("\"k\""));
}

#[test]
fn nobody_chooses_the_key_an_upstream_knows_a_call_by() {
    for (upstream, rule) in [
        (Script::modern(&["a"]), json!({ "name": "up__a" })),
        (
            Script::legacy("2025-06-18", &["a"]),
            json!({ "name": "up__a" }),
        ),
        (
            Script::modern(&["a"]),
            json!({ "name": "up__a", "execution": "auto" }),
        ),
    ] {
        let world = Setup::new()
            .upstream_with("up", &upstream, &json!({ "idempotencyKeys": true }))
            .rule(rule)
            .start();
        let params =
            json!({ "name": "up__a", "arguments": { "q": "one" }, "_meta": { META: "mine" } });
        for ask in [
            call().meta(META, "mine".into()),
            call().meta(META, "mine".into()).with_tasks(),
            legacy("2025-06-18", "tools/call", params),
        ] {
            assert_eq!(
                world.call(ask.header("idempotency-key", "mine")).status,
                200
            );
        }
        let sent = world.bodies("up", "tools/call");
        assert_eq!(sent.len(), 3);
        assert!(
            sent.iter()
                .all(|body| !body.to_string().contains("\"mine\""))
        );
    }
}

#[test]
fn it_is_given_the_same_one_when_the_call_may_become_a_task() {
    for kept in crate::tasks::HOSTS {
        let script = Script::modern(&["a"]);
        let world = Setup::new()
            .upstream_with("up", &script, &json!({ "idempotencyKeys": true }))
            .config(&json!({ "idempotency": { "enabled": true } }))
            .rule(json!({ "name": "up__a", "execution": "auto" }))
            .start();
        world.sim.keeper.missing(!kept);
        script.on("tools/call", |_| {
            Said::NoAnswer(HttpError::MaybeSent("cut".to_owned()))
        });
        for ask in [keyed("k").with_tasks(), keyed("k")] {
            assert_eq!(world.call(ask).reason(), "upstream_lost");
        }
        script.off("tools/call");
        assert_eq!(world.call(keyed("k").with_tasks()).status, 200);
        let told = told_keys(&world);
        assert_eq!(told.len(), 3);
        assert!(told[0].is_string() && told.iter().all(|key| *key == told[0]));
        let sent = world.exchanges("up").pop().unwrap();
        let header = format!("\"{}\"", told[0].as_str().unwrap());
        assert_eq!(sent.headers["idempotency-key"], header.as_str());
    }
}

#[test]
fn an_operator_who_makes_a_task_anew_makes_another_call_of_it() {
    const TOKEN: &str = "an-operators-token-of-some-length";
    let (script, _) = counted();
    script.on("tools/call", |_| Said::Error(-32603));
    let world = Setup::new()
        .upstream_with("up", &script, &json!({ "idempotencyKeys": true }))
        .config(&json!({ "idempotency": { "enabled": true } }))
        .rule(json!({ "name": "up__a", "execution": "task" }))
        .secret("TIDEGATE_ADMIN_TOKEN", TOKEN)
        .start();
    world.call(keyed("k").with_tasks());
    world.deliver();
    let keys = world.sim.atomic.keys();
    let id = keys.iter().find_map(|key| key.strip_prefix("task/"));
    let path = format!("/admin/tasks/{}/retry", id.unwrap());
    assert_eq!(world.ask(Ask::http("POST", &path).token(TOKEN)).status, 200);
    world.deliver();
    let told = told_keys(&world);
    assert!(told[0].is_string() && told[1].is_string() && told[0] != told[1]);
}

#[test]
fn of_what_a_fallback_did_the_tools_own_upstream_knows_nothing() {
    let (first, runs) = counted();
    let (second, _) = counted();
    let members = json!({ "idempotencyKeys": true, "fallback": "second" });
    let world = Setup::new()
        .upstream_with("up", &first, &members)
        .upstream("second", &second)
        .config(&json!({
            "idempotency": { "enabled": true }, "circuitBreaker": { "failureThreshold": 1 },
        }))
        .start();
    world.list("tools/list");
    world.server("up").cut_before_head.set(true);
    assert_eq!(world.call(call()).reason(), "upstream_lost");
    world.server("up").cut_before_head.set(false);
    world.server("second").cut_before_head.set(true);
    assert_eq!(world.call(keyed("k")).reason(), "upstream_lost");
    assert_eq!(world.count("second", "tools/call"), 1, "it may have run");
    world.sim.clock.advance(SECOND * 60);
    let before = runs.get();
    let told = world.call(keyed("k"));
    let seen = (told.status.as_u16(), told.reason());
    assert_eq!(seen, (409, "idempotency_outcome_unknown"));
    assert_eq!(runs.get(), before);
}

#[test]
fn a_crashed_call_is_unknown_once_it_must_be_over() {
    let (script, runs) = counted();
    let counted = Rc::clone(&runs);
    script.on("tools/call", move |_| {
        counted.set(counted.get() + 1);
        Said::After(SECOND * 20, Box::new(Said::Result(complete("late"))))
    });
    let world = Setup::new()
        .upstream("up", &script)
        .config(&json!({ "idempotency": { "enabled": true } }))
        .start();
    let other = world.isolate();
    let mut crashed = other.start_call(keyed("k"));
    while runs.get() == 0 {
        assert!(crashed.step().is_none());
    }
    drop(crashed);
    other.lose_deferred();
    assert_eq!(world.call(keyed("k")).reason(), "idempotency_in_progress");
    world.sim.clock.advance(SECOND * 90);
    for _ in 0..2 {
        assert_eq!(
            world.call(keyed("k")).reason(),
            "idempotency_outcome_unknown"
        );
    }
    assert_eq!(runs.get(), 1);
}

#[test]
fn what_was_certainly_not_done_frees_its_key() {
    let (world, runs) = world(&json!({}));
    world.tool("up__a");
    world.server("up").down.set(true);
    assert_eq!(world.call(keyed("k")).reason(), "upstream_unavailable");
    world.server("up").down.set(false);
    assert_eq!(world.call(keyed("k")).status, 200);
    assert_eq!(world.call(keyed("k")).status, 200);
    assert_eq!(runs.get(), 2);
}

/// How an upstream fails at what comes before a call, and what the client is told.
const BEFORE: [(Answer, &str); 3] = [
    (|_| Said::Later(503, "1"), "upstream_busy"),
    (
        |_| Said::Raw(502, "text/plain", Vec::new()),
        "upstream_invalid",
    ),
    (
        |_| Said::After(SECOND * 3600, Box::new(Said::Error(-32603))),
        "upstream_timeout",
    ),
];

#[test]
fn what_failed_before_the_call_was_sent_frees_its_key_and_gives_its_quota_back() {
    for ((answer, reason), kept) in BEFORE.into_iter().flat_map(|it| [(it, true), (it, false)]) {
        for (warm, execution) in [(false, "sync"), (true, "sync"), (true, "auto")] {
            let script = Script::legacy("2025-06-18", &["a"]);
            // One for the call, and one to come again with.
            let quota = json!({ "name": "q", "unit": "calls", "limit": 2, "period": "day" });
            let world = Setup::new()
                .upstream("up", &script)
                .config(&json!({
                    "idempotency": { "enabled": true }, "limits": { "quotas": [quota] },
                }))
                .rule(json!({ "name": "up__a", "execution": execution, "taskAfterMs": 60_000, "timeoutMs": 5_000 }))
                .start();
            world.sim.keeper.missing(!kept);
            if warm {
                world.list("tools/list");
                script.lose_sessions();
            }
            script.on("initialize", answer);
            let ask = || keyed("k").with_tasks();
            assert_eq!(world.call(ask()).reason(), reason, "{execution}");
            assert_eq!(script.sessions(), 0);
            script.off("initialize");
            world.later(SECOND * 30);
            for _ in 0..2 {
                assert_eq!(world.call(ask()).status, 200, "{reason} {execution}");
            }
        }
    }
}

#[test]
fn a_call_with_no_time_left_is_not_made_and_frees_its_key() {
    let (script, runs) = counted();
    script.on("tools/list", BEFORE[2].0);
    let quota = json!({ "name": "q", "unit": "calls", "limit": 1, "period": "day" });
    let limits = json!({ "requestTimeoutMs": 2_000, "quotas": [quota] });
    let world = Setup::new()
        .upstream("up", &script)
        .config(&json!({ "idempotency": { "enabled": true }, "limits": limits }))
        .start();
    assert_eq!(world.call(keyed("k")).reason(), "upstream_timeout");
    assert_eq!(runs.get(), 0);
    script.off("tools/list");
    world.later(SECOND * 90);
    assert_eq!(world.call(keyed("k")).status, 200);
}

#[test]
fn an_upstreams_error_is_an_answer_too() {
    let (world, runs) = world(&json!({}));
    let (script, counts) = counted();
    let _ = (runs, &world);
    script.on("tools/call", {
        let counts = Rc::clone(&counts);
        move |_| {
            counts.set(counts.get() + 1);
            Said::Error(-32603)
        }
    });
    let world = Setup::new()
        .upstream("up", &script)
        .config(&json!({ "idempotency": { "enabled": true } }))
        .start();
    let first = world.call(keyed("k"));
    let again = world.call(keyed("k"));
    assert_eq!((first.code(), again.code()), (-32603, -32603));
    assert_eq!(counts.get(), 1);
}

#[test]
fn a_client_that_went_away_finds_what_came_of_its_call() {
    for streamed in [false, true] {
        let (script, runs) = counted();
        let counted = Rc::clone(&runs);
        script.on("tools/call", move |heard| {
            counted.set(counted.get() + 1);
            let late = complete("late");
            match streamed {
                false => Said::After(SECOND * 3, Box::new(Said::Result(late))),
                true => Said::Stream(vec![
                    Step::Send(heard.progress(1)),
                    Step::Wait(SECOND * 3),
                    Step::Send(heard.response(&late)),
                ]),
            }
        });
        let world = Setup::new()
            .upstream("up", &script)
            .config(&json!({ "idempotency": { "enabled": true } }))
            .start();
        let mut live = world.open(keyed("k").meta("progressToken", 1.into()));
        let begun = live.head().is_some();
        assert_eq!((begun, runs.get()), (streamed, 1));
        drop(live);
        world.settle();
        let told = world.call(keyed("k"));
        assert_eq!(told.status, 200, "{streamed}");
        assert_eq!(told.result()["_meta"]["io.tidegate/idempotentReplay"], true);
        assert_eq!(runs.get(), 1);
    }
}

#[test]
fn a_result_too_large_to_keep_says_so() {
    let (script, runs) = counted();
    let large = "x".repeat(300 * 1024);
    script.on("tools/call", move |_| Said::Result(complete(&large)));
    let world = Setup::new()
        .upstream("up", &script)
        .config(&json!({ "idempotency": { "enabled": true } }))
        .start();
    assert_eq!(world.call(keyed("k")).status, 200);
    let told = world.call(keyed("k"));
    assert_eq!(
        (told.status.as_u16(), told.reason()),
        (409, "idempotency_result_too_large")
    );
    assert_eq!(world.count("up", "tools/call"), 1);
    drop(runs);
}

#[test]
fn a_key_stands_for_its_window_and_no_longer() {
    let (world, runs) = world(&json!({}));
    world.call(keyed("k"));
    world.sim.clock.advance(SECOND * 86_000);
    world.call(keyed("k"));
    assert_eq!(runs.get(), 1);
    world.sim.clock.advance(SECOND * 401);
    world.call(keyed("k"));
    assert_eq!(runs.get(), 2);
}

#[test]
fn the_same_key_gives_the_same_task() {
    let (world, runs) = world(&json!({ "execution": "task" }));
    let first = world.call(keyed("k").with_tasks());
    let again = world.call(keyed("k").with_tasks());
    assert_eq!(handle(&first), handle(&again));
    world.deliver();
    assert_eq!(
        world.call(get(&handle(&again))).result()["status"],
        "completed"
    );
    assert_eq!(runs.get(), 1);
}

#[test]
fn a_call_that_asks_goes_on_under_its_key_and_each_round_is_made_once() {
    let script = Script::modern(&["a"]);
    let rounds: Rc<Cell<usize>> = Rc::default();
    let counted = Rc::clone(&rounds);
    script.on("tools/call", move |heard| {
        counted.set(counted.get() + 1);
        if heard.params().get("requestState").is_some() {
            return Said::Result(complete("done"));
        }
        let schema = json!({ "type": "object", "properties": {} });
        let params = json!({ "mode": "form", "message": "?", "requestedSchema": schema });
        Said::Result(json!({
            "resultType": "input_required",
            "inputRequests": { "a": { "method": "elicitation/create", "params": params } },
            "requestState": "s",
        }))
    });
    let world = Setup::new()
        .upstream("up", &script)
        .config(&json!({ "idempotency": { "enabled": true } }))
        .start();
    let asks = || {
        keyed("k").meta(
            "clientCapabilities",
            json!({ "elicitation": { "form": {} } }),
        )
    };
    let first = world.call(asks());
    let again = world.call(asks());
    assert_eq!(
        first.result()["requestState"],
        again.result()["requestState"]
    );
    assert_eq!(rounds.get(), 1);
    let answer = || {
        asks()
            .param("requestState", first.result()["requestState"].clone())
            .param(
                "inputResponses",
                json!({ "a": { "action": "accept", "content": {} } }),
            )
    };
    for _ in 0..2 {
        assert_eq!(world.call(answer()).said(), "done");
    }
    assert_eq!(world.call(asks()).said(), "done");
    assert_eq!(rounds.get(), 2);
}

#[test]
fn a_late_duplicate_of_an_earlier_round_is_not_made_again() {
    let script = Script::modern(&["a"]);
    let rounds: Rc<Cell<usize>> = Rc::default();
    let counted = Rc::clone(&rounds);
    script.on("tools/call", move |_| {
        counted.set(counted.get() + 1);
        Said::Result(json!({
            "resultType": "input_required", "requestState": format!("s{}", counted.get()),
        }))
    });
    let world = Setup::new()
        .upstream("up", &script)
        .config(&json!({ "idempotency": { "enabled": true } }))
        .start();
    let mut asked = vec![keyed("k")];
    let mut told = Vec::new();
    for _ in 0..4 {
        let said = world.call(asked[asked.len() - 1].clone());
        let state = said.result()["requestState"].clone();
        asked.push(keyed("k").param("requestState", state.clone()));
        told.push(state);
    }
    assert_eq!(rounds.get(), 4);
    for late in &asked[..4] {
        let said = world.call(late.clone());
        assert_eq!(said.result()["requestState"], told[3], "where it stands");
    }
    assert_eq!(rounds.get(), 4);
    // The call itself goes on.
    assert_eq!(world.call(asked[4].clone()).status, 200);
    assert_eq!(rounds.get(), 5);
}

#[test]
fn without_the_store_a_call_with_a_key_is_not_made() {
    let (world, runs) = world(&json!({}));
    world.tool("up__a");
    world.sim.atomic.faults.outage(true);
    assert_eq!(world.call(keyed("k")).status, 500);
    assert_eq!(world.call(call()).status, 200, "others are");
    world.sim.atomic.faults.outage(false);
    assert_eq!(runs.get(), 2);
    // A write whose outcome is unknown is found out about.
    world
        .sim
        .atomic
        .faults
        .arrange("idempotency/", 1, Fault::FailButPersist);
    assert_eq!(world.call(keyed("k")).status, 200);
    assert_eq!(world.call(keyed("k")).status, 200);
    assert_eq!(runs.get(), 3);
}

#[test]
fn neither_key_nor_arguments_are_stored_or_told() {
    let (world, _) = world(&json!({}));
    world.call(tool("up__a").header("idempotency-key", "CANARY-ARGUMENT-key"));
    let keys = world.sim.atomic.keys();
    let key = keys
        .iter()
        .find(|key| key.starts_with("idempotency/"))
        .unwrap();
    let stored = world.sim.atomic.stored(key).unwrap();
    let stored = String::from_utf8_lossy(&stored);
    assert!(
        !key.contains("CANARY") && !stored.contains("CANARY-ARGUMENT"),
        "{stored}"
    );
    let told = world.bodies("up", "tools/call").pop().unwrap().to_string();
    assert!(
        !told.contains("ARGUMENT-key"),
        "a key is between client and gateway: {told}"
    );
}

/// The keys the upstream was given with its calls.
fn told_keys(world: &World) -> Vec<Value> {
    let bodies = world.bodies("up", "tools/call").into_iter();
    bodies
        .map(|body| body["params"]["_meta"][META].clone())
        .collect()
}

/// An upstream that counts how often its tools are run.
fn counted() -> (Script, Rc<Cell<usize>>) {
    let script = Script::modern(&["a", "b"]);
    let runs: Rc<Cell<usize>> = Rc::default();
    let counted = Rc::clone(&runs);
    script.on("tools/call", move |_| {
        counted.set(counted.get() + 1);
        Said::Result(complete(&format!("{RESULT} {}", counted.get())))
    });
    (script, runs)
}

fn world(rule: &Value) -> (World, Rc<Cell<usize>>) {
    let (script, runs) = counted();
    let mut ruled = json!({ "name": "up__a" });
    ruled
        .as_object_mut()
        .unwrap()
        .extend(rule.as_object().unwrap().clone());
    let world = Setup::new()
        .upstream("up", &script)
        .config(&json!({ "idempotency": { "enabled": true } }))
        .rule(ruled)
        .start();
    (world, runs)
}

fn call() -> Ask {
    modern(
        "tools/call",
        json!({ "name": "up__a", "arguments": { "q": "one" } }),
    )
}

fn keyed(key: &str) -> Ask {
    call().header("idempotency-key", &format!("\"{key}\""))
}

#[track_caller]
fn said(world: &World, ask: Ask) -> String {
    world.call(ask).said().to_owned()
}
