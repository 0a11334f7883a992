//! What opsh does to a real server: each test drives the built program against a lab of its own and then looks at the
//! server from inside.
//!
//! The tests run one at a time, in any order, each from a state that it makes itself. Releases, migrations and columns
//! of the lab have names drawn from a seed that is printed: `OPSH_LAB_SEED=… cargo test live::` draws the same again.

mod accounts;
mod argv;
mod attach;
mod backup;
mod environment;
mod freeze;
mod killed;
mod lab;
mod lock;
mod migrate;
mod opsh;
mod refusals;
mod releases;
mod rollback;
mod terminal;
mod trust;
mod undo;
mod verbs;
