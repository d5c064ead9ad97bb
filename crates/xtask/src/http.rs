//! Just enough HTTP/1.1 for loopback: a small server for the development issuer and the
//! benchmark upstream, and a client for probes. Not for anything that faces a network.

pub mod form;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Largest body read, either way.
const BODY_MAX: usize = 4 << 20;
/// Largest head line and number of headers read.
const LINE_MAX: u64 = 16 << 10;
const HEADERS_MAX: usize = 100;

/// A request as handlers see it.
#[derive(Debug)]
pub struct Request {
    /// `GET`, `POST` …
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// The query, undecoded.
    pub query: String,
    headers: BTreeMap<String, String>,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl Request {
    /// A header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// A response, whole.
#[derive(Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// Headers besides length and connection.
    pub headers: Vec<(String, String)>,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl Response {
    /// A response without a body.
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A JSON response.
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::empty(status)
            .header("content-type", "application/json")
            .body(value.to_string().into_bytes())
    }

    /// The same response with one more header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn body(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self
    }

    /// The response as it goes over the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            // A header value is one line, whatever the handler put in it.
            let value: String = value.chars().filter(|c| !c.is_control()).collect();
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", self.body.len()));
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        302 => "Found",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Other",
    }
}

/// Listens on loopback: on `port` if it is free, else on the next free one above it;
/// any free port for 0.
pub fn listen_from(port: u16) -> Result<TcpListener> {
    /// Ports tried before giving up.
    const TRIES: u16 = 100;
    let last = port.saturating_add(if port == 0 { 0 } else { TRIES });
    for port in port..=last {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Ok(listener);
        }
    }
    bail!("no free port between {port} and {last}")
}

/// A loopback port nobody listens on right now, from `port` upwards.
pub fn free_port(port: u16) -> Result<u16> {
    Ok(listen_from(port)?.local_addr()?.port())
}

/// Serves requests on threads of their own until the process ends.
pub fn serve<H>(listener: TcpListener, handler: H)
where
    H: Fn(Request) -> Response + Send + Sync + 'static,
{
    let handler = Arc::new(handler);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handler = Arc::clone(&handler);
            std::thread::spawn(move || {
                // A peer that breaks off ends its own thread; nobody else minds.
                let _ = converse(stream, handler.as_ref());
            });
        }
    });
}

fn converse(stream: TcpStream, handler: &dyn Fn(Request) -> Response) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut output = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    while let Some(request) = read_request(&mut input)? {
        let close = request
            .header("connection")
            .is_some_and(|v| v.eq_ignore_ascii_case("close"));
        output.write_all(&handler(request).encode())?;
        if close {
            break;
        }
    }
    Ok(())
}

fn read_request(input: &mut BufReader<TcpStream>) -> Result<Option<Request>> {
    let Some(first) = read_line(input)? else {
        return Ok(None);
    };
    let mut words = first.split_ascii_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        bail!("not an HTTP request");
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers = read_headers(input)?;
    let body = read_body(input, &headers)?;
    Ok(Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body,
    }))
}

fn read_line(input: &mut impl BufRead) -> Result<Option<String>> {
    let mut line = String::new();
    if input.by_ref().take(LINE_MAX).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    if !line.ends_with('\n') {
        bail!("a head line is too long");
    }
    Ok(Some(line.trim_end().to_owned()))
}

fn read_headers(input: &mut impl BufRead) -> Result<BTreeMap<String, String>> {
    let mut headers = BTreeMap::new();
    for _ in 0..HEADERS_MAX {
        let line = read_line(input)?.context("the head ends early")?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line.split_once(':').context("not a header line")?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    bail!("too many headers")
}

fn read_body(input: &mut impl BufRead, headers: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    if headers
        .get("transfer-encoding")
        .is_some_and(|v| v.contains("chunked"))
    {
        return read_chunks(input);
    }
    let length: usize = match headers.get("content-length") {
        Some(text) => text.parse().context("content-length is no number")?,
        None => 0,
    };
    read_exactly(input, length)
}

fn read_exactly(input: &mut impl Read, length: usize) -> Result<Vec<u8>> {
    if length > BODY_MAX {
        bail!("a body of {length} bytes is too large");
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    Ok(body)
}

fn read_chunks(input: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(input)?.context("a chunk is missing")?;
        let size = line.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16).context("not a chunk size")?;
        if size == 0 {
            while read_line(input)?.is_some_and(|line| !line.is_empty()) {}
            return Ok(body);
        }
        if body.len() + size > BODY_MAX {
            bail!("a chunked body is too large");
        }
        body.extend(read_exactly(input, size)?);
        read_line(input)?;
    }
}

/// Sends one request to a loopback port and reads the whole answer.
pub fn request(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    limit: Duration,
) -> Result<Response> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    read_response(&mut BufReader::new(stream))
}

/// Reads one whole response.
pub fn read_response(input: &mut impl BufRead) -> Result<Response> {
    let first = read_line(input)?.context("no answer")?;
    let status = first
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .context("not an HTTP response")?;
    let headers = read_headers(input)?;
    let body = read_body(input, &headers)?;
    Ok(Response {
        status,
        headers: headers.into_iter().collect(),
        body,
    })
}

/// Whether a loopback port answers `GET path` with `status`.
pub fn answers(port: u16, path: &str, status: u16) -> bool {
    let limit = Duration::from_secs(2);
    request(port, "GET", path, &[], &[], limit).is_ok_and(|response| response.status == status)
}

/// Whether anything accepts connections on a loopback port.
pub fn accepts(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_value_cannot_start_another_header() {
        let response = Response::empty(302).header("location", "http://a/\r\nset-cookie: b");
        let text = String::from_utf8(response.encode()).unwrap();
        assert!(!text.contains("\r\nset-cookie"));
    }

    #[test]
    fn the_server_answers_several_requests_on_one_connection() {
        let listener = listen_from(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        serve(listener, |request| {
            Response::empty(200).body(request.path.into_bytes())
        });
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let mut input = BufReader::new(stream.try_clone().unwrap());
        for path in ["/a", "/b"] {
            write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            assert_eq!(read_response(&mut input).unwrap().body, path.as_bytes());
        }
    }
}
