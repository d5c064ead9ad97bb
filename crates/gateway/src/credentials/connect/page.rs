//! The few pages a user sees. Static but for the texts in them, which are escaped; nothing on
//! them runs, loads, submits, is framed, kept, or told where its reader came from.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::body::Body;

const HEADERS: [(HeaderName, &str); 7] = [
    (CONTENT_TYPE, "text/html; charset=utf-8"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (CACHE_CONTROL, "no-store"),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// What is asked on the first page.
pub(super) struct Consent<'a> {
    pub(super) gateway: &'a str,
    pub(super) upstream: &'a str,
    pub(super) subject: &'a str,
    pub(super) client: Option<&'a str>,
    pub(super) scopes: &'a [String],
    /// Where it goes on.
    pub(super) authorize: &'a str,
    pub(super) server: &'a str,
}

/// The page that says what is about to be granted, to whom, and leads on.
pub(super) fn consent(asked: &Consent<'_>) -> Response<Body> {
    let (upstream, gateway) = (escaped(asked.upstream), escaped(asked.gateway));
    let (subject, server) = (escaped(asked.subject), escaped(asked.server));
    let client = match asked.client {
        Some(client) => format!(", through the client <b>{}</b>", escaped(client)),
        None => String::new(),
    };
    let scopes = match asked.scopes {
        [] => String::new(),
        scopes => format!("<p>It asks for: {}</p>", escaped(&scopes.join(", "))),
    };
    let text = format!(
        "<p>The gateway <b>{gateway}</b> wants to use your account at <b>{upstream}</b> whenever \
         <b>{subject}</b>{client} asks it to.</p>{scopes}\
         <p><b>Go on only if you are {subject} and have just asked for this yourself.</b> If \
         somebody sent you this link, close the page: they would get the use of your account.</p>\
         <p><a rel=\"noreferrer\" href=\"{}\">Go on to {server}</a></p>",
        escaped(asked.authorize),
    );
    page(StatusCode::OK, "Connect an account", &text)
}

/// Nothing to see: the browser goes on.
pub(super) fn onward(to: &str) -> Option<Response<Body>> {
    let mut response = page(StatusCode::SEE_OTHER, "Connect an account", "");
    let to = HeaderValue::from_str(to).ok()?;
    response.headers_mut().insert(LOCATION, to);
    Some(response)
}

/// A page that only says something.
pub(super) fn note(status: StatusCode, title: &str, words: &str) -> Response<Body> {
    page(status, title, &format!("<p>{}</p>", escaped(words)))
}

fn page(status: StatusCode, title: &str, text: &str) -> Response<Body> {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><h1>{title}</h1>{text}</html>"
    );
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
