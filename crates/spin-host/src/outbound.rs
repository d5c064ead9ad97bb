//! Requests the component sends: over HTTP/1.1, with TLS and the roots browsers trust, to
//! where the manifest allows. Connections are kept for the next request, as in Spin.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as Failed};
use hyper_util::rt::TokioExecutor;
use tokio::time::{Sleep, sleep, timeout};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::manifest::Given;

/// How long a connection is kept without work: shorter than servers keep theirs (Node: five
/// seconds), so that a request seldom meets one that is being closed.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// How long a request waits for an answer to begin, and for more of it, that does not say how
/// long it would: as in Spin.
pub const WAIT: Duration = Duration::from_secs(600);

/// What sends; one for all instances.
pub type Sender = Client<HttpsConnector<HttpConnector>, WasiBody>;

/// Makes a sender.
pub fn sender() -> Sender {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE_MAX)
        .build(connector)
}

/// What an instance sends its requests through.
pub struct Outbound {
    /// Sends what is allowed.
    pub sender: Sender,
    /// Says what is.
    pub given: Arc<Given>,
    /// How long one waits that does not say so.
    pub wait: Duration,
}

/// What comes back from sending: a response, and the connection that carries it.
type Sent = Result<(hyper::Response<WasiBody>, Io), Error>;
type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: hyper::Request<WasiBody>,
        options: Option<RequestOptions>,
        _io: Io,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        if !self.given.allowed.allows(request.uri()) {
            eprintln!(
                "a request to {} was refused: allowed_outbound_hosts does not list it",
                request.uri().authority().map_or("?", |a| a.as_str())
            );
            return Box::new(async { Err(Error::HttpRequestDenied) });
        }
        let options = options.unwrap_or_default();
        let begins = options.first_byte_timeout.unwrap_or(self.wait);
        let pause = options.between_bytes_timeout.unwrap_or(self.wait);
        let sent = self.sender.request(request);
        Box::new(async move {
            let response = match timeout(begins, sent).await {
                Ok(sent) => sent.map_err(|error| failed(&error))?,
                Err(_) => return Err(Error::ConnectionReadTimeout),
            };
            let response = response.map(|body| {
                let body = body.map_err(Error::from);
                Unbroken::new(body, pause).boxed_unsync()
            });
            // The client itself drives the connection.
            let io: Io = Box::new(async { Ok(()) });
            Ok((response, io))
        })
    }
}

/// A body that fails when nothing of it comes for a while.
struct Unbroken<B> {
    body: B,
    pause: Duration,
    /// Set while something is waited for.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<B> Unbroken<B> {
    fn new(body: B, pause: Duration) -> Self {
        Self {
            body,
            pause,
            alarm: None,
        }
    }
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for Unbroken<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Self { body, pause, alarm } = &mut *self;
        match Pin::new(body).poll_frame(context) {
            Poll::Ready(frame) => {
                *alarm = None;
                Poll::Ready(frame)
            }
            Poll::Pending => {
                let alarm = alarm.get_or_insert_with(|| Box::pin(sleep(*pause)));
                let over = alarm.as_mut().poll(context);
                over.map(|()| Some(Err(Error::ConnectionReadTimeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Says whether the request may have been sent: nothing is before there is a connection.
fn failed(error: &Failed) -> Error {
    if !error.is_connect() {
        return Error::ConnectionTerminated;
    }
    let mut cause = error.source();
    while let Some(each) = cause {
        if let Some(io) = each.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::TimedOut
        {
            return Error::ConnectionTimeout;
        }
        cause = each.source();
    }
    Error::ConnectionRefused
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body nothing comes of.
    struct Silent;

    impl Body for Silent {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_body_may_pause_for_so_long_and_no_longer() {
        let mut body = Unbroken::new(Silent, Duration::from_millis(1));
        let told = body.frame().await;
        assert!(matches!(told, Some(Err(Error::ConnectionReadTimeout))));
    }
}
