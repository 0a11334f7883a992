//! A lock of this run: taking it, keeping it, and telling its holder what is changed under it.

use super::holder::{self, BEAT_S, Gone, Holder};
use super::intent;
use super::others::{came_meanwhile, holder_of};
use super::place::OwnRuns;
use super::without_lock;
use super::words::quoted;
use super::{AGAIN_WITHIN, ANSWERS_WITHIN, ENGINE_WITHIN, GRACE, LOOK_EVERY};
use crate::bind::ssh::{Durable, Reach};
use crate::bind::values::literal;
use crate::bind::way::Way;
use crate::bind::{Call, Look, World, beside, host, migrate, work};
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::{Hold, Other, Pass, journal};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{sleep, timeout};

/// Locks that are held, by the name of their stack.
pub struct Held {
    pub(super) stack: Arc<Stack>,
    pub(super) way: Way,
    /// For colleagues.
    pub(super) who: Value,
    pub(super) hold: Hold,
    pub(super) line: Mutex<Option<Holder>>,
    /// The `lock.json` of the one before.
    was: Mutex<Value>,
    beats: AtomicBool,
    /// There can be no lock: the work goes on without.
    pub(super) bare: Arc<AtomicBool>,
    /// What was said of it already.
    warned: std::sync::Mutex<BTreeSet<&'static str>>,
    /// How the intent begins.
    begin: Value,
    /// It has begun.
    pub(super) begun: AtomicBool,
    /// How far the run's trail of changes was before.
    pub(super) mark: usize,
    own: OwnRuns,
}

// ── taking it ──

impl Held {
    pub(super) fn new(world: &World, stack: &Arc<Stack>, why: &str) -> Result<Arc<Held>> {
        let mut bits = [0; 8];
        getrandom::fill(&mut bits)
            .map_err(|error| Error::new(Kind::Failed, "no lock was taken", format!("no random number: {error}")))?;
        let fence: String = bits.iter().map(|byte| format!("{byte:02x}")).collect();
        let who = json!({ "by": journal::actor_here(), "why": why, "run": world.gate.run_id(), "fence": fence });
        let (doing, script) = world.gate.run_what();
        let begin = json!({
            "kind": "begin", "run": world.gate.run_id(), "by": journal::actor_here(), "what": why, "doing": doing,
            "script": script,
        });
        let bare = Arc::new(AtomicBool::new(false));
        Ok(Arc::new(Held {
            stack: Arc::clone(stack),
            way: world.way(&stack.host)?,
            who,
            hold: Hold { folder: beside::folder(stack), fence, off: Arc::clone(&bare) },
            line: Mutex::default(),
            was: Mutex::default(),
            beats: AtomicBool::new(false),
            bare,
            warned: std::sync::Mutex::default(),
            begin,
            begun: AtomicBool::new(false),
            mark: world.gate.mark(),
            own: world.own_runs.clone(),
        }))
    }

    /// One recorded attempt: `state` is `held`, `busy` (with `lock`, the other's `lock.json`), `works` (what runs) or
    /// `none` (with `why` there can be no lock).
    pub(super) fn step(self: &Arc<Held>, call: &Call<'_>, step: &'static str, within_s: u64) -> Result<Value> {
        let within = Duration::from_secs(within_s);
        let (lock, work) = if step == "work" { (GRACE, within) } else { (within.max(GRACE), Duration::ZERO) };
        let args = json!({ "step": step, "within_s": within_s, "why": self.who["why"] });
        let says = self.who["why"].as_str().unwrap_or_default();
        let look = Look::at(call.world.stack_target(&self.stack), says, args).within(within_s + 60);
        call.read(look, Arc::clone(self), move |pass, held| async move { held.attempt(&pass, lock, work).await })
    }

    async fn attempt(self: &Arc<Held>, pass: &Pass, for_lock: Duration, for_work: Duration) -> Result<Value> {
        let mut line = self.line.lock().await;
        let reach = self.way.reach(pass).await?;
        let began = Instant::now();
        loop {
            let holder = match self.holder(pass, &reach, &mut line).await? {
                Ok(holder) => holder,
                Err(why) => return Ok(json!({ "state": "none", "why": why })),
            };
            let answer = if holder.holds { holder.ask("work", &Value::Null) } else { holder.ask("try", &Value::Null) };
            let answer = answer.await.map_err(|Gone| self.is_gone())?;
            if let Some(refused) = answer.refusal(self.way.name(), &self.hold.folder) {
                *line = None;
                return Err(refused);
            }
            match answer.word.as_str() {
                "no" => {
                    *line = None;
                    return Ok(json!({ "state": "none", "why": answer.text }));
                }
                "got" => {
                    if let Some(why) = self.sign(holder).await? {
                        *line = None;
                        return Ok(json!({ "state": "none", "why": why }));
                    }
                    // Work that the previous holder left running is waited for under that name.
                    *self.was.lock().await = answer.value;
                    continue;
                }
                "busy" if began.elapsed() >= for_lock => {
                    let runs = holder.ask("work", &Value::Null).await.map_err(|Gone| self.is_gone())?.word == "works";
                    let works = self.works(pass, &reach).await?;
                    let (lock, up) = (answer.value, answer.up);
                    return Ok(json!({ "state": "busy", "lock": lock, "up": up, "runs": runs, "works": works }));
                }
                "busy" => {}
                word => {
                    let works = self.works(pass, &reach).await?;
                    if word == "free" && works.is_empty() {
                        return Ok(json!({ "state": "held" }));
                    }
                    if began.elapsed() >= for_work {
                        let lock = self.was.lock().await.clone();
                        let (runs, up) = (word == "works", answer.up);
                        return Ok(json!({ "state": "works", "lock": lock, "up": up, "runs": runs, "works": works }));
                    }
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The holder that listens, or a new one.
    async fn holder<'a>(
        &self,
        pass: &Pass,
        reach: &Reach,
        line: &'a mut MutexGuard<'_, Option<Holder>>,
    ) -> Result<Result<&'a mut Holder, String>> {
        if line.is_none() {
            match Holder::start(pass, reach, &self.hold.folder, &self.hold.fence).await? {
                Ok(holder) => **line = Some(holder),
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(line.as_mut().ok_or_else(String::new))
    }

    /// Writes into the lock that is ours whose it is. Gives why that is not possible.
    async fn sign(self: &Arc<Held>, holder: &mut Holder) -> Result<Option<String>> {
        let answer = holder.ask("who", &self.who).await.map_err(|Gone| self.is_gone())?;
        if let Some(refused) = answer.refusal(self.way.name(), &self.hold.folder) {
            return Err(refused);
        }
        if answer.word == "no" {
            return Ok(Some(answer.text));
        }
        holder.holds = true;
        self.keep_beating();
        Ok(None)
    }

    fn keep_beating(self: &Arc<Held>) {
        if !self.beats.swap(true, Ordering::Relaxed) {
            tokio::spawn(beat(Arc::downgrade(self)));
        }
    }

    fn is_gone(&self) -> Error {
        let why = "the process that holds it there ended, or the link to it";
        Error::new(Kind::Unreachable, format!("the lock of {} was not taken", self.stack.name), why)
            .host(self.way.name())
    }

    async fn works(&self, pass: &Pass, reach: &Reach) -> Result<Vec<Value>> {
        works(&self.stack, &self.way, pass, reach).await
    }
}

/// Says something to a holder from time to time, or it would take opsh for dead.
async fn beat(held: Weak<Held>) {
    loop {
        sleep(Duration::from_secs(BEAT_S)).await;
        let Some(held) = held.upgrade() else { return };
        // Whoever speaks to it now is heard as well.
        let Ok(mut line) = held.line.try_lock() else { continue };
        if let Some(holder) = line.as_mut() {
            let _ = timeout(ANSWERS_WITHIN, holder.send("beat", &Value::Null)).await;
        }
    }
}

/// Work that runs under the stack's lock: durable runs of this account, and containers of everybody.
pub(super) async fn works(stack: &Stack, way: &Way, pass: &Pass, reach: &Reach) -> Result<Vec<Value>> {
    let folder = beside::folder(stack);
    let listed = reach.durable_list(pass).await?;
    let running = listed.iter().filter(|run| matches!(run.state, Durable::Running { .. }));
    let under = running.filter(|run| {
        serde_json::from_str(&run.about).is_ok_and(|about: Value| about["lock"].as_str() == Some(folder.as_str()))
    });
    let mut works: Vec<Value> = under.map(work::run_row).collect();
    // A host without Docker has no containers.
    let containers = async { migrate::at_work(&way.engine(pass).await?, stack).await };
    if let Ok(Ok(containers)) = timeout(ENGINE_WITHIN, containers).await {
        works.extend(containers);
    }
    Ok(works)
}

/// Tells the holder. A line that cannot be told stops no change, and is said; a lock that is not ours any more does, and a file
/// that is not to be used.
pub(super) async fn told(held: Arc<Held>, pass: Pass, change: Value) -> Result<()> {
    let silent = format!("its holder on {} did not answer within {} s", held.way.name(), ANSWERS_WITHIN.as_secs());
    let Ok(mut line) = timeout(ANSWERS_WITHIN, held.line.lock()).await else {
        held.is_unseen(&pass, &silent);
        return Ok(());
    };
    for _ in 0..2 {
        if line.is_none() {
            held.again(&pass, &mut line).await?;
        }
        // Why there is none was said.
        let Some(holder) = line.as_mut() else { return Ok(()) };
        match timeout(ANSWERS_WITHIN, held.tell(&pass, holder, &change)).await {
            Ok(Ok(answer)) => return answer.refusal(held.way.name(), &held.hold.folder).map_or(Ok(()), Err),
            Ok(Err(Gone)) => *line = None,
            Err(_) => break,
        }
    }
    held.is_unseen(&pass, &silent);
    Ok(())
}

/// A change under the lock of somebody else, who was named.
pub(super) struct Guest {
    pub(super) other: Other,
    /// What the change runs under.
    pub(super) hold: Hold,
}

/// Before a change outside of `locked`: takes the lock for as long as the change is made, and tells the holder of it. A `guest`
/// makes the change under the lock of whoever was named, as long as that one has it. Nothing was sent when it fails.
pub(super) async fn enter(held: Arc<Held>, pass: Pass, change: Value, guest: Option<Guest>) -> Result<()> {
    let mut line = held.line.lock().await;
    let reach = held.way.reach(&pass).await?;
    // A wait for the lock is no part of the change: until that is sent, it has certainly not happened.
    let alone = pass.for_connection();
    let (began, mut again) = (Instant::now(), true);
    let there = |answer: &holder::Answer| holder_of(&held.stack, &answer.word, &answer.value);
    loop {
        let holder = match held.holder(&alone, &reach, &mut line).await? {
            Ok(holder) => holder,
            Err(why) => {
                held.is_bare(&pass, &why);
                return Ok(());
            }
        };
        let answer = match holder.ask("brief", &held.who).await {
            Ok(answer) => answer,
            Err(Gone) if std::mem::take(&mut again) => {
                *line = None;
                continue;
            }
            Err(Gone) => return Err(held.is_gone()),
        };
        if let Some(refused) = answer.refusal(held.way.name(), &held.hold.folder) {
            *line = None;
            return Err(refused);
        }
        let ours = held.own.left(&answer.value);
        match answer.word.as_str() {
            "got" => {
                // Whoever was named gave it back: what the change leaves running is under no lock of theirs.
                guest.iter().for_each(|guest| guest.hold.off.store(true, Ordering::Relaxed));
                break;
            }
            "busy" | "works" if guest.as_ref().is_some_and(|guest| guest.other.is_same(&there(&answer))) => break,
            // Operators know what they left running themselves.
            "works" if ours => {
                if holder.ask("try", &Value::Null).await.is_ok_and(|answer| answer.word == "got") {
                    let Some(why) = held.sign(holder).await? else { break };
                    *line = None;
                    held.is_bare(&pass, &why);
                    return Ok(());
                }
            }
            "no" => {
                *line = None;
                held.is_bare(&pass, &answer.text);
                return Ok(());
            }
            _ if began.elapsed() < GRACE => {}
            _ => return Err(came_meanwhile(&there(&answer))),
        }
        sleep(LOOK_EVERY / 5).await;
    }
    held.keep_beating();
    let Some(holder) = line.as_mut() else { return Ok(()) };
    match held.tell(&pass, holder, &change).await {
        Ok(answer) => answer.refusal(held.way.name(), &held.hold.folder).map_or(Ok(()), Err),
        Err(Gone) => Err(held.is_gone()),
    }
}

impl Held {
    /// Says that a change begins: in the intent, which begins before its first change, in `lock.json` and in the list.
    async fn tell(
        &self,
        pass: &Pass,
        holder: &mut Holder,
        change: &Value,
    ) -> std::result::Result<holder::Answer, Gone> {
        if !self.begun.swap(true, Ordering::Relaxed) {
            holder.send("tell", &self.begin).await?;
        }
        let mut line = change.clone();
        line["kind"] = json!("change");
        holder.send("tell", &line).await?;
        let mut change = change.clone();
        if let Some(change) = change.as_object_mut() {
            change.remove("step");
        }
        let answer = holder.ask("did", &change).await?;
        if let Some(why) = holder.unwritten.take() {
            self.is_unseen(pass, &why);
        }
        Ok(answer)
    }

    /// Says, once, that this run changes the stack without the lock.
    fn is_bare(&self, pass: &Pass, why: &str) {
        self.bare.store(true, Ordering::Relaxed);
        self.warn(pass, "lock.none", without_lock(&self.stack.name, why));
    }

    /// Says, once, that others do not see all that this run changes on the stack.
    fn is_unseen(&self, pass: &Pass, why: &str) {
        let words = format!(
            "what this run changes on {} is not all written there, and others do not see it: {why}",
            self.stack.name
        );
        self.warn(pass, "lock.unwritten", words);
    }

    fn warn(&self, pass: &Pass, kind: &'static str, words: String) {
        if self.warned.lock().is_ok_and(|mut warned| warned.insert(kind)) {
            pass.warn(kind, words);
        }
    }

    /// Gives the lock back and keeps the holder.
    pub(super) async fn free(&self) {
        if let Ok(mut line) = timeout(ANSWERS_WITHIN, self.line.lock()).await
            && let Some(holder) = line.as_mut()
        {
            let _ = timeout(ANSWERS_WITHIN, holder.send("free", &Value::Null)).await;
        }
    }

    /// Ends the holder. The intent ends with it, unless it `stopped`: then it stays open, and says so.
    pub(super) async fn leave(&self, last: &Value, stopped: bool) -> Result<()> {
        let mut line = self.line.lock().await;
        let Some(mut holder) = line.take() else { return Ok(()) };
        let word = if stopped { "tell" } else { "close" };
        if self.begun.load(Ordering::Relaxed) {
            let answer = holder.ask(word, last).await.map_err(|Gone| self.is_gone())?;
            if let Some(refused) = answer.refusal(self.way.name(), &self.hold.folder) {
                return Err(refused);
            }
            if answer.word == "full" && !stopped {
                let what = format!("what was begun on {} is not closed", self.stack.name);
                return Err(Error::new(Kind::Failed, what, answer.text).host(self.way.name()));
            }
        }
        holder.end().await;
        Ok(())
    }
}

impl Held {
    /// Takes the lock again that was lost with its link. Fails when anybody has it, or had it meanwhile.
    async fn again(self: &Arc<Held>, pass: &Pass, line: &mut MutexGuard<'_, Option<Holder>>) -> Result<()> {
        let reach = self.way.reach(pass).await?;
        let began = Instant::now();
        let ours = |seen: &Value| holder::fence(seen) == Some(self.hold.fence.as_str());
        loop {
            let holder = match self.holder(pass, &reach, line).await? {
                Ok(holder) => holder,
                Err(why) => {
                    self.is_bare(pass, &why);
                    return Ok(());
                }
            };
            let answer = holder.ask("try", &Value::Null).await.map_err(|Gone| self.is_gone())?;
            if let Some(refused) = answer.refusal(self.way.name(), &self.hold.folder) {
                **line = None;
                return Err(refused);
            }
            match answer.word.as_str() {
                "got" if ours(&answer.value) => {
                    if let Some(why) = self.sign(holder).await? {
                        **line = None;
                        self.is_bare(pass, &why);
                    }
                    return Ok(());
                }
                // Who looks at a lock, or takes it at this moment, has it without a fence that is known.
                "busy" if holder::fence(&answer.value).is_none() && began.elapsed() < AGAIN_WITHIN => {}
                "busy" if ours(&answer.value) && began.elapsed() < AGAIN_WITHIN => {
                    // The host has not noticed yet that the link is gone.
                    let words = holder::end(&self.hold.folder, &self.hold.fence);
                    let _ = reach.run(pass, &host::words_of(words)).await;
                }
                "no" => {
                    **line = None;
                    self.is_bare(pass, &answer.text);
                    return Ok(());
                }
                _ => {
                    **line = None;
                    let name = &self.stack.name;
                    let by = intent::name(&answer.value["holder"]["by"]);
                    let why = format!("the lock of {name} was taken over by {by}: {}", quoted(&answer.value));
                    let next = format!("stack({}).lock()     who has it now", literal(name));
                    return Err(Error::new(Kind::Unmet, format!("nothing was changed on {name}"), why).next(next));
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }
}
