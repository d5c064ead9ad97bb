//! What the Spin component adds to the comparison: its size, and what an instance costs that
//! nobody has used yet.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock;
use crate::dev::Options;
use crate::dev::gateway::Gateway;
use crate::http;
use crate::layout::Layout;

/// Longer than an instance is kept without work.
const FORGOTTEN: Duration = Duration::from_millis(1_500);
/// How often a new instance is made to answer.
const TIMES: usize = 15;
/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Starts the component in front of the same upstream, with the same configuration.
pub fn start(layout: &Layout, upstream: &str, worker: &Options) -> Result<Gateway> {
    let options = Options {
        auth: worker.auth,
        config: worker.config.clone(),
        port: Some(0),
        spin: true,
        ..Options::bare("echo", upstream)
    };
    Gateway::start(layout, &options)
}

/// Prints the size, and the median of the first answers of instances beside that of others.
pub fn report(layout: &Layout, gateway: &Gateway) -> Result<()> {
    let component = layout
        .root()
        .join("functions/spin/build/tidegate_spin.wasm");
    let bytes = std::fs::metadata(&component)
        .with_context(|| format!("no {}", component.display()))?
        .len();
    println!("Spin component: {} KiB", bytes / 1024);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        std::thread::sleep(FORGOTTEN);
        first.push(answer(gateway.port)?);
        second.push(answer(gateway.port)?);
    }
    first.sort();
    second.sort();
    println!(
        "GET /health on Spin, median of {TIMES}: {} µs by a new instance, {} µs by one in use",
        first[TIMES / 2].as_micros(),
        second[TIMES / 2].as_micros()
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
