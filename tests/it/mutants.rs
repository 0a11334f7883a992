//! Mutants: each statement of a script deleted and each condition negated in turn. The cases and the module's tests must
//! notice.

use super::home::{OPSH, Ran};
use super::what_if;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

/// A piece of Rhai's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// A word or a number.
    Word,
    /// A whole string, whatever is in it.
    Text,
    /// One sign.
    Sign(u8),
}

/// Tokens with where they begin and end. Comments are none.
fn tokens(text: &str) -> Vec<(Token, usize, usize)> {
    let bytes = text.as_bytes();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b' ' | b'\n' => at += 1,
            b'/' if bytes.get(at + 1) == Some(&b'/') => at += text[at..].find('\n').unwrap_or(text.len() - at),
            quote @ (b'"' | b'`' | b'\'') => {
                at = end_of_text(bytes, at, quote);
                tokens.push((Token::Text, start, at));
            }
            c if c.is_ascii_alphanumeric() || c == b'_' || c >= 0x80 => {
                while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_' || bytes[at] >= 0x80)
                {
                    at += 1;
                }
                tokens.push((Token::Word, start, at));
            }
            sign => {
                at += 1;
                tokens.push((Token::Sign(sign), start, at));
            }
        }
    }
    tokens
}

/// Behind the end of a string; what is interpolated in it may have strings of its own.
fn end_of_text(bytes: &[u8], start: usize, quote: u8) -> usize {
    let (mut at, mut depth) = (start + 1, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'$' if quote == b'`' && bytes.get(at + 1) == Some(&b'{') => (depth, at) = (depth + 1, at + 1),
            b'}' if depth > 0 => depth -= 1,
            b'"' | b'`' if depth > 0 => at = end_of_text(bytes, at, bytes[at]) - 1,
            c if c == quote && depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

/// The same script with one thing wrong.
struct Mutant {
    line: usize,
    what: String,
    text: String,
}

struct Mutator<'a> {
    text: &'a str,
    tokens: Vec<(Token, usize, usize)>,
    mutants: Vec<Mutant>,
}

fn mutants(text: &str) -> Vec<Mutant> {
    let mut mutator = Mutator { text, tokens: tokens(text), mutants: Vec::new() };
    mutator.statements(0, mutator.tokens.len());
    mutator.conditions();
    mutator.mutants.sort_by_key(|mutant| mutant.line);
    mutator.mutants
}

impl Mutator<'_> {
    fn word(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |(_, start, end)| &self.text[*start..*end])
    }

    fn is(&self, at: usize, sign: u8) -> bool {
        self.tokens.get(at).is_some_and(|(token, ..)| *token == Token::Sign(sign))
    }

    /// Behind the sign that closes the one at `open`.
    fn behind(&self, open: usize) -> usize {
        let mut depth = 0;
        for at in open..self.tokens.len() {
            match self.tokens[at].0 {
                Token::Sign(b'{' | b'(' | b'[') => depth += 1,
                Token::Sign(b'}' | b')' | b']') => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return at + 1;
            }
        }
        self.tokens.len()
    }

    /// The `{` of the block that belongs to the word at `at`.
    fn block_of(&self, at: usize) -> usize {
        let mut at = at + 1;
        while !self.is(at, b'{') && at < self.tokens.len() {
            at = match self.tokens[at].0 {
                Token::Sign(b'#') => self.behind(at + 1),
                Token::Sign(b'(' | b'[') => self.behind(at),
                _ => at + 1,
            };
        }
        at
    }

    /// Each statement from one token to another, and each in the blocks within.
    fn statements(&mut self, from: usize, to: usize) {
        let mut at = from;
        while at < to {
            let start = at;
            let word = if self.word(at) == "private" { self.word(at + 1) } else { self.word(at) }.to_string();
            if ["if", "for", "while", "loop", "try", "switch", "fn"].contains(&word.as_str()) {
                at = self.behind(self.block_of(at));
                while ["else", "catch"].contains(&self.word(at)) {
                    at = self.behind(self.block_of(at));
                }
            }
            // What goes on behind a block is one expression with it; else it ends there.
            let is_block = at > start && !self.is(at, b'.') && !self.is(at, b';');
            while !is_block && at < to && !self.is(at, b';') {
                at = match self.tokens[at].0 {
                    Token::Sign(b'{' | b'(' | b'[') => self.behind(at),
                    _ => at + 1,
                };
            }
            at = if self.is(at, b';') && at < to { at + 1 } else { at };
            // Without a function or an import nothing compiles; a deleted variable is that, too.
            if !["fn", "import", "let"].contains(&word.as_str()) {
                self.delete(start, at);
            }
            self.blocks(start, at);
        }
    }

    fn blocks(&mut self, from: usize, to: usize) {
        let mut at = from;
        let mut of_switch = None;
        while at < to {
            if self.word(at) == "switch" {
                of_switch = Some(self.block_of(at));
            }
            if self.is(at, b'{') && of_switch != Some(at) && !(at > 0 && self.is(at - 1, b'#')) {
                let behind = self.behind(at);
                self.statements(at + 1, behind - 1);
                at = behind;
            } else {
                at += 1;
            }
        }
    }

    fn conditions(&mut self) {
        for at in 0..self.tokens.len() {
            if self.tokens[at].0 == Token::Word && ["if", "while"].contains(&self.word(at)) {
                let (start, end) = (self.tokens[at].2, self.tokens[self.block_of(at)].1);
                let condition = &self.text[start..end];
                let text = format!("{} !({}) {}", &self.text[..start], condition.trim(), &self.text[end..]);
                self.add(start, format!("negated: {}", condition.trim()), text);
            }
        }
    }

    fn delete(&mut self, from: usize, to: usize) {
        let (start, end) = (self.tokens[from].1, self.tokens[to - 1].2);
        let what = self.text[start..end].lines().next().unwrap_or_default().to_string();
        let text = format!("{}{}", &self.text[..start], &self.text[end..]);
        self.add(start, format!("deleted: {what}"), text);
    }

    fn add(&mut self, at: usize, what: String, text: String) {
        let line = self.text[..at].matches('\n').count() + 1;
        self.mutants.push(Mutant { line, what, text });
    }
}

#[test]
fn each_statement_is_deleted_and_each_condition_negated() {
    let text = "let x = 1;\nif x > 0 && [1].some(|y| { y }) { f(`${x}{`); } else { g(#{ a: 1 }); }\nfor y in [1] { h(y) }\ntry { i(); } catch { }\n";
    let all: Vec<String> = mutants(text).into_iter().map(|mutant| format!("{} {}", mutant.line, mutant.what)).collect();
    let wanted = [
        "2 deleted: if x > 0 && [1].some(|y| { y }) { f(`${x}{`); } else { g(#{ a: 1 }); }",
        "2 deleted: y",
        "2 deleted: f(`${x}{`);",
        "2 deleted: g(#{ a: 1 });",
        "2 negated: x > 0 && [1].some(|y| { y })",
        "3 deleted: for y in [1] { h(y) }",
        "3 deleted: h(y)",
        "4 deleted: try { i(); } catch { }",
        "4 deleted: i();",
    ];
    assert_eq!(all, wanted);
    let negated = mutants("if a { b } else if c { d }").into_iter().map(|mutant| mutant.text).collect::<Vec<_>>();
    assert!(negated.contains(&"if !(a) { b } else if c { d }".to_string()), "{negated:?}");
    assert!(negated.contains(&"if a { b } else if !(c) { d }".to_string()), "{negated:?}");
}

/// The parts of this repository that tell whether a mutant is noticed, in a folder of their own; the script takes its module
/// from there and not from the binary.
struct Copy(tempfile::TempDir);

/// The scripts that the module serves.
const SCRIPTS: [&str; 2] = ["scripts/rollback.rhai", "scripts/deploy.rhai"];

impl Copy {
    fn new() -> Copy {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let copy = Copy(tempfile::tempdir().unwrap());
        let put = |name: &str, text: String| {
            let path = copy.0.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
        for name in SCRIPTS.iter().chain(&["stdlib/rollout.rhai"]) {
            put(name, read(name).replace("\"std/rollout\"", "\"../stdlib/rollout\""));
        }
        put(
            "tests/stdlib/rollout_test.rhai",
            read("tests/stdlib/rollout_test.rhai").replace("\"std/rollout\"", "\"../../stdlib/rollout\""),
        );
        put("tests/stdlib/opsh.toml", read("tests/stdlib/opsh.toml"));
        for case in std::fs::read_dir(root.join("tests/cases")).unwrap().flatten() {
            let case = format!("tests/cases/{}", case.file_name().display());
            let played = |command: String| SCRIPTS.iter().any(|script| command.starts_with(script));
            if std::fs::read_to_string(root.join(&case).join("command")).is_ok_and(played) {
                for file in ["recording.jsonl", "command", "screen", "opsh.toml"] {
                    put(&format!("{case}/{file}"), read(&format!("{case}/{file}")));
                }
            }
        }
        // The module is at another place here, which errors name.
        copy.test(&["--update", "tests/cases"]).exits(0);
        copy
    }

    fn test(&self, words: &[&str]) -> Ran {
        let mut command = Command::new(OPSH);
        command.arg("test").args(words).current_dir(self.0.path()).env("XDG_STATE_HOME", self.0.path().join("state"));
        Ran::of(command.output().unwrap())
    }

    /// True when a test notices.
    fn notices(&self) -> bool {
        self.test(&["tests"]).code != Some(0) || !what_if::unsaid(self.0.path()).is_empty()
    }

    /// Tries mutants of this file one after the other, until there are none left.
    fn try_each(&self, file: &str, left: &Mutex<std::vec::IntoIter<Mutant>>, survivors: &Mutex<Vec<String>>) {
        assert!(!self.notices(), "something is wrong without any mutant: {:?}", self.test(&["tests"]));
        let next = || left.lock().unwrap().next();
        while let Some(mutant) = next() {
            std::fs::write(self.0.path().join(file), &mutant.text).unwrap();
            if !self.notices() {
                let survivor = format!("{file}:{} {}", mutant.line, mutant.what);
                let _ = writeln!(std::io::stderr(), "no test notices {survivor}");
                survivors.lock().unwrap().push(survivor);
            }
        }
    }
}

/// Mutants of this file that no test notices, each with its line. Two are tried at once.
fn survivors(file: &str) -> Vec<String> {
    let copies = [Copy::new(), Copy::new()];
    let whole = std::fs::read_to_string(copies[0].0.path().join(file)).unwrap();
    let (left, survivors) = (Mutex::new(mutants(&whole).into_iter()), Mutex::default());
    std::thread::scope(|scope| {
        for copy in &copies {
            scope.spawn(|| copy.try_each(file, &left, &survivors));
        }
    });
    survivors.into_inner().unwrap()
}

#[test]
fn no_mutant_of_the_rollback_survives() {
    let survivors = survivors("scripts/rollback.rhai");
    assert!(survivors.is_empty(), "no test notices:\n{}", survivors.join("\n"));
}

/// For a person: `OPSH_MUTANTS=stdlib/rollout.rhai` lists the survivors of that file as they are found, in minutes.
#[test]
fn the_survivors_of_the_file_that_is_asked_for_are_listed() {
    let Ok(file) = std::env::var("OPSH_MUTANTS") else { return };
    let survivors = survivors(&file);
    assert!(survivors.is_empty(), "no test notices:\n{}", survivors.join("\n"));
}
