//! The files beside a stack, when an account that may write there is not to be trusted, or one may not write there.

use crate::home::Ran;
use crate::lock::{Stage, locker};
use crate::sshd::Sshd;
use serde_json::Value;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// A change on the stack itself that needs no Docker.
const RECORD: &str = "prod.record_release(#{ tag: \"v1\", commit: \"0123456789012345678901234567890123456789\", how: \"deploy\", image_id: \"sha256:0\" })";
const LOCKED: &str = "prod.locked(\"x\", || mark(\"b\"), #{ wait_s: 0 })";

fn is_root() -> bool {
    let is = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !is {
        crate::skip::skip("only root may give files away");
    }
    is
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn fence(stage: &Stage) -> String {
    let lock: Value = serde_json::from_str(&stage.text("lock.json")).unwrap();
    lock["holder"]["fence"].as_str().unwrap().to_string()
}

/// Runs where a file of the folder can be read and not written or replaced.
fn without_writing(stage: &Stage, name: &str, code: &str) -> Option<Ran> {
    let words = ["-m", "sh", "-c", "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && exec \"$@\""];
    let can = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "x", "/mnt"]).output();
    if !can.is_ok_and(|ran| ran.status.success()) {
        crate::skip::skip("no mount may be made");
        return None;
    }
    let opsh = stage.command("bob", &[], code);
    let mut command = Command::new("unshare");
    command.args(words).arg(stage.file(".opsh").join(name)).arg(opsh.get_program()).args(opsh.get_args());
    command.env_clear().envs(opsh.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.current_dir(opsh.get_current_dir().unwrap());
    Some(Ran::of(command.output().unwrap()))
}

#[test]
fn a_change_without_lock_or_without_a_trace_is_said_once_and_recorded() {
    for (name, says, kind) in [
        ("lock.json", "prod is not locked, and others may work on it too: /", "lock.none"),
        ("changes.jsonl", "what this run changes on prod is not all written there", "lock.unwritten"),
    ] {
        let stage = Stage::local();
        stage.run("alice", &[], RECORD).exits(0);
        let Some(ran) = without_writing(&stage, name, &format!("{RECORD}; {RECORD}")) else { return };
        let ran = ran.exits(0);
        assert_eq!(ran.err.matches(says).count(), 1, "{}", ran.err);
        let records = stage.bob.records();
        assert_eq!(records.iter().filter(|record| record["kind"] == kind).count(), 1, "{records:?}");
    }
}

#[test]
fn only_owner_root_and_group_can_open_the_files_and_another_account_is_told_the_group() {
    if !is_root() {
        return;
    }
    let stage = Stage::local();
    stage.run("alice", &[], LOCKED).exits(0);
    assert_eq!(mode(&stage.file(".opsh")), 0o2770);
    for entry in std::fs::read_dir(stage.file(".opsh")).unwrap().flatten() {
        assert_eq!(mode(&entry.path()), 0o660, "{entry:?}");
    }
    // What an older opsh made is narrowed.
    set_mode(&stage.file(".opsh"), 0o775);
    stage.run("alice", &["--observe"], "prod.lock()").exits(0);
    assert_eq!(mode(&stage.file(".opsh")), 0o775, "a look changes nothing");
    stage.run("alice", &[], LOCKED).exits(0);
    assert_eq!(mode(&stage.file(".opsh")), 0o770);
    set_mode(&stage.file("."), 0o755);
    let mut outsider = stage.command("bob", &[], RECORD);
    assert!(Command::new("chown").args(["-R", "54321"]).arg(stage.bob.path(".")).status().unwrap().success());
    let ran = Ran::of(outsider.uid(54321).gid(54321).output().unwrap()).exits(1);
    ran.says(&["is for root and the group root; user id 54321 is not in that group", "adds you to its group"]);
}

#[test]
fn a_folder_that_root_makes_is_for_the_owner_of_the_checkout_and_its_group() {
    if !is_root() {
        return;
    }
    for (rights, group) in [(0o2775, 54322), (0o755, 0)] {
        let stage = Stage::local();
        chown(stage.file("."), Some(54321), Some(54322)).unwrap();
        set_mode(&stage.file("."), rights);
        stage.run("alice", &[], LOCKED).exits(0);
        let folder = std::fs::metadata(stage.file(".opsh")).unwrap();
        assert_eq!((folder.uid(), folder.gid(), folder.mode() & 0o7777), (54321, group, 0o2770));
    }
}

#[test]
fn a_file_of_a_member_of_the_checkouts_group_is_used() {
    if !is_root() {
        return;
    }
    let stage = Stage::local();
    stage.run("alice", &[], RECORD).exits(0);
    // An account of every host: `daemon` is in the group 1 and not in 2.
    let give = |group: u32, rights: u32| {
        chown(stage.file("."), Some(0), Some(group)).unwrap();
        set_mode(&stage.file("."), rights);
        chown(stage.file(".opsh/releases.jsonl"), Some(1), Some(group)).unwrap();
    };
    give(1, 0o2775);
    stage.run("bob", &[], RECORD).exits(0);
    for (group, rights) in [(1, 0o2755), (2, 0o2775)] {
        give(group, rights);
        stage.run("bob", &[], RECORD).exits(1).says(&["belongs to user id 1 ", "nor in its group"]);
    }
}

#[test]
fn a_stranger_who_has_the_lock_is_not_taken_for_the_last_holder() {
    let stage = Stage::local();
    stage.run("alice", &[], LOCKED).exits(0);
    let mut stranger = locker(&stage, "-x", "lock");
    let who = format!("somebody-unknown.pid-{}.uid-", stranger.id());
    stage.run("bob", &[], LOCKED).exits(3).says(&[&format!("prod is locked by {who}")]);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    stage.run("bob", &[], LOCKED).exits(0);
}

#[test]
fn an_intent_is_moved_to_its_name_and_not_through_a_link_there() {
    let outside = tempfile::tempdir().unwrap();
    for settled in [false, true] {
        let stage = Stage::local();
        let alice = stage.alice_looks("look()");
        let intent = |end: &str| stage.file(".opsh").join(format!("intent-{}.{end}", fence(&stage)));
        let run = stage.alice.records()[0]["run"].as_str().unwrap().to_string();
        symlink(outside.path(), intent("done")).unwrap();
        if settled {
            alice.kill();
            crate::processes::until("it is settled", || {
                let code = format!("stack(\"prod\").settle_intent(\"{run}\", \"seen\")");
                (stage.bob.run(&["--yes", "-e", &code]).code == Some(0)).then_some(())
            });
        } else {
            stage.end_look();
            alice.ended().exits(0);
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "settled: {settled}");
        assert!(std::fs::symlink_metadata(intent("done")).unwrap().is_file() && !intent("jsonl").exists());
    }
}

#[test]
fn a_run_that_begins_under_a_lock_opens_no_file_that_was_put_in_place_of_one() {
    type Put = fn(&Path);
    let link: Put = |file| symlink("/dev/null", file).unwrap();
    let fifo: Put = |file| assert!(Command::new("mkfifo").arg(file).status().unwrap().success());
    for (name, put, says) in [
        ("work.lock", link, "is a symlink"),
        ("work.lock", fifo, "is no plain file"),
        ("lock.json", fifo, "is no plain file"),
    ] {
        let stage = Stage::local();
        let alice = stage.alice_looks("look(); mark(\"b\")");
        let file = stage.file(".opsh").join(name);
        std::fs::remove_file(&file).unwrap();
        put(&file);
        stage.end_look();
        let ran = alice.ended().exits(1);
        assert!(ran.err.contains(&format!("{} {says}", file.display())), "{}", ran.err);
        assert_eq!(stage.counted(), "a\n", "{name} {says}");
    }
}

#[test]
fn a_newer_format_is_seen_however_it_is_written() {
    let stage = Stage::local();
    stage.run("alice", &[], LOCKED).exits(0);
    let file = stage.file(".opsh/lock.json");
    for newer in
        ["{\"format\": 2}\n", "{\"format\":99999999999999999999}\n", "{\n  \"format\" : 2\n}\n", "{\"format\":\"2\"}\n"]
    {
        std::fs::write(&file, newer).unwrap();
        stage.run("bob", &[], LOCKED).exits(1).says(&["a newer opsh wrote", "lock.json"]);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), newer);
    }
    for old in ["{\"format\": 1 }\n", "{}\n", "{\"format\":1"] {
        std::fs::write(&file, old).unwrap();
        stage.run("bob", &[], LOCKED).exits(0);
    }
}

#[test]
fn a_read_of_what_a_newer_opsh_wrote_says_so() {
    let stage = Stage::local();
    stage.run("alice", &[], &format!("{RECORD}; {LOCKED}")).exits(0);
    for (file, read) in [
        ("releases.jsonl", "prod.told_of(\"0123456789012345678901234567890123456789\")"),
        ("changes.jsonl", "prod.changes()"),
    ] {
        let path = stage.file(".opsh").join(file);
        let says = format!("a newer opsh wrote {}", path.display());
        let ran = stage.run("bob", &["--observe"], read).exits(0);
        assert!(!ran.err.contains(&says), "{}", ran.err);
        let old = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{old}{{\"format\":2,\"means\":\"more\"}}\n")).unwrap();
        stage.run("bob", &["--observe"], read).exits(0).says(&[&says]);
        assert!(stage.bob.records().iter().any(|record| record["kind"] == "beside.newer"));
    }
}

#[test]
fn a_state_folder_of_a_newer_opsh_is_read_and_takes_no_change_and_no_host_key() {
    let (stage, Some(sshd)) = (Stage::local(), Sshd::start()) else { return };
    stage.run("bob", &[], RECORD).exits(0);
    let journal = rusqlite::Connection::open(stage.bob.journal()).unwrap();
    journal.execute_batch("PRAGMA user_version=99").unwrap();
    drop(journal);
    let newer = "written by a newer opsh";
    stage.run("bob", &["--observe"], "prod.changes()").exits(0).says(&[newer]);
    stage.run("bob", &[], RECORD).exits(1).says(&[newer]);
    let host = sshd.host(1, "");
    stage.bob.put("opsh.toml", &host.replace("host_key", "# host_key"));
    let words = ["--yes", "host", "adopt", "web-1", "--fingerprint", &sshd.fingerprint()];
    stage.bob.run(&words).exits(1).says(&[newer]);
    assert!(!stage.bob.path("state/opsh/known_hosts").exists());
}

#[test]
fn only_old_intents_are_swept_away() {
    let stage = Stage::local();
    stage.run("alice", &[], LOCKED).exits(0);
    let put = |name: &str| std::fs::write(stage.file(".opsh").join(name), "").unwrap();
    put("precious.done");
    put("intent-0 precious.done");
    (0..210).for_each(|n| put(&format!("intent-{n:016x}.done")));
    stage.run("alice", &[], LOCKED).exits(0);
    let names: Vec<String> = std::fs::read_dir(stage.file(".opsh"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert!(names.iter().any(|name| name == "precious.done"), "{names:?}");
    assert_eq!(names.iter().filter(|name| name.starts_with("intent-") && !name.contains(' ')).count(), 200);
}
