//! Public lists, shared between isolates through KV: memory → KV → the upstream.
//!
//! Only what an upstream declares `public`, and for as long as it declares, so that no
//! principal's list is ever read by another. A record is a hint like memory: its age counts
//! against the upstream's `ttlMs`, one that is older than a change this isolate has heard
//! of is not used, and losing a write costs another isolate one list.
//!
//! KV keeps one write per second and key. Each isolate writes at most once per list it
//! fetched, and only where KV, asked just before, holds none fetched within
//! [`RECENT`]: of isolates that fetch at about the same time the first that is seen has
//! written for all. Those KV does not yet show to each other may still collide; KV then
//! keeps one of them, and all say the same.

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidegate_mcp::catalog::{CacheHints, CacheScope, Kind};
use tidegate_mcp::json::Object;

use super::listed::{KEEP_MAX, Listed, UPSTREAM_ITEMS_MAX};
use crate::config::Upstream;
use crate::context::Context;
use crate::keyspace::{self, Family, Key, Store};
use crate::memory::Bounded;
use crate::platform::Platform;
use crate::seal::hex;
use crate::time::Timestamp;

/// Largest list that is shared, in bytes of its entries.
const SHARED_MAX: usize = 512 * 1024;
/// Shortest life worth a write.
const TTL_MIN: Duration = Duration::from_secs(10);
/// A record fetched so recently is not replaced.
const RECENT: Duration = Duration::from_secs(2);
/// Most lists one isolate remembers something of.
const REMEMBERED_MAX: usize = 256;

/// One upstream's whole public list.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Shape of this record.
    pub v: u32,
    /// Configured name of the upstream.
    pub upstream: String,
    /// What it lists: `tools`, `prompts`, `resources`, `resourceTemplates`.
    pub list: String,
    /// The entries, in the upstream's own names, as it wrote them.
    pub items: Vec<Object>,
    /// How long the list holds after it was fetched, in milliseconds.
    pub ttl_ms: u64,
    /// When it was fetched, milliseconds since the epoch.
    pub fetched_at_ms: u64,
}

/// The family of [`Record`], by configuration, upstream and list.
pub struct CatalogFamily;

impl Family for CatalogFamily {
    type Record = Record;
    const NAME: &'static str = "catalog";
    const STORE: Store = Store::Kv;
    const LIFETIME: Option<Duration> = Some(KEEP_MAX);
}

/// What an isolate remembers of shared lists.
pub(super) struct Memory {
    /// Lists that were not shared when they were last fetched: KV need not be asked.
    unshared: Bounded<Name, Timestamp>,
    /// When lists were heard to have changed.
    changed: Bounded<(String, Kind), Timestamp>,
}

/// Configuration, upstream, list.
type Name = (String, String, Kind);

impl Default for Memory {
    fn default() -> Self {
        Self {
            unshared: Bounded::new(REMEMBERED_MAX),
            changed: Bounded::new(REMEMBERED_MAX),
        }
    }
}

/// Records of this list from before now are not used here any more.
pub(super) fn changed<P: Platform>(context: &Context<P>, upstream: &str, kind: Kind) {
    let changed = &context.memory.catalog.shared.changed;
    changed.insert((upstream.to_owned(), kind), context.now());
}

/// The list as some isolate has shared it, while it holds.
pub(super) async fn read<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    kind: Kind,
) -> Option<Listed> {
    let now = context.now();
    let memory = &context.memory.catalog.shared;
    let unshared = memory.unshared.get(&name(context, upstream, kind));
    if unshared.is_some_and(|at| now.since(at) < KEEP_MAX) {
        return None;
    }
    let record = stored(context, upstream, kind).await?;
    let fetched_at = Timestamp(record.fetched_at_ms);
    let holds = Duration::from_millis(record.ttl_ms).min(KEEP_MAX);
    let changed = memory.changed.get(&(upstream.key().clone(), kind));
    let current = changed.is_none_or(|changed| fetched_at > changed);
    // Clocks differ; what comes from the future would hold too long.
    let dated = fetched_at <= now + RECENT;
    if !current || !dated || fetched_at + holds <= now {
        return None;
    }
    Some(Listed {
        items: record.items,
        hints: CacheHints {
            ttl_ms: record.ttl_ms,
            scope: CacheScope::Public,
        },
        asked_at: fetched_at,
    })
}

/// Shares a list just fetched, if it may be and is worth it, after the response.
pub(super) fn share<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    kind: Kind,
    listed: &Rc<Listed>,
) {
    let memory = &context.memory.catalog.shared;
    let name = name(context, upstream, kind);
    let size: usize = listed.items.iter().map(Object::text_len).sum();
    let long_enough = Duration::from_millis(listed.hints.ttl_ms) >= TTL_MIN;
    let public = listed.hints.scope == CacheScope::Public;
    if !public || !long_enough || size > SHARED_MAX {
        memory.unshared.insert(name, listed.asked_at);
        return;
    }
    memory.unshared.remove(&name);
    let (sharing, upstream, listed) = (context.clone(), upstream.clone(), Rc::clone(listed));
    context.platform.defer(async move {
        let there = stored(&sharing, &upstream, kind).await;
        let recent = |record: Record| Timestamp(record.fetched_at_ms) + RECENT >= listed.asked_at;
        if there.is_some_and(recent) {
            return;
        }
        let record = Record {
            v: 1,
            upstream: upstream.name.clone(),
            list: kind.member().to_owned(),
            items: listed.items.clone(),
            ttl_ms: listed.hints.ttl_ms,
            fetched_at_ms: listed.asked_at.0,
        };
        let key = key(&sharing, &upstream, kind);
        // Lost, it costs another isolate one list.
        let _ = keyspace::kv_put(sharing.platform.kv(), &key, &record).await;
    });
}

/// The record, if KV has one we know. Out of reach it counts as absent.
async fn stored<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    kind: Kind,
) -> Option<Record> {
    let key = key(context, upstream, kind);
    let record = keyspace::kv_get(context.platform.kv(), &key).await;
    let ours = |record: &Record| {
        record.v == 1
            && record.upstream == upstream.name
            && record.list == kind.member()
            && record.items.len() <= UPSTREAM_ITEMS_MAX
    };
    record.ok().flatten().filter(ours)
}

fn name<P: Platform>(context: &Context<P>, upstream: &Upstream, kind: Kind) -> Name {
    let digest = context.settings.digest.clone();
    (digest, upstream.key().clone(), kind)
}

/// By the configuration's digest, too: with another URL or other credentials an upstream
/// may list other things.
fn key<P: Platform>(context: &Context<P>, upstream: &Upstream, kind: Kind) -> Key<CatalogFamily> {
    let mut hash = Sha256::new();
    for part in [
        context.settings.digest.as_str(),
        upstream.key(),
        kind.member(),
    ] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    Key::of(&[&hex(&hash.finalize()[..16])])
}
