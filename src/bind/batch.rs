//! `batch([…])`: reads of several systems at once.
//!
//! A verb is a function that reads and returns. Here it is called for what it would read: the read is collected and the
//! function ends; when the reads of all entries have been performed together, it is called again and finds its answer.

use super::fleet::{Row, outcomes};
use super::{Binding, Call, World, map, values};
use crate::error::{Error, Kind, Place, Result, suggestion};
use crate::gate::verb::{Class, Signature, Verb};
use crate::gate::{ALL, Did, Done, Effect, Pass};
use rhai::Dynamic;
use serde::Deserialize;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

const BATCH: Verb = Verb {
    name: "plan.batch",
    class: Class::Read,
    waits: false,
    sig: "batch(reads: array, options?: #{ partial: bool }) -> array",
    doc: "Performs reads of several systems at once. 16 go on at a time. Each is a list: the verb's name as `opsh help` shows it, \
          what stands before the dot (nothing for `http.get`), then the arguments. Returns their values in order. All \
          are performed; when some failed, the error's `results` is a list of `#{ read, ok, value }` and `#{ read, ok, \
          error }`, which the option `partial: true` returns instead of failing; an argument that a verb does not take is a \
          row, too. Fails with `usage` before anything is \
          read for a verb that is not known or not of class read. No deadline: that \
          of each.",
    example: r#"batch([["docker.ps", stack("prod")], ["git.tags", stack("prod").repo, 5], ["clock.now"]])"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[Binding::Read(&BATCH, batch)];

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Options {
    partial: bool,
}

fn batch(call: &Call<'_>) -> Result<Dynamic> {
    let Options { partial } = call.options(1)?;
    let mut entries = entries(call)?;
    entries.iter_mut().for_each(|entry| entry.go_on(call.world, call.place.clone()));
    // A mistake in one call is found before anything is read.
    let mistake = entries.iter().find_map(|entry| entry.over.as_ref()?.as_ref().err());
    if let Some(error) = mistake.filter(|_| !partial) {
        return Err(error.clone());
    }
    while entries.iter().any(|entry| entry.asks.is_some()) {
        answer(call, &mut entries);
    }
    let rows: Vec<Row<Value>> = entries.into_iter().filter_map(Entry::into_row).collect();
    if partial {
        return Ok(map(outcomes("read", rows).into()));
    }
    if rows.iter().any(|row| row.result.is_err()) {
        return Err(call.both_halves("read", rows));
    }
    Ok(map(rows.into_iter().filter_map(|row| row.result.ok()).collect()))
}

/// What the work of an effect is, once it is known which one.
pub type Work = Pin<Box<dyn Future<Output = Result<Did>> + Send>>;
/// Results of the effects of one read.
type Answer = Vec<Result<Done>>;

/// A read that was collected.
pub struct Question {
    /// Its effects.
    pub effects: Vec<Effect>,
    work: Box<dyn Fn(usize, Pass) -> Work>,
}

impl Question {
    /// The work of the effect at this place.
    pub fn work(&self, at: usize, pass: Pass) -> Work {
        (self.work)(at, pass)
    }
}

/// What these calls read first: each a verb's name, what stands before the dot, and the arguments. One that a verb does not
/// take reads nothing.
pub fn first_reads(world: &Rc<World>, calls: Vec<Vec<Dynamic>>) -> Vec<Question> {
    let entries = calls.into_iter().filter_map(|call| entry(Dynamic::from(call)).ok());
    let asked = entries.filter_map(|mut entry| {
        entry.go_on(world, None);
        entry.asks
    });
    asked.collect()
}

/// Where a verb's reads go while it is called for what it would read.
#[derive(Default)]
pub struct Collector<'a> {
    told: &'a [Answer],
    heard: Cell<usize>,
    asks: RefCell<Option<Question>>,
}

impl Collector<'_> {
    /// The answer when it is known already; else an error that ends the verb's function.
    pub fn ask<F>(&self, effects: Vec<Effect>, work: impl Fn(usize, Pass) -> F + 'static) -> Result<Answer>
    where
        F: Future<Output = Result<Did>> + Send + 'static,
    {
        let at = self.heard.replace(self.heard.get() + 1);
        if let Some(answer) = self.told.get(at) {
            return Ok(answer.clone());
        }
        let work = Box::new(move |at, pass| Box::pin(work(at, pass)) as Work);
        *self.asks.borrow_mut() = Some(Question { effects, work });
        Err(Error::new(Kind::Failed, "a read of a batch has no answer yet", "it is performed with the others"))
    }
}

/// One call in a batch.
struct Entry {
    binding: &'static Binding,
    signature: Signature,
    args: Vec<Dynamic>,
    told: Vec<Answer>,
    /// What it reads next.
    asks: Option<Question>,
    /// Its result, once it reads nothing more.
    over: Option<Result<Value>>,
}

impl Entry {
    /// Calls the verb with what it was told so far.
    fn go_on(&mut self, world: &Rc<World>, place: Option<Place>) {
        let collector = Collector { told: &self.told, ..Collector::default() };
        let args: Vec<&mut Dynamic> = self.args.iter_mut().collect();
        let collector_of = Some(&collector);
        let call = Call::new(world, self.binding.verb(), &self.signature, &args);
        let result = self.binding.perform(&Call { place, collector: collector_of, ..call });
        self.asks = collector.asks.take();
        self.over = self.asks.is_none().then(|| result.map(|value| values::to_json(&value)));
    }

    fn into_row(self) -> Option<Row<Value>> {
        Some(Row { name: self.binding.verb().name.into(), result: self.over? })
    }
}

/// Performs what the entries ask, all together, and lets each go on with its answer.
fn answer(call: &Call<'_>, entries: &mut [Entry]) {
    let questions: Vec<(usize, Question)> =
        entries.iter_mut().enumerate().filter_map(|(at, entry)| Some((at, entry.asks.take()?))).collect();
    let each = questions.iter().flat_map(|(_, question)| (0..question.effects.len()).map(move |at| (question, at)));
    let each: Vec<(&Question, usize)> = each.collect();
    let effects: Vec<Effect> = each.iter().map(|(question, at)| question.effects[*at].clone()).collect();
    let work = |index: usize, pass| {
        let (question, at) = each[index];
        question.work(at, pass)
    };
    let mut results = call.world.gate.perform_all(&effects, ALL, work).into_iter();
    for (at, question) in &questions {
        let entry = &mut entries[*at];
        entry.told.push(results.by_ref().take(question.effects.len()).collect());
        entry.go_on(call.world, call.place.clone());
    }
}

/// The calls as the script wrote them, checked before the first is performed.
fn entries(call: &Call<'_>) -> Result<Vec<Entry>> {
    let reads = call.list(0)?;
    let numbered = reads.into_iter().enumerate();
    numbered.map(|(at, read)| entry(read).map_err(|why| call.bad(&format!("entry {}: {why}", at + 1)))).collect()
}

/// A call as data.
pub struct Parts {
    /// The verb.
    pub binding: &'static Binding,
    /// Its signature.
    pub signature: Signature,
    /// The receiver, if there is one, and the arguments.
    pub args: Vec<Dynamic>,
}

/// Takes `[name, receiver, args…]` apart.
pub fn taken_apart(call: Dynamic) -> Result<Parts, String> {
    let words = call.into_array().map_err(|_| "it is not a list that begins with a verb's name".to_string())?;
    let mut args = words.into_iter();
    let name = args.next().and_then(|name| name.into_string().ok()).ok_or("it does not begin with a verb's name")?;
    let binding = super::all().find(|binding| binding.verb().name == name).ok_or_else(|| {
        let names: Vec<&str> = super::all().map(|binding| binding.verb().name).collect();
        format!("there is no verb \"{name}\"; {}", suggestion(&name, names))
    })?;
    Ok(Parts { binding, signature: binding.verb().signature(), args: args.collect() })
}

fn entry(read: Dynamic) -> Result<Entry, String> {
    let Parts { binding, signature, args } = taken_apart(read)?;
    let (name, class) = (binding.verb().name, binding.verb().class);
    if class != Class::Read {
        return Err(format!("{name} is of class {}, and a batch only reads", class.word()));
    }
    if name.starts_with("plan.") {
        return Err(format!("{name} is about the script, and reads no system"));
    }
    fits(binding, &signature, &args)?;
    Ok(Entry { binding, signature, args, told: Vec::new(), asks: None, over: None })
}

/// Ok when what stands before the dot is of the verb's type, and the rest are as many as it takes.
pub fn fits(binding: &Binding, signature: &Signature, args: &[Dynamic]) -> Result<(), String> {
    let receivers = binding.receivers(signature);
    let name = binding.verb().name;
    let is_one = |value: &Dynamic| receivers.iter().any(|word| values::type_id(word) == Some(value.type_id()));
    let given = match (receivers.first(), args.first()) {
        (None, _) => args.len(),
        (Some(_), Some(first)) if is_one(first) => args.len() - 1,
        (Some(word), first) => {
            let first = first.map_or("nothing", values::type_name);
            return Err(format!("{name} wants a {word} after its name, not {first}"));
        }
    };
    if signature.counts().contains(&given) {
        return Ok(());
    }
    Err(format!("{given} arguments do not fit {}", binding.verb().sig))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bind::{Change, Look};
    use crate::gate::Target;
    use serde_json::json;

    fn question(says: &str) -> Vec<Effect> {
        vec![Change::of(Look::at(Target::here(), says, json!({}))).effect(&BATCH)]
    }

    #[test]
    fn a_verb_that_reads_twice_finds_its_first_answer_when_it_asks_the_second_time() {
        let told = [vec![Ok(Done::Skipped)]];
        let collector = Collector { told: &told, ..Collector::default() };
        let work = |_, _| async { Ok(Did::value(json!(2))) };
        assert_eq!(collector.ask(question("first"), work).expect("told").len(), 1);
        assert!(collector.asks.borrow().is_none());
        assert!(collector.ask(question("second"), work).is_err(), "there is no answer yet");
        assert_eq!(collector.asks.take().expect("asked").effects[0].says, "second");
    }
}
