//! The official Rust SDK on both sides of the gateway.
//!
//!     interop-rmcp serve --port N
//!     interop-rmcp client --url URL --fixture NAME --scenario NAME,… --fixtures FILE [--era legacy]
//!
//! The server has what the `reference` fixture asks for. The client prints a JSON line per
//! scenario, as the scripts in `tests/hosts/clients` do.

mod client;
mod server;

use std::collections::BTreeMap;

use anyhow::{Context, bail};

/// The words after the role, in pairs.
struct Flags(BTreeMap<String, String>);

impl Flags {
    fn get(&self, name: &str) -> anyhow::Result<&str> {
        let value = self
            .0
            .get(name)
            .with_context(|| format!("{name} is missing"))?;
        Ok(value)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let role = words.next().unwrap_or_default();
    let mut flags = Flags(BTreeMap::new());
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        flags.0.insert(name, value);
    }
    match role.as_str() {
        "serve" => server::serve(flags.get("--port")?.parse()?).await,
        "client" => client::run(&flags).await,
        _ => bail!("serve or client?"),
    }
}
