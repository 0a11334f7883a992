//! Text files of this machine: read, and put in place whole. What a written file was before is in the record of the look
//! that comes first, which is what its undo reads.

use super::provenance::digest;
use super::undo::{Now, Past};
use super::{Binding, Call, Change, Look, Receipt};
use crate::config::LOCAL;
use crate::error::{Error, Kind, Result};
use crate::gate::journal::Journal;
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Pass};
use crate::redact;
use rhai::Dynamic;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs::{File, Metadata, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const READ: Verb = Verb {
    name: "file.read",
    class: Class::Read,
    waits: false,
    sig: "file::read(path: string) -> any",
    doc: "The text of a file of this machine. `()` when there is none; else a map: `path`, absolute, `text`, `sha256`, \
          `bytes`. A path that is not absolute counts from the working directory. Fails with `failed` for what is no plain \
          file, is larger than 192 KiB or no UTF-8, `denied` when it may not be read. Deadline 60 s.",
    example: r#"file::read("notes.md")"#,
};

const WRITE: Verb = Verb {
    name: "file.write",
    class: Class::Change,
    waits: false,
    sig: "file::write(path: string, text: string, options?: #{ expect: string }) -> receipt",
    doc: "Puts a text file of this machine in place. At once and whole, by a rename; a new one has mode 0644, one that is there \
          keeps its mode, owner and group. `before` and `after` are digests (SHA-256), `none` for no file. Options: `expect`, \
          the digest that must be there, or `none`: of several that write it at once, one does. The same text again changes \
          nothing. Undo brings the old text back. Fails with `unmet` for another text than `expect`, or one that came \
          meanwhile, `usage` for a secret in a line that was not there before and more than 192 KiB, `failed` where a link, a \
          folder, no plain file or one with several names (hard links) is, or the folder is locked, `not_found` without the \
          folder, `denied` when it may not be written or not be given its owner, `unknown` when it is in place and may not be \
          on the disk. Deadline 60 s.",
    example: r#"file::write("notes.md", "all is well", #{ expect: "none" })"#,
};

const PUT_BACK: Verb = Verb {
    name: "file.put_back",
    class: Class::Change,
    waits: false,
    sig: "file::put_back(path: string, digest: string, effect: string) -> receipt",
    doc: "Puts a file back as it was. `effect` is the look before `file::write` in the journal, which has the text; `digest` is \
          its SHA-256, `none` for no file: then the file is removed. One that is not there gets the mode, owner and group that \
          it had; none becomes more readable than it was. Result as `file::write`. Fails with `not_found` when the \
          journal has no such look, `failed` when that look has not all of the text; else as `file::write`. Deadline 60 s.",
    example: r#"file::put_back("/srv/notes.md", "none", "20261124-061743-k3f9.1")"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] =
    &[Binding::Read(&READ, read), Binding::Undoable(&WRITE, write, now), Binding::Undoable(&PUT_BACK, put_back, now)];

/// So much is kept whole in the record of a read.
const LARGEST: usize = 192 << 10;

/// How often and how long another opsh is waited for that writes in the same folder: 5 s, and it needs a moment.
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The state of a file that is not there.
const NONE: &str = "none";

/// What is at a path.
struct Seen {
    /// Digest of the text, or [`NONE`].
    state: String,
    text: String,
    access: Option<Access>,
}

impl Seen {
    fn to_json(&self) -> Value {
        json!({ "sha256": self.state, "bytes": self.text.len(), "text": self.text })
    }

    /// The same, with who may do what: what is put back out of this record is for no more people than it was.
    fn with_access(&self) -> Value {
        let mut value = self.to_json();
        if let Some(access) = self.access {
            value["mode"] = json!(format!("{:04o}", access.mode));
            value["owner"] = json!([access.user, access.group]);
        }
        value
    }
}

/// Who may do what with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Access {
    mode: u32,
    user: u32,
    group: u32,
}

impl Access {
    fn of(about: &Metadata) -> Access {
        Access { mode: about.mode() & 0o777, user: about.uid(), group: about.gid() }
    }

    /// Out of a record of [`Seen::with_access`]; older records have none.
    fn recorded(value: &Value) -> Option<Access> {
        let id = |at: usize| value["owner"][at].as_u64().and_then(|id| u32::try_from(id).ok());
        let mode = u32::from_str_radix(value["mode"].as_str()?, 8).ok()?;
        Some(Access { mode: mode & 0o777, user: id(0)?, group: id(1)? })
    }
}

/// Argument `at` as an absolute path.
fn path_of(call: &Call<'_>, at: usize) -> Result<PathBuf> {
    let text = call.text(at)?;
    if text.is_empty() || text.contains('\0') {
        return Err(call.bad("the path is no path of a file"));
    }
    let path = call.world.gate.dir().join(text);
    std::path::absolute(&path).map_err(|error| call.bad(&error.to_string()))
}

fn read(call: &Call<'_>) -> Result<Dynamic> {
    let path = path_of(call, 0)?;
    let shown = path.display().to_string();
    let look = Look::at(call.world.host_target(LOCAL), &shown, json!({ "path": shown }));
    let value = call.read(look, path, |pass, path| async move {
        let seen = blocking(pass, move |pass| seen(pass, &path)).await?;
        Ok(if seen.state == NONE { Value::Null } else { seen.to_json() })
    })?;
    let mut value = value;
    if value.is_object() {
        value["path"] = json!(shown);
    }
    Ok(super::map(value))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Options {
    expect: Option<String>,
}

fn write(call: &Call<'_>) -> Result<Receipt> {
    let (path, text, options) = (path_of(call, 0)?, call.text(1)?, call.options::<Options>(2)?);
    if text.len() > LARGEST {
        return Err(call.bad(&format!("the text has {} bytes, and {LARGEST} is the most", text.len())));
    }
    let args = json!({ "path": path.display().to_string(), "sha256": digest(&text) });
    call.intends(|| intended(call, &path, args.clone()))?;
    let there = look_first(call, &path)?;
    let state = there["sha256"].as_str().unwrap_or(NONE);
    if let Some(expected) = options.expect.filter(|expected| expected != state) {
        let why = format!("its SHA-256 is {state}, and should be {expected}: somebody changed it since it was read");
        return Err(failed(&path, Kind::Unmet, why));
    }
    refuse_new_secrets(&path, &text, there["text"].as_str().unwrap_or_default())?;
    let change = change(call, &path, args, &there);
    call.change(change, (path, state.to_string(), text), |pass, (path, before, text)| async move {
        put_alone(pass, path, before, Some(text), None).await
    })
}

fn put_back(call: &Call<'_>) -> Result<Receipt> {
    let (path, sha256, effect) = (path_of(call, 0)?, call.text(1)?, call.text(2)?);
    let args = json!({ "path": path.display().to_string(), "sha256": sha256, "effect": effect });
    call.intends(|| intended(call, &path, args.clone()))?;
    let there = look_first(call, &path)?;
    let before = there["sha256"].as_str().unwrap_or(NONE).to_string();
    let change = change(call, &path, args, &there);
    let context = (path, before, sha256, effect, call.world.state.dir().to_path_buf());
    call.change(change, context, |pass, (path, before, sha256, effect, journal)| async move {
        let (text, had) = if sha256 == NONE {
            (None, None)
        } else {
            let (text, had) = kept(&path, &journal, &effect, &sha256)?;
            (Some(text), had)
        };
        put_alone(pass, path, before, text, had).await
    })
}

/// What is there before a change, with its text: a look of its own, whose record outlives a crash in the middle of the
/// change.
fn look_first(call: &Call<'_>, path: &Path) -> Result<Value> {
    let shown = path.display().to_string();
    let look = Look::at(call.world.host_target(LOCAL), &shown, json!({ "before": "write", "path": shown }));
    // One verb for both: what goes back looks at the same thing.
    let effect =
        crate::gate::Effect { class: Class::Read, place: call.place.clone(), ..Change::of(look).effect(&WRITE) };
    let path = path.to_path_buf();
    let done =
        call.world.gate.perform(&effect, move |pass| {
            let path = path.clone();
            async move {
                blocking(pass, move |pass| replaceable(pass, &path)).await.map(|seen| Did::value(seen.with_access()))
            }
        })?;
    Ok(done.into_value())
}

/// The change, as far as its arguments tell.
fn intended(call: &Call<'_>, path: &Path, args: Value) -> Change {
    Change::of(Look::at(call.world.host_target(LOCAL), path.display().to_string(), args))
}

/// The change, and what takes it back, if the record of the look before has all of the old text.
fn change(call: &Call<'_>, path: &Path, args: Value, there: &Value) -> Change {
    let (shown, gate) = (path.display().to_string(), &call.world.gate);
    let state = there["sha256"].as_str().unwrap_or(NONE);
    let change = intended(call, path, args);
    let text = there["text"].as_str().unwrap_or_default();
    if redact::clean(text) != text {
        return Change { before: json!(state), ..change };
    }
    // The look was the last effect of this run.
    let look = format!("{}.{}", gate.run_id(), gate.effects());
    let line = format!("file::put_back({}, {}, {})", json!(shown), json!(state), json!(look));
    change.undone_by(line, state)
}

fn now(past: &Past<'_>) -> Result<Now> {
    let (path, wanted) = (past.text("path"), past.text("sha256"));
    past.look(path.clone(), (PathBuf::from(path), wanted), |pass, (path, wanted)| async move {
        let seen = blocking(pass, move |pass| seen(pass, &path)).await?;
        Ok((json!(seen.state), json!(wanted)))
    })
}

/// A secret may stay where a person put it; nothing new brings one.
fn refuse_new_secrets(path: &Path, text: &str, old: &str) -> Result<()> {
    let clean = redact::clean(text);
    let differs = text.lines().zip(clean.lines()).position(|(line, clean)| line != clean && !old.contains(line));
    match differs {
        None => Ok(()),
        Some(at) => Err(failed(path, Kind::Usage, format!("line {} of the text holds a secret", at + 1))),
    }
}

/// The text that a look of the past saw, and for whom it was.
fn kept(path: &Path, state_dir: &Path, effect: &str, sha256: &str) -> Result<(String, Option<Access>)> {
    let entry = Journal::look(state_dir)?.looked(effect)?;
    let value = &entry.body["value"];
    let text = value["text"].as_str().unwrap_or_default().to_string();
    if digest(&text) == sha256 {
        return Ok((text, Access::recorded(value)));
    }
    Err(failed(path, Kind::Failed, format!("the record of {effect} has not all of its text")))
}

fn failed(path: &Path, kind: Kind, why: impl Into<String>) -> Error {
    Error::new(kind, format!("{} was not written", path.display()), why)
        .next(format!("file::read({})     what is there", json!(path.display().to_string())))
}

/// Does what may wait for a disk beside the thread that hears Ctrl-C.
async fn blocking<T: Send + 'static>(pass: Pass, work: impl FnOnce(&Pass) -> Result<T> + Send + 'static) -> Result<T> {
    pass.asking();
    match tokio::task::spawn_blocking(move || work(&pass)).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(Kind::Unknown, "a file was worked on", error.to_string())),
    }
}

fn io_failed(path: &Path, doing: &str, error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => Kind::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
        _ => Kind::Failed,
    };
    Error::new(kind, format!("{} cannot be {doing}", path.display()), error.to_string())
}

/// Looks at the file.
#[expect(clippy::disallowed_methods, reason = "the home of files that scripts read")]
fn seen(_: &Pass, path: &Path) -> Result<Seen> {
    let cannot = |why: String| Error::new(Kind::Failed, format!("{} cannot be read", path.display()), why);
    let about = match std::fs::metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Seen { state: NONE.into(), text: String::new(), access: None });
        }
        Err(error) => return Err(io_failed(path, "read", &error)),
    };
    // A pipe would be waited for, and a device read without end.
    if !about.is_file() {
        return Err(cannot("it is a folder, a pipe or a device, and no plain file".into()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| io_failed(path, "read", &error))?;
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes).map_err(|error| io_failed(path, "read", &error))?;
    if bytes.len() > LARGEST {
        return Err(cannot(format!("it has more than {LARGEST} bytes, which is the most")));
    }
    let text = String::from_utf8(bytes).map_err(|_| cannot("it is no UTF-8 text".into()))?;
    Ok(Seen { state: digest(&text), text, access: Some(Access::of(&about)) })
}

/// Looks at a file that is to be put in place: a link there would be replaced, and what it leads to would stay; so would
/// the text under the other names of the file.
fn replaceable(pass: &Pass, path: &Path) -> Result<Seen> {
    let about = std::fs::symlink_metadata(path);
    if about.as_ref().is_ok_and(|about| about.is_file() && about.nlink() > 1) {
        let why = "it has more than one name (hard links), and only this one would be written";
        return Err(failed(path, Kind::Failed, why));
    }
    if about.is_ok_and(|about| about.is_symlink()) {
        let to = std::fs::canonicalize(path).map(|to| to.display().to_string()).unwrap_or_else(|_| "nothing".into());
        return Err(failed(path, Kind::Failed, format!("it is a link to {to}: name that file")));
    }
    let folder = folder_of(path);
    if !folder.is_dir() {
        return Err(failed(path, Kind::NotFound, format!("there is no folder {}", folder.display())));
    }
    seen(pass, path)
}

/// Puts a file in place, or removes it, while no other opsh does so in the same folder. `had` is who may do what with it
/// by the record that it is put back from.
#[expect(clippy::disallowed_methods, reason = "the home of files that scripts write")]
async fn put_alone(
    pass: Pass,
    path: PathBuf,
    before: String,
    text: Option<String>,
    had: Option<Access>,
) -> Result<Did> {
    let at = path.clone();
    // Open before anything is done: a folder that may not be read could not be synced afterwards.
    let folder =
        blocking(pass.twin(), move |_| File::open(folder_of(&at)).map_err(|error| io_failed(&at, "written", &error)));
    let folder = folder.await?;
    // A file system that has no locks is written to without: the looks right before the rename are what counts.
    let mut tries = 0;
    while matches!(folder.try_lock(), Err(TryLockError::WouldBlock)) {
        if tries == LOCK_TRIES {
            let why = format!("another program has locked the folder {}", folder_of(&path).display());
            return Err(failed(&path, Kind::Failed, why));
        }
        tries += 1;
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    blocking(pass, move |pass| put(pass, &folder, &path, &before, text.as_deref(), had)).await
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Puts the file in place, or removes it, when what is there has this digest.
#[expect(clippy::disallowed_methods, reason = "the home of files that scripts write")]
fn put(pass: &Pass, folder: &File, path: &Path, before: &str, text: Option<&str>, had: Option<Access>) -> Result<Did> {
    let there = replaceable(pass, path)?;
    let wanted = text.map_or(NONE.to_string(), digest);
    if there.state != before {
        return Err(came_meanwhile(path, &there.state));
    }
    let did =
        Did { changed: there.state != wanted, before: json!(there.state), after: json!(wanted), ..Did::default() };
    if !did.changed {
        return Ok(did);
    }
    match text {
        None => std::fs::remove_file(path).map_err(|error| io_failed(path, "removed", &error))?,
        Some(text) => {
            let new = path.with_file_name(format!(".opsh-{}", pass.effect()));
            let placed = prepare(path, &new, text, there.access, had).and_then(|()| place(pass, path, &new, &there));
            placed.inspect_err(|_| drop(std::fs::remove_file(&new)))?;
        }
    }
    landed(path, &wanted, folder.sync_all(), seen(pass, path).map(|seen| seen.state)).map(|()| did)
}

fn came_meanwhile(path: &Path, state: &str) -> Error {
    failed(path, Kind::Unmet, format!("somebody changed it meanwhile: its SHA-256 is {state} now"))
}

/// Writes `new` beside the file, on the disk and for whom the file is.
#[expect(clippy::disallowed_methods, reason = "the home of files that scripts write")]
fn prepare(path: &Path, new: &Path, text: &str, has: Option<Access>, had: Option<Access>) -> Result<()> {
    let work = || -> io::Result<()> {
        if has.is_some_and(|access| access.mode & 0o200 == 0) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the file is read-only"));
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
        let own = Access::of(&file.metadata()?);
        let access = match (has, had) {
            (Some(has), Some(had)) => Access { mode: has.mode & had.mode, ..has },
            (has, had) => has.or(had).unwrap_or(Access { mode: 0o644, ..own }),
        };
        file.write_all(text.as_bytes())?;
        if (access.user, access.group) != (own.user, own.group) {
            std::os::unix::fs::fchown(&file, Some(access.user), Some(access.group)).map_err(|error| {
                let (user, group) = (access.user, access.group);
                io::Error::new(error.kind(), format!("it could not be left to user {user} and group {group}: {error}"))
            })?;
        }
        file.set_permissions(std::fs::Permissions::from_mode(access.mode))?;
        file.sync_all()
    };
    work().map_err(|error| io_failed(path, "written", &error))
}

/// Gives `new` the file's name, when what is there is still what was looked at.
#[expect(clippy::disallowed_methods, reason = "the home of files that scripts write")]
fn place(pass: &Pass, path: &Path, new: &Path, there: &Seen) -> Result<()> {
    if there.state != NONE {
        let now = replaceable(pass, path)?;
        if (&now.state, now.access) != (&there.state, there.access) {
            return Err(came_meanwhile(path, &now.state));
        }
        return std::fs::rename(new, path).map_err(|error| io_failed(path, "written", &error));
    }
    // A rename would replace a file that came meanwhile; a link does not.
    match std::fs::hard_link(new, path) {
        Ok(()) => std::fs::remove_file(new).map_err(|error| in_doubt(path, &error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(failed(path, Kind::Unmet, "somebody made it meanwhile"))
        }
        Err(error) => Err(io_failed(path, "written", &error)),
    }
}

/// After the rename: what fails now does not mean that nothing happened.
fn landed(path: &Path, wanted: &str, synced: io::Result<()>, left: Result<String>) -> Result<()> {
    match synced {
        // What a file system says that cannot sync a folder.
        Err(error) if error.kind() != io::ErrorKind::InvalidInput => return Err(in_doubt(path, &error.to_string())),
        _ => {}
    }
    match left {
        Ok(left) if left == wanted => Ok(()),
        Ok(left) => Err(in_doubt(path, &format!("its SHA-256 is {left} afterwards, and should be {wanted}"))),
        Err(error) => Err(in_doubt(path, &error.why)),
    }
}

fn in_doubt(path: &Path, why: &str) -> Error {
    Error::new(Kind::Unknown, format!("{} may have been written", path.display()), why)
        .next(format!("file::read({})     what is there", json!(path.display().to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_after_the_rename_may_have_happened() {
        let path = Path::new("/srv/n");
        let kind = |synced, left| landed(path, "01", synced, left).map_err(|error| error.kind);
        assert_eq!(kind(Ok(()), Ok("01".into())), Ok(()));
        assert_eq!(kind(Err(io::ErrorKind::InvalidInput.into()), Ok("01".into())), Ok(()));
        assert_eq!(kind(Err(io::ErrorKind::StorageFull.into()), Ok("01".into())), Err(Kind::Unknown));
        assert_eq!(kind(Ok(()), Ok("02".into())), Err(Kind::Unknown));
        assert_eq!(kind(Ok(()), Err(Error::new(Kind::Denied, "x", "y"))), Err(Kind::Unknown));
    }
}
