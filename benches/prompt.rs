//! How long a person waits for the prompt: from starting opsh with ten hosts that never answer to its first prompt, and
//! from a Tab key to the candidates on the screen, beside what other shells take for the same on the same kind of
//! terminal. Interleaved pairs, whichever comes first taking turns.
//!
//! `cargo bench --bench prompt` prints medians and the ratios of the pairs; `PAIRS=99` takes more of them, and
//! `--profile dev` measures the program without optimizations. The aims are 50 ms and 30 ms with them.
#![allow(clippy::disallowed_methods, reason = "a benchmark sets the stage and looks at it from outside")]
#![allow(clippy::print_stdout, reason = "its result")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on says so by panicking")]
#![allow(dead_code, reason = "of the terminal that tests use it needs a part")]

#[path = "../tests/it/home.rs"]
mod home;
#[path = "../tests/it/terminal.rs"]
mod terminal;

use home::Home;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};
use terminal::Terminal;

const HOSTS: usize = 10;
const CTRL_L: &str = "\x0c";
const CTRL_U: &str = "\x15";
const SIZE: (u16, u16) = (100, 30);

/// A shell at the same terminal, and how its prompt looks.
struct Shell {
    name: &'static str,
    prompt: &'static str,
    /// What Tab is pressed behind, and what then shows that its candidates are there.
    typed: &'static str,
    shows: &'static str,
    start: fn(&Home) -> Command,
}

const OPSH: Shell = Shell {
    name: "opsh",
    prompt: "opsh ›",
    typed: "stack(\"stack-1\").recreate(\"w",
    shows: "worker\"  service",
    start: |home| Terminal::command(home, &[]),
};

const PEERS: &[Shell] = &[
    Shell {
        name: "bash -i",
        prompt: "bash>",
        typed: "cat w",
        shows: "worker",
        start: |home| {
            let mut command = peer(home, "bash", &["--noprofile", "--norc", "-i"]);
            command.env("PS1", "bash> ").env("INPUTRC", home.path("inputrc"));
            command
        },
    },
    Shell {
        name: "fish",
        prompt: "fish>",
        typed: "cat w",
        shows: "worker",
        start: |home| peer(home, "fish", &["--no-config", "-C", "function fish_prompt; echo -n 'fish> '; end"]),
    },
];

/// Another program where opsh would be.
fn peer(home: &Home, program: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words).current_dir(home.0.path()).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C.UTF-8");
    command.env("HOME", home.0.path()).env("TERM", "xterm-256color");
    command
}

fn main() {
    // `cargo test --benches` passes other words; it must not run for long.
    if !std::env::args().any(|word| word == "--bench") {
        return;
    }
    let pairs: usize = std::env::var("PAIRS").map_or(15, |text| text.parse().unwrap());
    assert!(pairs > 0, "PAIRS must be at least 1");
    // It accepts, and never says a word: whoever asks it anything waits.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = Home::new();
    home.put("opsh.toml", &config(silent.local_addr().unwrap().port()));
    home.put("inputrc", "set show-all-if-ambiguous on\n");
    for file in ["web", "worker"] {
        home.put(file, "");
    }
    let there = |shell: &&Shell| Command::new(shell.name.split(' ').next().unwrap()).arg("--version").output().is_ok();
    for peer in PEERS.iter().filter(there) {
        let both = [&OPSH, peer];
        compare("from start to the first prompt", both, pairs, |shell| start(shell, &home).1);
        let terminals = both.map(|shell| (shell.name, start(shell, &home).0));
        let of = |shell: &Shell| &terminals.iter().find(|(name, _)| *name == shell.name).unwrap().1;
        compare("from Tab to the candidates", both, pairs, |shell| tab(shell, of(shell)));
    }
}

/// Ten hosts that never answer, and a stack on each.
fn config(port: u16) -> String {
    let one = |n: usize| {
        format!(
            "[host.host-{n}]\nssh = \"ops@127.0.0.{n}\"\nport = {port}\n\n[stack.stack-{n}]\nhost = \"host-{n}\"\n\
             dir = \"/srv/app\"\ncompose = {{ files = [\"compose.yml\"], project = \"app\" }}\n\
             services = {{ web = {{}}, worker = {{}} }}\n\n"
        )
    };
    (1..=HOSTS).map(one).collect()
}

/// Starts it, and how long its prompt took.
fn start(shell: &Shell, home: &Home) -> (Terminal, Duration) {
    let mut command = (shell.start)(home);
    let began = Instant::now();
    let terminal = Terminal::run(&mut command, SIZE.0, SIZE.1);
    terminal.until_line(shell.prompt);
    (terminal, began.elapsed())
}

/// From the key to the list on the screen, which is then cleared.
fn tab(shell: &Shell, terminal: &Terminal) -> Duration {
    let line = format!("{} {}", shell.prompt, shell.typed);
    // Behind it fish shows what it guesses.
    terminal.keys(shell.typed).wait_for(&line, |screen| terminal::current(screen).starts_with(&line));
    let began = Instant::now();
    terminal.keys("\t").until(shell.shows);
    let took = began.elapsed();
    terminal.keys(CTRL_U).keys(CTRL_L);
    terminal.wait_for("an empty line", |screen| screen.contents().trim_end() == shell.prompt);
    took
}

/// Measures both in turns.
fn compare(what: &str, [opsh, peer]: [&Shell; 2], pairs: usize, measure: impl Fn(&Shell) -> Duration) {
    // The first of each finds nothing in any cache, and opsh makes its journal.
    for shell in [opsh, peer] {
        measure(shell);
    }
    let mut took: Vec<(f64, f64)> = Vec::new();
    for pair in 0..pairs {
        let ms = |shell: &Shell| measure(shell).as_secs_f64() * 1000.0;
        took.push(if pair % 2 == 0 {
            let first = ms(peer);
            (ms(opsh), first)
        } else {
            (ms(opsh), ms(peer))
        });
    }
    let of = |value: fn(&(f64, f64)) -> f64| median(took.iter().map(value).collect());
    let (own, other, ratio) = (of(|pair| pair.0), of(|pair| pair.1), of(|pair| pair.0 / pair.1));
    println!("{what}: opsh {own:.1} ms, {} {other:.1} ms, ratio {ratio:.2}  (medians of {pairs} pairs)", peer.name);
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
