//! The rows.

use std::time::Duration;

use super::{Answer, Fault, OnWorkerd, PATIENCE, Part, Row, Told, When};

/// More than the gateway reads of one answer.
const TOO_LARGE: usize = 9 * 1024 * 1024;
/// What a redirection points to; nobody may ask there.
pub const ELSEWHERE: &str = "/elsewhere";

const RESULT: &str = r#"{"jsonrpc":"2.0","id":$id,"result":{"resultType":"complete","content":[{"type":"text","text":"done"}],"isError":false}}"#;
const OTHER_RESULT: &str = r#"{"jsonrpc":"2.0","id":$id,"result":{"resultType":"complete","content":[{"type":"text","text":"again"}],"isError":false}}"#;
const WRONG_ID: &str = r#"{"jsonrpc":"2.0","id":"nobody's","result":{"resultType":"complete","content":[{"type":"text","text":"another's"}],"isError":false}}"#;
const NOTIFICATION: &str = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":\"nobody's\",\"progress\":1}}\n\n";
const ERROR: &str =
    r#"{"jsonrpc":"2.0","id":$id,"error":{"code":-32603,"message":"said the upstream"}}"#;

/// Every row.
pub fn table() -> Vec<Row> {
    [cut(), slow(), garbage(), mistaken(), endless(), statuses()].concat()
}

fn cut() -> Vec<Row> {
    let refused = Row {
        asked: 0,
        task: "completed",
        on_workerd: Some(OnWorkerd {
            reason: "upstream_lost",
            // The tool may have run, for all that is known. A legacy upstream is asked for a
            // session first, and that certainly was not the call.
            tasks: ["failed", "completed"],
            why: "workerd reports a refused connection as a lost one",
        }),
        ..row(
            "refuses",
            Fault::Refuses,
            failed(502, "upstream_unavailable"),
        )
    };
    let half = || text(&RESULT[..60]);
    vec![
        refused,
        row(
            "resets before the head",
            Fault::Cuts,
            failed(502, "upstream_lost"),
        ),
        row(
            "answers what is not HTTP",
            Fault::NotHttp,
            failed(502, "upstream_lost"),
        ),
        row("resets after the head", json(vec![Part::Reset]), invalid()),
        row(
            "resets within the body",
            json(vec![half(), Part::Reset]),
            invalid(),
        ),
        row("ends within the body", json(vec![half()]), invalid()),
        row(
            "resets a stream",
            stream(vec![text(NOTIFICATION), Part::Reset]),
            invalid(),
        ),
        row(
            "ends a stream too soon",
            stream(vec![text(NOTIFICATION)]),
            invalid(),
        ),
    ]
}

fn slow() -> Vec<Row> {
    let tick = || Part::Pause(Duration::from_millis(100));
    let pieces = |count: usize| {
        let size = RESULT.len().div_ceil(count);
        let cut = RESULT.as_bytes().chunks(size);
        cut.flat_map(|piece| [text(&String::from_utf8_lossy(piece)), tick()])
            .collect()
    };
    vec![
        late("never answers", Fault::Silent),
        late(
            "never goes on after the head",
            json(vec![Part::Pause(PATIENCE * 4)]),
        ),
        late("drips beyond its time", json(pieces(RESULT.len()))),
        done("drips within its time", json(pieces(3))),
    ]
}

fn garbage() -> Vec<Row> {
    let deep = "[".repeat(100_000);
    vec![
        row(
            "answers a page",
            says(200, "text/html", vec![text("<html>")]),
            invalid(),
        ),
        row("answers nothing", json(Vec::new()), invalid()),
        row(
            "answers JSON that is no message",
            json(vec![text(r#"{"a":1}"#)]),
            invalid(),
        ),
        row(
            "answers bytes",
            json(vec![Part::Bytes(b"\xff\xfe\x00")]),
            invalid(),
        ),
        row(
            "answers JSON beyond any depth",
            json(vec![text(&deep)]),
            invalid(),
        ),
        row(
            "streams what is no message",
            stream(vec![text("data: <html>\n\n")]),
            invalid(),
        ),
        row(
            "answers more than is read",
            json(vec![
                text(r#"{"a":""#),
                Part::Fill(TOO_LARGE),
                text(r#""}"#),
            ]),
            invalid(),
        ),
        row(
            "streams an event larger than is read",
            stream(vec![text("data: "), Part::Fill(TOO_LARGE), text("\n\n")]),
            invalid(),
        ),
    ]
}

fn mistaken() -> Vec<Row> {
    let event = |message: &str| text(&format!("data: {message}\n\n"));
    vec![
        row(
            "answers under another id",
            json(vec![text(WRONG_ID)]),
            invalid(),
        ),
        done(
            "streams another's answer first",
            stream(vec![event(WRONG_ID), event(RESULT)]),
        ),
        done(
            "answers twice",
            stream(vec![event(RESULT), event(OTHER_RESULT)]),
        ),
        done("answers as a server of the other era", Fault::Turns),
    ]
}

fn endless() -> Vec<Row> {
    let often = Duration::from_millis(50);
    vec![
        late(
            "streams comments without end",
            stream(vec![Part::Forever(": still here\n\n", often)]),
        ),
        late(
            "streams notifications without end",
            stream(vec![Part::Forever(NOTIFICATION, often)]),
        ),
        done(
            "goes on without end after its answer",
            stream(vec![
                text(&format!("data: {RESULT}\n\n")),
                Part::Forever(NOTIFICATION, often),
            ]),
        ),
    ]
}

fn statuses() -> Vec<Row> {
    let after = |status, seconds: &str| {
        let mut answer = said(status, "text/plain", vec![text("busy")]);
        answer.headers.push(("retry-after", seconds.to_owned()));
        Fault::Says(answer)
    };
    let busy = |retry_after| {
        let failed = failed(503, "upstream_busy");
        Some(Told {
            retry_after,
            ..failed?
        })
    };
    let mut redirect = said(302, "text/plain", Vec::new());
    redirect.headers.push(("location", ELSEWHERE.to_owned()));
    let own_words = Told {
        status: 200,
        code: -32603,
        reason: "",
        retry_after: None,
    };
    vec![
        row("answers 500", after(500, "7"), invalid()),
        // It did not act, so a task waits and has it called again.
        Row {
            task: "completed",
            ..row(
                "answers 429 with Retry-After",
                after(429, "7"),
                busy(Some(7)),
            )
        },
        row(
            "answers 503 with Retry-After",
            after(503, "7"),
            busy(Some(7)),
        ),
        row(
            "answers 503 with an endless Retry-After",
            after(503, "99999999"),
            busy(Some(3600)),
        ),
        row(
            "answers 503 alone",
            says(503, "text/plain", Vec::new()),
            busy(None),
        ),
        row(
            "answers 503 with an error of its own",
            says(503, "application/json", vec![text(ERROR)]),
            Some(own_words),
        ),
        row("redirects", Fault::Says(redirect), invalid()),
    ]
}

fn row(name: &'static str, fault: Fault, told: Option<Told>) -> Row {
    Row {
        name,
        fault,
        told,
        when: When::Soon,
        asked: 1,
        task: "failed",
        on_workerd: None,
    }
}

/// The client gets the result.
fn done(name: &'static str, fault: Fault) -> Row {
    Row {
        task: "completed",
        ..row(name, fault, None)
    }
}

/// The client is told that it took too long.
fn late(name: &'static str, fault: Fault) -> Row {
    Row {
        when: When::InTime,
        ..row(name, fault, failed(504, "upstream_timeout"))
    }
}

fn invalid() -> Option<Told> {
    failed(502, "upstream_invalid")
}

fn failed(status: u16, reason: &'static str) -> Option<Told> {
    Some(Told {
        status,
        code: -31_001,
        reason,
        retry_after: None,
    })
}

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

fn json(parts: Vec<Part>) -> Fault {
    says(200, "application/json", parts)
}

fn stream(parts: Vec<Part>) -> Fault {
    says(200, "text/event-stream", parts)
}

fn says(status: u16, kind: &str, parts: Vec<Part>) -> Fault {
    Fault::Says(said(status, kind, parts))
}

fn said(status: u16, kind: &str, parts: Vec<Part>) -> Answer {
    Answer {
        status,
        headers: vec![("content-type", kind.to_owned())],
        parts,
    }
}
