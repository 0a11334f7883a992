//! A recording: an exported run that answers in place of the world. A read gets the answer it got then, first in first
//! out for each target, verb and arguments; a change is compared with the one that was made then; what reaches nothing, as
//! `expect` does, is judged anew. The first thing that differs ends the replay, whatever the script does with the error.

use super::consent::Intended;
use super::journal::export;
use super::outcome::settle;
use super::pass::Came;
use super::policy::Mode;
use super::verb::Class;
use super::wait::Ended;
use super::{Did, Effect, Grants};
use crate::error::{Error, Kind, Place, Result};
use crate::redact::{self, MARK};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A run as it was recorded.
pub struct Recording {
    /// Its id.
    pub run: String,
    /// Its mode.
    pub mode: Mode,
    /// What its command line agreed to.
    pub grants: Grants,
    /// The working directory of then.
    pub dir: PathBuf,
    /// Which effect fails now, whatever it did then.
    pub fail_at: Option<FailAt>,
    /// Somebody types what comes to mind: what is asked besides gets its last answer, and what the recording does not know
    /// fails and is no difference.
    pub patient: bool,
    /// It has failed.
    pub has_struck: Cell<bool>,
    /// Each with how many changes had been begun before it.
    reads: RefCell<HashMap<Key, VecDeque<(usize, Answer)>>>,
    /// The last answer to each read, for what asks once more after an effect that was let fail.
    last: RefCell<HashMap<Key, Answer>>,
    changes: RefCell<VecDeque<Item>>,
    /// Every change that was recorded, also after it was compared.
    made: Vec<Made>,
    diverged: RefCell<Option<Error>>,
}

/// An effect of a replay that is to fail, by its number in the run, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailAt {
    /// That one. What comes after it is answered as far as the recording knows it, and every change is accepted.
    Effect(u32),
    /// One has failed in an earlier run, which had made so many changes until then: what is replayed comes after that, such as
    /// an undo.
    After(u32),
}

impl FromStr for FailAt {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<FailAt, String> {
        let fault = match text.strip_prefix("after:") {
            Some(changes) => changes.parse().ok().map(FailAt::After),
            None => text.parse().ok().filter(|number| *number > 0).map(FailAt::Effect),
        };
        fault.ok_or_else(|| {
            "effects are counted from 1: 7; or, of a run that has failed, its changes until then: after:3".into()
        })
    }
}

/// Target, verb and arguments as text.
type Key = (String, String, String);

/// How an effect ended then.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The outcome's word.
    pub outcome: String,
    /// What it gave.
    pub result: Result<Did>,
    /// How long it took.
    pub took: Duration,
}

#[derive(Clone, Debug)]
struct Made {
    verb: String,
    target: String,
    args: Value,
    says: String,
    at: String,
    before: Value,
    end: Option<Answer>,
}

/// What happened to the world, or was asked about it, in order.
enum Item {
    Change(Made),
    /// The words of its effects; those of an older recording may be a script's own, behind the verb and the target.
    Consent {
        plan: Vec<String>,
        refused: Option<Error>,
        of_calls: bool,
    },
}

impl Recording {
    /// Reads what `opsh journal export RUN` printed. `name` is the file's, for errors.
    pub fn parse(name: &str, text: &str) -> Result<Recording> {
        let bad = |why: String| {
            Error::new(Kind::Usage, format!("{name} is no recording"), why)
                .next("opsh journal export RUN > FILE     makes one")
        };
        let entries = export::records(name, text)?;
        let start = entries.first().filter(|entry| entry["kind"] == "run.start");
        let start = start.ok_or_else(|| bad("its first line is no run.start".into()))?;
        let run = text_of(start, "run");
        if let Some(other) = entries.iter().find(|entry| entry["run"] != start["run"]) {
            return Err(bad(format!("it holds more than one run: {run} and {}", text_of(other, "run"))));
        }
        let failed = entries.iter().skip_while(|entry| entry["kind"] != "run.failed");
        let by_hand = |entry: &Value| {
            ["run.retry", "line", "effect.begin", "effect.read"].iter().any(|kind| entry["kind"] == *kind)
        };
        if failed.into_iter().any(by_hand) {
            let why = "somebody went on with it by hand after it had failed: no script does what was done there";
            return Err(bad(why.into()));
        }
        let body = &start["body"];
        let mode = text_of(body, "mode").parse().map_err(bad)?;
        let grants = Grants {
            yes: body["yes"] == json!(true),
            allow: body["allow"].as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from).collect(),
            under: Vec::new(),
        };
        let mut recording = Recording {
            run,
            mode,
            grants,
            dir: PathBuf::from(body["facts"]["dir"].as_str().unwrap_or("/")),
            fail_at: None,
            patient: false,
            has_struck: Cell::new(false),
            reads: RefCell::default(),
            last: RefCell::default(),
            changes: RefCell::default(),
            made: Vec::new(),
            diverged: RefCell::default(),
        };
        recording.take(&entries);
        Ok(recording)
    }

    fn take(&mut self, entries: &[Value]) {
        let ends: HashMap<&str, &Value> = entries
            .iter()
            .filter(|entry| entry["kind"] == "effect.end")
            .filter_map(|entry| Some((entry["effect"].as_str()?, &entry["body"])))
            .collect();
        for entry in entries {
            let body = &entry["body"];
            match entry["kind"].as_str().unwrap_or_default() {
                "effect.read" => {
                    let key = key(&text_of(entry, "target"), &text_of(body, "verb"), &body["args"]);
                    self.reads.get_mut().entry(key).or_default().push_back((self.made.len(), answer(body)));
                }
                "effect.begin" => {
                    let made = Made {
                        before: body["before"].clone(),
                        verb: text_of(body, "verb"),
                        target: text_of(entry, "target"),
                        args: body["args"].clone(),
                        says: text_of(body, "says"),
                        at: text_of(body, "at"),
                        end: entry["effect"].as_str().and_then(|id| ends.get(id)).map(|body| answer(body)),
                    };
                    self.made.push(made.clone());
                    self.changes.get_mut().push_back(Item::Change(made));
                }
                "consent" => {
                    let words = body["plan"].as_array().into_iter().flatten().filter_map(Value::as_str);
                    let refused = (body["given"] == json!(false)).then(|| Error::from_json(&body["error"]));
                    let (plan, of_calls) = (words.map(String::from).collect(), body["calls"] == json!(true));
                    self.changes.get_mut().push_back(Item::Consent { plan, refused, of_calls });
                }
                _ => {}
            }
        }
    }

    /// What the effect got then.
    pub(super) fn answer(&self, effect: &Effect) -> Result<Answer> {
        if let Some(error) = self.diverged.borrow().clone() {
            return Err(error);
        }
        if let Some(answer) = Answer::known(effect) {
            return Ok(answer);
        }
        let answer = if effect.class == Class::Read { self.read(effect) } else { self.change(effect) };
        let answer = answer.and_then(|answer| whole(effect, answer));
        if self.patient {
            return answer.map_err(|_| unknown(effect));
        }
        answer.inspect_err(|error| *self.diverged.borrow_mut() = Some(error.clone()))
    }

    /// As [`Recording::answer`] after an effect was let fail: what the recording does not know is not reached, every change
    /// is accepted, and a look at a change finds it only when it was made before.
    pub(super) fn answer_after(&self, effect: &Effect) -> Answer {
        Answer::known(effect).unwrap_or_else(|| match effect.class {
            Class::Read => self.read_again(effect),
            _ => self.accept(effect),
        })
    }

    /// How many of the recorded changes were made again; none after an effect was let fail.
    fn repeated(&self) -> usize {
        self.made.len() - self.changes.borrow().iter().filter(|item| matches!(item, Item::Change(_))).count()
    }

    fn read(&self, effect: &Effect) -> Result<Answer> {
        let args = recorded(&effect.args);
        let key = key(&effect.target.name, effect.verb.name, &args);
        let mut reads = self.reads.borrow_mut();
        let queue = match reads.get(&key) {
            Some(_) => reads.get_mut(&key),
            // What was redacted then may stand in clear now.
            None => reads
                .iter_mut()
                .find(|((target, verb, then), _)| {
                    *target == key.0
                        && *verb == key.1
                        && serde_json::from_str(then).is_ok_and(|then| same(&then, &args))
                })
                .map(|(_, queue)| queue),
        };
        let repeated = self.repeated();
        let answer = match queue {
            // What was seen after a change is not seen before it, however often somebody looks.
            Some(queue) if self.patient && queue.front().is_none_or(|(after, _)| *after > repeated) => {
                self.last.borrow().get(&key).cloned()
            }
            queue => queue.and_then(VecDeque::pop_front).map(|(_, answer)| answer),
        };
        let answer = answer.ok_or_else(|| {
            let has: usize = reads.iter().filter(|((_, verb, _), _)| *verb == key.1).map(|(_, left)| left.len()).sum();
            let has = match has {
                0 => format!("no {} is left in the recording", key.1),
                n => format!("the recording has {n} more of {}, with other targets or arguments", key.1),
            };
            diverged(effect, &has)
        })?;
        self.last.borrow_mut().insert(key, answer.clone());
        Ok(answer)
    }

    fn change(&self, effect: &Effect) -> Result<Answer> {
        let mut changes = self.changes.borrow_mut();
        while let Some(Item::Consent { .. }) = changes.front() {
            changes.pop_front();
        }
        let args = recorded(&effect.args);
        let is_next = |item: Option<&Item>| matches!(item, Some(Item::Change(made)) if made.is_of(effect, &args));
        if self.patient && !is_next(changes.front()) {
            return Err(unknown(effect));
        }
        let Some(Item::Change(made)) = changes.pop_front() else {
            return Err(diverged(effect, "the recording has no more changes"));
        };
        if !made.is_of(effect, &args) {
            return Err(diverged(effect, &format!("the recording has {}", made.in_words())));
        }
        Ok(made.end.unwrap_or_else(unended))
    }

    fn read_again(&self, effect: &Effect) -> Answer {
        let args = recorded(&effect.args);
        let key = key(&effect.target.name, effect.verb.name, &args);
        if let Some((_, answer)) = self.reads.borrow_mut().get_mut(&key).and_then(VecDeque::pop_front) {
            self.last.borrow_mut().insert(key, answer.clone());
            return answer;
        }
        let last = self.last.borrow().get(&key).cloned();
        let before_it = match self.fail_at {
            Some(FailAt::After(changes)) => changes as usize,
            _ => self.repeated(),
        };
        let now = || self.made_with(effect, args.get("now")?).map(|(at, made)| made.seen(at < before_it));
        last.or_else(now).unwrap_or_else(|| {
            let what = format!("{} failed on {}", effect.verb.name, effect.target.name);
            let error = Error::new(Kind::Unreachable, what, "the recording does not know it");
            Answer { outcome: "failed".into(), result: Err(error), took: Duration::ZERO }
        })
    }

    fn accept(&self, effect: &Effect) -> Answer {
        let known = self.made_with(effect, &recorded(&effect.args)).and_then(|(_, made)| made.end.clone());
        known.filter(|answer| answer.result.is_ok()).unwrap_or_else(|| Answer {
            outcome: "ok".into(),
            result: Ok(Did { value: Value::Null, changed: true, before: Value::Null, after: Value::Null }),
            took: Duration::ZERO,
        })
    }

    /// The last change like this one, and its place among the changes.
    fn made_with(&self, effect: &Effect, args: &Value) -> Option<(usize, &Made)> {
        self.made.iter().enumerate().rev().find(|(_, made)| made.is_of(effect, args))
    }

    /// What a person or the command line said then: `Some` of an error when it was no.
    pub(super) fn consent(&self, plan: &[Intended], words: &[String]) -> Option<Error> {
        let mut changes = self.changes.borrow_mut();
        let Some(Item::Consent { plan: then, of_calls, .. }) = changes.front() else { return None };
        let is_same = |then: &str, now: &str| then == now || !of_calls && verb_and_target(then) == verb_and_target(now);
        if !then.iter().all(|then| words.iter().any(|now| is_same(then, now))) {
            let what = "the replay differs from its recording".to_string();
            let why = format!("the script asks for {}; the recording asked for {}", words.join(", "), then.join(", "));
            let error =
                Error::new(Kind::Unmet, what, why).host(plan.first().map_or("", |one| one.target.name.as_str()));
            *self.diverged.borrow_mut() = Some(error.clone());
            return Some(error);
        }
        match changes.pop_front() {
            Some(Item::Consent { refused, .. }) => refused,
            _ => None,
        }
    }

    /// At the end of the run: what differed, or, when the script was content, which change it did not make again.
    pub(super) fn verdict(&self, content: bool) -> Option<Error> {
        if let Some(error) = self.diverged.borrow().clone() {
            return Some(error);
        }
        match self.fail_at {
            _ if !content || self.patient => return None,
            None => {}
            // After an effect that was let fail, what comes is compared with nothing.
            Some(FailAt::After(_)) => return None,
            Some(FailAt::Effect(_)) if self.has_struck.get() => return None,
            Some(FailAt::Effect(at)) => {
                return Some(
                    Error::new(Kind::Usage, "nothing was let fail", format!("the run has no effect {at}"))
                        .next("--fail-at 1     the first effect"),
                );
            }
        }
        let changes = self.changes.borrow();
        let left: Vec<&Made> = changes
            .iter()
            .filter_map(|item| match item {
                Item::Change(made) => Some(made),
                Item::Consent { .. } => None,
            })
            .collect();
        let first = left.first()?;
        let why = format!("the script ended; the recording goes on with {}", first.in_words());
        Some(Error::new(Kind::Unmet, "the replay differs from its recording", why).host(&first.target))
    }
}

impl Made {
    fn is_of(&self, effect: &Effect, args: &Value) -> bool {
        self.verb == effect.verb.name && self.target == effect.target.name && same(&self.args, args)
    }

    /// What a look at it finds: the state that it left, or the one before it when it was not made.
    fn seen(&self, was_made: bool) -> Answer {
        let left = match self.end.as_ref().map(|end| &end.result) {
            Some(Ok(did)) => did.after.clone(),
            _ => Value::Null,
        };
        let now = if was_made { left.clone() } else { self.before.clone() };
        let value = json!({ "now": now, "wanted": left });
        let result = Ok(Did { value, changed: false, before: Value::Null, after: Value::Null });
        Answer { outcome: "ok".into(), result, took: Duration::ZERO }
    }

    fn in_words(&self) -> String {
        let at = if self.at.is_empty() { String::new() } else { format!(" ({})", self.at) };
        format!("{} on {} {}{at}, with {}", self.verb, self.target, self.says, brief(&self.args))
    }
}

/// What nobody did or asked when the recording was made.
fn unknown(effect: &Effect) -> Error {
    let what = format!("{} was not done on {}", effect.verb.name, effect.target.name);
    Error::new(Kind::NotFound, what, "this is a recording, and nobody did that when it was made")
}

fn diverged(effect: &Effect, has: &str) -> Error {
    let did = format!(
        "{} on {} {}, with {}",
        effect.verb.name,
        effect.target.name,
        effect.says,
        brief(&recorded(&effect.args))
    );
    let error =
        Error::new(Kind::Unmet, "the replay differs from its recording", format!("the script did {did}; {has}"));
    Error { trace: effect.place.iter().cloned().collect::<Vec<Place>>(), ..error }
}

fn brief(args: &Value) -> String {
    redact::cut(&args.to_string(), 200)
}

/// Refuses an answer that is not the whole of what was answered then: the script would go on with something else.
fn whole(effect: &Effect, answer: Answer) -> Result<Answer> {
    let parts = match &answer.result {
        Ok(did) => [&did.value, &did.before, &did.after],
        Err(_) => return Ok(answer),
    };
    let why = match parts.iter().find_map(|part| lacking(part)) {
        None => return Ok(answer),
        Some(why) => why,
    };
    let what = format!("{} on {} cannot be replayed", effect.verb.name, effect.target.name);
    let error =
        Error::new(Kind::Unmet, what, why).next("ask for less in the script (a tail, a filter), and record it anew");
    Err(Error { trace: effect.place.iter().cloned().collect(), ..error })
}

/// Why a recorded value is not what the script got. A mark within a text is what everybody saw; in a single word (a token,
/// a URL with a password) it is something that the script worked with.
fn lacking(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if text.contains(MARK) && !text.trim().contains(char::is_whitespace) => {
            Some("its value was a secret, and the recording does not hold it".into())
        }
        Value::Array(items) => items.iter().find_map(lacking),
        Value::Object(map) if digest_of_cut(map).is_some() => {
            Some(format!("its value had {} bytes, and the recording holds the ends of it only", map["cut"]["bytes"]))
        }
        Value::Object(map) => map.values().find_map(lacking),
        _ => None,
    }
}

/// The digest of a value that the journal holds the ends of only.
fn digest_of_cut(map: &serde_json::Map<String, Value>) -> Option<&String> {
    match map.get("cut")?.get("sha256")? {
        Value::String(digest) if map.len() == 1 => Some(digest),
        _ => None,
    }
}

fn is_mark(text: &str) -> bool {
    text.strip_prefix(MARK).is_some_and(|tag| !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Arguments as the journal would hold them.
fn recorded(args: &Value) -> Value {
    redact::clean_json(args.clone())
}

/// Equal, where a mark in the recording stands for any text.
fn same(then: &Value, now: &Value) -> bool {
    match (then, now) {
        (Value::String(then), Value::String(now)) => then == now || then.contains(MARK) && fits(then, now),
        (Value::Array(then), Value::Array(now)) => {
            then.len() == now.len() && then.iter().zip(now).all(|(then, now)| same(then, now))
        }
        (Value::Object(cut), now) if digest_of_cut(cut).is_some() => {
            digest_of_cut(cut) == Some(&format!("{:x}", Sha256::digest(now.to_string().as_bytes())))
        }
        (Value::Object(then), Value::Object(now)) => {
            then.len() == now.len() && then.iter().all(|(key, then)| now.get(key).is_some_and(|now| same(then, now)))
        }
        (Value::String(then), _) if is_mark(then) => true,
        (then, now) => then == now,
    }
}

fn fits(then: &str, now: &str) -> bool {
    let mut parts = then.split(MARK);
    let Some(mut rest) = parts.next().and_then(|first| now.strip_prefix(first)) else { return false };
    let mut open = false;
    for part in parts {
        let text = part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
        open = text.is_empty();
        match rest.find(text) {
            Some(at) => rest = &rest[at + text.len()..],
            None => return false,
        }
    }
    open || rest.is_empty()
}

fn key(target: &str, verb: &str, args: &Value) -> Key {
    (target.to_string(), verb.to_string(), args.to_string())
}

/// The first two words of an effect in a plan.
fn verb_and_target(words: &str) -> Vec<&str> {
    words.split(' ').take(2).collect()
}

fn text_of(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_string()
}

fn answer(body: &Value) -> Answer {
    let outcome = text_of(body, "outcome");
    let result = match body.get("error") {
        Some(error) => Err(Error::from_json(error)),
        None if outcome != "ok" => Err(Error::new(Kind::Unknown, "it did not end", text_of(body, "why"))),
        None => Ok(Did {
            value: body["value"].clone(),
            changed: body["changed"] == json!(true),
            before: body["before"].clone(),
            after: body["after"].clone(),
        }),
    };
    Answer { outcome, result, took: Duration::from_millis(body["took_ms"].as_u64().unwrap_or(0)) }
}

fn unended() -> Answer {
    let error = Error::new(Kind::Unknown, "the recording ends here", "opsh ended before the outcome was known");
    Answer { outcome: "unknown".into(), result: Err(error), took: Duration::ZERO }
}

impl Answer {
    /// Of an effect that reaches nothing. A script that expects something else of the answers of then differs in nothing
    /// that happened.
    fn known(effect: &Effect) -> Option<Answer> {
        let (outcome, result) = settle(effect, Ended::Done(effect.known.clone()?.map(Did::value)), Came::Looked);
        Some(Answer { outcome: outcome.into(), result, took: Duration::ZERO })
    }

    /// As the work itself would have reported it.
    pub(super) fn result(&self, effect: &Effect) -> Result<Did> {
        match &self.result {
            Ok(did) => Ok(did.clone()),
            Err(error) => Err(Error { trace: effect.place.iter().cloned().collect(), ..error.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stands_for_any_text() {
        assert!(same(&json!("a •••#3f9a b"), &json!("a secret b")));
        assert!(same(&json!("•••#3f9a"), &json!("x")));
        assert!(same(&json!({"k": ["x", "p=•••#12"]}), &json!({"k": ["x", "p=1"]})));
        assert!(!same(&json!("a •••#3f9a b"), &json!("a secret c")));
        assert!(!same(&json!({"k": 1}), &json!({"k": 1, "l": 2})));
    }

    #[test]
    fn what_is_not_whole_is_refused_and_a_mark_in_a_text_is_not() {
        assert_eq!(lacking(&json!(["login with •••#3f9a failed", {"a": 1}])), None);
        for secret in ["•••#3f9a", "ghp_•••#3f9a\n", "postgres://u:•••#3f9a@db/x"] {
            assert!(lacking(&json!({ "token": secret })).is_some_and(|why| why.contains("secret")), "{secret}");
        }
        let cut = json!({"out": {"cut": {"head": "a", "tail": "b", "bytes": 9, "sha256": "0"}}});
        assert!(lacking(&cut).is_some_and(|why| why.contains("9 bytes")));
        assert_eq!(lacking(&json!({"cut": "here"})), None, "a script's own key");
    }

    #[test]
    fn a_file_that_is_no_recording_says_which_line() {
        let error = Recording::parse("x.jsonl", "{\"kind\":\"run.start\"}\nno").err().expect("refused");
        assert!(error.why.starts_with("line 2"), "{}", error.why);
        assert!(Recording::parse("x.jsonl", "").err().expect("refused").why.contains("run.start"));
    }
}
