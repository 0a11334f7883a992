//! Statements judged by a real PostgreSQL of the test's own, which is compared before and after.

#![expect(clippy::disallowed_methods, reason = "a test starts a server and talks to it")]

use super::*;
use crate::bind::db::in_path;
use crate::bind::ssh::tests::skip;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Before each function that is refused.
const REFUSED: &str = "\nrefused: ";

fn said_of(call: &Value, key: &str) -> String {
    call[key].as_str().unwrap_or_default().into()
}

/// What was refused, each with its reason.
fn refused(said: &str) -> Option<Vec<&str>> {
    said.starts_with(REFUSED).then(|| said.split(REFUSED).skip(1).collect())
}

/// Rows without the brackets around them, or what stands in the place of too many.
fn rows_in(out: &str) -> String {
    out.trim().trim_start_matches('[').trim_end_matches(']').into()
}

/// A server with a socket in a folder, and nothing else. Ends when dropped.
struct Server {
    dir: tempfile::TempDir,
    programs: PathBuf,
}

impl Server {
    fn start() -> Option<Server> {
        let found = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path().join("bin"));
        let Some(programs) = found.filter(|path| path.join("initdb").exists()).max() else {
            skip("there is no PostgreSQL");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("judge").tempdir().expect("a folder");
        let server = Server { dir, programs };
        let at = server.dir.path().display();
        assert!(
            Command::new("chown").args(["postgres", &at.to_string()]).status().is_ok_and(|status| status.success())
        );
        server.ctl(&format!("initdb --auth=trust --no-sync -D {at}/data"));
        let options = format!("-c listen_addresses= -c unix_socket_directories={at} -c wal_level=logical");
        server.ctl(&format!("pg_ctl -w -D {at}/data -l {at}/log -o \"{options}\" start"));
        Some(server)
    }

    fn ctl(&self, line: &str) {
        let line = format!("{}/{line}", self.programs.display());
        let ran =
            Command::new("su").args(["postgres", "-c", &line]).stdin(Stdio::null()).stdout(Stdio::null()).status();
        assert!(ran.is_ok_and(|status| status.success()), "{line}");
    }

    /// A session, as the container's is.
    fn session(&self, user: &str) -> Child {
        let db =
            crate::config::Db { service: "db".into(), user: user.into(), name: "postgres".into(), reads: Vec::new() };
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(&crate::bind::db::psql::words(&db)[1..]).arg("-h").arg(self.dir.path());
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("psql")
    }

    #[track_caller]
    fn does(&self, sql: &str) -> String {
        self.does_as("postgres", sql)
    }

    /// By any role, in its own path.
    #[track_caller]
    fn does_as(&self, user: &str, sql: &str) -> String {
        let mut psql = self.session(user);
        psql.stdin
            .take()
            .expect("its input")
            .write_all(format!("RESET search_path;\n{sql}").as_bytes())
            .expect("a script");
        let ran = psql.wait_with_output().expect("its end");
        assert!(ran.status.success(), "{sql}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8_lossy(&ran.stdout).trim().into()
    }

    /// Rows as the verb returns them, or what was said against it.
    fn query(&self, user: &str, sql: &str, params: &[Value], own: &[&str]) -> Result<String, String> {
        self.query_with(user, sql, params, own, &mut |_| ())
    }

    /// As [`Server::query`]; `meanwhile` is called before each answer to psql.
    fn query_with(
        &self,
        user: &str,
        sql: &str,
        params: &[Value],
        own: &[&str],
        meanwhile: &mut dyn FnMut(usize),
    ) -> Result<String, String> {
        let own: Vec<String> = own.iter().map(|name| name.to_string()).collect();
        let (mut talk, first) = Talk::about(sql, params, &own)?;
        let mut psql = self.session(user);
        let (mut input, mut said) = (psql.stdin.take(), psql.stderr.take().expect("its errors"));
        let mut rows = psql.stdout.take().expect("its rows");
        let rows = std::thread::spawn(move || {
            let mut out = String::new();
            rows.read_to_string(&mut out).map(|_| out).expect("its rows")
        });
        let mut tell = |text: &str, last: bool| {
            // One that ended does not listen.
            let _ = input.as_mut().expect("its input").write_all(text.as_bytes());
            if last {
                input = None;
            }
        };
        tell(&first, false);
        let (mut err, mut piece, mut answers) = (String::new(), [0; 4096], 0);
        loop {
            let read = said.read(&mut piece).expect("its errors");
            let text = String::from_utf8_lossy(&piece[..read]);
            err += &text;
            match talk.hear(&text) {
                _ if read == 0 => break,
                Reply::Wait => continue,
                reply => {
                    meanwhile(answers);
                    answers += 1;
                    match reply {
                        Reply::Last(text) => tell(&text, true),
                        Reply::Say(text) => tell(&text, false),
                        Reply::Wait => (),
                    }
                }
            }
        }
        let ran = psql.wait_with_output().expect("its end");
        if !ran.status.success() {
            return Err(crate::bind::db::psql::errors(&err));
        }
        let out = rows.join().expect("its rows");
        match talk.end(&out) {
            End::Answered => Ok(rows_in(&out)),
            End::Untold(why) => Err(why),
            End::Refused(calls) => Err(calls
                .iter()
                .map(|call| format!("{REFUSED}{} {}", said_of(call, "why"), said_of(call, "call")))
                .collect()),
        }
    }

    /// When the server read its settings, and how its counters stand.
    fn state_of_conf(&self) -> String {
        self.does("SELECT pg_postmaster_start_time(), pg_conf_load_time(); SELECT count(*) FROM pg_class")
    }

    /// All that a statement could have changed.
    fn state(&self) -> String {
        self.does(
            "SELECT pg_postmaster_start_time(), pg_conf_load_time(), pg_walfile_name(pg_current_wal_lsn()); \
             SELECT stats_reset FROM pg_stat_database WHERE datname = 'postgres'; \
             SELECT slot_name FROM pg_replication_slots; SELECT count(*) FROM pg_largeobject_metadata; \
             SELECT last_value, is_called FROM counter; SELECT * FROM kept; SELECT count(*) FROM pg_class; \
             SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'; SELECT count(*) FROM pg_stat_activity \
             WHERE application_name = 'decoy'",
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ctl(&format!("pg_ctl -m immediate -D {}/data stop", self.dir.path().display()));
    }
}

const STAGE: &str = r#"
CREATE TABLE kept (id int PRIMARY KEY, name text); INSERT INTO kept VALUES (1, 'a'), (2, 'b');
CREATE SEQUENCE counter; 
CREATE FUNCTION evil() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('x', 'y'); RETURN 1; END $$;
CREATE FUNCTION evil(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM pg_reload_conf(); RETURN 1; END $$;
CREATE FUNCTION wrapped() RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT pg_reload_conf() $$;
CREATE FUNCTION now(int) RETURNS boolean LANGUAGE sql AS $$ SELECT pg_reload_conf() $$;
CREATE VIEW reloads AS SELECT pg_reload_conf() AS done;
CREATE TABLE folded (id int); CREATE INDEX ON folded ((id + evil(1)));
CREATE VIEW outer_view AS SELECT * FROM reloads;
CREATE OPERATOR @@@ (LEFTARG = int, RIGHTARG = int, FUNCTION = operated);
"#;

#[test]
fn a_changing_statement_is_refused_before_it_runs() {
    let Some(server) = Server::start() else { return };
    server.does(&STAGE.replace(
        "CREATE OPERATOR",
        "CREATE FUNCTION operated(int, int) RETURNS boolean LANGUAGE sql AS $$ SELECT pg_reload_conf() $$;\n\
         CREATE TYPE mood AS (n int); CREATE FUNCTION cast_mood(mood) RETURNS int LANGUAGE sql AS $$ SELECT evil() $$;\n\
         CREATE CAST (mood AS int) WITH FUNCTION cast_mood(mood);\n\
         CREATE AGGREGATE summed(int) (SFUNC = int4pl, STYPE = int);\n\
         CREATE FUNCTION is_mine(text) RETURNS boolean LANGUAGE sql AS $$ SELECT pg_reload_conf() $$;\n\
         CREATE ROLE plain LOGIN; GRANT SELECT ON kept TO plain; ALTER TABLE kept ENABLE ROW LEVEL SECURITY;\n\
         CREATE POLICY mine ON kept USING (is_mine(name));\n\
         CREATE OPERATOR",
    ));
    let mut decoy = Command::new(server.programs.join("psql"));
    decoy.args(["-X", "-q", "-U", "postgres", "-d", "postgres", "-h"]).arg(server.dir.path());
    let mut decoy = decoy.env("PGAPPNAME", "decoy").stdin(Stdio::piped()).spawn().expect("a session");
    let pid = || server.does("SELECT pid FROM pg_stat_activity WHERE application_name = 'decoy'");
    while pid().is_empty() {}
    let (before, pid) = (server.state(), pid());
    let calls = [
        format!("pg_terminate_backend({pid})"),
        format!("pg_cancel_backend({pid})"),
        format!("\"pg_catalog\".pg_terminate_backend({pid})"),
        format!("U&\"pg\\005fterminate\\005fbackend\"({pid})"),
        format!("PG_Catalog . /* x */ PG_TERMINATE_BACKEND -- y\n ({pid})"),
    ];
    let names = "pg_reload_conf() pg_stat_reset() pg_stat_reset_shared('bgwriter') pg_switch_wal() pg_promote() \
                 pg_create_physical_replication_slot('s') pg_create_logical_replication_slot('s','pgoutput') \
                 pg_drop_replication_slot('s') pg_advisory_lock(1) pg_try_advisory_lock(1) pg_advisory_xact_lock(1) \
                 lo_create(0) lo_creat(1) lo_unlink(1) lo_from_bytea(0,'x') lo_export(1,'/tmp/judge') lo_import('/etc/hosts') \
                 set_config('a.b','c',false) set_config('transaction_read_only','off',true) nextval('counter') \
                 setval('counter',9) pg_notify('a','b') pg_export_snapshot() txid_current() pg_current_xact_id() \
                 query_to_xml('select+pg_reload_conf()',true,true,'') table_to_xml('reloads',true,true,'') \
                 schema_to_xml('public',true,true,'') database_to_xml(true,true,'') \
                 query_to_xmlschema('select+pg_reload_conf()',true,true,'') cursor_to_xml('c',1,true,true,'') \
                 ts_rewrite('a'::tsquery,'select+pg_reload_conf()') pg_read_file('postgresql.conf') \
                 pg_logical_emit_message(true,'a','b') pg_rotate_logfile() pg_log_backend_memory_contexts(1) \
                 evil() evil(1) public.evil() wrapped() now(1) is_mine('x')";
    let names = names.split(' ').map(|name| name.replace('+', " "));
    for call in calls.into_iter().chain(names) {
        for sql in [
            format!("SELECT {call}"),
            format!("SELECT 1 WHERE EXISTS (SELECT {call} LIMIT 0)"),
            format!("WITH a AS MATERIALIZED (SELECT {call} AS x) SELECT x FROM a"),
            format!("VALUES (CASE WHEN false THEN ({call})::text END)"),
        ] {
            let said = server.query("postgres", &sql, &[], &[]).expect_err(&sql);
            assert!(refused(&said).is_some(), "{sql}: {said}");
        }
    }
    for sql in [
        "TABLE reloads",
        "SELECT summed(id) FROM kept",
        "SELECT * FROM folded",
        "SELECT * FROM outer_view",
        "SELECT count(*) FROM outer_view",
        "SELECT 1 @@@ 2",
        "SELECT 1 OPERATOR(public.@@@) ANY (ARRAY[1])",
        "SELECT CAST(ROW(1)::mood AS int)",
        "SELECT ROW(1)::mood::int",
        "SELECT sum(evil()) OVER (ORDER BY evil(id)) FROM kept",
        "SELECT * FROM pg_stat_reset() AS x",
        "SELECT * FROM kept TABLESAMPLE system (pg_stat_reset_single_table_counters(1)::text::int)",
        "SELECT * FROM kept ORDER BY wrapped()",
        "SELECT id FROM kept GROUP BY id HAVING wrapped()",
        "SELECT * FROM ts_stat('select pg_reload_conf()::text::tsvector')",
    ] {
        let said = server.query("postgres", sql, &[], &[]).expect_err(sql);
        assert!(
            refused(&said).is_some() || said.contains("must not return a set") || said.contains("cannot cast"),
            "{sql}: {said}"
        );
    }
    let said = server.query("plain", "SELECT * FROM kept", &[], &[]).expect_err("a policy");
    assert_eq!(refused(&said), Some(vec!["unknown public.is_mine(text)"]), "{said}");
    for sql in [
        "SELECT 1; SELECT pg_reload_conf()",
        "SELECT 1) AS opsh; SELECT pg_reload_conf(); SELECT 1 FROM (SELECT 1",
        "SELECT 1) AS opsh; COMMIT; DROP TABLE kept; SELECT 1 FROM (SELECT 1",
        "SELECT * INTO stolen FROM kept",
        "EXPLAIN ANALYZE SELECT 1",
        "SHOW work_mem",
        "COPY kept TO PROGRAM 'id'",
        "DO $$ BEGIN END $$",
        "CALL evil()",
        "EXECUTE opsh",
        "WITH x AS (DELETE FROM kept RETURNING *) SELECT * FROM x",
        "SELECT * FROM kept FOR UPDATE",
        "\\! touch /tmp/judge",
    ] {
        let said = server.query("postgres", sql, &[], &[]).expect_err(sql);
        assert!(!said.is_empty(), "{sql}");
    }
    assert_eq!(server.state(), before);
    decoy.kill().and_then(|()| decoy.wait()).expect("its end");
}

#[test]
fn a_domain_is_judged_when_a_value_of_it_may_be_made() {
    let Some(server) = Server::start() else { return };
    server.does(&STAGE.replace(
        "CREATE OPERATOR",
        "CREATE FUNCTION operated(int, int) RETURNS boolean LANGUAGE sql AS $$ SELECT pg_reload_conf() $$;\n\
         CREATE DOMAIN picky AS int CHECK (evil(VALUE) = 1); CREATE TYPE holder AS (p picky); CREATE DOMAIN over AS picky; \
         CREATE TYPE spans AS RANGE (subtype = picky); \
         CREATE DOMAIN tried AS text CHECK (('{1}' || VALUE)::picky[] IS NULL); CREATE DOMAIN positive AS int CHECK (VALUE > 0); \
         CREATE TABLE held (p picky, ps picky[], name text, tags text[], doc jsonb, t tried); CREATE VIEW seen AS SELECT ps FROM held; \
         CREATE FUNCTION takes(picky[]) RETURNS int LANGUAGE sql AS 'SELECT 1'; \
         CREATE FUNCTION gives() RETURNS picky[] LANGUAGE sql AS 'SELECT null::picky[]'; \
         CREATE FUNCTION likes(int, picky[]) RETURNS boolean LANGUAGE sql AS 'SELECT true';\n\
         CREATE OPERATOR",
    ));
    let before = server.state();
    for sql in [
        "SELECT 1::picky",
        "SELECT '1'::picky",
        "SELECT 1::over",
        "SELECT '{1}'::picky[]",
        "SELECT ' {1}'::public . PICKY [ ]",
        "SELECT $$\t{1}$$::picky[]",
        "SELECT $x$ {1}$x$::_picky",
        "SELECT E'\\x7b1}'::picky[]",
        "SELECT U&'\\007b1}'::picky[]",
        "SELECT U&'!007b1}' UESCAPE '!'::picky[]",
        "SELECT '{1}'::U&\"p\\0069cky\"[]",
        "SELECT ''\n'{1}'::picky[]",
        "SELECT '(1)'::holder",
        "SELECT '[1,2]'::spans",
        "SELECT '(1,{1},a)'::held",
        "SELECT 1 FROM held WHERE ps = '{1}'",
        "SELECT 1 FROM seen WHERE ps = '{1}'",
        "SELECT takes('{1}')",
        "SELECT gives() = '{1}'",
        "SELECT $1::picky[]",
        "SELECT $1::text::holder",
        "SELECT json_populate_record(null::holder, $1::json)",
        "SELECT json_populate_record(h, $1::json) FROM held h",
        "SELECT * FROM jsonb_to_recordset($1::jsonb) AS x(p picky)",
        "SELECT * FROM xmltable('/a' PASSING ($1::xml) COLUMNS p picky)",
        "SELECT array_in('{1}', 'public.picky'::regtype, -1)::text",
        "SELECT record_in('(1)', (SELECT oid FROM pg_type WHERE typname = 'hol' || 'der'), -1)::text",
        "SELECT 'x'::tried",
    ] {
        let params: &[Value] = if sql.contains("$1") { &[json!("{1}")] } else { &[] };
        let said = server.query("postgres", sql, params, &[]).expect_err(sql);
        assert!(refused(&said).is_some(), "{sql}: {said}");
    }
    for sql in [
        "SELECT 1 AS n",
        "SELECT doc @> '{}', tags && '{a}', '[1,2)'::int4range FROM (SELECT null::jsonb AS doc, null::text[] AS tags) AS x",
        "SELECT p, ps, name, t FROM held WHERE p = 1 AND name IN ('a', 'b')",
        "SELECT ps FROM seen",
        "SELECT '{1}'::positive[], 1::positive, $1::positive",
        "SELECT count(*) FROM kept WHERE name = 'a'",
    ] {
        let params: &[Value] = if sql.contains("$1") { &[json!(1)] } else { &[] };
        server.query("postgres", sql, params, &[]).expect(sql);
    }
    // LIKE is this operator, whose name stands nowhere; and a name with a quote can be spelled in more than one way.
    let also = [
        "CREATE OPERATOR ~~ (LEFTARG = int, RIGHTARG = picky[], FUNCTION = likes)",
        r#"CREATE DOMAIN "o""me" AS picky[]"#,
    ];
    for (creates, sql) in also.into_iter().zip(["SELECT 1 LIKE '{1}'", r#"SELECT '{1}'::"o""me""#]) {
        server.does(creates);
        let said = server.query("postgres", sql, &[], &[]).expect_err(sql);
        assert!(refused(&said).is_some(), "{sql}: {said}");
    }
    assert_eq!(server.state(), before);
}

#[test]
fn a_statement_that_only_reads_is_answered() {
    let Some(server) = Server::start() else { return };
    server.does(
        "CREATE TABLE kept (id int PRIMARY KEY, name text, made timestamptz DEFAULT now(), tags text[], doc jsonb); \
         INSERT INTO kept VALUES (1, 'a'), (2, 'b'); CREATE FUNCTION total() RETURNS bigint LANGUAGE sql AS \
         'SELECT count(*) FROM kept'; CREATE VIEW names AS SELECT lower(name) AS name FROM kept; CREATE ROLE plain LOGIN; \
         GRANT SELECT ON kept, names TO plain; CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
    );
    let conf = server.state_of_conf();
    for sql in [
        "SELECT 1 AS one;",
        "TABLE kept",
        "VALUES (1, 'a;b'), (2, $$c;d$$)",
        "SELECT * FROM names WHERE name LIKE 'a%'",
        "SELECT count(*), max(made), string_agg(name, ',' ORDER BY id DESC) FROM kept GROUP BY id % 2 HAVING count(*) > 0",
        "SELECT id, row_number() OVER (PARTITION BY name ORDER BY made RANGE BETWEEN '1 day' PRECEDING AND CURRENT ROW) FROM kept",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT * FROM n",
        "SELECT now(), clock_timestamp(), random(), gen_random_uuid(), current_user, version()",
        "SELECT pid, state, now() - query_start AS age FROM pg_stat_activity ORDER BY 3 DESC NULLS LAST LIMIT 5",
        "SELECT relname, pg_size_pretty(pg_total_relation_size(oid)) FROM pg_class ORDER BY pg_relation_size(oid) DESC LIMIT 3",
        "SELECT * FROM pg_locks l JOIN pg_stat_activity a USING (pid)",
        "SELECT datname, pg_database_size(datname), age(datfrozenxid) FROM pg_database",
        "SELECT * FROM pg_stat_user_tables",
        "SELECT * FROM pg_stat_database",
        "SELECT * FROM pg_stat_bgwriter",
        "SELECT * FROM pg_stat_replication",
        "SELECT * FROM pg_replication_slots",
        "SELECT * FROM pg_stat_wal",
        "SELECT * FROM pg_settings WHERE name = 'work_mem'",
        "SELECT * FROM pg_indexes",
        "SELECT * FROM pg_prepared_xacts",
        "SELECT table_name, column_name FROM information_schema.columns LIMIT 3",
        "SELECT * FROM information_schema.table_constraints LIMIT 3",
        "SELECT doc->'a', doc @> '{}', jsonb_build_object('a', 1), tags && ARRAY['x'] FROM kept",
        "SELECT * FROM jsonb_to_recordset('[{\"a\": 1}]') AS x(a int)",
        "SELECT * FROM generate_series(1, 3) WITH ORDINALITY",
        "SELECT * FROM unnest(ARRAY[1, 2]) AS u(n)",
        "SELECT CASE WHEN id = 1 THEN 'x' ELSE coalesce(name, 'y') END, nullif(id, 1), greatest(id, 3), id IN (1, 2) FROM kept",
        "SELECT DISTINCT ON (name) name, id IS DISTINCT FROM 1, (id, name) < (2, 'z') FROM kept ORDER BY name, id",
        "SELECT k.* FROM kept k LEFT JOIN LATERAL (SELECT 1 WHERE k.id = 1) x ON true",
        "SELECT id FROM kept UNION SELECT 3 EXCEPT SELECT 1",
        "SELECT grouping(id), id FROM kept GROUP BY ROLLUP (id)",
        "SELECT extract(epoch FROM made), made AT TIME ZONE 'Asia/Tokyo', date_trunc('day', made) FROM kept",
        "SELECT 1::positive",
        "SELECT name COLLATE \"C\" FROM kept",
        "SELECT id::text::int FROM kept TABLESAMPLE system (50)",
        "SELECT xmlelement(name a), format('%s', 1), regexp_replace('a', 'b', 'c')",
        "SELECT pg_is_in_recovery(), pg_current_wal_lsn(), pg_postmaster_start_time(), pg_blocking_pids(1)",
    ] {
        for user in ["postgres", "plain"] {
            if let Err(said) = server.query(user, sql, &[], &[]) {
                assert!(user == "plain" && said.contains("permission denied"), "{user}: {sql}: {said}");
            }
        }
    }
    let params = [json!(2), json!(true), json!(null), json!("x'\\y\n"), json!(1.5)];
    let typed = "SELECT $1::int + 1 AS a, $2::bool AS b, $3::text AS c, $4 AS d, $5 AS e FROM kept WHERE id = $1";
    let row = server.query("postgres", typed, &params, &[]).expect("a row");
    assert_eq!(row, r#"{"a":3,"b":true,"c":null,"d":"x'\\y\n","e":1.5}"#);
    assert_eq!(server.query("postgres", "SELECT total()", &[], &["public.total"]), Ok(r#"{"total":2}"#.into()));
    let said = server.query("postgres", "SELECT total()", &[], &["public.other"]).expect_err("not listed");
    assert_eq!(refused(&said), Some(vec!["unknown public.total()"]));
    let said = server.query("postgres", "SELECT nope FROM kept", &[], &[]).expect_err("no column");
    assert!(said.starts_with("column \"nope\" does not exist"), "{said}");
    assert_eq!(server.state_of_conf(), conf);
}

#[test]
fn a_tree_that_is_not_understood_is_refused() {
    let tree = |node: &str| {
        format!("LOG:  x:\nDETAIL:  ({{QUERY :rtable ({{RTE :alias {{ALIAS :aliasname opsh :x 1}}}} {node})}})")
    };
    assert_eq!(Calls::in_tree(&tree("")), Ok(Calls::default()));
    let calls =
        Calls::in_tree(&tree("{OPEXPR :opno 96\n:opfuncid\n65 :args ({FUNCEXPR :funcid 7 :funcresulttype 23})}"));
    let calls = calls.expect("a tree");
    assert_eq!((calls.functions, calls.operators), ([7, 65].into(), [96].into()));
    assert!(Calls::in_tree(&tree("{NEWNODE :x 1}")).expect_err("a node").contains("newnode"));
    assert!(Calls::in_tree("").is_err() && Calls::in_tree(&format!("{0}{0}", tree(""))).is_err());
}

/// A server with a role that is not trusted, whose functions leave a file when a superuser calls them.
fn with_app() -> Option<Server> {
    let server = Server::start()?;
    let ran = format!("BEGIN COPY (SELECT 1) TO PROGRAM ''touch {}/ran''; RETURN", server.dir.path().display());
    server.does(&format!(
        "CREATE ROLE app LOGIN; GRANT CREATE ON SCHEMA public TO app; GRANT CREATE ON DATABASE postgres TO app; \
         CREATE FUNCTION public.runs() RETURNS void LANGUAGE plpgsql AS '{ran}; END'; \
         SET ROLE app; CREATE TABLE plain (id int, name text); INSERT INTO plain SELECT n, 'a' FROM generate_series(1, 500) AS n; \
         CREATE FUNCTION ev(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN IF current_user = ''postgres'' THEN \
         PERFORM public.runs(); END IF; RETURN 1; END'"
    ));
    Some(server)
}

impl Server {
    fn has_run(&self) -> bool {
        self.dir.path().join("ran").exists()
    }
}

#[test]
fn what_planning_computes_is_judged() {
    let Some(server) = with_app() else { return };
    server.does_as(
        "app",
        "CREATE FUNCTION op(int, int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT ev($1)'; \
         CREATE OPERATOR @@@ (LEFTARG = int, RIGHTARG = int, FUNCTION = op); \
         CREATE FUNCTION sd(float8, float8) RETURNS float8 IMMUTABLE LANGUAGE sql AS 'SELECT $1 - $2 + ev(1)'; \
         CREATE TYPE rg AS RANGE (subtype = float8, subtype_diff = sd); CREATE TYPE bare AS RANGE (subtype = float8); \
         CREATE TABLE t1 (id int); CREATE INDEX ON t1 ((id + ev(abs(-1)))); \
         CREATE TABLE t2 (id int); CREATE INDEX ON t2 ((id + (1 OPERATOR(public.@@@) 2))); \
         CREATE TABLE t3 (id int); CREATE INDEX ON t3 (id) WHERE id > ev(1 + 0); \
         CREATE TABLE t4 (r rg); INSERT INTO t4 SELECT rg(n, n + 1) FROM generate_series(1, 500) AS n; ANALYZE t4; \
         CREATE TABLE t5 (id int, n int); CREATE STATISTICS s ON (id + ev(1)), n FROM t5; \
         CREATE TABLE t6 (id int) PARTITION BY LIST ((id + ev(1))); \
         CREATE TABLE t7 (id int CHECK (id > ev(abs(-1)))); CREATE TABLE t8 (id int, n int GENERATED ALWAYS AS (id + ev(1)) STORED); \
         CREATE TABLE t9 (id int) PARTITION BY LIST (id); CREATE TABLE t10 PARTITION OF t9 FOR VALUES IN (1); \
         CREATE INDEX ON t10 (id) WHERE id > ev(1); CREATE VIEW t11 AS SELECT id FROM t1; CREATE TABLE t12 (rs rg[]); \
         CREATE TABLE fine (id int CHECK (id > 0), name text, r bare, n int GENERATED ALWAYS AS (id + 1) STORED); \
         CREATE INDEX ON fine (lower(name)) WHERE id > abs(-1)",
    );
    for table in ["t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "t9", "t10", "t11", "t12"] {
        let said = server.query("postgres", &format!("SELECT * FROM {table} LIMIT 1"), &[], &[]).expect_err(table);
        assert!(refused(&said).is_some(), "{table}: {said}");
    }
    let said = server.query("postgres", "SELECT * FROM t4 WHERE r && '[1,5)'::rg LIMIT 1", &[], &[]).expect_err("t4");
    assert_eq!(refused(&said), Some(vec!["unknown public.sd(double precision, double precision)"]));
    for sql in ["SELECT * FROM fine WHERE r && '[1,5)'::bare", "SELECT count(*) FROM plain WHERE id IN (1, 2)"] {
        server.query("postgres", sql, &[], &[]).expect(sql);
    }
    assert!(!server.has_run());
}

#[test]
fn a_name_of_another_role_is_not_what_opsh_calls() {
    let Some(server) = with_app() else { return };
    server.does_as(
        "app",
        "CREATE FUNCTION joined(name, name) RETURNS text LANGUAGE sql AS 'SELECT ev(1)::text'; \
         CREATE OPERATOR || (LEFTARG = name, RIGHTARG = name, FUNCTION = joined); \
         CREATE FUNCTION joined(text, text) RETURNS text LANGUAGE sql AS 'SELECT ev(1)::text'; \
         CREATE OPERATOR || (LEFTARG = text, RIGHTARG = text, FUNCTION = joined); \
         CREATE FUNCTION same(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT ev(1) > 0'; \
         CREATE OPERATOR = (LEFTARG = int, RIGHTARG = int, FUNCTION = same); \
         CREATE FUNCTION set_config(text, text, boolean) RETURNS text LANGUAGE sql AS 'SELECT ev(1)::text'; \
         CREATE FUNCTION current_setting(text) RETURNS text LANGUAGE sql AS 'SELECT ev(1)::text'; \
         CREATE FUNCTION format(text, name) RETURNS text LANGUAGE sql AS 'SELECT ev(1)::text'; \
         CREATE SCHEMA own; CREATE TABLE own.hers (id int); CREATE TYPE own.mood AS ENUM ('x')",
    );
    server.does("ALTER DATABASE postgres SET search_path = own, public, pg_catalog");
    // The role's path goes for the statement of somebody else, and for nothing of opsh's.
    assert_eq!(server.query("postgres", "SELECT count(*) AS n FROM hers", &[], &[]), Ok(r#"{"n":0}"#.into()));
    for sql in [
        "SELECT 1 AS n WHERE 1 = 1",
        "SELECT 'a'::text || 'b'",
        "SELECT pg_reload_conf()",
        "SELECT current_setting('a')",
    ] {
        let said = server.query("postgres", sql, &[], &[]).expect_err(sql);
        assert!(refused(&said).is_some(), "{sql}: {said}");
    }
    let own = |sql: &str, params: &[Value]| {
        let mut psql = server.session("postgres");
        let script = crate::bind::db::script(sql, params).expect("a script");
        psql.stdin.take().expect("its input").write_all(script.as_bytes()).expect("a script");
        let ran = psql.wait_with_output().expect("its end");
        assert!(ran.status.success(), "{sql}: {}", String::from_utf8_lossy(&ran.stderr));
        rows_in(&String::from_utf8_lossy(&ran.stdout))
    };
    assert_eq!(
        own("SELECT current_setting('server_version_num')::int > 1 AS a, 'b' || $1 AS b", &[json!("c")]),
        r#"{"a":true,"b":"bc"}"#
    );
    let found = concat!("SELECT ", in_path!("to_regclass", "$1"), "::oid = 'own.hers'::regclass AS it");
    for name in ["hers", "\"hers\"", "own.hers", "HERS"] {
        assert_eq!(own(found, &[json!(name)]), r#"{"it":true}"#, "{name}");
    }
    assert_eq!(own(found, &[json!("nope")]), r#"{"it":null}"#);
    let kind = concat!("SELECT ", in_path!("to_regtype", "$1"), " IS NOT NULL AS it");
    assert_eq!(
        (own(kind, &[json!("mood")]), own(kind, &[json!("moot")])),
        (r#"{"it":true}"#.into(), r#"{"it":false}"#.into())
    );
    assert!(!server.has_run());
}

#[test]
fn a_function_is_allowed_by_its_types_and_its_owner() {
    let Some(server) = with_app() else { return };
    server.does(
        "CREATE FUNCTION total(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT $1'; CREATE EXTENSION pg_trgm; \
         CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE ''opsh refuses: %'', ''x''; END'",
    );
    let total = "SELECT total(1::bigint) AS n";
    assert_eq!(server.query("postgres", total, &[], &["public.total"]), Ok(r#"{"n":1}"#.into()));
    server.does_as("app", "CREATE FUNCTION total(text) RETURNS bigint LANGUAGE sql AS 'SELECT ev(1)::bigint'");
    let refused_for = |sql: &str, own: &[&str]| server.query("postgres", sql, &[], own).expect_err(sql);
    assert_eq!(
        refused(&refused_for("SELECT total('x'::text)", &["public.total(bigint)"])),
        Some(vec!["unknown public.total(text)"])
    );
    assert_eq!(
        refused(&refused_for("SELECT total('x'::text)", &["public.total(text)"])),
        Some(vec!["owner public.total(text)"])
    );
    assert_eq!(refused(&refused_for(total, &["public.total"])), Some(vec!["several public.total(bigint)"]));
    for own in ["public.total(bigint)", "public.total( int8 )"] {
        assert_eq!(server.query("postgres", total, &[], &[own]), Ok(r#"{"n":1}"#.into()), "{own}");
    }
    // What a function says is no word of the judge's.
    assert_eq!(server.query("postgres", "SELECT fails()", &[], &["public.fails()"]), Err("opsh refuses: x".into()));
    assert_eq!(server.query("postgres", "SELECT similarity('a', 'a') AS n", &[], &[]), Ok(r#"{"n":1}"#.into()));
    server.does("ALTER EXTENSION pg_trgm ADD FUNCTION ev(int)");
    assert_eq!(refused(&refused_for("SELECT ev(1)", &[])), Some(vec!["unknown public.ev(integer)"]));
    assert!(!server.has_run());
}

#[test]
fn what_is_run_is_what_was_judged() {
    let Some(server) = with_app() else { return };
    server.does_as(
        "app",
        "CREATE VIEW vv AS SELECT 1 AS n; CREATE FUNCTION f(text) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    );
    server.does("CREATE FUNCTION g(text) RETURNS int LANGUAGE sql AS 'SELECT 1'");
    // Whoever would make it another view waits until it was read.
    let mut waited = Vec::new();
    let rows = server.query_with("postgres", "SELECT * FROM vv", &[], &[], &mut |_| {
        let mut psql = server.session("app");
        let replaces =
            "SET search_path = public; SET lock_timeout = 50; CREATE OR REPLACE VIEW vv AS SELECT ev(2) AS n";
        psql.stdin.take().expect("its input").write_all(replaces.as_bytes()).expect("a script");
        waited.push(psql.wait_with_output().expect("its end").status.success());
    });
    assert_eq!((rows, waited), (Ok(r#"{"n":1}"#.into()), vec![false, false]));
    // A name that means another function now is seen before anything is fetched.
    let said = server.query_with("postgres", "SELECT g('x'::varchar) AS n", &[], &["public.g(text)"], &mut |answer| {
        if answer == 0 {
            server
                .does_as("app", "CREATE FUNCTION g(varchar) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN ev(1); END'");
        }
    });
    assert_eq!(said, Err("somebody changed what it calls at this moment: ask again".into()));
    assert!(!server.has_run());
}

#[test]
fn the_server_stops_at_the_bound_of_rows() {
    let Some(server) = with_app() else { return };
    let query = |sql: &str| server.query("postgres", sql, &[], &[]);
    let many = "SELECT repeat(md5(a.id::text), 100) AS x FROM plain a, plain b LIMIT 40000";
    for sql in [many, "SELECT repeat('x', 100000000) AS x", "SELECT repeat('x', 1048576) AS x"] {
        assert_eq!(query(sql), Ok("null".into()), "{sql}");
    }
    let ends = || server.does("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'") == "1";
    while !ends() {}
    assert_eq!(server.does("SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()"), "0");
    // A result that fits into the bound is not cut.
    let within = query("SELECT repeat('x', 1048000) AS x").expect("a row");
    assert_eq!(within.len(), 1_048_000 + r#"{"x":""}"#.len());
    assert_eq!(query("SELECT id FROM plain WHERE id < 3"), Ok(r#"{"id":1},{"id":2}"#.into()));
    assert_eq!(query("SELECT id FROM plain WHERE id < 0"), Ok(String::new()));
    let said = query("SELECT json_build_object('a', 1/(n - 3)) FROM generate_series(1, 5) AS n");
    assert_eq!(said, Err("division by zero".into()));
    let lines = query("SELECT E'{\n}'::json AS doc").expect("a document of two lines");
    assert_eq!(serde_json::from_str::<Value>(&lines).expect("JSON"), json!({ "doc": {} }));
}

#[test]
fn what_is_given_up_ends_on_the_server() {
    let Some(server) = Server::start() else { return };
    let asked = "SELECT current_setting('statement_timeout') AS s, current_setting('lock_timeout') AS l, \
                 current_setting('idle_in_transaction_session_timeout') AS i, current_setting('temp_file_limit') AS t";
    let bound = r#"{"s":"10s","l":"2s","i":"30s","t":"1GB"}"#;
    assert_eq!(server.query("postgres", asked, &[], &[]), Ok(bound.into()));
    server.does("CREATE ROLE plain LOGIN; ALTER ROLE postgres SET temp_file_limit = '2MB'");
    assert_eq!(server.query("plain", asked, &[], &[]), Ok(bound.replace("1GB", "-1")));
    assert_eq!(server.query("postgres", asked, &[], &[]), Ok(bound.replace("1GB", "2MB")));
}

#[test]
fn an_error_of_a_dying_server_is_its_own_words() {
    let Some(server) = Server::start() else { return };
    let ends = |answer: usize, at: usize| {
        if answer == at {
            server.does(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
            );
        }
    };
    for at in [0, 1] {
        let said = server.query_with("postgres", "SELECT 1", &[], &[], &mut |answer| ends(answer, at));
        let said = said.expect_err("it died");
        assert!(said.starts_with("terminating connection due to administrator command\n"), "{said}");
        assert!(!said.contains(":rtable") && !said.contains("opsh heard") && !said.contains("<stdin>"), "{said}");
    }
}

#[test]
fn errors_are_told_from_trees_in_any_language() {
    let said = "psql:<stdin>:9: LOG:  x:\nDETAIL:  ({QUERY :a 1\n:b})\n\npsql:<stdin>:11: INFO:  opsh heard\n\
                psql:<stdin>:12: FEHLER:  Spalte »x« existiert nicht\nZEILE 1: SELECT x\n               ^\n";
    let errors = crate::bind::db::psql::errors;
    assert_eq!(errors(said), "Spalte »x« existiert nicht\nZEILE 1: SELECT x\n               ^");
    assert_eq!(errors("psql: error: connection failed: x"), "psql: error: connection failed: x");
    assert_eq!(errors(""), "psql ended without a word");
}
