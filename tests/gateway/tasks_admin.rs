//! What operators see of tasks and do about them.

use std::collections::BTreeSet;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tidegate_gateway::Consumed;

use crate::tasks::{cancel, create, get, handle};
use crate::world::{ARGUMENT, Ask, RESULT, Said, Script, Setup, Told, World, complete, tool};

const TOKEN: &str = "an-operators-token-of-some-length";
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn without_a_secret_there_is_no_such_path() {
    let absent = Setup::new().upstream("up", &Script::modern(&["a"])).start();
    let short = Setup::new()
        .upstream("up", &Script::modern(&["a"]))
        .secret("TIDEGATE_ADMIN_TOKEN", "short")
        .start();
    for (world, token) in [(absent, TOKEN), (short, "short")] {
        let told = world.ask(Ask::http("GET", "/admin/tasks").token(token));
        let other = world.ask(Ask::http("GET", "/nowhere").token(token));
        assert_eq!((told.status, &told.text), (other.status, &other.text));
        assert_eq!(told.status, 404);
        assert!(world.events("admin").is_empty());
    }
}

#[test]
fn the_door_opens_to_its_secret_alone() {
    let world = world();
    let client = world.token(&json!({ "sub": "ada" }));
    for ask in [
        Ask::http("GET", "/admin/tasks").without("authorization"),
        Ask::http("GET", "/admin/tasks").token(&client),
        Ask::http("GET", "/admin/tasks").token(&TOKEN[1..]),
        Ask::http("GET", "/admin/tasks").header("authorization", &format!("Basic {TOKEN}")),
        Ask::http("POST", "/admin/tasks/0/cancel").token("wrong"),
        Ask::http("GET", "/admin/nowhere").token("wrong"),
    ] {
        world.forget_log();
        let told = world.ask(ask);
        assert_eq!(told.status, 401, "{told:?}");
        assert_eq!(told.header("www-authenticate"), "Bearer");
        assert_eq!(world.events("admin")[0]["outcome"], "unauthenticated");
    }
    assert_eq!(admin(&world, "GET", "/admin/tasks").status, 200);
    let line = &world.events("admin")[1];
    assert_eq!(
        (&line["action"], &line["outcome"]),
        (&json!("tasks.list"), &json!("ok"))
    );
}

#[test]
fn a_task_is_shown_without_what_is_between_client_and_tool() {
    let world = world();
    let created = create(&world);
    let shown = only(&world, "");
    assert_eq!(shown["status"], "working");
    assert_eq!(
        (&shown["upstream"], &shown["tool"]),
        (&json!("up"), &json!("a"))
    );
    assert_eq!(shown["abandoned"], false);
    world.deliver();
    let id = shown["id"].as_str().unwrap();
    let told = admin(&world, "GET", &format!("/admin/tasks/{id}"));
    assert_eq!(told.json()["status"], "completed");
    for secret in [ARGUMENT, RESULT, &handle(&created)] {
        assert!(!told.text.contains(secret), "{told:?}");
    }
}

#[test]
fn a_failure_is_shown_by_code_and_by_a_reason_of_the_gateways_own() {
    let (world, script) = scripted();
    script.on("tools/call", |_| Said::Error(-32603));
    create(&world);
    world.deliver();
    let shown = only(&world, "state=failed");
    assert_eq!(
        (&shown["errorCode"], shown.get("errorReason")),
        (&json!(-32603), None)
    );
    let (world, script) = scripted();
    script.on("tools/call", |_| {
        Said::Raw(200, "application/json", b"nonsense".to_vec())
    });
    create(&world);
    world.deliver();
    let shown = only(&world, "state=failed");
    assert_eq!(shown["errorReason"], "upstream_invalid");
}

#[test]
fn lists_are_filtered_by_state_and_age() {
    let world = world();
    let cancelled = handle(&create(&world));
    world.call(cancel(&cancelled));
    world.sim.queue.take();
    world.sim.clock.advance(5 * MINUTE);
    create(&world);
    world.deliver();
    create(&world);
    world.sim.queue.take();
    world.sim.clock.advance(2 * MINUTE);
    create(&world);
    let count = |query: &str| list(&world, query).0.len();
    for (query, expected) in [
        ("", 4),
        ("state=cancelled", 1),
        ("state=completed", 1),
        ("state=working", 2),
        ("state=abandoned", 1),
        ("state=failed", 0),
        ("olderThan=60000", 3),
        ("olderThan=300000", 1),
        ("olderThan=60000&state=working", 1),
        ("tenant=north", 0),
    ] {
        assert_eq!(count(query), expected, "{query}");
    }
    for query in ["state=lost", "olderThan=10m", "cursor=x", "page=2"] {
        let told = admin(&world, "GET", &format!("/admin/tasks?{query}"));
        assert_eq!(told.status, 400, "{query}");
        assert_eq!(told.json()["error"]["reason"], "bad_query");
    }
}

#[test]
fn pages_are_bounded_and_leave_nothing_out() {
    let world = world();
    let mut made = 0;
    for client in 0..30 {
        for _ in 0..=client % 12 {
            let ask = tool("up__a").with_tasks().by(&format!("client {client}"));
            assert_eq!(world.call(ask).status, 200);
            world.sim.clock.advance(Duration::from_millis(1));
            made += 1;
        }
    }
    let (mut seen, mut cursor, mut pages) = (BTreeSet::new(), String::new(), 0);
    loop {
        let (tasks, next) = list(&world, &cursor);
        assert!(tasks.len() <= 50);
        for task in &tasks {
            assert!(seen.insert(task["id"].to_string()), "twice: {task}");
        }
        pages += 1;
        match next {
            Some(next) => cursor = format!("cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), made);
    assert!(pages >= made / 50, "{pages} pages");
}

#[test]
fn an_operator_cancels_a_task_once() {
    let world = world();
    let handle = handle(&create(&world));
    let path = format!("/admin/tasks/{}/cancel", id(&world));
    assert_eq!(admin(&world, "POST", &path).json()["status"], "cancelled");
    let told = world.call(get(&handle));
    assert_eq!(told.result()["status"], "cancelled");
    assert_eq!(told.result()["statusMessage"], "Cancelled by an operator.");
    let again = admin(&world, "POST", &path);
    assert_eq!(again.status, 409);
    assert_eq!(again.json()["error"]["reason"], "wrong_state");
    assert_eq!(again.json()["task"]["status"], "cancelled");
    let actions = world.events("admin");
    assert_eq!(actions.len(), 3, "the list, and both");
    assert_eq!(actions[2]["outcome"], "wrong_state");
    assert!(actions[2]["task"].is_string());
}

#[test]
fn an_abandoned_task_is_queued_again() {
    let world = world();
    let handle = handle(&create(&world));
    world.sim.queue.take();
    let path = format!("/admin/tasks/{}/retry", id(&world));
    assert_eq!(admin(&world, "POST", &path).status, 200);
    assert_eq!(world.deliver(), [Consumed::Done]);
    assert_eq!(world.call(get(&handle)).result()["status"], "completed");
    let completed = admin(&world, "POST", &path);
    assert_eq!(completed.status, 409, "{completed:?}");
    assert_eq!(world.count("up", "tools/call"), 1);
}

#[test]
fn a_task_that_was_put_off_is_not_abandoned_and_runs_at_once_if_an_operator_says_so() {
    let (world, script) = scripted();
    script.on("tools/call", |_| Said::Later(429, "600"));
    let handle = handle(&create(&world));
    assert!(matches!(world.deliver()[..], [Consumed::Retry { .. }]));
    world.sim.clock.advance(5 * MINUTE);
    assert_eq!(only(&world, "")["abandoned"], false);
    script.off("tools/call");
    let path = format!("/admin/tasks/{}/retry", id(&world));
    assert_eq!(admin(&world, "POST", &path).status, 200);
    assert_eq!(world.deliver(), [Consumed::Done]);
    assert_eq!(world.call(get(&handle)).result()["status"], "completed");
}

#[test]
fn a_failed_or_cancelled_task_is_made_anew_and_stays_as_it_was() {
    let world = world();
    let first = handle(&create(&world));
    world.call(cancel(&first));
    world.sim.queue.take();
    let old = id(&world);
    let told = admin(&world, "POST", &format!("/admin/tasks/{old}/retry"));
    let new = told.json()["id"].as_str().unwrap().to_owned();
    assert_ne!(new, old);
    assert_eq!(
        told.json()["owner"],
        only(&world, "state=cancelled")["owner"]
    );
    assert_eq!(world.deliver(), [Consumed::Done]);
    assert_eq!(
        world.bodies("up", "tools/call")[0]["params"]["arguments"]["q"],
        ARGUMENT
    );
    let states = [&old, &new].map(|id| {
        let told = admin(&world, "GET", &format!("/admin/tasks/{id}"));
        told.json()["status"].clone()
    });
    assert_eq!(states, ["cancelled", "completed"]);
    assert_eq!(world.call(get(&first)).result()["status"], "cancelled");
}

#[test]
fn a_task_made_anew_is_within_its_owners_limit() {
    let world = setup()
        .config(&json!({ "tasks": { "maxOpenPerPrincipal": 1 } }))
        .start();
    world.call(cancel(&handle(&create(&world))));
    let old = id(&world);
    create(&world);
    let told = admin(&world, "POST", &format!("/admin/tasks/{old}/retry"));
    assert_eq!(told.status, 429);
    assert_eq!(told.json()["error"]["reason"], "too_many_tasks");
}

#[test]
fn a_running_task_is_not_retried() {
    let (world, script) = scripted();
    script.on("tools/call", |_| {
        Said::After(MINUTE, Box::new(Said::Result(complete("late"))))
    });
    create(&world);
    let message = world.sim.queue.take().remove(0);
    let mut running = world.start_consuming(message);
    assert!(running.step().is_none());
    let told = admin(
        &world,
        "POST",
        &format!("/admin/tasks/{}/retry", id(&world)),
    );
    assert_eq!(told.status, 409);
    assert!(
        told.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("being run")
    );
}

#[test]
fn what_is_not_there_is_said_in_words_and_odd_methods_are_refused() {
    let world = world();
    let unknown = "0123456789abcdef0123456789abcdef";
    for (method, path, status, reason) in [
        (
            "GET",
            format!("/admin/tasks/{unknown}"),
            404,
            "unknown_task",
        ),
        (
            "POST",
            format!("/admin/tasks/{unknown}/cancel"),
            404,
            "unknown_task",
        ),
        (
            "POST",
            format!("/admin/tasks/{unknown}/retry"),
            404,
            "unknown_task",
        ),
        (
            "GET",
            "/admin/tasks/..%2fconfig".to_owned(),
            404,
            "not_found",
        ),
        ("GET", "/admin/config".to_owned(), 404, "not_found"),
        ("POST", "/admin/tasks".to_owned(), 405, "method_not_allowed"),
        (
            "GET",
            format!("/admin/tasks/{unknown}/cancel"),
            405,
            "method_not_allowed",
        ),
    ] {
        let told = admin(&world, method, &path);
        assert_eq!(told.status, StatusCode::from_u16(status).unwrap(), "{path}");
        assert_eq!(told.json()["error"]["reason"], reason, "{path}");
    }
    world.sim.atomic.faults.outage(true);
    let told = admin(&world, "GET", "/admin/tasks");
    assert_eq!(told.status, 500);
    assert_eq!(told.json()["error"]["reason"], "fault");
    assert!(told.json()["error"]["data"]["correlationId"].is_string());
}

#[test]
fn a_door_whose_secret_cannot_be_read_is_not_said_to_be_none() {
    let world = world();
    world.sim.hide_secret("TIDEGATE_ADMIN_TOKEN");
    for path in ["/admin/tasks", "/admin/revocations", "/admin/switches"] {
        assert_eq!(admin(&world, "GET", path).status, 500, "{path}");
    }
    assert_eq!(world.events("secret_unread").len(), 3);
}

fn setup() -> Setup {
    Setup::new()
        .upstream("up", &Script::modern(&["a"]))
        .rule(json!({ "name": "up__a", "execution": "task" }))
        .secret("TIDEGATE_ADMIN_TOKEN", TOKEN)
}

fn world() -> World {
    setup().start()
}

fn scripted() -> (World, Script) {
    let script = Script::modern(&["a"]);
    let world = Setup::new()
        .upstream("up", &script)
        .rule(json!({ "name": "up__a", "execution": "task" }))
        .secret("TIDEGATE_ADMIN_TOKEN", TOKEN)
        .start();
    (world, script)
}

fn admin(world: &World, method: &str, path: &str) -> Told {
    world.ask(Ask::http(method, path).token(TOKEN))
}

#[track_caller]
fn list(world: &World, query: &str) -> (Vec<Value>, Option<String>) {
    let told = admin(world, "GET", &format!("/admin/tasks?{query}"));
    assert_eq!(told.status, 200, "{told:?}");
    let page = told.json();
    let next = page["nextCursor"].as_str().map(str::to_owned);
    (page["tasks"].as_array().unwrap().clone(), next)
}

#[track_caller]
fn only(world: &World, query: &str) -> Value {
    let (mut tasks, next) = list(world, query);
    assert_eq!((tasks.len(), next), (1, None));
    tasks.remove(0)
}

#[track_caller]
fn id(world: &World) -> String {
    only(world, "")["id"].as_str().unwrap().to_owned()
}
