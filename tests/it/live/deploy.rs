//! Going to a later release: what goes well, and releases that are broken in one way each. Whatever is wrong with one, the
//! release before it goes on serving, and the journal knows of every change that was begun.

use super::lab::{Afterwards, Lab, Release};
use super::opsh::{Opsh, Ran};
use super::rollback::{AGREED, assert_serves};
use serde_json::{Value, json};

const DEPLOY: &str = "scripts/deploy.rhai";

pub fn deploy(opsh: &Opsh<'_>, flags: &[&str], tag: &str) -> Ran {
    opsh.run(&[flags, &[DEPLOY, tag]].concat())
}

/// A release that is `base` changed by a script in its tree: tagged at origin, and known on the server as after a fetch.
/// It is gone when the result is dropped, with the tables that it may have made and its rows in the ledger.
pub fn made<'a>(lab: &'a Lab, base: &Release, tag: &str, change: &str) -> Afterwards<'a> {
    let newest = base.ledger.last().unwrap();
    let gone = lab.afterwards(&format!(
        "for r in /srv/git/vrcshift.git /opt/vrcshift; do git -C $r tag -d {tag}; done; rm -rf /tmp/made; \
         docker exec vrc-shift-db psql -Xq -U vrcshift -c 'DROP TABLE IF EXISTS half' \
         -c 'DELETE FROM schema_migrations WHERE version > {newest}'"
    ));
    lab.sh(&format!(
        "rm -rf /tmp/made; git clone -q /srv/git/vrcshift.git /tmp/made 2>/dev/null; cd /tmp/made; git checkout -q {}\n\
         echo {tag} >backend/VERSION\n{change}\ngit add -A\n\
         git -c user.name=x -c user.email=x@example.invalid commit -q -m {tag}\n\
         git tag {tag}; git push -q origin {tag}; git -C /opt/vrcshift fetch -q origin tag {tag}",
        base.commit
    ));
    gone
}

/// Lines of a script that adds a migration.
pub fn migration(version: i64, up: &str, down: &str) -> String {
    let file = |side: &str, text: &str| format!("printf '%s\\n' '{text}' >backend/migrations/{version}_x.{side}.sql\n");
    [file("up", up), file("down", down)].concat()
}

/// Tags in the stack's history, newest first.
fn history(opsh: &Opsh<'_>) -> Value {
    opsh.eval("stack(\"prod\").releases().filter(|one| one.at != ()).map(|one| one.tag)")
}

/// The last run of the script.
fn last_run(opsh: &Opsh<'_>) -> String {
    let runs = opsh.run(&["runs", "--json"]).exits(0).out;
    let mut runs = runs.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let run = runs.find(|one| one.to_string().contains(DEPLOY)).expect("a run of the script");
    run["run"].as_str().unwrap().into()
}

/// Fails unless each change that the last run of the script began has an end in the journal.
#[track_caller]
fn assert_each_change_has_its_end(opsh: &Opsh<'_>) {
    let journal = opsh.journal(&last_run(opsh));
    let ids = |kind: &str| -> Vec<String> {
        let of_kind = journal.iter().filter(|record| record["kind"] == kind);
        of_kind.map(|record| record["effect"].as_str().unwrap().to_string()).collect()
    };
    let (mut begun, mut ended) = (ids("effect.begin"), ids("effect.end"));
    begun.sort();
    ended.sort();
    assert!(!begun.is_empty() && begun == ended, "{begun:?}\n{ended:?}");
    opsh.run(&["journal", "verify"]).exits(0);
}

#[test]
fn a_deploy_is_planned_without_a_change_done_once_and_found_done() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("GOOD");
    let (added, opsh, before) = (lab.release("ADDITIVE"), Opsh::new(&lab), lab.state());
    let newest = added.ledger.last().unwrap();
    let plan = deploy(&opsh, &["--plan"], &added.tag).exits(0);
    plan.prints(&[&format!("Deploy {} to prod", added.tag), &format!("up {newest}"), "a plan: nothing was changed"]);
    assert!(opsh.changes("last").is_empty());
    assert_eq!(lab.state(), before);
    assert_eq!(history(&opsh), json!([]));

    let ran = deploy(&opsh, &["--yes"], &added.tag).exits(0).prints(&[&format!("prod serves {}", added.tag)]);
    assert!(ran.err.contains("→ migrate.up"), "{}", ran.err);
    let now = assert_serves(&lab, &added, &before);
    assert_eq!(history(&opsh), json!([added.tag]));
    assert_each_change_has_its_end(&opsh);

    let again = deploy(&opsh, &["--yes"], &added.tag).exits(0).prints(&["kept image", "it stays"]);
    assert!(!again.err.contains("compose.build") && !again.err.contains("migrate.up"), "{}", again.err);
    assert_eq!(lab.state(), now, "the second run found everything done");
    assert_eq!(history(&opsh), json!([added.tag]));
}

#[test]
fn a_migration_that_fails_half_way_leaves_the_server_as_it_was() {
    let Some(lab) = Lab::take() else { return };
    let good = lab.bring("GOOD");
    let (opsh, version) = (Opsh::new(&lab), good.ledger.last().unwrap() + 50);
    let up = "CREATE TABLE half (id int); INSERT INTO shifts (no_such_column) VALUES (1);";
    let _made = made(&lab, &good, "half-way", &migration(version, up, "DROP TABLE half;"));
    let before = lab.state();

    let says = format!("migrate.down takes back {version} with its code");
    deploy(&opsh, &["--plan"], "half-way").exits(0).prints(&["does more than add", &format!("up {version}"), &says]);
    deploy(&opsh, &["--yes"], "half-way").exits(3).explains(&["--allow migrate.down", "nothing changed"]);

    let says = ["migrations were not applied on prod", "ended with 1", "no_such_column", "as it was before"];
    deploy(&opsh, &AGREED, "half-way").exits(1).explains(&says);
    assert_eq!(lab.state(), before);
    assert_eq!(lab.sql("SELECT to_regclass('half') IS NULL").trim(), "t", "a migration is one transaction");
    assert_eq!(history(&opsh), json!([]));
    assert_each_change_has_its_end(&opsh);
}

#[test]
fn of_two_migrations_of_which_the_second_fails_the_first_is_told_and_taken_back_by_an_undo() {
    let Some(lab) = Lab::take() else { return };
    let good = lab.bring("GOOD");
    let (opsh, first) = (Opsh::new(&lab), good.ledger.last().unwrap() + 50);
    let two = [
        migration(first, "CREATE TABLE half (id int);", "DROP TABLE half;"),
        migration(first + 1, "ALTER TABLE no_such_table ADD COLUMN x int;", "ALTER TABLE no_such_table DROP COLUMN x;"),
    ]
    .concat();
    let _made = made(&lab, &good, "second-fails", &two);
    let before = lab.state();

    let (done, open) = (format!("; applied: {first}"), format!("not applied: {}", first + 1));
    deploy(&opsh, &["--yes"], "second-fails").exits(1).explains(&[&done, &open, "no_such_table"]);
    // What only adds disturbs nobody: it stays, and the release before goes on serving.
    let with_first = [&good.ledger[..], &[first]].concat();
    let now = lab.state();
    assert_eq!(now["ledger"], json!(with_first));
    assert_eq!(Value::Object(without_ledger(&now)), Value::Object(without_ledger(&before)));
    assert_eq!((history(&opsh), &now["api_status"]), (json!([]), &json!(200)));
    assert_each_change_has_its_end(&opsh);

    opsh.run(&["undo", &last_run(&opsh), "--yes", "--allow", "migrate.down"]).exits(0);
    assert_eq!(lab.state(), before);
    assert_eq!(lab.sql("SELECT to_regclass('half') IS NULL").trim(), "t");
}

fn without_ledger(state: &Value) -> serde_json::Map<String, Value> {
    let mut state = state.as_object().unwrap().clone();
    state.remove("ledger");
    state
}

#[test]
fn a_migration_that_old_code_cannot_use_goes_back_when_the_next_one_fails() {
    let Some(lab) = Lab::take() else { return };
    let good = lab.bring("GOOD");
    let (opsh, first) = (Opsh::new(&lab), good.ledger.last().unwrap() + 50);
    let column = lab.setting("COLUMN");
    let rename = |from: &str, to: &str| format!("ALTER TABLE shifts RENAME COLUMN {from} TO {to};");
    let two = [
        migration(first, &rename(column, "elsewhere"), &rename("elsewhere", column)),
        migration(first + 1, "ALTER TABLE no_such_table ADD COLUMN x int;", "ALTER TABLE no_such_table DROP COLUMN x;"),
    ]
    .concat();
    let _made = made(&lab, &good, "second-fails", &two);
    let before = lab.state();
    let (done, open) = (format!("; applied: {first}"), format!("not applied: {}", first + 1));
    let ran = deploy(&opsh, &AGREED, "second-fails").exits(1).explains(&[&done, &open, "undone: migrate.up"]);
    assert!(ran.err.contains("→ migrate.down"), "{}", ran.err);
    assert_eq!(lab.state(), before);
    assert_eq!((history(&opsh), &before["api_status"]), (json!([]), &json!(200)));
    assert_each_change_has_its_end(&opsh);
}

#[test]
fn an_image_without_a_program_that_the_stack_expects_is_not_deployed_nor_its_schema() {
    let Some(lab) = Lab::take() else { return };
    let good = lab.bring("GOOD");
    let opsh =
        Opsh::configured(&lab, |config| config.replace("\"/app/migrate\"]", "\"/app/migrate\", \"/app/batch\"]"));
    let version = good.ledger.last().unwrap() + 50;
    let change = format!(
        "{}sed -i /batch/d backend/Dockerfile",
        migration(version, "CREATE TABLE half (id int);", "DROP TABLE half;")
    );
    let _made = made(&lab, &good, "no-batch", &change);
    let before = lab.state();
    deploy(&opsh, &["--yes"], "no-batch").exits(1).explains(&["/app/batch"]);
    assert_eq!(lab.state(), before);
    assert_eq!(opsh.changes("last"), ["docker.keep", "compose.build"], "which take nothing from anybody");
    assert_eq!(history(&opsh), json!([]));
    assert_each_change_has_its_end(&opsh);
}

#[test]
fn a_release_whose_api_fails_behind_a_green_health_goes_back_by_itself_with_its_schema() {
    let Some(lab) = Lab::take() else { return };
    let good = lab.bring("GOOD");
    let (bad, opsh) = (lab.release("BAD"), Opsh::new(&lab));
    lab.sql(&format!("INSERT INTO shifts ({}) VALUES ('written before')", lab.setting("COLUMN")));
    let before = lab.state();
    deploy(&opsh, &["--yes"], &bad.tag).exits(3).explains(&["--allow migrate.down", "nothing changed"]);
    assert_eq!(lab.state(), before);

    let ran = opsh.run(&[&AGREED[..], &[DEPLOY, &bad.tag, "--healthy-within=10"]].concat()).exits(1);
    let says =
        ["answers 500 instead of 200", "taken back: 4 of 4 effects", "undone: compose.recreate", "undone: migrate.up"];
    ran.explains(&says);
    lab.until("the API serves again", 30, "curl -sf -o /dev/null http://127.0.0.1:8080/api/v1/shifts");
    let now = lab.state();
    for fact in ["head", "dirty", "images", "ledger", "columns", "rows", "api_status", "health_status"] {
        assert_eq!(now[fact], before[fact], "{fact}");
    }
    assert_eq!((&now["api_status"], &now["ledger"]), (&json!(200), &json!(good.ledger)));
    assert_eq!(now["containers"]["db"], before["containers"]["db"]);
    let shifts = lab.exec(&["curl", "-sf", "http://127.0.0.1:8080/api/v1/shifts"]);
    assert!(shifts.contains("written before"), "{shifts}");
    assert_eq!(history(&opsh), json!([]));
    assert_each_change_has_its_end(&opsh);
}
