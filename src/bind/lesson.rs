//! Secrets of a host, learned before the first output of an effect there is shown or recorded.
//!
//! A lesson reads the env and compose files of the host's stacks and the environment of all its containers. It begins
//! with the first effect after a login, and again with the first effect after a change; one that is older than a few seconds
//! is followed by a look whether a colleague changed something, which takes one round trip. So is the program of a change,
//! before what it said is recorded. It belongs to no effect and has
//! no record: a recording is the same without it, and a replay never comes here. Effects wait for it for a bounded time,
//! together; what is learned later is hidden from then on.

use super::compose::secrets::{self, Reader, Source};
use super::docker::{self, engine::Engine, model::Detail, short_id};
use super::ssh::{Command, Outcome, Reach};
use crate::config::{LOCAL, Stack};
use crate::error::{Error, Kind, Result};
use crate::gate::{Gate, Pass};
use crate::redact;
use crate::whole::{self, Link};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long effects wait for a lesson, all of them together.
const PATIENCE: Duration = Duration::from_secs(5);
/// When a lesson that nobody waits for any more is given up.
const WITHIN: Duration = Duration::from_secs(60);
/// How soon a lesson that did not end well is repeated.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Bytes read of one file, of the files that are read at once, and of those of a stack on this machine.
const MOST_OF_A_FILE: usize = 256 << 10;
const MOST_OF_ALL: usize = 4 << 20;
/// How often files may name further files.
const ROUNDS: usize = 8;
/// Files of one stack that are looked at.
const MOST_FILES: usize = 1_000;
/// Files that are read at once, and bytes of their names in one command: a kernel takes no argument list of any length.
const FILES_AT_ONCE: usize = 64;
const NAMES_AT_ONCE: usize = 64 << 10;
/// Containers inspected at once: each is a channel of its own, and an sshd allows ten.
const AT_ONCE: usize = 3;

/// How old a lesson may be before the files and the list of containers are looked at again: others change them, too.
const STALE: Duration = Duration::from_secs(5);

/// Prints a line `NONCE NUMBER STATE` for each argument, and the beginning of each readable regular file. No text holds the
/// nonce, which is new each time. The state tells whether a file changed; `odd` is neither a file nor a folder.
const CAT: &str = r#"opsh_i=0
for opsh_f; do
  opsh_k=-; [ ! -e "$opsh_f" ] || [ -d "$opsh_f" ] || opsh_k=odd
  [ ! -f "$opsh_f" ] || opsh_k=$(stat -Lc '%s %i %y %z' "$opsh_f" 2>/dev/null || echo "$(($(wc -c <"$opsh_f")))")
  printf '\n%s %s %s\n' "$opsh_n" "$opsh_i" "$opsh_k"
  [ "$opsh_most" = 0 ] || [ ! -f "$opsh_f" ] || [ ! -r "$opsh_f" ] || head -c "$opsh_most" <"$opsh_f"
  opsh_i=$((opsh_i + 1))
done"#;

/// The lessons about one host.
#[derive(Clone, Default)]
pub struct Lessons(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    stacks: Vec<Arc<Stack>>,
    /// The newest lesson since the login.
    newest: Option<Lesson>,
    /// The change during or after which the newest lesson may be out of date.
    outdated_by: Option<String>,
    /// Effects waited for a lesson in vain: those that follow do not.
    in_vain: bool,
    /// The files that the last lesson looked for, and the state that each was in.
    files: BTreeMap<Source, String>,
    /// Containers whose environment is known: it never changes.
    containers: BTreeSet<String>,
    engine: Option<Engine>,
}

struct Lesson {
    began: Instant,
    end: watch::Receiver<Option<End>>,
}

/// What is to be learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The files and the containers.
    All,
    /// New containers; the files only when one of them changed.
    Look,
}

/// How a lesson ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Complete,
    /// No Docker Engine runs now.
    NoEngine,
    /// The reason why something is not known.
    Gap(String),
}

/// Learns what the files of stacks on this machine hold, before the first line is recorded or anything is shown: what does
/// not go over the way to a host attends no lesson. A disk that hangs is not waited for longer than a host.
pub fn of_files_here(gate: &Gate, stacks: Vec<Arc<Stack>>) {
    if !stacks.is_empty() {
        let work = move || stacks.iter().for_each(|stack| learn_here(stack));
        gate.before_records(PATIENCE, async { drop(tokio::task::spawn_blocking(work).await) });
    }
}

/// A file that cannot be read is passed over here: the lesson of the first effect says so.
fn learn_here(stack: &Stack) {
    let mut files = Files::of(stack);
    let mut left = MOST_OF_ALL;
    while let Some(sources) = files.due() {
        for source in &sources {
            let path = Path::new(&source.1);
            let text = whole::begin(path, Link::Followed, MOST_OF_A_FILE as u64).unwrap_or_default();
            let Some(rest) = left.checked_sub(text.len()) else { return files.finish(LOCAL, Some(&source.1)) };
            left = rest;
            files.learn(source, &text);
        }
    }
    files.finish(LOCAL, None);
}

/// The files of a stack, each once, and those that they name in turn.
struct Files<'a> {
    stack: &'a Stack,
    reader: Reader,
    seen: BTreeSet<Source>,
    named: BTreeSet<Source>,
    rounds: usize,
    /// Files that were named and are not looked at.
    left_out: usize,
}

impl Files<'_> {
    fn of(stack: &Stack) -> Files<'_> {
        let (reader, named) = (Reader::of_stack(), secrets::of_stack(stack));
        Files { stack, reader, seen: BTreeSet::new(), named, rounds: ROUNDS, left_out: 0 }
    }

    /// Those to read now; `None` when all were read, or files named files too often.
    fn due(&mut self) -> Option<Vec<Source>> {
        self.rounds = self.rounds.checked_sub(1)?;
        let named = std::mem::take(&mut self.named);
        let mut due: Vec<Source> = named.difference(&self.seen).cloned().collect();
        let room = MOST_FILES.saturating_sub(self.seen.len());
        self.left_out += due.len().saturating_sub(room);
        due.truncate(room);
        self.seen.extend(due.iter().cloned());
        (!due.is_empty()).then_some(due)
    }

    /// Learns what the text of one of them says.
    fn learn(&mut self, source: &Source, text: &str) {
        self.named.extend(self.reader.learn(source, text, &self.stack.dir));
    }

    /// Says what was not learned; `from` is the first file that was not read any more, since those before it are so long.
    fn finish(self, host: &str, from: Option<&str>) {
        let stack = format!("stack {} on {host}", self.stack.name);
        let not_read = |what: String| redact::warn(format!("opsh did not read {what}: secrets in it are not hidden"));
        if let Some(from) = from {
            not_read(format!(
                "{from} and the files that follow it in {stack}, which have more than {} MiB",
                MOST_OF_ALL >> 20
            ));
        }
        if self.left_out > 0 {
            not_read(format!("{} of the files that {stack} names, which are more than {MOST_FILES}", self.left_out));
        }
        self.reader.finish(&stack);
    }
}

impl Lessons {
    /// Names the stacks on the host. A lesson that did not know one of them is out of date.
    pub fn about(&self, stacks: Vec<Arc<Stack>>) {
        let mut state = self.state();
        let same = |(a, b): (&Arc<Stack>, &Arc<Stack>)| Arc::ptr_eq(a, b);
        if stacks.len() != state.stacks.len() || !stacks.iter().zip(&state.stacks).all(same) {
            (state.stacks, state.newest) = (stacks, None);
        }
    }

    /// Forgets what rode on a login that was lost.
    pub fn forget_login(&self) {
        let mut state = self.state();
        (state.newest, state.engine, state.in_vain) = (None, None, false);
    }

    /// The Engine that the last lesson dialled, for effects.
    pub fn engine(&self) -> Option<Engine> {
        self.state().engine.clone()
    }

    /// Says that an Engine answers: a lesson that found none is repeated.
    pub fn engine_answers(&self, engine: &Engine) {
        let mut state = self.state();
        if state.ended().is_some_and(|end| end != End::Complete) {
            (state.newest, state.engine, state.in_vain) = (None, None, false);
        }
        state.engine.get_or_insert_with(|| engine.clone());
    }

    /// Waits, for [`PATIENCE`] at most, until the secrets of the host are known; begins to learn them if that is due.
    pub async fn attend(&self, pass: &Pass, reach: &Reach) {
        let (mut end, patience) = {
            let mut state = self.state();
            if let Some(due) = state.due(pass) {
                state.newest = Some(self.begin(pass, reach, due));
                state.outdated_by = None;
            }
            if pass.changes() {
                state.outdated_by = Some(pass.effect().into());
            }
            let Some(newest) = &state.newest else { return };
            let most = PATIENCE.min(pass.connects_within() / 2);
            let patience = most.saturating_sub(newest.began.elapsed());
            (newest.end.clone(), if state.in_vain { Duration::ZERO } else { patience })
        };
        let gap = match tokio::time::timeout(patience, end.wait_for(Option::is_some)).await {
            Ok(Ok(end)) => match &*end {
                Some(End::Gap(gap)) => gap.clone(),
                _ => {
                    self.state().in_vain = false;
                    return;
                }
            },
            Ok(Err(_)) => "the look at them ended early".into(),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        self.state().in_vain = true;
        // A link that was lost ends the effect, which says so.
        if !reach.is_up() {
            return;
        }
        redact::warn(format!(
            "opsh does not know yet which values are secret on {}: {gap}; until it does, output may show them",
            reach.name()
        ));
    }

    /// Learns the files again when one of them changed: the program of a change may have put a new secret into it, and said
    /// it.
    pub async fn look_again(&self, pass: &Pass, reach: &Reach) {
        let look = async {
            if self.is_same(pass, reach).await == Ok(false) {
                self.learn_files(pass, reach).await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, look).await;
    }

    fn begin(&self, pass: &Pass, reach: &Reach, due: Due) -> Lesson {
        let (tell, end) = watch::channel(None);
        let (this, pass, reach) = (self.clone(), pass.for_connection(), reach.clone());
        tokio::spawn(async move {
            let learned = tokio::time::timeout(WITHIN, this.learn(pass, reach, due)).await;
            let end = learned.unwrap_or_else(|_| End::Gap(format!("no answer within {} s", WITHIN.as_secs())));
            let _ = tell.send(Some(end));
        });
        Lesson { began: Instant::now(), end }
    }

    async fn learn(&self, pass: Pass, reach: Reach, due: Due) -> End {
        let twin = pass.for_connection();
        if due == Due::Look {
            let is_dialled = self.state().engine.is_some();
            let containers = async {
                let look = tokio::time::timeout(PATIENCE, self.learn_containers(twin, &reach));
                // An Engine that hangs is let go of, until it answers somebody.
                if is_dialled && !matches!(look.await, Ok(Ok(()))) {
                    self.state().engine = None;
                }
            };
            let (is_same, ()) = tokio::join!(self.is_same(&pass, &reach), containers);
            return match is_same {
                Ok(true) => End::Complete,
                Ok(false) => self.learn_files(&pass, &reach).await.map_or(End::Complete, End::Gap),
                Err(why) => End::Gap(why),
            };
        }
        let (files, containers) = tokio::join!(self.learn_files(&pass, &reach), self.learn_containers(twin, &reach));
        match (files, containers) {
            (Some(why), _) => End::Gap(why),
            (None, Ok(())) => End::Complete,
            // Without the program or the permission nothing else of this login reads a container either.
            (None, Err(error)) if [Kind::NotFound, Kind::Denied].contains(&error.kind) => End::Complete,
            (None, Err(error)) if error.kind == Kind::Unreachable => End::NoEngine,
            (None, Err(error)) => End::Gap(error.why),
        }
    }

    /// Whether the files are as the last lesson found them: one round trip.
    async fn is_same(&self, pass: &Pass, reach: &Reach) -> std::result::Result<bool, String> {
        let files = self.state().files.clone();
        if files.is_empty() {
            return Ok(true);
        }
        let sources: Vec<Source> = files.keys().cloned().collect();
        for some in at_once(&sources, usize::MAX) {
            let seen = texts(pass, reach, some, 0).await?;
            let is_same = |seen: &Seen| some.get(seen.at).is_some_and(|source| files[source] == seen.state);
            if seen.len() != some.len() || !seen.iter().all(is_same) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the files of the stacks, and those that they name; returns why that was not possible. A stack whose files
    /// cannot be read keeps nobody from those of the others.
    async fn learn_files(&self, pass: &Pass, reach: &Reach) -> Option<String> {
        let stacks = self.state().stacks.clone();
        let mut gap = None;
        for stack in stacks {
            let mut files = Files::of(&stack);
            while let Some(sources) = files.due() {
                for some in at_once(&sources, FILES_AT_ONCE) {
                    match texts(pass, reach, some, MOST_OF_A_FILE).await {
                        Ok(texts) => texts.into_iter().for_each(|seen| {
                            let Some(source) = some.get(seen.at) else { return };
                            files.learn(source, &seen.text);
                            self.state().files.insert(source.clone(), seen.state);
                        }),
                        Err(why) => gap = gap.or(Some(why)),
                    }
                }
            }
            files.finish(reach.name(), None);
        }
        gap
    }

    async fn learn_containers(&self, pass: Pass, reach: &Reach) -> Result<()> {
        let known = self.state().engine.clone();
        let engine = match known {
            Some(engine) => engine,
            None => docker::dialled(pass, reach.name(), reach.clone(), Arc::default()).await?,
        };
        let seen = self.state().containers.clone();
        let all = engine.containers_labelled(&[]).await?;
        let new: Vec<String> = all.into_iter().map(|container| container.id).filter(|id| !seen.contains(id)).collect();
        // One container that cannot be looked at keeps nobody from the secrets of the others.
        let mut failed = None;
        for some in new.chunks(AT_ONCE) {
            let inspected = engine.inspect_all(some).await;
            for (id, detail) in some.iter().zip(inspected) {
                match detail {
                    Ok(detail) => learn_container(detail, reach.name()).await,
                    // It was removed meanwhile.
                    Err(error) if error.kind == Kind::NotFound => {}
                    Err(error) if error.kind == Kind::Failed => {
                        failed.get_or_insert(Error {
                            why: format!("container {}: {}", short_id(id), error.why),
                            ..error
                        });
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                self.state().containers.insert(id.clone());
            }
        }
        self.state().engine = Some(engine);
        failed.map_or(Ok(()), Err)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Learns what is secret in what a container was made with. That is a thousand values at most times, and ten thousand at worst:
/// deadlines and Ctrl-C are heard on this thread.
async fn learn_container(detail: Detail, host: &str) {
    let host = host.to_string();
    drop(tokio::task::spawn_blocking(move || docker::learn_secrets(&detail, &host)).await);
}

impl State {
    fn ended(&self) -> Option<End> {
        self.newest.as_ref().and_then(|newest| newest.end.borrow().clone())
    }

    fn due(&self, pass: &Pass) -> Option<Due> {
        let Some(newest) = &self.newest else { return Some(Due::All) };
        let outdated = self.outdated_by.as_deref().is_some_and(|change| change != pass.effect());
        let is_due = match self.ended() {
            None => newest.end.has_changed().is_err(),
            Some(End::Complete) if !outdated => return (newest.began.elapsed() > STALE).then_some(Due::Look),
            Some(End::Complete) => true,
            Some(End::NoEngine | End::Gap(_)) => outdated || newest.began.elapsed() > AGAIN_AFTER,
        };
        is_due.then_some(Due::All)
    }
}

/// What was seen of one of several files.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// Place in the list.
    at: usize,
    state: String,
    /// At most so many bytes as were asked for.
    text: String,
}

/// Parts of a list that fit into one command, of `most` files at most.
fn at_once(sources: &[Source], most: usize) -> impl Iterator<Item = &[Source]> {
    let mut rest = sources;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |(_, path): &&Source| {
            bytes += path.len() + 1;
            bytes <= NAMES_AT_ONCE
        };
        // One alone is tried, whatever its length.
        let count = rest.iter().take(most).take_while(fits).count().max(1);
        let (some, after) = rest.split_at_checked(count)?;
        rest = after;
        Some(some)
    })
}

/// The states of files, and at most `most` bytes of each that is there and readable. What was not read is said.
async fn texts(pass: &Pass, reach: &Reach, sources: &[Source], most: usize) -> std::result::Result<Vec<Seen>, String> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(|error| format!("no random number: {error}"))?;
    let nonce: String = bits.iter().map(|byte| format!("{byte:02x}")).collect();
    let script = format!("opsh_most={most} opsh_n={nonce}\n{CAT}");
    let paths = sources.iter().map(|(_, path)| path.clone());
    let words = ["sh".into(), "-c".into(), script, "opsh".into()].into_iter().chain(paths).collect();
    let ran = reach.run(pass, &Command { words, keep: MOST_OF_ALL, ..Command::default() }).await;
    match ran.outcome {
        Outcome::Exited(_) => {}
        Outcome::NotStarted(why) | Outcome::Unknown(why) => return Err(why),
    }
    let not_read = |what: String| {
        redact::warn(format!("opsh did not read {what} on {}: secrets in it are not hidden", reach.name()));
    };
    if ran.stdout.left_out() > 0 {
        not_read(format!("all of the env and compose files, which have more than {} MiB,", MOST_OF_ALL >> 20));
    }
    let text = ran.stdout.text();
    let mut seen = Vec::new();
    for block in text.split(&format!("\n{nonce} ")).skip(1) {
        let Some((head, text)) = block.split_once('\n') else { continue };
        let Some((at, state)) = head.split_once(' ') else { continue };
        let Some((at, (_, path))) = at.parse().ok().and_then(|at: usize| Some((at, sources.get(at)?))) else {
            continue;
        };
        if state == "odd" {
            not_read(format!("{path}, which is no plain file,"));
        }
        if state.split(' ').next().and_then(|size| size.parse::<usize>().ok()).is_some_and(|size| size > MOST_OF_A_FILE)
        {
            not_read(format!("{path} behind its first {} KiB", MOST_OF_A_FILE >> 10));
        }
        seen.push(Seen { at, state: state.into(), text: text.into() });
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bind::compose::secrets::Role;

    #[tokio::test]
    async fn files_that_are_missing_or_no_files_are_passed_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("a b.env"), "X_PASSWORD=lesson-1\n").expect("written");
        let fifo = std::ffi::CString::new(path("fifo")).expect("a path");
        // SAFETY: the path is a valid string for the whole call.
        assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
        let sources: Vec<Source> =
            ["missing", "fifo", ".", "a b.env"].map(|name| (Role::Env, path(name))).into_iter().collect();
        let seen = texts(&Pass::for_tests(), &Reach::Local, &sources, 1000).await.expect("read");
        assert_eq!(
            seen.iter().map(|seen| seen.text.as_str()).collect::<Vec<_>>(),
            ["", "", "", "X_PASSWORD=lesson-1\n"]
        );
        assert_eq!(seen.iter().map(|seen| seen.state.as_str()).take(3).collect::<Vec<_>>(), ["-", "odd", "-"]);
        let warned = redact::warnings();
        assert!(warned.iter().any(|text| text.contains("fifo, which is no plain file")), "{warned:?}");
    }

    fn stack_at(dir: &Path, name: &str) -> Arc<Stack> {
        let text = format!(
            "[stack.{name}]\nhost = \"local\"\ndir = \"{}\"\ncompose = {{ files = [\"c.yml\"], project = \"{name}\" }}\n",
            dir.display()
        );
        crate::config::Config::found(&text).expect("valid").stack(name).expect("there")
    }

    /// A stack whose compose file names so many env files, of names that are long together.
    fn of_many_files(dir: &Path, count: usize) -> Arc<Stack> {
        let long = "x".repeat(30);
        let names: Vec<String> = (0..count).map(|at| format!("{at:05}{long}.env")).collect();
        std::fs::write(dir.join("c.yml"), format!("services: {{ a: {{ env_file: [{}] }} }}\n", names.join(", ")))
            .expect("written");
        std::fs::write(dir.join(&names[0]), "X_PASSWORD=first-of-many-41\n").expect("written");
        stack_at(dir, "many")
    }

    #[tokio::test]
    async fn a_stack_with_files_without_end_keeps_nobody_from_those_of_the_next() {
        let (many, next) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        std::fs::write(next.path().join(".env"), "X_PASSWORD=of-the-next-stack-42\n").expect("written");
        let lessons = Lessons::default();
        lessons.about(vec![of_many_files(many.path(), 5_000), stack_at(next.path(), "next")]);
        assert_eq!(lessons.learn_files(&Pass::for_tests(), &Reach::Local).await, None);
        assert!(!redact::clean("x of-the-next-stack-42").contains("next-stack"));
        assert!(!redact::clean("x first-of-many-41").contains("first-of-many"));
        assert_eq!(lessons.is_same(&Pass::for_tests(), &Reach::Local).await, Ok(true));
        std::fs::write(next.path().join(".env"), "X_PASSWORD=changed\n").expect("written");
        assert_eq!(lessons.is_same(&Pass::for_tests(), &Reach::Local).await, Ok(false));
        let warned = redact::warnings();
        assert!(warned.iter().any(|text| text.contains("of the files that stack many on")), "{warned:?}");
    }

    #[tokio::test]
    async fn a_value_behind_a_record_separator_is_learned() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("env").display().to_string();
        std::fs::write(&path, "A=\u{1e}0\nX_PASSWORD=lesson-behind-2\n").expect("written");
        let seen = texts(&Pass::for_tests(), &Reach::Local, &[(Role::Env, path)], 1000).await.expect("read");
        assert!(seen.len() == 1 && seen[0].text.contains("lesson-behind-2"), "{seen:?}");
    }

    #[tokio::test]
    async fn a_secret_that_a_colleague_changes_is_learned_by_an_old_lesson() {
        let dir = tempfile::tempdir().expect("a folder");
        let put =
            |value: &str| std::fs::write(dir.path().join(".env"), format!("DB_PASSWORD={value}\n")).expect("written");
        put("first-lesson-31");
        let lessons = Lessons::default();
        lessons.about(vec![stack_at(dir.path(), "s")]);
        let attend = async || {
            lessons.attend(&Pass::for_tests(), &Reach::Local).await;
            let mut state = lessons.state();
            let newest = state.newest.as_mut().expect("a lesson");
            // As if nobody had looked for some time; a lesson that found no Engine is complete here.
            newest.began = Instant::now().checked_sub(2 * STALE).expect("a time");
            newest.end = watch::channel(Some(End::Complete)).1;
        };
        attend().await;
        assert!(!redact::clean("x first-lesson-31").contains("first-lesson-31"));
        put("second-lesson-32");
        attend().await;
        assert!(!redact::clean("x second-lesson-32").contains("second-lesson-32"));
    }
}
