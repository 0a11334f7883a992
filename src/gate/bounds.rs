//! How long an effect may take: its deadline, the time for connecting, and what it waits for meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Bounds of every effect.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most that connecting adds to a deadline.
    pub connect: Duration,
    /// The longest deadline; a longer one is shortened to it.
    pub most: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connect: Duration::from_secs(30), most: None }
    }
}

/// The time of one effect, also over its repetition: an effect ends within its deadline and the time for connecting.
/// Only the time in which a person is asked something does not count.
pub(super) struct Clock {
    began: OnceLock<Instant>,
    /// Shared by all effects of a wave: while one person answers for one of them, the others wait, too.
    person: Arc<Watch>,
    connecting: Watch,
    /// The most that connecting adds to the deadline.
    connect: Duration,
    waits: Mutex<Waits>,
}

/// Waits of an effect, the newest last; each with a number that removes it.
#[derive(Default)]
struct Waits {
    next: u64,
    list: Vec<(u64, String, Instant)>,
}

/// A time that is over, as an error tells it.
#[derive(Debug)]
pub struct Late {
    /// The deadline that passed.
    pub within: Duration,
    /// The wait and its length.
    pub stuck: Option<String>,
}

impl Late {
    /// `60 s: waited 58 s for the Docker Engine on prod-1 to answer`.
    pub fn words(&self) -> String {
        let within = self.within.as_secs();
        self.stuck.as_ref().map_or_else(|| format!("{within} s"), |stuck| format!("{within} s: {stuck}"))
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new(Limits::default(), Arc::default())
    }
}

impl Clock {
    pub fn new(limits: Limits, person: Arc<Watch>) -> Clock {
        let (began, connecting, waits) = Default::default();
        Clock { began, person, connecting, connect: limits.connect, waits }
    }

    /// Time of `deadline` that is left. The first call begins it.
    pub fn left(&self, deadline: Duration) -> Duration {
        let spent = self.began.get_or_init(Instant::now).elapsed();
        (deadline + self.person.spent() + self.connecting().min(self.connect)).saturating_sub(spent)
    }

    /// Time spent on connecting, without that of a person.
    fn connecting(&self) -> Duration {
        self.connecting.spent()
    }

    /// Time that is left for connecting, of the limit and so much more.
    pub fn left_to_connect(&self, more: Duration) -> Duration {
        (self.connect + more).saturating_sub(self.connecting())
    }

    /// The longest that connecting may take.
    pub fn connect(&self) -> Duration {
        self.connect
    }

    /// Counts as connecting until the result is dropped.
    pub fn connects(&self) -> Running<'_> {
        let person = Arc::clone(&self.person);
        self.connecting.run(move || person.spent())
    }

    /// Counts as a person's time until the result is dropped.
    pub fn asks_a_person(&self) -> Running<'_> {
        self.person.run(|| Duration::ZERO)
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest wait, without its length.
    pub fn waits_for(&self) -> Option<String> {
        self.waits().list.last().map(|(_, what, _)| what.clone())
    }

    /// The same with its time, as part of an error.
    pub fn stuck(&self) -> Option<String> {
        self.waits().list.last().map(|(_, what, since)| format!("waited {} s for {what}", since.elapsed().as_secs()))
    }
}

/// A mark that work waits for something; dropped when it does not any more.
pub struct Waiting {
    clock: Arc<Clock>,
    number: u64,
}

impl Waiting {
    pub(super) fn new(clock: &Arc<Clock>, what: String) -> Waiting {
        let number = {
            let mut waits = clock.waits();
            waits.next += 1;
            let number = waits.next;
            waits.list.push((number, what, Instant::now()));
            number
        };
        Waiting { clock: Arc::clone(clock), number }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.clock.waits().list.retain(|(number, ..)| *number != self.number);
    }
}

/// A stopwatch that several may run at once: time counts once, while at least one does.
#[derive(Default)]
pub(super) struct Watch(Mutex<Laps>);

#[derive(Default)]
struct Laps {
    over: Duration,
    running: u32,
    since: Option<(Instant, Less)>,
}

/// Time that does not count, and how much of it there was at the beginning.
type Less = (Box<dyn Fn() -> Duration + Send>, Duration);

impl Laps {
    fn lap(&self) -> Duration {
        self.since.as_ref().map_or(Duration::ZERO, |(since, (less, before))| {
            since.elapsed().saturating_sub(less().saturating_sub(*before))
        })
    }
}

impl Watch {
    fn laps(&self) -> MutexGuard<'_, Laps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spent(&self) -> Duration {
        let laps = self.laps();
        laps.over + laps.lap()
    }

    fn run(&self, less: impl Fn() -> Duration + Send + 'static) -> Running<'_> {
        let mut laps = self.laps();
        laps.running += 1;
        if laps.since.is_none() {
            let before = less();
            laps.since = Some((Instant::now(), (Box::new(less), before)));
        }
        drop(laps);
        Running(self)
    }
}

/// Runs a stopwatch until it is dropped.
pub(super) struct Running<'a>(&'a Watch);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut laps = self.0.laps();
        laps.running -= 1;
        if laps.running == 0 {
            let lap = laps.lap();
            laps.over += lap;
            laps.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(connect_s: u64) -> Clock {
        Clock::new(Limits { connect: Duration::from_secs(connect_s), most: None }, Arc::default())
    }

    /// Moves the beginning of what runs into the past.
    fn pass(clock: &Clock, watch: &Watch, time: Duration) {
        let mut laps = watch.laps();
        let (since, less) = laps.since.take().expect("it runs");
        laps.since = Some((since - time, less));
        assert!(clock.began.get().is_none(), "the clock begins with the first question");
    }

    #[test]
    fn connecting_adds_at_most_its_own_limit() {
        let clock = seconds(30);
        let _runs = clock.connects();
        pass(&clock, &clock.connecting, Duration::from_secs(3600));
        assert_eq!(clock.left_to_connect(Duration::ZERO), Duration::ZERO);
        let left = clock.left(Duration::from_secs(60));
        assert!(left <= Duration::from_secs(90) && left > Duration::from_secs(85), "{left:?}");
    }

    #[test]
    fn the_time_of_a_person_counts_nowhere() {
        let clock = seconds(30);
        let connects = clock.connects();
        pass(&clock, &clock.connecting, Duration::from_secs(600));
        let asks = clock.asks_a_person();
        pass(&clock, &clock.person, Duration::from_secs(595));
        let left = clock.left_to_connect(Duration::ZERO);
        assert!(left <= Duration::from_secs(25) && left > Duration::from_secs(20), "{left:?}");
        drop((asks, connects));
        let left = clock.left(Duration::from_secs(1));
        assert!(left > Duration::from_secs(595) && left <= Duration::from_secs(602), "{left:?}");
    }

    #[test]
    fn the_newest_wait_is_told_and_removed_with_its_mark() {
        let clock = Arc::new(seconds(30));
        let outer = Waiting::new(&clock, "PostgreSQL to answer".into());
        let inner = Waiting::new(&clock, "the Docker Engine to answer".into());
        assert_eq!(clock.stuck().as_deref(), Some("waited 0 s for the Docker Engine to answer"));
        drop(inner);
        assert_eq!(clock.waits_for().as_deref(), Some("PostgreSQL to answer"));
        drop(outer);
        assert_eq!(clock.stuck(), None);
    }
}
