//! The program as it is run: real files, real exit codes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "every panic here is a failed claim"
)]

mod check;
mod init;
mod keys;
mod policy;
mod push;
mod request_token;
mod schemas;
mod switches;
mod tasks;
mod usage;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a run of the program came to.
struct Run {
    code: i32,
    out: String,
    err: String,
}

fn tidegate(folder: &Path, arguments: &[&str]) -> Run {
    run(Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .current_dir(folder)
        .args(arguments))
}

fn run(command: &mut Command) -> Run {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    Run {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

/// A folder holding the files, gone when it is dropped.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A sound configuration for a deployed gateway.
const SOUND: &str = "\
apiVersion: tidegate/v1
kind: Gateway
metadata:
  name: tools
publicUrl: https://mcp.example.com
authentication:
  type: jwt
  issuers:
    - issuer: https://login.example.com
      jwksUri: https://login.example.com/keys
upstreams:
  - name: search
    url: https://search.example.com/mcp
    credentials: { type: bearer, token: \"${secret:SEARCH_TOKEN}\" }
tools:
  - name: search__query
    requiredRoles: [reader]
";
