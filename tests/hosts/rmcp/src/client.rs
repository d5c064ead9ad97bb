//! The client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use rmcp::model::*;
use rmcp::service::{NotificationContext, Peer, RoleClient};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt};
use serde_json::{Value, json};

use crate::Flags;

#[derive(Clone, Default)]
struct Listener {
    arrivals: Arc<AtomicU64>,
}

impl ClientHandler for Listener {
    async fn on_progress(&self, _: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.arrivals.fetch_add(1, Ordering::Relaxed);
    }
}

pub async fn run(flags: &Flags) -> anyhow::Result<()> {
    let fixtures: Value =
        serde_json::from_str(&std::fs::read_to_string(flags.get("--fixtures")?)?)?;
    let fixture = &fixtures[flags.get("--fixture")?];
    let legacy = flags.get("--era").is_ok_and(|era| era == "legacy");
    let lifecycle = match legacy {
        true => ClientLifecycleMode::Initialize,
        false => ClientLifecycleMode::Discover {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        },
    };
    let listener = Listener::default();
    let arrivals = Arc::clone(&listener.arrivals);
    let transport = StreamableHttpClientTransport::from_uri(flags.get("--url")?.to_owned());
    let service = listener.serve_with_lifecycle(transport, lifecycle).await?;
    let era = if legacy { "legacy" } else { "modern" };
    for scenario in flags.get("--scenario")?.split(',') {
        let told = match scenario {
            "connect" => Ok(json!({"era": era})),
            _ => step(scenario, service.peer(), fixture, &arrivals).await,
        };
        let line = match told {
            Ok(told) => json!({"scenario": scenario, "ok": told}),
            Err(error) => {
                json!({"scenario": scenario, "failed": {"message": format!("{error:#}")}})
            }
        };
        println!("{line}");
    }
    service.cancel().await?;
    Ok(())
}

async fn step(
    scenario: &str,
    peer: &Peer<RoleClient>,
    fixture: &Value,
    arrivals: &AtomicU64,
) -> anyhow::Result<Value> {
    let asked = &fixture[scenario];
    Ok(match scenario {
        "tools" => {
            let tools = serde_json::to_value(peer.list_all_tools().await?)?;
            let names = tools
                .as_array()
                .into_iter()
                .flatten()
                .map(|tool| tool["name"].clone());
            json!({"names": names.collect::<Vec<_>>()})
        }
        "call" | "progress" => {
            let params = json!({"name": asked[0], "arguments": asked[1]});
            let result = peer.call_tool(serde_json::from_value(params)?).await?;
            let result = serde_json::to_value(result)?;
            let arrived = vec![Value::Null; usize::try_from(arrivals.load(Ordering::Relaxed))?];
            let is_error = result["isError"].as_bool().unwrap_or_default();
            json!({"text": result["content"][0]["text"], "is_error": is_error, "arrivals": arrived})
        }
        "resource" => {
            let wanted = asked.as_str().context("the fixture names no resource")?;
            let listed = peer.list_all_resources().await?;
            let listed = serde_json::to_value(listed)?;
            let uris = listed.as_array().into_iter().flatten();
            let uri = uris
                .filter_map(|resource| resource["uri"].as_str())
                .find(|uri| uri.contains(wanted))
                .context("it is not listed")?;
            let read = peer
                .read_resource(serde_json::from_value(json!({"uri": uri}))?)
                .await?;
            json!({"text": serde_json::to_value(read)?["contents"][0]["text"]})
        }
        "prompt" => {
            let params = json!({"name": asked[0], "arguments": asked[1]});
            let got = peer.get_prompt(serde_json::from_value(params)?).await?;
            json!({"text": serde_json::to_value(got)?["messages"][0]["content"]["text"]})
        }
        "complete" => {
            let reference = json!({"type": "ref/prompt", "name": asked[0]});
            let params = json!({"ref": reference, "argument": asked[1]});
            let completed = peer.complete(serde_json::from_value(params)?).await?;
            json!({"values": serde_json::to_value(completed)?["completion"]["values"]})
        }
        other => bail!("{other} is not known here"),
    })
}
