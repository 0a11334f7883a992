//! What an end means: of a change that was sent and got no answer, nobody knows whether it happened.

use super::pass::Came;
use super::verb::Class;
use super::wait::Ended;
use super::{Did, Effect, HERE, Lives};
use crate::error::{Error, Kind, Result};

/// After a change that may have happened: where to look, and how to say what was seen.
pub(super) fn advise(error: Error, effect: &Effect, outcome: &str, run: &str) -> Error {
    if effect.class == Class::Read || outcome == FAILED {
        return error;
    }
    let error = match effect.lives {
        Lives::No => error,
        _ => error.next(format!("opsh attach {run}     wait for its end, from any machine")),
    };
    error
        .next(format!("opsh journal show {run}     what was done in this run"))
        .next(format!("opsh journal settle {run} \"WHAT YOU SAW\"     after looking at the host"))
}

/// The outcome of what failed, or did not happen.
pub(super) const FAILED: &str = "failed";

/// The outcome of the work in one word and as a result, with what a lost or stopped change means.
pub(super) fn settle(effect: &Effect, ended: Ended<Result<Did>>, came: Came) -> (&'static str, Result<Did>) {
    let at = if effect.target.name == HERE { String::new() } else { format!(" on {}", effect.target.name) };
    let what = format!("{} failed{at}", effect.verb.name);
    let reads = effect.class == Class::Read;
    let maybe = if reads { "" } else { "; it may have happened, or still be going on" };
    let (outcome, error) = match ended {
        Ended::Done(Ok(did)) => return ("ok", Ok(did)),
        Ended::Done(Err(error)) => {
            let kind = kind_of(error.kind, reads, came);
            let why = if kind != error.kind && !reads { format!("{}{maybe}", error.why) } else { error.why.clone() };
            // A change that timed out while it still looked or connected has certainly not happened.
            let not_begun = kind == Kind::Timeout && !reads && came < Came::Begun;
            (if not_begun { FAILED } else { outcome(kind) }, Error { kind, why, ..error })
        }
        Ended::Timeout(late) if !reads && came == Came::Nowhere => {
            let why = format!("not sent within {}; it has not happened", late.words());
            (FAILED, Error::new(Kind::Unreachable, what, why))
        }
        Ended::Interrupted if !reads && came == Came::Nowhere => {
            let what = format!("{} was not begun{at}", effect.verb.name);
            (FAILED, Error::new(Kind::Interrupted, what, "Ctrl-C before it was sent; it has not happened"))
        }
        Ended::Timeout(late) => {
            let why = format!("not done within {}{maybe}", late.words());
            // A change that we stopped waiting for is not a failure: nobody knows.
            ("timeout", Error::new(if reads { Kind::Timeout } else { Kind::Unknown }, what, why))
        }
        Ended::Interrupted => {
            let what = format!("{} was interrupted{at}", effect.verb.name);
            ("interrupted", Error::new(Kind::Interrupted, what, format!("Ctrl-C{maybe}")))
        }
        Ended::Panicked => ("unknown", Error::new(Kind::Unknown, what, format!("a bug in opsh ended the work{maybe}"))),
    };
    let host = error.host.or_else(|| Some(effect.target.name.clone()));
    (outcome, Err(Error { host, trace: effect.place.iter().cloned().collect(), ..error }))
}

/// A read that got no answer did nothing; a change that was sent and got none may have happened.
fn kind_of(kind: Kind, reads: bool, came: Came) -> Kind {
    match kind {
        Kind::Unknown if reads => Kind::Unreachable,
        Kind::Unreachable | Kind::Denied | Kind::Timeout if came == Came::Sent && !reads => Kind::Unknown,
        kind => kind,
    }
}

pub(super) fn outcome(kind: Kind) -> &'static str {
    match kind {
        Kind::Timeout => "timeout",
        Kind::Interrupted => "interrupted",
        Kind::Unknown => "unknown",
        _ => FAILED,
    }
}

/// What the screen says of a change that did not go well.
pub(super) fn outcome_words(outcome: &str, error: &Error) -> String {
    match error.kind {
        _ if outcome == FAILED => error.why.lines().next().unwrap_or(FAILED).to_string(),
        Kind::Unknown => "outcome unknown: it may have happened".into(),
        _ => "stopped waiting: it may have happened".into(),
    }
}
