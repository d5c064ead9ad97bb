//! Clients that call too often, and when they are told to return.

use std::sync::Arc;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::call::{Call, send};
use crate::client::{CLIENTS, Client, Request, Seen};
use crate::gateway::{Gateway, Host};
use crate::stopwatch::part_of_a_minute;
use crate::work::trial;
use crate::world::{Fixture, LIMIT, LIMITED, World};

pub fn trials(world: &Arc<World>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for client in CLIENTS {
        let title = format!(
            "limit::{}: is told when to return to a limited tool",
            client.label()
        );
        trials.push(trial(world, title, move |world| {
            limited_tool(world, client)
        }));
        let title = format!(
            "limit::{}: is told when to return to a limited gateway",
            client.label()
        );
        trials.push(trial(world, title, move |world| {
            limited_gateway(world, client)
        }));
    }
    let title = "limit::each client is counted alone".to_owned();
    trials.push(trial(world, title, limits_are_per_client));
    let title = "limit::the host counts where it can, and the gateway where it cannot".to_owned();
    trials.push(trial(world, title, counted_by_the_host));
    trials
}

/// Calls `tool` until the limit is passed and returns what the client saw.
fn pass_the_limit(url: String, token: &str, client: Client, tool: (&str, &str)) -> Seen {
    client.run_one(&Request {
        url,
        token: Some(token),
        prefix: Fixture::Everything.prefix(),
        scenarios: "burst",
        tool: Some(tool),
        times: LIMIT + 3,
        ..Request::default()
    })
}

/// Longest a client is sent away: the limit's window, and while calls of the one before it
/// still count, part of another.
const RETURN_MAX_SECONDS: u64 = 2 * 60;

fn told_when_to_return(response: &Value) {
    let seconds = response["retry_after"]
        .as_str()
        .and_then(|text| text.parse::<u64>().ok());
    assert!(
        seconds.is_some_and(|seconds| (1..=RETURN_MAX_SECONDS).contains(&seconds)),
        "Retry-After in {response}"
    );
    assert_eq!(
        response["content_type"], "application/json",
        "an error a client can read: {response}"
    );
}

fn limited_tool(world: &World, client: Client) {
    let gateway = world.ordinary();
    let token = gateway.mint_for(&format!("tool-limit-{client:?}"));
    let seen = pass_the_limit(gateway.mcp(), token, client, (LIMITED, "{}"));
    told_when_to_return(seen.response(429));
    // A client that gives up at the first refusal reports no outcomes; the admitted calls
    // are then the responses before it.
    if let Some(outcomes) = seen.0.pointer("/ok/outcomes").and_then(Value::as_array) {
        let admitted = outcomes
            .iter()
            .filter(|outcome| outcome.get("text").is_some())
            .count();
        assert_eq!(admitted, LIMIT as usize, "{}", seen.0);
    }
}

fn limited_gateway(world: &World, client: Client) {
    let gateway = world.limited();
    let token = gateway.mint_for(&format!("limit-{client:?}"));
    let echo = ("everything__echo", r#"{"message":"tide"}"#);
    let seen = pass_the_limit(gateway.mcp(), token, client, echo);
    told_when_to_return(seen.response(429));
}

fn limits_are_per_client(world: &World) {
    let gateway = world.limited();
    let (spent, fresh) = (gateway.mint_for("spender"), gateway.mint_for("saver"));
    let call = |token| {
        send(
            &gateway.mcp(),
            &Call::tool("everything__echo").with_token(token),
        )
    };
    let statuses: Vec<_> = (0..LIMIT + 2).map(|_| call(spent).status).collect();
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        LIMIT as usize,
        "{statuses:?}"
    );
    assert_eq!(call(fresh).status, 200);
}

fn counted_by_the_host(world: &World) {
    let rule = json!({
        "name": "burst", "per": ["principal"], "rate": { "requests": LIMIT, "windowMs": 60_000 },
        "counter": "native", "binding": "BURST",
    });
    let upstream = json!({ "name": "everything", "url": world.recorders().0.url() });
    let gateway = Gateway::start(
        "native",
        json!({ "upstreams": [upstream], "limits": { "rules": [rule] } }),
    );
    let call = |token| {
        let call = Call::tool("everything__echo").with_arguments(r#"{"message":"tide"}"#);
        send(&gateway.mcp(), &call.with_token(token))
    };
    let (spent, fresh) = (gateway.mint_for("spender"), gateway.mint_for("saver"));
    // Both counters begin anew with the minute.
    part_of_a_minute();
    let answers: Vec<_> = (0..LIMIT + 2).map(|_| call(spent)).collect();
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429], "{answers:?}");
    assert_eq!(call(fresh).status, 200);
    // Only who counts itself knows what is left.
    let host_counts = Host::chosen() == Host::Workerd;
    let told = answers[0].header("ratelimit");
    assert_eq!(told.is_empty(), host_counts, "{told}");
    let log = gateway.logged();
    assert_eq!(
        !log.contains("rate_counts_unavailable"),
        host_counts,
        "{log}"
    );
}
