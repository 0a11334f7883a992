//! The state of a work tree: what differs, what somebody is in the middle of, what exists nowhere else.

use super::cli::Git;
use crate::error::{Error, Kind, Result};
use crate::gate::Pass;
use serde_json::{Value, json};

/// Everything about a clone that git does not say in its status, in one trip: a line of facts, then a mark a line, then
/// commits, then files that git does not look at. Runs on any git since 2.15.
const STATE: &str = r#"
"$@" rev-parse --is-bare-repository --is-shallow-repository || exit
dir=$("$@" rev-parse --absolute-git-dir) || exit
for mark in MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD rebase-merge rebase-apply/applying rebase-apply BISECT_LOG; do
    test ! -e "$dir/$mark" || echo "$mark"
done
if test -e "$dir/index.lock"; then
    made=$(stat -L -c %Y "$dir/index.lock" 2>/dev/null || stat -L -f %m "$dir/index.lock" 2>/dev/null)
    test -z "$made" || echo "locked $(( $(date +%s) - made ))"
fi
if "$@" rev-parse --verify --quiet 'HEAD^{commit}' >/dev/null; then
    "$@" rev-list --max-count=20 HEAD --not --remotes --tags || exit
fi
sparse=$("$@" config --type=bool core.sparseCheckout)
"$@" -C "$GIT_WORK_TREE" ls-files -v -z | tr '\n\000' '\001\n' | awk -v sparse="$sparse" '
    /^[a-z] / || (/^S / && sparse != "true") { print "unlooked " substr($0, 3) }'
"#;

/// A status with an index of its own, in which git looks at every file: one that was marked as unchanged, or to be skipped,
/// is none that has no changes. Standard input names the marked files, each before a zero byte. The copy keeps its time: by it
/// git knows which files may have changed in the moment in which they were added.
const STATUS_OF_ALL: &str = r#"
cp -p "$GIT_DIR/index" "$GIT_DIR/opsh-index" && cat >"$GIT_DIR/opsh-names" || exit
export GIT_INDEX_FILE="$GIT_DIR/opsh-index"
for mark in --no-assume-unchanged --no-skip-worktree; do
    "$@" -C "$GIT_WORK_TREE" update-index $mark -z --stdin <"$GIT_DIR/opsh-names" || exit
done
"#;

/// Marks in the git folder, each with the operation that it belongs to; an outer operation stands before those that it
/// is made of.
const OPERATIONS: &[(&str, &str)] = &[
    ("rebase-merge", "rebase"),
    ("rebase-apply/applying", "am"),
    ("rebase-apply", "rebase"),
    ("MERGE_HEAD", "merge"),
    ("CHERRY_PICK_HEAD", "cherry-pick"),
    ("REVERT_HEAD", "revert"),
    ("BISECT_LOG", "bisect"),
];

/// Paths of each sort that a status lists.
const LISTED: usize = 100;

/// The status of the work tree.
pub async fn of(git: &Git, pass: &Pass) -> Result<Value> {
    let said = git.script(pass, "rev-parse", STATE, &[], "").await?;
    let state = State::parse(&said);
    if state.bare {
        let why = format!("{} is a bare clone: it has no work tree that could have changes", git.dir);
        return Err(Error::new(Kind::Unmet, format!("git status failed on {}", git.host), why));
    }
    let out = if state.unlooked.is_empty() {
        git.out(pass, &STATUS).await?
    } else {
        let names: String = state.unlooked.iter().map(|name| format!("{name}\0")).collect();
        let script = format!("{STATUS_OF_ALL}\"$@\" {}", STATUS.join(" "));
        git.script(pass, "status", &script, &[], &names).await?
    };
    let (mut changed, mut untracked) = paths(&out);
    let clean = changed.is_empty();
    let is_unlooked = |path: &&&str| state.unlooked.iter().any(|name| name == **path);
    let unlooked: Vec<&str> = changed.iter().filter(is_unlooked).take(LISTED).copied().collect();
    changed.truncate(LISTED);
    untracked.truncate(LISTED);
    Ok(json!({
        "clean": clean, "changed": changed, "unlooked": unlooked, "untracked": untracked, "operation": state.operation,
        "only_here": state.only_here, "shallow": state.shallow, "lock_age_s": state.lock_age_s,
    }))
}

/// Only commits of submodules are compared: each has settings of its own, which name programs.
const STATUS: [&str; 5] = ["status", "--porcelain=v1", "-z", "--untracked-files=normal", "--ignore-submodules=dirty"];

#[derive(Debug, Default, PartialEq)]
struct State<'a> {
    bare: bool,
    shallow: bool,
    operation: Option<&'static str>,
    lock_age_s: Option<i64>,
    only_here: Vec<&'a str>,
    /// Files that git was told not to look at.
    unlooked: Vec<String>,
}

impl State<'_> {
    fn parse(said: &str) -> State<'_> {
        let mut lines = said.lines();
        let (bare, shallow) = (lines.next() == Some("true"), lines.next() == Some("true"));
        let lines: Vec<&str> = lines.collect();
        let operation = OPERATIONS.iter().find(|(mark, _)| lines.contains(mark)).map(|(_, name)| *name);
        // A clock that was set back makes no lock of the future.
        let age = |line: &str| line.strip_prefix("locked ")?.parse().ok().map(|age: i64| age.max(0));
        let lock_age_s = lines.iter().find_map(|line| age(line));
        let is_commit = |line: &&&str| line.len() >= 40 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        let unlooked = lines.iter().filter_map(|line| line.strip_prefix("unlooked "));
        // In the list of one name a line, a newline in a name is a byte 1.
        let unlooked = unlooked.map(|name| name.replace('\x01', "\n")).collect();
        let only_here = lines.iter().filter(is_commit).copied().collect();
        State { bare, shallow, operation, lock_age_s, only_here, unlooked }
    }
}

/// Paths with changes, and paths that git does not know.
fn paths(status: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut changed, mut untracked) = (Vec::new(), Vec::new());
    let mut entries = status.split('\0');
    while let Some(entry) = entries.next() {
        // After the last zero byte there is nothing.
        let Some((state, path)) = entry.split_at_checked(3) else { continue };
        if state.starts_with("??") {
            untracked.push(path)
        } else {
            changed.push(path)
        }
        if state.starts_with(['R', 'C']) {
            // A rename is followed by the old name, which is no entry of its own.
            entries.next();
        }
    }
    (changed, untracked)
}

/// The commit, what it has at a name, and what a text would be there. No filter of the repository runs.
const COMMITTED: &str = r#"
name=$1; shift
"$@" rev-parse --verify 'HEAD^{commit}' || exit
"$@" ls-tree HEAD -- "$name" || exit
"$@" hash-object --no-filters --stdin
"#;

/// The commit that is checked out where a file is, and whether this text of the file is not what that commit has.
pub async fn committed(git: &Git, pass: &Pass, name: &str, text: &str) -> Result<Value> {
    let said = git.script(pass, "ls-tree", COMMITTED, &[name], text).await?;
    let (commit, dirty) = commit_in(&said);
    Ok(json!({ "commit": commit, "dirty": dirty }))
}

/// `COMMIT`, then `MODE blob HASH<tab>NAME` where there is such a file, then the hash of the text.
fn commit_in(said: &str) -> (Option<&str>, bool) {
    let lines: Vec<&str> = said.lines().collect();
    let (Some(commit), Some(now)) = (lines.first(), lines.last()) else { return (None, true) };
    let there = lines.get(1).filter(|_| lines.len() == 3).and_then(|line| line.split([' ', '\t']).nth(2));
    (Some(*commit), there != Some(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_dirty_when_the_commit_has_not_that_text() {
        assert_eq!(commit_in("c0\n100644 blob aa\tx y.rhai\naa\n"), (Some("c0"), false));
        assert_eq!(commit_in("c0\n100644 blob aa\tx y.rhai\nbb\n"), (Some("c0"), true));
        assert_eq!(commit_in("c0\nbb\n"), (Some("c0"), true), "it is not in the commit");
    }

    #[test]
    fn a_rename_is_one_change_and_its_old_name_may_be_short() {
        let (changed, untracked) = paths("R  new\nname\0a\0 M b\0?? \"q\"\0");
        assert_eq!((changed, untracked), (vec!["new\nname", "b"], vec!["\"q\""]));
    }

    #[test]
    fn an_outer_operation_is_told_before_the_pick_that_it_is_at() {
        let head = "a".repeat(40);
        let said = format!("false\ntrue\nCHERRY_PICK_HEAD\nrebase-merge\nlocked -7\n{head}\nunlooked a b\n");
        let expected = State {
            bare: false,
            shallow: true,
            operation: Some("rebase"),
            lock_age_s: Some(0),
            only_here: vec![&head],
            unlooked: vec!["a b".into()],
        };
        assert_eq!(State::parse(&said), expected);
        assert_eq!(State::parse("false\nfalse\nrebase-apply/applying\nrebase-apply\n").operation, Some("am"));
        assert_eq!(State::parse("true\nfalse\n"), State { bare: true, ..State::default() });
    }
}
