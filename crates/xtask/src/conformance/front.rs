//! The gateway in front of the fixtures: no authentication, every server at its own endpoint
//! under its own names, and all of them merged and prefixed at `/mcp`.

use anyhow::Result;
use serde_json::{Value, json};

use crate::dev::Options;
use crate::dev::gateway::Gateway;
use crate::layout::{Layout, make_dir, write_atomically};

/// What the gateway runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Bare workerd.
    Workerd,
    /// `wrangler dev`.
    Wrangler,
    /// The Spin component.
    Spin,
}

/// Starts a gateway in front of these upstreams, with these rules for tools, both given as
/// the configuration names them.
pub fn gateway(
    layout: &Layout,
    name: &str,
    upstreams: Vec<Value>,
    tools: Vec<Value>,
    runtime: Runtime,
) -> Result<Gateway> {
    let dir = layout.dev().join("conformance");
    make_dir(&dir)?;
    let file = dir.join(format!("{name}.yaml"));
    let config = json!({
        "apiVersion": "tidegate/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "owner": "tests", "environment": "dev"},
        // Replaced by where it really runs, but a configuration is whole without that.
        "publicUrl": "http://127.0.0.1:8787",
        "naming": "prefix",
        "authentication": {"type": "none"},
        "upstreams": upstreams,
        "tools": tools,
    });
    // JSON is YAML.
    write_atomically(&file, config.to_string().as_bytes())?;
    let options = Options {
        config: Some(file),
        port: Some(0),
        prefix: None,
        raw: runtime == Runtime::Workerd,
        spin: runtime == Runtime::Spin,
        upstreams: Vec::new(),
        ..Options::bare("", "")
    };
    Gateway::start(layout, &options)
}
