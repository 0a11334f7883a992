//! The one error type: what failed, why with the fact, what to type next. Knows neither Rhai nor the terminal.

use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fmt;

/// Result with opsh's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it was; scripts branch on it and the exit code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The command line, an argument or the configuration is wrong; nothing was tried.
    Usage,
    /// The name, file, tag, container or host does not exist.
    NotFound,
    /// Policy or a person said no; nothing was done.
    Refused,
    /// The place could not be reached; nothing was done there.
    Unreachable,
    /// The place was reached and did not let us in, or is not the place we know.
    Denied,
    /// It took longer than its deadline.
    Timeout,
    /// Ctrl-C.
    Interrupted,
    /// The command was sent and its outcome is not known: it may have happened.
    Unknown,
    /// It was done and failed, or what it left behind is not what was asked for.
    Failed,
    /// A fact that the script relied on is not so.
    Unmet,
    /// Going back, or going on, stopped half way: a person is needed.
    Stuck,
    /// The journal cannot be written or does not verify.
    Journal,
}

impl Kind {
    /// The word that scripts see as `e.kind`.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Usage => "usage",
            Kind::NotFound => "not_found",
            Kind::Refused => "refused",
            Kind::Unreachable => "unreachable",
            Kind::Denied => "denied",
            Kind::Timeout => "timeout",
            Kind::Interrupted => "interrupted",
            Kind::Unknown => "unknown",
            Kind::Failed => "failed",
            Kind::Unmet => "unmet",
            Kind::Stuck => "stuck",
            Kind::Journal => "journal",
        }
    }

    /// The kind with this word, for errors that a script caught and threw again.
    pub fn from_word(word: &str) -> Option<Kind> {
        use Kind::*;
        [Usage, NotFound, Refused, Unreachable, Denied, Timeout, Interrupted, Unknown, Failed, Unmet, Stuck, Journal]
            .into_iter()
            .find(|k| k.word() == word)
    }

    /// Exit code of a run that ended with this error.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Usage => 2,
            Kind::Refused => 3,
            Kind::Unknown | Kind::Stuck => 4,
            Kind::Interrupted => 130,
            _ => 1,
        }
    }
}

/// A place in a script: file, line and column, both counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Path as the operator wrote it, or `std/…`, or `line 3` at the prompt.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A failure as an operator needs it.
#[derive(Clone, Debug)]
pub struct Error {
    /// Sort of failure.
    pub kind: Kind,
    /// What failed and where: `docker.restart failed on prod-1`.
    pub what: String,
    /// Why, with the fact: `container "backend" did not stop within 10 s`.
    pub why: String,
    /// What to type next, one line each.
    pub next: Vec<String>,
    /// The host or stack it happened on.
    pub host: Option<String>,
    /// Exit code of the command that failed.
    pub exit: Option<i64>,
    /// Exit code of opsh itself that a script asked for; else its kind decides.
    pub code: Option<u8>,
    /// Places from the innermost outwards: where it happened, then each caller.
    pub trace: Vec<Place>,
    /// Where several were asked and some failed: what became of each, in order.
    pub results: Vec<Value>,
}

impl Error {
    /// An error with what and why; add the rest with the methods below.
    pub fn new(kind: Kind, what: impl Into<String>, why: impl Into<String>) -> Error {
        Error {
            kind,
            what: what.into(),
            why: why.into(),
            next: Vec::new(),
            host: None,
            exit: None,
            code: None,
            trace: Vec::new(),
            results: Vec::new(),
        }
    }

    /// Adds a line that the operator can type next.
    pub fn next(mut self, line: impl Into<String>) -> Error {
        self.next.push(line.into());
        self
    }

    /// Names the host or stack.
    pub fn host(mut self, host: impl Into<String>) -> Error {
        self.host = Some(host.into());
        self
    }

    /// Adds the command's exit code.
    pub fn exit(mut self, code: i64) -> Error {
        self.exit = Some(code);
        self
    }

    /// Exit code of a run that ended with this error.
    pub fn exit_code(&self) -> u8 {
        self.code.unwrap_or_else(|| self.kind.exit_code())
    }

    /// The error without what became of each target: that is recorded with its effect.
    pub fn alone(&self) -> Error {
        Error { results: Vec::new(), ..self.clone() }
    }

    /// The error that [`Error::to_json`] was made of, without its places.
    pub fn from_json(json: &Value) -> Error {
        let text = |key: &str| json[key].as_str().map(String::from);
        let next = json["next"].as_array().into_iter().flatten();
        Error {
            next: next.filter_map(|line| line.as_str().map(String::from)).collect(),
            host: text("host"),
            exit: json["exit"].as_i64(),
            results: json["results"].as_array().cloned().unwrap_or_default(),
            ..Error::new(
                text("kind").and_then(|word| Kind::from_word(&word)).unwrap_or(Kind::Failed),
                text("what").unwrap_or_default(),
                text("why").unwrap_or_default(),
            )
        }
    }

    /// The map that `catch` sees and `--json` prints.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("kind".into(), json!(self.kind.word()));
        map.insert("what".into(), json!(self.what));
        map.insert("why".into(), json!(self.why));
        map.insert("next".into(), json!(self.next));
        map.insert("host".into(), json!(self.host));
        map.insert("exit".into(), json!(self.exit));
        if let Some(place) = self.trace.first() {
            map.insert("at".into(), json!(place.to_string()));
        }
        if !self.results.is_empty() {
            map.insert("results".into(), json!(self.results));
        }
        Value::Object(map)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl std::error::Error for Error {}

/// The nearest of `names` to `name`, when one is near enough to be a slip of the finger.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, candidate)| candidate)
}

/// `did you mean "prod"?`, or the whole list when nothing is near.
pub fn suggestion<'a>(name: &str, names: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(name, names.clone()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => {
            let all: Vec<&str> = names.into_iter().collect();
            if all.is_empty() { "there are none".into() } else { format!("known: {}", all.join(", ")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swapped_pair_of_letters_is_one_slip() {
        assert_eq!(nearest("prdo", ["prod", "staging"]), Some("prod"));
        assert_eq!(nearest("xyz", ["prod", "staging"]), None);
    }

    #[test]
    fn every_kind_is_found_by_its_word() {
        for kind in
            [Kind::Usage, Kind::Refused, Kind::Unknown, Kind::Interrupted, Kind::Journal, Kind::Unmet, Kind::Stuck]
        {
            assert_eq!(Kind::from_word(kind.word()), Some(kind));
        }
    }

    #[test]
    fn the_exit_codes_are_those_of_the_manual() {
        assert_eq!(Kind::Failed.exit_code(), 1);
        assert_eq!(Kind::Usage.exit_code(), 2);
        assert_eq!(Kind::Refused.exit_code(), 3);
        assert_eq!(Kind::Unknown.exit_code(), 4);
        assert_eq!(Kind::Stuck.exit_code(), 4);
        assert_eq!(Kind::Interrupted.exit_code(), 130);
    }
}
