//! Intents: changes that were begun on a stack and have not ended, as a look at its folder tells of lock and intents.
//!
//! An intent is a file of lines beside the lock: who began what, each change before it is made, and why it stopped. Its
//! holder has it locked while it lives. An intent that nobody has locked was left: its opsh failed, was killed or lost
//! its link, and what it changed was not taken back.

use crate::bind::beside;
use crate::gate::journal;
use crate::redact;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One folder as `holder::look` saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// `free`, `busy`, `works`, `none`, or `odd`.
    pub state: String,
    /// The host's uptime in seconds.
    pub up: i64,
    /// Its `lock.json`.
    pub lock: Value,
    /// Why a file there is not to be trusted.
    pub odd: Option<String>,
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

/// Reads what a look printed, by folder.
pub fn read(text: &str) -> BTreeMap<String, Seen> {
    let mut all: BTreeMap<String, Seen> = BTreeMap::new();
    let mut folder = String::new();
    let mut intent: Option<(bool, Vec<Value>)> = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("at ") {
            keep(all.entry(folder).or_default(), intent.take());
            folder = name.into();
            continue;
        }
        let seen = all.entry(folder.clone()).or_default();
        if let Some(state) = line.strip_prefix("intent ") {
            keep(seen, intent.take());
            intent = Some((state.starts_with("alive"), Vec::new()));
        } else if let Some((_, lines)) = &mut intent
            && line.starts_with('{')
        {
            lines.extend(serde_json::from_str::<Value>(line).ok());
        } else {
            head(seen, line);
        }
    }
    keep(all.entry(folder).or_default(), intent);
    all.remove("");
    all.values_mut().for_each(|seen| seen.open.sort_by_key(|open| open["since"].as_str().map(String::from)));
    all
}

fn head(seen: &mut Seen, line: &str) {
    let mut parts = line.splitn(3, ' ');
    let [state, up, rest] = [(); 3].map(|()| parts.next().unwrap_or_default());
    if state == "odd" {
        seen.odd = Some(rest.into());
        seen.state = if seen.state.is_empty() { state.into() } else { std::mem::take(&mut seen.state) };
        return;
    }
    if !["free", "busy", "works", "none"].contains(&state) {
        return;
    }
    (seen.state, seen.up) = (state.into(), up.parse().unwrap_or_default());
    seen.lock = serde_json::from_str(rest).unwrap_or_default();
    if beside::format_of(&seen.lock) > beside::FORMAT {
        seen.newer = Some("lock.json".into());
    }
}

/// An intent as `stack.lock()` shows it.
fn keep(seen: &mut Seen, intent: Option<(bool, Vec<Value>)>) {
    let Some((alive, lines)) = intent else { return };
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
        "run": begin["run"], "by": name(&begin["by"]), "what": begin["what"], "doing": begin["doing"], "since": begin["at"],
        "step": last["step"], "last": change, "alive": alive, "outcome": stopped["outcome"], "why": stopped["why"],
        "script": begin["script"] == true, "here": begin["by"] == journal::actor_here().as_str(),
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

    #[test]
    fn a_look_names_the_holder_and_each_open_intent() {
        let text = "at /a/.opsh\nbusy 77 {\"holder\":{\"fence\":\"f\",\"by\":\"al@m\"}}\nintent left intent-1\n\
                    {\"kind\":\"begin\",\"run\":\"r\",\"by\":\"al@m\",\"what\":\"hotfix\",\"at\":\"T\"}\n\
                    {\"kind\":\"begin\",\"run\":\"r\"}\n{\"kind\":\"change\",\"verb\":\"v\",\"says\":\"s\",\"step\":\"image\"}\n{\"ki\n\
                    at /b/.opsh\nnone\nat /c/.opsh\nodd 0 /c/.opsh is a symlink\n";
        let seen = read(text);
        let a = &seen["/a/.opsh"];
        assert_eq!((a.state.as_str(), a.up, a.open.len()), ("busy", 77, 1));
        let open = &a.open[0];
        assert_eq!(
            (&open["what"], &open["step"], &open["last"]["verb"]),
            (&json!("hotfix"), &json!("image"), &json!("v"))
        );
        assert_eq!((&open["alive"], open["by"].as_str()), (&json!(false), Some("al@m")));
        assert_eq!(seen["/b/.opsh"].state, "none");
        assert_eq!(seen["/c/.opsh"].odd.as_deref(), Some("/c/.opsh is a symlink"));
    }

    #[test]
    fn a_line_of_a_newer_format_is_shown_and_marked() {
        let seen = read("at /a\nfree 1 {\"format\":2,\"holder\":{\"by\":\"x\"}}\n");
        assert_eq!(seen["/a"].newer.as_deref(), Some("lock.json"));
        assert!(read("at /a\nfree 1 {\"holder\":{}}\n")["/a"].newer.is_none(), "no number is format 1");
    }

    #[test]
    fn a_holder_s_name_is_one_word_that_can_be_typed() {
        assert_eq!(name(&json!("-al ice;$(x)@m,\u{1b}[2Jy")), "al_ice___x_@m___2Jy");
        assert_eq!((name(&json!("")), name(&Value::Null)), ("somebody".into(), "somebody".into()));
    }
}
