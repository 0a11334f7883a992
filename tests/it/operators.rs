//! Two operators, one stack: what was begun stands on the host, a change under another's lock needs the holder's name, and a
//! file beside the stack is used only when it is what it should be.

use crate::home::{Home, Ran};
use crate::lock::{Running, Stage, value};
use crate::terminal::Terminal;
use serde_json::{Value, json};
use std::os::unix::fs::{chown, symlink};

/// A change on the stack itself that needs no Docker.
const RECORD: &str = "prod.record_release(#{ tag: \"v1\", commit: \"0123456789012345678901234567890123456789\", how: \"deploy\", image_id: \"sha256:0\" })";
/// The same as [`Stage::alice_looks`] without `locked`.
fn alice_changes_and_looks(stage: &Stage) -> Running {
    let mut alice = stage.start("alice", &[], &format!("{RECORD}; look()"));
    alice.says("✓ release.record");
    alice
}

/// Name of the lock's holder as opsh shows it.
pub fn holder(stage: &Stage) -> String {
    let lock: Value = serde_json::from_str(&stage.text("lock.json")).unwrap();
    lock["holder"]["by"].as_str().unwrap().to_string()
}

fn lock_of(home: &Home) -> Value {
    let ran = home.run(&["--json", "-e", "stack(\"prod\").lock()"]).exits(0);
    if ran.out.trim().is_empty() { Value::Null } else { value(&ran) }
}

fn names(stage: &Stage, end: &str) -> Vec<String> {
    let entries = std::fs::read_dir(stage.file(".opsh")).unwrap().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("intent-") && name.ends_with(end))
        .collect()
}

// ── under the lock of somebody else ──

#[test]
fn a_change_under_anothers_lock_needs_the_holders_name() {
    for stage in [Some(Stage::local()), Stage::remote()].into_iter().flatten() {
        let alice = stage.alice_looks("look()");
        let by = holder(&stage);
        for change in ["mark(\"b\")", RECORD] {
            let ran = stage.run("bob", &[], change).exits(3);
            let locked = format!("LOCKED by {by}: hotfix, since 20");
            let ran = ran.says(&[
                &locked,
                &format!("--under-lock-of {by} was not given"),
                "stack(\"prod\").lock()",
                "nothing changed",
            ]);
            let other = stage.run("bob", &["--under-lock-of", "carol@x"], change).exits(3);
            let other = other.says(&[&format!("--under-lock-of {by}")]);
            for ran in [ran, other] {
                assert!(!ran.err.contains("agree to it beforehand"), "only a look is proposed: {}", ran.err);
            }
            stage.run("bob", &["--plan"], change).exits(0).says(&[&locked]);
        }
        let taken = stage.run("bob", &[], "prod.locked(\"mine\", || 1, #{ wait_s: 0 })").exits(3);
        let taken = taken.says(&["--allow lock.break was not given", "next: stack(\"prod\").lock()"]);
        assert!(!taken.err.contains("agree to it beforehand"), "only a look is proposed: {}", taken.err);
        assert_eq!(stage.counted(), "a\n");
        assert!(!stage.file(".opsh/releases.jsonl").exists(), "nothing was recorded");
        stage.run("bob", &["--under-lock-of", &by], "mark(\"b\")").exits(0);
        stage.run("bob", &["--under-lock-of", &by], RECORD).exits(0);
        assert_eq!(stage.counted(), "a\nb\n");
        assert!(holder(&stage) == by, "alice still has it");
        stage.end_look();
        alice.ended().exits(0);
    }
}

#[test]
fn a_bad_mark_and_a_look_need_no_name() {
    let stage = Stage::local();
    let alice = stage.alice_looks("look()");
    stage.run("bob", &[], "print(prod.lock().state)").exits(0).prints("held\n");
    stage.run("bob", &["--observe"], "mark(\"b\")").exits(3).says(&["only observes"]);
    stage.end_look();
    alice.ended().exits(0);
}

#[test]
fn a_sandbox_is_no_reason_to_put_a_colleague_out() {
    let stage = Stage::local();
    for home in [&stage.alice, &stage.bob] {
        let config = std::fs::read_to_string(home.path("opsh.toml")).unwrap();
        home.put("opsh.toml", &config.replace("[stack.prod]\n", "[stack.prod]\nsandbox = true\n"));
    }
    let alice = stage.alice_looks("look()");
    stage.run("bob", &[], RECORD).exits(3).says(&["--under-lock-of"]);
    stage.end_look();
    alice.ended().exits(0);
}

// ── what was begun ──

#[test]
fn a_killed_run_stays_open_for_everybody_until_settled() {
    for stage in [Some(Stage::local()), Stage::remote()].into_iter().flatten() {
        let alice = stage.alice_looks("look()");
        let by = holder(&stage);
        alice.kill();
        let seen = crate::processes::until("the holder ends", || {
            Some(lock_of(&stage.bob)).filter(|seen| seen["state"] == "left")
        });
        let open = &seen["open"][0];
        assert_eq!(
            (&open["by"], &open["what"], &open["last"]["verb"]),
            (&json!(by), &json!("hotfix"), &json!("host.sh"))
        );
        assert_eq!((&open["alive"], seen["held"].as_bool()), (&json!(false), Some(false)), "{seen}");
        let run = open["run"].as_str().unwrap().to_string();
        let first = seen["first"].as_str().unwrap();
        assert!(first.starts_with(&format!("BEGUN by {by}: hotfix, since 20")), "{first}");
        let next = seen["next"].to_string();
        assert!(next.contains(&format!("opsh attach {run}")) && next.contains("settle_intent"), "{next}");
        // Whoever plans a change there is told, and one who does one.
        for words in [&["--plan"][..], &[]] {
            stage.run("bob", words, RECORD).exits(0).says(&[&format!("BEGUN by {by}: hotfix")]);
        }
        stage
            .bob
            .run(&["--yes", "-e", "stack(\"prod\").settle_intent(\"0000\", \"x\")"])
            .exits(1)
            .says(&["nothing that it began"]);
        let settle = format!("stack(\"prod\").settle_intent({}, \"looked: all is well\")", json!(run));
        stage.bob.run(&["--yes", "-e", &settle]).exits(0);
        assert_eq!(lock_of(&stage.bob), Value::Null);
        let kept = names(&stage, ".done").iter().map(|name| stage.text(name)).find(|text| text.contains(&run)).unwrap();
        assert!(kept.contains("looked: all is well") && kept.contains("\"kind\":\"settled\""), "{kept}");
    }
}

#[test]
fn killed_runs_are_all_named_or_counted() {
    let stage = Stage::local();
    for number in 1..=3 {
        stage.alice_looks("look()").kill();
        let seen = crate::processes::until("the holder ends", || {
            Some(lock_of(&stage.bob)).filter(|seen| seen["state"] == "left" && seen["open"][number - 1].is_object())
        });
        let (open, next) = (seen["open"].as_array().unwrap(), seen["next"].to_string());
        let named = open.iter().filter(|one| next.contains(one["run"].as_str().unwrap())).count();
        assert_eq!((open.len(), named), (number, number.min(2)), "{next}");
        assert_eq!(next.contains("lock().open     1 more that did not end"), number == 3, "{next}");
    }
    let status = stage.bob.run(&["-e", "print(stack(\"prod\").status().text)"]).exits(0);
    assert!(status.out.contains("or: stack(\"prod\").lock().open     1 more"), "{}", status.out);
}

#[test]
fn a_run_that_ends_well_leaves_nothing_open() {
    let stage = Stage::local();
    stage.run("alice", &[], "prod.locked(\"x\", || mark(\"a\"))").exits(0);
    stage.run("alice", &[], &format!("{RECORD}; {RECORD}")).exits(0);
    assert_eq!((names(&stage, ".jsonl").len(), names(&stage, ".done").len()), (0, 2), "one for each run");
    assert_eq!(lock_of(&stage.bob), Value::Null);
}

#[test]
fn a_change_without_locked_stands_on_the_host_while_its_run_lives() {
    let stage = Stage::local();
    let alice = alice_changes_and_looks(&stage);
    let seen = lock_of(&stage.bob);
    assert_eq!((&seen["state"], &seen["held"]), (&json!("alive"), &json!(false)), "{seen}");
    assert_eq!(seen["open"][0]["last"]["verb"], "release.record", "{seen}");
    let settle = format!("stack(\"prod\").settle_intent({}, \"x\")", seen["open"][0]["run"]);
    stage.bob.run(&["--yes", "-e", &settle]).exits(1).says(&["is at it now"]);
    alice.kill();
    crate::processes::until("it is left", || (lock_of(&stage.bob)["state"] == "left").then_some(()));
}

#[test]
fn a_failed_run_stays_open_until_its_undo_ends() {
    let stage = Stage::local();
    stage.run("alice", &[], &format!("{RECORD}; throw \"no\"")).exits(1);
    let seen = lock_of(&stage.bob);
    assert_eq!((&seen["state"], &seen["open"][0]["outcome"]), (&json!("left"), &json!("failed")), "{seen}");
    let mut undo = stage.alice.command(&["undo", "last", "--yes"]);
    Ran::of(undo.env("USER", "alice").output().unwrap()).exits(0);
    assert_eq!(lock_of(&stage.bob), Value::Null);
}

#[test]
fn a_run_whose_failed_change_did_nothing_leaves_nothing_open() {
    let stage = Stage::local();
    stage.run("alice", &[], "prod.locked(\"x\", || host(\"local\").run([\"false\"]))").exits(1);
    assert_eq!(lock_of(&stage.bob), Value::Null);
}

#[test]
fn an_intent_hides_secrets() {
    let stage = Stage::local();
    let secret = "Zq8".repeat(8);
    stage.run("alice", &[], &format!("prod.locked(\"PASSWORD={secret}\", || mark(\"TOKEN={secret}\"))")).exits(0);
    let kept: String = names(&stage, ".done").iter().map(|name| stage.text(name)).collect();
    assert!(kept.contains("\"kind\":\"change\"") && !kept.contains(&secret), "{kept}");
}

// ── files that several accounts and versions share ──

/// Whatever was put in place of a file of the folder: nothing is written through it, and the error says what it is.
#[test]
fn a_file_that_is_not_what_it_should_be_is_not_used() {
    let victim = tempfile::tempdir().unwrap();
    let target = victim.path().join("victim");
    std::fs::write(&target, "untouched\n").unwrap();
    type Put = fn(&std::path::Path, &std::path::Path);
    let link: Put = |file, target| symlink(target, file).unwrap();
    let hard: Put = |file, target| std::fs::hard_link(target, file).unwrap();
    let fifo: Put = |file, _| assert!(std::process::Command::new("mkfifo").arg(file).status().unwrap().success());
    let other: Put = |file, _| {
        std::fs::write(file, "").unwrap();
        chown(file, Some(54321), Some(54321)).unwrap();
    };
    let is_root = may_give_away();
    for (name, code) in [
        ("releases.jsonl", RECORD),
        ("lock", RECORD),
        ("work.lock", RECORD),
        ("lock.json", RECORD),
        ("changes.jsonl", RECORD),
        ("lock", "prod.locked(\"x\", || mark(\"b\"))"),
    ] {
        for (put, says) in
            [(link, "is a symlink"), (hard, "2 names"), (fifo, "is no plain file"), (other, "belongs to user id 54321")]
        {
            if says.contains("54321") && !is_root {
                continue;
            }
            let stage = Stage::local();
            std::fs::create_dir(stage.file(".opsh")).unwrap();
            let file = stage.file(".opsh").join(name);
            // A hard link does not leave its file system.
            if says == "2 names" {
                std::fs::write(stage.file("victim"), "untouched\n").unwrap();
                put(&file, &stage.file("victim"));
            } else {
                put(&file, &target);
            }
            let ran = stage.run("bob", &[], code).exits(1);
            assert!(
                ran.err.contains(says) && ran.err.contains(&file.display().to_string()),
                "{name} {says}: {}",
                ran.err
            );
            assert_eq!(std::fs::read_to_string(&target).unwrap(), "untouched\n", "{name} {says}");
            assert_eq!(stage.counted(), "", "{name} {says}");
        }
    }
}

/// Whether this account may give files away.
fn may_give_away() -> bool {
    let file = tempfile::NamedTempFile::new().unwrap();
    chown(file.path(), Some(54321), None).is_ok()
}

#[test]
fn a_folder_of_another_account_is_not_used() {
    if !may_give_away() {
        return crate::skip::skip("only root may give a folder away");
    }
    let stage = Stage::local();
    std::fs::create_dir(stage.file(".opsh")).unwrap();
    chown(stage.file(".opsh"), Some(54321), Some(54321)).unwrap();
    let ran = stage.run("bob", &[], RECORD).exits(1);
    ran.says(&[".opsh belongs to user id 54321 (mode d", "neither you, root, the owner of the checkout"]);
    // In a checkout of that account it is where it belongs.
    chown(stage.file("."), Some(54321), Some(54321)).unwrap();
    stage.run("bob", &[], RECORD).exits(0);
    std::fs::remove_dir_all(stage.file(".opsh")).unwrap();
    symlink("/tmp", stage.file(".opsh")).unwrap();
    stage.run("bob", &[], RECORD).exits(1).says(&[".opsh is a symlink"]);
}

#[test]
fn files_of_a_newer_opsh_are_shown_and_not_written() {
    let stage = Stage::local();
    stage.run("alice", &[], "prod.locked(\"x\", || mark(\"a\"))").exits(0);
    let newer = "{\"format\":2,\"holder\":{\"by\":\"carol@new\",\"run\":\"r\"},\"more\":1}\n";
    std::fs::write(stage.file(".opsh/lock.json"), newer).unwrap();
    for code in [RECORD, "prod.locked(\"y\", || mark(\"b\"))"] {
        stage.run("bob", &[], code).exits(1).says(&["a newer opsh wrote", "lock.json", "opsh --version"]);
    }
    assert_eq!((stage.text("lock.json").as_str(), stage.counted().as_str()), (newer, "a\n"));
    // A line without a number has the first format.
    std::fs::write(stage.file(".opsh/lock.json"), newer.replace("\"format\":2,", "")).unwrap();
    stage.run("bob", &[], RECORD).exits(0);
    let releases = stage.text("releases.jsonl");
    assert!(releases.contains("\"format\":1"), "{releases}");
    std::fs::write(stage.file(".opsh/releases.jsonl"), releases + "{\"format\":2,\"kind\":\"later\"}\n").unwrap();
    stage.run("bob", &[], RECORD).exits(1).says(&["a newer opsh wrote", "releases.jsonl"]);
}

// ── what is shown first ──

/// Lines of a report that may be typed.
fn next_of(wrong: &Value) -> Vec<String> {
    let one = |row: &Value| row["next"].as_str().map(String::from);
    wrong.as_array().unwrap().iter().filter_map(one).collect()
}

/// Asserts what `status` and `doctor` show to another operator.
fn shows_first(home: &Home, first: &str) {
    for (code, key) in [("status()", "wrong"), ("preflight()", "rows")] {
        let seen = value(&home.run(&["--json", "-e", &format!("stack(\"prod\").{code}")]).exits(0));
        let why = seen[key][0]["why"].as_str().unwrap();
        assert!(why.starts_with(first), "{code}: {why}");
        for next in next_of(&seen[key]) {
            let changes = ["start(", "thaw(", "restart(", "recreate(", "opsh scripts/", "rollback"]
                .iter()
                .any(|word| next.contains(word));
            assert!(!changes, "{code} proposes {next}");
        }
    }
}

#[test]
fn status_and_doctor_show_the_lock_first_and_only_looks() {
    let stage = Stage::local();
    let alice = stage.alice_looks("look()");
    let by = holder(&stage);
    shows_first(&stage.bob, &format!("LOCKED by {by}: hotfix, since 20"));
    alice.kill();
    crate::processes::until("it is left", || (lock_of(&stage.bob)["state"] == "left").then_some(()));
    shows_first(&stage.bob, &format!("BEGUN by {by}: hotfix, since 20"));
}

#[test]
fn where_two_others_work_the_name_of_one_is_not_enough() {
    let (one, two) = (Stage::local(), Stage::local());
    let alice = one.alice_looks("look()");
    let mut dora = two.start("dora", &[], "prod.locked(\"index\", || { mark(\"a\"); look() })");
    dora.says("✓ host.sh");
    let (by_alice, by_dora) = (holder(&one), holder(&two));
    let carol = Home::new();
    let stack = |name: &str, stage: &Stage| {
        format!(
            "[stack.{name}]\nhost = \"local\"\ndir = \"{}\"\ncompose = {{ files = [\"c.yml\"], project = \"{name}\" }}\n",
            stage.dir()
        )
    };
    carol.put("opsh.toml", &format!("{}{}", stack("sa", &one), stack("sb", &two)));
    let change = format!("host(\"local\").run([\"touch\", \"{}\"])", carol.path("made").display());
    for by in [&by_alice, &by_dora] {
        let ran = carol.run_with(&["--yes", "--under-lock-of", by, "-e", &change], "USER", "carol").exits(3);
        ran.says(&["several work there", &by_alice, &by_dora, "stack(\"sa\").lock()", "stack(\"sb\").lock()"]);
    }
    assert!(!carol.path("made").exists());
    two.end_look();
    dora.ended().exits(0);
    carol.run_with(&["--yes", "--under-lock-of", &by_alice, "-e", &change], "USER", "carol").exits(0);
    assert!(carol.path("made").exists());
    one.end_look();
    alice.ended().exits(0);
}

#[test]
fn at_a_terminal_a_y_is_not_the_holders_name() {
    let stage = Stage::local();
    let alice = stage.alice_looks("look()");
    let by = holder(&stage);
    let script = stage.bob.put("t.rhai", &stage.code("mark(\"b\")"));
    let question = format!("Type {by} to go on all the same, or Enter to stop:");
    let mut bob = Terminal::run(&mut Terminal::command(&stage.bob, &[&script]), 100, 30);
    bob.until(&format!("LOCKED by {by}: hotfix")).until(&question).keys("y\r").until("asked once more").keys("\r");
    bob.ends();
    assert_eq!(stage.counted(), "a\n");
    let mut bob = Terminal::run(&mut Terminal::command(&stage.bob, &[&script]), 100, 30);
    bob.until(&question).keys(&format!("{by}\r"));
    bob.ends();
    assert_eq!(stage.counted(), "a\nb\n");
    stage.end_look();
    alice.ended().exits(0);
}

// ── what the names of opsh.toml hide, and what comes between the decision and the change ──

#[test]
fn a_lock_that_somebody_took_after_the_decision_is_respected() {
    for stage in [Some(Stage::local()), Stage::remote()].into_iter().flatten() {
        for change in ["mark(\"b\")", RECORD] {
            for named in [false, true] {
                let alice = named.then(|| stage.alice_looks("look()"));
                let before = stage.counted();
                let script = stage.bob.put("t.rhai", &stage.code(change));
                let mut bob = Terminal::run(&mut Terminal::command(&stage.bob, &[&script]), 100, 30);
                bob.until("or Enter to stop:");
                let answer = if named { holder(&stage) } else { "y".to_string() };
                if let Some(alice) = alice {
                    stage.end_look();
                    alice.ended().exits(0);
                }
                let mut carol = stage.start("carol", &[], "prod.locked(\"index\", || { mark(\"c\"); look() })");
                carol.says("✓ host.sh");
                bob.keys(&format!("{answer}\r")).until("nothing was changed on prod").until("LOCKED by carol@");
                bob.ends();
                assert_eq!(stage.counted(), format!("{before}c\n"), "{change}");
                assert!(!stage.file(".opsh/releases.jsonl").exists(), "nothing was recorded");
                stage.end_look();
                carol.ended().exits(0);
            }
        }
    }
}

#[test]
fn a_holder_who_was_named_and_has_gone_is_in_nobodys_way() {
    let stage = Stage::local();
    let alice = stage.alice_looks("look()");
    let script = stage.bob.put("t.rhai", &stage.code(RECORD));
    let mut bob = Terminal::run(&mut Terminal::command(&stage.bob, &[&script]), 100, 30);
    bob.until("or Enter to stop:");
    let by = holder(&stage);
    stage.end_look();
    alice.ended().exits(0);
    bob.keys(&format!("{by}\r")).until("✓ release.record");
    bob.ends();
}

#[test]
fn a_lock_is_found_by_the_machine_and_the_project_whatever_they_are_called() {
    let Some(stage) = Stage::remote() else { return };
    let alice = stage.alice_looks("look()");
    let by = holder(&stage);
    let config = std::fs::read_to_string(stage.bob.path("opsh.toml")).unwrap();
    let (host, stack) = config.split_once("[stack.").unwrap();
    let twin = stage.bob.path("twin");
    std::fs::create_dir(&twin).unwrap();
    let twin = format!(
        "[stack.twin]\nhost = \"other\"\ndir = \"{}\"\ncompose = {{ files = [\"c.yml\"], project = \"p\" }}\n",
        twin.display()
    );
    let hosts = ["other", "prod"].map(|name| host.replace("[host.web-1]", &format!("[host.{name}]"))).concat();
    stage.bob.put("opsh.toml", &format!("{host}{hosts}[stack.{stack}{twin}"));
    let touch = |host: &str| format!("host(\"{host}\").run([\"touch\", \"{}/touched\"])", stage.dir());
    let changes = [touch("other"), touch("prod"), RECORD.replace("prod.", "stack(\"twin\").")];
    for change in &changes {
        let ran = stage.run("bob", &[], change).exits(3);
        ran.says(&[&format!("LOCKED by {by}: hotfix"), &format!("--under-lock-of {by}")]);
        assert!(!stage.file("touched").exists(), "{change}");
    }
    stage.end_look();
    alice.ended().exits(0);
    for change in &changes {
        stage.run("bob", &[], change).exits(0);
    }
}

#[test]
fn a_run_of_a_colleague_is_ended_with_the_colleagues_name_only() {
    let stage = Stage::local();
    // Of one account on the host, whose runs both see.
    let mut carol = stage.start("carol", &[], "prod.locked(\"hotfix\", || slow())");
    crate::processes::until("the change is made", || stage.counted().contains("began").then_some(()));
    let by = holder(&stage);
    let kill =
        "for one in host(\"local\").works().works { if one.state == \"running\" { host(\"local\").kill(one.id) } }";
    let ran = stage.run("bob", &["--allow", "work.kill"], kill).exits(3);
    ran.says(&[&format!("LOCKED by {by}: hotfix")]);
    assert!(carol.goes_on());
    stage.run("bob", &["--allow", "work.kill", "--under-lock-of", &by], kill).exits(0);
    carol.ended().exits(1);
    assert!(!stage.counted().contains("over"));
}

#[test]
fn what_another_person_of_the_same_account_left_running_is_not_ones_own() {
    let Some(stage) = Stage::remote() else { return };
    // Both are USER=dora, each with a state of her own; the second opens `alice`'s home.
    let mut one = stage.start("dora", &[], "prod.locked(\"hotfix\", || slow())");
    crate::processes::until("the change is made", || stage.counted().contains("began").then_some(()));
    assert!(one.goes_on());
    one.kill();
    let by = holder(&stage);
    let mut other = stage.command("alice", &[], RECORD);
    Ran::of(other.env("USER", "dora").output().unwrap()).exits(3).says(&[&format!("--under-lock-of {by}")]);
    stage.run("dora", &[], RECORD).exits(0);
}
