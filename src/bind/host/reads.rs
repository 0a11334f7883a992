//! What counts as looking: the argument shapes that `host.read` accepts, each with a test.

/// Programs that only look, whatever their arguments are, except the words listed with them.
const LOOKERS: &[(&str, &[&str])] = &[
    ("cat", &[]),
    ("cmp", &[]),
    ("df", &[]),
    ("du", &[]),
    ("echo", &[]),
    ("free", &[]),
    ("getent", &[]),
    ("grep", &[]),
    ("head", &[]),
    ("id", &[]),
    ("last", &[]),
    ("ls", &[]),
    ("lsblk", &[]),
    ("nproc", &[]),
    ("pg_isready", &[]),
    ("pgrep", &[]),
    ("ps", &[]),
    ("readlink", &[]),
    ("sha256sum", &[]),
    ("ss", &["K", "--kill"]),
    ("stat", &[]),
    ("tail", &[]),
    ("test", &[]),
    ("true", &[]),
    ("uname", &[]),
    ("uptime", &[]),
    ("wc", &[]),
    ("who", &[]),
];

/// Programs whose first word says what they do.
const BY_FIRST_WORD: &[(&str, &[&str])] = &[
    ("docker", &["ps", "logs", "inspect", "images", "version", "info", "top", "port", "history"]),
    (
        "git",
        &[
            "log",
            "show",
            "status",
            "rev-parse",
            "ls-files",
            "ls-tree",
            "cat-file",
            "merge-base",
            "rev-list",
            "describe",
        ],
    ),
    ("systemctl", &["status", "is-active", "is-enabled", "is-failed", "show", "list-units", "list-timers", "cat"]),
    ("crontab", &["-l"]),
];

/// Words of `find` that do something to what was found.
const FIND_ACTS: &[&str] =
    &["-delete", "-exec", "-execdir", "-ok", "-okdir", "-fprint", "-fprint0", "-fprintf", "-fls"];

/// Ok when these words only look; else why they are not taken for that.
pub fn check(words: &[String]) -> Result<(), String> {
    let Some((program, rest)) = words.split_first() else { return Err("words is empty".into()) };
    // A long option may be abbreviated and carry a value; a short one may stand in a cluster.
    let has = |bad: &str| {
        rest.iter().find(|word| match (bad.len(), word.strip_prefix("--"), word.strip_prefix('-')) {
            (1, None, Some(cluster)) => cluster.contains(bad),
            (_, Some(long), _) if long.len() > 1 => {
                bad.strip_prefix("--").is_some_and(|bad| bad.starts_with(long.split('=').next().unwrap_or(long)))
            }
            _ => *word == bad,
        })
    };
    if let Some((_, bad)) = LOOKERS.iter().find(|(name, _)| name == program) {
        return match bad.iter().find_map(|bad| has(bad)) {
            Some(word) => Err(format!("{program} {word} changes something: use host.run")),
            None => Ok(()),
        };
    }
    if let Some((_, verbs)) = BY_FIRST_WORD.iter().find(|(name, _)| name == program) {
        let first = rest.first().map_or("", String::as_str);
        let output = has("--output").or_else(|| has("-o")).filter(|_| program == "git");
        return match (verbs.contains(&first), output) {
            (true, None) => Ok(()),
            (true, Some(word)) => Err(format!("git {word} writes a file: use host.run")),
            (false, _) => {
                Err(format!("{program} {first} is not known to only look: use host.run ({})", verbs.join(", ")))
            }
        };
    }
    match program.as_str() {
        "date" if rest.iter().all(|word| word.starts_with('+') || word == "-u") => Ok(()),
        "hostname" | "mount" | "env" | "printenv" if rest.is_empty() => Ok(()),
        "find" => match FIND_ACTS.iter().find_map(|act| has(act)) {
            Some(word) => Err(format!("find {word} changes something: use host.run")),
            None => Ok(()),
        },
        // Only what the configuration makes of a name: nothing is connected to.
        "ssh" if matches!(rest, [flag, name] if flag == "-G" && !name.starts_with('-')) => Ok(()),
        "journalctl" if !rest.iter().any(|word| is_journal_act(word)) => Ok(()),
        _ => Err(format!("{program} is not known to only look: use host.run")),
    }
}

/// Only what is known to look: `journalctl` takes abbreviated options, and some of them delete.
fn is_journal_act(word: &str) -> bool {
    const LOOKS: &[&str] =
        &["--unit", "--since", "--until", "--lines", "--no-pager", "--output", "--boot", "--priority", "--grep"];
    match word.split('=').next() {
        Some(option) if option.starts_with("--") => !LOOKS.contains(&option),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(line: &str) -> bool {
        check(&line.split(' ').map(String::from).collect::<Vec<_>>()).is_ok()
    }

    #[test]
    fn every_looker_is_accepted_and_its_acts_are_not() {
        for (program, acts) in LOOKERS {
            assert!(allowed(&format!("{program} x")), "{program}");
            for act in *acts {
                let act = if act.len() == 1 { format!("-{act}") } else { act.to_string() };
                assert!(!allowed(&format!("{program} {act} x")), "{program} {act}");
            }
        }
    }

    #[test]
    fn the_first_word_decides() {
        for (program, verbs) in BY_FIRST_WORD {
            for verb in *verbs {
                assert!(allowed(&format!("{program} {verb}")), "{program} {verb}");
            }
            assert!(!allowed(program));
        }
        for line in
            ["docker rm x", "git push", "git -C /x status", "systemctl stop x", "crontab -r", "git log --output=x"]
        {
            assert!(!allowed(line), "{line}");
        }
    }

    #[test]
    fn disguised_changes_are_refused() {
        for line in [
            "find / -delete",
            "find . -exec rm {} +",
            "date -s now",
            "hostname evil",
            "mount /x",
            "journalctl --vacuum-size=1",
            "journalctl --rota",
            "journalctl --cursor-file=/x",
            "ss -tK dst 10.0.0.1",
            "ss --ki",
            "file -C",
            "ssh web-1",
            "ssh -G -oProxyCommand=evil",
            "ssh -G web-1 -F /tmp/evil",
        ] {
            assert!(!allowed(line), "{line}");
        }
        for line in ["find / -name x", "date +%s", "hostname", "journalctl -u docker -n 50", "ssh -G root@web-1"] {
            assert!(allowed(line), "{line}");
        }
        for line in [
            "rm -rf /",
            "sh -c ls",
            "curl -X POST http://x",
            "tee /etc/passwd",
            "sort -o x y",
            "sed -i s/a/b/ x",
            "env rm x",
        ] {
            assert!(!allowed(line), "{line}");
        }
    }
}
