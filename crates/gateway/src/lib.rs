//! The Tidegate gateway, independent of any host.
//!
//! [`Gateway`] has five doors: [`Gateway::serve`] answers an HTTP request,
//! [`Gateway::keep`] one to a keeper, [`Gateway::consume`] and [`Gateway::consume_dead`]
//! take queue messages, and [`Gateway::tick`] is called by a timer. Everything it does to
//! the world goes through the ports in [`platform`]; everything it decides is a function of
//! values. It names no host, reads no clock of its own, and needs no `Send`.

mod admin;
pub mod audit;
pub mod auth;
pub mod body;
pub mod canary;
pub mod catalog;
pub mod config;
pub mod context;
pub mod converse;
pub mod credentials;
pub mod discover;
pub mod dispatch;
pub mod dry_run;
pub mod edge;
pub mod egress;
pub mod error;
mod fallback;
mod flight;
mod gateway;
pub mod health;
pub mod hop;
pub mod http_sse;
pub mod idempotency;
pub mod ingress;
pub mod keep;
pub mod keyspace;
pub mod limits;
pub mod listen;
pub mod load;
pub mod mailbox;
pub mod memory;
pub mod mirror;
pub mod names;
pub mod notices;
pub mod park;
pub mod pipeline;
mod places;
pub mod platform;
pub mod policy;
mod published;
pub mod queue;
pub mod quotas;
pub mod request_token;
pub mod rounds;
pub mod route;
mod schema;
pub mod seal;
pub mod session;
pub mod settings;
pub mod switches;
pub mod tasks;
pub mod tenancy;
pub mod time;
mod tools;
pub mod upstream;

pub use gateway::Gateway;
pub use memory::Memory;
pub use queue::Consumed;
