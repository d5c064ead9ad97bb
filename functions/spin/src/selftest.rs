//! The contract of the ports, run against the real ones: `GET /selftest`.
//!
//! Only with the `selftest` feature. The checks are the simulator's, so that what the
//! gateway's tests rely on is what this host does. `?server=http://127.0.0.1:PORT` names a
//! server for the checks that need one beside them.

use http::{HeaderValue, Request, Response, StatusCode, header};
use tidegate_gateway::body::Body;
use tidegate_simulator::contract;

use crate::platform::Host;

/// Where it answers.
pub const PATH: &str = "/selftest";

/// Runs every check and reports them as JSON; 500 when one failed.
pub async fn answer(request: &Request<Body>) -> Response<Body> {
    let server = request
        .uri()
        .query()
        .and_then(|query| query.strip_prefix("server="));
    let report = contract::report(&contract::run_beside(&Host, server).await);
    let mut response = Response::new(Body::from(report.to_string()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if report["passed"] != true {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    response
}
