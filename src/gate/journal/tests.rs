//! The journal's promises: whole, append-only, one end for each effect, nothing secret.

use super::*;

fn journal() -> (tempfile::TempDir, Journal) {
    let dir = tempfile::tempdir().expect("a folder");
    let journal = Journal::open(dir.path()).expect("a journal");
    (dir, journal)
}

fn add(journal: &Journal, kind: &'static str, effect: Option<&str>, body: Value) {
    journal
        .append(&Record { kind, run: "r1", effect, target: Some("prod"), class: Some(Class::Change), body })
        .expect("written");
}

fn three(journal: &Journal) {
    add(journal, "run.start", None, json!({"what": "x", "mode": "apply"}));
    add(journal, "effect.begin", Some("r1.1"), json!({"verb": "docker.restart"}));
    add(journal, "effect.end", Some("r1.1"), json!({"outcome": "ok"}));
}

#[test]
fn a_whole_journal_verifies() {
    let (_dir, journal) = journal();
    three(&journal);
    assert_eq!(journal.verify().expect("whole"), Verified { records: 3, effects: 1, open: 0 });
}

#[test]
fn the_database_refuses_edits() {
    let (_dir, journal) = journal();
    three(&journal);
    let connection = journal.connection.borrow();
    for sql in ["UPDATE journal SET body = '{}'", "DELETE FROM journal WHERE seq = 3"] {
        assert!(connection.execute(sql, []).is_err(), "{sql}");
    }
}

#[test]
fn verify_names_the_first_record_that_was_edited_or_removed() {
    for (sql, bad) in [
        ("UPDATE journal SET body = '{\"verb\":\"x\"}' WHERE seq = 2", "record 2"),
        ("UPDATE journal SET actor = 'mallory' WHERE seq = 1", "record 1"),
        ("UPDATE journal SET at_us = at_us + 1 WHERE seq = 3", "record 3"),
        ("UPDATE journal SET target = NULL WHERE seq = 2", "record 2"),
        ("DELETE FROM journal WHERE seq = 1", "record 2"),
    ] {
        let (_dir, journal) = journal();
        three(&journal);
        journal
            .connection
            .borrow()
            .execute_batch(&format!("DROP TRIGGER journal_no_update; DROP TRIGGER journal_no_delete; {sql}"))
            .expect("an attacker with the file can do this");
        let error = journal.verify().expect_err(sql);
        assert!(error.what.contains(bad), "{sql}: {}", error.what);
    }
}

#[test]
fn a_record_that_was_forged_with_a_fitting_hash_is_found_by_the_next_one() {
    let (_dir, journal) = journal();
    three(&journal);
    let mut forged = journal.read(SELECT, params![], entry).expect("read").remove(1);
    forged.body_text = forged.body_text.replace("restart", "inspect");
    forged.hash = forged.digest();
    let connection = journal.connection.borrow();
    connection.execute_batch("DROP TRIGGER journal_no_update").expect("dropped");
    connection
        .execute("UPDATE journal SET body = ?1, hash = ?2 WHERE seq = 2", params![forged.body_text, forged.hash])
        .expect("forged");
    drop(connection);
    let error = journal.verify().expect_err("broken");
    assert!(error.what.contains("record 3") && error.why.contains("does not follow"), "{error}");
}

#[test]
fn an_effect_of_a_dead_process_ends_unknown_once() {
    let (dir, journal) = journal();
    add(&journal, "run.start", None, json!({"what": "x", "mode": "apply"}));
    add(&journal, "effect.begin", Some("r1.1"), json!({"verb": "docker.restart"}));
    assert!(journal.unsettled().expect("read").is_empty(), "this process lives");
    journal.connection.borrow().execute("UPDATE open SET start = 1", []).expect("another process");
    drop(journal);
    for _ in 0..2 {
        let again = Journal::open(dir.path()).expect("opens");
        assert_eq!(again.unsettled().expect("read").len(), 1);
        assert_eq!(again.verify().expect("whole"), Verified { records: 4, effects: 1, open: 0 });
        assert_eq!(again.runs(9).expect("read")[0].outcome, "killed");
    }
    let again = Journal::open(dir.path()).expect("opens");
    assert_eq!(again.settle("r1", "it runs the old image").expect("settled"), 1);
    assert!(again.unsettled().expect("read").is_empty());
    assert_eq!(again.verify().expect("whole").records, 5);
}

#[test]
fn an_end_that_comes_after_another_one_is_late() {
    let (_dir, journal) = journal();
    three(&journal);
    add(&journal, "effect.end", Some("r1.1"), json!({"outcome": "ok"}));
    let entries = journal.run("r1").expect("read");
    assert_eq!(entries.last().map(|entry| entry.kind.as_str()), Some("effect.late"));
    assert_eq!(journal.verify().expect("whole").effects, 1);
}

#[test]
fn secrets_do_not_reach_the_file() {
    let (dir, journal) = journal();
    let secret = redact::Secret::new("canary-0f9a8b7c");
    add(&journal, "note", None, json!({"text": format!("the password is {}", secret.expose())}));
    drop(journal);
    for file in std::fs::read_dir(dir.path()).expect("folder") {
        let bytes = std::fs::read(file.expect("entry").path()).expect("file");
        assert!(!bytes.windows(15).any(|part| part == b"canary-0f9a8b7c"));
    }
}

#[test]
fn a_large_value_keeps_beginning_and_end_length_and_digest() {
    let (_dir, journal) = journal();
    add(&journal, "note", None, json!({"verb": "v", "inverse": "i", "value": ["é".repeat(LARGEST_BODY), "end"]}));
    let body = &journal.read(SELECT, params![], entry).expect("read")[0].body;
    assert_eq!((&body["verb"], &body["inverse"]), (&json!("v"), &json!("i")));
    let cut = &body["value"]["cut"];
    assert!(cut["bytes"].as_u64() > Some(LARGEST_BODY as u64));
    assert!(cut["tail"].as_str().is_some_and(|tail| tail.ends_with("\"end\"]")), "the newest is kept");
}

#[test]
fn a_run_is_found_by_either_end_of_its_id() {
    let (_dir, journal) = journal();
    three(&journal);
    for id in ["r1", "r", "1", "last"] {
        assert_eq!(journal.run(id).expect(id).len(), 3);
    }
    assert_eq!(journal.run("zz").expect_err("none").kind, Kind::NotFound);
}

#[test]
fn a_newer_schema_is_refused_with_its_reason() {
    let (dir, journal) = journal();
    journal.connection.borrow().execute_batch("PRAGMA user_version=99").expect("set");
    drop(journal);
    let error = Journal::open(dir.path()).err().expect("refused");
    assert!(error.why.contains("newer opsh"), "{error}");
}

#[test]
fn two_writers_keep_one_chain() {
    let (dir, first) = journal();
    let second = Journal::open(dir.path()).expect("second");
    for n in 0..20 {
        add(if n % 2 == 0 { &first } else { &second }, "note", None, json!({ "n": n }));
    }
    assert_eq!(first.verify().expect("whole").records, 20);
}
