//! From what came of a call to an HTTP response, in the client's era.
//!
//! A stream is committed to as late as possible: the first notification, or
//! [`STREAM_AFTER`] without an answer. Until then an error can still carry its own status.
//! Chunks are passed on as they come; a quiet stream is kept alive with comments.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{self, Either, LocalBoxFuture};
use futures_util::stream::{self, LocalBoxStream, Stream};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;
use tidegate_mcp::era;
use tidegate_mcp::input::ResultType;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{self, Notification, Request, RequestId, RpcError};
use tidegate_mcp::meta;
use tidegate_mcp::method::Method;
use tidegate_mcp::sse;
use tidegate_mcp::version::{Era, ProtocolVersion};

use crate::audit::Pending;
use crate::body::Body;
use crate::context::Context;
use crate::error::{Error, Rejection};
use crate::platform::{Clock, LogLevel, Platform};
use crate::upstream::SESSION_ID;

/// Without an answer for this long, a client that takes streams gets one.
pub const STREAM_AFTER: Duration = Duration::from_secs(5);
/// A quiet stream carries a comment this often.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What came of a call, in modern form.
pub enum Reply {
    /// The whole result.
    Result(Object),
    /// Notifications, then the end.
    Stream(LocalBoxStream<'static, Event>),
}

/// One step of a streamed reply.
pub enum Event {
    /// Something that belongs to the call and comes before its end.
    Notification(Notification),
    /// The upstream asks the client something, and goes on once that is answered. Only
    /// what the client declared is ever asked.
    Question(Question),
    /// A request to a legacy client, on the stream of its own call.
    Request(Request),
    /// The end; nothing follows.
    End(Result<Object, Error>),
}

/// What an upstream asks the client, and the way back for the answer.
pub struct Question {
    /// `elicitation/create`, `sampling/createMessage` or `roots/list`.
    pub method: String,
    /// Its params.
    pub params: Object,
    /// Takes the answer to whoever asked.
    pub reply: Box<dyn FnOnce(Answered) -> LocalBoxFuture<'static, ()>>,
}

/// What a client says to a question: the bare result, or why it gives none.
pub type Answered = Result<Object, RpcError>;

impl Question {
    /// Answers it for a client that cannot be asked.
    pub async fn refuse(self) {
        let reason = "The client behind this gateway cannot be asked this.";
        (self.reply)(Err(RpcError::new(jsonrpc::METHOD_NOT_FOUND, reason))).await;
    }
}

/// The work of answering one call; owns what it needs, so that it can outlive the request
/// handler inside a response body.
pub type Dispatch = LocalBoxFuture<'static, Result<Reply, Error>>;

/// What the answer to one call must agree with.
#[derive(Clone)]
pub struct Asked {
    /// The client's request id.
    pub id: RequestId,
    /// The method it called.
    pub method: Method,
    /// The revision it speaks.
    pub version: ProtocolVersion,
    /// Whether it takes an event stream.
    pub streams: bool,
    /// The id of the session this call has opened.
    pub session: Option<HeaderValue>,
}

/// Answers one call.
pub async fn respond<P: Platform>(
    context: &Context<P>,
    asked: Asked,
    dispatch: Dispatch,
    audit: Pending<P>,
) -> Response<Body> {
    let opened = asked.session.clone();
    let mut response = answered(context, asked, dispatch, audit).await;
    if let Some(id) = opened.filter(|_| response.status().is_success()) {
        response.headers_mut().insert(SESSION_ID, id);
    }
    response
}

async fn answered<P: Platform>(
    context: &Context<P>,
    asked: Asked,
    dispatch: Dispatch,
    audit: Pending<P>,
) -> Response<Body> {
    if !asked.streams {
        let outcome = whole(dispatch.await).await;
        return settled(context, &asked, outcome, audit);
    }
    let patience = Box::pin(context.platform.clock().sleep(STREAM_AFTER));
    match future::select(dispatch, patience).await {
        Either::Left((Ok(Reply::Stream(events)), _)) => event_stream(context, asked, events, audit),
        Either::Left((Ok(Reply::Result(result)), _)) => settled(context, &asked, Ok(result), audit),
        Either::Left((Err(error), _)) => settled(context, &asked, Err(error), audit),
        Either::Right(((), dispatch)) => event_stream(context, asked, events(dispatch), audit),
    }
}

/// The answer to one call as events on a stream it shares with others.
pub(crate) fn on_stream<P: Platform>(
    context: &Context<P>,
    asked: Asked,
    dispatch: Dispatch,
    audit: Pending<P>,
) -> LocalBoxStream<'static, Bytes> {
    encoded(context.clone(), asked, events(dispatch), audit).boxed_local()
}

/// Everything that comes of a call, as it comes.
pub(crate) fn events(dispatch: Dispatch) -> LocalBoxStream<'static, Event> {
    let events = stream::once(dispatch).flat_map(|outcome| match outcome {
        Ok(Reply::Stream(events)) => events,
        Ok(Reply::Result(result)) => stream::iter([Event::End(Ok(result))]).boxed_local(),
        Err(error) => stream::iter([Event::End(Err(error))]).boxed_local(),
    });
    events.boxed_local()
}

/// The end of a reply whose notifications nobody can be told.
pub async fn whole(outcome: Result<Reply, Error>) -> Result<Object, Error> {
    match outcome? {
        Reply::Result(result) => Ok(result),
        Reply::Stream(mut events) => loop {
            match events.next().await {
                Some(Event::Notification(_) | Event::Request(_)) => {}
                Some(Event::Question(question)) => question.refuse().await,
                Some(Event::End(end)) => return end,
                None => {
                    return Err(crate::error::Fault::Internal(
                        "a reply ended without its end".to_owned(),
                    )
                    .into());
                }
            }
        },
    }
}

/// A whole answer.
pub fn settled<P: Platform>(
    context: &Context<P>,
    asked: &Asked,
    outcome: Result<Object, Error>,
    audit: Pending<P>,
) -> Response<Body> {
    match outcome {
        Ok(result) => {
            let text = success(context, asked, result, audit);
            json_response(StatusCode::OK, text)
        }
        Err(error) => failure(context, Some(asked), &error, audit),
    }
}

/// The JSON-RPC response of a result, in the client's era; ends the audit record.
pub fn success<P: Platform>(
    context: &Context<P>,
    asked: &Asked,
    result: Object,
    audit: Pending<P>,
) -> String {
    let label = match ResultType::of(&result) {
        ResultType::InputRequired => "input_required",
        ResultType::Task => "task",
        ResultType::Complete
            if result
                .get("isError")
                .is_some_and(|flag| flag.get() == "true") =>
        {
            "tool_error"
        }
        ResultType::Complete | ResultType::Other(_) => "ok",
    };
    let result = match asked.version.era() {
        Era::Modern => with_server_info(context, result),
        Era::Legacy => era::lower_result(asked.method.as_str(), result, asked.version),
    };
    audit.finish(label);
    jsonrpc::Response {
        id: Some(asked.id.clone()),
        outcome: Ok(result),
    }
    .to_json()
}

/// An error's response: its JSON-RPC form in the client's era, its status and headers.
pub fn failure<P: Platform>(
    context: &Context<P>,
    asked: Option<&Asked>,
    error: &Error,
    mut audit: Pending<P>,
) -> Response<Body> {
    let correlation_id = audit.record.correlation_id.clone();
    report(context, error, &correlation_id);
    let told = error.response(&correlation_id);
    audit.record.error_code = Some(told.error.code);
    audit.stopped(error);
    audit.finish(error.label());
    let id = asked
        .map(|asked| asked.id.clone())
        .or_else(|| error.request_id());
    let legacy = asked.filter(|asked| asked.version.era() == Era::Legacy);
    let (status, rpc) = match legacy {
        // Clients of these revisions read a JSON-RPC error only under 200, and take 404
        // for an expired session.
        Some(asked) => (
            legacy_status(error, told.status),
            era::lower_error(asked.method.as_str(), told.error),
        ),
        None => (told.status, told.error),
    };
    let body = jsonrpc::Response {
        id,
        outcome: Err(rpc),
    }
    .to_json();
    let mut response = json_response(status, body);
    response.headers_mut().extend(told.headers);
    response
}

/// The JSON-RPC error alone, for the end of a stream or a member of a batch.
pub fn error_message<P: Platform>(
    context: &Context<P>,
    asked: &Asked,
    error: &Error,
    mut audit: Pending<P>,
) -> String {
    let correlation_id = audit.record.correlation_id.clone();
    report(context, error, &correlation_id);
    let rpc: RpcError = error.response(&correlation_id).error;
    audit.record.error_code = Some(rpc.code);
    audit.stopped(error);
    audit.finish(error.label());
    let rpc = match asked.version.era() {
        Era::Modern => rpc,
        Era::Legacy => era::lower_error(asked.method.as_str(), rpc),
    };
    jsonrpc::Response {
        id: Some(asked.id.clone()),
        outcome: Err(rpc),
    }
    .to_json()
}

fn report<P: Platform>(context: &Context<P>, error: &Error, correlation_id: &str) {
    if let Error::Fault(fault) = error {
        let fields = json!({ "correlationId": correlation_id, "reason": fault.to_string() });
        context.log(LogLevel::Error, "fault", fields);
    }
}

const fn legacy_status(error: &Error, status: StatusCode) -> StatusCode {
    match (error, status) {
        (Error::Rejection(Rejection::SessionUnknown), _)
        | (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) => {
            status
        }
        _ => StatusCode::OK,
    }
}

fn with_server_info<P: Platform>(context: &Context<P>, mut result: Object) -> Object {
    let mut carried = match result.get_object("_meta") {
        Some(Ok(carried)) => carried,
        Some(Err(_)) | None => Object::default(),
    };
    carried.insert(
        meta::SERVER_INFO,
        &crate::discover::server_info(&context.settings),
    );
    result.insert("_meta", &carried);
    result
}

/// An error's response where no call is known that it could answer.
pub fn refusal(error: &Error, correlation_id: &str) -> Response<Body> {
    let told = error.response(correlation_id);
    let mut response = json_response(
        told.status,
        jsonrpc::Response {
            id: None,
            outcome: Err(told.error),
        }
        .to_json(),
    );
    response.headers_mut().extend(told.headers);
    response
}

/// A buffered JSON answer.
pub fn json_response(status: StatusCode, text: String) -> Response<Body> {
    let length = text.len();
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A streamed answer; the audit record ends with the stream, or when the client leaves.
fn event_stream<P: Platform>(
    context: &Context<P>,
    asked: Asked,
    events: LocalBoxStream<'static, Event>,
    audit: Pending<P>,
) -> Response<Body> {
    streamed(encoded(context.clone(), asked, events, audit))
}

/// A response that goes on for as long as its chunks come.
pub(crate) fn streamed(chunks: impl Stream<Item = Bytes> + 'static) -> Response<Body> {
    let mut response = Response::new(Body::stream(chunks.map(Ok)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies in between must not collect the stream either.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn encoded<P: Platform>(
    context: Context<P>,
    asked: Asked,
    events: LocalBoxStream<'static, Event>,
    audit: Pending<P>,
) -> impl Stream<Item = Bytes> + 'static {
    let open = Some((events, audit));
    stream::unfold(open, move |open| {
        let (context, asked) = (context.clone(), asked.clone());
        async move {
            let (mut events, audit) = open?;
            let quiet = Box::pin(context.platform.clock().sleep(KEEP_ALIVE));
            let event = match future::select(events.next(), quiet).await {
                Either::Left((event, _)) => event,
                Either::Right(((), _)) => {
                    return Some((
                        Bytes::from_static(sse::COMMENT.as_bytes()),
                        Some((events, audit)),
                    ));
                }
            };
            match event {
                Some(Event::Request(request)) => Some((
                    Bytes::from(sse::encode_message(&request.to_json())),
                    Some((events, audit)),
                )),
                Some(Event::Question(question)) => {
                    question.refuse().await;
                    Some((Bytes::new(), Some((events, audit))))
                }
                Some(Event::Notification(notification)) => Some((
                    Bytes::from(sse::encode_message(&notification.to_json())),
                    Some((events, audit)),
                )),
                Some(Event::End(Ok(result))) => {
                    let text = success(&context, &asked, result, audit);
                    Some((Bytes::from(sse::encode_message(&text)), None))
                }
                Some(Event::End(Err(error))) => {
                    let text = error_message(&context, &asked, &error, audit);
                    Some((Bytes::from(sse::encode_message(&text)), None))
                }
                // Only a call that was cancelled ends without an end.
                None => {
                    audit.finish("cancelled");
                    None
                }
            }
        }
    })
}
