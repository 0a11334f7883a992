//! Roles of the database that are not trusted: what they make is nothing that opsh calls.

use super::lab::Lab;
use super::opsh::Opsh;
use serde_json::{Value, json};

#[test]
fn what_another_role_made_is_not_run_by_opsh() {
    let Some(lab) = Lab::take() else { return };
    let bad = lab.have("BAD");
    let _clean = lab.afterwards(
        "docker exec vrc-shift-db psql -XAtq -U vrcshift -c 'SET default_transaction_read_only = off' -c 'SET search_path = public' \
         -c 'DROP INDEX IF EXISTS evil_i' -c 'ALTER DATABASE vrcshift RESET ALL' -c 'DROP VIEW IF EXISTS schema_migrations' \
         -c 'ALTER TABLE IF EXISTS kept RENAME TO schema_migrations' -c 'DROP OWNED BY app CASCADE' -c 'DROP ROLE app'; \
         docker exec vrc-shift-db rm -f /tmp/owned; rm -rf /var/backups/opsh /opt/vrcshift/.opsh/freeze.json",
    );
    lab.sql(
        "CREATE ROLE app; GRANT CREATE ON SCHEMA public TO app; \
         CREATE FUNCTION runs() RETURNS text LANGUAGE plpgsql AS 'BEGIN COPY (SELECT 1) TO PROGRAM ''touch /tmp/owned''; RETURN NULL; END'; \
         ALTER FUNCTION runs() OWNER TO app; SET ROLE app; \
         CREATE FUNCTION evil(name, name) RETURNS text LANGUAGE sql AS 'SELECT public.runs()'; \
         CREATE OPERATOR || (LEFTARG = name, RIGHTARG = name, FUNCTION = evil); \
         CREATE FUNCTION differs(name, text) RETURNS boolean LANGUAGE sql AS 'SELECT public.runs() IS NULL'; \
         CREATE OPERATOR !~~ (LEFTARG = name, RIGHTARG = text, FUNCTION = differs); \
         CREATE FUNCTION set_config(text, text, boolean) RETURNS text LANGUAGE sql AS 'SELECT public.runs()'; \
         CREATE FUNCTION format(text, name) RETURNS text LANGUAGE sql AS 'SELECT ''ALTER ROLE app SUPERUSER''::text'; \
         CREATE FUNCTION ev(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN IF current_setting(''opsh.q'', true) IS NOT NULL THEN \
         PERFORM public.runs(); END IF; RETURN 1; END'; RESET ROLE; \
         ALTER DATABASE vrcshift SET search_path = public, pg_catalog",
    );
    let opsh = Opsh::new(&lab);
    assert_eq!(opsh.eval("stack(\"prod\").ledger()"), json!(bad.ledger));
    assert_eq!(opsh.eval("stack(\"prod\").migrations()")[0]["state"], "APPLIED");
    assert_eq!(opsh.eval("stack(\"prod\").db.query(\"SELECT 1 AS one FROM shifts LIMIT 1\")"), json!([{ "one": 1 }]));
    opsh.eval("stack(\"prod\").activity()");
    let refused = opsh.run(&["--observe", "-e", "stack(\"prod\").db.query(\"SELECT pg_reload_conf()\")"]).exits(2);
    refused.explains(&["it may call pg_catalog.pg_reload_conf()"]);
    opsh.run(&["--yes", "-e", "stack(\"prod\").freeze(60)"]).exits(0);
    opsh.run(&["--yes", "-e", "stack(\"prod\").thaw()"]).exits(0);
    opsh.run(&["--yes", "-e", "stack(\"prod\").backup()"]).exits(0);

    // A text of a migration, or of the ledger's name, is judged as any other is.
    let losses = format!("stack(\"prod\").down_losses([{}])", bad.ledger[4]);
    lab.sql("UPDATE shifts SET note = 'x' WHERE id = 2");
    assert_eq!(opsh.eval(&losses)[0]["rows"], 1);
    lab.sql("CREATE INDEX evil_i ON shifts ((id + ev(abs(-1))))");
    assert_eq!(opsh.eval(&losses)[0]["rows"], Value::Null);
    lab.sql("DROP INDEX evil_i; UPDATE shifts SET note = NULL");
    lab.sql(
        "ALTER TABLE schema_migrations RENAME TO kept; CREATE VIEW schema_migrations AS SELECT version FROM kept \
         WHERE public.runs() IS NULL",
    );
    opsh.run(&["--observe", "-e", "stack(\"prod\").ledger()"]).exits(2).explains(&["it may call public.runs()"]);
    assert!(!lab.is("docker exec vrc-shift-db test -e /tmp/owned"));
    assert_eq!(
        lab.sql("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) 'app'").trim(),
        "f"
    );
}
