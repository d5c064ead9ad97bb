//! Walking a value along its schema.
//!
//! Every step is counted: after [`STEPS_MAX`] or below [`STACK_MAX`] the walk stops without
//! a verdict, whatever a schema makes of references to itself.

mod parts;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Violation;
use super::assert;
use super::resolve::{Dialect, Resolved, Target, escaped, place};

/// Most subschemas applied, members looked at and bytes matched (in hundreds) for one
/// value; a step takes well under a microsecond.
pub(super) const STEPS_MAX: usize = 200_000;
/// Most subschemas under way at once: what the stack has room for.
pub(super) const STACK_MAX: usize = 300;
/// Most violations told of one value.
const VIOLATIONS_MAX: usize = 5;
/// Most forms told of which a value must have one.
const FORMS_MAX: usize = 3;
/// Most characters told of a path or of what was expected.
const SHOWN_MAX: usize = 200;

/// One value on its way.
pub(super) struct Walk<'v> {
    document: &'v Value,
    resolved: &'v Resolved,
    /// Where in the value it is.
    at: Vec<Part<'v>>,
    steps: usize,
    depth: usize,
    /// Above zero, only whether it fits is of interest.
    quiet: usize,
    pub(super) fits: bool,
    pub(super) stopped: Option<&'static str>,
    pub(super) found: Vec<Violation>,
}

enum Part<'v> {
    Member(&'v str),
    Item(usize),
}

/// What of a value some subschema has looked at, for those that ask what is left.
#[derive(Default)]
struct Seen<'v> {
    members: BTreeSet<&'v str>,
    all_members: bool,
    items: BTreeSet<usize>,
    /// So many from the start.
    first_items: usize,
    all_items: bool,
}

impl<'v> Seen<'v> {
    fn merge(&mut self, other: Self) {
        self.members.extend(other.members);
        self.all_members |= other.all_members;
        self.items.extend(other.items);
        self.first_items = self.first_items.max(other.first_items);
        self.all_items |= other.all_items;
    }
}

/// Walks `value`; the walk tells what came of it.
pub(super) fn walk<'v>(document: &'v Value, resolved: &'v Resolved, value: &'v Value) -> Walk<'v> {
    let mut walk = Walk {
        document,
        resolved,
        at: Vec::new(),
        steps: 0,
        depth: 0,
        quiet: 0,
        fits: true,
        stopped: None,
        found: Vec::new(),
    };
    walk.fits = walk.apply(document, value, &mut Seen::default());
    walk
}

impl<'v> Walk<'v> {
    /// Whether `value` fits `schema`.
    fn apply(&mut self, schema: &'v Value, value: &'v Value, seen: &mut Seen<'v>) -> bool {
        if !self.step(1) {
            return true;
        }
        let keywords = match schema {
            Value::Object(keywords) => keywords,
            Value::Bool(false) => {
                return self.violated("false", || "nothing is allowed here".to_owned());
            }
            Value::Bool(true)
            | Value::Null
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => return true,
        };
        if self.depth >= STACK_MAX {
            self.stopped = Some("its schema is nested too deeply for it");
            return true;
        }
        self.depth += 1;
        let fits = self.keywords(schema, keywords, value, seen);
        self.depth -= 1;
        fits
    }

    /// Counts steps; after too many nothing is looked at any more.
    fn step(&mut self, steps: usize) -> bool {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > STEPS_MAX {
            self.stopped = Some("its schema takes too long to check it");
        }
        self.stopped.is_none()
    }

    fn violated(&mut self, rule: &str, expected: impl FnOnce() -> String) -> bool {
        if self.quiet == 0 && self.found.len() < VIOLATIONS_MAX {
            let (at, expected) = (cut(self.pointer()), cut(expected()));
            let rule = rule.to_owned();
            self.found.push(Violation { at, expected, rule });
        }
        false
    }

    fn pointer(&self) -> String {
        let parts = self.at.iter().map(|part| match part {
            Part::Member(name) => format!("/{}", escaped(name)),
            Part::Item(index) => format!("/{index}"),
        });
        parts.collect()
    }

    /// Whether nobody needs to know more than that it does not fit.
    fn enough(&self, fits: bool) -> bool {
        !fits && self.quiet > 0 || self.stopped.is_some()
    }

    fn keywords(
        &mut self,
        schema: &'v Value,
        keywords: &'v Map<String, Value>,
        value: &'v Value,
        seen: &mut Seen<'v>,
    ) -> bool {
        let mut fits = true;
        if keywords.contains_key("$ref") {
            fits &= self.reference(schema, value, seen);
            if self.resolved.dialect <= Dialect::Draft7 {
                return fits;
            }
        }
        for (keyword, want) in keywords {
            if self.enough(fits) {
                return fits;
            }
            fits &= match assert::fault(keyword, want, keywords, value) {
                Some(fault) => self.violated(keyword, || fault),
                None => match value {
                    Value::Object(members) => {
                        self.object(keyword, want, keywords, members, value, seen)
                    }
                    Value::Array(items) => self.array(keyword, want, keywords, items, seen),
                    Value::String(text) => self.string(keyword, want, text),
                    Value::Null | Value::Bool(_) | Value::Number(_) => true,
                },
            };
            fits &= self.in_place(keyword, want, keywords, value, seen);
        }
        // What is left can be told only now.
        if self.resolved.unevaluated && !self.enough(fits) {
            fits &= self.leftovers(keywords, value, seen);
        }
        fits
    }

    fn reference(&mut self, schema: &'v Value, value: &'v Value, seen: &mut Seen<'v>) -> bool {
        match self.resolved.targets.get(&place(schema)) {
            Some(Target::Place(pointer)) => match self.document.pointer(pointer) {
                Some(target) => self.here(target, value, seen),
                None => true,
            },
            Some(Target::MetaSchema) if !value.is_object() && !value.is_boolean() => {
                self.violated("$ref", || "expected a JSON Schema".to_owned())
            }
            Some(Target::MetaSchema) | None => true,
        }
    }

    /// A subschema for the same value; what it has looked at counts if it fits.
    fn here(&mut self, schema: &'v Value, value: &'v Value, seen: &mut Seen<'v>) -> bool {
        let mut own = Seen::default();
        let fits = self.apply(schema, value, &mut own);
        if fits {
            seen.merge(own);
        }
        fits
    }

    /// [`Self::here`], where the outcome is no violation in itself.
    fn quietly(&mut self, schema: &'v Value, value: &'v Value, seen: &mut Seen<'v>) -> bool {
        self.quiet += 1;
        let fits = self.here(schema, value, seen);
        self.quiet -= 1;
        fits
    }

    /// A subschema for a part of the value.
    fn below(&mut self, part: Part<'v>, schema: &'v Value, value: &'v Value) -> bool {
        self.at.push(part);
        let fits = self.apply(schema, value, &mut Seen::default());
        self.at.pop();
        fits
    }

    fn in_place(
        &mut self,
        keyword: &str,
        want: &'v Value,
        beside: &'v Map<String, Value>,
        value: &'v Value,
        seen: &mut Seen<'v>,
    ) -> bool {
        match (keyword, want) {
            ("allOf", Value::Array(all)) => {
                let mut fits = true;
                for one in all {
                    if !self.enough(fits) {
                        fits &= self.here(one, value, seen);
                    }
                }
                fits
            }
            ("anyOf", Value::Array(all)) => self.forms("anyOf", all, value, seen),
            ("oneOf", Value::Array(all)) => self.forms("oneOf", all, value, seen),
            ("not", _) => {
                !self.quietly(want, value, &mut Seen::default())
                    || self.stopped.is_some()
                    || self.violated("not", || "fits what is not allowed".to_owned())
            }
            ("if", _) => {
                let then = match self.quietly(want, value, seen) {
                    true => "then",
                    false => "else",
                };
                match beside.get(then) {
                    Some(then) => self.here(then, value, seen),
                    None => true,
                }
            }
            _ => true,
        }
    }

    /// `anyOf` and `oneOf`: of several forms a value must have one.
    fn forms(
        &mut self,
        keyword: &'static str,
        all: &'v [Value],
        value: &'v Value,
        seen: &mut Seen<'v>,
    ) -> bool {
        let exactly_one = keyword == "oneOf";
        let outer = std::mem::take(&mut self.found);
        let (mut fitting, mut told) = (0, Vec::new());
        for one in all {
            if self.stopped.is_some()
                || fitting > 1
                || fitting == 1 && self.goes_by_first(exactly_one)
            {
                break;
            }
            if self.here(one, value, seen) {
                fitting += 1;
            } else if let Some(first) = self.found.first() {
                told.push((first.at.clone(), first.expected.clone()));
            }
            self.found.clear();
        }
        self.found = outer;
        match fitting {
            _ if self.stopped.is_some() => true,
            0 => {
                let here = cut(self.pointer());
                self.violated(keyword, || none_of(&here, told))
            }
            1 => true,
            _ if exactly_one => self.violated(keyword, || {
                "fits several of the allowed forms; expected exactly one".to_owned()
            }),
            _ => true,
        }
    }

    /// Whether the first form that fits settles it.
    fn goes_by_first(&self, exactly_one: bool) -> bool {
        !exactly_one && !self.resolved.unevaluated
    }
}

/// What each of the forms misses, of which a value must have one.
fn none_of(here: &str, told: Vec<(String, String)>) -> String {
    let mut forms: Vec<String> = Vec::new();
    for (at, expected) in told {
        let form = match at.strip_prefix(here) {
            Some("") | None => expected,
            Some(deeper) => format!("{expected} at {deeper}"),
        };
        if forms.len() < FORMS_MAX && !forms.contains(&form) {
            forms.push(form);
        }
    }
    format!("fits none of the allowed forms ({})", forms.join("; "))
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(SHOWN_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}
