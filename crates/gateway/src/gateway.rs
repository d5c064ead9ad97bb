//! The gateway's doors, one per kind of event a host delivers.

use std::rc::Rc;
use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN,
    VARY,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde_json::json;

use crate::admin;
use crate::auth::{metadata, revocation};
use crate::body::Body;
use crate::context::Context;
use crate::credentials;
use crate::edge;
use crate::egress::{self, json_response};
use crate::error::{Error, Rejection};
use crate::health;
use crate::http_sse;
use crate::ingress::{self, Endpoint, Peer, Way};
use crate::keep;
use crate::load;
use crate::memory::Memory;
use crate::park;
use crate::pipeline;
use crate::platform::{Clock, LogLevel, Platform};
use crate::queue::{Consumed, Message};
use crate::settings::{self, Settings};
use crate::switches;
use crate::tasks;
use crate::tenancy::Place;

/// Pause before a message is taken again that met no configuration.
const CONFIGURATION_PAUSE: Duration = Duration::from_secs(30);

/// The gateway on one host. Cheap to make: hosts make one per event and keep the
/// [`Memory`] for as long as the isolate lives.
pub struct Gateway<P: Platform> {
    platform: Rc<P>,
    memory: Rc<Memory>,
}

impl<P: Platform> Gateway<P> {
    /// A gateway on this platform that remembers what `memory` remembers.
    pub fn new(platform: P, memory: Rc<Memory>) -> Self {
        Self {
            platform: Rc::new(platform),
            memory,
        }
    }

    /// Answers one HTTP request. Never fails: every error is a response.
    pub async fn serve(&self, request: Request<Body>) -> Response<Body> {
        if request.uri().path() == "/health" {
            let now = self.platform.clock().now();
            return health::live(switches::count(&self.memory.switches, now));
        }
        let mut context = match self.context().await {
            Ok(context) => context,
            Err(error) => return self.unconfigured(&error),
        };
        if let Some(peer) = request.extensions().get::<Peer>() {
            context.peer = Rc::new(peer.clone());
        }
        let origin = request.headers().get(ORIGIN).cloned();
        let checked = context
            .settings
            .edge
            .check(&context.peer, request.headers());
        let mut response = match checked {
            Ok(()) => self.route(&context, request).await,
            Err(rejection) => pipeline::turn_away(&context, &request, &rejection.into()),
        };
        edge::protect(&mut response);
        if let Some(origin) = origin {
            allow_origin(&context.settings, &origin, &mut response);
        }
        response
    }

    /// Sends a request to the owner of its path.
    async fn route(&self, context: &Context<P>, request: Request<Body>) -> Response<Body> {
        let settings = &context.settings;
        let path = request.uri().path().trim_end_matches('/');
        let place = settings.sites.place(&request, path);
        if request.method() == Method::OPTIONS {
            let path = place.as_ref().map_or(path, |place| &place.path);
            return preflight(settings, path, &request);
        }
        let Some(Place { site, path }) = place else {
            return egress::refusal(&Rejection::NotFound.into(), "");
        };
        if site.is_none() {
            if path == "/health/deep" && request.method() == Method::GET {
                return health::deep(context, &request).await;
            }
            if path == revocation::PATH {
                return revocation::answer(context, request).await;
            }
            if path == switches::PATH {
                return switches::answer(context, request).await;
            }
            if let Some(rest) = path.strip_prefix(admin::ADMIN) {
                return admin::answer(context, rest, request).await;
            }
            if let Some(rest) = path.strip_prefix(credentials::CONNECT)
                && (rest.is_empty() || rest.starts_with('/'))
            {
                return credentials::serve(context, rest, &request).await;
            }
        }
        if let Some(path) = metadata::resource_path(&path) {
            return protected_resource(context, &Place { site, path });
        }
        let (way, path) = match http_sse::endpoint_path(&path) {
            Some((half, path)) => (Way::HttpSse(half), path),
            None => (Way::Streamable, path),
        };
        match Endpoint::of(&Place { site, path }, settings) {
            Some(endpoint) => match load::enter(context, &request) {
                Ok(place) => {
                    let response = pipeline::answer(context, endpoint, way, request).await;
                    load::kept(place, response)
                }
                Err(error) => pipeline::turn_away(context, &request, &error),
            },
            None => egress::refusal(&Rejection::NotFound.into(), ""),
        }
    }

    /// Answers a request to a keeper ([`crate::platform::Keeper`]). Only the gateway itself
    /// sends these: a host must never route a client's request here.
    pub async fn keep(&self, request: Request<Body>) -> Response<Body> {
        if request.uri().path() == keep::PING {
            return keep::ping(&*self.platform, &self.memory.keep, request).await;
        }
        match self.context().await {
            Ok(context) => match request.uri().path().starts_with(park::CALLS) {
                true => park::answer(&context, request).await,
                false => tasks::kept(&context, request).await,
            },
            Err(error) => self.unconfigured(&error),
        }
    }

    /// Whether something is under way in this keeper that would be lost with its memory. A
    /// host that ends idle keepers asks when it has answered, and then from time to time
    /// until it hears no.
    pub fn kept(&self) -> bool {
        let now = self.platform.clock().now();
        self.memory.keep.is_busy() || self.memory.park.is_busy(now) || self.memory.tasks.is_busy()
    }

    /// Takes a message from the queue.
    pub async fn consume(&self, message: &[u8]) -> Consumed {
        let Ok(context) = self.context().await else {
            return Consumed::Retry {
                after: CONFIGURATION_PAUSE,
            };
        };
        match serde_json::from_slice(message) {
            Ok(Message::RunTaskV1 { task }) => tasks::run::run(&context, &task).await,
            Err(e) => {
                // Of a later version, or not ours: another delivery would not help.
                context.log(
                    LogLevel::Error,
                    "message_unreadable",
                    json!({ "reason": e.to_string() }),
                );
                Consumed::Done
            }
        }
    }

    /// Takes a message the queue gave up on. It is kept as well until it is dealt with.
    pub async fn consume_dead(&self, message: &[u8]) -> Consumed {
        let Ok(context) = self.context().await else {
            return Consumed::Retry {
                after: CONFIGURATION_PAUSE,
            };
        };
        match serde_json::from_slice(message) {
            Ok(Message::RunTaskV1 { task }) => tasks::run::give_up(&context, &task).await,
            // Reported when it was taken first.
            Err(_) => Consumed::Done,
        }
    }

    /// Called by a timer: renews the configuration, so that a quiet deployment notices a
    /// push, and a broken snapshot is reported without traffic; and looks after tasks that
    /// nobody runs.
    pub async fn tick(&self) {
        match self.context().await {
            Ok(context) => tasks::sweep::sweep(&context).await,
            Err(error) => drop(self.unconfigured(&error)),
        }
    }

    async fn context(&self) -> Result<Context<P>, Error> {
        let settings = settings::load(&self.platform, &self.memory).await?;
        Ok(Context {
            platform: Rc::clone(&self.platform),
            memory: Rc::clone(&self.memory),
            settings,
            peer: Rc::default(),
            deadline: None,
            caller: None,
        })
    }

    /// The response where there are no settings to ask how to log.
    fn unconfigured(&self, error: &Error) -> Response<Body> {
        let mut id = [0; 16];
        self.platform.random(&mut id);
        let correlation_id = crate::seal::hex(&id);
        let line = json!({ "event": "fault", "correlationId": correlation_id, "reason": error.to_string() });
        self.platform.log(LogLevel::Error, &line.to_string());
        egress::refusal(error, &correlation_id)
    }
}

/// RFC 9728 metadata of one endpoint.
fn protected_resource<P: Platform>(context: &Context<P>, place: &Place) -> Response<Body> {
    let settings = &context.settings;
    let Some(endpoint) = Endpoint::of(place, settings) else {
        return egress::refusal(&Rejection::NotFound.into(), "");
    };
    let resource = endpoint.resource(&settings.config);
    let mut response = json_response(
        StatusCode::OK,
        metadata::document(&settings.config, &resource).to_string(),
    );
    // Public by nature: any page may read who issues tokens for this resource.
    response
        .headers_mut()
        .insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// Answers a browser's question before a cross-origin request (Fetch standard). What is
/// public may be asked for from everywhere; else [`allow_origin`] names the origin.
fn preflight(settings: &Settings, path: &str, request: &Request<Body>) -> Response<Body> {
    let public = metadata::resource_path(path).is_some();
    let origin = request.headers().get(ORIGIN);
    if !public && origin.is_some_and(|origin| !is_allowed(settings, origin)) {
        return egress::refusal(&Rejection::OriginNotAllowed.into(), "");
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    if public {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, DELETE, OPTIONS"),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if let Some(asked) = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    response
}

/// Lets pages of an allowed origin read the response. Credentials are never allowed:
/// tokens travel in a header, not in cookies.
fn allow_origin(settings: &Settings, origin: &HeaderValue, response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Origin"));
    let allowed = is_allowed(settings, origin);
    if allowed && !headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(
                "WWW-Authenticate, Retry-After, RateLimit, RateLimit-Policy, Mcp-Session-Id, MCP-Protocol-Version",
            ),
        );
    }
}

fn is_allowed(settings: &Settings, origin: &HeaderValue) -> bool {
    origin
        .to_str()
        .is_ok_and(|origin| ingress::origin_allowed(origin, settings))
}
