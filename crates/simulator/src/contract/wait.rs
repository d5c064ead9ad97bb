//! The promises about waiting for an atomic record.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all, select};
use tidegate_gateway::platform::{AtomicStore, Clock, Platform, Swap, Version};
use tidegate_gateway::time::Timestamp;

use super::{Check, Outcome, RACERS, Subject, check, done, expect};

/// How long records of a run may outlive it.
const LIFETIME: Duration = Duration::from_secs(300);
/// A wait that something is to end.
const LONG: Duration = Duration::from_secs(8);
/// A wait nothing ends, and the lifetime of a record whose expiry is awaited.
const SHORT: Duration = Duration::from_secs(1);
/// Host timers may fire a little early.
const SHORT_SEEN: Duration = Duration::from_millis(980);
/// What happens at once takes no longer than this.
const PROMPT: Duration = Duration::from_secs(3);
/// Until then a wait that was begun has reached the store.
const NAP: Duration = Duration::from_millis(300);
/// More than any store lets wait for one record at once.
const CROWD: usize = 80;

pub(super) async fn checks<P: Platform>(subject: &Subject<'_, P>) -> Vec<Check> {
    let w = Wait { subject };
    vec![
        check(
            "a wait ends at once where the record is not as seen",
            w.already().await,
        ),
        check(
            "a wait ends when the record is replaced",
            w.replaced().await,
        ),
        check(
            "a wait for an absent record ends when it is made",
            w.made().await,
        ),
        check(
            "of all who wait for one record each sees it change",
            w.many().await,
        ),
        check(
            "a wait that sees no change ends when its time is over",
            w.unchanged().await,
        ),
        check("a wait sees its record expire", w.expired().await),
        check("waits that are given up are forgotten", w.dropped().await),
    ]
}

struct Wait<'a, 'b, P> {
    subject: &'a Subject<'b, P>,
}

/// What a wait saw, and how long it took.
struct Seen {
    version: Option<Version>,
    took: Duration,
}

impl Seen {
    fn expect(&self, version: Option<Version>, soon: bool) -> Outcome {
        let late = soon && self.took > PROMPT;
        expect(self.version == version && !late, || {
            format!("{:?} after {:?}", self.version, self.took)
        })
    }
}

impl<P: Platform> Wait<'_, '_, P> {
    fn now(&self) -> Timestamp {
        self.subject.platform.clock().now()
    }

    async fn nap(&self) {
        self.subject.platform.clock().sleep(NAP).await;
    }

    async fn wait(
        &self,
        key: &str,
        seen: Option<Version>,
        within: Duration,
    ) -> Result<Seen, String> {
        let begun = self.now();
        let found = self.subject.platform.atomic().wait(key, seen, within);
        let version = done(found.await)?.map(|(version, _)| version);
        let took = self.now().since(begun);
        Ok(Seen { version, took })
    }

    async fn write_until(
        &self,
        key: &str,
        expected: Option<Version>,
        expires_at: Timestamp,
    ) -> Result<Version, String> {
        let value = Bytes::from_static(b"waited for");
        let atomic = self.subject.platform.atomic();
        match done(atomic.swap(key, expected, value, expires_at).await)? {
            Swap::Done(version) => Ok(version),
            Swap::Conflict => Err("a conflict where nobody else writes".to_owned()),
        }
    }

    async fn write(&self, key: &str, expected: Option<Version>) -> Result<Version, String> {
        self.write_until(key, expected, self.now() + LIFETIME).await
    }

    async fn write_later(&self, key: &str, expected: Option<Version>) -> Result<Version, String> {
        self.nap().await;
        self.write(key, expected).await
    }

    async fn already(&self) -> Outcome {
        let key = self.subject.key("wait-already");
        let first = self.write(&key, None).await?;
        self.wait(&key, None, LONG)
            .await?
            .expect(Some(first), true)?;
        let second = self.write(&key, Some(first)).await?;
        let seen = self.wait(&key, Some(first), LONG).await?;
        seen.expect(Some(second), true)?;
        let absent = self.subject.key("wait-never-written");
        self.wait(&absent, Some(first), LONG)
            .await?
            .expect(None, true)
    }

    async fn replaced(&self) -> Outcome {
        let key = self.subject.key("wait-replaced");
        let first = self.write(&key, None).await?;
        let wait = self.wait(&key, Some(first), LONG);
        let (seen, second) = join(wait, self.write_later(&key, Some(first))).await;
        seen?.expect(Some(second?), true)
    }

    async fn made(&self) -> Outcome {
        let key = self.subject.key("wait-made");
        let wait = self.wait(&key, None, LONG);
        let (seen, made) = join(wait, self.write_later(&key, None)).await;
        seen?.expect(Some(made?), true)
    }

    async fn many(&self) -> Outcome {
        let key = self.subject.key("wait-many");
        let first = self.write(&key, None).await?;
        let waits = join_all((0..RACERS).map(|_| self.wait(&key, Some(first), LONG)));
        let (all, second) = join(waits, self.write_later(&key, Some(first))).await;
        let second = second?;
        all.into_iter()
            .try_for_each(|seen| seen?.expect(Some(second), true))
    }

    async fn unchanged(&self) -> Outcome {
        let key = self.subject.key("wait-unchanged");
        let first = self.write(&key, None).await?;
        let absent = self.subject.key("wait-for-nothing");
        let (present, absent) = join(
            self.wait(&key, Some(first), SHORT),
            self.wait(&absent, None, SHORT),
        )
        .await;
        for (seen, version) in [(present?, Some(first)), (absent?, None)] {
            seen.expect(version, true)?;
            expect(seen.took >= SHORT_SEEN, || format!("after {:?}", seen.took))?;
        }
        Ok(())
    }

    async fn expired(&self) -> Outcome {
        let key = self.subject.key("wait-expired");
        let expires_at = self.now() + SHORT;
        let version = self.write_until(&key, None, expires_at).await?;
        // A store that looks only at the end sees it then.
        let seen = self.wait(&key, Some(version), PROMPT).await?;
        seen.expect(None, false)
    }

    async fn dropped(&self) -> Outcome {
        let key = self.subject.key("wait-dropped");
        let first = self.write(&key, None).await?;
        let crowd = join_all((0..CROWD).map(|_| self.wait(&key, Some(first), LONG)));
        select(pin!(crowd), pin!(self.nap())).await;
        self.nap().await;
        // Whoever is still taken for waiting would leave no room for this one.
        let seen = self.wait(&key, Some(first), SHORT).await?;
        seen.expect(Some(first), true)?;
        expect(seen.took >= SHORT_SEEN, || format!("after {:?}", seen.took))?;
        let wait = self.wait(&key, Some(first), LONG);
        let (seen, second) = join(wait, self.write_later(&key, Some(first))).await;
        seen?.expect(Some(second?), true)
    }
}
