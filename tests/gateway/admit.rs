//! How often a principal may call: counted through KV, never at its mercy.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tidegate_gateway::limits::{HIDDEN_SHARE, REPORT_INTERVAL};
use tidegate_simulator::Fault;

use crate::world::{Script, Setup, World, legacy, modern, tool};

const MINUTE: u64 = 60_000;

#[test]
fn over_the_limit_a_client_is_told_when_to_come_back() {
    let world = limited(3);
    for _ in 0..3 {
        assert_eq!(world.tool("search__query").status, 200);
    }
    let told = world.tool("search__query");
    assert_eq!(told.refusal(), (429, -31002));
    assert_eq!(told.reason(), "rate_limited");
    assert_eq!(told.error()["data"]["limit"], "per-client");
    let seconds: u64 = told.header("retry-after").parse().unwrap();
    let millis = told.error()["data"]["retryAfterMs"].as_u64().unwrap();
    assert!(
        seconds * 1000 >= millis && seconds <= 2 * MINUTE / 1000,
        "{told:?}"
    );
    assert_eq!(world.count("search", "tools/call"), 3);
    world.sim.clock.advance(Duration::from_secs(seconds));
    assert_eq!(
        world.tool("search__query").status,
        200,
        "and is let in then"
    );
}

#[test]
fn however_many_come_at_once_to_a_new_isolate_one_of_them_looks() {
    let world = limited(1_000);
    world.list("tools/list");
    let other = world.isolate();
    // Its configuration, keys and tools.
    other.call(tool("search__query").by("ben"));
    let calls = (0..200).map(|_| other.answering(tool("search__query")));
    let told = world.sim.run(join_all(calls));
    assert!(told.iter().all(|told| told.status == 200));
    let reads = world.sim.kv.reads("rate/");
    assert_eq!(reads, 8, "a row, once");
}

#[test]
fn a_refused_legacy_client_reads_the_same() {
    let world = limited(1);
    let ask = || {
        legacy(
            "2025-06-18",
            "tools/call",
            json!({ "name": "search__query" }),
        )
    };
    assert_eq!(world.call(ask()).status, 200);
    let told = world.call(ask());
    assert_eq!(told.refusal(), (429, -31002));
    assert_ne!(told.header("retry-after"), "");
}

#[test]
fn one_principal_does_not_use_up_anothers_share() {
    let world = limited(2);
    for subject in ["ada", "ben", "eve"] {
        let statuses: Vec<u16> = (0..3)
            .map(|_| {
                world
                    .call(tool("search__query").by(subject))
                    .status
                    .as_u16()
            })
            .collect();
        assert_eq!(statuses, [200, 200, 429], "{subject}");
    }
}

#[test]
fn whoever_is_over_the_limit_makes_us_read_no_body() {
    let world = limited(1);
    assert_eq!(world.tool("search__query").status, 200);
    let mut request = world.request(tool("search__query"));
    *request.body_mut() =
        tidegate_gateway::body::Body::stream(futures_util::stream::poll_fn(|_| {
            panic!("the body was read")
        }));
    assert_eq!(world.serve(request).status, 429);
}

#[test]
fn a_request_that_is_not_authenticated_counts_for_nobody() {
    let world = limited(2);
    for _ in 0..10 {
        assert_eq!(world.call(tool("search__query").anonymous()).status, 401);
    }
    assert_eq!(world.tool("search__query").status, 200);
}

#[test]
fn a_tool_has_a_limit_of_its_own() {
    let world = Setup::new()
        .upstream("search", &Script::modern(&["query", "count"]))
        .rule(
            json!({ "name": "search__query", "rateLimit": { "requests": 2, "windowMs": MINUTE } }),
        )
        .start();
    let statuses: Vec<u16> = (0..3)
        .map(|_| world.tool("search__query").status.as_u16())
        .collect();
    assert_eq!(statuses, [200, 200, 429]);
    let told = world.tool("search__query");
    assert_eq!(told.error()["data"]["limit"], "search__query");
    assert_eq!(world.tool("search__count").status, 200);
    assert_eq!(world.call(modern("tools/list", json!({}))).status, 200);
    assert_eq!(world.call(tool("search__query").by("ben")).status, 200);
    let bare = world.token(&json!({ "aud": "https://gw.example.com/servers/search/mcp" }));
    let told = world.call(tool("query").token(&bare).to("/servers/search/mcp"));
    assert_eq!(told.status, 429, "under another name it is the same tool");
}

#[test]
fn a_call_writes_nothing_to_kv_before_it_is_answered() {
    let world = limited(100);
    world.tool("search__query");
    world.settle();
    for _ in 0..50 {
        let before = world.sim.kv.writes("");
        world.tool("search__query");
        assert_eq!(world.sim.kv.writes(""), before);
    }
}

#[test]
fn no_key_is_written_more_than_once_a_second() {
    let world = limited(640);
    for _ in 0..200 {
        world.tool("search__query");
        world.step_deferred();
        world.sim.clock.advance(Duration::from_millis(50));
        world.step_deferred();
    }
    assert!(world.sim.kv.too_fast().is_empty());
    let writes = world.sim.kv.writes("rate");
    assert!((2..=6).contains(&writes), "{writes} writes in ten seconds");
}

#[test]
fn isolates_see_each_others_counts_after_they_were_reported() {
    let world = limited(40);
    let other = world.isolate();
    for _ in 0..40 {
        assert_eq!(world.tool("search__query").status, 200);
    }
    world.later(REPORT_INTERVAL);
    world.settle();
    let statuses = unhidden(&other);
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
}

#[test]
fn all_isolates_together_overshoot_by_no_more_than_the_stated_bound() {
    let isolates = 4;
    let world = limited(100);
    let mut worlds = vec![world];
    worlds.extend(
        (1..isolates)
            .map(|_| worlds[0].isolate())
            .collect::<Vec<_>>(),
    );
    worlds[0].sim.clock.advance(Duration::from_secs(5));
    for world in &worlds {
        world.sim.kv.lag.set(Duration::from_secs(2));
    }
    let mut admitted = 0;
    // Forty-five seconds of one minute's bucket.
    for _ in 0..150 {
        for world in &worlds {
            admitted += usize::from(world.tool("search__query").status == 200);
            world.step_deferred();
        }
        worlds[0].sim.clock.advance(Duration::from_millis(300));
        worlds.iter().for_each(World::step_deferred);
    }
    assert!(admitted >= 100, "{admitted}");
    assert!(
        admitted < isolates * 100,
        "each counts the others' calls too: {admitted}"
    );
}

#[test]
fn a_kv_that_is_down_refuses_nobody_and_each_isolate_still_counts() {
    let world = limited(5);
    world.tool("search__query");
    world.sim.kv.faults.outage(true);
    let statuses: Vec<u16> = (0..6)
        .map(|_| {
            let status = world.tool("search__query").status.as_u16();
            world.later(Duration::from_millis(100));
            status
        })
        .collect();
    assert_eq!(statuses, [200, 200, 200, 200, 429, 429]);
}

#[test]
fn a_report_that_is_lost_is_made_again() {
    let world = limited(40);
    world.sim.kv.faults.arrange("rate", 1, Fault::Fail);
    for _ in 0..40 {
        world.tool("search__query");
    }
    for _ in 0..10 {
        world.later(REPORT_INTERVAL);
        world.tool("search__query");
    }
    world.settle();
    let statuses = unhidden(&world.isolate());
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
}

/// Calls until the isolate has used up what it may admit without looking at the others.
fn unhidden(isolate: &World) -> Vec<u16> {
    (0..=40 / HIDDEN_SHARE)
        .map(|_| isolate.tool("search__query").status.as_u16())
        .collect()
}

fn limited(requests: u32) -> World {
    Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .config(&json!({ "limits": { "perClient": { "requests": requests, "windowMs": MINUTE } } }))
        .start()
}
