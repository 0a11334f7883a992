//! A sitting of a tired person: what was planned stays planned, what is said to be typed can be typed, and what is pasted
//! is as many lines as it looks like.

use super::home::{Home, OPSH};
use super::terminal::{CTRL_D, SIZES, Terminal};
use std::process::Command;

/// The stack is on this machine and is no sandbox; the script fails until a file is there.
fn home() -> Home {
    let home = Home::new();
    std::fs::create_dir(home.path("scripts")).unwrap();
    let stack = "host = \"local\"\ncompose = { files = [\"docker-compose.yml\"], project = \"shop\" }\n";
    home.put("opsh.toml", &format!("[stack.shop]\n{stack}dir = \"{}\"\n", home.0.path().display()));
    home.put(
        "scripts/mend.rhai",
        "//! Mends.\n//!\n//! usage: opsh scripts/mend.rhai DIR\nlet dir = args::need(0, \"DIR\");\n\
         step(\"begin\", || host(\"local\").run([\"touch\", dir + \"/begun\"],\n    #{ undo: `host(\"local\").run([\"rm\", \"${dir}/begun\"])` }));\n\
         host(\"local\").run([\"test\", \"-e\", dir + \"/ready\"]);\n",
    );
    home
}

fn at_prompt(home: &Home, columns: u16, rows: u16) -> Terminal {
    let terminal = Terminal::start(home, columns, rows, &[]);
    terminal.until_line("opsh shop (observe) ›");
    terminal
}

#[test]
fn what_was_planned_waits_for_go_while_a_person_only_looks() {
    for (columns, rows) in SIZES {
        let home = home();
        let terminal = at_prompt(&home, columns, rows);
        terminal.says("!touch done", &["go     does it"]);
        terminal.says("!ls", &["scripts"]);
        terminal.says("rety", &["no word \"rety\""]);
        terminal.says("y", &["no question is open", "go     does what was planned"]);
        terminal.answers("go", "y", "✓ host.run");
        assert!(home.path("done").exists());

        // A line that may change what it means ends it, and is named.
        terminal.says("!rm done", &[]);
        terminal.says("let x = 1", &[]);
        terminal.says("go", &["was planned, and \"let x = 1\" came between", "shows it again"]);
        terminal.says("go", &["came between"]);
        assert!(home.path("done").exists());
        terminal.leave();
    }
}

#[test]
fn the_prompt_says_what_the_next_line_may_do() {
    for (columns, rows) in SIZES {
        let home = home();
        let terminal = at_prompt(&home, columns, rows);
        terminal.says("!touch planned", &["go     does it"]);
        terminal.says(":apply \"502 since 02:50\"", &["changes of shop are made from now on"]);
        terminal.until_line("opsh shop (APPLY) ›");
        terminal.answers("go", "y", "✓ host.run");
        terminal.says(":observe", &["every change is refused from now on"]).until_line("opsh shop (observe only) ›");
        terminal.says("opsh resume last", &["a person said :observe"]);
        terminal.says("!touch more", &[":apply \"WHY\", then go     does it"]);
        terminal.says("go", &["a person said :observe"]);
        terminal.says(":apply", &["WHY is missing"]);
        terminal.leave();
        let terminal = Terminal::start(&home, columns, rows, &["--observe"]);
        terminal.until_line("opsh shop (observe only) ›");
        terminal.leave();
    }
}

#[test]
fn what_is_said_to_be_typed_can_be_typed_at_the_prompt() {
    for (columns, rows) in SIZES {
        let home = home();
        let dir = home.0.path().display().to_string();
        home.run(&["--yes", "scripts/mend.rhai", &dir]).exits(1);
        let run = home.run(&["--json", "runs", "1"]).json_lines()[0]["run"].as_str().unwrap().to_string();
        home.put("ready", "");
        let terminal = at_prompt(&home, columns, rows);
        terminal.says("opsh attach", &["nothing goes on"]);
        terminal.says("opsh runs", &["next: opsh resume"]);
        terminal.says(&format!("opsh journal show {run}"), &["run ended: failed"]);
        terminal.says(&format!("opsh journal settle {run}"), &["what you saw is missing"]);
        terminal.says(&format!("opsh journal settle {run} \"it is there\""), &["every change in it has an outcome"]);
        terminal.answers(&format!("opsh resume {run}"), "y", "step \"begin\" was done");
        assert_eq!(home.run(&["--json", "runs", "1"]).json_lines()[0]["outcome"], "ok");
        // What undoes it asks, too, and is planned first.
        terminal.says(&format!("opsh undo {run}"), &["go     does it: :undo"]);
        terminal.answers("go", "y", "undone: 1 of");
        assert!(!home.path("begun").exists());
        terminal.says(&format!("opsh scripts/mend.rhai {dir}"), &["go     does it: scripts/mend.rhai"]);
        terminal.says("opsh host adopt shop", &["is typed at a shell, and this is opsh"]);
        terminal.leave();
    }
}

#[test]
fn a_pasted_block_of_words_is_as_many_lines() {
    for (columns, rows) in SIZES {
        let home = home();
        let terminal = at_prompt(&home, columns, rows);
        terminal.paste("!ls scripts\n# and then\n:note seen\nlet b = 2;\nb + 40\n@local ls nowhere\n:note never\n");
        terminal.says("", &["mend.rhai", "42", "not done after that: :note never"]);
        // Each change is looked at before the next one takes its place, and what is no line is nobody's.
        terminal.paste("!mkdir one\n!mkdir two\ngo");
        terminal.says("", &["not done after that: !mkdir two"]);
        terminal.says("!touch other", &["no longer planned: host(\"local\").run([\"mkdir\", \"one\"])"]);
        terminal.paste("!ls scripts\nrm -rf scripts\n");
        terminal.says("", &["no word \"rm\""]);
        terminal.leave();
        let records = home.records();
        let notes: Vec<&str> = of_kind(&records, "note");
        assert_eq!(notes, ["seen"]);
        let lines = of_kind(&records, "line");
        assert_eq!(lines[1], "let b = 2;\nb + 40");
        assert_eq!(lines[2], "host(\"local\").read([\"ls\", \"nowhere\"])");
    }
}

fn of_kind<'a>(records: &'a [serde_json::Value], kind: &str) -> Vec<&'a str> {
    let of_kind = records.iter().filter(|record| record["kind"] == kind);
    of_kind.map(|record| record["body"]["text"].as_str().unwrap()).collect()
}

#[test]
fn what_is_not_known_is_answered_in_short() {
    let home = home();
    let terminal = at_prompt(&home, 80, 24);
    terminal.says("retry", &["no script failed here"]);
    terminal.says("undo", &[":undo     takes back what changed last"]);
    terminal.says("frobnicate now", &["no word \"frobnicate\"", "nor is it a variable or a script"]);
    assert!(!terminal.screen().contains("reclaimable"), "{}", terminal.screen());
    terminal.says("ment", &["did you mean \"mend\"?"]);
    terminal.says(":help logs", &["logs SERVICE", "as words"]);
    terminal.says("help", &["more lines     :all"]);
    terminal.leave();
    Home::new().run(&["doctor"]).exits(2).says(&["no opsh.toml here or above names a stack", "opsh USER@HOST"]);
}

#[test]
fn stopped_with_ctrl_z_it_goes_on_where_it_was() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let mut shell = Command::new("bash");
        shell.args(["--norc", "-i"]).current_dir(home.0.path()).env_clear().env("PS1", "bash> ");
        shell.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C.UTF-8").env("TERM", "xterm");
        shell.env("HOME", home.0.path()).env("XDG_STATE_HOME", home.path("state"));
        let mut terminal = Terminal::run(&mut shell, columns, rows);
        terminal.until_line("bash>").keys(&format!("{OPSH}\r")).until_line("opsh ›");
        for _ in 0..5 {
            terminal.keys("40 + 2").until_line("opsh › 40 + 2").keys("\x1a").until_line("bash>");
            terminal.keys("fg\r").until_line("opsh › 40 + 2").interrupt("opsh ›");
        }
        terminal.says("20 + 1", &["21"]).keys(CTRL_D).until_line("bash>").keys("exit\r");
        terminal.ends();
    }
}

#[test]
fn a_script_of_ones_own_in_place_of_one_that_is_built_in_is_said() {
    for (columns, rows) in SIZES {
        let home = home();
        home.put("scripts/doctor.rhai", "//! Ours.\n//!\n//! usage: opsh scripts/doctor.rhai\nprint(40 + 2);\n");
        let terminal = at_prompt(&home, columns, rows);
        terminal.says("doctor", &["scripts/doctor.rhai, in place of the doctor that is built in", "42"]);
        terminal.leave();
    }
}
