//! Server-sent events: encoding one message, and decoding a stream as it arrives.
//!
//! The decoder takes chunks split anywhere, also inside a line ending or a character, and does
//! work linear in what it is given. Spec: WHATWG HTML, "Server-sent events".

use std::fmt;

/// Most bytes one event may take, comments aside.
pub const EVENT_MAX: usize = 4 * 1024 * 1024;
/// A comment line: keeps an idle stream open and means nothing.
pub const COMMENT: &str = ": keep-alive\n\n";

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// One JSON-RPC message as one event.
///
/// A line break cannot occur inside a JSON string, so those of a pretty-printed text are
/// insignificant and become spaces.
#[must_use]
pub fn encode_message(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + 24);
    text.push_str("event: message\ndata: ");
    let mut lines = json.split(['\n', '\r']);
    text.extend(lines.next());
    for line in lines {
        text.push(' ');
        text.push_str(line);
    }
    text.push_str("\n\n");
    text
}

/// One decoded event. `Debug` shows how long its data is, not what it says.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// The event name; absent means `message`.
    pub event: Option<String>,
    /// The id this event set.
    pub id: Option<String>,
    /// Data lines joined by line feeds. Empty for events that only set an id or a retry time.
    pub data: String,
    /// Reconnection time in milliseconds.
    pub retry: Option<u64>,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("event", &self.event)
            .field("id", &self.id)
            .field("data_bytes", &self.data.len())
            .field("retry", &self.retry)
            .finish()
    }
}

/// Why a stream cannot be decoded further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// An event exceeds [`EVENT_MAX`].
    #[error("event too large")]
    TooLarge,
    /// A field is not UTF-8.
    #[error("event is not UTF-8")]
    NotUtf8,
}

/// Turns bytes into events.
#[derive(Default)]
pub struct Decoder {
    line: Vec<u8>,
    pending: Event,
    /// Whether `pending` has a field worth giving yet, and whether that is data.
    touched: bool,
    has_data: bool,
    after_cr: bool,
    started: bool,
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and gives the events they complete.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<Vec<Event>, SseError> {
        let mut events = Vec::new();
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.extend_line(&bytes[..end])?;
            let ending = if bytes[end..].starts_with(b"\r\n") {
                2
            } else {
                self.after_cr = bytes[end..] == *b"\r";
                1
            };
            bytes = &bytes[end + ending..];
            events.extend(self.end_line()?);
        }
        self.extend_line(bytes)?;
        Ok(events)
    }

    /// Ends the stream. An event whose closing blank line was cut off is still given: what it
    /// carries must parse as JSON anyway, which tells a whole message from a torn one.
    pub fn finish(&mut self) -> Result<Option<Event>, SseError> {
        if !self.line.is_empty()
            && let Some(event) = self.end_line()?
        {
            return Ok(Some(event));
        }
        Ok(self.dispatch())
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        // Comments are skipped, so of those only the first byte is kept.
        if self.line.first() == Some(&b':') {
            return Ok(());
        }
        if self.line.is_empty() && bytes.first() == Some(&b':') {
            self.line.push(b':');
            return Ok(());
        }
        if self.line.len() + bytes.len() + self.pending.data.len() > EVENT_MAX {
            return Err(SseError::TooLarge);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<Event>, SseError> {
        let line = std::mem::take(&mut self.line);
        let first = !std::mem::replace(&mut self.started, true);
        let content = match line.strip_prefix(BOM) {
            Some(rest) if first => rest,
            Some(_) | None => &line,
        };
        if content.is_empty() {
            return Ok(self.dispatch());
        }
        self.field(content)?;
        // Keep the allocation: a long stream has many lines.
        self.line = line;
        self.line.clear();
        Ok(None)
    }

    fn field(&mut self, line: &[u8]) -> Result<(), SseError> {
        if line.starts_with(b":") {
            return Ok(());
        }
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = |value| std::str::from_utf8(value).map_err(|_| SseError::NotUtf8);
        match name {
            b"data" => {
                if self.has_data {
                    self.pending.data.push('\n');
                }
                self.pending.data.push_str(text(value)?);
                self.has_data = true;
            }
            b"event" => {
                self.pending.event = Some(text(value)?.to_owned());
                return Ok(());
            }
            b"id" if !value.contains(&0) => self.pending.id = Some(text(value)?.to_owned()),
            b"retry" => match text(value)?.parse() {
                Ok(retry) if value.iter().all(u8::is_ascii_digit) => {
                    self.pending.retry = Some(retry);
                }
                Ok(_) | Err(_) => return Ok(()),
            },
            _ => return Ok(()),
        }
        self.touched = true;
        Ok(())
    }

    fn dispatch(&mut self) -> Option<Event> {
        let event = std::mem::take(&mut self.pending);
        self.has_data = false;
        std::mem::take(&mut self.touched).then_some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(chunks: &[&[u8]]) -> Result<Vec<Event>, SseError> {
        let mut decoder = Decoder::new();
        let mut events = Vec::new();
        for chunk in chunks {
            events.extend(decoder.push(chunk)?);
        }
        events.extend(decoder.finish()?);
        Ok(events)
    }

    fn data(text: &str) -> Event {
        Event {
            data: text.to_owned(),
            ..Event::default()
        }
    }

    #[test]
    fn an_encoded_message_is_one_event_with_one_data_line() {
        let text = encode_message("{\n  \"a\": \"x\\ny\",\r\n  \"b\": 1\n}");
        assert_eq!(text.matches('\n').count(), 3);
        let events = decode(&[text.as_bytes()]).unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].event.as_deref(), Some("message"));
        assert_eq!(events[0].id, None);
        let value: serde_json::Value = serde_json::from_str(&events[0].data).unwrap();
        assert_eq!(value, serde_json::json!({"a": "x\ny", "b": 1}));
    }

    #[test]
    fn fields_are_read_as_the_standard_says() {
        for (stream, expected) in [
            ("data: a\n\n", vec![data("a")]),
            ("data:a\r\r", vec![data("a")]),
            ("data:  a\r\n\r\n", vec![data(" a")]),
            ("\u{feff}data: a\n\n", vec![data("a")]),
            ("data: a\ndata: b\ndata\n\n", vec![data("a\nb\n")]),
            ("data\n\n", vec![data("")]),
            (": comment\n\n\n\ndata: a\n: more\n\n", vec![data("a")]),
            ("event: ping\n\n", vec![]),
            (
                "nonsense: x\ndata: a\nretry: soon\nretry: +1\n\n",
                vec![data("a")],
            ),
            ("data: a", vec![data("a")]),
            ("data: a\n", vec![data("a")]),
            ("", vec![]),
            (COMMENT, vec![]),
            (
                "event: x\nid: 7\nretry: 250\ndata: a\n\ndata: b\n\n",
                vec![
                    Event {
                        event: Some("x".into()),
                        id: Some("7".into()),
                        data: "a".into(),
                        retry: Some(250),
                    },
                    data("b"),
                ],
            ),
            (
                "id: 0\ndata:\n\n",
                vec![Event {
                    id: Some("0".into()),
                    ..Event::default()
                }],
            ),
            (
                "id: a\0b\nretry: 9\n\n",
                vec![Event {
                    retry: Some(9),
                    ..Event::default()
                }],
            ),
        ] {
            assert_eq!(
                decode(&[stream.as_bytes()]).unwrap(),
                expected,
                "{stream:?}"
            );
        }
    }

    #[test]
    fn how_the_stream_is_cut_makes_no_difference() {
        let stream = "\u{feff}: c\r\nid: 1\r\ndata: gr\u{f6}\u{df}e \u{1f30a}\r\ndata: b\r\r\ndata: c\n\nevent: x\rdata: d\r\r";
        let bytes = stream.as_bytes();
        let whole = decode(&[bytes]).unwrap();
        assert_eq!(whole.len(), 3);
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let chunks = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(
                    decode(&chunks).unwrap(),
                    whole,
                    "cut at {first} and {second}"
                );
            }
        }
        let single: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(decode(&single).unwrap(), whole);
    }

    #[test]
    fn events_are_given_as_soon_as_they_are_complete() {
        let mut decoder = Decoder::new();
        assert!(decoder.push(b"data: a\r\n").unwrap().is_empty());
        assert_eq!(decoder.push(b"\r").unwrap(), [data("a")]);
        assert!(decoder.push(b"\ndata: b").unwrap().is_empty());
        assert_eq!(decoder.push(b"\n\n").unwrap(), [data("b")]);
    }

    #[test]
    fn an_event_may_be_large_but_not_endless() {
        let fits = format!("data: {}\n\n", "x".repeat(EVENT_MAX - 6));
        assert_eq!(
            decode(&[fits.as_bytes()]).unwrap()[0].data.len(),
            EVENT_MAX - 6
        );
        let one_line = format!("data: {}", "x".repeat(EVENT_MAX));
        assert_eq!(decode(&[one_line.as_bytes()]), Err(SseError::TooLarge));
        let many_lines = format!("data: {}\n", "x".repeat(1000)).repeat(EVENT_MAX / 1000 + 1);
        assert_eq!(decode(&[many_lines.as_bytes()]), Err(SseError::TooLarge));
    }

    #[test]
    fn comments_of_any_length_cost_nothing() {
        let mut decoder = Decoder::new();
        let chunk = vec![b'.'; 64 * 1024];
        decoder.push(b":").unwrap();
        for _ in 0..2 * EVENT_MAX / chunk.len() {
            decoder.push(&chunk).unwrap();
        }
        assert!(decoder.line.capacity() < 64);
        assert_eq!(decoder.push(b"\ndata: a\n\n").unwrap(), [data("a")]);
    }

    #[test]
    fn fields_that_are_not_utf8_end_the_stream() {
        assert_eq!(decode(&[b"data: \xff\n\n"]), Err(SseError::NotUtf8));
        assert_eq!(decode(&[b": \xff\ndata: a\n\n"]).unwrap(), [data("a")]);
    }
}
