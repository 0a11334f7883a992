//! What is left of a private key that was taken apart: its lines as items of a list, and those whose beginning was cut off.

use super::shapes::{MOST_OF_A_KEY, is_mark};
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::LazyLock;

/// The lines around a key.
static FENCE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("-----(BEGIN|END) [A-Z0-9 ]*PRIVATE KEY[A-Z0-9 ]*-----").expect("a regex"));

/// Where a line ends: also in a text within quotes.
const ENDS: [&str; 2] = ["\n", "\\n"];

/// A line of so many characters of base64 is none of prose.
pub const LONG: usize = 40;

/// Hides lines of base64 before the end of a key that does not begin in the text.
pub fn hide_rest(text: String, mark: &dyn Fn(&str) -> String) -> String {
    if !text.contains("PRIVATE KEY") {
        return text;
    }
    let (mut rest, mut is_open, mut seen) = (Vec::new(), false, 0);
    for fence in FENCE.captures_iter(&text) {
        let begins = &fence[1] == "BEGIN";
        if !begins && !is_open {
            let mut end = fence.get(0).map_or(0, |whole| whole.start());
            // No key is longer, and none begins before the part of the text that was looked at already.
            let from = text.floor_char_boundary(end.saturating_sub(MOST_OF_A_KEY)).max(seen);
            while let Some(part) = last_line(&text[from..end]).map(|part| from + part.start..from + part.end) {
                end = part.start;
                rest.push(part);
            }
        }
        is_open = begins;
        seen = fence.get(0).map_or(0, |whole| whole.end());
    }
    rest.sort_by_key(|part| part.start);
    let (mut out, mut at) = (String::new(), 0);
    for part in rest {
        out += &text[at..part.start];
        out += &mark(&text[part.clone()]);
        at = part.end;
    }
    out + &text[at..]
}

/// The word of base64 that the text ends with, white space aside.
fn last_line(text: &str) -> Option<Range<usize>> {
    let mut trimmed = text.trim_end();
    while let Some(before) = trimmed.strip_suffix("\\n").or(trimmed.strip_suffix("\\r")) {
        trimmed = before.trim_end();
    }
    let line = ENDS.iter().filter_map(|end| trimmed.rfind(end).map(|at| at + end.len())).max().unwrap_or(0);
    let word = trimmed[line..].rfind(char::is_whitespace).map_or(line, |at| line + at + 1);
    is_of_key(&trimmed[word..]).then_some(word..trimmed.len())
}

fn is_of_key(word: &str) -> bool {
    let has = |is: fn(&u8) -> bool| word.bytes().any(|byte| is(&byte));
    let is_base64 = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
    let is_mixed = has(u8::is_ascii_digit) || has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
    is_base64 && !word.is_empty() && (word.len() >= LONG || is_mixed)
}

/// Hides in a list what stands between the item in which a private key begins and the one in which it ends. Items are
/// lines, or maps that have them under the same name.
pub fn hide_in_list(items: &mut [Value], mark: &dyn Fn(&str) -> String) {
    let has_fence = |value: &Value| value.as_str().is_some_and(|line| line.contains("PRIVATE KEY"));
    let fenced = |item: &Value| -> Vec<Option<String>> {
        match item {
            Value::Object(map) => {
                map.iter().filter(|(_, value)| has_fence(value)).map(|(key, _)| Some(key.clone())).collect()
            }
            item => has_fence(item).then_some(None).into_iter().collect(),
        }
    };
    for key in items.iter().flat_map(fenced).collect::<BTreeSet<_>>() {
        let mut lines: Vec<&mut String> = items.iter_mut().filter_map(|item| line_mut(item, &key)).collect();
        hide_in_lines(&mut lines, mark);
    }
}

fn line_mut<'a>(item: &'a mut Value, key: &Option<String>) -> Option<&'a mut String> {
    let value = match key {
        Some(key) => item.get_mut(key)?,
        None => item,
    };
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn hide_in_lines(lines: &mut [&mut String], mark: &dyn Fn(&str) -> String) {
    let mut at = 0;
    while at < lines.len() {
        let fences = fences(lines[at]);
        // It began before the first line.
        if let Some((false, end)) = fences.first() {
            let before = lines[..at].iter_mut().rev();
            before.take_while(|line| is_of_key(last_word(line))).for_each(|line| hide(line, mark));
            if let Some(part) = last_line(&lines[at][..*end]) {
                let hidden = mark(&lines[at][part.clone()]);
                lines[at].replace_range(part, &hidden);
            }
        }
        if let Some((true, _)) = fences.last() {
            at = hide_behind(lines, at, mark);
        }
        at += 1;
    }
}

/// Where private keys begin (true) and end in a line.
fn fences(line: &str) -> Vec<(bool, usize)> {
    if !line.contains("PRIVATE KEY") {
        return Vec::new();
    }
    let fence = |found: regex::Captures<'_>| (&found[1] == "BEGIN", found.get(0).map_or(0, |whole| whole.start()));
    FENCE.captures_iter(line).map(fence).collect()
}

/// Hides the lines behind the one in which a key begins: up to its end, or as long as they look like one. Gives the last.
fn hide_behind(lines: &mut [&mut String], begin: usize, mark: &dyn Fn(&str) -> String) -> usize {
    let mut bytes = 0;
    let near = lines[begin + 1..].iter().take_while(|line| {
        bytes += line.len();
        bytes <= MOST_OF_A_KEY
    });
    let end = near.map(|line| fences(line)).position(|fences| !fences.is_empty());
    let behind = lines[begin + 1..].iter_mut();
    let hidden = match end {
        Some(length) => behind.take(length).map(|line| hide(line, mark)).count(),
        None => behind.take_while(|line| is_of_key(last_word(line))).map(|line| hide(line, mark)).count(),
    };
    begin + hidden
}

fn last_word(line: &str) -> &str {
    line.split_whitespace().next_back().unwrap_or_default()
}

fn hide(line: &mut String, mark: &dyn Fn(&str) -> String) {
    let text = line.trim();
    if !text.is_empty() && !is_mark(text.as_bytes()) {
        *line = mark(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
    const END: &str = "-----END PRIVATE KEY-----";
    const BODY: &str = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj";

    fn marked(text: &str) -> String {
        format!("<{}>", text.len())
    }

    #[test]
    fn the_rest_of_a_key_whose_beginning_was_cut_off_is_hidden() {
        let rest = |text: String| hide_rest(text, &marked);
        assert_eq!(rest(format!("{BODY}\n{BODY}\naTkP3z8q\n{END}\nb")), format!("<64>\n<64>\n<8>\n{END}\nb"));
        assert_eq!(rest(format!("exit code 1: {BODY}\n{END}")), format!("exit code 1: <64>\n{END}"));
        assert_eq!(rest(format!("\"a\\n{BODY}\\n{END}\\n\"")), format!("\"a\\n<64>\\n{END}\\n\""));
        for text in [format!("{BODY}\n{BEGIN}\nx\n{END}"), format!("it has no line\n{END}"), format!("{BODY}\nend")] {
            assert_eq!(rest(text.clone()), text);
        }
    }

    #[test]
    fn a_long_text_of_many_lines_and_ends_is_read_once() {
        // Each end that looked through all of the text before it would take minutes.
        let text = format!("{}{END}\n{}", format!("{BODY}\n").repeat(40_000), format!("{END}\n").repeat(40_000));
        let shown = hide_rest(text, &marked);
        assert!(shown.starts_with(BODY) && shown.contains("<64>\n<64>\n") && shown.contains(&format!("<64>\n{END}")));
    }

    #[test]
    fn a_key_whose_lines_are_items_is_hidden() {
        let hidden = |mut items: Vec<Value>| {
            hide_in_list(&mut items, &marked);
            json!(items)
        };
        let key = ["a", BEGIN, "Proc-Type: 4", BODY, END, "b"].map(Value::from).to_vec();
        assert_eq!(hidden(key.clone()), json!(["a", BEGIN, "<12>", "<64>", END, "b"]));
        let rows = key.iter().map(|text| json!({ "text": text, "at": "now" })).collect();
        let texts: Vec<Value> =
            hidden(rows).as_array().expect("a list").iter().map(|row| row["text"].clone()).collect();
        assert_eq!(json!(texts), json!(["a", BEGIN, "<12>", "<64>", END, "b"]));
        assert_eq!(hidden(key[3..].to_vec()), json!(["<64>", END, "b"]), "its beginning is not there");
        assert_eq!(hidden(vec![json!(BEGIN), json!(BODY), json!("no key")]), json!([BEGIN, "<64>", "no key"]));
        let again = json!([BEGIN, "•••#3f9a", END]);
        assert_eq!(hidden(again.as_array().expect("a list").clone()), again, "a tag stays the tag that it is");
    }
}
