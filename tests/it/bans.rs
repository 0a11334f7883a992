//! Each ban of `clippy.toml` bites: a crate that breaks every one of them once gets every diagnostic once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// What is banned, with the sentence that says what to use instead.
fn bans() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(root().join("clippy.toml")).unwrap();
    let config: toml::Table = text.parse().unwrap();
    let mut bans = BTreeMap::new();
    for entry in config["disallowed-methods"].as_array().unwrap() {
        let word = |key: &str| entry.get(key).and_then(toml::Value::as_str).unwrap_or("").to_string();
        let twice = bans.insert(word("path"), word("reason"));
        assert_eq!(twice, None, "{} is banned twice", word("path"));
    }
    bans
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What clippy says about the fixture: each banned path with its diagnostic as text.
fn diagnostics() -> Vec<(String, String)> {
    let target = tempfile::tempdir().unwrap();
    let out = Command::new(env!("CARGO"))
        .args(["clippy", "--offline", "--locked", "--quiet", "--message-format=json", "--target-dir"])
        .arg(target.path())
        .arg("--manifest-path")
        .arg(root().join("tests/fixtures/bans/Cargo.toml"))
        .env("CLIPPY_CONF_DIR", root())
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    // A path that clippy cannot find is a warning without a code.
    assert!(out.status.success() && stderr.is_empty(), "{stderr}");
    let lines = String::from_utf8(out.stdout).unwrap();
    let messages = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let messages = messages.filter(|message| message["reason"] == "compiler-message");
    messages
        .map(|message| {
            let text = message["message"]["rendered"].as_str().unwrap_or("").to_string();
            assert_eq!(message["message"]["code"]["code"], "clippy::disallowed_methods", "{text}");
            (text.split('`').nth(1).unwrap_or("").to_string(), text)
        })
        .collect()
}

#[test]
fn every_ban_says_what_to_use_instead() {
    for (path, reason) in bans() {
        assert!(reason.split_whitespace().count() >= 5, "{path}: \"{reason}\"");
    }
}

#[test]
fn every_ban_bites_once_and_gives_its_reason() {
    let mut bans = bans();
    let fixture = std::fs::read_to_string(root().join("tests/fixtures/bans/src/lib.rs")).unwrap();
    let found = diagnostics();
    assert_eq!(found.len(), fixture.matches("pub fn ").count(), "the fixture does something that is not banned");
    for (path, text) in found {
        let reason = bans.remove(&path).unwrap_or_else(|| panic!("not banned, or twice in the fixture: {text}"));
        assert!(text.contains(&reason), "{path}: {text}");
    }
    assert!(bans.is_empty(), "the fixture does not break, or clippy does not see: {:?}", bans.keys());
}

/// The fixture's crates are stand-ins: this proves that the real ones have what is banned, and `cargo clippy
/// --all-targets` that the ban bites there too, as an expectation that is not met is a warning.
macro_rules! real {
    ($($path:literal $how:expr;)*) => {
        const REAL: &[&str] = &[$($path),*];

        #[allow(dead_code, unused_must_use, reason = "it is compiled, and never run")]
        fn real() {
            $({
                #[expect(clippy::disallowed_methods, reason = "what is proven")]
                let _ = $how;
            })*
        }
    };
}

real! {
    "hyper_util::client::legacy::Client::builder" hyper_util::client::legacy::Client::builder::<hyper_util::rt::TokioExecutor>;
    "jiff::Timestamp::now" jiff::Timestamp::now();
    "jiff::Zoned::now" jiff::Zoned::now();
    "openssh::Session::resume_mux" openssh::Session::resume_mux;
    "openssh::SessionBuilder::connect_mux" openssh::SessionBuilder::connect_mux::<&str>;
    "tokio::net::TcpStream::connect" tokio::net::TcpStream::connect::<&str>;
    "tokio::net::UnixStream::connect" tokio::net::UnixStream::connect::<&str>;
    "tokio::net::lookup_host" tokio::net::lookup_host::<&str>;
    "tokio::process::Command::new" tokio::process::Command::new::<&str>;
}

#[test]
fn every_banned_path_of_a_dependency_is_there() {
    let bans = bans();
    let foreign: Vec<&str> = bans.keys().map(String::as_str).filter(|path| !path.starts_with("std::")).collect();
    assert_eq!(foreign, REAL);
}
