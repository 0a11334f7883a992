//! The built program as an operator without a terminal meets it: values, errors, exit codes, the journal, and what is
//! left when it dies. Each test has a home of its own.

use crate::home::{Home, Ran};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

fn touch(path: &Path) -> String {
    format!("host(\"local\").run([\"touch\", \"{}\"])", path.display())
}

/// Ctrl-C as soon as the run has printed a line; one that does not end then is killed.
pub fn interrupted(home: &Home, words: &[&str]) -> Ran {
    let mut child = home.command(words).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    let signal = |signal: i32| {
        // SAFETY: a system call without pointers; the child was not waited for, so the number is still its own.
        unsafe { libc::kill(child.id() as i32, signal) };
    };
    signal(libc::SIGINT);
    let (sender, ended) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        let _ = sender.send(());
        format!("{first}{rest}")
    });
    if ended.recv_timeout(Duration::from_secs(20)).is_err() {
        signal(libc::SIGKILL);
    }
    let out = reader.join().unwrap();
    Ran { out, ..Ran::of(child.wait_with_output().unwrap()) }
}

// ── values and errors ──

#[test]
fn a_value_is_printed_for_a_person_or_as_one_json_line() {
    let home = Home::new();
    home.run(&["-e", "40 + 2"]).exits(0).prints("42\n");
    home.run(&["-e", "let x = 1;"]).exits(0).prints("");
    home.run(&["-e", "#{ name: \"x\", list: [1, 2] }"]).exits(0).prints("name  x\nlist  1, 2\n");
    home.run(&["--json", "-e", "#{ a: [1, 2.5, \"x\", (), true] }"])
        .exits(0)
        .prints("{\"a\":[1,2.5,\"x\",null,true]}\n");
    home.run(&["--json", "-e", "\"a\\nb\""]).exits(0).prints("\"a\\nb\"\n");
    home.run(&["--json", "-e", "()"]).exits(0).prints("null\n");
}

#[test]
fn what_a_script_prints_is_not_mixed_with_its_json() {
    let home = Home::new();
    let ran = home.run(&["--json", "-e", "print(\"hello\"); 7"]).exits(0).prints("7\n");
    assert_eq!(ran.err, "hello\n");
    home.run(&["-e", "print(\"hello\"); 7"]).exits(0).prints("hello\n7\n");
}

#[test]
fn print_and_table_show_lists_and_maps_as_the_screen_does() {
    let home = Home::new();
    home.run(&["-e", "print([#{ name: \"a\", n: 1 }, #{ name: \"b\", n: 22 }]); print(#{ n: 1 }); print(1.5);"])
        .exits(0)
        .prints("NAME  N\na     1\nb     22\nn  1\n1.5\n");
    home.run(&["-e", "table([#{ n: 1 }]) + \"!\""]).exits(0).prints("N\n1!\n");
    home.run(&["-e", "print(host(\"local\"))"]).exits(0).prints("local\n");
}

#[test]
fn an_error_has_its_place_its_line_and_its_reason() {
    let home = Home::new();
    let script = home.put(
        "fails.rhai",
        "//! Fails.\n//!\n//! usage: opsh fails.rhai\nfn f(x) {\n    throw \"no disk\"\n}\n  f(1);\n",
    );
    let ran = home.run(&[&script]).exits(1).prints("");
    let expected = format!(
        "error: the script stopped\n  --> {script}:5:5\n   in {script}:7:3\n   5 |     throw \"no disk\"\n     |     ^^^^^\n  why: no disk\n"
    );
    assert_eq!(ran.err, expected);
}

#[test]
fn with_json_an_error_is_one_object_on_standard_error() {
    let home = Home::new();
    let ran = home.run(&["--json", "-e", "\n  sleep(-1)"]).exits(2).prints("");
    let error: Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!((error["kind"].as_str(), error["at"].as_str()), (Some("usage"), Some("line 1:2:3")), "{error}");
    assert!(error["why"].as_str().unwrap().contains("seconds must be 0 to 86400, not -1"), "{error}");
    assert!(!error["next"].as_array().unwrap().is_empty(), "{error}");
}

#[test]
fn a_thrown_map_keeps_its_kind_and_sets_the_exit_code() {
    let home = Home::new();
    for (kind, code) in
        [("failed", 1), ("unmet", 1), ("usage", 2), ("refused", 3), ("unknown", 4), ("interrupted", 130)]
    {
        let code_text = format!("throw #{{ kind: \"{kind}\", what: \"w\", why: \"y\", next: [\"do this\"] }}");
        home.run(&["-e", &code_text]).exits(code).says(&["error: w\n", "  why: y\n", " next: do this\n"]);
    }
    let caught = "let seen = (); try { sleep(-1) } catch (e) { seen = [e.kind, e.what]; } seen";
    home.run(&["--json", "-e", caught]).exits(0).prints("[\"usage\",\"clock.sleep was called wrongly\"]\n");
}

#[test]
fn a_slip_of_the_finger_is_answered_with_the_name_that_was_meant() {
    let home = Home::new();
    home.put("opsh.toml", CONFIG);
    for (words, meant) in [
        (&["-e", "nwo()"][..], "did you mean \"now\"?"),
        (&["-e", "host(\"local\").raed([\"ls\"])"], "did you mean \"read\"?"),
        (&["-e", "\"12\".to_int()"], "parse_int(text)"),
        (&["-e", "stack(\"prdo\")"], "did you mean \"prod\"?"),
        (&["-e", "host(\"prod1\").connect()"], "did you mean \"prod-1\"?"),
        (&["-e", "host(\"local\").read([\"ls\"], #{ withn_s: 3 })"], "expected one of `within_s`"),
        (&["--allow", "docker.restrat", "-e", "1"], "did you mean \"docker.restart\"?"),
        (&["help", "docker.restrat"], "did you mean \"docker.restart\"?"),
        (&["jurnal", "list"], "did you mean \"journal\"?"),
        (&["--jsn", "-e", "1"], "'--json'"),
        (&["journal", "lst"], "'list'"),
    ] {
        home.run(words).exits(2).prints("").says(&[meant]);
    }
}

#[test]
fn a_script_that_does_not_parse_or_is_not_there_is_a_usage_error() {
    let home = Home::new();
    let script = home.put("bad.rhai", "let a = 1;\nlet b = ;\n");
    home.run(&[&script]).exits(2).says(&["does not parse", "bad.rhai:2:9", "2 | let b = ;"]);
    home.run(&["-e", "let = 3"]).exits(2).says(&["line 1 does not parse"]);
    home.run(&["./none.rhai"]).exits(2).says(&["script ./none.rhai cannot be read", "No such file"]);
    home.run(&["--plan", "--observe", "-e", "1"]).exits(2).says(&["cannot be used with"]);
}

#[test]
fn a_script_shows_its_header_and_refuses_arguments_that_it_does_not_know() {
    let home = Home::new();
    let text = "//! Greets.\n//!\n//! usage: opsh greet.rhai NAME [--loud] [--times N]\nprint(`${args::need(0, \"NAME\")} ${args::option(\"times\", \"1\")} ${args::flag(\"loud\")}`);\n";
    let script = home.put("greet.rhai", text);
    home.run(&[&script, "--help"]).exits(0).prints("Greets.\n\nusage: opsh greet.rhai NAME [--loud] [--times N]\n");
    home.run(&[&script, "Ann", "--times", "3", "--loud"]).exits(0).prints("Ann 3 true\n");
    let ran = super::undo::runs(&home).remove(0)["what"].clone();
    assert!(ran.as_str().unwrap().ends_with("greet.rhai Ann --loud"), "what a flag agrees to is told: {ran}");
    home.run(&[&script, "Ann"]).exits(0).prints("Ann 1 false\n");
    home.run(&[&script]).exits(2).says(&[
        "the script was not started",
        "NAME is missing",
        "usage: opsh greet.rhai NAME",
    ]);
    let patient = home.put(
        "patient.rhai",
        "//! Waits.\n//!\n//! usage: opsh patient.rhai [--within 60]\nargs::number(\"within\", 60, 1, 3600)\n",
    );
    home.run(&["--json", &patient, "--within", "3600"]).exits(0).prints("3600\n");
    home.run(&["--json", &patient]).exits(0).prints("60\n");
    for wrong in ["0", "3601", "1.5", "soon"] {
        let says = format!("it must be a whole number from 1 to 3600, not {wrong}");
        home.run(&[&patient, "--within", wrong]).exits(2).says(&[
            "--within is not valid",
            &says,
            "usage: opsh patient",
        ]);
    }
    home.run(&[&script, "Ann", "--luod"]).exits(2).says(&["did you mean \"loud\"?"]);
    home.run(&[&script, "Ann", "--yes"]).exits(2).says(&["an option of opsh, not of the script"]);
    assert_eq!(home.run(&["journal", "list", "--json"]).code, Some(2), "--json goes before the command");
}

#[test]
fn standard_input_that_is_no_terminal_is_a_script() {
    let home = Home::new();
    let mut child = home.command(&[]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"let a = 20;\nprint(a);\na + 1\n").unwrap();
    Ran::of(child.wait_with_output().unwrap()).exits(0).prints("20\n21\n");
}

#[test]
fn help_lists_every_verb_and_explains_one() {
    let home = Home::new();
    let all = home.run(&["help"]).exits(0);
    for verb in opsh::bind::all().map(opsh::bind::Binding::verb) {
        assert!(all.out.lines().any(|line| line.starts_with(&format!("{} ", verb.name))), "{}\n{}", verb.name, all.out);
    }
    let one = home.run(&["help", "docker.restart"]).exits(0);
    for word in ["stack.restart(service: string, grace_s?: int) -> receipt", "`grace_s`", "0 to 600", "example: "] {
        assert!(one.out.contains(word), "{word}\n{}", one.out);
    }
    let system = home.run(&["help", "git"]).exits(0);
    assert!(system.out.contains("git.checkout") && !system.out.contains("docker."), "{}", system.out);
    home.run(&["--version"]).exits(0).prints(concat!("opsh ", env!("CARGO_PKG_VERSION"), "\n"));
    assert!(!home.journal().exists(), "asking for help makes no journal");
}

// ── configuration ──

const CONFIG: &str = r#"
[host.prod-1]
ssh = "root@203.0.113.10"
[stack.prod]
host = "prod-1"
dir = "/opt/app"
compose = { files = ["docker-compose.yml"], project = "app" }
"#;

#[test]
fn a_mistake_in_the_configuration_is_named_with_its_line_before_anything_runs() {
    let home = Home::new();
    for (from, to, words) in [
        ("ssh = ", "shh = ", &["opsh.toml is not valid", "line 3", "shh"][..]),
        ("\"prod-1\"\ndir", "\"prod-2\"\ndir", &["stack.prod: no host \"prod-2\"", "did you mean \"prod-1\"?"]),
        ("/opt/app", "opt/app", &["not an absolute path"]),
        ("[stack.prod]", "[stack.prod", &["opsh.toml is not valid", "line 4"]),
    ] {
        home.put("opsh.toml", &CONFIG.replace(from, to));
        let ran = home.run(&["-e", "print(\"ran\")"]).exits(2).prints("");
        ran.says(words);
    }
    home.run(&["--config", "none.toml", "-e", "1"]).exits(2).says(&["none.toml cannot be read"]);
}

#[test]
fn the_nearest_configuration_above_the_working_directory_is_taken() {
    let home = Home::new();
    home.put("opsh.toml", CONFIG);
    std::fs::create_dir_all(home.path("a/b")).unwrap();
    let ran = home.command(&["-e", "stack(\"prod\").name"]).current_dir(home.path("a/b")).output().unwrap();
    Ran::of(ran).exits(0).prints("prod\n");
    home.put("a/opsh.toml", &CONFIG.replace("stack.prod", "stack.near"));
    let ran = home.command(&["-e", "stack(\"near\").name"]).current_dir(home.path("a/b")).output().unwrap();
    Ran::of(ran).exits(0).prints("near\n");
}

// ── the door ──

#[test]
fn without_a_terminal_a_change_needs_yes_and_says_so() {
    let home = Home::new();
    let (file, code) = (home.path("made"), touch(&home.path("made")));
    home.run(&["-e", &code]).exits(3).prints("").says(&[
        "refused: host.run on local",
        "--yes was not given",
        "opsh --yes",
    ]);
    assert!(!file.exists());
    assert_eq!(home.story(), ["run.start", "consent", "run.end refused"]);
    home.run(&["--yes", "-e", &code]).exits(0).says(&["→ host.run  local  touch", "✓ host.run  local"]);
    assert!(file.exists());
    assert_eq!(home.story(), ["run.start", "effect.begin", "effect.end ok", "run.end ok"]);
    let begin = &home.records()[1];
    assert_eq!(begin["body"]["args"]["words"], json!(["touch", file.display().to_string()]));
    assert_eq!(begin["body"]["at"], "line 1:1:15");
}

#[test]
fn observe_refuses_every_change_whatever_was_agreed_to() {
    let home = Home::new();
    let code = touch(&home.path("made"));
    let ran = home.run(&["--observe", "--yes", "-e", &code]).exits(3);
    ran.says(&["this run only observes; nothing changed"]);
    assert!(!home.path("made").exists());
    home.run(&["--observe", "-e", "host(\"local\").read([\"echo\", \"hi\"]).out"]).exits(0).prints("hi\n\n");
}

#[test]
fn plan_prints_the_changes_and_does_the_reads() {
    let home = Home::new();
    let code = format!(
        "let r = {}; let r2 = {}; print(host(\"local\").read([\"echo\", \"hi\"]).code); r.skipped",
        touch(&home.path("made")),
        touch(&home.path("too"))
    );
    let ran = home.run(&["--plan", "-e", &code]).exits(0).prints("0\ntrue\n");
    assert_eq!(ran.err.matches("exact to here on local").count(), 1, "{}", ran.err);
    assert_eq!(ran.err.matches("would: touch").count(), 2, "{}", ran.err);
    assert!(!home.path("made").exists() && !home.path("too").exists());
    assert_eq!(home.story(), ["run.start", "effect.read ok", "run.end ok"]);
}

#[test]
fn a_read_is_a_read_only_when_it_is_listed_as_one() {
    let home = Home::new();
    let file = home.put("keep", "");
    for words in [
        format!("[\"rm\", \"{file}\"]"),
        format!("[\"find\", \"{file}\", \"-delete\"]"),
        format!("[\"sh\", \"-c\", \"rm {file}\"]"),
    ] {
        let ran = home.run(&["--yes", "-e", &format!("host(\"local\").read({words})")]).exits(2);
        ran.says(&["use host.run"]);
    }
    assert!(Path::new(&file).exists());
    assert_eq!(home.story(), ["run.start", "run.end failed"]);
}

#[test]
fn a_command_that_fails_is_an_error_with_its_exit_code_and_its_last_words() {
    let home = Home::new();
    let code = "host(\"local\").sh(\"echo first; echo $1 >&2; exit 7\", [\"a'b c\"])";
    let ran = home.run(&["--yes", "--json", "-e", code]).exits(1);
    let error: Value = serde_json::from_str(ran.err.lines().last().unwrap()).unwrap();
    assert_eq!((&error["kind"], &error["exit"], &error["host"]), (&json!("failed"), &json!(7), &json!("local")));
    assert!(error["why"].as_str().unwrap().contains("exit code 7: a'b c"), "{error}");
    let absent = home.run(&["--yes", "--json", "-e", "host(\"local\").run([\"no-such-program\"])"]).exits(1);
    assert!(absent.err.contains("\"kind\":\"not_found\""), "{}", absent.err);
}

#[test]
fn a_change_that_outlives_its_deadline_may_have_happened() {
    let home = Home::new();
    let code = "host(\"local\").run([\"sleep\", \"3\"], #{ within_s: 1 })";
    home.run(&["--yes", "-e", code])
        .exits(4)
        .says(&["not done within 1 s", "it may have happened, or still be going on"]);
    assert_eq!(home.story(), ["run.start", "effect.begin", "effect.end timeout", "run.end unknown"]);
}

// ── Ctrl-C ──

#[test]
fn ctrl_c_ends_a_wait_and_a_loop_and_cannot_be_swallowed() {
    let home = Home::new();
    for code in [
        "print(\"ready\"); sleep(600)",
        "print(\"ready\"); loop { }",
        "print(\"ready\"); try { sleep(600) } catch { loop { print(\"swallowed\"); } }",
        "print(\"ready\"); host(\"local\").read([\"tail\", \"-f\", \"/dev/null\"], #{ within_s: 600 })",
    ] {
        let ran = interrupted(&home, &["-e", code]).exits(130).prints("ready\n");
        assert!(ran.err.contains("Ctrl-C"), "{code}: {}", ran.err);
        assert_eq!(home.story().last().map(String::as_str), Some("run.end interrupted"), "{code}");
    }
}

// ── the journal ──

#[test]
fn the_journal_lists_shows_exports_and_verifies_what_was_done() {
    let home = Home::new();
    home.run(&["journal", "list"]).exits(0).prints("no runs yet\n");
    home.run(&["--yes", "-e", &touch(&home.path("made"))]).exits(0);
    home.run(&["-e", "throw \"no\""]).exits(1);
    let runs = home.run(&["--json", "journal", "list"]).exits(0);
    let runs: Vec<Value> = runs.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let facts = |run: &Value| (run["outcome"].clone(), run["changes"].clone());
    assert_eq!(runs.iter().map(facts).collect::<Vec<_>>(), [(json!("failed"), json!(0)), (json!("ok"), json!(1))]);
    let list = home.run(&["journal", "list"]).exits(0);
    assert!(list.out.contains("touch") && list.out.contains("OUTCOME"), "{}", list.out);

    let first = runs[1]["run"].as_str().unwrap();
    let shown = home.run(&["journal", "show", first]).exits(0);
    for word in ["host.run", "local", "touch", "→ ok", "run ended: ok", "(apply)"] {
        assert!(shown.out.contains(word), "{word}\n{}", shown.out);
    }
    let end = &first[first.len() - 4..];
    let exported = home.run(&["journal", "export", end]).exits(0);
    assert_eq!(exported.out.lines().count(), 5, "{}", exported.out);
    home.run(&["journal", "show", "zzzz"]).exits(1).says(&["no run \"zzzz\"", "opsh journal list"]);
    home.run(&["journal", "verify"]).exits(0).prints("6 records, 1 changes: the chain is whole\n");
}

#[test]
fn an_edited_journal_does_not_verify_and_the_record_is_named() {
    let edits = [
        ("UPDATE journal SET body = replace(body, 'touch', 'tooch') WHERE seq = 2", "journal record 2"),
        ("UPDATE journal SET at_us = at_us + 1 WHERE seq = 3", "journal record 3"),
        ("DELETE FROM journal WHERE seq = 2", "journal record 3"),
        ("UPDATE journal SET actor = 'somebody else' WHERE seq = 1", "journal record 1"),
    ];
    for (edit, named) in edits {
        let home = Home::new();
        home.run(&["--yes", "-e", &touch(&home.path("made"))]).exits(0);
        let database = rusqlite::Connection::open(home.journal()).unwrap();
        assert!(database.execute(edit, []).is_err(), "{edit} was not refused by the database itself");
        database.execute_batch("DROP TRIGGER journal_no_update; DROP TRIGGER journal_no_delete").unwrap();
        assert_eq!(database.execute(edit, []).unwrap(), 1, "{edit}");
        drop(database);
        home.run(&["journal", "verify"]).exits(1).says(&[named]);
    }
}

#[test]
fn without_a_journal_reads_go_on_and_changes_are_refused() {
    let home = Home::new();
    let state = format!("{}/sub", home.put("file", ""));
    let read = home
        .run(&["--state-dir", &state, "-e", "host(\"local\").read([\"echo\", \"hi\"]).code"])
        .exits(0)
        .prints("0\n");
    assert_eq!(read.err.matches("NOT RECORDED").count(), 1, "{}", read.err);
    let code = touch(&home.path("made"));
    let refused = home.run(&["--state-dir", &state, "--yes", "-e", &code]).exits(1);
    refused.says(&["journal", "cannot be written", "Not a directory"]);
    assert!(!home.path("made").exists());
}

#[test]
fn many_programs_at_once_keep_one_chain() {
    let home = Home::new();
    let code = |n: usize| format!("for i in 0..5 {{ host(\"local\").run([\"true\", \"{n}\", i]) }}");
    let running: Vec<Child> = (0..4).map(|n| home.command(&["--yes", "-e", &code(n)]).spawn().unwrap()).collect();
    for child in running {
        Ran::of(child.wait_with_output().unwrap()).exits(0);
    }
    home.run(&["journal", "verify"]).exits(0).prints("48 records, 20 changes: the chain is whole\n");
}

#[test]
fn the_folder_of_the_journal_is_the_operators_alone() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    home.run(&["-e", "1"]).exits(0);
    let mode = std::fs::metadata(home.path("state/opsh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let relative = home.command(&["-e", "1"]).env("XDG_STATE_HOME", "state2").output().unwrap();
    Ran::of(relative).exits(0);
    assert!(home.path(".local/state/opsh/journal.db").exists(), "a relative XDG_STATE_HOME is ignored");
}

/// Kills opsh at `point` of its only change, and looks at what the next one says about it.
fn dies(point: &str, happened: bool) {
    if !cfg!(debug_assertions) {
        return crate::skip::skip("a release build of opsh cannot be told when to die");
    }
    let home = Home::new();
    let code = touch(&home.path("made"));
    let killed = home.run_with(&["--yes", "-e", &code], "OPSH_TEST_KILL", &format!("{point}:1"));
    assert_eq!(killed.signal, Some(libc::SIGKILL), "{killed:?}");
    assert_eq!(home.path("made").exists(), happened);

    home.run(&["-e", "1"]).exits(0).says(&["may have happened: host.run on local", "touch"]);
    let list = home.run(&["journal", "list"]).exits(0);
    assert!(list.out.contains("killed, 1 may have happened"), "{}", list.out);
    home.run(&["-e", "2"]).exits(0).says(&["may have happened"]);
    home.run(&["journal", "verify"]).exits(0).prints("8 records, 1 changes: the chain is whole\n");
    let runs = home.run(&["--json", "journal", "list"]).exits(0);
    let oldest: Value = serde_json::from_str(runs.out.lines().last().unwrap()).unwrap();
    let records = home.run(&["journal", "export", oldest["run"].as_str().unwrap()]).exits(0);
    let ends: Vec<Value> = records
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|record: &Value| record["kind"] == "effect.end")
        .collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
    assert_eq!(ends[0]["body"]["outcome"], "unknown");
}

#[test]
fn killed_before_the_change_it_may_have_happened_and_has_one_end() {
    dies("begun", false);
}

#[test]
fn killed_after_the_change_it_may_have_happened_and_has_one_end() {
    dies("performed", true);
}

// ── secrets ──

const CANARY: &str = "canary-Zk4pQ0vXw7Lm";

/// Files below `dir` that hold the canary.
fn holders(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holders(&path));
        } else if std::fs::read(&path)
            .is_ok_and(|bytes| bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()))
        {
            found.push(path);
        }
    }
    found
}

/// A home whose host has a password in a file of this mode, and no sshd.
fn with_password(mode: u32) -> Home {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let password = home.put("password", &format!("{CANARY}\n"));
    std::fs::set_permissions(password, std::fs::Permissions::from_mode(mode)).unwrap();
    // Nothing listens on port 1, and nothing is asked beyond this machine.
    home.put("opsh.toml", "[host.web]\nssh = \"nobody@127.0.0.1\"\nport = 1\npassword = \"file:password\"\n");
    home
}

#[test]
fn a_password_is_never_shown_nor_recorded_once_it_is_known() {
    let home = with_password(0o600);
    let code = format!(
        "try {{ host(\"web\").connect() }} catch {{ }} let text = host(\"local\").read([\"cat\", \"{}\"]).out; print(text); throw `leak ${{text}}`",
        home.path("password").display()
    );
    for words in [&["-e", &code][..], &["--json", "-e", &code]] {
        let ran = home.run(words).exits(1);
        assert!(ran.err.contains("leak") && ran.err.contains("•••#"), "{}", ran.err);
        assert!(!ran.out.contains(CANARY) && !ran.err.contains(CANARY), "{ran:?}");
        let stories = home.story();
        assert!(stories.contains(&"effect.read ok".into()), "{stories:?}");
    }
    let shown = home.run(&["journal", "show", "last"]).exits(0);
    assert!(!shown.out.contains(CANARY), "{}", shown.out);
    assert_eq!(holders(home.0.path()), [home.path("password")]);
}

#[test]
fn a_password_file_that_others_can_read_is_refused() {
    let home = with_password(0o644);
    let ran = home.run(&["-e", "host(\"web\").connect()"]).exits(2);
    assert!(!ran.err.contains(CANARY), "{}", ran.err);
    ran.says(&["no password of web", "chmod 600"]);
}

#[test]
fn a_password_written_into_the_configuration_is_refused_and_not_repeated() {
    let home = Home::new();
    home.put("opsh.toml", &format!("[host.web]\nssh = \"a@b\"\npassword = \"{CANARY}\"\n"));
    for words in [&["-e", "1"][..], &["--json", "-e", "1"]] {
        let ran = home.run(words).exits(2);
        assert!(!ran.err.contains(CANARY) && !ran.out.contains(CANARY), "{}", ran.err);
        ran.says(&["a secret is named, not written", "line 3"]);
    }
}

#[test]
fn what_looks_like_a_secret_is_hidden_although_nobody_named_it() {
    let home = Home::new();
    let code = "print(\"postgres://app:hunter2secret@db/app\"); #{ db_password: \"tr0ub4dor\", user: \"app\" }";
    for words in [&["-e", code][..], &["--json", "-e", code]] {
        let ran = home.run(words).exits(0);
        let all = format!("{}{}", ran.out, ran.err);
        assert!(!all.contains("hunter2secret") && all.contains("postgres://app:•••"), "{all}");
    }
    let json = home.run(&["--json", "-e", code]).exits(0);
    assert!(!json.out.contains("tr0ub4dor") && json.out.contains("\"user\":\"app\""), "{}", json.out);
}

#[test]
fn an_unrecorded_clock_is_refused_and_the_recorded_one_named() {
    Home::new().run(&["-e", "timestamp()"]).exits(1).says(&["there is no timestamp()", "now() is the time"]);
}

#[test]
fn a_misspelt_system_of_verbs_is_answered_with_the_one_that_was_meant() {
    Home::new().run(&["help", "dockr"]).exits(2).says(&["no system \"dockr\"", "did you mean \"docker\"?"]);
}

#[test]
fn what_may_have_happened_is_shown_until_a_person_says_what_was_seen() {
    let home = Home::new();
    home.run_with(&["--yes", "-e", &touch(&home.path("x"))], "OPSH_TEST_KILL", "performed:1");
    home.run(&["-e", "1"]).exits(0).says(&["may have happened: host.run on local"]);
    let list = home.run(&["--json", "journal", "list"]).exits(0).out;
    let killed: Value = list
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .find(|run: &Value| run["unknown"] == json!(1))
        .unwrap();
    home.run(&["journal", "settle", killed["run"].as_str().unwrap(), "x is there"])
        .exits(0)
        .prints("settled, with what you saw in the record\n");
    let quiet = home.run(&["-e", "1"]).exits(0);
    assert!(!quiet.err.contains("may have happened"), "{}", quiet.err);
    home.run(&["journal", "verify"]).exits(0);
}

#[test]
fn a_folder_that_is_there_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let dir = home.path("shared");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    home.run(&["--state-dir", "shared", "-e", "1"]).exits(0);
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(std::fs::metadata(dir.join("journal.db")).unwrap().permissions().mode() & 0o777, 0o600);
}

// ── secrets ──

/// With `input` on standard input, and the password of the configuration in the environment.
fn with_input(home: &Home, words: &[&str], input: &str) -> Ran {
    let mut command = home.command(words);
    let mut child = command.env("PROD_PASSWORD", "hunter2-value").stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Ran::of(child.wait_with_output().unwrap())
}

fn with_secrets() -> Home {
    let home = Home::new();
    let host = "[host.prod-1]\nssh = \"root@203.0.113.10\"\npassword = \"env:PROD_PASSWORD\"\n";
    home.put("opsh.toml", &format!("{host}passphrase = \"prompt:\"\n[redact]\nnames = [\"acme_*\"]\n"));
    home
}

#[test]
fn secret_check_tells_by_which_rule_a_value_is_hidden_and_does_not_show_it() {
    let home = with_secrets();
    for (value, code, word) in [
        ("hunter2-value", 0, "host.prod-1.password (env:PROD_PASSWORD)"),
        ("ghp_abcdefghijklmnopqrstuvwx", 0, "\"shape\":true"),
        ("acme_code=my-own-thing", 0, "\"shape\":true"),
        ("some-other-value", 1, "\"declared\":[]"),
        ("abc", 1, "hidden there only"),
    ] {
        let ran = with_input(&home, &["--json", "secret", "check"], &format!("{value}\nsecond line\n")).exits(code);
        assert!(ran.out.contains(word), "{value}: {}", ran.out);
        assert!(ran.out.contains("it is asked for when it is needed"), "{}", ran.out);
        let secret = value.split_once('=').map_or(value, |(_, secret)| secret);
        assert!(!ran.out.contains(secret) && !ran.err.contains(secret), "{ran:?}");
    }
    let forms = with_input(&home, &["secret", "check"], "hunter2-value\n").exits(0).out;
    for form in ["as it is", "base64", "URL", "JSON", "shell", "hex"] {
        assert!(forms.contains(form), "{forms}");
    }
    with_input(&home, &["secret", "check"], "abc\n").exits(1).says(&["shorter than 5 bytes"]);
    with_input(&home, &["secret", "check"], "").exits(2).says(&["standard input has no value"]);
}

#[test]
fn a_secret_on_the_command_line_is_refused_and_not_repeated() {
    let home = Home::new();
    for words in [&["secret", "check", "hunter2"][..], &["secret", "hunter2"], &["secret", "check", "--x=hunter2"]] {
        let ran = home.run(words).exits(2).says(&["history of the shell", "replace it", "opsh secret check < FILE"]);
        assert!(!ran.err.contains("hunter2") && !ran.out.contains("hunter2"), "{ran:?}");
    }
}

#[test]
fn names_of_the_configuration_are_hidden_on_the_screen_and_in_the_record() {
    let home = with_secrets();
    let ran =
        home.run(&["-e", "print(\"acme_code=\" + \"my-own-\" + \"thing\"); #{ ACME_X: \"val\" + \"ue-x\" }"]).exits(0);
    assert!(ran.out.contains("acme_code=•••#") && !ran.out.contains("my-own-thing"), "{}", ran.out);
    let json = home.run(&["--json", "-e", "#{ ACME_X: \"val\" + \"ue-x\" }"]).exits(0).out;
    assert!(json.contains("•••#") && !json.contains("value-x"), "{json}");
    home.put("opsh.toml", "[redact]\nnames = [\"*\"]\n");
    home.run(&["-e", "1"]).exits(2).says(&["redact.names: \"*\" would take every name"]);
}

#[test]
fn nothing_is_revealed_without_a_terminal() {
    let home = Home::new();
    let ran = with_input(&home, &[], ":reveal 3f9a\n").exits(3);
    ran.says(&["nothing was revealed", "to a terminal only"]);
}
