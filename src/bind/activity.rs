//! What a stack's database does now, and ending one query or one session of it.
//!
//! A process number is used again: what is ended is what was looked at, by the times at which its session and its query
//! began, and the statement that ends it compares both.

use super::docker::engine::Engine;
use super::{Binding, Call, Change, Look, Receipt, db};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::Did;
use crate::gate::verb::{Class, Verb};
use crate::redact;
use rhai::Dynamic;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const ACTIVITY: Verb = Verb {
    name: "db.activity",
    class: Class::Read,
    waits: false,
    sig: "stack.activity() -> array",
    doc: "What the database does now, the longest first. Sessions that wait for their client come last; opsh's own is left \
          out. Each is a map: `pid`, `user`, `application`, `client` (address, or `local`), `state`, `for_s` (seconds: how \
          long its query runs, or since its state changed), `transaction_s` (seconds since its transaction began, or `()`), \
          `wait` (what a running one waits for, or `()`), `blocked_by` (pids whose locks it waits for), `query` (200 \
          characters at most, secrets hidden), `began` and `query_began` (times that tell it from a later one of that pid). \
          Of other roles' sessions PostgreSQL may tell nothing but the pid. Fails with `usage` for a stack without a database, \
          `not_found` when it has no container. Deadline 30 s.",
    example: r#"stack("prod").activity().filter(|s| s.blocked_by.len() > 0)"#,
};

const CANCEL: Verb = Verb {
    name: "db.cancel",
    class: Class::Change,
    waits: false,
    sig: "stack.cancel_query(pid: int) -> receipt",
    doc: "Ends the query of a session, not the session. `pid` (1 to 4194304) is one of `stack.activity`; its \
          statement fails, and a transaction that it is in fails with it. Cannot be undone. Another query that runs there by \
          then is left alone. `before` is what it was doing; `after` what the session does then (`()` when it is gone). \
          Fails with `not_found` when no client of this database has that pid, `unmet` when it runs no query, `failed` \
          when the query still runs after 5 s. Deadline 60 s.",
    example: r#"stack("prod").cancel_query(4711)"#,
};

const KILL: Verb = Verb {
    name: "db.kill",
    class: Class::Change,
    waits: false,
    sig: "stack.kill_query(pid: int) -> receipt",
    doc: "Ends a session of the database. `pid` (1 to 4194304) is one of `stack.activity`; its open transaction is rolled \
          back, and its client loses the connection. What was committed stays. Cannot be undone. A later session of that \
          pid is left alone. `before` is what it was doing; `after` is `()`. Fails with `not_found` when no client of this \
          database has that pid, `failed` when the session is still there after 5 s. Deadline 60 s.",
    example: r#"stack("prod").kill_query(4711)"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] =
    &[Binding::Read(&ACTIVITY, activity), Binding::Change(&CANCEL, cancel), Binding::Change(&KILL, kill)];

/// Clients of this database, or the one of pid `$1`. PostgreSQL's own workers are none, and neither is the session that asks.
macro_rules! clients {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
             AND backend_type = 'client backend' AND ($1::text IS NULL OR pid::text = $1::text)",
            $after
        )
    };
}

const SESSIONS: &str = clients!(
    "SELECT pid, usename AS \"user\", application_name AS application, coalesce(host(client_addr), 'local') AS client, \
     state, greatest(0, extract(epoch FROM clock_timestamp() - CASE WHEN state = 'active' THEN query_start \
     ELSE coalesce(state_change, backend_start) END))::bigint AS for_s, \
     extract(epoch FROM clock_timestamp() - xact_start)::bigint AS transaction_s, \
     CASE WHEN state = 'active' AND wait_event IS NOT NULL THEN wait_event_type || ': ' || wait_event END AS wait, \
     pg_blocking_pids(pid) AS blocked_by, query, backend_start::text AS began, query_start::text AS query_began",
    " ORDER BY coalesce(state, 'idle') = 'idle', for_s DESC, pid"
);

const LONGEST: usize = 200;

/// How long a query or a session may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

async fn sessions(engine: &Engine, stack: &Stack) -> Result<Vec<Value>> {
    Ok(db::rows(engine, stack, SESSIONS, &[Value::Null]).await?.into_iter().map(shown).collect())
}

/// The session with this pid, as it is now.
async fn session(engine: &Engine, stack: &Stack, pid: i64) -> Result<Option<Value>> {
    let found = db::rows(engine, stack, SESSIONS, &[json!(pid)]).await?;
    Ok(found.into_iter().next().map(shown))
}

/// With a query that can be shown: what is secret is hidden before it is cut, or a part of it would be left.
fn shown(mut row: Value) -> Value {
    row["query"] = json!(redact::cut_line(row["query"].as_str().unwrap_or_default(), LONGEST));
    row
}

fn activity(call: &Call<'_>) -> Result<Dynamic> {
    let (stack, way) = db::open(call)?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({})).within(30);
    let value = call.read(look, (stack, way), |pass, (stack, way)| async move {
        sessions(&way.engine(&pass).await?, &stack).await.map(Value::from)
    })?;
    Ok(super::map(value))
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Query,
    Session,
}

impl End {
    fn what(self, pid: i64) -> String {
        match self {
            End::Query => format!("the query of session {pid} was not cancelled"),
            End::Session => format!("session {pid} was not ended"),
        }
    }

    /// One statement that looks and ends: nothing can come between.
    fn sql(self) -> &'static str {
        match self {
            End::Query => clients!(
                "SELECT pg_cancel_backend(pid) AS sent",
                " AND backend_start = $2::timestamptz AND state = 'active' AND query_start = $3::timestamptz"
            ),
            End::Session => {
                clients!("SELECT pg_terminate_backend(pid) AS sent", " AND backend_start = $2::timestamptz")
            }
        }
    }

    /// What was seen is over.
    fn is_over(self, seen: &Value, now: &Value) -> bool {
        let same = |key: &str| now[key] == seen[key];
        match self {
            End::Session => !same("began"),
            End::Query => !(same("began") && same("query_began") && now["state"] == "active"),
        }
    }
}

fn cancel(call: &Call<'_>) -> Result<Receipt> {
    end(call, End::Query)
}

fn kill(call: &Call<'_>) -> Result<Receipt> {
    end(call, End::Session)
}

fn end(call: &Call<'_>, end: End) -> Result<Receipt> {
    let pid = call.int(0, 1..=4_194_304)?;
    let (stack, way) = db::open(call)?;
    let target = call.world.stack_target(&stack);
    let look = Look::at(target.clone(), format!("session {pid}"), json!({ "pid": pid }));
    let seen = call.read(look, (Arc::clone(&stack), way.clone()), move |pass, (stack, way)| async move {
        let found = session(&way.engine(&pass).await?, &stack, pid).await?;
        let seen =
            found.ok_or_else(|| failed(&stack, end, pid, Kind::NotFound, "no client of this database has that pid"))?;
        if end == End::Query && seen["state"] != "active" {
            let why = format!("it runs no query: it is {}", seen["state"].as_str().unwrap_or("of another role"));
            let line = format!(
                "stack({}).kill_query({pid})     ends the session, its transaction is rolled back",
                json!(stack.name)
            );
            return Err(failed(&stack, end, pid, Kind::Unmet, why).next(line));
        }
        Ok(seen)
    })?;
    let says = format!("session {pid} of {}, {}: {}", said(&seen["user"]), said(&seen["state"]), said(&seen["query"]));
    let args = json!({ "pid": pid, "began": seen["began"], "query_began": seen["query_began"] });
    let change = Change { before: seen.clone(), ..Change::of(Look::at(target, says, args)) };
    call.change(change, (stack, way, seen), move |pass, (stack, way, seen)| async move {
        let engine = way.engine(&pass).await?;
        let params = [json!(pid), seen["began"].clone(), seen["query_began"].clone()];
        let params = if end == End::Query { &params[..] } else { &params[..2] };
        pass.sending();
        let sent = db::rows(&engine, &stack, end.sql(), params).await?;
        let after = over(&engine, &stack, end, pid, &seen).await?;
        // Nothing was sent to what had ended by itself.
        let changed = sent.first().is_some_and(|row| row["sent"] == true);
        Ok(Did { changed, before: seen, after, ..Did::default() })
    })
}

/// What the session does once that which was seen is over.
async fn over(engine: &Engine, stack: &Stack, end: End, pid: i64, seen: &Value) -> Result<Value> {
    let mut waited = Duration::ZERO;
    let pause = Duration::from_millis(100);
    loop {
        let now = session(engine, stack, pid).await?.filter(|now| now["began"] == seen["began"]).unwrap_or_default();
        if end.is_over(seen, &now) {
            return Ok(now);
        }
        if waited >= PATIENCE {
            let why = format!("it was told to, and goes on: {}, {}", said(&now["state"]), said(&now["wait"]));
            return Err(failed(stack, end, pid, Kind::Failed, why));
        }
        tokio::time::sleep(pause).await;
        waited += pause;
    }
}

fn failed(stack: &Stack, end: End, pid: i64, kind: Kind, why: impl Into<String>) -> Error {
    let line = format!("stack({}).activity()     what it does now", json!(stack.name));
    Error::new(kind, end.what(pid), why).host(&stack.host).next(line)
}

fn said(value: &Value) -> &str {
    value.as_str().unwrap_or("nothing that is told")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_query_or_session_of_the_same_pid_is_another_one() {
        let seen = json!({ "began": "1", "query_began": "2", "state": "active" });
        let now =
            |began: &str, query: &str, state: &str| json!({ "began": began, "query_began": query, "state": state });
        assert!(!End::Query.is_over(&seen, &now("1", "2", "active")));
        assert!(
            End::Query.is_over(&seen, &now("1", "3", "active")) && End::Query.is_over(&seen, &now("1", "2", "idle"))
        );
        assert!(!End::Session.is_over(&seen, &now("1", "3", "idle")));
        assert!(End::Session.is_over(&seen, &now("4", "2", "active")) && End::Session.is_over(&seen, &Value::Null));
        assert!(End::Query.sql().contains("query_start = $3") && End::Session.sql().contains("backend_start = $2"));
    }

    #[test]
    fn a_query_is_one_line_of_200_characters() {
        let row = shown(json!({ "query": format!("SELECT\n  '{}'", "é".repeat(300)) }));
        let query = row["query"].as_str().expect("a text");
        assert!(query.chars().count() == 200 && query.starts_with("SELECT 'é") && query.ends_with('…'), "{query}");
    }
}
