//! What clients do all day, each of them with each upstream through one gateway.

use std::sync::Arc;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::client::{CLIENTS, Client, Request};
use crate::world::{Fixture, World, text, texts};

type Claim = fn(&World, Client, Fixture);

const CLAIMS: [(&str, Claim); 8] = [
    ("connects in its own era", connects),
    ("lists tools under their upstream's name", lists_tools),
    ("calls a tool", calls_a_tool),
    ("reads a resource it was listed", reads_a_resource),
    ("lists resource templates", lists_templates),
    ("gets a prompt", gets_a_prompt),
    ("completes an argument", completes_an_argument),
    ("sees progress as it happens", sees_progress),
];

pub fn trials(world: &Arc<World>) -> Vec<Trial> {
    let fixtures = [Fixture::Everything, Fixture::Reference];
    let fixtures = if world.starts_its_own() {
        &fixtures[..]
    } else {
        &fixtures[..1]
    };
    let mut trials = Vec::new();
    for client in CLIENTS {
        for &fixture in fixtures {
            for (name, claim) in CLAIMS {
                let title = format!("work::{}: {name} ({})", client.label(), fixture.name());
                trials.push(trial(world, title, move |world| {
                    claim(world, client, fixture)
                }));
            }
        }
        let title = format!(
            "work::{}: keeps the answers of parallel calls apart",
            client.label()
        );
        trials.push(trial(world, title, move |world| {
            parallel_answers(world, client)
        }));
    }
    if world.starts_its_own() {
        for client in CLIENTS {
            let title = format!(
                "work::{}: works with one server alone under its own names",
                client.label()
            );
            trials.push(trial(world, title, move |world| one_server(world, client)));
        }
    }
    trials
}

/// A claim that no particular client makes.
pub type Check = fn(&World);

/// A claim about the world, as a trial.
pub fn trial(
    world: &Arc<World>,
    title: String,
    claim: impl FnOnce(&World) + Send + 'static,
) -> Trial {
    let world = Arc::clone(world);
    Trial::test(title, move || {
        claim(&world);
        Ok(())
    })
}

fn connects(world: &World, client: Client, fixture: Fixture) {
    let seen = world.seen(client, fixture, "connect");
    let (era, version) = if client.is_modern() {
        ("modern", "2026-07-28")
    } else {
        ("legacy", "2025-11-25")
    };
    assert_eq!(seen.ok()["era"], era);
    assert_eq!(seen.ok()["version"], version);
    let capabilities = texts(seen.ok(), "/capabilities");
    for needed in ["tools", "resources", "prompts", "completions"] {
        assert!(
            capabilities.contains(&needed),
            "{needed} is not among {capabilities:?}"
        );
    }
}

fn lists_tools(world: &World, client: Client, fixture: Fixture) {
    let seen = world.seen(client, fixture, "tools");
    let names = texts(seen.ok(), "/names");
    let expected = match fixture {
        Fixture::Everything => "everything__echo",
        Fixture::Reference => "reference__test_simple_text",
    };
    assert!(
        names.contains(&expected),
        "{expected} is not among {names:?}"
    );
    assert!(
        names
            .iter()
            .all(|name| name.contains("__") && name.len() <= 64),
        "{names:?}"
    );
    let mut unique = names.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(
        unique.len(),
        names.len(),
        "a name is listed twice in {names:?}"
    );
}

fn calls_a_tool(world: &World, client: Client, fixture: Fixture) {
    let seen = world.seen(client, fixture, "call");
    let expected = match fixture {
        Fixture::Everything => "Echo: tide",
        Fixture::Reference => "This is a simple text response for testing.",
    };
    assert_eq!(seen.ok(), &json!({ "text": expected, "is_error": false }));
}

fn reads_a_resource(world: &World, client: Client, fixture: Fixture) {
    let seen = world.seen(client, fixture, "resource");
    let expected = match fixture {
        Fixture::Everything => "# Everything Server",
        Fixture::Reference => "This is the content of the static text resource.",
    };
    assert!(text(seen.ok(), "/text").starts_with(expected), "{}", seen.0);
    assert_eq!(
        seen.ok()["uri"],
        seen.ok()["answered_uri"],
        "the answer names the resource as it was asked for"
    );
}

fn lists_templates(world: &World, client: Client, fixture: Fixture) {
    let seen = world.seen(client, fixture, "templates");
    let uris = texts(seen.ok(), "/uris");
    let expected = match fixture {
        Fixture::Everything => "demo://resource/dynamic/text/{resourceId}",
        Fixture::Reference => "test://template/{id}/data",
    };
    assert!(
        uris.iter().any(|uri| uri.ends_with(expected)),
        "{expected} is not among {uris:?}"
    );
}

fn gets_a_prompt(world: &World, client: Client, fixture: Fixture) {
    let seen = world.seen(client, fixture, "prompt");
    let (name, expected) = match fixture {
        Fixture::Everything => (
            "completable-prompt",
            "Please promote Eve to the head of the Sales team.",
        ),
        Fixture::Reference => (
            "test_prompt_with_arguments",
            "Prompt with arguments: arg1='ebb', arg2='flow'",
        ),
    };
    let names = texts(seen.ok(), "/names");
    assert!(
        names.contains(&format!("{}{name}", fixture.prefix()).as_str()),
        "{names:?}"
    );
    assert_eq!(seen.ok()["text"], expected);
}

fn completes_an_argument(world: &World, client: Client, fixture: Fixture) {
    let seen = world.seen(client, fixture, "complete");
    let expected = match fixture {
        Fixture::Everything => vec!["Sales", "Support"],
        // It answers every completion with an empty list.
        Fixture::Reference => vec![],
    };
    assert_eq!(texts(seen.ok(), "/values"), expected);
}

fn sees_progress(world: &World, client: Client, fixture: Fixture) {
    let seen = world.seen(client, fixture, "progress");
    // The upstream's own pace: four steps in 2 s, and three in 100 ms. A gateway that held
    // the stream back would deliver them all at once. A busy client notices the first late.
    let (steps, spread_ms) = match fixture {
        Fixture::Everything => (vec![1, 2, 3, 4], 1_000),
        Fixture::Reference => (vec![0, 50, 100], 25),
    };
    let arrivals = seen.ok()["arrivals"].as_array().expect("arrivals");
    let progress: Vec<_> = arrivals
        .iter()
        .filter_map(|each| each["progress"].as_f64())
        .collect();
    let expected: Vec<_> = steps.iter().copied().map(f64::from).collect();
    assert_eq!(progress, expected, "{}", seen.0);
    let after = |each: Option<&Value>| {
        each.and_then(|each| each["after_ms"].as_u64())
            .expect("after_ms")
    };
    let spread = after(arrivals.last()) - after(arrivals.first());
    assert!(spread >= spread_ms, "all within {spread} ms: {}", seen.0);
    let token = text(seen.ok(), "/text");
    assert!(!token.is_empty(), "the result follows the progress");
}

fn parallel_answers(world: &World, client: Client) {
    let seen = world.seen(client, Fixture::Everything, "parallel");
    let expected: Vec<_> = (0..8).map(|wave| format!("Echo: wave {wave}")).collect();
    assert_eq!(texts(seen.ok(), "/texts"), expected);
}

fn one_server(world: &World, client: Client) {
    let gateway = world.ordinary();
    let mut seen = client.run(&Request {
        url: gateway.server("everything"),
        // A server's endpoint is a resource of its own: tokens name it as their audience.
        token: Some(gateway.mint(&["--audience", &gateway.server("everything")])),
        scenarios: "tools,call,resource,prompt,complete,progress",
        ..Request::default()
    });
    let mut take = |scenario: &str| seen.remove(scenario).expect(scenario);
    let tools = take("tools");
    let names = texts(tools.ok(), "/names");
    assert!(names.contains(&"echo"), "{names:?}");
    assert!(names.iter().all(|name| !name.contains("__")), "{names:?}");
    assert_eq!(take("call").ok()["text"], "Echo: tide");
    let resource = take("resource");
    assert_eq!(
        resource.ok()["uri"],
        "demo://resource/static/document/architecture.md"
    );
    assert_eq!(resource.ok()["uri"], resource.ok()["answered_uri"]);
    let prompt = take("prompt");
    assert!(texts(prompt.ok(), "/names").contains(&"completable-prompt"));
    assert_eq!(
        texts(take("complete").ok(), "/values"),
        ["Sales", "Support"]
    );
    assert_eq!(
        take("progress").ok()["arrivals"].as_array().map(Vec::len),
        Some(4)
    );
}
