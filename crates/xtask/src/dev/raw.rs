//! The function on bare workerd, without wrangler's proxy in front: for benchmarks, and
//! for what only shows there (a client's disconnect reaches the upstream).
//!
//! KV and Queue are miniflare's own simulators, taken from `node_modules` and wired as
//! miniflare wires them; the Durable Object is workerd's. State lives in memory where the
//! machine has a memory file system, so that a disk is not what gets measured.

mod workerd;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::http::{self, form};
use crate::layout::{Layout, make_dir, write_private};
use crate::process::{Session, command};

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
    meter: u16,
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
        for name in ["kv-meter.mjs", "pass-through.mjs"] {
            copy(
                &layout.root().join("crates/xtask/js").join(name),
                &home.join(name),
            )?;
        }

        let state = state_dir(dir, port);
        let _ = std::fs::remove_dir_all(&state);
        make_dir(&state.join("kv"))?;
        make_dir(&state.join("objects"))?;
        let meter = http::free_port(0)?;
        let pass_through = match options.pass_through {
            Some(upstream) => Some((http::free_port(0)?, upstream)),
            None => None,
        };
        let file = home.join("config.capnp");
        // Private: the variables hold the sealing key.
        let text = workerd::text(port, meter, &state, options.variables, pass_through)?;
        write_private(&file, text.as_bytes())?;
        let mut runtime = command(layout.node_modules().join(".bin/workerd"));
        runtime.args(["serve", "--experimental"]).arg(&file);
        session.start("workerd", &mut runtime, &dir.join("gateway.log"))?;
        session.wait_until("starting workerd", Duration::from_secs(20), || {
            http::accepts(meter) && http::accepts(port)
        })?;
        Ok(Self {
            meter,
            state,
            pass_through: pass_through.map(|(port, _)| port),
        })
    }

    /// Puts one value into the KV store.
    pub fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        let path = format!("/{}?urlencoded=true", form::encode(key));
        let response = http::request(self.meter, "PUT", &path, &[], value, Duration::from_secs(5))?;
        if response.status != 200 {
            bail!("the KV simulator answered {} to a write", response.status);
        }
        Ok(())
    }

    /// What the gateway asked of KV so far.
    pub fn counts(&self) -> Result<KvCounts> {
        let response = http::request(self.meter, "GET", "/", &[], &[], Duration::from_secs(5))?;
        let counts: Value = serde_json::from_slice(&response.body)?;
        let number = |name: &str| counts[name].as_u64().context("the KV meter did not answer");
        Ok(KvCounts {
            reads: number("reads")?,
            writes: number("writes")?,
        })
    }
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
