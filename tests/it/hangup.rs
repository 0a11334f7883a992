//! A terminal that is closed at any moment, as when a laptop is shut or a connection is lost: opsh ends with it, nothing
//! that was recorded is lost, and what was begun is told by the next opsh.

use super::home::Home;
use super::processes::{running, until};
use super::terminal::{End, QUESTION, SIZES, Terminal};
use serde_json::{Value, json};
use std::fs::File;
use std::process::Command;

const PROMPT: &str = "opsh ›";

/// A sitting in which a change was made.
struct Sat {
    home: Home,
    terminal: Terminal,
    /// Held open, so that what reads from it waits.
    pipe: Option<File>,
}

impl Sat {
    fn down((columns, rows): (u16, u16), command: impl FnOnce(&Home) -> Command) -> Sat {
        let home = Home::new();
        home.put("opsh.toml", "[host.far]\nssh = \"ops@127.0.0.1\"\npassword = \"prompt:\"\n");
        assert!(Command::new("mkfifo").arg(home.path("pipe")).status().unwrap().success());
        let pipe = File::options().read(true).write(true).open(home.path("pipe")).unwrap();
        let terminal = Terminal::run(&mut command(&home), columns, rows);
        terminal.until_line(PROMPT).answers("!touch made", "y", "✓ host.run").until_line(PROMPT);
        Sat { home, terminal, pipe: Some(pipe) }
    }

    /// Types on a clear screen.
    #[track_caller]
    fn types(&self, keys: &str, shows: &str) {
        self.terminal.keys("\x0c").wait_for("a clear screen", |screen| screen.cursor_position() == (0, 7));
        self.terminal.keys(keys).until(shows);
    }

    /// What reads from the pipe.
    fn reader(&self) -> Vec<String> {
        vec!["cat".into(), self.home.path("pipe").display().to_string()]
    }

    fn readers(&self) -> Vec<i32> {
        running(&self.reader().iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What the next opsh finds: the change from before, and that the sitting was killed.
    #[track_caller]
    fn left(&self) -> Vec<Value> {
        let records = self.home.whole_records();
        let outcomes = |kind: &str| -> Vec<&str> {
            let ends = records.iter().filter(|record| record["kind"] == kind);
            ends.map(|record| record["body"]["outcome"].as_str().unwrap()).collect()
        };
        assert_eq!(outcomes("effect.end").first(), Some(&"ok"), "the change from before");
        assert_eq!(outcomes("run.end").last(), Some(&"killed"), "the first sitting");
        assert!(self.home.path("made").exists());
        records
    }
}

#[test]
fn wherever_it_is_closed_the_run_is_listed_as_killed_and_no_record_is_lost() {
    for (columns, rows) in SIZES {
        let places = [
            ("", PROMPT),
            ("print([40,", "opsh › print([40,"),
            ("print(\"be\" + \"gun\"); loop { }\r", "begun"),
            ("let n = 0; loop { n += 1; print(`be${\"gun\"} ${n}`) }\r", "begun"),
            ("host(\"local\").read(READER)\r", "host.read  local"),
            ("host(\"local\").run([\"touch\", \"other\"])\r", QUESTION),
            ("host(\"far\").connect()\r", "password of far:"),
        ];
        for (keys, shows) in places {
            let mut sat = Sat::down((columns, rows), |home| Terminal::command(home, &[]));
            sat.types(&keys.replace("READER", &json!(sat.reader()).to_string()), shows);
            assert_eq!(sat.terminal.hang_up(), End::Signal(libc::SIGHUP), "{keys:?}");
            until("what it waited for is gone", || sat.readers().is_empty().then_some(()));
            let records = sat.left();
            let lines = records.iter().filter(|record| record["kind"] == "line").count();
            assert_eq!(lines, 1 + keys.matches('\r').count(), "{keys:?}: each line that ran is recorded, and no other");
            assert!(!sat.home.path("other").exists());
            sat.home.run(&["runs"]).exits(0).shows(&["killed"]);
        }
    }
}

#[test]
fn a_change_whose_output_was_shown_goes_on_and_the_next_sitting_begins_with_it() {
    for (columns, rows) in SIZES {
        let mut sat = Sat::down((columns, rows), |home| Terminal::command(home, &[]));
        let change = json!(sat.reader()).to_string();
        sat.terminal.keys(&format!("host(\"local\").run({change})\r")).agree();
        until("the change to begin", || sat.readers().pop());
        assert_eq!(sat.terminal.hang_up(), End::Signal(libc::SIGHUP));
        assert_eq!(sat.readers().len(), 1, "it goes on");

        let again = Terminal::start(&sat.home, columns, rows, &[]);
        again.until("may have happened: host.run on local").until_line("opsh (1 may have happened) ›");
        again.leave();
        drop(sat.pipe.take());
        until("its end", || sat.readers().is_empty().then_some(()));
        sat.left();
    }
}

/// Without the signal, as after `trap '' HUP`, the end of input is what tells.
#[test]
fn a_terminal_that_goes_away_without_a_signal_is_the_end_of_the_sitting() {
    for (columns, rows) in SIZES {
        for (keys, shows) in [("", PROMPT), ("host(\"local\").run([\"touch\", \"other\"])\r", QUESTION)] {
            let mut sat = Sat::down((columns, rows), |home| {
                let mut command = Command::new("sh");
                let plain = Terminal::command(home, &[]);
                command.args(["-c", "trap '' HUP; exec \"$0\""]).arg(plain.get_program()).current_dir(home.0.path());
                command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
                command
            });
            sat.types(keys, shows);
            assert!(matches!(sat.terminal.hang_up(), End::Exit(_)), "{keys:?}");
            assert!(!sat.home.path("other").exists());
            sat.home.whole_records();
        }
    }
}
