//! Tests of runs that outlive their connection.

use super::tests::{Lab, command_lines, kill, live, mark, pass, sh, until, words};
use super::{Command, Durable, Finished, Outcome, Reach, Started, connect};
use crate::redact::Secret;
use std::path::{Path, PathBuf};

/// Runs a test on this machine and, where there is an sshd, on a host, with an id of its own each time.
fn everywhere(test: impl AsyncFn(&Reach, &str)) {
    live(test(&Reach::Local, &mark()));
    let Some(lab) = Lab::start("") else { return };
    live(async {
        let (link, reach) = lab.connect().await;
        test(&reach, &mark()).await;
        link.close().await;
    });
}

pub fn running(started: crate::error::Result<Started>) -> i32 {
    match started {
        Ok(Started::Now { pid }) => pid as i32,
        other => panic!("{other:?}"),
    }
}

/// The run's directory, which is on this machine in either case.
pub fn directory(id: &str) -> PathBuf {
    let state =
        std::env::var("XDG_STATE_HOME").unwrap_or_else(|_| format!("{}/.local/state", std::env::var("HOME").unwrap()));
    Path::new(&state).join("opsh/runs").join(id)
}

pub async fn result(reach: &Reach, id: &str, keep: usize) -> Finished {
    let finished = reach.durable_wait(&pass(), id, keep).await;
    reach.durable_forget(&pass(), id).await.unwrap();
    assert!(!directory(id).exists());
    finished
}

#[test]
fn a_durable_run_gives_status_and_outputs() {
    everywhere(async |reach, id| {
        assert_eq!(reach.durable_state(&pass(), id).await.unwrap(), Durable::Never);
        let mut command = sh("pwd; echo $A; cat; echo err >&2; umask; exit 7");
        command.cwd = Some("/usr".into());
        command.env = vec![("A".into(), Secret::new("it's a value".to_string()))];
        command.stdin = b"in\n".to_vec();
        running(reach.durable_begin(&pass(), id, &command, "").await);
        let done = reach.durable_wait(&pass(), id, 1000).await;
        assert_eq!(done.outcome, Outcome::Exited(7));
        assert!(done.stdout.text().starts_with("/usr\nit's a value\nin\n00"), "{}", done.stdout.text());
        assert!(!done.stdout.text().ends_with("77\n"), "the login's umask is kept: {}", done.stdout.text());
        assert_eq!((done.stderr.text().as_str(), done.stderr.total), ("err\n", 4));
        assert_eq!(reach.durable_state(&pass(), id).await.unwrap(), Durable::Done(7));
        assert_eq!(result(reach, id, 1000).await.stdout, done.stdout);
        assert_eq!(reach.durable_state(&pass(), id).await.unwrap(), Durable::Never);
    });
}

#[test]
fn a_long_output_is_cut_on_the_host() {
    everywhere(async |reach, id| {
        let script = "echo head; head -c 1000000 /dev/zero; echo; printf tail; printf 1234567890 >&2";
        running(reach.durable_begin(&pass(), id, &sh(script), "").await);
        let done = result(reach, id, 10).await;
        assert_eq!(done.stdout.text(), "head\n… 1000001 bytes left out …\ntail");
        assert_eq!((done.stdout.sha256.len(), done.stderr.text().as_str()), (64, "1234567890"));
    });
}

#[test]
fn the_same_id_runs_once() {
    everywhere(async |reach, id| {
        let dir = tempfile::tempdir().unwrap();
        let command =
            sh(&format!("echo x >>{}/times; while [ ! -e {0}/go ]; do sleep 0.05; done", dir.path().display()));
        let (pass, start) = (pass(), async || reach.durable_begin(&pass(), id, &command, "").await);
        let (one, two, three) = tokio::join!(start(), start(), start());
        let now = [&one, &two, &three].into_iter().filter(|started| matches!(started, Ok(Started::Now { .. }))).count();
        assert_eq!(now, 1, "{one:?} {two:?} {three:?}");
        assert!(matches!(start().await, Ok(Started::Before(Durable::Running { .. }))));
        assert!(matches!(reach.durable_forget(&pass, id).await, Ok(Durable::Running { .. })));
        std::fs::write(dir.path().join("go"), "").unwrap();
        assert_eq!(reach.durable_wait(&pass, id, 10).await.outcome, Outcome::Exited(0));
        assert_eq!(start().await.unwrap(), Started::Before(Durable::Done(0)));
        assert_eq!(std::fs::read_to_string(dir.path().join("times")).unwrap(), "x\n");
        result(reach, id, 10).await;
    });
}

#[test]
fn a_run_survives_its_link_and_the_wait_for_it() {
    let Some(lab) = Lab::start("") else { return };
    let (id, dir) = (mark(), tempfile::tempdir().unwrap());
    let command = sh(&format!("while [ ! -e {}/go ]; do sleep 0.05; done; echo done; exit 7", dir.path().display()));
    live(async {
        let (_link, reach) = lab.connect().await;
        running(reach.durable_begin(&pass(), &id, &command, "").await);
        let masters = command_lines(&lab.path("c").display().to_string());
        let (seen, ()) = tokio::join!(async { reach.durable_wait(&pass(), &id, 100).await }, async {
            until("somebody waits", || {
                command_lines(&id).len() > 1 || lab.log().matches("Starting session").count() > 1
            })
            .await;
            masters.iter().for_each(|(pid, _)| kill(*pid, 9));
        });
        assert!(matches!(seen.outcome, Outcome::Unknown(_)), "{:?}", seen.outcome);

        let link = connect(&pass(), &lab.login("root")).await.unwrap();
        let reach = Reach::Ssh(link.clone());
        assert!(matches!(reach.durable_state(&pass(), &id).await.unwrap(), Durable::Running { .. }));
        std::fs::write(dir.path().join("go"), "").unwrap();
        let done = result(&reach, &id, 100).await;
        assert_eq!((done.outcome, done.stdout.text().as_str()), (Outcome::Exited(7), "done\n"));
        link.close().await;
    });
}

#[test]
fn dropping_the_wait_leaves_the_run_alone() {
    everywhere(async |reach, id| {
        let pid = running(reach.durable_begin(&pass(), id, &words(&["sleep", "60"]), "").await);
        let pass = pass();
        tokio::select! {
            done = reach.durable_wait(&pass, id, 10) => panic!("{done:?}"),
            () = tokio::time::sleep(std::time::Duration::from_millis(300)) => {}
        }
        assert_eq!(reach.durable_state(&pass, id).await.unwrap(), Durable::Running { pid: pid as u32 });
        assert!(reach.durable_signal(&pass, id, "TERM").await.is_ok());
        assert_eq!(result(reach, id, 10).await.outcome, Outcome::Exited(143));
    });
}

#[test]
fn a_killed_run_wakes_up_who_waits_and_has_died() {
    everywhere(async |reach, id| {
        let pid = running(reach.durable_begin(&pass(), id, &sh("echo partial; sleep 60"), "").await);
        until("it has written", || {
            std::fs::read_to_string(directory(id).join("out")).is_ok_and(|text| !text.is_empty())
        })
        .await;
        let (done, ()) = tokio::join!(async { reach.durable_wait(&pass(), id, 100).await }, async { kill(-pid, 9) });
        assert!(matches!(done.outcome, Outcome::Unknown(why) if why.contains("cut short")));
        assert_eq!(done.stdout.text(), "partial\n");
        assert_eq!(reach.durable_state(&pass(), id).await.unwrap(), Durable::Died);
        result(reach, id, 10).await;
    });
}

#[test]
fn a_process_that_only_has_the_same_id_is_not_the_run() {
    everywhere(async |reach, id| {
        let pid = running(reach.durable_begin(&pass(), id, &sh("sleep 60"), "").await);
        kill(-pid, 9);
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        std::fs::write(directory(id).join("pid"), format!("{} 1 {boot}", std::process::id())).unwrap();
        assert_eq!(reach.durable_state(&pass(), id).await.unwrap(), Durable::Died);
        result(reach, id, 10).await;
    });
}

#[test]
fn a_run_that_cannot_enter_its_directory_is_not_started() {
    everywhere(async |reach, id| {
        let command = Command { cwd: Some("/nonexistent".into()), ..words(&["true"]) };
        running(reach.durable_begin(&pass(), id, &command, "").await);
        let outcome = result(reach, id, 10).await.outcome;
        assert_eq!(outcome, Outcome::NotStarted("cannot enter the directory /nonexistent".into()));
    });
}

#[test]
fn an_unknown_id_is_not_waited_for() {
    everywhere(async |reach, id| {
        assert!(matches!(reach.durable_wait(&pass(), id, 10).await.outcome, Outcome::NotStarted(_)));
    });
}

#[test]
fn no_secret_of_a_run_is_in_a_file_or_a_command_line() {
    everywhere(async |reach, id| {
        let secret = format!("s3cret-{}", mark());
        let mut command = sh("cat >/dev/null; sleep 60");
        command.env = vec![("SECRET".into(), Secret::new(secret.clone()))];
        command.stdin = secret.clone().into_bytes();
        running(reach.durable_begin(&pass(), id, &command, "").await);
        assert_eq!(command_lines(&secret), []);
        for entry in std::fs::read_dir(directory(id)).unwrap().flatten().filter(|entry| entry.file_name() != "done") {
            assert!(!String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).contains(&secret));
        }
        reach.durable_signal(&pass(), id, "TERM").await.unwrap();
        result(reach, id, 10).await;
    });
}
