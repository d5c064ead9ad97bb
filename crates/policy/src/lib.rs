//! The conditions of policies: a language for people, bounded for machines.
//!
//! A [`Condition`] is a CEL expression. It is read once per configuration and refused if it
//! could not mean what it says: a name that is no field, a word no field can have, a
//! function that does not exist. After that it is weighed against [`Facts`], also while the
//! arguments of a call are not known yet: then its [`Outcome`] is the set of what it can
//! still come to.
//!
//! Pure and synchronous: no I/O, no clock. A room of its own because it is compiled for
//! size, unlike what decides with it: most of it runs once per configuration.

mod check;
mod condition;
mod engine;
mod facts;
mod fields;
mod outcome;

pub use check::{DEPTH_MAX, PARTS_MAX, Scope};
pub use condition::{Condition, Flaw, STEPS_MAX, Weighed};
pub use engine::{Engine, Network};
pub use facts::{ARGUMENT_BYTES_MAX, ARGUMENT_VALUES_MAX, Arguments, Facts, Hints, Subject};
pub use fields::{CLASSIFICATIONS, Phase};
pub use outcome::Outcome;
