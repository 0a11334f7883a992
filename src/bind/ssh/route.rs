//! Everything about the hosts that lie before a host: those that opsh.toml names, and those of the operator's ssh_config.
//!
//! ssh would start the ssh of a jump host itself, with none of the options it was given: the key of a bastion would be
//! checked against another list, or not at all. So opsh asks ssh which jumps it would take, and starts them itself.

use super::Login;
use super::quote::{quote, quote_all, shell_word};
use super::trust;
use crate::config::Address;
use crate::error::{Error, Kind, Result};
use crate::gate::Pass;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Jumps that lead to a host, at most.
const MOST_HOPS: usize = 8;
/// For what ssh would do; a `Match exec` of the operator may run a program for it.
const ASKED_WITHIN: Duration = Duration::from_secs(10);

/// The way to a host.
#[derive(Debug, Default)]
pub struct Route {
    /// Hosts to go through, the nearest first.
    pub hops: Vec<Hop>,
    /// Name under which ssh looks up the host's key when it is a jump.
    pub known_as: String,
    /// A ProxyCommand of the operator carries the bytes to the first of all hosts.
    pub by_command: bool,
    /// Whether the operator lets ssh use this algorithm for host keys.
    pub takes_sha1: bool,
}

/// A host to go through.
#[derive(Debug)]
pub struct Hop {
    /// As it was written, in opsh.toml or ssh_config.
    pub written: String,
    address: Address,
    /// `USER@` and the name under which ssh looks up the key.
    pub who: String,
    /// Name under which ssh looks up its key: `HOST`, or `[HOST]:PORT`.
    pub known_as: String,
}

/// Answer of `ssh -G`.
struct Plan(String);

impl Plan {
    fn value(&self, key: &str) -> Option<&str> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
        (value != "none").then_some(value)
    }

    fn hop(&self, written: &str, address: Address) -> Hop {
        let (host, port) = (self.value("hostname").unwrap_or(&address.host), self.value("port").unwrap_or("22"));
        let user = self.value("user").unwrap_or_default();
        let known_as = if port == "22" { host.to_lowercase() } else { format!("[{}]:{port}", host.to_lowercase()) };
        Hop { written: written.into(), who: format!("{user}@{known_as}"), known_as, address }
    }
}

/// The way that a login takes.
pub async fn find(pass: &Pass, login: &Login) -> Result<Route> {
    let failed = |why: String| {
        Error::new(Kind::Usage, format!("cannot log in to {}", login.name), why)
            .next(format!("ssh -G {}     shows what ssh_config says of it", quote(&login.dest)))
            .host(&login.name)
    };
    let options = trust::options(pass, login).await;
    let target = login.address().map_err(failed)?;
    let plan = ask(&options, &target).await.map_err(failed)?;
    let takes_sha1 = plan.value("hostkeyalgorithms").is_some_and(|all| all.split(',').any(|one| one == "ssh-rsa"));
    let known_as = plan.hop(&login.dest, target).known_as;
    let mut route = Route { takes_sha1, known_as, ..Route::default() };
    let mut before = match &login.jump {
        Some(jump) => Some(jump.clone()),
        None => plan.value("proxyjump").map(|jump| expanded(jump, &plan)),
    };
    route.by_command = before.is_none() && plan.value("proxycommand").is_some();
    while let Some(list) = before.take() {
        let mut nearer = Vec::new();
        for written in list.split(',').map(str::trim) {
            let address = Address::parse(written).map_err(failed)?;
            let plan = ask(&options, &address).await.map_err(failed)?;
            // The nearest one may lie behind others itself. ssh does not go through a host to come to it.
            if nearer.is_empty() {
                let jump = plan.value("proxyjump").map(|jump| expanded(jump, &plan));
                before = jump.filter(|jump| {
                    Address::parse(jump).is_ok_and(|jump| jump.host != address.host) || jump.contains(',')
                });
                route.by_command = before.is_none() && plan.value("proxycommand").is_some();
            }
            nearer.push(plan.hop(written, address));
        }
        nearer.append(&mut route.hops);
        route.hops = nearer;
        if route.hops.len() > MOST_HOPS {
            let names: Vec<&str> = route.hops.iter().map(|hop| hop.written.as_str()).collect();
            return Err(failed(format!("more than {MOST_HOPS} jump hosts lie before it: {}", names.join(", "))));
        }
    }
    Ok(route)
}

/// `%h`, `%n`, `%p`, `%r` and `%%` as ssh fills them in.
fn expanded(jump: &str, plan: &Plan) -> String {
    let mut text = jump.replace("%%", "\0");
    for (token, key) in [("%h", "hostname"), ("%n", "host"), ("%p", "port"), ("%r", "user")] {
        text = text.replace(token, plan.value(key).unwrap_or_default());
    }
    text.replace('\0', "%")
}

/// Asks ssh how it would reach an address, with these options and the operator's files.
async fn ask(options: &[String], address: &Address) -> Result<Plan, String> {
    let mut command = tokio::process::Command::new("ssh");
    command.arg("-G").args(options.iter().flat_map(|option| ["-o", option])).args(words(address));
    command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(ASKED_WITHIN, command.output()).await {
        Ok(Ok(output)) => output,
        // The login itself says that there is no ssh.
        Ok(Err(_)) => return Ok(Plan(String::new())),
        Err(_) => {
            let s = ASKED_WITHIN.as_secs();
            return Err(format!("ssh -G has no answer within {s} s: look at Match exec in ssh_config"));
        }
    };
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " / ");
        return Err(format!("ssh does not take its configuration: {text}"));
    }
    Ok(Plan(String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// The words of ssh that lead to an address; nothing in them can be read as an option.
pub fn words(address: &Address) -> Vec<String> {
    let mut words = Vec::new();
    let mut option = |text: String| words.extend(["-o".into(), text]);
    if let Some(user) = &address.user {
        option(format!("User={user}"));
    }
    if let Some(port) = address.port {
        option(format!("Port={port}"));
    }
    words.extend(["--".into(), address.host.clone()]);
    words
}

impl Route {
    /// The words after `opsh host adopt` for hop `at`: where it is, and through which others. `None` for the host itself.
    pub fn adopting(&self, at: usize) -> Option<String> {
        self.hops.get(at)?;
        let before: Vec<&str> = self.hops[..at].iter().map(|hop| hop.written.as_str()).collect();
        let via = if before.is_empty() { String::new() } else { format!(" --jump {}", shell_word(&before.join(","))) };
        Some(format!("{}{via}", shell_word(&self.hops[at].written)))
    }

    /// The ProxyCommand that goes through all hops; `None` where there is none. Each ssh writes what it says into a file of
    /// its own.
    pub fn proxy_command(&self, options: &[String], log: impl Fn(usize) -> std::path::PathBuf) -> Option<String> {
        let mut command = None;
        for (n, hop) in self.hops.iter().enumerate() {
            command = Some(hop.command(command, n == 0 && !self.by_command, options, &log(n)));
        }
        command
    }
}

impl Hop {
    fn command(&self, through: Option<String>, direct: bool, options: &[String], log: &Path) -> String {
        let mut start: Vec<String> = ["ssh", "-T", "-E"].map(String::from).to_vec();
        start.push(log.display().to_string());
        let mut option = |text: String| start.extend(["-o".into(), text]);
        options.iter().cloned().for_each(&mut option);
        option(format!("HostKeyAlias={}", self.known_as));
        option("ControlMaster=no".into());
        option("ControlPath=none".into());
        if let Some(through) = through {
            option(format!("ProxyCommand={through}"));
            option("ProxyUseFdpass=no".into());
        } else if direct {
            option("ProxyJump=none".into());
        }
        // ssh fills in what stands behind a %, in each ProxyCommand once.
        let (start, end) = (quote_all(&start), quote_all(&words(&self.address)));
        format!("{} -W '[%h]:%p' {}", start.replace('%', "%%"), end.replace('%', "%%"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_inside_a_jump_is_filled_in_by_its_own_ssh() {
        let hop = |text: &str| Hop {
            written: text.into(),
            address: Address::parse(text).unwrap(),
            who: String::new(),
            known_as: String::new(),
        };
        let route = Route { hops: vec![hop("a"), hop("u@[fe80::1%eth0]:24")], ..Route::default() };
        let command = route.proxy_command(&["X=y".into()], |n| format!("/l{n}").into()).unwrap();
        assert!(command.contains("[%%h]:%%p") && command.contains("-W '[%h]:%p'"), "{command}");
        assert!(command.ends_with("'-o' 'User=u' '-o' 'Port=24' '--' 'fe80::1%%eth0'"), "{command}");
        assert!(Route::default().proxy_command(&[], |_| "/l".into()).is_none());
    }
}
