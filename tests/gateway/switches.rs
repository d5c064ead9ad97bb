//! What operators switch off: how soon it is refused, where it shows, and how it ends.

use std::time::Duration;

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tidegate_simulator::Fault;

use crate::tasks::{create, get, handle};
use crate::world::issuer::ISSUER;
use crate::world::{Ask, Script, Setup, Told, World, modern, tool};

const OPERATOR: &str = "an operator's key, long enough to be one";
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_is_killed_is_refused_with_the_operators_reason_and_nothing_else_is() {
    for (switch, name, stopped, passed) in [
        (
            json!({ "kind": "tool", "value": "one__a" }),
            "tool:one__a",
            vec!["one__a"],
            vec!["one__ab", "two__a"],
        ),
        (
            json!({ "kind": "tool", "value": "one__a*" }),
            "tool:one__a*",
            vec!["one__a", "one__ab"],
            vec!["two__a"],
        ),
        (
            json!({ "kind": "upstream", "value": "one" }),
            "upstream:one",
            vec!["one__a", "one__ab"],
            vec!["two__a"],
        ),
        (
            json!({ "kind": "all" }),
            "all",
            vec!["one__a", "two__a"],
            vec![],
        ),
        (
            json!({ "kind": "principal", "value": "ada", "issuer": ISSUER }),
            "principal:ada",
            vec!["one__a", "two__a"],
            vec![],
        ),
        (
            json!({ "kind": "principal", "value": "ada", "issuer": "https://other.example" }),
            "",
            vec![],
            vec!["one__a"],
        ),
        (
            json!({ "kind": "tenant", "value": "north" }),
            "tenant:north",
            vec!["one__a", "two__a"],
            vec![],
        ),
        (
            json!({ "kind": "tenant", "value": "south" }),
            "",
            vec![],
            vec!["one__a"],
        ),
    ] {
        let world = world("published");
        let ada = world.token(&json!({ "sub": "ada", "tid": "north" }));
        let call = |name: &str| world.call(tool(name).token(&ada));
        assert_eq!(call("one__a").status, 200);
        kill(&world, &switch);
        world.sim.clock.advance(SECOND * 15);
        for tool in stopped {
            let told = call(tool);
            assert_eq!(told.status, 503, "{switch}");
            assert_eq!(told.reason(), "killed");
            assert_eq!(told.error()["data"]["message"], "it deletes too much");
            assert_eq!(
                told.error()["message"],
                "Switched off by the operator: it deletes too much"
            );
            let audit = world.audits().pop().unwrap();
            assert_eq!(
                (&audit["outcome"], &audit["switch"]),
                (&json!("killed"), &json!(name))
            );
        }
        for tool in passed {
            assert_eq!(call(tool).status, 200, "{switch} leaves {tool}");
        }
        if matches!(switch["kind"].as_str().unwrap(), "principal" | "tenant") {
            let eve = world.token(&json!({ "sub": "eve", "tid": "west" }));
            assert_eq!(world.call(tool("one__a").token(&eve)).status, 200);
        }
        let live = world.ask(Ask::http("GET", "/health").anonymous());
        assert_eq!(live.json()["killed"], 1);
        assert!(!live.text.contains("one"), "nothing is named: {live:?}");
        assert_eq!(door(&world, "DELETE", &switch).status, 200);
        world.sim.clock.advance(SECOND * 15);
        assert_eq!(call("one__a").status, 200);
        let live = world.ask(Ask::http("GET", "/health").anonymous());
        assert!(live.json().get("killed").is_none());
    }
}

#[test]
fn what_is_killed_is_in_no_list_and_a_killed_upstream_is_not_asked() {
    let world = world("immediate");
    assert_eq!(world.list("tools/list"), ["one__a", "one__ab", "two__a"]);
    kill(&world, &json!({ "kind": "tool", "value": "one__ab" }));
    world.sim.clock.advance(SECOND);
    let told = world.call(modern("tools/list", json!({})));
    assert_eq!(told.names(), ["one__a", "two__a"]);
    assert_eq!(told.result()["ttlMs"], 0, "it may be back any moment");
    kill(&world, &json!({ "kind": "upstream", "value": "one" }));
    world.sim.clock.advance(SECOND * 400);
    let before = world.exchanges("one").len();
    assert_eq!(world.list("tools/list"), ["two__a"]);
    world.call(modern("server/discover", json!({})));
    assert_eq!(world.exchanges("one").len(), before);
    let token = world.token(&json!({ "aud": "https://gw.example.com/servers/one/mcp" }));
    let alone = modern("tools/list", json!({}))
        .to("/servers/one/mcp")
        .token(&token);
    assert_eq!(world.call(alone).names(), [""; 0]);
    assert_eq!(world.exchanges("one").len(), before);
}

#[test]
fn who_may_not_call_a_tool_is_not_told_that_it_is_killed_or_has_no_dry_run() {
    let reading = json!({ "name": "reading", "effect": "allow", "tools": ["one__*"], "when": "tool.annotations.readOnlyHint" });
    let ada = json!({ "name": "ada", "effect": "allow", "tools": ["one__*"], "when": "principal.subject == 'ada'" });
    let world = setup("immediate")
        .config(&json!({ "policy": { "rules": [ada, reading] } }))
        .start();
    let denied = |ask: Ask| {
        let told = world.call(ask.by("eve"));
        assert_eq!(
            (told.status.as_u16(), told.reason()),
            (403, "denied"),
            "{told:?}"
        );
        let line = world.audits().pop().unwrap();
        assert_eq!(
            (&line["outcome"], &line["policyRule"]),
            (&json!("denied"), &json!("(default)"))
        );
        assert!(line.get("switch").is_none());
        told.text
    };
    let dry = || tool("one__a").meta("io.tidegate/dryRun", true.into());
    let before = (denied(tool("one__a")), denied(dry()));
    assert_eq!(world.call(dry().by("ada")).code(), -32602);
    kill(&world, &json!({ "kind": "tool", "value": "one__ab" }));
    kill(&world, &json!({ "kind": "upstream", "value": "two" }));
    world.sim.clock.advance(SECOND);
    assert_eq!(before, (denied(tool("one__a")), denied(dry())));
    denied(tool("one__ab"));
    denied(tool("two__a"));
    let asked = world.exchanges("one").len();
    kill(&world, &json!({ "kind": "upstream", "value": "one" }));
    world.sim.clock.advance(SECOND * 400);
    // Who may, by a rule the upstream need not be asked for, is told by what.
    let told = world.call(tool("one__a").by("ada"));
    assert_eq!((told.status.as_u16(), told.reason()), (503, "killed"));
    let line = world.audits().pop().unwrap();
    assert_eq!(
        (&line["outcome"], &line["switch"], &line["policyRule"]),
        (&json!("killed"), &json!("upstream:one"), &json!("ada"))
    );
    assert_eq!(
        world.exchanges("one").len(),
        asked,
        "one that is killed is not asked"
    );
}

#[test]
fn who_may_no_longer_call_a_tool_is_not_told_by_its_task_that_it_is_killed() {
    let rule = json!({ "name": "one__a", "execution": "task", "requiredRoles": ["runner"] });
    let world = setup("immediate").rule(rule).start();
    let token = |roles: Value| world.token(&json!({ "sub": "ada", "roles": roles }));
    let runner = token(json!(["runner"]));
    let task = handle(&world.call(tool("one__a").with_tasks().token(&runner)));
    kill(&world, &json!({ "kind": "tool", "value": "one__a" }));
    world.sim.clock.advance(SECOND);
    for (token, reason) in [(runner, "killed"), (token(json!([])), "denied")] {
        assert_eq!(world.call(get(&task).token(&token)).reason(), reason);
    }
}

#[test]
fn in_bare_naming_a_killed_tools_name_is_nobody_elses() {
    let world = setup("immediate")
        .config(&json!({ "naming": "bare" }))
        .start();
    assert_eq!(world.list("tools/list"), ["a", "ab"]);
    kill(&world, &json!({ "kind": "upstream", "value": "one" }));
    world.sim.clock.advance(SECOND);
    assert_eq!(world.list("tools/list"), [""; 0]);
    assert_eq!(world.tool("a").reason(), "killed");
    assert_eq!(world.count("two", "tools/call"), 0);
}

#[test]
fn where_revocation_is_immediate_a_switch_is_in_force_everywhere_within_a_second() {
    let world = world("immediate");
    let other = world.isolate();
    for world in [&world, &other] {
        assert_eq!(world.tool("one__a").status, 200);
    }
    // What KV says, or does not, is not asked.
    world.sim.kv.faults.arrange("switches", 1, Fault::Fail);
    kill(&world, &json!({ "kind": "all" }));
    world.sim.clock.advance(SECOND);
    for world in [&world, &other] {
        assert_eq!(world.tool("one__a").status, 503);
        assert_eq!(world.call(modern("tools/list", json!({}))).status, 503);
    }
    assert_eq!(
        door(&other, "DELETE", &json!({ "kind": "all" })).status,
        200
    );
    world.sim.clock.advance(SECOND);
    assert_eq!(world.tool("one__a").status, 200);
}

#[test]
fn however_many_ask_at_once_the_list_is_read_once() {
    for revocation in ["published", "immediate"] {
        let world = world(revocation);
        assert_eq!(world.tool("one__a").status, 200);
        let reads = || world.sim.kv.reads("switches") + world.sim.atomic.operations("switchboard");
        for _ in 0..3 {
            world.sim.clock.advance(SECOND * 15);
            let before = reads();
            let calls = (0..50).map(|_| world.answering(tool("one__a")));
            let told = world.sim.run(join_all(calls));
            assert!(told.iter().all(|told| told.status == 200));
            assert_eq!(reads() - before, 1, "{revocation}");
        }
    }
}

#[test]
fn a_switch_with_an_end_says_when_and_ends_by_itself() {
    let world = world("published");
    let switch = json!({ "kind": "upstream", "value": "one", "forMs": 60_000 });
    kill(&world, &switch);
    world.sim.clock.advance(SECOND * 15);
    let told = world.tool("one__a");
    assert_eq!(
        (told.status.as_u16(), told.header("retry-after")),
        (503, "45")
    );
    world.sim.clock.advance(SECOND * 45);
    assert_eq!(world.tool("one__a").status, 200);
    assert_eq!(listed(&world), [""; 0]);
}

#[test]
fn without_the_list_its_last_state_holds_for_a_while_and_then_nothing_is_let_through() {
    let world = world("published");
    kill(&world, &json!({ "kind": "tool", "value": "one__a" }));
    world.sim.clock.advance(SECOND * 15);
    assert_eq!(world.tool("one__a").status, 503);
    world.sim.kv.publish("switches", "no list");
    world.sim.clock.advance(SECOND * 500);
    assert_eq!(world.tool("one__a").status, 503);
    assert_eq!(world.tool("two__a").status, 200);
    world.sim.clock.advance(SECOND * 200);
    assert_eq!(world.tool("two__a").status, 500);
}

#[test]
fn a_task_that_has_not_been_begun_fails_with_the_reason_and_is_not_run() {
    for switch in [
        json!({ "kind": "tool", "value": "up__a" }),
        json!({ "kind": "principal", "value": "ada", "issuer": ISSUER }),
        json!({ "kind": "all" }),
    ] {
        let world = Setup::new()
            .upstream("up", &Script::modern(&["a"]))
            .rule(json!({ "name": "up__a", "execution": "task" }))
            .secret("TIDEGATE_ADMIN_TOKEN", OPERATOR)
            .start();
        let handle = handle(&create(&world));
        kill(&world, &switch);
        world.sim.clock.advance(SECOND * 15);
        world.deliver();
        assert_eq!(door(&world, "DELETE", &switch).status, 200);
        world.sim.clock.advance(SECOND * 15);
        world.deliver();
        let told = world.call(get(&handle));
        assert_eq!(told.result()["status"], "failed", "{switch}");
        assert_eq!(
            told.result()["error"]["message"],
            "Switched off by the operator: it deletes too much"
        );
        assert_eq!(world.count("up", "tools/call"), 0);
    }
}

#[test]
fn a_revival_that_was_not_published_is_published_when_it_is_asked_for_again() {
    let world = world("published");
    let switch = json!({ "kind": "tool", "value": "one__a" });
    kill(&world, &switch);
    world.sim.clock.advance(SECOND * 15);
    assert_eq!(world.tool("one__a").status, 503);
    world.sim.kv.faults.outage(true);
    assert_eq!(door(&world, "DELETE", &switch).status, 500);
    world.sim.kv.faults.outage(false);
    world.sim.clock.advance(SECOND * 15);
    assert_eq!(world.tool("one__a").status, 503, "KV has not heard of it");
    assert_eq!(door(&world, "DELETE", &switch).status, 404);
    world.sim.clock.advance(SECOND * 15);
    assert_eq!(world.tool("one__a").status, 200);
}

#[test]
fn two_operators_do_not_undo_each_others_switches() {
    let world = world("published");
    let other = world.isolate();
    let first = world.answering(asked("POST", &killing("tool", "one__a")));
    let second = other.answering(asked("POST", &killing("tool", "two__a")));
    let (first, second) = world.sim.run(join(first, second));
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 200));
    assert_eq!(listed(&world), ["tool:one__a", "tool:two__a"]);
    let published = world.sim.kv.stored("switches").unwrap();
    let published: Value = serde_json::from_slice(&published).unwrap();
    assert_eq!(published["switches"].as_array().unwrap().len(), 2);
}

#[test]
fn the_door_opens_to_the_operator_alone_and_takes_nothing_odd() {
    let world = world("published");
    let all = killing("all", "");
    for ask in [
        asked("POST", &all).token("wrong"),
        asked("POST", &all).anonymous(),
    ] {
        assert_eq!(world.ask(ask).status, 401);
    }
    for odd in [
        json!({}),
        json!({ "kind": "all" }),
        json!({ "kind": "all", "value": "x", "reason": "r" }),
        json!({ "kind": "tool", "value": "a", "reason": "r" }),
        json!({ "kind": "tool", "value": "one__", "reason": "r" }),
        json!({ "kind": "tool", "value": "nobody__a", "reason": "r" }),
        json!({ "kind": "upstream", "value": "nobody", "reason": "r" }),
        json!({ "kind": "principal", "value": "ada", "reason": "r" }),
        json!({ "kind": "tenant", "value": "north", "issuer": "x", "reason": "r" }),
        json!({ "kind": "tenant", "value": "north", "reason": "two\nlines" }),
        json!({ "kind": "tenant", "value": "north", "reason": "r", "more": 1 }),
    ] {
        assert_eq!(door(&world, "POST", &odd).status, 400, "{odd}");
    }
    assert_eq!(door(&world, "PUT", &all).status, 405);
    assert_eq!(
        door(&world, "DELETE", &json!({ "kind": "all" })).status,
        404
    );
    assert_eq!(listed(&world), [""; 0]);
    let lines = world.events("admin");
    assert_eq!(lines.len(), 16, "each leaves a line");
    let closed = Setup::new()
        .upstream("one", &Script::modern(&["a"]))
        .start();
    assert_eq!(door(&closed, "POST", &all).status, 404);
}

#[test]
fn killing_again_changes_the_reason_and_the_end() {
    let world = world("published");
    kill(&world, &json!({ "kind": "upstream", "value": "one" }));
    world.sim.clock.advance(SECOND * 2);
    let again = json!({ "kind": "upstream", "value": "one", "reason": "broken", "forMs": 1000 });
    let told = door(&world, "POST", &again);
    let switches = told.json()["switches"].as_array().unwrap().clone();
    assert_eq!(switches.len(), 1);
    assert_eq!(switches[0]["reason"], "broken");
    assert!(switches[0]["untilMs"].is_u64());
}

fn setup(revocation: &str) -> Setup {
    let issuers =
        json!([{ "issuer": ISSUER, "jwksUri": format!("{ISSUER}/keys"), "tenantClaim": "tid" }]);
    Setup::new()
        .upstream("one", &Script::modern(&["a", "ab"]))
        .upstream("two", &Script::modern(&["a"]))
        .config(&json!({ "authentication": { "issuers": issuers, "revocation": revocation } }))
        .secret("TIDEGATE_ADMIN_TOKEN", OPERATOR)
}

fn world(revocation: &str) -> World {
    setup(revocation).start()
}

fn killing(kind: &str, value: &str) -> Value {
    let mut asked = json!({ "kind": kind, "reason": "it deletes too much" });
    if !value.is_empty() {
        asked["value"] = value.into();
    }
    asked
}

#[track_caller]
fn kill(world: &World, switch: &Value) {
    let mut asked = switch.clone();
    asked["reason"] = "it deletes too much".into();
    let told = door(world, "POST", &asked);
    assert_eq!(told.status, 200, "{told:?}");
}

fn asked(method: &str, asked: &Value) -> Ask {
    Ask::http(method, "/admin/switches")
        .body(asked.to_string())
        .token(OPERATOR)
}

fn door(world: &World, method: &str, switch: &Value) -> Told {
    world.ask(asked(method, switch))
}

fn listed(world: &World) -> Vec<String> {
    let told = world.ask(Ask::http("GET", "/admin/switches").token(OPERATOR));
    let switches = told.json()["switches"].as_array().unwrap().clone();
    let mut names: Vec<String> = switches
        .iter()
        .map(|switch| {
            format!(
                "{}:{}",
                switch["kind"].as_str().unwrap(),
                switch["value"].as_str().unwrap_or("")
            )
        })
        .collect();
    names.sort();
    names
}
