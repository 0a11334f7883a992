//! Secrets in the files of a stack: env files, compose files, and the files of compose's own secrets.
//!
//! The files are read to learn what must be hidden. A file that cannot be parsed teaches less; it is never an error.

use crate::config::Stack;
use crate::redact::{self, Learner};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Role of a file in its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `NAME=value` lines.
    Env,
    /// A compose file.
    Compose,
    /// One secret, the whole file.
    Secret,
}

/// A file by its absolute path.
pub type Source = (Role, String);

/// The files that opsh.toml and compose's defaults name: the compose files, the env file, and `.env` beside either.
pub fn of_stack(stack: &Stack) -> BTreeSet<Source> {
    let files = stack.compose.files.iter().map(|file| joined(&stack.dir, file));
    let mut sources: BTreeSet<Source> = files.clone().map(|path| (Role::Compose, path)).collect();
    sources.extend(stack.compose.env_file.iter().map(|file| (Role::Env, joined(&stack.dir, file))));
    let folders = files.map(|path| folder(&path).to_string()).chain([stack.dir.clone()]);
    sources.extend(folders.map(|dir| (Role::Env, joined(&dir, ".env"))));
    sources
}

/// Reads the files of one stack, env files before the compose files that take values from them.
pub struct Reader {
    learner: Learner,
    /// Variables of the env files that were read. Compose replaces `${NAME}` by those of the project's own env files, which are
    /// read before any compose file.
    variables: BTreeMap<String, String>,
}

impl Reader {
    /// One that has read nothing yet.
    pub fn of_stack() -> Reader {
        Reader { learner: Learner::of_files(), variables: BTreeMap::new() }
    }

    /// Learns what the text of a file says, and returns the files that it names in turn.
    pub fn learn(&mut self, (role, path): &Source, text: &str, stack_dir: &str) -> BTreeSet<Source> {
        match role {
            Role::Env => {
                for (name, value) in variables(text) {
                    self.learner.variable(&name, &value);
                    self.variables.insert(name, value);
                }
            }
            Role::Secret => self.learner.value(path, text.trim()),
            Role::Compose => return self.compose(path, text, &[stack_dir, folder(path)]),
        }
        BTreeSet::new()
    }

    /// Says what of `place` is not hidden.
    pub fn finish(self, place: &str) {
        self.learner.finish(place);
    }
}

fn joined(dir: &str, file: &str) -> String {
    if file.starts_with('/') { file.into() } else { format!("{}/{file}", dir.trim_end_matches('/')) }
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

// ── env files ──

/// Variables of an env file. A value that programs read in several ways, by its quotes or a `#` behind it, comes once in
/// each.
fn variables(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches('\u{feff}');
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        rest = after;
        let line = line.trim();
        let Some((name, value)) = variable(line) else { continue };
        let mut read = |value: &str| found.push((name.to_string(), value.to_string()));
        read(value);
        let quote = value.chars().next().filter(|c| ['"', '\''].contains(c));
        match quote {
            Some(quote) => {
                // The value may go on on the lines that follow.
                let here = &value[1..];
                let inner = closing(here, quote).map(|end| here[..end].to_string());
                let inner = inner.or_else(|| closing(after, quote).map(|end| format!("{here}\n{}", &after[..end])));
                if let Some(inner) = inner {
                    read(&inner);
                    if quote == '"' && inner.contains('\\') {
                        read(&unescaped(&inner));
                    }
                }
            }
            None => {
                if let Some((value, _)) = value.split_once(" #") {
                    read(value.trim_end());
                }
            }
        }
    }
    found
}

/// `NAME=value` or `NAME: value`, with or without `export`.
fn variable(line: &str) -> Option<(&str, &str)> {
    let exported = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t']));
    let line = exported.map_or(line, str::trim_start);
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "_.-".contains(c)))?;
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let value = rest.strip_prefix('=').or_else(|| rest.strip_prefix(':'))?;
    (!name.is_empty()).then(|| (name, value.trim()))
}

/// Where the quote stands that ends a value.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped && quote == '"';
        ends.then_some(at)
    })
}

fn unescaped(text: &str) -> String {
    let mut chars = text.chars();
    let mut out = String::new();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('r')) => out.push('\r'),
            ('\\', Some('t')) => out.push('\t'),
            ('\\', Some(other)) => out.push(other),
            _ => out.push(c),
        }
    }
    out
}

// ── compose files ──

impl Reader {
    fn compose(&mut self, path: &str, text: &str, folders: &[&str]) -> BTreeSet<Source> {
        let mut named = BTreeSet::new();
        let mut name = |role, path: &str| {
            named.extend(folders.iter().map(|dir| (role, joined(dir, path.trim_start_matches("./")))));
        };
        match super::yaml::parse(text) {
            Ok(config) => {
                let services = config["services"].as_object().into_iter().flat_map(|services| services.keys());
                redact::add_plain(&services.map(String::as_str).collect::<Vec<_>>());
                self.walk(&config, &mut name);
            }
            Err(_) => {
                redact::warn(format!("opsh cannot parse {path}: secrets in it may not be hidden"));
                self.lines(text, &mut name);
            }
        }
        named
    }

    /// Learns what the lines of a file that is no YAML tell all the same: whoever edits it needs opsh now.
    fn lines(&mut self, text: &str, file: &mut dyn FnMut(Role, &str)) {
        let mut bare = String::new();
        let mut is_env_file = false;
        for line in text.lines() {
            let line = line.trim();
            let item = line.strip_prefix("- ").map(str::trim);
            let word = item.unwrap_or(line);
            let quote = word.chars().next().filter(|c| ['"', '\''].contains(c));
            let word = quote.and_then(|quote| word[1..].strip_suffix(quote)).unwrap_or(word);
            bare += word;
            bare.push('\n');
            let plain = |value: &str| self.resolved(value.trim_matches(['"', '\'', '[', ']', ' '])).text;
            match variable(word) {
                Some(("env_file", value)) => {
                    is_env_file = true;
                    value.split(',').map(plain).filter(|path| !path.is_empty()).for_each(|path| file(Role::Env, &path));
                }
                Some(("path", value)) if is_env_file => file(Role::Env, &plain(value)),
                Some(("file", value)) => {
                    [Role::Secret, Role::Compose].into_iter().for_each(|role| file(role, &plain(value)))
                }
                _ if is_env_file && item.is_some() => file(Role::Env, &plain(word)),
                _ => is_env_file = false,
            }
        }
        variables(&bare).iter().for_each(|(name, value)| self.written(name, value));
    }

    /// Learns each value under a secret's name, wherever it stands, and hands on the files that are named.
    fn walk(&mut self, value: &Value, file: &mut dyn FnMut(Role, &str)) {
        match value {
            Value::Array(items) => {
                items.iter().for_each(|item| match item.as_str().and_then(|text| text.split_once('=')) {
                    Some((name, value)) => self.written(name, value),
                    None => self.walk(item, file),
                })
            }
            Value::Object(map) => map.iter().for_each(|(name, value)| self.entry(name, value, file)),
            _ => {}
        }
    }

    fn entry(&mut self, name: &str, value: &Value, file: &mut dyn FnMut(Role, &str)) {
        let mut hand_on = |this: &Reader, role, value| {
            paths(value).into_iter().for_each(|path| file(role, &this.resolved(path).text))
        };
        match (name, value) {
            ("env_file", value) => hand_on(self, Role::Env, value),
            ("include" | "extends", value) => {
                // The short form of `extends` names a service.
                if name == "include" || !value.is_string() {
                    hand_on(self, Role::Compose, value);
                }
                self.walk(value, file);
            }
            ("secrets", Value::Object(secrets)) => {
                for (name, secret) in secrets {
                    hand_on(self, Role::Secret, &secret["file"]);
                    let variable = secret["environment"].as_str().and_then(|variable| self.variables.get(variable));
                    variable.into_iter().for_each(|value| self.learner.value(name, value));
                }
            }
            ("command" | "entrypoint" | "test", Value::String(text)) => {
                self.command(&shlex::split(text).unwrap_or_default());
            }
            ("command" | "entrypoint" | "test", Value::Array(words)) => {
                let words = words.iter().filter_map(|word| word.as_str().map(String::from));
                self.command(&words.collect::<Vec<_>>());
            }
            (name, Value::String(text)) => self.written(name, text),
            (name, Value::Number(number)) => self.written(name, &number.to_string()),
            (_, value) => self.walk(value, file),
        }
    }

    /// Learns the words of a command as compose passes them on.
    fn command(&mut self, words: &[String]) {
        self.learner.words(words);
        let whole = words.iter().map(|word| Some(self.resolved(word)).filter(|it| it.is_whole).map(|it| it.text));
        if let Some(words) = whole.collect::<Option<Vec<String>>>() {
            self.learner.words(&words);
        }
    }

    /// Learns a value as a compose file has it, with its defaults, and as compose resolves it.
    ///
    /// A value of which a part is not known is learned only when it is a URL, whose password may stand there: a part is no
    /// secret.
    fn written(&mut self, name: &str, value: &str) {
        let resolved = self.resolved(value);
        resolved.defaults.iter().for_each(|default| self.learner.variable(name, default));
        if resolved.is_whole || resolved.text.contains("://") {
            self.learner.variable(name, &resolved.text);
        }
    }

    /// Replaces `$NAME`, `${NAME}`, `${NAME:-default}` and the like as compose does: by the value in an env file of the project,
    /// else by the default. A value from the shell of whoever runs compose is not known here; it is learned from the container.
    fn resolved(&self, value: &str) -> Resolved {
        self.resolved_within(value, MOST_NESTED)
    }

    fn resolved_within(&self, value: &str, nested: usize) -> Resolved {
        let mut all = Resolved { text: String::new(), defaults: Vec::new(), is_whole: true };
        let mut rest = value;
        while let Some((before, after)) = rest.split_once('$') {
            all.text += before;
            if let Some(after) = after.strip_prefix('$') {
                all.text.push('$');
                rest = after;
                continue;
            }
            let (inner, after) = match after.strip_prefix('{') {
                Some(braced) => split_at_brace(braced),
                None => after.split_at(after.find(|c: char| !is_of_a_name(c)).unwrap_or(after.len())),
            };
            rest = after;
            let (name, operator) = inner.split_at(inner.find(|c: char| !is_of_a_name(c)).unwrap_or(inner.len()));
            let known = self.variables.get(name).filter(|value| !value.is_empty());
            // `${NAME:?message}` has a text, too, which is no value.
            let word = operator.strip_prefix(':').unwrap_or(operator).strip_prefix(['-', '+']);
            let word = word.filter(|word| !word.is_empty() && nested > 0);
            let default = word.map(|word| self.resolved_within(word, nested - 1));
            match (known, &default) {
                (Some(known), _) => all.text += known,
                // The default stands in a URL as its password does.
                (None, Some(default)) => all.text += &default.text,
                (None, None) => all.is_whole = false,
            }
            if let Some(default) = default {
                all.defaults.extend(default.defaults);
                all.defaults.push(default.text);
            }
        }
        all.text += rest;
        all
    }
}

/// How deep a default may stand in a default.
const MOST_NESTED: usize = 8;

/// A value as compose resolves it.
struct Resolved {
    text: String,
    /// Each default in it, those within defaults, too.
    defaults: Vec<String>,
    /// Each variable of it is known, or has a default.
    is_whole: bool,
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The text before the closing brace of a `${…}`, and the text behind that brace.
fn split_at_brace(text: &str) -> (&str, &str) {
    let mut open = 0;
    let end = text.bytes().position(|byte| match byte {
        b'{' => {
            open += 1;
            false
        }
        b'}' if open > 0 => {
            open -= 1;
            false
        }
        byte => byte == b'}',
    });
    end.map_or((text, ""), |end| (&text[..end], &text[end + 1..]))
}

/// A path, a list of them, or of maps with `file`, or with one `path` or several.
fn paths(value: &Value) -> Vec<&str> {
    match value {
        Value::String(path) => vec![path],
        Value::Array(items) => items.iter().flat_map(paths).collect(),
        Value::Object(map) => map.get("path").or(map.get("file")).map_or_else(Vec::new, paths),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::clean;

    fn learn(source: &Source, text: &str, dir: &str) -> BTreeSet<Source> {
        let mut reader = Reader::of_stack();
        let named = reader.learn(source, text, dir);
        reader.finish("a test");
        named
    }

    #[track_caller]
    fn assert_known(values: &[&str]) {
        for value in values {
            assert!(!clean(&format!("x {value} y")).contains(value), "{value} is not known");
        }
    }

    fn source(role: Role) -> Source {
        (role, "/srv/app/deploy/compose.yml".into())
    }

    #[test]
    fn a_compose_file_that_is_no_yaml_teaches_its_lines_and_names_its_files() {
        for wrong in ["\n   x: [", "\n---\na: 1", "\n\tx: 1", "\ny: *nobody"] {
            let text = format!(
                "services:\n  app:\n    env_file:\n      - ./prod.env\n      - \"more.env\"\n    environment:\n\
                 \x20     - A_PASSWORD=broken-item-1\n      B_PASSWORD: broken-pair-2\nsecrets:\n  s: {{}}\n    file: s.txt{wrong}\n"
            );
            let named = learn(&source(Role::Compose), &text, "/srv/app");
            for wanted in
                [(Role::Env, "/srv/app/prod.env"), (Role::Env, "/srv/app/more.env"), (Role::Secret, "/srv/app/s.txt")]
            {
                assert!(named.contains(&(wanted.0, wanted.1.to_string())), "{wanted:?} of {named:?}");
            }
            assert_known(&["broken-item-1", "broken-pair-2"]);
            assert!(redact::warnings().iter().any(|text| text.contains("cannot parse")) || wrong != "\n   x: [");
        }
    }

    #[test]
    fn an_include_of_several_paths_names_each() {
        let named = learn(&source(Role::Compose), "include:\n  - path: [a.yml, b.yml]\n  - c.yml\n", "/srv/app");
        for wanted in ["/srv/app/a.yml", "/srv/app/b.yml", "/srv/app/c.yml"] {
            assert!(named.contains(&(Role::Compose, wanted.to_string())), "{named:?}");
        }
    }

    #[test]
    fn an_env_file_teaches_values_in_every_way_of_writing_them() {
        let text = "\u{feff}# PASSWORD=comment-is-not-learned\nexport A_PASSWORD=env-plain-1\r\nB_PASSWORD='env quoted 2'\n\
                    C_PASSWORD=\"env \\\"esc\\\" 3\" # note\n  D_PASSWORD = env-spaced-4\nE_TOKEN: env-colon-5\n\
                    F_PASSWORD=env-hash-6 # note\nG_PRIVATE_KEY=\"-----BEGIN X-----\nenv-line-seven\n-----END X-----\"\n\
                    DATABASE_URL=postgres://vrc:env-url-8@db/vrc\nLOG_LEVEL=env-level-is-shown\nADO=Host=db;Password=env-ado-9;X=1\n\
                    H_PASSWORD=env$dollar#10\n";
        assert!(learn(&source(Role::Env), text, "/srv/app").is_empty());
        assert_known(&["env-plain-1", "env quoted 2", "env \"esc\" 3", "env-spaced-4", "env-colon-5", "env-hash-6"]);
        assert_known(&["env-line-seven", "env-url-8", "env-ado-9", "env$dollar#10"]);
        for shown in ["env-level-is-shown", "comment-is-not-learned"] {
            assert_eq!(clean(shown), shown);
        }
    }

    #[test]
    fn a_compose_file_teaches_its_own_values_and_names_others() {
        let text = "include: [base.yml]\nservices:\n  db:\n    env_file: [./db.env, {path: /etc/x.env}]\n    environment:\n      \
                    POSTGRES_PASSWORD: cmp-inline-1\n      API_TOKEN: ${API_TOKEN:-cmp-default-2}\n      JWT_SECRET: ${JWT_SECRET:?cmp-not-3}\n      \
                    URL: postgres://${U:-vrc}:cmp-url-4@db/x\n  web:\n    env_file: web.env\n    environment:\n      - DB_PASSWORD=cmp-list-5\n      \
                    - PIN_SECRET=987650123\nsecrets:\n  key: {file: ./key.txt}\n";
        let named = learn(&source(Role::Compose), text, "/srv/app");
        assert_known(&["cmp-inline-1", "cmp-default-2", "cmp-url-4", "cmp-list-5", "987650123"]);
        assert_eq!(clean("cmp-not-3"), "cmp-not-3");
        for (role, path) in [
            (Role::Env, "/srv/app/db.env"),
            (Role::Env, "/srv/app/deploy/db.env"),
            (Role::Env, "/etc/x.env"),
            (Role::Env, "/srv/app/web.env"),
            (Role::Secret, "/srv/app/deploy/key.txt"),
            (Role::Compose, "/srv/app/base.yml"),
        ] {
            assert!(named.contains(&(role, path.into())), "{path} in {named:?}");
        }
    }

    #[test]
    fn a_compose_file_teaches_the_options_of_its_commands() {
        let text = "services:\n  a:\n    command: redis-server --requirepass cmd-plain-1\n  b:\n    command: [x, --auth-token, cmd-list-2]\n    \
                    healthcheck:\n      test: [CMD-SHELL, redis-cli -a cmd-test-3 ping]\n";
        learn(&source(Role::Compose), text, "/srv/app");
        assert_known(&["cmd-plain-1", "cmd-list-2", "cmd-test-3"]);
    }

    #[test]
    fn what_compose_puts_in_place_of_a_variable_is_learned() {
        let mut reader = Reader::of_stack();
        let env =
            "DBPW=itp-plain-1\nKIND=stage\nURLPW=itp-url-2\nOPT=itp-option-3\nFROM=itp-secret-4\nLEVEL=itp-shown-5\n";
        reader.learn(&source(Role::Env), env, "/srv/app");
        let text = "services:\n  a:\n    env_file: [\"${KIND:-prod}.env\", \"${NONE:-prod}.env\"]\n    command: x --password ${OPT}\n    \
                    environment:\n      DB_PASSWORD: ${DBPW}\n      URL: postgres://u:${URLPW}@db/x\n      LOG: ${LEVEL}\n      \
                    A_PASSWORD: ${X:-${Y:-itp-nested-6}}\n      B_PASSWORD: pre-${X:-itp-part-7}-post\n      C_PASSWORD: a-$Q-itp-not-8\n\
                    secrets:\n  s: { environment: FROM }\n";
        let named = reader.learn(&source(Role::Compose), text, "/srv/app");
        assert_known(&[
            "itp-plain-1",
            "itp-url-2",
            "itp-option-3",
            "itp-secret-4",
            "itp-nested-6",
            "pre-itp-part-7-post",
        ]);
        for shown in ["itp-shown-5", "a-$Q-itp-not-8"] {
            assert_eq!(clean(shown), shown);
        }
        for path in ["/srv/app/stage.env", "/srv/app/prod.env"] {
            assert!(named.contains(&(Role::Env, path.into())), "{path} in {named:?}");
        }
    }

    #[test]
    fn a_broken_compose_file_and_a_secret_file_teach_too() {
        learn(&source(Role::Compose), "a: [\n  DB_PASSWORD: brk-value-1\n", "/srv/app");
        learn(&source(Role::Secret), "brk-secret-2\n", "/srv/app");
        assert_known(&["brk-value-1", "brk-secret-2"]);
    }

    #[test]
    fn the_files_of_a_stack_include_the_default_env_file() {
        let text = "[host.h]\nssh = \"h\"\n[stack.s]\nhost = \"h\"\ndir = \"/srv/app\"\n\
                    compose = { files = [\"deploy/c.yml\"], env_file = \"p.env\", project = \"s\" }\n";
        let config = crate::config::Config::found(text).expect("valid");
        let sources = of_stack(&config.stack("s").expect("there"));
        let paths: Vec<&str> = sources.iter().map(|(_, path)| path.as_str()).collect();
        assert_eq!(paths, ["/srv/app/.env", "/srv/app/deploy/.env", "/srv/app/p.env", "/srv/app/deploy/c.yml"]);
    }
}
