//! Sorting and thinning by a closure of the script. Rhai's own take an error in the closure for an answer: a list would be in
//! a wrong order without a word, and `exit` or Ctrl-C in there would be lost.

use crate::bind::values::{self, RhaiResult};
use crate::error::{Error, Kind};
use crate::shield;
use rhai::{Array, Dynamic, Engine, FnPtr, NativeCallContext};
use std::cmp::Ordering;

/// Registers them, in place of Rhai's own.
pub fn register(engine: &mut Engine) {
    for name in ["sort", "sort_by"] {
        engine
            .register_fn(name, |context: NativeCallContext<'_>, list: &mut Array, by: FnPtr| sort(&context, list, &by));
    }
    for name in ["order", "order_by"] {
        engine.register_fn(name, |context: NativeCallContext<'_>, list: &mut Array, by: FnPtr| -> RhaiResult<Array> {
            let mut ordered = list.clone();
            sort(&context, &mut ordered, &by)?;
            Ok(ordered)
        });
    }
    engine.register_fn("dedup", |context: NativeCallContext<'_>, list: &mut Array, same: FnPtr| {
        dedup(&context, list, &same)
    });
}

fn sort(context: &NativeCallContext<'_>, list: &mut Array, by: &FnPtr) -> RhaiResult<()> {
    let mut failed = None;
    let sorted = shield::run(|| {
        list.sort_by(|one, other| {
            if failed.is_some() {
                return Ordering::Equal;
            }
            let order = by.call_raw(context, None, [one.clone(), other.clone()]);
            order.and_then(|order| ordering(context, &order)).unwrap_or_else(|error| {
                failed = Some(error);
                Ordering::Equal
            })
        });
    });
    match (failed, sorted) {
        (Some(error), _) => Err(error),
        (None, Ok(())) => Ok(()),
        // The only panic of a sort: items that are each before the other.
        (None, Err(_)) => Err(wrong(context, "it says that two items are each before the other")),
    }
}

/// Of a number its sign; true is "before".
fn ordering(context: &NativeCallContext<'_>, order: &Dynamic) -> RhaiResult<Ordering> {
    match (order.as_int(), order.as_bool()) {
        (Ok(number), _) => Ok(number.cmp(&0)),
        (_, Ok(true)) => Ok(Ordering::Less),
        (_, Ok(false)) => Ok(Ordering::Greater),
        _ => Err(wrong(context, &format!("it returns a value of type {}, not int or bool", values::type_name(order)))),
    }
}

fn dedup(context: &NativeCallContext<'_>, list: &mut Array, same: &FnPtr) -> RhaiResult<()> {
    let mut failed = None;
    list.dedup_by(|next, one| {
        if failed.is_some() {
            return false;
        }
        let is_same = same.call_raw(context, None, [one.clone(), next.clone()]);
        let is_same = is_same
            .and_then(|same| same.as_bool().map_err(|kind| wrong(context, &format!("it returns {kind}, not bool"))));
        is_same.unwrap_or_else(|error| {
            failed = Some(error);
            false
        })
    });
    failed.map_or(Ok(()), Err)
}

fn wrong(context: &NativeCallContext<'_>, why: &str) -> Box<rhai::EvalAltResult> {
    let error = Error::new(Kind::Usage, "the closure compares wrongly", why);
    values::thrown(error.next("|a, b| a - b     for numbers; |a, b| a < b for any others"), context.call_position())
}
