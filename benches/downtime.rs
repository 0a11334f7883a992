//! How long nobody is served while a stack goes back to the release before: the page's own commands, with the build that
//! they forget, against `scripts/rollback.rhai`. Interleaved pairs in labs of their own, one with the database interval
//! of the page's compose file and one with a short one.
//!
//! `cargo bench --profile dev --bench downtime` prints each pair and the median ratios; `PAIRS=9` takes more of them. Needs
//! a Docker Engine. Nearly all of it is waiting: a program without optimizations, which is there already, measures the same.
#![allow(clippy::disallowed_methods, reason = "a benchmark sets the stage and looks at it from outside")]
#![allow(clippy::print_stdout, reason = "its result")]

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Between two questions to the API.
const EVERY: Duration = Duration::from_millis(20);
/// What answers later than this serves nobody.
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);
/// After the last command, until the poller stops.
const AFTERWARDS: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    // `cargo test --benches` passes other words; it must not run for minutes.
    if !std::env::args().any(|word| word == "--bench") {
        return Ok(());
    }
    let pairs: usize = std::env::var("PAIRS").ok().map_or(Ok(5), |text| text.parse())?;
    if pairs == 0 {
        return Err("PAIRS must be at least 1".into());
    }
    for interval in ["10s", "1s"] {
        let lab = Lab::up(interval)?;
        println!("database interval {interval}: seconds in which the API did not answer 200");
        let mut ratios = Vec::new();
        for pair in 1..=pairs {
            // Whichever comes first may find caches that the other one filled.
            let (page, opsh) = if pair % 2 == 0 {
                let opsh = lab.downtime(Lab::opsh)?;
                (lab.downtime(Lab::page)?, opsh)
            } else {
                (lab.downtime(Lab::page)?, lab.downtime(Lab::opsh)?)
            };
            ratios.push(opsh.as_secs_f64() / page.as_secs_f64());
            let (page, opsh) = (page.as_secs_f64(), opsh.as_secs_f64());
            println!("  pair {pair}: the page {page:.2}, rollback.rhai {opsh:.2}: 1/{:.1}", page / opsh);
        }
        ratios.sort_by(f64::total_cmp);
        println!("  median: 1/{:.1}", 1.0 / ratios[ratios.len() / 2]);
    }
    Ok(())
}

struct Lab {
    name: String,
    config: PathBuf,
    api: SocketAddr,
    state: tempfile::TempDir,
}

impl Lab {
    fn up(interval: &str) -> Result<Lab> {
        let name = format!("opsh-bench-{interval}");
        let mut command = lab(&name, &["up"]);
        command.env("LAB_DB_INTERVAL", interval);
        let out = output(&mut command)?;
        let config = PathBuf::from(out.lines().last().ok_or("lab up says no configuration")?);
        let ports = std::fs::read_to_string(config.with_file_name("ports"))?;
        let port =
            ports.lines().find_map(|line| line.strip_prefix("LAB_API_PORT=")).ok_or("the lab has no API port")?;
        let api = SocketAddr::from(([127, 0, 0, 1], port.parse()?));
        Ok(Lab { name, config, api, state: tempfile::tempdir()? })
    }

    /// From a release that serves, whose migrations only add, back to the one before it.
    fn downtime(&self, back: fn(&Lab) -> Result<()>) -> Result<Duration> {
        output(&mut lab(&self.name, &["release", "v1.8.1"]))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, api) = (Arc::clone(&stop), self.api);
        let poller = std::thread::spawn(move || poll(api, &stopped));
        let went = back(self);
        std::thread::sleep(AFTERWARDS);
        stop.store(true, Ordering::Relaxed);
        let down = poller.join().map_err(|_| "the poller panicked")?;
        went?;
        let version = http(self.api, "/version").ok_or("the API does not answer afterwards")?;
        if !version.contains("1.8.0") {
            return Err(format!("it did not go back: {version}").into());
        }
        Ok(down)
    }

    fn page(&self) -> Result<()> {
        let compose = "docker-compose -f docker-compose.prod.yml --env-file .env.prod";
        let script = format!(
            "cd /opt/vrcshift && exec 2>&1 && {compose} down && git checkout -q v1.8.0 && {compose} build backend && {compose} up -d"
        );
        output(&mut lab(&self.name, &["exec", "sh", "-c", &script])).map(drop)
    }

    fn opsh(&self) -> Result<()> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_opsh"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("--config").arg(&self.config);
        command.arg("--state-dir").arg(self.state.path()).args(["--yes", "scripts/rollback.rhai", "v1.8.0"]);
        output(&mut command).map(drop)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = lab(&self.name, &["down"]).output();
    }
}

fn lab(name: &str, words: &[&str]) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/lab"));
    command.args(words).env("LAB_NAME", name).env_remove("LAB_DIR");
    command
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        return Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&said)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The time between a question that was not answered with 200 and the next one, summed up.
fn poll(api: SocketAddr, stop: &AtomicBool) -> Duration {
    let mut down = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let served = http(api, "/api/v1/shifts").is_some();
        std::thread::sleep(EVERY.saturating_sub(began.elapsed()));
        if !served {
            down += began.elapsed();
        }
    }
    down
}

/// The whole answer, if its status is 200.
fn http(api: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&api, ANSWERS_WITHIN).ok()?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (text.split(' ').nth(1) == Some("200")).then_some(text)
}
