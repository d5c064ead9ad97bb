//! `spin.toml`, as far as one component behind the HTTP trigger needs it.
//!
//! Read: the component's source, its variables and their definitions, the labels of its
//! key-value stores and databases, and the hosts it may send requests to. A manifest with
//! more than one component is refused; whatever else it says is passed over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use wasmtime::error::Context;
use wasmtime::{Result, bail, format_err};

use crate::allowed::Allowed;

/// What a component is given, with every variable in its place.
pub struct Application {
    /// The WebAssembly component.
    pub source: PathBuf,
    /// What the component asks for by name.
    pub variables: BTreeMap<String, String>,
    /// Labels of its key-value stores.
    pub key_value_stores: Vec<String>,
    /// Labels of its databases.
    pub sqlite_databases: Vec<String>,
    /// Where it may send requests.
    pub allowed: Allowed,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    variables: BTreeMap<String, Variable>,
    component: BTreeMap<String, Component>,
}

#[derive(Deserialize)]
struct Variable {
    default: Option<String>,
    #[serde(default)]
    required: bool,
}

#[derive(Deserialize)]
struct Component {
    source: PathBuf,
    #[serde(default)]
    variables: BTreeMap<String, String>,
    #[serde(default)]
    key_value_stores: Vec<String>,
    #[serde(default)]
    sqlite_databases: Vec<String>,
    #[serde(default)]
    allowed_outbound_hosts: Vec<String>,
}

impl Application {
    /// Reads a manifest; `given` are the values of variables.
    pub fn read(manifest: &Path, given: &BTreeMap<String, String>) -> Result<Self> {
        let named = || format!("cannot read {}", manifest.display());
        let text = std::fs::read_to_string(manifest).with_context(named)?;
        let folder = manifest.parent().unwrap_or(Path::new("."));
        Self::parse(&text, folder, given).with_context(named)
    }

    fn parse(text: &str, folder: &Path, given: &BTreeMap<String, String>) -> Result<Self> {
        let manifest: Manifest = toml::from_str(text).map_err(|e| format_err!("{e}"))?;
        let values = values(&manifest.variables, given)?;
        let mut components = manifest.component.into_values();
        let (Some(component), None) = (components.next(), components.next()) else {
            bail!("this host runs exactly one component");
        };
        let fill = |text: &String| filled(text, &values);
        Ok(Self {
            source: folder.join(component.source),
            variables: component
                .variables
                .iter()
                .map(|(name, text)| Ok((name.clone(), fill(text)?)))
                .collect::<Result<_>>()?,
            key_value_stores: component.key_value_stores,
            sqlite_databases: component.sqlite_databases,
            allowed: {
                let hosts = component.allowed_outbound_hosts.iter().map(fill);
                Allowed::parse(&hosts.collect::<Result<Vec<_>>>()?)?
            },
        })
    }
}

/// The value of every variable of the application.
fn values(
    definitions: &BTreeMap<String, Variable>,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    for name in given.keys() {
        if !definitions.contains_key(name) {
            bail!("there is no variable {name:?}");
        }
    }
    definitions
        .iter()
        .map(|(name, definition)| {
            let value = given.get(name).or(definition.default.as_ref());
            match value {
                Some(value) => Ok((name.clone(), value.clone())),
                None if definition.required => {
                    bail!("the variable {name:?} is required: --variable {name}=…")
                }
                None => bail!("the variable {name:?} has neither a value nor a default"),
            }
        })
        .collect()
}

/// `text` with each `{{ name }}` replaced by the variable's value.
fn filled(text: &str, values: &BTreeMap<String, String>) -> Result<String> {
    let (mut filled, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after
            .split_once("}}")
            .with_context(|| format!("{text:?}: `{{{{` is not closed"))?;
        let name = name.trim();
        let value = values
            .get(name)
            .with_context(|| format!("{text:?}: there is no variable {name:?}"))?;
        filled.push_str(before);
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
        spin_manifest_version = 2
        [variables]
        key = { required = true, secret = true }
        level = { default = "info" }
        [[trigger.http]]
        route = "/..."
        component = "one"
        [component.one]
        source = "one.wasm"
        key_value_stores = ["default"]
        allowed_outbound_hosts = ["https://{{ level }}.example.com"]
        [component.one.variables]
        seal = "{{ key }}"
        both = "{{key}}-{{ level }}"
    "#;

    fn parsed(given: &[(&str, &str)]) -> Result<Application> {
        let given = given
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Application::parse(MANIFEST, Path::new("folder"), &given)
    }

    #[test]
    fn variables_are_filled_in_from_what_is_given_and_from_defaults() {
        let application = parsed(&[("key", "k")]).unwrap();
        assert_eq!(application.source, Path::new("folder/one.wasm"));
        assert_eq!(application.variables["seal"], "k");
        assert_eq!(application.variables["both"], "k-info");
        assert_eq!(application.key_value_stores, ["default"]);
        assert!(application.sqlite_databases.is_empty());
        let uri = "https://info.example.com/mcp".parse().unwrap();
        assert!(application.allowed.allows(&uri));
    }

    #[test]
    fn a_required_variable_must_be_given_and_an_unknown_one_may_not() {
        for (given, reason) in [
            (vec![], "required"),
            (vec![("key", "k"), ("other", "o")], "there is no variable"),
        ] {
            let error = parsed(&given).err().unwrap().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
