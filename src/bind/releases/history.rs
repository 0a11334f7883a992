//! The history of a stack's releases: what the lines of its file tell, and what may be said of each release now.

use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// One line of the file; who and when are in every one.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line {
    Release(Release),
    Struck { tag: String },
    Bad { commit: String, why: String, at_us: i64 },
    Good { commit: String },
}

/// One deploy or rollback that was proved.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Release {
    /// As it was asked for.
    pub tag: String,
    /// 40 hex digits.
    pub commit: String,
    /// `deploy` or `rollback`.
    pub how: String,
    /// Who did it.
    pub by: String,
    /// The image that served then.
    pub image_id: String,
    /// When, in microseconds since 1970.
    pub at_us: i64,
}

/// Everything that the lines tell.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Oldest first, without those that were taken back.
    pub releases: Vec<Release>,
    /// When and why a commit was marked bad, by commit.
    pub bad: BTreeMap<String, (i64, String)>,
}

impl History {
    /// Of the file's text. A line that cannot be read is left out: one that was cut short by a full disk, or one of a
    /// newer opsh, must not hide the others.
    pub fn of(text: &str) -> History {
        let mut history = History::default();
        for line in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
            match line {
                Line::Release(release) => history.releases.push(release),
                Line::Struck { tag } => history.strike(&tag),
                Line::Bad { commit, why, at_us } => drop(history.bad.insert(commit, (at_us, why))),
                Line::Good { commit } => drop(history.bad.remove(&commit)),
            }
        }
        history
    }

    fn strike(&mut self, tag: &str) {
        if let Some(at) = self.releases.iter().rposition(|release| release.tag == tag) {
            self.releases.remove(at);
        }
    }

    /// What was released last.
    pub fn newest(&self) -> Option<&Release> {
        self.releases.last()
    }

    /// The newest time of each commit, newest first, with the seconds that it ran until it was replaced, was marked bad,
    /// or until now.
    pub fn times(&self, now_us: i64) -> Vec<(&Release, i64)> {
        let mut seen = BTreeSet::new();
        let next = self.releases.iter().skip(1).map(|release| release.at_us).chain([now_us]);
        let mut times: Vec<_> = self.releases.iter().zip(next).collect();
        times.reverse();
        times.retain(|(release, _)| seen.insert(release.commit.as_str()));
        let ran = |(release, until): (&'_ Release, i64)| {
            let bad = self.bad.get(&release.commit).map(|(at, _)| *at).filter(|at| *at >= release.at_us);
            (release.at_us, bad.map_or(until, |bad| bad.min(until)))
        };
        times
            .into_iter()
            .map(|time| (time.0, ran(time)))
            .map(|(release, (from, to))| (release, (to - from).max(0) / 1_000_000))
            .collect()
    }
}

/// What is known of a release when it is judged.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// It is what runs now.
    pub runs: bool,
    /// An image of its commit is on the host.
    pub image: bool,
    /// Why it was marked bad.
    pub bad: Option<String>,
    /// Migrations it needs that are not applied.
    pub missing: usize,
    /// Applied migrations that its code cannot live with, or that were applied after them: they must go down.
    pub undo: Vec<i64>,
    /// One of them has no way down from here.
    pub irreversible: bool,
    /// Taking them back deletes rows or values.
    pub loses: bool,
}

impl Facts {
    /// One word for the list. What forbids comes before what costs.
    pub fn verdict(&self) -> &'static str {
        match self {
            Facts { runs: true, .. } => "RUNNING",
            Facts { bad: Some(_), .. } => "BAD",
            Facts { missing: 1.., .. } => "NEEDS MIGRATIONS",
            Facts { irreversible: true, .. } => "IRREVERSIBLE",
            Facts { loses: true, .. } => "NEEDS DATA LOSS",
            Facts { image: false, .. } => "NOT BUILT",
            _ => "OK",
        }
    }

    /// The row of the list that these facts fill.
    pub fn row(&self) -> Value {
        json!({
            "image": self.image, "undo": self.undo, "irreversible": self.irreversible, "bad": self.bad,
            "verdict": self.verdict(),
        })
    }
}

/// An applied migration, for judging who can live with it.
#[derive(Clone, Debug, Deserialize)]
pub struct Applied {
    /// Its version.
    pub version: i64,
    /// As `stack.migrations` says.
    pub state: String,
    /// It only adds: older code can live with it.
    pub additive: bool,
}

impl Facts {
    /// What the schema says of a release that knows the versions `known`. Migrations go down from the newest: one that
    /// cannot stay takes the newer ones of this release's future with it.
    pub fn judge_schema(&mut self, known: &[i64], applied: &[Applied]) {
        let is = |one: &&Applied| one.state != "PENDING";
        self.missing = known
            .iter()
            .filter(|version| !applied.iter().any(|one| one.version == **version && one.state != "PENDING"))
            .count();
        let newer: Vec<&Applied> = applied.iter().filter(is).filter(|one| !known.contains(&one.version)).collect();
        if newer.iter().all(|one| one.additive) {
            return;
        }
        self.undo = newer.iter().rev().map(|one| one.version).collect();
        self.irreversible = newer.iter().any(|one| one.state != "APPLIED");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(tag: &str, at_s: i64) -> String {
        format!(
            r#"{{"kind":"release","tag":"{tag}","commit":"c-{tag}","how":"deploy","by":"a@b","image_id":"i-{tag}","at_us":{}}}"#,
            at_s * 1_000_000
        )
    }

    fn times(lines: &[String]) -> Vec<(String, i64)> {
        let history = History::of(&lines.join("\n"));
        history.times(1_000_000_000).into_iter().map(|(release, ran_s)| (release.tag.clone(), ran_s)).collect()
    }

    fn told(pairs: &[(&str, i64)]) -> Vec<(String, i64)> {
        pairs.iter().map(|(tag, ran_s)| (tag.to_string(), *ran_s)).collect()
    }

    #[test]
    fn the_newest_release_comes_first_and_each_ran_until_the_next() {
        assert_eq!(times(&[release("v1", 100), release("v2", 400)]), told(&[("v2", 600), ("v1", 300)]));
    }

    #[test]
    fn a_release_that_was_deployed_twice_is_listed_once_by_its_last_time() {
        let lines = [release("v1", 100), release("v2", 400), release("v1", 700)];
        assert_eq!(times(&lines), told(&[("v1", 300), ("v2", 300)]));
    }

    #[test]
    fn what_was_taken_back_is_no_release_and_the_one_before_it_runs_on() {
        let struck = r#"{"kind":"struck","tag":"v2","at_us":500000000}"#.to_string();
        assert_eq!(times(&[release("v1", 100), release("v2", 400), struck]), told(&[("v1", 900)]));
    }

    #[test]
    fn a_mark_ends_the_time_that_a_release_ran_clean_and_can_be_lifted() {
        let bad = r#"{"kind":"bad","tag":"v1","commit":"c-v1","why":"500s","at_us":160000000}"#.to_string();
        assert_eq!(times(&[release("v1", 100), bad.clone()]), told(&[("v1", 60)]));
        let good = r#"{"kind":"good","tag":"v1","commit":"c-v1","at_us":170000000}"#.to_string();
        assert_eq!(times(&[release("v1", 100), bad, good]), told(&[("v1", 900)]));
    }

    #[test]
    fn a_torn_or_strange_line_hides_no_other() {
        let lines = [
            release("v1", 100),
            r#"{"kind":"release","tag":"v"#.into(),
            r#"{"kind":"later"}"#.into(),
            release("v2", 400),
        ];
        assert_eq!(times(&lines).len(), 2);
    }

    fn applied(version: i64, state: &str, additive: bool) -> Applied {
        Applied { version, state: state.into(), additive }
    }

    #[test]
    fn the_schema_stays_when_what_is_newer_only_adds_and_goes_down_whole_when_not() {
        let table = [applied(1, "APPLIED", true), applied(2, "APPLIED", true), applied(3, "APPLIED", false)];
        let judged = |known: &[i64], table: &[Applied]| {
            let mut facts = Facts { image: true, ..Facts::default() };
            facts.judge_schema(known, table);
            (facts.undo.clone(), facts.verdict())
        };
        assert_eq!(judged(&[1], &table[..2]), (vec![], "OK"));
        assert_eq!(judged(&[1], &table), (vec![3, 2], "OK"));
        let unknown = [table[0].clone(), applied(2, "UNKNOWN HERE", false)];
        assert_eq!(judged(&[1], &unknown), (vec![2], "IRREVERSIBLE"));
        let pending = [table[0].clone(), applied(2, "PENDING", true)];
        assert_eq!(judged(&[1, 2], &pending), (vec![], "NEEDS MIGRATIONS"));
        assert_eq!(judged(&[1], &pending), (vec![], "OK"));
    }

    #[test]
    fn what_forbids_is_said_before_what_costs() {
        let all = Facts {
            runs: true,
            bad: Some("x".into()),
            missing: 1,
            irreversible: true,
            loses: true,
            ..Facts::default()
        };
        let mut said = vec![all.verdict()];
        let steps: [fn(&mut Facts); 6] = [
            |facts| facts.runs = false,
            |facts| facts.bad = None,
            |facts| facts.missing = 0,
            |facts| facts.irreversible = false,
            |facts| facts.loses = false,
            |facts| facts.image = true,
        ];
        let mut facts = all;
        for step in steps {
            step(&mut facts);
            said.push(facts.verdict());
        }
        assert_eq!(said, ["RUNNING", "BAD", "NEEDS MIGRATIONS", "IRREVERSIBLE", "NEEDS DATA LOSS", "NOT BUILT", "OK"]);
    }
}
