//! `cargo xtask bench --tokens`: what it costs to verify a token, by algorithm. Each token
//! is sent twice in a row: the first time its signature is checked, the second time the
//! gateway remembers that it was.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use jwt_simple::prelude::{
    ECDSAP256KeyPairLike, ECDSAP384KeyPairLike, ES256KeyPair, ES384KeyPair, Ed25519KeyPair,
    EdDSAKeyPairLike, JWTClaims, PS256KeyPair, PS384KeyPair, PS512KeyPair, RS256KeyPair,
    RS384KeyPair, RS512KeyPair, RSAKeyPairLike,
};
use serde_json::{Map, Value, json};

use crate::bench::configuration;
use crate::bench::echo::Echo;
use crate::bench::load::Sample;
use crate::bench::wire::{Caller, Connection};
use crate::dev::Options;
use crate::dev::gateway::Gateway;
use crate::http::{self, Response};
use crate::issuer::keys::Claims;
use crate::layout::Layout;
use crate::progress::say;
use crate::{clock, stop};

/// Size of the RSA keys measured, in bits.
const RSA_BITS: usize = 2048;

type Sign = Box<dyn Fn(JWTClaims<Map<String, Value>>) -> Result<String, jwt_simple::Error>>;

/// One way to sign: its name, and its public key as a JSON Web Key.
struct Signer {
    name: &'static str,
    jwk: Value,
    sign: Sign,
}

/// What the two requests of each token took.
struct Cost {
    name: &'static str,
    first: Sample,
    again: Sample,
}

/// Runs it and prints what came of it.
pub fn run(layout: &Layout, json: bool, count: usize) -> Result<()> {
    if count == 0 {
        bail!("--tokens wants at least one token per algorithm");
    }
    say("making keys …");
    let signers = signers()?;
    let keys: Vec<_> = signers.iter().map(|signer| signer.jwk.clone()).collect();
    let listener = http::listen_from(0)?;
    let issuer = format!("http://{}", listener.local_addr()?);
    let published = json!({"keys": keys});
    http::serve(listener, move |_| Response::json(200, &published));

    let upstream = Echo::start()?;
    let trusted = json!({"authentication": {"type": "jwt", "issuers": [
        {"issuer": issuer, "jwksUri": format!("{issuer}/jwks.json")},
    ]}});
    let options = Options {
        raw: true,
        auth: true,
        own_issuers: true,
        config: Some(configuration(layout, "bench", trusted)?),
        ..Options::bare("echo", &format!("http://127.0.0.1:{}/mcp", upstream.port))
    };
    let gateway = Gateway::start(layout, &options)?;
    let audience = format!("http://127.0.0.1:{}/mcp", gateway.port);
    let mut costs = Vec::new();
    for signer in &signers {
        say(&format!("{count} tokens signed with {} …", signer.name));
        costs.push(measure(signer, &issuer, &audience, gateway.port, count)?);
    }
    report(json, &mut costs);
    Ok(())
}

fn measure(signer: &Signer, issuer: &str, audience: &str, port: u16, count: usize) -> Result<Cost> {
    let mut connection = Connection::open(port)?;
    let (mut first, mut again) = (Vec::new(), Vec::new());
    // One more, which warms up: its key is fetched, its code compiled.
    for number in 0..=count {
        stop::check()?;
        let token = (signer.sign)(Claims::new(issuer, audience).to_sign())
            .map_err(|error| anyhow!("cannot sign with {}: {error}", signer.name))?;
        let caller = Caller {
            port,
            token: Some(&token),
            tasks: false,
        };
        let request = caller.request("server/discover", "", json!({}));
        let mut took = || -> Result<u32> {
            let sent = clock::instant();
            let answer = connection.exchange(&request)?;
            if answer.status != 200 {
                let said = String::from_utf8_lossy(&answer.body);
                bail!("{} answered {}: {said}", signer.name, answer.status);
            }
            Ok(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX))
        };
        let (unknown, known) = (took()?, took()?);
        if number > 0 {
            first.push(unknown);
            again.push(known);
        }
    }
    Ok(Cost {
        name: signer.name,
        first: Sample::of(first, Duration::ZERO),
        again: Sample::of(again, Duration::ZERO),
    })
}

fn report(as_json: bool, costs: &mut [Cost]) {
    if as_json {
        let rows: Vec<_> = costs
            .iter_mut()
            .map(|cost| {
                json!({"algorithm": cost.name, "firstP50Us": cost.first.percentile(50),
                    "againP50Us": cost.again.percentile(50)})
            })
            .collect();
        println!("{}", Value::from(rows));
        return;
    }
    println!(
        "\n{:<12}{:>14}{:>14}{:>14}",
        "p50 in µs", "first", "again", "verification"
    );
    for cost in costs {
        let (first, again) = (cost.first.percentile(50), cost.again.percentile(50));
        let verification = first.saturating_sub(again);
        println!("{:<12}{first:>14}{again:>14}{verification:>14}", cost.name);
    }
}

/// One of each algorithm that is accepted anywhere; the RSA ones share a key pair.
fn signers() -> Result<Vec<Signer>> {
    let rsa = RS256KeyPair::generate(RSA_BITS).and_then(|pair| pair.to_der());
    let rsa = rsa.map_err(|error| anyhow!("cannot make a key: {error}"))?;
    macro_rules! signer {
        ($name:literal, $pair:expr) => {{
            let pair = $pair.with_key_id($name);
            let mut jwk: Value = serde_json::from_str(&pair.public_key().to_jwk())?;
            jwk["alg"] = $name.into();
            Signer {
                name: $name,
                jwk,
                sign: Box::new(move |claims| pair.sign(claims)),
            }
        }};
        ($name:literal, $kind:ident of RSA) => {
            signer!(
                $name,
                $kind::from_der(&rsa).map_err(|error| anyhow!("cannot take the key: {error}"))?
            )
        };
    }
    Ok(vec![
        signer!("RS256", RS256KeyPair of RSA),
        signer!("RS384", RS384KeyPair of RSA),
        signer!("RS512", RS512KeyPair of RSA),
        signer!("PS256", PS256KeyPair of RSA),
        signer!("PS384", PS384KeyPair of RSA),
        signer!("PS512", PS512KeyPair of RSA),
        signer!("ES256", ES256KeyPair::generate()),
        signer!("ES384", ES384KeyPair::generate()),
        signer!("EdDSA", Ed25519KeyPair::generate()),
    ])
}
