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

/// Long enough that the middle is left out where half of a MiB is kept at each end, with a secret over each cut.
fn long_output(line_end: &str) -> String {
    let half = 512 << 10;
    let lines = |bytes: usize| format!("{}{line_end}", "o".repeat(63)).repeat(bytes / 64 + 1)[..bytes].to_string();
    format!("{}{S}{}{S}{}", lines(half - 20), lines(2_000_000), lines(half - 12))
}

#[test]
fn an_output_that_is_cut_shows_no_part_of_a_secret_at_the_cuts() {
    for line_end in ["\n", "o"] {
        let home = home();
        home.put("big", &long_output(line_end));
        for verb in ["read", "run"] {
            let out = if verb == "read" { ".out" } else { ".after.out" };
            let code = format!("host(\"local\").{verb}([\"cat\", \"big\"]){out}");
            let ran = home.run(&["--yes", "-e", &code]).exits(0).shows(&["bytes left out …"]);
            is_clean(&home, &ran);
            assert_eq!(ran.out.contains("oooo"), line_end == "\n");
        }
    }
}

#[test]
fn a_secret_that_is_learned_after_the_cut_was_made_is_not_shown_in_part() {
    let home = Home::new();
    home.put("big", &long_output("\n"));
    let dir = home.0.path().display();
    let code = format!("let text = host(\"local\").read([\"cat\", \"{dir}/big\"]).out; print(text)");
    let ran = home.run(&["--yes", "-e", &code]).exits(0);
    holds_nothing_of(S, &ran.out);
}

#[test]
fn what_a_secrets_program_says_is_shown_when_its_value_is_known() {
    for (script, said, code) in [
        (format!("echo the value is {S} >&2; echo {S}"), "the value is •••#", 1),
        (format!("echo {S}; echo no {S} >&2; exit 5"), "no •••#", 2),
    ] {
        let home = Home::new();
        let program = home.put("program", &script);
        // Nobody listens there: the password is needed before.
        let host = "[host.web]\nssh = \"root@127.0.0.1\"\nport = 1\n";
        home.put("opsh.toml", &format!("{host}password = \"cmd:sh {program}\"\n"));
        let ran = home.run(&["--yes", "-e", "host(\"web\").read([\"id\"]).out"]).exits(code).says(&[said]);
        is_clean(&home, &ran);
    }
}

#[test]
fn the_lock_and_the_intent_of_a_stack_hold_no_secret_of_its_host() {
    let home = home();
    let code = format!("stack(\"prod\").locked(\"rotate to {S}\", || {{ host(\"local\").run([\"echo\", \"{S}\"]) }})");
    home.run(&["--yes", "-e", &code]).exits(0);
    let mut files = 0;
    for entry in std::fs::read_dir(home.path(".opsh")).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        holds_nothing_of(S, &text);
        files += usize::from(text.contains("rotate to •••#"));
    }
    assert!(files > 0, "the reason stands nowhere");
}

#[test]
fn a_password_in_an_address_is_neither_shown_nor_recorded() {
    for (address, flags) in [("ssh = \"root:tulip-in-may-71@127.0.0.1\"", false), ("ssh = \"root@127.0.0.1\"", true)] {
        let home = Home::new();
        home.put("opsh.toml", &format!("[host.web]\n{address}\nport = 1\n"));
        let ran = match flags {
            false => home.run(&["--yes", "-e", "host(\"web\").read([\"id\"]).out"]),
            true => home.run(&["root:tulip-in-may-71@127.0.0.1"]),
        };
        assert_ne!(ran.code, Some(0));
        for text in [&ran.out, &ran.err, &home.run(&["runs", "--json"]).out] {
            holds_nothing_of("tulip-in-may-71", text);
        }
    }
}

/// The address of a server here that answers once with this body.
fn answering(body: String) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let _ = std::io::Write::write_all(&mut stream, format!("{head}{body}").as_bytes());
    });
    format!("http://127.0.0.1:{port}/")
}

#[test]
fn an_answer_that_is_cut_shows_no_part_of_a_secret_at_the_cut() {
    let home = home();
    for half in [7, 16, 30] {
        let url = answering(format!("{}{S} and more", "x".repeat((64 << 10) - half)));
        let code =
            format!("host(\"local\").read([\"true\"]); let a = http::get(\"{url}\").body; print(a); print(a.len)");
        let ran = home.run(&["-e", &code]).exits(0);
        assert!(ran.out.ends_with(&format!("xxx\n{}\n", (64 << 10) - half)), "{}", &ran.out[ran.out.len() - 99..]);
        is_clean(&home, &ran);
    }
}

/// A private key that nobody made.
fn key() -> String {
    let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n".repeat(8);
    format!("-----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\n")
}

#[test]
fn the_end_of_what_a_program_said_and_its_lines_in_a_list_show_nothing_of_a_private_key() {
    let home = Home::new();
    let file = home.put("key", &key());
    let said = format!("host(\"local\").run([\"sh\", \"-c\", \"cat {file} >&2; exit 1\"])");
    let tail = format!("host(\"local\").read([\"tail\", \"-n\", \"4\", \"{file}\"]).out");
    let lines = format!("host(\"local\").read([\"cat\", \"{file}\"]).out.split(\"\\n\")");
    let step = format!("step(\"x\", || {lines})");
    for (code, exit) in [(&said, 1), (&tail, 0), (&lines, 0), (&step, 2)] {
        let ran = home.run(&["--yes", "-e", code]).exits(exit);
        let recorded = home.run(&["journal", "export", "last"]).exits(0).out;
        for text in [&ran.out, &ran.err, &recorded] {
            assert!(!text.contains("MIIEvQ"), "{code}: {text}");
        }
    }
}

#[test]
fn what_is_secret_here_is_known_before_the_first_record_and_to_what_goes_over_no_way() {
    let home = home();
    home.put("note", &format!("it is {S}\n"));
    let url = answering(format!("{S}\n"));
    let dir = home.0.path().display();
    for code in [
        format!("print(\"{S}\")"),
        format!("step(\"{S}\", || 1)"),
        format!("file::read(\"{dir}/note\").text"),
        format!("http::get(\"{url}\").body"),
    ] {
        let ran = home.run(&["-e", &code]).exits(0);
        is_clean(&home, &ran);
        holds_nothing_of(S, &home.run(&["runs", "--json"]).out);
    }
}

#[test]
fn a_secret_that_a_change_puts_in_place_is_neither_its_result_nor_recorded() {
    let home = home();
    let new = "nEw0tVbXq5ZkWd8pLrYs";
    let parts = format!("$(printf %s {} {})", &new[..10], &new[10..]);
    for code in [
        format!(
            "host(\"local\").sh(\"n={parts}; echo DB_PASSWORD=$n > .env; echo new $n >&2; exit 3\", [], #{{ dir: \".\" }})"
        ),
        format!("host(\"local\").sh(\"n={parts}; echo DB_PASSWORD=$n > .env; echo new $n\", [], #{{ dir: \".\" }})"),
    ] {
        home.put(".env", &format!("DB_PASSWORD={S}\n"));
        let dir = home.0.path().display().to_string();
        let code = code.replace("dir: \".\"", &format!("dir: {dir:?}"));
        let ran = home.run(&["--yes", "--json", "-e", &code]);
        assert!(ran.out.contains("new •••#") || ran.err.contains("new •••#"), "{ran:?}");
        let recorded = home.run(&["journal", "export", "last"]).exits(0).out;
        assert!(![&ran.out, &recorded].iter().any(|text| text.contains(new)), "{recorded}");
    }
}

#[test]
fn an_environment_hides_no_word_of_a_plan_and_takes_no_inverse_away() {
    let home = home();
    let words = ["file.write", "would", "remov", "local", "undo: ", "backend", "prod"];
    let mut env: String = words.iter().enumerate().map(|(at, word)| format!("V{at}_PASSWORD='{word}'\n")).collect();
    home.put("c.yml", "services:\n  backend: { image: x }\n");
    env.push_str(&format!("DB_PASSWORD={S}\n"));
    home.put(".env", &env);
    let file = home.path("backend.txt").display().to_string();
    let code = format!("file::write({file:?}, \"a\")");
    let plan = home.run(&["--plan", "-e", &code]).exits(0);
    let plan = plan.says(&["file.write  local  would:", "backend.txt", "undo: ", "is not hidden"]);
    assert!(!plan.err.contains("•••"), "{}", plan.err);
    home.run(&["--yes", "-e", &code]).exits(0);
    home.run(&["--yes", "undo", "last"]).exits(0);
    assert!(!home.path("backend.txt").exists());
    is_clean(&home, &home.run(&["-e", SECRET]).exits(0));
}

#[test]
fn env_files_here_of_many_megabytes_are_learned_to_a_bound_and_that_is_said() {
    let home = home();
    let names: Vec<String> = (0..60).map(|at| format!("{at:02}.env")).collect();
    home.put("c.yml", &format!("services: {{ a: {{ env_file: [{}] }} }}\n", names.join(", ")));
    let text: String = (0..4_000).map(|at| format!("V{at}_PASSWORD=lots-of-values-{at}\n")).collect();
    for name in &names {
        home.put(name, &text);
    }
    let ran = home.run(&["-e", SECRET]).exits(0);
    let ran = ran.says(&[
        "and the files that follow it in stack prod on local",
        "under names of secrets of stack prod on local",
    ]);
    is_clean(&home, &ran);
}
