//! The link is lost in the middle of a change: it goes on, a colleague sees who is at it, waits, and finishes.

use super::lab::Lab;
use super::opsh::{OPSH, Opsh, ROLLBACK};
use super::rollback::{AGREED, assert_serves};

const MIGRATING: &str = "test -n \"$(docker ps -q --filter label=opsh.once)\"";

#[test]
fn a_down_whose_link_was_cut_is_seen_waited_for_and_finished_by_a_colleague() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("BAD");
    let good = lab.release("GOOD");
    let _quick = lab.migrates_slowly();
    let before = lab.state();

    let (alice, bob) = (Opsh::new(&lab), Opsh::new(&lab));
    let words = [&AGREED[..], &[ROLLBACK, &good.tag]].concat();
    let running = alice.start_with(&[OPSH], &words, &[("USER", "alice")]);
    lab.until_it_migrates();
    // The session's process at the server: the connection breaks under it.
    lab.sh("pkill -KILL -f '^sshd: root@notty'");
    let lost = running.wait().exits(4);
    assert!(lost.err.contains("migrate.down") && lost.err.contains("may have happened"), "{}", lost.err);
    assert!(lab.is(MIGRATING), "the change does not depend on the link");
    let run = alice.journal("last")[0]["run"].as_str().unwrap().to_string();
    assert!(lost.err.contains(&format!("opsh attach {run}")), "{}", lost.err);

    let by = |words: &[&str]| bob.start_with(&[OPSH], words, &[("USER", "bob")]).wait();
    let seen = by(&["attach"]).exits(0);
    for part in ["migrate.down", "running as opsh-vrcshift-migrate", "started by alice", "the lock is held"] {
        assert!(seen.out.contains(part), "{part}: {}", seen.out);
    }
    let attached = by(&["attach", short(&run)]).exits(0);
    assert!(attached.out.contains("ended with exit code 0"), "{attached:?}");
    assert!(!lab.is(MIGRATING));
    assert_eq!(lab.state()["ledger"], serde_json::json!(good.ledger), "the work was finished without opsh");
    by(&words).exits(0);
    assert_serves(&lab, &good, &before);

    // Alice's own record is settled by what the server says, and offers nothing that bob has done.
    alice.run(&["journal", "verify"]).exits(0);
    bob.run(&["journal", "verify"]).exits(0);
}

/// The end of a run's id, as a person types it.
fn short(run: &str) -> &str {
    run.rsplit('-').next().unwrap()
}
