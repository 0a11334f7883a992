//! The door's order: decide, ask, record, act, record.

pub(crate) mod table;

use super::journal::Fate;
use super::outcome::settle;
use super::pass::Came;
use super::wait::Ended;
use super::wave::label;
use super::*;
use crate::error::Place;
use crate::screen::Options;
use std::sync::Arc;

const READ: Verb = verb("test.read", Class::Read, false);
const CHANGE: Verb = verb("test.change", Class::Change, false);
const DESTROY: Verb = verb("test.destroy", Class::Destroy, false);
const WAIT: Verb = verb("test.wait", Class::Read, true);

const fn verb(name: &'static str, class: Class, waits: bool) -> Verb {
    Verb { name, class, waits, sig: "f() -> any", doc: "", example: "" }
}

fn gate(mode: Mode, yes: bool, allow: &[&str]) -> (tempfile::TempDir, Gate) {
    let dir = tempfile::tempdir().expect("a folder");
    let screen = Rc::new(Screen::new(Options { json: false, color: false, terminal: false, width: 80 }));
    let grants = Grants { yes, allow: allow.iter().map(|name| name.to_string()).collect(), under: Vec::new() };
    let gate = Gate::new(mode, grants, Ledger::open(dir.path(), false, &screen), screen).expect("a gate");
    gate.begin_run("test", Value::Null).expect("a run");
    (dir, gate)
}

fn effect(verb: &'static Verb) -> Effect {
    Effect {
        verb,
        class: verb.class,
        target: Target { name: "prod".into(), protected: true },
        args: json!({"service": "backend"}),
        call: Value::Null,
        says: "backend".into(),
        aside: None,
        inverse: Some("undo()".into()),
        before: Value::Null,
        lost: (verb.class == Class::Destroy).then(|| "47".to_string()),
        returns: false,
        place: None,
        deadline: Duration::from_secs(5),
        lives: Lives::No,
        other: None,
        known: None,
    }
}

async fn ok() -> Result<Did> {
    Ok(Did { changed: true, after: json!("new"), ..Did::default() })
}

fn kinds(gate: &Gate) -> Vec<String> {
    gate.journal().expect("open").run("last").expect("read").iter().map(|entry| entry.kind.clone()).collect()
}

/// While `work` goes on, the journal's file has another name and takes no record.
#[expect(clippy::disallowed_methods, reason = "a test's own journal")]
fn without_journal<T>(dir: &tempfile::TempDir, work: impl FnOnce() -> T) -> T {
    let (path, aside) = (dir.path().join("journal.db"), dir.path().join("aside"));
    std::fs::rename(&path, &aside).expect("it is there");
    let result = work();
    std::fs::rename(&aside, &path).expect("it is back");
    result
}

#[test]
fn a_journal_that_takes_records_again_gets_the_start_of_the_run_before_its_change() {
    let (dir, gate) = gate(Mode::Apply, true, &[]);
    without_journal(&dir, || gate.begin_run("again", Value::Null).expect("reads may go on"));
    gate.perform(&effect(&CHANGE), |_| ok()).expect("performed");
    gate.end_run(None);
    assert_eq!(kinds(&gate), ["run.start", "effect.begin", "effect.end", "run.end"]);
    assert_eq!(gate.journal().expect("open").story("last").expect("found").what, "again");
}

#[test]
fn a_run_that_waits_for_another_one_keeps_what_is_not_recorded_of_it() {
    let (dir, gate) = gate(Mode::Apply, true, &[]);
    let outer = gate.run_id();
    without_journal(&dir, || gate.note("line", json!({})));
    assert!(!gate.is_recorded_whole());
    let aside = gate.set_aside();
    gate.begin_run("another", Value::Null).expect("a run");
    assert!(gate.is_recorded_whole(), "all of this one is recorded");
    without_journal(&dir, || gate.note("lost", json!({})));
    gate.take_up(aside);
    assert!(!gate.is_recorded_whole());
    gate.note("line", json!({}));
    assert!(gate.is_recorded_whole());
    let kinds = |run: &str| {
        let entries = gate.journal().expect("open").run(run).expect("read");
        entries.into_iter().map(|entry| entry.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&outer), ["run.start", "line", "line"]);
    assert_eq!(kinds("last"), ["run.start", "lost"], "nor of the other one");
}

#[test]
fn of_two_that_take_the_same_effect_back_one_does() {
    let (dir, first) = gate(Mode::Apply, true, &[]);
    first.perform(&effect(&CHANGE), |_| ok()).expect("performed");
    let screen = Rc::clone(first.screen());
    let second = Gate::new(Mode::Apply, Grants::default(), Ledger::open(dir.path(), false, &screen), screen);
    let second = second.expect("a gate");
    second.begin_run("the same", Value::Null).expect("a run");
    let undoing = || {
        let (effect, target) = (first.trail_from(0)[0].clone(), "prod".into());
        Undoing { effect, target, source: "the line".into(), class: Class::Change, verbs: Vec::new() }
    };
    let refused = || {
        let error = second.take_back(undoing(), || panic!("it is taken back by the other")).expect_err("refused");
        assert_eq!(error.kind, Kind::Unmet);
        assert!(error.why.contains(&first.run_id()), "{}", error.why);
    };
    let back = first.take_back(undoing(), || {
        refused();
        Ok(())
    });
    back.expect("the first may");
    refused();
}

#[test]
fn what_may_only_be_done_with_a_record_is_refused_without_one() {
    let (dir, gate) = gate(Mode::Apply, true, &[]);
    let refused = without_journal(&dir, || gate.note_before("secret.reveal", json!({}))).expect_err("no record");
    assert_eq!(refused.kind, Kind::Journal);
    gate.note_before("secret.reveal", json!({})).expect("recorded");
    assert_eq!(kinds(&gate), ["run.start", "secret.reveal"]);
}

#[test]
fn a_change_is_recorded_before_it_is_performed() {
    let (dir, gate) = gate(Mode::Apply, true, &[]);
    let path = dir.path().to_path_buf();
    let seen = |_: Pass| {
        let path = path.clone();
        async move {
            let other = Journal::open(&path).expect("a second look");
            let entries = other.run("last").expect("read");
            assert_eq!(entries.last().map(|entry| entry.kind.as_str()), Some("effect.begin"));
            ok().await
        }
    };
    gate.perform(&effect(&CHANGE), seen).expect("performed");
    assert_eq!(kinds(&gate), ["run.start", "effect.begin", "effect.end"]);
}

#[test]
fn a_refused_effect_is_never_performed() {
    for (verb, mode, yes) in [
        (&CHANGE, Mode::Apply, false),
        (&DESTROY, Mode::Apply, true),
        (&CHANGE, Mode::Observe, true),
        (&DESTROY, Mode::Observe, true),
    ] {
        let (_dir, gate) = gate(mode, yes, &[]);
        let error = gate.perform(&effect(verb), |_| async { unreachable!("it was refused") }).expect_err("refused");
        assert_eq!(error.kind, Kind::Refused);
        assert_eq!(kinds(&gate), ["run.start", "consent"], "the no is on record");
    }
}

#[test]
fn an_inverse_needs_no_consent_for_its_own_verbs_on_its_target_up_to_its_class() {
    let (_dir, gate) = gate(Mode::Apply, false, &[]);
    let undoing = |target: &str, class| {
        let verbs = vec![CHANGE.name, DESTROY.name];
        Undoing { effect: "r.7".into(), target: target.into(), source: "the line".into(), class, verbs }
    };
    let called_in = |file: &str, verb| {
        let place = Place { file: file.into(), line: 1, column: 1 };
        Effect { place: Some(place), ..effect(verb) }
    };
    let take_back = |undoing, verb: &'static Verb| {
        let effect = called_in("the line", verb);
        gate.take_back(undoing, || gate.perform(&effect, |_| ok()).map(drop)).map_err(|error| error.kind)
    };
    for elsewhere in [called_in("std/text.rhai", &CHANGE), effect(&CHANGE)] {
        let by_a_module = || gate.perform(&elsewhere, |_| ok()).map(drop);
        let refused = gate.take_back(Undoing { effect: "r.9".into(), ..undoing("prod", Class::Change) }, by_a_module);
        assert_eq!(refused.map_err(|error| error.kind), Err(Kind::Refused), "it is not in the text of the line");
    }
    let other = Undoing { verbs: vec![DESTROY.name], effect: "r.8".into(), ..undoing("prod", Class::Destroy) };
    assert_eq!(take_back(other, &CHANGE), Err(Kind::Refused), "the line does not name it");
    assert_eq!(take_back(undoing("prod", Class::Change), &DESTROY), Err(Kind::Refused));
    assert_eq!(take_back(undoing("other", Class::Change), &CHANGE), Err(Kind::Refused));
    assert_eq!(take_back(undoing("prod", Class::Change), &CHANGE), Ok(()));
    assert_eq!(take_back(undoing("prod", Class::Destroy), &DESTROY), Ok(()));
    assert!(gate.perform(&effect(&CHANGE), |_| ok()).is_err(), "only while it goes back");
    let entries = gate.journal().expect("open").run("last").expect("read");
    let linked = entries.iter().filter(|entry| entry.body["undoes"] == "r.7").count();
    let undone = entries.iter().filter(|entry| entry.kind == "effect.undone").count();
    assert_eq!((linked, undone), (2, 2));
}

#[test]
fn what_is_left_for_afterwards_is_done_once_the_end_is_recorded() {
    let (dir, gate) = gate(Mode::Apply, true, &[]);
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let work = |pass: Pass| {
        let (path, seen) = (dir.path().to_path_buf(), Arc::clone(&seen));
        async move {
            pass.afterwards(async move {
                let other = Journal::open(&path).expect("a second look");
                let last = other.run("last").expect("read").pop().map(|entry| entry.kind);
                seen.lock().expect("whole").extend(last);
            });
            ok().await
        }
    };
    gate.perform(&effect(&CHANGE), work).expect("performed");
    assert_eq!(*seen.lock().expect("whole"), ["effect.end"]);
}

#[test]
fn what_given_up_work_left_behind_is_cleared_first_and_told() {
    let (_dir, gate) = gate(Mode::Apply, true, &[]);
    let cleared = Arc::new(std::sync::atomic::AtomicBool::new(false));
    struct Left(super::Clears, Arc<std::sync::atomic::AtomicBool>);
    impl Drop for Left {
        fn drop(&mut self) {
            let cleared = Arc::clone(&self.1);
            let remains = |why: &str| super::Remains { why: why.into(), next: "rm it".into() };
            self.0.clear(remains("not told"), async move {
                tokio::task::yield_now().await;
                cleared.store(true, std::sync::atomic::Ordering::Release);
                Some(remains("a part of it is left"))
            });
        }
    }
    let look = Effect { deadline: std::time::Duration::from_millis(50), ..effect(&READ) };
    let done = gate.perform(&look, |pass: Pass| {
        let left = Left(pass.clears(), Arc::clone(&cleared));
        async move {
            let _left = left;
            std::future::pending::<()>().await;
            ok().await
        }
    });
    let error = done.expect_err("its deadline passed");
    assert!(cleared.load(std::sync::atomic::Ordering::Acquire));
    assert_eq!((error.kind, error.next.as_slice()), (Kind::Timeout, &["rm it".to_string()][..]));
    assert!(error.why.ends_with("; a part of it is left"), "{error}");
}

#[test]
fn a_refusal_names_the_flag_it_lacks() {
    let (_dir, gate) = gate(Mode::Apply, true, &[]);
    let error = gate.authorize(&[effect(&CHANGE).intended(), effect(&DESTROY).intended()]).expect_err("refused");
    assert!(error.why.contains("--allow test.destroy") && !error.why.contains("--yes"), "{}", error.why);
    assert!(error.why.contains("what is lost: 47"), "{}", error.why);
}

#[test]
fn an_authorized_plan_covers_its_effects_and_nothing_else() {
    let (_dir, gate) = gate(Mode::Apply, true, &["test.destroy"]);
    gate.authorize(&[effect(&CHANGE).intended()]).expect("agreed");
    gate.perform(&effect(&CHANGE), |_| ok()).expect("agreed to by the flag");
    gate.perform(&effect(&DESTROY), |_| ok()).expect("allowed by the flag");
    gate.forget_consent();
    assert!(gate.run.borrow().consent.is_empty());
}

#[test]
fn consent_to_lose_one_thing_is_not_consent_to_lose_another() {
    let (_dir, gate) = gate(Mode::Apply, false, &[]);
    gate.consent(&[effect(&DESTROY).intended(), effect(&CHANGE).intended()], "a test");
    gate.perform(&effect(&DESTROY), |_| ok()).expect("47 was agreed to");
    gate.perform(&effect(&DESTROY), |_| ok()).expect_err("agreed to once");
    let more = Effect { lost: Some("46".into()), ..effect(&DESTROY) };
    gate.perform(&more, |_| ok()).expect_err("46 was not");
    let worse = Effect { class: Class::Destroy, lost: Some("db".into()), ..effect(&CHANGE) };
    gate.perform(&worse, |_| ok()).expect_err("a change was agreed to, not this");
}

#[test]
fn consent_to_one_call_is_consent_to_no_other() {
    let (_dir, gate) = gate(Mode::Apply, false, &[]);
    let call = |words: &str| json!({ "on": null, "args": [[words]] });
    let effect = |words: &str| Effect { call: call(words), args: json!({ "words": words }), ..effect(&CHANGE) };
    let perform = |effect: &Effect| gate.perform(effect, |_| ok()).map(drop).map_err(|error| error.kind);
    gate.consent(&[effect("uptime").intended()], "a test");
    assert_eq!(perform(&effect("reboot")), Err(Kind::Refused), "other arguments");
    let elsewhere = Target { name: "other".into(), protected: true };
    assert_eq!(perform(&Effect { target: elsewhere, ..effect("uptime") }), Err(Kind::Refused), "another target");
    assert_eq!(perform(&effect("uptime")), Ok(()));
    assert!(perform(&effect("uptime")).is_err(), "agreed to once");
}

#[test]
fn of_two_calls_that_are_alike_one_consent_covers_one() {
    let (_dir, gate) = gate(Mode::Apply, false, &[]);
    gate.consent(&[effect(&CHANGE).intended()], "a test");
    let two = gate.perform_all(&[effect(&CHANGE), effect(&CHANGE)], ALL, |_, _| ok());
    assert!(two.iter().all(|one| one.is_err()), "nobody agreed to the second");
}

#[test]
fn what_policy_lets_pass_is_no_consent_to_keep() {
    let (_dir, gate) = gate(Mode::Apply, true, &[]);
    gate.authorize(&[effect(&CHANGE).intended()]).expect("--yes");
    assert!(gate.run.borrow().consent.is_empty());
    assert!(!gate.has_shown("prod", "undo()"), "nobody saw its inverse");
}

#[test]
fn an_inverse_that_a_person_saw_is_agreed_to_until_the_next_line() {
    let (_dir, gate) = gate(Mode::Apply, false, &[]);
    gate.consent(&[effect(&CHANGE).intended()], "a test");
    assert!(
        gate.has_shown("prod", "undo()") && !gate.has_shown("other", "undo()") && !gate.has_shown("prod", "redo()")
    );
    gate.forget_consent();
    assert!(!gate.has_shown("prod", "undo()"));
}

#[test]
fn a_look_beforehand_does_not_use_up_the_consent() {
    let (_dir, gate) = gate(Mode::Apply, false, &[]);
    gate.consent(&[effect(&CHANGE).intended()], "a test");
    let look = Effect { class: Class::Read, ..effect(&CHANGE) };
    gate.perform(&look, |_| ok()).expect("a read");
    gate.perform(&effect(&CHANGE), |_| ok()).expect("still agreed to");
    let error = gate.perform(&effect(&CHANGE), |_| ok()).expect_err("agreed to once");
    assert!(error.why.contains("before it this run did: test.change backend"), "{}", error.why);
    assert_eq!(error.kind.exit_code(), 1, "3 promises that nothing changed");
}

#[test]
fn plan_mode_reads_prints_changes_and_waits_for_nothing() {
    let (_dir, gate) = gate(Mode::Plan, false, &[]);
    assert!(matches!(gate.perform(&effect(&WAIT), |_| ok()), Ok(Done::Did(..))), "nothing was skipped yet");
    assert!(matches!(gate.perform(&effect(&CHANGE), |_| async { unreachable!() }), Ok(Done::Skipped)));
    assert!(matches!(gate.perform(&effect(&READ), |_| ok()), Ok(Done::Did(..))));
    assert!(matches!(gate.perform(&effect(&WAIT), |_| async { unreachable!() }), Ok(Done::Skipped)));
    assert!(!kinds(&gate).contains(&"effect.begin".to_string()));
}

#[test]
fn every_end_has_its_outcome() {
    let (_dir, gate) = gate(Mode::Apply, true, &[]);
    let slow = Effect { deadline: Duration::from_millis(10), ..effect(&CHANGE) };
    let never = |pass: Pass| async move {
        pass.asking();
        std::future::pending::<Result<Did>>().await
    };
    let timeout = gate.perform(&slow, never).expect_err("late");
    assert_eq!(timeout.kind, Kind::Unknown, "a change that we stopped waiting for is not a failure");
    assert!(timeout.why.contains("may have happened"), "{}", timeout.why);
    let lost = gate.perform(&effect(&CHANGE), |_| async { Err(Error::new(Kind::Unknown, "x", "y")) });
    assert_eq!(lost.expect_err("lost").kind, Kind::Unknown);
    let bug = gate.perform(&effect(&CHANGE), |_| async { panic!("planted by a test") });
    assert_eq!(bug.expect_err("panicked").kind, Kind::Unknown);
    let outcomes: Vec<Value> = gate
        .journal()
        .expect("open")
        .run("last")
        .expect("read")
        .iter()
        .filter(|entry| entry.kind == "effect.end")
        .map(|entry| entry.body["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["timeout", "unknown", "unknown"]);
}

#[test]
fn a_change_that_was_stopped_before_anything_was_sent_has_not_happened() {
    let (_dir, gate) = gate(Mode::Apply, true, &[]);
    let slow = Effect { deadline: Duration::from_millis(10), ..effect(&CHANGE) };
    let refused = gate.perform(&slow, |_| std::future::pending::<Result<Did>>()).expect_err("late");
    assert_eq!(refused.kind, Kind::Unreachable);
    assert_eq!(refused.why, "not sent within 0 s; it has not happened");
    assert!(refused.next.is_empty(), "there is nothing to look at: {:?}", refused.next);
    let looked = |pass: Pass| async move {
        pass.asking();
        std::future::pending::<Result<Did>>().await
    };
    // A read has done nothing, however far it came.
    let read = Effect { deadline: Duration::from_millis(10), ..effect(&READ) };
    assert_eq!(gate.perform(&read, looked).expect_err("late").kind, Kind::Timeout);
    let journal = gate.journal().expect("open");
    assert!(journal.unsettled().expect("read").is_empty());
    let story = journal.story(&gate.run_id()).expect("read");
    assert!(matches!(story.changes[0].fate, Fate::DidNot(_)), "{:?}", story.changes[0].fate);
    let end = |came| settle(&slow, Ended::Interrupted, came);
    assert_eq!(
        (end(Came::Nowhere).0, end(Came::Looked).0, end(Came::Sent).0),
        ("failed", "interrupted", "interrupted")
    );
    assert_eq!(end(Came::Nowhere).1.expect_err("stopped").kind, Kind::Interrupted, "the script stops all the same");
}

#[test]
fn a_link_lost_after_sending_means_that_it_may_have_happened() {
    let (_dir, gate) = gate(Mode::Apply, true, &[]);
    let lost = || Err(Error::new(Kind::Unreachable, "x", "the link is gone"));
    let before = gate.perform(&effect(&CHANGE), |_| async move { lost() }).expect_err("lost");
    assert_eq!(before.kind, Kind::Unreachable, "nothing was sent");
    let after = gate.perform(&effect(&CHANGE), |pass| async move {
        pass.sending();
        lost()
    });
    assert_eq!(after.expect_err("lost").kind, Kind::Unknown);
    let read = gate.perform(&effect(&READ), |_| async { Err(Error::new(Kind::Unknown, "x", "y")) });
    assert_eq!(read.expect_err("lost").kind, Kind::Unreachable, "a read did nothing");
    assert_eq!(gate.journal().expect("open").unsettled().expect("read").len(), 1);
}

#[test]
fn without_a_journal_reads_go_on_and_changes_do_not() {
    let screen = Rc::new(Screen::new(Options { json: false, color: false, terminal: false, width: 80 }));
    let file = tempfile::NamedTempFile::new().expect("a file");
    let broken = Ledger::open(&file.path().join("no-folder"), false, &screen);
    let grants = Grants { yes: true, allow: Vec::new(), under: Vec::new() };
    let gate = Gate::new(Mode::Apply, grants, broken, screen).expect("a gate");
    gate.begin_run("test", Value::Null).expect("a run");
    assert!(matches!(gate.perform(&effect(&READ), |_| ok()), Ok(Done::Did(..))));
    let error =
        gate.perform(&effect(&CHANGE), |_| async { unreachable!("no record, no change") }).expect_err("refused");
    assert_eq!(error.kind, Kind::Journal);
}

fn on(name: &str, verb: &'static Verb) -> Effect {
    Effect { target: Target { name: name.into(), protected: false }, ..effect(verb) }
}

#[test]
fn a_change_of_many_goes_to_the_first_then_to_batches_and_not_past_a_failure() {
    let (_dir, gate) = gate(Mode::Apply, true, &[]);
    let effects: Vec<Effect> = ["a", "b", "c", "d", "e"].map(|name| on(name, &CHANGE)).to_vec();
    let work = |at, _| async move { if at == 1 { Err(Error::new(Kind::Failed, "x", "y")) } else { ok().await } };
    let results = gate.perform_all(&effects, 2, work);
    let tried: Vec<bool> = results.iter().map(|one| !matches!(one, Err(error) if is_not_tried(error))).collect();
    assert_eq!(tried, [true, true, true, false, false], "a alone, then b and c");
    assert!(results[2].is_ok() && results[1].is_err());
    let (begin, end) = ("effect.begin", "effect.end");
    let kinds = kinds(&gate);
    let effects: Vec<&String> = kinds.iter().filter(|kind| kind.starts_with("effect.")).collect();
    assert_eq!(effects, [begin, end, begin, begin, end, end]);
}

#[test]
fn what_goes_on_is_counted_and_the_late_ones_are_named() {
    let effects: Vec<Effect> = ["a", "b", "c", "d", "e", "f"].map(|name| on(name, &READ)).to_vec();
    let mut results: Vec<Option<Result<Done>>> = effects.iter().map(|_| None).collect();
    assert_eq!(label(&effects[..1], &results[..1]), "test.read  a  backend");
    results[1] = Some(Ok(Done::Skipped));
    assert_eq!(label(&effects, &results), "test.read  1/6 done, waiting for a, c, d and 2 more");
    let mixed = [on("a", &READ), on("b", &WAIT)];
    assert_eq!(label(&mixed, &results[2..4]), "batch  0/2 done, waiting for test.read a, test.wait b");
}

#[test]
fn reads_beside_a_run_wait_for_nobody_and_are_recorded_in_a_run_that_is_none_of_a_persons() {
    let (_dir, gate) = gate(Mode::Observe, false, &[]);
    let work = |at: usize, pass: Pass| async move {
        assert!(!pass.is_watched());
        if at == 1 {
            std::future::pending::<()>().await;
        }
        ok().await
    };
    let mut reads = gate.begin_beside("names", vec![effect(&READ)], work).expect("begun");
    assert!(reads.has_ended_within(Duration::from_secs(60)));
    assert_eq!(gate.end_beside(reads).len(), 1);
    let mut reads = gate.begin_beside("names", vec![effect(&READ), effect(&READ)], work).expect("begun");
    assert!(!reads.has_ended(), "one of them never ends");
    // What a person does meanwhile has its own record and consent.
    gate.perform(&effect(&READ), |_| ok()).expect("performed");
    assert!(gate.end_beside(reads)[1].is_none());
    let journal = gate.journal().expect("open");
    let records = journal.beside().expect("read");
    let written: Vec<&str> = records.iter().map(|record| record.kind.as_str()).collect();
    assert_eq!(written, ["system.start", "effect.read", "system.start", "effect.read", "effect.read"]);
    assert_eq!((&records[1].body["outcome"], &records[4].body["outcome"]), (&json!("ok"), &json!("interrupted")));

    assert_eq!(kinds(&gate), ["run.start", "effect.read"]);
    assert_eq!(journal.runs(9).expect("read").len(), 1);
    assert!(journal.unsettled().expect("read").is_empty());
    assert_eq!(journal.run(&records[0].run).expect_err("it is exported to nobody").kind, Kind::NotFound);
    journal.verify().expect("whole");
}

#[test]
fn beside_a_run_nothing_is_changed_and_nothing_read_that_cannot_be_recorded() {
    let (dir, gate) = gate(Mode::Apply, true, &["test.destroy"]);
    let never = |_, _| async { panic!("it was begun") };
    assert!(gate.begin_beside("names", vec![effect(&READ), effect(&CHANGE)], never).is_none());
    without_journal(&dir, || {
        gate.note("line", json!({}));
        assert!(gate.begin_beside("names", vec![effect(&READ)], never).is_none());
    });
    assert!(gate.journal().expect("open").beside().expect("read").is_empty());
}
