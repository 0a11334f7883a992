//! A tiny image and containers on the real Engine for tests, all removed at the end.

use super::engine::Engine;
use super::transport::{Dial, unix_dial};
use crate::gate::Pass;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// One test's names on the Engine.
pub(super) struct Lab {
    pub(super) engine: Engine,
    /// Unique; also the repository of the images and a label on every container.
    pub(super) name: String,
}

impl Lab {
    /// None, with a word on why, where there is no Engine to test with.
    pub(super) async fn open() -> Option<Lab> {
        let quiet = Arc::new(String::new);
        let engine = match Engine::connect(&Pass::for_tests(), "here", local(), quiet).await {
            Ok(engine) => engine,
            Err(e) => {
                crate::bind::ssh::tests::skip(&format!("no Docker Engine: {}", e.why));
                return None;
            }
        };
        let name = format!("opsh-engine-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let lab = Lab { engine, name };
        lab.import("v1");
        Some(lab)
    }

    /// Makes the image `NAME:tag` with `APP_VERSION=tag` and returns its id.
    pub(super) fn import(&self, tag: &str) -> String {
        let env = format!("ENV PATH=/bin APP_VERSION={tag} PORT=8080");
        let label = format!("LABEL opsh.test={} tag={tag}", self.name);
        let reference = self.image(tag);
        output(Command::new("sh").args(["-c", IMPORT, "sh"]).arg(busybox()).args([&env, &label, &reference]))
    }

    pub(super) fn image(&self, tag: &str) -> String {
        format!("{}:{tag}", self.name)
    }

    pub(super) fn called(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// Starts a container of the image v1 and returns its id.
    pub(super) fn run(&self, name: &str, options: &[&str], words: &[&str]) -> String {
        let mut command = Command::new("docker");
        command.args(["run", "-d", "--name", &self.called(name)]).args(options);
        output(command.arg(self.image("v1")).args(words))
    }

    pub(super) fn docker(&self, words: &[&str]) -> String {
        output(Command::new("docker").args(words))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let script = r#"docker ps -aq --filter label=opsh.test="$1" | xargs -r docker rm -fv
            docker network ls -q --filter name="$1" | xargs -r docker network rm
            # An image of which another was made goes once that one is gone.
            for pass in 1 2; do docker images -q --filter label=opsh.test="$1" | sort -u | xargs -r docker rmi -f; done"#;
        let _ = Command::new("sh").args(["-c", script, "sh", &self.name]).output();
    }
}

pub(super) fn local() -> Dial {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    unix_dial(host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock"))
}

fn output(command: &mut Command) -> String {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// Makes the file tree in a temporary directory and imports it: busybox, changes, reference.
const IMPORT: &str = r#"set -e
    R=$(mktemp -d); trap 'rm -rf "$R"' EXIT; cd "$R"; mkdir -p bin etc tmp data app/migrations/old; cp "$1" bin/busybox
    for a in sh env cat sleep wc head yes tr dd printf seq echo true false id touch test ls; do ln -s busybox bin/$a; done
    printf 'root:x:0:0::/:/bin/sh\n' > etc/passwd; printf '#!/bin/sh\necho tool\n' > app/tool; chmod 755 app/tool
    echo plain > app/plain; chmod 644 app/plain; ln -s tool app/link; ln -s loop app/loop; ln -s nowhere app/broken
    ln -s /app current; ln -s ../tool app/migrations/skipped; ln -s app/migrations to_migrations
    echo 'CREATE TABLE a();' > app/migrations/000001_a.up.sql; echo 'DROP TABLE a;' > app/migrations/000001_a.down.sql
    ln app/migrations/000001_a.up.sql app/migrations/000002_b.up.sql; echo old > app/migrations/old/x.sql
    tar -c . | docker import -c "$2" -c "$3" -c 'VOLUME /data' - "$4""#;

/// A static busybox: `$BUSYBOX`, or the one of the package busybox-static, unpacked beside and not installed.
fn busybox() -> PathBuf {
    if let Some(path) = std::env::var_os("BUSYBOX") {
        return path.into();
    }
    let dir = std::env::temp_dir().join("opsh-busybox-static");
    let binary = dir.join("bin/busybox");
    if !Path::new(&binary).exists() {
        let script = r#"set -e; new="$1.$$"; mkdir -p "$new"; cd "$new"; apt-get download busybox-static >/dev/null 2>&1
            dpkg -x busybox-static_*.deb .; mv "$new" "$1" 2>/dev/null || rm -rf "$new""#;
        output(Command::new("sh").args(["-c", script, "sh"]).arg(&dir));
    }
    binary
}
