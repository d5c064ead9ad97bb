//! Tool arguments mirrored into `Mcp-Param-*` headers.

use serde_json::value::RawValue;

use super::{HeaderError, MCP_PARAM_PREFIX, X_MCP_HEADER, decode_value, encode_value, mismatch};
use crate::json::{self, Object};
use crate::jsonrpc::RpcError;

/// Largest integer that survives every JSON implementation.
const INTEGER_MAX: i64 = (1 << 53) - 1;

/// One argument a tool wants mirrored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderParam {
    /// The part of the header name after `Mcp-Param-`, as the schema writes it.
    pub header: String,
    /// Property names from the arguments object down to the value.
    pub path: Vec<String>,
    /// What the value is.
    pub kind: ParamKind,
}

/// The types that can be mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// Sent as is.
    String,
    /// Sent in decimal; compared by value.
    Integer,
    /// Sent as `true` or `false`.
    Boolean,
}

impl HeaderParam {
    /// The whole header name, in lower case.
    #[must_use]
    pub fn header_name(&self) -> String {
        format!("{MCP_PARAM_PREFIX}{}", self.header.to_ascii_lowercase())
    }
}

/// The mirrored arguments an input schema asks for. An error means the tool as a whole must
/// not be offered over HTTP.
pub fn header_params(input_schema: &RawValue) -> Result<Vec<HeaderParam>, HeaderError> {
    let mut params = Vec::new();
    if !input_schema.get().contains(X_MCP_HEADER) && !input_schema.get().contains('\\') {
        return Ok(params);
    }
    collect(input_schema, &mut Vec::new(), &mut params)?;
    for (index, param) in params.iter().enumerate() {
        if params[..index]
            .iter()
            .any(|other| other.header.eq_ignore_ascii_case(&param.header))
        {
            return Err(HeaderError::NotUnique);
        }
    }
    Ok(params)
}

/// Reads one schema reached through `properties` alone.
fn collect(
    schema: &RawValue,
    path: &mut Vec<String>,
    params: &mut Vec<HeaderParam>,
) -> Result<(), HeaderError> {
    if json::first_byte(schema.get().as_bytes()) != Some(b'{') {
        return Ok(());
    }
    let schema = Object::from_raw(schema).map_err(|_| HeaderError::UnreadableSchema)?;
    if let Some(annotation) = schema.get(X_MCP_HEADER) {
        if path.is_empty() {
            return Err(HeaderError::Unreachable);
        }
        params.push(HeaderParam {
            header: header_token(annotation)?,
            path: path.clone(),
            kind: kind(&schema)?,
        });
    }
    for (keyword, value) in schema.iter() {
        match keyword {
            "properties" => {
                let properties =
                    Object::from_raw(value).map_err(|_| HeaderError::UnreadableSchema)?;
                for (name, property) in properties.iter() {
                    path.push(name.to_owned());
                    collect(property, path, params)?;
                    path.pop();
                }
            }
            _ if is_annotated(keyword, value)? => return Err(HeaderError::Unreachable),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a schema anywhere below this keyword is annotated.
fn is_annotated(keyword: &str, value: &RawValue) -> Result<bool, HeaderError> {
    match keyword {
        // Instance data, not schemas.
        "default" | "const" | "enum" | "examples" => Ok(false),
        // Maps from names to schemas: the names mean nothing.
        "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" => {
            let Ok(schemas) = Object::from_raw(value) else {
                return Ok(false);
            };
            any(schemas
                .iter()
                .map(|(_, schema)| is_annotated_schema(schema)))
        }
        _ => is_annotated_schema(value),
    }
}

fn is_annotated_schema(value: &RawValue) -> Result<bool, HeaderError> {
    match json::first_byte(value.get().as_bytes()) {
        Some(b'{') => {
            let schema = Object::from_raw(value).map_err(|_| HeaderError::UnreadableSchema)?;
            if schema.contains(X_MCP_HEADER) {
                return Ok(true);
            }
            any(schema
                .iter()
                .map(|(keyword, value)| is_annotated(keyword, value)))
        }
        Some(b'[') => {
            let schemas = json::elements(value).map_err(|_| HeaderError::UnreadableSchema)?;
            any(schemas.iter().map(|schema| is_annotated_schema(schema)))
        }
        Some(_) | None => Ok(false),
    }
}

fn any(mut results: impl Iterator<Item = Result<bool, HeaderError>>) -> Result<bool, HeaderError> {
    results.try_fold(false, |found, result| Ok(found || result?))
}

fn header_token(annotation: &RawValue) -> Result<String, HeaderError> {
    let name = json::as_str(annotation).ok_or(HeaderError::NotAToken)?;
    if name.is_empty() || !name.bytes().all(is_token_byte) {
        return Err(HeaderError::NotAToken);
    }
    Ok(name.into_owned())
}

/// RFC 9110 section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn kind(schema: &Object) -> Result<ParamKind, HeaderError> {
    match schema.get_str("type").as_deref() {
        Some("string") => Ok(ParamKind::String),
        Some("integer") => Ok(ParamKind::Integer),
        Some("boolean") => Ok(ParamKind::Boolean),
        Some(_) | None => Err(HeaderError::UnsupportedType),
    }
}

/// The header value for this call, ready to send; `None` if the argument is absent or null.
pub fn render(param: &HeaderParam, arguments: &Object) -> Result<Option<String>, HeaderError> {
    let value = plain(param, arguments)?;
    Ok(value.map(|value| encode_value(&value).into_owned()))
}

/// The argument as text before encoding. Its own type decides, not the annotated one: whether
/// it has the right type is the tool's schema's concern.
fn plain(param: &HeaderParam, arguments: &Object) -> Result<Option<String>, HeaderError> {
    let Some(value) = find(&param.path, arguments)? else {
        return Ok(None);
    };
    let text = match value.get() {
        "null" => return Ok(None),
        text @ ("true" | "false") => Some(text.to_owned()),
        text if text.starts_with('"') => json::as_str(&value).map(std::borrow::Cow::into_owned),
        text => integer(text).map(|number| number.to_string()),
    };
    text.map(Some).ok_or(HeaderError::UnfitArgument)
}

fn find(path: &[String], arguments: &Object) -> Result<Option<Box<RawValue>>, HeaderError> {
    let Some((name, rest)) = path.split_first() else {
        return Ok(None);
    };
    match arguments.get(name) {
        None => Ok(None),
        Some(value) if rest.is_empty() => Ok(Some(value.to_owned())),
        Some(value) if json::first_byte(value.get().as_bytes()) == Some(b'{') => {
            let inner = Object::from_raw(value).map_err(|_| HeaderError::UnfitArgument)?;
            find(rest, &inner)
        }
        Some(_) => Ok(None),
    }
}

/// A JSON number that is an integer within ±(2^53-1), also if written with a zero fraction or
/// an exponent.
#[expect(
    clippy::cast_possible_truncation,
    reason = "whole and within 2^53, so the conversion is exact"
)]
fn integer(text: &str) -> Option<i64> {
    let number = match text.parse::<i64>() {
        Ok(number) => number,
        Err(_) => {
            let number: f64 = serde_json::from_str(text).ok()?;
            if number.fract() != 0.0 || number.abs() > 9_007_199_254_740_991.0 {
                return None;
            }
            number as i64
        }
    };
    (-INTEGER_MAX..=INTEGER_MAX)
        .contains(&number)
        .then_some(number)
}

/// Whether the `Mcp-Param-*` headers say what the arguments say; -32020 names the header that
/// does not. `header` looks a value up by its lower-case name.
///
/// An argument no header can carry is only refused together with a header: alone it is the
/// tool's to refuse.
pub fn agree_params(
    params: &[HeaderParam],
    arguments: &Object,
    header: impl Fn(&str) -> Option<String>,
) -> Result<(), RpcError> {
    for param in params {
        let name = param.header_name();
        agree_param(param, arguments, header(&name).as_deref())
            .map_err(|problem| mismatch(&name, problem))?;
    }
    Ok(())
}

fn agree_param(
    param: &HeaderParam,
    arguments: &Object,
    received: Option<&str>,
) -> Result<(), &'static str> {
    let expected = plain(param, arguments);
    let Some(received) = received else {
        return match expected {
            Ok(None) | Err(_) => Ok(()),
            Ok(Some(_)) => Err("is required"),
        };
    };
    let received = decode_value(received).map_err(|_| "is malformed")?;
    match expected {
        Ok(Some(expected)) if same(param.kind, &expected, &received) => Ok(()),
        Ok(Some(_)) => Err("does not match the body"),
        Ok(None) => Err("mirrors an absent argument"),
        Err(_) => Err("mirrors an argument no header can carry"),
    }
}

fn same(kind: ParamKind, expected: &str, received: &str) -> bool {
    expected == received
        || match kind {
            ParamKind::String | ParamKind::Boolean => false,
            ParamKind::Integer => {
                decimal(received).is_some() && decimal(received) == integer(expected)
            }
        }
}

/// Header text that is a plain decimal: `42` and `42.0`, but not `4.2e1`, `+42` or ` 42`.
fn decimal(text: &str) -> Option<i64> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
    plain.then(|| integer(text)).flatten()
}
