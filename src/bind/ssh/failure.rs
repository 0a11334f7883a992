//! Everything about why a login failed: reading ssh's words, and saying it so that an operator knows what to do. Pure.

use super::Login;
use super::asks::Answers;
use crate::error::{Error, Kind};

/// Why a login failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The host's key is in no list; nothing was sent.
    KeyUnknown { host: String, offered: String, jump: bool },
    /// The host's key is not the pinned one.
    KeyNotPinned { offered: String, pinned: String },
    /// The host's key is not the one in the list at `place` (`file:line`).
    KeyChanged { host: String, offered: String, place: Option<(String, usize)> },
    /// The password was tried once.
    WrongPassword { who: String, jump: bool },
    /// A password is asked for and none is known.
    NeedPassword { who: String, jump: bool },
    /// A key's passphrase is not known, or is wrong.
    LockedKey { key: String, tried: bool },
    /// A code, a PIN or something else that opsh does not know.
    OtherFactor { prompt: String },
    /// The server counted the offered keys as attempts.
    TooManyKeys,
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

/// Reads what ssh wrote to stderr. The causes come first: with a jump host ssh adds words that look like throttling.
pub fn read(stderr: &str, answers: &Answers<'_>) -> Trouble {
    let has = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
    if has(&["REMOTE HOST IDENTIFICATION HAS CHANGED"]) || (has(&["Host key for"]) && has(&["has changed"])) {
        return changed_key(stderr);
    }
    if has(&["Host key verification failed", "host key is known"]) {
        return unknown_key(stderr, answers);
    }
    let simple = [
        (&["Too many authentication failures"][..], Trouble::TooManyKeys),
        (&["Could not resolve hostname"], Trouble::Unresolved),
        (&["Connection refused"], Trouble::Refused),
        (&["No route to host", "Network is unreachable"], Trouble::NoRoute),
        (&["timed out"], Trouble::Timeout),
    ];
    if let Some((_, trouble)) = simple.into_iter().find(|(words, _)| has(words)) {
        return trouble;
    }
    if has(&["Permission denied ("]) {
        return not_let_in(stderr, answers);
    }
    let before_the_banner = stderr.lines().filter(|line| line.starts_with("kex_exchange_identification:"));
    if before_the_banner.into_iter().any(|line| line.contains("closed by remote") || line.contains("reset by peer")) {
        return Trouble::Throttled;
    }
    Trouble::Other { detail: last_line(stderr).unwrap_or("ssh ended without a word").into() }
}

fn changed_key(stderr: &str) -> Trouble {
    let after = |mark: &str| stderr.split_once(mark).map(|(_, rest)| rest);
    let host = after("Host key for ").and_then(|rest| rest.split_once(" has changed")).map_or("", |(host, _)| host);
    let offered = word_with(stderr, "SHA256:").unwrap_or_default();
    let place = after("Offending ").and_then(|rest| rest.lines().next()).and_then(|line| {
        let (file, number) = line.split_once(" in ")?.1.trim().rsplit_once(':')?;
        Some((file.to_string(), number.parse().ok()?))
    });
    Trouble::KeyChanged { host: host.into(), offered, place }
}

fn unknown_key(stderr: &str, answers: &Answers<'_>) -> Trouble {
    let Some((prompt, of_target)) = &answers.host_key else {
        let host = stderr.split_once("host key is known for ").map_or("", |(_, rest)| rest);
        let host = host.split(' ').next().unwrap_or_default().into();
        return Trouble::KeyUnknown { host, offered: "a key".into(), jump: false };
    };
    let offered = key_in(prompt);
    match &answers.pin() {
        Some(pin) if *of_target => Trouble::KeyNotPinned { offered, pinned: pin.to_string() },
        _ => {
            let host = prompt.split_once("host '").map_or("", |(_, rest)| rest);
            let host = host.split([' ', '\'']).next().unwrap_or_default().into();
            Trouble::KeyUnknown { host, offered, jump: !of_target }
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

fn not_let_in(stderr: &str, answers: &Answers<'_>) -> Trouble {
    if let Some((key, tried)) = &answers.locked_key {
        return Trouble::LockedKey { key: key.clone(), tried: *tried };
    }
    let methods = stderr.lines().rev().find_map(|line| line.split_once("Permission denied ("));
    let methods = methods.and_then(|(_, rest)| rest.split(')').next()).unwrap_or_default();
    Trouble::NotLetIn { methods: methods.into() }
}

/// The last line with a word in it.
pub fn last_line(text: &str) -> Option<&str> {
    text.lines().map(str::trim).rfind(|line| !line.is_empty())
}

impl Trouble {
    /// The error for the operator. `known` is the fingerprint in opsh's list, for a changed key.
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
            Trouble::Other { .. } | Trouble::Timeout => Kind::Unreachable,
            _ => Kind::Denied,
        }
    }

    fn why(&self, login: &Login, known: Option<String>) -> String {
        let name = &login.name;
        match self {
            Trouble::KeyUnknown { offered, jump: false, .. } => format!("it offers {offered}, and opsh knows no key of {name}"),
            Trouble::KeyUnknown { host, offered, .. } => format!("the jump host {host} offers {offered}, which is not known"),
            Trouble::KeyNotPinned { offered, pinned } => format!("it offers {offered}, but host_key pins {pinned}"),
            Trouble::KeyChanged { host, offered, .. } => {
                let who = if *host == login.alias() || host.is_empty() { "it".into() } else { format!("the jump host {host}") };
                let known = known.unwrap_or_else(|| "another key".into());
                format!("{who} offers {offered}, but {known} is known: it was rebuilt, or somebody is in between")
            }
            Trouble::WrongPassword { who, .. } => format!("the password for {} is wrong; it was tried once", or(who, name)),
            Trouble::NeedPassword { who, .. } => format!("{} wants a password, and opsh has none", or(who, name)),
            Trouble::LockedKey { key, tried: true } => format!("the passphrase for {key} is wrong"),
            Trouble::LockedKey { key, tried: false } => format!("the key {key} has a passphrase, and opsh does not know it"),
            Trouble::OtherFactor { prompt } => format!("it asks {prompt:?}, which opsh cannot answer"),
            Trouble::TooManyKeys => "too many keys were offered before the right one".into(),
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
        let name = &login.name;
        let line = |text: String| vec![text];
        match self {
            Trouble::KeyUnknown { jump: false, .. } => line(format!("opsh host adopt {name}")),
            Trouble::KeyUnknown { host, .. } => {
                line(format!("give {host} an entry of its own in opsh.toml and adopt its key with opsh host adopt"))
            }
            Trouble::KeyNotPinned { .. } => {
                line(format!("compare with the provider's console, then correct host_key of {name} in opsh.toml"))
            }
            Trouble::KeyChanged { .. } => line(format!("opsh host adopt --replace {name}")),
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
            Trouble::OtherFactor { .. } => line("use a key that needs no further answer".into()),
            Trouble::TooManyKeys => {
                line(format!("identity = \"~/.ssh/…\" for {name} in opsh.toml: then only that key is offered"))
            }
            Trouble::NotLetIn { .. } => line(format!("ssh -v {} shows which keys are offered", login.dest)),
            Trouble::Throttled => line("try again in a minute; fewer hosts at once".into()),
            Trouble::Refused | Trouble::Timeout | Trouble::NoRoute => {
                line("check address, port and firewall; is the server up?".into())
            }
            Trouble::Unresolved => line(format!("check the address of {name} in opsh.toml and ~/.ssh/config")),
            Trouble::Other { .. } => line(format!("ssh -v {} shows more", login.dest)),
        }
    }
}

fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        Login::new("web", "root@web", "/k".into(), "/c".into())
    }

    #[test]
    fn what_ssh_really_says_is_read() {
        let login = login();
        let answers = Answers::new(&login);
        let cases = [
            ("ssh: Could not resolve hostname x: Name or service not known", Trouble::Unresolved),
            ("ssh: connect to host h port 1: Connection refused", Trouble::Refused),
            ("ssh: connect to host h port 1: No route to host", Trouble::NoRoute),
            ("ssh: connect to host h port 22: Connection timed out", Trouble::Timeout),
            ("kex_exchange_identification: read: Connection reset by peer", Trouble::Throttled),
            (
                "ssh: connect to host j port 1: Connection refused\nkex_exchange_identification: Connection closed by remote host",
                Trouble::Refused,
            ),
            (
                "kex_exchange_identification: banner line contains invalid characters",
                Trouble::Other {
                    detail: "kex_exchange_identification: banner line contains invalid characters".into(),
                },
            ),
            ("Received disconnect from h: 2: Too many authentication failures", Trouble::TooManyKeys),
            (
                "root@h: Permission denied (publickey,password).",
                Trouble::NotLetIn { methods: "publickey,password".into() },
            ),
        ];
        for (stderr, trouble) in cases {
            assert_eq!(read(stderr, &answers), trouble);
        }
    }

    #[test]
    fn a_host_that_does_not_answer_was_not_reached() {
        for trouble in [Trouble::Timeout, Trouble::NoRoute, Trouble::Refused] {
            assert_eq!(trouble.error(&login(), None).kind, Kind::Unreachable);
        }
    }

    #[test]
    fn a_changed_key_names_the_place_of_the_old_one() {
        let login = login();
        let stderr = "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nThe fingerprint for the ED25519 key sent by the remote host is\nSHA256:new.\nOffending ED25519 key in /a b/known:7\nHost key for web has changed and you have requested strict checking.";
        let trouble = read(stderr, &Answers::new(&login));
        let place = Some(("/a b/known".to_string(), 7));
        assert_eq!(trouble, Trouble::KeyChanged { host: "web".into(), offered: "SHA256:new".into(), place });
        let error = trouble.error(&login, Some("SHA256:old".into()));
        assert!(error.why.contains("SHA256:new") && error.why.contains("SHA256:old"), "{}", error.why);
        assert_eq!(error.next, ["opsh host adopt --replace web"]);
    }
}
