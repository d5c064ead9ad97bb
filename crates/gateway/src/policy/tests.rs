//! Conditions and rules as values: what they accept, come to, and refuse to be.

use std::collections::BTreeSet;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use tidegate_policy::{ARGUMENT_BYTES_MAX, ARGUMENT_VALUES_MAX, CLASSIFICATIONS};

use super::*;
use crate::config::{Config, Problem};
use crate::ingress::Peer;
use crate::time::Timestamp;

/// 2026-11-21T17:40:00Z, a Saturday.
const NOW: Timestamp = Timestamp(1_795_282_800_000);

fn config(rules: Value) -> Config {
    serde_json::from_value(json!({
        "apiVersion": "tidegate/v1",
        "kind": "Gateway",
        "metadata": { "name": "edge" },
        "publicUrl": "https://gw.example.com",
        "authentication": { "type": "jwt", "issuers": [
            { "issuer": "https://login.example.com", "jwksUri": "https://login.example.com/keys" },
        ] },
        "upstreams": [
            { "name": "pay", "url": "https://pay.example.com/mcp", "classification": "confidential" },
            { "name": "wiki", "url": "https://wiki.example.com/mcp" },
        ],
        "tools": [{ "name": "pay__send" }],
        "policy": {
            "roles": ["clerk", "lead"],
            "tools": ["pay__list"],
            "clearance": { "default": "confidential" },
            "rules": rules,
        },
    }))
    .unwrap()
}

fn principal() -> Principal {
    Principal {
        subject: "ada".to_owned(),
        tenant: Some("north".to_owned()),
        roles: BTreeSet::from(["clerk".to_owned()]),
        scopes: BTreeSet::from(["pay:read".to_owned(), "pay:send".to_owned()]),
        ..Principal::anonymous()
    }
}

fn peer() -> Peer {
    Peer {
        address: Some("10.1.2.3".to_owned()),
        country: Some("DE".to_owned()),
        certificate: None,
    }
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

/// What a condition of a rule for `pay__send` comes to, and its failure.
fn weigh(when: &str, arguments: Option<&str>) -> (Outcome, Option<&'static str>) {
    let config =
        config(json!([{ "name": "it", "effect": "allow", "tools": ["pay__send"], "when": when }]));
    assert_eq!(config.problems(), [], "{when}");
    let rules = Rules::compile(&config).unwrap().unwrap();
    let (principal, peer) = (principal(), peer());
    let given = arguments.map(|text| RawValue::from_string(text.to_owned()).unwrap());
    let facts = facts(
        (&principal, Classification::Confidential),
        (&peer, NOW),
        &config.upstreams[0],
        Subject::Tool("send", Some(Hints::default())),
        match &given {
            Some(given) => Arguments::Known(Some(given)),
            None => Arguments::Unknown,
        },
    );
    let opinion = rules.opinions(&facts).pop().unwrap();
    (opinion.outcome.unwrap(), opinion.failure)
}

#[test]
fn every_field_can_be_asked_for() {
    for (when, expected) in [
        ("principal.subject == 'ada'", true),
        ("principal.issuer == null && principal.client == null", true),
        ("principal.tenant == 'north'", true),
        (
            "'clerk' in principal.roles && !('lead' in principal.roles)",
            true,
        ),
        ("principal.roles.exists(r, r == 'clerk')", true),
        ("principal.scopes.all(s, s.startsWith('pay:'))", true),
        (
            "principal.scopes.size() == 2 && size(principal.scopes) == 2",
            true,
        ),
        ("principal.clearance == 'confidential'", true),
        (
            "upstream.name == 'pay' && upstream.classification in ['confidential', 'restricted']",
            true,
        ),
        ("inNetwork(request.address, '10.0.0.0/8')", true),
        (
            "inNetwork(request.address, '10.1.2.3') && !inNetwork(request.address, '::/0')",
            true,
        ),
        ("inNetwork(request.address, '10.1.2.4')", false),
        ("inNetwork(principal.client, '0.0.0.0/0')", false),
        ("request.country in ['DE', 'AT']", true),
        ("now.date == '2026-11-21' && now.time == '17:40'", true),
        (
            "now.hour >= 9 && now.hour < 18 && now.weekday == 'saturday'",
            true,
        ),
        ("now.time >= '09:00' && now.time < '17:00'", false),
        ("tool.name == 'send'", true),
        (
            "tool.annotations.destructiveHint && tool.annotations.openWorldHint",
            true,
        ),
        (
            "tool.annotations.readOnlyHint || tool.annotations.idempotentHint",
            false,
        ),
        (
            "args.to.lowerAscii().matches('^[a-z]+@example\\\\.com$')",
            true,
        ),
        ("args.amount <= 100 && args.amount > 99.5", true),
        (
            "args.lines.map(l, l.price).filter(p, p > 5).size() == 1",
            true,
        ),
        ("args.lines.exists_one(l, l.price > 5)", true),
        ("has(args.note) ? args.note.contains('x') : true", true),
        (
            "args['to'] == 'Ada@example.com' && args.lines[0].price == 5",
            true,
        ),
        ("'to' in args && args.big == 18446744073709551615u", true),
        (
            "args.half == 0.5 && args.nothing == null && args.yes && !args.no",
            true,
        ),
        ("args.lines == [{'price': 5}, {'price': 6}]", true),
    ] {
        let arguments = r#"{"to":"Ada@example.com","amount":100,"lines":[{"price":5},{"price":6}],
            "big":18446744073709551615,"half":0.5,"nothing":null,"yes":true,"no":false}"#;
        assert_eq!(
            weigh(when, Some(arguments)),
            (if expected { Outcome::YES } else { Outcome::NO }, None),
            "{when}"
        );
    }
}

#[test]
fn while_arguments_are_unknown_only_what_they_cannot_change_is_certain() {
    let either = Outcome::ANY;
    for (when, expected) in [
        ("args.amount <= 100", either),
        ("has(args.amount)", either),
        (
            "principal.tenant == 'north' || args.amount <= 100",
            Outcome::YES,
        ),
        (
            "args.amount <= 100 || principal.tenant == 'north'",
            Outcome::YES,
        ),
        (
            "principal.tenant == 'south' && args.amount <= 100",
            Outcome::NO,
        ),
        (
            "args.amount <= 100 && principal.tenant == 'south'",
            Outcome::NO,
        ),
        (
            "!(args.amount > 100 || principal.tenant == 'north')",
            Outcome::NO,
        ),
        (
            "principal.tenant == 'south' ? args.a == 1 : principal.subject == 'ada'",
            Outcome::YES,
        ),
        (
            "args.a == 1 ? principal.tenant == 'south' : principal.subject == 'bob'",
            Outcome {
                yes: false,
                ..either
            },
        ),
        ("args.lines.all(l, l.price < 5)", either),
        ("principal.roles.exists(r, r == args.role)", either),
        (
            "principal.roles.exists(r, r == 'clerk' || r == args.role)",
            Outcome::YES,
        ),
        ("size(args) > 2", either),
        // It can be called with no arguments at all: it fails all the same.
        (
            "1 / 0 == 1 && args.a == 1",
            Outcome {
                yes: false,
                ..either
            },
        ),
    ] {
        assert_eq!(weigh(when, None).0, expected, "{when}");
    }
}

#[test]
fn what_cannot_be_evaluated_fails_in_words_that_quote_nothing() {
    for (when, arguments, failure) in [
        ("args.amount <= 100", r#"{"sum":1}"#, "no such field"),
        (
            "args.amount <= 100",
            r#"{"amount":"hunter2"}"#,
            "operands of another kind",
        ),
        (
            "args.amount",
            r#"{"amount":"hunter2"}"#,
            "neither true nor false",
        ),
        (
            "args.amount / args.by == 1",
            r#"{"amount":1,"by":0}"#,
            "division by zero",
        ),
        (
            "args.amount * 9223372036854775807 > 1",
            r#"{"amount":2}"#,
            "a number too large",
        ),
        (
            "args.list[3] == 1",
            r#"{"list":[]}"#,
            "an index beyond the end",
        ),
        (
            "args.amount == 1",
            r#"{"amount":1,"amount":2}"#,
            "arguments that cannot be read",
        ),
        (
            "args.of.amount == 1",
            r#"{"of":{"amount":1,"amount":2}}"#,
            "arguments that cannot be read",
        ),
        ("args.amount == 1", "[1]", "arguments that cannot be read"),
        (
            "args.amount == 1",
            r#"{"amount":1e999}"#,
            "arguments that cannot be read",
        ),
    ] {
        let weighed = weigh(when, Some(arguments));
        assert_eq!(
            weighed,
            (Outcome::FAILURE, Some(failure)),
            "{when} {arguments}"
        );
    }
}

#[test]
fn a_failure_does_not_hide_an_answer_that_stands_without_it() {
    for (when, expected) in [
        (
            "args.none == 1 || principal.tenant == 'north'",
            Outcome::YES,
        ),
        ("args.none == 1 && principal.tenant == 'south'", Outcome::NO),
        ("[1, 0].exists(x, 1 / x == 1)", Outcome::YES),
    ] {
        assert_eq!(weigh(when, Some("{}")), (expected, None), "{when}");
    }
}

#[test]
fn evaluation_stops_at_its_bounds() {
    let many = |count: usize| format!(r#"{{"list":[{}]}}"#, vec!["1"; count].join(","));
    let all = "args.list.all(a, a == 1)";
    assert_eq!(weigh(all, Some(&many(5_000))).0, Outcome::YES);
    let (outcome, failure) = weigh(
        "args.list.all(a, args.list.all(b, a == b))",
        Some(&many(200)),
    );
    assert_eq!(
        (outcome, failure),
        (Outcome::FAILURE, Some("too many steps"))
    );
    for made in [
        "map(a, args.list.map(b, b))",
        "filter(a, args.list.filter(b, b == 2) == [])",
    ] {
        let when = format!("args.list.{made}.size() == 200");
        let (outcome, failure) = weigh(&when, Some(&many(200)));
        assert_eq!(
            (outcome, failure),
            (Outcome::FAILURE, Some("too many steps")),
            "{when}"
        );
    }
    let cannot = (Outcome::FAILURE, Some("arguments that cannot be read"));
    assert_eq!(weigh(all, Some(&many(ARGUMENT_VALUES_MAX + 1))), cannot);
    let long = format!(r#"{{"list":["{}"]}}"#, "x".repeat(ARGUMENT_BYTES_MAX));
    assert_eq!(weigh("size(args) == 1", Some(&long)), cannot);
}

/// The problems of one rule with these members.
fn problems(members: &Value) -> Vec<Problem> {
    let mut rule = json!({ "name": "it", "effect": "deny" });
    rule.as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    config(json!([rule])).problems()
}

#[test]
fn a_condition_that_could_not_mean_what_it_says_is_refused() {
    let deep = format!("{}true{}", "[".repeat(50), "]".repeat(50));
    let calls = format!("{}args{}", "size(".repeat(580), ")".repeat(580));
    let chosen = "now.hour == 1 ? true : ".repeat(150) + "false";
    let long = vec!["now.hour == 1"; 200].join(" || ");
    for (when, said) in [
        ("principal.tenant ==", "is not CEL"),
        (
            "principal.role == 'clerk'",
            "`principal.role` is not a field",
        ),
        ("principal == 'ada'", "`principal` is not a field"),
        ("user.name == 'ada'", "`user.name` is not a field"),
        (
            "prompt.name == 'a'",
            "`prompt.name` does not exist in a rule for tools",
        ),
        (
            "resource.uri == 'a'",
            "`resource.uri` does not exist in a rule for tools",
        ),
        ("'clerc' in principal.roles", "`clerc` is no known role"),
        (
            "principal.roles.exists(r, r == 'clerc')",
            "`clerc` is no known role",
        ),
        (
            "['clerk', 'clerc'].exists(r, r in principal.roles)",
            "`clerc` is no known role",
        ),
        (
            "['clerc'].exists(r, principal.roles.all(own, own != r))",
            "`clerc` is no known role",
        ),
        (
            "['clerc'].exists(r, principal.roles.exists(own, own in [r]))",
            "`clerc` is no known role",
        ),
        ("principal.roles == ['clerc']", "`clerc` is no known role"),
        ("['clerc'] != principal.roles", "`clerc` is no known role"),
        (
            "['pay', 'pays'].exists(name, upstream.name == name)",
            "`pays` is no known upstream",
        ),
        ("upstream.name == 'pays'", "`pays` is no known upstream"),
        (
            "upstream.name in ['pay', 'pays']",
            "`pays` is no known upstream",
        ),
        ("tool.name != 'sent'", "`sent` is no known tool"),
        ("upstream.classification == 'secret'", "`secret` is no word"),
        (
            "upstream.classification > 'internal'",
            "orders classifications by their letters",
        ),
        ("request.country == 'Germany'", "`Germany` is no word"),
        ("now.weekday == 'Saturday'", "`Saturday` is no word"),
        ("now.date >= '2026-1-1'", "`2026-1-1` is no word"),
        (
            "now.hour == '9'",
            "compares a number with a text, which are never equal",
        ),
        (
            "now.hour < '9'",
            "asks which is more of a number and a text",
        ),
        ("principal.roles == 'clerk'", "compares a list with a text"),
        ("'a' in principal.tenant", "looks for something in a text"),
        ("principal.tenant", "is not a condition"),
        ("principal.tenant && true", "gives &&, || and ! a text"),
        ("has(principal.tenant)", "which there always is"),
        (
            "principal.tenant.name == 'a'",
            "`principal.tenant.name` is not a field",
        ),
        ("principal.roles.all(r, r.name == 'a')", "`r` has no fields"),
        ("int(args.a) == 1", "calls `int`"),
        ("args.a.reverse() == 'a'", "calls `reverse`"),
        ("args.a.matches(args.b)", "has a pattern that is none"),
        ("args.a.matches('(')", "has a pattern that is none"),
        (
            "args.a.matches('(a{1000}){1000}')",
            "has a pattern that is none",
        ),
        (
            "inNetwork(request.address, '10.0.0.0/33')",
            "names a network that is none",
        ),
        (
            "inNetwork(request.address, 'lan')",
            "names a network that is none",
        ),
        ("Message{a: 1} == null", "uses messages"),
        ("args.a == b'a'", "uses bytes"),
        (&deep, "recursion limit"),
        (&calls, "recursion limit"),
        (&chosen, "too deeply nested"),
        (&long, "too large"),
    ] {
        let found = problems(&json!({ "tools": ["pay__send"], "when": when }));
        assert!(
            found.iter().any(|problem| problem.message.contains(said)),
            "{when}: {found:?} does not say {said:?}"
        );
        assert!(
            found
                .iter()
                .all(|problem| problem.pointer == "/policy/rules/0/when"),
            "{found:?}"
        );
    }
}

#[test]
fn a_field_must_exist_in_everything_its_rule_concerns() {
    let both =
        json!({ "tools": ["*"], "prompts": ["*"], "when": "args.a == 1 && tool.name == 'send'" });
    let found = problems(&both);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].message,
        "`tool.name` does not exist in a rule for prompts"
    );
    let resources = json!({ "resources": ["wiki__*"], "when": "args.a == 1" });
    assert!(
        problems(&resources)[0]
            .message
            .contains("`args` does not exist in a rule for resources")
    );
    let uri =
        json!({ "resources": ["wiki__*"], "when": "resource.uri.startsWith('file:///public/')" });
    assert_eq!(problems(&uri), []);
}

#[test]
fn a_rule_names_only_what_there_is() {
    for (members, pointer, said) in [
        (
            json!({ "tools": ["pay__sent"] }),
            "/tools/0",
            "no known tool",
        ),
        (
            json!({ "tools": ["pays__*"] }),
            "/tools/0",
            "not configured",
        ),
        (json!({ "tools": ["send"] }), "/tools/0", "whose it means"),
        (
            json!({ "prompts": ["wikis__a"] }),
            "/prompts/0",
            "not configured",
        ),
        (
            json!({ "resources": ["wiki__a"] }),
            "/resources/0",
            "names a resource",
        ),
        (json!({}), "", "concerns nothing"),
        (json!({ "tools": ["*", "*"] }), "/tools/1", "listed twice"),
        (
            json!({ "tools": ["*"], "name": "It" }),
            "/name",
            "not a rule's name",
        ),
    ] {
        let found = problems(&members);
        let pointer = format!("/policy/rules/0{pointer}");
        assert!(
            found
                .iter()
                .any(|problem| problem.pointer == pointer && problem.message.contains(said)),
            "{members}: {found:?}"
        );
    }
}

/// Which rule decides for a call of `tool` of an upstream, with these arguments.
fn decides(rules: &Value, upstream: usize, tool: &str, arguments: Option<&Value>) -> String {
    let config = config(rules.clone());
    assert_eq!(config.problems(), []);
    let rules = Rules::compile(&config).unwrap().unwrap();
    let (principal, peer) = (principal(), peer());
    let given = arguments.map(raw);
    let arguments = match &given {
        Some(given) => Arguments::Known(Some(given)),
        None => Arguments::Unknown,
    };
    let facts = facts(
        (&principal, Classification::Confidential),
        (&peer, NOW),
        &config.upstreams[upstream],
        Subject::Tool(tool, Some(Hints::default())),
        arguments,
    );
    match rules.decide(&facts, Unknown::Some).verdict {
        Verdict::Allowed(rule) => format!("+{}", rule.name),
        Verdict::Denied(rule) => format!("-{}", rule.name),
        Verdict::NotAllowed => "none".to_owned(),
    }
}

#[test]
fn one_denial_outweighs_all_that_allow_and_silence_denies() {
    let rules = json!([
        { "name": "small", "effect": "allow", "tools": ["pay__send"], "when": "args.amount <= 100" },
        { "name": "reading", "effect": "allow", "tools": ["pay__list", "wiki__*"] },
        { "name": "abroad", "effect": "deny", "tools": ["*"], "when": "args.to == 'abroad'" },
    ]);
    let decides = |upstream, tool: &str, arguments: Option<Value>| {
        decides(&rules, upstream, tool, arguments.as_ref())
    };
    for (upstream, tool, arguments, decided) in [
        (0, "send", json!({ "amount": 100, "to": "here" }), "+small"),
        (0, "send", json!({ "amount": 101, "to": "here" }), "none"),
        (0, "send", json!({ "amount": 1, "to": "abroad" }), "-abroad"),
        (0, "list", json!({ "to": "here" }), "+reading"),
        (1, "anything", json!({ "to": "here" }), "+reading"),
        (0, "other", json!({ "to": "here" }), "none"),
        // It cannot be told that nobody is abroad.
        (0, "list", json!({}), "-abroad"),
        (0, "send", json!({ "to": "here" }), "none"),
    ] {
        assert_eq!(
            decides(upstream, tool, Some(arguments.clone())),
            decided,
            "{tool} {arguments}"
        );
    }
    for (tool, decided) in [("send", "+small"), ("list", "+reading"), ("other", "none")] {
        assert_eq!(decides(0, tool, None), decided, "{tool} in a list");
    }
}

#[test]
fn classifications_are_the_same_in_configurations_and_in_conditions() {
    assert_eq!(
        Classification::ALL.map(Classification::as_str),
        CLASSIFICATIONS
    );
    let configured = serde_json::to_value(Classification::ALL).unwrap();
    assert_eq!(configured, json!(CLASSIFICATIONS));
}
