//! What operators did wrong by the book, done on a real server: each is impossible, refused, or said before it happens.

use super::backup;
use super::deploy::{deploy, made, migration};
use super::lab::{COMPOSE, Lab};
use super::opsh::Opsh;
use super::rollback::{AGREED, roll_back};
use serde_json::{Value, json};

#[test]
fn a_look_at_migrations_applies_none_and_no_number_is_taken_for_versions() {
    let Some(lab) = Lab::take() else { return };
    let added = lab.have("ADDITIVE");
    let (opsh, newest) = (Opsh::new(&lab), *added.ledger.last().unwrap());
    let _row = lab.afterwards(&format!(
        "docker exec vrc-shift-db psql -Xq -U vrcshift -c 'INSERT INTO schema_migrations VALUES ({newest})'"
    ));
    // The ledger forgets one that was applied: this tool's answer to `version` would be to apply it again.
    lab.sql(&format!("DELETE FROM schema_migrations WHERE version = {newest}"));
    let before = lab.state();
    let state = opsh.eval("stack(\"prod\").migration_state()");
    assert_eq!((&state["preset"], &state["dirty"]), (&json!("vrcshift"), &Value::Null), "this tool has no such mark");
    assert_eq!(state["pending"], json!([newest]));
    let table = opsh.eval("stack(\"prod\").migrations()");
    let row = table.as_array().unwrap().last().unwrap();
    assert_eq!((&row["state"], &row["drift"]["x"]), (&json!("DRIFT"), &Value::Null), "{row}");
    assert!(row["drift"].as_str().unwrap().contains("column shifts.note is there already"), "{row}");
    let reset = "stack(\"prod\").db.query(\"UPDATE schema_migrations SET dirty = false\")";
    opsh.run(&["--yes", "-e", reset]).exits(2).explains(&["takes SELECT"]);

    for wrong in ["1", "0", "#{ steps: 1 }", "#{ versions: [], ledger: [1], image_id: \"x\" }", "()"] {
        let line = format!("stack(\"prod\").migrate_down({wrong})");
        opsh.run(&[&AGREED[..], &["-e", &line]].concat()).exits(2).explains(&["migrate.down"]);
    }

    // Its up would fail in the middle of a deploy, with the app started all the same: it is not begun.
    let says = format!("does not have {newest}, and the schema does");
    deploy(&opsh, &["--yes"], &added.tag).exits(1).explains(&[&says, "is there already"]);
    let image = &before["images"]["backend"];
    let plan = json!({ "versions": [newest], "ledger": before["ledger"], "image_id": image });
    let line = format!("stack(\"prod\").migrate_up(#{plan})");
    opsh.run(&["--yes", "-e", &line]).exits(1).explains(&["the schema has parts of them", "is there already"]);
    assert_eq!(lab.state(), before);
}

#[test]
fn a_tool_that_is_not_in_the_image_is_missed_before_anything_is_begun() {
    let Some(lab) = Lab::take() else { return };
    let good = lab.have("GOOD");
    let own = "preset = \"vrcshift\", down = [\"/app/nope\", \"{n}\"]";
    let opsh = Opsh::configured(&lab, |config| config.replace("preset = \"vrcshift\"", own));
    let before = lab.state();
    let image = &before["images"]["backend"];
    let plan = json!({ "versions": [good.ledger[3]], "ledger": good.ledger, "image_id": image });
    let line = format!("stack(\"prod\").migrate_down(#{plan})");
    opsh.run(&[&AGREED[..], &["-e", &line]].concat()).exits(1).explains(&["has no program /app/nope"]);
    assert_eq!(lab.state(), before);
}

#[test]
fn a_tarball_over_the_checkout_is_seen_and_commits_are_judged_by_the_repository() {
    let Some(lab) = Lab::take() else { return };
    let good = lab.have("GOOD");
    let (bad, old, opsh) = (lab.release("BAD"), lab.release("OLD"), Opsh::new(&lab));
    let _clean = lab.afterwards("git -C /opt/vrcshift checkout -qf -- .; git -C /opt/vrcshift clean -fdq");
    lab.sh(&format!("cd /opt/vrcshift; git archive {} | tar x", bad.commit));
    let before = lab.state();
    let status = opsh.eval("stack(\"prod\").repo.status()");
    assert_eq!(status["clean"], json!(false));
    let known = opsh.eval("let p = stack(\"prod\"); p.versions_at(p.repo.head().commit)");
    assert_eq!(known, json!(good.ledger), "the files that lie there are of another commit");
    let said = ["the checkout has changes that a checkout would meet", "backend/VERSION"];
    roll_back(&opsh, &AGREED, &old.tag).exits(1).explains(&said);
    deploy(&opsh, &AGREED, &bad.tag).exits(1).explains(&said);
    assert_eq!(lab.state(), before);
}

#[test]
fn a_release_that_only_origin_has_is_named_with_the_line_that_fetches_it() {
    let Some(lab) = Lab::take() else { return };
    let good = lab.have("GOOD");
    let opsh = Opsh::new(&lab);
    let _made = made(&lab, &good, "just-tagged", "");
    lab.exec(&["git", "-C", "/opt/vrcshift", "tag", "-d", "just-tagged"]);
    let line = "host(\"prod-1\").run([\"git\",\"-C\",\"/opt/vrcshift\",\"fetch\",\"origin\",\"tag\",\"just-tagged\"])";
    deploy(&opsh, &["--yes"], "just-tagged").exits(1).explains(&["origin has it", line]);
    opsh.run(&["--yes", "-e", line]).exits(0);
    deploy(&opsh, &["--plan"], "just-tagged").exits(0).prints(&["Deploy just-tagged to prod"]);
    assert_eq!(lab.state()["head"], good.commit.as_str());
}

#[test]
fn what_empties_a_host_is_no_look() {
    let Some(lab) = Lab::take() else { return };
    let (opsh, volumes) = (Opsh::new(&lab), || lab.exec(&["docker", "volume", "ls", "-q"]));
    let before = volumes();
    for words in ["docker system prune -a -f --volumes", "docker volume prune -f", "docker-compose down -v"] {
        let words = json!(words.split(' ').collect::<Vec<_>>());
        opsh.run(&["--yes", "-e", &format!("host(\"prod-1\").read({words})")]).exits(2).explains(&["use host.run"]);
        opsh.run(&["-e", &format!("host(\"prod-1\").run({words})")]).exits(3).explains(&["--yes"]);
    }
    assert_eq!(volumes(), before);
}

#[test]
fn a_recreate_uses_the_file_of_the_configuration_whatever_else_lies_there() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let (opsh, before) = (Opsh::new(&lab), lab.state());
    let _env = lab.afterwards("rm -f /opt/vrcshift/.env /opt/vrcshift/docker-compose.override.yml");
    lab.sh("cd /opt/vrcshift; printf 'COMPOSE_FILE=docker-compose.yml\\nCOMPOSE_PROJECT_NAME=other\\n' >.env; \
         printf 'services:\\n  backend:\\n    environment: { FROM: override }\\n' >docker-compose.override.yml");
    for line in ["recreate(\"backend\", #{ files: [\"docker-compose.yml\"] })", "recreate(\"docker-compose.yml\")"] {
        let ran = opsh.run(&["--yes", "-e", &format!("stack(\"prod\").{line}")]);
        assert!(matches!(ran.code, Some(1 | 2)), "{line}: {ran:?}");
    }
    assert_eq!(lab.state()["containers"], before["containers"]);
    opsh.run(&["--yes", "-e", "stack(\"prod\").recreate(\"backend\")"]).exits(0);
    let label = "{{index .Config.Labels \"com.docker.compose.project.config_files\"}}";
    let files = lab.exec(&["docker", "inspect", "-f", label, "vrc-shift-backend"]);
    assert!(files.trim().ends_with("docker-compose.prod.yml") && !files.contains(','), "{files}");
    let env = lab.exec(&["docker", "inspect", "-f", "{{.Config.Env}}", "vrc-shift-backend"]);
    assert!(!env.contains("FROM=override"));
    lab.until("the API answers", 30, "curl -sf -o /dev/null http://127.0.0.1:8080/api/v1/shifts");
    let now = lab.state();
    assert_eq!((&now["images"], &now["containers"]["db"]), (&before["images"], &before["containers"]["db"]));
}

/// Lets the database's pg_dump be `script`, in which `$real` is the real one.
fn pg_dump(lab: &Lab, script: &str) {
    let text = format!("#!/bin/sh\nreal=$(readlink -f \"$0\").real\n{script}\n");
    lab.exec(&[
        "sh",
        "-euc",
        "p=$(docker exec vrc-shift-db sh -c 'readlink -f $(command -v pg_dump)'); \
         docker exec vrc-shift-db sh -c \"test -e $p.real || mv $p $p.real\"; \
         printf %s \"$1\" | docker exec -i vrc-shift-db sh -c \"cat >$p; chmod 755 $p\"",
        "sh",
        &text,
    ]);
}

const REAL_PG_DUMP: &str = "docker exec vrc-shift-db sh -c \
                            'p=$(readlink -f $(command -v pg_dump)); test ! -e $p.real || mv $p.real $p'";

#[test]
fn without_a_good_backup_a_rollback_stops_before_the_schema_goes_down() {
    let Some(lab) = Lab::take() else { return };
    let bad = lab.bring("BAD");
    let (good, opsh) = (lab.release("GOOD"), Opsh::new(&lab));
    let (_clean, _real) = (backup::clean(&lab), lab.afterwards(REAL_PG_DUMP));
    let before = lab.state();
    let stops = |says: &str| {
        let ran = roll_back(&opsh, &AGREED, &good.tag).exits(1).explains(&[says]);
        assert!(!ran.err.contains("→ migrate.down") && !ran.err.contains("→ docker.stop"), "{}", ran.err);
        assert_eq!(lab.state(), before, "{} still runs", bad.tag);
        assert_eq!(opsh.eval("stack(\"prod\").frozen()"), Value::Null);
        assert_eq!(lab.sql("SHOW default_transaction_read_only").trim(), "off");
        assert_eq!(lab.sh("ls -A /var/backups/opsh 2>/dev/null || :"), "", "no half file under a good name");
    };
    pg_dump(&lab, "case $* in *-V* | *--version*) exec \"$real\" \"$@\";; esac; echo 'out of luck' >&2; exit 1");
    stops("out of luck");
    pg_dump(&lab, "case $* in *-V* | *--version*) exec \"$real\" \"$@\";; esac; \"$real\" \"$@\" | head -c 3000");
    stops("backup");
}

#[test]
fn a_down_that_the_rows_may_stop_is_said_and_when_it_fails_the_release_serves_again() {
    let Some(lab) = Lab::take() else { return };
    let good = lab.bring("GOOD");
    let (opsh, version) = (Opsh::new(&lab), good.ledger.last().unwrap() + 50);
    let _rows = lab.afterwards(
        "docker exec vrc-shift-db psql -Xq -U vrcshift -c 'DELETE FROM shifts WHERE id > 3' \
         -c 'ALTER TABLE shifts ALTER COLUMN created_at SET NOT NULL'",
    );
    let _clean = backup::clean(&lab);
    let (up, down) = (
        "ALTER TABLE shifts ALTER COLUMN created_at DROP NOT NULL;",
        "ALTER TABLE shifts ALTER COLUMN created_at SET NOT NULL;",
    );
    let _made =
        made(&lab, &good, "no-way-back", &migration(version, up, &format!("-- irreversible once used\n{down}")));
    deploy(&opsh, &AGREED, "no-way-back").exits(0);
    lab.sql(&format!("INSERT INTO shifts ({}, created_at) VALUES ('without a time', NULL)", lab.setting("COLUMN")));
    let before = lab.state();

    let said = [
        "its down may fail on the rows that are there, and 1 row(s) do not fit",
        "its comment says: irreversible once used",
    ];
    roll_back(&opsh, &["--plan"], &good.tag).exits(0).prints(&said);
    assert_eq!(lab.state(), before);

    let failed = roll_back(&opsh, &AGREED, &good.tag).exits(1);
    failed.explains(&["migrations were not taken back on prod", "contains null values", "as it was before"]);
    lab.until("the API serves again", 30, "curl -sf -o /dev/null http://127.0.0.1:8080/api/v1/shifts");
    let now = lab.state();
    for fact in ["head", "dirty", "images", "ledger", "rows", "api_status"] {
        assert_eq!(now[fact], before[fact], "{fact}");
    }
    assert_eq!(opsh.eval("stack(\"prod\").frozen()"), Value::Null);

    // One that fails its probes serves some all the same: it is not left stopped either.
    let unwell = Opsh::configured(&lab, |config| config.replace("expect = 200", "expect = 204"));
    let failed = roll_back(&unwell, &AGREED, &good.tag).exits(1);
    failed.prints(&["FAILING"]).explains(&["migrations were not taken back on prod", "contains null values"]);
    lab.until("the API serves again", 30, "curl -sf -o /dev/null http://127.0.0.1:8080/api/v1/shifts");
    assert_eq!(lab.state()["images"], before["images"]);
    assert_eq!(opsh.eval("stack(\"prod\").frozen()"), Value::Null);
}

#[test]
fn a_migration_that_is_another_one_in_the_image_than_in_its_commit_is_said() {
    let Some(lab) = Lab::take() else { return };
    let bad = lab.bring("BAD");
    let (good, opsh, newest) = (lab.release("GOOD"), Opsh::new(&lab), bad.ledger.last().unwrap());
    lab.sh(&format!(
        "cd $(mktemp -d); exec 2>&1; git() {{ /usr/bin/git -C /opt/vrcshift \"$@\"; }}; \
         file=$(git ls-tree --name-only {0} backend/migrations/ | grep '/0*{newest}_.*down'); \
         {{ git show {0}:$file; echo '-- mended by hand'; }} >${{file##*/}}; \
         printf 'FROM vrcshift_backend:latest\\nLABEL org.opencontainers.image.revision={0}\\nCOPY *.sql /app/migrations/\\n' >Dockerfile; \
         DOCKER_BUILDKIT=0 docker build -q -t vrcshift_backend:latest .; cd /opt/vrcshift; {COMPOSE} up -d --no-build",
        bad.commit
    ));
    lab.until("the API answers", 30, "curl -s -o /dev/null http://127.0.0.1:8080/health");
    let said = format!("{newest} in the running image is not what commit {} has", &bad.commit[..12]);
    let plan = roll_back(&opsh, &["--plan"], &good.tag).exits(0).prints(&[&said]);
    assert_eq!(plan.out.matches("in the running image is not").count(), 1, "the other one is as it was:\n{}", plan.out);
}
