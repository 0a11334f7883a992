//! A case whose effects fail one after the other. Whichever does, the run says so, its record is whole, and what was done
//! can be taken back from there, newest first.

use super::Verdict;
use super::case::Case;
use super::child::{self, Ran};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn of_kind<'a>(records: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    records.iter().filter(move |record| record["kind"] == kind)
}

/// Every effect of the case in turn.
pub fn verdict(case: &Case) -> Verdict {
    case.verdict(false)?;
    let state = child::folder()?;
    case.replay(state.path(), &[])?;
    let records = child::records(state.path())?;
    let effects: Vec<&Value> =
        records.iter().filter(|one| ["effect.read", "effect.begin"].contains(&text(one, "kind"))).collect();
    if effects.is_empty() {
        return Err("it has no effects".into());
    }
    let mut survived = BTreeSet::new();
    for (number, effect) in (1..).zip(&effects) {
        let state = child::folder()?;
        let (says, verb) = (text(&effect["body"], "says"), text(&effect["body"], "verb"));
        let place = |why: String| format!("effect {number} of {}, {verb} {says}: {why}", effects.len());
        if fails(case, state.path(), number, is_release(effect)).map_err(place)? {
            goes_back(case, state.path(), number).map_err(place)?;
        } else {
            survived.insert(if is_release(effect) { "the lock's release" } else { verb });
        }
    }
    let survived: Vec<&str> = survived.into_iter().collect();
    let besides = if survived.is_empty() { String::new() } else { format!("; survives {}", survived.join(", ")) };
    Ok(format!("{} effects, each failed once{besides}", effects.len()))
}

/// One effect of the case; what was shown then, when it is as it should be.
pub fn failing(case: &Case, number: u32) -> Verdict {
    let state = child::folder()?;
    let ran = case.replay(state.path(), &["--fail-at", &number.to_string()])?;
    speaks(&ran)?;
    if ran.err.contains("error: nothing was let fail") {
        return Err(ran.err);
    }
    is_whole(&child::records(state.path())?)?;
    Ok(format!("\n{}", ran.screen()))
}

/// A lock that cannot be given back is free as soon as its opsh is gone.
fn is_release(effect: &Value) -> bool {
    effect["body"]["verb"] == "lock.take" && effect["body"]["args"]["step"] == "release"
}

/// Runs the case with a failing effect. False when it ended well all the same, which is only for looks.
fn fails(case: &Case, state: &Path, number: u32, may_survive: bool) -> Result<bool, String> {
    let ran = case.replay(state, &["--fail-at", &number.to_string()])?;
    let records = child::records(state)?;
    is_whole(&records)?;
    if ran.code == Some(0) {
        let failed = of_kind(&records, "effect.end").any(|end| end["body"]["outcome"] == "failed");
        return match failed && !may_survive {
            true => Err("a change failed, and the script ended well".into()),
            false => Ok(false),
        };
    }
    speaks(&ran).map(|()| true)
}

fn speaks(ran: &Ran) -> Result<(), String> {
    if ran.code.is_none() {
        return Err(format!("it died\n{}", ran.err));
    }
    let lacks = ["error: ", "  why: ", " next: "].into_iter().find(|part| !ran.err.contains(part));
    match lacks {
        Some(part) if ran.code != Some(0) => Err(format!("what it says has no \"{}\"\n{}", part.trim(), ran.err)),
        _ => Ok(()),
    }
}

/// The run has its end, and each change that was begun has one.
fn is_whole(records: &[Value]) -> Result<(), String> {
    let effects = |kind| of_kind(records, kind).map(|one| text(one, "effect")).collect::<Vec<_>>();
    match records.last().is_some_and(|last| last["kind"] == "run.end")
        && effects("effect.begin") == effects("effect.end")
    {
        true => Ok(()),
        false => Err("its record is not whole".into()),
    }
}

/// Changes that were done and changed something, oldest first: id, words, and whether they can be taken back.
fn done(records: &[Value]) -> Vec<(&str, &str, bool)> {
    let changed = |begin: &&Value| {
        let mut ends = of_kind(records, "effect.end").filter(|end| end["effect"] == begin["effect"]);
        ends.any(|end| end["body"]["outcome"] == "ok" && end["body"]["changed"] == true)
    };
    let own = of_kind(records, "effect.begin").filter(|begin| begin["body"]["undoes"].is_null());
    own.filter(changed)
        .map(|begin| (text(begin, "effect"), text(&begin["body"], "says"), begin["body"]["inverse"].is_string()))
        .collect()
}

fn undone(records: &[Value]) -> impl Iterator<Item = String> {
    of_kind(records, "effect.undone").map(|one| text(one, "effect").to_string())
}

/// Takes the run back: exactly what can be, newest first; the rest is named; and a second time there is nothing.
fn goes_back(case: &Case, state: &Path, number: u32) -> Result<(), String> {
    let records = child::records(state)?;
    let run = records.first().map(|first| text(first, "run").to_string()).unwrap_or_default();
    let number_of = |begin: &Value| text(begin, "effect").rsplit_once('.').and_then(|(_, at)| at.parse::<u32>().ok());
    let before = of_kind(&records, "effect.begin").filter(|begin| number_of(begin) < Some(number)).count();
    let undo = || {
        let fault = format!("after:{before}");
        case.opsh(state, &["--fail-at", &fault], &["undo", &run, "--partly"])
    };
    let (back, stays): (Vec<_>, Vec<_>) = done(&records).into_iter().partition(|(_, _, inverse)| *inverse);
    // A guard may have gone back already: then there is less to do.
    let mut taken: Vec<String> = undone(&records).collect();
    let ran = undo()?;
    let says = |why: String| format!("{why}\n{}{}", ran.out, ran.err);
    if ran.code != Some(0) {
        return Err(says("what it did was not taken back".into()));
    }
    if back.iter().any(|(id, ..)| !taken.iter().any(|one| one == id)) {
        taken.extend(undone(&child::records(state)?));
        if let Some((_, words, _)) = stays.iter().find(|(_, words, _)| !ran.err.contains(words)) {
            return Err(says(format!("the undo does not name what stays: {words}")));
        }
    }
    let wanted: Vec<&str> = back.iter().rev().map(|(id, ..)| *id).collect();
    if taken != wanted {
        return Err(says(format!("undone were {taken:?}, and not exactly {wanted:?}")));
    }
    match undo()?.out.contains("nothing to undo") {
        true => Ok(()),
        false => Err(says("a second undo found something to do".into())),
    }
}
