//! Tests of running commands: the same for this machine and for a host.

use super::tests::{Lab, accounts, command_lines, exited, kill, live, mark, pass, sh, until, words};
use super::{Command, Outcome, Reach, connect, signal_note};
use crate::error::Kind;
use crate::redact::Secret;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Runs a test on this machine and, where there is an sshd, on a host.
fn everywhere(test: impl AsyncFn(&Reach)) {
    live(test(&Reach::Local));
    let Some(lab) = Lab::start("") else { return };
    live(async {
        let (link, reach) = lab.connect().await;
        test(&reach).await;
        link.close().await;
    });
}

async fn outcome(reach: &Reach, script: &str) -> Outcome {
    reach.run(&pass(), &sh(script)).await.outcome
}

#[test]
fn a_command_ends_in_the_way_that_is_told() {
    everywhere(async |reach| {
        for status in [0, 1, 2, 126, 127, 128, 255] {
            assert_eq!(outcome(reach, &format!("exit {status}")).await, Outcome::Exited(status));
        }
        for signal in [1, 2, 9, 11, 13, 15] {
            assert_eq!(outcome(reach, &format!("kill -{signal} $$")).await, Outcome::Exited(128 + signal));
        }
        let missing = reach.run(&pass(), &words(&["no-such-program"])).await;
        assert_eq!(missing.outcome, Outcome::Exited(127));
        assert!(missing.stderr.text().contains("no-such-program"));
    });
}

#[test]
fn a_host_that_allows_one_session_is_asked_until_it_is_free() {
    let Some(lab) = Lab::start("MaxSessions 1") else { return };
    live(async {
        let (link, reach) = lab.connect().await;
        let gate = lab.path("gate");
        std::process::Command::new("mkfifo").arg(&gate).status().unwrap();
        let reads = format!("echo in > {0}.in; cat {0}", gate.display());
        let held = || {
            let (reach, reads) = (reach.clone(), reads.clone());
            tokio::spawn(async move { outcome(&reach, &reads).await })
        };
        let first = held();
        until("the first runs", || lab.path("gate.in").exists()).await;
        let second = tokio::spawn({
            let reach = reach.clone();
            async move { outcome(&reach, "exit 7").await }
        });
        let refusals = || lab.log().matches("no more sessions").count();
        until("it was refused some times", || refusals() > 3).await;
        std::fs::write(&gate, "go on").unwrap();
        assert_eq!(first.await.unwrap(), Outcome::Exited(0));
        assert_eq!(second.await.unwrap(), Outcome::Exited(7));

        // One that stays open is not waited for, and less so the second time.
        std::fs::remove_file(lab.path("gate.in")).unwrap();
        let third = held();
        until("the third runs", || lab.path("gate.in").exists()).await;
        let before = refusals();
        let refused = |outcome: Outcome| matches!(outcome, Outcome::NotStarted(why) if why.contains("MaxSessions"));
        assert!(refused(outcome(&reach, "exit 8").await));
        let once = refusals();
        assert!(refused(outcome(&reach, "exit 9").await));
        assert!(refusals() - once < once - before);
        std::fs::write(&gate, "go on").unwrap();
        assert_eq!(third.await.unwrap(), Outcome::Exited(0));
        link.close().await;
    });
}

#[test]
fn a_status_that_may_be_a_signal_is_told_as_what_it_may_be() {
    assert_eq!(signal_note(143).as_deref(), Some("128 + 15: perhaps ended by signal 15, TERM"));
    assert_eq!(signal_note(192).as_deref(), Some("128 + 64: perhaps ended by signal 64"));
    for status in [0, 127, 128, 193, 255] {
        assert_eq!(signal_note(status), None);
    }
}

#[test]
fn outputs_come_back_apart_and_without_our_records() {
    everywhere(async |reach| {
        let done = reach.run(&pass(), &sh("printf out; printf err >&2; kill -9 $$")).await;
        assert_eq!((done.stdout.text().as_str(), done.stderr.text().as_str()), ("out", "err"));
        let many = Command { keep: 1000, ..sh("head -c 3000000 /dev/zero | tr '\\0' x") };
        let done = reach.run(&pass(), &many).await;
        // A cut could halve a secret: without the end of a line nothing is kept.
        assert_eq!((done.stdout.total, done.stdout.left_out()), (3_000_000, 3_000_000));
        assert_eq!(done.stdout.sha256, sha256_of_x(3_000_000));
    });
}

fn sha256_of_x(n: usize) -> String {
    use sha2::{Digest, Sha256};
    super::records::hex(&Sha256::digest(vec![b'x'; n]))
}

#[test]
fn directory_variables_and_stdin_arrive() {
    everywhere(async |reach| {
        let secret = "it's \\ \"$HOME\" !\n two\n\n";
        let mut command = sh("pwd; printf %s \"$SECRET\" | od -An -c; wc -c; sha256sum </dev/null | wc -l");
        command.cwd = Some("/usr/share".into());
        command.env = vec![("SECRET".into(), Secret::new(secret.to_string()))];
        for length in [0, 1, 65536, 65537, 300_001] {
            command.stdin = vec![b'\n'; length];
            let text = exited(&reach.run(&pass(), &command).await, 0);
            assert!(text.starts_with("/usr/share\n") && text.ends_with(&format!("\n{length}\n1\n")), "{text}");
            assert!(text.contains("\" $ H O M E \"") || text.contains("\"   $   H   O   M   E   \""), "{text}");
        }
        command.words = vec!["cat".into()];
        command.stdin = (0..=255).cycle().take(9_000_000).collect();
        command.keep = 10_000_000;
        let done = reach.run(&pass(), &command).await;
        assert!(done.stdout.head.iter().chain(&done.stdout.tail).eq(&command.stdin), "{:?}", done.outcome);
    });
}

#[test]
fn a_command_that_ignores_its_stdin_does_not_hang() {
    everywhere(async |reach| {
        let command = Command { stdin: vec![0; 200_000], ..words(&["true"]) };
        exited(&reach.run(&pass(), &command).await, 0);
    });
}

#[test]
fn a_directory_that_cannot_be_entered_is_not_started() {
    everywhere(async |reach| {
        let command = Command { cwd: Some("/no such 'dir".into()), ..words(&["true"]) };
        let done = reach.run(&pass(), &command).await;
        assert_eq!(done.outcome, Outcome::NotStarted("cannot enter the directory /no such 'dir".into()));
    });
}

#[test]
fn what_cannot_be_sent_is_not_started() {
    live(async {
        let not_started = async |command: Command, word: &str| match Reach::Local.run(&pass(), &command).await.outcome {
            Outcome::NotStarted(why) => assert!(why.contains(word), "{why}"),
            other => panic!("{other:?}"),
        };
        not_started(words(&["echo", &"x".repeat(130_000)]), "at most 122880").await;
        not_started(words(&["echo", "a\0b"]), "NUL").await;
        not_started(words(&[]), "no word").await;
        let env = vec![("A=B".to_string(), Secret::new("a value never sent".to_string()))];
        not_started(Command { env, ..words(&["true"]) }, "not a name").await;
    });
}

#[test]
fn long_words_arrive_whole() {
    everywhere(async |reach| {
        let long = "é\\'\n".repeat(12_000);
        let text = exited(&reach.run(&pass(), &words(&["printf", "%s", &long])).await, 0);
        assert!(text == long);
    });
}

#[test]
fn a_background_child_does_not_delay_the_result_and_lives_on() {
    everywhere(async |reach| {
        let (start, mark) = (Instant::now(), mark());
        let script = format!("sh -c 'while :; do sleep 0.1; done' {mark} & echo started");
        assert_eq!(exited(&reach.run(&pass(), &sh(&script)).await, 0), "started\n");
        assert!(start.elapsed() < Duration::from_secs(5));
        until("it runs alone", || command_lines(&mark).len() == 1).await;
        kill(command_lines(&mark)[0].0, 9);
    });
}

#[test]
fn dropping_the_wait_ends_the_command_with_int() {
    everywhere(async |reach| {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().display().to_string();
        let polite =
            format!("trap 'echo cleaned >{mark}/done; exit' INT; touch {mark}/ready; while :; do sleep 0.05; done");
        drop_when_ready(reach, &polite, &mark).await;
        until("INT is handled", || dir.path().join("done").exists()).await;
        until("it is gone", || command_lines(&mark).is_empty()).await;

        std::fs::remove_file(dir.path().join("ready")).unwrap();
        let stubborn = format!("trap '' INT TERM; touch {mark}/ready; while :; do sleep 0.05; done");
        drop_when_ready(reach, &stubborn, &mark).await;
        until("it is killed", || command_lines(&mark).is_empty()).await;
    });
}

async fn drop_when_ready(reach: &Reach, script: &str, dir: &str) {
    let (pass, command) = (pass(), sh(script));
    let ready = std::path::Path::new(dir).join("ready");
    tokio::select! {
        done = reach.run(&pass, &command) => panic!("it ended: {done:?}"),
        () = until("it runs", || ready.exists()) => {}
    }
}

#[test]
fn no_secret_is_in_a_command_line() {
    everywhere(async |reach| {
        let (secret, mark) = (format!("s3cret-{}", mark()), mark());
        let mut command = words(&["sh", "-c", "cat >/dev/null; sleep 60; :", &mark]);
        command.env = vec![("SECRET".into(), Secret::new(secret.clone()))];
        command.stdin = format!("{secret}\n").into_bytes();
        let pass = pass();
        tokio::select! {
            done = reach.run(&pass, &command) => panic!("it ended: {done:?}"),
            () = until("it runs", || !command_lines(&mark).is_empty()) => {}
        }
        assert_eq!(command_lines(&secret), []);
        until("it is gone", || command_lines(&mark).is_empty()).await;
    });
}

#[test]
fn a_variable_of_the_login_keeps_its_value() {
    let Some(lab) = Lab::start("SetEnv N=mine G=mine c=mine w=mine r=mine IFS=mine") else { return };
    live(async {
        let (link, reach) = lab.connect().await;
        let text = exited(&reach.run(&pass(), &sh("env | grep -c '^[NGcwr]=mine$'; env | grep opsh_; :")).await, 0);
        assert_eq!(text, "5\n");
        link.close().await;
    });
}

#[test]
fn fish_and_tcsh_logins_work_like_others() {
    let Some(lab) = Lab::start("") else { return };
    for user in accounts() {
        live(async {
            let link = connect(&pass(), &lab.login(user)).await.unwrap();
            let reach = Reach::Ssh(link.clone());
            let command = Command {
                stdin: b"in".to_vec(),
                ..words(&["sh", "-c", "cat; printf '%s|' \"$@\"; exit 3", "x", "!a\\'", "\n"])
            };
            assert_eq!(exited(&reach.run(&pass(), &command).await, 3), "in!a\\'|\n|", "{user}");
            link.close().await;
        });
    }
}

#[test]
fn what_a_login_prints_is_not_the_commands() {
    let Some(lab) = Lab::start("") else { return };
    let rc = "/home/opsh-alice/.bashrc";
    std::fs::write(rc, "echo noise; echo noise >&2\n").unwrap();
    live(async {
        let link = connect(&pass(), &lab.login("opsh-alice")).await.unwrap();
        let done = Reach::Ssh(link.clone()).run(&pass(), &sh("echo out; echo err >&2")).await;
        assert_eq!((done.stdout.text().as_str(), done.stderr.text().as_str()), ("out\n", "err\n"));
        link.close().await;
    });
    std::fs::write(rc, "").unwrap();
}

#[test]
fn a_login_that_runs_nothing_is_not_started() {
    let Some(lab) = Lab::start("ForceCommand echo go away >&2; exit 1") else { return };
    live(async {
        let (link, reach) = lab.connect().await;
        match outcome(&reach, "true").await {
            Outcome::NotStarted(why) => assert!(why.contains("exit status 1") && why.contains("go away"), "{why}"),
            other => panic!("{other:?}"),
        }
        link.close().await;
    });
}

#[test]
fn a_killed_supervisor_leaves_the_outcome_unknown() {
    everywhere(async |reach| {
        let outcome = outcome(reach, "kill -9 $PPID").await;
        assert!(matches!(&outcome, Outcome::Unknown(why) if why.contains("supervising shell")), "{outcome:?}");
    });
}

#[test]
fn a_lost_link_leaves_the_outcome_unknown_and_later_ones_not_started() {
    let Some(lab) = Lab::start("") else { return };
    live(async {
        let (_link, reach) = lab.connect().await;
        // The parent of the supervising shell is the sshd of this session.
        let outcome = outcome(&reach, "kill -9 $(ps -o ppid= -p $PPID); sleep 60").await;
        assert!(matches!(&outcome, Outcome::Unknown(why) if why.contains("connection to web was lost")), "{outcome:?}");
        let later = reach.run(&pass(), &words(&["true"])).await.outcome;
        assert!(matches!(&later, Outcome::NotStarted(why) if why.contains("connection to web was lost")), "{later:?}");
    });
}

#[test]
fn more_commands_than_the_host_allows_wait_their_turn() {
    let Some(lab) = Lab::start("") else { return };
    live(async {
        let (link, reach) = lab.connect().await;
        let one = async |reach: &Reach| exited(&reach.run(&pass(), &sh("sleep 0.1; echo x")).await, 0);
        let two = async || tokio::join!(one(&reach), one(&reach));
        let four = async || tokio::join!(two(), two());
        let eight = async || tokio::join!(four(), four());
        tokio::join!(eight(), eight(), eight());
        link.close().await;
    });
}

#[test]
fn a_stream_carries_bytes_both_ways() {
    everywhere(async |reach| {
        let mut stream =
            reach.stream(&pass(), &words(&["sh", "-c", "echo complaint >&2; exec cat"]).words).await.unwrap();
        let complaints = stream.complaints();
        let sent: Vec<u8> = (0..=255).cycle().take(50_000).collect();
        stream.write_all(&sent).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        assert!(got == sent, "{} bytes came back", got.len());
        until("stderr is collected", || complaints.text() == "complaint\n").await;

        let error = reach.stream(&pass(), &["no-such-program".into()]).await.err().unwrap();
        assert!(error.kind == Kind::NotFound && error.why.contains("no-such-program"), "{error}");
    });
}

#[test]
fn a_server_that_gives_no_process_group_is_not_harmed() {
    use std::io::Write;
    let mut command = std::process::Command::new("sh");
    command.arg("-c").arg(super::quote::armour(super::scripts::SUPERVISE));
    let pipe = std::process::Stdio::piped;
    let mut child = command.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().unwrap();
    let program = super::quote::encode("exec sh -c 'kill -9 0'");
    child.stdin.take().unwrap().write_all(format!("ab 0 0\n{program}\ngo\n").as_bytes()).unwrap();
    // Had the group been ours, this process would be gone.
    let out = child.wait_with_output().unwrap();
    assert!(String::from_utf8(out.stdout).unwrap().starts_with("\x1eopsh ab start "));
}

#[test]
fn every_future_can_move_between_threads() {
    fn moves<T: Send>(_: T) {}
    let (pass, login, command) = (pass(), super::Login::new("a", "b", "/c".into(), "/d".into()), words(&["true"]));
    moves(connect(&pass, &login));
    moves(super::offered_keys(&pass, &login));
    moves(Reach::Local.run(&pass, &command));
    moves(Reach::Local.stream(&pass, &command.words));
    moves(Reach::Local.durable_begin(&pass, "a", &command, ""));
    moves(Reach::Local.durable_wait(&pass, "a", 0));
    moves(Reach::Local.durable_state(&pass, "a"));
    moves(Reach::Local.durable_result(&pass, "a", 0));
    moves(Reach::Local.durable_list(&pass));
}
