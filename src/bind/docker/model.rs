//! What opsh keeps of the Engine's answers, read leniently: an unknown word is kept, never a parse error.

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Variables of one environment, and bytes in all of them: Linux starts no program with more than 6 MiB.
const MOST_VARIABLES: usize = 10_000;
const MOST_OF_AN_ENV: usize = 6 << 20;

/// Environment variables. Their values have no text form: Debug and Serialize give the names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Env {
    pairs: Vec<(String, String)>,
    /// The place of each name in `pairs`.
    places: HashMap<String, usize>,
}

impl Env {
    /// Variables in the order given; a later one of the same name wins.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Env {
        let mut env = Env::default();
        for (key, value) in pairs {
            env.set(key, value);
        }
        env
    }

    /// Names in their order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(key, _)| key.as_str())
    }

    /// The value of one variable. Whoever prints it decides to.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.get(*self.places.get(key)?).map(|(_, value)| value.as_str())
    }

    /// Names and values, for comparing and for passing on.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Without the variables that `other` has with the same value.
    pub fn minus(&self, other: &Env) -> Env {
        Env::new(self.pairs.iter().filter(|(key, value)| other.get(key) != Some(value)).cloned())
    }

    pub(super) fn set(&mut self, key: String, value: String) {
        match self.places.get(&key).and_then(|place| self.pairs.get_mut(*place)) {
            Some(pair) => pair.1 = value,
            None => {
                self.places.insert(key.clone(), self.pairs.len());
                self.pairs.push((key, value));
            }
        }
    }

    /// As the Engine wants them: `KEY=value`.
    pub(super) fn lines(&self) -> Vec<String> {
        self.pairs.iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    /// The environment in an answer of the Engine. Fails with the bound that it exceeds.
    pub(super) fn read(value: &Value, pointer: &str) -> Result<Env, String> {
        let lines = list(value, pointer);
        if lines.len() > MOST_VARIABLES {
            return Err(format!("its environment has more than {MOST_VARIABLES} variables"));
        }
        if lines.iter().filter_map(Value::as_str).map(str::len).sum::<usize>() > MOST_OF_AN_ENV {
            return Err(format!("its environment has more than {} MiB", MOST_OF_AN_ENV >> 20));
        }
        let split = |line: String| match line.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (line, String::new()),
        };
        Ok(Env::new(words(value, pointer).into_iter().map(split)))
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys()).finish()
    }
}

impl Serialize for Env {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.keys())
    }
}

/// A container in a list.
#[derive(Clone, Debug, Serialize)]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    /// Name without the leading slash.
    pub name: String,
    /// Compose service; empty when not made by compose.
    pub service: String,
    /// Compose project; empty when not made by compose.
    pub project: String,
    /// `sha256:…` of the image it was made from.
    pub image_id: String,
    /// Image as it was asked for, e.g. `app:v1.8.0`; the tag may point elsewhere by now.
    pub image_ref: String,
    /// `created`, `running`, `restarting`, `exited`, `paused`, `dead`, …
    pub state: String,
    /// The Engine's words for people, e.g. `Up 3 hours (healthy)`.
    pub status: String,
    /// `starting`, `healthy`, `unhealthy`; None without a health check or while it does not run.
    pub health: Option<String>,
    /// When it was created, unix seconds.
    pub created_s: i64,
    /// Published ports.
    pub ports: Vec<Port>,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// All labels of compose are those of its image: compose did not make it.
    pub is_inherited: bool,
}

impl Container {
    /// True while it is not stopped: one that is restarted again and again comes back by itself.
    pub fn is_up(&self) -> bool {
        ["running", "restarting", "paused"].contains(&self.state.as_str())
    }
}

/// A port of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Port {
    /// Port inside.
    pub inside: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Address on the host; empty when not published.
    pub address: String,
    /// Port on the host; None when not published.
    pub outside: Option<u16>,
}

/// A compose project as its containers' labels tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Project {
    /// Project name.
    pub name: String,
    /// Directory that compose ran in.
    pub working_dir: String,
    /// Compose files, absolute.
    pub config_files: Vec<String>,
    /// `--env-file`s, absolute; empty when compose was not given one.
    pub environment_files: Vec<String>,
    /// Services that have a container, sorted.
    pub services: Vec<String>,
    /// Version of the compose that made it, e.g. `1.29.2`.
    pub compose_version: String,
}

/// State of a container's health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing: i64,
    /// What the last check printed, trimmed; empty when none has run.
    pub output: String,
}

/// Everything opsh knows about one container.
#[derive(Clone, Debug, Serialize)]
pub struct Detail {
    /// 64 hex digits.
    pub id: String,
    /// Name without the leading slash.
    pub name: String,
    /// Compose service; empty when not made by compose.
    pub service: String,
    /// Compose project; empty when not made by compose.
    pub project: String,
    /// Version of the compose that made it; empty when not made by compose.
    pub compose_version: String,
    /// `sha256:…` of the image it was made from.
    pub image_id: String,
    /// Image as it was asked for.
    pub image_ref: String,
    /// `created`, `running`, `restarting`, `exited`, `paused`, `dead`, …
    pub state: String,
    /// None when it has no health check.
    pub health: Option<Health>,
    /// The health check's words, e.g. `["CMD", "wget", …]`; empty when it has none.
    pub health_test: Vec<String>,
    /// Last start; None when it never started.
    #[serde(serialize_with = "as_text")]
    pub started_at: Option<Timestamp>,
    /// Last end; None when it never ended.
    #[serde(serialize_with = "as_text")]
    pub finished_at: Option<Timestamp>,
    /// Exit code of the last end; 0 while running.
    pub exit_code: i64,
    /// The Engine's reason when it could not be started; empty otherwise.
    pub error: String,
    /// Ended by the kernel for lack of memory.
    pub oom_killed: bool,
    /// Restarts by the restart policy since it was last started by hand.
    pub restart_count: i64,
    /// `no`, `always`, `unless-stopped` or `on-failure`.
    pub restart_policy: String,
    /// Environment, including what came from the image.
    pub env: Env,
    /// All labels, including the image's.
    pub labels: BTreeMap<String, String>,
    /// Networks it is on, and its names there.
    pub networks: BTreeMap<String, Vec<String>>,
    /// `host`, `none`, `container:…`, or the first network's name.
    pub network_mode: String,
    /// Words after the entrypoint.
    pub cmd: Vec<String>,
    /// Entrypoint.
    pub entrypoint: Vec<String>,
    /// User it runs as; empty means the image's.
    pub user: String,
    /// Directory it runs in.
    pub working_dir: String,
    /// Extra lines of /etc/hosts, `name:address`.
    pub extra_hosts: Vec<String>,
    /// Ports, published or not.
    pub ports: Vec<Port>,
    /// It has a terminal, so stdout and stderr cannot be told apart.
    pub tty: bool,
}

/// An image on the Engine's host.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Image {
    /// `sha256:…`.
    pub id: String,
    /// `repo:tag` names that point to it.
    pub tags: Vec<String>,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// When it was built; None when the image does not say.
    #[serde(serialize_with = "as_text")]
    pub created: Option<Timestamp>,
    /// Size with all layers, in bytes.
    pub size_bytes: i64,
    /// Environment that it gives to its containers.
    pub env: Env,
    /// Entrypoint.
    pub entrypoint: Vec<String>,
    /// Command.
    pub cmd: Vec<String>,
    /// User its containers run as; empty is root.
    pub user: String,
    /// Directory its containers run in.
    pub working_dir: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `linux`, …
    pub os: String,
}

impl Image {
    /// The commit that it is labelled with, as git writes it: whoever built it may have written it in capitals.
    pub fn revision(&self) -> Option<String> {
        self.labels.get(super::REVISION).map(|commit| commit.trim().to_ascii_lowercase())
    }
}

/// What a command left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ran {
    /// Exit code; 128 + n when signal n ended it.
    pub exit: i64,
    /// stdout; the middle is left out when it was longer than asked for.
    pub stdout: Vec<u8>,
    /// stderr, likewise.
    pub stderr: Vec<u8>,
    /// How many bytes of both were left out.
    pub left_out: u64,
}

/// Shows a time as RFC 3339.
pub(super) fn as_text<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.collect_str(at),
        None => serializer.serialize_none(),
    }
}

pub(super) fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

pub(super) fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

pub(super) fn truth(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

pub(super) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn words(value: &Value, pointer: &str) -> Vec<String> {
    list(value, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

pub(super) fn labels(value: &Value, pointer: &str) -> BTreeMap<String, String> {
    let map = value.pointer(pointer).and_then(Value::as_object);
    let text = |(key, value): (&String, &Value)| (key.clone(), value.as_str().unwrap_or_default().to_owned());
    map.map(|map| map.iter().map(text).collect()).unwrap_or_default()
}

/// A time; the Engine writes year 1 for "never".
pub(super) fn when(value: &Value, pointer: &str) -> Option<Timestamp> {
    let at: Timestamp = value.pointer(pointer)?.as_str()?.parse().ok()?;
    (at > Timestamp::UNIX_EPOCH).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "canary-7c1f";

    #[test]
    fn a_value_of_the_environment_has_no_text_form() {
        let env = Env::new([("JWT_SECRET".to_owned(), CANARY.to_owned())]);
        for text in [format!("{env:?}"), format!("{env:#?}"), serde_json::to_string(&env).unwrap()] {
            assert!(text.contains("JWT_SECRET") && !text.contains(CANARY), "{text}");
        }
        assert_eq!(env.get("JWT_SECRET"), Some(CANARY));
    }

    #[test]
    fn what_the_image_gave_is_taken_away_and_what_was_set_stays() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let container = Env::new([pair("APP_VERSION", "v1"), pair("PORT", "9090"), pair("KEY", "k")]);
        let image = Env::new([pair("APP_VERSION", "v1"), pair("PORT", "8080")]);
        assert_eq!(container.minus(&image).lines(), ["PORT=9090", "KEY=k"]);
    }

    #[test]
    fn an_environment_is_bounded_and_read_in_one_pass() {
        let of = |lines: Vec<String>| Env::read(&serde_json::json!({ "Env": lines }), "/Env");
        let many = |count: usize| of((0..count).map(|n| format!("V{n}=1")).collect());
        assert_eq!(many(MOST_VARIABLES).map(|env| env.len()), Ok(MOST_VARIABLES));
        assert_eq!(many(MOST_VARIABLES + 1), Err("its environment has more than 10000 variables".into()));
        assert_eq!(of(vec!["X".repeat(MOST_OF_AN_ENV + 1)]), Err("its environment has more than 6 MiB".into()));
        let pairs = (0..1_000_000).map(|n| (format!("V{n}"), String::new()));
        assert_eq!(Env::new(pairs).get("V999999"), Some(""));
    }

    #[test]
    fn a_commit_that_a_label_has_in_capitals_is_that_commit() {
        let labels = BTreeMap::from([(super::super::REVISION.to_string(), " ABCDEF0123 ".to_string())]);
        assert_eq!(Image { labels, ..Image::default() }.revision().as_deref(), Some("abcdef0123"));
        assert_eq!(Image::default().revision(), None);
    }

    #[test]
    fn null_lists_and_year_one_are_nothing() {
        let value = serde_json::json!({ "Cmd": null, "StartedAt": "0001-01-01T00:00:00Z" });
        assert!(words(&value, "/Cmd").is_empty());
        assert_eq!(when(&value, "/StartedAt"), None);
    }
}
