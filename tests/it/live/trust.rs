//! Host keys: nobody is talked to who is not known, and getting to know somebody takes a fingerprint.

use super::lab::Lab;
use super::opsh::Opsh;

const CONNECT: [&str; 2] = ["-e", "host(\"prod-1\").connect()"];

fn without_pin(config: String) -> String {
    config.lines().filter(|line| !line.starts_with("host_key")).map(|line| format!("{line}\n")).collect()
}

/// A fingerprint that is not the host's.
fn wrong(right: &str) -> String {
    let last = if right.ends_with('A') { "B" } else { "A" };
    format!("{}{last}", &right[..right.len() - 1])
}

#[test]
fn an_unknown_host_is_adopted_by_its_fingerprint_and_by_no_other() {
    let Some(lab) = Lab::take() else { return };
    let opsh = Opsh::configured(&lab, without_pin);
    let right = lab.setting("HOST_KEY");
    let logins = || lab.exec(&["cat", "/var/log/sshd.log"]).matches("Accepted password").count();
    let before = logins();
    opsh.run(&CONNECT).exits(1).explains(&["opsh host adopt prod-1", right]);
    opsh.run(&["host", "adopt", "prod-1"]).exits(3).explains(&["--fingerprint"]);
    opsh.run(&["host", "adopt", "prod-1", "--fingerprint", &wrong(right)]).exits(3).explains(&["no key with that"]);
    opsh.run(&CONNECT).exits(1).explains(&["opsh host adopt prod-1"]);
    assert_eq!(logins(), before, "nobody logged in so far");
    opsh.run(&["host", "adopt", "prod-1", "--fingerprint", right]).exits(0).prints(&[right]);
    opsh.run(&CONNECT).exits(0);
    assert_eq!(logins(), before + 1);
    let kinds: Vec<String> = opsh.journal("last").iter().map(|record| record["kind"].to_string()).collect();
    assert!(kinds.iter().any(|kind| kind.contains("effect.read")), "{kinds:?}");
}

#[test]
fn a_changed_host_key_is_refused_until_it_is_replaced() {
    let Some(lab) = Lab::take() else { return };
    // A pin would decide alone.
    let opsh = Opsh::configured(&lab, without_pin);
    let right = lab.setting("HOST_KEY").to_string();
    let other = std::fs::read_to_string(lab.file("keys/deploy.pub")).unwrap();
    let other = other.split_whitespace().nth(1).unwrap();
    std::fs::create_dir_all(opsh.state_dir()).unwrap();
    std::fs::write(opsh.state_dir().join("known_hosts"), format!("prod-1 ssh-ed25519 {other}\n")).unwrap();
    let sessions = || lab.exec(&["cat", "/var/log/sshd.log"]).matches("Accepted password").count();
    let before = sessions();
    opsh.run(&CONNECT).exits(1).explains(&["opsh host adopt --replace prod-1", &right]);
    opsh.run(&["host", "adopt", "prod-1", "--fingerprint", &right]).exits(3).explains(&["--replace"]);
    let replace = ["host", "adopt", "--replace", "prod-1", "--fingerprint"];
    opsh.run(&[&replace[..], &[&wrong(&right)]].concat()).exits(3).explains(&["--replace"]);
    opsh.run(&CONNECT).exits(1).explains(&["opsh host adopt --replace prod-1"]);
    assert_eq!(sessions(), before);
    opsh.run(&[&replace[..], &[&right]].concat()).exits(0);
    let journal = opsh.journal("last");
    let adopted = journal.iter().find(|record| record["kind"] == "effect.begin").expect("a change, recorded before");
    assert_eq!(adopted["body"]["args"]["fingerprint"], right.as_str());
    opsh.run(&CONNECT).exits(0);
}
