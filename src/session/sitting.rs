//! A sitting at the prompt: the stack in use, the mode, what a typed line means, and what was rehearsed and waits for `go`.

use super::failure::Failed;
use super::header::Header;
use super::known::{KEYWORDS, Seen};
use super::refresh::Refresh;
use super::{Session, built_in, runbook, undo, words};
use crate::bind::host;
use crate::bind::stack::StackHandle;
use crate::config::LOCAL;
use crate::error::{Error, Kind, Result, suggestion};
use crate::gate::journal::Story;
use crate::gate::policy::Mode;
use crate::gate::verb::Class;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What lasts from line to line, besides variables.
#[derive(Default)]
pub struct Sitting {
    /// Name of the stack in use.
    stack: Option<String>,
    /// A person said why changes are made: the mode stays what it is when another stack is used.
    applies: bool,
    /// A person, or the command line, said that nothing is to be changed: only `:apply` ends that.
    holds: bool,
    /// The command line said so: nothing ends that.
    fixed: bool,
    /// What `go` does.
    pub(super) pending: Option<Pending>,
    /// Lines that were evaluated, and so noted in the record.
    noted: usize,
    /// Those that went well.
    lines: Vec<Line>,
    /// What Tab may offer.
    seen: Seen,
    /// A person sits here.
    pub(super) sits: bool,
    /// A script's run that failed, and waits.
    pub(super) failed: Option<Failed>,
    /// What else, from hosts.
    pub(super) refresh: Refresh,
    /// Stacks whose lock was asked for.
    locks: BTreeSet<String>,
}

impl Sitting {
    /// True the first time for each stack.
    pub fn asked_for_lock(&mut self, stack: &str) -> bool {
        self.locks.insert(stack.into())
    }
}

/// A line that went well.
pub struct Line {
    /// It as Rhai.
    pub code: String,
    /// Which of the lines in the record it is, from 1.
    pub noted: usize,
}

/// What was rehearsed.
#[derive(Clone)]
pub(super) enum Pending {
    /// A line.
    Rhai(String),
    /// A script with its arguments.
    Script(Script, Vec<String>),
    /// Taking a run back.
    Undo(String),
}

impl Pending {
    fn words(&self) -> String {
        match self {
            Pending::Rhai(code) => code.clone(),
            Pending::Script(script, argv) => format!("{} {}", script.name(), argv.join(" ")),
            Pending::Undo(run) => format!(":undo {run}"),
        }
    }
}

/// A script that can be typed as a word.
#[derive(Clone)]
pub(super) enum Script {
    /// In the folder `scripts` beside opsh.toml, or below where opsh was started.
    File(PathBuf),
    /// One that is built in.
    BuiltIn(&'static str, &'static str),
}

impl Script {
    fn name(&self) -> String {
        match self {
            Script::File(path) => path.display().to_string(),
            Script::BuiltIn(name, _) => (*name).into(),
        }
    }
}

/// What a typed line means.
enum Meaning {
    /// Rhai as it was typed.
    Rhai,
    /// Words: the Rhai that they are, and whether it may change something.
    Words(String, bool),
    /// A script and its arguments.
    Script(Script, Vec<String>),
    /// What was rehearsed is done.
    Go,
}

impl Session {
    /// Begins the run that a sitting at the prompt is.
    pub fn begin_sitting(&mut self) -> Result<()> {
        self.sitting.fixed = self.gate().mode() != Mode::Apply;
        self.sitting.holds = self.sitting.fixed;
        self.sitting.sits = true;
        self.gate().begin_run("prompt", self.facts())
    }

    /// Ends it; `error` is what ended it, if anything did.
    pub fn end_sitting(&mut self, error: Option<&Error>) {
        self.abort_failed();
        self.gate().end_run(error);
    }

    /// Lines that went well, oldest first.
    pub fn lines(&self) -> &[Line] {
        &self.sitting.lines
    }

    /// Names that values of this sitting had.
    pub fn seen(&self) -> &Seen {
        &self.sitting.seen
    }

    /// Scripts that can be typed as words: name, arguments, and the first line about each.
    pub fn script_words(&self) -> Vec<(String, String, String)> {
        let described = |name: &str| {
            let text = match self.script(name)? {
                Script::File(path) => super::text_of(&path).ok()?,
                Script::BuiltIn(_, text) => text.into(),
            };
            let header = Header::parse(&text);
            let usage = header.usage.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
            Some((name.to_string(), usage, header.text.lines().next().unwrap_or_default().into()))
        };
        built_in::NAMES.iter().filter_map(|name| described(name)).collect()
    }

    /// The stack that words are about.
    pub fn stack_in_use(&self) -> Option<&str> {
        self.sitting.stack.as_deref()
    }

    /// How many changes may have happened, of all runs.
    pub fn unsettled(&self) -> usize {
        self.gate().journal().and_then(|journal| journal.unsettled()).map_or(0, |open| open.len())
    }

    /// Uses the only stack there is, if there is only one.
    pub fn use_only_stack(&mut self) -> Result<()> {
        match self.only_stack() {
            Some(name) => self.use_stack(&name),
            None => Ok(()),
        }
    }

    /// Makes a stack the one that words are about, as the variable `p`. One that is protected is only observed until a
    /// person says why it is to be changed.
    pub fn use_stack(&mut self, name: &str) -> Result<()> {
        let stack = self.world.config.stack(name)?;
        self.sitting.pending = None;
        let protected = self.world.stack_target(&stack).protected;
        self.eval(&format!("let p = stack({}); ()", words::literal(name)))?;
        // Why one stack is changed is no reason to change another one.
        let another = self.sitting.stack.replace(name.into()).is_some_and(|before| before != name);
        self.sitting.applies &= !another;
        if self.sitting.holds || self.sitting.applies {
            return Ok(());
        }
        match (protected, self.gate().mode()) {
            (true, Mode::Apply) => self.gate().set_mode(Mode::Observe, &format!("{name} is protected")),
            (false, Mode::Observe) => self.gate().set_mode(Mode::Apply, &format!("{name} is a sandbox")),
            _ => {}
        }
        Ok(())
    }

    /// Changes are refused from now on.
    pub fn observe(&mut self) {
        self.sitting.applies = false;
        self.sitting.holds = true;
        self.sitting.pending = None;
        self.gate().set_mode(Mode::Observe, "a person said so");
    }

    /// Changes are asked for from now on, and why is recorded.
    pub fn apply(&mut self, why: &str) -> Result<()> {
        self.refuse_fixed()?;
        let why = why.trim().trim_matches('"');
        if why.is_empty() {
            return Err(Error::new(Kind::Usage, "the mode is what it was", "why is missing: it is recorded")
                .next(":apply \"502 since 02:50\"     for example"));
        }
        self.gate().note_before("apply", json!({ "why": why }))?;
        self.sitting.applies = true;
        self.sitting.holds = false;
        self.sitting.pending = None;
        self.gate().set_mode(Mode::Apply, why);
        Ok(())
    }

    /// One line as it was typed: words, a script's name, or Rhai. Consent covers this line only.
    pub fn typed(&mut self, line: &str) -> Result<Value> {
        if let Some(result) = self.decided(line) {
            return result;
        }
        match self.meaning(line)? {
            Meaning::Rhai => self.eval_typed(line, line),
            Meaning::Script(script, argv) => self.rehearse(Pending::Script(script, argv)),
            Meaning::Go => self.go(),
            Meaning::Words(code, changes) => {
                self.gate().screen().echo(&code);
                let value = match changes && self.gate().mode() == Mode::Observe {
                    true => self.rehearse(Pending::Rhai(code))?,
                    false => self.eval_typed(&code, line)?,
                };
                Ok(self.in_short(value))
            }
        }
    }

    /// What words show of their value, which is `it` in full: of a program what it printed, of a receipt whether there was
    /// something to do; what was done is on the screen already.
    fn in_short(&self, value: Value) -> Value {
        let Value::Object(map) = &value else { return value };
        let has = |keys: &[&str]| keys.iter().all(|key| map.contains_key(*key));
        if has(&["changed", "skipped", "took_ms"]) {
            if map["changed"] == json!(false) && map["skipped"] == json!(false) {
                self.gate().screen().say("· it was so already: nothing changed");
            }
            // On a host the output was shown as it came.
            return if map["after"]["in"].is_null() { Value::Null } else { self.in_short(map["after"].clone()) };
        }
        if has(&["text", "wrong"]) {
            return map["text"].clone();
        }
        if !has(&["code", "out", "err"]) {
            return value;
        }
        if let Some(err) = map["err"].as_str().map(str::trim_end).filter(|err| !err.is_empty()) {
            self.gate().screen().say(err);
        }
        match map["out"].as_str().map(str::trim_end) {
            Some("") | None => Value::Null,
            Some(out) => json!(out),
        }
    }

    /// As [`Session::typed`], and how long it took.
    pub fn timed(&mut self, line: &str) -> (Result<Value>, Duration) {
        let began = Instant::now();
        (self.typed(line), began.elapsed())
    }

    /// True when Ctrl-C was pressed during the last line; it is forgotten then.
    pub fn take_interrupt(&self) -> bool {
        let was = crate::interrupt::is_interrupted();
        crate::interrupt::clear();
        was
    }

    /// One line of Rhai; `line` is what was typed for it.
    pub fn eval_typed(&mut self, code: &str, line: &str) -> Result<Value> {
        // What was shown is done at once or not at all: this line may change what it means.
        self.sitting.pending = None;
        crate::interrupt::clear();
        self.gate().forget_consent();
        let mut note = json!({ "text": code });
        if line != code {
            note["typed"] = json!(line);
        }
        self.gate().note("line", note);
        // Lines at a script that failed are in its record, not in that of the sitting.
        let of_sitting = self.sitting.failed.is_none();
        self.sitting.noted += usize::from(of_sitting);
        let result = self.eval(code);
        if let Ok(value) = &result {
            // What was only rehearsed was not done.
            if of_sitting && self.gate().mode() != Mode::Plan {
                self.sitting.lines.push(Line { code: code.to_string(), noted: self.sitting.noted });
            }
            self.sitting.seen.take(value);
        }
        result.map_err(|error| self.refused_here(error))
    }

    /// What to type at a prompt about a change that was refused there.
    fn refused_here(&self, error: Error) -> Error {
        if error.kind != Kind::Refused || self.gate().mode() != Mode::Observe {
            return error;
        }
        let next = vec![
            ":plan LINE     what it would do; then go does it".into(),
            ":apply \"WHY\"     changes are asked for from then on".into(),
        ];
        Error { next, ..error }
    }

    /// A line of Rhai, or of words, without its changes; `go` does them.
    pub fn plan(&mut self, line: &str) -> Result<Value> {
        match self.meaning(line)? {
            Meaning::Rhai => self.rehearse(Pending::Rhai(line.into())),
            Meaning::Words(code, _) => self.rehearse(Pending::Rhai(code)),
            Meaning::Script(script, argv) => self.rehearse(Pending::Script(script, argv)),
            Meaning::Go => Err(nothing_to_go_on_with()),
        }
    }

    /// Takes a run back: shown first, done by `go` when only observing.
    pub fn undo_typed(&mut self, run: &str) -> Result<Value> {
        let run = self.to_undo(run)?.run;
        if self.sitting.failed.is_some() && run == self.gate().run_id() {
            return self.undo_failed();
        }
        let what = Pending::Undo(run);
        match self.gate().mode() {
            Mode::Apply => self.perform(what),
            _ => self.rehearse(what),
        }
    }

    /// The sitting itself may be taken back, too.
    fn to_undo(&self, run: &str) -> Result<Story> {
        let story = undo::find(self.gate().journal()?, run, self.gate().is_replay(), Some(&self.gate().run_id()))?;
        let here = self.facts();
        if ["config", "found"].iter().any(|fact| story.facts[fact] != here[fact]) {
            let why = "it was done with another configuration, in which the names of stacks and hosts may mean others";
            let from = story.facts["config"].as_str().map_or("opsh USER@HOST, as it was begun".into(), String::from);
            return Err(Error::new(Kind::Usage, format!("run {} was not undone", story.run), why)
                .next(format!("opsh undo {}     with {from}", story.run)));
        }
        Ok(story)
    }

    fn rehearse(&mut self, what: Pending) -> Result<Value> {
        self.sitting.pending = None;
        self.gate().forget_consent();
        let result = self.in_mode(Mode::Plan, "a rehearsal", |session| {
            let result = session.perform(what.clone());
            result.map(|value| (value, session.gate().has_skipped()))
        });
        let (value, skipped) = result?;
        if skipped {
            self.gate().screen().say(&format!("go     does it: {}", what.words()));
            self.sitting.pending = Some(what);
            // What would have been returned is the receipt of nothing.
            return Ok(Value::Null);
        }
        Ok(value)
    }

    /// Fails when the command line said that nothing is to be changed.
    fn refuse_fixed(&self) -> Result<()> {
        if !self.sitting.fixed {
            return Ok(());
        }
        let why = format!("opsh was started with --{}: nothing is changed here", self.gate().mode().word());
        Err(Error::new(Kind::Refused, "not done", why).next("opsh     without it"))
    }

    fn go(&mut self) -> Result<Value> {
        self.refuse_fixed()?;
        let what = self.sitting.pending.take().ok_or_else(nothing_to_go_on_with)?;
        self.gate().note_before("go", json!({ "what": what.words() }))?;
        let value = self.in_mode(Mode::Apply, "go", |session| session.perform(what))?;
        Ok(self.in_short(value))
    }

    pub(super) fn in_mode<T>(&mut self, mode: Mode, why: &str, work: impl FnOnce(&mut Session) -> T) -> T {
        let before = self.gate().mode();
        self.gate().set_mode(mode, why);
        let result = work(self);
        self.gate().set_mode(before, "as before");
        result
    }

    fn perform(&mut self, what: Pending) -> Result<Value> {
        match what {
            Pending::Rhai(code) => self.eval_typed(&code, &code),
            Pending::Script(script, argv) => self.as_run_of_its_own(|session| match &script {
                Script::File(path) => session.run_script(path, &argv),
                Script::BuiltIn(name, _) => session.run_built_in(name, &argv),
            }),
            Pending::Undo(run) => {
                let story = self.to_undo(&run)?;
                self.as_run_of_its_own(|session| session.undo(story, false).map(|()| Value::Null))
            }
        }
    }

    /// A script, an undo or an attach has a run of its own, with which it can be taken back or gone on with.
    pub fn as_run_of_its_own<T>(&mut self, work: impl FnOnce(&mut Session) -> T) -> T {
        let outer = self.gate().set_aside();
        let result = work(self);
        self.keep_aside(outer);
        self.sitting.refresh.make_due();
        result
    }

    fn meaning(&self, line: &str) -> Result<Meaning> {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix('!').filter(|rest| !rest.starts_with('=')) {
            return words_on(LOCAL, rest);
        }
        if let Some(rest) = line.strip_prefix('@') {
            let (place, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            return match place.split_once('/') {
                Some((stack, service)) => self.words_in(stack, service, rest),
                None => words_on(&self.host_of(place)?, rest),
            };
        }
        let Some((name, rest)) = words::split(line) else { return self.no_words(line) };
        if self.scope.contains(name) {
            return Ok(Meaning::Rhai);
        }
        if name == "go" && rest.is_empty() {
            return Ok(Meaning::Go);
        }
        // A name with a dash has no place in Rhai.
        let dashed = line.split_whitespace().next().unwrap_or(name);
        if let Some(script) = self.script(dashed) {
            return Ok(Meaning::Script(script.clone(), self.script_argv(&script, &line[dashed.len()..])?));
        }
        let Some((word, rest)) = words::find(line) else { return self.not_a_word(line, name, rest) };
        if self.sitting.stack.is_none() {
            let known: Vec<&str> = self.world.config.stack_names().collect();
            let error = Error::new(Kind::Usage, format!("{name} was not done"), "no stack is in use");
            let line = if known.is_empty() { "stack" } else { known[0] };
            return Err(error.next(format!(":use {line}     of {}", known.join(", "))));
        }
        // A program may have the name of a word: `docker ps -a`.
        let code = word.rhai(rest).map_err(|error| self.of_a_runbook(line).unwrap_or(error))?;
        Ok(Meaning::Words(self.about_stack_in_use(code), word.class != Class::Read))
    }

    /// Words are about the stack in the prompt, whatever `p` was made to be.
    fn about_stack_in_use(&self, code: String) -> String {
        let p = self.scope.get_value::<StackHandle>("p");
        match (&self.sitting.stack, code.strip_prefix("p.")) {
            (Some(name), Some(call)) if p.is_none_or(|p| p.name() != name) => {
                format!("stack({}).{call}", words::literal(name))
            }
            _ => code,
        }
    }

    /// A line that begins as none of words does: Rhai, or a line of a runbook with what is set before it.
    fn no_words(&self, line: &str) -> Result<Meaning> {
        match self.is_rhai(line) {
            true => Ok(Meaning::Rhai),
            false => self.of_a_runbook(line).map_or(Ok(Meaning::Rhai), Err),
        }
    }

    fn is_rhai(&self, line: &str) -> bool {
        self.engine.compile_with_scope(&self.scope, line).is_ok()
    }

    fn of_a_runbook(&self, line: &str) -> Option<Error> {
        let stack = self.sitting.stack.as_ref().and_then(|name| self.world.config.stack(name).ok());
        runbook::answer(line, stack.as_deref())
    }

    /// Two words that cannot be Rhai were meant as something else; one may be.
    fn not_a_word(&self, line: &str, name: &str, rest: &str) -> Result<Meaning> {
        if rest.is_empty() || KEYWORDS.contains(&name) || self.is_rhai(line) {
            return Ok(Meaning::Rhai);
        }
        if let Some(answer) = self.of_a_runbook(line) {
            return Err(answer);
        }
        if line.contains(['{', '(', ';', '\n']) {
            return Ok(Meaning::Rhai);
        }
        let typed: Vec<String> = line.split_whitespace().map(String::from).collect();
        if host::check_read(&typed).is_ok() {
            let error = Error::new(Kind::Usage, format!("no word \"{name}\""), "it is a program");
            return Err(error
                .next(format!("@ {line}     runs it on the stack's host"))
                .next(format!("!{line}     here")));
        }
        let scripts = built_in::NAMES.iter().copied();
        let why = suggestion(name, words::all().iter().map(|word| word.name).chain(scripts));
        Err(Error::new(Kind::Usage, format!("no word \"{name}\""), why).next("help     every verb"))
    }

    /// `@prod/backend WORDS`, and of the stack in use `@/backend WORDS`.
    fn words_in(&self, stack: &str, service: &str, text: &str) -> Result<Meaning> {
        let in_use = self.sitting.stack.as_deref().filter(|_| stack.is_empty());
        let stack = self.world.config.stack(in_use.unwrap_or(stack))?;
        words::in_container(&stack.name, service, text).map(|(code, changes)| Meaning::Words(code, changes))
    }

    /// The host of `@HOST`; of `@` alone, that of the stack in use.
    fn host_of(&self, place: &str) -> Result<String> {
        let name = match (place, &self.sitting.stack) {
            ("", Some(stack)) => self.world.config.stack(stack)?.host.clone(),
            ("", None) => {
                return Err(Error::new(Kind::Usage, "nothing was run", "no stack is in use, and no host was named")
                    .next("@HOST df -h /     names one"));
            }
            // A stack stands for the host that it is on.
            (name, _) => self.world.config.stack(name).map_or_else(|_| name.to_string(), |stack| stack.host.clone()),
        };
        if name != LOCAL {
            self.world.config.host(&name)?;
        }
        Ok(name)
    }

    fn script(&self, name: &str) -> Option<Script> {
        if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || "-_".contains(c)) {
            return None;
        }
        let beside = self.world.config.path.as_deref().and_then(|path| path.parent().map(PathBuf::from));
        let file = beside.unwrap_or_default().join("scripts").join(format!("{name}.rhai"));
        if file.is_file() {
            return Some(Script::File(file));
        }
        built_in::find(name).map(|(name, text)| Script::BuiltIn(name, text))
    }

    /// The script's arguments, with the stack in use where it takes one and none was named.
    fn script_argv(&self, script: &Script, rest: &str) -> Result<Vec<String>> {
        let bad = |why: &str| Error::new(Kind::Usage, format!("{} was not started", script.name()), why);
        let mut argv = shlex::split(rest).ok_or_else(|| bad("a quote is open at its end"))?;
        let header = match script {
            Script::File(path) => Header::parse(&super::text_of(path)?),
            Script::BuiltIn(_, text) => Header::parse(text),
        };
        let takes_stack = header.has_option("stack") || header.first_word() == Some("STACK");
        if takes_stack && self.sitting.stack.is_none() && !argv.iter().any(|word| word == "--help" || word == "-h") {
            return Err(bad("no stack is in use").next(":use STACK     first"));
        }
        if let (Some(stack), Some("STACK")) = (&self.sitting.stack, header.first_word())
            && header.check(&script.name(), &argv)?.words.is_empty()
        {
            argv.insert(0, stack.clone());
        }
        let named = argv.iter().any(|word| word == "--stack" || word.starts_with("--stack="));
        if let (Some(stack), true, false) = (&self.sitting.stack, header.has_option("stack"), named) {
            argv.push(format!("--stack={stack}"));
        }
        Ok(argv)
    }
}

fn words_on(host: &str, text: &str) -> Result<Meaning> {
    words::on_host(host, text).map(|(code, changes)| Meaning::Words(code, changes))
}

fn nothing_to_go_on_with() -> Error {
    Error::new(Kind::Usage, "nothing was done", "nothing was planned that go could do")
        .next(":plan LINE     what it would do; then go does it")
}
