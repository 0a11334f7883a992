//! The token that work cannot be done without, and what the work tells the door while it goes on.

use super::bounds::{Clock, Waiting};
use super::verb::Class;
use super::{Effect, clock, journal};
use crate::error::{Error, Kind, Result};
use crate::redact::{self, Secret};
use serde_json::{Value, json};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Proof that the gate decided and recorded: whatever opens a connection, starts a process, writes a file or reads a
/// clock takes one by reference. Only the gate makes it.
pub struct Pass {
    effect: String,
    about: About,
    hold: Option<Hold>,
    marks: Arc<Marks>,
    wire: Option<Wire>,
    /// It belongs to a change.
    changes: bool,
    /// What is asked next begins the run that does the work.
    begins: bool,
}

/// The lock that a change is made under; what it leaves running on the host keeps others out for as long as it runs.
#[derive(Clone, Debug)]
pub struct Hold {
    /// The folder on the host that the lock is in.
    pub folder: String,
    /// Written into the lock by whoever has it: another one there means that somebody else has it now.
    pub fence: String,
    /// There turned out to be no lock: nothing is held.
    pub off: Arc<AtomicBool>,
}

/// What a colleague on a host should know of an effect; only what is left on one is told.
#[derive(Clone, Default)]
struct About {
    verb: &'static str,
    target: String,
    says: String,
    at_us: i64,
}

/// Tells whether a link that the work rides on is gone; waits a moment for that to be known.
type Probe = Box<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// Work that is left for when the end is recorded.
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How far the work of an effect came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Came {
    /// Nothing was asked of the place: what was to be done has certainly not happened.
    Nowhere,
    /// Something was, were it only a look.
    Looked,
    /// A run that outlives the link was handed over; its answer, that it goes on, may be on its way.
    Begun,
    /// What was to be done was sent, or was about to be.
    Sent,
}

/// What the work has said of itself.
#[derive(Default)]
pub(super) struct Marks {
    asked: AtomicBool,
    begun: AtomicBool,
    sent: AtomicBool,
    lost: AtomicBool,
    put_back: AtomicBool,
    rides_on: Mutex<Vec<Probe>>,
    afterwards: Mutex<Vec<Work>>,
    learns: Mutex<Option<Work>>,
    clears: Mutex<Vec<Clearing>>,
    remains: Mutex<Vec<Remains>>,
    clock: Arc<Clock>,
}

/// What work that was given up left behind, and could not be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// A sentence, for the reason of an error.
    pub why: String,
    /// The line that removes it.
    pub next: String,
}

/// What is left when the time for clearing it is over, and the answer of whoever clears it.
type Clearing = (Remains, oneshot::Receiver<Option<Remains>>);

/// The longest that an effect waits until what it left behind is cleared.
const CLEARED_WITHIN: Duration = Duration::from_secs(10);

/// Has what work leaves behind cleared before its effect ends, from work that has no pass.
#[derive(Clone)]
pub struct Clears(Arc<Marks>);

impl Clears {
    /// Begins to clear something, of which `work` says what is left. The effect waits for that, and says it in its error; after
    /// 10 s it says `otherwise`.
    pub fn clear(&self, otherwise: Remains, work: impl Future<Output = Option<Remains>> + Send + 'static) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (tell, told) = oneshot::channel();
        runtime.spawn(async move { tell.send(work.await) });
        if let Ok(mut clears) = self.0.clears.lock() {
            clears.push((otherwise, told));
        }
    }
}

/// What the work says while it goes on; the session's thread hears it.
pub(super) enum Event {
    /// Output of a running command. The permit is the place it takes up until it is on the screen.
    Output(Vec<u8>, OwnedSemaphorePermit),
    /// A record that is not an effect.
    Note(&'static str, Value),
    /// Words that are not to be overlooked.
    Warn(String),
    /// A secret is needed that only a person knows. No answer: there is no terminal, or nothing was typed.
    Ask(String, oneshot::Sender<Option<Secret>>),
    /// A program is about to have the terminal, until the effect's end. False: there is none.
    Lend(oneshot::Sender<bool>),
}

/// Says what an effect waits for, from work that has no pass.
#[derive(Clone)]
pub struct Waits(Arc<Clock>);

impl Waits {
    /// True while something is waited for.
    pub fn is_told(&self) -> bool {
        self.0.waits_for().is_some()
    }

    /// As [`Pass::waits_for`].
    pub fn waits_for(&self, what: impl Into<String>) -> Waiting {
        Waiting::new(&self.0, what.into())
    }
}

/// The way from the I/O thread to the session's thread.
#[derive(Clone)]
pub(super) struct Wire {
    pub send: Arc<dyn Fn(Event) + Send + Sync>,
    pub room: Arc<Semaphore>,
}

/// Pieces of output that wait for the screen; a command that prints faster waits.
pub(super) const ROOM: usize = 16;

/// What tests see of an output, in pieces. Those that nobody has taken yet take room, as they do before a slow screen.
#[cfg(test)]
pub type Shown = tokio::sync::mpsc::UnboundedReceiver<(Vec<u8>, OwnedSemaphorePermit)>;

impl Pass {
    pub(super) fn new(id: &str, effect: &Effect, marks: Arc<Marks>, wire: Wire) -> Pass {
        Pass { marks, wire: Some(wire), ..Pass::unwatched(id, effect) }
    }

    /// A token for work that nobody waits for: what it says is heard by nobody, and no login is begun with it.
    pub(super) fn unwatched(id: &str, effect: &Effect) -> Pass {
        let (target, says) = (effect.target.name.clone(), effect.says.clone());
        let about = About { verb: effect.verb.name, target, says, at_us: clock::wall_us() };
        let changes = effect.class != Class::Read;
        Pass { effect: id.into(), about, hold: None, marks: Arc::default(), wire: None, changes, begins: false }
    }

    /// The same token, for what is done before the work and as a part of it.
    pub fn twin(&self) -> Pass {
        Pass {
            effect: self.effect.clone(),
            about: self.about.clone(),
            hold: self.hold.clone(),
            marks: Arc::clone(&self.marks),
            wire: self.wire.clone(),
            changes: self.changes,
            begins: false,
        }
    }

    /// The same token, for handing over a run that outlives the link.
    pub fn beginning(&self) -> Pass {
        Pass { begins: true, ..self.twin() }
    }

    /// The same token for work that is done under a lock.
    pub fn under(self, hold: Hold) -> Pass {
        Pass { hold: Some(hold), ..self }
    }

    /// The lock that the work is done under.
    pub fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref().filter(|hold| !hold.off.load(Ordering::Relaxed))
    }

    /// A token for a connection that is opened within the effect and outlives it.
    pub fn for_connection(&self) -> Pass {
        Pass { marks: Arc::default(), wire: None, ..self.twin() }
    }

    /// The same, for work that outlives the change it belongs to and keeps nobody out: no lock lasts as long as it.
    pub fn without_lock(&self) -> Pass {
        Pass { hold: None, ..self.for_connection() }
    }

    /// Id of the effect, unique in the journal: names what is left on a host so that it can be found again.
    pub fn effect(&self) -> &str {
        &self.effect
    }

    /// True when the effect is a change: what was known of its place before may be wrong afterwards.
    pub fn changes(&self) -> bool {
        self.changes
    }

    /// Who does what, for whoever finds what is left on a host: a JSON object with `effect`, `verb`, `target`, `says`,
    /// `by` and `at`, without secrets; under a lock with its folder as `lock`.
    pub fn about(&self) -> String {
        let About { verb, target, says, at_us } = &self.about;
        let mut about = json!({
            "effect": self.effect, "verb": verb, "target": target, "says": says, "by": journal::actor_here(),
            "at": clock::rfc3339(*at_us),
        });
        if let Some(hold) = self.hold() {
            about["lock"] = json!(hold.folder);
        }
        redact::clean_json(about).to_string()
    }

    /// Says that something is about to be asked of the place, were it only a look: until then, what is stopped has
    /// certainly not happened. Said by whatever carries it, just before.
    pub fn asking(&self) {
        self.marks.asked.store(true, Ordering::Release);
        if self.begins {
            self.marks.begun.store(true, Ordering::Release);
        }
    }

    /// Says that the change is about to be sent: a link that is lost from here on means that it may have happened.
    pub fn sending(&self) {
        self.marks.sent.store(true, Ordering::Release);
    }

    /// Says which link the work rides on: a read that fails because it was lost is repeated once, over a new one.
    pub fn rides_on<F: Future<Output = bool> + Send + 'static>(&self, gone: impl Fn() -> F + Send + Sync + 'static) {
        if let Ok(mut links) = self.marks.rides_on.lock() {
            links.push(Box::new(move || Box::pin(gone())));
        }
    }

    /// Says how it is learned what a change made secret, for [`Pass::learn_again`].
    pub fn learns_by(&self, again: impl Future<Output = ()> + Send + 'static) {
        if let Ok(mut learns) = self.marks.learns.lock() {
            *learns = Some(Box::pin(again));
        }
    }

    /// After the program of a change, and before what it said is a result and a record. It counts as connecting, so that the
    /// deadline of the change does not pass meanwhile.
    pub async fn learn_again(&self) {
        let again = self.marks.learns.lock().ok().and_then(|mut learns| learns.take());
        if let Some(again) = again {
            let learned = async {
                again.await;
                Ok(())
            };
            let _ = self.connecting("", |_| String::new(), learned).await;
        }
    }

    /// Leaves work for when the effect's end is in the journal, such as removing what its outcome could be learned from
    /// until then. It may take 10 s, and does not happen when opsh ends before.
    pub fn afterwards(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Ok(mut left) = self.marks.afterwards.lock() {
            left.push(Box::pin(work));
        }
    }

    /// Connects to something: that does not count against the deadline of the effect, but against the one for connecting
    /// (`limits.connect_s`), which all connecting of the effect shares. When that is over, fails with `timeout`, `what` and
    /// the reason that `stuck` gives; the time in which a person is asked something does not count.
    pub async fn connecting<T>(
        &self,
        what: &str,
        stuck: impl Fn(u64) -> String,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.connecting_within(Duration::ZERO, what, stuck, work).await
    }

    /// The same for whoever waits until somebody else has connected: their times are over together, and the other one
    /// knows the reason.
    pub async fn connecting_after<T>(
        &self,
        what: &str,
        stuck: impl Fn(u64) -> String,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.connecting_within(Duration::from_secs(2), what, stuck, work).await
    }

    async fn connecting_within<T>(
        &self,
        more: Duration,
        what: &str,
        stuck: impl Fn(u64) -> String,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let clock = &self.marks.clock;
        let _counts = clock.connects();
        tokio::pin!(work);
        loop {
            let left = clock.left_to_connect(more);
            if left.is_zero() {
                return Err(Error::new(Kind::Timeout, what, stuck(clock.connect().as_secs())));
            }
            tokio::select! {
                biased;
                value = &mut work => return value,
                // A person may be asked meanwhile.
                () = tokio::time::sleep(left.min(Duration::from_millis(250))) => {}
            }
        }
    }

    /// The longest that connecting may take.
    pub fn connects_within(&self) -> Duration {
        self.marks.clock.connect()
    }

    /// Says what the work waits for, until the result is dropped: the screen shows it, and the error of a deadline that
    /// passes meanwhile names it.
    pub fn waits_for(&self, what: impl Into<String>) -> Waiting {
        Waiting::new(&self.marks.clock, what.into())
    }

    /// The same for work that has no pass.
    pub fn waits(&self) -> Waits {
        Waits(Arc::clone(&self.marks.clock))
    }

    /// For clearing what the work leaves behind when it is given up.
    pub fn clears(&self) -> Clears {
        Clears(Arc::clone(&self.marks))
    }

    /// True when somebody sees what [`Pass::output`] is handed.
    pub fn is_watched(&self) -> bool {
        self.wire.is_some()
    }

    /// Hands bytes of a running command to the screen as they come; waits while the screen is behind.
    pub async fn output(&self, bytes: &[u8]) {
        let Some(wire) = &self.wire else { return };
        if let Ok(permit) = Arc::clone(&wire.room).acquire_owned().await {
            (wire.send)(Event::Output(bytes.to_vec(), permit));
        }
    }

    /// Writes a record that is not an effect.
    pub fn note(&self, kind: &'static str, body: Value) {
        if let Some(wire) = &self.wire {
            (wire.send)(Event::Note(kind, body));
        }
    }

    /// Says something that is not to be overlooked, and records it.
    pub fn warn(&self, kind: &'static str, words: String) {
        self.note(kind, json!({ "says": words }));
        if let Some(wire) = &self.wire {
            (wire.send)(Event::Warn(words));
        }
    }

    /// Asks the person at the terminal for a secret; `None` without a terminal, or without an answer.
    pub async fn ask_secret(&self, question: &str) -> Option<Secret> {
        let (reply, answer) = oneshot::channel();
        let _not_counted = self.marks.clock.asks_a_person();
        (self.wire.as_ref()?.send)(Event::Ask(question.into(), reply));
        answer.await.ok().flatten()
    }

    /// Gives the terminal to a program that is about to be started: until this effect's end nothing else is drawn, and keys
    /// such as Ctrl-C are the program's. False when there is no terminal.
    pub async fn terminal(&self) -> bool {
        let Some(wire) = &self.wire else { return false };
        let (reply, answer) = oneshot::channel();
        (wire.send)(Event::Lend(reply));
        answer.await.unwrap_or(false)
    }

    /// Says that the program ended by itself, and so put back what it had switched on of the terminal.
    pub fn put_back(&self) {
        self.marks.put_back.store(true, Ordering::Release);
    }

    /// A token for tests of what lies behind the door.
    #[cfg(test)]
    pub fn for_tests() -> Pass {
        let effect = format!("test-{}.1", clock::run_id());
        let marks = Arc::default();
        Pass { effect, about: About::default(), hold: None, marks, wire: None, changes: false, begins: false }
    }

    /// The same, with a person who gives this answer to each question, and the questions.
    #[cfg(test)]
    pub fn for_tests_with_person(answer: &str) -> (Pass, Arc<Mutex<Vec<String>>>) {
        let (asked, answer) = (Arc::new(Mutex::new(Vec::new())), answer.to_string());
        let heard = Arc::clone(&asked);
        let send = move |event| {
            if let (Event::Ask(question, reply), Ok(mut heard)) = (event, heard.lock()) {
                heard.push(question);
                let _ = reply.send(Some(Secret::new(answer.clone())));
            }
        };
        let wire = Wire { send: Arc::new(send), room: Arc::new(Semaphore::new(ROOM)) };
        (Pass { wire: Some(wire), ..Pass::for_tests() }, asked)
    }

    /// What could not be cleared, once the clearing is over.
    #[cfg(test)]
    pub async fn remains_for_tests(&self) -> Vec<Remains> {
        self.marks.cleared().await;
        self.marks.remains()
    }

    /// The same, with the end where its output arrives.
    #[cfg(test)]
    pub fn for_tests_with_output() -> (Pass, Shown) {
        let (sender, received) = tokio::sync::mpsc::unbounded_channel();
        let send = move |event| {
            if let Event::Output(bytes, room) = event {
                let _ = sender.send((bytes, room));
            }
        };
        let wire = Wire { send: Arc::new(send), room: Arc::new(Semaphore::new(ROOM)) };
        (Pass { wire: Some(wire), ..Pass::for_tests() }, received)
    }
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pass").field("effect", &self.effect).finish_non_exhaustive()
    }
}

impl Marks {
    pub fn came(&self) -> Came {
        match [&self.sent, &self.begun, &self.asked].map(|mark| mark.load(Ordering::Acquire)) {
            [true, ..] => Came::Sent,
            [_, true, _] => Came::Begun,
            [.., true] => Came::Looked,
            _ => Came::Nowhere,
        }
    }

    /// After a failure: looks whether a link was lost.
    pub async fn look_at_links(&self) {
        let probes = self.rides_on.lock().map(|mut links| std::mem::take(&mut *links)).unwrap_or_default();
        for gone in probes {
            if gone().await {
                self.lost.store(true, Ordering::Release);
            }
        }
    }

    pub fn was_put_back(&self) -> bool {
        self.put_back.load(Ordering::Acquire)
    }

    pub fn link_was_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub fn take_afterwards(&self) -> Vec<Work> {
        self.afterwards.lock().map(|mut left| std::mem::take(&mut *left)).unwrap_or_default()
    }

    /// Waits until what the work left behind is cleared.
    pub async fn cleared(&self) {
        let begun = self.clears.lock().map(|mut clears| std::mem::take(&mut *clears)).unwrap_or_default();
        let end = tokio::time::Instant::now() + CLEARED_WITHIN;
        for (otherwise, told) in begun {
            let left =
                tokio::time::timeout_at(end, told).await.map_or(Some(otherwise), |told| told.unwrap_or_default());
            if let (Some(left), Ok(mut remains)) = (left, self.remains.lock()) {
                remains.push(left);
            }
        }
    }

    /// What could not be cleared.
    pub fn remains(&self) -> Vec<Remains> {
        self.remains.lock().map(|remains| remains.clone()).unwrap_or_default()
    }

    /// Marks of an effect that `clock` bounds.
    pub fn of(clock: Clock) -> Marks {
        Marks { clock: Arc::new(clock), ..Marks::default() }
    }

    /// Marks of the same effect, which is done again in the time that is left of it.
    pub fn again(&self) -> Marks {
        Marks { clock: Arc::clone(&self.clock), ..Marks::default() }
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}
