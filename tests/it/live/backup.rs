//! Backups of a real database, and what goes wrong with them: no good name without a good dump, and nothing is lost.

use super::lab::{Afterwards, Lab};
use super::opsh::Opsh;
use serde_json::{Value, json};

const DIR: &str = "/var/backups/opsh";
const MAKE: &str = "stack(\"prod\").backup()";
/// Agreement to everything that a restore needs.
const AGREED: [&str; 3] = ["--yes", "--allow", "backup.restore"];

/// A server without backups, that has none afterwards.
pub fn clean(lab: &Lab) -> Afterwards<'_> {
    let script = format!(
        "rm -rf {DIR}; for db in $(docker exec vrc-shift-db psql -XAtq -U vrcshift -c \"SELECT datname FROM pg_database \
         WHERE datname ~ '_(before|after|opsh)_'\"); do docker exec vrc-shift-db psql -Xq -U vrcshift -c \"DROP DATABASE $db\"; done; \
         rm -rf /root/.local/state/opsh/runs"
    );
    lab.sh(&script);
    lab.afterwards(&script)
}

/// Holds every dump up, in the middle, until [`let_go`] or what is given is dropped.
fn hold(lab: &Lab) -> Afterwards<'_> {
    let held = lab.afterwards(LET_GO);
    lab.sh("docker exec -d vrc-shift-db psql -U vrcshift -c 'BEGIN; LOCK TABLE members; SELECT pg_sleep(600)'");
    lab.until(
        "the table is locked",
        20,
        &asks("SELECT count(*) FROM pg_locks WHERE relation = 'members'::regclass AND mode = 'AccessExclusiveLock'"),
    );
    held
}

const LET_GO: &str = "docker exec vrc-shift-db psql -XAtq -U vrcshift -c \"SELECT pg_terminate_backend(pid) FROM \
                      pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()\"";

/// A script that exits 0 when the database answers 1.
fn asks(sql: &str) -> String {
    format!("docker exec vrc-shift-db psql -XAtq -U vrcshift -c \"{sql}\" | grep -qx 1")
}

fn until_it_dumps(lab: &Lab) {
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_dump' AND wait_event_type = 'Lock'";
    lab.until("pg_dump is in the middle", 30, &asks(waits));
}

/// Files in the folder, without those that belong to a dump.
fn files(lab: &Lab) -> String {
    lab.sh(&format!("ls -A {DIR} 2>/dev/null || :"))
}

fn backup(opsh: &Opsh<'_>) -> Value {
    let ran = opsh.run(&["--yes", "--json", "-e", MAKE]).exits(0);
    serde_json::from_str::<Value>(&ran.out).unwrap()["after"].clone()
}

fn file(made: &Value) -> &str {
    made["file"].as_str().unwrap()
}

#[test]
fn a_backup_is_proved_private_listed_and_measured_for_the_next_one() {
    let Some(lab) = Lab::take() else { return };
    let good = lab.have("GOOD");
    let (_clean, opsh, before) = (clean(&lab), Opsh::new(&lab), lab.state());
    let plan = opsh.eval("stack(\"prod\").backup_plan()");
    assert_eq!((&plan["newest"], &plan["problems"], &plan["dir"]), (&Value::Null, &json!([]), &json!(DIR)));
    assert!(plan["estimate_from"].as_str().unwrap().starts_with("assumed"), "{plan}");
    assert!(plan["needs_bytes"].as_i64() >= plan["database_bytes"].as_i64().map(|size| size * 3 / 2), "{plan}");

    opsh.run(&["-e", MAKE]).exits(3).explains(&["--yes"]);
    let missing = "stack(\"prod\").backup(#{ touches: [\"public.shiftz\"] })";
    opsh.run(&["--yes", "-e", missing]).exits(1).explains(&["no table public.shiftz"]);
    assert_eq!(files(&lab), "");
    let line = "stack(\"prod\").backup(#{ touches: [\"public.shifts\", \"members\"] })";
    let ran = opsh.run(&["--yes", "--json", "-e", line]).exits(0);
    let made = serde_json::from_str::<Value>(&ran.out).unwrap()["after"].clone();
    let name = file(&made).strip_prefix(DIR).unwrap();
    assert!(name.ends_with(&format!("-{}.dump", &good.commit[..12])), "{name}");
    let rows = json!({ "public.members": 2, "public.schema_migrations": good.ledger.len(), "public.shifts": 3 });
    assert_eq!((&made["tables"], &made["rows"]), (&json!(3), &rows));
    let sum = lab.exec(&["sha256sum", file(&made)]);
    assert_eq!(made["sha256"], sum.split_whitespace().next().unwrap());
    let modes = lab.exec(&["stat", "-c", "%a", DIR, file(&made), &format!("{}.json", file(&made))]);
    assert_eq!(modes, "700\n600\n600\n");
    assert_eq!(files(&lab).lines().count(), 2, "nothing else is left there: {}", files(&lab));

    let second = backup(&opsh);
    let listed = opsh.eval("stack(\"prod\").backups()");
    assert_eq!((&listed[0]["file"], &listed[1]["file"]), (&second["file"], &made["file"]));
    assert_eq!((&listed[0]["ok"], &listed[0]["commit"]), (&json!(true), &json!(good.commit)));
    let plan = opsh.eval("stack(\"prod\").backup_plan()");
    assert!(plan["estimate_from"].as_str().unwrap().starts_with("measured"), "{plan}");

    // An undo leaves it: it may be the only one.
    let undone = opsh.run(&["undo", "last", "--yes"]).exits(0).prints(&["nothing to undo"]);
    assert!(undone.err.contains("is left: it harms nothing"), "{}", undone.err);
    let remove = format!("stack(\"prod\").remove_backup({})", second["file"]);
    opsh.run(&["--yes", "-e", &remove]).exits(0);
    lab.sh(&format!("head -c 3000 {0} >{0}.x; mv {0}.x {0}", file(&made)));
    let listed = opsh.eval("stack(\"prod\").backups()");
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["ok"]), (1, &json!(false)));
    assert!(listed[0]["why"].as_str().unwrap().contains("has 3000 now"), "{listed}");
    opsh.run(&["--yes", "-e", "stack(\"prod\").remove_backup(\"/etc/passwd\")"]).exits(2).explains(&["no"]);
    assert_eq!(lab.state(), before);
}

#[test]
fn a_folder_that_is_emptied_at_the_start_is_refused_also_behind_a_link() {
    let Some(lab) = Lab::take() else { return };
    let with = |dir: &str| {
        let key = format!("backup = {{ dir = \"{dir}\" }}\nprobe =");
        Opsh::configured(&lab, |config| config.replacen("probe =", &key, 1))
    };
    with("/tmp/backups").run(&["--yes", "-e", MAKE]).exits(2).explains(&["/tmp", "is emptied when the host starts"]);
    let _link = lab.afterwards("rm -rf /var/backups/behind /tmp/behind");
    lab.sh("mkdir -p /tmp/behind; ln -s /tmp/behind /var/backups/behind");
    with("/var/backups/behind").run(&["--yes", "-e", MAKE]).exits(1).explains(&["is in /tmp"]);
    assert_eq!(lab.sh("ls -A /tmp/behind"), "");
}

#[test]
fn a_disk_that_is_small_is_refused_and_one_that_fills_up_leaves_no_half_file() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let (_clean, opsh, before) = (clean(&lab), Opsh::new(&lab), lab.state());
    let _mounted = lab.afterwards(&format!("umount {DIR}"));
    lab.sh(&format!("mkdir -p {DIR}; mount -t tmpfs -o size=4m tmpfs {DIR}"));
    opsh.run(&["--yes", "-e", MAKE]).exits(1).explains(&["bytes are free", "1.5 times the database"]);
    assert!(opsh.changes("last").is_empty());

    lab.sh(&format!("mount -o remount,size=64m {DIR}"));
    let held = hold(&lab);
    let running = opsh.start(&["--yes", "-e", MAKE]);
    until_it_dumps(&lab);
    lab.sh(&format!("dd if=/dev/zero of={DIR}/fill bs=64k 2>/dev/null || :"));
    drop(held);
    running.wait().exits(1).explains(&["the disk of /var/backups/opsh is full"]);
    assert_eq!(files(&lab), "fill\n");
    lab.sh(&format!("rm {DIR}/fill"));
    assert!(backup(&opsh)["size_bytes"].as_i64().unwrap() > 1024);
    assert_eq!(lab.state(), before);
}

#[test]
fn a_pg_dump_that_dies_half_way_leaves_no_file_and_a_second_backup_is_told_of_the_first() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let (_clean, opsh) = (clean(&lab), Opsh::new(&lab));
    let _held = hold(&lab);
    let running = opsh.start(&["--yes", "-e", MAKE]);
    until_it_dumps(&lab);
    let locked = opsh.run(&["--yes", "-e", MAKE]).exits(3).explains(&["LOCKED by", "backup.make"]);
    let holder = locked.err.split_once("--under-lock-of ").unwrap().1.split_whitespace().next().unwrap();
    let named = opsh.run(&["--yes", "--under-lock-of", holder, "-e", MAKE]);
    named.exits(1).explains(&["another backup is being made"]);
    lab.sh("pkill -KILL -x pg_dump");
    running.wait().exits(1).explains(&["pg_dump ended with 137"]);
    assert_eq!(files(&lab), "");
}

#[test]
fn a_backup_whose_link_was_cut_goes_on_and_is_settled() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let (_clean, opsh) = (clean(&lab), Opsh::new(&lab));
    let held = hold(&lab);
    let running = opsh.start(&["--yes", "-e", MAKE]);
    until_it_dumps(&lab);
    // The session's process at the server: the connection breaks under it.
    lab.sh("pkill -KILL -f '^sshd: root@notty'");
    let lost = running.wait().exits(4);
    assert!(lost.err.contains("may have happened"), "{}", lost.err);
    let run = opsh.journal("last")[0]["run"].as_str().unwrap().to_string();
    drop(held);
    let attached = opsh.run(&["attach", &run]).exits(0);
    assert!(attached.out.contains("ended with exit code 0"), "{attached:?}");
    let listed = opsh.eval("stack(\"prod\").backups()");
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["ok"]), (1, &json!(true)), "{listed}");
    // What was settled counts as any other, and a backup is left.
    opsh.run(&["undo", &run, "--yes"]).exits(0).prints(&["nothing to undo"]);
    assert_eq!(files(&lab).lines().count(), 2);
}

#[test]
fn the_script_backs_up_and_removes_what_is_more_than_is_kept_when_it_is_told_to() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let _clean = clean(&lab);
    let opsh = Opsh::configured(&lab, |config| config.replacen("probe =", "backup = { keep = 1 }\nprobe =", 1));
    let planned = opsh.run(&["--plan", "scripts/backup.rhai"]).exits(0);
    planned.prints(&["Back up the database of prod", "a plan: nothing was changed"]);
    assert_eq!(files(&lab), "");
    let made: Vec<Value> = (0..3).map(|_| backup(&opsh)).collect();
    opsh.run(&["--yes", "scripts/backup.rhai"]).exits(0).prints(&["prod is backed up: ", "sha256 ", "3 tables"]);
    let ran = opsh.run(&["--yes", "scripts/backup.rhai", "--prune"]).exits(0);
    let ran = ran.prints(&[file(&made[0]), file(&made[1]), file(&made[2])]);
    assert_eq!(ran.out.matches("removed ").count(), 3, "{}", ran.out);
    assert_eq!(opsh.eval("stack(\"prod\").backups()").as_array().unwrap().len(), 2);
}

#[test]
fn a_restore_brings_rows_back_and_its_undo_the_ones_that_were_there() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let (_clean, opsh, before) = (clean(&lab), Opsh::new(&lab), lab.state());
    let _settings = lab.afterwards("docker exec vrc-shift-db psql -U vrcshift -c 'ALTER DATABASE vrcshift RESET ALL'");
    lab.sql(
        "ALTER DATABASE vrcshift SET search_path TO \"$user\", public; ALTER DATABASE vrcshift SET work_mem TO '7MB'",
    );
    let made = backup(&opsh);
    lab.sql("DELETE FROM shifts WHERE id < 3; INSERT INTO members (display_name, role) VALUES ('late', 'staff')");
    let rows = || lab.sql("SELECT string_agg(id::text, ',' ORDER BY id) FROM shifts");
    let (changed, script) = (rows(), "scripts/restore.rhai");
    opsh.run(&[script]).exits(2).prints(&[file(&made)]).explains(&["FILE is missing"]);
    opsh.run(&[script, file(&made)]).exits(3).explains(&["--data-loss-ok"]);
    let lossy = [script, file(&made), "--data-loss-ok"];
    opsh.run(&[&["--yes"][..], &lossy].concat()).exits(3).explains(&["--allow backup.restore"]);
    let plan = opsh.run(&[&["--plan"][..], &lossy].concat()).exits(0);
    plan.prints(&["public.shifts: 1 row(s) now, 3 row(s) then", "public.members: 3 row(s) now, 2 row(s) then"]);
    assert_eq!(rows(), changed);

    let ran = opsh.run(&[&AGREED[..], &lossy].concat()).exits(0);
    ran.prints(&["prod is restored", "answers 200", "vrcshift_before_"]);
    assert_eq!(rows().trim(), "1,2,3");
    assert_eq!(lab.sql("SHOW work_mem; SHOW search_path").trim(), "7MB\n\"$user\", public");
    assert_eq!(opsh.eval("stack(\"prod\").frozen()"), Value::Null);
    assert_eq!(lab.state(), before);
    lab.sql("INSERT INTO members (display_name, role) VALUES ('written since', 'staff')");

    let undo = ["undo", "last", "--yes", "--allow", "backup.swap"];
    opsh.run(&undo).exits(0).prints(&["undone: 1 of 3 effects"]);
    assert_eq!(rows(), changed);
    lab.sql("DELETE FROM members WHERE display_name = 'late'; INSERT INTO members (display_name, role) VALUES ('late', 'staff')");
    lab.sql("DELETE FROM members WHERE id > 2");
}

#[test]
fn a_dump_that_is_cut_damaged_or_of_another_database_is_not_restored() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let (_clean, opsh, before) = (clean(&lab), Opsh::new(&lab), lab.state());
    let made = backup(&opsh);
    let path = file(&made).to_string();
    let line = format!("stack(\"prod\").restore(\"{path}\")");
    let refused = |says: &str| {
        opsh.run(&[&AGREED[..], &["-e", &line]].concat()).exits(1).explains(&[says]);
        assert_eq!(lab.state(), before);
        let left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'vrcshift\\_%'";
        assert_eq!(lab.sql(left).trim(), "0", "no half database is left");
    };
    lab.sh(&format!("cp {path} /root/whole; head -c 5000 /root/whole >{path}"));
    refused("has 5000 now");
    // Somebody who also changes what was written down about it.
    lab.sh(&format!("sed -i 's/\"size_bytes\":[0-9]*/\"size_bytes\":5000/' {path}.json"));
    refused("its sha256 is not the one");
    lab.sh(&format!(
        "s=$(sha256sum <{path}); sed -i \"s/\\\"sha256\\\":\\\"[0-9a-f]*/\\\"sha256\\\":\\\"${{s%% *}}/\" {path}.json"
    ));
    refused("it cannot be");
    lab.sh(&format!(
        "docker exec vrc-shift-db pg_dump -Fc -U vrcshift -d postgres >{path}; s=$(sha256sum <{path}); \
         sed -i \"s/\\\"sha256\\\":\\\"[0-9a-f]*/\\\"sha256\\\":\\\"${{s%% *}}/; s/\\\"size_bytes\\\":[0-9]*/\\\"size_bytes\\\":$(wc -c <{path})/\" {path}.json"
    ));
    let ran = opsh.run(&[&AGREED[..], &["-e", &line]].concat()).exits(1);
    assert!(
        ran.err.contains("it is a dump of another database: postgres") || ran.err.contains("that is no dump"),
        "{}",
        ran.err
    );
    assert_eq!(lab.state(), before);
    lab.sh(&format!("rm {path}"));
    opsh.run(&["-e", &format!("stack(\"prod\").restore_plan(\"{path}\")")]).exits(1).explains(&["no backup"]);
    opsh.run(&["--yes", "--allow", "backup.swap", "-e", "stack(\"prod\").swap_database(\"postgres\")"])
        .exits(2)
        .explains(&["no name"]);
    let nowhere = "stack(\"prod\").swap_database(\"vrcshift_before_20200101t000000z\")";
    opsh.run(&["--yes", "--allow", "backup.swap", "-e", nowhere]).exits(1).explains(&["there is no database"]);
    assert_eq!(lab.state(), before);
}
