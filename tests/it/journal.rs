//! The journal and what may happen to it: full disks, read-only folders, damaged files, many writers, killed programs.
//! Each test has a home of its own; spill files stay in it.

use crate::home::{OPSH, Ran, story_of};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A home whose temporary folder is its own as well. The journal has a folder of its own: what is wrong with that is
/// not wrong with the place where this machine keeps its detached runs.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        let home = Home(tempfile::tempdir().unwrap());
        std::fs::create_dir(home.path("tmp")).unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn state(&self) -> PathBuf {
        self.path("journal")
    }

    fn database(&self) -> PathBuf {
        self.state().join("journal.db")
    }

    /// In a namespace of its own when `stage`, a line of shell with `$STATE`, sets something up that must not last.
    fn command(&self, stage: Option<&str>, words: &[&str]) -> Command {
        self.command_at(&self.state(), stage, words)
    }

    fn command_at(&self, state: &Path, stage: Option<&str>, words: &[&str]) -> Command {
        let mut command = match stage {
            None => Command::new(OPSH),
            Some(stage) => {
                let mut command = Command::new("unshare");
                let script = format!("{stage} && exec \"$0\" \"$@\"");
                command.args(["--mount", "--propagation", "private", "sh", "-ec", &script, OPSH]);
                command
            }
        };
        command.arg("--state-dir").arg(state).args(words).current_dir(self.0.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C.UTF-8");
        command.env("HOME", self.0.path()).env("XDG_STATE_HOME", self.path("state")).env("STATE", self.state());
        command.env("TMPDIR", self.path("tmp"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        Ran::of(self.command(None, words).output().unwrap())
    }

    fn run_in(&self, stage: &str, words: &[&str]) -> Ran {
        Ran::of(self.command(Some(stage), words).output().unwrap())
    }

    /// A change that leaves the file `name`.
    fn touch(&self, name: &str) -> String {
        format!("host(\"local\").run([\"touch\", \"{}\"])", self.path(name).display())
    }

    fn records(&self, run: &str) -> Vec<Value> {
        self.run(&["journal", "export", run]).exits(0).json_lines()
    }

    /// Kinds of the records of a run, with the outcome of those that have one.
    fn story(&self, run: &str) -> Vec<String> {
        story_of(&self.records(run))
    }

    fn runs(&self) -> Vec<Value> {
        self.run(&["--json", "journal", "list", "--limit", "9"]).exits(0).json_lines()
    }

    fn spills(&self) -> Vec<PathBuf> {
        let dirs = std::fs::read_dir(self.path("tmp")).unwrap().flatten().map(|entry| entry.path());
        let mut files: Vec<PathBuf> = dirs
            .filter_map(|dir| std::fs::read_dir(dir).ok())
            .flat_map(|files| files.flatten().map(|entry| entry.path()))
            .collect();
        files.sort();
        files
    }

    fn sql(&self, sql: &str) {
        let database = rusqlite::Connection::open(self.database()).unwrap();
        database.execute_batch(sql).unwrap();
    }
}

/// The same, with a person at a terminal who types `answer`; standard error is part of what is printed.
fn at_a_terminal(home: &Home, words: &[&str], answer: &str) -> Ran {
    let like = home.command(None, &[]);
    let quoted: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
    let line = format!("{OPSH} --state-dir '{}' {}", home.state().display(), quoted.join(" "));
    let mut typed = Command::new("script");
    typed.args(["-qec", &line, "/dev/null"]).current_dir(home.0.path()).env_clear();
    typed.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "dumb");
    let mut child = typed.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut shown = Vec::new();
    let mut byte = [0];
    // What is typed before the question is no answer to it.
    while out.read(&mut byte).unwrap() == 1 {
        shown.push(byte[0]);
        if shown.ends_with(b"Enter to stop: ") {
            child.stdin.as_mut().unwrap().write_all(format!("{answer}\n").as_bytes()).unwrap();
        }
    }
    let status = child.wait().unwrap();
    Ran { code: status.code(), signal: status.signal(), out: String::from_utf8(shown).unwrap(), err: String::new() }
}

/// True when a mount namespace can be made; else says that the calling test is skipped.
fn can_mount() -> bool {
    let tried = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    let can = tried.is_ok_and(|status| status.success());
    if !can {
        crate::skip::skip("no mount namespace can be made here");
    }
    can
}

const READ: &str = "host(\"local\").read([\"echo\", \"hi\"]).out";
const READ_ONLY: &str = "mount --bind \"$STATE\" \"$STATE\" && mount -o remount,ro,bind \"$STATE\"";

// ── a journal that cannot be written ──

/// Reads go on and say so, a change is refused, with `--spill` it is done and recorded, and the next opsh brings it in.
#[track_caller]
fn reads_go_on_and_changes_spill(home: &Home, stage: &str, why: &str) {
    home.run_in(stage, &["-e", READ]).exits(0).says(&["NOT RECORDED", why]).shows(&["hi"]);
    let refused = home.run_in(stage, &["--yes", "-e", &home.touch("refused")]).exits(1);
    refused.says(&["host.run was not done on local", why, "--spill was not given", "opsh --spill", "--state-dir DIR"]);
    assert!(!home.path("refused").exists() && home.spills().is_empty(), "{:?}", home.spills());

    let code = format!("{}; {}; {READ}", home.touch("a"), home.touch("b"));
    let spilled = home.run_in(stage, &["--yes", "--spill", "-e", &code]).exits(0);
    assert_eq!(spilled.err.matches("not in the journal").count(), 1, "{}", spilled.err);
    assert!(home.path("a").exists() && home.path("b").exists());
    assert_eq!(home.spills().len(), 1, "{:?}", home.spills());
    assert_eq!(mode(&home.spills()[0]), 0o600);
    assert_eq!(mode(home.spills()[0].parent().unwrap()), 0o700);
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The next opsh says one line, the spilled run is in the journal, marked, and the chain is whole.
#[track_caller]
fn next_one_brings_it_in(home: &Home) {
    let next = home.run(&["-e", "1"]).exits(0);
    assert_eq!(next.err.matches("are now in the journal").count(), 1, "{}", next.err);
    assert!(home.spills().is_empty());
    let runs = home.runs();
    let spilled = runs.iter().find(|run| run["changes"] == 2).unwrap_or_else(|| panic!("{runs:?}"));
    assert_eq!((&spilled["outcome"], &spilled["unknown"]), (&Value::from("ok"), &Value::from(0)));
    let run = spilled["run"].as_str().unwrap();
    let story = home.story(run);
    let changes = ["effect.begin", "effect.end ok", "effect.begin", "effect.end ok", "effect.read ok", "run.end ok"];
    assert!(story.ends_with(&[&changes.map(String::from)[..], &["spill.imported".into()]].concat()), "{story:?}");
    assert!(story.contains(&"run.start".into()) && story.contains(&"spill.agreed".into()), "{story:?}");
    for record in home.records(run).iter().filter(|record| record["kind"] != "spill.imported") {
        assert!(record["body"]["spilled"]["at_us"].as_i64() <= record["at_us"].as_i64(), "{record}");
    }
    home.run(&["journal", "verify"]).exits(0).shows(&["the chain is whole"]);
    home.run(&["journal", "show", run]).exits(0).shows(&["host.run", "touch", "→ ok", "run ended: ok"]);
}

#[test]
fn in_a_read_only_folder_reads_go_on_and_changes_spill() {
    if !can_mount() {
        return;
    }
    let home = Home::new();
    home.run(&["-e", "1"]).exits(0);
    reads_go_on_and_changes_spill(&home, READ_ONLY, "Read-only file system");
    let listed = home.run_in(READ_ONLY, &["journal", "list"]).exits(0);
    listed.says(&["cannot be written", "what can be read of it"]).shows(&["-e 1"]);
    home.run_in(READ_ONLY, &["journal", "verify"]).exits(0).shows(&["the chain is whole"]);
    next_one_brings_it_in(&home);
}

/// A disk of 400 KiB that is full but for what the database has taken already.
const FULL: &str = "mount -t tmpfs -o size=400k,mode=700 none \"$STATE\" && cp -p \"$STATE.kept\"/* \"$STATE\"/ && \
    { cat /dev/zero >\"$STATE/ballast\" 2>/dev/null || true; }";

#[test]
fn on_a_full_disk_reads_go_on_and_changes_spill() {
    if !can_mount() {
        return;
    }
    let home = Home::new();
    home.run(&["-e", "1"]).exits(0);
    let kept = home.path("journal.kept");
    std::fs::create_dir(&kept).unwrap();
    std::fs::copy(home.database(), kept.join("journal.db")).unwrap();
    reads_go_on_and_changes_spill(&home, FULL, "the disk is full");
    next_one_brings_it_in(&home);
}

#[test]
fn a_disk_that_fills_up_between_two_changes_loses_nothing() {
    if !can_mount() {
        return;
    }
    // The journal goes away with its namespace: what became of it is shown there, when the disk has room again.
    let stage = "mount -t tmpfs -o size=600k,mode=700 none \"$STATE\"; \
        trap 'rm -f \"$STATE/ballast\"; \"$0\" --state-dir \"$STATE\" journal export last >&2' EXIT; \
        \"$0\" \"$@\"; exit $?; true";
    let fill = "host(\"local\").sh(\"cat /dev/zero >\\\"$1\\\"; true\", [\"BALLAST\"])";
    for (flags, code) in [(&["--yes", "--spill", "-e"][..], 0), (&["--yes", "-e"], 1)] {
        let home = Home::new();
        std::fs::create_dir_all(home.state()).unwrap();
        let fill = fill.replace("BALLAST", &home.state().join("ballast").display().to_string());
        let script = format!("{}; {fill}; {}", home.touch("before"), home.touch("after"));
        let ran = home.run_in(stage, &[flags, &[script.as_str()]].concat()).exits(code);
        assert!(home.path("before").exists());
        assert_eq!(home.path("after").exists(), code == 0, "no record, no change");
        // The end of the filling could not be written: it is in the spill file, although nobody agreed to one.
        assert_eq!(ran.err.matches("not in the journal").count(), 1, "{}", ran.err);
        let begun = ran.err.matches("\"kind\":\"effect.begin\"").count();
        let ended = ran.err.matches("\"kind\":\"effect.end\"").count();
        assert_eq!((begun, ended), if code == 0 { (3, 3) } else { (2, 2) }, "{}", ran.err);
        let ran = ran.says(&["are now in the journal"]);
        if code == 1 {
            ran.says(&["host.run was not done on local", "the disk is full", "--spill was not given"]);
        }
    }
}

#[test]
fn a_newer_journal_is_left_alone_and_changes_spill() {
    let home = Home::new();
    home.run(&["-e", "1"]).exits(0);
    home.sql("PRAGMA user_version = 99");
    let before = std::fs::read(home.database()).unwrap();
    home.run(&["-e", READ]).exits(0).says(&["NOT RECORDED", "a newer opsh (schema 99"]);
    home.run(&["--yes", "-e", &home.touch("x")]).exits(1).says(&["a newer opsh (schema 99", "--spill"]);
    let both = format!("{}; {}; {READ}", home.touch("a"), home.touch("b"));
    home.run(&["--yes", "--spill", "-e", &both]).exits(0);
    home.run(&["journal", "list"]).exits(0).says(&["a newer opsh"]).shows(&["-e 1"]);
    assert_eq!(std::fs::read(home.database()).unwrap(), before);
    home.sql("PRAGMA user_version = 1");
    next_one_brings_it_in(&home);
}

#[test]
fn a_folder_where_others_may_write_takes_no_record() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    std::fs::create_dir_all(home.state()).unwrap();
    std::fs::set_permissions(home.state(), std::fs::Permissions::from_mode(0o777)).unwrap();
    home.run(&["--yes", "-e", &home.touch("x")]).exits(1).says(&["others may write to", "chmod go-w"]);
    assert!(!home.path("x").exists());
}

// ── the question ──

#[test]
fn a_person_is_asked_once_and_the_run_is_in_the_spill_file() {
    let home = Home::new();
    home.run(&["-e", "1"]).exits(0);
    home.sql("PRAGMA user_version = 99");
    let code = format!("{}; {}; {READ}", home.touch("a"), home.touch("b"));
    let asked = at_a_terminal(&home, &["--yes", "-e", &code], "y").exits(0);
    assert_eq!(asked.out.matches("Record this run in the spill file").count(), 1, "{}", asked.out);
    assert!(asked.out.contains("a newer opsh"), "{}", asked.out);
    assert!(home.path("a").exists() && home.path("b").exists());
    home.sql("PRAGMA user_version = 1");
    next_one_brings_it_in(&home);
}

#[test]
fn without_a_yes_nothing_is_done_and_nothing_is_left() {
    let home = Home::new();
    home.run(&["-e", "1"]).exits(0);
    home.sql("PRAGMA user_version = 99");
    let code = format!("try {{ {} }} catch {{ }} {}", home.touch("a"), home.touch("b"));
    let asked = at_a_terminal(&home, &["--yes", "-e", &code], "").exits(1);
    assert_eq!(asked.out.matches("Record this run in the spill file").count(), 1, "{}", asked.out);
    assert!(asked.out.contains("the answer was no"), "{}", asked.out);
    assert!(!home.path("a").exists() && !home.path("b").exists() && home.spills().is_empty());
}

// ── spill files ──

#[test]
fn a_spilled_change_whose_opsh_died_may_have_happened() {
    if !cfg!(debug_assertions) {
        return crate::skip::skip("a release build of opsh cannot be told when to die");
    }
    let home = Home::new();
    home.run(&["-e", "1"]).exits(0);
    home.sql("PRAGMA user_version = 99");
    let code = home.touch("a");
    let mut command = home.command(None, &["--yes", "--spill", "-e", &code]);
    let killed = command.env("OPSH_TEST_KILL", "performed:1").output().unwrap();
    assert_eq!(killed.status.signal(), Some(libc::SIGKILL));
    // Its last line was being written when it died.
    let spill = home.spills().remove(0);
    let half = b"{\"seq\":9,\"kind\":\"effect.e";
    std::fs::OpenOptions::new().append(true).open(spill).unwrap().write_all(half).unwrap();
    home.sql("PRAGMA user_version = 1");
    let next = home.run(&["-e", "2"]).exits(0);
    let next = next.says(&["are now in the journal", "its last line was written by half"]);
    next.says(&["may have happened: host.run on local", "touch"]);
    assert!(home.spills().is_empty());
    home.run(&["journal", "verify"]).exits(0).shows(&["the chain is whole"]);
}

#[test]
fn a_spill_file_whose_opsh_lives_is_left_alone_and_brought_in_once() {
    let home = Home::new();
    home.run(&["-e", "1"]).exits(0);
    home.sql("PRAGMA user_version = 99");
    let code = format!("{}; print(\"ready\"); sleep(600)", home.touch("a"));
    let mut living = home.command(None, &["--yes", "--spill", "-e", &code]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(living.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    home.sql("PRAGMA user_version = 1");
    let next = home.run(&["-e", "2"]).exits(0);
    assert!(!next.err.contains("now in the journal"), "{}", next.err);
    assert_eq!(home.spills().len(), 1);
    living.kill().unwrap();
    living.wait().unwrap();
    let at_once: Vec<Child> = (0..4).map(|_| home.command(None, &["-e", "3"]).spawn().unwrap()).collect();
    let said: Vec<Ran> = at_once.into_iter().map(|child| Ran::of(child.wait_with_output().unwrap()).exits(0)).collect();
    let imports: usize = said.iter().map(|ran| ran.err.matches("are now in the journal").count()).sum();
    assert_eq!(imports, 1, "{said:?}");
    let runs = home.runs();
    let killed: Vec<&Value> = runs.iter().filter(|run| run["outcome"] == "killed").collect();
    assert_eq!((killed.len(), &killed[0]["changes"]), (1, &Value::from(1)));
    home.run(&["journal", "verify"]).exits(0).shows(&["the chain is whole"]);
}

#[test]
fn an_edited_spill_file_is_brought_in_up_to_the_edit_and_kept() {
    let home = Home::new();
    home.run(&["-e", "1"]).exits(0);
    home.sql("PRAGMA user_version = 99");
    home.run(&["--yes", "--spill", "-e", &home.touch("a")]).exits(0);
    let spill = home.spills().remove(0);
    let text = std::fs::read_to_string(&spill).unwrap();
    std::fs::write(&spill, text.replacen("\"run.start\"", "\"run.stort\"", 1)).unwrap();
    home.sql("PRAGMA user_version = 1");
    home.run(&["-e", "2"]).exits(0).says(&["is not as it was written", ".broken"]);
    assert_eq!(home.spills().len(), 1, "{:?}", home.spills());
    home.run(&["-e", "2"]).exits(0);
    home.run(&["journal", "verify"]).exits(0);
}

#[test]
fn a_spill_file_of_a_journal_that_is_gone_is_kept_until_somebody_imports_it() {
    let home = Home::new();
    let (gone, other) = (home.path("gone"), home.path("other"));
    std::fs::create_dir(&gone).unwrap();
    let run = |state: &Path, words: &[&str]| Ran::of(home.command_at(state, None, words).output().unwrap());
    let code = format!("host(\"local\").run([\"rm\", \"-rf\", \"{}\"]); {}", gone.display(), home.touch("a"));
    run(&gone, &["--yes", "-e", &code]).exits(1).says(&["moved or removed while this opsh runs", "--spill"]);
    assert!(!home.path("a").exists(), "no record, no change");
    // What had happened before is spilled without a question.
    let spill = home.spills()[0].display().to_string();
    let line = format!("opsh journal import {spill}");
    run(&other, &["-e", "1"]).exits(0).says(&["gone, which is not there now; it is kept", &line]);
    run(&other, &["journal", "import", &spill]).exits(0).shows(&["are now in the journal"]);
    run(&other, &["journal", "import", &spill]).exits(2).says(&["was not imported", "No such file"]);
    run(&other, &["journal", "import", "/proc/self/status"]).exits(2).says(&["it is not a spill file"]);

    std::fs::create_dir(&gone).unwrap();
    run(&gone, &["--yes", "--spill", "-e", &code]).exits(0);
    assert!(home.path("a").exists());
    // Neither another journal, nor a demo or a replay takes it; the replay makes the folder anew.
    let recording = home.path("r.jsonl").display().to_string();
    std::fs::write(&recording, run(&other, &["journal", "export", "last"]).exits(0).out).unwrap();
    run(&other, &["-e", "1"]).exits(0).says(&["it is kept", "opsh journal import"]);
    run(&other, &["demo", "--auto", "--dir", home.path("played").to_str().unwrap()]).exits(0);
    run(&gone, &["--replay", &recording, "-e", "1"]).exits(0);
    assert_eq!(home.spills().len(), 1, "{:?}", home.spills());
    // Of a newer opsh it stays, too.
    let spill = home.spills().remove(0);
    let text = std::fs::read_to_string(&spill).unwrap();
    assert_eq!(text.matches("\"format\":1").count(), 1, "{text}");
    std::fs::write(&spill, text.replace("\"format\":1", "\"format\":2")).unwrap();
    run(&gone, &["-e", "1"]).exits(0).says(&["stays for a newer opsh", "format 2"]);
    run(&other, &["journal", "import", spill.to_str().unwrap()]).exits(1).says(&["a newer opsh wrote it"]);
    std::fs::write(&spill, text).unwrap();
    // By another path of the same folder.
    let alias = home.path("alias");
    std::os::unix::fs::symlink(&gone, &alias).unwrap();
    run(&alias, &["-e", "1"]).exits(0).says(&["are now in the journal"]);
    assert!(home.spills().is_empty());
    run(&gone, &["journal", "verify"]).exits(0).shows(&["the chain is whole"]);
}

// ── damage ──

#[test]
fn a_damaged_journal_is_set_aside_with_what_can_be_read_of_it_kept() {
    let home = Home::new();
    for _ in 0..6 {
        home.run(&["--yes", "-e", &home.touch("x")]).exits(0);
    }
    home.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    let bytes = std::fs::read(home.database()).unwrap();
    std::fs::write(home.database(), &bytes[..bytes.len() - 8192]).unwrap();

    home.run(&["journal", "verify"]).exits(1).says(&["journal", "malformed"]);
    assert!(home.run(&["journal", "list"]).code.is_some());
    assert_eq!(std::fs::read(home.database()).unwrap().len(), bytes.len() - 8192, "looking moves nothing");

    let done = home.run(&["--yes", "-e", &home.touch("y")]).exits(0);
    done.says(&["the journal was damaged", "set aside as", "journal.db.broken-"]);
    assert!(home.path("y").exists());
    let kept = std::fs::read_dir(home.state()).unwrap().flatten().find(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.starts_with("journal.db.broken-") && !name.ends_with("-wal") && !name.ends_with("-shm")
    });
    assert_eq!(std::fs::read(kept.unwrap().path()).unwrap(), bytes[..bytes.len() - 8192]);
    home.run(&["journal", "verify"]).exits(0).shows(&["the chain is whole"]);
    home.run(&["-e", "1"]).exits(0);
}

#[test]
fn of_many_that_find_the_journal_damaged_one_sets_it_aside() {
    let home = Home::new();
    home.run(&["-e", "1"]).exits(0);
    std::fs::write(
        home.database(),
        "no database at all, and long enough to be read as a header of one, or nearly so, I think".repeat(9),
    )
    .unwrap();
    let code = home.touch("x");
    let at_once: Vec<Child> = (0..5).map(|_| home.command(None, &["--yes", "-e", &code]).spawn().unwrap()).collect();
    let said: Vec<Ran> = at_once.into_iter().map(|child| Ran::of(child.wait_with_output().unwrap()).exits(0)).collect();
    assert_eq!(said.iter().map(|ran| ran.err.matches("set aside").count()).sum::<usize>(), 1, "{said:?}");
    // The word of the journal itself, and four records of each run.
    home.run(&["journal", "verify"]).exits(0).shows(&["21 records, 5 changes: the chain is whole"]);
}

#[test]
fn a_journal_is_begun_by_the_one_that_has_the_lock() {
    let home = Home::new();
    home.run(&["-e", "1"]).exits(0);
    std::fs::remove_file(home.database()).unwrap();
    let lock = std::fs::File::options().create(true).append(true).open(home.database().with_file_name("journal.lock"));
    let lock = lock.unwrap();
    lock.lock().unwrap();
    let mut child = home.command(None, &["-e", "1"]).spawn().unwrap();
    // The kernel marks one that waits by an arrow.
    let waits = |pid: u32| {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| line.contains("->") && line.split(' ').any(|word| word == pid.to_string()))
    };
    while !waits(child.id()) {
        assert!(child.try_wait().unwrap().is_none(), "it began a journal while another program had the lock");
    }
    drop(lock);
    Ran::of(child.wait_with_output().unwrap()).exits(0);
    home.run(&["journal", "verify"]).exits(0).shows(&["the chain is whole"]);
}

#[test]
fn a_flipped_byte_in_a_record_is_named() {
    let home = Home::new();
    home.run(&["--yes", "-e", &home.touch("canary-file")]).exits(0);
    home.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    let mut bytes = std::fs::read(home.database()).unwrap();
    let at = bytes.windows(11).position(|part| part == b"canary-file").unwrap();
    bytes[at] ^= 1;
    std::fs::write(home.database(), bytes).unwrap();
    home.run(&["journal", "verify"]).exits(1).says(&["journal record", "its contents were changed"]);
}

// ── time ──

#[test]
fn a_clock_that_is_set_back_changes_neither_order_nor_chain() {
    if !cfg!(debug_assertions) {
        return crate::skip::skip("a release build of opsh has no other clock");
    }
    let home = Home::new();
    home.run(&["--yes", "-e", &home.touch("first")]).exits(0);
    let code = home.touch("second");
    let mut back = home.command(None, &["--yes", "-e", &code]);
    Ran::of(back.env("OPSH_TEST_CLOCK_BACK", "3600").output().unwrap()).exits(0);
    let runs = home.runs();
    assert!(runs[0]["what"].as_str().unwrap().contains("second"), "{runs:?}");
    let records = home.records("last");
    let last = home.records(runs[1]["run"].as_str().unwrap()).pop().unwrap();
    let back = records[0]["body"]["clock_back_us"].as_i64().unwrap();
    assert!((3_500_000_000..=3_600_000_000).contains(&back), "{back}");
    assert!(records[0]["at_us"].as_i64() < last["at_us"].as_i64());
    assert!(records[0]["mono_us"].as_i64() > last["mono_us"].as_i64());
    assert!(records[1]["body"].get("clock_back_us").is_none(), "it is noted where it happened");
    home.run(&["journal", "show", "last"]).exits(0).shows(&["second", "run ended: ok"]);
    home.run(&["journal", "verify"]).exits(0).shows(&["the chain is whole"]);
}

// ── pruning ──

#[test]
fn prune_exports_removes_and_leaves_a_chain_that_verifies() {
    let home = Home::new();
    for name in ["a", "b"] {
        home.run(&["--yes", "-e", &home.touch(name)]).exits(0);
    }
    home.run(&["journal", "prune", "--before", "90d"]).exits(0).shows(&["nothing that old may go"]);
    home.run(&["journal", "prune", "--before", "next week"]).exits(2).says(&["is no time", "90d"]);
    home.run(&["journal", "prune", "--before", "0d"]).exits(3).says(&["8 records of 2", "nothing was pruned", "--yes"]);
    let done = home.run(&["journal", "prune", "--before", "0d", "--yes"]).exits(0);
    done.shows(&["pruned 8 records of 2 runs; they are in ", "pruned-1-8.jsonl"]);
    let file = home.state().join("pruned-1-8.jsonl");
    let exported = std::fs::read_to_string(&file).unwrap();
    assert!(mode(&file) == 0o600 && exported.lines().count() == 9, "{exported}");
    home.run(&["-e", "1"]).exits(0);
    let verified = home.run(&["journal", "verify"]).exits(0);
    verified.shows(&["3 records, 0 changes, after 8 that were pruned: the chain is whole"]);
    assert_eq!(home.runs().len(), 1);
    at_a_terminal(&home, &["journal", "prune", "--before", "0d"], "y").exits(0).shows(&["pruned 3 records of 1 runs"]);
    home.run(&["journal", "verify"]).exits(0).shows(&["1 records", "after 11 that were pruned"]);
}

// ── many at once ──

#[test]
fn two_programs_and_a_third_writer_lose_no_record() {
    const EACH: usize = 40;
    let home = Home::new();
    home.run(&["-e", "1"]).exits(0);
    let code = |name: &str| format!("for i in 0..{EACH} {{ host(\"local\").run([\"true\", \"{name}\", i]) }}");
    let spawn = |name| home.command(None, &["--yes", "-e", &code(name)]).spawn().unwrap();
    let running = [spawn("one"), spawn("two")];
    let mut third = rusqlite::Connection::open(home.database()).unwrap();
    third.busy_timeout(Duration::from_secs(5)).unwrap();
    third.execute_batch("CREATE TABLE stranger (n INTEGER)").unwrap();
    for n in 0..300 {
        let writing = third.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
        writing.execute("INSERT INTO stranger VALUES (?1)", [n]).unwrap();
        writing.commit().unwrap();
    }
    for child in running {
        let ran = Ran::of(child.wait_with_output().unwrap()).exits(0);
        assert!(!ran.err.contains("locked") && !ran.err.contains("NOT RECORDED"), "{}", ran.err);
    }
    let expected = format!("{} records, {} changes: the chain is whole", 2 + 2 * (2 + 2 * EACH), 2 * EACH);
    home.run(&["journal", "verify"]).exits(0).shows(&[&expected]);
}

#[test]
fn a_writer_that_keeps_the_lock_makes_reads_unrecorded_and_changes_spill() {
    let home = Home::new();
    home.run(&["-e", "1"]).exits(0);
    let holder = rusqlite::Connection::open(home.database()).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let started = Instant::now();
    let code = home.touch("x");
    let refused = home.run(&["--yes", "-e", &code]).exits(1);
    let waited = started.elapsed();
    assert!(waited > Duration::from_secs(5), "it waits for its turn: {waited:?}");
    assert!(waited < Duration::from_secs(9), "the whole run waits once: {waited:?}");
    refused.says(&["NOT RECORDED", "another program has kept its lock", "host.run was not done on local"]);
    let code = format!("{}; {}; {READ}", home.touch("a"), home.touch("b"));
    home.run(&["--yes", "--spill", "-e", &code]).exits(0).says(&["not in the journal"]);
    holder.execute_batch("ROLLBACK").unwrap();
    next_one_brings_it_in(&home);
}

#[test]
fn the_result_on_the_host_stays_when_the_end_can_be_recorded_nowhere() {
    let home = Home::new();
    let script =
        r#"for end in "" -wal; do mv "$1/journal.db$end" "$1/aside.db$end"; done; rmdir "$2"; touch "$2" "$1/spill""#;
    let words = [home.state(), home.path("tmp")].map(|path| path.display().to_string());
    let code = format!("host(\"local\").sh({}, {})", serde_json::json!(script), serde_json::json!(words));
    home.run(&["--yes", "-e", &code]).exits(1).says(&["ended ok, and that is not recorded"]);
    for end in ["", "-wal"] {
        let name = |name: &str| home.state().join(format!("{name}{end}"));
        std::fs::rename(name("aside.db"), name("journal.db")).unwrap();
    }
    home.run(&["undo", "last", "--yes"]).says(&["it ended with 0 on local: it happened"]);
}

// ── killed at any moment ──

const EFFECTS: usize = 50;

/// Small, and the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

/// A script of [`EFFECTS`] changes, each a step that adds its number to the file `done`.
fn script(home: &Home) -> String {
    let (done, path) = (home.path("done").display().to_string(), home.path("fifty.rhai"));
    let change = format!("host(\"local\").sh(\"echo $1 >>\\\"$2\\\"\", [`${{i}}`, \"{done}\"])");
    std::fs::write(&path, format!("for i in 0..{EFFECTS} {{ step(`${{i}}`, || {change}) }}\n")).unwrap();
    path.display().to_string()
}

/// Starts the script, reads what it says until effect `k` begins and `bytes` more, then `spin` longer, and kills it.
/// Returns true if it was still there to be killed.
fn kill_at(home: &Home, script: &str, k: u64, bytes: u64, spin: Duration) -> bool {
    let mut child = home.command(None, &["--yes", script]).stdout(Stdio::null()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let (mut begun, mut line) = (0, String::new());
    while begun < k && said.read_line(&mut line).unwrap() > 0 {
        begun += u64::from(line.starts_with('→'));
        line.clear();
    }
    let _ = said.by_ref().take(bytes).read_to_end(&mut Vec::new());
    let started = Instant::now();
    while started.elapsed() < spin {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap().signal() == Some(libc::SIGKILL)
}

/// What the next opsh finds: never a change without its `started`, never two ends, what is open is unknown, the chain verifies.
/// False when it was killed before its run was recorded; `before` is the newest run until then.
fn check(home: &Home, before: Option<&Value>, k: u64, at: &str) -> bool {
    home.run(&["-e", "1"]).exits(0);
    let runs = home.runs();
    let Some(run) = runs.get(1).filter(|run| before.is_none_or(|before| run["run"] != before["run"])) else {
        assert!(k == 0, "{at}: a change was announced, and its run has no record");
        assert!(!home.path("done").exists(), "{at}: a change of a run that has no record");
        return false;
    };
    let records = home.records(run["run"].as_str().unwrap());
    let of = |kind: &str| records.iter().filter(|record| record["kind"] == kind).collect::<Vec<_>>();
    let number = |record: &Value| record["body"]["args"].to_string();
    let begun: Vec<String> = of("effect.begin").into_iter().map(number).collect();
    let done = std::fs::read_to_string(home.path("done")).unwrap_or_default();
    for line in done.lines() {
        let told = begun.iter().filter(|args| args.contains(&format!("\"{line}\""))).count();
        assert_eq!(told, 1, "{at}: change {line} was begun {told} times: {begun:?}");
    }
    let mut ended: Vec<&str> = of("effect.end").into_iter().map(|record| record["effect"].as_str().unwrap()).collect();
    let ends = ended.len();
    ended.sort_unstable();
    ended.dedup();
    assert_eq!((ended.len(), ends), (begun.len(), begun.len()), "{at}: one end for each begin");
    let unknown = of("effect.end").into_iter().filter(|record| record["body"]["outcome"] == "unknown").count();
    assert!(unknown <= 1 && run["unknown"] == unknown, "{at}: one effect goes on at a time: {run}");
    assert!(done.lines().count() + unknown >= begun.len(), "{at}: what ended well has happened");
    home.run(&["journal", "verify"]).exits(0).shows(&["the chain is whole"]);
    true
}

/// A resume of the killed run does what it did not do. The step that was cut short may be done again.
fn finish(home: &Home, at: &str) {
    let killed = home.runs()[1].clone();
    if killed["outcome"] != "killed" {
        return;
    }
    let run = killed["run"].as_str().unwrap().to_string();
    let patience = Instant::now() + Duration::from_secs(30);
    let resumed = loop {
        let ran = home.run(&["--yes", "resume", &run]);
        // The change that was cut off from its opsh may still be at it.
        if !ran.err.contains("still runs") || Instant::now() > patience {
            break ran;
        }
    };
    assert_eq!(resumed.code, Some(0), "{at}: {resumed:?}");
    let done = std::fs::read_to_string(home.path("done")).unwrap();
    let mut numbers: Vec<usize> = done.lines().map(|line| line.parse().unwrap()).collect();
    let lines = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (0..EFFECTS).collect::<Vec<_>>(), "{at}: resume finishes it");
    assert!(lines <= EFFECTS + 1, "{at}: at most the step that was cut short is done twice: {lines}");
    home.run(&["journal", "verify"]).exits(0).shows(&["the chain is whole"]);
}

#[test]
fn killed_at_any_moment_no_change_lacks_its_beginning_none_has_two_ends_and_resume_finishes_it() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    // OPSH_KILLS: `tests/run --full` sets 1000. OPSH_SEED: a failure names it.
    let (seed, kills) = (number("OPSH_SEED").unwrap_or_else(clock) | 1, number("OPSH_KILLS").unwrap_or(50));

    let home = Home::new();
    let started = Instant::now();
    home.run(&["--yes", &script(&home)]).exits(0);
    let per_effect = started.elapsed() / EFFECTS as u32;
    assert!(check(&home, None, 0, "not killed"));

    // A journal that has seen deaths before is the harder case; a new one now and then, since a longer one takes longer
    // to verify, and some of them at once keep it fast.
    let next = std::sync::atomic::AtomicU64::new(0);
    let worker = || {
        let (mut home, mut seen, mut killed) = (Home::new(), 0, 0);
        loop {
            let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if n >= kills {
                return killed;
            }
            seen += 1;
            if seen % 10 == 0 {
                home = Home::new();
            }
            let mut random = Random(seed.wrapping_mul(n * 2 + 1) | 1);
            random.below(1);
            let (k, bytes) = (random.below(EFFECTS as u64 + 1), random.below(120));
            let spin = Duration::from_micros(random.below(per_effect.as_micros() as u64));
            let _ = std::fs::remove_file(home.path("done"));
            let before = home.runs().into_iter().next();
            killed += u64::from(kill_at(&home, &script(&home), k, bytes, spin));
            let at = format!("seed {seed}, kill {n}: effect {k}, {bytes} bytes, {spin:?}");
            if check(&home, before.as_ref(), k, &at) {
                finish(&home, &at);
            }
        }
    };
    let killed: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..6).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    let line = format!(
        "killed {killed} of {kills} runs of {EFFECTS} changes, seed {seed}: every journal is whole, every run was finished\n"
    );
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    assert!(killed > kills / 2, "{line}");
}
