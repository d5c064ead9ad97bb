//! An authorization server: keys, tokens, and the key set it publishes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use http::Response;
use jwt_simple::prelude::{
    ECDSAP256KeyPairLike, ES256KeyPair, Ed25519KeyPair, EdDSAKeyPairLike, JWTClaims, RS256KeyPair,
    RSAKeyPairLike,
};
use serde_json::{Map, Value, json};
use tidegate_gateway::body::Body;
use tidegate_gateway::platform::Clock;
use tidegate_simulator::{SimClock, Simulator};

/// Its `iss`.
pub const ISSUER: &str = "https://login.example.com";
/// Its name among the world's servers.
pub const NAME: &str = "login";
/// What its tokens are meant for unless a test says otherwise.
pub const AUDIENCE: &str = "https://gw.example.com/mcp";

/// Signs tokens with one key; what it publishes can be changed.
pub struct Issuer {
    key: RefCell<Ed25519KeyPair>,
    /// The key set it answers with; `None`: 500.
    pub published: Rc<RefCell<Option<Value>>>,
    issued: Cell<u64>,
}

impl Issuer {
    /// An issuer behind its own host in this world.
    pub fn serve(sim: &Simulator) -> (Self, Rc<tidegate_simulator::Server>) {
        let key = Ed25519KeyPair::generate().with_key_id("key-1");
        let set = json!({ "keys": [jwk(&key.public_key().to_jwk())] });
        let published = Rc::new(RefCell::new(Some(set)));
        let answer = Rc::clone(&published);
        let server = sim.http.serve("login.example.com", move |_| {
            let response = match &*answer.borrow() {
                Some(set) => Response::new(Body::from(set.to_string())),
                None => Response::builder().status(500).body(Body::empty()).unwrap(),
            };
            std::future::ready(Ok(response))
        });
        (
            Self {
                key: RefCell::new(key),
                published,
                issued: Cell::default(),
            },
            server,
        )
    }

    /// A token with these claims; `null` takes one of the usual claims away.
    pub fn token(&self, clock: &SimClock, claims: &Value) -> String {
        self.key.borrow().sign(self.claims(clock, claims)).unwrap()
    }

    /// A token of another key that claims to be `key_id`.
    pub fn forged(&self, clock: &SimClock, key_id: &str) -> String {
        let key = Ed25519KeyPair::generate().with_key_id(key_id);
        key.sign(self.claims(clock, &json!({ "sub": "mallory" })))
            .unwrap()
    }

    /// A token of each algorithm, under keys that are published from now on.
    pub fn each_algorithm(&self, clock: &SimClock) -> Vec<(&'static str, String)> {
        let rsa = RS256KeyPair::generate(2048).unwrap().with_key_id("rsa");
        let ec = ES256KeyPair::generate().with_key_id("ec");
        let own = self.key.borrow();
        let keys = json!([
            jwk(&rsa.public_key().to_jwk()),
            jwk(&ec.public_key().to_jwk()),
            jwk(&own.public_key().to_jwk())
        ]);
        *self.published.borrow_mut() = Some(json!({ "keys": keys }));
        let claims = || self.claims(clock, &json!({ "sub": "ada" }));
        vec![
            ("RS256", rsa.sign(claims()).unwrap()),
            ("ES256", ec.sign(claims()).unwrap()),
            ("EdDSA", own.sign(claims()).unwrap()),
        ]
    }

    /// Takes a new key into use and publishes it beside the old one.
    pub fn rotate(&self) {
        let new = Ed25519KeyPair::generate().with_key_id("key-2");
        let old = jwk(&self.key.replace(new).public_key().to_jwk());
        *self.published.borrow_mut() =
            Some(json!({ "keys": [old, jwk(&self.key.borrow().public_key().to_jwk())] }));
    }

    fn claims(&self, clock: &SimClock, claims: &Value) -> JWTClaims<Map<String, Value>> {
        let now = clock.now().as_secs();
        self.issued.set(self.issued.get() + 1);
        let mut all = json!({
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ada",
            "client_id": "cli",
            "iat": now,
            "exp": now + 3600,
            "jti": format!("token-{}", self.issued.get()),
        });
        let members = all.as_object_mut().unwrap();
        members.extend(claims.as_object().cloned().unwrap_or_default());
        members.retain(|_, claim| !claim.is_null());
        serde_json::from_value(all).unwrap()
    }
}

fn jwk(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}
