//! The function on bare workerd, without wrangler's proxy in front: for benchmarks, and
//! for what only shows there (a client's disconnect reaches the upstream).
//!
//! KV and Queue are miniflare's own simulators, taken from `node_modules` and wired as
//! miniflare wires them; the Durable Object is workerd's. State lives in memory where the
//! machine has a memory file system, so that a disk is not what gets measured.

mod workerd;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::http::{self, form};
use crate::layout::{Layout, make_dir, write_private};
use crate::process::{Session, command};
use workerd::Places;

/// The simulators: as they are called here, and where miniflare keeps them.
const SIMULATORS: [(&str, &str); 5] = [
    ("object-entry.js", "shared/object-entry.worker.js"),
    ("kv.js", "kv/namespace.worker.js"),
    ("queue.js", "queues/broker.worker.js"),
    ("shared.js", "shared/index.worker.js"),
    ("zod.js", "shared/zod.worker.js"),
];

/// A gateway on bare workerd.
pub struct RawHost {
    kv: u16,
    queue: u16,
    tally: Option<u16>,
    state: PathBuf,
    /// The port of a Worker that only passes requests on, if one was asked for.
    pub pass_through: Option<u16>,
}

/// What to run.
pub struct RawOptions<'a> {
    /// Where the gateway answers.
    pub port: u16,
    /// The function's variables.
    pub variables: &'a [(String, String)],
    /// An upstream to also serve through a Worker that only passes requests on.
    pub pass_through: Option<&'a str>,
    /// Whether what is asked of the objects, and what the queue brings, is counted.
    pub metered: bool,
}

/// Reads and writes of the KV store since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvCounts {
    /// Reads of one key.
    pub reads: u64,
    /// Writes and deletions.
    pub writes: u64,
}

impl KvCounts {
    /// Adds what happened between two readings.
    pub fn add(&mut self, before: &Self, after: &Self) {
        self.reads += after.reads.saturating_sub(before.reads);
        self.writes += after.writes.saturating_sub(before.writes);
    }
}

impl RawHost {
    /// Starts the bundle; its KV is empty.
    pub fn start(
        layout: &Layout,
        session: &mut Session,
        dir: &Path,
        bundle: &Path,
        options: &RawOptions<'_>,
    ) -> Result<Self> {
        let port = options.port;
        let home = dir.join("raw");
        make_dir(&home)?;
        for name in ["index.js", "index_bg.wasm"] {
            copy(&bundle.join(name), &home.join(name))?;
        }
        for (name, from) in SIMULATORS {
            let from = layout
                .node_modules()
                .join("miniflare/dist/src/workers")
                .join(from);
            copy(&from, &home.join(name))?;
        }
        for name in ["meter.mjs", "metered.mjs", "pass-through.mjs"] {
            copy(
                &layout.root().join("crates/xtask/js").join(name),
                &home.join(name),
            )?;
        }

        let state = state_dir(dir, port);
        let _ = std::fs::remove_dir_all(&state);
        make_dir(&state.join("kv"))?;
        make_dir(&state.join("objects"))?;
        let (kv, queue) = (http::free_port(0)?, http::free_port(0)?);
        let tally = options.metered.then(|| http::free_port(0)).transpose()?;
        let pass_through = match options.pass_through {
            Some(upstream) => Some((http::free_port(0)?, upstream)),
            None => None,
        };
        let places = Places {
            port,
            kv,
            queue,
            tally,
            state: &state,
            pass_through,
        };
        let file = home.join("config.capnp");
        // Private: the variables hold the sealing key.
        write_private(&file, workerd::text(&places, options.variables)?.as_bytes())?;
        let mut runtime = command(layout.node_modules().join(".bin/workerd"));
        runtime.args(["serve", "--experimental"]).arg(&file);
        session.start("workerd", &mut runtime, &dir.join("gateway.log"))?;
        session.wait_until("starting workerd", Duration::from_secs(20), || {
            http::accepts(kv) && http::accepts(port)
        })?;
        Ok(Self {
            kv,
            queue,
            tally,
            pass_through: pass_through.map(|(port, _)| port),
            state,
        })
    }

    /// Puts one value into the KV store.
    pub fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        let path = format!("/{}?urlencoded=true", form::encode(key));
        let response = http::request(self.kv, "PUT", &path, &[], value, Duration::from_secs(5))?;
        if response.status != 200 {
            bail!("the KV simulator answered {} to a write", response.status);
        }
        Ok(())
    }

    /// What the gateway asked of KV so far.
    pub fn counts(&self) -> Result<KvCounts> {
        let mut counts = KvCounts::default();
        for (method, count) in tally(self.kv)? {
            match method.as_str() {
                // Several keys at once are asked for by POST.
                "GET" | "POST" => counts.reads += count,
                _ => counts.writes += count,
            }
        }
        Ok(counts)
    }

    /// The ports of the meters, by what they stand before.
    pub fn meters(&self) -> Value {
        json!({ "kv": self.kv, "queue": self.queue, "atomic": self.tally })
    }

    /// What a metered gateway asked of its queue and its objects so far, and what the queue
    /// brought it.
    pub fn tally(&self) -> Result<BTreeMap<String, u64>> {
        let objects = self.tally.context("the gateway has no meter")?;
        let mut all = tally(objects)?;
        all.insert("queue send".to_owned(), tally(self.queue)?.values().sum());
        Ok(all)
    }
}

/// What a meter has counted, by name.
fn tally(port: u16) -> Result<BTreeMap<String, u64>> {
    let response = http::request(port, "GET", "/", &[], &[], Duration::from_secs(5))?;
    serde_json::from_slice(&response.body).context("a meter did not answer")
}

impl Drop for RawHost {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

fn state_dir(dir: &Path, port: u16) -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        memory.join(format!("tidegate-raw-{port}"))
    } else {
        dir.join("raw-state")
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}
