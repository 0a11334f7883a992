//! What is wrong with a script, as far as its text tells without running a line: `opsh lint`.

mod callees;
mod chain;
mod hosts;
mod text;
mod unused;
mod walk;

use super::header::Header;
use crate::engine;
use crate::sources;
use rhai::{AST, Position};
use std::collections::BTreeSet;

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// It does not parse.
    Parse,
    /// A name that is declared nowhere.
    UnknownVariable,
    /// A function, or a verb named in a list, that there is not.
    UnknownFunction,
    /// A method or property that nothing there has.
    UnknownMethod,
    /// An import that finds nothing, or a module that was not imported.
    UnknownModule,
    /// More or fewer arguments than it takes.
    Arity,
    /// A key that is no option of what it is given to.
    Option,
    /// A result that says whether all is well, and that nobody looks at.
    UnusedResult,
    /// A host's address in place of its name.
    HostAddress,
    /// A value pasted into a shell's text.
    InterpolatedSh,
    /// A step that sets a variable from outside.
    CapturedAssignment,
    /// A function that takes the place of a closure's variable.
    FunctionName,
    /// An option of ssh that trusts whoever answers.
    HostKeyChecking,
    /// An exit code that there is not.
    ExitCode,
    /// A script without a header that says what it is for and how it is called.
    Header,
    /// A script of which no run is kept as a test.
    Case,
}

impl Rule {
    /// Its short name.
    pub fn word(self) -> &'static str {
        match self {
            Rule::Parse => "parse",
            Rule::UnknownVariable => "unknown-variable",
            Rule::UnknownFunction => "unknown-function",
            Rule::UnknownMethod => "unknown-method",
            Rule::UnknownModule => "unknown-module",
            Rule::Arity => "arity",
            Rule::Option => "option",
            Rule::UnusedResult => "unused-result",
            Rule::HostAddress => "host-address",
            Rule::InterpolatedSh => "interpolated-sh",
            Rule::CapturedAssignment => "captured-assignment",
            Rule::FunctionName => "function-name",
            Rule::HostKeyChecking => "host-key-checking",
            Rule::ExitCode => "exit-code",
            Rule::Header => "header",
            Rule::Case => "case",
        }
    }
}

/// Something that is wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file as it was named.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// What it is about.
    pub rule: Rule,
    /// Why it is wrong.
    pub why: String,
    /// What to do.
    pub fix: String,
}

/// What is wrong with the text of the file at `path`, in the order of its lines. `cases` are the commands of the cases that
/// are kept beside it, when there are any.
pub fn lint(path: &str, text: &str, cases: Option<&[String]>) -> Vec<Finding> {
    let finding = |at: Position, rule, why: String, fix: String| {
        let (line, column) = (at.line().unwrap_or(1), at.position().unwrap_or(1));
        Finding { path: path.into(), line, column, rule, why, fix }
    };
    // Functions and closures that are alike are one to the parser: what is wrong with it is said once.
    let mut findings = BTreeSet::new();
    let parsed = engine::parser().compile(sources::code(text));
    match &parsed {
        Err(error) => {
            let why = error.err_type().to_string();
            findings.insert(finding(
                error.position(),
                Rule::Parse,
                why,
                "opsh runs nothing of a file like this".into(),
            ));
        }
        Ok(ast) => {
            let found = walk::Walk::new(path, ast).run();
            findings.extend(found.into_iter().map(|one| finding(one.at, one.rule, one.why, one.fix)));
        }
    }
    if let Some(name) = in_scripts(path) {
        let about = about_script(&name, text, parsed.ok().as_ref(), cases);
        findings.extend(about.into_iter().map(|(rule, why, fix)| finding(Position::NONE, rule, why, fix)));
    }
    let mut findings: Vec<Finding> = findings.into_iter().collect();
    findings.sort_by_key(|one| (one.line, one.column));
    findings
}

/// The path from the folder of scripts on, of what lies in one.
fn in_scripts(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').collect();
    let (_, folders) = parts.split_last()?;
    let at = folders.iter().rposition(|folder| *folder == "scripts")?;
    Some(parts[at..].join("/"))
}

fn about_script(name: &str, text: &str, ast: Option<&AST>, cases: Option<&[String]>) -> Vec<(Rule, String, String)> {
    let mut about = Vec::new();
    let header = Header::parse(text);
    // What has nothing but functions is imported, not run.
    let is_module = ast.is_some_and(|ast| ast.statements().is_empty() && ast.has_functions());
    if header.text.is_empty() || (header.usage.is_empty() && !is_module) {
        let why = match header.text.is_empty() {
            true => "no //! lines at its top say what it is for",
            false => "its header has no usage: line, so that any argument is taken",
        };
        let fix =
            format!("//! usage: opsh {name} …     it is what --help shows, and what arguments are checked against");
        about.push((Rule::Header, why.into(), fix));
    }
    let is_played = |command: &String| {
        let script = command.split_whitespace().next().unwrap_or("");
        script == name || script.ends_with(&format!("/{name}"))
    };
    if cases.is_some_and(|cases| !is_module && !cases.iter().any(is_played)) {
        let why = "no folder of tests/cases has a command that runs it".into();
        let fix = "opsh journal export RUN > tests/cases/NAME/recording.jsonl     makes a past run a test".into();
        about.push((Rule::Case, why, fix));
    }
    about
}
