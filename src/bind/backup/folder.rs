//! The folder of backups: names, and what was written down beside each of them.

use super::scripts;
use crate::bind::host;
use crate::bind::ssh::Reach;
use crate::config::Stack;
use crate::error::{Error, Kind, Result};
use crate::gate::{Pass, clock};
use serde_json::{Value, json};

/// What is in the folder, and on its disk.
#[derive(Debug, Default)]
pub struct Folder {
    /// The host's clock, `20261124T061743Z`.
    pub at: String,
    /// Bytes that are free on its disk.
    pub free_bytes: u64,
    /// Where the folder, or the nearest one above it that is there, really is.
    pub real: String,
    /// Backups of this database, newest first.
    pub saved: Vec<Saved>,
}

/// One backup.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    /// Absolute path.
    pub file: String,
    /// Its last part.
    pub name: String,
    /// Bytes there are.
    pub size: u64,
    /// Seconds since it was begun.
    pub age_s: i64,
    /// When it was begun, RFC 3339.
    pub at: String,
    /// What was written down when it was proved; null when nothing can be read.
    pub note: Value,
}

impl Saved {
    /// True when it has the size that it was proved with.
    pub fn ok(&self) -> bool {
        self.note["size_bytes"].as_u64() == Some(self.size)
    }

    /// As `stack.backups` shows it.
    pub fn to_json(&self) -> Value {
        let why = match self.note["size_bytes"].as_u64() {
            _ if self.ok() => None,
            Some(then) => Some(format!("it had {then} bytes when it was made, and has {} now", self.size)),
            None => Some(format!("{}.json, which says what it was made of, cannot be read", self.name)),
        };
        json!({
            "file": self.file, "at": self.at, "age_s": self.age_s, "commit": self.note["commit"], "size_bytes": self.size,
            "sha256": self.note["sha256"], "ok": self.ok(), "why": why,
        })
    }

    /// What was written down, with the file.
    pub fn proof(&self) -> Value {
        let mut note = self.note.clone();
        note["file"] = json!(self.file);
        note["at"] = json!(self.at);
        note
    }
}

/// How the names of this database's backups begin: two stacks may share a folder.
fn prefix(stack: &Stack) -> String {
    let plain = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
    };
    let (project, db) = (&stack.compose.project, stack.db.as_ref().map_or("", |db| &db.name));
    if project == db { plain(db) } else { format!("{}-{}", plain(project), plain(db)) }
}

/// `shop-20261124T061743Z-0123456789ab.dump`.
pub fn name(stack: &Stack, at: &str, commit: &str) -> String {
    let commit = commit.get(..12).unwrap_or("unknown");
    format!("{}-{at}-{commit}.dump", prefix(stack))
}

/// When the backup of that name was begun, as RFC 3339; `None` for the name of anything else.
pub fn stamp(stack: &Stack, name: &str) -> Option<String> {
    let rest = name.strip_prefix(&prefix(stack))?.strip_prefix('-')?.strip_suffix(".dump")?;
    let (at, commit) = rest.split_once('-')?;
    let commit_is_plain = !commit.is_empty() && commit.chars().all(|c| c.is_ascii_alphanumeric());
    let at = rfc3339(at).filter(|_| commit_is_plain)?;
    clock::parse_before(&at).map(|_| at)
}

/// `2026-11-24T06:17:43Z` for `20261124T061743Z`.
fn rfc3339(at: &str) -> Option<String> {
    let (day, time) = at.strip_suffix('Z')?.split_once('T')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if day.len() != 8 || time.len() != 6 || !digits(day) || !digits(time) {
        return None;
    }
    let (year, month, day) = (&day[..4], &day[4..6], &day[6..]);
    let (hour, minute, second) = (&time[..2], &time[2..4], &time[4..]);
    Some(format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z"))
}

/// Seconds since 1970 of an RFC 3339 time; 0 for anything else.
fn epoch_s(at: &str) -> i64 {
    clock::parse_before(at).unwrap_or_default() / 1_000_000
}

impl Folder {
    /// Looks at it on the host. A folder that is not there yet is empty.
    pub async fn look(reach: &Reach, pass: &Pass, stack: &Stack) -> Result<Folder> {
        let dir = stack.backup.dir.trim_end_matches('/');
        let words = ["sh", "-c", scripts::LOOK, "opsh", dir, &prefix(stack)];
        let said = host::look(reach, pass, &stack.host, &words).await?;
        let folder = parse(&said, stack, dir);
        folder.map_err(|why| {
            let kind = if why == CLOSED { Kind::Denied } else { Kind::Failed };
            Error::new(kind, format!("{dir} on {} cannot be looked at", stack.host), why).host(&stack.host)
        })
    }

    /// Files of good ones beyond the newest `keep`.
    pub fn surplus(&self, keep: usize) -> Vec<&str> {
        self.saved.iter().filter(|saved| saved.ok()).skip(keep).map(|saved| saved.file.as_str()).collect()
    }
}

const CLOSED: &str = "the account that opsh logs in as may not look into it";

fn parse(said: &str, stack: &Stack, dir: &str) -> Result<Folder, String> {
    let (facts, files) = said.split_once("\nfiles\n").unwrap_or((said, ""));
    let fact = |word: &str| facts.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    if fact("closed").is_some() {
        return Err(CLOSED.into());
    }
    let text = |word: &str| fact(word).unwrap_or_default().trim().to_string();
    let free = text("free_kib").parse::<u64>().map_err(|_| "df does not say how much is free".to_string())?;
    let mut folder =
        Folder { at: text("at"), free_bytes: free.saturating_mul(1024), real: text("real"), saved: Vec::new() };
    let now = rfc3339(&folder.at).map_or(0, |at| epoch_s(&at));
    let mut lines = files.lines();
    while let (Some(line), Some(note)) = (lines.next(), lines.next()) {
        let Some((size, name)) = line.split_once(' ') else { continue };
        let (Ok(size), Some(at)) = (size.parse(), stamp(stack, name)) else { continue };
        let age_s = now - epoch_s(&at);
        let note = serde_json::from_str(note).unwrap_or_default();
        folder.saved.push(Saved { file: format!("{dir}/{name}"), name: name.into(), size, age_s, at, note });
    }
    folder.saved.sort_by(|one, other| other.at.cmp(&one.at));
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::path::Path;
    use std::sync::Arc;

    fn stack(project: &str) -> Arc<Stack> {
        let text = format!(
            "[stack.prod]\nhost = \"local\"\ndir = \"/srv\"\ncompose = {{ files = [\"c\"], project = \"{project}\" }}\n\
             db = {{ service = \"db\", user = \"u\", name = \"shop\" }}\n"
        );
        Config::parse(&text, Path::new("/etc/opsh.toml")).expect("valid").stack("prod").expect("there")
    }

    #[test]
    fn a_name_says_when_and_of_what_and_only_such_a_name_is_one() {
        let name = name(&stack("shop"), "20261124T061743Z", "0123456789abcdef");
        assert_eq!(name, "shop-20261124T061743Z-0123456789ab.dump");
        assert_eq!(stamp(&stack("shop"), &name).as_deref(), Some("2026-11-24T06:17:43Z"));
        assert_eq!(super::name(&stack("a.b"), "T", ""), "a_b-shop-T-unknown.dump");
        for other in [
            "shop-20261124T061743Z-0123456789ab.dump.part",
            "shop-20261324T061743Z-0123456789ab.dump",
            "shop-20261124T061743Z-../../x.dump",
            "shop-20261124T061743Z-.dump",
            "other-20261124T061743Z-0123456789ab.dump",
            "",
        ] {
            assert_eq!(stamp(&stack("shop"), other), None, "{other}");
        }
        assert_eq!(stamp(&stack("else"), &name), None, "another project's database of that name");
    }

    #[test]
    fn what_lies_there_is_told_newest_first_with_what_is_wrong() {
        let said = "at 20261124T061743Z\nreal /var/backups\nfree_kib 10\nfiles\n\
                    5 shop-20261124T061643Z-a.dump\n{\"size_bytes\":5,\"commit\":\"a\"}\n\
                    4 shop-20261124T061703Z-b.dump\n{\"size_bytes\":5}\n\
                    9 shop-20261124T061733Z-c.dump\n\n7 stray.dump\n\n";
        let folder = parse(said, &stack("shop"), "/b").expect("parses");
        let seen: Vec<(&str, i64, bool)> =
            folder.saved.iter().map(|one| (one.file.as_str(), one.age_s, one.ok())).collect();
        let file = |part: &str| format!("/b/shop-20261124T06{part}.dump");
        assert_eq!(
            seen,
            [
                (file("1733Z-c").as_str(), 10, false),
                (file("1703Z-b").as_str(), 40, false),
                (file("1643Z-a").as_str(), 60, true)
            ]
        );
        assert_eq!(folder.free_bytes, 10240);
        assert!(
            folder.saved[1].to_json()["why"]
                .as_str()
                .is_some_and(|why| why.contains("5 bytes") && why.contains("4 now"))
        );
        assert!(folder.surplus(1).is_empty(), "what is not good is not counted");
        assert_eq!(folder.surplus(0), [file("1643Z-a")]);
    }

    #[test]
    fn a_folder_that_is_closed_and_a_disk_that_says_nothing_are_errors() {
        let said = "at x\nreal /\nfree_kib 1\nclosed yes\n";
        assert_eq!(parse(said, &stack("shop"), "/b").map(|_| ()), Err(CLOSED.into()));
        assert!(parse("at x\nfree_kib \nfiles\n", &stack("shop"), "/b").is_err());
    }
}
