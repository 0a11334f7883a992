//! Secrets of a host, learned before the first output of an effect there is shown or recorded.
//!
//! A lesson reads the env and compose files of the host's stacks and the environment of all its containers. It begins
//! with the first effect after a login, and again with the first effect after a change. It belongs to no effect and has
//! no record: a recording is the same without it, and a replay never comes here. Effects wait for it for a bounded time,
//! together; what is learned later is hidden from then on.

use super::compose::secrets::{self, Source};
use super::docker::{self, engine::Engine};
use super::ssh::{Command, Outcome, Reach};
use crate::config::Stack;
use crate::error::{Kind, Result};
use crate::gate::Pass;
use crate::redact;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long effects wait for a lesson, all of them together.
const PATIENCE: Duration = Duration::from_secs(5);
/// When a lesson that nobody waits for any more is given up.
const WITHIN: Duration = Duration::from_secs(60);
/// How soon a lesson that did not end well is repeated.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Bytes read of one file, and of all files in one look.
const MOST_OF_A_FILE: usize = 256 << 10;
const MOST_OF_ALL: usize = 4 << 20;
/// How often files may name further files.
const ROUNDS: usize = 3;
/// Containers inspected at once: each is a channel of its own, and an sshd allows ten.
const AT_ONCE: usize = 3;

/// Prints each readable regular file among the arguments, its number before it.
const CAT: &str = r#"opsh_i=0
for opsh_f; do
  [ ! -f "$opsh_f" ] || [ ! -r "$opsh_f" ] || { printf '\036%s\n' "$opsh_i"; head -c "$opsh_most" <"$opsh_f"; echo; }
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
    /// Containers whose environment is known: it never changes.
    containers: BTreeSet<String>,
    engine: Option<Engine>,
}

struct Lesson {
    began: Instant,
    end: watch::Receiver<Option<End>>,
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
            (state.newest, state.engine, state.in_vain) = (None, Some(engine.clone()), false);
        }
    }

    /// Waits, for [`PATIENCE`] at most, until the secrets of the host are known; begins to learn them if that is due.
    pub async fn attend(&self, pass: &Pass, reach: &Reach) {
        let (mut end, patience) = {
            let mut state = self.state();
            if state.is_due(pass) {
                state.newest = Some(self.begin(pass, reach));
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

    fn begin(&self, pass: &Pass, reach: &Reach) -> Lesson {
        let (tell, end) = watch::channel(None);
        let (this, pass, reach) = (self.clone(), pass.for_connection(), reach.clone());
        tokio::spawn(async move {
            let learned = tokio::time::timeout(WITHIN, this.learn(pass, reach)).await;
            let end = learned.unwrap_or_else(|_| End::Gap(format!("no answer within {} s", WITHIN.as_secs())));
            let _ = tell.send(Some(end));
        });
        Lesson { began: Instant::now(), end }
    }

    async fn learn(&self, pass: Pass, reach: Reach) -> End {
        let twin = pass.for_connection();
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

    /// Reads the files of the stacks, and those that they name; returns why that was not possible.
    async fn learn_files(&self, pass: &Pass, reach: &Reach) -> Option<String> {
        let stacks = self.state().stacks.clone();
        for stack in stacks {
            let mut read: BTreeSet<Source> = BTreeSet::new();
            let mut next = secrets::of_stack(&stack);
            for _ in 0..ROUNDS {
                let sources: Vec<Source> = next.difference(&read).cloned().collect();
                if sources.is_empty() {
                    break;
                }
                let texts = match texts(pass, reach, &sources).await {
                    Ok(texts) => texts,
                    Err(why) => return Some(why),
                };
                read.extend(sources.iter().cloned());
                next = texts
                    .iter()
                    .filter_map(|(at, text)| Some(secrets::learn(sources.get(*at)?, text, &stack.dir)))
                    .flatten()
                    .collect();
            }
        }
        None
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
        for some in new.chunks(AT_ONCE) {
            let inspected = engine.inspect_all(some).await;
            for (id, detail) in some.iter().zip(inspected) {
                match detail {
                    Ok(detail) => {
                        detail.env.pairs().iter().for_each(|(name, value)| redact::learn_variable(name, value))
                    }
                    // It was removed meanwhile.
                    Err(error) if error.kind == Kind::NotFound => {}
                    Err(error) => return Err(error),
                }
                self.state().containers.insert(id.clone());
            }
        }
        self.state().engine = Some(engine);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn ended(&self) -> Option<End> {
        self.newest.as_ref().and_then(|newest| newest.end.borrow().clone())
    }

    fn is_due(&self, pass: &Pass) -> bool {
        let Some(newest) = &self.newest else { return true };
        let outdated = self.outdated_by.as_deref().is_some_and(|change| change != pass.effect());
        match self.ended() {
            None => newest.end.has_changed().is_err(),
            Some(End::Complete) => outdated,
            Some(End::NoEngine | End::Gap(_)) => outdated || newest.began.elapsed() > AGAIN_AFTER,
        }
    }
}

/// The texts of files that are there and readable, each with its place in the list.
async fn texts(pass: &Pass, reach: &Reach, sources: &[Source]) -> std::result::Result<Vec<(usize, String)>, String> {
    let script = format!("opsh_most={MOST_OF_A_FILE}\n{CAT}");
    let paths = sources.iter().map(|(_, path)| path.clone());
    let words = ["sh".into(), "-c".into(), script, "opsh".into()].into_iter().chain(paths).collect();
    let ran = reach.run(pass, &Command { words, keep: MOST_OF_ALL, ..Command::default() }).await;
    match ran.outcome {
        Outcome::Exited(_) => {}
        Outcome::NotStarted(why) | Outcome::Unknown(why) => return Err(why),
    }
    let text = ran.stdout.text();
    let blocks = text.split('\u{1e}').skip(1).filter_map(|block| block.split_once('\n'));
    Ok(blocks.filter_map(|(at, text)| Some((at.parse().ok()?, text.to_string()))).collect())
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
        let texts = texts(&Pass::for_tests(), &Reach::Local, &sources).await.expect("read");
        assert_eq!(texts, [(3, "X_PASSWORD=lesson-1\n\n".to_string())]);
    }
}
