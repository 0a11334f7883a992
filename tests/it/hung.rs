//! A host that hangs, before or after it was connected: no key and no command waits for it, and Ctrl-C ends a line that
//! does. It would be given up only after two minutes, so that whatever waits for that fails its test.

use super::home::Home;
use super::processes::{self, until};
use super::sshd::Sshd;
use super::terminal::{CTRL_C, End, SIZES, Terminal};
use std::fs::File;
use std::io::Write;
use std::process::Command;

const PROMPT: &str = "opsh shop ›";
const CTRL_U: &str = "\x15";

/// An operator's home and two stacks on one host.
struct Stage {
    home: Home,
    sshd: Sshd,
}

impl Stage {
    fn set() -> Option<Stage> {
        let (home, sshd) = (Home::new(), Sshd::start()?);
        let stack = |name: &str| {
            format!(
                "[stack.{name}]\nhost = \"web-0\"\ndir = \"{}\"\n\
                 compose = {{ files = [\"compose.yml\"], project = \"nobody-{name}\" }}\nservices = {{ web = {{}} }}\n",
                home.0.path().display()
            )
        };
        let host = sshd.host(0, "sandbox = true\nalive_s = 120");
        home.put("opsh.toml", &[host, stack("shop"), stack("mail")].concat());
        Some(Stage { home, sshd })
    }

    fn sit(&self, columns: u16, rows: u16) -> Terminal {
        let terminal = Terminal::start(&self.home, columns, rows, &[]);
        terminal.until_line("opsh ›").says(":use shop", &[]).until_line(PROMPT);
        terminal
    }

    /// Every ssh ended, and each record has its end.
    fn is_left(&self) {
        until("the end of every ssh", || self.sshd.clients().is_empty().then_some(()));
        self.home.whole_records();
    }

    /// Outcomes of what was read of the host.
    fn reads(&self) -> Vec<String> {
        let records = self.home.all_records().into_iter().filter(|record| record["kind"] == "effect.read");
        let outcome = |record: serde_json::Value| record["body"]["outcome"].as_str().unwrap().to_string();
        records.filter(|record| record["target"] == "web-0").map(outcome).collect()
    }
}

/// A line waits for the host, says so, and is ended by Ctrl-C.
#[track_caller]
fn waits(terminal: &Terminal, line: &str, shows: &str) {
    let spinners = terminal.raw().matches(&format!(" {shows}")).count();
    terminal.keys(line).keys("\r").until_written(&format!(" {shows}"), spinners + 1);
    terminal.interrupt(PROMPT);
}

/// What needs no host does not wait for one.
#[track_caller]
fn nothing_else_waits(terminal: &Terminal) {
    for (typed, completed) in [("logs w", "logs web"), ("@web", "@web-0"), ("host(\"we", "host(\"web-0\"")] {
        terminal.keys(typed).keys("\t").keys(":").until_line(&format!("{PROMPT} {completed}:"));
        terminal.keys(CTRL_U).until_line(PROMPT);
    }
    terminal.says(":use mail", &[]).until_line("opsh mail ›");
    terminal.says("600 + 6", &["606"]).until_line("opsh mail ›");
    terminal.says("!echo here", &["\nhere\n"]).until_line("opsh mail ›");
    terminal.says(":runs 9", &["prompt"]).until_line("opsh mail ›");
    terminal.says(":plan @ touch made", &["go     does it"]).until_line("opsh mail ›");
    terminal.says(":use shop", &[]).until_line(PROMPT);
}

#[test]
fn of_a_host_that_never_answered_only_the_line_waits_and_ctrl_c_ends_it() {
    for (columns, rows) in SIZES {
        let Some(stage) = Stage::set() else { return };
        stage.sshd.freeze();
        let terminal = stage.sit(columns, rows);
        waits(&terminal, "@ uptime", "host.read  web-0");
        nothing_else_waits(&terminal);
        waits(&terminal, "@ uptime", "host.read  web-0");
        waits(&terminal, "ps", "docker.ps");
        waits(&terminal, ":attach", "work.list");
        assert!(!terminal.raw().contains("nothing goes on"), "that is not known");
        nothing_else_waits(&terminal);
        terminal.leave();
        assert_eq!(stage.reads(), ["interrupted"; 3]);
        stage.is_left();
    }
}

#[test]
fn of_a_host_that_hangs_after_a_line_only_the_next_one_waits_and_ctrl_c_ends_it() {
    for (columns, rows) in SIZES {
        let Some(stage) = Stage::set() else { return };
        let terminal = stage.sit(columns, rows);
        terminal.says("@ echo there", &["\nthere\n"]).until_line(PROMPT);
        stage.sshd.freeze();
        nothing_else_waits(&terminal);
        waits(&terminal, "@ uptime", "host.read  web-0");
        waits(&terminal, "@ uptime", "host.read  web-0");
        nothing_else_waits(&terminal);
        terminal.leave();
        stage.is_left();
    }
}

#[test]
fn a_change_that_is_followed_when_the_host_hangs_goes_on_there_whatever_is_answered() {
    for (columns, rows) in SIZES {
        let Some(stage) = Stage::set() else { return };
        let pipe = stage.home.path("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut pipe = File::options().read(true).write(true).open(pipe).unwrap();
        let terminal = stage.sit(columns, rows);
        let next = terminal.prompts() + 1;
        let script = "while read -r line && test \\\"$line\\\" != end; do echo \\\"$line\\\"; done <\\\"$1\\\"";
        terminal.keys(&format!("host(\"web-0\").sh(\"{script}\", [\"{}\"])\r", stage.home.path("pipe").display()));
        terminal.until("→ host.sh  web-0");
        pipe.write_all("一行目\n".as_bytes()).unwrap();
        terminal.until("  │ 一行目");

        stage.sshd.freeze();
        terminal.keys(CTRL_C).until("Type kill to end it half way");
        // The word reaches nobody, and Ctrl-C stops waiting for that: of the kill it is certain that it did not happen.
        terminal.keys("kill\r").until("work.kill  web-0");
        terminal.keys(CTRL_C).until("before it was sent; it has not happened");
        terminal.until_prompts(next).until_line("opsh shop (1 may have happened) ›");
        terminal.says("600 + 6", &["606"]);
        terminal.leave();
        stage.is_left();

        stage.sshd.thaw();
        pipe.write_all(b"end\n").unwrap();
        let sitting = stage.home.sitting();
        stage
            .home
            .run(&["attach", sitting[0]["run"].as_str().unwrap()])
            .says(&["it ended with 0 on web-0: it happened"]);
        stage.home.whole_records();
    }
}

#[test]
fn a_lock_that_is_held_on_a_host_that_hangs_is_no_reason_to_wait() {
    for (columns, rows) in SIZES {
        let Some(stage) = Stage::set() else { return };
        let terminal = stage.sit(columns, rows);
        let file = stage.home.put("followed", "");
        let work = format!("p.locked(\"a test\", || host(\"web-0\").read([\"tail\", \"-f\", \"{file}\"]))");
        terminal.keys(&work).keys("\r");
        until("the work under the lock", || processes::running(&["tail", "-f", &file]).pop());
        stage.sshd.freeze();
        terminal.interrupt(PROMPT);
        nothing_else_waits(&terminal);
        terminal.leave();
        stage.is_left();
    }
}

#[test]
fn a_terminal_that_is_closed_while_a_line_waits_for_the_host_leaves_no_ssh() {
    for (columns, rows) in SIZES {
        for connected in [false, true] {
            let Some(stage) = Stage::set() else { return };
            let mut terminal = stage.sit(columns, rows);
            if connected {
                terminal.says("@ echo there", &["\nthere\n"]).until_line(PROMPT);
            }
            stage.sshd.freeze();
            terminal.keys("@ uptime\r").until(" host.read  web-0");
            assert_eq!(terminal.hang_up(), End::Signal(libc::SIGHUP));
            stage.is_left();
            stage.home.run(&["runs"]).exits(0).shows(&["killed"]);
        }
    }
}

/// What was stopped with the server is not left behind when that is killed.
#[test]
fn a_server_that_was_frozen_leaves_no_stopped_process() {
    let Some(mut stage) = Stage::set() else { return };
    let terminal = stage.sit(80, 24);
    let file = stage.home.put("followed", "");
    terminal.keys(&format!("@ tail -f {file}\r"));
    let pid = until("the command to begin", || processes::running(&["tail", "-f", &file]).pop());
    stage.sshd.freeze();
    terminal.interrupt(PROMPT);
    terminal.leave();
    stage.sshd.stop();
    until("its end", || (!processes::all().iter().any(|process| process.pid == pid)).then_some(()));
}
