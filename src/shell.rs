//! The prompt. Home of `rustyline`.

use crate::error::{Error, Kind, Result};
use crate::gate::policy::Mode;
use crate::session::{self, Session};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::IsTerminal;

/// Reads lines until Ctrl-D, or evaluates standard input when it is not a terminal.
pub fn run(session: &mut Session) -> Result<()> {
    session.begin_sitting()?;
    let result = if std::io::stdin().is_terminal() { sit(session) } else { read_all(session) };
    session.end_sitting(result.as_ref().err());
    result
}

/// A script on standard input: one unit, the first error ends it.
fn read_all(session: &mut Session) -> Result<()> {
    let code = std::io::read_to_string(std::io::stdin())
        .map_err(|error| Error::new(Kind::Usage, "standard input cannot be read", error.to_string()))?;
    if let Some(tag) = session::reveal::tag_of(&code) {
        return session::reveal::show(session, tag);
    }
    let value = session.eval_typed(&code)?;
    session.gate().screen().value(&value);
    Ok(())
}

fn sit(session: &mut Session) -> Result<()> {
    let failed = |error: ReadlineError| Error::new(Kind::Failed, "the prompt failed", error.to_string());
    let mut editor = DefaultEditor::new().map_err(failed)?;
    let history = session.world().state_dir.join("history");
    // A missing history is an empty one.
    let _ = editor.load_history(&history);
    session.gate().screen().say("opsh: Rhai with verbs. help lists them, help VERB explains one, Ctrl-D leaves.");
    let mut pending = String::new();
    loop {
        let prompt = prompt(session, pending.is_empty());
        match editor.readline(&prompt) {
            Ok(line) => {
                pending.push_str(&line);
                if session::reveal::tag_of(&pending).is_none() && session.is_incomplete(&pending) {
                    pending.push('\n');
                    continue;
                }
                let code = std::mem::take(&mut pending);
                if ["exit", "quit"].contains(&code.trim().trim_end_matches("()")) {
                    return Ok(());
                }
                if code.trim().is_empty() {
                    continue;
                }
                // Before it is evaluated: a line that ends opsh is still there the next time.
                // A line that begins with a space is not kept, as in other shells; secrets are not kept in any.
                if !code.starts_with(' ') && may_be_kept(&code) {
                    let _ = editor.add_history_entry(crate::redact::clean(&code));
                    let _ = editor.append_history(&history);
                }
                evaluate(session, &code);
            }
            Err(ReadlineError::Interrupted) => pending.clear(),
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Where a tag belongs somebody may have typed the value.
fn may_be_kept(code: &str) -> bool {
    session::reveal::tag_of(code).is_none_or(session::reveal::is_tag)
}

fn prompt(session: &Session, fresh: bool) -> String {
    if !fresh {
        return "   … ".into();
    }
    match session.gate().mode() {
        Mode::Apply => "opsh › ".into(),
        mode => format!("opsh ({}) › ", mode.word()),
    }
}

/// Words that people type before they know better; true when the line was one of them.
fn is_word(session: &Session, line: &str) -> bool {
    let line = line.trim().trim_start_matches("opsh ").trim_end_matches(';');
    let mut words = line.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("help" | "?"), name, None) => {
            let screen = session.gate().screen();
            if let Err(error) = session::help::show(screen, name) {
                screen.error(&error, session.sources());
            }
            true
        }
        _ => false,
    }
}

fn evaluate(session: &mut Session, code: &str) {
    if is_word(session, code) {
        return;
    }
    if let Some(tag) = session::reveal::tag_of(code) {
        if let Err(error) = session::reveal::show(session, tag) {
            session.gate().screen().error(&error, session.sources());
        }
        return;
    }
    let result = session.eval_typed(code);
    let screen = session.gate().screen().clone();
    match result {
        Ok(value) => screen.value(&value),
        Err(error) => screen.error(&error, session.sources()),
    }
}
