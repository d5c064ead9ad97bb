//! What a file may say of requests before anybody asks who sent them.

use serde::{Deserialize, Serialize};

use super::bounds;

/// Which requests are looked at at all. Decided before any token is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Edge {
    /// Networks clients may come from: addresses, or ranges as `10.0.0.0/8`.
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub addresses: Listed,
    /// Countries clients may come from, as two capital letters (ISO 3166-1). Only some
    /// platforms tell.
    #[serde(skip_serializing_if = "Listed::is_empty")]
    pub countries: Listed,
    /// Most header fields of a request.
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::HEADER_FIELDS.start(), max = *bounds::HEADER_FIELDS.end())))]
    pub max_headers: u32,
    /// Most bytes of all header fields together, names and values.
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::HEADER_BYTES.start(), max = *bounds::HEADER_BYTES.end())))]
    pub max_header_bytes: u32,
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            addresses: Listed::default(),
            countries: Listed::default(),
            max_headers: bounds::HEADER_FIELDS_DEFAULT,
            max_header_bytes: bounds::HEADER_BYTES_DEFAULT,
        }
    }
}

impl Edge {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Who is let in, and who is not. What both name is not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Listed {
    /// Only these are let in, if there are any; the unknown is not among them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::EDGE_ENTRIES_MAX)))]
    pub allow: Vec<String>,
    /// These are not let in; the unknown is not among them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::EDGE_ENTRIES_MAX)))]
    pub deny: Vec<String>,
}

impl Listed {
    fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}
