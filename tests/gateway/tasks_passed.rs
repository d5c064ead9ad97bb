//! Tasks an upstream makes of calls, for clients that understand tasks: passed on under handles
//! of the gateway's, with nothing stored.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::tasks::{TASKS, cancel, get, handle};
use crate::world::{Ask, Heard, Said, Script, Setup, Told, World, complete, error, modern, tool};

/// The id the upstream gives its task.
pub const THEIRS: &str = "their-task-1";

/// An upstream that makes tasks, and its task as it stands.
pub struct Minting {
    pub script: Script,
    view: Rc<RefCell<Value>>,
}

impl Minting {
    /// An upstream with tools `a` and `b`; the calls of clients that understand tasks become
    /// some.
    pub fn new() -> Self {
        Self::of(THEIRS, |_| Said::Result(complete("directly")))
    }

    /// An upstream whose tools are tasks or nothing.
    pub fn insisting() -> Self {
        Self::of(THEIRS, |heard| Said::Refusal(400, insists(heard)))
    }

    pub fn of(id: &'static str, undeclared: fn(&Heard) -> Said) -> Self {
        let script = Script::modern(&["a", "b"]);
        script.capability("extensions", json!({ TASKS: {} }));
        let view = Rc::new(RefCell::new(json!({ "status": "working" })));
        script.on("tools/call", move |heard| {
            if !declares(heard) {
                return undeclared(heard);
            }
            let mut made = shown(id, &json!({ "status": "working" }));
            made["resultType"] = "task".into();
            made["result"] = json!("not yet");
            Said::Result(made)
        });
        let shows = Rc::clone(&view);
        script.on("tasks/get", move |heard| match named(heard, id) {
            true => Said::Result(shown(id, &shows.borrow())),
            false => Said::Error(-32602),
        });
        for method in ["tasks/update", "tasks/cancel"] {
            script.on(method, move |heard| match named(heard, id) {
                true => Said::Result(json!({ "resultType": "complete" })),
                false => Said::Error(-32602),
            });
        }
        Self { script, view }
    }

    /// Shows this of its task from now on.
    pub fn shows(&self, view: Value) {
        self.view.replace(view);
    }

    /// [`Self::shows`], for a rule of its own script.
    pub fn showing(&self) -> impl Fn(Value) + 'static {
        let view = Rc::clone(&self.view);
        move |shown| drop(view.replace(shown))
    }

    /// A world with this upstream, and these members of a rule for its tool `a`.
    pub fn world(&self, rule: &Value) -> World {
        let mut whole = json!({ "name": "up__a" });
        for (name, value) in rule.as_object().unwrap() {
            whole[name] = value.clone();
        }
        Setup::new()
            .upstream("up", &self.script)
            .rule(whole)
            .start()
    }
}

fn insists(heard: &Heard) -> Value {
    let mut message = error(heard, -32021);
    message["error"]["data"] = json!({ "requiredCapabilities": { "extensions": { TASKS: {} } } });
    message
}

/// Whether a request says that tasks are understood.
pub fn declares(heard: &Heard) -> bool {
    let meta = &heard.params()["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    meta["extensions"][TASKS].is_object()
}

/// Whether a request about a task is well formed and about this one.
fn named(heard: &Heard, id: &str) -> bool {
    assert!(declares(heard), "the extension is declared");
    assert_eq!(heard.header("mcp-method"), heard.method());
    assert_eq!(heard.params()["taskId"], heard.header("mcp-name"));
    heard.params()["taskId"] == id
}

/// A task as its upstream shows it, with these members.
pub fn shown(id: &str, members: &Value) -> Value {
    let mut task = json!({ "resultType": "complete", "taskId": id,
        "createdAt": "2026-07-28T00:00:00.123456+00:00", "lastUpdatedAt": "2026-07-28T00:00:01Z",
        "ttlMs": 60_000, "pollIntervalMs": 500, "com.example/more": 1.0 });
    for (name, value) in members.as_object().unwrap() {
        task[name] = value.clone();
    }
    task
}

pub fn made(world: &World) -> Told {
    let told = world.call(tool("up__a").with_tasks());
    assert_eq!(told.result()["resultType"], "task", "{told:?}");
    told
}

fn update(handle: &str, answers: Value) -> Ask {
    modern(
        "tasks/update",
        json!({ "taskId": handle, "inputResponses": answers }),
    )
    .with_tasks()
}

#[test]
fn a_task_of_the_upstream_is_passed_on_and_nothing_is_stored() {
    let minting = Minting::new();
    let world = minting.world(&json!({}));
    let created = made(&world);
    let handle = handle(&created);
    let result = created.result();
    assert_eq!(
        (&result["status"], &result["ttlMs"]),
        (&json!("working"), &json!(60_000))
    );
    assert_eq!(result["pollIntervalMs"], 500);
    assert!(result.get("result").is_none() && handle.len() <= 512);
    assert_eq!(world.audits().pop().unwrap()["outcome"], "task");

    let elsewhere = world.isolate();
    let told = elsewhere.call(get(&handle));
    assert_eq!(
        (&told.result()["status"], &told.result()["resultType"]),
        (&json!("working"), &json!("complete"))
    );
    minting.shows(json!({ "status": "completed", "resultType": "task", "result":
        { "content": [{ "type": "resource_link", "uri": "test://a", "name": "a" }], "structuredContent": { "n": 1.0 } } }));
    let told = elsewhere.call(get(&handle));
    assert_eq!(told.result()["taskId"], handle.as_str());
    assert_eq!(told.result()["resultType"], "complete");
    assert_eq!(told.result()["result"]["resultType"], "complete");
    assert_eq!(told.result()["result"]["content"][0]["uri"], "up+test://a");
    assert!(
        told.text.contains(r#""structuredContent":{"n":1.0}"#),
        "as it was"
    );
    assert!(told.text.contains(r#""com.example/more":1.0"#), "{told:?}");
    assert!(!told.text.contains(THEIRS) && !created.text.contains(THEIRS));

    assert_eq!(
        world.call(cancel(&handle)).result()["resultType"],
        "complete"
    );
    assert_eq!(world.count("up", "tasks/cancel"), 1);
    assert_eq!(
        (world.sim.atomic.keys().len(), world.sim.queue.sent()),
        (0, 0)
    );
}

#[test]
fn the_upstream_is_told_that_tasks_are_understood_where_the_client_the_rule_and_it_agree() {
    for (execution, declared, offered, told, kind) in [
        (json!({}), true, true, true, "task"),
        (json!({ "execution": "upstream" }), true, true, true, "task"),
        (
            json!({ "execution": "upstream" }),
            false,
            true,
            false,
            "complete",
        ),
        (
            json!({ "execution": "upstream" }),
            true,
            false,
            false,
            "complete",
        ),
        (
            json!({ "execution": "sync" }),
            true,
            true,
            false,
            "complete",
        ),
        (json!({ "execution": "auto" }), true, true, true, "task"),
        (
            json!({ "execution": "auto" }),
            false,
            true,
            false,
            "complete",
        ),
    ] {
        let minting = Minting::new();
        if !offered {
            minting.script.capability("extensions", json!({}));
        }
        let world = minting.world(&execution);
        let ask = tool("up__a");
        let ask = if declared { ask.with_tasks() } else { ask };
        let case = format!("{execution}, {declared}, {offered}");
        assert_eq!(world.call(ask).result()["resultType"], kind, "{case}");
        let sent = world.bodies("up", "tools/call");
        let meta = &sent[0]["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
        assert_eq!(meta["extensions"][TASKS].is_object(), told, "{case}");
        assert_eq!((sent.len(), world.sim.queue.sent()), (1, 0), "{case}");
    }
}

#[test]
fn a_task_of_auto_is_read_at_its_upstream() {
    let minting = Minting::new();
    let world = minting.world(&json!({ "execution": "auto" }));
    let handle = handle(&made(&world));
    minting.shows(json!({ "status": "completed", "result": complete("done") }));
    let told = world.call(get(&handle));
    assert_eq!(told.result()["result"]["content"][0]["text"], "done");
    assert_eq!(world.sim.atomic.keys().len(), 0);
}

#[test]
fn an_upstream_that_insists_without_offering_is_asked_again() {
    let minting = Minting::insisting();
    minting.script.capability("extensions", json!({}));
    let world = minting.world(&json!({}));
    let handle = handle(&made(&world));
    assert_eq!(world.count("up", "tools/call"), 2);
    assert_eq!(world.call(get(&handle)).result()["status"], "working");
}

#[test]
fn a_client_that_does_not_declare_what_a_tool_needs_is_told_to() {
    let minting = Minting::insisting();
    for rule in [
        json!({}),
        json!({ "execution": "auto" }),
        json!({ "execution": "sync" }),
    ] {
        let world = minting.world(&rule);
        let told = world.tool("up__a");
        assert_eq!(told.refusal(), (400, -32021));
        let required = json!({ "requiredCapabilities": { "extensions": { TASKS: {} } } });
        assert_eq!(told.error()["data"], required);
        assert_eq!(world.count("up", "tools/call"), 1);
    }
}

#[test]
fn the_extension_is_declared_where_an_upstream_of_the_endpoint_makes_tasks() {
    let legacy = Script::legacy("2025-11-25", &["t"]);
    legacy.capability("extensions", json!({ TASKS: {} }));
    let world = Setup::new()
        .upstream("up", &Minting::new().script)
        .upstream("old", &legacy)
        .start();
    for (endpoint, declared) in [
        ("/mcp", true),
        ("/servers/up/mcp", true),
        ("/servers/old/mcp", false),
    ] {
        let claims = json!({ "aud": format!("https://gw.example.com{endpoint}") });
        let ask = modern("server/discover", json!({})).to(endpoint);
        let told = world.call(ask.token(&world.token(&claims)));
        let extensions = &told.result()["capabilities"]["extensions"];
        assert_eq!(extensions[TASKS].is_object(), declared, "{endpoint}");
    }
}

#[test]
fn a_handle_that_is_not_yours_is_as_unknown_as_any_and_the_upstream_is_not_asked() {
    let minting = Minting::new();
    let world = minting.world(&json!({}));
    let handle = handle(&made(&world));
    let before = world.exchanges("up").len();
    let mut words = Vec::new();
    for ask in [
        get(&handle).by("ben"),
        get(&format!("{handle}A")),
        get(THEIRS),
        get(&handle[1..]),
    ] {
        for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
            let ask = ask
                .clone()
                .method(method)
                .param("inputResponses", json!({}));
            let told = world.call(ask);
            assert_eq!(told.code(), -32602);
            words.push(told.error().to_string());
        }
    }
    world.sim.clock.advance(Duration::from_secs(60));
    words.push(world.call(get(&handle)).error().to_string());
    assert_eq!(world.exchanges("up").len(), before, "nobody asked");
    // What the upstream does not know is unknown in the same words.
    let handle = crate::tasks::handle(&made(&world));
    for code in [-32602, -32601] {
        for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
            minting.script.on(method, move |_| Said::Error(code));
            let ask = get(&handle)
                .method(method)
                .param("inputResponses", json!({}));
            words.push(world.call(ask).error().to_string());
        }
    }
    words.dedup();
    assert_eq!(words.len(), 1, "{words:?}");
}

#[test]
fn undeclared_and_misnamed_requests_are_refused_before_the_handle_is_read() {
    let world = Minting::new().world(&json!({}));
    let handle = handle(&made(&world));
    let before = world.exchanges("up").len();
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let ask = || modern(method, json!({ "taskId": &handle, "inputResponses": {} }));
        assert_eq!(world.call(ask()).refusal(), (400, -32021), "{method}");
        let unnamed = ask().with_tasks().without("mcp-name");
        assert_eq!(world.call(unnamed).refusal(), (400, -32020), "{method}");
        let misnamed = ask().with_tasks().header("mcp-name", THEIRS);
        assert_eq!(world.call(misnamed).refusal(), (400, -32020), "{method}");
    }
    assert_eq!(world.exchanges("up").len(), before);
}

#[test]
fn who_may_no_longer_call_the_tool_may_only_call_its_task_off() {
    let world = Minting::new().world(&json!({ "requiredRoles": ["admin"] }));
    let admin = world.token(&json!({ "sub": "ada", "roles": ["admin"] }));
    let created = world.call(tool("up__a").with_tasks().token(&admin));
    let handle = handle(&created);
    let before = world.exchanges("up").len();
    for ask in [get(&handle), update(&handle, json!({}))] {
        let told = world.call(ask.clone());
        assert_eq!((told.status.as_u16(), told.reason()), (403, "denied"));
        assert_eq!(world.exchanges("up").len(), before);
    }
    assert_eq!(world.call(cancel(&handle)).status, 200);
    assert_eq!(world.count("up", "tasks/cancel"), 1);
    assert_eq!(world.call(get(&handle).token(&admin)).status, 200);
}

#[test]
fn what_a_task_asks_is_asked_of_clients_that_declared_it_and_says_who_asks() {
    let form = json!({ "method": "elicitation/create", "params":
        { "message": "Sure?", "requestedSchema": { "type": "object", "properties": {} } } });
    let minting = Minting::new();
    let world = minting.world(&json!({}));
    let capabilities = json!({ "elicitation": {}, "extensions": { TASKS: {} } });
    let told = world.call(tool("up__a").meta("clientCapabilities", capabilities));
    let asked = handle(&told);
    let other = handle(&made(&world));
    minting.shows(json!({ "status": "input_required", "inputRequests": { "k": form } }));
    let told = world.call(get(&asked));
    assert_eq!(told.result()["status"], "input_required");
    assert_eq!(
        told.result()["inputRequests"]["k"]["params"]["message"],
        "up: Sure?"
    );
    let told = world.call(get(&other));
    assert_eq!(told.code(), -32021, "this client cannot be asked");
    assert!(told.error()["data"]["requiredCapabilities"]["elicitation"].is_object());

    let answers = json!({ "k": { "action": "accept", "content": {} } });
    let told = world.call(update(&asked, answers.clone()));
    assert_eq!(told.result()["resultType"], "complete");
    let sent = world.bodies("up", "tasks/update");
    assert_eq!(sent[0]["params"]["inputResponses"], answers);
    for wrong in [json!({ "k": 1 }), json!("k"), json!(null)] {
        assert_eq!(world.call(update(&asked, wrong)).code(), -32602);
    }
    assert_eq!(world.count("up", "tasks/update"), 1);
}

#[test]
fn an_error_of_the_call_fails_the_task_as_the_upstream_put_it() {
    let minting = Minting::new();
    let world = minting.world(&json!({}));
    let handle = handle(&made(&world));
    let failure = json!({ "code": -32050, "message": "broke", "data": { "why": 1.0 } });
    minting.shows(json!({ "status": "failed", "error": failure, "result": {} }));
    let told = world.call(get(&handle));
    assert_eq!(told.result()["error"], failure);
    assert!(told.result().get("result").is_none(), "of this status only");
}

#[test]
fn what_is_no_task_is_not_passed_on() {
    for view in [
        json!({ "status": "done" }),
        json!({ "status": "working", "taskId": "another" }),
        json!({ "status": "working", "taskId": null }),
        json!({ "status": "working", "createdAt": "yesterday" }),
        json!({ "status": "working", "resultType": "com.example/x" }),
        json!({ "status": "completed" }),
        json!({ "status": "completed", "result": [] }),
        json!({ "status": "completed", "result": { "resultType": "input_required" } }),
        json!({ "status": "failed" }),
        json!({ "status": "failed", "error": { "message": "no code" } }),
        json!({ "status": "input_required" }),
        json!({ "status": "input_required", "inputRequests": { "k": { "method": "x/y" } } }),
    ] {
        let minting = Minting::new();
        let world = minting.world(&json!({}));
        let handle = handle(&made(&world));
        minting.shows(view.clone());
        let told = world.call(get(&handle));
        assert_eq!(
            (told.status.as_u16(), told.reason()),
            (502, "upstream_invalid"),
            "{view}"
        );
    }
    for method in ["tasks/update", "tasks/cancel"] {
        let minting = Minting::new();
        let world = minting.world(&json!({}));
        let handle = handle(&made(&world));
        minting
            .script
            .on(method, |_| Said::Result(json!({ "resultType": "task" })));
        let ask = update(&handle, json!({})).method(method);
        assert_eq!(world.call(ask).reason(), "upstream_invalid", "{method}");
    }
    let minting = Minting::new();
    minting.script.on("tools/call", |_| {
        Said::Result(json!({ "resultType": "task", "taskId": "x" }))
    });
    let told = minting.world(&json!({})).call(tool("up__a").with_tasks());
    assert_eq!(told.reason(), "upstream_invalid");
}

#[test]
fn a_task_whose_id_leaves_no_room_is_cancelled_at_its_upstream() {
    let id: &'static str = Box::leak("x".repeat(400).into_boxed_str());
    let world = Minting::of(id, |_| unreachable!()).world(&json!({}));
    let told = world.call(tool("up__a").with_tasks());
    assert_eq!(
        (told.status.as_u16(), told.reason()),
        (502, "upstream_invalid")
    );
    world.settle();
    assert_eq!(
        world.bodies("up", "tasks/cancel")[0]["params"]["taskId"],
        id
    );
}

#[test]
fn a_task_without_an_end_can_be_read_for_seven_days() {
    const WEEK_MS: u64 = 604_800_000;
    let minting = Minting::new();
    minting.script.on("tools/call", |_| {
        let view = json!({ "status": "working", "resultType": "task", "ttlMs": null });
        Said::Result(shown(THEIRS, &view))
    });
    minting.shows(json!({ "status": "working", "ttlMs": null }));
    let world = minting.world(&json!({}));
    let created = made(&world);
    assert_eq!(created.result()["ttlMs"], WEEK_MS);
    let handle = handle(&created);
    world
        .sim
        .clock
        .advance(Duration::from_millis(WEEK_MS) - Duration::from_secs(1));
    assert_eq!(world.call(get(&handle)).result()["ttlMs"], WEEK_MS);
    world.sim.clock.advance(Duration::from_secs(1));
    assert_eq!(world.call(get(&handle)).code(), -32602);
}

#[test]
fn the_result_of_a_task_is_held_to_what_its_tool_declares() {
    let minting = Minting::new();
    let output = json!({ "type": "object", "properties": { "n": { "type": "integer" } } });
    minting.script.listing(
        "tools",
        json!({ "name": "typed", "inputSchema": { "type": "object" }, "outputSchema": output }),
    );
    let world = minting.world(&json!({}));
    let handle = handle(&world.call(tool("up__typed").with_tasks()));
    for (content, status) in [(json!({ "n": 1 }), 200), (json!({ "n": "one" }), 502)] {
        let mut result = complete("typed");
        result["structuredContent"] = content;
        minting.shows(json!({ "status": "completed", "result": result }));
        assert_eq!(world.isolate().call(get(&handle)).status, status);
    }
}

#[test]
fn questions_before_a_task_come_before_it() {
    let minting = Minting::new();
    minting.script.on("tools/call", |heard| {
        assert!(declares(heard));
        if heard.params().get("inputResponses").is_some() {
            let view = json!({ "status": "working", "resultType": "task", "requestState": "s" });
            return Said::Result(shown(THEIRS, &view));
        }
        let asked = json!({ "k": { "method": "elicitation/create", "params": { "message": "Name?", "requestedSchema": { "type": "object", "properties": {} } } } });
        Said::Result(json!({ "resultType": "input_required", "inputRequests": asked, "requestState": "s" }))
    });
    let world = minting.world(&json!({}));
    let capabilities = json!({ "elicitation": {}, "extensions": { TASKS: {} } });
    let ask = tool("up__a").meta("clientCapabilities", capabilities);
    let first = world.call(ask.clone());
    assert_eq!(first.result()["resultType"], "input_required");
    let ask = ask
        .param(
            "inputResponses",
            json!({ "k": { "action": "accept", "content": {} } }),
        )
        .param("requestState", first.result()["requestState"].clone());
    let second = world.call(ask);
    assert_eq!(second.result()["resultType"], "task");
    assert!(second.result().get("requestState").is_none());
    assert_eq!(
        world.call(get(&handle(&second))).result()["status"],
        "working"
    );
}
