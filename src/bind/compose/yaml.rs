//! YAML with a bound. An alias stands for all that its anchor holds: a file of some kilobytes can stand for gigabytes.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::fmt;

/// Values that one document may have, with what its aliases stand for. A stack of a hundred services has some ten thousand.
const MOST_VALUES: usize = 200_000;

/// The value of a document. Fails with the reason for what is no YAML, and for what is too large.
pub fn parse(text: &str) -> Result<Value, String> {
    let left = Cell::new(MOST_VALUES);
    Node(&left).deserialize(serde_yaml_ng::Deserializer::from_str(text)).map_err(|error| error.to_string())
}

struct Node<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left = self.0.get().checked_sub(1);
        self.0.set(left.ok_or_else(|| D::Error::custom(format_args!("it has more than {MOST_VALUES} values")))?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of YAML")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Node(self.0))? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = pairs.next_key_seed(Node(self.0))? {
            // A key may be a number, or nothing at all.
            let key = key.as_str().map_or_else(|| key.to_string(), String::from);
            map.insert(key, pairs.next_value_seed(Node(self.0))?);
        }
        Ok(map.into())
    }

    fn visit_enum<A: serde::de::EnumAccess<'de>>(self, tagged: A) -> Result<Value, A::Error> {
        // `!tag value`: the value is what counts.
        let (_, value) = tagged.variant_seed(Node(self.0))?;
        serde::de::VariantAccess::newtype_variant_seed(value, Node(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_as_the_library_reads_it() {
        for text in [
            "",
            "a: 1",
            "a: [1, -2, 2.5, true, null, ~, 'x', \"y\\n\", 18446744073709551615]\nb: {c: |\n  two\n  lines\n}",
            "- &x {a: 1}\n- *x",
            "x: &x\n  a: 1\ny:\n  <<: *x\n  b: 2",
            "1: one\ntrue: two",
            "a: 0o17\nb: 0x1f\nc: 1_000\nd: 12:30",
            "a: !!str 1",
            "? a\n: b",
        ] {
            let library: Result<Value, _> = serde_yaml_ng::from_str(text);
            match library {
                Ok(value) => assert_eq!(parse(text).unwrap(), value, "{text}"),
                Err(error) => assert!(parse(text).is_err() || text.starts_with('1'), "{text}: {error}"),
            }
        }
        assert!(parse("a: [").is_err() && parse("a: *nothing").is_err());
    }

    #[test]
    fn aliases_that_stand_for_millions_are_refused() {
        let keys: String = (0..1500).map(|n| format!("  k{n}_PASSWORD: v{n}\n")).collect();
        let wide = format!("a: &a\n{keys}b: [{}]\n", vec!["*a"; 2000].join(", "));
        assert!(parse(&wide).unwrap_err().contains("more than 200000 values"));
        let mut deep = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
            deep += &format!("a{n}: &a{n} [{aliases}]\n");
        }
        assert!(parse(&deep).is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}
