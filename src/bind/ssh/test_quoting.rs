//! Words, data and variables reach a program as they are, whatever is in them: random ones, over ssh, with each shell that
//! hosts have as the login shell and as `sh`.
//!
//! `OPSH_QUOTING_CASES` is the number of words over all shells, 2,000 unless said; `OPSH_SEED` repeats the run that failed.

use super::tests::{Lab, exited, live, mark, pass, sh, skip, words};
use super::{Command, Finished, Outcome, Reach, connect};
use crate::redact::Secret;
use std::os::unix::fs::symlink;
use std::path::Path;
use tokio::io::AsyncReadExt;

/// Numbers that look random and follow from a seed (xorshift).
pub struct Dice(u64);

impl Dice {
    /// Any seed but 0, which is followed by zeros only.
    pub fn new(seed: u64) -> Dice {
        Dice(seed.max(1))
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }

    /// Up to 24 pieces; one in a hundred is long.
    pub fn word(&mut self) -> String {
        let pieces = if self.below(100) == 0 { 1000 } else { self.below(24) };
        (0..pieces).map(|_| self.piece()).collect()
    }

    fn piece(&mut self) -> String {
        match self.below(4) {
            0 => self.one_of(SPECIAL).to_string(),
            1 => char::from(1 + self.below(127) as u8).to_string(),
            2 => char::from_u32(0x80 + self.below(0x780) as u32).map_or("x".into(), String::from),
            _ => char::from_u32(self.below(0x11_0000) as u32).filter(|c| *c != '\0').map_or("x".into(), String::from),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let most = [0, 1, 100, 65_535, 65_536, 65_537, 200_000][self.below(7) as usize];
        (0..most).map(|_| self.below(256) as u8).collect()
    }
}

/// What means something to a shell, to printf, to an option parser, or to opsh's own records.
const SPECIAL: &[&str] = &[
    "'",
    "\"",
    "\\",
    "!",
    "$",
    "`",
    "\n",
    "\r",
    "\t",
    " ",
    "*",
    "?",
    "[",
    "{",
    "}",
    "%",
    "-",
    "--",
    "~",
    "#",
    "&",
    ";",
    "|",
    "<",
    ">",
    "(",
    ")",
    "=",
    "\u{1}",
    "\u{7f}",
    "\u{81}",
    "\u{88}",
    "\u{a0}",
    "é",
    "🦀",
    "'\\''",
    "$(id)",
    "`id`",
    "${HOME}",
    "\\0",
    "\\047",
    "%s",
    "%b",
    "!!",
    "\n\n",
    "\x1eopsh ",
    "EOF\n",
    "go\n",
];

/// The way that words take.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// As `host.read` goes.
    Run,
    /// As `host.run` goes.
    Durable,
    /// As the connection to the Docker Engine goes.
    Stream,
}

/// Words per command: together well below the 120 KiB that a command may have.
const BATCH: usize = 400;
/// A stream's words stand in a command line, encoded.
const SHORT_BATCH: usize = 60;

/// What arrives of these words.
async fn arrived(reach: &Reach, way: Way, sent: &[String]) -> Vec<String> {
    let print = ["printf", "%s\\0"].map(String::from).into_iter().chain(sent.iter().cloned()).collect();
    let command = Command { words: print, keep: 1 << 22, ..Command::default() };
    let bytes = match way {
        Way::Run => out(reach.run(&pass(), &command).await),
        Way::Durable => {
            let id = mark();
            reach.durable_begin(&pass(), &id, &command, "{}").await.unwrap();
            let finished = reach.durable_wait(&pass(), &id, command.keep).await;
            reach.durable_forget(&pass(), &id).await.unwrap();
            out(finished)
        }
        Way::Stream => {
            let mut bytes = Vec::new();
            let mut stream = reach.stream(&pass(), &command.words).await.unwrap();
            stream.read_to_end(&mut bytes).await.unwrap();
            bytes
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    text.strip_suffix('\0').unwrap_or(&text).split('\0').map(String::from).collect()
}

fn out(finished: Finished) -> Vec<u8> {
    assert_eq!(finished.outcome, Outcome::Exited(0), "{}", finished.stderr.text());
    finished.stdout.head.into_iter().chain(finished.stdout.tail).collect()
}

async fn is_kept(reach: &Reach, way: Way, word: &str) -> bool {
    arrived(reach, way, &[word.to_string()]).await == [word]
}

/// The word that did not arrive, with everything taken out of it that is not needed for that.
async fn smallest(reach: &Reach, way: Way, sent: &[String]) -> String {
    let mut bad = None;
    for word in sent {
        if !is_kept(reach, way, word).await {
            bad = Some(word.clone());
            break;
        }
    }
    let Some(mut word) = bad else { return "each word alone arrives".into() };
    let mut at = 0;
    while at < word.chars().count() {
        let shorter: String = word.chars().enumerate().filter(|(place, _)| *place != at).map(|(_, c)| c).collect();
        if is_kept(reach, way, &shorter).await { at += 1 } else { word = shorter }
    }
    word
}

async fn words_arrive(reach: &Reach, name: &str, count: usize, seed: u64) {
    let (mut dice, mut left, mut batches) = (Dice::new(seed), count, 0);
    while left > 0 {
        let way = [Way::Durable, Way::Stream, Way::Run, Way::Run, Way::Run][batches % 5];
        let most = if matches!(way, Way::Stream) { SHORT_BATCH } else { BATCH };
        let sent: Vec<String> = (0..most.min(left)).map(|_| dice.word()).collect();
        if arrived(reach, way, &sent).await != sent {
            let word = smallest(reach, way, &sent).await;
            panic!("{name}, {way:?}: this word changes on its way: {word:?} (OPSH_SEED={seed})");
        }
        (left, batches) = (left - sent.len(), batches + 1);
    }
}

async fn data_and_variables_arrive(reach: &Reach, name: &str, count: usize, seed: u64) {
    let mut dice = Dice::new(seed);
    for _ in 0..count {
        let command = Command { stdin: dice.bytes(), keep: 1 << 20, ..words(&["cat"]) };
        let got = out(reach.run(&pass(), &command).await);
        let differs = got.iter().zip(&command.stdin).position(|(got, sent)| got != sent);
        let (got, sent) = (got.len(), command.stdin.len());
        assert!(
            differs.is_none() && got == sent,
            "{name}: {sent} bytes of stdin, {got} came, {differs:?} (OPSH_SEED={seed})"
        );

        let values: Vec<String> = (0..20).map(|_| dice.word()).collect();
        let names: Vec<String> = (0..20).map(|n| format!("OPSH_TEST_{n}")).collect();
        let print = ["printenv", "-0"].map(String::from).into_iter().chain(names.iter().cloned()).collect();
        let env = names.into_iter().zip(values.iter().map(|value| Secret::unknown(value))).collect();
        let got = out(reach.run(&pass(), &Command { words: print, env, keep: 1 << 22, ..Command::default() }).await);
        let got = String::from_utf8_lossy(&got);
        for (value, got) in values.iter().zip(got.split('\0')) {
            assert!(value == got, "{name}: a variable changes on its way: {value:?} is {got:?} (OPSH_SEED={seed})");
        }
        assert_eq!(got.matches('\0').count(), values.len(), "{name} (OPSH_SEED={seed})");
    }
}

fn seed() -> u64 {
    match std::env::var("OPSH_SEED") {
        Ok(seed) => seed.parse().expect("OPSH_SEED is a number"),
        Err(_) => u64::from_str_radix(&mark()[..15], 16).expect("a mark is hex"),
    }
}

fn cases() -> usize {
    std::env::var("OPSH_QUOTING_CASES").map_or(2_000, |cases| cases.parse().expect("OPSH_QUOTING_CASES is a number"))
}

/// Login shells by account, and the program that is their `sh`.
const SHELLS: [(&str, &str); 3] = [("opsh-dash", "dash"), ("opsh-alice", "bash"), ("opsh-ash", "busybox")];

/// A folder in which `sh` is this program, if it is installed.
fn folder_of(shell: &str) -> Option<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let program = ["/bin", "/usr/bin"].map(|dir| Path::new(dir).join(shell)).into_iter().find(|path| path.exists())?;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink(program, dir.path().join("sh")).unwrap();
    Some(dir)
}

#[test]
fn random_words_data_and_variables_arrive_on_this_machine() {
    let (seed, cases) = (seed(), cases() / SHELLS.len());
    live(async {
        words_arrive(&Reach::Local, "local", cases, seed).await;
        data_and_variables_arrive(&Reach::Local, "local", cases / 100, seed).await;
    });
}

#[test]
fn random_words_data_and_variables_arrive_over_ssh_with_every_shell() {
    let (seed, cases) = (seed(), cases() / SHELLS.len());
    for (account, shell) in SHELLS {
        let Some(folder) = folder_of(shell) else {
            skip(&format!("no {shell}"));
            continue;
        };
        let path = format!("SetEnv PATH={}:/usr/local/bin:/usr/bin:/bin", folder.path().display());
        let Some(lab) = Lab::start(&path) else { return };
        live(async {
            let link = connect(&pass(), &lab.login(account)).await.unwrap();
            let reach = Reach::Ssh(link.clone());
            // The shell that reads our quoting is the one that this is about, and so is the login shell.
            let who = exited(&reach.run(&pass(), &sh("readlink /proc/$PPID/exe; readlink -f \"$SHELL\"")).await, 0);
            assert!(who.lines().all(|line| line.ends_with(&format!("/{shell}"))), "{shell}: {who}");
            words_arrive(&reach, shell, cases, seed).await;
            data_and_variables_arrive(&reach, shell, cases / 100, seed).await;
            link.close().await;
        });
    }
}
