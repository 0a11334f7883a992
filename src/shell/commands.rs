//! Lines that begin with a colon: what is done about the sitting, where words and Rhai are about the world.

use crate::error::{Error, Kind, Result, suggestion};
use crate::session::{self, Session};
use serde_json::Value;

/// One command.
pub struct Command {
    /// What is typed, with its colon.
    pub name: &'static str,
    /// What follows it.
    pub args: &'static str,
    /// What it does, in a line.
    pub doc: &'static str,
    run: fn(&mut Session, &str) -> Result<Done>,
}

/// What the prompt does next.
pub enum Done {
    /// Shows this.
    Value(Value),
    /// Shows this as one line of JSON.
    Json(Value),
    /// Ends.
    Quit,
}

/// Every command.
pub const COMMANDS: &[Command] = &[
    Command { name: ":help", args: "[NAME]", doc: "these commands, or what a word, verb or command does", run: help },
    Command { name: ":use", args: "STACK", doc: "words are about this stack from now on, which is p", run: use_stack },
    Command { name: ":observe", args: "", doc: "refuse every change from now on", run: observe },
    Command { name: ":apply", args: "\"WHY\"", doc: "ask for each change from now on; why is recorded", run: apply },
    Command { name: ":plan", args: "LINE", doc: "the line without its changes; go does them", run: plan },
    Command { name: ":note", args: "TEXT", doc: "write a remark into the record", run: note },
    Command { name: ":runs", args: "[COUNT]", doc: "the newest runs, and what to type about them", run: runs },
    Command { name: ":show", args: "[RUN]", doc: "what a run did; without one what was done here", run: show },
    Command { name: ":undo", args: "[RUN]", doc: "take a run back; without one what changed last", run: undo },
    Command { name: ":resume", args: "RUN", doc: "go on with a script's run that did not end well", run: resume },
    Command { name: ":attach", args: "[RUN]", doc: "wait for work that goes on on the hosts, or list it", run: attach },
    Command { name: ":settle", args: "RUN SAW", doc: "what you saw of a change that may have happened", run: settle },
    Command {
        name: ":save",
        args: "FILE [FROM..TO]",
        doc: "a script of the lines that went well, and its recording",
        run: save,
    },
    Command { name: ":load", args: "FILE", doc: "evaluate a file as if it was typed", run: load },
    Command { name: ":all", args: "", doc: "all of what was shown in part last", run: all },
    Command { name: ":time", args: "LINE", doc: "how long a line takes", run: time },
    Command { name: ":json", args: "LINE", doc: "what a line returns, as JSON", run: json },
    Command { name: ":reveal", args: "TAG", doc: "what •••#TAG hides, on this terminal only", run: reveal },
    Command { name: ":quit", args: "", doc: "leave; so do Ctrl-D, quit and exit", run: quit },
];

/// What a line means here that would be typed at a shell: errors and lists name those.
pub fn without_program(line: &str) -> Result<String> {
    let Some(rest) = line.strip_prefix("opsh ") else { return Ok(line.into()) };
    let (first, after) = rest.trim().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
    let of_journal = after.trim().split_once(char::is_whitespace).unwrap_or((after.trim(), ""));
    match first {
        "journal" if matches!(of_journal.0, "show" | "settle") => Ok(format!(":{}", after.trim())),
        "journal" if after.trim() == "list" => Ok(":runs".into()),
        "undo" if !after.trim().is_empty() => Ok(format!(":undo {after}")),
        "resume" | "attach" | "runs" => Ok(format!(":{first} {after}")),
        "help" | "doctor" => Ok(rest.trim().into()),
        script if script.ends_with(".rhai") => Ok(rest.trim().into()),
        _ => Err(Error::new(
            Kind::Usage,
            "nothing was done",
            format!("\"{line}\" is typed at a shell, and this is opsh"),
        )
        .next(":help     what is typed here")
        .next(format!("!-t {line}     runs it all the same"))),
    }
}

/// Runs a line that begins with a colon.
pub fn run(session: &mut Session, line: &str) -> Result<Done> {
    let line = line.trim();
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let command = COMMANDS.iter().find(|command| command.name == name).ok_or_else(|| unknown(name))?;
    if command.args.is_empty() && !rest.is_empty() {
        return Err(usage(command, &format!("\"{rest}\" is one word too many")));
    }
    if rest.is_empty() && !command.args.is_empty() && !command.args.starts_with('[') {
        let first = command.args.split_whitespace().next().unwrap_or_default().trim_matches('"');
        return Err(usage(command, &format!("{first} is missing")));
    }
    (command.run)(session, rest)
}

fn unknown(name: &str) -> Error {
    let why = suggestion(name, COMMANDS.iter().map(|command| command.name));
    Error::new(Kind::Usage, format!("no command \"{name}\""), why).next(":help     every command")
}

fn usage(command: &Command, why: &str) -> Error {
    let Command { name, args, doc, .. } = command;
    Error::new(Kind::Usage, format!("{name} was not done"), why).next(format!("{name} {args}     {doc}"))
}

/// Nothing to show.
fn done() -> Result<Done> {
    Ok(Done::Value(Value::Null))
}

fn help(session: &mut Session, name: &str) -> Result<Done> {
    let screen = session.gate().screen();
    let meant = name.trim_start_matches(':');
    let wanted = COMMANDS.iter().filter(|command| meant.is_empty() || command.name.trim_start_matches(':') == meant);
    let found: Vec<Vec<String>> =
        wanted.map(|command| vec![format!("{} {}", command.name, command.args), command.doc.into()]).collect();
    if found.is_empty() {
        return explain(session, Some(name));
    }
    screen.table(&["command", "what it does"], found);
    if meant.is_empty() {
        screen.print("\nps, logs SERVICE, @HOST WORDS, !WORDS: help WORD explains one; help lists every verb");
    }
    done()
}

/// What a word or verb does, or all of them.
pub fn explain(session: &Session, name: Option<&str>) -> Result<Done> {
    let text = session::help::text(session.gate().screen(), name)?;
    let word = name.and_then(session::words::find).filter(|(_, rest)| rest.is_empty());
    let typed = word.map_or(String::new(), |(word, _)| format!("{}     as words\n", word.usage()));
    Ok(Done::Value(format!("{typed}{text}").into()))
}

fn use_stack(session: &mut Session, name: &str) -> Result<Done> {
    session.use_stack(name)?;
    done()
}

fn observe(session: &mut Session, _: &str) -> Result<Done> {
    session.observe();
    done()
}

fn apply(session: &mut Session, why: &str) -> Result<Done> {
    session.apply(why)?;
    done()
}

fn plan(session: &mut Session, line: &str) -> Result<Done> {
    session.plan(line).map(Done::Value)
}

fn note(session: &mut Session, text: &str) -> Result<Done> {
    session.note(text)?;
    done()
}

fn runs(session: &mut Session, count: &str) -> Result<Done> {
    let count = if count.is_empty() { Ok(10) } else { count.parse() };
    let count = count.map_err(|_| Error::new(Kind::Usage, ":runs was not done", "COUNT must be a whole number"))?;
    let waiting = session.failed().map(|_| session.gate().run_id());
    session::runs::list(session.gate().journal()?, count, false, waiting.as_deref(), session.gate().screen())?;
    done()
}

fn show(session: &mut Session, rest: &str) -> Result<Done> {
    let (run, all) = with_flag(rest, "--all");
    let run = if run.is_empty() { session.gate().run_id() } else { run };
    session::record::show(&session.gate().journal()?.run(&run)?, all, session.gate().screen());
    done()
}

fn undo(session: &mut Session, rest: &str) -> Result<Done> {
    let (run, partly) = with_flag(rest, "--partly");
    session.undo_typed(if run.is_empty() { "last" } else { &run }, partly).map(Done::Value)
}

fn resume(session: &mut Session, rest: &str) -> Result<Done> {
    let (run, changed_script) = with_flag(rest, "--changed-script");
    session.resume_typed(&run, changed_script)?;
    done()
}

fn settle(session: &mut Session, rest: &str) -> Result<Done> {
    let (run, saw) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let saw = saw.trim().trim_matches('"');
    if saw.is_empty() {
        return Err(Error::new(Kind::Usage, ":settle was not done", "what you saw is missing: it is recorded")
            .next(format!(":settle {run} \"the container is the new one\"     for example")));
    }
    session::record::settle(session.gate().journal()?, run, saw, session.gate().screen())?;
    done()
}

/// The words but `flag`, and whether it was among them.
fn with_flag(rest: &str, flag: &str) -> (String, bool) {
    let (flags, words): (Vec<&str>, Vec<&str>) = rest.split_whitespace().partition(|word| *word == flag);
    (words.join(" "), !flags.is_empty())
}

fn attach(session: &mut Session, run: &str) -> Result<Done> {
    let run = (!run.is_empty()).then(|| run.to_string());
    session.as_run_of_its_own(|session| session.attach(run.as_deref()))?;
    done()
}

fn save(session: &mut Session, rest: &str) -> Result<Done> {
    let with_range = rest.rsplit_once(char::is_whitespace).filter(|(_, range)| range.contains(".."));
    let (file, range) = with_range.unwrap_or((rest, ""));
    let file = file.trim();
    let saved = session.save(file, range)?;
    let screen = session.gate().screen();
    screen.say(&format!("{file} has {} lines     opsh {file}", saved.lines));
    if let Some(why) = saved.lacks {
        screen.warn(&format!("it cannot be run as it is: {why}"));
    }
    match saved.recording.map(|path| path.display().to_string()) {
        Ok(path) => screen.say(&format!("{path} is their recording     opsh --replay {path} {file}")),
        Err(error) => screen.warn(&format!("there is no recording of them: {}", error.why)),
    }
    done()
}

fn load(session: &mut Session, file: &str) -> Result<Done> {
    session.load(file).map(Done::Value)
}

fn all(session: &mut Session, _: &str) -> Result<Done> {
    if session.gate().screen().all() {
        return done();
    }
    Err(Error::new(Kind::Usage, ":all was not done", "nothing was shown in part").next("it     the last value"))
}

fn time(session: &mut Session, line: &str) -> Result<Done> {
    let (result, took) = session.timed(line);
    session.gate().screen().say(&format!("took {:.2} s", took.as_secs_f64()));
    result.map(Done::Value)
}

fn json(session: &mut Session, line: &str) -> Result<Done> {
    session.typed(line).map(Done::Json)
}

fn reveal(session: &mut Session, tag: &str) -> Result<Done> {
    session::reveal::show(session, tag.trim_start_matches(['•', '#']))?;
    done()
}

fn quit(_: &mut Session, _: &str) -> Result<Done> {
    Ok(Done::Quit)
}
