//! A script that fails at the prompt: its run waits for a person, and what is typed meanwhile is in its record.

use super::home::{Home, story_of};
use super::terminal::{SIZES, Terminal};
use serde_json::Value;

/// Two steps, of which the second fails until a file is there.
const MEND: &str = r#"//! Mends.
//!
//! usage: opsh scripts/mend.rhai DIR
let dir = args::need(0, "DIR");
let here = host("local");
let sum = 40;
fn doubled(n) { n * 2 }
step("note", || here.sh("echo noted >>\"$1/log\"", [dir], #{ undo: `host("local").run(["rm", "${dir}/log"])` }));
step("look", || here.sh("test -e \"$1/ready\" && echo looked >>\"$1/log\"", [dir]));
print(`mended ${sum}`);
"#;

struct Sat {
    home: Home,
    terminal: Terminal,
}

/// A sitting at which the script has failed in its second step.
fn failed(columns: u16, rows: u16) -> Sat {
    let home = Home::new();
    std::fs::create_dir(home.path("scripts")).unwrap();
    home.put("scripts/mend.rhai", MEND);
    let terminal = Terminal::start(&home, columns, rows, &[]);
    terminal.until_line("opsh ›");
    let sat = Sat { home, terminal };
    let dir = sat.home.0.path().display().to_string();
    sat.says(&format!("mend {dir}"), &["go     does it"]);
    sat.terminal.keys("go\r").agree().agree().until_line("opsh (mend.rhai failed) ›");
    sat
}

impl Sat {
    fn says(&self, line: &str, shows: &[&str]) -> &Sat {
        self.terminal.says(line, shows);
        self
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path("log")).unwrap_or_default()
    }

    /// The records of the script's run, however many there are of it.
    fn run(&self) -> Vec<Value> {
        let runs = self.home.run(&["--json", "runs"]).exits(0).json_lines();
        let of_script = |run: &&Value| run["mode"] == "apply" && run["what"].as_str().unwrap().contains("mend");
        let found: Vec<&Value> = runs.iter().filter(of_script).collect();
        let [run] = found[..] else { panic!("one run, whatever was tried: {runs:?}") };
        self.home.run(&["journal", "export", run["run"].as_str().unwrap()]).exits(0).json_lines()
    }
}

fn of_kind<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["kind"] == kind).collect()
}

#[test]
fn a_retry_leaves_out_what_is_done_and_what_was_typed_before_it_is_in_the_same_record() {
    for (columns, rows) in SIZES {
        let sat = failed(columns, rows);
        sat.terminal.until("retry     run it again").until("undo     take back what it did: 1 of 2 effects");
        assert_eq!(sat.log(), "noted\n");
        // The script's variables and functions are there.
        sat.says("doubled(sum) + 4", &["84"]);
        // Once more in vain.
        sat.terminal.keys("retry\r").agree().until_line("opsh (mend.rhai failed) ›");
        let next = sat.terminal.prompts() + 1;
        sat.terminal.keys("here.run([\"touch\", dir + \"/ready\"])\r").agree().until_prompts(next);
        sat.terminal.keys("retry\r").agree().until("step \"note\" was done").until("mended 40").until_line("opsh ›");
        assert_eq!(sat.log(), "noted\nlooked\n", "a step that was done is not done again");
        sat.says("sum", &["no word \"sum\""]);

        let records = sat.run();
        assert_eq!(of_kind(&records, "run.retry").len(), 2);
        let lines: Vec<&str> =
            of_kind(&records, "line").iter().map(|line| line["body"]["text"].as_str().unwrap()).collect();
        assert_eq!(lines, ["doubled(sum) + 4", "here.run([\"touch\", dir + \"/ready\"])"]);
        assert_eq!(story_of(&records).last().unwrap(), "run.end ok");
        assert_eq!(of_kind(&records, "run.end").len(), 1);
        sat.home.run(&["journal", "verify"]).exits(0);
    }
}

#[test]
fn a_corrected_script_is_gone_on_with_only_when_somebody_agrees_to_it() {
    for (columns, rows) in SIZES {
        let sat = failed(columns, rows);
        sat.home.put("scripts/mend.rhai", &MEND.replace("test -e \\\"$1/ready\\\" && ", ""));
        sat.says("retry", &["mend.rhai is not what it was", "retry --changed-script"]);
        assert_eq!(sat.log(), "noted\n");
        // A text that does not parse leaves all as it is.
        let corrected = std::fs::read_to_string(sat.home.path("scripts/mend.rhai")).unwrap();
        sat.home.put("scripts/mend.rhai", "let (");
        sat.says("retry --changed-script", &["let ("]).terminal.until_line("opsh (mend.rhai failed) ›");
        sat.home.put("scripts/mend.rhai", &corrected);
        sat.terminal.keys("retry --changed-script\r").agree().until("mended 40").until_line("opsh ›");
        assert_eq!(sat.log(), "noted\nlooked\n");
        assert_eq!(of_kind(&sat.run(), "run.retry").len(), 1);
    }
}

#[test]
fn what_is_done_in_a_shell_meanwhile_is_in_no_record_and_that_there_was_one_is() {
    for (columns, rows) in SIZES {
        let sat = failed(columns, rows);
        let next = sat.terminal.prompts() + 1;
        sat.terminal
            .keys("shell\r")
            .agree()
            .keys("cd; touch ready; echo done-$((40 + 2))\r")
            .until("done-42")
            .keys("exit\r");
        sat.terminal.until_prompts(next).until_line("opsh (mend.rhai failed) ›");
        sat.terminal.keys("retry\r").agree().until("mended 40").until_line("opsh ›");
        let records = sat.run();
        assert_eq!(of_kind(&records, "choice")[0]["body"]["what"], "shell");
        let opened = |record: &&Value| record["body"]["verb"] == "host.terminal";
        assert!(of_kind(&records, "effect.begin").iter().any(opened), "{records:?}");
        assert!(!serde_json::to_string(&records).unwrap().contains("touch ready"));
    }
}

#[test]
fn what_a_step_left_is_looked_for_before_a_retry_and_a_step_that_was_typed_is_none() {
    for (columns, rows) in SIZES {
        let sat = failed(columns, rows);
        sat.says("step(\"look\", || 7)", &["7"]);
        sat.home.put("ready", "");
        sat.terminal.keys("retry\r").agree().until("mended 40").until_line("opsh ›");
        assert_eq!(sat.log(), "noted\nlooked\n", "a step is done by its script");
        sat.home.run(&["journal", "verify"]).exits(0);
    }
}

#[test]
fn why_changes_are_made_is_in_the_record_of_the_sitting_when_it_was_said_at_a_script_that_failed() {
    for (columns, rows) in SIZES {
        let sat = failed(columns, rows);
        sat.says(":apply \"502 since 02:50\"", &[]).says("abort", &[]);
        sat.terminal.leave();
        assert_eq!(of_kind(&sat.home.sitting(), "apply")[0]["body"]["why"], "502 since 02:50");
    }
}

#[test]
fn what_is_about_the_sitting_waits_and_a_no_ends_nothing() {
    for (columns, rows) in SIZES {
        let sat = failed(columns, rows);
        sat.says(":save lines.rhai", &[":save was not done", "mend.rhai failed and waits"]);
        sat.says(":observe", &[]);
        for choice in ["retry", "undo", "shell"] {
            sat.says(choice, &[&format!("{choice} was not done"), ":apply \"WHY\""]);
        }
        sat.says(":apply \"it must\"", &[]);
        // What was done before the question is said, although other lines were typed since.
        sat.says("1 + 1", &["2"]);
        let next = sat.terminal.prompts() + 1;
        sat.terminal.keys("retry\r").answer("").until_prompts(next).until("before it this run did: host.sh");
        sat.terminal.until_line("opsh (mend.rhai failed) ›");
        // What was planned with the script's variables is not done without them.
        sat.says(":plan here.run([\"touch\", dir + \"/late\"])", &["go     does it"]);
        sat.says("abort", &["mend.rhai ended as unmet"]).says("go", &["\"abort\" came between"]);
        assert!(!sat.home.path("late").exists());
    }
}

#[test]
fn an_undo_that_finds_nothing_goes_on_waiting_and_a_run_gone_on_with_by_hand_is_not_replayed() {
    for (columns, rows) in SIZES {
        let sat = failed(columns, rows);
        let next = sat.terminal.prompts() + 1;
        sat.terminal.keys("here.run([\"rm\", dir + \"/log\"])\r").agree().until_prompts(next);
        sat.terminal.keys("undo\r").agree().until_prompts(next + 1);
        sat.says("abort", &[]);
        let run = sat.run()[0]["run"].as_str().unwrap().to_string();
        let recording = sat.home.run(&["journal", "export", &run]).exits(0).out;
        sat.home.put("run.jsonl", &recording);
        let dir = sat.home.0.path().display().to_string();
        sat.home.run(&["--replay", "run.jsonl", "scripts/mend.rhai", &dir]).exits(2).says(&["went on with it by hand"]);
    }
}

#[test]
fn every_choice_is_in_the_docs() {
    let doc = std::fs::read_to_string("docs/shell.md").unwrap();
    for (word, does) in opsh::session::failure::CHOICES {
        let row = format!("| `{word}` | {does} |");
        assert!(doc.lines().any(|line| line == row), "{row}");
    }
}

#[test]
fn an_undo_takes_back_what_the_run_did_and_ends_it() {
    for (columns, rows) in SIZES {
        let sat = failed(columns, rows);
        sat.terminal.keys("undo\r").agree().until("undone: 1 of 2 effects").until_line("opsh ›");
        assert!(!sat.home.path("log").exists());
        sat.says("undo", &["no script failed here"]);
        let records = sat.run();
        assert_eq!(of_kind(&records, "effect.undone").len(), 1, "in the record of the run itself");
        assert_eq!(story_of(&records).last().unwrap(), "run.end failed");
        sat.says(":undo", &["nothing to undo"]);
    }
}

#[test]
fn nothing_is_skipped_and_an_abort_says_how_to_go_on() {
    for (columns, rows) in SIZES {
        for leave in ["abort\r", "\x04", ":quit\r"] {
            let sat = failed(columns, rows);
            sat.terminal.keys("ab\t").until_line("opsh (mend.rhai failed) › abort");
            sat.terminal.keys("\x03").until_line("opsh (mend.rhai failed) ›");
            sat.says("skip", &["no script goes on without its backup"]);
            // A no is no way out either.
            sat.terminal.keys("undo\r").answer("").until("the answer was no").until_line("opsh (mend.rhai failed) ›");
            sat.terminal.keys(leave).until("mend.rhai ended as failed").until("opsh resume").until("opsh undo");
            let records = sat.run();
            assert_eq!(story_of(&records).last().unwrap(), "run.end failed");
            assert_eq!(sat.log(), "noted\n");
            // What was left can be gone on with from outside.
            sat.home.put("ready", "");
            let run = records[0]["run"].as_str().unwrap();
            sat.home.run(&["--yes", "resume", run]).exits(0);
            assert_eq!(sat.log(), "noted\nlooked\n");
        }
    }
}

#[test]
fn what_never_began_does_not_wait_and_a_terminal_that_closes_loses_nothing() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        std::fs::create_dir(home.path("scripts")).unwrap();
        home.put("scripts/mend.rhai", MEND);
        let terminal = Terminal::start(&home, columns, rows, &[]);
        terminal.until_line("opsh ›");
        let next = terminal.prompts() + 1;
        terminal.keys("mend\r").until("DIR").until_prompts(next).until_line("opsh ›");
        terminal.keys("mend /nowhere\r").until("go     does it").until_prompts(next + 1);
        terminal.keys("go\r").answer("").until("nothing changed").until_line("opsh ›");
        // A no leaves it planned.
        terminal.keys("go\r").answer("").until_prompts(next + 3).until_line("opsh ›");

        let mut sat = failed(columns, rows);
        sat.terminal.kill();
        sat.terminal.ends();
        let story = story_of(&sat.run());
        assert_eq!(story[story.len() - 2..], ["run.failed", "run.end killed"], "{story:?}");
        sat.home.run(&["runs"]).exits(0).shows(&["killed"]);
        sat.home.run(&["journal", "verify"]).exits(0);
    }
}
