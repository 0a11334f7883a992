//! Hosts: words on this machine or over ssh, logins, host keys.

mod reads;

use super::fleet::Each;
use super::function::Function;
use super::ssh::{self, Command, Durable, Finished, HostKey, Outcome, Reach};
use super::undo::inverse;
use super::values::literal;
use super::{Binding, Call, Change, Look, Receipt, World, git};
use crate::config::{Host, LOCAL};
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Done, Lives, Pass, Target};
use crate::redact;
use rhai::{Engine, EvalAltResult, NativeCallContext};
use serde::Deserialize;
use serde_json::{Value, json};
use std::rc::Rc;
use std::sync::Arc;

/// Bytes of each output stream that a script gets: half from the beginning, half from the end.
pub const KEEP: usize = 1 << 20;

const CONNECT: Verb = Verb {
    name: "host.connect",
    class: Class::Read,
    waits: false,
    sig: "host.connect(options?: #{ partial: bool }) -> map",
    doc: "Logs in, if that was not done yet. One login per host serves everything else. Returns the host's name. \
          Fails with `unreachable`, or `denied` when the key, the password or the host key is not accepted; a wrong \
          password is tried once. Deadline 60 s. On `hosts(…)` as `host.read`.",
    example: r#"host("prod-1").connect()"#,
};

const READ: Verb = Verb {
    name: "host.read",
    class: Class::Read,
    waits: false,
    sig: "host.read(words: array, options?: #{ within_s: int, check: bool, dir: string, partial: bool }) -> map",
    doc: "Runs a program that only looks. The list of reads says per program (`df`, `cat`, `git status`, …) which options \
          and operands change nothing; long options are written out. Every other word is refused with `usage`, which \
          names it: use `host.run`. Of git, nothing runs that the repository's own settings name. Options: `within_s` (1 to 3600, default 60), `check` \
          (default true: an exit code other than 0 fails with `failed`), `dir`, `partial`. Returns `code`, `out`, \
          `err`, of which 1 MiB each is kept. Deadline 60 s, or `within_s`. On `hosts(…)` it runs on all, 16 at a time, \
          and returns a list in order, each with its `host`; when some failed, the error's `results` is a list of \
          `#{ host, ok, value }` and `#{ host, ok, error }`, which `partial: true` returns instead of failing.",
    example: r#"host("prod-1").read(["df", "-P", "/"]).out"#,
};

const RUN: Verb = Verb {
    name: "host.run",
    class: Class::Change,
    waits: false,
    sig: "host.run(words: array, options?: #{ within_s: int, dir: string, undo: string, batch: int }) -> receipt",
    doc: "Runs a program and waits for its end. It runs detached on the host, so that it goes on when the link is \
          lost. Options: `within_s` (1 to 86400, default 600), `dir`, `undo` (the line of Rhai that takes it back; it \
          stands alone: no variables or functions of the script; `{host}` in it becomes the host's name), `batch`. \
          Returns a receipt whose `after` holds `code` and the end of `out` and `err`. Fails with `failed` for an exit \
          code other than 0, `unknown` when the outcome cannot be learned. Deadline 600 s, or `within_s`. On `hosts(…)` \
          it runs on the first, then on `batch` hosts at a time (1 to 16, default 4), and stops after a failure; it \
          returns a receipt for each, with its `host`, and fails as `host.read`.",
    example: r#"host("prod-1").run(["systemctl", "reload", "nginx"], #{ within_s: 60 })"#,
};

const SH: Verb = Verb {
    name: "host.sh",
    class: Class::Change,
    waits: false,
    sig: "host.sh(script: string, words: array, options?: #{ within_s: int, dir: string, undo: string, batch: int }) -> receipt",
    doc: "Runs a POSIX sh script. `words` are its `$1`, `$2`, … and are never parsed by the shell. Options, result \
          and failures as `host.run`. Deadline 600 s, or `within_s`.",
    example: r#"host("prod-1").sh("cd \"$1\" && tar xf \"$2\"", ["/srv", "site.tar"])"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[
    Binding::ReadEach(&CONNECT, connect),
    Binding::ReadEach(&READ, read),
    Binding::ChangeEach(&RUN, run),
    Binding::ChangeEach(&SH, sh),
];

/// What else scripts can do with a host.
pub const FUNCTIONS: &[Function] = &[
    Function::new(
        "host(name: string) -> host",
        "A host of opsh.toml, or this machine. `\"local\"` is this machine. Nothing is reached before it is needed: the \
         first verb logs in. Fails with `usage` for a name that opsh.toml does not have, naming the nearest.",
        r#"host("local")"#,
    ),
    Function::new("host.name -> string", "The host's name.", r#"host("local").name"#),
    Function::new(
        "host.repo(dir: string) -> repo",
        "A git checkout on a host. `dir` is its absolute path; whether it is there is seen by the first verb.",
        r#"host("local").repo("/srv/app")"#,
    ),
];

/// `host("prod-1")`.
#[derive(Clone)]
pub struct HostHandle(Option<Arc<Host>>);

impl HostHandle {
    /// The host's name.
    pub fn name(&self) -> String {
        self.0.as_ref().map_or(LOCAL.into(), |host| host.name.clone())
    }

    /// A host of opsh.toml.
    pub fn of(host: Arc<Host>) -> HostHandle {
        HostHandle(Some(host))
    }
}

/// Registers the constructor `host(NAME)`.
pub fn register(engine: &mut Engine, world: &Rc<World>) {
    engine.register_type_with_name::<HostHandle>("host");
    let world = Rc::clone(world);
    engine.register_fn(
        "host",
        move |context: NativeCallContext<'_>, name: &str| -> std::result::Result<HostHandle, Box<EvalAltResult>> {
            named(&world, name).map_err(|error| super::values::thrown(error, context.call_position()))
        },
    );
    engine.register_get("name", |host: &mut HostHandle| host.name());
    engine.register_fn("repo", |host: &mut HostHandle, dir: &str| git::RepoHandle::of_host(host, dir));
    engine.register_fn("to_string", |host: &mut HostHandle| host.name());
    engine.register_fn("to_debug", |host: &mut HostHandle| format!("host({})", literal(&host.name())));
}

/// The host of that name, or an error that names the nearest one.
pub fn named(world: &World, name: &str) -> Result<HostHandle> {
    world.gate.uses(name);
    if name == LOCAL { Ok(HostHandle(None)) } else { world.config.host(name).map(HostHandle::of) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReadOptions {
    within_s: u64,
    check: bool,
    dir: Option<String>,
    partial: bool,
}

impl Default for ReadOptions {
    fn default() -> ReadOptions {
        ReadOptions { within_s: 60, check: true, dir: None, partial: false }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RunOptions {
    within_s: u64,
    dir: Option<String>,
    undo: Option<String>,
    batch: usize,
}

impl Default for RunOptions {
    fn default() -> RunOptions {
        RunOptions { within_s: 600, dir: None, undo: None, batch: 4 }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ConnectOptions {
    partial: bool,
}

fn connect(call: &Call<'_>) -> Result<Each<Value>> {
    let ConnectOptions { partial } = call.options(0)?;
    let look = |host: Target| {
        let name = host.name.clone();
        Look::at(host, name, json!({}))
    };
    call.read_each(partial, look, (), |pass, way, ()| async move {
        way.reach(&pass).await?;
        Ok(json!({ "host": way.name() }))
    })
}

fn read(call: &Call<'_>) -> Result<Each<Value>> {
    let words = call.words(0)?;
    reads::check(&words).map_err(|why| call.bad(&why))?;
    let ReadOptions { within_s, check, dir, partial } = call.options(1)?;
    reads::check_dir(&words, dir.as_deref().unwrap_or_default()).map_err(|why| call.bad(&why))?;
    call.in_range("within_s", within_s, 1..=3600)?;
    let args = json!({ "words": words, "dir": dir });
    let look = |host| Look::at(host, ssh::readable(&words), args.clone()).within(within_s);
    call.read_each(partial, look, (words.clone(), dir), move |pass, way, (words, dir)| async move {
        let (reach, name) = (way.reach(&pass).await?, way.name());
        let command = Command { cwd: dir.clone(), ..words_of(read_words(&words)) };
        let mut ran = finished(name, &words, reach.run(&pass, &command).await)?;
        match ran.code {
            git::tame::ANOTHERS if words[0] == "git" => {
                let what = format!("{} failed on {name}", shown(&words));
                return Err(git::anothers(&reach, &pass, name, dir.as_deref().unwrap_or("."), what).await);
            }
            // As git itself ends there.
            git::tame::NOWHERE if words[0] == "git" => ran.code = 128,
            _ => (),
        }
        if check { ran.checked(name, &words).map(Ran::into_json) } else { Ok(ran.into_json()) }
    })
}

fn run(call: &Call<'_>) -> Result<Each<Receipt>> {
    let words = call.words(0)?;
    if words.is_empty() {
        return Err(call.bad("words is empty"));
    }
    let says = ssh::readable(&words);
    durable(call, call.options(1)?, says, None, Command { ..words_of(words) })
}

fn sh(call: &Call<'_>) -> Result<Each<Receipt>> {
    let script = call.text(0)?;
    let mut words = vec!["sh".to_string(), "-c".into(), script.clone(), "sh".into()];
    let own = call.words(1)?;
    let aside = (!own.is_empty()).then(|| format!("with {}", json!(own)));
    words.extend(own);
    durable(call, call.options(2)?, script, aside, words_of(words))
}

fn durable(
    call: &Call<'_>,
    options: RunOptions,
    says: String,
    aside: Option<String>,
    command: Command,
) -> Result<Each<Receipt>> {
    let RunOptions { within_s, dir, undo, batch } = options;
    call.in_range("within_s", within_s, 1..=86400)?;
    call.in_range("batch", batch, 1..=16)?;
    if let Some(line) = &undo {
        inverse::parse(&Engine::new_raw(), line).map_err(|why| call.bad(&why))?;
    }
    if call.is_fleet() && undo.as_ref().is_some_and(|line| !line.contains("{host}")) {
        return Err(call.bad("undo takes back what was done on one host: write host(\"{host}\") in it"));
    }
    let args = json!({ "words": command.words, "dir": dir });
    // The value of `$1` decides what a script does.
    let with = aside.into_iter().chain(dir.as_ref().map(|dir| format!("in {dir}")));
    let with = Some(with.collect::<Vec<_>>().join("   ")).filter(|text| !text.is_empty());
    let change = |host: Target| {
        let inverse = undo.as_ref().map(|line| line.replace("{host}", literal(&host.name).trim_matches('"')));
        let lives = Lives::Run(host.name.clone());
        Change {
            aside: with.clone(),
            inverse,
            lives,
            ..Change::of(Look::at(host, says.clone(), args.clone()).within(within_s))
        }
    };
    call.change_each(batch, change, Command { cwd: dir.clone(), ..command }, |pass, way, command| async move {
        let (reach, name) = (way.reach(&pass).await?, way.name());
        let ran = run_durable(&reach, &pass, name, &command).await?.checked(name, &command.words)?;
        Ok(Did { changed: true, after: ran.into_json(), ..Did::default() })
    })
}

/// What a program left when it exited.
#[derive(Debug)]
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// `code`, `out`, `err`.
    pub fn into_json(self) -> Value {
        json!({ "code": self.code, "out": self.out, "err": self.err })
    }

    /// The last lines of what it said: on standard error, else on standard output.
    fn said(&self, lines: usize) -> String {
        redact::last_lines(if self.err.trim().is_empty() { &self.out } else { &self.err }, lines)
    }

    /// Why it failed, as far as it said anything.
    pub fn why(&self, lines: usize) -> String {
        let said = self.said(lines);
        if said.is_empty() { format!("exit code {}, and it said nothing", self.code) } else { said }
    }

    /// An error when the exit code is not 0, with the end of what was said.
    pub fn checked(self, host: &str, words: &[String]) -> Result<Ran> {
        if self.code == 0 {
            return Ok(self);
        }
        let said = self.said(5);
        let program = words.first().map_or("", String::as_str);
        let why = match self.code {
            // A script's own 127 is about a program that it named.
            127 if program != "sh" && (said.is_empty() || said.contains("not found")) => {
                format!("there is no program \"{program}\" on {host}")
            }
            code => {
                let note = ssh::signal_note(code).map_or(String::new(), |note| format!(" ({note})"));
                let said = if said.is_empty() { ", and it said nothing".into() } else { format!(": {said}") };
                format!("exit code {code}{note}{said}")
            }
        };
        let kind = if self.code == 127 && program != "sh" { Kind::NotFound } else { Kind::Failed };
        Err(Error::new(kind, format!("{} failed on {host}", shown(words)), why).host(host).exit(self.code.into()))
    }
}

/// Ok for words that only look, as `host.read` performs them; else why they are not taken for that.
pub fn check_read(words: &[String]) -> Result<(), String> {
    reads::check(words)
}

/// The words that are run for words that only look: git runs nothing that the repository names.
pub fn read_words(words: &[String]) -> Vec<String> {
    git::tame::read(words)
}

/// A command as an error names it: its first words, on one line.
fn shown(words: &[String]) -> String {
    let first: Vec<&str> = words.iter().take(6).map(|word| word.lines().next().unwrap_or("")).collect();
    redact::cut(&first.join(" "), 80)
}

/// A command of these words, with nothing on its standard input.
pub fn words_of(words: Vec<String>) -> Command {
    Command { words, cwd: None, env: Vec::new(), stdin: Vec::new(), keep: KEEP }
}

/// How a command ended as a result: only an exit is a value.
pub fn finished(host: &str, words: &[String], finished: Finished) -> Result<Ran> {
    let what = format!("{} failed on {host}", shown(words));
    match finished.outcome {
        Outcome::Exited(code) => Ok(Ran { code, out: finished.stdout.text(), err: finished.stderr.text() }),
        Outcome::NotStarted(why) => Err(Error::new(Kind::Unreachable, what, why).host(host)),
        Outcome::Unknown(why) => Err(Error::new(Kind::Unknown, what, why).host(host)),
    }
}

/// Runs words that only look and must exit 0.
pub async fn look(reach: &Reach, pass: &Pass, host: &str, words: &[&str]) -> Result<String> {
    let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
    let ran = finished(host, &words, reach.run(pass, &words_of(words.clone())).await)?;
    ran.checked(host, &words).map(|ran| ran.out)
}

/// Runs a command that survives the link, under the effect's id, and waits for its end.
pub async fn run_durable(reach: &Reach, pass: &Pass, host: &str, command: &Command) -> Result<Ran> {
    let id = pass.effect();
    // A start that was refused did nothing: from here on the answer may be lost.
    let started = reach.durable_begin(pass, id, command, &pass.about()).await;
    if !matches!(&started, Err(error) if error.kind != Kind::Unknown) {
        pass.sending();
    }
    started?;
    let ended = reach.durable_wait(pass, id, command.keep).await;
    // A link that was lost tells nothing more.
    if matches!(ended.outcome, Outcome::Exited(_)) {
        pass.learn_again().await;
    }
    let ran = match ended.outcome {
        // It was started, and the program was not: a folder that cannot be entered.
        Outcome::NotStarted(why) if !matches!(reach.durable_state(pass, id).await, Ok(Durable::Never) | Err(_)) => {
            forget_afterwards(reach, pass);
            return Err(
                Error::new(Kind::Failed, format!("{} did not run on {host}", shown(&command.words)), why).host(host)
            );
        }
        _ => finished(host, &command.words, ended)?,
    };
    forget_afterwards(reach, pass);
    Ok(ran)
}

/// Removes what a run left on the host, once its end is recorded: until then it is what the outcome is learned from.
fn forget_afterwards(reach: &Reach, pass: &Pass) {
    let (reach, later) = (reach.clone(), pass.for_connection());
    pass.afterwards(async move {
        let _ = reach.durable_forget(&later, later.effect()).await;
    });
}

/// The keys that a host offers, without logging in.
pub fn offered_keys(world: &World, name: &str, jump: Option<&str>) -> Result<Vec<HostKey>> {
    let way = world.way_to_adopt(name, jump)?;
    let effect = Change::of(Look::at(world.host_target(name), name, json!({ "host": name }))).effect(&OFFERED);
    let done = world.gate.perform(&effect, |pass| {
        let way = way.clone();
        async move {
            let keys = ssh::offered_keys(&pass, &way.login_without_password(&pass).await?).await?;
            Ok(Did::value(json!(keys)))
        }
    })?;
    let Done::Did(did, _) = done else { return Ok(Vec::new()) };
    serde_json::from_value(did.value)
        .map_err(|error| Error::new(Kind::Failed, format!("the keys of {name} cannot be told"), error.to_string()))
}

/// Trusts a key from now on.
pub fn adopt(world: &World, name: &str, jump: Option<&str>, key: &HostKey, replace: bool) -> Result<()> {
    let way = world.way_to_adopt(name, jump)?;
    let args = json!({ "host": name, "fingerprint": key.fingerprint, "replace": replace });
    // What is changed is this machine's list, and who asked for it typed the fingerprint: that is the consent.
    let here = Target { name: LOCAL.into(), protected: false };
    let effect = Change::of(Look::at(here, format!("{name} {}", key.fingerprint), args)).effect(&ADOPT);
    let done = world.gate.perform(&effect, |pass| {
        let (way, key) = (way.clone(), key.clone());
        async move {
            let login = way.login_without_password(&pass).await?;
            pass.sending();
            ssh::remember_key(&pass, &login, &key, replace)?;
            Ok(Did { changed: true, after: json!(key.fingerprint), ..Did::default() })
        }
    });
    done.map(drop)
}

const ADOPT: Verb = Verb {
    name: "host.adopt",
    class: Class::Change,
    waits: false,
    sig: "host.adopt(fingerprint: string) -> receipt",
    doc: "Trusts a host key from now on: `opsh host adopt NAME`.",
    example: "",
};

const OFFERED: Verb = Verb {
    name: "host.key",
    class: Class::Read,
    waits: false,
    sig: "host.key() -> array",
    doc: "The keys that a host offers before anybody logs in.",
    example: "",
};
