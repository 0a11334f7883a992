//! What a preflight decides, from facts that no lab can have all of, and that it ends with an answer whatever is missing.

use crate::home::Home;
use serde_json::{Value, json};

/// The rows that `std/preflight` makes of these looks, as `check STATE why`; looks that failed are `Err`.
#[track_caller]
fn judged(looks: &[(&str, Result<Value, &str>)]) -> (String, Vec<String>) {
    judged_for(Value::Null, looks)
}

/// The same, when a release is looked at, too.
#[track_caller]
fn judged_for(tag: Value, looks: &[(&str, Result<Value, &str>)]) -> (String, Vec<String>) {
    let look = |(name, result): &(&str, Result<Value, &str>)| {
        let one = match result {
            Ok(value) => json!({ "ok": true, "value": value }),
            Err(why) => json!({ "ok": false, "error": { "kind": "failed", "what": "a look", "why": why, "next": [] } }),
        };
        (name.to_string(), one)
    };
    let backup = json!({ "dir": "/var/backups/opsh", "fresh_h": 26 });
    let wants = json!({
        "files": ["compose.yml"], "env_file": ".env", "services": ["app"], "backup": backup, "cron": [], "branches": null, "probes": 0,
    });
    let seen = json!({
        "stack": "shop", "host": "h", "dir": "/srv", "tag": tag, "wants": wants, "login": null, "commit": "c".repeat(40),
        "built": ["app"], "looks": looks.iter().map(look).collect::<serde_json::Map<_, _>>(),
    });
    let home = Home::new();
    let text = serde_json::to_string(&seen.to_string()).unwrap();
    let code = format!("import \"std/preflight\" as preflight; preflight::judged(parse_json({text}))");
    let ran = home.run(&["--json", "-e", &code]).exits(0);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_string();
    let line = |row: &Value| ["check", "state", "why"].map(|key| text(row, key)).join(" ");
    (text(&report, "verdict"), report["rows"].as_array().unwrap().iter().map(line).collect())
}

/// The verdict, and the only row of `check`.
#[track_caller]
fn row(check: &str, looks: &[(&str, Result<Value, &str>)]) -> (String, String) {
    let (verdict, rows) = judged(looks);
    let mut found = rows.iter().filter(|row| row.starts_with(&format!("{check} ")));
    let row = found.next().unwrap_or_else(|| panic!("no {check} in {rows:?}")).clone();
    assert!(found.next().is_none(), "{rows:?}");
    (verdict, row)
}

#[test]
fn compose_1_is_good_for_old_engines_pinned_for_newer_ones_and_useless_for_the_newest() {
    let pair = |compose: &str, oldest: &str, newest: &str| {
        let docker = json!({ "engine": "x", "api": newest, "oldest_api": oldest });
        let config = json!({ "compose": compose, "services": { "app": { "image": "a", "builds": true, "env": [] } } });
        row("compose", &[("docker", Ok(docker)), ("config", Ok(config))]).1
    };
    assert!(pair("1.29.2", "1.12", "1.41").starts_with("compose OK"));
    assert!(pair("1.29.2", "1.24", "1.44").starts_with("compose OK"));
    let pinned = pair("1.29.2", "1.24", "1.45");
    assert!(pinned.starts_with("compose WARN") && pinned.contains("ContainerConfig"), "{pinned}");
    let refused = pair("1.29.2", "1.44", "1.52");
    assert!(refused.starts_with("compose BAD") && refused.contains("1.41"), "{refused}");
    assert!(pair("2.27.0", "1.44", "1.52").starts_with("compose OK"));
}

#[test]
fn a_backup_is_late_then_missing_and_must_outlive_a_reboot() {
    let aged = |hours: i64| {
        let one = json!({ "file": "/var/backups/opsh/a.dump", "ok": true, "why": null, "age_s": hours * 3600 });
        row("backup", &[("backups", Ok(json!([one])))]).1
    };
    assert!(aged(25).starts_with("backup OK"));
    assert!(aged(26).starts_with("backup WARN"));
    assert!(aged(52).starts_with("backup BAD"));
    let (verdict, none) = row("backup", &[("backups", Ok(json!([])))]);
    assert_eq!((verdict.as_str(), none.starts_with("backup BAD there is no backup")), ("BAD", true));

    let one = json!({ "file": "f", "ok": true, "why": null, "age_s": 60 });
    let disk = |real: &str, disk: &str| {
        let room = json!([{ "what": "backups", "dir": "/var/backups/opsh", "real": real, "disk": disk, "free_bytes": 90,
            "size_bytes": 100, "free_inodes": 0, "inodes": 0 }]);
        row("backup", &[("backups", Ok(json!([one]))), ("room", Ok(room))]).1
    };
    assert!(disk("/var/backups/opsh", "ext2/ext3").starts_with("backup OK"));
    assert!(disk("/tmp/dumps", "ext2/ext3").contains("emptied when the host starts"), "a link to /tmp");
    assert!(disk("/mnt/ram", "tmpfs").starts_with("backup BAD"));
}

#[test]
fn disks_are_judged_by_the_scarcer_of_bytes_and_inodes() {
    let disk = |free: i64, inodes: i64| {
        let room = json!([{ "what": "checkout", "dir": "/srv", "real": "/srv", "disk": "xfs", "free_bytes": free,
            "size_bytes": 100, "free_inodes": inodes, "inodes": 100 }]);
        row("disk", &[("room", Ok(room))]).1
    };
    assert!(disk(15, 90).starts_with("disk OK"));
    assert!(disk(14, 90).starts_with("disk WARN /srv has 14 % of its bytes"));
    assert!(disk(90, 6).starts_with("disk BAD /srv has 6 % of its inodes"));
}

#[test]
fn a_clock_is_wrong_only_by_more_than_the_question_took() {
    let clock =
        |ahead: i64, within: i64| row("clock", &[("clock", Ok(json!({ "ahead_ms": ahead, "within_ms": within })))]).1;
    assert!(clock(-2500, 600).starts_with("clock OK"));
    assert!(clock(-2500, 100).starts_with("clock WARN it is 2 s behind"));
    assert!(clock(31_000, 100).starts_with("clock BAD it is 31 s ahead"));
}

#[test]
fn a_look_that_failed_is_unknown_and_no_verdict_is_ok_over_it() {
    let (verdict, row) = row("clock", &[("clock", Err("no date here"))]);
    assert_eq!((verdict.as_str(), row.as_str()), ("WARN", "clock UNKNOWN a look: no date here"));
}

#[test]
fn an_image_of_another_commit_than_the_checkouts_is_bad_and_one_that_says_none_cannot_be_told() {
    let (here, there) = ("a".repeat(40), "b".repeat(40));
    let image = |revision: Value| {
        let head = json!({ "commit": here, "tags": ["v1"], "subject": "", "branch": null });
        let container = json!({ "revision": revision });
        row("image", &[("head", Ok(head)), ("container app", Ok(container))]).1
    };
    assert!(image(json!(here)).starts_with("image OK"));
    assert!(image(json!(null)).starts_with("image WARN"));
    let stale = image(json!(there));
    let said = format!("is of commit {}, the checkout is at {}", &there[..12], &here[..12]);
    assert!(stale.starts_with("image BAD") && stale.contains(&said), "{stale}");
}

#[test]
fn whatever_is_wrong_is_said_when_all_of_it_is_wrong_at_once() {
    let commit = |letter: &str| letter.repeat(40);
    let tree = json!({ "clean": false, "changed": ["a"], "untracked": [], "operation": "rebase", "lock_age_s": 3600,
        "only_here": [commit("d")], "shallow": true });
    let schema = json!({ "preset": "golang-migrate", "ledger": [1, 3], "pending": [2, 4], "unknown": [9], "gaps": [2],
        "drift": ["4 made t already"], "ignored": [], "holder": { "since": "06:00" },
        "dirty": { "version": 3, "reading": "failed up", "repair": "look" } });
    let listing =
        |blob: &str, file: &str| json!({ "code": 0, "out": format!("100644 blob {blob}\t{file}\n"), "err": "" });
    let lock = json!({ "held": true, "by": "bob@x", "since": "06:00", "why": "a hotfix" });
    let branches =
        json!({ "verdict": "conflicts_by_squash", "why": "w", "target": "main", "source": "develop", "repair": [] });
    let probes = json!([{ "url": "http://u/", "status": 500, "expect": 200, "ok": false, "ms": 1, "said": "" },
        { "url": "http://v/", "status": 0, "expect": 200, "ok": false, "ms": 1, "said": "refused" }]);
    let services = json!([{ "service": "app", "container": "a", "state": "running", "health": "unhealthy", "restarts": 0 },
        { "service": "job", "container": "j", "state": "exited", "health": null, "restarts": 0 }]);
    let missing = json!(["/app/batch"]);
    let (verdict, rows) = judged_for(
        json!("v2"),
        &[
            ("services", Ok(services)),
            ("probes", Ok(probes)),
            ("tag", Ok(json!({ "commit": commit("c"), "remote": commit("e"), "moved": true, "remote_error": null }))),
            ("tree", Ok(tree)),
            ("head", Ok(json!({ "commit": commit("a"), "tags": [], "branch": null }))),
            ("container app", Ok(json!({ "revision": commit("b") }))),
            ("releases", Ok(json!([{ "tag": "v2", "commit": commit("c"), "bad": "500s" }]))),
            ("kept app", Ok(Value::Null)),
            ("files now", Ok(listing("1", "compose.yml"))),
            ("files then", Ok(listing("2", "compose.yml"))),
            (
                "env",
                Ok(json!([{ "name": "A", "required": true, "fallback": false, "set": false },
            { "name": "B", "required": false, "fallback": false, "set": false }])),
            ),
            ("environment", Ok(json!([{ "service": "app", "name": "A", "state": "differs" }]))),
            ("programs app", Ok(missing.clone())),
            ("kept programs app", Ok(missing)),
            ("schema", Ok(schema)),
            ("versions", Ok(json!([1, 3, 5]))),
            ("ledger", Ok(json!([1, 3, 9]))),
            ("migrating", Ok(json!([{ "id": "one-off", "by": "bob", "at": "06:00", "run": "r" }]))),
            ("lock", Ok(lock)),
            ("frozen", Ok(json!({ "read_only": true, "by": null, "left_s": 0 }))),
            ("branches", Ok(branches)),
            ("cron", Ok(json!({ "entries": [{ "entry": "x", "found": null }], "unread": [] }))),
        ],
    );
    let found: Vec<&str> = rows.iter().map(|row| &row[..row.match_indices(' ').nth(1).unwrap().0]).collect();
    let expected = "work WARN, services BAD, services WARN, probes BAD, probes BAD, tag BAD, tree BAD, commits BAD, git BAD, git BAD, \
                    git WARN, image BAD, release BAD, release OK, files WARN, env BAD, env WARN, environment WARN, \
                    programs BAD, programs BAD, schema BAD, schema BAD, schema BAD, schema WARN, schema WARN, schema WARN, \
                    migrations WARN, migrations WARN, work BAD, work BAD, branches WARN, cron BAD";
    assert_eq!((verdict.as_str(), found.join(", ")), ("BAD", expected.to_string()), "{rows:#?}");

    let gone = [("files now", Ok(listing("1", "compose.yml"))), ("files then", Ok(listing("2", "other.yml")))];
    let (_, rows) = judged_for(json!("v2"), &gone);
    assert!(rows.iter().any(|row| row.starts_with("files BAD v2 has no compose.yml")), "{rows:?}");
}

#[test]
fn a_stack_of_which_nothing_is_there_has_a_verdict_with_rows_and_a_record() {
    let home = Home::new();
    let stack = "[stack.shop]\nhost = \"local\"\ndir = \"/nowhere/shop\"\n\
                 compose = { files = [\"compose.yml\"], project = \"shop-that-is-not-there\" }\n\
                 branches = { target = \"main\", source = \"develop\" }\ncron = [\"no job has this text\"]\n";
    home.put("opsh.toml", stack);
    let ran = home.run(&["doctor"]).exits(1);
    assert!(ran.out.starts_with("shop on local: BAD\n"), "the only stack is meant: {}", ran.out);
    assert!(ran.out.contains("\n  tree        UNKNOWN ") && ran.out.contains("\n  disk        "), "{}", ran.out);
    assert!(ran.out.contains("\n  branches    UNKNOWN ") && ran.out.contains("\n  cron        BAD "), "{}", ran.out);
    let records = home.records();
    let verdict = records.iter().find(|record| record["kind"] == "preflight").expect("it is recorded");
    assert_eq!(verdict["body"]["verdict"], "BAD");
    let ran = home.run(&["doctor", "--tag", "v1;rm"]).exits(1);
    assert!(ran.out.contains("\n  tag         BAD "), "a mistake in a name is a row: {}", ran.out);
    home.run(&["doctor", "shpo"]).exits(2).says(&["shop"]);
}

/// What `std/status` makes of these looks.
fn status(looks: Value) -> Value {
    let wants = json!({ "services": ["app"], "backup": { "dir": "/b", "fresh_h": 26 }, "probes": 1 });
    let seen = json!({ "stack": "shop", "host": "h", "wants": wants, "main": "app", "login": null, "looks": looks });
    let home = Home::new();
    let text = serde_json::to_string(&seen.to_string()).unwrap();
    let code = format!("import \"std/status\" as status; status::judged(parse_json({text}))");
    serde_json::from_str(&home.run(&["--json", "-e", &code]).exits(0).out).unwrap()
}

#[test]
fn the_one_screen_puts_bad_before_warn_and_stays_one_screen_whatever_is_wrong() {
    let session = |pid: i64, by: i64| json!({ "pid": pid, "for_s": 100, "blocked_by": [by], "state": "active" });
    let sessions: Vec<Value> = (0..30).map(|pid| session(pid, 100 + pid)).collect();
    let row = |at: usize| json!({ "service": format!("s{at}"), "state": "running", "health": null, "since": "x".repeat(99), "restarts": 9 });
    let mut services: Vec<Value> = (0..9).map(row).collect();
    services.push(json!({ "service": "app", "state": "restarting", "health": null, "since": "Up", "restarts": 9 }));
    let failed = json!({ "ok": false, "error": { "kind": "failed", "what": "a look", "why": "no\nluck", "next": [] } });
    let report = status(json!({
        "sessions": { "ok": true, "value": sessions }, "services": { "ok": true, "value": services },
        "container app": { "ok": true, "value": { "oom": true, "exit": 137 } }, "room": failed,
    }));
    let lines: Vec<String> = serde_json::from_value(report["lines"].clone()).unwrap();
    assert!(lines.len() <= 24 && lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
    assert_eq!(lines[1], "  BAD   app is restarting, exit code 137, killed for lack of memory");
    assert!(lines.iter().any(|line| line.starts_with("  … and ")), "{lines:#?}");
    assert!(lines.contains(&"  disk      could not look: no".to_string()), "{lines:#?}");
    assert_eq!(report["verdict"], "BAD");

    let waits = status(json!({ "sessions": { "ok": true, "value": [session(7, 9)] } }));
    assert_eq!(
        (&waits["verdict"], &waits["wrong"][0]["why"]),
        (&json!("WARN"), &json!("session 7 waits 100 s for a lock of session 9"))
    );
}
