//! The function under `wrangler dev`: KV, Queue and Durable Object emulated, offline.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::layout::{Layout, read, write_atomically, write_private};
use crate::process::Session;
use crate::setup::node;

/// What the second gateway's Worker is called.
const TWIN: &str = "tidegate-twin";

/// Sections of `wrangler.toml` that are the first gateway's alone, or only for deploying.
const NOT_FOR_TWIN: [&str; 3] = ["[[migrations]]", "[triggers]", "[build]"];

/// Starts `wrangler dev` with a bundle, its state in `dir/state`. Limiters that `config`
/// counts with are bound as it wants them.
#[expect(
    clippy::too_many_arguments,
    reason = "each is one thing wrangler is told"
)]
pub fn start(
    layout: &Layout,
    node: &Path,
    dir: &Path,
    bundle: &Path,
    port: u16,
    variables: &[(String, String)],
    config: &Path,
    session: &mut Session,
) -> Result<()> {
    let mut wrangler = dev(layout, node, dir, port, variables)?;
    let main = bundle.join("index.js");
    let limiters = limiters(&serde_json::from_str(&read(config)?)?);
    if limiters.is_empty() {
        wrangler.arg(main);
    } else {
        let own = read(&layout.root().join("wrangler.toml"))?;
        let file = dir.join("wrangler.toml");
        let text = elsewhere(&own, &main) + &limiters;
        write_atomically(&file, text.as_bytes())?;
        wrangler.arg("--config").arg(&file);
    }
    environment(layout, dir, &mut wrangler)?;
    session.start("wrangler dev", &mut wrangler, &dir.join("gateway.log"))
}

/// Starts a second one in `dir/twin`. Its objects are those of the first, which wrangler
/// finds through the registry they share; everything else is its own.
pub fn start_twin(
    layout: &Layout,
    node: &Path,
    dir: &Path,
    bundle: &Path,
    port: u16,
    variables: &[(String, String)],
    session: &mut Session,
) -> Result<()> {
    let home = dir.join("twin");
    let main = bundle.join("index.js");
    let config = twin_config(&read(&layout.root().join("wrangler.toml"))?, &main)?;
    let file = home.join("wrangler.toml");
    write_atomically(&file, config.as_bytes())?;
    let mut wrangler = dev(layout, node, &home, port, variables)?;
    wrangler.arg("--config").arg(&file);
    environment(layout, dir, &mut wrangler)?;
    wrangler.env("WRANGLER_LOG_PATH", home.join("wrangler"));
    session.start("its twin", &mut wrangler, &home.join("gateway.log"))
}

fn dev(
    layout: &Layout,
    node: &Path,
    home: &Path,
    port: u16,
    variables: &[(String, String)],
) -> Result<Command> {
    let file = home.join("dev.vars");
    let lines: String = variables
        .iter()
        .map(|(name, value)| format!("{name}={}\n", Value::from(value.as_str())))
        .collect();
    write_private(&file, lines.as_bytes())?;
    let mut wrangler = node::script(layout, node, "wrangler/bin/wrangler.js")?;
    wrangler
        .arg("dev")
        .args(["--local", "--ip", "127.0.0.1"])
        .args(["--inspector-port", "0", "--port", &port.to_string()])
        .args(["--show-interactive-dev-session=false", "--log-level", "log"])
        // Takes every word that follows up to the next flag.
        .arg("--env-file")
        .arg(&file)
        .arg("--persist-to")
        .arg(home.join("state"))
        .env("TIDEGATE_PREBUILT", "1");
    Ok(wrangler)
}

/// The limiters of a configuration, as sections of `wrangler.toml`.
fn limiters(config: &Value) -> String {
    let rules = config["limits"]["rules"].as_array();
    let native = rules.into_iter().flatten().zip(1..);
    let native = native.filter(|(rule, _)| rule["counter"] == "native");
    let section = |(rule, number): (&Value, u32)| {
        let (binding, requests) = (&rule["binding"], &rule["rate"]["requests"]);
        // Without a window it is a minute.
        let seconds = rule["rate"]["windowMs"].as_u64().unwrap_or(60_000) / 1000;
        format!(
            "\n[[ratelimits]]\nname = {binding}\nnamespace_id = \"{number}\"\n\
             simple = {{ limit = {requests}, period = {seconds} }}\n"
        )
    };
    native.map(section).collect()
}

/// `wrangler.toml` for the same Worker, in another folder, built already; without limiters,
/// which the configuration names.
fn elsewhere(own: &str, main: &Path) -> String {
    let mut kept = String::new();
    let mut section = "";
    for line in own.lines() {
        if line.starts_with('[') {
            section = line;
        }
        match (section, line.split_once(" = ")) {
            ("[build]" | "[[ratelimits]]", _) => continue,
            ("", Some(("main", _))) => {
                kept.push_str(&format!("main = {}", Value::from(main.to_string_lossy())));
            }
            _ => kept.push_str(line),
        }
        kept.push('\n');
    }
    kept
}

/// `wrangler.toml` for a Worker whose objects are another's.
fn twin_config(own: &str, main: &Path) -> Result<String> {
    let name = own
        .lines()
        .find_map(|line| line.strip_prefix("name = "))
        .context("wrangler.toml names no Worker")?;
    let mut kept = String::new();
    let mut section = "";
    for line in own.lines() {
        if line.starts_with('[') {
            section = line;
        }
        if NOT_FOR_TWIN.contains(&section) {
            continue;
        }
        let line = match line.split_once(" = ") {
            Some(("name", _)) if section.is_empty() => format!("name = \"{TWIN}\""),
            Some(("main", _)) if section.is_empty() => {
                format!("main = {}", Value::from(main.to_string_lossy()))
            }
            Some(("class_name", _)) => format!("{line}\nscript_name = {name}"),
            _ => line.to_owned(),
        };
        kept.push_str(&line);
        kept.push('\n');
    }
    Ok(kept)
}

/// What keeps wrangler on this machine, and finds it a Node new enough.
pub fn environment(layout: &Layout, dir: &Path, command: &mut Command) -> Result<()> {
    let node = node::binary(layout)?;
    // A bare name is found on the PATH already.
    let mut first: Vec<PathBuf> = node
        .parent()
        .filter(|dir| dir.is_absolute())
        .map(Path::to_path_buf)
        .into_iter()
        .collect();
    first.push(layout.node_modules().join(".bin"));
    command
        .env("PATH", crate::toolchain::with_path(&first)?)
        .env("CI", "1")
        .env("WRANGLER_SEND_METRICS", "false")
        .env("WRANGLER_SEND_ERROR_REPORTS", "false")
        .env("WRANGLER_HIDE_BANNER", "true")
        .env("CLOUDFLARE_CF_FETCH_ENABLED", "false")
        // Several gateways may run here at once; they must not find each other.
        .env("WRANGLER_REGISTRY_PATH", dir.join("registry"))
        .env("WRANGLER_LOG_PATH", dir.join("wrangler"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limiter_is_bound_as_the_configuration_wants_it() {
        let config = serde_json::json!({ "limits": { "rules": [
            { "name": "a", "rate": { "requests": 5 } },
            { "name": "b", "rate": { "requests": 5, "windowMs": 10_000 }, "counter": "native", "binding": "B" },
        ] } });
        let sections = limiters(&config);
        assert_eq!(
            sections,
            "\n[[ratelimits]]\nname = \"B\"\nnamespace_id = \"2\"\nsimple = { limit = 5, period = 10 }\n"
        );
        let root = Layout::find().unwrap();
        let own = read(&root.root().join("wrangler.toml")).unwrap();
        let moved = elsewhere(&(own.clone() + &sections), Path::new("/bundle/index.js"));
        assert!(moved.contains("main = \"/bundle/index.js\"\n"), "{moved}");
        let left_out = |line: &str| ["[build]", "[[ratelimits]]"].contains(&line);
        assert!(!moved.lines().any(left_out), "{moved}");
        let count = |text: &str| text.matches("binding = ").count();
        assert_eq!(count(&moved), count(&own));
    }

    #[test]
    fn a_twin_has_the_objects_of_the_worker_it_is_made_from_and_no_own() {
        let root = Layout::find().unwrap();
        let own = read(&root.root().join("wrangler.toml")).unwrap();
        let twin = twin_config(&own, Path::new("/bundle/index.js")).unwrap();
        let count = |text: &str, line: &str| text.lines().filter(|l| l.contains(line)).count();
        assert_eq!(
            count(&twin, "script_name = \"tidegate\""),
            count(&own, "class_name = ")
        );
        assert!(twin.contains("name = \"tidegate-twin\""), "{twin}");
        assert!(twin.contains("main = \"/bundle/index.js\""), "{twin}");
        assert!(!twin.contains("[[migrations]]"), "{twin}");
        assert_eq!(count(&twin, "binding = "), count(&own, "binding = "));
    }
}
