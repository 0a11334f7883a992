//! Migrations: the ledger by SQL, the files from the image, and `up` and `down` that take a plan and never a number.
//!
//! What a tool prints is not read: it lists only the files of its own image, and an older image undoes the wrong
//! migration without a word. What tools are like is data, in `config::migrate`.

mod drift;
mod files;
mod ledger;
mod objects;
mod plan;
mod run;
mod sql;

use super::docker::engine::Engine;
use super::docker::{self, short_id};
use super::undo::{Now, Past};
use super::{Binding, Call, Change, Look, Receipt, db, git, stack, way};
use crate::config::migrate::{LedgerKind, Tool};
use crate::config::{Migrate, Stack};
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Lives, Pass};
use drift::{Dirty, Drift};
use files::Files;
use plan::{Lost, Plan, Way, list, losses_in_words, pending};
use rhai::Dynamic;
pub use run::at_work;
use run::{Facts, facts, known, once_name};
use serde_json::{Value, json};
use std::sync::Arc;

const LEDGER: Verb = Verb {
    name: "migrate.ledger",
    class: Class::Read,
    waits: false,
    sig: "stack.ledger() -> array",
    doc: "The versions that the database says are applied. Ascending, read by SQL; an empty array when there is no \
          ledger table. Of golang-migrate, which keeps one row, everything up to its version that the running image \
          knows. Nothing is created. Fails as `db.query`. Deadline 60 s.",
    example: r#"stack("prod").ledger()"#,
};

const STATUS: Verb = Verb {
    name: "migrate.status",
    class: Class::Read,
    waits: false,
    sig: "stack.migrations() -> array",
    doc: "Each migration with its state. A map: `version`, `name`, and `state`: APPLIED, PENDING, UNKNOWN HERE \
          (applied, and the running image does not know it), NO DOWN (applied, and its down is missing or empty), DRIFT \
          (the schema contradicts the ledger; `drift` says which objects are there already or are not there, else it is \
          `()`), DIRTY (see `stack.migration_state`). `additive` says whether code of before can go on using the schema; \
          `does` is what its up does; `warns` lists what a person should know before it is taken back; `digest` tells files \
          of one version apart (`()` when the running image has none). Files are read \
          from the image that runs, for what it does not know from the repository's history, applied versions from the \
          database. Fails with `not_found` when the service has no container or its image no such files, `failed` when \
          two files share a version or a version cannot be ordered. Deadline 60 s.",
    example: r#"stack("prod").migrations()"#,
};

const STATE: Verb = Verb {
    name: "migrate.state",
    class: Class::Read,
    waits: false,
    sig: "stack.migration_state() -> map",
    doc: "What stands in the way of migrating. `preset`; `ledger` (applied), `pending`, `unknown` (applied, and the \
          running image does not know them), `gaps` (pending, and a newer one is applied); `drift`, a list of texts; \
          `ignored`, names of files that are no migrations; `holder`, the session that holds golang-migrate's lock \
          (`pid`, `application`, `user`, `since`) or `()`; `dirty`, golang-migrate's mark or `()`: `version`, `reading` \
          (`failed up`, `failed down of N`, `unknown`) judged by the `evidence`, the objects that are there, and `repair`, \
          words for a person. The mark is never reset: it is the only witness. Fails as `stack.migrations`. Deadline 60 s.",
    example: r#"stack("prod").migration_state()"#,
};

const RUNNING: Verb = Verb {
    name: "migrate.running",
    class: Class::Read,
    waits: false,
    sig: "stack.migrating() -> array",
    doc: "Who migrates right now. One map for each container in which opsh does so for the stack, whether \
          or not an opsh still waits for it: `id` (its name), `run`, `by`, `at`, `says` and the rest as `host.works`. Few \
          tools have a lock; the container's name, of which there is one per stack, is the lock. Fails as \
          `stack.docker`. Deadline 60 s.",
    example: r#"stack("prod").migrating()"#,
};

const LOSSES: Verb = Verb {
    name: "migrate.losses",
    class: Class::Read,
    waits: false,
    sig: "stack.down_losses(versions: array) -> array",
    doc: "What taking migrations back would delete. The downs of `versions`, counted in the database now: \
          `version`, `what` (`column shifts.note`), `rows` (rows of a table, or rows in which a column has a value; \
          `()` when it cannot be told). Empty when nothing is lost. Fails as `stack.migrations`. Deadline 60 s.",
    example: r#"stack("prod").down_losses([47])"#,
};

const STOPS: Verb = Verb {
    name: "migrate.stops",
    class: Class::Read,
    waits: false,
    sig: "stack.down_stops(versions: array) -> array",
    doc: "Rows on which taking migrations back may fail. Each constraint that the downs of `versions` bring back, asked of \
          the rows that are there now: `version`, `what` (`ALTER TABLE shifts ALTER COLUMN note SET NOT NULL`), `rows` that do \
          not fit (`()` when it cannot be told, as of what an earlier statement of the same down makes). Empty when \
          nothing stands in the way. Fails as `stack.migrations`. Deadline 60 s.",
    example: r#"stack("prod").down_stops([47])"#,
};

const DOWN: Verb = Verb {
    name: "migrate.down",
    class: Class::Destroy,
    waits: false,
    sig: "stack.migrate_down(plan: map) -> receipt",
    doc: "Takes migrations back, and looks at the ledger. It is done with the image that runs now, the one that knows \
          them, as a container of its own on the service's network, so that it goes on when the link is lost. `plan` \
          is a map: `versions` to take back, newest first; `ledger`, the versions that were applied when the plan was \
          made; `image_id`; `loses`, what `stack.down_losses` counted then; `within_s` (1 to 7200, default 600); `partly` \
          (default false), which takes back what an up that failed half way has applied of them. Refused \
          with `unmet` before anything happens when somebody migrates already or holds golang-migrate's lock, when the \
          ledger is another one now or dirty, when the versions are not the newest applied ones, when the image does not \
          know one that is applied or has no such tool, when a down is missing or empty, or when more would be lost than \
          the plan says. Success is an exit code of 0 and the ledger as planned. Deadline 600 s, or `within_s`.",
    example: r#"stack("prod").migrate_down(#{ versions: [47], ledger: [45, 46, 47], image_id: "sha256:0000" })"#,
};

const UP: Verb = Verb {
    name: "migrate.up",
    class: Class::Change,
    waits: false,
    sig: "stack.migrate_up(plan: map) -> receipt",
    doc: "Applies migrations, and looks at the ledger. It is done with the image of a release, as `stack.migrate_down` does \
          it. `plan` is a map: `versions` to apply, ascending; `ledger`, the versions that were applied when the plan was \
          made; `image_id`; `loses`, what its `stack.migrations_at` says is lost, for `authorize`: a list of `#{ version, what, \
          rows: () }`; `within_s` (1 to 7200, default 600). Of class destroy when one of them deletes something, or \
          does what cannot be judged. Refused with `unmet` as `stack.migrate_down`, and when the versions are not the next \
          pending ones (all of them, for a tool that takes no count), or when the schema has objects already that they \
          make. Undone by taking the same versions back with the same image, when each has a down whose losses can be \
          counted. Success is an exit code of 0 and the ledger as planned; a failure half way says which are applied. \
          Deadline 600 s, or `within_s`.",
    example: r#"stack("prod").migrate_up(#{ versions: [48], ledger: [46, 47], image_id: "sha256:0000" })"#,
};

const VERSIONS_AT: Verb = Verb {
    name: "migrate.versions_at",
    class: Class::Read,
    waits: false,
    sig: "stack.versions_at(commit: string) -> array",
    doc: "Versions that a commit has migrations for. `commit` is 40 hex; whole numbers, ascending; names \
          that the tool does not take for migrations are left out. Fails with `failed` when two files share a version. \
          Deadline 60 s.",
    example: r#"stack("prod").versions_at("0123456789012345678901234567890123456789")"#,
};

const FILES_AT: Verb = Verb {
    name: "migrate.files_at",
    class: Class::Read,
    waits: false,
    sig: "stack.migrations_at(commit: string, versions: array) -> array",
    doc: "What a commit's migrations would do. For each of `versions` that `commit` (40 hex) has, ascending, a map: \
          `version`, `name`, `additive` (code of before can go on using the schema), `does`, `loses` (a list of texts), \
          `back` (it has a down whose losses can be counted), `warns`, `digest`. Fails with `failed` when two files share a version. \
          Deadline 60 s.",
    example: r#"stack("prod").migrations_at("0123456789012345678901234567890123456789", [48])"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[
    Binding::Read(&LEDGER, ledger),
    Binding::Read(&STATUS, status),
    Binding::Read(&STATE, state),
    Binding::Read(&RUNNING, running),
    Binding::Read(&LOSSES, losses),
    Binding::Read(&STOPS, stops),
    Binding::Read(&VERSIONS_AT, versions_at),
    Binding::Read(&FILES_AT, files_at),
    Binding::Undoable(&DOWN, down, taken_back_now),
    Binding::Undoable(&UP, up, applied_now),
];

fn open(call: &Call<'_>) -> Result<(Arc<Stack>, way::Way)> {
    let (stack, way) = call.stack_and_way()?;
    configured(&stack)?;
    Ok((stack, way))
}

fn configured(stack: &Stack) -> Result<&Migrate> {
    let line = "migrate = { preset = \"vrcshift\", service = \"backend\" }";
    stack.migrate.as_ref().ok_or_else(|| stack::lacks(stack, "migration tool", line))
}

fn ledger(call: &Call<'_>) -> Result<Dynamic> {
    let (stack, way) = open(call)?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({}));
    let value = call.read(look, (stack, way), |pass, (stack, way)| async move {
        let engine = way.engine(&pass).await?;
        let migrate = configured(&stack)?;
        if migrate.tool.ledger.kind == LedgerKind::Rows {
            // No image is needed for that, nor a service that runs.
            let read = ledger::read(&engine, &stack, &migrate.tool.ledger).await?;
            return Ok(json!(read.applied(&Files::new())));
        }
        let image = docker::find(&engine, &stack, &migrate.service).await?.image_id;
        facts(&engine, &stack, &image).await.map(|facts| json!(facts.applied))
    })?;
    Ok(super::map(value))
}

/// What the ledger alone says, without the files of any image.
pub struct Applied {
    /// The newest applied version; `None` when none is.
    pub newest: Option<i64>,
    /// How many are applied; `None` for golang-migrate, whose ledger does not say it.
    pub count: Option<usize>,
    /// Something was begun and not ended.
    pub dirty: bool,
}

/// Reads the ledger alone.
pub async fn applied(engine: &Engine, stack: &Stack) -> Result<Applied> {
    let read = ledger::read(engine, stack, &configured(stack)?.tool.ledger).await?;
    let dirty = read.dirty().is_some();
    Ok(match read {
        ledger::Read::Rows(versions) => {
            Applied { newest: versions.last().copied(), count: Some(versions.len()), dirty }
        }
        ledger::Read::Golang { version, .. } => Applied { newest: version, count: None, dirty },
    })
}

/// What the running image, the database and, for versions that the image does not know, the repository say.
struct Seen {
    facts: Facts,
    elsewhere: Files,
    drift: Drift,
    dirty: Option<Dirty>,
    holder: Option<Value>,
}

async fn seen(engine: &Engine, pass: &Pass, stack: &Stack, repository: &git::Repository) -> Result<Seen> {
    let migrate = configured(stack)?;
    let image = docker::find(engine, stack, &migrate.service).await?.image_id;
    let facts = facts(engine, stack, &image).await?;
    let mut elsewhere = Files::new();
    if facts.applied.iter().any(|version| !facts.known.files.contains_key(version)) {
        let found = repository.history_of(pass, &migrate.files).await?;
        // A version with two names in history is one that nobody can judge.
        elsewhere = files::parse(&migrate.tool, &found).map(|known| known.files).unwrap_or_default();
    }
    let drift = drift::look(engine, stack, &facts.applied, &facts.known.files, &elsewhere).await?;
    let dirty = match facts.ledger.dirty() {
        Some(version) => Some(drift::dirty(engine, stack, version, &facts.known.files).await?),
        None => None,
    };
    let holder = ledger::holder(engine, stack, &migrate.tool).await?;
    Ok(Seen { facts, elsewhere, drift, dirty, holder })
}

fn look(call: &Call<'_>, tell: fn(&Migrate, &Seen) -> Value) -> Result<Dynamic> {
    let (stack, way) = open(call)?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({}));
    let repository = git::Repository::of_stack(call.world, &stack)?;
    let value = call.read(look, (stack, way, repository), move |pass, (stack, way, repository)| async move {
        let engine = way.engine(&pass).await?;
        let seen = seen(&engine, &pass, &stack, &repository).await?;
        Ok(tell(configured(&stack)?, &seen))
    })?;
    Ok(super::map(value))
}

fn status(call: &Call<'_>) -> Result<Dynamic> {
    look(call, |_, seen| table(seen))
}

fn state(call: &Call<'_>) -> Result<Dynamic> {
    look(call, |migrate, seen| {
        let (applied, files) = (&seen.facts.applied, &seen.facts.known.files);
        let pending = pending(applied, files);
        let unknown: Vec<i64> = applied.iter().copied().filter(|version| !files.contains_key(version)).collect();
        let gaps: Vec<i64> =
            pending.iter().copied().filter(|version| applied.iter().any(|one| one > version)).collect();
        let drift: Vec<String> = seen.drift.iter().map(|(version, text)| format!("{version}: {text}")).collect();
        json!({
            "preset": migrate.preset, "ledger": applied, "pending": pending, "unknown": unknown, "gaps": gaps,
            "drift": drift, "ignored": seen.facts.known.ignored, "holder": seen.holder,
            "dirty": seen.dirty.as_ref().map(Dirty::to_json),
        })
    })
}

fn table(seen: &Seen) -> Value {
    let Seen { facts: Facts { applied, known, .. }, elsewhere, drift, dirty, .. } = seen;
    let files = &known.files;
    let mut versions: Vec<i64> = applied.iter().chain(files.keys()).copied().collect();
    versions.sort_unstable();
    versions.dedup();
    let row = |version: &i64| {
        let file = files.get(version);
        let drift = drift.get(version);
        let state = match (applied.contains(version), file) {
            _ if dirty.as_ref().is_some_and(|dirty| dirty.version == *version) => "DIRTY",
            (true, None) => "UNKNOWN HERE",
            _ if drift.is_some() => "DRIFT",
            (true, Some(file)) if sql::is_empty(file.down.as_deref()) => "NO DOWN",
            (true, Some(_)) => "APPLIED",
            (false, _) => "PENDING",
        };
        let file = file.or_else(|| elsewhere.get(version));
        let (text, down) = (file.and_then(|file| file.up.as_deref()), file.and_then(|file| file.down.as_deref()));
        let up = text.map(sql::judge_up);
        json!({
            "version": version, "name": file.map(|file| &file.name), "state": state, "drift": drift,
            "additive": up.as_ref().is_some_and(|up| up.additive), "does": up.map(|up| up.does),
            "warns": sql::warns(text, down), "digest": files.get(version).map(files::File::digest),
        })
    };
    versions.iter().map(row).collect()
}

/// The rows of `stack.migrations`.
pub async fn rows(engine: &Engine, pass: &Pass, stack: &Stack, repository: &git::Repository) -> Result<Value> {
    Ok(table(&seen(engine, pass, stack, repository).await?))
}

fn versions_at(call: &Call<'_>) -> Result<Dynamic> {
    let commit = git::check_commit(call, 0)?;
    let (stack, _) = open(call)?;
    let repository = git::Repository::of_stack(call.world, &stack)?;
    let look = Look::at(call.world.stack_target(&stack), commit[..12].to_string(), json!({ "commit": commit }));
    let value = call.read(look, (stack, repository, commit), |pass, (stack, repository, commit)| async move {
        Ok(json!(known_to(&pass, &stack, &repository, &commit).await?))
    })?;
    Ok(super::map(value))
}

/// Versions that the files of a commit know, ascending.
pub async fn known_to(pass: &Pass, stack: &Stack, repository: &git::Repository, commit: &str) -> Result<Vec<i64>> {
    let migrate = configured(stack)?;
    let names = repository.names_at(pass, commit, &migrate.files).await?;
    let found: Vec<_> = names.into_iter().map(|name| (name, Vec::new())).collect();
    Ok(told_apart(&migrate.tool, &found, commit)?.files.into_keys().collect())
}

fn files_at(call: &Call<'_>) -> Result<Dynamic> {
    let commit = git::check_commit(call, 0)?;
    let versions = versions(call, call.json(1)?)?;
    let (stack, _) = open(call)?;
    let repository = git::Repository::of_stack(call.world, &stack)?;
    let args = json!({ "commit": commit, "versions": versions });
    let look = Look::at(call.world.stack_target(&stack), commit[..12].to_string(), args);
    let context = (stack, repository, commit, versions);
    let value = call.read(look, context, |pass, (stack, repository, commit, versions)| async move {
        let known = texts_at(&pass, &stack, &repository, &commit, &versions).await?;
        Ok(known.files.iter().filter(|(version, _)| versions.contains(version)).map(would_do).collect())
    })?;
    Ok(super::map(value))
}

/// Files of a commit, with the texts of these versions.
async fn texts_at(
    pass: &Pass,
    stack: &Stack,
    repository: &git::Repository,
    commit: &str,
    versions: &[i64],
) -> Result<files::Known> {
    let migrate = configured(stack)?;
    let folder = migrate.files.trim_end_matches('/');
    let is_asked = |name: &str| {
        let version = migrate.tool.names.read(name).and_then(|named| named.version.parse().ok());
        version.is_some_and(|version| versions.contains(&version))
    };
    let mut found = Vec::new();
    for name in repository.names_at(pass, commit, folder).await? {
        let text = match is_asked(&name) {
            true => repository.text_at(pass, commit, &format!("{folder}/{name}")).await?,
            false => String::new(),
        };
        found.push((name, text.into_bytes()));
    }
    told_apart(&migrate.tool, &found, commit)
}

fn told_apart(tool: &Tool, found: &[(String, Vec<u8>)], commit: &str) -> Result<files::Known> {
    files::parse(tool, found)
        .map_err(|why| Error::new(Kind::Failed, format!("the migrations of {} cannot be told", &commit[..12]), why))
}

fn would_do((version, file): (&i64, &files::File)) -> Value {
    let up = sql::judge_up(file.up.as_deref().unwrap_or_default());
    json!({
        "version": version, "name": file.name, "additive": up.additive, "does": up.does, "loses": run::losses_of(*version, file),
        "back": plan::goes_back(file), "warns": sql::warns(file.up.as_deref(), file.down.as_deref()),
        "digest": file.digest(),
    })
}

/// Those of `versions` whose down, as the running image has it, would delete rows or values that are there now.
pub async fn losing(engine: &Engine, stack: &Stack, versions: &[i64]) -> Result<Vec<i64>> {
    if versions.is_empty() {
        return Ok(Vec::new());
    }
    let image = docker::find(engine, stack, &configured(stack)?.service).await?.image_id;
    let lost = counted(engine, stack, versions, &known(engine, stack, &image).await?.files, lost).await?;
    Ok(lost.into_iter().map(|lost| lost.version).collect())
}

fn running(call: &Call<'_>) -> Result<Dynamic> {
    let (stack, way) = open(call)?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({}));
    let value = call.read(look, (stack, way), |pass, (stack, way)| async move {
        at_work(&way.engine(&pass).await?, &stack).await.map(Value::from)
    })?;
    Ok(super::map(value))
}

fn losses(call: &Call<'_>) -> Result<Dynamic> {
    counted_of(call, lost)
}

fn stops(call: &Call<'_>) -> Result<Dynamic> {
    counted_of(call, |down| sql::stops(down).into_iter().map(|stop| (stop.what, stop.count_sql)).collect())
}

/// What is looked for in a down file: in words, with the query that counts it.
type Counts = fn(&str) -> Vec<(String, Option<String>)>;

fn lost(down: &str) -> Vec<(String, Option<String>)> {
    sql::losses(down).iter().map(|loss| (loss.what(), loss.count_sql())).collect()
}

fn counted_of(call: &Call<'_>, of: Counts) -> Result<Dynamic> {
    let versions = versions(call, call.json(0)?)?;
    let (stack, way) = open(call)?;
    let look = Look::at(call.world.stack_target(&stack), "", json!({ "versions": versions }));
    let value = call.read(look, (stack, way, versions), move |pass, (stack, way, versions)| async move {
        let engine = way.engine(&pass).await?;
        let service = &configured(&stack)?.service;
        let image = docker::find(&engine, &stack, service).await?.image_id;
        let files = known(&engine, &stack, &image).await?.files;
        Ok(json!(counted(&engine, &stack, &versions, &files, of).await?))
    })?;
    Ok(super::map(value))
}

async fn counted(engine: &Engine, stack: &Stack, versions: &[i64], files: &Files, of: Counts) -> Result<Vec<Lost>> {
    let mut all = Vec::new();
    for version in versions {
        let down = files.get(version).and_then(|file| file.down.as_deref()).unwrap_or("");
        for (what, query) in of(down) {
            let rows = match query {
                Some(query) => count(engine, stack, &query).await?,
                None => None,
            };
            // Nothing of it is there: nothing is lost, and nothing in the way.
            all.extend((rows != Some(0)).then_some(Lost { version: *version, what, rows }));
        }
    }
    Ok(all)
}

async fn count(engine: &Engine, stack: &Stack, query: &str) -> Result<Option<i64>> {
    match db::judged(engine, stack, query, &[]).await {
        Ok(found) => Ok(found.first().and_then(|row| row["n"].as_i64())),
        // The object may be gone already, or not yet there, or to ask would call what is not known: then nobody can say.
        Err(error) if matches!(error.kind, Kind::Failed | Kind::Usage) => Ok(None),
        Err(error) => Err(error),
    }
}

fn versions(call: &Call<'_>, list: Value) -> Result<Vec<i64>> {
    let numbers = list.as_array().and_then(|items| items.iter().map(Value::as_i64).collect::<Option<Vec<_>>>());
    numbers.ok_or_else(|| call.bad("versions must be an array of whole numbers"))
}

/// The plan that a script gave. A number in its place would be one that many tools read as all.
fn plan(call: &Call<'_>) -> Result<Plan> {
    let plan: Plan = serde_json::from_value(call.json(0)?).map_err(|error| call.bad(&error.to_string()))?;
    call.in_range("within_s", plan.within_s, 1..=7200)?;
    plan.count().map_err(|why| call.bad(&why))?;
    Ok(plan)
}

/// The change that a plan is, without what differs by direction. Its state before is the plan's: another one refuses it.
fn change(call: &Call<'_>, stack: &Stack, plan: &Plan) -> Change {
    let says =
        format!("{} with image {}{}", list(&plan.versions), short_id(&plan.image_id), losses_in_words(&plan.loses));
    let args = json!({ "versions": plan.versions, "ledger": plan.ledger, "image_id": plan.image_id });
    let look = Look::at(call.world.stack_target(stack), says, args).within(plan.within_s);
    let lives = Lives::Container { host: stack.host.clone(), name: once_name(stack) };
    Change { before: json!(plan.ledger), ..Change::of(look).lives(lives) }
}

fn down(call: &Call<'_>) -> Result<Receipt> {
    let plan = plan(call)?;
    let (stack, way) = open(call)?;
    let lost = plan.versions.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    let change = change(call, &stack, &plan).loses(lost);
    call.change(change, (stack, way, plan), |pass, (stack, way, plan)| async move {
        run::perform(&way.engine(&pass).await?, &pass, &stack, Way::Down, &plan).await
    })
}

fn up(call: &Call<'_>) -> Result<Receipt> {
    let plan = plan(call)?;
    let (stack, way) = open(call)?;
    let lost: Vec<&str> = plan.loses.iter().map(|lost| lost.what.as_str()).collect();
    let bare = Plan { loses: Vec::new(), ..plan.clone() };
    // Its image may not be there yet. What the plan does not say to be lost is asked for when it is known.
    call.intends(|| {
        let change = change(call, &stack, &bare);
        if lost.is_empty() { change } else { change.loses(lost.join(", ")) }
    })?;
    let look = Look::at(call.world.stack_target(&stack), list(&plan.versions), json!({ "image_id": plan.image_id }));
    let context = (Arc::clone(&stack), way.clone(), plan.clone());
    let seen = call.read(look, context, |pass, (stack, way, plan)| async move {
        let known = known(&way.engine(&pass).await?, &stack, &plan.image_id).await?;
        Ok(json!({ "loses": run::up_losses(&plan, &known), "back": plan.can_go_back(&known.files) }))
    })?;
    let mut change = change(call, &stack, &bare);
    let loses: Vec<&str> = seen["loses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !loses.is_empty() {
        change = change.loses(loses.join(", "));
    }
    if seen["back"] == json!(true) {
        let before = change.before.clone();
        change = change.undone_by(inverse(&stack, &plan), before);
    }
    call.change(change, (stack, way, plan), |pass, (stack, way, plan)| async move {
        run::perform(&way.engine(&pass).await?, &pass, &stack, Way::Up, &plan).await
    })
}

/// Takes the same versions back, with the same image, also when it failed half way. It agrees to no loss: rows that came
/// since refuse it.
fn inverse(stack: &Stack, plan: &Plan) -> String {
    let newest: Vec<i64> = plan.versions.iter().rev().copied().collect();
    let (name, ledger, image) = (json!(stack.name), json!(plan.wanted(Way::Up)), json!(plan.image_id));
    format!(
        "stack({name}).migrate_down(#{{ versions: {}, ledger: {ledger}, image_id: {image}, partly: true }})",
        json!(newest)
    )
}

fn taken_back_now(past: &Past<'_>) -> Result<Now> {
    ledger_now(past, Way::Down)
}

fn applied_now(past: &Past<'_>) -> Result<Now> {
    ledger_now(past, Way::Up)
}

/// What is applied, and what was to be.
fn ledger_now(past: &Past<'_>, direction: Way) -> Result<Now> {
    let (stack, way) = past.stack()?;
    let [versions, ledger] = ["versions", "ledger"].map(|key| serde_json::from_value(past.value(key).clone()));
    let bad = |error: serde_json::Error| Error::new(Kind::Failed, "a recorded plan cannot be read", error.to_string());
    let plan = Plan {
        versions: versions.map_err(bad)?,
        ledger: ledger.map_err(bad)?,
        image_id: past.text("image_id"),
        loses: Vec::new(),
        within_s: 60,
        partly: false,
    };
    let of = format!("ledger of {}", stack.name);
    past.look(of, (stack, way, plan), move |pass, (stack, way, plan)| async move {
        let facts = facts(&way.engine(&pass).await?, &stack, &plan.image_id).await?;
        // A mark means that neither is so.
        let now = facts.ledger.dirty().map_or_else(|| json!(facts.applied), |version| json!({ "dirty": version }));
        Ok((now, json!(plan.wanted(direction))))
    })
}

#[cfg(test)]
mod tests {
    use super::files::{File, Known};
    use super::ledger::Read;
    use super::*;

    fn files(known: &[i64]) -> Files {
        let file = File { name: "x".into(), up: Some("CREATE TABLE t()".into()), down: Some("DROP TABLE t".into()) };
        known.iter().map(|version| (*version, file.clone())).collect()
    }

    #[test]
    fn the_table_tells_the_states() {
        let mut known = files(&[44, 45, 46, 48]);
        known.entry(46).and_modify(|file| file.down = None);
        let applied = vec![43, 44, 45, 46, 47];
        let facts =
            Facts { known: Known { files: known, ignored: Vec::new() }, ledger: Read::Rows(applied.clone()), applied };
        let dirty = Dirty { version: 45, reading: drift::Reading::FailedUp, evidence: "".into(), repair: "".into() };
        let drift = Drift::from([(44, "table t is not there".to_string())]);
        let mut seen = Seen { facts, elsewhere: files(&[47]), drift, dirty: Some(dirty), holder: None };
        let states = |seen: &Seen| -> Vec<String> {
            let rows = table(seen);
            rows.as_array().expect("rows").iter().map(|row| row["state"].as_str().expect("text").to_string()).collect()
        };
        assert_eq!(states(&seen), ["UNKNOWN HERE", "DRIFT", "DIRTY", "NO DOWN", "UNKNOWN HERE", "PENDING"]);
        let rows = table(&seen);
        assert_eq!(rows[1]["drift"], "table t is not there");
        assert_eq!(rows[4]["additive"], true, "judged by the file that the repository's history has");
        assert_eq!((&rows[0]["additive"], &rows[0]["warns"]), (&json!(false), &json!([])));
        (seen.dirty, seen.drift) = (None, Drift::new());
        assert_eq!(states(&seen)[1..3], ["APPLIED", "APPLIED"]);
    }
}
