//! Who has the lock, in words.

use crate::error::{Error, Kind};
use serde_json::{Value, json};

/// Who has it.
pub fn by(seen: &Value) -> &str {
    seen["lock"]["holder"]["by"].as_str().unwrap_or("somebody")
}

/// Why, as it was given.
pub fn quoted(lock: &Value) -> String {
    format!("\"{}\"", lock["holder"]["why"].as_str().unwrap_or("no reason given"))
}

/// Who has the lock, since when, why, what was done last, and what runs.
pub fn in_words(stack: &str, seen: &Value) -> Vec<String> {
    let (lock, up) = (&seen["lock"], seen["up"].as_i64().unwrap_or(0));
    let age = |key: &str| lock[key].as_i64().map_or("an unknown time".to_string(), |then| ago(up - then));
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or("?").to_string();
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
        let [verb, says, by, at, run] = ["verb", "says", "by", "at", "run"].map(|key| text(work, key));
        lines.push(format!("still runs: {verb} {says}, started by {by} at {at}: opsh attach {run}"));
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
    let mut runs: Vec<&str> =
        seen["works"].as_array().into_iter().flatten().filter_map(|one| one["run"].as_str()).collect();
    runs.extend(seen["lock"]["holder"]["run"].as_str().filter(|_| of_another_account(seen)));
    runs.dedup();
    for run in runs {
        error = error.next(format!("opsh attach {run}     waits for what runs, or ends it"));
    }
    error
}

/// Seconds as a person says them.
pub fn ago(seconds: i64) -> String {
    match seconds.max(0) {
        s @ ..120 => format!("{s} s"),
        s @ ..7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}
