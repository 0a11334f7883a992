//! The policy against `tests/policy.table`, which a person reviews: every combination, every verb, through the door. The
//! gate does not know the verbs: `bind/plan.rs` hands them in.

use super::super::policy::{Decision, Reason};
use super::super::*;
use crate::screen::Options;
use std::cell::Cell;
use std::path::PathBuf;

const HOLDER: &str = "alice@mac";
const CLASSES: [Class; 3] = [Class::Read, Class::Change, Class::Destroy];

/// One combination of all that a decision can depend on.
#[derive(Clone, Copy, Debug)]
struct Case {
    mode: Mode,
    class: Class,
    protected: bool,
    terminal: bool,
    yes: bool,
    it: bool,
    other: bool,
    consent: bool,
    lock: Lock,
}

/// Whose lock the stack is under.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lock {
    /// Nobody else's.
    Free,
    /// Somebody else's, who was not named.
    Other,
    /// The name was typed in this run.
    Typed,
    /// The command line named the holder.
    Flag,
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for mode in Mode::ALL {
        for class in CLASSES {
            for bits in 0..64u8 {
                let bit = |n: u8| bits & (1 << n) != 0;
                let (protected, terminal, consent) = (bit(0), bit(1), bit(2));
                for lock in [Lock::Free, Lock::Other, Lock::Typed, Lock::Flag] {
                    let (yes, it, other) = (bit(3), bit(4), bit(5));
                    all.push(Case { mode, class, protected, terminal, yes, it, other, consent, lock });
                }
            }
        }
    }
    all
}

impl Case {
    /// As the columns of the table say it.
    fn words(&self) -> [&'static str; 9] {
        let word = |flag| if flag { "yes" } else { "no" };
        let target = if self.protected { "protected" } else { "sandbox" };
        let [terminal, yes, it, other, consent] =
            [self.terminal, self.yes, self.it, self.other, self.consent].map(word);
        let lock = match self.lock {
            Lock::Free => "free",
            Lock::Other => "other",
            Lock::Typed => "named",
            Lock::Flag => "flag",
        };
        [self.mode.word(), self.class.word(), target, terminal, yes, it, other, consent, lock]
    }

    fn intended(&self, verb: &'static Verb) -> Intended {
        let target = Target { name: "prod".into(), protected: self.protected };
        let lost = (self.class == Class::Destroy).then(|| "47".to_string());
        let other = self.holder();
        Effect { class: self.class, target, lost, inverse: None, other, ..super::effect(verb) }.intended()
    }

    fn holder(&self) -> Option<Other> {
        let (by, words) = (HOLDER.to_string(), format!("LOCKED by {HOLDER}: hotfix, since T"));
        (self.lock != Lock::Free).then_some(Other { by, words, stack: "prod".into(), fence: "f".into() })
    }

    /// Makes a door as this case finds it.
    fn set(&self, gate: &mut Gate, verb: &'static Verb) {
        let screen = Options { json: false, color: false, terminal: self.terminal, width: 80 };
        let it = self.it.then(|| verb.name.to_string());
        let allow = it.into_iter().chain(self.other.then(|| "other.verb".to_string())).collect();
        gate.mode.set(self.mode);
        let under = if self.lock == Lock::Flag { vec![HOLDER.to_string()] } else { Vec::new() };
        gate.grants = Grants { yes: self.yes, allow, under };
        gate.screen = Rc::new(Screen::new(screen));
        gate.forget_consent();
        gate.forget_begun();
        if self.lock == Lock::Typed {
            gate.run.borrow_mut().named.insert(("prod".into(), HOLDER.into()));
        }
        if self.consent {
            gate.consent(&[self.intended(verb)], "a test");
        }
    }

    /// What the door decides.
    fn answer(&self, gate: &mut Gate, verb: &'static Verb) -> &'static str {
        self.set(gate, verb);
        let one = self.intended(verb);
        let agreed = agreed::take(&mut gate.run.borrow().consent.clone(), &one);
        words(gate.decide_with(&one, agreed))
    }
}

/// A door without a journal: nothing is performed.
fn closed() -> Gate {
    let screen = Options { json: false, color: false, terminal: false, width: 80 };
    let screen = Rc::new(Screen::new(screen));
    Gate::new(Mode::Apply, Grants::default(), Ledger::in_memory(&screen), screen).expect("a gate")
}

fn words(decision: Decision) -> &'static str {
    match decision {
        Decision::Run => "run",
        Decision::Skip => "print it",
        Decision::AskYes => "ask for y",
        Decision::AskLost => "ask for what is lost",
        Decision::AskHolder => "ask for the holder",
        Decision::AskHolderAndLost => "ask for the holder and what is lost",
        Decision::Refuse(Reason::NeedsHolder) => "refuse: needs --under-lock-of HOLDER",
        Decision::Refuse(Reason::Observing) => "refuse: this run only observes",
        Decision::Refuse(Reason::NeedsYes) => "refuse: needs --yes",
        Decision::Refuse(Reason::NeedsAllow) => "refuse: needs --allow VERB",
    }
}

/// One line of the table.
struct Line {
    text: String,
    columns: Vec<String>,
    answer: String,
}

impl Line {
    fn parse(text: &str) -> Line {
        let mut columns: Vec<String> = text.split_whitespace().map(String::from).collect();
        let answer = columns.split_off(9.min(columns.len())).join(" ");
        Line { text: text.into(), columns, answer }
    }

    fn holds(&self, case: &Case) -> bool {
        case.words().iter().zip(&self.columns).all(|(is, wants)| wants == "any" || is == wants)
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/policy.table")
}

/// The lines between the headings and the empty line after them.
fn lines(table: &str) -> Vec<Line> {
    let lines = table.lines().skip_while(|line| !line.starts_with("MODE")).skip(1);
    lines.take_while(|line| !line.is_empty()).map(Line::parse).collect()
}

/// The last part: each verb with its class, on which all the rest depends.
fn classes_of(verbs: &[&Verb]) -> String {
    let mut verbs = verbs.to_vec();
    verbs.sort_by_key(|verb| (verb.class, verb.name));
    let lines = verbs.iter().map(|verb| format!("{:8} {}\n", verb.class.word(), verb.name));
    format!("\nCLASS    VERB\n{}", lines.collect::<String>())
}

/// The answer that the table has for a case.
fn tabled<'a>(lines: &'a [Line], case: &Case) -> &'a str {
    let found: Vec<&Line> = lines.iter().filter(|line| line.holds(case)).collect();
    let [line] = found.as_slice() else { panic!("{} lines of the table hold {:?}", found.len(), case.words()) };
    &line.answer
}

/// The table with the answers that the policy gives; a line must be one class of combinations.
fn updated(table: &str, verbs: &[&Verb]) -> String {
    let mut gate = closed();
    let mut text: String = table.split_inclusive('\n').take_while(|line| !line.starts_with("MODE")).collect();
    text += table.lines().find(|line| line.starts_with("MODE")).expect("headings");
    for line in lines(table) {
        let held = cases().into_iter().filter(|case| line.holds(case));
        let answers: BTreeSet<&str> = held.map(|case| case.answer(&mut gate, &super::CHANGE)).collect();
        assert_eq!(answers.len(), 1, "split this line, it has several answers: {}\n{answers:?}", line.text);
        let kept = line.text.strip_suffix(&line.answer).expect("the answer is last");
        text += &format!("\n{kept}{}", answers.first().expect("one"));
    }
    format!("{text}\n{}", classes_of(verbs))
}

/// The file, written anew when that is wanted.
#[expect(clippy::disallowed_methods, reason = "the table is a file that a person reviews")]
fn table(verbs: &[&Verb]) -> String {
    let kept = std::fs::read_to_string(path()).expect("the table");
    if std::env::var_os("UPDATE").is_none() {
        return kept;
    }
    let written = updated(&kept, verbs);
    std::fs::write(path(), &written).expect("written");
    written
}

/// Classes that the effects of a verb may have: a changing one looks beforehand, and may lose data.
fn classes(verb: &Verb) -> &'static [Class] {
    match verb.class {
        Class::Read => &[Class::Read],
        Class::Change => &CLASSES,
        Class::Destroy => &[Class::Read, Class::Destroy],
    }
}

/// Fails unless the table says what happens with each of these verbs, and nothing else.
pub(crate) fn hold(verbs: &[&'static Verb]) {
    let table = table(verbs);
    assert!(
        table.ends_with(&classes_of(verbs)),
        "the verbs of tests/policy.table are others than:{}",
        classes_of(verbs)
    );
    let lines = lines(&table);
    for line in &lines {
        assert!(cases().iter().any(|case| line.holds(case)), "no combination is like this: {}", line.text);
    }
    let mut gate = closed();
    for verb in verbs {
        for case in cases().iter().filter(|case| classes(verb).contains(&case.class)) {
            assert_eq!(case.answer(&mut gate, verb), tabled(&lines, case), "{} {:?}", verb.name, case.words());
        }
    }
    at_the_door(&lines);
}

fn at_the_door(lines: &[Line]) {
    let (_dir, mut gate) = super::gate(Mode::Apply, false, &[]);
    for case in cases() {
        // A question is asked at a terminal: tests/it/asks.rs has one.
        // Another verb's flag and a name that was typed are decided as without a lock.
        let is_told = case.lock != Lock::Free && (case.other || case.lock == Lock::Typed);
        if is_told || tabled(lines, &case).starts_with("ask") {
            continue;
        }
        let verb = [&super::READ, &super::CHANGE, &super::DESTROY][case.class as usize];
        assert_eq!(seen(&case, &mut gate, verb), tabled(lines, &case), "{:?}", case.words());
    }
}

/// What the door did with an effect, as the table words it: from whether the work began, and from what was said.
fn seen(case: &Case, gate: &mut Gate, verb: &'static Verb) -> String {
    case.set(gate, verb);
    let intended = case.intended(verb);
    let effect = Effect {
        class: case.class,
        target: intended.target,
        lost: intended.lost,
        other: intended.other,
        ..super::effect(verb)
    };
    let began = Cell::new(false);
    let done = gate.perform(&effect, |_| {
        began.set(true);
        super::ok()
    });
    assert_eq!(began.get(), matches!(done, Ok(Done::Did(..))), "the work begins only where it is performed");
    match done {
        Ok(Done::Did(..)) => "run".into(),
        Ok(Done::Skipped) => "print it".into(),
        Err(error) if error.kind == Kind::Refused && error.why.contains("only observes") => {
            "refuse: this run only observes".into()
        }
        Err(error) if error.kind == Kind::Refused => {
            let flags = error.next[0].split(" …").next().unwrap_or("").to_string();
            let holder = format!("--under-lock-of {HOLDER}");
            if error.why.contains(&holder) {
                assert!(error.why.contains("LOCKED by"), "{error}");
                return "refuse: needs --under-lock-of HOLDER".into();
            }
            let lacks = |flag: &str| error.why.contains(&format!("{flag} was not given")) && flags.contains(flag);
            match (lacks("--yes"), lacks(&format!("--allow {}", verb.name))) {
                (true, false) => "refuse: needs --yes".into(),
                (false, true) => "refuse: needs --allow VERB".into(),
                _ => format!("refuse: {} {flags}", error.why),
            }
        }
        Err(error) => format!("{error}"),
    }
}
