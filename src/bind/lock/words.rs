//! Who has the lock, in words.

use super::intent;
use crate::bind::beside;
use crate::config::Stack;
use crate::error::{Error, Kind};
use crate::gate::one_line;
use crate::redact;
use serde_json::{Value, json};

/// Who has it.
pub fn by(seen: &Value) -> String {
    intent::name(&seen["lock"]["holder"]["by"])
}

/// Words of a plan and a question for a lock that somebody else has.
pub fn locked_words(state: &str, lock: &Value) -> String {
    let holder = &lock["holder"];
    let by = intent::name(&holder["by"]);
    let by = if state == "works" { format!("what {by} left running") } else { by };
    format!("LOCKED by {by}: {}, since {}{}", text(&holder["why"]), text(&lock["since"]), last_words(&lock["last"]))
}

/// Words of a plan, a question and a status for an open intent.
pub fn began_words(stack: &str, open: &Value) -> String {
    let (by, since) = (intent::name(&open["by"]), text(&open["since"]));
    let how = match (open["alive"] == json!(true), open["outcome"].as_str()) {
        (true, _) => "is being changed".to_string(),
        (false, Some(_)) => format!("did not end well ({})", text(&open["outcome"])),
        (false, None) => "did not end".to_string(),
    };
    let began = if open["alive"] == json!(true) { "WORKED ON" } else { "BEGUN" };
    if intent::run_of(open).is_none() {
        return format!("{began}: an unreadable intent {}, {how} on {stack}", text(&open["file"]));
    }
    let step = open["step"].as_str().map_or(String::new(), |_| format!("; step \"{}\"", text(&open["step"])));
    format!(
        "{began} by {by}: {}, since {since}, {how} on {stack}{step}{}",
        text(&open["what"]),
        last_words(&open["last"])
    )
}

fn last_words(last: &Value) -> String {
    match last.is_object() {
        true => format!("; last change: {} {}", text(&last["verb"]), text(&last["says"])),
        false => String::new(),
    }
}

/// A value that somebody else wrote, as a part of a line of opsh's own: short, and without a line end.
pub fn text(value: &Value) -> String {
    redact::cut_line(&one_line(value.as_str().unwrap_or("?")), MOST_OF_A_PART)
}

/// Characters of such a part.
const MOST_OF_A_PART: usize = 200;

/// All of it in one line.
pub fn first_line(state: &str, lock: &Value, open: &Value) -> String {
    let newest = open.as_array().and_then(|open| open.last());
    match (state, newest) {
        ("held" | "works", _) => locked_words(state, lock),
        (_, Some(open)) => began_words("the stack", open),
        (_, None) => String::new(),
    }
}

/// Open intents that have lines of their own.
const SHOWN: usize = 2;

/// Lines to type about it. None changes the stack while somebody works there.
pub fn next_lines(stack: &Stack, state: &str, holder: &Value, open: &Value) -> Vec<String> {
    let name = json!(stack.name);
    if state != "left" {
        let works = intent::run_of(holder).map(|run| format!("opsh attach {run}     waits for what runs of it"));
        let ask = format!(
            "stack({name}).changes(5)     what was changed under the lock; else ask {}",
            intent::name(&holder["by"])
        );
        return works.into_iter().chain([ask]).collect();
    }
    let mut lines = Vec::new();
    for open in open.as_array().into_iter().flatten().rev().take(SHOWN) {
        let Some(run) = intent::run_of(open) else {
            let file = format!("{}/{}.jsonl", beside::folder(stack), text(&open["file"]));
            let look = format!("host({}).read({}).out", json!(stack.host), json!(["head", "-c", "4096", file]));
            lines.push(format!("{look}     an intent that cannot be read; whoever wrote it moves it away"));
            continue;
        };
        if open["here"] == json!(true) {
            if open["script"] == json!(true) {
                lines.push(format!("opsh resume {run}     go on after its last step"));
            }
            lines.push(format!("opsh undo {run}     take back what it did"));
        } else {
            lines.push(format!("opsh attach {run}     waits for what still runs of it"));
        }
        lines.push(format!(
            "stack({name}).settle_intent({}, \"WHAT YOU SAW\")     when you looked, and it is settled",
            json!(run)
        ));
    }
    let more = open.as_array().map_or(0, Vec::len).saturating_sub(SHOWN);
    if more > 0 {
        lines.push(format!("stack({name}).lock().open     {more} more that did not end"));
    }
    lines
}

/// Why, as it was given.
pub fn quoted(lock: &Value) -> String {
    match &lock["holder"]["why"] {
        why @ Value::String(_) => format!("\"{}\"", text(why)),
        _ => "\"no reason given\"".into(),
    }
}

/// Who has the lock, since when, why, what was done last, and what runs.
pub fn in_words(stack: &str, seen: &Value) -> Vec<String> {
    let (lock, up) = (&seen["lock"], seen["up"].as_i64().unwrap_or(0));
    let age = |key: &str| lock[key].as_i64().map_or("an unknown time".to_string(), |then| ago(up.saturating_sub(then)));
    let text = |value: &Value, key: &str| text(&value[key]);
    let mut lines = Vec::new();
    if seen["state"] == "busy" {
        let (by, since) = (by(seen), text(lock, "since"));
        lines.push(format!("{stack} is locked by {by} for {} (since {since}): {}", age("since_up"), quoted(lock)));
        let last = &lock["last"];
        lines.push(match last.is_object() {
            true => {
                format!("its last change: {} {}, idle for {}", text(last, "verb"), text(last, "says"), age("last_up"))
            }
            false => format!("it has changed nothing yet, idle for {}", age("last_up")),
        });
    } else {
        let by = by(seen);
        lines.push(format!("{stack} is locked by what {by} left running; {by} had it for {}", quoted(lock)));
    }
    for work in seen["works"].as_array().into_iter().flatten() {
        let [verb, says, by, at] = ["verb", "says", "by", "at"].map(|key| text(work, key));
        let attach = intent::run_of(work).map_or(String::new(), |run| format!(": opsh attach {run}"));
        lines.push(format!("still runs: {verb} {says}, started by {by} at {at}{attach}"));
    }
    if of_another_account(seen) {
        lines.push(format!("something still runs, of an account whose runs are not seen from here: {}", by(seen)));
    }
    lines
}

/// Durable runs are listed for their own account only; the lock knows of all.
fn of_another_account(seen: &Value) -> bool {
    seen["runs"] == json!(true) && seen["works"].as_array().is_none_or(Vec::is_empty)
}

/// The error for one who does not get it.
pub fn is_locked(stack: &str, seen: &Value, more: &str, kind: Kind) -> Error {
    let lines = in_words(stack, seen);
    let (first, rest) = lines.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let why = rest.iter().map(String::as_str).chain([more]).collect::<Vec<_>>().join("\n");
    let mut error = Error::new(kind, first, why);
    let mut runs: Vec<&str> = seen["works"].as_array().into_iter().flatten().filter_map(intent::run_of).collect();
    runs.extend(intent::run_of(&seen["lock"]["holder"]).filter(|_| of_another_account(seen)));
    runs.dedup();
    for run in runs {
        error = error.next(format!("opsh attach {run}     waits for what runs, or ends it"));
    }
    error.next(format!("stack({}).lock()     who works on it, and on what", json!(stack)))
}

/// Seconds as a person says them.
pub fn ago(seconds: i64) -> String {
    match seconds.max(0) {
        s @ ..120 => format!("{s} s"),
        s @ ..7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}
