//! Every difference a value may show after it went to the other era and back.

use serde_json::Value;
use tidegate_mcp::version::ProtocolVersion::{
    self, V2024_11_05, V2025_03_26, V2025_06_18, V2025_11_25,
};

/// The era a value starts from, and comes back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Start {
    Legacy,
    Modern,
}

/// A row of the table.
pub struct Difference {
    pub start: Start,
    /// Official names of the types.
    pub types: &'static [&'static str],
    /// Where in the value; `[]` is any element of an array.
    pub member: &'static str,
    /// The legacy revisions it came from, or went through.
    pub revisions: &'static [ProtocolVersion],
    pub reason: &'static str,
    /// The page of the specification that says so.
    pub spec: &'static str,
}

/// The value as a whole: it does not cross.
pub const WHOLE: &str = "";

const LEGACY: &[ProtocolVersion] = &[V2024_11_05, V2025_03_26, V2025_06_18, V2025_11_25];
const BEFORE_2025_11_25: &[ProtocolVersion] = &[V2024_11_05, V2025_03_26, V2025_06_18];

const REQUESTS: &[&str] = &[
    "CallToolRequest",
    "CompleteRequest",
    "GetPromptRequest",
    "ListPromptsRequest",
    "ListResourceTemplatesRequest",
    "ListResourcesRequest",
    "ListToolsRequest",
    "ReadResourceRequest",
];
const MAY_REQUIRE_INPUT: &[&str] = &["CallToolRequest", "GetPromptRequest", "ReadResourceRequest"];
const RESULTS: &[&str] = &[
    "CallToolResult",
    "CompleteResult",
    "GetPromptResult",
    "ListPromptsResult",
    "ListResourceTemplatesResult",
    "ListResourcesResult",
    "ListToolsResult",
    "ReadResourceResult",
];
const CACHEABLE: &[&str] = &[
    "ListPromptsResult",
    "ListResourceTemplatesResult",
    "ListResourcesResult",
    "ListToolsResult",
    "ReadResourceResult",
];
const ERRORS: &[&str] = &["Error", "Error of resources/read"];

/// The table. It holds exactly the differences seen: one that is not in it fails the test, and
/// so does a row nothing shows.
#[rustfmt::skip]
pub const DIFFERENCES: &[Difference] = &[
    Difference { start: Start::Legacy, types: REQUESTS, member: "_meta", revisions: &[V2025_11_25],
        reason: "an empty `_meta` says what none says; lifting fills it, lowering empties it",
        spec: "2026-07-28 basic, `_meta`" },
    Difference { start: Start::Legacy, types: &["CallToolRequest", "CreateMessageRequest", "ElicitRequest"], member: "task", revisions: &[V2025_11_25],
        reason: "the experiment of 2025-11-25 is gone: modern servers decide on tasks alone",
        spec: "tasks extension, Capability negotiation" },
    Difference { start: Start::Legacy, types: &["ClientCapabilities", "ServerCapabilities"], member: "tasks", revisions: &[V2025_11_25],
        reason: "the experiment of 2025-11-25 is gone: tasks are an extension",
        spec: "tasks extension, Capability negotiation" },
    Difference { start: Start::Legacy, types: &["ListToolsResult"], member: "tools[].execution", revisions: &[V2025_11_25],
        reason: "it says how the experiment's tasks may be asked for",
        spec: "2025-11-25 basic/utilities/tasks" },
    Difference { start: Start::Legacy, types: &["CancelledNotification"], member: WHOLE, revisions: &[V2025_11_25],
        reason: "one without `requestId` cancels nothing a modern server has",
        spec: "2026-07-28 basic/utilities/cancellation" },
    Difference { start: Start::Legacy, types: &["ClientCapabilities"], member: "elicitation.form", revisions: &[V2025_11_25],
        reason: "`elicitation: {}` is written out as what it means",
        spec: "2025-11-25 client/elicitation, Capabilities" },
    Difference { start: Start::Legacy, types: &["ClientCapabilities"], member: "roots.listChanged", revisions: LEGACY,
        reason: "modern clients do not tell that their roots changed",
        spec: "2026-07-28 changelog" },
    Difference { start: Start::Legacy, types: &["ElicitRequest"], member: "elicitationId", revisions: &[V2025_11_25],
        reason: "modern URL elicitation has no id; a legacy client is given the gateway's own",
        spec: "2026-07-28 client/elicitation, URL mode" },
    Difference { start: Start::Legacy, types: ERRORS, member: "code", revisions: LEGACY,
        reason: "server-defined codes mean nothing across eras and become -32603",
        spec: "2026-07-28 basic, error codes" },
    Difference { start: Start::Legacy, types: &["Error of resources/read"], member: "data", revisions: LEGACY,
        reason: "a missing resource is named: modern clients tell it from other errors by that",
        spec: "2026-07-28 server/resources, error handling" },
    Difference { start: Start::Legacy, types: &["Error of resources/read"], member: "data.uri", revisions: LEGACY,
        reason: "a missing resource is named, beside whatever else the data says",
        spec: "2026-07-28 server/resources, error handling" },
    Difference { start: Start::Legacy, types: ERRORS, member: "x-unknown", revisions: LEGACY,
        reason: "an error has three members",
        spec: "JSON-RPC 2.0, 5.1" },
    Difference { start: Start::Modern, types: ERRORS, member: "x-unknown", revisions: LEGACY,
        reason: "an error has three members",
        spec: "JSON-RPC 2.0, 5.1" },
    Difference { start: Start::Modern, types: ERRORS, member: "code", revisions: LEGACY,
        reason: "errors about the envelope say nothing to a client that has none",
        spec: "2026-07-28 basic, error codes" },
    Difference { start: Start::Modern, types: ERRORS, member: "data", revisions: LEGACY,
        reason: "errors about the envelope say nothing to a client that has none",
        spec: "2026-07-28 basic, error codes" },
    Difference { start: Start::Modern, types: REQUESTS, member: "_meta.io.modelcontextprotocol/logLevel", revisions: LEGACY,
        reason: "a legacy session has one level, set by `logging/setLevel`",
        spec: "2025-11-25 server/utilities/logging" },
    Difference { start: Start::Modern, types: MAY_REQUIRE_INPUT, member: "inputResponses", revisions: LEGACY,
        reason: "legacy servers ask by requests of their own and are answered there",
        spec: "2026-07-28 basic/patterns, multi round-trip requests" },
    Difference { start: Start::Modern, types: MAY_REQUIRE_INPUT, member: "requestState", revisions: LEGACY,
        reason: "legacy servers ask by requests of their own and are answered there",
        spec: "2026-07-28 basic/patterns, multi round-trip requests" },
    Difference { start: Start::Modern, types: &["CompleteRequest"], member: "context", revisions: &[V2024_11_05, V2025_03_26],
        reason: "since 2025-06-18",
        spec: "2025-06-18 changelog" },
    Difference { start: Start::Modern, types: RESULTS, member: "_meta.io.modelcontextprotocol/serverInfo", revisions: LEGACY,
        reason: "legacy servers say who they are in `initialize`",
        spec: "2026-07-28 basic, `_meta`" },
    Difference { start: Start::Modern, types: RESULTS, member: "_meta", revisions: LEGACY,
        reason: "nothing was in it but `serverInfo`",
        spec: "2026-07-28 basic, `_meta`" },
    Difference { start: Start::Modern, types: CACHEABLE, member: "ttlMs", revisions: LEGACY,
        reason: "a legacy server says nothing of caching, so nothing may be kept",
        spec: "2026-07-28 server/utilities/caching" },
    Difference { start: Start::Modern, types: CACHEABLE, member: "cacheScope", revisions: LEGACY,
        reason: "a legacy server says nothing of caching, so nothing may be shared",
        spec: "2026-07-28 server/utilities/caching" },
    Difference { start: Start::Modern, types: &["CallToolResult"], member: "structuredContent", revisions: LEGACY,
        reason: "since 2025-06-18, and only objects before 2026-07-28; it stays readable as text",
        spec: "2026-07-28 server/tools, structured content" },
    Difference { start: Start::Modern, types: &["CallToolResult"], member: "content[]", revisions: &[V2024_11_05, V2025_03_26],
        reason: "audio since 2025-03-26, resource links since 2025-06-18: before, text in their place",
        spec: "2025-03-26 and 2025-06-18 changelogs" },
    Difference { start: Start::Modern, types: &["GetPromptResult"], member: "messages[].content", revisions: &[V2024_11_05, V2025_03_26],
        reason: "audio since 2025-03-26, resource links since 2025-06-18: before, text in their place",
        spec: "2025-03-26 and 2025-06-18 changelogs" },
    Difference { start: Start::Modern, types: &["ListToolsResult"], member: "tools[].outputSchema", revisions: LEGACY,
        reason: "goes where the structured content goes that it promises",
        spec: "2026-07-28 server/tools, output schema" },
    Difference { start: Start::Modern, types: &["ServerCapabilities"], member: "completions", revisions: &[V2024_11_05],
        reason: "declared since 2025-03-26",
        spec: "2025-03-26 changelog" },
    Difference { start: Start::Modern, types: &["ServerCapabilities"], member: "extensions", revisions: LEGACY,
        reason: "the tasks extension is for 2026-07-28; others are declared in either era",
        spec: "tasks extension, Capability negotiation" },
    Difference { start: Start::Modern, types: &["ClientCapabilities"], member: "elicitation", revisions: &[V2024_11_05, V2025_03_26, V2025_06_18],
        reason: "forms since 2025-06-18, URLs since 2025-11-25",
        spec: "2025-06-18 and 2025-11-25 changelogs" },
    Difference { start: Start::Modern, types: &["ClientCapabilities"], member: "elicitation.form", revisions: &[V2025_06_18, V2025_11_25],
        reason: "`elicitation: {}` and `elicitation: {form: {}}` mean the same; 2025-06-18 has the first, lifting writes the second",
        spec: "2025-11-25 client/elicitation, Capabilities" },
    Difference { start: Start::Modern, types: &["ClientCapabilities"], member: "elicitation.form.key", revisions: &[V2025_06_18],
        reason: "2025-06-18 has no modes that could be described",
        spec: "2025-06-18 client/elicitation, Capabilities" },
    Difference { start: Start::Modern, types: &["ClientCapabilities"], member: "elicitation.url", revisions: &[V2025_06_18],
        reason: "URLs since 2025-11-25",
        spec: "2025-11-25 changelog" },
    Difference { start: Start::Modern, types: &["ClientCapabilities"], member: "sampling.context", revisions: BEFORE_2025_11_25,
        reason: "since 2025-11-25",
        spec: "2025-11-25 client/sampling, Capabilities" },
    Difference { start: Start::Modern, types: &["ClientCapabilities"], member: "sampling.tools", revisions: BEFORE_2025_11_25,
        reason: "since 2025-11-25",
        spec: "2025-11-25 client/sampling, Capabilities" },
    Difference { start: Start::Modern, types: &["ElicitRequest", "ElicitResult"], member: WHOLE, revisions: BEFORE_2025_11_25,
        reason: "forms since 2025-06-18; URLs and multiple choice since 2025-11-25: not asked before",
        spec: "2025-06-18 and 2025-11-25 changelogs" },
    Difference { start: Start::Modern, types: &["CreateMessageRequest", "CreateMessageResult"], member: WHOLE, revisions: BEFORE_2025_11_25,
        reason: "tools in sampling since 2025-11-25: not asked, and not answered, before",
        spec: "2025-11-25 client/sampling, tools" },
    Difference { start: Start::Modern, types: &["CreateMessageRequest"], member: "messages", revisions: BEFORE_2025_11_25,
        reason: "before 2025-11-25 each block is a message of its own",
        spec: "2025-11-25 client/sampling, messages" },
    Difference { start: Start::Modern, types: &["CreateMessageRequest"], member: "messages[].content", revisions: BEFORE_2025_11_25,
        reason: "before 2025-11-25 the one block itself; before 2025-03-26 text in place of audio",
        spec: "2025-11-25 client/sampling, messages" },
    Difference { start: Start::Modern, types: &["CreateMessageResult"], member: "content", revisions: BEFORE_2025_11_25,
        reason: "before 2025-11-25 the one block itself, or the text of all; before 2025-03-26 text in place of audio",
        spec: "2025-11-25 client/sampling, messages" },
    Difference { start: Start::Modern, types: &["CreateMessageRequest"], member: "tools[].outputSchema", revisions: &[V2025_11_25],
        reason: "only of objects before 2026-07-28",
        spec: "2026-07-28 server/tools, output schema" },
    Difference { start: Start::Modern, types: &["CreateMessageRequest"], member: "messages[].content.structuredContent", revisions: &[V2025_11_25],
        reason: "only objects before 2026-07-28; it stays readable as text",
        spec: "2026-07-28 server/tools, structured content" },
    Difference { start: Start::Modern, types: &["CreateMessageRequest"], member: "messages[].content[].structuredContent", revisions: &[V2025_11_25],
        reason: "only objects before 2026-07-28; it stays readable as text",
        spec: "2026-07-28 server/tools, structured content" },
    Difference { start: Start::Modern, types: &["CreateMessageResult"], member: "content.structuredContent", revisions: &[V2025_11_25],
        reason: "only objects before 2026-07-28; it stays readable as text",
        spec: "2026-07-28 server/tools, structured content" },
    Difference { start: Start::Modern, types: &["CreateMessageResult"], member: "content[].structuredContent", revisions: &[V2025_11_25],
        reason: "only objects before 2026-07-28; it stays readable as text",
        spec: "2026-07-28 server/tools, structured content" },
];

/// Names the members in which two values differ.
pub fn between(at: &str, one: &Value, other: &Value, members: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(ones), Value::Object(others)) => {
            // Blocks of two types have nothing in common that could be compared.
            if ones.get("type") != others.get("type") {
                members.push(at.to_owned());
                return;
            }
            for name in ones
                .keys()
                .chain(others.keys().filter(|name| !ones.contains_key(*name)))
            {
                let at = if at.is_empty() {
                    name.clone()
                } else {
                    format!("{at}.{name}")
                };
                match (ones.get(name), others.get(name)) {
                    (Some(one), Some(other)) => between(&at, one, other, members),
                    _ => members.push(at),
                }
            }
        }
        (Value::Array(ones), Value::Array(others)) if ones.len() == others.len() => {
            for (one, other) in ones.iter().zip(others) {
                between(&format!("{at}[]"), one, other, members);
            }
        }
        _ if one == other => {}
        _ => members.push(at.to_owned()),
    }
}
