//! What is wrong with a configuration beyond its shape: every problem, not only the first,
//! each with the field it is in and the remedy.
//!
//! `tidegate check` prints these and the function refuses a snapshot that has any, so both
//! agree. No message repeats a value that could be a secret written in the wrong place.

mod access;
mod edge;
mod limits;
mod oauth;
mod policy;
mod quota;
mod resilience;
mod rollout;
mod safety;
mod tenants;
mod upstreams;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

use url::Url;

use super::address::{is_internal, is_loopback};
use super::bounds::{
    ALLOWED_ORIGINS_MAX, NAMES_MAX, RATE_REQUESTS, RATE_WINDOW_MS, REQUEST_BODY_BYTES,
    SHORT_TEXT_MAX, TASK_AFTER_MS, TASK_POLL_INTERVAL_MS, TASK_TIMEOUT_MS, TASK_TTL_MS,
    TASKS_OPEN_PER_PRINCIPAL, TASKS_OPEN_PER_TENANT, URL_MAX,
};
use super::{API_VERSION, Config, Environment, Rate};

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// JSON pointer (RFC 6901) to the field.
    pub pointer: String,
    /// What is wrong with it.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.pointer, self.message, self.remedy)
    }
}

impl Config {
    /// A configuration from JSON, its shape checked and nothing more.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Everything wrong with the configuration, in the order of its fields.
    pub fn problems(&self) -> Vec<Problem> {
        let dev = self.metadata.environment == Environment::Dev;
        let mut findings = Findings {
            dev,
            found: Vec::new(),
        };
        identity(self, &mut findings);
        public_url(self, &mut findings);
        allowed_origins(self, &mut findings);
        edge::edge(self, &mut findings);
        tenants::tenants(self, &mut findings);
        access::authentication(self, &mut findings);
        upstreams::upstreams(self, &mut findings);
        rollout::rollout(self, &mut findings);
        access::tools(self, &mut findings);
        policy::policy(self, &mut findings);
        safety::safety(self, &mut findings);
        numbers(self, &mut findings);
        findings.found
    }
}

/// The problems found so far.
struct Findings {
    dev: bool,
    found: Vec<Problem>,
}

impl Findings {
    fn add(
        &mut self,
        pointer: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.found.push(Problem {
            pointer: pointer.into(),
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    fn within(&mut self, pointer: &str, value: u64, range: &RangeInclusive<u64>, unit: &str) {
        if !range.contains(&value) {
            let (least, most) = (range.start(), range.end());
            self.add(
                pointer,
                format!("{value} {unit} is out of range"),
                format!("use {least} to {most} {unit}"),
            );
        }
    }

    fn at_most(&mut self, pointer: &str, count: usize, max: usize, what: &str) {
        if count > max {
            self.add(
                pointer,
                format!("{count} {what} are too many"),
                format!("list at most {max}"),
            );
        }
    }

    fn short_text(&mut self, pointer: &str, text: &str) {
        if text.trim().is_empty() {
            self.add(pointer, "is empty", "write something or remove the field");
        } else if text.len() > SHORT_TEXT_MAX || text.chars().any(char::is_control) {
            self.add(
                pointer,
                "is too long or has control characters",
                format!("use one line of at most {SHORT_TEXT_MAX} bytes"),
            );
        }
    }

    /// A list of short texts without repetition.
    fn names(&mut self, pointer: &str, names: &[String], what: &str) {
        self.at_most(pointer, names.len(), NAMES_MAX, what);
        let mut seen = BTreeSet::new();
        for (index, name) in names.iter().enumerate() {
            let pointer = format!("{pointer}/{index}");
            self.short_text(&pointer, name);
            if !seen.insert(name) {
                self.add(pointer, "is listed twice", "remove one of the two");
            }
        }
    }

    fn rate(&mut self, pointer: &str, rate: &Rate) {
        self.within(
            &format!("{pointer}/requests"),
            rate.requests.into(),
            &RATE_REQUESTS,
            "requests",
        );
        self.within(
            &format!("{pointer}/windowMs"),
            rate.window_ms,
            &RATE_WINDOW_MS,
            "ms",
        );
    }

    /// The URL of an MCP server. Those are shown: to authorization servers, and in links.
    fn server_url(&mut self, pointer: &str, url: &Url) {
        self.remote_url(pointer, url);
        if has_secret(url) {
            self.add(
                pointer,
                "carries a secret in its query",
                "remove it; write `credentials: {type: header}` with the secret as ${secret:NAME}",
            );
        }
    }

    /// A URL the gateway calls or clients are sent to: `https` to a public host. In
    /// environment `dev` also `http`, to this machine only.
    fn remote_url(&mut self, pointer: &str, url: &Url) {
        if url.as_str().len() > URL_MAX {
            self.add(
                pointer,
                "is too long",
                format!("use a URL of at most {URL_MAX} bytes"),
            );
        }
        match url.scheme() {
            "https" => {}
            "http" if self.dev && is_loopback(url) => {}
            "http" if self.dev => self.add(
                pointer,
                "uses http to another machine",
                "use https; plain http is for loopback addresses in environment dev",
            ),
            "http" => self.add(
                pointer,
                "uses http",
                "use https, or set metadata.environment to dev and a loopback address",
            ),
            _ => self.add(
                pointer,
                "is not an https URL",
                "write it as https://host/path",
            ),
        }
        if has_user(url) {
            self.add(
                pointer,
                "carries a user name or password",
                "remove it; credentials go under `credentials` as ${secret:NAME}",
            );
        }
        if url.fragment().is_some() {
            self.add(pointer, "has a fragment", "remove everything from `#` on");
        }
        if !self.dev && is_internal(url) {
            self.add(
                pointer,
                "points inside a private network (loopback, private, link-local or an internal name)",
                "use a public host name; loopback addresses are for environment dev",
            );
        }
    }
}

/// Names that say of a value in a query that it is a secret, in lower case and without `-`
/// and `_`.
const SECRET_NAMES: [&str; 9] = [
    "accesstoken",
    "apikey",
    "auth",
    "key",
    "password",
    "secret",
    "sig",
    "signature",
    "token",
];

fn has_secret(url: &Url) -> bool {
    url.query_pairs().any(|(name, _)| {
        let name = name.to_lowercase().replace(['-', '_'], "");
        SECRET_NAMES.contains(&name.as_str())
    })
}

fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn identity(config: &Config, findings: &mut Findings) {
    if config.api_version != API_VERSION {
        findings.add(
            "/apiVersion",
            "is not a version this build reads",
            format!("use `{API_VERSION}`"),
        );
    }
    findings.short_text("/metadata/name", &config.metadata.name);
    if let Some(owner) = &config.metadata.owner {
        findings.short_text("/metadata/owner", owner);
    }
    if let Some(contact) = &config.metadata.contact {
        findings.short_text("/metadata/contact", contact);
    }
}

fn public_url(config: &Config, findings: &mut Findings) {
    const AT: &str = "/publicUrl";
    let url = &config.public_url;
    match url.scheme() {
        "https" => {}
        "http" if findings.dev && is_loopback(url) => {}
        _ => findings.add(
            AT,
            "is not an https origin",
            "use https; plain http is for loopback addresses in environment dev",
        ),
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || has_user(url) {
        findings.add(
            AT,
            "is more than an origin",
            "write only scheme, host and port, such as https://mcp.example.com; paths like /mcp are added to it",
        );
    }
    if !findings.dev && is_loopback(url) {
        findings.add(
            AT,
            "is a loopback address outside environment dev",
            "use the host name clients reach, or set metadata.environment to dev",
        );
    }
}

fn allowed_origins(config: &Config, findings: &mut Findings) {
    let origins = &config.allowed_origins;
    findings.at_most(
        "/allowedOrigins",
        origins.len(),
        ALLOWED_ORIGINS_MAX,
        "origins",
    );
    let mut seen = BTreeSet::new();
    for (index, origin) in origins.iter().enumerate() {
        let pointer = format!("/allowedOrigins/{index}");
        if !is_origin(origin) {
            findings.add(
                &pointer,
                "is not an origin as browsers send it",
                "write scheme, host and port in lower case, such as https://app.example.com, without a path, a \
                 trailing slash or a wildcard",
            );
        }
        if !seen.insert(origin) {
            findings.add(pointer, "is listed twice", "remove one of the two");
        }
    }
}

/// Whether `text` is exactly what a browser puts into `Origin` (RFC 6454 section 6.1).
fn is_origin(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        let exact = url.origin().ascii_serialization() == text;
        matches!(url.scheme(), "http" | "https") && exact && !text.contains('*') && !has_user(&url)
    })
}

fn numbers(config: &Config, findings: &mut Findings) {
    if let Some(rate) = &config.limits.per_client {
        findings.rate("/limits/perClient", rate);
    }
    limits::rules(config, findings);
    quota::quotas(config, findings);
    if let Some(bytes) = config.limits.request_body_bytes {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        findings.within(
            "/limits/requestBodyBytes",
            bytes,
            &REQUEST_BODY_BYTES,
            "bytes",
        );
    }
    resilience::limits(config, findings);
    resilience::circuit_breaker(config, findings);
    findings.within("/tasks/ttlMs", config.tasks.ttl_ms, &TASK_TTL_MS, "ms");
    findings.within(
        "/tasks/pollIntervalMs",
        config.tasks.poll_interval_ms,
        &TASK_POLL_INTERVAL_MS,
        "ms",
    );
    findings.within(
        "/tasks/afterMs",
        config.tasks.after_ms,
        &TASK_AFTER_MS,
        "ms",
    );
    findings.within(
        "/tasks/timeoutMs",
        config.tasks.timeout_ms,
        &TASK_TIMEOUT_MS,
        "ms",
    );
    findings.within(
        "/tasks/maxOpenPerPrincipal",
        config.tasks.max_open_per_principal.into(),
        &TASKS_OPEN_PER_PRINCIPAL,
        "tasks",
    );
    if let Some(max) = config.tasks.max_open_per_tenant {
        findings.within(
            "/tasks/maxOpenPerTenant",
            max.into(),
            &TASKS_OPEN_PER_TENANT,
            "tasks",
        );
    }
    findings.rate("/tasks/pollLimit", &config.tasks.poll_limit);
}

#[cfg(test)]
pub(crate) mod tests;
