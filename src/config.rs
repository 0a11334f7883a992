//! `opsh.toml`: hosts, stacks and policy input, read once before a script runs and never changed by one.

mod address;
mod meaning;
pub mod migrate;
pub mod trust;

use crate::error::{Error, Kind, Result, suggestion};
use crate::redact;
use crate::whole;
pub use address::Address;
pub use migrate::Migrate;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name of this machine in scripts: `host("local")`.
pub const LOCAL: &str = "local";

/// Everything that `opsh.toml` says.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The file it came from; `None` when there is no `opsh.toml` above the working directory.
    pub path: Option<PathBuf>,
    hosts: BTreeMap<String, Arc<Host>>,
    /// Names of the hosts as the file orders them.
    order: Vec<String>,
    stacks: BTreeMap<String, Arc<Stack>>,
    tables: meaning::Tables,
    redact: Redact,
    screen: Screen,
    limits: Limits,
}

/// `[limits]`: how long opsh waits, and what a script may take of this machine.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Seconds that one effect may spend on connecting (login and Docker Engine), 1 to 300.
    pub connect_s: u32,
    /// Seconds that no effect's own deadline exceeds, 1 to 86400; absent means the documented deadlines.
    pub deadline_s: Option<u32>,
    /// Mebibytes that opsh may have before a script is stopped, 64 to 1048576.
    pub memory_mib: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connect_s: 30, deadline_s: None, memory_mib: 1024 }
    }
}

impl Limits {
    fn check(&self) -> Result<(), String> {
        match self {
            Limits { connect_s: seconds, .. } if !(1..=300).contains(seconds) => {
                Err(format!("limits.connect_s must be 1 to 300 seconds, not {seconds}"))
            }
            Limits { deadline_s: Some(seconds), .. } if !(1..=86_400).contains(seconds) => {
                Err(format!("limits.deadline_s must be 1 to 86400 seconds, not {seconds}"))
            }
            Limits { memory_mib, .. } if !(64..=1_048_576).contains(memory_mib) => {
                Err(format!("limits.memory_mib must be 64 to 1048576 MiB, not {memory_mib}"))
            }
            _ => Ok(()),
        }
    }
}

/// `[screen]`: how things are shown.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Screen {
    /// The IANA name of the zone that times are shown in; this machine's when absent.
    pub timezone: Option<String>,
}

/// `[redact]`: what is secret besides what opsh knows.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redact {
    /// Names whose values are hidden, whole and in any case, `*` for anything: `*_CREDENTIAL`, `acme_key`.
    #[serde(default)]
    pub names: Vec<String>,
}

/// One `[host.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Filled from the table's name.
    #[serde(skip)]
    pub name: String,
    /// `user@host`, or an alias of `~/.ssh/config`.
    pub ssh: String,
    /// TCP port; 22 or what `~/.ssh/config` says when absent.
    pub port: Option<u16>,
    /// Private key file, relative to `opsh.toml`.
    pub identity: Option<PathBuf>,
    /// `user@bastion[:port]`, as ProxyJump.
    pub jump: Option<String>,
    /// Pinned key, `SHA256:…`; else opsh's own known_hosts decides.
    pub host_key: Option<String>,
    /// Where the login password comes from.
    pub password: Option<SecretRef>,
    /// Where the password at the jump host comes from.
    pub jump_password: Option<SecretRef>,
    /// Where the passphrase of the private key comes from.
    pub passphrase: Option<SecretRef>,
    /// Seconds of silence after which the connection counts as lost, 2 to 120; 15 unless said otherwise.
    #[serde(default = "alive_s")]
    pub alive_s: u32,
    /// True for a machine that may be broken: changes there are not asked for.
    #[serde(default)]
    pub sandbox: bool,
    /// Words that `hosts(TAG)` finds it by.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// One `[stack.NAME]`: a deployed compose application.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stack {
    /// Filled from the table's name.
    #[serde(skip)]
    pub name: String,
    /// Name of its host, or `local`.
    pub host: String,
    /// Absolute path of the checkout on the host.
    pub dir: String,
    /// Compose files, env file and project.
    pub compose: Compose,
    /// Services that opsh knows more about than compose says.
    #[serde(default)]
    pub services: BTreeMap<String, Service>,
    /// The database container.
    pub db: Option<Db>,
    /// The migration tool.
    pub migrate: Option<Migrate>,
    /// Where dumps of the database go.
    #[serde(default)]
    pub backup: Backup,
    /// What must answer for the stack to be healthy.
    #[serde(default)]
    pub probe: Vec<Probe>,
    /// Texts that must stand in a line of its host's cron tables.
    #[serde(default)]
    pub cron: Vec<String>,
    /// Branches that should merge, as the clone on the host knows them.
    pub branches: Option<Branches>,
    /// True for a stack that may be broken.
    #[serde(default)]
    pub sandbox: bool,
}

/// How compose is called for a stack; scripts cannot pass others.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compose {
    /// Compose files, relative to the stack's directory.
    pub files: Vec<String>,
    /// The env file, relative to the stack's directory.
    pub env_file: Option<String>,
    /// The compose project name.
    pub project: String,
}

/// Two branches, one of which gets the other's work.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Branches {
    /// The one that gets it: `origin/main`.
    pub target: String,
    /// The one that has it: `origin/develop`.
    pub source: String,
}

/// `services.NAME`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Programs that an image of this service must contain, absolute paths.
    #[serde(default)]
    pub expects: Vec<String>,
    /// True for a service that holds data; restarting or recreating it is then of class destroy.
    #[serde(default)]
    pub stateful: bool,
}

/// The database: its service, and the role and database that psql is called with.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Db {
    /// Compose service of the database.
    pub service: String,
    /// Role.
    pub user: String,
    /// Database.
    pub name: String,
    /// Functions of its own that change nothing, and belong to the role or a superuser: `schema.name(types)`, or `schema.name`
    /// of which there is one. `db.query` may call them.
    #[serde(default)]
    pub reads: Vec<String>,
}

/// Dumps of the database, on its host.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backup {
    /// Their folder, absolute; not one that is emptied when the host starts.
    pub dir: String,
    /// How many good ones are to stay, 1 to 1000.
    pub keep: usize,
    /// Hours after which the newest one is too old, 1 to 8760.
    pub fresh_h: u32,
}

impl Default for Backup {
    fn default() -> Backup {
        Backup { dir: "/var/backups/opsh".into(), keep: 7, fresh_h: 26 }
    }
}

impl Backup {
    fn check(&self) -> Result<(), String> {
        let dir = self.dir.as_str();
        if !dir.starts_with('/') || dir.split('/').any(|part| part == "..") {
            return Err(format!("backup.dir = \"{dir}\" is not an absolute path without .."));
        }
        if let Some(place) = passing_place(dir) {
            return Err(format!("backup.dir = \"{dir}\" is in {place}, which is emptied when the host starts"));
        }
        if !(1..=1000).contains(&self.keep) {
            return Err(format!("backup.keep must be 1 to 1000, not {}", self.keep));
        }
        match self.fresh_h {
            1..=8760 => Ok(()),
            hours => Err(format!("backup.fresh_h must be 1 to 8760 hours, not {hours}")),
        }
    }
}

/// The folder that `path`, absolute, lies in, when what is in there does not outlive a reboot.
pub fn passing_place(path: &str) -> Option<&'static str> {
    let tidy: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let tidy = format!("/{}", tidy.join("/"));
    let places = ["/tmp", "/var/tmp", "/run", "/var/run", "/dev/shm"];
    places
        .into_iter()
        .find(|place| tidy.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

fn alive_s() -> u32 {
    15
}

/// One HTTP probe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// `http://` or `https://`.
    pub url: String,
    /// The status that means healthy, 200 unless said otherwise.
    #[serde(default = "ok_status")]
    pub expect: u16,
    /// `host` (the default): asked on the stack's host; `here`: asked from this machine, as users come.
    #[serde(default)]
    pub from: From,
}

fn ok_status() -> u16 {
    200
}

/// Where a probe is asked from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// The stack's host.
    #[default]
    Host,
    /// This machine.
    Here,
}

impl fmt::Display for SecretRef {
    /// `env:NAME`, `file:PATH`, `cmd:PROGRAM` without its words, `prompt:`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::Env(name) => write!(f, "env:{name}"),
            SecretRef::File(path) => write!(f, "file:{}", path.display()),
            SecretRef::Cmd(words) => write!(f, "cmd:{}", words.first().map_or("", String::as_str)),
            SecretRef::Prompt => f.write_str("prompt:"),
        }
    }
}

/// Where a secret comes from; the value itself never stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum SecretRef {
    /// `env:NAME`, an environment variable of opsh.
    Env(String),
    /// `file:PATH`, relative to `opsh.toml`, readable by its owner only.
    File(PathBuf),
    /// `cmd:WORDS`, the first line that a local command prints; words are split at spaces, no shell.
    Cmd(Vec<String>),
    /// `prompt:`, asked once on the terminal, without echo.
    Prompt,
}

impl TryFrom<String> for SecretRef {
    type Error = String;

    fn try_from(text: String) -> Result<SecretRef, String> {
        let (scheme, rest) = text.split_once(':').unwrap_or(("", ""));
        match scheme {
            "env" if !rest.is_empty() => Ok(SecretRef::Env(rest.into())),
            "file" if !rest.is_empty() => Ok(SecretRef::File(rest.into())),
            "cmd" if !rest.trim().is_empty() => Ok(SecretRef::Cmd(rest.split_whitespace().map(String::from).collect())),
            "prompt" => Ok(SecretRef::Prompt),
            // The text may be the password itself: it is not repeated.
            _ => {
                Err("a secret is named, not written: use \"env:NAME\", \"file:PATH\", \"cmd:WORDS\" or \"prompt:\""
                    .into())
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    host: BTreeMap<toml::Spanned<String>, Host>,
    #[serde(default)]
    stack: BTreeMap<String, Stack>,
    #[serde(default)]
    redact: Redact,
    #[serde(default)]
    screen: Screen,
    #[serde(default)]
    limits: Limits,
}

/// Bytes of an opsh.toml.
const LONGEST: u64 = 1 << 20;

impl Config {
    /// Reads `path`, or the nearest `opsh.toml` at or above `from`. No file at all is an empty configuration. Fails for a
    /// file that was found and that somebody else could have written: it names programs to run and hosts to log in to.
    #[expect(clippy::disallowed_methods, reason = "configuration is read once, before there is a gate")]
    pub fn load(path: Option<&Path>, from: &Path) -> Result<Config> {
        // A link that leads nowhere is somebody's word, too.
        let is_there = |file: &PathBuf| file.is_file() || file.is_symlink();
        let found = match path {
            Some(path) => Some(path.to_path_buf()),
            None => from.ancestors().map(|dir| dir.join("opsh.toml")).find(is_there),
        };
        let Some(found) = found else { return Ok(Config::default()) };
        if path.is_none() {
            trust::judge(&found, None).map_err(|fact| untrusted(&found, &fact))?;
        }
        let path = found;
        let text = std::fs::File::open(&path).and_then(|file| whole::text_in(file, LONGEST)).map_err(|error| {
            Error::new(Kind::Usage, format!("configuration {} cannot be read", path.display()), error.to_string())
                .next("opsh --config FILE …     another file")
        })?;
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        Config::parse(&text, &path)
    }

    /// A configuration that was found out and stands in no file.
    pub fn found(text: &str) -> Result<Config> {
        Config::parse(text, Path::new("what was found")).map(|config| Config { path: None, ..config })
    }

    /// Logins of the hosts of a configuration that stands in no file: what its names mean. `None` for any other.
    pub fn found_at(&self) -> Option<Vec<String>> {
        let login = |host: &Arc<Host>| format!("{}:{}", host.ssh, host.port.unwrap_or(22));
        (self.path.is_none() && !self.hosts.is_empty()).then(|| self.hosts.values().map(login).collect())
    }

    /// The configuration that `text` holds; paths in it are relative to the folder of `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Config> {
        let bad = |why: String| {
            let place = format!("configuration {} is not valid", path.display());
            Error::new(Kind::Usage, place, why)
        };
        // toml's own text quotes the line, which may hold a password that somebody wrote there.
        let file: File = toml::from_str(text).map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
            bad(format!("line {}: {}", before.matches('\n').count() + 1, error.message()))
        })?;
        file.limits.check().map_err(bad)?;
        for name in &file.redact.names {
            redact::check_name(name).map_err(|why| bad(format!("redact.names: {why}")))?;
        }
        let base = path.parent().unwrap_or(Path::new("."));
        let mut hosts: Vec<(toml::Spanned<String>, Host)> = file.host.into_iter().collect();
        hosts.sort_by_key(|(name, _)| name.span().start);
        let (path, redact, screen, limits) = (Some(path.to_path_buf()), file.redact, file.screen, file.limits);
        let tables = meaning::tables(text);
        let mut config = Config { path, tables, redact, screen, limits, ..Config::default() };
        for (name, host) in hosts {
            let name = name.into_inner();
            check_host(&name, &host).map_err(bad)?;
            config.order.push(name.clone());
            config.hosts.insert(name.clone(), Arc::new(host.named(name, base)));
        }
        for (name, stack) in file.stack {
            config.check_stack(&name, &stack).map_err(bad)?;
            config.stacks.insert(name.clone(), Arc::new(Stack { name, ..stack }));
        }
        Ok(config)
    }

    fn check_stack(&self, name: &str, stack: &Stack) -> Result<(), String> {
        if stack.host != LOCAL && !self.hosts.contains_key(&stack.host) {
            let hint = suggestion(&stack.host, self.host_names());
            return Err(format!("stack.{name}: no host \"{}\"; {hint}", stack.host));
        }
        if !stack.dir.starts_with('/') {
            return Err(format!("stack.{name}: dir = \"{}\" is not an absolute path", stack.dir));
        }
        if stack.compose.files.is_empty() {
            return Err(format!("stack.{name}: compose.files is empty"));
        }
        stack.backup.check().map_err(|why| format!("stack.{name}: {why}"))?;
        if stack.cron.iter().any(|text| text.trim().is_empty() || text.contains('\n')) {
            return Err(format!("stack.{name}: each text of cron is part of one line, and not empty"));
        }
        match stack.probe.iter().find(|probe| !probe.url.starts_with("http://") && !probe.url.starts_with("https://")) {
            Some(probe) => Err(format!("stack.{name}: probe url \"{}\" is neither http:// nor https://", probe.url)),
            None => Ok(()),
        }
    }

    /// The host of that name, or an error that names the nearest one.
    pub fn host(&self, name: &str) -> Result<Arc<Host>> {
        self.hosts.get(name).cloned().ok_or_else(|| self.no_such("host", name, self.host_names()))
    }

    /// The hosts with that tag as the file orders them: at least one, or an error that names the nearest tag.
    pub fn tagged(&self, tag: &str) -> Result<Vec<Arc<Host>>> {
        let hosts = self.order.iter().filter_map(|name| self.hosts.get(name));
        let found: Vec<Arc<Host>> = hosts.filter(|host| host.tags.iter().any(|known| known == tag)).cloned().collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let known: BTreeSet<&str> = self.hosts.values().flat_map(|host| &host.tags).map(String::as_str).collect();
        let error = self.no_such("tag", tag, known.iter().copied());
        let is_host = tag == LOCAL || self.hosts.contains_key(tag);
        Err(if is_host { error.next(format!("hosts([\"{tag}\"])     the host of that name")) } else { error })
    }

    /// The stack of that name, or an error that names the nearest one.
    pub fn stack(&self, name: &str) -> Result<Arc<Stack>> {
        self.stacks.get(name).cloned().ok_or_else(|| self.no_such("stack", name, self.stack_names()))
    }

    /// Bytes that opsh may have before a script is stopped.
    pub fn memory_bytes(&self) -> usize {
        self.limits.memory_mib << 20
    }

    /// `[redact]`.
    pub fn redact(&self) -> &Redact {
        &self.redact
    }

    /// `[limits]`.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The zone that times are shown in, when the file names one.
    pub fn timezone(&self) -> Option<&str> {
        self.screen.timezone.as_deref()
    }

    /// Every secret that the file names, with its place: `host.prod-1.password`.
    pub fn secrets(&self) -> Vec<(String, &SecretRef)> {
        self.hosts.values().flat_map(|host| host.secrets()).collect()
    }

    /// Host names in order.
    pub fn host_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.hosts.keys().map(String::as_str)
    }

    /// The stacks on a host, in the order of their names.
    pub fn stacks_on<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Arc<Stack>> {
        self.stacks.values().filter(move |stack| stack.host == host)
    }

    /// Stack names in order.
    pub fn stack_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.stacks.keys().map(String::as_str)
    }

    fn no_such<'a>(&self, what: &str, name: &str, names: impl Iterator<Item = &'a str> + Clone) -> Error {
        let why = match &self.path {
            Some(path) => format!("{} (in {})", suggestion(name, names), path.display()),
            None if names.clone().next().is_some() => suggestion(name, names),
            None => "there is no opsh.toml in this folder or above it".into(),
        };
        let error = Error::new(Kind::Usage, format!("no {what} \"{name}\""), why);
        if self.path.is_none() {
            error.next("opsh --config FILE …     where hosts and stacks are named")
        } else {
            error
        }
    }
}

/// A file that was found upwards, and that others decide on.
fn untrusted(found: &Path, fact: &str) -> Error {
    let shown = found.display();
    let why = format!("nobody named it, and {fact}");
    Error::new(Kind::Usage, format!("{shown} was found and is not used"), why)
        .next(format!("opsh --config {shown} …     use it, if you know who wrote it"))
}

fn check_host(name: &str, host: &Host) -> Result<(), String> {
    if name == LOCAL {
        return Err(format!("host.{LOCAL}: that is this machine in every script; give the host another name"));
    }
    if !(2..=120).contains(&host.alive_s) {
        return Err(format!("host.{name}: alive_s must be 2 to 120 seconds, not {}", host.alive_s));
    }
    let is_word = |tag: &&String| !tag.is_empty() && tag.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
    match host.tags.iter().find(|tag| !is_word(tag)) {
        Some(tag) => Err(format!("host.{name}: the tag \"{tag}\" is not a word of letters, digits, -, _ and .")),
        None => Ok(()),
    }
}

impl Host {
    fn secrets(&self) -> impl Iterator<Item = (String, &SecretRef)> {
        let named =
            [("password", &self.password), ("jump_password", &self.jump_password), ("passphrase", &self.passphrase)];
        named.into_iter().filter_map(|(key, from)| Some((format!("host.{}.{key}", self.name), from.as_ref()?)))
    }

    fn named(mut self, name: String, base: &Path) -> Host {
        self.name = name;
        self.identity = self.identity.map(|path| base.join(path));
        for secret in [&mut self.password, &mut self.jump_password, &mut self.passphrase] {
            if let Some(SecretRef::File(path)) = secret {
                *path = base.join(&path);
            }
        }
        self
    }
}

impl Stack {
    /// What opsh knows about a service beyond compose.
    pub fn service(&self, name: &str) -> Service {
        self.services.get(name).cloned().unwrap_or_default()
    }

    /// Names of the services that opsh.toml says something of.
    pub fn service_names(&self) -> Vec<String> {
        let named = self.migrate.as_ref().map(|migrate| migrate.service.clone());
        let mut names: Vec<String> = self.services.keys().cloned().chain(named).collect();
        names.extend(self.db.as_ref().map(|db| db.service.clone()));
        names.sort();
        names.dedup();
        names
    }

    /// True when the service holds data: said so, or the database's own service.
    pub fn is_stateful(&self, service: &str) -> bool {
        self.service(service).stateful || self.db.as_ref().is_some_and(|db| db.service == service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [host.prod-1]
        ssh = "root@203.0.113.10"
        identity = "keys/id"
        password = "file:pw"
        [stack.prod]
        host = "prod-1"
        dir = "/opt/vrcshift"
        compose = { files = ["docker-compose.prod.yml"], env_file = ".env.prod", project = "vrcshift" }
        db = { service = "db", user = "u", name = "n" }
        probe = [{ url = "http://127.0.0.1:8080/api" }]
    "#;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text, Path::new("/etc/ops/opsh.toml"))
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let host = parse(GOOD).expect("valid").host("prod-1").expect("there");
        assert_eq!(host.identity.as_deref(), Some(Path::new("/etc/ops/keys/id")));
        assert_eq!(host.password, Some(SecretRef::File("/etc/ops/pw".into())));
        assert!(!host.sandbox, "protected is the default");
    }

    #[test]
    fn the_database_service_is_stateful() {
        let stack = parse(GOOD).expect("valid").stack("prod").expect("there");
        assert!(stack.is_stateful("db") && !stack.is_stateful("backend"));
    }

    #[test]
    fn what_only_looks_like_a_passing_place_may_hold_backups() {
        for path in ["/tmpfiles", "/srv/tmp", "/var/backups/run", "/"] {
            assert_eq!(passing_place(path), None, "{path}");
        }
        assert_eq!(passing_place("//run"), Some("/run"));
    }

    #[test]
    fn a_tag_finds_its_hosts_in_the_order_of_the_file() {
        let text = "[host.web-2]\nssh = \"a\"\ntags = [\"web\", \"tokyo\"]\n[host.db]\nssh = \"b\"\n\
                    [host.\"web-1\"]\nssh = \"c\"\ntags = [\"web\"]\n";
        let config = parse(text).expect("valid");
        let names =
            |tag| config.tagged(tag).map(|hosts| hosts.iter().map(|host| host.name.clone()).collect::<Vec<_>>());
        assert_eq!(names("web").expect("two"), ["web-2", "web-1"]);
        assert_eq!(names("tokyo").expect("one"), ["web-2"]);
        assert_eq!(names("wbe").expect_err("none").why, "did you mean \"web\"? (in /etc/ops/opsh.toml)");
        let host = names("db").expect_err("a host, not a tag");
        assert!(host.next[0].starts_with("hosts([\"db\"])"), "{:?}", host.next);
    }

    #[test]
    fn an_unknown_name_names_the_nearest_one() {
        let error = parse(GOOD).expect("valid").stack("prdo").expect_err("no such stack");
        assert!(error.why.contains("did you mean \"prod\"?"), "{error}");
        assert_eq!(error.kind, Kind::Usage);
    }

    #[test]
    fn mistakes_are_named() {
        for (from, to, word) in [
            ("host = \"prod-1\"", "host = \"prod-2\"", "did you mean \"prod-1\"?"),
            ("/opt/vrcshift", "opt/vrcshift", "not an absolute path"),
            ("http://127", "ftp://127", "neither http:// nor https://"),
            ("ssh = ", "shh = ", "shh"),
            ("probe = ", "backup = { dir = \"/tmp/x\" }\nprobe = ", "is emptied when the host starts"),
            ("probe = ", "backup = { dir = \"/var//./tmp\" }\nprobe = ", "is emptied when the host starts"),
            ("probe = ", "backup = { dir = \"/srv/../tmp\" }\nprobe = ", "absolute path without .."),
            ("probe = ", "backup = { keep = 0 }\nprobe = ", "keep must be 1 to 1000"),
            ("probe = ", "backup = { fresh_h = 0 }\nprobe = ", "fresh_h must be 1 to 8760"),
            ("probe = ", "cron = [\" \"]\nprobe = ", "each text of cron"),
            ("[host.prod-1]", "[host.local]", "that is this machine"),
            ("[stack.prod]", "alive_s = 1\n[stack.prod]", "alive_s must be 2 to 120"),
            ("identity = ", "tags = [\"a b\"]\nidentity = ", "the tag \"a b\" is not a word"),
            ("[host.prod-1]", "[limits]\nconnect_s = 0\n[host.prod-1]", "connect_s must be 1 to 300"),
            ("[host.prod-1]", "[limits]\ndeadline_s = 86401\n[host.prod-1]", "deadline_s must be 1 to 86400"),
            ("[host.prod-1]", "[limits]\nread_s = 5\n[host.prod-1]", "read_s"),
        ] {
            let error = parse(&GOOD.replace(from, to)).expect_err(word);
            assert!(error.why.contains(word), "{}", error.why);
        }
    }

    #[test]
    fn a_pattern_of_names_that_cannot_be_meant_is_refused_with_the_pattern() {
        let with = |names: &str| parse(&format!("[redact]\nnames = [{names}]\n{GOOD}"));
        assert_eq!(with("\"*_CREDENTIAL\", \"acme_key\"").expect("valid").redact().names.len(), 2);
        for (names, word) in [("\"*\"", "would take every name"), ("\"acme[0]\"", "redact.names: \"acme[0]\" has '['")]
        {
            assert!(with(names).expect_err(word).why.contains(word));
        }
    }

    #[test]
    fn every_named_secret_is_listed_with_its_place() {
        let config = parse(GOOD).expect("valid");
        let listed: Vec<_> = config.secrets().iter().map(|(place, from)| format!("{place} {from}")).collect();
        assert_eq!(listed, ["host.prod-1.password file:/etc/ops/pw"]);
    }

    #[test]
    fn a_password_in_the_file_is_refused_and_not_repeated() {
        let error = parse(&GOOD.replace("file:pw", "hunter2")).expect_err("refused");
        assert!(error.why.contains("a secret is named"), "{}", error.why);
        assert!(!error.why.contains("hunter2"));
    }
}
