//! workerd's configuration for the raw host: the gateway, miniflare's simulators behind its
//! bindings, and two sockets on loopback.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::pins;

/// Names `wrangler.toml` gives; a test compares them.
const KV: &str = "TIDEGATE_KV";
const QUEUE: &str = "TIDEGATE_QUEUE";
const ATOMIC: &str = "TIDEGATE_ATOMIC";
const ATOMIC_CLASS: &str = "AtomicCell";
const KEEPER: &str = "TIDEGATE_KEEPER";
const KEEPER_CLASS: &str = "Keeper";
const TASKS: Consumer = Consumer {
    queue: "tidegate-tasks",
    batch: 50,
    retries: 100,
};
const DEAD: Consumer = Consumer {
    queue: "tidegate-dead",
    batch: 10,
    retries: 100,
};
const BATCH_SECONDS: u32 = 0;

/// How one queue is consumed.
struct Consumer {
    queue: &'static str,
    batch: u32,
    retries: u32,
}

impl Consumer {
    /// As the simulator is told.
    fn simulated(&self) -> Value {
        json!({"workerName": "gateway", "maxBatchSize": self.batch,
            "maxBatchTimeout": BATCH_SECONDS, "maxRetries": self.retries})
    }
}

/// Ports and paths of one runtime.
pub struct Places<'a> {
    /// Where the gateway answers.
    pub port: u16,
    /// Where the meter of KV is read, and the configuration written.
    pub kv: u16,
    /// Where the meter of the queue is read.
    pub queue: u16,
    /// Where the tally of a function with a meter is read.
    pub tally: Option<u16>,
    /// Where the state is kept.
    pub state: &'a Path,
    /// Where a Worker answers that only passes requests on, and to what.
    pub pass_through: Option<(u16, &'a str)>,
}

/// Date the simulators are written for.
const SIMULATOR_DATE: &str = "2023-07-24";

/// Text as workerd's configuration language writes it; JSON's escapes are a subset.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The whole configuration; files it embeds lie beside it.
pub fn text(places: &Places<'_>, variables: &[(String, String)]) -> Result<String> {
    let &Places {
        port,
        kv,
        queue,
        tally,
        state,
        pass_through,
    } = places;
    let (mut socket, mut service, mut worker) = (String::new(), String::new(), String::new());
    if let Some((port, upstream)) = pass_through {
        socket = format!(
            r#"    (name = "pass-through", address = "127.0.0.1:{port}", http = (),
      service = "pass-through"),
"#
        );
        service = r#"    (name = "pass-through", worker = .passThrough),
"#
        .to_owned();
        worker = format!(
            r#"
const passThrough :Workerd.Worker = (
  modules = [(name = "pass-through.mjs", esModule = embed "pass-through.mjs")],
  compatibilityDate = "{}",
  globalOutbound = "internet",
  bindings = [(name = "UPSTREAM", text = {})],
);
"#,
            pins::COMPATIBILITY_DATE,
            quoted(upstream)
        );
    }
    let mut main = String::new();
    if let Some(port) = tally {
        write!(
            socket,
            r#"    (name = "tally", address = "127.0.0.1:{port}", http = (),
      service = (name = "gateway", entrypoint = "Tally")),
"#
        )?;
        main = r#"    (name = "metered.mjs", esModule = embed "metered.mjs"),
"#
        .to_owned();
    }
    let mut gateway_bindings = String::new();
    for (name, value) in variables {
        writeln!(
            gateway_bindings,
            "    (name = {}, text = {}),",
            quoted(name),
            quoted(value)
        )?;
    }
    let mut tasks = TASKS.simulated();
    tasks["deadLetterQueue"] = DEAD.queue.into();
    let consumers = json!({TASKS.queue: tasks, DEAD.queue: DEAD.simulated()});
    let producers = json!({QUEUE: {"workerName": "gateway", "queueName": TASKS.queue}});
    let kv_disk = quoted(&state.join("kv").display().to_string());
    let object_disk = quoted(&state.join("objects").display().to_string());
    let consumers = quoted(&consumers.to_string());
    let producers = quoted(&producers.to_string());
    let (date, tasks_queue) = (pins::COMPATIBILITY_DATE, TASKS.queue);
    Ok(format!(
        r#"using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "gateway", worker = .gateway),
    (name = "internet", network = (
      allow = ["public", "private", "local"], tlsOptions = (trustBrowserCas = true))),
    (name = "kv-meter", worker = .kvMeter),
    (name = "kv", worker = .kv),
    (name = "kv-objects", worker = .kvObjects),
    (name = "kv-disk", disk = (path = {kv_disk}, writable = true)),
    (name = "queue-meter", worker = .queueMeter),
    (name = "queue", worker = .queue),
    (name = "queue-objects", worker = .queueObjects),
    (name = "object-disk", disk = (path = {object_disk}, writable = true)),
{service}  ],
  sockets = [
    (name = "gateway", address = "127.0.0.1:{port}", http = (), service = "gateway"),
    (name = "kv-meter", address = "127.0.0.1:{kv}", http = (),
      service = (name = "kv-meter", entrypoint = "control")),
    (name = "queue-meter", address = "127.0.0.1:{queue}", http = (),
      service = (name = "queue-meter", entrypoint = "control")),
{socket}  ],
  extensions = [(modules = [
    (name = "miniflare:shared", esModule = embed "shared.js"),
    (name = "miniflare:zod", esModule = embed "zod.js"),
  ])],
);

const gateway :Workerd.Worker = (
  modules = [
{main}    (name = "index.js", esModule = embed "index.js"),
    (name = "index_bg.wasm", wasm = embed "index_bg.wasm"),
  ],
  compatibilityDate = "{date}",
  globalOutbound = "internet",
  durableObjectNamespaces = [
    (className = "{ATOMIC_CLASS}", uniqueKey = "tidegate-{ATOMIC_CLASS}", enableSql = true),
    (className = "{KEEPER_CLASS}", uniqueKey = "tidegate-{KEEPER_CLASS}", enableSql = true)],
  durableObjectStorage = (localDisk = "object-disk"),
  bindings = [
    (name = "{KV}", kvNamespace = "kv-meter"),
    (name = "{QUEUE}", queue = "queue-meter"),
    (name = "{ATOMIC}", durableObjectNamespace = "{ATOMIC_CLASS}"),
    (name = "{KEEPER}", durableObjectNamespace = "{KEEPER_CLASS}"),
{gateway_bindings}  ],
);

const kvMeter :Workerd.Worker = (
  modules = [(name = "meter.mjs", esModule = embed "meter.mjs")],
  compatibilityDate = "{date}",
  bindings = [(name = "store", service = "kv")],
);

const queueMeter :Workerd.Worker = (
  modules = [(name = "meter.mjs", esModule = embed "meter.mjs")],
  compatibilityDate = "{date}",
  bindings = [(name = "store", service = "queue")],
);

const kv :Workerd.Worker = (
  modules = [(name = "object-entry.js", esModule = embed "object-entry.js")],
  compatibilityDate = "{SIMULATOR_DATE}",
  bindings = [
    (name = "MINIFLARE_NAMESPACE", text = "{KV}"),
    (name = "MINIFLARE_OBJECT", durableObjectNamespace = (
      className = "KVNamespaceObject", serviceName = "kv-objects")),
  ],
);

const kvObjects :Workerd.Worker = (
  modules = [(name = "kv.js", esModule = embed "kv.js")],
  compatibilityDate = "{SIMULATOR_DATE}",
  compatibilityFlags = ["nodejs_compat", "experimental"],
  durableObjectNamespaces = [
    (className = "KVNamespaceObject", uniqueKey = "miniflare-KVNamespaceObject")],
  durableObjectStorage = (localDisk = "kv-disk"),
  bindings = [(name = "MINIFLARE_BLOBS", service = "kv-disk")],
);

const queue :Workerd.Worker = (
  modules = [(name = "object-entry.js", esModule = embed "object-entry.js")],
  compatibilityDate = "{SIMULATOR_DATE}",
  bindings = [
    (name = "MINIFLARE_NAMESPACE", text = "{tasks_queue}"),
    (name = "MINIFLARE_OBJECT", durableObjectNamespace = (
      className = "QueueBrokerObject", serviceName = "queue-objects")),
  ],
);

const queueObjects :Workerd.Worker = (
  modules = [(name = "queue.js", esModule = embed "queue.js")],
  compatibilityDate = "{SIMULATOR_DATE}",
  compatibilityFlags = ["nodejs_compat", "experimental", "service_binding_extra_handlers"],
  durableObjectNamespaces = [(className = "QueueBrokerObject",
    uniqueKey = "miniflare-QueueBrokerObject", preventEviction = true)],
  durableObjectStorage = (inMemory = void),
  bindings = [
    (name = "MINIFLARE_OBJECT", durableObjectNamespace = "QueueBrokerObject"),
    (name = "MINIFLARE_QUEUE_PRODUCERS", json = {producers}),
    (name = "MINIFLARE_QUEUE_CONSUMERS", json = {consumers}),
    (name = "MINIFLARE_WORKER_gateway", service = "gateway"),
  ],
);
{worker}"#
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::read;

    #[test]
    fn the_bindings_are_those_of_wrangler_toml() {
        let root = crate::layout::Layout::find().unwrap();
        let text = read(&root.root().join("wrangler.toml")).unwrap();
        for line in [
            format!("binding = \"{KV}\""),
            format!("binding = \"{QUEUE}\""),
            format!("name = \"{ATOMIC}\""),
            format!("class_name = \"{ATOMIC_CLASS}\""),
            format!("name = \"{KEEPER}\""),
            format!("class_name = \"{KEEPER_CLASS}\""),
            format!("dead_letter_queue = \"{}\"", DEAD.queue),
        ] {
            assert!(text.contains(&line), "wrangler.toml lacks {line}");
        }
        for consumer in [TASKS, DEAD] {
            let queue = format!("queue = \"{}\"", consumer.queue);
            let mut sections = text.split("[[queues.consumers]]").skip(1);
            let own = sections.find(|section| section.trim_start().starts_with(&queue));
            let own = own.unwrap().split("[[").next().unwrap();
            for line in [
                format!("max_batch_size = {}\n", consumer.batch),
                format!("max_batch_timeout = {BATCH_SECONDS}\n"),
                format!("max_retries = {}\n", consumer.retries),
            ] {
                assert!(own.contains(&line), "{queue} lacks {line}");
            }
        }
    }

    #[test]
    fn a_variable_cannot_break_out_of_its_quotes() {
        let variables = [("A".to_owned(), "x\"), (name = \"B\n".to_owned())];
        let places = Places {
            port: 1,
            kv: 2,
            queue: 3,
            tally: Some(4),
            state: Path::new("/state"),
            pass_through: None,
        };
        let text = text(&places, &variables).unwrap();
        assert!(text.contains(r#"text = "x\"), (name = \"B\n""#));
    }
}
