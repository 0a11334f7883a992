//! The schema against the ledger: what should be there and is not, and the other way round; and what a dirty mark means.

use super::files::Files;
use super::objects::{self, Object, THERE};
use crate::bind::db;
use crate::bind::docker::engine::Engine;
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// For each migration that the schema contradicts, which objects say so.
pub type Drift = BTreeMap<i64, String>;

/// Compares schema and ledger, by one query that only reads.
pub async fn look(engine: &Engine, stack: &Stack, applied: &[i64], files: &Files, elsewhere: &Files) -> Result<Drift> {
    let expected = objects::expected(applied, files, elsewhere);
    let asked: Vec<&Object> = expected.iter().map(|one| &one.object).collect();
    let there = are_there(engine, stack, &asked).await?;
    let mut drift: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for (one, there) in expected.iter().zip(there).filter(|(one, there)| one.there != *there) {
        let word = if there { "is there already" } else { "is not there" };
        drift.entry(one.version).or_default().push(format!("{} {word}", one.object.says()));
    }
    Ok(drift.into_iter().map(|(version, found)| (version, found.join(", "))).collect())
}

/// Whether each object is there, in order.
async fn are_there(engine: &Engine, stack: &Stack, objects: &[&Object]) -> Result<Vec<bool>> {
    if objects.is_empty() {
        return Ok(Vec::new());
    }
    let asked: Vec<Value> = objects.iter().enumerate().map(|(i, object)| object.to_json(i)).collect();
    let rows = db::rows(engine, stack, THERE, &[json!(json!(asked).to_string())]).await?;
    let there: Vec<bool> = rows.iter().map(|row| row["there"] == json!(true)).collect();
    if there.len() == objects.len() {
        return Ok(there);
    }
    let why = format!("{} objects were asked for, and {} answered", objects.len(), there.len());
    Err(Error::new(Kind::Failed, format!("the schema of {} cannot be read", stack.name), why))
}

/// What a dirty mark of golang-migrate means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirty {
    /// The version that is marked; −1 while the first migration is taken back.
    pub version: i64,
    /// What was begun and not ended.
    pub reading: Reading,
    /// The objects that say so.
    pub evidence: String,
    /// What to do, for a person. Never done by opsh: the mark is the only witness.
    pub repair: String,
}

/// What was begun and not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The up of the marked version.
    FailedUp,
    /// The down of this version, the next one.
    FailedDown(i64),
    /// The objects do not tell.
    Unknown,
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reading::FailedUp => f.write_str("failed up"),
            Reading::FailedDown(version) => write!(f, "failed down of {version}"),
            Reading::Unknown => f.write_str("unknown"),
        }
    }
}

impl Dirty {
    /// For a script.
    pub fn to_json(&self) -> Value {
        let reading = self.reading.to_string();
        json!({ "version": self.version, "reading": reading, "evidence": self.evidence, "repair": self.repair })
    }

    /// The versions that are applied by this reading, of those that the row lists.
    pub fn applied(&self, listed: &[i64]) -> Vec<i64> {
        let mut applied = listed.to_vec();
        match self.reading {
            Reading::FailedUp => applied.retain(|version| *version != self.version),
            Reading::FailedDown(next) => applied.push(next),
            Reading::Unknown => {}
        }
        applied
    }

    /// In one line, for an error.
    pub fn says(&self) -> String {
        let Dirty { version, reading, evidence, repair } = self;
        format!("version {version} is dirty, which reads as: {reading} ({evidence}). {repair}")
    }
}

/// Reads the mark by what is there of its version and of the next one.
///
/// golang-migrate writes the *target* before it runs anything: `41, dirty` is a failed up of 41 as well as a failed
/// down of 42.
pub async fn dirty(engine: &Engine, stack: &Stack, version: i64, files: &Files) -> Result<Dirty> {
    let ups: Vec<(i64, &str)> =
        files.iter().filter_map(|(version, file)| file.up.as_deref().map(|up| (*version, up))).collect();
    let next = ups.iter().find(|(one, _)| *one > version);
    let of = |up: Option<&str>| up.map(objects::left_by).unwrap_or_default();
    let own = of(ups.iter().find(|(one, _)| *one == version).map(|(_, up)| *up));
    let after = of(next.map(|(_, up)| *up));
    let asked: Vec<&Object> = own.iter().chain(&after).collect();
    let there = are_there(engine, stack, &asked).await?;
    let (own_there, after_there) = there.split_at(own.len());
    let before = ups.iter().rev().map(|(one, _)| *one).find(|one| *one < version);
    let seen = Seen { own: count(&own, own_there), after: count(&after, after_there) };
    Ok(judge(version, before, next.map(|(one, _)| *one), &seen))
}

/// What is there of two migrations.
#[derive(Default)]
struct Seen {
    own: Count,
    after: Count,
}

/// Objects in words, those that are there and those that are not.
#[derive(Default)]
struct Count {
    there: Vec<String>,
    gone: Vec<String>,
}

fn count(objects: &[Object], there: &[bool]) -> Count {
    let mut count = Count::default();
    for (object, there) in objects.iter().zip(there) {
        let side = if *there { &mut count.there } else { &mut count.gone };
        side.push(object.says());
    }
    count
}

impl Count {
    fn evidence(&self) -> Vec<String> {
        let said = |list: &[String], word: &str| (!list.is_empty()).then(|| format!("{word}: {}", list.join(", ")));
        [said(&self.there, "there"), said(&self.gone, "not there")].into_iter().flatten().collect()
    }

    fn all_there(&self) -> bool {
        !self.there.is_empty() && self.gone.is_empty()
    }

    fn none_there(&self) -> bool {
        self.there.is_empty() && !self.gone.is_empty()
    }
}

fn judge(version: i64, before: Option<i64>, next: Option<i64>, seen: &Seen) -> Dirty {
    let told = |reading: Reading, repair: String| {
        let mut evidence = seen.after.evidence();
        evidence.extend(seen.own.evidence());
        let evidence = if evidence.is_empty() { "nothing that could be looked at".into() } else { evidence.join("; ") };
        Dirty { version, reading, evidence, repair }
    };
    // golang-migrate's word for no version at all.
    let before = before.unwrap_or(-1);
    match next {
        // Nothing of the next one could be there if it had never been applied.
        Some(next) if !seen.after.there.is_empty() => {
            let repair = if seen.after.gone.is_empty() {
                format!("The schema is still that of {next}: `force {next}`, then find out why its down fails")
            } else {
                format!("The down of {next} was cut off half way: put back by hand what is gone, then `force {next}`")
            };
            told(Reading::FailedDown(next), repair)
        }
        // The first one is the only one that is taken back to no version.
        Some(next) if version < 0 => told(
            Reading::FailedDown(next),
            format!(
                "Nothing of {next} is left that could be looked at: `force -1` when its down has run to its end, else `force {next}`"
            ),
        ),
        _ if seen.own.none_there() => told(
            Reading::FailedUp,
            format!(
                "Nothing of {version} is there: `force {before}`, put right what its up fails on, and run up again"
            ),
        ),
        _ if !seen.own.gone.is_empty() => told(
            Reading::FailedUp,
            format!(
                "The up of {version} was cut off half way: take away by hand what is there, then `force {before}` and up again"
            ),
        ),
        Some(_) if seen.own.all_there() && seen.after.none_there() => told(
            Reading::Unknown,
            format!("The schema looks like that of {version}: `force {version}` when a look at it agrees"),
        ),
        None if seen.own.all_there() => told(
            Reading::Unknown,
            format!("Everything that {version} makes is there: `force {version}` when a look at it agrees"),
        ),
        _ => told(
            Reading::Unknown,
            format!(
                "Look whether the up of {version} has run{}: `force` the version that the schema is at",
                next.map_or(String::new(), |next| format!(" and the down of {next} has not"))
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(version: i64, next: Option<i64>, own: (&[&str], &[&str]), after: (&[&str], &[&str])) -> Dirty {
        let strings = |list: &[&str]| list.iter().map(|one| one.to_string()).collect();
        let count = |(there, gone): (&[&str], &[&str])| Count { there: strings(there), gone: strings(gone) };
        judge(version, (version > 1).then_some(version - 1), next, &Seen { own: count(own), after: count(after) })
    }

    #[test]
    fn a_dirty_mark_is_read_by_what_is_there() {
        let none: (&[&str], &[&str]) = (&[], &[]);
        for (version, next, own, after, reading, repair) in [
            (41, Some(42), (&["t41"][..], &[][..]), (&["t42"][..], &[][..]), "failed down of 42", "`force 42`"),
            (41, Some(42), none, (&["t42"], &[]), "failed down of 42", "`force 42`"),
            (41, Some(42), none, (&["t42"], &["i42"]), "failed down of 42", "half way"),
            (41, Some(42), (&[], &["t41"]), (&[], &["t42"]), "failed up", "`force 40`"),
            (41, None, (&[], &["t41"]), none, "failed up", "`force 40`"),
            (1, Some(2), (&[], &["t1"]), (&[], &["t2"]), "failed up", "`force -1`"),
            (41, Some(42), (&["t41"], &["i41"]), (&[], &["t42"]), "failed up", "half way"),
            (41, Some(42), (&["t41"], &[]), (&[], &["t42"]), "unknown", "`force 41`"),
            (41, None, (&["t41"], &[]), none, "unknown", "`force 41`"),
            (41, Some(42), none, none, "unknown", "the down of 42"),
            (41, Some(42), (&["t41"], &[]), none, "unknown", "the down of 42"),
            (-1, Some(1), none, (&["t1"], &[]), "failed down of 1", "`force 1`"),
            (-1, Some(1), none, (&[], &["t1"]), "failed down of 1", "`force -1`"),
        ] {
            let dirty = read(version, next, own, after);
            assert_eq!(dirty.reading.to_string(), reading, "{version} {own:?} {after:?}");
            assert!(dirty.repair.contains(repair), "{}", dirty.repair);
            assert!(!dirty.repair.to_lowercase().contains("dirty = false"));
        }
        let listed = [40, 41];
        assert_eq!(read(41, Some(42), none, (&["t42"], &[])).applied(&listed), [40, 41, 42]);
        assert_eq!(read(41, None, (&[], &["t41"]), none).applied(&listed), [40]);
        assert_eq!(read(41, None, none, none).applied(&listed), [40, 41]);
        let says = read(41, Some(42), none, (&["table t42"], &[])).says();
        assert!(says.contains("version 41 is dirty") && says.contains("there: table t42"), "{says}");
    }
}
