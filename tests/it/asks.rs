//! What a person at a terminal is asked, and what counts as an answer: in a pseudo-terminal, on this machine, which is
//! protected unlike a sandbox.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const QUESTION: &str = "Enter to stop:";

/// One run at a terminal of its own.
struct Terminal {
    home: tempfile::TempDir,
    child: Child,
    keys: ChildStdin,
    screen: ChildStdout,
    shown: String,
}

impl Terminal {
    /// Evaluates what `code` makes of the folder that the run has for itself.
    fn run(code: impl Fn(&Path) -> String) -> Terminal {
        let home = tempfile::tempdir().unwrap();
        let line = "exec \"$OPSH\" -e \"$CODE\"";
        let mut command = Command::new("script");
        command.args(["-qefc", line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env("OPSH", env!("CARGO_BIN_EXE_opsh")).env("CODE", code(home.path())).env("SHELL", "/bin/sh");
        command.env("XDG_STATE_HOME", home.path().join("state")).env("NO_COLOR", "1").current_dir(home.path());
        let mut child = command.spawn().expect("script(1) makes a terminal");
        let (keys, screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Terminal { home, child, keys, screen, shown: String::new() }
    }

    fn file(&self) -> PathBuf {
        self.home.path().join("touched")
    }

    /// Reads until the screen shows `text`.
    fn until(&mut self, text: &str) -> &mut Terminal {
        while !self.shown.contains(text) {
            assert!(self.read(), "it ended without {text:?}: {}", self.shown);
        }
        self
    }

    /// Reads until it was said so often that something is asked once more, and it is.
    fn asked_again(&mut self, times: usize) -> &mut Terminal {
        while self.shown.matches("asked once more").count() < times || self.shown.matches(QUESTION).count() <= times {
            assert!(self.read(), "it ended: {}", self.shown);
        }
        self
    }

    fn read(&mut self) -> bool {
        let mut piece = [0; 4096];
        let n = self.screen.read(&mut piece).unwrap_or(0);
        self.shown += &String::from_utf8_lossy(&piece[..n]);
        n > 0
    }

    fn type_in(&mut self, keys: &str) -> &mut Terminal {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self
    }

    /// The exit code, once it has ended.
    fn end(&mut self) -> Option<i32> {
        while self.read() {}
        self.child.wait().unwrap().code()
    }

    /// What stood on the screen before the answer.
    fn asked(&self) -> &str {
        self.shown.split(QUESTION).next().unwrap()
    }
}

fn touch(home: &Path) -> String {
    format!("host(\"local\").run([\"touch\", \"{}\"]).changed", home.join("touched").display())
}

/// A plan that loses something, and nothing after it.
fn losing(what: &str) -> String {
    let call = format!("[\"work.kill\", host(\"local\"), {}]", literal(what));
    format!("authorize([{call}]); print(\"it was \" + \"agreed\")")
}

/// A Rhai string.
fn literal(text: &str) -> String {
    let escaped = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("\\U{:08x}", c as u32) };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}

#[test]
fn a_change_wants_a_y_and_everything_else_is_no() {
    for (keys, agrees) in [
        ("y\n", true),
        (" y \n", true),
        ("yes\n", true),
        // The screen was to be cleared.
        ("\x0cy\n", true),
        // A y that was to be struck out or left is none.
        ("y\x08\n", false),
        ("y\x1b\n", false),
        ("\n", false),
        ("  \n", false),
        ("\x04", false),
        // What was asked for is y: a word that only resembles it may answer another question.
        ("Y\n", false),
        ("Y \n", false),
        ("yy\n", false),
        ("y y\n", false),
        ("n\n", false),
        ("no\n", false),
        ("ye\n", false),
        ("у\n", false),
    ] {
        let mut terminal = Terminal::run(touch);
        let code = terminal.until(QUESTION).type_in(keys).end();
        assert!(terminal.asked().contains("Do this? y, or "), "{}", terminal.shown);
        assert_eq!(code, Some(if agrees { 0 } else { 3 }), "{keys:?}: {}", terminal.shown);
        assert_eq!(terminal.file().exists(), agrees, "{keys:?}");
        assert!(agrees || terminal.shown.contains("nothing changed"), "{keys:?}: {}", terminal.shown);
    }
}

#[test]
fn ctrl_c_at_the_question_is_an_interruption() {
    let mut terminal = Terminal::run(touch);
    assert_eq!(terminal.until(QUESTION).type_in("\x03").end(), Some(130), "{}", terminal.shown);
    assert!(!terminal.file().exists());
}

#[test]
fn what_is_lost_is_typed_in_full() {
    for (lost, keys, agrees) in [
        ("volume db", "volume db\n", true),
        ("volume db", "  volume db\n", true),
        ("48, 47; db", "48,47 ;db\n", true),
        ("48, 47", "48 47\n", false),
        ("48, 47", "47, 48\n", false),
        ("volume db", "\n", false),
        ("volume db", "no\n", false),
        ("volume db", "\x04", false),
        ("volume db", "y\n", false),
        ("volume db", "yes\n", false),
        ("volume db", "volume\n", false),
        ("volume db", "Volume DB\n", false),
        ("volume db", "volume db db\n", false),
        // Nothing, or a y, is no thing that is lost: Enter is still no, and it is said that there is no way back.
        ("", "\n", false),
        ("", "it\n", true),
        (" ", "\n", false),
        ("y", "yes\n", false),
    ] {
        let mut terminal = Terminal::run(|_| losing(lost));
        terminal.until(QUESTION).type_in(keys);
        if !agrees && !["\n", "\x04", "no\n"].contains(&keys) {
            // Something else may have been mistyped.
            terminal.asked_again(1).type_in("other\n").asked_again(2).type_in("\n");
        }
        let code = terminal.end();
        assert!(terminal.asked().contains("This cannot be undone. Type "), "{lost:?}: {}", terminal.shown);
        assert_eq!(code, Some(if agrees { 0 } else { 3 }), "{lost:?} {keys:?}: {}", terminal.shown);
        assert_eq!(terminal.shown.contains("it was agreed"), agrees, "{lost:?} {keys:?}: {}", terminal.shown);
    }
}

#[test]
fn what_was_typed_before_the_question_is_no_answer() {
    let mut terminal = Terminal::run(|home| {
        let fifo = home.join("fifo").display().to_string();
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        format!("print(\"waits\"); host(\"local\").read([\"cat\", \"{fifo}\"]); {}", touch(home))
    });
    // The terminal echoes what it took, so it is there before the question is.
    terminal.until("waits").type_in("y\ny\n").until("y\r\ny\r\n");
    std::fs::write(terminal.home.path().join("fifo"), "go on").unwrap();
    assert_eq!(terminal.until(QUESTION).type_in("\n").end(), Some(3), "{}", terminal.shown);
    assert!(!terminal.file().exists());
}

/// Characters that act on a terminal or turn the order of what follows, with what stands for them.
const DANGEROUS: &[(&str, &str)] = &[
    ("\x1b[2J", "␛[2J"),
    ("\x07", "␇"),
    ("\x08\x08", "␈␈"),
    ("\r", "␍"),
    ("\n", "␤"),
    ("\x7f", "<007f>"),
    ("\u{9b}31m", "<009b>31m"),
    ("\u{202e}", "<202e>"),
    ("\u{2066}", "<2066>"),
    ("\u{2069}", "<2069>"),
    ("\u{200f}", "<200f>"),
    ("\u{61c}", "<061c>"),
    ("\u{2028}", "<2028>"),
];

#[test]
fn a_question_shows_what_would_act_on_the_terminal() {
    let (raw, visible): (Vec<&str>, Vec<&str>) = DANGEROUS.iter().copied().unzip();
    let (raw, visible) = (format!("a{}b", raw.join("-")), format!("a{}b", visible.join("-")));
    let plan = |_: &Path| format!("host(\"local\").run([\"true\", {}])", literal(&raw));
    for code in [&plan as &dyn Fn(&Path) -> String, &|_| losing(&raw)] {
        let mut terminal = Terminal::run(code);
        assert_eq!(terminal.until(QUESTION).type_in("\n").end(), Some(3), "{}", terminal.shown);
        assert!(terminal.shown.contains(&visible), "{:?}", terminal.shown);
        // The spinner and the terminal's own line ends are all that acts.
        let own = terminal.shown.replace("\r\x1b[K", "").replace("\r\n", "\n");
        let acts =
            |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2066}\u{2069}\u{200f}\u{61c}\u{2028}".contains(c);
        assert!(!own.chars().any(acts), "{own:?}");
    }
}
