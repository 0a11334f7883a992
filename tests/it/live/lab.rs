//! The lab as the tests see it: bringing it up, setting the stage, reading what is true.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How many labs there are: a rollback mostly waits, and two of them do it at the same time.
const LABS: usize = 2;

/// The name of a lab. `LAB_NAME` gives others, beside these.
fn name(number: usize) -> String {
    let first = std::env::var("LAB_NAME").unwrap_or("opsh-it".into());
    if number == 0 { first } else { format!("{first}-{}", number + 1) }
}

/// The repository.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Compose as the page calls it.
pub const COMPOSE: &str = "docker-compose -f docker-compose.prod.yml --env-file .env.prod";

/// What never may be seen outside of the files it comes from.
#[derive(Clone)]
pub struct Secret {
    pub name: String,
    pub value: String,
}

/// A lab, for one test at a time.
pub struct Lab {
    name: String,
    settings: BTreeMap<String, String>,
    secrets: Vec<Secret>,
    _turn: Turn,
    /// The tests of another process wait for it.
    _file: File,
}

/// A test's turn with the lab of this number.
struct Turn(usize);

impl Turn {
    fn free() -> (MutexGuard<'static, Vec<usize>>, &'static Condvar) {
        static FREE: LazyLock<Mutex<Vec<usize>>> = LazyLock::new(|| Mutex::new((0..LABS).rev().collect()));
        static ENDED: Condvar = Condvar::new();
        (FREE.lock().unwrap_or_else(PoisonError::into_inner), &ENDED)
    }

    fn wait() -> Turn {
        let (free, ended) = Turn::free();
        let mut free = ended.wait_while(free, |free| free.is_empty()).unwrap_or_else(PoisonError::into_inner);
        Turn(free.pop().expect("waited for"))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (mut free, ended) = Turn::free();
        free.push(self.0);
        ended.notify_one();
    }
}

/// What a release looks like from inside.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    pub tag: String,
    pub commit: String,
    pub ledger: Vec<i64>,
    pub api_status: i64,
}

impl Lab {
    /// A lab, up; `None`, and said so, when there is no Docker Engine to run it.
    pub fn take() -> Option<Lab> {
        static UP: [OnceLock<Result<(), String>>; LABS] = [const { OnceLock::new() }; LABS];
        if !answers("docker", &["version"]) {
            crate::skip::skip("no Docker Engine answers here, which the lab needs");
            return None;
        }
        let turn = Turn::wait();
        let name = name(turn.0);
        let base = Path::new(ROOT).join("target/lab");
        std::fs::create_dir_all(&base).unwrap();
        let file = File::create(base.join(format!("{name}.turn"))).unwrap();
        file.lock().unwrap();
        if let Err(why) = UP[turn.0].get_or_init(|| bring_up(&name, seed().wrapping_add(turn.0 as u64))) {
            panic!("the lab does not come up: {why}");
        }
        let mut lab = Lab { name, settings: BTreeMap::new(), secrets: Vec::new(), _turn: turn, _file: file };
        lab.settings = pairs(&std::fs::read_to_string(lab.file("lab.env")).unwrap());
        lab.secrets = lab.read_secrets();
        Some(lab)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A file of the lab.
    pub fn file(&self, name: &str) -> PathBuf {
        Path::new(ROOT).join("target/lab").join(&self.name).join(name)
    }

    /// One of the lab's settings, without `LAB_`.
    pub fn setting(&self, name: &str) -> &str {
        &self.settings[&format!("LAB_{name}")]
    }

    /// The login password, the database's password and the key that signs tokens.
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    pub fn secret(&self, name: &str) -> String {
        self.secrets.iter().find(|secret| secret.name == name).expect("one of the secrets").value.clone()
    }

    fn read_secrets(&self) -> Vec<Secret> {
        let password = std::fs::read_to_string(self.file("password")).unwrap().trim().to_string();
        let env = pairs(&self.exec(&["cat", "/var/lib/lab/seed/env.prod"]));
        let of_env = ["POSTGRES_PASSWORD", "JWT_SECRET"].map(|name| (name, env[name].clone()));
        let all = [("password", password)].into_iter().chain(of_env);
        all.map(|(name, value)| {
            assert!(value.len() >= 16, "{name} is long enough to be looked for");
            Secret { name: name.into(), value }
        })
        .collect()
    }

    /// A release by what its tag is called in the settings: GOOD, BAD, ADDITIVE, OLD.
    pub fn release(&self, which: &str) -> Release {
        let tag = self.setting(&format!("TAG_{which}")).to_string();
        let commit = self.exec(&["git", "-C", "/srv/git/vrcshift.git", "rev-parse", &format!("{tag}^{{commit}}")]);
        let first: i64 = self.setting("FIRST_MIGRATION").parse().unwrap();
        let count = match which {
            "OLD" => 3,
            "GOOD" => 4,
            "ADDITIVE" => 5,
            _ => 6,
        };
        let api_status = if which == "BAD" { 500 } else { 200 };
        Release { tag, commit: commit.trim().into(), ledger: (first..first + count).collect(), api_status }
    }

    /// Brings a release live by hand, from whatever state the server is in, with no image left that opsh built.
    pub fn bring(&self, which: &str) -> Release {
        let release = self.release(which);
        self.run(&["release", &release.tag]);
        if !self.has_first_rows() {
            // A test that took them away, or one that was killed.
            self.run(&["reset"]);
            self.run(&["release", &release.tag]);
        }
        self.sh("docker images -q --filter label=opsh.stack | sort -u | xargs -r docker rmi -f >/dev/null");
        self.first_rows(&release);
        release
    }

    fn has_first_rows(&self) -> bool {
        self.sql("SELECT (SELECT count(*) FROM shifts WHERE id <= 3), (SELECT count(*) FROM members)").trim() == "3|2"
    }

    /// The rows that the lab begins with, no note, no history beside the stack, and no image that was kept.
    fn first_rows(&self, release: &Release) {
        let notes = if release.ledger.len() > 4 { "UPDATE shifts SET note = NULL;" } else { "" };
        self.sql(&format!("DELETE FROM shifts WHERE id > 3; {notes}"));
        self.sh("rm -rf /opt/vrcshift/.opsh; \
                 docker images --format '{{.Repository}}:{{.Tag}}' | grep ':opsh-was-' | xargs -r docker rmi >/dev/null");
    }

    /// As [`Lab::bring`], but the server stays as it is when it already is in that state.
    pub fn have(&self, which: &str) -> Release {
        let (release, now) = (self.release(which), self.state());
        let is_it = now["head"] == release.commit.as_str()
            && now["ledger"] == serde_json::json!(release.ledger)
            && now["api_status"] == release.api_status
            && now["dirty"] == false
            && now["image_labels"] == serde_json::json!({})
            && self.has_first_rows();
        if !is_it {
            return self.bring(which);
        }
        self.first_rows(&release);
        release
    }

    /// What is true on the server, read from inside.
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.run(&["state"])).unwrap()
    }

    /// Runs words on the server as root; they must succeed.
    pub fn exec(&self, words: &[&str]) -> String {
        self.run(&[&["exec"], words].concat())
    }

    /// Runs a script on the server as root; it must succeed.
    pub fn sh(&self, script: &str) -> String {
        self.exec(&["sh", "-euc", script])
    }

    /// True when a script on the server exits 0.
    pub fn is(&self, script: &str) -> bool {
        command(&self.name, &["exec", "sh", "-uc", script]).output().unwrap().status.success()
    }

    /// Files on the server that hold a text, each with owner, mode, time, and who has it open; one line a file.
    ///
    /// For each command in a container, health checks among them, containerd writes `/tmp/runc-processN`: the container's
    /// environment, mode 0600, removed once the command has started. With one health check a second, one look in seventy
    /// finds it. It is the Engine's own, and there without opsh.
    pub fn files_that_hold(&self, value: &str) -> String {
        const LOOK: &str = r#"grep -rlF --exclude='runc-process[0-9]*' -- "$1" /tmp /root /home /dev/shm 2>/dev/null |
            while IFS= read -r file; do
              ls -ln --time-style=full-iso -- "$file"
              grep -aoE '^[[:print:]]{0,20}' -- "$file" | head -n 1 | sed 's/^/  begins: /'
              for open in /proc/[0-9]*/fd/*; do
                [ "$(readlink "$open")" != "$file" ] || { tr '\0' ' ' <"${open%/fd/*}/cmdline"; echo; }
              done
            done"#;
        self.exec(&["sh", "-uc", LOOK, "look", value])
    }

    pub fn sql(&self, sql: &str) -> String {
        self.run(&["sql", sql])
    }

    fn run(&self, words: &[&str]) -> String {
        text(words, command(&self.name, words).output().unwrap()).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Waits, for `seconds` at most, until a script on the server exits 0.
    pub fn until(&self, what: &str, seconds: u64, script: &str) {
        poll(what, seconds, || self.is(script));
    }

    /// Lets each migration that the stack takes back last 8 s, until what it gives is dropped.
    pub fn migrates_slowly(&self) -> Afterwards<'_> {
        let quick = self.afterwards(
            "docker ps -aq --filter label=opsh.once | xargs -r docker rm -f; \
             sed -i /MIGRATE_SLEEP_MS/d /opt/vrcshift/.env.prod",
        );
        self.sh(&format!("cd /opt/vrcshift; echo MIGRATE_SLEEP_MS=8000 >>.env.prod; exec 2>&1; {COMPOSE} up -d"));
        self.until("the API answers", 30, "curl -s -o /dev/null http://127.0.0.1:8080/health");
        quick
    }

    /// Waits until a migration is in the middle of its transaction. The dump before it sits in one, too.
    pub fn until_it_migrates(&self) {
        let waiting = "SELECT count(*) FROM pg_stat_activity \
            WHERE state = 'idle in transaction' AND application_name = 'vrc-shift'";
        let in_the_middle = format!("docker exec vrc-shift-db psql -XAtq -U vrcshift -c \"{waiting}\" | grep -qx 1");
        self.until("a migration is in the middle", 60, &in_the_middle);
    }

    /// Runs a script on the server when the result is dropped, whatever happens to the test.
    pub fn afterwards<'a>(&'a self, script: &str) -> Afterwards<'a> {
        Afterwards { lab: self, script: script.into() }
    }
}

pub struct Afterwards<'a> {
    lab: &'a Lab,
    script: String,
}

impl Drop for Afterwards<'_> {
    fn drop(&mut self) {
        let _ = self.lab.is(&self.script);
    }
}

/// Waits, for `seconds` at most, until `is` holds.
pub fn poll(what: &str, seconds: u64, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !is() {
        assert!(Instant::now() < end, "waited {seconds} s in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// True when the program is there and exits 0.
pub fn answers(program: &str, words: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn command(name: &str, words: &[&str]) -> Command {
    let mut command = Command::new(Path::new(ROOT).join("tests/lab/lab"));
    command.args(words).env("LAB_NAME", name).env_remove("LAB_DIR").stdin(Stdio::null());
    command
}

fn text(words: &[&str], output: Output) -> Result<String, String> {
    let said = String::from_utf8_lossy(&output.stderr);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(out) } else { Err(format!("lab {words:?}: {}\n{said}{out}", output.status)) }
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    let line = |(name, value): (&str, &str)| (name.to_string(), value.to_string());
    text.lines().filter_map(|text| text.split_once('=').map(line)).collect()
}

/// Given, or the same for all processes of one test run, or any.
fn seed() -> u64 {
    if let Ok(given) = std::env::var("OPSH_LAB_SEED") {
        return given.parse().expect("OPSH_LAB_SEED is a number");
    }
    match std::env::var("NEXTEST_RUN_ID") {
        Ok(run) => run.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into())),
        Err(_) => RandomState::new().build_hasher().finish() % 1_000_000,
    }
}

fn bring_up(name: &str, seed: u64) -> Result<(), String> {
    let drawn = draw(seed);
    let shown: Vec<String> = drawn.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let _ = writeln!(std::io::stderr(), "live: {name}: OPSH_LAB_SEED={seed}  {}", shown.join(" "));
    let output = command(name, &["up"]).envs(drawn).output().map_err(|error| error.to_string())?;
    text(&["up"], output).map(|_| ())
}

/// Names that no code can have been written for.
fn draw(seed: u64) -> Vec<(&'static str, String)> {
    let mut dice = Dice(seed);
    let prefix = ["v", "r", "release-", "2026_"][dice.below(4)];
    let (major, minor) = (dice.below(20), dice.below(20));
    let tag = |patch: usize| format!("{prefix}{major}.{}.{}", minor + patch / 2, patch % 2);
    let (old, good, additive, bad) = (tag(0), tag(2), tag(3), tag(4));
    let column = |dice: &mut Dice| -> String {
        (0..4 + dice.below(6)).map(|_| char::from(b'a' + dice.below(26) as u8)).collect()
    };
    let (one, other) = (column(&mut dice), column(&mut dice));
    vec![
        ("LAB_TAG_OLD", old),
        ("LAB_TAG_GOOD", good),
        ("LAB_TAG_ADDITIVE", additive),
        ("LAB_TAG_BAD", bad),
        ("LAB_FIRST_MIGRATION", (1 + dice.below(900)).to_string()),
        ("LAB_COLUMN", format!("x{one}")),
        ("LAB_COLUMN_NEW", format!("y{other}")),
    ]
}

pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % limit as u64) as usize
    }
}

#[test]
fn the_same_seed_draws_the_same_names() {
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}
