//! One sound configuration, and what each change to it is found to break.

use serde_json::{Value, json};

use super::*;
use crate::config::bounds::{
    AT_ONCE, ATTEMPTS, FAILURE_CALLS, FAILURE_PERCENT, FAILURE_THRESHOLD, FAILURE_WINDOW_MS,
    HALF_OPEN_REQUESTS, HEDGE_AFTER_MS, RESET_INTERVAL_MS, RETRY_PAUSE_MS,
};

/// A configuration without problems, for a deployed gateway.
pub(crate) fn sound() -> Config {
    serde_json::from_value(document()).unwrap()
}

fn document() -> Value {
    json!({
        "apiVersion": "tidegate/v1",
        "kind": "Gateway",
        "metadata": { "name": "tools", "owner": "Platform", "contact": "platform@example.com" },
        "publicUrl": "https://mcp.example.com",
        "allowedOrigins": ["https://app.example.com", "http://localhost:6274"],
        "authentication": { "type": "jwt", "issuers": [{
            "issuer": "https://login.example.com/realms/main",
            "jwksUri": "https://login.example.com/realms/main/keys",
            "audiences": ["tools"],
            "requiredClaims": { "email_verified": true },
            "tenantClaim": "tid"
        }] },
        "upstreams": [
            { "name": "search", "url": "https://search.example.com/mcp",
              "credentials": { "type": "bearer", "token": "${secret:SEARCH_TOKEN}" } },
            { "name": "git-2", "url": "https://git.example.com/mcp",
              "credentials": { "type": "header", "name": "X-Api-Key", "value": "${secret:GIT_KEY}" } }
        ],
        "tools": [
            { "name": "search__query", "requiredRoles": ["reader"], "requiredScopes": ["search:read"],
              "rateLimit": { "requests": 60 }, "timeoutMs": 10000, "execution": "auto" },
            { "name": "git-2__*", "execution": "task" }
        ],
        "limits": { "perClient": { "requests": 600, "windowMs": 60000 }, "requestBodyBytes": 65536 }
    })
}

/// The development variant: everything on this machine.
fn local() -> Value {
    let mut local = document();
    local["metadata"]["environment"] = "dev".into();
    local["publicUrl"] = "http://127.0.0.1:8787".into();
    local["authentication"]["issuers"][0]["issuer"] = "http://localhost:9000".into();
    local["authentication"]["issuers"][0]["jwksUri"] = "http://localhost:9000/jwks".into();
    local["upstreams"][0]["url"] = "http://[::1]:3001/mcp".into();
    local
}

/// Writes `value` at `pointer`, which may end in a new field, and gives the problems.
fn changed(mut document: Value, pointer: &str, value: Value) -> Vec<Problem> {
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    let parent = document
        .pointer_mut(parent)
        .unwrap_or_else(|| panic!("{pointer} has no parent"));
    match last.parse::<usize>() {
        Ok(index) if parent.is_array() => parent[index] = value,
        _ => parent[last] = value,
    }
    serde_json::from_value::<Config>(document)
        .unwrap()
        .problems()
}

/// The change is one problem, at the pointer that was changed unless the table says another.
fn check(document: &Value, rows: &[(&str, Value, &str)]) {
    for (pointer, value, message) in rows {
        let (pointer, expected) = pointer.split_once(" → ").unwrap_or((pointer, pointer));
        let found = changed(document.clone(), pointer, value.clone());
        let summary: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 1, "{pointer} = {value}: {summary:#?}");
        assert_eq!(found[0].pointer, expected, "{value}");
        assert!(
            found[0].message.contains(message),
            "{pointer} = {value}: {summary:?} does not say {message:?}"
        );
        assert!(
            !found[0].remedy.is_empty(),
            "{pointer}: a problem without a remedy"
        );
    }
}

#[test]
fn a_sound_configuration_has_no_problems() {
    assert_eq!(sound().problems(), []);
    assert_eq!(
        serde_json::from_value::<Config>(local())
            .unwrap()
            .problems(),
        []
    );
}

#[test]
fn identity_is_checked() {
    check(
        &document(),
        &[
            ("/apiVersion", json!("tidegate/v2"), "not a version"),
            ("/metadata/name", json!(" "), "is empty"),
            ("/metadata/name", json!("two\nlines"), "control characters"),
            ("/metadata/owner", json!("x".repeat(257)), "too long"),
            ("/metadata/contact", json!(""), "is empty"),
        ],
    );
}

#[test]
fn the_public_url_is_an_https_origin_and_nothing_more() {
    let not_origin = "more than an origin";
    check(
        &document(),
        &[
            (
                "/publicUrl",
                json!("https://mcp.example.com/mcp"),
                not_origin,
            ),
            (
                "/publicUrl",
                json!("https://mcp.example.com/?a=b"),
                not_origin,
            ),
            (
                "/publicUrl",
                json!("https://mcp.example.com/#top"),
                not_origin,
            ),
            (
                "/publicUrl",
                json!("https://me@mcp.example.com"),
                not_origin,
            ),
            (
                "/publicUrl",
                json!("http://mcp.example.com"),
                "not an https origin",
            ),
            (
                "/publicUrl",
                json!("https://localhost"),
                "loopback address outside",
            ),
        ],
    );
    check(
        &local(),
        &[(
            "/publicUrl",
            json!("http://192.168.0.10:8787"),
            "not an https origin",
        )],
    );
}

#[test]
fn origins_are_written_as_browsers_send_them() {
    for origin in [
        "*",
        "null",
        "https://app.example.com/",
        "https://App.example.com",
        "app.example.com",
        "https://app.example.com:443",
        "https://*.example.com",
        "ftp://app.example.com",
        "https://a@app.example.com",
    ] {
        check(
            &document(),
            &[("/allowedOrigins/0", json!(origin), "not an origin")],
        );
    }
    check(
        &document(),
        &[(
            "/allowedOrigins/1",
            json!("https://app.example.com"),
            "listed twice",
        )],
    );
}

#[test]
fn authentication_is_off_only_on_a_developers_machine() {
    let off = json!({ "type": "none" });
    assert_eq!(changed(local(), "/authentication", off.clone()), []);
    check(
        &document(),
        &[(
            "/authentication → /authentication/type",
            off.clone(),
            "turns authentication off",
        )],
    );
    let mut exposed = local();
    exposed["publicUrl"] = "https://dev.example.com".into();
    check(
        &exposed,
        &[(
            "/authentication → /authentication/type",
            off,
            "turns authentication off",
        )],
    );
}

#[test]
fn issuers_are_complete_and_public() {
    let at = |field: &str| format!("/authentication/issuers/0/{field}");
    let second = document()["authentication"]["issuers"][0].clone();
    let asked = |issuer: &str| {
        let endpoint = format!("{issuer}/introspect");
        let introspection =
            json!({ "endpoint": endpoint, "clientId": "gw", "clientSecret": "${secret:S}" });
        json!({ "issuer": issuer, "introspection": introspection })
    };
    check(
        &document(),
        &[
            ("/authentication/issuers", json!([]), "no token could ever"),
            (
                "/authentication/issuers → /authentication/issuers/1/issuer",
                json!([second, second]),
                "listed twice",
            ),
            (&at("issuer"), json!("login"), "is not a URL"),
            (
                &at("issuer"),
                json!("http://login.example.com"),
                "uses http",
            ),
            (
                &at("issuer"),
                json!("https://login.example.com?tenant=1"),
                "has a query",
            ),
            (
                &at("jwksUri"),
                json!("https://169.254.169.254/keys"),
                "inside a private network",
            ),
            (
                &at("jwksUri"),
                json!("https://u:p@login.example.com/keys"),
                "user name or password",
            ),
            (
                &format!("{} → {}", at("audiences"), at("audiences/1")),
                json!(["a", "a"]),
                "listed twice",
            ),
            (&at("algorithms"), json!([]), "no signature"),
            (
                &format!("{} → {}", at("requiredClaims"), at("requiredClaims/a~1b")),
                json!({ "a/b": ["x"] }),
                "can be compared with",
            ),
            (
                &format!(
                    "{} → {}",
                    at("introspection"),
                    at("introspection/clientSecret")
                ),
                json!({ "endpoint": "https://login.example.com/i", "clientId": "gw", "clientSecret": "hunter2" }),
                "not a reference to a secret",
            ),
            (
                &format!("{} → {}", at("introspection"), at("introspection/endpoint")),
                json!({ "endpoint": "https://10.0.0.1/i", "clientId": "gw", "clientSecret": "${secret:S}" }),
                "inside a private network",
            ),
            (
                "/authentication/issuers → /authentication/issuers/1/introspection",
                json!([
                    asked("https://a.example.com"),
                    asked("https://b.example.com")
                ]),
                "does not say whom to ask",
            ),
            (&at("rolesClaim"), json!(""), "is empty"),
            (&at("tenantClaim"), json!(""), "is empty"),
            (
                &format!("{} → {}", at("tenants"), at("tenants/0")),
                json!(["nobody"]),
                "names a tenant that is not listed",
            ),
        ],
    );
}

#[test]
fn no_call_counts_as_more_than_a_limit_it_falls_under() {
    let limit = |requests: u32, tools: Value| json!({ "name": "l", "rate": { "requests": requests }, "tools": tools });
    for (tool, limit, pointer) in [
        (0, limit(4, json!([])), Some("/tools/0/cost")),
        (0, limit(5, json!([])), None),
        (0, limit(4, json!(["search__query"])), Some("/tools/0/cost")),
        (0, limit(4, json!(["search__*"])), Some("/tools/0/cost")),
        (0, limit(4, json!(["search__other"])), None),
        (0, limit(4, json!(["git-2__*"])), None),
        (1, limit(4, json!(["git-2__push"])), Some("/tools/1/cost")),
    ] {
        let mut document = document();
        document["tools"][tool]["cost"] = 5.into();
        document["limits"]["rules"] = json!([limit]);
        let config: Config = serde_json::from_value(document).unwrap();
        let found = config.problems();
        let at: Vec<&str> = found.iter().map(|it| it.pointer.as_str()).collect();
        assert_eq!(at, Vec::from_iter(pointer), "{limit}");
    }
    // A tool's own rule is in place of its upstream's; and its own limit is one too.
    let mut document = document();
    document["tools"][1]["cost"] = 5.into();
    let tools = document["tools"].as_array_mut().unwrap();
    tools.push(json!({ "name": "git-2__push", "cost": 4 }));
    document["limits"]["rules"] = json!([limit(4, json!(["git-2__push"]))]);
    let config: Config = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(config.problems(), []);
    document["tools"][2]["rateLimit"] = json!({ "requests": 3 });
    let config: Config = serde_json::from_value(document).unwrap();
    assert_eq!(config.problems()[0].pointer, "/tools/2/cost");
    assert!(config.problems()[0].message.contains("git-2__push"));
}

#[test]
fn other_versions_of_upstreams_are_elsewhere_and_within_bounds() {
    let mut document = document();
    document["upstreams"][0]["canary"] =
        json!({ "url": "https://next.example.com/mcp", "weightPercent": 10 });
    document["upstreams"][0]["mirror"] =
        json!({ "url": "https://next.example.com/mcp", "percent": 1 });
    let config: Config = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(config.problems(), []);
    let (canary, rollback) = ("/upstreams/0/canary", "/upstreams/0/canary/rollback");
    let within = |member: &str, value: u64| {
        let pointer = format!("{rollback} → {rollback}/{member}");
        (pointer, json!({ member: value }))
    };
    let rules = [
        within("maxErrorPercent", 101),
        within("maxP95Ms", 0),
        within("windowMs", 999),
        within("minimumCalls", 0),
        within("holdMs", 0),
    ];
    for (pointer, rule) in rules {
        check(&document, &[(&pointer, rule, "out of range")]);
    }
    let own = json!("https://search.example.com/mcp");
    let ours = json!("https://mcp.example.com/mcp");
    for (member, url) in [
        ("canary", &own),
        ("mirror", &own),
        ("canary", &ours),
        ("mirror", &ours),
    ] {
        let pointer = format!("/upstreams/0/{member}/url");
        check(&document, &[(&pointer, url.clone(), "own")]);
        check(
            &document,
            &[(&pointer, json!("http://next.example.com/mcp"), "uses http")],
        );
    }
    check(
        &document,
        &[
            (
                &format!("{canary}/weightPercent"),
                json!(101),
                "out of range",
            ),
            (&format!("{canary}/release"), json!(""), "is empty"),
            ("/upstreams/0/mirror/percent", json!(0), "out of range"),
        ],
    );
}

#[test]
fn upstream_names_are_safe_in_tool_names_and_paths() {
    let not_a_name = "not a name";
    for name in [
        "Search",
        "2d",
        "-a",
        "a-",
        "a--b",
        "a_b",
        "a__b",
        "a/b",
        "",
        "ä",
        &"x".repeat(33),
    ] {
        let found = changed(document(), "/upstreams/0/name", json!(name));
        assert!(
            found
                .iter()
                .any(|p| p.pointer == "/upstreams/0/name" && p.message.contains(not_a_name)),
            "{name}"
        );
    }
    let found = changed(document(), "/upstreams/1/name", json!("search"));
    assert!(
        found
            .iter()
            .any(|p| p.pointer == "/upstreams/1/name" && p.message.contains("two upstreams"))
    );
}

#[test]
fn a_deployed_gateway_reaches_public_https_servers_only() {
    let private = "inside a private network";
    check(
        &document(),
        &[
            (
                "/upstreams/0/url",
                json!("http://search.example.com/mcp"),
                "uses http",
            ),
            (
                "/upstreams/0/url",
                json!("ws://search.example.com/mcp"),
                "not an https URL",
            ),
            (
                "/upstreams/0/url",
                json!("https://a:b@search.example.com/mcp"),
                "user name or password",
            ),
            (
                "/upstreams/0/url",
                json!("https://search.example.com/mcp#x"),
                "fragment",
            ),
            ("/upstreams/0/url", json!("https://10.0.0.8/mcp"), private),
            (
                "/upstreams/0/url",
                json!("https://[::ffff:10.0.0.8]/mcp"),
                private,
            ),
            (
                "/upstreams/0/url",
                json!("https://metadata.google.internal/"),
                private,
            ),
            ("/upstreams/0/url", json!("https://localhost/mcp"), private),
            (
                "/upstreams/0/url",
                json!("https://mcp.example.com/mcp"),
                "gateway's own address",
            ),
            (
                "/upstreams/0/url",
                json!(format!("https://search.example.com/{}", "x".repeat(2048))),
                "too long",
            ),
        ],
    );
    check(
        &local(),
        &[(
            "/upstreams/0/url",
            json!("http://search:3001/mcp"),
            "http to another machine",
        )],
    );
}

#[test]
fn no_secret_is_written_into_the_url_of_a_server() {
    let mut document = document();
    let upstream = &mut document["upstreams"][0];
    upstream["canary"] = json!({ "url": "https://next.example.com/mcp", "weightPercent": 10 });
    upstream["mirror"] = json!({ "url": "https://next.example.com/mcp", "percent": 1 });
    for name in [
        "key",
        "api_key",
        "API-Key",
        "apikey",
        "token",
        "accessToken",
        "secret",
        "password",
        "sig",
        "Signature",
        "auth",
        "%6bey",
    ] {
        let url = json!(format!("https://there.example.com/mcp?a=b&{name}=hunter2"));
        for member in ["url", "canary/url", "mirror/url"] {
            let pointer = format!("/upstreams/0/{member}");
            check(&document, &[(&pointer, url.clone(), "carries a secret")]);
        }
    }
    for query in ["tenant=a", "monkey=a", "tokens=a", "q=key", ""] {
        let url = json!(format!("https://there.example.com/mcp?{query}"));
        let found = changed(document.clone(), "/upstreams/0/url", url);
        assert_eq!(found, [], "{query}");
    }
}

#[test]
fn tokens_for_upstreams_come_from_a_named_server_by_a_secret_that_is_kept() {
    let at = "/upstreams/0/credentials";
    let with = |grant: &str| {
        let mut document = document();
        document["upstreams"][0]["credentials"] = json!({
            "type": "oauth", "grant": grant, "issuer": "https://as.example.com", "clientId": "gw",
            "clientSecret": "${secret:AS_SECRET}",
        });
        document
    };
    for grant in ["client", "exchange", "user"] {
        let config: Config = serde_json::from_value(with(grant)).unwrap();
        assert_eq!(config.problems(), []);
        let field = |name: &str| format!("{at}/{name}");
        check(
            &with(grant),
            &[
                (&field("clientSecret"), json!("hunter2"), "not a reference"),
                (&field("issuer"), json!("as.example.com"), "not an issuer"),
                (&field("issuer"), json!("http://as.example.com"), "http"),
                (
                    &field("issuer"),
                    json!("https://10.0.0.1"),
                    "private network",
                ),
                (
                    &field("resource"),
                    json!("ftp://a.example"),
                    "not an https URL",
                ),
                (&field("clientId"), json!(""), "is empty"),
                (
                    &format!("{at}/scopes → {at}/scopes/0"),
                    json!(["a b"]),
                    "more than one",
                ),
            ],
        );
    }
    let endpoint = json!("https://as.example.com/x");
    for (grant, name, value, place, message) in [
        (
            "client",
            "clientSecret",
            Value::Null,
            "/clientSecret",
            "is missing",
        ),
        (
            "client",
            "audience",
            json!("x"),
            "/audience",
            "exchange only",
        ),
        ("user", "audience", json!("x"), "/audience", "exchange only"),
        (
            "client",
            "authorizationEndpoint",
            endpoint.clone(),
            "/authorizationEndpoint",
            "user only",
        ),
        (
            "user",
            "authorizationEndpoint",
            endpoint.clone(),
            "",
            "not the other",
        ),
        ("user", "tokenEndpoint", endpoint, "", "not the other"),
    ] {
        let place = format!("{at}/{name} → {at}{place}");
        check(&with(grant), &[(&place, value, message)]);
    }
    let sign_in = "/authentication/issuers/0/signIn";
    let (id, secret) = (
        format!("{sign_in}/clientId"),
        format!("{sign_in}/clientSecret"),
    );
    for (value, place, message) in [
        (json!({ "clientId": "" }), id, "is empty"),
        (
            json!({ "clientId": "gw", "clientSecret": "hunter2" }),
            secret,
            "not a reference",
        ),
    ] {
        check(
            &document(),
            &[(&format!("{sign_in} → {place}"), value, message)],
        );
    }
    let found = changed(with("user"), "/authentication", json!({ "type": "none" }));
    assert!(
        found
            .iter()
            .any(|problem| problem.pointer == format!("{at}/grant"))
    );
}

#[test]
fn credentials_are_references_in_headers_of_the_upstreams_own() {
    let (token, name) = (
        "/upstreams/0/credentials/token",
        "/upstreams/1/credentials/name",
    );
    for plain in [
        "hunter2",
        "${secret:lower}",
        "${secret:}",
        "${secret:A",
        "$secret:A",
        "x${secret:A}",
        "${env:A}",
    ] {
        check(
            &document(),
            &[(token, json!(plain), "not a reference to a secret")],
        );
        let shown = changed(document(), token, json!(plain))[0].to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    for reserved in [
        "Mcp-Session-Id",
        "mcp-method",
        "Host",
        "Connection",
        "Proxy-Authorization",
        "Content-Length",
    ] {
        check(
            &document(),
            &[(name, json!(reserved), "the gateway or HTTP itself writes")],
        );
    }
    check(
        &document(),
        &[
            (name, json!("Authorization"), "type bearer"),
            (name, json!("X Key"), "not a header name"),
            (name, json!(""), "not a header name"),
        ],
    );
}

#[test]
fn rules_name_configured_tools_once() {
    check(
        &document(),
        &[
            ("/tools/0/name", json!("query"), "which upstream's tool"),
            ("/tools/0/name", json!("find__query"), "not configured"),
            ("/tools/0/name", json!("search__"), "not a tool's name"),
            ("/tools/0/name", json!("search__qu*"), "not a tool's name"),
            ("/tools/0/name", json!("search__a b"), "not a tool's name"),
            ("/tools/1/name", json!("search__query"), "two rules"),
            ("/tools/0/description", json!(""), "empty or too long"),
            (
                "/tools/0/requiredRoles → /tools/0/requiredRoles/0",
                json!([""]),
                "is empty",
            ),
            (
                "/tools/0/requiredScopes → /tools/0/requiredScopes/0",
                json!(["a b"]),
                "not one scope",
            ),
            (
                "/tools/0/requiredScopes → /tools/0/requiredScopes/0",
                json!(["a\"b"]),
                "not one scope",
            ),
        ],
    );
    assert_eq!(
        changed(document(), "/tools/0/name", json!("search__a__b")),
        [],
        "a tool's own name may hold __"
    );
}

#[test]
fn a_fallback_is_another_configured_upstream() {
    let document = document();
    check(
        &document,
        &[
            ("/upstreams/0/fallback", json!("search"), "itself"),
            ("/upstreams/0/fallback", json!("nobody"), "no configured"),
        ],
    );
    assert_eq!(
        changed(document, "/upstreams/0/fallback", json!("git-2")),
        []
    );
}

#[test]
fn every_number_has_bounds() {
    for (pointer, range) in [
        ("/upstreams/0/timeoutMs", TIMEOUT),
        ("/tools/0/timeoutMs", TIMEOUT),
        ("/tools/0/rateLimit/requests", RATE_REQUESTS),
        ("/tools/0/rateLimit/windowMs", RATE_WINDOW_MS),
        ("/limits/perClient/requests", RATE_REQUESTS),
        ("/limits/perClient/windowMs", RATE_WINDOW_MS),
        ("/limits/requestBodyBytes", REQUEST_BODY_BYTES),
        ("/tools/1/cost", crate::config::bounds::COST),
        ("/circuitBreaker/failureThreshold", FAILURE_THRESHOLD),
        ("/circuitBreaker/resetIntervalMs", RESET_INTERVAL_MS),
        ("/circuitBreaker/halfOpenMaxRequests", HALF_OPEN_REQUESTS),
        ("/limits/requestTimeoutMs", TIMEOUT),
        ("/limits/maxRequestsAtOnce", AT_ONCE),
        ("/upstreams/0/bulkhead/maxCalls", AT_ONCE),
        ("/upstreams/0/retry/maxAttempts", ATTEMPTS),
        ("/upstreams/0/retry/initialMs", RETRY_PAUSE_MS),
        ("/upstreams/0/retry/maxMs", RETRY_PAUSE_MS),
        ("/upstreams/0/retry/attemptTimeoutMs", TIMEOUT),
        ("/upstreams/0/retry/hedgeAfterMs", HEDGE_AFTER_MS),
        ("/circuitBreaker/failureRate/percent", FAILURE_PERCENT),
        ("/circuitBreaker/failureRate/windowMs", FAILURE_WINDOW_MS),
        ("/circuitBreaker/failureRate/minimumCalls", FAILURE_CALLS),
        ("/tasks/ttlMs", TASK_TTL_MS),
        ("/tasks/pollIntervalMs", TASK_POLL_INTERVAL_MS),
        ("/tasks/afterMs", TASK_AFTER_MS),
        ("/tasks/timeoutMs", TASK_TIMEOUT_MS),
        ("/tasks/maxOpenPerPrincipal", TASKS_OPEN_PER_PRINCIPAL),
        ("/tasks/maxOpenPerTenant", TASKS_OPEN_PER_TENANT),
        ("/tools/0/taskAfterMs", TASK_AFTER_MS),
    ] {
        let mut document = document();
        document["upstreams"][0]["bulkhead"] = json!({ "maxCalls": 1 });
        document["upstreams"][0]["retry"] = json!({});
        document["circuitBreaker"] = json!({ "failureRate": { "percent": 50 } });
        document["tasks"] = json!({});
        let (least, most) = (*range.start(), *range.end());
        check(
            &document,
            &[
                (pointer, json!(least - 1), "out of range"),
                (pointer, json!(most + 1), "out of range"),
            ],
        );
        for value in [least, most] {
            assert_eq!(
                changed(document.clone(), pointer, json!(value)),
                [],
                "{pointer} = {value}"
            );
        }
    }
}

const TIMEOUT: RangeInclusive<u64> = crate::config::bounds::TIMEOUT_MS;

#[test]
fn every_list_has_a_bound() {
    let mut many = document();
    let upstream =
        |i: usize| json!({ "name": format!("u{i}"), "url": "https://u.example.com/mcp" });
    many["upstreams"] = (0..65).map(upstream).collect();
    many["tools"] = (0..2049)
        .map(|i| json!({ "name": format!("u1__t{i}") }))
        .collect();
    many["allowedOrigins"] = (0..65)
        .map(|i| json!(format!("https://a{i}.example.com")))
        .collect();
    let found = serde_json::from_value::<Config>(many).unwrap().problems();
    let pointers: Vec<&str> = found
        .iter()
        .map(|problem| problem.pointer.as_str())
        .collect();
    assert_eq!(pointers, ["/allowedOrigins", "/upstreams", "/tools"]);
}

#[test]
fn all_problems_are_told_at_once() {
    let mut bad = document();
    bad["apiVersion"] = "v0".into();
    bad["publicUrl"] = "http://mcp.example.com/x".into();
    bad["upstreams"][0]["timeoutMs"] = 1.into();
    bad["tools"][1]["name"] = "x".into();
    let found = serde_json::from_value::<Config>(bad).unwrap().problems();
    let pointers: Vec<&str> = found
        .iter()
        .map(|problem| problem.pointer.as_str())
        .collect();
    assert_eq!(
        pointers,
        [
            "/apiVersion",
            "/publicUrl",
            "/publicUrl",
            "/upstreams/0/timeoutMs",
            "/tools/1/name"
        ]
    );
}

#[test]
fn a_limit_says_what_it_counts_and_for_whom() {
    let mut document = document();
    document["limits"]["rules"] = json!([
        { "name": "a", "per": ["tenant", "tool"], "tools": ["search__*"], "rate": { "requests": 5 } },
        { "name": "month", "rate": { "requests": 5, "windowMs": 2_678_400_000_u64 }, "counter": "atomic" },
    ]);
    check(
        &document,
        &[
            ("/limits/rules/1/name", json!("a"), "taken by another limit"),
            (
                "/limits/rules/0/name",
                json!("per-client"),
                "taken by another limit",
            ),
            (
                "/limits/rules/0/tools/0",
                json!("search"),
                "which upstream's tool",
            ),
            (
                "/limits/rules/0/tools/0",
                json!("nowhere__*"),
                "not configured",
            ),
            (
                "/limits/rules/1/counter → /limits/rules/1/rate/windowMs",
                json!("kv"),
                "out of range",
            ),
            (
                "/limits/rules/1/counter → /limits/rules/1/rate/windowMs",
                json!(null),
                "out of range",
            ),
            ("/limits/rules/0/rate/requests", json!(0), "out of range"),
            (
                "/limits/rules/0/rate/windowMs",
                json!(86_400_001),
                "out of range",
            ),
            (
                "/limits/rules/1/rate/windowMs",
                json!(2_678_400_001_u64),
                "out of range",
            ),
        ],
    );
}

#[test]
fn keys_dry_runs_and_probes_say_what_they_need() {
    let mut document = document();
    document["idempotency"] = json!({ "enabled": true });
    document["tools"][0]["dryRun"] = json!({ "argument": "dry_run", "forRoles": ["intern"] });
    document["tools"][1]["dryRun"] = json!({ "meta": "acme.example/dryRun" });
    document["policy"] = json!({ "roles": ["reader", "intern"] });
    document["upstreams"][0]["probe"] = json!({ "tool": "ping", "arguments": { "a": [1] } });
    check(
        &document,
        &[
            ("/idempotency/windowMs", json!(59_999), "out of range"),
            (
                "/tools/0/dryRun/meta → /tools/0/dryRun",
                json!("both"),
                "one way",
            ),
            (
                "/tools/1/dryRun/meta → /tools/1/dryRun",
                Value::Null,
                "one way",
            ),
            ("/tools/0/dryRun/argument", json!(" "), "empty"),
            (
                "/tools/1/dryRun/meta",
                json!("io.modelcontextprotocol/x"),
                "protocol's own",
            ),
            (
                "/tools/0/dryRun/forRoles → /tools/0/dryRun/forRoles/1",
                json!(["intern", "intern"]),
                "listed twice",
            ),
            // Misspelt, or with no list to be on, it would hold nobody back.
            (
                "/tools/0/dryRun/forRoles → /tools/0/dryRun/forRoles/0",
                json!(["interns"]),
                "no known role",
            ),
            (
                "/policy → /tools/0/dryRun/forRoles/0",
                Value::Null,
                "no known role",
            ),
            (
                "/policy → /tools/0/dryRun/forRoles/0",
                json!({ "tools": ["search__other"] }),
                "no known role",
            ),
            ("/upstreams/0/probe/tool", json!(""), "no tool's name"),
            ("/upstreams/0/probe/slowMs", json!(5_001), "longer than"),
            ("/upstreams/0/probe/slowMs", json!(9), "out of range"),
            (
                "/upstreams/0/probe/timeoutMs",
                json!(20_001),
                "out of range",
            ),
        ],
    );
}

#[test]
fn what_is_let_in_at_the_edge_is_checked() {
    let many = vec!["10.0.0.0/8"; 1025];
    check(
        &document(),
        &[
            (
                "/edge → /edge/addresses/allow/0",
                json!({ "addresses": { "allow": ["10.0.0.0/33"] } }),
                "neither an address nor a network",
            ),
            (
                "/edge → /edge/addresses/deny/1",
                json!({ "addresses": { "deny": ["::1", "office.example.com"] } }),
                "neither an address nor a network",
            ),
            (
                "/edge → /edge/addresses/allow",
                json!({ "addresses": { "allow": many } }),
                "too many",
            ),
            (
                "/edge → /edge/countries/allow/0",
                json!({ "countries": { "allow": ["de"] } }),
                "not a country",
            ),
            (
                "/edge → /edge/countries/deny/0",
                json!({ "countries": { "deny": ["XX"] } }),
                "not a country",
            ),
            (
                "/edge → /edge/maxHeaders",
                json!({ "maxHeaders": 8 }),
                "out of range",
            ),
            (
                "/edge → /edge/maxHeaderBytes",
                json!({ "maxHeaderBytes": 1024 }),
                "out of range",
            ),
        ],
    );
}

#[test]
fn a_quota_says_what_it_counts_and_money_needs_a_price() {
    let mut document = document();
    document["tools"][0]["price"] = json!({ "perCall": 2000, "perThousandTokens": 100 });
    document["limits"]["quotas"] = json!([
        { "name": "calls", "unit": "calls", "limit": 100, "period": "day", "per": ["tenant"] },
        { "name": "spend", "unit": "money", "limit": 5_000_000, "period": "month", "tools": ["search__*"],
          "enforce": "soft", "warnAtPercent": 50 },
    ]);
    check(
        &document,
        &[
            (
                "/limits/quotas/1/name",
                json!("calls"),
                "taken by another quota",
            ),
            ("/limits/quotas/0/limit", json!(0), "out of range"),
            ("/limits/quotas/0/warnAtPercent", json!(0), "out of range"),
            ("/limits/quotas/0/warnAtPercent", json!(101), "out of range"),
            (
                "/limits/quotas/0/tools → /limits/quotas/0/tools/0",
                json!(["nowhere__*"]),
                "not configured",
            ),
            (
                "/limits/quotas/1/tools → /limits/quotas/1/unit",
                json!(["git-2__*"]),
                "has a price",
            ),
            (
                "/tools/0/price/perCall",
                json!(1_000_000_000_001_u64),
                "out of range",
            ),
            (
                "/tools/0/price → /limits/quotas/1/unit",
                json!({ "perCall": 0 }),
                "has a price",
            ),
        ],
    );
}

#[test]
fn tenants_are_found_at_places_of_their_own() {
    let document = {
        let mut document = document();
        document["tenants"] = json!([
            { "name": "acme", "host": "acme.mcp.example.com", "path": "acme" },
            { "name": "initech" },
        ]);
        document["upstreams"][0]["tenants"] = json!(["acme"]);
        document
    };
    check(
        &document,
        &[
            (
                "/tenants/1 → /tenants/1/name",
                json!({ "name": "" }),
                "is empty",
            ),
            (
                "/tenants/1/host",
                json!("acme.mcp.example.com"),
                "another tenant's",
            ),
            ("/tenants/1/path", json!("acme"), "another tenant's"),
            ("/tenants/1/path", json!("Initech"), "not a path"),
            ("/tenants/1/path", json!("a--b"), "not a path"),
            ("/tenants/1/path", json!("a/b"), "not a path"),
            (
                "/tenants/1/host",
                json!("https://b.example.com"),
                "not a host",
            ),
            ("/tenants/1/host", json!("B.example.com"), "not a host"),
            ("/tenants/1/host", json!("b.example.com/mcp"), "not a host"),
            ("/tenants/1/host", json!("b.example.com:443"), "not a host"),
            ("/tenants/1/host", json!("u@b.example.com"), "not a host"),
            (
                "/tenants/1/host",
                json!("mcp.example.com"),
                "the gateway's own host",
            ),
            (
                "/tenants/1/host",
                json!("printer.local"),
                "inside a network",
            ),
            ("/upstreams/0/tenants/0", json!("globex"), "not listed"),
        ],
    );
}

#[test]
fn what_calls_are_signed_with_is_a_secret_and_its_tokens_are_short_lived() {
    let with = |over: Value| {
        let mut token = json!({ "secret": "${secret:ORCHESTRATOR}", "maxAgeSeconds": 30 });
        token
            .as_object_mut()
            .unwrap()
            .extend(over.as_object().unwrap().clone());
        token
    };
    check(
        &document(),
        &[
            (
                "/tools/0/requestToken → /tools/0/requestToken/secret",
                with(json!({ "secret": "plain" })),
                "not a reference to a secret",
            ),
            (
                "/tools/0/requestToken → /tools/0/requestToken/previousSecret",
                with(json!({ "previousSecret": "${secret:lower}" })),
                "not a reference to a secret",
            ),
            (
                "/tools/0/requestToken → /tools/0/requestToken/previousSecret",
                with(json!({ "previousSecret": "${secret:ORCHESTRATOR}" })),
                "the same secret",
            ),
            (
                "/tools/0/requestToken → /tools/0/requestToken/maxAgeSeconds",
                with(json!({ "maxAgeSeconds": 7200 })),
                "out of range",
            ),
        ],
    );
}
