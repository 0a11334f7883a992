//! Lines of a runbook that were typed or pasted at the prompt: what each does not do, and the line of opsh that does it.
//! Pure: nothing is run.

use crate::config::Stack;
use crate::error::{Error, Kind};

/// What is said to a line of a runbook; `None` for a line that is none.
pub fn answer(line: &str, stack: Option<&Stack>) -> Option<Error> {
    let line = line.replace("\\\n", " ");
    let mut said = Said::default();
    for command in commands(&line) {
        said.take(&command, stack);
    }
    if said.next.is_empty() {
        return None;
    }
    let why = match said.why.is_empty() {
        true => "opsh does it over the one login, and records it".to_string(),
        false => said.why.join("; "),
    };
    let mut error = Error::new(Kind::Usage, "a line of a runbook, which was not run", why);
    if stack.is_none() {
        error = error.next(":use STACK     first");
    }
    error.next.extend(said.next);
    Some(error)
}

#[derive(Default)]
struct Said {
    why: Vec<String>,
    next: Vec<String>,
}

impl Said {
    fn say(&mut self, why: &str, next: &str) {
        if !why.is_empty() && !self.why.iter().any(|said| said == why) {
            self.why.push(why.into());
        }
        if !self.next.iter().any(|said| said == next) {
            self.next.push(next.into());
        }
    }

    fn take(&mut self, words: &[String], stack: Option<&Stack>) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["ssh", rest @ ..] => self.ssh(rest, stack),
            ["docker", "compose", rest @ ..] | ["docker-compose", rest @ ..] => self.compose(rest, stack),
            ["docker", "logs", rest @ ..] => self.logs(rest, stack),
            ["docker", "ps", ..] => self.say("", "ps"),
            ["docker", verb @ ("restart" | "stop" | "start"), rest @ ..] => {
                self.say("", &format!("{verb} {}", service(rest, stack)));
            }
            ["docker", "exec", rest @ ..] => self.exec(rest, stack),
            ["docker", "system" | "image" | "volume" | "builder", ..] => {
                self.say("a prune may take images that a rollback needs", "room     what is full");
            }
            ["git", "tag", ..] => self.say("which of them can still be gone back to is not in their names", "rollback"),
            ["git", "checkout" | "switch", rest @ ..] => {
                let tag = rest.iter().find(|word| !word.starts_with('-')).unwrap_or(&"TAG");
                self.say(
                    "a checkout changes no image: what runs stays what it is",
                    &format!("rollback {tag}     or deploy {tag}"),
                );
            }
            ["git", "reset" | "push", ..] => {
                self.say(
                    "it loses commits that only one side has",
                    "merge-check     whether the branches merge, and how to mend it",
                );
            }
            _ => {}
        }
    }

    /// What `ssh HOST "COMMANDS"` runs there; alone it is a login that is not needed.
    fn ssh(&mut self, rest: &[&str], stack: Option<&Stack>) {
        const WITH_VALUE: &str = "bcDEeFIiJLlmOopQRSWw";
        let (mut rest, mut place) = (rest.iter(), "HOST");
        while let Some(word) = rest.next() {
            match word.strip_prefix('-') {
                Some(flag) if flag.len() == 1 && WITH_VALUE.contains(flag) => drop(rest.next()),
                Some(_) => {}
                None => {
                    place = word;
                    break;
                }
            }
        }
        let there = rest.copied().collect::<Vec<_>>().join(" ");
        for command in commands(&there) {
            self.take(&command, stack);
        }
        if self.next.is_empty() {
            let words = if there.is_empty() { "WORDS" } else { there.trim() };
            let line = format!("@ {words}     when {place} is the host of the stack in use, else @NAME {words}");
            self.say("opsh logs in once, when the first line needs it", &line);
        }
        if there.is_empty() {
            self.say("", "@ -t     a shell there; what is done in it is not recorded");
        }
    }

    fn compose(&mut self, rest: &[&str], stack: Option<&Stack>) {
        const WITH_VALUE: &[&str] = &["-f", "--file", "--env-file", "-p", "--project-name", "--profile"];
        let mut rest = rest.iter();
        let verb = after_options(&mut rest, WITH_VALUE);
        let rest: Vec<&str> = rest.copied().collect();
        match verb {
            "logs" => self.logs(&rest, stack),
            "ps" => self.say("", "ps"),
            "restart" => {
                self.say(
                    "a restart applies no changed env file: recreate does",
                    &format!("restart {}", service(&rest, stack)),
                );
            }
            "up" => self.say(
                "up uses the image that is there: after a checkout it is still that of before",
                &format!("recreate {}     or rollback TAG, deploy TAG", service(&rest, stack)),
            ),
            "down" => self.say(
                "down ends every service and removes the network: recreating the one service is 4 to 17 times shorter",
                "rollback TAG     builds or takes the kept image first, and goes back when it does not answer",
            ),
            "build" => self.say("", "deploy TAG     builds it while the old one serves"),
            "stop" | "start" => self.say("", &format!("{verb} {}", service(&rest, stack))),
            _ => {}
        }
    }

    fn logs(&mut self, rest: &[&str], stack: Option<&Stack>) {
        let mut line = format!("logs {}", service(rest, stack));
        let mut words = rest.iter();
        while let Some(word) = words.next() {
            let (name, value) = word.split_once('=').map_or((*word, None), |(name, value)| (name, Some(value)));
            match name {
                "--tail" | "-n" => {
                    line += &format!(" --tail {}", value.or_else(|| words.next().copied()).unwrap_or("100"))
                }
                "--since" => line += &format!(" --since {}", value.or_else(|| words.next().copied()).unwrap_or("10m")),
                "-f" | "--follow" => line += " -f",
                _ => {}
            }
        }
        self.say("", &line);
    }

    fn exec(&mut self, rest: &[&str], stack: Option<&Stack>) {
        let is_option = |word: &&&str| word.starts_with('-');
        let at_terminal = |word: &&str| *word == "--tty" || (!word.starts_with("--") && word.contains('t'));
        let at_terminal = rest.iter().take_while(is_option).any(at_terminal);
        const WITH_VALUE: &[&str] = &["-u", "--user", "-e", "--env", "--env-file", "-w", "--workdir", "--detach-keys"];
        let mut words = rest.iter();
        let container = after_options(&mut words, WITH_VALUE);
        let rest: Vec<&str> = words.copied().collect();
        let program = rest.first().map_or("", |word| word.rsplit('/').next().unwrap_or(word));
        match program {
            "psql" => match rest.iter().position(|word| *word == "-c").and_then(|at| rest.get(at + 1)) {
                Some(sql) if sql.to_lowercase().contains("dirty") && !is_query(sql) => self.say(
                    "resetting dirty says that a migration succeeded which did not, or was never undone",
                    "migration_state     which one failed, up or down, and what it left behind",
                ),
                Some(sql) if is_query(sql) => self.say("", &format!("sql {sql}")),
                _ => {
                    self.say("sql only reads", "sql SELECT 1");
                    if at_terminal {
                        self.at_terminal(container, &rest, stack);
                    }
                }
            },
            "pg_isready" => self.say("pg_isready asks for no password and no database", "sql SELECT 1"),
            "env" | "printenv" => self.say(
                "values would be on the screen, and a changed env file is not in the container before it is recreated",
                "env_drift     which variables differ from the files, without their values",
            ),
            "migrate" if rest.iter().any(|word| word.ends_with("status") || word.ends_with("version")) => {
                self.say("status may create the ledger it looks for", "migrations");
            }
            "migrate" if rest.iter().any(|word| word.contains("down")) => self.say(
                "the running image may not know the migration, and what is lost is not said",
                "rollback TAG     takes the schema back with the image that knows how, after a backup",
            ),
            "migrate" => self.say("", "deploy TAG     applies what the release brings, before its code serves"),
            _ if at_terminal => self.at_terminal(container, &rest, stack),
            _ => self.say("", &format!("@ docker exec {container} {}", rest.join(" "))),
        }
    }

    fn at_terminal(&mut self, container: &str, words: &[&str], stack: Option<&Stack>) {
        // What cannot be quoted cannot be typed either.
        let words = shlex::try_join(words.iter().copied()).unwrap_or_default();
        self.say("", &format!("@/{} -t {words}", service(&[container], stack)));
    }
}

/// The first word that is no option, nor the value of one of these.
fn after_options<'a>(words: &mut std::slice::Iter<'_, &'a str>, with_value: &[&str]) -> &'a str {
    loop {
        match words.next() {
            Some(word) if with_value.contains(word) => drop(words.next()),
            Some(word) if word.starts_with('-') => {}
            other => return other.copied().unwrap_or(""),
        }
    }
}

fn is_query(sql: &str) -> bool {
    ["select", "with", "values", "table"].iter().any(|word| sql.trim().to_lowercase().starts_with(word))
}

/// The service of the first word that is no option: a service, or a container whose name ends in one.
fn service(words: &[&str], stack: Option<&Stack>) -> String {
    let name =
        words.iter().find(|word| !word.starts_with('-') && word.parse::<u32>().is_err()).copied().unwrap_or("SERVICE");
    let known = stack.map(Stack::service_names).unwrap_or_default();
    let longest = known.into_iter().filter(|service| {
        name == service || name.ends_with(&format!("-{service}")) || name.ends_with(&format!("_{service}"))
    });
    longest.max_by_key(String::len).unwrap_or_else(|| name.into())
}

/// The commands of a line: what stands between `&&`, `;` and `|`, each without what is set before it and what it runs under.
fn commands(line: &str) -> Vec<Vec<String>> {
    let Some(words) = shlex::split(&spaced(line)) else { return Vec::new() };
    let pieces = words.split(|word| ["&&", "||", ";", "|", "&"].contains(&word.as_str()));
    pieces
        .map(|piece| {
            let is_before = |word: &&String| {
                word.split_once('=').is_some_and(|(name, _)| {
                    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
                }) || ["sudo", "setsid", "-w", "time", "nohup", "env", "$"].contains(&word.as_str())
            };
            piece.iter().skip_while(is_before).cloned().collect()
        })
        .filter(|piece: &Vec<String>| !piece.is_empty())
        .collect()
}

/// Operators as words of their own, outside of quotes.
fn spaced(line: &str) -> String {
    let (mut out, mut quote) = (String::new(), None);
    for c in line.trim().chars() {
        match quote {
            Some(open) if open == c => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '\n' => {
                out += " ; ";
                continue;
            }
            None if ";|&".contains(c) => {
                let doubled = out.ends_with(&format!(" {c} ")) && c != ';';
                if doubled {
                    out.truncate(out.len() - 1);
                    out.push(c);
                    out.push(' ');
                } else {
                    out += &format!(" {c} ");
                }
                continue;
            }
            _ => {}
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn next(line: &str) -> Vec<String> {
        let text = "[host.h]\nssh = \"root@203.0.113.10\"\n[stack.prod]\nhost = \"h\"\ndir = \"/opt/x\"\n\
                    compose = { files = [\"a.yml\"], project = \"x\" }\nservices = { backend = {} }\n\
                    db = { service = \"db\", user = \"u\", name = \"n\" }\n";
        let config = Config::parse(text, std::path::Path::new("/opsh.toml")).expect("a configuration");
        let stack = config.stack("prod").expect("a stack");
        let first = |line: String| line.split("     ").next().unwrap_or("").to_string();
        answer(line, Some(&stack)).map(|error| error.next.into_iter().map(first).collect()).unwrap_or_default()
    }

    #[test]
    fn every_line_of_the_troubleshooting_page_has_its_answer() {
        for (line, want) in [
            ("docker-compose -f docker-compose.prod.yml logs backend --tail=100", &["logs backend --tail 100"][..]),
            ("docker ps -a | grep backend", &["ps"]),
            ("docker exec vrc-shift-backend env | grep -E 'DATABASE|JWT'", &["env_drift"]),
            ("docker exec vrc-shift-db psql -U u -d n -c \"SELECT 1\"", &["sql SELECT 1"]),
            ("docker exec vrc-shift-db pg_isready -U vrcshift", &["sql SELECT 1"]),
            (
                "docker exec db psql -c \\\n  \"SELECT count(*) FROM pg_stat_activity WHERE datname = 'x'\"",
                &["sql SELECT count(*) FROM pg_stat_activity WHERE datname = 'x'"],
            ),
            ("docker exec vrc-shift-backend /app/migrate -action=status", &["migrations"]),
            ("docker exec db psql -c \"UPDATE schema_migrations SET dirty = false\"", &["migration_state"]),
            ("docker exec vrc-shift-backend /app/migrate -action=up", &["deploy TAG"]),
            ("docker exec vrc-shift-backend /app/migrate -action=down -steps=1", &["rollback TAG"]),
            ("docker logs vrc-shift-backend --tail=100 -f", &["logs backend --tail 100 -f"]),
            ("git tag --list 'v*' --sort=-v:refname | head -10", &["rollback"]),
            ("git checkout v1.8.0", &["rollback v1.8.0"]),
            ("docker compose restart backend", &["restart backend"]),
            ("ssh root@203.0.113.10", &["@ WORDS", "@ -t"]),
            ("docker exec -it -u root vrc-shift-backend sh -c 'ls | wc'", &["@/backend -t sh -c 'ls | wc'"]),
            ("docker exec -it vrc-shift-db psql -U u -d n", &["sql SELECT 1", "@/db -t psql -U u -d n"]),
            ("ssh -p 22 root@203.0.113.10 uptime", &["@ uptime"]),
            (
                "DISPLAY=:0 SSH_ASKPASS=/tmp/askpass.sh setsid -w ssh -o StrictHostKeyChecking=no root@h \"\n cd /opt/x && \
                 docker-compose -f a.yml --env-file .env.prod down && git checkout v1.8.0 && \
                 docker-compose -f a.yml up -d\n\"",
                &["rollback TAG", "rollback v1.8.0", "recreate SERVICE"],
            ),
        ] {
            assert_eq!(next(line), want, "{line}");
        }
    }

    #[test]
    fn what_is_no_line_of_a_runbook_has_no_answer() {
        for line in ["ps", "let docker = 5", "logs backend", "cd /opt", "docker", "git", "x && y", "\"open"] {
            assert!(answer(line, None).is_none(), "{line}");
        }
    }
}
