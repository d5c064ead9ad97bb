//! `tidegate init`: a file that is right from the start and never overwrites another.

use std::fs;

use super::{folder, tidegate};

#[test]
fn the_starter_is_sound_and_names_a_schema_that_is_there() {
    let folder = folder(&[]);
    assert_eq!(tidegate(folder.path(), &["init"]).code, 0);
    let checked = tidegate(folder.path(), &["check"]);
    assert_eq!(checked.code, 0, "{}", checked.err);
    let text = fs::read_to_string(folder.path().join("tidegate.yaml")).unwrap();
    let schema = text
        .lines()
        .next()
        .unwrap()
        .strip_prefix("# yaml-language-server: $schema=")
        .unwrap();
    assert!(folder.path().join(schema).is_file(), "{schema}");
}

#[test]
fn the_starter_uses_the_schema_of_a_checkout_where_there_is_one() {
    let folder = folder(&[]);
    fs::create_dir(folder.path().join("kv-schemas")).unwrap();
    fs::write(folder.path().join("kv-schemas/tidegate.schema.json"), "{}").unwrap();
    assert_eq!(tidegate(folder.path(), &["init"]).code, 0);
    let text = fs::read_to_string(folder.path().join("tidegate.yaml")).unwrap();
    assert!(
        text.starts_with("# yaml-language-server: $schema=./kv-schemas/tidegate.schema.json\n")
    );
    assert!(!folder.path().join("tidegate.schema.json").exists());
}

#[test]
fn what_is_commented_out_in_the_starter_is_sound_too() {
    let folder = folder(&[]);
    assert_eq!(tidegate(folder.path(), &["init", "--force"]).code, 0);
    let file = folder.path().join("tidegate.yaml");
    let sentence = |line: &str| {
        line.starts_with("# ")
            || line.contains("# A reference")
            || line.contains("# Also")
            || line.contains("# Each")
    };
    let uncommented: String = fs::read_to_string(&file)
        .unwrap()
        .lines()
        .filter(|line| {
            !sentence(line) || line.starts_with("# allowedOrigins") || line.starts_with("#   - ")
        })
        .map(|line| format!("{}\n", line.replacen("# ", "", 1)))
        .collect();
    fs::write(
        &file,
        uncommented.replace(
            "dev, staging or production. Only dev may use loopback addresses.",
            "",
        ),
    )
    .unwrap();
    let checked = tidegate(folder.path(), &["check"]);
    assert_eq!(checked.code, 0, "{}", checked.err);
    assert!(checked.out.contains("2 tool rule(s)"), "{}", checked.out);
}

#[test]
fn a_file_that_is_there_is_kept_unless_forced() {
    let folder = folder(&[("tidegate.yaml", "mine")]);
    let refused = tidegate(folder.path(), &["init"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("--force"), "{}", refused.err);
    assert_eq!(
        fs::read_to_string(folder.path().join("tidegate.yaml")).unwrap(),
        "mine"
    );
    assert_eq!(tidegate(folder.path(), &["init", "--force"]).code, 0);
    assert_eq!(tidegate(folder.path(), &["check"]).code, 0);
}
