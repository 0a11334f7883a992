//! SQL through the database container's own `psql`: nothing to install, no port to open, no password to carry.
//!
//! SQL of opsh's own names only what is PostgreSQL's, in a search path in which nothing else is. A text from anywhere else is
//! judged. The statement and its parameters travel on standard input as psql variables, so nothing of them stands in an argv
//! and nothing in them is a psql command; it runs in a READ ONLY transaction with a statement and a lock timeout, which
//! it cannot end, and which is rolled back.

mod judge;
pub mod psql;

use super::docker::engine::Engine;
use super::docker::exec::{Answer, Exec, Hears};
use super::way::Way;
use super::{Binding, Call, Look, docker, stack};
use crate::config::{Db, Stack};
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use rhai::Dynamic;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const QUERY: Verb = Verb {
    name: "db.query",
    class: Class::Read,
    waits: false,
    sig: "db.query(sql: string, params?: array) -> array",
    doc: "Rows of one statement that only reads, as maps. It is a SELECT, WITH, VALUES or TABLE in a READ ONLY \
          transaction, and may take 10 s and wait 2 s for a lock. `params` (strings, numbers, true, false, `()`) are \
          `$1`, `$2`, …; they are passed as values, never pasted: a string is text, so write `$1::uuid` for another \
          type. The server tells first which functions the statement calls, also by views, operators, casts, row policies, and \
          by the indexes and constraints of its tables: PostgreSQL's own that change nothing, those in C of known extensions, \
          and those that `reads` of `db` in opsh.toml lists (`\"public.total(bigint)\"`) and that belong to the role or a \
          superuser. A role that is no superuser leaves the analysed statement in the server's log. 1 MiB of rows at most: the server \
          stops there. Sorting may write 1 GiB of temporary files, where the role is a superuser and no other limit is set. When \
          opsh gives it up, the statement ends on the server within 10 s. Fails with `usage` for another kind of statement, more than one, another function, or a foreign table; `failed` with \
          the server's words, `timeout` when the server accepts the connection and does not answer for 10 s. Deadline 30 s.",
    example: r#"stack("prod").db.query("SELECT state, count(*) AS n FROM pg_stat_activity WHERE datname = $1 GROUP BY 1", ["vrcshift"])"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[Binding::Read(&QUERY, query)];

/// `stack("prod").db`.
#[derive(Clone)]
pub struct DbHandle(pub Arc<Stack>);

impl DbHandle {
    /// `prod/db`.
    pub fn name(&self) -> String {
        format!("{}/db", self.0.name)
    }
}

fn query(call: &Call<'_>) -> Result<Dynamic> {
    let stack = call.this::<DbHandle>()?.0;
    let sql = call.text(0)?;
    let params = call.json(1).ok().and_then(|value| value.as_array().cloned()).unwrap_or_default();
    check(&sql).map_err(|why| call.bad(&why))?;
    let way = call.world.way(&stack.host)?;
    let look = Look::at(call.world.stack_target(&stack), sql.clone(), json!({ "sql": sql, "params": params }));
    let context = (stack, way, sql, params);
    let value = call.read(look.within(30), context, |pass, (stack, way, sql, params)| async move {
        let engine = way.engine(&pass).await?;
        judged(&engine, &stack, &sql, &params).await.map(Value::from)
    })?;
    Ok(super::map(value))
}

/// The stack before the dot, which has a database, and the way to its host.
pub fn open(call: &Call<'_>) -> Result<(Arc<Stack>, Way)> {
    let (stack, way) = call.stack_and_way()?;
    of_stack(&stack)?;
    Ok((stack, way))
}

/// The database of a stack, or an error that says what to write.
pub fn of_stack(stack: &Stack) -> Result<&Db> {
    let line = "db = { service = \"db\", user = \"…\", name = \"…\" }";
    stack.db.as_ref().ok_or_else(|| stack::lacks(stack, "database", line))
}

/// SQL for what the role's own path finds under a name, by `to_regclass` or `to_regtype`; null for nothing. For SQL of opsh's
/// own, whose path is another.
macro_rules! in_path {
    ($to:literal, $name:literal) => {
        concat!(
            "(SELECT ",
            $to,
            "(found.name) FROM (SELECT schemas.n, CASE WHEN cardinality(parse_ident(",
            $name,
            ")) = 1 \
             THEN quote_ident(schemas.name) || '.' || ",
            $name,
            " ELSE ",
            $name,
            " END AS name \
             FROM unnest(current_setting('opsh.schemas')::text[]) WITH ORDINALITY AS schemas(name, n)) AS found \
             WHERE ",
            $to,
            "(found.name) IS NOT NULL ORDER BY found.n LIMIT 1)"
        )
    };
}
pub(crate) use in_path;

/// Rows of a statement of opsh's own that only reads. Its names are PostgreSQL's; what it is about are parameters.
pub async fn rows(engine: &Engine, stack: &Stack, sql: &'static str, params: &[Value]) -> Result<Vec<Value>> {
    let script = script(sql, params).map_err(|why| bad(stack, why))?;
    listed(stack, &psql(engine, stack, script, None).await?)
}

/// Rows of a statement whose text comes from elsewhere, once it is judged.
pub async fn judged(engine: &Engine, stack: &Stack, sql: &str, params: &[Value]) -> Result<Vec<Value>> {
    let own = of_stack(stack)?.reads.as_slice();
    let (mut talk, first) = judge::Talk::about(sql, params, own).map_err(|why| bad(stack, why))?;
    let mut hears = |said: &[u8]| match talk.hear(&String::from_utf8_lossy(said)) {
        judge::Reply::Wait => Answer::Wait,
        judge::Reply::Say(script) => Answer::Say(script.into_bytes()),
        judge::Reply::Last(script) => Answer::Last(script.into_bytes()),
    };
    let out = psql(engine, stack, first, Some(&mut hears)).await?;
    match talk.end(&out) {
        judge::End::Answered => listed(stack, &out),
        judge::End::Refused(calls) => Err(judge::refusal(stack, &calls)),
        judge::End::Untold(why) => Err(bad(stack, why)),
    }
}

/// Rows as [`fetched`] prints them.
fn listed(stack: &Stack, out: &str) -> Result<Vec<Value>> {
    let fails = |why: String| Error::new(Kind::Failed, failed(stack), why);
    let rows: Option<Vec<Value>> = serde_json::from_str(out).map_err(|error| fails(error.to_string()))?;
    rows.ok_or_else(|| fails("the rows take more than 1 MiB".into()).next("add a LIMIT"))
}

fn failed(stack: &Stack) -> String {
    format!("db.query failed on {}", stack.name)
}

fn bad(stack: &Stack, why: String) -> Error {
    Error::new(Kind::Usage, failed(stack), why)
}

/// Runs a script of psql in the container of the database; `hears` says how it goes on. Returns standard output.
async fn psql(engine: &Engine, stack: &Stack, script: String, hears: Option<Hears<'_>>) -> Result<String> {
    let db = of_stack(stack)?;
    let container = docker::only(engine, stack, &db.service).await?;
    if !container.is_up() {
        let next = format!("stack({}).start({})", json!(stack.name), json!(db.service));
        let why = format!("{} is {}", db.service, container.state);
        return Err(Error::new(Kind::Failed, failed(stack), why).next(next));
    }
    let exec =
        Exec { words: psql::words(db), env: psql::env(), stdin: script.into_bytes(), keep: KEPT, ..Exec::default() };
    let _waits = engine.waits_for(|| format!("PostgreSQL in {} on {} to answer", container.name, engine.host()));
    let began = Instant::now();
    let ran = engine.run(&container.id, exec, hears).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // psql's own exit code for a connection that failed. One that took so long was accepted; libpq counts whole seconds.
    if ran.exit == 2 && began.elapsed() >= Duration::from_secs(u64::from(psql::CONNECT_S) - 1) {
        let asks = Exec { words: psql::asks(db), keep: 4096, ..Exec::default() };
        if !matches!(engine.exec(&container.id, asks).await?.exit, 0 | 1) {
            let (name, within) = (&container.name, psql::CONNECT_S);
            let why = format!("PostgreSQL in {name} accepted the connection and has not answered for {within} s");
            let next = format!("docker logs --tail 50 {name}     on {}", engine.host());
            return Err(Error::new(Kind::Timeout, failed(stack), why).exit(ran.exit).next(next));
        }
    }
    if ran.exit != 0 {
        return Err(Error::new(Kind::Failed, failed(stack), psql::errors(&text(&ran.stderr))).exit(ran.exit));
    }
    Ok(text(&ran.stdout))
}

/// What psql reads for a statement of opsh's own.
fn script(sql: &str, params: &[Value]) -> Result<String, String> {
    let mut lines = begun();
    lines.extend(set(&wrapped(sql), params)?);
    lines.push(opened(params, false)?);
    lines.push(fetched(false));
    Ok(lines.join("\n"))
}

/// Lines that give statement and parameters to the server: psql never looks into them, and the server takes them from
/// settings.
fn set(statement: &str, params: &[Value]) -> Result<Vec<String>, String> {
    let mut lines = vec![setting("q", statement)?];
    for (at, param) in params.iter().enumerate() {
        lines.push(setting(&format!("p{at}"), &typed(param)?.0)?);
    }
    Ok(lines)
}

fn setting(name: &str, value: &str) -> Result<String, String> {
    Ok(format!("\\set v {}\nSELECT set_config('opsh.{name}', :'v', true) AS v \\gset", variable(value)?))
}

/// The line that opens the statement as a cursor, which the server refuses for more than one statement and for anything but
/// a query. Each row comes back as one line of JSON. In the role's own path stands nothing but that statement.
fn opened(params: &[Value], in_own_path: bool) -> Result<String, String> {
    let (mut declared, mut using) = (String::new(), Vec::new());
    for (at, param) in params.iter().enumerate() {
        let kind = typed(param)?.1;
        let value = if param.is_null() { "NULL".into() } else { format!("current_setting(''opsh.p{at}'')::{kind}") };
        declared += &format!("p{at} {kind} := {value}; ");
        using.push(format!("p{at}"));
    }
    let using = if using.is_empty() { String::new() } else { format!(" USING {}", using.join(", ")) };
    let (there, back) = if in_own_path { (OWN_PATH, PATH) } else { ("", "") };
    Ok(format!(
        "DO 'DECLARE c refcursor := ''opsh''; q text := current_setting(''opsh.q''); {declared}\
         BEGIN {there} OPEN c NO SCROLL FOR EXECUTE q{using}; {back} END';"
    ))
}

/// Bytes of rows that a query may return.
const ROWS: usize = 1 << 20;

/// Bytes that are kept of each stream of psql: an encoding of one byte a character takes up to three in UTF-8.
const KEPT: usize = 4 * ROWS;

/// Lines that read the cursor, print its rows as one list of JSON, or `null` for more than [`ROWS`] bytes, and end the session.
///
/// The server reads a row at a time and stops at the bound. `FETCH ALL` writes the whole result into a temporary file of the
/// server before the first row leaves it, for whatever plan: of 250,000 rows of 3 KiB it wrote 805 MB (PostgreSQL 15), this
/// writes none. While the statement's own functions have the role's path, each name here says that it is PostgreSQL's.
fn fetched(in_own_path: bool) -> String {
    let (there, back) = if in_own_path { (OWN_PATH, PATH) } else { ("", "") };
    format!(
        "DO 'DECLARE c refcursor := ''opsh''; r text; size bigint := 0; kept text[] := ''{{}}''; \
         BEGIN {there} LOOP FETCH c INTO r; EXIT WHEN NOT FOUND; \
         size := size OPERATOR(pg_catalog.+) pg_catalog.octet_length(r) OPERATOR(pg_catalog.+) 1; \
         EXIT WHEN size OPERATOR(pg_catalog.>) {ROWS}; \
         kept := pg_catalog.array_append(kept, r); END LOOP; {back} \
         PERFORM set_config(''opsh.rows'', CASE WHEN size > {ROWS} THEN ''null'' \
         ELSE ''['' || array_to_string(kept, '','') || '']'' END, true); END';\n\
         SELECT current_setting('opsh.rows');\nROLLBACK;\n"
    )
}

/// The path that the role would have without opsh.
const OWN_PATH: &str = "SET LOCAL search_path TO DEFAULT;";

/// The path of all SQL of opsh's own, as each session begins with.
const PATH: &str = "SET LOCAL search_path = pg_catalog, pg_temp;";

/// How every script begins. The ROLLBACK at its end is for what PostgreSQL before 16 lets a READ ONLY transaction write:
/// large objects.
///
/// A statement that opsh gave up ends on the server within 10 s, and a session that nobody answers within 30 s. Sorting and
/// hashing may spill 1 GiB, where the role may say so and nobody has said another limit. Compiling a plan to machine code can
/// take longer than all of these statements: 8 s for one of the judge's.
fn begun() -> Vec<String> {
    let lines = [
        "BEGIN READ ONLY;",
        "SET LOCAL statement_timeout = '10s'; SET LOCAL lock_timeout = '2s'; \
         SET LOCAL idle_in_transaction_session_timeout = '30s'; SET LOCAL client_min_messages = error; \
         SET LOCAL jit = off;",
        "\\set SHOW_CONTEXT never",
        OWN_PATH,
        "SELECT pg_catalog.set_config('opsh.schemas', pg_catalog.current_schemas(true)::pg_catalog.text, true) AS v, \
         pg_catalog.set_config('opsh.schema', pg_catalog.current_schema()::pg_catalog.text, true) AS w \\gset",
        PATH,
        "SELECT CASE WHEN rolsuper AND current_setting('temp_file_limit') = '-1' \
         THEN set_config('temp_file_limit', '1GB', true) END AS v FROM pg_roles WHERE rolname = current_user \\gset",
    ];
    lines.map(String::from).to_vec()
}

/// The statement as the part of one that nothing but a query can be.
fn wrapped(sql: &str) -> String {
    format!("SELECT pg_catalog.row_to_json(opsh) FROM (\n{}\n) AS opsh", sql.trim().trim_end_matches(';'))
}

/// A parameter as text, and its SQL type.
fn typed(param: &Value) -> Result<(String, &'static str), String> {
    match param {
        Value::String(text) => Ok((text.clone(), "text")),
        Value::Number(number) if number.is_i64() => Ok((number.to_string(), "bigint")),
        Value::Number(number) => Ok((number.to_string(), "numeric")),
        Value::Bool(value) => Ok((value.to_string(), "boolean")),
        Value::Null => Ok((String::new(), "text")),
        other => Err(format!("a parameter is a string, a number, true, false or (), not {other}")),
    }
}

/// A value in psql's own quoting, where a backslash escapes.
fn variable(text: &str) -> Result<String, String> {
    if text.contains('\0') {
        return Err("a statement or parameter holds a NUL".into());
    }
    let escaped = text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n").replace('\r', "\\r");
    Ok(format!("'{escaped}'"))
}

/// Ok for a statement of a kind that returns rows. This is for a clear error, not for safety: the server decides.
fn check(sql: &str) -> Result<(), String> {
    let first = sql.trim().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or("").to_ascii_uppercase();
    if ["SELECT", "WITH", "VALUES", "TABLE"].contains(&first.as_str()) {
        return Ok(());
    }
    Err(format!("db.query takes SELECT, WITH, VALUES or TABLE, not {}", if first.is_empty() { "this" } else { &first }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_return_no_rows_are_refused_in_words() {
        for sql in ["", "DELETE FROM x", "COMMIT", "\\! id"] {
            assert!(check(sql).is_err(), "{sql}");
        }
        assert_eq!(check("with x AS (SELECT 1) SELECT * FROM x"), Ok(()));
    }

    #[test]
    fn nothing_of_a_value_is_a_psql_command() {
        let script = script("SELECT $1\n\\! touch /tmp/x", &[json!("a'b\\! id\n\\q")]).expect("a script");
        for line in script.lines() {
            assert!(!line.starts_with("\\!") && !line.starts_with("\\q"), "{line}");
        }
        assert!(script.contains(r"\set v 'a\'b\\! id\n\\q'"), "{script}");
    }

    #[test]
    fn a_null_parameter_is_sql_null() {
        let script = script("SELECT $1", &[Value::Null]).expect("a script");
        assert!(script.contains("p0 text := NULL;"), "{script}");
    }
}
