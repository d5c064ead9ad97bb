//! The promises of the store that is linearizable per key.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tidegate_gateway::platform::{
    ATOMIC_VALUE_MAX, AtomicStore, Clock, Platform, Swap, Unavailable, Version,
};
use tidegate_gateway::time::Timestamp;

use super::{BINARY, Check, Outcome, RACERS, Subject, check, done, expect, longest};

/// How long records of a run may outlive it.
const LIFETIME: Duration = Duration::from_secs(300);
/// Lifetime of the records whose expiry is awaited.
const SHORT: Duration = Duration::from_secs(1);
/// How long an expiry is waited for; one store counts in whole seconds.
const EXPIRY_WAIT: Duration = Duration::from_secs(2);

pub(super) async fn checks<P: Platform>(subject: &Subject<'_, P>) -> Vec<Check> {
    let a = Atomic { subject };
    vec![
        check(
            "a swap that expects absence writes an absent record",
            a.absent().await,
        ),
        check(
            "a swap that names the version replaces the record",
            a.present().await,
        ),
        check(
            "a swap that names another version writes nothing",
            a.wrong_version().await,
        ),
        check(
            "a swap that expects absence leaves a present record alone",
            a.not_absent().await,
        ),
        check(
            "of concurrent swaps on an absent record exactly one wins",
            a.race_on_absent().await,
        ),
        check(
            "of concurrent swaps on a present record exactly one wins",
            a.race_on_present().await,
        ),
        check(
            "concurrent additions are all counted",
            a.race_to_add().await,
        ),
        check("a record is unreadable after it expired", a.expiry().await),
        check(
            "an expired record counts as absent",
            a.swap_after_expiry().await,
        ),
        check(
            "an expired counter begins again at zero",
            a.counter_expiry().await,
        ),
        check(
            "a counter keeps the expiry it was created with",
            a.counter_keeps_expiry().await,
        ),
        check("a counter goes down as well as up", a.negative().await),
        check(
            "atomic values are kept byte for byte under the longest key",
            a.binary().await,
        ),
        check(
            "a value of the largest size is kept whole",
            a.largest().await,
        ),
    ]
}

struct Atomic<'a, 'b, P> {
    subject: &'a Subject<'b, P>,
}

impl<P: Platform> Atomic<'_, '_, P> {
    fn now(&self) -> Timestamp {
        self.subject.platform.clock().now()
    }

    async fn swap_until(
        &self,
        key: &str,
        expected: Option<Version>,
        value: &'static [u8],
        expires_at: Timestamp,
    ) -> Result<Swap, Unavailable> {
        self.subject
            .platform
            .atomic()
            .swap(key, expected, Bytes::from_static(value), expires_at)
            .await
    }

    async fn swap(
        &self,
        key: &str,
        expected: Option<Version>,
        value: &'static [u8],
    ) -> Result<Swap, Unavailable> {
        self.swap_until(key, expected, value, self.now() + LIFETIME)
            .await
    }

    async fn add(&self, key: &str, delta: i64) -> Result<i64, Unavailable> {
        self.subject
            .platform
            .atomic()
            .add(key, delta, self.now() + LIFETIME)
            .await
    }

    async fn read(&self, key: &str) -> Result<Option<(Version, Bytes)>, String> {
        done(self.subject.platform.atomic().get(key).await)
    }

    /// Writes an absent record and gives its version.
    async fn create(&self, key: &str, value: &'static [u8]) -> Result<Version, String> {
        match done(self.swap(key, None, value).await)? {
            Swap::Done(version) => Ok(version),
            Swap::Conflict => Err("a fresh key was not absent".to_owned()),
        }
    }

    async fn holds(&self, key: &str, version: Version, value: &[u8]) -> Outcome {
        let found = self.read(key).await?;
        let as_expected = found
            .as_ref()
            .is_some_and(|(at, bytes)| *at == version && bytes == value);
        expect(as_expected, || format!("found {found:?}"))
    }

    async fn absent(&self) -> Outcome {
        let key = self.subject.key("absent");
        expect(self.read(&key).await?.is_none(), || {
            "a fresh key was not absent".to_owned()
        })?;
        let version = self.create(&key, b"one").await?;
        self.holds(&key, version, b"one").await
    }

    async fn present(&self) -> Outcome {
        let key = self.subject.key("present");
        let first = self.create(&key, b"one").await?;
        match done(self.swap(&key, Some(first), b"two").await)? {
            Swap::Done(second) if second == first => Err("the version did not change".to_owned()),
            Swap::Done(second) => self.holds(&key, second, b"two").await,
            Swap::Conflict => Err("a conflict on the right version".to_owned()),
        }
    }

    async fn wrong_version(&self) -> Outcome {
        let key = self.subject.key("wrong-version");
        let first = self.create(&key, b"one").await?;
        let Swap::Done(second) = done(self.swap(&key, Some(first), b"two").await)? else {
            return Err("a conflict on the right version".to_owned());
        };
        let stale = done(self.swap(&key, Some(first), b"three").await)?;
        expect(stale == Swap::Conflict, || {
            format!("a stale version gave {stale:?}")
        })?;
        let nothing = self.subject.key("never-written");
        let unseen = done(self.swap(&nothing, Some(first), b"one").await)?;
        expect(unseen == Swap::Conflict, || {
            format!("a version of an absent record gave {unseen:?}")
        })?;
        self.holds(&key, second, b"two").await
    }

    async fn not_absent(&self) -> Outcome {
        let key = self.subject.key("not-absent");
        let version = self.create(&key, b"one").await?;
        let again = done(self.swap(&key, None, b"two").await)?;
        expect(again == Swap::Conflict, || {
            format!("the second gave {again:?}")
        })?;
        self.holds(&key, version, b"one").await
    }

    async fn race(&self, key: &str, expected: Option<Version>) -> Outcome {
        let racers = (0..RACERS).map(|_| self.swap(key, expected, b"raced"));
        let mut winners = Vec::new();
        for swap in join_all(racers).await {
            if let Swap::Done(version) = done(swap)? {
                winners.push(version);
            }
        }
        match winners.as_slice() {
            [winner] => self.holds(key, *winner, b"raced").await,
            _ => Err(format!("{} of {RACERS} won", winners.len())),
        }
    }

    async fn race_on_absent(&self) -> Outcome {
        self.race(&self.subject.key("race-absent"), None).await
    }

    async fn race_on_present(&self) -> Outcome {
        let key = self.subject.key("race-present");
        let version = self.create(&key, b"one").await?;
        self.race(&key, Some(version)).await
    }

    async fn race_to_add(&self) -> Outcome {
        let key = self.subject.key("race-add");
        let mut sums = Vec::new();
        for sum in join_all((0..RACERS).map(|_| self.add(&key, 1))).await {
            sums.push(done(sum)?);
        }
        sums.sort_unstable();
        let expected: Vec<i64> = (1..).take(RACERS).collect();
        expect(sums == expected, || format!("the sums were {sums:?}"))
    }

    async fn expire(&self) {
        self.subject.platform.clock().sleep(EXPIRY_WAIT).await;
    }

    async fn expiry(&self) -> Outcome {
        let key = self.subject.key("expiry");
        done(
            self.swap_until(&key, None, b"one", self.now() + SHORT)
                .await,
        )?;
        self.expire().await;
        let found = self.read(&key).await?;
        expect(found.is_none(), || format!("still there: {found:?}"))
    }

    async fn swap_after_expiry(&self) -> Outcome {
        let key = self.subject.key("swap-after-expiry");
        let first = done(
            self.swap_until(&key, None, b"one", self.now() + SHORT)
                .await,
        )?;
        self.expire().await;
        if let Swap::Done(version) = first {
            let late = done(self.swap(&key, Some(version), b"late").await)?;
            expect(late == Swap::Conflict, || {
                format!("the expired version gave {late:?}")
            })?;
        }
        let version = self.create(&key, b"two").await?;
        self.holds(&key, version, b"two").await
    }

    async fn counter_expiry(&self) -> Outcome {
        let key = self.subject.key("counter-expiry");
        done(
            self.subject
                .platform
                .atomic()
                .add(&key, 5, self.now() + SHORT)
                .await,
        )?;
        self.expire().await;
        let sum = done(self.add(&key, 1).await)?;
        expect(sum == 1, || format!("the sum was {sum}"))
    }

    async fn counter_keeps_expiry(&self) -> Outcome {
        let key = self.subject.key("counter-keeps-expiry");
        done(
            self.subject
                .platform
                .atomic()
                .add(&key, 5, self.now() + SHORT)
                .await,
        )?;
        done(self.add(&key, 5).await)?;
        self.expire().await;
        let sum = done(self.add(&key, 1).await)?;
        expect(sum == 1, || {
            format!("the sum was {sum}: a later addition prolonged it")
        })
    }

    async fn negative(&self) -> Outcome {
        let key = self.subject.key("negative");
        done(self.add(&key, 3).await)?;
        let sum = done(self.add(&key, -5).await)?;
        expect(sum == -2, || format!("3 - 5 gave {sum}"))
    }

    async fn binary(&self) -> Outcome {
        let key = longest(&self.subject.key("atomic-binary"));
        let version = self.create(&key, BINARY).await?;
        self.holds(&key, version, BINARY).await
    }

    async fn largest(&self) -> Outcome {
        let (key, value) = (self.subject.key("largest"), vec![b'x'; ATOMIC_VALUE_MAX]);
        let (atomic, until) = (self.subject.platform.atomic(), self.now() + LIFETIME);
        done(atomic.swap(&key, None, value.into(), until).await)?;
        let found = self.read(&key).await?.map(|(_, value)| value.len());
        expect(found == Some(ATOMIC_VALUE_MAX), || {
            format!("{found:?} bytes were found")
        })
    }
}
