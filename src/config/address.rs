//! An address as a person writes it: `host`, `user@host:port`, `user@[2001:db8::1]:2222`.

use crate::redact;
use std::net::Ipv6Addr;

/// Where an ssh goes to. What is absent is said by `~/.ssh/config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The account there.
    pub user: Option<String>,
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: Option<u16>,
}

impl Address {
    /// Reads an address; fails with the reason. An IPv6 address stands in brackets where a port follows it.
    pub fn parse(text: &str) -> Result<Address, String> {
        // `user:password@host`: the password is hidden wherever the text is shown from here on.
        if let Some((login, place)) = text.rsplit_once('@')
            && let Some((user, password)) = login.split_once(':')
        {
            redact::learn(password);
            let why = "has a password in it: remove it from there; opsh asks for it, or the host in opsh.toml says where it is";
            return Err(format!("the address \"{user}:•••@{place}\" {why}"));
        }
        let wrong = |why: &str| format!("the address {text:?} {why}");
        let (user, place) = match text.rsplit_once('@') {
            Some(("", _)) => return Err(wrong("has no user before its @")),
            Some((user, place)) => (Some(user.to_string()), place),
            None => (None, text),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(|| wrong("has a [ without its ]"))?;
                if host.contains(':') && !is_ipv6(host) {
                    return Err(wrong("has no address in its brackets"));
                }
                match after.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if after.is_empty() => (host, None),
                    None => return Err(wrong("has something other than :PORT after its ]")),
                }
            }
            None if is_ipv6(place) => (place, None),
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let port = match port.map(str::parse::<u16>) {
            None => None,
            Some(Ok(port @ 1..)) => Some(port),
            Some(_) => return Err(wrong("has no port from 1 to 65535 after its colon; IPv6 is written user@[::1]:22")),
        };
        let plain = |text: &str| !text.is_empty() && !text.starts_with('-');
        let is_host = plain(host) && host.chars().all(|c| c.is_alphanumeric() || "._-:%".contains(c));
        let is_user =
            |user: &String| plain(user) && user.chars().all(|c| c.is_alphanumeric() || "._-+/\\@".contains(c));
        if !is_host || !user.as_ref().is_none_or(is_user) {
            return Err(wrong("is not user@host or a name in ~/.ssh/config"));
        }
        Ok(Address { user, host: host.into(), port })
    }
}

/// Also with a zone: `fe80::1%eth0`.
fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(|zone| !zone.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Option<(Option<String>, String, Option<u16>)> {
        Address::parse(text).ok().map(|address| (address.user, address.host, address.port))
    }

    #[test]
    fn an_address_is_read_in_every_form() {
        for (text, user, host, port) in [
            ("web", None, "web", None),
            ("root@203.0.113.1", Some("root"), "203.0.113.1", None),
            ("root@web:2222", Some("root"), "web", Some(2222)),
            ("u@[::1]:2414", Some("u"), "::1", Some(2414)),
            ("u@[2001:db8::1]", Some("u"), "2001:db8::1", None),
            ("u@2001:db8::1", Some("u"), "2001:db8::1", None),
            ("::1", None, "::1", None),
            ("[fe80::1%eth0]:22", None, "fe80::1%eth0", Some(22)),
            ("[web]:22", None, "web", Some(22)),
            ("AD\\u@web", Some("AD\\u"), "web", None),
            ("u@corp@web", Some("u@corp"), "web", None),
        ] {
            assert_eq!(parts(text), Some((user.map(String::from), host.into(), port)), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let bad = [
            "",
            "@h",
            "u@",
            "u@h:",
            "u@h:x",
            "u@h:0",
            "u@h:70000",
            "-oX=y",
            "u@-h",
            "[::1",
            "u@[::1]x",
            "a b",
            "u@h;id",
            "1:2:3",
            "-l@h",
            "u@$(id)",
        ];
        for text in bad {
            assert_eq!(parts(text), None, "{text}");
        }
    }
}
