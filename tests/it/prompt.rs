//! The prompt at a real terminal: what is typed, what the screen shows, what is left behind.

use super::home::Home;
use super::processes::{running, until};
use super::terminal::{CTRL_C, CTRL_D, End, SIZES, Terminal, current};

const PROMPT: &str = "opsh ›";
const UP: &str = "\x1b[A";
const DOWN: &str = "\x1b[B";
const LEFT: &str = "\x1b[D";
const RIGHT: &str = "\x1b[C";
const HOME_KEY: &str = "\x01";
const END_KEY: &str = "\x05";
const CTRL_R: &str = "\x12";

fn at_prompt(home: &Home, columns: u16, rows: u16) -> Terminal {
    let terminal = Terminal::start(home, columns, rows, &[]);
    terminal.until_line(PROMPT);
    terminal
}

/// Types a line, runs it, and waits for what it shows and for the next prompt.
fn run(terminal: &Terminal, line: &str, shows: &str) {
    terminal.says(line, &[shows]).until_line(PROMPT);
}

/// Lines that were evaluated, as the journal has them.
fn evaluated(home: &Home) -> Vec<String> {
    let lines = home.records().into_iter().filter(|record| record["kind"] == "line");
    lines.map(|record| record["body"]["text"].as_str().unwrap().to_string()).collect()
}

#[test]
fn enter_runs_what_is_whole_and_goes_on_with_what_is_not() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = at_prompt(&home, columns, rows);
        for (line, goes_on) in [("print([40,", "   …"), ("2].len() + 40", "   …")] {
            terminal.keys(line).keys("\r").until_line(goes_on);
        }
        run(&terminal, ")", "42");
        terminal.keys("[1, 2].map(|x|\r").until_line("   …");
        run(&terminal, "x + 700).len() + 70", "72");
        // What is in a string stays as it was typed.
        terminal.keys("print(`a\r").wait_for("a second line", |screen| current(screen).is_empty());
        run(&terminal, "b`.len() + 60)", "63");
        terminal.leave();
        assert_eq!(evaluated(&home).len(), 3);
    }
}

#[test]
fn lines_of_one_input_are_edited_until_it_runs() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = at_prompt(&home, columns, rows);
        terminal.keys("print([\r").until_line("   …");
        terminal.keys("1,\r").until_line("   …");
        // Up moves within the input; Backspace at its beginning joins two lines.
        terminal.keys(UP).until_line("   … 1,");
        terminal.keys(END_KEY).keys(" 2,").until_line("   … 1, 2,");
        terminal.keys(DOWN).until_line("   …");
        terminal.keys(END_KEY).keys("\x7f").until_line("   … 1, 2,");
        run(&terminal, " 3].len() + 30)", "33");
        // Alt-Enter goes on with what is whole.
        terminal.keys("let x = 40;\x1b\r").until_line("   …");
        run(&terminal, "print(x + 4)", "44");
        // All of an input is one line of the history.
        terminal.keys(UP).until_line("   … print(x + 4)");
        terminal.keys(UP).until_line("opsh › let x = 40;");
        terminal.keys(UP).until_line("   … 1, 2, 3].len() + 30)").until("› print([\n");
        terminal.interrupt(PROMPT);
        terminal.leave();
    }
}

#[test]
fn a_paste_of_two_hundred_lines_is_one_input_that_runs_on_enter() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = at_prompt(&home, columns, rows);
        let script = format!("let total = 0;\n{}print(`pasted ${{total}}`);", "\ttotal += 1;\n".repeat(198));
        terminal.paste(&script).until_line("print(`pasted ${total}`);");
        // It can be gone on with, although its beginning has left the screen.
        terminal.keys("ab").until_line("print(`pasted ${total}`);ab");
        terminal.keys("\x7f\x7f").until_line("print(`pasted ${total}`);");
        // Tabs were no key, and no line ran.
        assert!(!terminal.raw().contains("pasted 198") && !terminal.screen().contains("total  "));
        run(&terminal, "", "pasted 198");
        terminal.leave();
        assert_eq!(evaluated(&home), [script]);
    }
}

#[test]
fn lines_that_are_typed_ahead_run_one_after_the_other() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = at_prompt(&home, columns, rows);
        let next = terminal.prompts() + 3;
        terminal.keys("40 + 2\r70 + 7\rprint([\r80\r].len() + 87)\r");
        terminal.until_prompts(next).until("42").until("77").until("88").until_line(PROMPT);
        // After Ctrl-C nobody wants the lines that were to follow.
        terminal.keys("print(\"be\" + \"gun\"); loop { }\rprint(\"never\" + \" shown\")\r").until("loop { }\nbegun");
        terminal.interrupt(PROMPT);
        run(&terminal, "60 + 6", "66");
        assert!(!terminal.screen().contains("never shown"), "{}", terminal.screen());
        terminal.keys(UP).until_line("opsh › 60 + 6").keys(UP).until_line("opsh › print(\"be\" + \"gun\"); loop { }");
        terminal.interrupt(PROMPT);
        terminal.leave();
        assert_eq!(evaluated(&home).len(), 5);
    }
}

#[test]
fn a_paste_whose_last_line_ends_waits_for_enter_too() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = at_prompt(&home, columns, rows);
        terminal.paste("print(40 + 2);\nprint(70 + 7);\n").until("print(70 + 7);");
        terminal.wait_for("the cursor below", |screen| current(screen).is_empty());
        run(&terminal, "", "42\n77");
        terminal.leave();
    }
}

#[test]
fn the_cursor_is_right_in_japanese() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = at_prompt(&home, columns, rows);
        let (row, start) = terminal.cursor();
        assert_eq!(start, 7, "behind the prompt");
        let at = |terminal: &Terminal, what: &str, place: (u16, u16)| {
            terminal.wait_for(&format!("cursor at {place:?}: {what}"), |screen| screen.cursor_position() == place);
        };
        terminal.keys("\"日本語\"");
        at(&terminal, "typed", (row, 15));
        terminal.keys(LEFT);
        at(&terminal, "before the quote", (row, 14));
        terminal.keys(LEFT);
        at(&terminal, "before 語", (row, 12));
        terminal.keys("と").until_line("opsh › \"日本と語\"");
        at(&terminal, "behind と", (row, 14));
        terminal.keys("\x7f").until_line("opsh › \"日本語\"");
        at(&terminal, "と taken back", (row, 12));
        terminal.keys(RIGHT).keys(RIGHT).keys(".len()");
        at(&terminal, "at the end", (row, 21));
        run(&terminal, " + 40", "43");

        // Half of a character has no room at the end of a row.
        let (row, _) = terminal.cursor();
        let end = if columns == 80 { (row + 1, 33) } else { (row, 112) };
        terminal.keys(&format!("(\"{}\").", "あ".repeat(50)));
        at(&terminal, "wrapped", end);
        terminal.keys(HOME_KEY);
        at(&terminal, "at the beginning", (row, 7));
        terminal.keys("1+1;").keys(END_KEY);
        let all = format!("› 1+1;(\"{}\").", "あ".repeat(50));
        terminal.wait_for("all of it", |screen| screen.contents().replace('\n', "").contains(&all));
        run(&terminal, "len() + 100", "150");
        terminal.leave();
    }
}

#[test]
fn the_history_is_on_the_disk_before_a_line_ends() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = at_prompt(&home, columns, rows);
        run(&terminal, "40 + 2", "42");
        run(&terminal, "40 + 2", "42");
        run(&terminal, "30 + 3", "33");
        terminal.keys("print(\"be\" + \"gun\"); loop { }\r").until("begun");
        let mut terminal = terminal;
        terminal.kill();
        assert_eq!(terminal.ends(), End::Signal(libc::SIGKILL));

        let terminal = at_prompt(&home, columns, rows);
        for line in ["print(\"be\" + \"gun\"); loop { }", "30 + 3", "40 + 2"] {
            terminal.keys(UP).until_line(&format!("{PROMPT} {line}"));
        }
        // Once, although it was entered twice.
        terminal.keys(UP).keys(DOWN).until_line(&format!("{PROMPT} 30 + 3"));
        terminal.interrupt(PROMPT);
        terminal.leave();
    }
}

#[test]
fn the_history_is_searched_by_ctrl_r_and_by_a_beginning() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = at_prompt(&home, columns, rows);
        for (line, shows) in
            [("print(10 + 1)", "11"), ("let x = 5", ""), ("print(20 + 2)", "22"), ("[8].len() + 8", "9")]
        {
            run(&terminal, line, shows);
        }
        terminal.keys(CTRL_R).keys("10").until("(reverse-i-search)`10': print(10 + 1)");
        terminal.interrupt(PROMPT);
        terminal.keys("pr").until_line("opsh › print(20 + 2)");
        terminal.wait_for("a hint, which is not typed", |screen| screen.cursor_position().1 == 9);
        terminal.keys(UP).keys(UP).until_line("opsh › print(10 + 1)");
        terminal.keys(DOWN).until_line("opsh › print(20 + 2)");
        terminal.keys("\r").until("opsh › print(20 + 2)\n22\nopsh ›").until_line(PROMPT);
        terminal.leave();
    }
}

#[test]
fn secrets_and_lines_behind_a_blank_are_not_in_the_history() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = at_prompt(&home, columns, rows);
        run(&terminal, " print(30 + 3)", "33");
        run(&terminal, "let url = \"postgres://app:correct-horse@db/app\"; 40 + 4", "44");
        run(&terminal, ":reveal correct-horse", "that is no tag");
        terminal.leave();
        let history = std::fs::read_to_string(home.path("state/opsh/history")).unwrap();
        assert!(!history.contains("30 + 3") && !history.contains("horse"), "{history}");
    }
}

#[test]
fn a_hint_is_the_signature_or_what_the_right_arrow_takes() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = at_prompt(&home, columns, rows);
        run(&terminal, "40 + 2", "42");
        terminal.keys("40").until_line("opsh › 40 + 2");
        terminal.keys(RIGHT).wait_for("the cursor at its end", |screen| screen.cursor_position().1 == 13);
        terminal.interrupt(PROMPT);
        terminal.keys("stack(\"prod\").restart(").until("service: string, grace_s?: int)");
        let column = 7 + "stack(\"prod\").restart(".len() as u16;
        terminal.wait_for("the cursor before it", |screen| screen.cursor_position().1 == column);
        terminal.interrupt(PROMPT);
        terminal.leave();
    }
}

#[test]
fn colours_are_there_and_are_not_where_nobody_wants_them() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = at_prompt(&home, columns, rows);
        terminal.keys("let x = (\"a\")").wait_for("a keyword in magenta", |screen| {
            let (row, _) = screen.cursor_position();
            screen.cell(row, 7).is_some_and(|cell| cell.fgcolor() == vt100::Color::Idx(5))
        });
        terminal.wait_for("the bracket that belongs to the one before the cursor", |screen| {
            let (row, _) = screen.cursor_position();
            screen.cell(row, 15).is_some_and(|cell| cell.inverse())
        });
        for (variable, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            let terminal = Terminal::run(Terminal::command(&home, &[]).env(variable, value), columns, rows);
            terminal.until_line(PROMPT).keys("let x = (\"a\"); 40 + 2\r").until("42\nopsh ›");
            let raw = terminal.raw();
            if variable == "NO_COLOR" {
                terminal.keys("print([\r").until_line("   …");
                terminal.interrupt(PROMPT);
            }
            let painted = raw
                .split("\x1b[")
                .skip(1)
                .filter(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'));
            assert_eq!(painted.count(), 0, "{variable}: {raw:?}");
            terminal.leave();
        }
    }
}

#[test]
fn ctrl_c_while_editing_clears_and_runs_nothing() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = at_prompt(&home, columns, rows);
        terminal.keys("print(\"ran\")").until_line("opsh › print(\"ran\")");
        terminal.interrupt(PROMPT);
        run(&terminal, "40 + 1", "41");
        // What is typed after it is not lost, and a hint does not stay.
        let next = terminal.prompts() + 2;
        terminal.keys("40").until_line("opsh › 40 + 1").keys(&format!("{CTRL_C}80 + 8\r"));
        terminal.until_prompts(next).until("opsh › 40\nopsh › 80 + 8\n88").until_line(PROMPT);
        terminal.keys("print([\r").until_line("   …");
        terminal.keys("1,\r").until_line("   …");
        terminal.interrupt(PROMPT);
        run(&terminal, "40 + 2", "42");
        terminal.leave();
        assert!(evaluated(&home).iter().all(|line| !line.contains("[")), "{:?}", evaluated(&home));
    }
}

#[test]
fn ctrl_c_ends_a_loop_a_wait_and_an_output_and_the_prompt_goes_on() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = at_prompt(&home, columns, rows);
        terminal.until_line(PROMPT);
        terminal.keys("print(\"loop\" + \"ing\"); loop { }\r").until("looping");
        terminal.interrupt(PROMPT);
        terminal.until("stopped: Ctrl-C");
        run(&terminal, "40 + 1", "41");

        terminal.keys("let n = 0; loop { n += 1; print(`line ${n}`) }\r").until("line 10");
        terminal.interrupt(PROMPT);
        run(&terminal, "40 + 2", "42");

        let file = home.put("followed", "");
        terminal.keys(&format!("host(\"local\").read([\"tail\", \"-f\", \"{file}\"])\r"));
        until("the command to begin", || running(&["tail", "-f", &file]).pop());
        terminal.interrupt(PROMPT);
        until("its end", || running(&["tail", "-f", &file]).is_empty().then_some(()));
        run(&terminal, "40 + 3", "43");
        terminal.leave();
    }
}

#[test]
fn another_size_while_editing_garbles_nothing() {
    let [narrow, wide] = SIZES;
    for sizes in [[narrow, wide, narrow], [wide, narrow, wide]] {
        let home = Home::new();
        let terminal = at_prompt(&home, sizes[0].0, sizes[0].1);
        let (row, _) = terminal.cursor();
        let text = format!("\"{}\"", "0123456789".repeat(10));
        terminal.keys(&text);
        for (columns, rows) in sizes {
            terminal.resize(columns, rows);
            let end = if columns == 80 { (row + 1, 29) } else { (row, 109) };
            terminal.wait_for(&format!("the cursor at {end:?}"), |screen| screen.cursor_position() == end);
            terminal.until(&format!("› {text}"));
            assert_eq!(terminal.screen().matches("opsh ›").count(), 1, "{}", terminal.screen());
        }
        run(&terminal, ".len() + 100", "200");
        terminal.leave();
    }
}

/// A stack on this machine that is no sandbox: nothing of it is there.
const STACK: &str = "[stack.shop]\nhost = \"local\"\ndir = \"/nowhere\"\n\
                     compose = { files = [\"compose.yml\"], project = \"shop\" }\nservices = { web = {} }\n";

fn in_shop(home: &Home, columns: u16, rows: u16) -> Terminal {
    home.put("opsh.toml", STACK);
    let terminal = Terminal::start(home, columns, rows, &[]);
    terminal.until_line("opsh shop (observe) ›");
    terminal
}

#[test]
fn the_only_stack_is_used_and_one_that_is_no_sandbox_is_observed() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = in_shop(&home, columns, rows);
        let file = home.path("made");
        terminal.says(&format!("!touch '{}'", file.display()), &["would: touch", "go     does it"]);
        assert!(!file.exists(), "a rehearsal is none");
        terminal.answers("go", "", "nothing changed");
        assert!(!file.exists());
        terminal.says(":apply", &["WHY is missing", ":apply \"WHY\""]);
        terminal.says(":apply \"it is down\"", &["opsh shop (APPLY) ›"]);
        terminal.answers(&format!("!touch '{}'", file.display()), "y", "✓ host.run");
        assert!(file.exists());
        terminal.says(":observe", &["opsh shop (observe only) ›"]);
        terminal.keys(CTRL_D);
        let records = home.records();
        let reason = records.iter().find(|record| record["kind"] == "apply").expect("recorded");
        assert_eq!(reason["body"]["why"], "it is down");
    }
}

#[test]
fn a_variable_of_a_words_name_is_the_variable_and_a_wrong_word_is_answered() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = in_shop(&home, columns, rows);
        terminal.says("let tags = 41", &[]);
        terminal.says("tags + 1", &["42"]);
        terminal.says("resatrt web", &["did you mean \"restart\"?"]);
        terminal.says("logs web --tial 3", &["did you mean \"tail\"?", "logs SERVICE [--tail N]"]);
        terminal.says("df -h", &["it is a program", "@ df -h", "!df -h"]);
        terminal.says(":us shop", &["did you mean \":use\"?"]);
        terminal.says(":use shpo", &["did you mean \"shop\"?"]);
        terminal.says("@nowhere ls", &["no host \"nowhere\""]);
        terminal.says("!echo 日本語 and more", &["⟶ host(\"local\").read([\"echo\", \"日本語\"", "日本語 and more"]);
        terminal.says("it.code + 7", &["7"]);
    }
}

#[test]
fn variables_functions_and_the_last_value_are_there_in_the_next_line_and_a_bad_one_changes_none() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = at_prompt(&home, columns, rows);
        run(&terminal, "fn twice(n) { n * 2 }", "");
        run(&terminal, "let n = 20", "");
        run(&terminal, "twice(n) + 100", "140");
        for bad in ["n = 7; )", "fn twice(n) { 7 } }", "let it = 7 7", "n.nothing_of_the_kind()", "n + missing"] {
            run(&terminal, bad, "error: ");
            terminal.keys("\x0c").wait_for("a clear screen", |screen| screen.cursor_position() == (0, 7));
            run(&terminal, "[n, twice(1), it]", "20\n2\n140\n");
            run(&terminal, "140", "");
        }
        terminal.leave();
    }
}

#[test]
fn what_a_tag_hides_is_shown_after_a_question_and_that_is_recorded() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        home.put("env", "DB_PASSWORD=tulip-canary-9\n");
        let terminal = at_prompt(&home, columns, rows);
        run(&terminal, "!cat env", "DB_PASSWORD=•••#");
        let tag: String = terminal
            .screen()
            .split("DB_PASSWORD=•••#")
            .nth(1)
            .unwrap()
            .chars()
            .take_while(|c| c.is_ascii_hexdigit())
            .collect();
        let question = format!("Show the value of •••#{tag} on this terminal");
        for (nth, answer) in ["\r", CTRL_C].into_iter().enumerate() {
            let next = terminal.prompts() + 1;
            terminal
                .keys(&format!(":reveal {tag}\r"))
                .until_written(&question, nth + 1)
                .keys(answer)
                .until_prompts(next);
            terminal.until("nothing was revealed").until_line(PROMPT);
        }
        assert!(!terminal.raw().contains("tulip"), "{}", terminal.screen());
        terminal
            .keys(&format!(":reveal {tag}\r"))
            .until_written(&question, 3)
            .keys("y\r")
            .until("\ntulip-canary-9\nopsh");
        terminal.until_line(PROMPT).says("40 + 2", &["42"]);
        terminal.leave();
        let revealed = home.records().into_iter().filter(|record| record["kind"] == "secret.reveal");
        assert_eq!(revealed.map(|record| record["body"]["tag"].clone()).collect::<Vec<_>>(), [tag.as_str()]);
    }
}

#[test]
fn what_was_typed_becomes_a_script_that_runs() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = in_shop(&home, columns, rows);
        terminal.says("let n = 40", &[]);
        terminal.says("unknown_one", &["no word \"unknown_one\""]);
        terminal.says("!echo saved", &["saved"]);
        terminal.says("print(n + 2)", &["42"]);
        terminal.says(":save kept.rhai", &["kept.rhai has 3 lines"]);
        terminal.says(":save kept.rhai", &["was not written", "is there already"]);
        terminal.says(":save one.rhai 3..3", &["one.rhai has 1 lines"]);
        terminal.says(":save kept.txt", &["was not written", "kept.jsonl is there already"]);
        assert!(!home.path("kept.txt").exists(), "both or none");
        terminal.says(":load kept.rhai", &["42"]);
        terminal.says(":note looked at the disk", &[]);
        terminal.says(":json [1, 2]", &["[1,2]"]);
        terminal.says(":time 1", &["took 0."]);
        terminal.says(":runs 1", &["running"]);
        terminal.says(":help", &[":attach [RUN]", "@HOST WORDS"]);
        terminal.says(":help ps", &["stack.ps() -> array"]);
        terminal.says(":quit now", &["one word too many"]);
        terminal.keys(":quit\r");
        home.run(&["kept.rhai"]).exits(0).prints("42\n");
        let text = std::fs::read_to_string(home.path("kept.rhai")).unwrap();
        assert!(text.contains("usage: opsh kept.rhai") && text.contains("let p = stack(\"shop\");"), "{text}");
        let remark = home.story();
        assert!(!remark.is_empty());
    }
}

#[test]
fn a_saved_script_names_what_was_called_it_and_says_what_it_lacks() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = in_shop(&home, columns, rows);
        terminal.says("[40, 2]", &["40"]).says("print(\"between\")", &["between"]);
        terminal.says("it[0] + it[1]", &["42"]).says("`${it} in all`", &["42 in all"]);
        terminal.says(":save sum.rhai", &["sum.rhai has 4 lines"]);
        terminal.says("print(\"two\"); 6 * 7", &["42"]).says("let x = it; x + 1", &["43"]).says("it + 1", &["44"]);
        terminal.says(":save more.rhai 5..7", &["the value of \"let x = it; x + 1\" is called it later"]);
        let more = std::fs::read_to_string(home.path("more.rhai")).unwrap();
        assert!(more.contains("let it = {\n    print(\"two\"); 6 * 7\n};\nlet x = it; x + 1;\n"), "{more}");
        terminal.says(":save half.rhai 3..4", &["half.rhai has 2 lines", "it cannot be run as it is", "it"]);
        terminal.leave();
        let script = std::fs::read_to_string(home.path("sum.rhai")).unwrap();
        assert!(
            script.contains("let it = [40, 2];\nprint(\"between\");\nlet it = it[0] + it[1];\n`${it} in all`;\n"),
            "{script}"
        );
        home.run(&["--replay", "sum.jsonl", "sum.rhai"]).exits(0).shows(&["between"]);
    }
}

#[test]
fn what_was_saved_is_replayed_by_its_recording() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = in_shop(&home, columns, rows);
        terminal.says(":apply \"a test\"", &[]);
        terminal.answers("host(\"local\").run([\"touch\", \"failed\"]); throw \"no\"", "y", "why: no");
        terminal.answers("!touch made", "y", "✓ host.run");
        terminal.says("!stat -c found-%n made", &["found-made"]);
        terminal.says("print(p.name + \" is\")", &["shop is"]);
        terminal.says(":save night.rhai 1..2", &["night.rhai has 2 lines     opsh night.rhai"]);
        terminal.says(":save all.rhai", &["all.jsonl is their recording     opsh --replay all.jsonl all.rhai"]);
        terminal.keys(CTRL_D);
        std::fs::remove_file(home.path("made")).unwrap();
        for file in ["night", "all"] {
            let ran = home.run(&["--replay", &format!("{file}.jsonl"), &format!("{file}.rhai")]);
            assert!(ran.exits(0).err.contains("✓ host.run"));
            assert!(!home.path("made").exists(), "a replay changes nothing");
        }
        // What another line did is no part of it.
        let recording = std::fs::read_to_string(home.path("night.jsonl")).unwrap();
        assert!(recording.contains("touch made") && !recording.contains("touch failed"), "{recording}");
    }
}

#[test]
fn what_is_longer_than_the_terminal_is_shown_in_part() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = at_prompt(&home, columns, rows);
        let fits = usize::from(rows) - 3;
        run(&terminal, ":all", "nothing was shown in part");
        run(&terminal, "let list = []; for n in 0..200 { list.push(#{ row: n }) }", "");
        run(&terminal, "list", &format!("\n{}\n… {} more lines     :all\n", fits - 2, 201 - fits));
        // What was typed is still there.
        terminal.until("opsh › list\nROW\n0\n1\n");
        run(&terminal, "it.len() + 1000", "1200");
        run(&terminal, ":all", "\n198\n199\nopsh ›");
        assert_eq!(terminal.raw().matches("\r\n150\r\n").count(), 1, "all of it once");

        run(
            &terminal,
            "let lines = list.map(|one| #{ at: \"2026-01-02T03:04:05Z\", stream: \"stdout\", text: `line ${one.row}` })",
            "",
        );
        run(&terminal, "lines", &format!("line 199\n… {} more lines before these     :all\nopsh ›", 200 - fits));
        assert!(!terminal.raw().contains("line 50"), "{}", terminal.raw());
        terminal.leave();
        let code = "let list = []; for n in 0..200 { list.push(#{ row: n }) } list";
        assert_eq!(home.run(&["-e", code]).exits(0).out.lines().count(), 201);
    }
}

#[test]
fn a_sitting_begins_with_what_is_open() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let script = home.put("fails.rhai", "//! Fails.\n//!\n//! usage: opsh fails.rhai\nhost(\"local\").run([\"true\"], #{ undo: \"1\" }); throw \"no\"\n");
        home.run(&["--yes", &script]).exits(1);
        let terminal = Terminal::start(&home, columns, rows, &[]);
        terminal.until("open: ").until("fails.rhai").until("opsh resume");
    }
}

#[test]
fn every_command_is_in_the_docs() {
    let doc = std::fs::read_to_string("docs/shell.md").unwrap();
    for command in opsh::shell::commands::COMMANDS {
        let typed = format!("{} {}", command.name, command.args);
        let row = format!("| `{}` | {} |", typed.trim(), command.doc);
        assert!(doc.lines().any(|line| line == row), "{row}");
    }
}

#[test]
fn go_does_what_was_shown_last_or_nothing() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = in_shop(&home, columns, rows);
        let file = home.path("made");
        let touch = format!("!touch '{}'", file.display());
        let why = ["\"40 + 2\" came between", "\":use shop\" came between", "a person said :observe"];
        for (between, why) in ["40 + 2", ":use shop", ":observe"].into_iter().zip(why) {
            terminal.says(&touch, &["go     does it"]);
            terminal.says(between, &[]);
            terminal.keys("\x0c");
            terminal.says("go", &[why]);
        }
        // Words are about the stack in the prompt, whatever became of `p`.
        terminal.says("p = 5", &[]);
        terminal.says("config", &["⟶ stack(\"shop\").config()"]);
        terminal.says(":save kept.rhai", &[]);
        let kept = std::fs::read_to_string(home.path("kept.rhai")).unwrap();
        assert!(!file.exists() && !kept.contains("touch"), "a rehearsal was not done: {kept}");
    }
}

#[test]
fn what_the_command_line_says_holds_for_the_sitting() {
    for (columns, rows) in SIZES {
        for flag in ["--observe", "--plan"] {
            let home = Home::new();
            home.put("opsh.toml", &STACK.replace("dir =", "sandbox = true\ndir ="));
            let mode = flag.trim_start_matches('-');
            let terminal = Terminal::start(&home, columns, rows, &[flag]);
            let word = if mode == "observe" { "observe only" } else { mode };
            terminal.until_line(&format!("opsh shop ({word}) ›"));
            terminal.says(":plan !touch made", &["go     does it"]);
            terminal.says("go", &[&format!("opsh was started with --{mode}")]);
            terminal.says(":apply \"now\"", &[&format!("opsh was started with --{mode}")]);
            assert!(!home.path("made").exists());
        }
    }
}
