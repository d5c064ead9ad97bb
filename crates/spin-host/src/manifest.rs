//! `spin.toml`, as far as components behind the HTTP trigger need it.
//!
//! Read: the routes of the HTTP trigger, and of each component its source, its variables and
//! their definitions, the labels of its key-value stores and databases, and the hosts it may
//! send requests to. Other triggers and components written out in a route are refused;
//! whatever else a manifest says is passed over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use wasmtime::error::Context;
use wasmtime::{Result, bail, format_err};

use crate::allowed::Allowed;

/// What is served: components, and the paths that lead to them.
pub struct Application {
    /// Each component by its id.
    pub components: BTreeMap<String, Given>,
    /// Where each route leads.
    pub routes: Vec<(Route, String)>,
}

/// What a component is given, with every variable in its place.
pub struct Given {
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

/// The paths of one trigger: one path, or with `/...` at its end all that begin with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    path: String,
    below: bool,
}

impl Route {
    fn parse(text: &str) -> Result<Self> {
        let (path, below) = match text.strip_suffix("/...") {
            Some(path) => (path, true),
            None => (text, false),
        };
        let segments = || path.split('/').skip(1);
        if !(path.is_empty() && below || path.starts_with('/'))
            || segments().any(|segment| segment.starts_with(':') || segment == "...")
        {
            bail!("the route {text:?} is not understood");
        }
        Ok(Self {
            path: path.to_owned(),
            below,
        })
    }

    /// How well it fits a path: as Spin has it, one path before all below another, and of
    /// two of the same kind the longer one. `None` if it does not lead there.
    pub fn fits(&self, path: &str) -> Option<(bool, usize)> {
        let rest = path.strip_prefix(self.path.as_str())?;
        let fits = match self.below {
            true => rest.is_empty() || rest.starts_with('/'),
            false => rest.is_empty(),
        };
        fits.then_some((!self.below, self.path.len()))
    }
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    variables: BTreeMap<String, Variable>,
    trigger: BTreeMap<String, Vec<Trigger>>,
    component: BTreeMap<String, Component>,
}

#[derive(Deserialize)]
struct Trigger {
    route: String,
    component: String,
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
        let components = manifest.component.into_iter();
        let components = components
            .map(|(id, component)| Ok((id, component.given(folder, &values)?)))
            .collect::<Result<BTreeMap<_, _>>>()?;
        let mut routes = Vec::new();
        for (kind, triggers) in manifest.trigger {
            if kind != "http" {
                bail!("this host has no trigger {kind:?}");
            }
            for Trigger { route, component } in triggers {
                if !components.contains_key(&component) {
                    bail!("the route {route:?} leads to no component");
                }
                routes.push((Route::parse(&route)?, component));
            }
        }
        Ok(Self { components, routes })
    }
}

/// Where a path leads, of routes.
pub fn led<'a, T>(routes: &'a [(Route, T)], path: &str) -> Option<&'a T> {
    let fitting = routes.iter();
    let fitting = fitting.filter_map(|(route, to)| Some((route.fits(path)?, to)));
    fitting.max_by_key(|(fit, _)| *fit).map(|(_, to)| to)
}

impl Component {
    fn given(self, folder: &Path, values: &BTreeMap<String, String>) -> Result<Given> {
        let fill = |text: &String| filled(text, values);
        let variables = self.variables.iter();
        let variables = variables.map(|(name, text)| Ok((name.clone(), fill(text)?)));
        let hosts = self.allowed_outbound_hosts.iter().map(fill);
        Ok(Given {
            source: folder.join(self.source),
            variables: variables.collect::<Result<_>>()?,
            key_value_stores: self.key_value_stores,
            sqlite_databases: self.sqlite_databases,
            allowed: Allowed::parse(&hosts.collect::<Result<Vec<_>>>()?)?,
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
        [[trigger.http]]
        route = "/timer"
        component = "two"
        [component.two]
        source = "two.wasm"
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
        let one = &application.components["one"];
        assert_eq!(one.source, Path::new("folder/one.wasm"));
        assert_eq!(one.variables["seal"], "k");
        assert_eq!(one.variables["both"], "k-info");
        assert_eq!(one.key_value_stores, ["default"]);
        assert!(one.sqlite_databases.is_empty());
        let uri = "https://info.example.com/mcp".parse().unwrap();
        assert!(one.allowed.allows(&uri));
        assert!(!application.components["two"].allowed.allows(&uri));
    }

    #[test]
    fn a_path_leads_to_the_component_of_its_closest_route() {
        let application = parsed(&[("key", "k")]).unwrap();
        for (path, component) in [
            ("/", "one"),
            ("/mcp", "one"),
            ("/timer", "two"),
            ("/timer/", "one"),
            ("/timers", "one"),
        ] {
            assert_eq!(led(&application.routes, path).unwrap(), component, "{path}");
        }
        for (route, fits) in [("/a/...", true), ("/a", true), ("/a/b/...", false)] {
            assert_eq!(Route::parse(route).unwrap().fits("/a").is_some(), fits);
        }
        for route in ["", "a", "/:name", "/.../a"] {
            assert!(Route::parse(route).is_err(), "{route}");
        }
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
