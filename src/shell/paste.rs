//! Several lines that came as one input: a pasted block of words is as many lines as a person would have typed.

/// What a line of an input is when it stands alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A word, `@host …`, `!…` or `:command`: it ends with its line, unless what follows is nothing by itself.
    Words,
    /// Rhai that can be evaluated.
    Rhai,
    /// Neither by itself: part of what is before it.
    Part,
}

/// The inputs that a pasted one is, in their order. `kind` says what a line is alone, and `goes_on` whether Rhai needs more
/// lines. Lines that are nothing but a comment of a shell are left out.
pub fn inputs(text: &str, kind: impl Fn(&str) -> Kind, goes_on: impl Fn(&str) -> bool) -> Vec<String> {
    let mut inputs: Vec<(Kind, String)> = Vec::new();
    for line in text.lines() {
        let alone = kind(line);
        match inputs.last_mut() {
            Some((Kind::Words, _)) if line.trim().is_empty() || line.trim_start().starts_with("# ") => {}
            Some((of, before))
                if alone == Kind::Part || *of != Kind::Words && (alone == Kind::Rhai || goes_on(before)) =>
            {
                *before = format!("{before}\n{line}");
            }
            _ => inputs.push((alone, line.into())),
        }
    }
    inputs.into_iter().map(|(_, text)| text).filter(|text| !text.trim().is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_words_is_an_input_and_rhai_stays_together() {
        let kind = |line: &str| match line.trim_start().split(['(', ' ']).next() {
            Some("ps" | "logs" | "sql" | ":note" | "@prod") => Kind::Words,
            Some("FROM" | "}" | "if") => Kind::Part,
            _ => Kind::Rhai,
        };
        let goes_on = |code: &str| code.matches('{').count() > code.matches('}').count();
        for (text, wanted) in [
            ("ps\nlogs backend", vec!["ps", "logs backend"]),
            ("ps\n\n# then\nlogs backend\n", vec!["ps", "logs backend"]),
            ("sql SELECT 1\nFROM x\nps", vec!["sql SELECT 1\nFROM x", "ps"]),
            ("let x = 1;\nlet y = 2;\nps\nprint(x)", vec!["let x = 1;\nlet y = 2;", "ps", "print(x)"]),
            // What looks like a word is in a block.
            ("if x {\nps\n}\n:note done", vec!["if x {\nps\n}", ":note done"]),
            ("@prod df\n@prod uptime", vec!["@prod df", "@prod uptime"]),
        ] {
            assert_eq!(inputs(text, kind, goes_on), wanted, "{text}");
        }
    }
}
