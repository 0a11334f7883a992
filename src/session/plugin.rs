//! What a check says, as monitoring plugins do: a state, a line of text, numbers after a bar, and an exit code.
//!
//! A script whose header has `exit: plugin` is one. It ends with the map that `std/check` makes.

use super::header::Header;
use crate::error::{Error, Kind};
use crate::redact;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// States in the order of their exit codes.
const STATES: &[&str] = &["OK", "WARNING", "CRITICAL", "UNKNOWN"];
const CRITICAL: u8 = 2;
const UNKNOWN: u8 = 3;

/// A script that is a check.
pub struct Plugin(String);

/// What it says.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    /// 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    pub code: u8,
    /// The line, with more below it when more is wrong.
    pub text: String,
}

impl Said {
    /// The state's name.
    pub fn state(&self) -> &'static str {
        STATES[usize::from(self.code)]
    }
}

impl Plugin {
    /// The script at `path`, if it is a check.
    pub fn at(path: &Path) -> Option<Plugin> {
        let text = super::text_of(path).ok()?;
        let name = path.file_stem().map(PathBuf::from)?.display().to_string().to_uppercase();
        Header::parse(&text).is_plugin.then_some(Plugin(name))
    }

    fn said(&self, code: u8, text: &str) -> Said {
        Said { code, text: format!("{} {}: {text}", self.0, STATES[usize::from(code)]) }
    }

    /// What its script returned. Whatever else it is, no state is not OK.
    pub fn result(&self, value: &Value) -> Said {
        let text = |key: &str| plain(value[key].as_str().unwrap_or_default());
        let code = STATES.iter().position(|state| value["state"] == *state);
        let Some(code) = code.and_then(|code| u8::try_from(code).ok()) else {
            return self.said(UNKNOWN, "the script returned no state; import \"std/check\" and end with check::result");
        };
        let mut said = self.said(code, &text("text"));
        let items = |key: &str| value[key].as_array().into_iter().flatten();
        let numbers: Vec<String> = items("perf").map(number).collect();
        if !numbers.is_empty() {
            said.text += &format!(" | {}", numbers.join(" "));
        }
        for more in items("more").filter_map(Value::as_str) {
            said.text += &format!("\n{}", plain(more));
        }
        said
    }

    /// Why it could not look. That nothing answers is what a check is there to find; anything else says nothing of what it
    /// checks.
    pub fn failure(&self, error: &Error) -> Said {
        let code = match error.kind {
            Kind::Unreachable | Kind::Timeout => CRITICAL,
            _ => UNKNOWN,
        };
        let why = error.why.lines().next().unwrap_or_default();
        self.said(code, &plain(&format!("{}: {why}", error.what)))
    }
}

/// A bar begins the numbers, and a line end more text: neither may be in a text. What is secret is hidden while it still has
/// its shape.
fn plain(text: &str) -> String {
    redact::clean(text).replace('|', "/").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `'label'=value[unit];[warn];[crit];[least];[most]`.
fn number(one: &Value) -> String {
    let word = |key: &str| match &one[key] {
        Value::Null => String::new(),
        Value::String(text) => plain(text).replace([' ', ';'], ""),
        other => other.to_string(),
    };
    let label = plain(one["label"].as_str().unwrap_or_default()).replace('=', "_").replace('\'', "''");
    let value = if one["value"].is_number() { word("value") } else { "U".into() };
    let limits = ["warn", "crit", "least", "most"].map(word).join(";");
    format!("'{label}'={value}{};{limits}", word("unit")).trim_end_matches(';').into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plugin() -> Plugin {
        Plugin("DISK".into())
    }

    #[test]
    fn a_result_is_a_line_with_its_numbers_and_more_lines() {
        let perf =
            json!({ "label": "/var", "value": 12, "unit": "%", "warn": "15:", "crit": "7:", "least": 0, "most": 100 });
        let value = json!({ "state": "WARNING", "text": "/var has 12 % free", "perf": [perf], "more": ["fine: /"] });
        let text = "DISK WARNING: /var has 12 % free | '/var'=12%;15:;7:;0;100\nfine: /";
        assert_eq!(plugin().result(&value), Said { code: 1, text: text.into() });
        let value = json!({ "state": "OK", "text": "all of it", "perf": [{ "label": "n", "value": 3 }] });
        assert_eq!(plugin().result(&value).text, "DISK OK: all of it | 'n'=3");
    }

    #[test]
    fn no_text_of_a_host_makes_another_line_or_other_numbers() {
        let perf = json!({ "label": "it's = a|b\nc", "value": "7;0", "unit": "B;9", "warn": "1;2" });
        let value = json!({ "state": "CRITICAL", "text": "a | x=1\nDISK OK", "perf": [perf], "more": ["b\n| y=2"] });
        assert_eq!(plugin().result(&value).text, "DISK CRITICAL: a / x=1 DISK OK | 'it''s _ a/b c'=UB9;12\nb / y=2");
    }

    #[test]
    fn what_is_no_state_is_unknown_and_no_answer_is_critical() {
        for value in [json!(null), json!("OK"), json!({ "state": "FINE" }), json!([1])] {
            assert_eq!(plugin().result(&value).code, 3, "{value}");
        }
        let failed = |kind| plugin().failure(&Error::new(kind, "no way to prod-1", "it is | silent\nx"));
        let text = "DISK CRITICAL: no way to prod-1: it is / silent";
        assert_eq!(failed(Kind::Unreachable), Said { code: 2, text: text.into() });
        assert_eq!(failed(Kind::Timeout).code, 2);
        for kind in [Kind::Usage, Kind::Failed, Kind::Denied, Kind::Refused, Kind::Interrupted, Kind::Unknown] {
            assert_eq!(failed(kind).code, 3, "{kind:?}");
        }
    }
}
