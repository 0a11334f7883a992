//! Finding known values in a stream: bytes in, bytes out, and nothing held back but what may still become a match.

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};
use std::collections::HashMap;
use std::sync::Arc;

/// An automaton over every form of every known value.
pub struct Matcher {
    automaton: NFA,
    start: StateID,
    /// How many bytes at the end of the text may still become a match, by state.
    depths: HashMap<StateID, u32>,
    /// The value behind each needle.
    values: Vec<Arc<str>>,
}

impl Matcher {
    /// `None` when there is nothing to look for.
    pub fn new(needles: &[(String, Arc<str>)]) -> Option<Matcher> {
        if needles.is_empty() {
            return None;
        }
        // Only a list of gigabytes cannot be built; a sink that hides nothing must not go on silently.
        let automaton = NFA::builder()
            .match_kind(MatchKind::Standard)
            .build(needles.iter().map(|(needle, _)| needle))
            .expect("a few thousand short needles fit");
        let start = automaton.start_state(Anchored::No).expect("the automaton is built for unanchored search");
        let depths = depths(&automaton, start, needles);
        Some(Matcher { automaton, start, depths, values: needles.iter().map(|(_, value)| Arc::clone(value)).collect() })
    }

    /// The longest needle that ends in this state, and the value behind it.
    fn found(&self, state: StateID) -> Option<(usize, &Arc<str>)> {
        let ends = (0..self.automaton.match_len(state)).map(|at| self.automaton.match_pattern(state, at));
        let longest = ends.max_by_key(|needle| (self.automaton.pattern_len(*needle), std::cmp::Reverse(*needle)))?;
        Some((self.automaton.pattern_len(longest), &self.values[longest.as_usize()]))
    }
}

/// A state is one beginning of needles, and every end of it that is one too. The longest of these that is not a whole
/// needle already, with none that goes on from there, is what a match may still come of.
fn depths(automaton: &NFA, start: StateID, needles: &[(String, Arc<str>)]) -> HashMap<StateID, u32> {
    let next = |state, byte: &u8| automaton.next_state(Anchored::No, state, *byte);
    let mut depths = HashMap::from([(start, 0_u32)]);
    for (needle, _) in needles {
        let begun = &needle.as_bytes()[..needle.len() - 1];
        begun.iter().zip(1_u32..).fold(start, |state, (byte, depth)| {
            let state = next(state, byte);
            depths.insert(state, depth);
            state
        });
    }
    // Shorter ones first: a longer one looks up what its end can become.
    let mut whole: Vec<&[u8]> = needles.iter().map(|(needle, _)| needle.as_bytes()).collect();
    whole.sort_by_key(|needle| needle.len());
    for needle in whole {
        let end = needle[1..].iter().fold(start, next);
        let depth = depths.get(&end).copied().unwrap_or(0);
        depths.entry(needle.iter().fold(start, next)).or_insert(depth);
    }
    depths
}

/// Bytes that belong to known values: overlapping ones are hidden together, under the tag of the first.
struct Region {
    start: usize,
    end: usize,
    value: Arc<str>,
    /// The mark was written already; what is still held of it is dropped.
    marked: bool,
}

/// The state of one stream.
#[derive(Default)]
pub struct Needles {
    matcher: Option<Arc<Matcher>>,
    state: Option<StateID>,
    /// The end of what was fed, as far as it may still be part of a match: shorter than the longest needle.
    held: Vec<u8>,
    regions: Vec<Region>,
}

impl Needles {
    /// Takes bytes; what is decided goes to `out`. A value learned in the middle of a stream is looked for from the
    /// next call on, in what is still held as well.
    pub fn feed(
        &mut self,
        matcher: Option<Arc<Matcher>>,
        bytes: &[u8],
        out: &mut Vec<u8>,
        mark: &dyn Fn(&str) -> String,
    ) {
        let mut from = self.held.len();
        self.held.extend_from_slice(bytes);
        if !same(&self.matcher, &matcher) {
            (self.matcher, self.state, from) = (matcher, None, 0);
        }
        let Some(matcher) = self.matcher.clone() else { return self.release(self.held.len(), out, mark) };
        let mut state = self.state.unwrap_or(matcher.start);
        for at in from..self.held.len() {
            state = matcher.automaton.next_state(Anchored::No, state, self.held[at]);
            // Cheap for all states but a few.
            if matcher.automaton.is_special(state)
                && matcher.automaton.is_match(state)
                && let Some((length, value)) = matcher.found(state)
            {
                self.hide(at + 1 - length, at + 1, value);
            }
        }
        self.state = Some(state);
        let live = matcher.depths.get(&state).map_or(0, |depth| *depth as usize);
        self.release(self.held.len() - live, out, mark);
    }

    /// The rest: nothing more will come.
    pub fn end(&mut self, out: &mut Vec<u8>, mark: &dyn Fn(&str) -> String) {
        self.release(self.held.len(), out, mark);
        self.state = None;
    }

    fn hide(&mut self, start: usize, end: usize, value: &Arc<str>) {
        let mut region = Region { start, end, value: Arc::clone(value), marked: false };
        while let Some(last) = self.regions.pop_if(|last| last.end > region.start) {
            region.end = region.end.max(last.end);
            if last.marked || last.start < region.start {
                region = Region { start: last.start.min(region.start), end: region.end, ..last };
            }
        }
        self.regions.push(region);
    }

    /// Writes what stands before `live`, where the match begins that may still come.
    fn release(&mut self, live: usize, out: &mut Vec<u8>, mark: &dyn Fn(&str) -> String) {
        let mut done = 0;
        for region in self.regions.iter_mut().take_while(|region| region.start < live) {
            if !region.marked {
                out.extend_from_slice(&self.held[done..region.start]);
                out.extend_from_slice(mark(&region.value).as_bytes());
                region.marked = true;
            }
            done = region.end.min(live);
        }
        out.extend_from_slice(&self.held[done..live]);
        self.held.drain(..live);
        self.regions.retain(|region| region.end > live);
        for region in &mut self.regions {
            region.start = region.start.saturating_sub(live);
            region.end -= live;
        }
    }
}

fn same(a: &Option<Arc<Matcher>>, b: &Option<Arc<Matcher>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(values: &[&str], chunks: &[&str]) -> (String, Vec<String>) {
        let needles: Vec<_> = values.iter().map(|value| (value.to_string(), Arc::from(*value))).collect();
        let matcher = Matcher::new(&needles).map(Arc::new);
        let mut stream = Needles::default();
        let mut steps = Vec::new();
        let mark = |value: &str| format!("<{value}>");
        for chunk in chunks {
            let mut out = Vec::new();
            stream.feed(matcher.clone(), chunk.as_bytes(), &mut out, &mark);
            steps.push(String::from_utf8(out).expect("text"));
        }
        let mut out = Vec::new();
        stream.end(&mut out, &mark);
        (format!("{}{}", steps.concat(), String::from_utf8_lossy(&out)), steps)
    }

    #[test]
    fn overlapping_values_are_hidden_together() {
        assert_eq!(clean(&["abcdef", "defghi"], &["1 abcdefghi 2"]).0, "1 <abcdef> 2");
        assert_eq!(
            clean(&["inner", "an inner value"], &["an inner value, an inner va"]).0,
            "<an inner value>, an <inner> va"
        );
        assert_eq!(clean(&["hunter", "hunter-long"], &["hunter-", "long hunter-x"]).0, "<hunter-long> <hunter>-x");
    }

    #[test]
    fn only_a_live_beginning_is_held_back() {
        let (text, steps) = clean(&["secret"], &["Password: ", "sec", "ond", " se", "cret", "!"]);
        assert_eq!(text, "Password: second <secret>!");
        assert_eq!(steps, ["Password: ", "", "second", " ", "<secret>", "!"]);
    }

    #[test]
    fn a_repeating_value_does_not_pile_up() {
        let needles = [("abab".to_string(), Arc::from("abab"))];
        let matcher = Matcher::new(&needles).map(Arc::new);
        let (mut stream, mut out) = (Needles::default(), Vec::new());
        for _ in 0..10_000 {
            stream.feed(matcher.clone(), b"abab", &mut out, &|_| "*".into());
            assert!(stream.held.len() <= 4 && stream.regions.len() <= 1);
        }
        stream.end(&mut out, &|_| "*".into());
        assert_eq!(out, b"*");
    }

    #[test]
    fn a_value_learned_in_the_middle_is_found_in_what_is_held() {
        let of = |values: &[&str]| {
            let needles: Vec<_> = values.iter().map(|value| (value.to_string(), Arc::from(*value))).collect();
            Matcher::new(&needles).map(Arc::new)
        };
        let (mut stream, mut out) = (Needles::default(), Vec::new());
        let mark = |value: &str| format!("<{value}>");
        stream.feed(of(&["hunter-one"]), b"a hunter", &mut out, &mark);
        stream.feed(of(&["hunter-one", "hunter-two"]), b"-two b", &mut out, &mark);
        stream.end(&mut out, &mark);
        assert_eq!(String::from_utf8_lossy(&out), "a <hunter-two> b");
    }
}
