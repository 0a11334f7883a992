//! Unfinished Rhai as completion sees it: which call a place is in, and of what type the value before a dot is.

use super::lex::{self, Kind, Token};
use super::names::Names;
use crate::session::help::{self, Entry};
use crate::session::known::KEYWORDS;

/// Code before the cursor. Places are indices of its tokens.
pub struct Code<'a> {
    text: &'a str,
    /// Its tokens.
    pub tokens: Vec<Token>,
    names: &'a Names,
}

impl<'a> Code<'a> {
    /// Takes it apart.
    pub fn new(text: &'a str, names: &'a Names) -> Code<'a> {
        Code { text, tokens: lex::tokens(text), names }
    }

    /// The text of a token; empty where there is none.
    pub fn at(&self, place: usize) -> &'a str {
        self.tokens.get(place).map_or("", |token| token.of(self.text))
    }

    fn before(&self, place: usize, back: usize) -> &'a str {
        place.checked_sub(back).map_or("", |place| self.at(place))
    }

    fn kind(&self, place: usize) -> Option<Kind> {
        self.tokens.get(place).map(|token| token.kind)
    }

    /// The innermost bracket that is open at `end`.
    pub fn enclosing(&self, end: usize) -> Option<usize> {
        let mut depth = 0;
        (0..end).rev().find(|place| {
            match self.kind(*place) {
                Some(Kind::Close) => depth += 1,
                Some(Kind::Open) if depth > 0 => depth -= 1,
                Some(Kind::Open) => return true,
                _ => {}
            }
            false
        })
    }

    /// The bracket that the one at `close` closes.
    fn opening(&self, close: usize) -> Option<usize> {
        self.enclosing(close)
    }

    /// True when the `[` at `open` is an index and no list.
    pub fn is_index(&self, open: usize) -> bool {
        let before = open.checked_sub(1).and_then(|place| self.kind(place));
        self.at(open) == "[" && matches!(before, Some(Kind::Word | Kind::Close)) && !self.is_keyword(open - 1)
    }

    fn is_keyword(&self, place: usize) -> bool {
        KEYWORDS.contains(&self.at(place))
    }

    /// Which argument of the call opened at `open` the place `end` is in, from 0.
    pub fn argument(&self, open: usize, end: usize) -> usize {
        let mut depth = 0;
        let commas = (open + 1..end).filter(|place| {
            match self.kind(*place) {
                Some(Kind::Open) => depth += 1,
                Some(Kind::Close) => depth -= 1,
                _ => {}
            }
            depth == 0 && self.at(*place) == ","
        });
        commas.count()
    }

    /// What the call opened at `open` may be of: one function, or all of that name when the receiver's type is unknown.
    pub fn callees(&self, open: usize) -> Vec<&'static Entry> {
        if self.at(open) != "(" || open == 0 {
            return Vec::new();
        }
        let name = self.at(open - 1);
        let named = help::entries().filter(|entry| entry.signature.name == name && !entry.is_property());
        match self.before(open, 2) {
            "." | "?." => {
                let receiver = self.type_before(open - 2);
                let fits = |entry: &&'static Entry| match &receiver {
                    Some(receiver) => entry.receivers.contains(&receiver.as_str()),
                    None => !entry.receivers.is_empty(),
                };
                named.filter(fits).collect()
            }
            "::" => named.filter(|entry| entry.signature.module == Some(self.before(open, 3))).collect(),
            _ => named.filter(|entry| entry.receivers.is_empty() && entry.signature.module.is_none()).collect(),
        }
    }

    /// The type of the expression that ends before `end`, when signatures, variables or its own look tell it.
    pub fn type_before(&self, end: usize) -> Option<String> {
        let last = end.checked_sub(1)?;
        match (self.kind(last)?, self.at(last)) {
            (Kind::Text, _) => Some("string".into()),
            (Kind::Number, number) => Some(if number.contains('.') { "float" } else { "int" }.into()),
            (Kind::Close, ")") => self.result_of(self.opening(last)?),
            (Kind::Close, "]") => self.opening(last).filter(|open| !self.is_index(*open)).map(|_| "array".into()),
            (Kind::Close, "}") => self.opening(last).filter(|open| self.before(*open, 1) == "#").map(|_| "map".into()),
            (Kind::Word, name) => match self.before(last, 1) {
                "." | "?." => self.property(last - 1, name),
                "::" => None,
                _ => self.variable(last, name),
            },
            _ => None,
        }
    }

    fn result_of(&self, open: usize) -> Option<String> {
        // Several functions of one name agree or nothing is known.
        let mut results = self.callees(open).into_iter().map(|entry| entry.signature.result);
        let first = results.next()?;
        let known = results.all(|result| result == first) && !["any", "()"].contains(&first);
        known.then(|| if first == "receipt" { "map" } else { first }.into())
    }

    fn property(&self, dot: usize, name: &str) -> Option<String> {
        let receiver = self.type_before(dot)?;
        let of = |entry: &&Entry| entry.is_property() && entry.receivers.contains(&receiver.as_str());
        help::entries().filter(of).find(|entry| entry.signature.name == name).map(|e| e.signature.result.into())
    }

    /// What this very text makes of it, by an assignment or a loop over hosts, else what the session knows.
    fn variable(&self, place: usize, name: &str) -> Option<String> {
        let declared = (0..place).rev().find(|at| {
            self.at(*at) == "=" && self.before(*at, 1) == name && ["let", "const"].contains(&self.before(*at, 2))
        });
        if let Some(from) = declared {
            let is_end = |at: &usize| self.at(*at) == ";" && self.enclosing(*at) == self.enclosing(from);
            return (from..place).find(is_end).and_then(|end| self.type_before(end));
        }
        let looped = (0..place).rev().find(|at| self.at(*at) == "in" && self.before(*at, 1) == name);
        if let Some(from) = looped {
            let body = (from..place).find(|at| self.at(*at) == "{" && self.enclosing(*at) == self.enclosing(from))?;
            return self.type_before(body).filter(|each| each == "hosts").map(|_| "host".into());
        }
        let known = self.names.variables.iter().rev().find(|variable| variable.name == name);
        known.map(|variable| variable.type_name.clone())
    }

    /// Names that this very text declares.
    pub fn declared(&self) -> impl Iterator<Item = &'a str> {
        let words = (1..self.tokens.len()).filter(|at| ["let", "const", "for"].contains(&self.before(*at, 1)));
        words.filter(|at| self.kind(*at) == Some(Kind::Word)).map(|at| self.at(at))
    }
}
