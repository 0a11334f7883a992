//! SQL through the database container's own `psql`: nothing to install, no port to open, no password to carry.
//!
//! The statement and its parameters travel on standard input as psql variables, so nothing of them stands in an argv
//! and nothing in them is a psql command; it runs in a READ ONLY transaction with a statement and a lock timeout, which
//! it cannot end, and which is rolled back.

use super::docker::engine::Engine;
use super::docker::exec::Exec;
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
    doc: "Rows of one SELECT, WITH, VALUES or TABLE statement as maps, in a READ ONLY transaction; a statement may \
          take 10 s and wait 2 s for a lock. `params` (strings, numbers, true, false, `()`) are `$1`, `$2`, …; they \
          are passed as values, never pasted. 1 MiB of rows at most. Fails with `usage` for another kind of statement \
          or more than one, `failed` with the server's words.",
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
    let engine = docker::engine(call.world, &stack.host)?;
    let look = Look::at(call.world.stack_target(&stack), sql.clone(), json!({ "sql": sql, "params": params }));
    let value =
        call.read(look.within(30), |_| async move { rows(&engine, &stack, &sql, &params).await.map(Value::from) })?;
    Ok(super::map(value))
}

/// The database of a stack, or an error that says what to write.
pub fn of_stack(stack: &Stack) -> Result<&Db> {
    let line = "db = { service = \"db\", user = \"…\", name = \"…\" }";
    stack.db.as_ref().ok_or_else(|| stack::lacks(stack, "database", line))
}

/// Rows of one statement that only reads.
pub async fn rows(engine: &Engine, stack: &Stack, sql: &str, params: &[Value]) -> Result<Vec<Value>> {
    let db = of_stack(stack)?;
    let what = || format!("db.query failed on {}", stack.name);
    let container = docker::find(engine, stack, &db.service).await?;
    let script = script(sql, params).map_err(|why| Error::new(Kind::Usage, what(), why))?;
    let words = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", &db.user, "-d", &db.name, "-f", "-"];
    let exec = Exec {
        words: words.iter().map(|word| word.to_string()).collect(),
        stdin: script.into_bytes(),
        keep: 1 << 20,
        ..Exec::default()
    };
    let ran = engine.exec(&container.id, exec).await?;
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    if ran.exit != 0 {
        let lines: Vec<&str> =
            said.lines().map(|line| line.split_once("ERROR:").map_or(line, |(_, rest)| rest.trim())).collect();
        return Err(Error::new(Kind::Failed, what(), lines.join("\n")).exit(ran.exit));
    }
    if ran.left_out > 0 {
        return Err(Error::new(Kind::Failed, what(), "the rows take more than 1 MiB").next("add a LIMIT"));
    }
    let out = String::from_utf8_lossy(&ran.stdout).into_owned();
    out.lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).map_err(|error| Error::new(Kind::Failed, what(), error.to_string())))
        .collect()
}

/// What psql reads. Each row comes back as one line of JSON; the statement is the value of a setting until the server
/// executes it, so psql never looks into it. Inside a DO the server refuses to end a transaction: a COMMIT that is
/// smuggled past [`check`] is an error. The ROLLBACK is for what PostgreSQL before 16 lets a READ ONLY transaction
/// write: large objects.
fn script(sql: &str, params: &[Value]) -> Result<String, String> {
    let mut lines = vec![
        "BEGIN READ ONLY;".to_string(),
        "SET LOCAL statement_timeout = '10s'; SET LOCAL lock_timeout = '2s';".into(),
    ];
    let mut names = Vec::new();
    for (at, param) in params.iter().enumerate() {
        lines.push(format!("\\set p{at} {}", variable(&literal(param)?)?));
        names.push(format!(":'p{at}'"));
    }
    let text = sql.trim().trim_end_matches(';');
    lines.push(format!(
        "\\set q {}",
        variable(&format!("PREPARE opsh AS SELECT row_to_json(opsh) FROM (\n{text}\n) AS opsh"))?
    ));
    lines.push("\\set SHOW_CONTEXT never".into());
    lines.push("SELECT set_config('opsh.q', :'q', true) AS q \\gset".into());
    lines.push("DO 'BEGIN EXECUTE current_setting(''opsh.q''); END';".into());
    let nulls: Vec<String> =
        params.iter().zip(names).map(|(param, name)| if param.is_null() { "NULL".into() } else { name }).collect();
    lines.push(if nulls.is_empty() { "EXECUTE opsh;".into() } else { format!("EXECUTE opsh({});", nulls.join(", ")) });
    lines.push("ROLLBACK;".into());
    Ok(lines.join("\n") + "\n")
}

fn literal(param: &Value) -> Result<String, String> {
    match param {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Null => Ok(String::new()),
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

/// Ok for exactly one statement of a kind that returns rows. This is for a clear error, not for safety: the server reads
/// strings, comments and names by more rules than these.
fn check(sql: &str) -> Result<(), String> {
    let text = sql.trim();
    let first = text.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or("").to_ascii_uppercase();
    if !["SELECT", "WITH", "VALUES", "TABLE"].contains(&first.as_str()) {
        return Err(format!(
            "db.query takes SELECT, WITH, VALUES or TABLE, not {}",
            if first.is_empty() { "this" } else { &first }
        ));
    }
    match statement_end(text) {
        Some(end) if !text[end + 1..].trim().is_empty() => {
            Err("db.query takes one statement, and there is text after a semicolon".into())
        }
        _ => Ok(()),
    }
}

/// Where the first semicolon outside quotes and comments is.
fn statement_end(sql: &str) -> Option<usize> {
    let bytes = sql.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &sql[at..];
        at += match bytes[at] {
            b';' => return Some(at),
            b'\'' | b'"' => quoted(rest),
            b'-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => comment(rest),
            b'$' => dollar_quoted(rest).unwrap_or(1),
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
    }
    None
}

fn quoted(text: &str) -> usize {
    let quote = text.as_bytes()[0];
    text.bytes().skip(1).position(|byte| byte == quote).map_or(text.len(), |end| end + 2)
}

fn comment(text: &str) -> usize {
    text[2..].find("*/").map_or(text.len(), |end| end + 4)
}

fn dollar_quoted(text: &str) -> Option<usize> {
    let tag_end = text[1..].find('$')? + 2;
    let tag = &text[..tag_end];
    if !tag[1..tag_end - 1].chars().all(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    Some(text[tag_end..].find(tag).map_or(text.len(), |end| tag_end + end + tag.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reading_statement_is_accepted() {
        for sql in [
            "SELECT 1",
            "select ';' ;",
            "WITH x AS (SELECT 1) SELECT * FROM x",
            "SELECT $tag$ ; $tag$",
            "SELECT 1 -- ; comment",
            "SELECT /* ; */ 1;\n",
            "SELECT 'it''s; fine'",
        ] {
            assert_eq!(check(sql), Ok(()), "{sql}");
        }
    }

    #[test]
    fn other_statements_and_second_ones_are_refused() {
        for sql in
            ["", "DELETE FROM x", "SELECT 1; DROP TABLE x", "COMMIT", "SELECT 'a'; COMMIT; DELETE FROM x", "\\! id"]
        {
            assert!(check(sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn nothing_of_a_value_is_a_psql_command() {
        let script = script("SELECT $1\n\\! touch /tmp/x", &[json!("a'b\\! id\n\\q")]).expect("a script");
        for line in script.lines() {
            assert!(!line.starts_with("\\!") && !line.starts_with("\\q"), "{line}");
        }
        assert!(script.contains(r"\set p0 'a\'b\\! id\n\\q'"), "{script}");
    }

    #[test]
    fn a_null_parameter_is_sql_null() {
        let script = script("SELECT $1", &[Value::Null]).expect("a script");
        assert!(script.contains("EXECUTE opsh(NULL);"), "{script}");
    }
}
