//! First aid besides a rollback: a query that holds everybody up, a full disk, jobs that must wait, and one screen.

use super::lab::{Afterwards, Lab};
use super::opsh::Opsh;
use serde_json::{Value, json};

/// A session that goes on by itself, with this name, until it is killed.
pub(super) fn session(lab: &Lab, name: &str, statements: &[&str]) {
    let words: String = statements.iter().map(|sql| format!(" -c \"{sql}\"")).collect();
    lab.exec(&[
        "docker",
        "exec",
        "-d",
        "-e",
        &format!("PGAPPNAME={name}"),
        "vrc-shift-db",
        "sh",
        "-c",
        &format!("psql -Xq -U vrcshift -d vrcshift{words}"),
    ]);
}

fn of<'a>(sessions: &'a Value, name: &str) -> &'a Value {
    sessions.as_array().unwrap().iter().find(|one| one["application"] == name).unwrap_or(&Value::Null)
}

#[test]
fn who_blocks_whom_is_seen_and_a_query_ends_without_its_session_or_with_it() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let opsh = Opsh::new(&lab);
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name IN ('holder', 'waiter')";
    let _clean = lab.afterwards(&format!("docker exec vrc-shift-db psql -Xq -U vrcshift -d vrcshift -c \"{ended}\""));
    session(&lab, "holder", &["BEGIN", "LOCK TABLE shifts", "SELECT pg_sleep(600)"]);
    let is = |what: &str| {
        let sql = format!("SELECT 1 FROM pg_stat_activity WHERE {what}");
        lab.until(what, 20, &format!("docker exec vrc-shift-db psql -XAtq -U vrcshift -c \"{sql}\" | grep -qx 1"));
    };
    is("application_name = 'holder' AND query LIKE '%pg_sleep%' AND state = 'active'");
    session(&lab, "waiter", &["SELECT count(*) FROM shifts", "SELECT pg_sleep(601)"]);
    is("application_name = 'waiter' AND wait_event_type = 'Lock'");
    let seen = opsh.eval("stack(\"prod\").activity()");
    let (holder, waiter) = (of(&seen, "holder"), of(&seen, "waiter"));
    assert_eq!(waiter["blocked_by"], json!([holder["pid"]]), "{seen}");
    assert!(waiter["wait"].as_str().unwrap().starts_with("Lock: ") && waiter["query"] == "SELECT count(*) FROM shifts");
    assert!(holder["for_s"].as_i64() >= waiter["for_s"].as_i64() && holder["transaction_s"].is_i64(), "{seen}");

    let (cancel, kill) = (
        format!("stack(\"prod\").cancel_query({})", waiter["pid"]),
        format!("stack(\"prod\").kill_query({})", holder["pid"]),
    );
    opsh.run(&["-e", &cancel]).exits(3).explains(&["--yes"]);
    opsh.run(&["--plan", "-e", &cancel]).exits(0);
    let none = lab.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
    for verb in ["cancel_query", "kill_query"] {
        let worker = format!("stack(\"prod\").{verb}({})", none.trim());
        opsh.run(&["--yes", "-e", &worker]).exits(1).explains(&["no client of this database has that pid"]);
    }
    assert_eq!(of(&opsh.eval("stack(\"prod\").activity()"), "waiter")["query"], "SELECT count(*) FROM shifts");

    let done = opsh.run(&["--yes", "--json", "-e", &cancel]).exits(0);
    let receipt: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((&receipt["changed"], &receipt["before"]["pid"]), (&json!(true), &waiter["pid"]), "{receipt}");
    is("application_name = 'waiter' AND query LIKE '%pg_sleep(601)%'");
    let seen = opsh.eval("stack(\"prod\").activity()");
    assert_eq!(of(&seen, "waiter")["pid"], waiter["pid"], "the session goes on");
    opsh.run(&["--yes", "-e", &kill]).exits(0);
    let seen = opsh.eval("stack(\"prod\").activity()");
    assert_eq!(of(&seen, "holder"), &Value::Null, "{seen}");
    opsh.run(&["--yes", "-e", &kill]).exits(1).explains(&["no client of this database has that pid"]);
    let idle = seen.as_array().unwrap().iter().find(|one| one["state"] == "idle");
    if let Some(idle) = idle {
        let idle = format!("stack(\"prod\").cancel_query({})", idle["pid"]);
        opsh.run(&["--yes", "-e", &idle]).exits(1).explains(&["it runs no query", "kill_query"]);
    }
}

/// The id of a new image without a name, which holds 3 MB.
pub(super) fn image(lab: &Lab, more: &str) -> String {
    let script = format!("cd /tmp; head -c 3000000 /dev/urandom >aid; tar c aid | docker import {more} -; rm aid");
    lab.sh(&script).trim().to_string()
}

#[test]
fn what_nobody_needs_goes_and_what_is_kept_used_or_a_volume_stays() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let opsh = Opsh::new(&lab);
    let (loose, kept, used) = (image(&lab, ""), image(&lab, "-c 'LABEL opsh.stack=vrcshift'"), image(&lab, ""));
    let _clean = lab
        .afterwards(&format!("docker rm aid-stopped; docker rmi {loose} {kept} {used}; docker volume rm aid-volume"));
    lab.sh(&format!("docker create --name aid-stopped {used} true; docker volume create aid-volume"));
    let before = lab.state();
    let rows = opsh.eval("stack(\"prod\").reclaimable()");
    let row = rows.as_array().unwrap().iter().find(|row| row["id"] == loose.as_str()).unwrap_or(&Value::Null);
    assert!(row["kind"] == "dangling image" && row["size_bytes"].as_i64() >= Some(3_000_000), "{rows}");
    for id in [&kept, &used] {
        assert!(!rows.to_string().contains(id.as_str()), "{rows}");
    }
    assert!(!rows.to_string().contains("aid-stopped"), "it stopped today: {rows}");

    let reclaim = "stack(\"prod\").reclaim([\"dangling image\"])";
    opsh.run(&["--yes", "-e", "stack(\"prod\").reclaim([\"volume\"])"]).exits(2).explains(&["no kind \"volume\""]);
    opsh.run(&["--yes", "-e", reclaim]).exits(3).explains(&["--allow docker.reclaim"]);
    let done = opsh.run(&["--yes", "--allow", "docker.reclaim", "--json", "-e", reclaim]).exits(0);
    let receipt: Value = serde_json::from_str(&done.out).unwrap();
    let after = &receipt["after"];
    assert!(after["freed_bytes"].as_i64() >= Some(3_000_000) && after["free_bytes"].is_i64(), "{receipt}");
    assert_eq!((&after["things"], &after["left"]), (&json!(0), &json!([])), "{receipt}");
    assert!(!lab.is(&format!("docker image inspect {loose}")));
    for there in [format!("image inspect {kept}"), format!("image inspect {used}"), "volume inspect aid-volume".into()]
    {
        assert!(lab.is(&format!("docker {there}")), "{there}");
    }
    let again = format!("{reclaim}.changed");
    opsh.run(&["--yes", "--allow", "docker.reclaim", "--json", "-e", &again]).exits(0).prints(&["false"]);
    assert_eq!(lab.state(), before);
}

/// What cron's own program does with a table, as far as opsh uses it. With `race` somebody edits it after each look.
const CRONTAB: &str = r##"#!/bin/sh
table=/var/lib/aid.cron
case $1 in
  -l) [ -e $table ] || { echo "no crontab for root" >&2; exit 1; }
      cat $table; [ ! -e $table.race ] || echo '# edited' >>$table ;;
  *) cp "$1" $table.new && mv $table.new $table ;;
esac
"##;

/// Two jobs of the stack, and what is none.
pub(super) const TABLE: &str = "MAILTO=ops\n# by hand: /app/batch -job=expire\n5 4  * * *\t/app/batch  -job=expire >/dev/null \n\
                                0 3 * * * /usr/bin/foreign 'x  y'\n\n@daily docker exec b /app/batch -job=remind\n";

/// Takes away, now and when the result is dropped, what [`crontab`] brings.
fn no_crontab(lab: &Lab) -> Afterwards<'_> {
    let clean = "umount /usr/local/sbin; rm -rf /var/lib/aid.bin /var/lib/aid.cron*";
    lab.is(clean);
    lab.afterwards(clean)
}

/// A program crontab without a table. The lab's programs cannot be written to.
pub(super) fn crontab(lab: &Lab) -> Afterwards<'_> {
    let clean = no_crontab(lab);
    lab.sh(&format!(
        "mkdir -p /var/lib/aid.bin; cat >/var/lib/aid.bin/crontab <<'END'\n{CRONTAB}END\n\
         chmod 755 /var/lib/aid.bin/crontab; mount --bind /var/lib/aid.bin /usr/local/sbin"
    ));
    clean
}

pub(super) fn set_table(lab: &Lab, table: &str) {
    lab.sh(&format!("cat >/var/lib/aid.cron <<'END'\n{table}END"));
}

pub(super) fn table(lab: &Lab) -> String {
    lab.sh("cat /var/lib/aid.cron")
}

/// An operator whose opsh.toml names the jobs.
pub(super) fn with_jobs(lab: &Lab) -> Opsh<'_> {
    Opsh::configured(lab, |config| {
        let cron = "\ncron = [\"/app/batch -job=expire\", \"/app/batch -job=remind\"]\n\n[stack.prod-key]";
        config.replace("\n[stack.prod-key]", cron)
    })
}

#[test]
fn jobs_of_the_stack_pause_and_come_back_byte_for_byte_and_a_foreign_one_is_untouched() {
    let Some(lab) = Lab::take() else { return };
    let (opsh, pause) = (with_jobs(&lab), "stack(\"prod\").pause_cron()");
    drop(no_crontab(&lab));
    if !lab.is("command -v crontab") {
        opsh.run(&["--yes", "-e", pause]).exits(1).explains(&["no program crontab"]);
    }
    let _crontab = crontab(&lab);
    opsh.run(&["--yes", "-e", pause]).exits(1).explains(&["no line of this account's crontab"]);
    set_table(&lab, TABLE);
    let now = || table(&lab);

    opsh.run(&["-e", pause]).exits(3).explains(&["--yes"]);
    lab.sh("touch /var/lib/aid.cron.race");
    opsh.run(&["--yes", "-e", pause]).exits(1).explains(&["somebody edits it"]);
    lab.sh("rm /var/lib/aid.cron.race; sed -i '/^# edited$/d' /var/lib/aid.cron");
    assert_eq!(now(), TABLE);

    opsh.run(&["--yes", "-e", pause]).exits(0);
    let run = opsh.journal("last")[0]["run"].as_str().unwrap().to_string();
    let paused = now();
    let lines: Vec<&str> = paused.lines().collect();
    let marked = |line: &str, job: &str| {
        line.starts_with("#opsh paused \"prod\" at ") && line.contains(&run) && line.ends_with(job)
    };
    assert!(marked(lines[2], " | 5 4  * * *\t/app/batch  -job=expire >/dev/null "), "{paused}");
    assert!(marked(lines[5], " | @daily docker exec b /app/batch -job=remind"), "{paused}");
    let others = |text: &str| {
        text.lines()
            .enumerate()
            .filter(|(at, _)| ![2, 5].contains(at))
            .map(|(_, line)| line.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(others(&paused), others(TABLE));
    opsh.run(&["--yes", "--json", "-e", &format!("{pause}.changed")]).exits(0).prints(&["false"]);
    assert_eq!(opsh.eval("stack(\"prod\").cron().entries.map(|e| e.found)"), json!([null, null]));

    opsh.run(&["--yes", "--json", "-e", "stack(\"prod\").resume_cron().after"]).exits(0).prints(&["running"]);
    assert_eq!(now(), TABLE);
    opsh.run(&["undo", "last", "--yes"]).exits(0).prints(&["undone: 1 of 1 effects"]);
    assert_eq!(now().matches("#opsh paused").count(), 2);
    opsh.run(&["--yes", "-e", "stack(\"prod\").resume_cron()"]).exits(0);
    assert_eq!(now(), TABLE);
}

#[test]
fn what_is_wrong_now_stands_first_on_one_screen() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let opsh = Opsh::new(&lab);
    let _up = lab.afterwards("docker start vrc-shift-backend vrc-shift-db >/dev/null");
    let fits = |report: &Value| {
        let lines: Vec<String> = serde_json::from_value(report["lines"].clone()).unwrap();
        assert!(lines.len() <= 24 && lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
        assert_eq!(report["text"], lines.join("\n"));
        lines
    };
    let well = opsh.eval("stack(\"prod\").status()");
    let lines = fits(&well);
    assert!(well["verdict"] != "BAD" && !well["text"].as_str().unwrap().contains("could not look"), "{lines:#?}");
    for what in ["backend", "db", "api", "free", "release", "schema", "sessions", "work", "backup", "host"] {
        assert!(lines.iter().any(|line| line.starts_with(&format!("  {what} "))), "{what}: {lines:#?}");
    }
    lab.sh("docker kill vrc-shift-backend >/dev/null");
    let lines = fits(&opsh.eval("stack(\"prod\").status()"));
    assert_eq!(lines[0], "prod on prod-1: BAD");
    assert_eq!(lines[1], "  BAD   backend is exited, exit code 137");
    assert_eq!(lines[2], "        type: stack(\"prod\").start(\"backend\")");
    assert!(
        lines[3].starts_with("  BAD   http://127.0.0.1:8080/") && lines[3].ends_with("does not answer"),
        "{lines:#?}"
    );

    // What cannot be looked at without a database hides nothing.
    lab.sh("docker stop -t 5 vrc-shift-db >/dev/null");
    let ran = opsh.run(&["-e", "print(stack(\"prod\").status().text)"]).exits(0);
    ran.prints(&[
        "BAD   backend is exited",
        "BAD   db is exited",
        "schema    could not look: ",
        "host      up ",
        "free      checkout ",
    ]);
}
