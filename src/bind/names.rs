//! Names for Tab from the host of a stack: what its verbs read, beside the lines that are typed.

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
/// A host that answers later has nothing that somebody still waits for.
const WITHIN: Duration = Duration::from_secs(5);

/// Starts to read the containers of a stack and the tags of its repository; `arrived` gets the rows of each as soon as they
/// are there. `None` when nothing is open to the stack's host: no login is begun for a name.
pub fn begin(
    world: &Rc<World>,
    stack: &Arc<Stack>,
    arrived: impl Fn(&Value) + Clone + Send + 'static,
) -> Option<Beside> {
    let is_open = world.ways.borrow().get(&stack.host).is_some_and(|way| way.is_open());
    if !is_open {
        return None;
    }
    let containers = vec!["docker.ps".into(), Dynamic::from(StackHandle(Arc::clone(stack)))];
    let tags = vec!["git.tags".into(), Dynamic::from(RepoHandle::of_stack(stack)), TAGS.into()];
    let mut reads = batch::first_reads(world, vec![containers, tags]);
    reads.iter_mut().flat_map(|read| &mut read.effects).for_each(|effect| effect.deadline = WITHIN);
    // Each of these verbs reads once.
    let effects = reads.iter().flat_map(|read| read.effects.iter().take(1).cloned()).collect();
    world.gate.begin_beside(effects, |at, pass| {
        let (work, arrived) = (Question::work(&reads[at], 0, pass), arrived.clone());
        async move {
            let did = work.await?;
            arrived(&did.value);
            Ok(did)
        }
    })
}
