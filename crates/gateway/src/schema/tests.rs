//! Values against schemas, and schemas that want too much.

use serde_json::{Value, json};

use super::evaluate::STACK_MAX;
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
    let verdict = verdict(schema, value);
    let Verdict::Violates(all) = verdict else {
        panic!("{schema} {value}: {verdict:?}");
    };
    let lines = all.iter().map(|v| format!("{}: {}", v.at, v.expected));
    lines.collect()
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
    let verdict = verdict(schema, &json!({}));
    let Verdict::Unusable { why, first: true } = verdict else {
        panic!("{schema}: {verdict:?}");
    };
    why
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
        json!({ "propertyNames": {}, "type": ["null", "object"] }),
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
            ["/0: expected string, not number"]
        );
        fits(&items(dialect), &json!(["a", 1]));
    }
    // An array of items is not a schema of 2020-12, which is the dialect where none is named.
    for schema in [
        items("https://json-schema.org/draft/2020-12/schema"),
        json!({ "items": [{ "type": "string" }] }),
    ] {
        let reason = "a subschema that is none".to_owned();
        assert_eq!(why(&schema), Unusable::Invalid(reason));
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
        for format in ["ipv4", "email", "date-time", "uuid", "uri", "regex"] {
            fits(
                &json!({ "$schema": dialect, "format": format }),
                &json!("neither fish nor flesh ("),
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
    let meta = json!({ "properties": { "schema": { "$ref": "https://json-schema.org/draft/2020-12/schema" } } });
    fits(&meta, &json!({ "schema": { "type": "object" } }));
    assert_eq!(
        told(&meta, &json!({ "schema": [] })),
        ["/schema: expected a JSON Schema"]
    );
    for reference in [
        "https://example.com/other.json",
        "http://127.0.0.1/x",
        "file:///etc/passwd",
        "other.json",
    ] {
        assert_eq!(
            why(&json!({ "properties": { "a": { "$ref": reference } } })),
            Unusable::Invalid("it refers to another document".to_owned()),
            "{reference}"
        );
    }
    assert_eq!(
        why(&json!({ "$ref": "#/$defs/none" })),
        Unusable::Invalid("it refers to what is not in it".to_owned())
    );
}

#[test]
fn patterns_that_need_backtracking_are_not_supported_and_others_are_linear() {
    let unsupported = Unusable::Invalid("a pattern that is not supported".to_owned());
    for pattern in ["(?=a)b", r"(a)\1", "("] {
        assert_eq!(
            why(&json!({ "pattern": pattern })),
            unsupported,
            "{pattern}"
        );
    }
    let value = json!("a".repeat(5_000) + "!");
    let told = told(&json!({ "type": "string", "pattern": "^(a+)+$" }), &value);
    assert_eq!(told, [": expected text that matches `^(a+)+$`"]);
    let long = json!("a".repeat(900_000));
    let slow = json!({ "pattern": format!("^{}$", "(a|b)*".repeat(50)) });
    assert!(matches!(verdict(&slow, &long), Verdict::Unchecked(_)));
}

#[test]
fn large_patterns_are_not_compiled() {
    for schema in [
        json!({ "pattern": "(.{99}){99}" }),
        json!({ "patternProperties": { "(.{99}){99}": {} } }),
        json!({ "allOf": (0..200).map(|n| json!({ "pattern": format!("a{n}") })).collect::<Vec<_>>() }),
    ] {
        assert!(matches!(why(&schema), Unusable::Invalid(_)), "{schema}");
    }
    fits(&json!({ "pattern": r"^\w{1,64}@\d{1,9}$" }), &json!("a@1"));
}

/// A schema of links, each of which holds references to the next.
fn links(count: usize, link: impl Fn(Value) -> Value) -> Value {
    let mut links = serde_json::Map::new();
    for n in 0..count {
        let next = json!({ "$ref": format!("#/$defs/{}", n + 1) });
        links.insert(n.to_string(), link(next));
    }
    links.insert(count.to_string(), json!({ "type": "object" }));
    json!({ "$ref": "#/$defs/0", "$defs": links })
}

#[test]
fn a_check_that_takes_too_long_ends_without_a_verdict() {
    let doubling = links(40, |next| json!({ "allOf": [next, next] }));
    assert!(matches!(
        verdict(&doubling, &json!({})),
        Verdict::Unchecked(_)
    ));
    let multiplying = json!({ "allOf": [
        { "additionalProperties": { "$ref": "#" } },
        { "additionalProperties": { "$ref": "#" } },
        { "additionalProperties": { "$ref": "#" } },
    ] });
    fits(&multiplying, &nested(6));
    assert!(matches!(
        verdict(&multiplying, &nested(50)),
        Verdict::Unchecked(_)
    ));
}

#[test]
fn what_refers_to_itself_without_end_ends_without_a_verdict() {
    for schema in [
        json!({ "$ref": "#" }),
        json!({ "allOf": [{ "$ref": "#" }] }),
        json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "not": { "$ref": "#/$defs/a" } } } }),
        links(2_000, |next| next),
    ] {
        let verdict = verdict(&schema, &json!({}));
        assert!(matches!(verdict, Verdict::Unchecked(_)), "{verdict:?}");
    }
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!({ "x": inner }))
}

#[test]
fn ordinary_recursion_is_checked_as_deep_as_anything_comes() {
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
    for schema in [any_json, filter, json!({ "type": "object" })] {
        fits(&schema, &nested(64));
    }
}

#[test]
fn the_deepest_permitted_stack_fits_a_small_one() {
    let run = || {
        let deep = |count| links(count, |next| json!({ "oneOf": [{ "anyOf": [next] }] }));
        let most = (STACK_MAX - 2) / 3;
        fits(&deep(most), &json!({}));
        assert!(matches!(
            verdict(&deep(most + 1), &json!({})),
            Verdict::Unchecked(_)
        ));
        let schema = (0..30).fold(json!({}), |inner, _| json!({ "items": inner }));
        fits(&schema, &json!([]));
    };
    // Half of what a wasm module has, and frames are larger without optimisation.
    let thread = std::thread::Builder::new().stack_size(512 * 1024);
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

/// Schemas and values from a generator of our own, judged by another evaluator, too.
#[test]
fn verdicts_are_those_of_another_evaluator() {
    let mut random = Random(7);
    let mut checked = 0;
    for round in 0..4_000 {
        let mut schema = random.schema(3);
        if round % 3 == 0 {
            schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
        }
        schema["$defs"] = json!({ "a": random.schema(1), "b": random.schema(1) });
        let Ok(other) = jsonschema::options()
            .should_validate_formats(false)
            .build(&schema)
        else {
            continue;
        };
        for _ in 0..4 {
            let value = random.value(3);
            let expected = other.is_valid(&value);
            let verdict = verdict(&schema, &value);
            if let Verdict::Unchecked(_) = verdict {
                // It refers to itself at one place.
                continue;
            }
            let fits = matches!(verdict, Verdict::Fits);
            assert_eq!(fits, expected, "{schema} {value} {verdict:?}");
            checked += 1;
        }
    }
    assert!(checked > 8_000, "{checked}");
}

/// Small numbers from a seed, for the same run each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn name(&mut self) -> &'static str {
        ["a", "b", "ab", "c"][self.below(4) as usize]
    }

    fn value(&mut self, depth: u64) -> Value {
        match self.below(if depth == 0 { 5 } else { 9 }) {
            0 => json!(null),
            1 => json!(self.below(2) == 0),
            2 => json!(self.below(5)),
            3 => json!(self.below(8) as f64 / 2.0),
            4 => json!(self.name()),
            5 | 6 => (0..self.below(4)).map(|_| self.value(depth - 1)).collect(),
            _ => {
                let mut members = serde_json::Map::new();
                for _ in 0..self.below(4) {
                    members.insert(self.name().to_owned(), self.value(depth - 1));
                }
                Value::Object(members)
            }
        }
    }

    fn schema(&mut self, depth: u64) -> Value {
        let mut schema = json!({});
        for _ in 0..=self.below(3) {
            let (keyword, value) = self.keyword(depth);
            schema[keyword] = value;
        }
        schema
    }

    fn some(&mut self, depth: u64) -> Value {
        (0..=self.below(2)).map(|_| self.sub(depth)).collect()
    }

    fn sub(&mut self, depth: u64) -> Value {
        match self.below(8) {
            0 => json!(true),
            1 => json!(false),
            _ => self.schema(depth.saturating_sub(1)),
        }
    }

    fn keyword(&mut self, depth: u64) -> (&'static str, Value) {
        let types = [
            "null", "boolean", "integer", "number", "string", "array", "object",
        ];
        let small = self.below(4);
        match self.below(if depth == 0 { 15 } else { 32 }) {
            0 | 1 => ("type", json!(types[self.below(7) as usize])),
            2 => (
                "type",
                json!([types[small as usize], types[small as usize + 3]]),
            ),
            3 => ("enum", json!([self.value(1), self.value(1)])),
            4 => ("const", self.value(1)),
            5 => ("minimum", json!(small)),
            6 => ("exclusiveMaximum", json!(small as f64 / 2.0)),
            7 => ("multipleOf", json!((small + 1) as f64 / 2.0)),
            8 => ("minLength", json!(small)),
            9 => ("maxItems", json!(small)),
            10 => ("minProperties", json!(small)),
            11 => ("uniqueItems", json!(true)),
            12 => ("required", json!([self.name()])),
            13 => ("pattern", json!("^a")),
            14 => ("maxLength", json!(1)),
            15 | 16 => (
                "properties",
                json!({ self.name(): self.sub(depth), "b": self.sub(depth) }),
            ),
            17 => ("patternProperties", json!({ "^a": self.sub(depth) })),
            18 => ("additionalProperties", self.sub(depth)),
            19 => ("propertyNames", self.sub(depth)),
            20 => ("items", self.sub(depth)),
            21 => ("contains", self.sub(depth)),
            22 => ("allOf", self.some(depth)),
            23 => ("anyOf", self.some(depth)),
            24 => ("oneOf", self.some(depth)),
            25 => ("not", self.sub(depth)),
            26 => ("if", self.sub(depth)),
            27 => ("then", self.sub(depth)),
            28 => ("else", self.sub(depth)),
            29 => (
                "$ref",
                json!(["#/$defs/a", "#/$defs/b"][small as usize % 2]),
            ),
            30 => ("unevaluatedProperties", self.sub(depth)),
            _ => ("prefixItems", self.some(depth)),
        }
    }
}
