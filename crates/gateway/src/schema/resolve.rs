//! Reading a schema once: its dialect, where its references lead, its patterns, and
//! whether its keywords are well formed.
//!
//! References resolve within the document alone: by pointer, by anchor, and to resources
//! embedded in it. One to a meta-schema asks for a schema, whatever is in it.

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::{Regex, RegexBuilder};
use serde_json::{Map, Value};
use url::Url;

use super::Unusable;

/// Where a document without an `$id` is.
const BASE: &str = "https://schema.invalid/tool";
/// Most patterns in one schema.
const PATTERNS_MAX: usize = 128;
/// Most bytes one compiled pattern may take: `(.{99}){99}` is short, too.
const PATTERN_SIZE_MAX: usize = 64 * 1024;

/// The dialects, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dialect {
    /// `id` names a resource; exclusive bounds are flags.
    Draft4,
    /// Drafts 6 and 7: `$ref` replaces what is beside it.
    Draft7,
    /// `items` may be a list.
    Draft2019,
    /// `prefixItems`.
    Draft2020,
}

impl Dialect {
    /// The dialect a `$schema` names.
    fn of(schema: &str) -> Option<Self> {
        let rest = schema
            .strip_prefix("https://")
            .or_else(|| schema.strip_prefix("http://"))?;
        match rest.trim_end_matches('#') {
            "json-schema.org/draft-04/schema" => Some(Self::Draft4),
            "json-schema.org/draft-06/schema" | "json-schema.org/draft-07/schema" => {
                Some(Self::Draft7)
            }
            "json-schema.org/draft/2019-09/schema" => Some(Self::Draft2019),
            "json-schema.org/draft/2020-12/schema" | "json-schema.org/schema" => {
                Some(Self::Draft2020)
            }
            _ => None,
        }
    }
}

/// Where a reference leads.
pub(super) enum Target {
    /// To a place in the document, as a JSON Pointer.
    Place(String),
    /// To a meta-schema.
    MetaSchema,
}

/// What was found out about a document.
pub(super) struct Resolved {
    pub(super) dialect: Dialect,
    /// By the place of the subschema that holds the reference.
    pub(super) targets: BTreeMap<usize, Target>,
    /// By their text.
    pub(super) patterns: BTreeMap<String, Regex>,
    /// Whether some subschema asks what others have left over.
    pub(super) unevaluated: bool,
}

/// The place of a subschema: where its value is in memory, for as long as the document is.
pub(super) fn place(schema: &Value) -> usize {
    std::ptr::from_ref(schema).addr()
}

/// Reads a document, which must stay where it is.
pub(super) fn resolve(document: &Value) -> Result<Resolved, Unusable> {
    let dialect = match document.get("$schema") {
        None => Dialect::Draft2020,
        Some(Value::String(named)) => Dialect::of(named)
            .ok_or_else(|| Unusable::Dialect(named.chars().take(128).collect()))?,
        Some(_) => return Err(malformed("$schema")),
    };
    let base = Url::parse(BASE).map_err(|_| malformed("$id"))?;
    let mut reader = Reader {
        resolved: Resolved {
            dialect,
            targets: BTreeMap::new(),
            patterns: BTreeMap::new(),
            unevaluated: false,
        },
        read: BTreeSet::new(),
        resources: BTreeMap::from([(base.to_string(), String::new())]),
        anchors: BTreeMap::new(),
        references: Vec::new(),
    };
    reader.schema(document, "", &base)?;
    reader.follow(document)?;
    Ok(reader.resolved)
}

fn malformed(keyword: &str) -> Unusable {
    Unusable::Invalid(format!("malformed `{keyword}`"))
}

struct Reference {
    from: usize,
    base: Url,
    to: String,
}

struct Reader {
    resolved: Resolved,
    read: BTreeSet<usize>,
    /// Pointers to resources, by URI.
    resources: BTreeMap<String, String>,
    /// Pointers to subschemas, by the resource's URI and the anchor.
    anchors: BTreeMap<(String, String), String>,
    references: Vec<Reference>,
}

impl Reader {
    fn schema(&mut self, schema: &Value, pointer: &str, base: &Url) -> Result<(), Unusable> {
        let keywords = match schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(keywords) => keywords,
            Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(Unusable::Invalid("a subschema that is none".to_owned()));
            }
        };
        if !self.read.insert(place(schema)) {
            return Ok(());
        }
        let base = self.identify(keywords, pointer, base)?;
        for (keyword, value) in keywords {
            let below = format!("{pointer}/{}", escaped(keyword));
            self.keyword(schema, keyword, value, &below, &base)?;
        }
        Ok(())
    }

    /// Notes the names of a subschema; gives the URI its references start from.
    fn identify(
        &mut self,
        keywords: &Map<String, Value>,
        pointer: &str,
        base: &Url,
    ) -> Result<Url, Unusable> {
        let dialect = self.resolved.dialect;
        let mut base = base.clone();
        let id = match dialect {
            Dialect::Draft4 => "id",
            Dialect::Draft7 | Dialect::Draft2019 | Dialect::Draft2020 => "$id",
        };
        // Beside a reference, the older dialects see nothing else.
        let alone = dialect <= Dialect::Draft7 && keywords.contains_key("$ref");
        if let Some(Value::String(id)) = keywords.get(id).filter(|_| !alone) {
            match id.strip_prefix('#') {
                Some(name) if dialect <= Dialect::Draft7 => self.anchor(&base, name, pointer),
                Some(_) | None => {
                    base = base.join(id).map_err(|_| malformed("$id"))?;
                    base.set_fragment(None);
                    self.resources.insert(base.to_string(), pointer.to_owned());
                }
            }
        }
        for keyword in ["$anchor", "$dynamicAnchor"] {
            if let Some(Value::String(name)) = keywords.get(keyword) {
                self.anchor(&base, name, pointer);
            }
        }
        Ok(base)
    }

    fn anchor(&mut self, base: &Url, name: &str, pointer: &str) {
        let key = (base.to_string(), name.to_owned());
        self.anchors.insert(key, pointer.to_owned());
    }

    fn keyword(
        &mut self,
        schema: &Value,
        keyword: &str,
        value: &Value,
        pointer: &str,
        base: &Url,
    ) -> Result<(), Unusable> {
        let old = self.resolved.dialect <= Dialect::Draft2019;
        match (keyword, value) {
            ("$ref", Value::String(to)) => self.references.push(Reference {
                from: place(schema),
                base: base.clone(),
                to: to.clone(),
            }),
            ("$dynamicRef" | "$recursiveRef", _) => {
                let reason = "dynamic references are not supported";
                return Err(Unusable::Invalid(reason.to_owned()));
            }
            ("unevaluatedProperties" | "unevaluatedItems", _) => {
                self.resolved.unevaluated |= self.resolved.dialect >= Dialect::Draft2019;
                self.schema(value, pointer, base)?;
            }
            ("items", Value::Array(all)) if old => self.list(all, pointer, base)?,
            (
                "not"
                | "if"
                | "then"
                | "else"
                | "items"
                | "additionalItems"
                | "contains"
                | "additionalProperties"
                | "propertyNames",
                _,
            ) => self.schema(value, pointer, base)?,
            ("allOf" | "anyOf" | "oneOf", Value::Array(all)) if !all.is_empty() => {
                self.list(all, pointer, base)?;
            }
            ("prefixItems", Value::Array(all)) => self.list(all, pointer, base)?,
            ("patternProperties", Value::Object(all)) => {
                for pattern in all.keys() {
                    self.pattern(pattern)?;
                }
                self.map(all, pointer, base)?;
            }
            ("properties" | "$defs" | "definitions" | "dependentSchemas", Value::Object(all)) => {
                self.map(all, pointer, base)?;
            }
            ("dependencies", Value::Object(all)) => {
                for (name, one) in all.iter().filter(|(_, one)| !one.is_array()) {
                    self.schema(one, &format!("{pointer}/{}", escaped(name)), base)?;
                }
            }
            ("pattern", Value::String(pattern)) => self.pattern(pattern)?,
            _ if super::assert::well_formed(keyword, value) => {}
            _ => return Err(malformed(keyword)),
        }
        Ok(())
    }

    fn list(&mut self, all: &[Value], pointer: &str, base: &Url) -> Result<(), Unusable> {
        for (index, one) in all.iter().enumerate() {
            self.schema(one, &format!("{pointer}/{index}"), base)?;
        }
        Ok(())
    }

    fn map(&mut self, all: &Map<String, Value>, pointer: &str, base: &Url) -> Result<(), Unusable> {
        for (name, one) in all {
            self.schema(one, &format!("{pointer}/{}", escaped(name)), base)?;
        }
        Ok(())
    }

    fn pattern(&mut self, pattern: &str) -> Result<(), Unusable> {
        let patterns = &mut self.resolved.patterns;
        if patterns.contains_key(pattern) {
            return Ok(());
        }
        if patterns.len() >= PATTERNS_MAX {
            return Err(Unusable::Invalid("too many patterns".to_owned()));
        }
        let compiled = RegexBuilder::new(pattern)
            .size_limit(PATTERN_SIZE_MAX)
            .build();
        let compiled = compiled
            .map_err(|_| Unusable::Invalid("a pattern that is not supported".to_owned()))?;
        patterns.insert(pattern.to_owned(), compiled);
        Ok(())
    }

    /// Finds where the references lead; what is there may hold more of them.
    fn follow(&mut self, document: &Value) -> Result<(), Unusable> {
        let mut next = 0;
        while let Some(reference) = self.references.get(next) {
            next += 1;
            let (from, base) = (reference.from, reference.base.clone());
            let target = base.join(&reference.to).map_err(|_| malformed("$ref"))?;
            let mut resource = target.clone();
            resource.set_fragment(None);
            let fragment = target.fragment().unwrap_or_default();
            let known = self.resources.get(resource.as_str()).cloned();
            let place = match known {
                Some(root) => self.within(&resource, &root, fragment),
                None if resource.host_str() == Some("json-schema.org") => {
                    self.resolved.targets.insert(from, Target::MetaSchema);
                    continue;
                }
                None => {
                    let reason = "it refers to another document";
                    return Err(Unusable::Invalid(reason.to_owned()));
                }
            };
            let schema = place.as_deref().and_then(|place| document.pointer(place));
            let (Some(place), Some(schema)) = (place, schema) else {
                let reason = "it refers to what is not in it";
                return Err(Unusable::Invalid(reason.to_owned()));
            };
            // Also where no keyword would have led.
            self.schema(schema, &place, &resource)?;
            self.resolved.targets.insert(from, Target::Place(place));
        }
        Ok(())
    }

    /// The pointer a fragment of a resource means.
    fn within(&self, resource: &Url, root: &str, fragment: &str) -> Option<String> {
        let fragment = percent_decoded(fragment)?;
        if fragment.is_empty() || fragment.starts_with('/') {
            return Some(format!("{root}{fragment}"));
        }
        self.anchors.get(&(resource.to_string(), fragment)).cloned()
    }
}

/// A name as a part of a JSON Pointer.
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// A URI fragment as text.
fn percent_decoded(fragment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}
