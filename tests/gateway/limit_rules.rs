//! Limits beside the one per client: for whom, on what, at which cost, counted how.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Ask, Script, Setup, Told, World, issuer, legacy, modern, tool};

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;

fn limited(rules: &Value) -> World {
    setup(rules).start()
}

/// Of which one tool's calls count as five.
fn dear(rules: &Value) -> World {
    let rule = json!({ "name": "search__deep", "cost": 5 });
    setup(rules).rule(rule).start()
}

fn setup(rules: &Value) -> Setup {
    Setup::new()
        .upstream("search", &Script::modern(&["query", "deep"]))
        .upstream("mail", &Script::modern(&["send"]))
        .config(&json!({
            "authentication": { "type": "jwt", "issuers": [{
                "issuer": issuer::ISSUER, "jwksUri": format!("{}/keys", issuer::ISSUER), "tenantClaim": "tenant",
            }] },
            "limits": { "rules": rules },
        }))
}

fn of(world: &World, claims: &Value, name: &str) -> Told {
    let token = world.token(claims);
    world.call(tool(name).token(&token))
}

fn admitted(world: &World, claims: &Value, name: &str, times: usize) -> usize {
    let asked = (0..times).map(|_| of(world, claims, name));
    asked.filter(|told| told.status == 200).count()
}

#[test]
fn a_limit_counts_apart_what_it_is_per() {
    let ada = json!({ "sub": "ada", "client_id": "editor", "tenant": "north" });
    let ben = json!({ "sub": "ben", "client_id": "editor", "tenant": "north" });
    let eve = json!({ "sub": "eve", "client_id": "robot", "tenant": "south" });
    // How much ada, then ben, then eve get of ada's tool, and then eve of another tool.
    for (per, expected) in [
        (json!([]), [3, 0, 0, 0]),
        (json!(["principal"]), [3, 3, 3, 0]),
        (json!(["client"]), [3, 0, 3, 0]),
        (json!(["tenant"]), [3, 0, 3, 0]),
        (json!(["tool"]), [3, 0, 0, 3]),
        (json!(["upstream"]), [3, 0, 0, 3]),
        (json!(["principal", "tool"]), [3, 3, 3, 3]),
        (json!(["tenant", "upstream"]), [3, 0, 3, 3]),
    ] {
        for counter in ["kv", "atomic"] {
            let world = limited(
                &json!([{ "name": "l", "per": per, "rate": { "requests": 3 }, "counter": counter }]),
            );
            let got = [
                admitted(&world, &ada, "search__query", 4),
                admitted(&world, &ben, "search__query", 4),
                admitted(&world, &eve, "search__query", 4),
                admitted(&world, &eve, "mail__send", 4),
            ];
            assert_eq!(got, expected, "{per} {counter}");
        }
    }
}

#[test]
fn tools_nobody_lists_are_counted_as_one() {
    for counter in ["kv", "atomic"] {
        let world = limited(
            &json!([{ "name": "l", "per": ["tool"], "rate": { "requests": 3 }, "counter": counter }]),
        );
        let limited = (0..8).filter(|n| world.tool(&format!("search__x{n}")).status == 429);
        assert_eq!(limited.count(), 5, "{counter}");
        assert_eq!(world.tool("search__query").status, 200, "{counter}");
        assert_eq!(world.tool("mail__x").reason(), "", "of another upstream");
        let counters = world.sim.atomic.keys();
        let counters = counters.iter().filter(|key| key.starts_with("quota/"));
        let expected = if counter == "atomic" { 3 } else { 0 };
        assert_eq!(counters.count(), expected, "{counter}");
    }
}

#[test]
fn a_limit_for_some_tools_leaves_the_others_alone() {
    let world = limited(
        &json!([{ "name": "searches", "tools": ["search__*"], "rate": { "requests": 2 } }]),
    );
    let statuses = |name: &str| -> Vec<u16> {
        let asked = (0..4).map(|_| world.tool(name).status.as_u16());
        asked.collect()
    };
    assert_eq!(statuses("search__query"), [200, 200, 429, 429]);
    assert_eq!(statuses("mail__send"), [200, 200, 200, 200]);
    assert_eq!(world.call(modern("tools/list", json!({}))).status, 200);
}

#[test]
fn a_dear_call_counts_as_many() {
    for counter in ["kv", "atomic"] {
        let world = dear(
            &json!([{ "name": "l", "per": ["principal"], "rate": { "requests": 8 }, "counter": counter }]),
        );
        assert_eq!(world.tool("search__deep").status, 200, "5 of 8");
        assert_eq!(world.tool("search__deep").status, 429, "10 of 8");
        let cheap = (0..4).filter(|_| world.tool("search__query").status == 200);
        assert_eq!(
            cheap.count(),
            3,
            "{counter}: and nothing was lost by the refusal"
        );
    }
}

#[test]
fn a_call_is_counted_in_all_its_limits_or_in_none() {
    for counter in ["kv", "atomic"] {
        let world = limited(&json!([
            { "name": "wide", "per": ["principal"], "rate": { "requests": 4 }, "counter": counter },
            { "name": "narrow", "tools": ["search__*"], "rate": { "requests": 1 }, "counter": "kv" },
        ]));
        assert_eq!(world.tool("search__query").status, 200);
        for _ in 0..5 {
            let told = world.tool("search__query");
            assert_eq!(told.error()["data"]["limit"], "narrow");
        }
        let rest = (0..5).filter(|_| world.tool("mail__send").status == 200);
        assert_eq!(rest.count(), 3, "{counter}");
    }
}

#[test]
fn limits_hold_inside_a_batch_and_when_tasks_are_polled() {
    let world = limited(&json!([{ "name": "l", "per": ["principal"], "rate": { "requests": 2 } }]));
    let one = |id: u64| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "search__query" } });
    let mut ask = legacy(
        "2025-03-26",
        "tools/call",
        json!({ "name": "search__query" }),
    );
    ask.message = json!([one(1), one(2), one(3), one(4)]);
    let told = world.ask(ask);
    let answers: Vec<Value> = serde_json::from_str(&told.text).unwrap();
    let refused = answers
        .iter()
        .filter(|answer| answer.get("error").is_some());
    assert_eq!((answers.len(), refused.count()), (4, 2));
    let poll: Ask = modern("tasks/get", json!({ "taskId": "none" })).with_tasks();
    assert_eq!(world.call(poll).status, 429);
}

#[test]
fn every_answer_says_what_is_left_of_ones_own_limits_and_of_no_others() {
    let world = limited(&json!([
        { "name": "mine", "per": ["principal"], "rate": { "requests": 10, "windowMs": MINUTE } },
        { "name": "ours", "per": ["tenant"], "rate": { "requests": 10, "windowMs": MINUTE } },
        { "name": "all", "rate": { "requests": 10, "windowMs": MINUTE } },
    ]));
    let told = world.tool("search__query");
    assert_eq!(told.header("ratelimit-policy"), r#""mine";q=10;w=60"#);
    assert!(
        told.header("ratelimit").starts_with(r#""mine";r=9;t="#),
        "{told:?}"
    );
    for _ in 0..9 {
        world.tool("search__query");
    }
    let refused = world.tool("search__query");
    assert_eq!(refused.status, 429);
    assert!(
        refused.header("ratelimit").starts_with(r#""mine";r=0;t="#),
        "{refused:?}"
    );
    let unlimited = limited(&json!([]));
    assert_eq!(unlimited.tool("search__query").header("ratelimit"), "");
}

#[test]
fn an_exact_limit_is_never_overshot_by_any_number_of_isolates() {
    for (isolates, limit) in [(1, 100), (10, 100), (50, 1000), (200, 1000)] {
        let world = limited(
            &json!([{ "name": "l", "rate": { "requests": limit, "windowMs": MINUTE }, "counter": "atomic" }]),
        );
        let fleet: Vec<World> = (0..isolates).map(|_| world.isolate()).collect();
        let calls = 2 * limit.max(isolates);
        let admitted =
            (0..calls).filter(|n| fleet[n % isolates].tool("search__query").status == 200);
        let admitted = admitted.count();
        let operations = world.sim.atomic.operations("quota/");
        println!(
            "isolates {isolates:3}  limit {limit:4}  admitted {admitted:4}  operations {operations:4}  calls {calls}"
        );
        assert!(admitted <= limit, "{admitted} of {limit}");
        let chunk = (limit / 64).max(1);
        assert!(
            admitted + isolates * chunk >= limit,
            "more is lost than a chunk for each isolate"
        );
        // Chunks grow, twice as large each time: 1, 1, 2, 4, 8.
        let growing = 2 + chunk.ilog2() as usize;
        assert!(
            operations <= limit.div_ceil(chunk) + isolates * growing,
            "{operations}"
        );
    }
}

/// Every limit there is, none of which says how it is counted.
fn unsaid(limit: u64) -> [Value; 3] {
    let rate = json!({ "requests": limit, "windowMs": MINUTE });
    let rules = json!([{ "name": "l", "per": ["principal"], "rate": rate }]);
    let tools = json!([{ "name": "search__query", "rateLimit": rate }]);
    [
        json!({ "limits": { "perClient": rate } }),
        json!({ "limits": { "rules": rules } }),
        json!({ "tools": tools }),
    ]
}

#[test]
fn a_limit_that_does_not_say_how_is_counted_as_suits_the_host() {
    const LIMIT: usize = 100;
    for config in unsaid(LIMIT as u64) {
        for short_lived in [false, true] {
            let script = Script::modern(&["query"]);
            let world = Setup::new()
                .upstream("search", &script)
                .config(&config)
                .start();
            if short_lived {
                world.sim.make_short_lived();
            }
            // Each instance ends after its second call, before anything deferred has run.
            let call = |_| {
                let instance = world.isolate();
                let twice = (0..2).filter(|_| instance.tool("search__query").status == 200);
                let admitted = twice.count();
                instance.lose_deferred();
                admitted
            };
            let admitted: usize = (0..2 * LIMIT).map(call).sum();
            match short_lived {
                true => assert!((LIMIT / 2..=LIMIT).contains(&admitted), "{admitted}"),
                false => assert_eq!(admitted, 4 * LIMIT, "each counts alone"),
            }
            let operations = world.sim.atomic.operations("quota/");
            assert_eq!(operations > 0, short_lived, "{config}");
        }
    }
}

#[test]
fn what_a_limit_says_of_how_it_is_counted_holds_on_every_host() {
    for short_lived in [false, true] {
        for counter in ["kv", "atomic"] {
            let world =
                limited(&json!([{ "name": "l", "rate": { "requests": 3 }, "counter": counter }]));
            if short_lived {
                world.sim.make_short_lived();
            }
            assert_eq!(world.tool("search__query").status, 200);
            let operations = world.sim.atomic.operations("quota/");
            assert_eq!(operations > 0, counter == "atomic", "{short_lived}");
        }
    }
}

#[test]
fn what_instances_that_end_have_leased_costs_at_most_half_of_the_limit() {
    for (limit, calls_each) in [(64, 1), (640, 1), (1280, 2), (1280, 7), (1280, 128)] {
        let world = limited(
            &json!([{ "name": "l", "rate": { "requests": limit, "windowMs": MINUTE }, "counter": "atomic" }]),
        );
        let mut admitted = 0;
        let mut refused = false;
        while !refused {
            let instance = world.isolate();
            for _ in 0..calls_each {
                let status = instance.tool("search__query").status;
                refused |= status != 200;
                admitted += usize::from(status == 200);
            }
        }
        println!("limit {limit}, {calls_each} calls for each instance: {admitted} admitted");
        assert!(
            (limit / 2..=limit).contains(&admitted),
            "{admitted} of {limit}"
        );
    }
}

#[test]
fn a_dear_call_that_does_not_fit_leaves_the_rest_to_others() {
    let world = dear(
        &json!([{ "name": "l", "rate": { "requests": 5, "windowMs": 31 * DAY }, "counter": "atomic" }]),
    );
    assert_eq!(world.tool("search__query").status, 200);
    let other = world.isolate();
    for _ in 0..3 {
        let told = other.tool("search__deep");
        assert_eq!(told.status, 429);
        let wait: u64 = told.header("retry-after").parse().unwrap();
        assert!(wait > 1, "not before the window ends");
        other.settle();
    }
    let rest = (0..6).filter(|_| world.tool("search__query").status == 200);
    assert_eq!(rest.count(), 4);
}

#[test]
fn a_client_over_its_own_limit_takes_nothing_of_a_shared_one() {
    let world = limited(&json!([
        { "name": "each", "per": ["principal"], "rate": { "requests": 2, "windowMs": MINUTE }, "counter": "atomic" },
        { "name": "all", "rate": { "requests": 10, "windowMs": MINUTE }, "counter": "atomic" },
    ]));
    // Each instance ends after its call, before anything deferred has run.
    let admitted = |subject: &str, times: usize| {
        let claims = json!({ "sub": subject });
        let calls = (0..times).map(|_| {
            let instance = world.isolate();
            let told = of(&instance, &claims, "search__query");
            instance.lose_deferred();
            told
        });
        calls.filter(|told| told.status == 200).count()
    };
    assert_eq!(admitted("ada", 30), 2);
    for subject in ["ben", "dan", "eve", "fay"] {
        assert_eq!(admitted(subject, 3), 2, "{subject}");
    }
    assert_eq!(admitted("gus", 3), 0, "ten of ten are admitted");
}

#[test]
fn a_call_that_one_exact_limit_refuses_leaves_no_lease_of_another() {
    let world = limited(&json!([
        { "name": "wide", "per": ["principal"], "rate": { "requests": 4, "windowMs": MINUTE }, "counter": "atomic" },
        { "name": "narrow", "tools": ["search__*"], "rate": { "requests": 1, "windowMs": MINUTE }, "counter": "atomic" },
    ]));
    let call = |name: &str| {
        let instance = world.isolate();
        let told = instance.tool(name);
        instance.settle();
        told
    };
    assert_eq!(call("search__query").status, 200);
    for _ in 0..5 {
        assert_eq!(call("search__query").error()["data"]["limit"], "narrow");
    }
    let rest = (0..5).filter(|_| call("mail__send").status == 200);
    assert_eq!(rest.count(), 3);
}

#[test]
fn a_raised_exact_limit_is_in_force_in_its_window() {
    let rules = |requests: u32| {
        let rate = json!({ "requests": requests, "windowMs": 31 * DAY });
        json!([{ "name": "l", "rate": rate, "counter": "atomic" }])
    };
    let world = limited(&rules(2));
    let admitted = |times: usize| {
        let calls = (0..times).filter(|_| {
            let instance = world.isolate();
            let told = instance.tool("search__query");
            instance.settle();
            told.status == 200
        });
        calls.count()
    };
    assert_eq!(admitted(10), 2);
    world.sim.kv.publish("config", setup(&rules(5)).snapshot());
    assert_eq!(admitted(10), 3);
}

#[test]
fn what_is_left_of_an_exact_limit_is_more_than_what_is_leased() {
    let world = limited(
        &json!([{ "name": "l", "per": ["principal"], "rate": { "requests": 100 }, "counter": "atomic" }]),
    );
    for left in [99, 98, 97] {
        let told = world.tool("search__query");
        assert!(
            told.header("ratelimit")
                .starts_with(&format!(r#""l";r={left};"#)),
            "{told:?}"
        );
    }
}

#[test]
fn an_exact_limit_begins_anew_with_its_window() {
    let world = limited(
        &json!([{ "name": "l", "rate": { "requests": 2, "windowMs": MINUTE }, "counter": "atomic" }]),
    );
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let statuses: Vec<u16> = (0..3)
            .map(|_| world.tool("search__query").status.as_u16())
            .collect();
        assert_eq!(statuses, [200, 200, 429]);
        let told = world.tool("search__query");
        let wait: u64 = told.header("retry-after").parse().unwrap();
        assert!(wait <= 60);
        seen.insert(wait);
        world.sim.clock.advance(Duration::from_secs(wait));
    }
}

#[test]
fn what_cannot_be_counted_exactly_is_not_admitted_and_a_rough_limit_admits_it() {
    for (counter, status) in [("atomic", 500), ("kv", 200)] {
        let world = limited(
            &json!([{ "name": "l", "tools": ["search__*"], "rate": { "requests": 200 }, "counter": counter }]),
        );
        world.call(modern("server/discover", json!({})));
        world.sim.atomic.faults.outage(true);
        world.sim.kv.faults.outage(true);
        assert_eq!(world.tool("search__query").status, status, "{counter}");
    }
}

#[test]
fn a_limit_the_host_counts_is_counted_by_the_host_for_all_isolates() {
    let rule = json!({
        "name": "l", "per": ["principal"], "rate": { "requests": 3, "windowMs": MINUTE },
        "counter": "native", "binding": "BURST",
    });
    let world = limited(&json!([rule]));
    world.sim.bind_limiter("BURST", Some(3));
    let ada = json!({ "sub": "ada" });
    let isolate = world.isolate();
    assert_eq!(admitted(&world, &ada, "search__query", 2), 2);
    assert_eq!(admitted(&isolate, &ada, "search__query", 2), 1);
    let refused = of(&world, &ada, "search__query");
    assert_eq!(refused.status, 429, "{refused:?}");
    assert_eq!(refused.error()["data"]["limit"], "l");
    assert_eq!(refused.header("retry-after"), "60");
    assert_eq!(refused.header("ratelimit"), "", "nobody knows what is left");
    assert_eq!(
        admitted(&world, &json!({ "sub": "ben" }), "search__query", 4),
        3
    );
    world.settle();
    assert_eq!(world.sim.atomic.operations("quota/"), 0);
    assert_eq!(
        (world.sim.kv.reads("rate/"), world.sim.kv.writes("rate/")),
        (0, 0)
    );
}

#[test]
fn a_limiter_of_the_host_is_asked_for_each_request_a_call_counts_as() {
    let rule = json!({ "name": "l", "rate": { "requests": 12, "windowMs": MINUTE }, "counter": "native", "binding": "BURST" });
    let world = dear(&json!([rule]));
    world.sim.bind_limiter("BURST", Some(12));
    let statuses = [0; 3].map(|_| world.tool("search__deep").status.as_u16());
    assert_eq!(statuses, [200, 200, 429]);
}

#[test]
fn without_its_limiter_a_limit_is_counted_as_suits_the_host() {
    let rule = json!({ "name": "l", "rate": { "requests": 3, "windowMs": MINUTE }, "counter": "native", "binding": "BURST" });
    for short_lived in [false, true] {
        for silent in [false, true] {
            let world = limited(&json!([rule]));
            if short_lived {
                world.sim.make_short_lived();
            }
            if silent {
                world.sim.bind_limiter("BURST", None);
            }
            let what = format!("short-lived {short_lived}, silent {silent}");
            assert_eq!(
                admitted(&world, &json!({ "sub": "ada" }), "search__query", 5),
                3,
                "{what}"
            );
            let operations = world.sim.atomic.operations("quota/");
            assert_eq!(operations > 0, short_lived, "{what}");
            let said = json!(world.events("rate_counts_unavailable")).to_string();
            assert!(said.contains("BURST"), "{what}: {said}");
        }
    }
}
