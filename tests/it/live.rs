//! What opsh does to a real server: each test drives the built program against a lab of its own and then looks at the
//! server from inside.
//!
//! There are two labs; a test has one of them to itself and makes the state that it begins with, so the tests run in any
//! order. Releases, migrations and columns of a lab have names drawn from a seed that is printed:
//! `OPSH_LAB_SEED=… cargo test live::` draws the same again (the second lab has the seed after it).

mod accounts;
mod aid;
mod argv;
mod attach;
mod backup;
mod chance;
mod checks;
mod deploy;
mod environment;
mod freeze;
mod killed;
mod known;
mod lab;
mod lock;
mod migrate;
mod opsh;
mod preflight;
mod refusals;
mod releases;
mod roles;
mod rollback;
mod shell;
mod stopped;
mod terminal;
mod traps;
mod troubleshoot;
mod trust;
mod undo;
mod verbs;
