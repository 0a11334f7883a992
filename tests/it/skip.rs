//! What a test says when the thing it needs is not there: never silence, and never in a build that must have it all.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts and says that the calling test was not done, past the capture of the test runner. Panics instead where
/// everything must be there: `CI` is set, or `OPSH_REQUIRE=all`.
pub fn skip(why: &str) {
    let required = is_required(std::env::var_os("CI").is_some(), std::env::var("OPSH_REQUIRE").ok().as_deref());
    assert!(!required, "everything is required, but {why}");
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    let _ = std::io::stderr().write_all(line(count, std::thread::current().name(), why).as_bytes());
}

fn is_required(ci: bool, require: Option<&str>) -> bool {
    ci || require == Some("all")
}

fn line(count: u32, test: Option<&str>, why: &str) -> String {
    format!("skipped {count}: {}: {why}\n", test.unwrap_or("?"))
}

#[test]
fn a_skip_is_one_line_that_names_its_test_and_its_reason() {
    assert_eq!(line(2, Some("live::x"), "no sshd"), "skipped 2: live::x: no sshd\n");
    assert!(!is_required(false, None) && !is_required(false, Some("docker")));
    assert!(is_required(true, None) && is_required(false, Some("all")));
}
