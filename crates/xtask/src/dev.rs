//! `cargo xtask dev`: the gateway on this machine, ready for an MCP client.

pub mod cli;
mod config;
pub mod gateway;
mod options;
pub mod raw;
pub mod spin;
mod variables;
mod wrangler;

use anyhow::Result;
use serde_json::json;

use crate::arguments::Arguments;
use crate::dev::gateway::Gateway;
pub use crate::dev::options::{HELP, Options, PORT};
use crate::dev::raw::RawHost;
use crate::issuer::Issuer;
use crate::layout::{Layout, write_atomically};
use crate::progress::say;

/// The revision the printed example speaks.
const REVISION: &str = "2026-07-28";

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<()> {
    let layout = Layout::find()?;
    let options = Options::parse(arguments, &layout)?;
    if let Some(file) = &options.ready_file {
        // Left by an earlier run it would say that this one answers.
        let _ = std::fs::remove_file(file);
    }
    let mut gateway = Gateway::start(&layout, &options)?;
    let _ready = match &options.ready_file {
        Some(file) => Some(ReadyFile::write(file, &gateway)?),
        None => None,
    };
    introduce(&layout, &options, &gateway);
    gateway.session().wait_for_stop()?;
    say("ending what was started");
    Ok(())
}

/// Says for as long as it exists that the gateway answers.
struct ReadyFile<'a>(&'a std::path::Path);

impl<'a> ReadyFile<'a> {
    fn write(file: &'a std::path::Path, gateway: &Gateway) -> Result<Self> {
        let ready = json!({
            "url": gateway.url,
            "twin": gateway.twin,
            "token": gateway.token,
            "pid": std::process::id(),
            "issuer": gateway.issuer.as_ref().map(Issuer::url),
            "log": gateway.dir.join("gateway.log"),
            "meters": gateway.raw.as_ref().map(RawHost::meters),
        });
        write_atomically(file, ready.to_string().as_bytes())?;
        Ok(Self(file))
    }
}

impl Drop for ReadyFile<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

fn introduce(layout: &Layout, options: &Options, gateway: &Gateway) {
    say("ready");
    let url = &gateway.url;
    let upstreams: Vec<String> = gateway
        .upstreams
        .iter()
        .map(|(name, url)| format!("{name} at {url}"))
        .collect();
    println!("\nGateway    {url}");
    if !upstreams.is_empty() {
        println!("Upstreams  {}", upstreams.join(", "));
    }
    let mut server = json!({"type": "http", "url": url});
    match (&gateway.token, &gateway.issuer) {
        (Some(token), Some(issuer)) => {
            println!(
                "Issuer     {} (development only; a client that can log in needs no token)",
                issuer.url()
            );
            println!("Token      {token}");
            server["headers"] = json!({"Authorization": format!("Bearer {token}")});
        }
        _ if options.own_issuers => println!("Issuers    those of the configuration"),
        _ => println!("\n  *** AUTHENTICATION IS OFF: every program on this machine may call. ***"),
    }
    println!("\n{}", curl(gateway));
    let entry = json!({"mcpServers": {"tidegate": server}});
    println!(
        "\nmcp.json\n{}",
        serde_json::to_string_pretty(&entry).unwrap_or_default()
    );
    println!(
        "\nLogs       {}\nCtrl-C ends it all.",
        layout.relative(&gateway.dir.join("gateway.log"))
    );
}

/// A line that lists the tools.
fn curl(gateway: &Gateway) -> String {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": REVISION,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let body =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}});
    let token = gateway
        .token
        .as_ref()
        .map(|token| format!(" -H 'Authorization: Bearer {token}'"))
        .unwrap_or_default();
    format!(
        "curl -s {}{token} -H 'Content-Type: application/json' \
         -H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: {REVISION}' \
         -H 'Mcp-Method: tools/list' -d '{body}'",
        gateway.url
    )
}
