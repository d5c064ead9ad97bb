//! `tidegate policy test` and `explain`: what they say of a policy before it is published.

use std::path::Path;
use std::process::Command;

use super::{Run, SOUND, folder, root, tidegate};

const POLICY: &str = "\
policy:
  roles: [reader, lead]
  tools: [search__delete]
  rules:
    - name: querying
      effect: allow
      tools: [search__query]
      when: args.limit <= 100
    - name: leads
      effect: allow
      tools: [\"search__*\"]
      when: '\"lead\" in principal.roles'
    - name: office-hours
      effect: deny
      tools: [search__delete]
      when: now.hour < 9 || now.hour >= 17
      disclose: true
";

const CASES: &str = "\
cases:
  - name: readers query a little
    tool: search__query
    arguments: { limit: 100 }
    principal: { roles: [reader] }
    expect: allow
    by: querying
  - name: readers see that they can query
    tool: search__query
    list: true
    principal: { roles: [reader] }
    expect: allow
  - name: nobody queries a lot
    tool: search__query
    arguments: { limit: 101 }
    principal: { roles: [reader] }
    expect: deny
    by: (default)
  - name: leads delete at noon
    tool: search__delete
    principal: { roles: [lead] }
    expect: allow
    by: leads
  - name: and not at night
    tool: search__delete
    principal: { roles: [lead] }
    at: 2026-11-21T22:00:00Z
    expect: deny
    by: office-hours
";

fn written(cases: &str) -> tempfile::TempDir {
    let config = format!("{SOUND}{POLICY}");
    folder(&[("tidegate.yaml", &config), ("cases.yaml", cases)])
}

fn test(folder: &Path, more: &[&str]) -> Run {
    let mut arguments = vec!["policy", "test", "cases.yaml"];
    arguments.extend(more);
    tidegate(folder, &arguments)
}

#[test]
fn cases_that_hold_are_counted_with_what_they_cover() {
    let folder = written(CASES);
    let run = test(folder.path(), &["--strict"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{}", run.out);
    let table = "\
5 of 5 cases hold

rule          effect  cases  true  false  decided
querying      allow       3     2      2        2
leads         allow       5     2      3        1
office-hours  deny        2     1      1        1
";
    assert!(run.out.ends_with(table), "{}", run.out);
}

#[test]
fn a_case_that_does_not_hold_is_told_with_its_place_and_the_reason() {
    let wrong = CASES
        .replace("{ limit: 100 }", "{ limit: 500 }")
        .replace("by: leads", "by: querying");
    let run = test(written(&wrong).path(), &[]);
    assert_eq!(run.code, 1);
    for line in [
        "FAILED  readers query a little: should be allowed, is denied by (default): no rule allows it (cases.yaml:2:5)",
        "FAILED  leads delete at noon: should be allowed by querying, is by leads (cases.yaml:19:5)",
        "3 of 5 cases hold",
    ] {
        assert!(run.out.contains(line), "{}", run.out);
    }
}

#[test]
fn a_rule_no_case_is_decided_by_is_told_and_fails_if_asked_to() {
    let some = CASES.split("  - name: leads").next().unwrap();
    let folder = written(some);
    assert_eq!(test(folder.path(), &[]).code, 0);
    let run = test(folder.path(), &["--strict"]);
    assert_eq!(run.code, 1);
    assert!(
        run.out
            .contains("office-hours  deny        0     0      0        0  <- by no case"),
        "{}",
        run.out
    );
}

#[test]
fn a_case_that_makes_no_sense_is_told_with_its_place() {
    for (cases, said) in [
        ("cases: []\n", "cases.yaml:1:1: has no list `cases`"),
        (
            "cases:\n  - tool: search__query\n",
            "cases.yaml:2:5: a case needs a `name`",
        ),
        (
            "cases:\n  - name: a\n    tool: search__query\n",
            "cases.yaml:2:5: missing field `expect`",
        ),
        (
            "cases:\n  - name: a\n    expect: deny\n",
            "cases.yaml:2:5: name exactly one of tool, prompt and resource",
        ),
        (
            "cases:\n  - name: a\n    expect: deny\n    tool: other__a\n",
            "there is no upstream `other`",
        ),
        (
            "cases:\n  - name: a\n    expect: deny\n    tol: search__a\n",
            "unknown field `tol`",
        ),
        (
            "cases:\n  - name: a\n    expect: deny\n    tool: search__a\n    at: noon\n",
            "`at` is no RFC 3339 time",
        ),
        ("cases: [\n", "cases.yaml:"),
    ] {
        let run = test(written(cases).path(), &[]);
        assert!(
            run.code != 0 && run.err.contains(said),
            "{cases}: {}",
            run.err
        );
    }
}

#[test]
fn one_request_is_explained_rule_by_rule() {
    let folder = written(CASES);
    let explain = |more: &[&str]| {
        let mut arguments = vec!["policy", "explain", "--tool", "search__query"];
        arguments.extend(more);
        let run = tidegate(folder.path(), &arguments);
        assert_eq!(run.code, 0, "{}", run.err);
        run.out
    };
    assert_eq!(
        explain(&["--role", "reader", "--arguments", r#"{"limit":"many"}"#]),
        "denied by (default): no rule allows it\n\
        \x20 allow querying: fails: operands of another kind\n\
        \x20 allow leads: does not apply\n\
        \x20 deny  office-hours: is about something else\n"
    );
    assert_eq!(
        explain(&["--role", "reader", "--list"]),
        "listed by querying: a rule allows it and none denies it\n\
        \x20 allow querying: depends on the arguments\n\
        \x20 allow leads: does not apply\n\
        \x20 deny  office-hours: is about something else\n"
    );
    assert_eq!(
        explain(&["--role", "lead", "--arguments", r#"{"limit":1}"#])
            .lines()
            .next(),
        Some("denied by search__query: the tool's own entry asks for the role reader")
    );
    let run = tidegate(folder.path(), &["policy", "explain", "--role", "lead"]);
    assert_eq!(run.code, 2, "it must be said what is asked for");
}

#[test]
fn clearance_is_explained_too() {
    let config = SOUND.replace(
        "    url: https://search.example.com/mcp\n",
        "    url: https://search.example.com/mcp\n    classification: restricted\n",
    );
    let policy = "policy:\n  roles: [lead, reader]\n  clearance: { roles: { lead: restricted } }\n";
    let folder = folder(&[("tidegate.yaml", &format!("{config}{policy}"))]);
    let first = |role: &str| {
        let arguments = ["policy", "explain", "--tool", "search__a", "--role", role];
        tidegate(folder.path(), &arguments).out
    };
    assert_eq!(
        first("reader"),
        "denied by (clearance): its upstream is restricted, the principal is cleared for internal\n"
    );
    assert_eq!(first("lead"), "allowed by (default): there are no rules\n");
}

#[test]
fn the_readmes_example_is_true() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let block = |begins: &str| {
        let blocks = readme.split("```").skip(1).step_by(2);
        let texts = blocks.map(|block| block.split_once('\n').unwrap().1);
        texts
            .into_iter()
            .find(|text| text.starts_with(begins))
            .unwrap()
    };
    let upstream =
        "  - name: pay\n    url: https://pay.example.com/mcp\n    classification: confidential\n";
    let config = SOUND.replace("tools:\n", &format!("{upstream}tools:\n"));
    let config = config.replace("[reader]", "[clerk]") + block("policy:");
    let folder = folder(&[("tidegate.yaml", &config), ("cases.yaml", block("cases:"))]);
    let run = test(folder.path(), &[]);
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{}", run.out);
    let (command, said) = block("$ tidegate policy explain").split_once('\n').unwrap();
    let run = Command::new("sh")
        .current_dir(folder.path())
        .args([
            "-c",
            &command.replace("$ tidegate", env!("CARGO_BIN_EXE_tidegate")),
        ])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&run.stdout), said);
}

#[test]
fn what_is_of_another_tenant_is_denied_whatever_the_rules_say() {
    let mine = SOUND.replacen(
        "  - name: search\n",
        "  - name: search\n    tenants: [acme]\n",
        1,
    );
    assert_ne!(mine, SOUND);
    let config = format!("{mine}tenants: [{{ name: acme }}]\n{POLICY}");
    let folder = folder(&[("tidegate.yaml", config.as_str())]);
    let explain = |tenant: &str| {
        let asked = [
            "policy",
            "explain",
            "--tool",
            "search__delete",
            "--role",
            "lead",
            "--at",
            "2026-11-20T12:00:00Z",
            "--tenant",
            tenant,
        ];
        tidegate(folder.path(), &asked).out
    };
    assert!(
        explain("acme").starts_with("allowed by leads"),
        "{}",
        explain("acme")
    );
    assert!(
        explain("globex").starts_with("denied by (tenant)"),
        "{}",
        explain("globex")
    );
}
