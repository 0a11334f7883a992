//! Files that can be anybody's: a case or a script of a stranger's repository, a list of keys, a spill file. None of them makes
//! opsh read or write what a link in it names, or wait for what has no end.

use crate::home::{Home, Ran};
use crate::sshd::Sshd;
use crate::terminal::Terminal;
use serde_json::Value;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A home with the script `s.rhai` and a case of it that passes.
fn with_case() -> Home {
    let home = Home::new();
    std::fs::create_dir_all(home.path("tests/cases/a")).unwrap();
    home.put("s.rhai", "//! X.\n//! usage: opsh s.rhai\nprint(host(\"local\").read([\"uname\"]).out);");
    home.run(&["s.rhai"]).exits(0);
    home.put("tests/cases/a/recording.jsonl", &home.run(&["journal", "export", "last"]).exits(0).out);
    home.put("tests/cases/a/command", "opsh s.rhai\n");
    home.run(&["test", "--update"]).exits(0);
    home.run(&["test"]).exits(0);
    home
}

fn pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[track_caller]
fn says(ran: Ran, code: i32, text: &str) {
    assert!(ran.code == Some(code) && ran.err.contains(text), "{text}: {ran:?}");
    assert!(!ran.out.contains("tulip") && !ran.err.contains("tulip"), "{ran:?}");
}

#[test]
fn a_link_in_a_case_is_neither_read_nor_written_through() {
    for part in ["screen", "command", "typed", "recording.jsonl", "opsh.toml"] {
        let home = with_case();
        home.put("own", "machine example login me password tulip\n");
        let _ = std::fs::remove_file(home.path("tests/cases/a").join(part));
        symlink("../../../own", home.path("tests/cases/a").join(part)).unwrap();
        for words in [&["test"][..], &["test", "--update"], &["test", "--sweep", "tests/cases/a"]] {
            says(home.run(words), 2, &format!("{part}: it is a symlink"));
        }
        assert!(std::fs::read_to_string(home.path("own")).unwrap().starts_with("machine example"));
    }
}

#[test]
fn a_case_whose_part_is_a_pipe_is_no_case() {
    for part in ["screen", "command", "typed"] {
        let home = with_case();
        let _ = std::fs::remove_file(home.path("tests/cases/a").join(part));
        pipe(&home.path("tests/cases/a").join(part));
        says(home.run(&["test"]), 2, &format!("{part}: it is not a plain file"));
    }
}

#[test]
fn the_script_of_a_case_lies_below_a_folder_above_it() {
    let home = with_case();
    home.put("own", "machine example login me password tulip\n");
    let out = Home::new();
    out.put("x.rhai", "tulip\n");
    symlink("own", home.path("l.rhai")).unwrap();
    symlink(out.0.path(), home.path("in")).unwrap();
    for (script, why) in [
        ("../a/../../../own".to_string(), "is no path of a script"),
        (home.path("own").display().to_string(), "is no path of a script"),
        ("own".to_string(), "is no path of a script"),
        ("l.rhai".to_string(), "is a symlink"),
        ("in/x.rhai".to_string(), "is a symlink"),
    ] {
        home.put("tests/cases/a/command", &format!("opsh {script}\n"));
        says(home.run(&["test"]), 2, why);
    }
}

#[test]
fn a_walk_over_scripts_follows_no_link_and_a_name_that_is_given_may_be_one() {
    let home = Home::new();
    std::fs::create_dir(home.path("scripts")).unwrap();
    home.put("own.rhai", "fn test_x() { }\nlet tulip = tulip\n");
    symlink("../own.rhai", home.path("scripts/l_test.rhai")).unwrap();
    says(home.run(&["lint", "scripts"]), 2, "it is a symlink");
    says(home.run(&["test", "scripts"]), 2, "it is a symlink");
    let named = home.run(&["lint", "scripts/l_test.rhai"]).exits(1);
    assert!(named.out.contains("parse") || named.out.contains("tulip"), "{named:?}");
    std::fs::remove_file(home.path("scripts/l_test.rhai")).unwrap();
    symlink("/dev/zero", home.path("scripts/z.rhai")).unwrap();
    home.put("scripts/s_test.rhai", "fn test_x() { }\n");
    symlink("/dev/zero", home.path("scripts/s_test.jsonl")).unwrap();
    let ran = home.run(&["test", "scripts/s_test.rhai"]).exits(1);
    assert!(ran.out.contains("it is a symlink"), "{ran:?}");
    // A command that has no end is no command of a case.
    std::fs::remove_file(home.path("scripts/z.rhai")).unwrap();
    std::fs::create_dir_all(home.path("tests/cases/a")).unwrap();
    pipe(&home.path("tests/cases/a/command"));
    let ran = home.run(&["lint", "scripts"]).exits(1);
    assert!(ran.out.contains("1 finding in 1 file") && ran.out.contains("header"), "{ran:?}");
}

#[test]
fn json_has_no_character_that_acts_on_a_terminal() {
    let home = Home::new();
    let code = r#"#{ "k\u009bx": "A\u009b31mB\u202eC\x7fE\u2066 ação" }"#;
    let plain = |text: &str| !text.contains(['\u{9b}', '\u{202e}', '\u{7f}', '\u{2066}']);
    let value: Value = serde_json::json!({ "k\u{9b}x": "A\u{9b}31mB\u{202e}C\u{7f}E\u{2066} ação" });
    let ran = home.run(&["--json", "-e", code]).exits(0);
    assert!(plain(&ran.out) && ran.out.contains("ação"), "{ran:?}");
    assert_eq!(ran.json_lines(), [value]);
    let ran = home.run(&["--json", "-e", "throw \"A\\u009b31mB\""]).exits(1);
    assert!(plain(&ran.err) && ran.err.contains("A\\u009b31mB"), "{ran:?}");
    home.put("odd", "a\u{9b}\u{202e}\x7f");
    let look = r#"host("local").read(["cat", "odd"]).out"#;
    home.run(&["-e", look]).exits(0);
    for words in [&["journal", "export", "last"][..], &["--json", "journal", "show", "last", "--all"]] {
        let ran = home.run(words).exits(0);
        assert!(plain(&ran.out) && ran.out.contains("a\\u009b\\u202e\\u007f"), "{words:?}: {ran:?}");
    }
    // Its digest is of its lines as they stand there.
    let export = home.put("r.jsonl", &home.run(&["journal", "export", "last"]).exits(0).out);
    let ran = home.run(&["--json", "--replay", &export, "-e", look]).exits(0);
    assert_eq!(ran.json_lines(), [Value::from("a\u{9b}\u{202e}\u{7f}")]);
    home.put("s.rhai", "let x\u{202e} = 1;\n");
    let ran = home.run(&["lint", "--json", "s.rhai"]).exits(1);
    assert!(plain(&ran.out), "{ran:?}");
    home.put("t_test.rhai", "fn test_x() { throw \"A\\u009bB\" }\n");
    let ran = home.run(&["test", "--json", "t_test.rhai"]).exits(1);
    assert!(plain(&ran.out), "{ran:?}");
}

#[test]
fn a_check_says_nothing_that_acts_on_a_terminal() {
    let home = Home::new();
    let script = "//! A check.\n//! usage: opsh c.rhai\n//! exit: plugin\nimport \"std/check\" as check;\n\
                  check::result(\"all\\u009b31m well\\x1b[31m\", [])\n";
    let ran = home.run(&["--observe", &home.put("c.rhai", script)]);
    assert!(ran.out.starts_with("C ") && !ran.out.contains(['\u{9b}', '\u{1b}']), "{ran:?}");
}

#[test]
fn a_password_in_a_pipe_is_an_error_and_no_wait() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let path = home.path("pw");
    pipe(&path);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (ssh, password) =
        ("[host.web]\nssh = \"root@127.0.0.1\"\n", format!("password = \"file:{}\"\n", path.display()));
    home.put("opsh.toml", &format!("{ssh}{password}"));
    let ran = home.run(&["-e", "host(\"web\").read([\"true\"])"]);
    assert!(ran.code != Some(0) && ran.err.contains("it is not a plain file"), "{ran:?}");
}

/// Makes the state folder with mode 1777, and a file of another account in it.
fn planted(home: &Home, file: &str, text: &str) {
    use std::os::unix::fs::{PermissionsExt, chown};
    let state = home.path("state/opsh");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o1777)).unwrap();
    std::fs::write(state.join(file), text).unwrap();
    let _ = chown(state.join(file), Some(65534), Some(65534));
}

#[test]
fn host_keys_of_a_state_folder_that_others_write_are_not_used() {
    let Some(sshd) = Sshd::start() else { return };
    let home = Home::new();
    std::fs::create_dir(home.path("run")).unwrap();
    let unpinned: String =
        sshd.host(1, "").lines().filter(|line| !line.starts_with("host_key")).map(|l| format!("{l}\n")).collect();
    home.put("opsh.toml", &unpinned);
    let run = |words: &[&str]| home.run_with(words, "XDG_RUNTIME_DIR", home.path("run").to_str().unwrap());
    let look = ["-e", "host(\"web-1\").read([\"uname\"]).out"];
    let line = format!("web-1 {}\n", sshd.host_key());
    std::fs::create_dir_all(home.path("state/opsh")).unwrap();
    home.put("state/opsh/known_hosts", &line);
    assert!(run(&look).exits(0).out.contains("Linux"));
    planted(&home, "known_hosts", &line);
    let ran = run(&look);
    assert!(ran.code != Some(0) && !ran.out.contains("Linux"), "{ran:?}");
    assert!(ran.err.contains("others may write to") && ran.err.contains("are not used"), "{ran:?}");
    let ran = run(&["--yes", "host", "adopt", "web-1"]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert_eq!(std::fs::read_to_string(home.path("state/opsh/known_hosts")).unwrap(), line);
}

#[test]
fn a_history_that_others_may_have_written_is_not_offered() {
    for is_private in [true, false] {
        let home = Home::new();
        planted(&home, "history", "#V2\nprint(\"planted\")\n");
        if is_private {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            std::fs::set_permissions(home.path("state/opsh"), mode).unwrap();
        }
        let terminal = Terminal::start(&home, 100, 30, &[]);
        terminal.until_prompts(1).keys("\x1b[A");
        if is_private {
            terminal.until("planted");
        } else {
            terminal.keys("40 + 2\r").until_prompts(2);
            assert!(!terminal.raw().contains("planted"), "{}", terminal.raw());
            assert!(!std::fs::read_to_string(home.path("state/opsh/history")).unwrap().contains("40 + 2"));
        }
    }
}

#[test]
fn a_history_that_is_a_pipe_keeps_nobody_waiting() {
    let home = Home::new();
    std::fs::create_dir_all(home.path("state/opsh")).unwrap();
    pipe(&home.path("state/opsh/history"));
    let terminal = Terminal::start(&home, 100, 30, &[]);
    terminal.until("it is not a plain file").until_prompts(1).keys("40 + 2\r").until_prompts(2);
}
