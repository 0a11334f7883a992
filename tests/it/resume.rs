//! Going on: steps that are remembered, and `opsh resume`, on this machine with the built program.

use super::home::{Home, Ran};
use super::undo::{head, repository, runs};
use serde_json::json;
use std::io::{BufRead, BufReader};

/// Three steps that each add their letter to a file, and a failure after as many of them as `fail` says.
const STEPS: &str = r#"//! usage: opsh s.rhai WORD [--times N] [--loud]
let log = "DIR/log";
fn fails(at) { if host("local").read(["cat", "DIR/fail"]).out == at { throw `failed at ${at}` } }
fn add(letter) { host("local").sh("printf \"$1\" >>\"$2\"", [letter, "DIR/log"]) }
print(`${args::need(0, "WORD")} ${args::option("times", "1")} ${args::flag("loud")}`);
fails("1");
let a = step("a", || { add("a"); #{ letter: "a", list: [1, 2.5, ()] } });
fails("2");
let b = step("b", || { add("b"); `${a.letter}b` });
fails("3");
let c = step("c", || { add("c"); `${b}c` });
fails("4");
print(`${a} ${b} ${c}`);
"#;

const DONE: &str = "w 3 true\n#{\"letter\": \"a\", \"list\": [1, 2.5, ()]} ab abc\n";

fn home() -> Home {
    let home = Home::new();
    let dir = home.path("");
    home.put("s.rhai", &STEPS.replace("DIR", dir.display().to_string().trim_end_matches('/')));
    home.put("log", "");
    home.put("fail", "");
    home
}

fn start(home: &Home, fail: &str) -> Ran {
    home.put("fail", fail);
    home.run(&["--yes", "s.rhai", "w", "--times", "3", "--loud"])
}

fn resume(home: &Home, fail: &str) -> Ran {
    home.put("fail", fail);
    home.run(&["resume", "last", "--yes"])
}

fn log(home: &Home) -> String {
    std::fs::read_to_string(home.path("log")).unwrap()
}

#[test]
fn a_run_that_failed_between_any_two_steps_is_gone_on_with_and_no_step_is_done_twice() {
    for fail in ["1", "2", "3", "4"] {
        let home = home();
        let failed = start(&home, fail).exits(1);
        assert!(fail == "1" || failed.err.contains("opsh resume "), "{}", failed.err);
        let ran = resume(&home, "").exits(0).prints(DONE);
        assert_eq!(ran.err.matches("was done in run").count(), fail.parse::<usize>().unwrap() - 1, "{}", ran.err);
        assert_eq!(log(&home), "abc", "failed at {fail}");
        resume(&home, "").exits(2).says(&["it ended well"]);
        let listed = runs(&home);
        assert!(listed[1]["outcome"].as_str().unwrap().starts_with("failed, resumed by "), "{listed:?}");
        assert_eq!(listed[1]["next"], json!([]));
    }
}

#[test]
fn a_resumed_run_that_failed_is_resumed_itself() {
    let home = home();
    start(&home, "2").exits(1);
    let first = runs(&home)[0]["run"].as_str().unwrap().to_string();
    resume(&home, "3").exits(1);
    resume(&home, "1").exits(1);
    home.put("fail", "");
    // Its name leads to the newest run that went on with it.
    home.run(&["resume", &first, "--yes"]).exits(0).prints(DONE);
    assert_eq!(log(&home), "abc");
}

#[test]
fn a_run_that_was_killed_at_any_change_is_settled_and_gone_on_with() {
    if !cfg!(debug_assertions) {
        return super::skip::skip("a release build of opsh cannot be told when to die");
    }
    for change in 1..=3 {
        for (point, twice) in [("begun", false), ("performed", true)] {
            let home = home();
            let words = ["--yes", "s.rhai", "w", "--times", "3", "--loud"];
            let killed = home.run_with(&words, "OPSH_TEST_KILL", &format!("{point}:{change}"));
            assert_eq!(killed.signal, Some(libc::SIGKILL), "{killed:?}");
            let ran = resume(&home, "").exits(0).prints(DONE);
            let letter = ["a", "b", "c"][change - 1];
            // The step that was cut short is done again from its beginning, and that is said.
            let expected = if twice { "abc".replace(letter, &letter.repeat(2)) } else { "abc".into() };
            assert_eq!(log(&home), expected, "{point}:{change}");
            assert_eq!(ran.err.contains("the script may do it again"), twice, "{}", ran.err);
            let said = if twice { "it happened" } else { "it did not happen" };
            assert!(ran.err.contains(said), "{}", ran.err);
            let left = std::fs::read_dir(home.path("state/opsh/runs")).map_or(0, Iterator::count);
            assert_eq!(left, 0, "nothing stays of what was settled");
            assert!(!home.run(&["-e", "1"]).exits(0).err.contains("may have happened"));
            home.run(&["journal", "verify"]).exits(0);
        }
    }
}

#[test]
fn what_cannot_be_settled_stops_a_resume_before_anything() {
    let home = Home::new();
    home.put("s.rhai", "step(\"a\", || host(\"local\").run([\"sleep\", \"20\"], #{ within_s: 1 }).changed);");
    home.run(&["--yes", "s.rhai"]).exits(4);
    let ran = home.run(&["resume", "last", "--yes"]).exits(4);
    ran.says(&["still runs", "opsh attach ", "opsh journal settle "]);
}

#[test]
fn a_script_that_was_changed_is_refused_unless_that_is_agreed_to() {
    let home = home();
    start(&home, "3").exits(1);
    let text = std::fs::read_to_string(home.path("s.rhai")).unwrap();
    home.put("s.rhai", &text.replace("`${b}c`", "`${b}C`"));
    resume(&home, "").exits(2).says(&["is not what it was", "--changed-script"]);
    let ran = home.run(&["resume", "last", "--yes", "--changed-script"]).exits(0);
    assert!(ran.out.ends_with("ab abC\n"), "{}", ran.out);
}

#[test]
fn a_run_is_gone_on_with_from_any_folder_with_its_own_configuration() {
    let home = home();
    home.put("opsh.toml", "[host.web]\nssh = \"nobody@127.0.0.1\"\n");
    home.put("s.rhai", &format!("{}print(host(\"web\").name);", std::fs::read_to_string(home.path("s.rhai")).unwrap()));
    start(&home, "2").exits(1);
    home.put("fail", "");
    home.put("x.toml", "");
    home.run(&["--config", "x.toml", "resume", "last"]).exits(2).says(&["--config was given"]);
    std::fs::create_dir(home.path("other")).unwrap();
    let same = home.path("opsh.toml").display().to_string();
    let output =
        home.command(&["--config", &same, "resume", "last", "--yes"]).current_dir(home.path("other")).output().unwrap();
    let ran = Ran::of(output).exits(0);
    assert!(ran.out.ends_with("web\n"), "{}", ran.out);
}

#[test]
fn a_finished_step_is_not_skipped_when_what_it_did_is_not_there_any_more() {
    let home = Home::new();
    let (dir, name) = (home.path("repo"), home.path("repo").display().to_string());
    let commits = repository(&dir);
    let code = format!(
        "step(\"move\", || {{ host(\"local\").repo(\"{name}\").checkout(\"{}\").after }}); if host(\"local\").read([\"ls\", \"{}\"]).out.contains(\"fail\") {{ throw \"no\" }}",
        commits[1],
        home.path("").display()
    );
    home.put("s.rhai", &code);
    home.put("fail", "");
    home.run(&["--yes", "s.rhai"]).exits(1);
    std::fs::remove_file(home.path("fail")).unwrap();
    std::fs::write(dir.join(".git/HEAD"), format!("{}\n", commits[2])).unwrap();
    let ran = home.run(&["resume", "last", "--yes"]).exits(1);
    ran.says(&["something else is there now", &commits[1], &commits[2]]);
    let listed = runs(&home);
    let of_first = listed[1]["outcome"].as_str().unwrap();
    assert!(of_first == "failed" && listed[1]["next"].to_string().contains("opsh resume"), "{listed:?}");
    std::fs::write(dir.join(".git/HEAD"), format!("{}\n", commits[1])).unwrap();
    home.run(&["resume", "last", "--yes"]).exits(0).says(&["step \"move\" was done in run"]);
    assert_eq!(head(&dir), commits[1]);
    let listed = runs(&home);
    for failed in &listed[1..=2] {
        let outcome = failed["outcome"].as_str().unwrap();
        assert!(outcome.starts_with("failed, resumed by ") && failed["next"] == json!([]), "{listed:?}");
    }
}

#[test]
fn a_step_that_was_taken_back_is_done_again() {
    let home = Home::new();
    let (dir, name) = (home.path("repo"), home.path("repo").display().to_string());
    let commits = repository(&dir);
    let code = format!(
        "undo::guard(|| {{ step(\"move\", || {{ host(\"local\").repo(\"{name}\").checkout(\"{}\").after }}); step(\"look\", || 1); if host(\"local\").read([\"ls\", \"{}\"]).out.contains(\"fail\") {{ throw \"no\" }} }});",
        commits[1],
        home.path("").display()
    );
    home.put("s.rhai", &code);
    home.put("fail", "");
    home.run(&["--yes", "s.rhai"]).exits(1).says(&["taken back: 1 of 1 effects"]);
    assert_eq!(head(&dir), commits[0]);
    std::fs::remove_file(home.path("fail")).unwrap();
    let ran = home.run(&["resume", "last", "--yes"]).exits(0);
    assert!(!ran.err.contains("was done in run"), "{}", ran.err);
    assert_eq!(head(&dir), commits[1]);
}

#[test]
fn a_step_whose_undo_was_cut_short_is_not_skipped() {
    if !cfg!(debug_assertions) {
        return super::skip::skip("a release build of opsh cannot be told when to die");
    }
    let home = Home::new();
    let made = home.path("made").display().to_string();
    let code = format!(
        "step(\"make\", || {{ host(\"local\").run([\"touch\", \"{made}\"], #{{ undo: `host(\"local\").run([\"rm\", \"{made}\"])` }}); () }});
         host(\"local\").read([\"cat\", \"{}\"]); host(\"local\").read([\"cat\", \"{made}\"]);",
        home.path("later").display()
    );
    home.put("s.rhai", &code);
    home.run(&["--yes", "s.rhai"]).exits(1);
    let first = runs(&home)[0]["run"].as_str().unwrap().to_string();
    // Taken back, and dead before that was recorded.
    assert_eq!(home.run_with(&["undo", &first, "--yes"], "OPSH_TEST_KILL", "performed:1").code, None);
    assert!(!home.path("made").exists());
    home.put("later", "");
    home.run(&["resume", &first, "--yes"]).exits(0);
    assert!(home.path("made").exists());
}

#[test]
fn a_run_is_not_undone_while_it_is_gone_on_with() {
    let home = Home::new();
    let made = home.path("made").display().to_string();
    let code = format!(
        "step(\"make\", || {{ host(\"local\").run([\"touch\", \"{made}\"], #{{ undo: `host(\"local\").run([\"rm\", \"{made}\"])` }}); () }});
         host(\"local\").read([\"cat\", \"{}\"]); print(\"here\"); sleep(60);",
        home.path("later").display()
    );
    home.put("s.rhai", &code);
    home.run(&["--yes", "s.rhai"]).exits(1);
    let first = runs(&home)[0]["run"].as_str().unwrap().to_string();
    home.put("later", "");
    let mut goes_on = home.command(&["resume", &first, "--yes"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(goes_on.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let undo = home.run(&["undo", &first, "--yes"]);
    goes_on.kill().unwrap();
    goes_on.wait().unwrap();
    undo.exits(1).says(&["goes on with it now"]);
    assert!(home.path("made").exists());
    home.run(&["undo", &first, "--yes"]).exits(0);
    assert!(!home.path("made").exists());
}

#[test]
fn a_guard_takes_back_the_steps_that_a_resumed_run_skipped_within_it() {
    let home = Home::new();
    let (dir, name) = (home.path("repo"), home.path("repo").display().to_string());
    let commits = repository(&dir);
    let code = format!(
        "undo::guard(|| {{ step(\"move\", || {{ host(\"local\").repo(\"{name}\").checkout(\"{}\").after }}); print(\"here\"); sleep(if host(\"local\").read([\"ls\", \"{}\"]).out.contains(\"fail\") {{ 20 }} else {{ 0 }}); throw \"no\"; }});",
        commits[1],
        home.path("").display()
    );
    home.put("s.rhai", &code);
    home.put("fail", "");
    let interrupted = super::cli::interrupted(&home, &["--yes", "s.rhai"]).exits(130);
    assert!(!interrupted.err.contains("undone: "), "Ctrl-C never goes back: {}", interrupted.err);
    assert_eq!(head(&dir), commits[1]);
    std::fs::remove_file(home.path("fail")).unwrap();
    let resumed = home.run(&["resume", "last", "--yes"]).exits(1);
    let resumed = resumed.says(&["was done in run", "taken back: 1 of 1 effects"]);
    assert_eq!(head(&dir), commits[0]);
    // What went back is not to be gone back on.
    assert!(!resumed.err.contains("opsh undo"), "{}", resumed.err);
    home.run(&["undo", "last", "--yes"]).exits(0).prints("nothing to undo\n");
    assert_eq!(head(&dir), commits[0]);
}

#[test]
fn only_a_script_that_did_not_end_well_is_resumed() {
    let home = home();
    home.run(&["-e", "throw 1"]).exits(1);
    home.run(&["resume", "last"]).exits(2).says(&["it was no script"]);
    home.put("fail", "2");
    home.run(&["--plan", "s.rhai", "w"]).exits(1);
    home.run(&["resume", "last"]).exits(2).says(&["it changed nothing"]);
    home.run(&["--observe", "resume", "last"]).exits(2).says(&["--observe was given"]);
    home.run(&["s.rhai", "w"]).exits(3);
    home.put("fail", "");
    home.run(&["resume", "last"]).exits(3).says(&["--yes was not given"]);
    home.run(&["resume", "last", "--yes"]).exits(0);
    assert_eq!(log(&home), "abc");
}

// ── what a step may be ──

fn refused_result(value: &str, why: &str) {
    let home = Home::new();
    let made = home.path("made").display().to_string();
    let code = format!("step(\"a\", || {{ host(\"local\").run([\"touch\", \"{made}\"]); {value} }})");
    let ran = home.run(&["--yes", "-e", &code]).exits(1);
    ran.says(&["the result of step \"a\" cannot be kept; what the step did is done", why]);
    assert!(home.path("made").exists());
    assert!(!home.story().contains(&"step.end".to_string()));
}

#[test]
fn a_result_that_cannot_be_kept_is_an_error_then_and_there() {
    refused_result("host(\"local\")", "type host");
    refused_result("[#{ f: |x| x }]", "type closure");
    refused_result("#{ password: \"hunter2hunter2\" }", "it holds a secret");
    refused_result("\"postgres://app:hunter2secret@db/app\"", "it holds a secret");
    refused_result("let s = \"x\"; s.pad(66000, 'x'); s", "64 KiB is the most");
    let home = Home::new();
    home.run(&["-e", "step(\"a\", || { let s = \"x\"; s.pad(65000, 'x'); s }).len()"]).exits(0).prints("65000\n");
}

#[test]
fn a_name_is_used_once_and_no_step_is_within_another() {
    let home = Home::new();
    home.run(&["-e", "step(\"a\", || 1); step(\"a\", || print(\"ran\"))"]).exits(2).prints("").says(&["of that name"]);
    home.run(&["-e", "step(\"a\", || step(\"b\", || print(\"ran\")))"])
        .exits(2)
        .prints("")
        .says(&["within step \"a\""]);
    home.run(&["-e", "step(\"a\", 7)"]).exits(2).says(&["work must be of type closure, not int"]);
    home.run(&["-e", "try { step(\"a\", || throw 1) } catch { } step(\"b\", || 2)"]).exits(0).prints("2\n");
    let place = home.run(&["-e", "\nstep(\"a\", || {\n  throw \"here\" })"]).exits(1);
    place.says(&["line 1:3:3", "in line 1:2:1"]);
}

#[test]
fn of_several_that_go_on_with_a_run_at_once_one_does() {
    for _ in 0..3 {
        let home = home();
        start(&home, "2").exits(1);
        home.put("fail", "");
        let start = |_| home.command(&["resume", "last", "--yes"]).spawn().unwrap();
        let all: Vec<_> = (0..5).map(start).collect();
        let ended = all.into_iter().map(|opsh| Ran::of(opsh.wait_with_output().unwrap())).collect::<Vec<_>>();
        assert_eq!(log(&home), "abc", "each step once: {ended:?}");
        assert_eq!(ended.iter().filter(|ran| ran.code == Some(0)).count(), 1, "{ended:?}");
        for ran in ended.iter().filter(|ran| ran.code != Some(0)) {
            assert!(
                ["goes on with it, or did", "still runs", "ended well"].iter().any(|why| ran.err.contains(why)),
                "{ran:?}"
            );
        }
        // Those that did not go on are no resumption that somebody could go on with.
        home.run(&["resume", "last", "--yes"]).exits(2);
    }
}
