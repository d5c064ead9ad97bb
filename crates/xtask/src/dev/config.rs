//! The configuration `dev` pushes: the given file, or an empty one, with what only holds
//! here laid over it: the local URL, the development issuer, and the upstreams started.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::layout::read;

/// How long a demo call may take: its slowest tool runs for as long as it is told to.
const DEMO_TIMEOUT_MS: u64 = 60_000;

/// What is laid over the file.
#[derive(Clone, Debug)]
pub struct Overlay<'a> {
    /// Where the gateway answers, without a path.
    pub public_url: &'a str,
    /// Whose tokens are accepted.
    pub trust: Trust<'a>,
    /// Whether tools are named `upstream__tool`; the file decides if unset.
    pub prefix: Option<bool>,
    /// Upstreams added to those of the file: name and URL.
    pub upstreams: &'a [(String, String)],
}

/// Whose tokens are accepted.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// The issuer at this URL.
    Issuer(&'a str),
    /// Those the configuration names.
    Own,
    /// Nobody is asked for a token.
    Nobody,
}

/// Reads a configuration file, or starts an empty one.
pub fn load(file: Option<&Path>) -> Result<Value> {
    let Some(file) = file else {
        return Ok(json!({
            "apiVersion": "tidegate/v1",
            "kind": "Gateway",
            "metadata": {"name": "demo", "owner": "dev"},
        }));
    };
    let value: Value = serde_norway::from_str(&read(file)?)
        .with_context(|| format!("{} is not valid YAML", file.display()))?;
    if !value.is_object() {
        bail!(
            "{} is not a mapping; README.md shows a whole file",
            file.display()
        );
    }
    Ok(value)
}

/// Lays the development settings over a configuration.
pub fn overlay(config: &mut Value, over: &Overlay<'_>) -> Result<()> {
    let root = config
        .as_object_mut()
        .context("the configuration is not a mapping")?;
    entry(root, "metadata")?.insert("environment".into(), json!("dev"));
    root.insert("publicUrl".into(), json!(over.public_url));
    if let Some(prefix) = over.prefix {
        root.insert(
            "naming".into(),
            json!(if prefix { "prefix" } else { "bare" }),
        );
    }
    authentication(root, over.trust)?;
    let upstreams = root.entry("upstreams").or_insert_with(|| json!([]));
    let upstreams = upstreams
        .as_array_mut()
        .context("`upstreams` is not a list")?;
    for (name, url) in over.upstreams {
        upstreams.push(json!({"name": name, "url": url, "timeoutMs": DEMO_TIMEOUT_MS}));
    }
    Ok(())
}

fn authentication(root: &mut Map<String, Value>, trust: Trust<'_>) -> Result<()> {
    let issuer = match trust {
        Trust::Issuer(issuer) => issuer,
        Trust::Own => return Ok(()),
        Trust::Nobody => {
            root.insert("authentication".into(), json!({"type": "none"}));
            return Ok(());
        }
    };
    let authentication = entry(root, "authentication")?;
    authentication.insert("type".into(), json!("jwt"));
    // What the file demands of tokens stays; who issues them is ours.
    let mut trusted = authentication
        .get("issuers")
        .and_then(|issuers| issuers.get(0))
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    trusted.remove("algorithms");
    trusted.insert("issuer".into(), json!(issuer));
    trusted.insert("jwksUri".into(), json!(format!("{issuer}/jwks.json")));
    authentication.insert("issuers".into(), json!([trusted]));
    Ok(())
}

fn entry<'a>(root: &'a mut Map<String, Value>, name: &str) -> Result<&'a mut Map<String, Value>> {
    root.entry(name)
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .with_context(|| format!("`{name}` is not a mapping"))
}

/// Marks the demo's slow tool as a task, so that tasks can be tried at once.
pub fn demo_task(config: &mut Value, upstream: &str) {
    if let Some(root) = config.as_object_mut() {
        let tools = root.entry("tools").or_insert_with(|| json!([]));
        if let Some(tools) = tools.as_array_mut() {
            tools.push(json!({
                "name": format!("{upstream}__trigger-long-running-operation"),
                "execution": "task",
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid(text: &str, trust: Trust<'_>) -> Value {
        let mut config: Value = serde_norway::from_str(text).unwrap();
        let upstreams = [("demo".to_owned(), "http://127.0.0.1:1/mcp".to_owned())];
        let over = Overlay {
            public_url: "http://127.0.0.1:8787",
            trust,
            prefix: None,
            upstreams: &upstreams,
        };
        overlay(&mut config, &over).unwrap();
        config
    }

    #[test]
    fn what_the_file_says_stays_and_what_holds_here_wins() {
        let text = "
            publicUrl: https://gateway.example
            naming: bare
            metadata: { name: search, environment: production }
            upstreams: [{ name: search, url: https://search.example/mcp }]
            authentication:
              type: jwt
              issuers: [{ issuer: https://login.example, jwksUri: x, algorithms: [RS256], requiredClaims: { tenant: t } }]
        ";
        let config = laid(text, Trust::Issuer("http://127.0.0.1:9787"));
        assert_eq!(config["publicUrl"], "http://127.0.0.1:8787");
        assert_eq!(config["naming"], "bare");
        assert_eq!(
            config["metadata"],
            json!({"name": "search", "environment": "dev"})
        );
        assert_eq!(config["upstreams"][0]["name"], "search");
        assert_eq!(config["upstreams"][1]["name"], "demo");
        assert_eq!(
            config["authentication"]["issuers"],
            json!([{
                "issuer": "http://127.0.0.1:9787",
                "jwksUri": "http://127.0.0.1:9787/jwks.json",
                "requiredClaims": {"tenant": "t"},
            }])
        );
    }

    #[test]
    fn without_an_issuer_nobody_is_asked_for_a_token() {
        let config = laid(
            "authentication: { type: jwt, issuers: [{ issuer: a }] }",
            Trust::Nobody,
        );
        assert_eq!(config["authentication"], json!({"type": "none"}));
    }

    #[test]
    fn issuers_of_ones_own_stay() {
        let text = "authentication: { type: jwt, issuers: [{ issuer: a }, { issuer: b }] }";
        let config = laid(text, Trust::Own);
        let issuers = json!([{"issuer": "a"}, {"issuer": "b"}]);
        assert_eq!(config["authentication"]["issuers"], issuers);
    }
}
