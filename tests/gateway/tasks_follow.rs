//! Tasks an upstream makes of calls, followed: by the runs of the gateway's own tasks, and for
//! clients that know none.

use std::cell::Cell;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::Consumed;
use tidegate_gateway::platform::Clock;
use tidegate_simulator::Fault;

use crate::converse::talk::{Client, everything, form, name};
use crate::tasks::{TASKS, cancel, create, get, handle, inner_faults};
use crate::tasks_passed::{Minting, THEIRS};
use crate::world::{Ask, Said, Setup, Told, World, complete, legacy, modern, tool};

/// Lets time pass, with whatever keepers do meanwhile.
fn go_on(world: &World, seconds: u64) {
    let clock = world.sim.clock.clone();
    world
        .sim
        .run(async move { clock.sleep(Duration::from_secs(seconds)).await });
}

/// Gives the task to a worker and lets that follow.
fn begin(world: &World) {
    assert!(matches!(world.deliver()[..], [Consumed::Retry { .. }]));
}

fn record(world: &World) -> Value {
    let atomic = &world.sim.atomic;
    let key = atomic
        .keys()
        .into_iter()
        .find(|key| key.starts_with("task/"));
    serde_json::from_slice(&atomic.stored(&key.unwrap()).unwrap()).unwrap()
}

fn status(world: &World, handle: &str) -> Told {
    world.call(get(handle))
}

#[test]
fn a_run_follows_the_task_its_upstream_makes_and_mirrors_what_it_says() {
    let minting = Minting::new();
    let world = minting.world(&json!({ "execution": "task" }));
    let handle = handle(&create(&world));
    minting.shows(json!({ "status": "working", "statusMessage": "Half way" }));
    begin(&world);
    go_on(&world, 5);
    let told = status(&world, &handle);
    assert_eq!(
        (&told.result()["status"], &told.result()["statusMessage"]),
        (&json!("working"), &json!("Half way"))
    );
    assert_eq!(record(&world)["upstreamTask"], THEIRS);
    let link = json!({ "content": [{ "type": "resource_link", "uri": "test://a", "name": "a" }] });
    minting.shows(json!({ "status": "completed", "result": link }));
    go_on(&world, 5);
    let told = status(&world, &handle);
    assert_eq!(told.result()["status"], "completed");
    assert_eq!(told.result()["result"]["content"][0]["uri"], "up+test://a");
    assert!(!told.text.contains(THEIRS));
    assert_eq!(
        (
            world.count("up", "tools/call"),
            world.count("up", "tasks/cancel")
        ),
        (1, 0)
    );
}

#[test]
fn polls_are_as_frequent_as_asked_within_bounds_and_rarer_as_time_goes_by() {
    for (interval, within) in [
        (json!(1), 200..=260),
        (json!(5000), 100..=180),
        (json!(9_000_000), 25..=35),
    ] {
        let minting = Minting::new();
        let world = minting.world(&json!({ "execution": "task", "timeoutMs": 900_000 }));
        create(&world);
        minting.shows(json!({ "status": "working", "pollIntervalMs": interval }));
        begin(&world);
        go_on(&world, 899);
        let polls = world.count("up", "tasks/get");
        assert!(within.contains(&polls), "{interval}: {polls}");
    }
}

#[test]
fn a_task_that_takes_longer_than_its_run_may_is_cancelled_at_its_upstream() {
    let minting = Minting::new();
    let world = minting.world(&json!({ "execution": "task", "timeoutMs": 20_000 }));
    let handle = handle(&create(&world));
    begin(&world);
    go_on(&world, 30);
    let told = status(&world, &handle);
    assert_eq!(told.result()["status"], "failed");
    assert_eq!(told.result()["error"]["data"]["reason"], "upstream_timeout");
    assert_eq!(world.count("up", "tasks/cancel"), 1);
}

#[test]
fn what_the_upstreams_task_came_to_is_what_ours_comes_to() {
    let failure = json!({ "code": -32050, "message": "broke", "data": { "why": 1 } });
    for (view, code) in [
        (json!({ "status": "failed", "error": failure }), -32050),
        (json!({ "status": "cancelled" }), -32603),
        (json!({ "status": "completed" }), -32001),
        (json!({ "status": "failed" }), -32001),
    ] {
        let minting = Minting::new();
        let world = minting.world(&json!({ "execution": "task" }));
        let handle = handle(&create(&world));
        minting.shows(view.clone());
        begin(&world);
        go_on(&world, 5);
        let told = status(&world, &handle);
        assert_eq!(told.result()["status"], "failed", "{view}");
        let told = &told.result()["error"]["code"];
        assert!(
            *told == code || code == -32001 && told.is_i64(),
            "{view}: {told}"
        );
    }
}

#[test]
fn what_the_task_asks_is_asked_of_the_client_and_answered_at_the_upstream() {
    let minting = Minting::new();
    let world = minting.world(&json!({ "execution": "task" }));
    let capabilities = json!({ "elicitation": {}, "extensions": { TASKS: {} } });
    let handle = handle(&world.call(tool("up__a").meta("clientCapabilities", capabilities)));
    let request = json!({ "method": "elicitation/create", "params": form() });
    minting.shows(json!({ "status": "input_required", "inputRequests": { "k": request } }));
    begin(&world);
    go_on(&world, 5);
    let told = status(&world, &handle);
    assert_eq!(told.result()["status"], "input_required");
    let asked = told.result()["inputRequests"].as_object().unwrap();
    let (key, question) = asked.iter().next().unwrap();
    assert_eq!(asked.len(), 1, "once, however often it is polled");
    assert!(
        question["params"]["message"]
            .as_str()
            .unwrap()
            .starts_with("up: ")
    );
    let answers = json!({ key: name("Ada") });
    let params = json!({ "taskId": handle, "inputResponses": answers });
    world.call(modern("tasks/update", params).with_tasks());
    go_on(&world, 2);
    let sent = world.bodies("up", "tasks/update");
    assert_eq!(
        sent[0]["params"]["inputResponses"],
        json!({ "k": name("Ada") })
    );
    minting.shows(json!({ "status": "completed", "result": complete("thanks") }));
    go_on(&world, 5);
    let told = status(&world, &handle);
    assert_eq!(told.result()["result"]["content"][0]["text"], "thanks");
}

#[test]
fn what_the_client_cannot_be_asked_ends_both_tasks() {
    let minting = Minting::new();
    let world = minting.world(&json!({ "execution": "task" }));
    let handle = handle(&create(&world));
    let request = json!({ "method": "elicitation/create", "params": form() });
    minting.shows(json!({ "status": "input_required", "inputRequests": { "k": request } }));
    begin(&world);
    go_on(&world, 5);
    let told = status(&world, &handle);
    assert_eq!(told.result()["error"]["code"], -32021);
    assert_eq!(world.count("up", "tasks/cancel"), 1);
}

#[test]
fn a_cancellation_reaches_the_upstream_once() {
    let minting = Minting::new();
    let world = minting.world(&json!({ "execution": "task" }));
    let handle = handle(&create(&world));
    begin(&world);
    go_on(&world, 5);
    for _ in 0..2 {
        assert_eq!(world.call(cancel(&handle)).status, 200);
        world.settle();
    }
    go_on(&world, 5);
    assert_eq!(status(&world, &handle).result()["status"], "cancelled");
    let sent = world.bodies("up", "tasks/cancel");
    assert_eq!(
        (sent.len(), &sent[0]["params"]["taskId"]),
        (1, &json!(THEIRS))
    );
    let polls = world.count("up", "tasks/get");
    go_on(&world, 60);
    assert_eq!(world.count("up", "tasks/get"), polls, "nobody follows it");
}

#[test]
fn an_operator_lets_go_of_the_upstreams_task_and_one_made_anew_is_called_for() {
    const TOKEN: &str = "an-operators-token-of-some-length";
    let minting = Minting::new();
    let world = Setup::new()
        .upstream("up", &minting.script)
        .rule(json!({ "name": "up__a", "execution": "task" }))
        .secret("TIDEGATE_ADMIN_TOKEN", TOKEN)
        .start();
    create(&world);
    begin(&world);
    go_on(&world, 5);
    let keys = world.sim.atomic.keys();
    let id = keys.iter().find_map(|key| key.strip_prefix("task/"));
    for wish in ["cancel", "retry"] {
        let path = format!("/admin/tasks/{}/{wish}", id.unwrap());
        let told = world.ask(Ask::http("POST", &path).token(TOKEN));
        assert_eq!(told.status, 200, "{told:?}");
        world.settle();
    }
    assert_eq!(world.count("up", "tasks/cancel"), 1);
    world.deliver();
    assert_eq!(
        world.count("up", "tools/call"),
        2,
        "not the old one is followed"
    );
}

#[test]
fn after_a_lost_worker_the_next_one_goes_on_following() {
    let minting = Minting::new();
    let world = minting.world(&json!({ "execution": "task" }));
    let handle = handle(&create(&world));
    for _ in 0..7 {
        begin(&world);
        go_on(&world, 5);
        for keeper in world.sim.keeper.names() {
            world.sim.keeper.kill(&keeper);
        }
        world.sim.clock.advance(Duration::from_secs(66));
    }
    assert_eq!(status(&world, &handle).result()["status"], "working");
    minting.shows(json!({ "status": "completed", "result": complete("done") }));
    // The poll had it queued as well.
    assert!(
        world
            .deliver()
            .iter()
            .all(|consumed| *consumed == Consumed::Done)
    );
    let told = status(&world, &handle);
    assert_eq!(told.result()["result"]["content"][0]["text"], "done");
    assert_eq!(
        (
            world.count("up", "tools/call"),
            world.count("up", "tasks/cancel")
        ),
        (1, 0)
    );
}

#[test]
fn a_task_that_is_killed_when_its_worker_was_lost_is_cancelled_at_its_upstream() {
    const TOKEN: &str = "an-operators-token-of-some-length";
    let minting = Minting::new();
    let world = Setup::new()
        .upstream("up", &minting.script)
        .rule(json!({ "name": "up__a", "execution": "task" }))
        .secret("TIDEGATE_ADMIN_TOKEN", TOKEN)
        .start();
    create(&world);
    begin(&world);
    go_on(&world, 5);
    for keeper in world.sim.keeper.names() {
        world.sim.keeper.kill(&keeper);
    }
    let switch = json!({ "kind": "tool", "value": "up__a", "reason": "it deletes too much" });
    let kill = Ask::http("POST", "/admin/switches").body(switch.to_string());
    assert_eq!(world.ask(kill.token(TOKEN)).status, 200);
    world.sim.clock.advance(Duration::from_secs(66));
    assert_eq!(world.deliver(), [Consumed::Done]);
    world.settle();
    assert_eq!(record(&world)["status"], "failed");
    let sent = world.bodies("up", "tasks/cancel");
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["params"]["taskId"], THEIRS);
}

#[test]
fn what_could_not_be_noted_at_once_is_noted_when_the_run_is_given_back() {
    let minting = Minting::new();
    let world = minting.world(&json!({ "execution": "task" }));
    let handle = handle(&create(&world));
    let (faults, written) = (inner_faults(&world), Cell::new(0));
    faults.decide(move |key| {
        // The lease is taken; that the call has become a task cannot be written.
        let writes = written.get() + u32::from(key.starts_with("task/"));
        written.set(writes);
        (key.starts_with("task/") && (2..=9).contains(&writes)).then_some(Fault::Fail)
    });
    begin(&world);
    world.server("up").down.set(true);
    go_on(&world, 15);
    let stored = record(&world);
    assert_eq!(
        (&stored["lease"], &stored["upstreamTask"]),
        (&Value::Null, &json!(THEIRS))
    );
    world.server("up").down.set(false);
    minting.shows(json!({ "status": "completed", "result": complete("done") }));
    go_on(&world, 120);
    world.deliver();
    go_on(&world, 5);
    let told = status(&world, &handle);
    assert_eq!(told.result()["result"]["content"][0]["text"], "done");
    assert_eq!(world.count("up", "tools/call"), 1, "it is followed");
}

#[test]
fn an_upstream_that_is_away_for_a_while_does_not_end_the_task() {
    let minting = Minting::new();
    let world = minting.world(&json!({ "execution": "task" }));
    let handle = handle(&create(&world));
    begin(&world);
    go_on(&world, 3);
    world.server("up").down.set(true);
    go_on(&world, 3);
    world.server("up").down.set(false);
    minting.shows(json!({ "status": "completed", "result": complete("done") }));
    go_on(&world, 40);
    let told = status(&world, &handle);
    assert_eq!(told.result()["result"]["content"][0]["text"], "done");
    assert_eq!(world.count("up", "tools/call"), 1);
}

#[test]
fn for_a_client_that_knows_no_tasks_one_is_followed_to_its_end() {
    let minting = Minting::insisting();
    minting.shows(
        json!({ "status": "completed", "statusMessage": "Done", "result": complete("done") }),
    );
    let world = minting.world(&json!({}));
    let call = legacy("2025-11-25", "tools/call", json!({ "name": "up__a" }));
    let told = world.call(call);
    assert_eq!(told.said(), "done");
    assert!(told.result().get("resultType").is_none() && told.notifications().is_empty());
    assert_eq!(
        (
            world.count("up", "tools/call"),
            world.count("up", "tasks/cancel")
        ),
        (2, 0)
    );
    assert_eq!(world.sim.atomic.keys().len(), 0);
    // An upstream that does without tasks is not told of them.
    let minting = Minting::new();
    let world = minting.world(&json!({}));
    let call = legacy("2025-11-25", "tools/call", json!({ "name": "up__a" }));
    assert_eq!(world.call(call).said(), "directly");
    assert_eq!(world.count("up", "tools/call"), 1);
}

#[test]
fn a_client_that_knows_no_tasks_is_told_in_words_when_one_takes_too_long() {
    let minting = Minting::insisting();
    let world = minting.world(&json!({ "timeoutMs": 4000 }));
    let told = world.call(legacy(
        "2025-11-25",
        "tools/call",
        json!({ "name": "up__a" }),
    ));
    assert_eq!(told.result()["isError"], true);
    assert!(told.said().contains("timeoutMs"), "{}", told.said());
    world.settle();
    assert_eq!(world.count("up", "tasks/cancel"), 1);
}

#[test]
fn a_rule_that_says_sync_follows_nothing() {
    let minting = Minting::insisting();
    let world = minting.world(&json!({ "execution": "sync" }));
    let told = world.call(legacy(
        "2025-11-25",
        "tools/call",
        json!({ "name": "up__a" }),
    ));
    assert_eq!(told.code(), -32603);
    assert_eq!(world.count("up", "tools/call"), 1);
}

#[test]
fn a_followed_task_asks_the_client_of_a_session_on_its_own_stream() {
    let minting = Minting::insisting();
    let request = json!({ "method": "elicitation/create", "params": form() });
    minting.shows(json!({ "status": "input_required", "inputRequests": { "k": request } }));
    let world = Setup::new().upstream("up", &minting.script).start();
    let client = Client::of(&world, everything());
    let call = client.ask("tools/call", json!({ "name": "up__a" }));
    let mut talk = client.open(call);
    let question = talk.question();
    assert_eq!(question["method"], "elicitation/create");
    minting.script.on("tasks/update", {
        let shows = minting.showing();
        move |heard| {
            assert_eq!(
                heard.params()["inputResponses"],
                json!({ "k": name("Ada") })
            );
            shows(json!({ "status": "completed", "result": complete("thanks") }));
            Said::Result(json!({ "resultType": "complete" }))
        }
    });
    client.answer(&question, name("Ada"));
    let end = talk.end();
    assert_eq!(end["result"]["content"][0]["text"], "thanks");
}

#[test]
fn a_client_that_goes_away_lets_go_of_the_task_it_waited_for() {
    let minting = Minting::insisting();
    let world = minting.world(&json!({}));
    let call = legacy("2025-11-25", "tools/call", json!({ "name": "up__a" }));
    let mut live = world.open(call);
    live.head();
    world.sim.clock.advance(Duration::from_secs(3));
    live.text();
    drop(live);
    world.settle();
    assert_eq!(world.count("up", "tasks/cancel"), 1);
}
