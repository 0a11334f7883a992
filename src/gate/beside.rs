//! Reads that nobody waits for: they go on while a line is typed, and are recorded together, in a system run of their own,
//! when somebody looks after them.

use super::journal::{Entry, Record};
use super::outcome::settle;
use super::pass::Came;
use super::record::body_of_end;
use super::verb::Class;
use super::wait::{Ended, Limit};
use super::{Did, Effect, Gate, Pass, clock};
use crate::error::{Error, Kind, Result};
use serde_json::{Value, json};
use std::future::Future;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Reads that were started and are not recorded yet.
pub struct Beside {
    run: String,
    what: &'static str,
    began: Instant,
    effects: Vec<Effect>,
    inbox: mpsc::Receiver<(usize, End)>,
    ends: Vec<Option<End>>,
}

type End = (Ended<Result<Did>>, Duration);

impl Beside {
    /// True when all of them have ended.
    pub fn has_ended(&mut self) -> bool {
        while let Ok((at, end)) = self.inbox.try_recv() {
            self.ends[at] = Some(end);
        }
        self.ends.iter().all(Option::is_some)
    }

    /// The same, and waits for that as long as this.
    pub fn has_ended_within(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while !self.has_ended() {
            let left = until.saturating_duration_since(Instant::now());
            let Ok((at, end)) = self.inbox.recv_timeout(left) else { return false };
            self.ends[at] = Some(end);
        }
        true
    }
}

impl Gate {
    /// Does what must be done before the first record and has none itself, and waits for it as long as this.
    pub fn before_records(&self, within: Duration, work: impl Future<Output = ()> + Send + 'static) {
        let (tell, done) = mpsc::channel();
        self.io.start(work, Limit::alone(within), move |_| {
            let _ = tell.send(());
        });
        let _ = done.recv();
    }

    /// Starts reads and returns at once; `what` says in the record what they are for. No login is begun for them, nobody is
    /// asked, nothing is shown and nothing repeated; their deadlines hold whatever they wait for. `None` in a replay, while
    /// records do not go to the journal, and when one of them is no read.
    pub fn begin_beside<F>(
        &self,
        what: &'static str,
        effects: Vec<Effect>,
        work: impl Fn(usize, Pass) -> F,
    ) -> Option<Beside>
    where
        F: Future<Output = Result<Did>> + Send + 'static,
    {
        let only_reads = effects.iter().all(|effect| effect.class == Class::Read);
        if self.is_replay() || !only_reads || !self.ledger.is_whole() {
            return None;
        }
        let (run, began) = (clock::run_id(), Instant::now());
        let (sender, inbox) = mpsc::channel();
        for (at, effect) in effects.iter().enumerate() {
            let pass = Pass::unwatched(&id(&run, at), effect);
            let sender = sender.clone();
            // Who does not look after them any more has left.
            self.io.start(work(at, pass), Limit::alone(self.capped(effect.deadline)), move |ended| {
                drop(sender.send((at, (ended, began.elapsed()))))
            });
        }
        let ends = effects.iter().map(|_| None).collect();
        Some(Beside { run, what, began, effects, inbox, ends })
    }

    /// Writes the records of all of them, together, and gives what each read; `None` for one that failed, or has not ended
    /// and is left as it is.
    pub fn end_beside(&self, mut beside: Beside) -> Vec<Option<Value>> {
        beside.has_ended();
        let Beside { run, what, began, effects, ends, .. } = beside;
        let start = json!({ "what": what, "for": self.run_id() });
        let record = Record { kind: "system.start", run: &run, effect: None, target: None, class: None, body: start };
        let (mut drafts, mut values) = (vec![Entry::draft(&record)], Vec::new());
        for (at, (effect, end)) in effects.iter().zip(ends).enumerate() {
            let (outcome, result, took) = match end {
                Some((ended, took)) => {
                    let (outcome, result) = settle(effect, ended, Came::Looked);
                    (outcome, result, took)
                }
                None => ("interrupted", Err(left(effect)), began.elapsed()),
            };
            let body = body_of_end(effect, outcome, &result, took);
            let (id, target) = (id(&run, at), Some(effect.target.name.as_str()));
            let class = Some(Class::Read);
            let record = Record { kind: "effect.read", run: &run, effect: Some(&id), target, class, body };
            drafts.push(Entry::draft(&record));
            values.push(result.ok().map(|did| did.value));
        }
        self.ledger.read_beside(drafts);
        values
    }
}

fn id(run: &str, at: usize) -> String {
    format!("{run}.{}", at + 1)
}

fn left(effect: &Effect) -> Error {
    let what = format!("{} was left on {}", effect.verb.name, effect.target.name);
    Error::new(Kind::Interrupted, what, "the prompt ended before its answer")
}
