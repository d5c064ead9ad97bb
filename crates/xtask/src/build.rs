//! `cargo xtask build`: the functions as WebAssembly.

use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::arguments::{Arguments, unexpected};
use crate::layout::{Layout, make_dir, write_atomically};
use crate::process::{self, command};
use crate::progress::say;
use crate::setup::{self, CloudflareTools};
use crate::toolchain::{Target, Toolchain};

/// Shown by `cargo xtask build --help`.
pub const HELP: &str = "\
cargo xtask build [--dev] [--spin] [--force]

Builds functions/cloudflare into functions/cloudflare/build, ready for wrangler. Does
nothing if the sources have not changed since the last time.

  --dev     without optimisation: quicker to build, larger and slower to run
  --spin    the Spin component instead, into functions/spin/build
  --force   even if nothing has changed
";

/// What the Worker is made of.
const INPUTS: [&str; 6] = [
    "Cargo.toml",
    "Cargo.lock",
    "crates/mcp",
    "crates/gateway",
    "crates/policy",
    "functions/cloudflare",
];

/// How the wasm is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Small and fast: what is deployed, measured and tested.
    Release,
    /// Quick to build.
    Dev,
}

/// Runs the command.
pub fn run(mut arguments: Arguments) -> Result<()> {
    let (mut profile, mut for_spin, mut force) = (Profile::Release, false, false);
    while let Some(argument) = arguments.next()? {
        match argument.as_str() {
            "--dev" => profile = Profile::Dev,
            "--spin" => for_spin = true,
            "--force" => force = true,
            other => return unexpected(other),
        }
    }
    let layout = Layout::find()?;
    if for_spin {
        let component = spin(&layout, &setup::spin(&layout)?, profile, false)?;
        say(&format!("built {}", layout.relative(&component)));
        return Ok(());
    }
    let tools = setup::cloudflare(&layout)?;
    if force {
        let _ = std::fs::remove_file(stamp(&layout, false));
    }
    let bundle = cloudflare(&layout, &tools, profile, false)?;
    say(&format!("built {}", layout.relative(&bundle)));
    Ok(())
}

/// Builds the Worker if its inputs changed; gives the folder with `index.js`.
///
/// With `selftest` the hosts' contract checks are mounted: never in a deployed build, and in
/// a folder of their own, where they replace no bundle that runs.
pub fn cloudflare(
    layout: &Layout,
    tools: &CloudflareTools,
    profile: Profile,
    selftest: bool,
) -> Result<PathBuf> {
    let function = layout.root().join("functions/cloudflare");
    let bundle = if selftest {
        layout.wasm_target().join("selftest")
    } else {
        function.join("build")
    };
    if !function.join("Cargo.toml").exists() {
        bail!("functions/cloudflare has no Cargo.toml");
    }
    let state = fingerprint(layout, &tools.toolchain, profile, selftest)?;
    let stamp = stamp(layout, selftest);
    let built = std::fs::read_to_string(&stamp).unwrap_or_default();
    if built == state && bundle.join("index.js").exists() {
        say("the function is up to date");
        return Ok(bundle);
    }
    let mut build = command(&tools.worker_build);
    build.current_dir(&function).arg(match profile {
        Profile::Release => "--release",
        Profile::Dev => "--dev",
    });
    if selftest {
        // As it was compiled: what wasm-opt makes smaller takes it two minutes.
        build.arg("--no-opt").arg("--out-dir").arg(&bundle);
        build.args(["--", "--features", "selftest"]);
    }
    tools.toolchain.apply(layout, &mut build)?;
    // Named here, or worker-build downloads its own.
    let bin = layout.node_modules().join(".bin");
    build
        .env("WASM_BINDGEN_BIN", &tools.wasm_bindgen)
        .env("WASM_OPT_BIN", bin.join("wasm-opt"))
        .env("ESBUILD_BIN", bin.join("esbuild"));
    let title = "building the function (the first time takes some minutes)";
    process::run(title, &mut build, &layout.log("build-cloudflare")?)?;
    if !bundle.join("index.js").exists() {
        bail!("worker-build left no {}/index.js", bundle.display());
    }
    if profile == Profile::Release && !selftest {
        strip_names(layout, &tools.toolchain, &bundle.join("index_bg.wasm"))?;
    }
    // Inputs may have changed meanwhile; then the next build must run.
    write_atomically(&stamp, state.as_bytes())?;
    Ok(bundle)
}

/// Takes the names of functions out of a module, which worker-build keeps there for stack
/// traces: a tenth of what would be uploaded. A panic says its file and line without them.
fn strip_names(layout: &Layout, toolchain: &Toolchain, module: &Path) -> Result<()> {
    let mut strip = command(layout.node_modules().join(".bin/wasm-opt"));
    strip.arg(module).arg("-o").arg(module);
    // What worker-build lets the runtime see.
    for feature in [
        "mutable-globals",
        "sign-ext",
        "nontrapping-float-to-int",
        "bulk-memory",
        "multivalue",
        "reference-types",
        "exception-handling",
    ] {
        strip.arg(format!("--enable-{feature}"));
    }
    toolchain.apply(layout, &mut strip)?;
    let title = "taking the names out of the module";
    process::run(title, &mut strip, &layout.log("strip-cloudflare")?)
}

/// Builds the Spin component; gives its file.
///
/// With `selftest` as [`cloudflare`] does.
pub fn spin(
    layout: &Layout,
    toolchain: &Toolchain,
    profile: Profile,
    selftest: bool,
) -> Result<PathBuf> {
    let mut build = toolchain.cargo(layout)?;
    let triple = Target::Spin.triple();
    build
        .current_dir(layout.root())
        .args(["build", "--package", "tidegate-spin"])
        .args(["--target", triple]);
    let folder = match profile {
        Profile::Release => {
            build.arg("--release");
            "release"
        }
        Profile::Dev => "debug",
    };
    if selftest {
        build.args(["--features", "selftest"]);
    }
    let title = "building the Spin component (the first time takes some minutes)";
    process::run(title, &mut build, &layout.log("build-spin")?)?;
    let built = layout
        .wasm_target()
        .join(triple)
        .join(folder)
        .join("tidegate_spin.wasm");
    let out = if selftest {
        layout.wasm_target().join("selftest-spin")
    } else {
        layout.root().join("functions/spin/build")
    };
    make_dir(&out)?;
    write_atomically(&out.join(".gitignore"), b"*\n")?;
    let component = out.join("tidegate_spin.wasm");
    install(&built, &component)?;
    Ok(component)
}

/// Puts what was built where hosts read it: whole, and only if it is another. One that is
/// starting meanwhile must not read half of it.
fn install(built: &Path, place: &Path) -> Result<()> {
    let new = std::fs::read(built).with_context(|| format!("no {}", built.display()))?;
    match std::fs::read(place) {
        Ok(old) if old == new => Ok(()),
        Ok(_) | Err(_) => write_atomically(place, &new),
    }
}

/// Builds the host that runs the Spin component where no `spin` is installed; gives the
/// program.
pub fn spin_host(layout: &Layout) -> Result<PathBuf> {
    let title = "building the Spin host (the first time takes some minutes)";
    let log = layout.log("build-spin-host")?;
    process::run(title, &mut spin_host_cargo(layout, "build"), &log)?;
    Ok(layout.spin_host_target().join("release/spin-host"))
}

/// A command of cargo about that host, which is no member of the workspace.
pub fn spin_host_cargo(layout: &Layout, subcommand: &str) -> Command {
    let mut cargo = command("cargo");
    cargo
        .current_dir(layout.root().join("crates/spin-host"))
        .args([subcommand, "--release", "--locked"])
        .env("CARGO_TARGET_DIR", layout.spin_host_target());
    cargo
}

fn stamp(layout: &Layout, selftest: bool) -> PathBuf {
    let name = if selftest { "selftest" } else { "cloudflare" };
    layout.wasm_target().join(name).with_extension("stamp")
}

/// One line that changes whenever the bundle might.
fn fingerprint(
    layout: &Layout,
    toolchain: &Toolchain,
    profile: Profile,
    selftest: bool,
) -> Result<String> {
    make_dir(&layout.wasm_target())?;
    let mut hasher = DefaultHasher::new();
    hasher.write(toolchain.fingerprint().as_bytes());
    for input in INPUTS {
        hash(&layout.root().join(input), &mut hasher)?;
    }
    if selftest {
        hash(&layout.root().join("crates/simulator"), &mut hasher)?;
    }
    Ok(format!("{profile:?} {:016x}", hasher.finish()))
}

fn hash(path: &Path, hasher: &mut DefaultHasher) -> Result<()> {
    let name = path.file_name().unwrap_or_default();
    if path.is_dir() {
        // What a build leaves behind is no input.
        if name == "build" || name == "target" {
            return Ok(());
        }
        let mut entries = std::fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<Vec<_>>>()?;
        entries.sort();
        return entries.iter().try_for_each(|entry| hash(entry, hasher));
    }
    if path.exists() {
        let content =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        hasher.write(path.to_string_lossy().as_bytes());
        hasher.write(&content);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_a_component_while_another_is_built_reads_it_whole() {
        use std::io::Read;
        let dir = std::env::temp_dir().join(format!("xtask-install-{}", std::process::id()));
        make_dir(&dir).unwrap();
        let (built, place) = (dir.join("built"), dir.join("place"));
        let install = |content: &str| {
            std::fs::write(&built, content).unwrap();
            install(&built, &place).unwrap();
            std::fs::File::open(&place).unwrap()
        };
        let whole = |mut file: std::fs::File| {
            let mut content = String::new();
            file.read_to_string(&mut content).unwrap();
            content
        };
        let (old, new) = (install("old"), install("newer"));
        assert_eq!((whole(old), whole(new)), ("old".into(), "newer".into()));
        let written = || std::fs::metadata(&place).unwrap().modified().unwrap();
        let before = written();
        install("newer");
        assert_eq!(written(), before);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_changed_source_changes_the_fingerprint_and_build_output_does_not() {
        let dir = std::env::temp_dir().join(format!("xtask-hash-{}", std::process::id()));
        make_dir(&dir.join("build")).unwrap();
        let sum = || {
            let mut hasher = DefaultHasher::new();
            hash(&dir, &mut hasher).unwrap();
            hasher.finish()
        };
        std::fs::write(dir.join("lib.rs"), "a").unwrap();
        let before = sum();
        std::fs::write(dir.join("build/index.js"), "x").unwrap();
        assert_eq!(sum(), before);
        std::fs::write(dir.join("lib.rs"), "b").unwrap();
        assert_ne!(sum(), before);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
