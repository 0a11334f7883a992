//! Bringing a backup back: into a database beside the one that serves, which then takes its place.
//!
//! The old database is kept under a dated name, so going back is another change of names. Until the names change nothing
//! is lost, and a failure leaves nothing behind.

use super::folder::{Folder, Saved};
use super::scripts;
use crate::bind::docker::engine::Engine;
use crate::bind::docker::exec::Exec;
use crate::bind::undo::{Now, Past};
use crate::bind::way::Way;
use crate::bind::{Binding, Call, Change, Look, Receipt, db, docker, host};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Lives, Pass};
use rhai::Dynamic;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const PLAN: Verb = Verb {
    name: "backup.restore_plan",
    class: Class::Read,
    waits: true,
    sig: "stack.restore_plan(file: string) -> map",
    doc: "What bringing a backup back would change. A map: the backup as in `stack.backups`, `database`, `rows` (each table's \
          `table`, `now` and `then`, where they differ; `()` for a table that is not there), `needs_bytes` and \
          `free_bytes` where the database lies (`()` when that cannot be told), `server` (major version), `kept` \
          (databases that earlier restores left), and `problems`, why it would not be done. Fails with `not_found` for \
          a file that is not there, `failed` when rows cannot be counted within 10 s. Deadline 60 s.",
    example: r#"stack("prod").restore_plan(stack("prod").backups()[0].file).rows"#,
};

const RESTORE: Verb = Verb {
    name: "backup.restore",
    class: Class::Destroy,
    waits: false,
    sig: "stack.restore(file: string, options?: #{ within_s: int }) -> receipt",
    doc: "Puts a backup in the place of the database. `file` is proved once more, restored into a new database, and that \
          one's rows are counted; then both change their names in one transaction, which ends their sessions. The old one \
          is kept as `NAME_before_TIME`; what is written meanwhile stays there: freeze first. Runs detached on the host. \
          Options: `within_s` (60 to 86400, default 7200). `before` and `after` are the ids of the database. Fails with \
          `unmet` for what `stack.restore_plan` calls a problem, `failed` when it was not done: then the old database \
          serves. Deadline 7200 s, or `within_s`.",
    example: r#"stack("prod").restore("/var/backups/opsh/shop-20261124T061743Z-0123456789ab.dump")"#,
};

const SWAP: Verb = Verb {
    name: "backup.swap",
    class: Class::Destroy,
    waits: false,
    sig: "stack.swap_database(name: string) -> receipt",
    doc: "Puts a database that a restore kept in place. `name` is `NAME_before_TIME`, and the one that serves becomes \
          `NAME_after_TIME`, or the other way round. Its sessions are ended. Runs detached on the host. Fails with `usage` \
          for another name, `failed` when there is no such database or the names were not changed. Deadline 120 s.",
    example: r#"stack("prod").swap_database("shop_before_20261124t061743z")"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] =
    &[Binding::Read(&PLAN, plan), Binding::Undoable(&RESTORE, restore, restored_now), Binding::Change(&SWAP, swap)];

/// PostgreSQL cuts longer names.
const LONGEST_NAME: usize = 63;

async fn survey(way: &Way, pass: &Pass, stack: &Arc<Stack>, file: &str) -> Result<Value> {
    let (reach, engine, db) = (way.reach(pass).await?, way.engine(pass).await?, db::of_stack(stack)?);
    let folder = Folder::look(&reach, pass, stack).await?;
    let saved = folder.saved.iter().find(|saved| saved.file == file).ok_or_else(|| {
        let what = format!("no backup {file}");
        Error::new(Kind::NotFound, what, format!("{} has no such backup of {}", stack.backup.dir, db.name))
            .next(format!("stack({}).backups()     what is there", json!(stack.name)))
    })?;
    let container = docker::only(&engine, stack, &db.service).await?.id;
    let asked = "SELECT (SELECT oid::text FROM pg_database WHERE datname = current_database()) AS oid, \
                 current_setting('server_version_num')::int / 10000 AS major, \
                 (SELECT coalesce(json_agg(datname ORDER BY 1), '[]') FROM pg_database \
                  WHERE datname LIKE replace(current_database(), '_', '\\_') || '\\_before\\_%' \
                  OR datname LIKE replace(current_database(), '_', '\\_') || '\\_after\\_%') AS kept";
    let said = db::rows(&engine, stack, asked, &[]).await?.into_iter().next().unwrap_or_default();
    let mut plan = saved.to_json();
    for key in ["database", "tables"] {
        plan[key] = saved.note[key].clone();
    }
    plan["rows"] = differences(&saved.note["rows"], &rows_now(&engine, stack).await?);
    plan["needs_bytes"] = saved.note["database_bytes"].clone();
    plan["free_bytes"] = json!(free_bytes(&engine, &container).await?);
    for (key, value) in [("server", &said["major"]), ("kept", &said["kept"]), ("oid", &said["oid"])] {
        plan[key] = value.clone();
    }
    (plan["at_host"], plan["container"]) = (json!(folder.at), json!(container));
    plan["problems"] = problems(&plan, saved, &db.name).into();
    Ok(plan)
}

/// Rows of each table of the database.
async fn rows_now(engine: &Engine, stack: &Stack) -> Result<BTreeMap<String, i64>> {
    let asked = "SELECT string_agg(format('SELECT %L AS name, count(*) AS n FROM %I.%I', format('%I.%I', n.nspname, c.relname), \
                 n.nspname, c.relname), ' UNION ALL ') AS counts FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
                 AND n.nspname NOT LIKE 'pg\\_toast%'";
    let found = db::rows(engine, stack, asked, &[]).await?;
    let Some(counts) = found.first().and_then(|row| row["counts"].as_str()) else { return Ok(BTreeMap::new()) };
    let rows = db::judged(engine, stack, counts, &[]).await?;
    Ok(rows.iter().filter_map(|row| Some((row["name"].as_str()?.to_string(), row["n"].as_i64()?))).collect())
}

/// Tables whose rows are not as many as in the dump.
fn differences(then: &Value, now: &BTreeMap<String, i64>) -> Value {
    let then: BTreeMap<String, i64> = serde_json::from_value(then.clone()).unwrap_or_default();
    let mut names: Vec<&String> = then.keys().chain(now.keys()).collect();
    names.sort();
    names.dedup();
    let differ = names.into_iter().filter(|name| then.get(*name) != now.get(*name));
    differ.map(|name| json!({ "table": name, "now": now.get(name), "then": then.get(name) })).collect()
}

/// Bytes that are free where the database lies; `None` when its container cannot say.
async fn free_bytes(engine: &Engine, container: &str) -> Result<Option<u64>> {
    let words = ["sh", "-c", "df -Pk \"${PGDATA:?}\""].map(String::from).to_vec();
    let ran = engine.exec(container, Exec { words, keep: 4096, ..Exec::default() }).await;
    let Ok(ran) = ran else { return Ok(None) };
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let free = said.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    Ok(free.filter(|_| ran.exit == 0).map(|kib| kib.saturating_mul(1024)))
}

fn problems(plan: &Value, saved: &Saved, db: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !saved.ok() {
        found.push(plan["why"].as_str().unwrap_or("it is not what was written down about it").to_string());
    }
    if saved.ok() && saved.note["database"] != db {
        found.push(format!("it is a backup of {}, not of {db}", saved.note["database"]));
    }
    let (then, now) = (saved.note["server"].as_i64().unwrap_or(0), plan["server"].as_i64().unwrap_or(0));
    if then > now {
        found.push(format!("it was made by a server of version {then}, and this one is {now}"));
    }
    if let (Some(needs), Some(free)) = (plan["needs_bytes"].as_u64(), plan["free_bytes"].as_u64())
        && free < needs
    {
        found.push(format!("{free} bytes are free where the database lies, and it had {needs}"));
    }
    let longest = name_of(db, "before", "20261124t061743z");
    if longest.len() > LONGEST_NAME {
        found.push(format!("the server cuts {longest}, the name that the old one would get"));
    }
    found
}

fn name_of(db: &str, which: &str, stamp: &str) -> String {
    format!("{db}_{which}_{stamp}")
}

/// What [`PLAN`] gives, as a read of the verb that is called.
fn looked(call: &Call<'_>, stack: &Arc<Stack>, way: &Way, file: &str) -> Result<Value> {
    let look = Look::at(call.world.stack_target(stack), file, json!({ "file": file }));
    call.read(look, (Arc::clone(stack), way.clone(), file.to_string()), |pass, (stack, way, file)| async move {
        survey(&way, &pass, &stack, &file).await
    })
}

fn plan(call: &Call<'_>) -> Result<Dynamic> {
    let (file, (stack, way)) = (call.text(0)?, db::open(call)?);
    looked(call, &stack, &way, &file).map(crate::bind::map)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    within_s: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { within_s: 7200 }
    }
}

fn restore(call: &Call<'_>) -> Result<Receipt> {
    let (file, (stack, way)) = (call.text(0)?, db::open(call)?);
    let Options { within_s } = call.options(1)?;
    call.in_range("within_s", within_s, 60..=86400)?;
    let db = db::of_stack(&stack)?.name.clone();
    call.intends(|| {
        let says = format!("{file} in the place of {db}, which is kept");
        Change::of(Look::at(call.world.stack_target(&stack), says, json!({ "file": file }))).loses(db.clone())
    })?;
    let plan = looked(call, &stack, &way, &file)?;
    let problems: Vec<&str> = plan["problems"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !problems.is_empty() {
        let line = format!("stack({}).backups()     what else is there", json!(stack.name));
        return Err(Error::new(Kind::Unmet, failed(&stack, &file), problems.join("\n")).next(line));
    }
    let stamp = plan["at_host"].as_str().unwrap_or_default().to_ascii_lowercase();
    let (new, old) = (name_of(&db, "opsh", &stamp), name_of(&db, "before", &stamp));
    let says = format!("{file} in the place of {db}, kept as {old}");
    let args = json!({ "file": file, "old": old, "from": plan["oid"] });
    let change = Change::of(Look::at(call.world.stack_target(&stack), says, args).within(within_s))
        .undone_by(format!("stack({}).swap_database({})", json!(stack.name), json!(old)), plan["oid"].clone())
        .lives(Lives::Run(stack.host.clone()))
        .loses(db);
    call.change(change, (stack, way, plan, file, new, old), |pass, (stack, way, plan, file, new, old)| async move {
        let db = db::of_stack(&stack)?;
        let text = |key: &str| plan[key].as_str().unwrap_or_default();
        let size = plan["size_bytes"].to_string();
        let own = [text("container"), &db.user, &db.name, &file, &size, text("sha256"), &new, &old];
        run(&way, &pass, &stack, &scripts::restore(), &own, &failed(&stack, &file)).await?;
        let after = oid(&way, &pass, &stack).await?;
        Ok(Did { changed: true, before: plan["oid"].clone(), after, ..Did::default() })
    })
}

fn failed(stack: &Stack, file: &str) -> String {
    format!("{file} was not restored on {}", stack.name)
}

async fn run(way: &Way, pass: &Pass, stack: &Stack, script: &str, own: &[&str], what: &str) -> Result<()> {
    let words = ["sh", "-c", script, "opsh"].iter().chain(own).map(|word| word.to_string()).collect();
    let ran = host::run_durable(&way.reach(pass).await?, pass, &stack.host, &host::words_of(words)).await?;
    if ran.code == 0 {
        return Ok(());
    }
    Err(Error::new(Kind::Failed, what, ran.why(5))
        .exit(ran.code.into())
        .next(format!("stack({}).probe()     whether the old database serves", json!(stack.name))))
}

/// Id of the database that serves.
async fn oid(way: &Way, pass: &Pass, stack: &Stack) -> Result<Value> {
    let asked = "SELECT oid::text AS oid FROM pg_database WHERE datname = current_database()";
    let rows = db::rows(&way.engine(pass).await?, stack, asked, &[]).await?;
    Ok(rows.first().map_or(Value::Null, |row| row["oid"].clone()))
}

/// Which database serves now.
fn restored_now(past: &Past<'_>) -> Result<Now> {
    let (stack, way) = past.stack()?;
    let from = json!(past.text("from"));
    let of = format!("id of the database of {}", stack.name);
    past.look(of, (stack, way, from), |pass, (stack, way, from)| async move {
        let now = oid(&way, &pass, &stack).await?;
        // Its id was not known before: any other one than the old one's is it.
        let wanted = if now == from { Value::Null } else { now.clone() };
        Ok((now, wanted))
    })
}

fn swap(call: &Call<'_>) -> Result<Receipt> {
    let (name, (stack, way)) = (call.text(0)?, db::open(call)?);
    let db = db::of_stack(&stack)?.name.clone();
    let other =
        other_name(&db, &name).ok_or_else(|| call.bad(&format!("\"{name}\" is no name that a restore gives")))?;
    let says = format!("{name} in the place of {db}, kept as {other}");
    let look = Look::at(call.world.stack_target(&stack), says, json!({ "name": name })).within(120);
    let change = Change::of(look)
        .undone_by(format!("stack({}).swap_database({})", json!(stack.name), json!(other)), Value::Null)
        .lives(Lives::Run(stack.host.clone()))
        .loses(db);
    call.change(change, (stack, way, name, other), |pass, (stack, way, name, other)| async move {
        let db = db::of_stack(&stack)?;
        let before = oid(&way, &pass, &stack).await?;
        let container = docker::only(&way.engine(&pass).await?, &stack, &db.service).await?.id;
        let own = [container.as_str(), &db.user, &db.name, &name, &other];
        run(&way, &pass, &stack, &scripts::swap(), &own, &format!("{name} was not put in place on {}", stack.name))
            .await?;
        let after = oid(&way, &pass, &stack).await?;
        Ok(Did { changed: before != after, before, after, ..Did::default() })
    })
}

/// What the database that serves is called when the one of that name takes its place.
fn other_name(db: &str, name: &str) -> Option<String> {
    let rest = name.strip_prefix(db)?.strip_prefix('_')?;
    let (which, stamp) = rest.split_once('_')?;
    let plain = stamp.len() == 16 && stamp.bytes().all(|byte| byte.is_ascii_digit() || byte == b't' || byte == b'z');
    let other = match which {
        "before" => "after",
        "after" => "before",
        _ => return None,
    };
    plain.then(|| name_of(db, other, stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_restore_gives_go_to_and_fro() {
        let (before, after) = ("shop_before_20261124t061743z", "shop_after_20261124t061743z");
        assert_eq!(other_name("shop", before).as_deref(), Some(after));
        assert_eq!(other_name("shop", after).as_deref(), Some(before));
        for other in
            ["postgres", "shop", "shop_opsh_20261124t061743z", "shop_before_x", "other_before_20261124t061743z"]
        {
            assert_eq!(other_name("shop", other), None, "{other}");
        }
    }

    #[test]
    fn only_tables_that_differ_are_told_with_both_counts() {
        let now = BTreeMap::from([("a".to_string(), 3), ("b".to_string(), 1), ("new".to_string(), 0)]);
        assert_eq!(
            differences(&json!({ "a": 2, "b": 1, "gone": 5 }), &now),
            json!([
                { "table": "a", "now": 3, "then": 2 }, { "table": "gone", "now": null, "then": 5 },
                { "table": "new", "now": 0, "then": null },
            ])
        );
    }

    #[test]
    fn what_forbids_a_restore_is_said() {
        let note = json!({ "size_bytes": 5, "database": "else", "server": 16 });
        let saved = Saved { size: 5, note, ..Saved::default() };
        let plan = json!({ "server": 15, "needs_bytes": 10, "free_bytes": 9 });
        let found = problems(&plan, &saved, &"n".repeat(40)).join("; ");
        for part in
            ["a backup of \"else\", not of", "version 16, and this one is 15", "9 bytes are free", "the server cuts"]
        {
            assert!(found.contains(part), "{part}: {found}");
        }
        let saved = Saved { size: 4, ..saved };
        assert!(problems(&json!({ "why": "it had 5" }), &saved, "else")[0].contains("it had 5"));
    }
}
