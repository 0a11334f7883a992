//! What Tab offers: a pure function of the line, the cursor and the names that are known.

use super::code::Code;
use super::lex::Kind;
pub use super::names::{Names, Word};
use crate::session::help::{self, Entry};
use crate::session::known::KEYWORDS;

/// Something that may stand at the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What is put in place of what was typed of it.
    pub replacement: String,
    /// The line of it in a list of several.
    pub display: String,
}

impl Candidate {
    fn new(replacement: impl Into<String>, what: &str) -> Candidate {
        let replacement = replacement.into();
        let display = format!("{replacement}  {what}").trim_end().into();
        Candidate { replacement, display }
    }

    /// Called: `logs(`, or `ps()` when there is nothing to be given.
    fn call(name: &str, signature: &str, what: &str) -> Candidate {
        let params = signature.split_once('(').map_or("", |(_, rest)| rest);
        let brackets = if params.starts_with(')') { "()" } else { "(" };
        let display = format!("{signature}  {what}").trim_end().into();
        Candidate { replacement: format!("{name}{brackets}"), display }
    }

    fn of(entry: &Entry) -> Candidate {
        let called = entry.sig.split_once('.').filter(|_| entry.signature.receiver.is_some());
        let signature = called.map_or(entry.sig, |(_, call)| call);
        let name = entry.signature.name;
        match entry.is_property() {
            true => Candidate { replacement: name.into(), display: format!("{signature}  {}", entry.summary()) },
            false => Candidate::call(name, signature, entry.summary()),
        }
    }
}

/// Methods that Rhai itself has, by type.
const METHODS: &[(&str, &str)] = &[
    (
        "array",
        "all append chop clear contains dedup drain extract filter find find_map for_each get index_of insert is_empty \
         len map pad pop push reduce reduce_rev remove retain reverse set shift some sort splice split \
         truncate zip",
    ),
    (
        "string",
        "bytes chars clear contains crop ends_with get index_of is_empty len make_lower make_upper pad pop remove \
         replace set split split_rev starts_with sub_string to_lower to_upper trim truncate",
    ),
    ("map", "clear contains drain fill_with filter get is_empty keys len mixin remove retain set to_json values"),
    ("int", "abs is_even is_odd is_zero max min sign to_float to_string"),
    ("float", "abs ceiling floor is_nan max min round to_int to_string"),
];

/// Where the replaced text begins, and what may stand there instead. `position` is a byte of `line` between characters.
pub fn complete(line: &str, position: usize, names: &Names) -> (usize, Vec<Candidate>) {
    let (head, tail) = line.split_at(position);
    let (start, mut found) = match typed(head) {
        Typed::Command(word) => (position - word.len(), command(word, names)),
        Typed::CommandFile(path) => (position - path.len(), beginning(path, &names.scripts, "script")),
        Typed::At(place) => at(position, place, names),
        Typed::Nothing => (position, Vec::new()),
        Typed::Rest => match names.word_of(head).filter(|word| head.trim_start().len() > word.name.len()) {
            Some(word) => argument(head, word, names),
            None => rhai(head, names),
        },
    };
    // What stands behind the cursor already is not put there once more.
    let next = tail.chars().next().filter(|next| "\"`(".contains(*next));
    for candidate in &mut found {
        let there = match next {
            Some('(') => candidate.replacement.find('('),
            Some(quote) => candidate.replacement.strip_suffix(quote).map(str::len),
            None => None,
        };
        candidate.replacement.truncate(there.unwrap_or(usize::MAX));
    }
    found.sort_by(|a, b| a.replacement.cmp(&b.replacement).then_with(|| a.display.cmp(&b.display)));
    found.dedup_by(|a, b| a.replacement == b.replacement);
    (start, found)
}

/// What a line is by how it begins.
enum Typed<'l> {
    Command(&'l str),
    CommandFile(&'l str),
    At(&'l str),
    Nothing,
    Rest,
}

fn typed(head: &str) -> Typed<'_> {
    let line = head.trim_start();
    if let Some(path) = line.strip_prefix(":load ").map(str::trim_start) {
        return if path.contains(' ') { Typed::Nothing } else { Typed::CommandFile(path) };
    }
    let is_one_word = !line.contains(char::is_whitespace);
    match line.chars().next() {
        Some(':') if is_one_word => Typed::Command(line),
        Some('@') if is_one_word => Typed::At(&line[1..]),
        Some(':' | '@' | '!') => Typed::Nothing,
        _ => Typed::Rest,
    }
}

fn beginning(typed: &str, names: &[String], what: &str) -> Vec<Candidate> {
    names.iter().filter(|name| name.starts_with(typed)).map(|name| Candidate::new(name, what)).collect()
}

fn command(word: &str, names: &Names) -> Vec<Candidate> {
    let those = names.commands.iter().filter(|(name, _)| name.starts_with(word));
    those.map(|(name, about)| Candidate::new(name, about)).collect()
}

/// `@host`, `@stack/service`.
fn at(position: usize, place: &str, names: &Names) -> (usize, Vec<Candidate>) {
    if let Some((_, service)) = place.split_once('/') {
        return (position - service.len(), beginning(service, &names.services, "service"));
    }
    let mut found = beginning(place, &names.hosts, "host");
    let stacks = names.stacks.iter().filter(|name| name.starts_with(place));
    found.extend(stacks.map(|name| Candidate::new(format!("{name}/"), "stack")));
    (position - place.len(), found)
}

/// An argument of a word: `logs ba`, `logs --ta`.
fn argument(head: &str, word: &Word, names: &Names) -> (usize, Vec<Candidate>) {
    let last = head.rsplit(char::is_whitespace).next().unwrap_or("");
    let start = head.len() - last.len();
    if last.starts_with('-') {
        return (start, beginning(last, &word.options, &word.signature));
    }
    let given = head[..start].split_whitespace().skip(1).filter(|given| !given.starts_with('-')).count();
    let param = word.params.get(given).map_or("", String::as_str);
    let found = of_param(param, "", names).into_iter().filter(|(name, _)| name.starts_with(last));
    (start, found.map(|(name, what)| Candidate::new(name, what)).collect())
}

/// The names that a parameter takes, each with what it is; `function` is what it is a parameter of.
fn of_param<'n>(param: &str, function: &str, names: &'n Names) -> Vec<(&'n str, &'static str)> {
    let lists: &[(&'n [String], &'static str)] = match (param, function) {
        ("stack", _) | ("name", "stack") => &[(&names.stacks, "stack")],
        ("host", _) | ("name", "host") => &[(&names.hosts, "host")],
        ("which", "hosts") => &[(&names.hosts, "host"), (&names.host_tags, "tag of hosts")],
        ("topic", _) | ("name", "help") => &[(&names.topics, "")],
        ("service", _) => &[(&names.services, "service")],
        ("container", _) => &[(&names.containers, "container")],
        ("tag", _) => &[(&names.tags, "tag")],
        ("script", _) => &[(&names.scripts, "script")],
        _ => &[],
    };
    lists.iter().flat_map(|(list, what)| list.iter().map(|name| (name.as_str(), *what))).collect()
}

fn rhai(head: &str, names: &Names) -> (usize, Vec<Candidate>) {
    let code = Code::new(head, names);
    let count = code.tokens.len();
    let touching = code.tokens.last().filter(|token| token.to == head.len());
    match touching.map(|token| (token.kind, token.ended, token.of(head))) {
        // A line comment ends with its line.
        Some((Kind::Comment, ..)) | Some((Kind::Number, ..)) => (head.len(), Vec::new()),
        Some((Kind::Text, false, text)) => text_at(&code, count - 1, text, head.len(), names),
        Some((Kind::Word, _, word)) => (head.len() - word.len(), word_at(&code, count - 1, word, names)),
        _ => (head.len(), word_at(&code, count, "", names)),
    }
}

/// Within a string: what the parameter takes, the module's name, the map's key.
fn text_at(code: &Code<'_>, place: usize, text: &str, end: usize, names: &Names) -> (usize, Vec<Candidate>) {
    let quote = text.chars().next().unwrap_or('"');
    let inside = text.strip_prefix(['"', '`']).unwrap_or(text);
    let start = end - inside.len();
    let offered = if place > 0 && code.at(place - 1) == "import" {
        names.modules.iter().map(|name| (name.as_str(), "module")).collect()
    } else {
        named_in(code, place, names)
    };
    let escaped = offered.into_iter().map(|(name, what)| (escape(name, quote), what));
    let found = escaped.filter(|(name, _)| text.starts_with(['"', '`']) && name.starts_with(inside));
    (start, found.map(|(name, what)| Candidate::new(format!("{name}{quote}"), what)).collect())
}

fn named_in<'n>(code: &Code<'_>, place: usize, names: &'n Names) -> Vec<(&'n str, &'static str)> {
    let Some(open) = code.enclosing(place) else { return Vec::new() };
    if code.is_index(open) {
        let variable = names.variables.iter().rev().find(|variable| variable.name == code.at(open - 1));
        return variable.map(|v| v.keys.iter().map(|key| (key.as_str(), "key")).collect()).unwrap_or_default();
    }
    // One of a list is what the list is of.
    let (open, place) = match code.at(open) {
        "[" => (code.enclosing(open).unwrap_or(open), open),
        _ => (open, place),
    };
    let argument = code.argument(open, place);
    let params = code.callees(open).into_iter().filter_map(|entry| {
        let param = entry.signature.params.get(argument)?;
        Some(of_param(param.name, entry.signature.name, names))
    });
    params.flatten().collect()
}

/// As it stands between the quotes.
fn escape(name: &str, quote: char) -> String {
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            // A back-tick string has no escapes: its quote is doubled.
            '`' if quote == '`' => escaped.push_str("``"),
            c if quote == '`' => escaped.push(c),
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            c if c == quote => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
    }
    if quote == '`' { escaped.replace("${", "\\${") } else { escaped }
}

/// A word of code; `place` is where it is, or would be.
fn word_at(code: &Code<'_>, place: usize, typed: &str, names: &Names) -> Vec<Candidate> {
    let before = place.checked_sub(1).map_or("", |before| code.at(before));
    let mut found = match before {
        "." | "?." => members(code, place - 1, names),
        "::" => of_module(code.at(place.saturating_sub(2))),
        // A new name.
        "let" | "const" | "fn" | "for" => Vec::new(),
        "{" | "," if is_in_map(code, place) => option_names(code, place),
        _ => globals(code, place == 0, !typed.is_empty(), names),
    };
    found.retain(|candidate| candidate.replacement.starts_with(typed));
    found
}

fn members(code: &Code<'_>, dot: usize, names: &Names) -> Vec<Candidate> {
    let Some(receiver) = code.type_before(dot) else { return Vec::new() };
    let verbs = help::entries().filter(|entry| entry.receivers.contains(&receiver.as_str()));
    let own = METHODS.iter().filter(|(of, _)| *of == receiver).flat_map(|(_, all)| all.split_whitespace());
    let variable = dot.checked_sub(1).filter(|at| *at == 0 || code.at(at - 1) != ".").map(|at| code.at(at));
    let keys = names.variables.iter().filter(|known| Some(known.name.as_str()) == variable && receiver == "map");
    let plain = |key: &&String| key.chars().all(|c| c.is_alphanumeric() || c == '_') && !key.is_empty();
    let keys = keys.flat_map(|known| known.keys.iter()).filter(plain).map(|key| Candidate::new(key, "key"));
    verbs
        .map(Candidate::of)
        .chain(own.map(|name| Candidate::call(name, &format!("{name}(…)"), "")))
        .chain(keys)
        .collect()
}

fn of_module(module: &str) -> Vec<Candidate> {
    let those = help::entries().filter(|entry| entry.signature.module == Some(module));
    those.map(|entry| Candidate::call(entry.signature.name, entry.sig, entry.summary())).collect()
}

fn is_in_map(code: &Code<'_>, place: usize) -> bool {
    code.enclosing(place).is_some_and(|open| open > 0 && code.at(open) == "{" && code.at(open - 1) == "#")
}

/// Options of the call that the map is an argument of.
fn option_names(code: &Code<'_>, place: usize) -> Vec<Candidate> {
    let map = code.enclosing(place).unwrap_or(0);
    let Some(call) = code.enclosing(map) else { return Vec::new() };
    let argument = code.argument(call, map);
    let callees = code.callees(call).into_iter();
    let options = callees.filter_map(|entry| entry.signature.params.get(argument)).flat_map(|param| &param.options);
    options.map(|(name, kind)| Candidate::new(format!("{name}: "), kind)).collect()
}

fn globals(code: &Code<'_>, first: bool, keywords: bool, names: &Names) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = code.declared().map(|name| Candidate::new(name, "")).collect();
    found.extend(names.variables.iter().map(|known| Candidate::new(&known.name, &known.type_name)));
    found.extend(names.functions.iter().map(|call| Candidate::call(call.split('(').next().unwrap_or(call), call, "")));
    for entry in help::entries().filter(|entry| entry.receivers.is_empty()) {
        match entry.signature.module {
            Some(module) => found.push(Candidate::new(format!("{module}::"), "module")),
            None => found.push(Candidate::of(entry)),
        }
    }
    if first {
        let word = |word: &Word| Candidate {
            replacement: word.name.clone(),
            display: format!("{}  {}", word.signature, word.doc),
        };
        found.extend(names.words().map(word));
    }
    if keywords {
        found.extend(KEYWORDS.iter().map(|word| Candidate::new(*word, "keyword")));
    }
    found
}

#[cfg(test)]
mod tests;
