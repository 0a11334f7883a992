//! One verb on many hosts: the same path as one host, results in order, both halves in an error.

use crate::sshd::Sshd;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

const OPSH: &str = env!("CARGO_BIN_EXE_opsh");

/// Exits with 7 on `$1`, the number of a host, and prints the number of the host that it is on.
const HERE: &str = "set -- \"$1\" ${SSH_CONNECTION% *}; at=$(($(echo $4 | cut -d. -f4) - 1)); echo at $at; [ $at != \"$1\" ] || exit 7";

/// Hosts `web-1` to `web-N` on one sshd, tagged `web`, and an operator's home.
struct Fleet {
    home: tempfile::TempDir,
    _sshd: Option<Sshd>,
}

impl Fleet {
    fn of(count: u8, sandbox: bool) -> Option<Fleet> {
        Fleet::with(count, sandbox, "")
    }

    /// With more lines in opsh.toml.
    fn with(count: u8, sandbox: bool, more: &str) -> Option<Fleet> {
        let sshd = Sshd::start()?;
        let home = tempfile::Builder::new().prefix("fl").tempdir().unwrap();
        let tags = format!("tags = [\"web\"]\nsandbox = {sandbox}");
        let hosts: String = (1..=count).map(|n| sshd.host(n, &tags)).collect();
        std::fs::write(home.path().join("opsh.toml"), hosts + more).unwrap();
        std::fs::create_dir(home.path().join("run")).unwrap();
        Some(Fleet { home, _sshd: Some(sshd) })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.home_of(Command::new("timeout"));
        command.args(["-k", "1", "100", OPSH]).args(words).stdin(Stdio::null());
        command
    }

    /// Lets a command run as the operator of this home.
    fn home_of(&self, mut command: Command) -> Command {
        command.current_dir(self.home.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C.UTF-8");
        command.env("HOME", self.home.path()).env("XDG_STATE_HOME", self.home.path().join("state"));
        command.env("XDG_RUNTIME_DIR", self.home.path().join("run"));
        command
    }

    fn run(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } = self.command(words).output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    /// The value of one line, which must succeed.
    #[track_caller]
    fn eval(&self, code: &str) -> Value {
        let (exit, out, err) = self.run(&["--json", "-e", code]);
        assert_eq!(exit, Some(0), "{code}\n{out}{err}");
        serde_json::from_str(&out).unwrap_or(Value::Null)
    }

    /// The error of one line, as JSON, and its exit code.
    #[track_caller]
    fn fails(&self, words: &[&str], code: &str) -> (Value, Option<i32>) {
        let (exit, out, err) = self.run(&[&["--json"], words, &["-e", code]].concat());
        assert_ne!(exit, Some(0), "{code}\n{out}{err}");
        let last = err.lines().last().unwrap_or("");
        (serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {err}")), exit)
    }

    /// Kind and target of each record of an effect in the last run, in order.
    fn effects(&self) -> Vec<(String, String)> {
        let (_, out, _) = self.run(&["journal", "export", "last"]);
        let records = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let word = |value: &Value| value.as_str().unwrap_or("").to_string();
        let effects = records.filter(|record| word(&record["kind"]).starts_with("effect."));
        effects.map(|record| (word(&record["kind"]), word(&record["target"]))).collect()
    }
}

fn names(rows: &Value) -> Vec<&str> {
    rows.as_array().unwrap().iter().map(|row| row["host"].as_str().unwrap()).collect()
}

fn webs(numbers: impl IntoIterator<Item = u8>) -> Vec<String> {
    numbers.into_iter().map(|n| format!("web-{n}")).collect()
}

#[test]
fn a_read_of_a_fleet_is_a_list_in_order_with_one_record_each() {
    let Some(fleet) = Fleet::of(12, false) else { return };
    let rows = fleet.eval("hosts(\"web\").read([\"echo\", \"x\"])");
    assert_eq!(names(&rows), webs(1..=12));
    for row in rows.as_array().unwrap() {
        assert_eq!((&row["code"], &row["out"]), (&json!(0), &json!("x\n")));
    }
    let mut effects = fleet.effects();
    effects.sort();
    let mut expected: Vec<_> = webs(1..=12).into_iter().map(|name| ("effect.read".to_string(), name)).collect();
    expected.sort();
    assert_eq!(effects, expected);

    let one = fleet.eval("host(\"web-3\").read([\"echo\", \"x\"])");
    assert_eq!(one, json!({ "code": 0, "out": "x\n", "err": "" }), "one host's value is what it was");
    let connected = fleet.eval("hosts([host(\"web-2\"), \"web-1\", \"web-2\", \"local\"]).connect()");
    assert_eq!(connected, json!([{ "host": "web-2" }, { "host": "web-1" }, { "host": "local" }]));
}

#[test]
fn a_fleet_is_chosen_by_tag_or_by_list_and_is_never_empty() {
    let Some(fleet) = Fleet::of(3, false) else { return };
    assert_eq!(fleet.eval("let all = []; for h in hosts(\"web\") { all.push(h.name); } all"), json!(webs(1..=3)));
    assert_eq!(fleet.eval("let h = hosts(\"web\"); [h.names, h.len(), h.len, `${h}`, type_of(h)]"), {
        json!([webs(1..=3), 3, 3, "web-1, web-2, web-3", "hosts"])
    });
    for (code, why) in [
        ("hosts(\"wbe\")", "did you mean \"web\"?"),
        ("hosts([])", "the list is empty"),
        ("hosts([\"web-1\", \"web-9\"])", "did you mean \"web-1\"?"),
        ("hosts([3])", "the list holds int"),
        ("hosts(3)", "it takes a tag or a list of hosts, not int"),
    ] {
        let (error, exit) = fleet.fails(&[], code);
        assert_eq!(exit, Some(2), "{error}");
        assert!(error["why"].as_str().unwrap().contains(why), "{code}: {error}");
    }
}

#[test]
fn a_host_that_does_not_answer_is_one_row_among_the_good_ones() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = format!("[host.gone]\nssh = \"root@127.0.0.1\"\nport = {closed}\ntags = [\"web\"]\n");
    let Some(fleet) = Fleet::with(3, false, &gone) else { return };
    let (error, exit) = fleet.fails(&[], "hosts(\"web\").read([\"nproc\"])");
    assert_eq!((error["kind"].as_str(), exit), (Some("unreachable"), Some(1)), "{error}");
    assert_eq!(error["what"], "host.read failed on 1 of 4 hosts");
    assert!(error["why"].as_str().unwrap().starts_with("gone: "), "{error}");
    assert_eq!(names(&error["results"]), ["web-1", "web-2", "web-3", "gone"]);
    let ok: Vec<_> = error["results"].as_array().unwrap().iter().map(|row| row["ok"].as_bool().unwrap()).collect();
    assert_eq!(ok, [true, true, true, false]);
    assert_eq!(error["results"][0]["value"]["code"], 0);
    assert_eq!(error["results"][3]["error"]["kind"], "unreachable");

    let caught =
        |code: &str, then: &str| format!("let seen = (); try {{ {code} }} catch (e) {{ seen = {then}; }} seen");
    let good = caught("hosts(\"web\").read([\"nproc\"])", "e.results.filter(|r| r.ok).map(|r| r.host)");
    assert_eq!(fleet.eval(&good), json!(webs(1..=3)));
    assert_eq!(fleet.eval(&caught("host(\"gone\").connect()", "e.results")), json!([]), "one host has no halves");
    let rows = fleet.eval("hosts(\"web\").read([\"nproc\"], #{ partial: true })");
    assert_eq!(names(&rows), ["web-1", "web-2", "web-3", "gone"]);
    assert_eq!(rows[3]["error"]["kind"], "unreachable");
    let rows = fleet.eval("hosts(\"web\").http(\"http://127.0.0.1:1/\", #{ partial: true })");
    assert_eq!(names(&rows), ["web-1", "web-2", "web-3", "gone"]);
    assert!(rows.as_array().unwrap().iter().all(|row| row["ok"] == false), "nothing listens there: {rows}");
}

#[test]
fn failures_of_different_kinds_are_failed() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = format!("[host.gone]\nssh = \"root@127.0.0.1\"\nport = {closed}\ntags = [\"web\"]\n");
    let Some(fleet) = Fleet::with(2, false, &gone) else { return };
    let (error, _) = fleet.fails(&[], "hosts(\"web\").read([\"cat\", \"/no/such/file\"])");
    assert_eq!((&error["kind"], &error["what"]), (&json!("failed"), &json!("host.read failed on 3 of 3 hosts")));
    let why = error["why"].as_str().unwrap();
    assert_eq!(why.lines().count(), 3, "{why}");
    assert!(why.starts_with("web-1: exit code 1: cat: /no/such/file"), "{why}");
}

#[test]
fn a_change_goes_to_the_first_then_to_batches_and_stops_at_a_failure() {
    let Some(fleet) = Fleet::of(9, true) else { return };
    let change = |bad: u8| format!("hosts(\"web\").sh({HERE:?}, [\"{bad}\"], #{{ batch: 3 }})");
    let receipts = fleet.eval(&change(0));
    assert_eq!(names(&receipts), webs(1..=9));
    for (n, receipt) in receipts.as_array().unwrap().iter().enumerate() {
        assert_eq!((&receipt["changed"], &receipt["after"]["out"]), (&json!(true), &json!(format!("at {}\n", n + 1))));
    }
    let effects = fleet.effects();
    assert_eq!(effects.len(), 18, "a begin and an end each: {effects:?}");
    let begun = |effects: &[(String, String)]| -> Vec<String> {
        effects.iter().filter(|(kind, _)| kind == "effect.begin").map(|(_, target)| target.clone()).collect()
    };
    assert_eq!(begun(&effects), webs(1..=9));
    assert_eq!(effects[1], ("effect.end".to_string(), "web-1".to_string()), "the first one is over before the next");

    // web-3 is in the first batch after web-1: 2, 3, 4.
    let (error, exit) = fleet.fails(&[], &change(3));
    assert_eq!((&error["kind"], exit), (&json!("failed"), Some(1)), "{error}");
    assert_eq!(error["what"], "host.sh failed on 1 of 9 hosts");
    let why: Vec<&str> = error["why"].as_str().unwrap().lines().collect();
    assert_eq!(
        why,
        ["web-3: exit code 7: at 3", "done on web-1, web-2, web-4", "not tried on web-5, web-6, web-7, web-8, web-9"]
    );
    assert_eq!(begun(&fleet.effects()), webs(1..=4));
    let error_of = |n: usize| error["results"][n - 1]["error"]["why"].as_str().unwrap();
    assert_eq!(error["results"][3]["value"]["after"]["out"], "at 4\n");
    assert_eq!(error_of(9), "it failed on web-3 before; nothing was done here");

    let (error, _) = fleet.fails(&[], &change(1));
    assert_eq!(error["why"], "web-1: exit code 7: at 1\nit was the first: nothing was done on the other 8");
    assert_eq!(begun(&fleet.effects()), webs(1..=1));
}

#[test]
fn one_decision_is_taken_for_the_whole_fleet_before_anything_is_done() {
    let Some(fleet) = Fleet::of(3, false) else { return };
    let change = "hosts(\"web\").run([\"true\"])";
    let (error, exit) = fleet.fails(&[], change);
    assert_eq!((&error["kind"], exit), (&json!("refused"), Some(3)), "{error}");
    assert!(error["what"].as_str().unwrap().contains("host.run on web-1, host.run on web-2"), "{error}");
    assert!(error["why"].as_str().unwrap().contains("nothing changed"), "{error}");
    assert_eq!(fleet.effects(), []);
    let (exit, _, err) = fleet.run(&["--yes", "-e", change]);
    assert_eq!(exit, Some(0), "{err}");
    let (exit, _, err) = fleet.run(&["--plan", "-e", change]);
    assert_eq!(exit, Some(0), "{err}");
    for name in webs(1..=3) {
        assert!(err.contains(&format!("host.run  {name}  would: true")), "{err}");
    }
    let (error, exit) = fleet.fails(&["--yes"], "hosts(\"web\").run([\"true\"], #{ undo: \"host(1)\" })");
    assert_eq!((error["why"].as_str().unwrap().contains("write host(\"{host}\")"), exit), (true, Some(2)), "{error}");
    let (error, exit) = fleet.fails(&["--yes"], "hosts(\"web\").run([\"true\"], #{ batch: 17 })");
    assert_eq!((error["why"].as_str(), exit), (Some("batch must be 1 to 16, not 17"), Some(2)));
}

/// A repository with one tagged commit in the home; its path.
fn repository(fleet: &Fleet) -> String {
    let dir = fleet.home.path().join("repo");
    std::fs::create_dir(&dir).unwrap();
    for words in ["init -q", "-c user.name=a -c user.email=a@b commit -q --allow-empty -m one", "tag v1"] {
        let mut git = Command::new("git");
        git.arg("-C").arg(&dir).args(words.split(' ')).env("GIT_CONFIG_GLOBAL", "/dev/null");
        assert!(git.status().unwrap().success(), "{words}");
    }
    dir.display().to_string()
}

#[test]
fn a_batch_reads_several_systems_at_once_with_one_record_each() {
    let Some(fleet) = Fleet::of(2, false) else { return };
    let code = format!(
        "batch([[\"host.read\", hosts(\"web\"), [\"echo\", \"x\"]], [\"clock.now\"], \
         [\"git.tags\", host(\"local\").repo({:?}), 5], [\"host.connect\", host(\"web-2\")]])",
        repository(&fleet)
    );
    let values = fleet.eval(&code);
    assert_eq!(names(&values[0]), ["web-1", "web-2"]);
    assert_eq!(values[0][1]["out"], "x\n");
    assert!(values[1].as_str().is_some_and(|now| now.ends_with('Z')), "{values}");
    assert_eq!(values[2][0]["tag"], "v1", "{values}");
    assert_eq!(values[3], json!({ "host": "web-2" }));
    let mut effects = fleet.effects();
    effects.sort();
    let reads =
        |names: &[&str]| -> Vec<_> { names.iter().map(|name| ("effect.read".to_string(), name.to_string())).collect() };
    assert_eq!(effects, reads(&["here", "local", "web-1", "web-2", "web-2"]));
    assert_eq!(fleet.eval("batch([])"), json!([]));
}

#[test]
fn a_batch_with_failures_holds_both_halves() {
    let home = Fleet { home: tempfile::tempdir().unwrap(), _sshd: None };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let reads = format!(
        "[[\"host.read\", host(\"local\"), [\"echo\", \"x\"]], [\"http.get\", \"http://127.0.0.1:{closed}/\"], \
         [\"host.read\", host(\"local\"), [\"cat\", \"/no/such\"]]]"
    );
    let (error, exit) = home.fails(&[], &format!("batch({reads})"));
    assert_eq!((&error["kind"], exit), (&json!("failed"), Some(1)), "{error}");
    assert_eq!(error["what"], "plan.batch failed on 2 of 3 reads");
    let why: Vec<&str> = error["why"].as_str().unwrap().lines().collect();
    assert!(why[0].starts_with("http.get: "), "{why:?}");
    assert_eq!(why[1], "host.read on local: exit code 1: cat: /no/such: No such file or directory");
    assert_eq!(error["results"][0]["read"], "host.read");
    assert_eq!(error["results"][0]["value"]["out"], "x\n");
    let rows = home.eval(&format!("batch({reads}, #{{ partial: true }})"));
    assert_eq!((&rows[0]["ok"], &rows[1]["error"]["kind"]), (&json!(true), &json!("unreachable")));
}

#[test]
fn a_batch_refuses_what_is_wrong_before_anything_is_read() {
    let home = Fleet { home: tempfile::tempdir().unwrap(), _sshd: None };
    for (entry, why) in [
        ("[\"host.raed\", host(\"local\"), [\"id\"]]", "there is no verb \"host.raed\"; did you mean \"host.read\"?"),
        ("[\"host.run\", host(\"local\"), [\"id\"]]", "host.run is of class change, and a batch only reads"),
        ("[\"plan.batch\", []]", "plan.batch is about the script"),
        ("[\"host.read\", [\"id\"]]", "host.read wants a host after its name, not array"),
        ("[\"host.read\", host(\"local\")]", "0 arguments do not fit host.read(words: array"),
        ("[\"host.read\", host(\"local\"), [\"rm\"]]", "rm"),
        ("\"clock.now\"", "it is not a list"),
        ("[now]", "it does not begin with a verb's name"),
    ] {
        let code = format!("let now = 1; batch([[\"clock.now\"], {entry}])");
        let (error, exit) = home.fails(&["--yes"], &code);
        assert_eq!((&error["kind"], exit), (&json!("usage"), Some(2)), "{entry}: {error}");
        assert!(error["why"].as_str().unwrap().contains(why), "{entry}: {error}");
        assert_eq!(home.effects(), [], "{entry}");
    }
}

/// Runs one line at a terminal and answers its question; what the screen showed, and the exit code.
fn at_a_terminal(fleet: &Fleet, code: &str, answer: &str) -> (String, Option<i32>) {
    let script = fleet.home.path().join("s.rhai");
    std::fs::write(&script, code).unwrap();
    let mut command = fleet.home_of(Command::new("script"));
    command.arg("-qefc").arg(format!("timeout --foreground -k 1 100 {OPSH} {}", script.display())).arg("/dev/null");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut shown, mut answered, mut piece) = (String::new(), false, [0; 4096]);
    while let Ok(n @ 1..) = screen.read(&mut piece) {
        shown += &String::from_utf8_lossy(&piece[..n]);
        // Only what is typed after the question counts: what came before it is flushed.
        if !answered && shown.contains("Enter to stop:") {
            answered = true;
            writeln!(keys, "{answer}").unwrap();
        }
    }
    (shown, child.wait().unwrap().code())
}

#[test]
fn a_person_is_asked_once_for_all_hosts_by_name() {
    let Some(fleet) = Fleet::of(4, false) else { return };
    let change = "hosts(\"web\").sh(\"sleep 1\", [], #{ batch: 3 });";
    let (shown, code) = at_a_terminal(&fleet, change, "");
    assert_eq!(code, Some(3), "{shown}");
    for name in webs(1..=4) {
        assert!(shown.contains(&format!("host.sh  {name}  sleep 1")), "{shown}");
    }
    assert_eq!(fleet.effects(), []);
    let (shown, code) = at_a_terminal(&fleet, change, "y");
    assert_eq!((code, shown.matches("Enter to stop:").count()), (Some(0), 1), "{shown}");
    assert!(shown.contains("host.sh  1/4 done, waiting for web-2, web-3, web-4 "), "{shown}");
    let (_, _, err) = fleet.run(&["--yes", "-e", change]);
    assert!(!err.contains('\r') && !err.contains('⠋'), "no terminal, nothing is drawn: {err}");
}
