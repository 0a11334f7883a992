//! The journal as scripts read it: which runs there were, and what one of them did, as plain maps.

use super::{Binding, Call, Look};
use crate::error::Result;
use crate::gate::journal::{Entry, Fate, Journal, RunLine, Told};
use crate::gate::verb::{Class, Verb};
use crate::gate::{Target, clock};
use crate::redact;
use rhai::Dynamic;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const RUNS: Verb = Verb {
    name: "journal.runs",
    class: Class::Read,
    waits: false,
    sig: "journal::runs(count?: int) -> array",
    doc: "The newest runs in the journal of this opsh. At most `count` (1 to 200; 20 when not given), newest first, this one \
          among them. A map each: `run`, its id, `short`, the end of it that is enough, `at`, `actor`, `what`, `mode`, \
          `outcome` (`running` while it goes on), `changes`, how many it began, `unknown`, how many of them may have \
          happened. Fails with `journal` when it cannot be read. Deadline 60 s.",
    example: r#"journal::runs(5).filter(|one| one.outcome == "failed")"#,
};

const RUN: Verb = Verb {
    name: "journal.run",
    class: Class::Read,
    waits: false,
    sig: "journal::run(run: string, options?: #{ from: int, looks: array }) -> map",
    doc: "What a run did, from the journal, in pages. `run` is an id, or its beginning or end. The map of `journal::runs`, and \
          `records` in order: `seq`, `at`, `kind`, `effect`, `target`, `class` and `body`, whose long texts and lists are cut; \
          an `effect.begin` has `fate` too (`done`, `unchanged`, `failed`, `not_done`, `unknown`, `goes_on`, `said`), `why`, and \
          `undone_by`, a run. Of looks that succeeded `looks` counts each verb: `verb`, `count`, `first` and `last`, a `seq`, \
          `first_at` and `last_at`. `next` is where the next page begins, or `()`. Options: `from`, the `seq` to begin at; \
          `looks`, verbs whose looks are records too. Fails with `not_found` for no such run, `usage` for several, \
          `journal` when it cannot be read. Deadline 60 s.",
    example: r#"journal::run("k3f9", #{ looks: ["http.probe"] }).records.len()"#,
};

/// The bindings of this file.
pub const BINDINGS: &[Binding] = &[Binding::Read(&RUNS, runs), Binding::Read(&RUN, run)];

fn runs(call: &Call<'_>) -> Result<Dynamic> {
    let count = call.int_or(0, 20, 1..=200)?.unsigned_abs() as usize;
    let look = Look::at(Target::here(), format!("the newest {count}"), json!({ "count": count }));
    let value = call.read(look, call.world.state.dir().to_path_buf(), move |_, dir| async move {
        let journal = Journal::look(&dir)?;
        let short = journal.short_names()?;
        Ok(journal.runs(count)?.iter().map(|line| of_line(line, &short)).collect())
    })?;
    Ok(super::map(value))
}

fn of_line(line: &RunLine, short: &BTreeMap<String, String>) -> Value {
    json!({
        "run": line.run, "short": short.get(&line.run).unwrap_or(&line.run), "at": clock::rfc3339(line.at_us),
        "actor": line.actor, "what": unmarked(&line.what), "mode": line.mode, "outcome": line.outcome,
        "changes": line.changes, "unknown": line.unknown,
    })
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Options {
    from: i64,
    looks: Vec<String>,
}

fn run(call: &Call<'_>) -> Result<Dynamic> {
    let (run, options) = (call.text(0)?, call.options::<Options>(1)?);
    let args = json!({ "run": run, "from": options.from, "looks": options.looks });
    let look = Look::at(Target::here(), &run, args);
    let context = (call.world.state.dir().to_path_buf(), run, options);
    let value =
        call.read(look, context, |_, (dir, run, options)| async move { page(&Journal::look(&dir)?, &run, &options) })?;
    Ok(super::map(value))
}

/// A page ends when its records have so many bytes as JSON: the record of this look must hold it whole.
const PAGE: usize = 96 << 10;

/// Records that are read from the database at once.
const AT_ONCE: usize = 200;

fn page(journal: &Journal, id: &str, options: &Options) -> Result<Value> {
    let line = journal.run_line(id)?;
    let short = journal.short_names()?;
    let (mut records, mut looks, mut bytes) = (Vec::new(), Looks::default(), 0);
    let (mut from, mut next) = (options.from, Value::Null);
    'pages: loop {
        let entries = journal.run_part(&line.run, from, AT_ONCE)?;
        for entry in &entries {
            if bytes >= PAGE {
                next = json!(entry.seq);
                break 'pages;
            }
            from = entry.seq + 1;
            match quiet_verb(entry).filter(|verb| !options.looks.iter().any(|wanted| wanted == verb)) {
                // A change that looks before and behind itself is no look at anything.
                Some(verb) if super::verb(verb).is_some_and(|verb| verb.class != Class::Read) => {}
                Some(verb) => looks.count(verb, entry),
                None => {
                    let record = of_entry(journal, entry, &short)?;
                    bytes += record.to_string().len();
                    records.push(record);
                }
            }
        }
        if entries.len() < AT_ONCE {
            break;
        }
    }
    let mut page = of_line(&line, &short);
    (page["records"], page["looks"], page["next"]) = (records.into(), looks.into_json(), next);
    Ok(page)
}

/// The verb of a look that succeeded.
fn quiet_verb(entry: &Entry) -> Option<&str> {
    let is_quiet = entry.kind == "effect.read" && entry.body["outcome"] == "ok";
    entry.body["verb"].as_str().filter(|_| is_quiet)
}

/// Looks by their verb, in the order of their first.
#[derive(Default)]
struct Looks(Vec<Value>);

impl Looks {
    fn count(&mut self, verb: &str, entry: &Entry) {
        let at = clock::rfc3339(entry.happened_us());
        match self.0.iter_mut().find(|one| one["verb"] == verb) {
            Some(one) => {
                one["count"] = json!(one["count"].as_u64().unwrap_or(0) + 1);
                (one["last"], one["last_at"]) = (json!(entry.seq), json!(at));
            }
            None => self.0.push(json!({
                "verb": verb, "count": 1, "first": entry.seq, "last": entry.seq, "first_at": at, "last_at": at,
            })),
        }
    }

    fn into_json(self) -> Value {
        self.0.into()
    }
}

fn of_entry(journal: &Journal, entry: &Entry, short: &BTreeMap<String, String>) -> Result<Value> {
    let mut record = json!({
        "seq": entry.seq, "at": clock::rfc3339(entry.happened_us()), "kind": entry.kind, "effect": entry.effect,
        "target": entry.target, "class": entry.class, "body": brief(&entry.body),
    });
    if let ("effect.begin", Some(effect)) = (entry.kind.as_str(), &entry.effect) {
        for told in journal.changes(std::slice::from_ref(effect))? {
            let (fate, why) = fate(&told);
            let by = told.undone_by.as_ref().map(|run| short.get(run).unwrap_or(run));
            (record["fate"], record["why"], record["undone_by"]) = (json!(fate), cut(&why, 300).into(), json!(by));
        }
    }
    Ok(record)
}

fn fate(told: &Told) -> (&'static str, String) {
    match &told.fate {
        Fate::GoesOn => ("goes_on", String::new()),
        Fate::Happened { changed: true, .. } => ("done", String::new()),
        Fate::Happened { changed: false, .. } => ("unchanged", String::new()),
        Fate::DidNot(why) => ("not_done", why.clone()),
        Fate::Failed(why) => ("failed", why.clone()),
        Fate::Unknown => ("unknown", String::new()),
        Fate::Said(saw) => ("said", saw.clone()),
    }
}

/// A body with its long texts and lists cut, until it is short.
fn brief(body: &Value) -> Value {
    const LARGEST: usize = 8 << 10;
    for (chars, items) in [(400, 40), (200, 10), (80, 3)] {
        let brief = shortened(body, chars, items);
        if brief.to_string().len() <= LARGEST {
            return brief;
        }
    }
    let keys = ["verb", "says", "outcome", "text", "name", "saw", "what", "why"];
    let kept = keys.iter().filter_map(|key| body.get(key).map(|value| (key.to_string(), shortened(value, 200, 3))));
    kept.collect::<Map<_, _>>().into()
}

fn shortened(value: &Value, chars: usize, items: usize) -> Value {
    match value {
        Value::String(text) => cut(text, chars).into(),
        Value::Array(all) => all.iter().take(items).map(|item| shortened(item, chars, items)).collect(),
        // What the journal itself cut: a replay would take it for a value that is not whole.
        Value::Object(map) if map.len() == 1 && map.contains_key("cut") => {
            cut(map["cut"]["head"].as_str().unwrap_or_default(), chars).into()
        }
        Value::Object(map) => {
            let each = map.iter().take(5 * items).map(|(key, value)| (key.clone(), shortened(value, chars, items)));
            each.collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

fn cut(text: &str, chars: usize) -> String {
    unmarked(&redact::cut(text, chars))
}

/// What was hidden stays hidden; the tag behind the dots means something in that run only, and a replay would take a word
/// with it for one that the script needs.
fn unmarked(text: &str) -> String {
    let mut parts = text.split("•••#");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |out, part| out + "•••" + part.trim_start_matches(|c: char| c.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_shortened_until_it_fits_and_what_was_cut_before_becomes_a_text() {
        let body = json!({
            "verb": "x.y", "after": { "cut": { "head": "abc", "tail": "z", "bytes": 9, "sha256": "0" } },
            "args": { "list": vec!["x".repeat(300); 200] }, "says": "postgres://u:•••#3f9a@db/x",
        });
        let brief = brief(&body);
        assert!(brief.to_string().len() <= 8 << 10, "{brief}");
        assert_eq!((&brief["after"], &brief["says"]), (&json!("abc"), &json!("postgres://u:•••@db/x")));
        assert_eq!(brief["verb"], "x.y");
    }
}
