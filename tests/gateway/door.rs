//! Before anything is read: origin, host, HTTP method, path, media types, size.

use bytes::Bytes;
use serde_json::json;

use crate::world::{Ask, Script, Setup, World, legacy, modern, tool};

#[test]
fn a_page_of_a_foreign_origin_is_refused_whatever_it_asks() {
    let world = world(&json!({ "allowedOrigins": ["https://app.example.com"] }));
    for origin in [
        "https://evil.example.net",
        "https://app.example.com.evil.example.net",
        "https://app.example.com:8443",
        "http://app.example.com",
        "https://APP.example.com",
        "null",
        "",
        "http://localhost:3000",
    ] {
        for method in ["POST", "GET", "DELETE", "OPTIONS", "PUT"] {
            let told = world.ask(tool("search__query").using(method).header("origin", origin));
            assert_eq!(told.status, 403, "{method} from {origin:?}: {told:?}");
            assert_eq!(
                told.header("access-control-allow-origin"),
                "",
                "{method} from {origin:?}"
            );
        }
    }
    assert!(world.exchanges("search").is_empty());
}

#[test]
fn an_allowed_page_may_call_and_read_what_it_needs() {
    let world = world(&json!({ "allowedOrigins": ["https://app.example.com"] }));
    for origin in ["https://app.example.com", "https://gw.example.com"] {
        let told = world.call(tool("search__query").header("origin", origin));
        assert_eq!(told.said(), "CANARY-RESULT query");
        assert_eq!(told.header("access-control-allow-origin"), origin);
        assert_eq!(told.header("vary"), "Origin");
        let exposed = told.header("access-control-expose-headers");
        for name in [
            "WWW-Authenticate",
            "Retry-After",
            "RateLimit",
            "RateLimit-Policy",
        ] {
            assert!(exposed.split(", ").any(|header| header == name), "{name}");
        }
        assert_eq!(
            told.header("access-control-allow-credentials"),
            "",
            "tokens are not cookies"
        );
    }
}

#[test]
fn a_refused_call_of_an_allowed_page_can_be_read_by_it() {
    let world = world(&json!({ "allowedOrigins": ["https://app.example.com"] }));
    let told = world.call(
        tool("search__query")
            .anonymous()
            .header("origin", "https://app.example.com"),
    );
    assert_eq!(told.status, 401);
    assert_eq!(
        told.header("access-control-allow-origin"),
        "https://app.example.com"
    );
}

#[test]
fn a_preflight_of_an_allowed_page_is_answered_without_a_token() {
    let world = world(&json!({ "allowedOrigins": ["https://app.example.com"] }));
    let asked = "authorization, mcp-protocol-version, mcp-method, mcp-param-region";
    let told = world.ask(
        Ask::http("OPTIONS", "/mcp")
            .anonymous()
            .header("origin", "https://app.example.com")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", asked),
    );
    assert_eq!(told.status, 204);
    assert_eq!(
        told.header("access-control-allow-origin"),
        "https://app.example.com"
    );
    assert!(told.header("access-control-allow-methods").contains("POST"));
    assert_eq!(told.header("access-control-allow-headers"), asked);
}

#[test]
fn in_development_pages_of_this_machine_may_call() {
    let world = development();
    for origin in [
        "http://localhost:6274",
        "http://127.0.0.1:3000",
        "http://[::1]:80",
    ] {
        let told = world.ask(local(tool("search__query")).header("origin", origin));
        assert_eq!(told.status, 200, "{origin}: {told:?}");
    }
    for origin in [
        "http://localhost.evil.example.net",
        "http://127.0.0.1.evil.example.net",
        "http://evil.example.net:80",
    ] {
        assert_eq!(
            world
                .ask(local(tool("search__query")).header("origin", origin))
                .status,
            403,
            "{origin}"
        );
    }
}

#[test]
fn without_authentication_only_loopback_names_are_served() {
    let world = development();
    for host in [
        "127.0.0.1:8787",
        "localhost:8787",
        "localhost",
        "[::1]:8787",
    ] {
        let told = world.ask(local(tool("search__query")).header("host", host));
        assert_eq!(told.status, 200, "{host}: {told:?}");
    }
    for host in [
        "evil.example.com",
        "gw.example.com",
        "127.0.0.1.evil.example.net",
        "localhost.evil.example.net:80",
        "10.0.0.1",
    ] {
        let told = world.ask(local(tool("search__query")).header("host", host));
        assert_eq!(
            (told.status.as_u16(), told.reason()),
            (403, "host_not_allowed"),
            "{host}"
        );
    }
}

#[test]
fn without_authentication_only_this_machine_is_served_whatever_host_it_names() {
    let world = development();
    for (address, served) in [
        (None, true),
        (Some("127.0.0.1"), true),
        (Some("127.9.8.7"), true),
        (Some("::1"), true),
        (Some("::ffff:127.0.0.1"), true),
        (Some("192.0.2.7"), false),
        (Some("10.0.0.1"), false),
        (Some("2001:db8::7"), false),
        (Some("::ffff:192.0.2.7"), false),
        (Some("127.0.0.1, 192.0.2.7"), false),
    ] {
        let told = world.ask(local(tool("search__query")).from(address, None));
        let status = if served { 200 } else { 403 };
        assert_eq!(told.status, status, "{address:?}: {told:?}");
        if !served {
            assert_eq!(told.reason(), "host_not_allowed", "{address:?}");
        }
    }
}

#[test]
fn only_post_carries_messages() {
    let world = world(&json!({}));
    for method in ["GET", "DELETE", "PUT", "PATCH", "HEAD"] {
        let told = world.ask(Ask::http(method, "/mcp"));
        assert_eq!(
            (told.status.as_u16(), told.header("allow")),
            (405, "POST"),
            "{method}"
        );
    }
}

#[test]
fn there_is_nothing_at_other_paths() {
    let world = world(&json!({}));
    for path in [
        "/",
        "/mcp2",
        "/mcp/x",
        "/servers/mcp",
        "/servers//mcp",
        "/servers/other/mcp",
        "/servers/search",
        "//mcp",
        "/MCP",
    ] {
        let told = world.ask(tool("search__query").to(path));
        assert_eq!(told.status, 404, "{path}: {told:?}");
    }
    for path in ["/mcp", "/mcp/", "/mcp?x=1"] {
        assert_eq!(
            world.call(tool("search__query").to(path)).status,
            200,
            "{path}"
        );
    }
}

#[test]
fn media_types_are_read_as_http_writes_them() {
    let world = world(&json!({}));
    for kind in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        " application/json ;x=y",
    ] {
        assert_eq!(
            world
                .call(tool("search__query").header("content-type", kind))
                .status,
            200,
            "{kind}"
        );
    }
    for kind in [
        "application/jsonp",
        "application/json-rpc",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ] {
        assert_eq!(
            world
                .call(tool("search__query").header("content-type", kind))
                .status,
            415,
            "{kind}"
        );
    }
    for accept in [
        "application/json, text/event-stream",
        "*/*",
        "application/*",
        "text/event-stream;q=0.5",
        "APPLICATION/JSON",
    ] {
        assert_eq!(
            world
                .call(tool("search__query").header("accept", accept))
                .status,
            200,
            "{accept}"
        );
    }
    for accept in ["text/html", "application/xml, image/png", ""] {
        assert_eq!(
            world
                .call(tool("search__query").header("accept", accept))
                .status,
            406,
            "{accept:?}"
        );
    }
    assert_eq!(
        world.call(tool("search__query").without("accept")).status,
        200,
        "no wish is every wish"
    );
}

#[test]
fn a_body_over_the_bound_is_refused_however_it_comes() {
    let world = world(&json!({ "limits": { "requestBodyBytes": 4096 } }));
    let padded = |length: usize| {
        let body = tool("search__query").message.to_string();
        let padding = " ".repeat(length - body.len());
        format!("{body}{padding}")
    };
    let chunks = |text: String| {
        text.into_bytes()
            .chunks(100)
            .map(Bytes::copy_from_slice)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        world.call(tool("search__query").body(padded(4096))).status,
        200
    );
    assert_eq!(
        world
            .call(tool("search__query").chunks(chunks(padded(4096))))
            .status,
        200
    );
    for ask in [
        tool("search__query").body(padded(4097)),
        tool("search__query").chunks(chunks(padded(4097))),
    ] {
        let told = world.call(ask);
        assert_eq!(
            (told.status.as_u16(), told.reason()),
            (413, "body_too_large")
        );
        assert_eq!(told.error()["data"]["maxBytes"], 4096);
    }
}

#[test]
fn a_body_nobody_may_send_is_not_read() {
    let world = world(&json!({}));
    let mut request = world.request(tool("search__query").anonymous());
    *request.body_mut() =
        tidegate_gateway::body::Body::stream(futures_util::stream::poll_fn(|_| {
            panic!("the body was read")
        }));
    assert_eq!(world.serve(request).status, 401);
}

#[test]
fn a_body_that_is_cut_off_is_the_callers_problem() {
    let world = world(&json!({}));
    let cut = futures_util::stream::iter([
        Ok(Bytes::from_static(b"{\"jsonrpc\"")),
        Err(tidegate_gateway::body::BodyError("reset".to_owned())),
    ]);
    let mut request = world.request(tool("search__query"));
    *request.body_mut() = tidegate_gateway::body::Body::stream(cut);
    let told = world.serve(request);
    assert_eq!(
        (told.status.as_u16(), told.reason()),
        (400, "body_interrupted")
    );
}

#[test]
fn answers_are_never_cached_by_anyone_between() {
    let world = world(&json!({}));
    for ask in [
        tool("search__query"),
        modern("tools/list", json!({})),
        legacy("2025-06-18", "ping", json!({})),
        tool("x").anonymous(),
    ] {
        assert_eq!(world.call(ask).header("cache-control"), "no-store");
    }
}

fn world(config: &serde_json::Value) -> World {
    Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .config(config)
        .start()
}

/// A developer's machine, where nobody is asked for a token.
fn development() -> World {
    Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .config(&json!({
            "metadata": { "environment": "dev" },
            "publicUrl": "http://127.0.0.1:8787",
            "authentication": null,
        }))
        .config(&json!({ "authentication": { "type": "none" } }))
        .start()
}

fn local(ask: Ask) -> Ask {
    ask.anonymous()
        .header("host", "127.0.0.1:8787")
        .from(Some("127.0.0.1"), None)
}
