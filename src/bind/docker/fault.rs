//! What a failed Engine call means: not there, not let in, not reached, failed, or "may have happened".

use super::transport::Wire;
use crate::error::{Error, Kind};
use std::error::Error as _;
use std::io;

/// Whether a request only looks or changes something; decides what a broken connection means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Read,
    Change,
}

/// Turns a failed call into opsh's error. `reason` is what the dialled channel wrote to stderr.
pub(super) fn explain(what: &str, host: &str, sent: Sent, reason: &str, wire: &Wire) -> Error {
    let error = match wire {
        Wire::Refused { status, message } => answered(what, *status, message),
        Wire::Late => match sent {
            Sent::Read => Error::new(Kind::Timeout, what, "the Docker Engine did not answer in time"),
            Sent::Change => unknown(what, "the Docker Engine did not answer in time"),
        },
        wire if is_transport(wire) => match (unreachable(what, host, reason, io_kind(wire)), sent) {
            (error, Sent::Read) => error,
            (error, Sent::Change) if never_sent(wire) => error,
            (_, Sent::Change) => unknown(what, &format!("the connection broke: {}", causes(wire))),
        },
        // The request was answered with success; only the text of the answer is not understood.
        wire => match sent {
            Sent::Read => {
                Error::new(Kind::Failed, what, format!("the Docker Engine's answer cannot be read: {}", causes(wire)))
            }
            Sent::Change => unknown(what, &format!("the Docker Engine's answer cannot be read: {}", causes(wire))),
        },
    };
    error.host(host)
}

/// "Not there" as None, for calls where that is an answer.
pub(super) fn if_there<T>(answer: Result<T, Wire>) -> Result<Option<T>, Wire> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Wire::Refused { status: 404, .. }) => Ok(None),
        Err(wire) => Err(wire),
    }
}

/// An error for a change whose outcome nobody has seen.
pub(super) fn unknown(what: &str, why: &str) -> Error {
    Error::new(Kind::Unknown, what, format!("{why}; it may have happened"))
        .next("look at the container's state before doing it again")
}

/// An error for the daemon's own sentence.
fn answered(what: &str, status: u16, message: &str) -> Error {
    let sentence = match message.trim() {
        "" => format!("the Docker Engine answered {status} and gave no reason"),
        message => message.trim_end_matches('.').to_owned(),
    };
    let kind = match status {
        _ if cannot_run(message).is_some_and(|fault| fault.missing) => Kind::NotFound,
        404 => Kind::NotFound,
        401 | 403 => Kind::Denied,
        _ => Kind::Failed,
    };
    let advice = advice(&sentence);
    let error = Error::new(kind, what, sentence);
    match advice {
        Some(line) => error.next(line),
        None => error,
    }
}

/// What to do about sentences that operators meet often.
fn advice(sentence: &str) -> Option<&'static str> {
    let known = [
        ("address already in use", "ss -ltnp    see which program holds the port"),
        (
            "port is already allocated",
            "docker ps --format '{{.Names}} {{.Ports}}'    see which container holds the port",
        ),
        ("no space left on device", "docker system df    see what takes the room"),
        ("is being used by running container", "stop or recreate that container first"),
        ("is not running", "start the container first, or use a one-off of its image"),
    ];
    known.iter().find(|(words, _)| sentence.contains(words)).map(|(_, line)| *line)
}

/// A program that the container's runtime could not start.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CannotRun {
    /// The program as it was asked for; empty when the runtime does not say.
    pub(super) program: String,
    /// True when it is not there, false when it is there and cannot be executed.
    pub(super) missing: bool,
}

/// Reads the runtime's sentence, e.g. `OCI runtime exec failed: exec failed: … exec: "/x": stat /x: no such file …`.
pub(super) fn cannot_run(message: &str) -> Option<CannotRun> {
    if !message.contains("OCI runtime") || !message.contains("exec: ") {
        return None;
    }
    let program = message.split("exec: \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    let missing = ["no such file or directory", "executable file not found", "not a directory"];
    Some(CannotRun { program: program.to_owned(), missing: missing.iter().any(|words| message.contains(words)) })
}

/// An error that says which of the usual reasons keeps us from the Engine.
pub(super) fn unreachable(what: &str, host: &str, reason: &str, io: Option<io::ErrorKind>) -> Error {
    let said = reason.trim().lines().last().unwrap_or_default().trim();
    let has = |words: &str| reason.contains(words);
    let dialled = has("dial unix") || has("docker daemon") || has("Docker daemon");
    if io == Some(io::ErrorKind::PermissionDenied) || (has("permission denied") && dialled) {
        return Error::new(Kind::Denied, what, format!("this user may not use the Docker socket on {host}"))
            .next(format!("sudo usermod -aG docker USER    on {host}, then log in again"))
            .next("or log in as a user that is in the group docker");
    }
    if has("command not found") || has("docker: not found") || has("docker: No such file") {
        return Error::new(Kind::NotFound, what, format!("there is no docker command on {host}: {said}"))
            .next(format!("ssh {host} 'command -v docker; echo $PATH'    see what a non-interactive shell finds"));
    }
    if has("is not a docker command") || has("unknown command") {
        return Error::new(Kind::Failed, what, format!("docker on {host} is too old for `docker system dial-stdio`"))
            .next("Docker 18.09 or newer is needed");
    }
    let down = matches!(io, Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused));
    if down || dialled {
        let detail = if said.is_empty() { String::new() } else { format!(": {said}") };
        return Error::new(Kind::Unreachable, what, format!("the Docker daemon is not running on {host}{detail}"))
            .next(format!("systemctl status docker    on {host}"));
    }
    let why = if said.is_empty() { "the connection to the Docker Engine closed".into() } else { said.to_owned() };
    Error::new(Kind::Unreachable, what, why)
}

/// True for errors of the stream below HTTP.
pub(super) fn is_transport(wire: &Wire) -> bool {
    matches!(wire, Wire::Request(_) | Wire::Body(_) | Wire::Stream(_))
}

/// True when the request cannot have reached the Engine because no stream was opened.
fn never_sent(wire: &Wire) -> bool {
    matches!(wire, Wire::Request(error) if error.is_connect())
}

/// The system error at the bottom, when there is one.
fn io_kind(wire: &Wire) -> Option<io::ErrorKind> {
    let mut next = match wire {
        Wire::Stream(error) => return Some(error.kind()),
        wire => wire.source(),
    };
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}

/// The error and everything below it on one line, without repeating itself.
fn causes(wire: &Wire) -> String {
    let mut text = wire.to_string();
    let mut next = wire.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_without_permission_is_denied_and_says_which_group() {
        let said = "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: \
                    dial unix /var/run/docker.sock: connect: permission denied\n";
        let error = unreachable("docker", "prod-1", said, None);
        assert_eq!(error.kind, Kind::Denied);
        assert!(error.next[0].contains("usermod -aG docker"), "{error:?}");
        assert_eq!(unreachable("docker", "h", "", Some(io::ErrorKind::PermissionDenied)).kind, Kind::Denied);
    }

    #[test]
    fn no_cli_no_daemon_and_an_old_cli_are_three_different_errors() {
        let kind = |said: &str| unreachable("docker", "h", said, None).kind;
        assert_eq!(kind("bash: line 1: docker: command not found"), Kind::NotFound);
        assert_eq!(kind("sh: 1: docker: not found"), Kind::NotFound);
        let socket = "dial unix /var/run/docker.sock: connect: no such file or directory";
        let error = unreachable("docker", "h", socket, None);
        assert_eq!(error.kind, Kind::Unreachable);
        assert!(error.why.contains("daemon is not running"), "{error}");
        assert_eq!(kind("docker: 'system' is not a docker command."), Kind::Failed);
        assert_eq!(kind(""), Kind::Unreachable);
    }

    #[test]
    fn the_daemons_sentence_decides_the_kind() {
        assert_eq!(answered("x", 404, "No such container: a").kind, Kind::NotFound);
        assert_eq!(answered("x", 409, "Conflict.").kind, Kind::Failed);
        let port = "listen tcp4 127.0.0.1:8080: bind: address already in use";
        assert!(answered("x", 500, port).next[0].contains("ss -ltnp"));
        let missing = "failed to create shim: OCI runtime create failed: exec: \"/app/nope\": stat /app/nope: no such file or directory: unknown";
        assert_eq!(answered("x", 400, missing).kind, Kind::NotFound);
    }

    #[test]
    fn the_runtimes_sentence_names_the_program() {
        let text = "OCI runtime exec failed: exec failed: unable to start container process: exec: \"/app/nope\": stat /app/nope: no such file or directory: unknown\r\n";
        assert_eq!(cannot_run(text), Some(CannotRun { program: "/app/nope".into(), missing: true }));
        let text = "OCI runtime exec failed: exec failed: exec: \"/etc/passwd\": permission denied: unknown";
        assert_eq!(cannot_run(text).map(|fault| fault.missing), Some(false));
        assert_eq!(cannot_run("sh: nope: not found"), None);
    }

    #[test]
    fn a_timeout_of_a_change_is_unknown_and_of_a_read_is_not() {
        let kind = |sent| explain("x", "h", sent, "", &Wire::Late).kind;
        assert_eq!(kind(Sent::Change), Kind::Unknown);
        assert_eq!(kind(Sent::Read), Kind::Timeout);
    }
}
