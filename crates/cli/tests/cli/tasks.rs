//! `tidegate tasks`, against a server that stands in for a gateway.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::{Run, run};

pub const TOKEN: &str = "an-operators-token-of-some-length";
const ID: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

/// Answers each connection with the next of what it was given, and notes what it was asked.
pub struct StandIn {
    pub url: String,
    heard: Arc<Mutex<Vec<String>>>,
    bodies: Arc<Mutex<Vec<Value>>>,
}

impl StandIn {
    pub fn start(answers: Vec<(u16, Value)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let notes = Arc::clone(&heard);
        let bodies: Arc<Mutex<Vec<Value>>> = Arc::default();
        let brought = Arc::clone(&bodies);
        thread::spawn(move || {
            for (status, answer) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    assert!(reader.read_line(&mut head).unwrap() > 0);
                }
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    let length = name.eq_ignore_ascii_case("content-length");
                    length.then(|| value.trim().parse().unwrap())
                });
                let mut body = vec![0; length.unwrap_or(0)];
                reader.read_exact(&mut body).unwrap();
                brought
                    .lock()
                    .unwrap()
                    .extend(serde_json::from_slice::<Value>(&body));
                notes.lock().unwrap().push(head);
                let body = answer.to_string();
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n"
                );
                write!(stream, "{head}\r\n{body}").unwrap();
            }
        });
        Self { url, heard, bodies }
    }

    fn run(&self, arguments: &[&str]) -> Run {
        tasks(
            &[arguments, &["--gateway", &self.url]].concat(),
            Some(TOKEN),
        )
    }

    /// Has any command ask it.
    pub fn ask(&self, arguments: &[&str]) -> Run {
        command(
            &[arguments, &["--gateway", &self.url]].concat(),
            Some(TOKEN),
        )
    }

    /// The bodies that were sent, in order.
    pub fn bodies(&self) -> Vec<Value> {
        self.bodies.lock().unwrap().clone()
    }

    /// The request lines, in order.
    pub fn asked(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        let lines = heard.iter().map(|head| head.lines().next().unwrap());
        lines.map(|line| line.replace(" HTTP/1.1", "")).collect()
    }
}

fn tasks(arguments: &[&str], token: Option<&str>) -> Run {
    command(&[&["tasks"], arguments].concat(), token)
}

pub fn command(arguments: &[&str], token: Option<&str>) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).env_remove("TIDEGATE_ADMIN_TOKEN");
    if let Some(token) = token {
        command.env("TIDEGATE_ADMIN_TOKEN", token);
    }
    run(&mut command)
}

fn task(id: &str, status: &str) -> Value {
    json!({
        "id": id, "owner": OTHER, "upstream": "up", "tool": "index", "status": status,
        "abandoned": false, "createdAtMs": 1_700_000_000_000_u64, "updatedAtMs": 1_700_000_000_000_u64,
        "expiresAtMs": 1_700_003_600_000_u64, "attempts": 1,
    })
}

#[test]
fn a_list_follows_the_pages_and_shows_the_token_to_the_gateway_alone() {
    let mut abandoned = task(OTHER, "working");
    abandoned["abandoned"] = true.into();
    abandoned["tenant"] = "north".into();
    let gateway = StandIn::start(vec![
        (
            200,
            json!({ "tasks": [task(ID, "completed")], "nextCursor": "3" }),
        ),
        (200, json!({ "tasks": [], "nextCursor": "4" })),
        (200, json!({ "tasks": [abandoned] })),
    ]);
    let listed = gateway.run(&[
        "list",
        "--state",
        "input_required",
        "--tenant",
        "a&b",
        "--older-than",
        "10m",
    ]);
    assert_eq!(listed.code, 0, "{}", listed.err);
    let lines: Vec<Vec<&str>> = listed
        .out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines.len(), 3, "{}", listed.out);
    assert_eq!(
        lines[0],
        ["ID", "STATE", "AGE", "ATTEMPTS", "TENANT", "TOOL"]
    );
    assert_eq!(
        (lines[1][0], lines[1][1], lines[1][5]),
        (ID, "completed", "up/index")
    );
    assert_eq!(&lines[2][..3], [OTHER, "working,", "abandoned"]);
    assert!(lines[2].contains(&"north"));
    let query = "/admin/tasks?tenant=a%26b&state=input_required&olderThan=600000";
    assert_eq!(
        gateway.asked(),
        [
            format!("GET {query}"),
            format!("GET {query}&cursor=3"),
            format!("GET {query}&cursor=4"),
        ]
    );
    let head = gateway.heard.lock().unwrap()[0].to_lowercase();
    assert!(
        head.contains(&format!("authorization: bearer {TOKEN}")),
        "{head}"
    );
    assert!(!listed.out.contains(TOKEN));
}

#[test]
fn a_list_is_as_long_as_it_may_be_and_says_that_there_are_more() {
    let page = json!({ "tasks": [task(ID, "failed"), task(OTHER, "failed")], "nextCursor": "3" });
    let gateway = StandIn::start(vec![(200, page.clone()), (200, page)]);
    let listed = gateway.run(&["list", "--limit", "1"]);
    assert_eq!(listed.out.lines().count(), 3, "{}", listed.out);
    assert!(listed.out.contains("There are more"), "{}", listed.out);
    let listed = gateway.run(&["list", "--limit", "2", "--json"]);
    let parsed: Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(
        (parsed["tasks"].as_array().unwrap().len(), &parsed["more"]),
        (2, &json!(true))
    );
}

#[test]
fn one_task_is_shown_cancelled_and_retried() {
    let mut failed = task(ID, "failed");
    failed["errorCode"] = (-31_001).into();
    failed["errorReason"] = "upstream_timeout".into();
    let gateway = StandIn::start(vec![
        (200, failed.clone()),
        (200, failed.clone()),
        (200, task(ID, "cancelled")),
        (200, task(ID, "working")),
        (200, task(OTHER, "working")),
    ]);
    let shown = gateway.run(&["show", ID]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    assert!(
        shown.out.contains("upstream_timeout") && shown.out.contains("-31001"),
        "{}",
        shown.out
    );
    let shown = gateway.run(&["show", ID, "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&shown.out).unwrap(), failed);
    assert_eq!(
        gateway.run(&["cancel", ID]).out,
        format!("cancelled {ID}\n")
    );
    assert_eq!(
        gateway.run(&["retry", ID]).out,
        format!("queued {ID} again\n")
    );
    let anew = gateway.run(&["retry", ID]).out;
    assert!(
        anew.starts_with(&format!("made {OTHER} of the call of {ID}")),
        "{anew}"
    );
    assert_eq!(
        gateway.asked()[2..],
        [
            format!("POST /admin/tasks/{ID}/cancel"),
            format!("POST /admin/tasks/{ID}/retry"),
            format!("POST /admin/tasks/{ID}/retry"),
        ]
    );
}

#[test]
fn every_refusal_says_what_to_do() {
    let ours =
        |reason: &str, message: &str| json!({ "error": { "reason": reason, "message": message } });
    let cases = [
        (
            401,
            ours("unauthenticated", "x"),
            "must be the same here and among its secrets",
        ),
        (
            404,
            json!({ "jsonrpc": "2.0", "error": { "code": -31_000, "message": "x" } }),
            "wrangler secret put",
        ),
        (
            404,
            ours("unknown_task", "There is no such task."),
            "tidegate tasks list",
        ),
        (
            409,
            json!({ "error": { "reason": "wrong_state", "message": "The task has ended." }, "task": { "status": "completed" } }),
            "The task has ended. It is completed.",
        ),
        (
            429,
            ours("too_many_tasks", "1 tasks are open, as many as it may."),
            "1 tasks are open",
        ),
        (
            500,
            json!({ "error": { "reason": "fault", "message": "x", "data": { "correlationId": "c0ffee" } } }),
            "correlation id c0ffee",
        ),
        (302, json!({}), "is --gateway right?"),
        (200, json!([]), "not as a Tidegate gateway does"),
    ];
    for (status, answer, words) in cases {
        let gateway = StandIn::start(vec![(status, answer)]);
        let refused = gateway.run(&["retry", ID]);
        assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{status}");
        assert!(refused.err.contains(words), "{status}: {}", refused.err);
    }
}

#[test]
fn what_is_called_wrongly_is_said_before_anything_is_sent() {
    let ok = "http://127.0.0.1:1";
    for (arguments, token, words) in [
        (
            &["list", "--gateway", ok][..],
            None,
            "TIDEGATE_ADMIN_TOKEN is not set",
        ),
        (
            &["list", "--gateway", "http://mcp.example.com"],
            Some(TOKEN),
            "must be an https URL",
        ),
        (
            &["list", "--gateway", "ftp://127.0.0.1"],
            Some(TOKEN),
            "must be an https URL",
        ),
        (
            &["list", "--gateway", "nowhere"],
            Some(TOKEN),
            "invalid value",
        ),
        (&["list"], Some(TOKEN), "--gateway"),
        (
            &["show", "../config", "--gateway", ok],
            Some(TOKEN),
            "is no task's id",
        ),
        (
            &["list", "--gateway", ok, "--older-than", "10"],
            Some(TOKEN),
            "such as 10m",
        ),
        (
            &["list", "--gateway", ok, "--state", "lost"],
            Some(TOKEN),
            "possible values",
        ),
    ] {
        let refused = tasks(arguments, token);
        assert_eq!(refused.code, 2, "{arguments:?}");
        assert!(
            refused.err.contains(words),
            "{arguments:?}: {}",
            refused.err
        );
    }
    let unreachable = tasks(&["list", "--gateway", ok], Some(TOKEN));
    assert_eq!(unreachable.code, 1);
    assert!(
        unreachable.err.contains("does not answer"),
        "{}",
        unreachable.err
    );
}

#[test]
fn what_a_gateway_says_cannot_command_the_terminal() {
    let mut odd = task(ID, "working");
    odd["tool"] = "a\u{1b}[2Jb\nc".into();
    let gateway = StandIn::start(vec![(200, json!({ "tasks": [odd] }))]);
    let listed = gateway.run(&["list"]);
    assert!(!listed.out.contains('\u{1b}'), "{}", listed.out);
    assert_eq!(listed.out.lines().count(), 2);
}

#[test]
fn help_says_where_the_token_comes_from() {
    for command in ["list", "show", "cancel", "retry"] {
        let help = tasks(&[command, "--help"], None);
        assert_eq!(help.code, 0);
        assert!(help.out.contains("TIDEGATE_ADMIN_TOKEN"), "{}", help.out);
    }
}
