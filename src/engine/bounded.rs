//! Rhai's functions that take memory by a number, or by a product of sizes, with a bound: without one a slip of a digit ends
//! the program, since the allocator does not come back with an error.

use crate::bind::values::{self, RhaiResult};
use crate::error::{Error, Kind, Result};
use rhai::{Array, Blob, Dynamic, Engine, ImmutableString, NativeCallContext};

/// Bytes of a string or a blob that one call may make.
const MOST_BYTES: usize = 64 << 20;
/// Values of an array that one call may make, with what lies in them.
const MOST_VALUES: usize = 1_000_000;

/// Registers them, in place of Rhai's own.
pub fn register(engine: &mut Engine) {
    engine.register_fn(
        "pad",
        |context: NativeCallContext<'_>, list: &mut Array, length: i64, item: Dynamic| -> RhaiResult<()> {
            let Some(more) = more(length, list.len()) else { return Ok(()) };
            let each = values::weight(&item, MOST_VALUES);
            within(&context, "pad", more.checked_mul(each), MOST_VALUES, "values")?;
            list.resize(list.len() + more, item);
            Ok(())
        },
    );
    engine.register_fn(
        "pad",
        |context: NativeCallContext<'_>, blob: &mut Blob, length: i64, value: i64| -> RhaiResult<()> {
            let Some(more) = more(length, blob.len()) else { return Ok(()) };
            within(&context, "pad", Some(more), MOST_BYTES, "bytes")?;
            blob.resize(blob.len() + more, low_byte(value));
            Ok(())
        },
    );
    engine.register_fn(
        "pad",
        |context: NativeCallContext<'_>, text: &mut ImmutableString, length: i64, with: char| -> RhaiResult<()> {
            pad(&context, text, length, with.encode_utf8(&mut [0; 4]))
        },
    );
    engine.register_fn(
        "pad",
        |context: NativeCallContext<'_>, text: &mut ImmutableString, length: i64, with: &str| -> RhaiResult<()> {
            pad(&context, text, length, with)
        },
    );
    engine.register_fn("blob", |context: NativeCallContext<'_>, length: i64| -> RhaiResult<Blob> {
        blob(&context, length, 0)
    });
    engine.register_fn("blob", |context: NativeCallContext<'_>, length: i64, value: i64| -> RhaiResult<Blob> {
        blob(&context, length, value)
    });
    engine.register_fn(
        "replace",
        |context: NativeCallContext<'_>, text: &mut ImmutableString, what: &str, by: &str| -> RhaiResult<()> {
            replace(&context, text, what, by)
        },
    );
    engine.register_fn(
        "replace",
        |context: NativeCallContext<'_>, text: &mut ImmutableString, what: &str, by: char| -> RhaiResult<()> {
            replace(&context, text, what, by.encode_utf8(&mut [0; 4]))
        },
    );
    engine.register_fn(
        "replace",
        |context: NativeCallContext<'_>, text: &mut ImmutableString, what: char, by: &str| -> RhaiResult<()> {
            replace(&context, text, what.encode_utf8(&mut [0; 4]), by)
        },
    );
    engine.register_fn(
        "replace",
        |context: NativeCallContext<'_>, text: &mut ImmutableString, what: char, by: char| -> RhaiResult<()> {
            replace(&context, text, what.encode_utf8(&mut [0; 4]), by.encode_utf8(&mut [0; 4]))
        },
    );
}

/// How many are missing; none when it is that long already.
fn more(length: i64, has: usize) -> Option<usize> {
    usize::try_from(length).ok()?.checked_sub(has).filter(|more| *more > 0)
}

fn low_byte(value: i64) -> u8 {
    value.to_le_bytes()[0]
}

fn blob(context: &NativeCallContext<'_>, length: i64, value: i64) -> RhaiResult<Blob> {
    let length = usize::try_from(length).unwrap_or(0);
    within(context, "blob", Some(length), MOST_BYTES, "bytes")?;
    Ok(vec![low_byte(value); length])
}

fn pad(context: &NativeCallContext<'_>, text: &mut ImmutableString, length: i64, with: &str) -> RhaiResult<()> {
    let Some(more) = more(length, text.chars().count()) else { return Ok(()) };
    // With nothing Rhai's own pads for ever.
    if with.is_empty() {
        let error = Error::new(Kind::Usage, "pad cannot make the text longer", "it is given an empty text to pad with");
        return Err(values::thrown(error, context.call_position()));
    }
    let most_of_one = with.chars().map(char::len_utf8).max().unwrap_or(1);
    let bytes = more.checked_mul(most_of_one).and_then(|more| more.checked_add(text.len()));
    within(context, "pad", bytes, MOST_BYTES, "bytes")?;
    text.make_mut().extend(with.chars().cycle().take(more));
    Ok(())
}

fn replace(context: &NativeCallContext<'_>, text: &mut ImmutableString, what: &str, by: &str) -> RhaiResult<()> {
    if text.is_empty() {
        return Ok(());
    }
    // Only what makes it longer is counted: the rest is at most as long as it was.
    if by.len() > what.len() {
        let more = text.matches(what).count().checked_mul(by.len() - what.len());
        let bytes = more.and_then(|more| more.checked_add(text.len()));
        within(context, "replace", bytes, MOST_BYTES.max(text.len()), "bytes")?;
    }
    *text = text.replace(what, by).into();
    Ok(())
}

/// Fails when a call would make more than it may; `None` is more than can be counted.
fn within(
    context: &NativeCallContext<'_>,
    name: &str,
    makes: Option<usize>,
    most: usize,
    what: &str,
) -> RhaiResult<()> {
    allowed(name, makes, most, what).map_err(|error| values::thrown(error, context.call_position()))
}

fn allowed(name: &str, makes: Option<usize>, most: usize, what: &str) -> Result<()> {
    match makes {
        Some(makes) if makes <= most => Ok(()),
        makes => {
            let makes = makes.map_or("more than can be counted".into(), |makes| makes.to_string());
            Err(Error::new(
                Kind::Usage,
                format!("{name} would make too much at once"),
                format!("it would make {makes} {what}, and {most} is the most that one call may"),
            ))
        }
    }
}
