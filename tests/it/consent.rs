//! Consent to a plan is consent to its calls: each once, as its verb prepared it, and to nothing else. In a pseudo-terminal,
//! on this machine, which is protected unlike a sandbox.

use super::home::{Home, OPSH};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

const QUESTION: &str = "Enter to stop:";
const HEADER: &str = "//! A test.\n//!\n//! usage: opsh s.rhai\n";

/// Outcome of a run at a terminal.
struct Ran {
    said: String,
    questions: usize,
    code: Option<i32>,
}

/// Runs `code` as a script at a terminal, in a home of its own. The first `agreed` questions are answered with `keys`, later
/// ones with Enter.
fn run(home: &Home, code: &str, agreed: usize, keys: &str) -> Ran {
    home.put("s.rhai", &format!("{HEADER}{code}"));
    let mut shell = Command::new("script");
    shell.args(["-qefc", &format!("timeout --foreground -k 1 60 {OPSH} s.rhai"), "/dev/null"]);
    shell.current_dir(home.path("")).env("HOME", home.path("")).env("XDG_STATE_HOME", home.path("state"));
    shell.env("SHELL", "/bin/sh").env("NO_COLOR", "1").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = shell.spawn().expect("script(1) makes a terminal");
    let (mut answers, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut said, mut questions, mut piece) = (String::new(), 0, [0; 4096]);
    while let Ok(n @ 1..) = screen.read(&mut piece) {
        said += &String::from_utf8_lossy(&piece[..n]);
        while said.matches(QUESTION).count() > questions {
            questions += 1;
            let answer = if questions <= agreed { keys } else { "" };
            answers.write_all(format!("{answer}\n").as_bytes()).unwrap();
        }
    }
    let code = child.wait().unwrap().code();
    Ran { said, questions, code }
}

/// The same, where the one question is answered with a y.
fn agreed(home: &Home, code: &str) -> Ran {
    run(home, code, 1, "y")
}

fn touch(name: &str) -> String {
    format!("host(\"local\").run([\"touch\", \"{name}\"]);")
}

/// `authorize` of touching these.
fn plan(names: &[&str]) -> String {
    let calls: Vec<String> =
        names.iter().map(|name| format!("[\"host.run\", host(\"local\"), [\"touch\", \"{name}\"]]")).collect();
    format!("authorize([{}]);", calls.join(", "))
}

/// Only those of these files that may be there are there.
#[track_caller]
fn there(home: &Home, made: &[&str], not: &[&str], ran: &Ran) {
    made.iter().for_each(|name| assert!(home.path(name).exists(), "{name}: {}", ran.said));
    not.iter().for_each(|name| assert!(!home.path(name).exists(), "{name}: {}", ran.said));
}

#[test]
fn each_call_of_a_plan_is_agreed_to_in_one_question() {
    let home = Home::new();
    let ran = agreed(&home, &format!("{} {} {}", plan(&["a", "b"]), touch("b"), touch("a")));
    assert_eq!((ran.questions, ran.code), (1, Some(0)), "{}", ran.said);
    assert!(ran.said.contains("touch a") && ran.said.contains("touch b"), "the verb says it: {}", ran.said);
    there(&home, &["a", "b"], &[], &ran);
}

#[test]
fn another_call_is_asked_for_again() {
    for other in [
        touch("b"),
        // Once is once.
        format!("{} {}", touch("a"), touch("a")),
        "host(\"local\").run([\"touch\", \"a\", \"b\"]);".into(),
        "host(\"local\").run([\"touch\", \"a\"], #{ dir: \"/\" });".into(),
        "host(\"local\").run([\"touch\", \"a\"], #{ undo: `host(\"local\").run([\"touch\", \"b\"])` });".into(),
        "host(\"local\").sh(\"touch a\", []);".into(),
        "hosts([\"local\"]).run([\"touch\", \"b\"]);".into(),
    ] {
        let home = Home::new();
        let ran = agreed(&home, &format!("{} {other}", plan(&["a"])));
        assert_eq!(ran.questions, 2, "{other}: {}", ran.said);
        assert_ne!(ran.code, Some(0), "{other}: {}", ran.said);
        there(&home, &[], &["b"], &ran);
    }
}

#[test]
fn a_plan_that_was_agreed_to_is_asked_for_anew() {
    let home = Home::new();
    let ran = agreed(&home, &format!("{} {}", plan(&["a"]), plan(&["a"])));
    assert_eq!((ran.questions, ran.code), (2, Some(3)), "{}", ran.said);
}

#[test]
fn a_plan_of_a_fleet_covers_each_host_once() {
    let home = Home::new();
    let fleet = "authorize([[\"host.run\", hosts([\"local\"]), [\"touch\", \"a\"]]]);";
    let ran = agreed(&home, &format!("{fleet} hosts([\"local\"]).run([\"touch\", \"a\"]);"));
    assert_eq!((ran.questions, ran.code), (1, Some(0)), "{}", ran.said);
    let ran = agreed(&home, &format!("{fleet} {} {}", touch("a"), touch("a")));
    assert_eq!(ran.questions, 2, "{}", ran.said);
}

#[test]
fn keys_of_options_may_come_in_any_order() {
    let home = Home::new();
    let call = "[\"host.run\", host(\"local\"), [\"touch\", \"a\"], #{ within_s: 9, dir: \".\" }]";
    let code = format!("authorize([{call}]); host(\"local\").run([\"touch\", \"a\"], #{{ dir: \".\", within_s: 9 }});");
    let ran = agreed(&home, &code);
    assert_eq!((ran.questions, ran.code), (1, Some(0)), "{}", ran.said);
}

#[test]
fn a_file_that_was_agreed_to_is_written_with_that_text_only() {
    let home = Home::new();
    let plan = "authorize([[\"file.write\", \"a.txt\", \"one\"]]);";
    let ran = agreed(&home, &format!("{plan} file::write(\"a.txt\", \"one\");"));
    assert_eq!((ran.questions, ran.code), (1, Some(0)), "{}", ran.said);
    let ran = agreed(&home, &format!("{plan} file::write(\"a.txt\", \"two\");"));
    assert_eq!((ran.questions, ran.code), (2, Some(3)), "{}", ran.said);
    assert_eq!(std::fs::read_to_string(home.path("a.txt")).unwrap(), "one");
}

// ── inverses ──

/// A guard that fails after a change with this inverse.
fn guarded(inverse: &str) -> String {
    format!("undo::guard(|| {{ host(\"local\").run([\"touch\", \"a\"], #{{ undo: `{inverse}` }}); throw \"sick\"; }});")
}

const SURPRISE: &str = "host(\"local\").run([\"touch\", \"b\"])";

#[test]
fn the_question_shows_the_inverse_that_a_script_wrote() {
    let home = Home::new();
    // Asked for directly, and as part of a plan.
    let ran = agreed(&home, &guarded(SURPRISE));
    assert!(ran.said.split(QUESTION).next().unwrap().contains(&format!("undo: {SURPRISE}")), "{}", ran.said);
    assert_eq!(ran.questions, 1, "{}", ran.said);
    there(&home, &["a", "b"], &[], &ran);
    let home = Home::new();
    let call = format!("[\"host.run\", host(\"local\"), [\"touch\", \"a\"], #{{ undo: `{SURPRISE}` }}]");
    let ran = agreed(&home, &format!("authorize([{call}]); {}", guarded(SURPRISE)));
    assert!(ran.said.split(QUESTION).next().unwrap().contains(&format!("undo: {SURPRISE}")), "{}", ran.said);
    assert_eq!(ran.questions, 1, "{}", ran.said);
    there(&home, &["a", "b"], &[], &ran);
}

#[test]
fn an_inverse_that_the_plan_did_not_show_is_asked_for() {
    let home = Home::new();
    let ran = agreed(&home, &format!("{} {}", plan(&["a"]), guarded(SURPRISE)));
    assert_eq!(ran.questions, 2, "{}", ran.said);
    there(&home, &[], &["a", "b"], &ran);
}

#[test]
fn the_question_shows_the_arguments_of_a_script_and_its_folder() {
    let home = Home::new();
    let ran = run(&home, "host(\"local\").sh(\"rm -rf \\\"$1\\\"\", [\"no-such\", \"b\"], #{ dir: \"/tmp\" });", 0, "");
    let asked = ran.said.split(QUESTION).next().unwrap();
    assert!(asked.contains("rm -rf \"$1\"   with [\"no-such\",\"b\"]   in /tmp"), "{asked}");
    assert_eq!((ran.questions, ran.code), (1, Some(3)), "{}", ran.said);
}

// ── what is not known yet ──

/// A configuration with a stack on this machine.
fn with_stack(home: &Home) {
    let dir = home.path("app").display().to_string();
    std::fs::create_dir_all(&dir).unwrap();
    home.put(
        "opsh.toml",
        &format!(
            "[stack.prod]\nhost = \"local\"\ndir = \"{dir}\"\ncompose = {{ files = [\"c.yml\"], project = \"p\" }}\n\
             db = {{ service = \"db\", user = \"u\", name = \"shifts\" }}\n\
             migrate = {{ preset = \"golang-migrate\", service = \"backend\", files = \"m\" }}\n"
        ),
    );
}

#[test]
fn a_placeholder_is_shown_as_what_comes_later() {
    let home = Home::new();
    with_stack(&home);
    let code = "let image = later(\"the image that is built\"); let p = stack(\"prod\");
        authorize([
            [\"compose.build\", p, \"backend\", \"0123456789012345678901234567890123456789\"],
            [\"docker.tag\", p, image, \"app:prod\"],
            [\"migrate.up\", p, #{ versions: [48], ledger: [47], image_id: image }],
        ]);
        print(\"agreed\");";
    let ran = agreed(&home, code);
    assert_eq!((ran.questions, ran.code), (1, Some(0)), "{}", ran.said);
    for words in [
        "backend from 012345678901",
        "app:prod → (later: the image that is built)",
        "48 with image (later: the image that is built)",
    ] {
        assert!(ran.said.contains(words), "{words}: {}", ran.said);
    }
}

#[test]
fn a_placeholder_stands_only_where_it_cannot_say_what_is_done() {
    let home = Home::new();
    with_stack(&home);
    for (call, name) in [
        ("[\"host.run\", host(\"local\"), later(\"the words\")]", "words"),
        ("[\"host.run\", host(\"local\"), [\"touch\", later(\"a file\")]]", "an item"),
        ("[\"host.run\", host(\"local\"), [\"touch\", \"a\"], #{ dir: later(\"a folder\") }]", "dir"),
        ("[\"backup.restore\", stack(\"prod\"), later(\"the NEWEST backup\")]", "file"),
        ("[\"docker.tag\", stack(\"prod\"), \"sha256:1\", later(\"a name\")]", "reference"),
        ("[\"docker.restart\", stack(\"prod\"), later(\"a service\")]", "service"),
    ] {
        let ran = home.run(&["--yes", "-e", &format!("authorize([{call}]);")]).exits(2);
        assert!(ran.err.contains(&format!("{name} of ")) && ran.err.contains("cannot be later"), "{call}: {}", ran.err);
    }
    for code in [
        "host(\"local\").run([\"echo\", later(\"x\")]);",
        "stack(\"prod\").tag_image(later(\"x\"), \"app:prod\");",
        "batch([[\"host.read\", host(\"local\"), [later(\"x\")]]]);",
    ] {
        let ran = home.run(&["--yes", "-e", code]).exits(2);
        assert!(ran.err.contains("in authorize only"), "{code}: {}", ran.err);
    }
    home.run(&["-e", "later(\"two\\nlines\")"]).exits(2).says(&["1 to 100 letters"]);
}

// ── what is lost ──

#[test]
fn what_is_lost_is_said_by_the_verb() {
    let home = Home::new();
    with_stack(&home);
    let restore = "authorize([[\"backup.restore\", stack(\"prod\"), \"/var/backups/opsh/old.dump\"]]);";
    let ran = run(&home, &format!("{restore} print(\"agreed\");"), 1, "shifts");
    assert_eq!((ran.questions, ran.code), (1, Some(0)), "{}", ran.said);
    assert!(ran.said.contains("/var/backups/opsh/old.dump in the place of shifts"), "{}", ran.said);
    assert!(ran.said.contains("Type shifts to go on"), "{}", ran.said);
    let ran = agreed(&home, restore);
    assert_ne!(ran.code, Some(0), "a y is not what is lost: {}", ran.said);
    let refused = home.run(&["--yes", "-e", restore]).exits(3);
    assert!(
        refused.err.contains("--allow backup.restore") && refused.err.contains("what is lost: shifts"),
        "{refused:?}"
    );
}

// ── the form ──

#[test]
fn a_map_with_words_of_the_script_is_refused_with_the_new_form() {
    let home = Home::new();
    let old = "authorize([#{ verb: \"host.run\", host: \"local\", says: \"uptime\" }]);";
    home.run(&["--yes", "-e", old])
        .exits(2)
        .says(&["not a map: its verb says what it does", "authorize([[\"host.run\", host(\"local\"), …]])"]);
}

#[test]
fn a_plan_names_calls_that_change_something_with_their_arguments() {
    let home = Home::new();
    for (call, why) in [
        ("[\"host.read\", host(\"local\"), [\"df\"]]", "host.read changes nothing"),
        ("[\"undo.guard\", || 1]", "calls a script"),
        ("[\"host.rnu\", host(\"local\"), [\"df\"]]", "there is no verb \"host.rnu\""),
        ("[\"host.run\", [\"df\"]]", "wants a host after its name"),
        ("[\"host.run\", host(\"local\")]", "arguments do not fit"),
        ("[\"host.run\", host(\"local\"), []]", "words is empty"),
        ("[\"host.run\", host(\"local\"), [\"df\"], #{ dri: \"/\" }]", "unknown field `dri`"),
        ("1", "not a list"),
    ] {
        let code = format!("authorize([[\"host.run\", host(\"local\"), [\"df\"]], {call}]);");
        home.run(&["--yes", "-e", &code]).exits(2).says(&["entry 2: ", why]);
    }
}

#[test]
fn a_secret_in_an_argument_is_in_no_question_and_no_record() {
    let home = Home::new();
    let code = "authorize([[\"host.run\", host(\"local\"), [\"env\", \"DB_PASSWORD=tulip-garden-7\", \"true\"]]]);";
    let ran = agreed(&home, code);
    assert_eq!(ran.code, Some(0), "{}", ran.said);
    assert!(!ran.said.contains("tulip"), "{}", ran.said);
    let records = home.records();
    let consent = &records.iter().find(|record| record["kind"] == "consent").expect("a record")["body"];
    assert!(!consent.to_string().contains("tulip"), "{consent}");
    let keys: Vec<&str> = consent.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["by", "calls", "given", "plan"], "words, and no digest that could be tried out");
}
