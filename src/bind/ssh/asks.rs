//! Everything about the questions that ssh asks while it logs in. ssh runs this program as its `SSH_ASKPASS`; the
//! helper passes the question over a unix socket to the opsh that started ssh, which decides the answer here.

use super::Login;
use super::failure::Trouble;
use super::route::Route;
use crate::redact::{self, Secret};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The variable that tells the helper where to ask.
pub const SOCKET: &str = "OPSH_ASKPASS_SOCK";

/// When ssh runs this program as its `SSH_ASKPASS`, asks the opsh that started ssh, prints the answer for ssh and
/// gives the exit code. `None` in every other run of this program. To be called first thing in `main`.
pub fn askpass() -> Option<u8> {
    let socket = std::env::var_os(SOCKET)?;
    let prompt = std::env::args().nth(1).unwrap_or_default();
    // ssh reads the answer from this stdout; it is not the terminal.
    Some(if ask(socket.as_ref(), &prompt, &mut std::io::stdout().lock()).is_some() { 0 } else { 1 })
}

/// Passes one question on and writes the answer to `out`; `None` when there is none.
pub(super) fn ask(socket: &std::path::Path, prompt: &str, out: &mut impl Write) -> Option<()> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(120))).ok()?;
    let hint = std::env::var("SSH_ASKPASS_PROMPT").unwrap_or_default();
    // Which ssh asks: the master for the target, or the one that it runs for a jump host.
    let asker = std::os::unix::process::parent_id();
    stream.write_all(format!("{asker}\0{hint}\0{prompt}").as_bytes()).ok()?;
    stream.shutdown(std::net::Shutdown::Write).ok()?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).ok()?;
    let answer = reply.strip_prefix(b"+")?;
    out.write_all(answer).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).ok()
}

/// A question as the helper sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Process id of the ssh that asks.
    pub asker: u32,
    /// ssh only wants to show something, such as "touch your key", until it ends the helper.
    pub only_shows: bool,
    /// The text.
    pub prompt: String,
}

impl Question {
    /// Reads the helper's message.
    pub fn parse(message: &[u8]) -> Option<Question> {
        let text = String::from_utf8_lossy(message);
        let (asker, rest) = text.split_once('\0')?;
        let (hint, prompt) = rest.split_once('\0')?;
        Some(Question { asker: asker.parse().ok()?, only_shows: hint == "none", prompt: prompt.into() })
    }
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Passphrase(&'a str),
    HostKey,
    /// `user@host`
    Password(&'a str),
    /// A new password in place of one that has expired, or the old one for that.
    NewPassword(&'a str, &'a str),
    /// Anything else: of whom, and the text.
    Other(&'a str, &'a str),
}

/// Tells ssh's own questions from those that a server put into ssh's mouth: from OpenSSH 8.4 on, the oldest that lets a
/// helper be asked, the latter begin with `(user@host) `, and no question of ssh's own begins so. A server's question
/// is a question for the password only when it is one of the few texts that mean nothing else.
fn wanted(prompt: &str) -> Wanted<'_> {
    if let Some((who, question)) = prompt.strip_prefix('(').and_then(|rest| rest.split_once(") ")) {
        let question = question.trim();
        return if is_password(question, who) {
            Wanted::Password(who)
        } else if NEW_PASSWORD.contains(&question.lines().last().unwrap_or_default().trim()) {
            Wanted::NewPassword(who, question)
        } else {
            Wanted::Other(who, question)
        };
    }
    if let Some(rest) = prompt.strip_prefix("Enter passphrase for key '") {
        return Wanted::Passphrase(rest.trim_end().trim_end_matches(':').trim_end_matches('\''));
    }
    let about_key = prompt.starts_with("The authenticity of host ") || prompt.starts_with("Please type 'yes'");
    if about_key {
        return Wanted::HostKey;
    }
    let text = prompt.trim_end();
    if let Some(who) = text.strip_suffix("'s old password:").or_else(|| text.strip_suffix("'s new password:")) {
        let who = who.strip_prefix("Enter ").or_else(|| who.strip_prefix("Retype ")).unwrap_or(who);
        return Wanted::NewPassword(who, text);
    }
    match text.strip_suffix("'s password:") {
        Some(who) if who.contains('@') && !who.contains(' ') => Wanted::Password(who),
        _ => Wanted::Other("", text),
    }
}

/// The texts by which PAM, OpenPAM and OpenSSH ask for the password of an account, whole.
fn is_password(question: &str, who: &str) -> bool {
    if ["Password:", "password:", "パスワード:"].contains(&question) {
        return true;
    }
    let user = who.rsplit_once('@').map_or(who, |(user, _)| user);
    let place = question.strip_prefix("Password for ").and_then(|rest| rest.strip_suffix(':'));
    let place = place.and_then(|rest| rest.strip_prefix(user)?.strip_prefix('@'));
    place.is_some_and(|place| !place.is_empty() && !place.contains(char::is_whitespace))
}

/// The lines by which PAM asks for what a new password takes; others may say why, before.
const NEW_PASSWORD: [&str; 7] = [
    "Current password:",
    "(current) UNIX password:",
    "New password:",
    "New UNIX password:",
    "Enter new UNIX password:",
    "Retype new password:",
    "Retype new UNIX password:",
];

/// A text of a server as it may be shown: one line, not long, no control characters.
pub(super) fn plain(text: &str) -> String {
    redact::cut_line(text, 200)
}

/// A question for a person.
#[derive(Debug)]
pub struct Asked {
    who: String,
    prompt: String,
}

impl Asked {
    /// The text to show.
    pub fn question(&self) -> String {
        format!("{} asks: {}", self.who, self.prompt)
    }

    /// The trouble when there is nobody to answer.
    pub fn unanswered(self) -> Trouble {
        Trouble::OtherFactor { who: self.who, prompt: self.prompt }
    }
}

/// What to do about a question.
#[derive(Debug)]
pub enum Reply {
    /// Answer with this.
    Say(Secret),
    /// Answer a question about a host key.
    SayOfKey(String),
    /// Answer what a person at the terminal types.
    AskPerson(Asked),
    /// Say that there is no answer; ssh goes on with its next method.
    Nothing,
    /// Neither, until ssh ends the helper.
    Hold,
    /// End ssh now: an answer, even an empty one, would cost an attempt at the server.
    Stop(Trouble),
}

/// The answers of one login, and what was seen while giving them.
pub struct Answers<'a> {
    login: &'a Login,
    /// The hosts on the way.
    pub route: &'a Route,
    passwords_given: HashMap<bool, u32>,
    passphrases_given: HashMap<String, u32>,
    /// The question about an unknown host key, and whether it is the target's.
    pub host_key: Option<(String, bool)>,
    /// A key that stayed locked, and whether a passphrase was tried.
    pub locked_key: Option<(String, bool)>,
}

impl<'a> Answers<'a> {
    /// The answers that `login` knows, on this way.
    pub fn new(login: &'a Login, route: &'a Route) -> Answers<'a> {
        Answers {
            login,
            route,
            passwords_given: HashMap::new(),
            passphrases_given: HashMap::new(),
            host_key: None,
            locked_key: None,
        }
    }

    /// The fingerprint that the target must have, if one is pinned.
    pub fn pin(&self) -> Option<&'a str> {
        self.login.host_key.as_deref()
    }

    /// Decides about one question; `of_target` is false when the ssh of a jump host asks.
    pub fn answer(&mut self, question: &Question, of_target: bool) -> Reply {
        if question.only_shows {
            return Reply::Hold;
        }
        match wanted(&question.prompt) {
            Wanted::HostKey => self.host_key(&question.prompt, of_target),
            Wanted::Passphrase(key) => self.passphrase(key),
            Wanted::Password(who) => self.password(who, of_target),
            Wanted::NewPassword(who, prompt) => {
                Reply::Stop(Trouble::Expired { who: plain(self.or_host(who)), prompt: plain(prompt) })
            }
            Wanted::Other(who, prompt) => self.person(who, prompt),
        }
    }

    fn or_host<'b>(&'b self, who: &'b str) -> &'b str {
        if who.is_empty() { &self.login.name } else { who }
    }

    fn person(&self, who: &str, prompt: &str) -> Reply {
        Reply::AskPerson(Asked { who: plain(self.or_host(who)), prompt: plain(prompt) })
    }

    /// ssh compares a fingerprint that it is answered with, and asks again when it differs.
    fn host_key(&mut self, prompt: &str, of_target: bool) -> Reply {
        let again = !prompt.contains("authenticity of host");
        if !again {
            self.host_key = Some((prompt.into(), of_target));
        }
        match &self.login.host_key {
            Some(pin) if of_target && !again => Reply::SayOfKey(pin.clone()),
            _ => Reply::SayOfKey("no".into()),
        }
    }

    fn passphrase(&mut self, key: &str) -> Reply {
        let given = self.passphrases_given.entry(key.into()).or_default();
        *given += 1;
        match &self.login.passphrase {
            Some(passphrase) if *given == 1 => Reply::Say(passphrase.clone()),
            known => {
                self.locked_key = Some((key.into(), known.is_some()));
                Reply::Nothing
            }
        }
    }

    /// One attempt for each host: with PAM a wrong password is asked for again, by another method.
    fn password(&mut self, who: &str, of_target: bool) -> Reply {
        // The password of the jump host is that of the last one before the host.
        let last = self.route.hops.last().map(|hop| hop.who.as_str()).unwrap_or_default();
        if !of_target && self.route.hops.len() > 1 && !who.eq_ignore_ascii_case(last) {
            return self.person(who, "Password:");
        }
        let given = self.passwords_given.entry(of_target).or_default();
        *given += 1;
        let password = if of_target { &self.login.password } else { &self.login.jump_password };
        match password {
            Some(password) if *given == 1 => Reply::Say(password.clone()),
            Some(_) => Reply::Stop(Trouble::WrongPassword { who: who.into(), jump: !of_target }),
            None => Reply::Stop(match self.locked_key.take() {
                Some((key, tried)) => Trouble::LockedKey { key, tried },
                None => Trouble::NeedPassword { who: who.into(), jump: !of_target },
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prompt_of_openssh_is_understood() {
        assert_eq!(wanted("alice@10.0.0.1's password: "), Wanted::Password("alice@10.0.0.1"));
        assert_eq!(wanted("(alice@h) Password: "), Wanted::Password("alice@h"));
        assert_eq!(wanted("(alice@h) Password for alice@h.example:"), Wanted::Password("alice@h"));
        assert_eq!(wanted("Enter passphrase for key '/k/id': "), Wanted::Passphrase("/k/id"));
        assert_eq!(wanted("(alice@h) Verification code: "), Wanted::Other("alice@h", "Verification code:"));
        let known = "The authenticity of host 'h (1.2.3.4)' can't be established.\n… (yes/no/[fingerprint])? ";
        assert_eq!(wanted(known), Wanted::HostKey);
        assert_eq!(wanted("Please type 'yes', 'no' or the fingerprint: "), Wanted::HostKey);
        let old = "Enter alice@h's old password: ";
        assert_eq!(wanted(old), Wanted::NewPassword("alice@h", old.trim_end()));
        assert_eq!(
            wanted("Retype alice@h's new password: "),
            Wanted::NewPassword("alice@h", "Retype alice@h's new password:")
        );
        let why = "(alice@h) You are required to change your password.\nCurrent password: ";
        assert!(matches!(wanted(why), Wanted::NewPassword("alice@h", _)));
        assert_eq!(wanted("(alice@h) New password: "), Wanted::NewPassword("alice@h", "New password:"));
    }

    #[test]
    fn no_text_of_a_server_passes_for_another_question() {
        for text in [
            "One-time password:",
            "Password (OTP):",
            "Your one-time password",
            "Password for bob@h:",
            "Password for alice@h: and a code:",
            "alice@h's password: ",
            "x@y's password:",
            "Enter passphrase for key '/home/me/.ssh/id': ",
            "The authenticity of host 'h' can't be established (yes/no/[fingerprint])? ",
            "Please type 'yes', 'no' or the fingerprint: ",
            "Password:\nCode:",
            "Old Password:",
            "",
        ] {
            let prompt = format!("(alice@h) {text}");
            assert!(matches!(wanted(&prompt), Wanted::Other("alice@h", _)), "{text}: {:?}", wanted(&prompt));
        }
        assert!(matches!(wanted("Password: "), Wanted::Other("", _)), "no server's question is without its name");
    }

    #[test]
    fn a_shown_question_has_one_short_line() {
        assert_eq!(plain("a\u{1b}[2J\n b\r\nc\t"), "a [2J b c");
        assert_eq!(plain(&"x".repeat(5000)).chars().count(), 200);
    }

    #[test]
    fn a_configured_password_is_no_other_answer() {
        let (login, route) = (login(), Route::default());
        let mut answers = Answers::new(&login, &route);
        for text in ["One-time password: ", "Verification code: ", "Password (again): "] {
            let reply = answers.answer(&question(&format!("(root@web) {text}")), true);
            match reply {
                Reply::AskPerson(asked) => assert_eq!(asked.question(), format!("root@web asks: {}", text.trim())),
                other => panic!("{text}: {other:?}"),
            }
        }
        let reply = answers.answer(&question("(root@web) Current password: "), true);
        assert!(matches!(reply, Reply::Stop(Trouble::Expired { .. })), "{reply:?}");
    }

    fn login() -> Login {
        let mut login = Login::new("web", "root@web", "/k".into(), "/c".into());
        login.password = Some(Secret::new("the right password".to_string()));
        login
    }

    fn question(prompt: &str) -> Question {
        Question { asker: 1, only_shows: false, prompt: prompt.into() }
    }

    #[test]
    fn a_password_is_said_once_and_never_to_a_jump_host() {
        let (login, route) = (login(), Route::default());
        let mut answers = Answers::new(&login, &route);
        let prompt = question("root@web's password: ");
        assert!(matches!(answers.answer(&prompt, false), Reply::Stop(Trouble::NeedPassword { jump: true, .. })));
        assert!(matches!(answers.answer(&prompt, true), Reply::Say(_)));
        assert!(matches!(answers.answer(&prompt, true), Reply::Stop(Trouble::WrongPassword { jump: false, .. })));
    }

    #[test]
    fn an_unknown_key_is_never_said_yes_to() {
        let (login, route) = (login(), Route::default());
        let mut answers = Answers::new(&login, &route);
        let prompt =
            question("The authenticity of host 'web (1.2.3.4)' can't be established. (yes/no/[fingerprint])? ");
        for of_target in [true, false] {
            assert!(matches!(answers.answer(&prompt, of_target), Reply::SayOfKey(s) if s == "no"));
        }
    }
}
