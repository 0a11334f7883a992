//! What a run is made of: the script and what it imports, each with its hash, its commit, and whether it is as that has it.

use super::world::World;
use super::{Change, Look, git};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Did, Target};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::Duration;

/// Looked up by opsh itself, beside the run: a recording has no answer to it.
const SOURCE: Verb = Verb {
    name: "source.commit",
    class: Class::Read,
    waits: false,
    sig: "source.commit(file: string) -> map",
    doc: "The commit of a script. `commit` and `dirty`. Fails as `repo.head`. Deadline 2 s.",
    example: "",
};

/// A repository that is slower than this is on a disk that nobody should wait for.
const WITHIN: Duration = Duration::from_secs(2);

/// SHA-256 of a text, in hex.
pub fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes down that the run is made of this text, too: `role` is `script` or `import`, `file` where it was read, and none
/// for what is built in. What git says is left out where there is none, and in a replay.
pub fn note(world: &World, role: &str, name: &str, file: Option<&Path>, text: &str) {
    let mut body = json!({ "role": role, "name": name, "file": file, "sha256": digest(text) });
    if let Some(Value::Object(said)) = file.and_then(|file| committed(world, file, text)) {
        said.into_iter().for_each(|(key, value)| body[key] = value);
    }
    world.gate.note("source", body);
}

/// `commit` and `dirty` of a file, when git tells in time.
fn committed(world: &World, file: &Path, text: &str) -> Option<Value> {
    if world.git_is_slow.get() {
        return None;
    }
    let (folder, name) = (file.parent()?.to_str()?.to_string(), file.file_name()?.to_str()?.to_string());
    let target = Target { name: "local".into(), protected: false };
    let look = Look { target, args: json!([file]), says: file.display().to_string(), deadline: WITHIN };
    let effect = Change::of(look).effect(&SOURCE);
    let mut beside = world.gate.begin_beside("where a script comes from", vec![effect], |_, pass| {
        let (folder, name, text) = (folder.clone(), name.clone(), text.to_string());
        async move { git::committed(&pass, &folder, &name, &text).await.map(Did::value) }
    })?;
    // Nobody waits for it a second time.
    world.git_is_slow.set(!beside.has_ended_within(WITHIN));
    world.gate.end_beside(beside).pop().flatten()
}
