//! Making a world: a configuration that can be changed, and upstreams in it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Value, json};
use tidegate_gateway::config::{Config, Snapshot};
use tidegate_gateway::platform::Clock;
use tidegate_simulator::Simulator;

use super::invariants::Shared;
use super::issuer::{self, Issuer};
use super::script::Script;
use super::{World, authority};

/// The deployment's sealing key: 32 bytes of `7`.
const SEALING_KEY: &str = "Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc=";

/// A world in the making.
pub struct Setup {
    config: Value,
    scripts: Vec<(String, Script)>,
    secrets: BTreeMap<String, String>,
    publish: bool,
}

impl Setup {
    /// A gateway that asks for tokens and has no upstream yet.
    pub fn new() -> Self {
        let config = json!({
            "apiVersion": "tidegate/v1",
            "kind": "Gateway",
            "metadata": { "name": "edge" },
            "publicUrl": "https://gw.example.com",
            "authentication": { "type": "jwt", "issuers": [
                { "issuer": issuer::ISSUER, "jwksUri": format!("{}/keys", issuer::ISSUER) },
            ] },
            "upstreams": [],
            "telemetry": { "logLevel": "debug" },
        });
        let secrets = BTreeMap::from([("TIDEGATE_SEALING_KEY".to_owned(), SEALING_KEY.to_owned())]);
        Self {
            config,
            scripts: Vec::new(),
            secrets,
            publish: true,
        }
    }

    /// One more upstream.
    pub fn upstream(self, name: &str, script: &Script) -> Self {
        self.upstream_with(name, script, &json!({}))
    }

    /// One more upstream, with these members in its configuration.
    pub fn upstream_with(mut self, name: &str, script: &Script, members: &Value) -> Self {
        let mut upstream =
            json!({ "name": name, "url": format!("https://{}/mcp", authority(name)) });
        merge(&mut upstream, members);
        self.config["upstreams"]
            .as_array_mut()
            .unwrap()
            .push(upstream);
        self.scripts.push((name.to_owned(), script.clone()));
        self
    }

    /// Lays `members` over the configuration, object by object.
    pub fn config(mut self, members: &Value) -> Self {
        merge(&mut self.config, members);
        self
    }

    /// A rule for a tool.
    pub fn rule(mut self, rule: Value) -> Self {
        let rules = &mut self.config["tools"];
        if rules.is_null() {
            *rules = json!([]);
        }
        rules.as_array_mut().unwrap().push(rule);
        self
    }

    /// A secret of the platform.
    pub fn secret(mut self, name: &str, text: &str) -> Self {
        self.secrets.insert(name.to_owned(), text.to_owned());
        self
    }

    /// A deployment nothing has been published to.
    pub fn unpublished(mut self) -> Self {
        self.publish = false;
        self
    }

    /// The world.
    #[track_caller]
    pub fn start(self) -> World {
        let sim = Rc::new(Simulator::new());
        for (name, text) in &self.secrets {
            sim.set_secret(name, text);
        }
        let (issuer, server) = Issuer::serve(&sim);
        let mut servers = BTreeMap::from([(issuer::NAME.to_owned(), server)]);
        for (name, script) in &self.scripts {
            servers.insert(name.clone(), script.serve(&sim, &authority(name)));
        }
        if self.publish {
            sim.kv
                .publish("config", compiled(&self.config, sim.clock.now().0));
        }
        let shared = Shared {
            issuer,
            servers: RefCell::new(servers),
            hosts: RefCell::default(),
            secrets: RefCell::default(),
            tokens: RefCell::default(),
            vault: RefCell::new(self.secrets.into_values().collect()),
        };
        World::of(sim, Rc::new(shared))
    }

    /// The snapshot `tidegate push` would publish.
    #[track_caller]
    pub fn snapshot(&self) -> Vec<u8> {
        compiled(&self.config, 0)
    }
}

#[track_caller]
fn compiled(config: &Value, now_ms: u64) -> Vec<u8> {
    let config: Config = serde_json::from_value(config.clone()).unwrap();
    let problems = config.problems();
    assert!(problems.is_empty(), "{problems:?}");
    serde_json::to_vec(&Snapshot::compile(config, now_ms).unwrap()).unwrap()
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}
