//! Kinds of host keys, and hosts that have an IPv6 address.

use super::tests::{Lab, exited, live, pass, skip, words};
use super::{Login, Reach, connect, offered_keys, remember_key};
use crate::error::Kind;
use std::process::Command;

async fn who(login: &Login) -> String {
    let link = connect(&pass(), login).await.unwrap();
    let name = exited(&Reach::Ssh(link.clone()).run(&pass(), &words(&["id", "-un"])).await, 0);
    link.close().await;
    name
}

/// A further host key of this kind.
fn key(lab_dir: &std::path::Path, kind: &str, bits: &str) -> String {
    let path = lab_dir.join(format!("host-{kind}-{bits}"));
    let made = Command::new("ssh-keygen").args(["-q", "-N", "", "-t", kind, "-b", bits, "-f"]).arg(&path).status();
    assert!(made.unwrap().success());
    path.display().to_string()
}

#[test]
fn a_host_with_a_long_ecdsa_key_alone_is_adopted() {
    let dir = tempfile::tempdir().unwrap();
    for bits in ["256", "384", "521"] {
        let only = format!("HostKeyAlgorithms ecdsa-sha2-nistp{bits}\nHostKey {}", key(dir.path(), "ecdsa", bits));
        let Some(lab) = Lab::start(&only) else { return };
        let login = lab.stranger("root");
        live(async {
            let keys = offered_keys(&pass(), &login).await.unwrap();
            assert_eq!(keys.len(), 1);
            assert_eq!(keys[0].kind, format!("ecdsa-sha2-nistp{bits}"));
            remember_key(&pass(), &login, &keys[0], false).unwrap();
            assert_eq!(who(&login).await, "root\n");
        });
    }
}

#[test]
fn a_pin_finds_its_key_among_several() {
    let dir = tempfile::tempdir().unwrap();
    let (p256, p521) = (key(dir.path(), "ecdsa", "256"), key(dir.path(), "ecdsa", "521"));
    let Some(lab) = Lab::start(&format!("HostKey {p256}\nHostKey {p521}")) else { return };
    let mut login = lab.stranger("root");
    let shown = Command::new("ssh-keygen").args(["-lf", &p521]).output().unwrap().stdout;
    login.host_key = String::from_utf8(shown).unwrap().split(' ').nth(1).map(String::from);
    live(async { assert_eq!(who(&login).await, "root\n") });
}

#[test]
fn a_host_with_sha1_alone_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let only = format!("HostKeyAlgorithms ssh-rsa\nHostKey {}", key(dir.path(), "rsa", "2048"));
    let Some(lab) = Lab::start(&only) else { return };
    let login = lab.stranger("root");
    live(async {
        for error in
            [offered_keys(&pass(), &login).await.unwrap_err(), connect(&pass(), &login).await.err().unwrap().error]
        {
            assert!(error.kind == Kind::Denied && error.why.contains("SHA-1"), "{error}");
            assert!(error.next[0].starts_with("HostKeyAlgorithms +ssh-rsa"), "{:?}", error.next);
        }
    });
}

#[test]
fn an_ipv6_host_is_reached_in_every_form() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        skip("no IPv6 on this machine");
        return;
    }
    let Some(lab) = Lab::start("ListenAddress ::1") else { return };
    let Some(jump) = Lab::start("ListenAddress ::1") else { return };
    let host_key = std::fs::read_to_string(jump.path("host.pub")).unwrap();
    live(async {
        for (dest, port) in [
            ("root@[::1]".to_string(), Some(lab.port)),
            ("root@::1".to_string(), Some(lab.port)),
            (format!("root@[::1]:{}", lab.port), None),
            (format!("root@[::1]:{}", lab.port), Some(lab.port)),
        ] {
            let login = Login { dest, port, ..lab.login("root") };
            assert_eq!(who(&login).await, "root\n", "{}", login.dest);
        }
        let jumped = format!("root@[::1]:{}", jump.port);
        let mut login = Login { jump: Some(jumped.clone()), dest: "root@[::1]".into(), ..lab.login("root") };
        // The jump host is another machine, with the operator's key.
        std::fs::copy(lab.path("id.pub"), jump.path("authorized")).unwrap();
        let list = std::fs::read_to_string(&login.known_hosts).unwrap();
        let error = connect(&pass(), &login).await.err().unwrap().error;
        assert!(error.next[0].contains(&format!("opsh host adopt '{jumped}'")), "{error} {:?}", error.next);
        std::fs::write(&login.known_hosts, format!("{list}[::1]:{} {host_key}", jump.port)).unwrap();
        // No key of the operator is offered to a jump host by the identity of the host: a password is asked for.
        login.jump_password = None;
        let error = connect(&pass(), &login).await.err().unwrap().error;
        assert!(error.kind == Kind::Denied && error.why.contains(&jumped), "{error}");
        let two = Login { dest: format!("root@[::1]:{}", lab.port), port: Some(1), ..lab.login("root") };
        assert_eq!(connect(&pass(), &two).await.err().unwrap().error.kind, Kind::Usage);
    });
}
