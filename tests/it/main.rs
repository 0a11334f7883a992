//! The integration tests: one binary, one module per subject.
#![allow(clippy::disallowed_methods, reason = "tests set the stage that verbs act on, and look at it from outside")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod asks;
mod bans;
mod cases;
mod certificate;
mod checks;
mod cli;
mod closures;
mod completion;
mod failed;
mod faults;
mod file;
mod fleet;
mod git;
mod hangup;
mod home;
mod hung;
mod interrupts;
mod journal;
mod layout;
mod lint;
mod live;
mod lock;
mod merge_check;
mod network;
mod output;
mod preflight;
mod processes;
mod programs;
mod prompt;
mod provenance;
mod readme;
mod reference;
mod replay;
mod resume;
mod scripts;
mod sitting;
mod skip;
mod sshd;
mod terminal;
mod tidy;
mod undo;
mod verbs;
mod work;
mod zone;
