//! The releases of a stack: what was deployed when and by whom, what was marked bad, and what going back to each would
//! need. Told by `releases.jsonl` in the stack's folder on its host, to which every deploy and rollback adds a line.

mod history;

use super::docker::engine::Engine;
use super::docker::{self, SERVICE_LABEL, STACK_LABEL};
use super::git::Repository;
use super::undo::{Now, Past};
use super::way::Way;
use super::{Binding, Call, Change, Look, Receipt, beside, host, migrate, stack, values};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Lives, Pass, clock};
use crate::redact;
use history::{Applied, Facts, History, Release};
use rhai::Dynamic;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const LIST: Verb = Verb {
    name: "release.list",
    class: Class::Read,
    waits: false,
    sig: "stack.releases() -> array",
    doc: "Releases, and what going back to each needs. Deployed ones first, the newest first, then the \
          newest tags by version that never were: 20 in all. Each is a map: `tag`, `commit`, `at` and `by` (`()` when \
          it was never deployed by opsh), `ran_s` (seconds it ran until it was replaced or marked bad), `image` (one of \
          its commit is on the host), `undo` (versions of migrations to take back), `irreversible` (one of them has \
          no way down from here), `bad` (why it was marked, or `()`), `verdict`: RUNNING, OK, NOT BUILT (it takes a \
          build), NEEDS DATA LOSS, NEEDS MIGRATIONS (it is ahead of the schema), IRREVERSIBLE or BAD. Fails as \
          `stack.migrations`. Deadline 60 s.",
    example: r#"stack("prod").releases().filter(|r| r.verdict == "OK")"#,
};

const TOLD: Verb = Verb {
    name: "release.told",
    class: Class::Read,
    waits: false,
    sig: "stack.told_of(commit: string) -> map",
    doc: "What the stack's history says of one commit. `at`, `by`, `ran_s` and `tag` of the last time that it was brought live, \
          each `()` when it never was; `bad`, why it was marked, or `()`. Fails with `failed` when the history cannot be \
          read. Deadline 60 s.",
    example: r#"stack("prod").told_of("0123456789012345678901234567890123456789").bad"#,
};

const RECORD: Verb = Verb {
    name: "release.record",
    class: Class::Change,
    waits: false,
    sig: "stack.record_release(release: map) -> receipt",
    doc: "Adds a release to the stack's history. It lies beside the stack on its host. `release` is a map: `tag`, `commit` (40 hex), \
          `how` (`deploy` or `rollback`) and `image_id` (what serves it). When and by whom is added. Does not touch what \
          runs. `before` and `after` say what the \
          history ends with: `tag`, and how many `releases` it has. Fails with `failed` when the folder cannot be written. Deadline 60 s.",
    example: r#"stack("prod").record_release(#{ tag: "v1.8.0", commit: "0123456789012345678901234567890123456789", how: "deploy", image_id: "sha256:0000" })"#,
};

const STRIKE: Verb = Verb {
    name: "release.strike",
    class: Class::Change,
    waits: false,
    sig: "stack.strike_release(release: any) -> receipt",
    doc: "Says that a release was taken back. It no longer counts, and the one before it runs again. `release` is a tag, \
          whose newest time is meant, or a map as `stack.record_release` takes it with `before`, what the history ends with \
          then. Does not touch what runs. Fails with `not_found` when there is none. Deadline 60 s.",
    example: r#"stack("prod").strike_release("v1.9.0")"#,
};

const MARK_BAD: Verb = Verb {
    name: "release.mark_bad",
    class: Class::Change,
    waits: false,
    sig: "stack.mark_bad(tag: string, why: string) -> receipt",
    doc: "Marks the commit of a tag as bad, for everybody. Nothing goes back to it any more. `why` is shown with it. \
          Fails with `not_found` when there is no such tag. Deadline 60 s.",
    example: r#"stack("prod").mark_bad("v1.9.0", "the list of shifts answers 500")"#,
};

const MARK_GOOD: Verb = Verb {
    name: "release.mark_good",
    class: Class::Change,
    waits: false,
    sig: "stack.mark_good(tag: string) -> receipt",
    doc: "Takes a bad mark away. Fails with `not_found` when there is no such tag. Deadline 60 s.",
    example: r#"stack("prod").mark_good("v1.9.0")"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[
    Binding::Read(&LIST, list),
    Binding::Read(&TOLD, told_of),
    Binding::Undoable(&RECORD, record, newest_now),
    Binding::Undoable(&STRIKE, strike, newest_now),
    Binding::Undoable(&MARK_BAD, mark_bad, mark_now),
    Binding::Undoable(&MARK_GOOD, mark_good, mark_now),
];

/// At most so many releases are listed.
const LISTED: usize = 20;

/// A stack's history and what it is judged by.
#[derive(Clone)]
struct Place {
    stack: Arc<Stack>,
    way: Way,
    repository: Repository,
}

fn open(call: &Call<'_>) -> Result<Place> {
    let stack = call.stack()?;
    Ok(Place { way: call.world.way(&stack.host)?, repository: Repository::of_stack(call.world, &stack)?, stack })
}

/// The service whose image a release is.
fn service_of(stack: &Stack) -> Result<&str> {
    let told = stack.migrate.as_ref().map(|migrate| migrate.service.as_str());
    let only = (stack.services.len() == 1).then(|| stack.services.keys().next()).flatten();
    told.or(only.map(String::as_str))
        .ok_or_else(|| stack::lacks(stack, "service that is released", "services = { backend = {} }"))
}

/// The history, in the folder beside the stack.
const FILE: &str = "releases.jsonl";

impl Place {
    async fn history(&self, pass: &Pass) -> Result<History> {
        let reach = self.way.reach(pass).await?;
        let (script, folder) = (format!("{}{}", beside::FILES, beside::READ), beside::folder(&self.stack));
        let words: Vec<String> = ["sh", "-c", &script, "opsh", &folder, FILE].map(String::from).into();
        let ran = reach.run(pass, &host::words_of(words.clone())).await;
        let ran = host::finished(&self.stack.host, &words[..1], ran)?;
        let what = format!("the history of {} was not read", self.stack.name);
        if let Some(error) = beside::refused(ran.code, &ran.err, &what, &self.stack.host, &folder) {
            return Err(error);
        }
        let ran = ran.checked(&self.stack.host, &words[..1])?;
        beside::say_if_newer(pass, &ran.out, &format!("{folder}/{FILE}"));
        Ok(History::of(&ran.out))
    }

    /// Adds a line. One write that ends with a line end: two who write at once cannot mix theirs.
    async fn append(&self, pass: &Pass, mut line: Value) -> Result<()> {
        let about: Value = serde_json::from_str(&pass.about()).unwrap_or_default();
        line["at_us"] = clock::wall_us().into();
        line["by"] = about["by"].clone();
        line["effect"] = pass.effect().into();
        line["format"] = beside::FORMAT.into();
        let (script, folder) = (format!("{}{}", beside::FILES, beside::APPEND), beside::folder(&self.stack));
        // Others may read it: what is secret is hidden only now, when the login has taught it.
        let reach = self.way.reach(pass).await?;
        let line = redact::clean_json(line);
        let words = ["sh", "-c", &script, "opsh", &folder, FILE, &line.to_string()];
        let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
        let ran = host::run_durable(&reach, pass, &self.stack.host, &host::words_of(words)).await?;
        if ran.code == 0 {
            return Ok(());
        }
        let what = format!("the history of {} was not written on {}", self.stack.name, self.stack.host);
        if let Some(error) = beside::refused(ran.code, &ran.err, &what, &self.stack.host, &folder) {
            return Err(error);
        }
        let next = format!(
            "host({}).read([\"ls\", \"-la\", {}]).out     who may write there",
            values::literal(&self.stack.host),
            values::literal(&self.stack.dir)
        );
        Err(Error::new(Kind::Failed, what, redact::last_lines(&ran.err, 3)).next(next))
    }
}

// ── the list ──

fn list(call: &Call<'_>) -> Result<Dynamic> {
    let place = open(call)?;
    let look = Look::at(call.world.stack_target(&place.stack), "", json!({}));
    let value = call.read(look, place, |pass, place| async move { place.listed(&pass).await })?;
    Ok(super::map(value))
}

fn told_of(call: &Call<'_>) -> Result<Dynamic> {
    let (place, commit) = (open(call)?, super::git::check_commit(call, 0)?);
    let look = Look::at(call.world.stack_target(&place.stack), commit[..12].to_string(), json!({ "commit": commit }));
    let value = call.read(look, (place, commit), |pass, (place, commit)| async move {
        let history = place.history(&pass).await?;
        let mut told =
            times_of(&history).into_iter().find(|(of, _)| *of == commit).map_or_else(never, |(_, told)| told);
        told["bad"] = json!(history.bad.get(&commit).map(|(_, why)| why));
        Ok(told)
    })?;
    Ok(super::map(value))
}

/// When each deployed commit last was brought live, by whom, how long it ran; the newest first.
fn times_of(history: &History) -> Vec<(String, Value)> {
    let times = history.times(clock::wall_us()).into_iter();
    times
        .map(|(release, ran_s)| {
            let at = clock::rfc3339(release.at_us);
            (release.commit.clone(), json!({ "tag": release.tag, "at": at, "by": release.by, "ran_s": ran_s }))
        })
        .collect()
}

fn never() -> Value {
    json!({ "tag": null, "at": null, "by": null, "ran_s": null })
}

/// A release before it is judged: of the history, or a tag that never was deployed.
struct Candidate {
    tag: String,
    commit: String,
    /// When, by whom, how long.
    told: Value,
}

impl Place {
    async fn listed(&self, pass: &Pass) -> Result<Value> {
        let history = self.history(pass).await?;
        let engine = self.way.engine(pass).await?;
        let candidates = candidates(&history, self.repository.newest_tags(pass, LISTED).await?);
        let (running, built) = (self.running(pass, &engine).await?, self.built(&engine).await?);
        let schema = self.schema(pass, &engine, &candidates).await?;
        let rows = candidates.iter().map(|one| {
            let mut facts = Facts {
                runs: running.as_deref() == Some(&one.commit),
                image: built.contains(&one.commit),
                bad: history.bad.get(&one.commit).map(|(_, why)| why.clone()),
                ..Facts::default()
            };
            if let Some(known) = schema.known.get(&one.commit) {
                facts.judge_schema(known, &schema.applied);
                facts.loses = facts.undo.iter().any(|version| schema.loses.contains(version));
            } else {
                facts.irreversible = self.stack.migrate.is_some();
            }
            let mut row = one.told.clone();
            (row["tag"], row["commit"]) = (json!(one.tag), json!(one.commit));
            row.as_object_mut()
                .into_iter()
                .for_each(|row| row.extend(facts.row().as_object().cloned().unwrap_or_default()));
            row
        });
        Ok(rows.collect())
    }

    /// The commit that serves: the label of the running image, else what is checked out.
    async fn running(&self, pass: &Pass, engine: &Engine) -> Result<Option<String>> {
        let Some(container) = docker::look_for(engine, &self.stack, service_of(&self.stack)?).await? else {
            return Ok(None);
        };
        let image = engine.image(&container.image_id).await?;
        match image.and_then(|image| image.revision()) {
            Some(commit) => Ok(Some(commit)),
            None => self.repository.head(pass).await.map(Some),
        }
    }

    /// Commits of which the host has an image.
    async fn built(&self, engine: &Engine) -> Result<Vec<String>> {
        let service = service_of(&self.stack)?;
        let images = engine.images_labelled(STACK_LABEL, &self.stack.compose.project).await?;
        let own =
            images.into_iter().filter(|image| image.labels.get(SERVICE_LABEL).is_some_and(|label| label == service));
        Ok(own.filter_map(|image| image.revision()).collect())
    }

    async fn schema(&self, pass: &Pass, engine: &Engine, candidates: &[Candidate]) -> Result<Schema> {
        if self.stack.migrate.is_none() {
            return Ok(Schema::default());
        }
        let table = migrate::rows(engine, pass, &self.stack, &self.repository).await?;
        let applied: Vec<Applied> = serde_json::from_value(table).map_err(|error| {
            Error::new(Kind::Failed, format!("migrations of {} cannot be judged", self.stack.name), error.to_string())
        })?;
        let mut schema = Schema { applied, ..Schema::default() };
        for one in candidates {
            // A commit whose files cannot be told apart is one that nobody can judge.
            if let Ok(known) = migrate::known_to(pass, &self.stack, &self.repository, &one.commit).await {
                schema.known.insert(one.commit.clone(), known);
            }
        }
        let mut undone = Vec::new();
        for known in schema.known.values() {
            let mut facts = Facts::default();
            facts.judge_schema(known, &schema.applied);
            undone.extend(facts.undo);
        }
        undone.sort_unstable();
        undone.dedup();
        schema.loses = migrate::losing(engine, &self.stack, &undone).await?;
        Ok(schema)
    }
}

/// What the schema says, for all releases at once.
#[derive(Default)]
struct Schema {
    applied: Vec<Applied>,
    /// Versions that the code of a commit knows.
    known: BTreeMap<String, Vec<i64>>,
    /// Versions whose down deletes something.
    loses: Vec<i64>,
}

fn candidates(history: &History, tags: Vec<(String, String)>) -> Vec<Candidate> {
    let times = times_of(history);
    // However much was deployed, the newest tags have their place.
    let deployed = times.iter().take(LISTED - LISTED / 4);
    let mut all: Vec<Candidate> = deployed
        .map(|(commit, told)| Candidate {
            tag: told["tag"].as_str().unwrap_or_default().into(),
            commit: commit.clone(),
            told: told.clone(),
        })
        .collect();
    for (tag, commit) in tags {
        if !all.iter().any(|one| one.commit == commit) {
            let told = times.iter().find(|(of, _)| *of == commit).map_or_else(never, |(_, told)| told.clone());
            all.push(Candidate { tag, commit, told });
        }
    }
    all.truncate(LISTED);
    all
}

// ── adding to it ──

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    tag: String,
    commit: String,
    how: String,
    image_id: String,
}

fn record(call: &Call<'_>) -> Result<Receipt> {
    let given: Recorded = serde_json::from_value(call.json(0)?).map_err(|error| call.bad(&error.to_string()))?;
    if !["deploy", "rollback"].contains(&given.how.as_str()) {
        return Err(call.bad(&format!("how must be \"deploy\" or \"rollback\", not \"{}\"", given.how)));
    }
    let Recorded { tag, commit, how, image_id } = given;
    let line = json!({ "kind": "release", "tag": tag, "commit": commit, "how": how, "image_id": image_id });
    let place = open(call)?;
    call.intends(|| {
        Change::of(Look::at(call.world.stack_target(&place.stack), format!("{how} of {tag}"), line.clone()))
    })?;
    let before = newest(call)?;
    let name = json!(place.stack.name);
    let releases = before["releases"].as_i64().unwrap_or_default() + 1;
    let wanted = json!({ "wanted": { "tag": tag, "releases": releases } });
    let look = Look::at(call.world.stack_target(&place.stack), format!("{how} of {tag}"), wanted);
    let struck =
        json!({ "tag": tag, "commit": line["commit"], "how": how, "image_id": line["image_id"], "before": before });
    let change = Change::of(look)
        .undone_by(format!("stack({name}).strike_release({})", values::in_rhai(&struck)), before.clone());
    added(call, change, place, line, before)
}

/// A release that is taken back, with the tag that is the newest one then.
#[derive(Clone, Deserialize, Serialize)]
struct Struck {
    tag: String,
    commit: String,
    how: String,
    image_id: String,
    /// What the history ends with then.
    before: Value,
}

fn strike(call: &Call<'_>) -> Result<Receipt> {
    let (place, given) = (open(call)?, call.json(0)?);
    if let Some(tag) = given.as_str() {
        let says = format!("{tag} no longer counts");
        call.intends(|| Change::of(Look::at(call.world.stack_target(&place.stack), says, json!({ "tag": tag }))))?;
    }
    let struck: Struck = match given.as_str() {
        Some(tag) => told(call, &place, tag)?,
        // As an inverse it brings what it needs: what is there now was looked at already.
        None => serde_json::from_value(given).map_err(|error| call.bad(&error.to_string()))?,
    };
    let Struck { tag, before: then, .. } = &struck;
    let releases = then["releases"].as_i64().unwrap_or_default() + 1;
    let says = format!("{tag} no longer counts");
    let look = Look::at(call.world.stack_target(&place.stack), says, json!({ "wanted": then }));
    let release = json!({ "tag": tag, "commit": struck.commit, "how": struck.how, "image_id": struck.image_id });
    let before = json!({ "tag": tag, "releases": releases });
    let change = Change::of(look).undone_by(
        format!("stack({}).record_release({})", json!(place.stack.name), values::in_rhai(&release)),
        before.clone(),
    );
    let line = json!({ "kind": "struck", "tag": tag });
    added(call, change, place, line, before)
}

/// The newest release of a tag, as the history tells it.
fn told(call: &Call<'_>, place: &Place, tag: &str) -> Result<Struck> {
    let look = Look::at(call.world.stack_target(&place.stack), "", json!({ "before": "strike", "tag": tag }));
    let seen = call.read(look, (place.clone(), tag.to_string()), |pass, (place, tag)| async move {
        let history = place.history(&pass).await?;
        let at = history.releases.iter().rposition(|release| release.tag == tag).ok_or_else(|| {
            let why = format!("the history of {} has no release of it", place.stack.name);
            Error::new(Kind::NotFound, format!("{tag} was not struck"), why)
        })?;
        let Release { tag, commit, how, image_id, .. } = history.releases[at].clone();
        let mut rest = history;
        rest.releases.remove(at);
        Ok(json!(Struck { tag, commit, how, image_id, before: end(&rest) }))
    })?;
    serde_json::from_value(seen).map_err(|error| call.bad(&error.to_string()))
}

/// Adds a line and looks at what is newest then.
fn added(call: &Call<'_>, change: Change, place: Place, line: Value, before: Value) -> Result<Receipt> {
    let change = change.lives(Lives::Run(place.stack.host.clone()));
    call.change(change, (place, line, before), |pass, (place, line, before)| async move {
        place.append(&pass, line).await?;
        let after = end(&place.history(&pass).await?);
        Ok(Did { changed: true, before, after, ..Did::default() })
    })
}

/// What a history ends with: the tag of what was released last, and how many releases there are.
fn end(history: &History) -> Value {
    json!({ "tag": history.newest().map(|release| &release.tag), "releases": history.releases.len() })
}

/// What the history ends with now.
fn newest(call: &Call<'_>) -> Result<Value> {
    let place = open(call)?;
    let look = Look::at(call.world.stack_target(&place.stack), "", json!({ "before": "release" }));
    call.read(look, place, |pass, place| async move { Ok(end(&place.history(&pass).await?)) })
}

/// The release that the history ends with.
fn newest_now(past: &Past<'_>) -> Result<Now> {
    let place = of_past(past)?;
    let wanted = past.value("wanted").clone();
    past.look("the newest release", (place, wanted), |pass, (place, wanted)| async move {
        Ok((end(&place.history(&pass).await?), wanted))
    })
}

fn of_past(past: &Past<'_>) -> Result<Place> {
    let (stack, way) = past.stack()?;
    Ok(Place { repository: Repository::of_stack(past.world, &stack)?, stack, way })
}

fn mark_bad(call: &Call<'_>) -> Result<Receipt> {
    let why = call.text(1)?;
    mark(call, Some(why))
}

fn mark_good(call: &Call<'_>) -> Result<Receipt> {
    mark(call, None)
}

/// Sets or, without a reason, lifts the mark of a tag's commit.
fn mark(call: &Call<'_>, why: Option<String>) -> Result<Receipt> {
    let tag = call.text(0)?;
    let place = open(call)?;
    let says = why.as_ref().map_or(format!("{tag} is good"), |why| format!("{tag} is bad: {why}"));
    let target = call.world.stack_target(&place.stack);
    call.intends(|| Change::of(Look::at(target, says.clone(), json!({ "tag": tag, "why": why }))))?;
    let look = Look::at(call.world.stack_target(&place.stack), "", json!({ "before": "mark", "tag": tag }));
    let seen = call.read(look, (place.clone(), tag.clone()), |pass, (place, tag)| async move {
        let list = format!("stack({}).repo.tags(10)     the tags there are", values::literal(&place.stack.name));
        let commit = place.repository.commit_of(&pass, &tag, &list).await?;
        let bad = place.history(&pass).await?.bad.get(&commit).map(|(_, why)| why.clone());
        Ok(json!({ "commit": commit, "bad": bad }))
    })?;
    let (name, before) = (json!(place.stack.name), seen["bad"].clone());
    let inverse = match before.as_str() {
        Some(why) => format!("stack({name}).mark_bad({}, {})", json!(tag), json!(why)),
        None => format!("stack({name}).mark_good({})", json!(tag)),
    };
    let look = Look::at(call.world.stack_target(&place.stack), says, json!({ "commit": seen["commit"], "why": why }));
    let change = Change::of(look).undone_by(inverse, before.clone()).lives(Lives::Run(place.stack.host.clone()));
    let kind = if why.is_some() { "bad" } else { "good" };
    let line = json!({ "kind": kind, "tag": tag, "commit": seen["commit"], "why": why });
    let wanted = json!(why);
    call.change(change, (place, line, before, wanted), |pass, (place, line, before, wanted)| async move {
        if before != wanted {
            place.append(&pass, line).await?;
        }
        Ok(Did { changed: before != wanted, before, after: wanted, ..Did::default() })
    })
}

/// Why the commit is marked bad; null when it is not.
fn mark_now(past: &Past<'_>) -> Result<Now> {
    let place = of_past(past)?;
    let (commit, wanted) = (past.text("commit"), past.value("why").clone());
    let of = format!("mark of {}", commit.get(..12).unwrap_or(&commit));
    past.look(of, (place, commit, wanted), |pass, (place, commit, wanted)| async move {
        let bad = place.history(&pass).await?.bad.get(&commit).map(|(_, why)| why.clone());
        Ok((json!(bad), wanted))
    })
}
