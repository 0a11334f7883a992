//! `opsh lint` finds each mistake that was made on purpose, and nothing in what is right: our own scripts and modules, every
//! example of the reference, and a script that uses the language's corners and runs.

use crate::home::{Home, OPSH, Ran};
use opsh::session::{help, lint};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// `opsh lint` with these words, in the repository.
fn linted(words: &[&str]) -> Ran {
    let mut command = Command::new(OPSH);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("lint").args(words);
    Ran::of(command.output().unwrap())
}

fn fixture(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lint").join(name)).unwrap()
}

/// Line and rule of each finding.
fn found(ran: &Ran) -> BTreeSet<(usize, String)> {
    let pair = |finding: serde_json::Value| {
        let line = finding["line"].as_u64().unwrap() as usize;
        (line, finding["rule"].as_str().unwrap().to_string())
    };
    ran.json_lines().into_iter().map(pair).collect()
}

#[test]
fn each_mistake_is_found_and_nothing_else() {
    let text = fixture("scripts/mistakes.rhai");
    let marks = text.lines().enumerate().filter_map(|(at, line)| Some((at + 1, line.rsplit_once(" // ")?.1)));
    let marked: BTreeSet<(usize, String)> =
        marks.flat_map(|(line, rules)| rules.split(' ').map(move |rule| (line, rule.to_string()))).collect();
    assert!(marked.len() >= 20, "{}", marked.len());
    let ran = linted(&["--json", "tests/fixtures/lint/scripts/mistakes.rhai"]).exits(1);
    let found = found(&ran);
    let missed: Vec<_> = marked.difference(&found).collect();
    let false_alarms: Vec<_> = found.difference(&marked).collect();
    assert!(missed.is_empty() && false_alarms.is_empty(), "missed {missed:?}, false alarms {false_alarms:?}");
}

#[test]
fn nothing_is_wrong_with_the_scripts_and_modules_of_this_repository() {
    let ran = linted(&[]).exits(0);
    assert!(ran.out.starts_with("0 findings in ") && !ran.out.contains(" in 0 files"), "{}", ran.out);
    linted(&["tests/stdlib"]).exits(0);
}

#[test]
fn nothing_is_wrong_with_the_examples_of_the_reference() {
    for entry in help::entries() {
        assert_eq!(lint::lint("example.rhai", entry.example, None), [], "{}: {}", entry.name, entry.example);
    }
}

#[test]
fn nothing_is_wrong_with_the_scripts_in_the_documents() {
    for (name, text) in [
        ("README", include_str!("../../README.md")),
        ("scripts", include_str!("../../docs/scripts.md")),
        ("cookbook", include_str!("../../docs/cookbook.md")),
        ("checks", include_str!("../../docs/checks.md")),
    ] {
        let blocks = text.split("```rhai\n").skip(1).filter_map(|rest| rest.split("```").next());
        // A test there imports a script that is only told of.
        let mut whole = blocks.filter(|block| !block.contains("import \"../")).peekable();
        assert!(whole.peek().is_some(), "{name} has no script");
        whole.for_each(|block| assert_eq!(lint::lint("scripts/again.rhai", &with_header(block), None), [], "{block}"));
    }
}

/// A block that is no whole script, as one.
fn with_header(block: &str) -> String {
    let header = "//! A part.\n//! usage: opsh scripts/again.rhai\n";
    if block.starts_with("//!") { block.into() } else { format!("{header}{block}") }
}

#[test]
fn what_runs_has_no_finding() {
    let home = Home::new();
    std::fs::create_dir(home.path("scripts")).unwrap();
    home.put("scripts/words.rhai", &fixture("scripts/words.rhai"));
    home.put("fine.rhai", &fixture("fine.rhai"));
    home.run(&["fine.rhai"]).exits(0);
    home.run(&["lint", "fine.rhai"]).exits(0).prints("0 findings in 1 file\n");
    // Without a path: the scripts, when there is a folder of them.
    home.run(&["lint"]).exits(0).prints("0 findings in 1 file\n");
    std::fs::remove_dir_all(home.path("scripts")).unwrap();
    home.run(&["lint"])
        .exits(1)
        .shows(&["fine.rhai:2:8  unknown-module  \"scripts/words\" is neither a file nor built in"]);
}

#[test]
fn a_finding_has_its_place_its_reason_and_its_fix() {
    let home = Home::new();
    home.put("a.rhai", "let p = stack(\"prod\");\np.restrat(\"web\");\n");
    let shown = "a.rhai:2:3  unknown-method  there is no method stack.restrat\n  did you mean \"restart\"?\n\
                 1 finding in 1 file\n";
    home.run(&["lint"]).exits(1).prints(shown).says(&["1 finding in 1 file"]);
    let json = home.run(&["lint", "--json", "a.rhai"]).exits(1).json_lines();
    let wanted = serde_json::json!({
        "path": "a.rhai", "line": 2, "column": 3, "rule": "unknown-method",
        "why": "there is no method stack.restrat", "fix": "did you mean \"restart\"?",
    });
    assert_eq!(json, [wanted]);
    assert!(!home.path("state").exists(), "it was recorded");
}

#[test]
fn what_does_not_parse_is_one_finding_where_it_breaks() {
    let home = Home::new();
    home.put("a.rhai", "let x = 1;\nlet y = ;\nnothing(1);\n");
    home.run(&["lint"]).exits(1).shows(&["a.rhai:2:9  parse  ", "1 finding in 1 file"]);
    home.put("a.rhai", "eval(\"1\")");
    home.run(&["lint"]).exits(1).shows(&["a.rhai:1:1  parse  ", "eval"]);
}

#[test]
fn a_path_that_is_not_there_is_a_usage_error() {
    let home = Home::new();
    home.run(&["lint", "nothing.rhai"]).exits(2).says(&["nothing.rhai cannot be looked through", "No such file"]);
    home.run(&["lint"]).exits(2).says(&["no *.rhai file is there"]);
}

#[test]
fn a_script_has_a_header_and_a_case_and_a_module_of_functions_needs_neither() {
    let home = Home::new();
    std::fs::create_dir_all(home.path("scripts")).unwrap();
    home.put("scripts/words.rhai", "//! Words.\nfn one() { 1 }\n");
    home.put("scripts/bare.rhai", "print(1);\n");
    home.put("scripts/open.rhai", "//! Opens it.\nprint(1);\n");
    home.put("scripts/shut.rhai", "//! Shuts it.\n//!\n//! usage: opsh scripts/shut.rhai\nprint(1);\n");
    let rules = |home: &Home| {
        let findings = home.run(&["lint", "--json"]).json_lines();
        let named = findings.iter().map(|one| format!("{} {}", one["path"], one["rule"]).replace('"', ""));
        named.collect::<Vec<_>>()
    };
    assert_eq!(rules(&home), ["scripts/bare.rhai header", "scripts/open.rhai header"]);
    std::fs::create_dir_all(home.path("tests/cases/a-run")).unwrap();
    home.put("tests/cases/a-run/command", "scripts/bare.rhai --now\n");
    let all =
        ["scripts/bare.rhai header", "scripts/open.rhai header", "scripts/open.rhai case", "scripts/shut.rhai case"];
    assert_eq!(rules(&home), all);
}

/// The hosts of opsh.toml are asked for with `ssh -G`, a read in the record like any other.
#[test]
fn a_host_whose_ssh_trusts_anybody_is_a_finding_in_opsh_toml() {
    let home = Home::new();
    let hosts = "[host.web-1]\nssh = \"web-1\"\njump = \"root@gate:2222\"\n\n[host.web-2]\nssh = \"root@web-2\"\n";
    home.put("opsh.toml", hosts);
    home.put("a.rhai", "print(1);\n");
    let answer = "#!/bin/sh\ncase $* in '-G root@web-2'|'-G ssh://root@gate:2222') echo 'stricthostkeychecking false';;\n\
                  *) echo 'stricthostkeychecking ask';; esac\n";
    std::fs::create_dir(home.path("bin")).unwrap();
    let ssh = home.put("bin/ssh", answer);
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", home.path("bin").display(), std::env::var("PATH").unwrap());
    let ran = home.run_with(&["lint"], "PATH", &path).exits(1);
    ran.shows(&[
        "opsh.toml:1:1  host-key-checking  ssh ssh://root@gate:2222 by hand trusts whoever answers",
        "opsh.toml:5:1  host-key-checking  ssh root@web-2 by hand trusts whoever answers",
        "2 findings in 1 file",
    ]);
    let reads: Vec<_> = home.records().into_iter().filter(|record| record["kind"] == "effect.read").collect();
    assert_eq!(reads.len(), 3, "{reads:?}");
}
