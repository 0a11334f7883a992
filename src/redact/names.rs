//! Names that hold secrets: the built-in patterns, and those of the operator.

use regex::{Regex, RegexSet};
use std::sync::{LazyLock, PoisonError, RwLock};

/// Words that make a name one of a secret wherever they stand in it.
const WORDS: &str = r"passw(or)?d|passphrase|secret|token|api[_-]?key|private[_-]?key|access[_-]?key|account[_-]?key|signing[_-]?key|encryption[_-]?key|master[_-]?key|credential|requirepass|masterauth|jwt|webhook|dsn";

static OPERATORS: RwLock<Option<RegexSet>> = RwLock::new(None);

/// Adds patterns for the rest of this process: whole names, any case, `*` for anything: `*_CREDENTIAL`, `acme_key`.
/// Fails with a sentence for one that is empty, only stars, or has characters that no name has.
pub fn add(patterns: &[String]) -> Result<(), String> {
    patterns.iter().try_for_each(|pattern| check(pattern))?;
    let whole = |pattern: &String| format!("(?i)^{}$", regex::escape(pattern).replace(r"\*", ".*"));
    let mut operators = OPERATORS.write().unwrap_or_else(PoisonError::into_inner);
    let known = operators.iter().flat_map(|set| set.patterns().iter().cloned());
    let all: Vec<String> = known.chain(patterns.iter().map(whole)).collect();
    *operators = Some(RegexSet::new(all).map_err(|error| error.to_string())?);
    Ok(())
}

/// Whether `pattern` may be given to [`add`], and if not, why.
pub fn check(pattern: &str) -> Result<(), String> {
    let known = |c: char| c.is_ascii_alphanumeric() || "_-.*".contains(c);
    if !pattern.chars().any(|c| known(c) && c != '*') {
        return Err(format!("\"{pattern}\" would take every name for one of a secret"));
    }
    match pattern.chars().find(|c| !known(*c)) {
        Some(c) => Err(format!("\"{pattern}\" has {c:?}: a pattern is letters, digits, _ - . and * for anything")),
        None => Ok(()),
    }
}

/// True when a key of this name holds a secret: `POSTGRES_PASSWORD`, `JWT_SECRET`, `apiKey`.
pub fn is_secret_name(name: &str) -> bool {
    static NAMES: LazyLock<Regex> =
        LazyLock::new(|| pattern(&format!(r"(?i)({WORDS}|salt|(^|_)(pass|key)($|_)|[a-z0-9]_pwd$)")));
    NAMES.is_match(name) || is_operators(name)
}

/// As [`is_secret_name`] for `NAME=value` in any text, where `key=` and `pass=` alone are ordinary words.
pub fn is_secret_name_in_text(name: &str) -> bool {
    static NAMES: LazyLock<Regex> = LazyLock::new(|| pattern(&format!("(?i)({WORDS}|_(pass|pwd|key)$)")));
    NAMES.is_match(name) || is_operators(name)
}

fn is_operators(name: &str) -> bool {
    let operators = OPERATORS.read().unwrap_or_else(PoisonError::into_inner);
    operators.as_ref().is_some_and(|set| set.is_match(name))
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is a constant that a test compiles")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_hold_secrets_are_known_and_the_working_directory_is_none() {
        for name in ["POSTGRES_PASSWORD", "DB_PASS", "DB_PWD", "API_KEY", "SENTRY_DSN", "apiKey", "JWT_SECRET"] {
            assert!(is_secret_name(name) && is_secret_name_in_text(name), "{name}");
        }
        for name in ["PWD", "OLDPWD", "LOG_LEVEL", "KEYBOARD", "PASSENGERS"] {
            assert!(!is_secret_name(name), "{name}");
        }
        assert!(is_secret_name("key") && !is_secret_name_in_text("key"));
    }

    #[test]
    fn the_operators_patterns_match_whole_names_in_any_case() {
        add(&["*_Zugang".into(), "acme_code".into()]).expect("good patterns");
        for name in ["DB_ZUGANG", "ACME_CODE", "acme_code"] {
            assert!(is_secret_name(name) && is_secret_name_in_text(name), "{name}");
        }
        for name in ["DB_ZUGANG_X", "my_acme_code", "acmeXcode"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn a_pattern_that_means_everything_or_nothing_is_refused() {
        for (pattern, word) in [("", "every name"), ("**", "every name"), ("a b", "has ' '"), ("[a]", "has '['")] {
            assert!(check(pattern).expect_err(pattern).contains(word), "{pattern}");
        }
    }
}
