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
    /// The stack whose names they are.
    of: Option<String>,
    /// When it was read last, and how many changes this sitting had made by then.
    last: Option<(Instant, usize)>,
}

impl Refresh {
    /// What a run of its own changed nobody counts here: the names are read again after it.
    pub fn make_due(&mut self) {
        self.last = None;
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
        let Some(stack) = self.stack_in_use().and_then(|name| self.world.config.stack(name).ok()) else { return };
        let refresh = &mut self.sitting.refresh;
        if refresh.of.as_ref() != Some(&stack.name) {
            // Names of another stack must not be offered for this one, whoever still reads some.
            refresh.arrived = Arrived::default();
            (refresh.of, refresh.last) = (Some(stack.name.clone()), None);
        }
        if refresh.going.as_mut().is_some_and(|going| !going.has_ended()) {
            return;
        }
        self.leave_names();
        let (refresh, changes) = (&mut self.sitting.refresh, self.world.gate.mark());
        if refresh.last.is_some_and(|(at, before)| before == changes && at.elapsed() < EVERY) {
            return;
        }
        let into = Arc::clone(&refresh.arrived);
        refresh.going = names::begin(&self.world, &stack, move |rows| {
            if let Ok(mut seen) = into.lock() {
                seen.take(rows);
            }
        });
        if refresh.going.is_some() {
            refresh.last = Some((Instant::now(), changes));
        }
    }

    /// Records what was read; what has no answer yet is not waited for.
    fn leave_names(&mut self) {
        if let Some(going) = self.sitting.refresh.going.take() {
            self.world.gate.end_beside(going);
        }
    }

    /// The same for all that is read beside the lines: the sitting ends.
    pub fn leave_reads(&mut self) {
        self.leave_names();
        self.leave_lock();
    }
}
