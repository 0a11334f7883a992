//! Several lines that came as one input: a pasted block of words is as many lines as a person would have typed.
//!
//! What cannot be told apart stays together: a line that is none by itself is never given to the program of the line above.

/// What a line of an input is when it stands alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A word, `@host …`, `!…` or `:command`: it ends with its line, unless a quote or the like is open.
    Words,
    /// `sql …`: what is nothing by itself goes on with it.
    Raw,
    /// Rhai that can be evaluated.
    Rhai,
    /// None of these by itself.
    Part,
}

/// The inputs that a pasted one is, in their order. `kind` says what a line is alone, and `goes_on` whether Rhai needs more
/// lines. Between inputs, blank lines and those that are nothing but a comment of a shell are left out.
pub fn inputs(text: &str, kind: impl Fn(&str) -> Kind, goes_on: impl Fn(&str) -> bool) -> Vec<String> {
    let mut inputs: Vec<(Kind, String)> = Vec::new();
    for line in text.lines() {
        let alone = kind(line);
        let is_open = inputs.last().is_some_and(|(of, before)| match of {
            Kind::Words | Kind::Raw => is_open(before),
            Kind::Rhai | Kind::Part => goes_on(before),
        });
        let is_comment = line.trim().is_empty() || line.trim_start().starts_with("# ") || line.trim() == "#";
        match inputs.last_mut() {
            Some((_, before)) if is_open => *before = format!("{before}\n{line}"),
            _ if is_comment => {}
            Some((Kind::Raw, before)) if alone == Kind::Part => *before = format!("{before}\n{line}"),
            Some((Kind::Rhai | Kind::Part, before)) if matches!(alone, Kind::Rhai | Kind::Part) => {
                *before = format!("{before}\n{line}");
            }
            _ => inputs.push((alone, line.into())),
        }
    }
    inputs.into_iter().map(|(_, text)| text).collect()
}

/// True while a quote, a line or a here-document of a shell has no end yet.
fn is_open(words: &str) -> bool {
    if words.starts_with(':') {
        return false;
    }
    let first = words.lines().next().unwrap_or_default();
    if let Some((_, after)) = first.split_once("<<") {
        let after = after.trim_start_matches(['-', '<', ' ']);
        let end: String =
            after.trim_start_matches(['\'', '"']).chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        return !words.lines().skip(1).any(|line| line.trim() == end);
    }
    words.ends_with('\\') || shlex::split(words).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_words_is_an_input_and_what_belongs_together_stays_so() {
        let kind = |line: &str| match line.trim_start().split(['(', ' ']).next() {
            Some("ps" | "logs" | ":note" | "@prod" | "!cat" | "!printf") => Kind::Words,
            Some("sql") => Kind::Raw,
            Some("let" | "print" | "") => Kind::Rhai,
            _ => Kind::Part,
        };
        let goes_on = |code: &str| code.matches('{').count() > code.matches('}').count();
        for (text, wanted) in [
            ("ps\nlogs backend", vec!["ps", "logs backend"]),
            ("# first\nps\n\n# then\nlogs backend\n", vec!["ps", "logs backend"]),
            ("sql SELECT 1\nFROM x\nps", vec!["sql SELECT 1\nFROM x", "ps"]),
            ("let x = 1;\n# nothing\nlet y = 2;\nps\nprint(x)", vec!["let x = 1;\nlet y = 2;", "ps", "print(x)"]),
            // What looks like a word is in a block.
            ("if x {\nps\n}\n:note don't", vec!["if x {\nps\n}", ":note don't"]),
            (":note don't\nps", vec![":note don't", "ps"]),
            ("@prod df\n@prod uptime", vec!["@prod df", "@prod uptime"]),
            // An unknown line is nothing of the line above it.
            ("@prod df\nrm -rf x", vec!["@prod df", "rm -rf x"]),
            ("!cat >f <<EOF\n# kept\n\nps\nEOF\nps", vec!["!cat >f <<EOF\n# kept\n\nps\nEOF", "ps"]),
            ("!printf 'a\n# b\n\nps'\nps", vec!["!printf 'a\n# b\n\nps'", "ps"]),
            ("logs \\\nbackend\nps", vec!["logs \\\nbackend", "ps"]),
        ] {
            assert_eq!(inputs(text, kind, goes_on), wanted, "{text}");
        }
    }
}
