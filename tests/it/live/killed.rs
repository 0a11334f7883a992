//! opsh dies at the worst moments: the journal says so, work on the server goes on, and running the script again ends
//! well.

use super::lab::Lab;
use super::opsh::{OPSH, Opsh, ROLLBACK};
use super::rollback::{AGREED, assert_serves, roll_back};

/// A rollback that is killed at `point` of its first change with this verb.
fn kill(opsh: &Opsh<'_>, tag: &str, point: &str, verb: &str) {
    let words = [&AGREED[..], &[ROLLBACK, tag]].concat();
    let ran = opsh.start_with(&[OPSH], &words, &[("OPSH_TEST_KILL", &format!("{point}:{verb}"))]).wait();
    assert_eq!(ran.signal, Some(libc::SIGKILL), "{point} {verb}: {ran:?}");
}

/// Fails unless the journal of a killed run is whole and says that its last change, of this verb, may have happened.
#[track_caller]
fn may_have_happened(opsh: &Opsh<'_>, verb: &str) {
    opsh.run(&["journal", "verify"]).exits(0).prints(&["the chain is whole"]);
    let listed = opsh.run(&["journal", "list", "--limit", "1"]).exits(0);
    assert!(listed.out.contains("killed, 1 may have happened"), "{}", listed.out);
    let begun = opsh.changes("last");
    assert_eq!(begun.last().unwrap(), verb, "{begun:?}");
    let shown = opsh.run(&["journal", "show", "last"]).exits(0);
    let mut from_there = shown.out.lines().skip_while(|line| !line.contains(verb));
    assert!(from_there.any(|line| line.contains("may have happened")), "{}", shown.out);
}

fn can_be_killed() -> bool {
    if !cfg!(debug_assertions) {
        crate::skip::skip("a release build of opsh cannot be told when to die");
    }
    cfg!(debug_assertions)
}

/// What a rollback that takes a schema back changes, in its order.
pub const CHANGES: [&str; 11] = [
    "docker.keep",
    "compose.build",
    "freeze.begin",
    "backup.make",
    "git.checkout",
    "docker.stop",
    "freeze.end",
    "migrate.down",
    "docker.tag",
    "compose.recreate",
    "release.record",
];

/// Kills a rollback at `point` of one change after the other: each run finds what the one before it left, and the last
/// one ends well.
fn killed_again_and_again(point: &str) {
    if !can_be_killed() {
        return;
    }
    let Some(lab) = Lab::take() else { return };
    lab.bring("BAD");
    // What a killed opsh leaves on the server goes after seven days, or when its end is settled.
    let _clean = lab.afterwards("rm -rf /root/.local/state/opsh/runs");
    let (good, opsh, before) = (lab.release("GOOD"), Opsh::new(&lab), lab.state());
    for verb in CHANGES {
        kill(&opsh, &good.tag, point, verb);
        may_have_happened(&opsh, verb);
    }
    roll_back(&opsh, &AGREED, &good.tag).exits(0);
    assert_serves(&lab, &good, &before);
    opsh.run(&["journal", "verify"]).exits(0);
}

#[test]
fn a_rollback_killed_again_and_again_between_change_and_record_ends_well() {
    killed_again_and_again("performed");
}

#[test]
fn a_rollback_killed_again_and_again_between_record_and_change_ends_well() {
    killed_again_and_again("begun");
}

#[test]
fn migrations_that_are_being_taken_back_go_on_without_opsh_and_are_not_meddled_with() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("BAD");
    let (good, opsh) = (lab.release("GOOD"), Opsh::new(&lab));
    let _quick = lab.migrates_slowly();
    let before = lab.state();

    let words = [&AGREED[..], &[ROLLBACK, &good.tag]].concat();
    let running = opsh.start(&words);
    lab.until_it_migrates();
    running.signal(libc::SIGKILL);
    assert_eq!(running.wait().signal, Some(libc::SIGKILL));
    let goes_on = "test -n \"$(docker ps -q --filter label=opsh.once)\"";
    assert!(lab.is(goes_on), "the container does not depend on opsh");

    // A second one now would take back migrations under the hands of the first: it waits for their end.
    let ran = roll_back(&opsh, &AGREED, &good.tag).exits(0);
    assert!(ran.err.contains("locked by what") && ran.err.contains("migrate.down"), "{}", ran.err);
    assert!(!ran.err.contains("→ migrate.down"), "the first did it:\n{}", ran.err);
    assert!(!lab.is(goes_on));
    assert_serves(&lab, &good, &before);
    opsh.run(&["journal", "verify"]).exits(0);
}

#[test]
fn a_build_goes_on_without_opsh_and_the_next_one_waits_its_turn() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("BAD");
    let (good, opsh, before) = (lab.release("GOOD"), Opsh::new(&lab), lab.state());
    lab.sh("rm -rf /root/.local/state/opsh/runs");
    let build = "'[d]ocker-compose.* build backend$'";
    let _on = lab.afterwards(&format!("pkill -CONT -f {build}; rm -rf /root/.local/state/opsh/runs"));

    let words = [&AGREED[..], &[ROLLBACK, &good.tag]].concat();
    let running = opsh.start(&words);
    lab.until("the build runs", 60, &format!("pkill -STOP -f {build}"));
    running.signal(libc::SIGKILL);
    assert_eq!(running.wait().signal, Some(libc::SIGKILL));
    let count = |file: &str| format!("ls -d /root/.local/state/opsh/runs/*/{file} 2>/dev/null | wc -l");
    let (begun, ended) = (count("pid"), count("rc"));
    assert_eq!((lab.sh(&begun).trim(), lab.sh(&ended).trim()), ("1", "0"), "the build does not depend on opsh");

    // What a killed opsh left at work keeps the stack's lock: the next one waits for it.
    let mut again = opsh.start(&words);
    lab.until("the second one waits", 60, "pgrep -f opsh_silence >/dev/null");
    assert!(!again.is_over());
    lab.sh(&format!("pkill -CONT -f {build}"));
    again.wait().exits(0);
    assert_serves(&lab, &good, &before);
    assert!(
        lab.sh("cat /root/.local/state/opsh/runs/*/rc").lines().all(|code| code.trim() == "0"),
        "the first one was not disturbed"
    );
    assert_eq!(lab.sh("[ ! -e /opt/vrcshift/.git/opsh ] || ls -A /opt/vrcshift/.git/opsh; git -C /opt/vrcshift worktree list | tail -n +2"), "");
}
