//! Log levels of legacy clients: set once in a session, in force for its later calls.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::session::FRESH;

use crate::converse::talk::{Client, VERSION, everything};
use crate::world::{Said, Script, Setup, Step, World, complete, legacy, modern};

const LEVELS: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];

/// An upstream that logs once at every level.
fn logging(script: Script) -> Script {
    script.capability("logging", json!({}));
    script.on("logging/setLevel", |_| Said::Result(json!({})));
    script.on("tools/call", |heard| {
        let log = |level: &str| json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": level, "data": level } });
        let mut steps: Vec<Step> = LEVELS.iter().map(|level| Step::Send(log(level))).collect();
        steps.push(Step::Send(heard.response(&complete("done"))));
        Said::Stream(steps)
    });
    script
}

fn either() -> [Script; 2] {
    [
        logging(Script::modern(&["ask"])),
        logging(Script::legacy(VERSION, &["ask"])),
    ]
}

fn logs(world: &World, client: &Client) -> Vec<String> {
    let told = world.call(client.tool());
    assert_eq!(told.said(), "done");
    let logs = told
        .messages
        .iter()
        .filter_map(|m| m["params"]["level"].as_str());
    logs.map(str::to_owned).collect()
}

#[test]
fn a_level_holds_for_the_sessions_later_calls_at_every_isolate() {
    for script in either() {
        let world = Setup::new().upstream("up", &script).start();
        let elsewhere = world.isolate();
        let client = Client::of(&world, everything());
        let other = Client::of(&world, everything());
        assert_eq!(
            logs(&world, &client),
            LEVELS[1..],
            "info, while none is set"
        );
        for (index, level) in LEVELS.iter().enumerate().rev() {
            let told = world.call(client.ask("logging/setLevel", json!({ "level": level })));
            assert_eq!(told.result(), &json!({}), "exactly empty");
            assert_eq!(logs(&world, &client), LEVELS[index..], "here at once");
            elsewhere.sim.clock.advance(FRESH);
            assert_eq!(logs(&elsewhere, &client), LEVELS[index..], "elsewhere soon");
            assert_eq!(logs(&world, &other), LEVELS[1..], "in no other session");
        }
    }
}

#[test]
fn a_level_that_is_none_is_refused_and_changes_nothing() {
    let world = Setup::new().upstream("up", &either()[0]).start();
    let client = Client::of(&world, everything());
    for params in [
        json!({}),
        json!({ "level": "loud" }),
        json!({ "level": "INFO" }),
        json!({ "level": "" }),
        json!({ "level": 3 }),
        json!({ "level": null }),
        json!({ "level": ["info"] }),
    ] {
        let told = world.call(client.ask("logging/setLevel", params.clone()));
        assert_eq!(told.refusal(), (200, -32602), "{params}");
    }
    assert_eq!(world.sim.atomic.keys(), [""; 0]);
    let told = world.call(legacy(
        VERSION,
        "logging/setLevel",
        json!({ "level": "info" }),
    ));
    assert_eq!(
        told.code(),
        -32601,
        "without a session nothing remembers it"
    );
    let told = world.call(modern("logging/setLevel", json!({ "level": "info" })));
    assert_eq!(told.refusal(), (404, -32601));
}

#[test]
fn an_upstream_learns_the_level_in_the_way_of_its_era() {
    for script in either() {
        let world = Setup::new().upstream("up", &script).start();
        let client = Client::of(&world, everything());
        world.call(client.ask("logging/setLevel", json!({ "level": "error" })));
        world.call(client.tool());
        world.call(client.tool().without("mcp-session-id"));
        world.call(client.tool().header("accept", "application/json"));
        let calls = world.bodies("up", "tools/call");
        let levels: Vec<&Value> = calls
            .iter()
            .map(|call| &call["params"]["_meta"]["io.modelcontextprotocol/logLevel"])
            .collect();
        let set = world.bodies("up", "logging/setLevel");
        if script.is_modern() {
            assert_eq!(levels, [&json!("error"), &Value::Null, &Value::Null]);
            assert!(set.is_empty());
        } else {
            assert!(levels.iter().all(|level| level.is_null()));
            let set: Vec<&Value> = set.iter().map(|set| &set["params"]["level"]).collect();
            assert_eq!(set, ["error"], "in the session of that call alone");
        }
    }
}

#[test]
fn logging_is_offered_where_an_upstream_has_it() {
    let quiet = [Script::modern(&["ask"]), Script::legacy(VERSION, &["ask"])];
    for (scripts, offered) in [(either(), true), (quiet, false)] {
        for script in scripts {
            let world = Setup::new().upstream("up", &script).start();
            for version in ["2025-03-26", VERSION] {
                let params =
                    json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": {} });
                let told = world.call(legacy(version, "initialize", params));
                let logging = told.result()["capabilities"].get("logging").cloned();
                assert_eq!(logging, offered.then(|| json!({})));
            }
            let client = Client::of(&world, everything());
            world.call(client.tool());
            let set = world.count("up", "logging/setLevel");
            assert_eq!(
                set,
                usize::from(offered && !script.is_modern()),
                "only where there is"
            );
        }
    }
}

#[test]
fn an_upstream_that_refuses_a_level_is_called_all_the_same() {
    for said in [
        || Said::Error(-32603),
        || Said::Raw(500, "text/plain", Vec::new()),
        || Said::After(Duration::from_secs(3), Box::new(Said::Error(-32601))),
    ] {
        let script = logging(Script::legacy(VERSION, &["ask"]));
        script.on("logging/setLevel", move |_| said());
        let world = Setup::new().upstream("up", &script).start();
        let client = Client::of(&world, everything());
        assert_eq!(logs(&world, &client), LEVELS[1..]);
    }
}

#[test]
fn levels_set_at_two_isolates_at_once_both_succeed_and_one_holds() {
    let world = Setup::new().upstream("up", &either()[0]).start();
    let elsewhere = world.isolate();
    let client = Client::of(&world, everything());
    let set = |world: &World, level: &str| {
        world.start(client.ask("logging/setLevel", json!({ "level": level })))
    };
    let (mut one, mut two) = (set(&world, "error"), set(&elsewhere, "debug"));
    assert_eq!(one.step().unwrap().status(), 200);
    assert_eq!(two.step().unwrap().status(), 200);
    world.sim.clock.advance(FRESH);
    assert_eq!(logs(&world, &client), logs(&elsewhere, &client));
}
