//! `tidegate usage`, against a server that stands in for a gateway.

use std::process::Command;

use serde_json::{Value, json};

use super::tasks::{StandIn, TOKEN};
use super::{Run, run};

fn usage(gateway: &StandIn, arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command
        .args(["usage", "--gateway", &gateway.url])
        .args(arguments)
        .env("TIDEGATE_ADMIN_TOKEN", TOKEN);
    run(&mut command)
}

fn line(quota: &str, unit: &str, used: u64) -> Value {
    json!({
        "quota": quota, "unit": unit, "enforce": "hard", "period": "2026-11", "limit": 4_000_000,
        "used": used, "resetsAt": "2026-12-01T00:00:00.000Z", "tenant": "north\u{1b}[2J",
    })
}

#[test]
fn what_is_used_is_shown_as_a_table_over_all_pages() {
    let mut all = line("all", "calls", 0);
    all["tenant"] = Value::Null;
    all["enforce"] = "soft".into();
    let gateway = StandIn::start(vec![
        (
            200,
            json!({ "usage": [line("budget", "money", 1_250_000)], "nextCursor": "0.3" }),
        ),
        (200, json!({ "usage": [all] })),
    ]);
    let shown = usage(&gateway, &["--tenant", "a&b", "--period", "2026-11"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    let lines: Vec<&str> = shown.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", shown.out);
    assert!(lines[0].starts_with("QUOTA   PERIOD   WHO"));
    assert!(lines[1].contains("tenant north\u{fffd}[2J"), "{}", lines[1]);
    assert!(
        lines[1].contains("1.250000 (31%)  4.000000"),
        "{}",
        lines[1]
    );
    assert!(lines[2].contains("all") && lines[2].contains("0 calls (0%)"));
    assert!(lines[2].contains("4000000 calls (soft)"));
    assert_eq!(
        gateway.asked(),
        [
            "GET /admin/usage?tenant=a%26b&period=2026-11",
            "GET /admin/usage?tenant=a%26b&period=2026-11&cursor=0.3",
        ]
    );
}

#[test]
fn json_is_the_lines_and_whether_there_are_more() {
    let page =
        json!({ "usage": [line("a", "calls", 1), line("b", "bytes", 2)], "nextCursor": "1.0" });
    let gateway = StandIn::start(vec![(200, page)]);
    let shown = usage(&gateway, &["--json", "--limit", "1"]);
    let json: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(
        json,
        json!({ "usage": [line("a", "calls", 1)], "more": true })
    );
}

#[test]
fn nothing_used_is_said_in_words() {
    let gateway = StandIn::start(vec![(200, json!({ "usage": [] }))]);
    let shown = usage(&gateway, &[]);
    assert_eq!((shown.code, shown.out.lines().count()), (0, 1));
}
