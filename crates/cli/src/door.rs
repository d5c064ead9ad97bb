//! The gateway's door for operators, from outside: requests, and what its refusals mean in
//! words that say what to do.

use std::env;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tidegate_gateway::config::address::is_loopback;
use ureq::http::Response;
use ureq::{Agent, Body};
use url::Url;

use crate::Failure;

/// Holds the token, here and as the gateway's secret.
const TOKEN: &str = "TIDEGATE_ADMIN_TOKEN";
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read, in bytes.
const ANSWER_MAX: u64 = 4 * 1024 * 1024;

/// A page of what there is behind a door.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(alias = "tasks", alias = "usage")]
    entries: Vec<Value>,
    next_cursor: Option<String>,
}

/// A gateway that is asked.
pub struct Gateway {
    agent: Agent,
    origin: Url,
    token: String,
}

impl Gateway {
    /// The one at `origin`. Nothing is sent yet.
    pub fn open(origin: &Url) -> Result<Self, Failure> {
        let local = is_loopback(origin);
        match origin.scheme() {
            "https" => {}
            "http" if local => {}
            _ => {
                let words = "--gateway must be an https URL, for the token travels to it; plain http is for loopback addresses";
                return Err(Failure::Usage(words.to_owned()));
            }
        }
        let token = env::var(TOKEN).unwrap_or_default();
        if token.is_empty() {
            return Err(Failure::Usage(format!(
                "{TOKEN} is not set; export the text the gateway has as its secret of that name"
            )));
        }
        let mut config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            // A redirect would take the token elsewhere.
            .max_redirects(0)
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")));
        if local {
            config = config.proxy(None);
        }
        Ok(Self {
            agent: config.build().into(),
            origin: origin.clone(),
            token,
        })
    }

    /// Asks for `path`, with what of the query there is.
    pub fn get(&self, path: &str, query: &[(&str, Option<String>)]) -> Result<Value, Failure> {
        let mut url = self.at(path)?;
        for (name, value) in query {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let request = self.agent.get(url.as_str());
        let request = request.header("authorization", format!("Bearer {}", self.token));
        self.answer(request.call())
    }

    /// Entries of as many pages as it takes, at most `limit`, and whether there are more.
    pub fn pages(
        &self,
        path: &str,
        query: &[(&str, Option<String>)],
        limit: usize,
    ) -> Result<(Vec<Value>, bool), Failure> {
        let (mut entries, mut cursor) = (Vec::new(), None);
        loop {
            let mut query = query.to_vec();
            query.push(("cursor", cursor.clone()));
            let page: Page = serde_json::from_value(self.get(path, &query)?)?;
            entries.extend(page.entries);
            if entries.len() > limit || (entries.len() == limit && page.next_cursor.is_some()) {
                entries.truncate(limit);
                return Ok((entries, true));
            }
            match page.next_cursor {
                // The same place twice would go on for ever.
                Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
                Some(_) | None => return Ok((entries, false)),
            }
        }
    }

    /// How the gateway is: what `/health/deep` says, under whatever status.
    pub fn health(&self) -> Result<Value, Failure> {
        let request = self.agent.get(self.at("/health/deep")?.as_str());
        let request = request.header("authorization", format!("Bearer {}", self.token));
        let (status, answer) = self.read(request.call())?;
        match answer["status"].is_string() {
            true => Ok(answer),
            false => Err(Failure::Failed(self.refusal(status, &answer))),
        }
    }

    /// Has `path` done.
    pub fn post(&self, path: &str) -> Result<Value, Failure> {
        let request = self.agent.post(self.at(path)?.as_str());
        let request = request.header("authorization", format!("Bearer {}", self.token));
        self.answer(request.send_empty())
    }

    /// Has `path` done as `asked` says; by `DELETE`, undone.
    pub fn change(&self, path: &str, asked: &Value, undo: bool) -> Result<Value, Failure> {
        let url = self.at(path)?;
        let bearer = format!("Bearer {}", self.token);
        let body = asked.to_string();
        let sent = match undo {
            false => self
                .agent
                .post(url.as_str())
                .header("authorization", bearer)
                .send(body),
            true => {
                let request = self.agent.delete(url.as_str()).force_send_body();
                request.header("authorization", bearer).send(body)
            }
        };
        self.answer(sent)
    }

    fn at(&self, path: &str) -> Result<Url, Failure> {
        let url = self.origin.join(path);
        url.map_err(|error| Failure::Usage(format!("--gateway: {error}")))
    }

    fn answer(&self, response: Result<Response<Body>, ureq::Error>) -> Result<Value, Failure> {
        match self.read(response)? {
            (200, answer) if answer.is_object() => Ok(answer),
            (status, answer) => Err(Failure::Failed(self.refusal(status, &answer))),
        }
    }

    fn read(&self, response: Result<Response<Body>, ureq::Error>) -> Result<(u16, Value), Failure> {
        let unreachable = |error: ureq::Error| {
            let origin = &self.origin;
            Failure::Failed(format!(
                "{origin} does not answer: {error}; is --gateway right?"
            ))
        };
        let mut response = response.map_err(unreachable)?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_MAX);
        let text = body.read_to_string().map_err(unreachable)?;
        Ok((status, serde_json::from_str(&text).unwrap_or_default()))
    }

    fn refusal(&self, status: u16, answer: &Value) -> String {
        let error = &answer["error"];
        let message = error["message"].as_str().unwrap_or_default();
        let message: String = message.chars().filter(|c| !c.is_control()).collect();
        match (status, error["reason"].as_str()) {
            (401, _) => format!(
                "the gateway does not accept this token; {TOKEN} must be the same here and among its secrets"
            ),
            // The gateway says that it serves no such path.
            (404, None) => format!(
                "no door for operators at {}; give the gateway the secret {TOKEN} (`openssl rand -hex 32 | npx wrangler secret put {TOKEN}`), or correct --gateway",
                self.origin
            ),
            (404, Some("unknown_task")) => {
                format!("{message} `tidegate tasks list` prints those there are.")
            }
            (404, Some("unknown_switch")) => {
                format!("{message} `tidegate kill --list` prints what is.")
            }
            (409, Some("wrong_state")) => {
                let state = answer["task"]["status"]
                    .as_str()
                    .unwrap_or("in another state");
                format!("{message} It is {state}.")
            }
            (500.., _) => {
                let id = error["data"]["correlationId"].as_str().unwrap_or("?");
                format!("the gateway failed ({status}); its log says why, at correlation id {id}")
            }
            (_, Some(_)) => message,
            (status, None) => format!(
                "{} answered with status {status} and not as a Tidegate gateway does; is --gateway right?",
                self.origin
            ),
        }
    }
}
