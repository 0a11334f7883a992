//! `opsh host adopt`: a person takes responsibility for a host key, once.

use crate::bind::host;
use crate::bind::ssh::HostKey;
use crate::error::{Error, Kind, Result};
use crate::gate::policy::Mode;
use crate::session::Session;
use clap::Subcommand;
use serde_json::json;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show the key that a host offers, and trust it from now on
    Adopt {
        /// Name of the host in opsh.toml; else a host that ssh knows, such as a jump host: NAME or USER@HOST:PORT
        name: String,
        /// Jump hosts to go through, in the place of those of opsh.toml
        #[arg(long, value_name = "HOST,…")]
        jump: Option<String>,
        /// The fingerprint from a second source (the provider's console): SHA256:…
        #[arg(long, value_name = "SHA256:…")]
        fingerprint: Option<String>,
        /// Replace the key that is known; needs the fingerprint of the new one
        #[arg(long)]
        replace: bool,
    },
}

pub fn run(command: &Command, session: &mut Session) -> Result<()> {
    let Command::Adopt { name, jump, fingerprint, replace } = command;
    session.gate().begin_run(&format!("host adopt {name}"), json!({ "replace": replace }))?;
    let result = adopt(session, name, jump.as_deref(), fingerprint.as_deref(), *replace);
    session.gate().end_run(result.as_ref().err());
    result
}

/// Asks a person at the terminal to trust the key of a host that was named on the command line.
pub fn adopt_first(session: &Session, name: &str) -> Result<()> {
    session.gate().begin_run(&format!("host adopt {name}"), json!({}))?;
    let result = adopt(session, name, None, None, false);
    session.gate().end_run(result.as_ref().err());
    result
}

fn adopt(session: &Session, name: &str, jump: Option<&str>, fingerprint: Option<&str>, replace: bool) -> Result<()> {
    let world = session.world();
    let offered = host::offered_keys(world, name, jump).map_err(|error| match world.config.host(name) {
        // A mistyped name is one that ssh does not know either.
        Err(unknown) if error.kind == Kind::Unreachable && !name.contains('@') => {
            Error { why: format!("{}; opsh.toml has no such host: {}", error.why, unknown.why), ..error }
        }
        _ => error,
    })?;
    let screen = world.gate.screen();
    for key in &offered {
        screen.say(&format!("{name} offers {}  {}", key.kind, key.fingerprint));
    }
    let chosen = choose(session, name, &offered, fingerprint, replace)?;
    host::adopt(world, name, jump, chosen, replace)?;
    screen.print(&match world.gate.mode() {
        Mode::Apply => format!("{name} is known from now on by {}", chosen.fingerprint),
        _ => format!("a plan: the key of {name} was not adopted"),
    });
    Ok(())
}

fn choose<'a>(
    session: &Session,
    name: &str,
    offered: &'a [HostKey],
    fingerprint: Option<&str>,
    replace: bool,
) -> Result<&'a HostKey> {
    let refused = |why: &str| {
        let command =
            format!("opsh host adopt {}{name} --fingerprint SHA256:…", if replace { "--replace " } else { "" });
        Error::new(Kind::Refused, format!("the key of {name} was not adopted"), why)
            .next(format!("{command}     with the fingerprint that the provider's console shows"))
    };
    if let Some(wanted) = fingerprint {
        return offered.iter().find(|key| key.fingerprint == wanted.trim()).ok_or_else(|| {
            refused("the host offers no key with that fingerprint: you may be talking to another machine")
        });
    }
    let screen = session.gate().screen();
    if !screen.options().terminal {
        return Err(refused("there is no terminal to ask at, and --fingerprint was not given"));
    }
    let question = if replace {
        "This key differs from the known one. Type the new fingerprint from a second source:"
    } else {
        "Compare with a second source, then type the fingerprint, or y to trust the first one:"
    };
    let answer = screen.ask(question).unwrap_or_default();
    match answer.trim() {
        "y" if !replace => offered.first().ok_or_else(|| refused("the host offers no key")),
        typed => offered.iter().find(|key| key.fingerprint == typed).ok_or_else(|| refused("it was not confirmed")),
    }
}
