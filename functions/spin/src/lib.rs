//! Tidegate on Spin, for now its health alone.
//!
//! `GET /health` answers that the component runs. Everything else is 501 with a JSON
//! message: on Spin the gateway's stores need a database (its key-value store cannot make
//! claims safely), and until those ports are written, serving requests without them would
//! only look like a gateway.

use spin_sdk::http::{HeaderMap, HeaderValue, IntoResponse, Method, Request, StatusCode};
use spin_sdk::http_service;

const HEALTHY: &str = r#"{"status":"ok","host":"spin"}"#;
const NOT_SERVED: &str = r#"{"error":"not_implemented","message":"This build of Tidegate answers only GET /health on Spin. Deploy the Cloudflare function to serve MCP."}"#;

/// Answers one request.
#[http_service]
async fn serve(request: Request) -> impl IntoResponse {
    let (status, body) = answer(request.method(), request.uri().path());
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    // Without it the host sends a chunked body, which costs a round trip of delay.
    headers.insert("content-length", HeaderValue::from(body.len()));
    (status, headers, body.to_owned())
}

fn answer(method: &Method, path: &str) -> (StatusCode, &'static str) {
    match (method, path) {
        (&Method::GET, "/health") => (StatusCode::OK, HEALTHY),
        _ => (StatusCode::NOT_IMPLEMENTED, NOT_SERVED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_health_is_answered() {
        for (method, path, status) in [
            (Method::GET, "/health", 200),
            (Method::POST, "/health", 501),
            (Method::GET, "/health/deep", 501),
            (Method::POST, "/mcp", 501),
        ] {
            assert_eq!(answer(&method, path).0.as_u16(), status, "{method} {path}");
        }
    }
}
