//! The validation ladder of 2026-07-28: what each rung answers, and that the first failure
//! wins.

use serde_json::{Value, json};

use crate::world::{Ask, Script, Setup, World, modern, tool};

#[test]
fn each_rung_has_its_status_code_and_id() {
    let world = world();
    let list = || modern("tools/list", json!({})).id(json!("abc"));
    let call = || tool("search__query").id(json!("abc"));
    let cases: Vec<(&str, Ask, (u16, i64), bool)> = vec![
        (
            "text/plain",
            list().header("content-type", "text/plain"),
            (415, -31000),
            false,
        ),
        (
            "no content type",
            list().without("content-type"),
            (415, -31000),
            false,
        ),
        (
            "only HTML wanted",
            list().header("accept", "text/html"),
            (406, -31000),
            false,
        ),
        ("not JSON", list().body("{"), (400, -32700), false),
        ("a number", list().body("5"), (400, -32600), false),
        ("an array", list().body("[]"), (400, -32600), false),
        (
            "a batch",
            Ask::post(json!([list().message])).header("mcp-protocol-version", "2026-07-28"),
            (400, -32600),
            false,
        ),
        ("a null id", list().id(Value::Null), (400, -32600), false),
        (
            "a fractional id",
            list().id(json!(1.5)),
            (400, -32600),
            false,
        ),
        (
            "an object as id",
            list().id(json!({})),
            (400, -32600),
            false,
        ),
        (
            "JSON-RPC 1.0",
            with(list(), "jsonrpc", json!("1.0")),
            (400, -32600),
            true,
        ),
        (
            "no method",
            with(list(), "method", Value::Null),
            (400, -32600),
            true,
        ),
        (
            "params that are a list",
            with(list(), "params", json!([])),
            (400, -32600),
            true,
        ),
        (
            "a response",
            with(list().id(json!("abc")), "result", json!({})),
            (400, -32600),
            true,
        ),
        (
            "no envelope",
            list().param("_meta", json!({})),
            (400, -32602),
            true,
        ),
        (
            "no capabilities",
            list().meta("clientCapabilities", Value::Null),
            (400, -32602),
            true,
        ),
        (
            "a version that is no text",
            list().meta("protocolVersion", json!(7)),
            (400, -32602),
            true,
        ),
        (
            "an unknown log level",
            list().meta("logLevel", json!("loud")),
            (400, -32602),
            true,
        ),
        (
            "no version header",
            list().without("mcp-protocol-version"),
            (400, -32020),
            true,
        ),
        (
            "no method header",
            list().without("mcp-method"),
            (400, -32020),
            true,
        ),
        (
            "another method in the header",
            list().header("mcp-method", "tools/call"),
            (400, -32020),
            true,
        ),
        (
            "the method in other case",
            list().header("mcp-method", "Tools/List"),
            (400, -32020),
            true,
        ),
        (
            "two method headers",
            list().also("mcp-method", "tools/list"),
            (400, -32020),
            true,
        ),
        (
            "no name header",
            call().without("mcp-name"),
            (400, -32020),
            true,
        ),
        (
            "another name in the header",
            call().header("mcp-name", "search__other"),
            (400, -32020),
            true,
        ),
        (
            "a name header that is no Base64",
            call().header("mcp-name", "=?base64?!?="),
            (400, -32020),
            true,
        ),
        (
            "another version in the body",
            list().meta("protocolVersion", json!("v999")),
            (400, -32020),
            true,
        ),
        (
            "an unknown version",
            version(list(), "v999"),
            (400, -32022),
            true,
        ),
        (
            "an older version in an envelope",
            version(list(), "2025-11-25"),
            (400, -32022),
            true,
        ),
        (
            "an unknown method",
            list().method("tools/destroy"),
            (404, -32601),
            true,
        ),
        (
            "a call without a name",
            modern("tools/call", json!({})).id(json!("abc")),
            (200, -32602),
            true,
        ),
        (
            "an unknown tool",
            modern("tools/call", json!({ "name": "other__x" })).id(json!("abc")),
            (200, -32602),
            true,
        ),
    ];
    for (what, ask, refusal, echoed) in cases {
        let told = world.call(ask);
        assert_eq!(told.refusal(), refusal, "{what}: {told:?}");
        let id = told.json().get("id");
        assert_eq!(id, echoed.then_some(&json!("abc")), "{what}: {told:?}");
    }
    assert!(
        world.exchanges("search").is_empty(),
        "nothing refused reaches an upstream"
    );
}

#[test]
fn the_first_failure_wins() {
    let world = world();
    type Fault = (&'static str, fn(Ask) -> Ask, (u16, i64));
    let faults: [Fault; 10] = [
        (
            "origin",
            |ask| ask.header("origin", "https://evil.example.net"),
            (403, -31000),
        ),
        ("HTTP method", |ask| ask.using("GET"), (405, -31000)),
        ("token", Ask::anonymous, (401, -31000)),
        (
            "media type",
            |ask| ask.header("content-type", "text/plain"),
            (415, -31000),
        ),
        ("JSON", |ask| ask.body("{"), (400, -32700)),
        (
            "message",
            |ask| ask.body(r#"{"jsonrpc":"2.0","id":null,"method":"tools/list"}"#),
            (400, -32600),
        ),
        (
            "envelope",
            |ask| ask.meta("clientCapabilities", json!(7)),
            (400, -32602),
        ),
        ("headers", |ask| ask.without("mcp-method"), (400, -32020)),
        ("version", |ask| version(ask, "v999"), (400, -32022)),
        ("method", |ask| ask.method("tools/destroy"), (404, -32601)),
    ];
    for (first, (name, _, refusal)) in faults.iter().enumerate() {
        let ask = faults[first..]
            .iter()
            .rev()
            .fold(modern("tools/list", json!({})), |ask, (_, fault, _)| {
                fault(ask)
            });
        let told = world.call(ask);
        assert_eq!(told.refusal(), *refusal, "{name}: {told:?}");
    }
}

#[test]
fn methods_that_were_removed_are_unknown_even_inside_an_envelope() {
    let world = world();
    for method in [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/result",
        "tasks/list",
        "sampling/createMessage",
    ] {
        assert_eq!(
            world.call(modern(method, json!({}))).refusal(),
            (404, -32601),
            "{method}"
        );
    }
}

#[test]
fn an_unsupported_version_is_told_what_is_supported_and_what_it_asked_for() {
    let world = world();
    let told = world.call(version(modern("tools/list", json!({})), "2027-01-01"));
    assert_eq!(
        told.error()["data"],
        json!({ "supported": ["2026-07-28"], "requested": "2027-01-01" })
    );
    let supported =
        world.call(modern("server/discover", json!({}))).result()["supportedVersions"].clone();
    assert_eq!(supported, json!(["2026-07-28"]));
}

#[test]
fn header_values_are_trimmed_and_decoded_before_they_are_compared() {
    let world = world();
    let cases = [
        tool("search__query").header("mcp-name", " \tsearch__query\t "),
        tool("search__query").header("mcp-name", "=?base64?c2VhcmNoX19xdWVyeQ==?="),
        tool("search__query").header("mcp-method", " tools/call "),
    ];
    for ask in cases {
        assert_eq!(world.call(ask).said(), "CANARY-RESULT query");
    }
}

#[test]
fn client_info_is_not_required() {
    let mut ask = tool("search__query");
    let meta = ask.message["params"]["_meta"].as_object_mut().unwrap();
    meta.shift_remove("io.modelcontextprotocol/clientInfo");
    assert_eq!(world().call(ask).status, 200);
}

#[test]
fn every_result_says_its_type_and_who_serves_it() {
    let world = world();
    let asks = [
        modern("server/discover", json!({})),
        modern("tools/list", json!({})),
        tool("search__query"),
    ];
    for ask in asks {
        let told = world.call(ask);
        assert_eq!(told.result()["resultType"], "complete", "{told:?}");
        assert_eq!(
            told.result()["_meta"]["io.modelcontextprotocol/serverInfo"]["name"],
            "edge",
            "{told:?}"
        );
    }
}

#[test]
fn a_notification_is_accepted_and_gets_no_answer() {
    let world = world();
    let envelope = modern("notifications/cancelled", json!({ "requestId": 1 }));
    let mut ask = envelope;
    ask.message.as_object_mut().unwrap().shift_remove("id");
    let told = world.ask(ask);
    assert_eq!((told.status.as_u16(), told.text.as_str()), (202, ""));
    assert!(world.audits().is_empty(), "it is no call");
}

#[test]
fn ids_come_back_as_they_were() {
    let world = world();
    for id in [
        json!(0),
        json!(-7),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("ünïcode ✓"),
        json!("x".repeat(256)),
    ] {
        assert_eq!(
            world.call(tool("search__query").id(id.clone())).json()["id"],
            id
        );
    }
}

fn world() -> World {
    Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .start()
}

fn with(mut ask: Ask, member: &str, value: Value) -> Ask {
    ask.message[member] = value;
    ask
}

fn version(ask: Ask, version: &str) -> Ask {
    ask.meta("protocolVersion", version.into())
        .header("mcp-protocol-version", version)
}
