//! What every stage of a request stands on: the platform, the isolate's memory, and the
//! settings in force when the request began.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{self, Either};

use crate::credentials::Caller;
use crate::ingress::Peer;
use crate::memory::Memory;
use crate::platform::{Clock, LogLevel, Platform};
use crate::settings::Settings;
use crate::time::Timestamp;

/// Cheap to clone; streams that outlive the request own a clone.
pub struct Context<P> {
    /// The ports.
    pub platform: Rc<P>,
    /// Isolate-local hints.
    pub memory: Rc<Memory>,
    /// The configuration in force.
    pub settings: Rc<Settings>,
    /// What the host knows of the connection; nothing where there is none.
    pub peer: Rc<Peer>,
    /// When the call at hand must have been answered, upstreams and all.
    pub deadline: Option<Timestamp>,
    /// Who is asking, for upstreams that are shown credentials of the caller's; nobody
    /// where no request is being answered.
    pub caller: Option<Rc<Caller>>,
}

impl<P> Clone for Context<P> {
    fn clone(&self) -> Self {
        Self {
            platform: Rc::clone(&self.platform),
            memory: Rc::clone(&self.memory),
            settings: Rc::clone(&self.settings),
            peer: Rc::clone(&self.peer),
            deadline: self.deadline,
            caller: self.caller.clone(),
        }
    }
}

impl<P: Platform> Context<P> {
    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.platform.clock().now()
    }

    /// For one call, whose time begins now.
    pub fn hurried(&self) -> Self {
        let total = self.settings.config.limits.request_timeout_ms;
        Self {
            deadline: total.map(|total| self.now() + Duration::from_millis(total)),
            ..self.clone()
        }
    }

    /// For what goes on after the call, or waits for a person.
    pub fn unhurried(&self) -> Self {
        Self {
            deadline: None,
            ..self.clone()
        }
    }

    /// As much of `timeout` as the call at hand has left.
    pub fn within(&self, timeout: Duration) -> Duration {
        match self.deadline {
            None => timeout,
            Some(deadline) => timeout.min(deadline.since(self.now())),
        }
    }

    /// `work`, or `None` when `deadline` comes first; the work is then dropped.
    pub async fn until<T>(&self, deadline: Timestamp, work: impl Future<Output = T>) -> Option<T> {
        let left = deadline.since(self.now());
        if left == Duration::ZERO {
            return None;
        }
        let sleep = self.platform.clock().sleep(left);
        match future::select(Box::pin(work), Box::pin(sleep)).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(((), _)) => None,
        }
    }

    /// `N` random bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.platform.random(&mut bytes);
        bytes
    }

    /// Writes a line of the operator's log, if they want lines this urgent.
    pub fn log(&self, level: LogLevel, event: &str, fields: serde_json::Value) {
        if !self.settings.logs(level) {
            return;
        }
        let mut line = serde_json::json!({ "event": event });
        if let (Some(line), serde_json::Value::Object(fields)) = (line.as_object_mut(), fields) {
            line.extend(fields);
        }
        self.platform.log(level, &line.to_string());
    }
}
