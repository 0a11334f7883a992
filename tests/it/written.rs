//! Writes are checked: an output that was cut is an error, and a file has its name only when it is whole.

use crate::home::{Home, Ran};
use std::fs::File;
use std::path::Path;
use std::process::Stdio;

/// With standard output on a disk that is full.
fn to_full(home: &Home, words: &[&str]) -> Ran {
    let full = File::options().write(true).open("/dev/full").unwrap();
    Ran::of(home.command(words).stdout(full).output().unwrap())
}

const CHECK: &str = "//! A check.\n//! usage: opsh c.rhai\n//! exit: plugin\nimport \"std/check\" as check;\n\
                     check::result(\"all well\", [])\n";

#[test]
fn an_output_that_cannot_be_written_is_an_error() {
    let home = Home::new();
    home.run(&["-e", "1"]).exits(0);
    let script = home.put("s.rhai", "print(\"x\");");
    home.put("t_test.rhai", "fn test_x() { }");
    home.put("lines", "1 + 1\n");
    let commands: &[&[&str]] = &[
        &["journal", "export", "last"],
        &["journal", "list"],
        &["journal", "show", "last"],
        &["--json", "journal", "list"],
        &["journal", "verify"],
        &["runs"],
        &["doc"],
        &["doc", "docker"],
        &["help"],
        &["help", "docker.restart"],
        &["--help"],
        &["--version"],
        &["journal", "--help"],
        &["lint", "s.rhai"],
        &["test", "t_test.rhai"],
        &["-e", "40 + 2"],
        &["-e", "print(1); ()"],
        &["--json", "-e", "[1]"],
        &["--typed", "lines"],
        &[&script],
        &[&script, "--help"],
    ];
    for words in commands {
        let ran = to_full(&home, words);
        assert_eq!(ran.code, Some(1), "{words:?}: {ran:?}");
        assert!(ran.err.contains("No space left on device"), "{words:?}: {}", ran.err);
    }
    let ran = to_full(&home, &["--json", "-e", "1"]).exits(1);
    let error: serde_json::Value = serde_json::from_str(ran.err.lines().last().unwrap()).unwrap();
    assert_eq!(error["what"], "the output is not whole");
    to_full(&home, &["-e", "throw \"x\""]).exits(1);
    to_full(&home, &["-e", "print(1); exit(7)"]).exits(7);
    to_full(&home, &["-e", "let x = 1;"]).exits(0);
}

#[test]
fn a_check_whose_line_is_lost_is_unknown() {
    let home = Home::new();
    let script = home.put("c.rhai", CHECK);
    let told = home.run(&["--observe", &script]);
    assert!(told.out.starts_with("C "), "{told:?}");
    let ran = to_full(&home, &["--observe", &script]).exits(3);
    assert!(ran.err.contains("No space left on device"), "{}", ran.err);
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let home = Home::new();
    let mut child = home.command(&["doc"]).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran::of(child.wait_with_output().unwrap());
    // The reference is longer than a pipe holds. 141 is what a program has that the signal of a closed pipe ended.
    assert_eq!((ran.code, ran.err.as_str()), (Some(141), ""));
}

#[test]
fn a_recording_that_was_cut_is_refused() {
    let home = Home::new();
    let code = "host(\"local\").read([\"cat\", \"/etc/hostname\"]); host(\"local\").read([\"uname\"]).code";
    home.run(&["-e", code]).exits(0);
    let whole = home.run(&["journal", "export", "last"]).exits(0).out;
    let replay = |text: &str| {
        let file = home.put("r.jsonl", text);
        home.run(&["--replay", &file, "-e", code])
    };
    replay(&whole).exits(0);
    let lines: Vec<&str> = whole.lines().collect();
    assert!(lines.len() > 4 && lines[0].contains("\"format\":2"), "{whole}");
    for kept in 1..lines.len() {
        let ran = replay(&lines[..kept].join("\n")).exits(2);
        assert!(ran.err.contains("is no recording") && ran.err.contains("journal export"), "{}", ran.err);
    }
    for cut in [1, 20, lines[lines.len() - 1].len()] {
        replay(&whole.trim_end()[..whole.trim_end().len() - cut]).exits(2);
    }
    let without = [&lines[..2], &lines[3..]].concat().join("\n");
    replay(&without).exits(2);
    // One of an opsh that wrote no last line.
    let old = lines[..lines.len() - 1].join("\n").replace("\"format\":2,", "");
    replay(&old).exits(0);
}

#[test]
fn a_case_that_was_cut_fails_and_no_update_cures_it() {
    let home = Home::new();
    std::fs::create_dir(home.path("case")).unwrap();
    home.put("s.rhai", "//! X.\n//! usage: opsh s.rhai\nprint(host(\"local\").read([\"uname\"]).out);");
    home.put("case/command", "s.rhai");
    home.run(&["s.rhai"]).exits(0);
    let whole = home.run(&["journal", "export", "last"]).exits(0).out;
    home.put("case/recording.jsonl", &whole);
    home.run(&["test", "--update", "case"]).exits(0);
    home.run(&["test", "case"]).exits(0);
    let cut: Vec<&str> = whole.lines().collect();
    home.put("case/recording.jsonl", &cut[..cut.len() - 1].join("\n"));
    for words in [vec!["test", "case"], vec!["test", "--update", "case"], vec!["test", "case"]] {
        let ran = home.run(&words).exits(1);
        assert!(ran.out.contains("is no recording"), "{ran:?}");
    }
}

/// Names in the folder of the journal that are of an export.
fn exports(home: &Home) -> Vec<String> {
    let folder = std::fs::read_dir(home.path("state/opsh")).unwrap().flatten();
    let mut names: Vec<String> = folder.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.retain(|name| name.contains("pruned"));
    names.sort();
    names
}

#[test]
fn a_prune_that_is_killed_leaves_no_export_and_can_be_repeated() {
    let home = Home::new();
    let lines: String = (0..600).map(|at| format!("{at} + 1\n")).collect();
    let file = home.put("lines", &lines);
    home.run(&["--typed", &file]).exits(0);
    let prune = ["journal", "prune", "--before", "0d", "--yes"];
    // A file may have 100 KiB and not more: the kernel kills the process in the middle of the export.
    let mut limited = std::process::Command::new("sh");
    let like = home.command(&prune);
    limited.args(["-c", "ulimit -f 200; exec \"$0\" \"$@\""]).arg(like.get_program()).args(like.get_args());
    limited.current_dir(home.0.path()).env_clear();
    limited.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let killed = Ran::of(limited.output().unwrap());
    assert_eq!(killed.signal, Some(libc::SIGXFSZ), "{killed:?}");
    assert!(exports(&home).iter().all(|name| name.ends_with(".part")), "{:?}", exports(&home));
    assert_eq!(exports(&home).len(), 1, "it was killed while it wrote");
    home.run(&["journal", "verify"]).exits(0);
    let ran = home.run(&prune).exits(0);
    let [name] = exports(&home).try_into().unwrap();
    assert!(name.ends_with(".jsonl") && ran.out.contains(&name), "{name}");
    let text = std::fs::read_to_string(home.path("state/opsh").join(name)).unwrap();
    let end: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&end["kind"], end["records"].as_u64()),
        (&"recording.end".into(), Some(text.lines().count() as u64 - 1))
    );
}

#[test]
fn a_prune_onto_a_file_that_is_there_keeps_both() {
    let home = Home::new();
    home.run(&["-e", "1"]).exits(0);
    let there = home.put("there.jsonl", "mine");
    let ran = home.run(&["journal", "prune", "--before", "0d", "--yes", "--to", &there]).exits(1);
    assert!(ran.err.contains("was not pruned"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "mine");
    assert!(!Path::new(&format!("{there}.part")).exists());
    home.run(&["journal", "show", "last"]).exits(0);
}
