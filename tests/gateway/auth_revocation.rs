//! What is no longer accepted, and how soon: by the published list, and at once. And the
//! gateway's own keys, from their making to their end.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::Consumed;
use tidegate_gateway::auth::revocation::{RevocationRecord, Revoked};
use tidegate_gateway::auth::{KeyRecord, NewKey};
use tidegate_gateway::platform::Clock;

use crate::tasks::{get, handle};
use crate::world::issuer::ISSUER;
use crate::world::{Ask, Script, Setup, World, tool};

const OPERATOR: &str = "an operator's key, long enough to be one";
const SECOND: Duration = Duration::from_secs(1);

/// Everything that can be revoked: its kind, its issuer, its name.
const REVOCABLE: [(Revoked, &str, &str); 5] = [
    (Revoked::Token, ISSUER, "this-token"),
    (Revoked::Subject, ISSUER, "ada"),
    (Revoked::Client, ISSUER, "cli"),
    (Revoked::Key, "", "0101010101010101"),
    (Revoked::Tenant, ISSUER, "north"),
];

/// What stands on that, and the same of others.
fn shown(world: &World, kind: Revoked) -> (String, String) {
    match kind {
        Revoked::Key => (make(world, 1, &json!({})), make(world, 2, &json!({}))),
        Revoked::Token | Revoked::Subject | Revoked::Client | Revoked::Tenant => {
            let claims =
                json!({ "jti": "other", "sub": "eve", "client_id": "web", "tid": "south" });
            let own = world.token(&json!({ "jti": "this-token", "tid": "north" }));
            (own, world.token(&claims))
        }
    }
}

#[test]
fn what_the_list_names_is_refused_within_its_freshness() {
    for (kind, issuer, value) in REVOCABLE {
        for mode in ["published", "immediate"] {
            let world = world(&json!({ "gatewayKeys": true, "revocation": mode }));
            let (token, other) = shown(&world, kind);
            let status = |token: &str| world.call(tool("search__query").token(token)).status;
            assert_eq!(status(&token), 200);
            publish(&world, &[(kind, issuer, value, None)]);
            world.sim.clock.advance(SECOND * 15);
            let told = world.call(tool("search__query").token(&token));
            assert_eq!(told.status, 401, "{kind:?}");
            let challenge = told.header("www-authenticate");
            assert!(
                challenge.contains("The token has been revoked."),
                "{challenge}"
            );
            assert_eq!(status(&other), 200, "{kind:?} is not of others");
            publish(&world, &[]);
            world.sim.clock.advance(SECOND * 15);
            assert_eq!(status(&token), 200, "{kind:?} lifted");
        }
    }
}

#[test]
fn the_keys_of_a_tenant_are_revoked_with_it() {
    let ways: [fn(&World, &str, &str); 2] = [
        |world, issuer, tenant| publish(world, &[(Revoked::Tenant, issuer, tenant, None)]),
        |world, issuer, tenant| {
            let asked = json!({ "kind": "tenant", "issuer": issuer, "value": tenant });
            assert_eq!(door(world, "POST", OPERATOR, &asked), 200);
        },
    ];
    for revoke in ways {
        for (issuer, tenant, status) in [
            (ISSUER, "north", 401),
            ("tidegate:keys", "north", 401),
            (ISSUER, "south", 200),
            ("https://unknown.example", "north", 200),
        ] {
            let world = world(&json!({ "gatewayKeys": true, "revocation": "immediate" }));
            let of_north = make(&world, 1, &json!({ "tenant": "north" }));
            let of_nobody = make(&world, 2, &json!({}));
            let status_of = |key: &str| world.call(tool("search__query").token(key)).status;
            assert_eq!(status_of(&of_north), 200);
            revoke(&world, issuer, tenant);
            world.sim.clock.advance(SECOND * 15);
            assert_eq!(status_of(&of_north), status, "{issuer} {tenant}");
            assert_eq!(status_of(&of_nobody), 200);
        }
    }
}

#[test]
fn an_entry_is_of_its_issuer_its_kind_and_its_time() {
    let world = world(&json!({}));
    let until = world.sim.clock.now().0 + 60_000;
    publish(
        &world,
        &[
            (Revoked::Subject, "https://other.example", "ada", None),
            (Revoked::Client, ISSUER, "ada", None),
            (Revoked::Subject, ISSUER, "ad", None),
            (Revoked::Subject, ISSUER, "eve", Some(until)),
        ],
    );
    assert_eq!(world.tool("search__query").status, 200);
    let eve = || world.call(tool("search__query").by("eve")).status;
    assert_eq!(eve(), 401);
    world.sim.clock.advance(SECOND * 61);
    assert_eq!(eve(), 200);
}

#[test]
fn without_the_list_its_last_state_holds_for_a_while_and_then_nobody_is_let_in() {
    let world = world(&json!({}));
    publish(&world, &[(Revoked::Subject, ISSUER, "eve", None)]);
    assert_eq!(world.tool("search__query").status, 200);
    world.sim.kv.publish("revocation", "no list");
    world.sim.clock.advance(SECOND * 500);
    assert_eq!(world.tool("search__query").status, 200);
    assert_eq!(world.call(tool("search__query").by("eve")).status, 401);
    world.sim.clock.advance(SECOND * 200);
    assert_eq!(world.tool("search__query").status, 500);
}

#[test]
fn what_an_operator_revokes_at_once_is_refused_at_once_everywhere() {
    for (kind, issuer, value) in REVOCABLE {
        let world = world(&json!({ "gatewayKeys": true, "revocation": "immediate" }));
        let isolate = world.isolate();
        let (token, other) = shown(&world, kind);
        let statuses = |shown: &str| {
            [&world, &isolate].map(|world| {
                world
                    .call(tool("search__query").token(shown))
                    .status
                    .as_u16()
            })
        };
        assert_eq!(statuses(&token), [200; 2], "{kind:?}");
        let asked = json!({ "kind": kind, "issuer": issuer, "value": value });
        assert_eq!(door(&world, "POST", OPERATOR, &asked), 200);
        assert_eq!(statuses(&token), [401; 2], "{kind:?}");
        assert_eq!(statuses(&other), [200; 2], "{kind:?} is not of others");
        assert_eq!(door(&isolate, "DELETE", OPERATOR, &asked), 200);
        assert_eq!(statuses(&token), [200; 2], "{kind:?} lifted");
        for world in [&world, &isolate] {
            world.sim.atomic.faults.outage(true);
        }
        assert_eq!(statuses(&token), [500; 2], "unknown is not accepted");
    }
}

#[test]
fn a_task_that_waits_fails_with_what_its_owner_stands_on_but_for_the_token() {
    for (kind, issuer, value) in REVOCABLE {
        for mode in ["published", "immediate"] {
            let world = world(&json!({ "gatewayKeys": true, "revocation": mode }));
            let (token, other) = shown(&world, kind);
            let made = [&token, &other].map(|token| {
                let told = world.call(tool("search__long").with_tasks().token(token));
                handle(&told)
            });
            let asked = json!({ "kind": kind, "issuer": issuer, "value": value });
            match mode {
                "immediate" => assert_eq!(door(&world, "POST", OPERATOR, &asked), 200),
                _ => publish(&world, &[(kind, issuer, value, None)]),
            }
            world.sim.clock.advance(SECOND * 15);
            world.deliver();
            match mode {
                "immediate" => assert_eq!(door(&world, "DELETE", OPERATOR, &asked), 200),
                _ => publish(&world, &[]),
            }
            world.sim.clock.advance(SECOND * 15);
            world.deliver();
            let status = |made: &str, token: &str| {
                let told = world.call(get(made).token(token));
                told.result()["status"].as_str().unwrap().to_owned()
            };
            let (ended, runs) = match kind {
                Revoked::Token => ("completed", 2),
                Revoked::Subject | Revoked::Client | Revoked::Key | Revoked::Tenant => {
                    ("failed", 1)
                }
            };
            assert_eq!(status(&made[0], &token), ended, "{kind:?} {mode}");
            assert_eq!(status(&made[1], &other), "completed", "{kind:?} {mode}");
            assert_eq!(world.count("search", "tools/call"), runs, "{kind:?} {mode}");
        }
    }
}

#[test]
fn a_task_does_not_begin_while_nobody_can_say_what_is_revoked() {
    let world = world(&json!({ "revocation": "immediate" }));
    let made = handle(&world.call(tool("search__long").with_tasks()));
    world.sim.kv.publish("revocation", "no list");
    world.sim.clock.advance(SECOND * 700);
    assert!(matches!(world.deliver()[..], [Consumed::Retry { .. }]));
    assert_eq!(world.count("search", "tools/call"), 0);
    publish(&world, &[]);
    world.sim.clock.advance(SECOND * 5);
    assert_eq!(world.deliver(), [Consumed::Done]);
    let told = world.call(get(&made));
    assert_eq!(told.result()["status"], "completed");
}

#[test]
fn the_door_opens_to_the_operator_alone() {
    let asked = json!({ "kind": "subject", "issuer": ISSUER, "value": "ada" });
    let world = world(&json!({ "revocation": "immediate" }));
    let token = world.token(&json!({}));
    for key in ["", "wrong", &token, &OPERATOR[1..], &format!("{OPERATOR}x")] {
        assert_eq!(door(&world, "POST", key, &asked), 401, "{key}");
    }
    assert_eq!(door(&world, "PUT", OPERATOR, &asked), 405);
    for odd in [
        json!({}),
        json!({ "kind": "subject", "issuer": ISSUER, "value": "" }),
        json!({ "kind": "everybody", "value": "x" }),
        json!({ "kind": "subject", "issuer": ISSUER, "value": "x", "more": 1 }),
        json!({ "kind": "token", "value": "x" }),
        json!({ "kind": "subject", "value": "x" }),
        json!({ "kind": "client", "issuer": "", "value": "x" }),
        json!({ "kind": "tenant", "value": "x" }),
    ] {
        assert_eq!(door(&world, "POST", OPERATOR, &odd), 400, "{odd}");
    }
    assert_eq!(world.tool("search__query").status, 200);
    for secret in ["", "short"] {
        let closed = Setup::new()
            .upstream("search", &Script::modern(&["query"]))
            .secret("TIDEGATE_ADMIN_TOKEN", secret)
            .start();
        assert_eq!(door(&closed, "POST", secret, &asked), 404, "no door at all");
    }
}

#[test]
fn where_nobody_would_read_it_nothing_is_revoked_at_once_and_the_operator_is_told() {
    for mode in [json!({}), json!({ "revocation": "published" })] {
        let world = world(&mode);
        let asked = json!({ "kind": "subject", "issuer": ISSUER, "value": "ada" });
        for method in ["POST", "DELETE"] {
            let ask = Ask::http(method, "/admin/revocations").body(asked.to_string());
            let told = world.ask(ask.token(OPERATOR));
            assert_eq!(told.status, 409);
            let words = told.json()["error"].as_str().unwrap();
            assert!(words.contains("immediate") && words.contains("tidegate revoke"));
        }
        assert!(world.sim.atomic.keys().is_empty(), "nothing was written");
        assert_eq!(door(&world, "POST", "wrong", &asked), 401);
        assert_eq!(world.tool("search__query").status, 200);
    }
}

#[test]
fn a_key_lets_in_whom_it_was_made_for_and_only_there() {
    let world = world(&json!({ "gatewayKeys": true }));
    let key = make(&world, 1, &json!({}));
    let call = |name: &str, path: &str| {
        let asked = tool(name).token(&key).to(path);
        world.call(asked).status.as_u16()
    };
    assert_eq!(call("search__query", "/mcp"), 200);
    assert_eq!(
        call("search__scoped", "/mcp"),
        403,
        "a key reaches as far as its scopes"
    );
    assert_eq!(call("query", "/servers/search/mcp"), 401);
    let wide = make(&world, 2, &json!({ "scopes": ["more"] }));
    assert_eq!(world.call(tool("search__scoped").token(&wide)).status, 200);
    let audit = world.audits();
    let last = audit.last().unwrap();
    assert_eq!(
        (&last["issuer"], &last["subject"]),
        (&json!("tidegate:keys"), &json!("0202020202020202"))
    );
    // Where they are not wanted, keys are no more than odd tokens.
    let off = world_without_keys();
    make(&off, 1, &json!({}));
    assert_eq!(off.call(tool("search__query").token(&key)).status, 401);
}

#[test]
fn a_key_ends_by_time_by_rotation_and_by_revocation() {
    let world = world(&json!({ "gatewayKeys": true, "revocation": "immediate" }));
    let now = world.sim.clock.now().0;
    let reason = |key: &str| {
        let told = world.call(tool("search__query").token(key));
        let text = told.header("www-authenticate").to_owned();
        let reason = text.split("error_description=\"").nth(1);
        reason
            .and_then(|rest| rest.split('"').next())
            .unwrap_or("let in")
            .to_owned()
    };
    let brief = make(&world, 1, &json!({ "expiresAtMs": now + 60_000 }));
    let revoked = make(&world, 2, &json!({ "revokedAtMs": now }));
    let gone = make(&world, 3, &json!({}));
    let unknown = make(&world, 4, &json!({ "v": 2 }));
    let moved = make(&world, 5, &json!({ "id": "0101010101010101" }));
    assert_eq!(reason(&brief), "let in");
    assert_eq!(reason(&revoked), "The key has been revoked.");
    assert_eq!(reason(&gone), "let in");
    for key in [unknown, moved] {
        assert_eq!(reason(&key), "The key is not known here.");
    }
    let day = SECOND * 24 * 3600;
    let long = make(
        &world,
        6,
        &json!({ "expiresAtMs": now + 730 * 24 * 3_600_000_u64 }),
    );
    let asked = json!({ "kind": "key", "value": "0606060606060606" });
    assert_eq!(door(&world, "POST", OPERATOR, &asked), 200);
    let asked = json!({ "kind": "key", "value": "0303030303030303" });
    assert_eq!(door(&world, "POST", OPERATOR, &asked), 200);
    assert_eq!(reason(&gone), "The token has been revoked.", "at once");
    let key = NewKey::another("0101010101010101", &[9; NewKey::RANDOM]);
    let old = NewKey::another("0101010101010101", &[1; NewKey::RANDOM]);
    let hashes = json!([key.hash, { "sha256": old.hash.sha256, "untilMs": now + 50_000 }]);
    make(&world, 1, &json!({ "hashes": hashes }));
    world.sim.clock.advance(SECOND * 40);
    assert_eq!(reason(&key.text), "let in");
    assert_eq!(reason(&brief), "let in", "the old secret overlaps");
    world.sim.clock.advance(SECOND * 11);
    assert_eq!(reason(&brief), "The key has expired.");
    // The longest-lived key there is stays revoked to its end.
    for _ in 0..73 {
        assert_eq!(reason(&long), "The token has been revoked.");
        world.sim.clock.advance(day * 10);
    }
    assert_eq!(reason(&long), "The key has expired.");
}

#[test]
fn made_up_keys_cost_the_store_nothing_unless_they_are_well_formed() {
    let world = world(&json!({ "gatewayKeys": true }));
    let key = make(&world, 1, &json!({}));
    assert_eq!(world.tool("search__query").status, 200);
    for odd in [
        "tg_",
        "tg_x",
        "tg_0101010101010101",
        &key[..40],
        &format!("{key}A"),
    ] {
        world.sim.kv.faults.outage(true);
        assert_eq!(
            world.call(tool("search__query").token(odd)).status,
            401,
            "{odd}"
        );
        world.sim.kv.faults.outage(false);
    }
}

fn world(authentication: &Value) -> World {
    let issuers =
        json!([{ "issuer": ISSUER, "jwksUri": format!("{ISSUER}/keys"), "tenantClaim": "tid" }]);
    Setup::new()
        .upstream("search", &Script::modern(&["query", "scoped", "long"]))
        .rule(json!({ "name": "search__scoped", "requiredScopes": ["more"] }))
        .rule(json!({ "name": "search__long", "execution": "task" }))
        .config(&json!({ "authentication": { "issuers": issuers } }))
        .config(&json!({ "authentication": authentication }))
        .secret("TIDEGATE_ADMIN_TOKEN", OPERATOR)
        .start()
}

fn world_without_keys() -> World {
    world(&json!({}))
}

fn publish(world: &World, entries: &[(Revoked, &str, &str, Option<u64>)]) {
    let entry = |(kind, issuer, value, until): &(Revoked, &str, &str, Option<u64>)| {
        let mut entry = json!({ "kind": kind, "id": kind.id(issuer, value), "atMs": 1 });
        if let Some(until) = until {
            entry["untilMs"] = json!(until);
        }
        entry
    };
    let entries: Vec<Value> = entries.iter().map(entry).collect();
    let list = json!({ "v": 1, "updatedAtMs": 1, "entries": entries });
    let _: RevocationRecord = serde_json::from_value(list.clone()).unwrap();
    world.sim.kv.publish("revocation", list.to_string());
}

/// Publishes a key made of this byte.
fn make(world: &World, byte: u8, members: &Value) -> String {
    let key = NewKey::of(&[byte; NewKey::RANDOM]);
    let now = world.sim.clock.now().0;
    let mut record = json!({
        "v": 1, "id": key.id, "name": "test", "hashes": [key.hash], "createdAtMs": now,
        "expiresAtMs": now + 3_600_000, "audiences": ["https://gw.example.com/mcp"],
    });
    let changes = members.as_object().unwrap().clone();
    record.as_object_mut().unwrap().extend(changes);
    let _: KeyRecord = serde_json::from_value(record.clone()).unwrap();
    world
        .sim
        .kv
        .publish(&format!("key/{}", key.id), record.to_string());
    world.shared.secrets.borrow_mut().insert(key.text.clone());
    key.text
}

fn door(world: &World, method: &str, key: &str, asked: &Value) -> u16 {
    let body = asked.to_string();
    let ask = Ask::http(method, "/admin/revocations")
        .body(body)
        .token(key);
    world.ask(ask).status.as_u16()
}
