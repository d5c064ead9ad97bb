//! What is read, where it is said to be, and what is refused.

use serde_json::json;

use super::*;

fn value(node: &Node) -> Value {
    match &node.content {
        Content::Scalar(value) => value.clone(),
        Content::List(items) => items.iter().map(value).collect(),
        Content::Map(fields) => fields
            .iter()
            .map(|(key, field)| (key.clone(), value(&field.node)))
            .collect(),
    }
}

fn refused(text: &str) -> Vec<(usize, usize, String)> {
    let found = parse(text, 0).expect_err(text);
    found
        .into_iter()
        .map(|f| (f.place.line, f.place.column, f.message))
        .collect()
}

#[test]
fn scalars_follow_the_core_schema() {
    for (text, expected) in [
        ("1", json!(1)),
        ("-7", json!(-7)),
        ("+7", json!(7)),
        ("0x1F", json!(31)),
        ("0o17", json!(15)),
        (
            "18446744073709551615",
            json!(18_446_744_073_709_551_615_u64),
        ),
        ("1.5", json!(1.5)),
        ("1e3", json!(1000.0)),
        ("true", json!(true)),
        ("yes", json!("yes")),
        ("off", json!("off")),
        ("~", json!(null)),
        ("", json!(null)),
        ("1.2.3", json!("1.2.3")),
        ("2026-07-28", json!("2026-07-28")),
        ("-", json!(["x"])),
        ("'1'", json!("1")),
        ("!!str 1", json!("1")),
        ("${secret:A}", json!("${secret:A}")),
        (
            "https://a.example.com/x#y",
            json!("https://a.example.com/x#y"),
        ),
    ] {
        let text = if text == "-" {
            "\n  - x".to_owned()
        } else {
            text.to_owned()
        };
        assert_eq!(
            value(&parse(&format!("a: {text}\n"), 0).unwrap()),
            json!({ "a": expected }),
            "{text}"
        );
    }
}

#[test]
fn anchors_aliases_and_merge_keys_are_expanded() {
    let text = "base: &b {x: 1, y: 2}\ncopy: *b\nchild: {<<: *b, y: 3}\nboth: {<<: [*b, {z: 4}]}\n";
    assert_eq!(
        value(&parse(text, 0).unwrap()),
        json!({
            "base": { "x": 1, "y": 2 }, "copy": { "x": 1, "y": 2 },
            "child": { "y": 3, "x": 1 }, "both": { "x": 1, "y": 2, "z": 4 }
        })
    );
}

#[test]
fn places_count_from_one_in_characters() {
    let node = parse("# ä\nä: {b: [1, 2]}\n", 3).unwrap();
    let Content::Map(fields) = &node.content else {
        panic!("a mapping")
    };
    assert_eq!(
        fields["ä"].place,
        Place {
            file: 3,
            line: 2,
            column: 1
        }
    );
    let Content::Map(inner) = &fields["ä"].node.content else {
        panic!("a mapping")
    };
    assert_eq!(
        inner["b"].place,
        Place {
            file: 3,
            line: 2,
            column: 5
        }
    );
    let Content::List(items) = &inner["b"].node.content else {
        panic!("a list")
    };
    assert_eq!(
        items[1].place,
        Place {
            file: 3,
            line: 2,
            column: 12
        }
    );
}

#[test]
fn every_duplicate_is_told_and_nothing_else_is_let_through() {
    assert_eq!(
        refused("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n"),
        [
            (4, 3, "the field is here twice, first on line 3".to_owned()),
            (5, 1, "the field is here twice, first on line 1".to_owned()),
        ]
    );
    for (text, line, column, message) in [
        ("", 1, 1, "empty"),
        ("# nothing\n", 1, 1, "empty"),
        ("a: 1\n---\nb: 2\n", 3, 1, "second document"),
        ("a: [1\n", 2, 1, "not YAML"),
        ("a: 1\n b: 2\n", 2, 3, "not YAML"),
        ("a: *b\n", 1, 4, "not YAML"),
        ("a: &b [*b]\n", 1, 8, "inside its own anchor"),
        ("a: !!binary x\n", 1, 4, "tag"),
        ("a: !custom {}\n", 1, 4, "tag"),
        ("a: .inf\n", 1, 4, "JSON cannot hold"),
        ("a: -.Inf\n", 1, 4, "JSON cannot hold"),
        ("a: 0xFFFFFFFFFFFFFFFFFF\n", 1, 4, "JSON cannot hold"),
        ("[a]: 1\n", 1, 1, "field name"),
        ("<<: 1\n", 1, 1, "not a mapping"),
    ] {
        let found = refused(text);
        assert_eq!(found.len(), 1, "{text:?}: {found:?}");
        assert!(found[0].2.contains(message), "{text:?}: {found:?}");
        assert_eq!((found[0].0, found[0].1), (line, column), "{text:?}");
    }
}

#[test]
fn an_unquoted_reference_in_braces_gets_its_own_remedy() {
    let found = parse("c: { type: bearer, token: ${secret:A} }\n", 0).unwrap_err();
    assert!(found[0].remedy.contains("quotes"), "{found:?}");
}

#[test]
fn size_is_bounded_after_aliases_and_in_depth() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    assert!(refused(&bomb)[0].2.contains("too many values"));
    for depth in [DEPTH_MAX + 2, 50_000] {
        for deep in [
            format!("{}{}", "[".repeat(depth), "]".repeat(depth)),
            "- ".repeat(depth),
        ] {
            let found = refused(&deep);
            // Far beyond our own bound the scanner's comes first.
            let bounded = found[0].2.contains("too deeply") || found[0].2.contains("recursion");
            assert!(bounded, "{depth}: {found:?}");
        }
    }
}
