//! `opsh demo`: with nothing but the binary, and without a network.

use super::home::{Home, OPSH, Ran};
use super::terminal::{End, SIZES, Terminal};
use std::path::Path;
use std::process::{Command, Stdio};

/// The binary with no PATH, in a network of its own that leads nowhere; `None` where that cannot be made.
fn alone(home: &Home, words: &[&str]) -> Option<Ran> {
    let bare = |program: &str| {
        let mut command = Command::new(program);
        command.current_dir(home.0.path()).env_clear().stdin(Stdio::null());
        command
    };
    let namespace = ["-n", "--", "/bin/true"];
    if !bare("/usr/bin/unshare").args(namespace).output().is_ok_and(|made| made.status.success()) {
        crate::skip::skip("no network namespace can be made");
        return None;
    }
    let mut command = bare("/usr/bin/unshare");
    command.args(["-n", "--", "/usr/bin/env", "PATH=/nowhere", "HOME=/nowhere", "TZ=UTC", OPSH]).args(words);
    Some(Ran::of(command.output().unwrap()))
}

fn postmortem(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("postmortem.md")).unwrap()
}

#[test]
fn it_plays_through_without_network_and_programs_and_leaves_a_postmortem() {
    let home = Home::new();
    let Some(ran) = alone(&home, &["demo", "--auto", "--dir", "incident"]) else { return };
    // The page's way: the same image behind a green health check, and an API that still fails.
    let ran = ran.exits(0).says(&[
        "✓ host.sh  prod-1",
        "error: prod is not healthy after 10 s",
        "✓ migrate.down  prod",
        "✓ compose.recreate  prod",
    ]);
    let shown = [
        "prod on prod-1: BAD\n",
        "\n200\n200\ntrue\n",
        "a plan: nothing was changed\n",
        "answers 200\nprod on prod-1: OK\n",
    ];
    let mut from = 0;
    for part in shown {
        let at = ran.out[from..].find(part).unwrap_or_else(|| panic!("no {part:?} behind {from} of {}", ran.out));
        from += at + part.len() - 1;
    }
    let text = postmortem(&home.path("incident"));
    for part in ["# Incident report", "## Timeline", "the API answers 500 since v1.9.0", "migrate.down", "host.sh"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let state = home.path("incident/state").display().to_string();
    home.run(&["--state-dir", &state, "journal", "verify"]).exits(0);
    // What it says to type at its end.
    assert!(ran.err.contains(&format!("opsh --state-dir {state} runs")), "{}", ran.err);
    home.run(&["--state-dir", &state, "runs"]).exits(0).shows(&["rollback v1.8.0", "prompt"]);
    assert!(!home.path("state").exists(), "it has a folder of its own for all that it writes");
}

#[test]
fn without_a_terminal_or_a_new_folder_nothing_is_played() {
    let home = Home::new();
    home.run(&["demo"]).exits(2).says(&["there is no terminal to type at", "opsh demo --auto"]);
    std::fs::create_dir(home.path("mine")).unwrap();
    home.put("mine/postmortem.md", "my own\n");
    home.run(&["demo", "--auto", "--dir", "mine"]).exits(2).says(&["cannot be used for the demo", "File exists"]);
    assert_eq!(postmortem(&home.path("mine")), "my own\n");
}

#[test]
fn a_person_goes_through_it_with_enter_and_may_type_besides() {
    let steps = include_str!("../../src/cli/demo/look.guide").lines().filter(|line| !line.starts_with('#')).count();
    for (columns, rows) in SIZES {
        let home = Home::new();
        let mut terminal = Terminal::start(&home, columns, rows, &["demo", "--dir", "incident"]);
        terminal.until_line("opsh prod (observe) › status");
        // As often as somebody wants: it is how it was at that time.
        let out = "\x15";
        terminal.says("", &["prod on prod-1: BAD"]).says(&format!("{out}status"), &["prod on prod-1: BAD"]);
        for unknown in ["restart backend", "ps", "rollback v1.8.0"] {
            terminal.says(&format!("{out}{unknown}"), &["error: ", "this is a recording"]);
        }
        for step in 1..steps {
            let next = terminal.prompts() + 1;
            terminal.keys("\r");
            if step + 1 < steps {
                terminal.until_prompts(next);
            }
        }
        for asked in 1..=4 {
            terminal.until_written("Enter runs it:", asked).keys("\r");
        }
        let end = terminal.ends();
        assert!(matches!(end, End::Exit(0)), "{end:?} {}", terminal.screen());
        assert!(postmortem(&home.path("incident")).contains("## Timeline"));
    }
}
