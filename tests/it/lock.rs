//! The lock of a stack: two operators, each with an opsh and a state of his own, and one stack.

use crate::home::{Home, Ran};
use crate::processes::{below, signal, until};
use crate::sshd::Sshd;
use crate::terminal::{SIZES, Terminal};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// A stack on a host, and two operators of it.
pub struct Stage {
    pub alice: Home,
    pub bob: Home,
    server: tempfile::TempDir,
    sshd: Option<Sshd>,
    /// Held open both ways, so that a line that is written waits for whoever reads it.
    pipes: Vec<(&'static str, File)>,
}

/// Says that it began, waits for a line in the pipe `go`, and says that it is over.
const SLOW: &str = "echo began >>\"$1/count\"; read x <\"$1/go\"; echo over >>\"$1/count\"";

impl Stage {
    /// On this machine.
    pub fn local() -> Stage {
        Stage::on(None)
    }

    /// Behind an sshd.
    pub fn remote() -> Option<Stage> {
        Sshd::start().map(|sshd| Stage::on(Some(sshd)))
    }

    fn on(sshd: Option<Sshd>) -> Stage {
        let server = tempfile::tempdir().unwrap();
        let (host, config) = match &sshd {
            Some(sshd) => ("web-1", sshd.host(1, "alive_s = 2")),
            None => ("local", String::new()),
        };
        let config = format!(
            "{config}[stack.prod]\nhost = \"{host}\"\ndir = \"{}\"\ncompose = {{ files = [\"c.yml\"], project = \"p\" }}\n",
            server.path().display()
        );
        let (alice, bob) = (Home::new(), Home::new());
        for home in [&alice, &bob] {
            home.put("opsh.toml", &config);
        }
        let pipe = |name: &'static str| {
            let path = server.path().join(name);
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
            (name, File::options().read(true).write(true).open(path).unwrap())
        };
        let pipes = ["go", "look"].map(pipe).into();
        Stage { alice, bob, server, sshd, pipes }
    }

    pub fn dir(&self) -> String {
        self.server.path().display().to_string()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.server.path().join(name)
    }

    /// Name of the stack's host.
    pub fn host(&self) -> &'static str {
        if self.sshd.is_some() { "web-1" } else { "local" }
    }

    /// The stack's folder.
    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(".opsh").join(name)).unwrap_or_default()
    }

    /// Code with these functions: `slow()` changes until `go` is written, `mark(word)` is a change that is over at once,
    /// `look()` reads until `look` is written.
    pub fn code(&self, code: &str) -> String {
        let host = self.host();
        let dir = json!(self.dir());
        format!(
            "fn slow() {{ host(\"{host}\").sh({}, [{dir}]) }}\n\
             fn mark(word) {{ host(\"{host}\").sh(\"echo \\\"$2\\\" >>\\\"$1/count\\\"\", [{dir}, word]) }}\n\
             fn look() {{ host(\"local\").read([\"head\", \"-n\", \"1\", {}]).out }}\n\
             let prod = stack(\"prod\");\n{code}",
            json!(SLOW),
            json!(self.file("look").display().to_string())
        )
    }

    pub fn command(&self, who: &str, words: &[&str], code: &str) -> Command {
        let home = if who == "alice" { &self.alice } else { &self.bob };
        let script = home.put("s.rhai", &self.code(code));
        let mut command = home.command(&[words, &["--yes", &script]].concat());
        command.env("USER", who);
        command
    }

    pub fn start(&self, who: &str, words: &[&str], code: &str) -> Running {
        Running::start(self.command(who, words, code))
    }

    /// Runs to the end.
    pub fn run(&self, who: &str, words: &[&str], code: &str) -> Ran {
        Ran::of(self.command(who, words, code).output().unwrap())
    }

    /// Alice has the lock, and reads until [`Stage::write`].
    pub fn alice_looks(&self, code: &str) -> Running {
        let mut alice = self.start("alice", &[], &format!("prod.locked(\"hotfix\", || {{ mark(\"a\"); {code} }})"));
        alice.says("✓ host.sh");
        alice
    }

    /// Alice has the lock, and a change of hers is in the middle.
    fn alice_changes(&self) -> Running {
        let alice = self.start("alice", &[], "prod.locked(\"hotfix\", || slow())");
        until("her change is being made", || self.counted().contains("began").then_some(()));
        alice
    }

    fn write(&self, name: &str) {
        let pipe = self.pipes.iter().find(|(pipe, _)| *pipe == name);
        (&pipe.unwrap().1).write_all(b"word\n").unwrap();
    }

    /// Lets `look()` end.
    pub fn end_look(&self) {
        self.write("look");
    }

    pub fn counted(&self) -> String {
        std::fs::read_to_string(self.file("count")).unwrap_or_default()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Whatever a failed test left waiting goes on to its end.
        self.write("go");
        self.write("look");
    }
}

/// An opsh at work, and what it says as it says it. Killed when a test gives it up.
pub struct Running {
    child: Child,
    said: String,
    pieces: Receiver<Vec<u8>>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.spawn().unwrap();
        let mut err = child.stderr.take().unwrap();
        let (sender, pieces) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = err.read(&mut piece) {
                let _ = sender.send(piece[..n].to_vec());
            }
        });
        Running { child, said: String::new(), pieces }
    }

    /// Waits until it has said that.
    #[track_caller]
    pub fn says(&mut self, text: &str) {
        while !self.said.contains(text) {
            let piece = self.pieces.recv_timeout(crate::terminal::DEADLINE);
            let piece = piece.unwrap_or_else(|_| panic!("not said: {text}\n{}", self.said));
            self.said += &String::from_utf8_lossy(&piece);
        }
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn goes_on(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn ended(mut self) -> Ran {
        until("opsh ends", || self.child.try_wait().unwrap());
        let output = self.child.wait_with_output().unwrap();
        let rest: Vec<u8> = self.pieces.iter().flatten().collect();
        let mut ran = Ran::of(output);
        ran.err = format!("{}{}", self.said, String::from_utf8_lossy(&rest));
        ran
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

pub fn value(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

#[test]
fn at_the_prompt_a_lock_that_somebody_else_has_is_said_once_without_a_login_for_it() {
    for (columns, rows) in SIZES {
        let Some(stage) = Stage::remote() else { return };
        let alice = stage.alice_looks("look()");
        // Her own journal knows of it.
        let again = Terminal::start(&stage.alice, columns, rows, &[]);
        again.until("has the lock of prod     by alice");

        let bob = Terminal::start(&stage.bob, columns, rows, &[]);
        bob.until_line("opsh prod (observe) ›").keys("40 + 2\r").until_prompts(2);
        assert!(!bob.screen().contains("the lock of prod"), "nothing was reached:\n{}", bob.screen());
        bob.says("@ true", &[]);
        // On a busy machine it comes after a later line.
        until("it is said", || {
            bob.says("@ echo again", &["\nagain\n"]);
            bob.screen().contains("open: the lock of prod is held by alice@").then_some(())
        });
        bob.until(": hotfix     lock").says("@ echo again", &[]);
        bob.keys("it.code + 70\r").until("70");
        assert_eq!(bob.screen().matches("the lock of prod").count(), 1, "{}", bob.screen());
        stage.end_look();
        alice.ended().exits(0);
    }
}

const TAKES: &str = "prod.locked(\"bob's work\", || mark(\"b\"), #{ wait_s: 1 })";

// ── one at a time ──

#[test]
fn the_second_operator_is_told_who_works_since_when_why_and_what_and_is_refused_after_the_wait() {
    let Some(stage) = Stage::remote() else { return };
    let alice = stage.alice_changes();
    let ran = stage.run("bob", &[], TAKES).exits(3);
    let run = stage.alice.run(&["runs", "--json"]).json_lines()[0]["run"].as_str().unwrap().to_string();
    let ran = ran.says(&[
        "error: prod is locked by alice@",
        "(since 20",
        ": \"hotfix\"",
        "its last change: host.sh echo began",
    ]);
    let ran = ran.says(&["idle for", "still runs: host.sh", "started by alice@", "waits up to 1 s", "nothing changed"]);
    let ran = ran.says(&[&format!("opsh attach {run}"), "--allow lock.break"]);
    assert!(!ran.err.contains('→'), "nothing was begun: {}", ran.err);
    stage.write("go");
    alice.ended().exits(0);
    stage.run("bob", &[], TAKES).exits(0);
    assert_eq!(stage.counted(), "began\nover\nb\n");
}

#[test]
fn who_waits_goes_on_as_soon_as_the_lock_is_free() {
    let stage = Stage::local();
    let alice = stage.alice_changes();
    let mut bob = stage.start("bob", &[], "prod.locked(\"mine\", || mark(\"b\"), #{ wait_s: 60 })");
    bob.says("waits up to 60 s");
    stage.write("go");
    alice.ended().exits(0);
    bob.ended().exits(0);
    assert_eq!(stage.counted(), "began\nover\nb\n");
}

#[test]
fn within_the_scope_it_is_taken_already_and_a_plan_and_an_observer_take_nothing() {
    let stage = Stage::local();
    let code = "print(prod.locked(\"outer\", || prod.locked(\"inner\", || { mark(\"a\"); 7 })))";
    let ran = stage.run("alice", &[], code).exits(0);
    assert_eq!(ran.out, "7\n");
    assert!(stage.text("lock.json").contains("outer"), "{}", stage.text("lock.json"));
    stage.run("alice", &[], "prod.locked(\"again\", || 1); prod.locked(\"at once\", || 2)").exits(0);

    let fresh = Stage::local();
    fresh.run("alice", &["--plan"], code).exits(0).says(&["would lock prod: outer"]);
    fresh.run("alice", &["--observe"], "print(prod.locked(\"x\", || 7))").exits(0).prints("7\n");
    assert!(!fresh.file(".opsh").exists());
    fresh.run("alice", &[], "prod.locked(\" \", || 1)").exits(2).says(&["why must say what goes on"]);
}

#[test]
fn a_recording_answers_for_the_lock_too() {
    let stage = Stage::local();
    stage.run("alice", &[], "print(prod.locked(\"x\", || { mark(\"a\"); prod.lock().why }))").exits(0).prints("x\n");
    let exported = stage.alice.run(&["journal", "export", "last"]).exits(0);
    let recording = stage.alice.put("r.jsonl", &exported.out);
    let script = stage.alice.path("s.rhai").display().to_string();
    std::fs::remove_dir_all(stage.file(".opsh")).unwrap();
    stage.alice.run(&["--replay", &recording, &script]).exits(0).prints("x\n");
    assert!(!stage.file(".opsh").exists(), "what is replayed does not happen");
}

// ── however it ends ──

fn is_free(stage: &Stage) {
    stage.run("bob", &[], "prod.locked(\"mine\", || mark(\"b\"), #{ wait_s: 0 })").exits(0);
}

#[test]
fn a_holder_that_is_killed_frees_the_lock_here_and_over_a_link() {
    for stage in [Some(Stage::local()), Stage::remote()].into_iter().flatten() {
        let alice = stage.alice_looks("look()");
        stage.run("bob", &[], TAKES).exits(3);
        alice.kill();
        is_free(&stage);
    }
}

#[test]
fn what_a_killed_opsh_left_running_is_waited_for_to_its_end_and_no_longer() {
    let Some(stage) = Stage::remote() else { return };
    stage.alice_changes().kill();
    let mut bob = stage.start("bob", &[], "prod.locked(\"mine\", || mark(\"b\"), #{ wait_s: 0 })");
    bob.says("waits up to 600 s for its end");
    for part in ["prod is locked by what alice@", "still runs: host.sh", "started by alice@", "opsh attach 20"] {
        assert!(bob.said.contains(part), "{part}: {}", bob.said);
    }
    let seen = value(&stage.alice.run(&["--json", "-e", "stack(\"prod\").lock()"]).exits(0));
    assert_eq!((&seen["held"], &seen["works"][0]["verb"]), (&json!(true), &json!("host.sh")), "{seen}");
    assert!(seen["by"].as_str().unwrap().starts_with("bob@"), "{seen}");
    let short = "prod.locked(\"me too\", || 1, #{ wait_s: 0 })";
    stage.run("alice", &[], short).exits(3).says(&["prod is locked by bob@"]);
    assert!(bob.goes_on() && stage.counted() == "began\n");
    stage.write("go");
    bob.ended().exits(0);
    assert_eq!(stage.counted(), "began\nover\nb\n");
}

#[test]
fn what_still_runs_after_its_own_wait_refuses_and_names_the_run_to_attach_to() {
    let Some(stage) = Stage::remote() else { return };
    stage.alice_changes().kill();
    let seen = value(&stage.bob.run(&["--json", "-e", "stack(\"prod\").lock()"]).exits(0));
    assert_eq!((&seen["held"], seen["by"].as_str().unwrap().starts_with("alice@")), (&json!(false), true), "{seen}");
    let ran = stage.run("bob", &[], "prod.locked(\"mine\", || mark(\"b\"), #{ wait_s: 0, work_s: 1 })").exits(1);
    let next = format!("opsh attach {}", seen["run"].as_str().unwrap());
    ran.says(&["prod is locked by what alice@", "did not end within 1 s; nothing changed", &next]);
    assert_eq!(stage.counted(), "began\n");
}

#[test]
fn what_a_change_leaves_in_the_background_keeps_nobody_out() {
    let stage = Stage::local();
    let code = "prod.locked(\"start\", || host(\"local\").sh(\"sleep 300 >/dev/null 2>&1 & echo $! >\\\"$1/pid\\\"\", [prod.dir]))";
    stage.run("alice", &[], code).exits(0);
    is_free(&stage);
    let pid = std::fs::read_to_string(stage.file("pid")).unwrap();
    signal(pid.trim().parse().unwrap(), libc::SIGKILL);
}

#[test]
fn ctrl_c_and_sigterm_free_it() {
    for (number, stage) in [(libc::SIGINT, Some(Stage::local())), (libc::SIGTERM, Stage::remote())] {
        let Some(stage) = stage else { continue };
        let alice = stage.alice_looks("look()");
        signal(alice.pid(), number);
        alice.ended().exits(130);
        is_free(&stage);
    }
}

#[test]
fn ctrl_c_ends_the_waiting_for_it_and_leaves_no_ghost_behind() {
    let stage = Stage::local();
    let alice = stage.alice_looks("look()");
    let mut bob = stage.start("bob", &[], "prod.locked(\"mine\", || mark(\"b\"), #{ wait_s: 60 })");
    bob.says("waits up to 60 s");
    signal(bob.pid(), libc::SIGINT);
    bob.ended().exits(130);
    alice.kill();
    is_free(&stage);
}

#[test]
fn an_error_and_a_bug_free_it() {
    let stage = Stage::local();
    let code = "try { prod.locked(\"x\", || throw \"no\") } catch (e) { print(e) } prod.locked(\"y\", || mark(\"a\"))";
    stage.run("alice", &[], code).exits(0);
    let mut bug = stage.command("alice", &[], "prod.locked(\"x\", || mark(\"a\"))");
    let ran = Ran::of(bug.env("OPSH_TEST_PANIC", "begun:1").output().unwrap());
    assert!(ran.err.contains("a bug that a test planted") && ran.code != Some(0), "{ran:?}");
    is_free(&stage);
}

// ── taking over ──

fn broken(home: &Home) -> Value {
    let records = home.records();
    let begun =
        records.iter().find(|record| record["body"]["verb"] == "lock.break" && record["kind"] == "effect.begin");
    begun.unwrap_or_else(|| panic!("{records:?}")).clone()
}

#[test]
fn a_lock_that_was_taken_over_fails_the_next_change_of_the_old_run_even_when_it_is_free_again() {
    let stage = Stage::local();
    let alice = stage.alice_looks("look(); mark(\"too late\")");
    let ran = stage.run("bob", &["--allow", "lock.break"], TAKES).exits(0);
    ran.says(&["prod is locked by alice@", "→ lock.break  prod  the lock of alice@", "✓ lock.break"]);
    assert_eq!(broken(&stage.bob)["class"], "destroy");
    stage.end_look();
    let ran = alice.ended().exits(1).says(&["the lock of prod was taken over by bob@", "\"bob's work\""]);
    assert!(ran.err.contains("nothing was changed on prod"), "{}", ran.err);
    assert_eq!(stage.counted(), "a\nb\n");
}

#[test]
fn a_change_under_a_lock_that_somebody_has_taken_over_and_still_has_fails_too() {
    let Some(stage) = Stage::remote() else { return };
    let alice = stage.alice_looks("look(); mark(\"too late\")");
    let bob = stage.start("bob", &["--allow", "lock.break"], "prod.locked(\"mine\", || slow(), #{ wait_s: 0 })");
    until("his change is being made", || stage.counted().contains("began").then_some(()));
    stage.end_look();
    alice.ended().exits(1).says(&["the lock of prod was taken over by bob@"]);
    stage.write("go");
    bob.ended().exits(0);
    assert_eq!(stage.counted(), "a\nbegan\nover\n");
}

#[test]
fn a_lock_is_broken_by_hand_with_the_agreement_that_names_it() {
    let stage = Stage::local();
    let alice = stage.alice_looks("look()");
    let code = "print(prod.break_lock().changed)";
    stage.run("bob", &[], code).exits(3).says(&["--allow lock.break", "what is lost: alice@"]);
    stage.run("bob", &["--allow", "lock.break"], code).exits(0).prints("true\n");
    is_free(&stage);
    stage.run("bob", &["--allow", "lock.break"], code).exits(0).prints("false\n");
    alice.kill();
}

/// A process that has nothing to do with any lock.
fn bystander() -> Child {
    Command::new("sleep").arg("4242").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn lives(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_none()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A process that is no opsh and has a file of the folder locked.
pub fn locker(stage: &Stage, how: &str, name: &str) -> Child {
    let file = stage.file(".opsh").join(name);
    let mut command = Command::new("flock");
    command.args([how, "--no-fork"]).arg(&file).args(["sleep", "4243"]).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    let is_locked = || !Command::new("flock").arg("-n").arg(&file).arg("true").status().unwrap().success();
    until("it is locked", || is_locked().then_some(()));
    child
}

/// A `lock.json` that names a process.
fn naming(pid: u32, fence: &str) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start: u64 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let holder = format!("{{\"by\":\"deploy@mac\",\"why\":\"x\",\"run\":\"r\"{fence}}}");
    format!(
        "{{\"format\":1,\"holder\":{holder},\"pid\":{pid},\"start\":{start},\"boot\":\"{}\",\"since\":\"T\",\"since_up\":1,\"last\":null,\"last_up\":1}}\n",
        boot.trim()
    )
}

const BREAK: &str = "print(prod.break_lock().changed)";

#[test]
fn breaking_a_lock_ends_no_process_that_lock_json_names() {
    let stage = Stage::local();
    is_free(&stage);
    let mut victim = bystander();
    for (how, fence) in [("-x", ",\"fence\":\"f\""), ("-x", ""), ("-s", ",\"fence\":\"f\"")] {
        let mut stranger = locker(&stage, how, "lock");
        std::fs::write(stage.file(".opsh/lock.json"), naming(victim.id(), fence)).unwrap();
        let ran = stage.run("bob", &["--allow", "lock.break"], BREAK);
        if how == "-x" {
            ran.exits(1).says(&[&format!("somebody unknown (pid {}, user id ", stranger.id()), "is not the holder"]);
        }
        assert!(lives(&mut victim) && lives(&mut stranger), "{how} {fence}");
        end(stranger);
    }
    stage.run("bob", &["--allow", "lock.break"], BREAK).exits(0).prints("false\n");
    assert!(lives(&mut victim));
    end(victim);
}

#[test]
fn breaking_a_lock_ends_its_holder_though_lock_json_names_another() {
    let stage = Stage::local();
    let alice = stage.alice_looks("look()");
    let mut victim = bystander();
    let seen: Value = serde_json::from_str(&stage.text("lock.json")).unwrap();
    let fence = format!(",\"fence\":{}", seen["holder"]["fence"]);
    std::fs::write(stage.file(".opsh/lock.json"), naming(victim.id(), &fence)).unwrap();
    stage.run("bob", &["--allow", "lock.break"], BREAK).exits(0).prints("true\n");
    is_free(&stage);
    assert!(lives(&mut victim));
    end(victim);
    alice.kill();
}

// ── the link ──

/// Cuts the login of an opsh.
fn cut(opsh: &Running) {
    let ssh = below(opsh.pid()).into_iter().find(|process| process.words.first().is_some_and(|word| word == "ssh"));
    signal(ssh.expect("it holds a login").pid, libc::SIGKILL);
}

#[test]
fn after_a_lost_link_the_next_change_takes_the_lock_again_unless_somebody_had_it_meanwhile() {
    let Some(stage) = Stage::remote() else { return };
    let alice = stage.alice_looks("look(); mark(\"again\"); prod.lock().why");
    cut(&alice);
    stage.end_look();
    alice.ended().exits(0);
    assert_eq!(stage.counted(), "a\nagain\n");

    let Some(stage) = Stage::remote() else { return };
    let alice = stage.alice_looks("look(); mark(\"too late\")");
    cut(&alice);
    is_free(&stage);
    stage.end_look();
    alice.ended().exits(1).says(&["the lock of prod was taken over by bob@"]);
    assert_eq!(stage.counted(), "a\nb\n");
}

#[test]
fn after_a_lost_link_no_process_is_ended_that_lock_json_names() {
    let Some(stage) = Stage::remote() else { return };
    let alice = stage.alice_looks("look(); mark(\"too late\")");
    cut(&alice);
    until("her holder has ended", || {
        let lock = stage.file(".opsh/lock");
        Command::new("flock").arg("-n").arg(lock).arg("true").status().unwrap().success().then_some(())
    });
    let (mut victim, stranger) = (bystander(), locker(&stage, "-x", "lock"));
    std::fs::write(stage.file(".opsh/lock.json"), naming(victim.id(), "")).unwrap();
    stage.end_look();
    alice.ended().exits(1).says(&["the lock of prod was taken over by "]);
    assert!(lives(&mut victim), "it is nobody's holder");
    assert_eq!(stage.counted(), "a\n");
    end(victim);
    end(stranger);
}

// ── where there can be no lock ──

#[test]
fn a_folder_that_cannot_be_made_is_said_and_the_work_goes_on() {
    let stage = Stage::local();
    std::fs::write(stage.file(".opsh"), "in the way").unwrap();
    let code = "prod.locked(\"x\", || prod.locked(\"y\", || mark(\"a\")))";
    let ran =
        stage.run("alice", &[], code).exits(0).says(&["prod is not locked, and others may work on it too", ".opsh"]);
    assert_eq!(ran.err.matches("is not locked").count(), 1, "{}", ran.err);
    assert_eq!(stage.counted(), "a\n");
}

/// A folder with every program of this machine but some, which busybox may stand for.
fn programs(without: &[&str], busybox: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["/usr/bin", "/bin"] {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let name = entry.file_name();
            if !without.iter().chain(busybox).any(|one| name.to_str() == Some(one)) {
                let _ = std::os::unix::fs::symlink(entry.path(), dir.path().join(name));
            }
        }
    }
    for name in busybox {
        std::os::unix::fs::symlink("/usr/bin/busybox", dir.path().join(name)).unwrap();
    }
    dir
}

#[test]
fn a_host_without_flock_is_said_and_the_work_goes_on() {
    let stage = Stage::local();
    let bin = programs(&["flock"], &[]);
    let mut command = stage.command("alice", &[], "prod.locked(\"x\", || mark(\"a\")); print(prod.lock() == ())");
    let ran = Ran::of(command.env("PATH", bin.path()).output().unwrap()).exits(0).prints("true\n");
    ran.says(&["prod is not locked, and others may work on it too: the host has no flock"]);
    assert_eq!(stage.counted(), "a\n");
}

#[test]
fn it_is_the_same_lock_under_busybox() {
    if !std::path::Path::new("/usr/bin/busybox").exists() {
        return crate::skip::skip("there is no busybox");
    }
    let stage = Stage::local();
    let has = Command::new("busybox").arg("--list").output().unwrap();
    let has = String::from_utf8(has.stdout).unwrap();
    let wanted = ["sh", "flock", "mkdir", "date", "mv", "tail", "wc", "sleep", "dd", "find", "ls"];
    let bin = programs(&[], &wanted.into_iter().filter(|name| has.lines().any(|one| one == *name)).collect::<Vec<_>>());
    let with = |mut command: Command| {
        command.env("PATH", bin.path());
        command
    };
    let alice = Running::start(with(stage.command("alice", &[], "prod.locked(\"hotfix\", || slow())")));
    until("her change is being made", || stage.counted().contains("began").then_some(()));
    stage.run("bob", &[], TAKES).exits(3).says(&["prod is locked by alice@", "host.sh"]);
    let ran = Ran::of(with(stage.command("bob", &[], TAKES)).output().unwrap());
    ran.exits(3).says(&["prod is locked by alice@", "host.sh"]);
    stage.write("go");
    alice.ended().exits(0);
    Ran::of(with(stage.command("bob", &[], TAKES)).output().unwrap()).exits(0);
    assert_eq!(stage.counted(), "began\nover\nb\n");
}

// ── what was changed ──

#[test]
fn what_was_changed_under_it_is_readable_by_everybody_newest_first_and_without_secrets() {
    let stage = Stage::local();
    stage.run("bob", &[], "print(prod.changes(5).len())").exits(0).prints("0\n");
    let secret = "Zq8".repeat(8);
    let code = format!("prod.locked(\"x\", || {{ mark(\"one\"); mark(\"PASSWORD={secret}\") }})");
    stage.run("alice", &[], &code).exits(0);
    stage.run("bob", &[], TAKES).exits(0);
    stage.run("bob", &[], "mark(\"without the lock\")").exits(0);
    let read = |count| value(&stage.bob.run(&["--json", "-e", &format!("stack(\"prod\").changes({count})")]).exits(0));
    let rows = read(10);
    let by: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["by"].as_str().unwrap()).collect();
    assert!(by.len() == 3 && by[0].starts_with("bob@") && by[1].starts_with("alice@"), "{rows}");
    let run = stage.alice.records()[0]["run"].clone();
    let row = &rows[1];
    assert_eq!((&row["verb"], &row["target"], &row["run"]), (&json!("host.sh"), &json!("local"), &run), "{row}");
    assert!(row["at"].as_str().unwrap().ends_with('Z') && row["says"].as_str().unwrap().contains("echo"), "{row}");
    assert_eq!(read(1), json!([rows[0]]));
    assert!(!stage.text("changes.jsonl").contains(&secret) && !stage.text("lock.json").contains(&secret));
    assert_eq!(stage.text(".gitignore"), "*\n");
    stage.bob.run(&["-e", "stack(\"prod\").changes(0)"]).exits(2).says(&["1 to 1000"]);
    stage.bob.run(&["-e", "print(stack(\"prod\").lock() == ())"]).exits(0).prints("true\n");
}
