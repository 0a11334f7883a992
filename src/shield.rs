//! A panic is a bug of opsh: it ends the work that had it with an error, and not the program.

use crate::error::{Error, Kind, Result};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

thread_local! {
    /// How many shields this thread is behind.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Text and place of the panic that goes on.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Does `work`; a panic in it is an error. What the work had changed of its own values stays as it was then.
pub fn run<T>(work: impl FnOnce() -> T) -> Result<T> {
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    result.map_err(|payload| match payload.downcast::<Error>() {
        Ok(error) => *error,
        Err(payload) => bug(&SAID.take().unwrap_or_else(|| text_of(&*payload))),
    })
}

/// Ends the work behind the nearest shield with this error, where whoever called has no way to pass one on. Only for code
/// that is surely behind one.
pub fn stop(error: Error) -> ! {
    resume_unwind(Box::new(error))
}

/// Keeps what the panic hook was told, when a shield on this thread makes an error of it. False: the hook shows it.
pub fn keeps(said: &str) -> bool {
    let is_behind = DEPTH.get() > 0;
    if is_behind {
        SAID.replace(Some(said.into()));
    }
    is_behind
}

/// The error of a panic.
pub fn bug(said: &str) -> Error {
    Error::new(Kind::Failed, "opsh has a bug", said)
        .next("opsh journal show last     what was done, and what may have happened")
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a text".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_text() {
        let list: Vec<u8> = Vec::new();
        let error = run(|| run(|| list[list.len() + 3])).expect("the outer one").expect_err("the inner one");
        assert!(error.why.contains("index out of bounds"), "{}", error.why);
        assert!(!keeps("after it"));
    }

    #[test]
    fn what_stops_the_work_is_its_error() {
        let stopped = || -> u8 { stop(Error::new(Kind::Usage, "a value is too large", "of its texts")) };
        let error = run(stopped).expect_err("it was stopped");
        assert_eq!((error.kind, error.why.as_str()), (Kind::Usage, "of its texts"));
    }
}
