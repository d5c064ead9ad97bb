//! `tidegate keys` and `tidegate revoke`, with a wrangler that keeps what it is given in a
//! folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use tidegate_gateway::auth::KeyRecord;
use tidegate_gateway::auth::revocation::{RevocationRecord, Revoked};

use super::{Run, folder, tidegate};

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
