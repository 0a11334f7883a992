//! Running a command inside a running container.

use super::end::Begun;
use super::engine::Engine;
use super::fault::{self, CannotRun};
use super::logs::{Frames, Kept, Stream, ran};
use super::model::{Env, Ran, number, text, truth};
use super::transport::{Wire, encode};
use crate::error::{Error, Kind, Result};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// A command for a running container. It has no Debug: input and environment carry secrets.
#[derive(Clone, Default)]
pub struct Exec {
    /// Program and arguments; no shell looks at them.
    pub words: Vec<String>,
    /// Variables besides the container's own.
    pub env: Env,
    /// Bytes for its stdin; empty gives it an empty one.
    pub stdin: Vec<u8>,
    /// User to run as; None is the container's.
    pub user: Option<String>,
    /// Directory to run in; None is the container's.
    pub dir: Option<String>,
    /// At most so many bytes of each stream are kept: head and tail.
    pub keep: usize,
    /// It changes something: nobody ends it when it is given up.
    pub changes: bool,
}

/// What a command is told next, when it has said something.
pub enum Answer {
    /// Nothing yet.
    Wait,
    /// This.
    Say(Vec<u8>),
    /// This, and its input ends.
    Last(Vec<u8>),
}

/// Hears each piece of what a command says on standard error, and answers it.
pub type Hears<'a> = &'a mut (dyn FnMut(&[u8]) -> Answer + Send);

impl Engine {
    /// Runs a command and waits for its end. An exit code other than 0 is not an error.
    ///
    /// Errors: `not_found` when the container or the program is not there, `failed` when the container does not run or
    /// the program cannot be executed, `unknown` when the connection broke after the start. A command that is given up is
    /// ended in the container, unless it changes something.
    pub async fn exec(&self, id: &str, exec: Exec) -> Result<Ran> {
        self.run(id, exec, None).await
    }

    /// As [`Engine::exec`], with more input as an answer to what the command says. Then its input ends with the last answer.
    pub async fn run(&self, id: &str, exec: Exec, hears: Option<Hears<'_>>) -> Result<Ran> {
        let program = exec.words.first().cloned().unwrap_or_default();
        let what = format!("cannot run {program} in container {id}");
        let name = self.known_name(&what, id)?;
        let config = json!({
            "AttachStdin": !exec.stdin.is_empty(),
            "AttachStdout": true,
            "AttachStderr": true,
            "Env": exec.env.lines(),
            "Cmd": exec.words,
            "User": exec.user.unwrap_or_default(),
            "WorkingDir": exec.dir.unwrap_or_default(),
        });
        // Creating only notes the command: until the start nothing can have happened.
        let made = self.read(&what, self.http().post(&format!("/containers/{name}/exec"), Some(&config))).await?;
        let made = encode(&text(&made, "/Id"));
        let _waits = self.waits_at_least_for(|| format!("{program} in container {name} on {} to end", self.host()));
        let begun = (!exec.changes).then(|| Begun::new(self, &made, name, &program));
        let (stdout, stderr) = self.attach(&what, &made, exec.stdin, exec.keep, hears).await?;
        let exit = self.exec_exit(&what, &made).await?;
        if let Some(begun) = begun {
            begun.has_ended();
        }
        let begins = |kept: &Kept| String::from_utf8_lossy(&kept.head()[..kept.head().len().min(1000)]).into_owned();
        if let (126 | 127, Some(fault)) = (exit, [&stdout, &stderr].into_iter().find_map(|k| not_started(&begins(k)))) {
            return Err(self.not_run(&what, name, &program, &fault, &begins(&stdout)).exit(exit));
        }
        Ok(ran(exit, stdout, stderr))
    }

    async fn attach(
        &self,
        what: &str,
        exec: &str,
        stdin: Vec<u8>,
        keep: usize,
        mut hears: Option<Hears<'_>>,
    ) -> Result<(Kept, Kept)> {
        let start = json!({ "Detach": false, "Tty": false });
        let stream = self.change(what, self.http().upgrade(&format!("/exec/{exec}/start"), &start)).await?;
        let (mut output, mut input) = tokio::io::split(stream);
        let (mut out, mut err) = (Kept::new(keep), Kept::new(keep));
        let (mut frames, mut heard) = (Frames::new(false), Vec::new());
        let (say, mut said) = mpsc::unbounded_channel();
        let _ = say.send(stdin);
        let mut say = hears.is_some().then_some(say);
        let write = async move {
            while let Some(bytes) = said.recv().await {
                // A command that ends without reading all of its input closes the stream: that is its right.
                let _ = input.write_all(&bytes).await;
                let _ = input.flush().await;
            }
            let _ = input.shutdown().await;
            input
        };
        tokio::pin!(write);
        let (mut rest, mut buffer) = (None, vec![0; 64 * 1024]);
        loop {
            tokio::select! {
                biased;
                read = output.read(&mut buffer) => match read {
                    Ok(0) => return Ok((out, err)),
                    Ok(read) => {
                        frames.feed(&buffer[..read], |frame| match frame.stream {
                            Stream::Stdout => out.push(frame.bytes),
                            Stream::Stderr => {
                                err.push(frame.bytes);
                                heard.extend_from_slice(frame.bytes);
                            }
                        });
                        let piece = whole_letters(&mut heard);
                        let answer = match hears.as_mut().filter(|_| !piece.is_empty()) {
                            Some(hears) => hears(&piece),
                            None => Answer::Wait,
                        };
                        let is_last = matches!(answer, Answer::Last(_));
                        if let (Some(say), Answer::Say(bytes) | Answer::Last(bytes)) = (&say, answer) {
                            let _ = say.send(bytes);
                        }
                        if is_last {
                            say = None;
                        }
                    }
                    Err(error) => return self.change(what, async { Err(Wire::Stream(error)) }).await,
                },
                // Raced, not joined: a command that ends early must not wait for its input to drain. The writing half
                // is kept until the end, for dropping it could close the stream under the reader.
                input = &mut write, if rest.is_none() => rest = Some(input),
            }
        }
    }

    /// The exit code. The Engine may still say "running" for a moment after the output has ended.
    async fn exec_exit(&self, what: &str, exec: &str) -> Result<i64> {
        let mut pause = Duration::from_millis(5);
        loop {
            let seen = self.change(what, self.exec_seen(exec)).await?;
            if !truth(&seen, "/Running") {
                return Ok(number(&seen, "/ExitCode"));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// The Engine's word on a command.
    pub(super) async fn exec_seen(&self, exec: &str) -> Result<Value, Wire> {
        self.http().get_json(&format!("/exec/{exec}/json")).await
    }

    fn not_run(&self, what: &str, id: &str, program: &str, fault: &CannotRun, said: &str) -> Error {
        if fault.missing {
            return self.error(Kind::NotFound, what, format!("there is no program {program:?} in container {id}"));
        }
        self.error(Kind::Failed, what, said.trim().to_owned())
    }
}

/// The runtime's own words in place of the program's: they come on stdout, with exit code 126 or 127.
fn not_started(begins: &str) -> Option<CannotRun> {
    begins.starts_with("OCI runtime exec failed").then(|| fault::cannot_run(begins)).flatten()
}

/// Takes what was heard, but for the first bytes of a letter that has not come to its end.
fn whole_letters(heard: &mut Vec<u8>) -> Vec<u8> {
    let end = match std::str::from_utf8(heard) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => heard.len(),
    };
    let rest = heard.split_off(end);
    std::mem::replace(heard, rest)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Lab;
    use super::super::transport::{Dial, two_ends};
    use super::*;
    use crate::gate::Pass;
    use std::process::Stdio;
    use std::sync::Arc;
    use std::time::Instant;

    fn sh(script: &str) -> Exec {
        Exec { words: ["sh", "-c", script].map(str::to_owned).to_vec(), keep: 1 << 16, ..Default::default() }
    }

    #[tokio::test]
    async fn exit_code_streams_environment_user_and_directory_come_through() {
        let Some(lab) = Lab::open().await else { return };
        let id = lab.run("a", &[], &["sleep", "60"]);
        let env = Env::new([("A".to_owned(), "b c".to_owned())]);
        let script = "echo \"$A $(pwd) $(id -u)\"; echo err >&2; cat; exit 7";
        let exec = Exec { env, dir: Some("/tmp".into()), user: Some("12".into()), ..sh(script) };
        let ran = lab.engine.exec(&id, exec).await.unwrap();
        assert_eq!((ran.exit, &ran.stdout[..], &ran.stderr[..]), (7, &b"b c /tmp 12\n"[..], &b"err\n"[..]));
    }

    #[tokio::test]
    async fn a_megabyte_of_input_arrives_and_unread_input_does_not_hold_the_end_up() {
        let Some(lab) = Lab::open().await else { return };
        let id = lab.run("a", &[], &["sleep", "60"]);
        let ran = lab.engine.exec(&id, Exec { stdin: vec![b'x'; 1_000_000], ..sh("cat | wc -c") }).await.unwrap();
        assert_eq!((ran.exit, String::from_utf8_lossy(&ran.stdout).trim()), (0, "1000000"));
        let start = Instant::now();
        let ran = lab.engine.exec(&id, Exec { stdin: vec![b'x'; 3_000_000], ..sh("exit 4") }).await.unwrap();
        assert_eq!(ran.exit, 4);
        assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn the_end_of_the_input_also_passes_through_dial_stdio() {
        let Some(lab) = Lab::open().await else { return };
        let id = lab.run("a", &[], &["sleep", "60"]);
        let dial: Dial = Arc::new(|| {
            Box::pin(async {
                let mut command = tokio::process::Command::new("docker");
                command.args(["system", "dial-stdio"]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
                let mut child = command.spawn()?;
                let (read, write) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
                Ok(two_ends(read, write, child))
            })
        });
        let engine = Engine::connect(&Pass::for_tests(), "here", dial, Arc::new(String::new)).await.unwrap();
        let ran = engine.exec(&id, Exec { stdin: vec![b'x'; 1_000_000], ..sh("cat | wc -c; exit 3") }).await.unwrap();
        assert_eq!((ran.exit, String::from_utf8_lossy(&ran.stdout).trim()), (3, "1000000"));
        assert_eq!(engine.inspect(&id).await.unwrap().state, "running");
    }

    #[tokio::test]
    async fn long_output_is_kept_at_both_ends() {
        let Some(lab) = Lab::open().await else { return };
        let id = lab.run("a", &[], &["sleep", "60"]);
        let ran = lab.engine.exec(&id, Exec { keep: 100, ..sh("seq 100000") }).await.unwrap();
        assert!(ran.stdout.starts_with(b"1\n2\n") && ran.stdout.ends_with(b"99999\n100000\n"));
        assert_eq!(ran.left_out, 588_895 - 100);
    }

    #[tokio::test]
    async fn a_missing_program_a_plain_file_and_a_stopped_container_are_told_apart() {
        let Some(lab) = Lab::open().await else { return };
        let id = lab.run("a", &[], &["sleep", "60"]);
        let run = async |word: &str| lab.engine.exec(&id, Exec { words: vec![word.into()], keep: 999, ..sh("") }).await;
        for program in ["/app/nope", "nope"] {
            let error = run(program).await.unwrap_err();
            assert_eq!((error.kind, error.why.contains(&format!("{program:?}"))), (Kind::NotFound, true), "{error}");
        }
        let error = run("/app/plain").await.unwrap_err();
        assert_eq!((error.kind, error.why.contains("permission denied")), (Kind::Failed, true), "{error}");
        lab.engine.stop(&id, 0).await.unwrap();
        let error = run("true").await.unwrap_err();
        assert_eq!((error.kind, error.why.contains("is not running")), (Kind::Failed, true), "{error}");
        let error = lab.engine.exec("opsh-none", sh("true")).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
    }
}
