//! A recorded run answers in place of the world: the same screen each time, and the first difference is named.

use crate::home::{Home, Ran};

/// Looks, changes, looks again; the file's name is the only thing that differs between homes.
fn script(file: &str) -> String {
    format!(
        "let h = host(\"local\");\nprint(h.read([\"cat\", \"{file}\"]).out);\n\
         h.run([\"sh\", \"-c\", \"echo two >> {file}\"]);\nprint(h.read([\"cat\", \"{file}\"]).out);\nprint(now());\n"
    )
}

/// A home with a recording of [`script`], whose world is gone.
fn recorded() -> (Home, String, String) {
    let home = Home::new();
    home.put("opsh.toml", "");
    let file = home.put("data", "one\n");
    let path = home.put("look.rhai", &script(&file));
    home.run(&["--yes", &path]).exits(0).shows(&["one", "one\ntwo"]);
    let recording = home.run(&["journal", "export", "last"]).exits(0).out;
    let recording = home.put("run.jsonl", &recording);
    std::fs::remove_file(&file).unwrap();
    (home, path, recording)
}

/// What a replay says after the line that it is one.
#[track_caller]
/// Standard error without what is said while this machine's Docker Engine is slow: no part of the run.
fn said(ran: &Ran) -> String {
    let is_slow = |line: &str| line.starts_with("warning: opsh does not know yet") || line.starts_with("… ");
    ran.err.split_inclusive('\n').filter(|line| !is_slow(line)).collect()
}

fn after_notice(ran: &Ran) -> String {
    let (notice, rest) = ran.err.split_once('\n').unwrap();
    assert!(notice.starts_with("replay of ") && notice.ends_with("nothing is reached or changed"), "{notice}");
    rest.to_string()
}

#[test]
fn a_replay_shows_what_the_run_showed_byte_for_byte_and_reaches_nothing() {
    let (home, path, recording) = recorded();
    let before = home.run(&["journal", "list"]).out;
    let first = home.run(&["--replay", &recording, &path]).exits(0).shows(&["one", "one\ntwo"]);
    let second = home.run(&["--replay", &recording, &path]).exits(0);
    assert_eq!((&first.out, &first.err), (&second.out, &second.err));
    assert!(!home.path("data").exists(), "the change was compared and not made");
    assert_eq!(home.run(&["journal", "list"]).out, before, "what did not happen is not in the record");
}

#[test]
fn the_first_difference_is_named_with_its_line_and_what_the_recording_has() {
    let (home, path, recording) = recorded();
    let text = std::fs::read_to_string(&path).unwrap();
    let other = home.put("other.rhai", &text.replace("echo two", "echo three"));
    home.run(&["--replay", &recording, &other]).exits(1).says(&[
        "the replay differs from its recording",
        "echo three",
        "the recording has host.run on local",
        "echo two",
        "other.rhai:3:",
    ]);
    let read = home.put("read.rhai", &text.replace("[\"cat\"", "[\"wc\""));
    home.run(&["--replay", &recording, &read]).exits(1).says(&["the script did host.read on local wc", "read.rhai:2:"]);
    let less = home.put("less.rhai", "let h = host(\"local\");");
    home.run(&["--replay", &recording, &less])
        .exits(1)
        .says(&["the script ended; the recording goes on with host.run"]);
}

#[test]
fn what_a_script_expects_is_judged_anew_and_is_no_difference() {
    let (home, path, recording) = recorded();
    let text = std::fs::read_to_string(&path).unwrap();
    let more =
        |fact: &str| home.put("more.rhai", &text.replace("h.run", &format!("expect({fact}, \"x\", \"y\");\nh.run")));
    home.run(&["--replay", &recording, &more("true")]).exits(0).shows(&["one", "one\ntwo"]);
    let ran =
        home.run(&["--replay", &recording, &more("false")]).exits(1).says(&["not so: x", "more.rhai:3:", "why: y"]);
    assert!(!ran.err.contains("differs"), "{ran:?}");
}

#[test]
fn a_difference_ends_the_replay_also_when_the_script_catches_it() {
    let (home, path, recording) = recorded();
    let text = std::fs::read_to_string(&path).unwrap().replace("echo two", "echo three");
    let caught = home.put("caught.rhai", &format!("try {{ {text} }} catch (e) {{ print(e.kind) }}"));
    let ran = home.run(&["--replay", &recording, &caught]).exits(1).says(&["the replay differs from its recording"]);
    assert!(ran.out.contains("unmet"), "{ran:?}");
}

#[test]
fn a_refusal_and_a_failure_are_replayed_as_they_were() {
    let home = Home::new();
    home.put("opsh.toml", "[host.prod]\nssh = \"nobody@127.0.0.1\"\nport = 1\n");
    for (code, exit, what) in [
        ("host(\"prod\").run([\"true\"])", 3, "refused: host.run on prod"),
        ("host(\"prod\").read([\"df\"])", 1, "why: "),
        ("host(\"local\").run([\"false\"])", 1, "false failed on local"),
    ] {
        let flags: &[&str] = if exit == 3 { &["-e", code] } else { &["--yes", "-e", code] };
        let real = home.run(flags).exits(exit).says(&[what]);
        let recording = home.run(&["journal", "export", "last"]).exits(0).out;
        let recording = home.put("run.jsonl", &recording);
        let again = home.run(&["--replay", &recording, "-e", code]).exits(exit).says(&[what]);
        assert_eq!(said(&real), after_notice(&again), "{code}");
    }
}

#[test]
fn a_value_that_was_cut_or_was_a_secret_refuses_to_be_replayed_with_the_reason() {
    let home = Home::new();
    home.put("opsh.toml", "");
    let big = home.put("big", &"x".repeat(600 << 10));
    let token = home.put("token", "ghp_abcdefghijklmnopqrstuvwxyz0123456789");
    let log = home.put("log", "login with ghp_abcdefghijklmnopqrstuvwxyz0123456789 failed");
    for (file, exit, why) in [(&big, 1, "the ends of it only"), (&token, 1, "was a secret"), (&log, 0, "")] {
        let code = format!("host(\"local\").read([\"cat\", \"{file}\"]).out.len()");
        home.run(&["-e", &code]).exits(0);
        let recording = home.run(&["journal", "export", "last"]).exits(0).out;
        let recording = home.put("run.jsonl", &recording);
        home.run(&["--replay", &recording, "-e", &code]).exits(exit).says(&[why]);
    }
}

#[test]
fn a_file_that_is_no_recording_is_a_usage_error_and_flags_of_then_are_not_given_again() {
    let (home, path, recording) = recorded();
    home.run(&["--replay", &path, "-e", "1"]).exits(2).says(&["is no recording", "opsh journal export RUN"]);
    home.run(&["--replay", "gone.jsonl", "-e", "1"]).exits(2).says(&["cannot be read"]);
    home.run(&["--replay", &recording, "--yes", "-e", "1"]).exits(2);
}

#[test]
fn a_replay_is_recorded_only_in_a_folder_that_was_named_for_it_and_once() {
    let (home, path, recording) = recorded();
    let dir = home.path("elsewhere").display().to_string();
    home.run(&["--state-dir", &dir, "--replay", &recording, &path]).exits(0);
    let list = home.run(&["--state-dir", &dir, "journal", "list"]).exits(0).out;
    assert!(list.contains("look.rhai"), "{list}");
    home.run(&["--state-dir", &dir, "--replay", &recording, &path]).exits(2).says(&["has run"]);
}

#[test]
fn what_a_recorded_replay_says_is_neither_undone_nor_gone_on_with() {
    let home = Home::new();
    let made = home.path("made").display().to_string();
    let code = "host(\"local\").run([\"true\"], #{ undo: \"host(\\\"local\\\").run([\\\"touch\\\", \\\"MADE\\\"])\" }); throw 1;";
    let path = home.put("s.rhai", &code.replace("MADE", &made));
    home.run(&["--yes", &path]).exits(1);
    let recording = home.put("run.jsonl", &home.run(&["journal", "export", "last"]).out);
    let dir = home.path("elsewhere").display().to_string();
    home.run(&["--state-dir", &dir, "--replay", &recording, &path]).exits(1);
    let run = home.records()[0]["run"].as_str().unwrap().to_string();
    for words in [["undo", &run, "--yes"], ["resume", &run, "--yes"]] {
        home.run(&[&["--state-dir", &dir], &words[..]].concat()).exits(2).says(&["it was a replay"]);
    }
    home.run(&["--state-dir", &dir, "undo", "last", "--yes"]).exits(1).says(&["nothing to undo"]);
    assert!(!home.path("made").exists());
}

#[test]
fn after_an_effect_that_is_let_fail_changes_are_accepted_and_unknown_reads_are_not_reached() {
    let (home, path, recording) = recorded();
    for at in 1..=4 {
        let at = at.to_string();
        home.run(&["--fail-at", &at, "--replay", &recording, &path]).exits(1).says(&["--fail-at let it fail"]);
    }
    let code = "let h = host(\"local\"); h.run([\"true\"]); h.read([\"df\"])";
    home.run(&["--fail-at", "after:0", "--replay", &recording, "-e", code])
        .exits(1)
        .says(&["✓ host.run  local", "the recording does not know it"]);
}

#[test]
fn a_guard_that_went_back_goes_back_in_the_replay_too() {
    let home = Home::new();
    home.put("opsh.toml", "");
    let file = home.path("made").display().to_string();
    let undo = format!("host(\\\"local\\\").run([\\\"rm\\\", \\\"{file}\\\"])");
    let work = format!("host(\"local\").run([\"touch\", \"{file}\"], #{{ undo: \"{undo}\" }}); throw \"no disk\"");
    let path = home.put("guarded.rhai", &format!("undo::guard(|| {{ {work} }})\n"));
    let real = home.run(&["--yes", &path]).exits(1).says(&["no disk", "taken back: 1 of 1 effects"]);
    let recording = home.run(&["journal", "export", "last"]).exits(0).out;
    let recording = home.put("run.jsonl", &recording);
    let again = home.run(&["--replay", &recording, &path]).exits(1);
    assert_eq!((&real.out, said(&real)), (&again.out, after_notice(&again)), "a replay shows what was shown");
}

#[test]
fn a_run_is_read_in_pages_that_a_recording_holds_whole() {
    let home = Home::new();
    home.put("many.rhai", "for n in 0..700 { now(); }");
    home.run(&["many.rhai"]).exits(0);
    home.put(
        "pages.rhai",
        "let seen = 0; let pages = 0; let from = 0; let run = journal::runs(2)[1].run;
         while from != () {
             let page = journal::run(run, #{ looks: [\"clock.now\"], from: from });
             seen += page.records.filter(|one| one.kind == \"effect.read\").len(); pages += 1; from = page.next;
         }
         let short = journal::run(run);
         print(`${seen} in ${pages > 1} pages, ${short.looks[0].count} ${short.looks[0].verb} in one: ${short.next == ()}`);",
    );
    let told = "700 in true pages, 700 clock.now in one: true\n";
    home.run(&["pages.rhai"]).exits(0).prints(told);
    let recording = home.put("r.jsonl", &home.run(&["journal", "export", "last"]).exits(0).out);
    home.run(&["--replay", &recording, "pages.rhai"]).exits(0).prints(told);
}
