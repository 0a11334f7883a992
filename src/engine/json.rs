//! JSON as RFC 8259 says, both ways: `parse_json(text)` and `to_json(value)`. Rhai's own `parse_json` evaluates the text
//! as an expression, so whoever writes a response would write the script.

use crate::bind::values::{self, DEEPEST};
use crate::error::{Error, Kind, Result};
use rhai::{Array, Blob, Dynamic, Engine, FnPtr, Map, NativeCallContext};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// Registers both, in place of Rhai's own.
pub fn register(engine: &mut Engine) {
    engine.register_fn("parse_json", |context: NativeCallContext<'_>, text: &str| {
        parse(text).map_err(|error| values::thrown(error, context.call_position()))
    });
    // Rhai's own is for maps and would win by its exact type.
    engine.register_fn("to_json", |context: NativeCallContext<'_>, map: Map| written(&context, &map.into()));
    engine.register_fn("to_json", |context: NativeCallContext<'_>, list: Array| written(&context, &list.into()));
    engine.register_fn("to_json", |context: NativeCallContext<'_>, value: Dynamic| written(&context, &value));
}

fn written(context: &NativeCallContext<'_>, value: &Dynamic) -> values::RhaiResult<String> {
    let json = values::check_text(value).map_err(|error| error.why).and_then(|()| strict(value, DEEPEST));
    let text = json.map(|json| json.to_string());
    text.map_err(|why| {
        let error = Error::new(Kind::Usage, "to_json has no JSON for this value", why);
        values::thrown(error, context.call_position())
    })
}

/// The value as JSON, or which part of it has none.
fn strict(value: &Dynamic, deep: usize) -> Result<Value, String> {
    if let Ok(letter) = value.as_char() {
        return Ok(letter.to_string().into());
    }
    if let Ok(number) = value.as_float() {
        return match number.is_finite() {
            true => Ok(number.into()),
            false => Err(format!("{number} is no number of JSON")),
        };
    }
    let is_container = value.is_array() || value.is_map();
    if is_container && deep == 0 {
        return Err(format!("it is nested more than {DEEPEST} deep"));
    }
    if let Ok(items) = value.as_array_ref() {
        return items.iter().map(|item| strict(item, deep - 1)).collect();
    }
    if let Ok(map) = value.as_map_ref() {
        let pairs = map.iter().map(|(key, value)| Ok((key.to_string(), strict(value, deep - 1)?)));
        return pairs.collect::<Result<serde_json::Map<_, _>, String>>().map(Value::Object);
    }
    if let Some(bytes) = value.read_lock::<Blob>() {
        return Ok(bytes.iter().copied().map(Value::from).collect());
    }
    if value.is_unit() || value.is_int() || value.is_bool() || value.is_string() {
        return Ok(values::to_json(value));
    }
    let kind = if value.is::<FnPtr>() { "closure" } else { values::type_name(value) };
    Err(format!("it holds a value of type {kind}"))
}

/// The value of a JSON text. Fails when the text is not JSON, when a key stands twice in one object, and for a whole number
/// that a script cannot hold: either would be lost without a word.
fn parse(text: &str) -> Result<Dynamic> {
    let not = |why: String| Error::new(Kind::Failed, "parse_json failed: the text is not JSON", why);
    if text.len() > values::MOST_TEXT {
        return Err(not(format!("it has more than {} MiB", values::MOST_TEXT >> 20)));
    }
    let Json(value) = serde_json::from_str(text).map_err(|error| not(error.to_string()))?;
    match too_large(text) {
        Some(number) => {
            let why = format!("{number} is beyond the whole numbers of a script, {} to {}", i64::MIN, i64::MAX);
            Err(Error::new(Kind::Failed, "parse_json failed: a number is too large", why)
                .next("let its source write it as a string, \"…\""))
        }
        None => Ok(value),
    }
}

/// The first whole number of a valid JSON text that 64 bits do not hold.
fn too_large(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        rest = &rest[at..];
        if rest.starts_with('"') {
            rest = after_string(&rest[1..]);
            continue;
        }
        let is_part = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
        let (number, after) = rest.split_at(rest.find(|c| !is_part(c)).unwrap_or(rest.len()));
        if !number.contains(['.', 'e', 'E']) && number.parse::<i64>().is_err() {
            return Some(number);
        }
        rest = after;
    }
    None
}

/// Text behind the end of a string whose beginning was passed.
fn after_string(text: &str) -> &str {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

/// A Rhai value that is read from JSON.
struct Json(Dynamic);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Json, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Json, E> {
        Ok(Json(Dynamic::UNIT))
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Json, E> {
        Ok(Json(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Json, E> {
        Ok(Json(value.into()))
    }

    /// One that is too large is found in the text afterwards.
    fn visit_u64<E>(self, value: u64) -> std::result::Result<Json, E> {
        Ok(Json(i64::try_from(value).map_or(Dynamic::UNIT, Dynamic::from)))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Json, E> {
        Ok(Json(value.into()))
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Json, E> {
        Ok(Json(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Json, A::Error> {
        let mut list = Array::new();
        while let Some(Json(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Json(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> std::result::Result<Json, A::Error> {
        let mut map = Map::new();
        while let Some((key, Json(value))) = pairs.next_entry::<String, Json>()? {
            if map.insert(key.as_str().into(), value).is_some() {
                return Err(A::Error::custom(format_args!("the key {key:?} stands twice in one object")));
            }
        }
        let mut map = Dynamic::from(map);
        map.set_tag(values::DATA);
        Ok(Json(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str) -> String {
        parse(text).expect_err(text).why
    }

    #[test]
    fn json_is_read_as_the_standard_says() {
        let text = r#" {"a": [1, -2.5e3, true, null, "\/\b\f\u0041\ud83d\ude00"], "": {}} "#;
        let value = values::to_json(&parse(text).expect("JSON"));
        assert_eq!(value, serde_json::from_str::<Value>(text).expect("JSON"));
        for scalar in ["1", "\"x\"", "null", "false", "[]", "-0", "1e5"] {
            assert!(parse(scalar).is_ok(), "{scalar}");
        }
    }

    #[test]
    fn what_is_not_json_is_an_error() {
        let bad = [
            "",
            "1 + 1",
            "{a: 1}",
            "#{a: 1}",
            "[1,]",
            "'x'",
            "`x`",
            "01",
            "+1",
            ".5",
            "0x10",
            "NaN",
            "()",
            "\"\\x41\"",
            "\"\\ud83d\"",
            "// c\n1",
            "1 2",
            "\"a\nb\"",
            "{\"x\": host(\"local\")}",
            "1_000",
            "\u{feff}1",
        ];
        for text in bad {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(why(&"[".repeat(100_000)).contains("recursion limit"));
    }

    #[test]
    fn nothing_of_json_is_lost_silently() {
        assert!(why(r#"{"a": 1, "b": {"a": 2}, "a": 3}"#).contains("the key \"a\" stands twice"));
        assert_eq!(parse("[9223372036854775807, -9223372036854775808]").map(|_| ()).map_err(|e| e.why), Ok(()));
        for number in ["9223372036854775808", "-9223372036854775809", "18446744073709551616", "1".repeat(400).as_str()]
        {
            assert!(parse(&format!("{{\"a\\\"9\": [{number}]}}")).is_err(), "{number}");
        }
        assert!(parse("1e400").is_err());
        assert!(parse(r#"["99999999999999999999", 1.5e10, 99999999999999999999.0]"#).is_ok());
    }

    #[test]
    fn every_plain_value_is_written_as_json() {
        let text = r#"{"a":[1,2.5,"x\n\"",null,true],"b":{}}"#;
        let value = parse(text).expect("JSON");
        assert_eq!(strict(&value, DEEPEST).expect("JSON").to_string(), text);
        assert_eq!(strict(&Dynamic::from('x'), 1), Ok("x".into()));
        assert_eq!(strict(&Dynamic::from(vec![1u8, 255]), 1).expect("a blob").to_string(), "[1,255]");
        assert!(strict(&Dynamic::from(f64::NAN), 1).is_err());
        assert!(strict(&Dynamic::from(vec![Dynamic::from(FnPtr::new("x").expect("a name"))]), 2).is_err());
        let mut deep = Array::new();
        for _ in 0..DEEPEST + 1 {
            deep = vec![deep.into()];
        }
        assert!(strict(&deep.into(), DEEPEST).is_err());
    }
}
