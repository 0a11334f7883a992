//! Consent: one performance of one prepared call. Kept in memory only: a digest of arguments in the journal
//! could be tried out by whoever reads it.

use super::consent::Intended;
use super::verb::Class;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The way to a value within a call: keys and indexes.
pub type Path = Vec<String>;

/// Consent to one effect.
#[derive(Clone, Debug)]
pub(super) struct Agreed {
    verb: &'static str,
    target: String,
    class: Class,
    /// Loss of a destroy.
    lost: Option<String>,
    /// Arguments that were not known yet.
    later: Vec<Path>,
    call: [u8; 32],
    /// Digest of the recorded arguments, of a call whose verb looked at the world to prepare it.
    args: Option<[u8; 32]>,
}

impl Agreed {
    pub(super) fn to(one: &Intended) -> Agreed {
        Agreed {
            verb: one.verb.name,
            target: one.target.name.clone(),
            class: one.class,
            lost: one.lost_for_good(),
            later: one.later.clone(),
            call: digest(&one.call, &one.later),
            args: one.is_exact.then(|| digest(&one.args, &[])),
        }
    }

    /// True when this effect is the one that was agreed to. An effect that turns out to lose nothing is covered by consent
    /// to the loss; any other loss is not.
    pub(super) fn covers(&self, one: &Intended) -> bool {
        self.verb == one.verb.name
            && self.target == one.target.name
            && one.class <= self.class
            && (one.class < Class::Destroy || self.lost == one.lost_for_good())
            && self.call == digest(&one.call, &self.later)
            && self.args.is_none_or(|args| args == digest(&one.args, &[]))
    }

    fn is_exact(&self) -> bool {
        self.later.is_empty()
    }
}

/// Takes the consent that covers this effect out of the list, one without a placeholder first. False when there is none.
pub(super) fn take(agreed: &mut Vec<Agreed>, one: &Intended) -> bool {
    let find = |exact: bool| agreed.iter().position(|consent| consent.is_exact() == exact && consent.covers(one));
    let Some(at) = find(true).or_else(|| find(false)) else { return false };
    agreed.remove(at);
    true
}

/// Digest of a call whose arguments at `later` may be any text. One that is no text, or is missing, is another call.
fn digest(call: &Value, later: &[Path]) -> [u8; 32] {
    let mut call = call.clone();
    for path in later {
        let found = path.iter().try_fold(&mut call, |value, key| match value {
            Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
            Value::Object(map) => map.get_mut(key),
            _ => None,
        });
        if let Some(value) = found.filter(|value| value.is_string()) {
            *value = json!({ "later": path });
        }
    }
    // serde_json keeps the keys of a map in order, whatever order the script wrote them in.
    Sha256::digest(call.to_string()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(words: &[&str]) -> Path {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_order_of_keys_makes_no_other_call() {
        let one: Value = serde_json::from_str(r#"{"args":[{"b":{"y":1,"x":[1]},"a":2}]}"#).expect("JSON");
        let two: Value = serde_json::from_str(r#"{"args":[{"a":2,"b":{"x":[1],"y":1}}]}"#).expect("JSON");
        assert_eq!(digest(&one, &[]), digest(&two, &[]));
        let other = json!({ "args": [{ "a": 2, "b": { "x": [1, 1], "y": 1 } }] });
        assert_ne!(digest(&one, &[]), digest(&other, &[]));
        assert_ne!(digest(&json!(["a", "b"]), &[]), digest(&json!(["a,b"]), &[]));
    }

    #[test]
    fn a_placeholder_takes_any_text_in_its_place_only() {
        let call = |image: Value, tag: &str| json!({ "on": "prod", "args": [{ "image_id": image }, tag] });
        let later = [path(&["args", "0", "image_id"])];
        let agreed = digest(&call(json!("(later)"), "v1"), &later);
        assert_eq!(agreed, digest(&call(json!("sha256:12"), "v1"), &later));
        assert_ne!(agreed, digest(&call(json!("sha256:12"), "v2"), &later));
        assert_ne!(agreed, digest(&call(json!(["sha256:12"]), "v1"), &later), "it is no text");
        assert_ne!(agreed, digest(&json!({ "on": "prod", "args": [{}, "v1"] }), &later), "it is missing");
    }
}
