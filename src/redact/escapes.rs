//! Sequences by which text acts on a terminal: recognised, so that they can be left out.

/// Characters after which a string sequence that does not end is taken for text again.
const LONGEST: usize = 4096;

/// Leaves sequences out of a stream of characters: CSI (colours, cursor), OSC (titles, clipboard, links), DCS, SOS, PM,
/// APC and the two-character ones. A line end ends each of them: nothing can hide the lines that follow.
#[derive(Default)]
pub struct Escapes {
    state: State,
    /// Characters of the sequence so far.
    length: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC and `[`.
    Csi,
    /// Until BEL or ESC and `\`.
    String,
    /// After ESC within a string.
    StringEscape,
}

impl Escapes {
    /// Whether `c` is text.
    pub fn is_text(&mut self, c: char) -> bool {
        self.length = if self.state == State::Text { 0 } else { self.length + 1 };
        let (state, is_text) = match (self.state, c) {
            (_, '\n') => (State::Text, true),
            (State::String, '\u{1b}') => (State::StringEscape, false),
            (State::String, '\u{7}' | '\u{9c}' | '\u{18}' | '\u{1a}') => (State::Text, false),
            (State::String | State::Csi, _) if self.length > LONGEST => (State::Text, true),
            (State::String, _) => (State::String, false),
            (State::StringEscape, '\\') => (State::Text, false),
            (_, '\u{1b}') => (State::Escape, false),
            (_, '\u{9b}') => (State::Csi, false),
            (_, '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}') => (State::String, false),
            (State::Text, _) => (State::Text, true),
            (State::Escape | State::StringEscape, '[') => (State::Csi, false),
            (State::Escape | State::StringEscape, ']' | 'P' | 'X' | '^' | '_') => (State::String, false),
            (State::Escape | State::StringEscape, ' '..='/') => (State::Escape, false),
            (State::Escape | State::StringEscape, '0'..='~') => (State::Text, false),
            (State::Csi, ' '..='?') => (State::Csi, false),
            (State::Csi, '@'..='~') => (State::Text, false),
            (State::Escape | State::StringEscape | State::Csi, _) => (State::Text, true),
        };
        self.state = state;
        is_text
    }
}

/// The text without sequences.
pub fn strip(text: &str) -> String {
    let mut escapes = Escapes::default();
    text.chars().filter(|c| escapes.is_text(*c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_left_out_and_text_around_them_is_not() {
        for (text, rest) in [
            ("a\x1b[31;1mred\x1b[0m b", "ared b"),
            ("a\x1b]52;c;aGk=\x07b", "ab"),
            ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
            ("a\x1bP1$r q\x1b\\b", "ab"),
            ("a\u{9b}2Jb\u{9d}0;title\u{9c}c", "abc"),
            ("a\x1b(Bb\x1b7c\x1bcd", "abcd"),
            ("a\x1b]0;no end\nb", "a\nb"),
            ("a\x1b[12\nb", "a\nb"),
            ("a\x1b", "a"),
        ] {
            assert_eq!(strip(text), rest, "{text:?}");
        }
        assert!(strip(&format!("\x1b]0;{}after", "x".repeat(2 * LONGEST))).ends_with("after"));
    }
}
