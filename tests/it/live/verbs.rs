//! The verbs that a rollback does not use, each performed once against the real thing.

use super::lab::Lab;
use super::opsh::Opsh;
use serde_json::{Value, json};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

#[test]
fn restart_stops_and_starts_the_same_container() {
    let Some(lab) = Lab::take() else { return };
    lab.have("BAD");
    let (opsh, before) = (Opsh::new(&lab), lab.state());
    let started = || lab.exec(&["docker", "inspect", "-f", "{{.State.StartedAt}}", "vrc-shift-backend"]);
    let first = started();
    let line = "stack(\"prod\").restart(\"backend\", 5)";
    opsh.run(&["-e", line]).exits(3).explains(&["--yes"]);
    assert_eq!(started(), first);
    let ran = opsh.run(&["--yes", "--json", "-e", line]).exits(0);
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap()["changed"], true);
    assert_ne!(started(), first);
    lab.until("the API answers", 30, "curl -s -o /dev/null http://127.0.0.1:8080/health");
    assert_eq!(lab.state(), before);

    let db = "stack(\"prod\").restart(\"db\", 5)";
    opsh.run(&["--yes", "-e", db]).exits(3).explains(&["--allow docker.restart"]);
    opsh.run(&["--yes", "-e", "stack(\"prod\").restart(\"bakend\", 5)"])
        .exits(1)
        .explains(&["did you mean \"backend\"?"]);
    opsh.run(&["--yes", "-e", "stack(\"prod\").restart(\"backend\", 601)"]).exits(2).explains(&["0 to 600"]);
    assert_eq!(lab.state(), before);
}

#[test]
fn looking_at_containers_images_and_logs() {
    let Some(lab) = Lab::take() else { return };
    lab.have("BAD");
    let (opsh, state) = (Opsh::new(&lab), lab.state());
    let logs = opsh.eval("stack(\"prod\").logs(\"backend\", #{ tail: 4 })");
    assert_eq!(logs.as_array().unwrap().len(), 4);
    assert!(logs.to_string().contains("HTTP request"), "{logs}");
    let some = opsh.eval("stack(\"prod\").logs(\"backend\", #{ tail: 1000, since_s: 3 })");
    let earliest = lab.exec(&["date", "-u", "-d", "9 seconds ago", "+%Y-%m-%dT%H:%M:%S"]);
    let found = opsh.eval("stack(\"prod\").logs(\"backend\", #{ grep: \"Starting server\", tail: 1 })");
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert!(text(&found[0]["text"]).contains("Starting server"), "{found}");
    let old: Vec<&str> =
        some.as_array().unwrap().iter().map(|line| text(&line["at"])).filter(|at| *at < earliest.trim()).collect();
    assert!(old.is_empty(), "older than 3 s: {old:?}");

    let image = opsh.eval("stack(\"prod\").image(\"vrcshift_backend:latest\")");
    assert_eq!(image["id"], state["images"]["backend"]);
    assert!(image["size_bytes"].as_i64().unwrap() > 1_000_000, "{image}");
    assert_eq!(opsh.eval("stack(\"prod\").image(\"vrcshift_backend:none\")"), Value::Null);

    let container = opsh.eval("stack(\"prod\").container(\"backend\")");
    assert_eq!(container["id"], state["containers"]["backend"]);
    let keys = container["env"].as_array().unwrap();
    assert!(keys.contains(&json!("JWT_SECRET")) && keys.contains(&json!("DATABASE_URL")), "{container}");

    let code =
        "let p = stack(\"prod\"); p.missing_files(p.container(\"backend\").image_id, [\"/app/server\", \"/app/nope\"])";
    assert_eq!(opsh.eval(code), json!(["/app/nope"]));
    let listed = opsh.eval("stack(\"prod\").read(\"backend\", [\"ls\", \"/app\"]).out");
    assert!(text(&listed).lines().any(|name| name == "server"), "{listed}");
    let set = opsh.run(&["-e", "stack(\"prod\").read(\"backend\", [\"env\"]).out"]).exits(0);
    assert!(set.out.contains("JWT_SECRET=•••#"), "{}", set.out);
    opsh.run(&["-e", "stack(\"prod\").read(\"backend\", [\"rm\", \"/x\"])"])
        .exits(2)
        .explains(&["rm is not on the list of reads"]);
    let found = opsh.eval("host(\"prod-1\").stacks()");
    let files = json!(["docker-compose.prod.yml"]);
    let db = json!({ "service": "db", "user": "vrcshift", "name": "vrcshift" });
    let known = json!([{ "project": "vrcshift", "dir": "/opt/vrcshift", "files": files, "env_file": ".env.prod",
                        "services": ["backend", "db"], "db": db }]);
    assert_eq!(found, known);
    let engine = opsh.eval("stack(\"prod\").docker()");
    assert_eq!(text(&engine["engine"]), lab.exec(&["docker", "version", "-f", "{{.Server.Version}}"]).trim());

    let facts = opsh.eval("stack(\"prod\").facts()");
    let backend = &facts["services"]["backend"];
    assert_eq!((&backend["container"], &backend["state"]), (&state["containers"]["backend"], &json!("running")));
    let newest = lab.release("BAD").ledger.last().copied();
    assert_eq!(facts["ledger"], json!({ "newest": newest, "applied": 6, "dirty": false }));
    assert_eq!((&facts["probes"][0]["status"], &facts["unknown"]), (&json!(500), &json!({})));
    assert!(facts["connections"].as_i64() >= Some(1) && facts["disk_free"].as_i64() > Some(1 << 20), "{facts}");

    let config = opsh.eval("stack(\"prod\").config()");
    assert_eq!(config["services"]["backend"]["image"], "vrcshift_backend:latest");
    assert_eq!(config["services"]["backend"]["builds"], true);
}

#[test]
fn a_read_in_a_container_that_is_given_up_ends_there() {
    let Some(lab) = Lab::take() else { return };
    lab.have("BAD");
    let opsh = Opsh::new(&lab);
    let line = "stack(\"prod\").read(\"backend\", [\"tail\", \"-f\", \"/etc/hostname\"], #{ within_s: 3 })";
    let ran = opsh.run(&["--observe", "-e", line]).exits(1).explains(&["not done within 3 s"]);
    assert!(!ran.err.contains("still runs"), "{}", ran.err);
    let runs = lab.exec(&["docker", "top", "vrc-shift-backend"]);
    assert!(!runs.contains("tail"), "{runs}");
}

#[test]
fn the_table_of_migrations_is_made_of_the_ledger_and_the_image() {
    let Some(lab) = Lab::take() else { return };
    let bad = lab.have("BAD");
    let opsh = Opsh::new(&lab);
    let _ghost = lab.afterwards(
        "docker exec vrc-shift-db psql -U vrcshift -c 'DELETE FROM schema_migrations WHERE version = 9999'",
    );
    assert_eq!(opsh.eval("stack(\"prod\").ledger()"), json!(bad.ledger));
    lab.sql("INSERT INTO schema_migrations VALUES (9999)");
    let table = opsh.eval("stack(\"prod\").migrations()");
    let rows = table.as_array().unwrap();
    let states: Vec<&str> = rows.iter().map(|row| text(&row["state"])).collect();
    let mut expected = vec!["APPLIED"; 6];
    expected.push("UNKNOWN HERE");
    assert_eq!(states, expected);
    let additive: Vec<bool> = rows.iter().map(|row| row["additive"] == true).collect();
    assert_eq!(additive[4..], [true, false, false], "{table}");
    assert!(text(&rows[5]["does"]).contains(lab.setting("COLUMN_NEW")), "{table}");

    lab.sql("UPDATE shifts SET note = 'x' WHERE id = 2");
    let code = format!("stack(\"prod\").down_losses([{}])", bad.ledger[4]);
    assert_eq!(opsh.eval(&code), json!([{"version": bad.ledger[4], "what": "column shifts.note", "rows": 1}]));
    lab.sql("UPDATE shifts SET note = NULL");
    assert_eq!(opsh.eval(&code), json!([]));
}

#[test]
fn a_program_in_a_container_is_a_change_whose_failure_says_what_it_said() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let opsh = Opsh::new(&lab);
    let exec = |sql: &str| {
        let words = json!(["psql", "-qX", "-U", "vrcshift", "-d", "vrcshift", "-c", sql]);
        format!("stack(\"prod\").exec(\"db\", {words})")
    };
    let gone = lab.afterwards("docker exec vrc-shift-db psql -Xq -U vrcshift -c 'DROP TABLE IF EXISTS was_here'");
    opsh.run(&["-e", &exec("CREATE TABLE was_here ()")]).exits(3).explains(&["--yes"]);
    opsh.run(&["--yes", "-e", &exec("CREATE TABLE was_here ()")]).exits(0);
    assert_eq!(lab.sql("SELECT count(*) FROM was_here").trim(), "0");
    opsh.run(&["--yes", "-e", &exec("SELECT 1 / 0")]).exits(1).explains(&["exit code 1", "division by zero"]);
    opsh.run(&["--yes", "-e", "stack(\"prod\").exec(\"db\", [\"none-such\"])"]).exits(1).explains(&["none-such"]);
    drop(gone);
}

#[test]
fn a_query_takes_any_value_as_a_value() {
    let Some(lab) = Lab::take() else { return };
    let (opsh, before) = (Opsh::new(&lab), lab.state());
    let hostile = [
        "'; DROP TABLE shifts; --",
        "\\! touch /tmp/owned",
        "x\n\\! touch /tmp/owned\n",
        "a\\'; \\q",
        ":'p0' :p0 :\"q\"",
        "$$ $1 $tag$",
        "日本 \u{202e} \t \r end",
        "`touch /tmp/owned`",
    ];
    for value in hostile {
        let script =
            opsh.put("query.rhai", &format!("stack(\"prod\").db.query(\"SELECT $1::text AS v\", [{}])", json!(value)));
        let ran = opsh.run(&["--json", &script]).exits(0);
        let rows: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(rows, json!([{ "v": value }]), "{value:?}");
    }
    let typed = "stack(\"prod\").db.query(\"SELECT $1::int + 1 AS a, $2::bool AS b, $3::text AS c, id FROM shifts \
                 WHERE id = $1\", [2, true, ()])";
    assert_eq!(opsh.eval(typed), json!([{ "a": 3, "b": true, "c": null, "id": 2 }]));
    assert_eq!(opsh.eval("stack(\"prod\").db.query(\"SELECT 1 AS one; \")"), json!([{ "one": 1 }]));
    assert!(!lab.is("docker exec vrc-shift-db test -e /tmp/owned") && !lab.is("test -e /tmp/owned"));
    assert_eq!(lab.state(), before);
}

#[test]
fn a_query_cannot_write_whatever_it_says() {
    let Some(lab) = Lab::take() else { return };
    let (opsh, before) = (Opsh::new(&lab), lab.state());
    let sequence = || lab.sql("SELECT last_value FROM shifts_id_seq");
    let last = sequence();
    let read_only = [
        "SELECT nextval('shifts_id_seq')",
        "WITH gone AS (DELETE FROM shifts RETURNING *) SELECT * FROM gone",
        "SELECT set_config('transaction_read_only', 'off', true), nextval('shifts_id_seq')",
        "SELECT * INTO stolen FROM shifts",
        "SELECT id FROM shifts FOR UPDATE",
    ];
    let tail = ") AS opsh; COMMIT; DROP TABLE shifts; SELECT 1 FROM (SELECT 1";
    // What ends a string, a comment or a name for the server, and not for one who reads less carefully.
    let smuggled = [
        format!("SELECT 1 AS a{tail}"),
        format!("SELECT E'\\'' AS a{tail} --'"),
        format!("SELECT 1 AS a --\r{tail}"),
        format!("SELECT 1 AS a$b${tail} --$b$"),
        format!("SELECT 1 AS a /* /* */ */{tail}"),
        format!("SELECT 'a' AS a{tail} AS \"'\""),
    ];
    for sql in read_only.into_iter().map(String::from).chain(smuggled) {
        let script = opsh.put("query.rhai", &format!("stack(\"prod\").db.query({})", json!(sql)));
        let ran = opsh.run(&[&script]);
        assert!(matches!(ran.code, Some(1 | 2)), "{sql}: {ran:?}");
        assert!(
            lab.is("docker exec vrc-shift-db psql -XAtq -U vrcshift -c 'SELECT 1 FROM shifts LIMIT 1' | grep -qx 1"),
            "{sql}"
        );
    }
    for sql in ["DROP TABLE shifts", "COMMIT", "\\! id", "COPY shifts TO PROGRAM 'id'", ""] {
        let code = format!("stack(\"prod\").db.query({})", json!(sql));
        opsh.run(&["-e", &code]).exits(2).explains(&["takes SELECT"]);
    }
    // PostgreSQL before 16 lets a READ ONLY transaction make a large object.
    let large = || lab.sql("SELECT count(*) FROM pg_largeobject_metadata");
    let made = large();
    opsh.run(&["-e", "stack(\"prod\").db.query(\"SELECT lo_create(0)\")"]);
    assert_eq!(large(), made);
    let loaded = || lab.sql("SELECT pg_conf_load_time()");
    let was = loaded();
    for sql in ["SELECT pg_reload_conf()", "SELECT count(*) FROM shifts HAVING pg_reload_conf()"] {
        let code = format!("stack(\"prod\").db.query({})", json!(sql));
        opsh.run(&["--observe", "-e", &code])
            .exits(2)
            .explains(&["it may call pg_catalog.pg_reload_conf", "runs it as a change"]);
    }
    assert_eq!(loaded(), was);
    let ran = opsh.run(&["-e", "stack(\"prod\").db.query(\"SELECT nope FROM shifts\")"]).exits(1);
    ran.explains(&["column \"nope\" does not exist"]);
    assert_eq!((sequence(), lab.state()), (last, before));
}

#[test]
fn http_is_asked_from_the_host_and_from_here() {
    let Some(lab) = Lab::take() else { return };
    lab.have("BAD");
    let opsh = Opsh::new(&lab);
    let there = opsh.eval("host(\"prod-1\").http(\"http://127.0.0.1:8080/health\")");
    assert_eq!((&there["status"], text(&there["body"])), (&json!(200), "{\"status\":\"ok\"}"));
    let url = format!("http://127.0.0.1:{}", lab.setting("API_PORT"));
    let here = opsh.eval(&format!("http::get(\"{url}/api/v1/shifts\")"));
    assert_eq!(here["status"], 500);
    assert!(here["total_ms"].as_f64().unwrap() > 0.0, "{here}");
    let probes = opsh.eval("stack(\"prod\").probe()");
    assert_eq!((&probes[0]["status"], &probes[0]["ok"]), (&json!(500), &json!(false)));
    opsh.run(&["-e", "host(\"prod-1\").http(\"http://127.0.0.1:1/\")"]).exits(1).explains(&[]);
    let wait = "stack(\"prod\").wait_healthy(#{ within_s: 1 })";
    opsh.run(&["-e", wait]).exits(1).explains(&["answers 500 instead of 200"]);
}

#[test]
fn the_repository_of_a_stack_answers_without_being_changed() {
    let Some(lab) = Lab::take() else { return };
    let bad = lab.have("BAD");
    let (opsh, good, before) = (Opsh::new(&lab), lab.release("GOOD"), lab.state());
    let head = opsh.eval("stack(\"prod\").repo.head()");
    assert_eq!(
        (&head["commit"], &head["tags"], &head["branch"]),
        (&json!(bad.commit), &json!([bad.tag]), &Value::Null)
    );
    let tags = opsh.eval("host(\"prod-1\").repo(\"/opt/vrcshift\").tags(2)");
    let named: Vec<&str> = tags.as_array().unwrap().iter().map(|tag| text(&tag["tag"])).collect();
    assert_eq!(named, [&bad.tag, lab.setting("TAG_ADDITIVE")]);
    assert_eq!((&tags[0]["commit"], &tags[0]["kind"]), (&json!(bad.commit), &json!("annotated")));
    let found = opsh.eval(&format!("stack(\"prod\").repo.resolve(\"{}\")", good.tag));
    assert_eq!(
        (&found["commit"], &found["remote"], &found["moved"]),
        (&json!(good.commit), &json!(good.commit), &json!(false))
    );
    let status = opsh.eval("stack(\"prod\").repo.status()");
    assert_eq!(
        (&status["clean"], &status["operation"], &status["only_here"]),
        (&json!(true), &Value::Null, &json!([]))
    );
    let files = opsh.eval(&format!("stack(\"prod\").repo.files(\"{}\", \"backend/migrations\")", good.commit));
    assert_eq!(files.as_array().unwrap().len(), 2 * good.ledger.len());
    let has = format!(
        "let r = stack(\"prod\").repo; [r.has_file(\"{0}\", \"backend/VERSION\"), r.has_file(\"{0}\", \"nope\")]",
        good.commit
    );
    assert_eq!(opsh.eval(&has), json!([true, false]));
    assert_eq!(lab.state(), before);
}

#[test]
fn words_for_a_host_stay_words() {
    let Some(lab) = Lab::take() else { return };
    let opsh = Opsh::new(&lab);
    let words = ["a b", "$(touch /tmp/owned)", "; id", "'q\"", "*", "", "-n", "日本", "line\nline"];
    let shown: String = words.iter().map(|word| format!("{word}|")).collect();
    let script =
        opsh.put("sh.rhai", &format!("host(\"prod-1\").sh(\"printf '%s|' \\\"$@\\\"\", {}).after.out", json!(words)));
    let ran = opsh.run(&["--yes", "--json", &script]).exits(0);
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), json!(shown));
    let script =
        opsh.put("run.rhai", &format!("host(\"prod-1\").run([\"printf\", \"%s|\"] + {}).after.out", json!(words)));
    let ran = opsh.run(&["--yes", "--json", &script]).exits(0);
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), json!(shown));
    let read = opsh.eval("host(\"prod-1\").read([\"echo\", \"$(id)\", \"a  b\"]).out");
    assert_eq!(read, "$(id) a  b\n");
    assert!(!lab.is("test -e /tmp/owned"));
    assert_eq!(lab.sh("ls -A /root/.local/state/opsh/runs 2>/dev/null || :"), "", "the runs are forgotten");

    let fails = "host(\"prod-1\").run([\"sh\", \"-c\", \"echo out of luck >&2; exit 7\"])";
    opsh.run(&["--yes", "-e", fails]).exits(1).explains(&["exit code 7: out of luck"]);
    opsh.run(&["--yes", "-e", "host(\"prod-1\").run([\"nope-4711\"])"])
        .exits(1)
        .explains(&["no program \"nope-4711\""]);
    opsh.run(&["-e", "host(\"prod-1\").read([\"rm\", \"-rf\", \"/tmp/x\"])"]).exits(2).explains(&["use host.run"]);
    let local = opsh.eval("host(\"local\").read([\"echo\", \"here\"]).out");
    assert_eq!(local, "here\n");
}
