//! Every version the build depends on beyond `Cargo.lock`, in one place, each with the
//! reason it is held.
//!
//! `package.json`, `Cargo.lock` and `wrangler.toml` state some of the same versions because
//! their tools read them there; the tests below keep the copies equal.

#![cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "some versions are only compared with their copies, by the tests"
    )
)]

/// The Workers SDK crate. Its generated glue must fit `WORKER_BUILD` and `WASM_BINDGEN`.
pub const WORKER: &str = "0.8.7";

/// The Spin SDK crate: 7.0 speaks WASI 0.3.0, which needs Spin 4.1 or newer.
pub const SPIN_SDK: &str = "7.0.0";

/// What `crates/spin-host` runs the component on. It must have the WASI 0.3.0 that
/// `SPIN_SDK` calls; its crates fit each other only at one version, and what they offer for
/// 0.3 may change in any.
pub const WASMTIME: &str = "48.0.8";

/// Turns the crate into a Worker. Released together with `WORKER`.
pub const WORKER_BUILD: &str = "0.8.7";

/// The crate and the command line tool must be the same version to the last digit, and
/// its output needs a `WORKERD` of similar age: one from spring 2026 cannot load it.
pub const WASM_BINDGEN: &str = "0.2.130";

/// Runs and deploys the Worker. Brings `WORKERD`, miniflare and esbuild.
pub const WRANGLER: &str = "4.164.0";

/// The Workers runtime; see `WASM_BINDGEN`.
pub const WORKERD: &str = "1.20261117.1";

/// Not after today, nor after the day `WORKERD` was built: it refuses to start otherwise.
pub const COMPATIBILITY_DATE: &str = "2026-11-17";

/// For npm scripts and wrangler, which needs at least `NODE_OLDEST`.
pub const NODE: &str = "22.23.3";

/// The oldest Node wrangler and the conformance suite run on: major, minor.
pub const NODE_OLDEST: (u32, u32) = (22, 12);

/// `wasm-opt`; worker-build would download another one.
pub const BINARYEN: &str = "132.0.0";

/// The official conformance suite; scenario names and numbers belong to this version.
pub const CONFORMANCE: &str = "0.2.0-alpha.12";

/// The demo upstream.
pub const SERVER_EVERYTHING: &str = "2026.8.31";

/// The Python SDK: its source distribution has the conformance suite's reference server.
pub const PYTHON_MCP: &str = "2.3.0";

/// The previous major of the Python SDK, a client of the legacy era.
pub const PYTHON_MCP_LEGACY: &str = "1.30.0";

/// Has the only third-party engine of the tasks extension; also a client of both eras.
pub const FASTMCP: &str = "4.1.2";

/// What Debian and Ubuntu call a current compiler, its sources and its linker.
pub const DEBIAN_COMPILER: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-22"];

/// What Debian needs besides to link a WASI component.
pub const DEBIAN_WASI: [&str; 2] = ["wasi-libc", "libclang-rt-22-dev-wasm32"];

/// The linker of Debian's compiler, of the LLVM it was built with.
pub const DEBIAN_LLD: &str = "/usr/bin/lld-22";

/// The same linker under the name that links wasm.
pub const DEBIAN_WASM_LD: &str = "/usr/bin/wasm-ld-22";

/// Wraps `wasm-ld` and emits components; rustup ships it, crates.io has it too.
pub const WASM_COMPONENT_LD: &str = "0.5.21";

/// Budget for the Workers bundle: half of what the free plan allows; every byte is compiled
/// on every cold start.
pub const BUNDLE_GZIP_MAX: u64 = 1536 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;
    use crate::layout::{Layout, read};

    fn json(name: &str) -> Value {
        let root = Layout::find().unwrap();
        serde_json::from_str(&read(&root.root().join(name)).unwrap()).unwrap()
    }

    #[test]
    fn package_json_states_the_pinned_versions() {
        let stated = &json("package.json")["devDependencies"];
        for (name, version) in [
            ("wrangler", WRANGLER),
            ("node", NODE),
            ("binaryen", BINARYEN),
            ("@modelcontextprotocol/conformance", CONFORMANCE),
            ("@modelcontextprotocol/server-everything", SERVER_EVERYTHING),
        ] {
            assert_eq!(stated[name], version, "{name} in package.json");
        }
    }

    #[test]
    fn package_json_pins_every_dependency_exactly() {
        let stated = json("package.json");
        for (name, version) in stated["devDependencies"].as_object().unwrap() {
            let version = version.as_str().unwrap();
            assert!(
                version.starts_with(|c: char| c.is_ascii_digit()),
                "{name}: {version}"
            );
        }
    }

    #[test]
    fn package_lock_installs_the_pinned_runtime() {
        let lock = json("package-lock.json");
        assert_eq!(lock["packages"]["node_modules/workerd"]["version"], WORKERD);
        assert_eq!(
            lock["packages"]["node_modules/wrangler"]["version"],
            WRANGLER
        );
    }

    #[test]
    fn cargo_lock_builds_the_pinned_crates() {
        let root = Layout::find().unwrap();
        let lock = read(&root.root().join("Cargo.lock")).unwrap();
        let locked = locked_versions(&lock);
        for (name, version) in [
            ("worker", WORKER),
            ("wasm-bindgen", WASM_BINDGEN),
            ("spin-sdk", SPIN_SDK),
        ] {
            assert_eq!(
                locked.get(name).map(Vec::as_slice),
                Some(&[version][..]),
                "{name}"
            );
        }
    }

    #[test]
    fn the_spin_host_states_and_builds_the_pinned_runtime() {
        let host = Layout::find().unwrap().root().join("crates/spin-host");
        let stated = read(&host.join("Cargo.toml")).unwrap();
        let lock = read(&host.join("Cargo.lock")).unwrap();
        for name in ["wasmtime", "wasmtime-wasi", "wasmtime-wasi-http"] {
            let exactly = format!("{name} = {{ version = \"={WASMTIME}\"");
            assert!(stated.contains(&exactly), "{exactly} in Cargo.toml");
            let locked = locked_versions(&lock);
            assert_eq!(
                locked.get(name),
                Some(&vec![WASMTIME]),
                "{name} in Cargo.lock"
            );
        }
    }

    #[test]
    fn wrangler_toml_states_the_compatibility_date() {
        let root = Layout::find().unwrap();
        let text = read(&root.root().join("wrangler.toml")).unwrap();
        assert!(text.contains(&format!("compatibility_date = \"{COMPATIBILITY_DATE}\"")));
    }

    fn locked_versions(lock: &str) -> BTreeMap<&str, Vec<&str>> {
        let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut name = "";
        for line in lock.lines() {
            let Some((key, value)) = line.split_once(" = ") else {
                continue;
            };
            let value = value.trim_matches('"');
            match key {
                "name" => name = value,
                "version" => versions.entry(name).or_default().push(value),
                _ => {}
            }
        }
        versions
    }
}
