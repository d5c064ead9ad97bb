//! Requests of the revision measured, and a connection to send them over.

use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::bench::echo::REVISION;
use crate::http;

/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The extension of tasks.
const TASKS: &str = "io.modelcontextprotocol/tasks";

/// Who asks, and whom.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// The server's port on loopback.
    pub port: u16,
    /// A token, where one is needed.
    pub token: Option<&'a str>,
    /// Whether tasks are declared.
    pub tasks: bool,
}

impl Caller<'_> {
    /// A whole request; `name` is what its method is about.
    pub fn request(&self, method: &str, name: &str, mut params: Value) -> Vec<u8> {
        let capabilities = match self.tasks {
            true => json!({"extensions": {TASKS: {}}}),
            false => json!({}),
        };
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": REVISION,
            "io.modelcontextprotocol/clientCapabilities": capabilities,
        });
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let (body, port) = (body.to_string(), self.port);
        let authorization = self
            .token
            .map(|token| format!("authorization: Bearer {token}\r\n"))
            .unwrap_or_default();
        let request = format!(
            "POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{authorization}\
             content-type: application/json\r\naccept: application/json, text/event-stream\r\n\
             mcp-protocol-version: {REVISION}\r\nmcp-method: {method}\r\nmcp-name: {name}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        request.into_bytes()
    }
}

/// A connection that is kept, and opened again after a failure.
pub struct Connection {
    port: u16,
    output: TcpStream,
    input: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to a loopback port.
    pub fn open(port: u16) -> Result<Self> {
        let output = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("port {port} does not answer"))?;
        output.set_nodelay(true)?;
        output.set_read_timeout(Some(ANSWER_LIMIT))?;
        let input = BufReader::new(output.try_clone()?);
        Ok(Self {
            port,
            output,
            input,
        })
    }

    /// One request and its answer.
    pub fn exchange(&mut self, request: &[u8]) -> Result<http::Response> {
        let answer = self
            .output
            .write_all(request)
            .map_err(anyhow::Error::from)
            .and_then(|()| http::read_response(&mut self.input));
        if answer.is_err() {
            *self = Self::open(self.port)?;
        }
        answer
    }
}
