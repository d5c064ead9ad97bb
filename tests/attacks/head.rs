//! What is refused by the head of a request alone, whoever sent it: foreign pages, heads and
//! bodies that are too large; what a client says of its own address is not believed. And what
//! is shown at a tenant's endpoint that is not for it.

use serde_json::json;

use super::{Attack, Sent, Stage};

/// What the gateway that is attacked is configured to take of a head.
pub fn edge() -> serde_json::Value {
    json!({ "addresses": { "deny": ["203.0.113.0/24"] }, "maxHeaders": 64, "maxHeaderBytes": 24_576 })
}

/// The tenants of the gateway that is attacked.
pub fn tenants() -> serde_json::Value {
    json!([{ "name": "acme", "path": "acme" }, { "name": "globex", "path": "globex" }])
}

/// Tokens for one endpoint at another.
fn elsewhere(stage: &Stage) -> Vec<Attack> {
    const AUDIENCE: &str = "The token is not meant for this resource.";
    let meant = |path: &str| stage.good(json!({ "aud": format!("{}{path}", stage.origin) }));
    let rows = [
        ("the gateway's token at a tenant's", "/mcp", "/t/acme/mcp"),
        (
            "a tenant's token at another's",
            "/t/acme/mcp",
            "/t/globex/mcp",
        ),
        ("a tenant's token at the gateway's", "/t/acme/mcp", "/mcp"),
        (
            "a tenant's token at its one upstream",
            "/t/acme/mcp",
            "/t/acme{alone}",
        ),
    ];
    let row = |(name, of, at): (&str, &str, &str)| {
        let at = at.replace("{alone}", stage.alone);
        let sent = Sent::call(stage.tool).bearer(&meant(of)).to(&at);
        stage.token_at(name, sent, AUDIENCE, &at)
    };
    let mut rows: Vec<Attack> = rows.into_iter().map(row).collect();
    let unknown = Sent::call(stage.tool)
        .bearer(&meant("/t/nobody/mcp"))
        .to("/t/nobody/mcp");
    rows.push(stage.row("a token for a tenant there is not", unknown, 404, None));
    rows
}

pub fn rows(stage: &Stage) -> Vec<Attack> {
    let call = || Sent::call(stage.tool).bearer(&stage.good(json!({})));
    let origins = [
        ("a page of no origin", "null".to_owned()),
        ("a page of every origin", "*".to_owned()),
        ("a foreign page", "https://evil.example.net".to_owned()),
        (
            "a page of a longer name",
            format!("{}.evil.example.net", stage.origin),
        ),
        ("a page with a path", format!("{}/", stage.origin)),
        (
            "a page of two origins",
            format!("{} https://evil.example.net", stage.origin),
        ),
    ];
    let mut rows: Vec<Attack> = origins
        .into_iter()
        .map(|(name, origin)| stage.row(name, call().with("origin", origin), 403, None))
        .collect();
    let twice = call()
        .with("origin", stage.origin.clone())
        .with("origin", "https://evil.example.net");
    rows.push(stage.row("a page of an origin, then a foreign one", twice, 403, None));
    let many = (0..80).fold(call(), |sent, n| {
        // Headers have names for ever; a test has few of them.
        let name: &'static str = Box::leak(format!("x-filler-{n}").into_boxed_str());
        sent.with(name, "1")
    });
    rows.push(stage.row("too many header fields", many, 431, None));
    let long = call().with("x-filler", "a".repeat(24_576));
    rows.push(stage.row("header fields too long", long.clone(), 431, None));
    let mut anonymous = long;
    anonymous
        .headers
        .retain(|(name, _)| *name != "authorization");
    rows.push(stage.row("header fields too long, of nobody", anonymous, 431, None));
    let mut large = call();
    large.body.push_str(&" ".repeat(1024 * 1024));
    rows.push(stage.row("a body too large", large, 413, None));
    rows.extend(elsewhere(stage));
    rows
}

/// Let in: the address that is refused stands only in what the client wrote.
pub fn forged(stage: &Stage) -> Vec<(&'static str, Sent)> {
    let call = || Sent::call(stage.tool).bearer(&stage.good(json!({})));
    vec![
        (
            "an address in X-Forwarded-For",
            call().with("x-forwarded-for", "203.0.113.9"),
        ),
        (
            "a tenant's token at its endpoint",
            Sent::call(stage.tool)
                .bearer(&stage.good(json!({ "aud": format!("{}/t/acme/mcp", stage.origin) })))
                .to("/t/acme/mcp"),
        ),
        (
            "an address in Forwarded",
            call().with("forwarded", "for=203.0.113.9"),
        ),
        (
            "an address where Spin puts its own",
            call().with("spin-client-addr", "203.0.113.9:9"),
        ),
    ]
}
