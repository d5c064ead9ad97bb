//! `tidegate request-token`.

use std::process::Command;

use super::{Run, root, run};

const SECRET: &str = "an orchestrator's secret of 40 bytes....";

fn sign(secret: &str, more: &[&str]) -> Run {
    let call = [
        "--issuer",
        "https://login.example.com",
        "--tenant",
        "acme",
        "--subject",
        "sam",
    ];
    run(Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .env("ORCHESTRATOR_SECRET", secret)
        .args([
            "request-token",
            "--secret-env",
            "ORCHESTRATOR_SECRET",
            "--tool",
            "pay__send",
        ])
        .args(call)
        .args(more))
}

#[test]
fn the_readmes_example_is_signed_as_it_says() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let arguments = r#"{"to":"ada","amount":100,"note":"café"}"#;
    let call = [
        "--arguments",
        arguments,
        "--at",
        "1700000000",
        "--nonce",
        "n-1",
    ];
    let signed = sign(SECRET, &call);
    assert_eq!(signed.code, 0, "{}", signed.err);
    assert!(readme.contains(signed.out.trim()), "{}", signed.out);
    let shown = sign(SECRET, &[&call[..], &["--show"]].concat());
    assert!(readme.contains(shown.out.trim()), "{}", shown.out);
}

#[test]
fn a_token_is_of_now_and_unlike_any_other() {
    let tokens = [sign(SECRET, &[]), sign(SECRET, &[])].map(|run| run.out);
    assert!(tokens.iter().all(|token| token.starts_with("v1.")));
    assert_ne!(tokens[0], tokens[1]);
}

#[test]
fn what_cannot_be_signed_is_said() {
    for (secret, more, words) in [
        ("short", &[][..], "ORCHESTRATOR_SECRET is not set"),
        (SECRET, &["--arguments", "[]"], "no JSON object"),
        (
            SECRET,
            &["--arguments", r#"{"a":1,"a":2}"#],
            "no canonical form",
        ),
        (
            SECRET,
            &["--arguments", r#"{"a":9007199254740993}"#],
            "no canonical form",
        ),
        (SECRET, &["--nonce", "a.b"], "--nonce takes"),
    ] {
        let run = sign(secret, more);
        assert_eq!(run.code, 2);
        assert!(
            run.err.contains(words) && !run.err.contains(SECRET),
            "{}",
            run.err
        );
    }
}
