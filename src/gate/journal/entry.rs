//! One record: its fields, its link to the one before, its bounds, its row.

use super::Record;
use crate::gate::clock;
use crate::redact;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A body larger than this many bytes is kept as its beginning, length and digest.
pub const LARGEST_BODY: usize = 64 << 10;

/// As [`LARGEST_BODY`], for what was read: a replay answers with it.
pub const LARGEST_READ: usize = 256 << 10;

/// Every column, in the order of [`entry`].
pub const SELECT: &str =
    "SELECT seq, kind, at_us, mono_us, boot, actor, run, effect, target, class, body, prev, hash FROM journal";

/// What was written.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Position, from 1, without gaps.
    pub seq: i64,
    /// As in [`Record`].
    pub kind: String,
    /// Wall clock when it was written here, microseconds since 1970. The order of records is that of `seq`: this clock
    /// may be set back, and then `clock_back_us` in the body says by how much.
    pub at_us: i64,
    /// Monotonic clock, microseconds since boot.
    pub mono_us: i64,
    /// Id of that boot.
    pub boot: String,
    /// The person.
    pub actor: String,
    /// The run; `-` for what the journal says about itself.
    pub run: String,
    /// The effect.
    pub effect: Option<String>,
    /// The host or stack.
    pub target: Option<String>,
    /// Class of the effect.
    pub class: Option<String>,
    /// Facts.
    pub body: Value,
    pub(super) body_text: String,
    pub(super) prev: Vec<u8>,
    pub(super) hash: Vec<u8>,
}

/// The end of a chain: what the next record follows.
#[derive(Clone, Debug)]
pub struct Last {
    pub seq: i64,
    pub at_us: i64,
    pub hash: Vec<u8>,
}

impl Entry {
    /// A record as it happens: cleaned of secrets, bounded, not yet in a chain.
    pub fn draft(record: &Record<'_>) -> Entry {
        let largest = if record.kind == "effect.read" { LARGEST_READ } else { LARGEST_BODY };
        Entry {
            seq: 0,
            kind: record.kind.into(),
            at_us: clock::wall_us(),
            mono_us: clock::monotonic_us(),
            boot: clock::boot().into(),
            actor: super::actor(),
            run: record.run.into(),
            effect: record.effect.map(String::from),
            target: record.target.map(String::from),
            class: record.class.map(|class| class.word().to_string()),
            body: bounded(redact::clean_json(record.body.clone()), largest),
            body_text: String::new(),
            prev: Vec::new(),
            hash: Vec::new(),
        }
    }

    /// Stamps the record with this moment and links it to the last one.
    pub(super) fn follow(&mut self, last: Option<&Last>) {
        (self.at_us, self.mono_us, self.boot) = (clock::wall_us(), clock::monotonic_us(), clock::boot().into());
        let back = last.map_or(0, |last| last.at_us - self.at_us);
        if back > 0 && self.body.is_object() {
            self.body["clock_back_us"] = json!(back);
        }
        self.seq = last.map_or(1, |last| last.seq + 1);
        self.prev = last.map_or_else(|| vec![0; 32], |last| last.hash.clone());
        self.body_text = self.body.to_string();
        self.hash = self.digest();
    }

    pub(super) fn last(&self) -> Last {
        Last { seq: self.seq, at_us: self.at_us, hash: self.hash.clone() }
    }

    /// What it opens or closes.
    pub(super) fn id(&self) -> &str {
        self.effect.as_ref().unwrap_or(&self.run)
    }

    /// The link of this record: 0x00 leaves 0x01 free for a tree over the records.
    pub(super) fn digest(&self) -> Vec<u8> {
        let mut header = Sha256::new();
        let fields = [
            Some(self.kind.as_str()),
            Some(&self.boot),
            Some(&self.actor),
            Some(&self.run),
            self.effect.as_deref(),
            self.target.as_deref(),
            self.class.as_deref(),
        ];
        header.update(self.at_us.to_be_bytes());
        header.update(self.mono_us.to_be_bytes());
        for field in fields {
            // A length of all ones tells an absent field from an empty one.
            header.update(field.map_or(u64::MAX, |text| text.len() as u64).to_be_bytes());
            header.update(field.unwrap_or_default());
        }
        Sha256::new()
            .chain_update([0])
            .chain_update("opsh/1")
            .chain_update(self.seq.to_be_bytes())
            .chain_update(&self.prev)
            .chain_update(header.finalize())
            .chain_update(Sha256::digest(self.body_text.as_bytes()))
            .finalize()
            .to_vec()
    }

    /// When it happened, microseconds since 1970: earlier than [`Entry::at_us`] when it came from a spill file.
    pub fn happened_us(&self) -> i64 {
        self.body["spilled"]["at_us"].as_i64().unwrap_or(self.at_us)
    }

    /// True when some of its values were too large to keep: such a record cannot answer in place of the world.
    pub fn is_cut(&self) -> bool {
        is_cut(&self.body) || self.body.as_object().is_some_and(|body| body.values().any(is_cut))
    }

    /// The record as one JSON object, as `opsh journal export` prints it.
    pub fn to_json(&self) -> Value {
        json!({
            "seq": self.seq, "kind": self.kind, "at": clock::rfc3339(self.at_us), "at_us": self.at_us,
            "mono_us": self.mono_us, "boot": self.boot, "actor": self.actor, "run": self.run, "effect": self.effect,
            "target": self.target, "class": self.class, "body": self.body, "prev": hex(&self.prev), "hash": hex(&self.hash),
        })
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A row of [`SELECT`].
pub fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let body_text: String = row.get(10)?;
    Ok(Entry {
        seq: row.get(0)?,
        kind: row.get(1)?,
        at_us: row.get(2)?,
        mono_us: row.get(3)?,
        boot: row.get(4)?,
        actor: row.get(5)?,
        run: row.get(6)?,
        effect: row.get(7)?,
        target: row.get(8)?,
        class: row.get(9)?,
        body: serde_json::from_str(&body_text).unwrap_or(Value::Null),
        body_text,
        prev: row.get(11)?,
        hash: row.get(12)?,
    })
}

/// Puts the record behind the last one, and opens or closes its run or effect for `process`. Returns its position;
/// `None` when it would be a second end and `late` is false.
pub fn put(
    connection: &Connection,
    mut entry: Entry,
    process: &clock::Process,
    late: bool,
) -> rusqlite::Result<Option<i64>> {
    if let Some(stem) = entry.kind.strip_suffix(".end")
        && !is_open(connection, entry.id())?
    {
        // Another opsh took this one for dead and ended it: what came of it all the same is a record of its own.
        if !late {
            return Ok(None);
        }
        entry.kind = format!("{stem}.late");
    }
    entry.follow(last(connection)?.as_ref());
    insert(connection, &entry)?;
    match entry.kind.as_str() {
        "run.start" | "effect.begin" => {
            let what = if entry.effect.is_some() { "effect" } else { "run" };
            let values = params![entry.id(), what, entry.seq, process.pid, process.start, process.boot];
            connection.execute("INSERT INTO open VALUES (?1,?2,?3,?4,?5,?6)", values)?;
        }
        "run.end" | "effect.end" => {
            connection.execute("DELETE FROM open WHERE id = ?1", params![entry.id()])?;
        }
        _ => {}
    }
    Ok(Some(entry.seq))
}

/// The end of the chain in this database.
pub fn last(connection: &Connection) -> rusqlite::Result<Option<Last>> {
    let newest = "SELECT seq, at_us, hash FROM journal ORDER BY seq DESC LIMIT 1";
    connection
        .query_row(newest, [], |row| Ok(Last { seq: row.get(0)?, at_us: row.get(1)?, hash: row.get(2)? }))
        .optional()
}

fn is_open(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM open WHERE id = ?1)", params![id], |row| row.get(0))
}

/// The row as it is.
pub fn insert(connection: &Connection, entry: &Entry) -> rusqlite::Result<()> {
    let values = params![
        entry.seq,
        entry.kind,
        entry.at_us,
        entry.mono_us,
        entry.boot,
        entry.actor,
        entry.run,
        entry.effect,
        entry.target,
        entry.class,
        entry.body_text,
        entry.prev,
        entry.hash
    ];
    connection.execute("INSERT INTO journal VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)", values).map(drop)
}

/// The body, with its largest values cut to beginning and end, length and digest, when it is too large to keep. What
/// undo and a reader need (verb, inverse, says, outcome, error) is small and stays.
fn bounded(mut body: Value, largest: usize) -> Value {
    for key in ["value", "args", "before", "after", "error", "facts"] {
        if body.to_string().len() <= largest {
            break;
        }
        if let Some(value) = body.get_mut(key) {
            *value = cut(value.take());
        }
    }
    if body.to_string().len() <= largest { body } else { cut(body) }
}

/// Bytes that are kept of each end of what is cut.
const KEPT: usize = LARGEST_BODY / 4;

fn cut(value: Value) -> Value {
    let text = value.to_string();
    if text.len() <= 2 * KEPT {
        return value;
    }
    let (head, tail) = (text.floor_char_boundary(KEPT), text.ceil_char_boundary(text.len() - KEPT));
    let digest = hex(&Sha256::digest(text.as_bytes()));
    json!({ "cut": { "head": &text[..head], "tail": &text[tail..], "bytes": text.len(), "sha256": digest } })
}

/// What [`cut`] leaves: exactly that, so that a map of a script with a key `cut` is not taken for it.
fn is_cut(value: &Value) -> bool {
    let keys =
        |value: &Value| value.as_object().map(|map| map.keys().map(String::as_str).collect::<Vec<_>>().join(" "));
    keys(value).as_deref() == Some("cut") && keys(&value["cut"]).as_deref() == Some("bytes head sha256 tail")
}
