//! Everything about host keys: what a host offers, and opsh's own list of what is known.

use super::Login;
use super::asks::Answers;
use super::failure::Trouble;
use super::launch::{self, ControlDir, Ssh};
use super::quote::shell_word;
use super::route::{self, Route};
use crate::error::{Error, Kind, Result};
use crate::gate::Pass;
use crate::whole::{self, Link};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A public key that a host offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKey {
    /// `ssh-ed25519`, `ecdsa-sha2-nistp256`, `-nistp384`, `-nistp521` or `ssh-rsa`.
    pub kind: String,
    /// `SHA256:…`, as `ssh-keygen -lf` prints it.
    pub fingerprint: String,
    /// The line for known_hosts: opsh's name and ssh's name of the host, kind, key.
    pub line: String,
}

/// One connection for each: a server shows one key at a time.
const KINDS: [&str; 3] =
    ["ssh-ed25519", "ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521", "rsa-sha2-512,rsa-sha2-256"];
/// RSA with SHA-1: only where the operator's ssh_config lets ssh take it, so that a login can use the key.
const SHA1: &str = "ssh-rsa";
/// One connection for each key that a pin may mean.
const EACH_KIND: [&str; 5] =
    ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512,rsa-sha2-256"];

/// The keys that a host offers now, without logging in to it. Nothing is stored, and nothing proves that they are its.
///
/// A jump host on the way is logged in to as in [`super::connect`]. Fails as that does.
pub async fn offered_keys(pass: &Pass, login: &Login) -> Result<Vec<HostKey>> {
    launch::check(login)?;
    let route = route::find(pass, login).await?;
    let mut keys = Vec::new();
    let mut failed = None;
    for kind in KINDS.into_iter().chain(route.takes_sha1.then_some(SHA1)) {
        if kind == SHA1 && !keys.is_empty() {
            break;
        }
        match probe(pass, login, &route, kind).await? {
            Ok(key) => keys.push(key),
            // Said when there is nothing better to say.
            Err(trouble @ Trouble::NoCommonKey { .. }) => failed = failed.or(Some(trouble)),
            Err(trouble) => failed = Some(trouble),
        }
    }
    match failed {
        Some(trouble) if keys.is_empty() => Err(with_known(trouble, login)),
        _ => Ok(keys),
    }
}

/// The line of a list for the key that the pin means, if the host offers it now.
pub async fn offered_pin(pass: &Pass, login: &Login, route: &Route) -> Result<Option<String>> {
    for kind in EACH_KIND.into_iter().chain(route.takes_sha1.then_some(SHA1)) {
        if let Ok(key) = probe(pass, login, route, kind).await?
            && login.host_key.as_ref() == Some(&key.fingerprint)
        {
            return Ok(Some(key.line));
        }
    }
    Ok(None)
}

/// The line of opsh's own list for the key that the pin means, if it is there.
pub fn known_pin(login: &Login) -> Option<String> {
    let pin = login.host_key.as_ref()?;
    known(login).into_iter().find(|(_, fingerprint)| fingerprint == pin).map(|(line, _)| line)
}

/// Fingerprints of keys of the host in opsh's own list that a pin overrules.
pub fn overruled(login: &Login) -> Vec<String> {
    let Some(pin) = &login.host_key else { return Vec::new() };
    known_keys(login).into_iter().filter(|fingerprint| fingerprint != pin).collect()
}

/// Fingerprints of the keys of the host in opsh's own list.
pub fn known_keys(login: &Login) -> Vec<String> {
    known(login).into_iter().map(|(_, fingerprint)| fingerprint).collect()
}

/// Lines of opsh's own list with a key of the host, and their fingerprints.
fn known(login: &Login) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(&login.known_hosts).unwrap_or_default();
    let of_host = text.lines().filter(|line| has_name(line, &login.alias()));
    of_host.filter_map(|line| Some((line.to_string(), fingerprint(column(line, 2))?))).collect()
}

/// Writes a list of at most one line.
pub fn list_for(path: &Path, line: Option<&str>) -> io::Result<()> {
    std::fs::write(path, line.map_or(String::new(), |line| format!("{line}\n")))
}

/// Connects up to the point where the key is known; `none` is the method that never lets anybody in.
async fn probe(pass: &Pass, login: &Login, route: &Route, kind: &str) -> Result<Result<HostKey, Trouble>> {
    let dir = ControlDir::make(&login.control_dir)?;
    let keys = dir.keys();
    let options = [
        format!("UserKnownHostsFile=\"{}\"", keys.display()),
        // Into a file of our own that is read once and thrown away.
        "StrictHostKeyChecking=accept-new".into(),
        format!("HostKeyAlgorithms={kind}"),
        "PreferredAuthentications=none".into(),
        "ControlPath=none".into(),
        "ControlMaster=no".into(),
        // As a jump host it is looked up by this, whatever the operator's ssh_config calls it.
        format!("HostKeyAlias={}", route.known_as),
    ];
    let extra: Vec<_> = options.into_iter().flat_map(|text| ["-o".into(), text.into()]).collect();
    let mut ssh = Ssh::start(pass, login, route, &dir, &extra).await?;
    let mut answers = Answers::new(login, route);
    let out = ssh.log_in(pass, &mut answers, || false).await;
    let line = std::fs::read_to_string(&keys).unwrap_or_default();
    match (parse(&line, &login.alias()), out) {
        (Some(key), _) => Ok(Ok(key)),
        (None, Err(out)) => Ok(Err(launch::trouble(out, &ssh, &answers))),
        (None, Ok(())) => Ok(Err(Trouble::Other { detail: "it showed no key".into() })),
    }
}

/// Reads the line that ssh wrote, and puts opsh's name for the host before ssh's, which jump hosts are looked up by.
fn parse(line: &str, name: &str) -> Option<HostKey> {
    let mut words = line.split_whitespace();
    let (host, kind, key) = (words.next()?, words.next()?, words.next()?);
    let hosts = if host == name { name.to_string() } else { format!("{name},{host}") };
    Some(HostKey { kind: kind.into(), fingerprint: fingerprint(key)?, line: format!("{hosts} {kind} {key}") })
}

/// `SHA256:…` of a key in base64.
fn fingerprint(key: &str) -> Option<String> {
    Some(format!("SHA256:{}", to_base64(&Sha256::digest(from_base64(key)?))))
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut count, mut bytes) = (0u32, 0, Vec::new());
    for letter in text.trim_end_matches('=').bytes() {
        bits = bits << 6 | BASE64.iter().position(|b| *b == letter)? as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

/// Without padding, as fingerprints are written.
fn to_base64(bytes: &[u8]) -> String {
    let letter = |bits: u32| char::from(BASE64[(bits & 63) as usize]);
    let group = |group: &[u8]| {
        let bits = group.iter().enumerate().fold(0, |bits, (i, byte)| bits | u32::from(*byte) << (16 - 8 * i));
        (0..=group.len()).map(|i| letter(bits >> (18 - 6 * i))).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// The error for a trouble; for a changed key with the fingerprint that is known.
pub fn with_known(trouble: Trouble, login: &Login) -> Error {
    let known = match &trouble {
        Trouble::KeyChanged { place: Some((file, line)), .. } => known_at(Path::new(file), *line),
        Trouble::KeyNotPinned { .. } => {
            Some(overruled(login)).filter(|known| !known.is_empty()).map(|known| known.join(", "))
        }
        _ => None,
    };
    trouble.error(login, known)
}

/// The fingerprint in this line (from 1) of a list.
fn known_at(file: &Path, line: usize) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    fingerprint(text.lines().nth(line.checked_sub(1)?)?.split_whitespace().nth(2)?)
}

/// Writes a key into opsh's own list, whole or not at all.
///
/// A different key of the same kind is only replaced with `replace`, which forgets all old keys of the host. Fails with
/// `Refused` when there is one and `replace` is false, with `Failed` when the list cannot be written.
pub fn remember_key(_: &Pass, login: &Login, key: &HostKey, replace: bool) -> Result<()> {
    launch::check(login)?;
    let what = format!("the key of {} was not stored", login.name);
    if let Some(pin) = login.host_key.as_ref().filter(|pin| **pin != key.fingerprint) {
        let why =
            format!("host_key in opsh.toml pins {pin}, which decides alone, and {} is another key", key.fingerprint);
        return Err(Error::new(Kind::Refused, what, why)
            .next(format!(
                "host_key = \"{}\"     for {} in opsh.toml, if this key is the right one",
                key.fingerprint, login.name
            ))
            .host(&login.name));
    }
    if login.known_hosts == Path::new(super::NO_LIST) {
        return Err(Error::new(
            Kind::Unmet,
            what,
            "the state folder is not this user's alone: its list of keys is not used",
        )
        .next("opsh --state-dir DIR …     a folder of yours alone")
        .host(&login.name));
    }
    let failed = |e: io::Error| {
        Error::new(Kind::Failed, what.clone(), format!("{}: {e}", login.known_hosts.display())).host(&login.name)
    };
    let _lock = lock(&login.known_hosts).map_err(failed)?;
    let old = match std::fs::read_to_string(&login.known_hosts) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        text => text.map_err(failed)?,
    };
    match with_key(&old, &login.alias(), key, replace) {
        Ok(new) => whole::replace(&login.known_hosts, Link::Followed, &new, 0o600).map_err(failed),
        Err(known) => {
            Err(Error::new(Kind::Refused, what, format!("{known} is known, and {} is another key", key.fingerprint))
                .next(format!("opsh host adopt --replace {}", shell_word(&login.name)))
                .host(&login.name))
        }
    }
}

/// The list with the key in it, or the fingerprint of the key that is there instead.
///
/// The line names the host twice: as opsh calls it, and as ssh looks it up on the way to another. A key under the first name
/// must be the same; of the second, a replaced one is forgotten, too.
fn with_key(old: &str, name: &str, key: &HostKey, replace: bool) -> Result<String, String> {
    let names: Vec<&str> = column(&key.line, 0).split(',').collect();
    let same_kind = |line: &&str| column(line, 1) == key.kind;
    let other = |line: &&str| same_kind(line) && column(line, 2) != column(&key.line, 2);
    if !replace && let Some(line) = old.lines().filter(|line| has_name(line, name)).find(other) {
        return Err(fingerprint(column(line, 2)).unwrap_or_else(|| "another key".into()));
    }
    let kept = old.lines().filter_map(|line| {
        if has_name(line, name) && (replace || same_kind(&line)) {
            return None;
        }
        let is_host = !line.starts_with(['#', '@']);
        if !replace || !is_host || column(line, 2) == column(&key.line, 2) {
            return Some(line.to_string());
        }
        let (hosts, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let left: Vec<&str> = hosts.split(',').filter(|host| !names.contains(host)).collect();
        (!left.is_empty()).then(|| format!("{} {rest}", left.join(",")))
    });
    Ok(kept.chain([key.line.clone()]).flat_map(|line| [line, "\n".into()]).collect())
}

/// Word `n` of a line.
fn column(line: &str, n: usize) -> &str {
    line.split_whitespace().nth(n).unwrap_or_default()
}

fn has_name(line: &str, name: &str) -> bool {
    !line.starts_with(['#', '@']) && column(line, 0).split(',').any(|host| host == name)
}

/// Held while the list is read and written, so that of two adoptions none is lost.
fn lock(list: &Path) -> io::Result<File> {
    if let Some(dir) = list.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(list.with_extension("lock"))?;
    file.lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

    fn key(text: &str) -> HostKey {
        parse(&format!("[10.0.0.1]:2222 ssh-ed25519 {text}"), "web").unwrap()
    }

    #[test]
    fn a_fingerprint_is_the_one_that_ssh_keygen_prints() {
        // GitHub's published key and fingerprint.
        assert_eq!(fingerprint(KEY).unwrap(), "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU");
        assert_eq!(fingerprint("not base64!"), None);
    }

    #[test]
    fn another_key_is_only_replaced_when_asked() {
        let (old, new) = (key(KEY), key("AAAA"));
        let list = with_key("# mine\nother ssh-ed25519 BBBB\n", "web", &old, false).unwrap();
        assert_eq!(list, format!("# mine\nother ssh-ed25519 BBBB\nweb,[10.0.0.1]:2222 ssh-ed25519 {KEY}\n"));
        assert_eq!(with_key(&list, "web", &old, false).unwrap(), list);
        assert_eq!(with_key(&list, "web", &new, false).unwrap_err(), old.fingerprint);
        let replaced = with_key(&list, "web", &new, true).unwrap();
        let elsewhere = format!("bastion,[10.0.0.1]:2222 ssh-ed25519 {KEY}\n[10.0.0.1]:2222 ssh-ed25519 {KEY}\n");
        let left = with_key(&elsewhere, "web", &new, true).unwrap();
        assert_eq!(left, format!("bastion ssh-ed25519 {KEY}\nweb,[10.0.0.1]:2222 ssh-ed25519 AAAA\n"));
        assert_eq!(replaced, "# mine\nother ssh-ed25519 BBBB\nweb,[10.0.0.1]:2222 ssh-ed25519 AAAA\n");
    }
}
