//! Counting by a limiter of the host's own (`counter: native`), where it has one.
//!
//! On Cloudflare that is a rate limiting binding: it counts in each of the network's
//! locations apart, in a window of ten seconds or a minute, and asking it costs no network.
//! It promises to be quick, not to be exact, and states no bound; it says yes or no, and not
//! how much is left, so nothing is told of it in `RateLimit`.
//!
//! Asking counts. What another limit then refuses has been counted here all the same, and a
//! call that counts as several asks as often, at once. A limiter that the host does not have,
//! or that does not answer, leaves the limit to the counter that suits the host.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, join_all, select};

use super::window::Decision;
use super::{LOOK_TIMEOUT, Limit, Method};
use crate::memory::Memory;
use crate::platform::{Clock, Platform, Unavailable};

/// What the host's limiter says of one request; `None` if the limit is not its, or it says
/// nothing.
pub(super) async fn decide<P: Platform>(
    platform: &Rc<P>,
    memory: &Memory,
    limit: &Limit<'_>,
) -> Option<Decision> {
    let Method::Native(binding) = limit.method else {
        return None;
    };
    let asking = (0..limit.cost).map(|_| platform.limiter(binding, limit.subject));
    let asking = pin!(join_all(asking));
    let patience = pin!(platform.clock().sleep(LOOK_TIMEOUT));
    let answers: Result<Vec<bool>, Unavailable> = match select(asking, patience).await {
        Either::Left((answers, _)) => answers.into_iter().collect(),
        Either::Right(_) => Err(Unavailable("no answer in time".to_owned())),
    };
    match answers {
        Ok(answers) if answers.iter().all(|within| *within) => Some(Decision::Admit),
        // It does not say when: after a whole window there is room in any case.
        Ok(_) => Some(Decision::Refuse {
            retry_after: Duration::from_millis(limit.rate.window_ms),
        }),
        Err(error) => {
            let reason = format!("the limiter `{binding}`: {error}");
            memory.limits.complain(platform.as_ref(), &reason);
            None
        }
    }
}
