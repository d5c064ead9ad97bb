//! What is there before the first answer: how large each function is, and how long a new
//! instance of it takes.
//!
//! Spin makes an instance for a request whenever none is left; workerd makes the isolate when
//! it starts, so there the time is that of a process, less that of one with the smallest
//! Worker.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::dev::gateway::Gateway;
use crate::layout::{Layout, make_dir, write_atomically};
use crate::process::command;
use crate::size::{kib, measure};
use crate::{clock, http, pins, stop};

/// Longer than Spin keeps an instance without work.
const FORGOTTEN: Duration = Duration::from_millis(1_500);
/// How often a new instance is made to answer.
const TIMES: usize = 15;
/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often a process that starts is asked.
const ASK_EVERY: Duration = Duration::from_millis(1);

/// The median of what was taken that often.
fn median(mut took: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    let mut all = Vec::new();
    for _ in 0..TIMES {
        stop::check()?;
        all.push(took()?);
    }
    all.sort_unstable();
    Ok(all.get(TIMES / 2).copied().unwrap_or_default())
}

/// Prints sizes and first answers of the Worker and the component `spin` runs.
pub fn report(layout: &Layout, bundle: &Path, spin: &Gateway) -> Result<()> {
    let component = layout
        .root()
        .join("functions/spin/build/tidegate_spin.wasm");
    let worker = measure(&bundle.join("index_bg.wasm"))?;
    let component = measure(&component)?;
    let folder = layout.dev().join("cold");
    make_dir(&folder)?;
    let gateway = process(layout, &folder, &gateway(bundle)?)?;
    let smallest = process(layout, &folder, &smallest(layout)?)?;
    let _ = std::fs::remove_dir_all(&folder);
    let mut in_use = Vec::new();
    let first = median(|| {
        std::thread::sleep(FORGOTTEN);
        let first = answer(spin.port)?;
        in_use.push(answer(spin.port)?);
        Ok(first)
    })?;
    in_use.sort_unstable();
    let in_use = in_use.get(TIMES / 2).copied().unwrap_or_default();
    println!(
        "\n{:<12}{:>12}{:>12}{:>22}",
        "", "wasm", "gzip -9", "new instance, ms"
    );
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    for (name, size, new) in [
        ("Worker", worker, gateway.saturating_sub(smallest)),
        ("Spin", component, first.saturating_sub(in_use)),
    ] {
        let (raw, gzip, new) = (kib(size.raw), kib(size.gzip), ms(new));
        println!("{name:<12}{raw:>12}{gzip:>12}{new:>22.1}");
    }
    println!(
        "medians of {TIMES}; Worker: workerd to its first answer {:.1} ms, with a Worker that \
         only passes on {:.1}; Spin: GET /health {:.1} ms by a new instance, {:.1} by one in use",
        ms(gateway),
        ms(smallest),
        ms(first),
        ms(in_use)
    );
    Ok(())
}

fn answer(port: u16) -> Result<Duration> {
    let begun = clock::instant();
    let response = http::request(port, "GET", "/health", &[], &[], ANSWER_MAX)?;
    if response.status != 200 {
        bail!("/health answered {}", response.status);
    }
    Ok(begun.elapsed())
}

/// A module of a Worker: its name, what it is, and its file.
type Module = (&'static str, &'static str, PathBuf);

fn gateway(bundle: &Path) -> Result<Vec<Module>> {
    Ok(vec![
        (
            "index.js",
            "esModule",
            bundle.join("index.js").canonicalize()?,
        ),
        (
            "index_bg.wasm",
            "wasm",
            bundle.join("index_bg.wasm").canonicalize()?,
        ),
    ])
}

fn smallest(layout: &Layout) -> Result<Vec<Module>> {
    let file = layout.root().join("crates/xtask/js/pass-through.mjs");
    Ok(vec![("pass-through.mjs", "esModule", file.canonicalize()?)])
}

/// From starting workerd with one Worker, without any bindings, to its first answer: it need
/// not be a good one.
fn process(layout: &Layout, folder: &Path, modules: &[Module]) -> Result<Duration> {
    let file = folder.join("config.capnp");
    // workerd embeds what lies beside its configuration.
    for (name, _, from) in modules {
        std::fs::copy(from, folder.join(name))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    median(|| {
        let port = http::free_port(0)?;
        write_atomically(&file, configuration(port, modules).as_bytes())?;
        let mut runtime = command(layout.node_modules().join(".bin/workerd"));
        runtime.args(["serve", "--experimental"]).arg(&file);
        runtime.stdout(Stdio::null()).stderr(Stdio::null());
        let begun = clock::instant();
        let mut child = runtime.spawn().context("workerd does not start")?;
        let answered = loop {
            match http::request(port, "GET", "/health", &[], &[], ANSWER_MAX) {
                Ok(_) => break Ok(begun.elapsed()),
                Err(_) if begun.elapsed() > ANSWER_MAX => break Err("workerd does not answer"),
                Err(_) => std::thread::sleep(ASK_EVERY),
            }
        };
        let _ = child.kill();
        let _ = child.wait();
        answered.map_err(anyhow::Error::msg)
    })
}

fn configuration(port: u16, modules: &[Module]) -> String {
    let modules: String = modules
        .iter()
        .map(|(name, kind, _)| format!("    (name = \"{name}\", {kind} = embed \"{name}\"),\n"))
        .collect();
    let date = pins::COMPATIBILITY_DATE;
    format!(
        r#"using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "worker", worker = .worker)],
  sockets = [(name = "http", address = "127.0.0.1:{port}", http = (), service = "worker")],
);

const worker :Workerd.Worker = (
  modules = [
{modules}  ],
  compatibilityDate = "{date}",
);
"#
    )
}
