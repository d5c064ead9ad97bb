//! What conditions can speak of: every field, what it may hold, and for which rules it
//! exists.

/// What a rule is about. A field exists in some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A tool is listed or called.
    Tool,
    /// A prompt is listed, got, or completed.
    Prompt,
    /// A resource is listed, read, subscribed to, or completed.
    Resource,
}

impl Phase {
    /// As a person reads it.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Tool => "tools",
            Self::Prompt => "prompts",
            Self::Resource => "resources",
        }
    }
}

/// The words a text can be, where they are known beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Words {
    /// Anything.
    Free,
    /// `policy.roles`.
    Role,
    /// Names of configured upstreams.
    Upstream,
    /// Tools' own names, without their upstreams'.
    Tool,
    /// [`CLASSIFICATIONS`].
    Classification,
    /// [`WEEKDAYS`].
    Weekday,
    /// Two capital letters (ISO 3166-1).
    Country,
    /// `2026-11-21`.
    Date,
    /// `17:40`.
    Time,
}

/// What is known of a value before there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing: arguments, and what is made of them.
    Any,
    /// `null`.
    Null,
    /// True or false.
    Bool,
    /// A number.
    Number,
    /// A text, or `null` where there is none.
    Text(Words),
    /// A list of texts.
    Texts(Words),
    /// A list of anything.
    List,
}

/// How closely data can be held, from the least to the most.
pub const CLASSIFICATIONS: [&str; 4] = ["public", "internal", "confidential", "restricted"];

/// The days of a week, the first of January 1970 being the fifth of these.
pub(super) const WEEKDAYS: [&str; 7] = [
    "sunday",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
];

/// The arguments of a call, whatever they are.
pub(super) const ARGS: &str = "args";

const EVERYWHERE: &[Phase] = &[Phase::Tool, Phase::Prompt, Phase::Resource];
const TOOLS: &[Phase] = &[Phase::Tool];

/// Every field: its name, what it holds, and where it exists.
pub(super) const FIELDS: &[(&str, Kind, &[Phase])] = &[
    ("principal.issuer", Kind::Text(Words::Free), EVERYWHERE),
    ("principal.subject", Kind::Text(Words::Free), EVERYWHERE),
    ("principal.client", Kind::Text(Words::Free), EVERYWHERE),
    ("principal.tenant", Kind::Text(Words::Free), EVERYWHERE),
    ("principal.roles", Kind::Texts(Words::Role), EVERYWHERE),
    ("principal.scopes", Kind::Texts(Words::Free), EVERYWHERE),
    (
        "principal.clearance",
        Kind::Text(Words::Classification),
        EVERYWHERE,
    ),
    ("upstream.name", Kind::Text(Words::Upstream), EVERYWHERE),
    (
        "upstream.classification",
        Kind::Text(Words::Classification),
        EVERYWHERE,
    ),
    ("request.address", Kind::Text(Words::Free), EVERYWHERE),
    ("request.country", Kind::Text(Words::Country), EVERYWHERE),
    ("now.date", Kind::Text(Words::Date), EVERYWHERE),
    ("now.time", Kind::Text(Words::Time), EVERYWHERE),
    ("now.hour", Kind::Number, EVERYWHERE),
    ("now.weekday", Kind::Text(Words::Weekday), EVERYWHERE),
    ("tool.name", Kind::Text(Words::Tool), TOOLS),
    ("tool.annotations.readOnlyHint", Kind::Bool, TOOLS),
    ("tool.annotations.destructiveHint", Kind::Bool, TOOLS),
    ("tool.annotations.idempotentHint", Kind::Bool, TOOLS),
    ("tool.annotations.openWorldHint", Kind::Bool, TOOLS),
    ("prompt.name", Kind::Text(Words::Free), &[Phase::Prompt]),
    ("resource.uri", Kind::Text(Words::Free), &[Phase::Resource]),
    (ARGS, Kind::Any, &[Phase::Tool, Phase::Prompt]),
];

/// Where the fields about a tool's annotations begin.
pub(super) const ANNOTATIONS: &str = "tool.annotations.";

/// Whether a text has the form these words have; [`Words::Role`], [`Words::Upstream`] and
/// [`Words::Tool`] depend on the configuration and are not judged here.
pub(super) fn has_form(words: Words, text: &str) -> bool {
    let digits = |pattern: &str| {
        text.len() == pattern.len()
            && text.bytes().zip(pattern.bytes()).all(|(c, p)| match p {
                b'0' => c.is_ascii_digit(),
                p => c == p,
            })
    };
    match words {
        Words::Free | Words::Role | Words::Upstream | Words::Tool => true,
        Words::Classification => CLASSIFICATIONS.contains(&text),
        Words::Weekday => WEEKDAYS.contains(&text),
        Words::Country => text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase()),
        Words::Date => digits("0000-00-00"),
        Words::Time => digits("00:00"),
    }
}

/// What a text of these words looks like, for a person who wrote another.
pub(super) fn form(words: Words) -> String {
    match words {
        Words::Free | Words::Role | Words::Upstream | Words::Tool => String::new(),
        Words::Classification => CLASSIFICATIONS.join(", "),
        Words::Weekday => WEEKDAYS.join(", "),
        Words::Country => "two capital letters, such as DE".to_owned(),
        Words::Date => "a date such as 2026-11-21".to_owned(),
        Words::Time => "a time such as 17:40, in UTC".to_owned(),
    }
}
