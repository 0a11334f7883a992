//! Work that goes on without the opsh that began it: seen, waited for, ended.

use crate::home::Home;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

/// A home, and a run on this machine that waits for a line in the pipe `go`, whose opsh is dead.
fn left_running() -> (Home, String) {
    let home = Home::new();
    home.put("opsh.toml", "");
    let go = home.path("go").display().to_string();
    assert!(std::process::Command::new("mkfifo").arg(&go).status().unwrap().success());
    let code = format!("host(\"local\").run([\"sh\", \"-c\", \"echo be''gun; read x <{go}; echo \\\"got $x\\\"\"])");
    let mut child = home.command(&["--yes", "-e", &code]).env("USER", "alice").stderr(Stdio::piped()).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    // Its output is on the screen as it comes: it has begun.
    while !line.contains("begun") {
        line.clear();
        assert!(err.read_line(&mut line).unwrap() > 0, "the run ended before it began");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let _ = err.read_to_string(&mut line);
    (home, go)
}

fn works(home: &Home) -> Vec<Value> {
    let ran = home.run(&["--json", "-e", "host(\"local\").works().works"]).exits(0);
    serde_json::from_str(&ran.out).unwrap()
}

#[test]
fn a_run_whose_opsh_died_goes_on_says_who_began_it_and_can_be_waited_for() {
    let (home, go) = left_running();
    let works = works(&home);
    let work = works
        .iter()
        .find(|work| work["by"].as_str().unwrap().starts_with("alice@"))
        .unwrap_or_else(|| panic!("{works:?}"));
    assert_eq!((&work["state"], &work["verb"]), (&"running".into(), &"host.run".into()));
    let wait = format!("host(\"local\").wait_for({})", work["id"]);
    let waiting = home.command(&["-e", &wait]).spawn().unwrap();
    std::fs::write(&go, "a word\n").unwrap();
    let ended = waiting.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && out.contains("got a word") && err.contains("got a word"), "{out}{err}");
}

#[test]
fn a_run_is_ended_half_way_by_a_destroy_that_needs_its_name() {
    let (home, _) = left_running();
    let id = works(&home)[0]["id"].clone();
    let kill = format!("host(\"local\").kill({id})");
    home.run(&["--yes", "-e", &kill]).exits(3).says(&["--allow work.kill", "what is lost"]);
    home.run(&["--allow", "work.kill", "-e", &kill]).exits(0).says(&["✓ work.kill"]);
    assert_ne!(works(&home)[0]["state"], "running");
    home.run(&["-e", "host(\"local\").wait_for(\"20000101-000000-none.1\")"]).exits(1).says(&["no work"]);
}
