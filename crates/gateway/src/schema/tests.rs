//! Values against schemas, and schemas that want too much.

use serde_json::{Value, json};

use super::cost::{STACK_MAX, VISITS_MAX};
use super::*;

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap()
}

fn verdict(schema: &Value, value: &Value) -> Verdict {
    check(
        &Memory::default(),
        &Document::new(&raw(schema)),
        &raw(value),
    )
}

/// Checks a value that must not fit; gives each violation as one line.
#[track_caller]
fn told(schema: &Value, value: &Value) -> Vec<String> {
    match verdict(schema, value) {
        Verdict::Violates(all) => all
            .into_iter()
            .map(|v| format!("{}: {}", v.at, v.expected))
            .collect(),
        other => panic!("{schema} {value}: {other:?}"),
    }
}

#[track_caller]
fn fits(schema: &Value, value: &Value) {
    let verdict = verdict(schema, value);
    assert!(
        matches!(verdict, Verdict::Fits),
        "{schema} {value}: {verdict:?}"
    );
}

#[track_caller]
fn why(schema: &Value) -> Unusable {
    match verdict(schema, &json!({})) {
        Verdict::Unusable { why, first: true } => why,
        other => panic!("{schema}: {other:?}"),
    }
}

#[test]
fn a_violation_names_the_path_and_what_was_expected() {
    let schema = json!({
        "type": "object",
        "properties": {
            "a/b": { "type": "integer", "minimum": 3 },
            "list": { "type": "array", "items": { "enum": ["x", 1, null] }, "maxItems": 2 },
            "text": { "type": "string", "maxLength": 3, "pattern": "^[a-z]+$" },
            "shape": { "anyOf": [{ "type": "string" }, { "required": ["r"], "type": "object" }] },
        },
        "required": ["list"],
        "additionalProperties": false,
    });
    let cases = [
        (json!([]), ": expected object, not array"),
        (json!({}), ": missing property `list`"),
        (json!({ "list": [], "z": 1 }), ": unknown property `z`"),
        (
            json!({ "list": [], "a/b": "SECRET" }),
            "/a~1b: expected integer, not string",
        ),
        (
            json!({ "list": [], "a/b": 2 }),
            "/a~1b: expected at least 3",
        ),
        (
            json!({ "list": ["x", "SECRET"] }),
            r#"/list/1: expected one of ["x",1,null]"#,
        ),
        (
            json!({ "list": [1, 1, 1] }),
            "/list: expected at most 2 items",
        ),
        (
            json!({ "list": [], "text": "SECRET" }),
            "/text: expected at most 3 characters",
        ),
        (
            json!({ "list": [], "text": "1" }),
            "/text: expected text that matches `^[a-z]+$`",
        ),
        (
            json!({ "list": [], "shape": {} }),
            "/shape: fits none of the allowed forms (expected string, not object; missing property `r`)",
        ),
    ];
    for (value, line) in cases {
        let told = told(&schema, &value);
        assert_eq!(told[0], line, "{value}");
        assert!(!told.concat().contains("SECRET"));
    }
    fits(&schema, &json!({ "list": ["x"], "a/b": 3.0, "shape": "s" }));
}

#[test]
fn no_violation_says_what_the_value_was() {
    let secret = "SECRET";
    let schemas = [
        json!({ "const": 1 }),
        json!({ "enum": ["a"] }),
        json!({ "not": {} }),
        json!(false),
        json!({ "pattern": "^x" }),
        json!({ "maxLength": 1 }),
        json!({ "minLength": 100 }),
        json!({ "type": "number" }),
        json!({ "oneOf": [{ "type": "string" }, { "minLength": 1 }] }),
        json!({ "anyOf": [{ "const": 3 }, { "pattern": "^y" }] }),
        json!({ "$ref": "#/$defs/a", "$defs": { "a": { "const": { "x": 1 } } } }),
        json!({ "$schema": "http://json-schema.org/draft-07/schema#", "format": "regex", "type": "null" }),
    ];
    for schema in schemas {
        let told = told(&schema, &json!(secret));
        assert!(!told.concat().contains(secret), "{schema}: {told:?}");
    }
    for (schema, number) in [
        (json!({ "maximum": 5 }), json!(777)),
        (json!({ "multipleOf": 5 }), json!(777)),
        (json!({ "exclusiveMinimum": 1000 }), json!(777)),
    ] {
        assert!(!told(&schema, &number).concat().contains("777"), "{schema}");
    }
}

#[test]
fn every_dialect_means_what_it_says() {
    let items = |dialect: &str| json!({ "$schema": dialect, "items": [{ "type": "string" }] });
    for dialect in [
        "http://json-schema.org/draft-04/schema#",
        "http://json-schema.org/draft-06/schema#",
        "http://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft/2019-09/schema",
    ] {
        assert_eq!(
            told(&items(dialect), &json!([1])),
            ["/0: expected string, not integer".replace("integer", "number")]
        );
        fits(&items(dialect), &json!(["a", 1]));
    }
    // An array of items is not a schema of 2020-12, which is the dialect where none is named.
    for schema in [
        items("https://json-schema.org/draft/2020-12/schema"),
        json!({ "items": [{ "type": "string" }] }),
    ] {
        assert_eq!(
            why(&schema),
            Unusable::Invalid("invalid in its dialect, or a pattern that is not supported")
        );
    }
    assert_eq!(
        why(&json!({ "$schema": "https://example.com/mine" })),
        Unusable::Dialect("https://example.com/mine".to_owned())
    );
}

#[test]
fn formats_are_annotations() {
    for dialect in [
        "http://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft/2020-12/schema",
    ] {
        for format in FORMATS {
            fits(
                &json!({ "$schema": dialect, "format": format }),
                &json!("neither fish nor flesh"),
            );
        }
    }
}

#[test]
fn references_resolve_within_the_document_and_nowhere_else() {
    let address = json!({ "type": "object", "properties": { "street": { "type": "string" } } });
    let mut anchored = address.clone();
    anchored["$anchor"] = json!("addr");
    for schema in [
        json!({ "properties": { "to": { "$ref": "#/$defs/a" } }, "$defs": { "a": address } }),
        json!({ "properties": { "to": { "$ref": "#addr" } }, "$defs": { "a": anchored } }),
        json!({ "$id": "https://example.com/tool", "properties": { "to": { "$ref": "addr" } },
            "$defs": { "a": { "$id": "addr", "properties": { "street": { "type": "string" } } } } }),
    ] {
        fits(&schema, &json!({ "to": { "street": "s" } }));
        assert_eq!(
            told(&schema, &json!({ "to": { "street": 1 } })),
            ["/to/street: expected string, not number"]
        );
    }
    fits(
        &json!({ "properties": { "schema": { "$ref": "https://json-schema.org/draft/2020-12/schema" } } }),
        &json!({ "schema": { "type": "object" } }),
    );
    for reference in [
        "https://example.com/other.json",
        "http://127.0.0.1/x",
        "file:///etc/passwd",
        "other.json",
    ] {
        assert_eq!(
            why(&json!({ "properties": { "a": { "$ref": reference } } })),
            Unusable::Invalid("it refers to another document"),
            "{reference}"
        );
    }
    assert_eq!(
        why(&json!({ "$ref": "#/$defs/none" })),
        Unusable::Invalid("it refers to what is not in it")
    );
}

#[test]
fn patterns_that_need_backtracking_are_not_supported_and_others_are_linear() {
    assert_eq!(
        why(&json!({ "pattern": "(?=a)b" })),
        Unusable::Invalid("invalid in its dialect, or a pattern that is not supported")
    );
    let value = json!("a".repeat(5_000) + "!");
    let told = told(&json!({ "type": "string", "pattern": "^(a+)+$" }), &value);
    assert_eq!(told, [": expected text that matches `^(a+)+$`"]);
}

#[test]
fn large_patterns_are_not_compiled() {
    for schema in [
        json!({ "pattern": r"(\p{L}{99}){99}" }),
        json!({ "patternProperties": { r"(\p{L}{99}){99}": {} } }),
        json!({ "allOf": vec![json!({ "pattern": "a" }); 65] }),
    ] {
        assert!(matches!(why(&schema), Unusable::TooCostly(_)), "{schema}");
    }
    fits(&json!({ "pattern": r"^\w{1,64}@\d{1,9}$" }), &json!("a@1"));
}

#[test]
fn what_doubles_at_each_link_is_not_used() {
    let mut links = serde_json::Map::new();
    for link in 0..30 {
        let next = json!({ "$ref": format!("#/$defs/{}", link + 1) });
        links.insert(link.to_string(), json!({ "allOf": [next, next] }));
    }
    links.insert("30".to_owned(), json!({ "type": "object" }));
    let schema = json!({ "$ref": "#/$defs/0", "$defs": links });
    assert!(matches!(why(&schema), Unusable::TooCostly(_)));
}

#[test]
fn what_refers_to_itself_in_place_is_not_used() {
    for schema in [
        json!({ "$ref": "#" }),
        json!({ "anyOf": [{ "type": "string" }, { "$ref": "#" }] }),
        json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "not": { "$ref": "#/$defs/a" } } } }),
    ] {
        assert!(matches!(why(&schema), Unusable::TooCostly(_)), "{schema}");
    }
}

#[test]
fn a_long_chain_of_references_is_not_followed_onto_the_stack() {
    let mut links = serde_json::Map::new();
    for link in 0..2_000 {
        links.insert(
            link.to_string(),
            json!({ "$ref": format!("#/$defs/{}", link + 1) }),
        );
    }
    links.insert("2000".to_owned(), json!({}));
    let schema = json!({ "$ref": "#/$defs/0", "$defs": links });
    assert!(matches!(why(&schema), Unusable::TooCostly(_)));
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!({ "x": inner }))
}

#[test]
fn ordinary_recursion_is_checked_as_deep_as_the_stack_allows() {
    let any_json = json!({ "anyOf": [
        { "type": ["null", "boolean", "number", "string"] },
        { "type": "array", "items": { "$ref": "#" } },
        { "type": "object", "additionalProperties": { "$ref": "#" } },
    ] });
    let filter = json!({ "anyOf": [
        { "properties": { "and": { "items": { "$ref": "#" } } } },
        { "properties": { "or": { "items": { "$ref": "#" } } } },
        { "properties": { "not": { "$ref": "#" } } },
    ] });
    for schema in [any_json, filter] {
        fits(&schema, &nested(24));
    }
    let flat = json!({ "type": "object", "additionalProperties": true });
    fits(&flat, &nested(64));
}

#[test]
fn recursion_that_multiplies_is_checked_only_as_deep_as_time_allows() {
    let schema = json!({ "allOf": [
        { "additionalProperties": { "$ref": "#" } },
        { "additionalProperties": { "$ref": "#" } },
        { "additionalProperties": { "$ref": "#" } },
    ] });
    fits(&schema, &nested(4));
    assert!(matches!(
        verdict(&schema, &nested(40)),
        Verdict::Unchecked(_)
    ));
}

#[test]
fn the_deepest_permitted_stack_fits_a_small_one() {
    let links = |last: u32| {
        let mut links = serde_json::Map::new();
        for link in 0..last {
            let next = json!({ "$ref": format!("#/$defs/{}", link + 1) });
            links.insert(link.to_string(), json!({ "oneOf": [next] }));
        }
        links.insert(last.to_string(), json!({ "type": "string" }));
        json!({ "$ref": "#/$defs/0", "$defs": links })
    };
    let run = move || {
        let deepest = links(STACK_MAX / 2 - 1);
        assert!(matches!(verdict(&deepest, &json!(1)), Verdict::Violates(_)));
        assert!(matches!(why(&links(STACK_MAX / 2)), Unusable::TooCostly(_)));
        let nested = (0..30).fold(json!({}), |inner, _| json!({ "items": inner }));
        verdict(&nested, &json!([]));
    };
    // Frames are several times larger without optimisation than with it.
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    thread.spawn(run).unwrap().join().unwrap();
}

#[test]
fn the_bounds_on_size_hold() {
    let large = json!({ "description": "x".repeat(SCHEMA_MAX) });
    assert_eq!(why(&large), Unusable::TooLarge);
    let value = json!("x".repeat(INSTANCE_MAX));
    assert!(matches!(
        verdict(&json!({ "type": "string" }), &value),
        Verdict::Unchecked(_)
    ));
    let wide = json!({ "allOf": vec![json!({ "minProperties": 1 }); VISITS_MAX as usize] });
    assert!(matches!(
        why(&wide),
        Unusable::TooLarge | Unusable::TooCostly(_)
    ));
}

#[test]
fn a_schema_is_compiled_once_and_its_defects_told_once() {
    let memory = Memory::default();
    let broken = Document::new(&raw(&json!({ "$ref": "#/nowhere" })));
    for first in [true, false, false] {
        let told = unusable(&memory, &broken);
        assert_eq!(told.map(|(_, first)| first), Some(first));
    }
    assert_eq!(memory.compiled.borrow().len(), 1);
    for n in 0..KEPT_MAX + 10 {
        let document = Document::new(&raw(&json!({ "minProperties": n })));
        check(&memory, &document, &raw(&json!({})));
        assert!(memory.compiled.borrow().len() <= KEPT_MAX);
    }
}
