//! Secrets of a host in what a run shows and records: cut, changed meanwhile, in files that operators share.

use crate::home::{Home, Ran};

/// Thirty-two letters that stand in the stack's .env file.
const S: &str = "Kq7vXw2LmP9sTzRb4NcYhJ6dGf3EaU8o";
/// The code of a script that has it without naming it.
const SECRET: &str = "host(\"local\").read([\"cat\", \".env\"]).out.split(\"=\")[1].split()[0]";
/// Letters in a row that tell a secret.
const TELLING: usize = 6;

/// A home with a stack on this machine, whose .env file holds [`S`].
fn home() -> Home {
    let home = Home::new();
    home.put(".env", &format!("DB_PASSWORD={S}\n"));
    let dir = home.0.path().display();
    let stack = format!("dir = \"{dir}\"\ncompose = {{ files = [\"c.yml\"], project = \"p\" }}\n");
    home.put("opsh.toml", &format!("[stack.prod]\nhost = \"local\"\n{stack}"));
    home
}

/// No part of a secret that tells it is in the text.
#[track_caller]
fn holds_nothing_of(secret: &str, text: &str) {
    for at in 0..=secret.len() - TELLING {
        let part = &secret[at..at + TELLING];
        if let Some(found) = text.find(part) {
            let (from, to) = (text.floor_char_boundary(found.saturating_sub(99)), text.ceil_char_boundary(found + 99));
            panic!("{part} is shown: {}", &text[from..to.min(text.len())]);
        }
    }
}

/// Neither what the run showed nor what it recorded holds a part of [`S`].
#[track_caller]
fn is_clean(home: &Home, ran: &Ran) {
    for text in [&ran.out, &ran.err, &home.run(&["journal", "export", "last"]).exits(0).out] {
        holds_nothing_of(S, text);
    }
}

#[test]
fn an_error_shows_no_part_of_a_secret_that_its_title_cuts() {
    let home = home();
    for before in [20, 36, 40, 60] {
        let words = format!("[\"sh\", \"-c\", \"exit 3\", \"{}\", {SECRET}]", "a".repeat(before));
        for flags in [&["--yes"][..], &["--yes", "--json"]] {
            let code = format!("host(\"local\").run({words})");
            let ran = home.run(&[flags, &["-e", &code]].concat()).exits(1).says(&["sh -c exit 3 aaaa"]);
            is_clean(&home, &ran);
        }
    }
}
