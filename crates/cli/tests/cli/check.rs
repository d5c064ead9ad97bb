//! `tidegate check` and `compile`: what they say of real files.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::{Run, SOUND, folder, root, tidegate};

fn fixtures(kind: &str) -> PathBuf {
    root().join("tests/fixtures/config").join(kind)
}

/// Every fixture without its overlays.
fn names(kind: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(fixtures(kind))
        .unwrap()
        .filter_map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_string_lossy()
                .strip_suffix(".yaml")
                .map(str::to_owned)
        })
        .filter(|name| !name.contains('.'))
        .collect();
    names.sort();
    names
}

fn check(kind: &str, name: &str, more: &[&str]) -> Run {
    let file = format!("{name}.yaml");
    let mut arguments = vec!["check", "--config", &file];
    if fixtures(kind)
        .join(format!("{name}.production.yaml"))
        .exists()
    {
        arguments.extend(["--env", "production"]);
    }
    arguments.extend(more);
    tidegate(&fixtures(kind), &arguments)
}

#[test]
fn every_problem_of_a_file_is_told_with_its_place_and_remedy() {
    let names = names("invalid");
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        let run = check("invalid", &name, &[]);
        let file = fixtures("invalid").join(format!("{name}.expected"));
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&file, &run.err).unwrap();
        }
        let expected = fs::read_to_string(file).unwrap();
        assert_eq!(run.err, expected, "{name}");
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{name}");
    }
}

#[test]
fn no_problem_repeats_a_secret_written_in_plain_text() {
    for name in ["many-problems", "meaning", "oauth"] {
        assert!(
            fs::read_to_string(fixtures("invalid").join(format!("{name}.yaml")))
                .unwrap()
                .contains("hunter2")
        );
        for format in ["text", "json"] {
            let run = check("invalid", name, &["--format", format]);
            assert!(
                !run.err.contains("hunter2") && !run.out.contains("hunter2"),
                "{name}"
            );
        }
    }
}

#[test]
fn a_sound_file_is_ok_with_and_without_its_overlay() {
    for name in names("valid") {
        let run = check("valid", &name, &[]);
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{name}");
        assert!(run.out.contains(": ok: "), "{}", run.out);
        let plain = tidegate(
            &fixtures("valid"),
            &["check", "--config", &format!("{name}.yaml")],
        );
        assert_eq!(plain.code, 0, "{name}: {}", plain.err);
    }
}

#[test]
fn json_says_the_same_as_text() {
    let run = check("invalid", "many-problems", &["--format", "json"]);
    assert_eq!((run.code, run.err.as_str()), (1, ""));
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(report["ok"], false);
    let problems = report["problems"].as_array().unwrap();
    let lines = check("invalid", "many-problems", &[]).err;
    assert_eq!(problems.len() + 1, lines.lines().count());
    for (problem, line) in problems.iter().zip(lines.lines()) {
        let place = format!(
            "{}:{}:{}",
            problem["file"].as_str().unwrap(),
            problem["line"],
            problem["column"]
        );
        assert!(line.starts_with(&place), "{line}");
        assert!(
            line.ends_with(problem["remedy"].as_str().unwrap()),
            "{line}"
        );
    }
    let sound: Value =
        serde_json::from_str(&check("valid", "full", &["--format", "json"]).out).unwrap();
    assert_eq!(
        (&sound["ok"], &sound["problems"]),
        (&Value::Bool(true), &Value::Array(Vec::new()))
    );
}

#[test]
fn a_compiled_snapshot_is_what_the_gateway_reads() {
    let folder = folder(&[("tidegate.yaml", SOUND)]);
    let printed = tidegate(folder.path(), &["compile"]);
    assert_eq!(printed.code, 0, "{}", printed.err);
    let snapshot = tidegate_gateway::config::Snapshot::parse(printed.out.as_bytes()).unwrap();
    assert_eq!(snapshot.config.upstreams[0].name, "search");
    assert!(
        printed.out.contains("${secret:SEARCH_TOKEN}"),
        "secrets stay references"
    );

    let written = tidegate(folder.path(), &["compile", "--out", "snapshot.json"]);
    assert_eq!((written.code, written.out.as_str()), (0, ""));
    let bytes = fs::read(folder.path().join("snapshot.json")).unwrap();
    let again = tidegate_gateway::config::Snapshot::parse(&bytes).unwrap();
    assert_eq!(
        again.digest, snapshot.digest,
        "the digest depends on the content only"
    );
}

#[test]
fn wrong_calls_are_told_apart_from_problems() {
    let folder = folder(&[("tidegate.yaml", SOUND)]);
    fs::write(folder.path().join("binary.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    fs::write(
        folder.path().join("large.yaml"),
        "#".repeat(1024 * 1024 + 1),
    )
    .unwrap();
    for (arguments, said) in [
        (&["check", "--config", "missing.yaml"][..], "tidegate init"),
        (
            &["check", "--env", "production"],
            "tidegate.production.yaml",
        ),
        (&["check", "--env", "../x"], "letters, digits"),
        (&["check", "--config", "binary.yaml"], "not UTF-8"),
        (&["check", "--config", "large.yaml"], "larger than"),
        (&["check", "--config", "."], ""),
        (&["check", "--no-such-option"], "--no-such-option"),
        (&["push"], "--local"),
        (&["push", "--local", "--remote"], "cannot be used with"),
        (
            &["push", "--remote", "--persist-to", "x"],
            "cannot be used with",
        ),
        (&[], "Usage"),
    ] {
        let run = tidegate(folder.path(), arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {}", run.err);
        assert!(run.err.contains(said), "{arguments:?}: {}", run.err);
    }
}

#[test]
fn what_a_spin_manifest_lacks_is_a_problem_of_the_configuration() {
    let folder = folder(&[("tidegate.yaml", SOUND)]);
    let manifest = |hosts: &str, variable: &str| {
        let text = format!(
            "[component.tidegate]\nallowed_outbound_hosts = [{hosts}]\n\
             [component.tidegate.variables]\n{variable} = \"\"\n"
        );
        fs::write(folder.path().join("spin.toml"), text).unwrap();
        tidegate(folder.path(), &["check", "--spin", "spin.toml"])
    };
    let run = manifest("\"https://elsewhere.example\"", "other");
    assert_eq!(run.code, 1, "{}", run.out);
    for lacking in [
        "https://search.example.com",
        "https://login.example.com",
        "search_token",
    ] {
        assert!(run.err.contains(lacking), "{lacking}: {}", run.err);
    }
    assert_eq!(manifest("\"https://*:*\"", "search_token").code, 0);
    let whole = fs::read_to_string(folder.path().join("spin.toml")).unwrap();
    let queue = "[component.queue]\nallowed_outbound_hosts = []\n";
    fs::write(folder.path().join("spin.toml"), whole + queue).unwrap();
    let run = tidegate(folder.path(), &["check", "--spin", "spin.toml"]);
    assert_eq!(run.code, 1, "{}", run.out);
    assert!(
        run.err.contains("the component \"queue\" has no variable"),
        "{}",
        run.err
    );
    assert!(!run.err.contains("\"tidegate\""), "{}", run.err);
    let run = tidegate(folder.path(), &["check", "--spin", "nowhere.toml"]);
    assert_eq!(run.code, 2, "{}", run.err);
}

#[test]
fn a_limiter_that_is_not_bound_with_the_limits_rate_is_a_problem_of_the_configuration() {
    let limit = "\
limits:
  rules:
    - name: burst
      rate: { requests: 20, windowMs: 10000 }
      counter: native
      binding: BURST
";
    let folder = folder(&[("tidegate.yaml", &format!("{SOUND}{limit}"))]);
    let with = |manifest: &str| {
        fs::write(folder.path().join("wrangler.toml"), manifest).unwrap();
        tidegate(folder.path(), &["check", "--wrangler", "wrangler.toml"])
    };
    let run = with("name = \"tidegate\"\n");
    assert_eq!(run.code, 1, "{}", run.out);
    for said in [
        "tidegate.yaml:23",
        "binds no limiter `BURST`",
        "simple = { limit = 20, period = 10 }",
    ] {
        assert!(run.err.contains(said), "{said}: {}", run.err);
    }
    let bound = |limit: u32| {
        format!(
            "[[ratelimits]]\nname = \"BURST\"\nnamespace_id = \"1\"\n\
             simple = {{ limit = {limit}, period = 10 }}\n"
        )
    };
    let run = with(&bound(30));
    assert_eq!(run.code, 1, "{}", run.out);
    assert!(run.err.contains("30 in 10 s"), "{}", run.err);
    assert_eq!(with(&bound(20)).code, 0);
    assert_eq!(with("[[ratelimits]]\n").code, 2, "what is no such file");
}

#[test]
fn what_spin_cannot_give_is_a_problem_with_a_remedy() {
    let odd = SOUND
        .replace("SEARCH_TOKEN", "SEARCH_TOKEN_2")
        .replace("      jwksUri:", "      mtls: require\n      jwksUri:");
    let folder = folder(&[("tidegate.yaml", odd.as_str())]);
    let text = "[component.tidegate]\nallowed_outbound_hosts = [\"https://*:*\"]\n";
    fs::write(folder.path().join("spin.toml"), text).unwrap();
    let run = tidegate(folder.path(), &["check", "--spin", "spin.toml"]);
    assert_eq!(run.code, 1, "{}", run.out);
    for said in [
        "no Spin variable can be called `search_token_2`; call the secret SEARCH_TOKEN2",
        "Spin tells nothing of clients' certificates",
    ] {
        assert!(run.err.contains(said), "{said}: {}", run.err);
    }
}
