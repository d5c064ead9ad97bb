//! What may be kept of a list, for how long, and for whom.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Said, Script, Setup, World, legacy, modern};

#[test]
fn a_list_is_kept_for_as_long_as_its_upstream_allows() {
    let (world, script) = world();
    script.hints(30_000, "public");
    assert_eq!(world.list("tools/list"), ["search__a"]);
    script.listing(
        "tools",
        json!({ "name": "b", "inputSchema": { "type": "object" } }),
    );
    world.sim.clock.advance(Duration::from_millis(29_999));
    assert_eq!(world.list("tools/list"), ["search__a"]);
    assert_eq!(world.count("search", "tools/list"), 1);
    world.sim.clock.advance(Duration::from_millis(1));
    assert_eq!(world.list("tools/list"), ["search__a", "search__b"]);
}

#[test]
fn what_is_kept_ages_for_clients_too() {
    let (world, script) = world();
    script.hints(30_000, "public");
    let ttl = || {
        world.call(modern("tools/list", json!({}))).result()["ttlMs"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(ttl(), 30_000);
    world.sim.clock.advance(Duration::from_secs(20));
    assert_eq!(
        ttl(),
        10_000,
        "nobody keeps it longer than the upstream said"
    );
}

#[test]
fn a_list_without_hints_is_not_kept() {
    for hints in [None, Some((0, "public")), Some((-5, "public"))] {
        let (world, script) = world();
        if let Some((ttl_ms, scope)) = hints {
            script.hints(ttl_ms, scope);
        }
        for round in 1..=3 {
            let told = world.call(modern("tools/list", json!({})));
            assert_eq!(told.result()["ttlMs"], 0);
            assert_eq!(world.count("search", "tools/list"), round);
        }
    }
}

#[test]
fn a_private_list_never_crosses_principals() {
    for scope in ["private", "secret", ""] {
        let (world, script) = world();
        script.hints(60_000, scope);
        script.on("tools/list", whose(scope));
        let list = |subject: &str| {
            world
                .call(modern("tools/list", json!({})).by(subject))
                .names()
        };
        let (ada, ben) = (list("ada"), list("ben"));
        assert_eq!(ada, ["search__tool-1"]);
        assert_eq!(
            ben,
            ["search__tool-2"],
            "{scope:?}: asked on its own behalf"
        );
        assert_eq!(
            (list("ada"), list("ben")),
            (ada, ben),
            "{scope:?}: and kept apart"
        );
        assert_eq!(world.count("search", "tools/list"), 2);
    }
}

#[test]
fn a_public_list_is_shared_by_all() {
    let (world, script) = world();
    script.on("tools/list", whose("public"));
    for subject in ["ada", "ben", "eve"] {
        assert_eq!(
            world
                .call(modern("tools/list", json!({})).by(subject))
                .names(),
            ["search__tool-1"]
        );
    }
    assert_eq!(world.count("search", "tools/list"), 1);
}

#[test]
fn what_depends_on_the_caller_is_private_to_it() {
    let (world, script) = world();
    script.hints(60_000, "public");
    let told = world.call(modern("tools/list", json!({})));
    assert_eq!(
        told.result()["cacheScope"],
        "private",
        "rules filter the list by caller"
    );
}

#[test]
fn one_private_part_makes_the_whole_private_and_the_shortest_life_counts() {
    let (one, two) = (Script::modern(&["a"]), Script::modern(&["b"]));
    one.hints(60_000, "public");
    two.hints(5_000, "private");
    let world = Setup::new()
        .upstream("one", &one)
        .upstream("two", &two)
        .start();
    let told = world.call(modern("tools/list", json!({})));
    assert_eq!(
        (&told.result()["ttlMs"], &told.result()["cacheScope"]),
        (&json!(5_000), &json!("private"))
    );
}

#[test]
fn legacy_upstreams_say_nothing_of_keeping_so_nothing_is_kept() {
    let script = Script::legacy("2025-11-25", &["a"]);
    let world = Setup::new().upstream("files", &script).start();
    for round in 1..=2 {
        let told = world.call(modern("tools/list", json!({})));
        assert_eq!(
            (&told.result()["ttlMs"], &told.result()["cacheScope"]),
            (&json!(0), &json!("private"))
        );
        assert_eq!(world.count("files", "tools/list"), round);
    }
}

#[test]
fn however_long_an_upstream_allows_a_list_is_asked_for_again_within_minutes() {
    let (world, script) = world();
    script.hints(i64::MAX, "public");
    world.list("tools/list");
    world.sim.clock.advance(Duration::from_secs(301));
    world.list("tools/list");
    assert_eq!(world.count("search", "tools/list"), 2);
}

#[test]
fn clients_of_both_eras_see_the_same_list_from_memory() {
    let (world, script) = world();
    script.hints(60_000, "public");
    assert_eq!(world.list("tools/list"), ["search__a"]);
    assert_eq!(
        world
            .call(legacy("2025-06-18", "tools/list", json!({})))
            .names(),
        ["search__a"]
    );
    assert_eq!(world.count("search", "tools/list"), 1);
}

#[test]
fn a_read_always_says_how_long_it_holds() {
    let (world, script) = world();
    script.listing("resources", json!({ "uri": "test://a", "name": "a" }));
    let answers = [
        (json!({}), json!(0), json!("private")),
        (
            json!({ "ttlMs": 500, "cacheScope": "public" }),
            json!(500),
            json!("public"),
        ),
        (
            json!({ "ttlMs": -1, "cacheScope": "public" }),
            json!(0),
            json!("public"),
        ),
        (
            json!({ "ttlMs": "x", "cacheScope": 7 }),
            json!(0),
            json!("private"),
        ),
    ];
    for (hints, ttl_ms, scope) in answers {
        script.on("resources/read", move |_| {
            let mut result = json!({ "resultType": "complete", "contents": [{ "uri": "test://a", "text": "x" }] });
            result.as_object_mut().unwrap().extend(hints.as_object().unwrap().clone());
            Said::Result(result)
        });
        let told = world.call(modern(
            "resources/read",
            json!({ "uri": "search+test://a" }),
        ));
        assert_eq!(
            (&told.result()["ttlMs"], &told.result()["cacheScope"]),
            (&ttl_ms, &scope)
        );
    }
}

#[test]
fn a_new_configuration_forgets_what_was_kept_under_the_old() {
    let (world, script) = world();
    script.hints(200_000, "public");
    world.list("tools/list");
    let changed = Setup::new()
        .upstream("search", &script)
        .config(&json!({ "metadata": { "name": "renamed" } }))
        .snapshot();
    world.sim.kv.publish("config", changed);
    world.sim.clock.advance(Duration::from_secs(31));
    world.list("tools/list");
    world.settle();
    world.list("tools/list");
    assert_eq!(world.count("search", "tools/list"), 2);
}

fn world() -> (World, Script) {
    let script = Script::modern(&["a"]);
    (Setup::new().upstream("search", &script).start(), script)
}

/// Lists a tool named after how often it was asked.
fn whose(scope: &'static str) -> impl Fn(&crate::world::Heard) -> Said {
    let asked = std::cell::Cell::new(0);
    move |_| {
        asked.set(asked.get() + 1);
        let item: Value =
            json!({ "name": format!("tool-{}", asked.get()), "inputSchema": { "type": "object" } });
        Said::Result(
            json!({ "resultType": "complete", "tools": [item], "ttlMs": 60_000, "cacheScope": scope }),
        )
    }
}
