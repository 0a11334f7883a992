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

/// Code of the documents that begins with `opsh`, in a sentence or in a block.
fn commands_of(text: &str) -> Vec<&str> {
    let spans = text.split('`').skip(1).step_by(2);
    let lines = text.lines().map(|line| line.trim_start_matches("$ "));
    spans.chain(lines).filter(|code| code.starts_with("opsh ") && !code.contains(['\n', '›'])).collect()
}

#[test]
fn every_command_that_a_document_names_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let help = String::from_utf8(Command::new(super::home::OPSH).arg("--help").output().unwrap().stdout).unwrap();
    let known: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let files = std::fs::read_dir(root.join("docs")).unwrap().flatten().map(|entry| entry.path());
    let mut seen = 0;
    for file in files.chain([root.join("README.md")]).filter(|file| !file.ends_with("reference.md")) {
        for line in commands_of(&std::fs::read_to_string(&file).unwrap()) {
            let mut words = line.split_whitespace().skip(1).peekable();
            let takes_value = ["--config", "--allow", "--state-dir", "--replay", "--typed", "--fail-at"];
            while let Some(option) = words.next_if(|word| word.starts_with("--")) {
                let value = takes_value.contains(&option).then(|| words.next());
                assert!(help.contains(option), "{}: {line}: no {option} {value:?}", file.display());
            }
            let Some(word) = words.next() else { continue };
            let is_place = word.contains('@') || word.chars().all(|c| c.is_uppercase() || ".…*".contains(c));
            let is_script = word.starts_with("scripts/") || word.ends_with(".rhai") || word.ends_with(".jsonl");
            let is_there = known.contains(&word) || word == "-e" || is_place;
            let own =
                ["scripts/again.rhai", "scripts/x.rhai", "scripts/night.rhai", "scripts/checks/api.rhai", "night.rhai"];
            let is_there = is_there || is_script && (root.join(word).is_file() || own.contains(&word));
            assert!(is_there, "{}: {line}: there is no {word}", file.display());
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen}");
}
