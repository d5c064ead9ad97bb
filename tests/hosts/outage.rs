//! Upstreams that are down, and how soon and how clearly clients hear of it.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::json;

use crate::call::{Call, get, get_with, send};
use crate::client::{CLIENTS, Client, Request};
use crate::stopwatch::Stopwatch;
use crate::work::trial;
use crate::world::{Fixture, PATIENCE_MS, World, text, texts};

/// What may come on top of an upstream's own time: the client's start, the gateway's work.
const SLACK_MS: u64 = 1_500;

/// Longest deep health may take: upstreams are asked side by side, each for 5 s at most.
const PROBE_MAX: Duration = Duration::from_secs(7);

pub fn trials(world: &Arc<World>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for client in CLIENTS {
        for upstream in ["closed", "silent", "mute"] {
            let title = format!(
                "outage::{}: hears soon that upstream `{upstream}` is down",
                client.label()
            );
            trials.push(trial(world, title, move |world| {
                hears_of_it(world, client, upstream)
            }));
        }
        let title = format!(
            "outage::{}: works with what is up while the rest is down",
            client.label()
        );
        trials.push(trial(world, title, move |world| {
            works_with_the_rest(world, client)
        }));
    }
    trials.push(trial(
        world,
        "outage::deep health tells which upstream is down".to_owned(),
        deep_health,
    ));
    trials
}

fn hears_of_it(world: &World, client: Client, upstream: &str) {
    let gateway = world.troubled();
    let tool = format!("{upstream}__anything");
    let mut reports = client.run(&Request {
        url: gateway.mcp(),
        token: Some(gateway.token()),
        // Connected first, so that only the call is timed.
        scenarios: "connect,call",
        tool: Some((&tool, "{}")),
        ..Request::default()
    });
    reports.remove("connect").expect("connect").ok();
    let seen = reports.remove("call").expect("call");
    // A tool call that fails may be an error, or a result that says so.
    let told = match seen.0.get("ok") {
        Some(result) => {
            assert_eq!(result["is_error"], true, "{}", seen.0);
            text(result, "/text").to_owned()
        }
        None => seen.failed().to_string() + &format!("{:?}", seen.http()),
    };
    assert!(
        seen.elapsed_ms() < PATIENCE_MS + SLACK_MS,
        "not within its time: {}",
        seen.0
    );
    // Clients that give up on a 5xx do not all pass its text on.
    let direct = send(
        &gateway.mcp(),
        &Call::tool(&tool).with_token(gateway.token()),
    );
    assert!(
        direct.body.contains(&format!("`{upstream}`")),
        "it names the upstream: {direct:?} and {told}"
    );
    assert!(direct.json()["error"]["code"].is_i64(), "{direct:?}");
}

fn works_with_the_rest(world: &World, client: Client) {
    let gateway = world.troubled();
    let mut reports = client.run(&Request {
        url: gateway.mcp(),
        token: Some(gateway.token()),
        prefix: Fixture::Everything.prefix(),
        scenarios: "connect,tools,call",
        ..Request::default()
    });
    reports.remove("connect").expect("connect").ok();
    let tools = reports.remove("tools").expect("tools");
    let names = texts(tools.ok(), "/names");
    assert!(names.contains(&"everything__echo"), "{names:?}");
    assert!(
        tools.elapsed_ms() < PATIENCE_MS + SLACK_MS,
        "not within its time: {}",
        tools.0
    );
    assert_eq!(
        reports.remove("call").expect("call").ok()["text"],
        "Echo: tide"
    );
}

fn deep_health(world: &World) {
    let gateway = world.troubled();
    let watch = Stopwatch::start();
    let answer = get_with(&gateway.at("/health/deep"), Some(gateway.token()));
    assert!(watch.elapsed() < PROBE_MAX, "{answer:?}");
    let told = answer.json();
    assert_eq!(told["status"], "degraded", "{told}");
    let upstreams = told["upstreams"].as_array().expect("upstreams");
    for (name, status) in [
        ("everything", "healthy"),
        ("closed", "unhealthy"),
        ("silent", "unhealthy"),
    ] {
        let found = upstreams.iter().find(|each| each["name"] == name);
        assert_eq!(
            found.map(|each| &each["status"]),
            Some(&json!(status)),
            "{name} in {told}"
        );
    }
    let alive = get(&gateway.at("/health"));
    assert_eq!(alive.status, 200, "the gateway itself is well: {alive:?}");
}
