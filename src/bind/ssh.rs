//! Everything opsh knows about reaching a host, and about processes on this machine. Home of `openssh`.
//!
//! One login per host: opsh starts its own ssh as a supervised child, so that passwords and strict host keys work,
//! and all commands, files and sockets share that connection. [`Reach`] runs words in both places the same way: under
//! a few lines of `sh` that tell how the command ended and end it when opsh is gone.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is the home of ssh and of processes: everything in it that acts takes a &Pass"
)]

mod asks;
mod channel;
mod durable;
mod failure;
mod hello;
mod hostkey;
mod keep;
mod launch;
mod link;
mod quote;
mod records;
mod route;
mod run;
mod scripts;
mod terminal;
#[cfg(test)]
mod test_durable;
#[cfg(test)]
mod test_faults;
#[cfg(test)]
mod test_hello;
#[cfg(test)]
mod test_keys;
#[cfg(test)]
mod test_login;
#[cfg(test)]
mod test_output;
#[cfg(test)]
mod test_questions;
#[cfg(test)]
mod test_quoting;
#[cfg(test)]
mod test_run;
#[cfg(test)]
pub(super) mod tests;
mod trust;

pub use asks::askpass;
pub use channel::{Complaints, Stream, own_session};
pub use durable::{Durable, Listed, Started};
pub use hostkey::{HostKey, known_keys, offered_keys, overruled, remember_key};
pub use keep::Kept;
pub use link::{Link, LoginFailed, connect};
pub use quote::{quote, quote_all, readable, shell_word};

use crate::config::Address;
use crate::redact::Secret;
use std::path::{Path, PathBuf};

/// How to reach one host.
#[derive(Clone, Debug)]
pub struct Login {
    /// The host's name in opsh.toml; host keys are kept under it.
    pub name: String,
    /// `user@host`, `user@host:port`, `user@[::1]:port`, or a name in `~/.ssh/config`.
    pub dest: String,
    /// Port, if not the one of `~/.ssh/config` or 22.
    pub port: Option<u16>,
    /// The key to use; then keys of the agent that are not configured are not offered.
    pub identity: Option<PathBuf>,
    /// `user@host`, `user@host:port` or a name in `~/.ssh/config` to go through; several with commas between them.
    pub jump: Option<String>,
    /// `SHA256:…` of the host's key; decides alone, whatever opsh's list says of the host.
    pub host_key: Option<String>,
    /// Password at the host; tried once.
    pub password: Option<Secret>,
    /// Password at the jump host; tried once.
    pub jump_password: Option<Secret>,
    /// Passphrase of the keys; never leaves this machine.
    pub passphrase: Option<Secret>,
    /// Seconds of silence, 2 to 120, after which the connection counts as lost; it may take up to half as long again.
    pub alive_s: u32,
    /// opsh's own list of host keys, an absolute path. No other list is read.
    pub known_hosts: PathBuf,
    /// Directory for control sockets: at most about 70 bytes long, made with mode 0700; see [`control_dir`].
    pub control_dir: PathBuf,
}

/// The list of host keys when the state folder is not this user's alone: no key is known, and none can be kept.
pub const NO_LIST: &str = "/dev/null";

impl Login {
    /// A login with keys, to a host without a jump host.
    pub fn new(name: &str, dest: &str, known_hosts: PathBuf, control_dir: PathBuf) -> Login {
        Login {
            name: name.into(),
            dest: dest.into(),
            port: None,
            identity: None,
            jump: None,
            host_key: None,
            password: None,
            jump_password: None,
            passphrase: None,
            alive_s: 15,
            known_hosts,
            control_dir,
        }
    }

    /// Where `dest` and `port` lead; fails with the reason when they are no address.
    fn address(&self) -> Result<Address, String> {
        let address = Address::parse(&self.dest)?;
        match (address.port, self.port) {
            (Some(here), Some(there)) if here != there => {
                Err(format!("the address {:?} and port = {there} name two ports", self.dest))
            }
            (here, there) => Ok(Address { port: there.or(here), ..address }),
        }
    }

    /// The name that host keys are kept under. ssh lowers the case of names in its lists, but not that of an alias.
    fn alias(&self) -> String {
        self.name.to_ascii_lowercase()
    }
}

/// The private folder for sockets: below `XDG_RUNTIME_DIR` where that is this user's alone, else below `state_dir`. Never in
/// a folder that others write to: whoever comes first there would keep everybody else out.
pub fn control_dir(state_dir: &Path) -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let usable =
        runtime.filter(|dir| dir.is_absolute() && launch::is_private(dir) && launch::is_short(&dir.join("opsh")));
    usable.map_or_else(|| state_dir.join("ssh"), |dir| dir.join("opsh"))
}

/// A place that runs words.
#[derive(Clone)]
pub enum Reach {
    /// This machine.
    Local,
    /// A host that let us in.
    Ssh(Link),
}

impl Reach {
    /// The host's name in opsh.toml, or `local`.
    pub fn name(&self) -> &str {
        match self {
            Reach::Local => "local",
            Reach::Ssh(link) => link.name(),
        }
    }

    /// False once the login is known to be lost.
    pub fn is_up(&self) -> bool {
        match self {
            Reach::Local => true,
            Reach::Ssh(link) => link.gone().is_none(),
        }
    }
}

/// A command as words; no shell reads them.
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// Program and arguments. Together with `env` at most 120 KiB.
    pub words: Vec<String>,
    /// Directory to run in; the login's home otherwise.
    pub cwd: Option<String>,
    /// Variables to add to the login's environment. They are in no argv, here or there.
    pub env: Vec<(String, Secret)>,
    /// All of its stdin. It is in no argv, and in no file that has a name when the command runs.
    pub stdin: Vec<u8>,
    /// Bytes kept of each output, half from its beginning and half from its end; the rest is read and counted.
    pub keep: usize,
}

/// A command that ended, or of which no more is known.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// What it wrote to stdout.
    pub stdout: Kept,
    /// What it wrote to stderr.
    pub stderr: Kept,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With this exit status, 0 to 255, as a shell counts it. A program that signal n ended has 128 + n, as has one that
    /// exits so: no shell tells them apart, so [`signal_note`] says what it may mean.
    Exited(i32),
    /// It certainly did not run, and why.
    NotStarted(String),
    /// It was sent, and then word of it was lost: it may have run, be running, or be dead.
    Unknown(String),
}

/// What an exit status of 129 to 192 may mean besides: a shell reports signal n as 128 + n, and a program may exit so.
pub fn signal_note(status: i32) -> Option<String> {
    let signal = status.checked_sub(128).filter(|signal| (1..=64).contains(signal))?;
    let named =
        [(1, "HUP"), (2, "INT"), (3, "QUIT"), (6, "ABRT"), (9, "KILL"), (11, "SEGV"), (13, "PIPE"), (15, "TERM")];
    let name =
        named.iter().find(|(number, _)| *number == signal).map_or(String::new(), |(_, name)| format!(", {name}"));
    Some(format!("128 + {signal}: perhaps ended by signal {signal}{name}"))
}
