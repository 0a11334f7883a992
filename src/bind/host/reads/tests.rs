//! Lines that are reads, and lines that only look like one.

use super::*;

fn allowed(line: &str) -> bool {
    check(&line.split(' ').map(String::from).collect::<Vec<_>>()).is_ok()
}

#[test]
fn usual_reads_are_on_the_list() {
    for line in [
        "cat -n /etc/hosts",
        "cat /proc/uptime /proc/loadavg",
        "crontab -l -u root",
        "date -u +%s",
        "date",
        "df -Ph /",
        "dmesg -T --level err",
        "docker container ls -aq",
        "docker inspect --format {{.State}} x",
        "docker logs -n 5 x",
        "docker logs -n5 x",
        "docker top x -o pid,args",
        "du -sh --max-depth=1 /var",
        "env",
        "find /var -name *.log -mtime -7 -size +100M",
        "free -m",
        "getent hosts db",
        "git log --oneline -5",
        "git status --short",
        "grep -rn -m 5 error /var/log",
        "head -c 10 /dev/zero",
        "head -n -5 x",
        "hostname -f",
        "hostname",
        "ip -br addr",
        "ip a",
        "ip route show default",
        "journalctl -b -1 -k",
        "journalctl -n 50 -u docker --since today",
        "journalctl -u docker -n 50",
        "ls -la /srv",
        "mount",
        "pg_isready -h db -p 5432",
        "pgrep -a git",
        "ps aux",
        "ps -eo pid,args --sort=-rss",
        "ss -tlnp sport = :22",
        "ssh -G root@web-1",
        "stat -c %U /srv",
        "systemctl --failed",
        "systemctl -l status nginx --no-pager",
        "tail -20 x",
        "tail -f /dev/null",
        "test -e /x",
        "uniq -c x",
        "which docker",
    ] {
        let words: Vec<String> = line.split(' ').map(String::from).collect();
        assert_eq!(check(&words), Ok(()), "{line}");
    }
}

#[test]
fn options_that_act_are_not_on_the_list() {
    for line in [
        "cat /dev/watchdog",
        "cat /proc/kmsg",
        "cat /tmp/../dev/watchdog",
        "crontab -r",
        "crontab -u root",
        "crontab -ul",
        "crontab x",
        "date -f x",
        "date -s now",
        "date -us now",
        "date 01010000",
        "df --sync",
        "dmesg -C",
        "dmesg -Tc",
        "dmesg -n 1",
        "docker --config /x ps",
        "docker -H tcp://x ps",
        "docker inspect --fo x",
        "docker ps -H x",
        "docker rm x",
        "docker system prune",
        "docker top -x y",
        "docker",
        "du --files0-from=x",
        "env rm x",
        "file -C",
        "find . -exec rm {} +",
        "find . -name -delete",
        "find . -fprintf x y",
        "find / -delete",
        "find -files0-from x",
        "getent -i passwd",
        "getent -s x/pwn passwd",
        "du --exclude-from=/dev/watchdog x",
        "du -X /dev/watchdog x",
        "findmnt -S UUID=x",
        "findmnt -SLABEL=x",
        "findmnt LABEL=x",
        "findmnt --source=PARTUUID=x",
        "getent shadow",
        "git ls-files -o -X /dev/watchdog",
        "git -C /x status",
        "git cat-file --textconv x",
        "git describe --dirty",
        "git log --ext-diff",
        "git log --help",
        "git log --output=x",
        "git log --show-signature",
        "git push",
        "git show -o x",
        "git show --textconv",
        "grep --devices=read x",
        "grep -D read x",
        "grep -R x /sys/kernel",
        "grep -d recurse x /proc/1",
        "grep -f /dev/watchdog x",
        "grep -rl --include=kmsg x /proc",
        "grep --recursive x /srv/..",
        "grep -r x ../..",
        "grep -r x //",
        "hostname -F x",
        "hostname evil",
        "ip -b x",
        "ip -n x a",
        "ip a a 1.2.3.4/8 dev lo",
        "ip link set lo down",
        "ip link show type ../../x",
        "journalctl --cursor-file=/x",
        "journalctl --image=x",
        "journalctl --rota",
        "journalctl --vacuum-size=1",
        "journalctl -M x",
        "last -f /dev/watchdog",
        "mount /x",
        "pg_isready -d sslkey=engine:x",
        "pgrep -F /dev/watchdog",
        "pgrep --pidfile=/dev/watchdog",
        "pg_isready -d postgres://x?sslkey=y",
        "sort -bo x y",
        "sort --compress-program=x y",
        "sort -o x y",
        "sort -T x y",
        "ss --diag=x",
        "ss --ki",
        "ss -K",
        "ss -N x",
        "ss -tD /x",
        "ss -tD/x",
        "ss -tK dst 10.0.0.1",
        "ss -tn --k dport = :80",
        "ssh -G -oProxyCommand=evil",
        "ssh -G a$(id)",
        "ssh -G web-1 -F /tmp/evil",
        "ssh web-1",
        "systemctl --root=/x status",
        "systemctl -H x status",
        "systemctl --lines",
        "systemctl stop x",
        "systemctl -p stop x",
        "tee /etc/passwd",
        "uniq x y",
        "uniq -- x y",
        "/usr/bin/df",
        "awk x",
        "curl http://x",
        "rm -rf /",
        "sed -n p x",
        "sh -c ls",
    ] {
        assert!(!allowed(line), "{line}");
    }
}

#[test]
fn a_refusal_names_the_word_and_the_way_out() {
    let why = |line: &str| check(&line.split(' ').map(String::from).collect::<Vec<_>>()).expect_err(line);
    assert_eq!(why("ss -tD x"), "ss -tD is not on the list of reads: use host.run");
    assert_eq!(why("frob x"), "frob is not on the list of reads: use host.run");
    assert!(why("docker rm x").starts_with("docker rm is not on the list of reads: use host.run (container diff"));
}

#[test]
fn a_search_of_all_files_does_not_begin_above_devices() {
    let words = |line: &str| line.split(' ').map(String::from).collect::<Vec<_>>();
    for (line, dir, ok) in [
        ("grep -r x .", "/", false),
        ("grep -rx x", "/srv/..", false),
        ("grep --directories recurse x", "/proc/1", false),
        ("grep -r x .", "/srv", true),
        ("grep x proc", "/", true),
    ] {
        assert_eq!(check_dir(&words(line), dir).is_ok(), ok, "{line} in {dir}");
    }
}

#[test]
fn a_folder_of_devices_is_no_working_directory() {
    for (dir, ok) in [("/srv/app", true), ("/dev", false), ("/srv/../dev/", false), ("/proc/1/root/dev", false)] {
        assert_eq!(check_dir(&["cat".into(), "x".into()], dir).is_ok(), ok, "{dir}");
    }
}
