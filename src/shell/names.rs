//! What can be named at the prompt, all of it known before a key is pressed.

use super::lex::{self, Kind};
use crate::session::known::Variable;

/// What completion may offer; nothing is asked of a host or of the engine for it.
#[derive(Clone, Default)]
pub struct Names {
    /// Words of the current stack, typed without Rhai around them.
    pub words: Vec<Word>,
    /// `:use` and the like, each with one line about it.
    pub commands: Vec<(String, String)>,
    /// Stacks.
    pub stacks: Vec<String>,
    /// Hosts.
    pub hosts: Vec<String>,
    /// Words that `hosts(TAG)` finds hosts by.
    pub host_tags: Vec<String>,
    /// Services.
    pub services: Vec<String>,
    /// Containers.
    pub containers: Vec<String>,
    /// Tags of releases.
    pub tags: Vec<String>,
    /// Script files.
    pub scripts: Vec<String>,
    /// What `import` finds.
    pub modules: Vec<String>,
    /// What `help` explains: `docker.restart`, `stack`.
    pub topics: Vec<String>,
    /// Variables of the session.
    pub variables: Vec<Variable>,
    /// Functions of earlier lines: `name(a, b)`.
    pub functions: Vec<String>,
}

/// A word of the current stack: `logs`.
#[derive(Clone, Debug, Default)]
pub struct Word {
    /// As it is typed.
    pub name: String,
    /// How it is called: `logs SERVICE [--tail N]`.
    pub signature: String,
    /// One line about it.
    pub doc: String,
    /// Names of its parameters in order; `service`, `tag`, `topic` and the like decide what is offered.
    pub params: Vec<String>,
    /// Its options: `--tail`.
    pub options: Vec<String>,
}

impl Names {
    /// True for a line that only the language can say is whole. `:command`, `@host …`, `!command` and a known word
    /// that no Rhai follows are whole as they are.
    pub fn is_rhai(&self, line: &str) -> bool {
        !line.trim_start().starts_with([':', '@', '!']) && self.word_of(line).is_none()
    }

    /// The word that `line` begins with, when it is one and no Rhai: `logs backend`, not `logs = 1` or `logs.len()`.
    pub fn word_of(&self, line: &str) -> Option<&Word> {
        let tokens = lex::tokens(line);
        let first = tokens.first().filter(|token| token.kind == Kind::Word)?;
        let word = self.words.iter().find(|word| word.name == first.of(line))?;
        let goes_on = match tokens.get(1) {
            Some(next) if next.from == first.to => true,
            Some(next) => matches!(next.of(line), "=" | "." | "?." | "(" | "[" | ";" | "+" | "*" | "/" | "::"),
            None => false,
        };
        (!goes_on).then_some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_rhai_follows_is_rhai() {
        let names = Names { words: vec![Word { name: "logs".into(), ..Word::default() }], ..Names::default() };
        for line in ["logs", "logs backend", " logs -f", ":use (", "@prod df {", "!ls (", "logs 'it"] {
            assert!(!names.is_rhai(line), "{line}");
        }
        for line in ["logs(", "logs.len()", "logs = 1", "logs[0]", "print(logs", "x", "logs_of"] {
            assert!(names.is_rhai(line), "{line}");
        }
    }
}
