//! Lines that are typed as words: `logs backend --tail 50`, `@prod-1 df -h /`, `!ls`. One rule makes Rhai of each, from the
//! signatures of verbs; nothing is looked up anywhere else.

pub use crate::bind::values::literal;
use crate::bind::{self, host};
use crate::error::{Error, Kind, Result, suggestion};
use crate::gate::verb::{Class, Param, Signature};
use std::sync::LazyLock;

/// A verb of the stack in use that can be typed as a word.
pub struct Word {
    /// What is typed.
    pub name: &'static str,
    /// What stands before the call in Rhai: `p.`, `p.repo.`.
    before: &'static str,
    /// The verb's signature.
    pub signature: Signature,
    /// How it is called, as help shows it.
    pub sig: &'static str,
    /// What it does, in full.
    pub doc: &'static str,
    /// The most that it does.
    pub class: Class,
    /// The rest of the line is one argument as it stands.
    pub raw: bool,
}

/// Verbs of these are words, by what stands before them in Rhai. Where two have the same name the first is meant.
const RECEIVERS: &[(&str, &str)] = &[("stack", "p."), ("repo", "p.repo.")];

/// Words that are not the name of their verb. What is after `sql` is one statement; none begins as the other two do.
const OTHERS: &[(&str, &str, &str, bool)] = &[
    ("sql", "db.query", "p.db.", true),
    ("sql cancel", "db.cancel", "p.", false),
    ("sql kill", "db.kill", "p.", false),
];

/// Every word there is.
pub fn all() -> &'static [Word] {
    static WORDS: LazyLock<Vec<Word>> = LazyLock::new(of_signatures);
    &WORDS
}

/// The word that a line begins with, and what follows it; where two fit, the longer one.
pub fn find(line: &str) -> Option<(&'static Word, &str)> {
    let follows = |rest: &str| rest.is_empty() || rest.starts_with(char::is_whitespace);
    let fitting = all().iter().filter_map(|word| {
        let rest = line.trim().strip_prefix(word.name).filter(|rest| follows(rest))?;
        Some((word, rest.trim_start()))
    });
    fitting.max_by_key(|(word, _)| word.name.len())
}

fn of_signatures() -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    for (receiver, before) in RECEIVERS {
        for verb in bind::all().map(bind::Binding::verb) {
            let signature = verb.signature();
            let is_new = !words.iter().any(|word| word.name == signature.name);
            if signature.receiver == Some(receiver) && is_new && signature.params.iter().all(can_be_typed) {
                let (name, sig, doc, class) = (signature.name, verb.sig, verb.doc, verb.class);
                words.push(Word { name, before, signature, sig, doc, class, raw: false });
            }
        }
    }
    let others = OTHERS.iter().filter_map(|&(name, verb, before, raw)| {
        let verb = bind::verb(verb)?;
        let (signature, sig, doc, class) = (verb.signature(), verb.sig, verb.doc, verb.class);
        Some(Word { name, before, signature, sig, doc, class, raw })
    });
    words.extend(others);
    words
}

/// A closure or a map that must be given is Rhai.
fn can_be_typed(param: &Param) -> bool {
    matches!(param.kind, "string" | "int" | "bool" | "any" | "array") || (param.kind == "map" && param.optional)
}

/// The first word of a line, and what follows it, when the line cannot be Rhai: there is no operator, dot or bracket
/// between them.
pub fn split(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let end = line.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let first = rest.trim_start();
    let option = first.starts_with('-') && first[1..].starts_with(|c: char| c.is_alphabetic() || c == '-');
    let path = ["./", "../"].iter().any(|start| first.starts_with(start))
        || first.strip_prefix('/').is_some_and(|rest| rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'));
    let operator = first.starts_with(|c: char| "=+-*/%<>!&|?([{.;:,)]}".contains(c)) && !option && !path;
    let apart = rest.is_empty() || rest.starts_with(char::is_whitespace);
    (apart && !operator).then_some((word, first))
}

impl Word {
    /// The Rhai that the word with these arguments is.
    pub fn rhai(&self, rest: &str) -> Result<String> {
        if self.raw {
            let rest = rest.trim();
            return match rest.is_empty() {
                true => Err(self.bad("what it is to do is missing")),
                false => Ok(format!("{}{}({})", self.before, self.signature.name, literal(rest))),
            };
        }
        let tokens = split_words(rest).map_err(|why| self.bad(&why))?;
        let (mut words, mut options) = (Vec::new(), Vec::new());
        let mut tokens = tokens.into_iter();
        while let Some(token) = tokens.next() {
            match option_name(&token) {
                Some(_) if token == "--" => words.extend(tokens.by_ref()),
                Some(name) => options.push(self.option(name, &mut tokens)?),
                None => words.push(token),
            }
        }
        let mut args = self.arguments(words)?;
        if !options.is_empty() {
            args.push(format!("#{{ {} }}", options.join(", ")));
        }
        Ok(format!("{}{}({})", self.before, self.signature.name, args.join(", ")))
    }

    fn arguments(&self, words: Vec<String>) -> Result<Vec<String>> {
        let mut words = words.into_iter().peekable();
        let mut args = Vec::new();
        for param in self.positional() {
            let value = match (param.kind, words.peek()) {
                (_, None) if param.optional => break,
                (_, None) => return Err(self.bad(&format!("{} is missing", param.name))),
                ("array", _) => list(&words.by_ref().collect::<Vec<_>>()),
                _ => self.value(param.name, param.kind, &words.next().unwrap_or_default())?,
            };
            args.push(value);
        }
        match words.next() {
            Some(extra) => Err(self.bad(&format!("\"{extra}\" is one word too many"))),
            None => Ok(args),
        }
    }

    fn positional(&self) -> impl Iterator<Item = &Param> {
        self.signature.params.iter().filter(|param| param.kind != "map")
    }

    /// Names and types of what may be given as `--name VALUE`.
    pub fn options(&self) -> &[(&'static str, &'static str)] {
        self.signature.params.iter().find(|param| param.kind == "map").map_or(&[], |param| &param.options)
    }

    /// `tail: 50` of `--tail 50` or `--tail=50`; `since_s: 600` of `--since 10m`; `follow: true` of `--follow` or `-f`.
    fn option(&self, given: &str, rest: &mut impl Iterator<Item = String>) -> Result<String> {
        let (name, value) =
            given.split_once('=').map_or((given, None), |(name, value)| (name, Some(value.to_string())));
        let name = name.replace('-', "_");
        let is_it = |known: &str, kind: &str| {
            known == name
                || known.strip_suffix("_s").is_some_and(|short| short == name)
                || (kind == "bool" && name.len() == 1 && known.starts_with(&name))
        };
        let Some((known, kind)) = self.options().iter().find(|(known, kind)| is_it(known, kind)) else {
            let known = self.options().iter().map(|(known, _)| known.strip_suffix("_s").unwrap_or(known));
            let dashes = if given.len() == 1 { "-" } else { "--" };
            return Err(self.bad(&match self.options() {
                [] => format!("it has no options, and {dashes}{given} is none of its words"),
                _ => format!("no option {dashes}{given}; {}", suggestion(&name, known)),
            }));
        };
        if *kind == "bool" && value.is_none() {
            return Ok(format!("{known}: true"));
        }
        let value = value.or_else(|| rest.next());
        let value = value.ok_or_else(|| self.bad(&format!("{} takes a value", option_words(known))))?;
        if *kind == "array" {
            let items: Vec<String> = value.split(',').map(literal).collect();
            return Ok(format!("{known}: [{}]", items.join(", ")));
        }
        Ok(format!("{known}: {}", self.value(known, kind, &value)?))
    }

    fn value(&self, name: &str, kind: &str, word: &str) -> Result<String> {
        let bad = |what: &str| self.bad(&format!("{name} must be {what}, not \"{word}\""));
        match kind {
            "int" => {
                let seconds = name.ends_with("_s").then(|| seconds(word)).flatten();
                let number = seconds.or_else(|| word.parse().ok());
                let what = if name.ends_with("_s") { "seconds or a time such as 10m" } else { "a whole number" };
                number.map(|number: i64| number.to_string()).ok_or_else(|| bad(what))
            }
            "bool" if word == "true" || word == "false" => Ok(word.into()),
            "bool" => Err(bad("true or false")),
            "any" if word.parse::<i64>().is_ok() => Ok(word.into()),
            _ => Ok(literal(word)),
        }
    }

    /// How it is typed: `logs SERVICE [--tail N] [--since TIME] [-f]`.
    pub fn usage(&self) -> String {
        let mut usage = self.name.to_string();
        for param in self.positional() {
            let (name, more) = (param.name.to_uppercase(), if param.kind == "array" { "…" } else { "" });
            usage += &if param.optional { format!(" [{name}{more}]") } else { format!(" {name}{more}") };
        }
        for (name, kind) in self.options() {
            let value = match *kind {
                "bool" => String::new(),
                "int" if name.ends_with("_s") => " TIME".into(),
                "int" => " N".into(),
                _ => format!(" {}", name.to_uppercase()),
            };
            usage += &format!(" [{}{value}]", option_words(name));
        }
        usage
    }

    fn bad(&self, why: &str) -> Error {
        Error::new(Kind::Usage, format!("{} was not done", self.name), why)
            .next(format!("{}     how it is typed", self.usage()))
            .next(format!("help {}     what it does", self.signature.name))
    }
}

/// `--since` of `since_s`: a time is typed with its unit.
pub fn option_words(name: &str) -> String {
    format!("--{}", name.strip_suffix("_s").unwrap_or(name).replace('_', "-"))
}

/// `tail` of `--tail`, `f` of `-f`; a number below zero is no option.
fn option_name(token: &str) -> Option<&str> {
    let name = token.strip_prefix('-')?;
    let name = name.strip_prefix('-').unwrap_or(name);
    (token == "--" || name.starts_with(char::is_alphabetic)).then_some(name)
}

/// Seconds of `90`, `10m`, `2h`, `1d`; the unit stands at the end.
fn seconds(text: &str) -> Option<i64> {
    let (number, unit) = match text.char_indices().last()? {
        (at, 's') => (&text[..at], 1),
        (at, 'm') => (&text[..at], 60),
        (at, 'h') => (&text[..at], 3600),
        (at, 'd') => (&text[..at], 86400),
        _ => (text, 1),
    };
    number.parse::<i64>().ok().filter(|number| *number >= 0)?.checked_mul(unit)
}

fn split_words(text: &str) -> std::result::Result<Vec<String>, String> {
    shlex::split(text).ok_or_else(|| "a quote is open at its end".into())
}

/// What a shell would do more with than pass on.
const SHELL: &[char] = &['|', '&', ';', '<', '>', '$', '`', '*', '?', '~', '(', ')', '{', '}', '\n'];

/// The Rhai of `@STACK/SERVICE WORDS`, and whether it may change something; a shell is the container's own, and named.
pub fn in_container(stack: &str, service: &str, text: &str) -> Result<(String, bool)> {
    let bad = |why: &str| Error::new(Kind::Usage, format!("nothing was run in {service}"), why);
    let call = format!("stack({}).", literal(stack));
    if let Some(text) = at_terminal(text) {
        let words = if text.is_empty() { vec!["sh".into()] } else { program(text).map_err(|why| bad(&why))? };
        return Ok((format!("{call}terminal({}, {})", literal(service), list(&words)), true));
    }
    let words = program(text).map_err(|why| bad(&why))?;
    if words.is_empty() {
        return Err(bad("the words are missing").next(format!("@{stack}/{service} printenv     for example")));
    }
    let changes = host::check_read(&words).is_err();
    let verb = if changes { "exec" } else { "read" };
    Ok((format!("{call}{verb}({}, {})", literal(service), list(&words)), changes))
}

/// What follows `-t`: a program that has the terminal itself.
fn at_terminal(text: &str) -> Option<&str> {
    let rest = text.trim().strip_prefix("-t")?;
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then(|| rest.trim())
}

/// The words of a program; what needs a shell is given to one, whole.
fn program(text: &str) -> std::result::Result<Vec<String>, String> {
    match text.contains(SHELL) {
        true => Ok(["sh", "-c", text.trim()].map(String::from).to_vec()),
        false => split_words(text),
    }
}

fn list(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| literal(word)).collect::<Vec<_>>().join(", "))
}

/// The Rhai of `@HOST WORDS`, or of `!WORDS` on this machine: words that only look are a read, others a change, and
/// what needs a shell is given to one, whole. And whether it may change something.
pub fn on_host(host: &str, text: &str) -> Result<(String, bool)> {
    let text = text.trim();
    let bad = |why: &str| Error::new(Kind::Usage, format!("nothing was run on {host}"), why);
    if text.is_empty() {
        return Err(bad("the words are missing").next(format!("@{host} df -h /     for example")));
    }
    let call = format!("host({}).", literal(host));
    if let Some(text) = at_terminal(text) {
        let words = program(text).map_err(|why| bad(&why))?;
        return Ok((format!("{call}terminal({})", list(&words)), true));
    }
    if text.contains(SHELL) {
        return Ok((format!("{call}sh({}, [])", literal(text)), true));
    }
    let words = split_words(text).map_err(|why| bad(&why))?;
    let changes = host::check_read(&words).is_err();
    Ok((format!("{call}{}({})", if changes { "run" } else { "read" }, list(&words)), changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rhai(line: &str) -> Result<String> {
        assert!(split(line).is_some(), "{line}");
        let (word, rest) = find(line).expect("a word");
        word.rhai(rest)
    }

    #[test]
    fn a_line_of_words_is_a_call_by_position_and_by_option() {
        for (line, code) in [
            ("ps", "p.ps()"),
            ("logs backend", r#"p.logs("backend")"#),
            ("logs backend --tail 50 --since 10m", r#"p.logs("backend", #{ tail: 50, since_s: 600 })"#),
            ("logs --tail=5 backend", r#"p.logs("backend", #{ tail: 5 })"#),
            ("stop backend --grace 30", r#"p.stop("backend", #{ grace_s: 30 })"#),
            ("restart backend 5", r#"p.restart("backend", 5)"#),
            ("tags 5", "p.repo.tags(5)"),
            ("sql SELECT 'a b' || \"c\"  ", r#"p.db.query("SELECT 'a b' || \"c\"")"#),
            ("mark_bad v1 'loses  mail'", r#"p.mark_bad("v1", "loses  mail")"#),
            ("logs \"back end\\\"\"", r#"p.logs("back end\"")"#),
            ("logs -- -x", r#"p.logs("-x")"#),
            ("backup --touches a,b --within 2h", r#"p.backup(#{ touches: ["a", "b"], within_s: 7200 })"#),
            ("missing_files abc /app/a /app/b", r#"p.missing_files("abc", ["/app/a", "/app/b"])"#),
        ] {
            assert_eq!(rhai(line).expect(line), code, "{line}");
        }
    }

    #[test]
    fn ending_a_query_is_typed_behind_sql() {
        assert_eq!(rhai("sql cancel 4711").expect("words"), "p.cancel_query(4711)");
        assert_eq!(rhai("sql kill 4711").expect("words"), "p.kill_query(4711)");
        assert_eq!(rhai("sql cancelled").expect("a statement"), r#"p.db.query("cancelled")"#);
        assert!(rhai("sql kill").expect_err("no pid").why.contains("pid is missing"));
    }

    #[test]
    fn what_does_not_fit_is_said_with_how_it_is_typed() {
        for (line, why) in [
            ("logs", "service is missing"),
            ("logs backend more", "\"more\" is one word too many"),
            ("logs backend --tial 5", "did you mean \"tail\"?"),
            ("logs backend --tail", "--tail takes a value"),
            ("logs backend --tail many", "tail must be a whole number, not \"many\""),
            ("logs backend --since soon", "since_s must be seconds or a time such as 10m"),
            ("logs 'backend", "a quote is open"),
            ("ps --all", "it has no options"),
            ("sql", "is missing"),
        ] {
            let error = rhai(line).expect_err(line);
            assert!(error.why.contains(why), "{line}: {}", error.why);
            assert!(error.next[0].contains("how it is typed"), "{line}: {:?}", error.next);
        }
    }

    #[test]
    fn a_line_with_an_operator_after_its_first_word_is_no_words() {
        for line in [
            "ps()",
            "ps.len",
            "logs = 5",
            "x + 1",
            "x - 1",
            "a[0]",
            "f (1)",
            "5 + 5",
            "\"a\"",
            "x == y",
            "x;",
            "#{ a: 1 }",
        ] {
            assert!(split(line).is_none(), "{line}");
        }
        assert_eq!(split("  logs -f  backend "), Some(("logs", "-f  backend")));
        assert_eq!(split("ps"), Some(("ps", "")));
        assert_eq!(split("mend /srv/app"), Some(("mend", "/srv/app")));
        assert_eq!(split("mend ../app"), Some(("mend", "../app")));
    }

    #[test]
    fn words_on_a_host_are_a_read_when_they_only_look_and_a_shell_only_when_they_need_one() {
        for (text, code) in [
            ("df -h /", r#"host("a").read(["df", "-h", "/"])"#),
            ("systemctl restart nginx", r#"host("a").run(["systemctl", "restart", "nginx"])"#),
            ("ps aux | grep x", r#"host("a").sh("ps aux | grep x", [])"#),
            ("cat 'a b'", r#"host("a").read(["cat", "a b"])"#),
            ("-t top -d 5", r#"host("a").terminal(["top", "-d", "5"])"#),
            ("-t", r#"host("a").terminal([])"#),
            ("-t dmesg | less", r#"host("a").terminal(["sh", "-c", "dmesg | less"])"#),
        ] {
            assert_eq!(on_host("a", text).expect(text), (code.to_string(), !code.contains("read")));
        }
        assert!(on_host("a", "  ").is_err());
        for (text, code) in [
            ("ls /app", r#"stack("p").read("b", ["ls", "/app"])"#),
            ("/app/batch run", r#"stack("p").exec("b", ["/app/batch", "run"])"#),
            ("printenv | sort", r#"stack("p").exec("b", ["sh", "-c", "printenv | sort"])"#),
            ("-t psql -U app", r#"stack("p").terminal("b", ["psql", "-U", "app"])"#),
            ("-t", r#"stack("p").terminal("b", ["sh"])"#),
        ] {
            assert_eq!(in_container("p", "b", text).expect(text), (code.to_string(), !code.contains("read")));
        }
    }

    #[test]
    fn every_word_has_a_usage_and_no_two_have_one_name() {
        let words = all();
        for word in words {
            assert!(word.usage().starts_with(word.name));
            assert_eq!(words.iter().filter(|other| other.name == word.name).count(), 1, "{}", word.name);
        }
    }
}
