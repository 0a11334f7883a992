//! What stands in a script's strings and should not: addresses of hosts, and ways around host keys.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Programs that take a host's address as a word.
pub const REMOTE: &[&str] = &["ssh", "scp", "sftp", "rsync", "ssh-copy-id"];

/// The address of a host that a whole string is: `root@203.0.113.10:2222`, `http://203.0.113.10/health`.
pub fn address(text: &str) -> Option<String> {
    let rest = text.trim();
    let rest = rest.split_once("://").map_or(rest, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    if let Some((inside, _)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return inside.parse().ok().filter(is_far_v6).map(|address: Ipv6Addr| address.to_string());
    }
    if let Ok(address) = rest.parse::<Ipv6Addr>() {
        return is_far_v6(&address).then(|| address.to_string());
    }
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, after) = rest.split_at(end);
    let ends = after.is_empty() || after.starts_with([':', '?']) || is_path(after);
    ends.then(|| far(number)).flatten()
}

/// `/health`, and not the `/8` of a network.
fn is_path(after: &str) -> bool {
    after.strip_prefix('/').is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// An address anywhere in words that go to a host.
pub fn address_within(text: &str) -> Option<String> {
    let numeric = |c: char| c.is_ascii_digit() || c == '.';
    let mut from = 0;
    while let Some(start) = text[from..].find(numeric).map(|at| from + at) {
        let end = text[start..].find(|c| !numeric(c)).map_or(text.len(), |at| start + at);
        let (before, after) = (text[..start].chars().next_back(), &text[end..]);
        let stands_alone = !before.is_some_and(|c| c.is_alphanumeric() || c == '-' || c == '_')
            && !after.starts_with(|c: char| c.is_alphanumeric() || c == '-' || c == '_')
            && (!after.starts_with('/') || is_path(after));
        if let Some(address) = far(&text[start..end]).filter(|_| stands_alone) {
            return Some(address);
        }
        from = end;
    }
    None
}

/// An IPv4 address that is another machine's.
fn far(number: &str) -> Option<String> {
    let address: Ipv4Addr = number.parse().ok()?;
    let near = address.is_loopback() || address.is_unspecified() || address.octets()[0] == 255;
    (!near).then(|| number.into())
}

fn is_far_v6(address: &Ipv6Addr) -> bool {
    !address.is_loopback() && !address.is_unspecified()
}

/// `root@web-1` in a text; git's own account names no machine of ours.
pub fn login(text: &str) -> Option<&str> {
    text.split(|c: char| c.is_whitespace() || "\"'=;|&".contains(c)).find(|word| {
        let word = word.strip_prefix("ssh://").unwrap_or(word);
        let Some((user, host)) = word.split_once('@') else { return false };
        let name = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        let host = host.split([':', '/']).next().unwrap_or(host);
        !user.is_empty() && user != "git" && name(user) && !host.is_empty() && name(host)
    })
}

/// True when a text has one of the programs that take addresses as a word.
pub fn is_remote(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').any(|word| REMOTE.contains(&word))
}

/// An option of ssh that accepts any host key.
pub fn blind_trust(text: &str) -> Option<&'static str> {
    let flat = text.to_ascii_lowercase().replace(['=', '"', '\''], " ");
    let words: Vec<&str> = flat.split_whitespace().collect();
    let pair = |option: &str, values: &[&str]| {
        words.windows(2).any(|two| two[0].trim_start_matches("-o") == option && values.contains(&two[1]))
    };
    if pair("stricthostkeychecking", &["no", "off", "false"]) {
        return Some("StrictHostKeyChecking=no");
    }
    pair("userknownhostsfile", &["/dev/null"]).then_some("UserKnownHostsFile=/dev/null")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_that_is_an_address_is_told_from_one_that_is_not() {
        for text in ["203.0.113.10", "root@203.0.113.10:2222", "http://10.0.0.5:8080/health", "[2001:db8::1]:22"] {
            assert!(address(text).is_some(), "{text}");
        }
        for text in
            ["127.0.0.1", "http://127.0.0.1:8080/x", "0.0.0.0", "10.0.0.0/8", "v1.2.3", "1.2.3", "::1", "prod-1", ""]
        {
            assert_eq!(address(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_are_found_within_words() {
        assert_eq!(address_within("curl -s http://10.0.0.5/health").as_deref(), Some("10.0.0.5"));
        for text in ["app-1.2.3.4.tgz", "10.0.0.0/8", "127.0.0.1:80", "v1.2.3.4", "1.2.3.4-rc1"] {
            assert_eq!(address_within(text), None, "{text}");
        }
        assert_eq!(login("scp dump root@web-1:/tmp"), Some("root@web-1:/tmp"));
        assert_eq!(login("git clone git@example.com:shop.git"), None);
    }

    #[test]
    fn options_of_ssh_that_trust_anybody_are_found_in_any_spelling() {
        for text in ["StrictHostKeyChecking=no", "-oStrictHostKeyChecking=off", "ssh -o 'stricthostkeychecking no' x"] {
            assert!(blind_trust(text).is_some(), "{text}");
        }
        assert_eq!(blind_trust("StrictHostKeyChecking=yes"), None);
        assert_eq!(blind_trust("-o UserKnownHostsFile=/dev/null"), Some("UserKnownHostsFile=/dev/null"));
    }
}
