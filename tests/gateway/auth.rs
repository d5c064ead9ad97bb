//! Who is asking: tokens judged on every request, keys fetched with care.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::platform::Clock;

use crate::world::issuer::{AUDIENCE, NAME as LOGIN};
use crate::world::{Blow, Script, Setup, World, modern, tool};

const METADATA: &str =
    r#"resource_metadata="https://gw.example.com/.well-known/oauth-protected-resource/mcp""#;

#[test]
fn without_a_token_the_client_learns_where_to_get_one() {
    let world = world();
    let told = world.call(tool("search__query").anonymous());
    assert_eq!(told.status, 401);
    assert_eq!(
        told.header("www-authenticate"),
        format!("Bearer {METADATA}"),
        "no error: nothing was wrong"
    );
    assert!(world.exchanges("search").is_empty());
}

#[test]
fn a_token_that_is_not_good_for_this_is_refused_with_the_reason() {
    let world = world();
    let now = world.sim.clock.now().as_secs();
    let cases: Vec<(&str, Value)> = vec![
        ("expired", json!({ "exp": now })),
        ("without an end", json!({ "exp": null })),
        ("of tomorrow", json!({ "nbf": now + 3600 })),
        ("issued in the future", json!({ "iat": now + 3600 })),
        (
            "for somebody else",
            json!({ "aud": "https://other.example.net/mcp" }),
        ),
        (
            "for the host as a whole",
            json!({ "aud": "https://gw.example.com" }),
        ),
        (
            "for one of our servers",
            json!({ "aud": "https://gw.example.com/servers/search/mcp" }),
        ),
        ("for nobody", json!({ "aud": null })),
        (
            "of another issuer",
            json!({ "iss": "https://login.example.com/" }),
        ),
        ("of no issuer", json!({ "iss": null })),
        ("of nobody", json!({ "sub": null })),
        ("bound to a key", json!({ "cnf": { "jkt": "x" } })),
    ];
    for (what, claims) in cases {
        let token = world.token(&claims);
        let told = world.call(tool("search__query").token(&token));
        assert_eq!(told.status, 401, "{what}: {told:?}");
        let challenge = told.header("www-authenticate");
        assert!(
            challenge.starts_with(r#"Bearer error="invalid_token", error_description=""#),
            "{what}: {challenge}"
        );
        assert!(challenge.ends_with(METADATA), "{what}: {challenge}");
    }
    for text in ["x", "a.b.c", "e30.e30.", "e30.e30.AAAA"] {
        assert_eq!(
            world.call(tool("search__query").token(text)).status,
            401,
            "{text}"
        );
    }
    assert!(world.exchanges("search").is_empty());
}

#[test]
fn a_token_is_read_from_one_header_only() {
    let world = world();
    let token = world.token(&json!({}));
    let in_query = tool("search__query")
        .anonymous()
        .to(&format!("/mcp?access_token={token}"));
    assert_eq!(world.call(in_query).status, 401);
    let mut twice = world.request(tool("search__query").token(&token));
    let value = twice.headers()["authorization"].clone();
    twice.headers_mut().append("authorization", value);
    assert_eq!(world.serve(twice).status, 400);
    for scheme in ["Basic", "DPoP", "Token"] {
        let mut other = world.request(tool("search__query").anonymous());
        other.headers_mut().insert(
            "authorization",
            format!("{scheme} {token}").parse().unwrap(),
        );
        assert_eq!(world.serve(other).status, 401, "{scheme}");
    }
}

#[test]
fn each_algorithm_is_verified() {
    let world = world();
    for (algorithm, token) in world.shared.issuer.each_algorithm(&world.sim.clock) {
        let told = world.call(tool("search__query").token(&token));
        assert_eq!(told.status, 200, "{algorithm}: {told:?}");
        let (signed, _) = token.rsplit_once('.').unwrap();
        let told = world.call(tool("search__query").token(&format!("{signed}.AAAA")));
        assert_eq!(told.status, 401, "{algorithm} without its signature");
    }
}

#[test]
fn a_token_expires_while_it_is_in_use() {
    let world = world();
    let token = world.token(&json!({ "exp": world.sim.clock.now().as_secs() + 60 }));
    assert_eq!(world.call(tool("search__query").token(&token)).status, 200);
    world.sim.clock.advance(Duration::from_secs(60));
    assert_eq!(world.call(tool("search__query").token(&token)).status, 401);
}

#[test]
fn an_endpoint_is_a_resource_of_its_own() {
    let world = world();
    let at = |audience: &str, path: &str| {
        let token = world.token(&json!({ "aud": audience }));
        let name = if path == "/mcp" {
            "search__query"
        } else {
            "query"
        };
        world
            .call(tool(name).token(&token).to(path))
            .status
            .as_u16()
    };
    let one = "https://gw.example.com/servers/search/mcp";
    assert_eq!(at(AUDIENCE, "/mcp"), 200);
    assert_eq!(at(one, "/servers/search/mcp"), 200);
    assert_eq!(at(AUDIENCE, "/servers/search/mcp"), 401);
    assert_eq!(at(one, "/mcp"), 401);
    let told = world.call(tool("query").anonymous().to("/servers/search/mcp"));
    assert!(
        told.header("www-authenticate")
            .contains("/.well-known/oauth-protected-resource/servers/search/mcp\"")
    );
}

#[test]
fn configured_audiences_and_claims_are_asked_of_every_token() {
    let world = with_issuer(
        &json!({ "audiences": ["tools"], "requiredClaims": { "email_verified": true, "groups": "staff" } }),
    );
    let good = json!({ "aud": "tools", "email_verified": true, "groups": ["staff", "other"] });
    let status = |claims: &Value| {
        world
            .call(tool("search__query").token(&world.token(claims)))
            .status
            .as_u16()
    };
    assert_eq!(status(&good), 200);
    for (name, value) in [
        ("email_verified", json!(false)),
        ("email_verified", json!("true")),
        ("groups", json!(["other"])),
        ("groups", Value::Null),
    ] {
        let mut claims = good.clone();
        claims[name] = value;
        assert_eq!(status(&claims), 401, "{name}");
    }
}

#[test]
fn keys_are_fetched_once_and_shared_with_other_isolates() {
    let world = world();
    for _ in 0..5 {
        assert_eq!(world.tool("search__query").status, 200);
    }
    let other = world.isolate();
    assert_eq!(other.tool("search__query").status, 200);
    assert_eq!(world.exchanges(LOGIN).len(), 1);
}

#[test]
fn a_flood_of_unknown_keys_does_not_reach_the_issuer() {
    let world = world();
    assert_eq!(world.tool("search__query").status, 200);
    world.sim.clock.advance(Duration::from_secs(60));
    for n in 0..200 {
        let token = world
            .shared
            .issuer
            .forged(&world.sim.clock, &format!("flood-{n}"));
        assert_eq!(world.call(tool("search__query").token(&token)).status, 401);
    }
    assert!(
        world.exchanges(LOGIN).len() <= 2,
        "{} questions",
        world.exchanges(LOGIN).len()
    );
    assert_eq!(world.tool("search__query").status, 200);
}

#[test]
fn a_new_key_is_found_when_its_first_token_comes() {
    let world = world();
    assert_eq!(world.tool("search__query").status, 200);
    world.sim.clock.advance(Duration::from_secs(60));
    world.shared.issuer.rotate();
    let token = world.token(&json!({}));
    let told = world.call(tool("search__query").token(&token));
    assert_eq!(told.status, 200);
    assert_eq!(world.exchanges(LOGIN).len(), 2);
}

#[test]
fn of_many_first_tokens_of_a_new_key_one_asks_and_the_others_wait_for_the_answer() {
    let world = world();
    assert_eq!(world.tool("search__query").status, 200);
    world.sim.clock.advance(Duration::from_secs(60));
    world.shared.issuer.rotate();
    world.server(LOGIN).head_delay.set(Duration::from_secs(1));
    let token = world.token(&json!({}));
    let mut calls: Vec<_> = (0..8)
        .map(|_| world.start_call(tool("search__query").token(&token)))
        .collect();
    calls.iter_mut().for_each(|call| drop(call.step()));
    for call in calls {
        assert_eq!(call.finish().unwrap().status, 200);
    }
    assert_eq!(world.exchanges(LOGIN).len(), 2);
}

#[test]
fn a_forged_key_id_does_not_help() {
    let world = world();
    let token = world.shared.issuer.forged(&world.sim.clock, "key-1");
    assert_eq!(world.call(tool("search__query").token(&token)).status, 401);
}

#[test]
fn during_an_outage_of_the_issuer_the_last_good_keys_serve() {
    let world = world();
    assert_eq!(world.tool("search__query").status, 200);
    let breaks: [(&str, Blow); 3] = [
        ("down", |world| world.server(LOGIN).down.set(true)),
        ("500", |world| {
            *world.shared.issuer.published.borrow_mut() = None
        }),
        ("garbage", |world| {
            *world.shared.issuer.published.borrow_mut() = Some(json!("no keys"))
        }),
    ];
    for (what, fail) in breaks {
        fail(&world);
        world.sim.clock.advance(Duration::from_secs(600));
        assert_eq!(world.tool("search__query").status, 200, "{what}");
        assert_eq!(
            world.isolate().tool("search__query").status,
            200,
            "{what}: another isolate takes them from KV"
        );
    }
    world.sim.clock.advance(Duration::from_secs(25 * 3600));
    assert_ne!(world.tool("search__query").status, 200, "but not for ever");
}

#[test]
fn an_issuer_that_does_not_answer_delays_a_first_call_for_a_bounded_time() {
    let world = world();
    world
        .server(LOGIN)
        .head_delay
        .set(Duration::from_secs(3600));
    let started = world.sim.clock.now();
    let told = world.tool("search__query");
    assert_eq!(told.status, 500, "{told:?}");
    assert!(world.sim.clock.now().since(started) <= Duration::from_secs(10));
    assert!(
        !told.text.contains("login.example.com"),
        "whose keys is the operator's to know: {told:?}"
    );
}

#[test]
fn kv_out_of_reach_does_not_keep_anyone_out() {
    let world = world();
    assert_eq!(world.tool("search__query").status, 200);
    world.sim.kv.faults.outage(true);
    world.sim.clock.advance(Duration::from_secs(400));
    assert_eq!(world.tool("search__query").status, 200);
}

#[test]
fn a_challenge_for_scopes_names_all_that_is_needed() {
    let world = Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .rule(json!({ "name": "search__query", "requiredScopes": ["search:read", "search:more"] }))
        .start();
    let call = |scope: Value| {
        world.call(tool("search__query").token(&world.token(&json!({ "scope": scope }))))
    };
    assert_eq!(call(json!("search:read search:more other")).status, 200);
    for scope in [
        json!(null),
        json!("search:read"),
        json!("search:readsearch:more"),
    ] {
        let told = call(scope);
        assert_eq!(told.status, 403);
        let challenge = told.header("www-authenticate");
        assert_eq!(
            challenge,
            format!(
                r#"Bearer error="insufficient_scope", scope="search:more search:read", {METADATA}"#
            )
        );
    }
}

#[test]
fn nothing_is_judged_by_what_the_client_says_of_itself() {
    let world = Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .rule(json!({ "name": "search__query", "requiredRoles": ["admin"] }))
        .start();
    let claim = json!({ "name": "admin", "version": "1", "roles": ["admin"] });
    let ask = tool("search__query")
        .meta("clientInfo", claim)
        .meta("roles", json!(["admin"]))
        .header("x-roles", "admin");
    assert_eq!(world.call(ask).status, 403);
    assert_eq!(
        world.call(modern("tools/list", json!({}))).names(),
        Vec::<String>::new()
    );
}

fn world() -> World {
    Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .start()
}

fn with_issuer(members: &Value) -> World {
    let mut issuer = json!({ "issuer": "https://login.example.com", "jwksUri": "https://login.example.com/keys" });
    issuer
        .as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .config(&json!({ "authentication": { "issuers": [issuer] } }))
        .start()
}
