//! What servers ask clients, and the answers.
//!
//! A legacy server sends a request, a modern one an entry of `inputRequests`; params and
//! results are the same but for what a revision does not know yet:
//!
//! | since | unknown before |
//! |---|---|
//! | 2025-03-26 | audio in sampling |
//! | 2025-06-18 | elicitation |
//! | 2025-11-25 | URL mode, multiple choice, tools in sampling, messages of several blocks |
//! | 2026-07-28 | structured content of tool results in sampling that is no object |
//!
//! What cannot be said in a revision is not asked, and not answered, rather than garbled.

use serde_json::value::RawValue;

use super::content;
use crate::json::{self, Object};
use crate::version::ProtocolVersion;

const ELICIT: &str = "elicitation/create";
const SAMPLE: &str = "sampling/createMessage";

/// What a legacy upstream asks, for a modern client: accepting is what ends a URL elicitation,
/// so it has no id, and asking creates no task.
#[must_use]
pub fn lift_question(mut params: Object) -> Object {
    params.remove("elicitationId");
    params.remove("task");
    params
}

/// What an upstream asks, for a legacy client; `None` if its revision has no words for it.
/// `elicitation_id` is for a URL elicitation that has no id yet.
#[must_use]
pub fn lower_question(
    method: &str,
    mut params: Object,
    version: ProtocolVersion,
    elicitation_id: &str,
) -> Option<Object> {
    match method {
        ELICIT => {
            let url = params.get_str("mode").as_deref() == Some("url");
            if version < ProtocolVersion::V2025_06_18
                || (version < ProtocolVersion::V2025_11_25 && (url || has_multiple_choice(&params)))
            {
                return None;
            }
            if url && !params.contains("elicitationId") {
                params.insert("elicitationId", elicitation_id);
            }
        }
        SAMPLE => {
            let tools = params.contains("tools") || params.contains("toolChoice");
            if tools && version < ProtocolVersion::V2025_11_25 {
                return None;
            }
            content::lower_tools(&mut params, version);
            lower_messages(&mut params, version)?;
        }
        _ => {}
    }
    Some(params)
}

/// What a client answers, for a legacy upstream; `None` if its revision has no words for it.
#[must_use]
pub fn lower_answer(method: &str, mut answer: Object, version: ProtocolVersion) -> Option<Object> {
    match method {
        ELICIT if version < ProtocolVersion::V2025_06_18 => return None,
        ELICIT if version < ProtocolVersion::V2025_11_25 => {
            let several = |value: &RawValue| json::first_byte(value.get().as_bytes()) == Some(b'[');
            if let Some(Ok(content)) = answer.get_object("content")
                && content.iter().any(|(_, value)| several(value))
            {
                return None;
            }
        }
        SAMPLE => {
            if let Some(content) = answer.get("content") {
                let lowered = match lower_content(content, version)?.as_slice() {
                    [lowered] => lowered.clone(),
                    blocks => one_text(blocks)?,
                };
                if lowered.get() != content.get() {
                    answer.insert_raw("content", lowered);
                }
            }
        }
        _ => {}
    }
    Some(answer)
}

fn has_multiple_choice(params: &Object) -> bool {
    let schema = params.get_object("requestedSchema").and_then(Result::ok);
    let properties = schema.and_then(|schema| schema.get_object("properties")?.ok());
    properties.is_some_and(|properties| {
        properties.iter().any(|(_, property)| {
            Object::from_raw(property)
                .is_ok_and(|property| property.get_str("type").as_deref() == Some("array"))
        })
    })
}

fn lower_messages(params: &mut Object, version: ProtocolVersion) -> Option<()> {
    let Some(Ok(messages)) = params.get("messages").map(json::elements) else {
        return Some(());
    };
    let mut lowered = Vec::with_capacity(messages.len());
    let mut changed = false;
    for message in messages {
        let object = Object::from_raw(&message).ok();
        let Some((object, content)) = object.as_ref().and_then(|o| Some((o, o.get("content")?)))
        else {
            lowered.push(message);
            continue;
        };
        let contents = lower_content(content, version)?;
        if let [only] = contents.as_slice()
            && only.get() == content.get()
        {
            lowered.push(message);
            continue;
        }
        changed = true;
        for content in contents {
            let mut one = object.clone();
            one.insert_raw("content", content);
            lowered.push(one.to_raw());
        }
    }
    if changed {
        params.insert("messages", &lowered);
    }
    Some(())
}

/// The contents of the messages that say what this content does: before 2025-11-25 a message
/// had just one block. `None` if a block is of a kind the revision lacks.
fn lower_content(content: &RawValue, version: ProtocolVersion) -> Option<Vec<Box<RawValue>>> {
    let Ok(blocks) = json::elements(content) else {
        return Some(vec![lower_block(content.to_owned(), version)?]);
    };
    let before: Vec<String> = blocks.iter().map(|block| block.get().to_owned()).collect();
    let blocks: Option<Vec<_>> = blocks
        .into_iter()
        .map(|block| lower_block(block, version))
        .collect();
    let blocks = blocks?;
    if version < ProtocolVersion::V2025_11_25 {
        return Some(blocks);
    }
    if blocks.iter().map(|block| block.get()).eq(before.iter()) {
        return Some(vec![content.to_owned()]);
    }
    Some(vec![json::raw(&blocks)])
}

fn lower_block(block: Box<RawValue>, version: ProtocolVersion) -> Option<Box<RawValue>> {
    let mut object = Object::from_raw(&block).ok()?;
    let tool = match object.get_str("type").as_deref() {
        Some("tool_use") => false,
        Some("tool_result") => true,
        _ => return Some(content::lower_block(&block, version).unwrap_or(block)),
    };
    if version < ProtocolVersion::V2025_11_25 {
        return None;
    }
    if !tool {
        return Some(block);
    }
    let before = object.clone();
    content::lower_tool_result(&mut object, version);
    Some(if object == before {
        block
    } else {
        object.to_raw()
    })
}

/// Several text blocks as one.
fn one_text(blocks: &[Box<RawValue>]) -> Option<Box<RawValue>> {
    let texts: Option<Vec<String>> = blocks
        .iter()
        .map(|block| {
            let block = Object::from_raw(block).ok()?;
            Some(block.get_str("text")?.into_owned())
        })
        .collect();
    Some(content::text_block(&texts?.join("\n")))
}
