//! Everything about why a login failed: reading ssh's words, and saying it so that an operator knows what to do. Pure.

use super::Login;
use super::asks::{Answers, plain};
use super::launch::Said;
use super::quote::{quote_all, shell_word};
use super::route;
use crate::error::{Error, Kind};

/// Why a login failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The host's key is in no list; nothing was sent. Of a jump host, `jump` holds the words that adopt its key.
    KeyUnknown { host: String, offered: String, jump: Option<String> },
    /// The host's key is not the pinned one.
    KeyNotPinned { offered: String, pinned: String },
    /// The host's key is not the one in the list at `place` (`file:line`).
    KeyChanged { host: String, offered: String, place: Option<(String, usize)>, jump: Option<String> },
    /// The host has only kinds of keys that ssh does not take.
    NoCommonKey { offer: String },
    /// The password was tried once.
    WrongPassword { who: String, jump: bool },
    /// A password is asked for and none is known.
    NeedPassword { who: String, jump: bool },
    /// A key's passphrase is not known, or is wrong.
    LockedKey { key: String, tried: bool },
    /// A code, a PIN or something else that opsh does not know, and nobody is there to be asked.
    OtherFactor { who: String, prompt: String },
    /// The server wants a new password in place of one that has expired.
    Expired { who: String, prompt: String },
    /// The server ended the login with this text of its own.
    Dismissed { text: String },
    /// A jump host does not connect to the next one.
    JumpCannot { jump: String, detail: String },
    /// No method was accepted.
    NotLetIn { methods: String },
    /// Dropped before the server's first word: nothing ran, safe to try again.
    Throttled,
    /// Nothing listens there.
    Refused,
    /// No answer in time.
    Timeout,
    /// The name has no address.
    Unresolved,
    /// No way there.
    NoRoute,
    /// Nothing of the above; ssh's last words.
    Other { detail: String },
}

/// Reads what each ssh on the way said, the nearest first. The first line that is a cause decides: what comes later follows
/// from it, or may be a server's own text. A line counts by its beginning, which is ssh's own; what a server may
/// have written, behind it or in a banner, is shown and never searched.
pub fn read(said: &Said, answers: &Answers<'_>) -> Trouble {
    for (n, log) in said.logs.iter().enumerate() {
        let lines: Vec<&str> = log.lines().map(|line| own(line.trim_end())).collect();
        let causes = (0..lines.len()).find_map(|at| cause(&lines[at..], n, answers));
        match causes {
            // It never said its first word, and what carries the bytes there may have said why.
            Some(Trouble::Throttled) if answers.route.by_command && last_line(&said.stderr).is_some() => {
                let detail = last_line(&said.stderr).unwrap_or_default();
                return Trouble::Other { detail: format!("ProxyCommand: {}", plain(detail)) };
            }
            Some(trouble) => return trouble,
            None => {}
        }
    }
    let last = said.logs.iter().rev().find_map(|log| last_line(log)).or_else(|| last_line(&said.stderr));
    Trouble::Other { detail: last.map_or("ssh ended without a word".into(), plain) }
}

/// The cause that the first of these lines tells of; `n` is the place of the ssh on the way.
fn cause(lines: &[&str], n: usize, answers: &Answers<'_>) -> Option<Trouble> {
    let line = *lines.first()?;
    if line == "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @" {
        return Some(changed_key(lines, n, answers));
    }
    let unknown = line.starts_with("No ") && line.contains(" host key is known for ");
    if line == "Host key verification failed." || unknown {
        return Some(unknown_key(line, n, answers));
    }
    if line.starts_with("ssh: Could not resolve hostname ") {
        return Some(Trouble::Unresolved);
    }
    if line.starts_with("ssh: connect to host ") {
        // Texts of error numbers.
        return Some(match line.rsplit(": ").next().unwrap_or_default() {
            "Connection refused" => Trouble::Refused,
            "No route to host" | "Network is unreachable" => Trouble::NoRoute,
            "Connection timed out" | "Operation timed out" => Trouble::Timeout,
            other => Trouble::Other { detail: other.into() },
        });
    }
    let silent = line.starts_with("Connection to ") && line.ends_with(" timed out");
    if silent || line == "Connection timed out during banner exchange" {
        return Some(Trouble::Timeout);
    }
    if line == "kex_exchange_identification: Connection closed by remote host"
        || line == "kex_exchange_identification: read: Connection reset by peer"
    {
        return Some(Trouble::Throttled);
    }
    if let Some(rest) = line.strip_prefix("Received disconnect from ") {
        // `HOST port PORT:CODE: TEXT`
        let text = rest.split_once(" port ").and_then(|(_, rest)| rest.splitn(3, ':').nth(2));
        return Some(Trouble::Dismissed { text: plain(text.unwrap_or_default()) });
    }
    if let Some((ours, offer)) = line.split_once(". Their offer: ")
        && ours.starts_with("Unable to negotiate with ")
    {
        return Some(match ours.ends_with(": no matching host key type found") {
            true => Trouble::NoCommonKey { offer: plain(offer) },
            false => Trouble::Other { detail: plain(line) },
        });
    }
    if let Some(rest) = line.strip_prefix("channel 0: open failed: ") {
        let jump = answers.route.hops.get(n).map_or(String::new(), |hop| hop.written.clone());
        return Some(Trouble::JumpCannot { jump, detail: plain(rest) });
    }
    let (who, methods) = line.split_once(": Permission denied (")?;
    let is_login = who.contains('@') && !who.contains(char::is_whitespace);
    is_login.then(|| not_let_in(methods, answers))
}

fn changed_key(lines: &[&str], n: usize, answers: &Answers<'_>) -> Trouble {
    let rest_of = |start: &str| lines.iter().find_map(|line| line.strip_prefix(start));
    let host = rest_of("Host key for ").and_then(|rest| rest.split_once(" has changed")).map_or("", |(host, _)| host);
    let offered = lines.iter().find(|line| line.starts_with("SHA256:")).map_or("", |line| line.trim_end_matches('.'));
    let place = rest_of("Offending ").and_then(|line| {
        let (file, number) = line.split_once(" in ")?.1.trim().rsplit_once(':')?;
        Some((file.to_string(), number.parse().ok()?))
    });
    let jump = answers.route.adopting(n);
    Trouble::KeyChanged { host: host.into(), offered: offered.into(), place, jump }
}

fn unknown_key(line: &str, n: usize, answers: &Answers<'_>) -> Trouble {
    // The log says whose ssh it is: a name may be that of several.
    let jump = answers.route.adopting(n);
    let Some((prompt, of_target)) = &answers.host_key else {
        let host = line.split_once("host key is known for ").map_or("", |(_, rest)| rest);
        let host = host.split(' ').next().unwrap_or_default();
        return Trouble::KeyUnknown { host: host.into(), offered: "a key".into(), jump };
    };
    let offered = key_in(prompt);
    match &answers.pin() {
        Some(pin) if *of_target => Trouble::KeyNotPinned { offered, pinned: pin.to_string() },
        _ => {
            let host = prompt.split_once("host '").map_or("", |(_, rest)| rest);
            let host = host.split([' ', '\'']).next().unwrap_or_default();
            Trouble::KeyUnknown { host: host.into(), offered, jump }
        }
    }
}

/// `ED25519 SHA256:…` out of ssh's question.
fn key_in(prompt: &str) -> String {
    let kind = prompt.lines().find_map(|line| line.split_once(" key fingerprint is ")).map_or("", |(kind, _)| kind);
    format!("{kind} {}", word_with(prompt, "SHA256:").unwrap_or_default()).trim().to_string()
}

fn word_with(text: &str, start: &str) -> Option<String> {
    text.split_whitespace().find(|word| word.starts_with(start)).map(|word| word.trim_end_matches('.').to_string())
}

fn not_let_in(methods: &str, answers: &Answers<'_>) -> Trouble {
    if let Some((key, tried)) = &answers.locked_key {
        return Trouble::LockedKey { key: key.clone(), tried: *tried };
    }
    Trouble::NotLetIn { methods: plain(methods.split(')').next().unwrap_or_default()) }
}

/// A line of ssh without the place in its source, `FILE.c:FUNCTION():LINE (pid=N): `, which those have that it says because of
/// LogVerbose.
fn own(line: &str) -> &str {
    let Some((place, rest)) = line.split_once("): ") else { return line };
    let is_place = place.split_once(".c:").is_some_and(|(file, rest)| !file.contains(' ') && rest.contains("():"));
    if is_place { rest } else { line }
}

/// The last line with a word in it.
pub fn last_line(text: &str) -> Option<&str> {
    text.lines().map(|line| own(line.trim())).rfind(|line| !line.is_empty())
}

impl Trouble {
    /// The error for the operator. `known` is the fingerprint in opsh's list, for a changed key or another than the pinned.
    pub fn error(self, login: &Login, known: Option<String>) -> Error {
        let kind = self.kind();
        let error =
            Error::new(kind, format!("cannot log in to {} ({})", login.name, login.dest), self.why(login, known));
        self.next(login).into_iter().fold(error.host(&login.name), Error::next)
    }

    fn kind(&self) -> Kind {
        match self {
            Trouble::Throttled | Trouble::Refused | Trouble::Unresolved | Trouble::NoRoute => Kind::Unreachable,
            // Nothing was sent to a place that did not answer: that is no deadline of something that goes on.
            Trouble::Other { .. } | Trouble::Timeout | Trouble::JumpCannot { .. } => Kind::Unreachable,
            _ => Kind::Denied,
        }
    }

    fn why(&self, login: &Login, known: Option<String>) -> String {
        let name = &login.name;
        match self {
            Trouble::KeyUnknown { offered, jump: None, .. } => format!("it offers {offered}, and opsh knows no key of {name}"),
            Trouble::KeyUnknown { host, offered, .. } => format!("the jump host {host} offers {offered}, which is not known"),
            Trouble::KeyNotPinned { offered, pinned } => {
                let besides = known.map_or(String::new(), |known| format!("; opsh knows {known}, which a pin overrules"));
                format!("it offers {offered}, but host_key pins {pinned}{besides}")
            }
            Trouble::KeyChanged { host, offered, jump, .. } => {
                let who = if jump.is_none() { "it".into() } else { format!("the jump host {host}") };
                let known = known.unwrap_or_else(|| "another key".into());
                format!("{who} offers {offered}, but {known} is known: it was rebuilt, or somebody is in between")
            }
            Trouble::WrongPassword { who, .. } => format!("the password for {} is wrong; it was tried once", or(who, name)),
            Trouble::NeedPassword { who, .. } => format!("{} wants a password, and opsh has none", or(who, name)),
            Trouble::LockedKey { key, tried: true } => format!("the passphrase for {key} is wrong"),
            Trouble::LockedKey { key, tried: false } => format!("the key {key} has a passphrase, and opsh does not know it"),
            Trouble::OtherFactor { who, prompt } => {
                format!("{who} asks {prompt:?}, and there is nobody at a terminal to answer")
            }
            Trouble::Expired { who, prompt } => {
                format!("{who} asks {prompt:?}: it wants another password first, and opsh changes none")
            }
            Trouble::Dismissed { text } => format!("the server ended the login, saying {text:?}"),
            Trouble::NoCommonKey { offer } if is_sha1(offer) => {
                format!("it offers {offer} only, a signature with SHA-1, which ssh does not take")
            }
            Trouble::NoCommonKey { offer } => format!("ssh takes none of the kinds of host keys that it offers: {offer}"),
            Trouble::JumpCannot { jump, detail } => format!("the jump host {jump} does not connect to it: {detail}"),
            Trouble::NotLetIn { methods } => format!("no key or password was accepted (it accepts: {methods})"),
            Trouble::Throttled => "it closed the connection before its first word, 6 times: too many logins at once, or this address is blocked".into(),
            Trouble::Refused => "the connection was refused: nothing listens on that port".into(),
            Trouble::Timeout => "there was no answer in time".into(),
            Trouble::Unresolved => "the name has no address".into(),
            Trouble::NoRoute => "there is no route to it".into(),
            Trouble::Other { detail } => format!("ssh says: {detail}"),
        }
    }

    fn next(&self, login: &Login) -> Vec<String> {
        let name = &shell_word(&login.name);
        let line = |text: String| vec![text];
        let to = login.address().map(|address| quote_all(&route::words(&address))).unwrap_or_default();
        let (ssh, ssh_v) = (format!("ssh {to}"), format!("ssh -v {to}"));
        match self {
            Trouble::KeyUnknown { jump, .. } => line(format!("opsh host adopt {}", jump.as_ref().unwrap_or(name))),
            Trouble::KeyNotPinned { .. } => {
                line(format!("compare with the provider's console, then correct host_key of {name} in opsh.toml"))
            }
            Trouble::KeyChanged { jump, .. } => {
                line(format!("opsh host adopt --replace {}", jump.as_ref().unwrap_or(name)))
            }
            Trouble::WrongPassword { .. } => line(format!("check where {name} gets its password in opsh.toml")),
            Trouble::NeedPassword { jump, .. } => {
                let key = if *jump { "jump_password" } else { "password" };
                let name_of_variable = name.to_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
                vec![
                    format!("{key} = \"env:OPSH_{name_of_variable}_PASSWORD\" for {name} in opsh.toml"),
                    format!("{key} = \"prompt:\" for {name} in opsh.toml, to be asked each time"),
                ]
            }
            Trouble::LockedKey { key, tried } => {
                let other = if *tried { "correct" } else { "set" };
                vec![format!("ssh-add {key}"), format!("{other} the passphrase of {name} in opsh.toml")]
            }
            Trouble::OtherFactor { .. } => line("run opsh at a terminal: there it asks you".into()),
            Trouble::Expired { .. } => line(format!("{ssh}     sets the new password")),
            Trouble::Dismissed { .. } => vec![
                format!("{ssh_v}     shows which keys are offered"),
                format!("identity = \"keys/ops\" for {name} in opsh.toml: then only that key is offered"),
            ],
            Trouble::NoCommonKey { offer } if is_sha1(offer) => {
                line(format!("HostKeyAlgorithms +ssh-rsa     for {name} in ~/.ssh/config, until its sshd is upgraded"))
            }
            Trouble::NoCommonKey { .. } => line(format!("{ssh_v}     shows what both sides take")),
            Trouble::JumpCannot { jump, .. } => {
                line(format!("check AllowTcpForwarding on {jump}, and that it reaches {}", login.dest))
            }
            Trouble::NotLetIn { .. } => line(format!("{ssh_v}     shows which keys are offered")),
            Trouble::Throttled => line("try again in a minute; fewer hosts at once".into()),
            Trouble::Refused | Trouble::Timeout | Trouble::NoRoute => {
                line("check address, port and firewall; is the server up?".into())
            }
            Trouble::Unresolved => line(format!("check the address of {name} in opsh.toml and ~/.ssh/config")),
            Trouble::Other { .. } => line(format!("{ssh_v}     shows more")),
        }
    }
}

/// Whether nothing but RSA with SHA-1 is offered.
fn is_sha1(offer: &str) -> bool {
    offer.split(',').all(|kind| kind == "ssh-rsa")
}

fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::route::Route;
    use super::*;

    fn login() -> Login {
        Login::new("web", "root@web", "/k".into(), "/c".into())
    }

    fn read(log: &str) -> Trouble {
        read_with(log, "")
    }

    fn read_with(log: &str, stderr: &str) -> Trouble {
        let (login, route) = (login(), Route::default());
        super::read(&Said { logs: vec![log.into()], stderr: stderr.into() }, &Answers::new(&login, &route))
    }

    #[test]
    fn every_line_that_ssh_says_is_read() {
        let dismissed = |text: &str| Trouble::Dismissed { text: text.into() };
        let cases = [
            ("ssh: Could not resolve hostname x: Name or service not known", Trouble::Unresolved),
            ("ssh: connect to host h port 1: Connection refused", Trouble::Refused),
            ("ssh: connect to host h port 1: No route to host\r", Trouble::NoRoute),
            ("ssh: connect to host h port 22: Connection timed out", Trouble::Timeout),
            ("kex_exchange_identification: read: Connection reset by peer\r\n", Trouble::Throttled),
            (
                "ssh: connect to host j port 1: Connection refused\nkex_exchange_identification: Connection closed by remote host",
                Trouble::Refused,
            ),
            ("packet.c:sshpkt_vfatal():1923 (pid=7): Connection to 1.2.3.4 port 22 timed out", Trouble::Timeout),
            (
                "kex_exchange_identification: banner line contains invalid characters",
                Trouble::Other {
                    detail: "kex_exchange_identification: banner line contains invalid characters".into(),
                },
            ),
            (
                "Received disconnect from 1.2.3.4 port 22:2: Too many authentication failures",
                dismissed("Too many authentication failures"),
            ),
            (
                "root@h: Permission denied (publickey,password).",
                Trouble::NotLetIn { methods: "publickey,password".into() },
            ),
            (
                "Unable to negotiate with 1.2.3.4 port 22: no matching host key type found. Their offer: ssh-rsa",
                Trouble::NoCommonKey { offer: "ssh-rsa".into() },
            ),
        ];
        for (log, trouble) in cases {
            assert_eq!(read(log), trouble);
        }
    }

    #[test]
    fn no_text_of_a_server_is_a_cause() {
        let lies = [
            "Idle sessions are timed out after 15 minutes.",
            "ssh: connect to host h port 22: Connection timed out",
            "Host key verification failed.",
            "ssh: Could not resolve hostname x",
            "root@h: Permission denied (none).",
        ];
        for lie in lies {
            let denied = Trouble::NotLetIn { methods: "publickey".into() };
            assert_eq!(read_with("root@h: Permission denied (publickey).", lie), denied, "{lie}");
            let dismissed = read(&format!("Received disconnect from ::1 port 22:2: bye\n{lie}"));
            assert_eq!(dismissed, Trouble::Dismissed { text: "bye".into() }, "{lie}");
            let within = read(&format!("Received disconnect from ::1 port 22:2: {lie}"));
            assert_eq!(within, Trouble::Dismissed { text: lie.into() }, "{lie}");
            let offer = format!("Unable to negotiate with ::1 port 22: no matching cipher found. Their offer: {lie}");
            assert!(matches!(read(&offer), Trouble::Other { .. }), "{lie}");
        }
        let offer = "x. Their offer: y: no matching host key type found";
        let other = format!("Unable to negotiate with ::1 port 22: no matching MAC found. Their offer: {offer}");
        assert!(matches!(read(&other), Trouble::Other { .. }));
    }

    #[test]
    fn a_host_that_does_not_answer_was_not_reached() {
        for trouble in [Trouble::Timeout, Trouble::NoRoute, Trouble::Refused] {
            assert_eq!(trouble.error(&login(), None).kind, Kind::Unreachable);
        }
    }

    #[test]
    fn a_changed_key_names_the_place_of_the_old_one() {
        let log = "@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nThe fingerprint for the ED25519 key sent by the remote host is\nSHA256:new.\nOffending ED25519 key in /a b/known:7\nHost key for web has changed and you have requested strict checking.";
        let trouble = read(log);
        let place = Some(("/a b/known".to_string(), 7));
        let expected = Trouble::KeyChanged { host: "web".into(), offered: "SHA256:new".into(), place, jump: None };
        assert_eq!(trouble, expected);
        let error = trouble.error(&login(), Some("SHA256:old".into()));
        assert!(error.why.contains("SHA256:new") && error.why.contains("SHA256:old"), "{}", error.why);
        assert_eq!(error.next, ["opsh host adopt --replace web"]);
    }
}
