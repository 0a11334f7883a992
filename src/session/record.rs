//! The record of a run for a person: what it did, in order, and what somebody saw of a change that may have happened.

use crate::error::{Error, Kind, Result};
use crate::gate::journal::{Entry, Journal};
use crate::redact;
use crate::screen::{Screen, one_line};
use serde_json::Value;

/// Writes down what was seen of a run's changes that may have happened. Fails with `not_found` when it has none.
pub fn settle(journal: &Journal, run: &str, saw: &str, screen: &Screen) -> Result<()> {
    if journal.settle(run, saw)? == 0 {
        let what = format!("nothing to settle in run {run}");
        return Err(Error::new(Kind::NotFound, what, "every change in it has an outcome")
            .next("opsh runs     runs with changes that may have happened"));
    }
    screen.print("settled, with what you saw in the record");
    Ok(())
}

/// What a run did, in order; with `all` the looks that succeeded, too.
pub fn show(entries: &[Entry], all: bool, screen: &Screen) {
    if screen.options().json {
        return entries.iter().for_each(|entry| screen.value(&entry.to_json()));
    }
    let quiet = |entry: &&Entry| !all && entry.kind == "effect.read" && entry.body["outcome"] == "ok";
    for entry in entries.iter().filter(|entry| !quiet(entry)) {
        for (at, line) in lines(entry, screen).into_iter().enumerate() {
            // Its number is how other texts name a record.
            let number = if at == 0 { format!("#{}", entry.seq) } else { String::new() };
            // What was recorded may hold line ends: they make no line of ours.
            screen.print(&one_line(&format!("{number:<6} {line}")));
        }
    }
    match entries.iter().filter(quiet).count() {
        0 => {}
        looks => screen.print(&format!("({looks} looks that succeeded: --all shows them)")),
    }
}

/// One record as lines for a person.
fn lines(entry: &Entry, screen: &Screen) -> Vec<String> {
    let text = |key: &str| entry.body.get(key).and_then(Value::as_str).unwrap_or("").to_string();
    let at = screen.time(entry.happened_us());
    let target = entry.target.as_deref().unwrap_or("");
    let took = entry.body.get("took_ms").and_then(Value::as_u64).map_or(String::new(), |ms| format!("  {ms} ms"));
    match entry.kind.as_str() {
        "run.start" => {
            vec![format!("{at}  run {}  {}  by {}  ({})", entry.run, text("what"), entry.actor, text("mode"))]
        }
        "run.failed" => vec![format!("{at}  failed   {}", why(&entry.body).trim())],
        "run.retry" => vec![format!("{at}  run begins again")],
        "run.end" => vec![format!("{at}  run ended: {}{}", text("outcome"), why(&entry.body))],
        "effect.begin" => {
            let mut lines = vec![format!("{at}  {:7}  {}  {target}  {}", class(entry), text("verb"), text("says"))];
            if !text("inverse").is_empty() {
                lines.push(format!("{:21}{:9}undo: {}", "", "", text("inverse")));
            }
            lines
        }
        "effect.end" => {
            vec![format!("{at}  {:7}    → {}{took}{}", class(entry), outcome(&text("outcome")), why(&entry.body))]
        }
        "effect.read" => {
            let outcome = text("outcome");
            let bad = if outcome == "ok" { String::new() } else { format!("  → {outcome}{}", why(&entry.body)) };
            let args = entry.body.get("args").map_or(String::new(), short);
            vec![format!("{at}  {:7}  {}  {target}  {args}{took}{bad}", class(entry), text("verb"))]
        }
        "effect.settled" => vec![format!("{at}  settled  {target}  {}", text("saw"))],
        "effect.undone" => vec![format!("{at}  undone   {target}  effect {}", entry.effect.as_deref().unwrap_or(""))],
        "effect.undoing" => vec![format!("{at}  undoing  {target}  effect {}", entry.effect.as_deref().unwrap_or(""))],
        "source" => vec![format!("{at}  {:7}  {}  {}", text("role"), text("name"), origin(&entry.body))],
        "step.end" => vec![format!("{at}  step     {}", text("name"))],
        "consent" => {
            let given = entry.body.get("given").and_then(Value::as_bool).unwrap_or(false);
            let by = if given { format!("given by {}", text("by")) } else { format!("not given: {}", text("why")) };
            vec![format!("{at}  consent  {by}")]
        }
        other => vec![format!("{at}  {other}  {}", short(&entry.body))],
    }
}

/// Where a script or an import comes from.
fn origin(body: &Value) -> String {
    let commit = body["commit"].as_str().map(|commit| commit.get(..12).unwrap_or(commit));
    match (commit, body["dirty"] == true) {
        _ if body["file"].is_null() => "built in".into(),
        (Some(commit), false) => format!("of commit {commit}"),
        (Some(commit), true) => format!("not as commit {commit} has it"),
        (None, _) => "of no commit that is known".into(),
    }
}

fn class(entry: &Entry) -> &str {
    entry.class.as_deref().unwrap_or("")
}

fn outcome(word: &str) -> String {
    match word {
        "unknown" => "unknown: it may have happened".into(),
        "timeout" | "interrupted" => format!("{word}: it may have happened"),
        word => word.into(),
    }
}

fn why(body: &Value) -> String {
    let error = body.get("error").and_then(|error| error.get("why")).or_else(|| body.get("why"));
    error.and_then(Value::as_str).map_or(String::new(), |why| format!("  ({})", why.lines().next().unwrap_or("")))
}

fn short(value: &Value) -> String {
    redact::cut(&value.to_string(), 100)
}
