//! Everything that crosses from one era to the other, and what carries it across.

use serde_json::{Value, json};
use tidegate_mcp::era;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::RpcError;
use tidegate_mcp::meta::{self, ClientCapabilities};
use tidegate_mcp::version::{Era, ProtocolVersion};

use super::generate;
use super::official::{Judge, MODERN, examples};

/// The resource a request was about.
const URI: &str = "file:///a";
/// Codes whose meaning may depend on the era, and two that mean the same in each.
const CODES: [i64; 9] = [
    -32700, -32603, -32602, -32601, -32042, -32022, -32021, -32020, -32002,
];

/// Official examples of what has no counterpart in the other era.
pub const STAYS: &[&str] = &[
    "DiscoverRequest",
    "DiscoverResult",
    "DiscoverResultResponse",
    "SubscriptionsAcknowledgedNotification",
    "SubscriptionsListenRequest",
    "SubscriptionsListenResult",
    "SubscriptionsListenResultResponse",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request's params.
    Params,
    Result,
    ClientCapabilities,
    ServerCapabilities,
    Error,
    Notification,
    /// Params of a request to a client.
    Question,
    /// A client's answer to one.
    Answer,
}

/// One type that crosses.
#[derive(Debug, Clone, Copy)]
pub struct Crossing {
    pub kind: Kind,
    method: &'static str,
    /// The type's name without its suffix.
    base: &'static str,
    /// Types whose official examples are carried in values of this one, and where.
    parts: Parts,
}

pub fn all() -> Vec<Crossing> {
    let mut all = Vec::new();
    let mut add = |kind, method, base, parts| {
        all.push(Crossing {
            kind,
            method,
            base,
            parts,
        });
    };
    for (method, base, params, result) in METHODS {
        add(Kind::Params, method, base, *params);
        add(Kind::Result, method, base, *result);
    }
    add(Kind::ClientCapabilities, "", "ClientCapabilities", &[]);
    add(Kind::ServerCapabilities, "", "ServerCapabilities", &[]);
    add(Kind::Error, "tools/call", "Error", ERRORS);
    add(
        Kind::Error,
        "resources/read",
        "Error of resources/read",
        ERRORS,
    );
    for (method, base, parts) in NOTIFICATIONS {
        add(Kind::Notification, method, base, *parts);
    }
    for (method, base, question, answer) in QUESTIONS {
        add(Kind::Question, method, base, *question);
        add(Kind::Answer, method, base, *answer);
    }
    all
}

type Parts = &'static [(&'static str, fn(&Value) -> Value)];

const LISTING: Parts = &[];
const METHODS: &[(&str, &str, Parts, Parts)] = &[
    (
        "tools/list",
        "ListTools",
        &[("PaginatedRequestParams", whole)],
        &[
            ("ListToolsResultResponse", result),
            ("Tool", |tool| listing("tools", tool)),
        ],
    ),
    (
        "tools/call",
        "CallTool",
        &[("CallToolRequestParams", whole)],
        &[
            ("CallToolResultResponse", result),
            ("TextContent", block),
            ("ImageContent", block),
            ("AudioContent", block),
            ("ResourceLink", block),
            ("EmbeddedResource", block),
        ],
    ),
    (
        "resources/list",
        "ListResources",
        LISTING,
        &[
            ("ListResourcesResultResponse", result),
            ("Resource", |resource| listing("resources", resource)),
        ],
    ),
    (
        "resources/templates/list",
        "ListResourceTemplates",
        LISTING,
        &[("ListResourceTemplatesResultResponse", result)],
    ),
    (
        "resources/read",
        "ReadResource",
        LISTING,
        &[
            ("ReadResourceResultResponse", hinted),
            ("TextResourceContents", |part| listing("contents", part)),
            ("BlobResourceContents", |part| listing("contents", part)),
        ],
    ),
    (
        "prompts/list",
        "ListPrompts",
        LISTING,
        &[("ListPromptsResultResponse", result)],
    ),
    (
        "prompts/get",
        "GetPrompt",
        &[("GetPromptRequestParams", whole)],
        &[("GetPromptResultResponse", result)],
    ),
    (
        "completion/complete",
        "Complete",
        &[("CompleteRequestParams", whole)],
        &[("CompleteResultResponse", result)],
    ),
];

const ERRORS: Parts = &[
    ("HeaderMismatchError", error),
    ("InternalError", whole),
    ("InvalidParamsError", whole),
    ("MethodNotFoundError", whole),
    ("MissingRequiredClientCapabilityError", error),
    ("ParseError", whole),
    ("UnsupportedProtocolVersionError", error),
];

const NOTIFICATIONS: &[(&str, &str, Parts)] = &[
    (
        "notifications/cancelled",
        "Cancelled",
        &[("CancelledNotificationParams", whole)],
    ),
    (
        "notifications/message",
        "LoggingMessage",
        &[("LoggingMessageNotificationParams", whole)],
    ),
    (
        "notifications/progress",
        "Progress",
        &[("ProgressNotificationParams", whole)],
    ),
    (
        "notifications/resources/updated",
        "ResourceUpdated",
        &[("ResourceUpdatedNotificationParams", whole)],
    ),
    ("notifications/tools/list_changed", "ToolListChanged", &[]),
    (
        "notifications/prompts/list_changed",
        "PromptListChanged",
        &[],
    ),
    (
        "notifications/resources/list_changed",
        "ResourceListChanged",
        &[],
    ),
];

const QUESTIONS: &[(&str, &str, Parts, Parts)] = &[
    (
        "elicitation/create",
        "Elicit",
        &[
            ("ElicitRequestFormParams", whole),
            ("ElicitRequestURLParams", whole),
            ("BooleanSchema", form),
            ("NumberSchema", form),
            ("StringSchema", form),
            ("TitledMultiSelectEnumSchema", form),
            ("TitledSingleSelectEnumSchema", form),
            ("UntitledMultiSelectEnumSchema", form),
            ("UntitledSingleSelectEnumSchema", form),
            ("InputRequests", |all| asked("elicitation/create", all)),
            ("InputRequiredResult", |result| {
                asked("elicitation/create", &result["inputRequests"])
            }),
        ],
        &[("InputResponses", |all| answered("action", all))],
    ),
    (
        "sampling/createMessage",
        "CreateMessage",
        &[
            ("CreateMessageRequestParams", whole),
            (
                "ModelPreferences",
                |preferences| json!({ "maxTokens": 1, "messages": [], "modelPreferences": preferences }),
            ),
            (
                "SamplingMessage",
                |message| json!({ "maxTokens": 1, "messages": [message] }),
            ),
            ("ToolResultContent", said),
            ("ToolUseContent", said),
            ("InputRequests", |all| asked("sampling/createMessage", all)),
        ],
        &[("InputResponses", |all| answered("model", all))],
    ),
    (
        "roots/list",
        "ListRoots",
        &[],
        &[("Root", |root| json!({ "roots": [root] }))],
    ),
];

fn whole(value: &Value) -> Value {
    value.clone()
}

fn result(response: &Value) -> Value {
    response["result"].clone()
}

/// The examples leave out the hints that their own schema requires.
fn hinted(response: &Value) -> Value {
    let mut result = listing("contents", &Value::Null);
    let given = response["result"].as_object();
    for (name, value) in given.into_iter().flatten() {
        result[name] = value.clone();
    }
    result
}

fn error(response: &Value) -> Value {
    response["error"].clone()
}

fn block(block: &Value) -> Value {
    json!({ "resultType": "complete", "content": [block] })
}

fn listing(member: &str, item: &Value) -> Value {
    json!({ "resultType": "complete", "ttlMs": 0, "cacheScope": "private", member: [item] })
}

fn form(property: &Value) -> Value {
    let schema = json!({ "type": "object", "properties": { "key": property } });
    json!({ "message": "m", "requestedSchema": schema })
}

fn said(block: &Value) -> Value {
    json!({ "maxTokens": 1, "messages": [{ "role": "user", "content": block }] })
}

/// The params of the first request of this kind; null if there is none.
fn asked(method: &str, requests: &Value) -> Value {
    let mut requests = requests.as_object().into_iter().flatten();
    let found = requests.find(|(_, request)| request["method"] == method);
    found.map_or(Value::Null, |(_, request)| request["params"].clone())
}

/// The first answer with this member; null if there is none.
fn answered(member: &str, answers: &Value) -> Value {
    let mut answers = answers.as_object().into_iter().flatten();
    let found = answers.find(|(_, answer)| answer.get(member).is_some());
    found.map_or(Value::Null, |(_, answer)| answer.clone())
}

fn object(value: &Value) -> Object {
    Object::parse(value.to_string().as_bytes()).unwrap()
}

fn value(object: &Object) -> Value {
    serde_json::from_str(&object.to_string()).unwrap()
}

impl Crossing {
    /// What the table of differences calls it.
    pub fn name(&self) -> String {
        match self.kind {
            Kind::Error => self.base.to_owned(),
            Kind::Params
            | Kind::Result
            | Kind::ClientCapabilities
            | Kind::ServerCapabilities
            | Kind::Notification
            | Kind::Question
            | Kind::Answer => self.definition(MODERN),
        }
    }

    /// Its definition in a revision's schema.
    pub fn definition(&self, version: ProtocolVersion) -> String {
        let base = self.base;
        match self.kind {
            Kind::Params | Kind::Question => format!("{base}Request"),
            Kind::Result | Kind::Answer => format!("{base}Result"),
            Kind::Notification => format!("{base}Notification"),
            Kind::ClientCapabilities | Kind::ServerCapabilities => base.to_owned(),
            Kind::Error if version < ProtocolVersion::V2025_11_25 => "JSONRPCError".to_owned(),
            Kind::Error => "JSONRPCErrorResponse".to_owned(),
        }
    }

    /// The value in the message that is judged.
    pub fn message(&self, value: &Value) -> Value {
        let (id, method) = (1, self.method);
        match self.kind {
            Kind::Params | Kind::Question => {
                json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": value })
            }
            Kind::Notification => {
                json!({ "jsonrpc": "2.0", "method": method, "params": value })
            }
            Kind::Error => json!({ "jsonrpc": "2.0", "id": id, "error": value }),
            Kind::Result | Kind::Answer | Kind::ClientCapabilities | Kind::ServerCapabilities => {
                value.clone()
            }
        }
    }

    /// Types whose official examples it carries.
    pub fn carries(&self) -> Vec<&'static str> {
        let own = self.definition(MODERN);
        let own = examples().keys().find(|name| **name == own);
        let parts = self.parts.iter().map(|(name, _)| *name);
        parts.chain(own.map(String::as_str)).collect()
    }

    /// Values to start from in a legacy revision; `None` if it has no such type.
    pub fn legacy_values(&self, version: ProtocolVersion) -> Option<Vec<Value>> {
        let judge = Judge::of(version);
        judge.knows(self).then(|| self.generated(judge, version))
    }

    /// Values to start from in the modern revision.
    pub fn modern_values(&self) -> Vec<Value> {
        let own = examples().get(&self.definition(MODERN));
        let own = own.into_iter().flat_map(|all| all.values());
        let parts = self.parts.iter().flat_map(|(name, carry)| {
            let all = examples().get(*name).into_iter();
            all.flat_map(|all| all.values()).map(carry)
        });
        let mut values: Vec<Value> = own
            .map(|message| self.unwrap(message))
            .chain(parts)
            .collect();
        values.retain(|value| !value.is_null());
        values.extend(self.generated(Judge::of(MODERN), MODERN));
        if self.kind == Kind::Params {
            for value in &mut values {
                value["_meta"][meta::PROTOCOL_VERSION] = json!(MODERN.as_str());
            }
        }
        if self.kind == Kind::Result {
            for value in &mut values {
                value["resultType"] = json!("complete");
            }
        }
        values
    }

    fn generated(&self, judge: &Judge, version: ProtocolVersion) -> Vec<Value> {
        let made = generate::instances(judge, &self.definition(version));
        let made = made.iter().map(|message| self.unwrap(message));
        if self.kind != Kind::Error {
            return made.collect();
        }
        // Codes no revision of the era has are not sent in it.
        let codes = CODES.into_iter().filter(|code| match version.era() {
            Era::Modern => !matches!(code, -32002 | -32042),
            Era::Legacy => true,
        });
        let codes: Vec<i64> = codes.collect();
        made.chain([json!({ "code": 0, "message": "gone", "data": { "uri": "file:///b" } })])
            .flat_map(|error| {
                codes.clone().into_iter().map(move |code| {
                    let mut error = error.clone();
                    error["code"] = json!(code);
                    error
                })
            })
            .collect()
    }

    /// What crosses of a whole message.
    fn unwrap(&self, message: &Value) -> Value {
        let empty = || json!({});
        match self.kind {
            Kind::Params | Kind::Question | Kind::Notification => {
                message.get("params").cloned().unwrap_or_else(empty)
            }
            Kind::Error => message["error"].clone(),
            Kind::Result | Kind::Answer | Kind::ClientCapabilities | Kind::ServerCapabilities => {
                message.clone()
            }
        }
    }

    /// From legacy to modern; `None` if it becomes something else. A session remembers what
    /// the envelope of `origin` said of the client.
    pub fn lift(&self, value_: &Value, origin: Option<&Value>) -> Option<Value> {
        let from = || object(value_);
        Some(match self.kind {
            Kind::Params => {
                let envelope = origin.map(|origin| &origin["_meta"]);
                let said = |key| envelope.and_then(|envelope| envelope.get(key)).map(object);
                let capabilities = said(meta::CLIENT_CAPABILITIES).unwrap_or_default();
                let info = said(meta::CLIENT_INFO);
                let capabilities = ClientCapabilities(capabilities);
                value(&era::lift_request(
                    from(),
                    MODERN,
                    info.as_ref(),
                    &capabilities,
                ))
            }
            Kind::Result => value(&era::lift_result(self.method, from())),
            Kind::ClientCapabilities => value(&era::lift_client_capabilities(from()).0),
            Kind::ServerCapabilities => value(&era::lift_server_capabilities(from())),
            Kind::Error => {
                let error = rpc(value_);
                if era::lift_url_elicitations(&error).is_some() {
                    return None;
                }
                let uri = (self.method == "resources/read").then_some(URI);
                json!(era::lift_error(error, uri))
            }
            Kind::Question => value(&era::lift_question(from())),
            // For a task, which has been cancelled by a request since.
            Kind::Notification if self.base == "Cancelled" && value_.get("requestId").is_none() => {
                return None;
            }
            Kind::Notification | Kind::Answer => value_.clone(),
        })
    }

    /// From modern to legacy; `None` if the revision cannot say it.
    pub fn lower(&self, value_: &Value, version: ProtocolVersion) -> Option<Value> {
        let from = || object(value_);
        Some(match self.kind {
            Kind::Params => value(&era::lower_request(self.method, from(), version)),
            Kind::Result => value(&era::lower_result(self.method, from(), version)),
            Kind::ClientCapabilities => value(&era::lower_client_capabilities(from(), version)),
            Kind::ServerCapabilities => value(&era::lower_server_capabilities(from(), version)),
            Kind::Error => json!(era::lower_error(self.method, rpc(value_))),
            Kind::Question => value(&era::lower_question(self.method, from(), version, "e")?),
            Kind::Answer => value(&era::lower_answer(self.method, from(), version)?),
            Kind::Notification => value_.clone(),
        })
    }
}

fn rpc(value: &Value) -> RpcError {
    let error = RpcError::new(
        value["code"].as_i64().unwrap(),
        value["message"].as_str().unwrap(),
    );
    match value.get("data") {
        Some(data) => error.with_data(data),
        None => error,
    }
}
