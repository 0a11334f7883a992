//! The lock of a real stack, and the container that takes migrations back as what runs under it.

use super::lab::Lab;
use super::opsh::{OPSH, Opsh, ROLLBACK};
use super::rollback::AGREED;

#[test]
fn a_container_that_a_killed_opsh_left_at_work_is_waited_for_before_the_lock_is_had() {
    let Some(lab) = Lab::take() else { return };
    let bad = lab.bring("BAD");
    let newest = *bad.ledger.last().unwrap();
    let _quick = lab.migrates_slowly();

    let (alice, bob) = (Opsh::new(&lab), Opsh::new(&lab));
    let down = format!(
        "let p = stack(\"prod\"); p.locked(\"take {newest} back\", || p.migrate_down(#{{ versions: [{newest}], \
         ledger: p.ledger(), image_id: p.container(\"backend\").image_id, loses: p.down_losses([{newest}]) }}))"
    );
    let words = ["--yes", "--allow", "migrate.down", "-e", &down];
    let running = alice.start_with(&[OPSH], &words, &[("USER", "alice")]);
    lab.until_it_migrates();

    let refused = "stack(\"prod\").locked(\"mine\", || 1, #{ wait_s: 1 })";
    let by = |code: &str| bob.start_with(&[OPSH], &["-e", code], &[("USER", "bob")]).wait();
    let seen = by(refused).exits(3);
    for part in ["prod is locked by alice@", &format!("take {newest} back"), "still runs: migrate.down", "opsh attach"]
    {
        assert!(seen.err.contains(part), "{part}: {}", seen.err);
    }
    running.signal(libc::SIGKILL);
    assert_eq!(running.wait().signal, Some(libc::SIGKILL));
    let after = by("let p = stack(\"prod\"); p.locked(\"mine\", || print(`${p.ledger()}`), #{ wait_s: 0 })").exits(0);
    assert!(after.err.contains("locked by what alice@") && after.err.contains("migrate.down"), "{}", after.err);
    let ledger: Vec<i64> = bad.ledger[..bad.ledger.len() - 1].to_vec();
    assert_eq!(lab.state()["ledger"], serde_json::json!(ledger));
    assert!(after.out.contains(&format!("{ledger:?}")), "it was waited for to its end: {}", after.out);
    let changes = by("print(stack(\"prod\").changes(1))").exits(0);
    assert!(changes.out.contains("migrate.down") && changes.out.contains("alice@"), "{}", changes.out);
}

#[test]
fn a_rollback_and_a_deploy_under_the_lock_of_another_operator_say_who_works_and_change_nothing() {
    let Some(lab) = Lab::take() else { return };
    lab.have("BAD");
    let (alice, bob, good) = (Opsh::new(&lab), Opsh::new(&lab), lab.release("GOOD"));
    let looks = "stack(\"prod\").locked(\"reading the 500s\", || sleep(100))";
    let running = alice.start_with(&[OPSH], &["-e", looks], &[("USER", "alice")]);
    lab.until("alice has the lock", 30, "grep -q 'reading the 500s' /opt/vrcshift/.opsh/lock.json");
    let before = lab.state();
    // Both wait as long as they wait for a person, at the same time.
    let waiting = [ROLLBACK, "scripts/deploy.rhai"]
        .map(|script| bob.start_with(&[OPSH], &[&AGREED[..], &[script, &good.tag]].concat(), &[("USER", "bob")]));
    for one in waiting {
        let refused = one.wait().exits(3).explains(&["prod is locked by alice@", "reading the 500s"]);
        assert!(!refused.err.contains('→') && refused.out.is_empty(), "nothing was planned nor begun: {refused:?}");
    }
    assert_eq!(lab.state(), before);
    assert_eq!(bob.eval("stack(\"prod\").lock().why"), "reading the 500s");
    running.signal(libc::SIGKILL);
    assert_eq!(running.wait().signal, Some(libc::SIGKILL));
    let free = bob.run(&["-e", "stack(\"prod\").locked(\"mine\", || 1, #{ wait_s: 5 })"]).exits(0);
    assert!(!free.err.contains("→"), "{}", free.err);
    assert_eq!(bob.eval("stack(\"prod\").lock()"), serde_json::Value::Null);
}
