//! The shape of a configuration: which fields there are and what each holds, checked
//! against the JSON Schema that is generated from the gateway's own types.
//!
//! All errors are told, in the words of the format and not of JSON Schema. No value is
//! ever repeated: it could be a secret in the wrong place. Lengths, patterns and counts
//! are left to [`tidegate_gateway::config::Config::problems`], which says more about them.

mod schema;

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use serde_json::Value;
use tidegate_gateway::config::Config;

use crate::document::Document;
use crate::finding::{Finding, escape, unescape};
use crate::suggest;
use schema::{Schema, kind_of, published, shape_only};

pub use schema::{config_schema, snapshot_schema};

/// What the shape check found.
pub struct Checked {
    /// Everything wrong.
    pub findings: Vec<Finding>,
    /// The configuration, without what is wrong if it can be read without it.
    pub config: Option<Config>,
}

/// Checks the shape of a document and reads it.
pub fn check(document: &Document) -> Result<Checked, String> {
    let schema = shape_only(published());
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .with_format("uri", |text: &str| url::Url::parse(text).is_ok())
        .build(&schema)
        .map_err(|error| format!("the schema of this build does not compile: {error}"))?;
    let mut explainer = Explainer {
        document,
        schema: Schema(&schema),
        findings: Vec::new(),
        meant: Vec::new(),
    };
    for error in validator.iter_errors(&document.value) {
        explainer.explain(&error);
    }
    let readable = readable(&document.value, &explainer.schema, &explainer.findings);
    let findings = explainer.finish();
    let config = serde_json::from_value(readable).ok();
    if findings.is_empty() && config.is_none() {
        return Err("the schema of this build accepts what its types do not".to_owned());
    }
    Ok(Checked { findings, config })
}

/// `value` with every field that has a finding taken out or, where it is needed, filled
/// with something harmless, so that the rest can be checked as well.
fn readable(value: &Value, schema: &Schema<'_>, findings: &[Finding]) -> Value {
    let mut readable = value.clone();
    for finding in findings {
        let mut pointer = finding.pointer.as_str();
        let filling = schema.filling(pointer, value);
        while let Some((parent, last)) = pointer.rsplit_once('/') {
            if let Some(Value::Object(fields)) = readable.pointer_mut(parent) {
                let name = unescape(last);
                match filling.filter(|_| pointer == finding.pointer) {
                    Some(filling) => drop(fields.insert(name, filling)),
                    None => drop(fields.shift_remove(&name)),
                }
                break;
            }
            pointer = parent;
        }
    }
    readable
}

struct Explainer<'a> {
    document: &'a Document,
    schema: Schema<'a>,
    findings: Vec<Finding>,
    /// Fields that an unknown field was probably meant to be: not missing as well.
    meant: Vec<String>,
}

/// Begins the message of a missing field, which [`Explainer::finish`] may drop.
const MISSING: &str = "is missing";

impl Explainer<'_> {
    fn finish(self) -> Vec<Finding> {
        let Self {
            mut findings,
            meant,
            ..
        } = self;
        findings.retain(|finding| finding.message != MISSING || !meant.contains(&finding.pointer));
        findings
            .sort_by(|one, other| (one.place, &one.pointer).cmp(&(other.place, &other.pointer)));
        findings.dedup();
        findings
    }

    fn add(&mut self, pointer: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(Finding {
            place: self.document.place(pointer),
            pointer: pointer.to_owned(),
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the generated schema uses these rules; another one is still told, in plainer words"
    )]
    fn explain(&mut self, error: &ValidationError<'_>) {
        let at = error.instance_path().as_str().to_owned();
        match error.kind() {
            Kind::AdditionalProperties { unexpected } => self.unknown_fields(&at, unexpected),
            Kind::Required { property } => {
                self.missing_field(&at, property.as_str().unwrap_or_default())
            }
            Kind::Type { kind } => self.wrong_type(&at, &type_names(kind)),
            Kind::Constant { expected_value } => {
                self.add(
                    &at,
                    "is not the value this build reads",
                    format!("use `{}`", plain(expected_value)),
                );
            }
            Kind::OneOfNotValid { context } | Kind::AnyOf { context } => {
                self.no_branch(&at, context)
            }
            Kind::Minimum { limit } => {
                self.add(&at, "is too small", format!("use at least {limit}"))
            }
            Kind::Maximum { limit } => {
                self.add(&at, "is too large", format!("use at most {limit}"))
            }
            Kind::Format { .. } => self.add(
                &at,
                "is not a URL",
                "write it in full, such as https://host/path",
            ),
            _ => self.add(
                &at,
                format!("breaks the rule `{}`", error.kind().keyword()),
                "see `tidegate schema`",
            ),
        }
    }

    fn unknown_fields(&mut self, at: &str, names: &[String]) {
        let known = self.schema.fields(at, &self.document.value);
        for name in names {
            let pointer = format!("{at}/{}", escape(name));
            match suggest::field(name, &known) {
                Some((meant, remedy)) => {
                    self.add(&pointer, "unknown field", remedy);
                    self.meant.push(format!("{at}/{meant}"));
                }
                None => {
                    let mut known = known.clone();
                    known.sort_unstable();
                    let remedy = format!("remove it; the fields here are {}", list(&known));
                    self.add(&pointer, "unknown field", remedy);
                }
            }
        }
    }

    fn missing_field(&mut self, at: &str, name: &str) {
        let pointer = format!("{at}/{}", escape(name));
        let described = self.schema.description(&pointer, &self.document.value);
        let remedy = described.map_or("add it".to_owned(), |description| {
            format!("add it: {description}")
        });
        self.add(&pointer, MISSING, remedy);
    }

    fn wrong_type(&mut self, at: &str, expected: &[&str]) {
        let value = self.document.value.pointer(at).unwrap_or(&Value::Null);
        let wanted = list_plain(expected);
        let remedy = match value {
            Value::String(text) if expected.contains(&"true or false") && is_yes_or_no(text) => {
                "write true or false; yes, no, on and off are text in YAML 1.2".to_owned()
            }
            Value::String(_) if at.ends_with("Ms") => {
                "write milliseconds without a unit, such as 30000".to_owned()
            }
            Value::Null => "give it a value or remove the field".to_owned(),
            Value::Bool(_) | Value::Number(_) if expected.contains(&"text") => {
                "put quotes around it".to_owned()
            }
            Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => format!("make it {wanted}"),
        };
        self.add(
            at,
            format!("is {} and not {wanted}", kind_of(value)),
            remedy,
        );
    }

    /// None of several shapes fits: a choice of words, a kind told by `type`, or an optional.
    fn no_branch(&mut self, at: &str, branches: &[Vec<ValidationError<'static>>]) {
        let words: Vec<String> = branches
            .iter()
            .filter_map(|errors| constant_at(errors, at))
            .collect();
        if words.len() == branches.len() {
            return self.no_word(at, &words);
        }
        let tag = format!("{at}/type");
        let kinds: Vec<String> = branches
            .iter()
            .filter_map(|errors| constant_at(errors, &tag))
            .collect();
        let chosen = branches.iter().find(|errors| {
            constant_at(errors, &tag).is_none()
                && !lacks(errors, at, "type")
                && !is_wrong_type(errors, at)
        });
        match chosen {
            Some(errors) => errors.iter().for_each(|error| self.explain(error)),
            None if !kinds.is_empty() => self.no_word(&tag, &kinds),
            None if branches.iter().any(|errors| lacks(errors, at, "type")) => {
                let known = self.schema.kinds(at, &self.document.value);
                self.add(&tag, MISSING, format!("use one of {}", list(&known)));
            }
            None => self.wrong_type(at, &["a mapping"]),
        }
    }

    fn no_word(&mut self, at: &str, words: &[String]) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let meant = self
            .document
            .value
            .pointer(at)
            .and_then(Value::as_str)
            .and_then(|text| suggest::closest(text, &words));
        let remedy = match meant {
            Some(word) => format!("did you mean `{word}`? use one of {}", list(&words)),
            None => format!("use one of {}", list(&words)),
        };
        self.add(at, "is not a value this field takes", remedy);
    }
}

/// The constant an error at `pointer` asks for.
fn constant_at(errors: &[ValidationError<'static>], pointer: &str) -> Option<String> {
    errors.iter().find_map(|error| {
        let Kind::Constant { expected_value } = error.kind() else {
            return None;
        };
        (error.instance_path().as_str() == pointer).then(|| plain(expected_value))
    })
}

fn lacks(errors: &[ValidationError<'static>], pointer: &str, field: &str) -> bool {
    errors.iter().any(|error| {
        matches!(error.kind(), Kind::Required { property } if property == field)
            && error.instance_path().as_str() == pointer
    })
}

fn is_wrong_type(errors: &[ValidationError<'static>], pointer: &str) -> bool {
    errors.iter().any(|error| {
        matches!(error.kind(), Kind::Type { .. }) && error.instance_path().as_str() == pointer
    })
}

fn type_names(kind: &TypeKind) -> Vec<&'static str> {
    let name = |kind: &jsonschema::JsonType| match kind {
        jsonschema::JsonType::Array => "a list",
        jsonschema::JsonType::Boolean => "true or false",
        jsonschema::JsonType::Integer => "a whole number",
        jsonschema::JsonType::Null => "nothing",
        jsonschema::JsonType::Number => "a number",
        jsonschema::JsonType::Object => "a mapping",
        jsonschema::JsonType::String => "text",
    };
    match kind {
        TypeKind::Single(one) => vec![name(one)],
        // A field that may be left out: `null` is allowed, but nobody means to write it.
        TypeKind::Multiple(set) => set
            .iter()
            .filter(|one| *one != jsonschema::JsonType::Null)
            .map(|one| name(&one))
            .collect(),
    }
}

fn is_yes_or_no(text: &str) -> bool {
    ["yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str())
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn list(words: &[&str]) -> String {
    words
        .iter()
        .map(|word| format!("`{word}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn list_plain(words: &[&str]) -> String {
    words.join(" or ")
}
