//! Extensions: MCP Apps everywhere, others where a client has one upstream to itself.

use serde_json::{Value, json};

use crate::world::{Ask, Said, Script, Setup, World, complete, legacy, modern, tool};

const UI: &str = "io.modelcontextprotocol/ui";
const TASKS: &str = "io.modelcontextprotocol/tasks";
const OTHER: &str = "com.example/other";

/// What a client of MCP Apps declares, and more.
fn declared() -> Value {
    json!({ UI: { "mimeTypes": ["text/html;profile=mcp-app"] }, OTHER: { "x": 1 }, TASKS: {} })
}

fn declaring(ask: Ask) -> Ask {
    ask.meta("clientCapabilities", json!({ "extensions": declared() }))
}

/// An upstream with a tool that has a user interface.
fn app() -> Script {
    let script = Script::modern(&[]);
    script.listing(
        "tools",
        json!({ "name": "show", "inputSchema": {}, "_meta": {
            "ui": { "resourceUri": "ui://app/view", "visibility": ["model"] },
            "ui/resourceUri": "ui://app/view", "com.example/n": 1 } }),
    );
    script.listing(
        "resources",
        json!({ "uri": "ui://app/view", "name": "view" }),
    );
    script.capability(
        "extensions",
        json!({ UI: {}, OTHER: { "y": 2 }, TASKS: {} }),
    );
    script
}

fn two(app: &Script) -> World {
    Setup::new()
        .upstream("up", app)
        .upstream("plain", &Script::modern(&["t"]))
        .start()
}

/// The same at the upstream's own endpoint.
fn at(world: &World, upstream: &str, ask: Ask) -> Ask {
    let path = format!("/servers/{upstream}/mcp");
    let claims = json!({ "aud": format!("https://gw.example.com{path}") });
    ask.token(&world.token(&claims)).to(&path)
}

#[test]
fn a_tools_interface_is_read_by_the_uri_it_is_shown_with() {
    let script = app();
    let world = two(&script);
    let listed = world.call(modern("tools/list", json!({})));
    let meta = &listed.result()["tools"][0]["_meta"];
    assert_eq!(
        *meta,
        json!({ "ui": { "resourceUri": "ui://up+app/view", "visibility": ["model"] },
            "ui/resourceUri": "ui://up+app/view", "com.example/n": 1 })
    );
    assert_eq!(world.list("resources/list"), ["ui://up+app/view"]);
    let uri = &meta["ui"]["resourceUri"];
    let read = world.call(modern("resources/read", json!({ "uri": uri })));
    assert_eq!(read.result()["contents"][0]["uri"], *uri);
    let sent = world.bodies("up", "resources/read").pop().unwrap();
    assert_eq!(sent["params"]["uri"], "ui://app/view");
    for unknown in ["ui://app/view", "ui://three+app/view", "ui://+", "ui://"] {
        let told = world.call(modern("resources/read", json!({ "uri": unknown })));
        assert_eq!(told.code(), -32602, "{unknown}");
    }

    let own = world.call(at(&world, "up", modern("tools/list", json!({}))));
    let meta = &own.result()["tools"][0]["_meta"];
    assert_eq!(
        meta["ui"]["resourceUri"], "ui://app/view",
        "nothing to tell apart"
    );
}

#[test]
fn a_results_meta_is_the_upstreams_own() {
    let script = app();
    let meta = json!({ "ui": { "resourceUri": "ui://app/view" }, "n": 1.0 });
    let said = meta.clone();
    script.on("tools/call", move |_| {
        let mut result = complete("shown");
        result["_meta"] = said.clone();
        Said::Result(result)
    });
    let told = two(&script).call(tool("up__show"));
    assert_eq!(told.result()["_meta"]["ui"], meta["ui"]);
    assert_eq!(told.result()["_meta"]["n"], meta["n"]);
}

#[test]
fn what_is_advertised_is_what_can_be_carried() {
    let world = two(&app());
    let shown = |ask: Ask| world.call(ask).result()["capabilities"]["extensions"].clone();
    let discover = || modern("server/discover", json!({}));
    assert_eq!(shown(discover()), json!({ UI: {}, TASKS: {} }));
    let alone = json!({ UI: {}, OTHER: { "y": 2 }, TASKS: {} });
    assert_eq!(shown(at(&world, "up", discover())), alone);
    assert_eq!(shown(at(&world, "plain", discover())), Value::Null);

    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } });
    let told = world.call(legacy("2025-11-25", "initialize", params));
    assert_eq!(
        told.result()["capabilities"]["extensions"],
        json!({ UI: {} })
    );

    let world = Setup::new().upstream("up", &app()).start();
    let told = world.call(discover());
    assert_eq!(told.result()["capabilities"]["extensions"], alone);
}

#[test]
fn what_a_client_declares_reaches_the_upstream_it_can_be_carried_to() {
    let world = two(&app());
    let ui = json!({ UI: declared()[UI], TASKS: {} });
    let all = json!({ UI: declared()[UI], OTHER: declared()[OTHER], TASKS: {} });
    for (ask, carried) in [
        (tool("up__show"), &ui),
        (at(&world, "up", tool("show")), &all),
    ] {
        assert_eq!(world.call(declaring(ask)).status, 200);
        let sent = world.bodies("up", "tools/call").pop().unwrap();
        let meta = &sent["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
        assert_eq!(meta["extensions"], *carried);
    }
}

#[test]
fn older_revisions_declare_extensions_too() {
    let script = Script::legacy("2025-06-18", &["t"]);
    let world = Setup::new().upstream("up", &script).start();
    assert_eq!(world.call(declaring(tool("up__t"))).status, 200);
    let opened = world.bodies("up", "initialize").pop().unwrap();
    let all = json!({ UI: declared()[UI], OTHER: declared()[OTHER] });
    assert_eq!(
        opened["params"]["capabilities"],
        json!({ "extensions": all })
    );

    let world = two(&app());
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": { "extensions": declared() },
        "clientInfo": { "name": "c", "version": "1" } });
    let told = world.call(legacy("2025-11-25", "initialize", params));
    let session = told.header("mcp-session-id").to_owned();
    let call = legacy("2025-11-25", "tools/call", json!({ "name": "up__show" }));
    assert_eq!(
        world.call(call.header("mcp-session-id", &session)).status,
        200
    );
    let sent = world.bodies("up", "tools/call").pop().unwrap();
    let meta = &sent["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    assert_eq!(meta["extensions"], json!({ UI: declared()[UI] }));
}

#[test]
fn results_of_types_an_extension_adds_pass_where_it_was_carried() {
    let script = app();
    script.on("tools/call", |_| {
        Said::Result(json!({ "resultType": "com.example/type", "more": 1.0 }))
    });
    let world = two(&script);
    let told = world.call(declaring(at(&world, "up", tool("show"))));
    assert_eq!(told.result()["resultType"], "com.example/type");
    for ask in [declaring(tool("up__show")), at(&world, "up", tool("show"))] {
        assert_eq!(world.call(ask).reason(), "upstream_invalid");
    }
}
