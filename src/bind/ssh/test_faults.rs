//! Tests of what becomes of reads and of durable runs when the connection breaks, in each of the ways it can.

use super::test_durable::{directory, result, running};
use super::tests::{Lab, command_lines, kill, live, mark, pass, sh, until, words};
use super::{Durable, Link, Outcome, Reach, connect};
use std::path::Path;
use std::time::{Duration, Instant};

/// A directory that is in the command line of what runs in a test, and the file in it that lets a run end.
struct Stage(tempfile::TempDir);

impl Stage {
    fn new() -> Stage {
        let stage = Stage(tempfile::Builder::new().prefix("opsh").tempdir().unwrap());
        std::os::unix::fs::symlink("/bin/sleep", stage.path().join("sleep")).unwrap();
        stage
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn mark(&self) -> String {
        self.path().display().to_string()
    }

    /// A shell with a child, both with the mark in their command line.
    fn read(&self) -> super::Command {
        words(&["sh", "-c", "\"$0\" 600; :", &format!("{}/sleep", self.mark())])
    }

    async fn reads(&self) {
        until("the read runs", || command_lines(&format!("{}/sleep 600", self.mark())).len() == 1).await;
    }

    async fn read_is_gone(&self) {
        until("the read is gone", || command_lines(&format!("{}/sleep", self.mark())).is_empty()).await;
    }

    fn run(&self) -> super::Command {
        sh(&format!("echo begun; until [ -e {}/go ]; do sleep 0.05; done; echo ended; exit 7", self.mark()))
    }
}

/// Breaks the link while a read runs, a durable run runs and somebody waits for it; then logs in again and finds that
/// the run went on and gives its result. Gives how long the loss took to be noticed.
async fn breaks(lab: &Lab, alive_s: u32, fault: impl AsyncFnOnce(&Reach), repair: impl FnOnce()) -> Duration {
    let (stage, id) = (Stage::new(), mark());
    let login = super::Login { alive_s, ..lab.login("root") };
    let link: Link = connect(&pass(), &login).await.unwrap();
    let reach = Reach::Ssh(link.clone());
    running(reach.durable_begin(&pass(), &id, &stage.run(), "").await);
    until("the run runs", || std::fs::read_to_string(directory(&id).join("out")).is_ok_and(|out| out == "begun\n"))
        .await;
    let broken = std::cell::Cell::new(Instant::now());
    let (read, wait) = (stage.read(), pass());
    let (read, waited, ()) = tokio::join!(reach.run(&wait, &read), reach.durable_wait(&wait, &id, 100), async {
        stage.reads().await;
        broken.set(Instant::now());
        fault(&reach).await;
    });
    let noticed = broken.get().elapsed();
    assert!(matches!(&read.outcome, Outcome::Unknown(why) if why.contains("connection to web was lost")), "{read:?}");
    assert!(
        matches!(&waited.outcome, Outcome::Unknown(why) if why.contains("connection to web was lost")),
        "{waited:?}"
    );
    let later = reach.run(&pass(), &words(&["true"])).await.outcome;
    assert!(matches!(&later, Outcome::NotStarted(why) if why.contains("was lost")), "{later:?}");
    let later = reach.durable_result(&pass(), &id, 100).await.unwrap_err();
    assert_eq!(later.kind, crate::error::Kind::Unreachable, "{later}");

    repair();
    let link = connect(&pass(), &login).await.unwrap();
    let reach = Reach::Ssh(link.clone());
    assert!(matches!(reach.durable_state(&pass(), &id).await.unwrap(), Durable::Running { .. }));
    assert!(reach.durable_result(&pass(), &id, 100).await.unwrap().is_none());
    std::fs::write(stage.path().join("go"), "").unwrap();
    let done = reach.durable_wait(&pass(), &id, 100).await;
    assert_eq!((done.outcome.clone(), done.stdout.text().as_str()), (Outcome::Exited(7), "begun\nended\n"));
    let settled = reach.durable_result(&pass(), &id, 100).await.unwrap().unwrap();
    assert_eq!((settled.outcome, settled.stdout), (done.outcome, done.stdout));
    result(&reach, &id, 100).await;
    stage.read_is_gone().await;
    link.close().await;
    noticed
}

#[test]
fn a_killed_ssh_loses_reads_and_no_durable_run() {
    let Some(lab) = Lab::start("") else { return };
    live(async {
        let control = lab.path("c").display().to_string();
        breaks(&lab, 15, async |_| command_lines(&control).iter().for_each(|(pid, _)| kill(*pid, 9)), || {}).await;
    });
}

#[test]
fn a_killed_session_at_the_server_loses_reads_and_no_durable_run() {
    let Some(lab) = Lab::start("") else { return };
    live(async {
        // The parent of the supervising shell is the sshd of this session.
        let kills = sh("kill -9 $(ps -o ppid= -p $PPID)");
        breaks(&lab, 15, async |reach| drop(reach.run(&pass(), &kills).await), || {}).await;
    });
}

#[test]
fn a_restarted_server_loses_reads_and_no_durable_run() {
    let Some(lab) = Lab::start("") else { return };
    live(async {
        breaks(&lab, 15, async |_| lab.stop_with_sessions(), || lab.serve()).await;
    });
}

#[test]
fn a_silent_network_is_noticed_in_the_configured_time_and_loses_no_durable_run() {
    let Some((lab, network)) = Lab::start_behind_a_network("ClientAliveInterval 1\nClientAliveCountMax 2") else {
        return;
    };
    live(async {
        let noticed = breaks(&lab, 2, async |_| network.cut(), || network.mend()).await;
        assert!((Duration::from_secs(1)..Duration::from_secs(6)).contains(&noticed), "{noticed:?}");
    });
}

#[test]
fn an_abandoned_read_is_gone_from_the_host_within_a_second() {
    let Some(lab) = Lab::start("") else { return };
    let (stage, pass) = (Stage::new(), pass());
    live(async {
        let (link, reach) = lab.connect().await;
        let read = stage.read();
        tokio::select! {
            done = reach.run(&pass, &read) => panic!("it ended: {done:?}"),
            () = stage.reads() => {}
        }
        let start = Instant::now();
        stage.read_is_gone().await;
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        link.close().await;
    });
}
