//! Ctrl-C at the prompt, wherever something may go on: the prompt is there again, the terminal is as it was, the next line
//! works, and what was begun has one end in the record.
//!
//! At a host that hangs: `hung.rs`. Below the prompt: `faults.rs`.

use super::home::Home;
use super::processes::{running, until};
use super::terminal::{Attributes, CTRL_C, End, QUESTION, SIZES, Terminal, current};
use serde_json::{Value, json};
use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

const PROMPT: &str = "opsh ›";

/// What the line says that shows that something takes its time.
const FRAMES: &str = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏";

/// A sitting, and the attributes of its terminal while a line is edited.
struct Sat {
    home: Home,
    terminal: Terminal,
    editing: Attributes,
    lines: Cell<usize>,
}

/// At the prompt in both sizes, with a host for which a password is asked, each time `work` is done and the prompt is left.
fn in_both_sizes(work: impl Fn(&Sat)) -> Vec<Home> {
    SIZES
        .map(|(columns, rows)| {
            let home = Home::new();
            home.put("opsh.toml", "[host.far]\nssh = \"ops@127.0.0.1\"\npassword = \"prompt:\"\n");
            let terminal = Terminal::start(&home, columns, rows, &[]);
            terminal.until_line(PROMPT);
            let sat = Sat { home, editing: terminal.attributes(), terminal, lines: Cell::new(1000) };
            work(&sat);
            sat.terminal.leave();
            sat.home.whole_records();
            sat.home
        })
        .into()
}

impl Sat {
    /// Ctrl-C leads back to the prompt, and everything there is as it was.
    #[track_caller]
    fn interrupt(&self) {
        let next = self.terminal.prompts() + 1;
        self.terminal.keys(CTRL_C).until_prompts(next);
        self.is_sane();
    }

    #[track_caller]
    fn is_sane(&self) {
        let is_prompt = |line: &str| line.starts_with("opsh ") && line.ends_with('›');
        self.terminal.wait_for("the cursor behind the prompt, alone on its line", |screen| {
            let (line, column) = (current(screen), usize::from(screen.cursor_position().1));
            is_prompt(&line) && column == line.chars().count() + 1 && !screen.hide_cursor()
        });
        assert_eq!(self.terminal.attributes(), self.editing);
        let n = self.lines.replace(self.lines.get() + 1);
        self.terminal.says(&format!("{n} * 2"), &[&format!("\n{}\n", n * 2)]);
    }

    /// Runs a line, and waits until what it does has begun.
    #[track_caller]
    fn begins(&self, line: &str, shows: &str) {
        let next = self.terminal.prompts();
        self.terminal.keys(line).keys("\r").until(shows);
        assert_eq!(self.terminal.prompts(), next, "it goes on");
    }

    /// As [`Sat::begins`], and Ctrl-C ends it.
    #[track_caller]
    fn ends(&self, line: &str, shows: &str) {
        self.terminal.keys("\x0c").wait_for("a clear screen", |screen| screen.cursor_position() == (0, 7));
        self.begins(line, shows);
        assert_eq!(
            self.terminal.attributes(),
            self.terminal.found,
            "while a line runs the terminal is as it was found"
        );
        self.interrupt();
    }

    /// A pipe that is held open, so that whoever reads from it waits.
    fn pipe(&self) -> (File, PathBuf) {
        let path = self.home.path("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        (File::options().read(true).write(true).open(&path).unwrap(), path)
    }
}

/// Lines that were evaluated.
fn evaluated(home: &Home) -> Vec<String> {
    let records = home.all_records();
    let lines = records.iter().filter(|record| record["kind"] == "line");
    lines.map(|record| record["body"]["text"].as_str().unwrap().into()).collect()
}

#[test]
fn a_line_that_is_edited_is_left_whole_on_the_screen_and_is_not_run() {
    let homes = in_both_sizes(|sat| {
        let terminal = &sat.terminal;
        // Two rows in either size, and the cursor in the first one.
        let text = format!("print(\"{}\")", "障害対応".repeat(17));
        terminal.keys(&text).until(")").keys("\x01");
        terminal.wait_for("the cursor at its beginning", |screen| screen.cursor_position().1 == 7);
        terminal.interrupt(PROMPT);
        let rows = |screen: &vt100::Screen| screen.rows(0, screen.size().1.get()).collect::<Vec<_>>();
        let shown: String = terminal.look(rows).iter().map(|row| row.trim_end().to_string()).collect();
        assert!(shown.contains(&format!("opsh › {text}opsh ›")), "{shown}");
        sat.is_sane();

        terminal.paste(&format!("print([\n{}1])", "1,\n".repeat(198))).until_line("1])");
        terminal.keys("\x1b[A\x1b[A").wait_for("the cursor above", |screen| current(screen) == "1,");
        sat.interrupt();

        terminal.keys("\x121001").until("(reverse-i-search)`1001': 1001 * 2");
        sat.interrupt();

        terminal.keys("host(\"\t").until("far\"  host").until_line("opsh › host(\"");
        sat.interrupt();
    });
    for home in homes {
        assert!(evaluated(&home).iter().all(|line| line.ends_with("* 2")), "{:?}", evaluated(&home));
    }
}

#[test]
fn a_loop_ends_however_it_was_begun() {
    let homes = in_both_sizes(|sat| {
        let begun = "print(\"be\" + \"gun\"); loop { }";
        for line in [
            begun.to_string(),
            format!(":time {begun}"),
            format!(":json {begun}"),
            format!("[2, 1].sort(|a, b| {{ {begun} }})"),
            format!("try {{ {begun} }} catch {{ print(\"cau\" + \"ght\") }}"),
            "print(\"be\" + \"gun\"); sleep(3600)".into(),
            "let n = 0; loop { n += 1; print(`be${\"gun\"} ${n}`) }".into(),
        ] {
            sat.ends(&line, "begun");
        }
        assert!(!sat.terminal.raw().contains("caught"));
        sat.home.put("loaded.rhai", begun);
        sat.ends(":load loaded.rhai", "begun");

        std::fs::create_dir(sat.home.path("scripts")).unwrap();
        sat.home.put("scripts/spin.rhai", &format!("//! Spins.\n//!\n//! usage: opsh scripts/spin.rhai\n{begun}\n"));
        sat.ends("spin", "begun");
    });
    for home in homes {
        let script = home.all_records().into_iter().filter(|record| record["kind"] == "run.end");
        let outcomes: Vec<Value> = script.map(|record| record["body"]["outcome"].clone()).collect();
        assert_eq!(outcomes, ["interrupted", "ok"], "the script, and the sitting that went on");
    }
}

#[test]
fn a_question_is_left_without_its_answer_and_without_what_was_typed_of_it() {
    in_both_sizes(|sat| {
        let terminal = &sat.terminal;
        let change = "host(\"local\").run([\"touch\", \"made\"])";
        terminal.keys(change).keys("\r").until_asked().keys("y").until_line(&format!("{QUESTION} y"));
        sat.interrupt();
        assert!(!sat.home.path("made").exists());

        terminal.says(&format!(":plan {change}"), &["go     does it"]);
        terminal.keys("go\r").until_asked();
        sat.interrupt();
        assert!(!sat.home.path("made").exists());

        let lost = "[\"work.kill\", host(\"local\"), \"volume db\"]";
        terminal.keys(&format!("authorize([{lost}])\r")).until("Type volume db to go on, or Enter to stop:");
        terminal.keys("volume d\r").until("that is not volume db: asked once more");
        terminal.keys("volume d").until("stop: volume d");
        sat.interrupt();

        // Without echo, which is there again afterwards.
        terminal.keys("host(\"far\").connect()\r").until_line("password of far:");
        until("echo is off", || (terminal.attributes() != terminal.found).then_some(()));
        terminal.keys("tulip-9");
        sat.interrupt();
        assert!(!terminal.raw().contains("tulip"), "what is typed is not shown");
    });
}

#[test]
fn a_wait_ends_and_the_line_that_showed_it_is_gone() {
    in_both_sizes(|sat| {
        let terminal = &sat.terminal;
        // Wider than either size, and as long as it is only in characters.
        let file = sat.home.put(&"待機".repeat(35), "");
        let follow = ["tail", "-f", &file];
        sat.begins(&format!("host(\"local\").read({})", json!(follow)), "host.read  local");
        until("the command to begin", || running(&follow).pop());
        terminal.until_written("\r\x1b[K", 5);
        let waiting = terminal.screen().chars().filter(|c| FRAMES.contains(*c)).count();
        assert_eq!(waiting, 1, "{}", terminal.screen());
        sat.interrupt();
        assert!(!terminal.screen().contains(|c| FRAMES.contains(c)), "{}", terminal.screen());
        until("its end", || running(&follow).is_empty().then_some(()));

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        sat.begins(&format!("http::get(\"http://{}/\")", listener.local_addr().unwrap()), "http.get");
        sat.interrupt();
    });
}

#[test]
fn output_of_a_change_stops_and_the_change_goes_on_or_is_killed() {
    in_both_sizes(|sat| {
        let terminal = &sat.terminal;
        let (mut pipe, path) = sat.pipe();
        let words = ["cat", path.to_str().unwrap()];
        for (nth, (answer, says)) in [(CTRL_C, "goes on"), ("kill\r", "work.kill")].into_iter().enumerate() {
            terminal.keys(&format!("host(\"local\").run({})\r", json!(words))).agree().until("→ host.run");
            pipe.write_all(format!("{nth} 件目の出力\n").as_bytes()).unwrap();
            terminal.until(&format!("  │ {nth} 件目の出力"));
            terminal.keys(CTRL_C).until_written("Type kill to end it half way", nth + 1);
            let next = terminal.prompts() + 1;
            terminal.keys(answer).until_prompts(next).until(says);
            sat.is_sane();
            let goes_on = if answer == CTRL_C { 1 } else { 0 };
            until("what was answered", || (running(&words).len() == goes_on).then_some(()));
            // What went on ends.
            running(&words).into_iter().for_each(|pid| super::processes::signal(pid, libc::SIGTERM));
            until("its end", || running(&words).is_empty().then_some(()));
        }
    });
}

#[test]
fn outside_of_a_sitting_it_ends_opsh_with_130_and_the_terminal_as_it_was() {
    for (columns, rows) in SIZES {
        for (code, shows, question) in [
            ("print(\"be\" + \"gun\"); loop { }", "begun", false),
            ("print(\"be\" + \"gun\"); sleep(3600)", "begun", false),
            ("host(\"local\").run([\"touch\", \"made\"])", QUESTION, true),
            ("host(\"far\").connect()", "password of far:", true),
        ] {
            let home = Home::new();
            home.put("opsh.toml", "[host.far]\nssh = \"ops@127.0.0.1\"\npassword = \"prompt:\"\n");
            let mut terminal = Terminal::start(&home, columns, rows, &["-e", code]);
            terminal.until(shows);
            if question {
                terminal.keys("half an answer");
            }
            terminal.keys(CTRL_C);
            assert_eq!(terminal.ends(), End::Exit(130), "{}", terminal.screen());
            assert_eq!(terminal.attributes(), terminal.found);
            terminal.wait_for("the cursor at the beginning of a line", |screen| screen.cursor_position().1 == 0);
            home.whole_records();
            assert_eq!(home.story().last().unwrap(), "run.end interrupted");
        }
    }
}
