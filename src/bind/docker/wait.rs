//! Waiting until a container is up: events first, then looking, with crash loops and missing health checks told apart.

use super::engine::Engine;
use super::exec::Exec;
use super::model::Detail;
use super::transport::{Lines, encode};
use crate::error::{Error, Kind, Result};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// What to wait for.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// It runs for so many seconds without a restart.
    Running {
        /// Seconds in a row.
        steady_s: u32,
    },
    /// Its health check says healthy. Without a health check: as `Running`, and the health stays unknown.
    Healthy {
        /// Seconds in a row when there is no health check.
        steady_s: u32,
        /// Also run the health check's own command by exec, several times a second, in place of waiting for its interval.
        probe: bool,
    },
}

/// How a container stands at the end of the wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settled {
    /// `running`, as a rule.
    pub state: String,
    /// `healthy`; None when it has no health check, so that its health is unknown.
    pub health: Option<String>,
    /// The health was found by running the check ourselves; the Engine may still say `starting`.
    pub probed: bool,
    /// Restarts by the restart policy during the wait.
    pub restarts: i64,
}

/// How often to look when no event comes, and how often to probe.
const LOOK: Duration = Duration::from_millis(250);

/// A probe that takes longer is given up.
const PROBE: Duration = Duration::from_secs(5);

/// Restarts, or ends, that make a crash loop. One is forgiven: a database may have been a moment late.
const LOOP: i64 = 2;

/// What was seen during one wait.
#[derive(Default)]
struct Tally {
    first_restarts: Option<i64>,
    deaths: i64,
    last_exit: Option<i64>,
    started_at: Option<Timestamp>,
    steady_since: Option<Instant>,
    last: Option<Detail>,
}

/// What one look means.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Wait,
    Up,
    Unhealthy,
    Ended,
    Looping,
}

impl Engine {
    /// Waits until a container is up, at most `deadline`.
    ///
    /// Errors: `failed` when it ended, is unhealthy or restarts again and again (with its exit code and last lines),
    /// `not_found` when it goes away, `timeout` with how it stands. Dropping the future changes nothing.
    pub async fn wait_state(&self, id: &str, goal: Goal, deadline: Duration) -> Result<Settled> {
        let what = format!("container {id} did not come up");
        let mut tally = Tally::default();
        match tokio::time::timeout(deadline, self.watch(&what, id, goal, &mut tally)).await {
            Ok(settled) => settled,
            Err(_) => Err(self.late(&what, deadline, &tally)),
        }
    }

    async fn watch(&self, what: &str, id: &str, goal: Goal, tally: &mut Tally) -> Result<Settled> {
        // Subscribed before the first look, so that nothing can happen unseen between the two.
        let mut events = Some(self.events(what, id).await?);
        let mut probe: Option<BoxFuture<'static, bool>> = None;
        let mut looked: Option<Instant> = None;
        loop {
            let seen = self.inspect(id).await?;
            tally.note(&seen);
            match judge(&seen, tally, goal, tally.steady_since.map(|since| since.elapsed())) {
                Verdict::Wait => {}
                Verdict::Up => return Ok(settled(&seen, tally, false)),
                verdict => return Err(self.down(what, &seen, tally, &verdict).await),
            }
            if probe.is_none() && wants_probe(&seen, goal) && looked.is_none_or(|at| at.elapsed() >= LOOK) {
                probe = Some(self.probe(&seen));
                looked = Some(Instant::now());
            }
            tokio::select! {
                event = next_event(&mut events) => match event {
                    Some(event) => tally.count(&event),
                    None => events = None,
                },
                healthy = running(&mut probe) => {
                    probe = None;
                    if healthy && self.same_start(&seen).await? {
                        return Ok(settled(&seen, tally, true));
                    }
                },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn events(&self, what: &str, id: &str) -> Result<Lines> {
        let name = self.known_name(what, id)?;
        // The health check's own execs are events too, so only these kinds are asked for.
        let kinds = ["start", "die", "oom", "destroy", "health_status"];
        let filters = json!({ "type": ["container"], "container": [name], "event": kinds }).to_string();
        let path = format!("/events?filters={}", encode(&filters));
        Ok(Lines::new(self.read(what, self.http().get(&path)).await?.into_body()))
    }

    /// Runs the container's health check once; true when it says healthy.
    fn probe(&self, seen: &Detail) -> BoxFuture<'static, bool> {
        let (engine, id) = (self.clone(), seen.id.clone());
        let words = match seen.health_test.split_first() {
            Some((kind, words)) if kind == "CMD" => words.to_vec(),
            Some((_, words)) => [&["/bin/sh".to_owned(), "-c".to_owned()], words].concat(),
            None => Vec::new(),
        };
        Box::pin(async move {
            let exec = engine.exec(&id, Exec { words, keep: 1000, ..Default::default() });
            matches!(tokio::time::timeout(PROBE, exec).await, Ok(Ok(ran)) if ran.exit == 0)
        })
    }

    /// True when it still runs since the same start, so that a probe's answer is about this life of it.
    async fn same_start(&self, before: &Detail) -> Result<bool> {
        let now = self.inspect(&before.id).await?;
        Ok(now.state == "running" && now.started_at == before.started_at)
    }

    async fn down(&self, what: &str, seen: &Detail, tally: &Tally, verdict: &Verdict) -> Error {
        let exit = if seen.exit_code != 0 { seen.exit_code } else { tally.last_exit.unwrap_or_default() };
        let why = match verdict {
            Verdict::Unhealthy => format!("its health check failed: {}", health_says(seen)),
            Verdict::Looping => format!("it ends again and again, with exit code {exit}{}", memory(seen)),
            _ => format!("it ended with exit code {exit}{}", memory(seen)),
        };
        let words = self.last_words(&seen.id).await;
        let why = if words.is_empty() { why } else { format!("{why}; its last lines: {words}") };
        let error = self.error(Kind::Failed, what, why);
        if *verdict == Verdict::Unhealthy { error } else { error.exit(exit) }
    }

    fn late(&self, what: &str, deadline: Duration, tally: &Tally) -> Error {
        let stands = match &tally.last {
            None => "the Docker Engine has not said how it stands".to_owned(),
            Some(seen) if seen.health.is_some() => format!("it is {}, {}", seen.state, health_says(seen)),
            Some(seen) => format!("it is {}, after {} ends", seen.state, tally.deaths),
        };
        self.error(Kind::Timeout, what, format!("not within {} s; {stands}", deadline.as_secs_f64()))
    }
}

impl Tally {
    fn note(&mut self, seen: &Detail) {
        self.first_restarts.get_or_insert(seen.restart_count);
        if seen.state != "running" || self.started_at != seen.started_at {
            self.steady_since = (seen.state == "running").then(Instant::now);
            self.started_at = seen.started_at;
        }
        self.last = Some(seen.clone());
    }

    fn count(&mut self, event: &Value) {
        if event["Action"] == "die" {
            self.deaths += 1;
            let code = event.pointer("/Actor/Attributes/exitCode").and_then(Value::as_str);
            self.last_exit = code.and_then(|code| code.parse().ok()).or(self.last_exit);
        }
    }

    fn restarts(&self, seen: &Detail) -> i64 {
        (seen.restart_count - self.first_restarts.unwrap_or_default()).max(0)
    }
}

fn judge(seen: &Detail, tally: &Tally, goal: Goal, steady: Option<Duration>) -> Verdict {
    let dying = seen.state == "restarting" && seen.restart_count >= LOOP;
    if dying || tally.deaths >= LOOP || tally.restarts(seen) >= LOOP {
        return Verdict::Looping;
    }
    let steadily = |seconds: u32| match steady {
        Some(time) if seen.state == "running" && time >= Duration::from_secs(u64::from(seconds)) => Verdict::Up,
        _ => Verdict::Wait,
    };
    let health = seen.health.as_ref().map(|health| health.status.as_str());
    match (seen.state.as_str(), goal, health) {
        ("exited" | "dead", ..) => Verdict::Ended,
        ("running", Goal::Healthy { .. }, Some("healthy")) => Verdict::Up,
        ("running", Goal::Healthy { .. }, Some("unhealthy")) => Verdict::Unhealthy,
        (_, Goal::Healthy { .. }, Some(_)) => Verdict::Wait,
        (_, Goal::Healthy { steady_s, .. } | Goal::Running { steady_s }, _) => steadily(steady_s),
    }
}

fn settled(seen: &Detail, tally: &Tally, probed: bool) -> Settled {
    let health = seen.health.as_ref().map(|health| if probed { "healthy".to_owned() } else { health.status.clone() });
    Settled { state: seen.state.clone(), health, probed, restarts: tally.restarts(seen) }
}

fn wants_probe(seen: &Detail, goal: Goal) -> bool {
    let starting = seen.health.as_ref().is_some_and(|health| health.status == "starting");
    matches!(goal, Goal::Healthy { probe: true, .. }) && starting && seen.state == "running"
}

fn health_says(seen: &Detail) -> String {
    let Some(health) = &seen.health else { return "health unknown".into() };
    match (health.failing, health.output.as_str()) {
        (0, _) => health.status.clone(),
        (n, "") => format!("{} ({n} times)", health.status),
        (n, output) => format!("{} ({n} times: {output})", health.status),
    }
}

fn memory(seen: &Detail) -> &'static str {
    if seen.oom_killed { " (out of memory)" } else { "" }
}

/// The next of the Engine's events, each a line of JSON; None when they have ended, or are none. Without them it never comes:
/// looking goes on.
async fn next_event(events: &mut Option<Lines>) -> Option<Value> {
    let Some(events) = events else { return std::future::pending().await };
    loop {
        if let Ok(event) = serde_json::from_slice(events.next().await.ok()??) {
            return Some(event);
        }
    }
}

async fn running(probe: &mut Option<BoxFuture<'static, bool>>) -> bool {
    match probe {
        Some(probe) => probe.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Lab;
    use super::*;

    const TEN: Duration = Duration::from_secs(10);
    const HEALTHY: Goal = Goal::Healthy { steady_s: 1, probe: false };
    const PROBED: Goal = Goal::Healthy { steady_s: 1, probe: true };

    #[tokio::test]
    async fn a_healthy_container_is_up_and_a_probe_does_not_wait_for_the_interval() {
        let Some(lab) = Lab::open().await else { return };
        let check = ["--health-cmd", "test -e /tmp/up", "--health-interval"];
        let words = ["sh", "-c", "sleep 0.5; touch /tmp/up; sleep 60"];
        let id = lab.run("quick", &[&check[..], &["500ms"]].concat(), &words);
        let up = lab.engine.wait_state(&id, HEALTHY, TEN).await.unwrap();
        assert_eq!((up.health.as_deref(), up.probed, up.restarts), (Some("healthy"), false, 0));
        let id = lab.run("slow", &[&check[..], &["60s"]].concat(), &words);
        let up = lab.engine.wait_state(&id, PROBED, TEN).await.unwrap();
        assert_eq!((up.health.as_deref(), up.probed), (Some("healthy"), true));
        let late = lab.engine.wait_state(&id, HEALTHY, Duration::from_millis(300)).await.unwrap_err();
        assert_eq!((late.kind, late.why.contains("it is running, starting")), (Kind::Timeout, true), "{late}");
    }

    #[tokio::test]
    async fn without_a_health_check_the_health_is_unknown() {
        let Some(lab) = Lab::open().await else { return };
        let id = lab.run("a", &[], &["sleep", "60"]);
        let start = Instant::now();
        let up = lab.engine.wait_state(&id, HEALTHY, TEN).await.unwrap();
        assert_eq!((up.state.as_str(), up.health), ("running", None));
        assert!(start.elapsed() >= Duration::from_secs(1));
    }

    #[tokio::test]
    async fn an_unhealthy_one_says_what_its_check_printed() {
        let Some(lab) = Lab::open().await else { return };
        let check = ["--health-cmd", "echo HTTP 503; false", "--health-interval", "200ms", "--health-retries", "2"];
        let id = lab.run("a", &check, &["sh", "-c", "echo starting up; sleep 60"]);
        let error = lab.engine.wait_state(&id, PROBED, TEN).await.unwrap_err();
        assert!(error.why.contains("HTTP 503") && error.why.contains("starting up"), "{error}");
        assert_eq!(error.kind, Kind::Failed);
    }

    #[tokio::test]
    async fn a_crash_loop_and_an_end_are_found_with_code_and_last_words() {
        let Some(lab) = Lab::open().await else { return };
        let words = ["sh", "-c", "sleep 0.2; echo FATAL no key >&2; exit 5"];
        let looping = lab.run("loop", &["--restart", "always"], &words);
        let error = lab.engine.wait_state(&looping, Goal::Running { steady_s: 3 }, TEN).await.unwrap_err();
        assert_eq!((error.kind, error.exit), (Kind::Failed, Some(5)), "{error}");
        assert!(error.why.contains("again and again") && error.why.contains("FATAL no key"), "{error}");
        let again = lab.engine.wait_state(&looping, HEALTHY, TEN).await.unwrap_err();
        assert!(again.why.contains("again and again"), "{again}");
        let ended = lab.run("end", &[], &words);
        let error = lab.engine.wait_state(&ended, HEALTHY, TEN).await.unwrap_err();
        assert_eq!((error.exit, error.why.contains("ended with exit code 5")), (Some(5), true), "{error}");
    }

    #[tokio::test]
    async fn a_container_that_goes_away_is_not_waited_for() {
        let Some(lab) = Lab::open().await else { return };
        let id = lab.run("a", &["--health-cmd", "false", "--health-interval", "60s"], &["sleep", "60"]);
        let (error, ()) = tokio::join!(lab.engine.wait_state(&id, HEALTHY, TEN), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            lab.docker(&["rm", "-fv", &id]);
        });
        assert!(matches!(error.unwrap_err().kind, Kind::NotFound | Kind::Failed));
    }
}
