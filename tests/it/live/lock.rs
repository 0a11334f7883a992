//! The lock of a real stack, and the container that takes migrations back as what runs under it.

use super::lab::Lab;
use super::opsh::{OPSH, Opsh};

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
    let after = by("let p = stack(\"prod\"); p.locked(\"mine\", || print(p.ledger()), #{ wait_s: 0 })").exits(0);
    assert!(after.err.contains("locked by what alice@") && after.err.contains("migrate.down"), "{}", after.err);
    let ledger: Vec<i64> = bad.ledger[..bad.ledger.len() - 1].to_vec();
    assert_eq!(lab.state()["ledger"], serde_json::json!(ledger));
    let printed: Vec<i64> = after.out.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(printed, ledger, "it was waited for to its end");
    let changes = by("print(stack(\"prod\").changes(1))").exits(0);
    assert!(changes.out.contains("migrate.down") && changes.out.contains("alice@"), "{}", changes.out);
}
