//! Tenants that are found by their host or their path, besides the claim of their tokens.

use serde_json::{Value, json};

use crate::world::{Ask, Script, Setup, Told, World, issuer, legacy, modern, tool};

const BASE: &str = "https://gw.example.com/mcp";
const HOST: &str = "https://acme.gw.example.com/mcp";
const PATH: &str = "https://gw.example.com/t/acme/mcp";
const OTHER: &str = "https://gw.example.com/t/globex/mcp";
const UNKNOWN: &str = "https://gw.example.com/t/nobody/mcp";

fn world() -> World {
    world_with(json!({ "tenantClaim": "tenant" }))
}

/// Its issuer's tokens may say a tenant, or may not.
fn world_with(claim: Value) -> World {
    let mut issuer = json!({
        "issuer": issuer::ISSUER, "jwksUri": format!("{}/keys", issuer::ISSUER), "audiences": ["everything"],
    });
    issuer
        .as_object_mut()
        .unwrap()
        .extend(claim.as_object().unwrap().clone());
    let only = |tenant: &str| json!({ "tenants": [tenant] });
    Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .upstream_with("ledger", &Script::modern(&["book"]), &only("acme"))
        .upstream_with("vault", &Script::modern(&["open"]), &only("globex"))
        .rule(json!({ "name": "vault__open", "requiredScopes": ["vault:open"] }))
        .rule(json!({ "name": "search__query", "requiredScopes": [] }))
        .config(&json!({
            "authentication": { "type": "jwt", "gatewayKeys": true, "issuers": [issuer] },
            "tenants": [
                { "name": "acme", "host": "acme.gw.example.com", "path": "acme" },
                { "name": "globex", "path": "globex" },
                { "name": "initech" },
            ],
        }))
        .start()
}

/// The same request at another endpoint, by its URL.
fn at(ask: Ask, url: &str) -> Ask {
    let rest = url.strip_prefix("https://").unwrap();
    let (host, path) = rest.split_at(rest.find('/').unwrap());
    ask.at(host).to(path)
}

fn call(world: &World, url: &str, claims: &Value, ask: Ask) -> Told {
    world.call(at(ask, url).token(&world.token(claims)))
}

fn names(world: &World, url: &str, claims: &Value) -> Vec<String> {
    call(world, url, claims, modern("tools/list", json!({}))).names()
}

#[test]
fn a_token_is_good_where_it_is_meant_for_and_of_the_tenant() {
    let (claimed, unclaimed) = (world(), world_with(json!({})));
    // Audience, tenant, where it is shown; the answer with and without a claim for tenants.
    let rows = [
        (json!(BASE), Some("acme"), BASE, (200, 200)),
        (json!(BASE), None, BASE, (200, 200)),
        (json!(BASE), Some("acme"), HOST, (401, 401)),
        (json!(BASE), Some("acme"), PATH, (401, 401)),
        (json!(HOST), Some("acme"), HOST, (200, 200)),
        (json!(HOST), None, HOST, (401, 200)),
        (json!(HOST), Some(""), HOST, (401, 200)),
        (json!(HOST), Some("globex"), HOST, (403, 200)),
        (json!(HOST), Some("ACME"), HOST, (403, 200)),
        (json!(HOST), Some("acme"), PATH, (401, 401)),
        (json!(HOST), Some("acme"), BASE, (401, 401)),
        (json!(PATH), Some("acme"), PATH, (200, 200)),
        (json!(PATH), None, PATH, (401, 200)),
        (json!(PATH), Some("acme"), OTHER, (401, 401)),
        (json!(PATH), Some("globex"), PATH, (403, 200)),
        (json!(OTHER), Some("globex"), OTHER, (200, 200)),
        (json!(OTHER), Some("acme"), OTHER, (403, 200)),
        (json!([PATH, OTHER]), Some("acme"), PATH, (200, 200)),
        (json!([PATH, OTHER]), Some("acme"), OTHER, (403, 200)),
        // Meant for all of the gateway: good at a tenant's if it says that it is the tenant's.
        (json!("everything"), Some("acme"), BASE, (200, 200)),
        (json!("everything"), Some("acme"), PATH, (200, 401)),
        (json!("everything"), Some("acme"), HOST, (200, 401)),
        (json!("everything"), Some("acme"), OTHER, (403, 401)),
        (json!("everything"), None, PATH, (401, 401)),
        (json!("everything"), Some(""), PATH, (401, 401)),
    ];
    for (audience, tenant, shown, (with, without)) in rows {
        let claims = json!({ "sub": "sam", "aud": audience, "tenant": tenant });
        for (world, status) in [(&claimed, with), (&unclaimed, without)] {
            let told = call(world, shown, &claims, tool("search__query"));
            assert_eq!(told.status, status, "{claims} at {shown}: {told:?}");
            if status == 403 {
                assert_eq!(told.error()["data"]["reason"], "other_tenant");
            }
        }
    }
}

#[test]
fn an_issuer_with_tenants_is_unknown_to_all_others() {
    const GLOBEX: &str = "https://globex.example.com";
    const SILENT: &str = "https://silent.example.com";
    let issuer = |name: &str, members: Value| {
        let mut issuer = json!({ "issuer": name, "jwksUri": format!("{}/keys", issuer::ISSUER), "audiences": ["everything"] });
        let more = members.as_object().unwrap().clone();
        issuer.as_object_mut().unwrap().extend(more);
        issuer
    };
    let world = Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .config(&json!({
            "authentication": { "type": "jwt", "issuers": [
                issuer(issuer::ISSUER, json!({ "tenantClaim": "tenant" })),
                issuer(GLOBEX, json!({ "tenantClaim": "tenant", "tenants": ["globex"], "dpop": "accept" })),
                issuer(SILENT, json!({ "tenants": ["globex"] })),
            ] },
            "tenants": [{ "name": "acme", "path": "acme" }, { "name": "globex", "path": "globex" }],
        }))
        .start();
    for (iss, aud, tenant, url, status) in [
        (GLOBEX, OTHER, Some("globex"), OTHER, 200),
        (GLOBEX, BASE, Some("globex"), BASE, 200),
        (GLOBEX, "everything", Some("globex"), OTHER, 200),
        (GLOBEX, PATH, Some("acme"), PATH, 401),
        (GLOBEX, PATH, Some("globex"), PATH, 401),
        (GLOBEX, PATH, None, PATH, 401),
        (GLOBEX, "everything", Some("acme"), PATH, 401),
        (GLOBEX, OTHER, Some("acme"), OTHER, 401),
        (GLOBEX, BASE, Some("acme"), BASE, 401),
        (GLOBEX, BASE, None, BASE, 401),
        (SILENT, OTHER, None, OTHER, 200),
        (SILENT, PATH, None, PATH, 401),
        (SILENT, BASE, None, BASE, 401),
        (issuer::ISSUER, PATH, Some("acme"), PATH, 200),
        (issuer::ISSUER, OTHER, Some("globex"), OTHER, 200),
    ] {
        let tell = |iss: &str| {
            let claims = json!({ "iss": iss, "sub": "sam", "aud": aud, "tenant": tenant });
            let told = call(&world, url, &claims, tool("search__query"));
            (told.status, told.headers, told.text)
        };
        let told = tell(iss);
        assert_eq!(told.0, status, "{iss} for {tenant:?} at {url}: {told:?}");
        if status == 401 {
            assert_eq!(told, tell("https://nobody.example.com"), "{iss} at {url}");
        }
    }
    let well_known = "https://gw.example.com/.well-known/oauth-protected-resource";
    for (endpoint, servers, dpop) in [
        ("/mcp", json!([issuer::ISSUER, GLOBEX]), true),
        ("/t/acme/mcp", json!([issuer::ISSUER]), false),
        (
            "/t/globex/mcp",
            json!([issuer::ISSUER, GLOBEX, SILENT]),
            true,
        ),
    ] {
        let ask = at(Ask::http("GET", "/"), &format!("{well_known}{endpoint}"));
        let document = world.ask(ask.anonymous()).json().clone();
        assert_eq!(document["authorization_servers"], servers, "{endpoint}");
        let named = document.get("dpop_signing_alg_values_supported");
        assert_eq!(named.is_some(), dpop, "{endpoint}");
    }
}

#[test]
fn each_endpoint_has_metadata_of_its_own_and_is_challenged_for_it() {
    let world = world();
    for (url, document) in [
        (
            BASE,
            "https://gw.example.com/.well-known/oauth-protected-resource/mcp",
        ),
        (
            HOST,
            "https://acme.gw.example.com/.well-known/oauth-protected-resource/mcp",
        ),
        (
            PATH,
            "https://gw.example.com/.well-known/oauth-protected-resource/t/acme/mcp",
        ),
        (
            OTHER,
            "https://gw.example.com/.well-known/oauth-protected-resource/t/globex/mcp",
        ),
        (
            "https://gw.example.com/t/acme/servers/ledger/mcp",
            "https://gw.example.com/.well-known/oauth-protected-resource/t/acme/servers/ledger/mcp",
        ),
        (
            "https://acme.gw.example.com/servers/search/mcp",
            "https://acme.gw.example.com/.well-known/oauth-protected-resource/servers/search/mcp",
        ),
    ] {
        let told = world.call(at(tool("search__query"), url).anonymous());
        assert_eq!(told.status, 401, "{url}");
        // Scopes are of tools that are seen there.
        let scope = if url == OTHER {
            "scope=\"vault:open\", "
        } else {
            ""
        };
        assert_eq!(
            told.header("www-authenticate"),
            format!("Bearer {scope}resource_metadata=\"{document}\"")
        );
        let told = world.ask(at(Ask::http("GET", "/"), document).anonymous());
        assert_eq!(
            (told.status.as_u16(), &told.json()["resource"]),
            (200, &json!(url))
        );
        let scopes = &told.json()["scopes_supported"];
        assert_eq!(
            scopes,
            &if url == OTHER {
                json!(["vault:open"])
            } else {
                Value::Null
            },
            "{url}"
        );
    }
}

#[test]
fn an_unknown_tenant_is_answered_as_an_unknown_path_is() {
    let world = world();
    let unknown = [
        ("https://gw.example.com/nothing/here", None),
        (UNKNOWN, Some("/t/nobody")),
        ("https://gw.example.com/t/ACME/mcp", Some("/t/ACME")),
        ("https://gw.example.com/t/initech/mcp", Some("/t/initech")),
        ("https://gw.example.com/t/acme", None),
        ("https://gw.example.com/t/acme/", None),
        ("https://gw.example.com/t//mcp", None),
        ("https://gw.example.com/t/acme/t/acme/mcp", None),
        ("https://gw.example.com/t/acme/health/deep", None),
        ("https://gw.example.com/t/acme/admin/tasks", None),
        (
            "https://gw.example.com/t/acme/servers/vault/mcp",
            Some("/t/acme/servers/vault"),
        ),
        (
            "https://gw.example.com/servers/vault/mcp",
            Some("/servers/vault"),
        ),
        (
            "https://acme.gw.example.com/servers/vault/mcp",
            Some("/servers/vault"),
        ),
        (
            "https://acme.gw.example.com/t/globex/mcp",
            Some("/t/globex"),
        ),
        ("https://acme.gw.example.com/admin/tasks", None),
        ("https://nobody.gw.example.com/mcp", Some("")),
        ("https://nobody.gw.example.com/health/deep", None),
    ];
    let tell = |ask: Ask| {
        let told = world.ask(ask);
        (told.status, told.headers, told.text)
    };
    for (url, beside) in unknown {
        for method in ["POST", "GET", "DELETE", "OPTIONS", "PUT"] {
            let ask = |url: &str| at(tool("search__query").using(method), url);
            let like = "https://gw.example.com/nothing/like/it";
            assert_eq!(tell(ask(url)), tell(ask(like)), "{method} {url}");
        }
        let Some(beside) = beside else { continue };
        let host = &url[..url.strip_prefix("https://").unwrap().find('/').unwrap() + 8];
        for other in [
            format!("{host}{beside}/sse"),
            format!("{host}{beside}/messages"),
            format!("{host}/.well-known/oauth-protected-resource{beside}/mcp"),
        ] {
            let found = tell(at(Ask::http("GET", "/"), &other).anonymous());
            let like = tell(Ask::http("GET", "/nothing/like/it").anonymous());
            assert_eq!(found, like, "{other}");
        }
    }
    assert!(world.exchanges("search").is_empty());
}

#[test]
fn an_upstream_of_one_tenant_does_not_exist_for_another() {
    let (world, unclaimed) = (world(), world_with(json!({})));
    let of = |aud: &str, tenant: Option<&str>| json!({ "sub": "sam", "aud": aud, "tenant": tenant, "scope": "vault:open" });
    for (claims, url, seen) in [
        (of(BASE, Some("acme")), BASE, Some("ledger__book")),
        (of(BASE, Some("globex")), BASE, Some("vault__open")),
        (of(BASE, Some("initech")), BASE, None),
        (of(BASE, None), BASE, None),
        (of(HOST, Some("acme")), HOST, Some("ledger__book")),
        (of(HOST, None), HOST, Some("ledger__book")),
        (of(PATH, None), PATH, Some("ledger__book")),
        (of(OTHER, None), OTHER, Some("vault__open")),
    ] {
        let world = match claims["tenant"].is_null() && url != BASE {
            true => &unclaimed,
            false => &world,
        };
        let listed: Vec<String> = Some("search__query")
            .into_iter()
            .chain(seen)
            .map(str::to_owned)
            .collect();
        assert_eq!(names(world, url, &claims), listed, "{claims} at {url}");
        let invented = call(world, url, &claims, tool("nobody__open"));
        for name in ["ledger__book", "vault__open"] {
            let told = call(world, url, &claims, tool(name));
            if seen == Some(name) {
                assert_eq!(told.status, 200, "{name} by {claims}: {told:?}");
                continue;
            }
            let renamed = told.text.replace(name, "nobody__open");
            assert_eq!(
                (told.status, renamed),
                (invented.status, invented.text.clone()),
                "{name} by {claims}"
            );
        }
    }
    let health = |claims: &Value| {
        let told = world.ask(Ask::http("GET", "/health/deep").token(&world.token(claims)));
        let named = told.json()["upstreams"].clone();
        let named = named
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap().to_owned());
        named.collect::<Vec<_>>()
    };
    assert_eq!(health(&of(BASE, Some("acme"))), ["search", "ledger"]);
    assert_eq!(health(&of(BASE, None)), ["search"]);
}

#[test]
fn what_one_endpoint_gives_is_unknown_at_another() {
    let world = world();
    // One who may be at all of them, as one principal.
    let claims = json!({ "sub": "sam", "aud": [BASE, HOST, PATH], "tenant": "acme" });
    let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "x", "version": "1" } });
    let opened = call(
        &world,
        HOST,
        &claims,
        legacy("2025-11-25", "initialize", hello),
    );
    let session = opened.header("mcp-session-id");
    for (url, status) in [(HOST, 200), (PATH, 404), (BASE, 404)] {
        let ask = legacy("2025-11-25", "tools/list", json!({})).header("mcp-session-id", session);
        assert_eq!(call(&world, url, &claims, ask).status, status, "{url}");
    }
}

#[test]
fn the_older_transport_is_within_the_tenants_part() {
    let world = world();
    let token = world.token(&json!({ "sub": "sam", "aud": [HOST, PATH], "tenant": "acme" }));
    for (url, messages) in [
        (
            "https://gw.example.com/t/acme/sse",
            "/t/acme/messages?session=",
        ),
        ("https://acme.gw.example.com/sse", "/messages?session="),
    ] {
        let mut stream = world.open(at(Ask::http("GET", "/"), url).token(&token));
        assert_eq!(stream.head().map(|(status, _)| status.as_u16()), Some(200));
        let opened = stream.text();
        assert!(
            opened.starts_with(&format!("event: endpoint\ndata: {messages}")),
            "{opened}"
        );
    }
}

#[test]
fn the_audit_line_says_whose_endpoint_it_was() {
    let world = world();
    for (url, endpoint) in [(HOST, "acme.gw.example.com/mcp"), (PATH, "/t/acme/mcp")] {
        call(
            &world,
            url,
            &json!({ "sub": "sam", "aud": url, "tenant": "acme" }),
            tool("search__query"),
        );
        let line = world.audits().pop().unwrap();
        assert_eq!(
            (&line["tenant"], &line["endpoint"]),
            (&json!("acme"), &json!(endpoint))
        );
    }
}
