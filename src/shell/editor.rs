//! The line editor: reads one whole input, and keeps the history. Home of `rustyline`.

use super::code::Code;
use super::complete::{Candidate, Names, complete};
use super::highlight::{self, MARGIN};
use super::lex;
use crate::error::{Error, Kind, Result};
use crate::screen;
use crate::session::help;
use crate::session::incomplete::is_incomplete;
use rustyline::completion::{Completer, Pair};
use rustyline::config::{ColorMode, CompletionType};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::{Hint, Hinter, HistoryHinter};
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{
    CharSearch, Cmd, ConditionalEventHandler, Config, Context, Event, EventContext, EventHandler, Helper, KeyCode,
    KeyEvent, Modifiers, Movement, RepeatCount,
};
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Lines that the history file holds.
const HISTORY: usize = 10_000;
/// Longer inputs, pasted ones, are painted when they are shown anew and not at each key: painting shows all of it.
const PAINTED_LINES: usize = 20;

/// The editor of a prompt.
pub struct Editor {
    editor: rustyline::Editor<Helping, FileHistory>,
    history: Option<PathBuf>,
    known: Shared,
    colors: bool,
}

/// How an input ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// With Enter: one line, or several that belong together.
    Line(String),
    /// Ctrl-C: what was typed is gone.
    Interrupted,
    /// Ctrl-D on an empty line.
    End,
}

/// What keys and helper ask.
#[derive(Default)]
struct Known {
    names: Names,
    /// Lines of the history.
    kept: HashSet<String>,
    /// Ctrl-C was what ended the input.
    interrupted: bool,
}

impl Known {
    /// True when Enter goes on instead of running what is there.
    fn goes_on(&self, line: &str) -> bool {
        self.names.is_rhai(line) && is_incomplete(line)
    }

    /// With a beginning typed, the arrows look for lines that begin so; within several lines they move, and a line
    /// that came from the history is left for the next one.
    fn is_search(&self, line: &str, position: usize) -> bool {
        let is_from_history = || position == line.len() && self.kept.contains(line);
        position > 0 && !line.contains('\n') && !is_from_history()
    }

    /// What follows a word that was just typed: `SERVICE [--tail N]` behind `logs `.
    fn usage(&self, line: &str) -> Option<String> {
        let word = self.names.word_of(line).filter(|word| line.strip_suffix(' ') == Some(&word.name))?;
        word.signature.strip_prefix(&word.name).map(|usage| usage.trim_start().into())
    }
}

/// Keys have to be `Sync`, although all of this is one thread's.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Known>>);

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(error: ReadlineError) -> Error {
    Error::new(Kind::Failed, "the prompt failed", error.to_string())
}

fn build(known: &Shared, colors: bool) -> Result<rustyline::Editor<Helping, FileHistory>> {
    let is_terminal = std::io::stdout().is_terminal();
    let config = Config::builder()
        .max_history_size(HISTORY)
        .map_err(failed)?
        .completion_type(CompletionType::List)
        .completion_show_all_if_ambiguous(true)
        .completion_prompt_limit(usize::MAX)
        // Without colours the mark of a line that goes on is still put there by the highlighter.
        .color_mode(if is_terminal { ColorMode::Forced } else { ColorMode::Disabled })
        .build();
    let mut editor = rustyline::Editor::with_config(config).map_err(failed)?;
    editor.set_helper(Some(Helping::new(known.clone(), colors && is_terminal)));
    let own =
        [KeyCode::Up, KeyCode::Down, KeyCode::Enter, KeyCode::Backspace].map(|key| KeyEvent(key, Modifiers::NONE));
    for key in own.into_iter().chain(['C', 'J'].map(KeyEvent::ctrl)) {
        editor.bind_sequence(key, EventHandler::Conditional(Box::new(Keys(known.clone()))));
    }
    // Alt-Enter goes on with what is whole.
    editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), Cmd::Insert(1, format!("\n{MARGIN}")));
    Ok(editor)
}

impl Editor {
    /// An editor whose history is the file `history`; one that cannot be read is an empty one, and without a file it is of this
    /// sitting only. `colors` says whether
    /// what is typed has any. Fails when the terminal cannot be used.
    pub fn new(history: Option<PathBuf>, colors: bool, names: Names) -> Result<Editor> {
        let known = Shared::default();
        known.known().names = names;
        let mut editor = build(&known, colors)?;
        let _ = history.as_ref().map(|file| editor.load_history(file));
        known.known().kept.extend(editor.history().iter().cloned());
        Ok(Editor { editor, history, known, colors })
    }

    /// Forgets what was typed ahead: after Ctrl-C nobody wants the lines that were to follow.
    pub fn forget_typed(&mut self) {
        // rustyline keeps it in a buffer that only another editor is without.
        if let Ok(mut fresh) = build(&self.known, self.colors) {
            std::mem::swap(fresh.history_mut(), self.editor.history_mut());
            self.editor = fresh;
        }
    }

    /// Reads one whole input behind `prompt`, of which `typed` is there already. Names decide what Tab offers and which input is whole; `refresh` puts in
    /// what has changed of them.
    pub fn read(&mut self, prompt: &str, typed: &str, refresh: impl FnOnce(&mut Names)) -> Result<Read> {
        refresh(&mut self.known.known().names);
        let read = self.editor.readline_with_initial(prompt, (typed, ""));
        let interrupted = std::mem::take(&mut self.known.known().interrupted);
        match read {
            Ok(_) if interrupted => Ok(Read::Interrupted),
            Ok(line) => Ok(Read::Line(line)),
            Err(ReadlineError::Interrupted) => Ok(Read::Interrupted),
            Err(ReadlineError::Eof) => Ok(Read::End),
            Err(error) => Err(failed(error)),
        }
    }

    /// False for a line of words, or of what begins with `:`, `@` or `!`.
    pub fn is_rhai(&self, line: &str) -> bool {
        self.known.known().names.is_rhai(line)
    }

    /// Puts `line` into the history, on the disk at once; one that cannot be written is there for this sitting only.
    pub fn keep(&mut self, line: &str) {
        let _ = self.editor.add_history_entry(line);
        let _ = self.history.as_ref().map(|file| self.editor.append_history(file));
        self.known.known().kept.insert(line.into());
    }
}

/// What rustyline asks while a line is edited.
struct Helping {
    shared: Shared,
    colors: bool,
    verbs: HashSet<&'static str>,
    hints: HistoryHinter,
    /// The brackets that belong together at the cursor.
    pair: Cell<Option<[usize; 2]>>,
}

impl Helping {
    fn new(shared: Shared, colors: bool) -> Helping {
        Helping {
            shared,
            colors,
            verbs: help::entries().map(|entry| entry.signature.name).collect(),
            hints: HistoryHinter::default(),
            pair: Cell::new(None),
        }
    }

    /// The signature of the call that the cursor is at the beginning of.
    fn signature(&self, line: &str) -> Option<String> {
        let known = self.shared.known();
        let call = line.ends_with('(').then(|| Code::new(line, &known.names))?;
        let open = call.tokens.len().checked_sub(1)?;
        let entry = call.callees(open).into_iter().next()?;
        let params = entry.sig.split_once('(').map(|(_, params)| params)?;
        Some(params.split(" -> ").next().unwrap_or(params).into())
    }
}

impl Helper for Helping {}

impl Completer for Helping {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let mut known = self.shared.known();
        known.names.bring_in();
        let (start, found) = complete(line, position, &known.names);
        let size = screen::size();
        // A list that would scroll away is one of names alone, in columns.
        let all_fit = found.len() + 2 < usize::from(size.rows);
        let pair = |Candidate { display, replacement }: Candidate| {
            let shown = if all_fit { display } else { replacement.clone() };
            Pair { display: fit(shown, usize::from(size.columns).saturating_sub(2)), replacement }
        };
        Ok((start, found.into_iter().map(pair).collect()))
    }
}

/// One line of a list.
fn fit(text: String, width: usize) -> String {
    if screen::head(&text, width) == text {
        return text;
    }
    format!("{}…", screen::head(&text, width.saturating_sub(2)))
}

impl Validator for Helping {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if self.shared.known().goes_on(context.input()) {
            ValidationResult::Incomplete
        } else {
            ValidationResult::Valid(None)
        })
    }
}

/// What is shown dim behind the cursor, and what of it the right arrow takes.
struct Dim {
    shown: String,
    taken: Option<String>,
}

impl Hint for Dim {
    fn display(&self) -> &str {
        &self.shown
    }

    fn completion(&self) -> Option<&str> {
        self.taken.as_deref()
    }
}

impl Hinter for Helping {
    type Hint = Dim;

    fn hint(&self, line: &str, position: usize, context: &Context<'_>) -> Option<Dim> {
        if !self.colors || position < line.len() || line.contains('\n') {
            return None;
        }
        if let Some(shown) = self.signature(line) {
            return Some(Dim { shown, taken: None });
        }
        let Some(taken) = self.hints.hint(line, position, context) else {
            return self.shared.known().usage(line).map(|shown| Dim { shown, taken: None });
        };
        let shown = taken.split_once('\n').map_or(taken.clone(), |(first, _)| format!("{first} …"));
        Some(Dim { shown, taken: Some(taken) })
    }
}

impl Highlighter for Helping {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if self.colors && !line.contains('\n') && !self.shared.known().names.is_rhai(line) {
            return highlight::paint_word(line).into();
        }
        highlight::paint(line, &self.verbs, self.pair.get(), self.colors).into()
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        if self.colors { format!("\x1b[1m{prompt}\x1b[0m").into() } else { prompt.into() }
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        highlight::dim(hint).into()
    }

    fn highlight_char(&self, line: &str, position: usize, kind: CmdKind) -> bool {
        let is_final = kind == CmdKind::ForcedRefresh;
        let pair = if is_final || !self.colors { None } else { highlight::pair(line, position) };
        let moved = self.pair.replace(pair) != pair;
        let is_short = line.lines().count() <= PAINTED_LINES;
        is_short && (moved || (self.colors && kind == CmdKind::Other))
    }
}

/// Keys that mean more here than to rustyline.
struct Keys(Shared);

impl ConditionalEventHandler for Keys {
    fn handle(&self, event: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        let (line, position) = (context.line(), context.pos());
        let mut known = self.0.known();
        let key = event.get(0)?.0;
        known.interrupted = key == KeyCode::Char('C');
        match key {
            // rustyline's own end would leave a hint as if it had been typed, and lose what was typed after it.
            KeyCode::Char('C') => Some(Cmd::AcceptLine),
            KeyCode::Up if known.is_search(line, position) => Some(Cmd::HistorySearchBackward),
            KeyCode::Down if known.is_search(line, position) => Some(Cmd::HistorySearchForward),
            KeyCode::Enter | KeyCode::Char('J') if known.goes_on(line) => {
                Some(Cmd::Insert(1, next_line(&line[..position])))
            }
            // The line end and the margin behind it.
            KeyCode::Backspace if line[..position].ends_with(&format!("\n{MARGIN}")) => {
                Some(Cmd::Kill(Movement::ViCharSearch(1, CharSearch::Backward('\n'))))
            }
            _ => None,
        }
    }
}

/// How the line after `before` begins: with a margin for its mark, but not within a string, which would be changed by it.
fn next_line(before: &str) -> String {
    let in_string = lex::tokens(before).last().is_some_and(|last| last.kind == lex::Kind::Text && !last.ended);
    if in_string { "\n".into() } else { format!("\n{MARGIN}") }
}
