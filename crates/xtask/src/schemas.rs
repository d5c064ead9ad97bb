//! `cargo xtask schemas`: `kv-schemas/` as the code defines it.

use anyhow::{Context, Result, bail};

use crate::arguments::{Arguments, unexpected};
use crate::dev::cli;
use crate::layout::{Layout, make_dir, read, write_atomically};
use crate::process::{self, command};

/// Shown by `cargo xtask schemas --help`.
pub const HELP: &str = "\
cargo xtask schemas [--check]

Writes the JSON Schemas the code defines; --check only compares, and fails if they differ.
";

/// Runs the command.
pub fn run(mut arguments: Arguments) -> Result<()> {
    let mut check = false;
    while let Some(argument) = arguments.next()? {
        match argument.as_str() {
            "--check" => check = true,
            other => return unexpected(other),
        }
    }
    write(&Layout::find()?, check)
}

/// Writes or compares the schemas.
pub fn write(layout: &Layout, check: bool) -> Result<()> {
    let fresh = layout.dev().join("schemas");
    let _ = std::fs::remove_dir_all(&fresh);
    make_dir(&fresh)?;
    let mut schema = command(cli::build(layout)?);
    schema
        .current_dir(layout.root())
        .args(["schema", "--out"])
        .arg(&fresh);
    process::run(
        "reading the schemas from the code",
        &mut schema,
        &layout.log("schemas")?,
    )?;

    let dir = layout.root().join("kv-schemas");
    make_dir(&dir)?;
    let mut stale = Vec::new();
    for entry in std::fs::read_dir(&fresh).context("the schemas are gone")? {
        let entry = entry?;
        let file = dir.join(entry.file_name());
        let text = read(&entry.path())?;
        if std::fs::read_to_string(&file).unwrap_or_default() == text {
            continue;
        }
        if check {
            stale.push(layout.relative(&file));
        } else {
            write_atomically(&file, text.as_bytes())?;
            println!("wrote {}", layout.relative(&file));
        }
    }
    if !stale.is_empty() {
        bail!(
            "not what the code defines: {}\nRemedy: `cargo xtask schemas`",
            stale.join(", ")
        );
    }
    Ok(())
}
