//! What becomes of reads and of changes when the way to a host breaks, the host restarts, a person interrupts or a deadline
//! passes. Every fault is a real one: processes are killed, cables are cut, keys are pressed.
//!
//! Faults that other tests perform:
//! - the journal, in `journal.rs`: full disk `on_a_full_disk_…`, `a_disk_that_fills_up_…`; read-only folder
//!   `in_a_read_only_folder_…`; two programs and a third writer `two_programs_and_a_third_writer_…`,
//!   `a_writer_that_keeps_the_lock_…`; torn `a_damaged_journal_…`, `of_many_that_find_the_journal_damaged_…`; edited
//!   `a_flipped_byte_…`; clock set back `a_clock_that_is_set_back_…`; newer schema `a_newer_journal_…`. A network mount is
//!   told by its mount table in `src/gate/journal/tests.rs`: `a_network_file_system_is_told_by_its_mount`;
//! - one host of a fleet does not answer, both halves: `fleet.rs`, `a_host_that_does_not_answer_…`;
//! - every verb has a deadline: `verbs.rs`;
//! - below the door: `src/bind/ssh/test_faults.rs`.

use crate::home::{Home, Ran};
use crate::network::Network;
use crate::processes::{below, running, signal, until};
use crate::sshd::Sshd;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// Counts how often it runs, waits for a line in a pipe, and says that it is over.
const SLOW: &str = "echo x >>\"$1/count\"; read x <\"$1/go\"; echo over >>\"$1/count\"";

/// An operator's home, the host `web-1`, and what runs there when a fault comes.
struct Stage {
    home: Home,
    sshd: Sshd,
    /// Held open both ways: a line that is written waits for whoever reads it.
    go: File,
}

impl Stage {
    fn start() -> Option<Stage> {
        Sshd::start().map(Stage::on)
    }

    fn on(sshd: Sshd) -> Stage {
        let home = Home::new();
        home.put("opsh.toml", &sshd.host(1, "alive_s = 2"));
        for pipe in ["go", "look"] {
            assert!(Command::new("mkfifo").arg(home.path(pipe)).status().unwrap().success());
        }
        let go = File::options().read(true).write(true).open(home.path("go")).unwrap();
        Stage { home, sshd, go }
    }

    fn text(&self, name: &str) -> String {
        self.home.path(name).display().to_string()
    }

    /// Begins what `code` says; `change()` in it is the slow change, `look()` a read that waits.
    fn begin(&self, code: &str) -> Running {
        let (dir, look) = (self.home.0.path().display().to_string(), self.text("look"));
        let code = format!(
            "fn change(options) {{ host(\"web-1\").sh({}, [{}], options) }}\nfn change() {{ change(#{{}}) }}\n\
             fn look() {{ host(\"web-1\").read([\"cat\", {}]).out }}\n{code}",
            json!(SLOW),
            json!(dir),
            json!(look)
        );
        let script = self.home.put("s.rhai", &code);
        Running(Some(self.home.command(&["--yes", &script]).spawn().unwrap()))
    }

    /// Lines of the slow change: how often it began, and how often it ended.
    fn counted(&self) -> (usize, usize) {
        let text = std::fs::read_to_string(self.home.path("count")).unwrap_or_default();
        let count = |word| text.lines().filter(|line| *line == word).count();
        (count("x"), count("over"))
    }

    fn changing(&self) {
        until("the change is being made", || (self.counted() == (1, 0)).then_some(()));
    }

    fn release(&self) {
        (&self.go).write_all(b"go\n").unwrap();
    }

    /// The process of the read at the host, once there is one that is not `before`.
    fn looking(&self, before: i32) -> i32 {
        let look = self.text("look");
        until("the read goes on", || running(&["cat", &look]).into_iter().find(|pid| *pid != before))
    }

    fn looks(&self) -> Vec<i32> {
        running(&["cat", &self.text("look")])
    }

    /// A prompt in the middle of the slow change, which was agreed to.
    fn shell_at_a_change(&self) -> Shell {
        let mut shell = Shell::open(&self.home);
        let line = format!("host(\"web-1\").sh({}, [{}])\r", json!(SLOW), json!(self.text("").trim_end_matches('/')));
        shell.shows("opsh › ").types(&line).shows("Enter to stop:").types("y\r");
        self.changing();
        shell
    }

    fn records(&self, run: &str) -> Vec<Value> {
        self.home.run(&["journal", "export", run]).exits(0).json_lines()
    }

    /// Ids of all runs, the newest first.
    fn runs(&self) -> Vec<String> {
        let rows = self.home.run(&["runs", "--json"]).exits(0).json_lines();
        rows.iter().map(|row| row["run"].as_str().unwrap().into()).collect()
    }

    /// After the slow change was cut off from its opsh: one record that says so, the words that help, and it goes on.
    fn goes_on(&self, ran: &Ran, outcome: &str) -> String {
        self.goes_on_of(ran, outcome, &self.home.records())
    }

    fn goes_on_of(&self, ran: &Ran, outcome: &str, records: &[Value]) -> String {
        let run = records[0]["run"].as_str().unwrap().to_string();
        let ends = bodies(records, "effect.end");
        assert_eq!(ends.len(), 1, "{records:?}");
        assert_eq!(ends[0]["outcome"], outcome, "{}", ends[0]);
        let words = ["may have happened", &format!("opsh attach {run}"), &format!("opsh journal settle {run}")];
        for word in words {
            assert!(ran.err.contains(word), "not said: {word}\n{}", ran.err);
        }
        assert_eq!(self.counted(), (1, 0), "it goes on, and was begun once");
        assert!(self.sshd.run(&effect(records)).exists());
        run
    }

    /// Process group of the slow change at the host.
    fn group(&self) -> i32 {
        let id = effect(&self.home.records());
        let line = std::fs::read_to_string(self.sshd.run(&id).join("pid")).unwrap();
        line.split(' ').next().unwrap().parse().unwrap()
    }

    /// The host says that the slow change left no status: only a person can tell.
    fn is_cut_short(&self, run: &str) {
        let attached = self.home.run(&["attach", run]).exits(4);
        let settle = format!("opsh journal settle {run}");
        let attached = attached.says(&["may have happened", "cut short", "by a kill or a reboot", &settle]);
        assert!(!attached.err.contains("wait for what still runs"), "{}", attached.err);
        let records = self.records(run);
        assert!(bodies(&records, "effect.settled").is_empty(), "{records:?}");
        assert!(self.sshd.run(&effect(&records)).exists(), "what a person may want to look at is kept");
    }

    /// Lets the slow change end, and learns of it.
    fn is_settled(&self, run: &str) {
        self.release();
        self.home.run(&["attach", run]).exits(0).says(&["it happened"]);
        let records = self.records(run);
        let settled = bodies(&records, "effect.settled");
        assert_eq!(settled.len(), 1, "{records:?}");
        assert_eq!(settled[0]["outcome"], "happened", "{}", settled[0]);
        assert_eq!(self.counted(), (1, 1), "it was made once");
        assert!(!self.sshd.run(&effect(&records)).exists(), "what was read is removed");
        let listed = self.home.run(&["runs", "--json"]).exits(0);
        assert!(listed.out.lines().all(|line| line.contains("\"unknown\":0")), "{}", listed.out);
        self.home.run(&["journal", "verify"]).exits(0);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Whatever a failed test left waiting goes on to its end.
        let _ = (&self.go).write_all(b"go\n");
        self.looks().iter().for_each(|pid| signal(*pid, libc::SIGKILL));
    }
}

fn bodies<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["kind"] == kind).map(|record| &record["body"]).collect()
}

/// Id of the change of a run that made one.
fn effect(records: &[Value]) -> String {
    let begin = records.iter().find(|record| record["kind"] == "effect.begin").unwrap();
    begin["effect"].as_str().unwrap().into()
}

/// Outcomes of the logins of the last run, in order.
fn logins(records: &[Value]) -> Vec<&str> {
    bodies(records, "host.login").iter().map(|body| body["outcome"].as_str().unwrap()).collect()
}

/// An opsh at work. Killed when a test gives it up.
struct Running(Option<Child>);

impl Running {
    fn pid(&self) -> i32 {
        self.0.as_ref().unwrap().id() as i32
    }

    /// The ssh that holds its login.
    fn master(&self) -> i32 {
        let mut masters =
            below(self.pid()).into_iter().filter(|process| process.words.first().is_some_and(|w| w == "ssh"));
        masters.next().expect("it holds a login").pid
    }

    fn interrupt(&self) {
        signal(self.pid(), libc::SIGINT);
    }

    fn ended(mut self) -> Ran {
        until("opsh ends", || self.0.as_mut().unwrap().try_wait().unwrap());
        Ran::of(self.0.take().unwrap().wait_with_output().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

// ── the login is lost ──

#[test]
fn a_read_whose_master_is_killed_is_repeated_once_over_a_new_login() {
    let Some(stage) = Stage::start() else { return };
    let opsh = stage.begin("print(look())");
    let first = stage.looking(0);
    signal(opsh.master(), libc::SIGKILL);
    stage.looking(first);
    until("the first read is gone", || (!stage.looks().contains(&first)).then_some(()));
    std::fs::write(stage.home.path("look"), "seen\n").unwrap();
    opsh.ended().exits(0).prints("seen\n\n");
    let records = stage.home.records();
    assert_eq!(logins(&records), ["ok", "ok"]);
    let reads = bodies(&records, "effect.read");
    assert_eq!(reads.len(), 1, "{reads:?}");
    assert_eq!(reads[0]["outcome"], "ok");
    assert!(reads[0]["repeated"].is_string(), "{}", reads[0]);
}

#[test]
fn a_read_whose_master_is_killed_twice_fails_and_is_not_tried_a_third_time() {
    let Some(stage) = Stage::start() else { return };
    let opsh = stage.begin("print(look())");
    let first = stage.looking(0);
    signal(opsh.master(), libc::SIGKILL);
    stage.looking(first);
    signal(opsh.master(), libc::SIGKILL);
    let ran = opsh.ended().exits(1).says(&["error: cat ", "web-1", "connection to web-1 was lost", "why: "]);
    assert!(!ran.err.contains("may have happened"), "a read did nothing: {}", ran.err);
    let records = stage.home.records();
    assert_eq!(logins(&records), ["ok", "ok"]);
    let reads = bodies(&records, "effect.read");
    assert_eq!(reads.len(), 1, "{reads:?}");
    assert_eq!(reads[0]["error"]["kind"], "unreachable", "{}", reads[0]);
    assert!(reads[0]["repeated"].is_string(), "{}", reads[0]);
    until("nothing is left at the host", || stage.looks().is_empty().then_some(()));
}

#[test]
fn a_change_whose_master_is_killed_may_have_happened_goes_on_and_is_settled_by_its_result() {
    let Some(stage) = Stage::start() else { return };
    let opsh = stage.begin("change()");
    stage.changing();
    signal(opsh.master(), libc::SIGKILL);
    let ran = opsh.ended().exits(4).says(&["connection to web-1 was lost: ssh ended: signal: 9"]);
    let run = stage.goes_on(&ran, "unknown");
    assert_eq!(logins(&stage.home.records()), ["ok"], "a change is not repeated");
    stage.home.run(&["runs"]).exits(0);
    stage.is_settled(&run);
}

/// A cable of our own; says so where none can be laid.
fn network() -> Option<Network> {
    Network::lay().map_err(|why| crate::skip::skip(&why)).ok()
}

#[test]
fn a_silent_network_is_noticed_in_the_configured_time_and_loses_no_change() {
    let Some(network) = network() else { return };
    let Some(sshd) = Sshd::start_behind(&network) else { return };
    let stage = Stage::on(sshd);
    let change = stage.begin("change()");
    stage.changing();
    let look = stage.begin("print(look())");
    stage.looking(0);
    let runs = stage.runs();
    let cut = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    network.cut();
    let changed = change.ended().exits(4).says(&["connection to web-1 was lost"]);
    let looked = look.ended().exits(1).says(&["cannot log in to web-1"]);
    assert!(!looked.err.contains("may have happened"), "{}", looked.err);

    // `look` began last.
    let (looked, records) = (stage.records(&runs[0]), stage.records(&runs[1]));
    assert_eq!(logins(&looked).len(), 2, "{looked:?}");
    let read = bodies(&looked, "effect.read")[0];
    assert!(read["repeated"].is_string() && read["error"]["kind"] == "unreachable", "{read}");
    let ended = records.iter().find(|record| record["kind"] == "effect.end").unwrap();
    let noticed = Duration::from_micros(ended["at_us"].as_u64().unwrap()) - cut;
    assert!((Duration::from_secs(1)..Duration::from_secs(8)).contains(&noticed), "{noticed:?}");

    network.mend();
    let run = stage.goes_on_of(&changed, "unknown", &records);
    stage.is_settled(&run);
}

#[test]
fn a_change_of_a_host_that_stays_silent_at_the_login_did_not_happen() {
    let Some(network) = network() else { return };
    let Some(sshd) = Sshd::start_behind(&network) else { return };
    let stage = Stage::on(sshd);
    network.cut();
    let ran = stage.begin("change()").ended().exits(1).says(&["cannot log in to web-1", "no answer in time"]);
    assert!(!ran.err.contains("may have happened"), "{}", ran.err);
    let records = stage.home.records();
    let ended = bodies(&records, "effect.end")[0];
    assert_eq!((&ended["outcome"], &ended["error"]["kind"]), (&json!("failed"), &json!("unreachable")), "{ended}");
    assert_eq!(stage.counted(), (0, 0));
    let listed = stage.home.run(&["runs", "--json"]).exits(0);
    assert!(listed.out.contains("\"unknown\":0"), "nothing is left open: {}", listed.out);
}

// ── the server is restarted, the host is rebooted ──

#[test]
fn a_script_logs_in_again_after_the_server_was_restarted_between_two_lines() {
    let Some(mut stage) = Stage::start() else { return };
    let go = stage.text("look");
    let opsh = stage.begin(&format!(
        "let h = host(\"web-1\"); h.read([\"echo\", \"one\"]); host(\"local\").read([\"cat\", {}]);\n\
         print(h.read([\"echo\", \"two\"]).out); print(h.run([\"echo\", \"three\"]).after.out);",
        json!(go)
    ));
    stage.looking(0);
    stage.sshd.stop();
    stage.sshd.serve();
    std::fs::write(stage.home.path("look"), "").unwrap();
    opsh.ended().exits(0).prints("two\n\nthree\n\n");
    assert_eq!(logins(&stage.home.records()), ["ok", "ok"]);
}

#[test]
fn a_change_goes_on_while_the_server_is_restarted() {
    let Some(mut stage) = Stage::start() else { return };
    let opsh = stage.begin("change()");
    stage.changing();
    stage.sshd.stop();
    stage.sshd.serve();
    let ran = opsh.ended().exits(4).says(&["connection to web-1 was lost"]);
    let run = stage.goes_on(&ran, "unknown");
    stage.is_settled(&run);
}

/// A machine that goes down takes everything along; when it is up again it has another boot id.
#[test]
fn a_change_that_a_reboot_cut_short_stays_unknown_until_a_person_says_what_they_saw() {
    let Some(mut stage) = Stage::start() else { return };
    let opsh = stage.begin("change()");
    stage.changing();
    let group = stage.group();
    if !stage.sshd.reboots() {
        return;
    }
    stage.sshd.stop();
    signal(-group, libc::SIGKILL);
    until("the run is gone", || (!Path::new(&format!("/proc/{group}")).exists()).then_some(()));
    let ran = opsh.ended().exits(4);
    stage.sshd.serve();
    let run = stage.goes_on(&ran, "unknown");
    stage.is_cut_short(&run);
    stage.home.run(&["journal", "settle", &run, "half of it"]).exits(0);
    assert_eq!(stage.counted(), (1, 0), "it was not begun again");
}

#[test]
fn a_change_that_is_killed_at_the_host_is_known_to_be_cut_short_at_once() {
    let Some(stage) = Stage::start() else { return };
    let opsh = stage.begin("change()");
    stage.changing();
    signal(-stage.group(), libc::SIGKILL);
    let ran = opsh.ended().exits(4).says(&["cut short, by a kill or a reboot"]);
    let run = stage.goes_on(&ran, "unknown");
    stage.is_cut_short(&run);
}

#[test]
fn a_process_of_another_boot_is_not_taken_for_the_run() {
    let Some(mut stage) = Stage::start() else { return };
    let opsh = stage.begin("change()");
    stage.changing();
    let group = stage.group();
    if !stage.sshd.reboots() {
        return;
    }
    stage.sshd.stop();
    stage.sshd.serve();
    let ran = opsh.ended().exits(4);
    let run = stage.goes_on(&ran, "unknown");
    stage.is_cut_short(&run);
    assert!(
        Path::new(&format!("/proc/{group}")).exists(),
        "it has number and start time of the run, and is left alone"
    );
}

// ── interrupts and deadlines ──

#[test]
fn ctrl_c_ends_a_read_at_the_host_within_a_second() {
    let Some(stage) = Stage::start() else { return };
    let opsh = stage.begin("look()");
    stage.looking(0);
    let began = Instant::now();
    opsh.interrupt();
    until("the read is gone", || stage.looks().is_empty().then_some(()));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    opsh.ended().exits(130).says(&["interrupted"]);
    let records = stage.home.records();
    assert_eq!(bodies(&records, "effect.read")[0]["outcome"], "interrupted");
}

#[test]
fn ctrl_c_stops_waiting_for_a_change_and_a_second_one_does_not_end_it() {
    let Some(stage) = Stage::start() else { return };
    let opsh = stage.begin("change()");
    stage.changing();
    opsh.interrupt();
    opsh.interrupt();
    let ran = opsh.ended().exits(130).says(&["stopped waiting"]);
    let run = stage.goes_on(&ran, "interrupted");
    stage.is_settled(&run);
}

#[test]
fn a_deadline_stops_waiting_for_a_change_that_is_settled_later() {
    let Some(stage) = Stage::start() else { return };
    let opsh = stage.begin("change(#{ within_s: 3 })");
    stage.changing();
    let ran = opsh.ended().exits(4).says(&["not done within 3 s"]);
    let run = stage.goes_on(&ran, "timeout");
    stage.is_settled(&run);
}

#[test]
fn a_deadline_ends_a_read() {
    let Some(stage) = Stage::start() else { return };
    let code = format!("host(\"web-1\").read([\"cat\", {}], #{{ within_s: 3 }})", json!(stage.text("look")));
    let opsh = stage.begin(&code);
    stage.looking(0);
    opsh.ended().exits(1).says(&["not done within 3 s"]);
    until("the read is gone", || stage.looks().is_empty().then_some(()));
    assert_eq!(bodies(&stage.home.records(), "effect.read")[0]["outcome"], "timeout");
}

#[test]
fn at_a_terminal_ctrl_c_asks_whether_a_change_is_to_end_and_another_one_leaves_it() {
    let Some(stage) = Stage::start() else { return };
    let mut shell = stage.shell_at_a_change();
    shell.types("\x03").shows("Type kill to end it half way").types("\x03").shows("interrupted");
    // What is typed before the prompt is back is forgotten, as always after Ctrl-C.
    shell.shows("› ").types("exit\r");
    assert_eq!(shell.ended(), Some(0));
    let run = stage.runs().remove(0);
    let ended = stage.records(&run);
    assert_eq!(bodies(&ended, "effect.end")[0]["outcome"], "interrupted");
    assert_eq!(stage.counted(), (1, 0));
    stage.is_settled(&run);
}

#[test]
fn at_a_terminal_the_word_kill_ends_a_change_at_the_host() {
    let Some(stage) = Stage::start() else { return };
    let mut shell = stage.shell_at_a_change();
    let group = stage.group();
    shell.types("\x03").shows("Type kill to end it half way").types("kill\r").shows("interrupted").shows("› ");
    until("the change is gone", || (!Path::new(&format!("/proc/{group}")).exists()).then_some(()));
    shell.types("1 + 1\r").shows("2\r\n").types("exit\r");
    assert_eq!(shell.ended(), Some(0));
    assert_eq!(stage.counted(), (1, 0));
}

#[test]
fn ctrl_c_during_a_read_keeps_the_shell_alive_and_the_terminal_as_it_was() {
    let Some(stage) = Stage::start() else { return };
    let mut shell = Shell::open(&stage.home);
    shell.shows("opsh › ").types(&format!("host(\"web-1\").read([\"cat\", {}])\r", json!(stage.text("look"))));
    stage.looking(0);
    shell.types("\x03").shows("interrupted").shows("› ");
    until("the read is gone", || stage.looks().is_empty().then_some(()));
    shell.types("\"still \" + \"here\"\r").shows("still here");
    shell.types("host(\"web-1\").read([\"echo\", \"over \" + \"there\"]).out\r").shows("over there");
    shell.types("exit\r");
    assert_eq!(shell.ended(), Some(0));
    let modes = |name: &str| std::fs::read_to_string(stage.home.path(name)).unwrap();
    assert!(modes("before").contains("isig"), "{}", modes("before"));
    assert_eq!(modes("before"), modes("after"), "the terminal's modes");
}

/// The prompt at a terminal of its own, whose modes are written down before and after.
struct Shell {
    child: Child,
    shown: String,
}

impl Shell {
    fn open(home: &Home) -> Shell {
        let line = "trap : INT; stty -a >before; \"$OPSH\"; code=$?; stty -a >after; exit $code";
        let plain = home.command(&[]);
        let mut command = Command::new("script");
        command.args(["-qefc", line, "/dev/null"]).current_dir(home.0.path()).env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("OPSH", crate::home::OPSH).env("SHELL", "/bin/sh").env("NO_COLOR", "1").env("TERM", "xterm");
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script(1) makes a terminal");
        Shell { child, shown: String::new() }
    }

    fn types(&mut self, keys: &str) -> &mut Shell {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
        self
    }

    /// Reads until the screen shows `text` after what it had shown.
    fn shows(&mut self, text: &str) -> &mut Shell {
        while !self.shown.contains(text) {
            assert!(self.read(), "it ended without {text:?}: {}", self.shown);
        }
        self.shown = self.shown.split_once(text).map_or("", |(_, rest)| rest).into();
        self
    }

    fn read(&mut self) -> bool {
        let mut piece = [0; 4096];
        let n = self.child.stdout.as_mut().unwrap().read(&mut piece).unwrap_or(0);
        self.shown += &String::from_utf8_lossy(&piece[..n]);
        n > 0
    }

    fn ended(&mut self) -> Option<i32> {
        while self.read() {}
        self.child.wait().unwrap().code()
    }
}
