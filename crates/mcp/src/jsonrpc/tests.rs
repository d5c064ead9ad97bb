use super::*;
use crate::version::ProtocolVersion;

fn one(text: &str) -> Result<Message, ParseError> {
    match parse(text.as_bytes())? {
        Posted::One(message) => Ok(message),
        Posted::Batch(_) => panic!("a batch: {text}"),
    }
}

#[test]
fn messages_are_written_as_they_were_read() {
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":"a-1","method":"tools/call","params":{"name":"x","arguments":{"n":1.50}}}"#,
        r#"{"jsonrpc":"2.0","id":-9223372036854775808,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":0.5}}"#,
        r#"{"jsonrpc":"2.0","id":7,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":7,"result":{"content":[ ],"x":1e2}}"#,
        r#"{"jsonrpc":"2.0","id":"","error":{"code":-32602,"message":"no","data":{"uri":"a:b"}}}"#,
        r#"{"jsonrpc":"2.0","error":{"code":1,"message":""}}"#,
    ] {
        assert_eq!(one(text).unwrap().to_json(), text);
    }
}

#[test]
fn an_error_may_answer_an_unreadable_id_but_a_result_may_not() {
    let error = one(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}"#);
    let Ok(Message::Response(response)) = error else {
        panic!("{error:?}");
    };
    assert_eq!(response.id, None);
    assert!(one(r#"{"jsonrpc":"2.0","id":null,"result":{}}"#).is_err());
    assert!(one(r#"{"jsonrpc":"2.0","result":{}}"#).is_err());
}

#[test]
fn what_is_not_json_is_a_parse_error() {
    for text in [
        "",
        "{",
        "[",
        "[1",
        "{]",
        "nul",
        "{\"jsonrpc\":\"2.0\"",
        "[{]",
    ] {
        let error = parse(text.as_bytes()).unwrap_err();
        assert_eq!(error, ParseError::Parse, "{text:?}");
        assert_eq!(error.to_rpc_error().code, PARSE_ERROR);
        assert_eq!(error.id(), None);
    }
    assert_eq!(parse(b"{\"a\":\"\xff\"}"), Err(ParseError::Parse));
}

#[test]
fn what_is_json_but_no_message_is_an_invalid_request() {
    let too_long = "x".repeat(METHOD_MAX + 1);
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
    let cases: [(&str, Option<i64>); 24] = [
        ("null", None),
        ("1", None),
        ("\"x\"", None),
        ("{}", None),
        ("[]", None),
        (&deep, None),
        (r#"{"id":1,"method":"m"}"#, Some(1)),
        (r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#, Some(1)),
        (r#"{"jsonrpc":2.0,"id":1,"method":"m"}"#, Some(1)),
        (r#"{"jsonrpc":"2.0","id":1}"#, Some(1)),
        (r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#, None),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"m"}"#, None),
        (r#"{"jsonrpc":"2.0","id":1.0,"method":"m"}"#, None),
        (r#"{"jsonrpc":"2.0","id":true,"method":"m"}"#, None),
        (r#"{"jsonrpc":"2.0","id":[1],"method":"m"}"#, None),
        (r#"{"jsonrpc":"2.0","id":1,"method":5}"#, Some(1)),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":[]}"#,
            Some(1),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":null}"#,
            Some(1),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":"a","name":"b"}}"#,
            Some(1),
        ),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"m"}"#, None),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","result":{}}"#,
            Some(1),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}"#,
            Some(1),
        ),
        (r#"{"jsonrpc":"2.0","id":1,"result":[]}"#, Some(1)),
        (
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1.5,"message":""}}"#,
            Some(1),
        ),
    ];
    for (text, id) in cases {
        let error = parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_rpc_error().code, INVALID_REQUEST, "{text}");
        assert_eq!(error.id(), id.map(RequestId::Integer).as_ref(), "{text}");
    }
    let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{too_long}"}}"#);
    assert!(one(&text).is_err());
}

#[test]
fn ids_are_integers_or_short_strings() {
    let id = |text: &str| RequestId::parse(&RawValue::from_string(text.to_owned()).unwrap());
    assert_eq!(id("0"), Some(RequestId::Integer(0)));
    assert_eq!(id("\"0\""), Some(RequestId::String("0".to_owned())));
    let longest = format!("\"{}\"", "i".repeat(ID_MAX));
    assert!(id(&longest).is_some());
    let too_long = format!("\"{}\"", "i".repeat(ID_MAX + 1));
    for text in [
        "9223372036854775808",
        "1e3",
        "0.0",
        "{}",
        "false",
        &too_long,
    ] {
        assert_eq!(id(text), None, "{text}");
    }
}

#[test]
fn each_message_of_a_batch_is_judged_for_itself() {
    let text = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}, 5, {"jsonrpc":"2.0","id":2}, []]"#;
    let Ok(Posted::Batch(batch)) = parse(text.as_bytes()) else {
        panic!("not a batch");
    };
    let good: Vec<_> = batch.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, false, false, false]);
    assert_eq!(
        batch[2].as_ref().unwrap_err().id(),
        Some(&RequestId::Integer(2))
    );
}

#[test]
fn batches_are_bounded() {
    let batch = |count: usize| {
        let ping = r#"{"jsonrpc":"2.0","method":"m"}"#;
        format!("[{}]", vec![ping; count].join(","))
    };
    assert!(parse(batch(BATCH_MAX).as_bytes()).is_ok());
    assert!(parse(batch(BATCH_MAX + 1).as_bytes()).is_err());
}

#[test]
fn debug_shows_no_values() {
    let message = one(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":{"k":"hunter2"}}}"#,
    );
    assert!(!format!("{message:?}").contains("hunter2"));
    let error = RpcError::new(1, "hunter2").with_data("hunter2");
    assert!(!format!("{error:?} {error}").contains("hunter2"));
}

#[test]
fn errors_carry_the_data_their_code_promises() {
    let missing =
        RpcError::missing_client_capability(Object::new().with("sampling", &Object::new()));
    assert_eq!(missing.code, -32021);
    assert_eq!(
        missing.data.unwrap().get(),
        r#"{"requiredCapabilities":{"sampling":{}}}"#
    );
    let version = RpcError::unsupported_version(ProtocolVersion::MODERN, "v999");
    assert_eq!(version.code, -32022);
    assert_eq!(
        version.data.unwrap().get(),
        r#"{"supported":["2026-07-28"],"requested":"v999"}"#
    );
    let resource = RpcError::resource_not_found("a:b");
    assert_eq!(resource.code, -32602);
    assert_eq!(resource.data.unwrap().get(), r#"{"uri":"a:b"}"#);
}

#[test]
fn no_damage_to_a_message_does_harm() {
    let text = r#"[{"jsonrpc":"2.0","id":"\u00e9","method":"tools/call","params":{"a":[1.5e3,null]}},{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"m","data":{}}}]"#;
    assert!(parse(text.as_bytes()).is_ok());
    for cut in 0..text.len() {
        assert_eq!(parse(&text.as_bytes()[..cut]), Err(ParseError::Parse));
    }
    for at in 0..text.len() {
        for byte in 0..=u8::MAX {
            let mut damaged = text.as_bytes().to_vec();
            damaged[at] = byte;
            if let Ok(Posted::One(message)) = parse(&damaged) {
                assert_eq!(one(&message.to_json()), Ok(message));
            }
        }
    }
}
