//! Another upstream for calls that their own could not take.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::platform::HttpError;

use crate::converse::talk::Client;
use crate::tasks_passed::Minting;
use crate::world::{Answer, Ask, Said, Script, Setup, Step, World, complete, legacy, modern, tool};

const CUT: Answer = |_| Said::NoAnswer(HttpError::MaybeSent("cut".to_owned()));

#[test]
fn what_certainly_was_not_reached_is_done_elsewhere_and_the_result_says_so() {
    let (world, ..) = world();
    world.server("first").down.set(true);
    let told = world.tool("first__plain");
    assert_eq!(told.status, 200);
    assert_eq!(told.result()["content"][0]["text"], "second");
    assert_eq!(told.result()["_meta"]["io.tidegate/fallback"], "second");
    let audit = world.audits().pop().unwrap();
    assert_eq!(
        (&audit["upstream"], &audit["answeredBy"]),
        (&json!("first"), &json!("second"))
    );
    assert_eq!(world.events("fallback_used").len(), 1);
}

#[test]
fn an_open_circuit_is_a_reason_and_costs_the_first_nothing() {
    let (world, first, _) = world();
    first.on("tools/call", |_| Said::Raw(500, "text/plain", Vec::new()));
    for _ in 0..5 {
        assert_eq!(world.tool("first__plain").status, 502, "it may have run");
    }
    let asked = world.count("first", "tools/call");
    assert_eq!(world.tool("first__plain").status, 200);
    assert_eq!(world.count("first", "tools/call"), asked);
}

#[test]
fn while_the_first_answers_nothing_is_different() {
    let (world, ..) = world();
    let told = world.tool("first__plain");
    assert_eq!(told.result()["content"][0]["text"], "first");
    assert_eq!(told.result()["_meta"]["io.tidegate/fallback"], Value::Null);
    assert!(world.audits().pop().unwrap().get("answeredBy").is_none());
    assert_eq!(world.asked("second"), [""; 0]);
}

#[test]
fn what_may_have_run_is_done_elsewhere_only_if_it_may_run_twice() {
    let failures: [Answer; 3] = [
        CUT,
        |_| Said::Raw(200, "text/html", b"<html>".to_vec()),
        |_| Said::Later(503, "60"),
    ];
    for failure in failures {
        let (world, first, _) = world();
        first.on("tools/call", failure);
        assert_ne!(world.tool("first__plain").status, 200);
        assert_eq!(world.count("second", "tools/call"), 0);
        assert_eq!(world.tool("first__again").status, 200);
        assert_eq!(world.count("second", "tools/call"), 1);
    }
}

#[test]
fn what_failed_before_the_call_was_sent_is_done_elsewhere_too() {
    let failures: [Answer; 3] = [
        |_| Said::Raw(502, "text/plain", Vec::new()),
        |_| Said::Later(503, "60"),
        |_| Said::After(Duration::from_secs(3600), Box::new(Said::Error(-32603))),
    ];
    for failure in failures {
        let (first, second) = (Script::legacy("2025-06-18", &["plain"]), scripts().1);
        first.on("initialize", failure);
        let world = Setup::new()
            .upstream_with("first", &first, &json!({ "fallback": "second" }))
            .upstream("second", &second)
            .start();
        assert_eq!(world.tool("first__plain").said(), "second");
        assert_eq!(world.count("first", "tools/call"), 0);
    }
}

#[test]
fn an_answer_is_an_answer_whatever_it_says() {
    let answers: [Answer; 3] = [
        |_| Said::Error(-32602),
        |_| Said::Result(json!({ "resultType": "complete", "content": [], "isError": true })),
        |heard| Said::Stream(vec![Step::Send(heard.progress(1)), Step::Reset]),
    ];
    for answer in answers {
        let (world, first, _) = world();
        first.on("tools/call", answer);
        world.call(tool("first__again").meta("progressToken", json!(1)));
        assert_eq!(world.count("second", "tools/call"), 0);
    }
}

#[test]
fn only_a_tool_the_other_one_has_and_that_takes_the_arguments_is_called_there() {
    let (world, ..) = world();
    world.server("first").down.set(true);
    let told = world.tool("first__only");
    assert_eq!(
        (told.status.as_u16(), told.reason()),
        (502, "upstream_unavailable")
    );
    let picky = modern(
        "tools/call",
        json!({ "name": "first__picky", "arguments": { "q": 1 } }),
    );
    assert_eq!(world.call(picky).reason(), "upstream_unavailable");
    assert_eq!(world.count("second", "tools/call"), 0);
}

#[test]
fn nobody_reaches_through_it_what_the_policy_keeps_from_them() {
    let (first, second) = scripts();
    let world = Setup::new()
        .upstream_with("first", &first, &json!({ "fallback": "second" }))
        .upstream_with(
            "second",
            &second,
            &json!({ "classification": "restricted" }),
        )
        .config(&json!({ "policy": {
            "roles": ["admin"],
            "clearance": { "default": "internal", "roles": { "admin": "restricted" } },
        } }))
        .start();
    world.list("tools/list");
    world.server("first").down.set(true);
    assert_eq!(world.tool("first__plain").reason(), "upstream_unavailable");
    assert_eq!(world.count("second", "tools/call"), 0);
}

#[test]
fn what_operators_have_switched_off_is_not_asked_in_its_place_either() {
    let (first, second) = scripts();
    let operator = "an operator's key, long enough to be one";
    let world = Setup::new()
        .upstream_with("first", &first, &json!({ "fallback": "second" }))
        .upstream("second", &second)
        .secret("TIDEGATE_ADMIN_TOKEN", operator)
        .start();
    let switch = json!({ "kind": "upstream", "value": "second", "reason": "repairs" });
    let kill = Ask::http("POST", "/admin/switches").body(switch.to_string());
    let kill = kill
        .header("content-type", "application/json")
        .token(operator);
    assert!(world.ask(kill).status.is_success());
    world.settle();
    world.sim.clock.advance(Duration::from_secs(120));
    world.server("first").down.set(true);
    assert_eq!(world.tool("first__plain").reason(), "upstream_unavailable");
    assert_eq!(world.count("second", "tools/call"), 0);
}

#[test]
fn a_rule_of_the_other_ones_tool_holds_there() {
    let (first, second) = scripts();
    let world = Setup::new()
        .upstream_with("first", &first, &json!({ "fallback": "second" }))
        .upstream("second", &second)
        .rule(json!({ "name": "second__plain", "requiredRoles": ["admin"] }))
        .start();
    world.server("first").down.set(true);
    assert_eq!(world.tool("first__plain").reason(), "upstream_unavailable");
    assert_eq!(world.count("second", "tools/call"), 0);
}

#[test]
fn who_can_only_try_the_other_ones_tool_does_not_use_it_in_earnest() {
    let (first, second) = scripts();
    let dry_run = json!({ "argument": "dry", "forRoles": ["trainee"] });
    let world = Setup::new()
        .upstream_with("first", &first, &json!({ "fallback": "second" }))
        .upstream("second", &second)
        .rule(json!({ "name": "second__plain", "dryRun": dry_run }))
        .config(&json!({ "policy": { "roles": ["trainee"] } }))
        .start();
    world.server("first").down.set(true);
    let trainee = world.token(&json!({ "roles": ["trainee"] }));
    let told = world.call(tool("first__plain").token(&trainee));
    assert_eq!(told.reason(), "upstream_unavailable");
    assert_eq!(world.count("second", "tools/call"), 0);
    assert_eq!(world.tool("first__plain").status, 200, "others do");
}

#[test]
fn clients_of_older_revisions_are_served_so_too() {
    let (world, ..) = world();
    world.server("first").down.set(true);
    let params = json!({ "name": "first__plain", "arguments": {} });
    let told = world.call(legacy("2025-06-18", "tools/call", params));
    assert_eq!(told.result()["content"][0]["text"], "second");
    assert_eq!(told.result()["_meta"]["io.tidegate/fallback"], "second");
}

#[test]
fn so_are_clients_in_a_session_whose_calls_are_conversations() {
    let (world, ..) = world();
    world.server("first").down.set(true);
    let client = Client::of(&world, json!({ "elicitation": {} }));
    let params = json!({ "name": "first__plain", "arguments": {} });
    let told = world.call(client.ask("tools/call", params));
    assert!(
        told.text.contains(r#""io.tidegate/fallback":"second""#),
        "{told:?}"
    );
}

#[test]
fn where_both_are_away_the_last_error_says_so_and_nobody_is_asked_in_a_circle() {
    let (first, second) = scripts();
    let world = Setup::new()
        .upstream_with("first", &first, &json!({ "fallback": "second" }))
        .upstream_with("second", &second, &json!({ "fallback": "first" }))
        .start();
    world.list("tools/list");
    world.server("first").down.set(true);
    world.server("second").down.set(true);
    let told = world.tool("first__plain");
    assert_eq!(
        (told.status.as_u16(), told.reason()),
        (502, "upstream_unavailable")
    );
}

#[test]
fn that_the_other_one_is_away_does_not_undo_what_the_first_may_have_done() {
    let (world, first, _) = world();
    world.list("tools/list");
    first.on("tools/call", CUT);
    world.server("second").down.set(true);
    assert_eq!(world.tool("first__again").reason(), "upstream_lost");
    assert_eq!(world.events("fallback_used").len(), 1);
}

#[test]
fn a_tool_that_runs_as_a_task_of_its_upstream_is_not_run_elsewhere_when_that_goes_away() {
    let failures: [Answer; 3] = [
        |_| Said::NoAnswer(HttpError::NotSent("refused".to_owned())),
        |_| Said::Later(429, "1"),
        |_| Said::Raw(401, "text/plain", Vec::new()),
    ];
    for away in failures {
        let minting = Minting::insisting();
        let second = Script::modern(&["a"]);
        let members = json!({ "fallback": "second" });
        let world = Setup::new()
            .upstream_with("first", &minting.script, &members)
            .upstream("second", &second)
            .config(&json!({ "idempotency": { "enabled": true } }))
            .start();
        minting.script.on("tasks/get", away);
        let params = json!({ "name": "first__a", "arguments": {} });
        let call = || legacy("2025-11-25", "tools/call", params.clone());
        let call = || call().header("idempotency-key", "k");
        assert_eq!(world.call(call()).reason(), "upstream_lost");
        assert_eq!(world.count("second", "tools/call"), 0);
        world.later(Duration::from_secs(120));
        assert_eq!(world.call(call()).reason(), "idempotency_outcome_unknown");
        assert_eq!(world.count("first", "tools/call"), 2, "refused, and made");
    }
}

#[test]
fn nor_is_one_that_has_begun_and_only_wants_to_be_asked_again() {
    let (first, second) = scripts();
    first.on("tools/call", |heard| {
        match heard.params().get("requestState") {
            None => Said::Result(json!({ "resultType": "input_required", "requestState": "s" })),
            Some(_) => Said::NoAnswer(HttpError::NotSent("refused".to_owned())),
        }
    });
    let world = Setup::new()
        .upstream_with("first", &first, &json!({ "fallback": "second" }))
        .upstream("second", &second)
        .start();
    let client = Client::of(&world, json!({ "elicitation": {} }));
    let params = json!({ "name": "first__plain", "arguments": {} });
    let told = world.call(client.ask("tools/call", params));
    assert_eq!(told.reason(), "upstream_lost", "{told:?}");
    assert_eq!(world.count("second", "tools/call"), 0);
}

fn scripts() -> (Script, Script) {
    let first = Script::modern(&["plain", "again", "only", "picky"]);
    let second = Script::modern(&["plain", "again"]);
    let schema = json!({ "type": "object", "properties": { "q": { "type": "string" } } });
    second.listing("tools", json!({ "name": "picky", "inputSchema": schema }));
    first.on("tools/call", |_| Said::Result(complete("first")));
    second.on("tools/call", |_| Said::Result(complete("second")));
    (first, second)
}

fn world() -> (World, Script, Script) {
    let (first, second) = scripts();
    let world = Setup::new()
        .upstream_with("first", &first, &json!({ "fallback": "second" }))
        .upstream("second", &second)
        .rule(json!({ "name": "first__again", "idempotent": true }))
        .start();
    (world, first, second)
}
