//! Debian's compiler as a wasm toolchain: installed with apt, its standard library built
//! once per target into a private sysroot. Nothing global is changed but the packages.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::layout::{Layout, make_dir, write_atomically};
use crate::pins;
use crate::process::{self, command, output};
use crate::toolchain::{Target, has_std};

const RUSTC: &str = "/usr/bin/rustc";
const CARGO: &str = "/usr/bin/cargo";
const SOURCES: &str = "/usr/lib/rustlib/src";
const WASI_LIBC: &str = "/usr/lib/wasm32-wasi";

/// Whether this machine can install Debian packages, or has them.
pub fn possible() -> bool {
    Path::new("/usr/bin/apt-get").exists() || missing(Target::Workers).is_empty()
}

/// The toolchain directory, if it already has a standard library of the installed compiler.
pub fn provided(layout: &Layout, target: Target) -> Option<PathBuf> {
    let dir = directory(layout);
    let libraries = libraries(&dir, target);
    let built_with = std::fs::read_to_string(stamp(&libraries)).unwrap_or_default();
    let current = has_std(&libraries) && missing(target).is_empty() && built_with == version();
    current.then_some(dir)
}

/// The toolchain directory, with everything `target` needs installed and built.
pub fn provide(layout: &Layout, target: Target) -> Result<PathBuf> {
    if let Some(dir) = provided(layout, target) {
        return Ok(dir);
    }
    install(layout, &missing(target))?;
    let dir = directory(layout);
    arrange(&dir)?;
    build_std(layout, &dir, target)?;
    Ok(dir)
}

/// What cargo needs in its environment to link a component with this toolchain.
pub fn component_variables(layout: &Layout) -> Result<[(&'static str, String); 2]> {
    let linker = component_linker(layout)?;
    let flags = format!(
        "-Clink-self-contained=no -Lnative={WASI_LIBC} -Clink-arg=--wasm-ld-path={} \
         -Clink-arg={WASI_LIBC}/crt1-reactor.o",
        pins::DEBIAN_WASM_LD
    );
    Ok([
        (
            "CARGO_TARGET_WASM32_WASIP2_LINKER",
            linker.display().to_string(),
        ),
        ("CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS", flags),
    ])
}

fn directory(layout: &Layout) -> PathBuf {
    layout.tools().join("wasm-toolchain")
}

fn libraries(dir: &Path, target: Target) -> PathBuf {
    dir.join("sysroot/lib/rustlib")
        .join(target.triple())
        .join("lib")
}

/// Which compiler the libraries were built with: another one cannot read them.
fn stamp(libraries: &Path) -> PathBuf {
    libraries.with_file_name("built-with")
}

fn version() -> String {
    output(command(RUSTC).arg("-vV")).unwrap_or_default()
}

fn missing(target: Target) -> Vec<&'static str> {
    let compiler = [RUSTC, CARGO, SOURCES, pins::DEBIAN_LLD];
    let wasi = [WASI_LIBC, pins::DEBIAN_WASM_LD];
    let absent = |path: &&str| !Path::new(path).exists();
    let mut packages = Vec::new();
    if compiler.iter().any(absent) {
        packages.extend(pins::DEBIAN_COMPILER);
    }
    if target == Target::Spin && wasi.iter().any(absent) {
        packages.extend(pins::DEBIAN_WASI);
    }
    packages
}

fn install(layout: &Layout, packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let log = layout.log("apt")?;
    let attempt = |refresh: bool| -> Result<()> {
        if refresh {
            process::run("refreshing the package lists", apt().arg("update"), &log)?;
        }
        let mut install = apt();
        install
            .args(["install", "-y", "--no-install-recommends"])
            .args(packages);
        let title = format!("installing Debian packages {}", packages.join(" "));
        process::run(&title, &mut install, &log)
    };
    attempt(false).or_else(|_| {
        crate::stop::check()?;
        attempt(true)
    })?;
    Ok(())
}

fn apt() -> Command {
    let mut apt = if rustix::process::geteuid().is_root() {
        command("apt-get")
    } else {
        let mut sudo = command("sudo");
        sudo.args(["--non-interactive", "apt-get"]);
        sudo
    };
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// Lays out `bin` and a sysroot that borrows the host's libraries.
fn arrange(dir: &Path) -> Result<()> {
    let host = host()?;
    let rustlib = dir.join("sysroot/lib/rustlib");
    make_dir(&dir.join("bin"))?;
    make_dir(&rustlib.join(&host).join("bin"))?;
    link(
        &format!("/usr/lib/rustlib/{host}/lib"),
        &rustlib.join(&host).join("lib"),
    )?;
    link(SOURCES, &rustlib.join("src"))?;
    // rustc runs `rust-lld -flavor wasm`; Debian's lld answers to that name too.
    link(pins::DEBIAN_LLD, &rustlib.join(&host).join("bin/rust-lld"))?;
    link(CARGO, &dir.join("bin/cargo"))?;
    let rustc = dir.join("bin/rustc");
    let script = format!(
        "#!/bin/sh\nexec {RUSTC} --sysroot '{}' \"$@\"\n",
        dir.join("sysroot").display()
    );
    write_atomically(&rustc, script.as_bytes())?;
    std::fs::set_permissions(&rustc, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", rustc.display()))
}

fn host() -> Result<String> {
    version()
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .with_context(|| format!("{RUSTC} does not say its host"))
}

fn link(to: &str, at: &Path) -> Result<()> {
    if at.is_symlink() {
        std::fs::remove_file(at).with_context(|| format!("cannot replace {}", at.display()))?;
    }
    symlink(to, at).with_context(|| format!("cannot link {}", at.display()))
}

/// Builds the standard library from Debian's sources.
///
/// The compiler must be told that it may use the unstable `build-std`, and the libraries
/// need bitcode: link-time optimisation of the function reads it.
fn build_std(layout: &Layout, dir: &Path, target: Target) -> Result<()> {
    let seed = dir.join("std").join(target.triple());
    make_dir(&seed.join("src"))?;
    let manifest = "[package]\nname = \"std-seed\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\
                    [lib]\npath = \"src/lib.rs\"\n[workspace]\n";
    write_atomically(&seed.join("Cargo.toml"), manifest.as_bytes())?;
    write_atomically(&seed.join("src/lib.rs"), b"#![no_std]\n")?;
    let out = seed.join("target");
    let mut build = command(CARGO);
    build
        .current_dir(&seed)
        .args(["build", "--release", "--target", target.triple()])
        .arg("-Zbuild-std=std,panic_abort,proc_macro")
        .env("RUSTC", RUSTC)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Cembed-bitcode=yes")
        .env("CARGO_TARGET_DIR", &out);
    let title = format!(
        "building the standard library for {} (once)",
        target.triple()
    );
    process::run(&title, &mut build, &layout.log("build-std")?)?;
    collect(
        &out.join(target.triple()).join("release/deps"),
        &libraries(dir, target),
    )?;
    let _ = std::fs::remove_dir_all(&seed);
    // What was compiled against other libraries cannot be linked with these.
    let _ = std::fs::remove_dir_all(layout.wasm_target().join(target.triple()));
    Ok(())
}

fn collect(from: &Path, into: &Path) -> Result<()> {
    let _ = std::fs::remove_dir_all(into);
    make_dir(into)?;
    let mut copied = 0;
    for entry in std::fs::read_dir(from).with_context(|| format!("no {}", from.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let library = name.ends_with(".rlib") || name.ends_with(".rmeta");
        if library && !name.starts_with("libstd_seed") {
            std::fs::copy(&path, into.join(&name))
                .with_context(|| format!("cannot copy {name}"))?;
            copied += 1;
        }
    }
    if copied == 0 {
        bail!(
            "building the standard library left nothing in {}",
            from.display()
        );
    }
    // Last: without the stamp the directory does not count as complete.
    write_atomically(&stamp(into), version().as_bytes())
}

/// The program that makes a component of what `wasm-ld` links: rustup's toolchains bring
/// one; else it is built from crates.io.
fn component_linker(layout: &Layout) -> Result<PathBuf> {
    let name = "wasm-component-ld";
    let bundled = output(command("rustc").args(["--print", "target-libdir"]))
        .map(|libraries| Path::new(&libraries).with_file_name("bin").join(name))
        .filter(|path| path.exists());
    match bundled {
        Some(path) => Ok(path),
        None => super::cargo_install(layout, name, pins::WASM_COMPONENT_LD, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::read;

    #[test]
    fn libraries_without_a_stamp_of_the_installed_compiler_do_not_count() {
        let dir = std::env::temp_dir().join(format!("xtask-debian-{}", std::process::id()));
        let from = dir.join("from");
        make_dir(&from).unwrap();
        std::fs::write(from.join("libstd-1.rlib"), b"").unwrap();
        std::fs::write(from.join("libstd_seed-1.rlib"), b"").unwrap();
        let into = libraries(&dir, Target::Workers);
        collect(&from, &into).unwrap();
        assert!(has_std(&into));
        assert!(!into.join("libstd_seed-1.rlib").exists());
        assert_eq!(read(&stamp(&into)).unwrap(), version());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
