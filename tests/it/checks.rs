//! Checks: scripts that say what they found as monitoring plugins do, whatever goes wrong on the way.

use super::home::{Home, OPSH};
use std::process::Command;

const HEADER: &str =
    "//! A check.\n//!\n//! usage: opsh c.rhai [WORD]\n//! exit: plugin\nimport \"std/check\" as check;\n";

/// A home with a check that ends with this.
fn check(code: &str) -> Home {
    let home = Home::new();
    home.put("c.rhai", &format!("{HEADER}{code}\n"));
    home
}

#[test]
fn the_state_is_the_exit_code_and_the_first_line() {
    for (state, code) in [("OK", 0), ("WARNING", 1), ("CRITICAL", 2), ("UNKNOWN", 3)] {
        let home = check(&format!(
            "let rows = [check::row(\"{state}\", \"what was seen\"), check::row(\"UNKNOWN\", \"nothing | there\")];\n\
             check::result(rows.filter(|one| one.state == \"{state}\"), \"what was seen\", [check::perf(\"n\", 3, \"c\", #{{}})])"
        ));
        let said = if state == "UNKNOWN" { "what was seen; nothing / there" } else { "what was seen" };
        let ran = home.run(&["--observe", "c.rhai"]).exits(code).prints(&format!("C {state}: {said} | 'n'=3c\n"));
        assert_eq!(ran.err, "");
    }
}

#[test]
fn what_is_wrong_besides_follows_line_by_line() {
    let home = check(
        "check::result([check::row(\"WARNING\", \"a\"), check::row(\"CRITICAL\", \"b\"), check::row(\"OK\", \"c\")], \"\", [])",
    );
    home.run(&["c.rhai"]).exits(2).prints("C CRITICAL: b\nWARNING: a\n");
    let value = &home.run(&["--json", "c.rhai"]).exits(2).json_lines()[0];
    assert_eq!((&value["state"], &value["more"][0]), (&"CRITICAL".into(), &"WARNING: a".into()));
}

#[test]
fn a_check_that_could_not_look_is_never_ok_and_says_why_on_both_streams() {
    let ends = |code: &str, words: &[&str], exit: i32, line: &str| {
        let ran = check(code).run(words).exits(exit);
        assert!(ran.out.starts_with(line) && ran.out.ends_with('\n') && ran.out.lines().count() == 1, "{ran:?}");
        ran
    };
    ends("nothing(1)", &["c.rhai"], 3, "C UNKNOWN: no function").says(&["error: no function", "--> c.rhai:6:1"]);
    ends("let x = ;", &["c.rhai"], 3, "C UNKNOWN: c.rhai does not parse");
    ends("1", &["c.rhai", "a", "b"], 3, "C UNKNOWN: the script was not started: \"b\" is one word too many");
    ends("42", &["c.rhai"], 3, "C UNKNOWN: the script returned no state");
    ends("stack(\"prod\").ps()", &["c.rhai"], 3, "C UNKNOWN: no stack \"prod\"");
    ends("1", &["--config", "none.toml", "c.rhai"], 3, "C UNKNOWN: ");
    ends("host(\"local\").run([\"true\"])", &["--observe", "c.rhai"], 3, "C UNKNOWN: ").says(&["--observe"]);
    ends("host(\"local\").read([\"cat\", \"/none\"])", &["c.rhai"], 3, "C UNKNOWN: cat /none failed on local");
    // Nothing listens there: that is what a check is for.
    let home = check("host(\"far\").read([\"df\"])");
    home.put("opsh.toml", "[host.far]\nssh = \"root@127.0.0.1\"\nport = 1\n");
    let ran = home.run(&["c.rhai"]).exits(2).says(&["next:"]);
    assert!(ran.out.starts_with("C CRITICAL: ") && ran.out.contains("refused"), "{ran:?}");
    home.run(&["c.rhai", "--help"]).exits(0).shows(&["A check.", "exit: plugin"]);
    // Its run is a run like any other.
    home.run(&["journal", "show", "last"]).exits(0).shows(&["run ended: failed  (the connection was refused"]);
}

#[test]
fn a_secret_is_in_no_line() {
    let home = check(
        "check::result([check::row(\"CRITICAL\", \"password=hunter2hunter2 is wrong\")], \"\", [check::perf(\"password=hunter2hunter2\", 1, \"\", #{})])",
    );
    let ran = home.run(&["c.rhai"]).exits(2);
    assert!(!format!("{ran:?}").contains("hunter2"), "{ran:?}");
}

/// What systemd would run, and what cron would: from the files themselves.
#[test]
fn the_unit_and_the_line_of_the_documents_run_a_check() {
    let unit = include_str!("../../scripts/checks/opsh-check@.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/opsh ")).unwrap();
    let folder = unit.lines().find_map(|line| line.strip_prefix("WorkingDirectory=")).unwrap();
    let timer = include_str!("../../scripts/checks/opsh-check@.timer");
    assert!(timer.contains("\nOnCalendar=*:0/5\n") && timer.contains("\nWantedBy=timers.target\n"));
    let home = check("1");
    let script = start.split(' ').next_back().unwrap().replace("%i", "disk");
    std::fs::create_dir_all(home.path("scripts/checks")).unwrap();
    let put = |state: &str| {
        home.put(&script, &format!("{HEADER}check::result([check::row(\"{state}\", \"seen\")], \"seen\", [])\n"))
    };
    put("WARNING");
    let words = start.replace("%i", "disk");
    home.run(&words.split(' ').collect::<Vec<_>>()).exits(1).prints("DISK WARNING: seen\n");

    let documents = include_str!("../../docs/checks.md");
    let line = documents.lines().find_map(|line| line.strip_prefix("*/5 * * * * ")).unwrap();
    let cron = |home: &Home| {
        let line = line
            .replace(folder, home.0.path().to_str().unwrap())
            .replace("opsh --observe", &format!("{OPSH} --observe"));
        let ran = Command::new("sh").args(["-c", &line]).env("HOME", home.0.path()).output().unwrap();
        String::from_utf8(ran.stdout).unwrap()
    };
    assert!(line.contains(folder), "{line}");
    assert_eq!(cron(&home), "DISK WARNING: seen\n");
    put("OK");
    assert_eq!(cron(&home), "", "nobody is mailed");
}
