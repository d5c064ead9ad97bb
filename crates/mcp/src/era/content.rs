//! Content blocks, structured content and tool definitions for clients of older revisions.
//!
//! | since | unknown before |
//! |---|---|
//! | 2025-03-26 | audio |
//! | 2025-06-18 | resource links, structured content |
//! | 2025-11-25 | a tool's `execution` (and only there) |
//! | 2026-07-28 | structured content that is no object |

use serde_json::value::RawValue;

use crate::json::{self, Object};
use crate::version::ProtocolVersion;

/// Content of a tool result; structured content the revision lacks stays readable as text.
pub(super) fn lower_tool_result(result: &mut Object, version: ProtocolVersion) {
    let mut blocks = match result.get("content").map(json::elements) {
        Some(Ok(blocks)) => blocks,
        Some(Err(_)) | None => Vec::new(),
    };
    let mut changed = lower_blocks(&mut blocks, version);
    if let Some(structured) = result.get("structuredContent")
        && !(version >= ProtocolVersion::V2025_06_18 && is_object(structured))
    {
        if !blocks.iter().any(|block| is_text(block)) {
            blocks.push(text_block(structured.get()));
            changed = true;
        }
        result.remove("structuredContent");
    }
    if changed {
        result.insert("content", &blocks);
    }
}

/// Content of a prompt's messages.
pub(super) fn lower_prompt_result(result: &mut Object, version: ProtocolVersion) {
    let Some(Ok(mut messages)) = result.get("messages").map(json::elements) else {
        return;
    };
    let mut changed = false;
    for message in &mut messages {
        let Ok(mut object) = Object::from_raw(message) else {
            continue;
        };
        if let Some(block) = object
            .get("content")
            .and_then(|block| lower_block(block, version))
        {
            object.insert_raw("content", block);
            *message = object.to_raw();
            changed = true;
        }
    }
    if changed {
        result.insert("messages", &messages);
    }
}

/// Tool definitions: an output schema promises structured content, so it goes where that goes.
pub(super) fn lower_tools(result: &mut Object, version: ProtocolVersion) {
    let Some(Ok(mut tools)) = result.get("tools").map(json::elements) else {
        return;
    };
    let mut changed = false;
    for tool in &mut tools {
        let Ok(mut object) = Object::from_raw(tool) else {
            continue;
        };
        let before = object.len();
        if let Some(schema) = object.get("outputSchema")
            && !(version >= ProtocolVersion::V2025_06_18 && describes_object(schema))
        {
            object.remove("outputSchema");
        }
        if version != ProtocolVersion::V2025_11_25 {
            object.remove("execution");
        }
        if object.len() != before {
            *tool = object.to_raw();
            changed = true;
        }
    }
    if changed {
        result.insert("tools", &tools);
    }
}

fn lower_blocks(blocks: &mut [Box<RawValue>], version: ProtocolVersion) -> bool {
    let mut changed = false;
    for block in blocks {
        if let Some(lowered) = lower_block(block, version) {
            *block = lowered;
            changed = true;
        }
    }
    changed
}

/// The text block to send instead, if the revision does not know this kind of block.
pub(super) fn lower_block(block: &RawValue, version: ProtocolVersion) -> Option<Box<RawValue>> {
    let block = Object::from_raw(block).ok()?;
    match block.get_str("type")?.as_ref() {
        "audio" if version < ProtocolVersion::V2025_03_26 => {
            let mime_type = block.get_str("mimeType").unwrap_or("audio".into());
            Some(text_block(&format!("[{mime_type} content omitted]")))
        }
        "resource_link" if version < ProtocolVersion::V2025_06_18 => {
            let uri = block.get_str("uri")?;
            Some(match block.get_str("name") {
                Some(name) => text_block(&format!("{name}: {uri}")),
                None => text_block(&uri),
            })
        }
        _ => None,
    }
}

pub(super) fn text_block(text: &str) -> Box<RawValue> {
    Object::new()
        .with("type", "text")
        .with("text", text)
        .to_raw()
}

fn is_text(block: &RawValue) -> bool {
    Object::from_raw(block).is_ok_and(|block| block.get_str("type").as_deref() == Some("text"))
}

fn is_object(value: &RawValue) -> bool {
    json::first_byte(value.get().as_bytes()) == Some(b'{')
}

fn describes_object(schema: &RawValue) -> bool {
    Object::from_raw(schema).is_ok_and(|schema| schema.get_str("type").as_deref() == Some("object"))
}
