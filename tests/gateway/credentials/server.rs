//! An authorization server for upstreams, and upstreams that take its tokens alone.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tidegate_gateway::body::Body;
use tidegate_gateway::platform::{Clock, HttpClient};
use tidegate_gateway::time::Timestamp;
use tidegate_simulator::{Server, SimClock};
use url::Url;
use url::form_urlencoded;

use crate::world::{Script, Setup, World, authority};

/// Its issuer identifier.
pub const ISSUER: &str = "https://grants.example.com";
const HOST: &str = "grants.example.com";
/// The gateway's secret there.
pub const SECRET: &str = "CANARY-SECRET: of the gateway's";

/// How long its access tokens last.
pub const LIFETIME: Duration = Duration::from_secs(600);

/// The server's own view of what it has given.
pub struct Granter {
    clock: SimClock,
    /// Access tokens: for whom, for what, until when.
    pub access: RefCell<BTreeMap<String, (String, String, Timestamp)>>,
    /// Refresh tokens that are good now, and for whom.
    pub refresh: RefCell<BTreeMap<String, String>>,
    /// Refresh tokens that have been used.
    pub used: RefCell<BTreeSet<String>>,
    /// How often a used one was shown.
    pub reused: Cell<usize>,
    /// Codes: the challenge, where they go back to, for what.
    codes: RefCell<BTreeMap<String, (String, String, String)>>,
    /// Every request to the token endpoint.
    pub asked: RefCell<Vec<BTreeMap<String, String>>>,
    /// What it answers in place of a token.
    pub says: RefCell<Option<(u16, String)>>,
    /// Members laid over its metadata.
    pub metadata: RefCell<Value>,
    /// Whether it gives refresh tokens, a new one each time.
    pub rotates: Cell<bool>,
    given: Cell<usize>,
    pub server: RefCell<Option<Rc<Server>>>,
    vault: Rc<crate::world::invariants::Shared>,
}

impl Granter {
    /// The server in this world, with each of these upstreams behind a guard of its tokens.
    pub fn serve(world: &World, guarded: &[(&str, &Script)]) -> Rc<Self> {
        let sim = &world.sim;
        let granter = Rc::new(Self {
            clock: sim.clock.clone(),
            access: RefCell::default(),
            refresh: RefCell::default(),
            used: RefCell::default(),
            reused: Cell::default(),
            codes: RefCell::default(),
            asked: RefCell::default(),
            says: RefCell::default(),
            metadata: RefCell::new(json!({})),
            rotates: Cell::new(true),
            given: Cell::default(),
            server: RefCell::default(),
            vault: Rc::clone(&world.shared),
        });
        let answering = Rc::clone(&granter);
        let server = sim.http.serve(HOST, move |request: Request<Body>| {
            let granter = Rc::clone(&answering);
            async move { Ok(granter.answer(request).await) }
        });
        *granter.server.borrow_mut() = Some(server);
        for (name, script) in guarded {
            let inner = format!("inner-{name}.example.com");
            script.serve(sim, &inner);
            let (guard, http, named) = (Rc::clone(&granter), sim.http.clone(), (*name).to_owned());
            let server = sim.http.serve(&authority(name), move |mut request| {
                let (guard, http) = (Rc::clone(&guard), http.clone());
                let (inner, name) = (inner.clone(), named.clone());
                async move {
                    if !guard.takes(&name, &request) {
                        return Ok(status(401, String::new()));
                    }
                    *request.uri_mut() = format!("https://{inner}/mcp").parse().unwrap();
                    http.send(request).await
                }
            });
            world
                .shared
                .servers
                .borrow_mut()
                .insert((*name).to_owned(), server);
        }
        granter
    }

    /// Whether a token in a request is good at this upstream now.
    fn takes(&self, upstream: &str, request: &Request<Body>) -> bool {
        let header = request.headers().get("authorization");
        let token = header.and_then(|value| value.to_str().ok());
        let token = token.and_then(|text| text.strip_prefix("Bearer "));
        let access = self.access.borrow();
        token
            .and_then(|token| access.get(token))
            .is_some_and(|(_, resource, until)| {
                *resource == format!("https://{}/mcp", authority(upstream))
                    && self.clock.now() < *until
            })
    }

    /// Whose token came with the last request of this kind.
    pub fn subject_at(&self, world: &World, upstream: &str) -> String {
        let exchanges = world.exchanges(upstream);
        let header = exchanges.last().unwrap().headers["authorization"].clone();
        let token = header
            .to_str()
            .unwrap()
            .strip_prefix("Bearer ")
            .unwrap()
            .to_owned();
        self.access.borrow()[&token].0.clone()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        if head.uri.path() == "/.well-known/oauth-authorization-server" {
            return status(200, self.document().to_string());
        }
        if head.uri.path() != "/token" {
            return status(404, String::new());
        }
        let body = body.read(1 << 20).await.unwrap();
        let mut form: BTreeMap<_, _> = form_urlencoded::parse(&body).into_owned().collect();
        let basic = head.headers.get("authorization");
        let basic = basic.map(|value| value.to_str().unwrap().to_owned());
        form.insert("authorization".to_owned(), basic.unwrap_or_default());
        self.asked.borrow_mut().push(form.clone());
        if let Some((code, text)) = &*self.says.borrow() {
            return status(*code, text.clone());
        }
        let pair = form["authorization"]
            .strip_prefix("Basic ")
            .unwrap_or_default();
        let pair = base64::engine::general_purpose::STANDARD
            .decode(pair)
            .unwrap();
        let written = "gw:CANARY-SECRET%3A+of+the+gateway%27s";
        if pair != written.as_bytes() {
            return refused(401, "invalid_client");
        }
        let resource = form["resource"].clone();
        match form["grant_type"].as_str() {
            "client_credentials" => self.give("gateway", &resource, false),
            "urn:ietf:params:oauth:grant-type:token-exchange" => {
                let claims = form["subject_token"].split('.').nth(1).unwrap();
                let claims = URL_SAFE_NO_PAD.decode(claims).unwrap();
                let claims: Value = serde_json::from_slice(&claims).unwrap();
                self.give(claims["sub"].as_str().unwrap(), &resource, false)
            }
            "authorization_code" => self.redeem(&form),
            "refresh_token" => self.renew(&form["refresh_token"], &resource),
            _ => refused(400, "unsupported_grant_type"),
        }
    }

    fn redeem(&self, form: &BTreeMap<String, String>) -> Response<Body> {
        let Some((challenge, back, resource)) = self.codes.borrow_mut().remove(&form["code"])
        else {
            return refused(400, "invalid_grant");
        };
        let shown = URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"]));
        if shown != challenge || form["redirect_uri"] != back || form["resource"] != resource {
            return refused(400, "invalid_grant");
        }
        let subject = form["code"].split('-').next_back().unwrap().to_owned();
        self.give(&subject, &resource, true)
    }

    fn renew(&self, token: &str, resource: &str) -> Response<Body> {
        let Some(subject) = self.refresh.borrow().get(token).cloned() else {
            self.reused
                .set(self.reused.get() + usize::from(self.used.borrow().contains(token)));
            return refused(400, "invalid_grant");
        };
        if self.rotates.get() {
            self.refresh.borrow_mut().remove(token);
            self.used.borrow_mut().insert(token.to_owned());
        }
        self.give(&subject, resource, self.rotates.get())
    }

    fn give(&self, subject: &str, resource: &str, refresh: bool) -> Response<Body> {
        let number = self.given.get() + 1;
        self.given.set(number);
        let access = format!("CANARY-ACCESS-{number}-of-{subject}");
        let held = (
            subject.to_owned(),
            resource.to_owned(),
            self.clock.now() + LIFETIME,
        );
        self.access.borrow_mut().insert(access.clone(), held);
        let mut answer = json!({
            "access_token": access, "token_type": "Bearer", "expires_in": LIFETIME.as_secs(),
        });
        self.vault.vault.borrow_mut().push(access);
        if refresh {
            let refresh = format!("CANARY-REFRESH-{number}-of-{subject}");
            self.refresh
                .borrow_mut()
                .insert(refresh.clone(), subject.to_owned());
            self.vault.vault.borrow_mut().push(refresh.clone());
            answer["refresh_token"] = refresh.into();
        }
        status(200, answer.to_string())
    }

    fn document(&self) -> Value {
        let mut document = json!({
            "issuer": ISSUER,
            "token_endpoint": format!("{ISSUER}/token"),
            "authorization_endpoint": format!("{ISSUER}/authorize"),
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": true,
        });
        for (name, value) in self.metadata.borrow().as_object().unwrap() {
            document[name] = value.clone();
        }
        document
    }

    /// A user says yes: where their browser is sent back to.
    pub fn approves(&self, subject: &str, authorize: &str) -> Url {
        let url = Url::parse(authorize).unwrap();
        assert!(
            authorize.starts_with(&format!("{ISSUER}/authorize?")),
            "{authorize}"
        );
        let query: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(query["response_type"], "code");
        assert_eq!(query["client_id"], "gw");
        assert_eq!(query["code_challenge_method"], "S256");
        let code = format!("code-{}-{subject}", self.codes.borrow().len());
        let asked = ["code_challenge", "redirect_uri", "resource"].map(|name| query[name].clone());
        let [challenge, back, resource] = asked;
        let mut url = Url::parse(&back).unwrap();
        url.query_pairs_mut()
            .append_pair("code", &code)
            .append_pair("state", &query["state"])
            .append_pair("iss", ISSUER);
        self.codes
            .borrow_mut()
            .insert(code, (challenge, back, resource));
        url
    }

    /// How often tokens of this kind were asked for.
    pub fn asked_for(&self, grant: &str) -> usize {
        let asked = self.asked.borrow();
        asked
            .iter()
            .filter(|form| form["grant_type"] == grant)
            .count()
    }

    /// Lets every token that was given be good no more.
    pub fn withdraw(&self) {
        self.access.borrow_mut().clear();
        self.refresh.borrow_mut().clear();
    }

    /// Lets access tokens be good no more.
    pub fn withdraw_access(&self) {
        self.access.borrow_mut().clear();
    }

    /// Nothing it gave stands anywhere in a store.
    pub fn is_nowhere_stored(&self, world: &World) {
        let atomic = &world.sim.atomic;
        let kv = &world.sim.kv;
        let values = atomic
            .keys()
            .into_iter()
            .filter_map(|key| atomic.stored(&key));
        let values = values.chain(kv.keys().into_iter().filter_map(|key| kv.stored(&key)));
        for value in values {
            let text = String::from_utf8_lossy(&value).into_owned();
            for secret in ["CANARY-ACCESS", "CANARY-REFRESH", "CANARY-SECRET"] {
                assert!(!text.contains(secret), "stored: {text}");
            }
        }
    }
}

/// Credentials of this grant.
pub fn credentials(grant: &str) -> Value {
    json!({ "credentials": {
        "type": "oauth", "grant": grant, "issuer": ISSUER, "clientId": "gw",
        "clientSecret": "${secret:GRANTS_SECRET}", "scopes": ["files"],
    } })
}

/// A world with one upstream, `files`, that takes tokens of this grant.
pub fn world(grant: &str) -> (World, Rc<Granter>) {
    world_of(&Script::modern(&["read"]), &credentials(grant))
}

/// The same with this server behind it and these members in its configuration.
pub fn world_of(script: &Script, members: &Value) -> (World, Rc<Granter>) {
    let world = Setup::new()
        .upstream_with("files", script, members)
        .secret("GRANTS_SECRET", SECRET)
        .start();
    let granter = Granter::serve(&world, &[("files", script)]);
    (world, granter)
}

fn status(code: u16, text: String) -> Response<Body> {
    Response::builder()
        .status(code)
        .body(Body::from(text))
        .unwrap()
}

fn refused(code: u16, error: &str) -> Response<Body> {
    let words = format!("CANARY-DESCRIPTION of {error}");
    status(
        code,
        json!({ "error": error, "error_description": words }).to_string(),
    )
}
