//! The first look at a server: what is well is said to be, and each trap is a row of its own, all of them at once.

use super::lab::{COMPOSE, Lab};
use super::opsh::Opsh;
use super::rollback::roll_back;
use serde_json::Value;

/// The report that a run of `opsh --json doctor` left on either stream, by its exit code.
fn report(opsh: &Opsh<'_>, words: &[&str], code: i32) -> Vec<Value> {
    let ran = opsh.run(&[&["--json", "doctor"], words].concat()).exits(code);
    let rows = match code {
        0 => serde_json::from_str::<Value>(&ran.out).unwrap()["rows"].clone(),
        _ => {
            let last = ran.err.lines().last().unwrap();
            serde_json::from_str::<Value>(last).unwrap()["results"].clone()
        }
    };
    rows.as_array().unwrap_or_else(|| panic!("no rows: {ran:?}")).clone()
}

/// `check STATE` of each row that is not OK.
fn not_ok(rows: &[Value]) -> Vec<String> {
    let word = |row: &Value| format!("{} {}", row["check"].as_str().unwrap(), row["state"].as_str().unwrap());
    rows.iter().filter(|row| row["state"] != "OK").map(word).collect()
}

/// Every row of this check in one text.
fn of(rows: &[Value], check: &str) -> String {
    rows.iter().filter(|row| row["check"] == check).map(|row| format!("{row}\n")).collect()
}

/// What the disk's row has to say: the lab's disk is this machine's own, whose room is no matter of the test.
fn disk(lab: &Lab) -> &'static str {
    let df = lab.sh("df -B1 --output=avail,size,iavail,itotal /opt/vrcshift /var/lib/docker /var/backups | tail -n +2");
    let per_cent = |line: &str| {
        let [free, size, inodes, of]: [u64; 4] =
            std::array::from_fn(|at| line.split_whitespace().nth(at).unwrap().parse().unwrap());
        (free * 100 / size).min((inodes * 100).checked_div(of).unwrap_or(100))
    };
    match df.lines().map(per_cent).min().unwrap() {
        0..7 => panic!("this machine's disk is full: {df}"),
        7..15 => "WARN",
        _ => "OK",
    }
}

const BACKUPS: &str = "/var/backups/opsh";

#[test]
fn a_healthy_server_is_said_to_be_one_and_a_stack_that_is_down_is_still_looked_at() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let opsh = Opsh::new(&lab);
    let _backups = lab.afterwards(&format!("rm -rf {BACKUPS}"));
    opsh.run(&["--yes", "-e", "stack(\"prod\").backup()"]).exits(0);
    let looks = "[stack(\"prod\").room().len(), stack(\"prod\").clock().ahead_ms]";
    let seen = opsh.eval(looks);
    assert!(seen[0] == 3 && seen[1].as_i64().unwrap().abs() < 60_000, "{seen}");
    opsh.run(&["-e", "stack(\"prod\").cron()"]).exits(2).explains(&["no cron entries"]);
    // An image that was built by hand says no commit; nothing else is wrong.
    let rows = report(&opsh, &[], 0);
    let room = disk(&lab);
    assert!(of(&rows, "disk").contains(room), "{rows:#?}");
    let but_the_disk = |rows: &[Value]| not_ok(rows).into_iter().filter(|row| row != "disk WARN").collect::<Vec<_>>();
    assert_eq!(but_the_disk(&rows), ["image WARN"], "{rows:#?}");
    let good = lab.release("GOOD");
    let rows = report(&opsh, &["prod", "--tag", &good.tag], 0);
    assert_eq!(but_the_disk(&rows), ["image WARN"], "{rows:#?}");
    opsh.run(&["doctor"]).exits(0).prints(&["prod on prod-1: WARN", "docker      OK", "backup      OK"]);
    let records = opsh.journal("last");
    let verdict = records.iter().find(|record| record["kind"] == "preflight").expect("it is recorded");
    assert_eq!(verdict["body"]["verdict"], "WARN");
    assert_eq!(opsh.changes("last"), [""; 0], "it only looks");

    let _up = lab.afterwards(&format!("cd /opt/vrcshift; exec 2>&1; {COMPOSE} up -d"));
    lab.sh(&format!("cd /opt/vrcshift; exec 2>&1; {COMPOSE} rm -sf backend"));
    let rows = report(&opsh, &[], 1);
    assert!(of(&rows, "services").contains("backend has no container"), "{rows:?}");
    assert!(of(&rows, "image").contains("UNKNOWN"), "{rows:?}");
    assert_eq!(not_ok(&rows)[..2], ["services BAD", "probes BAD"]);
    assert!(of(&rows, "tree").contains("\"OK\"") && of(&rows, "backup").contains("\"OK\""), "{rows:?}");
}

#[test]
fn every_trap_is_a_row_that_names_the_fact_and_what_to_type() {
    let Some(lab) = Lab::take() else { return };
    lab.bring("ADDITIVE");
    let _backups = super::backup::clean(&lab);
    let (good, additive, old) = (lab.release("GOOD"), lab.release("ADDITIVE"), lab.release("OLD"));
    // An image that says its commit.
    roll_back(&Opsh::new(&lab), &["--yes"], &good.tag).exits(0);
    let opsh = Opsh::configured(&lab, |config| {
        let config = config.replace("\"/app/migrate\"]", "\"/app/migrate\", \"/app/forgotten\"]");
        let cron = "\ncron = [\"/app/batch -job=expire\", \"/app/batch -job=remind\"]\n\n[stack.prod-key]";
        config.replace("\n[stack.prod-key]", cron)
    });
    let bare = "/srv/git/vrcshift.git";
    let _clean = lab.afterwards(&format!(
        "rm -rf {BACKUPS} /etc/cron.d/shop; git -C {bare} tag -f {tag} {commit}; cd /opt/vrcshift; \
         git checkout -q -f --detach {}; mv .env.was .env.prod",
        good.commit,
        tag = additive.tag,
        commit = additive.commit,
    ));
    lab.sh("cp /opt/vrcshift/.env.prod /opt/vrcshift/.env.was; echo .env.was >>/opt/vrcshift/.git/info/exclude");
    opsh.run(&["--yes", "-e", "stack(\"prod\").backup()"]).exits(0);
    lab.sh(&format!(
        "cd {BACKUPS}; file=$(ls *.dump); old=$(echo $file | sed 's/-2[0-9]*T[0-9]*Z-/-20200101T000000Z-/')
         mv $file $old; mv $file.json $old.json
         mkdir -p /etc/cron.d; echo '5 4  * * * root  docker exec b /app/batch -job=expire' >/etc/cron.d/shop
         echo '#5 5 * * * root docker exec b /app/batch -job=remind' >>/etc/cron.d/shop
         git -C {bare} tag -f {tag} {old_commit}
         cd /opt/vrcshift; echo '# by hand' >>backend/Dockerfile
         git -c user.name=t -c user.email=t@t commit -q --allow-empty -m 'a fix that was made here'
         sed -i /^JWT_SECRET/d .env.prod",
        tag = additive.tag,
        old_commit = old.commit,
    ));
    let newest = *good.ledger.last().unwrap();
    lab.sql(&format!("DELETE FROM schema_migrations WHERE version = {newest}"));
    let rows = report(&opsh, &["prod", "--tag", &additive.tag], 1);
    lab.sql(&format!("INSERT INTO schema_migrations (version) VALUES ({newest})"));

    for (check, facts) in [
        ("tag", &["BAD", "was moved", &old.commit[..12], &additive.commit[..12]][..]),
        ("tree", &["BAD", "backend/Dockerfile"]),
        ("commits", &["BAD", "1 commit(s) are on the server and nowhere else", "\\\"push\\\""]),
        ("image", &["BAD", &good.commit[..12], "it was checked out, but not built"]),
        ("env", &["BAD", "JWT_SECRET", "/opt/vrcshift/.env.prod"]),
        ("compose", &["BAD", "JWT_SECRET"]),
        ("programs", &["BAD", "lacks /app/forgotten"]),
        ("schema", &["BAD", &newest.to_string()]),
        ("cron", &["BAD", "/app/batch -job=remind"]),
        ("backup", &["BAD", "20200101T000000Z", "scripts/backup.rhai"]),
        ("migrations", &["WARN"]),
        ("docker", &["OK"]),
        ("services", &["OK"]),
        ("disk", &[disk(&lab)]),
        ("clock", &["OK"]),
    ] {
        let said = of(&rows, check);
        for fact in facts {
            assert!(said.contains(fact), "{check}: no {fact:?} in {said:?} of {:#?}", rows);
        }
    }
    assert!(!of(&rows, "cron").contains("expire"), "that one is there: {}", of(&rows, "cron"));
}
