//! What outlives a call: the gate, the configuration, and the way to each host.

use crate::bind::hints;
use crate::bind::lock::{self, Locks};
use crate::bind::way::Way;
use crate::config::{Address, Config, Host, LOCAL, Stack};
use crate::error::{Error, Kind, Result};
use crate::gate::{Gate, HERE, State, Target};
use crate::sources::Sources;
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
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
    pub state: State,
    /// Arguments of the script that runs.
    pub args: RefCell<Args>,
    /// The way to each host that was named, by its name.
    pub ways: RefCell<BTreeMap<String, Way>>,
    /// What each host's compose commands said of themselves, by host and command: asked once, a third of a second each.
    pub composes: Arc<Versions>,
    /// Steps that an earlier run finished, by name: the run that goes on with it skips them.
    pub finished: RefCell<BTreeMap<String, Finished>>,
    /// Locks that this run holds, by the name of their stack.
    pub locks: Locks,
    /// The same for changes outside of `locked`: the holder stays for the run, or line, and has the lock during each.
    pub briefly: Locks,
    /// Warnings about other operators, by run: each is shown once.
    pub told: RefCell<BTreeSet<(String, String)>>,
    /// Where somebody else works.
    pub busy: hints::Busy,
    /// Earlier runs of this journal whose locks were met.
    pub own_runs: lock::OwnRuns,
    /// Git did not say in time where a script comes from: nobody waits for that again.
    pub git_is_slow: Cell<bool>,
}

/// A step that an earlier run finished.
#[derive(Clone, Debug)]
pub struct Finished {
    /// That run.
    pub run: String,
    /// What the step returned.
    pub result: serde_json::Value,
    /// Ids of its changes.
    pub effects: Vec<String>,
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
    /// Keeps whether somebody else works on a stack now.
    pub fn note_busy(&self, stack: &Stack, busy: bool) {
        let mut all = self.busy.borrow_mut();
        if busy {
            all.insert(stack.name.clone(), stack.host.clone())
        } else {
            all.remove(&stack.name)
        };
    }

    /// A host as a target: protected unless it is a sandbox.
    pub fn host_target(&self, name: &str) -> Target {
        let protected = !self.config.host(name).is_ok_and(|host| host.sandbox);
        Target { name: name.into(), protected }
    }

    /// The place that a recorded name stands for: the stack or the host, and protected when either of that name is.
    pub fn recorded_target(&self, name: &str) -> Target {
        if name == HERE {
            return Target::here();
        }
        let stack = self.config.stack(name).map(|stack| self.stack_target(&stack).protected);
        let protected = match (stack, self.config.host(name).map(|host| !host.sandbox)) {
            (Ok(stack), Ok(host)) => stack || host,
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => one,
            (Err(_), Err(_)) => true,
        };
        Target { name: name.into(), protected }
    }

    /// The way to a host; nothing is opened before an effect needs it. Fails for a name that opsh.toml does not know.
    pub fn way(&self, name: &str) -> Result<Way> {
        let stacks = self.config.stacks_on(name).cloned().collect();
        if let Some(way) = self.ways.borrow().get(name) {
            way.about(stacks);
            return Ok(way.clone());
        }
        let way = if name == LOCAL { Way::local() } else { Way::to(self.config.host(name)?, self.state.clone()) };
        way.about(stacks);
        self.ways.borrow_mut().insert(name.into(), way.clone());
        Ok(way)
    }

    /// A person types the next line: what could not be connected a moment ago is tried again.
    pub fn forget_failures(&self) {
        self.ways.borrow().values().for_each(Way::forget_failures);
    }

    /// The way to a host whose key is to be adopted: one of opsh.toml, or any that ssh knows, such as a jump host. `jump`
    /// comes in the place of what opsh.toml says.
    pub fn way_to_adopt(&self, name: &str, jump: Option<&str>) -> Result<Way> {
        let host = match self.config.host(name) {
            Ok(_) if jump.is_none() => return self.way(name),
            Ok(host) => Arc::new(Host { jump: jump.map(String::from), ..(*host).clone() }),
            Err(_) => {
                let wrong = |why| Error::new(Kind::Usage, format!("no host {name:?} to adopt"), why);
                let Address { host, port, .. } = Address::parse(name).map_err(wrong)?;
                // A key of one port says nothing of another.
                let label = port.map_or(host.clone(), |port| format!("[{host}]:{port}"));
                let jump = jump.map_or(String::new(), |jump| format!("jump = {}\n", json!(jump)));
                let text = format!("[host.{}]\nssh = {}\n{jump}", json!(label), json!(name));
                Config::found(&text)?.host(&label)?
            }
        };
        Ok(Way::to(host, self.state.clone()))
    }

    /// Whether a host can be asked without a login before.
    pub fn is_logged_in(&self, host: &str) -> bool {
        self.ways.borrow().get(host).is_some_and(Way::is_open)
    }

    /// A stack as a target: protected unless it or its host is a sandbox.
    pub fn stack_target(&self, stack: &Stack) -> Target {
        let host_is_sandbox = self.config.host(&stack.host).is_ok_and(|host| host.sandbox);
        Target { name: stack.name.clone(), protected: !stack.sandbox && !host_is_sandbox }
    }

    /// Word `at` of the script's arguments, or a usage error that names it.
    pub fn need(&self, at: usize, name: &str) -> Result<String> {
        let args = self.args.borrow();
        args.words.get(at).cloned().ok_or_else(|| {
            let why = "the script needs it, and it was not typed";
            Error::new(Kind::Usage, format!("{name} is missing"), why).next(format!("usage: {}", args.usage))
        })
    }

    /// Option `name` of the script's arguments as a number in `range`, or a usage error that names both.
    pub fn number(&self, name: &str, default: i64, range: std::ops::RangeInclusive<i64>) -> Result<i64> {
        let args = self.args.borrow();
        let Some(text) = args.options.get(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let why = format!("it must be a whole number from {} to {}, not {text}", range.start(), range.end());
            Error::new(Kind::Usage, format!("--{name} is not valid"), why).next(format!("usage: {}", args.usage))
        })
    }
}
