//! Calls that are made again, and those that are not.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::platform::{Clock, HttpError};
use tidegate_simulator::End;

use crate::world::{Answer, Said, Script, Setup, Step, World, complete, modern, tool};

const NOT_SENT: Answer = |_| Said::NoAnswer(HttpError::NotSent("refused".to_owned()));
const CUT: Answer = |_| Said::NoAnswer(HttpError::MaybeSent("cut".to_owned()));
const BAD: Answer = |_| Said::Raw(502, "text/plain", Vec::new());
const BUSY: Answer = |_| Said::Later(503, "2");

#[test]
fn what_certainly_was_not_sent_is_sent_again_whatever_it_is() {
    let (world, script) = world(&json!({}));
    fails(&script, "tools/call", 2, NOT_SENT);
    assert_eq!(world.tool("up__plain").status, 200);
    assert_eq!(world.count("up", "tools/call"), 3);
    assert_eq!(world.events("call_made_again").len(), 2);
}

#[test]
fn what_may_have_been_sent_is_sent_again_only_where_that_does_no_harm() {
    for failure in [CUT, BAD, BUSY] {
        let (world, script) = world(&json!({}));
        fails(&script, "tools/call", 1, failure);
        assert_ne!(world.tool("up__plain").status, 200);
        assert_eq!(world.count("up", "tools/call"), 1, "it may have run");

        let (world, script) = self::world(&json!({}));
        fails(&script, "tools/call", 1, failure);
        assert_eq!(world.tool("up__again").status, 200);
        assert_eq!(world.count("up", "tools/call"), 2);

        for (method, params) in [
            ("resources/read", json!({ "uri": "up+file:///a" })),
            ("prompts/get", json!({ "name": "up__p" })),
        ] {
            let (world, script) = self::world(&json!({}));
            script.on(method, |_| Said::Result(complete("x")));
            fails(&script, method, 2, failure);
            assert_eq!(world.call(modern(method, params)).status, 200, "{method}");
            assert_eq!(world.count("up", method), 3);
        }
    }
}

#[test]
fn what_is_refused_for_being_too_much_was_not_done_and_is_sent_again() {
    let (world, script) = world(&json!({}));
    fails(&script, "tools/call", 1, |_| Said::Later(429, "1"));
    assert_eq!(world.tool("up__plain").status, 200);
    assert_eq!(world.count("up", "tools/call"), 2);
}

#[test]
fn lists_are_asked_for_again() {
    let (world, script) = world(&json!({}));
    fails(&script, "tools/list", 2, BAD);
    assert_eq!(world.list("tools/list"), ["up__plain", "up__again"]);
}

#[test]
fn what_an_upstream_says_of_its_tools_does_not_count() {
    let script = Script::modern(&[]);
    script.listing("tools", json!({ "name": "c", "inputSchema": { "type": "object" }, "annotations": { "idempotentHint": true, "readOnlyHint": true } }));
    let world = Setup::new()
        .upstream_with("up", &script, &json!({ "retry": {} }))
        .start();
    fails(&script, "tools/call", 1, CUT);
    assert_eq!(world.tool("up__c").status, 502);
    assert_eq!(world.count("up", "tools/call"), 1);
}

#[test]
fn an_answer_is_never_asked_for_again() {
    let answers: [(&str, Answer); 4] = [
        ("a tool error", |_| {
            Said::Result(json!({ "resultType": "complete", "content": [], "isError": true }))
        }),
        ("an error", |_| Said::Error(-32603)),
        ("403", |_| Said::Raw(403, "text/plain", Vec::new())),
        (
            "a stream that breaks off after it has said something",
            |heard| Said::Stream(vec![Step::Send(heard.progress(1)), Step::Reset]),
        ),
    ];
    for (what, answer) in answers {
        let (world, script) = world(&json!({}));
        script.on("tools/call", answer);
        world.call(tool("up__again").meta("progressToken", json!(1)));
        assert_eq!(world.count("up", "tools/call"), 1, "{what}");
    }
}

#[test]
fn a_call_is_made_so_often_and_not_oftener() {
    let (world, script) = world(&json!({ "maxAttempts": 4 }));
    script.on("tools/call", BAD);
    assert_eq!(world.tool("up__again").status, 502);
    assert_eq!(world.count("up", "tools/call"), 4);
}

#[test]
fn the_upstreams_word_on_when_to_come_back_is_kept_and_passed_on() {
    let (world, script) = world(&json!({}));
    fails(&script, "tools/call", 1, BUSY);
    world.call(tool("up__again"));
    let at: Vec<_> = world
        .exchanges("up")
        .iter()
        .filter(|exchange| exchange.body().windows(10).any(|w| w == b"tools/call"))
        .map(|exchange| exchange.at)
        .collect();
    assert!(at[1].since(at[0]) >= Duration::from_secs(2));

    script.on("tools/call", |_| Said::Later(429, "90"));
    let told = world.tool("up__again");
    assert_eq!(
        (told.status.as_u16(), told.reason()),
        (503, "upstream_busy")
    );
    assert_eq!(told.header("retry-after"), "90");
    assert_eq!(
        world.count("up", "tools/call"),
        3,
        "90 s are more than the call has"
    );
}

#[test]
fn all_attempts_share_the_time_of_the_call() {
    let (world, script) = world(&json!({ "maxAttempts": 10, "attemptTimeoutMs": 4_000 }));
    script.on("tools/call", |_| {
        Said::After(Duration::from_secs(60), Box::new(Said::Error(1)))
    });
    let started = world.sim.clock.now();
    let told = world.call(tool("up__again").header("accept", "application/json"));
    assert_eq!(told.status, 504);
    let took = world.sim.clock.now().since(started);
    assert!(took <= Duration::from_secs(10), "{took:?} of 10 s");
    assert!((2..=3).contains(&world.count("up", "tools/call")));
}

#[test]
fn a_slow_attempt_is_given_up_for_another_only_where_that_does_no_harm() {
    let slow: Answer = |_| {
        let answer = Said::Result(complete("x"));
        Said::After(Duration::from_secs(6), Box::new(answer))
    };
    let (world, script) = world(&json!({ "attemptTimeoutMs": 1_000, "maxAttempts": 2 }));
    script.on("tools/call", slow);
    assert_eq!(
        world
            .call(tool("up__plain").header("accept", "application/json"))
            .status,
        200
    );
    assert_eq!(world.count("up", "tools/call"), 1);
    assert_eq!(
        world
            .call(tool("up__again").header("accept", "application/json"))
            .status,
        200
    );
    assert_eq!(
        world.count("up", "tools/call"),
        3,
        "the last has all that is left"
    );
}

#[test]
fn a_slow_call_is_made_beside_itself_and_the_first_good_answer_counts() {
    let (world, script) = world(&json!({ "hedgeAfterMs": 500 }));
    first_slow(&script);
    let started = world.sim.clock.now();
    assert_eq!(world.tool("up__again").status, 200);
    let took = world.sim.clock.now().since(started);
    assert_eq!(took, Duration::from_millis(500));
    let calls: Vec<End> = world
        .exchanges("up")
        .iter()
        .filter(|exchange| exchange.body().windows(10).any(|w| w == b"tools/call"))
        .map(tidegate_simulator::Exchange::end)
        .collect();
    assert_eq!(calls, [End::Cancelled, End::Complete]);
    assert_eq!(world.events("call_hedged").len(), 1);
}

#[test]
fn nothing_is_made_beside_itself_that_may_not_run_twice_or_is_quick_or_beyond_the_budget() {
    let broke = json!({ "hedgeAfterMs": 500, "budgetPercent": 0, "budgetPerSecond": 0 });
    let hedging = json!({ "hedgeAfterMs": 500 });
    let late = json!({ "hedgeAfterMs": 4_000 });
    for (retry, name) in [(&hedging, "plain"), (&late, "again"), (&broke, "again")] {
        let (world, script) = world(retry);
        first_slow(&script);
        let started = world.sim.clock.now();
        assert_eq!(world.tool(&format!("up__{name}")).status, 200);
        let took = world.sim.clock.now().since(started);
        assert_eq!(took, Duration::from_secs(3), "{name} {retry}");
        assert_eq!(world.count("up", "tools/call"), 1, "{name} {retry}");
    }
}

#[test]
fn a_second_call_that_fails_leaves_the_first_its_time() {
    let (world, script) = world(&json!({ "hedgeAfterMs": 500 }));
    let first = Cell::new(true);
    script.on("tools/call", move |heard| match first.take() {
        true => Said::After(
            Duration::from_secs(3),
            Box::new(Said::Result(complete("first"))),
        ),
        false => BAD(heard),
    });
    let told = world.tool("up__again");
    assert_eq!(told.result()["content"][0]["text"], "first");
    assert_eq!(world.count("up", "tools/call"), 2);
}

/// The first call takes three seconds, those after it no time.
fn first_slow(script: &Script) {
    let first = Cell::new(true);
    script.on("tools/call", move |_| {
        let answer = Said::Result(complete("x"));
        match first.take() {
            true => Said::After(Duration::from_secs(3), Box::new(answer)),
            false => answer,
        }
    });
}

#[test]
fn no_more_is_made_again_than_the_budget_allows() {
    let (world, script) = world_with(
        &json!({ "budgetPercent": 10, "budgetPerSecond": 0 }),
        &json!({ "failureThreshold": 1000 }),
    );
    script.on("tools/call", BAD);
    for _ in 0..100 {
        world.tool("up__again");
    }
    let made = world.count("up", "tools/call");
    assert!((100..=110).contains(&made), "{made} attempts of 100 calls");
}

#[test]
fn an_open_circuit_ends_it() {
    let (world, script) = world_with(
        &json!({ "maxAttempts": 10, "budgetPerSecond": 100 }),
        &json!({ "failureThreshold": 3 }),
    );
    script.on("tools/call", BAD);
    let told = world.tool("up__again");
    // It may have run, whatever became of the attempt after.
    let seen = (told.status.as_u16(), told.reason());
    assert_eq!(seen, (502, "upstream_invalid"));
    assert_eq!(world.count("up", "tools/call"), 3);
}

#[test]
fn without_a_word_in_the_configuration_nothing_is_made_again() {
    let script = Script::modern(&["again"]);
    let world = Setup::new()
        .upstream("up", &script)
        .rule(json!({ "name": "up__again", "idempotent": true }))
        .start();
    fails(&script, "tools/call", 1, NOT_SENT);
    assert_eq!(world.tool("up__again").status, 502);
    assert_eq!(world.count("up", "tools/call"), 1);
}

/// A method fails so often, then answers as before.
fn fails(script: &Script, method: &str, times: usize, failure: Answer) {
    let (left, then) = (Rc::new(Cell::new(times)), script.clone());
    let name = method.to_owned();
    script.on(method, move |heard| {
        left.set(left.get() - 1);
        if left.get() == 0 {
            then.off(&name);
            if name != "tools/call" && name != "tools/list" {
                then.on(&name, |_| Said::Result(complete("x")));
            }
        }
        failure(heard)
    });
}

fn world(retry: &Value) -> (World, Script) {
    world_with(retry, &json!({}))
}

fn world_with(retry: &Value, breaker: &Value) -> (World, Script) {
    let script = Script::modern(&["plain", "again"]);
    script.listing("resources", json!({ "uri": "file:///a", "name": "a" }));
    script.listing("prompts", json!({ "name": "p" }));
    let world = Setup::new()
        .upstream_with(
            "up",
            &script,
            &json!({ "timeoutMs": 10_000, "retry": retry }),
        )
        .rule(json!({ "name": "up__again", "idempotent": true }))
        .config(&json!({ "circuitBreaker": breaker }))
        .start();
    (world, script)
}
