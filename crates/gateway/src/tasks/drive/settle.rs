//! The end of a run: its outcome stored, the run given back to be begun again, or ended with
//! what the client is asked. Its last write is tried for as long as nobody else may decide.

use std::time::Duration;

use serde_json::json;
use tidegate_mcp::input::{InputRequired, is_input_required};
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{INTERNAL_ERROR, RpcError};
use tidegate_mcp::task::TaskStatus;

use super::Run;
use crate::error::{Error, Rejection};
use crate::platform::{Clock, LogLevel, Platform};
use crate::queue::Consumed;
use crate::quotas;
use crate::tasks::ASKED_MAX;
use crate::tasks::record::{Outcome, Record};
use crate::tasks::run::{ATTEMPTS_MAX, STORE_PAUSE, pause, repeatable, report};
use crate::tasks::store::{self, RESULT_MAX};
use crate::time::Timestamp;

/// Most rounds of questions one task may take.
const ROUNDS_MAX: u32 = 32;

impl<P: Platform> Run<P> {
    /// Stores what came of the call, or sees to it that it goes on.
    pub(super) async fn settle(self, end: Result<Object, Error>) -> Consumed {
        let size = end.as_ref().map_or(0, Object::text_len);
        let outcome = match end {
            Ok(result) if is_input_required(&result) => return self.suspend(&result).await,
            Ok(result) if result.text_len() > RESULT_MAX => Outcome::Error(
                RpcError::new(
                    INTERNAL_ERROR,
                    format!("The tool's result is larger than {RESULT_MAX} bytes."),
                )
                .into(),
            ),
            Ok(result) => match self.keep(&result).await {
                Some(outcome) => outcome,
                None => return self.lost(),
            },
            Err(error) => match self.again(&error) {
                Some(after) => return self.release(after).await,
                None => {
                    if let Error::Fault(fault) = &error {
                        let fields = json!({ "task": self.id, "reason": fault.to_string() });
                        self.context.log(LogLevel::Error, "fault", fields);
                    }
                    Outcome::Error(error.response(&self.id).error.into())
                }
            },
        };
        self.end(outcome, size).await
    }

    /// What to store of a result; `None` if it cannot be, for as long as nobody else decides.
    async fn keep(&self, result: &Object) -> Option<Outcome> {
        let expiry = self.known.1.expiry();
        loop {
            let kept = store::keep(&self.context, &self.id, &self.run, expiry, result).await;
            match kept {
                Ok(outcome) => return Some(outcome),
                Err(_) if self.context.now() < self.lapses() => {
                    self.context.platform.clock().sleep(STORE_PAUSE).await;
                }
                Err(_) => return None,
            }
        }
    }

    /// After how long the call is made again, if it may be.
    fn again(&self, error: &Error) -> Option<Duration> {
        let record = &self.known.1;
        let pause = pause(record.attempts);
        match error {
            Error::Rejection(
                Rejection::UpstreamUnavailable { retry_after, .. }
                | Rejection::UpstreamBusy { retry_after, .. },
            ) if error.is_not_taken() => {
                let after = retry_after.unwrap_or_default().max(pause);
                (record.attempts < ATTEMPTS_MAX).then_some(after)
            }
            error if error.is_not_taken() => (record.attempts < ATTEMPTS_MAX).then_some(pause),
            Error::Rejection(Rejection::UpstreamLost { .. }) => repeatable(record).then_some(pause),
            Error::Rejection(_) | Error::Fault(_) => None,
        }
    }

    fn lapses(&self) -> Timestamp {
        let lease = self.known.1.lease.as_ref();
        Timestamp(lease.map_or(0, |lease| lease.until_ms))
    }

    /// The run's last write, tried for as long as nobody else decides. Gives the record as
    /// it is then, and whether it ended by this.
    async fn close(&self, change: impl Fn(&mut Record, Timestamp)) -> Result<Closed, Error> {
        let now = self.context.now();
        let mut ours = false;
        loop {
            let known = Some(self.known.clone());
            let edited = store::edit(&self.context, &self.id, known, |record| {
                let still = record.is_run_by(&self.run);
                if still {
                    // Which may not be written yet: the next run must not make the call again.
                    record.upstream_task.clone_from(&self.following);
                    change(record, now);
                }
                ours |= still;
                still
            })
            .await;
            match edited {
                Ok(found) => {
                    let record = found.map(|(_, record)| record);
                    // A write that failed may have been another's chance.
                    let ended = record.as_ref().is_some_and(|record| record.ended_at(now));
                    return Ok(Closed {
                        record,
                        ended: ours && ended,
                    });
                }
                Err(e) if self.context.now() >= self.lapses() => return Err(e),
                Err(_) => self.context.platform.clock().sleep(STORE_PAUSE).await,
            }
        }
    }

    /// `size` is that of the tool's result, in bytes.
    async fn end(self, outcome: Outcome, size: usize) -> Consumed {
        let end = |record: &mut Record, now| {
            record.end(outcome.clone(), now);
        };
        match self.close(end).await {
            Ok(Closed {
                record: Some(record),
                ended: true,
            }) => {
                report(&self.context, &self.id, &record);
                let tool = (record.upstream.as_str(), record.tool.as_str());
                quotas::settle_task(&self.context, &record.charges, tool, size);
                Consumed::Done
            }
            Ok(_) => Consumed::Done,
            Err(_) => self.lost(),
        }
    }

    /// What came of the run could not be stored; in time its lease lapses.
    fn lost(&self) -> Consumed {
        let fields = json!({ "task": self.id });
        self.context
            .log(LogLevel::Error, "task_outcome_lost", fields);
        Consumed::Retry { after: STORE_PAUSE }
    }

    /// Gives the run back, to be begun again after this long.
    async fn release(self, after: Duration) -> Consumed {
        let put_off = |record: &mut Record, now| record.put_off(after, now);
        match self.close(put_off).await {
            Ok(closed) if closed.is_over() => Consumed::Done,
            Ok(_) => Consumed::Retry { after },
            Err(_) => self.lost(),
        }
    }

    /// Ends the run with what a modern upstream asks; the answer begins the next.
    async fn suspend(self, result: &Object) -> Consumed {
        let failed = |reason| Outcome::Error(RpcError::new(INTERNAL_ERROR, reason).into());
        if self.known.1.rounds >= ROUNDS_MAX {
            let reason = format!("The tool asked for input more than {ROUNDS_MAX} times.");
            return self.end(failed(reason), 0).await;
        }
        let asked = match InputRequired::parse(result) {
            Ok(asked) => asked,
            Err(error) => {
                let reason =
                    format!("The tool asks for input in a way nobody understands: {error}");
                return self.end(failed(reason), 0).await;
            }
        };
        if result.text_len() > ASKED_MAX {
            let reason = format!("The tool asks for more than {ASKED_MAX} bytes can say.");
            return self.end(failed(reason), 0).await;
        }
        let object = |request| Object::from_raw(request).unwrap_or_default();
        let requests = asked.input_requests.iter();
        let requests: Vec<_> = requests
            .map(|(key, request)| (key.to_owned(), object(request)))
            .collect();
        let suspend = |record: &mut Record, now| {
            record.suspend(requests.clone(), asked.request_state.clone(), now);
        };
        match self.close(suspend).await {
            // It only wants to be asked again.
            Ok(closed) if closed.is_ready() => Consumed::Retry { after: pause(1) },
            Ok(_) => Consumed::Done,
            Err(_) => self.lost(),
        }
    }
}

/// What a run leaves.
struct Closed {
    record: Option<Record>,
    /// Whether this run ended it.
    ended: bool,
}

impl Closed {
    fn is_over(&self) -> bool {
        self.record
            .as_ref()
            .is_none_or(|record| record.status.is_terminal())
    }

    fn is_ready(&self) -> bool {
        let record = self.record.as_ref();
        record.is_some_and(|record| record.status == TaskStatus::Working && record.lease.is_none())
    }
}
