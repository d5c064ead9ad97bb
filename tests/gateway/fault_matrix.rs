//! The table of faults on the gateway in the simulator, and what becomes of calls while a
//! store or the queue is out of reach.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use serde_json::{Value, json};
use tidegate_gateway::body::{Body, BodyError};
use tidegate_gateway::platform::{Clock, HttpError};
use tidegate_simulator::{Server, SimClock};

use crate::faults::outages::{Asked, Store, outages};
use crate::faults::server::{Flawed, Heard};
use crate::faults::{self, DONE, Fault, PATIENCE, Part, Row, TOOL, When};
use crate::tasks::{finish, get, handle};
use crate::world::{Ask, Script, Setup, Told, World, authority, legacy, modern};

/// Longer than it takes until facts may be doubted.
const A_WHILE: Duration = Duration::from_secs(2);

#[test]
fn every_fault_of_an_upstream_is_answered_exactly_so_and_in_time_to_both_eras() {
    let rows = faults::table();
    assert!(rows.len() >= 30, "{} rows", rows.len());
    for row in rows {
        for (upstream, client) in ERAS {
            let scene = Scene::set(upstream, &json!({}));
            let what = format!("{}: {client} client, {upstream} upstream", row.name);
            assert_done(&scene.call(client), &what);
            scene.fail(&row.fault);
            let (asked, began) = (scene.flawed.asked(), scene.world.sim.clock.now());
            let told = scene.call(client);
            let took = scene.world.sim.clock.now().since(began);
            match row.when {
                When::Soon => assert!(took < PATIENCE, "{what}: {took:?}"),
                When::InTime => assert_eq!(took, PATIENCE, "{what}"),
            }
            assert_told(&told, &row, client, &what);
            assert_eq!(scene.flawed.asked() - asked, row.asked, "{what}: {told:?}");
            scene.heal();
            assert_done(&scene.call(client), &format!("{what}, well again"));
            assert_eq!(scene.flawed.strayed(), 0, "{what}");
        }
    }
}

#[test]
fn no_fault_of_an_upstream_loses_a_task_or_runs_it_twice() {
    for row in faults::table() {
        for upstream in ["modern", "legacy"] {
            let what = format!("{}: {upstream} upstream", row.name);
            let (told, asked) = task(&row, upstream, Scene::fail);
            assert_eq!(told.result()["status"], row.task, "{what}: {told:?}");
            // Where the first run certainly did nothing there is a second.
            let again = usize::from(row.told.is_some() && row.task == "completed");
            assert_eq!(asked, row.asked + again, "{what}: {told:?}");
        }
    }
}

#[test]
fn where_a_refused_connection_looks_lost_no_task_runs_twice_either() {
    let table = faults::table().into_iter();
    for (row, on_workerd) in table.filter_map(|row| Some((row.clone(), row.on_workerd?))) {
        for upstream in ["modern", "legacy"] {
            let what = format!("{}: {upstream} upstream", row.name);
            let (told, asked) = task(&row, upstream, Scene::fail_untold);
            let expected = on_workerd.task(upstream == "modern");
            assert_eq!(told.result()["status"], expected, "{what}: {told:?}");
            let again = usize::from(expected == "completed");
            assert_eq!(asked, row.asked + again, "{what}: {told:?}");
        }
    }
}

/// What a task ends as whose first run meets a fault, and how often its tool was called.
fn task(row: &Row, upstream: &str, fail: fn(&Scene, &Fault)) -> (Told, usize) {
    let rule = json!({ "name": format!("up__{TOOL}"), "execution": "task" });
    let config = json!({ "tools": [rule], "tasks": { "timeoutMs": PATIENCE.as_millis() } });
    let scene = Scene::set(upstream, &config);
    scene.world.list("tools/list");
    // Whoever runs it knows what the upstream was.
    scene.world.settle();
    scene.pause();
    let created = scene.world.call(call("modern").with_tasks());
    let handle = handle(&created);
    fail(&scene, &row.fault);
    scene.world.deliver();
    scene.world.wait(PATIENCE * 2);
    scene.heal();
    finish(&scene.world);
    let told = scene.world.call(get(&handle));
    (told, scene.flawed.asked())
}

#[test]
fn without_a_store_or_the_queue_calls_are_answered_and_nothing_is_half_begun() {
    for row in outages() {
        let world = standing();
        assert_eq!(world.list("tools/list").len(), 3);
        world.settle();
        let before = world.count("up", "tools/call");
        let began = world.sim.clock.now();
        outage(&world, row.store, true);
        let told = world.call(ask(row.asked));
        let code = told.json()["error"]["code"].as_i64();
        assert_eq!(
            (told.status.as_u16(), code),
            (row.status, row.code),
            "{row}: {told:?}"
        );
        let took = world.sim.clock.now().since(began);
        assert!(took < PATIENCE, "{row}: {took:?}");
        outage(&world, row.store, false);
        finish(&world);
        assert_eq!(world.count("up", "tools/call") - before, row.runs, "{row}");
    }
}

fn ask(asked: Asked) -> Ask {
    match asked {
        Asked::Call => modern("tools/call", json!({ "name": "up__a", "arguments": {} })),
        Asked::OldCall => legacy("2025-11-25", "tools/call", json!({ "name": "up__a" })),
        Asked::List => modern("tools/list", json!({})),
        Asked::Task => modern("tools/call", json!({ "name": "up__long" })).with_tasks(),
        Asked::Exact => modern("tools/call", json!({ "name": "up__exact" })),
    }
}

#[test]
fn an_isolate_without_a_configuration_says_so_while_kv_is_out_of_reach() {
    let world = standing().isolate();
    world.sim.kv.faults.outage(true);
    for ask in [modern("tools/list", json!({})), call("legacy")] {
        assert_eq!(world.ask(ask).status, 503);
    }
    assert_eq!(world.count("up", "tools/call"), 0);
    world.sim.kv.faults.outage(false);
    assert_eq!(world.list("tools/list").len(), 3);
}

/// A gateway with a direct tool, one whose calls are tasks, and one that is counted exactly.
fn standing() -> World {
    let exact = json!({
        "name": "exact", "rate": { "requests": 5, "windowMs": 60_000 },
        "counter": "atomic", "tools": ["up__exact"],
    });
    Setup::new()
        .upstream("up", &Script::modern(&["a", "long", "exact"]))
        .rule(json!({ "name": "up__long", "execution": "task" }))
        .config(&json!({ "limits": { "rules": [exact] } }))
        .start()
}

fn outage(world: &World, store: Store, down: bool) {
    let sim = &world.sim;
    let faults = match store {
        Store::Kv => &sim.kv.faults,
        Store::Atomic => &sim.atomic.faults,
        Store::Queue => &sim.queue.faults,
    };
    faults.outage(down);
}

/// Upstream and client.
const ERAS: [(&str, &str); 4] = [
    ("modern", "modern"),
    ("modern", "legacy"),
    ("legacy", "modern"),
    ("legacy", "legacy"),
];

struct Scene {
    world: World,
    flawed: Arc<Flawed>,
    server: Rc<Server>,
}

impl Scene {
    fn set(upstream: &str, config: &Value) -> Self {
        let timeout = json!({ "timeoutMs": PATIENCE.as_millis() });
        let world = Setup::new()
            .upstream_with("up", &Script::modern(&[]), &timeout)
            .config(config)
            .start();
        let flawed = Arc::new(Flawed::new(upstream == "modern"));
        let (clock, heard_by) = (world.sim.clock.clone(), Arc::clone(&flawed));
        let server = world.sim.http.serve(&authority("up"), move |request| {
            play(Arc::clone(&heard_by), clock.clone(), request)
        });
        Self {
            world,
            flawed,
            server,
        }
    }

    fn fail(&self, fault: &Fault) {
        self.pause();
        self.flawed.fail(fault);
        self.server.down.set(self.flawed.refuses());
    }

    /// The same on a host that cannot tell a connection that is refused from one that is cut.
    fn fail_untold(&self, fault: &Fault) {
        self.fail(fault);
        self.server.down.set(false);
    }

    fn heal(&self) {
        self.pause();
        self.flawed.heal();
        self.server.down.set(false);
    }

    fn pause(&self) {
        self.world.sim.clock.advance(A_WHILE);
    }

    fn call(&self, client: &str) -> Told {
        self.world.call(call(client))
    }
}

fn call(client: &str) -> Ask {
    let params = json!({ "name": format!("up__{TOOL}"), "arguments": {} });
    match client {
        "modern" => modern("tools/call", params),
        _ => legacy("2025-11-25", "tools/call", params),
    }
}

#[track_caller]
fn assert_done(told: &Told, what: &str) {
    assert_eq!(told.status, 200, "{what}: {told:?}");
    assert_eq!(told.said(), DONE, "{what}: {told:?}");
}

#[track_caller]
fn assert_told(told: &Told, row: &Row, client: &str, what: &str) {
    let Some(expected) = row.told else {
        return assert_done(told, what);
    };
    let status = if client == "modern" {
        expected.status
    } else {
        200
    };
    assert_eq!(told.refusal(), (status, expected.code), "{what}: {told:?}");
    assert_eq!(told.reason(), expected.reason, "{what}: {told:?}");
    if !expected.reason.is_empty() {
        assert_eq!(told.error()["data"]["upstream"], "up", "{what}: {told:?}");
    }
    let retry_after = told.header("retry-after").parse().ok();
    assert_eq!(retry_after, expected.retry_after, "{what}: {told:?}");
}

/// Brings the server's words to the network of the simulator.
async fn play(
    flawed: Arc<Flawed>,
    clock: SimClock,
    request: Request<Body>,
) -> Result<Response<Body>, HttpError> {
    let (head, body) = request.into_parts();
    let body = body.read(1 << 20).await.unwrap();
    let session = head.headers.get("mcp-session-id");
    let heard = Heard {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        session: session.map_or("", |id| id.to_str().unwrap()).to_owned(),
        message: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let lost = || HttpError::MaybeSent("no answer".to_owned());
    if flawed.refuses() {
        return Err(lost());
    }
    let answer = match flawed.answer(&heard) {
        Fault::Refuses | Fault::Cuts | Fault::NotHttp | Fault::Turns => return Err(lost()),
        Fault::Silent => {
            clock.sleep(Duration::from_secs(3600)).await;
            return Err(lost());
        }
        Fault::Says(answer) => answer,
    };
    let id = heard.message["id"].to_string();
    let steps = (answer.parts.into_iter(), None, clock, id);
    let body = stream::unfold(steps, |(mut parts, mut again, clock, id)| async move {
        loop {
            let part = match &again {
                Some(part) => Part::clone(part),
                None => parts.next()?,
            };
            let chunk = match part {
                Part::Text(text) => Ok(Bytes::from(text.replace("$id", &id))),
                Part::Bytes(bytes) => Ok(Bytes::from_static(bytes)),
                Part::Fill(size) => Ok(Bytes::from(vec![b'x'; size])),
                Part::Pause(pause) => {
                    clock.sleep(pause).await;
                    continue;
                }
                Part::Forever(text, each) => {
                    again = Some(Part::Forever(text, each));
                    clock.sleep(each).await;
                    Ok(Bytes::from_static(text.as_bytes()))
                }
                Part::Reset => Err(BodyError("connection reset".to_owned())),
            };
            return Some((chunk, (parts, again, clock, id)));
        }
    });
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Body::stream(body)).unwrap())
}
