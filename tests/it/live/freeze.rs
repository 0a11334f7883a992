//! A freeze of a real database: reads go on, writes are refused, and it ends by itself.

use super::lab::{Afterwards, Lab};
use super::opsh::Opsh;
use serde_json::{Value, json};

/// Status of a read and of a write through the API.
fn statuses(lab: &Lab) -> (String, String) {
    let ask = |more: &str| {
        let url = "http://127.0.0.1:8080/api/v1/shifts";
        lab.sh(&format!(
            "curl -s -o /dev/null -w '%{{http_code}}' {more} '{url}{}'",
            if more.is_empty() { "" } else { "?name=x" }
        ))
    };
    (ask(""), ask("-X POST"))
}

fn clean(lab: &Lab) -> Afterwards<'_> {
    let script = "docker exec vrc-shift-db psql -Xq -U vrcshift -c 'SET default_transaction_read_only = off' \
                  -c 'ALTER DATABASE vrcshift RESET ALL' -c 'ALTER ROLE vrcshift RESET ALL' -c 'DELETE FROM shifts WHERE id > 3'; \
                  rm -rf /opt/vrcshift/.opsh/freeze.json /root/.local/state/opsh/runs; docker restart -t 1 vrc-shift-backend >/dev/null";
    lab.afterwards(script)
}

#[test]
fn reads_go_on_and_writes_are_refused_until_it_is_thawed() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let (_clean, opsh, before) = (clean(&lab), Opsh::new(&lab), lab.state());
    opsh.run(&["-e", "stack(\"prod\").freeze(300)"]).exits(3).explains(&["--yes"]);
    opsh.run(&["--yes", "-e", "stack(\"prod\").freeze(9)"]).exits(2).explains(&["10 to 86400"]);
    assert_eq!(statuses(&lab).0, "200");
    opsh.run(&["--yes", "-e", "stack(\"prod\").freeze(300)"]).exits(0);
    let run = opsh.journal("last")[0]["run"].clone();
    assert_eq!(statuses(&lab), ("200".into(), "500".into()), "the pool connected anew");
    let seen = opsh.eval("stack(\"prod\").frozen()");
    assert_eq!((&seen["read_only"], &seen["run"]), (&json!(true), &run), "{seen}");
    assert!((200..=300).contains(&seen["left_s"].as_i64().unwrap()), "{seen}");
    opsh.run(&["--yes", "-e", "stack(\"prod\").freeze(300)"]).exits(1).explains(&["froze it, until", ".thaw()"]);
    // What only reads is not in the way.
    let works = opsh.eval("host(\"prod-1\").works().works.filter(|w| w.state == \"running\")");
    assert_eq!(works[0]["verb"], "freeze.begin");

    opsh.run(&["undo", run.as_str().unwrap(), "--yes"]).exits(0).prints(&["undone: 1 of 1 effects"]);
    assert_eq!(statuses(&lab), ("200".into(), "201".into()));
    assert_eq!(opsh.eval("stack(\"prod\").frozen()"), Value::Null);
    lab.until("what would have ended it is gone", 20, "! pgrep -f '[f]reeze.json'");
    opsh.run(&["--yes", "--json", "-e", "stack(\"prod\").thaw().changed"]).exits(0).prints(&["false"]);
    lab.sql("DELETE FROM shifts WHERE id > 3");
    assert_eq!(lab.state(), before);
}

#[test]
fn it_ends_by_itself_when_opsh_was_killed() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let (_clean, opsh) = (clean(&lab), Opsh::new(&lab));
    let running = opsh.start(&["--yes", "-e", "stack(\"prod\").freeze(10); sleep(100)"]);
    lab.until(
        "it is frozen",
        30,
        "docker exec vrc-shift-db psql -XAtq -U vrcshift -c 'SHOW default_transaction_read_only' | grep -qx on",
    );
    running.signal(libc::SIGKILL);
    assert_eq!(running.wait().signal, Some(libc::SIGKILL));
    lab.until("it is thawed", 60, "test ! -e /opt/vrcshift/.opsh/freeze.json");
    assert_eq!(statuses(&lab), ("200".into(), "201".into()));
    assert_eq!(opsh.eval("stack(\"prod\").frozen()"), Value::Null);
}

#[test]
fn a_freeze_that_would_not_hold_is_none() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let (_clean, opsh) = (clean(&lab), Opsh::new(&lab));
    lab.sql("ALTER ROLE vrcshift IN DATABASE vrcshift SET default_transaction_read_only = off");
    let _role = lab.afterwards(
        "docker exec vrc-shift-db psql -U vrcshift -c 'ALTER ROLE vrcshift IN DATABASE vrcshift RESET ALL'",
    );
    opsh.run(&["--yes", "-e", "stack(\"prod\").freeze(300)"]).exits(1).explains(&["the role has a setting of its own"]);
    assert_eq!(opsh.eval("stack(\"prod\").frozen()"), Value::Null);
    assert_eq!(statuses(&lab).1, "201");
    lab.sql("ALTER DATABASE vrcshift SET default_transaction_read_only = on");
    opsh.run(&["--yes", "-e", "stack(\"prod\").freeze(300)"]).exits(1).explains(&["read-only already"]);
}

#[test]
fn a_service_is_stopped_and_started_as_it_is() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let (opsh, before) = (Opsh::new(&lab), lab.state());
    let _up = lab.afterwards("docker start vrc-shift-backend >/dev/null");
    let state = || lab.exec(&["docker", "inspect", "-f", "{{.State.Status}}", "vrc-shift-backend"]);
    let (stop, start) = ("stack(\"prod\").stop(\"backend\", #{ grace_s: 5 })", "stack(\"prod\").start(\"backend\")");
    opsh.run(&["-e", stop]).exits(3).explains(&["--yes"]);
    opsh.run(&["--yes", "-e", "stack(\"prod\").stop(\"db\")"]).exits(3).explains(&["--allow docker.stop"]);
    opsh.run(&["--yes", "-e", "stack(\"prod\").stop(\"bakend\")"]).exits(1).explains(&["did you mean \"backend\"?"]);
    opsh.run(&["--yes", "-e", stop]).exits(0);
    assert_eq!(state().trim(), "exited");
    opsh.run(&["undo", "last", "--yes"]).exits(0).prints(&["undone: 1 of 1 effects"]);
    assert_eq!(state().trim(), "running");
    opsh.run(&["--yes", "--json", "-e", &format!("{start}.changed")]).exits(0).prints(&["false"]);
    lab.until("the API answers", 30, "curl -sf -o /dev/null http://127.0.0.1:8080/api/v1/shifts");
    assert_eq!(lab.state(), before);
}
