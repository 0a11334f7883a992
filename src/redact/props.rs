//! What must hold for any secret, any text and any way of cutting it. A failure prints its seed; `OPSH_SEED` repeats it.

use super::needles::Matcher;
use super::{Stream, forms};
use std::sync::Arc;

/// splitmix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    fn text(&mut self, parts: &[&str], least: usize, most: usize) -> String {
        let length = least + self.below(most - least + 1);
        (0..length).map(|_| self.pick(parts)).collect()
    }
}

/// Runs `case` with `count` seeds, or with the one that `OPSH_SEED` names.
fn for_seeds(count: u64, case: impl Fn(&mut Random)) {
    let start: u64 = match std::env::var("OPSH_SEED") {
        Ok(seed) => seed.parse().expect("OPSH_SEED is a number"),
        Err(_) => u64::from(std::process::id()) << 20,
    };
    let count = if std::env::var("OPSH_SEED").is_ok() { 1 } else { count };
    for seed in start..start + count {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&mut Random(seed))));
        if let Err(panic) = ran {
            eprintln!("repeat it with OPSH_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

const LETTERS: &[&str] = &[
    "a", "b", "Z", "7", "0", "'", "\"", "\\", "\n", " ", "ö", "秘", "🔑", "&", "/", "%", "=", ":", "@", "-", "_", "+",
    "$", "<", "\t", "`", "!", "\r", ">", ";", "#",
];

/// Pieces of ordinary and of hostile text.
const PIECES: &[&str] = &[
    "a",
    " ",
    "\n",
    "backend  running\n",
    "PASSWORD=",
    "token='",
    "\"secret\": \"",
    "'",
    "\"",
    "\\",
    "://u:",
    "https://",
    "@",
    "/",
    "x:",
    "-----BEGIN RSA PRIVATE KEY-----",
    "-----END RSA PRIVATE KEY-----",
    "-----",
    "ghp_",
    "abcdefghij",
    "0123456789",
    "eyJ",
    ".",
    "AKIA",
    "ABCDEF",
    "authorization: ",
    "Bearer ",
    "•••#3f9a",
    "•••",
    "hooks.slack.com/services/",
    "ö",
    "\0",
    "\u{1b}[1m",
    "=",
    ";",
    "&",
    ",",
    "DB_PWD: ",
    "\r\n",
    "password = ",
    "password: ",
    "--token ",
    "Cookie: ",
    "<secret>",
    "db:5432:d:u:",
    "mysql -p",
    "?key=",
];

/// A list of its own for each test: that of the process grows with every other test.
fn knowing(values: &[&str]) -> Option<Arc<Matcher>> {
    let needles = values.iter().flat_map(|value| forms::of(value).into_iter().map(|form| (form, Arc::from(*value))));
    Matcher::new(&needles.collect::<Vec<_>>()).map(Arc::new)
}

fn whole(known: &Option<Arc<Matcher>>, text: &[u8]) -> Vec<u8> {
    let mut stream = Stream::new();
    let mut out = stream.feed_with(known.clone(), text);
    out.extend(stream.end());
    out
}

/// The text in chunks of any size, single bytes among them.
fn chunked(random: &mut Random, known: &Option<Arc<Matcher>>, text: &[u8]) -> Vec<u8> {
    let mut stream = Stream::new();
    let mut out = Vec::new();
    let longest = [1, 2, 7, 40][random.below(4)];
    let mut rest = text;
    while !rest.is_empty() {
        let (chunk, more) = rest.split_at((1 + random.below(longest)).min(rest.len()));
        out.extend(stream.feed_with(known.clone(), chunk));
        rest = more;
    }
    out.extend(stream.end());
    out
}

fn is_free(secret: &str) -> bool {
    secret.trim().len() >= 8
}

#[test]
fn no_secret_and_no_form_of_it_survives_any_cutting() {
    for_seeds(150, |random| {
        let secret = random.text(LETTERS, 8, 40);
        if !is_free(&secret) {
            return;
        }
        let known = knowing(&[&secret]);
        let forms = forms::of(&secret);
        for _ in 0..10 {
            let form = &forms[random.below(forms.len())];
            let (before, after) = (random.text(PIECES, 0, 6), random.text(PIECES, 0, 6));
            let text = format!("{before}{form}{after}");
            let shown = String::from_utf8(chunked(random, &known, text.as_bytes())).expect("text stays text");
            // What stands around it may hold the same bytes only if they were part of a longer one.
            assert!(!shown.contains(form.as_str()), "{form:?} of {secret:?} survived\n{text:?}\n{shown:?}");
        }
    });
}

#[test]
fn any_cutting_shows_what_the_whole_shows() {
    let known = knowing(&["abcdefghij0123", "running\nbackend", "0123456789 and more"]);
    for_seeds(5_000, |random| {
        let text = random.text(PIECES, 0, 30);
        let shown = String::from_utf8(whole(&known, text.as_bytes())).expect("text stays text");
        assert_eq!(String::from_utf8_lossy(&chunked(random, &known, text.as_bytes())), shown, "{text:?}");
    });
}

#[test]
fn bytes_that_are_no_text_are_shown_the_same_in_any_cutting() {
    let known = knowing(&["bytes-among-bytes"]);
    for_seeds(1_000, |random| {
        let mut bytes: Vec<u8> = (0..random.below(200)).map(|_| random.next() as u8).collect();
        let at = random.below(bytes.len() + 1);
        bytes.splice(at..at, *b"bytes-among-bytes");
        let shown = whole(&known, &bytes);
        assert_eq!(chunked(random, &known, &bytes), shown);
        assert!(!shown.windows(17).any(|window| window == b"bytes-among-bytes"));
    });
}

#[test]
fn ordinary_text_passes_unchanged_and_at_once() {
    let known = knowing(&["hunter2-is-not-here"]);
    let words = [
        "backend",
        "running",
        "3 d",
        "http://127.0.0.1:8080/api",
        "login: ",
        "[y/N] ",
        "42 %",
        "ö",
        "$ ",
        "\n",
        "é",
        "—",
    ];
    for_seeds(1_000, |random| {
        let text: String = (0..random.below(20)).map(|_| format!("{} ", random.pick(&words))).collect();
        let mut stream = Stream::new();
        assert_eq!(
            String::from_utf8_lossy(&stream.feed_with(known.clone(), text.as_bytes())),
            text,
            "shown without waiting for more"
        );
        assert!(stream.end().is_empty());
    });
}

#[test]
fn a_beginning_that_was_held_back_is_always_released() {
    let known = knowing(&["beginning-of-a-secret"]);
    for_seeds(1_000, |random| {
        let begun = &"beginning-of-a-secret"[..1 + random.below(20)];
        let text = format!("{}{begun}", random.pick(&["", "x ", "beginning-"]));
        let mut stream = Stream::new();
        let first = stream.feed_with(known.clone(), text.as_bytes());
        assert!(first.len() <= text.len() - begun.len());
        assert_eq!([first, stream.end()].concat(), text.as_bytes());
    });
}
