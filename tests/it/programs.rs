//! Programs that have the terminal themselves: they get every key, opsh draws nothing meanwhile, and whatever ends them,
//! the terminal is as it was.

use super::home::{Home, story_of};
use super::sshd::Sshd;
use super::terminal::{SIZES, Terminal};

#[test]
fn a_program_here_has_every_key_and_its_screen_is_in_no_record() {
    for (columns, rows) in SIZES {
        let home = Home::new();
        let terminal = Terminal::start(&home, columns, rows, &[]);
        terminal.until_line("opsh ›");
        let before = terminal.attributes();
        let next = terminal.prompts() + 1;
        // Ctrl-C is the program's, and opsh does not hear of it.
        terminal.keys("!-t trap 'echo caught' INT; stty -echo; echo up; while ! read a; do :; done; echo \"got $a\"\r");
        terminal.agree().until("\nup").keys("\x03").until("caught").keys("tulip-17\r").until("got tulip-17");
        terminal.until_prompts(next);
        assert_eq!(terminal.attributes(), before, "the echo is back");
        // One that Ctrl-C ends is no error of opsh, nor is an exit code: the value says it.
        terminal.keys("!-t echo waits; exec cat\r");
        terminal.agree().until("\nwaits").keys("\x03").until_prompts(next + 1);
        terminal.keys("`code ${it.after.code}`\r").until("code 130").until_prompts(next + 2);
        terminal.keys("!-t no-such-program-17\r");
        terminal.agree().until("there is no program \"no-such-program-17\"").until_prompts(next + 3);
        // A shell ends with the code of what was typed last into it: that is no error, and it is said.
        terminal.keys("!-t sh\r");
        terminal
            .agree()
            .until_line("#")
            .keys("nonsense-17; exit\r")
            .until("it ended with exit code 127")
            .until_prompts(next + 4);
        terminal.keys("!-t kill -QUIT 0; echo still here\r");
        terminal.agree().until_prompts(next + 5).keys("40 + 2\r").until("\n42");
        terminal.keys(":quit\r");
        let records = home.sitting();
        let story = story_of(&records);
        assert_eq!(story.iter().filter(|line| line.starts_with("effect.begin")).count(), 5, "{story:?}");
        let first = records.iter().find(|record| record["kind"] == "effect.end").unwrap();
        assert_eq!((&first["body"]["after"]["code"], &first["body"]["after"]["opaque"]), (&0.into(), &true.into()));
        let all = serde_json::to_string(&records).unwrap();
        assert!(!all.contains("tulip-17"), "what was typed is recorded: {all}");
    }
}

#[test]
fn a_program_on_a_host_sees_this_terminal_and_its_size_as_it_changes() {
    let Some(sshd) = Sshd::start() else { return };
    let home = Home::new();
    home.put("opsh.toml", &sshd.host(1, ""));
    for (columns, rows) in SIZES {
        let terminal = Terminal::start(&home, columns, rows, &[]);
        terminal.until_line("opsh ›");
        terminal.keys("@web-1 -t trap 'stty size' WINCH; stty size; echo $TERM; while ! read a; do :; done; echo \"got $a\"; exit 3\r");
        terminal.agree().until(&format!("{rows} {columns}")).until("xterm-256color");
        terminal.resize(100, 30);
        terminal.until("30 100").keys("夜勤\r").until("got 夜勤").until_prompts(2);
        assert!(terminal.screen().contains("✓ host.terminal  web-1"), "{}", terminal.screen());
        terminal.keys("`code ${it.after.code}`\r").until("code 3");
    }
}

#[test]
fn a_link_that_breaks_under_a_program_gives_back_a_terminal_that_can_be_used() {
    for (columns, rows) in SIZES {
        let Some(mut sshd) = Sshd::start() else { return };
        let home = Home::new();
        home.put("opsh.toml", &sshd.host(1, ""));
        let terminal = Terminal::start(&home, columns, rows, &[]);
        terminal.until_line("opsh ›");
        let before = terminal.attributes();
        terminal.keys("@web-1 -t printf '\\033[?1049h\\033[?25l'; echo whole; exec cat\r");
        terminal.agree().wait_for("a screen of its own", |screen| screen.alternate_screen() && screen.hide_cursor());
        sshd.stop();
        terminal.until_line("opsh (1 may have happened) ›");
        assert!(terminal.look(|screen| !screen.alternate_screen() && !screen.hide_cursor()));
        assert_eq!(terminal.attributes(), before);
        terminal.until("the connection to web-1 was lost").keys("40 + 2\r").until("42");
    }
}

#[test]
fn without_a_terminal_for_several_hosts_and_with_a_secret_nothing_is_started() {
    let home = Home::new();
    let start = "host(\"local\").terminal([\"sh\", \"-c\", \"touch started\"])";
    home.run(&["--yes", "-e", start]).exits(1).says(&["there is no terminal that it could have"]);
    home.put("opsh.toml", "[host.web]\nssh = \"a@b\"\ntags = [\"web\"]\npassword = \"file:password\"\n");
    home.put("password", "tulip-9-canary\n");
    let fleet = "hosts(\"web\").terminal([\"top\"])";
    home.run(&["--yes", "-e", fleet]).exits(2).says(&["name one host"]);
    let secret = "host(\"local\").terminal([\"psql\", \"postgres://app:tulip-9-canary@db\"])";
    let ran = home.run(&["--yes", "-e", secret]).exits(2).says(&["type it into the program"]);
    assert!(!format!("{ran:?}").contains("tulip-9"), "{ran:?}");
    home.run(&["--plan", "-e", start]).exits(0).says(&["would:", "touch started"]);
    assert!(!home.path("started").exists());
}
