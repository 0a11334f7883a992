//! SQL through the database container's own `psql`: nothing to install, no port to open, no password to carry.
//!
//! The statement and its parameters travel on standard input as psql variables, so nothing of them stands in an argv
//! and nothing in them is a psql command; it runs in a READ ONLY transaction with a statement and a lock timeout, which
//! it cannot end, and which is rolled back.

mod judge;

use super::docker::engine::Engine;
use super::docker::exec::Exec;
use super::docker::model::Env;
use super::way::Way;
use super::{Binding, Call, Look, docker, stack};
use crate::config::{Db, Stack};
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use rhai::Dynamic;
use serde_json::{Value, json};
use std::sync::Arc;

const QUERY: Verb = Verb {
    name: "db.query",
    class: Class::Read,
    waits: false,
    sig: "db.query(sql: string, params?: array) -> array",
    doc: "Rows of one statement that only reads, as maps. It is a SELECT, WITH, VALUES or TABLE in a READ ONLY \
          transaction, and may take 10 s and wait 2 s for a lock. `params` (strings, numbers, true, false, `()`) are \
          `$1`, `$2`, …; they are passed as values, never pasted: a string is text, so write `$1::uuid` for another \
          type. The server is asked first which functions the statement calls, also by views, operators, casts and \
          row policies: PostgreSQL's own that change nothing, those of known extensions, and those that `reads` of \
          `db` in opsh.toml lists (`\"public.total\"`). A role that is no superuser leaves the analysed statement in \
          the server's log. 1 MiB of rows at most. Fails with `usage` for another kind of statement, more than one, \
          another function, or a foreign table; `failed` with the server's words, `timeout` when the server accepts the \
          connection and does not answer for 10 s. Deadline 30 s.",
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
        let judge = judge::calls_of(&engine, &stack, &sql, &params).await?;
        read(&engine, &stack, &sql, &params, &judge).await.map(Value::from)
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

/// Seconds after which psql gives up a server that does not answer its connection.
const CONNECT_S: u32 = 10;

/// Rows of a statement of opsh's own that only reads.
pub async fn rows(engine: &Engine, stack: &Stack, sql: &str, params: &[Value]) -> Result<Vec<Value>> {
    read(engine, stack, sql, params, "").await
}

/// Rows of one statement, after what `judge` says on the server.
async fn read(engine: &Engine, stack: &Stack, sql: &str, params: &[Value], judge: &str) -> Result<Vec<Value>> {
    let script = script(sql, params, judge).map_err(|why| Error::new(Kind::Usage, failed(stack), why))?;
    let said = psql(engine, stack, script, 1 << 20).await?;
    if said.left_out > 0 {
        return Err(Error::new(Kind::Failed, failed(stack), "the rows take more than 1 MiB").next("add a LIMIT"));
    }
    let row =
        |line| serde_json::from_str(line).map_err(|error| Error::new(Kind::Failed, failed(stack), error.to_string()));
    said.out.lines().filter(|line| !line.is_empty()).map(row).collect()
}

/// Output of psql.
struct Said {
    out: String,
    err: String,
    left_out: u64,
}

fn failed(stack: &Stack) -> String {
    format!("db.query failed on {}", stack.name)
}

/// Runs a script of psql in the container of the database.
async fn psql(engine: &Engine, stack: &Stack, script: String, keep: usize) -> Result<Said> {
    let db = of_stack(stack)?;
    let container = docker::find(engine, stack, &db.service).await?;
    if !container.is_up() {
        let next = format!("stack({}).start({})", json!(stack.name), json!(db.service));
        let why = format!("{} is {}", db.service, container.state);
        return Err(Error::new(Kind::Failed, failed(stack), why).next(next));
    }
    let words = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", &db.user, "-d", &db.name, "-f", "-"];
    let exec = Exec {
        words: words.iter().map(|word| word.to_string()).collect(),
        env: Env::new([("PGCONNECT_TIMEOUT".to_string(), CONNECT_S.to_string())]),
        stdin: script.into_bytes(),
        keep,
        ..Exec::default()
    };
    let _waits = engine.waits_for(|| format!("PostgreSQL in {} on {} to answer", container.name, engine.host()));
    let ran = engine.exec(&container.id, exec).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let err = text(&ran.stderr);
    // psql's own exit code for a connection that failed, and libpq's word for one that was accepted and not answered.
    if ran.exit == 2 && err.contains("timeout expired") {
        let why =
            format!("PostgreSQL in {} accepted the connection and has not answered for {CONNECT_S} s", container.name);
        let next = format!("docker logs --tail 50 {}     on {}", container.name, engine.host());
        return Err(Error::new(Kind::Timeout, failed(stack), why).exit(ran.exit).next(next));
    }
    if ran.exit != 0 {
        return Err(match judge::refused(&err) {
            Some(calls) => judge::refusal(stack, &calls),
            None => {
                // The trees that the judge asks for come first.
                let err = err.rfind("ERROR:").map_or(err.as_str(), |at| &err[at..]);
                let lines: Vec<&str> =
                    err.lines().map(|line| line.split_once("ERROR:").map_or(line, |(_, rest)| rest.trim())).collect();
                Error::new(Kind::Failed, failed(stack), lines.join("\n")).exit(ran.exit)
            }
        });
    }
    Ok(Said { out: text(&ran.stdout), err, left_out: ran.left_out })
}

/// What psql reads. Each row comes back as one line of JSON. Statement and parameters are values of settings until the
/// server uses them, so psql never looks into them; the server opens the statement as a cursor, which it refuses for
/// more than one statement and for anything but a query. The ROLLBACK is for what PostgreSQL before 16 lets a READ ONLY
/// transaction write: large objects.
fn script(sql: &str, params: &[Value], judge: &str) -> Result<String, String> {
    let mut lines = begun();
    lines.push(judge.into());
    lines.push(format!("\\set q {}", variable(&wrapped(sql))?));
    lines.push("SELECT set_config('opsh.q', :'q', true) AS q \\gset".into());
    let mut using = Vec::new();
    for (at, param) in params.iter().enumerate() {
        let (value, kind) = typed(param)?;
        lines.push(format!("\\set p {}", variable(&value)?));
        lines.push(format!("SELECT set_config('opsh.p{at}', :'p', true) AS p \\gset"));
        let setting = format!("current_setting(''opsh.p{at}'')::{kind}");
        using.push(if param.is_null() { "NULL::text".into() } else { setting });
    }
    let using = if using.is_empty() { String::new() } else { format!(" USING {}", using.join(", ")) };
    lines.push(format!(
        "DO 'DECLARE c refcursor := ''opsh''; BEGIN OPEN c FOR EXECUTE current_setting(''opsh.q''){using}; END';"
    ));
    lines.push("FETCH ALL FROM opsh;".into());
    lines.push("ROLLBACK;".into());
    Ok(lines.join("\n") + "\n")
}

/// How every script begins.
fn begun() -> Vec<String> {
    let lines = [
        "BEGIN READ ONLY;",
        "SET LOCAL statement_timeout = '10s'; SET LOCAL lock_timeout = '2s';",
        "\\set SHOW_CONTEXT never",
    ];
    lines.map(String::from).to_vec()
}

/// The statement as the part of one that nothing but a query can be.
fn wrapped(sql: &str) -> String {
    format!("SELECT row_to_json(opsh) FROM (\n{}\n) AS opsh", sql.trim().trim_end_matches(';'))
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
        let script = script("SELECT $1\n\\! touch /tmp/x", &[json!("a'b\\! id\n\\q")], "").expect("a script");
        for line in script.lines() {
            assert!(!line.starts_with("\\!") && !line.starts_with("\\q"), "{line}");
        }
        assert!(script.contains(r"\set p 'a\'b\\! id\n\\q'"), "{script}");
    }

    #[test]
    fn a_null_parameter_is_sql_null() {
        let script = script("SELECT $1", &[Value::Null], "").expect("a script");
        assert!(script.contains("USING NULL::text;"), "{script}");
    }
}
