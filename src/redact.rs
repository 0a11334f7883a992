//! What is secret, and the one sink that screen, journal, errors and panics pass through.

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use regex::Regex;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, TryLockError};

/// Values shorter than this many bytes are not looked for: they would turn ordinary text into dots.
pub const SHORTEST: usize = 5;

/// A value that has no text form: it cannot be printed, serialised or interpolated, only handed to the one thing
/// that needs it.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes the value and makes the sink know it from now on.
    pub fn new(value: impl Into<String>) -> Secret {
        let value: String = value.into();
        remember(&value);
        Secret(value.into())
    }

    /// A value that the sink does not look for: a test has thousands of random ones.
    #[cfg(test)]
    pub fn unknown(value: &str) -> Secret {
        Secret(value.into())
    }

    /// The value itself, for the place that must have it (an askpass answer, a child's environment).
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("•••")
    }
}

/// True when a key of this name holds a secret: `POSTGRES_PASSWORD`, `JWT_SECRET`, `apiKey`.
pub fn is_secret_name(name: &str) -> bool {
    static NAMES: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r"(?i)(passw(or)?d|passphrase|secret|token|api_?key|private_?key|access_?key|credential|jwt|webhook|salt|dsn|(^|_)(pass|key)($|_)|[a-z0-9]_pwd$)",
        )
    });
    NAMES.is_match(name)
}

/// Hides a value and its encodings everywhere from now on, because it stands under a secret's name. Unlike a [`Secret`],
/// which somebody declared, it is only taken for one: ordinary words and small numbers are left alone.
pub fn learn(value: &str) {
    if !is_ordinary(value.trim()) {
        remember(value);
    }
}

fn remember(value: &str) {
    if value.trim().len() >= SHORTEST
        && let Some(mut known) = known()
    {
        known.learn(value);
    }
}

/// A number, or a word that settings are made of: hiding each of them would hide half of every text.
fn is_ordinary(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let number = value.len() < 9 && value.bytes().all(|byte| byte.is_ascii_digit());
    number || ["false", "disabled", "enabled", "default", "production", "development", "postgres"].contains(&&*lower)
}

/// Text as it may be shown or stored: known secrets, their encodings and secret shapes become `•••#3f9a`, where the
/// tag is the same for equal values within this process.
pub fn clean(text: &str) -> String {
    let mut out = match known() {
        Some(known) => known.clean(text),
        None => return WITHHELD.into(),
    };
    for shape in SHAPES.iter() {
        if shape.is_match(&out) {
            out = clean_shape(shape, &out);
        }
    }
    out
}

/// Shown instead of a text that cannot be checked.
const WITHHELD: &str = "(withheld: opsh cannot tell whether it holds a secret)";

fn mark(value: &str) -> String {
    known().map_or_else(|| "•••".into(), |known| known.mark(value))
}

fn clean_shape(shape: &Regex, text: &str) -> String {
    let hide = |found: &regex::Captures<'_>| {
        let whole = &found[0];
        match found.name("hide") {
            Some(part) if part.as_str().starts_with("•••") => whole.to_string(),
            Some(part) => {
                let at = part.start() - found.get(0).map_or(0, |all| all.start());
                format!("{}{}{}", &whole[..at], mark(part.as_str()), &whole[at + part.len()..])
            }
            None => mark(whole),
        }
    };
    shape.replace_all(text, hide).into_owned()
}

/// A value as it may be shown or stored: as [`clean`], and whatever stands under a secret's name is hidden whole.
pub fn clean_json(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(clean(&text)),
        Value::Array(items) => items.into_iter().map(clean_json).collect(),
        Value::Object(map) => map.into_iter().map(clean_entry).collect(),
        other => other,
    }
}

fn clean_entry((key, value): (String, Value)) -> (String, Value) {
    match value {
        Value::String(text) if is_secret_name(&key) && !text.is_empty() => (key, Value::String(mark(&text))),
        // The names of keys are not secret; what else stands under such a name is.
        Value::Array(_) | Value::Object(_) | Value::Number(_) if is_secret_name(&key) => {
            let hidden = mark(&value.to_string());
            (key, Value::String(hidden))
        }
        other => (clean(&key), clean_json(other)),
    }
}

struct Known {
    salt: [u8; 16],
    values: BTreeSet<String>,
    /// Each needle with the value it stands for.
    needles: Vec<(String, String)>,
    matcher: Option<AhoCorasick>,
}

/// The list; `None` when it stays locked, as it does for a panic that happened inside it.
fn known() -> Option<MutexGuard<'static, Known>> {
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(|| Mutex::new(Known::new()));
    for _ in 0..10_000 {
        match KNOWN.try_lock() {
            Ok(known) => return Some(known),
            // A panic while the lock was held leaves a usable list: hiding goes on.
            Err(TryLockError::Poisoned(known)) => return Some(known.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

impl Known {
    fn new() -> Known {
        let mut salt = [0; 16];
        // Without randomness the tags are only guessable, the values stay hidden.
        let _ = getrandom::fill(&mut salt);
        Known { salt, values: BTreeSet::new(), needles: Vec::new(), matcher: None }
    }

    fn learn(&mut self, value: &str) {
        if !self.values.insert(value.to_string()) {
            return;
        }
        for needle in encodings(value) {
            if needle.len() >= SHORTEST {
                self.needles.push((needle, value.to_string()));
            }
        }
        let needles: Vec<&str> = self.needles.iter().map(|(needle, _)| needle.as_str()).collect();
        // Only a list of gigabytes cannot be built; a sink that hides nothing must not go on silently.
        let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(needles);
        self.matcher = Some(built.expect("a few thousand short needles fit"));
    }

    fn mark(&self, value: &str) -> String {
        let digest = Sha256::new().chain_update(self.salt).chain_update(value.as_bytes()).finalize();
        format!("•••#{:02x}{:02x}", digest[0], digest[1])
    }

    fn clean(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut done = 0;
        if let Some(matcher) = &self.matcher {
            for found in matcher.find_iter(text) {
                out.push_str(&text[done..found.start()]);
                out.push_str(&self.mark(&self.needles[found.pattern().as_usize()].1));
                done = found.end();
            }
        }
        out.push_str(&text[done..]);
        out
    }
}

/// Shapes of secrets nobody told us about. The group `hide` is what goes; without it the whole match does.
static SHAPES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/@]+:(?P<hide>[^\s@/]+)@",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[^-]|-[^-])*(?:-----END [A-Z ]*PRIVATE KEY-----)?",
        r"(?i)authorization:\s*(?:(?:bearer|basic|token)\s+)?(?P<hide>[^\s•]+)",
        r"(?i)\b[A-Z0-9_]*(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY)[A-Z0-9_]*=(?P<hide>[^\s'\x22&;,]+)",
        r"\bgh[pousr]_[A-Za-z0-9]{20,}",
        r"\bxox[abpr]-[A-Za-z0-9-]{10,}",
        r"\bAKIA[0-9A-Z]{16}\b",
        r"\bsk_(?:live|test)_[A-Za-z0-9]{10,}",
        r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
        r"https://hooks\.slack\.com/services/[A-Za-z0-9/]+",
    ]
    .iter()
    .map(|text| pattern(text))
    .collect()
});

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is a constant that a test compiles")
}

/// The value and every form in which programs print it again.
fn encodings(value: &str) -> Vec<String> {
    let bytes = value.as_bytes();
    let mut forms = vec![value.to_string(), bytes.iter().map(|b| format!("{b:02x}")).collect()];
    for shift in 0..3 {
        forms.push(shifted(&STANDARD_NO_PAD, bytes, shift));
        forms.push(shifted(&URL_SAFE_NO_PAD, bytes, shift));
    }
    forms.push(url(bytes));
    let json = Value::String(value.to_string()).to_string();
    forms.push(json[1..json.len() - 1].to_string());
    forms.push(value.replace('\'', r"'\''"));
    forms.extend(value.lines().map(str::trim).filter(|line| line.len() >= SHORTEST).map(String::from));
    forms.sort();
    forms.dedup();
    forms
}

/// Base64 of the value when `shift` other bytes stand before it, without the characters that those bytes decide.
fn shifted(engine: &base64::engine::GeneralPurpose, bytes: &[u8], shift: usize) -> String {
    let mut padded = vec![0; shift];
    padded.extend_from_slice(bytes);
    let text = engine.encode(&padded);
    let skip = [0, 2, 3][shift];
    // The last character also holds bits of whatever follows the value, unless it ends on a full group.
    let keep = (padded.len() * 8) / 6;
    text.get(skip..keep).unwrap_or_default().to_string()
}

fn url(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|&b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => (b as char).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_known_value_is_hidden_in_every_encoding() {
        let secret = Secret::new("hunter2-pa'ss\"wörd");
        for form in encodings(secret.expose()) {
            let text = clean(&format!("before {form} after"));
            assert!(!text.contains(&form), "{form} survived in {text}");
            assert!(text.starts_with("before •••#") && text.ends_with(" after"), "{text}");
        }
    }

    #[test]
    fn base64_is_found_at_each_of_the_three_offsets() {
        learn("correct-horse-battery");
        for before in ["", "a", "ab"] {
            let text = STANDARD_NO_PAD.encode(format!("{before}correct-horse-battery--"));
            assert!(clean(&text).contains("•••#"), "offset {}", before.len());
        }
    }

    #[test]
    fn equal_values_have_equal_tags() {
        learn("same-value-1");
        let text = clean("same-value-1 same-value-1");
        let (a, b) = text.split_once(' ').expect("two words");
        assert_eq!(a, b);
    }

    #[test]
    fn shapes_hide_only_the_secret_part() {
        let text = clean("DATABASE_URL=postgres://vrc:opensesame1@db:5432/vrc");
        assert!(text.contains("postgres://vrc:•••#") && text.contains("@db:5432/vrc"), "{text}");
        assert!(!text.contains("opensesame1"));
        assert!(!clean("JWT_SECRET=abcdefgh1234").contains("abcdefgh1234"));
        assert!(!clean("ghp_abcdefghijklmnopqrstuvwxyz0123456789").contains("abcdefghij"));
    }

    #[test]
    fn ordinary_text_is_untouched() {
        for text in ["backend  running (healthy)  3 d", "http://127.0.0.1:8080/api", "a:b@c"] {
            assert_eq!(clean(text), text);
        }
    }

    #[test]
    fn values_under_secret_names_are_hidden_whole() {
        let value = clean_json(json!({"env": {"JWT_SECRET": "x", "LOG_LEVEL": "info"}}));
        assert_eq!(value["env"]["LOG_LEVEL"], "info");
        assert!(value["env"]["JWT_SECRET"].as_str().is_some_and(|text| text.starts_with("•••#")));
        let nested =
            clean_json(json!({"token": ["abcdefgh1"], "secret": {"a": "zzzz9"}, "api_key": 123456789, "key": 7}));
        for hidden in ["abcdefgh1", "zzzz9", "123456789"] {
            assert!(!nested.to_string().contains(hidden), "{nested}");
        }
    }

    #[test]
    fn names_that_hold_secrets_are_known_and_the_working_directory_is_none() {
        for name in ["POSTGRES_PASSWORD", "DB_PASS", "DB_PWD", "API_KEY", "SENTRY_DSN", "apiKey", "JWT_SECRET"] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["PWD", "OLDPWD", "LOG_LEVEL", "KEYBOARD", "PASSENGERS"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn a_declared_secret_is_hidden_although_it_is_an_ordinary_word() {
        learn("enabled");
        assert_eq!(clean("webhook enabled"), "webhook enabled", "only taken for a secret by its name");
        let _password = Secret::new("48151623");
        assert!(!clean("it was 48151623").contains("48151623"));
    }

    #[test]
    fn a_secret_has_no_text_form() {
        assert_eq!(format!("{:?}", Secret::new("not-to-be-seen")), "•••");
    }
}
