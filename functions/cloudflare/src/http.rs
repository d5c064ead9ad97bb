//! Outbound HTTP: `fetch`.
//!
//! Redirects are given back, not followed. Dropping the pending exchange, or its response's
//! body before the end, aborts it at the upstream.

use http::{HeaderMap, Request, Response, StatusCode, header};
use tidegate_gateway::body::Body;
use tidegate_gateway::hop;
use tidegate_gateway::platform::{HttpClient, HttpError};
use worker::js_sys::{self, Promise, futures::JsFuture};
use worker::wasm_bindgen::{JsCast, JsValue};
use worker::web_sys::{self, AbortController, AbortSignal, WorkerGlobalScope};

use crate::body::{self, Kept};
use crate::headers;
use crate::platform::reason;

/// The runtime's `fetch`.
pub struct Fetch;

impl HttpClient for Fetch {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, HttpError> {
        let global: WorkerGlobalScope = js_sys::global().unchecked_into();
        exchange(request, |raw| Ok(global.fetch_with_request(raw))).await
    }
}

/// Sends `request` through `fetch` and gives the response as soon as its head is there.
pub async fn exchange(
    request: Request<Body>,
    fetch: impl FnOnce(&web_sys::Request) -> Result<Promise, JsValue>,
) -> Result<Response<Body>, HttpError> {
    let exchange = Exchange::open().map_err(not_sent)?;
    let request = outgoing(request, &exchange).map_err(not_sent)?;
    let response = JsFuture::from(fetch(&request).map_err(not_sent)?).await;
    incoming(response.map_err(failed)?.unchecked_into(), exchange)
}

fn not_sent(error: JsValue) -> HttpError {
    HttpError::NotSent(reason(&error))
}

/// The runtime throws a `TypeError` for a request it will not send at all. For the rest it
/// says "connection lost" alike for one that was refused and one that was cut after the
/// request had gone out: only the cautious reading is true of both.
fn failed(error: JsValue) -> HttpError {
    if error.is_instance_of::<js_sys::TypeError>() {
        return not_sent(error);
    }
    HttpError::MaybeSent(reason(&error))
}

/// One exchange under way: dropped before its end, it is aborted.
pub struct Exchange {
    controller: AbortController,
    over: bool,
}

impl Exchange {
    /// An exchange that has not begun.
    pub fn open() -> Result<Self, JsValue> {
        Ok(Self {
            controller: AbortController::new()?,
            over: false,
        })
    }

    /// What tells the runtime that it was aborted.
    pub fn signal(&self) -> AbortSignal {
        self.controller.signal()
    }
}

impl Kept for Exchange {
    fn over(mut self) {
        self.over = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.over {
            self.controller.abort();
        }
    }
}

fn outgoing(request: Request<Body>, exchange: &Exchange) -> Result<web_sys::Request, JsValue> {
    let (mut parts, body) = request.into_parts();
    hop::end_connection(&mut parts.headers);
    // The runtime writes it from the URL.
    parts.headers.remove(header::HOST);
    let init = web_sys::RequestInit::new();
    init.set_method(parts.method.as_str());
    init.set_headers(&headers::write(&parts.headers)?);
    init.set_redirect(web_sys::RequestRedirect::Manual);
    init.set_signal(Some(&exchange.signal()));
    match body {
        // No body and an empty one differ only where a body is expected.
        Body::Full(bytes) if bytes.is_empty() && parts.method.is_safe() => {}
        Body::Full(bytes) => init.set_body(&body::array(&bytes)),
        Body::Stream(chunks) => init.set_body(&body::readable(chunks)),
    }
    web_sys::Request::new_with_str_and_init(&parts.uri.to_string(), &init)
}

fn incoming(raw: web_sys::Response, exchange: Exchange) -> Result<Response<Body>, HttpError> {
    let status =
        StatusCode::from_u16(raw.status()).map_err(|e| HttpError::MaybeSent(e.to_string()))?;
    let mut headers = headers::read(&raw.headers());
    let mut response = Response::new(body::arriving(raw, &headers, exchange));
    hop::end_connection(&mut headers);
    decoded(&mut headers);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// The runtime decodes a compressed body as it is read, but leaves the field that said so.
fn decoded(headers: &mut HeaderMap) {
    headers.remove(header::CONTENT_ENCODING);
}
