//! Records as JSON lines: what `opsh journal export` prints, `prune` leaves and `:save` writes. The first line says the
//! format, and the last one how many there are and what their digest is, so that a file which was cut is seen.

use super::Entry;
use super::entry::hex;
use crate::error::{Error, Kind, Result};
use crate::screen::json_line;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Exports from this format on end with a line of this kind.
const FORMAT: u64 = 2;
const END: &str = "recording.end";

/// Writes an export line by line.
#[derive(Default)]
pub struct Lines {
    digest: Sha256,
    records: u64,
    run: Value,
}

impl Lines {
    /// A record as its line, without what is secret now.
    pub fn record(&mut self, entry: &Entry) -> String {
        let mut json = entry.to_json();
        if self.records == 0 {
            json["format"] = json!(FORMAT);
            self.run = json["run"].clone();
        }
        let line = json_line(json);
        self.records += 1;
        add(&mut self.digest, &line);
        line
    }

    /// The last line.
    pub fn end(self) -> String {
        let sha256 = hex(&self.digest.finalize());
        json_line(json!({ "kind": END, "run": self.run, "records": self.records, "sha256": sha256 }))
    }
}

/// Every line of an export of these records.
pub fn lines<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<String> {
    let mut out = Lines::default();
    let mut lines: Vec<String> = entries.into_iter().map(|entry| out.record(entry)).collect();
    lines.push(out.end());
    lines
}

fn add(digest: &mut Sha256, line: &str) {
    digest.update(line.as_bytes());
    digest.update(b"\n");
}

/// The records of an export. `name` is the file's, for errors. One that says no format is of an opsh that wrote no last line.
///
/// Fails with `usage` for a line that is no JSON, and when lines are missing or other ones.
pub fn records(name: &str, text: &str) -> Result<Vec<Value>> {
    let bad = |why: String| {
        Error::new(Kind::Usage, format!("{name} is no recording"), why)
            .next("opsh journal export RUN > FILE     makes one")
    };
    let (mut records, mut digest, mut last) = (Vec::new(), Sha256::new(), Value::Null);
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let value: Value = serde_json::from_str(line).map_err(|error| bad(format!("line {}: {error}", at + 1)))?;
        if !last.is_null() {
            return Err(bad(format!("line {} stands behind its end", at + 1)));
        }
        if value["kind"] == END {
            last = value;
            continue;
        }
        add(&mut digest, line);
        records.push(value);
    }
    let format = records.first().map_or(Value::Null, |first: &Value| first["format"].clone());
    match format.as_u64() {
        None if format.is_null() => return Ok(records),
        Some(0..FORMAT) => return Ok(records),
        Some(FORMAT) => {}
        _ => return Err(bad(format!("its format is {format}, which a newer opsh wrote"))),
    }
    if last.is_null() {
        return Err(bad(format!("it was cut: its last line, {END}, is missing")));
    }
    if last["records"] != json!(records.len()) {
        return Err(bad(format!("it has {} records, and had {} when it was exported", records.len(), last["records"])));
    }
    if last["sha256"] != json!(hex(&digest.finalize())) {
        let error = bad("its records are not those that were exported".into());
        return Err(error.next("delete its last line, and \"format\" in its first     when a person changed it"));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An export of three records.
    fn export() -> Vec<String> {
        let (mut lines, mut digest) = (Vec::new(), Sha256::new());
        for at in 0..3 {
            let mut record = json!({ "kind": "note", "run": "r", "at": at });
            if at == 0 {
                record["format"] = json!(FORMAT);
            }
            add(&mut digest, &record.to_string());
            lines.push(record.to_string());
        }
        lines.push(json!({ "kind": END, "run": "r", "records": 3, "sha256": hex(&digest.finalize()) }).to_string());
        lines
    }

    #[test]
    fn an_export_that_was_cut_anywhere_is_refused() {
        let text = format!("{}\n", export().join("\n"));
        assert_eq!(records("x", &text).expect("whole").len(), 3);
        assert_eq!(records("x", &text.replace('\n', "\r\n")).expect("whole").len(), 3);
        let end_of_first = text.find('\n').expect("a line");
        for cut in end_of_first..text.len() - 1 {
            assert!(records("x", &text[..cut]).is_err(), "{cut}: {}", &text[..cut]);
        }
    }

    #[test]
    fn a_line_that_is_missing_or_changed_is_found() {
        let lines = export();
        for left_out in 1..3 {
            let mut fewer = lines.clone();
            fewer.remove(left_out);
            assert!(records("x", &fewer.join("\n")).is_err());
        }
        let changed = lines.join("\n").replace("\"at\":1", "\"at\":7");
        assert!(records("x", &changed).expect_err("changed").next.iter().any(|next| next.contains("delete")));
        let twice = format!("{}\n{}", lines.join("\n"), lines[1]);
        assert!(records("x", &twice).is_err());
        let newer = lines.join("\n").replace("\"format\":2", "\"format\":3");
        assert!(records("x", &newer).expect_err("newer").why.contains("newer"));
    }

    #[test]
    fn a_recording_without_a_format_still_reads() {
        assert_eq!(records("x", "{\"kind\":\"run.start\"}\n\n{\"kind\":\"note\"}").expect("old").len(), 2);
    }
}
