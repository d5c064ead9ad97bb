//! The issuer's keys: fetched with care, shared, kept through outages, and dropped when
//! they are withdrawn. On the ports alone, without the rest of the gateway.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Response};
use jwt_simple::prelude::{Ed25519KeyPair, EdDSAKeyPairLike, JWTClaims, NoCustomClaims};
use serde_json::{Value, json};
use tidegate_gateway::auth::{self, Memory, Principal, Resource, Sender};
use tidegate_gateway::body::Body;
use tidegate_gateway::config::Config;
use tidegate_gateway::error::{Error, Fault, Rejection};
use tidegate_gateway::platform::Clock;
use tidegate_simulator::{Server, Simulator};

const LOGIN: &str = "login.example";
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_withdrawn_key_stops_working_within_its_freshness_also_for_tokens_already_seen() {
    let world = World::new();
    let (old, new) = (key("old"), key("new"));
    world.publish(&[&old]);
    let token = world.token(&old);
    assert!(world.ask(&token).is_ok());
    world.publish(&[&new]);
    assert!(world.ask(&token).is_ok(), "the copy is fresh");
    world.sim.clock.advance(MINUTE * 5);
    assert_eq!(
        refusal(world.ask(&token)),
        "The token's signature is not valid."
    );
    assert!(world.ask(&world.token(&new)).is_ok());
}

#[test]
fn a_key_that_takes_over_the_name_of_another_does_not_take_over_its_tokens() {
    let world = World::new();
    let (old, new) = (key("same"), key("same"));
    world.publish(&[&old]);
    let token = world.token(&old);
    assert!(world.ask(&token).is_ok());
    world.publish(&[&new]);
    world.sim.clock.advance(MINUTE * 5);
    assert!(world.ask(&token).is_err() && world.ask(&world.token(&new)).is_ok());
}

#[test]
fn an_issuer_that_withdraws_all_keys_is_believed() {
    let world = World::new();
    let key = key("a");
    world.publish(&[&key]);
    assert!(world.ask(&world.token(&key)).is_ok());
    world.publish(&[]);
    world.sim.clock.advance(MINUTE * 5);
    assert!(world.ask(&world.token(&key)).is_err());
}

#[test]
fn many_first_calls_at_once_ask_the_issuer_once() {
    let world = World::new();
    let key = key("a");
    world.publish(&[&key]);
    world.server.head_delay.set(SECOND * 2);
    let token = world.token(&key);
    let answers = world
        .sim
        .run(join_all((0..50).map(|_| world.asking(&token))));
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(world.asked(), 1);
}

#[test]
fn a_call_that_goes_away_while_it_asks_leaves_the_asking_to_the_next() {
    let world = World::new();
    let key = key("a");
    world.publish(&[&key]);
    world.server.head_delay.set(SECOND * 2);
    let token = world.token(&key);
    world.sim.clock.jump_when_idle(false);
    let mut first = world.sim.start(world.asking(&token));
    assert!(first.step().is_none());
    drop(first);
    world.sim.clock.jump_when_idle(true);
    world.sim.clock.advance(MINUTE);
    assert!(world.ask(&token).is_ok());
    assert_eq!(world.asked(), 2);
}

#[test]
fn unknown_key_ids_make_a_fleet_ask_the_issuer_rarely() {
    let world = World::new();
    world.publish(&[&key("a")]);
    let fleet: Vec<World> = (0..5).map(|_| world.isolate()).collect();
    for round in 0..600 {
        let forged = world.token(&key(&format!("forged-{round}")));
        assert!(fleet[round % 5].ask(&forged).is_err());
        world.sim.clock.advance(SECOND);
    }
    // Ten minutes: the first, and then what the interval allows, shared through KV.
    assert!(world.asked() <= 21, "{} questions", world.asked());
}

#[test]
fn keys_survive_a_day_without_their_issuer_and_no_longer() {
    let world = World::new();
    let key = key("a");
    world.publish(&[&key]);
    assert!(world.ask(&world.token(&key)).is_ok());
    world.server.down.set(true);
    for _ in 0..23 {
        world.sim.clock.advance(MINUTE * 60);
        assert!(world.ask(&world.token(&key)).is_ok());
        assert!(world.isolate().ask(&world.token(&key)).is_ok(), "from KV");
    }
    world.sim.clock.advance(MINUTE * 60);
    assert!(is_fault(&world.ask(&world.token(&key))));
    assert!(is_fault(&world.isolate().ask(&world.token(&key))));
    world.server.down.set(false);
    world.sim.clock.advance(SECOND * 5);
    assert!(world.ask(&world.token(&key)).is_ok());
}

#[test]
fn with_neither_store_nor_issuer_nobody_is_let_in() {
    let world = World::new();
    let key = key("a");
    world.publish(&[&key]);
    world.server.down.set(true);
    world.sim.kv.faults.outage(true);
    for _ in 0..5 {
        assert!(is_fault(&world.ask(&world.token(&key))));
    }
    world.server.down.set(false);
    world.sim.clock.advance(SECOND * 5);
    assert!(
        is_fault(&world.ask(&world.token(&key))),
        "the issuer alone does not know what has been revoked"
    );
    world.sim.kv.faults.outage(false);
    assert!(world.ask(&world.token(&key)).is_ok());
}

#[test]
fn an_answer_that_is_no_key_set_changes_nothing() {
    let answers: [(u16, Bytes); 6] = [
        (500, "{}".into()),
        (302, r#"{"keys":[]}"#.into()),
        (200, "<html>".into()),
        (200, "{}".into()),
        (200, Bytes::new()),
        (200, vec![b' '; 256 * 1024 + 1].into()),
    ];
    for (status, body) in answers {
        let world = World::new();
        let key = key("a");
        world.publish(&[&key]);
        assert!(world.ask(&world.token(&key)).is_ok());
        *world.answer.borrow_mut() = (status, body);
        world.sim.clock.advance(MINUTE * 6);
        assert!(world.ask(&world.token(&key)).is_ok(), "status {status}");
        assert_eq!(world.sim.take_log().len(), 1, "and the operator is told");
    }
}

#[test]
fn a_slow_issuer_costs_one_call_five_seconds_and_the_others_nothing() {
    let world = World::new();
    let key = key("a");
    world.publish(&[&key]);
    assert!(world.ask(&world.token(&key)).is_ok());
    world.server.chunk_delay.set(MINUTE);
    world.sim.clock.advance(MINUTE * 6);
    let token = world.token(&key);
    for expected in [5, 0, 0] {
        let before = world.sim.clock.now();
        assert!(world.ask(&token).is_ok());
        assert_eq!(world.sim.clock.now().since(before).as_secs(), expected);
    }
}

#[test]
fn a_record_that_is_not_ours_is_not_read() {
    let (ours, theirs) = (key("a"), key("a"));
    let now = Simulator::new().clock.now().0;
    let set = json!({ "keys": [jwk(&theirs)] });
    let records = [
        json!({ "v": 1, "issuer": "https://other.example", "fetchedAtMs": now, "keys": set }),
        json!({ "v": 2, "issuer": "https://login.example", "fetchedAtMs": now, "keys": set }),
        json!({ "v": 1, "issuer": "https://login.example", "fetchedAtMs": now + 3_600_000, "keys": set }),
        json!({ "v": 1, "issuer": "https://login.example", "fetchedAtMs": 0, "keys": set }),
        json!("nonsense"),
    ];
    for record in records {
        let world = World::new();
        world.publish(&[&ours]);
        assert!(world.ask(&world.token(&ours)).is_ok());
        let stored = world.sim.kv.keys();
        assert_eq!(stored.len(), 1);
        world.sim.kv.publish(&stored[0], record.to_string());
        let other = world.isolate();
        assert!(other.ask(&world.token(&theirs)).is_err(), "{record}");
        assert!(other.ask(&world.token(&ours)).is_ok(), "{record}");
    }
}

#[test]
fn private_parts_an_issuer_publishes_by_mistake_are_not_kept() {
    let world = World::new();
    let (leaked, good) = (key("leaked"), key("good"));
    let private: Value = serde_json::from_str(&leaked.to_jwk()).unwrap();
    world.answer_with(&json!({ "keys": [private, jwk(&good)] }));
    assert!(world.ask(&world.token(&leaked)).is_err());
    assert!(world.ask(&world.token(&good)).is_ok());
    let stored = world.sim.kv.stored(&world.sim.kv.keys()[0]).unwrap();
    let stored: Value = serde_json::from_slice(&stored).unwrap();
    assert_eq!(stored["keys"]["keys"].as_array().map(Vec::len), Some(1));
    assert_eq!(stored["keys"]["keys"][0].get("d"), None);
}

#[test]
fn a_clock_that_steps_back_does_not_keep_keys_fresh() {
    let world = World::new();
    let (old, new) = (key("old"), key("new"));
    world.publish(&[&old]);
    let start = world.sim.clock.now();
    world.sim.clock.advance(MINUTE * 60 * 48);
    assert!(world.ask(&world.token(&old)).is_ok());
    world.publish(&[&new]);
    world.sim.clock.set(start);
    assert!(world.ask(&world.token(&old)).is_err());
    assert!(world.ask(&world.token(&new)).is_ok());
}

struct World {
    sim: Simulator,
    memory: Memory,
    config: Rc<Config>,
    server: Rc<Server>,
    answer: Rc<RefCell<(u16, Bytes)>>,
}

impl World {
    fn new() -> Self {
        let sim = Simulator::new();
        let answer = Rc::new(RefCell::new((200, Bytes::from_static(br#"{"keys":[]}"#))));
        let served = Rc::clone(&answer);
        let server = sim.http.serve(LOGIN, move |_| {
            let (status, body) = served.borrow().clone();
            std::future::ready(Ok(Response::builder()
                .status(status)
                .body(Body::from(body))
                .unwrap()))
        });
        let config = json!({
            "apiVersion": "tidegate/v1",
            "kind": "Gateway",
            "metadata": { "name": "edge" },
            "publicUrl": "https://gw.example",
            "authentication": { "type": "jwt", "issuers": [
                { "issuer": "https://login.example", "jwksUri": "https://login.example/keys" },
            ] },
            "upstreams": [],
        });
        let config = Rc::new(serde_json::from_value(config).unwrap());
        Self {
            sim,
            memory: Memory::default(),
            config,
            server,
            answer,
        }
    }

    fn isolate(&self) -> Self {
        let (config, server, answer) = (
            Rc::clone(&self.config),
            Rc::clone(&self.server),
            Rc::clone(&self.answer),
        );
        Self {
            sim: self.sim.isolate(),
            memory: Memory::default(),
            config,
            server,
            answer,
        }
    }

    fn publish(&self, keys: &[&Ed25519KeyPair]) {
        self.answer_with(&json!({ "keys": keys.iter().map(|key| jwk(key)).collect::<Vec<_>>() }));
    }

    fn answer_with(&self, set: &Value) {
        *self.answer.borrow_mut() = (200, set.to_string().into());
    }

    fn token(&self, key: &Ed25519KeyPair) -> String {
        let now = self.sim.clock.now().as_secs();
        let claims = json!({
            "iss": "https://login.example", "sub": "ada", "aud": "https://gw.example/mcp",
            "exp": now + 200_000, "iat": now,
        });
        let claims: JWTClaims<NoCustomClaims> = serde_json::from_value(claims).unwrap();
        key.sign(claims).unwrap()
    }

    #[track_caller]
    fn ask(&self, token: &str) -> Result<Rc<Principal>, Error> {
        self.sim.run(self.asking(token))
    }

    async fn asking(&self, token: &str) -> Result<Rc<Principal>, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(
            AUTHORIZATION,
            HeaderValue::from_str(&format!("Bearer {token}")).unwrap(),
        );
        let resource = Resource::of(&self.config, "/mcp");
        let sender = Sender {
            method: &http::Method::POST,
            path: "/mcp",
            headers: &headers,
            peer: None,
        };
        auth::authenticate(&self.sim, &self.memory, &self.config, sender, &resource).await
    }

    /// How often the issuer has been asked for its keys.
    fn asked(&self) -> usize {
        self.sim.http.exchanges(LOGIN).len()
    }
}

fn key(id: &str) -> Ed25519KeyPair {
    Ed25519KeyPair::generate().with_key_id(id)
}

fn jwk(key: &Ed25519KeyPair) -> Value {
    serde_json::from_str(&key.public_key().to_jwk()).unwrap()
}

fn refusal(answer: Result<Rc<Principal>, Error>) -> &'static str {
    match answer {
        Err(Error::Rejection(Rejection::Unauthenticated { reason, .. })) => reason,
        other => panic!("{other:?}"),
    }
}

fn is_fault(answer: &Result<Rc<Principal>, Error>) -> bool {
    matches!(answer, Err(Error::Fault(Fault::Dependency(_))))
}
