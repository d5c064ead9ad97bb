//! Protected resource metadata (RFC 9728): where a client learns whose token to bring.

use serde_json::json;

use crate::world::{Ask, Script, Setup, World, tool};

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

#[test]
fn each_endpoint_has_its_document() {
    let world = world();
    for (path, resource) in [
        (WELL_KNOWN.to_owned(), "https://gw.example.com/mcp"),
        (format!("{WELL_KNOWN}/mcp"), "https://gw.example.com/mcp"),
        (
            format!("{WELL_KNOWN}/servers/search/mcp"),
            "https://gw.example.com/servers/search/mcp",
        ),
    ] {
        let told = world.ask(Ask::http("GET", &path).anonymous());
        assert_eq!(told.status, 200, "{path}");
        assert_eq!(told.json()["resource"], resource);
        assert_eq!(
            told.json()["authorization_servers"],
            json!(["https://login.example.com"])
        );
        assert_eq!(told.json()["bearer_methods_supported"], json!(["header"]));
        assert_eq!(told.json()["scopes_supported"], json!(["search:read"]));
        assert_eq!(told.header("access-control-allow-origin"), "*");
    }
}

#[test]
fn a_challenge_leads_to_the_document_of_its_endpoint() {
    let world = world();
    for path in ["/mcp", "/servers/search/mcp"] {
        let told = world.call(tool("query").anonymous().to(path));
        let challenge = told.header("www-authenticate").to_owned();
        let (_, url) = challenge.split_once("resource_metadata=\"").unwrap();
        let url = url
            .trim_end_matches('"')
            .strip_prefix("https://gw.example.com")
            .unwrap();
        let document = world.ask(Ask::http("GET", url).anonymous());
        assert_eq!(
            document.json()["resource"],
            format!("https://gw.example.com{path}")
        );
    }
}

#[test]
fn who_shows_nothing_is_told_the_scopes_the_document_lists() {
    let world = Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .upstream("other", &Script::modern(&["edit"]))
        .rule(json!({ "name": "search__query", "requiredScopes": ["search:read"] }))
        .rule(json!({ "name": "other__edit", "requiredScopes": ["other:edit"] }))
        .start();
    for (path, scopes) in [
        ("/mcp", "other:edit search:read"),
        ("/servers/search/mcp", "search:read"),
    ] {
        let told = world.call(tool("query").anonymous().to(path));
        let challenge = told.header("www-authenticate");
        let expected = format!("Bearer scope=\"{scopes}\", resource_metadata=");
        assert!(challenge.starts_with(&expected), "{challenge}");
        // A token that is not good is refused for what is wrong with it.
        let told = world.call(tool("query").token("x").to(path));
        assert!(!told.header("www-authenticate").contains("scope="));
    }
}

#[test]
fn there_is_no_document_of_what_does_not_exist() {
    let world = world();
    for path in [
        "/servers/other/mcp",
        "/servers/search",
        "/other",
        "/mcp/x",
        "/servers/../mcp",
    ] {
        assert_eq!(
            world
                .ask(Ask::http("GET", &format!("{WELL_KNOWN}{path}")).anonymous())
                .status,
            404,
            "{path}"
        );
    }
}

fn world() -> World {
    Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .rule(json!({ "name": "search__query", "requiredScopes": ["search:read"] }))
        .start()
}
