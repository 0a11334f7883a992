//! What colleagues must know of a stack lies beside it: the folder `.opsh` in its checkout, on its host.
//!
//! Whoever can deploy can write there, it is in no release, and git neither shows nor cleans it.

use crate::config::Stack;

/// The folder, absolute.
pub fn folder(stack: &Stack) -> String {
    format!("{}/.opsh", stack.dir.trim_end_matches('/'))
}

/// POSIX sh that makes the folder `$1`; fails, saying why, when it cannot. The group of the checkout may write there too:
/// what one account leaves must not stand in the way of another.
pub const MAKE: &str = r#"umask 002; mkdir -p "$1" && { [ -e "$1/.gitignore" ] || echo '*' >"$1/.gitignore"; }"#;
