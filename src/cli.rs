//! The command line: flags, commands and exit codes. Home of `clap`.

mod demo;
mod hosts;
mod journal;
mod lint;
mod runs;
mod secret;
mod test;

use crate::config::Config;
use crate::error::{Error, Kind, Result, suggestion};
use crate::gate::Grants;
use crate::gate::journal::Story;
use crate::gate::policy::Mode;
use crate::gate::replay::FailAt;
use crate::screen::{self, Options as ScreenOptions, Screen, Written};
use crate::session::discover::Place;
use crate::session::plugin::Plugin;
use crate::session::{self, Busy, Options, Replay, Session, calm_error, doc, help};
use crate::sources::Sources;
use crate::whole::Link;
use crate::{shell, shield};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// An ops shell: ssh, docker, git and migrations as short scripts that probe, plan, record and can go back.
#[derive(Parser, Debug)]
#[command(name = "opsh", version, disable_help_subcommand = true, subcommand_negates_reqs = true)]
#[command(override_usage = "opsh [OPTIONS]                    the shell
       opsh [OPTIONS] USER@HOST[:PORT]   the shell on a host that no opsh.toml names
       opsh [OPTIONS] SCRIPT [ARGS…]     run a script (opsh SCRIPT --help shows its header)
       opsh [OPTIONS] -e CODE            evaluate one line
       opsh doctor [STACK]               is it well, and what to type where it is not
       opsh help [VERB]                  every verb, or one of them
       opsh doc [VERB]                   the same as Markdown")]
struct Cli {
    /// Evaluate CODE and print its value
    #[arg(short, value_name = "CODE")]
    eval: Option<String>,
    /// Lines of FILE as if they were typed at the prompt
    #[arg(long, value_name = "FILE", conflicts_with = "eval")]
    typed: Option<PathBuf>,
    /// Print the changes instead of performing them; reads are real
    #[arg(long, conflicts_with = "observe")]
    plan: bool,
    /// Refuse every change
    #[arg(long)]
    observe: bool,
    /// Agree to changes beforehand (not to losing data or service)
    #[arg(long)]
    yes: bool,
    /// Agree beforehand to this verb, which loses data or service; may be given several times
    #[arg(long, value_name = "VERB")]
    allow: Vec<String>,
    /// Agree beforehand to changes although HOLDER, as opsh names them, has the lock; may be given several times
    #[arg(long, value_name = "HOLDER")]
    under_lock_of: Vec<String>,
    /// Let an exported run answer in place of the world; nothing is reached or changed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["plan", "observe", "yes", "allow", "under_lock_of"])]
    replay: Option<PathBuf>,
    /// In a replay let the effect with this number fail, from 1; after:N is for what comes after a run that failed when it
    /// had made N changes
    #[arg(long, value_name = "N")]
    fail_at: Option<FailAt>,
    /// Agree beforehand to record into a spill file when the journal cannot be written
    #[arg(long)]
    spill: bool,
    /// Values as JSON lines on standard output, errors as one JSON object on standard error
    #[arg(long)]
    json: bool,
    /// Configuration file instead of the nearest opsh.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the journal and known hosts instead of $XDG_STATE_HOME/opsh
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Every verb, or what one of them does
    Help {
        /// `docker.restart`, or a system such as `docker`
        name: Option<String>,
    },
    /// The reference as Markdown: everything, a system, or one verb or function
    Doc {
        /// `docker.restart`, or a system such as `docker`
        name: Option<String>,
    },
    /// Is the stack well, and what to type where it is not: the first thing to type at 03:00
    Doctor {
        /// Its name in opsh.toml; the only one there, or prod, when not given
        stack: Option<String>,
        /// Is it ready for this release, too?
        #[arg(long)]
        tag: Option<String>,
    },
    /// What was done: list, show RUN, settle RUN SAW, verify, export RUN, prune
    #[command(subcommand)]
    Journal(journal::Command),
    /// The newest runs, how they ended, and what to type about those that need attention
    Runs(runs::Runs),
    /// Take back what a run did, newest first, when it is still so
    Undo(runs::Undo),
    /// Go on with a script that did not end well, without the steps that were finished
    Resume(runs::Resume),
    /// Wait for work that goes on on the hosts, whoever began it; without RUN list it
    Attach {
        /// A run's id, or the end of it
        run: Option<String>,
    },
    /// Go through an incident, from a recording: nothing is reached or changed
    Demo(demo::Demo),
    /// Run the cases and *_test.rhai files: nothing is reached or changed
    Test(test::Test),
    /// What is wrong with scripts, without running a line of them
    Lint(lint::Lint),
    /// Host keys: adopt NAME
    #[command(subcommand)]
    Host(hosts::Command),
    /// Would this value be hidden? check (the value on standard input, never as an argument)
    Secret {
        // Read by secret.rs: clap would repeat an unknown word, and it may be the value.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "check")]
        words: Vec<String>,
    },
    /// A script and its arguments
    #[command(external_subcommand)]
    Script(Vec<String>),
}

impl Command {
    /// The words of a command that changes something, whatever mode is given. The changes of the others pass the gate, which
    /// knows the mode; or there are none.
    fn knows_no_mode(&self) -> Option<&'static str> {
        match self {
            Command::Help { .. } | Command::Doc { .. } | Command::Runs(_) | Command::Demo(_) | Command::Lint(_) => None,
            Command::Doctor { .. } | Command::Host(_) | Command::Secret { .. } | Command::Undo(_) => None,
            Command::Script(_) => None,
            // These say themselves why they take no mode.
            Command::Test(_) | Command::Resume(_) => None,
            Command::Journal(command) => command.changes(),
            // It records in the journal how the work ended; without a run it only lists.
            Command::Attach { run } => run.as_ref().map(|_| "attach RUN"),
        }
    }
}

/// Bytes of the engine's stack. A script may nest 128 calls, each of a body as deep as the parser accepts; with less, such a
/// script ends the program, and no guard goes back. Only the part that is used costs memory.
const STACK: usize = 512 << 20;

/// Runs the command line; returns the exit code.
pub fn main() -> u8 {
    let engine = std::thread::Builder::new().name("opsh".into()).stack_size(STACK).spawn(run_command_line);
    screen::leave_stopping_to_others();
    match engine.map(std::thread::JoinHandle::join) {
        Ok(Ok(code)) => code,
        _ => 1,
    }
}

/// Parses the command line, runs it, shows its error.
fn run_command_line() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            let _ = error.print();
            return 2;
        }
        Err(help) => {
            let screen = Screen::new(ScreenOptions::detect(false));
            screen.raw(help.render().to_string().trim_end());
            return ended(&screen, 0, 1);
        }
    };
    let screen = Rc::new(Screen::new(ScreenOptions::detect(cli.json)));
    silence_panics(&screen);
    let is_check = plugin(&cli).is_some();
    let code = run_and_say(cli, &screen);
    // A check whose line was not written says nothing of what it checks.
    ended(&screen, code, if is_check { 3 } else { 1 })
}

/// The exit code, when it is known whether all that was written is there: `code`, or `cut` in place of success.
fn ended(screen: &Screen, code: u8, cut: u8) -> u8 {
    /// As of a program that the signal of a closed pipe ends.
    const PIPE: u8 = 128 + 13;
    let code_of_loss = match screen.written() {
        Written::Whole => return code,
        Written::Closed => PIPE,
        Written::Cut(error) => {
            screen.error(&error, &Sources::default());
            cut
        }
    };
    if code == 0 { code_of_loss } else { code }
}

/// Runs the command line and shows how it ended.
fn run_and_say(cli: Cli, screen: &Rc<Screen>) -> u8 {
    let (mut left, plugin) = (Left::default(), plugin(&cli));
    let result = run(cli, screen, &mut left);
    let failed = result.is_err();
    let said = match (result, plugin) {
        (Ok(()), None) => return 0,
        (Ok(()), Some(plugin)) => plugin.result(&left.value),
        (Err(error), plugin) => {
            let error = calm_error(error, &left.busy);
            screen.error(&error, &left.sources);
            let Some(plugin) = plugin else { return error.exit_code() };
            plugin.failure(&error)
        }
    };
    // A result was shown as JSON already.
    match (screen.options().json, failed) {
        (true, true) => screen.value(&json!({ "state": said.state(), "text": said.text })),
        (true, false) => {}
        (false, _) => screen.raw(&said.text),
    }
    said.code
}

/// What is left of a command line that was run.
#[derive(Default)]
struct Left {
    /// Texts of scripts and lines, for showing an error.
    sources: Sources,
    /// Where somebody else works.
    busy: Busy,
    /// What its script returned.
    value: Value,
}

/// The check that the command line runs. It is looked for before anything can fail: what fails then is a state, too.
fn plugin(cli: &Cli) -> Option<Plugin> {
    match &cli.command {
        Some(Command::Script(words)) if !words.iter().any(|word| word == "--help" || word == "-h") => {
            Plugin::at(Path::new(words.first()?))
        }
        _ => None,
    }
}

/// A panic is a bug; its text passes the same sink as everything else.
fn silence_panics(screen: &Rc<Screen>) {
    let options = screen.options();
    std::panic::set_hook(Box::new(move |info| {
        let said = info.to_string();
        if !shield::keeps(&said) {
            Screen::new(options).error(&shield::bug(&said), &Sources::default());
        }
    }));
}

fn run(mut cli: Cli, screen: &Rc<Screen>, left: &mut Left) -> Result<()> {
    let state_dir = match &cli.state_dir {
        // ssh needs absolute paths of the files in it.
        Some(dir) => working_dir().join(dir),
        None => default_state_dir()?,
    };
    if let Some(Command::Test(_)) = &cli.command
        && (cli.config.is_some() || cli.replay.is_some() || cli.plan || cli.observe || cli.yes || cli.typed.is_some())
    {
        let why = "each test has a recording and a configuration of its own";
        return Err(Error::new(Kind::Usage, "nothing was tested", why).next("opsh test --help     what it takes"));
    }
    agree(&mut cli);
    let mode = match (cli.plan, cli.observe) {
        (true, _) => Mode::Plan,
        (_, true) => Mode::Observe,
        _ => Mode::Apply,
    };
    if let (Some(command), true) = (cli.command.as_ref().and_then(Command::knows_no_mode), mode != Mode::Apply) {
        return Err(Error::new(
            Kind::Usage,
            "nothing was done",
            format!("opsh {command} cannot be run with --{}: it always does what it says", mode.word()),
        )
        .next(format!("opsh {command} …     without --{}", mode.word())));
    }
    if let Some(Command::Journal(_) | Command::Runs(_)) = &cli.command {
        in_configured_zone(cli.config.as_deref(), screen);
    }
    match cli.command {
        Some(Command::Help { name }) => return help::show(screen, name.as_deref()),
        Some(Command::Doc { name }) => return doc::markdown(name.as_deref()).map(|text| screen.raw(text.trim_end())),
        Some(Command::Journal(command)) => {
            let settled = command.settles();
            journal::run(command, &state_dir, screen)?;
            if let Some((run, saw)) = settled {
                settle_beside(&run, &saw, cli.config.as_deref(), state_dir, screen);
            }
            return Ok(());
        }
        Some(Command::Secret { words }) => return secret::run(&words, &configuration(cli.config.as_deref())?, screen),
        Some(Command::Runs(command)) => return runs::list(&command, &state_dir, screen),
        Some(Command::Test(command)) => return test::run(&command, screen),
        Some(Command::Demo(command)) => return demo::run(&command, screen),
        // Of hosts there is nothing to ask, so nothing to record.
        Some(Command::Lint(command)) if configuration(cli.config.as_deref())?.host_names().next().is_none() => {
            return lint::run(&command, || Ok(Vec::new()), screen);
        }
        _ => {}
    }
    if cli.typed.is_some() && cli.command.is_some() {
        return Err(Error::new(Kind::Usage, "nothing was run", "--typed is in place of a script or command"));
    }
    if cli.fail_at.is_some() && cli.replay.is_none() {
        return Err(Error::new(Kind::Usage, "nothing was run", "--fail-at is for a replay")
            .next("opsh --replay FILE --fail-at N …     lets effect N of it fail"));
    }
    for name in &cli.allow {
        help::check_verb(name)?;
    }
    let story = match &cli.command {
        Some(Command::Resume(resume)) => {
            resumes_as_begun(&resume.run, mode == Mode::Apply, mode.word())?;
            Some(runs::to_resume(&resume.run, &state_dir)?)
        }
        Some(Command::Undo(undo)) => Some(runs::to_undo(&undo.run, &state_dir, cli.replay.is_some())?),
        _ => None,
    };
    let place = match &cli.command {
        Some(Command::Script(words)) if words.len() == 1 && cli.config.is_none() => Place::parse(&words[0]),
        _ => None,
    };
    let config = match (&story, &place) {
        (Some(story), _) if cli.config.is_none() => recorded_config(story, &cli.command, &state_dir)?,
        (_, Some(place)) => place.config(&Value::Null)?,
        _ => configuration(cli.config.as_deref())?,
    };
    if let (Some(Command::Resume(resume)), Some(story)) = (&cli.command, &story) {
        resumes_as_begun(&resume.run, json!(config.path) == story.facts["config"], "config")?;
    }
    let grants = Grants { yes: cli.yes, allow: cli.allow, under: cli.under_lock_of };
    let replay =
        cli.replay.map(|file| Replay { file, record: cli.state_dir.is_some(), fail_at: cli.fail_at, patient: false });
    let replays = replay.is_some();
    let options = Options { mode, grants, config, state_dir, spill: cli.spill, replay };
    let mut session = Session::new(options, Rc::clone(screen))?;
    (left.sources, left.busy) = (session.sources().clone(), Rc::clone(&session.world().busy));
    if !replays {
        unsettled(&session, screen);
    }
    if let (Some(place), false) = (place, replays) {
        session = found_at(session, place)?;
        return match cli.eval {
            Some(code) => session.run_code(&code).map(|value| screen.value(&value)),
            None => shell::run(&mut session),
        };
    }
    match (cli.command, cli.eval) {
        (Some(Command::Host(command)), _) => hosts::run(&command, &mut session),
        (Some(Command::Lint(command)), _) => lint::run(&command, || session.lint_hosts(), screen),
        (Some(Command::Doctor { stack, tag }), _) => {
            session.doctor(stack, tag).map(|report| show_value(screen, &report))
        }
        (Some(Command::Attach { run }), _) => session.attach(run.as_deref()),
        (Some(Command::Undo(undo)), _) => session.undo(found(story)?, undo.partly),
        (Some(Command::Resume(resume)), _) => {
            session.resume(found(story)?, resume.changed_script).map(|value| show_value(screen, &value))
        }
        (Some(Command::Script(words)), _) => {
            left.value = run_script(&mut session, screen, &words)?;
            Ok(())
        }
        (_, Some(code)) => session.run_code(&code).map(|value| screen.value(&value)),
        _ => match cli.typed {
            Some(file) => shell::type_lines(&mut session, &session::text_of_plain(&file, Link::Followed)?),
            None => shell::run(&mut session),
        },
    }
}

/// The session with the stacks that are on a host. At a terminal a key that is not known is shown to the person, and a
/// password is asked for when no key of theirs is accepted.
fn found_at(mut session: Session, mut place: Place) -> Result<Session> {
    let terminal = session.gate().screen().options().terminal;
    let mut found = session.discover(&place);
    if terminal && found.as_ref().is_err_and(|error| is_unknown_key(error, &place.name)) {
        hosts::adopt_first(&session, &place.name)?;
        found = session.discover(&place);
    }
    if terminal && found.as_ref().is_err_and(|error| error.kind == Kind::Denied && !is_about_key(error)) {
        session = session.with_password(&mut place)?;
        found = session.discover(&place);
    }
    session.with_config(found?)
}

fn is_about_key(error: &Error) -> bool {
    error.next.iter().any(|line| line.starts_with("opsh host adopt "))
}

/// Whether it is the key of this host that is not known, and not that of a jump host before it.
fn is_unknown_key(error: &Error, name: &str) -> bool {
    error.next.iter().any(|line| *line == format!("opsh host adopt {name}"))
}

/// What a command agrees to is what the whole command line agrees to.
fn agree(cli: &mut Cli) {
    let (agreed, plan) = match &cli.command {
        Some(Command::Undo(undo)) => (undo.agreed.clone(), undo.plan),
        Some(Command::Resume(resume)) => (resume.agreed.clone(), false),
        _ => return,
    };
    cli.yes |= agreed.yes;
    cli.plan |= plan;
    cli.allow.extend(agreed.allow);
    cli.under_lock_of.extend(agreed.under_lock_of);
}

/// Colleagues need what a person saw of a run, too: closes what it began on its stacks, as far as an opsh.toml names them.
fn settle_beside(run: &str, saw: &str, config: Option<&Path>, state_dir: PathBuf, screen: &Rc<Screen>) {
    let Ok(config) = configuration(config) else { return };
    let (mode, grants) = (Mode::Apply, Grants::default());
    let options = Options { mode, grants, config, state_dir, spill: false, replay: None };
    if let Ok(session) = Session::new(options, Rc::clone(screen)) {
        session.settle_beside(run, saw);
    }
}

/// The configuration of a run that is to be undone or resumed. Fails when a name that it used means something else by now.
fn recorded_config(story: &Story, command: &Option<Command>, state_dir: &Path) -> Result<Config> {
    let config = runs::config_of(story)?;
    match command {
        Some(Command::Resume(_)) => {
            let chain = runs::chain(story.clone(), state_dir)?;
            chain
                .iter()
                .try_for_each(|story| session::undo::refuse_other_meaning(&config, story, "resumed", "resume"))?;
        }
        _ => session::undo::refuse_other_meaning(&config, story, "undone", "undo")?,
    }
    Ok(config)
}

/// The run was looked up before its configuration was read.
fn found(story: Option<Story>) -> Result<Story> {
    story.ok_or_else(|| Error::new(Kind::Usage, "no run", "none was named"))
}

/// A run goes on in the mode and with the configuration that it was begun with.
fn resumes_as_begun(run: &str, same: bool, flag: &str) -> Result<()> {
    if same {
        return Ok(());
    }
    let why = format!("--{flag} was given, and a run goes on in the mode and with the configuration it was begun with");
    Err(Error::new(Kind::Usage, format!("run {run} was not resumed"), why)
        .next(format!("opsh resume {run}     without it")))
}

fn show_value(screen: &Screen, value: &Value) {
    if screen.options().json {
        screen.value(value);
    }
}

fn run_script(session: &mut Session, screen: &Screen, words: &[String]) -> Result<Value> {
    let (script, argv) = words.split_first().ok_or_else(|| Error::new(Kind::Usage, "no script", "none was named"))?;
    if !script.contains(['/', '.']) && !Path::new(script).exists() {
        let commands = [
            "help", "doc", "doctor", "journal", "runs", "undo", "resume", "attach", "demo", "test", "lint", "host",
            "secret",
        ];
        let why = format!("it is neither a command nor a script; {}", suggestion(script, commands));
        let error = Error::new(Kind::Usage, format!("no command \"{script}\""), why);
        let path = format!("scripts/{script}.rhai");
        let meant = (Path::new(&path).exists() || session::built_in::in_place_of(Path::new(&path)).is_some())
            .then(|| format!("opsh {path} {}     run that script", argv.join(" ")));
        return Err(error.next(meant.unwrap_or_else(|| "opsh --help     commands and options".into())));
    }
    let value = session.run_script(Path::new(script), argv)?;
    show_value(screen, &value);
    Ok(value)
}

/// What an earlier opsh began and did not end: it may have happened.
fn unsettled(session: &Session, screen: &Screen) {
    let Ok(open) = session.gate().journal().and_then(|journal| journal.unsettled()) else { return };
    if open.len() > 3 {
        screen.warn(&format!("{} changes may have happened; the newest:", open.len()));
    }
    for entry in open.iter().take(3) {
        let text = |key: &str| entry.body.get(key).and_then(|value| value.as_str()).unwrap_or("").to_string();
        let target = entry.target.as_deref().unwrap_or("?");
        let says = screen::one_line(&text("says"));
        screen.warn(&format!("may have happened: {} on {target}  {says}", text("verb")));
        if entry.body.get("lives").is_some() {
            screen.say(&format!("  its host knows: opsh attach {}", entry.run));
        }
        screen.say(&format!("  look, then say it: opsh journal settle {} \"WHAT YOU SAW\"", entry.run));
    }
    if !open.is_empty() {
        screen.say("  opsh runs     what to type about each run");
    }
}

/// The record is looked at whatever opsh.toml is like.
fn in_configured_zone(path: Option<&Path>, screen: &Screen) {
    if let Some(zone) = configuration(path).ok().as_ref().and_then(Config::timezone) {
        screen.set_zone(zone).unwrap_or_else(|why| screen.warn(&format!("screen.timezone is not valid: {why}")));
    }
}

fn configuration(path: Option<&Path>) -> Result<Config> {
    Config::load(path, &working_dir())
}

#[expect(clippy::disallowed_methods, reason = "where the program was started")]
fn working_dir() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."))
}

#[expect(clippy::disallowed_methods, reason = "where the user keeps state")]
fn default_state_dir() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_STATE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("opsh"))
        .ok_or_else(|| {
            Error::new(Kind::Usage, "no folder for the journal", "neither XDG_STATE_HOME nor HOME is set")
                .next("opsh --state-dir DIR …     name one")
        })
}
