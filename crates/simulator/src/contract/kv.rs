//! The promises of the eventually consistent store.

use std::time::Duration;

use bytes::Bytes;
use tidegate_gateway::platform::{Clock, KV_TTL_MIN, KvStore, Platform};

use super::{BINARY, Check, Outcome, Subject, check, done, expect, longest};

/// How long a write may take to be seen where it was made and nobody else writes.
const VISIBLE_WITHIN: Duration = Duration::from_secs(2);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Just over the one write per key and second that is promised.
const BETWEEN_WRITES: Duration = Duration::from_millis(1_100);

pub(super) async fn checks<P: Platform>(subject: &Subject<'_, P>) -> Vec<Check> {
    let kv = Kv { subject };
    vec![
        check("a key never written has no value", kv.absent().await),
        check(
            "a written value is seen soon where nobody else writes",
            kv.written().await,
        ),
        check("the last of two writes wins", kv.last_wins().await),
        check(
            "a deleted value is gone, and deleting nothing is no error",
            kv.deleted().await,
        ),
        check(
            "KV values are kept byte for byte under the longest key",
            kv.binary().await,
        ),
        check(
            "a value is readable within its lifetime",
            kv.lifetime().await,
        ),
    ]
}

struct Kv<'a, 'b, P> {
    subject: &'a Subject<'b, P>,
}

impl<P: Platform> Kv<'_, '_, P> {
    async fn put(&self, key: &str, value: &'static [u8], ttl: Option<Duration>) -> Outcome {
        done(
            self.subject
                .platform
                .kv()
                .put(key, Bytes::from_static(value), ttl)
                .await,
        )
    }

    /// Looks until `key` shows `expected`, for a bounded time.
    async fn shows(&self, key: &str, expected: Option<&[u8]>) -> Outcome {
        let mut waited = Duration::ZERO;
        loop {
            let found = done(self.subject.platform.kv().get(key).await)?;
            if found.as_deref() == expected {
                return Ok(());
            }
            if waited >= VISIBLE_WITHIN {
                return Err(format!("after {waited:?} it shows {found:?}"));
            }
            self.pause(LOOK_EVERY).await;
            waited += LOOK_EVERY;
        }
    }

    async fn pause(&self, duration: Duration) {
        self.subject.platform.clock().sleep(duration).await;
    }

    async fn absent(&self) -> Outcome {
        let found = done(
            self.subject
                .platform
                .kv()
                .get(&self.subject.key("kv-absent"))
                .await,
        )?;
        expect(found.is_none(), || format!("found {found:?}"))
    }

    async fn written(&self) -> Outcome {
        let key = self.subject.key("kv-written");
        self.put(&key, b"one", None).await?;
        self.shows(&key, Some(b"one")).await
    }

    async fn last_wins(&self) -> Outcome {
        let key = self.subject.key("kv-last");
        self.put(&key, b"one", None).await?;
        self.pause(BETWEEN_WRITES).await;
        self.put(&key, b"two", None).await?;
        self.shows(&key, Some(b"two")).await
    }

    async fn deleted(&self) -> Outcome {
        let key = self.subject.key("kv-deleted");
        self.put(&key, b"one", None).await?;
        self.pause(BETWEEN_WRITES).await;
        done(self.subject.platform.kv().delete(&key).await)?;
        done(
            self.subject
                .platform
                .kv()
                .delete(&self.subject.key("kv-never"))
                .await,
        )?;
        self.shows(&key, None).await
    }

    async fn binary(&self) -> Outcome {
        let key = longest(&self.subject.key("kv-binary"));
        self.put(&key, BINARY, None).await?;
        self.shows(&key, Some(BINARY)).await
    }

    async fn lifetime(&self) -> Outcome {
        let key = self.subject.key("kv-lifetime");
        self.put(&key, b"one", Some(KV_TTL_MIN)).await?;
        self.pause(BETWEEN_WRITES).await;
        self.shows(&key, Some(b"one")).await
    }
}
