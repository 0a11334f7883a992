//! Whether a file that nobody named may be obeyed: an `opsh.toml` found upwards, a script in the working directory that
//! stands before a built-in one, a module that a script imports.
//!
//! Whoever can write a file, a folder on the way to it or a link on that way decides what opsh reads. Each of them must
//! belong to root or to the user that opsh runs as, and nobody else may be able to write it. A sticky folder such as
//! `/tmp` is no danger by itself: others cannot replace or remove what is not theirs in it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Links on one way, as the kernel counts them.
const MOST_LINKS: usize = 40;
const STICKY: u32 = 0o1000;
const BY_GROUP: u32 = 0o020;
const BY_OTHERS: u32 = 0o002;

/// The user that opsh runs as.
fn user() -> u32 {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() }
}

/// Ok when root and this user alone decide what is at `path`; else the fact that says who else does. `also` is one more
/// owner that is trusted: that of the file which names this one.
pub fn judge(path: &Path, also: Option<u32>) -> Result<(), String> {
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    let mut rest: VecDeque<OsString> = parts(&path);
    judge_one(&at, &std::fs::symlink_metadata(&at).map_err(|error| error.to_string())?, also)?;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        let fail = |error: std::io::Error| format!("{}: {error}", next.display());
        let about = std::fs::symlink_metadata(&next).map_err(fail)?;
        judge_one(&next, &about, also)?;
        if !about.is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(format!("{} leads through more than {MOST_LINKS} links", path.display()));
        }
        let target = std::fs::read_link(&next).map_err(fail)?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        parts(&target).into_iter().rev().for_each(|part| rest.push_front(part));
    }
    Ok(())
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

/// One file, folder or link on the way.
fn judge_one(path: &Path, about: &Metadata, also: Option<u32>) -> Result<(), String> {
    let (owner, mode) = (about.uid(), about.mode() & 0o7777);
    if ![Some(0), Some(user()), also].contains(&Some(owner)) {
        return Err(format!(
            "{} belongs to user {owner} (mode {mode:o}), and opsh runs as user {}",
            path.display(),
            user()
        ));
    }
    // A link has no mode of its own; its owner and its folder decide.
    if about.is_symlink() || about.is_dir() && mode & STICKY != 0 {
        return Ok(());
    }
    if mode & BY_OTHERS != 0 {
        return Err(format!("{} can be written by everybody (mode {mode:o}, owner {owner})", path.display()));
    }
    if mode & BY_GROUP != 0 && !is_private(about.gid()) {
        let group = about.gid();
        return Err(format!("{} can be written by group {group} (mode {mode:o}, owner {owner})", path.display()));
    }
    Ok(())
}

/// True for the user's private group, which many systems give each user and let write by default: it has the user's own
/// number, and nobody else is in it. Any other group may have members.
#[expect(clippy::disallowed_methods, reason = "who is in a group, before there is a gate")]
fn is_private(group: u32) -> bool {
    group == user() && std::fs::read_to_string("/etc/group").is_ok_and(|text| has_one_member(&text, group))
}

/// True when the list of groups names this one, and no member but the user whose name it has.
fn has_one_member(text: &str, group: u32) -> bool {
    text.lines().any(|line| {
        let parts: Vec<&str> = line.split(':').collect();
        let [name, _, number, members] = parts[..] else { return false };
        number.parse() == Ok(group) && members.split(',').all(|member| member.is_empty() || member == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_with_another_member_is_not_private() {
        let groups = "root:x:0:\nadmin:x:7:admin\nstaff:x:50:anna,ben\n";
        assert!(has_one_member(groups, 0) && has_one_member(groups, 7));
        assert!(!has_one_member(groups, 50), "it has two");
        assert!(!has_one_member(groups, 8), "nobody says who is in it");
    }
}
