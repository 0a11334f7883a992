//! Intents: changes that were begun on a stack and have not ended, as a look at its folder tells of lock and intents.
//!
//! An intent is a file of lines beside the lock: who began what, each change before it is made, and why it stopped. Its
//! holder has it locked while it lives. An intent that nobody has locked was left: its opsh failed, was killed or lost
//! its link, and what it changed was not taken back.

use crate::bind::beside;
use crate::gate::{clock, journal};
use crate::redact;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One folder as `holder::look` saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// `free`, `busy`, `works`, `none`, `odd`, or `blind`.
    pub state: String,
    /// The host's uptime in seconds.
    pub up: i64,
    /// Its `lock.json`.
    pub lock: Value,
    /// Why a file there is not to be trusted.
    pub odd: Option<String>,
    /// Why something there could not be looked at.
    pub blind: Option<String>,
    /// A newer opsh wrote this file.
    pub newer: Option<String>,
    /// Open intents, oldest first.
    pub open: Vec<Value>,
}

impl Seen {
    /// Somebody has the lock, or what he left running has it.
    pub fn is_taken(&self) -> bool {
        ["busy", "works"].contains(&self.state.as_str())
    }
}

/// Reads what a look at these folders printed, by folder. An output that is not whole is no answer.
pub fn read(text: &str, folders: &[String]) -> Result<BTreeMap<String, Seen>, String> {
    let mut lines = text.lines();
    let mut all = BTreeMap::new();
    for (at, folder) in folders.iter().enumerate() {
        let cut = || format!("the host did not say all about {folder}");
        let (begin, end) = (format!("at {at}"), format!("end {at}"));
        lines.find(|line| *line == begin).ok_or_else(cut)?;
        let mut block = Vec::new();
        loop {
            match lines.next().ok_or_else(cut)? {
                line if line == end => break,
                line => block.push(line),
            }
        }
        all.insert(folder.clone(), block_of(&block).ok_or_else(cut)?);
    }
    Ok(all)
}

/// A folder's lines; `None` when they do not say how it stands.
fn block_of(lines: &[&str]) -> Option<Seen> {
    let mut seen = Seen::default();
    let mut rest = lines.iter().copied().filter(|line| !line.is_empty()).peekable();
    while let Some(line) = rest.next() {
        let mut below = Vec::new();
        while let Some(text) = rest.next_if(|line| line.starts_with(' ')) {
            below.push(&text[1..]);
        }
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["none"] if seen.state.is_empty() => seen.state = "none".into(),
            [state @ ("free" | "busy" | "works"), up] if seen.state.is_empty() => {
                (seen.state, seen.up) = (state.into(), up.parse().unwrap_or_default());
                seen.lock = lock_of(below.first().copied().unwrap_or_default());
                if beside::format_of(&seen.lock) > beside::FORMAT {
                    seen.newer = Some("lock.json".into());
                }
            }
            ["odd"] => seen.odd = Some(below.concat()),
            ["blind"] => seen.blind = Some(below.concat()),
            ["more"] => seen.blind = Some("it has more open intents than are looked at".into()),
            ["intent", alive @ ("alive" | "left"), file] => keep(&mut seen, alive == "alive", file, &below),
            _ => return None,
        }
    }
    if seen.state.is_empty() {
        seen.state = if seen.odd.is_some() { "odd".into() } else { seen.blind.as_ref().map(|_| "blind".into())? };
    }
    seen.open.sort_by_key(|open| open["since"].as_str().map(String::from));
    Some(seen)
}

/// A `lock.json`; a run in it that is none is left out.
fn lock_of(line: &str) -> Value {
    let mut lock: Value = serde_json::from_str(line).unwrap_or_default();
    for part in ["holder", "last"] {
        if lock[part].is_object() {
            lock[part]["run"] = json!(run_of(&lock[part]));
        }
    }
    lock
}

/// The run that a shared text names.
pub fn run_of(value: &Value) -> Option<&str> {
    clock::as_run_id(value["run"].as_str()?)
}

/// An intent as `stack.lock()` shows it. One whose run is not readable has no `run`; its `file` names it.
fn keep(seen: &mut Seen, alive: bool, file: &str, lines: &[&str]) {
    let lines: Vec<Value> = lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if lines.iter().any(|line| beside::format_of(line) > beside::FORMAT) {
        seen.newer = Some("an intent".into());
    }
    let begin = lines.iter().find(|line| line["kind"] == "begin").cloned().unwrap_or_default();
    let last = lines.iter().rev().find(|line| line["kind"] == "change").cloned().unwrap_or_default();
    let stopped = lines.iter().rev().find(|line| line["kind"] == "stopped").cloned().unwrap_or_default();
    let change = if last.is_null() {
        Value::Null
    } else {
        json!({ "verb": last["verb"], "target": last["target"], "says": last["says"], "at": last["at"], "effect": last["effect"] })
    };
    seen.open.push(json!({
        "run": run_of(&begin), "by": name(&begin["by"]), "what": begin["what"], "doing": begin["doing"], "since": begin["at"],
        "step": last["step"], "last": change, "alive": alive, "outcome": stopped["outcome"], "why": stopped["why"],
        "script": begin["script"] == true, "here": begin["by"] == journal::actor_here().as_str(), "file": file,
    }));
}

/// A name of a shared file in one word that can be typed: a colleague's file does not decide what else is on the line.
pub fn name(by: &Value) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ['@', '.', '_', '+', '-'].contains(&c);
    let name = redact::cut(by.as_str().unwrap_or_default(), 80).replace(|c| !is_plain(c), "_");
    match name.trim_start_matches('-') {
        "" => "somebody".into(),
        name => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "20261124-061743-k3f9";

    fn seen(text: &str, folders: &[&str]) -> Result<BTreeMap<String, Seen>, String> {
        read(text, &folders.iter().map(|folder| folder.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn a_look_names_the_holder_and_each_open_intent() {
        let text = format!(
            "at 0\nbusy 77\n {{\"holder\":{{\"fence\":\"f\",\"by\":\"al@m\",\"run\":\"r; x\"}}}}\n\nintent left intent-1\n \
             {{\"kind\":\"begin\",\"run\":\"{RUN}\",\"by\":\"al@m\",\"what\":\"hotfix\",\"at\":\"T\"}}\n \n \
             {{\"kind\":\"change\",\"verb\":\"v\",\"says\":\"s\",\"step\":\"image\"}}\n {{\"ki\n\n\
             end 0\nat 1\nnone\nend 1\nat 2\nodd\n /c/.opsh is a symlink\n\nend 2\n"
        );
        let seen = seen(&text, &["/a/.opsh", "/b/.opsh", "/c/.opsh"]).expect("a whole look");
        let a = &seen["/a/.opsh"];
        assert_eq!((a.state.as_str(), a.up, a.open.len(), &a.lock["holder"]["run"]), ("busy", 77, 1, &Value::Null));
        let open = &a.open[0];
        assert_eq!(
            (&open["what"], &open["step"], &open["last"]["verb"], &open["run"]),
            (&json!("hotfix"), &json!("image"), &json!("v"), &json!(RUN))
        );
        assert_eq!((&open["alive"], open["by"].as_str()), (&json!(false), Some("al@m")));
        assert_eq!(seen["/b/.opsh"].state, "none");
        assert_eq!(seen["/c/.opsh"].odd.as_deref(), Some("/c/.opsh is a symlink"));
    }

    #[test]
    fn a_look_that_is_not_whole_is_no_answer() {
        let whole = "at 0\nfree 1\n null\n\nend 0\nat 1\nbusy 2\n null\n\nend 1\n";
        assert!(seen(whole, &["/a", "/b"]).is_ok());
        for (at, _) in whole.match_indices('\n').filter(|(at, _)| at + 1 < whole.len()) {
            assert!(seen(&whole[..=at], &["/a", "/b"]).is_err(), "{}", &whole[..at]);
        }
        for text in ["", "at 0\nend 0", "at 0\nfree 1\nfree 1\nend 0", "at 0\nnone\nwhat\nend 0"] {
            assert!(seen(text, &["/a"]).is_err(), "{text}");
        }
    }

    #[test]
    fn a_line_of_a_newer_format_is_shown_and_marked() {
        let newer =
            |lock: &str| seen(&format!("at 0\nfree 1\n {lock}\nend 0\n"), &["/a"]).expect("whole")["/a"].newer.clone();
        assert_eq!(newer("{\"format\":2,\"holder\":{\"by\":\"x\"}}").as_deref(), Some("lock.json"));
        assert!(newer("{\"holder\":{}}").is_none(), "no number is format 1");
    }

    #[test]
    fn a_holder_s_name_is_one_word_that_can_be_typed() {
        assert_eq!(name(&json!("-al ice;$(x)@m,\u{1b}[2Jy")), "al_ice___x_@m___2Jy");
        assert_eq!((name(&json!("")), name(&Value::Null)), ("somebody".into(), "somebody".into()));
    }
}
