//! Requests the component sends: over HTTP/1.1, with TLS and the roots browsers trust, to
//! where the manifest allows. Connections are kept for the next request, as in Spin.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as Failed};
use hyper_util::rt::TokioExecutor;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::manifest::Given;

/// How long a connection is kept without work: shorter than servers keep theirs (Node: five
/// seconds), so that a request seldom meets one that is being closed.
const IDLE_MAX: Duration = Duration::from_secs(2);

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
}

/// What comes back from sending: a response, and the connection that carries it.
type Sent = Result<(hyper::Response<WasiBody>, Io), Error>;
type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: hyper::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _io: Io,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        if !self.given.allowed.allows(request.uri()) {
            eprintln!(
                "a request to {} was refused: allowed_outbound_hosts does not list it",
                request.uri().authority().map_or("?", |a| a.as_str())
            );
            return Box::new(async { Err(Error::HttpRequestDenied) });
        }
        let sent = self.sender.request(request);
        Box::new(async move {
            let response = sent.await.map_err(|error| failed(&error))?;
            let response = response.map(|body| body.map_err(Error::from).boxed_unsync());
            // The client itself drives the connection.
            let io: Io = Box::new(async { Ok(()) });
            Ok((response, io))
        })
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
