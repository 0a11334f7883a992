//! Text that a person can trust: nothing acts on the terminal, nothing is unseen, nothing is without a bound.

use crate::redact::{self, escapes};
use serde_json::Value;

/// Text that is safe to show: sequences left out, secrets hidden, other control and bidirectional characters visible.
pub fn fit(text: &str) -> String {
    if !text.contains(|c| is_dangerous(c) || redact::is_combining(c)) {
        return redact::clean(text);
    }
    // Before secrets are looked for: one with colours in its middle is found all the same.
    safe(&redact::clean(&escapes::strip(text)))
}

/// As [`fit`], each line but the first behind blanks: only the first of them is a line of ours, whatever the text holds.
pub fn hanging(text: &str) -> String {
    // One blank is how a hint of ours begins.
    let line = |line: &str| if line.is_empty() || line.starts_with("  ") { line.into() } else { format!("    {line}") };
    let text = fit(text);
    let Some((first, rest)) = text.split_once('\n') else { return text };
    rest.split('\n').fold(first.to_string(), |out, rest| format!("{out}\n{}", line(rest)))
}

/// Text that cannot act on the terminal, and in which everything is seen.
pub fn safe(text: &str) -> String {
    if !text.contains(|c| is_dangerous(c) || redact::is_combining(c)) {
        return text.into();
    }
    // A carriage return is half of a line end in what programs print.
    shown(&text.replace('\r', ""), is_dangerous)
}

/// As [`fit`], on one line that a person can read: a line end in an argument must not forge a line of ours, nor blanks push
/// the end of a question off the screen.
pub fn one_line(text: &str) -> String {
    bounded(&short_blanks(&shown(&redact::clean(text), |c| c == '\n' || c == '\t' || is_dangerous(c))))
}

/// The characters, those that `is_hidden` tells as their codes, and marks that are piled on one letter, too.
pub fn shown(text: &str, is_hidden: impl Fn(char) -> bool) -> String {
    coded(text, is_hidden, visible)
}

/// A value as one line of JSON without what is secret. A parser reads what the value holds; the characters that [`fit`]
/// does not show as they are stand in it as `\u` and their code: JSON itself asks for that below U+0020 only.
pub fn json_line(value: Value) -> String {
    // Text by text: what hides fields in a text would take a quote of JSON for a value's.
    let escape = |c: char| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect();
    coded(&redact::clean_json(value).to_string(), is_dangerous, escape)
}

fn coded(text: &str, is_hidden: impl Fn(char) -> bool, code: impl Fn(char) -> String) -> String {
    let mut marks = 0;
    let mut one = |c: char| {
        marks = if redact::is_combining(c) { marks + 1 } else { 0 };
        if is_hidden(c) || marks > MOST_MARKS { code(c) } else { c.to_string() }
    };
    text.chars().map(&mut one).collect()
}

/// Marks on one letter that are drawn; scripts in use have fewer.
const MOST_MARKS: usize = 4;
/// Blanks in a row that are shown as they are.
const MOST_BLANKS: usize = 40;
/// Characters of one line of a question, a plan or an effect, and how many of them are its end.
const MOST_OF_A_LINE: usize = 4_000;
const END_OF_A_LINE: usize = 500;

/// The text with many blanks in a row as their number.
pub fn short_blanks(text: &str) -> String {
    let is_blank = |c: char| c != '\n' && c.is_whitespace();
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find(is_blank) {
        let behind = rest[at..].trim_start_matches(is_blank);
        let blanks = &rest[at..rest.len() - behind.len()];
        let count = blanks.chars().count();
        out += &rest[..at];
        out += &if count > MOST_BLANKS { format!(" <{count} blanks> ") } else { blanks.to_string() };
        rest = behind;
    }
    out + rest
}

/// A line of a bounded length, in which secrets are hidden already: beginning and end of a longer one.
fn bounded(line: &str) -> String {
    let count = line.chars().count();
    if count <= MOST_OF_A_LINE {
        return line.into();
    }
    let begin: String = line.chars().take(MOST_OF_A_LINE - END_OF_A_LINE).collect();
    let end: String = line.chars().skip(count - END_OF_A_LINE).collect();
    format!("{begin} <{} characters> {end}", count - MOST_OF_A_LINE)
}

/// Controls, and characters that nobody sees or that turn the order of the text around them.
pub fn is_dangerous(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t') || redact::is_invisible(c)
}

pub fn visible(c: char) -> String {
    match c {
        '\n' => "␤".into(),
        c if (c as u32) < 0x20 => char::from_u32(0x2400 + c as u32).unwrap_or('?').to_string(),
        c => format!("<{:04x}>", c as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_text_cannot_act_on_the_terminal() {
        assert_eq!(fit("a\x1b]52;c;x\x07b\x07\x1b[1mc"), "ab␇c");
        assert_eq!(fit("a\u{202e}b"), "a<202e>b");
        assert_eq!(fit("1\r\n2"), "1\n2");
        assert_eq!(one_line("x\n✓ docker.tag"), "x␤✓ docker.tag");
        assert_eq!(hanging("x\r\n✓ docker.tag\n  y\n"), "x\n    ✓ docker.tag\n  y\n");
        assert_eq!(hanging("x\n next: opsh rm"), "x\n     next: opsh rm", "that is no hint");
        assert_eq!(one_line("rm a\rls"), "rm a␍ls");
        assert_eq!(one_line("a\u{61c}b\u{2028}c"), "a<061c>b<2028>c");
    }

    #[test]
    fn a_line_of_json_has_no_character_that_acts() {
        let piled = format!("e{}", "\u{301}".repeat(6));
        let value =
            serde_json::json!({ "a\u{9b}31m": ["B\u{202e}\x7f\x1b\r\n", "\u{e0041}", piled], "plain": "ação 日本 ⚠️" });
        let line = json_line(value.clone());
        assert!(
            line.contains(r"a\u009b31m") && line.contains(r"\udb40\udc41") && line.contains("ação 日本 ⚠️"),
            "{line}"
        );
        assert_eq!(shown(&line, |c| c == '\n' || c == '\t' || is_dangerous(c)), line);
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    }

    #[test]
    fn unseen_characters_blanks_and_piled_marks_are_shown() {
        for c in
            ['\u{200b}', '\u{200f}', '\u{2060}', '\u{2066}', '\u{3164}', '\u{115f}', '\u{ad}', '\u{feff}', '\u{e0041}']
        {
            let (text, seen) = (format!("rm{c} x"), format!("rm<{:04x}> x", c as u32));
            assert_eq!((fit(&text), one_line(&text)), (seen.clone(), seen));
        }
        assert_eq!(one_line(&format!("ls{}; rm -rf /", " ".repeat(6_000))), "ls <6000 blanks> ; rm -rf /");
        assert_eq!(one_line("a\tb"), "a␉b");
        let piled = format!("e{}", "\u{301}".repeat(6));
        assert_eq!(fit(&piled), format!("e{}<0301><0301>", "\u{301}".repeat(4)));
        let long = one_line(&format!("{}rm", "x".repeat(90_000)));
        assert!(long.len() < 4_100 && long.ends_with("rm") && long.contains(" <86002 characters> "), "{}", long.len());
        for plain in ["naïve ação 日本語　本番", "⚠️ done", "a  b"] {
            assert_eq!((fit(plain), one_line(plain)), (plain.into(), plain.into()));
        }
    }
}
