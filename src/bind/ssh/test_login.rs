//! Tests of logging in: keys, passwords, host keys, jump hosts, and what is left behind.

use super::tests::{Lab, PASSWORD, command_lines, exited, keygen, live, mark, pass, until, wait_for, words};
use super::{Login, Reach, connect, offered_keys, remember_key};
use crate::error::{Error, Kind};
use crate::redact::Secret;

async fn refused(login: &Login) -> Error {
    match connect(&pass(), login).await {
        Ok(_) => panic!("{} let us in", login.dest),
        Err(failed) => failed.error,
    }
}

async fn who(login: &Login) -> String {
    let link = connect(&pass(), login).await.unwrap();
    let name = exited(&Reach::Ssh(link.clone()).run(&pass(), &words(&["id", "-un"])).await, 0);
    link.close().await;
    name
}

#[test]
fn a_key_and_a_password_let_us_in() {
    let Some(lab) = Lab::start("") else { return };
    live(async {
        assert_eq!(who(&lab.login("root")).await, "root\n");
        assert_eq!(who(&lab.password_login(Some(PASSWORD))).await, "opsh-alice\n");
    });
    assert!(!lab.log().contains("Failed password"), "{}", lab.log());
}

#[test]
fn a_wrong_password_is_tried_exactly_once() {
    for pam in ["", "UsePAM yes\nKbdInteractiveAuthentication yes"] {
        let Some(lab) = Lab::start(pam) else { return };
        live(async {
            let error = refused(&lab.password_login(Some("a wrong password"))).await;
            assert_eq!(error.kind, Kind::Denied);
            assert!(error.why.contains("is wrong; it was tried once"), "{error}");
        });
        let failures = lab.log().lines().filter(|line| line.starts_with("Failed ") && !line.contains("none")).count();
        let pam_failures = lab.log().matches("PAM: Authentication failure").count();
        assert!(failures.max(pam_failures) == 1, "{}", lab.log());
    }
}

#[test]
fn pam_takes_the_right_password() {
    let Some(lab) = Lab::start("UsePAM yes\nKbdInteractiveAuthentication yes") else { return };
    live(async { assert_eq!(who(&lab.password_login(Some(PASSWORD))).await, "opsh-alice\n") });
}

#[test]
fn a_password_that_nobody_configured_is_asked_for_in_words() {
    let Some(lab) = Lab::start("") else { return };
    live(async {
        let error = refused(&lab.password_login(None)).await;
        assert_eq!(error.kind, Kind::Denied);
        assert!(error.next[0].contains("password = \"env:OPSH_WEB_PASSWORD\""), "{:?}", error.next);
    });
    assert!(!lab.log().contains("Failed password"), "{}", lab.log());
}

#[test]
fn a_locked_key_needs_its_passphrase() {
    let Some(lab) = Lab::start("PasswordAuthentication no") else { return };
    keygen(&lab.path("locked"), "open sesame");
    std::fs::copy(lab.path("locked.pub"), lab.path("authorized")).unwrap();
    let with = |passphrase: Option<&str>| {
        let mut login = lab.login("root");
        login.identity = Some(lab.path("locked"));
        login.passphrase = passphrase.map(|text| Secret::new(text.to_string()));
        login
    };
    live(async {
        assert_eq!(who(&with(Some("open sesame"))).await, "root\n");
        let wrong = refused(&with(Some("a wrong password"))).await;
        assert!(wrong.kind == Kind::Denied && wrong.why.contains("locked is wrong"), "{wrong}");
        let missing = refused(&with(None)).await;
        assert!(missing.kind == Kind::Denied && missing.why.contains("has a passphrase"), "{missing}");
    });
}

#[test]
fn a_key_that_is_not_accepted_names_the_methods() {
    let Some(lab) = Lab::start("PasswordAuthentication no") else { return };
    keygen(&lab.path("other"), "");
    let mut login = lab.login("root");
    login.identity = Some(lab.path("other"));
    live(async {
        let error = refused(&login).await;
        assert!(error.kind == Kind::Denied && error.why.contains("publickey"), "{error}");
    });
}

#[test]
fn an_unknown_key_is_refused_until_it_is_adopted() {
    let Some(lab) = Lab::start("") else { return };
    let login = lab.stranger("root");
    live(async {
        let error = refused(&login).await;
        assert_eq!((error.kind, error.next[0].as_str()), (Kind::Denied, "opsh host adopt web"));
        assert!(error.why.contains(&lab.host_fingerprint()), "{error}");

        let keys = offered_keys(&pass(), &login).await.unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!((keys[0].kind.as_str(), keys[0].fingerprint.clone()), ("ssh-ed25519", lab.host_fingerprint()));
        assert!(keys[0].line.starts_with(&format!("web,[127.0.0.1]:{} ssh-ed25519 ", lab.port)), "{}", keys[0].line);
        assert!(!login.known_hosts.exists(), "asking stores nothing");

        remember_key(&pass(), &login, &keys[0], false).unwrap();
        assert_eq!(who(&login).await, "root\n");
    });
}

#[test]
fn a_name_with_capitals_keeps_its_key() {
    let Some(lab) = Lab::start("") else { return };
    let login = Login { name: "Prod-1".into(), ..lab.stranger("root") };
    live(async {
        let keys = offered_keys(&pass(), &login).await.unwrap();
        remember_key(&pass(), &login, &keys[0], false).unwrap();
        assert_eq!(who(&login).await, "root\n");
    });
}

#[test]
fn a_changed_key_stops_until_it_is_replaced() {
    let Some(lab) = Lab::start("") else { return };
    let login = lab.login("root");
    keygen(&lab.path("old"), "");
    let old = std::fs::read_to_string(lab.path("old.pub")).unwrap();
    std::fs::write(&login.known_hosts, format!("web {old}")).unwrap();
    live(async {
        let error = refused(&login).await;
        assert_eq!((error.kind, error.next[0].as_str()), (Kind::Denied, "opsh host adopt --replace web"));
        assert!(error.why.contains(&lab.host_fingerprint()) && error.why.matches("SHA256:").count() == 2, "{error}");

        let keys = offered_keys(&pass(), &login).await.unwrap();
        assert_eq!(remember_key(&pass(), &login, &keys[0], false).unwrap_err().kind, Kind::Refused);
        remember_key(&pass(), &login, &keys[0], true).unwrap();
        assert_eq!(who(&login).await, "root\n");
    });
}

#[test]
fn a_pinned_key_decides_when_none_is_known() {
    let Some(lab) = Lab::start("") else { return };
    let mut login = lab.stranger("root");
    live(async {
        login.host_key = Some("SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU".into());
        let error = refused(&login).await;
        assert!(error.kind == Kind::Denied && error.why.contains(&lab.host_fingerprint()), "{error}");
        assert!(error.why.contains("pins SHA256:+DiY"), "{error}");
        login.host_key = Some(lab.host_fingerprint());
        assert_eq!(who(&login).await, "root\n");
    });
}

fn through(jump: &Lab, lab: &Lab) -> Login {
    let mut login = lab.login("root");
    login.jump = Some(format!("opsh-alice@127.0.0.1:{}", jump.port));
    // The jump host's key is known under its address.
    let key = std::fs::read_to_string(jump.path("host.pub")).unwrap();
    let mut list = std::fs::read_to_string(&login.known_hosts).unwrap();
    list += &format!("[127.0.0.1]:{} {key}", jump.port);
    std::fs::write(&login.known_hosts, list).unwrap();
    login
}

#[test]
fn a_jump_host_gets_its_own_password_and_one_attempt() {
    let (Some(jump), Some(lab)) = (Lab::start(""), Lab::start("")) else { return };
    let mut login = through(&jump, &lab);
    live(async {
        login.password = Some(Secret::new("for the target only".to_string()));
        let error = refused(&login).await;
        assert!(error.kind == Kind::Denied && error.next[0].starts_with("jump_password"), "{error} {:?}", error.next);
        assert!(!jump.log().contains("Failed password"), "{}", jump.log());

        login.jump_password = Some(Secret::new("a wrong password".to_string()));
        let error = refused(&login).await;
        assert!(error.kind == Kind::Denied && error.why.contains("tried once"), "{error}");
        until("the jump host's ssh is gone", || {
            command_lines(&format!("ssh://opsh-alice@127.0.0.1:{}", jump.port)).is_empty()
        })
        .await;
        assert_eq!(jump.log().matches("Failed password").count(), 1, "{}", jump.log());

        login.jump_password = Some(Secret::new(PASSWORD.to_string()));
        assert_eq!(who(&login).await, "root\n");
    });
}

#[test]
fn an_unknown_jump_host_is_refused() {
    let (Some(jump), Some(lab)) = (Lab::start(""), Lab::start("")) else { return };
    let mut login = through(&jump, &lab);
    std::fs::write(&login.known_hosts, "").unwrap();
    login.jump_password = Some(Secret::new(PASSWORD.to_string()));
    live(async {
        let error = refused(&login).await;
        assert!(error.kind == Kind::Denied && error.why.contains("the jump host"), "{error}");
        assert!(error.why.contains(&jump.host_fingerprint()), "{error}");
    });
}

#[test]
fn a_place_without_a_server_is_unreachable() {
    let Some(mut lab) = Lab::start("") else { return };
    live(async {
        let mut login = lab.login("root");
        login.dest = "root@nonexistent.invalid".into();
        let error = refused(&login).await;
        assert!(error.kind == Kind::Unreachable && error.why.contains("no address"), "{error}");
        lab.port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = refused(&lab.login("root")).await;
        assert!(error.kind == Kind::Unreachable && error.why.contains("refused"), "{error}");
    });
}

#[test]
fn a_throttled_login_is_tried_again() {
    // With MaxStartups 1 the server drops a connection while another one logs in.
    let Some(lab) = Lab::start("MaxStartups 1:100:1") else { return };
    let login = lab.login("root");
    live(async {
        let busy = std::net::TcpStream::connect(("127.0.0.1", lab.port)).unwrap();
        let until_dropped = async {
            until("a login is dropped", || lab.log().contains("past MaxStartups")).await;
            drop(busy);
        };
        let (link, ()) = tokio::join!(async { connect(&pass(), &login).await }, until_dropped);
        link.unwrap().close().await;
    });
    assert!(lab.log().contains("past MaxStartups"), "{}", lab.log());
}

#[test]
fn nothing_is_left_of_a_link_that_is_dropped_or_closed() {
    let Some(lab) = Lab::start("") else { return };
    let masters = || command_lines(&lab.path("c").display().to_string()).len();
    live(async {
        let (link, reach) = lab.connect().await;
        assert_eq!(masters(), 1);
        drop(link);
        drop(reach);
        until("the master of a dropped link ends", || masters() == 0).await;

        let (link, reach) = lab.connect().await;
        let mark = mark();
        let running = words(&["sh", "-c", "sleep 777; :", &mark]);
        let pass = pass();
        let run = reach.run(&pass, &running);
        let close = async {
            until("it runs", || !command_lines(&mark).is_empty()).await;
            link.close().await;
        };
        tokio::join!(run, close);
        assert_eq!(masters(), 0);
    });
    let mut left = std::fs::read_dir(lab.path("c")).unwrap();
    assert!(left.next().is_none(), "control directories are removed");
}

#[test]
fn control_directories_of_dead_programs_are_removed() {
    let Some(lab) = Lab::start("") else { return };
    let mut dead = std::process::Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let orphan = lab.path("c").join(format!("{:x}-0", dead.id()));
    live(async {
        let (link, _) = lab.connect().await;
        std::fs::create_dir(&orphan).unwrap();
        let (other, _) = lab.connect().await;
        assert!(!orphan.exists());
        link.close().await;
        other.close().await;
    });
}

/// Runs in a process of its own, which `a_killed_program_leaves_nothing_running` kills.
#[test]
fn program_to_be_killed() {
    let Ok(port) = std::env::var("OPSH_TEST_PORT") else { return };
    let of = |name: &str| std::env::var(format!("OPSH_TEST_{name}")).unwrap();
    let dir = std::path::PathBuf::from(of("DIR"));
    let mut login = Login::new("web", "root@127.0.0.1", dir.join("known_hosts"), dir.join("c"));
    login.port = port.parse().ok();
    login.identity = Some(dir.join("id"));
    live(async {
        let link = connect(&pass(), &login).await.unwrap();
        Reach::Ssh(link).run(&pass(), &words(&["sh", "-c", "sleep 60; :", &of("MARK")])).await;
    });
}

#[test]
fn a_killed_program_leaves_nothing_running() {
    let Some(lab) = Lab::start("") else { return };
    let (mark, login) = (mark(), lab.login("root"));
    let test = format!("{}::program_to_be_killed", module_path!().split_once("::").unwrap().1);
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &test]).env("OPSH_TEST_PORT", lab.port.to_string()).env("OPSH_TEST_MARK", &mark);
    command.env("OPSH_TEST_DIR", lab.dir.path()).stdout(std::process::Stdio::null());
    let mut program = command.spawn().unwrap();
    wait_for("its command runs", || !command_lines(&mark).is_empty());
    program.kill().unwrap();
    program.wait().unwrap();
    wait_for("its command is gone", || command_lines(&mark).is_empty());
    wait_for("its ssh is gone", || command_lines(&login.control_dir.display().to_string()).is_empty());
}

#[test]
fn a_login_given_up_half_way_leaves_no_ssh() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::Builder::new().prefix("opsh").tempdir().unwrap();
    let mut login = Login::new("web", "root@127.0.0.1", dir.path().join("known_hosts"), dir.path().join("c"));
    login.port = Some(silent.local_addr().unwrap().port());
    let control = login.control_dir.display().to_string();
    live(async {
        let pass = pass();
        tokio::select! {
            _ = connect(&pass, &login) => panic!("nobody answers there"),
            () = until("ssh runs", || !command_lines(&control).is_empty()) => {}
        }
        until("ssh is gone", || command_lines(&control).is_empty()).await;
    });
}
