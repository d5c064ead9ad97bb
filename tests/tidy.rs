//! The repository's own shape: who depends on whom, what sources may say, what is stored.
//!
//! Invariants of absence need a test most: nothing breaks on the day one is given up.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "every panic here is a failed claim"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use serde_json::Value;

/// Crates that belong to a host or a machine: the core may not name them.
const HOST_CRATES: [&str; 7] = [
    "worker",
    "spin-sdk",
    "tokio",
    "reqwest",
    "getrandom",
    "ring",
    "wasm-bindgen",
];

/// The functions' packages.
const FUNCTIONS: [&str; 2] = ["tidegate-cloudflare", "tidegate-spin"];

// --- who depends on whom ---

#[test]
fn the_protocol_depends_on_no_workspace_crate() {
    assert_eq!(workspace_edges("tidegate-mcp"), names(&[]));
}

#[test]
fn the_gateway_depends_on_the_protocol_and_on_conditions_alone() {
    assert_eq!(
        workspace_edges("tidegate-gateway"),
        names(&["tidegate-mcp", "tidegate-policy"])
    );
    assert_eq!(workspace_edges("tidegate-policy"), names(&["tidegate-mcp"]));
}

#[test]
fn the_core_names_no_host() {
    for package in ["tidegate-mcp", "tidegate-policy", "tidegate-gateway"] {
        let named: Vec<_> = edges(package)
            .into_iter()
            .filter(|name| HOST_CRATES.contains(&name.as_str()))
            .collect();
        assert!(named.is_empty(), "{package} depends on {named:?}");
    }
}

#[test]
fn nothing_under_the_gateway_compiles_c_for_its_cryptography() {
    let closure = closure("tidegate-gateway");
    assert!(
        closure.contains("jwt-simple"),
        "the closure is really walked"
    );
    for refused in ["ring", "aws-lc-rs", "openssl", "boring"] {
        assert!(
            !closure.contains(refused),
            "the gateway depends on {refused}"
        );
    }
}

#[test]
fn a_function_stands_on_the_core_and_never_on_another_function() {
    let core = names(&["tidegate-gateway", "tidegate-mcp", "tidegate-simulator"]);
    for function in FUNCTIONS {
        let edges = workspace_edges(function);
        assert!(edges.is_subset(&core), "{function} depends on {edges:?}");
    }
    assert!(workspace_edges("tidegate-cloudflare").contains("tidegate-gateway"));
}

#[test]
fn a_function_has_the_simulator_only_to_test_itself() {
    for function in FUNCTIONS {
        let package = package(function);
        let simulator = package
            .dependencies
            .iter()
            .find(|each| each.name == "tidegate-simulator");
        assert!(
            simulator.is_none_or(|each| each.optional),
            "{function}: the simulator is not optional"
        );
        for (feature, enables) in &package.features {
            let enabled = enables
                .iter()
                .any(|each| each.contains("tidegate-simulator"));
            let implicit = feature == "tidegate-simulator";
            assert!(
                !enabled || feature == "selftest" || implicit,
                "{function}: feature {feature} enables it"
            );
        }
        assert!(
            !package
                .features
                .get("default")
                .is_some_and(|default| default.iter().any(|each| each == "selftest"))
        );
    }
}

#[test]
fn the_command_line_is_built_on_the_gateway() {
    assert!(workspace_edges("tidegate").contains("tidegate-gateway"));
}

#[test]
fn foreign_crates_stay_in_their_room() {
    let rooms = [
        ("worker", "tidegate-cloudflare"),
        ("spin-sdk", "tidegate-spin"),
        ("rmcp", "tests"),
    ];
    for (foreign, room) in rooms {
        let outside: Vec<_> = members()
            .filter(|package| package.name.as_str() != room)
            .filter(|package| package.dependencies.iter().any(|each| each.name == foreign))
            .map(|package| package.name.to_string())
            .collect();
        assert!(
            outside.is_empty(),
            "{foreign} belongs to {room}, but {outside:?} depend on it"
        );
    }
}

#[test]
fn plain_cargo_test_builds_no_function() {
    let defaults: BTreeSet<_> = metadata().workspace_default_members.iter().collect();
    for function in FUNCTIONS {
        assert!(
            !defaults.contains(&package(function).id),
            "{function} is a default member"
        );
    }
}

#[test]
fn the_spin_host_stands_apart() {
    let compiled = |package: &Package| package.name.as_str() == "wasmtime";
    assert!(
        !metadata().packages.iter().any(compiled),
        "an ordinary build would compile wasmtime"
    );
    let host = read("crates/spin-host/Cargo.lock");
    assert!(host.contains("name = \"wasmtime\""), "it is really read");
    // It offers the component what Spin does, through the real interfaces and nothing else.
    assert!(!host.contains("name = \"tidegate"), "it knows our crates");
}

// --- what sources may say ---

#[test]
fn the_core_reads_no_clock_and_prints_nothing() {
    for (path, text) in sources(&["crates/mcp/src", "crates/policy/src", "crates/gateway/src"]) {
        for refused in ["SystemTime::now", "Instant::now", "println!", "dbg!"] {
            assert!(!text.contains(refused), "{path} says {refused}");
        }
    }
}

#[test]
fn every_module_opens_by_saying_what_it_is() {
    let silent: Vec<_> = sources(&["crates", "functions", "tests"])
        .into_iter()
        // The tests of a module, put into a file of their own: the module says what it is.
        .filter(|(path, _)| !path.ends_with("/tests.rs"))
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "no `//!` at the top of {silent:?}");
}

#[test]
fn no_file_remembers_the_machine_it_was_written_on() {
    // Put together here, so that this file does not match itself.
    let refused = ["home", "root", "work", "Users"].map(|folder| format!("/{folder}/"));
    for (path, text) in repository() {
        for (number, line) in text.lines().enumerate() {
            let found = refused.iter().find(|each| line.contains(each.as_str()));
            assert!(found.is_none(), "{path}:{}: {line}", number + 1);
        }
    }
}

#[test]
fn dependencies_come_from_the_public_registries() {
    for lock in [
        "Cargo.lock",
        "crates/spin-host/Cargo.lock",
        "tests/hosts/rmcp/Cargo.lock",
    ] {
        for source in read(lock)
            .lines()
            .filter_map(|line| line.strip_prefix("source = "))
        {
            assert_eq!(
                source, "\"registry+https://github.com/rust-lang/crates.io-index\"",
                "{lock}"
            );
        }
    }
    let lock: Value = serde_json::from_str(&read("package-lock.json")).unwrap();
    for (name, entry) in lock["packages"].as_object().unwrap() {
        if let Some(address) = entry["resolved"].as_str() {
            assert!(
                address.starts_with("https://registry.npmjs.org/"),
                "{name} in package-lock.json: {address}"
            );
        }
    }
    for (path, text) in repository() {
        let replaces = path.ends_with(".toml") && text.contains("replace-with");
        assert!(
            !replaces && !path.ends_with(".npmrc"),
            "{path} redirects a registry"
        );
    }
}

#[test]
fn every_command_the_documents_name_exists() {
    let commands = read("crates/xtask/src/main.rs");
    for document in ["README.md", "ARCHITECTURE.md"] {
        let text = read(document);
        for rest in text.split("cargo xtask ").skip(1) {
            let name: String = rest.chars().take_while(char::is_ascii_lowercase).collect();
            let known = name.is_empty() || commands.contains(&format!("name: \"{name}\""));
            assert!(known, "{document} names `cargo xtask {name}`");
        }
    }
    for command in ["dev", "test"] {
        let named = format!("cargo xtask {command}");
        assert!(
            read("README.md").contains(&named),
            "README.md does not tell of `{named}`"
        );
    }
}

#[test]
fn the_documents_publish_only_what_a_command_made_without_an_error() {
    for line in read("README.md").lines() {
        let piped = line.contains("-- compile") && line.contains("| redis-cli");
        let substituted = line.contains("$(cargo run") || line.contains("$(tidegate");
        assert!(
            !piped && !substituted,
            "publishes nothing on a mistake: {line}"
        );
    }
    let mut before = "";
    for line in read("README.md").lines() {
        if line.trim_start().starts_with("redis-cli SET") {
            assert!(
                before.ends_with("&&"),
                "written though nothing was made: {line}"
            );
        }
        before = line;
    }
}

// --- what is stored ---

#[test]
fn every_stored_shape_has_an_example_that_fits_it() {
    let schemas = stems("kv-schemas", ".schema.json");
    assert!(!schemas.is_empty(), "no schema in kv-schemas");
    let examples = stems("kv-schemas/examples", ".json");
    // `task-asking` is another example of `task`.
    let of = |example: &str| example.split('-').next().unwrap_or_default().to_owned();
    let shown: BTreeSet<String> = examples.iter().map(|example| of(example)).collect();
    assert_eq!(
        schemas, shown,
        "an example for each schema, and of nothing else"
    );
    for name in examples {
        let schema: Value =
            serde_json::from_str(&read(&format!("kv-schemas/{}.schema.json", of(&name)))).unwrap();
        let example: Value =
            serde_json::from_str(&read(&format!("kv-schemas/examples/{name}.json"))).unwrap();
        let validator =
            jsonschema::validator_for(&schema).unwrap_or_else(|e| panic!("{name}: {e}"));
        let problems: Vec<_> = validator
            .iter_errors(&example)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert!(problems.is_empty(), "{name}: {problems:#?}");
    }
}

// --- below: reading the workspace and the repository ---

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn metadata() -> &'static Metadata {
    static METADATA: OnceLock<Metadata> = OnceLock::new();
    METADATA.get_or_init(|| {
        // Every feature: an optional edge is an edge.
        let mut command = MetadataCommand::new();
        command
            .manifest_path(root().join("Cargo.toml"))
            .features(cargo_metadata::CargoOpt::AllFeatures);
        command.exec().unwrap()
    })
}

fn members() -> impl Iterator<Item = &'static Package> {
    let members = &metadata().workspace_members;
    metadata()
        .packages
        .iter()
        .filter(|package| members.contains(&package.id))
}

fn package(name: &str) -> &'static Package {
    members()
        .find(|package| package.name.as_str() == name)
        .unwrap_or_else(|| panic!("no package {name}"))
}

/// What `package` names as a normal or build dependency.
fn edges(name: &str) -> BTreeSet<String> {
    let dependencies = package(name).dependencies.iter();
    dependencies
        .filter(|each| each.kind != DependencyKind::Development)
        .map(|each| each.name.clone())
        .collect()
}

/// The workspace's own crates among them.
fn workspace_edges(name: &str) -> BTreeSet<String> {
    let own: BTreeSet<_> = members().map(|package| package.name.to_string()).collect();
    edges(name).intersection(&own).cloned().collect()
}

/// Every crate that is compiled into `name` on some target.
fn closure(name: &str) -> BTreeSet<String> {
    let nodes = &metadata().resolve.as_ref().unwrap().nodes;
    let nodes: BTreeMap<&PackageId, _> = nodes.iter().map(|node| (&node.id, node)).collect();
    let mut seen = BTreeSet::new();
    let mut open = vec![&package(name).id];
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            let compiled = |kinds: &[cargo_metadata::DepKindInfo]| {
                kinds.iter().any(|each| each.kind == DependencyKind::Normal)
            };
            open.extend(
                nodes[id]
                    .deps
                    .iter()
                    .filter(|each| compiled(&each.dep_kinds))
                    .map(|each| &each.pkg),
            );
        }
    }
    seen.into_iter()
        .map(|id| metadata()[id].name.to_string())
        .collect()
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

/// Every text file that is, or is about to be, part of the repository.
fn repository() -> Vec<(String, String)> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git")
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        listed.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&listed.stderr)
    );
    let listed = String::from_utf8(listed.stdout).unwrap();
    // A file listed but gone is being deleted; one that is not UTF-8 is not text.
    let text = |path: &str| Some((path.to_owned(), fs::read_to_string(root().join(path)).ok()?));
    let files: Vec<_> = listed.lines().filter_map(text).collect();
    assert!(
        files.iter().any(|(path, _)| path == "Cargo.toml"),
        "the repository is really listed"
    );
    files
}

/// The Rust files under `folders`.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let inside = |path: &str| {
        folders
            .iter()
            .any(|folder| Path::new(path).starts_with(folder))
    };
    let files: Vec<_> = repository()
        .into_iter()
        .filter(|(path, _)| path.ends_with(".rs") && inside(path))
        .collect();
    assert!(!files.is_empty(), "no sources under {folders:?}");
    files
}

/// File names in `folder` that end in `suffix`, without it.
fn stems(folder: &str, suffix: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter_map(|name| Some(name.strip_suffix(suffix)?.to_owned()))
        .collect()
}
