//! Before anybody asks who sent a request: where it comes from, and how large its head is.

use serde_json::{Value, json};

use crate::world::{Ask, Script, Setup, World, tool};

/// Headers that name an address, none of which is believed.
const FORGED: [(&str, &str); 7] = [
    ("x-forwarded-for", "10.1.2.3"),
    ("x-real-ip", "10.1.2.3"),
    ("forwarded", "for=10.1.2.3"),
    ("true-client-ip", "10.1.2.3"),
    ("cf-connecting-ip", "10.1.2.3"),
    ("cf-ipcountry", "DE"),
    ("spin-client-addr", "10.1.2.3:4"),
];

fn world(edge: &Value) -> World {
    Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .config(&json!({ "edge": edge }))
        .start()
}

fn query() -> Ask {
    tool("search__query")
}

#[test]
fn who_comes_from_elsewhere_is_refused_before_anybody_asks_who_it_is() {
    let addresses = json!({ "allow": ["10.0.0.0/8", "2001:db8::/32"], "deny": ["10.6.0.0/16"] });
    let world = world(&json!({ "addresses": addresses }));
    for (address, let_in) in [
        (Some("10.1.2.3"), true),
        (Some("::ffff:10.1.2.3"), true),
        (Some("2001:db8::7"), true),
        (Some("10.6.2.3"), false),
        (Some("::ffff:10.6.2.3"), false),
        (Some("192.0.2.1"), false),
        (Some("2001:db9::7"), false),
        (Some("10.1.2.3, 192.0.2.1"), false),
        (None, false),
    ] {
        let told = world.call(query().from(address, None));
        assert_eq!(
            told.status,
            if let_in { 200 } else { 403 },
            "{address:?}: {told:?}"
        );
        let anonymous = world.call(query().from(address, None).anonymous());
        assert_eq!(
            anonymous.status,
            if let_in { 401 } else { 403 },
            "{address:?}"
        );
        if !let_in {
            assert_eq!(told.error()["data"]["reason"], "address_not_allowed");
            assert_eq!(told.header("www-authenticate"), "");
        }
    }
    assert_eq!(world.count("search", "tools/call"), 3);
}

#[test]
fn a_country_is_what_the_platform_says_it_is() {
    let world = world(&json!({ "countries": { "allow": ["DE", "FR"], "deny": ["FR"] } }));
    for (country, status) in [
        (Some("DE"), 200),
        (Some("FR"), 403),
        (Some("US"), 403),
        (Some("XX"), 403),
        (None, 403),
    ] {
        let told = world.call(query().from(Some("203.0.113.7"), country));
        assert_eq!(told.status, status, "{country:?}: {told:?}");
        if status == 403 {
            assert_eq!(told.error()["data"]["reason"], "country_not_allowed");
        }
    }
}

#[test]
fn nothing_a_client_writes_says_where_it_is() {
    let (addresses, countries) = (
        json!({ "allow": ["10.0.0.0/8"] }),
        json!({ "allow": ["DE"] }),
    );
    let world = world(&json!({ "addresses": addresses, "countries": countries }));
    for (name, value) in FORGED {
        for from in [(Some("192.0.2.1"), Some("US")), (None, None)] {
            let told = world.call(query().from(from.0, from.1).header(name, value));
            assert_eq!(told.status, 403, "{name}: {told:?}");
        }
    }
    let told = world.call(
        query()
            .from(Some("10.1.2.3"), Some("DE"))
            .header("x-forwarded-for", "192.0.2.1"),
    );
    assert_eq!(told.status, 200, "{told:?}");
}

#[test]
fn every_door_but_the_liveness_check_is_behind_the_edge() {
    let world = world(&json!({ "addresses": { "allow": ["10.0.0.0/8"] } }));
    for (method, path) in [
        ("POST", "/mcp"),
        ("GET", "/sse"),
        ("POST", "/servers/search/mcp"),
        ("OPTIONS", "/mcp"),
        ("GET", "/.well-known/oauth-protected-resource/mcp"),
        ("GET", "/health/deep"),
        ("GET", "/admin/tasks"),
        ("POST", "/admin/revocations"),
        ("GET", "/nothing"),
    ] {
        let told = world.call(Ask::http(method, path));
        assert_eq!(told.status, 403, "{method} {path}: {told:?}");
    }
    assert_eq!(world.ask(Ask::http("GET", "/health")).status, 200);
    let audits = world.audits();
    assert!(audits.iter().all(|line| line["address"] == "203.0.113.7"));
    assert_eq!(audits[0]["outcome"], "address_not_allowed");
}

#[test]
fn a_head_beyond_the_bounds_is_refused_as_too_large() {
    let world = world(&json!({ "maxHeaders": 40, "maxHeaderBytes": 20_480 }));
    let sent = query().into_request(Some(String::new())).headers().len();
    let with = |fields: usize, bytes: usize| {
        let many = (0..fields).map(|n| (format!("x-filler-{n}"), "1".to_owned()));
        let long = (bytes > 0).then(|| ("x-long".to_owned(), "a".repeat(bytes)));
        many.chain(long)
            .fold(query(), |ask, (name, value)| ask.header(&name, &value))
    };
    for (ask, status) in [
        (with(40 - sent, 0), 200),
        (with(42 - sent, 0), 431),
        (with(0, 16_000), 200),
        (with(0, 20_480), 431),
    ] {
        let told = world.call(ask.clone());
        assert_eq!(told.status, status, "{told:?}");
        assert_eq!(
            world.call(ask.anonymous()).status,
            if status == 200 { 401 } else { 431 }
        );
        if status == 431 {
            let data = &told.error()["data"];
            assert_eq!(
                (&data["reason"], &data["maxHeaders"]),
                (&json!("headers_too_large"), &json!(40))
            );
        }
    }
}

#[test]
fn every_answer_tells_browsers_not_to_guess_what_it_is() {
    let world = world(&json!({}));
    for ask in [
        query(),
        query().anonymous(),
        Ask::http("GET", "/nothing"),
        Ask::http("OPTIONS", "/mcp"),
    ] {
        assert_eq!(world.ask(ask).header("x-content-type-options"), "nosniff");
    }
}
