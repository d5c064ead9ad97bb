//! Bodies made to break a parser. Nothing may panic, fault, or get past the checks.

use std::fmt::Write as _;

use serde_json::json;

use crate::world::{Ask, Script, Setup, World, modern, tool};

#[test]
fn hostile_json_is_refused_in_words() {
    let world = world();
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let call = |params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#)
    };
    let members = (0..2000).fold(String::new(), |mut members, n| {
        let _ = write!(members, r#""m{n}":0,"#);
        members
    });
    let cases: Vec<(&str, Vec<u8>, i64)> = vec![
        ("empty", Vec::new(), -32700),
        ("spaces", b" \r\n\t ".to_vec(), -32700),
        ("a byte order mark", b"\xef\xbb\xbf{}".to_vec(), -32700),
        ("two messages", b"{}{}".to_vec(), -32700),
        (
            "not UTF-8",
            call(r#"{"name":"XX"}"#)
                .into_bytes()
                .iter()
                .map(|b| if *b == b'X' { 0xff } else { *b })
                .collect(),
            -32700,
        ),
        (
            "UTF-16",
            "{}".encode_utf16().flat_map(u16::to_le_bytes).collect(),
            -32700,
        ),
        (
            "a raw control character",
            call("{\"name\":\"a\u{1}b\"}").into_bytes(),
            -32700,
        ),
        ("NaN", call(r#"{"name":NaN}"#).into_bytes(), -32700),
        ("a single quote", b"{'jsonrpc':'2.0'}".to_vec(), -32700),
        ("a comment", b"{}// x".to_vec(), -32700),
        (
            "nested arguments",
            call(&format!(r#"{{"name":"x","arguments":{}}}"#, deep(100))).into_bytes(),
            -32600,
        ),
        (
            "nested beyond any stack",
            deep(400_000).into_bytes(),
            -32600,
        ),
        (
            "unclosed beyond any stack",
            "{\"a\":".repeat(150_000).into_bytes(),
            -32600,
        ),
        (
            "a duplicated id",
            br#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#.to_vec(),
            -32600,
        ),
        (
            "a duplicated method",
            br#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"x"}"#.to_vec(),
            -32600,
        ),
        (
            "a duplicate in disguise",
            br#"{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"x"}"#.to_vec(),
            -32600,
        ),
        (
            "a duplicated param",
            call(r#"{"name":"search__query","name":"other"}"#).into_bytes(),
            -32600,
        ),
        (
            "too many members",
            call(&format!("{{{members}\"z\":0}}")).into_bytes(),
            -32600,
        ),
        (
            "an id of many digits",
            format!(
                r#"{{"jsonrpc":"2.0","id":{},"method":"ping"}}"#,
                "9".repeat(400)
            )
            .into_bytes(),
            -32600,
        ),
        (
            "a long id",
            format!(
                r#"{{"jsonrpc":"2.0","id":"{}","method":"ping"}}"#,
                "x".repeat(257)
            )
            .into_bytes(),
            -32600,
        ),
        (
            "an exponent as id",
            br#"{"jsonrpc":"2.0","id":1e400,"method":"ping"}"#.to_vec(),
            -32600,
        ),
        (
            "a long method",
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#,
                "x".repeat(300)
            )
            .into_bytes(),
            -32600,
        ),
        (
            "result and error",
            br#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":"x"}}"#.to_vec(),
            -32600,
        ),
    ];
    for (what, body, code) in cases {
        let told = world.call(Ask::post(json!(null)).body(body));
        assert_eq!(told.refusal(), (400, code), "{what}: {told:?}");
    }
    assert_eq!(
        world.tool("search__query").said(),
        "CANARY-RESULT query",
        "and serves the next"
    );
}

#[test]
fn a_duplicate_inside_the_envelope_is_refused() {
    let body = modern("tools/list", json!({})).message.to_string();
    let twice = body.replacen(
        r#""io.modelcontextprotocol/clientCapabilities":{}"#,
        r#""io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientCapabilities":{"roots":{}}"#,
        1,
    );
    assert_ne!(body, twice);
    let told = world().call(modern("tools/list", json!({})).body(twice));
    assert_eq!(told.refusal(), (400, -32602), "{told:?}");
}

#[test]
fn names_of_any_script_travel_through_headers_and_bodies() {
    for name in [
        "größe",
        "検索",
        "🌊",
        "a b",
        " padded ",
        "=?base64?eA==?=",
        "quote\"back\\slash",
        "new\nline",
        "\u{202e}rtl",
        "\u{0}",
    ] {
        let script = Script::modern(&[name]);
        let world = Setup::new().upstream("search", &script).start();
        let exposed = format!("search__{name}");
        let ask = tool(&exposed_plain())
            .param("name", exposed.clone().into())
            .header("mcp-name", &sentinel(&exposed));
        let told = world.call(ask);
        assert_eq!(told.status, 200, "{name:?}: {told:?}");
        assert_eq!(told.said(), format!("CANARY-RESULT {name}"));
        assert_eq!(
            world.bodies("search", "tools/call")[0]["params"]["name"],
            name
        );
    }
}

#[test]
fn a_name_that_is_not_sent_as_ascii_does_not_count() {
    let world = world();
    let mut request = world.request(tool("search__query").param("name", "search__größe".into()));
    request.headers_mut().insert(
        "mcp-name",
        http::HeaderValue::from_bytes("search__größe".as_bytes()).unwrap(),
    );
    assert_eq!(world.serve(request).refusal(), (400, -32020));
}

#[test]
fn half_a_surrogate_pair_is_no_name() {
    let body =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search__\ud800"}}"#;
    let told = world().call(Ask::post(json!(null)).body(body));
    assert!(
        told.status.is_success() || told.status.is_client_error(),
        "{told:?}"
    );
    assert!(told.json()["error"].is_object());
}

#[test]
fn what_we_do_not_understand_reaches_the_upstream_as_it_was() {
    let script = Script::modern(&["query"]);
    let world = Setup::new().upstream("search", &script).start();
    let arguments = r#"{"big":123456789012345678901234567890,"exp":1E+2,"esc":"\u0041\/","nul":null,"order":{"z":1,"a":2},"deep":[[[{}]]]}"#;
    let body = tool("search__query")
        .message
        .to_string()
        .replace(r#"{"q":"CANARY-ARGUMENT"}"#, arguments);
    world.call(tool("search__query").body(body));
    let sent = world.exchanges("search").pop().unwrap().body();
    assert!(
        String::from_utf8_lossy(&sent).contains(arguments),
        "{}",
        String::from_utf8_lossy(&sent)
    );
}

#[test]
fn results_reach_the_client_as_they_were() {
    let script = Script::modern(&["query"]);
    let result = r#"{"resultType":"complete","content":[{"type":"text","text":"\u00e9","n":1.50}],"structuredContent":{"n":10000000000000000000000.0},"vendor":{"b":1,"a":[]}}"#;
    script.on("tools/call", move |heard| {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#,
            heard.message["id"]
        );
        crate::world::Said::Raw(200, "application/json", body.into_bytes())
    });
    let told = Setup::new()
        .upstream("search", &script)
        .start()
        .tool("search__query");
    assert!(told.text.contains(result.trim_end_matches('}')), "{told:?}");
}

/// Bytes of a good request changed at random: whatever comes, the answer is one of ours.
#[test]
fn no_change_of_bytes_makes_the_gateway_fail() {
    let world = world();
    let good = tool("search__query").message.to_string().into_bytes();
    let mut random = 0x1234_5678_9abc_def0_u64;
    let mut next = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % bound as u64).unwrap()
    };
    for round in 0..1500 {
        let mut body = good.clone();
        for _ in 0..=next(3) {
            let at = next(body.len());
            match next(4) {
                0 => body[at] = u8::try_from(next(256)).unwrap(),
                1 => drop(body.remove(at)),
                2 => body.insert(at, b"{}[]\",:\\0"[next(9)]),
                _ => body.truncate(at.max(1)),
            }
        }
        let told = world.ask(tool("search__query").body(body.clone()));
        let status = told.status.as_u16();
        assert!(
            matches!(status, 200 | 202 | 400 | 404),
            "round {round}: {told:?} to {:?}",
            String::from_utf8_lossy(&body)
        );
    }
    assert!(world.events("fault").is_empty());
}

fn world() -> World {
    Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .start()
}

fn exposed_plain() -> String {
    "search__query".to_owned()
}

/// The encoding a client must use for what a header cannot carry.
fn sentinel(value: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in value.as_bytes().chunks(3) {
        let byte = |n: usize| u32::from(group.get(n).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            let digit = (bits >> (18 - 6 * n)) & 63;
            text.push(if n <= group.len() {
                char::from(DIGITS[digit as usize])
            } else {
                '='
            });
        }
    }
    format!("=?base64?{text}?=")
}
