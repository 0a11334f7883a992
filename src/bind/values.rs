//! Rhai values and JSON, and errors on their way through Rhai.

use crate::bind::{db, fleet, git, host, prepare, stack};
use crate::error::{Error, Kind, Place};
use crate::{memory, shield};
use rhai::{Dynamic, EvalAltResult, FnPtr, Map, Position};
use serde_json::Value;
use std::any::TypeId;

/// Result of a native function for Rhai.
pub type RhaiResult<T = Dynamic> = std::result::Result<T, Box<EvalAltResult>>;

/// Levels of lists and maps that a value may have where it becomes JSON: what is recorded must be read again, and the
/// reader of JSON stops at 128.
pub const DEEPEST: usize = 100;

/// Bytes of text that a list or a map may hold where it becomes one text. Scripts share a text as often as they like; what is
/// made of all of them is a copy of each.
pub const MOST_TEXT: usize = 64 << 20;

/// Tag of a map that was read from a text: thrown, it is no error of opsh, whatever its keys are.
pub const DATA: i32 = 1;

/// Bytes of text of a thrown value that become an error.
const MOST_THROWN: usize = 1 << 20;

/// Says in [`EvalAltResult::ErrorTerminated`] that a script took too much memory; any other token is Ctrl-C.
pub const NO_MEMORY: &str = "memory";

/// The exit code that a script ended with: `exit(N)`.
#[derive(Clone, Debug)]
pub struct ExitCode {
    /// 0 is success.
    pub code: u8,
    /// Where it was called.
    pub place: Option<Place>,
}

impl ExitCode {
    /// The exit code of a script that ended by `exit`.
    pub fn of(result: &RhaiResult) -> Option<ExitCode> {
        result.as_ref().map_or_else(|error| ExitCode::of_error(error), |value| value.clone().try_cast())
    }

    /// The exit code that an error on its way out carries.
    pub fn of_error(error: &EvalAltResult) -> Option<ExitCode> {
        match root(error) {
            EvalAltResult::Exit(value, _) => value.clone().try_cast(),
            _ => None,
        }
    }

    /// The failure that another code than 0 is.
    pub fn error(&self, name: &str) -> Error {
        let Self { code, place } = self;
        let error =
            Error::new(Kind::Failed, format!("{name} ended with exit code {code}"), format!("it called exit({code})"));
        Error { code: Some(*code), trace: place.iter().cloned().collect(), ..error }
    }
}

/// The Rust type behind a receiver's word in a signature.
pub fn type_id(word: &str) -> Option<TypeId> {
    match word {
        "host" => Some(TypeId::of::<host::HostHandle>()),
        "hosts" => Some(TypeId::of::<fleet::HostsHandle>()),
        "stack" => Some(TypeId::of::<stack::StackHandle>()),
        "repo" => Some(TypeId::of::<git::RepoHandle>()),
        "db" => Some(TypeId::of::<db::DbHandle>()),
        _ => None,
    }
}

/// The type's name as scripts know it.
pub fn type_name(value: &Dynamic) -> &'static str {
    match value {
        value if value.is_int() => "int",
        value if value.is_string() => "string",
        value if value.is_bool() => "bool",
        value if value.is_array() => "array",
        value if value.is_map() => "map",
        value if value.is_float() => "float",
        value if value.is_unit() => "()",
        value if value.is_fnptr() => "closure",
        value if value.is::<prepare::Later>() => "later",
        value => handle_word(value).unwrap_or("another type"),
    }
}

fn handle_word(value: &Dynamic) -> Option<&'static str> {
    ["host", "hosts", "stack", "repo", "db"].into_iter().find(|word| type_id(word) == Some(value.type_id()))
}

/// JSON as a Rhai value.
pub fn from_json(value: &Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            // A float would be another number.
            None if number.is_u64() => number.to_string().into(),
            None => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Value::String(text) => text.clone().into(),
        Value::Array(items) => items.iter().map(from_json).collect::<Vec<_>>().into(),
        Value::Object(map) => {
            let map: Map = map.iter().map(|(key, value)| (key.as_str().into(), from_json(value))).collect();
            map.into()
        }
    }
}

/// Fails when a value is nested deeper than JSON of it could be read again, or holds more than becomes one text.
pub fn check_size(value: &Dynamic) -> Result<(), Error> {
    if is_deeper(value, DEEPEST) {
        let why = format!("it has more than {DEEPEST} levels of lists and maps");
        return Err(Error::new(Kind::Usage, "a value is nested too deeply", why));
    }
    check_text(value)
}

/// Fails when a value holds more than becomes one text.
pub fn check_text(value: &Dynamic) -> Result<(), Error> {
    // A text by itself is there already, and grows by nothing.
    match !value.is_string() && text_bytes(value, MOST_TEXT) > MOST_TEXT {
        true => Err(too_much_text()),
        false => Ok(()),
    }
}

/// The error of a value that is too large to become one text.
fn too_much_text() -> Error {
    let most = MOST_TEXT >> 20;
    Error::new(Kind::Usage, "a value is too large", format!("the texts in it have more than {most} MiB"))
        .next("value.len()     look at its size and its parts instead of all of it")
}

/// Bytes of the texts in a value, each as often as it stands there; counted as far as `most` and a little further. A value
/// that is no text counts as a short one. Recursion ends, since `deep.rs` bounds the levels.
fn text_bytes(value: &Dynamic, most: usize) -> usize {
    const SHORT: usize = 8;
    let mut sum = SHORT;
    if let Ok(text) = value.as_immutable_string_ref() {
        return text.len();
    }
    if let Ok(items) = value.as_array_ref() {
        for item in items.iter() {
            sum = sum.saturating_add(text_bytes(item, most.saturating_sub(sum)));
            if sum > most {
                break;
            }
        }
        return sum;
    }
    if let Ok(map) = value.as_map_ref() {
        for (key, value) in map.iter() {
            sum = sum.saturating_add(key.len()).saturating_add(text_bytes(value, most.saturating_sub(sum)));
            if sum > most {
                break;
            }
        }
        return sum;
    }
    value.read_lock::<rhai::Blob>().map_or(SHORT, |bytes| bytes.len() * 2)
}

/// True when a value has more than `levels` of lists and maps.
fn is_deeper(value: &Dynamic, levels: usize) -> bool {
    if let Ok(items) = value.as_array_ref() {
        return levels == 0 || items.iter().any(|item| is_deeper(item, levels - 1));
    }
    if let Ok(map) = value.as_map_ref() {
        return levels == 0 || map.values().any(|value| is_deeper(value, levels - 1));
    }
    false
}

/// How many values there are in one, counted as far as `most` and a little further.
pub fn weight(value: &Dynamic, most: usize) -> usize {
    let of = |items: &mut dyn Iterator<Item = &Dynamic>| {
        let mut sum = 1usize;
        for item in items {
            if sum > most {
                break;
            }
            sum = sum.saturating_add(weight(item, most - sum));
        }
        sum
    };
    if let Ok(items) = value.as_array_ref() {
        return of(&mut items.iter());
    }
    if let Ok(map) = value.as_map_ref() {
        return of(&mut map.values());
    }
    if let Some(closure) = value.read_lock::<FnPtr>() {
        return 1 + closure.iter_curry().count();
    }
    if let Some(bytes) = value.read_lock::<rhai::Blob>() {
        return 1 + bytes.len() / size_of::<Dynamic>();
    }
    // A text is shared, not copied.
    1
}

/// A string of Rhai that is this text: whatever is in it, it ends where it should, and nothing in it is evaluated.
pub fn literal(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out += "\\n",
            '\t' => out += "\\t",
            '\r' => out += "\\r",
            c if c.is_control() => out += &format!("\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A line of Rhai that is this value.
pub fn in_rhai(value: &Value) -> String {
    match value {
        Value::Null => "()".into(),
        Value::String(text) => literal(text),
        Value::Array(items) => format!("[{}]", items.iter().map(in_rhai).collect::<Vec<_>>().join(",")),
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| format!("{}:{}", literal(key), in_rhai(value));
            format!("#{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(","))
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// A Rhai value as JSON; a handle becomes its name, a fleet its names, a closure a word. What is nested too deeply and what is
/// beyond [`MOST_TEXT`] is left out, and says so: [`check_size`] is asked where that would be an answer.
pub fn to_json(value: &Dynamic) -> Value {
    if let Ok(text) = value.as_immutable_string_ref() {
        return text.as_str().into();
    }
    as_json(value, DEEPEST, &mut MOST_TEXT.clone())
}

/// `left` counts down the bytes of text that may still be copied.
fn as_json(value: &Dynamic, levels: usize, left: &mut usize) -> Value {
    if *left == 0 {
        return "… left out: it is too large".into();
    }
    if levels == 0 && (value.is_array() || value.is_map()) {
        return format!("… nested more than {DEEPEST} deep").into();
    }
    if let Ok(number) = value.as_int() {
        return number.into();
    }
    if let Ok(flag) = value.as_bool() {
        return flag.into();
    }
    if let Ok(number) = value.as_float() {
        return number.into();
    }
    if let Ok(text) = value.as_immutable_string_ref() {
        *left = left.saturating_sub(text.len());
        return match *left {
            0 => "… left out: it is too large".into(),
            _ => text.as_str().into(),
        };
    }
    if let Ok(items) = value.as_array_ref() {
        let mut list = Vec::new();
        for item in items.iter() {
            list.push(as_json(item, levels - 1, left));
            if *left == 0 {
                break;
            }
        }
        return list.into();
    }
    if let Ok(map) = value.as_map_ref() {
        return map
            .iter()
            .map(|(key, value)| (key.to_string(), as_json(value, levels - 1, left)))
            .collect::<serde_json::Map<_, _>>()
            .into();
    }
    if value.is_unit() {
        return Value::Null;
    }
    if let Some(hosts) = value.read_lock::<fleet::HostsHandle>() {
        return hosts.names().into();
    }
    handle_name(value).unwrap_or_else(|| value.to_string()).into()
}

fn handle_name(value: &Dynamic) -> Option<String> {
    let host = value.read_lock::<host::HostHandle>().map(|host| host.name());
    let stack = || value.read_lock::<stack::StackHandle>().map(|stack| stack.name().to_string());
    let repo = || value.read_lock::<git::RepoHandle>().map(|repo| repo.name());
    let db = || value.read_lock::<db::DbHandle>().map(|db| db.name());
    host.or_else(stack).or_else(repo).or_else(db)
}

/// The error as `catch` sees it: a map with kind, what, why, next, host, exit and results.
pub fn thrown(mut error: Error, position: Position) -> Box<EvalAltResult> {
    let results = std::mem::take(&mut error.results);
    let mut map = error.to_json();
    // A script may look at it in any error: a property that is not there would be an error of its own.
    map["results"] = results.into();
    Box::new(EvalAltResult::ErrorRuntime(from_json(&map), position))
}

/// Calls Rhai; a panic in there is an error of the script.
pub fn shielded<T>(work: impl FnOnce() -> RhaiResult<T>) -> RhaiResult<T> {
    shield::run(work).unwrap_or_else(|bug| Err(thrown(bug, Position::NONE)))
}

/// The innermost error: the cause, whatever functions and modules it passed.
pub fn root(error: &EvalAltResult) -> &EvalAltResult {
    match error {
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) | EvalAltResult::ErrorInModule(_, inner, _) => root(inner),
        other => other,
    }
}

/// The cause as opsh's error.
pub fn cause(error: &EvalAltResult) -> Error {
    if let Some(exit) = ExitCode::of_error(error) {
        return exit.error("the script");
    }
    match root(error) {
        EvalAltResult::ErrorRuntime(value, _) => caught(value),
        EvalAltResult::ErrorTerminated(token, _)
            if token.as_immutable_string_ref().is_ok_and(|word| *word == NO_MEMORY) =>
        {
            no_memory()
        }
        EvalAltResult::ErrorTerminated(..) => Error::new(Kind::Interrupted, "stopped", "Ctrl-C"),
        EvalAltResult::ErrorDataTooLarge(what, _) => Error::new(Kind::Failed, "the script was stopped", what.as_str()),
        other => {
            let text = other.to_string();
            let text = text.rsplit_once(" (line ").map_or(text.as_str(), |(text, _)| text);
            Error::new(Kind::Failed, "the script failed", text)
        }
    }
}

fn no_memory() -> Error {
    let most = memory::most() >> 20;
    Error::new(Kind::Failed, "the script was stopped", format!("it took more than {most} MiB of memory"))
        .next("read less at once (a tail, a filter, a page), and keep less of it")
        .next("memory_mib = N under [limits] of opsh.toml     allows more")
}

/// The error that a thrown value stands for; any other value is a script's own `throw`.
pub fn caught(value: &Dynamic) -> Error {
    // An error of opsh is whole, with its results; of any other value only so much as somebody reads.
    let has_what = value.as_map_ref().is_ok_and(|map| map.get("what").is_some_and(Dynamic::is_string));
    if has_what && value.tag() != DATA {
        return Error::from_json(&to_json(value));
    }
    let json = as_json(value, DEEPEST, &mut MOST_THROWN.clone());
    let said = match &json {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Error::new(Kind::Failed, "the script stopped", said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_comes_back_the_same() {
        let value = json!({"a": [1, 2.5, "x", null, true], "b": {"c": "日本"}});
        assert_eq!(to_json(&from_json(&value)), value);
    }

    #[test]
    fn a_text_in_a_line_of_rhai_never_becomes_code() {
        let engine = rhai::Engine::new_raw();
        let parts = [
            "\"", "`", "${x()}", "\\", "\n", "\r", "\t", "\0", "\u{8}", "\u{c}", "\u{7f}", "\u{85}", "\u{2028}",
            "\u{202e}", "\");", "x()", "/*", "*/", "//", "'", "#{", "{host}", "日本", "😀", "\\u0022", "$",
        ];
        // A line of each pair, so that what one begins another may end.
        for (first, second) in parts.iter().flat_map(|one| parts.iter().map(move |other| (one, other))) {
            let text = format!("{first}{second}{first}");
            let line = format!("[{}, 1]", literal(&text));
            let back: rhai::Array = engine.eval(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(back[0].clone().into_string().expect("a string"), text, "{line}");
            let value = json!({ text.clone(): [text, null, { "a": true }], "n": -1, "f": 2.5 });
            let line = in_rhai(&value);
            let back: Dynamic = engine.eval(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(to_json(&back), value, "{line}");
        }
    }

    #[test]
    fn an_error_survives_being_thrown_and_caught() {
        let error = Error::new(Kind::Unreachable, "a failed", "no route").next("ping a").host("a").exit(255);
        let error = Error { results: vec![json!({"host": "a", "ok": false})], ..error };
        let EvalAltResult::ErrorRuntime(value, _) = *thrown(error.clone(), Position::NONE) else { panic!("a value") };
        let back = caught(&value);
        assert_eq!((back.kind, back.what, back.why, back.next), (error.kind, error.what, error.why, error.next));
        assert_eq!((back.host, back.exit, back.results), (error.host, error.exit, error.results));
    }

    #[test]
    fn a_thrown_string_is_the_reason() {
        assert_eq!(caught(&"no disk".into()).why, "no disk");
    }
}
