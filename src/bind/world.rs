//! What outlives a call: the gate, the configuration, and one open connection per host.

use crate::bind::docker::engine::Engine as Docker;
use crate::bind::ssh::Reach;
use crate::config::{Config, Stack};
use crate::error::{Error, Kind, Result};
use crate::gate::{Gate, Target};
use crate::sources::Sources;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Versions by host and command; `None` for a command that is not there.
pub type Versions = Mutex<BTreeMap<(String, String), Option<String>>>;

/// Shared by every binding of a session.
pub struct World {
    /// The door.
    pub gate: Gate,
    /// `opsh.toml`.
    pub config: Config,
    /// Texts of scripts, for errors.
    pub sources: Sources,
    /// Where opsh keeps its journal and known hosts.
    pub state_dir: PathBuf,
    /// Arguments of the script that runs.
    pub args: RefCell<Args>,
    /// Open logins by host name.
    pub logins: RefCell<BTreeMap<String, Reach>>,
    /// Logins that a password was not accepted for: it is not tried again by the next line.
    pub denied: RefCell<BTreeMap<String, Error>>,
    /// What each host's compose commands said of themselves, by host and command: asked once, a third of a second each.
    pub composes: Arc<Versions>,
    /// Open Docker connections by host name.
    pub engines: RefCell<BTreeMap<String, Docker>>,
}

/// Arguments of a script, checked against its header.
#[derive(Clone, Debug, Default)]
pub struct Args {
    /// The script as the operator wrote its path.
    pub script: String,
    /// Its `usage:` line.
    pub usage: String,
    /// Words that are not options.
    pub words: Vec<String>,
    /// `--name VALUE`.
    pub options: BTreeMap<String, String>,
    /// `--name`.
    pub flags: BTreeSet<String>,
}

impl World {
    /// A host as a target: protected unless it is a sandbox.
    pub fn host_target(&self, name: &str) -> Target {
        let protected = !self.config.host(name).is_ok_and(|host| host.sandbox);
        Target { name: name.into(), protected }
    }

    /// A stack as a target: protected unless it or its host is a sandbox.
    pub fn stack_target(&self, stack: &Stack) -> Target {
        let host_is_sandbox = self.config.host(&stack.host).is_ok_and(|host| host.sandbox);
        Target { name: stack.name.clone(), protected: !stack.sandbox && !host_is_sandbox }
    }

    /// Word `at` of the script's arguments, or a usage error that names it.
    pub fn need(&self, at: usize, name: &str) -> Result<String> {
        let args = self.args.borrow();
        args.words
            .get(at)
            .cloned()
            .ok_or_else(|| Error::new(Kind::Usage, format!("{} is missing", name), format!("usage: {}", args.usage)))
    }
}
