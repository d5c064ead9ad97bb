//! Quotas and budgets: what calls use up in a day or a month, counted in the atomic store.

use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};
use tidegate_gateway::limits::leased::{CHUNKS, EXHAUSTED_FOR};
use tidegate_gateway::platform::HttpError;
use tidegate_gateway::quotas::WARNING_META;

use crate::tasks::create;
use crate::world::{Ask, Said, Script, Setup, Told, World, complete, tool};

const TOKEN: &str = "an-operators-token-of-some-length";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);

fn setup(quotas: &Value) -> Setup {
    let config = json!({
        "authentication": { "type": "jwt", "issuers": [{
            "issuer": crate::world::issuer::ISSUER,
            "jwksUri": format!("{}/keys", crate::world::issuer::ISSUER),
            "tenantClaim": "tenant",
        }] },
        "limits": { "quotas": quotas },
    });
    Setup::new()
        .secret("TIDEGATE_ADMIN_TOKEN", TOKEN)
        .rule(json!({ "name": "up__dear", "cost": 5, "price": { "perCall": 2_000_000 } }))
        .rule(json!({ "name": "up__long", "price": { "perThousandTokens": 1_000_000 } }))
        .rule(json!({ "name": "up__a", "execution": "auto" }))
        .config(&config)
}

fn world(quotas: &Value) -> World {
    let script = Script::modern(&["a", "b", "dear", "long"]);
    setup(quotas).upstream("up", &script).start()
}

/// An upstream whose results are about so many bytes.
fn answering(bytes: usize) -> Script {
    let script = Script::modern(&["a", "b", "dear", "long"]);
    script.on("tools/call", move |_| {
        Said::Result(complete(&"x".repeat(bytes)))
    });
    script
}

fn admin(world: &World, query: &str) -> Told {
    world.ask(Ask::http("GET", &format!("/admin/usage?{query}")).token(TOKEN))
}

/// What the gateway says is used of the first quota.
#[track_caller]
fn used(world: &World) -> u64 {
    world.settle();
    let told = admin(world, "");
    told.json()["usage"][0]["used"].as_u64().unwrap_or(0)
}

fn admitted(world: &World, name: &str, times: usize) -> usize {
    (0..times)
        .filter(|_| world.tool(name).status == 200)
        .count()
}

#[test]
fn a_quota_of_calls_is_never_exceeded_and_a_call_does_not_ask_the_store() {
    for (isolates, limit) in [(1, 640), (10, 640), (50, 2000)] {
        let world =
            world(&json!([{ "name": "q", "unit": "calls", "limit": limit, "period": "day" }]));
        let fleet: Vec<World> = (0..isolates).map(|_| world.isolate()).collect();
        let calls = limit + limit / 4;
        let told = (0..calls).filter(|n| fleet[n % isolates].tool("up__b").status == 200);
        let admitted = told.count();
        fleet.iter().for_each(World::settle);
        let operations = world.sim.atomic.operations("spent/");
        println!(
            "isolates {isolates:3}  quota {limit:4}  admitted {admitted:4}  operations {operations:4}  calls {calls}"
        );
        assert!(admitted <= limit, "{admitted} of {limit}");
        let chunks = CHUNKS as usize;
        assert!(
            admitted + isolates * limit / chunks >= limit,
            "more is lost than a chunk for each isolate"
        );
        // Eight calls one by one, then by an eighth more each time, then by whole chunks; and
        // what was asked for in vain is given back.
        let growing = 8 + 8 * (1 + (limit / chunks).ilog2() as usize);
        assert!(
            operations <= chunks + isolates * (growing + 2),
            "{operations}"
        );
        assert!(
            used(&fleet[0]) as usize <= limit,
            "the counter says as much"
        );
    }
}

#[test]
fn what_is_counted_is_what_the_unit_says() {
    const RESULT: usize = 4000;
    let told = |unit: &str, name: &str| {
        let quotas =
            json!([{ "name": "q", "unit": unit, "limit": 1_000_000_000, "period": "month" }]);
        let world = setup(&quotas).upstream("up", &answering(RESULT)).start();
        assert_eq!(world.tool(name).status, 200);
        // What is leased beyond what is spent is at most an eighth of it.
        used(&world)
    };
    assert_eq!(told("calls", "up__b"), 1);
    assert_eq!(told("calls", "up__dear"), 5);
    assert_eq!(told("money", "up__dear"), 2_000_000);
    assert_eq!(told("money", "up__b"), 0, "it has no price");
    let bytes = told("bytes", "up__b");
    assert!((4000..5200).contains(&bytes), "{bytes}");
    let tokens = told("tokens", "up__b");
    assert!((1000..1300).contains(&tokens), "{tokens}");
    let money = told("money", "up__long");
    assert!((1_000_000..1_300_000).contains(&money), "{money}");
}

#[test]
fn a_refusal_says_of_which_quota_and_until_when() {
    for (period, resets) in [("day", "T00:00:00.000Z"), ("month", "-01T00:00:00.000Z")] {
        let world = world(
            &json!([{ "name": "q", "unit": "calls", "limit": 2, "period": period, "per": ["principal"] }]),
        );
        assert_eq!(admitted(&world, "up__b", 2), 2);
        let told = world.tool("up__b");
        assert_eq!(told.refusal(), (429, -31002));
        assert_eq!(told.reason(), "quota_exceeded");
        let data = &told.error()["data"];
        assert_eq!(
            (&data["quota"], &data["unit"]),
            (&json!("q"), &json!("calls"))
        );
        assert!(
            data["resetsAt"].as_str().unwrap().ends_with(resets),
            "{told:?}"
        );
        let wait: u64 = told.header("retry-after").parse().unwrap();
        assert!(wait * 1000 >= data["retryAfterMs"].as_u64().unwrap());
        assert_eq!(world.audits().pop().unwrap()["outcome"], "quota_exceeded");
        assert_eq!(world.audits().pop().unwrap()["quotas"], json!(["q"]));
        world.sim.clock.advance(Duration::from_secs(wait) - MINUTE);
        assert_eq!(world.tool("up__b").status, 429);
        world.sim.clock.advance(MINUTE);
        assert_eq!(world.tool("up__b").status, 200, "a new {period}");
    }
}

#[test]
fn a_quota_counts_apart_what_it_is_per_and_concerns_its_tools_alone() {
    let ada = json!({ "sub": "ada", "client_id": "editor", "tenant": "north" });
    let ben = json!({ "sub": "ben", "client_id": "editor", "tenant": "north" });
    let eve = json!({ "sub": "eve", "client_id": "robot", "tenant": "south" });
    for (per, tools, expected) in [
        (json!([]), json!([]), [3, 0, 0, 0]),
        (json!(["principal"]), json!([]), [3, 3, 3, 0]),
        (json!(["tenant"]), json!([]), [3, 0, 3, 0]),
        (json!(["client"]), json!([]), [3, 0, 3, 0]),
        (json!(["tool"]), json!([]), [3, 0, 0, 3]),
        (json!(["tenant"]), json!(["up__b"]), [3, 0, 3, 4]),
    ] {
        let world = world(&json!([
            { "name": "q", "unit": "calls", "limit": 3, "period": "day", "per": per, "tools": tools }
        ]));
        let got = [
            (&ada, "up__b"),
            (&ben, "up__b"),
            (&eve, "up__b"),
            (&eve, "up__a"),
        ]
        .map(|(claims, name)| {
            let token = world.token(claims);
            let asked = (0..4).map(|_| world.call(tool(name).token(&token)));
            asked.filter(|told| told.status == 200).count()
        });
        assert_eq!(got, expected, "{per} {tools}");
    }
}

#[test]
fn a_soft_quota_warns_and_refuses_nobody_though_the_store_is_away() {
    let world = world(
        &json!([{ "name": "q", "unit": "calls", "limit": 4, "period": "day", "enforce": "soft", "per": ["principal"] }]),
    );
    let warned: Vec<bool> = (0..6)
        .map(|_| {
            let told = world.tool("up__b");
            world.settle();
            assert_eq!(told.status, 200);
            told.result()["_meta"][WARNING_META].is_array()
        })
        .collect();
    assert_eq!(warned, [false, false, false, true, true, true]);
    assert_eq!(world.audits().pop().unwrap()["quotas"], json!(["q"]));
    assert_eq!(used(&world), 6, "all of it is counted");
    world.sim.atomic.faults.outage(true);
    assert_eq!(world.tool("up__b").status, 200);
}

#[test]
fn a_hard_quota_that_cannot_be_counted_admits_nothing() {
    let world = world(&json!([{ "name": "q", "unit": "calls", "limit": 4, "period": "day" }]));
    assert_eq!(world.tool("up__b").status, 200);
    world.sim.atomic.faults.outage(true);
    assert_eq!(
        world.tool("up__b").status,
        StatusCode::INTERNAL_SERVER_ERROR
    );
}

#[test]
fn a_warning_has_figures_where_they_are_the_callers_own() {
    let own = json!({ "name": "own", "unit": "calls", "limit": 4, "period": "day", "per": ["principal"], "warnAtPercent": 50 });
    let shared = json!({ "name": "shared", "unit": "calls", "limit": 4, "period": "day" });
    let world = world(&json!([own, shared]));
    let warnings = |told: &Told| told.result()["_meta"][WARNING_META].clone();
    assert_eq!(warnings(&world.tool("up__b")), Value::Null);
    let half = warnings(&world.tool("up__b"));
    assert_eq!(half.as_array().unwrap().len(), 1);
    assert_eq!(
        (&half[0]["name"], &half[0]["used"], &half[0]["limit"]),
        (&json!("own"), &json!(2), &json!(4))
    );
    world.tool("up__b");
    let all = warnings(&world.tool("up__b"));
    assert_eq!(all[1]["name"], "shared");
    assert!(all[1]["resetsAt"].is_string());
    assert_eq!((all[1].get("used"), all[1].get("limit")), (None, None));
    assert_eq!(
        world.audits().pop().unwrap()["quotas"],
        json!(["own", "shared"])
    );
}

#[test]
fn results_overshoot_a_quota_by_no_more_than_the_calls_under_way() {
    const RESULT: u64 = 5_000;
    const LIMIT: u64 = 100_000;
    for (isolates, at_once) in [(1, 1), (1, 8), (5, 1), (5, 4)] {
        let quotas = json!([{ "name": "q", "unit": "bytes", "limit": LIMIT, "period": "day" }]);
        let script = Script::modern(&["b"]);
        script.on("tools/call", |_| {
            let result = complete(&"x".repeat(RESULT as usize));
            Said::After(Duration::from_millis(100), Box::new(Said::Result(result)))
        });
        let world = setup(&quotas).upstream("up", &script);
        let world = world.config(&json!({ "tools": [] })).start();
        let fleet: Vec<World> = (0..isolates).map(|_| world.isolate()).collect();
        let mut admitted = 0;
        for _ in 0..60 {
            let calls =
                (0..isolates * at_once).map(|n| fleet[n % isolates].answering(tool("up__b")));
            let told = world.sim.run(join_all(calls)).into_iter();
            admitted += told.filter(|told| told.status == 200).count() as u64;
            fleet.iter().for_each(World::settle);
        }
        // A result and its request, as JSON.
        let one = RESULT + 400;
        let spent = used(&fleet[0]);
        let bound = LIMIT + (isolates * at_once) as u64 * one;
        println!(
            "isolates {isolates}, {at_once} at once: {admitted} calls, {spent} of {LIMIT}, bound {bound}"
        );
        assert!(admitted * RESULT < spent, "all of it is counted");
        assert!(spent <= bound, "{spent} > {bound}");
        assert!(spent >= LIMIT - LIMIT / 4, "{spent}");
    }
}

#[test]
fn an_isolate_that_ends_takes_an_eighth_of_what_it_spent_at_most() {
    for calls_each in [1, 7, 50, 300] {
        const LIMIT: usize = 1000;
        let world =
            world(&json!([{ "name": "q", "unit": "calls", "limit": LIMIT, "period": "month" }]));
        let (mut admitted, mut refused) = (0, false);
        while !refused {
            let isolate = world.isolate();
            for _ in 0..calls_each {
                let status = isolate.tool("up__b").status;
                refused |= status != 200;
                admitted += usize::from(status == 200);
            }
            isolate.lose_deferred();
        }
        println!("{calls_each} calls each: {admitted} of {LIMIT}");
        assert!((LIMIT * 8 / 9..=LIMIT).contains(&admitted), "{admitted}");
    }
}

#[test]
fn a_dear_call_that_does_not_fit_leaves_the_rest_of_a_quota_to_others() {
    let world = world(&json!([{ "name": "q", "unit": "calls", "limit": 5, "period": "month" }]));
    assert_eq!(world.tool("up__b").status, 200);
    let other = world.isolate();
    assert_eq!(other.tool("up__dear").reason(), "quota_exceeded");
    other.settle();
    assert_eq!(admitted(&world, "up__b", 6), 4);
}

#[test]
fn a_principal_over_its_own_quota_takes_nothing_of_a_shared_one() {
    let world = world(&json!([
        { "name": "all", "unit": "calls", "limit": 5, "period": "month" },
        { "name": "each", "unit": "calls", "limit": 2, "period": "day", "per": ["principal"] },
    ]));
    let admitted = |subject: &str, times: usize| {
        let token = world.token(&json!({ "sub": subject }));
        let calls = (0..times).filter(|_| {
            let instance = world.isolate();
            let told = instance.call(tool("up__b").token(&token));
            if told.status != 200 {
                assert_eq!(told.error()["data"]["quota"], "each");
            }
            instance.lose_deferred();
            told.status == 200
        });
        calls.count()
    };
    assert_eq!(admitted("ada", 10), 2);
    assert_eq!(admitted("ben", 4), 2);
}

#[test]
fn the_result_of_a_task_is_counted_when_it_is_there() {
    let quotas = json!([{ "name": "q", "unit": "bytes", "limit": 1_000_000, "period": "day" }]);
    let world = setup(&quotas)
        .config(&json!({ "tools": [{ "name": "up__a", "execution": "task" }] }))
        .upstream("up", &answering(10_000))
        .start();
    create(&world);
    let before = used(&world);
    assert!(before < 1000, "{before}");
    world.deliver();
    world.settle();
    let after = used(&world);
    assert!((10_000..13_000).contains(&after), "{after}");
}

#[test]
fn what_did_not_reach_its_upstream_is_given_back() {
    let script = Script::modern(&["b"]);
    script.on("tools/call", |_| {
        Said::NoAnswer(HttpError::NotSent("refused".to_owned()))
    });
    let quotas = json!([{ "name": "q", "unit": "calls", "limit": 3, "period": "day" }]);
    let world = setup(&quotas)
        .upstream("up", &script)
        .config(&json!({ "tools": [], "circuitBreaker": { "failureThreshold": 100 } }))
        .start();
    for _ in 0..6 {
        assert_eq!(world.tool("up__b").reason(), "upstream_unavailable");
    }
    script.off("tools/call");
    assert_eq!(admitted(&world, "up__b", 5), 3);
}

#[test]
fn what_may_have_run_in_any_attempt_is_not_given_back() {
    let script = Script::modern(&["b"]);
    let lost = std::cell::Cell::new(false);
    script.on("tools/call", move |_| {
        lost.set(!lost.get());
        Said::NoAnswer(match lost.get() {
            true => HttpError::MaybeSent("cut".to_owned()),
            false => HttpError::NotSent("refused".to_owned()),
        })
    });
    let quotas = json!([{ "name": "q", "unit": "calls", "limit": 3, "period": "day" }]);
    let retry = json!({ "retry": { "maxAttempts": 2, "budgetPerSecond": 100 } });
    let world = setup(&quotas)
        .upstream_with("up", &script, &retry)
        .config(&json!({
            "tools": [{ "name": "up__b", "idempotent": true }],
            "circuitBreaker": { "failureThreshold": 100 },
        }))
        .start();
    world.list("tools/list");
    for _ in 0..3 {
        assert_eq!(world.tool("up__b").reason(), "upstream_lost");
    }
    assert_eq!(world.count("up", "tools/call"), 6);
    assert_eq!(world.tool("up__b").reason(), "quota_exceeded");
}

#[test]
fn what_an_idempotency_key_stands_for_is_counted_once() {
    let quotas = json!([{ "name": "q", "unit": "calls", "limit": 3, "period": "day" }]);
    let world = setup(&quotas)
        .config(&json!({ "idempotency": { "enabled": true } }))
        .upstream("up", &Script::modern(&["b"]))
        .start();
    let keyed = |key: &str| tool("up__b").header("idempotency-key", key);
    for _ in 0..5 {
        assert_eq!(world.call(keyed("k")).status, 200);
    }
    let other = tool("up__b").param("arguments", json!({ "q": "another" }));
    let other = other.header("idempotency-key", "k");
    assert_eq!(world.call(other).status, 422);
    assert_eq!(world.call(keyed(&"x".repeat(300))).status, 400);
    assert_eq!(used(&world), 2, "what is leased beyond it is one");
    assert_eq!(admitted(&world, "up__b", 4), 2);
}

#[test]
fn a_quota_of_another_period_is_another_quota() {
    let quota =
        |period: &str| json!([{ "name": "q", "unit": "calls", "limit": 3, "period": period }]);
    let world = world(&quota("day"));
    assert_eq!(admitted(&world, "up__b", 2), 2);
    let changed = setup(&quota("month")).upstream("up", &Script::modern(&["b"]));
    world.sim.kv.publish("config", changed.snapshot());
    world.later(MINUTE);
    world.tool("up__b");
    world.settle();
    assert_eq!(admitted(&world, "up__b", 5), 3, "of the month");
    assert_eq!(used(&world), 3);
}

#[test]
fn a_soft_quota_is_known_to_a_new_isolate_when_its_first_result_comes() {
    let quotas =
        json!([{ "name": "q", "unit": "calls", "limit": 4, "period": "day", "enforce": "soft" }]);
    let script = Script::modern(&["b"]);
    let world = setup(&quotas).upstream("up", &script);
    let world = world.config(&json!({ "tools": [] })).start();
    assert_eq!(admitted(&world, "up__b", 6), 6);
    world.settle();
    script.on("tools/call", |_| {
        let result = Said::Result(complete("late"));
        Said::After(Duration::from_secs(1), Box::new(result))
    });
    let other = world.isolate();
    let mut call = other.start_call(tool("up__b"));
    assert!(call.step().is_none());
    other.step_deferred();
    let told = call.finish().unwrap();
    assert!(told.result()["_meta"][WARNING_META].is_array(), "{told:?}");
}

#[test]
fn what_a_soft_quota_is_owed_does_not_end_with_its_isolate() {
    let quotas =
        json!([{ "name": "q", "unit": "calls", "limit": 100, "period": "day", "enforce": "soft" }]);
    let script = Script::modern(&["a", "b"]);
    let world = setup(&quotas)
        .upstream("up", &script)
        .config(&json!({ "tools": [{ "name": "up__a", "execution": "task" }] }))
        .start();
    world.list("tools/list");
    script.on("tools/call", |_| Said::Raw(500, "text/plain", Vec::new()));
    let failing = world.isolate();
    assert_eq!(failing.tool("up__b").reason(), "upstream_invalid");
    failing.settle();
    let creating = world.isolate();
    create(&creating);
    creating.settle();
    assert!(used(&world) >= 2, "{} of two calls", used(&world));
}

#[test]
fn a_raised_quota_is_in_force_soon() {
    let quota =
        |limit: u32| json!([{ "name": "q", "unit": "calls", "limit": limit, "period": "month" }]);
    let world = world(&quota(2));
    assert_eq!(admitted(&world, "up__b", 4), 2);
    let raised = setup(&quota(5)).upstream("up", &Script::modern(&["b"]));
    world.sim.kv.publish("config", raised.snapshot());
    world.later(EXHAUSTED_FOR);
    world.tool("up__b");
    world.later(EXHAUSTED_FOR);
    assert!((2..=3).contains(&admitted(&world, "up__b", 4)));
}

#[test]
fn operators_read_who_has_used_what() {
    let world = world(&json!([
        { "name": "calls", "unit": "calls", "limit": 100, "period": "day", "per": ["principal", "tool"] },
        { "name": "north", "unit": "calls", "limit": 1000, "period": "month", "per": ["tenant"], "enforce": "soft" },
    ]));
    for (subject, tenant, name, times) in [
        ("ada", "north", "up__b", 3),
        ("ada", "north", "up__a", 1),
        ("ben", "north", "up__b", 2),
        ("eve", "south", "up__b", 4),
    ] {
        let token =
            world.token(&json!({ "sub": subject, "tenant": tenant, "client_id": "editor" }));
        for _ in 0..times {
            assert_eq!(world.call(tool(name).token(&token)).status, 200);
        }
    }
    world.settle();
    let lines = |query: &str| {
        admin(&world, query).json()["usage"]
            .as_array()
            .unwrap()
            .clone()
    };
    for (query, count) in [
        ("", 5),
        ("quota=calls", 3),
        ("quota=north", 2),
        ("tenant=north", 4),
        ("tenant=north&quota=north", 1),
        ("principal=eve", 1),
        ("principal=eve&tool=up__a", 0),
        ("tool=up__b", 3),
        ("client=editor", 4),
        ("quota=none", 0),
    ] {
        // Ada's two tools and Ben's and Eve's one: four lines of the first quota.
        let extra = usize::from(query.is_empty() || query == "quota=calls");
        assert_eq!(lines(query).len(), count + extra, "{query}");
    }
    let eve = &lines("principal=eve")[0];
    assert_eq!(eve["used"], 4);
    assert_eq!(
        (&eve["quota"], &eve["tool"], &eve["tenant"], &eve["limit"]),
        (
            &json!("calls"),
            &json!("up__b"),
            &json!("south"),
            &json!(100)
        )
    );
    let period = eve["period"].as_str().unwrap().to_owned();
    world.sim.clock.advance(2 * DAY);
    assert_eq!(lines("quota=calls").len(), 0, "a new day");
    assert_eq!(lines(&format!("quota=calls&period={period}")).len(), 4);
    assert_eq!(lines("period=1999-01").len(), 0);
    for query in ["period=today", "cursor=x", "colour=red"] {
        let told = admin(&world, query);
        assert_eq!(told.status, 400, "{query}");
        assert_eq!(told.json()["error"]["reason"], "bad_query");
    }
    assert_eq!(
        world
            .ask(Ask::http("GET", "/admin/usage").token("wrong"))
            .status,
        401
    );
}

#[test]
fn tools_nobody_lists_are_one_spender() {
    let world = world(
        &json!([{ "name": "q", "unit": "calls", "limit": 4, "period": "day", "per": ["tool"] }]),
    );
    let refused = (0..10).filter(|n| world.tool(&format!("up__x{n}")).reason() == "quota_exceeded");
    assert_eq!(refused.count(), 6);
    assert_eq!(world.tool("up__b").status, 200);
    world.settle();
    let usage = admin(&world, "").json()["usage"].clone();
    let mut names: Vec<[Value; 2]> = usage
        .as_array()
        .unwrap()
        .iter()
        .map(|line| [line["tool"].clone(), line["upstream"].clone()])
        .collect();
    names.sort_by_key(|name| json!(name).to_string());
    assert_eq!(
        names,
        [[json!("up__b"), Value::Null], [Value::Null, json!("up")]]
    );
}

#[test]
fn a_long_list_comes_in_pages() {
    let world = world(
        &json!([{ "name": "q", "unit": "calls", "limit": 9, "period": "day", "per": ["principal"] }]),
    );
    for n in 0..130 {
        let told = world.call(tool("up__b").by(&format!("agent-{n}")));
        assert_eq!(told.status, 200);
    }
    world.settle();
    let (mut seen, mut query) = (std::collections::BTreeSet::new(), String::new());
    loop {
        let told = admin(&world, &query);
        let page = told.json();
        let lines = page["usage"].as_array().unwrap();
        assert!(lines.len() <= 100);
        for line in lines {
            assert!(seen.insert(line["principal"].as_str().unwrap().to_owned()));
        }
        match page["nextCursor"].as_str() {
            Some(cursor) => query = format!("cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 130);
}
