//! Going back to an earlier release: what the plan says, what is asked for, what is true afterwards.

use super::lab::{COMPOSE, Lab, Release};
use super::opsh::{Opsh, ROLLBACK, Ran};
use serde_json::{Value, json};

/// Agreement to everything that a rollback from the bad release needs.
pub const AGREED: [&str; 3] = ["--yes", "--allow", "migrate.down"];

/// Runs the rollback script with `flags` before it.
pub fn roll_back(opsh: &Opsh<'_>, flags: &[&str], tag: &str) -> Ran {
    opsh.run(&[flags, &[ROLLBACK, tag]].concat())
}

/// Fails unless the server serves `release` from an image that is labelled with its commit, with its own schema and an
/// untouched database.
#[track_caller]
pub fn assert_serves(lab: &Lab, release: &Release, before: &Value) -> Value {
    let now = lab.state();
    let facts = json!({
        "head": now["head"], "ledger": now["ledger"], "api": now["api_status"], "dirty": now["dirty"],
        "revision": now["image_labels"]["org.opencontainers.image.revision"], "db": now["containers"]["db"],
        "restarts": now["restarts"],
    });
    let wanted = json!({
        "head": release.commit, "ledger": release.ledger, "api": 200, "dirty": false,
        "revision": release.commit, "db": before["containers"]["db"], "restarts": {"backend": 0, "db": 0},
    });
    assert_eq!(facts, wanted);
    now
}

#[test]
fn a_plan_shows_the_rollback_and_changes_nothing() {
    let Some(lab) = Lab::take() else { return };
    let (good, opsh) = (lab.release("GOOD"), Opsh::new(&lab));
    let bad = lab.have("BAD");
    let before = lab.state();
    let ran = roll_back(&opsh, &["--plan"], &good.tag).exits(0);
    let newest = bad.ledger.last().unwrap();
    let lines = [format!("{} = {}", good.tag, &good.commit[..12]), format!("down {newest}"), "FAILING".into()];
    let ran = ran.prints(&lines.each_ref().map(String::as_str));
    for verb in super::killed::CHANGES {
        assert!(ran.err.contains(&format!("· {verb}")), "{verb} is not in the plan:\n{}", ran.err);
    }
    assert_eq!(lab.state(), before);
    assert!(opsh.changes("last").is_empty());
    let images = lab.exec(&["docker", "images", "-q", "--filter", "label=opsh.stack"]);
    assert_eq!(images, "", "a plan builds nothing");
}

#[test]
fn without_a_terminal_a_rollback_that_loses_data_needs_the_verb_named() {
    let Some(lab) = Lab::take() else { return };
    let (good, opsh) = (lab.release("GOOD"), Opsh::new(&lab));
    lab.have("BAD");
    let before = lab.state();
    for flags in [&["--yes"][..], &[], &["--allow", "migrate.down"]] {
        let missing = if flags == ["--yes"] { "--allow migrate.down" } else { "--yes" };
        let ran = roll_back(&opsh, flags, &good.tag).exits(3).explains(&[missing, "nothing changed"]);
        assert!(!ran.err.contains('→'), "nothing was begun:\n{}", ran.err);
        assert!(opsh.changes("last").is_empty());
    }
    assert_eq!(lab.state(), before);
}

#[test]
fn a_rollback_from_a_failing_release_serves_the_earlier_one_with_all_rows() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("BAD");
    let (good, opsh) = (lab.release("GOOD"), Opsh::new(&lab));
    let (old, new) = (lab.setting("COLUMN"), lab.setting("COLUMN_NEW"));
    lab.sql(&format!("INSERT INTO shifts ({new}) VALUES ('told while it failed')"));
    let before = lab.state();

    let ran = roll_back(&opsh, &AGREED, &good.tag).exits(0).prints(&[&format!("prod serves {}", good.tag)]);
    let begun = ran.err.lines().filter(|line| line.starts_with("→ ")).count();
    assert_eq!(begun, super::killed::CHANGES.len(), "{}", ran.err);
    for part in ["prod before and after:", "500 in ", "→ 200 in ", "backend image ", "disk free "] {
        assert!(ran.err.contains(part), "{part}:\n{}", ran.err);
    }
    let now = assert_serves(&lab, &good, &before);
    assert_ne!(now["containers"]["backend"], before["containers"]["backend"]);
    let shifts = lab.exec(&["curl", "-sf", "http://127.0.0.1:8080/api/v1/shifts"]);
    assert!(shifts.contains("told while it failed"), "{shifts}");
    assert_eq!(lab.sql(&format!("SELECT count(*) FROM shifts WHERE {old} = 'told while it failed'")).trim(), "1");

    let left = "docker ps -aq --filter label=opsh.once; \
                ls -A /root/.local/state/opsh/runs /opt/vrcshift/.git/opsh 2>/dev/null | grep -v '^/\\|^$'";
    assert_eq!(lab.exec(&["sh", "-c", &format!("{left}; true")]), "", "nothing of opsh is left on the server");
    assert_eq!(lab.exec(&["git", "-C", "/opt/vrcshift", "worktree", "list"]).lines().count(), 1);
    for secret in lab.secrets() {
        let found = lab.files_that_hold(&secret.value);
        assert_eq!(found.replace(&secret.value, "•••"), "", "{} is in files on the server", secret.name);
    }

    let again = roll_back(&opsh, &AGREED, &good.tag).exits(0).prints(&["kept image", "it stays"]);
    assert!(!again.err.contains("compose.build") && !again.err.contains("migrate.down"), "{}", again.err);
    assert_eq!(lab.state(), now, "the second run found everything done");
    opsh.run(&["journal", "verify"]).exits(0).prints(&["the chain is whole"]);
}

#[test]
fn a_rollback_over_migrations_that_only_add_leaves_the_schema_alone() {
    let Some(lab) = Lab::take() else { return };
    let added = lab.bring("ADDITIVE");
    let (good, opsh) = (lab.release("GOOD"), Opsh::new(&lab));
    lab.sql("UPDATE shifts SET note = 'kept' WHERE id = 1");
    let before = lab.state();
    roll_back(&opsh, &["--yes"], &good.tag).exits(0).prints(&["only add: the schema stays"]);
    assert_serves(&lab, &Release { ledger: added.ledger, ..good }, &before);
    assert_eq!(lab.sql("SELECT note FROM shifts WHERE id = 1").trim(), "kept");
}

#[test]
fn going_back_twice_judges_a_migration_that_the_running_image_does_not_know_by_the_repository() {
    let Some(lab) = Lab::take() else { return };
    let added = lab.bring("ADDITIVE");
    let (good, old, opsh) = (lab.release("GOOD"), lab.release("OLD"), Opsh::new(&lab));
    let before = lab.state();
    roll_back(&opsh, &["--yes"], &good.tag).exits(0);
    roll_back(&opsh, &["--yes"], &old.tag).exits(0).prints(&["2 newer migration(s) only add: the schema stays"]);
    assert_serves(&lab, &Release { ledger: added.ledger, ..old }, &before);
}

#[test]
fn values_that_would_be_lost_are_counted_and_need_a_flag_of_their_own() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("BAD");
    let (good, opsh) = (lab.release("GOOD"), Opsh::new(&lab));
    lab.sql("UPDATE shifts SET note = 'precious' WHERE id < 3");
    let before = lab.state();
    let ran = roll_back(&opsh, &AGREED, &good.tag).exits(3).explains(&["--data-loss-ok", "nothing changed"]);
    ran.prints(&["LOSES", "shifts.note: 2 row(s)"]);
    assert_eq!(lab.state(), before);
    opsh.run(&[&AGREED[..], &[ROLLBACK, &good.tag, "--data-loss-ok"]].concat()).exits(0);
    assert_serves(&lab, &good, &before);
}

#[test]
fn a_rollback_needs_the_programs_that_the_stack_expects_before_it_changes_what_runs() {
    let Some(lab) = Lab::take() else { return };
    let bad = lab.bring("BAD");
    let old = lab.release("OLD");
    let opsh =
        Opsh::configured(&lab, |config| config.replace("\"/app/migrate\"]", "\"/app/migrate\", \"/app/batch\"]"));
    let before = lab.state();
    // Roles would be lost, too: the column is not empty.
    opsh.run(&[&AGREED[..], &[ROLLBACK, &old.tag, "--data-loss-ok"]].concat()).exits(1).explains(&["/app/batch"]);
    assert_eq!(lab.state(), before, "{} still runs", bad.tag);
    assert_eq!(opsh.changes("last"), ["docker.keep", "compose.build"], "which take nothing from anybody");
}

#[test]
fn after_the_pages_own_rollback_the_bad_image_still_runs_and_opsh_puts_it_right() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("BAD");
    let (good, opsh) = (lab.release("GOOD"), Opsh::new(&lab));
    let image = lab.state()["images"]["backend"].clone();
    lab.sh(&format!("cd /opt/vrcshift; exec 2>&1; {COMPOSE} down; git checkout -q {}; {COMPOSE} up -d", good.tag));
    lab.until("the API answers", 30, "curl -s -o /dev/null http://127.0.0.1:8080/health");
    let before = lab.state();
    assert_eq!(before["head"], good.commit.as_str());
    assert_eq!(before["images"]["backend"], image, "the page's rollback starts the same image again");
    assert_eq!((&before["health_status"], &before["api_status"]), (&json!(200), &json!(500)));

    roll_back(&opsh, &AGREED, &good.tag).exits(0);
    assert_serves(&lab, &good, &before);
}

#[test]
fn an_image_that_does_not_know_the_newest_migrations_is_not_trusted_to_take_them_back() {
    let Some(lab) = Lab::take() else { return };
    let bad = lab.bring("BAD");
    let (good, opsh) = (lab.release("GOOD"), Opsh::new(&lab));
    lab.sh(&format!(
        "cd /opt/vrcshift; exec 2>&1; git checkout -q {}; {COMPOSE} build -q backend; {COMPOSE} up -d",
        good.tag
    ));
    lab.until("the API answers", 30, "curl -s -o /dev/null http://127.0.0.1:8080/health");
    let before = lab.state();
    assert_eq!(before["ledger"], json!(bad.ledger));
    let unknown = format!("{}, {}", bad.ledger[4], bad.ledger[5]);
    roll_back(&opsh, &AGREED, &good.tag).exits(1).explains(&["does not know the applied migrations", &unknown]);
    assert_eq!(lab.state(), before);
    assert!(opsh.changes("last").is_empty());

    // The verb itself refuses too, whatever script calls it.
    let image = &before["images"]["backend"];
    let plan = json!({ "versions": [bad.ledger[5], bad.ledger[4]], "ledger": bad.ledger, "image_id": image });
    let code = format!("stack(\"prod\").migrate_down(#{plan})");
    opsh.run(&[&AGREED[..], &["-e", &code]].concat()).exits(1).explains(&[&format!("version {}", bad.ledger[4])]);
    assert_eq!(lab.state(), before);
}

#[test]
fn after_the_pages_down_each_error_says_what_brings_the_next_service_back() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("BAD");
    let (good, opsh) = (lab.release("GOOD"), Opsh::new(&lab));
    lab.sh(&format!("cd /opt/vrcshift; exec 2>&1; {COMPOSE} down"));
    for service in ["backend", "db"] {
        let ran = if service == "db" {
            opsh.run(&["-e", "stack(\"prod\").ledger()"])
        } else {
            roll_back(&opsh, &AGREED, &good.tag)
        };
        ran.exits(1).explains(&[&format!("recreate(\"{service}\")")]);
    }
    // Nothing runs that a change could interrupt: agreement to changes is enough, also for the database.
    opsh.run(&["--yes", "-e", "stack(\"prod\").recreate(\"db\"); stack(\"prod\").recreate(\"backend\")"]).exits(0);
    lab.until("the database answers", 30, "docker exec vrc-shift-db pg_isready -q -U vrcshift -d vrcshift");
    let before = lab.state();
    roll_back(&opsh, &AGREED, &good.tag).exits(0);
    assert_serves(&lab, &good, &before);
}
