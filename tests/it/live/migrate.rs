//! Migration tools of other kinds against a real PostgreSQL: the real dbmate, golang-migrate's ledger and lock, and tools
//! that lie.

use super::lab::{Afterwards, Lab, ROOT};
use super::opsh::{Opsh, Ran};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const AGREED: [&str; 5] = ["--yes", "--allow", "migrate.down", "--allow", "migrate.up"];

/// A service of its own beside the stack, with a database of its own on the stack's server.
struct Service<'a> {
    lab: &'a Lab,
    _gone: Afterwards<'a>,
}

impl<'a> Service<'a> {
    /// An empty database, and the image that the others are made from: `base` and what `add` puts into it.
    fn new(lab: &'a Lab, base: &str, add: &str) -> Service<'a> {
        let gone = lab.afterwards(
            "docker ps -aq --filter label=opsh.once --filter name=mate | xargs -r docker rm -f; docker rm -f opsh-vrcshift-migrate; \
             docker exec vrc-shift-db psql -XAtq -U vrcshift -c 'DROP DATABASE IF EXISTS mate WITH (FORCE)'; \
             docker images -q --filter label=mate | sort -u | xargs -r docker rmi -f; rm -rf /tmp/mate",
        );
        lab.sql("DROP DATABASE IF EXISTS mate WITH (FORCE)");
        lab.sql("CREATE DATABASE mate");
        lab.sh(&format!(
            "rm -rf /tmp/mate; mkdir -p /tmp/mate/base; cd /tmp/mate/base\n{add}\n\
             printf 'FROM {base}\\nLABEL mate=1\\nENTRYPOINT []\\nCOPY . /\\n' >Dockerfile\n\
             DOCKER_BUILDKIT=0 docker build -q -t mate-base . >/dev/null"
        ));
        Service { lab, _gone: gone }
    }

    /// An image with these migrations; its id.
    fn image(&self, tag: &str, files: &[(&str, &str)]) -> String {
        let folder = format!("/tmp/mate/{tag}");
        self.lab.sh(&format!("mkdir -p {folder}/m"));
        for (name, text) in files {
            self.lab.exec(&["sh", "-c", "printf %s \"$2\" >\"$1\"", "sh", &format!("{folder}/m/{name}"), text]);
        }
        self.lab.sh(&format!(
            "cd {folder}; printf 'FROM mate-base\\nCOPY m /app/migrations\\n' >Dockerfile\n\
             DOCKER_BUILDKIT=0 docker build -q -t mate:{tag} . >/dev/null; docker image inspect -f '{{{{.Id}}}}' mate:{tag}"
        ))
        .trim()
        .into()
    }

    /// Lets the service run this image, with variables besides the database's address.
    fn serve(&self, tag: &str, variables: &str) {
        self.lab.sh(&format!(
            "docker rm -f mate >/dev/null 2>&1 || :; . /opt/vrcshift/.env.prod\n\
             export DATABASE_URL=\"postgres://vrcshift:$POSTGRES_PASSWORD@db:5432/mate?sslmode=disable\"\n\
             docker run -d --name mate --label com.docker.compose.project=vrcshift --label com.docker.compose.service=mate --label com.docker.compose.oneoff=False \
             --network vrcshift_vrc-shift-network -e DATABASE_URL {variables} mate:{tag} sleep 86400 >/dev/null"
        ));
    }

    fn sql(&self, sql: &str) -> String {
        let words = ["docker", "exec", "vrc-shift-db", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "vrcshift"];
        self.lab.exec(&[&words[..], &["-d", "mate", "-c", sql]].concat()).trim().into()
    }

    /// An operator whose opsh.toml has a stack for each of `tools`: its name and its `migrate = { … }`.
    fn operator(&self, tools: &[(&str, &str)]) -> Opsh<'a> {
        Opsh::configured(self.lab, |mut config| {
            for (name, keys) in tools {
                config.push_str(&format!(
                    "\n[stack.{name}]\nhost = \"prod-1\"\ndir = \"/opt/vrcshift\"\n\
                     compose = {{ files = [\"docker-compose.prod.yml\"], env_file = \".env.prod\", project = \"vrcshift\" }}\n\
                     db = {{ service = \"db\", user = \"vrcshift\", name = \"mate\" }}\n\
                     migrate = {{ service = \"mate\", {keys} }}\n"
                ));
            }
            config
        })
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        let _ = self.lab.is("docker rm -f mate opsh-vrcshift-migrate");
    }
}

fn plan(versions: &[i64], ledger: &[i64], image: &str) -> String {
    format!("#{}", json!({ "versions": versions, "ledger": ledger, "image_id": image }))
}

/// Calls `stack(NAME).migrate_up(…)` or `migrate_down(…)` with everything agreed to.
fn migrate(opsh: &Opsh<'_>, stack: &str, call: &str, plan: &str) -> Ran {
    opsh.run(&[&AGREED[..], &["-e", &format!("stack(\"{stack}\").{call}({plan})")]].concat())
}

fn states(opsh: &Opsh<'_>, stack: &str) -> Vec<String> {
    let table = opsh.eval(&format!("stack(\"{stack}\").migrations()"));
    table.as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap().to_string()).collect()
}

fn state(opsh: &Opsh<'_>, stack: &str) -> Value {
    opsh.eval(&format!("stack(\"{stack}\").migration_state()"))
}

fn no_container_is_left(lab: &Lab) {
    lab.until("the one-off is gone", 15, "test -z \"$(docker ps -aq --filter name=opsh-vrcshift-migrate)\"");
}

const A: i64 = 20_260_101_000_000;
const B: i64 = 20_260_102_000_000;
const C: i64 = 20_260_103_000_000;
const D: i64 = 20_260_104_000_000;

/// dbmate's files: A and B in the first image, C (and D, which cannot be taken back) in the second.
const OF_A: (&str, &str) = (
    "20260101000000_members.sql",
    "-- migrate:up\nCREATE TABLE members (id int);\n\n-- migrate:down\nDROP TABLE members;\n",
);
const OF_B: (&str, &str) = (
    "20260102000000_notes.sql",
    "-- migrate:up\nALTER TABLE members ADD COLUMN note text;\n-- migrate:down\nALTER TABLE members DROP COLUMN note;\n",
);
const OF_C: (&str, &str) = (
    "20260103000000_roles.sql",
    "-- migrate:up transaction:false\nCREATE TABLE roles (id int);\n-- migrate:down\n-- ロールの設定は失われます\nDROP TABLE roles;\n",
);
const OF_D: (&str, &str) = (
    "20260104000000_one_way.sql",
    "-- migrate:up\nALTER TABLE members ADD COLUMN once text;\n-- migrate:down\n-- nothing\n",
);

fn dbmate(lab: &Lab) -> Service<'_> {
    let script = Path::new(ROOT).join("tests/lab/prepare");
    assert!(Command::new(script).arg("dbmate").status().unwrap().success(), "dbmate cannot be had");
    Service::new(lab, "vrcbase:1", "mkdir bin; cp /var/lib/lab/images/dbmate bin/dbmate")
}

#[test]
fn the_real_dbmate_goes_up_and_down_by_plan_and_where_it_would_lie_it_is_not_asked() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let service = dbmate(&lab);
    let old = service.image("old", &[OF_A, OF_B, ("README.md", "none")]);
    let new = service.image("new", &[OF_A, OF_B, OF_C, OF_D]);
    service.serve("old", "");
    let opsh = service.operator(&[("mate", "preset = \"dbmate\"")]);

    assert_eq!(states(&opsh, "mate"), ["PENDING", "PENDING"]);
    assert_eq!(service.sql("SELECT to_regclass('schema_migrations') IS NULL"), "t", "a look creates nothing");
    migrate(&opsh, "mate", "migrate_up", &plan(&[A], &[], &old)).exits(1).explains(&["takes no count", "not only"]);
    migrate(&opsh, "mate", "migrate_up", &plan(&[A, B], &[], &old)).exits(0);
    assert_eq!(states(&opsh, "mate"), ["APPLIED", "APPLIED"]);
    assert_eq!(
        service.sql("SELECT string_agg(version, ',' ORDER BY version) FROM schema_migrations"),
        format!("{A},{B}")
    );
    no_container_is_left(&lab);
    assert_eq!(state(&opsh, "mate")["ignored"], json!(["README.md"]));

    // The release that comes brings two more; the old one still serves, and does not know them.
    migrate(&opsh, "mate", "migrate_up", &plan(&[C, D], &[A, B], &new)).exits(0);
    assert_eq!(states(&opsh, "mate"), ["APPLIED", "APPLIED", "UNKNOWN HERE", "UNKNOWN HERE"]);
    let all = [A, B, C, D];
    let wrong = migrate(&opsh, "mate", "migrate_down", &plan(&[D], &all, &old)).exits(1);
    wrong.explains(&["does not know version", "take back another one"]);
    let empty = migrate(&opsh, "mate", "migrate_down", &plan(&[D], &all, &new)).exits(1);
    empty.explains(&[&format!("version {D} has no down")]);
    assert_eq!(opsh.eval("stack(\"mate\").ledger()"), json!(all), "nothing of it was done");

    service.serve("new", "");
    let rows = opsh.eval("stack(\"mate\").migrations()");
    assert!(rows[2]["warns"][0].as_str().unwrap().contains("失われます"), "{rows}");
    assert_eq!(rows[3]["state"], "NO DOWN");
    service.sql(&format!("DELETE FROM schema_migrations WHERE version = '{D}'; ALTER TABLE members DROP COLUMN once"));
    // It takes one back at a time; the plan has two.
    migrate(&opsh, "mate", "migrate_down", &plan(&[C, B], &[A, B, C], &new)).exits(0);
    assert_eq!(opsh.eval("stack(\"mate\").ledger()"), json!([A]));
    assert_eq!(service.sql("SELECT to_regclass('roles') IS NULL"), "t");

    // The ledger forgets what the schema has: up would fail in the middle of a deploy.
    service.sql("DELETE FROM schema_migrations");
    assert_eq!(states(&opsh, "mate"), ["DRIFT", "PENDING", "PENDING", "PENDING"]);
    let drifted = migrate(&opsh, "mate", "migrate_up", &plan(&[A, B, C, D], &[], &new)).exits(1);
    drifted.explains(&["table members is there already"]);
    service.sql(&format!("INSERT INTO schema_migrations VALUES ('{A}'), ('{B}')"));
    let table = opsh.eval("stack(\"mate\").migrations()");
    assert_eq!(table[1]["drift"], "column members.note is not there");
}

#[test]
fn an_up_is_undone_with_the_same_image_unless_rows_have_come() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let service = dbmate(&lab);
    let image = service.image("both", &[OF_A, OF_B]);
    service.serve("both", "");
    let opsh = service.operator(&[("mate", "preset = \"dbmate\"")]);
    let up = format!("stack(\"mate\").migrate_up({})", plan(&[A, B], &[], &image));
    opsh.run(&["--yes", "-e", &up]).exits(0);
    let run = opsh.journal("last")[0]["run"].as_str().unwrap().to_string();
    service.sql("INSERT INTO members VALUES (1)");
    let undo = ["undo", &run, "--yes", "--allow", "migrate.down"];
    opsh.run(&undo).exits(4).explains(&["would lose 1 row"]);
    assert_eq!(service.sql("SELECT count(*) FROM members"), "1");
    service.sql("DELETE FROM members");
    opsh.run(&undo).exits(0);
    assert_eq!(opsh.eval("stack(\"mate\").ledger()"), json!([]));
    assert_eq!(service.sql("SELECT to_regclass('members') IS NULL"), "t");

    let loses =
        service.image("loses", &[OF_A, (OF_B.0, "-- migrate:up\nDELETE FROM members;\n-- migrate:down\nSELECT 1;\n")]);
    let up = format!("stack(\"mate\").migrate_up({})", plan(&[A, B], &[], &loses));
    opsh.run(&["--yes", "-e", &up]).exits(3).explains(&["--allow migrate.up"]);
}

/// Tools that do something else than they say. Each takes the newest of five rows back, or does not.
const LIAR: &str = r#"mkdir -p usr/local/bin
cat >usr/local/bin/liar <<'END'
#!/bin/sh
gone() { psql -XAtq "$DATABASE_URL" -c "DELETE FROM done WHERE id IN (SELECT id FROM done ORDER BY id DESC LIMIT $1)" >/dev/null; }
case $1 in
  says) echo 'Rolled back: 5_e'; exit 1 ;;
  nothing) echo 'OK'; exit 0 ;;
  two) gone 2; echo 'Rolled back: 5_e' ;;
  hangs) sleep 3600 ;;
  chats) gone 1; i=0; while [ $i -lt 160 ]; do head -c 65536 /dev/zero | tr '\0' x; echo; i=$((i + 1)); done; printf '\033[31mロールバックしました\033[0m\n' ;;
  count) gone "$2" ;;
esac
END
chmod 755 usr/local/bin/liar"#;

#[test]
fn tools_that_lie_are_judged_by_the_ledger() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let service = Service::new(&lab, "vrcshift-db:15", LIAR);
    let files: Vec<(String, &str)> = (1..=5)
        .flat_map(|n| [(format!("{n}_x.up.sql"), "SELECT 1"), (format!("{n}_x.down.sql"), "DROP INDEX i")])
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    let image = service.image("liar", &files);
    service.serve("liar", "");
    let keys = |mode: &str| {
        format!(
            "preset = \"command\", up = [\"liar\", \"{mode}\"], down = [\"/usr/local/bin/liar\", \"{mode}\", \"{{n}}\"], \
             ledger = {{ table = \"done\", version = \"id\" }}"
        )
    };
    let modes = ["says", "nothing", "two", "hangs", "chats", "count"];
    let all: Vec<String> = modes.iter().map(|mode| keys(mode)).collect();
    let tools: Vec<(&str, &str)> = modes.iter().zip(&all).map(|(mode, keys)| (*mode, keys.as_str())).collect();
    let opsh = service.operator(&tools);
    service.sql("CREATE TABLE done (id int)");
    let fill = || service.sql("TRUNCATE done; INSERT INTO done SELECT generate_series(1, 5)");
    let all = [1, 2, 3, 4, 5];
    let down = |mode: &str, versions: &[i64]| migrate(&opsh, mode, "migrate_down", &plan(versions, &all, &image));

    fill();
    down("says", &[5]).exits(1).explains(&["ended with 1", "as it was before", "not taken back: 5"]);
    down("nothing", &[5]).exits(1).explains(&["ended with 0", "as it was before"]);
    down("two", &[5]).exits(1).explains(&["taken back: 5", "taken back besides: 4"]);
    fill();
    down("chats", &[5]).exits(0);
    fill();
    down("count", &[5, 4, 3]).exits(0);
    assert_eq!(service.sql("SELECT count(*) FROM done"), "2");
    no_container_is_left(&lab);

    fill();
    let hung = plan(&[5], &all, &image).replace("\"image_id\"", "\"within_s\":4,\"image_id\"");
    let hung = migrate(&opsh, "hangs", "migrate_down", &hung).exits(4);
    assert!(hung.err.contains("may have happened"), "{}", hung.err);
    let again = down("hangs", &[5]).exits(1);
    again.explains(&["running in opsh-vrcshift-migrate", "the lock is held"]);
    // It is killed without having done anything: the ledger says so.
    let run = opsh.journal("last")[0]["run"].as_str().unwrap().to_string();
    assert!(lab.is("docker kill opsh-vrcshift-migrate"));
    let runs = opsh.run(&["runs", "--json"]).exits(0).out;
    let hanging =
        runs.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).find(|one| one["run"] != run.as_str());
    let hanging = hanging.unwrap()["run"].as_str().unwrap().to_string();
    let settled = opsh.run(&["undo", &hanging, "--yes"]);
    assert!(settled.err.contains("did not happen") && settled.err.contains("ledger of hangs"), "{settled:?}");

    // A count in place of versions, none at all, and what is no plan of versions.
    for wrong in ["1", "#{ steps: 0 }", "#{ versions: [], ledger: [1, 2, 3, 4, 5], image_id: \"x\" }"] {
        opsh.run(&["-e", &format!("stack(\"count\").migrate_down({wrong})")]).exits(2);
    }
    assert_eq!(service.sql("SELECT count(*) FROM done"), "5");
}

/// Files for golang-migrate: 2 cannot be taken back, 4 cannot be applied.
const GOLANG: [(&str, &str); 9] = [
    ("1_a.up.sql", "CREATE TABLE a (id int);"),
    ("1_a.down.sql", "DROP TABLE a;"),
    ("2_b.up.sql", "CREATE TABLE b (id int);"),
    ("2_b.down.sql", "DROP INDEX no_such_index;"),
    ("3_c.up.sql", "LOCK TABLE a; CREATE TABLE c (id int);"),
    ("3_c.down.sql", "DROP TABLE c;"),
    ("4_d.up.sql", "CREATE TABLE d (id int); SELECT 1 / 0;"),
    ("4_d.down.sql", "DROP TABLE d;"),
    ("notes.up.sql", "none"),
];

#[test]
fn golang_migrates_row_its_dirty_mark_and_its_lock_are_read_as_it_writes_them() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let standin = std::fs::read_to_string(Path::new(ROOT).join("tests/lab/standins/migrate")).unwrap();
    let add = format!(
        "mkdir -p usr/local/bin\ncat >usr/local/bin/migrate <<'END_OF_IT'\n{standin}\nEND_OF_IT\nchmod 755 usr/local/bin/migrate"
    );
    let service = Service::new(&lab, "vrcshift-db:15", &add);
    let image = service.image("go", &GOLANG);
    // The number, computed by programs that have nothing of opsh: gzip's CRC-32 and the shell.
    let id = "c=$(printf 'public\\0schema_migrations\\0mate' | gzip -c | tail -c8 | head -c4 | od -An -tu4); \
              echo $((c * 1486364155 % 4294967296))";
    let id = lab.exec(&["bash", "-euc", id]).trim().to_string();
    service.serve("go", &format!("-e LOCK_ID={id}"));
    let opsh = service.operator(&[("go", "preset = \"golang-migrate\"")]);
    let go = |call: &str, versions: &[i64], ledger: &[i64]| migrate(&opsh, "go", call, &plan(versions, ledger, &image));
    let row = || service.sql("SELECT version || ' ' || dirty FROM schema_migrations");

    assert_eq!(states(&opsh, "go"), ["PENDING"; 4]);
    go("migrate_up", &[1, 2], &[]).exits(0);
    assert_eq!(row(), "2 false");
    go("migrate_up", &[3, 4], &[1, 2]).exits(1).explains(&[
        "version 4 is dirty, which reads as: failed up",
        "not there: table d",
        "`force 3`",
        "; applied: 3; not applied: 4",
    ]);
    assert_eq!(
        (row().as_str(), states(&opsh, "go").as_slice()),
        ("4 true", ["APPLIED", "APPLIED", "APPLIED", "DIRTY"].map(String::from).as_slice())
    );
    for call in ["migrate_up", "migrate_down"] {
        let refused = go(call, &[4], &[1, 2, 3]).exits(1).explains(&["version 4 is dirty", "failed up"]);
        assert!(!refused.err.contains("dirty = false"), "{}", refused.err);
    }
    // What a person does after the advice.
    lab.exec(&[
        "docker",
        "exec",
        "mate",
        "sh",
        "-c",
        "migrate -path /app/migrations -database \"$DATABASE_URL\" force 3",
    ]);
    go("migrate_down", &[3], &[1, 2, 3]).exits(0);
    assert_eq!(row(), "2 false");
    go("migrate_down", &[2], &[1, 2]).exits(1).explains(&[
        "version 1 is dirty, which reads as: failed down of 2",
        "there: table b",
        "`force 2`",
        "not taken back: 2",
    ]);
    let dirty = &state(&opsh, "go")["dirty"];
    assert_eq!((&dirty["version"], &dirty["reading"]), (&json!(1), &json!("failed down of 2")));
    assert_eq!(row(), "1 true", "nobody resets the mark");
    lab.exec(&[
        "docker",
        "exec",
        "mate",
        "sh",
        "-c",
        "migrate -path /app/migrations -database \"$DATABASE_URL\" force 2",
    ]);

    // An image that is older than the row.
    let older = service.image("older", &GOLANG[..2]);
    migrate(&opsh, "go", "migrate_down", &plan(&[2], &[1, 2], &older)).exits(1).explains(&["does not know version 2"]);

    // Somebody else migrates, without opsh: a person's session, then the tool itself.
    lab.sh(&format!(
        "docker exec -d -e PGAPPNAME=ci-job vrc-shift-db psql -XAtq -U vrcshift -d mate -c 'SELECT pg_advisory_lock({id}), pg_sleep(300)'"
    ));
    let held = format!("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = {id}");
    lab.until(
        "the lock is held",
        20,
        &format!("docker exec vrc-shift-db psql -XAtq -U vrcshift -d mate -c \"{held}\" | grep -qx 1"),
    );
    let pid = service.sql("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted");
    for call in ["migrate_up", "migrate_down"] {
        let versions: &[i64] = if call == "migrate_up" { &[3] } else { &[2] };
        let refused = go(call, versions, &[1, 2]).exits(1);
        refused.explains(&["holds the lock of golang-migrate", &format!("pid {pid}"), "ci-job", "since 20"]);
    }
    assert_eq!(state(&opsh, "go")["holder"]["application"], "ci-job");
    service.sql(&format!("SELECT pg_terminate_backend({pid})"));
    // The third migration waits for a table that somebody keeps.
    let keeps = "BEGIN; LOCK TABLE a; SELECT pg_sleep(300)";
    lab.sh(&format!("docker exec -d vrc-shift-db psql -XAtq -U vrcshift -d mate -c '{keeps}'"));
    let kept = "SELECT count(*) FROM pg_locks WHERE relation = 'a'::regclass AND granted";
    let asks = |sql: &str| format!("docker exec vrc-shift-db psql -XAtq -U vrcshift -d mate -c \"{sql}\" | grep -qx 1");
    lab.until("the table is kept", 20, &asks(kept));
    lab.sh("docker exec -d mate sh -c 'migrate -path /app/migrations -database \"$DATABASE_URL\" up 1'");
    lab.until("the tool holds the lock", 20, &asks(&held));
    assert_eq!(
        state(&opsh, "go")["holder"]["application"],
        "golang-migrate",
        "the tool locks the number that is looked for"
    );
}
