//! `tidegate kill`, `tidegate revive` and `tidegate health`, against a server that stands in for a gateway.

use serde_json::json;

use super::tasks::{StandIn, TOKEN, command};

#[test]
fn what_is_killed_and_revived_is_asked_of_the_gateway() {
    let gateway = StandIn::start(vec![(200, json!({ "switches": [] })); 3]);
    let killed = gateway.ask(&[
        "kill",
        "tool:github__delete_*",
        "--reason",
        "it deletes",
        "--for",
        "1h",
    ]);
    assert_eq!(killed.code, 0, "{}", killed.err);
    assert!(
        killed.out.contains("tool:github__delete_* is switched off"),
        "{}",
        killed.out
    );
    let killed = gateway.ask(&[
        "kill",
        "principal:a:b",
        "--issuer",
        "https://login.example.com",
        "--reason",
        "r",
    ]);
    assert_eq!(killed.code, 0, "{}", killed.err);
    let revived = gateway.ask(&["revive", "all"]);
    assert_eq!(revived.code, 0, "{}", revived.err);
    assert_eq!(
        gateway.asked(),
        [
            "POST /admin/switches",
            "POST /admin/switches",
            "DELETE /admin/switches"
        ]
    );
    assert_eq!(
        gateway.bodies(),
        [
            json!({ "kind": "tool", "value": "github__delete_*", "reason": "it deletes", "forMs": 3_600_000 }),
            json!({ "kind": "principal", "value": "a:b", "issuer": "https://login.example.com", "reason": "r" }),
            json!({ "kind": "all" }),
        ]
    );
}

#[test]
fn the_list_says_what_why_and_for_how_long() {
    let switches = json!({ "switches": [
        { "kind": "all", "reason": "maintenance\u{1b}[2J", "atMs": 1 },
        { "kind": "principal", "value": "ada", "issuer": "https://i.example", "reason": "loops", "atMs": 1, "untilMs": 1 },
    ] });
    let gateway = StandIn::start(vec![(200, switches), (200, json!({ "switches": [] }))]);
    let listed = gateway.ask(&["kill", "--list"]);
    assert_eq!(
        listed.out,
        "all  maintenance\u{fffd}[2J\nprincipal:ada --issuer https://i.example  loops (for another 0 s)\n"
    );
    assert_eq!(
        gateway.ask(&["kill", "--list"]).out,
        "nothing is switched off\n"
    );
    assert_eq!(gateway.asked(), ["GET /admin/switches"; 2]);
}

#[test]
fn what_is_called_wrongly_is_said_before_anything_is_sent() {
    for (arguments, words) in [
        (&["kill", "--reason", "r"][..], "WHAT"),
        (&["kill", "all"], "--reason"),
        (
            &["kill", "everything", "--reason", "r"],
            "say what is meant",
        ),
        (&["kill", "tool:", "--reason", "r"], "say what is meant"),
        (&["kill", "principal:ada", "--reason", "r"], "--issuer"),
        (&["revive", "all", "--issuer", "x"], "--issuer"),
        (&["kill", "--list", "all"], "cannot be used with"),
        (&["revive"], "WHAT"),
    ] {
        let refused = command(
            &[arguments, &["--gateway", "http://127.0.0.1:1"]].concat(),
            Some(TOKEN),
        );
        assert_eq!(refused.code, 2, "{arguments:?}");
        assert!(
            refused.err.contains(words),
            "{arguments:?}: {}",
            refused.err
        );
    }
}

#[test]
fn a_refusal_says_what_to_do() {
    let error = |reason, message| json!({ "error": { "reason": reason, "message": message } });
    for (status, answer, words) in [
        (
            404,
            error("unknown_switch", "It is not switched off."),
            "kill --list",
        ),
        (
            400,
            error("bad_switch", "there is no such upstream"),
            "no such upstream",
        ),
        (
            409,
            error("too_many_switches", "256 things are switched off"),
            "256 things",
        ),
    ] {
        let gateway = StandIn::start(vec![(status, answer)]);
        let refused = gateway.ask(&["revive", "all"]);
        assert_eq!(refused.code, 1);
        assert!(refused.err.contains(words), "{}", refused.err);
    }
}

#[test]
fn health_says_how_each_upstream_is_and_fails_unless_all_are_well() {
    let answer = |status: &str| {
        json!({ "status": status, "upstreams": [
            { "name": "one", "status": "healthy", "latencyMs": 12, "tool": "ping" },
            { "name": "two", "status": status, "latencyMs": 5000, "reason": "upstream_timeout" },
        ] })
    };
    let gateway = StandIn::start(vec![
        (200, answer("healthy")),
        (200, answer("degraded")),
        (503, answer("unhealthy")),
        (404, json!({})),
    ]);
    let well = gateway.ask(&["health"]);
    assert_eq!(well.code, 0, "{}", well.err);
    assert!(
        well.out.contains("  one  healthy, 12 ms with ping\n"),
        "{}",
        well.out
    );
    let slow = gateway.ask(&["health"]);
    assert_eq!(slow.code, 1);
    let down = gateway.ask(&["health"]);
    assert_eq!(down.code, 1);
    assert!(down.out.starts_with("unhealthy\n"), "{}", down.out);
    assert!(
        down.out
            .contains("two  unhealthy, 5000 ms: upstream_timeout"),
        "{}",
        down.out
    );
    assert_eq!(gateway.ask(&["health"]).code, 1);
    assert_eq!(gateway.asked(), ["GET /health/deep"; 4]);
}
