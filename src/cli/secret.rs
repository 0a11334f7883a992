//! `opsh secret check`: whether a value would be hidden, without the value on the command line.

use crate::bind::secret;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::redact;
use crate::screen::Screen;
use serde_json::json;

/// How it is called.
const USAGE: &str = "opsh secret check < FILE     a value on standard input, first line; typed unseen at a terminal";

/// Does what `words` say. They are not repeated: one of them may be the value.
pub fn run(words: &[String], config: &Config, screen: &Screen) -> Result<()> {
    match words {
        [word] if word == "check" => check(config, screen),
        [] => Err(Error::new(Kind::Usage, "no command", "secret has one: check").next(USAGE)),
        [word, ..] => {
            let why = if word == "check" { "check takes no argument" } else { "secret has one command: check" };
            let danger = "If an argument was the secret, it now stands in the history of the shell and was visible to \
                          every user of this machine: replace it with a new one.";
            Err(Error::new(Kind::Usage, "nothing was checked", format!("{why}\n{danger}")).next(USAGE))
        }
    }
}

/// What was found out about a value.
struct Found {
    /// Places in opsh.toml that hold it.
    declared: Vec<String>,
    /// Places that could not be looked at, and why.
    unseen: Vec<String>,
    shape: bool,
}

fn check(config: &Config, screen: &Screen) -> Result<()> {
    let names = &config.redact().names;
    redact::add_names(names).map_err(|why| Error::new(Kind::Usage, "redact.names is not valid", why))?;
    let nothing = || Error::new(Kind::Usage, "nothing was checked", "standard input has no value").next(USAGE);
    let value = screen.ask_unseen("Value:").filter(|value| !value.is_empty()).ok_or_else(nothing)?;
    // Before any source is read: what is found now is found by its looks.
    let shape = !redact::clean(&value).contains(&value);
    let found = look(config, &value, shape);
    let hidden: Vec<&str> = redact::forms(&value).iter().filter(|(_, hidden)| *hidden).map(|(kind, _)| *kind).collect();
    let is_hidden = shape || (!found.declared.is_empty() && !redact::is_too_short(&value));
    let learnable = !redact::is_too_short(&value) && !redact::is_ordinary(value.trim());
    screen.value(&json!({
        "hidden": is_hidden,
        "declared": found.declared,
        "shape": found.shape,
        "under a name": if learnable { "hidden everywhere once it stands there in a stack or a container" } else { "hidden there only" },
        "forms": hidden,
        "shown as": is_hidden.then(|| redact::clean(&value)),
        "not compared": found.unseen,
    }));
    if is_hidden { Ok(()) } else { Err(shown(&value, &found)) }
}

fn look(config: &Config, value: &str, shape: bool) -> Found {
    let mut found = Found { declared: Vec::new(), unseen: Vec::new(), shape };
    for (place, from) in config.secrets() {
        match secret::look(from) {
            Ok(secret) if secret.expose() == value => found.declared.push(format!("{place} ({from})")),
            Ok(_) => {}
            Err(why) => found.unseen.push(format!("{place} ({from}): {why}")),
        }
    }
    found
}

fn shown(value: &str, found: &Found) -> Error {
    let short = format!("it is shorter than {} bytes, and such values are not looked for", redact::SHORTEST);
    let why = match (redact::is_too_short(value), found.unseen.is_empty()) {
        (true, _) => short,
        (_, true) => "no secret of opsh.toml has this value, and it does not look like one".into(),
        _ => "no secret of opsh.toml that can be read now has this value, and it does not look like one".into(),
    };
    let error = Error::new(Kind::Unmet, "this value would be shown in clear", why);
    if redact::is_too_short(value) {
        return error.next("choose a longer one");
    }
    error.next("password = \"env:NAME\"     declare it in opsh.toml, or print it under a name such as …_PASSWORD=")
}
