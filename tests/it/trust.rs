//! Whom opsh trusts is opsh's: an ssh_config of the operator, a jump host, or a key that was known before changes nothing.
//! A `next:` line that an error prints is run as it stands, and cures it.

use super::home::{Home, Ran};
use super::sshd::Sshd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

const ASK: &str = "host(\"web-0\").read([\"echo\", \"let in\"]).out";

/// An opsh whose every ssh reads this configuration: a program in front of ssh names it.
struct Operator {
    home: Home,
    path: String,
}

impl Operator {
    fn with(config: &str, ssh_config: &str) -> Operator {
        let home = Home::new();
        home.put("opsh.toml", config);
        let file = home.put("ssh_config", ssh_config);
        let bin = home.path("bin");
        std::fs::create_dir(&bin).unwrap();
        let ssh =
            String::from_utf8(Command::new("sh").args(["-c", "command -v ssh"]).output().unwrap().stdout).unwrap();
        home.put("bin/ssh", &format!("#!/bin/sh\nexec {} -F '{file}' \"$@\"\n", ssh.trim()));
        std::fs::set_permissions(bin.join("ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        Operator { home, path }
    }

    fn opsh(&self, words: &[&str]) -> Ran {
        self.home.run_with(words, "PATH", &self.path)
    }

    fn ask(&self) -> Ran {
        self.opsh(&["--observe", "-e", ASK])
    }

    /// Runs the `next:` line of an error as a shell does, with `more` behind it.
    fn try_next(&self, ran: &Ran, more: &str) -> Ran {
        let line = ran.err.lines().find_map(|line| line.split_once("opsh host adopt ")).expect(&ran.err).1;
        let words = format!("exec \"$0\" host adopt {line} {more}");
        let mut command = self.home.command(&[]);
        let opsh = command.get_program().to_owned();
        command = {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(words).arg(opsh).current_dir(self.home.0.path());
            shell
                .env("PATH", &self.path)
                .env("HOME", self.home.0.path())
                .env("XDG_STATE_HOME", self.home.path("state"));
            shell.env_remove("XDG_RUNTIME_DIR").stdin(std::process::Stdio::null());
            shell
        };
        Ran::of(command.output().unwrap())
    }
}

fn without_pin(host: &str) -> String {
    host.lines().filter(|line| !line.starts_with("host_key")).map(|line| format!("{line}\n")).collect()
}

fn with_pin(host: &str, pin: &str) -> String {
    without_pin(host).replace("[host.web-0]\n", &format!("[host.web-0]\nhost_key = \"{pin}\"\n"))
}

/// `SHA256:…` of another key.
fn other_key(dir: &Path) -> String {
    let key = dir.join("other");
    assert!(Command::new("ssh-keygen").args(["-qt", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap().success());
    let shown = Command::new("ssh-keygen").arg("-lf").arg(key.with_extension("pub")).output().unwrap();
    String::from_utf8(shown.stdout).unwrap().split(' ').nth(1).unwrap().to_string()
}

#[test]
fn a_program_that_knows_the_key_does_not_overrule_a_pin() {
    let Some(sshd) = Sshd::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let wrong = with_pin(&sshd.host(0, ""), &other_key(dir.path()));
    let known = dir.path().join("known");
    let all = format!("Host *\n KnownHostsCommand /usr/bin/cat {0}\n UserKnownHostsFile {0}\n", known.display());
    let all = all + " StrictHostKeyChecking no\n NoHostAuthenticationForLocalhost yes\n VerifyHostKeyDNS yes\n";
    for config in [wrong.clone(), without_pin(&wrong)] {
        std::fs::write(&known, format!("* {}\nweb-0 {}\n", sshd.host_key(), sshd.host_key())).unwrap();
        let operator = Operator::with(&config, &all);
        let ran = operator.ask().exits(1);
        assert!(ran.err.contains("it offers ED25519 SHA256:") && !ran.out.contains("let in"), "{}", ran.err);
    }
    // The same operator gets in with the right pin.
    Operator::with(&sshd.host(0, ""), &all).ask().exits(0);
}

#[test]
fn an_ssh_that_would_fork_away_is_still_ended() {
    let Some(sshd) = Sshd::start() else { return };
    let all = "Host *\n ForkAfterAuthentication yes\n ControlMaster auto\n ControlPersist yes\n ControlPath ~/.cm-%C\n \
               ForwardAgent yes\n LocalForward 127.0.0.1:1 127.0.0.1:2\n ExitOnForwardFailure yes\n LogLevel QUIET\n \
               RequestTTY force\n RemoteCommand false\n SessionType default\n FingerprintHash md5\n";
    let operator = Operator::with(&sshd.host(0, ""), all);
    let ran = operator.ask().exits(0);
    assert!(ran.out.contains("let in"), "{}", ran.out);
    super::processes::until("no ssh is left", || sshd.clients().is_empty().then_some(()));
}

/// The line of ssh_config for `name`, which is this sshd.
fn named(sshd: &Sshd, name: &str, more: &str) -> String {
    let host = sshd.host(0, "");
    let value = |key: &str| {
        host.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim_matches([' ', '=', '"']).to_string()
    };
    let (login, port) = (value("ssh"), value("port"));
    let (user, address) = login.split_once('@').unwrap();
    format!(
        "Host {name}\n Hostname {address}\n User {user}\n Port {port}\n IdentityFile {}\n{more}\n",
        value("identity")
    )
}

#[test]
fn a_configured_jump_is_checked_and_its_advice_cures_it() {
    let (Some(bastion), Some(sshd)) = (Sshd::start(), Sshd::start()) else { return };
    let target = sshd.host(0, "");
    for (jump, of_toml) in [(" ProxyJump bast\n", ""), ("", "jump = \"bast\"\n")] {
        let config = target.replace("port = ", &format!("{of_toml}port = "));
        let loose = " StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n";
        let all = format!("{}\nHost 127.0.0.1\n{jump}{loose}", named(&bastion, "bast", loose));
        let operator = Operator::with(&config, &all);
        let ran = operator.ask().exits(1);
        let fingerprint = bastion.fingerprint();
        for part in ["the jump host", &fingerprint, "opsh host adopt bast"] {
            assert!(ran.err.contains(part), "{part}: {}", ran.err);
        }
        // A wrong fingerprint adopts nothing.
        operator.try_next(&ran, "--fingerprint SHA256:wrong").exits(3);
        operator.ask().exits(1);
        operator.try_next(&ran, &format!("--fingerprint {fingerprint}")).exits(0);
        assert!(operator.ask().exits(0).out.contains("let in"));
    }
}

#[test]
fn each_jump_of_a_chain_is_checked_and_cured() {
    let (Some(first), Some(second), Some(sshd)) = (Sshd::start(), Sshd::start(), Sshd::start()) else { return };
    let config = sshd.host(0, "").replace("port = ", "jump = \"far\"\nport = ");
    let all = format!("{}{}", named(&first, "near", ""), named(&second, "far", " ProxyJump near\n"));
    let operator = Operator::with(&config, &all);
    let ran = operator.ask().exits(1);
    assert!(ran.err.contains("opsh host adopt near"), "{}", ran.err);
    operator.try_next(&ran, &format!("--fingerprint {}", first.fingerprint())).exits(0);
    let ran = operator.ask().exits(1);
    assert!(ran.err.contains("opsh host adopt far --jump near"), "{}", ran.err);
    operator.try_next(&ran, &format!("--fingerprint {}", second.fingerprint())).exits(0);
    assert!(operator.ask().exits(0).out.contains("let in"));
}

#[test]
fn a_jump_host_whose_key_changed_is_cured_by_its_advice() {
    let (Some(bastion), Some(sshd)) = (Sshd::start(), Sshd::start()) else { return };
    let config = sshd.host(0, "").replace("port = ", "jump = \"bast\"\nport = ");
    let operator = Operator::with(&config, &named(&bastion, "bast", ""));
    let ran = operator.ask().exits(1);
    operator.try_next(&ran, &format!("--fingerprint {}", bastion.fingerprint())).exits(0);
    // Another key is known now, under both of its names.
    other_key(operator.home.0.path());
    let other = std::fs::read_to_string(operator.home.path("other.pub")).unwrap();
    let list = operator.home.path("state/opsh/known_hosts");
    let names = std::fs::read_to_string(&list).unwrap().split(' ').next().unwrap().to_string();
    std::fs::write(&list, format!("{names} {other}")).unwrap();
    let ran = operator.ask().exits(1);
    assert!(ran.err.contains("opsh host adopt --replace bast"), "{}", ran.err);
    operator.try_next(&ran, &format!("--fingerprint {}", bastion.fingerprint())).exits(0);
    operator.ask().exits(0);
}

#[test]
fn a_wrong_pin_is_not_adopted_away() {
    let Some(sshd) = Sshd::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let pin = other_key(dir.path());
    let operator = Operator::with(&with_pin(&sshd.host(0, ""), &pin), "");
    operator.ask().exits(1);
    let ran = operator.opsh(&["host", "adopt", "web-0", "--fingerprint", &sshd.fingerprint()]).exits(3);
    assert!(ran.err.contains(&pin) && ran.err.contains("pins"), "{}", ran.err);
    let ran = operator.ask().exits(1);
    assert!(ran.err.contains(&pin), "{}", ran.err);
    // A key that was adopted before there was a pin is overruled, and named.
    let list = operator.home.path("state/opsh/known_hosts");
    std::fs::write(list, format!("web-0 {}\n", sshd.host_key())).unwrap();
    let ran = operator.ask().exits(1);
    let named = format!("opsh knows {}, which a pin overrules", sshd.fingerprint());
    assert!(ran.err.contains(&pin) && ran.err.contains(&named), "{}", ran.err);
}

#[test]
fn a_host_with_sha1_alone_is_adopted_where_ssh_may() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("rsa");
    let made = Command::new("ssh-keygen").args(["-qt", "rsa", "-b", "2048", "-N", "", "-f"]).arg(&key).status();
    assert!(made.unwrap().success());
    let more = format!("HostKeyAlgorithms ssh-rsa\nHostKey {}\n", key.display());
    let Some(sshd) = Sshd::start_with(&more) else { return };
    let config = without_pin(&sshd.host(0, ""));
    let refused = Operator::with(&config, "").opsh(&["host", "adopt", "web-0", "--fingerprint", "SHA256:x"]).exits(1);
    let advice = "HostKeyAlgorithms +ssh-rsa";
    assert!(refused.err.contains(advice) && refused.err.contains("SHA-1"), "{}", refused.err);
    let operator = Operator::with(&config, &format!("Host 127.0.0.1\n {advice}\n"));
    let shown = Command::new("ssh-keygen").arg("-lf").arg(key.with_extension("pub")).output().unwrap().stdout;
    let fingerprint = String::from_utf8(shown).unwrap().split(' ').nth(1).unwrap().to_string();
    operator.opsh(&["host", "adopt", "web-0", "--fingerprint", &fingerprint]).exits(0);
    assert!(operator.ask().exits(0).out.contains("let in"));
}

#[test]
fn a_mistyped_host_is_adopted_by_nobody() {
    let operator = Operator::with("[host.web-17]\nssh = \"root@127.0.0.1\"\n", "");
    let ran = operator.opsh(&["host", "adopt", "wbe-17"]).exits(1);
    assert!(ran.err.contains("no such host") && ran.err.contains("web-17"), "{}", ran.err);
    operator.opsh(&["host", "adopt", "-oProxyCommand=x"]).exits(2);
    operator.opsh(&["host", "adopt", "--", "-oProxyCommand=touch x"]).exits(2);
}

#[test]
fn a_new_pin_overrules_an_older_known_key() {
    let Some(sshd) = Sshd::start() else { return };
    let operator = Operator::with(&sshd.host(0, ""), "");
    let old = other_key(operator.home.0.path());
    let other = std::fs::read_to_string(operator.home.path("other.pub")).unwrap();
    std::fs::create_dir_all(operator.home.path("state/opsh")).unwrap();
    std::fs::write(operator.home.path("state/opsh/known_hosts"), format!("web-0 {other}")).unwrap();
    operator.ask().exits(0);
    let records = operator.home.records();
    let login = records.iter().find(|record| record["kind"] == "host.login").unwrap();
    assert_eq!(login["body"]["also_known"], serde_json::json!([old]));
}

#[test]
fn a_squatted_folder_in_tmp_keeps_nobody_out() {
    let Some(sshd) = Sshd::start() else { return };
    let operator = Operator::with(&sshd.host(0, ""), "");
    // An opsh without XDG_RUNTIME_DIR keeps its sockets below its state folder.
    operator.ask().exits(0);
    assert!(operator.home.path("state/opsh/ssh").is_dir());
    for unusable in ["a file", "open to others", "a symlink"] {
        let runtime = operator.home.path("run");
        let _ = std::fs::remove_file(&runtime);
        let _ = std::fs::remove_dir_all(&runtime);
        match unusable {
            "a file" => std::fs::write(&runtime, "").unwrap(),
            "a symlink" => {
                let mut private = std::fs::DirBuilder::new();
                private.recursive(true).mode(0o700).create(operator.home.path("elsewhere")).unwrap();
                std::os::unix::fs::symlink("elsewhere", &runtime).unwrap();
            }
            _ => {
                std::fs::create_dir(&runtime).unwrap();
                std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(0o777)).unwrap();
            }
        }
        let mut command = operator.home.command(&["--observe", "-e", ASK]);
        command.env("XDG_RUNTIME_DIR", &runtime);
        Ran::of(command.output().unwrap()).exits(0);
        assert!(!runtime.join("opsh").exists(), "{unusable}");
    }
}

#[test]
fn a_state_folder_with_a_long_path_is_named_with_the_way_out() {
    let Some(sshd) = Sshd::start() else { return };
    let operator = Operator::with(&sshd.host(0, ""), "");
    let long = operator.home.path(&"x".repeat(90));
    let ran = operator.opsh(&["--state-dir", long.to_str().unwrap(), "--observe", "-e", ASK]).exits(2);
    assert!(ran.err.contains("too long") && ran.err.contains("XDG_RUNTIME_DIR"), "{}", ran.err);
}
