//! A bound on how deeply a script may nest its values. Rust copies, shows and drops a value level by level, each on the
//! stack: one that is a million levels deep ends the program without a word.

use crate::memory;
use rhai::{Dynamic, Engine, EvalAltResult, FnPtr, Position, Scope};
use std::cell::Cell;

/// Levels of lists, maps and closures within each other.
pub const MOST_LEVELS: usize = 1000;

/// How often a script takes memory until its variables are looked at again. A level takes memory at least once, so a value is
/// never deeper than this and [`MOST_LEVELS`], which the stack of the engine's thread holds.
const LOOK_AFTER: u64 = 4096;

/// Values that one look sees of one variable: of a list of a million numbers it sees the ends.
const SEEN: usize = 4096;
/// Items at each end of a list, or at the beginning of a map, that a look goes into.
const ENDS: usize = 32;

/// Ends a script that nests more deeply. Rhai tells of each use of a variable, and of nothing else that has values.
pub fn watch(engine: &mut Engine) {
    let next = Cell::new(0);
    #[expect(deprecated, reason = "Rhai's word for an interface that may change; the version is pinned")]
    engine.on_var(move |_, _, context| {
        let taken = memory::taken();
        if taken < next.get() {
            return Ok(None);
        }
        next.set(taken + LOOK_AFTER);
        let is_deep = context.this_ptr().is_some_and(is_too_deep) || too_deep(context.scope()).next().is_some();
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
    let mut left = SEEN;
    goes_beyond(value, MOST_LEVELS, &mut left)
}

fn goes_beyond(value: &Dynamic, levels: usize, left: &mut usize) -> bool {
    if *left == 0 {
        return false;
    }
    *left -= 1;
    let deeper = |value: &Dynamic| levels == 0 || goes_beyond(value, levels - 1, left);
    if let Ok(items) = value.as_array_ref() {
        let (first, rest) = items.split_at(items.len().min(ENDS));
        return first.iter().chain(rest.iter().rev().take(ENDS)).any(deeper);
    }
    if let Ok(map) = value.as_map_ref() {
        return map.values().take(ENDS).chain(map.values().rev().take(ENDS)).any(deeper);
    }
    match value.read_lock::<FnPtr>() {
        Some(closure) => closure.iter_curry().any(deeper),
        None => false,
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
    }
}
