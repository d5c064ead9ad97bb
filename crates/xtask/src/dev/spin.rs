//! The Spin component under `spin up`, or on `crates/spin-host` where there is no `spin`:
//! both are told the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::build;
use crate::layout::{Layout, make_dir, read, write_atomically, write_private};
use crate::process::{Session, command, output};
use crate::progress::say;

/// The first version of Spin with WASI 0.3.0.
const NEEDED: (u32, u32) = (4, 1);

/// What to run.
pub struct Run<'a> {
    /// Logs and what is made for the run.
    pub dir: &'a Path,
    /// Where stores and databases are: those of another gateway, if they are to be shared.
    pub state: &'a Path,
    /// The component.
    pub component: &'a Path,
    /// Where the gateway answers.
    pub port: u16,
    /// The function's secrets.
    pub variables: &'a [(String, String)],
    /// The configuration, from which the hosts it may reach are taken.
    pub config: &'a Path,
    /// What is written into the key-value store first: a key and a file. It goes as one
    /// argument, which on Linux is 128 KiB at most.
    pub value: (&'a str, &'a Path),
}

/// Starts it.
pub fn start(layout: &Layout, run: &Run<'_>, session: &mut Session) -> Result<()> {
    let (mut host, name) = match installed() {
        true => {
            let mut spin = command("spin");
            spin.arg("up");
            (spin, "spin up")
        }
        false => (command(build::spin_host(layout)?), "the Spin host"),
    };
    let own = read(&layout.root().join("spin.toml"))?;
    let hosts = hosts(&serde_json::from_str(&read(run.config)?)?);
    let manifest = run.dir.join("spin.toml");
    let names: Vec<String> = run.variables.iter().map(|(name, _)| small(name)).collect();
    let text = manifest_for(&own, run.component, &names, &hosts)?;
    write_atomically(&manifest, text.as_bytes())?;

    let (key, file) = run.value;
    host.current_dir(run.dir)
        .arg("--from")
        .arg(&manifest)
        .args(["--listen", &format!("127.0.0.1:{}", run.port)])
        .arg("--state-dir")
        .arg(run.state)
        .args(["--key-value", &format!("{key}={}", read(file)?)]);
    for (name, file) in secret_files(run)? {
        host.args(["--variable", &format!("{name}=@{}", file.display())]);
    }
    session.start(name, &mut host, &run.dir.join("gateway.log"))
}

/// Whether there is a `spin` that can run the component.
fn installed() -> bool {
    let Some(version) = output(command("spin").arg("--version")) else {
        return false;
    };
    let can = runs_it(&version);
    say(&match can {
        true => format!("{version} is installed and runs the component"),
        false => format!(
            "{version} is installed, but the component needs {}.{} or newer: it runs on a small host of ours",
            NEEDED.0, NEEDED.1
        ),
    });
    can
}

/// Whether `spin --version` names a version with WASI 0.3.0: `spin 4.1.0 (… …)`.
fn runs_it(version: &str) -> bool {
    let mut numbers = version
        .split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .split('.')
        .map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= NEEDED,
        _ => false,
    }
}

/// Secrets in files of their own: a command line can be read by everybody.
fn secret_files(run: &Run<'_>) -> Result<Vec<(String, PathBuf)>> {
    let folder = run.dir.join("variables");
    make_dir(&folder)?;
    let file = |(name, value): &(String, String)| {
        let name = small(name);
        let file = folder.join(&name);
        write_private(&file, value.as_bytes())?;
        Ok((name, file))
    };
    run.variables.iter().map(file).collect()
}

/// A secret's name as Spin allows it.
fn small(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// The origin of every address a configuration names.
fn hosts(config: &Value) -> BTreeSet<String> {
    match config {
        Value::String(text) => origin(text).into_iter().collect(),
        Value::Array(items) => items.iter().flat_map(hosts).collect(),
        Value::Object(members) => members.values().flat_map(hosts).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => BTreeSet::new(),
    }
}

fn origin(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    matches!(scheme, "http" | "https").then(|| format!("{scheme}://{authority}"))
}

/// The repository's manifest for this component, these variables and these hosts.
fn manifest_for(
    own: &str,
    component: &Path,
    variables: &[String],
    hosts: &BTreeSet<String>,
) -> Result<String> {
    let source = component
        .to_str()
        .context("the component's path is no text")?;
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let missing = |line: &str| {
        let defines = |name: &&String| own.contains(&format!("\n{name} = "));
        let missing = variables.iter().filter(|name| !defines(name));
        missing
            .map(|name| line.replace("NAME", name))
            .collect::<String>()
    };
    let mut text = String::new();
    for line in own.lines() {
        let line = match line.split_once(" = ") {
            Some(("source", _)) => format!("source = {}", Value::from(source)),
            Some(("allowed_outbound_hosts", _)) => {
                format!("allowed_outbound_hosts = {}", Value::from(hosts.as_slice()))
            }
            _ => line.to_owned(),
        };
        text.push_str(&line);
        text.push('\n');
        if line == "[variables]" {
            text.push_str(&missing("NAME = { required = true, secret = true }\n"));
        } else if line.starts_with("[component.") && line.ends_with(".variables]") {
            text.push_str(&missing("NAME = \"{{ NAME }}\"\n"));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_spin_that_has_the_interfaces_runs_the_component() {
        for (version, runs) in [
            ("spin 4.1.0 (94a8fc8 2026-08-21)", true),
            ("spin 4.1.0-pre0 (94a8fc8 2026-08-21)", true),
            ("spin 4.10.2", true),
            ("spin 5.0.0", true),
            ("spin 4.0.2 (dc2f5f9 2026-06-02)", false),
            ("spin 3.6.3", false),
            ("spin", false),
            ("something else", false),
        ] {
            assert_eq!(runs_it(version), runs, "{version}");
        }
    }

    #[test]
    fn every_address_in_a_configuration_may_be_reached() {
        let config = json!({
            "publicUrl": "http://127.0.0.1:8787",
            "upstreams": [{"url": "https://api.example.com/mcp?x=1"}],
            "authentication": {"issuers": [{"jwksUri": "http://127.0.0.1:9787/jwks.json"}]},
            "metadata": {"name": "no://address"},
        });
        let hosts: Vec<_> = hosts(&config).into_iter().collect();
        let expected = [
            "http://127.0.0.1:8787",
            "http://127.0.0.1:9787",
            "https://api.example.com",
        ];
        assert_eq!(hosts, expected);
    }

    #[test]
    fn the_manifest_for_development_is_the_repositorys_with_the_local_parts_replaced() {
        let own = read(&Layout::find().unwrap().root().join("spin.toml")).unwrap();
        let variables = [
            "tidegate_sealing_key".to_owned(),
            "harbour_token".to_owned(),
        ];
        let hosts = BTreeSet::from(["http://127.0.0.1:1".to_owned()]);
        let text = manifest_for(&own, Path::new("/built/it.wasm"), &variables, &hosts).unwrap();
        let count = |line: &str| text.lines().filter(|each| *each == line).count();
        let components = 2;
        assert_eq!(count("source = \"/built/it.wasm\""), components, "{text}");
        assert_eq!(
            count("allowed_outbound_hosts = [\"http://127.0.0.1:1\"]"),
            components,
            "{text}"
        );
        assert_eq!(
            count("harbour_token = { required = true, secret = true }"),
            1,
            "{text}"
        );
        assert_eq!(
            count("harbour_token = \"{{ harbour_token }}\""),
            components,
            "{text}"
        );
        assert_eq!(
            text.matches("\ntidegate_sealing_key = ").count(),
            1 + components,
            "{text}"
        );
    }
}
