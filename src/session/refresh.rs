//! Names for Tab from hosts: read after a line, beside the next one, so that neither a key nor a prompt waits for a host.

use super::Session;
use super::known::Arrived;
use crate::bind::names;
use crate::gate::Beside;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How old names may be when nothing was changed.
const EVERY: Duration = Duration::from_secs(60);

/// What is known of the stack in use, and being read of it.
#[derive(Default)]
pub struct Refresh {
    arrived: Arrived,
    going: Option<Beside>,
    /// The stack that was read last, when, and how many changes this sitting had made by then.
    last: Option<(String, Instant, usize)>,
}

impl Refresh {
    /// What a run of its own changed nobody counts here: the names are read again after it.
    pub fn make_due(&mut self) {
        if let Some((_, _, changes)) = &mut self.last {
            *changes = usize::MAX;
        }
    }
}

impl Session {
    /// Names of the stack in use that a host gave; more may come at any time.
    pub fn arrived(&self) -> &Arrived {
        &self.sitting.refresh.arrived
    }

    /// After a line: records what was read beside it, and reads names again when another stack is used, something was
    /// changed, or they are old. Waits for no host.
    pub fn refresh_names(&mut self) {
        if self.sitting.refresh.going.as_mut().is_some_and(|going| !going.has_ended()) {
            return;
        }
        self.leave_names();
        let Some(stack) = self.stack_in_use().and_then(|name| self.world.config.stack(name).ok()) else { return };
        let (refresh, changes) = (&mut self.sitting.refresh, self.world.gate.changes());
        let same = refresh.last.as_ref().filter(|(name, ..)| *name == stack.name);
        if same.is_some_and(|(_, at, before)| *before == changes && at.elapsed() < EVERY) {
            return;
        }
        if same.is_none() {
            refresh.arrived = Arrived::default();
        }
        let into = Arc::clone(&refresh.arrived);
        refresh.going = names::begin(&self.world, &stack, move |rows| {
            if let Ok(mut seen) = into.lock() {
                seen.take(rows);
            }
        });
        if refresh.going.is_some() {
            refresh.last = Some((stack.name.clone(), Instant::now(), changes));
        }
    }

    /// Records what was read; what has no answer yet is not waited for.
    pub fn leave_names(&mut self) {
        if let Some(going) = self.sitting.refresh.going.take() {
            self.world.gate.end_beside(going);
        }
    }
}
