//! Death at a chosen moment, and a clock that was set back, for the tests of the journal's promise. Not compiled into a release.
//!
//! `OPSH_TEST_KILL=begun:3` ends the process with SIGKILL after the third change's `effect.begin` is durable and
//! before it is performed; `performed:3` after it was performed and before its `effect.end`; `performed:docker.stop` does so
//! with the first change of that verb; `OPSH_TEST_PANIC` is a bug there. `OPSH_TEST_CLOCK_BACK=60` sets the wall clock back by 60 seconds.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

#[expect(clippy::disallowed_methods, reason = "a test decides when this process dies")]
pub fn strike(point: &str, verb: &str) {
    static BEGUN: AtomicU32 = AtomicU32::new(0);
    static PERFORMED: AtomicU32 = AtomicU32::new(0);
    let count = if point == "begun" { &BEGUN } else { &PERFORMED }.fetch_add(1, Ordering::Relaxed) + 1;
    let here = |wanted: String| wanted == format!("{point}:{count}") || wanted == format!("{point}:{verb}");
    if std::env::var("OPSH_TEST_PANIC").is_ok_and(here) {
        panic!("a bug that a test planted");
    }
    if std::env::var("OPSH_TEST_KILL").is_ok_and(here) {
        // SAFETY: raising a signal on ourselves has no preconditions.
        unsafe { libc::raise(libc::SIGKILL) };
    }
}

/// Microseconds by which the wall clock is set back.
#[expect(clippy::disallowed_methods, reason = "a test decides what the clock says")]
pub fn clock_back_us() -> i64 {
    static BACK: LazyLock<i64> = LazyLock::new(|| {
        let set = std::env::var("OPSH_TEST_CLOCK_BACK");
        set.ok().and_then(|seconds| seconds.parse::<i64>().ok()).unwrap_or(0) * 1_000_000
    });
    *BACK
}
