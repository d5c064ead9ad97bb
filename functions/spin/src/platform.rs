//! The ports, gathered. None of them holds anything: what is opened once lives as long as
//! the instance.

use std::future::Future;

use spin_sdk::variables::{self, Error};
use spin_sdk::wasip3::spawn;
use tidegate_gateway::platform::{LogLevel, NoKeeper, Platform, Secret, Unavailable};

use crate::atomic::Records;
use crate::clock::WasiClock;
use crate::http::Outbound;
use crate::kv::SpinKv;
use crate::outbox::Outbox;

/// Everything this host gives the gateway.
pub struct Host;

impl Platform for Host {
    type Kv = SpinKv;
    type Atomic = Records;
    type Http = Outbound;
    type Queue = Outbox;
    // An instance lives for a moment, and nothing leads a request to a certain one.
    type Keeper = NoKeeper;
    type Clock = WasiClock;

    fn kv(&self) -> &Self::Kv {
        &SpinKv
    }

    fn atomic(&self) -> &Self::Atomic {
        &Records
    }

    fn http(&self) -> &Self::Http {
        &Outbound
    }

    fn queue(&self) -> &Self::Queue {
        &Outbox
    }

    fn keeper(&self) -> Option<&Self::Keeper> {
        None
    }

    fn clock(&self) -> &Self::Clock {
        &WasiClock
    }

    /// An instance ends after 128 requests, or an idle second.
    fn is_short_lived(&self) -> bool {
        true
    }

    fn random(&self, out: &mut [u8]) {
        if getrandom::fill(out).is_err() {
            // Going on would make guessable keys and identifiers. This ends the instance.
            std::process::abort();
        }
    }

    /// A Spin variable: its name is the secret's in small letters, since Spin allows no
    /// others. An empty one is not set: that is how `spin.toml` says it may be left out.
    async fn secret(&self, name: &str) -> Result<Option<Secret>, Unavailable> {
        found(name, variables::get(name.to_ascii_lowercase()).await)
    }

    fn defer(&self, work: impl Future<Output = ()> + 'static) {
        spawn(work);
    }

    fn log(&self, level: LogLevel, line: &str) {
        let level = match level {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        };
        eprintln!("{level} {line}");
    }
}

/// What is known of a secret. A provider that failed has not said that it is not set.
fn found(name: &str, told: Result<String, Error>) -> Result<Option<Secret>, Unavailable> {
    match told {
        Ok(value) => Ok((!value.is_empty()).then(|| Secret::new(value))),
        Err(Error::Undefined(_) | Error::InvalidName(_)) => Ok(None),
        Err(Error::Provider(why) | Error::Other(why)) => Err(Unavailable(format!("{name}: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_defined_is_not_set() {
        let found = |told| found("A_TOKEN", told);
        let set = found(Ok("it".to_owned())).unwrap();
        assert!(set.is_some_and(|secret| secret.expose() == "it"));
        for absent in [
            Ok(String::new()),
            Err(Error::Undefined("a_token".to_owned())),
            Err(Error::InvalidName("a_token".to_owned())),
        ] {
            assert!(found(absent).unwrap().is_none());
        }
        for failed in [
            Error::Provider("503".to_owned()),
            Error::Other("503".to_owned()),
        ] {
            let error = found(Err(failed)).err().unwrap();
            assert_eq!(error.0, "A_TOKEN: 503");
        }
    }
}
