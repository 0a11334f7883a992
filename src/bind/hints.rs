//! Lines that opsh proposes to type: whether one would change something. While somebody works on a stack, none of these is
//! proposed.

use super::function::Function;
use crate::gate::verb::Class;
use rhai::Engine;

/// The functions of this file.
pub const FUNCTIONS: &[Function] = &[Function::new(
    "only_looks(line: string) -> bool",
    "Whether a line that is proposed only looks. True when every verb in it only reads, or when it is a \
     command such as `opsh runs`; what is not known counts as a change.",
    r#"only_looks("stack(\"prod\").lock()")"#,
)];

/// Commands of opsh that change nothing on a stack.
const LOOKS: [&str; 9] = ["attach", "runs", "journal", "doctor", "doc", "help", "lint", "--version", "test"];

/// Makes them functions of scripts.
pub fn register(engine: &mut Engine) {
    engine.register_fn("only_looks", |line: &str| only_looks(line));
}

/// True for a line that only looks. A comment after five blanks is no part of it.
pub fn only_looks(line: &str) -> bool {
    let code = line.split("     ").next().unwrap_or_default().trim();
    if let Some(command) = code.strip_prefix("opsh ") {
        let first = command.split_whitespace().next().unwrap_or_default();
        let is_script = |name: &str| first.rsplit('/').next().is_some_and(|file| file == format!("{name}.rhai"));
        let changes = ["prune", "settle", "--update"];
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
        ] {
            assert!(!only_looks(line), "{line}");
        }
    }
}
