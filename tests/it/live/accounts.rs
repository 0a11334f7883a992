//! Other ways in and out: the account with a key, values for programs, Ctrl-C.

use super::lab::Lab;
use super::opsh::{Opsh, ROLLBACK};
use super::rollback::{AGREED, assert_serves};

#[test]
fn an_account_with_a_key_can_roll_back_too() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("BAD");
    // Dumps hold everything: each account has a folder of its own for them.
    let _folder = lab.afterwards("rm -rf /var/backups/opsh-deploy");
    lab.sh("install -d -m 700 -o deploy /var/backups/opsh-deploy");
    let own = "[stack.prod-key]\nbackup = { dir = \"/var/backups/opsh-deploy\" }";
    let opsh = Opsh::configured(&lab, |config| config.replacen("[stack.prod-key]", own, 1));
    let good = lab.release("GOOD");
    let before = lab.state();
    opsh.run(&[&AGREED[..], &[ROLLBACK, &good.tag, "--stack", "prod-key"]].concat()).exits(0);
    assert_serves(&lab, &good, &before);
    // What one account left must not stand in the other's way.
    lab.bring("BAD");
    let before = lab.state();
    opsh.run(&[&AGREED[..], &[ROLLBACK, &good.tag]].concat()).exits(0);
    assert_serves(&lab, &good, &before);
}

#[test]
fn json_prints_one_line_of_it_and_nothing_else() {
    let Some(lab) = Lab::take() else { return };
    let opsh = Opsh::new(&lab);
    let ran = opsh.run(&["--json", "-e", "print(\"aside\"); stack(\"prod\").ps()"]).exits(0);
    assert_eq!(ran.out.lines().count(), 1, "{}", ran.out);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&ran.out).unwrap();
    let services: Vec<&str> = rows.iter().map(|row| row["service"].as_str().unwrap()).collect();
    assert_eq!(services, ["backend", "db"]);
    assert!(ran.err.contains("aside"));
    let ran = opsh.run(&["--json", "-e", "stack(\"prdo\")"]).exits(2);
    let error: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(error["kind"], "usage");
}

#[test]
fn ctrl_c_ends_a_wait_and_is_recorded() {
    let Some(lab) = Lab::take() else { return };
    lab.have("BAD");
    let opsh = Opsh::new(&lab);
    let asked = || lab.exec(&["sh", "-c", "docker logs vrc-shift-backend 2>&1 | grep -c '/api/v1/shifts'; true"]);
    let asked = || asked().trim().parse::<u32>().unwrap();
    let before = asked();
    let running = opsh.start(&["-e", "stack(\"prod\").wait_healthy(#{ within_s: 100 })"]);
    super::lab::poll("it asks the probe again and again", 20, || asked() >= before + 2);
    running.signal(libc::SIGINT);
    running.wait().exits(130).explains(&["Ctrl-C"]);
    let journal = opsh.journal("last");
    let wait = journal.iter().find(|record| record["body"]["verb"] == "http.wait_healthy").expect("recorded");
    assert_eq!(wait["body"]["outcome"], "interrupted");
    assert_eq!(journal.last().unwrap()["body"]["outcome"], "interrupted");
}
