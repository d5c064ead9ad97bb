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

use super::server::{Granter, SECRET, credentials};
use super::user::{asking, authorize_in, browser, cookie_of, link_in, returned};
use crate::world::issuer::ISSUER;
use crate::world::{Script, Setup, World, tool};

const OWN: &str = "CANARY-SIGN-IN-SECRET";

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
