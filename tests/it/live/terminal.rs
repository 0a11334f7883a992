//! A person at a terminal: asked once, for the whole plan.

use super::lab::Lab;
use super::opsh::{OPSH, Opsh, ROLLBACK};
use super::rollback::assert_serves;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// Runs a script at a terminal, answers each question with `answer`; what the screen showed, and the exit code.
fn at_a_terminal(opsh: &Opsh<'_>, words: &str, answer: &str) -> (String, Option<i32>) {
    let line = format!("{OPSH} --config {} {words}", opsh.file("opsh.toml").display());
    let mut command = Command::new("script");
    command.args(["-qefc", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    opsh.at_home(&mut command);
    let mut child = command.spawn().expect("script(1) makes a terminal");
    let mut keys = child.stdin.take().expect("piped");
    let mut screen = child.stdout.take().expect("piped");
    let (mut shown, mut answered, mut piece) = (String::new(), 0, [0; 4096]);
    while let Ok(n @ 1..) = screen.read(&mut piece) {
        shown += &String::from_utf8_lossy(&piece[..n]);
        // Only what is typed after the question counts: what came before it is flushed.
        if shown.matches("Enter to stop:").count() > answered {
            answered += 1;
            writeln!(keys, "{answer}").expect("typed");
        }
    }
    (shown, child.wait().expect("it ends").code())
}

#[test]
fn a_person_is_asked_once_and_types_what_is_lost() {
    let Some(lab) = Lab::take() else { return };
    let bad = lab.bring("BAD");
    let (good, opsh, before) = (lab.release("GOOD"), Opsh::new(&lab), lab.state());

    let (shown, code) = at_a_terminal(&opsh, &format!("{ROLLBACK} {}", good.tag), "y");
    assert_eq!(code, Some(3), "{shown}");
    assert!(shown.contains("nothing changed"), "{shown}");
    assert_eq!(lab.state(), before, "y is not what is lost");

    let lost = format!("{}, {}", bad.ledger[5], bad.ledger[4]);
    asked_once(at_a_terminal(&opsh, &format!("{ROLLBACK} {}", good.tag), &lost));
    assert_serves(&lab, &good, &before);
}

/// Each change of the script was part of the one question.
#[track_caller]
fn asked_once((shown, code): (String, Option<i32>)) {
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(shown.matches("Enter to stop:").count(), 1, "{shown}");
}

#[test]
fn a_deploy_asks_once_for_the_image_that_it_builds() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("GOOD");
    let (additive, opsh, before) = (lab.release("ADDITIVE"), Opsh::new(&lab), lab.state());
    let (shown, code) = at_a_terminal(&opsh, &format!("scripts/deploy.rhai {}", additive.tag), "y");
    assert!(shown.contains("(later: the image that is built)"), "{shown}");
    asked_once((shown, code));
    assert_serves(&lab, &additive, &before);
}

#[test]
fn a_backup_and_a_restore_ask_once_each() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let (_clean, opsh) = (super::backup::clean(&lab), Opsh::new(&lab));
    asked_once(at_a_terminal(&opsh, "scripts/backup.rhai", "y"));
    let backups = opsh.eval("stack(\"prod\").backups()");
    let restore = format!("scripts/restore.rhai {} --data-loss-ok", backups[0]["file"].as_str().unwrap());
    asked_once(at_a_terminal(&opsh, &restore, "vrcshift"));
}
