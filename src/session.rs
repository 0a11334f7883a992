//! The one API of prompt, scripts and tests: [`Session::eval`] a line, [`Session::run_script`] a file.

mod attach;
pub mod built_in;
pub mod discover;
pub mod doc;
pub mod failure;
pub mod header;
pub mod help;
pub mod incomplete;
mod keep;
pub mod known;
pub mod lint;
mod locks;
mod meaning;
pub mod plugin;
pub mod record;
mod refresh;
mod relief;
pub mod resume;
pub mod reveal;
pub mod runbook;
pub mod runs;
mod sitting;
pub mod undo;
pub mod words;

pub use crate::bind::hints::{Busy, calm_error};
use crate::bind::values::{self, ExitCode, RhaiResult};
use crate::bind::world::{Args, World};
use crate::bind::{self, lesson, lock, provenance, secret};
use crate::config::{Config, LOCAL};
use crate::engine;
use crate::error::{Error, Kind, Result};
use crate::gate::journal::Story;
use crate::gate::policy::Mode;
use crate::gate::replay::{FailAt, Recording};
use crate::gate::{Gate, Grants, Ledger, Limits, State};
use crate::screen::Screen;
use crate::sources::{self, Origin, Sources};
use crate::whole::{self, Link};
use crate::{memory, redact};
use header::Header;
use rhai::{AST, Dynamic, Engine, Expr, Scope, Stmt};
use serde_json::{Value, json};
use sitting::Sitting;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// How a session is started.
pub struct Options {
    /// Mode of its runs.
    pub mode: Mode,
    /// What the command line agreed to.
    pub grants: Grants,
    /// Configuration.
    pub config: Config,
    /// Folder of the journal and known hosts.
    pub state_dir: PathBuf,
    /// `--spill`: a run is recorded into a spill file when the journal cannot be written.
    pub spill: bool,
    /// An exported run that answers in place of the world.
    pub replay: Option<Replay>,
}

/// What a replay is given.
pub struct Replay {
    /// The file that `opsh journal export` was written to.
    pub file: PathBuf,
    /// True when it may be recorded, in a folder that was named for it.
    pub record: bool,
    /// Which effect fails, whatever it did then.
    pub fail_at: Option<FailAt>,
    /// What somebody types besides what was typed then is no difference.
    pub patient: bool,
}

/// Bytes of a recording; in memory it takes several times as much.
const LONGEST_RECORDING: u64 = 128 << 20;

#[expect(clippy::disallowed_methods, reason = "the recording stands in place of the world")]
fn recording(path: &Path) -> Result<Recording> {
    let name = path.display().to_string();
    let text = std::fs::File::open(path).and_then(|file| whole::text_in(file, LONGEST_RECORDING));
    let text = text.map_err(|error| {
        Error::new(Kind::Usage, format!("recording {name} cannot be read"), error.to_string())
            .next("opsh journal export RUN > FILE     makes one")
    })?;
    Recording::parse(&name, &text)
}

/// A script that is about to run.
struct Script {
    /// As the operator wrote its path.
    name: String,
    /// Its absolute path.
    file: PathBuf,
    text: String,
    args: Args,
}

/// Exit codes 2 and 3 promise that nothing was done: an error after a change has neither.
fn promised(error: Error, gate: &Gate) -> Error {
    let breaks = matches!(error.kind, Kind::Usage | Kind::Refused) && gate.has_changed();
    Error { kind: if breaks { Kind::Failed } else { error.kind }, ..error }
}

/// The text of a script. Fails with `usage` when it cannot be read.
pub fn text_of(path: &Path) -> Result<String> {
    source_of(path).map(|(text, _)| text)
}

/// The same, and where it comes from.
fn source_of(path: &Path) -> Result<(String, Origin)> {
    if let Some((_, text)) = built_in::in_place_of(path) {
        return Ok((text.into(), Origin::Typed));
    }
    built_in::refuse_strangers(path)?;
    sources::read(path).map_err(|error| unreadable(path, &error))
}

/// The text on standard input. Fails with `usage` when it cannot be read.
pub fn text_of_stdin() -> Result<String> {
    whole::text_in(std::io::stdin(), sources::LONGEST)
        .map_err(|error| Error::new(Kind::Usage, "standard input cannot be read", error.to_string()))
}

/// The text of a script that is looked through or tested, and that a walk through folders may have found: a plain file.
pub fn text_of_plain(path: &Path, link: Link) -> Result<String> {
    if let Some((_, text)) = built_in::in_place_of(path) {
        return Ok(text.into());
    }
    built_in::refuse_strangers(path)?;
    whole::text(path, link, sources::LONGEST).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(Kind::Usage, format!("script {} cannot be read", path.display()), error.to_string())
        .next("opsh help     commands and verbs")
}

/// Where the script is, for a run that goes on with it from another folder.
fn file_of(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Names of the functions in a script's text, in their order, with how many parameters each has. Fails with why it does not
/// parse.
pub fn functions_of(text: &str) -> std::result::Result<Vec<(String, usize)>, String> {
    let ast = engine::parser().compile(sources::code(text)).map_err(|error| error.to_string())?;
    let place = |name: &str| text.find(&format!("fn {name}")).unwrap_or(usize::MAX);
    let named = ast.iter_functions().filter(|function| !function.name.contains('$'));
    let mut names: Vec<_> = named.map(|function| (function.name.to_string(), function.params.len())).collect();
    names.sort_by_key(|(name, _)| place(name));
    Ok(names)
}

/// The value of what was evaluated. Fails as it did, with another exit code than 0, and for a value that is too large to show.
fn value_of(result: RhaiResult, name: &str) -> Result<Dynamic> {
    match ExitCode::of(&result) {
        Some(exit) if exit.code == 0 => return Ok(Dynamic::UNIT),
        Some(exit) => return Err(exit.error(name)),
        None => {}
    }
    let value = result.map_err(|error| engine::errors::translate(&error, name))?;
    values::check_size(&value)?;
    Ok(value)
}

/// Why something that was typed is not performed.
const MARKED: &str =
    "a mark (•••#…) stands in it, which opsh shows in place of a secret: have it read the secret where it is";

/// An engine with its variables, functions and door.
pub struct Session {
    engine: Engine,
    world: Rc<World>,
    scope: Scope<'static>,
    functions: AST,
    lines: usize,
    /// A line ended opsh, and with what exit code.
    exited: Option<ExitCode>,
    sitting: Sitting,
}

impl Session {
    /// A session that writes to `screen`.
    pub fn new(options: Options, screen: Rc<Screen>) -> Result<Session> {
        memory::set_most(options.config.memory_bytes());
        let names = &options.config.redact().names;
        redact::add_names(names).map_err(|why| Error::new(Kind::Usage, "redact.names is not valid", why))?;
        redact::add_plain(&bind::all().map(|binding| binding.verb().name).collect::<Vec<_>>());
        redact::add_plain(&options.config.shown_names());
        if let Some(zone) = options.config.timezone() {
            screen.set_zone(zone).map_err(|why| Error::new(Kind::Usage, "screen.timezone is not valid", why))?;
        }
        // Before the thread that does the work is started.
        secret::take_variables(&options.config);
        let state = State::at(options.state_dir.clone());
        let is_used = options.replay.as_ref().is_none_or(|replay| replay.record);
        if let Some(fault) = state.fault().filter(|_| is_used) {
            screen.alarm(&format!("{fault}. The host keys and the history there are not used, and none are kept."));
        }
        let gate = match &options.replay {
            None => {
                // Known before the first line is shown or recorded, although the login that needs them comes later.
                for (_, from) in options.config.secrets() {
                    let _ = secret::look(from);
                }
                let ledger = Ledger::open(&options.state_dir, options.spill, &screen);
                Gate::new(options.mode, options.grants, ledger, screen)?
            }
            Some(replay) => {
                let ledger = match replay.record {
                    true => Ledger::of_replay(&options.state_dir, &screen),
                    false => Ledger::in_memory(&screen),
                };
                let mut recording = recording(&replay.file)?;
                (recording.fail_at, recording.patient) = (replay.fail_at, replay.patient);
                // Equal values have equal tags each time.
                redact::salt_with(recording.run.as_bytes());
                Gate::replay(recording, ledger, screen)?
            }
        };
        if options.replay.is_none() {
            lesson::of_files_here(&gate, options.config.stacks_on(LOCAL).cloned().collect());
        }
        let limits = options.config.limits();
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        gate.set_limits(Limits { connect: seconds(limits.connect_s), most: limits.deadline_s.map(seconds) });
        let world = Rc::new(World {
            gate,
            config: options.config,
            sources: Sources::default(),
            state,
            args: Default::default(),
            ways: Default::default(),
            composes: Default::default(),
            finished: Default::default(),
            locks: Default::default(),
            briefly: Default::default(),
            told: Default::default(),
            busy: Default::default(),
            own_runs: Default::default(),
            git_is_slow: Default::default(),
        });
        Ok(Session::around(world))
    }

    /// Texts of scripts and lines, for showing errors.
    pub fn sources(&self) -> &Sources {
        &self.world.sources
    }

    /// What outlives a line.
    pub fn world(&self) -> &Rc<World> {
        &self.world
    }

    /// The door.
    pub fn gate(&self) -> &Gate {
        &self.world.gate
    }

    /// Evaluates one line or block. Variables and functions live on; a line that fails keeps what it had set before.
    pub fn eval(&mut self, code: &str) -> Result<Value> {
        self.lines += 1;
        let name = format!("line {}", self.lines);
        self.world.sources.put(&name, code, Origin::Typed);
        // A line that was copied from the screen, the history or a record. A replay performs it as it was recorded.
        if redact::has_mark(code) && !self.gate().is_replay() {
            return Err(Error::new(Kind::Usage, "the line was not performed", MARKED));
        }
        let mut ast =
            self.engine.compile_with_scope(&self.scope, code).map_err(|error| engine::unparsable(&name, &error))?;
        ast.set_source(name.as_str());
        if let Err(error) = self.keep_imports(&ast) {
            self.exited = ExitCode::of_error(&error);
            return value_of(Err(error), &name).map(|value| values::to_json(&value));
        }
        let mut all = self.functions.clone();
        all += ast;
        all.set_source(name.as_str());
        let result = engine::run(&self.engine, &mut self.scope, &all);
        all.clear_statements();
        self.functions = all;
        self.scope = self.scope.clone_visible();
        self.exited = ExitCode::of(&result);
        if result.is_err() {
            self.relieve();
        }
        let value = value_of(result, &name)?;
        if !value.is_unit() {
            self.scope.set_or_push("it", value.clone());
        }
        Ok(values::to_json(&value))
    }

    /// Imports live in the state of one evaluation; as static modules they live as long as the session.
    fn keep_imports(&mut self, ast: &AST) -> std::result::Result<(), Box<rhai::EvalAltResult>> {
        for statement in ast.statements() {
            let Stmt::Import(import, position) = statement else { continue };
            let Expr::StringConstant(path, _) = &import.0 else { continue };
            let module = self.engine.module_resolver().resolve(&self.engine, None, path, *position)?;
            self.engine.register_static_module(import.1.name.as_str(), module);
        }
        Ok(())
    }

    /// Evaluates `code` as a run of its own: `opsh -e CODE`.
    pub fn run_code(&mut self, code: &str) -> Result<Value> {
        self.world.gate.begin_run(&format!("-e {code}"), self.facts())?;
        let result = self.eval(code);
        self.ended(result)
    }

    /// Names in the record mean what this configuration says they mean.
    fn facts(&self) -> Value {
        json!({ "config": self.world.config.path, "found": self.world.config.found_at(), "dir": self.world.gate.dir() })
    }

    /// Ends the run, and says with an error how to go back or on. In a replay the first thing that differs is its
    /// result, whatever the script made of it.
    fn ended<T>(&self, result: Result<T>) -> Result<T> {
        let result = self.world.gate.divergence(result.is_ok()).map_or(result, Err);
        lock::leave(&self.world, result.as_ref().err());
        self.world.gate.end_run(result.as_ref().err());
        result.map_err(|error| self.with_next(self.with_ways(promised(error, &self.world.gate))))
    }

    /// An error that names nothing to type next: what the run did and saw is where to look, unless it is the line that
    /// is to be corrected.
    fn with_next(&self, error: Error) -> Error {
        if !error.next.is_empty() || error.kind == Kind::Usage || self.world.gate.effects() == 0 {
            return error;
        }
        let line = format!("opsh journal show {}     what this run did and saw", self.world.gate.run_id());
        error.next(line)
    }

    /// True when the last line ended opsh: `exit(N)`.
    pub fn has_exited(&self) -> bool {
        self.exited.is_some()
    }

    /// How a sitting ends whose last line ended opsh: with an error, unless its exit code is 0.
    pub fn exit_result(&self) -> Result<()> {
        match &self.exited {
            Some(exit) if exit.code != 0 => Err(exit.error(&format!("line {}", self.lines))),
            _ => Ok(()),
        }
    }

    /// Runs a script file with its arguments. What opsh says to type about a script that is built in works wherever it is.
    pub fn run_script(&mut self, path: &Path, argv: &[String]) -> Result<Value> {
        if let Some((name, _)) = built_in::in_place_of(path) {
            self.gate().screen().warn(&format!("{} is not here: the one that is built in runs", path.display()));
            return self.run_built_in(name, argv);
        }
        self.run_text(path.display().to_string(), file_of(path), source_of(path)?, argv)
    }

    /// Runs a script that is built in. Fails with `not_found` for another name.
    pub fn run_built_in(&mut self, name: &str, argv: &[String]) -> Result<Value> {
        let unknown = || Error::new(Kind::NotFound, format!("no script \"{name}\" is built in"), "opsh has others");
        let (name, text) = built_in::find(name).ok_or_else(unknown)?;
        self.run_text(name.into(), PathBuf::from(name), (text.into(), Origin::Typed), argv)
    }

    fn run_text(&mut self, name: String, file: PathBuf, source: (String, Origin), argv: &[String]) -> Result<Value> {
        let (text, origin) = source;
        self.world.sources.put(&name, &text, origin);
        let header = Header::parse(&text);
        if argv.iter().any(|word| word == "--help" || word == "-h") {
            self.world.gate.screen().print(&header.help(&name));
            return Ok(Value::Null);
        }
        if argv.iter().any(|word| redact::has_mark(word)) && !self.gate().is_replay() {
            return Err(Error::new(Kind::Usage, format!("{name} was not run"), MARKED));
        }
        let args = header.check(&name, argv)?;
        self.run_compiled(Script { file, name, text, args }, &[])
    }

    /// Runs the built-in doctor: of this stack, else of the only one in opsh.toml, else of `prod`. Fails with `usage` when
    /// there is none of these.
    pub fn doctor(&mut self, stack: Option<String>, tag: Option<String>) -> Result<Value> {
        let known: Vec<&str> = self.world.config.stack_names().collect();
        let prod = || known.iter().find(|name| **name == "prod").map(ToString::to_string);
        let Some(stack) = stack.or_else(|| self.only_stack()).or_else(prod) else {
            let why = match known.is_empty() {
                true => "no opsh.toml here or above names a stack".into(),
                false => format!("none was named, and there are {}", known.join(", ")),
            };
            return Err(Error::new(Kind::Usage, "nothing was looked at", why)
                .next("opsh doctor STACK     one of opsh.toml")
                .next("opsh USER@HOST     finds the stacks on a host; then doctor"));
        };
        let mut argv = vec![stack];
        argv.extend(tag.map(|tag| format!("--tag={tag}")));
        self.run_built_in("doctor", &argv)
    }

    /// The stack of an opsh.toml that has one.
    fn only_stack(&self) -> Option<String> {
        let mut names = self.world.config.stack_names();
        names.next().filter(|_| names.next().is_none()).map(String::from)
    }

    /// Runs a script; `chain` are the runs that it goes on with, newest first.
    fn run_compiled(&mut self, script: Script, chain: &[Story]) -> Result<Value> {
        let Script { name, text, file, args } = &script;
        let mut ast = self.engine.compile(sources::code(text)).map_err(|error| engine::unparsable(name, &error))?;
        ast.set_source(name.as_str());
        let facts = json!({
            "script": name, "file": file, "sha256": provenance::digest(text), "words": args.words, "options": args.options,
            "flags": args.flags, "dir": self.world.gate.dir(), "config": self.world.config.path, "found": self.world.config.found_at(), "resumes": chain.first().map(|story| &story.run),
        });
        // Not the options: what a flag agrees to tells runs apart, and a value may be for nobody to see.
        let flags = args.flags.iter().map(|flag| format!("--{flag}"));
        let what = std::iter::once(name).chain(&args.words).cloned().chain(flags).collect::<Vec<_>>().join(" ");
        *self.world.args.borrow_mut() = args.clone();
        self.world.gate.begin_run(&what, facts)?;
        let is_built_in = built_in::find(&file.to_string_lossy()).is_some();
        provenance::note(&self.world, "script", name, Some(file.as_path()).filter(|_| !is_built_in), text);
        let (scope, result) = match self.take_up(chain) {
            Ok(()) => self.attempt(&script, &ast),
            Err(error) => (Scope::new(), Err(error)),
        };
        let result = self.ended_or_waits(script, ast, scope, result);
        if result.is_ok() && !chain.is_empty() {
            let runs: Vec<String> = chain.iter().map(|story| story.run.clone()).collect();
            let targets = chain.iter().flat_map(|story| &story.changes).map(|change| change.target.clone()).collect();
            lock::settle_runs(&self.world, &runs, targets, &format!("resumed by run {}", self.world.gate.run_id()));
        }
        result
    }

    /// One attempt of the run that goes on, and the variables that it left.
    fn attempt(&mut self, script: &Script, ast: &AST) -> (Scope<'static>, Result<Value>) {
        let mut scope = Scope::new();
        let result = engine::run(&self.engine, &mut scope, ast);
        let result = value_of(result, &script.name).map(|value| values::to_json(&value));
        self.world.finished.borrow_mut().clear();
        (scope, result)
    }
}
