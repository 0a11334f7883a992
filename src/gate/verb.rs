//! A verb as data: the single source of policy, help, completion and the editor definitions.

use serde::Serialize;

/// What performing a verb can do to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Only looks.
    Read,
    /// Sets a state.
    Change,
    /// Loses data or service.
    Destroy,
}

impl Class {
    /// The word in help, journal and screen.
    pub fn word(self) -> &'static str {
        match self {
            Class::Read => "read",
            Class::Change => "change",
            Class::Destroy => "destroy",
        }
    }
}

/// One native function that scripts call.
#[derive(Debug)]
pub struct Verb {
    /// `system.verb`, unique: `docker.restart`.
    pub name: &'static str,
    /// The most that it can do.
    pub class: Class,
    /// True for a read that waits for, or judges, the result of earlier changes: after a skipped change it has
    /// nothing to look at, so plan mode says "would wait" instead of performing it.
    pub waits: bool,
    /// `receiver.name(param: type, option?: type) -> result`, as help shows it and as it is registered. The type of a map
    /// of options names them: `options?: #{ tail: int }`.
    pub sig: &'static str,
    /// What it does, units and ranges, what it returns, how it fails.
    pub doc: &'static str,
    /// A line that compiles, run by a test.
    pub example: &'static str,
}

/// The parts of a signature.
#[derive(Debug, PartialEq, Eq)]
pub struct Signature {
    /// `host` in `host.read(…)`, `None` for a global function.
    pub receiver: Option<&'static str>,
    /// `http` in `http::get(…)`.
    pub module: Option<&'static str>,
    /// The function's name.
    pub name: &'static str,
    /// Parameters in order; optional ones last.
    pub params: Vec<Param>,
    /// What it returns: a type, `receipt`, or `()`.
    pub result: &'static str,
}

/// One parameter of a signature.
#[derive(Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name; it carries the unit.
    pub name: &'static str,
    /// The type as written: `string`, `int`, `bool`, `array`, `map`, `any`.
    pub kind: &'static str,
    /// True when it may be left out.
    pub optional: bool,
    /// Of a map of options: their names and types.
    pub options: Vec<(&'static str, &'static str)>,
}

impl Signature {
    /// How many arguments it may be called with.
    pub fn counts(&self) -> std::ops::RangeInclusive<usize> {
        self.params.iter().filter(|param| !param.optional).count()..=self.params.len()
    }
}

impl Verb {
    /// The signature taken apart. A signature that cannot be is a mistake in the verb's constant, found by a test.
    pub fn signature(&self) -> Signature {
        Signature::parse(self.sig)
    }

    /// True when a script says what takes it back. Nobody knows that line before it was read.
    pub fn takes_inverse(&self) -> bool {
        self.sig.contains("undo: string")
    }
}

impl Signature {
    /// Takes `receiver.name(param: type) -> result` apart; a property has no parentheses.
    pub fn parse(sig: &'static str) -> Signature {
        let (call, result) = sig.rsplit_once(" -> ").unwrap_or((sig, ""));
        let (head, params) = call.split_once('(').unwrap_or((call, ""));
        let (module, head) = head.split_once("::").map_or((None, head), |(module, name)| (Some(module), name));
        let (receiver, name) = head.split_once('.').map_or((None, head), |(receiver, name)| (Some(receiver), name));
        let params = params_of(params.strip_suffix(')').unwrap_or(params)).into_iter().map(param).collect();
        Signature { receiver, module, name, params, result }
    }
}

/// What stands between commas, of which those within `#{ … }` are not meant.
fn params_of(text: &'static str) -> Vec<&'static str> {
    let (mut params, mut from, mut depth) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                params.push(&text[from..at]);
                from = at + 2;
            }
            _ => {}
        }
    }
    params.extend(text.get(from..).filter(|rest| !rest.is_empty()));
    params
}

fn param(text: &'static str) -> Param {
    let (name, kind) = text.split_once(": ").unwrap_or((text, "any"));
    let options = kind.strip_prefix("#{ ").and_then(|inside| inside.strip_suffix(" }"));
    Param {
        name: name.trim_end_matches('?'),
        kind: if options.is_some() { "map" } else { kind },
        optional: name.ends_with('?'),
        options: options.map_or_else(Vec::new, |all| all.split(", ").filter_map(|one| one.split_once(": ")).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_taken_apart() {
        const VERB: Verb = Verb {
            name: "docker.logs",
            class: Class::Read,
            waits: false,
            sig: "stack.logs(service: string, options?: #{ tail: int, since_s: int }) -> array",
            doc: "",
            example: "",
        };
        let signature = VERB.signature();
        assert_eq!((signature.receiver, signature.name), (Some("stack"), "logs"));
        let service = Param { name: "service", kind: "string", optional: false, options: Vec::new() };
        assert_eq!(signature.params[0], service);
        let options = &signature.params[1];
        assert!(options.optional && signature.params.len() == 2);
        assert_eq!((options.kind, &options.options[..]), ("map", &[("tail", "int"), ("since_s", "int")][..]));
        assert_eq!(signature.result, "array");
        let property = Signature::parse("stack.repo -> repo");
        assert_eq!((property.receiver, property.name, property.result), (Some("stack"), "repo", "repo"));
    }
}
