//! What ssh makes of the hosts of opsh.toml: by hand it must not trust whoever answers, either.

use super::{Finding, Rule, text};
use crate::config::Host;
use crate::error::Result;
use crate::session::{Session, text_of};
use serde_json::{Value, json};
use std::sync::Arc;

/// A jump host as ssh takes it for a destination: with a port it must be a URI.
fn destination(jump: &str) -> String {
    if jump.contains(':') && !jump.starts_with("ssh://") { format!("ssh://{jump}") } else { jump.into() }
}

impl Session {
    /// Hosts that ssh, as it is configured here, would reach whoever answers for them: a run of its own, which asks `ssh -G`
    /// and connects to nothing. A host of which it cannot be told is named on the screen.
    pub fn lint_hosts(&mut self) -> Result<Vec<Finding>> {
        let config = &self.world.config;
        let Some(path) = config.path.clone() else { return Ok(Vec::new()) };
        let known = config.host_names().filter_map(|name| config.host(name).ok());
        let reached = |host: Arc<Host>| {
            let jumps: Vec<String> = host.jump.iter().flat_map(|jump| jump.split(',')).map(destination).collect();
            [vec![host.ssh.clone()], jumps].concat().into_iter().map(move |ssh| (host.name.clone(), ssh))
        };
        let hosts: Vec<(String, String)> = known.flat_map(reached).collect();
        let file = text_of(&path)?;
        self.world.gate.begin_run("lint", json!({ "config": path }))?;
        let mut findings = Vec::new();
        for (name, ssh) in hosts {
            let words = Value::from(vec!["ssh", "-G", &ssh]);
            let said = match self.eval(&format!("host(\"local\").read({words}).out")) {
                Ok(said) => said.as_str().unwrap_or("").to_string(),
                Err(error) => {
                    let what = format!("what ssh makes of {ssh}, for {name}, is not known: {}", error.why);
                    self.gate().screen().warn(&what);
                    continue;
                }
            };
            let Some(option) = text::blind_trust(&said) else { continue };
            let table = format!("[host.{name}]");
            findings.push(Finding {
                path: path.display().to_string(),
                line: file.lines().position(|line| line.trim_start().starts_with(&table)).map_or(1, |at| at + 1),
                column: 1,
                rule: Rule::HostKeyChecking,
                why: format!("ssh {ssh} by hand trusts whoever answers: its configuration says {option}"),
                fix: format!("take it out of ~/.ssh/config or /etc/ssh/ssh_config; opsh host adopt {name}     trusts one key, once"),
            });
        }
        self.world.gate.end_run(None);
        Ok(findings)
    }
}
