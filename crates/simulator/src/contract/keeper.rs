//! The promises of keepers, seen through the one thing every keeper answers: a ping, which
//! names the keeper, counts the pings open in it, and sends back what it is sent.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::StreamExt;
use futures_util::future::{Either, join_all, select};
use futures_util::stream::{self, LocalBoxStream};
use http::{Request, Response};
use tidegate_gateway::body::{Body, BodyError};
use tidegate_gateway::keep::PING;
use tidegate_gateway::platform::{Clock, Keeper, Platform};

use super::{Check, Outcome, RACERS, Subject, check, done, expect};

/// How long a keeper may take to answer, or to hear that somebody has gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two questions of the same kind.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn checks<P: Platform>(subject: &Subject<'_, P>) -> Vec<Check> {
    let Some(keeper) = subject.platform.keeper() else {
        return Vec::new();
    };
    let k = Keepers { subject, keeper };
    vec![
        check("a keeper is found again by its name", k.same().await),
        check("keepers of different names are different", k.other().await),
        check(
            "requests that race to a new keeper all reach the same one",
            k.race().await,
        ),
        check(
            "a keeper answers others while a request to it is open",
            k.overlap().await,
        ),
        check("a keeper's bodies stream both ways", k.streams().await),
        check(
            "a keeper hears that its answer is no longer read",
            k.body_dropped().await,
        ),
        check(
            "a keeper hears that its answer is no longer waited for",
            k.request_dropped().await,
        ),
    ]
}

struct Keepers<'a, 'b, P: Platform> {
    subject: &'a Subject<'b, P>,
    keeper: &'a P::Keeper,
}

/// An answer whose body is still open.
struct Open {
    id: String,
    /// How many pings were open in the keeper, this one too.
    count: usize,
    rest: LocalBoxStream<'static, Result<Bytes, BodyError>>,
}

impl<P: Platform> Keepers<'_, '_, P> {
    async fn send(&self, name: &str, query: &str, body: Body) -> Result<Response<Body>, String> {
        let request = Request::post(format!("{PING}{query}")).body(body);
        done(self.keeper.send(name, done(request)?).await)
    }

    /// Pings a keeper and reads who it is.
    async fn open(&self, name: &str, body: Body) -> Result<Open, String> {
        self.patiently(async {
            let response = self.send(name, "", body).await?;
            let mut rest = response.into_body().into_stream();
            let line = read_to(&mut rest, "\n").await?;
            let (id, count) = line.trim_end().split_once(' ').ok_or("no greeting")?;
            let count = done(count.parse())?;
            let id = id.to_owned();
            Ok(Open { id, count, rest })
        })
        .await
    }

    async fn id(&self, name: &str) -> Result<String, String> {
        Ok(self.open(name, Body::empty()).await?.id)
    }

    /// Waits until so many pings are open in a keeper, besides the one that asks.
    async fn until_open(&self, name: &str, others: usize) -> Outcome {
        self.patiently(async {
            while self.open(name, Body::empty()).await?.count != others + 1 {
                self.subject.platform.clock().sleep(PAUSE).await;
            }
            Ok(())
        })
        .await
    }

    async fn patiently<T>(
        &self,
        work: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        let over = self.subject.platform.clock().sleep(PATIENCE);
        match select(pin!(work), pin!(over)).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(_) => Err(format!("nothing within {PATIENCE:?}")),
        }
    }

    async fn same(&self) -> Outcome {
        let name = self.subject.key("same");
        let (one, two) = (self.id(&name).await?, self.id(&name).await?);
        expect(one == two, || "the second was another".to_owned())
    }

    async fn other(&self) -> Outcome {
        let one = self.id(&self.subject.key("one")).await?;
        let two = self.id(&self.subject.key("two")).await?;
        expect(one != two, || "two names, one keeper".to_owned())
    }

    async fn race(&self) -> Outcome {
        let name = self.subject.key("race");
        let mut ids = Vec::new();
        for id in join_all((0..RACERS).map(|_| self.id(&name))).await {
            ids.push(id?);
        }
        ids.dedup();
        expect(ids.len() == 1, || format!("{} keepers answered", ids.len()))
    }

    async fn overlap(&self) -> Outcome {
        let name = self.subject.key("overlap");
        let open = self.open(&name, endless()).await?;
        let other = self.open(&name, Body::empty()).await?;
        expect(open.id == other.id && other.count == 2, || {
            format!("{} were open in the keeper that answered", other.count)
        })
    }

    async fn streams(&self) -> Outcome {
        let name = self.subject.key("streams");
        let (later, body) = oneshot::channel();
        let body = stream::once(async { body.await.map_err(|_| BodyError(String::new())) });
        let mut open = self.open(&name, Body::stream(body)).await?;
        // The answer has begun: only now is the rest of the request sent.
        let sent = later.send(Bytes::from_static(b"tide"));
        expect(sent.is_ok(), || "the request's body was dropped".to_owned())?;
        self.patiently(read_to(&mut open.rest, "tide")).await?;
        let end = self.patiently(async { Ok(open.rest.next().await) }).await?;
        expect(end.is_none(), || format!("after the end came {end:?}"))
    }

    async fn body_dropped(&self) -> Outcome {
        let name = self.subject.key("body-dropped");
        let open = self.open(&name, endless()).await?;
        self.until_open(&name, 1).await?;
        drop(open);
        self.until_open(&name, 0).await
    }

    async fn request_dropped(&self) -> Outcome {
        let name = self.subject.key("request-dropped");
        let waiting = self.send(&name, "?late", endless());
        match select(pin!(waiting), pin!(self.until_open(&name, 1))).await {
            Either::Left(_) => return Err("the head came before the body".to_owned()),
            Either::Right((seen, _)) => seen?,
        }
        self.until_open(&name, 0).await
    }
}

/// A body that is open until it is dropped.
fn endless() -> Body {
    Body::stream(stream::pending())
}

/// Reads up to `end`.
async fn read_to(
    chunks: &mut LocalBoxStream<'static, Result<Bytes, BodyError>>,
    end: &str,
) -> Result<String, String> {
    let mut text = String::new();
    while !text.ends_with(end) {
        let chunk = done(chunks.next().await.ok_or("the body ended early")?)?;
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    Ok(text)
}
