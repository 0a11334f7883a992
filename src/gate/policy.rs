//! Who may do what: one pure function, no state, every combination tested.

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
        [Mode::Apply, Mode::Plan, Mode::Observe]
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
    /// Do not perform it.
    Refuse(Reason),
}

impl Decision {
    /// True when a person has to be asked.
    pub fn asks(self) -> bool {
        matches!(self, Decision::AskYes | Decision::AskLost)
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
}

/// The whole policy.
pub fn decide(facts: Facts) -> Decision {
    if facts.class == Class::Read {
        return Decision::Run;
    }
    match facts.mode {
        Mode::Plan => Decision::Skip,
        Mode::Observe => Decision::Refuse(Reason::Observing),
        Mode::Apply if !facts.protected || facts.consented => Decision::Run,
        Mode::Apply => decide_protected(facts),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn every() -> Vec<Facts> {
        let mut all = Vec::new();
        for mode in [Mode::Apply, Mode::Plan, Mode::Observe] {
            for class in [Class::Read, Class::Change, Class::Destroy] {
                for bits in 0..32u8 {
                    let bit = |n: u8| bits & (1 << n) != 0;
                    let (protected, consented, terminal) = (bit(0), bit(1), bit(2));
                    all.push(Facts { mode, class, protected, consented, terminal, yes: bit(3), allowed: bit(4) });
                }
            }
        }
        all
    }

    #[test]
    fn reads_always_run() {
        for facts in every().into_iter().filter(|facts| facts.class == Class::Read) {
            assert_eq!(decide(facts), Decision::Run, "{facts:?}");
        }
    }

    #[test]
    fn nothing_changes_in_plan_or_observe() {
        for facts in every().into_iter().filter(|facts| facts.class != Class::Read) {
            match facts.mode {
                Mode::Plan => assert_eq!(decide(facts), Decision::Skip, "{facts:?}"),
                Mode::Observe => assert_eq!(decide(facts), Decision::Refuse(Reason::Observing), "{facts:?}"),
                Mode::Apply => {}
            }
        }
    }

    #[test]
    fn a_protected_target_needs_consent_of_the_right_kind() {
        for facts in every() {
            if facts.mode != Mode::Apply || facts.class == Class::Read || !facts.protected || facts.consented {
                continue;
            }
            let expected = match (facts.class, facts.terminal, facts.yes, facts.allowed) {
                (Class::Change, _, true, _) => Decision::Run,
                (Class::Change, true, false, _) => Decision::AskYes,
                (Class::Change, false, false, _) => Decision::Refuse(Reason::NeedsYes),
                (_, _, _, true) => Decision::Run,
                (_, true, _, false) => Decision::AskLost,
                (_, false, _, false) => Decision::Refuse(Reason::NeedsAllow),
            };
            assert_eq!(decide(facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn a_sandbox_and_a_consented_effect_run() {
        for facts in every() {
            if facts.mode == Mode::Apply && (!facts.protected || facts.consented) {
                assert_eq!(decide(facts), Decision::Run, "{facts:?}");
            }
        }
    }
}
