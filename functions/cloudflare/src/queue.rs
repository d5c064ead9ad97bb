//! The queue: Cloudflare Queues, both ends.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use tidegate_gateway::platform::{Platform, Queue, Unavailable};
use tidegate_gateway::{Consumed, Gateway};
use worker::js_sys::{self, Uint8Array};
use worker::wasm_bindgen::{JsCast, JsValue};
use worker::worker_sys::{Message, MessageBatch};
use worker::{Env, QueueContentType, RawMessageBuilder, console_error};

use crate::body;
use crate::platform::{reason, unavailable};

/// The producer binding's name in `wrangler.toml`.
const BINDING: &str = "TIDEGATE_QUEUE";
/// How the queue that takes given-up messages is named, in every environment.
const DEAD_LETTERS: &str = "-dead";
/// Messages of one batch worked on at once: each waits for a keeper for a second at most.
const CONCURRENT_MAX: usize = 50;
/// Longest delay Cloudflare Queues takes.
const DELAY_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// The port on one queue.
pub struct WorkersQueue {
    env: Env,
}

impl WorkersQueue {
    /// The queue of this deployment.
    pub fn new(env: Env) -> Self {
        Self { env }
    }
}

impl Queue for WorkersQueue {
    async fn send(&self, message: Bytes, delay: Duration) -> Result<(), Unavailable> {
        let queue = self.env.queue(BINDING).map_err(unavailable)?;
        // As text where it is text: the dashboard shows that.
        let (body, kind) = match std::str::from_utf8(&message) {
            Ok(text) => (JsValue::from_str(text), QueueContentType::Text),
            Err(_) => (body::array(&message).into(), QueueContentType::V8),
        };
        let message = RawMessageBuilder::new(body).delay_seconds(delay_seconds(delay));
        queue
            .send_raw(message.build_with_content_type(kind))
            .await
            .map_err(unavailable)
    }
}

/// Rounded up to what Cloudflare Queues counts in.
fn delay_seconds(delay: Duration) -> u32 {
    let delay = delay.min(DELAY_MAX);
    let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Hands every message of a batch to the gateway and settles each on its own.
pub async fn consume<P: Platform>(gateway: &Gateway<P>, batch: &MessageBatch) {
    let dead = batch
        .queue()
        .is_ok_and(|name| String::from(name).ends_with(DEAD_LETTERS));
    let Ok(messages) = batch.messages() else {
        return;
    };
    stream::iter(messages.iter())
        .for_each_concurrent(CONCURRENT_MAX, |message| async move {
            let message: Message = message.unchecked_into();
            let Ok(body) = message.body() else { return };
            let body = read(body);
            let consumed = match dead {
                true => gateway.consume_dead(&body).await,
                false => gateway.consume(&body).await,
            };
            let settled = match consumed {
                Consumed::Done => message.ack(),
                Consumed::Retry { after } => message.retry(retry_options(after)),
            };
            if let Err(error) = settled {
                console_error!(
                    "a queue message could not be settled and will come again: {}",
                    reason(&error)
                );
            }
        })
        .await;
}

/// A message's bytes, however it was sent: by this function, by a person in the dashboard
/// (JSON), or by an older deployment.
fn read(body: JsValue) -> Bytes {
    if body.is_string()
        || body.is_instance_of::<Uint8Array>()
        || body.is_instance_of::<js_sys::ArrayBuffer>()
    {
        return body::bytes(body);
    }
    let text = js_sys::JSON::stringify(&body)
        .ok()
        .and_then(|text| text.as_string());
    text.map(Bytes::from).unwrap_or_default()
}

fn retry_options(after: Duration) -> JsValue {
    let options = js_sys::Object::new();
    let seconds = JsValue::from_f64(f64::from(delay_seconds(after)));
    match js_sys::Reflect::set(&options, &JsValue::from_str("delaySeconds"), &seconds) {
        Ok(_) => options.into(),
        Err(_) => JsValue::UNDEFINED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_whole_seconds_rounded_up_and_bounded() {
        for (millis, seconds) in [(0, 0), (1, 1), (1_000, 1), (1_001, 2), (u64::MAX, 43_200)] {
            assert_eq!(
                delay_seconds(Duration::from_millis(millis)),
                seconds,
                "{millis} ms"
            );
        }
    }
}
