//! What becomes of calls whose upstream fails.

mod circuits;
