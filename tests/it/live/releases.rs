//! The releases of a stack: their history beside it, marks, images that are kept, and the list that a person chooses from.

use super::lab::{Lab, Release};
use super::opsh::{Opsh, ROLLBACK};
use super::rollback::roll_back;
use serde_json::{Value, json};

/// The rows of `stack.releases()` by tag.
fn listed(opsh: &Opsh<'_>) -> impl Fn(&Release) -> Value + use<> {
    let rows = opsh.eval("stack(\"prod\").releases()");
    move |release| {
        let row = rows.as_array().unwrap().iter().find(|row| row["tag"] == release.tag.as_str());
        row.unwrap_or_else(|| panic!("{} is not in {rows}", release.tag)).clone()
    }
}

fn verdicts(lab: &Lab, opsh: &Opsh<'_>) -> Vec<String> {
    let of = listed(opsh);
    ["OLD", "GOOD", "ADDITIVE", "BAD"].map(|which| of(&lab.release(which))["verdict"].as_str().unwrap().into()).to_vec()
}

#[test]
fn the_list_says_what_going_back_to_each_release_needs() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("BAD");
    let opsh = Opsh::new(&lab);
    // The earliest release does not know a table that has rows.
    assert_eq!(verdicts(&lab, &opsh), ["NEEDS DATA LOSS", "NOT BUILT", "NOT BUILT", "RUNNING"]);
    let (good, bad, additive) = (lab.release("GOOD"), lab.release("BAD"), lab.release("ADDITIVE"));
    let newest: Vec<i64> = bad.ledger[4..].iter().rev().copied().collect();
    let row = listed(&opsh)(&good);
    assert_eq!((&row["undo"], &row["irreversible"], &row["image"]), (&json!(newest), &json!(false), &json!(false)));
    assert_eq!(listed(&opsh)(&additive)["undo"], json!([bad.ledger[5]]));

    lab.sql("UPDATE shifts SET note = 'would be lost' WHERE id = 1");
    assert_eq!(verdicts(&lab, &opsh), ["NEEDS DATA LOSS", "NEEDS DATA LOSS", "NOT BUILT", "RUNNING"]);

    let ran = opsh.run(&[ROLLBACK]).exits(2).explains(&["TAG is missing", "usage: opsh scripts/rollback.rhai [TAG]"]);
    let ran = ran.prints(&["VERDICT", "NEEDS DATA LOSS", "RUNNING", &good.commit[..12]]);
    assert!(!ran.err.contains('→'), "a list changes nothing:\n{}", ran.err);
    opsh.run(&["scripts/deploy.rhai"]).exits(2).prints(&["VERDICT"]);
}

#[test]
fn every_rollback_is_written_beside_the_stack_for_everybody_and_a_kept_image_needs_no_build() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("ADDITIVE");
    let (good, old, alice) = (lab.release("GOOD"), lab.release("OLD"), Opsh::new(&lab));
    roll_back(&alice, &["--yes"], &good.tag).exits(0);
    roll_back(&alice, &["--yes"], &old.tag).exits(0);
    // Another state folder, as on another machine.
    let bob = Opsh::new(&lab);
    let of = listed(&bob);
    assert_eq!(of(&old)["verdict"], "RUNNING");
    let row = of(&good);
    assert_eq!((&row["verdict"], &row["image"]), (&json!("OK"), &json!(true)));
    assert!(row["at"].is_string() && row["by"].is_string() && row["ran_s"].as_i64().unwrap() > 0, "{row}");
    assert_eq!(bob.eval("stack(\"prod\").releases()")[0]["tag"], old.tag.as_str(), "the newest is the first");

    let ran = roll_back(&bob, &["--yes"], &good.tag).exits(0).prints(&["kept image", "last brought live"]);
    assert!(!ran.err.contains("compose.build"), "{}", ran.err);
    assert!(lab.is("cd /opt/vrcshift && test -z \"$(git status --porcelain)\""), "git does not see the folder");

    bob.run(&["--yes", "undo", "last"]).exits(0);
    assert_eq!(listed(&bob)(&old)["verdict"], "RUNNING");
    assert_eq!(
        bob.eval("stack(\"prod\").releases()")[0]["tag"],
        old.tag.as_str(),
        "what was taken back does not count"
    );
}

#[test]
fn a_release_that_anybody_marked_bad_is_not_gone_back_to() {
    let Some(lab) = Lab::take() else { return };
    lab.have("ADDITIVE");
    let (good, alice, bob) = (lab.release("GOOD"), Opsh::new(&lab), Opsh::new(&lab));
    let mark = format!("stack(\"prod\").mark_bad(\"{}\", \"the list answers 500\")", good.tag);
    alice.run(&["--yes", "-e", &mark]).exits(0);
    let row = listed(&bob)(&good);
    assert_eq!((&row["verdict"], &row["bad"]), (&json!("BAD"), &json!("the list answers 500")));
    let before = lab.state();
    roll_back(&bob, &["--yes"], &good.tag).exits(1).explains(&["is marked bad: the list answers 500"]);
    assert_eq!(lab.state(), before);

    alice.run(&["--yes", "undo", "last"]).exits(0);
    assert_eq!(listed(&bob)(&good)["bad"], Value::Null);
    bob.run(&["--yes", "-e", &mark]).exits(0);
    bob.run(&["--yes", "-e", &format!("stack(\"prod\").mark_good(\"{}\")", good.tag)]).exits(0);
    assert_eq!(listed(&alice)(&good)["verdict"], "NOT BUILT");
    let unknown = "stack(\"prod\").mark_bad(\"v0\", \"x\")";
    bob.run(&["--yes", "-e", unknown]).exits(1).explains(&["no tag \"v0\""]);
}

#[test]
fn a_history_that_cannot_be_written_is_an_error_and_takes_back_no_rollback_that_serves() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("ADDITIVE");
    let (good, opsh) = (lab.release("GOOD"), Opsh::new(&lab));
    let _folder = lab.afterwards("umount /opt/vrcshift/.opsh; rm -rf /opt/vrcshift/.opsh");
    lab.sh("cd /opt/vrcshift; echo .opsh >>.git/info/exclude; rm -rf .opsh; touch .opsh");
    let before = lab.state();
    roll_back(&opsh, &["--yes"], &good.tag).exits(1).explains(&["/opt/vrcshift/.opsh is no folder"]);
    assert_eq!(lab.state(), before, "a history that cannot be read stops a rollback before its first change");
    lab.sh("cd /opt/vrcshift; rm .opsh; mkdir .opsh; mount -t tmpfs -o ro,mode=755 tmpfs .opsh");
    let ran = roll_back(&opsh, &["--yes"], &good.tag).exits(1).prints(&[&format!("prod serves {}", good.tag)]);
    ran.explains(&["the history of prod was not written on prod-1"]);
    assert_eq!(lab.state()["head"], good.commit.as_str());
    opsh.run(&["--yes", "-e", &format!("stack(\"prod\").strike_release(\"{}\")", good.tag)])
        .exits(1)
        .explains(&["has no release of it"]);
}

#[test]
fn what_ran_keeps_a_name_and_only_what_nobody_needs_is_removed() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("ADDITIVE");
    let (good, old, opsh) = (lab.release("GOOD"), lab.release("OLD"), Opsh::new(&lab));
    let by_hand = lab.state()["images"]["backend"].as_str().unwrap().to_string();
    roll_back(&opsh, &["--yes"], &good.tag).exits(0);
    // What a weekly cron job does.
    lab.exec(&["docker", "image", "prune", "-f"]);
    assert!(lab.is(&format!("docker image inspect {by_hand} >/dev/null")), "the image that ran is still there");
    roll_back(&opsh, &["--yes"], &old.tag).exits(0);

    let names = || lab.sh("docker images --format '{{.Repository}}:{{.Tag}}' | grep :opsh- | sort");
    assert_eq!(names().lines().count(), 3, "{}", names());
    opsh.run(&["--yes", "-e", "stack(\"prod\").prune_kept(\"backend\", 1)"]).exits(0);
    let left = names();
    assert_eq!(left.trim(), format!("vrcshift_backend:opsh-{}", &old.commit[..12]), "the newest, which runs");
    assert_eq!(lab.state()["api_status"], 200);
    let again = opsh.run(&["--yes", "--json", "-e", "stack(\"prod\").keep_image(\"backend\")"]).exits(0);
    assert!(again.out.contains("\"changed\":false"), "it has a name already: {}", again.out);
    opsh.run(&["--yes", "-e", "stack(\"prod\").prune_kept(\"backend\", 0)"]).exits(2).explains(&["1 to 100"]);
}
