//! A private sshd that plays many hosts: `web-N` is 127.0.0.(N + 1), and a script there knows by `$SSH_CONNECTION` which
//! one it is on.

use crate::network::Network;
use crate::processes;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// An sshd on the loopback network with its own keys, configuration and log. Ends when dropped.
pub struct Sshd {
    dir: tempfile::TempDir,
    port: u16,
    /// The one address of every host, where it is not a loopback address of each.
    address: Option<String>,
    /// Words before the server's own, which lead to a program that starts it.
    before: Vec<String>,
    child: Option<Child>,
    /// What [`Sshd::freeze`] stopped. Its parents may be gone when it is to go on.
    frozen: Mutex<Vec<i32>>,
}

impl Sshd {
    /// Starts one; `None`, and said so, where none can be.
    pub fn start() -> Option<Sshd> {
        Sshd::start_with("")
    }

    /// Starts one with these lines before its own: of two values sshd takes the first.
    pub fn start_with(more: &str) -> Option<Sshd> {
        Sshd::at(None, Vec::new(), more)
    }

    /// Starts one at the far end of a cable.
    pub fn start_behind(network: &Network) -> Option<Sshd> {
        Sshd::at(Some(network.there.clone()), network.enter(), "")
    }

    fn at(address: Option<String>, before: Vec<String>, more: &str) -> Option<Sshd> {
        if !Path::new(PROGRAM).exists() {
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
        let mut sshd = Sshd { dir, port, address, before, child: None, frozen: Mutex::default() };
        std::fs::write(sshd.path("config"), format!("{more}{}", sshd.config())).unwrap();
        sshd.serve();
        Some(sshd)
    }

    fn config(&self) -> String {
        let (port, at) = (self.port, self.dir.path().display());
        let mut listen: Vec<String> = (0..=MOST).map(|n| format!("ListenAddress {}\n", self.address(n))).collect();
        listen.dedup();
        let listen = listen.concat();
        format!(
            "Port {port}\n{listen}HostKey {at}/host\nAuthorizedKeysFile {at}/id.pub\nStrictModes no\n\
             PidFile none\nPermitRootLogin yes\nPasswordAuthentication no\nUsePAM no\nMaxStartups 200\n\
             SetEnv XDG_STATE_HOME={at}/state\n"
        )
    }

    fn address(&self, n: u8) -> String {
        self.address.clone().unwrap_or_else(|| format!("127.0.0.{}", n + 1))
    }

    /// Starts the server, again after [`Sshd::stop`], and waits until it listens.
    pub fn serve(&mut self) {
        let words = [self.before.as_slice(), &[PROGRAM.into()]].concat();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("-D").arg("-f").arg(self.path("config")).arg("-E").arg(self.path("log"));
        self.child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok();
        let at = (self.address(MOST), self.port);
        processes::until("sshd listens", || TcpStream::connect((at.0.as_str(), at.1)).ok());
    }

    /// Kills the server and the processes of its sessions, but not what was run in them: that goes on, also when it was
    /// stopped by [`Sshd::freeze`].
    pub fn stop(&mut self) {
        let Some(mut server) = self.child.take() else { return };
        let sessions = processes::below(server.id() as i32);
        let _ = server.kill();
        let _ = server.wait();
        let own = sessions.iter().filter(|process| process.words.first().is_some_and(|word| word.starts_with("sshd")));
        own.for_each(|process| processes::signal(process.pid, libc::SIGKILL));
        self.thaw();
    }

    /// Stops the server and the processes of its sessions without ending them: what is connected hangs, and whoever
    /// connects gets no answer.
    pub fn freeze(&self) {
        let server = self.child.as_ref().unwrap().id() as i32;
        processes::signal(server, libc::SIGSTOP);
        let all: Vec<i32> = processes::below(server).iter().map(|process| process.pid).chain([server]).collect();
        all.iter().for_each(|pid| processes::signal(*pid, libc::SIGSTOP));
        self.frozen.lock().unwrap().extend(all);
    }

    /// Goes on after [`Sshd::freeze`].
    pub fn thaw(&self) {
        self.frozen.lock().unwrap().drain(..).for_each(|pid| processes::signal(pid, libc::SIGCONT));
    }

    /// Every ssh that is, or would be, connected to it.
    pub fn clients(&self) -> Vec<i32> {
        let port = format!("Port={}", self.port);
        let is_client = |one: &processes::Process| one.words.first().is_some_and(|word| word == "ssh");
        let all = processes::all().into_iter().filter(|one| is_client(one) && one.words.contains(&port));
        all.map(|one| one.pid).collect()
    }

    /// What a restarted machine has besides: another boot id. It counts from the next [`Sshd::serve`] on. False, and said
    /// so, where it cannot be had.
    pub fn reboots(&mut self) -> bool {
        let boot = self.path("boot");
        std::fs::write(&boot, "00000000-0000-4000-8000-000000000000\n").unwrap();
        let mount = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount].map(String::from);
        self.before.extend(words.into_iter().chain([boot.display().to_string()]));
        let tried = Command::new(&self.before[0]).args(&self.before[1..]).arg("true").stderr(Stdio::null()).status();
        let can = tried.is_ok_and(|status| status.success());
        if !can {
            crate::skip::skip("no mount namespace can be made here");
        }
        can
    }

    /// Where the host keeps what a durable run leaves.
    pub fn run(&self, effect: &str) -> PathBuf {
        self.path("state/opsh/runs").join(effect)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Kind and key, as a list of keys has them.
    pub fn host_key(&self) -> String {
        let line = std::fs::read_to_string(self.path("host.pub")).unwrap();
        line.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    /// `SHA256:…` of its key.
    pub fn fingerprint(&self) -> String {
        let shown = said(Command::new("ssh-keygen").arg("-lf").arg(self.path("host.pub")));
        shown.split(' ').nth(1).unwrap().to_string()
    }

    /// `[host.web-N]` with these further lines.
    pub fn host(&self, n: u8, more: &str) -> String {
        let (user, key, port) = (said(Command::new("id").arg("-un")), self.path("id"), self.port);
        let fingerprint = self.fingerprint();
        format!(
            "[host.web-{n}]\nssh = \"{user}@{}\"\nport = {port}\nidentity = \"{}\"\nhost_key = \"{fingerprint}\"\n{more}\n",
            self.address(n),
            key.display()
        )
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

const PROGRAM: &str = "/usr/sbin/sshd";

/// Hosts that one sshd can play.
const MOST: u8 = 15;

fn said(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_string()
}
