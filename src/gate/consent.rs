//! Consent: what is asked, once for a whole plan, and what is refused with the flag that it lacks.

use super::agreed::{self, Agreed, Path};
use super::policy::{self, Decision, Facts, Mode, Reason};
use super::verb::{Class, Verb};
use super::{Effect, Gate, Left, Target, Undoing};
use crate::error::{Error, Kind, Result};
use crate::interrupt;
use crate::screen::Mark;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// An effect that a plan names before anything is done: a call that its verb prepared.
#[derive(Clone, Debug)]
pub struct Intended {
    /// The verb.
    pub verb: &'static Verb,
    /// Its class with these arguments.
    pub class: Class,
    /// Where.
    pub target: Target,
    /// As a person reads it.
    pub says: String,
    /// Further words of the question.
    pub aside: Option<String>,
    /// What is lost.
    pub lost: Option<String>,
    /// What is lost comes back whole when this is undone.
    pub returns: bool,
    /// The call: receiver and arguments.
    pub call: Value,
    /// Arguments that are not known yet.
    pub later: Vec<Path>,
    /// Arguments as they are recorded.
    pub args: Value,
    /// The recorded arguments are known, and part of what is agreed to.
    pub is_exact: bool,
    /// The line that takes it back.
    pub inverse: Option<String>,
    /// Whoever else has the lock of the stack.
    pub other: Option<Other>,
}

/// Somebody else who works on a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Their name, in one word that can be typed.
    pub by: String,
    /// Who, what, since when, for a person.
    pub words: String,
    /// Name of the stack.
    pub stack: String,
    /// The fence in their lock.
    pub fence: String,
}

impl Other {
    /// Whether it is the same lock, still: a name that was typed is no consent to work under that of the next one.
    pub fn is_same(&self, other: &Other) -> bool {
        self.by == other.by && self.fence == other.fence
    }
}

/// What the command line agreed to.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// `--yes`: changes.
    pub yes: bool,
    /// `--allow VERB`: these destroys.
    pub allow: Vec<String>,
    /// `--under-lock-of HOLDER`: changes although this one has the lock.
    pub under: Vec<String>,
}

/// What is to be done with an effect that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// Perform it.
    Go,
    /// Print it: plan mode.
    Skip,
    /// It waits for, or judges, what was skipped: plan mode.
    WouldLook,
}

impl Gate {
    /// Decides all effects of one call before the first of them: one refusal refuses all, one question asks for all.
    pub(super) fn admit(&self, effects: &[Effect]) -> Result<Vec<Admitted>> {
        let would_look = |effect: &Effect| effect.verb.waits && self.is_beyond_plan(&effect.target.name);
        let intended: Vec<Intended> = effects.iter().map(Effect::intended).collect();
        // Policy refuses no read.
        if intended.iter().any(|one| one.class != Class::Read)
            && let Some(error) = self.recorded_refusal(&intended)
        {
            return Err(error);
        }
        // Of two that are alike, one consent covers one.
        let mut agreed = self.run.borrow().consent.clone();
        let decide = |(one, effect): (&Intended, &Effect)| {
            let consented = agreed::take(&mut agreed, one) || self.run.borrow().takes_back(effect);
            self.decide_with(one, consented)
        };
        let decided: Vec<Decision> = intended.iter().zip(effects).map(decide).collect();
        self.refuse_any(&intended, &decided)?;
        let asking = intended.iter().zip(&decided).filter(|(_, decision)| decision.asks());
        let (asking, how): (Vec<Intended>, Vec<Decision>) = asking.map(|(one, how)| (one.clone(), *how)).unzip();
        if !asking.is_empty() {
            self.ask(&asking, &how)?;
        }
        intended.iter().for_each(|one| self.use_up(one));
        let admitted = |(effect, decision): (&Effect, &Decision)| match decision {
            Decision::Skip => Admitted::Skip,
            _ if would_look(effect) => Admitted::WouldLook,
            _ => Admitted::Go,
        };
        Ok(effects.iter().zip(&decided).map(admitted).collect())
    }

    fn refuse_any(&self, plan: &[Intended], decided: &[Decision]) -> Result<()> {
        let refused: Vec<(Intended, Reason)> = plan
            .iter()
            .zip(decided)
            .filter_map(|(one, decision)| match decision {
                Decision::Refuse(reason) => Some((one.clone(), *reason)),
                _ => None,
            })
            .collect();
        if refused.is_empty() { Ok(()) } else { Err(self.refused(plan, self.refusal(&refused))) }
    }

    /// Notes a no, with the error that the script gets.
    fn refused(&self, plan: &[Intended], error: Error) -> Error {
        let mut body = json!({ "given": false, "why": error.why, "plan": in_words(plan), "error": error.to_json() });
        body["calls"] = json!(true);
        self.note("consent", body);
        error
    }

    /// In a replay: the no of then, if it was one.
    fn recorded_refusal(&self, plan: &[Intended]) -> Option<Error> {
        // A rehearsal asks nobody: the no is that to what followed it.
        let rehearses = self.mode() == Mode::Plan;
        if plan.is_empty() || rehearses || self.fault_before(self.run.borrow().effects).is_some() {
            return None;
        }
        let refused = self.recording.as_ref()?.consent(plan, &in_words(plan))?;
        self.note("consent", json!({ "given": false, "why": refused.why, "plan": in_words(plan), "calls": true }));
        Some(refused)
    }

    pub(super) fn decide_with(&self, one: &Intended, consented: bool) -> Decision {
        policy::decide(Facts {
            mode: self.mode(),
            class: one.class,
            protected: one.target.protected,
            // What was done then was agreed to then, and what was not comes as a refusal of the recording.
            consented: self.recording.is_some() || consented,
            terminal: self.screen.options().terminal,
            yes: self.grants.yes,
            allowed: self.grants.allow.iter().any(|allowed| allowed == one.verb.name),
            locked: one.other.is_some() && self.recording.is_none(),
            named: one.other.as_ref().is_some_and(|other| self.has_named(&one.target.name, &other.by)),
        })
    }

    /// True when a person, or the command line, named the holder of this stack's lock in this run.
    fn has_named(&self, target: &str, by: &str) -> bool {
        let typed = self.run.borrow().named.contains(&(target.to_string(), by.to_string()));
        typed || self.grants.under.iter().any(|name| name == by)
    }

    /// Says whose locks these effects come under, each once.
    fn say_others(&self, plan: &[Intended]) {
        let mut said: Vec<&str> = Vec::new();
        for other in plan.iter().filter_map(|one| one.other.as_ref()) {
            if !said.contains(&other.words.as_str()) {
                said.push(&other.words);
                self.screen.warn(&other.words);
            }
        }
    }

    fn use_up(&self, one: &Intended) {
        // A look that a changing verb takes beforehand is not the change that was agreed to.
        if one.class == Class::Read {
            return;
        }
        agreed::take(&mut self.run.borrow_mut().consent, one);
    }

    /// Decides a whole plan before its first change: refused effects stop it, the rest is asked for in one question. What
    /// was agreed to before does not count: each call of a plan is agreed to for itself.
    pub fn authorize(&self, plan: &[Intended]) -> Result<()> {
        if let Some(error) = self.recorded_refusal(plan) {
            return Err(error);
        }
        let decided: Vec<Decision> = plan.iter().map(|one| self.decide_with(one, false)).collect();
        self.refuse_any(plan, &decided)?;
        if decided.iter().any(|decision| decision.asks()) {
            return self.ask(plan, &decided);
        }
        if self.mode() == Mode::Apply {
            // Policy decides again at each call: what it lets pass needs no consent to be kept.
            self.note_consent(plan, "command line or sandbox");
        }
        Ok(())
    }

    /// Agrees to these effects, each once, and to the inverses that were shown with them, in the name of `by`.
    pub fn consent(&self, plan: &[Intended], by: &str) {
        let shown = plan.iter().filter_map(|one| Some((one.target.name.clone(), one.inverse.clone()?)));
        self.run.borrow_mut().shown.extend(shown);
        self.run.borrow_mut().consent.extend(plan.iter().map(Agreed::to));
        self.note_consent(plan, by);
    }

    fn note_consent(&self, plan: &[Intended], by: &str) {
        self.note("consent", json!({ "given": true, "by": by, "plan": in_words(plan), "calls": true }));
    }

    /// True when a person saw this inverse before agreeing to its effect.
    pub fn has_shown(&self, target: &str, inverse: &str) -> bool {
        self.run.borrow().shown.iter().any(|(of, line)| of == target && line == inverse)
    }

    /// One question for the whole plan. The default is no. `decided` says how each of it is asked for.
    fn ask(&self, plan: &[Intended], decided: &[Decision]) -> Result<()> {
        self.say_others(plan);
        for one in plan {
            let undo = one.inverse.as_ref().filter(|_| one.verb.takes_inverse()).map(|line| format!("undo: {line}"));
            let hidden = one.inverse.as_deref().and_then(super::hidden_inverse);
            let besides =
                one.aside.iter().chain(&undo).chain(&hidden).map(|text| format!("   {text}")).collect::<String>();
            self.screen.effect(Mark::Would, one.verb.name, &one.target.name, &format!("{}{besides}", one.says));
        }
        let asked = |(one, how): (_, &Decision)| how.asks_lost().then_some(one);
        let losing: Vec<&Intended> = plan.iter().zip(decided).filter_map(asked).collect();
        let lost: Vec<&str> = losing.iter().copied().map(Intended::named_loss).collect();
        let for_good = if losing.iter().all(|one| one.returns) {
            "It is lost until this is undone"
        } else {
            "This cannot be undone"
        };
        let mut named = holders(plan, decided);
        let holds = named.iter().map(|(_, by)| by.as_str()).collect::<BTreeSet<_>>();
        // A name agrees to a change, and to what is lost only together with that.
        let lost: Vec<&str> = holds.into_iter().chain(lost).collect();
        let all = lost.join("; ");
        let typed = if lost.is_empty() { "y" } else { all.as_str() };
        let question = match lost.is_empty() {
            false if losing.is_empty() => {
                format!("Somebody else works there. Type {typed} to go on all the same, or Enter to stop:")
            }
            true => "Do this? y, or Enter to stop:".to_string(),
            false => format!("{for_good}. Type {typed} to go on, or Enter to stop:"),
        };
        let agrees = |answer: &str| parts(answer) == parts(typed) || lost.is_empty() && answer.trim() == "yes";
        let is_no = |answer: &str| ["", "n", "no"].contains(&answer.trim());
        // Who mistypes what is lost is not to look and plan anew. Else everything but a y is no.
        let ask = || {
            // Ctrl-L is pressed where a screen is to be cleared; it is no part of an answer. Any other control character is:
            // a backspace that the terminal does not take for one is behind what was to be struck out.
            self.screen.ask(&question).map(|answer| answer.replace('\u{c}', ""))
        };
        let mistyped = |answer: &Option<String>| {
            let is_other = |answer: &str| !agrees(answer) && !is_no(answer);
            !lost.is_empty() && !interrupt::is_interrupted() && answer.as_deref().is_some_and(is_other)
        };
        let (mut answer, mut more) = (ask(), 2);
        while more > 0 && mistyped(&answer) {
            more -= 1;
            self.screen.warn(&format!("that is not {typed}: asked once more"));
            answer = ask();
        }
        if answer.as_deref().is_some_and(agrees) {
            self.run.borrow_mut().named.append(&mut named);
            self.consent(plan, "person at the terminal");
            return Ok(());
        }
        let interrupted = interrupt::is_interrupted();
        let why = match answer {
            _ if interrupted => "Ctrl-C at the question".to_string(),
            None => "the terminal went away at the question".to_string(),
            Some(answer) if is_no(&answer) => "the answer was no".to_string(),
            Some(answer) => format!("the answer was \"{}\", not \"{typed}\"", answer.trim()),
        };
        let kind = if interrupted { Kind::Interrupted } else { Kind::Refused };
        self.said_no.set(!interrupted && self.run.borrow().begun.is_empty());
        Err(self.refused(plan, self.not_done(kind, "not done", why)))
    }

    /// After Ctrl-C at changes that go on without us: a second question, whose word ends each of them by `end`. Enter,
    /// another Ctrl-C or no terminal leaves them all. The script stops in any case.
    pub fn end_left(&self, end: impl Fn(&Left)) {
        let left = std::mem::take(&mut self.run.borrow_mut().left);
        if left.is_empty() || !self.screen.options().terminal {
            return;
        }
        interrupt::clear();
        for one in &left {
            self.screen.warn(&format!("goes on without us: {}", one.words));
        }
        let attach = format!("opsh attach {} waits for it", self.run_id());
        let answer = self.screen.ask(&format!("Type kill to end it half way, or Enter to leave it ({attach}):"));
        match answer.as_deref().map(str::trim) {
            Some("kill") => left.iter().for_each(end),
            None | Some("") => {}
            Some(other) => self.screen.warn(&format!("\"{other}\" is not kill: it goes on")),
        }
        interrupt::raise();
    }

    /// Why something was not done, and what had been done before it in this run, which is not undone.
    pub(super) fn not_done(&self, kind: Kind, what: &str, why: String) -> Error {
        let run = self.run.borrow();
        if run.begun.is_empty() {
            return Error::new(kind, what, format!("{why}; nothing changed"));
        }
        // Exit code 3 promises that nothing changed.
        let kind = if kind == Kind::Refused { Kind::Unmet } else { kind };
        Error::new(kind, what, format!("{why}; before it this run did: {}", run.begun.join(", ")))
            .next(format!("opsh journal show {}     what was done, and what takes it back", run.id))
    }
}

impl Gate {
    /// What was refused, and what to type instead.
    fn refusal(&self, refused: &[(Intended, Reason)]) -> Error {
        let names: Vec<String> =
            refused.iter().map(|(one, _)| format!("{} on {}", one.verb.name, one.target.name)).collect();
        let what = format!("refused: {}", names.join(", "));
        if self.mode() == Mode::Observe {
            let error = self.not_done(Kind::Refused, &what, "this run only observes".into());
            return error.next("the same line without --observe");
        }
        let mut flags: Vec<String> = Vec::new();
        for (one, reason) in refused {
            let mut reason = *reason;
            if let (Reason::NeedsHolder, Some(other)) = (reason, &one.other) {
                add(&mut flags, format!("--under-lock-of {}", other.by));
                // The flag that is missing besides.
                match self.decide_with(&Intended { other: None, ..one.clone() }, false) {
                    Decision::Refuse(besides) => reason = besides,
                    _ => continue,
                }
            }
            add(
                &mut flags,
                match reason {
                    Reason::NeedsAllow => format!("--allow {}", one.verb.name),
                    _ => "--yes".to_string(),
                },
            );
        }
        let lost: Vec<&str> = refused.iter().filter_map(|(one, _)| one.lost.as_deref()).collect();
        let loses = if lost.is_empty() { String::new() } else { format!("; what is lost: {}", lost.join("; ")) };
        let verb = if flags.len() == 1 { "was" } else { "were" };
        let why = format!("there is no terminal to ask at, and {} {verb} not given{loses}", flags.join(" and "));
        let under = |reason: &Reason| *reason == Reason::NeedsHolder;
        let others: BTreeSet<&str> = refused
            .iter()
            .filter(|(_, reason)| under(reason))
            .filter_map(|(one, _)| Some(one.other.as_ref()?.words.as_str()))
            .collect();
        let why = others.into_iter().map(|words| format!("{words}\n")).collect::<String>() + why.as_str();
        let error = self.not_done(Kind::Refused, &what, why);
        let stacks: BTreeSet<&str> = refused
            .iter()
            .filter(|(_, reason)| under(reason))
            .filter_map(|(one, _)| Some(one.other.as_ref()?.stack.as_str()))
            .collect();
        if stacks.is_empty() {
            // The whole set: the line that is typed next should be the last one.
            let had = self.grants.yes.then(|| "--yes".to_string()).into_iter();
            let had = had.chain(self.grants.allow.iter().map(|name| format!("--allow {name}")));
            let had = had.chain(self.grants.under.iter().map(|name| format!("--under-lock-of {name}")));
            let flags: Vec<String> = had.filter(|flag| !flags.contains(flag)).chain(flags.iter().cloned()).collect();
            return error.next(format!("opsh {} …     agree to it beforehand", flags.join(" ")));
        }
        // While somebody works there, only a look is proposed: the flag stands in the reason.
        stacks.into_iter().fold(error, |error, name| {
            error.next(format!("stack({}).lock()     who works on it, and on what", json!(name)))
        })
    }
}

impl super::Run {
    /// True for an effect of the inverse that was agreed to with the effect it takes back, called by its own text.
    fn takes_back(&self, one: &Effect) -> bool {
        let takes_back = |undoing: &Undoing| {
            let is_own = one.place.as_ref().is_some_and(|place| place.file == undoing.source);
            let is_named = undoing.verbs.contains(&one.verb.name);
            is_own && is_named && undoing.target == one.target.name && one.class <= undoing.class
        };
        self.undoing.as_ref().is_some_and(takes_back)
    }
}

fn add(flags: &mut Vec<String>, flag: String) {
    if !flags.contains(&flag) {
        flags.push(flag);
    }
}

/// The targets whose locks somebody else has, and whoever has them, of the effects that need that name.
fn holders(plan: &[Intended], decided: &[Decision]) -> BTreeSet<(String, String)> {
    let needs = plan.iter().zip(decided).filter(|(_, how)| how.asks_holder());
    needs.filter_map(|(one, _)| Some((one.target.name.clone(), one.other.as_ref()?.by.clone()))).collect()
}

/// What is between commas and semicolons, whatever blanks are around it: `48,47` names what `48, 47` does.
fn parts(typed: &str) -> Vec<&str> {
    typed.split([',', ';']).map(str::trim).collect()
}

impl Effect {
    /// As a plan names it.
    pub fn intended(&self) -> Intended {
        Intended {
            verb: self.verb,
            class: self.class,
            target: self.target.clone(),
            says: self.says.clone(),
            aside: self.aside.clone(),
            lost: self.lost.clone(),
            returns: self.returns,
            call: if self.call.is_null() { json!({ "effect": self.args }) } else { self.call.clone() },
            later: Vec::new(),
            args: self.args.clone(),
            is_exact: true,
            inverse: self.inverse.clone(),
            other: self.other.clone(),
        }
    }
}

impl Intended {
    /// What a person types who agrees to lose it: never nothing, which is what Enter answers.
    fn named_loss(&self) -> &str {
        self.lost.as_deref().map(str::trim).filter(|lost| !lost.is_empty()).unwrap_or("it")
    }

    /// Loss of a destroy. Consent to a change is none to a destroy, whether or not that says what is lost.
    pub(super) fn lost_for_good(&self) -> Option<String> {
        (self.class == Class::Destroy).then(|| self.lost.clone().unwrap_or_default())
    }
}

fn in_words(plan: &[Intended]) -> Vec<String> {
    plan.iter().map(|one| format!("{} {} {}", one.verb.name, one.target.name, one.says)).collect()
}
