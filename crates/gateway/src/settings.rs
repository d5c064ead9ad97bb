//! The configuration in force: read memory → KV, compiled once, last good one kept.
//!
//! A snapshot that cannot be read or has problems never replaces one that works; it is
//! reported in the log each time it is met. While one is in memory no request waits for
//! KV: a snapshot older than [`REFRESH`] is renewed after the response.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::config::{Config, ConfigFamily, Snapshot, ToolRule, ToolRules, Upstream};
use crate::edge::Edge;
use crate::error::{Error, Fault};
use crate::keyspace::Key;
use crate::platform::{Clock, KvStore, LogLevel, Platform};
use crate::policy::Rules;
use crate::seal::Sealer;
use crate::tenancy::Sites;
use crate::time::Timestamp;

/// How long a snapshot in memory is used before KV is asked again: with KV's own delay
/// this bounds how long a push takes to be in force everywhere.
pub const REFRESH: Duration = Duration::from_secs(30);

/// A configuration with everything that follows from it, found once per isolate.
pub struct Settings {
    /// The configuration as published.
    pub config: Config,
    /// Its digest.
    pub digest: String,
    /// The deployment's sealing keys.
    pub sealer: Sealer,
    /// The policy's rules, compiled, if it has any.
    pub rules: Option<Rules>,
    /// Which requests are looked at.
    pub edge: Edge,
    /// The parts of the gateway that are one tenant's.
    pub sites: Sites,
    upstreams: BTreeMap<String, usize>,
    /// Other versions of upstreams, by their keys.
    versions: BTreeMap<String, Upstream>,
    /// The rules for tools.
    pub tool_rules: ToolRules,
}

impl Settings {
    async fn build<P: Platform>(platform: &P, snapshot: Snapshot) -> Result<Self, Fault> {
        let Snapshot { digest, config, .. } = snapshot;
        let sealer = Sealer::load(platform).await?;
        // A snapshot with problems in its rules was refused already.
        let rules = Rules::compile(&config)
            .map_err(|_| Fault::Internal("the policy's rules cannot be compiled".to_owned()))?;
        let upstreams = config
            .upstreams
            .iter()
            .enumerate()
            .map(|(i, u)| (u.name.clone(), i))
            .collect();
        let versions = config.upstreams.iter().flat_map(Upstream::versions);
        let versions = versions.map(|version| (version.key().clone(), version));
        let versions = versions.collect();
        Ok(Self {
            edge: Edge::of(&config.edge),
            sites: Sites::of(&config),
            tool_rules: ToolRules::of(&config),
            config,
            digest,
            sealer,
            rules,
            upstreams,
            versions,
        })
    }

    /// The upstream of that name.
    pub fn upstream(&self, name: &str) -> Option<&Upstream> {
        self.upstreams
            .get(name)
            .and_then(|index| self.config.upstreams.get(*index))
    }

    /// The version of an upstream that is known by `key`. Keys are never a client's to say.
    pub(crate) fn version(&self, key: &str) -> Option<&Upstream> {
        self.versions.get(key).or_else(|| self.upstream(key))
    }

    /// The rule for a tool.
    pub fn rule(&self, upstream: &str, tool: &str) -> Option<&ToolRule> {
        self.tool_rules.rule(upstream, tool)
    }

    /// Whether the operator wants lines of this urgency.
    pub fn logs(&self, level: LogLevel) -> bool {
        level >= self.config.telemetry.log_level
    }
}

/// What an isolate remembers of the configuration.
#[derive(Default)]
pub struct Memory {
    current: RefCell<Option<Rc<Settings>>>,
    attempted_at: Cell<Timestamp>,
}

/// The settings in force.
pub(crate) async fn load<P: Platform>(
    platform: &Rc<P>,
    memory: &Rc<crate::memory::Memory>,
) -> Result<Rc<Settings>, Error> {
    let now = platform.clock().now();
    let current = memory.settings.current.borrow().clone();
    let Some(settings) = current else {
        memory.settings.attempted_at.set(now);
        return refresh(platform.as_ref(), &memory.settings)
            .await
            .map_err(Error::from);
    };
    if now.since(memory.settings.attempted_at.get()) >= REFRESH {
        memory.settings.attempted_at.set(now);
        let (renewing, memory) = (Rc::clone(platform), Rc::clone(memory));
        platform.defer(async move {
            if let Err(fault) = refresh(renewing.as_ref(), &memory.settings).await {
                let reason = serde_json::Value::from(fault.to_string());
                renewing.log(
                    LogLevel::Error,
                    &format!(r#"{{"event":"config_kept","reason":{reason}}}"#),
                );
            }
        });
    }
    Ok(settings)
}

async fn refresh<P: Platform>(platform: &P, memory: &Memory) -> Result<Rc<Settings>, Fault> {
    let bytes = match platform
        .kv()
        .get(Key::<ConfigFamily>::single().as_str())
        .await
    {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            return Err(Fault::NoConfiguration(
                "nothing has been published".to_owned(),
            ));
        }
        Err(e) => return Err(Fault::NoConfiguration(e.to_string())),
    };
    let snapshot = Snapshot::parse(&bytes).map_err(Fault::NoConfiguration)?;
    let kept = memory.current.borrow().clone();
    if let Some(kept) = kept.filter(|kept| kept.digest == snapshot.digest) {
        return Ok(kept);
    }
    let settings = Rc::new(Settings::build(platform, snapshot).await?);
    *memory.current.borrow_mut() = Some(Rc::clone(&settings));
    Ok(settings)
}
