//! Going back: `opsh undo`, `undo::guard` and `opsh runs`, on this machine with the built program.

use super::home::{Home, Ran};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// A script's helpers: a file that is made and can be unmade, and unmade again.
const PUT: &str = r#"
fn quoted(words) { let out = ""; for word in words { out += (if out == "" { "" } else { ", " }) + `"${word}"`; } `[${out}]` }
fn put(f) { host("local").run(["touch", f], #{ undo: `host("local").run(${quoted(["rm", f])})` }) }
"#;

/// Runs `code` as a script with the helpers above, agreed to beforehand.
fn script(home: &Home, code: &str) -> Ran {
    script_with(home, code, "OPSH_TEST_NONE", "")
}

fn script_with(home: &Home, code: &str, variable: &str, value: &str) -> Ran {
    let code = code.replace("DIR", home.path("").display().to_string().trim_end_matches('/'));
    home.put("s.rhai", &format!("{PUT}{code}"));
    home.run_with(&["--yes", "s.rhai"], variable, value)
}

fn there(home: &Home, names: &[&str]) -> Vec<bool> {
    names.iter().map(|name| home.path(name).exists()).collect()
}

/// Runs as `opsh runs --json` lists them, newest first.
pub fn runs(home: &Home) -> Vec<Value> {
    let listed = home.run(&["runs", "--json"]).exits(0);
    listed.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn id(run: &Value) -> &str {
    run["run"].as_str().unwrap()
}

/// A clone with commits one, two, three, and their ids; the first is checked out.
pub fn repository(dir: &Path) -> Vec<String> {
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(dir).args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]);
        let ran = command.args(words).env("GIT_CONFIG_GLOBAL", "/dev/null").stdin(Stdio::null()).output().unwrap();
        assert!(ran.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap().trim().to_string()
    };
    std::fs::create_dir_all(dir).unwrap();
    git(&["init", "--quiet"]);
    let mut commits = Vec::new();
    for name in ["one", "two", "three"] {
        std::fs::write(dir.join("file"), name).unwrap();
        git(&["add", "file"]);
        git(&["commit", "--quiet", "-m", name]);
        commits.push(git(&["rev-parse", "HEAD"]));
    }
    git(&["checkout", "--quiet", "--detach", &commits[0]]);
    commits
}

pub fn head(dir: &Path) -> String {
    std::fs::read_to_string(dir.join(".git/HEAD")).unwrap().trim().to_string()
}

// ── opsh undo ──

#[test]
fn undo_takes_back_newest_first_and_only_once() {
    let home = Home::new();
    script(&home, "put(\"DIR/a\"); put(\"DIR/b\"); host(\"local\").run([\"touch\", \"DIR/c\"]);").exits(0);
    let plan = home.run(&["undo", "last", "--plan"]).exits(0).prints("a plan: nothing was undone\n");
    plan.says(&["would: rm"]);
    assert_eq!(there(&home, &["a", "b", "c"]), [true, true, true]);

    let undone = home.run(&["undo", "last", "--yes"]).exits(0);
    assert!(undone.out.starts_with("undone: 2 of 3 effects of run "), "{}", undone.out);
    let place = |word: &str| undone.err.find(word).unwrap_or_else(|| panic!("{word}: {}", undone.err));
    assert!(place("✓ host.run  local") < undone.err.rfind("→ host.run  local  rm").unwrap());
    let (b, a) = (format!("→ host.run  local  rm {}", home.path("b").display()), home.path("a").display().to_string());
    assert!(place(&b) < place(&format!("→ host.run  local  rm {a}")), "{}", undone.err);
    assert!(undone.err.contains("cannot be undone"), "{}", undone.err);
    assert_eq!(there(&home, &["a", "b", "c"]), [false, false, true]);

    let again = home.run(&["undo", "last", "--yes"]).exits(0).prints("nothing to undo\n");
    again.says(&["undone by run "]);
    let listed = runs(&home);
    assert!(listed[2]["outcome"].as_str().unwrap().starts_with("ok, partly undone by "), "{listed:?}");
    home.run(&["journal", "verify"]).exits(0);
}

#[test]
fn undo_needs_consent_like_any_change() {
    let home = Home::new();
    script(&home, "put(\"DIR/a\");").exits(0);
    home.run(&["undo", "last"]).exits(3).says(&[
        "refused: host.run on local",
        "--yes was not given",
        "nothing changed",
    ]);
    home.run(&["--observe", "undo", "last", "--yes"]).exits(3).says(&["only observes"]);
    assert_eq!(there(&home, &["a"]), [true]);
    home.run(&["--yes", "undo", "last"]).exits(0);
    assert_eq!(there(&home, &["a"]), [false]);
}

#[test]
fn an_undo_can_be_undone_and_then_the_run_again() {
    let home = Home::new();
    let (dir, name) = (home.path("repo"), home.path("repo").display().to_string());
    let commits = repository(&dir);
    script(&home, &format!("host(\"local\").repo(\"{name}\").checkout(\"{}\");", commits[1])).exits(0);
    home.run(&["undo", "last", "--yes"]).exits(0);
    assert_eq!(head(&dir), commits[0]);
    let undo = id(&runs(&home)[0]).to_string();
    home.run(&["undo", &undo, "--yes"]).exits(0);
    assert_eq!(head(&dir), commits[1]);
    home.run(&["undo", &undo, "--yes"]).exits(0).prints("nothing to undo\n");
    home.run(&["undo", "last", "--yes"]).exits(0);
    assert_eq!(head(&dir), commits[0], "last is no undo: it is the run");
}

#[test]
fn two_changes_of_one_thing_are_taken_back_one_after_the_other() {
    let home = Home::new();
    let (dir, name) = (home.path("repo"), home.path("repo").display().to_string());
    let commits = repository(&dir);
    let code = format!(
        "let r = host(\"local\").repo(\"{name}\"); r.checkout(\"{}\"); r.checkout(\"{}\"); r.checkout(\"{}\");",
        commits[1], commits[2], commits[2]
    );
    script(&home, &code).exits(0);
    let undone = home.run(&["undo", "last", "--yes"]).exits(0);
    assert!(undone.out.starts_with("undone: 2 of 2"), "{undone:?}");
    assert_eq!(head(&dir), commits[0]);
}

#[test]
fn undo_stops_before_anything_when_something_else_is_there_now() {
    let home = Home::new();
    let (dir, name) = (home.path("repo"), home.path("repo").display().to_string());
    let commits = repository(&dir);
    script(&home, &format!("host(\"local\").repo(\"{name}\").checkout(\"{}\"); put(\"DIR/a\");", commits[1])).exits(0);
    std::fs::write(dir.join(".git/HEAD"), format!("{}\n", commits[2])).unwrap();
    let ran = home.run(&["undo", "last", "--yes"]).exits(1);
    ran.says(&["something else is there now", "git.checkout on local", &commits[1], &commits[2], " next: "]);
    assert_eq!(there(&home, &["a"]), [true], "the newer effect was not taken back either");

    std::fs::write(dir.join(".git/HEAD"), format!("{}\n", commits[0])).unwrap();
    let ran = home.run(&["undo", "last", "--yes"]).exits(0);
    ran.says(&["is as it was before it"]);
    assert_eq!(there(&home, &["a"]), [false]);
}

#[test]
fn an_inverse_that_fails_stops_says_what_is_left_and_a_second_undo_goes_on() {
    let home = Home::new();
    script(&home, "put(\"DIR/a\"); put(\"DIR/b\"); put(\"DIR/c\");").exits(0);
    std::fs::remove_file(home.path("b")).unwrap();
    let ran = home.run(&["undo", "last", "--yes"]).exits(4);
    ran.says(&["a person is needed", "\n       undone: host.run", "not undone: host.run", "opsh undo "]);
    assert_eq!(there(&home, &["a", "b", "c"]), [true, false, false]);
    home.put("b", "");
    let ran = home.run(&["undo", "last", "--yes"]).exits(0);
    assert!(
        ran.out.starts_with("undone: 2 of 2 effects of run ") && ran.out.ends_with(", 1 was before\n"),
        "{}",
        ran.out
    );
    assert_eq!(there(&home, &["a", "b", "c"]), [false, false, false]);
}

#[test]
fn undo_of_a_run_with_an_unknown_outcome_asks_its_place_and_refuses_when_that_does_not_say() {
    let home = Home::new();
    script(&home, "put(\"DIR/a\"); host(\"local\").run([\"sleep\", \"20\"], #{ within_s: 1 });").exits(4);
    let ran = home.run(&["undo", "last", "--yes"]).exits(4);
    ran.says(&["host.run on local  sleep 20 still runs", "opsh attach", "opsh journal settle"]);
    assert_eq!(there(&home, &["a"]), [true]);
    let unknown = runs(&home).into_iter().find(|run| run["unknown"] == 1).unwrap();
    home.run(&["journal", "settle", id(&unknown), "it slept"]).exits(0);
    home.run(&["undo", id(&unknown), "--yes"]).exits(0).says(&["a person saw \"it slept\""]);
    assert_eq!(there(&home, &["a"]), [false]);
}

#[test]
fn a_run_that_was_killed_is_undone_as_far_as_it_came() {
    if !cfg!(debug_assertions) {
        return super::skip::skip("a release build of opsh cannot be told when to die");
    }
    for (point, made) in [("begun:1", 0), ("performed:1", 1), ("begun:2", 1), ("performed:2", 2)] {
        let home = Home::new();
        let ran = script_with(&home, "put(\"DIR/a\"); put(\"DIR/b\");", "OPSH_TEST_KILL", point);
        assert_eq!(ran.signal, Some(libc::SIGKILL), "{ran:?}");
        let all = there(&home, &["a", "b"]);
        assert_eq!(all.iter().filter(|there| **there).count(), made, "{point}");
        let undone = home.run(&["undo", "last", "--yes"]).exits(0);
        assert!(made == 0 || undone.out.starts_with(&format!("undone: {made} of 2")) || made == 1, "{undone:?}");
        assert_eq!(there(&home, &["a", "b"]), [false, false], "{point}: {undone:?}");
        home.run(&["undo", "last", "--yes"]).exits(0).prints("nothing to undo\n");
        home.run(&["journal", "verify"]).exits(0);
    }
}

#[test]
fn a_result_that_a_host_has_swept_up_says_nothing() {
    if !cfg!(debug_assertions) {
        return super::skip::skip("a release build of opsh cannot be told when to die");
    }
    let home = Home::new();
    // Begun nine days ago by the journal's clock.
    let nine_days = (9 * 24 * 3600).to_string();
    let mut opsh = home.command(&["--yes", "-e", "host(\"local\").run([\"true\"], #{ undo: \"1\" })"]);
    let killed = opsh.env("OPSH_TEST_KILL", "performed:1").env("OPSH_TEST_CLOCK_BACK", nine_days).output().unwrap();
    assert_eq!(killed.status.code(), None);
    std::fs::remove_dir_all(home.path("state/opsh/runs")).unwrap();
    home.run(&["undo", "last", "--yes"]).exits(4).says(&["may have happened: local keeps results for a week"]);
}

#[test]
fn a_script_that_missed_a_program_half_way_is_not_said_to_have_done_nothing() {
    let home = Home::new();
    let failed =
        script(&home, "host(\"local\").sh(\"touch DIR/half; no-such-program\", [], #{ undo: \"1\" });").exits(1);
    failed.says(&["exit code 127", "no-such-program"]);
    assert!(home.path("half").exists());
    home.run(&["undo", "last", "--yes"]).says(&["failed, and what it left is not known"]);
}

#[test]
fn an_undo_that_was_killed_goes_on_with_the_rest() {
    if !cfg!(debug_assertions) {
        return super::skip::skip("a release build of opsh cannot be told when to die");
    }
    for point in ["begun:1", "performed:1", "begun:2", "performed:2", "begun:3", "performed:3"] {
        let home = Home::new();
        script(&home, "put(\"DIR/a\"); put(\"DIR/b\"); put(\"DIR/c\");").exits(0);
        let killed = home.run_with(&["undo", "last", "--yes"], "OPSH_TEST_KILL", point);
        assert_eq!(killed.signal, Some(libc::SIGKILL), "{killed:?}");
        // `rm` of a file that is gone fails: doing one of them twice would end with 4.
        let ran = home.run(&["undo", "last", "--yes"]).exits(0);
        assert_eq!(there(&home, &["a", "b", "c"]), [false, false, false], "{point}: {ran:?}");
        home.run(&["undo", "last", "--yes"]).exits(0).prints("nothing to undo\n");
    }
}

#[test]
fn ctrl_c_stops_an_undo_after_what_it_does_and_a_second_one_goes_on() {
    let home = Home::new();
    let slow = "let h = host(\"local\"); for n in [\"a\", \"b\", \"c\"] {
        let f = \"DIR/\" + n;
        h.run([\"touch\", f], #{ undo: `host(\"local\").sh(\"touch \\\"$1.begun\\\"; sleep 1; rm \\\"$1\\\"\", [\"${f}\"])` }); }";
    script(&home, slow).exits(0);
    let mut child = home.command(&["undo", "last", "--yes"]).spawn().unwrap();
    let began = std::time::Instant::now();
    while !home.path("c.begun").exists() {
        assert!(began.elapsed().as_secs() < 20);
        std::thread::yield_now();
    }
    // SAFETY: a system call without pointers; the child was not waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let mut rest = String::new();
    std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(rest.contains("not undone: host.run") && rest.contains("go on with the rest"), "{rest}");
    assert_eq!(there(&home, &["a", "b"]), [true, true]);
    // What was begun goes on without opsh; until it has ended a second undo says so.
    while home.path("c").exists() {
        assert!(began.elapsed().as_secs() < 30);
        std::thread::yield_now();
    }
    let mut again = home.run(&["undo", "last", "--yes"]);
    while again.code == Some(4) && again.err.contains("still runs") && began.elapsed().as_secs() < 40 {
        again = home.run(&["undo", "last", "--yes"]);
    }
    again.exits(0);
    assert_eq!(there(&home, &["a", "b", "c"]), [false, false, false]);
}

#[test]
fn an_inverse_that_is_no_line_of_rhai_is_refused_before_anything_is_done() {
    let home = Home::new();
    let code = "host(\"local\").run([\"touch\", \"DIR/a\"], #{ undo: \"rm -f x\" })";
    script(&home, code).exits(2).says(&["undo is no line of Rhai"]);
    assert_eq!(there(&home, &["a"]), [false]);
}

#[test]
fn a_run_is_undone_with_the_configuration_that_it_used() {
    let home = Home::new();
    let (dir, name) = (home.path("repo"), home.path("repo").display().to_string());
    let commits = repository(&dir);
    let config = |dir: &str| {
        format!(
            "[stack.prod]\nhost = \"local\"\ndir = \"{dir}\"\ncompose = {{ files = [\"c.yml\"], project = \"p\" }}\n"
        )
    };
    let used = home.put("used.toml", &config(&name));
    let code = format!("stack(\"prod\").repo.checkout(\"{}\")", commits[1]);
    home.run(&["--config", &used, "--yes", "-e", &code]).exits(0);
    // Here the same name means another place.
    home.put("opsh.toml", &config("/nowhere"));
    home.run(&["undo", "last", "--yes"]).exits(0);
    assert_eq!(head(&dir), commits[0]);
}

#[test]
fn nothing_is_undone_of_a_run_that_changed_nothing_or_is_not_there() {
    let home = Home::new();
    home.run(&["undo", "last"]).exits(1).says(&["nothing to undo"]);
    home.run(&["-e", "1"]).exits(0);
    home.run(&["undo", "last"]).exits(1).says(&["nothing to undo"]);
    let run = id(&runs(&home)[0]).to_string();
    home.run(&["undo", &run]).exits(0).prints("nothing to undo\n");
    home.run(&["undo", "nope"]).exits(1).says(&["no run \"nope\""]);
}

// ── undo::guard ──

#[test]
fn a_guard_takes_back_what_it_did_on_a_definite_failure_and_fails_as_it_did() {
    let home = Home::new();
    let code = "put(\"DIR/before\");
undo::guard(|| { put(\"DIR/a\"); put(\"DIR/b\"); throw #{ kind: \"unmet\", what: \"no\", why: \"sick\", extra: 7 }; });";
    let ran = script(&home, code).exits(1);
    ran.says(&["error: no\n", "why: sick", "taken back: 2 of 2 effects", "s.rhai:5:"]);
    assert_eq!(there(&home, &["before", "a", "b"]), [true, false, false]);
    let caught = "let seen = (); try { undo::guard(|| { put(\"DIR/a\"); throw #{ kind: \"unmet\", what: \"no\", why: \"sick\", extra: 7 } }) } catch (e) { seen = [e.kind, e.extra]; } print(seen);";
    script(&home, caught).exits(0).prints("unmet\n7\n");
    let undone = home.run(&["undo", "last", "--yes"]).exits(0).prints("nothing to undo\n");
    assert!(!undone.err.contains("rm"), "{}", undone.err);
    assert!(runs(&home)[0]["outcome"].as_str().unwrap().ends_with("undone in the same run"));
}

#[test]
fn a_guard_returns_the_value_and_does_nothing_in_a_plan() {
    let home = Home::new();
    script(&home, "print(undo::guard(#{}, || { put(\"DIR/a\"); 42 }));").exits(0).prints("42\n");
    assert_eq!(there(&home, &["a"]), [true]);
    let plan = home.run(&["--plan", "s.rhai"]).exits(0).prints("42\n");
    plan.says(&["would: touch"]);
    script(&home, "undo::guard(#{ helthy: true }, || 1);").exits(2).says(&["unknown field `helthy`"]);
    script(&home, "undo::guard(#{});").exits(2).says(&["work is missing"]);
}

#[test]
fn a_guard_does_not_go_back_to_what_was_failing_already() {
    let home = Home::new();
    let code = "undo::guard(#{ healthy_before: false }, || { put(\"DIR/a\"); throw \"sick\"; });";
    script(&home, code).exits(1).says(&["sick", "what was there before was failing already", "opsh undo "]);
    assert_eq!(there(&home, &["a"]), [true]);
}

#[test]
fn a_guard_does_not_go_back_when_an_outcome_is_unknown_or_a_place_was_lost() {
    for (fails, code) in [
        ("host(\"local\").run([\"sleep\", \"3\"], #{ within_s: 1 });", 4),
        ("try { host(\"local\").run([\"sleep\", \"3\"], #{ within_s: 1 }) } catch { } throw \"after it\";", 1),
        ("throw #{ kind: \"unreachable\", what: \"w\", why: \"y\" };", 1),
        ("throw #{ kind: \"denied\", what: \"w\", why: \"y\" };", 1),
    ] {
        let home = Home::new();
        let ran = script(&home, &format!("undo::guard(|| {{ put(\"DIR/a\"); {fails} }});")).exits(code);
        ran.says(&["nothing was taken back"]);
        assert_eq!(there(&home, &["a"]), [true], "{fails}");
    }
}

#[test]
fn a_guard_whose_going_back_fails_is_stuck_and_names_the_rest() {
    let home = Home::new();
    let code = "undo::guard(|| { put(\"DIR/a\"); put(\"DIR/b\"); host(\"local\").run([\"rm\", \"DIR/b\"]); throw \"sick\"; });";
    let ran = script(&home, code).exits(4);
    ran.says(&["going back failed too", "sick", "not undone: host.run on local"]);
    assert_eq!(there(&home, &["a"]), [true]);
}

#[test]
fn a_guard_and_a_step_call_the_functions_of_the_module_that_wrote_the_closure() {
    let home = Home::new();
    let lib = format!(
        "{PUT}fn which() {{ \"lib\" }}\nfn try_it(f) {{ undo::guard(|| step(\"inner\", || {{ put(f); which() }})) }}\nfn fail(f) {{ undo::guard(|| {{ put(f); throw which(); }}) }}"
    );
    home.put("lib.rhai", &lib);
    let code = "import \"lib\" as lib;\nfn which() { \"main\" }\nprint(lib::try_it(\"DIR/a\")); print(undo::guard(|| step(\"outer\", || which()))); lib::fail(\"DIR/b\");";
    let ran = script(&home, code).exits(1).prints("lib\nmain\n");
    ran.says(&["why: lib\n", "taken back: 1 of 1", "lib.rhai:"]);
    assert_eq!(there(&home, &["a", "b"]), [true, false]);
}

#[test]
fn consent_to_an_effect_is_consent_to_the_inverse_that_was_shown() {
    let home = Home::new();
    let call = "[\"host.run\", host(\"local\"), [\"touch\", \"DIR/a\"], #{ undo: `host(\"local\").run([\"rm\", \"DIR/a\"])` }]";
    let code = format!("authorize([{call}]); undo::guard(|| {{ put(\"DIR/a\"); throw \"sick\"; }});");
    let code = format!("{PUT}{}", code.replace("DIR", &home.path("").display().to_string()));
    home.put("s.rhai", &code);
    // At a terminal only the plan is asked for; what is typed before the question is flushed.
    let typed = format!("timeout --foreground -k 1 20 {} s.rhai", env!("CARGO_BIN_EXE_opsh"));
    let mut shell = Command::new("script");
    shell.args(["-qec", &typed, "/dev/null"]).current_dir(home.path("")).stdin(Stdio::piped()).stdout(Stdio::piped());
    shell.env("HOME", home.path("")).env("XDG_STATE_HOME", home.path("state"));
    let Ok(mut child) = shell.spawn() else { return super::skip::skip("there is no program \"script\"") };
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut said, mut answered, mut piece) = (String::new(), 0, [0; 4096]);
    while let Ok(n @ 1..) = std::io::Read::read(&mut screen, &mut piece) {
        said += &String::from_utf8_lossy(&piece[..n]);
        if said.matches("Enter to stop:").count() > answered {
            answered += 1;
            std::io::Write::write_all(&mut keys, b"y\n").unwrap();
        }
    }
    child.wait().unwrap();
    assert_eq!(said.matches("Do this?").count(), 1, "{said}");
    assert!(said.contains("undo: host(\"local\").run([\"rm\", "), "{said}");
    assert!(said.contains("taken back: 1 of 1 effects"), "{said}");
    assert_eq!(there(&home, &["a"]), [false]);
}

// ── opsh runs ──

#[test]
fn what_stands_half_way_is_said_when_nothing_was_taken_back() {
    let home = Home::new();
    let [a, b] = ["a", "b"].map(|name| home.path(name).display().to_string());
    let puts = format!("put({a:?}); put({b:?}); print(\"half way\");");
    home.put("s.rhai", &format!("{PUT}{puts} sleep(20);"));
    let stopped = super::cli::interrupted(&home, &["--yes", "s.rhai"]).exits(130);
    let stands =
        format!("done before that and not taken back, the newest first:\n         host.run on local  touch {b}\n");
    stopped.says(&[&format!("{stands}         host.run on local  touch {a}\n"), "go back: 2 of 2 effects"]);
    // Of a failure that was foreseen the script's own words are enough.
    home.put("s.rhai", &format!("{PUT}{puts} throw \"sick\";"));
    let failed = home.run(&["--yes", "s.rhai"]).exits(1);
    assert!(!failed.err.contains("done before that"), "{}", failed.err);
}

#[test]
fn runs_lists_each_run_with_what_to_type_next() {
    let home = Home::new();
    home.run(&["runs"]).exits(0).prints("no runs yet\n");
    home.run(&["-e", "1"]).exits(0);
    script(&home, "put(\"DIR/a\"); throw \"sick\";").exits(1).says(&["opsh undo ", "go back: 1 of 1 effects"]);
    home.run(&["--plan", "s.rhai"]).exits(1);
    let listed = home.run(&["runs", "2"]).exits(0);
    assert!(listed.out.contains("failed (plan)") && !listed.out.contains("-e 1"), "{}", listed.out);
    let listed = runs(&home);
    let next: Vec<&str> = listed[1]["next"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(next[0].starts_with("opsh resume ") && next[1].starts_with("opsh undo "), "{next:?}");
    assert!(listed[0]["next"].as_array().unwrap().is_empty() && listed[2]["next"].as_array().unwrap().is_empty());
    let short = next[1].split_whitespace().nth(2).unwrap();
    home.run(&["undo", short, "--yes"]).exits(0);
    let after = runs(&home);
    assert!(after[2]["next"].as_array().unwrap().is_empty(), "{after:?}");
}

#[test]
fn what_a_later_run_did_is_said_before_somebody_goes_back_or_on_from_before_it() {
    let home = Home::new();
    script(&home, "put(\"DIR/a\"); throw \"sick\";").exits(1);
    home.put("other.rhai", &format!("{PUT}put({:?});", home.path("b").display().to_string()));
    home.run(&["--yes", "other.rhai"]).exits(0);
    let next: Vec<String> = serde_json::from_value(runs(&home)[1]["next"].clone()).unwrap();
    let since = " changed the same since: other.rhai";
    assert!(next.len() == 2 && next.iter().all(|line| line.ends_with(since)), "{next:?}");
    let failed = id(&runs(&home)[1]).to_string();
    // Whatever the clock said meanwhile.
    home.run_with(&["-e", "1"], "OPSH_TEST_CLOCK_BACK", "3600").exits(0);
    home.run(&["undo", &failed, "--plan"]).says(&["other.rhai, changed the same since"]);

    // What was to be done is done: nothing is open.
    script(&home, "put(\"DIR/a\");").exits(0);
    let run = runs(&home).into_iter().find(|run| id(run) == failed).unwrap();
    assert!(run["next"].as_array().unwrap().is_empty(), "{run}");
    assert!(run["outcome"].as_str().unwrap().starts_with("failed, done by "), "{run}");
}
