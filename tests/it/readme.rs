//! Every command in the README is run here.

use super::home::Home;
use super::terminal::{SIZES, Terminal};
use std::process::{Command, Output};

const README: &str = include_str!("../../README.md");

/// The lines of the README's `sh` blocks, block by block.
fn blocks() -> Vec<Vec<&'static str>> {
    let mut blocks = Vec::new();
    let mut open: Option<Vec<&str>> = None;
    for line in README.lines() {
        match (&mut open, line) {
            (None, "```sh") => open = Some(Vec::new()),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some(block), line) => block.push(line),
            (None, _) => {}
        }
    }
    blocks
}

fn run(line: &str, home: &std::path::Path) -> Output {
    let mut command = Command::new("bash");
    // What cargo says to a test of its package would make a cargo in it build anew, under the feet of other tests.
    let of_cargo = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    for (name, _) in std::env::vars_os() {
        if of_cargo.iter().any(|start| name.to_string_lossy().starts_with(start)) {
            command.env_remove(name);
        }
    }
    command
        .args(["-euc", line])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("XDG_STATE_HOME", home)
        .env("LAB_NAME", "opsh-readme")
        .stdin(std::process::Stdio::null())
        .output()
        .expect("bash runs")
}

fn must_work(line: &str, home: &std::path::Path) -> String {
    let output = run(line, home);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "`{line}` ended with {}\n{out}\n{err}", output.status);
    format!("{out}{err}")
}

fn transcripts() -> Vec<&'static str> {
    README.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn what_is_typed_at_the_prompt_does_what_it_shows() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = Terminal::start(&home, columns, rows, &[]);
        terminal.until_line("opsh ›");
        let (mut questions, mut prompts) = (0, terminal.prompts());
        for line in transcripts()[1].lines() {
            if let Some(typed) = line.strip_prefix("opsh › ") {
                terminal.until_prompts(prompts).keys(typed).keys("\r");
                prompts += 1;
            } else if let Some(question) = line.strip_suffix(" y") {
                questions += 1;
                terminal.until_written(question, questions).keys("y\r");
            } else {
                terminal.until(line);
            }
        }
        terminal.until_prompts(prompts).until("host.run  local  mkdir tried");
        assert!(
            !home.path("tried").exists() && home.all_records().iter().any(|record| record["kind"] == "effect.undone")
        );
        terminal.leave();
    }
}

#[test]
fn the_command_that_needs_nothing_but_rust_shows_the_transcript() {
    let home = tempfile::tempdir().expect("a folder");
    let block = blocks().into_iter().find(|block| block[0].contains("--replay")).expect("it is in the README");
    let shown = must_work(block[0], home.path());
    for line in transcripts()[0].lines().skip(1) {
        assert!(shown.lines().any(|other| other == line), "not shown: {line}\n{shown}");
    }
}

#[test]
fn the_demo_plays_through() {
    let home = tempfile::tempdir().expect("a folder");
    let block = blocks().into_iter().find(|block| block[0].contains("demo --auto")).expect("it is in the README");
    let shown = must_work(block[0], home.path());
    let written = shown.lines().find_map(|line| line.strip_prefix("Its journal and the postmortem are written to "));
    let folder = std::path::Path::new(written.expect("it says where").trim_end_matches('.'));
    assert!(folder.join("postmortem.md").is_file(), "{shown}");
    std::fs::remove_dir_all(folder).expect("it was only a demo");
}

#[test]
fn the_command_that_rehearses_a_change_works() {
    let home = tempfile::tempdir().expect("a folder");
    let block = blocks().into_iter().find(|block| block[0].contains("-- --plan -e")).expect("it is in the README");
    for line in block {
        let shown = must_work(line, home.path());
        assert!(shown.contains("Mounted on") && shown.contains("would: systemctl restart nginx"), "{shown}");
    }
}

#[test]
fn the_test_command_is_there_and_says_what_it_does() {
    let home = tempfile::tempdir().expect("a folder");
    assert!(blocks().iter().any(|block| block == &["tests/run"]), "the README names the test command");
    // Running it here would run this test again.
    assert!(must_work("tests/run --help", home.path()).contains("The one test command"));
}

#[test]
fn the_commands_of_the_lab_work_in_their_order() {
    if !Command::new("docker").arg("info").output().is_ok_and(|output| output.status.success()) {
        return crate::skip::skip("no Docker Engine");
    }
    let home = tempfile::tempdir().expect("a folder");
    let _down = LabDown;
    let block = blocks().into_iter().find(|block| block[0] == "tests/lab/lab up").expect("it is in the README");
    let shown: Vec<String> = block.iter().map(|line| must_work(line, home.path())).collect();
    let all = shown.join("\n");
    for word in ["\"FAILING\"", "prod serves v1.8.0", "run ended: ok"] {
        assert!(all.contains(word.trim_matches('"')), "no {word} in {all}");
    }
}

/// The README's lab goes away, whatever became of the test.
struct LabDown;

impl Drop for LabDown {
    fn drop(&mut self) {
        let home = std::env::temp_dir();
        run("tests/lab/lab down", &home);
    }
}

#[test]
fn every_block_of_commands_is_run() {
    let known = [
        "cargo run -q -- demo --auto",
        "cargo run -q -- --plan -e",
        "cargo run -q -- --config tests/cases/",
        "tests/run",
        "tests/lab/lab up",
    ];
    for block in blocks() {
        assert!(known.iter().any(|known| block[0].starts_with(known)), "no test runs {block:?}");
    }
}
