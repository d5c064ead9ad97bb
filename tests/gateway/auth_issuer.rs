//! What an issuer says of itself and of its tokens: where its keys are, and what an opaque
//! token stands for. And certificates, which only the simulator can show.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, Response};
use serde_json::{Value, json};
use tidegate_gateway::body::Body;
use tidegate_gateway::platform::Clock;
use tidegate_simulator::Server;

use crate::world::issuer::{AUDIENCE, ISSUER};
use crate::world::{Ask, Script, Setup, World, tool};

const SECRET: &str = "the gateway's own secret there";
const OTHER: &str = "idp.example.com";
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn keys_are_found_by_the_issuers_own_metadata() {
    for path in [
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
    ] {
        let (world, idp) = world(json!({}));
        idp.says(
            path,
            &json!({ "issuer": ISSUER, "jwks_uri": format!("https://{OTHER}/keys") }),
        );
        idp.says("/keys", &idp.keys(&world));
        assert_eq!(world.tool("search__query").status, 200, "{path}");
        assert_eq!(world.isolate().tool("search__query").status, 200, "from KV");
        assert_eq!(idp.asked("/keys"), 1);
    }
}

#[test]
fn metadata_that_speaks_for_another_or_points_inside_is_not_believed() {
    let keys = format!("https://{OTHER}/keys");
    for document in [
        json!({ "issuer": format!("{ISSUER}/"), "jwks_uri": keys }),
        json!({ "issuer": "https://evil.example", "jwks_uri": keys }),
        json!({ "jwks_uri": keys }),
        json!({ "issuer": ISSUER }),
        json!({ "issuer": ISSUER, "jwks_uri": "https://169.254.169.254/latest" }),
        json!({ "issuer": ISSUER, "jwks_uri": "http://idp.example.com/keys" }),
        json!("nonsense"),
    ] {
        let (world, idp) = world(json!({}));
        idp.says("/.well-known/oauth-authorization-server", &document);
        idp.says("/keys", &idp.keys(&world));
        let told = world.tool("search__query");
        assert_eq!(told.status, 500, "{document}");
        assert_eq!(idp.asked("/keys"), 0, "{document}");
    }
}

#[test]
fn keys_once_found_outlast_their_metadata() {
    let (world, idp) = world(json!({}));
    let place = "/.well-known/oauth-authorization-server";
    idp.says(
        place,
        &json!({ "issuer": ISSUER, "jwks_uri": format!("https://{OTHER}/keys") }),
    );
    idp.says("/keys", &idp.keys(&world));
    assert_eq!(world.tool("search__query").status, 200);
    idp.says(
        place,
        &json!({ "issuer": "https://evil.example", "jwks_uri": "https://evil.example/k" }),
    );
    world.sim.clock.advance(SECOND * 3600);
    assert_eq!(world.tool("search__query").status, 200);
    world.sim.clock.advance(SECOND * 24 * 3600);
    assert_eq!(world.tool("search__query").status, 500);
}

#[test]
fn an_answer_about_a_token_is_remembered_for_a_bounded_time() {
    let (world, idp) = world(asking());
    let active = json!({ "active": true, "sub": "ada", "aud": AUDIENCE });
    idp.says("/introspect", &active);
    let call = |token: &str| world.call(tool("search__query").token(token)).status;
    for _ in 0..5 {
        assert_eq!(call("opaque"), 200);
    }
    assert_eq!(idp.asked("/introspect"), 1);
    idp.says("/introspect", &json!({ "active": false }));
    world.sim.clock.advance(SECOND * 59);
    assert_eq!(call("opaque"), 200, "remembered");
    world.sim.clock.advance(SECOND);
    for _ in 0..5 {
        assert_eq!(call("opaque"), 401);
    }
    assert_eq!(idp.asked("/introspect"), 2, "and so is a refusal");
    idp.says("/introspect", &active);
    world.sim.clock.advance(SECOND * 30);
    assert_eq!(call("opaque"), 200);
}

#[test]
fn an_answer_is_not_remembered_past_the_tokens_end() {
    let (world, idp) = world(asking());
    let ends = world.sim.clock.now().as_secs() + 10;
    idp.says(
        "/introspect",
        &json!({ "active": true, "sub": "ada", "aud": AUDIENCE, "exp": ends }),
    );
    let call = || world.call(tool("search__query").token("opaque")).status;
    assert_eq!(call(), 200);
    world.sim.clock.advance(SECOND * 10);
    assert_eq!(call(), 401);
}

#[test]
fn where_the_issuer_cannot_be_asked_an_unknown_token_is_not_accepted() {
    let (world, idp) = world(asking());
    idp.says(
        "/introspect",
        &json!({ "active": true, "sub": "ada", "aud": AUDIENCE }),
    );
    let call = |token: &str| world.call(tool("search__query").token(token)).status;
    assert_eq!(call("known"), 200);
    idp.server.down.set(true);
    assert_eq!(call("known"), 200, "for as long as it is remembered");
    assert_eq!(call("unknown"), 500);
    idp.server.down.set(false);
    for answer in [json!({}), json!([]), json!("active"), Value::Null] {
        idp.says("/introspect", &answer);
        assert_eq!(call("unknown"), 500, "{answer}");
    }
    idp.server.head_delay.set(SECOND * 3600);
    assert_eq!(call("unknown"), 500, "and it does not wait for ever");
}

#[test]
fn the_gateway_shows_the_issuer_its_own_secret_and_nobody_elses_token_in_the_log() {
    let (world, idp) = world(asking());
    idp.says(
        "/introspect",
        &json!({ "active": true, "sub": "ada", "aud": AUDIENCE }),
    );
    assert_eq!(
        world
            .call(tool("search__query").token("opaque-and-long-enough"))
            .status,
        200
    );
    let seen = world.sim.http.exchanges(OTHER);
    let header = seen[0].headers["authorization"].to_str().unwrap();
    let pair = "gateway:the+gateway%27s+own+secret+there";
    let expected = base64::engine::general_purpose::STANDARD.encode(pair);
    assert_eq!(header, format!("Basic {expected}"));
    let body = String::from_utf8(seen[0].body().to_vec()).unwrap();
    assert_eq!(
        body,
        "token=opaque-and-long-enough&token_type_hint=access_token"
    );
    for line in world.lines() {
        assert!(
            !line.contains("opaque-and-long-enough") && !line.contains(SECRET),
            "{line}"
        );
    }
}

#[test]
fn an_issuer_of_one_tenant_is_not_asked_about_tokens_shown_to_another() {
    let mut members = asking();
    members["tenantClaim"] = "tenant".into();
    members["tenants"] = json!(["north"]);
    let (world, idp) = world(members);
    let [north, south] = ["north", "south"].map(|name| format!("/t/{name}/mcp"));
    let urls = [&north, &south].map(|path| format!("https://gw.example.com{path}"));
    let says = |tenant: &str| {
        idp.says(
            "/introspect",
            &json!({ "active": true, "sub": "ada", "aud": urls, "tenant": tenant }),
        );
    };
    let call = |token: &str, path: &str| world.call(tool("search__query").token(token).to(path));
    says("north");
    assert_eq!(call("opaque", &south).status, 401);
    assert_eq!(idp.asked("/introspect"), 0);
    assert_eq!(call("opaque", &north).status, 200);
    says("south");
    assert_eq!(call("other", &north).status, 401);
}

#[test]
fn a_client_that_acts_for_itself_is_its_own_subject() {
    let (world, idp) = world(asking());
    idp.says(
        "/introspect",
        &json!({ "active": true, "client_id": "machine", "aud": AUDIENCE }),
    );
    let told = world.call(tool("search__query").token("opaque"));
    assert_eq!(told.status, 200);
    let audit = world.audits();
    assert_eq!(audit[0]["subject"], "machine");
    assert_eq!(audit[0]["clientId"], "machine");
}

#[test]
fn a_token_bound_to_a_certificate_works_on_its_connection_alone() {
    let (bound, other) = ([7; 32], [8; 32]);
    let claims = json!({ "cnf": { "x5t#S256": URL_SAFE_NO_PAD.encode(bound) } });
    for (mtls, free, right, wrong, none) in [
        ("off", 200, 401, 401, 401),
        ("accept", 200, 200, 401, 401),
        ("require", 401, 200, 401, 401),
    ] {
        let world = Setup::new()
            .upstream("search", &Script::modern(&["query"]))
            .config(&json!({ "authentication": { "issuers": [
                { "issuer": ISSUER, "jwksUri": format!("{ISSUER}/keys"), "mtls": mtls },
            ] } }))
            .start();
        let token = world.token(&claims);
        let call = || tool("search__query").token(&token);
        let status = |ask| world.call(ask).status.as_u16();
        assert_eq!(
            status(tool("search__query").certificate(bound)),
            free,
            "{mtls}"
        );
        assert_eq!(status(call().certificate(bound)), right, "{mtls}");
        assert_eq!(status(call().certificate(other)), wrong, "{mtls}");
        assert_eq!(status(call()), none, "{mtls}");
    }
}

#[test]
fn where_bound_tokens_are_required_no_other_is_taken_and_the_metadata_says_so() {
    let world = Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .config(&json!({ "authentication": { "issuers": [
            { "issuer": ISSUER, "jwksUri": format!("{ISSUER}/keys"), "dpop": "require", "mtls": "accept" },
        ] } }))
        .start();
    let told = world.tool("search__query");
    assert_eq!(told.status, 401);
    assert!(
        told.header("www-authenticate")
            .contains("Only tokens bound to a key")
    );
    let path = "/.well-known/oauth-protected-resource/mcp";
    let told = world.ask(Ask::http("GET", path).anonymous());
    let document = told.json();
    assert_eq!(document["dpop_bound_access_tokens_required"], true);
    assert_eq!(
        document["dpop_signing_alg_values_supported"],
        json!([
            "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"
        ])
    );
    assert_eq!(document["tls_client_certificate_bound_access_tokens"], true);
}

/// A server beside the world's own issuer, in whose name it may speak.
struct Idp {
    answers: Rc<RefCell<Vec<(String, Value)>>>,
    server: Rc<Server>,
    sim: Rc<tidegate_simulator::Simulator>,
}

impl Idp {
    fn says(&self, path: &str, answer: &Value) {
        self.answers
            .borrow_mut()
            .insert(0, (path.to_owned(), answer.clone()));
    }

    fn keys(&self, world: &World) -> Value {
        world.shared.issuer.published.borrow().clone().unwrap()
    }

    fn asked(&self, path: &str) -> usize {
        let seen = self.sim.http.exchanges(OTHER);
        seen.iter()
            .filter(|exchange| exchange.uri.path() == path)
            .count()
    }
}

/// How opaque tokens are asked about.
fn asking() -> Value {
    let introspection = json!({
        "endpoint": format!("https://{OTHER}/introspect"),
        "clientId": "gateway",
        "clientSecret": "${secret:IDP_SECRET}",
    });
    json!({ "jwksUri": format!("{ISSUER}/keys"), "introspection": introspection })
}

/// Metadata is asked of the issuer's own host, which answers as the other one does.
fn world(members: Value) -> (World, Idp) {
    let mut issuer = json!({ "issuer": ISSUER });
    let more = members.as_object().unwrap().clone();
    issuer.as_object_mut().unwrap().extend(more);
    let world = Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .config(&json!({
            "authentication": { "issuers": [issuer] },
            "tenants": [{ "name": "north", "path": "north" }, { "name": "south", "path": "south" }],
        }))
        .secret("IDP_SECRET", SECRET)
        .start();
    let answers: Rc<RefCell<Vec<(String, Value)>>> = Rc::default();
    let serve = |host: &str| {
        let answers = Rc::clone(&answers);
        world.sim.http.serve(host, move |request: Request<Body>| {
            let known = answers.borrow();
            let answer = known.iter().find(|(path, _)| path == request.uri().path());
            let (status, body) = match answer {
                Some((_, answer)) => (200, answer.to_string()),
                None => (404, String::new()),
            };
            let response = Response::builder().status(status).body(Body::from(body));
            std::future::ready(Ok(response.unwrap()))
        })
    };
    let discovers = members.get("jwksUri").is_none();
    if discovers {
        serve("login.example.com");
    }
    let server = serve(OTHER);
    let sim = Rc::clone(&world.sim);
    (
        world,
        Idp {
            answers,
            server,
            sim,
        },
    )
}
