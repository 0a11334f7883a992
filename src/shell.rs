//! The prompt.

mod code;
pub mod commands;
pub mod complete;
pub mod editor;
pub mod guide;
mod highlight;
mod lex;
mod names;
mod paste;

use crate::error::{Error, Kind, Result};
use crate::session::failure::CHOICES;
use crate::session::incomplete::is_incomplete;
use crate::session::{self, Session, calm_error, known};
use crate::whole::{self, Link};
use commands::{COMMANDS, Done};
use complete::{Names, Word};
use editor::{Editor, Read};
use guide::Guide;
use std::io::{ErrorKind, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;

/// Reads lines until Ctrl-D, or evaluates standard input when it is not a terminal.
pub fn run(session: &mut Session) -> Result<()> {
    session.begin_sitting()?;
    let result = if std::io::stdin().is_terminal() { sit(session, None) } else { read_all(session) };
    session.leave_reads();
    session.end_sitting(result.as_ref().err());
    result
}

/// Reads lines at the terminal with somebody who says what to type; ends with the last of these lines, or before by Ctrl-D.
pub fn run_guided(session: &mut Session, guide: &mut Guide) -> Result<()> {
    session.begin_sitting()?;
    let result = sit(session, Some(guide));
    session.leave_reads();
    session.end_sitting(result.as_ref().err());
    result
}

/// Lines of a file as if they were typed: each is shown behind its prompt, and one that fails does not end the others.
/// Fails when a replay differs from its recording, and `failed` when one did and this is none.
pub fn type_lines(session: &mut Session, text: &str) -> Result<()> {
    session.begin_sitting()?;
    let screen = session.gate().screen().clone();
    session.use_only_stack()?;
    let mut names = names(session);
    let (mut input, mut failed, mut exit) = (String::new(), 0, Ok(()));
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        input += line;
        refresh(session, &mut names);
        if names.is_rhai(&input) && is_incomplete(&input) && lines.peek().is_some() {
            input += "\n";
            continue;
        }
        format!("{}{input}", prompt(session)).split('\n').for_each(|line| screen.say(line));
        let after = if input.trim().is_empty() { After::Next } else { evaluate(session, &input) };
        failed += usize::from(after == After::Failed);
        if after == After::Quit {
            exit = session.exit_result();
            break;
        }
        input.clear();
    }
    session.leave_reads();
    session.end_typed_sitting(exit)?;
    match failed {
        0 => Ok(()),
        _ if session.gate().is_replay() => Ok(()),
        _ => {
            Err(Error::new(Kind::Failed, "not every line went well", format!("{failed} failed; the others were done")))
        }
    }
}

/// A script on standard input: one unit, the first error ends it.
fn read_all(session: &mut Session) -> Result<()> {
    let code = session::text_of_stdin()?;
    if let Some(tag) = session::reveal::tag_of(&code) {
        return session::reveal::show(session, tag);
    }
    let value = session.eval_typed(&code, &code)?;
    session.gate().screen().value(&value);
    Ok(())
}

/// The file of the history: none where others may have written it, or when it is a pipe or the like.
fn history(session: &Session) -> Option<PathBuf> {
    let path = session.world().state.file("history")?;
    match whole::open(&path, Link::Followed) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            session.gate().screen().warn(&format!("the history {} is not used: {error}", path.display()));
            None
        }
        _ => Some(path),
    }
}

fn sit(session: &mut Session, mut guide: Option<&mut Guide>) -> Result<()> {
    let screen = session.gate().screen().clone();
    let mut editor = Editor::new(history(session), screen.options().color, names(session))?;
    greet(session);
    loop {
        if guide.as_mut().is_some_and(|guide| !guide.goes_on(session)) {
            return Ok(());
        }
        let typed = guide.as_ref().map_or(String::new(), |guide| guide.line().into());
        let code = match editor.read(&prompt(session), &typed, |names| refresh(session, names))? {
            Read::Line(code) => code,
            Read::Interrupted => continue,
            // What failed is left first, the shell after that.
            Read::End if session.abort_failed() => continue,
            Read::End => return Ok(()),
        };
        if code.trim().is_empty() {
            continue;
        }
        // Before it is evaluated: a line that ends opsh is still there the next time.
        // A line that begins with a space is not kept, as in other shells; secrets are not kept in any.
        if !code.starts_with(' ') && may_be_kept(&code) {
            editor.keep(&crate::redact::clean(&code));
        }
        let inputs = inputs(session, &editor, &code);
        let mut well = true;
        for (done, input) in inputs.iter().enumerate() {
            let planned = session.planned();
            let after = evaluate(session, input);
            if after == After::Quit {
                return session.exit_result();
            }
            well &= after == After::Next;
            // A plan is looked at before the next one takes its place.
            let next = inputs.get(done + 1).map(|next| next.trim());
            let is_new = session.planned().is_some_and(|now| planned.as_ref() != Some(&now) && next != Some("go"));
            let interrupted = session.take_interrupt();
            if interrupted {
                editor.forget_typed();
            }
            if (interrupted || is_new || after == After::Failed) && next.is_some() {
                screen.say(&format!("· not done after that: {}", inputs[done + 1..].join("\n  ")));
                break;
            }
        }
        if let Some(guide) = &mut guide {
            guide.typed(&code, well);
        }
        session.refresh_names();
    }
}

/// What a pasted block of words is, a line each; Rhai is one.
fn inputs(session: &Session, editor: &Editor, code: &str) -> Vec<String> {
    if !code.trim().contains('\n') || session.is_rhai(code) {
        return vec![code.into()];
    }
    let is_raw = |line: &str| session::words::find(line).is_some_and(|(word, _)| word.raw);
    let kind = |line: &str| match (editor.is_rhai(line), session.is_rhai(line)) {
        (false, _) if is_raw(line) => paste::Kind::Raw,
        (false, _) => paste::Kind::Words,
        (_, true) => paste::Kind::Rhai,
        _ => paste::Kind::Part,
    };
    paste::inputs(code, kind, is_incomplete)
}

/// What Tab offers that stays as it is.
fn names(session: &Session) -> Names {
    Names {
        words: words(session),
        commands: COMMANDS.iter().map(|one| (one.name.into(), format!("{}  {}", one.args, one.doc))).collect(),
        stacks: session.stacks(),
        hosts: session.hosts(),
        host_tags: session.host_tags(),
        modules: known::modules(),
        topics: known::topics(),
        ..Names::default()
    }
}

/// What the last line may have changed of it.
fn refresh(session: &Session, names: &mut Names) {
    let failed = session.failed().is_some();
    if names.stack.as_deref() != session.stack_in_use() || names.failed != failed {
        names.failed = failed;
        names.stack = session.stack_in_use().map(String::from);
        names.words = words(session);
    }
    let changed = known::scripts_changed();
    if names.scripts_changed != changed {
        names.scripts_changed = changed;
        names.scripts = known::scripts();
    }
    names.services = session.services();
    names.containers.clone_from(&session.seen().containers);
    names.tags.clone_from(&session.seen().tags);
    names.arrived = Arc::clone(session.arrived());
    names.variables = session.variables();
    names.functions = session.functions();
}

/// Verbs of the stack in use, scripts, and the words that are neither.
fn words(session: &Session) -> Vec<Word> {
    let plain = |name: &str, signature: &str, doc: &str| Word {
        name: name.into(),
        signature: signature.into(),
        doc: doc.into(),
        ..Word::default()
    };
    let mut all = vec![
        plain("go", "go", "does what was planned last"),
        Word { params: vec!["topic".into()], ..plain("help", "help [NAME]", "explains verbs, functions and words") },
    ];
    if session.failed().is_some() {
        all.extend(CHOICES.iter().map(|(word, does)| plain(word, word, does)));
    }
    if session.stack_in_use().is_some() {
        all.extend(session::words::all().iter().map(Word::of_verb));
    }
    all.extend(session.script_words().into_iter().map(Word::of_script));
    all
}

/// Lines about what is open when a person sits down.
const SAID_AT_FIRST: usize = 5;

/// What a person should know who has just sat down.
fn greet(session: &mut Session) {
    let screen = session.gate().screen().clone();
    screen.say("opsh: words such as ps and logs, and Rhai. :help says more, Ctrl-D leaves.");
    // Without a journal that can be read there is nothing to say of it here: it was said when opsh began.
    let journal = session.gate().journal();
    let open = journal.and_then(|journal| session::runs::open(journal, &session.gate().run_id())).unwrap_or_default();
    for line in open.iter().take(SAID_AT_FIRST) {
        screen.warn(&format!("open: {line}"));
    }
    if open.len() > SAID_AT_FIRST {
        screen.warn(&format!("open: {} more     :runs", open.len() - SAID_AT_FIRST));
    }
    if let Err(error) = session.use_only_stack() {
        screen.error(&calm_error(error, &session.world().busy), session.sources());
    }
    let stacks: Vec<&str> = session.world().config.stack_names().collect();
    if let (None, Some(first)) = (session.stack_in_use(), stacks.first()) {
        screen.say(&format!(":use {first}     makes words about it; stacks: {}", stacks.join(", ")));
    }
}

/// Where a tag belongs somebody may have typed the value.
fn may_be_kept(code: &str) -> bool {
    session::reveal::tag_of(code).is_none_or(session::reveal::is_tag)
}

/// What can go wrong with the next line: on which stack, whether changes are made, how many may have happened.
fn prompt(session: &Session) -> String {
    let mut state = Vec::new();
    state.extend(session.failed().map(|name| format!("{} failed", name.rsplit('/').next().unwrap_or(name))));
    state.extend(session.mode_word().map(String::from));
    match session.unsettled() {
        0 => {}
        count => state.push(format!("{count} may have happened")),
    }
    let stack = session.stack_in_use().map_or(String::new(), |name| format!(" {name}"));
    let state = if state.is_empty() { String::new() } else { format!(" ({})", state.join(", ")) };
    format!("opsh{stack}{state} › ")
}

/// What comes after a line.
#[derive(PartialEq, Eq)]
enum After {
    Next,
    Failed,
    Quit,
}

/// Does a line and shows what came of it.
fn evaluate(session: &mut Session, line: &str) -> After {
    let result = meant(session, line);
    let screen = session.gate().screen().clone();
    if session.has_exited() {
        return After::Quit;
    }
    let after = if result.is_ok() { After::Next } else { After::Failed };
    match result {
        Ok(Done::Value(value)) => screen.glimpse(&value),
        Ok(Done::Json(value)) => screen.json(&value),
        Ok(Done::Quit) => return After::Quit,
        // Who pressed Ctrl-C knows why; what goes on without its opsh is another matter.
        Err(error) if error.kind == Kind::Interrupted && error.next.is_empty() => {
            screen.say(&format!("· {}: {}", error.what, error.why))
        }
        Err(error) => screen.error(&calm_error(error, &session.world().busy), session.sources()),
    }
    session.say_who_has_the_lock();
    after
}

fn meant(session: &mut Session, line: &str) -> Result<Done> {
    let line = &commands::without_program(line.trim())?;
    let mut words = line.trim_end_matches(';').split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("help" | "?"), name, None) => commands::explain(session, name),
        (Some("exit" | "quit" | "exit()" | "quit()"), None, None) => Ok(Done::Quit),
        _ if line.starts_with(':') => commands::run(session, line),
        _ => session.typed(line).map(Done::Value),
    }
}
