//! HTTP+SSE, the transport of 2024-11-05: clients and upstreams that know no other.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::http_sse::CALLS_MAX;

use crate::world::bell::Bell;
use crate::world::{Ask, Live, Said, Script, Setup, World, complete};

const OPERATOR: &str = "an operator's key, long enough to be one";
const TICK: Duration = Duration::from_millis(100);

#[test]
fn a_client_opens_a_stream_posts_where_it_says_and_hears_every_answer_on_it() {
    for script in [
        Script::modern(&["ask"]),
        Script::legacy("2025-11-25", &["ask"]),
    ] {
        let world = Setup::new().upstream("up", &script).start();
        let mut client = Client::open(&world, "/sse");
        assert!(client.path.starts_with("/messages?session="));
        let elsewhere = world.isolate();
        assert_eq!(client.post(&elsewhere, initialize(json!({}))), 202);
        let hello = client.heard();
        assert_eq!(hello["result"]["protocolVersion"], "2024-11-05");
        let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        assert_eq!(client.post(&elsewhere, ready), 202);
        assert_eq!(client.post(&elsewhere, call(2, "up__ask")), 202);
        let told = client.heard();
        assert_eq!(told["id"], 2);
        assert_eq!(told["result"]["content"][0]["text"], "CANARY-RESULT ask");
        // An error is an answer too.
        assert_eq!(client.post(&world, call(3, "up__none")), 202);
        assert_eq!(client.heard()["id"], 3);
    }
}

#[test]
fn a_later_client_that_comes_this_way_is_served_in_the_revision_it_asks_for() {
    let script = Script::modern(&["ask"]);
    script.on("tools/call", |_| {
        let mut result = complete("text");
        result["structuredContent"] = json!({ "n": 1 });
        Said::Result(result)
    });
    let world = Setup::new().upstream("up", &script).start();
    for (version, structured) in [("2025-11-25", true), ("2024-11-05", false)] {
        let mut client = Client::open(&world, "/sse");
        let mut hello = initialize(json!({}));
        hello["params"]["protocolVersion"] = version.into();
        client.post(&world, hello);
        assert_eq!(client.heard()["result"]["protocolVersion"], version);
        client.post(&world, call(2, "up__ask"));
        let result = &client.heard()["result"];
        assert_eq!(
            result["structuredContent"].is_object(),
            structured,
            "{version}"
        );
    }
}

#[test]
fn one_upstream_alone_has_its_own_stream() {
    let world = Setup::new()
        .upstream("up", &Script::modern(&["ask"]))
        .start();
    let token = world.token(&json!({ "aud": "https://gw.example.com/servers/up/mcp" }));
    let ask = Ask::http("GET", "/servers/up/sse").token(&token);
    let mut client = Client::begin(&world, ask);
    assert!(client.path.starts_with("/servers/up/messages?session="));
    let call = Ask::post(call(1, "ask")).to(&client.path).token(&token);
    assert_eq!(world.ask(call).status, 202);
    assert_eq!(
        client.heard()["result"]["content"][0]["text"],
        "CANARY-RESULT ask"
    );
}

#[test]
fn a_client_that_can_be_asked_is_asked_on_its_stream() {
    let script = Script::modern(&["ask"]);
    script.on("tools/call", |heard| {
        let answers = &heard.params()["inputResponses"];
        if answers.is_null() {
            let params = json!({ "messages": [], "maxTokens": 1 });
            let requests = json!({ "s": { "method": "sampling/createMessage", "params": params } });
            return Said::Result(
                json!({ "resultType": "input_required", "inputRequests": requests }),
            );
        }
        Said::Result(complete(answers["s"]["model"].as_str().unwrap()))
    });
    let world = Setup::new().upstream("up", &script).start();
    let mut client = Client::open(&world, "/sse");
    client.post(&world, initialize(json!({ "sampling": {} })));
    client.heard();
    client.post(&world, call(2, "up__ask"));
    let question = client.heard();
    assert_eq!(question["method"], "sampling/createMessage");
    let content = json!({ "type": "text", "text": "hm" });
    let result = json!({ "role": "assistant", "content": content, "model": "m-1" });
    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": result });
    assert_eq!(client.post(&world.isolate(), answer), 202);
    assert_eq!(client.heard()["result"]["content"][0]["text"], "m-1");
}

#[test]
fn a_call_too_many_is_told_so_and_the_others_go_on() {
    let script = Script::modern(&["ask"]);
    script.on("tools/call", |_| {
        let late = Box::new(Said::Result(complete("late")));
        Said::After(Duration::from_secs(10), late)
    });
    let world = Setup::new().upstream("up", &script).start();
    let mut client = Client::open(&world, "/sse");
    for id in 0..=CALLS_MAX {
        let id = u32::try_from(id).unwrap();
        assert_eq!(client.post(&world, call(id, "up__ask")), 202);
    }
    let refused = client.heard();
    assert_eq!(refused["id"], CALLS_MAX);
    assert_eq!(refused["error"]["code"], -31_000);
    for _ in 0..CALLS_MAX {
        assert_eq!(client.heard()["result"]["content"][0]["text"], "late");
    }
}

#[test]
fn a_posted_call_goes_by_what_is_in_force_when_it_is_made() {
    let setup = || {
        Setup::new()
            .upstream("up", &Script::modern(&["ask", "tell"]))
            .secret("TIDEGATE_ADMIN_TOKEN", OPERATOR)
    };
    let world = setup().start();
    let mut client = Client::open(&world, "/sse");
    let elsewhere = world.isolate();
    let mut reason = |id, tool| {
        assert_eq!(client.post(&elsewhere, call(id, tool)), 202);
        let told = client.heard();
        assert_eq!(told["id"], id, "{told}");
        told["error"]["data"]["reason"].as_str().map(str::to_owned)
    };
    assert_eq!(reason(2, "up__ask"), None);
    let switch = json!({ "kind": "tool", "value": "up__ask", "reason": "it asks too much" });
    let kill = Ask::http("POST", "/admin/switches")
        .body(switch.to_string())
        .token(OPERATOR);
    assert_eq!(elsewhere.ask(kill).status, 200);
    world.later(Duration::from_secs(80));
    assert_eq!(reason(3, "up__ask").as_deref(), Some("killed"));
    assert_eq!(reason(4, "up__tell"), None);
    let rules = json!([{ "name": "none", "effect": "deny", "tools": ["*"] }]);
    let pushed = setup().config(&json!({ "policy": { "rules": rules } }));
    world.sim.kv.publish("config", pushed.snapshot());
    world.later(Duration::from_secs(120));
    // The stream's isolate looks once it is asked.
    reason(5, "up__tell");
    assert_eq!(reason(6, "up__tell").as_deref(), Some("denied"));
}

#[test]
fn a_posted_call_may_do_what_the_token_it_is_posted_with_allows() {
    let world = Setup::new()
        .upstream("up", &Script::modern(&["ask"]))
        .rule(json!({ "name": "up__ask", "requiredRoles": ["asker"] }))
        .start();
    let able = world.token(&json!({ "roles": ["asker"] }));
    let unable = world.token(&json!({ "roles": [] }));
    for (opened, posted, may) in [
        (&able, &unable, false),
        (&unable, &able, true),
        (&able, &able, true),
    ] {
        let mut client = Client::begin(&world, Ask::http("GET", "/sse").token(opened));
        let call = Ask::post(call(2, "up__ask")).to(&client.path).token(posted);
        assert_eq!(world.isolate().ask(call).status, 202);
        assert_eq!(client.heard()["result"].is_object(), may);
    }
}

#[test]
fn what_is_posted_to_no_stream_of_ones_own_is_refused() {
    let world = Setup::new()
        .upstream("up", &Script::modern(&["ask"]))
        .start();
    let client = Client::open(&world, "/sse");
    let ask = || Ask::post(call(1, "up__ask")).to(&client.path);
    let other = world.token(&json!({ "aud": "https://gw.example.com/servers/up/mcp" }));
    let refused = [
        ("foreign", ask().by("ben"), 404),
        ("anonymous", ask().anonymous(), 401),
        ("no session", ask().to("/messages"), 404),
        ("made up", ask().to("/messages?session=x"), 404),
        (
            "another endpoint's",
            ask()
                .to(&format!("/servers/up{}", client.path))
                .token(&other),
            404,
        ),
        ("another method", Ask::http("GET", &client.path), 405),
        (
            "a batch",
            Ask::post(json!([call(1, "up__ask")])).to(&client.path),
            400,
        ),
        ("no JSON", ask().body("{"), 400),
        ("too large", Ask::post(large()).to(&client.path), 413),
    ];
    for (why, ask, status) in refused {
        assert_eq!(world.ask(ask).status.as_u16(), status, "{why}");
    }
    assert_eq!(world.ask(Ask::http("POST", "/sse")).status, 405);
    let path = client.path.clone();
    drop(client);
    world.settle();
    let late = Ask::post(call(1, "up__ask")).to(&path);
    assert_eq!(world.ask(late).status, 404, "nobody holds the stream");
    assert_eq!(world.count("up", "tools/call"), 0);
}

#[test]
fn an_upstream_of_2024_11_05_is_called_over_its_stream() {
    let script = Script::legacy("2024-11-05", &["ask"]);
    let bell = Bell::http_sse(&script);
    script.on("tools/call", move |heard| {
        bell.say(&heard.response(&complete("over the stream")));
        Said::Raw(202, "text/plain", Vec::new())
    });
    let members = json!({ "transport": "sse" });
    let world = Setup::new().upstream_with("up", &script, &members).start();
    assert_eq!(world.tool("up__ask").said(), "over the stream");
    assert_eq!(
        world.count("up", "server/discover"),
        0,
        "it is known to be old"
    );
}

#[test]
fn an_upstream_whose_endpoint_is_elsewhere_gets_nothing() {
    for elsewhere in [
        "https://evil.example.net/messages",
        "//evil.example.net/messages",
        "https://up.example.com.evil.example.net/messages",
        "https://up.example.com@evil.example.net/messages",
        "https://user:pw@up.example.com/messages",
        "http://up.example.com/messages",
        "https://up.example.com:8443/messages",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
    ] {
        nothing_is_posted(elsewhere);
    }
}

fn nothing_is_posted(elsewhere: &'static str) {
    let script = Script::legacy("2024-11-05", &["ask"]);
    script.on("GET", move |_| {
        let named = format!("event: endpoint\ndata: {elsewhere}\n\n");
        Said::Stream(vec![crate::world::Step::Bytes(named.into_bytes())])
    });
    let world = Setup::new()
        .upstream_with("up", &script, &json!({ "transport": "sse" }))
        .start();
    let told = world.tool("up__ask");
    assert_eq!(told.reason(), "upstream_invalid", "{elsewhere:?}");
    assert_eq!(world.asked("up"), ["GET"], "{elsewhere:?}");
}

/// A client with its stream.
struct Client<'w> {
    world: &'w World,
    stream: Live,
    path: String,
    unread: String,
}

impl<'w> Client<'w> {
    fn open(world: &'w World, path: &str) -> Self {
        Self::begin(world, Ask::http("GET", path))
    }

    fn begin(world: &'w World, ask: Ask) -> Self {
        let mut stream = world.open(ask);
        let (status, headers) = stream.head().unwrap();
        assert_eq!(status, 200);
        assert_eq!(headers["content-type"], "text/event-stream");
        let opened = stream.text();
        let named = opened.strip_prefix("event: endpoint\ndata: ").unwrap();
        let path = named.trim_end().to_owned();
        Self {
            world,
            stream,
            path,
            unread: String::new(),
        }
    }

    fn post(&self, at: &World, message: Value) -> u16 {
        at.ask(Ask::post(message).to(&self.path)).status.as_u16()
    }

    /// The next message on the stream.
    #[track_caller]
    fn heard(&mut self) -> Value {
        for _ in 0..200 {
            self.unread.push_str(&self.stream.text());
            while let Some((event, rest)) = self.unread.split_once("\n\n") {
                let data = event.strip_prefix("event: message\ndata: ");
                let message = data.map(|data| serde_json::from_str(data).unwrap());
                self.unread = rest.to_owned();
                if let Some(message) = message {
                    return message;
                }
            }
            self.world.step_deferred();
            self.world.sim.clock.advance(TICK);
        }
        panic!("nothing was said in twenty seconds");
    }
}

fn initialize(capabilities: Value) -> Value {
    let client = json!({ "name": "old", "version": "1" });
    let params = json!({ "protocolVersion": "2024-11-05", "capabilities": capabilities, "clientInfo": client });
    json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params })
}

fn call(id: u32, tool: &str) -> Value {
    let params = json!({ "name": tool, "arguments": { "q": "x" } });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
}

fn large() -> Value {
    let params = json!({ "name": "up__ask", "arguments": { "q": "x".repeat(300 * 1024) } });
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params })
}
