//! The KV store: Workers KV.
//!
//! Eventually consistent: the edge serves what it has seen, for up to a minute by default.
//! That default (`cacheTtl`) is left alone, because it is the staleness the port states.
//! A refusal, such as 429 for a second write of one key within one second, is
//! [`Unavailable`] like any other; the port leaves the outcome of a failed write open.

use std::time::Duration;

use bytes::Bytes;
use tidegate_gateway::platform::{KV_TTL_MIN, KvStore, Unavailable};
use worker::Env;
use worker::kv::{KvError, KvStore as Namespace};

use crate::platform::unavailable;

/// The binding's name in `wrangler.toml`.
const BINDING: &str = "TIDEGATE_KV";

/// The port on one KV namespace.
pub struct WorkersKv {
    env: Env,
}

impl WorkersKv {
    /// The namespace of this deployment.
    pub fn new(env: Env) -> Self {
        Self { env }
    }

    fn namespace(&self) -> Result<Namespace, Unavailable> {
        self.env.kv(BINDING).map_err(unavailable)
    }
}

impl KvStore for WorkersKv {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, Unavailable> {
        let value = self.namespace()?.get(key).bytes().await.map_err(refused)?;
        Ok(value.map(Bytes::from))
    }

    async fn put(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<(), Unavailable> {
        let mut put = self.namespace()?.put_bytes(key, &value).map_err(refused)?;
        if let Some(ttl) = ttl {
            put = put.expiration_ttl(whole_seconds(ttl.max(KV_TTL_MIN)));
        }
        put.execute().await.map_err(refused)
    }

    async fn delete(&self, key: &str) -> Result<(), Unavailable> {
        self.namespace()?.delete(key).await.map_err(refused)
    }
}

fn refused(error: KvError) -> Unavailable {
    unavailable(error)
}

/// Rounded up: a value may live a moment longer than asked, never shorter.
fn whole_seconds(ttl: Duration) -> u64 {
    ttl.as_secs()
        .saturating_add(u64::from(ttl.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_rounded_up_to_whole_seconds() {
        for (millis, seconds) in [
            (60_000, 60),
            (60_001, 61),
            (0, 0),
            (u64::MAX, u64::MAX / 1000 + 1),
        ] {
            assert_eq!(
                whole_seconds(Duration::from_millis(millis)),
                seconds,
                "{millis} ms"
            );
        }
    }
}
