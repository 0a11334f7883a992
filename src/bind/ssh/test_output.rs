//! Tests of what durable runs write: seen as it comes, bounded on the host, listed, swept up.

use super::scripts::KEPT_THERE;
use super::test_durable::{directory, result, running};
use super::tests::{Lab, command_lines, kill, live, mark, pass, sh, skip, until};
use super::{Command, Durable, Outcome, Reach, Started};
use crate::gate::{Pass, Shown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Runs a test on this machine and, where there is an sshd, on hosts whose `sh` is this machine's, bash and busybox;
/// the last has no other programs than busybox's.
fn everywhere(test: impl AsyncFn(&Reach, &str)) {
    live(test(&Reach::Local, &mark()));
    let shells = tempfile::Builder::new().prefix("opsh").tempdir().unwrap();
    for path in [None, bash(shells.path()), busybox(shells.path())] {
        let Some(lab) = Lab::start(&path.map_or(String::new(), |path| format!("SetEnv PATH={path}"))) else { return };
        live(async {
            let (link, reach) = lab.connect().await;
            test(&reach, &mark()).await;
            link.close().await;
        });
    }
}

fn bash(dir: &Path) -> Option<String> {
    let dir = dir.join("bash");
    std::fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink("/bin/bash", dir.join("sh")).unwrap();
    Some(format!("{}:{}", dir.display(), std::env::var("PATH").unwrap()))
}

fn busybox(dir: &Path) -> Option<String> {
    let dir = dir.join("busybox");
    std::fs::create_dir(&dir).unwrap();
    let installed = std::process::Command::new("busybox").args(["--install", "-s"]).arg(&dir).status();
    if !installed.is_ok_and(|status| status.success()) {
        skip("no busybox");
        return None;
    }
    Some(dir.display().to_string())
}

/// A command that goes on whenever the next of the files `1`, `2`, … is made.
struct Steps(tempfile::TempDir);

impl Steps {
    fn new() -> Steps {
        Steps(tempfile::tempdir().unwrap())
    }

    fn command(&self, script: &str) -> Command {
        let step = "step() { until [ -e \"$0/$1\" ]; do sleep 0.02; done; }";
        let dir = self.0.path().display().to_string();
        Command {
            keep: 1 << 20,
            words: ["sh", "-c", &format!("{step}; {script}"), &dir].map(String::from).to_vec(),
            ..Command::default()
        }
    }

    fn go(&self, step: u32) {
        std::fs::write(self.0.path().join(step.to_string()), "").unwrap();
    }
}

/// Reads on until `seen` ends with this.
async fn see(output: &mut Shown, seen: &mut String, end: &str) {
    let reading = async {
        while !seen.ends_with(end) {
            seen.push_str(&String::from_utf8_lossy(&output.recv().await.unwrap().0));
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), reading).await.is_ok(), "{end:?} is not the end of {seen:?}");
}

async fn rest(output: &mut Shown) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some((more, _)) = output.recv().await {
        bytes.extend(more);
    }
    bytes
}

/// Begins a run and watches it from its beginning, or as somebody who comes later.
async fn watched<T>(reach: &Reach, id: &str, pass: Pass, then: impl Future<Output = T>) -> (super::Finished, T) {
    tokio::join!(async move { reach.durable_wait(&pass, id, 1 << 20).await }, then)
}

#[test]
fn what_a_run_writes_is_seen_as_it_comes_and_kept_exactly() {
    everywhere(async |reach, _| {
        let (steps, (pass, mut output)) = (Steps::new(), Pass::for_tests_with_output());
        let id = pass.effect().to_string();
        let command = steps.command("printf part⌀; step 1; printf 'ial\\n'; step 2; printf err⌀ >&2; step 3; exit 3");
        running(reach.durable_begin(&pass, &id, &command, "").await);
        let (done, ()) = watched(reach, &id, pass, async {
            let mut seen = String::new();
            see(&mut output, &mut seen, "part⌀").await;
            for (step, more) in [(1, "part⌀ial\n"), (2, "part⌀ial\nerr⌀")] {
                let start = Instant::now();
                steps.go(step);
                see(&mut output, &mut seen, more).await;
                assert!(start.elapsed() < Duration::from_secs(1), "{more:?} took {:?}", start.elapsed());
            }
            let start = Instant::now();
            steps.go(3);
            assert_eq!(rest(&mut output).await, b"");
            assert!(start.elapsed() < Duration::from_secs(1), "the end took {:?}", start.elapsed());
        })
        .await;
        assert_eq!((done.outcome.clone(), done.stdout.text().as_str()), (Outcome::Exited(3), "part⌀ial\n"));
        assert_eq!((done.stderr.text().as_str(), done.stdout.total, done.stdout.sha256.len()), ("err⌀", 11, 64));
        result(reach, &id, 10).await;
    });
}

#[test]
fn who_comes_later_sees_the_last_64_kib_and_what_follows() {
    everywhere(async |reach, id| {
        let steps = Steps::new();
        let script = "yes xxx | head -c 200000; touch \"$0/written\"; step 1; echo end";
        running(reach.durable_begin(&pass(), id, &steps.command(script), "").await);
        let written = || std::fs::metadata(directory(id).join("out")).is_ok_and(|out| out.len() == 200_000);
        until("it has written", written).await;
        let (pass, mut output) = Pass::for_tests_with_output();
        let (done, seen) = watched(reach, id, pass, async {
            let mut seen = String::new();
            see(&mut output, &mut seen, "xxx\n").await;
            steps.go(1);
            seen.push_str(str::from_utf8(&rest(&mut output).await).unwrap());
            seen
        })
        .await;
        assert_eq!(done.stdout.total, 200_004);
        // The line within which the last 64 KiB begin is left out, too.
        let expected = format!("… {} bytes left out …\n{}end\n", 200_000 - 65532, "xxx\n".repeat(65532 / 4));
        assert!(seen == expected, "{} bytes, first {:?}", seen.len(), seen.chars().take(50).collect::<String>());

        let (pass, mut output) = Pass::for_tests_with_output();
        let (again, seen) = watched(reach, id, pass, rest(&mut output)).await;
        assert!(again.stdout == done.stdout && seen.len() == expected.len() - 4, "an ended run is shown too");
        result(reach, id, 10).await;
    });
}

fn on_disk(id: &str) -> u64 {
    std::fs::read_dir(directory(id))
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .map(|file| file.len())
        .sum()
}

/// 63 MB in which every line is different, and the command that prints them.
fn numbers(dir: &tempfile::TempDir) -> (String, Command) {
    // In letters: another test may have taught that some number is a secret.
    let digits: String = (1..=8_000_000).map(|n| format!("{n}\n")).collect();
    let whole: String = digits.bytes().map(|b| char::from(if b == b'\n' { b } else { b - b'0' + b'Q' })).collect();
    let path = dir.path().join("numbers");
    std::fs::write(&path, &whole).unwrap();
    (whole, sh(&format!("cat {}; printf short >&2", path.display())))
}

#[test]
fn a_long_output_stays_bounded_on_the_host_with_exact_ends_and_length() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, command) = numbers(&dir);
    everywhere(async |reach, id| {
        running(reach.durable_begin(&pass(), id, &command, "").await);
        let done = reach.durable_wait(&pass(), id, usize::MAX).await;
        let out = done.stdout;
        assert_eq!((done.outcome, out.total), (Outcome::Exited(0), whole.len() as u64));
        // Less the lines that were cut.
        let is_kept = |half: &[u8]| (KEPT_THERE - 16..=KEPT_THERE).contains(&half.len());
        assert!(is_kept(&out.head) && is_kept(&out.tail) && out.sha256.is_empty());
        assert!(whole.as_bytes().starts_with(&out.head) && whole.as_bytes().ends_with(&out.tail));
        assert!(on_disk(id) <= 48 << 20, "{} bytes", on_disk(id));
        assert_eq!((done.stderr.text().as_str(), done.stderr.sha256.len()), ("short", 64));
        result(reach, id, 10).await;
    });
}

#[test]
fn a_run_never_waits_for_who_watches_it_and_what_is_not_shown_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, _) = numbers(&dir);
    // One output: of two, each holds back what may be the beginning of a secret, and where the other is, it shows it.
    let command = sh(&format!("cat {}", dir.path().join("numbers").display()));
    everywhere(async |reach, _| {
        let (watcher, mut output) = Pass::for_tests_with_output();
        let id = watcher.effect().to_string();
        running(reach.durable_begin(&watcher, &id, &command, "").await);
        let (done, seen) = watched(reach, &id, watcher, async {
            let pass = pass();
            while reach.durable_state(&pass, &id).await.unwrap() != Durable::Done(0) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            rest(&mut output).await
        })
        .await;
        assert_eq!(done.stdout.total, whole.len() as u64);
        // Pieces of the output in order, with the number of bytes between them.
        let seen = String::from_utf8(seen).unwrap();
        let (mut at, mut gaps) = (0, 0);
        for (n, piece) in seen.split("… ").enumerate() {
            let (left_out, piece) =
                if n == 0 { ("0", piece) } else { piece.split_once(" bytes left out …\n").unwrap() };
            at += left_out.parse::<usize>().unwrap();
            // A piece that ends within a line is shown with a newline of ours.
            let shown = if whole[at..].starts_with(piece) { piece.len() } else { piece.len() - 1 };
            let same = whole[at..].bytes().zip(piece.bytes()).take_while(|(a, b)| a == b).count();
            let next = |text: &str| text.get(same.saturating_sub(20)..same + 60).unwrap_or_default().to_string();
            let (was, is) = (next(&whole[at..]), next(piece));
            assert!(same >= shown, "piece {n}, byte {at} + {same} of {shown}: {is:?} and not {was:?}");
            (at, gaps) = (at + shown, n);
        }
        assert_eq!(at, whole.len());
        assert!(gaps > 0, "all of it was shown");
        result(reach, &id, 10).await;
    });
}

#[test]
fn a_background_child_that_holds_the_outputs_does_not_delay_the_result() {
    everywhere(async |reach, id| {
        let (start, mark) = (Instant::now(), mark());
        let script = format!("sh -c 'while :; do echo more; sleep 0.1; done' {mark} & echo started; exit 4");
        running(reach.durable_begin(&pass(), id, &sh(&script), "").await);
        let done = reach.durable_wait(&pass(), id, 1000).await;
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert_eq!(done.outcome, Outcome::Exited(4));
        assert!(done.stdout.text().contains("started\n"));
        result(reach, id, 1000).await;
        until("it runs alone", || command_lines(&mark).len() == 1).await;
        kill(command_lines(&mark)[0].0, 9);
    });
}

#[test]
fn what_was_written_before_a_term_is_kept() {
    everywhere(async |reach, id| {
        let script = "trap 'echo cleaned; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
        running(reach.durable_begin(&pass(), id, &sh(script), "").await);
        until("it is ready", || std::fs::read_to_string(directory(id).join("out")).is_ok_and(|out| out == "ready\n"))
            .await;
        reach.durable_signal(&pass(), id, "TERM").await.unwrap();
        let done = result(reach, id, 1000).await;
        assert_eq!((done.outcome, done.stdout.text().as_str()), (Outcome::Exited(5), "ready\ncleaned\n"));
    });
}

#[test]
fn a_result_can_be_had_without_waiting() {
    everywhere(async |reach, id| {
        let steps = Steps::new();
        running(reach.durable_begin(&pass(), id, &steps.command("echo begun; step 1; exit 6"), "").await);
        assert!(reach.durable_result(&pass(), id, 10).await.unwrap().is_none());
        steps.go(1);
        reach.durable_wait(&pass(), id, 10).await;
        let done = reach.durable_result(&pass(), id, 10).await.unwrap().unwrap();
        assert_eq!((done.outcome, done.stdout.text().as_str()), (Outcome::Exited(6), "begun\n"));
        result(reach, id, 10).await;
        let never = reach.durable_result(&pass(), id, 10).await.unwrap().unwrap();
        assert!(matches!(never.outcome, Outcome::NotStarted(_)));
    });
}

#[test]
fn who_looks_at_the_host_sees_what_runs_there() {
    everywhere(async |reach, id| {
        let (steps, about) = (Steps::new(), "{\"verb\":\"host.run\",\n\"who\":\"it's\\tme\"}");
        let other = format!("{id}.2");
        running(reach.durable_begin(&pass(), id, &steps.command("step 1"), about).await);
        running(reach.durable_begin(&pass(), &other, &sh("exit 9"), "").await);
        reach.durable_wait(&pass(), &other, 10).await;
        let list = reach.durable_list(&pass()).await.unwrap();
        let find = |id: &str| list.iter().find(|listed| listed.id == id).unwrap();
        assert!(matches!(find(id).state, Durable::Running { .. }));
        assert_eq!(find(id).about, about.replace('\n', " "));
        assert!(find(id).age_s < 20);
        assert_eq!((find(&other).state.clone(), find(&other).about.as_str()), (Durable::Done(9), ""));
        let too_long = reach.durable_begin(&pass(), "long", &sh("true"), &"x".repeat(4097)).await.unwrap_err();
        assert!(too_long.why.contains("4097 bytes"), "{too_long}");
        steps.go(1);
        result(reach, id, 10).await;
        result(reach, &other, 10).await;
    });
}

fn set_back(path: PathBuf, days: u32) {
    let ago = format!("{days} days ago");
    assert!(std::process::Command::new("touch").args(["-d", &ago]).arg(path).status().unwrap().success());
}

#[test]
fn old_results_are_swept_up_and_nothing_that_runs_is() {
    everywhere(async |reach, id| {
        let steps = Steps::new();
        let [old, young, runs, last] = ["old", "young", "runs", "last"].map(|name| format!("{id}.{name}"));
        for id in [&old, &young] {
            running(reach.durable_begin(&pass(), id, &sh("true"), "").await);
            reach.durable_wait(&pass(), id, 10).await;
        }
        running(reach.durable_begin(&pass(), &runs, &steps.command("step 1; exit 3"), "").await);
        until("it runs", || directory(&runs).join("err").exists()).await;
        for (id, days) in [(&old, 8), (&young, 6), (&runs, 30)] {
            set_back(directory(id), days);
        }
        let started = reach.durable_begin(&pass(), &last, &sh("true"), "").await;
        assert!(matches!(started, Ok(Started::Now { .. })));
        assert!(!directory(&old).exists() && directory(&young).exists());
        steps.go(1);
        assert_eq!(result(reach, &runs, 10).await.outcome, Outcome::Exited(3));
        result(reach, &last, 10).await;
        result(reach, &young, 10).await;
    });
}

#[test]
fn a_full_disk_stops_no_command_and_its_status_and_length_are_known() {
    let disk = tempfile::tempdir().unwrap();
    let Some(lab) = Lab::start_with_a_small_disk(disk.path()) else { return };
    live(async {
        let (link, reach) = lab.connect().await;
        let (watcher, mut output) = Pass::for_tests_with_output();
        let id = watcher.effect().to_string();
        let command = sh("head -c 50000000 /dev/zero; echo err >&2; exit 7");
        running(reach.durable_begin(&watcher, &id, &command, "").await);
        let (done, seen) = watched(&reach, &id, watcher, rest(&mut output)).await;
        assert_eq!(done.outcome, Outcome::Exited(7));
        assert!((49_934_464..=50_000_000).contains(&done.stdout.total), "{}", done.stdout.total);
        assert!(done.stdout.sha256.is_empty() && done.stdout.text().contains("bytes left out"));
        assert!(String::from_utf8_lossy(&seen).contains("bytes left out"));
        reach.durable_forget(&pass(), &id).await.unwrap();
        link.close().await;
    });
}
