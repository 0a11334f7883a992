//! Tab at a real terminal, for each kind of thing that it offers.

use super::home::Home;
use super::terminal::Terminal;
use std::net::TcpListener;

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
    for (columns, rows) in [(80, 24), (120, 40)] {
        let terminal = Terminal::start(&home, columns, rows, &[]);
        terminal.until_line("opsh ›");
        let lines = ["let p = stack(\"prod\")", "let found = #{ state: 1, \"a-b\": 2 }", "fn ship(tag) { tag }"];
        for line in lines {
            let next = terminal.prompts() + 1;
            terminal.keys(line).keys("\r").until_prompts(next).until_line("opsh ›");
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
    for (columns, rows) in [(80, 24), (120, 40)] {
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
    for (columns, rows) in [(80, 24), (120, 40)] {
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
    let home = Home::new();
    home.put(
        "opsh.toml",
        "[stack.shop]\nhost = \"local\"\ndir = \"/nowhere\"\n\
         compose = { files = [\"compose.yml\"], project = \"shop\" }\nservices = { web = {}, worker = {} }\n",
    );
    let terminal = Terminal::start(&home, 80, 24, &[]);
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
