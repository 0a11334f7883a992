//! `opsh test` itself, and the tests of this repository that it runs: the cases, which are runs of the lab, and those of the
//! modules.

use crate::home::{Home, OPSH, Ran};
use std::path::Path;
use std::process::Command;

/// `opsh test` with these words, in the repository.
fn tested(words: &[&str]) -> Ran {
    let mut command = Command::new(OPSH);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("test").args(words);
    Ran::of(command.output().unwrap())
}

#[test]
fn every_case_and_every_module_is_as_it_should_be() {
    let ran = tested(&[]).exits(0);
    let tests = ran.out.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(ran.out.ends_with(&format!("{tests} passed, 0 failed\n")), "{}", ran.out);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for case in std::fs::read_dir(root.join("tests/cases")).unwrap() {
        let name = case.unwrap().file_name().into_string().unwrap();
        assert!(ran.out.contains(&format!("ok      tests/cases/{name}\n")), "{name}: {}", ran.out);
    }
    for module in std::fs::read_dir(root.join("stdlib")).unwrap() {
        let name = module.unwrap().file_name().into_string().unwrap().replace(".rhai", "");
        assert!(ran.out.contains(&format!("tests/stdlib/{name}_test.rhai::")), "std/{name} has no test: {}", ran.out);
    }
}

/// Whichever effect of a case fails, the run says so, keeps its record and can be taken back; a look may be done without only
/// where it is beside the work.
#[test]
fn every_case_fails_at_each_of_its_effects_as_it_should() {
    let ran = tested(&["--sweep"]).exits(0);
    let beside = ["stack.facts", "migrate.stops", "the lock's release"];
    for line in ran.out.lines().filter(|line| line.starts_with("ok ")) {
        let survived = line.split_once("; survives ").map_or("", |(_, all)| all);
        let unknown = survived.split(", ").find(|one| !one.is_empty() && !beside.contains(one));
        assert_eq!(unknown, None, "{line}");
    }
}

/// A case of a home: its script does this in the home, and is recorded there.
fn recorded_of(script: impl Fn(&str) -> String) -> Home {
    let home = Home::new();
    for folder in ["scripts", "tests/touch"] {
        std::fs::create_dir_all(home.path(folder)).unwrap();
    }
    home.put("scripts/touch.rhai", &script(&home.path("made").display().to_string()));
    home.run(&["--yes", "scripts/touch.rhai"]).exits(0);
    home.put("tests/touch/recording.jsonl", &home.run(&["journal", "export", "last"]).exits(0).out);
    home.put("tests/touch/command", "opsh scripts/touch.rhai\n");
    home
}

/// One that touches a file.
fn recorded() -> Home {
    let home = recorded_of(|file| format!("host(\"local\").run([\"touch\", {file:?}]);\nprint(\"touched\");\n"));
    std::fs::remove_file(home.path("made")).unwrap();
    home
}

#[test]
fn a_run_becomes_a_test_and_an_unexpected_change_fails_it() {
    let home = recorded();
    home.run(&["test"]).exits(1).shows(&["FAILED  tests/touch", "+touched", "--update"]);
    home.run(&["test", "--update"]).exits(0).shows(&["ok      tests/touch     rewritten"]);
    home.run(&["test"]).exits(0).prints("ok      tests/touch\n1 passed, 0 failed\n");
    home.run(&["test", "--sweep"]).exits(0).shows(&["1 effects, each failed once"]);
    home.run(&["test", "--fail-at", "1"]).exits(0).shows(&["--fail-at let it fail"]);
    home.run(&["test", "--fail-at", "9"]).exits(1).shows(&["the run has no effect 9"]);
    let shown = home.run(&["test", "--json"]).exits(0).json_lines();
    assert_eq!(shown[0]["test"], "tests/touch");
    assert_eq!(shown[0]["ok"], true);
    assert_eq!(shown[1]["failed"], 0);

    // Another change than the one that was made then, and one that is not made any more.
    let script = std::fs::read_to_string(home.path("scripts/touch.rhai")).unwrap();
    home.put("scripts/touch.rhai", &script.replace("\"touch\"", "\"rm\""));
    home.run(&["test"]).exits(1).shows(&[
        "it does something else than it did",
        "error: the replay differs",
        "0 passed, 1 failed",
    ]);
    home.run(&["test", "--update"]).exits(1).shows(&["it does something else than it did"]);
    home.run(&["test", "--sweep"]).exits(1).shows(&["it does something else than it did"]);
    home.put("scripts/touch.rhai", "print(\"touched\");\n");
    home.run(&["test", "tests/touch"]).exits(1).shows(&["the recording goes on with host.run on local"]);
    assert!(!home.path("made").exists(), "a test changes nothing");
}

#[test]
fn a_script_that_hides_a_failed_change_does_not_pass_the_sweep() {
    let home = recorded();
    let script = std::fs::read_to_string(home.path("scripts/touch.rhai")).unwrap();
    home.put(
        "scripts/touch.rhai",
        &format!("try {{ {} }} catch (error) {{ print(\"never mind\"); }}\n", script.trim()),
    );
    home.run(&["test", "--update"]).exits(0);
    home.run(&["test", "--sweep"]).exits(1).shows(&["effect 1 of 1", "a change failed, and the script ended well"]);
}

#[test]
fn the_sweep_of_a_script_that_expects_more_than_it_did_finds_every_change_in_its_place() {
    let writes = |file: &str| format!("file::write({file:?}, \"1\");\nfile::write(\"{file}2\", \"2\");\n");
    let home = recorded_of(writes);
    home.run(&["test", "--update"]).exits(0);
    let script = std::fs::read_to_string(home.path("scripts/touch.rhai")).unwrap();
    home.put("scripts/touch.rhai", &format!("{0}{0}{0}{script}", "expect(true, \"x\", \"y\");\n"));
    home.run(&["test", "--sweep"]).exits(0).shows(&["effects, each failed once"]);
}

#[test]
fn a_function_is_a_test_that_reaches_nothing() {
    let home = Home::new();
    let file = home.path("made").display().to_string();
    home.put(
        "sum_test.rhai",
        &format!(
            "import \"std/assert\" as assert;\nfn sum(a, b) {{ a + b }}\nfn test_sum() {{ assert::eq(sum(1, 2), 3); }}\n\
             fn test_wrong() {{ assert::eq(sum(1, 2), 4); }}\nfn test_reads() {{ host(\"local\").read([\"true\"]); }}\n\
             fn test_of(x) {{ x }}\nfn test_ends() {{ exit(); throw \"never\"; }}\n\
             fn test_changes() {{ try {{ host(\"local\").run([\"touch\", {file:?}]); }} catch {{ }} }}\n"
        ),
    );
    let ran = home.run(&["test"]).exits(1).shows(&["ok      ./sum_test.rhai::test_sum\n", "1 passed, 5 failed"]);
    for part in
        ["FAILED  ./sum_test.rhai::test_wrong", "it is 3: it should be 4", "no host.read is left in the recording"]
    {
        assert!(
            ran.out.contains(part) || part.contains("it is 3") && ran.out.contains("why: it should be 4"),
            "{part}: {}",
            ran.out
        );
    }
    assert!(ran.out.contains("FAILED  ./sum_test.rhai::test_changes"), "caught or not, it was tried: {}", ran.out);
    assert!(!home.path("made").exists());
}

#[test]
fn what_cannot_be_tested_is_said() {
    let home = Home::new();
    home.run(&["test"]).exits(2).says(&["nothing was tested", "opsh journal export RUN"]);
    home.run(&["test", "nowhere"]).exits(2).says(&["nowhere cannot be tested"]);
    home.put("none_test.rhai", "fn helper() { 1 }");
    home.run(&["test"]).exits(2).says(&["no function in it begins with test_"]);
    home.put("none_test.rhai", "fn test_x( {");
    home.run(&["test"]).exits(2).says(&["none_test.rhai cannot be tested"]);
    std::fs::create_dir_all(home.path("case")).unwrap();
    home.put("case/recording.jsonl", "");
    home.run(&["test", "case"]).exits(2).says(&["case is no case", "neither typed lines nor a command"]);
    home.put("case/command", "scripts/none.rhai");
    home.run(&["test", "case"]).exits(2).says(&["no folder above it has scripts/none.rhai"]);
    home.run(&["--config", "x", "test"]).exits(2).says(&["each test has a recording and a configuration of its own"]);
    home.run(&["--typed", "x", "doctor"]).exits(2).says(&["in place of a script or command"]);
    home.put("lines", "throw \"x\"\n40 + 2\nif true {\n");
    home.run(&["--typed", "lines"]).exits(1).says(&["not every line went well", "2 failed"]).shows(&["42"]);
    home.run(&["--fail-at", "0", "--replay", "x", "y"]).exits(2).says(&["effects are counted from 1"]);
    home.run(&["--fail-at", "1", "scripts/x.rhai"]).exits(2).says(&["--replay"]);
}
