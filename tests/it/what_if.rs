//! What a rollback and a deploy say when one fact is another one: the recording of a real run with that fact changed. Nothing
//! is done in any of them, since the plan has a problem.

use super::home::{OPSH, Ran};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// A changed answer of a verb, at a place in it; `""` is all of it.
type Fact = (&'static str, &'static str, Value);

/// Facts, and what is said then.
struct Row(Vec<Fact>, &'static str);

fn row(verb: &'static str, at: &'static str, value: Value, says: &'static str) -> Row {
    Row(vec![(verb, at, value)], says)
}

/// Migration 48 of the recorded table, which renames a column; 47 only adds.
const NEWEST: &str = "/5";

fn of_rollback() -> Vec<Row> {
    let newest = |key: &str, value: Value| -> Fact {
        ("migrate.status", Box::leak(format!("{NEWEST}/{key}").into_boxed_str()), value)
    };
    let work = json!([{ "id": "c1", "by": "bob", "at": null, "run": "k3f9" }]);
    let stop = |rows: Value| json!([{ "version": 48, "rows": rows, "what": "NOT NULL" }]);
    vec![
        Row(
            vec![("git.resolve", "/moved", json!(true)), ("git.resolve", "/remote", json!("0".repeat(40)))],
            "tag v1.8.0 was moved: origin has 000000000000, the server b8fdfcc47d2a",
        ),
        row("git.resolve", "/remote_error", json!("no route"), "origin could not be asked about v1.8.0: no route"),
        row("git.resolve", "/remote", Value::Null, "origin does not have the tag v1.8.0"),
        row("git.has_file", "", json!(false), "v1.8.0 has no docker-compose.prod.yml"),
        row("git.status", "/operation", json!("merge"), "a git merge is in progress in the checkout"),
        row("git.status", "/only_here", json!(["a"]), "1 commit(s) are on the server and nowhere else"),
        row("migrate.running", "", work, "migrations are being taken back: running in c1, started by bob"),
        row("release.told", "/bad", json!("it crashes"), "v1.8.0 is marked bad: it crashes"),
        row("compose.env_needs", "/1/set", json!(false), "v1.8.0 needs JWT_SECRET, which the env file does not have"),
        Row(
            vec![("compose.env_needs", "/0/set", json!(false)), ("compose.env_needs", "/0/fallback", json!(false))],
            "BACKEND_BIND is not in the env file: v1.8.0 gets an empty value",
        ),
        row("backup.plan", "/problems", json!(["there is no room"]), "\n       there is no room"),
        row(
            "freeze.look",
            "",
            json!({ "by": null, "read_only": true, "left_s": 0 }),
            "the database is read-only, and not by opsh",
        ),
        row(
            "migrate.state",
            "/dirty",
            json!({ "version": 48, "reading": "failed up" }),
            "the ledger is marked dirty at 48: failed up",
        ),
        row("migrate.state", "/holder", json!({ "pid": 7 }), "somebody migrates: pid 7 of the database"),
        row("migrate.ledger", "", json!([43, 44, 45, 47, 48]), "the release needs migrations that are not applied: 46"),
        row("migrate.ledger", "", json!([43, 44, 45, 46]), "schema    as the release needs it; it stays"),
        Row(vec![newest("additive", json!(true))], "schema    2 newer migration(s) only add: the schema stays"),
        Row(vec![newest("state", json!("UNKNOWN HERE"))], "the running image does not know the applied migrations 48"),
        Row(vec![newest("state", json!("UNKNOWN HERE"))], "schema    unknown to the running image"),
        Row(vec![newest("state", json!("NO DOWN"))], "migration 48 has no down: only its ledger row would go"),
        Row(vec![newest("warns", json!(["it locks the table"]))], "note      48: it locks the table"),
        row(
            "migrate.stops",
            "",
            stop(json!(3)),
            "48: its down may fail on the rows that are there, and 3 row(s) do not fit: NOT NULL",
        ),
        row(
            "migrate.stops",
            "",
            stop(Value::Null),
            "48: its down may fail on the rows that are there, and how many do not fit was not counted: NOT NULL",
        ),
    ]
}

fn of_deploy() -> Vec<Row> {
    let brings = |back: bool| json!([{ "version": 47, "name": "x", "additive": false, "does": "DROP x", "loses": [], "back": back, "digest": "d" }]);
    let known = |version: i64, additive: bool, state: &str| json!([{ "version": version, "name": "x", "additive": additive, "does": "x", "drift": "the table is there", "digest": "d", "state": state, "warns": [] }]);
    let ahead = |additive: bool| -> Vec<Fact> {
        vec![
            ("migrate.ledger", "", json!([43, 44, 45, 46, 47, 48])),
            ("migrate.status", "", known(48, additive, "APPLIED")),
        ]
    };
    vec![
        row(
            "migrate.files_at",
            "",
            brings(true),
            "47 does more than add (DROP x): the code that serves may fail until the release does",
        ),
        row(
            "migrate.files_at",
            "",
            brings(true),
            "should the release not serve, migrate.down takes back 47 with its code",
        ),
        row(
            "migrate.files_at",
            "",
            brings(false),
            "there is no way back over 47: should the release not serve, nothing takes the schema back",
        ),
        Row(
            vec![("migrate.files_at", "", brings(true)), ("http.probe", "/0/ok", json!(false))],
            "what serves now is failing already: should the release not serve either, nothing goes back by itself",
        ),
        row("migrate.state", "/holder", json!({ "pid": 7 }), "somebody migrates: pid 7 of the database"),
        row(
            "migrate.ledger",
            "",
            json!([43, 44, 45, 46, 48]),
            "the schema has 48, which the release does not know: its image cannot apply 47 over them",
        ),
        row(
            "migrate.status",
            "",
            known(47, true, "DRIFT"),
            "the ledger does not have 47, and the schema does: the table is there; its up would fail",
        ),
        Row(
            ahead(false),
            "the release is older than the schema: it does not know 48, and 48 does not only add; roll back instead",
        ),
        Row(ahead(true), "the release does not know the applied migrations 48, which only add"),
        Row(ahead(true), "as the release needs it; it stays"),
    ]
}

/// The recording with these facts in it.
fn changed(recording: &str, facts: &[Fact]) -> String {
    let change = |line: &str| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        let of = record["body"]["verb"].clone();
        for (verb, at, value) in facts.iter().filter(|(verb, ..)| of == *verb) {
            let place = record["body"]["value"].pointer_mut(at).unwrap_or_else(|| panic!("{verb} has no {at}"));
            *place = value.clone();
        }
        record.to_string() + "\n"
    };
    recording.lines().map(change).collect()
}

/// What is not said although it should be, of the scripts in this repository or a copy of it.
pub fn unsaid(root: &Path) -> Vec<String> {
    let mut unsaid = Vec::new();
    let merging = || ("git.status", "/operation", json!("rebase"));
    let scripts = [
        ("rollback-over-a-changed-checkout", &["scripts/rollback.rhai", "v1.8.0"], of_rollback()),
        ("deploy-of-a-release", &["scripts/deploy.rhai", "v1.8.1"], of_deploy()),
    ];
    for (case, words, rows) in scripts {
        let folder = root.join("tests/cases").join(case);
        let recording = std::fs::read_to_string(folder.join("recording.jsonl")).unwrap();
        let home = tempfile::tempdir().unwrap();
        let ends = |facts: &[Fact]| {
            let file = home.path().join("run.jsonl");
            std::fs::write(&file, changed(&recording, facts)).unwrap();
            let mut command = Command::new(OPSH);
            command.current_dir(root).env("XDG_STATE_HOME", home.path()).arg("--config").arg(folder.join("opsh.toml"));
            let ran = Ran::of(command.arg("--replay").arg(file).args(words).output().unwrap());
            (ran.code, format!("{}{}", ran.out, ran.err))
        };
        // A problem that is no fact's, so that nothing is ever done.
        let (_, before) = ends(&[merging()]);
        for Row(facts, says) in rows {
            let mut all = facts;
            if !all.iter().any(|(verb, at, _)| *verb == "git.status" && *at == "/operation") {
                all.push(merging());
            }
            let (code, said) = ends(&all);
            if code != Some(1) || !said.contains(says) || before.contains(says) {
                unsaid.push(format!("{case}: {says:?}, exit {code:?}:\n{said}"));
            }
        }
    }
    unsaid
}

#[test]
fn every_fact_that_forbids_a_plan_or_is_worth_a_note_is_said() {
    let unsaid = unsaid(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(unsaid.is_empty(), "{}", unsaid.join("\n"));
}
