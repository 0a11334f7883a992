//! A private sshd that plays many hosts: `web-N` is 127.0.0.(N + 1), and a script there knows by `$SSH_CONNECTION` which
//! one it is on.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An sshd on the loopback network with its own keys, configuration and log. Ends when dropped.
pub struct Sshd {
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Sshd {
    /// Starts one; `None`, and said so, where none can be.
    pub fn start() -> Option<Sshd> {
        let program = Path::new("/usr/sbin/sshd");
        if !program.exists() {
            crate::skip::skip("there is no sshd");
            return None;
        }
        // It wants its folder for separated privileges only when it is root's.
        let _ = std::fs::create_dir_all("/run/sshd");
        let dir = tempfile::Builder::new().prefix("sshd").tempdir().unwrap();
        for key in ["host", "id"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.path().join(key));
            assert!(keygen.status().unwrap().success());
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let at = dir.path().display();
        let config = format!(
            "Port {port}\n{}HostKey {at}/host\nAuthorizedKeysFile {at}/id.pub\nStrictModes no\n\
             PidFile none\nPermitRootLogin yes\nPasswordAuthentication no\nUsePAM no\nMaxStartups 200\n",
            listen()
        );
        std::fs::write(dir.path().join("config"), config).unwrap();
        let mut command = Command::new(program);
        command.arg("-D").arg("-f").arg(dir.path().join("config")).arg("-E").arg(dir.path().join("log"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let sshd = Sshd { dir, port, child };
        sshd.wait_until_it_listens();
        Some(sshd)
    }

    fn wait_until_it_listens(&self) {
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::new(127, 0, 0, MOST + 1), self.port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "sshd does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `[host.web-N]` with these further lines.
    pub fn host(&self, n: u8, more: &str) -> String {
        let (user, key, port) = (said(Command::new("id").arg("-un")), self.path("id"), self.port);
        let fingerprint = said(Command::new("ssh-keygen").arg("-lf").arg(self.path("host.pub")));
        let fingerprint = fingerprint.split(' ').nth(1).unwrap();
        format!(
            "[host.web-{n}]\nssh = \"{user}@127.0.0.{}\"\nport = {port}\nidentity = \"{}\"\nhost_key = \"{fingerprint}\"\n{more}\n",
            n + 1,
            key.display()
        )
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hosts that one sshd can play.
const MOST: u8 = 15;

fn listen() -> String {
    (1..=MOST + 1).map(|last| format!("ListenAddress 127.0.0.{last}\n")).collect()
}

fn said(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_string()
}
