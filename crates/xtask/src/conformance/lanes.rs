//! What is scored: which of the suite's scenarios, against the gateway in front of what.

/// The revisions the suite has requirements for.
pub const REVISIONS: [&str; 2] = [MODERN, LEGACY];

/// The stateless era.
pub const MODERN: &str = "2026-07-28";

/// The last revision of the era of sessions.
pub const LEGACY: &str = "2025-11-25";

/// The scenarios of the tasks extension. No requirement set has them: they run one by one.
pub const TASKS: [&str; 10] = [
    "tasks-lifecycle",
    "tasks-capability-negotiation",
    "tasks-wire-fields",
    "tasks-request-state-removal",
    "tasks-mrtr-input",
    "tasks-request-headers",
    "tasks-dispatch-and-envelope",
    "tasks-status-notifications",
    "tasks-required-task-error",
    "tasks-mrtr-composition",
];

/// The client scenarios that look at what a client sends rather than at how it signs in.
pub const CLIENT: [&str; 6] = [
    "request-metadata",
    "http-standard-headers",
    "http-custom-headers",
    "http-invalid-tool-headers",
    "sep-2322-client-request-state",
    "json-schema-ref-no-deref",
];

/// One way to look at the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// The reference server, which speaks every revision: nothing is translated.
    SameEra,
    /// A server that refuses the client's era: everything is translated.
    AcrossEras,
    /// The reference server among others, merged and prefixed, behind an un-prefixing shim.
    Merged,
    /// Tools that are tasks because the gateway's configuration says so.
    Tasks,
    /// A server of the tasks extension.
    UpstreamTasks,
    /// The suite's mock servers as upstreams: the gateway as the client under test.
    UpstreamHalf,
}

impl Lane {
    /// In the order they run.
    pub const ALL: [Self; 6] = [
        Self::SameEra,
        Self::AcrossEras,
        Self::Merged,
        Self::Tasks,
        Self::UpstreamTasks,
        Self::UpstreamHalf,
    ];

    /// As the baseline and the command line call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SameEra => "same-era",
            Self::AcrossEras => "across-eras",
            Self::Merged => "merged",
            Self::Tasks => "tasks",
            Self::UpstreamTasks => "upstream-tasks",
            Self::UpstreamHalf => "upstream-half",
        }
    }

    /// What it shows.
    pub fn about(self) -> &'static str {
        match self {
            Self::SameEra => "the reference server, which speaks both eras",
            Self::AcrossEras => "a server that refuses the era of the requirements",
            Self::Merged => "two servers merged, names prefixed, behind an un-prefixing shim",
            Self::Tasks => "a server without tasks, its tools configured to be tasks",
            Self::UpstreamTasks => "a server of the tasks extension",
            Self::UpstreamHalf => "the suite's mock servers as upstreams",
        }
    }

    /// The revisions it runs at.
    pub fn revisions(self) -> &'static [&'static str] {
        match self {
            Self::SameEra | Self::AcrossEras | Self::Merged => &REVISIONS,
            Self::Tasks | Self::UpstreamTasks | Self::UpstreamHalf => &[MODERN],
        }
    }

    /// Which scenarios it runs.
    pub fn scenarios(self) -> Scenarios {
        match self {
            Self::SameEra | Self::AcrossEras | Self::Merged => Scenarios::Requirements,
            Self::Tasks | Self::UpstreamTasks => Scenarios::Server(&TASKS),
            Self::UpstreamHalf => Scenarios::Client(&CLIENT),
        }
    }
}

/// A choice of the suite's scenarios.
#[derive(Clone, Copy, Debug)]
pub enum Scenarios {
    /// What a revision requires of a server, and what the suite runs beside that.
    Requirements,
    /// These, against a server.
    Server(&'static [&'static str]),
    /// These, against a client.
    Client(&'static [&'static str]),
}
