//! The promises of the clock, randomness, secrets, the queue and the HTTP client.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tidegate_gateway::body::Body;
use tidegate_gateway::platform::{Clock, HttpClient, Platform, QUEUE_MESSAGE_MAX, Queue};

use super::{Check, Outcome, Subject, check, done, expect};

/// Nothing listens on port 1 of this machine.
const CLOSED: &str = "http://127.0.0.1:1/";
/// How long is slept to see that sleeping waits.
const NAP: Duration = Duration::from_millis(200);
/// Host timers may fire a little early.
const NAP_SEEN: Duration = Duration::from_millis(190);
/// Any time before this project began shows a clock that is not set.
const PAST_MS: u64 = 1_700_000_000_000;

pub(super) async fn checks<P: Platform>(
    subject: &Subject<'_, P>,
    server: Option<&str>,
) -> Vec<Check> {
    let platform = subject.platform;
    let mut checks = vec![
        check("the clock is set", clock_is_set(platform)),
        check("sleeping waits", sleep_waits(platform).await),
        check(
            "randomness fills the whole buffer and never repeats",
            random(platform),
        ),
        check(
            "a secret that is not set is none",
            no_secret(platform).await,
        ),
        check(
            "the queue takes the largest message",
            largest_message(platform).await,
        ),
    ];
    let refused = platform.http().send(get(CLOSED)).await;
    let seen = || format!("{refused:?}");
    checks.push(check(
        "a closed port gives an error",
        expect(refused.is_err(), seen),
    ));
    if let Some(server) = server {
        checks.push(check(
            "redirects are not followed",
            redirect(platform, server).await,
        ));
    }
    checks
}

fn get(uri: &str) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    // An address that does not parse is left as `/`, which no client can reach either.
    *request.uri_mut() = uri.parse().unwrap_or_default();
    request
}

fn clock_is_set<P: Platform>(platform: &P) -> Outcome {
    let now = platform.clock().now().0;
    expect(now > PAST_MS, || format!("it says {now} ms"))
}

async fn sleep_waits<P: Platform>(platform: &P) -> Outcome {
    let before = platform.clock().now();
    platform.clock().sleep(NAP).await;
    let slept = platform.clock().now().since(before);
    expect(slept >= NAP_SEEN, || format!("{NAP:?} took {slept:?}"))
}

fn random<P: Platform>(platform: &P) -> Outcome {
    let draw = || {
        let mut out = [0_u8; 67];
        platform.random(&mut out);
        out
    };
    let (one, two) = (draw(), draw());
    expect(one != two, || "two draws were equal".to_owned())?;
    for (name, part) in [("beginning", &one[..16]), ("end", &one[51..])] {
        expect(part.iter().any(|byte| *byte != part[0]), || {
            format!("the {name} is one byte repeated")
        })?;
    }
    Ok(())
}

async fn no_secret<P: Platform>(platform: &P) -> Outcome {
    let found = done(platform.secret("TIDEGATE_CONTRACT_NEVER_SET").await)?;
    expect(found.is_none(), || "there is one".to_owned())
}

async fn largest_message<P: Platform>(platform: &P) -> Outcome {
    // A consumer finds no message it knows in this and drops it.
    let message = Bytes::from(vec![b' '; QUEUE_MESSAGE_MAX]);
    done(platform.queue().send(message, Duration::ZERO).await)
}

async fn redirect<P: Platform>(platform: &P, server: &str) -> Outcome {
    let response = done(
        platform
            .http()
            .send(get(&format!("{server}/redirect")))
            .await,
    )?;
    let status = response.status();
    expect(status.is_redirection(), || {
        format!("the answer was {status}")
    })
}
