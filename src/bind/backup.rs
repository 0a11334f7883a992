//! Backups of a stack's database: dumps in a folder on its host, each proved before it gets its name.
//!
//! A dump is made by the client in the database's container and written to a file by the shell on the host, so that the
//! status is that of pg_dump. It is read to its end before it is renamed: a good name is a good dump. Nothing is removed
//! unless it is named: `backup_plan` says which ones are more than are kept.

mod folder;
pub mod restore;
mod scripts;

use super::docker;
use super::docker::engine::Engine;
use super::docker::exec::Exec;
use super::git;
use super::ssh::Reach;
use super::undo::{Now, Past};
use super::way::Way;
use super::{Binding, Call, Change, Look, Receipt, db, host};
use crate::config::{Stack, passing_place};
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Lives, Pass};
use folder::{Folder, Saved};
use rhai::Dynamic;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

const PLAN: Verb = Verb {
    name: "backup.plan",
    class: Class::Read,
    waits: false,
    sig: "stack.backup_plan() -> map",
    doc: "What a backup of the database would need. A map: `dir`, `database_bytes`, `free_bytes`, `needs_bytes` (1.5 \
          times the database), `estimate_s` with `estimate_from` (the rate of the newest backup, or an assumption, in \
          words), `newest` (as in `stack.backups`, with `age_s`; `()` without one), `keep`, `surplus` (files of good \
          backups beyond the newest `keep`), `server` and `client` (major versions), `commit` with `commit_from` \
          (`image`, `checkout`), and `problems`, why there would be none. Fails with `usage` for a stack without a \
          database, `not_found` when it has no container. Deadline 60 s.",
    example: r#"stack("prod").backup_plan().estimate_s"#,
};

const MAKE: Verb = Verb {
    name: "backup.make",
    class: Class::Change,
    waits: false,
    sig: "stack.backup(options?: #{ touches: array, within_s: int }) -> receipt",
    doc: "Dumps the database to a file on its host. `pg_dump -Fc` in the database's container, while the stack serves; the \
          file, 0600, gets its name (UTC time, running commit) after it was read to its end and lists every table. An undo \
          leaves it. `after` \
          is as in `stack.backups`, with `tables` (how many), `rows` (of each) and `took_s`. Older ones stay. Runs detached \
          on the host. Options: `touches` (tables that must be in it), `within_s` (60 to 86400, default 3600). Fails with \
          `unmet` when there is no room, `not_found` for a table that is not there, `failed` when the dump is not good: \
          then there is no file. Deadline 3600 s, or `within_s`.",
    example: r#"stack("prod").backup(#{ touches: ["public.shifts"] })"#,
};

const LIST: Verb = Verb {
    name: "backup.list",
    class: Class::Read,
    waits: false,
    sig: "stack.backups() -> array",
    doc: "The backups of the database, newest first. Each is a map: `file`, `at`, `age_s`, `commit`, `size_bytes`, \
          `sha256`, `ok` (it has the size that was written down when it was proved) and `why` it is not. Fails with \
          `denied` when the account cannot look into the folder. Deadline 60 s.",
    example: r#"stack("prod").backups().filter(|b| b.ok)"#,
};

const REMOVE: Verb = Verb {
    name: "backup.remove",
    class: Class::Change,
    waits: false,
    sig: "stack.remove_backup(file: string) -> receipt",
    doc: "Removes one backup of the database. `file` is its absolute path, as `stack.backups` says it; what was written \
          down about it goes too. It cannot be undone. Fails with `usage` for a file that is no backup of this \
          database. Deadline 60 s.",
    example: r#"stack("prod").remove_backup("/var/backups/opsh/shop-20261124T061743Z-0123456789ab.dump")"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[
    Binding::Read(&PLAN, plan),
    Binding::Adds(&MAKE, make, Some(made_now)),
    Binding::Read(&LIST, list),
    Binding::Change(&REMOVE, remove),
];

/// Bytes a second that a dump is assumed to take when none was measured: compression on one busy core.
const ASSUMED_RATE: u64 = 10 << 20;

/// A stack's database as backups see it.
struct Source {
    reach: Reach,
    engine: Engine,
    stack: Arc<Stack>,
}

impl Source {
    async fn open(way: &Way, pass: &Pass, stack: &Arc<Stack>) -> Result<Source> {
        let (reach, engine) = (way.reach(pass).await?, way.engine(pass).await?);
        Ok(Source { reach, engine, stack: Arc::clone(stack) })
    }

    /// What [`PLAN`] gives, and besides what a backup is made with: `at`, `container`.
    async fn survey(&self, pass: &Pass) -> Result<Value> {
        let (stack, db) = (&self.stack, db::of_stack(&self.stack)?);
        let folder = Folder::look(&self.reach, pass, stack).await?;
        let container = docker::only(&self.engine, stack, &db.service).await?.id;
        let asked = "SELECT pg_database_size(current_database()) AS size, \
                     current_setting('server_version_num')::int / 10000 AS major";
        let said = db::rows(&self.engine, stack, asked, &[]).await?.into_iter().next().unwrap_or_default();
        let size = said["size"].as_u64().unwrap_or(0);
        let client = self.client(&container).await?;
        let (commit, commit_from) = self.commit(pass).await?;
        let newest = folder.saved.first();
        let (estimate_s, estimate_from) = estimate(size, folder.saved.iter().find(|saved| saved.ok()));
        let needs = size.saturating_mul(3) / 2;
        let mut plan = json!({
            "dir": stack.backup.dir, "database_bytes": size, "free_bytes": folder.free_bytes, "needs_bytes": needs,
            "estimate_s": estimate_s, "estimate_from": estimate_from, "newest": newest.map(Saved::to_json),
            "keep": stack.backup.keep, "surplus": folder.surplus(stack.backup.keep), "server": said["major"],
            "client": client, "commit": commit, "commit_from": commit_from, "at": folder.at, "container": container,
        });
        plan["problems"] = problems(&plan, &folder.real).into();
        Ok(plan)
    }

    /// Major version of the container's pg_dump.
    async fn client(&self, container: &str) -> Result<Value> {
        let words = ["pg_dump", "--version"].map(String::from).to_vec();
        let ran = self.engine.exec(container, Exec { words, keep: 4096, ..Exec::default() }).await?;
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        let major = said.split_whitespace().find_map(|word| word.split('.').next()?.parse::<i64>().ok());
        Ok(json!(major))
    }

    /// The commit that serves: the label of the image that migrates, else where the checkout stands.
    async fn commit(&self, pass: &Pass) -> Result<(String, &'static str)> {
        if let Some(migrate) = &self.stack.migrate
            && let Some(container) = docker::look_for(&self.engine, &self.stack, &migrate.service).await?
            && let Some(image) = self.engine.image(&container.image_id).await?
            && let Some(commit) = image.revision()
        {
            return Ok((commit, "image"));
        }
        let head = git::head_at(&self.reach, pass, &self.stack.host, &self.stack.dir).await;
        Ok((head.unwrap_or_default(), "checkout"))
    }
}

/// Seconds that a dump of `size` bytes will take, and what says so.
fn estimate(size: u64, last: Option<&Saved>) -> (u64, String) {
    if let Some(saved) = last
        && let (Some(then), Some(took)) = (saved.note["database_bytes"].as_u64(), saved.note["took_s"].as_u64())
        && then > 0
    {
        let took = took.max(1);
        let says = format!("measured: {then} bytes took {took} s ({})", saved.name);
        return ((u128::from(size) * u128::from(took)).div_ceil(u128::from(then)).try_into().unwrap_or(u64::MAX), says);
    }
    (size.div_ceil(ASSUMED_RATE).max(1), format!("assumed, {} MiB a second: none was measured yet", ASSUMED_RATE >> 20))
}

/// Why there would be no backup.
fn problems(plan: &Value, real: &str) -> Vec<String> {
    let number = |key: &str| plan[key].as_u64().unwrap_or(0);
    let mut found = Vec::new();
    if let Some(place) = passing_place(real) {
        found.push(format!("{real} is in {place}, which is emptied when the host starts"));
    }
    if number("free_bytes") < number("needs_bytes") {
        let (free, needs) = (number("free_bytes"), number("needs_bytes"));
        found.push(format!("{free} bytes are free, and {needs} are needed (1.5 times the database)"));
    }
    if number("client") < number("server") {
        let (client, server) = (number("client"), number("server"));
        found.push(format!("pg_dump {client} cannot dump a server of version {server}"));
    }
    found
}

fn plan(call: &Call<'_>) -> Result<Dynamic> {
    let (stack, way) = db::open(call)?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({}));
    let value = call.read(look, (stack, way), |pass, (stack, way)| async move {
        Source::open(&way, &pass, &stack).await?.survey(&pass).await
    })?;
    Ok(super::map(value))
}

fn list(call: &Call<'_>) -> Result<Dynamic> {
    let (stack, way) = db::open(call)?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({}));
    let value = call.read(look, (stack, way), |pass, (stack, way)| async move {
        let folder = Folder::look(&way.reach(&pass).await?, &pass, &stack).await?;
        Ok(folder.saved.iter().map(Saved::to_json).collect())
    })?;
    Ok(super::map(value))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MakeOptions {
    touches: Vec<String>,
    within_s: u64,
}

impl Default for MakeOptions {
    fn default() -> MakeOptions {
        MakeOptions { touches: Vec::new(), within_s: 3600 }
    }
}

fn make(call: &Call<'_>) -> Result<Receipt> {
    let MakeOptions { touches, within_s } = call.options(0)?;
    call.in_range("within_s", within_s, 60..=86400)?;
    let (stack, way) = db::open(call)?;
    let target = call.world.stack_target(&stack);
    let what = format!("the database of {} was not backed up", stack.name);
    let look = Look::at(target.clone(), "", json!({ "touches": touches }));
    call.intends(|| {
        let says = format!("a new file in {}", stack.backup.dir);
        Change::of(Look::at(target.clone(), says, json!({ "touches": touches })))
    })?;
    let context = (Arc::clone(&stack), way.clone(), touches.clone());
    let plan = call.read(look, context, |pass, (stack, way, touches)| async move {
        let source = Source::open(&way, &pass, &stack).await?;
        let mut plan = source.survey(&pass).await?;
        plan["touches"] = source.oids(&touches).await?.into();
        Ok(plan)
    })?;
    let problems: Vec<&str> = plan["problems"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !problems.is_empty() {
        let line = format!("stack({}).backup_plan()     the numbers", json!(stack.name));
        return Err(Error::new(Kind::Unmet, what, problems.join("\n")).next(line));
    }
    let text = |key: &str| plan[key].as_str().unwrap_or_default();
    let name = folder::name(&stack, text("at"), text("commit"));
    let file = format!("{}/{name}", stack.backup.dir.trim_end_matches('/'));
    let args = json!({ "file": file, "touches": touches });
    let change = Change {
        before: json!(NONE),
        ..Change::of(Look::at(target, file.clone(), args).within(within_s)).lives(Lives::Run(stack.host.clone()))
    };
    call.change(change, (stack, way, plan, name), |pass, (stack, way, plan, name)| async move {
        dump(&way.reach(&pass).await?, &pass, &stack, &plan, &name).await
    })
}

/// The state of a backup that is not there.
const NONE: &str = "none";

impl Source {
    /// Ids of the tables of these names, as the server finds them.
    async fn oids(&self, names: &[String]) -> Result<Vec<String>> {
        let mut oids = Vec::new();
        for name in names {
            let asked = concat!("SELECT ", db::in_path!("to_regclass", "$1"), "::oid::text AS oid");
            let rows = db::rows(&self.engine, &self.stack, asked, &[json!(name)]).await?;
            let oid = rows.first().and_then(|row| row["oid"].as_str()).ok_or_else(|| {
                let what = format!("the database of {} was not backed up", self.stack.name);
                Error::new(Kind::NotFound, what, format!("there is no table {name} that a backup could hold"))
            })?;
            oids.push(oid.to_string());
        }
        Ok(oids)
    }
}

async fn dump(reach: &Reach, pass: &Pass, stack: &Stack, plan: &Value, name: &str) -> Result<Did> {
    let db = db::of_stack(stack)?;
    let head = json!({
        "database": db.name, "project": stack.compose.project, "commit": plan["commit"],
        "commit_from": plan["commit_from"], "database_bytes": plan["database_bytes"], "server": plan["server"],
    });
    let head = head.to_string();
    let oids: Vec<&str> = plan["touches"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let container = plan["container"].as_str().unwrap_or_default();
    let dir = stack.backup.dir.trim_end_matches('/');
    let script = scripts::dump();
    let words = [
        "sh",
        "-c",
        &script,
        "opsh",
        container,
        &db.user,
        &db.name,
        dir,
        name,
        head.trim_end_matches('}'),
        &oids.join(" "),
    ];
    let command = host::words_of(words.iter().map(|word| word.to_string()).collect());
    let ran = host::run_durable(reach, pass, &stack.host, &command).await?;
    if ran.code != 0 {
        let what = format!("the database of {} was not backed up", stack.name);
        return Err(Error::new(Kind::Failed, what, ran.why(4))
            .exit(ran.code.into())
            .next(format!("stack({}).backup_plan()     room, versions, what is there", json!(stack.name))));
    }
    let after = state(reach, pass, stack, &format!("{dir}/{name}")).await?;
    if after == json!(NONE) {
        let what = format!("the database of {} was not backed up", stack.name);
        return Err(Error::new(Kind::Failed, what, format!("{dir}/{name} is not there, or has another size")));
    }
    Ok(Did { changed: true, before: json!(NONE), after, ..Did::default() })
}

/// What is written down about a backup that is there and has its size.
async fn state(reach: &Reach, pass: &Pass, stack: &Stack, file: &str) -> Result<Value> {
    let folder = Folder::look(reach, pass, stack).await?;
    let found = folder.saved.iter().find(|saved| saved.file == file && saved.ok());
    Ok(found.map_or(json!(NONE), Saved::proof))
}

/// Whether the backup is there now.
fn made_now(past: &Past<'_>) -> Result<Now> {
    let (stack, way) = past.stack()?;
    let file = past.text("file");
    past.look(file.clone(), (stack, way, file), |pass, (stack, way, file)| async move {
        let now = state(&way.reach(&pass).await?, &pass, &stack, &file).await?;
        // What is written down about one that is not there cannot be known.
        let wanted = if now == json!(NONE) { json!("a backup") } else { now.clone() };
        Ok((now, wanted))
    })
}

fn remove(call: &Call<'_>) -> Result<Receipt> {
    let file = call.text(0)?;
    let (stack, way) = db::open(call)?;
    let dir = format!("{}/", stack.backup.dir.trim_end_matches('/'));
    let name = file.strip_prefix(&dir).filter(|name| folder::stamp(&stack, name).is_some());
    if name.is_none() {
        return Err(call.bad(&format!("\"{file}\" is not the path of a backup of this database in {dir}")));
    }
    let look = Look::at(call.world.stack_target(&stack), file.clone(), json!({ "file": file }));
    call.change(Change::of(look), (stack, way, file), |pass, (stack, way, file)| async move {
        let reach = way.reach(&pass).await?;
        let before = state(&reach, &pass, &stack, &file).await?;
        pass.sending();
        // The dump first: what is written down about none is no harm.
        host::look(&reach, &pass, &stack.host, &["rm", "-f", "--", &file, &format!("{file}.json")]).await?;
        Ok(Did { changed: true, before, after: json!(NONE), ..Did::default() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_measured_when_there_is_something_to_measure() {
        let saved = Saved { note: json!({ "database_bytes": 1000, "took_s": 4 }), ..Saved::default() };
        assert_eq!(estimate(2500, Some(&saved)).0, 10);
        assert!(estimate(2500, Some(&saved)).1.starts_with("measured: 1000 bytes took 4 s"));
        let (seconds, says) = estimate(ASSUMED_RATE * 3, None);
        assert_eq!((seconds, says.starts_with("assumed, 10 MiB a second")), (3, true));
        assert_eq!(
            estimate(u64::MAX, Some(&Saved { note: json!({ "database_bytes": 1, "took_s": 9 }), ..saved })).0,
            u64::MAX
        );
    }

    #[test]
    fn what_forbids_a_backup_is_said_with_its_numbers() {
        let plan = json!({ "free_bytes": 149, "needs_bytes": 150, "client": 14, "server": 15 });
        let found = problems(&plan, "/var/tmp/x").join("; ");
        for part in ["/var/tmp/x is in /var/tmp", "149 bytes are free, and 150", "pg_dump 14 cannot dump"] {
            assert!(found.contains(part), "{found}");
        }
        let plan = json!({ "free_bytes": 150, "needs_bytes": 150, "client": 16, "server": 15 });
        assert!(problems(&plan, "/var/backups").is_empty());
    }
}
