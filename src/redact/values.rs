//! Values as they may be shown or stored: what a text hides by its shape, a list hides by its items and a map by its keys.

use super::fields::{self, Sure};
use super::names::is_secret_name;
use super::{clean, keys, known, mark, shapes};
use serde_json::Value;

/// A value as it may be shown or stored: as [`clean`], and whatever stands under a secret's name is hidden whole.
pub fn clean_json(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(clean(&text)),
        Value::Array(items) => clean_items(items),
        Value::Object(mut map) => {
            // A variable as Kubernetes and others write one.
            let is_secret = map.get("name").and_then(Value::as_str).is_some_and(is_secret_name);
            if let Some(Value::String(text)) = map.get_mut("value").filter(|_| is_secret) {
                *text = marked(std::mem::take(text));
            }
            map.into_iter().map(clean_entry).collect()
        }
        Value::Number(number) => {
            let secret = known().and_then(|known| known.number(&number.to_string()));
            secret.map_or(Value::Number(number), |secret| Value::String(mark(&secret)))
        }
        other => other,
    }
}

/// The items of a list; what stands behind `--password` or the like is hidden, as in words of a command.
fn clean_items(mut items: Vec<Value>) -> Value {
    keys::hide_in_list(&mut items, &mark);
    let programs = items.iter().take(MOST_BEFORE_OPTIONS).filter_map(Value::as_str);
    let programs: Vec<&str> = programs.filter(|word| word.len() < LONGEST_PROGRAM).collect();
    let programs = programs.join("\n");
    let mut is_next: Option<Sure> = None;
    let mut clean = |item: Value| {
        let text = item.as_str().unwrap_or_default();
        let short = option_of_one_letter(&programs, text);
        let behind =
            if fields::is_option(text) { Some(Sure::UnlessOrdinary) } else { short.filter(|_| text.len() == 2) };
        let is_value = std::mem::replace(&mut is_next, behind).is_some_and(|sure| match sure {
            Sure::IfPair => fields::is_pair(text.as_bytes()),
            _ => !fields::is_ordinary(text) || text.contains(' '),
        });
        match item {
            Value::String(text) if is_value => Value::String(marked(text)),
            Value::String(text) => Value::String(match hidden_word(&text, short) {
                Some((shown, value)) => format!("{shown}{}", marked(value.into())),
                None => clean(&text),
            }),
            other => clean_json(other),
        }
    };
    items.into_iter().map(&mut clean).collect()
}

/// Words of a list in which the program is looked for that their options belong to.
const MOST_BEFORE_OPTIONS: usize = 16;

/// A word that is as long is not the path of one.
const LONGEST_PROGRAM: usize = 256;

/// What stands behind `-p` and the like, when the word begins with it and is one of those that take a secret.
fn option_of_one_letter(programs: &str, word: &str) -> Option<Sure> {
    let letter = word.strip_prefix('-')?.bytes().next()?;
    // The program is a word of its own: its name may be all of a path.
    let sure = fields::short(programs, letter)?;
    // A database stands behind `mysql -p`.
    (word.len() > 2 || letter != b'p' || programs.contains("sshpass")).then_some(sure)
}

/// A word of a command that has a secret up to its end: what is shown of it, and the secret.
fn hidden_word(word: &str, short: Option<Sure>) -> Option<(&str, &str)> {
    let is_secret = |sure, value: &str| sure == Sure::Always || fields::is_pair(value.as_bytes());
    if let (Some(sure), Some((shown, value))) = (short, word.split_at_checked(2)) {
        return Some((shown, value)).filter(|_| !value.is_empty() && is_secret(sure, value));
    }
    // A variable is all of its word, blanks and all; of a lower-case name it may be a line of a log.
    let (name, value) = word.split_once('=')?;
    let is_variable = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    let is_hidden = is_variable && is_secret_name(name) && !value.is_empty() && !value.contains('\n');
    is_hidden.then(|| word.split_at(name.len() + 1))
}

/// Words of a command as they may be shown, as the items of such a list.
pub fn clean_words(words: &[String]) -> Vec<String> {
    match clean_items(words.iter().map(|word| Value::String(word.clone())).collect()) {
        Value::Array(items) => {
            items.into_iter().map(|item| item.as_str().map_or_else(|| item.to_string(), String::from)).collect()
        }
        _ => Vec::new(),
    }
}

fn clean_entry((key, value): (String, Value)) -> (String, Value) {
    match value {
        Value::String(text) if is_secret_name(&key) && !text.is_empty() => (clean(&key), Value::String(marked(text))),
        Value::String(text) if fields::is_entry(&key, &text) => (clean(&key), Value::String(marked(text))),
        // The names of keys are not secret; what else stands under such a name is.
        Value::Array(_) | Value::Object(_) | Value::Number(_) if is_secret_name(&key) => {
            let hidden = mark(&value.to_string());
            (clean(&key), Value::String(hidden))
        }
        other => (clean(&key), clean_json(other)),
    }
}

fn marked(text: String) -> String {
    if shapes::is_mark(text.as_bytes()) { text } else { mark(&text) }
}

#[cfg(test)]
mod tests {
    use super::super::MARK;
    use super::*;
    use serde_json::json;

    #[test]
    fn words_of_a_command_are_hidden_as_in_its_line() {
        let shown = |words: &[&str]| clean_json(json!(words)).to_string();
        for (words, secret) in [
            (&["true", "mysql", "-pLEAK-1 a&b"][..], "LEAK"),
            (&["/usr/bin/mysqldump", "-u", "root", "-pLEAK"], "LEAK"),
            (&["sshpass", "-p", "LEAK", "ssh", "x"], "LEAK"),
            (&["redis-cli", "-a", "LEAK", "ping"], "LEAK"),
            (&["curl", "-u", "me:LEAK", "http://x"], "LEAK"),
            (&["curl", "-ume:LEAK", "http://x"], "LEAK"),
            (&["docker", "run", "-e", "DB_PASSWORD=a&b LEAK"], "LEAK"),
            (&["psql", "-c", "ALTER ROLE app PASSWORD 'LEAK-1'"], "LEAK"),
        ] {
            assert!(!shown(words).contains(secret), "{}", shown(words));
        }
        for words in
            [&["mysql", "-p", "shop"][..], &["curl", "-u", "me", "x"], &["ps", "-a", "-p", "1"], &["LOG_LEVEL=a b"]]
        {
            assert_eq!(shown(words), json!(words).to_string());
        }
        let map = json!({ "Authorization": "Bearer abcdef", "auth": "dTpwYXNz", "Cookie": "sid=1", "name": "DB_PASSWORD", "value": "x y" });
        let shown = clean_json(map);
        for key in ["Authorization", "auth", "Cookie", "value"] {
            assert!(shown[key].as_str().is_some_and(|text| text.starts_with(MARK)), "{shown}");
        }
    }
}
