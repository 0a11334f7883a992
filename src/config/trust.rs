//! Whether a file that nobody named may be obeyed: an `opsh.toml` found upwards, a script in the working directory that
//! stands before a built-in one, a module that a script imports.
//!
//! Whoever can write a file, a folder on the way to it or a link on that way decides what opsh reads. Each of them must
//! belong to root or to the user that opsh runs as, and nobody else may be able to write it. A sticky folder such as
//! `/tmp` is no danger by itself: others cannot replace or remove what is not theirs in it.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsString};
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

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
    if mode & BY_GROUP == 0 {
        // Of a file with a list of access these bits are the most that anybody in it has.
        return Ok(());
    }
    if !is_private(about.gid()) {
        let group = about.gid();
        return Err(format!("{} can be written by group {group} (mode {mode:o}, owner {owner})", path.display()));
    }
    match other_writer(&access_list(path), &[Some(0), Some(user()), also]) {
        Some(who) => {
            Err(format!("{} can be written by {who} (an ACL, owner {owner}): getfacl shows it", path.display()))
        }
        None => Ok(()),
    }
}

/// The POSIX access list of a file or folder, as the kernel keeps it; empty when there is none.
fn access_list(path: &Path) -> Vec<u8> {
    let mut list = vec![0u8; 64 << 10];
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return Vec::new() };
    // SAFETY: both names end with NUL, and `list` is writable for its whole length during the call.
    let length = unsafe {
        libc::lgetxattr(path.as_ptr(), c"system.posix_acl_access".as_ptr(), list.as_mut_ptr().cast(), list.len())
    };
    list.truncate(usize::try_from(length).unwrap_or(0));
    list
}

/// Who else an access list lets write. It is a version, then entries of tag, permissions and number, little-endian.
fn other_writer(list: &[u8], trusted: &[Option<u32>]) -> Option<String> {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    const WRITE: u16 = 0x02;
    list.get(4..)?.chunks_exact(8).find_map(|entry| {
        let half = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
        let number = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        match (half(0), half(2) & WRITE != 0) {
            (USER, true) if !trusted.contains(&Some(number)) => Some(format!("user {number}")),
            (GROUP, true) if !is_private(number) => Some(format!("group {number}")),
            _ => None,
        }
    })
}

/// True for the user's private group, which many systems give each user and let write by default: it has the user's own
/// number, nobody else is in it, and it is the first group of no other account. Any other group may have members.
fn is_private(group: u32) -> bool {
    group == user() && is_alone(group, user(), &members(group), &accounts())
}

/// An account: its name, number and first group.
struct Account {
    name: String,
    user: u32,
    group: u32,
}

/// True when the members of a group, and the accounts whose first group it is, are this user. Of an account that the system
/// does not know by name nothing is said, so it is somebody else.
fn is_alone(group: u32, user: u32, members: &Option<Vec<String>>, accounts: &[Account]) -> bool {
    let is_user = |name: &String| accounts.iter().any(|account| account.user == user && account.name == *name);
    let is_only_member = members.as_ref().is_some_and(|members| members.iter().all(is_user));
    is_only_member && !accounts.iter().any(|account| account.group == group && account.user != user)
}

/// Of whoever asks for accounts: the C library has one place in their list.
static ASKS: Mutex<()> = Mutex::new(());

/// Every account that the system lists.
fn accounts() -> Vec<Account> {
    let _one = ASKS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut accounts = Vec::new();
    // SAFETY: the lock makes this the only walk through the list; an entry and its name are read before the next call.
    unsafe {
        libc::setpwent();
        while let Some(entry) = libc::getpwent().as_ref() {
            let name = CStr::from_ptr(entry.pw_name).to_string_lossy().into_owned();
            accounts.push(Account { name, user: entry.pw_uid, group: entry.pw_gid });
        }
        libc::endpwent();
    }
    accounts
}

/// Names of the members of a group; `None` when the system does not know it.
fn members(group: u32) -> Option<Vec<String>> {
    let _one = ASKS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut names = Vec::new();
    // SAFETY: the lock makes this the only call; the entry and its list, which ends with a null, are read before another one.
    unsafe {
        let entry = libc::getgrgid(group).as_ref()?;
        let mut at = entry.gr_mem;
        while !(*at).is_null() {
            names.push(CStr::from_ptr(*at).to_string_lossy().into_owned());
            at = at.add(1);
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_with_another_member_is_not_private() {
        let account = |name: &str, user, group| Account { name: name.into(), user, group };
        let of = |names: &[&str]| Some(names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        let anna = account("anna", 7, 7);
        let ben = account("ben", 8, 7);
        let both = [account("anna", 7, 7), account("ben", 8, 8)];
        assert!(is_alone(7, 7, &of(&[]), &both) && is_alone(7, 7, &of(&["anna"]), &both));
        assert!(!is_alone(7, 7, &of(&["anna", "ben"]), &both), "it has two");
        assert!(!is_alone(7, 7, &None, &both), "nobody says who is in it");
        assert!(!is_alone(7, 7, &of(&[]), &[anna, ben]), "it is another account's first group");
    }

    #[test]
    fn an_access_list_that_lets_others_write_is_seen() {
        let list = |entries: &[(u16, u16, u32)]| {
            let entry = |(tag, may, id): &(u16, u16, u32)| {
                [&tag.to_le_bytes()[..], &may.to_le_bytes(), &id.to_le_bytes()].concat()
            };
            [2u32.to_le_bytes().to_vec(), entries.iter().flat_map(entry).collect()].concat()
        };
        let own = [(0x01, 6, u32::MAX), (0x04, 6, u32::MAX), (0x10, 6, u32::MAX), (0x20, 4, u32::MAX)];
        let with = |entry| list(&[&own[..], &[entry]].concat());
        let trusted = [Some(0), Some(1000)];
        assert_eq!(other_writer(&[], &trusted), None);
        assert_eq!(other_writer(&list(&own), &trusted), None);
        assert_eq!(other_writer(&with((0x02, 4, 65534)), &trusted), None, "it reads only");
        assert_eq!(other_writer(&with((0x02, 6, 1000)), &trusted), None, "it is this user");
        assert_eq!(other_writer(&with((0x02, 6, 65534)), &trusted), Some("user 65534".into()));
        assert_eq!(other_writer(&with((0x08, 6, 65534)), &trusted), Some("group 65534".into()));
    }
}
