//! Rhai's functions that take memory by a number, or by a product of sizes, with a bound: without one a slip of a digit ends
//! the program, since the allocator does not come back with an error.

use crate::bind::values::{self, RhaiResult};
use crate::error::{Error, Kind, Result};
use rhai::{Array, Blob, Dynamic, Engine, ImmutableString, NativeCallContext};

/// Bytes of a string or a blob that one call may make.
const MOST_BYTES: usize = 64 << 20;
/// Values of an array that one call may make, with what lies in them.
const MOST_VALUES: usize = 1_000_000;

/// Pieces that one call may cut a text or a blob into: each takes up to 64 bytes besides what is in it.
const MOST_PIECES: usize = 4_000_000;

/// Registers them, in place of Rhai's own.
pub fn register(engine: &mut Engine) {
    register_pieces(engine);
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

/// What cuts a text or a blob into pieces.
fn register_pieces(engine: &mut Engine) {
    engine.register_fn("to_chars", |context: NativeCallContext<'_>, text: &str| {
        pieces(&context, "to_chars", text.chars())
    });
    engine.register_fn("to_array", |context: NativeCallContext<'_>, bytes: Blob| {
        pieces(&context, "to_array", bytes.iter().map(|byte| i64::from(*byte)))
    });
    engine.register_fn("split", |context: NativeCallContext<'_>, text: &str| -> RhaiResult<Array> {
        match text {
            "" => Ok(vec!["".into()]),
            _ => pieces(&context, "split", text.split_whitespace().map(ImmutableString::from)),
        }
    });
    split_by::<ImmutableString>(engine);
    split_by::<char>(engine);
}

/// `split` and `split_rev` at a delimiter, with and without the most segments.
fn split_by<T: ToString + Clone + 'static>(engine: &mut Engine) {
    let split = |context: &NativeCallContext<'_>, text: &str, by: T, most: i64| {
        let by = by.to_string();
        pieces(context, "split", text.splitn(segments(text, most), by.as_str()).map(ImmutableString::from))
    };
    let split_rev = |context: &NativeCallContext<'_>, text: &str, by: T, most: i64| {
        let by = by.to_string();
        pieces(context, "split_rev", text.rsplitn(segments(text, most), by.as_str()).map(ImmutableString::from))
    };
    engine.register_fn("split", move |context: NativeCallContext<'_>, text: &str, by: T| {
        split(&context, text, by, i64::MAX)
    });
    engine.register_fn("split", move |context: NativeCallContext<'_>, text: &str, by: T, most: i64| {
        split(&context, text, by, most)
    });
    engine.register_fn("split_rev", move |context: NativeCallContext<'_>, text: &str, by: T| {
        split_rev(&context, text, by, i64::MAX)
    });
    engine.register_fn("split_rev", move |context: NativeCallContext<'_>, text: &str, by: T, most: i64| {
        split_rev(&context, text, by, most)
    });
}

/// As Rhai counts them: less than one is one, and an empty text is one piece whatever it is split at.
fn segments(text: &str, most: i64) -> usize {
    if text.is_empty() { 1 } else { usize::try_from(most).unwrap_or(0).max(1) }
}

fn pieces<T: Into<Dynamic>>(
    context: &NativeCallContext<'_>,
    name: &str,
    pieces: impl Iterator<Item = T> + Clone,
) -> RhaiResult<Array> {
    let count = pieces.clone().take(MOST_PIECES + 1).count();
    within(context, name, Some(count), MOST_PIECES, "pieces or more")?;
    Ok(pieces.map(Into::into).collect())
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

#[cfg(test)]
mod tests {
    use rhai::{Dynamic, Engine};

    #[test]
    fn texts_are_split_as_rhai_splits_them() {
        let mut ours = Engine::new();
        super::register(&mut ours);
        for text in ["", "a", " a  b c ", "a,b,,c,", ",", "日本,語"] {
            for call in [
                "split()",
                "to_chars()",
                "to_blob().to_array()",
                "split(\"\")",
                "split(\",\")",
                "split(',')",
                "split(\"b,\")",
                "split(\",\", 2)",
                "split(\",\", 0)",
                "split(\",\", -1)",
                "split(',', 2)",
                "split(\"\", 2)",
                "split(1)",
                "split(-1)",
                "split_rev(\",\")",
                "split_rev(',')",
                "split_rev(\"\")",
                "split_rev(\",\", 2)",
                "split_rev(',', 2)",
                "split_rev(',', 0)",
            ] {
                let script = format!("\"{text}\".{call}");
                let value = |engine: &Engine| engine.eval::<Dynamic>(&script).map(|value| format!("{value:?}"));
                assert_eq!(value(&ours).unwrap(), value(&Engine::new()).unwrap(), "{script}");
            }
        }
    }
}
