//! A network namespace of the test's own, behind a cable that can be cut. The unit tests of ssh use it too.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Removed when dropped.
pub struct Network {
    name: String,
    /// Its address, at the far end of the cable.
    pub there: String,
}

impl Network {
    /// Lays one. Fails with the reason where none can be.
    pub fn lay() -> Result<Network, String> {
        static LAID: AtomicU32 = AtomicU32::new(0);
        // Four for each process, of which some thousand may lay theirs at once.
        let mark = (std::process::id() << 2) + LAID.fetch_add(1, Ordering::Relaxed) % 4;
        let name = format!("opsh-i{mark:x}");
        // A subnet of four addresses of the range for tests of networks, 198.18.0.0/15.
        let at = |last: u32| format!("198.19.{}.{}", mark >> 6 & 0xff, (mark << 2 & 0xfc) + last);
        let network = Network { name, there: at(2) };
        network.connect(&at(1)).map_err(|why| format!("no network of our own: {why}"))?;
        Ok(network)
    }

    fn connect(&self, here: &str) -> Result<(), String> {
        let (near, far, name) = (self.end("n"), self.end("f"), self.name.as_str());
        ip(&["netns", "add", name])?;
        let far_end = ["peer", "name", &far, "address", FAR, "netns", name];
        ip(&[&["link", "add", &near, "type", "veth"][..], &far_end].concat())?;
        ip(&["addr", "add", &format!("{here}/30"), "dev", &near])?;
        ip(&["link", "set", &near, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{}/30", self.there), "dev", &far])?;
        ip(&["-n", name, "link", "set", &far, "up"])?;
        // As at a router far away: a host that is gone stays silent, and nobody says that there is no way to it.
        ip(&["neigh", "replace", &self.there, "lladdr", FAR, "dev", &near, "nud", "permanent"])
    }

    fn end(&self, which: &str) -> String {
        format!("{}{which}", self.name)
    }

    /// Words that lead a program into it.
    pub fn enter(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(String::from).to_vec()
    }

    /// From now on nothing arrives, and nobody says so.
    pub fn cut(&self) {
        ip(&["-n", &self.name, "link", "set", &self.end("f"), "down"]).unwrap();
    }

    /// The opposite of [`Network::cut`].
    pub fn mend(&self) {
        ip(&["-n", &self.name, "link", "set", &self.end("f"), "up"]).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", &self.end("n")]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// Hardware address of the far end.
const FAR: &str = "02:6f:70:73:68:01";

fn ip(words: &[&str]) -> Result<(), String> {
    let done = Command::new("ip").args(words).output().map_err(|error| format!("ip: {error}"))?;
    let said = String::from_utf8_lossy(&done.stderr).trim().to_string();
    if done.status.success() { Ok(()) } else { Err(format!("ip {}: {said}", words.join(" "))) }
}
