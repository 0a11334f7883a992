//! What can be named at the prompt, all of it known before a key is pressed.

use super::lex::{self, Kind};
use crate::session::known::{Arrived, Variable};
use crate::session::words;
use std::sync::Arc;
use std::time::SystemTime;

/// What completion may offer; nothing is asked of a host or of the engine for it.
#[derive(Clone, Default)]
pub struct Names {
    /// A script failed, and its choices are words.
    pub failed: bool,
    /// The stack in use.
    pub stack: Option<String>,
    /// Its words, typed without Rhai around them; see [`Names::words`].
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
    /// Names of these three kinds that come from a host at any time; see [`Names::bring_in`].
    pub arrived: Arrived,
    /// What `import` finds.
    pub modules: Vec<String>,
    /// What `help` explains: `docker.restart`, `stack`.
    pub topics: Vec<String>,
    /// When a file was last put into the folders that scripts are offered of.
    pub scripts_changed: [Option<SystemTime>; 2],
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

impl Word {
    /// A verb of the stack in use.
    pub fn of_verb(word: &words::Word) -> Word {
        let params = word.signature.params.iter().filter(|param| param.kind != "map");
        Word {
            name: word.name.into(),
            signature: word.usage(),
            doc: word.doc.split(". ").next().unwrap_or_default().trim_end_matches('.').into(),
            params: params.map(|param| param.name.into()).collect(),
            options: word.options().iter().map(|(name, _)| words::option_words(name)).collect(),
        }
    }

    /// A script, by its usage line.
    pub fn of_script((name, usage, doc): (String, String, String)) -> Word {
        let options = usage.split(['[', ' ']).filter(|word| word.starts_with("--"));
        Word {
            options: options.map(|word| word.trim_end_matches(']').into()).collect(),
            params: vec!["tag".into()],
            signature: format!("{name} {usage}"),
            doc,
            name,
        }
    }
}

impl Names {
    /// Words that no variable has the name of.
    pub fn words(&self) -> impl Iterator<Item = &Word> {
        self.words.iter().filter(|word| !self.variables.iter().any(|variable| variable.name == word.name))
    }

    /// Takes in what has arrived by now.
    pub fn bring_in(&mut self) {
        let arrived = Arc::clone(&self.arrived);
        let Ok(seen) = arrived.lock() else { return };
        for (names, more) in [
            (&mut self.services, &seen.services),
            (&mut self.containers, &seen.containers),
            (&mut self.tags, &seen.tags),
        ] {
            let new: Vec<String> = more.iter().filter(|name| !names.contains(name)).cloned().collect();
            names.extend(new);
        }
    }

    /// True for a line that only the language can say is whole. `:command`, `@host …`, `!command` and a known word
    /// that no Rhai follows are whole as they are.
    pub fn is_rhai(&self, line: &str) -> bool {
        !line.trim_start().starts_with([':', '@', '!']) && self.word_of(line).is_none()
    }

    /// The word that `line` begins with, when it is one and no Rhai: `logs backend`, not `logs = 1` or `logs.len()`.
    pub fn word_of(&self, line: &str) -> Option<&Word> {
        let tokens = lex::tokens(line);
        let first = tokens.first().filter(|token| token.kind == Kind::Word)?;
        let word = self.words().find(|word| word.name == first.of(line))?;
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
