//! Whoever connects an account shows first that they are the caller, where the caller's own
//! issuer can be asked who they are.

use std::cell::RefCell;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use serde_json::{Value, json};
use tidegate_gateway::body::Body;
use tidegate_gateway::platform::Clock;
use url::Url;

use super::exchange::key;
use super::server::{Granter, SECRET, credentials};
use super::user::{asking, authorize_in, browser, cookie_of, link_in, returned};
use crate::world::issuer::ISSUER;
use crate::world::{Script, Setup, World, modern, tool};

const OWN: &str = "CANARY-SIGN-IN-SECRET";
/// An issuer whose people cannot be asked to sign in.
const OTHER: &str = "https://other-login.example.com";

#[test]
fn the_account_is_connected_by_whoever_the_issuer_says_is_the_caller() {
    let (world, granter, login) = world();
    let link = link_in(&world.call(asking()));
    let page = browser(&world, &link, None);
    assert!(
        page.text.contains("Go on to login.example.com"),
        "{}",
        page.text
    );
    let back = login.signs_in(&authorize_in(&page), &json!({ "sub": "ada" }));
    let told = returned(&world, &back, &cookie_of(&page));
    assert_eq!(told.status, 303, "{}", told.text);
    assert_eq!(told.header("cache-control"), "no-store");
    assert_eq!(told.header("referrer-policy"), "no-referrer");
    let back = granter.approves("ada@files", told.header("location"));
    let told = returned(&world, &back, &cookie_of(&page));
    assert!(
        told.status == 200 && told.text.contains("is connected"),
        "{}",
        told.text
    );
    assert_eq!(world.tool("files__read").status, 200);
    let asked = login.asked.borrow();
    assert!(
        asked[0].contains("code=login&")
            && asked[0].contains("code_verifier=")
            && !asked[0].contains("resource=")
    );
}

#[test]
fn who_is_sent_anothers_link_grants_nothing() {
    let (world, granter, login) = world();
    let link = link_in(&world.call(asking()));
    for (claims, status) in [
        (json!({ "sub": "eve" }), 403),
        (json!({ "sub": null }), 502),
        (json!({ "iss": "https://evil.example" }), 502),
        (json!({ "aud": "another-client" }), 502),
        (json!({ "nonce": "of another visit" }), 502),
        (json!({ "exp": 1 }), 502),
    ] {
        let page = browser(&world, &link, None);
        let back = login.signs_in(&authorize_in(&page), &claims);
        let told = returned(&world, &back, &cookie_of(&page));
        assert_eq!(told.status, status, "{claims}: {}", told.text);
        assert!(told.header("location").is_empty());
    }
    assert!(granter.asked.borrow().is_empty());
    assert_eq!(world.tool("files__read").reason(), "not_connected");
    // Nor is the way to the upstream's server open to who has not signed in.
    let page = browser(&world, &link, None);
    let mut back = login.signs_in(&authorize_in(&page), &json!({ "sub": "eve" }));
    let state = back
        .query_pairs()
        .find(|(name, _)| name == "state")
        .unwrap()
        .1
        .into_owned();
    back.query_pairs_mut()
        .clear()
        .append_pair("state", &state)
        .append_pair("code", "code-0-eve");
    assert_eq!(returned(&world, &back, &cookie_of(&page)).status, 403);
    assert!(granter.asked.borrow().is_empty());
}

#[test]
fn who_cannot_sign_in_is_given_no_link_and_can_follow_none() {
    let script = Script::modern(&["read"]);
    let setup = |sign_in: bool| {
        let mut issuer = json!({ "issuer": ISSUER, "jwksUri": format!("{ISSUER}/keys") });
        if sign_in {
            issuer["signIn"] = json!({ "clientId": "gw-login" });
        }
        // Somebody else's, which says nothing of sign-in.
        let second = json!({ "issuer": OTHER, "jwksUri": format!("{ISSUER}/keys") });
        Setup::new()
            .upstream_with("files", &script, &credentials("user"))
            .config(
                &json!({ "authentication": { "gatewayKeys": true, "issuers": [issuer, second] } }),
            )
            .secret("GRANTS_SECRET", SECRET)
    };
    let world = setup(true).start();
    let granter = Granter::serve(&world, &[("files", &script)]);
    let callers = |world: &World| {
        [
            key(world),
            world.token(&json!({ "iss": OTHER, "sub": "ada" })),
        ]
    };
    for token in callers(&world) {
        let told = world.call(asking().token(&token));
        assert_eq!(told.reason(), "no_credentials", "{told:?}");
        let words = told.error()["message"].as_str().unwrap();
        assert!(
            words.contains("signIn") && !words.contains("link="),
            "{words}"
        );
        let told = world.call(modern("tools/list", json!({})).token(&token));
        assert_eq!(told.reason(), "no_credentials", "{told:?}");
    }
    assert_eq!(world.tool("files__read").reason(), "not_connected");
    // A link from before opens nothing any more; nor does the way back of a visit under way.
    let before = setup(false).start();
    let other = Granter::serve(&before, &[("files", &script)]);
    for token in callers(&before) {
        let link = link_in(&before.call(asking().token(&token)));
        let page = browser(&before, &link, None);
        let back = other.approves("victim", &authorize_in(&page));
        before.sim.kv.publish("config", setup(true).snapshot());
        let now = before.isolate();
        assert_eq!(browser(&now, &link, None).status, 400);
        assert_eq!(returned(&now, &back, &cookie_of(&page)).status, 400);
        before.sim.kv.publish("config", setup(false).snapshot());
    }
    assert!(other.asked.borrow().is_empty() && granter.asked.borrow().is_empty());
}

/// The caller's issuer, as an OpenID provider.
struct Login {
    /// What the next ID token says.
    claims: RefCell<Value>,
    asked: RefCell<Vec<String>>,
    now: u64,
}

impl Login {
    /// A person signs in: where their browser is sent back to.
    fn signs_in(&self, authorize: &str, claims: &Value) -> Url {
        assert!(
            authorize.starts_with(&format!("{ISSUER}/authorize?")),
            "{authorize}"
        );
        let url = Url::parse(authorize).unwrap();
        let of = |name: &str| {
            url.query_pairs()
                .find(|(key, _)| key == name)
                .unwrap()
                .1
                .into_owned()
        };
        assert_eq!(
            (of("scope"), of("client_id")),
            ("openid".to_owned(), "gw-login".to_owned())
        );
        let mut says = json!({
            "iss": ISSUER, "aud": "gw-login", "nonce": of("nonce"), "exp": self.now + 60, "sub": "ada",
        });
        says.as_object_mut()
            .unwrap()
            .extend(claims.as_object().unwrap().clone());
        *self.claims.borrow_mut() = says;
        let mut back = Url::parse(&of("redirect_uri")).unwrap();
        back.query_pairs_mut()
            .append_pair("code", "login")
            .append_pair("state", &of("state"));
        back
    }

    fn answer(&self, keys: &Value, path: &str, body: &str) -> Value {
        match path {
            "/keys" => keys.clone(),
            "/token" => {
                self.asked.borrow_mut().push(body.to_owned());
                let claims = URL_SAFE_NO_PAD.encode(self.claims.borrow().to_string());
                json!({ "access_token": "CANARY-LOGIN-TOKEN", "token_type": "Bearer",
                        "id_token": format!("e30.{claims}.c2ln") })
            }
            _ => json!({
                "issuer": ISSUER,
                "jwks_uri": format!("{ISSUER}/keys"),
                "token_endpoint": format!("{ISSUER}/token"),
                "authorization_endpoint": format!("{ISSUER}/authorize"),
                "code_challenge_methods_supported": ["S256"],
            }),
        }
    }
}

fn world() -> (World, Rc<Granter>, Rc<Login>) {
    let script = Script::modern(&["read"]);
    let world = Setup::new()
        .upstream_with("files", &script, &credentials("user"))
        .config(&json!({ "authentication": { "issuers": [{
            "issuer": ISSUER,
            "signIn": { "clientId": "gw-login", "clientSecret": "${secret:LOGIN_SECRET}" },
        }] } }))
        .secret("GRANTS_SECRET", SECRET)
        .secret("LOGIN_SECRET", OWN)
        .start();
    let granter = Granter::serve(&world, &[("files", &script)]);
    let login = Rc::new(Login {
        claims: RefCell::default(),
        asked: RefCell::default(),
        now: world.sim.clock.now().as_secs(),
    });
    let (answering, keys) = (Rc::clone(&login), Rc::clone(&world.shared.issuer.published));
    world.sim.http.serve("login.example.com", move |request| {
        let (login, keys) = (Rc::clone(&answering), keys.borrow().clone().unwrap());
        async move {
            let (head, body) = http::Request::into_parts(request);
            let body = Body::read(body, 1 << 20).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            let answer = login.answer(&keys, head.uri.path(), &body);
            Ok(Response::new(Body::from(answer.to_string())))
        }
    });
    assert_eq!(world.call(tool("files__read")).reason(), "not_connected");
    (world, granter, login)
}
