//! What a line that was typed means: words, a script's name, a line of a runbook, or Rhai.

use super::failure::CHOICES;
use super::header::Header;
use super::known::KEYWORDS;
use super::{Session, built_in, file_of, runbook, text_of, words};
use crate::bind::host;
use crate::bind::stack::StackHandle;
use crate::config::LOCAL;
use crate::error::{Error, Kind, Result, nearest};
use crate::gate::verb::Class;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a typed line means.
pub(super) enum Meaning {
    /// Rhai as it was typed.
    Rhai,
    /// Words: the Rhai that they are, and whether it may change something.
    Words(String, bool),
    /// A script and its arguments.
    Script(ScriptWord, Vec<String>),
    /// What was rehearsed is done.
    Go,
}

/// A script that can be typed as a word.
#[derive(Clone)]
pub(super) enum ScriptWord {
    /// In the folder `scripts` beside opsh.toml, or below where opsh was started.
    File(PathBuf),
    /// One that is built in.
    BuiltIn(&'static str, &'static str),
}

impl ScriptWord {
    /// As an error names it.
    pub(super) fn name(&self) -> String {
        match self {
            ScriptWord::File(path) => path.display().to_string(),
            ScriptWord::BuiltIn(name, _) => (*name).into(),
        }
    }

    fn header(&self) -> Result<Header> {
        Ok(match self {
            ScriptWord::File(path) => Header::parse(&text_of(path)?),
            ScriptWord::BuiltIn(_, text) => Header::parse(text),
        })
    }
}

impl Session {
    /// Scripts that can be typed as words: name, arguments, and the first line about each.
    pub fn script_words(&self) -> Vec<(String, String, String)> {
        let described = |name: String| {
            let header = self.script(&name)?.header().ok()?;
            let usage = header.usage.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
            Some((name, usage, header.text.lines().next().unwrap_or_default().into()))
        };
        self.script_names().into_iter().filter_map(described).collect()
    }

    fn script_names(&self) -> BTreeSet<String> {
        let own = std::fs::read_dir(self.scripts()).into_iter().flatten().flatten();
        let own = own.filter_map(|file| file.file_name().to_str()?.strip_suffix(".rhai").map(String::from));
        own.chain(built_in::words().map(String::from)).collect()
    }

    /// The folder of scripts that are words: beside opsh.toml, or below where opsh was started.
    fn scripts(&self) -> PathBuf {
        let beside = self.world.config.path.as_deref().and_then(|path| path.parent().map(PathBuf::from));
        beside.unwrap_or_default().join("scripts")
    }

    /// What it means now: a variable goes before a word of its name.
    pub(super) fn meaning(&self, line: &str) -> Result<Meaning> {
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
        let first = line.split_whitespace().next().unwrap_or_default();
        if let Some(script) = script_file(first) {
            let argv = self.script_argv(&script, &line[first.len()..])?;
            return Ok(Meaning::Script(script, argv));
        }
        let Some((name, rest)) = words::split(line) else { return self.no_words(line) };
        if self.scope.contains(name) {
            return Ok(Meaning::Rhai);
        }
        if name == "go" && rest.is_empty() {
            return Ok(Meaning::Go);
        }
        // A name with a dash has no place in Rhai.
        if let Some(script) = self.script(first) {
            if let ScriptWord::File(path) = &script {
                built_in::trusted(path)?;
            }
            self.say_in_place_of(first, &script);
            let argv = self.script_argv(&script, &line[first.len()..])?;
            return Ok(Meaning::Script(script, argv));
        }
        let Some((word, rest)) = words::find(line) else { return self.not_a_word(line, name, rest) };
        if self.sitting.stack.is_none() {
            return Err(self.no_stack(name));
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

    /// True for what can be evaluated.
    pub fn is_rhai(&self, line: &str) -> bool {
        self.engine.compile_with_scope(&self.scope, line).is_ok()
    }

    fn of_a_runbook(&self, line: &str) -> Option<Error> {
        let stack = self.sitting.stack.as_ref().and_then(|name| self.world.config.stack(name).ok());
        runbook::answer(line, stack.as_deref())
    }

    /// What cannot be Rhai was meant as something else.
    fn not_a_word(&self, line: &str, name: &str, rest: &str) -> Result<Meaning> {
        if KEYWORDS.contains(&name) || self.is_rhai(line) {
            return Ok(Meaning::Rhai);
        }
        if rest.is_empty() {
            return Err(self.no_word(name));
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
        Err(self.no_word(name))
    }

    fn no_word(&self, name: &str) -> Error {
        let nothing = |why: &str, next: &str| Error::new(Kind::Usage, "nothing was done", why).next(next);
        match name {
            "y" | "yes" | "n" | "no" => {
                let error = Error::new(Kind::Usage, "nothing was answered", "no question is open");
                return match &self.sitting.pending {
                    Some(what) => error.next(format!("go     does what was planned: {}", what.words())),
                    None => error,
                };
            }
            "retry" | "abort" | "skip" => return nothing("no script failed here", "opsh runs     the newest runs"),
            "undo" => return nothing("no script failed here", ":undo     takes back what changed last"),
            "shell" => return nothing("no script failed here", "@ -t     a shell on the host of the stack in use"),
            "runs" | "resume" | "attach" | "settle" | "use" | "observe" | "apply" | "note" | "save" | "load" => {
                return nothing("that is a command", &format!(":{name}     :help {name} says how it is called"));
            }
            "journal" => {
                return nothing(
                    "that is a command of the shell outside",
                    ":runs     the newest runs; :show RUN, :settle RUN SAW",
                );
            }
            _ => {}
        }
        let (variables, scripts) = (self.variables(), self.script_names());
        let mut names: BTreeSet<&str> = words::all().iter().map(|word| word.name).collect();
        names.extend(scripts.iter().map(String::as_str));
        names.extend(variables.iter().map(|variable| variable.name.as_str()));
        names.extend(self.failed().map(|_| CHOICES.iter().map(|(choice, _)| *choice)).into_iter().flatten());
        names.extend(["go", "help", "quit"]);
        let why = match nearest(name, names) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "nor is it a variable or a script".into(),
        };
        Error::new(Kind::Usage, format!("no word \"{name}\""), why).next("help     every verb")
    }

    fn no_stack(&self, name: &str) -> Error {
        let error = Error::new(Kind::Usage, format!("{name} was not done"), "no stack is in use");
        let known: Vec<&str> = self.world.config.stack_names().collect();
        match (known.first(), &self.world.config.path) {
            (Some(first), _) => error.next(format!(":use {first}     of {}", known.join(", "))),
            (None, Some(path)) => error.next(format!("[stack.NAME]     in {}: it names none", path.display())),
            (None, None) => error
                .next("opsh USER@HOST     finds the stacks on a host")
                .next("cd     to where an opsh.toml is, and opsh"),
        }
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

    fn script(&self, name: &str) -> Option<ScriptWord> {
        if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || "-_".contains(c)) {
            return None;
        }
        let file = self.scripts().join(format!("{name}.rhai"));
        if file.is_file() {
            // The shorter path where it is the same one: it stands in lists and errors.
            let below = Path::new("scripts").join(format!("{name}.rhai"));
            return Some(ScriptWord::File(if file_of(&below) == file_of(&file) { below } else { file }));
        }
        built_in::find(name).map(|(name, text)| ScriptWord::BuiltIn(name, text))
    }

    /// A script of one's own goes before one that is built in, and never silently.
    fn say_in_place_of(&self, name: &str, script: &ScriptWord) {
        let (ScriptWord::File(path), Some((_, built_in))) = (script, built_in::find(name)) else { return };
        if text_of(path).is_ok_and(|text| text != built_in) {
            self.gate().screen().say(&format!("· {}, in place of the {name} that is built in", path.display()));
        }
    }

    /// The script's arguments, with the stack in use where it takes one and none was named.
    fn script_argv(&self, script: &ScriptWord, rest: &str) -> Result<Vec<String>> {
        let bad = |why: &str| Error::new(Kind::Usage, format!("{} was not started", script.name()), why);
        let mut argv = shlex::split(rest).ok_or_else(|| bad("a quote is open at its end"))?;
        let header = script.header()?;
        let takes_stack = header.has_option("stack") || header.first_word() == Some("STACK");
        if takes_stack && self.sitting.stack.is_none() && !argv.iter().any(|word| word == "--help" || word == "-h") {
            return Err(self.no_stack(&script.name()));
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

/// `scripts/rollback.rhai`, as it is typed outside of a sitting.
fn script_file(word: &str) -> Option<ScriptWord> {
    let is_path = word.ends_with(".rhai") && word.chars().all(|c| c.is_alphanumeric() || "-_./~".contains(c));
    is_path.then(|| ScriptWord::File(PathBuf::from(word)))
}

fn words_on(host: &str, text: &str) -> Result<Meaning> {
    words::on_host(host, text).map(|(code, changes)| Meaning::Words(code, changes))
}
