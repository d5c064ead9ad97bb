//! What becomes of calls whose upstream fails.

mod bounds;
mod circuits;
mod fallback;
mod lists;
mod once;
mod retries;
