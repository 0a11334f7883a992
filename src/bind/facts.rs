//! What a stack is like now, and what became of it while somebody worked on it.

use super::docker::short_id;
use super::migrate::{self, Applied};
use super::ssh::Reach;
use super::way::Way;
use super::{Binding, Call, Change, Look, db, host, http};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Effect, Pass};
use rhai::Dynamic;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

const FACTS: Verb = Verb {
    name: "stack.facts",
    class: Class::Read,
    waits: false,
    sig: "stack.facts() -> map",
    doc: "What the stack is like now, in one look. A map: `services`, by name a map of `container`, `image_id`, \
          `state`, `health`, `restarts`; `ledger` (a map: `newest`, `applied`, how many, `dirty`); `probes`, as \
          `stack.probe`; `connections`, the sessions of the database; `disk_free`, bytes where the stack lies; \
          `unknown`, by the name of what could not be looked at, why. That, and what opsh.toml does not name, is `()`. \
          `stack.locked` looks before and after, and says what differs. Fails with `unreachable` and `denied` when there \
          is no way to the host. Deadline 60 s.",
    example: r#"stack("prod").facts()"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[Binding::Read(&FACTS, facts)];

fn facts(call: &Call<'_>) -> Result<Dynamic> {
    let (stack, way) = call.stack_and_way()?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({}));
    let value = call.read(look, (stack, way), |pass, (stack, way)| async move { seen(&pass, &stack, &way).await })?;
    Ok(super::map(value))
}

/// The same look as a part of another verb.
pub fn look(call: &Call<'_>, stack: &Arc<Stack>) -> Result<Value> {
    let (world, way) = (call.world, call.world.way(&stack.host)?);
    let effect = Change::of(Look::at(world.stack_target(stack), "", json!({}))).effect(&FACTS);
    let effect = Effect { place: call.place.clone(), ..effect };
    let done = world.gate.perform(&effect, |pass| {
        let (stack, way) = (Arc::clone(stack), way.clone());
        async move { seen(&pass, &stack, &way).await.map(Did::value) }
    })?;
    Ok(done.into_value())
}

async fn seen(pass: &Pass, stack: &Stack, way: &Way) -> Result<Value> {
    let reach = way.reach(pass).await?;
    let (services, ledger, probes, connections, disk) = tokio::join!(
        services(pass, stack, way),
        ledger(pass, stack, way),
        http::ask_all(&reach, pass, stack),
        connections(pass, stack, way),
        disk_free(&reach, pass, stack, way),
    );
    let mut unknown = Map::new();
    let mut known = |name: &str, value: Result<Value>| {
        value.unwrap_or_else(|error: Error| {
            unknown.insert(name.into(), error.why.lines().next().unwrap_or_default().into());
            Value::Null
        })
    };
    let mut facts = json!({
        "services": known("services", services), "ledger": known("ledger", ledger),
        "probes": known("probes", probes.map(Value::from)), "connections": known("connections", connections),
        "disk_free": known("disk_free", disk),
    });
    facts["unknown"] = unknown.into();
    Ok(facts)
}

async fn services(pass: &Pass, stack: &Stack, way: &Way) -> Result<Value> {
    let engine = way.engine(pass).await?;
    let mut services = Map::new();
    for container in engine.containers(&stack.compose.project).await? {
        let detail = match engine.inspect(&container.id).await {
            Ok(detail) => detail,
            // It was replaced between the two questions.
            Err(error) if error.kind == Kind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let row = json!({
            "container": detail.id, "image_id": detail.image_id, "state": detail.state,
            "health": detail.health.map(|health| health.status), "restarts": detail.restart_count,
        });
        services.insert(container.service, row);
    }
    Ok(services.into())
}

async fn ledger(pass: &Pass, stack: &Stack, way: &Way) -> Result<Value> {
    if stack.migrate.is_none() {
        return Ok(Value::Null);
    }
    let Applied { newest, count, dirty } = migrate::applied(&way.engine(pass).await?, stack).await?;
    Ok(json!({ "newest": newest, "applied": count, "dirty": dirty }))
}

async fn connections(pass: &Pass, stack: &Stack, way: &Way) -> Result<Value> {
    if stack.db.is_none() {
        return Ok(Value::Null);
    }
    let sql =
        "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let rows = db::rows(&way.engine(pass).await?, stack, sql, &[]).await?;
    Ok(rows.first().map_or(Value::Null, |row| row["n"].clone()))
}

async fn disk_free(reach: &Reach, pass: &Pass, stack: &Stack, way: &Way) -> Result<Value> {
    let out = host::look(reach, pass, way.name(), &["df", "-Pk", "--", &stack.dir]).await?;
    let kib = out.lines().last().and_then(|line| line.split_whitespace().nth(3)?.parse::<i64>().ok());
    Ok(kib.map_or(Value::Null, |kib| (kib * 1024).into()))
}

/// The lines that say what became of a stack: what is measured always, the rest where it differs.
pub fn delta(before: &Value, after: &Value) -> Vec<String> {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut same = Vec::new();
    // What was not seen on one side did not change for that.
    let is_unknown = |name: &str| before["unknown"][name].is_string() || after["unknown"][name].is_string();
    let seen = |name: &str, map: &Value| if is_unknown(name) { Value::Null } else { map.clone() };
    for (service, was, is) in pairs(&seen("services", &before["services"]), &seen("services", &after["services"])) {
        if was == is {
            same.push(service);
            continue;
        }
        let mut row = |what: &str, word: fn(&Value) -> String| {
            let (was, is) = (word(&was), word(&is));
            if was != is {
                rows.push((format!("{service} {what}"), changed(&was, &is)));
            }
        };
        row("image", |service| short(&service["image_id"]));
        row("container", |service| short(&service["container"]));
        row("state", state);
        row("restarts", |service| said(&service["restarts"]));
    }
    for (name, word) in [("ledger", applied as fn(&Value) -> String), ("connections", said), ("disk_free", gib)] {
        if is_unknown(name) {
            continue;
        }
        let (was, is) = (word(&before[name]), word(&after[name]));
        if was != is || name != "ledger" && !after[name].is_null() {
            rows.push((name.replace('_', " "), changed(&was, &is)));
        } else if !after[name].is_null() {
            same.push(format!("ledger {is}"));
        }
    }
    let probes = |facts: &Value| -> Value {
        let rows = facts["probes"].as_array().cloned().unwrap_or_default();
        rows.into_iter().map(|probe| (said(&probe["url"]), probe)).collect::<Map<_, _>>().into()
    };
    for (url, was, is) in pairs(&seen("probes", &probes(before)), &seen("probes", &probes(after))) {
        rows.push((url, changed(&answer(&was), &answer(&is))));
    }
    for (name, was, is) in pairs(&before["unknown"], &after["unknown"]) {
        let (when, why) = if is.is_null() { ("unknown before", was) } else { ("unknown", is) };
        rows.push((name.replace('_', " "), format!("{when}: {}", said(&why))));
    }
    let width = rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
    let mut lines: Vec<String> = rows.iter().map(|(what, change)| format!("{what:width$}  {change}")).collect();
    if !same.is_empty() {
        lines.push(format!("{:width$}  {}", "as before", same.join(", ")));
    }
    lines
}

/// The values of two maps by their names, null where one has none.
fn pairs(before: &Value, after: &Value) -> Vec<(String, Value, Value)> {
    let names = |map: &Value| map.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let all: BTreeSet<String> = names(before).into_iter().chain(names(after)).collect();
    all.into_iter().map(|name| (name.clone(), before[&name].clone(), after[&name].clone())).collect()
}

fn changed(was: &str, is: &str) -> String {
    if was == is { is.into() } else { format!("{was} → {is}") }
}

fn said(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn short(id: &Value) -> String {
    id.as_str().map_or("none".into(), |id| short_id(id).chars().take(12).collect())
}

fn state(service: &Value) -> String {
    match service["health"].as_str() {
        Some(health) => format!("{} ({health})", said(&service["state"])),
        None => said(&service["state"]),
    }
}

fn applied(ledger: &Value) -> String {
    if ledger.is_null() {
        return "unknown".into();
    }
    let count = ledger["applied"].as_i64().map_or(String::new(), |count| format!(" ({count} applied)"));
    let dirty = if ledger["dirty"] == true { ", dirty" } else { "" };
    format!("{}{count}{dirty}", said(&ledger["newest"]))
}

fn gib(bytes: &Value) -> String {
    bytes.as_f64().map_or("unknown".into(), |bytes| format!("{:.1} GiB", bytes / f64::from(1 << 30)))
}

fn answer(probe: &Value) -> String {
    match probe["status"].as_i64() {
        None => "not asked".into(),
        Some(0) => "no answer".into(),
        Some(status) => format!("{status} in {:.0} ms", probe["ms"].as_f64().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(image: &str, newest: i64, status: i64) -> Value {
        let service = |image: &str| json!({ "container": format!("c{image}"), "image_id": format!("sha256:{image}"), "state": "running", "health": null, "restarts": 0 });
        json!({
            "services": { "backend": service(image), "db": service("d") },
            "ledger": { "newest": newest, "applied": newest, "dirty": false },
            "probes": [{ "url": "http://x/", "status": status, "ms": 3.4 }],
            "connections": 6, "disk_free": 22_548_578_304_i64, "unknown": {},
        })
    }

    #[test]
    fn what_differs_is_said_with_both_values_and_what_does_not_in_one_line() {
        let lines = delta(&facts("aaa", 48, 500), &facts("bbb", 46, 200));
        let expected = [
            "backend image      aaa → bbb",
            "backend container  caaa → cbbb",
            "ledger             48 (48 applied) → 46 (46 applied)",
            "connections        6",
            "disk free          21.0 GiB",
            "http://x/          500 in 3 ms → 200 in 3 ms",
            "as before          db",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_could_not_be_looked_at_is_named_and_a_service_that_is_gone_too() {
        let mut after = facts("aaa", 48, 0);
        after["services"] = json!({ "db": after["services"]["db"] });
        (after["connections"], after["unknown"]) = (Value::Null, json!({ "connections": "no container" }));
        let lines = delta(&facts("aaa", 48, 200), &after);
        let lines: Vec<String> =
            lines.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for line in [
            "backend image aaa → none",
            "connections unknown: no container",
            "http://x/ 200 in 3 ms → no answer",
            "as before db, ledger 48 (48 applied)",
        ] {
            assert!(lines.iter().any(|said| said == line), "{line}: {lines:?}");
        }
    }
}
