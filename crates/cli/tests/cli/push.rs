//! `tidegate push`, with a wrangler that writes down how it was called.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tidegate_gateway::config::Snapshot;

use super::{SOUND, folder, tidegate};

/// Notes its arguments, PATH and the file it was given; fails if `fail` exists.
const WRANGLER: &str = "#!/bin/sh
printf '%s\\n' \"$@\" > called
printf '%s' \"$PATH\" > path
while [ $# -gt 0 ]; do if [ \"$1\" = --path ]; then cp \"$2\" published.json; fi; shift; done
if [ -e fail ]; then echo 'no such namespace' >&2; exit 3; fi
";

fn project() -> tempfile::TempDir {
    let folder = folder(&[
        ("tidegate.yaml", SOUND),
        ("wrangler.toml", "name = \"x\"\n"),
    ]);
    let bin = folder.path().join("node_modules/.bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("wrangler"), WRANGLER).unwrap();
    fs::set_permissions(bin.join("wrangler"), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn called(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join("called"))
        .ok()
        .map(|arguments| arguments.lines().collect::<Vec<_>>().join(" "))
}

#[test]
fn a_push_writes_one_key_through_the_wrangler_of_the_project() {
    let folder = project();
    for (target, flags) in [
        (&["--local"][..], "--local"),
        (
            &["--local", "--persist-to", "state"],
            "--local --persist-to state",
        ),
        (&["--remote"], "--remote"),
    ] {
        let run = tidegate(folder.path(), &[&["push"], target].concat());
        assert_eq!(run.code, 0, "{}", run.err);
        let called = called(folder.path()).unwrap();
        assert!(
            called.starts_with("kv key put --binding TIDEGATE_KV config --path "),
            "{called}"
        );
        assert!(
            called.ends_with(&format!("--config wrangler.toml {flags}")),
            "{called}"
        );
        let published =
            Snapshot::parse(&fs::read(folder.path().join("published.json")).unwrap()).unwrap();
        assert!(run.out.contains(&published.digest), "{}", run.out);
    }
}

#[test]
fn wrangler_runs_on_the_node_installed_beside_it_or_the_one_named() {
    let folder = project();
    let bin = folder.path().join("node_modules/node/bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("node"), "").unwrap();
    assert_eq!(tidegate(folder.path(), &["push", "--local"]).code, 0);
    let path = fs::read_to_string(folder.path().join("path")).unwrap();
    assert!(
        path.starts_with(bin.canonicalize().unwrap().to_str().unwrap()),
        "{path}"
    );

    let mut named = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
    named
        .current_dir(folder.path())
        .args(["push", "--local"])
        .env("TIDEGATE_NODE", "/opt/node22/bin");
    assert_eq!(super::run(&mut named).code, 0);
    assert!(
        fs::read_to_string(folder.path().join("path"))
            .unwrap()
            .starts_with("/opt/node22/bin:")
    );
}

#[test]
fn a_development_configuration_is_never_pushed_to_a_deployed_gateway() {
    let folder = project();
    let dev = SOUND.replace("  name: tools\n", "  name: tools\n  environment: dev\n");
    fs::write(folder.path().join("tidegate.yaml"), dev).unwrap();
    let refused = tidegate(folder.path(), &["push", "--remote"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused
            .err
            .starts_with("tidegate.yaml:5:3: metadata.environment: "),
        "{}",
        refused.err
    );
    assert_eq!(called(folder.path()), None);
    assert_eq!(tidegate(folder.path(), &["push", "--local"]).code, 0);
}

#[test]
fn nothing_is_called_for_a_dry_run_or_a_file_with_problems() {
    let folder = project();
    let dry = tidegate(folder.path(), &["push", "--dry-run"]);
    assert_eq!(dry.code, 0, "{}", dry.err);
    assert!(
        dry.out.starts_with("would publish `config` with digest "),
        "{}",
        dry.out
    );
    fs::write(
        folder.path().join("tidegate.yaml"),
        SOUND.replace("https://mcp", "http://mcp"),
    )
    .unwrap();
    assert_eq!(tidegate(folder.path(), &["push", "--local"]).code, 1);
    assert_eq!(called(folder.path()), None);
}

#[test]
fn what_wrangler_says_is_shown_when_it_fails() {
    let folder = project();
    fs::write(folder.path().join("fail"), "").unwrap();
    let failed = tidegate(folder.path(), &["push", "--local"]);
    assert_eq!((failed.code, failed.out.as_str()), (1, ""));
    assert!(
        failed.err.contains("no such namespace") && failed.err.contains("wrangler failed"),
        "{}",
        failed.err
    );

    let absent = tidegate(
        folder.path(),
        &["push", "--local", "--wrangler", "./nowhere"],
    );
    assert_eq!(absent.code, 1);
    assert!(absent.err.contains("npm install"), "{}", absent.err);
    let unbound = tidegate(
        folder.path(),
        &["push", "--local", "--wrangler-config", "other.toml"],
    );
    assert_eq!(unbound.code, 2);
}
