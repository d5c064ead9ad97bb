//! `cargo xtask size`: how large the Workers bundle is, and whether that is within budget.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::arguments::{Arguments, unexpected};
use crate::build::{self, Profile};
use crate::layout::Layout;
use crate::{pins, setup};

/// Shown by `cargo xtask size --help`.
pub const HELP: &str = "\
cargo xtask size [--json]

Builds the Workers bundle and prints its size, raw and gzipped; fails above the budget.
";

/// Everything of the build that is uploaded.
const PARTS: [&str; 2] = ["index_bg.wasm", "index.js"];

/// Runs the command.
pub fn run(mut arguments: Arguments) -> Result<()> {
    let mut as_json = false;
    while let Some(argument) = arguments.next()? {
        match argument.as_str() {
            "--json" => as_json = true,
            other => return unexpected(other),
        }
    }
    let layout = Layout::find()?;
    let tools = setup::cloudflare(&layout)?;
    let bundle = build::cloudflare(&layout, &tools, Profile::Release, false)?;
    let sizes = PARTS
        .iter()
        .map(|part| Ok((*part, measure(&bundle.join(part))?)))
        .collect::<Result<Vec<_>>>()?;
    let total = sizes.iter().fold(Size::default(), |sum, (_, size)| Size {
        raw: sum.raw + size.raw,
        gzip: sum.gzip + size.gzip,
    });
    if as_json {
        let parts: serde_json::Map<String, serde_json::Value> = sizes
            .iter()
            .map(|(part, size)| {
                (
                    (*part).to_owned(),
                    json!({"raw": size.raw, "gzip": size.gzip}),
                )
            })
            .collect();
        println!(
            "{}",
            json!({"parts": parts, "raw": total.raw, "gzip": total.gzip,
                "gzipBudget": pins::BUNDLE_GZIP_MAX})
        );
    } else {
        println!("{:<16}{:>12}{:>12}", "", "raw", "gzip -9");
        for (part, size) in sizes.iter().copied().chain([("whole bundle", total)]) {
            println!("{part:<16}{:>12}{:>12}", kib(size.raw), kib(size.gzip));
        }
        println!("{:<16}{:>24}", "budget", kib(pins::BUNDLE_GZIP_MAX));
    }
    if total.gzip > pins::BUNDLE_GZIP_MAX {
        bail!(
            "the bundle is {} gzipped, over its budget of {}; see what grew with \
             `npx wasm-dis` or by `cargo tree -p tidegate-cloudflare`",
            kib(total.gzip),
            kib(pins::BUNDLE_GZIP_MAX)
        );
    }
    Ok(())
}

/// A file's size, in bytes.
#[derive(Clone, Copy, Default)]
pub struct Size {
    /// As it is.
    pub raw: u64,
    /// Compressed as well as gzip can.
    pub gzip: u64,
}

/// Measures one file.
pub fn measure(file: &Path) -> Result<Size> {
    let content = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&content)?;
    Ok(Size {
        raw: content.len() as u64,
        gzip: encoder.finish()?.len() as u64,
    })
}

/// Bytes in words.
pub fn kib(bytes: u64) -> String {
    let tenths = bytes * 10 / 1024;
    format!("{}.{} KiB", tenths / 10, tenths % 10)
}
