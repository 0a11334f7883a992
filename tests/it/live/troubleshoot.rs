//! Eight ways in which a stack is in trouble, each made on a real server: the right cause stands first, with what says so,
//! nothing is changed by looking, and no password is shown.

use super::aid::session;
use super::lab::{Afterwards, COMPOSE, Lab, Secret};
use super::opsh::{Opsh, leaks};
use serde_json::{Value, json};

/// What `troubleshoot` found, the likeliest first. The server is as it was, and so is everything that was typed.
fn causes(lab: &Lab, opsh: &Opsh<'_>, what: &str) -> Vec<Value> {
    let before = still(lab);
    let ran = opsh.run(&["--observe", "--json", "scripts/troubleshoot.rhai", what]);
    assert_eq!(still(lab), before, "it only looks");
    assert_eq!(opsh.changes("last"), [""; 0]);
    let found = match ran.code {
        Some(0) => serde_json::from_str::<Value>(&ran.out).unwrap()["causes"].clone(),
        Some(1) => serde_json::from_str::<Value>(ran.err.lines().last().unwrap()).unwrap()["results"].clone(),
        _ => panic!("{ran:?}"),
    };
    let found = found.as_array().unwrap_or_else(|| panic!("no causes: {ran:?}")).clone();
    assert_eq!(ran.code == Some(1), !found.is_empty(), "{ran:?}");
    found
}

/// What is true on the server and stays so: a container that starts again and again is counted by the Engine meanwhile.
fn still(lab: &Lab) -> Value {
    let mut state = lab.state();
    for moving in ["restarts", "images", "image_labels", "api_status", "health_status"] {
        state.as_object_mut().unwrap().remove(moving);
    }
    state
}

/// Fails unless `cause` is certain and the first that `troubleshoot what` names, a line of evidence has each of `evidence`,
/// every line to type is one that opsh takes, and whoever asked for something else is not told another certain cause.
#[track_caller]
fn finds(lab: &Lab, what: &str, cause: &str, evidence: &[&str]) -> Value {
    let opsh = Opsh::new(lab);
    let found = causes(lab, &opsh, what);
    assert!(!found.is_empty(), "{what}: no cause was found");
    let first = &found[0];
    assert_eq!((&first["cause"], &first["level"]), (&json!(cause), &json!("certain")), "{found:#?}");
    let lines = |key: &str| -> Vec<String> { serde_json::from_value(first[key].clone()).unwrap() };
    for part in evidence {
        assert!(lines("evidence").iter().any(|line| line.contains(part)), "no {part:?} in {first:#}");
    }
    assert!(!lines("next").is_empty(), "{first:#}");
    for (at, line) in lines("next").iter().enumerate() {
        let line = line.split("     ").next().unwrap();
        assert!(!line.contains("schema_migrations"), "{line}");
        let words: Vec<&str> = match line.strip_prefix("opsh ") {
            Some(words) => words.split(' ').collect(),
            None => vec!["-e", line],
        };
        let plan = if words[0] == "--plan" { words } else { [&["--plan"][..], &words].concat() };
        let ran = opsh.run(&plan);
        // What comes after the first may need what the first brings back.
        let goes = ran.code == Some(0) || at > 0 && ran.code == Some(1) && ran.err.contains("  why: ");
        assert!(goes, "{line}: {ran:?}");
    }
    for other in ["backend", "db", "migrations"] {
        for one in causes(lab, &opsh, other) {
            assert!(one["level"] != "certain" || one["cause"] == cause, "{other} is told {one:#}");
        }
    }

    let shown = opsh.run(&["scripts/troubleshoot.rhai", what]).exits(1).explains(&[first["why"].as_str().unwrap()]);
    let screen: Vec<&str> = shown.out.lines().collect();
    assert!(screen.len() <= 24, "{}", shown.out);
    let too_wide = screen.iter().find(|line| line.chars().count() > 80 && !line.starts_with("      type: "));
    assert_eq!(too_wide, None);
    assert!(screen[1].starts_with("  certain   "), "{}", shown.out);
    first.clone()
}

/// Brings the good release live when it is dropped, after a script.
fn repaired<'a>(lab: &'a Lab, script: &str) -> Afterwards<'a> {
    let release = format!("/var/lib/lab/bin/release {}", lab.setting("TAG_GOOD"));
    lab.afterwards(&format!("exec 2>&1; cd /opt/vrcshift; {script}\n{release}"))
}

/// Puts the env file and the compose file back.
const FILES: &str = "cp -p /tmp/env.was .env.prod; rm /tmp/env.was; git checkout -q -f -- .";

fn up(lab: &Lab, before: &str) {
    lab.sh(&format!("cd /opt/vrcshift; exec 2>&1; {before}\n{COMPOSE} up -d"));
}

/// Waits until the backend was started again three times.
fn until_it_loops(lab: &Lab) {
    let restarts = "[ $(docker inspect -f '{{.RestartCount}}' vrc-shift-backend) -ge 3 ]";
    lab.until("the backend starts again and again", 30, restarts);
}

#[test]
fn a_backend_that_ends_as_soon_as_it_starts() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let _repaired = repaired(&lab, "docker tag good-was:1 vrcshift_backend:latest; docker rmi good-was:1");
    up(
        &lab,
        "docker tag vrcshift_backend:latest good-was:1; cd $(mktemp -d)
         printf '#!/bin/sh\\necho \"panic: runtime error: index out of range\" >&2\\nexit 2\\n' >server; chmod 755 server
         printf 'FROM vrcshift_backend:latest\\nCOPY server /app/server\\n' >Dockerfile
         DOCKER_BUILDKIT=0 docker build -q -t vrcshift_backend:latest .; cd /opt/vrcshift",
    );
    until_it_loops(&lab);
    finds(&lab, "backend", "crash_loop", &["restarts", "panic: runtime error: index out of range"]);
}

#[test]
fn a_key_that_is_missing_whether_compose_refuses_it_or_the_program() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let _repaired = repaired(&lab, FILES);
    lab.sh(&format!(
        "cd /opt/vrcshift; exec 2>&1; cp -p .env.prod /tmp/env.was; sed -i /^JWT_SECRET/d .env.prod
         docker rm -f vrc-shift-backend; ! {COMPOSE} up -d"
    ));
    finds(&lab, "backend", "missing_env", &["/opt/vrcshift/.env.prod has no JWT_SECRET", "JWT_SECRET is required"]);
    up(&lab, "sed -i 's/{JWT_SECRET:.*}/{JWT_SECRET}/' docker-compose.prod.yml");
    until_it_loops(&lab);
    finds(&lab, "backend", "missing_env", &["JWT_SECRET is not set", "/opt/vrcshift/.env.prod has no JWT_SECRET"]);
}

#[test]
fn a_password_that_the_database_refuses() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let _repaired = repaired(&lab, FILES);
    let wrong = Secret { name: "the wrong password".into(), value: "Xq7vW2mK9pL4sT8r".into() };
    up(
        &lab,
        &format!(
            "cp -p .env.prod /tmp/env.was; sed -i 's/^POSTGRES_PASSWORD=.*/POSTGRES_PASSWORD={}/' .env.prod",
            wrong.value
        ),
    );
    lab.until("the backend answers", 30, "curl -s -o /dev/null http://127.0.0.1:8080/health");
    finds(&lab, "db", "wrong_password", &["password authentication failed for user", "the database answers opsh"]);
    let opsh = Opsh::new(&lab);
    let shown = opsh.run(&["scripts/troubleshoot.rhai", "db"]).exits(1);
    let journal = opsh.run(&["journal", "export", "last"]).exits(0);
    for text in [&shown.out, &shown.err, &journal.out] {
        assert!(leaks(text.as_bytes(), std::slice::from_ref(&wrong)).is_empty(), "{text}");
    }
}

#[test]
fn a_database_that_is_down() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let _repaired = repaired(&lab, "docker start vrc-shift-db");
    lab.sh("docker stop -t 5 vrc-shift-db >/dev/null");
    let first = finds(&lab, "db", "db_down", &["vrc-shift-db is exited, exit code 0", "database system is shut down"]);
    assert_eq!(first["next"][0], "stack(\"prod\").start(\"db\")");
    Opsh::new(&lab).run(&["--yes", "-e", first["next"][0].as_str().unwrap()]).exits(0);
    lab.until("the API answers", 30, "curl -sf -o /dev/null http://127.0.0.1:8080/api/v1/shifts");
    assert_eq!(causes(&lab, &Opsh::new(&lab), "db"), [Value::Null; 0]);
}

#[test]
fn a_database_without_a_connection_left() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let _repaired = repaired(
        &lab,
        "docker exec vrc-shift-db sh -c 'rm $PGDATA/postgresql.auto.conf'; docker restart -t 5 vrc-shift-db",
    );
    lab.sql("ALTER SYSTEM SET max_connections = 8");
    lab.sh("docker restart -t 5 vrc-shift-db >/dev/null");
    let full =
        "docker exec vrc-shift-db psql -Xq -U vrcshift -d vrcshift -c 'SELECT 1' 2>&1 | grep -q 'too many clients'";
    lab.until("PostgreSQL answers", 30, "docker exec vrc-shift-db psql -Xq -U vrcshift -d vrcshift -c 'SELECT 1'");
    for _ in 0..9 {
        // Idle, as one that a pool has lost.
        let idle = "sleep 900 | psql -Xq -U vrcshift -d vrcshift";
        lab.exec(&["docker", "exec", "-d", "-e", "PGAPPNAME=leaked", "vrc-shift-db", "sh", "-c", idle]);
    }
    lab.until("no connection is left", 30, full);
    // A pool that still has a connection serves on.
    lab.sh("docker restart -t 1 vrc-shift-backend >/dev/null");
    lab.until("the backend answers", 30, "curl -s -o /dev/null http://127.0.0.1:8080/health");
    let evidence =
        ["too many clients already", "of 8 sessions 8 are of programs in its own container", "SQLSTATE 53300"];
    let first = finds(&lab, "db", "db_full", &evidence);
    let kill = first["next"][0].as_str().unwrap();
    let line = kill.split("     ").next().unwrap();
    Opsh::new(&lab).run(&["--yes", "-e", line]).exits(0);
    lab.until("it lets somebody in", 30, &format!("! {full}"));
}

#[test]
fn a_lock_that_everybody_waits_for() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'holder'";
    let _repaired =
        repaired(&lab, &format!("docker exec vrc-shift-db psql -Xq -U vrcshift -d vrcshift -c \"{ended}\""));
    session(&lab, "holder", &["BEGIN", "LOCK TABLE shifts", "SELECT pg_sleep(900)"]);
    let is = |what: &str| {
        let sql = format!("SELECT 1 FROM pg_stat_activity WHERE {what}");
        lab.until(what, 20, &format!("docker exec vrc-shift-db psql -XAtq -U vrcshift -c \"{sql}\" | grep -qx 1"));
    };
    is("application_name = 'holder' AND query LIKE '%pg_sleep%' AND state = 'active'");
    lab.sh("curl -s -m 1 http://127.0.0.1:8080/api/v1/shifts || :");
    // A moment's wait is no cause.
    is("application_name = 'vrc-shift' AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > '10 s'");
    let opsh = Opsh::new(&lab);
    // The lab's own look at the rows would wait, too.
    let ran = opsh.run(&["--json", "scripts/troubleshoot.rhai", "db"]).exits(1);
    let error: Value = serde_json::from_str(ran.err.lines().last().unwrap()).unwrap();
    let first = &error["results"][0];
    assert_eq!((&first["cause"], &first["level"]), (&json!("db_blocked"), &json!("likely")), "{error:#}");
    assert!(first["evidence"].to_string().contains("of holder, active"), "{first:#}");
    let line = first["next"][0].as_str().unwrap().split("     ").next().unwrap();
    opsh.run(&["--yes", "-e", line]).exits(0);
    lab.until("the API answers", 30, "curl -sf -o /dev/null http://127.0.0.1:8080/api/v1/shifts");
}

#[test]
fn migrations_that_stopped_half_way() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let bad = lab.release("BAD");
    let _repaired = repaired(&lab, "");
    // An up of two, whose session is ended in the second: the first one stays.
    up(&lab, &format!("git checkout -q {}; {COMPOSE} build backend", bad.commit));
    lab.until("the backend answers", 30, "curl -s -o /dev/null http://127.0.0.1:8080/health");
    lab.sh("docker exec vrc-shift-backend sh -c 'echo 3000 >/app/migrate-sleep'; docker exec -d vrc-shift-backend /app/migrate -action=up");
    let second = "state = 'idle in transaction' AND query LIKE '%RENAME COLUMN%'";
    // OFFSET keeps the one function from being asked of other sessions first.
    let ended = format!(
        "SELECT 1 FROM (SELECT pid FROM pg_stat_activity WHERE {second} OFFSET 0) AS one WHERE pg_terminate_backend(pid)"
    );
    let ended = format!("docker exec vrc-shift-db psql -XAtq -U vrcshift -d vrcshift -c \"{ended}\" | grep -qx 1");
    lab.until("the second migration is ended in its middle", 60, &ended);
    let [.., done, open] = bad.ledger[..] else { panic!("{bad:?}") };
    assert_eq!(lab.state()["ledger"].as_array().unwrap().last(), Some(&json!(done)));
    let (runs, stopped) =
        (format!("backend runs the code of {open}, and the ledger ends with {done}"), "terminating connection");
    let first = finds(&lab, "migrations", "half_applied", &[&runs, stopped]);
    assert!(!first["next"].to_string().contains("UPDATE"), "{first:#}");
}

#[test]
fn a_ledger_that_the_schema_contradicts() {
    let Some(lab) = Lab::take() else { return };
    let good = lab.have("GOOD");
    let _repaired = repaired(&lab, "");
    let [.., one, other] = good.ledger[..] else { panic!("{good:?}") };
    lab.sql(&format!("DELETE FROM schema_migrations WHERE version >= {one}"));
    let there = "column members.role is there already";
    let says = format!("{one}, {other} is not in the ledger");
    finds(&lab, "migrations", "ledger_drift", &[there, &says]);
}

#[test]
fn an_image_that_is_not_of_the_checkout() {
    let Some(lab) = Lab::take() else { return };
    let (good, added) = (lab.have("GOOD"), lab.release("ADDITIVE"));
    let _repaired = repaired(&lab, "");
    up(&lab, &format!("git checkout -q {}", added.commit));
    let lacks = format!("the checkout has migration {}, the running image does not", added.ledger.last().unwrap());
    let first = finds(&lab, "backend", "old_image", &[&lacks, &format!("version={}", good.tag)]);
    assert_eq!(first["next"][0], format!("opsh --plan scripts/deploy.rhai {}", added.tag));
}

#[test]
fn nothing_is_wrong_with_a_stack_that_is_well_and_a_host_that_is_away_is_the_cause() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    for what in ["backend", "db", "migrations"] {
        let ran = Opsh::new(&lab).run(&["--observe", "scripts/troubleshoot.rhai", what]);
        ran.exits(0)
            .prints(&[&format!("prod on prod-1, {what}: nothing wrong was found"), "fine      database: it answers"]);
    }
    let opsh = Opsh::new(&lab);
    let typed = opsh.put("typed", ":use prod\ntroubleshoot backend\n");
    opsh.run(&["--typed", &typed]).exits(0).prints(&["prod on prod-1, backend: nothing wrong was found"]);
    let away = Opsh::configured(&lab, |config| {
        let port = format!("port = {}", lab.setting("SSH_PORT"));
        config.replace(&port, "port = 1")
    });
    let ran = away.run(&["scripts/troubleshoot.rhai", "db"]).exits(1).explains(&["there is no way to prod-1"]);
    ran.prints(&["  certain   there is no way to prod-1"]);
    // Who may not use Docker sees little, and is told so.
    let viewer = Opsh::new(&lab).run(&["scripts/troubleshoot.rhai", "backend", "--stack", "prod-viewer"]).exits(1);
    viewer.prints(&["possible  the Docker Engine of prod-1-viewer does not answer this account", "unseen "]);
}
