//! Who may do what: one pure function, no state; every combination is held to `tests/policy.table`.

use super::verb::Class;
use std::str::FromStr;

/// How effects are treated in this run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Changes are performed, as policy allows.
    #[default]
    Apply,
    /// Changes are printed, not performed.
    Plan,
    /// Changes are refused.
    Observe,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 3] = [Mode::Apply, Mode::Plan, Mode::Observe];

    /// The word in prompt, journal and screen.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Apply => "apply",
            Mode::Plan => "plan",
            Mode::Observe => "observe",
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Mode, String> {
        Mode::ALL
            .into_iter()
            .find(|mode| mode.word() == text)
            .ok_or_else(|| format!("no mode \"{text}\"; known: apply, plan, observe"))
    }
}

/// What is known about one effect when it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Mode of the run.
    pub mode: Mode,
    /// Class of the effect.
    pub class: Class,
    /// The target is not a sandbox.
    pub protected: bool,
    /// A person, or the command line, already agreed to this effect in this run.
    pub consented: bool,
    /// There is a person at a terminal.
    pub terminal: bool,
    /// `--yes` was given.
    pub yes: bool,
    /// `--allow` names this verb.
    pub allowed: bool,
    /// Somebody else has the stack's lock.
    pub locked: bool,
    /// The holder was named: typed in this run, or by `--under-lock-of`.
    pub named: bool,
}

/// What happens with the effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Perform it.
    Run,
    /// Print it instead.
    Skip,
    /// Ask first: a y.
    AskYes,
    /// Ask first: type what is lost.
    AskLost,
    /// Ask first: type the name of whoever has the lock.
    AskHolder,
    /// Ask first: type that name and what is lost.
    AskHolderAndLost,
    /// Do not perform it.
    Refuse(Reason),
}

impl Decision {
    /// True when a person has to be asked.
    pub fn asks(self) -> bool {
        matches!(self, Decision::AskYes) || self.asks_lost() || self.asks_holder()
    }

    /// True when what is lost has to be typed.
    pub fn asks_lost(self) -> bool {
        matches!(self, Decision::AskLost | Decision::AskHolderAndLost)
    }

    /// True when the name of whoever has the lock has to be typed.
    pub fn asks_holder(self) -> bool {
        matches!(self, Decision::AskHolder | Decision::AskHolderAndLost)
    }
}

/// Why an effect is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The run only observes.
    Observing,
    /// Nobody can be asked and `--yes` is missing.
    NeedsYes,
    /// Nobody can be asked and `--allow VERB` is missing.
    NeedsAllow,
    /// Nobody can be asked and `--under-lock-of HOLDER` is missing.
    NeedsHolder,
}

/// The whole policy.
pub fn decide(facts: Facts) -> Decision {
    if facts.class == Class::Read {
        return Decision::Run;
    }
    match facts.mode {
        Mode::Plan => Decision::Skip,
        Mode::Observe => Decision::Refuse(Reason::Observing),
        Mode::Apply if facts.locked && !facts.named => decide_locked(facts),
        Mode::Apply if !facts.protected || facts.consented => Decision::Run,
        Mode::Apply => decide_protected(facts),
    }
}

/// A sandbox and a consent that was given before make no difference: it is a colleague who is put out.
fn decide_locked(facts: Facts) -> Decision {
    match decide(Facts { named: true, ..facts }) {
        _ if !facts.terminal => Decision::Refuse(Reason::NeedsHolder),
        Decision::AskLost => Decision::AskHolderAndLost,
        _ => Decision::AskHolder,
    }
}

fn decide_protected(facts: Facts) -> Decision {
    match (facts.class, facts.terminal) {
        (Class::Destroy, _) if facts.allowed => Decision::Run,
        (Class::Destroy, true) => Decision::AskLost,
        (Class::Destroy, false) => Decision::Refuse(Reason::NeedsAllow),
        (_, _) if facts.yes => Decision::Run,
        (_, true) => Decision::AskYes,
        (_, false) => Decision::Refuse(Reason::NeedsYes),
    }
}
