//! What a user grants in a browser: how they are asked, what the pages say and refuse, and
//! what becomes of a grant.

use std::rc::Rc;

use http::StatusCode;
use serde_json::{Value, json};
use tidegate_gateway::credentials::LINK_HOLDS;
use tidegate_simulator::Fault;
use url::Url;

use super::server::{Granter, ISSUER, credentials, world, world_of};
use super::{LIFETIME, SECOND};
use crate::world::{Ask, Script, Told, World, legacy, modern, tool};

const REFRESH: &str = "refresh_token";

#[test]
fn a_user_is_asked_connects_and_the_call_goes_on() {
    let (world, granter) = world("user");
    let told = world.call(asking());
    assert_eq!(told.status, 200);
    assert!(world.exchanges("files").is_empty(), "nothing was sent");
    let result = told.result();
    assert_eq!(result["resultType"], "input_required");
    let asked = &result["inputRequests"]["connect"];
    assert_eq!(asked["method"], "elicitation/create");
    assert_eq!(asked["params"]["mode"], "url");
    let link = asked["params"]["url"].as_str().unwrap();
    assert!(
        link.starts_with("https://gw.example.com/connect/files?link="),
        "{link}"
    );
    assert_eq!(world.audits()[0]["outcome"], "input_required");
    connect(&world, &granter, link, "ada@files");
    let told = world.call(retry(result, "accept"));
    assert_eq!(told.said(), world.tool("files__read").said());
    assert_eq!(granter.subject_at(&world, "files"), "ada@files");
    let sent = world.bodies("files", "tools/call");
    assert!(
        sent[0]["params"].get("inputResponses").is_none()
            && sent[0]["params"].get("requestState").is_none()
    );
    // It is ada's, and nobody else's; and every isolate finds it.
    assert_eq!(world.isolate().tool("files__read").status, 200);
    let told = world.call(tool("files__read").by("eve"));
    assert_eq!(
        (told.status, told.reason()),
        (StatusCode::FORBIDDEN, "not_connected")
    );
    granter.is_nowhere_stored(&world);
    for line in world.lines() {
        assert!(!line.contains("link="), "{line}");
    }
}

#[test]
fn what_another_server_gives_is_not_shown_to_the_one_that_was_visited() {
    let (world, granter) = world("user");
    let page = browser(&world, &link_in(&world.call(asking())), None);
    let mut back = granter.approves("ada@files", &authorize_in(&page));
    assert_eq!(back.path(), "/connect/files");
    // The server has sent the browser on to one that sends it back to its own place.
    for place in ["/connect/other", "/connect"] {
        back.set_path(place);
        let told = returned(&world, &back, &cookie_of(&page));
        assert_eq!(told.status, 502, "{place}: {}", told.text);
    }
    assert_eq!(granter.asked_for("authorization_code"), 0);
    back.set_path("/connect/files");
    assert_eq!(returned(&world, &back, &cookie_of(&page)).status, 200);
}

#[test]
fn the_page_says_who_grants_what_to_whom_and_is_as_closed_as_a_page_can_be() {
    let (world, _) = world("user");
    let subject = "<script>alert(1)</script>";
    let told = world.call(asking().token(&world.token(&json!({ "sub": subject }))));
    let page = browser(&world, &link_in(&told), None);
    assert_eq!(page.status, 200);
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
        (
            "content-security-policy",
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ] {
        assert_eq!(page.header(name), value);
    }
    for words in [
        "edge",
        "files",
        "cli",
        "&lt;script&gt;alert(1)",
        "grants.example.com",
    ] {
        assert!(page.text.contains(words), "{words}: {}", page.text);
    }
    assert!(!page.text.contains("<script"));
    let cookie = page.header("set-cookie");
    assert!(cookie.starts_with("__Host-tidegate-connect="), "{cookie}");
    for attribute in ["; Path=/;", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert_eq!(
        world.ask(Ask::http("POST", "/connect").anonymous()).status,
        405
    );
}

#[test]
fn a_link_is_of_one_upstream_holds_for_a_while_and_is_spent_by_use() {
    let (world, granter) = world("user");
    let link = link_in(&world.call(asking()));
    let refused = |link: &str| {
        let page = browser(&world, link, None);
        (page.status.as_u16(), page.header("set-cookie").to_owned())
    };
    let spent = (400, String::new());
    assert_eq!(refused("https://gw.example.com/connect/files"), spent);
    assert_eq!(refused(&link.replace("/files?", "/other?")), spent);
    assert_eq!(refused(&format!("{link}&link=again")), spent);
    let (head, tail) = link.split_at(link.len() - 20);
    assert_eq!(refused(&format!("{head}A{}", &tail[1..])), spent);
    // Two links, of which the second is used: the first is spent, too.
    world.later(SECOND);
    let second = link_in(&world.call(asking()));
    let first_page = browser(&world, &link, None);
    connect(&world, &granter, &second, "ada@files");
    assert_eq!(refused(&link), spent);
    assert_eq!(refused(&second), spent);
    let back = granter.approves("mallory", &authorize_in(&first_page));
    assert_eq!(returned(&world, &back, &cookie_of(&first_page)).status, 400);
    assert_eq!(granter.asked_for("authorization_code"), 1);
    // And one that nobody uses.
    let link = link_in(&world.call(asking().by("eve")));
    world.later(LINK_HOLDS);
    assert_eq!(refused(&link), spent);
}

#[test]
fn the_way_back_is_open_to_the_same_browser_from_the_same_server_once() {
    let (world, granter) = world("user");
    let link = link_in(&world.call(asking()));
    let page = browser(&world, &link, None);
    let cookie = cookie_of(&page);
    let back = granter.approves("ada@files", &authorize_in(&page));
    let with = |name: &str, value: Option<&str>| {
        let mut url = back.clone();
        let others: Vec<_> = back
            .query_pairs()
            .into_owned()
            .filter(|(key, _)| key != name)
            .collect();
        url.query_pairs_mut().clear().extend_pairs(others);
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
        url
    };
    let other = format!("__Host-tidegate-connect={}", "0".repeat(32));
    for (url, cookie, status) in [
        (back.clone(), "", 403),
        (back.clone(), other.as_str(), 403),
        (with("state", None), &cookie, 400),
        (with("state", Some("made-up")), &cookie, 400),
        (with("iss", None), &cookie, 502),
        (with("iss", Some("https://evil.example")), &cookie, 502),
        (with("iss", Some(&format!("{ISSUER}/"))), &cookie, 502),
        (with("error", Some("access_denied")), &cookie, 200),
        (with("code", None), &cookie, 502),
    ] {
        let told = returned(&world, &url, cookie);
        assert_eq!(told.status, status, "{url}: {}", told.text);
        assert!(told.text.contains("Not connected"));
        assert!(granter.asked.borrow().is_empty(), "{url}");
    }
    let mut twice = back.clone();
    twice.query_pairs_mut().append_pair("iss", ISSUER);
    assert_eq!(returned(&world, &twice, &cookie).status, 502);
    assert_eq!(returned(&world, &back, &cookie).status, 200);
    assert_eq!(returned(&world, &back, &cookie).status, 400, "once");
    assert_eq!(granter.asked_for("authorization_code"), 1);
    assert_eq!(world.tool("files__read").status, 200);
}

#[test]
fn a_grant_that_cannot_be_stored_at_once_is_stored_all_the_same() {
    for fault in [Fault::Fail, Fault::FailButPersist, Fault::Conflict] {
        let (world, granter) = world("user");
        let link = link_in(&world.call(asking()));
        world.sim.atomic.faults.arrange("grant/", 2, fault);
        connect(&world, &granter, &link, "ada@files");
        assert_eq!(world.tool("files__read").status, 200, "{fault:?}");
    }
}

#[test]
fn a_retry_waits_for_the_account_and_is_asked_again_without_end_of_patience() {
    let (world, granter) = world("user");
    let told = world.call(asking());
    let link = link_in(&told);
    let mut waiting = world.start_call(retry(told.result(), "accept"));
    assert!(waiting.step().is_none());
    connect(&world, &granter, &link, "ada@files");
    assert_eq!(waiting.finish().unwrap().status, 200);
    // Eve never connects: she is asked once more.
    let told = world.call(asking().by("eve"));
    let told = world.call(retry(told.result(), "accept").by("eve"));
    assert_eq!(told.result()["resultType"], "input_required");
    // Whose question it was is known.
    let told = world.call(retry(told.result(), "accept"));
    assert_eq!(told.code(), -32602);
}

#[test]
fn who_declines_is_told_so_and_not_asked_again() {
    let (world, _) = world("user");
    let told = world.call(asking());
    for action in ["decline", "cancel"] {
        let told = world.call(retry(told.result(), action));
        assert_eq!(
            (told.status, told.reason()),
            (StatusCode::FORBIDDEN, "not_connected")
        );
        assert!(told.error()["data"].get("url").is_none());
    }
}

#[test]
fn each_client_is_told_of_the_link_as_it_understands() {
    let (world, _) = world("user");
    let url = json!({ "elicitation": { "form": {}, "url": {} } });
    let form = json!({ "elicitation": {} });
    // A modern client that takes no URLs, and a list, of which nothing can be asked.
    let told = world.call(tool("files__read").meta("clientCapabilities", form.clone()));
    assert_eq!(
        (told.status, told.reason()),
        (StatusCode::FORBIDDEN, "not_connected")
    );
    assert!(
        told.error()["message"]
            .as_str()
            .unwrap()
            .contains("https://gw.example.com/connect/files?link=")
    );
    let told =
        world.call(modern("resources/list", json!({})).meta("clientCapabilities", url.clone()));
    assert_eq!(told.reason(), "not_connected");
    assert!(told.error()["data"]["url"].is_string());
    for (version, capabilities, code) in [
        ("2025-11-25", &url, -32042),
        ("2025-11-25", &form, -31000),
        ("2025-06-18", &url, -31000),
        ("2025-06-18", &form, -31000),
        ("2025-03-26", &json!({}), -31000),
    ] {
        let told = world.ask(legacy(
            version,
            "initialize",
            json!({
                "protocolVersion": version, "capabilities": capabilities,
                "clientInfo": { "name": "old", "version": "1" },
            }),
        ));
        let session = told.header("mcp-session-id").to_owned();
        let call = legacy(
            version,
            "tools/call",
            json!({ "name": "files__read", "arguments": {} }),
        );
        let told = world.call(call.header("mcp-session-id", &session));
        assert_eq!(told.code(), code, "{version} {capabilities}: {told:?}");
        let data = &told.error()["data"];
        let (link, id) = match code {
            -32042 => (
                &data["elicitations"][0]["url"],
                data["elicitations"][0]["elicitationId"].is_string(),
            ),
            _ => (&data["url"], true),
        };
        assert!(
            link.as_str().unwrap().contains("/connect/files?link=") && id,
            "{told:?}"
        );
    }
}

#[test]
fn one_upstream_without_an_account_leaves_the_others_standing() {
    let (files, other) = (Script::modern(&["read"]), Script::modern(&["query"]));
    let world = crate::world::Setup::new()
        .upstream_with("files", &files, &credentials("user"))
        .upstream("search", &other)
        .secret("GRANTS_SECRET", super::server::SECRET)
        .start();
    let granter = Granter::serve(&world, &[("files", &files)]);
    // In place of its tools there is one that connects; it comes and goes with them.
    let discovered = world.call(modern("server/discover", json!({})));
    assert!(discovered.result()["capabilities"]["tools"].is_object());
    let told = world.call(modern("tools/list", json!({})));
    assert_eq!(told.names(), ["files__connect-account", "search__query"]);
    assert_eq!(told.result()["ttlMs"], 0);
    let connecting = || {
        asking()
            .param("name", "files__connect-account".into())
            .header("mcp-name", "files__connect-account")
    };
    let told = world.call(connecting());
    let link = link_in(&told);
    connect(&world, &granter, &link, "ada@files");
    assert_eq!(world.list("tools/list"), ["files__read", "search__query"]);
    assert!(
        world
            .call(connecting())
            .said()
            .starts_with("The account is connected.")
    );
    let health = world.ask(Ask::http("GET", "/health/deep"));
    assert_eq!(
        health.json()["upstreams"].as_array().unwrap().len(),
        1,
        "{health:?}"
    );
}

#[test]
fn whoever_may_use_anything_there_may_connect_an_account_and_nobody_else() {
    let read = |when: &str| json!({ "name": "read", "effect": "allow", "tools": ["files__read"], "when": when });
    let anybody = json!({ "effect": "allow", "name": "anybody", "tools": ["*"] });
    let of_resources = json!({ "effect": "allow", "name": "some", "resources": ["files__*"], "when": "resource.uri == 'file:///a'" });
    let of_names = json!({ "effect": "allow", "name": "some", "tools": ["files__*"], "when": "tool.name.startsWith('re') && args.x == 1" });
    let closed = json!({ "name": "files__*", "requiredRoles": ["admin"] });
    let open = json!({ "name": "files__read", "requiredRoles": [] });
    let none = json!([]);
    for (rules, tools, may) in [
        (json!([read("principal.subject == 'ada'")]), &none, true),
        (json!([read("principal.subject == 'eve'")]), &none, false),
        (json!([of_resources]), &none, true),
        (json!([of_names]), &none, true),
        (
            json!([anybody, { "name": "not", "effect": "deny", "tools": ["files__read"] }]),
            &none,
            true,
        ),
        (
            json!([anybody, { "name": "not", "effect": "deny", "tools": ["files__*"] }]),
            &none,
            false,
        ),
        (json!([]), &json!([closed]), true),
        (json!([anybody]), &json!([closed]), false),
        (json!([anybody]), &json!([closed, open]), true),
    ] {
        let script = Script::modern(&["read"]);
        let world = crate::world::Setup::new()
            .upstream_with("files", &script, &credentials("user"))
            .config(
                &json!({ "policy": { "rules": rules, "tools": ["files__read"] }, "tools": tools }),
            )
            .secret("GRANTS_SECRET", super::server::SECRET)
            .start();
        let granter = Granter::serve(&world, &[("files", &script)]);
        let listed = world.list("tools/list");
        let connecting = world.call(
            asking()
                .param("name", "files__connect-account".into())
                .header("mcp-name", "files__connect-account"),
        );
        if may {
            assert_eq!(listed, ["files__connect-account"], "{rules} {tools}");
            connect(&world, &granter, &link_in(&connecting), "ada@files");
        } else {
            assert!(listed.is_empty(), "{rules} {tools}");
            assert_eq!(connecting.reason(), "denied", "{rules} {tools}");
        }
    }
}

#[test]
fn a_grant_is_renewed_before_it_ends_and_asked_for_anew_when_it_is_withdrawn() {
    let (world, granter) = world("user");
    connect(
        &world,
        &granter,
        &link_in(&world.call(asking())),
        "ada@files",
    );
    for renewed in 1..5 {
        world.later(LIFETIME - SECOND * 30);
        assert_eq!(world.tool("files__read").status, 200);
        assert_eq!(granter.asked_for(REFRESH), renewed);
    }
    assert_eq!(granter.reused.get(), 0);
    // The upstream refuses a token before its time.
    world.later(SECOND * 30);
    granter.withdraw_access();
    assert_eq!(world.tool("files__read").status, 200);
    assert_eq!(granter.asked_for(REFRESH), 5);
    // Its server is away for a while: what still lasts is used, and nothing is forgotten.
    let server = granter.server.borrow().clone().unwrap();
    world.later(LIFETIME - SECOND * 30);
    server.down.set(true);
    assert_eq!(world.tool("files__read").status, 200);
    world.later(SECOND * 60);
    assert_eq!(world.tool("files__read").reason(), "no_credentials");
    server.down.set(false);
    world.later(SECOND * 10);
    assert_eq!(world.tool("files__read").status, 200);
    granter.withdraw();
    world.later(LIFETIME);
    let told = world.call(asking());
    assert_eq!(told.result()["resultType"], "input_required");
    world.later(SECOND);
    connect(
        &world,
        &granter,
        &link_in(&world.call(asking())),
        "ada@files",
    );
    assert_eq!(world.tool("files__read").status, 200);
    granter.is_nowhere_stored(&world);
}

#[test]
fn a_client_that_leaves_does_not_take_a_rotated_token_with_it() {
    let (world, granter) = world("user");
    connect(
        &world,
        &granter,
        &link_in(&world.call(asking())),
        "ada@files",
    );
    world.later(LIFETIME);
    granter
        .server
        .borrow()
        .as_ref()
        .unwrap()
        .head_delay
        .set(SECOND);
    let mut left = world.start_call(tool("files__read"));
    assert!(left.step().is_none());
    assert_eq!(granter.asked_for(REFRESH), 1, "asked, and not answered yet");
    drop(left);
    world.settle();
    let other = world.isolate();
    assert_eq!(other.tool("files__read").status, 200);
    assert_eq!((granter.asked_for(REFRESH), granter.reused.get()), (1, 0));
}

#[test]
fn a_grant_is_of_one_client_at_one_server_for_one_resource() {
    let (world, granter) = world("user");
    connect(
        &world,
        &granter,
        &link_in(&world.call(asking())),
        "ada@files",
    );
    let mut members = credentials("user");
    members["credentials"]["clientId"] = "other".into();
    let snapshot = crate::world::Setup::new()
        .upstream_with("files", &Script::modern(&["read"]), &members)
        .snapshot();
    world.sim.kv.publish("config", snapshot);
    let told = world.isolate().call(tool("files__read"));
    assert_eq!(told.reason(), "not_connected");
}

#[test]
fn a_task_runs_with_what_its_owner_has_granted() {
    let script = Script::modern(&["read"]);
    let world = crate::world::Setup::new()
        .upstream_with("files", &script, &credentials("user"))
        .rule(json!({ "name": "files__read", "execution": "task" }))
        .secret("GRANTS_SECRET", super::server::SECRET)
        .start();
    let granter = Granter::serve(&world, &[("files", &script)]);
    let told = world.call(tool("files__read").with_tasks());
    assert_eq!(told.reason(), "not_connected", "before there is a task");
    let link = told.error()["data"]["url"].as_str().unwrap().to_owned();
    connect(&world, &granter, &link, "ada@files");
    let told = world.call(tool("files__read").with_tasks());
    let id = told.result()["taskId"].as_str().unwrap().to_owned();
    world.sim.clock.advance(LIFETIME);
    let other = world.isolate();
    other.deliver();
    other.settle();
    let get = modern("tasks/get", json!({ "taskId": id })).with_tasks();
    assert_eq!(world.call(get).result()["status"], "completed");
    assert_eq!(granter.asked_for(REFRESH), 1);
}

#[test]
fn without_user_grants_there_is_no_page() {
    let (world, _) = world_of(&Script::modern(&["read"]), &json!({}));
    for path in ["/connect", "/connect/files", "/connect/files?link=x"] {
        let told = world.ask(Ask::http("GET", path).anonymous());
        assert_eq!(told.status, 400, "{path}");
    }
    assert_eq!(
        world.ask(Ask::http("GET", "/connected").anonymous()).status,
        404
    );
}

/// A call by a client that opens URLs.
pub fn asking() -> Ask {
    let capabilities = json!({ "elicitation": { "form": {}, "url": {} } });
    tool("files__read").meta("clientCapabilities", capabilities)
}

/// The call again, after a question.
fn retry(result: &Value, action: &str) -> Ask {
    asking()
        .param("requestState", result["requestState"].clone())
        .param("inputResponses", json!({ "connect": { "action": action } }))
}

/// The link in a question.
#[track_caller]
pub fn link_in(told: &Told) -> String {
    let asked = &told.result()["inputRequests"]["connect"]["params"]["url"];
    asked.as_str().unwrap().to_owned()
}

/// What a browser sees at a URL of the gateway's.
pub fn browser(world: &World, url: &str, cookie: Option<&str>) -> Told {
    let path = url.strip_prefix("https://gw.example.com").unwrap();
    let mut ask = Ask::http("GET", path).anonymous();
    if let Some(cookie) = cookie {
        ask = ask.header("cookie", &format!("theme=dark; {cookie}"));
    }
    world.ask(ask)
}

pub fn returned(world: &World, back: &Url, cookie: &str) -> Told {
    browser(world, back.as_str(), Some(cookie))
}

pub fn cookie_of(page: &Told) -> String {
    page.header("set-cookie")
        .split(';')
        .next()
        .unwrap()
        .to_owned()
}

pub fn authorize_in(page: &Told) -> String {
    let (_, rest) = page.text.split_once("href=\"").unwrap();
    rest.split('"').next().unwrap().replace("&amp;", "&")
}

/// Follows a link to its end as this user of the upstream's.
#[track_caller]
pub fn connect(world: &World, granter: &Rc<Granter>, link: &str, subject: &str) {
    let page = browser(world, link, None);
    assert_eq!(page.status, 200, "{}", page.text);
    let back = granter.approves(subject, &authorize_in(&page));
    let told = returned(world, &back, &cookie_of(&page));
    assert!(
        told.status == 200 && told.text.contains("is connected"),
        "{}",
        told.text
    );
}
