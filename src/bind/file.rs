//! Text files of this machine: read, and put in place whole. What a written file was before is in the record of the look
//! that comes first, which is what its undo reads.

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
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

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
          keeps its own. `before` and `after` are digests (SHA-256), `none` for no file. Options: `expect`, the digest that \
          must be there, or `none`. The same text again changes nothing. Undo brings the old text back. Fails with `unmet` for \
          another text than `expect`, or one that came meanwhile, `usage` for a secret in a line that was not there before and \
          more than 192 KiB, `failed` where a link, a folder or no plain file is, `not_found` without the folder, `denied` \
          when it may not be written. Deadline 60 s.",
    example: r#"file::write("notes.md", "all is well", #{ expect: "none" })"#,
};

const PUT_BACK: Verb = Verb {
    name: "file.put_back",
    class: Class::Change,
    waits: false,
    sig: "file::put_back(path: string, digest: string, effect: string) -> receipt",
    doc: "Puts a file back as it was. `effect` is the look before `file::write` in the journal, which has the text; `digest` is \
          its SHA-256, `none` for no file: then the file is removed. Result as `file::write`. Fails with `not_found` when the \
          journal has no such look, `failed` when that look has not all of the text; else as `file::write`. Deadline 60 s.",
    example: r#"file::put_back("/srv/notes.md", "none", "20261124-061743-k3f9.1")"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] =
    &[Binding::Read(&READ, read), Binding::Undoable(&WRITE, write, now), Binding::Undoable(&PUT_BACK, put_back, now)];

/// So much is kept whole in the record of a read.
const LARGEST: usize = 192 << 10;

/// The state of a file that is not there.
const NONE: &str = "none";

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is at a path.
struct Seen {
    /// Digest of the text, or [`NONE`].
    state: String,
    text: String,
}

impl Seen {
    fn to_json(&self) -> Value {
        json!({ "sha256": self.state, "bytes": self.text.len(), "text": self.text })
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
    let there = look_first(call, &path)?;
    let state = there["sha256"].as_str().unwrap_or(NONE);
    if let Some(expected) = options.expect.filter(|expected| expected != state) {
        let why = format!("its SHA-256 is {state}, and should be {expected}: somebody changed it since it was read");
        return Err(failed(&path, Kind::Unmet, why));
    }
    refuse_new_secrets(&path, &text, there["text"].as_str().unwrap_or_default())?;
    let args = json!({ "path": path.display().to_string(), "sha256": digest(&text) });
    let change = change(call, &path, args, &there);
    call.change(change, (path, state.to_string(), text), |pass, (path, before, text)| async move {
        blocking(pass, move |pass| put(pass, &path, &before, Some(&text))).await
    })
}

fn put_back(call: &Call<'_>) -> Result<Receipt> {
    let (path, sha256, effect) = (path_of(call, 0)?, call.text(1)?, call.text(2)?);
    let there = look_first(call, &path)?;
    let before = there["sha256"].as_str().unwrap_or(NONE).to_string();
    let args = json!({ "path": path.display().to_string(), "sha256": sha256, "effect": effect });
    let change = change(call, &path, args, &there);
    let context = (path, before, sha256, effect, call.world.state_dir.clone());
    call.change(change, context, |pass, (path, before, sha256, effect, journal)| async move {
        let text = if sha256 == NONE { None } else { Some(kept(&path, &journal, &effect, &sha256)?) };
        blocking(pass, move |pass| put(pass, &path, &before, text.as_deref())).await
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
    let done = call.world.gate.perform(&effect, move |pass| {
        let path = path.clone();
        async move { blocking(pass, move |pass| replaceable(pass, &path)).await.map(|seen| Did::value(seen.to_json())) }
    })?;
    Ok(done.into_value())
}

/// The change, and what takes it back, if the record of the look before has all of the old text.
fn change(call: &Call<'_>, path: &Path, args: Value, there: &Value) -> Change {
    let (shown, gate) = (path.display().to_string(), &call.world.gate);
    let state = there["sha256"].as_str().unwrap_or(NONE);
    let change = Change::of(Look::at(call.world.host_target(LOCAL), &shown, args));
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

/// The text that a look of the past saw.
fn kept(path: &Path, state_dir: &Path, effect: &str, sha256: &str) -> Result<String> {
    let entry = Journal::look(state_dir)?.looked(effect)?;
    let text = entry.body["value"]["text"].as_str().unwrap_or_default().to_string();
    if digest(&text) == sha256 {
        return Ok(text);
    }
    Err(failed(path, Kind::Failed, format!("the record of {effect} has not all of its text")))
}

fn failed(path: &Path, kind: Kind, why: impl Into<String>) -> Error {
    Error::new(kind, format!("{} was not written", path.display()), why)
        .next(format!("file::read({})     what is there", json!(path.display().to_string())))
}

/// Does what may wait for a disk beside the thread that hears Ctrl-C.
async fn blocking<T: Send + 'static>(pass: Pass, work: impl FnOnce(&Pass) -> Result<T> + Send + 'static) -> Result<T> {
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
            return Ok(Seen { state: NONE.into(), text: String::new() });
        }
        Err(error) => return Err(io_failed(path, "read", &error)),
    };
    // A pipe would be waited for, and a device read without end.
    if !about.is_file() {
        return Err(cannot("it is a folder, a pipe or a device, and no plain file".into()));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| io_failed(path, "read", &error))?;
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes).map_err(|error| io_failed(path, "read", &error))?;
    if bytes.len() > LARGEST {
        return Err(cannot(format!("it has more than {LARGEST} bytes, which is the most")));
    }
    let text = String::from_utf8(bytes).map_err(|_| cannot("it is no UTF-8 text".into()))?;
    Ok(Seen { state: digest(&text), text })
}

/// Looks at a file that is to be put in place: a link there would be replaced, and what it leads to would stay.
fn replaceable(pass: &Pass, path: &Path) -> Result<Seen> {
    if std::fs::symlink_metadata(path).is_ok_and(|about| about.is_symlink()) {
        let to = std::fs::canonicalize(path).map(|to| to.display().to_string()).unwrap_or_else(|_| "nothing".into());
        return Err(failed(path, Kind::Failed, format!("it is a link to {to}: name that file")));
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        return Err(failed(path, Kind::NotFound, format!("there is no folder {}", folder.display())));
    }
    seen(pass, path)
}

/// Puts the file in place, or removes it, when what is there has this digest.
#[expect(clippy::disallowed_methods, reason = "the home of files that scripts write")]
fn put(pass: &Pass, path: &Path, before: &str, text: Option<&str>) -> Result<Did> {
    let there = replaceable(pass, path)?.state;
    let wanted = text.map_or(NONE.to_string(), digest);
    if there != before {
        return Err(failed(path, Kind::Unmet, format!("somebody changed it meanwhile: its SHA-256 is {there} now")));
    }
    let did = Did { changed: there != wanted, before: json!(there), after: json!(wanted), ..Did::default() };
    if !did.changed {
        return Ok(did);
    }
    match text {
        None => std::fs::remove_file(path).map_err(|error| io_failed(path, "removed", &error))?,
        Some(text) => {
            let new = path.with_file_name(format!(".opsh-{}", pass.effect()));
            replace(path, &new, text).inspect_err(|_| drop(std::fs::remove_file(&new)))?;
        }
    }
    let left = seen(pass, path)?.state;
    if left != wanted {
        return Err(failed(path, Kind::Failed, format!("its SHA-256 is {left} afterwards, and should be {wanted}")));
    }
    Ok(did)
}

/// Writes `new` beside the file, and gives it the file's name once it is on the disk.
#[expect(clippy::disallowed_methods, reason = "the home of files that scripts write")]
fn replace(path: &Path, new: &Path, text: &str) -> Result<()> {
    let work = || -> io::Result<()> {
        let old = std::fs::metadata(path).map(|about| about.permissions().mode() & 0o777).ok();
        if old.is_some_and(|mode| mode & 0o200 == 0) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the file is read-only"));
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(std::fs::Permissions::from_mode(old.unwrap_or(0o644)))?;
        file.sync_all()?;
        std::fs::rename(new, path)?;
        std::fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    work().map_err(|error| io_failed(path, "written", &error))
}
