//! opsh dies at the worst moments: the journal says so, work on the server goes on, and running the script again ends
//! well.

use super::lab::Lab;
use super::opsh::{OPSH, Opsh, ROLLBACK};
use super::rollback::{AGREED, assert_serves, roll_back};

/// Kills a rollback at `point` of its first change, its second, …, until it is not killed any more, and runs it again
/// each time.
fn killed_at_every_change(point: &str) {
    if !cfg!(debug_assertions) {
        return crate::skip::skip("a release build of opsh cannot be told when to die");
    }
    let Some(lab) = Lab::take() else { return };
    let good = lab.release("GOOD");
    for change in 1.. {
        lab.bring("BAD");
        let (opsh, before) = (Opsh::new(&lab), lab.state());
        let words = [&AGREED[..], &[ROLLBACK, &good.tag]].concat();
        let ran = opsh.start_with(&[OPSH], &words, &[("OPSH_TEST_KILL", &format!("{point}:{change}"))]).wait();
        if ran.signal.is_none() {
            ran.exits(0);
            let verbs = ["compose.build", "migrate.down", "git.checkout", "docker.tag", "compose.recreate"];
            assert_eq!(opsh.changes("last"), verbs, "all of them were killed before");
            assert_eq!(change, verbs.len() + 1);
            return;
        }
        assert_eq!(ran.signal, Some(libc::SIGKILL));

        opsh.run(&["journal", "verify"]).exits(0).prints(&["the chain is whole"]);
        opsh.run(&["journal", "list"]).exits(0).prints(&["killed, 1 may have happened"]);
        let begun = opsh.changes("last");
        assert_eq!(begun.len(), change, "{begun:?}");
        let shown = opsh.run(&["journal", "show", "last"]).exits(0);
        let open = shown.out.lines().skip_while(|line| !line.contains(begun.last().unwrap().as_str()));
        assert!(open.clone().any(|line| line.contains("may have happened")), "{}", shown.out);

        let again = roll_back(&opsh, &AGREED, &good.tag).exits(0);
        assert!(again.err.contains(&format!("may have happened: {}", begun.last().unwrap())), "{}", again.err);
        assert_serves(&lab, &good, &before);
        opsh.run(&["journal", "verify"]).exits(0);
    }
}

#[test]
fn a_rollback_killed_between_record_and_change_is_finished_by_running_it_again() {
    killed_at_every_change("begun");
}

#[test]
fn a_rollback_killed_between_change_and_record_is_finished_by_running_it_again() {
    killed_at_every_change("performed");
}

#[test]
fn migrations_that_are_being_taken_back_go_on_without_opsh_and_are_not_meddled_with() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("BAD");
    let (good, opsh) = (lab.release("GOOD"), Opsh::new(&lab));
    let _quick = lab.afterwards(
        "docker ps -aq --filter label=opsh.once | xargs -r docker rm -f; sed -i /MIGRATE_SLEEP_MS/d /opt/vrcshift/.env.prod",
    );
    lab.sh("cd /opt/vrcshift; echo MIGRATE_SLEEP_MS=8000 >>.env.prod; exec 2>&1; docker-compose -f docker-compose.prod.yml --env-file .env.prod up -d");
    lab.until("the API answers", 30, "curl -s -o /dev/null http://127.0.0.1:8080/health");
    let before = lab.state();

    let words = [&AGREED[..], &[ROLLBACK, &good.tag]].concat();
    let running = opsh.start(&words);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'";
    let in_the_middle = format!("docker exec vrc-shift-db psql -XAtq -U vrcshift -c \"{waiting}\" | grep -qx 1");
    lab.until("a migration is in the middle", 60, &in_the_middle);
    running.signal(libc::SIGKILL);
    assert_eq!(running.wait().signal, Some(libc::SIGKILL));
    let goes_on = "test -n \"$(docker ps -q --filter label=opsh.once)\"";
    assert!(lab.is(goes_on), "the container does not depend on opsh");

    // A second one now would take back migrations under the hands of the first.
    let ran = roll_back(&opsh, &AGREED, &good.tag).exits(1).explains(&["still", "opsh-"]);
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
