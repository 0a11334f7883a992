//! The tool at work: a container of the Engine with the image that knows the migrations, its name the lock of the stack,
//! and the ledger before and after, which alone says what happened.

use super::drift;
use super::files::{self, File, Known};
use super::ledger::{self, Read};
use super::plan::{Lost, Plan, Way, list};
use super::sql;
use super::{configured, counted, lost};
use crate::bind::docker::engine::Engine;
use crate::bind::docker::image::Limits;
use crate::bind::docker::model::Ran;
use crate::bind::docker::once::{ONCE, Once};
use crate::bind::docker::{self, STACK_LABEL, short_id};
use crate::bind::host;
use crate::bind::work::{self, ABOUT};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::{Did, Pass};
use crate::redact;
use serde_json::{Value, json};

/// What an image and the database say.
pub struct Facts {
    /// The files of the image.
    pub known: Known,
    /// The ledger as it was read.
    pub ledger: Read,
    /// The versions that it says are applied, ascending.
    pub applied: Vec<i64>,
}

/// The migration files of an image.
pub async fn known(engine: &Engine, stack: &Stack, image_id: &str) -> Result<Known> {
    let migrate = configured(stack)?;
    let folder = &migrate.image_files;
    let found = engine.read_dir(image_id, folder, Limits { files: 5000, bytes: 16 << 20 }).await?;
    let found = found.ok_or_else(|| {
        let why = format!("image {} has no {folder}", short_id(image_id));
        Error::new(Kind::NotFound, format!("no migration files of {}", stack.name), why)
            .next(format!("[stack.{}] migrate = {{ …, image_files = \"…\" }}     in opsh.toml", stack.name))
    })?;
    files::parse(&migrate.tool, &found)
        .map_err(|why| Error::new(Kind::Failed, format!("migrations of {} are ambiguous", stack.name), why))
}

/// Reads both.
pub async fn facts(engine: &Engine, stack: &Stack, image_id: &str) -> Result<Facts> {
    let known = known(engine, stack, image_id).await?;
    let ledger = ledger::read(engine, stack, &configured(stack)?.tool.ledger).await?;
    let applied = ledger.applied(&known.files);
    Ok(Facts { known, ledger, applied })
}

/// One name for each stack: the Engine gives it to one container at a time, so two operators cannot migrate at once.
pub fn once_name(stack: &Stack) -> String {
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

/// Who migrates, and in which container.
pub async fn at_work(engine: &Engine, stack: &Stack) -> Result<Vec<Value>> {
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

/// Does what the plan says, unless a fact of now denies it, and tells by the ledger what came of it.
pub async fn perform(engine: &Engine, pass: &Pass, stack: &Stack, way: Way, plan: &Plan) -> Result<Did> {
    let what = format!("migrations were not {} on {}", way.done(), stack.name);
    let unmet = |why: String| Error::new(Kind::Unmet, what.as_str(), why);
    if let Some(other) = at_work(engine, stack).await?.first() {
        let line = match other["run"].as_str() {
            Some(run) => format!("opsh attach {run}     waits for its end"),
            None => format!("host({}).works()     what runs there", json!(stack.host)),
        };
        return Err(unmet(held(other)).next(line));
    }
    let before = facts(engine, stack, &plan.image_id).await?;
    let plan = &plan.clone().narrowed(&before.applied);
    refuse(engine, stack, way, plan, &before).await.map_err(|error| match error {
        Refusal::Because(why) => {
            unmet(why).next(format!("stack({}).migration_state()     what is there", json!(stack.name)))
        }
        Refusal::Failed(error) => *error,
    })?;
    let migrate = configured(stack)?;
    let words = plan.words(way, &migrate.tool, &migrate.image_files).map_err(unmet)?;
    let ran = run(engine, pass, stack, &plan.image_id, words).await?;
    let after = ledger::read(engine, stack, &migrate.tool.ledger).await?;
    let now = after.applied(&before.known.files);
    let said = redact::last_lines(&String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()), 6);
    if ran.exit == 0 && now == plan.wanted(way) && after.dirty().is_none() {
        let value = json!({ "said": said });
        return Ok(Did { changed: true, before: json!(before.applied), after: json!(now), value });
    }
    let mut why = match after.dirty() {
        None => came_of(way, plan, "the ledger is", &now, ran.exit),
        Some(version) => {
            let dirty = drift::dirty(engine, stack, version, &before.known.files).await?;
            let told = came_of(way, plan, "applied is by that", &dirty.applied(&now), ran.exit);
            format!("{}\n{told}", dirty.says())
        }
    };
    why.push_str(&format!("\nIt said: {said}"));
    Err(Error::new(Kind::Failed, what, why)
        .exit(ran.exit)
        .next(format!("stack({}).migrations()     what is applied now", json!(stack.name))))
}

/// What the ledger says of a run that was not as planned.
fn came_of(way: Way, plan: &Plan, is: &str, now: &[i64], exit: i64) -> String {
    let (wanted, word) = (plan.wanted(way), way.done());
    let is_done = |version: &&i64| now.contains(version) == (way == Way::Up);
    let (done, open): (Vec<i64>, Vec<i64>) = plan.versions.iter().partition(is_done);
    let others: Vec<i64> =
        plan.ledger.iter().filter(|one| !now.contains(one) && !plan.versions.contains(one)).copied().collect();
    let more: Vec<i64> =
        now.iter().filter(|one| !plan.ledger.contains(one) && !wanted.contains(one)).copied().collect();
    let mut why = format!("the tool ended with {exit}; {is} {}, and should be {}", list(now), list(&wanted));
    if now == wanted {
        why.push_str(": as planned all the same");
    } else if now == plan.ledger {
        why.push_str(": as it was before");
    }
    for (versions, words) in [
        (&done, format!("{word}: ")),
        (&open, format!("not {word}: ")),
        (&others, "taken back besides: ".into()),
        (&more, "applied besides: ".into()),
    ] {
        if !versions.is_empty() {
            why.push_str(&format!("; {words}{}", list(versions)));
        }
    }
    why
}

enum Refusal {
    Because(String),
    Failed(Box<Error>),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Failed(Box::new(error))
    }
}

impl From<String> for Refusal {
    fn from(why: String) -> Refusal {
        Refusal::Because(why)
    }
}

/// Everything that forbids it, looked at now.
async fn refuse(engine: &Engine, stack: &Stack, way: Way, plan: &Plan, facts: &Facts) -> Result<(), Refusal> {
    let (tool, known) = (&configured(stack)?.tool, &facts.known.files);
    plan.count()?;
    if let Some(other) = ledger::holder(engine, stack, tool).await? {
        return Err(locked(&other).into());
    }
    if let Some(version) = facts.ledger.dirty() {
        return Err(drift::dirty(engine, stack, version, known).await?.says().into());
    }
    plan.check(way, tool, &facts.applied, known)?;
    if let Some(program) = (if way == Way::Up { &tool.up } else { &tool.down }).program() {
        let found = engine.has_files(&plan.image_id, &[program.to_string()]).await?;
        if !found.iter().all(|one| one.executable) {
            return Err(format!("image {} has no program {program}", short_id(&plan.image_id)).into());
        }
    }
    match way {
        Way::Down => {
            more_lost(&counted(engine, stack, &plan.versions, known, lost).await?, plan).map_err(Refusal::from)
        }
        Way::Up => {
            let drift = drift::look(engine, stack, &facts.applied, known, &files::Files::new()).await?;
            let meant = plan.versions.iter().filter_map(|version| Some((version, drift.get(version)?)));
            let found: Vec<String> = meant.map(|(version, drift)| format!("{version}: {drift}")).collect();
            if found.is_empty() {
                return Ok(());
            }
            let found = found.join("; ");
            Err(format!("the ledger says that they are not applied, and the schema has parts of them. {found}").into())
        }
    }
}

fn locked(other: &Value) -> String {
    let text = |key: &str| other[key].as_str().filter(|text| !text.is_empty()).unwrap_or("unknown").to_string();
    format!(
        "somebody else holds the lock of golang-migrate: pid {} of the database, application {}, user {}, connected since {}",
        other["pid"],
        text("application"),
        text("user"),
        text("since")
    )
}

/// Rows may have come since somebody agreed to lose what was counted then.
fn more_lost(now: &[Lost], plan: &Plan) -> Result<(), String> {
    for lost in now {
        let agreed = plan.loses.iter().find(|one| one.version == lost.version && one.what == lost.what);
        // A loss that was counted and now cannot be is more than was agreed to.
        if agreed.is_none_or(|agreed| agreed.rows < lost.rows || lost.rows.is_none() && agreed.rows.is_some()) {
            let rows = lost.rows.map_or("an unknown number of".to_string(), |rows| rows.to_string());
            return Err(format!("{} would lose {rows} row(s), more than the plan says", lost.what));
        }
    }
    Ok(())
}

async fn run(engine: &Engine, pass: &Pass, stack: &Stack, image_id: &str, words: Vec<String>) -> Result<Ran> {
    let like = docker::find(engine, stack, &configured(stack)?.service).await?.id;
    let labels = [(STACK_LABEL, stack.compose.project.clone()), (ABOUT, pass.about())];
    let mut words = words.into_iter();
    let once = Once {
        name: once_name(stack),
        image_id: image_id.into(),
        like,
        entrypoint: Some(words.by_ref().take(1).collect()),
        cmd: Some(words.collect()),
        labels: labels.map(|(key, value)| (key.to_string(), value)).into(),
        ..Once::default()
    };
    clear_ended(engine, stack).await?;
    pass.sending();
    let id = engine.once_start(&once).await?;
    let ran = engine.once_wait(&id, host::KEEP).await?;
    // Until the end is recorded the container says that it has ended.
    let later = engine.clone();
    pass.afterwards(async move {
        let _ = later.remove(&id, false).await;
    });
    Ok(ran)
}

/// What applying these loses, in words: with any of it, it is a destroy.
pub fn up_losses(plan: &Plan, known: &Known) -> Vec<String> {
    let of = |version: &i64| known.files.get(version).map(|file| losses_of(*version, file)).unwrap_or_default();
    plan.versions.iter().flat_map(of).collect()
}

/// What applying this one loses, in words.
pub fn losses_of(version: i64, file: &File) -> Vec<String> {
    let losses = file.up.as_deref().map(sql::losses).unwrap_or_default();
    losses.into_iter().map(|loss| format!("{version}: {}", loss.what())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(versions: &[i64], ledger: &[i64]) -> Plan {
        let (versions, ledger) = (versions.to_vec(), ledger.to_vec());
        Plan { versions, ledger, image_id: "sha256:0".into(), loses: Vec::new(), within_s: 600, partly: false }
    }

    #[test]
    fn a_tool_is_judged_by_the_ledger_whatever_it_says() {
        let (two, all) = (plan(&[47, 46], &[44, 45, 46, 47]), [44, 45, 46, 47]);
        for (now, exit, words) in [
            (&all[..], 1, &["ended with 1", "as it was before", "not taken back: 47, 46"][..]),
            (&all, 0, &["ended with 0", "as it was before"]),
            (&[44, 45, 46], 1, &["; taken back: 47", "; not taken back: 46", "should be 44, 45"]),
            (&[44], 0, &["; taken back: 47, 46", "taken back besides: 45"]),
            (&[44, 45], 1, &["as planned all the same"]),
            (&[], 0, &["the ledger is empty", "taken back besides: 44, 45"]),
        ] {
            let why = came_of(Way::Down, &two, "the ledger is", now, exit);
            assert!(words.iter().all(|word| why.contains(word)), "{why}");
        }
        let why = came_of(Way::Up, &plan(&[46, 47], &[45]), "the ledger is", &[45, 46], 1);
        assert!(why.contains("; applied: 46") && why.contains("; not applied: 47"), "{why}");
        let why = came_of(Way::Up, &plan(&[46], &[45]), "the ledger is", &[45, 46, 47], 0);
        assert!(why.contains("applied besides: 47"), "{why}");
    }

    #[test]
    fn more_than_was_agreed_to_is_refused() {
        let lost = |rows| Lost { version: 47, what: "table t".into(), rows };
        let with = |loses| Plan { loses, ..plan(&[47], &[47]) };
        assert_eq!(more_lost(&[lost(Some(3))], &with(vec![lost(Some(3))])), Ok(()));
        assert_eq!(more_lost(&[lost(Some(3))], &with(vec![lost(Some(9))])), Ok(()));
        for (now, agreed) in [
            (Some(3), vec![]),
            (Some(3), vec![lost(Some(2))]),
            (None, vec![]),
            (Some(3), vec![Lost { version: 46, ..lost(Some(3)) }]),
        ] {
            assert!(more_lost(&[lost(now)], &with(agreed)).is_err(), "{now:?}");
        }
    }
}
