//! What the calls of all instances say of a canary, where each lives too briefly to tell: one
//! counter of the atomic store, with three counts in it.
//!
//! Its windows do not slide: each begins at a multiple of its length, and what was counted in
//! one says nothing in the next. Every call of the canary adds to it once, after its response;
//! one that cannot be added is not counted. A window that holds [`Sum::PACKED_MAX`] calls and
//! has not condemned the canary is not added to any more.

use std::time::Duration;

use super::Of;
use super::tally::{Seen, Sum};
use crate::config::Rollback;
use crate::context::Context;
use crate::keyspace::{Family, Key, Store, atomic_add};
use crate::platform::Platform;

/// The family of the counters: upstream, canary, its last rollback, window.
pub struct TallyFamily;

impl Family for TallyFamily {
    /// Calls, errors and slow calls, 21 bits each.
    type Record = i64;
    const NAME: &'static str = "tally";
    const STORE: Store = Store::Atomic;
    /// Two of the longest windows.
    const LIFETIME: Option<Duration> = Some(Duration::from_secs(2 * 60 * 60));
}

/// Counts a call; gives what the window holds with it.
pub(super) async fn count<P: Platform>(
    context: &Context<P>,
    upstream: &str,
    of: &Of,
    rule: &Rollback,
    seen: Seen,
) -> Option<Sum> {
    let now = context.now();
    let window = now.0 / rule.window_ms.max(1);
    let full = &context.memory.canary.full;
    if full.get(of) == Some(window) {
        return None;
    }
    let (_, canary, since) = of;
    let key = Key::<TallyFamily>::of(&[upstream, canary, &since.to_string(), &window.to_string()]);
    let kept_until = now + Duration::from_millis(rule.window_ms.saturating_mul(2));
    let added = atomic_add(
        context.platform.atomic(),
        &key,
        seen.sum().packed(),
        kept_until,
    );
    let sum = Sum::unpacked(added.await.ok()?);
    if sum.calls >= Sum::PACKED_MAX {
        full.insert(of.clone(), window);
    }
    Some(sum)
}
