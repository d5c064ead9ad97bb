//! A line to one upstream that is kept up: opened, and opened again after it was lost.

use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, LocalBoxStream};
use serde_json::json;
use tidegate_mcp::jsonrpc::Notification;
use tidegate_mcp::subscription::Filter;

use crate::auth::Principal;
use crate::config::Upstream;
use crate::context::Context;
use crate::error::{Error, Rejection};
use crate::platform::{Clock, LogLevel, Platform};
use crate::time::Timestamp;
use crate::upstream::listen::{self, Wish};

/// Longest pause after a line was lost for the first time; each further one doubles it.
pub(super) const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause there is.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A line that held for this long was a good one: whatever ends it is news.
const STEADY: Duration = Duration::from_secs(60);

/// What is heard on a line.
pub(super) enum Step {
    /// It is up, and delivers this.
    Up(Filter),
    /// It could not be opened; that is tried again.
    Down,
    /// Something has changed.
    Changed(Notification),
}

/// What a line is for.
pub(super) struct Line<P> {
    pub(super) context: Context<P>,
    pub(super) principal: Rc<Principal>,
    pub(super) upstream: Upstream,
    /// In the upstream's own names.
    pub(super) wanted: Filter,
    pub(super) until: Timestamp,
}

impl<P: Platform> Line<P> {
    /// What is heard on it, without end.
    pub(super) fn steps(self) -> LocalBoxStream<'static, Step> {
        let kept = Kept {
            line: self,
            open: None,
            losses: 0,
            paused: true,
            anew: false,
        };
        stream::unfold(kept, |mut kept| async move {
            let step = kept.next().await;
            Some((step, kept))
        })
        .boxed_local()
    }
}

struct Kept<P> {
    line: Line<P>,
    open: Option<(LocalBoxStream<'static, Notification>, Timestamp)>,
    /// Since it last was steady.
    losses: u32,
    /// Whether the pause before the next attempt is over.
    paused: bool,
    /// Whether the upstream may have become another.
    anew: bool,
}

impl<P: Platform> Kept<P> {
    async fn next(&mut self) -> Step {
        if let Some((notifications, since)) = &mut self.open {
            if let Some(notification) = notifications.next().await {
                return Step::Changed(notification);
            }
            if self.line.context.now().since(*since) >= STEADY {
                self.losses = 0;
            }
            self.lost();
        }
        if !self.paused {
            let pause = self.pause();
            self.line.context.platform.clock().sleep(pause).await;
            self.paused = true;
        }
        match self.attempt().await {
            Ok(listening) => {
                self.open = Some((listening.notifications, self.line.context.now()));
                self.anew = false;
                Step::Up(listening.honoured)
            }
            Err(error) => {
                self.report(&error);
                self.lost();
                Step::Down
            }
        }
    }

    async fn attempt(&self) -> Result<listen::Listening, Error> {
        let Line {
            context,
            principal,
            upstream,
            wanted,
            until,
        } = &self.line;
        let wish = Wish {
            upstream,
            principal,
            wanted,
            until: *until,
            anew: self.anew,
        };
        listen::listen(context, wish).await
    }

    fn lost(&mut self) {
        self.open = None;
        self.paused = false;
        self.losses = self.losses.saturating_add(1);
    }

    /// Between half of it and all of it, so that those who were lost together do not come
    /// back together.
    fn pause(&self) -> Duration {
        let doubled = PAUSE_MIN.saturating_mul(1 << self.losses.saturating_sub(1).min(16));
        let most = doubled.min(PAUSE_MAX);
        let share = u32::from_be_bytes(self.line.context.random());
        most / 2 + (most / 2).mul_f64(f64::from(share) / f64::from(u32::MAX))
    }

    /// Says it once for each time the line is lost.
    fn report(&mut self, error: &Error) {
        // Whoever refuses or misunderstands may be another server by now; whoever is away
        // is not.
        self.anew = !matches!(
            error,
            Error::Rejection(
                Rejection::UpstreamUnavailable { .. }
                    | Rejection::UpstreamLost { .. }
                    | Rejection::UpstreamTimeout { .. }
            )
        );
        if self.losses == 0 {
            let fields =
                json!({ "upstream": self.line.upstream.name, "reason": error.to_string() });
            let context = &self.line.context;
            context.log(LogLevel::Warn, "upstream_not_listened_to", fields);
        }
    }
}
