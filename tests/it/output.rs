//! Commands that print gigabytes: the built program stays small, and so does what is left on the host.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const OPSH: &str = env!("CARGO_BIN_EXE_opsh");
const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// Resident memory that opsh may have at any time.
const MOST_MEMORY: u64 = 64 * MIB;
/// Two outputs, of each the beginning and the last two segments of at most 16 MiB.
const MOST_DISK: u64 = 96 * MIB;

/// A home with nothing in it, and an sshd where there can be one.
struct Home {
    dir: tempfile::TempDir,
    sshd: Option<Child>,
}

/// What a run printed, and the most that it took meanwhile, in bytes.
struct Ran {
    out: String,
    memory: u64,
    disk: u64,
}

impl Home {
    fn new() -> Home {
        Home { dir: tempfile::Builder::new().prefix("opsh").tempdir().unwrap(), sshd: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Configures the host `web`, an sshd of our own.
    fn with_sshd() -> Result<Home, String> {
        // SAFETY: a system call without arguments.
        if unsafe { libc::geteuid() } != 0 || !Path::new("/usr/sbin/sshd").exists() {
            return Err("no sshd, or not root".into());
        }
        let _ = std::fs::create_dir_all("/run/sshd");
        let mut home = Home::new();
        for key in ["host", "id"] {
            let mut keygen = Command::new("ssh-keygen");
            assert!(
                keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(home.path(key)).status().unwrap().success()
            );
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = home.dir.path().display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {at}/host\nAuthorizedKeysFile {at}/id.pub\nStrictModes no\n\
             PidFile none\nPermitRootLogin yes\nUsePAM no\nSetEnv XDG_STATE_HOME={at}/state\n"
        );
        std::fs::write(home.path("sshd_config"), config).unwrap();
        let shown = Command::new("ssh-keygen").arg("-lf").arg(home.path("host.pub")).output().unwrap().stdout;
        let key = String::from_utf8(shown).unwrap().split(' ').nth(1).unwrap().to_string();
        let host = format!("ssh = \"root@127.0.0.1\"\nport = {port}\nidentity = \"id\"\nhost_key = \"{key}\"\n");
        std::fs::write(home.path("opsh.toml"), format!("[host.web]\n{host}sandbox = true\n")).unwrap();
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f"]).arg(home.path("sshd_config")).stdin(Stdio::null()).stderr(Stdio::null());
        home.sshd = Some(sshd.spawn().unwrap());
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "sshd does not listen");
            std::thread::yield_now();
        }
        Ok(home)
    }

    fn evaluate(&self, code: &str) -> Ran {
        let mut command = Command::new(OPSH);
        command.args(["--yes", "-e", code]).current_dir(self.dir.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C.UTF-8");
        command.env("HOME", self.dir.path()).env("XDG_STATE_HOME", self.path("state"));
        // What the command prints is shown as it comes: a pipe that nobody reads would stop opsh.
        let shown = std::fs::File::create(self.path("shown")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(shown);
        let mut child = command.spawn().unwrap();
        let (mut memory, mut disk) = (0, 0);
        while child.try_wait().unwrap().is_none() {
            memory = memory.max(peak(child.id()));
            disk = disk.max(self.on_disk());
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut out = String::new();
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        assert!(child.wait().unwrap().success(), "{}", std::fs::read_to_string(self.path("shown")).unwrap());
        Ran { out, memory, disk }
    }

    /// Bytes that the durable runs have on this host.
    fn on_disk(&self) -> u64 {
        let below = |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten();
        let files = below(self.path("state/opsh/runs")).flat_map(|run| below(run.path()));
        files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(sshd) = &mut self.sshd {
            let _ = sshd.kill();
            let _ = sshd.wait();
        }
    }
}

/// The most memory that a process has had so far.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}

fn read(host: &str, bytes: u64) -> String {
    format!(r#"let r = host("{host}").read(["head", "-c", "{bytes}", "/dev/zero"], #{{ within_s: 600 }}); r.out.len"#)
}

fn run(host: &str, bytes: u64) -> String {
    format!(r#"host("{host}").run(["head", "-c", "{bytes}", "/dev/zero"]).after.out.len"#)
}

/// 1 MiB is kept, less the first byte of its second half, which ends what was cut, and the line that says how much is not.
fn kept(bytes: u64) -> String {
    let kept = MIB as usize - 1 + format!("\n… {} bytes left out …\n", bytes - MIB + 1).chars().count();
    format!("{kept}\n")
}

fn small(ran: &Ran) {
    assert!(ran.memory > MIB && ran.memory < MOST_MEMORY, "opsh had {} MiB", ran.memory / MIB);
    assert!(ran.disk < MOST_DISK, "the host kept {} MiB", ran.disk / MIB);
}

#[test]
fn a_read_of_five_gib_on_this_machine_takes_little_memory() {
    let ran = Home::new().evaluate(&read("local", 5 * GIB));
    assert_eq!(ran.out, kept(5 * GIB));
    small(&ran);
}

#[test]
fn a_run_that_prints_five_gib_takes_little_memory_here_and_little_disk_there() {
    let home = Home::new();
    let ran = home.evaluate(&run("local", 5 * GIB));
    assert_eq!(ran.out, kept(5 * GIB));
    assert!(ran.disk > 8 * MIB, "nothing was seen on the host");
    small(&ran);
    assert_eq!(home.on_disk(), 0, "a result that was read is removed");
}

#[test]
fn a_read_and_a_run_of_a_gib_over_ssh_take_little() {
    let home = match Home::with_sshd() {
        Ok(home) => home,
        Err(why) => return crate::skip::skip(&why),
    };
    for code in [read("web", GIB), run("web", GIB)] {
        let ran = home.evaluate(&code);
        assert_eq!(ran.out, kept(GIB));
        small(&ran);
    }
    assert_eq!(home.on_disk(), 0);
}
