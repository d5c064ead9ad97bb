//! Whether a JSON value fits a JSON Schema, within bounds.
//!
//! Both come from outside: the schema from an upstream, the value from a client or that
//! upstream. So nothing a schema names is fetched, patterns are matched in time linear in
//! the text, and a walk that takes too many steps or too much of the stack ends without a
//! verdict. What cannot be checked is said to be unchecked, never to fit.
//!
//! The evaluator is the gateway's own because none of the known ones fits into the
//! function: gzipped, `jsonschema` is 591 kB and `boon` 343, of which two thirds are Unicode
//! tables no feature turns off, and they bound neither time nor stack. It reads drafts 4 to
//! 2020-12 without `$dynamicRef` and `$recursiveRef`; the tests hold it to `jsonschema`.
//! `format` is an annotation in every dialect, as it is by default in 2020-12: what a format
//! means differs between libraries, and a gateway must not refuse what the tool takes.

mod assert;
mod evaluate;
mod resolve;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use resolve::Resolved;

/// Largest schema that is compiled, in bytes.
pub const SCHEMA_MAX: usize = 64 * 1024;
/// Largest value that is checked, in bytes.
pub const INSTANCE_MAX: usize = 1024 * 1024;
/// Most bytes of text all schemas an isolate keeps have together; read, they take several
/// times as much.
const KEPT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most schemas an isolate keeps.
const KEPT_MAX: usize = 512;

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
    /// It is no schema we can read, or refers to what is not in it.
    #[error("not a usable schema: {0}")]
    Invalid(String),
}

/// One way in which a value does not fit its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// JSON Pointer to what does not fit.
    pub(crate) at: String,
    /// What was expected of it: the schema's words, and names of properties, but no value.
    pub(crate) expected: String,
    /// The keyword: what a log may hold.
    pub(crate) rule: String,
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

/// Schemas read in this isolate, by digest.
#[derive(Default)]
pub(crate) struct Memory {
    compiled: RefCell<BTreeMap<Digest, Rc<Compiled>>>,
    bytes: Cell<usize>,
}

type Compiled = Result<Usable, Unusable>;

struct Usable {
    /// Boxed: what was found out about it goes by where its parts are.
    document: Box<Value>,
    resolved: Resolved,
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
    let walk = evaluate::walk(&usable.document, &usable.resolved, &value);
    match walk.stopped {
        Some(why) => Verdict::Unchecked(why),
        None if walk.fits => Verdict::Fits,
        None => Verdict::Violates(walk.found),
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

/// The form to check against, and whether it was made just now.
fn compiled(memory: &Memory, document: &Document) -> (Rc<Compiled>, bool) {
    let digest = document.digest();
    if let Some(compiled) = memory.compiled.borrow().get(&digest) {
        return (Rc::clone(compiled), false);
    }
    let compiled = Rc::new(compile(&document.text));
    let size = document.text.get().len().min(SCHEMA_MAX);
    let mut kept = memory.compiled.borrow_mut();
    if memory.bytes.get() + size > KEPT_BYTES_MAX || kept.len() >= KEPT_MAX {
        // Those in use are soon back.
        kept.clear();
        memory.bytes.set(0);
    }
    memory.bytes.set(memory.bytes.get() + size);
    kept.insert(digest, Rc::clone(&compiled));
    (compiled, true)
}

fn compile(text: &RawValue) -> Compiled {
    if text.get().len() > SCHEMA_MAX {
        return Err(Unusable::TooLarge);
    }
    let document: Box<Value> = serde_json::from_str(text.get())
        .map_err(|_| Unusable::Invalid("nested too deeply".to_owned()))?;
    let resolved = resolve::resolve(&document)?;
    Ok(Usable { document, resolved })
}

#[cfg(test)]
mod tests;
