//! Characters that nobody sees: they hide a word from a reader, and a secret from whoever looks for it.

use super::escapes;

/// True for a character without a picture that is no blank: zero-width ones, fillers, those that turn the order of the text,
/// tags, and the selectors of a variant beyond the sixteen that stand behind emoji.
pub fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// True for a mark that is drawn over the letter before it.
pub fn is_combining(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

/// The text without such characters, without sequences that act on a terminal and without control characters; `None` when
/// it has none. Line ends, tabs and zero bytes stay: they part what stands around them.
pub fn without(text: &str) -> Option<String> {
    let is_left_out = |c: char| is_invisible(c) || (c.is_control() && !['\n', '\t', '\0'].contains(&c));
    text.contains(is_left_out).then(|| escapes::strip(text).replace(is_left_out, ""))
}
