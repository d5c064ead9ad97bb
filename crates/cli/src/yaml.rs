//! YAML 1.2 with the place of every field and value kept.
//!
//! Core schema scalars, anchors, aliases and merge keys are understood; duplicate keys,
//! several documents, other tags and anything JSON cannot hold are problems. Size, depth
//! and the number of values after aliases are bounded.

mod scalar;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::Value;

use crate::finding::{Finding, Place, escape};

/// Largest file read, in bytes.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Deepest nesting: four times what the format needs.
const DEPTH_MAX: usize = 32;
/// Most values in one file, aliases expanded.
const NODES_MAX: usize = 100_000;

/// A value and where it is written.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub content: Content,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Content {
    /// Text, number, boolean or null.
    Scalar(Value),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order it is written.
    Map(IndexMap<String, Field>),
}

/// One entry of a mapping.
#[derive(Debug, Clone)]
pub struct Field {
    /// Where its key is written.
    pub place: Place,
    /// Its value.
    pub node: Node,
}

/// Parses one document. All duplicate keys are reported; anything else wrong ends parsing.
pub fn parse(text: &str, file: usize) -> Result<Node, Vec<Finding>> {
    let mut composer = Composer {
        parser: Parser::new_from_str(text),
        text,
        file,
        nodes: 0,
        anchors: BTreeMap::new(),
        found: Vec::new(),
    };
    match composer.document() {
        Ok(node) if composer.found.is_empty() => Ok(node),
        Ok(_) => Err(composer.found),
        Err(fatal) => {
            composer.found.push(fatal);
            Err(composer.found)
        }
    }
}

struct Composer<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    text: &'a str,
    file: usize,
    nodes: usize,
    anchors: BTreeMap<usize, Node>,
    found: Vec<Finding>,
}

impl<'a> Composer<'a> {
    fn document(&mut self) -> Result<Node, Finding> {
        let mut whole = None;
        loop {
            let (event, span) = self.next("")?;
            match event {
                Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::Nothing => {}
                Event::StreamEnd => break,
                content @ (Event::Alias(_)
                | Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd) => {
                    if whole.is_some() {
                        let remedy = "keep one configuration in the file";
                        return Err(self.problem(span, "", "a second document", remedy));
                    }
                    whole = Some(self.node(content, span, "", 0)?);
                }
            }
        }
        let start = Place {
            file: self.file,
            line: 1,
            column: 1,
        };
        whole.ok_or_else(|| Finding {
            place: start,
            pointer: String::new(),
            message: "the file is empty".to_owned(),
            remedy: "`tidegate init` writes one to begin with".to_owned(),
        })
    }

    fn next(&mut self, pointer: &str) -> Result<(Event<'a>, Span), Finding> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let marker = *error.marker();
                let span = Span::empty(marker);
                let line = self
                    .text
                    .lines()
                    .nth(marker.line().saturating_sub(1))
                    .unwrap_or_default();
                // `{ token: ${secret:NAME} }`: the braces end the mapping they are in.
                let remedy = if line.contains("${") {
                    "inside { } or [ ] put quotes around \"${secret:NAME}\""
                } else {
                    "check indentation, quotes and brackets up to this place"
                };
                Err(self.problem(
                    span,
                    pointer,
                    &format!("not YAML: {}", error.info()),
                    remedy,
                ))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn place(&self, span: Span) -> Place {
        Place {
            file: self.file,
            line: span.start.line().max(1),
            column: span.start.col() + 1,
        }
    }

    fn problem(&self, span: Span, pointer: &str, message: &str, remedy: &str) -> Finding {
        Finding {
            place: self.place(span),
            pointer: pointer.to_owned(),
            message: message.to_owned(),
            remedy: remedy.to_owned(),
        }
    }

    fn node(
        &mut self,
        event: Event<'a>,
        span: Span,
        pointer: &str,
        depth: usize,
    ) -> Result<Node, Finding> {
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return Err(self.problem(
                span,
                pointer,
                "too deeply nested or too many values",
                "make it smaller",
            ));
        }
        let place = self.place(span);
        let (anchor, content) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(&text, style, tag.as_deref(), span, pointer)?;
                (anchor, Content::Scalar(value))
            }
            Event::SequenceStart(anchor, tag) => {
                self.no_tag(tag.as_deref(), span, pointer)?;
                (anchor, Content::List(self.list(pointer, depth)?))
            }
            Event::MappingStart(anchor, tag) => {
                self.no_tag(tag.as_deref(), span, pointer)?;
                (anchor, Content::Map(self.map(pointer, depth)?))
            }
            Event::Alias(anchor) => return self.alias(anchor, span, pointer),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => {
                return Err(self.problem(
                    span,
                    pointer,
                    "the file ends too early",
                    "complete the last value",
                ));
            }
        };
        let node = Node { place, content };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: Span, pointer: &str) -> Result<Node, Finding> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(self.problem(
                span,
                pointer,
                "an alias inside its own anchor",
                "write the value out",
            ));
        };
        self.nodes += count(node);
        if self.nodes > NODES_MAX {
            return Err(self.problem(
                span,
                pointer,
                "too many values once aliases are expanded",
                "use fewer aliases",
            ));
        }
        Ok(Node {
            place: self.place(span),
            content: node.content.clone(),
        })
    }

    fn list(&mut self, pointer: &str, depth: usize) -> Result<Vec<Node>, Finding> {
        let mut items = Vec::new();
        loop {
            let at = format!("{pointer}/{}", items.len());
            let (event, span) = self.next(&at)?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(items);
            }
            items.push(self.node(event, span, &at, depth + 1)?);
        }
    }

    fn map(&mut self, pointer: &str, depth: usize) -> Result<IndexMap<String, Field>, Finding> {
        let mut fields: IndexMap<String, Field> = IndexMap::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next(pointer)?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let Event::Scalar(key, style, ..) = event else {
                let message = "a field name that is not text";
                return Err(self.problem(span, pointer, message, "write a plain name"));
            };
            let (key, merges) = (key.as_ref(), key == "<<" && style == ScalarStyle::Plain);
            let at = format!("{pointer}/{}", escape(key));
            let (event, value_span) = self.next(&at)?;
            let node = self.node(event, value_span, &at, depth + 1)?;
            if merges {
                merged.push((node, span));
                continue;
            }
            if let Some(first) = fields.get(key) {
                let message = format!(
                    "the field is here twice, first on line {}",
                    first.place.line
                );
                let twice = self.problem(span, &at, &message, "remove one of the two");
                self.found.push(twice);
                continue;
            }
            fields.insert(
                key.to_owned(),
                Field {
                    place: self.place(span),
                    node,
                },
            );
        }
        for (node, span) in merged {
            self.merge(&mut fields, node, span, pointer)?;
        }
        Ok(fields)
    }

    /// `<<`: fields of other mappings, where the mapping has none of that name itself.
    fn merge(
        &self,
        fields: &mut IndexMap<String, Field>,
        from: Node,
        span: Span,
        pointer: &str,
    ) -> Result<(), Finding> {
        match from.content {
            Content::Map(others) => {
                for (key, field) in others {
                    fields.entry(key).or_insert(field);
                }
                Ok(())
            }
            Content::List(nodes) => nodes
                .into_iter()
                .try_for_each(|node| self.merge(fields, node, span, pointer)),
            Content::Scalar(_) => Err(self.problem(
                span,
                pointer,
                "`<<` merges something that is not a mapping",
                "name an anchored mapping",
            )),
        }
    }

    fn no_tag(&self, tag: Option<&Tag>, span: Span, pointer: &str) -> Result<(), Finding> {
        match tag {
            Some(_) => Err(self.problem(
                span,
                pointer,
                "a tag that means nothing here",
                "remove the tag",
            )),
            None => Ok(()),
        }
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: Span,
        pointer: &str,
    ) -> Result<Value, Finding> {
        let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
        if !is_text {
            self.no_tag(tag, span, pointer)?;
        }
        if is_text || style != ScalarStyle::Plain {
            return Ok(text.into());
        }
        scalar::plain(text).ok_or_else(|| {
            self.problem(
                span,
                pointer,
                "a number that JSON cannot hold",
                "write a finite number",
            )
        })
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.content {
        Content::Scalar(_) => 0,
        Content::List(items) => items.iter().map(count).sum(),
        Content::Map(fields) => fields.values().map(|field| count(&field.node)).sum(),
    }
}

#[cfg(test)]
mod tests;
