//! Going back from a rollback, and going on with one: what the journal offers is what the server does.

use super::lab::Lab;
use super::opsh::{OPSH, Opsh, ROLLBACK};
use super::rollback::{AGREED, assert_serves, roll_back};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;

/// What runs, and what is checked out.
fn served(state: &Value) -> Value {
    json!({ "head": state["head"], "images": state["images"], "api": state["api_status"], "ledger": state["ledger"] })
}

#[test]
fn a_rollback_without_losses_is_undone_and_its_undo_too() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("ADDITIVE");
    let (good, opsh, before) = (lab.release("GOOD"), Opsh::new(&lab), lab.state());
    roll_back(&opsh, &["--yes"], &good.tag).exits(0);
    let after = lab.state();
    assert_ne!(served(&after), served(&before));

    opsh.run(&["undo", "last", "--yes"]).exits(0).prints(&["undone: 4 of 4 effects"]);
    lab.until("the API answers", 60, "curl -sf http://127.0.0.1:8080/api/v1/shifts");
    assert_eq!(served(&lab.state()), served(&before));
    opsh.run(&["undo", "last", "--yes"]).exits(0).prints(&["nothing to undo"]);

    let runs = opsh.run(&["runs", "--json"]).exits(0).out;
    let undo: Value = runs
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|run| run["changes"] != json!(0))
        .unwrap();
    opsh.run(&["undo", undo["run"].as_str().unwrap(), "--yes"]).exits(0);
    lab.until("the API answers", 60, "curl -sf http://127.0.0.1:8080/api/v1/shifts");
    assert_eq!(served(&lab.state()), served(&after));
}

#[test]
fn a_killed_rollback_is_resumed_and_one_that_lost_a_schema_is_not_undone() {
    if !cfg!(debug_assertions) {
        return crate::skip::skip("a release build of opsh cannot be told when to die");
    }
    let Some(lab) = Lab::take() else { return };
    lab.bring("BAD");
    let (good, opsh, before) = (lab.release("GOOD"), Opsh::new(&lab), lab.state());
    let words = [&AGREED[..], &[ROLLBACK, &good.tag]].concat();
    let killed = opsh.start_with(&[OPSH], &words, &[("OPSH_TEST_KILL", "performed:9")]).wait();
    assert_eq!(killed.signal, Some(libc::SIGKILL), "{killed:?}");
    let resumed = opsh.run(&["resume", "last", "--yes", "--allow", "migrate.down"]).exits(0);
    assert!(resumed.err.contains("docker.tag on prod") && resumed.err.contains("it happened"), "{}", resumed.err);
    assert!(resumed.err.contains("step \"checkout\" was done in run"), "{}", resumed.err);
    assert_eq!(opsh.changes("last"), ["docker.tag", "compose.recreate", "release.record"]);
    assert_serves(&lab, &good, &before);

    let listed = opsh.run(&["--json", "runs"]).exits(0).out;
    let first: Value = serde_json::from_str(listed.lines().last().unwrap()).unwrap();
    let refused = opsh.run(&["undo", first["run"].as_str().unwrap(), "--yes"]).exits(3);
    assert!(refused.err.contains("migrate.down on prod") && refused.err.contains("--partly"), "{}", refused.err);
}

/// Answers 200 to the first two looks, those of the plan, and 500 from then on.
fn turns_bad() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let status = if count < 2 { "200 OK" } else { "500 Internal Server Error" };
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    port
}

#[test]
fn a_rollback_that_is_not_healthy_goes_back_to_what_was() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("ADDITIVE");
    let (good, before) = (lab.release("GOOD"), lab.state());
    let probe = format!("probe = [{{ url = \"http://127.0.0.1:{}/\", from = \"here\" }},", turns_bad());
    let opsh = Opsh::configured(&lab, |config| config.replacen("probe = [", &probe, 1));
    let ran = opsh.run(&["--yes", ROLLBACK, &good.tag, "--healthy-within", "10"]).exits(1);
    ran.explains(&["answers 500 instead of 200", "taken back: 3 of 3 effects"]);
    lab.until("the API answers", 60, "curl -sf http://127.0.0.1:8080/api/v1/shifts");
    assert_eq!(served(&lab.state()), served(&before));
}
