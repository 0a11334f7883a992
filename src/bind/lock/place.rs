//! Which stacks a change concerns, and which locks are one's own. Names of opsh.toml are only names: one machine may have several, and a compose project is
//! one project in whichever folder its files stand.

use super::others::Aim;
use crate::bind::ssh::{self, Login};
use crate::bind::{World, beside};
use crate::config::{Address, Host, LOCAL, Stack};
use crate::gate::journal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The stacks that a change there concerns: the stack itself and those that are the same compose project; all stacks of the
/// machine for a change of a host. A name that is both a host's and a stack's means both.
pub fn concerned(world: &World, aim: &Aim<'_>) -> Vec<Arc<Stack>> {
    let target = aim.0;
    let all: Vec<Arc<Stack>> = world.config.stack_names().filter_map(|name| world.config.stack(name).ok()).collect();
    let own = all.iter().find(|stack| stack.name == target);
    let is_host = target == LOCAL || world.config.host_names().any(|name| name == target);
    let hosts: BTreeSet<&str> = all.iter().map(|stack| stack.host.as_str()).chain(is_host.then_some(target)).collect();
    let marks: BTreeMap<&str, BTreeSet<String>> = match hosts.len() {
        1 => BTreeMap::new(),
        _ => hosts.into_iter().map(|host| (host, marks(world, host))).collect(),
    };
    // One machine: the same address and port, or a host key that both have.
    let is_one_machine = |one: &str, other: &str| one == other || !marks[one].is_disjoint(&marks[other]);
    let is_concerned = |stack: &&Arc<Stack>| {
        let is_of_project = own.is_some_and(|own| {
            stack.name == own.name
                || stack.compose.project == own.compose.project && is_one_machine(&stack.host, &own.host)
        });
        is_of_project || is_host && is_one_machine(&stack.host, target)
    };
    let mut found: Vec<Arc<Stack>> = all.iter().filter(is_concerned).cloned().collect();
    // Stacks of one folder of one machine have one lock, and it is looked at by the login that the change has, if there is one of it: another
    // login may not be allowed to.
    found.sort_by_key(|stack| {
        (stack.name != target, stack.host != target, own.is_some_and(|own| stack.host != own.host))
    });
    let mut kept: Vec<Arc<Stack>> = Vec::new();
    for stack in found {
        let is_lock_of = |other: &Arc<Stack>| {
            beside::folder(other) == beside::folder(&stack) && is_one_machine(&other.host, &stack.host)
        };
        if !kept.iter().any(is_lock_of) {
            kept.push(stack);
        }
    }
    kept
}

/// What tells a machine from others: where it is, and its host keys as far as opsh knows them.
fn marks(world: &World, name: &str) -> BTreeSet<String> {
    let Some(host) = world.config.host(name).ok().filter(|_| name != LOCAL) else {
        return [name.to_string()].into();
    };
    let list = world.state.file("known_hosts").unwrap_or_else(|| ssh::NO_LIST.into());
    let known = ssh::known_keys(&Login::new(&host.name, &host.ssh, list, PathBuf::new()));
    known.into_iter().chain(host.host_key.clone()).chain([at(&host)]).collect()
}

fn at(host: &Host) -> String {
    let parsed = Address::parse(&host.ssh).ok();
    let port = host.port.or(parsed.as_ref().and_then(|address| address.port)).unwrap_or(22);
    let name = parsed.map_or_else(|| host.ssh.clone(), |address| address.host);
    format!("{}:{port}", name.to_lowercase())
}

/// Runs of this journal whose locks were met. What they left running is no other's: a name, `user@machine`, is that of
/// everybody who works with this account.
#[derive(Clone, Default)]
pub struct OwnRuns(Arc<Mutex<BTreeSet<String>>>);

impl OwnRuns {
    /// Keeps whether the run that a lock names is one of this journal's.
    pub(super) fn meet(&self, world: &World, lock: &Value) {
        let Some(run) = lock["holder"]["run"].as_str() else { return };
        // Without a journal nobody knows what is one's own.
        let has = world.gate.journal().and_then(|journal| journal.has_run(run)).unwrap_or(false);
        if has && let Ok(mut runs) = self.0.lock() {
            runs.insert(run.into());
        }
    }

    /// True for a lock that one of them left.
    pub(super) fn left(&self, lock: &Value) -> bool {
        let holder = &lock["holder"];
        let is_here = holder["by"] == journal::actor_here().as_str();
        let runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        is_here && holder["run"].as_str().is_some_and(|run| runs.contains(run))
    }
}
