//! What a script asks for, against the facts of now: which of them denies it. Pure.

use super::files::{File, Files};
use super::sql;
use crate::bind::docker::short_id;
use crate::config::migrate::Tool;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;

/// Versions to apply or to take back, with the facts that the plan was made of.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// To apply: ascending. To take back: newest first.
    pub versions: Vec<i64>,
    /// What was applied when the plan was made.
    pub ledger: Vec<i64>,
    /// The image that does it.
    pub image_id: String,
    /// What was counted to be lost then.
    #[serde(default)]
    pub loses: Vec<Lost>,
    /// Seconds that it may take.
    #[serde(default = "within_s")]
    pub within_s: u64,
    /// Takes back what an up that failed half way has applied: of `versions` some may be missing in the ledger.
    #[serde(default)]
    pub partly: bool,
}

fn within_s() -> u64 {
    600
}

/// A loss as it was counted.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The migration.
    pub version: i64,
    /// In words.
    pub what: String,
    /// Rows that hold it; `None` when it cannot be told.
    pub rows: Option<i64>,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Applied.
    Up,
    /// Taken back.
    Down,
}

impl Way {
    /// What was to become of the migrations.
    pub fn done(self) -> &'static str {
        match self {
            Way::Up => "applied",
            Way::Down => "taken back",
        }
    }
}

impl Plan {
    /// How many: a plan for none is no plan, since many tools read 0, or no number, as all.
    pub fn count(&self) -> Result<NonZeroUsize, String> {
        let none = "the plan names no version, and for many tools a count of 0 means all of them";
        NonZeroUsize::new(self.versions.len()).ok_or_else(|| none.into())
    }

    /// Without what is not applied, if that may be missing.
    pub fn narrowed(mut self, applied: &[i64]) -> Plan {
        if self.partly {
            let missing = |version: &i64| self.versions.contains(version) && !applied.contains(version);
            self.ledger.retain(|version| !missing(version));
            self.versions.retain(|version| applied.contains(version));
        }
        self
    }

    /// The tool's words for this plan.
    pub fn words(&self, way: Way, tool: &Tool, folder: &str) -> Result<Vec<String>, String> {
        let words = if way == Way::Up { &tool.up } else { &tool.down };
        Ok(words.of(self.count()?, folder))
    }

    /// The ledger as it is to be afterwards.
    pub fn wanted(&self, way: Way) -> Vec<i64> {
        let mut wanted = self.ledger.clone();
        match way {
            Way::Down => wanted.retain(|version| !self.versions.contains(version)),
            Way::Up => wanted.extend(&self.versions),
        }
        wanted.sort_unstable();
        wanted
    }

    /// The plan against the facts of now: the error says which of them denies it.
    pub fn check(&self, way: Way, tool: &Tool, applied: &[i64], files: &Files) -> Result<(), String> {
        self.count()?;
        if applied != self.ledger {
            let (then, now) = (list(&self.ledger), list(applied));
            return Err(format!("the ledger was {then} when the plan was made and is {now} now"));
        }
        // A tool knows the versions of its own image only: one that it does not know it skips without a word.
        let unknown: Vec<i64> = applied.iter().copied().filter(|version| !files.contains_key(version)).collect();
        if let Some(first) = unknown.first() {
            let image = short_id(&self.image_id);
            let which = if unknown.len() == 1 { first.to_string() } else { format!("{first} (of {})", list(&unknown)) };
            return Err(match way {
                Way::Down => {
                    format!("image {image} does not know version {which}: its down would take back another one")
                }
                Way::Up => format!("image {image} does not know version {which}, which is applied: it is an older one"),
            });
        }
        match way {
            Way::Down => self.check_down(applied, files),
            Way::Up => self.check_up(tool, applied, files),
        }
    }

    fn check_down(&self, applied: &[i64], files: &Files) -> Result<(), String> {
        let mut newest: Vec<i64> = applied.to_vec();
        newest.reverse();
        if !newest.starts_with(&self.versions) {
            let count = self.versions.len().min(newest.len());
            let (newest, versions) = (list(&newest[..count]), list(&self.versions));
            return Err(format!("the newest applied versions are {newest}, not {versions}"));
        }
        match self.versions.iter().find(|version| sql::is_empty(files[version].down.as_deref())) {
            Some(version) => Err(format!("version {version} has no down: only its ledger row would go")),
            None => Ok(()),
        }
    }

    fn check_up(&self, tool: &Tool, applied: &[i64], files: &Files) -> Result<(), String> {
        let pending = pending(applied, files);
        let next = &pending[..self.versions.len().min(pending.len())];
        if next != self.versions {
            return Err(format!("the next pending versions are {}, not {}", list(next), list(&self.versions)));
        }
        if !tool.up.counts() && next.len() < pending.len() {
            let (all, some) = (list(&pending), list(next));
            return Err(format!("the tool's up takes no count and would apply {all}, not only {some}"));
        }
        Ok(())
    }

    /// True when what is applied can be taken back, and all that this would lose can be counted.
    pub fn can_go_back(&self, files: &Files) -> bool {
        self.versions.iter().all(|version| files.get(version).is_some_and(goes_back))
    }
}

/// True when there is a down, and all that it would lose can be counted.
pub fn goes_back(file: &File) -> bool {
    let down = file.down.as_deref();
    let counted = |text: &str| sql::losses(text).iter().all(|loss| loss.count_sql().is_some());
    !sql::is_empty(down) && down.is_some_and(counted)
}

/// Versions with an up that are not applied, ascending.
pub fn pending(applied: &[i64], files: &Files) -> Vec<i64> {
    let pending =
        |(version, file): (&i64, &File)| (file.up.is_some() && !applied.contains(version)).then_some(*version);
    files.iter().filter_map(pending).collect()
}

/// `45, 46`; long lists by their ends.
pub fn list(versions: &[i64]) -> String {
    match versions {
        [] => "empty".into(),
        [first, .., last] if versions.len() > 6 => format!("{first} … {last} ({})", versions.len()),
        few => few.iter().map(i64::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// What is lost, for whoever reads the record: `; loses column shifts.note: 1 row(s)`.
pub fn losses_in_words(lost: &[Lost]) -> String {
    let words = |one: &Lost| match one.rows {
        Some(rows) => format!("{}: {rows} row(s)", one.what),
        None => format!("{}: nobody knows how many rows", one.what),
    };
    let words: Vec<String> = lost.iter().map(words).collect();
    if words.is_empty() { String::new() } else { format!("; loses {}", words.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::{configured, tool_of};
    use super::*;

    #[test]
    fn what_is_lost_is_in_the_words_of_the_change() {
        assert_eq!(losses_in_words(&[]), "");
        let lost = |what: &str, rows| Lost { version: 47, what: what.into(), rows };
        let both = [lost("column shifts.note", Some(3)), lost("table notes", None)];
        assert_eq!(
            losses_in_words(&both),
            "; loses column shifts.note: 3 row(s), table notes: nobody knows how many rows"
        );
    }

    fn files(known: &[i64]) -> Files {
        let file = File { name: "x".into(), up: Some("CREATE TABLE t()".into()), down: Some("DROP TABLE t".into()) };
        known.iter().map(|version| (*version, file.clone())).collect()
    }

    fn plan(versions: &[i64], ledger: &[i64]) -> Plan {
        let (versions, ledger) = (versions.to_vec(), ledger.to_vec());
        Plan { versions, ledger, image_id: "sha256:0".into(), loses: Vec::new(), within_s: 600, partly: false }
    }

    #[test]
    fn a_plan_that_takes_the_newest_known_versions_is_good() {
        let (tool, known) = (tool_of("vrcshift"), files(&[45, 46, 47, 48]));
        assert_eq!(plan(&[47, 46], &[45, 46, 47]).check(Way::Down, &tool, &[45, 46, 47], &known), Ok(()));
        assert_eq!(plan(&[47, 46], &[45, 46, 47]).wanted(Way::Down), [45]);
        assert_eq!(plan(&[48], &[45, 46, 47]).check(Way::Up, &tool, &[45, 46, 47], &known), Ok(()));
        assert_eq!(plan(&[46], &[45, 47]).wanted(Way::Up), [45, 46, 47]);
    }

    #[test]
    fn facts_that_deny_a_down_are_named() {
        let (tool, known) = (tool_of("vrcshift"), files(&[45, 46, 47]));
        for (plan, applied, files, why) in [
            (plan(&[], &[45]), &[45][..], &known, "a count of 0 means all"),
            (plan(&[47], &[45, 46, 47]), &[45, 46], &known, "45, 46 now"),
            (plan(&[46], &[45, 46, 47]), &[45, 46, 47], &known, "newest applied versions are 47"),
            (plan(&[47], &[45, 46, 47]), &[45, 46, 47], &files(&[45, 46]), "does not know version 47"),
            (plan(&[47], &[45, 46, 47]), &[45, 46, 47], &files(&[46, 47]), "does not know version 45"),
            (plan(&[47], &[45, 46, 47]), &[45, 46, 47], &files(&[45]), "version 46 (of 46, 47)"),
        ] {
            let error = plan.check(Way::Down, &tool, applied, files).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn facts_that_deny_an_up_are_named() {
        let (counts, all) = (tool_of("vrcshift"), tool_of("dbmate"));
        for (tool, plan, applied, known, why) in [
            (&counts, plan(&[], &[]), &[][..], &[1][..], "a count of 0 means all"),
            (&counts, plan(&[46], &[45]), &[44], &[44, 45, 46], "is 44 now"),
            (&counts, plan(&[47], &[45]), &[45], &[45, 46, 47], "next pending versions are 46, not 47"),
            (&counts, plan(&[47, 46], &[45]), &[45], &[45, 46, 47], "46, 47, not 47, 46"),
            (&counts, plan(&[46], &[45]), &[45], &[45], "next pending versions are empty, not 46"),
            (&counts, plan(&[46], &[45]), &[45], &[46], "does not know version 45, which is applied"),
            (&all, plan(&[46], &[45]), &[45], &[45, 46, 47], "would apply 46, 47, not only 46"),
        ] {
            let error = plan.check(Way::Up, tool, applied, &files(known)).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(plan(&[46], &[45]).check(Way::Up, &counts, &[45], &files(&[45, 46, 47])), Ok(()));
        assert_eq!(plan(&[46], &[45]).check(Way::Up, &all, &[45], &files(&[45, 46])), Ok(()));
    }

    #[test]
    fn a_missing_or_empty_down_is_refused() {
        let dbmate = |text: &str| {
            let found = [("47_y.sql".to_string(), text.as_bytes().to_vec())];
            super::super::files::parse(&tool_of("dbmate"), &found).expect("good").files[&47].down.clone()
        };
        let downs = [None, Some(""), Some("-- nothing to do\n"), Some("/* x */ ;")].map(|down| down.map(String::from));
        let sections = ["-- migrate:up\nSELECT 1;\n-- migrate:down\n", "-- migrate:up\nSELECT 1;\n"].map(dbmate);
        for down in downs.into_iter().chain(sections) {
            let mut known = files(&[45, 46]);
            known.insert(47, File { name: "y".into(), up: None, down });
            let tool = tool_of("vrcshift");
            let error = plan(&[47], &[45, 46, 47]).check(Way::Down, &tool, &[45, 46, 47], &known).expect_err("no down");
            assert!(error.contains("version 47 has no down"), "{error}");
        }
    }

    #[test]
    fn what_goes_up_goes_back_only_with_downs_whose_losses_can_be_counted() {
        let with = |down: Option<&str>| {
            let mut known = files(&[1]);
            known.insert(2, File { down: down.map(String::from), ..File::default() });
            plan(&[1, 2], &[]).can_go_back(&known)
        };
        assert!(with(Some("DROP TABLE u")) && with(Some("ALTER TABLE t DROP COLUMN c")));
        assert!(!with(None) && !with(Some("-- later")) && !with(Some("DELETE FROM t")));
    }

    #[test]
    fn what_an_up_that_failed_half_way_applied_is_what_is_taken_back() {
        let all = Plan { partly: true, ..plan(&[48, 47], &[45, 46, 47, 48]) };
        let some = all.clone().narrowed(&[45, 46, 47]);
        assert_eq!((&some.versions[..], &some.ledger[..]), (&[47][..], &[45, 46, 47][..]));
        let (tool, known) = (tool_of("vrcshift"), files(&[45, 46, 47, 48]));
        assert_eq!(some.check(Way::Down, &tool, &[45, 46, 47], &known), Ok(()));
        assert_eq!(all.clone().narrowed(&[45, 46, 47, 48]).versions, [48, 47]);
        assert!(all.narrowed(&[45, 47]).check(Way::Down, &tool, &[45, 47], &known).is_err(), "46 was not part of it");
        let whole = plan(&[48, 47], &[45, 46, 47, 48]).narrowed(&[45, 46, 47]);
        assert!(whole.check(Way::Down, &tool, &[45, 46, 47], &known).is_err(), "no plan is narrowed unasked");
    }

    #[test]
    fn a_plan_with_a_count_in_place_of_versions_is_refused_in_words() {
        for text in [r#"{"steps": 0}"#, r#"{"versions": [], "ledger": [], "image_id": "x", "steps": 1}"#, "1"] {
            let error = serde_json::from_str::<Plan>(text).expect_err("refused").to_string();
            assert!(error.contains("steps") || error.contains("versions") || error.contains("struct"), "{error}");
        }
    }

    /// Numbers after one another from a seed.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % limit
        }

        fn versions(&mut self) -> Vec<i64> {
            (0..self.below(5)).map(|_| self.below(9) as i64 - 1).collect()
        }
    }

    #[test]
    fn no_plan_makes_words_with_a_count_below_one() {
        let own = configured(
            "preset = \"command\", up = [\"m\", \"up\", \"--n={n}\"], down = [\"m\", \"{n}\", \"-{n}x\"], \
             ledger = { table = \"t\" }",
        );
        let tools: Vec<Tool> =
            ["vrcshift", "golang-migrate", "dbmate"].map(tool_of).into_iter().chain([own.tool]).collect();
        let mut dice = Dice(4711);
        let (mut made, mut none) = (0, 0);
        for _ in 0..20_000 {
            let plan = plan(&dice.versions(), &dice.versions());
            let tool = &tools[dice.below(4) as usize];
            for way in [Way::Up, Way::Down] {
                let Ok(words) = plan.words(way, tool, "/m") else {
                    assert!(plan.versions.is_empty());
                    none += 1;
                    continue;
                };
                let template = if way == Way::Up { &tool.up } else { &tool.down };
                let marked = template.of(NonZeroUsize::MAX, "/m");
                let count = plan.versions.len();
                for (word, marked) in words.iter().zip(&marked) {
                    assert_eq!(*word, marked.replace(&usize::MAX.to_string(), &count.to_string()));
                }
                assert!(count >= 1);
                made += 1;
            }
        }
        assert!(made > 10_000 && none > 1_000, "{made} {none}");
    }
}
