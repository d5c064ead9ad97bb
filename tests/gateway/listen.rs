//! Listening for changes: what is acknowledged, what is told, to whom, and when it ends.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::listen::{ACKNOWLEDGE_AFTER, LIFETIME_MAX, LISTENS_PER_PRINCIPAL_MAX};
use tidegate_gateway::platform::Clock;
use tidegate_simulator::{End, Exchange};

use crate::world::{Ask, Bell, Live, Said, Script, Setup, Step, World, legacy, modern};

pub const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
const TOOLS: &str = "notifications/tools/list_changed";
const PROMPTS: &str = "notifications/prompts/list_changed";
const RESOURCES: &str = "notifications/resources/list_changed";
const UPDATED: &str = "notifications/resources/updated";
pub const ID: &str = "io.modelcontextprotocol/subscriptionId";

#[test]
fn the_first_frame_says_what_is_honoured_and_every_frame_whose_it_is() {
    for id in [json!(7), json!("7"), json!(""), json!("ünï")] {
        let (world, bell) = world();
        let ask = listen(json!({ "toolsListChanged": true })).id(id.clone());
        let mut live = Listener::open(&world, ask);
        let honoured = json!({ "toolsListChanged": true });
        let acknowledged = json!({ "notifications": honoured, "_meta": { ID: id } });
        assert_eq!(live.heard(), [(ACKNOWLEDGED.to_owned(), acknowledged)]);
        bell.ring(TOOLS, json!({}));
        let changed = json!({ "_meta": { ID: id } });
        assert_eq!(live.heard(), [(TOOLS.to_owned(), changed)]);
    }
}

#[test]
fn to_an_upstream_the_gateway_listens_as_itself() {
    let (world, _) = world();
    let mut live = Listener::open(
        &world,
        listen(json!({ "promptsListChanged": true, "x": 1 })).id(json!("mine")),
    );
    live.heard();
    let body = world.bodies("up", "subscriptions/listen").remove(0);
    assert!(body["id"].is_i64());
    assert_eq!(
        body["params"]["notifications"],
        json!({ "promptsListChanged": true })
    );
    let carried = &body["params"]["_meta"];
    assert_eq!(
        carried["io.modelcontextprotocol/clientInfo"]["name"],
        "edge"
    );
    assert_eq!(
        carried["io.modelcontextprotocol/clientCapabilities"],
        json!({})
    );
}

#[test]
fn nothing_is_told_that_was_not_asked_for() {
    let (world, bell) = world();
    let mut live = Listener::open(&world, listen(json!({ "promptsListChanged": true })));
    live.heard();
    for method in [
        TOOLS,
        RESOURCES,
        "notifications/progress",
        "notifications/message",
        "notifications/vendor",
    ] {
        bell.ring(method, json!({}));
    }
    bell.ring(UPDATED, json!({ "uri": "a:1" }));
    bell.say(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }));
    assert_eq!(live.methods(), [""; 0]);
    bell.ring(PROMPTS, json!({}));
    assert_eq!(live.methods(), [PROMPTS]);
}

#[test]
fn what_no_upstream_delivers_is_not_acknowledged() {
    let (quiet, loud) = (Script::modern(&["a"]), Script::modern(&["b"]));
    loud.capability("tools", json!({ "listChanged": true }))
        .on("subscriptions/listen", |heard| {
            Bell::default().acknowledge(heard, &heard.params()["notifications"].clone())
        });
    let world = Setup::new()
        .upstream("quiet", &quiet)
        .upstream("loud", &loud)
        .start();
    let all = json!({
        "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true,
        "resourceSubscriptions": ["quiet+a:1", "loud+a:1"],
    });
    let mut live = Listener::open(&world, listen(all));
    assert_eq!(live.acknowledged(), json!({ "toolsListChanged": true }));
    assert_eq!(world.count("quiet", "subscriptions/listen"), 0);
    // An upstream may also acknowledge less than it declares.
    loud.on("subscriptions/listen", |heard| {
        Bell::default().acknowledge(heard, &json!({}))
    });
    let mut live = Listener::open(&world, listen(json!({ "toolsListChanged": true })));
    assert_eq!(live.acknowledged(), json!({}));
}

#[test]
fn listening_for_nothing_is_listening() {
    let (world, _) = world();
    let mut live = Listener::open(&world, listen(json!({})));
    assert_eq!(live.acknowledged(), json!({}));
    assert_eq!(world.count("up", "subscriptions/listen"), 0);
    world.sim.clock.advance(Duration::from_secs(60));
    assert_eq!(live.methods(), [""; 0]);
}

#[test]
fn resources_are_watched_and_told_of_under_the_names_clients_know() {
    let (one, two) = (Script::modern(&[]), Script::modern(&[]));
    let (bells, others) = (Bell::modern(&one), Bell::modern(&two));
    let world = Setup::new()
        .upstream("one", &one)
        .upstream("two", &two)
        .start();
    let uris = json!(["one+file:///a", "one+file:///b", "two+file:///a"]);
    let mut live = Listener::open(&world, listen(json!({ "resourceSubscriptions": uris })));
    assert_eq!(
        live.acknowledged(),
        json!({ "resourceSubscriptions": uris })
    );
    let watched = |upstream: &str| {
        world.bodies(upstream, "subscriptions/listen")[0]["params"]["notifications"].clone()
    };
    assert_eq!(
        (watched("one"), watched("two")),
        (
            json!({ "resourceSubscriptions": ["file:///a", "file:///b"] }),
            json!({ "resourceSubscriptions": ["file:///a"] })
        )
    );
    bells.ring(
        UPDATED,
        json!({ "uri": "file:///a", "_meta": { "x/y": 1 } }),
    );
    others.ring(UPDATED, json!({ "uri": "file:///a/part" }));
    let heard = live.heard();
    let told: Vec<(&str, &Value)> = heard
        .iter()
        .map(|(_, params)| (params["uri"].as_str().unwrap(), &params["_meta"]["x/y"]))
        .collect();
    assert_eq!(
        told,
        [
            ("one+file:///a", &json!(1)),
            ("two+file:///a/part", &Value::Null)
        ]
    );
}

#[test]
fn at_an_upstreams_own_endpoint_names_are_its_own() {
    let (world, bell) = world();
    let token = world.token(&json!({ "aud": "https://gw.example.com/servers/up/mcp" }));
    let ask = listen(json!({ "resourceSubscriptions": ["file:///a"] }));
    let ask = ask.token(&token).to("/servers/up/mcp");
    let mut live = Listener::open(&world, ask);
    assert_eq!(
        live.acknowledged(),
        json!({ "resourceSubscriptions": ["file:///a"] })
    );
    bell.ring(UPDATED, json!({ "uri": "file:///a" }));
    assert_eq!(live.heard()[0].1["uri"], "file:///a");
}

#[test]
fn unknown_resources_are_not_acknowledged() {
    let (world, _) = world();
    let uris = json!(["up+file:///a", "gone+file:///a", "file:///a", ""]);
    let mut live = Listener::open(&world, listen(json!({ "resourceSubscriptions": uris })));
    assert_eq!(
        live.acknowledged(),
        json!({ "resourceSubscriptions": ["up+file:///a"] })
    );
}

#[test]
fn in_bare_naming_a_resource_is_watched_at_whoever_lists_it() {
    let (one, two) = (Script::modern(&[]), Script::modern(&[]));
    let (_, bell) = (Bell::modern(&one), Bell::modern(&two));
    one.listing("resources", json!({ "uri": "a:1", "name": "r" }));
    two.listing("resources", json!({ "uri": "a:1", "name": "r" }))
        .listing("resources", json!({ "uri": "a:2", "name": "r" }))
        .listing(
            "resourceTemplates",
            json!({ "uriTemplate": "b:{id}", "name": "t" }),
        );
    for script in [&one, &two] {
        script.capability("resources", json!({ "subscribe": true }));
    }
    let world = Setup::new()
        .upstream("one", &one)
        .upstream("two", &two)
        .config(&json!({ "naming": "bare" }))
        .start();
    let many = (0..100).map(|n| format!("nobody:{n}"));
    let uris: Vec<String> = ["a:1", "a:2", "b:7"]
        .map(str::to_owned)
        .into_iter()
        .chain(many)
        .collect();
    let mut live = Listener::open(&world, listen(json!({ "resourceSubscriptions": uris })));
    assert_eq!(
        live.acknowledged(),
        json!({ "resourceSubscriptions": ["a:1", "a:2", "b:7"] })
    );
    let watched = &world.bodies("one", "subscriptions/listen")[0]["params"]["notifications"];
    assert_eq!(watched, &json!({ "resourceSubscriptions": ["a:1"] }));
    let lists = ["resources/list", "resources/templates/list"];
    assert_eq!(lists.map(|list| world.count("one", list)), [1, 1]);
    bell.ring(UPDATED, json!({ "uri": "b:7" }));
    assert_eq!(live.heard()[0].1["uri"], "b:7");
}

#[test]
fn a_client_of_an_older_revision_has_no_such_method() {
    let (world, _) = world();
    let params = json!({ "notifications": { "toolsListChanged": true } });
    let told = world.call(legacy("2025-11-25", "subscriptions/listen", params));
    assert_eq!(told.code(), -32601);
}

#[test]
fn malformed_filters_are_refused() {
    let (world, _) = world();
    let many: Vec<String> = (0..200).map(|n| format!("up+a:{n}")).collect();
    for filter in [
        json!(null),
        json!([]),
        json!({ "toolsListChanged": "yes" }),
        json!({ "resourceSubscriptions": "a:1" }),
        json!({ "resourceSubscriptions": [1] }),
        json!({ "resourceSubscriptions": many }),
    ] {
        let told = world.call(listen(filter.clone()));
        assert_eq!(told.refusal(), (200, -32602), "{filter}");
    }
    assert_eq!(
        world
            .call(modern("subscriptions/listen", json!({})))
            .refusal(),
        (200, -32602)
    );
    let told = world.call(listen(json!({})).header("accept", "application/json"));
    assert_eq!(told.status, 406);
}

#[test]
fn watching_tasks_takes_the_tasks_extension() {
    let (world, _) = world();
    for filter in [
        json!({ "taskIds": [] }),
        json!({ "taskIds": ["x"], "toolsListChanged": "malformed" }),
    ] {
        let told = world.call(listen(filter));
        assert_eq!(told.refusal(), (400, -32021));
        assert_eq!(
            told.error()["data"]["requiredCapabilities"],
            json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } })
        );
    }
    let ask = listen(json!({ "taskIds": ["x"], "toolsListChanged": true })).with_tasks();
    let mut live = Listener::open(&world, ask);
    assert_eq!(live.acknowledged(), json!({ "toolsListChanged": true }));
}

#[test]
fn an_upstream_that_is_away_or_slow_costs_the_others_nothing() {
    for away in [true, false] {
        let (one, two) = (Script::modern(&[]), Script::modern(&[]));
        let (bell, late) = (Bell::modern(&one), Bell::modern(&two));
        let world = Setup::new()
            .upstream("one", &one)
            .upstream("two", &two)
            .start();
        match away {
            true => world.server("two").down.set(true),
            false => world.server("two").head_delay.set(ACKNOWLEDGE_AFTER * 2),
        }
        let mut live = Listener::open(&world, listen(json!({ "toolsListChanged": true })));
        if !away {
            assert_eq!(live.methods(), [""; 0]);
            world.sim.clock.advance(ACKNOWLEDGE_AFTER);
        }
        assert_eq!(live.acknowledged(), json!({ "toolsListChanged": true }));
        bell.ring(TOOLS, json!({}));
        assert_eq!(live.methods(), [TOOLS]);
        // It is tried again, and what it has was not known before.
        world.server("two").down.set(false);
        for _ in 0..8 {
            world.sim.clock.advance(ACKNOWLEDGE_AFTER);
            live.step();
        }
        assert_eq!(live.methods(), [TOOLS], "it is back");
        late.ring(TOOLS, json!({}));
        assert_eq!(live.methods(), [TOOLS]);
    }
}

#[test]
fn a_line_that_was_lost_is_opened_again_and_everything_may_have_changed() {
    for graceful in [true, false] {
        let (world, bell) = world();
        let filter = json!({ "toolsListChanged": true, "resourceSubscriptions": ["up+a:1"] });
        let mut live = Listener::open(&world, listen(filter));
        live.heard();
        match graceful {
            true => bell.end(),
            false => bell.cut(),
        }
        assert_eq!((live.methods().len(), bell.opened()), (0, 1), "not at once");
        world.sim.clock.advance(Duration::from_secs(1));
        let heard = live.heard();
        assert_eq!(bell.opened(), 2);
        assert_eq!(heard.len(), 2);
        assert_eq!(heard[0].0, TOOLS);
        assert_eq!(
            (heard[1].0.as_str(), &heard[1].1["uri"]),
            (UPDATED, &json!("up+a:1"))
        );
        bell.ring(TOOLS, json!({}));
        assert_eq!(live.methods(), [TOOLS]);
    }
}

#[test]
fn an_upstream_that_stays_away_is_asked_ever_less_often() {
    let (world, bell) = world();
    let mut live = Listener::open(&world, listen(json!({ "toolsListChanged": true })));
    live.heard();
    world.server("up").cut_before_head.set(true);
    bell.cut();
    let attempts: Vec<usize> = (0..10)
        .map(|_| {
            let before = world.count("up", "subscriptions/listen");
            for _ in 0..120 {
                world.sim.clock.advance(Duration::from_millis(500));
                live.step();
            }
            world.count("up", "subscriptions/listen") - before
        })
        .collect();
    assert!((5..=10).contains(&attempts[0]), "{attempts:?}");
    assert!(
        attempts[2..].iter().all(|n| (1..=2).contains(n)),
        "{attempts:?}"
    );
    assert!(
        world.events("upstream_not_listened_to").len() <= 1,
        "said once"
    );
    world.server("up").cut_before_head.set(false);
    world.sim.clock.advance(Duration::from_secs(60));
    assert_eq!(live.methods(), [TOOLS]);
}

#[test]
fn a_burst_is_told_once() {
    let (world, bell) = world();
    let mut live = Listener::open(
        &world,
        listen(json!({ "toolsListChanged": true, "promptsListChanged": true })),
    );
    live.heard();
    for _ in 0..5 {
        bell.ring(TOOLS, json!({}));
        bell.ring(PROMPTS, json!({}));
    }
    assert_eq!(live.methods(), [TOOLS, PROMPTS]);
    bell.ring(TOOLS, json!({}));
    assert_eq!(live.methods(), [TOOLS], "and the next is told again");
}

#[test]
fn what_has_changed_is_listed_anew_whoever_asks() {
    for scope in ["public", "private"] {
        let script = Script::modern(&["a"]);
        let bell = Bell::modern(&script);
        script.hints(300_000, scope);
        let world = Setup::new().upstream("up", &script).start();
        let list = |subject: &str| {
            let ask = modern("tools/list", json!({})).by(subject);
            world.call(ask).names().len()
        };
        let mut live = Listener::open(&world, listen(json!({ "toolsListChanged": true })));
        live.heard();
        assert_eq!((list("ada"), list("ben")), (1, 1));
        script.listing(
            "tools",
            json!({ "name": "b", "inputSchema": { "type": "object" } }),
        );
        assert_eq!((list("ada"), list("ben")), (1, 1), "remembered");
        bell.ring(TOOLS, json!({}));
        assert_eq!(live.methods(), [TOOLS]);
        assert_eq!((list("ada"), list("ben")), (2, 2), "{scope}");
    }
}

#[test]
fn listening_ends_in_good_order_with_the_token() {
    let (world, _) = world();
    let ends = world.sim.clock.now().as_secs() + 90;
    let token = world.token(&json!({ "sub": "ada", "exp": ends }));
    let told = world.call(
        listen(json!({ "toolsListChanged": true }))
            .id(json!("x"))
            .token(&token),
    );
    assert_eq!(world.sim.clock.now().as_secs(), ends);
    assert_eq!(told.notifications(), [ACKNOWLEDGED]);
    assert!(told.comments >= 4, "kept alive: {}", told.comments);
    let end = told.json();
    assert_eq!(
        (&end["id"], &end["result"]["resultType"]),
        (&json!("x"), &json!("complete"))
    );
    let carried = &end["result"]["_meta"];
    assert_eq!(carried[ID], "x");
    assert_eq!(
        carried["io.modelcontextprotocol/serverInfo"]["name"],
        "edge"
    );
    assert_eq!(world.audits().pop().unwrap()["outcome"], "ok");
    assert_eq!(world.exchanges("up").pop().unwrap().end(), End::Cancelled);
}

#[test]
fn nobody_listens_for_ever() {
    let (world, _) = world();
    let started = world.sim.clock.now();
    let token = world.token(&json!({ "sub": "ada", "exp": started.as_secs() + 10_000 }));
    let told = world.call(listen(json!({ "toolsListChanged": true })).token(&token));
    assert_eq!(world.sim.clock.now().since(started), LIFETIME_MAX);
    assert_eq!(told.result()["resultType"], "complete");
}

#[test]
fn a_push_ends_what_was_begun_by_the_configuration_before() {
    let script = Script::modern(&["a"]);
    Bell::modern(&script);
    let setup = || Setup::new().upstream("up", &script);
    let world = setup().start();
    let mut live = Listener::open(&world, listen(json!({ "toolsListChanged": true })));
    live.heard();
    let pushed = setup().config(&json!({ "naming": "bare" }));
    world.sim.kv.publish("config", pushed.snapshot());
    for _ in 0..4 {
        world.sim.clock.advance(Duration::from_secs(30));
        live.step();
        world.settle();
    }
    let told = live.messages();
    assert_eq!(told[0]["method"], TOOLS, "there may be others now");
    assert_eq!(told[1]["result"]["resultType"], "complete");
    assert_eq!(told.len(), 2);
}

#[test]
fn whoever_leaves_ends_what_was_opened_for_them() {
    let (world, _) = world();
    let mut live = Listener::open(&world, listen(json!({ "toolsListChanged": true })));
    live.heard();
    assert_eq!(world.exchanges("up").pop().unwrap().end(), End::InFlight);
    drop(live);
    assert_eq!(world.exchanges("up").pop().unwrap().end(), End::Cancelled);
    assert_eq!(world.audits().pop().unwrap()["outcome"], "disconnected");
}

#[test]
fn a_principal_holds_only_so_many_streams() {
    let (world, _) = world();
    let ask = || listen(json!({ "toolsListChanged": true }));
    let mut held: Vec<Listener> = (0..LISTENS_PER_PRINCIPAL_MAX)
        .map(|_| Listener::open(&world, ask()))
        .collect();
    let told = world.call(ask());
    assert_eq!((told.status.as_u16(), told.reason()), (429, "rate_limited"));
    assert_eq!(told.header("retry-after"), "60");
    Listener::open(&world, ask().by("ben"));
    drop(held.pop());
    Listener::open(&world, ask());
}

#[test]
fn what_can_be_listened_for_is_advertised() {
    let one = Script::modern(&["a"]);
    one.capability("tools", json!({ "listChanged": true }))
        .capability("prompts", json!({ "listChanged": false }));
    let two = Script::legacy("2025-06-18", &["b"]);
    two.capability("resources", json!({ "subscribe": true, "x": 1 }));
    let world = Setup::new()
        .upstream("one", &one)
        .upstream("two", &two)
        .start();
    let capabilities = |path: &str| {
        let token = world.token(&json!({ "aud": format!("https://gw.example.com{path}") }));
        let ask = modern("server/discover", json!({})).token(&token).to(path);
        world.call(ask).result()["capabilities"].clone()
    };
    assert_eq!(
        capabilities("/mcp"),
        json!({ "tools": { "listChanged": true }, "resources": { "subscribe": true }, "prompts": {} })
    );
    assert_eq!(
        capabilities("/servers/two/mcp"),
        json!({ "tools": {}, "resources": { "subscribe": true } })
    );
}

#[test]
fn an_upstream_that_has_no_such_method_is_left_alone() {
    let (world, script) = (Setup::new(), Script::modern(&["a"]));
    script.capability("tools", json!({ "listChanged": true }));
    let world = world.upstream("up", &script).start();
    let mut live = Listener::open(&world, listen(json!({ "toolsListChanged": true })));
    assert_eq!(live.acknowledged(), json!({}));
    world.sim.clock.advance(Duration::from_secs(600));
    live.step();
    assert_eq!(world.count("up", "subscriptions/listen"), 1);
    script.on("subscriptions/listen", |_| Said::Error(-32603));
}

#[test]
fn what_changes_before_the_acknowledgement_is_told_after_it() {
    let (one, two) = (Script::modern(&[]), Script::modern(&[]));
    let (bell, _) = (Bell::modern(&one), Bell::modern(&two));
    let world = Setup::new()
        .upstream("one", &one)
        .upstream("two", &two)
        .start();
    world.server("two").head_delay.set(ACKNOWLEDGE_AFTER * 4);
    let filter = json!({ "toolsListChanged": true, "promptsListChanged": true });
    let mut live = Listener::open(&world, listen(filter));
    assert_eq!(live.methods(), [""; 0]);
    for method in [PROMPTS, TOOLS, PROMPTS] {
        bell.ring(method, json!({}));
    }
    assert_eq!(live.methods(), [""; 0]);
    world.sim.clock.advance(ACKNOWLEDGE_AFTER);
    assert_eq!(live.methods(), [ACKNOWLEDGED, PROMPTS, TOOLS]);
}

// --- upstreams of older revisions ---

#[test]
fn changes_at_an_older_upstream_are_told_all_the_same() {
    for version in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let (world, bell, _) = older(version);
        let filter =
            json!({ "toolsListChanged": true, "resourceSubscriptions": ["up+a:1", "up+a:2"] });
        let mut live = Listener::open(&world, listen(filter.clone()).id(json!("x")));
        assert_eq!(live.acknowledged(), filter);
        let subscribed = world.bodies("up", "resources/subscribe");
        let mut uris: Vec<&str> = subscribed
            .iter()
            .map(|body| body["params"]["uri"].as_str().unwrap())
            .collect();
        uris.sort_unstable();
        assert_eq!(uris, ["a:1", "a:2"]);
        for method in [PROMPTS, TOOLS, "notifications/message"] {
            bell.ring(method, json!({}));
        }
        bell.ring(UPDATED, json!({ "uri": "a:2", "title": "x" }));
        let told = [
            (TOOLS.to_owned(), json!({ "_meta": { ID: "x" } })),
            (
                UPDATED.to_owned(),
                json!({ "uri": "up+a:2", "title": "x", "_meta": { ID: "x" } }),
            ),
        ];
        assert_eq!(live.heard(), told);
    }
}

#[test]
fn it_is_listened_to_in_a_session_of_its_own_that_is_closed_after() {
    let (world, _, script) = older("2025-06-18");
    let mut live = Listener::open(&world, listen(json!({ "toolsListChanged": true })));
    live.heard();
    let get = exchange(&world, "GET");
    assert_eq!(get.headers["accept"], "text/event-stream");
    assert_eq!(get.headers["mcp-protocol-version"], "2025-06-18");
    assert_eq!(world.tool("up__a").status, 200);
    let call = exchange(&world, "tools/call");
    assert_ne!(
        call.headers["mcp-session-id"],
        get.headers["mcp-session-id"]
    );
    // Calls come and go; the listener's session stays.
    world.settle();
    assert_eq!(script.sessions(), 1);
    drop(live);
    world.settle();
    assert_eq!(script.sessions(), 0);
    let delete = exchange(&world, "DELETE");
    assert_eq!(
        delete.headers["mcp-session-id"],
        get.headers["mcp-session-id"]
    );
}

#[test]
fn a_server_without_a_stream_delivers_nothing() {
    for status in [405, 404, 400] {
        let (world, _, script) = older("2025-06-18");
        script.on("GET", move |_| Said::Raw(status, "text/plain", Vec::new()));
        let filter = json!({ "toolsListChanged": true, "resourceSubscriptions": ["up+a:1"] });
        let mut live = Listener::open(&world, listen(filter));
        assert_eq!(live.acknowledged(), json!({}), "{status}");
        assert_eq!(world.count("up", "resources/subscribe"), 0);
        world.sim.clock.advance(Duration::from_secs(300));
        live.step();
        assert_eq!(world.count("up", "GET"), 1, "it is not asked again");
        world.settle();
        assert_eq!(script.sessions(), 0);
    }
}

#[test]
fn only_what_it_subscribes_is_acknowledged() {
    let (world, _, script) = older("2025-11-25");
    script.on("resources/subscribe", |heard| {
        match heard.params()["uri"].as_str() {
            Some("a:1") => Said::Result(json!({})),
            _ => Said::Error(-32002),
        }
    });
    let filter = json!({ "resourceSubscriptions": ["up+a:1", "up+a:2"] });
    let mut live = Listener::open(&world, listen(filter));
    assert_eq!(
        live.acknowledged(),
        json!({ "resourceSubscriptions": ["up+a:1"] })
    );
}

#[test]
fn what_it_asks_in_the_stream_is_answered_at_once() {
    let (world, bell, _) = older("2025-06-18");
    let mut live = Listener::open(&world, listen(json!({ "toolsListChanged": true })));
    live.heard();
    bell.say(&json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" }));
    bell.say(&json!({ "jsonrpc": "2.0", "id": 9, "method": "roots/list" }));
    bell.say(&json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
    bell.say(&json!([{ "jsonrpc": "2.0", "method": TOOLS }]));
    assert_eq!(live.methods(), [TOOLS]);
    let answers = world.bodies("up", "response");
    assert_eq!(
        answers[0],
        json!({ "jsonrpc": "2.0", "id": "p", "result": {} })
    );
    assert_eq!(
        (&answers[1]["id"], &answers[1]["error"]["code"]),
        (&json!(9), &json!(-32601))
    );
}

#[test]
fn a_stream_with_ids_is_taken_up_where_it_broke_off() {
    let (world, bell, _) = older("2025-11-25");
    bell.number();
    let mut live = Listener::open(&world, listen(json!({ "toolsListChanged": true })));
    live.heard();
    bell.ring(TOOLS, json!({}));
    assert_eq!(live.methods(), [TOOLS]);
    bell.end();
    assert_eq!(live.methods(), [""; 0]);
    // The server asked for two seconds.
    world.sim.clock.advance(Duration::from_millis(1900));
    live.step();
    assert_eq!(world.count("up", "GET"), 1);
    world.sim.clock.advance(Duration::from_millis(100));
    assert_eq!(
        live.methods(),
        [""; 0],
        "nothing was lost, so nothing is told"
    );
    assert_eq!(exchange(&world, "GET").headers["last-event-id"], "1");
    assert_eq!(world.count("up", "GET"), 2);
    bell.ring(TOOLS, json!({}));
    assert_eq!(live.methods(), [TOOLS]);
}

#[test]
fn a_lost_session_is_opened_anew() {
    for numbered in [true, false] {
        let (world, bell, script) = older("2025-11-25");
        if numbered {
            bell.number();
        }
        let filter = json!({ "toolsListChanged": true, "resourceSubscriptions": ["up+a:1"] });
        let mut live = Listener::open(&world, listen(filter));
        live.heard();
        bell.ring(TOOLS, json!({}));
        assert_eq!(live.methods(), [TOOLS]);
        script.lose_sessions();
        let own = bell.clone();
        let restarted = script.clone();
        script.on("GET", move |heard| {
            match restarted.knows(heard.header("mcp-session-id")) {
                true => own.answer(heard, &[]),
                false => Said::Raw(404, "text/plain", Vec::new()),
            }
        });
        bell.cut();
        for _ in 0..10 {
            world.sim.clock.advance(Duration::from_millis(500));
            live.step();
        }
        assert_eq!(live.methods(), [TOOLS, UPDATED], "numbered: {numbered}");
        assert_eq!(world.count("up", "resources/subscribe"), 2);
        bell.ring(TOOLS, json!({}));
        assert_eq!(live.methods(), [TOOLS]);
    }
}

#[test]
fn a_server_that_sends_no_head_before_its_first_event_is_listened_to() {
    let (world, _, script) = older("2025-06-18");
    script.on("GET", |_| {
        let change = json!({ "jsonrpc": "2.0", "method": TOOLS });
        let stream = vec![Step::Send(change), Step::Wait(Duration::from_secs(600))];
        Said::After(Duration::from_secs(20), Box::new(Said::Stream(stream)))
    });
    let mut live = Listener::open(&world, listen(json!({ "toolsListChanged": true })));
    live.step();
    world.sim.clock.advance(ACKNOWLEDGE_AFTER);
    assert_eq!(live.acknowledged(), json!({ "toolsListChanged": true }));
    world.sim.clock.advance(ACKNOWLEDGE_AFTER);
    assert_eq!(live.methods(), [TOOLS], "late, so it may have changed");
    world.sim.clock.advance(Duration::from_secs(20));
    assert_eq!(live.methods(), [TOOLS]);
}

#[test]
fn a_server_of_2024_11_05_tells_of_changes_among_its_answers() {
    let script = Script::legacy("2024-11-05", &[]);
    let bell = Bell::http_sse(&script);
    let world = Setup::new()
        .upstream_with("up", &script, &json!({ "transport": "sse" }))
        .start();
    let filter = json!({ "toolsListChanged": true, "resourceSubscriptions": ["up+a:1"] });
    let mut live = Listener::open(&world, listen(filter.clone()));
    assert_eq!(live.acknowledged(), filter);
    bell.ring(PROMPTS, json!({}));
    bell.ring(UPDATED, json!({ "uri": "a:1" }));
    bell.say(&json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" }));
    assert_eq!(live.heard()[0].1["uri"], "up+a:1");
    assert_eq!(exchange(&world, "response").uri.path(), "/messages");
    bell.cut();
    live.step();
    world.sim.clock.advance(Duration::from_secs(1));
    assert_eq!(live.methods(), [TOOLS, UPDATED]);
    drop(live);
    assert_eq!(exchange(&world, "GET").end(), End::Cancelled);
}

fn older(version: &'static str) -> (World, Bell, Script) {
    let script = Script::legacy(version, &["a"]);
    let bell = Bell::legacy(&script);
    let world = Setup::new().upstream("up", &script).start();
    (world, bell, script)
}

/// The last request of this method.
#[track_caller]
fn exchange(world: &World, method: &str) -> Exchange {
    let index = world.asked("up").iter().rposition(|asked| asked == method);
    world.exchanges("up").remove(index.unwrap())
}

fn world() -> (World, Bell) {
    let script = Script::modern(&["a"]);
    let bell = Bell::modern(&script);
    (Setup::new().upstream("up", &script).start(), bell)
}

pub fn listen(filter: Value) -> Ask {
    modern("subscriptions/listen", json!({ "notifications": filter }))
}

/// A client that listens.
pub struct Listener {
    live: Live,
    unread: String,
}

impl Listener {
    #[track_caller]
    pub fn open(world: &World, ask: Ask) -> Self {
        let mut live = world.open(ask);
        let (status, headers) = live.head().expect("the head comes at once");
        assert_eq!(status, 200);
        assert_eq!(headers["content-type"], "text/event-stream");
        Self {
            live,
            unread: String::new(),
        }
    }

    /// Lets things happen.
    pub fn step(&mut self) {
        self.unread += &self.live.text();
    }

    /// The messages that have come by now.
    #[track_caller]
    pub fn messages(&mut self) -> Vec<Value> {
        self.step();
        let text = std::mem::take(&mut self.unread);
        text.split_terminator("\n\n")
            .filter_map(|block| block.strip_prefix("event: message\ndata: "))
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }

    /// The notifications that have come by now, with their params.
    #[track_caller]
    pub fn heard(&mut self) -> Vec<(String, Value)> {
        let messages = self.messages();
        messages
            .into_iter()
            .map(|message| {
                let method = message["method"]
                    .as_str()
                    .unwrap_or_else(|| panic!("{message}"));
                (method.to_owned(), message["params"].clone())
            })
            .collect()
    }

    #[track_caller]
    pub fn methods(&mut self) -> Vec<String> {
        self.heard().into_iter().map(|(method, _)| method).collect()
    }

    /// What the acknowledgement honours; it must be all that has come.
    #[track_caller]
    pub fn acknowledged(&mut self) -> Value {
        let heard = self.heard();
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert_eq!(heard[0].0, ACKNOWLEDGED);
        heard[0].1["notifications"].clone()
    }
}
