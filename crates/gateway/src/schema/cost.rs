//! What checking against a schema can cost, found out before it is done.
//!
//! A schema that applies several subschemas to one place multiplies the work at each level
//! of nesting when it also refers to itself, and a chain of references alone can double it
//! at each link. So the schema is read as a graph: from each subschema to those it applies
//! *here* (to the same value) and to those it applies *below*: to a member of some name, to
//! members of any name, or to items. For each depth the graph tells how often one place in a value of that
//! depth can be visited, and how deeply the visits can be stacked; the greatest depth
//! within [`VISITS_MAX`] and [`STACK_MAX`] is how deep a value may be.
//!
//! Both are upper bounds: the visits of one whole value are at most as many times its
//! places. Where a name could mean several subschemas, it is taken to mean all of them.
//! A schema that leads back to itself at one place has no end and is not used.

use std::collections::BTreeMap;
use std::rc::Rc;

use regex::RegexBuilder;
use serde_json::{Map, Value};

use super::Unusable;

/// Most visits of one place in a value; one takes about a microsecond.
pub(super) const VISITS_MAX: u32 = 4_096;
/// Most visits that are under way at once; each takes about 4 kB of the stack.
pub(super) const STACK_MAX: u32 = 96;
/// Deepest value that is checked: nothing deeper gets here.
const DEPTH_MAX: usize = tidegate_mcp::json::DEPTH_MAX;
/// Most patterns in one schema.
const PATTERNS_MAX: usize = 64;
/// Most bytes one compiled pattern may take.
const PATTERN_SIZE_MAX: usize = 256 * 1024;
/// Most subschemas in one schema.
const SUBSCHEMAS_MAX: usize = 4_096;
/// What a reference to a bundled meta-schema costs at each depth.
const META_VISITS: u32 = 32;

/// The deepest value that may be checked against `schema`.
pub(super) fn depth(schema: &Value) -> Result<usize, Unusable> {
    let mut graph = Graph::default();
    let root = graph.add(schema);
    graph.resolve(schema);
    if graph.patterns > PATTERNS_MAX {
        return Err(Unusable::TooCostly("too many patterns"));
    }
    if graph.large_pattern {
        return Err(Unusable::TooCostly("a pattern that is too large"));
    }
    if graph.nodes.len() > SUBSCHEMAS_MAX {
        return Err(Unusable::TooCostly("too many subschemas"));
    }
    let mut below = vec![Cost::default(); graph.nodes.len()];
    for depth in 0..=DEPTH_MAX {
        let costs = graph
            .costs(&below, depth > 0)
            .ok_or(Unusable::TooCostly("it refers to itself without end"))?;
        if costs[root].visits > VISITS_MAX || costs[root].stack > STACK_MAX {
            return depth
                .checked_sub(1)
                .ok_or(Unusable::TooCostly("too many subschemas for one value"));
        }
        if depth > 0 && costs == below {
            break;
        }
        below = costs;
    }
    Ok(DEPTH_MAX)
}

/// Whether a value is nested at most `depth` deep; a scalar is not nested.
pub(super) fn within(value: &Value, depth: usize) -> bool {
    match (value, depth.checked_sub(1)) {
        (Value::Array(items), Some(rest)) => items.iter().all(|item| within(item, rest)),
        (Value::Object(members), Some(rest)) => members.values().all(|member| within(member, rest)),
        (Value::Array(_) | Value::Object(_), None) => false,
        (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_), _) => true,
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Cost {
    visits: u32,
    stack: u32,
}

enum Visit<'a> {
    Not,
    UnderWay,
    Done(Rc<Visits<'a>>),
}

#[derive(Default)]
struct Node<'a> {
    here: Vec<usize>,
    named: Vec<(&'a str, usize)>,
    members: Vec<usize>,
    items: Vec<usize>,
    meta: bool,
}

/// What a visit comes to: here, and at each place below.
#[derive(Clone, Default)]
struct Visits<'a> {
    here: u32,
    named: BTreeMap<&'a str, u32>,
    members: u32,
    items: u32,
    stack: u32,
}

impl<'a> Visits<'a> {
    fn add(&mut self, other: &Self) {
        self.here = self.here.saturating_add(other.here);
        self.members = self.members.saturating_add(other.members);
        self.items = self.items.saturating_add(other.items);
        for (name, visits) in &other.named {
            let sum = self.named.entry(name).or_default();
            *sum = sum.saturating_add(*visits);
        }
    }

    /// A place below is an item or a member, and a member has one name.
    fn cost(&self) -> Cost {
        let named = self.named.values().max().copied().unwrap_or(0);
        let below = self.items.max(self.members.saturating_add(named));
        Cost {
            visits: self.here.saturating_add(below),
            stack: self.stack,
        }
    }
}

#[derive(Default)]
struct Graph<'a> {
    nodes: Vec<Node<'a>>,
    /// Nodes by the place of their text.
    places: BTreeMap<usize, usize>,
    /// Nodes by their anchors.
    anchors: BTreeMap<&'a str, Vec<usize>>,
    /// Subschemas that are resources of their own, by the last part of their identifiers.
    resources: Vec<(&'a str, &'a Value)>,
    references: Vec<(usize, &'a str)>,
    patterns: usize,
    large_pattern: bool,
}

impl<'a> Graph<'a> {
    /// The node of a subschema, with all that is in it.
    fn add(&mut self, schema: &'a Value) -> usize {
        let place = std::ptr::from_ref(schema).addr();
        if let Some(node) = self.places.get(&place) {
            return *node;
        }
        let node = self.nodes.len();
        self.nodes.push(Node::default());
        self.places.insert(place, node);
        if let Value::Object(keywords) = schema {
            for (keyword, value) in keywords {
                self.keyword(node, schema, keyword, value);
            }
        }
        node
    }

    fn keyword(&mut self, node: usize, schema: &'a Value, keyword: &'a str, value: &'a Value) {
        match (keyword, value) {
            ("$ref" | "$dynamicRef", Value::String(to)) => self.references.push((node, to)),
            ("$recursiveRef", _) => self.references.push((node, "#")),
            ("$anchor" | "$dynamicAnchor", Value::String(name)) => {
                self.anchors.entry(name).or_default().push(node);
            }
            ("$id" | "id", Value::String(id)) => match id.strip_prefix('#') {
                Some(name) => self.anchors.entry(name).or_default().push(node),
                None => self.resources.push((last_part(id), schema)),
            },
            ("not" | "if" | "then" | "else", _) => {
                let below = self.add(value);
                self.nodes[node].here.push(below);
            }
            ("allOf" | "anyOf" | "oneOf", Value::Array(all)) => {
                for one in all {
                    let below = self.add(one);
                    self.nodes[node].here.push(below);
                }
            }
            ("dependentSchemas" | "dependencies", Value::Object(all)) => {
                for one in all.values() {
                    let below = self.add(one);
                    self.nodes[node].here.push(below);
                }
            }
            ("properties", Value::Object(all)) => {
                for (name, one) in all {
                    let below = self.add(one);
                    self.nodes[node].named.push((name, below));
                }
            }
            ("patternProperties", Value::Object(all)) => {
                for (pattern, one) in all {
                    self.pattern(pattern);
                    let below = self.add(one);
                    self.nodes[node].members.push(below);
                }
            }
            ("additionalProperties" | "propertyNames" | "unevaluatedProperties", _) => {
                let below = self.add(value);
                self.nodes[node].members.push(below);
            }
            ("items" | "prefixItems", Value::Array(all)) => {
                for one in all {
                    let below = self.add(one);
                    self.nodes[node].items.push(below);
                }
            }
            ("items" | "additionalItems" | "contains" | "unevaluatedItems", _) => {
                let below = self.add(value);
                self.nodes[node].items.push(below);
            }
            ("$defs" | "definitions", Value::Object(all)) => self.add_all(all),
            ("pattern", Value::String(pattern)) => self.pattern(pattern),
            _ => {}
        }
    }

    fn add_all(&mut self, all: &'a Map<String, Value>) {
        for one in all.values() {
            self.add(one);
        }
    }

    /// A pattern may be short and yet take megabytes: `(\pL{99}){99}`.
    fn pattern(&mut self, pattern: &str) {
        self.patterns += 1;
        // These are ASCII in a schema, and would be counted as all of Unicode.
        let plain = pattern
            .replace(r"\d", "[0-9]")
            .replace(r"\w", "[A-Za-z0-9_]");
        let compiled = RegexBuilder::new(&plain)
            .size_limit(PATTERN_SIZE_MAX)
            .build();
        if let Err(regex::Error::CompiledTooBig(_)) = compiled {
            self.large_pattern = true;
        }
    }

    /// Follows the references; what they lead to may hold more of them.
    fn resolve(&mut self, document: &'a Value) {
        let mut done = 0;
        while let Some((node, to)) = self.references.get(done).copied() {
            done += 1;
            let (resource, fragment) = to.split_once('#').unwrap_or((to, ""));
            self.nodes[node].meta |= resource.contains("json-schema.org/");
            // Without a resource it is the enclosing one, whichever that is.
            let named = |id: &str| resource.is_empty() || id == last_part(resource);
            let mut bases: Vec<&'a Value> = self
                .resources
                .iter()
                .filter(|(id, _)| named(id))
                .map(|(_, base)| *base)
                .collect();
            if resource.is_empty() || bases.is_empty() {
                bases.push(document);
            }
            let Some(pointer) = percent_decoded(fragment) else {
                continue;
            };
            if !pointer.is_empty() && !pointer.starts_with('/') {
                let anchored = self.anchors.get(pointer.as_str()).cloned();
                self.nodes[node].here.extend(anchored.unwrap_or_default());
                continue;
            }
            for base in bases {
                if let Some(target) = base.pointer(&pointer) {
                    let target = self.add(target);
                    if !self.nodes[node].here.contains(&target) {
                        self.nodes[node].here.push(target);
                    }
                }
            }
        }
    }

    /// What a visit of each node costs, given what one costs at a level below; `None` where
    /// a visit would lead to itself.
    fn costs(&self, below: &[Cost], nested: bool) -> Option<Vec<Cost>> {
        let mut done: Vec<Visit<'a>> = self.nodes.iter().map(|_| Visit::Not).collect();
        (0..self.nodes.len())
            .map(|node| {
                let visits = self.visits(node, below, nested, &mut done, 0)?;
                Some(visits.cost())
            })
            .collect()
    }

    fn visits(
        &self,
        node: usize,
        below: &[Cost],
        nested: bool,
        done: &mut [Visit<'a>],
        chain: u32,
    ) -> Option<Rc<Visits<'a>>> {
        match &done[node] {
            Visit::Done(visits) => return Some(Rc::clone(visits)),
            Visit::UnderWay => return None,
            Visit::Not => {}
        }
        if chain > STACK_MAX {
            // Whoever leads here is over the bound already.
            return Some(Rc::new(Visits {
                stack: u32::MAX,
                ..Visits::default()
            }));
        }
        done[node] = Visit::UnderWay;
        let mut total = self.nodes[node].visits(below, nested);
        for here in &self.nodes[node].here {
            let visits = self.visits(*here, below, nested, done, chain + 1)?;
            total.add(&visits);
            total.stack = total.stack.max(visits.stack.saturating_add(1));
        }
        let total = Rc::new(total);
        done[node] = Visit::Done(Rc::clone(&total));
        Some(total)
    }
}

impl<'a> Node<'a> {
    /// A visit of this node, without what it applies here.
    fn visits(&self, below: &[Cost], nested: bool) -> Visits<'a> {
        let own = if self.meta { META_VISITS } else { 1 };
        let mut total = Visits {
            here: own,
            stack: own,
            ..Visits::default()
        };
        if !nested {
            return total;
        }
        let sum = |nodes: &[usize]| {
            let visits = nodes.iter().map(|node| below[*node].visits);
            visits.fold(0, u32::saturating_add)
        };
        total.members = sum(&self.members);
        total.items = sum(&self.items);
        for (name, node) in &self.named {
            total.named.insert(name, below[*node].visits);
        }
        let named = self.named.iter().map(|(_, node)| node);
        let every = named.chain(&self.members).chain(&self.items);
        let stack = every.map(|node| below[*node].stack).max().unwrap_or(0);
        total.stack = own.saturating_add(stack);
        total
    }
}

/// The last part of a URI's path: what a relative reference and the identifier it is
/// resolved to share.
fn last_part(uri: &str) -> &str {
    let path = uri.split(['#', '?']).next().unwrap_or_default();
    path.rsplit(['/', ':']).next().unwrap_or_default()
}

/// A URI fragment as text.
fn percent_decoded(fragment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok()
}
