//! Secrets that nobody told us about, known by how they stand in a text: `NAME=value`, `"NAME": "value"`,
//! `Authorization:`, `scheme://user:pass@`, private keys, tokens of providers.
//!
//! One pass, byte by byte, so that the chunks in which a text comes make no difference. What announces a secret is
//! shown at once and remembered; only what follows it, the secret itself, is held back until it has ended:
//!
//! | after | held until | then |
//! |---|---|---|
//! | `NAME=`, `NAME: ` in capitals | the end of the shell word | hidden |
//! | `"NAME": "` | the closing quote or the line's end | hidden |
//! | `Authorization:` | the end of the word after `Bearer` and the like | hidden |
//! | `://user:` | a space, or `/` behind `@` | hidden up to the last `@`; shown when there is none |
//! | `https://`, `redis://` | the same | what is a token before `@` is hidden |
//! | `ghp_` and other tokens | a character that no such token has | hidden when long enough, else shown |
//! | `-----BEGIN … PRIVATE KEY-----` | `-----`, or 16 KiB | hidden |
//! | `NAME: |` and the other block scalars of YAML | a line that is indented no more than the name | hidden |
//! | `name = `, `name: `, `--name `, `<name>`, `Cookie:` and others of `fields.rs` | the end of the field | hidden unless ordinary |
//!
//! At most 4 KiB are held (16 KiB of a private key); a secret that goes on is dropped as it comes.

use super::fields::{self, Ends, Sure};
use super::names::is_secret_name_in_text;

/// Bytes held of one secret; its tag is that of as many.
const MOST_HELD: usize = 4 << 10;
/// Bytes of a private key without an end, after which text is shown again. The largest in use are under 13 KiB.
pub const MOST_OF_A_KEY: usize = 16 << 10;
/// Bytes of the text so far that can announce a secret.
const CONTEXT: usize = 256;

/// Where a token may stand in place of a user.
const TOKEN_URLS: &[&[u8]] = &[b"http://", b"https://", b"redis://", b"rediss://"];

/// Fewer bytes before the `@` of a URL are a user's name.
const SHORTEST_TOKEN: usize = 12;

/// How a token of a provider begins, and what follows.
struct Token {
    prefix: &'static str,
    body: fn(u8) -> bool,
    /// Fewer bytes than this after the prefix are no token.
    least: usize,
}

fn alnum(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}

fn capital(b: u8) -> bool {
    b.is_ascii_uppercase() || b.is_ascii_digit()
}

fn word(b: u8) -> bool {
    alnum(b) || b == b'_' || b == b'-'
}

fn dotted(b: u8) -> bool {
    word(b) || b == b'.'
}

fn path(b: u8) -> bool {
    word(b) || b == b'/'
}

const fn token(prefix: &'static str, body: fn(u8) -> bool, least: usize) -> Token {
    Token { prefix, body, least }
}

const TOKENS: &[Token] = &[
    token("ghp_", alnum, 20),
    token("gho_", alnum, 20),
    token("ghu_", alnum, 20),
    token("ghs_", alnum, 20),
    token("ghr_", alnum, 20),
    token("github_pat_", word, 20),
    token("glpat-", word, 20),
    token("xoxa-", word, 10),
    token("xoxb-", word, 10),
    token("xoxp-", word, 10),
    token("xoxr-", word, 10),
    token("xoxs-", word, 10),
    token("sk_live_", alnum, 10),
    token("sk_test_", alnum, 10),
    token("rk_live_", alnum, 10),
    token("whsec_", alnum, 20),
    token("sk-ant-", word, 20),
    token("sk-proj-", word, 20),
    token("npm_", alnum, 36),
    token("dckr_pat_", word, 20),
    token("dop_v1_", alnum, 40),
    token("glrt-", word, 20),
    token("hf_", alnum, 30),
    token("hvs.", word, 20),
    token("pypi-", word, 40),
    token("ya29.", word, 20),
    token("AGE-SECRET-KEY-1", capital, 40),
    token("AIza", word, 30),
    token("SG.", dotted, 40),
    token("glsa_", word, 30),
    token("shpat_", alnum, 30),
    token("ATATT3", word, 40),
    token("GOCSPX-", word, 20),
    token("rubygems_", alnum, 40),
    token("AKIA", capital, 16),
    token("ASIA", capital, 16),
    token("hooks.slack.com/services/", path, 8),
    token("discord.com/api/webhooks/", path, 8),
];

/// What is being held.
#[derive(Clone, Copy)]
enum Kind {
    /// The word of a shell after `NAME=`.
    Word { quote: Option<u8>, quoted: bool, escape: bool },
    /// A JSON string; in a JSON string within another the quotes are escaped.
    Json { within: bool, escape: bool },
    /// The value of a header.
    Header,
    /// What may be a password before `@`.
    Url,
    /// What may be a token before `@`, with no password or a mere word in its place.
    Login,
    /// The body of a token.
    Token(&'static Token),
    /// A JSON web token after `eyJ`: the number of dots, and the bytes since the last of them.
    Jwt { dots: u8, since: usize },
    /// The body of a private key.
    Key,
    /// The lines of a block scalar, which are indented by more than this.
    Block { indent: usize },
    /// The value of a field, see `fields.rs`; `open` is the quote that it began with.
    Field { ends: Ends, sure: Sure, open: Option<u8> },
}

const WORD: Kind = Kind::Word { quote: None, quoted: false, escape: false };

struct Run {
    kind: Kind,
    held: Vec<u8>,
    /// More came than is held.
    over: bool,
}

impl Run {
    fn new(kind: Kind) -> Run {
        Run { kind, held: Vec::new(), over: false }
    }
}

/// What a byte does to what is held.
enum Next {
    /// It belongs to it.
    Hold,
    /// It stands before it.
    Show,
    /// It stands behind it.
    End,
}

/// The state of one stream.
#[derive(Default)]
pub struct Shapes {
    /// The end of the text so far, hidden parts included.
    context: Vec<u8>,
    run: Option<Run>,
    /// Bytes that were held and announced nothing after all, to be read as text; the last comes first.
    again: Vec<u8>,
}

impl Shapes {
    /// Takes bytes; what is decided goes to `out`.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>, mark: &dyn Fn(&str) -> String) {
        for &byte in bytes {
            self.step(byte, out, mark);
            self.read_again(out, mark);
        }
    }

    /// The rest: nothing more will come.
    pub fn end(&mut self, out: &mut Vec<u8>, mark: &dyn Fn(&str) -> String) {
        while let Some(run) = self.run.take() {
            self.close(run, None, out, mark);
            self.read_again(out, mark);
        }
        self.context.clear();
    }

    fn read_again(&mut self, out: &mut Vec<u8>, mark: &dyn Fn(&str) -> String) {
        while let Some(byte) = self.again.pop() {
            self.step(byte, out, mark);
        }
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>, mark: &dyn Fn(&str) -> String) {
        let Some(mut run) = self.run.take() else {
            out.push(byte);
            self.remember(byte);
            self.run = announced(&self.context).map(Run::new);
            return;
        };
        match run.next(byte) {
            Next::Hold => {
                if run.held.len() < run.most() {
                    run.held.push(byte)
                } else {
                    run.over = true
                }
                self.run = Some(run);
            }
            Next::Show => {
                out.push(byte);
                self.remember(byte);
                self.run = Some(run);
            }
            Next::End => self.close(run, Some(byte), out, mark),
        }
    }

    fn remember(&mut self, byte: u8) {
        if self.context.len() >= 2 * CONTEXT {
            self.context.drain(..CONTEXT);
        }
        self.context.push(byte);
    }

    /// Decides about what is held; `behind` is the byte after it.
    fn close(&mut self, run: Run, behind: Option<u8>, out: &mut Vec<u8>, mark: &dyn Fn(&str) -> String) {
        self.again.extend(behind);
        let held = &run.held[..];
        match run.kind {
            Kind::Word { .. } | Kind::Field { ends: Ends::Line, open: None, .. }
                if behind == Some(b'\n') && is_block(held) =>
            {
                self.again.clear();
                let indent = indent(fields::line(&self.context));
                for &byte in held.iter().chain(b"\n") {
                    out.push(byte);
                    self.remember(byte);
                }
                self.run = Some(Run::new(Kind::Block { indent }));
            }
            Kind::Block { .. } => {
                // The line that ended it is text.
                let end = if behind.is_some() { last_line(held) } else { held.len() };
                let body = &held[..end];
                let begin = body.len() - body.trim_ascii_start().len();
                self.again.extend(held[end..].iter().rev());
                self.hide(body, begin..body.trim_ascii_end().len().max(begin), out, mark);
            }
            Kind::Header if behind == Some(b' ') && is_scheme(held) => {
                out.extend_from_slice(held);
                self.run = Some(Run::new(Kind::Header));
            }
            Kind::Word { quoted: true, .. } if !run.over => self.hide(held, quotes(held), out, mark),
            Kind::Word { .. } | Kind::Json { .. } | Kind::Header => self.hide(held, 0..held.len(), out, mark),
            Kind::Url => match held.iter().rposition(|&b| b == b'@') {
                _ if run.over => self.hide(held, 0..held.len(), out, mark),
                Some(at) if at > 0 => {
                    self.again.extend(held[at..].iter().rev());
                    self.hide(&held[..at], 0..at, out, mark);
                }
                _ => self.again.extend(held.iter().rev()),
            },
            Kind::Login => {
                let login = held.iter().rposition(|&b| b == b'@').map_or(&[][..], |at| &held[..at]);
                let token = if run.over { held.len() } else { token_in(login).map_or(0, <[u8]>::len) };
                self.again.extend(held[token..].iter().rev());
                self.hide(&held[..token], 0..token, out, mark);
            }
            Kind::Token(token) if held.len() >= token.least => self.hide_token(token.prefix, held, out, mark),
            Kind::Jwt { dots: 2, .. } => self.hide_token("eyJ", held, out, mark),
            Kind::Jwt { .. } if run.over => self.hide_token("eyJ", held, out, mark),
            Kind::Token(_) | Kind::Jwt { .. } => self.again.extend(held.iter().rev()),
            Kind::Field { ends, sure, open } => {
                let part = if run.over { Some(0..held.len()) } else { field(held, ends, sure, open, behind) };
                match part {
                    Some(part) => {
                        self.again.extend(held[part.end..].iter().rev());
                        self.hide(&held[..part.end], part, out, mark);
                    }
                    None => self.again.extend(held.iter().rev()),
                }
            }
            Kind::Key => {
                // The dashes that ended it are text.
                let body = if behind == Some(b'-') { held.strip_suffix(b"----").unwrap_or(held) } else { held };
                self.again.extend(held[body.len()..].iter().rev());
                self.hide(body, 0..body.trim_ascii_end().len(), out, mark);
            }
        }
    }

    /// Writes the mark of a part of what was held, and the rest as it is.
    fn hide(&mut self, held: &[u8], part: std::ops::Range<usize>, out: &mut Vec<u8>, mark: &dyn Fn(&str) -> String) {
        let secret = &held[part.clone()];
        if secret.is_empty() || is_mark(secret) {
            out.extend_from_slice(held);
        } else {
            out.extend_from_slice(&held[..part.start]);
            out.extend_from_slice(mark(&String::from_utf8_lossy(secret)).as_bytes());
            out.extend_from_slice(&held[part.end..]);
        }
        // A private key may begin inside of what was hidden.
        held.iter().for_each(|&byte| self.remember(byte));
        if !held.is_empty() && begins_key(&self.context) {
            self.run = Some(Run::new(Kind::Key));
        }
    }

    /// The prefix was shown, and says which kind it is; the tag is that of the whole.
    fn hide_token(&mut self, prefix: &str, held: &[u8], out: &mut Vec<u8>, mark: &dyn Fn(&str) -> String) {
        out.extend_from_slice(mark(&format!("{prefix}{}", String::from_utf8_lossy(held))).as_bytes());
        held.iter().for_each(|&byte| self.remember(byte));
    }
}

impl Run {
    fn most(&self) -> usize {
        if matches!(self.kind, Kind::Key) { MOST_OF_A_KEY } else { MOST_HELD }
    }

    fn next(&mut self, byte: u8) -> Next {
        let is_end = match &mut self.kind {
            Kind::Word { quote, quoted, escape } => {
                let first = self.held.is_empty() || self.held == b"\\";
                shell_word_ends(byte, first, quote, quoted, escape)
            }
            Kind::Json { within, escape } => {
                let escaped = std::mem::replace(escape, byte == b'\\' && !*escape && !*within);
                byte == b'\n' || (byte == b'"' && !escaped)
            }
            Kind::Header if self.held.is_empty() && b" \t\"'\\".contains(&byte) => return Next::Show,
            Kind::Header => byte.is_ascii_whitespace() || b"\"',".contains(&byte),
            Kind::Login => byte.is_ascii_whitespace() || byte == b'/',
            // A password may have a slash in it, a port has digits only.
            Kind::Url => {
                let is_port = self.held.iter().all(u8::is_ascii_digit);
                byte.is_ascii_whitespace() || (byte == b'/' && (is_port || self.held.contains(&b'@')))
            }
            Kind::Token(token) => !(token.body)(byte),
            Kind::Jwt { dots, since } => !goes_on(byte, dots, since),
            Kind::Key if self.held.is_empty() && byte.is_ascii_whitespace() => return Next::Show,
            Kind::Field { ends, open, .. } => {
                if self.held.is_empty() && open.is_none() {
                    match (*ends, byte) {
                        (Ends::Line | Ends::Flow | Ends::Blank, b' ' | b'\t' | b'>') => return Next::Show,
                        (Ends::Quote(_), b' ') => return Next::Show,
                        // It was a comparison.
                        (Ends::Line | Ends::Flow | Ends::Blank, b'=') => return Next::End,
                        (Ends::Line | Ends::Flow | Ends::Blank, b'"' | b'\'') => {
                            *open = Some(byte);
                            return Next::Show;
                        }
                        _ => {}
                    }
                }
                field_ends(byte, *ends, *open, &self.held)
            }
            Kind::Block { indent } => {
                let line = &self.held[last_line(&self.held)..];
                !byte.is_ascii_whitespace() && line.len() <= *indent && line.iter().all(|b| *b == b' ')
            }
            Kind::Key => (byte == b'-' && self.held.ends_with(b"----")) || self.held.len() >= MOST_OF_A_KEY,
        };
        if is_end { Next::End } else { Next::Hold }
    }
}

/// Whether `byte` stands behind the word that a value is. Unquoted, a quote ends it: it is that of the text around.
fn shell_word_ends(byte: u8, first: bool, quote: &mut Option<u8>, quoted: &mut bool, escape: &mut bool) -> bool {
    let is_quote = byte == b'"' || byte == b'\'';
    if byte == b'\n' || byte == b'\r' {
        return true;
    }
    if first && is_quote {
        (*quote, *quoted) = (Some(byte), true);
        return false;
    }
    if std::mem::take(escape) {
        return false;
    }
    match *quote {
        Some(open) if byte == open => *quote = None,
        Some(b'\'') => {}
        Some(_) => *escape = byte == b'\\',
        None if byte.is_ascii_whitespace() || b"&;,".contains(&byte) => return true,
        None if *quoted && b")]}".contains(&byte) => return true,
        None if *quoted && is_quote => *quote = Some(byte),
        None if *quoted => *escape = byte == b'\\',
        None => return is_quote,
    }
    false
}

/// Three parts of eight or more characters, the first two beginning with `eyJ`; anything else ends it early.
fn goes_on(byte: u8, dots: &mut u8, since: &mut usize) -> bool {
    if byte == b'.' {
        let long = *since >= if *dots == 0 { 8 } else { 11 };
        let more = long && *dots < 2;
        (*dots, *since) = (*dots + u8::from(more), 0);
        return more;
    }
    let announced = *dots != 1 || b"eyJ".get(*since).is_none_or(|&wanted| wanted == byte);
    *since += 1;
    word(byte) && announced
}

/// Whether `byte` stands behind the value of a field.
fn field_ends(byte: u8, ends: Ends, open: Option<u8>, held: &[u8]) -> bool {
    let escaped = held.iter().rev().take_while(|b| **b == b'\\').count() % 2 == 1;
    if let Some(quote) = open {
        return byte == b'\n' || (byte == quote && !escaped);
    }
    match ends {
        Ends::Line => byte == b'\n' || byte == b'\r',
        Ends::Flow => b"\n\r,;&}])'\"".contains(&byte),
        Ends::Blank => byte.is_ascii_whitespace() || b"'\"".contains(&byte),
        Ends::Quote(quote) => byte == b'\n' || (byte == quote && !escaped),
        Ends::Tag => byte == b'<' || byte == b'\n',
    }
}

/// The part of a field's value that is secret.
fn field(held: &[u8], ends: Ends, sure: Sure, open: Option<u8>, behind: Option<u8>) -> Option<std::ops::Range<usize>> {
    let mut end = held.trim_ascii_end().len();
    if ends == Ends::Line && open.is_none() {
        let comment = held[..end].windows(2).position(|two| two == b" #" || two == b" ;");
        end = held[..comment.unwrap_or(end)].trim_ascii_end().len();
    }
    let value = &held[..end];
    let text = String::from_utf8_lossy(value);
    let is_secret = match sure {
        Sure::Always => true,
        // Whoever quotes a value means it.
        Sure::UnlessOrdinary if open.is_some() => {
            // In quotes these are no YAML.
            !fields::is_ordinary(text.trim_start_matches(['[', '|', '>', '!', '*', '&', '-'])) || text.contains(' ')
        }
        Sure::UnlessOrdinary => !fields::is_ordinary(&text),
        Sure::IfLogin => fields::is_login(value),
        Sure::IfPair => fields::is_pair(value),
    };
    let tag = ends != Ends::Tag || (behind == Some(b'<') && !held.starts_with(b" "));
    (end > 0 && is_secret && tag).then_some(0..end)
}

/// What the end of the text says about what follows.
fn announced(context: &[u8]) -> Option<Kind> {
    announced_word(context).or_else(|| {
        let (ends, sure) = fields::announced(context, &is_secret)?;
        Some(Kind::Field { ends, sure, open: None })
    })
}

fn announced_word(context: &[u8]) -> Option<Kind> {
    let (&last, before) = context.split_last()?;
    match last {
        b'=' if is_secret(name(before)) => Some(WORD),
        b' ' => before.strip_suffix(b":").map(name).filter(|name| is_capitals(name) && is_secret(name)).map(|_| WORD),
        b'"' => json(before),
        b':' if is_header(before) => Some(Kind::Header),
        b':' => is_user(before).then_some(Kind::Url),
        b'-' if begins_key(context) => Some(Kind::Key),
        b'/' if may_have_token(context) => Some(Kind::Login),
        b'J' if is_at_word(context, "eyJ") => Some(Kind::Jwt { dots: 0, since: 0 }),
        b'_' | b'-' | b'A' | b'a' | b'/' | b'.' | b'1' | b'3' => {
            TOKENS.iter().find(|token| is_at_word(context, token.prefix)).map(Kind::Token)
        }
        _ => None,
    }
}

/// The name that the text ends with.
fn name(text: &[u8]) -> &[u8] {
    let is_name = |b: &u8| word(*b) || *b == b'.';
    let length = text.iter().rev().take(CONTEXT).take_while(|b| is_name(b)).count();
    &text[text.len() - length..]
}

fn is_secret(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|name| !name.is_empty() && is_secret_name_in_text(name))
}

fn is_capitals(name: &[u8]) -> bool {
    name.iter().all(|&b| capital(b) || b == b'_')
}

/// `"NAME": "`, the last quote left out; each quote may be escaped.
fn json(before: &[u8]) -> Option<Kind> {
    let (value, within) = unescaped(before);
    let colon = value.trim_ascii_end().strip_suffix(b":")?.trim_ascii_end();
    let (key, _) = unescaped(colon.strip_suffix(b"\"")?);
    let name = name(key);
    (key[..key.len() - name.len()].ends_with(b"\"") && is_secret(name)).then_some(Kind::Json { within, escape: false })
}

fn unescaped(text: &[u8]) -> (&[u8], bool) {
    text.strip_suffix(b"\\").map_or((text, false), |text| (text, true))
}

fn is_header(before: &[u8]) -> bool {
    let (text, _) = unescaped(before.strip_suffix(b"\"").unwrap_or(before));
    fields::is_header(name(text))
}

fn is_scheme(word: &[u8]) -> bool {
    ["bearer", "basic", "token", "digest", "negotiate", "ntlm", "apikey", "key", "jwt", "hmac", "oauth", "sharedkey"]
        .iter()
        .any(|scheme| word.eq_ignore_ascii_case(scheme.as_bytes()))
}

/// `://user`, where the user may be missing, as Redis has it.
fn is_user(before: &[u8]) -> bool {
    let is_user = |b: &u8| !b.is_ascii_whitespace() && !b":/@".contains(b);
    let length = before.iter().rev().take(CONTEXT).take_while(|b| is_user(b)).count();
    before[..before.len() - length].ends_with(b"://")
}

/// True for a text after which a token may stand in place of a user.
pub fn may_have_token(before: &[u8]) -> bool {
    TOKEN_URLS.iter().any(|scheme| before.ends_with(scheme))
}

/// The token that stands in place of a user: alone, or with a word that is no password. What is shorter
/// is a name.
pub fn token_in(login: &[u8]) -> Option<&[u8]> {
    let colon = login.iter().position(|&b| b == b':');
    let (user, password) = colon.map_or((login, &[][..]), |at| (&login[..at], &login[at + 1..]));
    let is_none =
        password.is_empty() || ["x", "x-oauth-basic", "oauth2"].iter().any(|word| password == word.as_bytes());
    (is_none && user.len() >= SHORTEST_TOKEN && !is_mark(user)).then_some(user)
}

/// `|`, `>-` and the like.
fn is_block(value: &[u8]) -> bool {
    matches!(value, [b'|' | b'>', rest @ ..] if rest.len() <= 2 && rest.iter().all(|b| b"+-123456789".contains(b)))
}

/// Where the last line of the text begins.
fn last_line(text: &[u8]) -> usize {
    text.len() - fields::line(text).len()
}

/// By how much a line is indented; what lists have before an entry counts.
fn indent(line: &[u8]) -> usize {
    line.iter().take_while(|b| b" -".contains(b)).count()
}

fn begins_key(context: &[u8]) -> bool {
    let Some(text) = context.strip_suffix(b"-----") else { return false };
    let length = text.iter().rev().take(CONTEXT).take_while(|&&b| capital(b) || b == b' ').count();
    let (before, title) = text.split_at(text.len() - length);
    let title = String::from_utf8_lossy(title);
    before.ends_with(b"-----") && title.starts_with("BEGIN ") && title.contains("PRIVATE KEY")
}

fn is_at_word(context: &[u8], prefix: &str) -> bool {
    let inside = |b: &u8| alnum(*b) || *b == b'_';
    context.strip_suffix(prefix.as_bytes()).is_some_and(|before| !before.last().is_some_and(inside))
}

/// The inside of a quoted word.
fn quotes(held: &[u8]) -> std::ops::Range<usize> {
    let inner = held.len() >= 2 && held[0] == held[held.len() - 1];
    if inner { 1..held.len() - 1 } else { 0..held.len() }
}

/// True for what stands in place of a secret already.
pub fn is_mark(text: &[u8]) -> bool {
    let tag = text.strip_prefix("•••#".as_bytes());
    tag.is_some_and(|tag| (4..=64).contains(&tag.len()) && tag.iter().all(|b| b"0123456789abcdef".contains(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> String {
        let mut shapes = Shapes::default();
        let mut out = Vec::new();
        let mark = |value: &str| format!("<{value}>");
        shapes.feed(text.as_bytes(), &mut out, &mark);
        shapes.end(&mut out, &mark);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn each_shape_hides_the_secret_and_nothing_else() {
        for (text, shown) in [
            ("PASSWORD=abc LOG=info", "PASSWORD=<abc> LOG=info"),
            ("DB_PASS=it's\nX=1", "DB_PASS=<it>'s\nX=1"),
            ("JWT_SECRET=\"a b\" X=1", "JWT_SECRET=\"<a b>\" X=1"),
            ("export TOKEN='it'\\''s'; ls", "export TOKEN='<it'\\''s>'; ls"),
            ("[\"PASSWORD=abc\",\"LOG=info\"]", "[\"PASSWORD=<abc>\",\"LOG=info\"]"),
            ("?token=abc&page=2", "?token=<abc>&page=2"),
            ("PASSWORD= LOG=info", "PASSWORD= LOG=info"),
            ("POSTGRES_PASSWORD: hunter2\nimage: db", "POSTGRES_PASSWORD: <hunter2>\nimage: db"),
            ("{\"password\": \"a\\\"b\", \"x\": \"y\"}", "{\"password\": \"<a\\\"b>\", \"x\": \"y\"}"),
            ("{\\\"password\\\":\\\"abc\\\",\\\"x\\\":1}", "{\\\"password\\\":\\\"<abc\\>\",\\\"x\\\":1}"),
            ("Authorization: Bearer abc.def\r\nAccept: x", "Authorization: Bearer <abc.def>\r\nAccept: x"),
            ("-H 'authorization: abc' http://x", "-H 'authorization: <abc>' http://x"),
            ("\"Authorization\": \"Basic YWJj\"", "\"Authorization\": \"Basic <YWJj>\""),
            ("postgres://vrc:open@ses@db:5432/vrc", "postgres://vrc:<open@ses>@db:5432/vrc"),
            ("redis://:pw@cache:6379", "redis://:<pw>@cache:6379"),
            ("https://0123456789abcdef@git.example/x.git", "https://<0123456789abcdef>@git.example/x.git"),
            ("http://abcdefghijkl:x-oauth-basic@h/", "http://<abcdefghijkl>:<x-oauth-basic>@h/"),
            ("git+https://abcdefghijkl:@h", "git+https://<abcdefghijkl>:@h"),
            ("https://abcdefghijkl:pw@h", "https://abcdefghijkl:<pw>@h"),
            ("redis://0123456789abcdef@cache:6379", "redis://<0123456789abcdef>@cache:6379"),
            ("postgres://u:p/w@db/x?y=a@b", "postgres://u:<p/w>@db/x?y=a@b"),
            ("password: |\n  two\n\n  lines\nuser: a", "password: |\n  <two\n\n  lines>\nuser: a"),
            ("  - DB_PASSWORD: >-\n      x y\n    user: a", "  - DB_PASSWORD: >-\n      <x y>\n    user: a"),
            ("a_token: |2\n    x", "a_token: |2\n    <x>"),
            ("password: |\nuser: a\n", "password: |\nuser: a\n"),
            ("ENV DB_PASSWORD two\nENV LOG x", "ENV DB_PASSWORD <two>\nENV LOG x"),
            ("Endpoint=x;AccountKey=a+b/c==;X=1", "Endpoint=x;AccountKey=<a+b/c==>;X=1"),
            (
                "SG.abcdefghijklmnopqrstuv.abcdefghijklmnopqrstuvwx x",
                "SG.<SG.abcdefghijklmnopqrstuv.abcdefghijklmnopqrstuvwx> x",
            ),
            ("hvs.abcdefghijklmnopqrst x", "hvs.<hvs.abcdefghijklmnopqrst> x"),
            ("db_password: \"!Kx9-1\"", "db_password: \"<!Kx9-1>\""),
            ("redis-cli -a pw1 ping", "redis-cli -a <pw1> ping"),
            ("curl -u me:pw1 http://x", "curl -u <me:pw1> http://x"),
            ("http://h:8080?token=abc x", "http://h:8080?token=<abc> x"),
            ("ghp_abcdefghijklmnopqrst.", "ghp_<ghp_abcdefghijklmnopqrst>."),
            ("AKIA0123456789ABCDEF", "AKIA<AKIA0123456789ABCDEF>"),
            ("eyJhbGciOiJI.eyJzdWIiOiIx.sig-1_2 x", "eyJ<eyJhbGciOiJI.eyJzdWIiOiIx.sig-1_2> x"),
            (
                "https://hooks.slack.com/services/T0/B0/xyz1",
                "https://hooks.slack.com/services/<hooks.slack.com/services/T0/B0/xyz1>",
            ),
        ] {
            assert_eq!(whole(text), shown);
        }
    }

    #[test]
    fn a_private_key_is_hidden_wherever_it_begins() {
        for (text, shown) in [
            (
                "a\n-----BEGIN RSA PRIVATE KEY-----\nMII-x\nyz\n-----END RSA PRIVATE KEY-----\nb",
                "a\n-----BEGIN RSA PRIVATE KEY-----\n<MII-x\nyz>\n-----END RSA PRIVATE KEY-----\nb",
            ),
            ("-----BEGIN PRIVATE KEY-----\nMII", "-----BEGIN PRIVATE KEY-----\n<MII>"),
            (
                "KEY_TOKEN=\"-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----\"",
                "KEY_TOKEN=<\"-----BEGIN PRIVATE KEY----->\n<MII>\n-----END PRIVATE KEY-----\"",
            ),
            ("TOKEN=-----BEGIN PRIVATE KEY-----\nMII\n-----", "TOKEN=<-----BEGIN> PRIVATE KEY-----\n<MII>\n-----"),
            ("-----BEGIN PUBLIC KEY-----\nMII", "-----BEGIN PUBLIC KEY-----\nMII"),
        ] {
            assert_eq!(whole(text), shown);
        }
    }

    #[test]
    fn ordinary_text_is_shown_as_it_is() {
        for text in [
            "login: ",
            "Password: ",
            "token: expired",
            "key=value pass=12",
            "http://127.0.0.1:8080/api",
            "ghp_short sk_live_x npm_config_cache eyJ.eyJ.x",
            "a:b@c x://y:z",
            "https://alice@git.example/a",
            "https://a-host-that-is-long:8080/x@y see https://b.example",
            "ssh://a-user-that-is-long@host/x",
            "http://h:8080/a@b x://y:z/w v",
            "ps -a -u root",
            "•••#3f9a PASSWORD=•••#3f9a x://u:•••#3f9a@h",
        ] {
            assert_eq!(whole(text), text);
        }
    }

    #[test]
    fn what_is_held_is_bounded_and_what_follows_is_shown_again() {
        for announces in ["PASSWORD=", "x://u:", "ghp_", "eyJ", "\"password\": \"", "authorization: ", "PASSWORD='"] {
            let mut shapes = Shapes::default();
            let mut out = Vec::new();
            shapes.feed(announces.as_bytes(), &mut out, &|_| "*".into());
            for _ in 0..1_000 {
                shapes.feed(&[b'a'; 100], &mut out, &|_| "*".into());
                assert!(shapes.run.as_ref().is_some_and(|run| run.held.len() <= MOST_HELD));
            }
            shapes.feed(b"'\"\n after", &mut out, &|_| "*".into());
            let text = String::from_utf8_lossy(&out);
            assert!(text.contains('*') && text.ends_with(" after") && text.len() < 60, "{announces}: {text}");
        }
        let key = format!("-----BEGIN PRIVATE KEY-----{} after", "a".repeat(MOST_OF_A_KEY));
        assert!(whole(&key).ends_with("> after"));
    }
}
