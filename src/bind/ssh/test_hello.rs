//! No word of data reaches a login whose start-up file put another program in the place of our `sh`.

use super::channel::Channel;
use super::hello::Hello;
use super::tests::{Lab, exited, live, mark, pass, sh, words};
use super::{Outcome, Reach, connect, quote, scripts};
use std::path::Path;
use std::time::Duration;

/// A home folder of this test's own for every login at `lab`.
fn home(shell: &str, file: &str, text: &str) -> Option<(Lab, &'static str, tempfile::TempDir)> {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let path = dir.path().join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    let lab = Lab::start(&format!("SetEnv HOME={}", dir.path().display()))?;
    let user = super::tests::account_with(shell)?;
    Some((lab, user, dir))
}

/// Start-up files by shell that put something else in the place of the command.
const REPLACED: &[(&str, &str, &str)] = &[
    ("bash", ".bashrc", "exec bash"),
    ("bash", ".bashrc", "exec fish"),
    ("bash", ".bashrc", "exec sh -i 2>/dev/null"),
    ("bash", ".bashrc", "cat >>$HOME/got; exit 3"),
    ("bash", ".bashrc", "read x; echo \"$x\" >>$HOME/got; exec bash"),
    ("bash", ".bashrc", "echo $0 $*; tr '\\0' ' ' </proc/self/cmdline; tr '\\0' '\\n' </proc/$$/cmdline; exec bash"),
    ("bash", ".bashrc", "printf '%s\\n' \"$BASH_EXECUTION_STRING\"; printf '\\036opsh 0011 hello\\n'; exec bash"),
    ("bash", ".bashrc", "exec tmux"),
    ("bash", ".bashrc", "while :; do echo noise; done"),
    ("fish", ".config/fish/config.fish", "exec bash"),
    ("tcsh", ".tcshrc", "exec sh"),
    ("tcsh", ".cshrc", "exec bash"),
];

/// The words of a durable start, of a run and of a stream, each as the hostile half of a command line.
fn hostile(home: &Path) -> Vec<String> {
    let touch = format!("touch {}/touched", home.display());
    ["grep".into(), format!("$({touch})"), format!("';{touch};'\n{touch}\n`{touch}`")].to_vec()
}

#[test]
fn a_replaced_shell_is_sent_nothing() {
    for (shell, file, text) in REPLACED {
        let Some((lab, user, dir)) = home(shell, file, text) else { continue };
        live(async {
            let link = connect(&pass(), &lab.login(user)).await.unwrap();
            link.set_start_within(Duration::from_secs(1));
            let reach = Reach::Ssh(link.clone());
            let data = format!("touch {}/touched\n", dir.path().display()).into_bytes();
            let command = super::Command { words: hostile(dir.path()), stdin: data, ..Default::default() };
            let (pass, id) = (pass(), mark());
            let (ran, begun, stream) = tokio::join!(
                reach.run(&pass, &command),
                reach.durable_begin(&pass, &id, &command, "about"),
                reach.stream(&pass, &command.words)
            );
            match ran.outcome {
                Outcome::NotStarted(why) => assert!(why.contains("login"), "{text}: {why}"),
                other => panic!("{text}: {other:?}"),
            }
            assert!(begun.is_err_and(|error| error.why.contains("login")), "{text}");
            assert!(stream.is_err_and(|error| error.why.contains("login")), "{text}");
            link.close().await;
        });
        for name in ["touched", "got"] {
            let got = std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
            assert_eq!(got.trim(), "", "{text}: {name}");
            assert!(name == "got" || !dir.path().join(name).exists(), "{text}: {name}");
        }
    }
}

#[test]
fn a_replaced_shell_is_named_with_where_to_look() {
    let Some((lab, user, _dir)) = home("bash", ".bashrc", "echo hi there; exec bash") else { return };
    live(async {
        let link = connect(&pass(), &lab.login(user)).await.unwrap();
        link.set_start_within(Duration::from_secs(1));
        match Reach::Ssh(link.clone()).run(&pass(), &words(&["true"])).await.outcome {
            Outcome::NotStarted(why) => {
                for part in ["start-up file replaced the shell", "~/.bashrc", "hi there"] {
                    assert!(why.contains(part), "{why}");
                }
            }
            other => panic!("{other:?}"),
        }
        link.close().await;
    });
}

#[test]
fn a_chatty_start_up_file_is_read_past() {
    let noise = "head -c 200000 /dev/zero | tr '\\0' x; head -c 200000 /dev/zero | tr '\\0' y >&2; \
                 printf '\\036opsh 0123456789abcdef hello\\n'; set -x";
    let Some((lab, user, _dir)) = home("bash", ".bashrc", noise) else { return };
    live(async {
        let link = connect(&pass(), &lab.login(user)).await.unwrap();
        let reach = Reach::Ssh(link.clone());
        let done = reach.run(&pass(), &sh("echo out; echo err >&2")).await;
        assert_eq!(exited(&done, 0), "out\n");
        assert_eq!(done.stderr.text(), "err\n");
        link.close().await;
    });
}

#[test]
fn a_forced_command_that_runs_ours_is_let_run() {
    let Some(lab) = Lab::start("ForceCommand echo forced; eval \"$SSH_ORIGINAL_COMMAND\"") else { return };
    live(async {
        let (link, reach) = lab.connect().await;
        assert_eq!(exited(&reach.run(&pass(), &sh("echo ran")).await, 0), "ran\n");
        link.close().await;
    });
}

#[test]
fn a_forced_command_that_reads_is_sent_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let got = dir.path().join("got");
    for forced in [format!("cat >>{}", got.display()), "internal-sftp".into(), "bash".into()] {
        let Some(lab) = Lab::start(&format!("ForceCommand {forced}")) else { return };
        live(async {
            let (link, reach) = lab.connect().await;
            link.set_start_within(Duration::from_secs(1));
            let command = super::Command { words: hostile(dir.path()), ..Default::default() };
            let outcome = reach.run(&pass(), &command).await.outcome;
            assert!(matches!(outcome, Outcome::NotStarted(_)), "{forced}: {outcome:?}");
            link.close().await;
        });
        assert_eq!(std::fs::read_to_string(&got).unwrap_or_default(), "", "{forced}");
        assert!(!dir.path().join("touched").exists(), "{forced}");
    }
}

#[test]
fn the_command_line_does_not_hold_its_hello() {
    let hello = Hello::new().unwrap();
    let [first, second] = hello.words();
    for script in [scripts::SUPERVISE, scripts::STREAM] {
        let line = quote::armour_with(script, hello.words());
        assert!(line.ends_with(&format!(" {first} {second}")), "{line}");
        assert!(!line.contains(&format!("{second}{first}")), "{line}");
        let answer = std::process::Command::new("sh").arg("-c").arg(&line).stdin(std::process::Stdio::null()).output();
        let answer = String::from_utf8(answer.unwrap().stdout).unwrap();
        assert_eq!(answer, format!("\u{1e}opsh {second}{first} hello\n"));
    }
}

#[test]
fn one_answer_is_waited_for_before_the_program_is_sent() {
    let Some(lab) = Lab::start("") else { return };
    live(async {
        let (link, reach) = lab.connect().await;
        // Opening a channel has read the hello, and nothing has been written yet: the shell waits for its first line.
        let mut channel = Channel::open(&pass(), &reach, scripts::STREAM).await.unwrap();
        channel.stdin = None;
        assert_eq!(channel.wait().await, Some(74));
        link.close().await;
    });
}
