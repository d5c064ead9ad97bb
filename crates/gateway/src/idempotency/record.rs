//! What is stored of a call that has a key, and what that means for whoever comes with the
//! same key. Nothing here asks a store.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_mcp::input::is_input_required;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{
    HEADER_MISMATCH, INVALID_REQUEST, METHOD_NOT_FOUND, MISSING_REQUIRED_CLIENT_CAPABILITY,
    PARSE_ERROR, UNSUPPORTED_PROTOCOL_VERSION,
};

use crate::error::{Error, Fault, Rejection};
use crate::keyspace::{Family, Store};
use crate::tasks::record::Failure;
use crate::time::Timestamp;

/// Longest a key may stand for a call.
const WINDOW_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most rounds whose answers are remembered, the last of them.
const ROUNDS_MAX: usize = 32;
/// Largest result that is kept to be given again, in bytes.
pub const REPLAY_MAX: usize = 256 * 1024;

/// The family of [`Record`]: one per principal and key.
pub struct IdempotencyFamily;

impl Family for IdempotencyFamily {
    type Record = Record;
    const NAME: &'static str = "idempotency";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = Some(WINDOW_MAX);
}

/// A call that has a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// Shape of this record.
    pub v: u32,
    /// Digest of tool and arguments.
    pub call: String,
    /// Digest of what the client answered in this round; nothing in the first.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub round: String,
    /// The same of the rounds before: they are not made again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<String>,
    /// Random name of the one who makes it.
    pub run: String,
    /// When it must be over, milliseconds since the epoch: who makes it is lost if not.
    pub until_ms: u64,
    /// Whether another upstream than the tool's own was asked in the end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub elsewhere: bool,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// What came of a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The result.
    Result(Object),
    /// The error its upstream answered with.
    Error(Failure),
    /// A result of so many bytes, which is not kept.
    TooLarge(usize),
    /// It is not known whether it was done.
    Unknown,
    /// It certainly was not done; the key is free again.
    NotDone,
}

impl Outcome {
    /// What there is to keep of an end.
    pub(super) fn of(end: Result<&Object, &Error>) -> Self {
        match end {
            Ok(result) if result.text_len() > REPLAY_MAX => Self::TooLarge(result.text_len()),
            Ok(result) => Self::Result(result.clone()),
            Err(Error::Fault(
                Fault::SecretMissing(_) | Fault::SecretUnread(_) | Fault::NoConfiguration(_),
            )) => Self::NotDone,
            Err(Error::Fault(
                Fault::Dependency(_) | Fault::TaskUnsettled(_) | Fault::Internal(_),
            )) => Self::Unknown,
            Err(Error::Rejection(rejection)) => Self::of_rejection(rejection),
        }
    }

    fn of_rejection(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::Protocol { error, .. } => match error.code {
                // These say that nothing was acted on, and what is wrong may be put right.
                HEADER_MISMATCH
                | INVALID_REQUEST
                | METHOD_NOT_FOUND
                | MISSING_REQUIRED_CLIENT_CAPABILITY
                | PARSE_ERROR
                | UNSUPPORTED_PROTOCOL_VERSION => Self::NotDone,
                _ => Self::Error(error.clone().into()),
            },
            Rejection::UpstreamBusy {
                limited: false,
                asked: true,
                ..
            }
            | Rejection::UpstreamLost { .. }
            | Rejection::UpstreamTimeout { asked: true, .. }
            | Rejection::UpstreamInvalid { asked: true, .. } => Self::Unknown,
            Rejection::NotFound
            | Rejection::AddressNotAllowed
            | Rejection::CountryNotAllowed
            | Rejection::HeadersTooLarge { .. }
            | Rejection::OriginNotAllowed
            | Rejection::HostNotAllowed
            | Rejection::MethodNotAllowed { .. }
            | Rejection::UnsupportedMediaType
            | Rejection::NotAcceptable
            | Rejection::BodyTooLarge { .. }
            | Rejection::BodyInterrupted
            | Rejection::Unauthenticated { .. }
            | Rejection::Denied { .. }
            | Rejection::OtherTenant
            | Rejection::RequestToken { .. }
            | Rejection::UpstreamFull { .. }
            | Rejection::Overloaded
            | Rejection::NoCredentials { .. }
            | Rejection::NotConnected { .. }
            | Rejection::Killed { .. }
            | Rejection::KeyRefused(_)
            | Rejection::InsufficientScope { .. }
            | Rejection::RateLimited { .. }
            | Rejection::QuotaExceeded { .. }
            | Rejection::TooManyTasks { .. }
            | Rejection::SessionUnknown
            | Rejection::UpstreamBusy { .. }
            | Rejection::UpstreamTimeout { .. }
            | Rejection::UpstreamInvalid { .. }
            | Rejection::UpstreamUnavailable { .. }
            | Rejection::UpstreamRefused { .. }
            | Rejection::HeadersRefused { .. }
            | Rejection::UpstreamUnauthorized { .. } => Self::NotDone,
        }
    }
}

/// What is asked under a key.
pub(super) struct Wanted {
    pub(super) call: String,
    pub(super) round: String,
    /// Whether making the call twice does no harm.
    pub(super) harmless: bool,
    /// Whether the tool's upstream would know it again by its key.
    pub(super) known_there: bool,
    /// Whether another may be asked in its place.
    pub(super) falls_back: bool,
}

/// What a record means for whoever comes with its key.
pub(super) enum Standing<'r> {
    /// The call may be made.
    Free,
    /// It is being made.
    Busy(Duration),
    /// It is not made again.
    Settled(Settled<'r>),
}

/// What there is to say of a call that is not made again.
pub(super) enum Settled<'r> {
    /// It has been answered.
    Answered(&'r Object),
    /// It has been refused.
    Failed(&'r Failure),
    /// It has been answered with more than is kept.
    TooLarge(usize),
    /// It may have been made.
    Unknown,
    /// The key stands for another call.
    Other,
}

impl Record {
    /// Whether a call that may have been made may be made again. Who made it and was lost has
    /// not said whom it asked.
    fn is_repeatable(&self, wanted: &Wanted) -> bool {
        let asked_elsewhere = match self.outcome {
            None => self.elsewhere || wanted.falls_back,
            Some(_) => self.elsewhere,
        };
        wanted.harmless || (wanted.known_there && !asked_elsewhere)
    }

    /// Whether the round that is asked has been followed by another.
    fn is_past(&self, wanted: &Wanted) -> bool {
        self.call == wanted.call && self.earlier.contains(&wanted.round)
    }

    /// The rounds before the one that is asked, once that is made.
    pub(super) fn before(&self, wanted: &Wanted) -> Vec<String> {
        if self.call != wanted.call || wanted.round.is_empty() {
            return Vec::new();
        }
        let mut rounds = self.earlier.clone();
        if !self.round.is_empty() && self.round != wanted.round {
            rounds.push(self.round.clone());
        }
        rounds.split_off(rounds.len().saturating_sub(ROUNDS_MAX))
    }

    pub(super) fn standing(&self, wanted: &Wanted, now: Timestamp) -> Standing<'_> {
        let past = self.is_past(wanted);
        if matches!(self.outcome, Some(Outcome::NotDone)) && !past {
            return Standing::Free;
        }
        if self.call != wanted.call {
            return Standing::Settled(Settled::Other);
        }
        let settled = match &self.outcome {
            // The client answers what it was asked.
            Some(Outcome::Result(result))
                if is_input_required(result)
                    && !past
                    && !wanted.round.is_empty()
                    && wanted.round != self.round =>
            {
                return Standing::Free;
            }
            None if now < Timestamp(self.until_ms) => {
                return Standing::Busy(Timestamp(self.until_ms).since(now));
            }
            Some(Outcome::Unknown) | None if !past && self.is_repeatable(wanted) => {
                return Standing::Free;
            }
            // Of the round that follows it.
            Some(Outcome::NotDone) => Settled::Other,
            Some(Outcome::Result(result)) => Settled::Answered(result),
            Some(Outcome::Error(failure)) => Settled::Failed(failure),
            Some(Outcome::TooLarge(bytes)) => Settled::TooLarge(*bytes),
            Some(Outcome::Unknown) | None => Settled::Unknown,
        };
        Standing::Settled(settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_run_elsewhere_is_not_made_again_for_its_own_upstreams_sake() {
        let unknown = Some(Outcome::Unknown);
        for (harmless, known_there, falls_back, elsewhere, outcome, again) in [
            (true, false, true, true, &unknown, true),
            (false, false, false, false, &unknown, false),
            (false, true, false, false, &unknown, true),
            (false, true, true, false, &unknown, true),
            (false, true, true, true, &unknown, false),
            // Lost before it could say.
            (false, true, false, false, &None, true),
            (false, true, true, false, &None, false),
        ] {
            let record = Record {
                v: 1,
                call: "c".to_owned(),
                round: String::new(),
                earlier: Vec::new(),
                run: "r".to_owned(),
                until_ms: 1_000,
                elsewhere,
                outcome: outcome.clone(),
            };
            let wanted = Wanted {
                call: "c".to_owned(),
                round: String::new(),
                harmless,
                known_there,
                falls_back,
            };
            let standing = record.standing(&wanted, Timestamp(2_000));
            let is_free = matches!(standing, Standing::Free);
            assert_eq!(is_free, again, "{record:?}");
        }
    }

    #[test]
    fn a_round_that_was_followed_by_another_is_not_made_again_whatever_came_of_that() {
        let asks = Object::new().with("resultType", "input_required");
        for outcome in [
            Some(Outcome::Result(asks)),
            Some(Outcome::Unknown),
            Some(Outcome::NotDone),
            None,
        ] {
            let mut record = Record {
                v: 1,
                call: "c".to_owned(),
                round: String::new(),
                earlier: Vec::new(),
                run: "r".to_owned(),
                until_ms: 1_000,
                elsewhere: false,
                outcome,
            };
            let wanted = |round: u32| Wanted {
                call: "c".to_owned(),
                round: round.to_string(),
                harmless: true,
                known_there: true,
                falls_back: false,
            };
            let is_free = |record: &Record, round| {
                let standing = record.standing(&wanted(round), Timestamp(2_000));
                matches!(standing, Standing::Free)
            };
            for round in 1..=100 {
                assert!(is_free(&record, round), "{record:?}");
                record.earlier = record.before(&wanted(round));
                record.round = round.to_string();
                let before = round.saturating_sub(32).max(1)..round;
                assert!(before.clone().all(|round| !is_free(&record, round)));
                assert_eq!(record.earlier.len(), before.count());
            }
        }
    }
}
