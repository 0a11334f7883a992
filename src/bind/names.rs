//! What the prompt shows of a stack without being asked: names for Tab, and who has the lock. Its verbs read it, beside the
//! lines that are typed.

use super::batch::{self, Question};
use super::git::RepoHandle;
use super::stack::StackHandle;
use super::world::World;
use crate::config::Stack;
use crate::gate::Beside;
use rhai::Dynamic;
use serde_json::Value;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Tags that are read, the newest ones.
const TAGS: i64 = 100;
/// A host that answers later has no names that somebody still waits for.
const NAMES_WITHIN: Duration = Duration::from_secs(5);
/// Who has the lock matters later, too.
const LOCK_WITHIN: Duration = Duration::from_secs(30);

/// Starts to read the containers of a stack and the tags of its repository; `arrived` gets the rows of each as soon as they
/// are there. `None` when nothing is open to the stack's host: no login is begun for a name.
pub fn begin(
    world: &Rc<World>,
    stack: &Arc<Stack>,
    arrived: impl Fn(&Value) + Clone + Send + 'static,
) -> Option<Beside> {
    let containers = vec!["docker.ps".into(), Dynamic::from(StackHandle(Arc::clone(stack)))];
    let tags = vec!["git.tags".into(), Dynamic::from(RepoHandle::of_stack(stack)), TAGS.into()];
    beside(world, &stack.host, ("names for Tab", NAMES_WITHIN), vec![containers, tags], arrived)
}

/// Starts to look who has the lock of a stack; `None` as for [`begin`].
pub fn begin_lock(world: &Rc<World>, stack: &Arc<Stack>) -> Option<Beside> {
    let lock = vec!["lock.who".into(), Dynamic::from(StackHandle(Arc::clone(stack)))];
    beside(world, &stack.host, ("who has the lock", LOCK_WITHIN), vec![lock], |_| {})
}

/// Starts what these verbs read first; each of them reads once.
fn beside(
    world: &Rc<World>,
    host: &str,
    (what, within): (&'static str, Duration),
    calls: Vec<Vec<Dynamic>>,
    arrived: impl Fn(&Value) + Clone + Send + 'static,
) -> Option<Beside> {
    if !world.is_logged_in(host) {
        return None;
    }
    let mut reads = batch::first_reads(world, calls);
    reads.iter_mut().flat_map(|read| &mut read.effects).for_each(|effect| effect.deadline = within);
    let effects = reads.iter().flat_map(|read| read.effects.iter().take(1).cloned()).collect();
    world.gate.begin_beside(what, effects, |at, pass| {
        let (work, arrived) = (Question::work(&reads[at], 0, pass), arrived.clone());
        async move {
            let did = work.await?;
            arrived(&did.value);
            Ok(did)
        }
    })
}
