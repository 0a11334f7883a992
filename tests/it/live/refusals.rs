//! What goes wrong before anything was changed: each error says what, why and what to type next, and the server is
//! as it was.

use super::lab::Lab;
use super::opsh::{Opsh, ROLLBACK, Ran};
use super::rollback::{AGREED, roll_back};
use serde_json::json;
use std::net::TcpListener;

/// A rollback that must fail with `code` and leave the server as it is.
#[track_caller]
fn refused(lab: &Lab, opsh: &Opsh<'_>, words: &[&str], code: i32, says: &[&str]) -> Ran {
    let before = lab.state();
    let ran = opsh.run(&[&AGREED[..], &[ROLLBACK], words].concat()).exits(code).explains(says);
    assert!(ran.err.contains("\n next: "), "it does not say what to type next:\n{}", ran.err);
    assert_eq!(lab.state(), before);
    ran
}

#[test]
fn an_unknown_tag_is_answered_with_the_nearest_one() {
    let Some(lab) = Lab::take() else { return };
    lab.have("BAD");
    let (good, opsh) = (lab.release("GOOD"), Opsh::new(&lab));
    let near = format!("did you mean \"{}\"?", good.tag);
    refused(&lab, &opsh, &[&format!("{}x", good.tag)], 1, &["no tag", &near]);
}

#[test]
fn a_script_without_its_argument_says_its_usage() {
    let Some(lab) = Lab::take() else { return };
    let opsh = Opsh::new(&lab);
    refused(&lab, &opsh, &[], 2, &["TAG is missing", "usage: opsh scripts/rollback.rhai [TAG]"]);
    refused(&lab, &opsh, &["--"], 2, &["TAG is missing"]);
    refused(&lab, &opsh, &["a", "b"], 2, &["one word too many"]);
    let ran = opsh.run(&[ROLLBACK, "a", "--stack", "prdo"]).exits(2);
    assert!(ran.err.contains("did you mean \"prod\"?"), "{}", ran.err);
}

#[test]
fn tags_that_are_programs_are_never_run() {
    let Some(lab) = Lab::take() else { return };
    lab.have("BAD");
    let (good, opsh) = (lab.release("GOOD"), Opsh::new(&lab));
    let hostile = ["v1;touch${IFS}/tmp/owned", "v1$(id>/tmp/owned)", "v1`id>/tmp/owned`", "v1|sh", "v1'x", "v1\"x&"];
    let _tags = lab.afterwards(
        "cd /opt/vrcshift; git for-each-ref --format='%(refname)' refs/tags | while IFS= read -r ref; do \
         case $ref in *[!a-zA-Z0-9._/-]*) git update-ref -d \"$ref\";; esac; done",
    );
    for tag in hostile {
        lab.exec(&["git", "-C", "/opt/vrcshift", "update-ref", &format!("refs/tags/{tag}"), &good.commit]);
        refused(&lab, &opsh, &["--", tag], 2, &["is not a tag that can be deployed"]);
    }
    for tag in ["-z", "-x", "../x", "a b", ""] {
        refused(&lab, &opsh, &["--", tag], 2, &["is not a tag that can be deployed"]);
    }
    refused(&lab, &opsh, &["-z"], 2, &["is not a tag that can be deployed"]);
    let listed = opsh.eval("stack(\"prod\").repo.tags(100).filter(|t| !t.deployable).map(|t| t.tag)");
    for tag in hostile {
        assert!(listed.as_array().unwrap().contains(&json!(tag)), "{tag} is listed, as not deployable: {listed}");
    }
    assert!(!lab.is("test -e /tmp/owned") && !std::path::Path::new("/tmp/owned").exists());
}

#[test]
fn a_host_that_nothing_listens_on_is_unreachable() {
    let Some(lab) = Lab::take() else { return };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = format!("port = {}", lab.setting("SSH_PORT"));
    let opsh = Opsh::configured(&lab, |config| config.replace(&port, &format!("port = {closed}")));
    refused(&lab, &opsh, &[&lab.release("GOOD").tag], 1, &["prod-1", "refused"]);
}

#[test]
fn a_wrong_password_is_tried_once() {
    let Some(lab) = Lab::take() else { return };
    let opsh = Opsh::configured(&lab, |config| {
        config.replace(&format!("file:{}", lab.file("password").display()), "env:WRONG")
    });
    let failed = || lab.exec(&["cat", "/var/log/sshd.log"]).matches("Failed password").count();
    let (before, state) = (failed(), lab.state());
    let wrong = [("WRONG", "not-the-password-4711")];
    let words = [&AGREED[..], &[ROLLBACK, lab.setting("TAG_GOOD")]].concat();
    let ran = opsh.start_with(&[super::opsh::OPSH], &words, &wrong).wait();
    let ran = ran.exits(1).explains(&["password", "root"]);
    assert!(!ran.err.contains("not-the-password-4711"), "{}", ran.err);
    assert_eq!((failed(), lab.state()), (before + 1, state));

    let again = "for i in 0..3 { try { host(\"prod-1\").connect() } catch {} } host(\"prod-1\").connect()";
    let ran = opsh.start_with(&[super::opsh::OPSH], &["-e", again], &wrong).wait();
    ran.exits(1).explains(&["tried once", "start opsh anew"]);
    assert_eq!(failed(), before + 2, "a script that catches the error does not try it again");
}

#[test]
fn a_password_that_nobody_gave_is_named() {
    let Some(lab) = Lab::take() else { return };
    let opsh = Opsh::configured(&lab, |config| {
        config.replace(&format!("file:{}", lab.file("password").display()), "env:OPSH_IT_UNSET")
    });
    opsh.run(&["-e", "host(\"prod-1\").connect()"]).exits(2).explains(&["OPSH_IT_UNSET is not set"]);
}

#[test]
fn an_account_that_may_not_use_docker_is_told_what_it_lacks() {
    let Some(lab) = Lab::take() else { return };
    let opsh = Opsh::new(&lab);
    refused(&lab, &opsh, &[lab.setting("TAG_GOOD"), "--stack", "prod-viewer"], 1, &["prod-1-viewer", "docker"]);
    opsh.run(&["-e", "stack(\"prod-viewer\").ps()"]).exits(1).explains(&["may not use the Docker socket", "usermod"]);
}

#[test]
fn a_compose_file_that_is_not_there_is_named() {
    let Some(lab) = Lab::take() else { return };
    lab.have("BAD");
    let good = lab.release("GOOD");
    let other = Opsh::configured(&lab, |config| config.replace("docker-compose.prod.yml", "docker-compose.nope.yml"));
    refused(&lab, &other, &[&good.tag], 1, &["docker-compose.nope.yml"]);

    let opsh = Opsh::new(&lab);
    let tag = "nocompose-1";
    let _tag = lab.afterwards(&format!("git -C /opt/vrcshift tag -d {tag}"));
    lab.sh(&format!(
        "cd /opt/vrcshift; export GIT_INDEX_FILE=/tmp/it-index; git read-tree {}; \
         git rm -q --cached docker-compose.prod.yml; \
         git -c user.name=x -c user.email=x@example.invalid commit-tree $(git write-tree) -p {} -m x >/tmp/it-commit; \
         git tag {tag} $(cat /tmp/it-commit); rm /tmp/it-index /tmp/it-commit",
        good.commit, good.commit
    ));
    refused(&lab, &opsh, &[tag], 1, &["nocompose-1 has no docker-compose.prod.yml"]);
}

#[test]
fn a_missing_env_file_is_named() {
    let Some(lab) = Lab::take() else { return };
    lab.have("BAD");
    let _back = lab.afterwards("mv /opt/vrcshift/.env.away /opt/vrcshift/.env.prod");
    let opsh = Opsh::new(&lab);
    lab.sh("mv /opt/vrcshift/.env.prod /opt/vrcshift/.env.away; echo .env.away >>/opt/vrcshift/.git/info/exclude");
    refused(&lab, &opsh, &[lab.setting("TAG_GOOD")], 1, &["/opt/vrcshift/.env.prod"]);
}

#[test]
fn changes_in_the_work_tree_stop_a_rollback() {
    let Some(lab) = Lab::take() else { return };
    lab.have("BAD");
    let _clean = lab.afterwards("git -C /opt/vrcshift checkout -q -- README.md");
    let (good, opsh) = (lab.release("GOOD"), Opsh::new(&lab));
    lab.sh("echo by hand >>/opt/vrcshift/README.md");
    refused(&lab, &opsh, &[&good.tag], 1, &["changes", "README.md"]);
    let code = format!("stack(\"prod\").repo.checkout(\"{}\")", good.commit);
    let before = lab.state();
    opsh.run(&["--yes", "-e", &code]).exits(1).explains(&["README.md"]);
    assert_eq!(lab.state(), before);
}

#[test]
fn a_tag_that_was_moved_on_origin_is_not_followed() {
    let Some(lab) = Lab::take() else { return };
    lab.have("BAD");
    let (good, old, opsh) = (lab.release("GOOD"), lab.release("OLD"), Opsh::new(&lab));
    let reference = format!("refs/tags/{}", good.tag);
    let object = lab.exec(&["git", "-C", "/srv/git/vrcshift.git", "rev-parse", &reference]);
    let _back = lab.afterwards(&format!("git -C /srv/git/vrcshift.git update-ref {reference} {}", object.trim()));
    lab.exec(&["git", "-C", "/srv/git/vrcshift.git", "update-ref", &reference, &old.commit]);
    let both = [&good.commit[..12], &old.commit[..12]];
    refused(&lab, &opsh, &[&good.tag], 1, &["was moved", both[0], both[1]]);
}

#[test]
fn a_release_that_needs_migrations_which_are_not_applied_is_no_rollback() {
    let Some(lab) = Lab::take() else { return };
    let good = lab.have("GOOD");
    let (bad, opsh) = (lab.release("BAD"), Opsh::new(&lab));
    let missing = bad.ledger[good.ledger.len()].to_string();
    refused(&lab, &opsh, &[&bad.tag], 1, &["needs migrations that are not applied", &missing]);
}

#[test]
fn a_run_that_observes_refuses_every_change() {
    let Some(lab) = Lab::take() else { return };
    lab.have("BAD");
    let (good, opsh) = (lab.release("GOOD"), Opsh::new(&lab));
    let before = lab.state();
    roll_back(&opsh, &["--observe", "--yes"], &good.tag).exits(3).explains(&["only observes", "--observe"]);
    opsh.run(&["--observe", "--yes", "-e", "stack(\"prod\").restart(\"backend\", 1)"]).exits(3).explains(&[]);
    opsh.run(&["--observe", "-e", "stack(\"prod\").ps()"]).exits(0).prints(&["SERVICE", "backend"]);
    assert_eq!(lab.state(), before);
    assert!(opsh.changes("last").is_empty());
}
