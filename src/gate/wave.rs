//! Effects that are performed together: from their begins to their ends, on the I/O thread or from a recording.

use super::bounds::{Clock, Watch};
use super::outcome::{advise, settle};
use super::pass::{Came, Event, Marks, ROOM, Remains, Wire};
use super::replay::Recording;
use super::verb::Class;
use super::wait::{Ended, Io, Limit};
use super::{AT_ONCE, Did, Done, Effect, Gate, Left, Lives, Pass, fault, fault_of, refused};
use crate::error::{Error, Kind, Result};
use crate::screen::{Lent, Streamer};
use serde_json::Value;
use std::future::Future;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

impl Gate {
    /// Performs the effects at these places together, and waits for all of them.
    pub(super) fn wave<'a, F>(
        &'a self,
        effects: &'a [Effect],
        wave: &[usize],
        work: &impl Fn(usize, Pass) -> F,
        results: &mut [Option<Result<Done>>],
    ) where
        F: Future<Output = Result<Did>> + Send + 'static,
    {
        if let Some(recording) = &self.recording {
            wave.iter().for_each(|&at| results[at] = Some(self.answer(recording, &effects[at])));
            return;
        }
        let (sender, inbox) = mpsc::channel();
        let wires = Wires { sender, turns: Arc::new(Semaphore::new(AT_ONCE)), room: Arc::new(Semaphore::new(ROOM)) };
        let (limits, person) = (self.limits.get(), Arc::<Watch>::default());
        let mut flights: Vec<Flight<'a>> = Vec::new();
        for &at in wave {
            let effect = &effects[at];
            let id = self.next_id();
            match self.begin(effect, &id) {
                Ok(()) => {
                    let marks = Marks::of(Clock::new(limits, Arc::clone(&person)));
                    flights.push(Flight::new(at, effect, id, marks));
                }
                Err(error) => results[at] = Some(Err(error)),
            }
        }
        for (index, flight) in flights.iter_mut().enumerate() {
            fault(flight.effect, "begun");
            self.announce(flight.effect);
            self.launch(flight, index, &wires, work);
        }
        let (began, mut left) = (Instant::now(), flights.len());
        while left > 0 {
            match Io::hear(&inbox) {
                None => self.screen.busy(&label(effects, results), || waits(&flights, results), began.elapsed()),
                Some((index, Heard::Event(event))) => self.on_event(&mut flights[index], effects.len(), event),
                Some((index, Heard::Ended(Ended::Done(Err(_))))) if self.again(&mut flights[index]) => {
                    flights[index].marks = Arc::new(flights[index].marks.again());
                    self.launch(&mut flights[index], index, &wires, work);
                }
                Some((index, Heard::Ended(ended))) => {
                    left -= 1;
                    let flight = &mut flights[index];
                    // Its last line ends before the line that says how it ended.
                    drop(flight.shown.take());
                    if let Some(lent) = flight.lent.take() {
                        lent.take_back(flight.marks.was_put_back());
                    }
                    results[flight.at] = Some(self.land(flight, ended));
                    if left > 0 {
                        self.screen.busy(&label(effects, results), || waits(&flights, results), began.elapsed());
                    }
                }
            }
        }
        self.screen.idle();
        self.tidy_up(&flights);
    }

    /// Performs what opsh does for itself before or after a change, such as looking who has a lock: no effect of the run,
    /// so a recording has no answer to it and needs none. Never called in a replay. Fails as the work does.
    pub fn look_inside<F>(&self, effect: &Effect, work: impl Fn(Pass) -> F) -> Result<Value>
    where
        F: Future<Output = Result<Did>> + Send + 'static,
    {
        let (sender, inbox) = mpsc::channel();
        let wires = Wires { sender, turns: Arc::new(Semaphore::new(AT_ONCE)), room: Arc::new(Semaphore::new(ROOM)) };
        let marks = Marks::of(Clock::new(self.limits.get(), Arc::default()));
        let mut flight = Flight::new(0, effect, format!("{}.0", self.run_id()), marks);
        self.launch(&mut flight, 0, &wires, &|_, pass| work(pass));
        let began = Instant::now();
        let ended = loop {
            match Io::hear(&inbox) {
                None => {
                    let waits = || flight.marks.clock().waits_for();
                    self.screen.busy(&label(std::slice::from_ref(effect), &[]), waits, began.elapsed());
                }
                Some((_, Heard::Event(event))) => self.on_event(&mut flight, 1, event),
                Some((_, Heard::Ended(ended))) => break ended,
            }
        };
        self.screen.idle();
        self.tidy_up(std::slice::from_ref(&flight));
        settle(effect, ended, Came::Looked).1.map(|did| did.value)
    }

    /// What may only happen once the ends are in the journal: until then what is left on a host is the only witness.
    fn tidy_up(&self, flights: &[Flight<'_>]) {
        let (sender, ended) = mpsc::channel();
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        for work in flights.iter().flat_map(|flight| flight.marks.take_afterwards()) {
            let limit = Limit { deadline: Duration::from_secs(10), turns: Arc::clone(&turns), marks: Arc::default() };
            let sender = sender.clone();
            self.io.start(work, limit, move |_| drop(sender));
        }
        drop(sender);
        // Every sender is dropped when all of it has ended, one way or another.
        let _: Result<(), _> = ended.recv();
    }

    fn launch<F>(&self, flight: &mut Flight<'_>, index: usize, wires: &Wires, work: &impl Fn(usize, Pass) -> F)
    where
        F: Future<Output = Result<Did>> + Send + 'static,
    {
        flight.began = Instant::now();
        let pass = Pass::new(&flight.id, flight.effect, Arc::clone(&flight.marks), wires.wire(index));
        let limit = Limit {
            deadline: self.capped(flight.effect.deadline),
            turns: Arc::clone(&wires.turns),
            marks: Arc::clone(&flight.marks),
        };
        let (sender, marks) = (wires.sender.clone(), Arc::clone(&flight.marks));
        let (work, reads) = (work(flight.at, pass), flight.effect.class == Class::Read);
        let work = async move {
            let result = work.await;
            if reads && matches!(&result, Err(error) if [Kind::Unreachable, Kind::Unknown].contains(&error.kind)) {
                marks.look_at_links().await;
            }
            result
        };
        // The session's thread waits for as long as anything was not told: it cannot have gone away.
        self.io.start(work, limit, move |ended| drop(sender.send((index, Heard::Ended(ended)))));
    }

    /// True when a read lost its link and has not been repeated yet. Nothing else is ever repeated.
    fn again(&self, flight: &mut Flight<'_>) -> bool {
        let lost = flight.effect.class == Class::Read && flight.marks.link_was_lost();
        lost && !std::mem::replace(&mut flight.repeated, true)
    }

    /// As [`Gate::wave`], from the recording.
    fn answer(&self, recording: &Recording, effect: &Effect) -> Result<Done> {
        let id = self.next_id();
        let number = self.run.borrow().effects;
        let answer = match self.fault_before(number) {
            Some(true) => {
                recording.has_struck.set(true);
                None
            }
            Some(false) => Some(recording.answer_after(effect)),
            None => Some(recording.answer(effect)?),
        };
        self.begin(effect, &id)?;
        fault(effect, "begun");
        self.announce(effect);
        let (outcome, result, took) = match &answer {
            Some(answer) => (answer.outcome.as_str(), answer.result(effect), answer.took),
            None => ("failed", Err(refused(effect, fault_of(effect))), Duration::ZERO),
        };
        fault(effect, "performed");
        self.end(effect, &id, outcome, &result, took, false)?;
        result.map(|did| Done::Did(did, took))
    }

    fn land(&self, flight: &Flight<'_>, ended: Ended<Result<Did>>) -> Result<Done> {
        let (effect, took, came) = (flight.effect, flight.began.elapsed(), flight.marks.came());
        if matches!(ended, Ended::Interrupted) && effect.lives != Lives::No && came >= Came::Begun {
            let words = format!("{} on {}  {}", effect.verb.name, effect.target.name, effect.says);
            self.run.borrow_mut().left.push(Left { effect: flight.id.clone(), lives: effect.lives.clone(), words });
        }
        let (outcome, result) = settle(effect, ended, came);
        let result = result.map_err(|error| advise(error, effect, outcome, &self.run_id()));
        let result = result.map_err(|error| flight.marks.remains().into_iter().fold(error, and_left));
        fault(effect, "performed");
        if let Err(error) = self.end(effect, &flight.id, outcome, &result, took, flight.repeated) {
            // What is left on the host stays: nothing else knows the end.
            drop(flight.marks.take_afterwards());
            return Err(error);
        }
        result.map(|did| Done::Did(did, took))
    }

    fn on_event<'a>(&'a self, flight: &mut Flight<'a>, of: usize, event: Event) {
        let target = &flight.effect.target.name;
        match event {
            Event::Output(bytes, _room) => {
                // One alone needs no name before each of its lines.
                let label = if of > 1 { target.as_str() } else { "" };
                flight.shown.get_or_insert_with(|| self.screen.stream(label)).feed(&bytes);
            }
            Event::Note(kind, body) => self.note_about(kind, Some(target), body),
            Event::Warn(words) => self.warn(&words),
            Event::Ask(question, reply) => {
                let terminal = self.screen.options().terminal;
                // The work may have ended meanwhile: then nobody wants the answer.
                let _ = reply.send(if terminal { self.screen.ask_secret(&question) } else { None });
            }
            Event::Lend(reply) => {
                flight.lent = self.screen.lend();
                let _ = reply.send(flight.lent.is_some());
            }
        }
    }
}

/// The error, with what was left behind.
fn and_left(error: Error, left: Remains) -> Error {
    let why = format!("{}; {}", error.why, left.why);
    Error { why, ..error }.next(left.next)
}

/// One effect between its begin and its end.
struct Flight<'a> {
    at: usize,
    effect: &'a Effect,
    id: String,
    began: Instant,
    marks: Arc<Marks>,
    repeated: bool,
    /// Its output on the screen, once it had any.
    shown: Option<Streamer<'a>>,
    /// Its program has the terminal.
    lent: Option<Lent<'a>>,
}

impl<'a> Flight<'a> {
    fn new(at: usize, effect: &'a Effect, id: String, marks: Marks) -> Flight<'a> {
        let (began, marks) = (Instant::now(), Arc::new(marks));
        Flight { at, effect, id, began, marks, repeated: false, shown: None, lent: None }
    }
}

/// What the session's thread hears from the I/O thread.
enum Heard {
    Event(Event),
    Ended(Ended<Result<Did>>),
}

/// What the flights of a wave share.
struct Wires {
    sender: mpsc::Sender<(usize, Heard)>,
    turns: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

impl Wires {
    fn wire(&self, index: usize) -> Wire {
        let sender = self.sender.clone();
        let send = move |event| drop(sender.send((index, Heard::Event(event))));
        Wire { send: Arc::new(send), room: Arc::clone(&self.room) }
    }
}

/// Wait of the first flight that has not ended.
fn waits(flights: &[Flight<'_>], results: &[Option<Result<Done>>]) -> Option<String> {
    let late = flights.iter().filter(|flight| results[flight.at].is_none());
    late.filter_map(|flight| flight.marks.clock().waits_for()).next()
}

/// Names of targets in the line that says what goes on.
const NAMED: usize = 3;

/// What goes on; for several targets how far it is, and who is late.
pub(super) fn label(effects: &[Effect], results: &[Option<Result<Done>>]) -> String {
    if let [one] = effects {
        return format!("{}  {}  {}", one.verb.name, one.target.name, one.says).trim_end().into();
    }
    let mixed = effects.iter().any(|one| one.verb.name != effects[0].verb.name);
    let late: Vec<&Effect> =
        effects.iter().zip(results).filter(|(_, result)| result.is_none()).map(|(one, _)| one).collect();
    let name = |one: &&Effect| match mixed {
        true => format!("{} {}", one.verb.name, one.target.name),
        false => one.target.name.clone(),
    };
    let mut names = late.iter().take(NAMED).map(name).collect::<Vec<_>>().join(", ");
    if late.len() > NAMED {
        names = format!("{names} and {} more", late.len() - NAMED);
    }
    let what = if mixed { "batch" } else { effects[0].verb.name };
    format!("{what}  {}/{} done, waiting for {names}", effects.len() - late.len(), effects.len())
}
