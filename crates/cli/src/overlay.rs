//! Merging an environment's overlay into the base file.
//!
//! Mappings merge field by field and `null` removes a field. The lists of named things
//! (`upstreams` and `tools` by `name`, issuers by `issuer`) merge entry by entry, new
//! entries last; every other list is replaced. A mapping whose `type` differs is another
//! thing altogether and is replaced. Every value keeps the place it was written in.

use serde_json::Value;

use crate::yaml::{Content, Field, Node};

/// The lists whose entries have a name, by the fields that lead to them.
const NAMED_LISTS: [(&[&str], &str); 3] = [
    (&["upstreams"], "name"),
    (&["tools"], "name"),
    (&["authentication", "issuers"], "issuer"),
];

/// The base with the overlay's changes.
pub fn merge(base: Node, overlay: Node) -> Node {
    merge_at(base, overlay, &mut Vec::new())
}

fn merge_at(base: Node, overlay: Node, path: &mut Vec<String>) -> Node {
    let place = overlay.place;
    match (base.content, overlay.content) {
        (Content::Map(mut fields), Content::Map(changes)) if same_type(&fields, &changes) => {
            for (key, change) in changes {
                if is_null(&change.node) {
                    fields.shift_remove(&key);
                    continue;
                }
                path.push(key.clone());
                let field = match fields.get(&key).cloned() {
                    Some(field) => Field {
                        place: change.place,
                        node: merge_at(field.node, change.node, path),
                    },
                    None => Field {
                        place: change.place,
                        node: without_nulls(change.node),
                    },
                };
                path.pop();
                fields.insert(key, field);
            }
            Node {
                place: base.place,
                content: Content::Map(fields),
            }
        }
        (Content::List(items), Content::List(changes)) => {
            let content = match named_by(path) {
                Some(name) => Content::List(merge_named(items, changes, name, path)),
                None => Content::List(changes.into_iter().map(without_nulls).collect()),
            };
            Node { place, content }
        }
        (_, content) => without_nulls(Node { place, content }),
    }
}

fn merge_named(
    mut items: Vec<Node>,
    changes: Vec<Node>,
    name: &str,
    path: &mut Vec<String>,
) -> Vec<Node> {
    // Entries have no place among the lists of `NAMED_LISTS`, so nothing below them matches.
    path.push(String::new());
    for change in changes {
        let same = |item: &&mut Node| {
            named(item, name).is_some() && named(item, name) == named(&change, name)
        };
        match items.iter_mut().find(same) {
            Some(item) => *item = merge_at(item.clone(), change, path),
            None => items.push(without_nulls(change)),
        }
    }
    path.pop();
    items
}

fn named_by(path: &[String]) -> Option<&'static str> {
    NAMED_LISTS
        .iter()
        .find(|(fields, _)| path == *fields)
        .map(|(_, name)| *name)
}

fn named(node: &Node, name: &str) -> Option<String> {
    match &node.content {
        Content::Map(fields) => text(fields.get(name)),
        Content::List(_) | Content::Scalar(_) => None,
    }
}

fn text(field: Option<&Field>) -> Option<String> {
    match field.map(|field| &field.node.content) {
        Some(Content::Scalar(Value::String(text))) => Some(text.clone()),
        Some(Content::Scalar(_) | Content::List(_) | Content::Map(_)) | None => None,
    }
}

fn same_type(
    fields: &indexmap::IndexMap<String, Field>,
    changes: &indexmap::IndexMap<String, Field>,
) -> bool {
    match (text(fields.get("type")), text(changes.get("type"))) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}

fn is_null(node: &Node) -> bool {
    matches!(node.content, Content::Scalar(Value::Null))
}

/// In an overlay `null` means "not there", also where the base has nothing to remove.
fn without_nulls(node: Node) -> Node {
    let content = match node.content {
        Content::Map(fields) => Content::Map(
            fields
                .into_iter()
                .filter(|(_, field)| !is_null(&field.node))
                .map(|(key, field)| {
                    (
                        key,
                        Field {
                            place: field.place,
                            node: without_nulls(field.node),
                        },
                    )
                })
                .collect(),
        ),
        Content::List(items) => Content::List(items.into_iter().map(without_nulls).collect()),
        Content::Scalar(value) => Content::Scalar(value),
    };
    Node {
        place: node.place,
        content,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::document::Document;
    use crate::yaml;

    fn check(base: &str, overlay: &str, expected: Value) {
        let merged = merge(
            yaml::parse(base, 0).unwrap(),
            yaml::parse(overlay, 1).unwrap(),
        );
        assert_eq!(Document::of(&merged).value, expected, "{overlay}");
    }

    #[test]
    fn mappings_merge_and_null_removes() {
        let base = "metadata: {name: a, owner: b}\nlimits: {perClient: {requests: 1}}\n";
        check(
            base,
            "metadata: {owner: null, contact: c, nothing: ~}\nlimits: {perClient: {requests: 2}}\n",
            json!({ "metadata": { "name": "a", "contact": "c" }, "limits": { "perClient": { "requests": 2 } } }),
        );
        check(
            base,
            "limits: ~\n",
            json!({ "metadata": { "name": "a", "owner": "b" } }),
        );
        check(
            base,
            "audit: {x: {y: ~, z: 1}}\nlimits: ~\nmetadata: ~\n",
            json!({ "audit": { "x": { "z": 1 } } }),
        );
    }

    #[test]
    fn lists_of_named_things_merge_by_name_and_others_are_replaced() {
        check(
            "upstreams:\n- {name: a, url: 1, era: legacy}\n- {name: b, url: 2}\nallowedOrigins: [x, y]\n",
            "upstreams:\n- {name: c, url: 3}\n- {name: a, url: 9, era: ~}\nallowedOrigins: [z]\n",
            json!({
                "upstreams": [{ "name": "a", "url": 9 }, { "name": "b", "url": 2 }, { "name": "c", "url": 3 }],
                "allowedOrigins": ["z"]
            }),
        );
        check(
            "tools: [{name: a__b, requiredRoles: [r, s]}]\n",
            "tools: [{name: a__b, requiredRoles: [t]}]\n",
            json!({ "tools": [{ "name": "a__b", "requiredRoles": ["t"] }] }),
        );
        check(
            "authentication: {type: jwt, issuers: [{issuer: i, jwksUri: a}, {issuer: j, jwksUri: b}]}\n",
            "authentication: {issuers: [{issuer: j, jwksUri: c}]}\n",
            json!({ "authentication": { "type": "jwt", "issuers": [
                { "issuer": "i", "jwksUri": "a" }, { "issuer": "j", "jwksUri": "c" }
            ] } }),
        );
    }

    #[test]
    fn another_type_is_another_thing() {
        check(
            "authentication: {type: none}\nupstreams: [{name: a, credentials: {type: bearer, token: t}}]\n",
            "authentication: {type: jwt, issuers: []}\n\
             upstreams: [{name: a, credentials: {type: header, name: n, value: v}}]\n",
            json!({
                "authentication": { "type": "jwt", "issuers": [] },
                "upstreams": [{ "name": "a", "credentials": { "type": "header", "name": "n", "value": "v" } }]
            }),
        );
    }

    #[test]
    fn every_value_keeps_the_file_it_was_written_in() {
        let base = yaml::parse("upstreams:\n- {name: a, url: 1, era: x}\n", 0).unwrap();
        let overlay = yaml::parse("\nupstreams:\n- {name: a, url: 2}\n", 1).unwrap();
        let document = Document::of(&merge(base, overlay));
        let at = |pointer: &str| document.place(pointer);
        assert_eq!(
            (at("/upstreams/0/era").file, at("/upstreams/0/era").line),
            (0, 2)
        );
        assert_eq!(
            (at("/upstreams/0/url").file, at("/upstreams/0/url").line),
            (1, 3)
        );
    }
}
