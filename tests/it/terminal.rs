//! A terminal for tests: the built program on one side of a pseudo terminal, a screen that understands it on the other.
//!
//! Keys go in, a screen comes out; nothing is answered that a person would not answer. Each wait has one deadline, and
//! ends with what the screen shows when it passes.

use super::home::Home;
use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Columns and rows that everything about the layout is tried at.
pub const SIZES: [(u16, u16); 2] = [(80, 24), (120, 40)];

/// Longer than anything takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(120);

pub const CTRL_C: &str = "\x03";
pub const CTRL_D: &str = "\x04";

/// What a change asks.
pub const QUESTION: &str = "Do this? y, or Enter to stop:";

/// A program at a terminal.
pub struct Terminal {
    /// Where keys go.
    keys: File,
    /// The program's side, kept open: its attributes outlive the program.
    inner: OwnedFd,
    seen: Arc<Seen>,
    /// Reads what is written, as long as there is something to read from.
    reader: Option<JoinHandle<()>>,
    child: Child,
    /// How many questions were waited for.
    asked: Cell<usize>,
    /// The attributes that the program found.
    pub found: Attributes,
}

/// Input, output, control and local modes, and control characters.
pub type Attributes = (Vec<u32>, Vec<u8>);

/// What was shown so far.
struct Seen {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    parser: vt100::Parser,
    /// Every byte.
    raw: Vec<u8>,
    /// Nobody reads it any more.
    closed: bool,
}

/// How the program ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    Signal(i32),
}

impl Terminal {
    /// Opsh with these words, in `home`, at a terminal with colours.
    pub fn start(home: &Home, columns: u16, rows: u16, words: &[&str]) -> Terminal {
        Terminal::run(&mut Terminal::command(home, words), columns, rows)
    }

    /// What [`Terminal::start`] runs, for more variables.
    pub fn command(home: &Home, words: &[&str]) -> Command {
        let mut command = home.command(words);
        command.env("TERM", "xterm-256color");
        command
    }

    /// Any program.
    pub fn run(command: &mut Command, columns: u16, rows: u16) -> Terminal {
        let (outer, inner) = open(columns, rows);
        let found = attributes(&inner);
        let end = || inner.try_clone().unwrap();
        command.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: both calls are async-signal-safe and touch nothing of the parent's.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        // Its own copies of the program's side would keep it open.
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
        let parser = vt100::Parser::new(cells(rows), cells(columns), 1000);
        let state = Mutex::new(State { parser, raw: Vec::new(), closed: false });
        let seen = Arc::new(Seen { state, changed: Condvar::new() });
        let screen = File::from(outer.try_clone().unwrap());
        let shown = Arc::clone(&seen);
        let reader = Some(std::thread::spawn(move || shown.read(screen)));
        Terminal { keys: File::from(outer), inner, seen, reader, child, asked: Cell::new(0), found }
    }

    /// Types.
    pub fn keys(&self, keys: &str) -> &Terminal {
        (&self.keys).write_all(keys.as_bytes()).unwrap();
        self
    }

    /// Pastes, as a terminal does when the program asked for brackets around it.
    pub fn paste(&self, text: &str) -> &Terminal {
        assert!(self.look(|screen| screen.bracketed_paste()), "not asked for");
        self.keys(&format!("\x1b[200~{}\x1b[201~", text.replace('\n', "\r")))
    }

    /// Types a line, and waits for the next prompt and for all that the line shows.
    #[track_caller]
    pub fn says(&self, line: &str, shows: &[&str]) -> &Terminal {
        let next = self.prompts() + 1;
        self.keys(line).keys("\r").until_prompts(next);
        shows.iter().fold(self, |terminal, text| terminal.until(text))
    }

    /// Types a line, answers the question that it asks, and waits for the next prompt and for what the line shows.
    #[track_caller]
    pub fn answers(&self, line: &str, answer: &str, shows: &str) -> &Terminal {
        let next = self.prompts() + 1;
        self.keys(line).keys("\r").answer(answer).until_prompts(next).until(shows)
    }

    /// Says yes to the next question.
    #[track_caller]
    pub fn agree(&self) -> &Terminal {
        self.answer("y")
    }

    /// Waits for the next question, and answers it.
    #[track_caller]
    pub fn answer(&self, answer: &str) -> &Terminal {
        self.until_asked().keys(answer).keys("\r")
    }

    /// Waits for the next question.
    #[track_caller]
    pub fn until_asked(&self) -> &Terminal {
        let asked = self.asked.get() + 1;
        self.asked.set(asked);
        self.until_written(QUESTION, asked).until_line(QUESTION)
    }

    /// Ctrl-C, and the prompt after it, alone on its line.
    #[track_caller]
    pub fn interrupt(&self, prompt: &str) -> &Terminal {
        let next = self.prompts() + 1;
        self.keys(CTRL_C).until_prompts(next).until_line(prompt)
    }

    /// Ctrl-D ends it well, and the terminal is as it was found.
    #[track_caller]
    pub fn leave(mut self) {
        self.keys(CTRL_D);
        assert_eq!(self.ends(), End::Exit(0));
        assert_eq!(self.attributes(), self.found, "the terminal is as it was");
        self.wait_for("end of bracketed paste", |screen| !screen.bracketed_paste());
    }

    /// Waits until the screen shows `text`.
    #[track_caller]
    pub fn until(&self, text: &str) -> &Terminal {
        self.wait_for(&format!("{text:?}"), |screen| screen.contents().contains(text));
        self
    }

    /// Waits until the line with the cursor is `text`, blanks at its end aside.
    #[track_caller]
    pub fn until_line(&self, text: &str) -> &Terminal {
        self.wait_for(&format!("the line {text:?}"), |screen| current(screen) == text);
        self
    }

    /// Waits until the screen is as `wanted` says; `what` is that in words.
    #[track_caller]
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&vt100::Screen) -> bool) {
        self.wait(what, |state| wanted(state.parser.screen()));
    }

    /// How many times a line was asked for.
    pub fn prompts(&self) -> usize {
        self.seen.state.lock().unwrap().prompts()
    }

    /// Waits until a line was asked for so many times.
    #[track_caller]
    pub fn until_prompts(&self, count: usize) -> &Terminal {
        self.wait(&format!("prompt {count}"), |state| state.prompts() >= count);
        self
    }

    /// Waits until `text` was written so many times.
    #[track_caller]
    pub fn until_written(&self, text: &str, count: usize) -> &Terminal {
        let written = |state: &State| String::from_utf8_lossy(&state.raw).matches(text).count();
        self.wait(&format!("\"{text}\", {count} times"), |state| written(state) >= count);
        self
    }

    #[track_caller]
    fn wait(&self, what: &str, wanted: impl Fn(&State) -> bool) {
        let start = Instant::now();
        let mut state = self.seen.state.lock().unwrap();
        while !wanted(&state) {
            let left = DEADLINE.saturating_sub(start.elapsed());
            if left.is_zero() {
                let cursor = state.parser.screen().cursor_position();
                panic!("no {what} on the screen, cursor at {cursor:?}:\n{}", state.parser.screen().contents());
            }
            state = self.seen.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Something of the screen.
    pub fn look<T>(&self, look: impl FnOnce(&vt100::Screen) -> T) -> T {
        look(self.seen.state.lock().unwrap().parser.screen())
    }

    /// What the screen shows.
    pub fn screen(&self) -> String {
        self.look(vt100::Screen::contents)
    }

    /// Row and column of the cursor, from 0.
    pub fn cursor(&self) -> (u16, u16) {
        self.look(vt100::Screen::cursor_position)
    }

    /// Everything that was written to the terminal.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.seen.state.lock().unwrap().raw).into_owned()
    }

    /// Another size; the kernel tells the program.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.seen.state.lock().unwrap().parser.screen_mut().set_size(cells(rows), cells(columns));
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: `size` is a valid winsize for the whole call.
        assert_eq!(unsafe { libc::ioctl(self.keys.as_raw_fd(), libc::TIOCSWINSZ, &size) }, 0);
    }

    /// The terminal's attributes: echo, line mode, signals.
    pub fn attributes(&self) -> Attributes {
        attributes(&self.inner)
    }

    /// Closes it, as a window is closed or a connection is lost, and waits for the end of the program. What the screen
    /// showed until then can still be looked at.
    #[track_caller]
    pub fn hang_up(&mut self) -> End {
        self.seen.state.lock().unwrap().closed = true;
        // The reader has this side, too: it is told by something to read.
        File::from(self.inner.try_clone().unwrap()).write_all(b"\n").unwrap();
        self.reader.take().unwrap().join().unwrap();
        self.keys = File::from(self.inner.try_clone().unwrap());
        self.ends()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ends(&mut self) -> End {
        let status = self.child.wait_until(Instant::now() + DEADLINE);
        let status = status.unwrap_or_else(|| panic!("it goes on:\n{}", self.screen()));
        status.code().map(End::Exit).or(status.signal().map(End::Signal)).expect("one of both")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that has ended cannot be ended again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Seen {
    /// Until either side is closed.
    fn read(&self, mut screen: File) {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = screen.read(&mut piece) {
            let mut state = self.state.lock().unwrap();
            if state.closed {
                return;
            }
            state.parser.process(&piece[..length]);
            state.raw.extend_from_slice(&piece[..length]);
            drop(state);
            self.changed.notify_all();
        }
    }
}

impl State {
    /// Each prompt begins with asking for brackets around what is pasted.
    fn prompts(&self) -> usize {
        let begins = b"\x1b[?2004h";
        self.raw.windows(begins.len()).filter(|bytes| bytes == begins).count()
    }
}

trait WaitUntil {
    fn wait_until(&mut self, deadline: Instant) -> Option<ExitStatus>;
}

impl WaitUntil for Child {
    /// Waits on a descriptor of the process, so that there is nothing to be asked again and again.
    fn wait_until(&mut self, deadline: Instant) -> Option<ExitStatus> {
        // SAFETY: pidfd_open takes a process and no flags; a process that was not waited for keeps its number.
        let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, self.id() as libc::pid_t, 0) };
        if descriptor < 0 {
            return self.try_wait().unwrap();
        }
        // SAFETY: it was opened above and is nobody else's.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor as i32) };
        let left = deadline.saturating_duration_since(Instant::now()).as_millis() as i32;
        let mut wanted = libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&mut wanted, 1, left) };
        self.try_wait().unwrap()
    }
}

/// Both sides of a new terminal.
fn open(columns: u16, rows: u16) -> (OwnedFd, OwnedFd) {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut outer, mut inner) = (-1, -1);
    let null = std::ptr::null_mut();
    // SAFETY: two places for descriptors and a size that are valid for the whole call; no name and no attributes.
    let opened = unsafe { libc::openpty(&mut outer, &mut inner, null, std::ptr::null(), &size) };
    assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both were opened above and are nobody else's; programs started by other tests get neither.
    unsafe {
        for descriptor in [outer, inner] {
            libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        (OwnedFd::from_raw_fd(outer), OwnedFd::from_raw_fd(inner))
    }
}

fn attributes(terminal: &OwnedFd) -> Attributes {
    // SAFETY: an all-zero termios is a value of its type, and tcgetattr fills it.
    let attributes = unsafe {
        let mut attributes: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), &mut attributes), 0);
        attributes
    };
    let libc::termios { c_iflag, c_oflag, c_cflag, c_lflag, c_cc, .. } = attributes;
    (vec![c_iflag, c_oflag, c_cflag, c_lflag], c_cc.to_vec())
}

fn cells(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).unwrap()
}

/// The line that the cursor is in, without blanks at its end.
pub fn current(screen: &vt100::Screen) -> String {
    let (row, _) = screen.cursor_position();
    let (_, columns) = screen.size();
    screen.rows(0, columns.get()).nth(usize::from(row)).unwrap_or_default().trim_end().to_string()
}
