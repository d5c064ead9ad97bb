//! What is wrong with a value, in words that hold nothing of it but the path to it.

use boon::{CompileError, ErrorKind, InstanceLocation, InstanceToken, ValidationError};
use serde_json::Value;

/// Most violations told of one value.
const VIOLATIONS_MAX: usize = 5;
/// Most forms told of which a value must have one.
const FORMS_MAX: usize = 3;
/// Most characters of a path, a name, or what a schema says, that are told.
const SHOWN_MAX: usize = 200;

/// One way in which a value does not fit its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// JSON Pointer to the value that does not fit.
    pub(crate) at: String,
    /// What was expected of it.
    pub(crate) expected: String,
    /// JSON Pointer into the schema: what a log may hold, being the upstream's text alone.
    pub(crate) rule: String,
}

/// The first violations, deepest causes.
pub(super) fn violations(error: &ValidationError<'_, '_>) -> Vec<Violation> {
    let mut found = Vec::new();
    collect(error, &mut found);
    found
}

fn collect(error: &ValidationError<'_, '_>, found: &mut Vec<Violation>) {
    if found.len() >= VIOLATIONS_MAX {
        return;
    }
    let forks = matches!(
        error.kind,
        ErrorKind::AnyOf | ErrorKind::OneOf(_) | ErrorKind::PropertyName { .. }
    );
    if error.causes.is_empty() || forks {
        found.push(violation(error));
        return;
    }
    for cause in &error.causes {
        collect(cause, found);
    }
}

fn violation(error: &ValidationError<'_, '_>) -> Violation {
    let rule = error.schema_url.split_once('#');
    Violation {
        at: cut(&pointer(&error.instance_location)),
        expected: cut(&expected(error)),
        rule: cut(rule.map_or("", |(_, rule)| rule)),
    }
}

fn pointer(location: &InstanceLocation<'_>) -> String {
    let mut text = String::new();
    for token in &location.tokens {
        text.push('/');
        match token {
            InstanceToken::Prop(name) => text.push_str(&name.replace('~', "~0").replace('/', "~1")),
            InstanceToken::Item(index) => text.push_str(&index.to_string()),
        }
    }
    text
}

/// What the schema wants. Every word of it is the schema's, the names of properties apart.
fn expected(error: &ValidationError<'_, '_>) -> String {
    match &error.kind {
        ErrorKind::Type { got, want } => {
            let want: Vec<String> = want.iter().map(|t| t.to_string()).collect();
            format!("expected {}, not {got}", want.join(" or "))
        }
        ErrorKind::Enum { want } => format!("expected one of {}", Value::Array(want.to_vec())),
        ErrorKind::Const { want } => format!("expected {want}"),
        ErrorKind::Required { want } => format!("missing {}", names(want.iter().copied())),
        ErrorKind::Dependency { prop, missing }
        | ErrorKind::DependentRequired { prop, missing } => {
            let missing = names(missing.iter().copied());
            format!("missing {missing}, which `{prop}` needs beside it")
        }
        ErrorKind::AdditionalProperties { got } => {
            format!("unknown {}", names(got.iter().map(AsRef::as_ref)))
        }
        ErrorKind::PropertyName { prop } => format!("`{prop}` is not an allowed property name"),
        ErrorKind::MinProperties { want, .. } => format!("expected at least {want} properties"),
        ErrorKind::MaxProperties { want, .. } => format!("expected at most {want} properties"),
        ErrorKind::MinItems { want, .. } => format!("expected at least {want} items"),
        ErrorKind::MaxItems { want, .. } => format!("expected at most {want} items"),
        ErrorKind::AdditionalItems { got } => format!("the last {got} items are too many"),
        ErrorKind::UniqueItems { got: [one, other] } => {
            format!("items {one} and {other} are equal; expected unique items")
        }
        ErrorKind::Contains => "expected an item that is not there".to_owned(),
        ErrorKind::MinContains { want, .. } => format!("expected at least {want} matching items"),
        ErrorKind::MaxContains { want, .. } => format!("expected at most {want} matching items"),
        ErrorKind::MinLength { want, .. } => format!("expected at least {want} characters"),
        ErrorKind::MaxLength { want, .. } => format!("expected at most {want} characters"),
        ErrorKind::Pattern { want, .. } => format!("expected text that matches `{want}`"),
        ErrorKind::Minimum { want, .. } => format!("expected at least {want}"),
        ErrorKind::Maximum { want, .. } => format!("expected at most {want}"),
        ErrorKind::ExclusiveMinimum { want, .. } => format!("expected more than {want}"),
        ErrorKind::ExclusiveMaximum { want, .. } => format!("expected less than {want}"),
        ErrorKind::MultipleOf { want, .. } => format!("expected a multiple of {want}"),
        ErrorKind::Format { want, .. } => format!("expected {want}"),
        ErrorKind::ContentEncoding { want, .. } | ErrorKind::ContentMediaType { want, .. } => {
            format!("expected {want} content")
        }
        ErrorKind::OneOf(Some(_)) => "fits several forms; expected exactly one".to_owned(),
        ErrorKind::AnyOf | ErrorKind::OneOf(None) => forms(error),
        ErrorKind::Not => "fits what is not allowed".to_owned(),
        ErrorKind::FalseSchema => "nothing is allowed here".to_owned(),
        ErrorKind::RefCycle { .. } => "its schema refers to itself without end".to_owned(),
        ErrorKind::Group
        | ErrorKind::Schema { .. }
        | ErrorKind::ContentSchema
        | ErrorKind::Reference { .. }
        | ErrorKind::AllOf => "does not fit its schema".to_owned(),
    }
}

/// What is missing to each of the forms of which a value must have one.
fn forms(error: &ValidationError<'_, '_>) -> String {
    let here = error.instance_location.tokens.len();
    let mut forms: Vec<String> = Vec::new();
    for cause in &error.causes {
        let mut leaf = cause;
        while let Some(first) = leaf.causes.first() {
            leaf = first;
        }
        let deeper = pointer(&InstanceLocation {
            tokens: leaf.instance_location.tokens[here.min(leaf.instance_location.tokens.len())..]
                .iter()
                .map(|token| match token {
                    InstanceToken::Prop(name) => InstanceToken::Prop(name.as_ref().into()),
                    InstanceToken::Item(index) => InstanceToken::Item(*index),
                })
                .collect(),
        });
        let form = match deeper.as_str() {
            "" => expected(leaf),
            deeper => format!("{} at {deeper}", expected(leaf)),
        };
        if !forms.contains(&form) && forms.len() < FORMS_MAX {
            forms.push(form);
        }
    }
    format!("fits none of the allowed forms ({})", forms.join("; "))
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    let word = if names.len() == 1 {
        "property"
    } else {
        "properties"
    };
    format!("{word} {}", names.join(", "))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Why a document does not compile, as a fixed label.
pub(super) const fn fault(error: &CompileError) -> &'static str {
    match error {
        CompileError::LoadUrlError { .. } | CompileError::UnsupportedUrlScheme { .. } => {
            "it refers to another document"
        }
        CompileError::UnsupportedDraft { .. }
        | CompileError::InvalidMetaSchemaUrl { .. }
        | CompileError::MetaSchemaCycle { .. }
        | CompileError::UnsupportedVocabulary { .. } => "a part of it is of an unknown dialect",
        CompileError::ValidationError { .. } => {
            "invalid in its dialect, or a pattern that is not supported"
        }
        CompileError::InvalidRegex { .. } => "a pattern that is not supported",
        CompileError::JsonPointerNotFound(_)
        | CompileError::AnchorNotFound { .. }
        | CompileError::InvalidJsonPointer(_) => "it refers to what is not in it",
        CompileError::ParseUrlError { .. }
        | CompileError::ParseIdError { .. }
        | CompileError::ParseAnchorError { .. }
        | CompileError::DuplicateId { .. }
        | CompileError::DuplicateAnchor { .. } => "malformed or repeated identifiers",
        CompileError::Bug(_) => "its parts do not resolve",
    }
}
