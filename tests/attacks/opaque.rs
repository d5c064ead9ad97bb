//! Tokens that say nothing, judged by what their issuer says; and the gateway's own keys.

use super::authority::{BOUND, ELSEWHERE, ENDED, FOREIGN, NOBODY, TRUTHY};
use super::{Attack, Sent, Stage};

const INACTIVE: &str = "The token is not active.";
const UNKNOWN: &str = "The key is not known here.";

pub fn rows(stage: &Stage) -> Vec<Attack> {
    let key = |digits: &str, characters: usize| format!("tg_{digits}_{}", "A".repeat(characters));
    let digits = "0123456789abcdef";
    vec![
        stage.bearer("an opaque token nobody knows", "opaque~mallory", INACTIVE),
        stage.bearer("an opaque token whose activity is a text", TRUTHY, INACTIVE),
        stage.bearer(
            "a form in an opaque token",
            "a/b+c~token=opaque",
            "The token is not written as a token.",
        ),
        stage.bearer(
            "an opaque token for another gateway",
            ELSEWHERE,
            "The token is not meant for this resource.",
        ),
        stage.bearer(
            "an opaque token that has ended",
            ENDED,
            "The token has expired.",
        ),
        stage.bearer(
            "an opaque token of another issuer",
            FOREIGN,
            "The token's issuer is not trusted here.",
        ),
        stage.bearer(
            "an opaque token bound to a key",
            BOUND,
            "The token is bound to a key and cannot be used as a bearer token.",
        ),
        stage.bearer(
            "an opaque token of nobody",
            NOBODY,
            "The token names no subject (`sub`).",
        ),
        stage.bearer("a key that was never made", &key(digits, 43), UNKNOWN),
        stage.bearer("a key that is too short", &key(digits, 42), UNKNOWN),
        stage.bearer(
            "a key with a path in it",
            &key("..%2f..%2f..%2f..", 43).replace('%', "."),
            UNKNOWN,
        ),
        stage.bearer("a key in capitals", &key("0123456789ABCDEF", 43), UNKNOWN),
        stage.bearer("the beginning of a key", "tg_", UNKNOWN),
        stage.proof(
            "a key with a proof",
            Sent::call(stage.tool).with("authorization", format!("DPoP {}", key(digits, 43))),
            "invalid_token",
            UNKNOWN,
        ),
    ]
}
