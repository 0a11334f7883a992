//! The journal's promises: whole, append-only, one end for each effect, nothing secret.

use super::entry::{LARGEST_BODY, LARGEST_READ, SELECT, entry};
use super::*;
use crate::redact;
use rusqlite::params;

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
    assert_eq!(journal.verify().expect("whole"), Verified { records: 3, effects: 1, open: 0, pruned: 0 });
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
        ("DELETE FROM journal WHERE seq = 1", "record 2 (effect.begin of "),
        ("INSERT INTO journal SELECT 4, 'note', at_us, mono_us, boot, actor, run, NULL, NULL, NULL, '{}', hash, x'00'
          FROM journal WHERE seq = 3", "record 4 (note of "),
        ("INSERT INTO journal SELECT 4, kind, at_us, mono_us, boot, actor, run, effect, target, class, body, hash, x'00'
          FROM journal WHERE seq = 2", "record 4"),
        ("UPDATE journal SET body = CAST(x'ff' AS TEXT) WHERE seq = 2", "record 2"),
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
fn what_a_prompt_asks_is_found_without_reading_every_record() {
    let (_dir, journal) = journal();
    let unsettled = format!("SELECT b.seq FROM journal b WHERE {}", query::IS_UNSETTLED);
    let runs = "SELECT run FROM journal WHERE kind = 'run.start' ORDER BY seq DESC";
    for (sql, index) in [(unsettled.as_str(), "journal_unknown"), (runs, "journal_start")] {
        let plan = format!("EXPLAIN QUERY PLAN {sql}");
        let plan: Vec<String> = journal.read(&plan, params![], |row| row.get(3)).expect("a plan");
        assert!(plan.iter().any(|step| step.contains(index)), "{plan:#?}");
        assert!(!plan.iter().any(|step| step.starts_with("SCAN") && !step.contains(index)), "{plan:#?}");
    }
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
        assert_eq!(again.verify().expect("whole"), Verified { records: 4, effects: 1, open: 0, pruned: 0 });
        assert_eq!(again.runs(9).expect("read")[0].outcome, "killed");
    }
    let again = Journal::open(dir.path()).expect("opens");
    assert_eq!(again.settle("r1", "it runs the old image").expect("settled"), 1);
    assert!(again.unsettled().expect("read").is_empty());
    assert_eq!(again.verify().expect("whole").records, 5);
}

#[test]
fn what_changed_last_is_told_by_the_changes_and_not_by_when_runs_began() {
    let (_dir, journal) = journal();
    let in_run = |run: &'static str, kind: &'static str, effect: Option<&'static str>| {
        let record = Record { kind, run, effect, target: Some("prod"), class: None, body: json!({"what": "x"}) };
        journal.append(&record).expect("written");
    };
    assert_eq!(journal.last_change().expect("read"), None);
    in_run("sitting", "run.start", None);
    in_run("script", "run.start", None);
    in_run("script", "effect.begin", Some("script.1"));
    assert_eq!(journal.last_change().expect("read").as_deref(), Some("script"));
    in_run("sitting", "effect.begin", Some("sitting.1"));
    assert_eq!(journal.last_change().expect("read").as_deref(), Some("sitting"));
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
fn a_run_goes_on_with_an_older_one_only() {
    let (_dir, journal) = journal();
    let start = |run: &'static str, resumes: &str| {
        let body = json!({ "what": run, "mode": "apply", "facts": { "resumes": resumes } });
        journal
            .append(&Record { kind: "run.start", run, effect: None, target: None, class: None, body })
            .expect("written");
    };
    start("itself", "itself");
    start("first", "second");
    start("second", "first");
    start("third", "second");
    let pair = |older: &str, newer: &str| (older.to_string(), newer.to_string());
    assert_eq!(journal.resumptions().expect("read"), [pair("first", "second"), pair("second", "third")]);
    let resumes = |run: &str| journal.story(run).expect("there").resumes().map(String::from);
    let seen = ["itself", "first", "second", "third"].map(resumes);
    assert_eq!(seen, [None, None, Some("first".into()), Some("second".into())]);
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

#[test]
fn what_is_cut_is_marked_and_what_looks_like_it_is_not() {
    let (_dir, journal) = journal();
    let text = |length: usize| json!({ "value": "x".repeat(length) });
    add(&journal, "effect.end", None, text(LARGEST_BODY));
    add(&journal, "effect.read", None, text(LARGEST_READ - 1000));
    add(&journal, "effect.read", None, text(LARGEST_READ));
    add(&journal, "note", None, json!({ "value": { "cut": { "head": 1 } }, "cut": true }));
    add(&journal, "note", None, json!({ "value": "y".repeat(LARGEST_BODY), "args": { "small": 1 } }));
    let entries = journal.read(SELECT, params![], entry).expect("read");
    assert_eq!(entries.iter().map(Entry::is_cut).collect::<Vec<_>>(), [true, false, true, false, true]);
    assert_eq!(entries[4].body["args"]["small"], 1, "what is small stays what it is");
}

#[test]
fn a_network_file_system_is_told_by_its_mount() {
    let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /home rw - nfs4 server:/home rw
31 30 0:41 / /home/me/local rw - tmpfs tmpfs rw
32 22 0:42 / /mnt/with\\040blank rw - cifs //server/share rw
33 22 0:43 / /mnt/ssh rw - fuse.sshfs me@host:/ rw
34 22 0:44 / /mnt/old rw - fuse sshfs#me@host:/ rw
35 22 0:45 / /mnt/vault rw - fuse.gocryptfs /home/x rw
36 22 0:46 / /mnt/vm rw - 9p share rw
37 22 0:47 / /over rw - nfs server:/a rw
38 37 8:2 / /over rw - xfs /dev/sdb rw
39 22 8:3 / /mnt/ntfs rw - fuseblk /dev/sdc rw";
    let kind = |path: &str| place::network_of(mounts, Path::new(path));
    for (path, expected) in [
        ("/home/me/.local/state/opsh", Some("nfs4")),
        ("/homeless", None),
        ("/home/me/local/opsh", None),
        ("/mnt/with blank/x", Some("cifs")),
        ("/mnt/ssh", Some("fuse.sshfs")),
        ("/mnt/old/x", Some("fuse")),
        ("/mnt/vault", None),
        ("/mnt/vm/x", Some("9p")),
        ("/over/x", None),
        ("/mnt/ntfs", None),
        ("/var", None),
    ] {
        assert_eq!(kind(path).as_deref(), expected, "{path}");
    }
    for real in ["/", "/proc", "/dev/shm", "/tmp"] {
        assert_eq!(place::network(Path::new(real)), None, "{real}");
    }
}

/// The bytes of a closed journal of `n` records.
fn closed(n: usize) -> (tempfile::TempDir, Vec<Vec<u8>>, Vec<u8>) {
    let (dir, journal) = journal();
    for at in 0..n {
        add(&journal, "note", None, json!({ "n": at, "text": "x".repeat(200) }));
    }
    let hashes = journal.read(SELECT, params![], entry).expect("read").into_iter().map(|entry| entry.hash).collect();
    journal.connection.borrow().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("checkpoint");
    drop(journal);
    let bytes = std::fs::read(dir.path().join("journal.db")).expect("file");
    (dir, hashes, bytes)
}

/// What a look at these bytes says: whole with these hashes, or what is wrong.
fn look_at(dir: &Path, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    std::fs::write(dir.join("journal.db"), bytes).expect("written");
    let journal = Journal::look(dir)?;
    journal.verify()?;
    Ok(journal.read(SELECT, params![], entry)?.into_iter().map(|entry| entry.hash).collect())
}

#[test]
fn a_flipped_byte_is_found_or_is_of_no_meaning() {
    let (dir, hashes, bytes) = closed(40);
    let (mut found, mut named) = (0, 0);
    for at in (0..bytes.len()).step_by(127) {
        let mut torn = bytes.clone();
        torn[at] ^= 0x5a;
        match look_at(dir.path(), &torn) {
            Ok(read) => assert_eq!(read, hashes, "byte {at} changed a record unseen"),
            Err(error) => {
                assert_eq!(error.kind, Kind::Journal);
                found += 1;
                named += usize::from(error.what.contains("journal record "));
            }
        }
    }
    assert!(found > 50 && named > 40, "{found} found, {named} with their record, of {}", bytes.len() / 127);
}

#[test]
fn a_truncated_file_is_found_at_the_first_record_that_is_gone() {
    let (dir, hashes, bytes) = closed(200);
    let error = look_at(dir.path(), &bytes[..bytes.len() / 2]).expect_err("torn");
    assert!(error.what.contains("journal record ") && error.why.contains("cannot be read"), "{error}");
    assert_eq!(look_at(dir.path(), &bytes).expect("whole"), hashes);
}

#[test]
fn what_is_no_database_is_set_aside_and_a_fresh_journal_says_so() {
    let (dir, journal) = journal();
    drop(journal);
    let text = b"this is no database, but it is long enough to be taken for one by a careless reader\n".repeat(20);
    std::fs::write(dir.path().join("journal.db"), &text).expect("written");
    assert!(Journal::open(dir.path()).is_err(), "what only looks does not move it");
    let journal = Journal::open_or_begin_anew(dir.path(), true).expect("a fresh one");
    assert!(journal.news().iter().any(|line| line.contains("set aside")), "{:?}", journal.news());
    let first = &journal.read(SELECT, params![], entry).expect("read")[0];
    assert_eq!((first.kind.as_str(), &first.body["last_seq"]), ("journal.begun", &Value::Null));
    let aside = first.body["set_aside"].as_str().expect("its path");
    assert_eq!(std::fs::read(aside).expect("kept"), text);
    assert!(Journal::open_or_begin_anew(dir.path(), true).expect("good").news().is_empty());
}

#[test]
fn what_can_be_read_of_a_damaged_journal_is_kept() {
    let (dir, journal) = journal();
    add(&journal, "run.start", None, json!({"what": "x", "mode": "apply"}));
    add(&journal, "effect.begin", Some("r1.1"), json!({"verb": "docker.restart"}));
    for at in 0..200 {
        add(&journal, "note", None, json!({ "n": at, "text": "x".repeat(200) }));
    }
    journal
        .connection
        .borrow()
        .execute_batch("UPDATE open SET start = 1; PRAGMA wal_checkpoint(TRUNCATE)")
        .expect("as if dead");
    drop(journal);
    let path = dir.path().join("journal.db");
    let bytes = std::fs::read(&path).expect("file");
    std::fs::write(&path, &bytes[..bytes.len() * 3 / 4 / 4096 * 4096]).expect("torn");
    let journal = Journal::open_or_begin_anew(dir.path(), true).expect("a fresh one");
    let entries = journal.read(&format!("{SELECT} ORDER BY seq"), params![], entry).expect("read");
    let begun = entries.iter().find(|entry| entry.kind == "journal.begun").expect("it says so");
    let kept = begun.body["records"].as_i64().expect("a number");
    assert!((3..202).contains(&kept), "{}", begun.body);
    assert_eq!(begun.body["last_seq"].as_i64(), Some(kept));
    assert_eq!(begun.prev, entries[kept as usize - 1].hash);
    assert_eq!(journal.unsettled().expect("read").len(), 1, "what may have happened is not forgotten");
    journal.verify().expect("whole");
    assert!(journal.connection.borrow().execute("DELETE FROM journal", []).is_err(), "append-only again");
}

fn run(journal: &Journal, run: &str, outcome: Option<&str>) {
    let effect = format!("{run}.1");
    let record = |kind, effect, body| Record { kind, run, effect, target: None, class: Some(Class::Change), body };
    journal.append(&record("run.start", None, json!({"what": run}))).expect("written");
    journal.append(&record("effect.begin", Some(&effect), json!({"verb": "v"}))).expect("written");
    if let Some(outcome) = outcome {
        journal.append(&record("effect.end", Some(&effect), json!({ "outcome": outcome }))).expect("written");
        journal.append(&record("run.end", None, json!({"outcome": "ok"}))).expect("written");
    }
}

#[test]
fn pruning_takes_whole_settled_runs_and_the_chain_still_verifies() {
    let (dir, journal) = journal();
    run(&journal, "a", Some("ok"));
    run(&journal, "b", Some("ok"));
    run(&journal, "c", Some("unknown"));
    run(&journal, "d", Some("ok"));
    let later = clock::wall_us() + 1;
    let found = journal.prunable(later).expect("read");
    assert_eq!((found.from, found.to, found.records, found.runs, found.held_by.as_deref()), (1, 8, 8, 2, Some("c")));
    let to = dir.path().join("out.jsonl");
    journal.prune(later, &found, &to).expect("pruned");
    assert_eq!(std::fs::read_to_string(&to).expect("exported").lines().count(), 9);
    assert_eq!(journal.verify().expect("whole"), Verified { records: 9, effects: 2, open: 0, pruned: 8 });
    assert!(journal.connection.borrow().execute("DELETE FROM journal", []).is_err(), "append-only again");
    let again = journal.prune(later, &found, &dir.path().join("other")).expect_err("it is gone");
    assert!(again.why.contains("it changed since"), "{again}");

    journal.settle("c", "all is well").expect("settled");
    let found = journal.prunable(later).expect("read");
    assert_eq!((found.from, found.to, found.held_by.as_deref()), (9, 16, None), "{found:?}");
    let taken = journal.prune(later, &found, &to).expect_err("the file is there");
    assert!(taken.why.contains("exists"), "{taken}");
    journal.prune(later, &found, &dir.path().join("second.jsonl")).expect("pruned");
    assert_eq!(journal.verify().expect("whole").pruned, 16);
    drop(journal);
    run(&Journal::open(dir.path()).expect("opens"), "e", Some("ok"));

    let journal = Journal::open(dir.path()).expect("opens");
    let sql = "DROP TRIGGER journal_no_delete; DELETE FROM journal WHERE seq = 17";
    journal.connection.borrow().execute_batch(sql).expect("an attacker can");
    assert!(journal.verify().expect_err("a gap").what.contains("record 18"));
}

#[test]
fn a_run_that_goes_on_or_reaches_further_is_not_pruned() {
    let (_dir, journal) = journal();
    run(&journal, "a", Some("ok"));
    run(&journal, "b", None);
    run(&journal, "c", Some("ok"));
    let found = journal.prunable(clock::wall_us() + 1).expect("read");
    assert_eq!((found.to, found.held_by.as_deref()), (4, Some("b")));
    let started = journal.run("c").expect("read")[0].at_us + 1;
    assert_eq!(journal.prunable(started).expect("read").to, 4);
    assert_eq!(journal.prunable(0).expect("read").records, 0);
}

#[test]
fn a_whole_journal_is_pruned_but_for_the_word_that_it_was() {
    let (dir, journal) = journal();
    run(&journal, "a", Some("ok"));
    let later = clock::wall_us() + 1;
    let found = journal.prunable(later).expect("read");
    journal.prune(later, &found, &dir.path().join("out")).expect("pruned");
    assert_eq!(journal.verify().expect("whole"), Verified { records: 1, effects: 0, open: 0, pruned: 4 });
    assert!(journal.runs(9).expect("read").is_empty());
}
