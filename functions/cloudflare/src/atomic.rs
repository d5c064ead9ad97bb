//! The atomic store: one Durable Object per key, addressed by the key.
//!
//! This is the caller's side: it sends one [`Operation`] to the object and reads what it
//! came to. The object itself, and why this is linearizable, is in [`crate::cell`].

use std::time::Duration;

use bytes::Bytes;
use tidegate_gateway::platform::{AtomicStore, Swap, Unavailable, Version, WAIT_MAX};
use tidegate_gateway::time::Timestamp;
use worker::js_sys::Uint8Array;
use worker::wasm_bindgen::JsValue;
use worker::{Env, Response, web_sys};

use crate::body::Kept;
use crate::http::Exchange;
use crate::platform::{reason, unavailable};

/// The binding's name in `wrangler.toml`.
const BINDING: &str = "TIDEGATE_ATOMIC";

/// An operation is the path of a request to the object; a host is needed for form alone.
const ORIGIN: &str = "https://cell";

/// The state of a record that is not there.
const ABSENT: &str = "-";

/// Response header that carries a record's version.
pub const VERSION: &str = "version";

/// Statuses the object answers with.
pub mod status {
    /// Done; the body or the version header says what came of it.
    pub const DONE: u16 = 200;
    /// There is no record, or it has expired.
    pub const ABSENT: u16 = 404;
    /// The record was not as expected.
    pub const CONFLICT: u16 = 412;
}

/// What is asked of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Read the record.
    Get,
    /// Read the record once it is no longer in a state.
    Wait {
        /// The state; `None`: absent.
        seen: Option<Version>,
        /// After how long it is read as it is.
        within: Duration,
    },
    /// Replace the record; the new value is the request's body.
    Swap {
        /// The state it must be in; `None`: absent.
        expected: Option<Version>,
        /// When the new value expires.
        expires_at: Timestamp,
    },
    /// Add to the counter.
    Add {
        /// How much.
        delta: i64,
        /// When it expires, if this creates it.
        expires_at: Timestamp,
    },
}

impl Operation {
    /// The operation as a path.
    pub fn path(self) -> String {
        match self {
            Self::Get => "/get".to_owned(),
            Self::Wait { seen, within } => {
                format!("/wait/{}/{}", state(seen), within.as_millis())
            }
            Self::Swap {
                expected,
                expires_at,
            } => format!("/swap/{}/{}", state(expected), expires_at.0),
            Self::Add { delta, expires_at } => format!("/add/{delta}/{}", expires_at.0),
        }
    }

    /// Reads [`Self::path`] back.
    pub fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        match parts[..] {
            ["get"] => Some(Self::Get),
            ["wait", seen, within] => Some(Self::Wait {
                seen: parse_state(seen)?,
                within: Duration::from_millis(within.parse().ok()?),
            }),
            ["swap", expected, expires_at] => Some(Self::Swap {
                expected: parse_state(expected)?,
                expires_at: Timestamp(expires_at.parse().ok()?),
            }),
            ["add", delta, expires_at] => Some(Self::Add {
                delta: delta.parse().ok()?,
                expires_at: Timestamp(expires_at.parse().ok()?),
            }),
            _ => None,
        }
    }
}

/// A record's state in a path.
fn state(version: Option<Version>) -> String {
    version.map_or_else(|| ABSENT.to_owned(), |Version(version)| version.to_string())
}

fn parse_state(text: &str) -> Option<Option<Version>> {
    if text == ABSENT {
        return Some(None);
    }
    text.parse().ok().map(|version| Some(Version(version)))
}

/// The port on the namespace of cells.
pub struct Cells {
    env: Env,
}

impl Cells {
    /// The cells of this deployment.
    pub fn new(env: Env) -> Self {
        Self { env }
    }

    async fn ask(
        &self,
        key: &str,
        operation: Operation,
        value: Option<&[u8]>,
    ) -> Result<Response, Unavailable> {
        let init = web_sys::RequestInit::new();
        if let Some(value) = value {
            init.set_method("PUT");
            init.set_body(&Uint8Array::from(value));
        }
        self.send(key, operation, &init).await
    }

    async fn send(
        &self,
        key: &str,
        operation: Operation,
        init: &web_sys::RequestInit,
    ) -> Result<Response, Unavailable> {
        let cell = self
            .env
            .durable_object(BINDING)
            .and_then(|cells| cells.get_by_name(key))
            .map_err(unavailable)?;
        let url = format!("{ORIGIN}{}", operation.path());
        let request = web_sys::Request::new_with_str_and_init(&url, init).map_err(unavailable)?;
        let response = cell
            .fetch_with_request(request.into())
            .await
            .map_err(unavailable)?;
        match response.status_code() {
            status::DONE | status::ABSENT | status::CONFLICT => Ok(response),
            other => Err(Unavailable(format!("the cell answered {other}"))),
        }
    }
}

/// The record an answer shows.
async fn record(mut response: Response) -> Result<Option<(Version, Bytes)>, Unavailable> {
    if response.status_code() == status::ABSENT {
        return Ok(None);
    }
    let version = version(&response)?;
    let value = response.bytes().await.map_err(unavailable)?;
    Ok(Some((version, Bytes::from(value))))
}

impl AtomicStore for Cells {
    async fn get(&self, key: &str) -> Result<Option<(Version, Bytes)>, Unavailable> {
        record(self.ask(key, Operation::Get, None).await?).await
    }

    async fn wait(
        &self,
        key: &str,
        seen: Option<Version>,
        within: Duration,
    ) -> Result<Option<(Version, Bytes)>, Unavailable> {
        let within = within.min(WAIT_MAX);
        // Dropped before its end, it tells the cell to forget who waits.
        let exchange = Exchange::open().map_err(unavailable)?;
        let init = web_sys::RequestInit::new();
        init.set_signal(Some(&exchange.signal()));
        let waited = self
            .send(key, Operation::Wait { seen, within }, &init)
            .await;
        let found = match waited {
            Ok(response) => record(response).await,
            Err(error) => Err(error),
        };
        exchange.over();
        found
    }

    async fn swap(
        &self,
        key: &str,
        expected: Option<Version>,
        value: Bytes,
        expires_at: Timestamp,
    ) -> Result<Swap, Unavailable> {
        let response = self
            .ask(
                key,
                Operation::Swap {
                    expected,
                    expires_at,
                },
                Some(&value),
            )
            .await?;
        match response.status_code() {
            status::CONFLICT => Ok(Swap::Conflict),
            _ => Ok(Swap::Done(version(&response)?)),
        }
    }

    async fn add(&self, key: &str, delta: i64, expires_at: Timestamp) -> Result<i64, Unavailable> {
        let mut response = self
            .ask(key, Operation::Add { delta, expires_at }, None)
            .await?;
        let sum = response.text().await.map_err(unavailable)?;
        sum.parse()
            .map_err(|_| Unavailable("the cell answered no number".to_owned()))
    }
}

fn version(response: &Response) -> Result<Version, Unavailable> {
    let text = response
        .headers()
        .get(VERSION)
        .map_err(|e| Unavailable(reason(&JsValue::from(e))))?;
    text.and_then(|text| text.parse().ok())
        .map(Version)
        .ok_or_else(|| Unavailable("the cell answered no version".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_reads_back_from_its_path() {
        let expires_at = Timestamp(u64::MAX);
        for operation in [
            Operation::Get,
            Operation::Wait {
                seen: None,
                within: Duration::ZERO,
            },
            Operation::Wait {
                seen: Some(Version(1)),
                within: Duration::from_millis(u64::MAX),
            },
            Operation::Swap {
                expected: None,
                expires_at,
            },
            Operation::Swap {
                expected: Some(Version(u64::MAX)),
                expires_at,
            },
            Operation::Add {
                delta: i64::MIN,
                expires_at,
            },
        ] {
            assert_eq!(Operation::parse(&operation.path()), Some(operation));
        }
    }

    #[test]
    fn nothing_else_is_an_operation() {
        for path in [
            "",
            "/",
            "/get/",
            "/wait/-",
            "/wait//1",
            "/swap/1",
            "/swap/x/1",
            "/add/1.5/1",
            "/add/1/-1",
            "/drop",
        ] {
            assert_eq!(Operation::parse(path), None, "{path}");
        }
    }
}
