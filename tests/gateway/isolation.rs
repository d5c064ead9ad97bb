//! Two tenants of one gateway: whatever they do, in whatever order, nothing of one reaches
//! the other, not even that it exists, however they are told apart: by a claim of their
//! tokens, by their host, or by their path. Seeded; a failing seed is named.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{
    Ask, Heard, Said, Script, Setup, Told, World, complete, issuer, legacy, modern, tool,
};

/// Prompts of one upstream: more than a page.
const PROMPTS: usize = 255;
/// Its tokens name no tenant; its keys are the usual issuer's.
const SILENT: &str = "https://silent.example.com";
/// How long an upstream's list may be kept: some steps of a schedule.
const KEPT: Duration = Duration::from_secs(20);
/// How far time moves at once.
const LATER: Duration = Duration::from_secs(7);
/// How many schedules, and how many steps each.
const SCHEDULES: u64 = 120;
const STEPS: usize = 60;

/// A tenant with everything it holds.
struct Tenant {
    /// In all it says, and so in all that is answered to it.
    canary: &'static str,
    /// Where it sends what it asks.
    place: (String, String),
    /// The upstream only it sees.
    alone: &'static str,
    token: String,
    said: u32,
    /// What it was given: handles, request states, sessions.
    held: BTreeMap<Kind, Vec<String>>,
}

/// What tells a tenant from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Claim,
    Host,
    Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Handle,
    State,
    Session,
    Cursor,
}

/// Echoes what it is told; one tool asks first.
fn echo(heard: &Heard) -> Said {
    let params = heard.params();
    let word = params["arguments"]["q"].as_str().unwrap_or_default();
    match params["name"].as_str() {
        Some("asks") if params.get("inputResponses").is_none() => Said::Result(json!({
            "resultType": "input_required", "requestState": format!("state of {word}"),
            "inputRequests": { "k": { "method": "elicitation/create", "params": {
                "mode": "form", "message": word, "requestedSchema": { "type": "object", "properties": {} } } } },
        })),
        Some("fails") => Said::Refusal(
            200,
            json!({ "code": -32000, "message": format!("not {word}") }),
        ),
        _ => Said::Result(complete(word)),
    }
}

fn world() -> World {
    let tools = ["a", "later", "asks", "fails"];
    let (new, old) = (Script::modern(&tools), Script::legacy("2025-11-25", &tools));
    new.on("tools/call", echo);
    old.on("tools/call", echo);
    for number in 0..PROMPTS {
        new.listing("prompts", json!({ "name": format!("p{number}") }));
    }
    // Each has a tool of a name the other must not see.
    let (north, south) = (Script::modern(&["NORTHERN"]), Script::modern(&["SOUTHERN"]));
    north.on("tools/call", echo);
    south.on("tools/call", echo);
    // Lists are kept, and shared where they may be.
    let kept = i64::try_from(KEPT.as_millis()).unwrap();
    for (script, scope) in [(&new, "public"), (&north, "public"), (&south, "private")] {
        script.hints(kept, scope);
    }
    let tenant = |name: &str| json!({ "name": name, "path": name, "host": format!("{name}.gw.example.com") });
    let keys = format!("{}/keys", issuer::ISSUER);
    Setup::new()
        .upstream("new", &new)
        .upstream("old", &old)
        .upstream_with("up-n", &north, &json!({ "tenants": ["north"] }))
        .upstream_with("up-s", &south, &json!({ "tenants": ["south"] }))
        .rule(json!({ "name": "new__later", "execution": "task" }))
        .rule(json!({ "name": "old__later", "execution": "task" }))
        .config(&json!({
            "authentication": { "type": "jwt", "issuers": [
                { "issuer": issuer::ISSUER, "jwksUri": keys, "tenantClaim": "tenant" },
                { "issuer": SILENT, "jwksUri": keys },
            ] },
            "tenants": [tenant("north"), tenant("south")],
            "limits": { "rules": [
                { "name": "tenant", "per": ["tenant"], "rate": { "requests": 100_000 } },
                { "name": "exact", "per": ["principal"], "rate": { "requests": 100_000 }, "counter": "atomic" },
            ] },
        }))
        .start()
}

/// A pseudo-random sequence (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    fn pick<'a>(&mut self, from: &'a [String]) -> Option<&'a String> {
        let index = self.roll(from.len().max(1));
        from.get(index)
    }
}

impl Tenant {
    /// Both tenants have a user and a client of the same name.
    fn new(world: &World, name: &str, canary: &'static str, way: By) -> Self {
        let gateway = || "gw.example.com".to_owned();
        let place = match way {
            By::Claim => (gateway(), "/mcp".to_owned()),
            By::Host => (format!("{name}.gw.example.com"), "/mcp".to_owned()),
            By::Path => (gateway(), format!("/t/{name}/mcp")),
        };
        let audience = format!("https://{}{}", place.0, place.1);
        let mut claims = json!({ "sub": "sam", "client_id": "editor", "aud": audience });
        match way {
            By::Claim => claims["tenant"] = name.into(),
            By::Host | By::Path => claims["iss"] = SILENT.into(),
        }
        Self {
            canary,
            place,
            alone: if name == "north" { "up-n" } else { "up-s" },
            token: world.token(&claims),
            said: 0,
            held: BTreeMap::new(),
        }
    }

    /// With its token, to where it asks.
    fn send(&self, ask: Ask) -> Ask {
        ask.at(&self.place.0).to(&self.place.1).token(&self.token)
    }

    fn word(&mut self) -> Value {
        self.said += 1;
        json!({ "q": format!("{}-{}", self.canary, self.said) })
    }

    fn hold(&mut self, kind: Kind, text: &str) {
        if !text.is_empty() {
            self.held.entry(kind).or_default().push(text.to_owned());
        }
    }

    fn of(&self, kind: Kind) -> &[String] {
        self.held.get(&kind).map(Vec::as_slice).unwrap_or_default()
    }
}

fn asked(ask: Ask) -> Ask {
    let extensions = json!({ "io.modelcontextprotocol/tasks": {} });
    let capabilities = json!({ "elicitation": {}, "extensions": extensions });
    ask.meta("clientCapabilities", capabilities)
}

/// One thing a tenant does with what is its own.
fn act(world: &World, me: &mut Tenant, dice: &mut Dice) -> Told {
    let upstream = ["new", "old"][dice.roll(2)];
    let call = |me: &mut Tenant, own: &str| {
        tool(&format!("{upstream}__{own}")).param("arguments", me.word())
    };
    let ask = match dice.roll(12) {
        10 | 11 => match dice.pick(me.of(Kind::Cursor)) {
            Some(cursor) => modern("prompts/list", json!({ "cursor": cursor })),
            None => modern("prompts/list", json!({})),
        },
        9 => tool(&format!("{}__{}", me.alone, me.canary)).param("arguments", me.word()),
        0 => modern("tools/list", json!({})),
        1 => call(me, "a"),
        2 => call(me, "fails"),
        3 | 4 => asked(call(me, "later")),
        5 => asked(tool("new__asks").param("arguments", me.word())),
        6 => match dice.pick(me.of(Kind::Handle)) {
            Some(handle) => {
                let method = ["tasks/get", "tasks/cancel", "tasks/update"][dice.roll(3)];
                let params = json!({ "taskId": handle, "inputResponses": {} });
                asked(modern(method, params))
            }
            None => modern("server/discover", json!({})),
        },
        7 => legacy(
            "2025-11-25",
            "initialize",
            json!({
                "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": me.canary, "version": "1" },
            }),
        ),
        _ => match dice.pick(me.of(Kind::Session)).cloned() {
            Some(session) => {
                let (method, params) = match dice.roll(2) {
                    0 => ("tasks/list", json!({})),
                    _ => (
                        "tools/call",
                        json!({ "name": format!("{upstream}__a"), "arguments": me.word() }),
                    ),
                };
                legacy("2025-11-25", method, params).header("mcp-session-id", &session)
            }
            None => modern("prompts/list", json!({})),
        },
    };
    let told = world.call(me.send(ask));
    if told.status == 200 && told.text.starts_with('{') {
        let answer: Value = serde_json::from_str(&told.text).unwrap();
        let result = &answer["result"];
        let text = |name: &str| result[name].as_str().unwrap_or_default().to_owned();
        if result["resultType"] == "task" {
            me.hold(Kind::Handle, &text("taskId"));
        }
        me.hold(Kind::State, &text("requestState"));
        me.hold(Kind::Cursor, &text("nextCursor"));
        me.hold(Kind::Session, told.header("mcp-session-id"));
    }
    told
}

/// What is said to one that shows what is not its own, and to one that made it up.
fn trespass(world: &World, me: &Tenant, other: &Tenant, dice: &mut Dice) {
    let using = |kind: Kind, text: &str| match kind {
        Kind::Handle => asked(modern("tasks/get", json!({ "taskId": text }))),
        Kind::State => asked(tool("new__asks").param("arguments", json!({ "q": "x" })))
            .param("requestState", json!(text))
            .param("inputResponses", json!({ "k": {} })),
        Kind::Session => {
            legacy("2025-11-25", "tools/list", json!({})).header("mcp-session-id", text)
        }
        Kind::Cursor => modern("prompts/list", json!({ "cursor": text })),
    };
    if dice.roll(4) == 0 {
        return beside(world, me, other);
    }
    let kinds = [Kind::Handle, Kind::State, Kind::Session, Kind::Cursor];
    let kind = kinds[dice.roll(kinds.len())];
    let Some(theirs) = dice.pick(other.of(kind)) else {
        return;
    };
    let shown = world.call(me.send(using(kind, theirs)));
    let invented = world.call(me.send(using(kind, "AQIDBAUGBwg")));
    assert_eq!(shown.status, invented.status, "{kind:?}");
    assert_eq!(shown.error(), invented.error(), "{kind:?}");
    private(me, other, &shown);
}

/// The other's tool is as unknown as one that is nowhere, and its place takes no token of mine.
fn beside(world: &World, me: &Tenant, other: &Tenant) {
    let name = format!("{}__tool", other.alone);
    let shown = world.call(me.send(tool(&name)));
    let invented = world.call(me.send(tool("up-x__tool")));
    let renamed = shown.text.replace(&name, "up-x__tool");
    assert_eq!((shown.status, renamed), (invented.status, invented.text));
    if other.place != me.place {
        let told = world.call(other.send(modern("tools/list", json!({}))).token(&me.token));
        assert!(matches!(told.status.as_u16(), 401 | 403), "{told:?}");
        private(me, other, &told);
    }
}

/// Nothing of the other's is in an answer.
fn private(me: &Tenant, other: &Tenant, told: &Told) {
    let seen = format!("{told:?}");
    assert!(
        !seen.contains(other.canary),
        "{} was shown: {seen}",
        me.canary
    );
    for held in other.held.values().flatten() {
        assert!(
            !seen.contains(held.as_str()),
            "{} was shown: {seen}",
            me.canary
        );
    }
}

fn schedule(seed: u64) {
    let first = world();
    let isolates = [first.isolate(), first.isolate(), first];
    let ways = [By::Claim, By::Host, By::Path];
    let by = |roll: u64| ways[usize::try_from(roll % 3).unwrap()];
    let mut north = Tenant::new(&isolates[0], "north", "NORTHERN", by(seed));
    let mut south = Tenant::new(&isolates[0], "south", "SOUTHERN", by(seed / 3));
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..STEPS {
        let world = &isolates[dice.roll(3)];
        let (me, other) = match dice.roll(2) {
            0 => (&mut north, &south),
            _ => (&mut south, &north),
        };
        match dice.roll(9) {
            0 => drop(world.deliver()),
            8 => world.later(LATER),
            1 | 2 => trespass(world, me, other, &mut dice),
            _ => {
                let told = act(world, me, &mut dice);
                private(me, other, &told);
            }
        }
    }
    // What one may not see is not where the other's isolates would find it.
    for key in isolates[0].sim.kv.keys() {
        let stored = isolates[0].sim.kv.stored(&key).unwrap_or_default();
        let stored = String::from_utf8_lossy(&stored).into_owned();
        assert!(
            !stored.contains(south.canary),
            "{key}: a private list is shared"
        );
    }
    // Towards upstreams neither is spoken for in the other's session.
    let mut whose: BTreeMap<String, &str> = BTreeMap::new();
    for exchange in isolates[0].exchanges("old") {
        let body = String::from_utf8_lossy(&exchange.body()).into_owned();
        let session = exchange.headers.get("mcp-session-id");
        let Some(session) = session.and_then(|session| session.to_str().ok()) else {
            continue;
        };
        for tenant in [&north, &south] {
            if body.contains(tenant.canary) {
                let known = whose.entry(session.to_owned()).or_insert(tenant.canary);
                assert_eq!(*known, tenant.canary, "one session for both");
            }
        }
    }
}

#[test]
fn nothing_of_one_tenant_reaches_another() {
    for seed in 1..=SCHEDULES {
        let run = std::panic::catch_unwind(|| schedule(seed));
        assert!(run.is_ok(), "schedule {seed}");
    }
}
