//! Servers that accept connections and do not answer, because SIGSTOP stopped them: each command ends within its bounds,
//! says while it waits what it waits for, and names the system that hangs, never a fact that it could not look at.
//! Servers that need no lab are in `silent.rs`.

use super::lab::{Afterwards, Lab, ROOT};
use super::opsh::{Opsh, Ran};
use opsh::bind;
use opsh::gate::verb::Class;
use serde_json::Value;

/// Programs of the server, as `pkill` finds them.
const ENGINE: &str = "-x dockerd";
const LISTENER: &str = "-f 'sshd.*[[]listener]'";
const SESSIONS: &str = "-f '^sshd: root@notty'";
const DATABASE: &str = "-x postgres";

/// Lines of an operator's own `opsh.toml` that shorten the usual deadlines.
const LIMITS: &str = "[limits]\nconnect_s = 6\ndeadline_s = 9\n";

const ENGINE_HANGS: &str = "the Docker Engine on prod-1 accepted the connection and has not answered for 6 s";

fn operator<'a>(lab: &'a Lab, more: &str) -> Opsh<'a> {
    Opsh::configured(lab, |config| {
        let host = format!("[host.prod-1]\n{more}");
        format!("{LIMITS}{}", config.replacen("[host.prod-1]\n", &host, 1))
    })
}

/// Stops programs of the server until the result is dropped.
fn stopped<'a>(lab: &'a Lab, which: &str) -> Afterwards<'a> {
    let goes_on = lab.afterwards(&format!("pkill -CONT {which}"));
    lab.sh(&format!("pkill -STOP {which}"));
    goes_on
}

/// Functions for a script that stops programs of the server in the middle of its work.
fn stage(lab: &Lab) -> String {
    let lab =
        format!("[\"env\", \"LAB_NAME={}\", \"{ROOT}/tests/lab/lab\", \"exec\", \"sh\", \"-c\", script]", lab.name());
    format!(
        "fn there(script) {{ host(\"local\").run({lab}).after.out }}\n\
         fn told(look) {{ try {{ look.call(); return \"done\"; }} catch (error) {{ return `${{error.kind}}: ${{error.why}}`; }} }}\n\
         fn again(look) {{ for i in 0..30 {{ if told(look) == \"done\" {{ return i; }} sleep(1); }} throw \"never\"; }}\n"
    )
}

/// Lines that the script printed.
fn lines(ran: &Ran) -> Vec<&str> {
    ran.out.lines().collect()
}

#[track_caller]
fn says_what_it_waits_for(ran: &Ran, what: &str) {
    let said = ran.err.lines().any(|line| line.starts_with("… ") && line.contains(what) && line.ends_with("s so far)"));
    assert!(said, "nothing was said of {what} meanwhile:\n{}\n{}", ran.out, ran.err);
}

#[test]
fn every_command_names_an_engine_that_hangs() {
    let Some(lab) = Lab::take() else { return };
    let good = lab.have("GOOD");
    let (opsh, old) = (operator(&lab, ""), lab.release("OLD"));
    let goes_on = stopped(&lab, ENGINE);
    let prod = "stack(\"prod\")";
    let status = format!("{prod}.status()");
    let (restart, logs) =
        (format!("{prod}.restart(\"backend\")"), format!("{prod}.logs(\"backend\", #{{ follow: true }})"));
    let cases: [(&[&str], i32); 15] = [
        (&["doctor", "prod"], 1),
        (&["-e", &status], 0),
        (&["--plan", "scripts/rollback.rhai", &old.tag], 1),
        (&["--plan", "scripts/deploy.rhai", &good.tag], 1),
        (&["scripts/troubleshoot.rhai", "backend"], 1),
        (&["scripts/troubleshoot.rhai", "db"], 1),
        (&["scripts/troubleshoot.rhai", "migrations"], 1),
        (&["--plan", "scripts/backup.rhai"], 1),
        (&["--plan", "scripts/restore.rhai", "none"], 1),
        (&["scripts/checks/containers.rhai"], 2),
        (&["scripts/checks/migrations.rhai"], 2),
        (&["--yes", "-e", &restart], 1),
        (&["-e", &logs], 1),
        (&["-e", "stack(\"prod\").db.query(\"SELECT 1\")"], 1),
        (&["-e", "host(\"prod-1\").read([\"uptime\"])"], 0),
    ];
    let all: Vec<_> = cases.iter().map(|(words, code)| (words, *code, opsh.start(words))).collect();
    for (words, code, running) in all {
        let ran = running.wait();
        let (text, needs_docker) = (format!("{}{}", ran.out, ran.err), !words[words.len() - 1].contains("uptime"));
        assert_eq!(ran.code, Some(code), "{words:?}: {text}");
        if needs_docker {
            let short = &ENGINE_HANGS[..60];
            assert!(text.contains(short), "{words:?}: {text}");
            says_what_it_waits_for(&ran, "the Docker Engine on prod-1");
        }
        for wrong in ["not running", "no container", "is not there", "may have happened", "another effect"] {
            assert!(!text.contains(wrong), "{words:?}: {wrong}: {text}");
        }
    }
    drop(goes_on);
    opsh.run(&["-e", &format!("{prod}.ps()")]).exits(0).prints(&["backend", "running"]);
}

#[test]
fn a_sitting_outlives_the_hang_of_its_engine() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let (opsh, _goes_on) = (operator(&lab, ""), lab.afterwards(&format!("pkill -CONT {ENGINE}")));
    // More calls than the login has sessions: those that hang must not keep them.
    let script = opsh.put(
        "s.rhai",
        &format!(
            "{}let p = stack(\"prod\"); p.ps();\n\
             there(\"pkill -STOP {ENGINE}\");\n\
             let reads = []; for i in 0..16 {{ reads.push([\"docker.ps\", p]); }}\n\
             let all = batch(reads, #{{ partial: true }});\n\
             print(`${{all[0].error.kind}}: ${{all[0].error.why}}`);\n\
             for i in 0..2 {{ print(told(|| p.ps())); }}\n\
             print(told(|| host(\"prod-1\").read([\"uptime\"])));\n\
             print(there(\"printf %s $(pgrep -fc 'docker system [d]ial-stdio')\"));\n\
             there(\"pkill -CONT {ENGINE}\");\n\
             again(|| p.ps());\n\
             print(told(|| p.db.query(\"SELECT 1\")));\n",
            stage(&lab)
        ),
    );
    let ran = opsh.run(&["--yes", &script]).exits(0);
    let lines = lines(&ran);
    assert!(lines[0].starts_with("timeout: not done within 9 s: waited "), "{lines:?}");
    assert!(lines[0].ends_with("s for the Docker Engine on prod-1 to answer"), "{lines:?}");
    let hangs = format!("timeout: {ENGINE_HANGS}");
    assert_eq!(lines[1..], [&hangs, &hangs, "done", "0", "done"], "{}", ran.err);
}

#[test]
fn a_login_server_that_hangs_is_named_and_a_lost_login_is_replaced() {
    let Some(lab) = Lab::take() else { return };
    let opsh = operator(&lab, "");
    let goes_on = stopped(&lab, LISTENER);
    let ran = opsh.run(&["-e", "host(\"prod-1\").read([\"uptime\"])"]).exits(1);
    says_what_it_waits_for(&ran, "prod-1 to let opsh log in");
    let ran = ran.explains(&["prod-1 has neither let opsh in nor refused it for 6 s"]);
    assert!(!ran.err.contains("may have happened"), "{}", ran.err);
    opsh.run(&["doctor", "prod"]).exits(1).prints(&["login", "has neither let opsh in nor refused it for 6 s"]);
    drop(goes_on);
    opsh.run(&["-e", "host(\"prod-1\").connect()"]).exits(0);

    let _sessions = lab.afterwards(&format!("pkill -CONT {SESSIONS}"));
    // The login is silent for longer than the deadline, or is given up and replaced within it.
    for (alive, told) in [("alive_s = 120\n", "timeout: not done within 9 s: waited "), ("alive_s = 2\n", "done")] {
        let opsh = operator(&lab, alive);
        let script = opsh.put(
            "s.rhai",
            &format!(
                "{}let h = host(\"prod-1\"); h.read([\"uptime\"]);\n\
                 there(\"pkill -STOP {SESSIONS}\");\n\
                 print(told(|| h.read([\"uptime\"])));\n\
                 there(\"pkill -CONT {SESSIONS}\");\n\
                 again(|| h.read([\"uptime\"]));\n",
                stage(&lab)
            ),
        );
        let ran = opsh.run(&["--yes", &script]).exits(0);
        assert!(ran.out.starts_with(told), "{alive}: {}{}", ran.out, ran.err);
        assert!(told == "done" || ran.out.contains("on prod-1"), "{}", ran.out);
    }
}

#[test]
fn a_database_that_hangs_is_named() {
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let opsh = operator(&lab, "");
    let goes_on = stopped(&lab, DATABASE);
    let query = "stack(\"prod\").db.query(\"SELECT 1\")";
    let cases: [&[&str]; 4] = [
        &["-e", query],
        &["doctor", "prod"],
        &["scripts/troubleshoot.rhai", "db"],
        &["scripts/checks/migrations.rhai"],
    ];
    let all: Vec<_> = cases.iter().map(|words| (words, opsh.start(words))).collect();
    for (words, running) in all {
        let ran = running.wait();
        let text = format!("{}{}", ran.out, ran.err);
        assert!(ran.code.is_some_and(|code| code != 0), "{words:?}: {text}");
        assert!(text.contains("for PostgreSQL in vrc-shift-db on prod-1 to answer"), "{words:?}: {text}");
    }
    // psql itself gives up a server that accepts and does not answer.
    let patient = Opsh::new(&lab);
    patient.run(&["-e", query]).exits(1).explains(&["PostgreSQL in vrc-shift-db accepted the connection and has not"]);
    drop(goes_on);
    lab.until(
        "the database is well",
        30,
        "docker inspect -f '{{.State.Health.Status}}' vrc-shift-db | grep -qx healthy",
    );
    opsh.run(&["--json", "-e", query]).exits(0);
}

/// Each read by the line of its help; with `OPSH_STOPPED=all`, as `tests/run --full` sets it.
#[test]
fn every_read_ends_while_the_engine_hangs() {
    if std::env::var("OPSH_STOPPED").as_deref() != Ok("all") {
        return;
    }
    let Some(lab) = Lab::take() else { return };
    lab.have("GOOD");
    let opsh = operator(&lab, "");
    let goes_on = stopped(&lab, ENGINE);
    let reads = bind::all().map(|binding| binding.verb()).filter(|verb| verb.class == Class::Read);
    let verbs: Vec<_> = reads.filter(|verb| !verb.name.starts_with("terminal.")).collect();
    for some in verbs.chunks(8) {
        let all: Vec<_> = some.iter().map(|verb| (verb.name, opsh.start(&["--json", "-e", verb.example]))).collect();
        for (name, running) in all {
            let ran = running.wait();
            assert!(ran.signal.is_none() && ran.code.is_some(), "{name}: {ran:?}");
            let error: Value = serde_json::from_str(&ran.out).unwrap_or_default();
            if error["kind"] == "timeout" {
                let why = error["why"].as_str().unwrap();
                let named = ["the Docker Engine on prod-1", "on prod-1 to end", "PostgreSQL in", "prod-1 has neither"];
                assert!(named.iter().any(|name| why.contains(name)), "{name}: {why}");
            }
        }
    }
    drop(goes_on);
    opsh.run(&["-e", "stack(\"prod\").ps()"]).exits(0);
}
