//! The values that are known to be secret, and the tags that stand for values on the screen.

use super::forms;
use super::needles::Matcher;
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// So many digits in a longer number are no chance.
const TELLING_DIGITS: usize = 9;

/// Bytes of values that are only taken for secrets. Each byte takes about 2 KiB in all the forms that are looked for.
const MOST_GUESSED: usize = 128 << 10;

/// Tags kept of values that only their shape gave away; the oldest go first, so that no output fills the memory.
const MOST_TAGS: usize = 1_000;

/// Values and tags of this process.
pub struct Known {
    salt: [u8; 16],
    values: BTreeSet<Arc<str>>,
    /// Bytes of the values that are only taken for secrets.
    guessed: usize,
    needles: Vec<(String, Arc<str>)>,
    /// The values that are numbers, by their plain text.
    numbers: BTreeMap<String, Arc<str>>,
    /// Built when it is next needed: a thousand values learned at once are one automaton, not a thousand.
    matcher: Option<Option<Arc<Matcher>>>,
    tags: BTreeMap<String, Arc<str>>,
    tag_of: HashMap<Arc<str>, String>,
    /// Values in `tag_of` that are not in `values`, oldest first.
    passing: VecDeque<Arc<str>>,
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// The list, locked.
pub struct Guard(MutexGuard<'static, Known>);

/// The list; `None` for a panic that happens while this very thread holds it.
pub fn known() -> Option<Guard> {
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(|| Mutex::new(Known::new()));
    if INSIDE.get() {
        return None;
    }
    // A panic while the lock was held leaves a usable list: hiding goes on.
    let guard = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    INSIDE.set(true);
    Some(Guard(guard))
}

impl Drop for Guard {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

impl Deref for Guard {
    type Target = Known;
    fn deref(&self) -> &Known {
        &self.0
    }
}

impl DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut Known {
        &mut self.0
    }
}

impl Known {
    fn new() -> Known {
        let mut salt = [0; 16];
        // Without randomness the tags are only guessable, the values stay hidden.
        let _ = getrandom::fill(&mut salt);
        Known {
            salt,
            values: BTreeSet::new(),
            guessed: 0,
            needles: Vec::new(),
            numbers: BTreeMap::new(),
            matcher: None,
            tags: BTreeMap::new(),
            tag_of: HashMap::new(),
            passing: VecDeque::new(),
        }
    }

    /// Tags are made from `salt` from now on; those given out before are forgotten.
    pub fn salt_with(&mut self, seed: &[u8]) {
        let digest = Sha256::new().chain_update(b"opsh tags\0").chain_update(seed).finalize();
        self.salt.copy_from_slice(&digest[..16]);
        self.tags.clear();
        self.tag_of.clear();
        self.passing.clear();
    }

    /// As [`Known::learn`], for a value that is only taken for a secret. False when there is no room for it: whoever writes an
    /// environment would fill the memory.
    #[must_use]
    pub fn guess(&mut self, value: &str) -> bool {
        let is_known = self.values.contains(value);
        let has_room = is_known || self.guessed + value.len() <= MOST_GUESSED;
        if has_room && !is_known {
            self.guessed += value.len();
            self.learn(value);
        }
        has_room
    }

    /// Looks for the value and its encodings from now on.
    pub fn learn(&mut self, value: &str) {
        let value: Arc<str> = value.into();
        if !self.values.insert(Arc::clone(&value)) {
            return;
        }
        if let Some(number) = plain_number(value.trim()) {
            self.numbers.insert(number, Arc::clone(&value));
        }
        self.needles.extend(forms::of(&value).into_iter().map(|form| (form, Arc::clone(&value))));
        self.matcher = None;
        self.passing.retain(|passing| *passing != value);
    }

    /// The known value that a number is, by its text: `8061399` is also `-8061399`, `8061399.0` and `008061399`. A value of
    /// nine digits or more is found within a longer number, too; of fewer, that would be chance.
    pub fn number(&self, text: &str) -> Option<Arc<str>> {
        if self.numbers.is_empty() {
            return None;
        }
        let text = plain_number(text)?;
        let within = || {
            let long = |number: &&String| number.len() >= TELLING_DIGITS && text.contains(number.as_str());
            let most = text.len() > TELLING_DIGITS;
            self.numbers.keys().find(|number| most && long(number))
        };
        self.numbers.get(&text).or_else(|| self.numbers.get(within()?)).cloned()
    }

    /// What to look for, as of now.
    pub fn matcher(&mut self) -> Option<Arc<Matcher>> {
        self.matcher.get_or_insert_with(|| Matcher::new(&self.needles).map(Arc::new)).clone()
    }

    /// `•••#3f9a`: the same for equal values, and longer where two values would share it.
    pub fn mark(&mut self, value: &str) -> String {
        let tag = match self.tag_of.get(value) {
            Some(tag) => tag.clone(),
            None => self.new_tag(value.into()),
        };
        format!("•••#{tag}")
    }

    fn new_tag(&mut self, value: Arc<str>) -> String {
        let digest = Sha256::new().chain_update(self.salt).chain_update(value.as_bytes()).finalize();
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let free = (4..=digits.len()).step_by(2).map(|length| &digits[..length]);
        let tag = free.into_iter().find(|tag| !self.tags.contains_key(*tag)).unwrap_or(&digits).to_string();
        if !self.values.contains(&value) {
            self.passing.push_back(Arc::clone(&value));
        }
        if self.passing.len() > MOST_TAGS
            && let Some(oldest) = self.passing.pop_front()
            && let Some(tag) = self.tag_of.remove(&oldest)
        {
            self.tags.remove(&tag);
        }
        self.tags.insert(tag.clone(), Arc::clone(&value));
        self.tag_of.insert(value, tag.clone());
        tag
    }

    /// The value behind a tag that was shown.
    pub fn behind(&self, tag: &str) -> Option<Arc<str>> {
        self.tags.get(tag).cloned()
    }

    /// Tags that were shown, in order.
    pub fn tags(&self) -> Vec<String> {
        self.tags.keys().cloned().collect()
    }
}

/// A number without its sign, zeros before it, and an empty fraction; `None` for what is no number in digits.
fn plain_number(text: &str) -> Option<String> {
    let whole = match text.parse::<f64>() {
        // Ten to the power of something is written out as far as a float is exact.
        Ok(number) if text.contains(['e', 'E']) && number.fract() == 0.0 && number.abs() < 9e15 => {
            format!("{number:.0}")
        }
        _ => text.to_string(),
    };
    let digits = whole.trim_start_matches(['-', '+']).trim_start_matches('0');
    let digits = digits
        .split_once('.')
        .map_or(digits, |(whole, rest)| if rest.bytes().all(|b| b == b'0') { whole } else { digits });
    let is_number = digits.len() >= super::SHORTEST
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && digits.matches('.').count() < 2;
    is_number.then(|| digits.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeded() -> Known {
        let mut known = Known::new();
        known.salt_with(b"seed");
        known
    }

    #[test]
    fn guesses_have_bounded_room_and_declared_secrets_have_not() {
        let mut known = seeded();
        known.guessed = MOST_GUESSED - 60;
        let learned = (0..5).map(|n| known.guess(&format!("taken-for-a-secret-{n:08}"))).collect::<Vec<_>>();
        assert_eq!(learned, [true, true, false, false, false]);
        assert!(known.guess("taken-for-a-secret-00000000"), "it is known");
        known.learn("declared-by-the-operator");
        assert!(known.values.contains("declared-by-the-operator"));
    }

    #[test]
    fn a_tag_means_one_value_and_is_longer_where_two_would_share_it() {
        let mut known = seeded();
        let values: Vec<String> = (0..900).map(|at| format!("value-{at}")).collect();
        let marks: BTreeSet<String> = values.iter().map(|value| known.mark(value)).collect();
        assert_eq!(marks.len(), values.len());
        assert!(marks.iter().any(|mark| mark.len() > "•••#3f9a".len()), "900 values share some of 65,536 tags");
        for value in &values {
            let mark = known.mark(value);
            assert_eq!(known.behind(mark.trim_start_matches("•••#")).as_deref(), Some(value.as_str()));
        }
    }

    #[test]
    fn equal_seeds_give_equal_tags_and_others_do_not() {
        let mut other = Known::new();
        other.salt_with(b"other");
        assert_eq!(seeded().mark("hunter2-x"), seeded().mark("hunter2-x"));
        assert_ne!(seeded().mark("hunter2-x"), other.mark("hunter2-x"));
    }

    #[test]
    fn tags_of_passing_values_are_bounded_and_those_of_known_ones_stay() {
        let mut known = seeded();
        known.learn("a-known-value");
        let mark = known.mark("a-known-value");
        for at in 0..3 * MOST_TAGS {
            known.mark(&format!("passing-{at}"));
        }
        assert!(known.tags.len() <= MOST_TAGS + 1 && known.tag_of.len() == known.tags.len());
        assert!(known.behind(mark.trim_start_matches("•••#")).is_some());
    }

    #[test]
    fn thousands_of_values_are_learned_at_once_and_found() {
        let mut known = seeded();
        for at in 0..3_000 {
            known.learn(&format!("value-number-{at}-of-many"));
        }
        assert!(known.matcher.is_none(), "nothing was built for them one by one");
        assert!(known.matcher().is_some());
    }
}
