use serde_json::value::RawValue;

use super::*;

fn object(text: &str) -> Object {
    Object::parse(text.as_bytes()).unwrap()
}

fn schema(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

fn headers(version: &str, method: &str, name: Option<&str>) -> RoutingHeaders {
    RoutingHeaders {
        protocol_version: Some(version.to_owned()),
        method: Some(method.to_owned()),
        name: name.map(str::to_owned),
        duplicated: None,
    }
}

#[test]
fn values_that_a_header_cannot_carry_are_encoded() {
    for (value, header) in [
        ("us-west1", "us-west1"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ("=?base64?open", "=?base64?open"),
        ("", "=?base64??="),
        ("a b", "a b"),
    ] {
        assert_eq!(encode_value(value), header);
        assert_eq!(decode_value(header).unwrap(), value);
    }
}

#[test]
fn every_value_survives_encoding() {
    let mut values: Vec<String> = (0..0x250u32)
        .filter_map(char::from_u32)
        .flat_map(|c| {
            [
                c.to_string(),
                format!("{c}x"),
                format!("x{c}"),
                format!("x{c}x"),
            ]
        })
        .collect();
    values.extend(["=?base64?=".to_owned(), "=?base64??=".to_owned()]);
    for value in values {
        let header = encode_value(&value);
        assert!(header.bytes().all(|byte| (0x20..0x7F).contains(&byte)));
        assert_eq!(decode_value(&header).unwrap(), value);
    }
}

#[test]
fn the_marker_is_decoded_strictly_and_only_in_lower_case() {
    for (header, value) in [
        (" \tplain\t ", Ok("plain")),
        ("=?BASE64?QUJD?=", Ok("=?BASE64?QUJD?=")),
        ("=?base64?QUJD", Ok("=?base64?QUJD")),
        ("QUJD?=", Ok("QUJD?=")),
        (" =?base64?QUJD?= ", Ok("ABC")),
        ("=?base64?QUI?=", Err(HeaderError::MalformedBase64)),
        ("=?base64?QUJ=?=", Err(HeaderError::MalformedBase64)),
        ("=?base64?QU-_?=", Err(HeaderError::MalformedBase64)),
        ("=?base64?QU JD?=", Err(HeaderError::MalformedBase64)),
        ("=?base64?/w==?=", Err(HeaderError::MalformedBase64)),
        ("caf\u{e9}", Err(HeaderError::InvalidCharacter)),
        ("a\u{7f}", Err(HeaderError::InvalidCharacter)),
    ] {
        assert_eq!(
            decode_value(header).as_deref(),
            value.as_deref(),
            "{header}"
        );
    }
}

#[test]
fn the_name_header_mirrors_what_the_method_is_about() {
    let params = object(r#"{"name":"n","uri":"u:r","taskId":"t"}"#);
    for (method, name) in [
        ("tools/call", Some("n")),
        ("prompts/get", Some("n")),
        ("resources/read", Some("u:r")),
        ("tasks/get", Some("t")),
        ("tasks/update", Some("t")),
        ("tasks/cancel", Some("t")),
        ("tools/list", None),
        ("completion/complete", None),
    ] {
        assert_eq!(expected_name(method, &params).as_deref(), name, "{method}");
        assert_eq!(expected_name(method, &Object::new()), None);
    }
}

#[test]
fn headers_that_say_what_the_body_says_agree() {
    let params = object(r#"{"name":"größe"}"#);
    for name in ["=?base64?Z3LDtsOfZQ==?=", " =?base64?Z3LDtsOfZQ==?= "] {
        let headers = headers(" 2026-07-28", "tools/call ", Some(name));
        assert_eq!(agree(&headers, "2026-07-28", "tools/call", &params), Ok(()));
    }
    // No name in the body: what is wrong with that is not the header's to say.
    let headers = headers("2026-07-28", "tools/call", None);
    assert_eq!(
        agree(&headers, "2026-07-28", "tools/call", &Object::new()),
        Ok(())
    );
}

#[test]
fn a_header_that_says_something_else_is_named() {
    let params = object(r#"{"name":"echo"}"#);
    let good = || headers("2026-07-28", "tools/call", Some("echo"));
    type Change = fn(&mut RoutingHeaders);
    let cases: [(Change, &str); 9] = [
        (|h| h.protocol_version = None, "MCP-Protocol-Version"),
        (
            |h| h.protocol_version = Some("v999".into()),
            "MCP-Protocol-Version",
        ),
        (|h| h.method = None, "Mcp-Method"),
        (|h| h.method = Some("Tools/Call".into()), "Mcp-Method"),
        (|h| h.name = None, "Mcp-Name"),
        (|h| h.name = Some("Echo".into()), "Mcp-Name"),
        (|h| h.name = Some("=?base64?ZWNobw?=".into()), "Mcp-Name"),
        (|h| h.name = Some("\u{e9}cho".into()), "Mcp-Name"),
        (|h| h.duplicated = Some("Mcp-Name"), "Mcp-Name"),
    ];
    assert_eq!(agree(&good(), "2026-07-28", "tools/call", &params), Ok(()));
    for (change, name) in cases {
        let mut headers = good();
        change(&mut headers);
        let error = agree(&headers, "2026-07-28", "tools/call", &params).unwrap_err();
        assert_eq!(error.code, HEADER_MISMATCH);
        assert!(error.message.contains(name), "{name}: {}", error.message);
    }
}

#[test]
fn annotated_properties_are_found_at_any_depth() {
    let params = header_params(&schema(
        r#"{"type":"object","properties":{
            "region":{"type":"string","x-mcp-header":"Region"},
            "x-mcp-header":{"type":"string"},
            "options":{"type":"object","properties":{
                "limit":{"type":"integer","x-mcp-header":"Limit"},
                "dry":{"type":"boolean","x-mcp\u002dheader":"Dry-Run"}}},
            "any":{"default":{"x-mcp-header":"data"},"enum":[{"x-mcp-header":"data"}]}},
          "$defs":{"x-mcp-header":{"type":"string"}}}"#,
    ))
    .unwrap();
    let found: Vec<_> = params
        .iter()
        .map(|param| (param.header_name(), param.path.join("."), param.kind))
        .collect();
    assert_eq!(
        found,
        [
            (
                "mcp-param-region".into(),
                "region".into(),
                ParamKind::String
            ),
            (
                "mcp-param-limit".into(),
                "options.limit".into(),
                ParamKind::Integer
            ),
            (
                "mcp-param-dry-run".into(),
                "options.dry".into(),
                ParamKind::Boolean
            ),
        ]
    );
    assert_eq!(header_params(&schema("{}")), Ok(Vec::new()));
    assert_eq!(header_params(&schema("true")), Ok(Vec::new()));
}

#[test]
fn an_invalid_annotation_invalidates_the_tool() {
    let p = |property: &str| format!(r#"{{"properties":{{"p":{property}}}}}"#);
    let annotated = r#"{"type":"string","x-mcp-header":"H"}"#;
    let mut cases = vec![
        (
            p(r#"{"type":"string","x-mcp-header":""}"#),
            HeaderError::NotAToken,
        ),
        (
            p(r#"{"type":"string","x-mcp-header":"a b"}"#),
            HeaderError::NotAToken,
        ),
        (
            p(r#"{"type":"string","x-mcp-header":"a:b"}"#),
            HeaderError::NotAToken,
        ),
        (
            p(r#"{"type":"string","x-mcp-header":"a\nb"}"#),
            HeaderError::NotAToken,
        ),
        (
            p(r#"{"type":"string","x-mcp-header":"é"}"#),
            HeaderError::NotAToken,
        ),
        (
            p(r#"{"type":"string","x-mcp-header":true}"#),
            HeaderError::NotAToken,
        ),
        (
            p(r#"{"type":"number","x-mcp-header":"H"}"#),
            HeaderError::UnsupportedType,
        ),
        (
            p(r#"{"type":"object","x-mcp-header":"H"}"#),
            HeaderError::UnsupportedType,
        ),
        (
            p(r#"{"type":["string","null"],"x-mcp-header":"H"}"#),
            HeaderError::UnsupportedType,
        ),
        (p(r#"{"x-mcp-header":"H"}"#), HeaderError::UnsupportedType),
        (annotated.to_owned(), HeaderError::Unreachable),
        (
            format!(
                r#"{{"properties":{{"a":{annotated},"b":{}}}}}"#,
                annotated.replace('H', "h")
            ),
            HeaderError::NotUnique,
        ),
    ];
    for keyword in [
        "items",
        "not",
        "if",
        "then",
        "else",
        "additionalProperties",
        "contains",
    ] {
        cases.push((
            p(&format!(r#"{{"{keyword}":{annotated}}}"#)),
            HeaderError::Unreachable,
        ));
        let inner = format!(r#"{{"{keyword}":{}}}"#, p(annotated));
        cases.push((p(&inner), HeaderError::Unreachable));
    }
    for keyword in ["allOf", "anyOf", "oneOf", "prefixItems"] {
        cases.push((
            format!(r#"{{"{keyword}":[{{}},{annotated}]}}"#),
            HeaderError::Unreachable,
        ));
    }
    for keyword in [
        "$defs",
        "definitions",
        "patternProperties",
        "dependentSchemas",
    ] {
        cases.push((
            format!(r#"{{"{keyword}":{{"d":{annotated}}}}}"#),
            HeaderError::Unreachable,
        ));
    }
    for (text, error) in cases {
        assert_eq!(header_params(&schema(&text)), Err(error), "{text}");
    }
}

fn param(kind: ParamKind) -> HeaderParam {
    HeaderParam {
        header: "X".to_owned(),
        path: vec!["o".to_owned(), "v".to_owned()],
        kind,
    }
}

#[test]
fn arguments_are_rendered_as_header_text() {
    for (value, header) in [
        (r#""us-west1""#, Ok(Some("us-west1"))),
        (r#""é""#, Ok(Some("=?base64?w6k=?="))),
        ("42", Ok(Some("42"))),
        ("-7", Ok(Some("-7"))),
        ("42.0", Ok(Some("42"))),
        ("4.2e1", Ok(Some("42"))),
        ("9007199254740991", Ok(Some("9007199254740991"))),
        ("true", Ok(Some("true"))),
        ("null", Ok(None)),
        ("9007199254740992", Err(HeaderError::UnfitArgument)),
        ("-9007199254740992", Err(HeaderError::UnfitArgument)),
        ("1e999", Err(HeaderError::UnfitArgument)),
        ("1.5", Err(HeaderError::UnfitArgument)),
        ("[]", Err(HeaderError::UnfitArgument)),
        ("{}", Err(HeaderError::UnfitArgument)),
    ] {
        let arguments = object(&format!(r#"{{"o":{{"v":{value}}}}}"#));
        let rendered = render(&param(ParamKind::String), &arguments);
        assert_eq!(
            rendered.as_ref().map(Option::as_deref),
            header.as_ref().map(|h| *h),
            "{value}"
        );
    }
    for arguments in ["{}", r#"{"o":null}"#, r#"{"o":5}"#, r#"{"o":{}}"#] {
        assert_eq!(
            render(&param(ParamKind::String), &object(arguments)),
            Ok(None)
        );
    }
}

#[test]
fn argument_headers_must_say_what_the_arguments_say() {
    use ParamKind::{Boolean, Integer, String};
    for (kind, value, header, agrees) in [
        (String, r#""a""#, Some("a"), true),
        (String, r#""a""#, Some("=?base64?YQ==?="), true),
        (String, r#""a""#, Some("A"), false),
        (String, r#""a""#, Some("=?base64?YQ?="), false),
        (String, r#""a""#, None, false),
        (String, "null", None, true),
        (String, "null", Some("a"), false),
        (String, "42", Some("42"), true),
        (String, r#""42""#, Some("42.0"), false),
        (Integer, "42", Some("42"), true),
        (Integer, "42", Some("42.0"), true),
        (Integer, "42.0", Some("42"), true),
        (Integer, "42", Some("4.2e1"), false),
        (Integer, "42", Some("+42"), false),
        (Integer, "42", Some("43"), false),
        (Integer, "42", None, false),
        (Integer, "1.5", None, true),
        (Integer, "1.5", Some("1.5"), false),
        (Boolean, "true", Some("true"), true),
        (Boolean, "true", Some("True"), false),
        (Boolean, "true", Some("1"), false),
    ] {
        let arguments = object(&format!(r#"{{"o":{{"v":{value}}}}}"#));
        let lookup = |name: &str| {
            assert_eq!(name, "mcp-param-x");
            header.map(str::to_owned)
        };
        let result = agree_params(&[param(kind)], &arguments, lookup);
        assert_eq!(result.is_ok(), agrees, "{kind:?} {value} {header:?}");
        if let Err(error) = result {
            assert_eq!(error.code, HEADER_MISMATCH);
            assert!(error.message.contains("mcp-param-x"));
        }
    }
}
