//! An embedded scripting shell for operations: ssh, docker, git and migrations behind one recorded door.
//!
//! `src/README.md` describes the architecture; a module may only use modules to its right:
//! main → cli → shell → session → engine → bind → gate → config, screen → sources, redact, interrupt, memory, shield, whole → error.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests set the stage that verbs act on"))]

pub mod bind;
pub mod cli;
pub mod config;
pub mod engine;
pub mod error;
pub mod gate;
pub mod interrupt;
pub mod memory;
pub mod redact;
pub mod screen;
pub mod session;
pub mod shell;
pub mod shield;
pub mod sources;
pub mod whole;
