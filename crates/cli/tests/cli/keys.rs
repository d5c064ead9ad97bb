//! `tidegate keys` and `tidegate revoke`, with a wrangler that keeps what it is given in a
//! folder, and without any.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tidegate_gateway::auth::KeyRecord;
use tidegate_gateway::auth::revocation::{RevocationRecord, Revoked};

use super::{Run, folder, run, tidegate};

/// `kv key put|get|list`, the value of `a/b` in the file `kv/a%b`.
const WRANGLER: &str = r#"#!/bin/sh
verb=$3; shift 5
mkdir -p kv
file=kv/$(printf %s "$1" | tr / %)
case $verb in
  put) cp "$3" "$file" ;;
  get) cat "$file" ;;
  list)
    prefix=$(printf %s "$2" | tr / %)
    printf '['
    sep=
    for each in kv/"$prefix"*; do
      [ -e "$each" ] || continue
      printf '%s{"name":"%s"}' "$sep" "$(basename "$each" | tr % /)"
      sep=,
    done
    printf ']' ;;
esac
"#;

fn project() -> tempfile::TempDir {
    let folder = folder(&[("wrangler.toml", "name = \"x\"\n")]);
    let bin = folder.path().join("node_modules/.bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("wrangler"), WRANGLER).unwrap();
    fs::set_permissions(bin.join("wrangler"), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn keys(folder: &Path, arguments: &[&str]) -> Run {
    tidegate(folder, &[&["keys"], arguments, &["--local"]].concat())
}

fn created(folder: &Path) -> (String, String) {
    let audience = "https://mcp.example.com/mcp";
    let more = [
        "--scope", "a", "--scope", "b", "--role", "reader", "--days", "30",
    ];
    let run = keys(
        folder,
        &[&["create", "nightly", "--audience", audience], &more[..]].concat(),
    );
    assert_eq!(run.code, 0, "{}", run.err);
    let key = run.out.trim().to_owned();
    let id = key[3..19].to_owned();
    (key, id)
}

fn record(folder: &Path, id: &str) -> KeyRecord {
    let text = fs::read_to_string(folder.join(format!("kv/key%{id}"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_key_is_shown_once_and_kept_as_a_digest() {
    let folder = project();
    let (key, id) = created(folder.path());
    assert!(key.starts_with("tg_") && key.len() == 63, "{key}");
    let stored = fs::read_to_string(folder.path().join(format!("kv/key%{id}"))).unwrap();
    assert!(!stored.contains(&key[20..]), "{stored}");
    let record = record(folder.path(), &id);
    assert_eq!(
        (record.scopes, record.roles),
        (vec!["a".into(), "b".into()], vec!["reader".into()])
    );
    assert_eq!(
        record.expires_at_ms - record.created_at_ms,
        30 * 24 * 3_600_000
    );
    let listed = keys(folder.path(), &["list"]);
    assert!(
        listed.out.contains(&id) && listed.out.contains("nightly"),
        "{}",
        listed.out
    );
    assert!(!listed.out.contains(&key[20..]));
    let (other, _) = created(folder.path());
    assert_ne!(key, other);
}

#[test]
fn a_rotated_key_keeps_its_name_and_its_old_secret_for_a_while() {
    let folder = project();
    let (key, id) = created(folder.path());
    let before = record(folder.path(), &id);
    let run = keys(folder.path(), &["rotate", &id, "--overlap-hours", "2"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let renewed = run.out.trim();
    assert_eq!(renewed[..20], key[..20]);
    assert_ne!(renewed, key);
    let after = record(folder.path(), &id);
    assert_eq!(after.hashes.len(), 2);
    assert_eq!(after.hashes[1].sha256, before.hashes[0].sha256);
    assert!(after.hashes[0].until_ms.is_none() && after.hashes[1].until_ms.is_some());
    keys(folder.path(), &["rotate", &id]);
    let again = record(folder.path(), &id);
    assert_eq!(again.hashes.len(), 2, "not three");
    assert_eq!(again.hashes[1].sha256, after.hashes[0].sha256);
}

#[test]
fn a_revoked_key_stays_revoked() {
    let folder = project();
    let (_, id) = created(folder.path());
    let run = keys(folder.path(), &["revoke", &id]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(record(folder.path(), &id).revoked_at_ms.is_some());
    let run = keys(folder.path(), &["rotate", &id]);
    assert!(run.code == 1 && run.err.contains("revoked"), "{}", run.err);
    assert!(keys(folder.path(), &["list"]).out.contains("revoked"));
}

#[test]
fn what_is_no_key_is_refused_in_words() {
    let folder = project();
    let (key, _) = created(folder.path());
    let none = "0000000000000000";
    let audience = ["create", "x", "--audience"];
    let cases: [(Vec<&str>, i32, &str); 5] = [
        (vec!["revoke", none], 1, "there is no key"),
        (vec!["revoke", &key], 2, "never write the key itself"),
        (vec!["create", "x"], 2, "--audience"),
        (
            [&audience[..], &["mcp.example.com"]].concat(),
            2,
            "is no resource",
        ),
        (
            [&audience[..], &["https://a.b/mcp", "--scope", "a b"]].concat(),
            2,
            "by itself",
        ),
    ];
    for (arguments, code, words) in cases {
        let run = keys(folder.path(), &arguments);
        assert!(
            run.code == code && run.err.contains(words),
            "{arguments:?}: {}",
            run.err
        );
        assert!(!run.err.contains(&key[20..]), "a key is not repeated");
    }
}

#[test]
fn the_list_of_revocations_grows_shrinks_and_names_nobody() {
    let folder = project();
    let issuer = "https://login.example.com";
    let revoke = |arguments: &[&str]| {
        let more = ["--issuer", issuer, "--local"];
        let run = tidegate(folder.path(), &[&["revoke"], arguments, &more[..]].concat());
        assert_eq!(run.code, 0, "{}", run.err);
        let text = fs::read_to_string(folder.path().join("kv/revocation")).unwrap();
        assert!(!text.contains("ada") && !text.contains(issuer), "{text}");
        serde_json::from_str::<RevocationRecord>(&text)
            .unwrap()
            .entries
    };
    let one = revoke(&["--subject", "ada"]);
    assert_eq!(one[0].id, Revoked::Subject.id(issuer, "ada"));
    assert_eq!(one[0].until_ms, None);
    let two = revoke(&["--tenant", "north", "--days", "1"]);
    assert_eq!(two.len(), 2);
    assert_eq!(two[1].until_ms, Some(two[1].at_ms + 24 * 3_600_000));
    assert_eq!(revoke(&["--subject", "ada"]).len(), 2, "not twice");
    let rest = revoke(&["--subject", "ada", "--lift"]);
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].kind, Revoked::Tenant);
    let run = tidegate(folder.path(), &["revoke", "--local", "--issuer", issuer]);
    assert_eq!(run.code, 2, "{}", run.err);
    let stored = fs::read_to_string(folder.path().join("kv/revocation")).unwrap();
    let schema = super::root().join("kv-schemas/revocation.schema.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(schema).unwrap()).unwrap();
    let record: Value = serde_json::from_str(&stored).unwrap();
    assert!(jsonschema::is_valid(&schema, &record));
}

/// Runs it with `--print` and this on its standard input; gives what it printed, and the key
/// and value in that.
fn printed(arguments: &[&str], input: &str) -> (Run, Option<(String, String)>) {
    let folder = folder(&[("input", input)]);
    let input = fs::File::open(folder.path().join("input")).unwrap();
    let run = run(Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .current_dir(folder.path())
        .args(arguments)
        .arg("--print")
        .stdin(input));
    let pair = run
        .out
        .strip_suffix('\n')
        .and_then(|line| line.split_once('='));
    let pair = pair.map(|(key, value)| (key.to_owned(), value.to_owned()));
    (run, pair)
}

#[test]
fn a_key_for_another_store_is_printed_as_what_is_to_be_written() {
    let audience = "https://mcp.example.com/mcp";
    let create = ["keys", "create", "nightly", "--audience", audience];
    let (run, pair) = printed(&create, "");
    let (name, value) = pair.unwrap();
    let key = run.err.trim();
    assert!(key.starts_with("tg_") && key.len() == 63, "{key}");
    assert!(!run.out.contains(&key[20..]), "{}", run.out);
    let id = &key[3..19];
    assert_eq!(name, format!("key/{id}"));
    let record: KeyRecord = serde_json::from_str(&value).unwrap();
    assert_eq!((record.name.as_str(), record.id.as_str()), ("nightly", id));

    let (run, pair) = printed(&["keys", "revoke", id], &value);
    assert_eq!(run.code, 0, "{}", run.err);
    let record: KeyRecord = serde_json::from_str(&pair.unwrap().1).unwrap();
    assert!(record.revoked_at_ms.is_some());

    let none = "0000000000000000";
    for (arguments, input, code, words) in [
        (
            ["keys", "revoke", none],
            value.as_str(),
            1,
            "there is no key",
        ),
        (["keys", "revoke", id], "\n", 1, "there is no key"),
        (
            ["keys", "revoke", id],
            "{}",
            1,
            "not what this version reads",
        ),
    ] {
        let (run, pair) = printed(&arguments, input);
        assert!(run.code == code && run.err.contains(words), "{}", run.err);
        assert!(pair.is_none());
    }
    let (run, _) = printed(&["keys", "list"], "");
    assert!(
        run.code == 2 && run.err.contains("nothing to list"),
        "{}",
        run.err
    );
}

#[test]
fn the_list_in_another_store_is_changed_and_never_begun_anew_by_mistake() {
    let subject = |name| ["revoke", "--issuer", "https://a.example", "--subject", name];
    let (run, pair) = printed(&subject("ada"), "\n");
    assert_eq!(run.code, 0, "{}", run.err);
    let (name, one) = pair.unwrap();
    assert_eq!(name, "revocation");
    let (_, pair) = printed(&subject("sam"), &format!("{one}\n"));
    let two: RevocationRecord = serde_json::from_str(&pair.unwrap().1).unwrap();
    assert_eq!(two.entries.len(), 2);
    let (run, pair) = printed(&subject("sam"), "");
    assert!(run.code == 2 && pair.is_none(), "{}", run.out);
    assert!(run.err.contains("nothing came"), "{}", run.err);
}
