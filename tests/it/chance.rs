//! Two operators by chance: one stack behind an sshd, and choices that a seed draws. Whatever they do, nobody changes the stack
//! under the other's lock without the name, nothing that changes it is proposed while somebody works, and what was killed is the
//! first thing that the other one sees.
//!
//! `OPSH_SEED` repeats a run; `OPSH_CHANCE_S` makes it go on for so many seconds (`tests/run --full` sets 600).

use crate::lock::{Running, Stage, value};
use crate::processes::until;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

/// Choices of the short run.
const CHOICES: usize = 14;

struct Draw(u64);

impl Draw {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// Somebody at work, in the middle.
struct Work {
    who: &'static str,
    locked: bool,
    name: String,
    pipe: File,
    opsh: Running,
}

struct Table {
    stage: Stage,
    work: Option<Work>,
    /// Runs that were killed and not settled, by what they were for.
    open: Vec<String>,
    /// Marks that must have been written.
    count: String,
    number: usize,
}

impl Table {
    fn begin(&mut self, who: &'static str, locked: bool) {
        self.number += 1;
        let (name, path) = (format!("job {}", self.number), self.stage.file(&format!("pipe{}", self.number)));
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let pipe = File::options().read(true).write(true).open(&path).unwrap();
        let wait = format!("host(\"local\").read([\"head\", \"-n\", \"1\", {}])", json!(path.display().to_string()));
        // A change of the stack itself takes the lock for as long as it is made; one of the host has an intent within it.
        let code = match locked {
            true => format!("prod.locked({}, || {{ mark({}); {wait} }})", json!(name), json!(name)),
            false => format!(
                "prod.record_release(#{{ tag: {}, commit: \"0123456789012345678901234567890123456789\", how: \"deploy\", \
                 image_id: \"sha256:0\" }}); {wait}",
                json!(name)
            ),
        };
        let mut opsh = self.stage.start(who, &[], &code);
        opsh.says(if locked { "✓ host.sh" } else { "✓ release.record" });
        if locked {
            self.count += &format!("{name}\n");
        }
        self.work = Some(Work { who, locked, name, pipe, opsh });
    }

    fn end(&mut self) {
        let Some(mut work) = self.work.take() else { return };
        work.pipe.write_all(b"go\n").unwrap();
        work.opsh.ended().exits(0);
    }

    fn kill(&mut self) {
        let Some(work) = self.work.take() else { return };
        let is_it = |open: &Value| open["what"].as_str().is_some_and(|what| what.contains(&work.name));
        work.opsh.kill();
        let other = if work.who == "alice" { "bob" } else { "alice" };
        until("the other one sees what was left", || {
            let seen = self.lock(other);
            let left = seen["open"].as_array().and_then(|open| open.iter().find(|one| is_it(one)).cloned())?;
            (left["alive"] == json!(false) && seen["state"] == "left").then_some(())
        });
        self.open.push(work.name);
        let first = self.first(other);
        assert!(first.starts_with(&format!("BEGUN by {}@", work.who)), "{first}");
    }

    fn lock(&self, who: &str) -> Value {
        let ran = self.stage.run(who, &["--json"], "prod.lock()").exits(0);
        if ran.out.trim().is_empty() { Value::Null } else { value(&ran) }
    }

    /// The first thing that `status` shows, after all that it proposes was looked at.
    fn first(&self, who: &str) -> String {
        let seen = value(&self.stage.run(who, &["--json"], "prod.status()").exits(0));
        for next in seen["wrong"].as_array().unwrap().iter().filter_map(|one| one["next"].as_str()) {
            let words = ["start(", "thaw(", "restart(", "recreate(", "opsh scripts/", "rollback"];
            assert!(!words.iter().any(|word| next.contains(word)), "proposed: {next}");
        }
        seen["wrong"][0]["why"].as_str().unwrap_or_default().to_string()
    }

    /// A change by somebody else while one works.
    fn intrude(&mut self, named: bool) {
        let Some(work) = &self.work else { return };
        let (other, by) = (if work.who == "alice" { "bob" } else { "alice" }, self.lock("bob")["by"].clone());
        let by = by.as_str().unwrap().to_string();
        let flag = ["--under-lock-of", &by];
        let ran = self.stage.run(other, if named { &flag } else { &[] }, "mark(\"intruder\")");
        match work.locked && !named {
            true => drop(ran.exits(3).says(&[&format!("LOCKED by {by}"), "nothing changed"])),
            false => {
                ran.exits(0);
                self.count += "intruder\n";
            }
        }
    }

    fn settle(&mut self, who: &str, at: usize) {
        let seen = self.lock(who);
        let name = self.open.remove(at);
        let is_it = |one: &&Value| {
            one["what"].as_str().is_some_and(|what| {
                what.ends_with(&name) || what.contains(&format!("{name}\"")) || what.contains(&format!("of {name}"))
            })
        };
        let open = seen["open"].as_array().unwrap().iter().find(is_it).unwrap_or_else(|| panic!("{name}: {seen}"));
        let code = format!("prod.settle_intent({}, \"looked\")", open["run"]);
        self.stage.run(who, &[], &code).exits(0);
    }

    /// The host tells both operators what was done.
    fn check(&self) {
        for who in ["alice", "bob"] {
            let seen = self.lock(who);
            let alive = usize::from(self.work.is_some());
            let open = seen["open"].as_array().map_or(0, Vec::len);
            assert_eq!(open, self.open.len() + alive, "{who}: {seen}, left: {:?}", self.open);
            assert_eq!(seen["held"] == json!(true), self.work.as_ref().is_some_and(|work| work.locked), "{seen}");
        }
        assert_eq!(self.stage.counted(), self.count);
    }
}

#[test]
fn two_operators_by_chance_never_put_each_other_out() {
    let Some(stage) = Stage::remote() else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("OPSH_SEED").unwrap_or_else(|| u64::from(std::process::id())) | 1;
    let full = number("OPSH_CHANCE_S").map(Duration::from_secs);
    let mut draw = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut table = Table { stage, work: None, open: Vec::new(), count: String::new(), number: 0 };
    let (began, mut done) = (Instant::now(), Vec::new());
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        while full.map_or(done.len() < CHOICES, |full| began.elapsed() < full) {
            let who = ["alice", "bob"][draw.below(2) as usize];
            let choice = draw.below(8);
            done.push(choice);
            match (table.work.is_some(), choice) {
                (false, 0..=3) => table.begin(who, true),
                (false, 4..=5) => table.begin(who, false),
                (false, _) if !table.open.is_empty() => {
                    let at = draw.below(table.open.len() as u64) as usize;
                    table.settle(who, at);
                }
                (false, _) => {}
                (true, 0..=1) => table.kill(),
                (true, 2..=3) => table.end(),
                (true, 4..=5) => table.intrude(false),
                (true, 6) => table.intrude(true),
                (true, _) => {
                    let other =
                        if table.work.as_ref().is_some_and(|work| work.who == "alice") { "bob" } else { "alice" };
                    let first = table.first(other);
                    assert!(
                        ["LOCKED by", "WORKED ON by", "BEGUN by"].iter().any(|word| first.starts_with(word)),
                        "{first}"
                    );
                }
            }
            table.check();
        }
    }));
    if let Err(error) = result {
        panic!("OPSH_SEED={seed} after {done:?}: {:?}", error.downcast_ref::<String>());
    }
}
