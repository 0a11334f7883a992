//! Secrets of a stack are hidden in the first output of a new process, whichever verb shows it first.

use super::lab::Lab;
use super::opsh::Opsh;

/// Each line runs in a process of its own, with a state folder of its own; `v` is the secret, put together of two halves
/// so that the line itself has it nowhere.
const FIRST: &[&str] = &[
    r#"host("prod-1").read(["cat", "/tmp/opsh-first"]).out"#,
    r#"stack("prod").db.query("SELECT 'a' || $1 AS x", [v])"#,
    r#"host("prod-1").run(["cat", "/tmp/opsh-first"])"#,
    r#"host("prod-1").sh("cat /tmp/opsh-first >&2; exit 3", [])"#,
    r#"host("prod-1").read(["ls", "/tmp/opsh-first." + v])"#,
];

#[test]
fn the_first_output_of_a_process_hides_secrets_of_stacks() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let _file = lab.afterwards("rm -f /tmp/opsh-first");
    for name in ["POSTGRES_PASSWORD", "JWT_SECRET"] {
        let secret = lab.secret(name);
        lab.sh(&format!("printf 'only %s here\\n' '{secret}' >/tmp/opsh-first; chmod 644 /tmp/opsh-first"));
        let (first, second) = secret.split_at(secret.len() / 2);
        for line in FIRST {
            let opsh = Opsh::new(&lab);
            let line = format!("let v = \"{first}\" + \"{second}\"; {line}");
            for flags in [&["--yes", "-e"][..], &["--yes", "--json", "-e"]] {
                let ran = opsh.run(&[flags, &[&line]].concat());
                assert!(!ran.out.contains(&secret) && !ran.err.contains(&secret), "{line}: {ran:?}");
                let export = opsh.run(&["journal", "export", "last"]);
                assert!(!export.out.contains(&secret), "{line}: {}", export.out);
            }
        }
    }
}

#[test]
fn a_secret_that_a_change_brings_is_hidden_from_then_on() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let _files = lab.afterwards("rm -f /opt/vrcshift/.env /tmp/opsh-first; docker rm -f opsh-first-container");
    let opsh = Opsh::new(&lab);
    let (first, second) = ("brought-Qz81kd0-later", "started-Uw72mv5-later");
    lab.sh(&format!("echo 'only {first} and {second} here' >/tmp/opsh-first"));
    let image = lab.state()["images"]["db"].as_str().unwrap().to_string();
    // The words come in parts: the lines hold neither value.
    let line = format!(
        r#"let h = host("prod-1");
        h.sh("printf 'NEW_PASSWORD=%s%s\n' \"$1\" \"$2\" >/opt/vrcshift/.env", ["brought-Qz81", "kd0-later"]);
        h.sh("docker create --name opsh-first-container -e NEW_TOKEN=\"$1$2\" \"$3\"", ["started-Uw72", "mv5-later", "{image}"]);
        h.read(["cat", "/tmp/opsh-first"]).out"#
    );
    let ran = opsh.run(&["--yes", "--json", "-e", &line]).exits(0);
    let export = opsh.run(&["journal", "export", "last"]).exits(0);
    for secret in [first, second] {
        assert!(!ran.out.contains(secret) && !export.out.contains(secret), "{secret}: {ran:?}\n{}", export.out);
    }
    assert!(ran.out.contains("only •••#"), "{ran:?}");
}

#[test]
fn a_docker_engine_that_hangs_delays_once_and_is_warned_about() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let (secret, opsh) = (lab.secret("POSTGRES_PASSWORD"), Opsh::new(&lab));
    let _engine = lab.afterwards("kill -CONT $(cat /run/docker.pid); rm -f /tmp/opsh-first");
    lab.sh(&format!("echo 'only {secret} here' >/tmp/opsh-first; kill -STOP $(cat /run/docker.pid)"));
    let twice = r#"for n in 0..2 { print(host("prod-1").read(["cat", "/tmp/opsh-first"]).out) }"#;
    let ran = opsh.run(&["-e", twice]).exits(0).prints(&["only •••#"]);
    assert_eq!(ran.err.matches("does not know yet which values are secret on prod-1").count(), 1, "{}", ran.err);
}
