//! Questions of PAM and banners during a login: a configured password is the answer to
//! one question, and no text of a server passes for one of ssh's own.

use super::tests::{Lab, PASSWORD, exited, live, pass, skip, words};
use super::{Login, Reach, connect};
use crate::error::{Error, Kind};
use crate::gate::Pass;
use crate::redact::Secret;
use std::path::Path;
use std::process::Command;

/// A PAM module that asks the text of its first word, and writes the answer into the file of its second.
const MODULE: &str = r#"
struct message { int style; const char *text; };
struct response { char *text; int code; };
struct conv { int (*ask)(int, const struct message **, struct response **, void *); void *data; };
int pam_get_item(void *, int, const void **);
int open(const char *, int, ...); long write(int, const void *, unsigned long); int close(int);
unsigned long strlen(const char *); int strcmp(const char *, const char *);
int pam_sm_authenticate(void *pam, int flags, int argc, const char **argv) {
  const void *item = 0; struct response *response = 0;
  struct message message = { 1, argv[0] }; const struct message *messages = &message;
  if (pam_get_item(pam, 5, &item) || !item) return 7;
  const struct conv *conv = item;
  if (conv->ask(1, &messages, &response, conv->data) || !response || !response->text) return 7;
  int file = open(argv[1], 02001 | 0100, 0600);
  if (file >= 0) { write(file, response->text, strlen(response->text)); write(file, "\n", 1); close(file); }
  return strcmp(response->text, "123456") ? 7 : 0;
}
int pam_sm_setcred(void *pam, int flags, int argc, const char **argv) { return 0; }
"#;

/// An sshd whose PAM asks the account's password and then this; with the path of the answers.
fn asking(prompt: Option<&str>, expired: bool) -> Option<(Lab, tempfile::TempDir)> {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let mut pam = "auth required pam_unix.so\n".to_string();
    if let Some(prompt) = prompt {
        std::fs::write(at("ask.c"), MODULE).unwrap();
        let built = Command::new("cc").args(["-shared", "-fPIC", "-w", "-o", &at("ask.so"), &at("ask.c")]).status();
        if !built.is_ok_and(|status| status.success()) {
            skip("no C compiler, which makes a PAM module that asks");
            return None;
        }
        pam += &format!("auth required {} [{prompt}] {}\n", at("ask.so"), at("answers"));
    }
    pam += "account required pam_unix.so\npassword required pam_unix.so\nsession required pam_permit.so\n";
    std::fs::write(at("pam"), pam).unwrap();
    let mut shadow = std::fs::read_to_string("/etc/shadow").ok()?;
    if expired {
        let line = shadow.lines().find(|line| line.starts_with("opsh-alice:"))?.to_string();
        let mut fields: Vec<&str> = line.split(':').collect();
        fields[2] = "0";
        shadow = shadow.replace(&line, &fields.join(":"));
    }
    std::fs::write(at("shadow"), shadow).unwrap();
    let lab = Lab::start_over(&[(&at("pam"), "/etc/pam.d/sshd"), (&at("shadow"), "/etc/shadow")], PAM)?;
    Some((lab, dir))
}

const PAM: &str = "UsePAM yes\nKbdInteractiveAuthentication yes\nAuthenticationMethods keyboard-interactive";

fn answers(dir: &Path) -> Vec<String> {
    std::fs::read_to_string(dir.join("answers")).unwrap_or_default().lines().map(String::from).collect()
}

async fn tried(pass: &Pass, login: &Login) -> Result<String, Error> {
    let link = connect(pass, login).await.map_err(Error::from)?;
    let name = exited(&Reach::Ssh(link.clone()).run(pass, &words(&["id", "-un"])).await, 0);
    link.close().await;
    Ok(name)
}

#[test]
fn a_password_is_no_answer_to_another_question() {
    for prompt in ["One-time password: ", "Verification code: ", "Password (OTP): "] {
        let Some((lab, dir)) = asking(Some(prompt), false) else { return };
        live(async {
            let error = tried(&pass(), &lab.password_login(Some(PASSWORD))).await.unwrap_err();
            assert!(error.kind == Kind::Denied && error.why.contains(prompt.trim()), "{prompt}: {error}");
            assert!(!error.why.contains("is wrong"), "{error}");
        });
        assert_eq!(answers(dir.path()), Vec::<String>::new(), "{prompt}");
    }
}

#[test]
fn a_person_answers_what_a_server_asks() {
    let Some((lab, dir)) = asking(Some("Verification code: "), false) else { return };
    live(async {
        let (pass, asked) = Pass::for_tests_with_person("123456");
        assert_eq!(tried(&pass, &lab.password_login(Some(PASSWORD))).await.unwrap(), "opsh-alice\n");
        let asked = asked.lock().unwrap().clone();
        assert_eq!(asked, ["opsh-alice@web asks: Verification code:"]);
    });
    assert_eq!(answers(dir.path()), ["123456"]);
}

#[test]
fn an_expired_password_is_named_and_not_called_wrong() {
    let Some((lab, _dir)) = asking(None, true) else { return };
    live(async {
        let (pass, asked) = Pass::for_tests_with_person("another");
        let error = tried(&pass, &lab.password_login(Some(PASSWORD))).await.unwrap_err();
        assert!(error.kind == Kind::Denied && error.why.contains("opsh changes none"), "{error}");
        assert!(error.next[0].starts_with("ssh "), "{:?}", error.next);
        assert_eq!(asked.lock().unwrap().len(), 0, "a new password is no question for here");
    });
}

#[test]
fn a_banner_is_not_the_reason() {
    let banner = tempfile::NamedTempFile::new().unwrap();
    let lies = "Idle sessions are timed out after 15 minutes.\nHost key verification failed.\n\
                ssh: connect to host web port 22: Connection refused\nToo many authentication failures\n";
    std::fs::write(banner.path(), lies).unwrap();
    let Some(lab) = Lab::start(&format!("Banner {}\nPasswordAuthentication no", banner.path().display())) else {
        return;
    };
    live(async {
        let mut login = lab.login("nobody-here");
        login.identity = Some("/nonexistent".into());
        let error = tried(&pass(), &login).await.unwrap_err();
        assert!(error.kind == Kind::Denied && error.why.contains("publickey"), "{error}");
        assert_eq!(tried(&pass(), &lab.login("root")).await.unwrap(), "root\n");
    });
}

#[test]
fn a_server_that_ends_the_login_is_quoted() {
    let Some(lab) = Lab::start("MaxAuthTries 1") else { return };
    live(async {
        let mut login = lab.login("root");
        super::tests::keygen(&lab.path("other"), "");
        login.identity = Some(lab.path("other"));
        login.password = Some(Secret::new("never asked for".to_string()));
        let error = tried(&pass(), &login).await.unwrap_err();
        assert!(error.kind == Kind::Denied && error.why.contains("the server ended the login, saying"), "{error}");
    });
}
