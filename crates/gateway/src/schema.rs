//! Whether a JSON value fits a JSON Schema, within bounds.
//!
//! Both come from outside: the schema from an upstream, the value from a client or that
//! upstream. So nothing a schema names is fetched (only the document itself and the
//! meta-schemas that come with the library are resolved), patterns are matched in linear
//! time, and a schema's appetite is known before it is used: [`cost`] gives the depth to
//! which values can be checked within [`cost::VISITS_MAX`] and [`cost::STACK_MAX`]. What
//! cannot be checked within the bounds is said to be unchecked, never to fit.
//!
//! `format` is an annotation in every dialect, as it is by default in 2020-12: what a format
//! means differs between libraries, and a gateway must not refuse what the tool takes.

mod cost;
mod words;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::rc::Rc;

use boon::{Compiler, Draft, Format, SchemaIndex, Schemas, UrlLoader};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

pub(crate) use words::Violation;

/// Largest schema that is compiled, in bytes.
pub const SCHEMA_MAX: usize = 64 * 1024;
/// Largest value that is checked, in bytes.
pub const INSTANCE_MAX: usize = 1024 * 1024;
/// Most subschemas all compiled schemas of an isolate have together; about 1 kB each.
const KEPT_SUBSCHEMAS_MAX: usize = 20_000;
/// Most schemas an isolate keeps compiled.
const KEPT_MAX: usize = 512;
/// Where a document without an `$id` is; references out of it lead nowhere.
const BASE: &str = "https://schema.invalid/tool.json";

/// A schema as its upstream wrote it.
pub(crate) struct Document {
    text: Box<RawValue>,
    digest: OnceCell<Digest>,
}

type Digest = [u8; 32];

impl Document {
    pub(crate) fn new(text: &RawValue) -> Self {
        Self {
            text: text.to_owned(),
            digest: OnceCell::new(),
        }
    }

    fn digest(&self) -> Digest {
        let digest = || Sha256::digest(self.text.get().as_bytes()).into();
        *self.digest.get_or_init(digest)
    }
}

/// Why values cannot be checked against a schema. `Display` names no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// Its `$schema` names a dialect nobody here knows.
    #[error("unknown dialect `{0}`")]
    Dialect(String),
    /// Larger than [`SCHEMA_MAX`].
    #[error("larger than {SCHEMA_MAX} bytes")]
    TooLarge,
    /// Checking anything against it would take too long.
    #[error("too costly to check: {0}")]
    TooCostly(&'static str),
    /// It is no schema, or refers to what is not in it.
    #[error("not a usable schema: {0}")]
    Invalid(&'static str),
}

/// What came of a check.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It fits.
    Fits,
    /// It does not; the first violations found.
    Violates(Vec<Violation>),
    /// The value is beyond the bounds.
    Unchecked(&'static str),
    /// The schema is; `first` where it was found out just now.
    Unusable { why: Unusable, first: bool },
}

/// Schemas compiled in this isolate, by digest.
#[derive(Default)]
pub(crate) struct Memory {
    compiled: RefCell<BTreeMap<Digest, Rc<Compiled>>>,
    subschemas: Cell<usize>,
}

type Compiled = Result<Usable, Unusable>;

struct Usable {
    schemas: Schemas,
    root: SchemaIndex,
    /// Deepest value that may be checked.
    depth: usize,
}

/// Whether `value` fits `document`.
pub(crate) fn check(memory: &Memory, document: &Document, value: &RawValue) -> Verdict {
    let (compiled, first) = compiled(memory, document);
    let usable = match compiled.as_ref() {
        Ok(usable) => usable,
        Err(why) => {
            let why = why.clone();
            return Verdict::Unusable { why, first };
        }
    };
    if value.get().len() > INSTANCE_MAX {
        return Verdict::Unchecked("larger than what is checked");
    }
    let Ok(value) = serde_json::from_str::<Value>(value.get()) else {
        return Verdict::Unchecked("nested deeper than what is checked");
    };
    if !cost::within(&value, usable.depth) {
        return Verdict::Unchecked("nested deeper than its schema lets be checked in time");
    }
    match usable.schemas.validate(&value, usable.root) {
        Ok(()) => Verdict::Fits,
        Err(error) => Verdict::Violates(words::violations(&error)),
    }
}

/// Whether values can be checked against `document` at all.
pub(crate) fn unusable(memory: &Memory, document: &Document) -> Option<(Unusable, bool)> {
    let (compiled, first) = compiled(memory, document);
    compiled
        .as_ref()
        .as_ref()
        .err()
        .map(|why| (why.clone(), first))
}

/// The compiled form, and whether it was made just now. Compiling takes milliseconds,
/// checking microseconds.
fn compiled(memory: &Memory, document: &Document) -> (Rc<Compiled>, bool) {
    let digest = document.digest();
    if let Some(compiled) = memory.compiled.borrow().get(&digest) {
        return (Rc::clone(compiled), false);
    }
    let compiled = Rc::new(compile(&document.text));
    let size = match compiled.as_ref() {
        Ok(usable) => usable.schemas.size(),
        Err(_) => 1,
    };
    let mut kept = memory.compiled.borrow_mut();
    let full = memory.subschemas.get() + size > KEPT_SUBSCHEMAS_MAX;
    if full || kept.len() >= KEPT_MAX {
        // Those in use are soon back.
        kept.clear();
        memory.subschemas.set(0);
    }
    memory.subschemas.set(memory.subschemas.get() + size);
    kept.insert(digest, Rc::clone(&compiled));
    (compiled, true)
}

fn compile(text: &RawValue) -> Compiled {
    if text.get().len() > SCHEMA_MAX {
        return Err(Unusable::TooLarge);
    }
    let parsed: Result<Value, _> = serde_json::from_str(text.get());
    let schema = parsed.map_err(|_| Unusable::Invalid("nested too deeply"))?;
    if let Some(Value::String(dialect)) = schema.get("$schema")
        && Draft::from_url(dialect).is_none()
    {
        let shown = dialect.chars().take(128).collect();
        return Err(Unusable::Dialect(shown));
    }
    let depth = cost::depth(&schema)?;
    let mut compiler = Compiler::new();
    compiler.use_loader(Box::new(Nowhere));
    for name in FORMATS {
        let func = |_: &Value| Ok(());
        compiler.register_format(Format { name, func });
    }
    let mut schemas = Schemas::new();
    let root = compiler
        .add_resource(BASE, schema)
        .and_then(|()| compiler.compile(BASE, &mut schemas))
        .map_err(|error| Unusable::Invalid(words::fault(&error)))?;
    Ok(Usable {
        schemas,
        root,
        depth,
    })
}

/// Every format the library would otherwise assert in older dialects, but `regex`.
const FORMATS: [&str; 19] = [
    "ipv4",
    "ipv6",
    "hostname",
    "idn-hostname",
    "email",
    "idn-email",
    "date",
    "time",
    "date-time",
    "duration",
    "period",
    "json-pointer",
    "relative-json-pointer",
    "uuid",
    "uri",
    "iri",
    "uri-reference",
    "iri-reference",
    "uri-template",
];

/// No document is fetched, from anywhere.
struct Nowhere;

impl UrlLoader for Nowhere {
    fn load(&self, _: &str) -> Result<Value, Box<dyn Error>> {
        Err("references out of the document are not followed".into())
    }
}

#[cfg(test)]
mod tests;
