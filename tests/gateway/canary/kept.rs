//! What a version of an upstream has made stays with it.

use std::time::Duration;

use serde_json::{Value, json};

use super::{HOLD, Scripts, said, setup, world};
use crate::tasks::{finish, get, handle};
use crate::world::{Said, Script, complete, tool};

#[test]
fn what_a_version_made_stays_with_it() {
    let (world, scripts) = world(100);
    // State of a call that asks.
    scripts.new.on("tools/call", |heard| match heard.params()["requestState"].as_str() {
        None => Said::Result(json!({
            "resultType": "input_required", "requestState": "new's",
            "inputRequests": { "k": { "method": "elicitation/create", "params": { "message": "?", "requestedSchema": { "type": "object", "properties": {} } } } },
        })),
        Some(state) => Said::Result(complete(&format!("new, with {state}"))),
    });
    let ask = || {
        tool("up__a").meta(
            "clientCapabilities",
            json!({ "elicitation": { "form": {} } }),
        )
    };
    let asked = world.call(ask());
    let state = asked.result()["requestState"].clone();
    // Meanwhile the canary is withdrawn for new calls.
    let none = json!({ "canary": { "weightPercent": 0 } });
    world.sim.kv.publish(
        "config",
        setup(0, &scripts, &json!(HOLD.as_millis()), &none).snapshot(),
    );
    world.later(Duration::from_secs(31));
    world.list("tools/list");
    world.settle();
    assert_eq!(said(&world, "bob"), "old");
    let answers = json!({ "k": { "action": "accept", "content": {} } });
    let retried = ask()
        .param("requestState", state)
        .param("inputResponses", answers);
    assert_eq!(world.call(retried).said(), "new, with new's");
}

#[test]
fn a_task_is_run_by_the_version_its_call_was_for() {
    let scripts = Scripts::new();
    let world = setup(100, &scripts, &Value::Null, &json!({}))
        .rule(json!({ "name": "up__a", "execution": "task" }))
        .start();
    scripts.serve(&world);
    let task = handle(&world.call(tool("up__a").with_tasks()));
    finish(&world);
    let told = world.call(get(&task));
    assert_eq!(
        told.result()["result"]["content"][0]["text"],
        "new",
        "{told:?}"
    );
    assert_eq!(world.count("new", "tools/call"), 1);
    assert_eq!(world.count("up", "tools/call"), 0);
}

#[test]
fn legacy_sessions_are_each_versions_own() {
    let scripts = Scripts {
        old: Script::legacy("2025-11-25", &["a"]),
        new: Script::legacy("2025-11-25", &["a"]),
    };
    scripts.answer();
    let world = setup(50, &scripts, &json!(HOLD.as_millis()), &json!({})).start();
    scripts.serve(&world);
    for n in 0..20 {
        said(&world, &format!("subject-{n}"));
    }
    let (old, new) = (scripts.old.sessions(), scripts.new.sessions());
    assert_eq!(old + new, 20, "{old} and {new}");
    scripts
        .new
        .on("tools/call", |_| Said::Raw(500, "text/plain", Vec::new()));
    for n in 0..60 {
        world.call(tool("up__a").by(&format!("subject-{}", n % 20)));
    }
    for n in 0..20 {
        assert_eq!(said(&world, &format!("subject-{n}")), "old");
    }
    assert_eq!(
        scripts.old.sessions(),
        20,
        "those put back have opened theirs"
    );
}
