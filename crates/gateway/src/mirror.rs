//! Mirrors: copies of calls that only read go to another version of an upstream, to see whether
//! it answers alike.
//!
//! A copy is made after the client's answer is whole, of a tool whose rule says `readOnly` and
//! for nothing else; it takes nothing from that answer and adds nothing to it. What is told of
//! it is one word: `same`, `different` or `error`, never what either version said.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tidegate_mcp::input::ResultType;
use tidegate_mcp::json::Object;
use tidegate_mcp::method::Method;

use crate::config::{Upstream, mirror_key};
use crate::context::Context;
use crate::egress::{self, Event, Reply};
use crate::error::Error;
use crate::platform::{LogLevel, Platform};
use crate::upstream::{self, Declares, Outgoing};

/// Most copies one isolate has under way; what comes meanwhile is not copied.
pub const UNDER_WAY_MAX: u32 = 8;
/// Longest a mirror is waited for: hosts bound what goes on after a response.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Largest result that is compared, in bytes.
pub const COMPARED_MAX: usize = 256 * 1024;

/// What an isolate remembers of copies.
#[derive(Default)]
pub(crate) struct Memory {
    under_way: Rc<Cell<u32>>,
}

/// A copy in the making.
pub(crate) struct Copy<P> {
    context: Context<P>,
    key: String,
    name: String,
    tool: String,
    outgoing: Outgoing,
}

/// The copy of a call, if it is to have one; `tool` is what it calls.
pub(crate) fn copy<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    tool: &str,
    outgoing: &Outgoing,
) -> Option<Copy<P>> {
    let mirror = upstream.mirror.as_ref()?;
    let rule = context.settings.rule(&upstream.name, tool);
    let reads = outgoing.method == Method::ToolsCall && rule.is_some_and(|rule| rule.read_only);
    // State of one version says nothing to another.
    let begins = !outgoing.params.contains("requestState");
    let drawn = || u32::from_be_bytes(context.random()) % 100 < mirror.percent;
    if !reads || !begins || !drawn() {
        return None;
    }
    let mut outgoing = outgoing.clone();
    outgoing.asks = false;
    outgoing.tasks = Declares::Never;
    outgoing.meta.progress_token = None;
    // Its time is its own: what the call had left may be little.
    let timeout = rule.and_then(|rule| rule.timeout_ms);
    let timeout = Duration::from_millis(timeout.unwrap_or(upstream.timeout_ms));
    outgoing.timeout = timeout.min(ANSWER_WITHIN);
    Some(Copy {
        context: context.unhurried(),
        key: mirror_key(&upstream.name),
        name: upstream.name.clone(),
        tool: tool.to_owned(),
        outgoing,
    })
}

impl<P: Platform> Copy<P> {
    /// The reply, which sends the copy off when it has ended well.
    pub(crate) fn after(self, reply: Reply) -> Reply {
        match reply {
            Reply::Result(result) => {
                self.send(&result);
                Reply::Result(result)
            }
            Reply::Stream(events) => {
                let mut copy = Some(self);
                let events = events.inspect(move |event| {
                    if let Event::End(Ok(result)) = event
                        && let Some(copy) = copy.take()
                    {
                        copy.send(result);
                    }
                });
                Reply::Stream(events.boxed_local())
            }
        }
    }

    fn send(self, result: &Object) {
        let under_way = &self.context.memory.mirror.under_way;
        let complete = ResultType::of(result) == ResultType::Complete;
        if !complete || result.text_len() > COMPARED_MAX || under_way.get() >= UNDER_WAY_MAX {
            return;
        }
        let counted = UnderWay::begin(under_way);
        let (expected, platform) = (bare(result), Rc::clone(&self.context.platform));
        platform.defer(async move {
            self.compare(expected).await;
            drop(counted);
        });
    }

    async fn compare(self, expected: Option<Value>) {
        let context = &self.context;
        let Some(version) = context.settings.version(&self.key) else {
            return;
        };
        let began = context.now();
        let reply = upstream::call(context, version, self.outgoing).await;
        let outcome = match egress::whole(reply).await {
            Ok(result) if bare(&result) == expected => "same",
            Ok(_) => "different",
            Err(Error::Rejection(_) | Error::Fault(_)) => "error",
        };
        let took = context.now().since(began);
        let line = json!({
            "event": "mirror", "upstream": self.name, "tool": self.tool, "outcome": outcome,
            "durationMs": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        });
        context.platform.log(LogLevel::Info, &line.to_string());
    }
}

/// A result as it is compared: as a JSON value, without what its server says of itself.
fn bare(result: &Object) -> Option<Value> {
    let mut result = result.clone();
    result.remove("_meta");
    result.remove("resultType");
    serde_json::from_str(result.to_raw().get()).ok()
}

/// One copy under way, for as long as this is kept.
struct UnderWay(Rc<Cell<u32>>);

impl UnderWay {
    fn begin(count: &Rc<Cell<u32>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
