//! Answers that come as events: when, in what order, and what ends them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::egress::{KEEP_ALIVE, STREAM_AFTER};
use tidegate_gateway::platform::Clock;
use tidegate_simulator::End;

use crate::world::{Ask, Said, Script, Setup, Step, World, complete, legacy, modern, tool};

#[test]
fn a_whole_answer_is_json_even_from_a_stream_without_notifications() {
    for streaming in [false, true] {
        let (world, script) = world();
        if streaming {
            script.on("tools/call", |heard| {
                Said::Stream(vec![Step::Send(heard.response(&complete("done")))])
            });
        }
        let told = world.tool("up__a");
        assert!(!told.streamed());
        assert_eq!(told.header("content-length"), told.text.len().to_string());
    }
}

#[test]
fn progress_comes_in_order_under_the_clients_own_token() {
    for token in [json!("mine"), json!(7), json!(""), json!("ünï")] {
        for script in [Script::modern(&["a"]), Script::legacy("2025-06-18", &["a"])] {
            script.on("tools/call", reporting);
            let world = Setup::new().upstream("up", &script).start();
            for ask in [
                tool("up__a"),
                legacy("2025-06-18", "tools/call", json!({ "name": "up__a" })),
            ] {
                let told = world.call(ask.meta("progressToken", token.clone()));
                assert!(told.streamed());
                assert_eq!(told.header("x-accel-buffering"), "no");
                let reports: Vec<(&Value, i64)> = told.messages[..3]
                    .iter()
                    .map(|message| {
                        (
                            &message["params"]["progressToken"],
                            message["params"]["progress"].as_i64().unwrap(),
                        )
                    })
                    .collect();
                assert_eq!(reports, [(&token, 1), (&token, 2), (&token, 3)]);
                assert_eq!(told.said(), "done");
                assert_eq!(told.json()["id"], 1);
                assert_eq!(told.messages.len(), 4, "and nothing after the end");
            }
        }
    }
}

#[test]
fn progress_nobody_asked_for_and_of_other_calls_is_dropped() {
    let (world, script) = world();
    script.on("tools/call", |heard| {
        let note = |token: Value| json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": token, "progress": 1 } });
        Said::Stream(vec![
            Step::Send(note(json!("foreign"))),
            Step::Send(note(json!(999_999))),
            Step::Send(note(Value::Null)),
            Step::Send(heard.progress(1)),
            Step::Send(heard.response(&complete("done"))),
        ])
    });
    assert_eq!(world.tool("up__a").notifications(), Vec::<&str>::new());
    let told = world.call(tool("up__a").meta("progressToken", json!("mine")));
    assert_eq!(told.notifications(), ["notifications/progress"]);
}

#[test]
fn logs_come_only_when_asked_for_and_from_the_level_asked_for() {
    for script in [Script::modern(&["a"]), Script::legacy("2025-11-25", &["a"])] {
        script.on("tools/call", |heard| {
            let log = |level: &str| json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": level, "data": level } });
            let levels = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency", "loud"];
            let mut steps: Vec<Step> = levels.iter().map(|level| Step::Send(log(level))).collect();
            steps.push(Step::Send(heard.response(&complete("done"))));
            Said::Stream(steps)
        });
        let world = Setup::new().upstream("up", &script).start();
        assert!(world.tool("up__a").notifications().is_empty());
        let heard = |level: &str| {
            world
                .call(tool("up__a").meta("logLevel", level.into()))
                .notifications()
                .len()
        };
        assert_eq!(
            (heard("debug"), heard("warning"), heard("emergency")),
            (8, 5, 1)
        );
    }
}

#[test]
fn notifications_of_other_kinds_do_not_travel_with_a_call() {
    let (world, script) = world();
    script.on("tools/call", |heard| {
        let note =
            |method: &str| Step::Send(json!({ "jsonrpc": "2.0", "method": method, "params": {} }));
        Said::Stream(vec![
            note("notifications/tools/list_changed"),
            note("notifications/resources/updated"),
            note("notifications/vendor"),
            note("notifications/cancelled"),
            Step::Send(heard.response(&complete("done"))),
        ])
    });
    let told = world.call(
        tool("up__a")
            .meta("progressToken", json!(1))
            .meta("logLevel", json!("debug")),
    );
    assert!(told.notifications().is_empty());
    assert_eq!(told.said(), "done");
}

#[test]
fn each_event_reaches_the_client_as_it_happens() {
    let (world, script) = world();
    script.on("tools/call", |heard| {
        let mut steps = Vec::new();
        for n in 1..=3 {
            steps.extend([
                Step::Send(heard.progress(n)),
                Step::Wait(Duration::from_secs(1)),
            ]);
        }
        steps.push(Step::Send(heard.response(&complete("done"))));
        Said::Stream(steps)
    });
    let mut live = world.open(progressing());
    let (status, headers) = live.head().unwrap();
    assert_eq!(
        (status.as_u16(), &headers["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    for n in 1..=3 {
        let text = live.text();
        assert!(
            text.contains(&format!("\"progress\":{n}")) && text.matches("data:").count() == 1,
            "{text:?}"
        );
        world.sim.clock.advance(Duration::from_secs(1));
    }
    assert!(live.text().contains("\"done\""));
    assert_eq!(live.text(), "", "and that is the end");
}

#[test]
fn an_error_before_the_first_event_has_its_own_status() {
    let (world, script) = world();
    script.on("tools/call", |heard| {
        let error = json!({ "jsonrpc": "2.0", "id": heard.message["id"], "error": { "code": -32021, "message": "x" } });
        Said::Stream(vec![Step::Send(error)])
    });
    let told = world.call(progressing());
    assert_eq!((told.refusal(), told.streamed()), ((400, -32021), false));
}

#[test]
fn an_error_after_the_first_event_ends_the_stream() {
    let (world, script) = world();
    script.on("tools/call", |heard| {
        Said::Stream(vec![Step::Send(heard.progress(1)), Step::Reset])
    });
    let told = world.call(progressing());
    assert_eq!(
        (told.status.as_u16(), told.streamed(), told.reason()),
        (200, true, "upstream_invalid")
    );
    assert_eq!(world.audits().pop().unwrap()["outcome"], "upstream_invalid");
}

#[test]
fn a_slow_answer_becomes_a_stream_that_is_kept_alive() {
    let (world, script) = world();
    let slow = STREAM_AFTER + KEEP_ALIVE * 2 + Duration::from_secs(1);
    script.on("tools/call", move |_| {
        Said::After(slow, Box::new(Said::Result(complete("done"))))
    });
    let world = world.with_timeout(&script, 120_000);
    let started = world.sim.clock.now();
    let told = world.tool("up__a");
    assert_eq!(
        (told.streamed(), told.comments, told.said()),
        (true, 2, "done")
    );
    assert_eq!(world.sim.clock.now().since(started), slow);
    assert_eq!(
        world.audits().pop().unwrap()["durationMs"],
        u64::try_from(slow.as_millis()).unwrap()
    );
}

#[test]
fn a_slow_failure_is_told_on_the_stream() {
    let (world, script) = world();
    script.on("tools/call", |_| {
        Said::After(STREAM_AFTER * 2, Box::new(Said::Error(-32603)))
    });
    let told = world.tool("up__a");
    assert_eq!(
        (told.status.as_u16(), told.streamed(), told.code()),
        (200, true, -32603)
    );
}

#[test]
fn whoever_takes_no_stream_waits_for_the_whole() {
    let (world, script) = world();
    script.on("tools/call", |heard| {
        Said::Stream(vec![
            Step::Send(heard.progress(1)),
            Step::Wait(STREAM_AFTER * 2),
            Step::Send(heard.response(&complete("done"))),
        ])
    });
    let told = world.call(progressing().header("accept", "application/json"));
    assert_eq!((told.streamed(), told.said()), (false, "done"));
}

#[test]
fn a_client_that_leaves_a_stream_ends_the_upstreams() {
    let (world, script) = world();
    script.on("tools/call", |heard| {
        Said::Stream(vec![
            Step::Send(heard.progress(1)),
            Step::Wait(Duration::from_secs(20)),
            Step::Send(heard.response(&complete("done"))),
        ])
    });
    let mut live = world.open(progressing());
    live.head().unwrap();
    assert!(live.text().contains("progress"));
    assert_eq!(world.exchanges("up").pop().unwrap().end(), End::InFlight);
    world.sim.clock.advance(Duration::from_secs(3));
    drop(live);
    assert_eq!(world.exchanges("up").pop().unwrap().end(), End::Cancelled);
    let lines = world.audits();
    assert_eq!(
        (lines.len(), &lines[0]["outcome"], &lines[0]["durationMs"]),
        (1, &json!("disconnected"), &json!(3000))
    );
}

#[test]
fn a_client_that_leaves_before_the_answer_ends_the_upstreams_work() {
    for after in [Duration::ZERO, STREAM_AFTER + Duration::from_secs(1)] {
        let (world, script) = world();
        script.on("tools/call", |_| {
            Said::After(
                Duration::from_secs(20),
                Box::new(Said::Result(complete("late"))),
            )
        });
        let mut live = world.open(tool("up__a"));
        assert!(live.head().is_none());
        world.sim.clock.advance(after);
        if after > STREAM_AFTER {
            live.head().unwrap();
            live.text();
        }
        drop(live);
        assert_eq!(
            world.exchanges("up").pop().unwrap().end(),
            End::Cancelled,
            "{after:?}"
        );
        let outcomes: Vec<Value> = world
            .audits()
            .iter()
            .map(|line| line["outcome"].clone())
            .collect();
        assert_eq!(outcomes, ["disconnected"], "{after:?}");
    }
}

#[test]
fn calls_at_the_same_time_keep_their_events_apart() {
    let (world, script) = world();
    script.on("tools/call", |heard| {
        let text = heard.params()["arguments"]["n"].to_string();
        Said::Stream(vec![
            Step::Send(heard.progress(1)),
            Step::Wait(Duration::from_secs(1)),
            Step::Send(heard.progress(2)),
            Step::Send(heard.response(&complete(&text))),
        ])
    });
    let ask = |n: usize| {
        modern(
            "tools/call",
            json!({ "name": "up__a", "arguments": { "n": n } }),
        )
        .id(json!(n))
        .meta("progressToken", n.into())
    };
    let mut lives: Vec<_> = (0..5).map(|n| world.open(ask(n))).collect();
    for live in &mut lives {
        live.head().unwrap();
        live.text();
    }
    world.sim.clock.advance(Duration::from_secs(1));
    for (n, live) in lives.iter_mut().enumerate().rev() {
        let text = live.text();
        assert!(
            text.contains(&format!("\"progressToken\":{n}")),
            "{n}: {text}"
        );
        assert!(
            text.contains(&format!("\"id\":{n}")) && text.contains(&format!("\"text\":\"{n}\"")),
            "{n}: {text}"
        );
    }
}

fn world() -> (World, Script) {
    let script = Script::modern(&["a"]);
    let world = Setup::new().upstream("up", &script).start();
    // What the upstream is has been found out before.
    world.list("tools/list");
    world.forget_log();
    (world, script)
}

impl World {
    fn with_timeout(&self, script: &Script, timeout_ms: u64) -> Self {
        Setup::new()
            .upstream_with("up", script, &json!({ "timeoutMs": timeout_ms }))
            .start()
    }
}

fn progressing() -> Ask {
    tool("up__a").meta("progressToken", json!("mine"))
}

fn reporting(heard: &crate::world::Heard) -> Said {
    let mut steps: Vec<Step> = (1..=3).map(|n| Step::Send(heard.progress(n))).collect();
    steps.push(Step::Send(heard.response(&complete("done"))));
    Said::Stream(steps)
}

#[test]
fn a_stream_a_legacy_server_closes_before_the_answer_is_taken_up_where_it_broke_off() {
    let script = Script::legacy("2025-11-25", &["a"]);
    let asked = Rc::new(RefCell::new(None));
    let request = Rc::clone(&asked);
    script.on("tools/call", move |heard| {
        request.replace(Some(heard.response(&complete("late"))));
        Said::Stream(vec![
            Step::Bytes(b"id: 7-1\nretry: 500\ndata:\n\n".to_vec()),
            Step::Wait(Duration::from_secs(1)),
        ])
    });
    let rounds = Rc::new(Cell::new(0));
    let round = Rc::clone(&rounds);
    script.on("GET", move |heard| {
        round.set(round.get() + 1);
        // It may close the stream again, having said nothing.
        if round.get() < 3 {
            assert_eq!(heard.header("last-event-id"), "7-1");
            return Said::Stream(vec![Step::Bytes(b": still busy\n\n".to_vec())]);
        }
        Said::Stream(vec![Step::Send(asked.borrow().clone().unwrap())])
    });
    let world = Setup::new().upstream("up", &script).start();
    let begun = world.sim.clock.now();
    assert_eq!(world.tool("up__a").said(), "late");
    assert_eq!((world.count("up", "tools/call"), rounds.get()), (1, 3));
    let took = world.sim.clock.now().since(begun);
    assert_eq!(
        took,
        Duration::from_millis(2_500),
        "the server's own pause, three times"
    );
}

#[test]
fn a_stream_without_event_ids_that_breaks_off_is_an_error_at_once() {
    let script = Script::legacy("2025-11-25", &["a"]);
    script.on("tools/call", |_| {
        Said::Stream(vec![Step::Bytes(b": nothing\n\n".to_vec())])
    });
    let world = Setup::new().upstream("up", &script).start();
    assert_eq!(world.tool("up__a").reason(), "upstream_invalid");
    assert_eq!(world.count("up", "GET"), 0);
}
