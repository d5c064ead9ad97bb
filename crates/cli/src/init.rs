//! A configuration to begin with.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::{Failure, structure};

/// The starter; the line that names the schema comes before it.
const STARTER: &str = include_str!("../starter/tidegate.yaml");
/// Where a checkout of this project has the schema.
const IN_CHECKOUT: &str = "kv-schemas/tidegate.schema.json";
/// Where it is written otherwise, beside the configuration.
const BESIDE: &str = "tidegate.schema.json";

/// Writes the starter, and the schema its editor line names if it is not there.
pub fn init(file: &Path, force: bool, out: &mut impl Write) -> Result<(), Failure> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let schema = if folder.join(IN_CHECKOUT).is_file() {
        IN_CHECKOUT
    } else {
        BESIDE
    };
    let text = format!("# yaml-language-server: $schema=./{schema}\n{STARTER}");
    let failed = |file: &Path, error: std::io::Error| {
        Failure::Failed(format!("{}: {error}", file.display()))
    };

    let mut options = fs::OpenOptions::new();
    options
        .write(true)
        .truncate(true)
        .create(true)
        .create_new(!force);
    let written = options
        .open(file)
        .and_then(|mut open| open.write_all(text.as_bytes()));
    match written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Failure::Usage(format!(
                "{} is there already; --force overwrites it",
                file.display()
            )));
        }
        written => written.map_err(|error| failed(file, error))?,
    }
    let beside = folder.join(schema);
    if !beside.is_file() {
        let json = crate::pretty(&structure::config_schema())?;
        fs::write(&beside, json).map_err(|error| failed(&beside, error))?;
        writeln!(out, "wrote {}, for completion in editors", beside.display())?;
    }
    writeln!(
        out,
        "wrote {}; next: edit it, then `tidegate check`",
        file.display()
    )?;
    Ok(())
}
