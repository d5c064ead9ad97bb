//! The keywords that look at members, items and text.

use serde_json::{Map, Value};

use super::super::assert::{self, count, properties};
use super::super::resolve::Dialect;
use super::{Part, Seen, Walk};

/// Bytes of text matched with a pattern in one step.
const MATCHED_PER_STEP: usize = 100;

impl<'v> Walk<'v> {
    pub(super) fn object(
        &mut self,
        keyword: &str,
        want: &'v Value,
        beside: &'v Map<String, Value>,
        members: &'v Map<String, Value>,
        value: &'v Value,
        seen: &mut Seen<'v>,
    ) -> bool {
        let mut fits = true;
        match (keyword, want) {
            ("properties", Value::Object(all)) => {
                for (name, schema) in all {
                    if let Some((name, member)) = members.get_key_value(name) {
                        seen.members.insert(name);
                        fits &= self.below(Part::Member(name), schema, member);
                    }
                }
            }
            ("patternProperties", Value::Object(all)) => {
                for (pattern, schema) in all {
                    for (name, member) in members {
                        if self.matches(pattern, name) {
                            seen.members.insert(name);
                            fits &= self.below(Part::Member(name), schema, member);
                        }
                    }
                }
            }
            ("additionalProperties", _) => {
                let mut unknown = Vec::new();
                for (name, member) in members {
                    if !self.step(1) || self.named(beside, name) {
                        continue;
                    }
                    if want == &Value::Bool(false) {
                        unknown.push(name.as_str());
                    } else {
                        fits &= self.below(Part::Member(name), want, member);
                    }
                }
                seen.all_members = true;
                if !unknown.is_empty() {
                    fits &= self.violated(keyword, || format!("unknown {}", properties(&unknown)));
                }
            }
            ("propertyNames", _) => {
                for name in members.keys() {
                    if !self.name_fits(want, name) {
                        fits &= self.violated(keyword, || {
                            format!("`{name}` is not an allowed property name")
                        });
                    }
                }
            }
            ("dependentSchemas" | "dependencies", Value::Object(all)) => {
                for (name, schema) in all {
                    if members.contains_key(name) && !schema.is_array() {
                        fits &= self.here(schema, value, seen);
                    }
                }
            }
            _ => {}
        }
        fits
    }

    /// Whether `properties` or `patternProperties` speak of a member.
    fn named(&mut self, keywords: &'v Map<String, Value>, name: &str) -> bool {
        let own = keywords.get("properties").and_then(Value::as_object);
        if own.is_some_and(|own| own.contains_key(name)) {
            return true;
        }
        let patterns = keywords.get("patternProperties").and_then(Value::as_object);
        let mut patterns = patterns.into_iter().flat_map(Map::keys);
        patterns.any(|pattern| self.matches(pattern, name))
    }

    /// Whether a member may have this name.
    fn name_fits(&mut self, schema: &Value, name: &str) -> bool {
        let name = Value::from(name);
        let mut inner = Walk {
            document: self.document,
            resolved: self.resolved,
            at: Vec::new(),
            steps: self.steps,
            depth: self.depth,
            quiet: 1,
            fits: true,
            stopped: None,
            found: Vec::new(),
        };
        let fits = inner.apply(schema, &name, &mut Seen::default());
        (self.steps, self.stopped) = (inner.steps, inner.stopped);
        fits
    }

    pub(super) fn array(
        &mut self,
        keyword: &str,
        want: &'v Value,
        beside: &'v Map<String, Value>,
        items: &'v [Value],
        seen: &mut Seen<'v>,
    ) -> bool {
        let old = self.resolved.dialect <= Dialect::Draft2019;
        let listed = if old { "items" } else { "prefixItems" };
        let listed = beside.get(listed).and_then(Value::as_array);
        let first = listed.map_or(0, Vec::len);
        let mut fits = true;
        match (keyword, want) {
            ("prefixItems", Value::Array(all)) if !old => {
                seen.first_items = seen.first_items.max(all.len());
                for (index, (schema, item)) in all.iter().zip(items).enumerate() {
                    fits &= self.below(Part::Item(index), schema, item);
                }
            }
            ("items", Value::Array(all)) if old => {
                seen.first_items = seen.first_items.max(all.len());
                for (index, (schema, item)) in all.iter().zip(items).enumerate() {
                    fits &= self.below(Part::Item(index), schema, item);
                }
            }
            ("items", _) | ("additionalItems", _)
                if keyword == "items" || old && listed.is_some() =>
            {
                seen.all_items = true;
                for (index, item) in items.iter().enumerate().skip(first) {
                    if self.enough(fits) {
                        break;
                    }
                    fits &= self.below(Part::Item(index), want, item);
                }
            }
            ("contains", _) => fits = self.contains(want, beside, items, seen),
            ("uniqueItems", Value::Bool(true)) if self.step(items.len()) => {
                if let Some((one, other)) = assert::repeated(items) {
                    fits = self.violated(keyword, || {
                        format!("items {one} and {other} are equal; expected unique items")
                    });
                }
            }
            _ => {}
        }
        fits
    }

    fn contains(
        &mut self,
        want: &'v Value,
        beside: &'v Map<String, Value>,
        items: &'v [Value],
        seen: &mut Seen<'v>,
    ) -> bool {
        let mut matching = 0;
        for (index, item) in items.iter().enumerate() {
            if self.quietly(want, item, &mut Seen::default()) {
                matching += 1;
                if self.resolved.dialect == Dialect::Draft2020 {
                    seen.items.insert(index);
                }
            }
        }
        if self.stopped.is_some() {
            return true;
        }
        let bound = |name| beside.get(name).and_then(count);
        let bounded = self.resolved.dialect >= Dialect::Draft2019;
        let least = bound("minContains").filter(|_| bounded).unwrap_or(1);
        if matching < least {
            return self.violated("contains", || {
                format!("expected at least {least} matching items")
            });
        }
        match bound("maxContains").filter(|_| bounded) {
            Some(most) if matching > most => self.violated("maxContains", || {
                format!("expected at most {most} matching items")
            }),
            Some(_) | None => true,
        }
    }

    pub(super) fn string(&mut self, keyword: &str, want: &'v Value, text: &str) -> bool {
        match (keyword, want) {
            ("pattern", Value::String(pattern)) => {
                self.matches(pattern, text)
                    || self.stopped.is_some()
                    || self.violated(keyword, || {
                        format!("expected text that matches `{pattern}`")
                    })
            }
            _ => true,
        }
    }

    /// Whether a text matches; how long that takes grows with the text and the pattern.
    fn matches(&mut self, pattern: &str, text: &str) -> bool {
        let work = text.len().saturating_mul(pattern.len().max(1));
        if !self.step(1 + work / MATCHED_PER_STEP) {
            return false;
        }
        let compiled = self.resolved.patterns.get(pattern);
        compiled.is_some_and(|compiled| compiled.is_match(text))
    }

    /// `unevaluatedProperties` and `unevaluatedItems`.
    pub(super) fn leftovers(
        &mut self,
        keywords: &'v Map<String, Value>,
        value: &'v Value,
        seen: &mut Seen<'v>,
    ) -> bool {
        let mut fits = true;
        let left = (keywords.get("unevaluatedProperties"), value.as_object());
        if let (Some(want), Some(members)) = left {
            for (name, member) in members {
                if !seen.all_members && !seen.members.contains(name.as_str()) {
                    fits &= self.below(Part::Member(name), want, member);
                }
            }
            seen.all_members = true;
        }
        let left = (keywords.get("unevaluatedItems"), value.as_array());
        if let (Some(want), Some(items)) = left {
            for (index, item) in items.iter().enumerate().skip(seen.first_items) {
                if !seen.all_items && !seen.items.contains(&index) {
                    fits &= self.below(Part::Item(index), want, item);
                }
            }
            seen.all_items = true;
        }
        fits
    }
}
