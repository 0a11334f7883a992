//! opsh dies at the worst moments: the journal says so, work on the server goes on, and running the script again ends
//! well.

use super::lab::Lab;
use super::opsh::{OPSH, Opsh, ROLLBACK, Ran};
use super::rollback::{AGREED, assert_serves, roll_back};

/// A rollback that is killed at `point` of its change number `change`, if it comes that far.
fn killed(opsh: &Opsh<'_>, tag: &str, point: &str, change: usize) -> Ran {
    let words = [&AGREED[..], &[ROLLBACK, tag]].concat();
    let ran = opsh.start_with(&[OPSH], &words, &[("OPSH_TEST_KILL", &format!("{point}:{change}"))]).wait();
    assert!(ran.signal == Some(libc::SIGKILL) || ran.code == Some(0), "{ran:?}");
    ran
}

/// Fails unless the journal of a killed run is whole and says that its last change, which it gives, may have happened.
#[track_caller]
fn may_have_happened(opsh: &Opsh<'_>, changes: usize) -> String {
    opsh.run(&["journal", "verify"]).exits(0).prints(&["the chain is whole"]);
    let listed = opsh.run(&["journal", "list", "--limit", "1"]).exits(0);
    assert!(listed.out.contains("killed, 1 may have happened"), "{}", listed.out);
    let begun = opsh.changes("last");
    assert_eq!(begun.len(), changes, "{begun:?}");
    let open = begun.last().unwrap();
    let shown = opsh.run(&["journal", "show", "last"]).exits(0);
    let mut from_there = shown.out.lines().skip_while(|line| !line.contains(open.as_str()));
    assert!(from_there.any(|line| line.contains("may have happened")), "{}", shown.out);
    open.clone()
}

fn can_be_killed() -> bool {
    if !cfg!(debug_assertions) {
        crate::skip::skip("a release build of opsh cannot be told when to die");
    }
    cfg!(debug_assertions)
}

const CHANGES: [&str; 5] = ["compose.build", "git.checkout", "migrate.down", "docker.tag", "compose.recreate"];

#[test]
fn a_rollback_killed_between_change_and_record_is_finished_by_running_it_again() {
    if !can_be_killed() {
        return;
    }
    let Some(lab) = Lab::take() else { return };
    let good = lab.release("GOOD");
    // What a killed opsh leaves on the server goes after seven days, or when its end is settled.
    let _clean = lab.afterwards("rm -rf /root/.local/state/opsh/runs");
    for change in 1.. {
        lab.bring("BAD");
        let (opsh, before) = (Opsh::new(&lab), lab.state());
        if killed(&opsh, &good.tag, "performed", change).signal.is_none() {
            assert_eq!(opsh.changes("last"), CHANGES);
            assert_eq!(change, CHANGES.len() + 1, "each of them was killed before");
            return;
        }
        let open = may_have_happened(&opsh, change);
        assert_eq!(open, CHANGES[change - 1]);
        let again = roll_back(&opsh, &AGREED, &good.tag).exits(0);
        assert!(again.err.contains(&format!("may have happened: {open}")), "{}", again.err);
        assert_serves(&lab, &good, &before);
        opsh.run(&["journal", "verify"]).exits(0);
    }
}

/// Each run starts where the one before it was killed: what it leaves is what a kill after the change before leaves,
/// of which the test above runs each to its end.
#[test]
fn a_rollback_killed_again_and_again_between_record_and_change_ends_well() {
    if !can_be_killed() {
        return;
    }
    let Some(lab) = Lab::take() else { return };
    lab.bring("BAD");
    let _clean = lab.afterwards("rm -rf /root/.local/state/opsh/runs");
    let (good, opsh, before) = (lab.release("GOOD"), Opsh::new(&lab), lab.state());
    let (mut change, mut seen) = (1, Vec::new());
    while killed(&opsh, &good.tag, "begun", change).signal.is_some() {
        let open = may_have_happened(&opsh, change);
        // What was done drops out of the next run, so the same number may be another change there.
        if seen.contains(&open) { change += 1 } else { seen.push(open) }
    }
    assert_eq!(seen, CHANGES);
    assert_serves(&lab, &good, &before);
    opsh.run(&["journal", "verify"]).exits(0);
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

    // A second one now would take back migrations under the hands of the first.
    let ran = roll_back(&opsh, &AGREED, &good.tag).exits(1).explains(&["started by", "the lock is held", "opsh-"]);
    assert!(!ran.err.contains('→'), "nothing was begun:\n{}", ran.err);
    assert!(lab.is(goes_on), "the first was still at it");

    lab.until("the migrations are taken back", 60, &format!("! {goes_on}"));
    assert_eq!(lab.state()["ledger"], serde_json::json!(good.ledger), "the work was finished without opsh");
    roll_back(&opsh, &AGREED, &good.tag).exits(0);
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

    let mut again = opsh.start(&words);
    lab.until("the second build is begun", 60, &format!("test $({begun}) = 2"));
    assert!(!again.is_over());
    lab.sh(&format!("pkill -CONT -f {build}"));
    again.wait().exits(0);
    assert_serves(&lab, &good, &before);
    assert_eq!(lab.sh("cat /root/.local/state/opsh/runs/*/rc").trim(), "0", "the first one was not disturbed");
    assert_eq!(lab.sh("ls /opt/vrcshift/.git/opsh; git -C /opt/vrcshift worktree list | tail -n +2"), "");
}
