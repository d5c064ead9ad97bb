//! The Model Context Protocol as a gateway sees it.
//!
//! Pure and synchronous: no I/O, no clock, no randomness, no async. Text and values in, values
//! and text out. What a gateway decides on is parsed; everything else is carried as the text it
//! arrived in.
//!
//! Covers revisions 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25 and 2026-07-28, and the
//! tasks extension.
//!
//! | module | what |
//! |---|---|
//! | [`json`] | objects with byte-faithful members, bounded and free of duplicates |
//! | [`jsonrpc`] | the message envelope and its errors |
//! | [`version`] | revisions and eras |
//! | [`meta`] | the `_meta` envelope |
//! | [`headers`] | headers that mirror the body, and their agreement with it |
//! | [`method`] | the methods a gateway understands |
//! | [`catalog`] | lists, pages, cache hints |
//! | [`input`] | results that ask for input |
//! | [`task`] | the tasks extension |
//! | [`timestamp`] | milliseconds since 1970 to and from ISO 8601 |
//! | [`sse`] | server-sent events |
//! | [`subscription`] | what a client listens for |
//! | [`era`] | translation between legacy and modern |

pub mod catalog;
pub mod era;
pub mod headers;
pub mod input;
pub mod json;
pub mod jsonrpc;
pub mod meta;
pub mod method;
pub mod sse;
pub mod subscription;
pub mod task;
pub mod timestamp;
pub mod version;
