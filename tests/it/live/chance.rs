//! Two operators of one real stack by chance: a seed draws what they do, when one of them is stopped, and when one is killed.
//! After each choice the server itself tells what is true, and then what the other operator is shown is compared with it:
//! nobody changes the stack under the other's lock without the name, nothing that changes it is proposed while somebody works,
//! and what was killed is the first thing that the other one sees.
//!
//! `OPSH_SEED` repeats a run; `OPSH_CHANCE_S` makes it go on for so many seconds (`tests/run --full` sets 600).

use super::lab::{Dice, Lab, Release, poll};
use super::opsh::{OPSH, Opsh, ROLLBACK, Ran, Running};
use super::rollback::assert_serves;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

/// Choices of the short run.
const CHOICES: usize = 8;
/// The two operators.
const NAMES: [&str; 2] = ["alice", "bob"];
const RESTART: &str = "stack(\"prod\").restart(\"backend\")";
/// A file of marks on the server: what was changed there, in order.
const MARKS: &str = "/var/tmp/opsh-chance";

/// What somebody is at.
enum Kind {
    /// A script that waits for a line in the pipe; `locked` has the lock meanwhile.
    Job { locked: bool, pipe: File },
    /// A rollback or deploy, stopped at a drawn record.
    Roll,
    /// An undo or a resumption of another run, stopped at a drawn record.
    Back { of: String },
}

struct Work<'a> {
    who: usize,
    kind: Kind,
    run: String,
    opsh: Running<'a>,
    /// Choices since it began: a stopped opsh loses its lock after a minute of silence.
    choices: usize,
}

/// What the stack's folder on the server says, read without opsh.
#[derive(Debug, Default)]
struct Host {
    /// Somebody has the lock.
    is_locked: bool,
    /// What somebody left running goes on.
    works: bool,
    /// The run in `lock.json`, and whose it is.
    holder: String,
    by: String,
    /// Runs with an open intent, and whether its opsh lives.
    open: BTreeMap<String, bool>,
    /// Runs whose intents were closed.
    closed: BTreeSet<String>,
}

/// A run that was killed or failed, and is not settled.
struct Open {
    who: usize,
    run: String,
    is_script: bool,
}

struct Table<'a> {
    lab: &'a Lab,
    homes: [&'a Opsh<'a>; 2],
    dice: Dice,
    tags: [String; 3],
    work: Option<Work<'a>>,
    open: Vec<Open>,
    marks: String,
    jobs: usize,
    /// How often each sort of choice was made.
    made: BTreeMap<String, usize>,
    log: Vec<String>,
}

impl<'a> Table<'a> {
    fn note(&mut self, sort: &str, about: &str) {
        *self.made.entry(sort.into()).or_default() += 1;
        self.log.push(format!("{sort} {about}"));
    }

    fn start(&self, who: usize, words: &[&str]) -> Running<'a> {
        self.homes[who].start_with(&[OPSH], words, &[("USER", NAMES[who])])
    }

    fn run(&self, who: usize, words: &[&str]) -> Ran {
        self.start(who, words).wait()
    }

    // ── the journal of an operator, read while it grows ──

    fn journal<T>(&self, who: usize, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        let path = self.homes[who].state_dir().join("journal.db");
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(|base| read(&base)).ok()
    }

    /// The last record's number.
    fn mark(&self, who: usize) -> i64 {
        self.journal(who, |base| base.query_row("SELECT max(seq) FROM journal", [], |row| row.get(0))).unwrap_or(0)
    }

    /// The first run that began after a mark, how many records it has, and how many of its changes have ended.
    fn grown(&self, who: usize, mark: i64) -> Option<(String, usize, usize)> {
        let first = "SELECT run FROM journal WHERE kind = 'run.start' AND seq > ?1 ORDER BY seq LIMIT 1";
        let count = "SELECT count(*), coalesce(sum(kind = 'effect.end'), 0) FROM journal WHERE run = ?1";
        self.journal(who, |base| {
            let run: String = base.query_row(first, [mark], |row| row.get(0))?;
            let (all, ended): (i64, i64) = base.query_row(count, [&run], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok((run, all as usize, ended as usize))
        })
    }

    // ── the server ──

    fn host(&self) -> Host {
        const LOOK: &str = r#"cd /opt/vrcshift/.opsh 2>/dev/null || exit 0
            flock -sn lock true && echo free || echo locked
            flock -xn work.lock true && echo idle || echo works
            [ ! -e lock.json ] || sed 's/^/holder /' lock.json
            for file in intent-*.jsonl; do
              [ -e "$file" ] || continue
              state=alive; ! flock -xn "$file" true || state=left
              printf '%s ' $state; head -n 1 "$file"
            done
            for file in intent-*.done; do [ ! -e "$file" ] || { printf 'closed '; head -n 1 "$file"; }; done"#;
        let mut host = Host::default();
        for line in self.lab.exec(&["sh", "-uc", LOOK]).lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let value: Value = serde_json::from_str(rest).unwrap_or_default();
            let run = || value["run"].as_str().unwrap_or_default().to_string();
            match word {
                "locked" => host.is_locked = true,
                "works" => host.works = true,
                "holder" => {
                    let of = |key: &str| value["holder"][key].as_str().unwrap_or_default().to_string();
                    (host.holder, host.by) = (of("run"), of("by"));
                }
                "alive" | "left" => drop(host.open.insert(run(), word == "alive")),
                "closed" => drop(host.closed.insert(run())),
                _ => {}
            }
        }
        host
    }

    /// What the lock protects. `whole`: with what runs; without, only what the operators themselves write.
    fn facts(&self, whole: bool) -> Value {
        let files = format!(
            "cat /opt/vrcshift/.opsh/releases.jsonl /opt/vrcshift/.opsh/changes.jsonl {MARKS} 2>/dev/null || true"
        );
        let files = self.lab.sh(&files);
        if !whole {
            return json!(files);
        }
        let mut state = self.lab.state();
        for answer in ["api_status", "health_status"] {
            state[answer] = Value::Null;
        }
        let started = "docker ps -aq --no-trunc | xargs docker inspect -f '{{.Id}} {{.State.StartedAt}} {{.State.Status}}' | sort; \
                       docker images --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}' | sort";
        json!({ "files": files, "state": state, "started": self.lab.sh(started) })
    }

    // ── what they do ──

    fn mark_line(word: &str) -> String {
        format!("host(\"prod-1\").sh(\"echo \\\"$1\\\" >>{MARKS}\", [{}])", json!(word))
    }

    fn job(&mut self, who: usize, locked: bool) {
        self.jobs += 1;
        let (home, name) = (self.homes[who], format!("job {}", self.jobs));
        let path = home.file(&format!("pipe{}", self.jobs));
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let pipe = File::options().read(true).write(true).open(&path).unwrap();
        let wait = format!(
            "host(\"local\").read([\"head\", \"-n\", \"1\", {}], #{{ within_s: 600 }})",
            json!(path.display().to_string())
        );
        let code = match locked {
            true => format!("stack(\"prod\").locked({}, || {{ {}; {wait} }})", json!(name), Self::mark_line(&name)),
            false => format!("{RESTART}; {wait}"),
        };
        let mark = self.mark(who);
        let mut opsh = self.start(who, &["--yes", "-e", &code]);
        poll("the job's change is made", 60, || {
            assert!(!opsh.is_over(), "the job ended early");
            self.grown(who, mark).is_some_and(|(.., ended)| ended > 0)
        });
        if locked {
            self.marks += &format!("{name}\n");
        }
        let run = self.grown(who, mark).unwrap().0;
        self.note(if locked { "locked job" } else { "restart without the lock" }, &format!("{} {run}", NAMES[who]));
        self.work = Some(Work { who, kind: Kind::Job { locked, pipe }, run, opsh, choices: 0 });
    }

    /// Starts it, and stops it at a record.
    fn stopped(&mut self, who: usize, words: &[&str], kind: Kind, most: usize) {
        let (record, mark) = (1 + self.dice.below(most), self.mark(who));
        let mut opsh = self.start(who, words);
        poll("a record is written", 120, || {
            opsh.is_over() || self.grown(who, mark).is_some_and(|(_, count, _)| count >= record)
        });
        let is_over = opsh.is_over();
        if !is_over {
            opsh.signal(libc::SIGSTOP);
        }
        let run = self.grown(who, mark).map(|grown| grown.0).unwrap_or_default();
        self.log.push(format!("{} {words:?} {run}, stopped at record {record}: {}", NAMES[who], !is_over));
        self.work = Some(Work { who, kind, run, opsh, choices: 0 });
        if is_over {
            self.end();
        }
    }

    fn roll(&mut self, who: usize) {
        let tag = self.tags[self.dice.below(3)].clone();
        let script = [ROLLBACK, "scripts/deploy.rhai"][self.dice.below(2)];
        self.note(if script == ROLLBACK { "rollback" } else { "deploy" }, &tag);
        self.stopped(who, &["--yes", script, &tag], Kind::Roll, 90);
    }

    fn end(&mut self) {
        let Some(mut work) = self.work.take() else { return };
        match &mut work.kind {
            Kind::Job { pipe, .. } => pipe.write_all(b"go\n").unwrap(),
            // One that is over has nothing to hear.
            _ if !work.opsh.is_over() => work.opsh.signal(libc::SIGCONT),
            _ => {}
        }
        poll("it ends", 120, || work.opsh.is_over());
        let ran = work.opsh.wait();
        self.note("an end", &format!("{} {:?}", work.run, ran.code));
        self.ended(work.who, work.kind, work.run, ran);
    }

    fn ended(&mut self, who: usize, kind: Kind, run: String, ran: Ran) {
        poll("what was left running ends", 120, || !self.host().works);
        let host = self.host();
        let Kind::Back { of } = kind else {
            // One that was stopped may have passed a deadline meanwhile, that of its login among them.
            if matches!(kind, Kind::Roll) && [Some(1), Some(4)].contains(&ran.code) {
                self.note("an end past a deadline", ran.err.lines().last().unwrap_or_default());
                return self.adopt(&host, who, run, true);
            }
            ran.exits(0);
            return;
        };
        assert!([Some(0), Some(1), Some(3), Some(4), Some(5)].contains(&ran.code), "{ran:?}");
        let went_back = ran.code == Some(0) && !ran.out.contains("nothing to undo");
        *self.made.entry(format!("  that exits {}", ran.code.unwrap())).or_default() += 1;
        if went_back {
            assert!(!host.open.contains_key(&of), "{of} stays open: {ran:?}");
        }
        self.log.push(format!(
            "   {}",
            ran.err.lines().filter(|line| !line.contains('│')).collect::<Vec<_>>().join("\n   ")
        ));
        self.adopt(&host, who, run, false);
        self.open.retain(|open| open.run != of || host.open.contains_key(&of));
    }

    /// What a run left open on the server is known from now on.
    fn adopt(&mut self, host: &Host, who: usize, run: String, is_script: bool) {
        if host.open.contains_key(&run) {
            self.open.push(Open { who, run, is_script });
        }
    }

    fn kill(&mut self) {
        let Some(work) = self.work.take() else { return };
        let other = 1 - work.who;
        let is_script = matches!(work.kind, Kind::Roll);
        work.opsh.signal(libc::SIGKILL);
        assert_eq!(work.opsh.wait().signal, Some(libc::SIGKILL));
        self.note("a kill", &work.run);
        let by = format!("{}@", NAMES[work.who]);
        poll("the lock is free again", 60, || !self.host().is_locked);
        // What was left running is told until it ends, and what was begun after it.
        let (before, first) = (self.host(), self.first(other));
        if before.works {
            let said = [format!("LOCKED by what {by}"), format!("BEGUN by {by}")];
            assert!(said.iter().any(|said| first.starts_with(said)), "{first}: {before:?}");
        }
        poll("what was left running ends", 120, || !self.host().works);
        let host = self.host();
        if let Some((_, _, ended)) = self.grown_of(work.who, &work.run)
            && ended > 0
        {
            let is_known = host.open.contains_key(&work.run) || host.closed.contains(&work.run);
            assert!(is_known, "{} changed something, and the server knows nothing of it: {host:?}", work.run);
        }
        if host.open.contains_key(&work.run) {
            let first = self.first(other);
            assert!(first.starts_with(&format!("BEGUN by {by}")), "{first}");
        }
        if let Kind::Back { of } = &work.kind {
            self.open.retain(|open| open.run != *of || !host.closed.contains(of));
        }
        self.adopt(&host, work.who, work.run, is_script);
    }

    fn grown_of(&self, who: usize, run: &str) -> Option<(String, usize, usize)> {
        let begun: i64 = self
            .journal(who, |base| base.query_row("SELECT min(seq) FROM journal WHERE run = ?1", [run], |row| row.get(0)))
            .unwrap_or(1);
        self.grown(who, begun - 1)
    }

    /// A change by the other one while somebody works.
    fn intrude(&mut self) {
        let Some(work) = &self.work else { return };
        let (other, run, is_job) = (1 - work.who, work.run.clone(), matches!(work.kind, Kind::Job { .. }));
        let before = self.host();
        let held = before.is_locked && before.holder == run;
        let by = format!("{}@", NAMES[work.who]);
        let named = held && self.dice.below(4) == 0;
        let whole = !before.works;
        let facts = self.facts(whole);
        if !held || named {
            // Under a rollback that is in the middle a restart would be a quarrel about the container.
            let mark = self.dice.below(2) == 0 || !is_job;
            let code = if mark { Self::mark_line("intruder") } else { RESTART.into() };
            let flag = ["--under-lock-of", &before.by];
            let ran =
                self.run(other, &[if named { &flag[..] } else { &[] }, &["--yes", "-e", &code]].concat()).exits(0);
            let is_told =
                before.open.get(&run) != Some(&true) || named || ran.err.contains(&format!("WORKED ON by {by}"));
            assert!(is_told, "{}", ran.err);
            if mark {
                self.marks += "intruder\n";
            }
            return self.note(if named { "intrusion with the name" } else { "change beside unlocked work" }, &code);
        }
        let to = self.tags[self.dice.below(3)].clone();
        let commit = self.lab.exec(&["git", "-C", "/srv/git/vrcshift.git", "rev-parse", &format!("{to}^{{commit}}")]);
        let commit = commit.trim();
        let code = match self.dice.below(8) {
            0 => RESTART.into(),
            1 => "stack(\"prod\").recreate(\"backend\")".into(),
            2 => "stack(\"prod\").stop(\"backend\")".into(),
            3 => format!("stack(\"prod\").repo.checkout(\"{commit}\")"),
            4 => format!(
                "stack(\"prod\").record_release(#{{ tag: \"{to}\", commit: \"{commit}\", how: \"deploy\", image_id: \"sha256:0\" }})"
            ),
            5 => Self::mark_line("intruder"),
            6 => ROLLBACK.into(),
            _ => "scripts/deploy.rhai".into(),
        };
        let words = if code.ends_with(".rhai") { vec!["--yes", &code, &to] } else { vec!["--yes", "-e", &code] };
        let ran = self.run(other, &words);
        let after = self.host();
        if !(after.is_locked && after.holder == run) {
            return self.note("intrusion that outlasted the lock", &format!("{code}: {:?}", ran.code));
        }
        let ran = ran.exits(3);
        assert!(ran.err.to_lowercase().contains(&format!("locked by {by}")), "{}", ran.err);
        assert!(ran.err.contains("nothing changed"), "{}", ran.err);
        assert_eq!(self.facts(whole), facts, "{code} changed something");
        self.only_looks(other, &ran.hints());
        self.note("intrusion without the name", &code);
    }

    fn settle(&mut self, how: usize) {
        let Some(last) = self.open.len().checked_sub(1) else { return };
        let at = self.dice.below(last + 1);
        let (who, run, is_script) = (self.open[at].who, self.open[at].run.clone(), self.open[at].is_script);
        match how {
            0 => {
                let who = self.dice.below(2);
                let code = format!("stack(\"prod\").settle_intent({}, \"looked\")", json!(run));
                self.run(who, &["--yes", "-e", &code]).exits(0);
                self.open.remove(at);
                self.note("settle_intent", &run);
            }
            1 if is_script => {
                self.note("resume", &run);
                self.stopped(who, &["resume", &run, "--yes"], Kind::Back { of: run.clone() }, 120);
            }
            _ => {
                self.note("undo", &run);
                self.stopped(who, &["undo", &run, "--yes"], Kind::Back { of: run.clone() }, 60);
            }
        }
    }

    // ── what they see ──

    /// None of these lines changes anything.
    fn only_looks(&self, who: usize, lines: &[String]) {
        let lines = json!(lines.iter().filter(|line| !line.starts_with("usage:")).collect::<Vec<_>>());
        let changing = self.homes[who].eval(&format!("{lines}.filter(|line| !only_looks(line))"));
        assert_eq!(changing, json!([]), "proposed while somebody works");
    }

    /// The first thing that `status` shows, after all that it proposes was looked at.
    fn first(&self, who: usize) -> String {
        let seen = self.homes[who].eval("stack(\"prod\").status()");
        let host = self.host();
        let first = seen["wrong"][0]["why"].as_str().unwrap_or_default().to_string();
        let all = seen["wrong"].as_array().unwrap().iter();
        let lines = all.flat_map(|one| [&one["next"]].into_iter().chain(one["also"].as_array().into_iter().flatten()));
        let lines: Vec<String> = lines.filter_map(|line| line.as_str().map(String::from)).collect();
        if host.is_locked || host.works || host.open.values().any(|alive| *alive) {
            self.only_looks(who, &lines);
        } else if !self.open.is_empty() {
            let told = format!("{first} {}", seen["wrong"][0]);
            let count = self.open.iter().filter(|open| told.contains(&open.run)).count();
            let more = format!("{} more", self.open.len() - count);
            assert!(count == self.open.len() || told.contains(&more), "{count} of {}: {told}", self.open.len());
        }
        first
    }

    /// A look by the other one, with `doctor` or a plan besides.
    fn look(&mut self) {
        let who = self.work.as_ref().map_or_else(|| self.dice.below(2), |work| 1 - work.who);
        let before = self.host();
        let facts = self.facts(!before.works);
        let tag = self.tags[self.dice.below(3)].clone();
        if self.dice.below(2) == 0 {
            let ran = self.run(who, &["doctor"]);
            let typed = ran.out.lines().filter_map(|line| line.trim_start().strip_prefix("type: "));
            let hints: Vec<String> = typed.map(String::from).chain(ran.hints()).collect();
            if self.work.as_ref().is_some_and(|work| before.open.get(&work.run) == Some(&true) || before.is_locked) {
                self.only_looks(who, &hints);
            }
            self.note("doctor", NAMES[who]);
        } else {
            let ran = self.run(who, &["--plan", ROLLBACK, &tag]);
            assert!([Some(0), Some(1)].contains(&ran.code), "{ran:?}");
            if before.is_locked && self.work.is_some() {
                assert!(ran.err.contains("LOCKED by"), "{}", ran.err);
                self.only_looks(who, &ran.hints());
            }
            self.note("plan", &tag);
        }
        assert_eq!(self.facts(!before.works), facts, "a look changed something");
    }

    /// The server and what is shown agree with what is known here.
    fn check(&self) {
        let host = self.host();
        let known: BTreeSet<&str> = self.open.iter().map(|open| open.run.as_str()).collect();
        let work = self.work.as_ref();
        let left: BTreeSet<&str> =
            host.open.keys().map(String::as_str).filter(|run| work.is_none_or(|work| work.run != *run)).collect();
        assert_eq!(left, known, "{host:?}");
        assert_eq!(self.lab.sh(&format!("cat {MARKS} 2>/dev/null || true")), self.marks);
        let Some(work) = work else {
            assert!(!host.is_locked && host.open.values().all(|alive| !alive), "{host:?}");
            // Whoever did it or not.
            let first = self.first(self.jobs % 2);
            let is_begun = first.starts_with("BEGUN by");
            assert_eq!(is_begun, !self.open.is_empty(), "{first}");
            return;
        };
        let first = self.first(1 - work.who);
        let by = format!("{}@", NAMES[work.who]);
        let has_begun = host.open.get(&work.run) == Some(&true);
        if let Kind::Job { locked, .. } = work.kind {
            assert!(has_begun && host.is_locked == locked, "{host:?}");
        }
        if host.is_locked && host.holder == work.run {
            assert!(first.starts_with(&format!("LOCKED by {by}")), "{first}");
        } else if has_begun && !host.works {
            assert!(first.starts_with(&format!("WORKED ON by {by}")), "{first}");
        }
    }

    fn choose(&mut self) {
        let who = self.dice.below(2);
        let draw = self.dice.below(10);
        let is_stopped = self.work.as_ref().is_some_and(|work| !matches!(work.kind, Kind::Job { .. }));
        let choices = self.work.as_mut().map_or(0, |work| {
            work.choices += 1;
            work.choices
        });
        match (self.work.is_some(), draw) {
            (true, _) if is_stopped && choices > 1 && draw < 5 => self.end(),
            (true, _) if is_stopped && choices > 1 => self.kill(),
            (true, 0..=2) => self.kill(),
            (true, 3..=6) => self.intrude(),
            (true, 7) => self.look(),
            (true, _) => self.end(),
            (false, 0..=1) => self.job(who, true),
            (false, 2) => self.job(who, false),
            (false, 3) => self.look(),
            (false, 4) => {
                self.run(who, &["--yes", "-e", RESTART]).exits(0);
                self.note("restart", NAMES[who]);
            }
            (false, 5..=7) if !self.open.is_empty() => self.settle(draw - 5),
            (false, _) => self.roll(who),
        }
    }

    /// Everything is ended, and settled or undone; the stack serves one release.
    fn finish(&mut self, good: &Release, before: &Value) {
        self.end();
        for how in [2, 0] {
            for _ in 0..self.open.len() {
                self.settle(how);
                self.end();
            }
        }
        while !self.open.is_empty() {
            self.settle(0);
        }
        self.check();
        self.run(0, &["--yes", ROLLBACK, &good.tag]).exits(0);
        assert_serves(self.lab, good, before);
        for (who, home) in self.homes.iter().enumerate() {
            assert_eq!(home.eval("stack(\"prod\").lock()"), Value::Null);
            self.run(who, &["journal", "verify"]).exits(0).prints(&["the chain is whole"]);
        }
        let left = "docker ps -aq --filter label=opsh.once; ls -A /opt/vrcshift/.git/opsh 2>/dev/null || true";
        assert_eq!(self.lab.sh(left), "", "nothing of opsh is left on the server");
    }
}

#[test]
fn two_operators_by_chance_never_put_each_other_out() {
    let Some(lab) = Lab::take() else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("OPSH_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let full = number("OPSH_CHANCE_S").map(Duration::from_secs);
    let added = lab.bring("ADDITIVE");
    let _clean = lab.afterwards(&format!("rm -rf {MARKS} /root/.local/state/opsh/runs"));
    lab.sh(&format!("rm -f {MARKS}"));
    lab.sql(&format!("INSERT INTO shifts ({}) VALUES ('before it all')", lab.setting("COLUMN")));
    let (alice, bob, before) = (Opsh::new(&lab), Opsh::new(&lab), lab.state());
    let tags = ["OLD", "GOOD", "ADDITIVE"].map(|which| lab.release(which).tag);
    let mut table = Table {
        lab: &lab,
        homes: [&alice, &bob],
        dice: Dice(seed),
        tags,
        work: None,
        open: Vec::new(),
        marks: String::new(),
        jobs: 0,
        made: BTreeMap::new(),
        log: Vec::new(),
    };
    let (began, mut done) = (Instant::now(), 0);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        while full.map_or(done < CHOICES, |full| began.elapsed() < full) {
            table.choose();
            table.check();
            done += 1;
        }
        // Newer migrations only add: they stay, whatever serves.
        let good = Release { ledger: added.ledger.clone(), ..lab.release("GOOD") };
        table.finish(&good, &before);
        assert_eq!(lab.state()["rows"], before["rows"]);
    }));
    let _ = writeln!(std::io::stderr(), "chance: OPSH_SEED={seed}: {done} choices: {:#?}", table.made);
    if let Err(error) = result {
        let why = error.downcast_ref::<String>().map_or("", String::as_str);
        panic!("OPSH_SEED={seed} after {done} choices:\n{}\n{why}", table.log.join("\n"));
    }
}
