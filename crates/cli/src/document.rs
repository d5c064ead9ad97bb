//! A parsed file as JSON, with the place of every value by its JSON pointer.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::finding::{Place, escape};
use crate::yaml::{Content, Node};

/// JSON and where each part of it was written.
pub struct Document {
    /// The whole as JSON.
    pub value: Value,
    places: BTreeMap<String, Place>,
}

impl Document {
    /// The JSON of a node. A field's place is its key's.
    pub fn of(node: &Node) -> Self {
        let mut places = BTreeMap::new();
        places.insert(String::new(), node.place);
        let value = collect(node, "", &mut places);
        Self { value, places }
    }

    /// Where `pointer` is written; for something missing, where it would belong.
    pub fn place(&self, pointer: &str) -> Place {
        let mut pointer = pointer;
        loop {
            if let Some(place) = self.places.get(pointer) {
                return *place;
            }
            match pointer.rsplit_once('/') {
                Some((parent, _)) => pointer = parent,
                None => {
                    return Place {
                        file: 0,
                        line: 1,
                        column: 1,
                    };
                }
            }
        }
    }
}

fn collect(node: &Node, pointer: &str, places: &mut BTreeMap<String, Place>) -> Value {
    match &node.content {
        Content::Scalar(value) => value.clone(),
        Content::List(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                let at = format!("{pointer}/{index}");
                places.insert(at.clone(), item.place);
                collect(item, &at, places)
            })
            .collect(),
        Content::Map(fields) => {
            let member = |(key, field): (&String, &crate::yaml::Field)| {
                let at = format!("{pointer}/{}", escape(key));
                places.insert(at.clone(), field.place);
                (key.clone(), collect(&field.node, &at, places))
            };
            fields.iter().map(member).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_placed_at_what_it_is_missing_from() {
        let document = Document::of(&crate::yaml::parse("a:\n  - b: 1\n", 0).unwrap());
        let line_and_column = |pointer: &str| {
            let place = document.place(pointer);
            (place.line, place.column)
        };
        assert_eq!(line_and_column("/a/0/b"), (2, 5));
        assert_eq!(line_and_column("/a/0/missing/deep"), (2, 5));
        assert_eq!(line_and_column("/a"), (1, 1));
        assert_eq!(line_and_column("/nowhere"), (1, 1));
    }
}
