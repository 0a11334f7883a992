//! The list of reads, attacked: every option that a program's own help names, and every letter, is offered to the
//! check, and all that it accepts really runs, in namespaces whose files, sockets and processes are compared. The
//! Docker Engine, systemd and their like are out of reach in there: of those the check itself is tried.

#![expect(clippy::disallowed_methods, reason = "a test runs the programs that are attacked")]

use super::check;
use super::table::{PROGRAMS, RAW};
use crate::bind::host::read_words;
use crate::bind::ssh::{quote, quote_all, tests::skip};
use regex::Regex;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

/// Lines that run at the same time: some wait until they are killed.
const TOGETHER: usize = 8;

/// Makes the namespaces: a copy of all files that is thrown away, `$1/up` says what changed in it, and no network. A look at
/// git has a folder in `/dev/shm`, which is left there when it is killed, as here.
const ENTER: &str = r#"
set -e
cd "$1"
mount -t tmpfs upper top
mkdir top/up top/work top/root
mount -t overlay overlay -o "lowerdir=/,upperdir=top/up,workdir=top/work" top/root
mount -t proc proc top/root/proc
mount -t sysfs sysfs top/root/sys
mount -t tmpfs devices top/root/dev
for device in null zero full random urandom; do
    : >"top/root/dev/$device"
    mount --bind "/dev/$device" "top/root/dev/$device"
done
# Who looks for a file system by a tag looks through these.
awk 'NR > 2 && NF { print $4, $1, $2; exit }' /proc/partitions | while read -r name major minor; do
    mknod "top/root/dev/$name" b "$major" "$minor"
done
mkdir top/root/dev/up top/root/dev/shm
mount --bind top/up top/root/dev/up
mount -t tmpfs runtime top/root/run
ip link set lo up
exec chroot top/root sh "$1/attack" "$1"
"#;

/// State that must not change: a listening socket, a connection, a process, files, the names and settings of the kernel.
const BEGIN: &str = r#"
cd "$1/work"
sleep 600 & decoy=$!
tail -f /dev/null | busybox nc -l -p 4711 >/dev/null 2>&1 &
until ss -Htln | grep -q 4711; do :; done
tail -f /dev/null | busybox nc 127.0.0.1 4711 >/dev/null 2>&1 &
until ss -Htn state established | grep -q 4711; do :; done
for name in PAGER GIT_PAGER SYSTEMD_PAGER MANPAGER EDITOR VISUAL GIT_EDITOR GIT_EXTERNAL_DIFF GIT_ASKPASS LESSOPEN SHELL; do
    export "$name=$1/canary"
done
since() { echo $(($(date +%s) - $(cut -d. -f1 /proc/uptime))); }
started=$(since)
state() {
    find /dev/up -mindepth 1 ! -name . | sort
    find /run -mindepth 1 -printf '%p %s %T@\n' | sort
    kill -0 $decoy 2>&1
    ss -Htan | sort
    uname -n
    cat /proc/sys/kernel/printk
    wc -l </proc/mounts
    ip -o addr
    # Set by whom, the clock parts from the time since the start. Both are read in whole seconds, one after the other.
    [ $((started - $(since) + 3)) -ge 0 ] && [ $(($(since) - started + 3)) -ge 0 ] || echo "the clock was set: $(since)"
    dmesg >/dev/null && dmesg | grep -c . | sed 's/^[1-9].*/some/'
    cat victim; stat -c '%Y %Z %s' victim
}
run() { timeout -s KILL 0.3 "$@" </dev/null >/dev/null 2>&1; }
after() {
    now=$(state)
    if test "$now" != "$before"; then
        printf '%s\n' "$before" >/dev/before
        printf 'after %s:\n' "$1"
        printf '%s\n' "$now" | diff /dev/before -
    fi
    before=$now
}
before=$(state)
"#;

/// The words in front of the options: a program that wants a word first gets one.
fn base(name: &str) -> Vec<String> {
    let more = match name {
        "getent" => "getent passwd",
        "systemctl" => "systemctl status",
        "crontab" => "crontab -l",
        "find" => "find victim",
        "ip" => "ip addr",
        "ssh" => "ssh -G",
        name => name,
    };
    more.split(' ').map(String::from).collect()
}

fn help(name: &str) -> String {
    let words: Vec<&str> = name.split(' ').collect();
    let ask = match words[0] {
        "git" => vec!["-h"],
        "ip" => vec!["addr", "help"],
        _ => vec!["--help"],
    };
    let ran = Command::new(words[0]).args(&words[1..]).args(ask).stdin(Stdio::null()).output();
    ran.map(|ran| String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned()).unwrap_or_default()
}

/// Every line of words that is offered: each option alone, with values in every form, in clusters, abbreviated.
fn offers(name: &str) -> Vec<Vec<String>> {
    let word = Regex::new(r"(?:^|[\s,\[|(=])(--?[A-Za-z0-9][A-Za-z0-9_-]*)").expect("a pattern");
    let plain = Regex::new(r"\b[a-z][a-z_-]+\b").expect("a pattern");
    let help = help(name);
    let mut options: BTreeSet<String> = word.captures_iter(&help).map(|found| found[1].to_string()).collect();
    options.extend(('a'..='z').chain('A'..='Z').chain('0'..='9').map(|letter| format!("-{letter}")));
    if name == "ip" {
        options.extend(plain.find_iter(&help).map(|found| found.as_str().to_string()));
    }
    let accepted =
        |option: &&String| option.len() == 2 && check(&[base(name), vec![option.to_string()]].concat()).is_ok();
    let friend = options.iter().find(accepted).map(|option| option[1..].to_string());
    let mut lines =
        vec![Vec::new(), vec!["victim".into()], vec!["victim".into(), "victim".into()], vec!["LABEL=x".into()]];
    for option in &options {
        let mut add = |words: &[&str]| lines.push(words.iter().map(|word| word.to_string()).collect::<Vec<_>>());
        add(&[option]);
        add(&[option, "victim"]);
        add(&["victim", option, "victim"]);
        add(&[option, "1"]);
        add(&[option, "LABEL=x"]);
        add(&[&format!("{option}=victim")]);
        add(&[option, "../canary", ";"]);
        if option.starts_with("--") {
            add(&[&option[..option.len() - 1], "victim"]);
        } else if option.len() == 2 {
            add(&[&format!("{option}victim"), "victim"]);
            add(&[&format!("{option}1"), "victim"]);
            if let Some(friend) = &friend {
                add(&[&format!("-{friend}{}", &option[1..]), "victim"]);
                add(&[&format!("-{friend}{}victim", &option[1..]), "victim"]);
            }
        }
    }
    lines.into_iter().map(|line| [base(name), line].concat()).collect()
}

#[test]
fn accepted_words_leave_everything_as_it_was() {
    let names = PROGRAMS.iter().map(|program| program.name).chain(RAW.iter().copied()).chain(["find", "ip", "ssh"]);
    let names: Vec<&str> = names.collect();
    let there = |program: &str| Command::new("which").arg(program).output().is_ok_and(|ran| ran.status.success());
    // SAFETY: a system call without arguments.
    if unsafe { libc::geteuid() } != 0 {
        return skip("namespaces with files of their own are root's");
    }
    let programs: BTreeSet<&str> = names.iter().filter_map(|name| name.split(' ').next()).chain(["busybox"]).collect();
    if let Some(missing) = programs.into_iter().find(|program| !there(program)) {
        return skip(&format!("no program {missing}, which is on the list of reads"));
    }
    let dir = tempfile::Builder::new().prefix("reads").tempdir().expect("a folder");
    let path = dir.path();
    for folder in ["top", "work"] {
        std::fs::create_dir(path.join(folder)).expect("a folder");
    }
    std::fs::write(path.join("work/victim"), "stays\n").expect("a file");
    std::fs::write(path.join("canary"), "#!/bin/sh\n: >>/canary-was-run\n").expect("a file");
    assert!(Command::new("chmod").arg("755").arg(path.join("canary")).status().is_ok_and(|status| status.success()));
    let (script, tried) = attack(&names);
    std::fs::write(path.join("attack"), script).expect("a file");
    let ran = Command::new("unshare")
        .args(["-m", "-p", "-n", "-i", "-u", "-f", "--kill-child", "--propagation", "private", "sh", "-c", ENTER, "sh"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&ran.stdout);
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}\n{errors}");
    assert_eq!(said, "all was tried\n", "{errors}");
    assert!(tried > 1000, "only {tried} lines were accepted");
    assert_eq!(std::fs::read_to_string(path.join("work/victim")).expect("the victim"), "stays\n");
    assert!(!Path::new("/canary-was-run").exists());
}

/// The script that runs what is accepted, and how much that is.
fn attack(names: &[&str]) -> (String, usize) {
    let (mut script, mut tried) = (BEGIN.to_string(), 0);
    for name in names {
        let lines: BTreeSet<Vec<String>> = offers(name).into_iter().filter(|words| check(words).is_ok()).collect();
        assert!(!lines.is_empty(), "nothing of {name} is accepted");
        // Every word of these is data: an option that has one more behind it is no other case.
        let few = |words: &&Vec<String>| !RAW.contains(name) || words.len() <= 2;
        let lines: Vec<String> =
            lines.iter().filter(few).map(|words| format!("run {} &", quote_all(&read_words(words)))).collect();
        tried += lines.len();
        for together in lines.chunks(TOGETHER) {
            script += &format!("(\n{}\nwait\n)\n", together.join("\n"));
        }
        script += &format!("after {}\n", quote(name));
    }
    script += "echo 'all was tried'\n";
    (script, tried)
}
