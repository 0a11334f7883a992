//! Migrations: the ledger by SQL, the files from the image, and `down` that takes a plan and never a number.
//!
//! The tool's printed status is not read: it lists only the files of its own image, and an older image undoes the
//! wrong migration without a word. Home of the `vrcshift` preset.

mod sql;

use super::docker::engine::Engine;
use super::docker::image::Limits;
use super::docker::once::{ONCE, Once};
use super::docker::{self, STACK_LABEL, short_id};
use super::way::Way;
use super::work::{self, ABOUT};
use super::{Binding, Call, Change, Look, Receipt, db, git, host, stack};
use crate::config::{Migrate, Stack};
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Lives, Pass};
use rhai::Dynamic;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sql::Loss;
use std::collections::BTreeMap;
use std::sync::Arc;

const LEDGER: Verb = Verb {
    name: "migrate.ledger",
    class: Class::Read,
    waits: false,
    sig: "stack.ledger() -> array",
    doc: "The versions that the database says are applied. Ascending, read by SQL; an empty array when there is no \
          ledger table. Nothing is created. Fails as `db.query`. Deadline 60 s.",
    example: r#"stack("prod").ledger()"#,
};

const STATUS: Verb = Verb {
    name: "migrate.status",
    class: Class::Read,
    waits: false,
    sig: "stack.migrations() -> array",
    doc: "Each migration with its state. A map: `version`, `name`, and `state`: APPLIED, PENDING, UNKNOWN HERE \
          (applied, and the running image does not know it), NO DOWN (applied, and its down file is missing or \
          empty). `additive` says whether code of before can go on using the schema; `does` is what the up file does. \
          Files are read from the image that runs, for what it does not know from the repository's history, applied \
          versions from the database. Fails with `not_found` when the service has no container or its image no such \
          files, `failed` when two files share a version. Deadline 60 s.",
    example: r#"stack("prod").migrations()"#,
};

const RUNNING: Verb = Verb {
    name: "migrate.running",
    class: Class::Read,
    waits: false,
    sig: "stack.migrating() -> array",
    doc: "Who takes migrations back right now. One map for each container in which opsh does so for the stack, whether \
          or not an opsh still waits for it: `id` (its name), `run`, `by`, `at`, `says` and the rest as `host.works`. The \
          tool has no lock; the container's name, of which there is one per stack, is the lock. Fails as \
          `stack.docker`. Deadline 60 s.",
    example: r#"stack("prod").migrating()"#,
};

const LOSSES: Verb = Verb {
    name: "migrate.losses",
    class: Class::Read,
    waits: false,
    sig: "stack.down_losses(versions: array) -> array",
    doc: "What taking migrations back would delete. The down files of `versions`, counted in the database now: \
          `version`, `what` (`column shifts.note`), `rows` (rows of a table, or rows in which a column has a value; \
          `()` when it cannot be told). Empty when nothing is lost. Fails as `stack.migrations`. Deadline 60 s.",
    example: r#"stack("prod").down_losses([47])"#,
};

const DOWN: Verb = Verb {
    name: "migrate.down",
    class: Class::Destroy,
    waits: false,
    sig: "stack.migrate_down(plan: map) -> receipt",
    doc: "Takes migrations back, and looks at the ledger. It is done with the image that runs now, the one that knows \
          them, as a container of its own on the service's network, so that it goes on when the link is lost. `plan` \
          is a map: `versions` to take back, newest first; `ledger`, the versions that were applied when the plan was \
          made; `image_id`; `loses`, what `stack.down_losses` counted then. Refused with `unmet` before anything \
          happens when migrations are being taken back already, when the ledger is another one now, when the versions \
          are not the newest applied ones, when the image does not know one of them, or when a down file is missing \
          or empty. Success is what the ledger says afterwards. Deadline 600 s.",
    example: r#"stack("prod").migrate_down(#{ versions: [47], ledger: [45, 46, 47], image_id: "sha256:0000" })"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[
    Binding::Read(&LEDGER, ledger),
    Binding::Read(&STATUS, status),
    Binding::Read(&RUNNING, running),
    Binding::Read(&LOSSES, losses),
    Binding::Change(&DOWN, down),
];

/// One migration as an image has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct File {
    name: String,
    up: Option<String>,
    down: Option<String>,
}

type Files = BTreeMap<i64, File>;

fn open(call: &Call<'_>) -> Result<(Arc<Stack>, Way)> {
    let stack = call.stack()?;
    configured(&stack)?;
    let way = call.world.way(&stack.host)?;
    Ok((stack, way))
}

fn configured(stack: &Stack) -> Result<&Migrate> {
    let line = "migrate = { preset = \"vrcshift\", service = \"backend\" }";
    stack.migrate.as_ref().ok_or_else(|| stack::lacks(stack, "migration tool", line))
}

async fn applied(engine: &Engine, stack: &Stack) -> Result<Vec<i64>> {
    // A database without a ledger has nothing applied; the tool's own `status` would create the table.
    let there = "SELECT to_regclass('schema_migrations') IS NOT NULL AS there";
    let found = db::rows(engine, stack, there, &[]).await?;
    if found.first().is_none_or(|row| row["there"] != json!(true)) {
        return Ok(Vec::new());
    }
    let rows = db::rows(engine, stack, "SELECT version FROM schema_migrations ORDER BY version", &[]).await?;
    Ok(rows.iter().filter_map(|row| row["version"].as_i64()).collect())
}

async fn files_of(engine: &Engine, stack: &Stack, image_id: &str) -> Result<Files> {
    let folder = &configured(stack)?.image_files;
    let found = engine.read_dir(image_id, folder, Limits { files: 5000, bytes: 16 << 20 }).await?;
    let found = found.ok_or_else(|| {
        let why = format!("image {} has no {folder}", short_id(image_id));
        Error::new(Kind::NotFound, format!("no migration files of {}", stack.name), why)
            .next(format!("[stack.{}] migrate = {{ …, image_files = \"…\" }}     in opsh.toml", stack.name))
    })?;
    parse_files(&found)
        .map_err(|why| Error::new(Kind::Failed, format!("migrations of {} are ambiguous", stack.name), why))
}

/// `046_name.up.sql` and `046_name.down.sql`; anything else is not a migration.
fn parse_files(found: &[(String, Vec<u8>)]) -> Result<Files, String> {
    let mut files = Files::new();
    for (path, text) in found {
        let (stem, is_up) = match (path.strip_suffix(".up.sql"), path.strip_suffix(".down.sql")) {
            (Some(stem), _) => (stem, true),
            (_, Some(stem)) => (stem, false),
            _ => continue,
        };
        let Some((number, name)) = stem.split_once('_') else { continue };
        let Ok(version) = number.parse::<i64>() else { continue };
        let text = String::from_utf8_lossy(text).into_owned();
        let file = files.entry(version).or_insert_with(|| File { name: name.into(), ..File::default() });
        if file.name != name {
            return Err(format!("version {version} is both {} and {name}", file.name));
        }
        if is_up { file.up = Some(text) } else { file.down = Some(text) }
    }
    Ok(files)
}

fn ledger(call: &Call<'_>) -> Result<Dynamic> {
    let (stack, way) = open(call)?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({}));
    let value = call.read(look, (stack, way), |pass, (stack, way)| async move {
        applied(&way.engine(&pass).await?, &stack).await.map(Value::from)
    })?;
    Ok(super::map(value))
}

fn status(call: &Call<'_>) -> Result<Dynamic> {
    let (stack, way) = open(call)?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({}));
    let repository = git::Repository::of_stack(call.world, &stack)?;
    let value = call.read(look, (stack, way, repository), |pass, (stack, way, repository)| async move {
        let engine = way.engine(&pass).await?;
        let migrate = configured(&stack)?;
        let image = docker::find(&engine, &stack, &migrate.service).await?.image_id;
        let files = files_of(&engine, &stack, &image).await?;
        let applied = applied(&engine, &stack).await?;
        let mut elsewhere = Files::new();
        if applied.iter().any(|version| !files.contains_key(version)) {
            let found = repository.history_of(&pass, &migrate.files).await?;
            // A version with two names in history is one that nobody can judge.
            elsewhere = parse_files(&found).unwrap_or_default();
        }
        Ok(table(&applied, &files, &elsewhere))
    })?;
    Ok(super::map(value))
}

/// `elsewhere` has files that the repository's history knows and the image does not.
fn table(applied: &[i64], files: &Files, elsewhere: &Files) -> Value {
    let mut versions: Vec<i64> = applied.iter().chain(files.keys()).copied().collect();
    versions.sort_unstable();
    versions.dedup();
    let row = |version: &i64| {
        let file = files.get(version);
        let state = match (applied.contains(version), file) {
            (true, None) => "UNKNOWN HERE",
            (true, Some(file)) if sql::is_empty(file.down.as_deref()) => "NO DOWN",
            (true, Some(_)) => "APPLIED",
            (false, _) => "PENDING",
        };
        let file = file.or_else(|| elsewhere.get(version));
        let up = file.and_then(|file| file.up.as_deref()).map(sql::judge_up);
        json!({
            "version": version, "name": file.map(|file| &file.name), "state": state,
            "additive": up.as_ref().is_some_and(|up| up.additive), "does": up.map(|up| up.does),
        })
    };
    versions.iter().map(row).collect()
}

fn running(call: &Call<'_>) -> Result<Dynamic> {
    let (stack, way) = open(call)?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({}));
    let value = call.read(look, (stack, way), |pass, (stack, way)| async move {
        at_work(&way.engine(&pass).await?, &stack).await.map(Value::from)
    })?;
    Ok(super::map(value))
}

/// One name for each stack: the Engine gives it to one container at a time, so two operators cannot take back at once.
fn once_name(stack: &Stack) -> String {
    format!("opsh-{}-migrate", stack.compose.project)
}

fn own_label(stack: &Stack) -> String {
    format!("{STACK_LABEL}={}", stack.compose.project)
}

/// Removes the container that an opsh which is gone left behind: it has ended, or [`at_work`] would have named it.
async fn clear_ended(engine: &Engine, stack: &Stack) -> Result<()> {
    let name = once_name(stack);
    let found = engine.containers_labelled(&[ONCE, &own_label(stack)]).await?;
    match found.iter().find(|one| one.name == name) {
        Some(left) => engine.remove(&left.id, false).await,
        None => Ok(()),
    }
}

/// Who takes migrations back, and in which container.
async fn at_work(engine: &Engine, stack: &Stack) -> Result<Vec<Value>> {
    let found = engine.containers_labelled(&[ONCE, &own_label(stack)]).await?;
    let ended = ["created", "exited", "dead"];
    let going = found.into_iter().filter(|one| !ended.contains(&one.state.as_str()));
    Ok(going.map(|one| work::container_row(&one)).collect())
}

/// `running, started by alice at … (run …): the lock is held`.
fn held(work: &Value) -> String {
    let text = |key: &str| work[key].as_str().unwrap_or("somebody").to_string();
    format!("running in {}, started by {} at {}: the lock is held", text("id"), text("by"), text("at"))
}

fn losses(call: &Call<'_>) -> Result<Dynamic> {
    let versions = versions(call, call.json(0)?)?;
    let (stack, way) = open(call)?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({ "versions": versions }));
    let value = call.read(look, (stack, way, versions), |pass, (stack, way, versions)| async move {
        let engine = way.engine(&pass).await?;
        let service = &configured(&stack)?.service;
        let image = docker::find(&engine, &stack, service).await?.image_id;
        let files = files_of(&engine, &stack, &image).await?;
        Ok(json!(counted(&engine, &stack, &versions, &files).await?))
    })?;
    Ok(super::map(value))
}

async fn counted(engine: &Engine, stack: &Stack, versions: &[i64], files: &Files) -> Result<Vec<Lost>> {
    let mut all = Vec::new();
    for version in versions {
        let down = files.get(version).and_then(|file| file.down.as_deref()).unwrap_or("");
        for loss in sql::losses(down) {
            all.extend(count(engine, stack, *version, &loss).await?);
        }
    }
    Ok(all)
}

/// The loss with its count; nothing when it is a column without a value, or an empty table.
async fn count(engine: &Engine, stack: &Stack, version: i64, loss: &Loss) -> Result<Option<Lost>> {
    let Some(query) = loss.count_sql() else {
        return Ok(Some(Lost { version, what: loss.what(), rows: None }));
    };
    let rows = match db::rows(engine, stack, &query, &[]).await {
        Ok(found) => found.first().and_then(|row| row["n"].as_i64()),
        // The object may be gone already: then nothing of it can be lost, but that is not for us to say.
        Err(error) if error.kind == Kind::Failed => None,
        Err(error) => return Err(error),
    };
    Ok((rows != Some(0)).then(|| Lost { version, what: loss.what(), rows }))
}

fn versions(call: &Call<'_>, list: Value) -> Result<Vec<i64>> {
    let numbers = list.as_array().and_then(|items| items.iter().map(Value::as_i64).collect::<Option<Vec<_>>>());
    numbers.ok_or_else(|| call.bad("versions must be an array of whole numbers"))
}

#[derive(Clone, Debug, Deserialize)]
struct DownPlan {
    versions: Vec<i64>,
    ledger: Vec<i64>,
    image_id: String,
    #[serde(default)]
    loses: Vec<Lost>,
}

/// A loss as [`losses`] counted it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Lost {
    version: i64,
    what: String,
    rows: Option<i64>,
}

impl DownPlan {
    /// The plan against the facts of now: the error says which of them denies it.
    fn check(&self, applied: &[i64], files: &Files) -> Result<(), String> {
        if self.versions.is_empty() {
            return Err("the plan takes nothing back".into());
        }
        if applied != self.ledger {
            return Err(format!(
                "the ledger was {} when the plan was made and is {} now",
                list(&self.ledger),
                list(applied)
            ));
        }
        let mut newest: Vec<i64> = applied.to_vec();
        newest.reverse();
        if !newest.starts_with(&self.versions) {
            let count = self.versions.len().min(newest.len());
            return Err(format!(
                "the newest applied versions are {}, not {}",
                list(&newest[..count]),
                list(&self.versions)
            ));
        }
        // The tool undoes the newest versions that its image knows: one it does not know would be skipped silently.
        if let Some(unknown) = applied.iter().find(|version| !files.contains_key(version)) {
            let image = short_id(&self.image_id);
            return Err(format!("image {image} does not know version {unknown}: its down would take back another one"));
        }
        match self.versions.iter().find(|version| sql::is_empty(files[version].down.as_deref())) {
            Some(version) => Err(format!("version {version} has no down: only its ledger row would go")),
            None => Ok(()),
        }
    }

    fn rest(&self) -> Vec<i64> {
        self.ledger.iter().copied().filter(|version| !self.versions.contains(version)).collect()
    }
}

fn list(versions: &[i64]) -> String {
    match versions {
        [] => "empty".into(),
        [first, .., last] if versions.len() > 6 => format!("{first} … {last} ({})", versions.len()),
        few => few.iter().map(i64::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn down(call: &Call<'_>) -> Result<Receipt> {
    let plan: DownPlan = serde_json::from_value(call.json(0)?).map_err(|error| call.bad(&error.to_string()))?;
    let (stack, way) = open(call)?;
    let says = format!("{} with image {}", list(&plan.versions), short_id(&plan.image_id));
    let args = json!({ "versions": plan.versions, "ledger": plan.ledger, "image_id": plan.image_id });
    let look = Look::at(call.world.stack_target(&stack), says, args).within(600);
    let lost = plan.versions.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    let lives = Lives::Container { host: stack.host.clone(), name: once_name(&stack) };
    call.change(Change::of(look).loses(lost).lives(lives), (stack, way, plan), |pass, (stack, way, plan)| async move {
        take_back(&way.engine(&pass).await?, &pass, &stack, &plan).await
    })
}

async fn take_back(engine: &Engine, pass: &Pass, stack: &Stack, plan: &DownPlan) -> Result<Did> {
    let what = || format!("migrations were not taken back on {}", stack.name);
    if let Some(other) = at_work(engine, stack).await?.first() {
        let line = format!("opsh attach {}     waits for its end", other["run"].as_str().unwrap_or_default());
        return Err(Error::new(Kind::Unmet, what(), held(other)).next(line));
    }
    let files = files_of(engine, stack, &plan.image_id).await?;
    let before = applied(engine, stack).await?;
    plan.check(&before, &files).map_err(|why| Error::new(Kind::Unmet, what(), why))?;
    // Rows may have come since somebody agreed to lose what was counted then.
    for lost in counted(engine, stack, &plan.versions, &files).await? {
        let agreed = plan.loses.iter().find(|one| one.version == lost.version && one.what == lost.what);
        if agreed.is_none_or(|agreed| agreed.rows < lost.rows) {
            let rows = lost.rows.map_or("an unknown number of".to_string(), |rows| rows.to_string());
            let why = format!("{} would lose {rows} row(s), more than the plan says", lost.what);
            return Err(Error::new(Kind::Unmet, what(), why));
        }
    }
    let service = &configured(stack)?.service;
    let like = docker::find(engine, stack, service).await?.id;
    let once = Once {
        name: once_name(stack),
        image_id: plan.image_id.clone(),
        like,
        entrypoint: Some(vec!["/app/migrate".into()]),
        // Never without a count: for this tool 0 or nothing means all.
        cmd: Some(vec!["-action=down".into(), format!("-steps={}", plan.versions.len().max(1))]),
        labels: [(STACK_LABEL, stack.compose.project.clone()), (ABOUT, pass.about())]
            .map(|(key, value)| (key.to_string(), value))
            .into(),
        ..Once::default()
    };
    clear_ended(engine, stack).await?;
    pass.sending();
    engine.once_start(&once).await?;
    let ran = engine.once_wait(&once.name, host::KEEP).await?;
    let after = applied(engine, stack).await?;
    let said = host::last_lines(&String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()), 6);
    if ran.exit != 0 || after != plan.rest() {
        let why = format!(
            "the tool ended with {}; the ledger is {}, and should be {}. It said: {said}",
            ran.exit,
            list(&after),
            list(&plan.rest())
        );
        return Err(Error::new(Kind::Failed, what(), why)
            .exit(ran.exit)
            .next(format!("stack(\"{}\").migrations()     what is applied now", stack.name)));
    }
    // Its output is in the record; the container is of no more use.
    let _ = engine.remove(&once.name, false).await;
    Ok(Did { changed: true, before: json!(before), after: json!(after), value: json!({ "said": said }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(known: &[i64]) -> Files {
        let file = File { name: "x".into(), up: Some("CREATE TABLE t()".into()), down: Some("DROP TABLE t".into()) };
        known.iter().map(|version| (*version, file.clone())).collect()
    }

    fn plan(versions: &[i64], ledger: &[i64]) -> DownPlan {
        let (versions, ledger) = (versions.to_vec(), ledger.to_vec());
        DownPlan { versions, ledger, image_id: "sha256:0".into(), loses: Vec::new() }
    }

    #[test]
    fn a_plan_that_takes_the_newest_known_versions_is_good() {
        assert_eq!(plan(&[47, 46], &[45, 46, 47]).check(&[45, 46, 47], &files(&[45, 46, 47])), Ok(()));
        assert_eq!(plan(&[47, 46], &[45, 46, 47]).rest(), [45]);
    }

    #[test]
    fn facts_that_deny_a_plan_are_named() {
        let known = files(&[45, 46, 47]);
        for (plan, applied, files, why) in [
            (plan(&[], &[45]), &[45][..], &known, "takes nothing back"),
            (plan(&[47], &[45, 46, 47]), &[45, 46], &known, "45, 46 now"),
            (plan(&[46], &[45, 46, 47]), &[45, 46, 47], &known, "newest applied versions are 47"),
            (plan(&[47], &[45, 46, 47]), &[45, 46, 47], &files(&[45, 46]), "does not know version 47"),
            (plan(&[47], &[45, 46, 47]), &[45, 46, 47], &files(&[46, 47]), "does not know version 45"),
        ] {
            let error = plan.check(applied, files).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_missing_or_empty_down_is_refused() {
        for down in [None, Some(""), Some("-- nothing to do\n"), Some("/* x */ ;")] {
            let mut known = files(&[45, 46]);
            known.insert(47, File { name: "y".into(), up: None, down: down.map(String::from) });
            let error = plan(&[47], &[45, 46, 47]).check(&[45, 46, 47], &known).expect_err("no down");
            assert!(error.contains("version 47 has no down"), "{error}");
        }
    }

    #[test]
    fn files_are_paired_by_version_and_two_names_of_one_version_are_refused() {
        let found =
            |names: &[&str]| names.iter().map(|name| (name.to_string(), b"SELECT 1".to_vec())).collect::<Vec<_>>();
        let files = parse_files(&found(&["046_a.up.sql", "046_a.down.sql", "README.md", "x_y.up.sql"])).expect("valid");
        assert_eq!(files.keys().copied().collect::<Vec<_>>(), [46]);
        assert!(files[&46].down.is_some());
        assert!(parse_files(&found(&["007_a.up.sql", "007_b.up.sql"])).is_err());
    }

    #[test]
    fn the_table_tells_the_four_states() {
        let mut known = files(&[45, 46, 48]);
        if let Some(file) = known.get_mut(&46) {
            file.down = None;
        }
        let rows = table(&[45, 46, 47], &known, &files(&[47]));
        let states: Vec<&str> = rows.as_array().expect("rows").iter().filter_map(|row| row["state"].as_str()).collect();
        assert_eq!(states, ["APPLIED", "NO DOWN", "UNKNOWN HERE", "PENDING"]);
        assert_eq!(rows[2]["additive"], true, "judged by the file that the repository's history has");
    }
}
