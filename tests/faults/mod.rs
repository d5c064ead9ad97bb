//! What goes wrong with upstreams and stores. For upstreams a table of faults, each with the exact answer a client must get for it, how
//! soon, and how often the tool may have been called.
//!
//! One table for every host: the gateway on the simulator and the function on its real runtime
//! meet the same rows, before clients and upstreams of both eras. [`server`] is the upstream,
//! which knows no network: whoever tests brings its words there.

pub mod outages;
mod rows;
pub mod server;

use std::time::Duration;

pub use rows::table;

/// How long an upstream has for its answer.
pub const PATIENCE: Duration = Duration::from_secs(4);
/// The only tool of a flawed server.
pub const TOOL: &str = "act";
/// What it gives where nothing goes wrong.
pub const DONE: &str = "done";

/// What goes wrong with a call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nobody listens.
    Refuses,
    /// It acts, and the connection is cut before it says anything.
    Cuts,
    /// It acts, and what it says is not HTTP.
    NotHttp,
    /// It acts, and never says anything.
    Silent,
    /// It acts, or does not, and this is its answer.
    Says(Answer),
    /// A server of the other era has taken its place.
    Turns,
}

/// An HTTP answer, as it comes.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub parts: Vec<Part>,
}

/// One piece of an answer's body.
#[derive(Debug, Clone)]
pub enum Part {
    /// Text; `$id` in it is the request's id.
    Text(String),
    Bytes(&'static [u8]),
    /// So many bytes of nothing in particular.
    Fill(usize),
    Pause(Duration),
    /// The same text again and again, without end.
    Forever(&'static str, Duration),
    /// The connection is reset.
    Reset,
}

/// What a client is told in place of a result.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// HTTP status for a client of 2026-07-28; older ones read an error only under 200.
    pub status: u16,
    pub code: i64,
    /// `reason` in the error's data; empty where the words are the upstream's own.
    pub reason: &'static str,
    pub retry_after: Option<u64>,
}

/// How soon a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Well before the upstream's time is over.
    Soon,
    /// When its time is over.
    InTime,
}

/// One row.
#[allow(dead_code, reason = "each host reads the columns that concern it")]
#[derive(Debug, Clone)]
pub struct Row {
    pub name: &'static str,
    pub fault: Fault,
    /// The error a client gets; none where it gets the tool's result.
    pub told: Option<Told>,
    pub when: When,
    /// How often one call comes through to the tool.
    pub asked: usize,
    /// How a task ends whose first run meets this, when the upstream is well again.
    pub task: &'static str,
    /// What is different on a runtime that cannot tell as much.
    pub on_workerd: Option<OnWorkerd>,
}

/// What a runtime makes of a fault that it cannot tell from another.
#[allow(dead_code, reason = "each host reads the columns that concern it")]
#[derive(Debug, Clone, Copy)]
pub struct OnWorkerd {
    /// The `reason` a client is told.
    pub reason: &'static str,
    /// How a task ends, of a modern upstream and of a legacy one.
    pub tasks: [&'static str; 2],
    /// What it cannot tell.
    pub why: &'static str,
}

impl OnWorkerd {
    /// How a task ends, of an upstream of this era.
    pub const fn task(&self, modern: bool) -> &'static str {
        let [of_modern, of_legacy] = self.tasks;
        if modern { of_modern } else { of_legacy }
    }
}
