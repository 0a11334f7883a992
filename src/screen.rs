//! The only writer to the terminal: values, tables, progress, questions, errors. Home of `comfy-table`.
//!
//! Results go to standard output; everything else (progress, plans, questions, errors) to standard error, so that
//! `opsh -e CODE | jq` works. Every line passes [`crate::redact`], and control characters of remote output are left
//! out or become visible instead of acting on the terminal.

mod cut;
mod human;
mod stream;
mod values;
mod visible;

pub use human::span;
pub use stream::{Streamer, head};
pub use visible::json_line;

use crate::error::{Error, Kind};
use crate::redact;
use crate::sources::Sources;
use human::Zone;
use jiff::Timestamp;
use serde_json::Value;
use std::borrow::Cow;
use std::cell::{Cell as StdCell, RefCell};
use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;
pub use visible::one_line;
use visible::{fit, hanging, safe, short_blanks};

/// What kind of screen this is; read once at the start.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Values as JSON lines on standard output, errors as one JSON object on standard error.
    pub json: bool,
    /// Colours may be used on standard error.
    pub color: bool,
    /// Standard input and standard error are a terminal: somebody can be asked.
    pub terminal: bool,
    /// Columns of what is no terminal: a terminal says each time how wide it is.
    pub width: u16,
}

impl Options {
    /// What the process was started with. `NO_COLOR` and `TERM=dumb` are respected.
    #[expect(clippy::disallowed_methods, reason = "the terminal's own settings, read once at the start")]
    pub fn detect(json: bool) -> Options {
        let stderr = std::io::stderr().is_terminal();
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        Options {
            json,
            color: stderr && !dumb && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            terminal: stderr && std::io::stdin().is_terminal(),
            // A table that goes into a pipe or a file is not folded: grep wants whole lines.
            width: 1000,
        }
    }
}

fn terminal_width(descriptor: i32) -> Option<u16> {
    terminal_size(descriptor).map(|size| size.columns)
}

/// Columns and rows of a terminal.
#[derive(Clone, Copy)]
pub struct Size {
    /// From left to right.
    pub columns: u16,
    /// From top to bottom; 0 when it does not say.
    pub rows: u16,
}

/// The size that the terminal has now.
pub fn size() -> Size {
    terminal_size(1).unwrap_or(Size { columns: 80, rows: 24 })
}

fn terminal_size(descriptor: i32) -> Option<Size> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` is a valid winsize for the whole call.
    let asked = unsafe { libc::ioctl(descriptor, libc::TIOCGWINSZ, &mut size) };
    (asked == 0 && size.ws_col > 0).then_some(Size { columns: size.ws_col, rows: size.ws_row })
}

/// The screen.
pub struct Screen {
    options: Options,
    busy: StdCell<bool>,
    /// When a wait is said next, where there is no terminal.
    say_at: StdCell<Duration>,
    /// A program has the terminal.
    lent: StdCell<bool>,
    /// The stream whose unfinished line is the last thing on the screen; 0 for none.
    open: StdCell<u64>,
    /// Streams so far.
    streams: StdCell<u64>,
    /// What was shown in part, whole.
    long: RefCell<String>,
    /// Of the times that are shown.
    zone: RefCell<Zone>,
    /// Why standard output takes nothing any more.
    cut: RefCell<Option<std::io::Error>>,
}

/// Outcome of all writes to standard output.
#[derive(Debug)]
pub enum Written {
    /// All of it is there.
    Whole,
    /// Its reader has enough, and closed the pipe.
    Closed,
    /// It was cut, with what the operator is told.
    Cut(Error),
}

/// Time after which a wait is said where there is no terminal; said again when three times as much has passed.
const FIRST_SAID: Duration = Duration::from_secs(5);

/// Colours of standard error.
#[derive(Clone, Copy)]
enum Tone {
    Red,
    Green,
    Yellow,
    Dim,
    Bold,
}

impl Screen {
    /// A screen with these options.
    pub fn new(options: Options) -> Screen {
        Screen {
            options,
            busy: StdCell::new(false),
            say_at: StdCell::new(FIRST_SAID),
            lent: StdCell::new(false),
            open: StdCell::new(0),
            streams: StdCell::new(0),
            long: RefCell::default(),
            zone: RefCell::new(Zone::system()),
            cut: RefCell::default(),
        }
    }

    /// Times are shown in this zone from now on, by its IANA name. Fails, saying why, when there is no such zone.
    pub fn set_zone(&self, name: &str) -> Result<(), String> {
        self.zone.replace(Zone::named(name)?);
        Ok(())
    }

    /// A time, microseconds since 1970: `2026-11-24 15:17:43 JST`.
    pub fn time(&self, at_us: i64) -> String {
        Timestamp::from_microsecond(at_us).map_or_else(|_| at_us.to_string(), |at| self.zone.borrow().time(at))
    }

    /// An RFC 3339 time to the minute, `2026-11-24 15:17 JST`; any other text as it is.
    pub fn minute(&self, text: &str) -> String {
        self.zone.borrow().minute(text)
    }

    /// What kind of screen it is.
    pub fn options(&self) -> Options {
        self.options
    }

    /// What a script prints. With `--json` standard output holds only the value, so this goes to standard error.
    pub fn print(&self, text: &str) {
        let text = fit(text);
        if self.options.json { self.to_stderr(&text) } else { self.to_stdout(&text) }
    }

    /// A text for programs rather than eyes.
    /// A text that is no value: help, the line of a check.
    pub fn raw(&self, text: &str) {
        self.to_stdout(&fit(text));
    }

    /// A value as one line of JSON.
    pub fn json(&self, value: &Value) {
        self.to_stdout(&json_line(value.clone()));
    }

    /// A line of an export, which [`json_line`] made.
    pub fn record(&self, line: &str) {
        self.to_stdout(line);
    }

    /// The value of `-e CODE` or of a line at the prompt.
    pub fn value(&self, value: &Value) {
        if self.options.json {
            return self.json(value);
        }
        if !value.is_null() {
            self.to_stdout(&fit(&self.show(value)));
        }
    }

    /// The value of a line at the prompt: as [`Screen::value`], and of what is longer than the terminal a part, with how to
    /// see all of it. Of a table rather all rows than all of each.
    pub fn glimpse(&self, value: &Value) {
        let size = terminal_size(1).filter(|_| !self.options.json && !value.is_null());
        let Some(size) = size else { return self.value(value) };
        let text = fit(&self.show(value));
        if cut::part(&text, size, false).is_none() {
            return self.to_stdout(&text);
        }
        let low = fit(&values::show_low(&redact::clean_json(value.clone()), self.width(), &self.zone.borrow()));
        let part = cut::part(&low, size, values::is_log(value));
        let (shown, is_end) = part.map_or((low.as_str(), false), |part| (part.shown, part.is_end));
        let left = text.split('\n').count() - shown.split('\n').count();
        let more = format!("… {left} more lines{}     :all", if is_end { " before these" } else { "" });
        self.to_stdout(shown);
        self.to_stderr(&self.paint(Tone::Dim, &more));
        self.long.replace(text);
    }

    /// All of what [`Screen::glimpse`] showed a part of last; false when there is nothing of the kind.
    pub fn all(&self) -> bool {
        let long = self.long.borrow();
        if !long.is_empty() {
            self.to_stdout(&long);
        }
        !long.is_empty()
    }

    /// A value as a person reads it: a table for a list of maps, `key  value` lines for a map.
    pub fn show(&self, value: &Value) -> String {
        values::show(&redact::clean_json(value.clone()), self.width(), &self.zone.borrow())
    }

    /// Of the terminal that results are shown on, now: it may have been made smaller since.
    fn width(&self) -> u16 {
        terminal_width(1).unwrap_or(self.options.width)
    }

    /// Rows under headings, in the order given.
    pub fn table(&self, columns: &[&str], rows: Vec<Vec<String>>) {
        self.print(&self.lines_of(columns, rows));
    }

    /// What [`Screen::table`] shows.
    pub fn lines_of(&self, columns: &[&str], rows: Vec<Vec<String>>) -> String {
        values::lines_of(columns, rows, self.width(), None)
    }

    /// Progress, plans, notes.
    pub fn say(&self, text: &str) {
        self.to_stderr(&hanging(text));
    }

    /// The Rhai that words became.
    pub fn echo(&self, code: &str) {
        self.to_stderr(&self.paint(Tone::Dim, &format!("⟶ {}", fit(code))));
    }

    /// A line that must not be overlooked.
    pub fn warn(&self, text: &str) {
        self.to_stderr(&self.paint(Tone::Yellow, &hanging(text)));
    }

    /// A line that must be seen now: something is not recorded, or not where it should be.
    pub fn alarm(&self, text: &str) {
        self.to_stderr(&self.paint(Tone::Red, &hanging(text)));
    }

    /// What is happening to a target: `→ compose.recreate  prod  backend`.
    pub fn effect(&self, mark: Mark, verb: &str, target: &str, says: &str) {
        let (sign, tone) = match mark {
            Mark::Begin => ("→", Tone::Bold),
            Mark::Ok => ("✓", Tone::Green),
            Mark::Bad => ("✗", Tone::Red),
            Mark::Would => ("·", Tone::Dim),
        };
        let line = format!("{} {}  {}  {}", self.paint(tone, sign), fit(verb), fit(target), one_line(says));
        self.to_stderr(line.trim_end());
    }

    /// What would happen to a target, and what would take it back. With `brief` as much of that as fits behind it on a line
    /// of the terminal, so that a plan stays on one screen; else all of it.
    pub fn would(&self, verb: &str, target: &str, says: &str, inverse: Option<&str>, brief: bool) {
        let Some(inverse) = inverse.map(one_line) else {
            return self.effect(Mark::Would, verb, target, &format!("would: {says}"));
        };
        let says = one_line(&format!("would: {says}   undo: "));
        let before: usize = format!("→ {verb}  {target}  {says}").chars().map(stream::columns).sum();
        let width = terminal_width(2).filter(|_| brief);
        let room = width.map_or(usize::MAX, |width| usize::from(width).saturating_sub(before).max(2));
        let whole = head(&inverse, room) == inverse;
        let (shown, more) = if whole { (inverse.as_str(), "") } else { (head(&inverse, room - 2), "…") };
        self.effect(Mark::Would, verb, target, &format!("{says}{shown}{more}"));
    }

    /// An error in the form of the manual, or one JSON object with `--json`.
    pub fn error(&self, error: &Error, sources: &Sources) {
        if self.options.json {
            return self.to_stderr(&json_line(error.to_json()));
        }
        self.to_stderr(&format!("{} {}", self.paint(Tone::Red, "error:"), short_blanks(&hanging(&error.what))));
        for (at, place) in error.trace.iter().enumerate() {
            let arrow = if at == 0 { "  --> " } else { "   in " };
            self.to_stderr(&fit(&format!("{arrow}{place}")));
        }
        // The line that the operator can change: the innermost one outside the built-in modules.
        let own = error.trace.iter().find(|place| !place.file.starts_with("std/"));
        if let Some(excerpt) = own.or(error.trace.first()).and_then(|place| sources.excerpt(place)) {
            self.to_stderr(&fit(&excerpt));
        }
        self.labelled("  why: ", &error.why);
        for (at, line) in error.next.iter().enumerate() {
            self.labelled(if at == 0 { " next: " } else { "       " }, &one_line(line));
        }
    }

    fn labelled(&self, label: &str, text: &str) {
        for (at, line) in short_blanks(&fit(text)).lines().enumerate() {
            let label: Cow<'_, str> = if at == 0 { label.into() } else { " ".repeat(label.len()).into() };
            self.to_stderr(&format!("{label}{line}"));
        }
    }

    /// Asks and returns the answer without its line end; `None` at the end of input or on Ctrl-C.
    pub fn ask(&self, question: &str) -> Option<String> {
        self.fresh_line();
        // What was typed before the question is no answer to it.
        // SAFETY: flushing a descriptor's input has no preconditions; a closed one is an error that is of no interest.
        unsafe { libc::tcflush(0, libc::TCIFLUSH) };
        // At once: the echo of a quick answer must not come between.
        let _ = std::io::stderr().lock().write_all(format!("{} ", one_line(question)).as_bytes());
        let answer = read_line();
        if answer.is_none() {
            self.to_stderr("");
        }
        answer
    }

    /// Asks for a secret: no echo.
    pub fn ask_secret(&self, question: &str) -> Option<redact::Secret> {
        let _quiet = NoEcho::new();
        let answer = self.ask(question);
        self.to_stderr("");
        answer.map(redact::Secret::new)
    }

    /// A line of standard input, typed unseen and asked for at a terminal. It is not taken for a secret yet: the caller
    /// does that, or has a reason not to.
    pub fn ask_unseen(&self, question: &str) -> Option<String> {
        if !self.options.terminal {
            return read_line();
        }
        let _quiet = NoEcho::new();
        let answer = self.ask(question);
        self.to_stderr("");
        answer
    }

    /// True when all that is written is seen by the person at the terminal only: no pipe, no file, no `--json`.
    pub fn is_private(&self) -> bool {
        self.options.terminal && !self.options.json && std::io::stdout().is_terminal()
    }

    /// Shows a secret to the person at the terminal. The one way around [`crate::redact`], and nowhere else when the
    /// screen is not private.
    pub fn reveal(&self, secret: &redact::Secret) {
        if self.is_private() {
            self.to_stderr(&safe(secret.expose()));
        }
    }

    /// Gives the terminal to a program until it is taken back: nothing else is drawn meanwhile, and keys are the program's.
    /// `None` when there is no terminal, or not all of it would be the program's.
    pub fn lend(&self) -> Option<Lent<'_>> {
        if !self.is_private() {
            return None;
        }
        self.fresh_line();
        self.lent.set(true);
        Some(Lent { screen: self, modes: Modes::now(), _keys: crate::interrupt::hold() })
    }

    /// Remote output as it comes, each line behind `label` and a bar.
    pub fn stream(&self, label: &str) -> Streamer<'_> {
        Streamer::new(self, label)
    }

    /// Shows that something takes its time; erased by the next line or by [`Screen::idle`]. Without a terminal it is a
    /// line of its own, after [`FIRST_SAID`] and then ever more rarely; `waits` names what is waited for.
    pub fn busy(&self, what: &str, waits: impl FnOnce() -> Option<String>, elapsed: Duration) {
        if !self.options.terminal {
            return self.say_busy(what, waits, elapsed);
        }
        let unfinished = self.open.get() != 0;
        if self.options.json || self.lent.get() || unfinished || elapsed < Duration::from_millis(300) {
            return;
        }
        const FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
        let frame = FRAMES[(elapsed.as_millis() / 100 % 10) as usize];
        let time = format!(" {} s", elapsed.as_secs());
        // What does not fit is cut off, and the time stays: it is what moves.
        let room = usize::from(terminal_width(2).unwrap_or(80).max(20)) - 1 - time.len();
        let what = format!("{frame} {}", one_line(what));
        let short = head(&what, room);
        let mut stderr = std::io::stderr().lock();
        let _ = write!(stderr, "\r\x1b[K{short}{time}");
        let _ = stderr.flush();
        self.busy.set(true);
    }

    fn say_busy(&self, what: &str, waits: impl FnOnce() -> Option<String>, elapsed: Duration) {
        if elapsed < self.say_at.get() || self.open.get() != 0 {
            return;
        }
        self.say_at.set(elapsed * 3);
        let waits = waits().map_or(String::new(), |waits| format!(": waiting for {waits}"));
        self.say(&format!("… {}{waits} ({} s so far)", one_line(what), elapsed.as_secs()));
    }

    /// Erases what [`Screen::busy`] drew.
    pub fn idle(&self) {
        self.say_at.set(FIRST_SAID);
        self.erase();
    }

    fn erase(&self) {
        if self.busy.replace(false) {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }

    fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.options.color {
            return text.into();
        }
        let code = match tone {
            Tone::Red => "31;1",
            Tone::Green => "32",
            Tone::Yellow => "33",
            Tone::Dim => "2",
            Tone::Bold => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Makes sure that what is written next begins a line, and says first what must not go unsaid.
    fn fresh_line(&self) {
        self.erase();
        if self.open.replace(0) != 0 {
            let _ = writeln!(std::io::stderr().lock());
        }
        for source in redact::unhidable() {
            let short = format!("shorter than {} bytes: it cannot be hidden", redact::SHORTEST);
            let line =
                format!("warning: the secret of {} is {short}, and is seen where it is printed", one_line(&source));
            let _ = writeln!(std::io::stderr().lock(), "{}", self.paint(Tone::Yellow, &line));
        }
        for warning in redact::warnings() {
            let line = format!("warning: {}", one_line(&warning));
            let _ = writeln!(std::io::stderr().lock(), "{}", self.paint(Tone::Yellow, &line));
        }
    }

    /// The one place that writes to standard output. What comes after a line that was not written is not written either: an
    /// output is whole, or it ends where it was cut.
    fn to_stdout(&self, text: &str) {
        self.fresh_line();
        if self.cut.borrow().is_some() {
            return;
        }
        let mut out = std::io::stdout().lock();
        if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
            self.cut.replace(Some(error));
        }
    }

    /// Whether all that was written to standard output is there. Asked once, at the end of the program.
    pub fn written(&self) -> Written {
        match self.cut.borrow().as_ref() {
            None => Written::Whole,
            Some(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Written::Closed,
            Some(error) => Written::Cut(
                Error::new(Kind::Failed, "the output is not whole", format!("standard output: {error}"))
                    .next("the same again, to where there is room; look first at what a script changed: opsh runs"),
            ),
        }
    }

    fn to_stderr(&self, text: &str) {
        self.fresh_line();
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }
}

/// The sign before an effect's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It begins.
    Begin,
    /// It ended well.
    Ok,
    /// It did not.
    Bad,
    /// It would be done, in plan mode.
    Would,
}

/// A line of standard input, given up on Ctrl-C.
fn read_line() -> Option<String> {
    loop {
        if crate::interrupt::is_interrupted() {
            return None;
        }
        let mut wait = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
        // SAFETY: `wait` is one valid pollfd for the whole call.
        if unsafe { libc::poll(&mut wait, 1, 100) } > 0 {
            break;
        }
    }
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line.trim_end_matches(['\n', '\r']).to_string()),
    }
}

/// Keeps Ctrl-Z away from this thread, so that the one that reads keys is stopped before it goes on: it puts the terminal
/// back first, and takes it again when it is continued.
pub fn leave_stopping_to_others() {
    // SAFETY: an all-zero signal set is a value of its type, and both calls take it for their whole duration.
    unsafe {
        let mut stop: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut stop);
        libc::sigaddset(&mut stop, libc::SIGTSTP);
        libc::pthread_sigmask(libc::SIG_BLOCK, &stop, std::ptr::null_mut());
    }
}

/// The terminal while a program has it.
pub struct Lent<'a> {
    screen: &'a Screen,
    modes: Option<Modes>,
    _keys: crate::interrupt::Held,
}

/// What a program that was cut off left switched on: the second screen, a hidden cursor, keys, the mouse and the focus as
/// sequences, a part of the screen that scrolls alone, colours.
const LEAVE_ALL: &str = "\x1b[?47l\x1b[?25h\x1b[?1l\x1b>\x1b[>4;0m\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1006l\
                         \x1b[?1015l\x1b[?2004l\x1b7\x1b[r\x1b8\x1b[0m\r\n";

impl Lent<'_> {
    /// The program has ended; `put_back`: what it had switched on.
    pub fn take_back(self, put_back: bool) {
        if !put_back {
            let _ = write!(std::io::stderr().lock(), "{LEAVE_ALL}");
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        come_to_the_front();
        if let Some(modes) = &self.modes {
            modes.set();
        }
        self.screen.lent.set(false);
    }
}

/// A shell that was killed leaves its own group as the one that has the terminal: whoever sets modes from behind is stopped.
fn come_to_the_front() {
    // SAFETY: system calls without pointers; the signal is ignored for the one call that raises it.
    unsafe {
        let before = libc::signal(libc::SIGTTOU, libc::SIG_IGN);
        libc::tcsetpgrp(0, libc::getpgrp());
        libc::signal(libc::SIGTTOU, before);
    }
}

/// Modes of the terminal.
struct Modes(libc::termios);

impl Modes {
    /// As they are; `None` when descriptor 0 is no terminal.
    fn now() -> Option<Modes> {
        // SAFETY: a zeroed termios is a valid value to be overwritten by tcgetattr.
        let mut modes: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: `modes` is valid for the call; descriptor 0 may be closed, which the result tells.
        (unsafe { libc::tcgetattr(0, &mut modes) } == 0).then_some(Modes(modes))
    }

    /// Makes them so; what was typed and not read is forgotten.
    fn set(&self) {
        // SAFETY: the termios was filled by tcgetattr.
        unsafe { libc::tcsetattr(0, libc::TCSAFLUSH, &self.0) };
    }
}

/// The terminal without echo for as long as this lives.
struct NoEcho(Option<Modes>);

impl NoEcho {
    fn new() -> NoEcho {
        let old = Modes::now();
        if let Some(Modes(mut quiet)) = old {
            quiet.c_lflag &= !libc::ECHO;
            Modes(quiet).set();
        }
        NoEcho(old)
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        if let Some(old) = &self.0 {
            old.set();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_stands_under_a_secrets_name_is_hidden_in_lines_and_tables() {
        let screen = Screen::new(Options { json: false, color: false, terminal: false, width: 80 });
        for value in [json!({"name": "a", "password": "tulip-9"}), json!([{"name": "a", "DB_PASSWORD": "tulip-9"}])] {
            let shown = screen.show(&value);
            assert!(shown.contains("•••#") && !shown.contains("tulip"), "{shown}");
        }
    }

    #[test]
    fn a_cell_of_a_table_is_one_line() {
        let screen = Screen::new(Options { json: false, color: false, terminal: false, width: 80 });
        let shown = screen.show(&json!([{"name": "a\nadmin  yes", "x": "1\t2\u{200b}"}, {"name": "b", "x": "-"}]));
        assert_eq!(shown.lines().count(), 3, "{shown}");
        assert!(fit(&shown).contains("a␤admin  yes") && fit(&shown).contains("1␉2<200b>"), "{shown}");
    }
}
