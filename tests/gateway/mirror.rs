//! Mirrors: what is copied, what is told of it, and that no client notices.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::mirror::UNDER_WAY_MAX;
use tidegate_gateway::platform::Clock;

use crate::world::{
    Answer, RESULT, Said, Script, Setup, Step, World, authority, complete, modern, tool,
};

#[test]
fn calls_of_tools_a_rule_calls_read_only_are_copied_and_compared_and_no_others() {
    let Scene { world, mirror, .. } = scene(100);
    // Whatever its server says of it.
    world.tool("up__writes");
    world.list("tools/list");
    world.call(modern("prompts/list", json!({})));
    world.settle();
    assert!(world.exchanges("new").is_empty());
    world.tool("up__reads");
    assert_eq!(
        outcomes(&world),
        Vec::<String>::new(),
        "not before the answer is out"
    );
    world.settle();
    assert_eq!(outcomes(&world), ["same"]);
    let (original, copy) = (
        world.bodies("up", "tools/call"),
        world.bodies("new", "tools/call"),
    );
    assert_eq!(
        original.last().unwrap()["params"]["arguments"],
        copy[0]["params"]["arguments"]
    );
    mirror.on("tools/call", |_| Said::Result(complete("another")));
    world.tool("up__reads");
    world.settle();
    assert_eq!(outcomes(&world), ["same", "different"]);
}

#[test]
fn what_is_the_same_is_decided_by_value() {
    let pairs: [(&str, &str); 5] = [
        (r#"{"content":[],"n":{"a":1,"b":[2]}}"#, "same"),
        (
            r#"{ "n": {"b":[2], "a":1.0}, "content":[] , "_meta":{"x":1}}"#,
            "different",
        ),
        (
            r#"{ "n": {"b":[2], "a":1}, "content":[] , "_meta":{"x":1}}"#,
            "same",
        ),
        (
            r#"{"content":[],"n":{"a":1,"b":[2]},"isError":true}"#,
            "different",
        ),
        (r#"{"content":[],"n":{"a":1,"b":[2,2]}}"#, "different"),
    ];
    for (said, outcome) in pairs {
        let Scene {
            world,
            original,
            mirror,
        } = scene(100);
        let answer = |text: &'static str| {
            move |heard: &crate::world::Heard| {
                let body = format!(
                    r#"{{"jsonrpc":"2.0","id":{},"result":{text}}}"#,
                    heard.message["id"]
                );
                Said::Raw(200, "application/json", body.into_bytes())
            }
        };
        original.on("tools/call", answer(pairs[0].0));
        mirror.on("tools/call", answer(said));
        world.tool("up__reads");
        world.settle();
        assert_eq!(outcomes(&world), [outcome], "{said}");
    }
}

#[test]
fn a_mirror_that_fails_costs_its_client_nothing() {
    let failures: [(&str, Answer); 4] = [
        ("500", |_| Said::Raw(500, "text/plain", Vec::new())),
        ("an error", |_| Said::Error(-32603)),
        ("silence", |_| {
            Said::After(Duration::from_secs(3600), Box::new(Said::Error(1)))
        }),
        ("a stream that breaks", |_| Said::Stream(vec![Step::Reset])),
    ];
    for (what, failure) in failures {
        let Scene { world, mirror, .. } = scene(100);
        mirror.on("tools/call", failure);
        let began = world.sim.clock.now();
        assert_eq!(
            world.tool("up__reads").said(),
            format!("{RESULT} reads"),
            "{what}"
        );
        assert_eq!(world.sim.clock.now(), began, "{what}: at once");
        world.settle();
        assert_eq!(outcomes(&world), ["error"], "{what}");
        let took = world.sim.clock.now().since(began);
        assert!(took <= Duration::from_secs(40), "{what}: {took:?}");
        assert_eq!(world.tool("up__reads").status, 200, "{what}");
        assert!(world.exchanges("up").len() > 1);
    }
}

#[test]
fn a_call_that_failed_or_asks_is_not_copied() {
    let answers: [Answer; 2] = [
        |_| Said::Error(-32602),
        |_| {
            Said::Result(json!({
                "resultType": "input_required",
                "inputRequests": { "k": { "method": "elicitation/create", "params": { "message": "?", "requestedSchema": { "type": "object", "properties": {} } } } },
            }))
        },
    ];
    for answer in answers {
        let Scene {
            world, original, ..
        } = scene(100);
        original.on("tools/call", answer);
        world.call(tool("up__reads").meta(
            "clientCapabilities",
            json!({ "elicitation": { "form": {} } }),
        ));
        world.settle();
        assert!(world.exchanges("new").is_empty());
    }
}

#[test]
fn so_many_of_a_hundred_are_copied_and_only_a_few_at_once() {
    let Scene { world, .. } = scene(25);
    for _ in 0..400 {
        world.tool("up__reads");
        world.settle();
    }
    let copied = world.count("new", "tools/call");
    assert!((60..=140).contains(&copied), "{copied} of 400 at 25 %");

    let Scene { world, mirror, .. } = scene(100);
    mirror.on("tools/call", |_| {
        Said::After(
            Duration::from_secs(5),
            Box::new(Said::Result(complete("late"))),
        )
    });
    for _ in 0..UNDER_WAY_MAX * 3 {
        world.tool("up__reads");
        world.step_deferred();
    }
    world.settle();
    assert_eq!(world.count("new", "tools/call"), UNDER_WAY_MAX as usize);
}

#[test]
fn nothing_of_what_was_said_is_told() {
    let Scene { world, mirror, .. } = scene(100);
    mirror.on("tools/call", |_| {
        Said::Result(complete("CANARY-RESULT another"))
    });
    world.tool("up__reads");
    world.settle();
    let line = &world.events("mirror")[0];
    let mut told: Vec<&str> = line
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        ["durationMs", "event", "outcome", "tool", "upstream"],
        "{line}"
    );
}

/// A gateway whose upstream has a mirror.
struct Scene {
    world: World,
    original: Script,
    mirror: Script,
}

#[test]
fn a_copy_has_its_own_time_whatever_its_call_had_left() {
    let limits = json!({ "limits": { "requestTimeoutMs": 2_000 } });
    let Scene {
        world,
        original,
        mirror,
    } = scene_with(100, &limits);
    let after = |ms| {
        let result = Said::Result(complete("at last"));
        Said::After(Duration::from_millis(ms), Box::new(result))
    };
    original.on("tools/call", move |_| after(1_900));
    mirror.on("tools/call", move |_| after(5_000));
    assert_eq!(world.tool("up__reads").status, 200);
    world.settle();
    assert_eq!(outcomes(&world), ["same"]);
}

fn scene(percent: u32) -> Scene {
    scene_with(percent, &json!({}))
}

fn scene_with(percent: u32, config: &Value) -> Scene {
    let (original, mirror) = (
        Script::modern(&["reads", "writes"]),
        Script::modern(&["reads", "writes"]),
    );
    let members = json!({ "mirror": { "url": format!("https://{}/mcp", authority("new")), "percent": percent } });
    let world = Setup::new()
        .upstream_with("up", &original, &members)
        .rule(json!({ "name": "up__reads", "readOnly": true }))
        .config(config)
        .start();
    for (name, script) in [("new", &mirror), ("up", &original)] {
        let server = script.serve(&world.sim, &authority(name));
        world
            .shared
            .servers
            .borrow_mut()
            .insert(name.to_owned(), server);
    }
    Scene {
        world,
        original,
        mirror,
    }
}

fn outcomes(world: &World) -> Vec<String> {
    let lines = world.events("mirror");
    let outcome = |line: &Value| line["outcome"].as_str().unwrap().to_owned();
    lines.iter().map(outcome).collect()
}
