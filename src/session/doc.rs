//! The reference as Markdown, written from the verbs, the functions and the built-in modules: `opsh doc`.

use super::help::{self, Entry, Found};
use crate::engine::modules;
use crate::error::Result;
use std::collections::BTreeSet;

const INTRODUCTION: &str = "\
# Reference

Written by `opsh doc`, from the same data that help, policy and the engine use.

Scripts are [Rhai](https://rhai.rs). They start from `host(NAME)` and `stack(NAME)`, the names of `opsh.toml`; a stack has a
`.repo` and a `.db`. A verb is a function that touches the world, and has a class:

| class | means |
|---|---|
| read | only looks; performed in every mode |
| change | sets a state: asked for on a protected target, printed with `--plan`, refused with `--observe` |
| destroy | loses data or service: what is lost is typed by a person, or `--allow VERB` was given |
| script | no verb: touches nothing outside the script |

A verb that changes something returns a receipt: `changed`, `skipped` (with `--plan`), `before`, `after`, `took_ms`. A verb
that fails throws a map: `kind`, `what`, `why`, `next`, `host`, `exit`; the docs below name the kinds. `?` marks a parameter
that may be left out. A deadline is how long a call is waited for, after which a read ends with `timeout`, and a change with
`unknown`, since it may have happened; the reason says what was waited for. The first call that needs a host logs in, and the
first that needs its Docker Engine connects to it: both together may add `connect_s` seconds (30) to the deadline of a call,
however often it connects. Calls that wait for the same login or Engine share its failure, as do those that come within the
next 10 s; a typed line tries again. `deadline_s` shortens every deadline; both are keys of `[limits]` in `opsh.toml`. Time in
which a person is asked something does not count. At most 16 calls of a batch or of `hosts(…)` go on at once, and the deadline
of the others begins with their turn. Without a terminal a wait of 5 s is said on standard error, with what it is for.
";

/// Everything, a built-in module such as `std/rollout`, or what `name` means, as Markdown. Fails as [`help::find`].
pub fn markdown(name: Option<&str>) -> Result<String> {
    if let Some(name) = name.filter(|name| modules::embedded(name).is_some()) {
        return Ok(module(name).trim_start().into());
    }
    match name.map(help::find).transpose()? {
        Some(Found::Group(found) | Found::These(found)) => {
            Ok(found.into_iter().map(section).collect::<Vec<_>>().join("\n"))
        }
        None => Ok(everything()),
    }
}

fn everything() -> String {
    let groups: BTreeSet<&str> = help::entries().map(|entry| entry.group).collect();
    let mut text = INTRODUCTION.to_string();
    for group in groups {
        text += &format!("\n## {group}\n");
        // What a script starts from comes first.
        let (starts, verbs): (Vec<&Entry>, Vec<&Entry>) =
            help::entries().filter(|entry| entry.group == group).partition(|entry| entry.class == "script");
        for entry in starts.iter().chain(&verbs) {
            text += &format!("\n{}", section(entry));
        }
    }
    text.extend(modules::embedded_names().map(module));
    text
}

fn section(entry: &Entry) -> String {
    let Entry { name, class, sig, doc, example, .. } = entry;
    format!("### {name}\n\n`{sig}`, {class}\n\n{doc}\n\n```rhai\n{example}\n```\n")
}

/// The functions of a module with their doc comments; those without one are its own business.
fn module(name: &str) -> String {
    let source = modules::embedded(name).unwrap_or("");
    let alias = name.rsplit('/').next().unwrap_or(name);
    let about: Vec<&str> = source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
    let mut text = format!("\n## {name}\n\n```rhai\nimport \"{name}\" as {alias};\n```\n\n{}\n", about.join("\n"));
    let mut doc: Vec<&str> = Vec::new();
    for line in source.lines() {
        match (line.strip_prefix("///"), line.strip_prefix("fn ").and_then(|rest| rest.split_once('{'))) {
            (Some(comment), _) => doc.push(comment.trim()),
            (_, Some((call, _))) if !doc.is_empty() => {
                let word = call.split('(').next().unwrap_or(call);
                text += &format!("\n### {alias}::{word}\n\n`{alias}::{}`\n\n{}\n", call.trim(), doc.join("\n"));
                doc.clear();
            }
            _ => doc.clear(),
        }
    }
    text
}
