//! Which Rust compiler makes the WebAssembly.
//!
//! An ordinary machine uses rustup's. Where rustup cannot fetch the target, Debian's
//! compiler is used with a standard library built once from Debian's sources. The choice
//! is automatic and said in one line; `TIDEGATE_WASM_TOOLCHAIN` overrides it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::layout::Layout;
use crate::process::{self, command, output};
use crate::progress::say;
use crate::setup::debian;

/// Chooses the toolchain: `rustup`, `debian`, or a directory with `bin/rustc` and
/// `bin/cargo` whose sysroot has the targets.
pub const VARIABLE: &str = "TIDEGATE_WASM_TOOLCHAIN";

/// How long `rustup target add` may try.
const RUSTUP_LIMIT: Duration = Duration::from_secs(90);

/// What we compile for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `wasm32-unknown-unknown`, for Cloudflare Workers.
    Workers,
    /// `wasm32-wasip2`, for Spin.
    Spin,
}

impl Target {
    /// The target as rustc calls it.
    pub fn triple(self) -> &'static str {
        match self {
            Self::Workers => "wasm32-unknown-unknown",
            Self::Spin => "wasm32-wasip2",
        }
    }
}

/// A compiler that can build one of our targets.
#[derive(Debug)]
pub struct Toolchain {
    target: Target,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    /// The default toolchain, which has the target.
    Default,
    /// A directory with `bin/rustc` and `bin/cargo`.
    Directory(PathBuf),
}

impl Toolchain {
    /// Chooses, installs what is missing, and says what was chosen and why.
    pub fn choose(layout: &Layout, target: Target) -> Result<Self> {
        let (origin, why) = match std::env::var(VARIABLE).ok().as_deref() {
            Some("rustup") => (required_from_rustup(layout, target)?, "as asked"),
            Some("debian") => (
                Origin::Directory(debian::provide(layout, target)?),
                "as asked",
            ),
            Some(dir) if !dir.is_empty() => (given(dir, target)?, "as asked"),
            _ => Self::automatic(layout, target)?,
        };
        let toolchain = Self { target, origin };
        say(&format!(
            "{} is built with {} ({why}; {VARIABLE}=rustup|debian|DIR overrides)",
            target.triple(),
            toolchain.describe(layout),
        ));
        Ok(toolchain)
    }

    fn automatic(layout: &Layout, target: Target) -> Result<(Origin, &'static str)> {
        if has_target(&mut command("rustc"), target) {
            return Ok((Origin::Default, "the target is installed"));
        }
        if let Some(dir) = debian::provided(layout, target) {
            return Ok((Origin::Directory(dir), "prepared earlier"));
        }
        if rustup_add(layout, target)? {
            return Ok((Origin::Default, "rustup fetched the target"));
        }
        if !debian::possible() {
            bail!(
                "cannot get the target {0}: rustup could not fetch it and this is no Debian \
                 with `apt-get`.\nRemedy: run `rustup target add {0}` where the network allows \
                 it, or set {VARIABLE} to a toolchain directory that has it.",
                target.triple()
            );
        }
        let dir = debian::provide(layout, target)?;
        Ok((
            Origin::Directory(dir),
            "rustup cannot fetch the target here",
        ))
    }

    /// Makes `command` use this toolchain, whatever started it.
    pub fn apply(&self, layout: &Layout, command: &mut Command) -> Result<()> {
        let mut path = vec![layout.tools().join("bin")];
        if let Origin::Directory(dir) = &self.origin {
            path.insert(0, dir.join("bin"));
            if self.target == Target::Spin {
                for (name, value) in debian::component_variables(layout)? {
                    command.env(name, value);
                }
            }
        }
        command
            .env("PATH", with_path(&path)?)
            .env("CARGO_TARGET_DIR", layout.wasm_target())
            .env_remove("RUSTFLAGS");
        Ok(())
    }

    /// The cargo of this toolchain.
    pub fn cargo(&self, layout: &Layout) -> Result<Command> {
        let program = match &self.origin {
            Origin::Default => PathBuf::from("cargo"),
            Origin::Directory(dir) => dir.join("bin/cargo"),
        };
        let mut cargo = command(program);
        self.apply(layout, &mut cargo)?;
        Ok(cargo)
    }

    /// What tells this compiler from another, for deciding whether a build is current.
    pub fn fingerprint(&self) -> String {
        let rustc = match &self.origin {
            Origin::Default => PathBuf::from("rustc"),
            Origin::Directory(dir) => dir.join("bin/rustc"),
        };
        output(command(rustc).arg("-vV")).unwrap_or_default()
    }

    fn describe(&self, layout: &Layout) -> String {
        let version = self.fingerprint();
        let version: Vec<&str> = version.split_ascii_whitespace().take(2).collect();
        let version = version.join(" ");
        match &self.origin {
            Origin::Default => format!("the default {version}"),
            Origin::Directory(dir) => format!("{version} in {}", layout.relative(dir)),
        }
    }
}

/// Whether the compiler `rustc` starts has the standard library of `target`.
pub fn has_target(rustc: &mut Command, target: Target) -> bool {
    let rustc = rustc.args(["--print", "target-libdir", "--target", target.triple()]);
    output(rustc).is_some_and(|dir| has_std(Path::new(&dir)))
}

/// Whether a directory holds a standard library.
pub fn has_std(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.starts_with("libstd-") && name.ends_with(".rlib")
            })
        })
    })
}

fn required_from_rustup(layout: &Layout, target: Target) -> Result<Origin> {
    if !has_target(&mut command("rustc"), target) && !rustup_add(layout, target)? {
        bail!(
            "rustup could not add {}; see {}",
            target.triple(),
            layout.log("rustup")?.display()
        );
    }
    Ok(Origin::Default)
}

fn rustup_add(layout: &Layout, target: Target) -> Result<bool> {
    if output(command("rustup").arg("--version")).is_none() {
        return Ok(false);
    }
    let mut add = command("rustup");
    add.args(["target", "add", target.triple()])
        .env("RUSTUP_MAX_RETRIES", "1");
    let title = format!("asking rustup for {}", target.triple());
    let status = process::run_status(&title, &mut add, &layout.log("rustup")?, Some(RUSTUP_LIMIT));
    crate::stop::check()?;
    Ok(status.is_ok_and(|status| status.success()) && has_target(&mut command("rustc"), target))
}

fn given(dir: &str, target: Target) -> Result<Origin> {
    let dir = PathBuf::from(dir);
    let dir = dir
        .canonicalize()
        .with_context(|| format!("{VARIABLE} names no directory: {}", dir.display()))?;
    if !has_target(&mut command(dir.join("bin/rustc")), target) {
        bail!(
            "{VARIABLE}={}: its bin/rustc has no standard library for {}",
            dir.display(),
            target.triple()
        );
    }
    Ok(Origin::Directory(dir))
}

/// The PATH with `first` before everything else.
pub fn with_path(first: &[PathBuf]) -> Result<OsString> {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = first.iter().cloned().chain(std::env::split_paths(&rest));
    std::env::join_paths(all).context("a directory on the PATH has a colon in its name")
}
