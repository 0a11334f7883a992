//! The words of Rhai as they are typed: for colours and for completion, so what is wrong or unfinished has words too.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name or a keyword.
    Word,
    /// A number.
    Number,
    /// A string with its quotes, or a piece of a back-tick string around what is interpolated.
    Text,
    /// A comment.
    Comment,
    /// `(`, `[`, `{`, and the `${` of an interpolation.
    Open,
    /// `)`, `]`, `}`.
    Close,
    /// Anything else: `.`, `?.`, `::`, `#` and each other character alone.
    Sign,
}

/// A piece of a line; what lies between two is blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its first byte.
    pub from: usize,
    /// The byte behind its last one.
    pub to: usize,
    /// False for a string or comment that goes on behind the end of the text.
    pub ended: bool,
}

impl Token {
    /// Its text.
    pub fn of<'l>(&self, line: &'l str) -> &'l str {
        &line[self.from..self.to]
    }
}

/// The tokens of `line`, in order.
pub fn tokens(line: &str) -> Vec<Token> {
    let mut lexer = Lexer { line, at: 0, tokens: Vec::new() };
    while lexer.at < line.len() {
        lexer.next();
    }
    lexer.tokens
}

struct Lexer<'l> {
    line: &'l str,
    at: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.line[self.at..]
    }

    fn push(&mut self, kind: Kind, from: usize, ended: bool) {
        self.tokens.push(Token { kind, from, to: self.at, ended });
    }

    /// Takes `length` bytes as one token.
    fn take(&mut self, kind: Kind, length: usize) {
        let from = self.at;
        self.at += length;
        self.push(kind, from, true);
    }

    fn next(&mut self) {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return };
        let while_true = |wanted: fn(char) -> bool| rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        match first {
            _ if first.is_whitespace() => self.at += while_true(char::is_whitespace),
            _ if rest.starts_with("//") => self.take(Kind::Comment, rest.find('\n').unwrap_or(rest.len())),
            _ if rest.starts_with("/*") => self.comment(),
            '"' | '\'' => self.quoted(first),
            '`' => self.back_tick(),
            '0'..='9' => self.take(Kind::Number, number(rest)),
            _ if is_of_word(first) => self.take(Kind::Word, while_true(is_of_word)),
            '(' | '[' | '{' => self.take(Kind::Open, 1),
            ')' | ']' | '}' => self.take(Kind::Close, 1),
            _ if rest.starts_with("::") || rest.starts_with("?.") => self.take(Kind::Sign, 2),
            _ => self.take(Kind::Sign, first.len_utf8()),
        }
    }

    /// A block comment; they nest.
    fn comment(&mut self) {
        let (from, mut depth) = (self.at, 0);
        while let Some(mark) = self.rest().find("/*").into_iter().chain(self.rest().find("*/")).min() {
            depth += if self.line[self.at + mark..].starts_with("/*") { 1 } else { -1 };
            self.at += mark + 2;
            if depth == 0 {
                return self.push(Kind::Comment, from, true);
            }
        }
        self.at = self.line.len();
        self.push(Kind::Comment, from, false);
    }

    /// A string that ends on its line.
    fn quoted(&mut self, quote: char) {
        let from = self.at;
        let mut escaped = false;
        for (at, c) in self.rest().char_indices().skip(1) {
            match c {
                '\n' => {
                    self.at += at;
                    return self.push(Kind::Text, from, false);
                }
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if c == quote => {
                    self.at += at + 1;
                    return self.push(Kind::Text, from, true);
                }
                _ => {}
            }
        }
        self.at = self.line.len();
        self.push(Kind::Text, from, false);
    }

    /// A string that may span lines and hold `${code}`.
    fn back_tick(&mut self) {
        let mut from = self.at;
        self.at += 1;
        while let Some(mark) = self.rest().find('`').into_iter().chain(self.rest().find("${")).min() {
            self.at += mark;
            if self.rest().starts_with('`') {
                self.at += 1;
                return self.push(Kind::Text, from, true);
            }
            self.push(Kind::Text, from, true);
            self.take(Kind::Open, 2);
            if !self.interpolation() {
                return;
            }
            from = self.at;
        }
        self.at = self.line.len();
        self.push(Kind::Text, from, false);
    }

    /// Code up to the bracket that ends it; false when the text ended first.
    fn interpolation(&mut self) -> bool {
        let mut depth = 1;
        while depth > 0 && self.at < self.line.len() {
            let before = self.tokens.len();
            self.next();
            for token in &self.tokens[before..] {
                match token.of(self.line) {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ => {}
                }
            }
        }
        depth == 0
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// How long the number is that `text` begins with; `1..3` and `1.max(2)` begin with a 1.
fn number(text: &str) -> usize {
    let digits = |text: &str| text.find(|c: char| !is_of_word(c)).unwrap_or(text.len());
    let whole = digits(text);
    match text[whole..].strip_prefix('.') {
        Some(part) if part.starts_with(|c: char| c.is_ascii_digit()) => whole + 1 + digits(part),
        _ => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<(Kind, &str)> {
        tokens(line).iter().map(|token| (token.kind, token.of(line))).collect()
    }

    #[test]
    fn code_is_taken_apart() {
        use Kind::{Close, Comment, Number, Open, Sign, Text, Word};
        let all = [
            (Word, "let"),
            (Word, "名前"),
            (Sign, "="),
            (Word, "x"),
            (Sign, "?."),
            (Word, "f"),
            (Open, "("),
            (Number, "1.5"),
            (Sign, ","),
            (Text, r#""a\"(b""#),
            (Close, ")"),
            (Sign, ";"),
            (Comment, "// c"),
        ];
        assert_eq!(words(r#"let 名前 = x?.f(1.5, "a\"(b"); // c"#), all);
        assert_eq!(words("1..3"), [(Number, "1"), (Sign, "."), (Sign, "."), (Number, "3")]);
        assert_eq!(
            words("a::b /* x /* y */ z */"),
            [(Word, "a"), (Sign, "::"), (Word, "b"), (Comment, "/* x /* y */ z */")]
        );
    }

    #[test]
    fn what_is_interpolated_is_code() {
        use Kind::{Close, Open, Text, Word};
        let all = [
            (Text, "`a "),
            (Open, "${"),
            (Word, "b"),
            (Open, "{"),
            (Text, "\"}\""),
            (Close, "}"),
            (Close, "}"),
            (Text, " c`"),
        ];
        assert_eq!(words("`a ${b{\"}\"}} c`"), all);
    }

    #[test]
    fn a_string_or_comment_may_be_unended() {
        for line in ["\"a", "'a", "`a\nb", "/* a", "x(\"a\\\"", "`${a} b", "\"a\nb\" + `"] {
            assert!(tokens(line).iter().any(|token| !token.ended), "{line}");
        }
        for line in ["\"a\"", "`a\nb`", "/* a */", "// a", "`${a}`", "#{ a: 1 }", ""] {
            assert!(tokens(line).iter().all(|token| token.ended), "{line}");
        }
    }
}
