//! A bound on how deeply a script may nest its values. Rust copies, shows and drops a value level by level, each on the
//! stack: one that is a million levels deep ends the program without a word.

use crate::memory;
use rhai::{Dynamic, Engine, EvalAltResult, FnPtr, Position, Scope};
use std::cell::Cell;
use std::collections::HashMap;

/// Levels of lists, maps and closures within each other.
pub const MOST_LEVELS: usize = 1000;

/// How often a script takes memory until its variables are looked at again, at least: more often where there is much to look
/// at, so that looking takes no more of the time than the script does.
const LOOK_AFTER: usize = 4096;
/// At most. A level takes memory at least once, so a value is never deeper than this and [`MOST_LEVELS`], which the stack of
/// the engine's thread holds three times.
const LOOK_AFTER_AT_MOST: usize = 300_000;

/// Ends a script that nests more deeply. Rhai tells of each use of a variable, and of nothing else that has values.
pub fn watch(engine: &mut Engine) {
    let next = Cell::new(0);
    #[expect(deprecated, reason = "Rhai's word for an interface that may change; the version is pinned")]
    engine.on_var(move |_, _, context| {
        let taken = memory::taken();
        if taken < next.get() {
            return Ok(None);
        }
        let mut look = Look::default();
        let variables = context.scope().iter_raw().map(|(_, _, value)| value);
        let is_deep = context.this_ptr().into_iter().chain(variables).any(|value| look.is_too_deep(value));
        next.set(taken + look.seen.clamp(LOOK_AFTER, LOOK_AFTER_AT_MOST) as u64);
        match is_deep {
            true => Err(EvalAltResult::ErrorDataTooLarge(why(), Position::NONE).into()),
            false => Ok(None),
        }
    });
}

fn why() -> String {
    format!("a value has more than {MOST_LEVELS} levels of lists, maps and closures within each other")
}

/// Names of the variables whose values are nested too deeply.
pub fn too_deep<'a>(scope: &'a Scope<'_>) -> impl Iterator<Item = &'a str> {
    scope.iter_raw().filter(|(_, _, value)| is_too_deep(value)).map(|(name, ..)| name)
}

fn is_too_deep(value: &Dynamic) -> bool {
    Look::default().is_too_deep(value)
}

/// One look at values.
#[derive(Default)]
struct Look {
    /// Values that were seen.
    seen: usize,
    /// Values that closures share, with the levels that were left below them: they may be reached in many ways.
    shared: HashMap<*const (), usize>,
}

impl Look {
    fn is_too_deep(&mut self, value: &Dynamic) -> bool {
        self.goes_beyond(value, MOST_LEVELS)
    }

    fn goes_beyond(&mut self, value: &Dynamic, levels: usize) -> bool {
        self.seen += 1;
        let is_shared = value.is_shared();
        if let Ok(items) = value.as_array_ref() {
            return self.is_new(is_shared, &raw const *items, levels)
                && items.iter().any(|item| levels == 0 || self.goes_beyond(item, levels - 1));
        }
        if let Ok(map) = value.as_map_ref() {
            return self.is_new(is_shared, &raw const *map, levels)
                && map.values().any(|item| levels == 0 || self.goes_beyond(item, levels - 1));
        }
        match value.read_lock::<FnPtr>() {
            Some(closure) => {
                self.is_new(is_shared, &raw const *closure, levels)
                    && closure.iter_curry().any(|item| levels == 0 || self.goes_beyond(item, levels - 1))
            }
            None => false,
        }
    }

    /// False for what is shared and was looked at with no more levels left than now.
    fn is_new<T>(&mut self, is_shared: bool, place: *const T, levels: usize) -> bool {
        if !is_shared {
            return true;
        }
        let known = self.shared.entry(place.cast()).or_insert(usize::MAX);
        let is_new = levels < *known;
        *known = levels.min(*known);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_too_deep_from_one_level_on() {
        let nested = |levels: usize| {
            (0..levels).fold(Dynamic::UNIT, |inner, at| match at % 2 {
                0 => vec![Dynamic::from(1), inner].into(),
                _ => [("x".into(), inner)].into_iter().collect::<rhai::Map>().into(),
            })
        };
        assert!(!is_too_deep(&nested(MOST_LEVELS)));
        assert!(is_too_deep(&nested(MOST_LEVELS + 1)));
        let wide: rhai::Array = (0..100_000).map(Dynamic::from).collect();
        assert!(!is_too_deep(&wide.into()));
        // However much stands before it.
        let mut rows: rhai::Array = (0..100).map(|_| Dynamic::from(vec![Dynamic::from(0); 100])).collect();
        rows.insert(50, nested(MOST_LEVELS));
        assert!(is_too_deep(&rows.into()));
    }

    #[test]
    fn what_closures_share_is_looked_at_once() {
        // Each level holds the last one twice: 2^200 ways.
        let mut shared = Dynamic::from(vec![Dynamic::from(1)]).into_shared();
        for _ in 0..200 {
            shared = Dynamic::from(vec![shared.clone(), shared]).into_shared();
        }
        let mut look = Look::default();
        assert!(!look.is_too_deep(&shared));
        assert!(look.seen < 1000, "{}", look.seen);
    }
}
