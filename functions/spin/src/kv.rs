//! The KV store: Spin's key-value store, with a lifetime Spin does not know.
//!
//! Each value is written in an envelope that says when it ends, and read as absent after
//! that; nothing removes it but the next write. A value without an envelope never ends:
//! that is what a person or a tool writes (`spin up --key-value`, `redis-cli`), and how
//! the configuration gets there.

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use spin_sdk::key_value::{Error, Store};
use tidegate_gateway::platform::{KV_TTL_MIN, KvStore, Unavailable};
use tidegate_gateway::time::Timestamp;

use crate::clock::now;

/// The store's label in `spin.toml`.
const LABEL: &str = "default";

/// What an envelope begins with: nothing that is JSON or text does.
const MARK: [u8; 2] = [0, 1];
/// The mark and the end, in milliseconds, big-endian.
const ENVELOPE: usize = MARK.len() + size_of::<u64>();
/// The end of what does not end.
const NEVER: Timestamp = Timestamp(u64::MAX);

thread_local! {
    /// Opened once per instance.
    static STORE: OnceCell<Rc<Store>> = const { OnceCell::new() };
}

/// The port on one store.
pub struct SpinKv;

impl KvStore for SpinKv {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, Unavailable> {
        let value = store().await?.get(key).await.map_err(unavailable)?;
        Ok(value.and_then(|value| opened(value.into(), now())))
    }

    async fn put(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<(), Unavailable> {
        let end = ttl.map_or(NEVER, |ttl| now() + ttl.max(KV_TTL_MIN));
        let sealed = enveloped(&value, end);
        store().await?.set(key, sealed).await.map_err(unavailable)
    }

    async fn delete(&self, key: &str) -> Result<(), Unavailable> {
        store().await?.delete(key).await.map_err(unavailable)
    }
}

async fn store() -> Result<Rc<Store>, Unavailable> {
    if let Some(store) = STORE.with(|store| store.get().cloned()) {
        return Ok(store);
    }
    let opened = Rc::new(Store::open(LABEL).await.map_err(unavailable)?);
    // Another request may have been faster; then its store is the one that is kept.
    Ok(STORE.with(|store| Rc::clone(store.get_or_init(|| opened))))
}

fn unavailable(error: Error) -> Unavailable {
    Unavailable(match error {
        Error::StoreTableFull => "too many stores are open".to_owned(),
        Error::NoSuchStore => format!("there is no key-value store `{LABEL}`"),
        Error::AccessDenied => {
            format!("spin.toml does not give this component the key-value store `{LABEL}`")
        }
        Error::Other(reason) => reason,
    })
}

fn enveloped(value: &[u8], end: Timestamp) -> BytesMut {
    let mut sealed = BytesMut::with_capacity(ENVELOPE + value.len());
    sealed.extend_from_slice(&MARK);
    sealed.extend_from_slice(&end.0.to_be_bytes());
    sealed.extend_from_slice(value);
    sealed
}

/// What is readable of a stored value.
fn opened(stored: Bytes, now: Timestamp) -> Option<Bytes> {
    let end = stored
        .strip_prefix(&MARK)
        .and_then(|rest| rest.first_chunk::<{ size_of::<u64>() }>());
    match end {
        None => Some(stored),
        Some(end) if Timestamp(u64::from_be_bytes(*end)) > now => Some(stored.slice(ENVELOPE..)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_readable_until_it_ends() {
        let stored = enveloped(b"value", Timestamp(10)).freeze();
        for (now, readable) in [(9, true), (10, false), (11, false)] {
            let found = opened(stored.clone(), Timestamp(now));
            assert_eq!(found.as_deref(), readable.then_some(b"value".as_slice()));
        }
    }

    #[test]
    fn what_was_written_without_an_envelope_is_read_as_it_is_and_never_ends() {
        for value in ["", "{}", "text"] {
            let found = opened(Bytes::from(value), NEVER);
            assert_eq!(found.as_deref(), Some(value.as_bytes()));
        }
    }

    #[test]
    fn a_value_that_looks_like_an_envelope_is_kept_as_it_is() {
        let odd = enveloped(b"inner", Timestamp(1)).freeze();
        let stored = enveloped(&odd, NEVER).freeze();
        assert_eq!(opened(stored, Timestamp(5)), Some(odd));
    }
}
