//! What may come back from an upstream, whole or in pieces, and what is made of it.

use serde_json::json;

use crate::upstream::upstream;
use crate::world::{Answer, Said, Script, Step, complete, tool};

#[test]
fn answers_that_are_not_mcp_are_errors_in_words() {
    let answers: [(&str, Answer); 14] = [
        ("HTML", |_| {
            Said::Raw(200, "text/html", b"<html>hello</html>".to_vec())
        }),
        ("an HTML error", |_| {
            Said::Raw(502, "text/html", b"<html>Bad gateway</html>".to_vec())
        }),
        ("empty", |_| Said::Raw(200, "application/json", Vec::new())),
        ("no content", |_| {
            Said::Raw(204, "application/json", Vec::new())
        }),
        ("accepted", |_| {
            Said::Raw(202, "application/json", Vec::new())
        }),
        ("half a message", |_| {
            Said::Raw(
                200,
                "application/json",
                b"{\"jsonrpc\":\"2.0\",\"id\":".to_vec(),
            )
        }),
        ("bytes", |_| {
            Said::Raw(200, "application/json", vec![0xff; 64])
        }),
        ("a redirect", |_| Said::Raw(307, "text/plain", Vec::new())),
        ("another id", |_| {
            Said::Raw(
                200,
                "application/json",
                br#"{"jsonrpc":"2.0","id":999999,"result":{}}"#.to_vec(),
            )
        }),
        ("the id as text", |heard| {
            let id = heard.message["id"].to_string();
            Said::Raw(
                200,
                "application/json",
                json!({ "jsonrpc": "2.0", "id": id, "result": {} })
                    .to_string()
                    .into_bytes(),
            )
        }),
        ("a result that is a list", |heard| {
            Said::Result(json!([heard.message["id"]]))
        }),
        ("an unknown kind of result", |_| {
            Said::Result(json!({ "resultType": "vendor", "content": [] }))
        }),
        ("a task nobody asked for", |_| {
            Said::Result(json!({ "resultType": "task", "taskId": "t" }))
        }),
        ("an empty stream", |_| Said::Stream(Vec::new())),
    ];
    for (what, answer) in answers {
        let script = Script::modern(&["a"]);
        script.on("tools/call", answer);
        let world = upstream(&script);
        let told = world.tool("up__a");
        assert_eq!(
            (told.status.as_u16(), told.reason()),
            (502, "upstream_invalid"),
            "{what}: {told:?}"
        );
        assert_eq!(told.error()["data"]["upstream"], "up");
        assert_eq!(
            world.count("up", "tools/call"),
            1,
            "{what}: never asked twice"
        );
        assert_eq!(
            world.asked("up"),
            ["server/discover", "tools/list", "tools/call"],
            "{what}: nothing is followed"
        );
    }
}

#[test]
fn errors_the_upstream_means_reach_the_client() {
    let script = Script::modern(&["a"]);
    let world = upstream(&script);
    for (status, code) in [
        (200, -32602),
        (400, -32602),
        (404, -32601),
        (500, -32603),
        (200, 1001),
        (200, -32700),
    ] {
        script.on("tools/call", move |heard| {
            let error =
                json!({ "code": code, "message": "Said the tool", "data": { "why": [1.0] } });
            Said::Refusal(
                status,
                json!({ "jsonrpc": "2.0", "id": heard.message["id"], "error": error }),
            )
        });
        let told = world.tool("up__a");
        assert_eq!(
            told.error(),
            &json!({ "code": code, "message": "Said the tool", "data": { "why": [1.0] } })
        );
    }
    script.on("tools/call", |_| {
        Said::Result(json!({ "resultType": "complete", "content": [], "isError": true }))
    });
    let told = world.tool("up__a");
    assert_eq!(
        (told.status.as_u16(), &told.result()["isError"]),
        (200, &json!(true))
    );
    assert_eq!(world.audits().pop().unwrap()["outcome"], "tool_error");
}

#[test]
fn a_missing_capability_reaches_the_client_and_a_quarrel_over_headers_does_not() {
    let script = Script::modern(&["a"]);
    let world = upstream(&script);
    for (code, told_code) in [(-32021, -32021), (-32020, -31001), (-32022, -31001)] {
        script.on("tools/call", move |heard| {
            let error = json!({ "code": code, "message": "x", "data": { "requiredCapabilities": { "sampling": {} } } });
            Said::Refusal(400, json!({ "jsonrpc": "2.0", "id": heard.message["id"], "error": error }))
        });
        assert_eq!(world.tool("up__a").code(), told_code, "{code}");
    }
}

#[test]
fn codes_without_a_meaning_across_eras_keep_their_message() {
    let script = Script::legacy("2025-06-18", &["a"]);
    script.on("tools/call", |_| Said::Error(-32010));
    let told = upstream(&script).tool("up__a");
    assert_eq!(
        (told.code(), told.error()["message"].as_str()),
        (-32603, Some("said the upstream"))
    );
}

#[test]
fn a_refused_credential_is_not_the_clients_problem_to_solve() {
    for status in [401, 403] {
        let script = Script::modern(&["a"]);
        let world = upstream(&script);
        script.on("tools/call", move |_| {
            Said::Raw(status, "text/plain", b"Bearer realm=internal".to_vec())
        });
        let told = world.tool("up__a");
        assert_eq!(
            (told.status.as_u16(), told.reason()),
            (502, "upstream_unauthorized")
        );
        assert_eq!(told.header("www-authenticate"), "");
    }
}

#[test]
fn oversized_answers_are_not_read() {
    let script = Script::modern(&["a"]);
    let world = upstream(&script);
    script.on("tools/call", |_| {
        Said::Result(complete(&"x".repeat(9 * 1024 * 1024)))
    });
    let told = world.tool("up__a");
    assert_eq!(told.reason(), "upstream_invalid");
    assert!(
        told.error()["message"]
            .as_str()
            .unwrap()
            .contains("larger than"),
        "{told:?}"
    );
    script.on("tools/call", |heard| {
        Said::Stream(vec![Step::Send(
            heard.response(&complete(&"x".repeat(5 * 1024 * 1024))),
        )])
    });
    assert_eq!(world.tool("up__a").reason(), "upstream_invalid");
    script.on("tools/call", |_| {
        Said::Stream(vec![
            Step::Bytes(b"data: ".to_vec()),
            Step::Bytes(vec![b'x'; 5 * 1024 * 1024]),
        ])
    });
    assert_eq!(world.tool("up__a").reason(), "upstream_invalid");
    script.on("tools/call", |_| {
        Said::Result(complete(&"x".repeat(7 * 1024 * 1024)))
    });
    assert_eq!(
        world.tool("up__a").said().len(),
        7 * 1024 * 1024,
        "what is within bounds passes"
    );
}

#[test]
fn events_may_be_split_anywhere_and_written_in_any_legal_form() {
    let script = Script::modern(&["a"]);
    let world = upstream(&script);
    let forms: [fn(&str, &str) -> String; 7] = [
        |note, end| format!("event: message\ndata: {note}\n\nevent: message\ndata: {end}\n\n"),
        |note, end| format!("data:{note}\r\n\r\ndata:{end}\r\n\r\n"),
        |note, end| format!("data: {note}\r\rdata: {end}\r\r"),
        |note, end| {
            format!(
                "\u{feff}: hello\n\nid: 1\ndata:\n\nid: 2\nretry: 10\ndata: {note}\n\n: ping\n\ndata: {end}\n\n"
            )
        },
        |note, end| {
            let (a, b) = end.split_once(",").unwrap();
            format!("data: {note}\nevent: message\n\ndata: {a},\ndata: {b}\n\n")
        },
        |note, end| format!("unknown: x\ndata: {note}\n\nevent: message\n\ndata: {end}\n\n"),
        |note, end| format!("data: {note}\n\ndata: {end}\n"),
    ];
    for (number, form) in forms.into_iter().enumerate() {
        for at in 0..400 {
            script.on("tools/call", move |heard| {
                let text = form(
                    &heard.progress(1).to_string(),
                    &heard.response(&complete("größe")).to_string(),
                );
                let (head, tail) = text.as_bytes().split_at(at.min(text.len()));
                Said::Stream(vec![Step::Bytes(head.to_vec()), Step::Bytes(tail.to_vec())])
            });
            let told = world.call(tool("up__a").meta("progressToken", json!("mine")));
            assert_eq!(told.said(), "größe", "form {number} split at {at}");
            assert_eq!(
                told.messages[0]["params"]["progressToken"], "mine",
                "form {number} split at {at}"
            );
        }
    }
}

#[test]
fn a_server_that_adds_no_result_type_means_complete() {
    let script = Script::modern(&["a"]);
    script.on("tools/call", |_| Said::Result(json!({ "content": [] })));
    assert_eq!(
        upstream(&script).tool("up__a").result()["resultType"],
        "complete"
    );
}

#[test]
fn an_error_without_an_id_answers_the_only_request_there_was() {
    let script = Script::modern(&["a"]);
    script.on("tools/call", |_| {
        let error = json!({ "code": -32602, "message": "x" });
        Said::Refusal(400, json!({ "jsonrpc": "2.0", "id": null, "error": error }))
    });
    assert_eq!(upstream(&script).tool("up__a").code(), -32602);
}
