//! What is secret, and the one sink that screen, journal, errors and panics pass through.

pub mod escapes;
mod fields;
mod forms;
mod invisible;
mod keys;
mod known;
mod names;
mod needles;
#[cfg(test)]
mod props;
mod shapes;
mod values;
mod variables;
mod wrapped;

pub use invisible::{is_combining, is_invisible};
pub use names::{add as add_names, check as check_name, is_secret_name};
pub use values::{clean_json, clean_words};

use known::known;
use needles::{Matcher, Needles};
use serde_json::Value;
use shapes::Shapes;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Values shorter than this many bytes are not looked for: they would turn ordinary text into dots.
pub const SHORTEST: usize = 5;

/// Keeps what this process has in memory from being written to a core file, or read by other processes of the user.
/// The programs that it starts write no core files either.
pub fn seal_process() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is a valid limit for the whole call, and the other call takes numbers only.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    }
}

/// A value that has no text form: it cannot be printed, serialised or interpolated, only handed to the one thing
/// that needs it.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes the value and makes the sink know it from now on.
    pub fn new(value: impl Into<String>) -> Secret {
        let value: String = value.into();
        remember(&value);
        Secret(value.into())
    }

    /// A value that the sink does not look for: a test has thousands of random ones.
    #[cfg(test)]
    pub fn unknown(value: &str) -> Secret {
        Secret(value.into())
    }

    /// The value itself, for the place that must have it (an askpass answer, a child's environment).
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True when the value is too short to be hidden: fewer than [`SHORTEST`] bytes without the space around it.
    pub fn is_too_short(&self) -> bool {
        is_too_short(&self.0)
    }

    /// Says where the value came from. When it is too short to be hidden the operator is told so, once a source; see
    /// [`unhidable`].
    pub fn from_source(self, source: &str) -> Secret {
        if self.is_too_short() {
            let mut short = SHORT.lock().unwrap_or_else(PoisonError::into_inner);
            if short.seen.insert(source.to_string()) {
                short.untold.push(source.to_string());
            }
        }
        self
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("•••")
    }
}

/// Sentences that the screen must show before anything else, each once.
#[derive(Default)]
struct Untold {
    said: BTreeSet<String>,
    waiting: Vec<String>,
}

static UNTOLD: Mutex<Untold> = Mutex::new(Untold { said: BTreeSet::new(), waiting: Vec::new() });

/// Has the operator warned, once, that values cannot be hidden yet.
pub fn warn(sentence: String) {
    let mut untold = UNTOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if untold.said.insert(sentence.clone()) {
        untold.waiting.push(sentence);
    }
}

/// Warnings that were not shown yet: the caller must show them.
pub fn warnings() -> Vec<String> {
    std::mem::take(&mut UNTOLD.lock().unwrap_or_else(PoisonError::into_inner).waiting)
}

#[derive(Default)]
struct Short {
    seen: BTreeSet<String>,
    untold: Vec<String>,
}

static SHORT: Mutex<Short> = Mutex::new(Short { seen: BTreeSet::new(), untold: Vec::new() });

/// Names of sources whose values are too short to be hidden, each told once: whoever asks must show them.
pub fn unhidable() -> Vec<String> {
    std::mem::take(&mut SHORT.lock().unwrap_or_else(PoisonError::into_inner).untold)
}

/// True for a value that is not looked for because it has fewer than [`SHORTEST`] bytes.
pub fn is_too_short(value: &str) -> bool {
    value.trim().len() < SHORTEST
}

/// Hides a value and its encodings everywhere from now on, because it stands under a secret's name. Unlike a [`Secret`],
/// which somebody declared, it is only taken for one: ordinary words and small numbers are left alone.
pub fn learn(value: &str) {
    if is_ordinary(value.trim()) || is_too_short(value) {
        return;
    }
    let has_room = known().is_none_or(|mut known| known.guess(value));
    if !has_room {
        warn(
            "opsh hides no more values: the files and environments that it read hold more secrets than it has room for"
                .into(),
        );
    }
}

/// Hides what a variable of an environment holds: all of it under a secret's name, and under any name the passwords in
/// URLs and connection strings.
pub fn learn_variable(name: &str, value: &str) {
    if is_secret_name(name) {
        learn(value);
        // A service account is an object whose parts are printed alone.
        if let Ok(Value::Object(parts)) = serde_json::from_str(value) {
            let texts = parts.iter().filter_map(|(name, part)| Some((name, part.as_str()?)));
            texts.filter(|(name, _)| is_secret_name(name)).for_each(|(_, part)| learn(part));
        }
    }
    variables::passwords_in(value).iter().for_each(|password| learn(password));
}

/// Hides the values behind options of a command that name a secret: `--requirepass X`, `--password=X`, `redis-cli -a X`; also
/// within a word that is a command for a shell. A value that holds a `$` is put there by somebody else.
pub fn learn_words(words: &[String]) {
    let is_redis = words.iter().any(|word| word.ends_with("redis-cli"));
    for (at, word) in words.iter().enumerate() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (word.as_str(), words.get(at + 1).map(String::as_str)),
        };
        let is_named = fields::is_option(option) || (is_redis && option == "-a");
        // A word of a command is a whole value, blanks and all.
        let is_value = |value: &&str| !value.contains('$') && (value.contains(' ') || !fields::is_ordinary(value));
        if let Some(value) = value.filter(|value| is_named && is_value(value)) {
            learn(value);
        }
        if word.contains(char::is_whitespace)
            && let Some(inner) = shlex::split(word)
            && inner.len() > 1
        {
            learn_words(&inner);
        }
    }
}

fn remember(value: &str) {
    if !is_too_short(value)
        && let Some(mut known) = known()
    {
        known.learn(value);
    }
}

/// A number, or a word that settings are made of: hiding each of them would hide half of every text.
pub fn is_ordinary(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let number = value.len() < 9 && value.bytes().all(|byte| byte.is_ascii_digit());
    number || ["false", "disabled", "enabled", "default", "production", "development", "postgres"].contains(&&*lower)
}

/// Makes the tags of this process depend on `seed` alone, so that a replay shows the tags that were recorded. Those
/// given out before are forgotten. Who knows the seed can test guesses against a tag: it belongs where the record is.
pub fn salt_with(seed: &[u8]) {
    if let Some(mut known) = known() {
        known.salt_with(seed);
    }
}

/// The value behind a tag that was shown in this process, `3f9a` of `•••#3f9a`.
pub fn behind(tag: &str) -> Option<Secret> {
    known()?.behind(tag).map(Secret)
}

/// The tags that were shown in this process, in order.
pub fn tags() -> Vec<String> {
    known().map(|known| known.tags()).unwrap_or_default()
}

/// Text as it may be shown or stored: known secrets, their encodings and secret shapes become `•••#3f9a`, where the
/// tag is the same for equal values within this process.
///
/// A secret that has in it what nobody sees is found, too, as is the name before it: colours, other sequences for a terminal,
/// control characters. The text is then shown without them.
pub fn clean(text: &str) -> String {
    let seen = clean_seen(text);
    keys::hide_rest(wrapped::hide(&seen, &clean_once).unwrap_or(seen), &mark)
}

fn clean_seen(text: &str) -> String {
    let shown = clean_once(text);
    let Some(bare) = invisible::without(text) else { return shown };
    let of_bare = clean_once(&bare);
    if invisible::without(&shown).unwrap_or_else(|| shown.clone()) == of_bare { shown } else { of_bare }
}

/// At most so many characters of a text that somebody else wrote, as [`clean`] shows it. Secrets are hidden before it is cut:
/// half of one would not be known for what it is. This and [`last_lines`] are the only places where such a text is cut.
pub fn cut(text: &str, most: usize) -> String {
    let text = clean(text);
    let Some((end, _)) = text.char_indices().nth(most.saturating_sub(1)) else { return text };
    if text[end..].chars().nth(1).is_none() {
        return text;
    }
    // Half of a tag means nothing.
    let kept = &text[..end];
    let end = kept.rfind(MARK).filter(|at| kept[at + MARK.len()..].bytes().all(|b| b.is_ascii_hexdigit()));
    format!("{}…", &kept[..end.unwrap_or(kept.len())])
}

/// The last `count` lines that are not empty of a text that somebody else wrote, as [`clean`] shows it.
pub fn last_lines(text: &str, count: usize) -> String {
    let text = clean(text);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The beginning of a text whose rest was not read, as [`clean`] shows it: what may be the beginning of a secret is left out.
pub fn begun(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&Stream::new().feed(bytes)).into_owned()
}

/// The text of bytes of which at most `most` were read. Where so many were, the rest of a secret may not have been.
pub fn read_to(bytes: &[u8], most: usize) -> String {
    bytes.get(..most).map_or_else(|| String::from_utf8_lossy(bytes).into_owned(), begun)
}

/// Leaves whole lines of the head and the tail of a text that was cut between them. A secret that the cut halved is gone
/// then, also one that nobody knows yet; its value may hold anything but the end of a line.
pub fn whole_lines(head: &mut Vec<u8>, tail: &mut Vec<u8>) {
    head.truncate(head.iter().rposition(|byte| ends_line(*byte)).map_or(0, |end| end + 1));
    tail.drain(..after_cut(tail).unwrap_or(tail.len()));
}

/// Where whole lines begin in a text that begins within one, behind a private key that goes on there. `None` when no line
/// ends in it.
pub fn after_cut(text: &[u8]) -> Option<usize> {
    const END: &[u8] = b"PRIVATE KEY-----";
    let begin = text.iter().position(|byte| ends_line(*byte))? + 1;
    let near = &text[begin..text.len().min(begin + shapes::MOST_OF_A_KEY)];
    let end = near.windows(END.len()).position(|window| window == END).unwrap_or(0);
    let line = near[..end].iter().rposition(|byte| ends_line(*byte)).map_or(0, |end| end + 1);
    Some(if near[line..end].starts_with(b"-----END ") { begin + end + END.len() } else { begin })
}

/// A carriage return ends what a program shows of its progress, and a zero byte a variable of `/proc/PID/environ`.
fn ends_line(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r' | 0)
}

/// As [`cut`], on one line: control characters and blanks in a row are one blank.
pub fn cut_line(text: &str, most: usize) -> String {
    let text = clean(text);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    cut(&words.collect::<Vec<_>>().join(" "), most)
}

fn clean_once(text: &str) -> String {
    let mut stream = Stream::new();
    let mut out = stream.feed(text.as_bytes());
    out.extend(stream.end());
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Text that comes in pieces, as [`clean`] would show the whole: however it is cut, the result is the same.
///
/// An ordinary text passes at once, its unfinished last line too. Held back is only what may be the beginning of a
/// known value or stands where a secret stands (see `shapes.rs`), never more than the longest known form and 16 KiB.
#[derive(Default)]
pub struct Stream {
    needles: Needles,
    shapes: Shapes,
}

/// Shown instead of a text that cannot be checked.
const WITHHELD: &str = "(withheld: opsh cannot tell whether it holds a secret)";

impl Stream {
    /// A stream at its beginning.
    pub fn new() -> Stream {
        Stream::default()
    }

    /// Takes bytes and returns what may be shown by now. The bytes need not be text; what is none passes unchanged.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(matcher) = known().map(|mut known| known.matcher()) else { return WITHHELD.into() };
        self.feed_with(matcher, bytes)
    }

    fn feed_with(&mut self, matcher: Option<Arc<Matcher>>, bytes: &[u8]) -> Vec<u8> {
        let (mut half, mut out) = (Vec::new(), Vec::new());
        self.needles.feed(matcher, bytes, &mut half, &mark);
        self.shapes.feed(&half, &mut out, &mark);
        out
    }

    /// Returns what was held back, hidden where it must be. The stream is then at its beginning again.
    pub fn end(&mut self) -> Vec<u8> {
        let (mut half, mut out) = (Vec::new(), Vec::new());
        self.needles.end(&mut half, &mark);
        self.shapes.feed(&half, &mut out, &mark);
        self.shapes.end(&mut out, &mark);
        out
    }
}

/// How the mark of a value begins; hexadecimal digits follow.
pub const MARK: &str = "•••#";

/// True for a text in which something was hidden. Whatever is read back from a record and obeyed is asked this first: it
/// would be obeyed with the mark in place of the secret.
pub fn is_hidden(text: &str) -> bool {
    text.contains(MARK.trim_end_matches('#')) || text.contains(WITHHELD)
}

/// True for a text with the mark of a value in it, as opsh shows it.
pub fn has_mark(text: &str) -> bool {
    text.match_indices(MARK).any(|(at, _)| {
        let tag = &text.as_bytes()[at + MARK.len()..];
        tag.iter().take_while(|byte| byte.is_ascii_hexdigit()).count() >= 4
    })
}

/// True for a text that a record does not keep as it is, since it holds a secret or the mark of one.
pub fn holds_secret(text: &str) -> bool {
    is_hidden(text) || clean(text) != text
}

/// What stands in place of a value.
fn mark(value: &str) -> String {
    known().map_or_else(|| "•••".into(), |mut known| known.mark(value))
}

/// The kinds of forms in which a value comes back, and whether each is hidden as of now: `("base64", true)`.
pub fn forms(value: &str) -> Vec<(&'static str, bool)> {
    let mut kinds: Vec<(&'static str, bool)> = Vec::new();
    for (kind, text) in forms::named(value) {
        let hidden = !clean(&text).contains(&text);
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, all)) => *all &= hidden,
            None => kinds.push((kind, hidden)),
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_known_value_is_hidden_in_every_encoding() {
        let secret = Secret::new("hunter2-pa'ss\"wörd");
        for (kind, form) in forms::named(secret.expose()) {
            let text = clean(&format!("before {form} after"));
            assert!(!text.contains(&form), "{kind}: {form} survived in {text}");
            assert!(text.starts_with("before •••#") && text.ends_with(" after"), "{text}");
        }
        assert!(forms(secret.expose()).iter().all(|(_, hidden)| *hidden));
    }

    #[test]
    fn colours_in_a_secret_or_before_it_hide_nothing_from_us() {
        let secret = Secret::new("violet-otter-4471");
        for text in [
            "x violet-\x1b[01;31m\x1b[Kotter\x1b[m\x1b[K-4471 y",
            "violet\x08-otter\x0b-4471",
            "violet-\x1b]8;;http://a\x1b\\otter\x1b]8;;\x07-4471",
            "violet-\u{9b}1motter-4471",
        ] {
            let shown = clean(text);
            let bare = invisible::without(&shown).unwrap_or(shown);
            assert!(!bare.contains(secret.expose()) && bare.contains("•••#"), "{text:?}: {bare:?}");
            assert!(!clean_json(json!({ "out": [text] })).to_string().contains("otter"), "{text:?}");
        }
        for text in ["\x1b[36mpassword\x1b[0m=LEAK-1a2b3c", "\x1b[1mDB_PASSWORD\x1b[0m=LEAK-1a2b3c"] {
            assert!(!clean(text).contains("LEAK"), "{:?}", clean(text));
        }
        let ordinary = "\x1b[32mok\x1b[0m a\x1b[1mb\x1b[0m=1 \x00";
        assert_eq!(clean(ordinary), ordinary, "colours of what is shown stay");
    }

    #[test]
    fn a_known_value_in_base64_with_line_ends_is_hidden() {
        use base64::Engine as _;
        let secret = Secret::new("violet-otter-4471-parade");
        for before in 40..64 {
            let text = format!("{}{}{}", "0".repeat(before), secret.expose(), "1".repeat(60));
            let whole = base64::engine::general_purpose::STANDARD.encode(text);
            for width in [64, 76] {
                let lines: Vec<&str> =
                    whole.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
                let shown = clean(&format!("data:\n{}\nend\n", lines.join("\n")));
                assert!(shown.contains(MARK) && shown.starts_with("data:\n") && shown.ends_with("\nend\n"), "{shown}");
            }
        }
    }

    #[test]
    fn equal_values_have_equal_tags() {
        learn("same-value-1");
        let text = clean("same-value-1 same-value-1");
        let (a, b) = text.split_once(' ').expect("two words");
        assert_eq!(a, b);
        assert_eq!(behind(a.trim_start_matches("•••#")).expect("shown").expose(), "same-value-1");
        assert!(tags().contains(&a.trim_start_matches("•••#").to_string()));
    }

    #[test]
    fn shapes_hide_only_the_secret_part() {
        let text = clean("DATABASE_URL=postgres://vrc:opensesame1@db:5432/vrc");
        assert!(text.contains("postgres://vrc:•••#") && text.contains("@db:5432/vrc"), "{text}");
        assert!(!text.contains("opensesame1"));
        assert!(!clean("JWT_SECRET=abcdefgh1234").contains("abcdefgh1234"));
        assert!(!clean("ghp_abcdefghijklmnopqrstuvwxyz0123456789").contains("abcdefghij"));
    }

    #[test]
    fn a_secret_at_the_end_of_a_short_text_is_hidden_whole() {
        learn("orchid-of-the-valley-77");
        for before in 0..30 {
            let text = format!("{}orchid-of-the-valley-77 and more", "x ".repeat(before));
            let shown = cut(&text, 40);
            assert!(shown.chars().count() <= 40 && !shown.contains("orchid"), "{shown}");
            assert!((before < 20 || shown.ends_with('…')) && !shown.contains("#…"), "{shown}");
        }
        assert_eq!((cut("abcd", 4), cut("abcde", 4), cut("", 4)), ("abcd".into(), "abc…".into(), "".into()));
        learn("two words\nof one secret");
        let line = cut_line("a\n\tb two words\nof one secret \u{1b}[2J c", 60);
        assert!(line.starts_with("a b •••#") && line.ends_with(" [2J c"), "{line}");
    }

    #[test]
    fn the_last_lines_of_a_text_show_nothing_of_a_key_that_begins_before_them() {
        let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n".repeat(9);
        let said = last_lines(&format!("no key:\n-----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\n\n"), 2);
        assert!(said.starts_with("•••#") && said.ends_with("\n-----END PRIVATE KEY-----"), "{said}");
        let lines = clean_json(
            json!({ "lines": format!("k\n{body}-----END PRIVATE KEY-----").split('\n').collect::<Vec<_>>() }),
        );
        assert!(!lines.to_string().contains("MIIE"), "{lines}");
        assert!(!clean(&format!("{body}-----END PRIVATE KEY-----")).contains("MIIE"));
    }

    #[test]
    fn a_cut_text_keeps_whole_lines_and_no_rest_of_a_key() {
        let lines = |head: &str, tail: &str| {
            let (mut head, mut tail) = (head.as_bytes().to_vec(), tail.as_bytes().to_vec());
            whole_lines(&mut head, &mut tail);
            [head, tail].map(|bytes| String::from_utf8(bytes).expect("text"))
        };
        assert_eq!(lines("a\nb\nhalf-of", "a-secret\nc\nd"), ["a\nb\n", "c\nd"]);
        assert_eq!(lines("10 %\r11 %", "99 %\r100 %"), ["10 %\r", "100 %"]);
        assert_eq!(lines("half-of", "a-secret"), ["", ""]);
        assert_eq!(lines("", ""), ["", ""]);
        let key =
            "MIIa\nMIIb\n-----END RSA PRIVATE KEY-----\nc\n-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n";
        assert!(lines("", key)[1].starts_with("\nc\n-----BEGIN"), "{:?}", lines("", key));
        let later = &key[key.find("c\n").expect("there")..];
        assert_eq!(lines("", later)[1], later[2..]);
    }

    #[test]
    fn the_beginning_of_a_text_ends_before_what_may_be_a_secret() {
        learn("maple-syrup-in-winter-5");
        assert_eq!(begun(b"it is maple-syrup-in-wi"), "it is ");
        assert_eq!(
            (begun(b"x PASSWORD=abcde").as_str(), begun("x maple leaf ⌀".as_bytes()).as_str()),
            ("x PASSWORD=", "x maple leaf ⌀")
        );
    }

    #[test]
    fn values_behind_options_of_a_command_are_learned() {
        let words = |words: &[&str]| learn_words(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>());
        words(&["redis-server", "--requirepass", "opt-redis-71"]);
        words(&["sh", "-c", "exec mysqld --password='opt inner 72' --port 33061"]);
        words(&["CMD", "redis-cli", "-a", "opt-client-73", "ping"]);
        words(&["x", "--token=opt-equal-74", "--requirepass", "${PW-opt-not-75}", "--name", "opt-not-76"]);
        for value in ["opt-redis-71", "opt inner 72", "opt-client-73", "opt-equal-74"] {
            assert!(!clean(&format!("x {value} y")).contains(value), "{value}");
        }
        for value in ["opt-not-76", "33061"] {
            assert_eq!(clean(value), value);
        }
        let text = clean("redis-server --requirepass another-one-77 --port 6379");
        assert!(!text.contains("another-one-77") && text.ends_with(" --port 6379"), "{text}");
    }

    #[test]
    fn a_value_with_terminal_sequences_is_hidden_without_them() {
        learn("abcd\u{1b}[31m-escaped-\u{1b}]0;x\u{7}99");
        for text in ["x abcd-escaped-99 y", "x abcd\u{1b}[31m-escaped-\u{1b}]0;x\u{7}99 y"] {
            assert!(!clean(text).contains("escaped"), "{}", clean(text));
        }
    }

    #[test]
    fn ordinary_text_is_untouched() {
        for text in ["backend  running (healthy)  3 d", "http://127.0.0.1:8080/api", "a:b@c"] {
            assert_eq!(clean(text), text);
        }
    }

    #[test]
    fn values_under_secret_names_are_hidden_whole() {
        let value = clean_json(json!({"env": {"JWT_SECRET": "x", "LOG_LEVEL": "info"}}));
        assert_eq!(value["env"]["LOG_LEVEL"], "info");
        assert!(value["env"]["JWT_SECRET"].as_str().is_some_and(|text| text.starts_with("•••#")));
        assert_eq!(clean_json(value.clone()), value, "a tag stays the tag that it is");
        let nested =
            clean_json(json!({"token": ["abcdefgh1"], "secret": {"a": "zzzz9"}, "api_key": 123456789, "key": 7}));
        for hidden in ["abcdefgh1", "zzzz9", "123456789"] {
            assert!(!nested.to_string().contains(hidden), "{nested}");
        }
    }

    #[test]
    fn a_declared_secret_is_hidden_although_it_is_an_ordinary_word() {
        learn("enabled");
        assert_eq!(clean("webhook enabled"), "webhook enabled", "only taken for a secret by its name");
        let _password = Secret::new("48151623");
        assert!(!clean("it was 48151623").contains("48151623"));
    }

    #[test]
    fn a_known_number_is_hidden_as_number_text_and_key() {
        let _pin = Secret::new("8061399");
        let _zeros = Secret::new("00734211");
        let _rate = Secret::new("73.25519");
        let _long = Secret::new("907113355002");
        let value = json!([
            8061399, -8061399, 8061399.0, 73.25519, 734211, {"8061399": 1, "a": {"b": [8061399]}}, "n 8061399", "8061399.0",
            {"token-8061399": "x"}, 9071133550021u64, 8061399u64
        ]);
        let shown = clean_json(value).to_string();
        for secret in ["8061399", "734211", "73.25519", "907113355002"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
        // A number that only has the digits in it is another number; types of others stay.
        for other in [json!(18061399), json!(80613990), json!(8061399.5), json!(7), json!(0), json!(1e300), json!(true)]
        {
            assert_eq!(clean_json(other.clone()), other);
        }
        assert!(clean_json(json!(8061399)).as_str().is_some_and(|text| text == clean("8061399")), "one tag for both");
    }

    #[test]
    fn a_secret_with_unseen_characters_in_it_is_hidden() {
        learn("violet-of-the-coast-31");
        for inside in ["\r", "\u{200b}", "\u{ad}", "\u{feff}", "\u{3164}", "\u{e0041}", "\u{2060}\r"] {
            let text = format!("before violet-of-{inside}the-coast-31 after\r\n");
            let shown = clean(&text);
            assert!(shown.starts_with("before •••#") && shown.trim_end().ends_with(" after"), "{inside:?}: {shown:?}");
        }
        for text in ["plain\r\n", "a\u{200b}b", "\u{feff}x: y\r\n"] {
            assert_eq!(clean(text), text);
        }
    }

    #[test]
    fn the_word_behind_an_option_for_a_secret_is_hidden() {
        let words =
            json!(["psql", "--password", "tulip-in-may", "-h", "db", "--token-file", "/run/x", "--token", "-v"]);
        let shown = clean_json(words).to_string();
        assert!(!shown.contains("tulip-in-may") && shown.contains(r#"["psql","--password","•••#"#), "{shown}");
        assert!(shown.ends_with(r#""-h","db","--token-file","/run/x","--token","-v"]"#), "{shown}");
    }

    #[test]
    fn a_secret_has_no_text_form() {
        assert_eq!(format!("{:?}", Secret::new("not-to-be-seen")), "•••");
    }

    #[test]
    fn a_secret_that_cannot_be_hidden_is_told_once_by_the_name_of_its_source() {
        for _ in 0..2 {
            let pin = Secret::new("1234").from_source("env:TEST_PIN");
            assert!(pin.is_too_short());
        }
        Secret::new("long-enough-value").from_source("env:TEST_LONG");
        assert_eq!(unhidable(), ["env:TEST_PIN"]);
        assert!(unhidable().is_empty());
    }

    #[test]
    fn what_is_no_text_passes_and_hides_nothing_from_us() {
        learn("binary-neighbour");
        let mut stream = Stream::new();
        let mut out = stream.feed(b"\xff\0\xfebinary-neigh");
        out.extend(stream.feed(b"bour\0\xc3"));
        out.extend(stream.end());
        assert!(out.starts_with(b"\xff\0\xfe\xe2\x80\xa2") && out.ends_with(b"\0\xc3"), "{out:?}");
    }
}
