//! HTTP/1.1 towards the clients: accepts connections, hands each request to an instance
//! of the component its path leads to, and streams what comes back.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use wasmtime_wasi_http::handler::ProxyHandler;
use wasmtime_wasi_http::{Error, WasiBody};

use crate::instances::Instances;
use crate::manifest::{self, Route};

/// Connections served at once; the next ones wait to be accepted.
const CONNECTIONS_MAX: usize = 1024;
/// How long a client may take to send the head of a request.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// Pause after a failed accept: the usual reason, too many open files, takes time to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long requests in progress have left once we are told to stop.
const STOP_MAX: Duration = Duration::from_secs(2);

/// Where Spin tells a component who its client is.
const CLIENT_ADDRESS: &str = "spin-client-addr";

type Handler = ProxyHandler<Instances>;

/// What answers, by the routes that lead there.
#[derive(Clone)]
pub struct Components(Arc<[(Route, Handler)]>);

impl Components {
    /// Those of `instances`, by their ids, that routes lead to.
    pub fn new(routes: Vec<(Route, String)>, instances: BTreeMap<String, Instances>) -> Self {
        let handlers = instances.into_iter();
        let handlers: BTreeMap<_, _> = handlers
            .map(|(id, instances)| (id, Handler::new(instances)))
            .collect();
        let routes = routes.into_iter();
        let routes = routes.filter_map(|(route, id)| Some((route, handlers.get(&id)?.clone())));
        Self(routes.collect())
    }
}

/// Serves until `stop`, then lets what has begun come to its end.
pub async fn until(listener: TcpListener, components: Components, stop: impl Future<Output = ()>) {
    let connections = GracefulShutdown::new();
    tokio::select! {
        () = accept(&listener, &components, &connections) => {}
        () = stop => {}
    }
    drop(listener);
    let _ = tokio::time::timeout(STOP_MAX, connections.shutdown()).await;
}

async fn accept(listener: &TcpListener, components: &Components, connections: &GracefulShutdown) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Never closed: there is always a permit to wait for.
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, client)) => {
                let ended = connection(stream, client, components.clone(), connections);
                tokio::spawn(async move {
                    ended.await;
                    drop(permit);
                });
            }
            Err(error) => {
                eprintln!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, served to its end.
fn connection(
    stream: TcpStream,
    client: SocketAddr,
    components: Components,
    connections: &GracefulShutdown,
) -> impl Future<Output = ()> + Send + use<> {
    let answer = service_fn(move |request| {
        let components = components.clone();
        async move { Ok::<_, Infallible>(answer(&components, client, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    let served = connections.watch(served);
    async move {
        // A client that breaks off, or that does not speak HTTP, is no error of ours.
        let _ = pin!(served).await;
    }
}

async fn answer(
    components: &Components,
    client: SocketAddr,
    request: Request<Incoming>,
) -> Response<WasiBody> {
    let (mut head, body) = request.into_parts();
    match absolute(&head.uri, head.headers.get(HOST)) {
        Some(uri) => head.uri = uri,
        None => return bare(StatusCode::BAD_REQUEST),
    }
    let Some(handler) = manifest::led(&components.0, head.uri.path()) else {
        return bare(StatusCode::NOT_FOUND);
    };
    // After whatever the client says there, as in Spin: who believes the first is deceived.
    if let Ok(client) = HeaderValue::try_from(client.to_string()) {
        head.headers.append(CLIENT_ADDRESS, client);
    }
    let body = body.map_err(Error::from).boxed_unsync();
    match handler.handle((), Request::from_parts(head, body)).await {
        Ok(response) => response,
        Err(error) => {
            eprintln!("no answer: {error:#}");
            bare(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// The whole address a request was sent to: the component sees a scheme and an authority
/// in place of `Host`, which WASI keeps from it.
fn absolute(uri: &Uri, host: Option<&HeaderValue>) -> Option<Uri> {
    let authority = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => host?.to_str().ok()?,
    };
    let path = uri.path_and_query()?.as_str();
    Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query(path)
        .build()
        .ok()
}

fn bare(status: StatusCode) -> Response<WasiBody> {
    let body = Empty::new().map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}
