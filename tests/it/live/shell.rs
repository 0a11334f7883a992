//! The prompt against a real server, keys in and screen out: words, what observing refuses, go and back, a host that no
//! opsh.toml names, and the troubleshooting page in keys.

use super::aid::{self, session};
use super::lab::Lab;
use super::opsh::{OPSH, Opsh};
use crate::home::sitting_of;
use crate::processes::until;
use crate::terminal::{SIZES, Terminal, current};
use serde_json::Value;
use std::process::Command;

fn at_prompt(opsh: &Opsh<'_>, columns: u16, rows: u16, words: &[&str]) -> Terminal {
    let mut command = Command::new(OPSH);
    opsh.at_home(&mut command);
    command.args(words).env("TERM", "xterm-256color").current_dir(opsh.file("."));
    Terminal::run(&mut command, columns, rows)
}

/// A sitting with the lab's stack in use.
fn in_prod(opsh: &Opsh<'_>, (columns, rows): (u16, u16)) -> Terminal {
    let terminal = at_prompt(opsh, columns, rows, &[]);
    terminal.until("opsh ›").says(ENTRY.1, &["opsh prod (observe) ›"]);
    terminal
}

/// What a line would change is done by `go`.
#[track_caller]
fn does(terminal: &Terminal, line: &str, shows: &str) {
    terminal.says(line, &["go     does it"]);
    terminal.answers("go", "y", shows);
}

/// The run that the newest sitting is.
fn sitting(opsh: &Opsh<'_>) -> String {
    let runs = opsh.run(&["runs", "20", "--json"]).exits(0).out;
    let runs: Vec<Value> = runs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    sitting_of(&runs).into()
}

fn started(lab: &Lab) -> String {
    lab.exec(&["docker", "inspect", "-f", "{{.State.StartedAt}}", "vrc-shift-backend"])
}

#[test]
fn words_look_what_would_change_something_is_rehearsed_and_go_does_it() {
    let Some(lab) = Lab::take() else { return };
    let good = lab.have("GOOD");
    let opsh = Opsh::new(&lab);
    for (columns, rows) in SIZES {
        let terminal = at_prompt(&opsh, columns, rows, &[]);
        terminal.until("opsh ›");
        terminal.says("ps", &["no stack is in use", ":use prod"]);
        terminal.says(":use prod", &["opsh prod (observe) ›"]);
        terminal.says("ps", &["⟶ p.ps()", "vrc-shift-backend"]);
        terminal.says("logs backend --tail 1 --since 1h", &["#{ tail: 1, since_s: 3600 }", "Z  "]);
        terminal.says("sql SELECT 40 + 2 AS n", &["⟶ p.db.query(\"SELECT 40 + 2 AS n\")", "42"]);
        terminal.says("tags 1", &["⟶ p.repo.tags(1)", "KIND"]);
        terminal.says("@ ls /opt/vrcshift", &["host(\"prod-1\").read", "docker-compose.prod.yml"]);
        terminal.says("@/backend ls /app", &["stack(\"prod\").read(\"backend\"", "server"]);
        terminal.says("lgos backend", &["no word \"lgos\"", "did you mean \"logs\"?"]);
        terminal.says("docker restart vrc-shift-backend", &["which was not run", "restart backend"]);

        let before = started(&lab);
        terminal.says(
            "p.restart(\"backend\")",
            &["this run only observes", ":plan p.restart(\"backend\")", ":apply \"WHY\""],
        );
        terminal.says("restart backend", &["would: backend", "go     does it: p.restart(\"backend\")"]);
        assert_eq!(started(&lab), before, "a rehearsal is none");
        terminal.answers("go", "", "nothing changed");
        assert_eq!(started(&lab), before, "Enter is no");
        // It is planned still, and a no again.
        terminal.answers("go", "", "nothing changed");
        assert_eq!(started(&lab), before);
        does(&terminal, ":plan restart backend", "✓ docker.restart");
        assert_ne!(started(&lab), before);

        terminal.says(":apply \"a test\"", &["opsh prod (APPLY) ›"]);
        terminal.says(":observe", &["opsh prod (observe only) ›"]);
        terminal.says(&format!("rollback {}", good.tag), &["go     does it: rollback"]);
        terminal.leave();
        let kinds: Vec<Value> = opsh.journal(&sitting(&opsh)).iter().map(|record| record["kind"].clone()).collect();
        for kind in ["go", "apply", "mode"] {
            assert!(kinds.iter().any(|known| known == kind), "{kind}: {kinds:?}");
        }
    }
}

#[test]
fn a_script_at_the_prompt_is_a_run_of_its_own_that_undo_takes_back() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let (opsh, tag) = (Opsh::new(&lab), lab.release("GOOD").tag);
    for size in SIZES {
        let terminal = in_prod(&opsh, size);
        does(&terminal, &format!("mark_bad {tag} 'loses mail'"), "✓ release.mark_bad");
        terminal.says("backup", &["Back up the database of prod", "go     does it: backup --stack=prod"]);
        let backups = || opsh.eval("stack(\"prod\").backups().len()").as_i64().unwrap();
        let before = backups();
        terminal.answers("go", "y", "✓ backup.make");
        assert_eq!(backups(), before + 1);

        // Of the sitting, which goes on, what was changed at the prompt is taken back; the script has a run of its own.
        terminal.says(":runs 9", &["prompt", "backup"]);
        terminal.says(&format!(":undo {}", sitting(&opsh)), &["go     does it: :undo"]);
        terminal.answers("go", "y", "undone: 1 of");
        let marked = opsh.eval("stack(\"prod\").releases().filter(|one| one.bad != ()).len()");
        assert_eq!(marked, 0);
        terminal.leave();
    }
}

#[test]
fn after_a_word_tab_offers_what_only_the_host_knows_and_no_run_tells_of_it() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let (opsh, tag) = (Opsh::new(&lab), lab.release("GOOD").tag);
    for size in SIZES {
        let terminal = in_prod(&opsh, size);
        terminal.says("frozen", &["opsh prod (observe) ›"]);
        assert!(!terminal.raw().contains(&tag));
        let typed = format!("mark_bad {}", &tag[..tag.len() - 1]);
        until("the tag", || {
            terminal.keys(&typed).keys("\t").keys(":");
            terminal.wait_for("the line", |screen| current(screen).ends_with(':'));
            let offered = terminal.screen().contains(&tag);
            terminal.keys("\x15").until_line("opsh prod (observe) ›");
            offered.then_some(())
        });
        terminal.leave();
    }

    let database = rusqlite::Connection::open(opsh.state_dir().join("journal.db")).unwrap();
    let names =
        "SELECT run FROM journal WHERE kind = 'system.start' AND json_extract(body, '$.what') = 'names for Tab'";
    let mut runs = database.prepare(names).unwrap();
    let runs: Vec<String> = runs.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(runs.len(), SIZES.len());
    let sql = "SELECT json_extract(body, '$.verb') || ' ' || json_extract(body, '$.outcome') FROM journal WHERE run = ?1 AND effect IS NOT NULL";
    let mut statement = database.prepare(sql).unwrap();
    for run in runs {
        let reads: Vec<String> = statement.query_map([&run], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(reads, ["docker.ps ok", "git.tags ok"]);
        assert!(!opsh.run(&["runs", "--json"]).exits(0).out.contains(&run));
        assert_ne!(opsh.run(&["journal", "export", &run]).code, Some(0));
    }
}

/// Follows a log: a request for `path` that is made again and again is shown, those for another path are not.
fn follow(lab: &Lab, terminal: &Terminal, path: &str) {
    terminal.keys(&format!("logs backend -f --tail 1 --grep path={path}\r")).until("follow: true");
    let url = |path: &str| format!("http://127.0.0.1:8080{path}");
    until("a line of the log", || {
        lab.exec(&["curl", "-s", "-o", "/dev/null", &url(path), &url("/other")]);
        terminal.screen().contains(&format!("path={path} status")).then_some(())
    });
    assert!(!terminal.screen().contains("path=/other"), "{}", terminal.screen());
}

#[test]
fn following_a_log_ends_with_ctrl_c_and_shows_only_what_is_asked_for() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let opsh = Opsh::new(&lab);
    for size in SIZES {
        let terminal = in_prod(&opsh, size);
        follow(&lab, &terminal, &format!("/wanted-{}", size.0));
        terminal.interrupt("opsh prod (observe) ›").until("was interrupted on prod: Ctrl-C");
        terminal.says("40 + 2", &["42"]);
        terminal.leave();
    }
}

#[test]
fn a_log_that_is_followed_when_the_host_hangs_is_left_with_ctrl_c() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let opsh = Opsh::new(&lab);
    let _goes_on = lab.afterwards("pkill -CONT sshd");
    for size in SIZES {
        let terminal = in_prod(&opsh, size);
        let editing = terminal.attributes();
        follow(&lab, &terminal, &format!("/hangs-{}", size.0));
        lab.sh(&format!("pkill -STOP sshd; curl -s -o /dev/null http://127.0.0.1:8080/hangs-{}-now", size.0));
        terminal.interrupt("opsh prod (observe) ›").until("was interrupted on prod: Ctrl-C");
        assert!(!terminal.screen().contains("-now"), "it hangs");
        assert_eq!(terminal.attributes(), editing);
        assert!(terminal.look(|screen| !screen.hide_cursor()));
        terminal.says("600 + 6", &["606"]);
        // Another look waits for the host, until Ctrl-C or until it goes on.
        terminal.keys("\x0clogs backend -f\r").until(" docker.logs  prod");
        terminal.interrupt("opsh prod (observe) ›");
        lab.sh("pkill -CONT sshd");
        terminal.says("\x0cps", &["vrc-shift-backend"]).until_line("opsh prod (observe) ›");
        terminal.leave();
    }
}

#[test]
fn psql_in_the_container_has_the_terminal_and_nothing_of_it_is_recorded() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let opsh = Opsh::new(&lab);
    for size in SIZES {
        let terminal = in_prod(&opsh, size);
        let typed = "@/db -t psql -U vrcshift";
        terminal.says(typed, &["⟶ stack(\"prod\").terminal(\"db\", [\"psql\"", "go     does it"]);
        let next = terminal.prompts() + 1;
        terminal.keys("go\r").agree();
        // Docker tells the program its size a moment late, until then psql would page, and this image has no pager.
        terminal.until("vrcshift=# ").keys("\\pset pager off\r").until("Pager usage is off.");
        terminal.keys("SELECT 40 + 2 AS tulip;\r").until("tulip \n").until("    42").keys("\\q\r");
        terminal.until_prompts(next).until("✓ docker.terminal  prod").until_line("opsh prod (observe) ›");
        terminal.leave();
        let records = opsh.journal(&sitting(&opsh));
        let end = records.iter().find(|record| record["kind"] == "effect.end").expect("its end");
        assert_eq!(end["body"]["after"], serde_json::json!({ "code": 0, "opaque": true }));
        assert!(!serde_json::to_string(&records).unwrap().contains("tulip"), "{records:?}");
    }
}

#[test]
fn first_aid_is_one_screen_and_a_few_words_in_either_size() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let opsh = Opsh::new(&lab);
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'slow'";
    let clean = format!(
        "docker start vrc-shift-backend; docker exec vrc-shift-db psql -Xq -U vrcshift -d vrcshift -c \"{ended}\""
    );
    let _clean = lab.afterwards(&clean);
    for size in SIZES {
        let terminal = in_prod(&opsh, size);
        let status = |shows: &[&str]| {
            terminal.says("\x0cstatus", shows).until_line("opsh prod (observe) ›");
            let screen = terminal.screen();
            assert!(screen.contains("prod on prod-1: ") && screen.contains("\n  host "), "one screen:\n{screen}");
        };
        status(&["  backend "]);
        does(&terminal, "stop backend", "✓ docker.stop");
        status(&["prod on prod-1: BAD", "  BAD   backend is exited"]);
        does(&terminal, "start backend", "✓ docker.start");

        session(&lab, "slow", &["SELECT pg_sleep(600)", "SELECT pg_sleep(601)"]);
        for (verb, query, receipt) in [("cancel", "600", "✓ db.cancel"), ("kill", "601", "✓ db.kill")] {
            let of = format!("application_name = 'slow' AND query = 'SELECT pg_sleep({query})'");
            let pid = until("the query", || {
                let pid = lab.sql(&format!("SELECT pid FROM pg_stat_activity WHERE state = 'active' AND {of}"));
                Some(pid.trim().to_string()).filter(|pid| !pid.is_empty())
            });
            terminal.says("\x0cactivity", &[&pid]);
            does(&terminal, &format!("sql {verb} {pid}"), receipt);
        }
        terminal.leave();
    }
}

#[test]
fn a_full_disk_and_jobs_that_must_wait_are_a_word_each_and_go() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let (_crontab, opsh) = (aid::crontab(&lab), aid::with_jobs(&lab));
    aid::set_table(&lab, aid::TABLE);
    for size in SIZES {
        let image = aid::image(&lab, "");
        let is_there = || lab.is(&format!("docker image inspect {image}"));
        let terminal = in_prod(&opsh, size);
        terminal.says("reclaimable", &["⟶ p.reclaimable()", "dangling image"]);
        // What is lost has to be typed: anything else is asked for once more, and Enter is no.
        let question = "This cannot be undone. Type dangling image to go on, or Enter to stop:";
        for (typed, shows) in [("", "nothing changed"), ("dangling image", "✓ docker.reclaim")] {
            terminal.says("\x0creclaim 'dangling image'", &["⟶ p.reclaim([\"dangling image\"])", "go     does it"]);
            assert!(is_there(), "a rehearsal is none");
            let next = terminal.prompts() + 1;
            terminal.keys("go\r").until_line(question);
            terminal.keys("y\r").until("that is not dangling image: asked once more").until_line(question);
            assert!(is_there(), "a y names nothing");
            terminal.keys(typed).keys("\r").until_prompts(next).until(shows);
        }
        assert!(!is_there());

        does(&terminal, "\x0cpause_cron", "✓ cron.pause");
        assert_eq!(aid::table(&lab).matches("#opsh paused").count(), 2);
        does(&terminal, "resume_cron", "✓ cron.resume");
        assert_eq!(aid::table(&lab), aid::TABLE);
        terminal.leave();
    }
}

#[test]
fn three_lines_lead_from_a_host_that_no_file_names_to_the_log_of_its_service() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    for (columns, rows) in SIZES {
        let opsh = Opsh::new(&lab);
        std::fs::remove_file(opsh.file("opsh.toml")).unwrap();
        let port = port_of(&lab);
        let terminal = at_prompt(&opsh, columns, rows, &[&format!("root@127.0.0.1:{port}")]);
        let fingerprint = terminal.until("y to trust the first").screen();
        assert!(fingerprint.contains("SHA256:"), "{fingerprint}");
        terminal.keys("y\r").until("password of 127.0.0.1:");
        let password = std::fs::read_to_string(lab.file("password")).unwrap();
        terminal.keys(password.trim()).keys("\r").until("127.0.0.1: stack vrcshift").until("opsh vrcshift (observe) ›");
        assert!(!terminal.raw().contains(password.trim()), "what is typed is not shown");
        terminal.says("ps", &["vrc-shift", "running"]);
        terminal.says("logs backend --tail 3", &["⟶ p.logs(\"backend\", #{ tail: 3 })", "Z  "]);
        terminal.leave();
    }
}

/// The port of the lab's sshd on this machine.
fn port_of(lab: &Lab) -> String {
    let config = std::fs::read_to_string(lab.file("opsh.toml")).unwrap();
    config.lines().find_map(|line| line.strip_prefix("port = ")).unwrap().trim().to_string()
}

/// A line of the page, what is typed for it, and something that this shows.
type Step = (&'static str, &'static str, &'static str);

/// The page's troubleshooting section: what it has typed on the server, and what is typed at the prompt for it.
const PAGE: &[(&str, &[Step])] = &[
    (
        "the backend does not start",
        &[
            ("docker-compose -f docker-compose.prod.yml logs backend --tail=100", "logs backend", "Z  "),
            ("docker ps -a | grep backend", "ps", "vrc-shift-backend"),
            ("docker exec vrc-shift-backend env | grep -E 'DATABASE|JWT'", "env_drift", "p.env_drift()"),
            ("docker exec vrc-shift-db psql -U vrcshift -d vrcshift -c \"SELECT 1\"", "sql SELECT 1", "1"),
        ],
    ),
    (
        "the database cannot be reached",
        &[
            ("docker ps | grep db", "ps", "vrc-shift-db"),
            ("docker exec vrc-shift-db pg_isready -U vrcshift", "@/db pg_isready", "accepting connections"),
            (
                "docker exec vrc-shift-db psql -U vrcshift -d vrcshift -c \"SELECT count(*) FROM pg_stat_activity WHERE datname = 'vrcshift'\"",
                "sql SELECT count(*) FROM pg_stat_activity WHERE datname = 'vrcshift'",
                "COUNT",
            ),
        ],
    ),
    (
        "a migration failed",
        &[
            ("docker exec vrc-shift-backend /app/migrate -action=status", "migrations", "APPLIED"),
            (
                "docker exec vrc-shift-db psql -U vrcshift -d vrcshift -c \"UPDATE schema_migrations SET dirty = false\"",
                "migration_state",
                "p.migration_state()",
            ),
            ("docker exec vrc-shift-backend /app/migrate -action=up", "deploy TAG", "go     does it: deploy"),
        ],
    ),
];

/// What both begin with.
const ENTRY: (&str, &str) = ("ssh root@203.0.113.10\rcd /opt/vrcshift", ":use prod");

/// A key for each character, and Enter.
fn keys(line: &str) -> usize {
    line.chars().count() + 1
}

#[test]
fn the_troubleshooting_page_takes_fewer_keys_at_the_prompt() {
    let mut table = vec![format!("| to begin with | {} | {} |", keys(ENTRY.0), keys(ENTRY.1))];
    for (block, lines) in PAGE {
        let (page, prompt) =
            lines.iter().fold((0, 0), |(page, prompt), one| (page + keys(one.0), prompt + keys(one.1)));
        assert!(prompt < page, "{block}");
        table.push(format!("| {block} | {page} | {prompt} |"));
    }
    let all_at_once = ["backend", "db", "migrations"].map(|what| keys(&format!("troubleshoot {what}")).to_string());
    table.push(format!("`troubleshoot` with its word does a block at once: {} keys.", all_at_once.join(", ")));
    let doc = std::fs::read_to_string("docs/shell.md").unwrap();
    for row in table {
        assert!(doc.lines().any(|line| line == row), "docs/shell.md lacks\n{row}");
    }

    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let (opsh, tag) = (Opsh::new(&lab), lab.release("GOOD").tag);
    for size in SIZES {
        let terminal = in_prod(&opsh, size);
        for (page, prompt, shows) in PAGE.iter().flat_map(|(_, lines)| lines.iter()) {
            terminal.says(&prompt.replace("TAG", &tag), &[shows]);
            terminal.says(page, &["a line of a runbook, which was not run"]);
            terminal.keys("\x0c");
        }
        terminal.leave();
    }
}
