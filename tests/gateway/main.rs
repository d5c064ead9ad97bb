//! The whole gateway in the simulator: scripted clients, upstreams and an issuer, time as a
//! field, faults as ordinary inputs. One module per stage of a request's life.
//!
//! Every [`world::World`] also checks, when it ends, what must hold whatever a test does:
//! see [`world::invariants`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "every panic here is a failed claim"
)]
#![allow(
    missing_docs,
    reason = "a test binary has no readers but its own modules"
)]

mod admit;
mod answers;
#[path = "../attacks/mod.rs"]
mod attacks;
mod audit;
mod auth;
mod auth_attacks;
mod auth_issuer;
mod auth_revocation;
mod batch;
mod breaker;
mod caching;
mod canary;
mod catalog_cache;
mod configuration;
mod converse;
mod credentials;
mod deep_health;
mod door;
mod dry_run;
mod edge;
mod era;
mod extensions;
mod fault_matrix;
#[path = "../faults/mod.rs"]
mod faults;
mod federation;
mod health;
mod hostile;
mod http_sse;
mod idempotency;
mod isolation;
mod keys;
mod ladder;
mod legacy;
mod limit_rules;
mod limits_bound;
mod listen;
mod listen_tasks;
mod logging;
mod metadata;
mod mirror;
mod naming;
mod park;
mod policy;
mod policy_rules;
mod quotas;
mod request_token;
mod resilience;
mod rounds;
mod session;
mod sessions;
mod streaming;
mod switches;
mod task_handles;
mod tasks;
mod tasks_admin;
mod tasks_asking;
mod tasks_auto;
mod tasks_deliveries;
mod tasks_faults;
mod tasks_follow;
mod tasks_legacy;
mod tasks_limits;
mod tasks_passed;
mod tasks_required;
mod tasks_roster;
mod tasks_runs;
mod tasks_schedules;
mod tasks_sweep;
mod tasks_withdrawn;
mod tenancy;
mod tools;
mod upstream;
mod validation;
mod world;
