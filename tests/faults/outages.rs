//! What is asked while something the gateway stands on is out of reach, and what comes of it.

use std::fmt;

/// What is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    Kv,
    Atomic,
    Queue,
}

impl Store {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::Atomic => "atomic",
            Self::Queue => "queue",
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A tool that is called directly.
    Call,
    /// The same by a client of an older revision.
    OldCall,
    /// `tools/list`.
    List,
    /// A tool whose calls are tasks.
    Task,
    /// A tool with an exact limit.
    Exact,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Outage {
    pub store: Store,
    pub asked: Asked,
    pub status: u16,
    /// Of the error; none where there is a result.
    pub code: Option<i64>,
    /// How often the tool has run when everything is well again and has ended.
    pub runs: usize,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = match self.asked {
            Asked::Call => "a call",
            Asked::OldCall => "a call of an older client",
            Asked::List => "a list",
            Asked::Task => "a task",
            Asked::Exact => "an exact limit",
        };
        write!(f, "{asked} while {} is out of reach", self.store.name())
    }
}

/// Every row.
pub fn outages() -> Vec<Outage> {
    let row = |store, asked| Outage {
        store,
        asked,
        status: 200,
        code: None,
        runs: usize::from(asked != Asked::List),
    };
    let fails = |store, asked| Outage {
        status: 500,
        code: Some(-32603),
        runs: 0,
        ..row(store, asked)
    };
    vec![
        row(Store::Kv, Asked::Call),
        row(Store::Kv, Asked::OldCall),
        row(Store::Kv, Asked::List),
        row(Store::Kv, Asked::Task),
        row(Store::Kv, Asked::Exact),
        row(Store::Atomic, Asked::Call),
        row(Store::Atomic, Asked::OldCall),
        row(Store::Atomic, Asked::List),
        fails(Store::Atomic, Asked::Task),
        // Nobody can say how many there were, so there is no more.
        fails(Store::Atomic, Asked::Exact),
        row(Store::Queue, Asked::Call),
        row(Store::Queue, Asked::OldCall),
        row(Store::Queue, Asked::List),
        fails(Store::Queue, Asked::Task),
        row(Store::Queue, Asked::Exact),
    ]
}
