//! What somebody probably meant.

/// Words teams write for a field that has another name here, and the remedy in full.
const RENAMED: [(&str, &str, &str); 9] = [
    (
        "ratelimitperminute",
        "rateLimit",
        "write `rateLimit: { requests: N }`; its window is a minute",
    ),
    (
        "ratelimit",
        "perClient",
        "write `perClient: { requests: N }`; its window is a minute",
    ),
    ("audience", "audiences", "write `audiences: [NAME]`"),
    ("jwksurl", "jwksUri", "did you mean `jwksUri`?"),
    ("observability", "telemetry", "did you mean `telemetry`?"),
    (
        "servers",
        "upstreams",
        "did you mean `upstreams`? it is a list of `name` and `url`",
    ),
    (
        "mcpservers",
        "upstreams",
        "did you mean `upstreams`? it is a list of `name` and `url`",
    ),
    ("auth", "authentication", "did you mean `authentication`?"),
    (
        "timeout",
        "timeoutMs",
        "did you mean `timeoutMs`? it counts milliseconds",
    ),
];

/// How alike two names are for one to be suggested for the other, from 0 to 1.
const ALIKE: f64 = 0.6;

/// The field of `known` that `name` was meant to be, and what to tell its writer.
pub fn field<'a>(name: &str, known: &[&'a str]) -> Option<(&'a str, String)> {
    let folded = fold(name);
    if let Some(same) = known.iter().find(|candidate| fold(candidate) == folded) {
        return Some((same, format!("did you mean `{same}`?")));
    }
    for (from, to, remedy) in RENAMED {
        if let Some(meant) = known
            .iter()
            .find(|candidate| from == folded && **candidate == to)
        {
            return Some((meant, remedy.to_owned()));
        }
    }
    closest(name, known).map(|meant| (meant, format!("did you mean `{meant}`?")))
}

/// The value of `known` most like `text`, if any is.
pub fn closest<'a>(text: &str, known: &[&'a str]) -> Option<&'a str> {
    let folded = fold(text);
    let likeness = |candidate: &str| {
        let other = fold(candidate);
        // `prod` for `production`: a beginning is more alike than its length says.
        let begins =
            folded.len() >= 3 && (other.starts_with(&folded) || folded.starts_with(&other));
        if begins {
            1.0
        } else {
            strsim::normalized_damerau_levenshtein(&folded, &other)
        }
    };
    known
        .iter()
        .map(|candidate| (likeness(candidate), *candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

/// Spelling without case, underscores and hyphens: `timeout_ms`, `Timeout-MS` and
/// `timeoutMs` are one.
fn fold(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '_' | '-' | ' '))
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_spellings_and_near_misses_find_their_field() {
        let known = [
            "timeoutMs",
            "jwksUri",
            "requiredRoles",
            "rateLimit",
            "audiences",
            "issuer",
            "upstreams",
            "telemetry",
            "circuitBreaker",
            "perClient",
            "name",
        ];
        for (name, meant) in [
            ("timeout_ms", Some("timeoutMs")),
            ("jwks_uri", Some("jwksUri")),
            ("required-roles", Some("requiredRoles")),
            ("rate_limit_per_minute", Some("rateLimit")),
            ("circuit_breaker", Some("circuitBreaker")),
            ("audience", Some("audiences")),
            ("mcpServers", Some("upstreams")),
            ("upstream", Some("upstreams")),
            ("isuer", Some("issuer")),
            ("timeout", Some("timeoutMs")),
            ("observability", Some("telemetry")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(field(name, &known).map(|(meant, _)| meant), meant, "{name}");
        }
    }

    #[test]
    fn a_field_is_suggested_only_where_it_exists() {
        assert_eq!(field("rate_limit_per_minute", &["name", "url"]), None);
        assert_eq!(
            closest("prod", &["dev", "staging", "production"]),
            Some("production")
        );
        assert_eq!(closest("hunter2", &["dev", "staging", "production"]), None);
    }
}
