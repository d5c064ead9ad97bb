//! The table of faults on the function in its real runtime: servers on raw sockets that refuse,
//! cut, hang, drip and lie, and what a client of either era is told, in time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::net::sockopt::set_socket_linger;
use serde_json::{Value, json};

use crate::call::{Answer, Call, send};
use crate::faults::server::{Flawed, Heard};
use crate::faults::{self, DONE, Fault, PATIENCE, Part, Row, TOOL, When};
use crate::gateway::{Gateway, Host};
use crate::stopwatch::{Stopwatch, wait_for};

/// What may come on top of an upstream's own time, on a machine that is busy.
const SLACK: Duration = Duration::from_secs(3);
/// Longer than it takes until it may be doubted what an upstream is.
const A_WHILE: Duration = Duration::from_millis(1_200);
/// How long a server takes to close its door, and to open it again.
const DOOR_MAX: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let stage: Arc<OnceLock<Stage>> = Arc::default();
    let rows = faults::table().into_iter().enumerate();
    let trials = rows.map(|(index, row)| {
        let stage = Arc::clone(&stage);
        let name = format!("fault::an upstream that {} is answered for so", row.name);
        Trial::test(name, move || {
            stage.get_or_init(Stage::set).holds(index, &row);
            Ok(())
        })
    });
    let tasks = [true, false].map(|modern| {
        let name = format!(
            "fault::no fault of a {} upstream loses a task or runs it twice",
            era(modern)
        );
        Trial::test(name, move || {
            Tasks::set(modern).hold();
            Ok(())
        })
    });
    trials.chain(tasks).collect()
}

const fn era(modern: bool) -> &'static str {
    if modern { "modern" } else { "legacy" }
}

/// Rows that are tried at the same time.
const PAIRS: usize = 4;

/// One gateway, and pairs of servers, one of either era. Rows take turns with them.
struct Stage {
    gateway: Gateway,
    pairs: Vec<Mutex<[Fixture; 2]>>,
}

impl Stage {
    fn set() -> Self {
        let (mut upstreams, mut pairs) = (Vec::new(), Vec::new());
        for index in 0..PAIRS {
            let pair = [true, false].map(Fixture::start);
            upstreams.extend(pair.iter().map(|server| {
                let name = name(index, server.modern);
                json!({ "name": name, "url": server.url(), "timeoutMs": PATIENCE.as_millis() })
            }));
            pairs.push(Mutex::new(pair));
        }
        // Where instances take turns, one may meet nothing but faults.
        let settings = json!({
            "upstreams": upstreams, "circuitBreaker": { "failureThreshold": 1_000 },
        });
        Self {
            gateway: Gateway::start("faults", settings),
            pairs,
        }
    }

    fn holds(&self, index: usize, row: &Row) {
        let index = index % PAIRS;
        let pair = self.pairs[index].lock();
        let pair = pair.unwrap_or_else(PoisonError::into_inner);
        for server in pair.iter() {
            for modern in [true, false] {
                self.meets(index, row, server, modern);
            }
        }
    }

    /// A client meets the fault, and then the server as it was.
    fn meets(&self, index: usize, row: &Row, server: &Fixture, modern: bool) {
        let what = format!("{} client, {} upstream", era(modern), era(server.modern));
        let call = || self.call(&name(index, server.modern), modern);
        // Whatever the row before it left.
        server.heal();
        assert_done(&call(), &format!("{what}, before"));
        server.fail(&row.fault);
        let (asked, watch) = (server.flawed.asked(), Stopwatch::start());
        let told = call();
        let took = watch.elapsed();
        assert!(took < PATIENCE + SLACK, "{what}: {took:?}, {told:?}");
        if row.when == When::InTime {
            assert!(took >= PATIENCE, "{what}: {took:?}, {told:?}");
        }
        assert_told(&told, row, modern, &what);
        assert_eq!(server.flawed.asked() - asked, row.asked, "{what}: {told:?}");
        if matches!(row.fault, Fault::Turns) {
            std::thread::sleep(A_WHILE);
        }
        server.heal();
        assert_done(&call(), &format!("{what}, well again"));
        assert_eq!(server.flawed.strayed(), 0, "{what}");
    }

    fn call(&self, upstream: &str, modern: bool) -> Answer {
        let params = json!({ "name": format!("{upstream}__{TOOL}"), "arguments": {} });
        let call = match modern {
            true => Call::modern("tools/call", params),
            false => Call::legacy("tools/call", params),
        };
        send(&self.gateway.mcp(), &call.with_token(self.gateway.token()))
    }
}

fn name(index: usize, modern: bool) -> String {
    format!("{}{index}", era(modern))
}

/// How long until a first run has met a fault: a queue brings its message in time.
const RUN_MAX: Duration = Duration::from_secs(30);
/// How long after its upstream is well again a task may still run: the pause before its next
/// run, which an upstream may ask for, and the queue's own time.
const END_MAX: Duration = Duration::from_secs(60);
/// How often a task is asked for.
const POLL: Duration = Duration::from_millis(500);

/// One gateway whose calls are tasks, and a server of one era for each row, so that all tasks
/// can be under way at once.
struct Tasks {
    gateway: Gateway,
    rows: Vec<(Row, Fixture)>,
}

impl Tasks {
    fn set(modern: bool) -> Self {
        let rows = faults::table().into_iter();
        let rows: Vec<_> = rows.map(|row| (row, Fixture::start(modern))).collect();
        let upstreams = rows.iter().enumerate().map(|(index, (_, server))| {
            let name = name(index, modern);
            json!({ "name": name, "url": server.url(), "timeoutMs": PATIENCE.as_millis() })
        });
        let rules = (0..rows.len()).map(|index| {
            let name = format!("{}__{TOOL}", name(index, modern));
            json!({ "name": name, "execution": "task" })
        });
        let settings = json!({
            "upstreams": upstreams.collect::<Value>(),
            "tools": rules.collect::<Value>(),
            "tasks": {
                "timeoutMs": PATIENCE.as_millis(),
                "pollLimit": { "requests": 100_000, "windowMs": 60_000 },
            },
        });
        Self {
            gateway: Gateway::start(&format!("faults-{}", era(modern)), settings),
            rows,
        }
    }

    fn hold(&self) {
        let listed = self.ask("tools/list", json!({})).json();
        let count = listed["result"]["tools"].as_array().map(Vec::len);
        assert_eq!(count, Some(self.rows.len()), "{listed}");
        // Whoever runs a task knows what its upstream was, and may doubt it.
        std::thread::sleep(A_WHILE);
        std::thread::scope(|scope| {
            for (index, (row, server)) in self.rows.iter().enumerate() {
                scope.spawn(move || self.ends(index, row, server));
            }
        });
    }

    /// A task whose first run meets the fault, and whose next one finds the server well.
    fn ends(&self, index: usize, row: &Row, server: &Fixture) {
        let what = format!("{}: a task, {} upstream", row.name, era(server.modern));
        server.fail(&row.fault);
        let tool = format!("{}__{TOOL}", name(index, server.modern));
        let created = self.ask("tools/call", json!({ "name": tool, "arguments": {} }));
        let created = created.json();
        let Some(id) = created["result"]["taskId"].as_str() else {
            // Who takes the call may not know the tool, and nobody listens to be asked for it.
            let reason = &created["error"]["data"]["reason"];
            assert!(matches!(row.fault, Fault::Refuses), "{what}: {created}");
            assert_eq!(reason, "upstream_unavailable", "{what}: {created}");
            return assert_eq!(server.flawed.asked(), 0, "{what}: {created}");
        };
        match row.asked {
            // Nobody can see it knock.
            0 => std::thread::sleep(PATIENCE * 2),
            _ => wait_for(&what, RUN_MAX, || {
                std::thread::sleep(POLL);
                // Where the queue's rows are worked on by whoever has answered, somebody must ask.
                self.poll(id);
                (server.flawed.asked() > 0).then_some(())
            }),
        }
        server.heal();
        let ended = wait_for(&what, END_MAX, || {
            std::thread::sleep(POLL);
            let task = self.poll(id);
            let over = task["status"] == "completed" || task["status"] == "failed";
            over.then_some(task)
        });
        let ended_as = ended["status"].as_str().unwrap_or_default();
        match row.on_workerd.filter(|_| Host::chosen() == Host::Workerd) {
            None => assert_eq!(ended_as, row.task, "{what}: {ended}"),
            // Where its session is still open it is the call itself that is lost.
            Some(_) if !server.modern && ended_as == "failed" => {}
            Some(on_workerd) => {
                assert_eq!(ended_as, on_workerd.task(server.modern), "{what}: {ended}");
            }
        }
        // Where the first run certainly did nothing there is a second.
        let again = usize::from(row.told.is_some() && ended_as == "completed");
        assert_eq!(server.flawed.asked(), row.asked + again, "{what}: {ended}");
        assert_eq!(server.flawed.strayed(), 0, "{what}");
    }

    fn poll(&self, id: &str) -> Value {
        let task = self.ask("tasks/get", json!({ "taskId": id })).json();
        task["result"].clone()
    }

    fn ask(&self, method: &str, params: Value) -> Answer {
        let call = Call::modern(method, params).declaring_tasks();
        send(&self.gateway.mcp(), &call.with_token(self.gateway.token()))
    }
}

fn assert_done(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 200, "{what}: {answer:?}");
    let text = &answer.json()["result"]["content"][0]["text"];
    assert_eq!(text, DONE, "{what}: {answer:?}");
}

fn assert_told(answer: &Answer, row: &Row, modern: bool, what: &str) {
    let Some(expected) = row.told else {
        return assert_done(answer, what);
    };
    let status = if modern { expected.status } else { 200 };
    assert_eq!(answer.status, status, "{what}: {answer:?}");
    let error = &answer.json()["error"];
    assert_eq!(error["code"], expected.code, "{what}: {answer:?}");
    let reason = match row.on_workerd {
        Some(on_workerd) if Host::chosen() == Host::Workerd => on_workerd.reason,
        Some(_) | None => expected.reason,
    };
    let told = error["data"]["reason"].as_str().unwrap_or_default();
    assert_eq!(told, reason, "{what}: {answer:?}");
    let retry_after = answer.header("retry-after").parse().ok();
    assert_eq!(retry_after, expected.retry_after, "{what}: {answer:?}");
}

/// A flawed server on a port of its own.
struct Fixture {
    modern: bool,
    flawed: Arc<Flawed>,
    address: SocketAddr,
}

impl Fixture {
    fn start(modern: bool) -> Self {
        let flawed = Arc::new(Flawed::new(modern));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
        let address = listener.local_addr().expect("a bound address");
        let door = Arc::clone(&flawed);
        std::thread::spawn(move || keep_door(&door, listener, address));
        Self {
            modern,
            flawed,
            address,
        }
    }

    fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    fn fail(&self, fault: &Fault) {
        if matches!(fault, Fault::Turns) {
            std::thread::sleep(A_WHILE);
        }
        self.flawed.fail(fault);
        if self.flawed.refuses() {
            // Whoever knocks wakes the doorkeeper, who then closes.
            wait_for("a closed port", DOOR_MAX, || {
                TcpStream::connect(self.address).is_err().then_some(())
            });
        }
    }

    fn heal(&self) {
        self.flawed.heal();
        wait_for("an open port", DOOR_MAX, || {
            TcpStream::connect(self.address).ok()
        });
    }
}

fn keep_door(flawed: &Arc<Flawed>, mut listener: TcpListener, address: SocketAddr) {
    loop {
        let Ok((stream, _)) = listener.accept() else {
            continue;
        };
        if flawed.refuses() {
            drop((stream, listener));
            while flawed.refuses() {
                std::thread::sleep(Duration::from_millis(5));
            }
            listener = wait_for("the same port", DOOR_MAX, || {
                TcpListener::bind(address).ok()
            });
            continue;
        }
        let flawed = Arc::clone(flawed);
        // A client that is gone ends the conversation, which is nobody's failure.
        std::thread::spawn(move || converse(&flawed, stream));
    }
}

/// One request and what is said to it.
fn converse(flawed: &Flawed, mut stream: TcpStream) -> io::Result<()> {
    let Some(heard) = hear(&stream)? else {
        return Ok(());
    };
    let answer = match flawed.answer(&heard) {
        Fault::Refuses | Fault::Cuts | Fault::Turns => return reset(&stream),
        Fault::NotHttp => return stream.write_all(b"What is this?\r\n\r\n"),
        // Until the client has gone.
        Fault::Silent => return stream.read(&mut [0]).map(drop),
        Fault::Says(answer) => answer,
    };
    let mut head = format!("HTTP/1.1 {} -\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "transfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    let id = heard.message["id"].to_string();
    for part in answer.parts {
        match part {
            Part::Text(text) => chunk(&mut stream, text.replace("$id", &id).as_bytes())?,
            Part::Bytes(bytes) => chunk(&mut stream, bytes)?,
            Part::Fill(size) => chunk(&mut stream, &vec![b'x'; size])?,
            Part::Pause(pause) => std::thread::sleep(pause),
            Part::Forever(text, each) => loop {
                chunk(&mut stream, text.as_bytes())?;
                std::thread::sleep(each);
            },
            Part::Reset => return reset(&stream),
        }
    }
    stream.write_all(b"0\r\n\r\n")
}

fn chunk(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut whole = format!("{:x}\r\n", bytes.len()).into_bytes();
    whole.extend([bytes, b"\r\n"].concat());
    stream.write_all(&whole)
}

/// Closes so that the peer is told of a reset, once it has had time to read what was said.
fn reset(stream: &TcpStream) -> io::Result<()> {
    std::thread::sleep(Duration::from_millis(50));
    Ok(set_socket_linger(stream, Some(Duration::ZERO))?)
}

/// A whole request; none from whoever only knocked.
fn hear(stream: &TcpStream) -> io::Result<Option<Heard>> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let (mut length, mut chunked, mut session) = (0, false, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let (name, value) = line.trim().split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "transfer-encoding" => chunked = true,
            "mcp-session-id" => value.trim().clone_into(&mut session),
            "" => break,
            _ => {}
        }
    }
    let mut body = Vec::new();
    while chunked {
        let mut size = String::new();
        reader.read_line(&mut size)?;
        let size = u64::from_str_radix(size.trim(), 16).unwrap_or(0);
        chunked = size > 0;
        (&mut reader).take(size).read_to_end(&mut body)?;
        reader.read_line(&mut String::new())?;
    }
    (&mut reader).take(length).read_to_end(&mut body)?;
    Ok(Some(Heard {
        method,
        path,
        session,
        message: serde_json::from_slice(&body).unwrap_or(Value::Null),
    }))
}
