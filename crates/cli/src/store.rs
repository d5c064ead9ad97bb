//! The gateway's KV store: a namespace read and written by wrangler; or any other, such as
//! Spin's, whose records come in and go out as text for whatever reads and writes it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;
use serde_json::Value;
use tidegate_gateway::keyspace::{Family, Key};

use crate::Failure;
use crate::args::{Place, Wrangler};

/// The KV binding the gateway reads.
const BINDING: &str = "TIDEGATE_KV";
/// Largest record read from standard input, in bytes; the largest there is is a list of what is
/// no longer accepted.
const RECORD_MAX: u64 = 4 * 1024 * 1024;
/// Names a node 22 or later, as a program or the folder it is in.
const NODE: &str = "TIDEGATE_NODE";

/// One namespace: a machine's own, or the deployed one.
pub struct Namespace<'a> {
    wrangler: &'a Wrangler,
    remote: bool,
}

impl<'a> Namespace<'a> {
    /// The namespace that `wrangler`'s configuration binds.
    pub fn of(wrangler: &'a Wrangler, remote: bool) -> Result<Self, Failure> {
        let namespace = Self { wrangler, remote };
        // Said before anything is made that would then be lost.
        command(wrangler).map(|_| namespace)
    }

    /// Writes a value.
    pub fn put(&self, key: &str, value: &[u8]) -> Result<(), Failure> {
        let file = tempfile::Builder::new()
            .prefix("tidegate-")
            .suffix(".json")
            .tempfile()?;
        file.as_file().write_all(value)?;
        let more = [key.as_ref(), "--path".as_ref(), file.path().as_os_str()];
        self.run("put", &more).map(|_| ())
    }

    /// The names of all keys that begin so.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        let said = self.run("list", &["--prefix".as_ref(), prefix.as_ref()])?;
        let listed: Vec<Value> = serde_json::from_slice(&said)
            .map_err(|_| Failure::Failed("wrangler listed no keys as JSON".to_owned()))?;
        let name = |entry: &Value| entry["name"].as_str().map(str::to_owned);
        Ok(listed.iter().filter_map(name).collect())
    }

    /// A record, if it is there: it is listed first, for wrangler does not say of a value
    /// whether there is none or it could not be read.
    pub fn record<F: Family>(&self, key: &Key<F>) -> Result<Option<F::Record>, Failure> {
        if !self
            .names(key.as_str())?
            .iter()
            .any(|name| name == key.as_str())
        {
            return Ok(None);
        }
        let said = self.run("get", &[key.as_str().as_ref(), "--text".as_ref()])?;
        read(key, &said).map(Some)
    }

    fn run(&self, verb: &str, more: &[&OsStr]) -> Result<Vec<u8>, Failure> {
        let mut command = command(self.wrangler)?;
        command.args(["kv", "key", verb, "--binding", BINDING]);
        command.args(more);
        command.arg("--config").arg(&self.wrangler.wrangler_config);
        match &self.wrangler.persist_to {
            _ if self.remote => command.arg("--remote"),
            Some(folder) => command.arg("--local").arg("--persist-to").arg(folder),
            None => command.arg("--local"),
        };
        finish(command)
    }
}

/// Where a command's records are.
pub enum Store<'a> {
    /// In a namespace.
    Namespace(Namespace<'a>),
    /// Wherever whoever calls us has them.
    Printed,
}

impl<'a> Store<'a> {
    /// The one a command was pointed to.
    pub fn at(place: &'a Place) -> Result<Self, Failure> {
        match place.side.print {
            true => Ok(Self::Printed),
            false => Namespace::of(&place.wrangler, place.side.remote).map(Self::Namespace),
        }
    }

    /// Writes a record, or prints the line that does: `KEY=VALUE`.
    pub fn put<F: Family>(
        &self,
        key: &Key<F>,
        record: &F::Record,
        out: &mut impl Write,
    ) -> Result<(), Failure>
    where
        F::Record: Serialize,
    {
        match self {
            Self::Namespace(namespace) => namespace.put(key.as_str(), &serde_json::to_vec(record)?),
            Self::Printed => {
                let record = serde_json::to_string(record)?;
                Ok(writeln!(out, "{}={record}", key.as_str())?)
            }
        }
    }

    /// A record, if it is there.
    pub fn record<F: Family>(&self, key: &Key<F>) -> Result<Option<F::Record>, Failure> {
        match self {
            Self::Namespace(namespace) => namespace.record(key),
            Self::Printed => {
                let mut given = Vec::new();
                let mut input = std::io::stdin().lock().take(RECORD_MAX);
                // What could not be read must not be taken for what is not there: a list
                // would then be replaced by one that has forgotten.
                if input.read_to_end(&mut given)? == 0 {
                    let message = format!(
                        "nothing came on standard input; give what `{key}` holds, or an empty line if there is nothing",
                        key = key.as_str()
                    );
                    return Err(Failure::Usage(message));
                }
                match given.trim_ascii() {
                    [] => Ok(None),
                    given => read(key, given).map(Some),
                }
            }
        }
    }

    /// The namespace, where keys can be listed.
    pub fn namespace(&self) -> Result<&Namespace<'a>, Failure> {
        match self {
            Self::Namespace(namespace) => Ok(namespace),
            Self::Printed => Err(Failure::Usage(
                "there is nothing to list with --print; ask the store itself".to_owned(),
            )),
        }
    }

    /// Says something to whoever looks on: a printed record is for a program.
    pub fn say(&self, out: &mut impl Write, text: &str) -> Result<(), Failure> {
        match self {
            Self::Namespace(_) => Ok(writeln!(out, "{text}")?),
            Self::Printed => Ok(writeln!(std::io::stderr(), "{text}")?),
        }
    }
}

fn read<F: Family>(key: &Key<F>, text: &[u8]) -> Result<F::Record, Failure> {
    serde_json::from_slice(text).map_err(|e| {
        let key = key.as_str();
        Failure::Failed(format!("`{key}` is not what this version reads: {e}"))
    })
}

/// Runs wrangler and gives what it printed. What it says is shown only when it fails.
fn finish(mut command: Command) -> Result<Vec<u8>, Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::inherit()).output().map_err(|error| {
        Failure::Failed(format!(
            "{program} cannot be run: {error}; `npm install` here, or give --wrangler PATH"
        ))
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let mut err = std::io::stderr().lock();
    err.write_all(&output.stdout)?;
    err.write_all(&output.stderr)?;
    Err(Failure::Failed(format!(
        "wrangler failed ({}); nothing was published, or it is unknown",
        output.status
    )))
}

fn command(wrangler: &Wrangler) -> Result<Command, Failure> {
    let config = &wrangler.wrangler_config;
    if !config.is_file() {
        let message = format!(
            "{}: no such file; give the wrangler configuration with --wrangler-config",
            config.display()
        );
        return Err(Failure::Usage(message));
    }
    let modules = node_modules(config);
    let program = match (&wrangler.wrangler, &modules) {
        (Some(program), _) => program.clone().into_os_string(),
        (None, Some(modules)) => modules.join(".bin/wrangler").into_os_string(),
        (None, None) => OsString::from("wrangler"),
    };
    let mut command = Command::new(program);
    // Publishing works without anybody looking on: no banner, no metrics, no questions.
    for setting in [
        "WRANGLER_SEND_METRICS",
        "WRANGLER_SEND_ERROR_REPORTS",
        "CLOUDFLARE_CF_FETCH_ENABLED",
    ] {
        command.env(setting, "false");
    }
    command
        .env("WRANGLER_HIDE_BANNER", "true")
        .env("NO_COLOR", "1");
    if let Some(path) = path_with_node(modules.as_deref()) {
        command.env("PATH", path);
    }
    Ok(command)
}

/// The `node_modules` with wrangler, in the folder of its configuration or above.
fn node_modules(config: &Path) -> Option<PathBuf> {
    let config = config.canonicalize().ok()?;
    config
        .ancestors()
        .skip(1)
        .map(|folder| folder.join("node_modules"))
        .find(|m| m.join(".bin/wrangler").exists())
}

/// `PATH` with a node that wrangler can run on in front: the one named by `TIDEGATE_NODE`,
/// or the one npm installed beside wrangler.
fn path_with_node(modules: Option<&Path>) -> Option<OsString> {
    let named = env::var_os(NODE).map(PathBuf::from).map(|node| {
        let folder = if node.is_file() {
            node.parent().map(Path::to_owned)
        } else {
            None
        };
        folder.unwrap_or(node)
    });
    let installed = || {
        modules
            .map(|modules| modules.join("node/bin"))
            .filter(|folder| folder.join("node").is_file())
    };
    let folder = named.or_else(installed)?;
    let rest = env::var_os("PATH").unwrap_or_default();
    env::join_paths(std::iter::once(folder.as_os_str().to_owned()).chain(split(&rest))).ok()
}

fn split(path: &OsStr) -> Vec<OsString> {
    env::split_paths(path)
        .map(PathBuf::into_os_string)
        .collect()
}
