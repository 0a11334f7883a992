//! Tab at a real terminal, for each kind of thing that it offers.

use super::home::Home;
use super::processes::until;
use super::sshd::Sshd;
use super::terminal::{End, SIZES, Terminal, current};
use serde_json::Value;
use std::net::TcpListener;
use std::process::Command;

const CTRL_U: &str = "\x15";

/// Nothing of it can be reached; the port is one that this test listens on.
fn config(port: u16) -> String {
    format!(
        "[host.prod-1]\nssh = \"ops@127.0.0.1\"\nport = {port}\ntags = [\"web\"]\n\n\
         [host.prod-2]\nssh = \"ops@127.0.0.1\"\nport = {port}\n\n\
         [stack.prod]\nhost = \"prod-1\"\ndir = \"/srv/prod\"\n\
         compose = {{ files = [\"compose.yml\"], project = \"prod\" }}\n\n\
         [stack.prod.services.backend]\nexpects = []\n\n\
         [stack.\"pr\\\"odd\"]\nhost = \"local\"\ndir = \"/srv/odd\"\n\
         compose = {{ files = [\"compose.yml\"], project = \"odd\" }}\n"
    )
}

#[test]
fn tab_offers_each_kind_at_once_and_connects_to_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let home = Home::new();
    home.put("opsh.toml", &config(listener.local_addr().unwrap().port()));
    std::fs::create_dir(home.path("scripts")).unwrap();
    home.put("scripts/roll.rhai", "");
    for (columns, rows) in SIZES {
        let terminal = Terminal::start(&home, columns, rows, &[]);
        terminal.until_line("opsh ›");
        let lines = ["let p = stack(\"prod\")", "let found = #{ state: 1, \"a-b\": 2 }", "fn ship(tag) { tag }"];
        for line in lines {
            terminal.says(line, &[]).until_line("opsh ›");
        }
        let tabs = [
            ("sta", "stack("),
            ("shi", "ship("),
            ("foun", "found"),
            ("whil", "while"),
            ("htt", "http::"),
            ("http::g", "http::get("),
            ("p.recr", "p.recreate("),
            ("p.rep", "p.repo"),
            ("stack(\"prod\").repo.che", "stack(\"prod\").repo.checkout("),
            ("host(\"local\").rep", "host(\"local\").repo("),
            ("found.sta", "found.state"),
            ("found[\"a", "found[\"a-b\""),
            ("stack(\"prod", "stack(\"prod\""),
            ("stack(\"pr\\\"", "stack(\"pr\\\"odd\""),
            ("host(\"prod-1", "host(\"prod-1\""),
            ("hosts([\"loc", "hosts([\"local\""),
            ("hosts(\"we", "hosts(\"web\""),
            ("p.recreate(\"ba", "p.recreate(\"backend\""),
            ("import \"std/ro", "import \"std/rollout\""),
            ("help docker.resta", "help docker.restart"),
            (":load sc", ":load scripts/roll.rhai"),
            (":rev", ":reveal"),
            ("@prod-1", "@prod-1"),
            ("@prod/b", "@prod/backend"),
        ];
        for (typed, completed) in tabs {
            // The colon shows that the cursor is at its end, and that no hint is taken for it.
            terminal.keys(typed).keys("\t").keys(":").until_line(&format!("opsh › {completed}:"));
            terminal.keys(CTRL_U).until_line("opsh ›");
        }
    }
    let tried = listener.accept().map(|(_, from)| from);
    assert_eq!(tried.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn several_candidates_are_a_list_with_what_each_is() {
    let home = Home::new();
    home.put("opsh.toml", &config(9));
    for (columns, rows) in SIZES {
        let terminal = Terminal::start(&home, columns, rows, &[]);
        terminal.until_line("opsh ›");
        terminal.keys("stack(\"prod\").p\t").until("ps() -> array  ").until("probe() -> array  ");
        // What was typed is still there, below the list.
        terminal.until_line("opsh › stack(\"prod\").p");
        terminal.keys("s\t").until_line("opsh › stack(\"prod\").ps()");
        terminal.keys(CTRL_U).until_line("opsh ›");
        terminal.keys("host(\"p\t").until("prod-1\"  host").until("prod-2\"  host");
        terminal.until_line("opsh › host(\"prod-");
    }
}

#[test]
fn a_long_list_is_one_of_names_and_fits_the_screen() {
    let home = Home::new();
    for (columns, rows) in SIZES {
        let terminal = Terminal::start(&home, columns, rows, &[]);
        terminal.until_line("opsh ›");
        terminal.keys("stack(\"prod\").\t").until("backup(").until("wait_healthy(");
        terminal.keys("ps()").until_line("opsh › stack(\"prod\").ps()");
        let shown = terminal.screen();
        assert!(shown.starts_with("opsh: ") && !shown.contains("--More--"), "{shown}");
        assert!(terminal.look(|screen| (0..rows).all(|row| !screen.row_wrapped(row))), "{shown}");
    }
}

#[test]
fn words_of_the_stack_in_use_take_their_options_and_its_services() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        home.put(
            "opsh.toml",
            "[stack.shop]\nhost = \"local\"\ndir = \"/nowhere\"\n\
             compose = { files = [\"compose.yml\"], project = \"shop\" }\nservices = { web = {}, worker = {} }\n",
        );
        let terminal = Terminal::start(&home, columns, rows, &[]);
        let prompt = "opsh shop (observe) ›";
        terminal.until_line(prompt);
        for (typed, completed) in [
            ("recr", "recreate"),
            ("recreate we", "recreate web"),
            ("logs web --t", "logs web --tail"),
            ("logs = sta", "logs = stack("),
            (":us", ":use"),
            ("@shop/wo", "@shop/worker"),
        ] {
            terminal.keys(typed).keys("\t").keys(":").until_line(&format!("{prompt} {completed}:"));
            terminal.keys(CTRL_U).until_line(prompt);
        }
        terminal.keys("logs \t").until("web  service").until("worker  service").until_line(&format!("{prompt} logs w"));
    }
}

/// Two stacks on one host, each a repository with one tag that no file names.
fn two_stacks(home: &Home, sshd: &Sshd) {
    let mut config = sshd.host(0, "sandbox = true");
    for (name, tag) in [("shop", "v7.1.0"), ("mail", "v8.2.0")] {
        let dir = home.path(name);
        let init = "git init -q \"$0\" && cd \"$0\" && git -c user.name=t -c user.email=t@t commit -q --allow-empty -m one && git tag \"$1\"";
        assert!(Command::new("sh").args(["-c", init]).arg(&dir).arg(tag).status().unwrap().success());
        config += &format!(
            "[stack.{name}]\nhost = \"web-0\"\ndir = \"{}\"\n\
             compose = {{ files = [\"compose.yml\"], project = \"nobody-{name}\" }}\nservices = {{ web = {{}} }}\n",
            dir.display()
        );
    }
    home.put("opsh.toml", &config);
}

/// The line that Tab makes of what is typed at an empty prompt, without the colon typed behind it.
fn completed(terminal: &Terminal, prompt: &str, typed: &str) -> String {
    terminal.keys(typed).keys("\t").keys(":");
    terminal.wait_for("the line completed", |screen| current(screen).ends_with(':'));
    let line = terminal.look(current);
    terminal.keys(CTRL_U).until_line(prompt);
    line.trim_start_matches(prompt).trim_end_matches(':').trim().into()
}

/// Kind and body of the records of system runs, oldest first.
fn beside(home: &Home) -> Vec<(String, Value)> {
    let database = rusqlite::Connection::open(home.journal()).unwrap();
    let sql = "SELECT kind, body FROM journal WHERE run IN (SELECT run FROM journal WHERE kind = 'system.start') ORDER BY seq";
    let mut statement = database.prepare(sql).unwrap();
    let body = |text: String| serde_json::from_str(&text).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, body(row.get(1)?)))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// How the reads of tags ended.
fn reads_of_tags(home: &Home) -> Vec<String> {
    let reads = beside(home).into_iter().filter(|(_, body)| body["verb"] == "git.tags");
    reads.map(|(_, body)| body["outcome"].as_str().unwrap().into()).collect()
}

#[test]
fn tags_of_a_host_that_is_connected_are_offered_after_a_line_and_hang_nobody_when_it_does() {
    for (columns, rows) in SIZES {
        let Some(sshd) = Sshd::start() else { return };
        let home = Home::new();
        two_stacks(&home, &sshd);
        let mut terminal = Terminal::start(&home, columns, rows, &[]);
        let line = |terminal: &Terminal, typed: &str, prompt: &str| {
            terminal.says(typed, &[]).until_line(prompt);
        };
        terminal.until_line("opsh ›");
        line(&terminal, ":use shop", "opsh shop ›");
        // No login is begun for a name.
        assert_eq!(completed(&terminal, "opsh shop ›", "mark_bad v7"), "mark_bad v7");
        line(&terminal, "@ true", "opsh shop ›");
        until("the tag that no file names", || {
            (completed(&terminal, "opsh shop ›", "mark_bad v7") == "mark_bad v7.1.0").then_some(())
        });

        sshd.freeze();
        line(&terminal, ":use mail", "opsh mail ›");
        assert_eq!(completed(&terminal, "opsh mail ›", "mark_bad v8"), "mark_bad v8");
        assert_eq!(completed(&terminal, "opsh mail ›", "logs w"), "logs web");
        line(&terminal, "40 + 2", "opsh mail ›");
        terminal.until("42");
        terminal.keys("\x04");
        assert_eq!(terminal.ends(), End::Exit(0));

        assert_eq!(reads_of_tags(&home), ["ok", "interrupted"]);
        let read_for = |what: &str| {
            let is_one = |(kind, body): &&(String, Value)| kind == "system.start" && body["what"] == what;
            beside(&home).iter().filter(is_one).count()
        };
        assert_eq!((read_for("names for Tab"), read_for("who has the lock")), (2, 2));
        let runs = home.run(&["runs", "--json"]).exits(0).json_lines();
        assert_eq!(runs.iter().map(|run| run["what"].as_str().unwrap()).collect::<Vec<_>>(), ["prompt"]);
        assert!(!terminal.raw().contains("git.tags"), "nothing is shown of it");
        home.run(&["journal", "verify"]).exits(0);
    }
}
