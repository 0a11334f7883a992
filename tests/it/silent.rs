//! Servers that hang and need no lab: an HTTP server that accepts and says nothing, half of something, or no end of it; a
//! name server and a git server that are silent; a network in which nobody answers.

use crate::home::{Home, Ran};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

/// A server on this machine that hands each connection to `serve`, on a thread of its own.
fn server(serve: impl Fn(TcpStream) + Send + Clone + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    port
}

/// Says `words` once it was asked something, and then nothing, for as long as the other side stays.
fn says(words: &'static str) -> u16 {
    server(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(words.as_bytes());
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

/// Runs a program that must end, and one that does not within this is killed.
fn bounded(home: &Home, words: &[&str]) -> Ran {
    let mut command = home.command(&[]);
    let opsh = command.get_program().to_owned();
    let mut outer = Command::new("timeout");
    outer.args(["-s", "KILL", "120"]).arg(opsh).args(words).current_dir(home.0.path()).env_clear();
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer.stdin(Stdio::null());
    command = outer;
    Ran::of(command.output().unwrap())
}

#[track_caller]
fn fails(home: &Home, line: &str, kind: &str, why: &str) {
    let line = format!("try {{ {line} }} catch (error) {{ print(`${{error.kind}}: ${{error.why}}`); }}");
    let ran = bounded(home, &["--yes", "-e", &line]).exits(0);
    assert!(ran.out.starts_with(kind) && ran.out.contains(why), "{kind}, {why}:\n{}{}", ran.out, ran.err);
}

#[test]
fn a_get_that_hangs_says_how_far_it_came() {
    let home = Home::new();
    let get = |port: u16| format!("http::get(\"http://127.0.0.1:{port}/\", #{{ timeout_ms: 500 }})");
    let unanswered = "no answer within 500 ms: the connection was accepted, and the request is not answered";
    let endless = "no answer within 500 ms: the answer began, and its body does not end";
    for (words, why) in [
        ("", unanswered),
        ("HTTP/1.1 200 OK\r\nContent-Ty", unanswered),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", endless),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", endless),
    ] {
        fails(&home, &get(says(words)), "timeout: ", why);
    }
    let tls = format!("http::get(\"https://127.0.0.1:{}/\", #{{ timeout_ms: 500 }})", says(""));
    fails(&home, &tls, "timeout: ", "the connection was accepted, and TLS is not answered");
    // As much as is kept, and not one byte more is waited for.
    let torrent = server(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let ran = bounded(&home, &["-e", &format!("print({}.body.len())", get(torrent))]).exits(0);
    assert_eq!(ran.out, "65536\n");
}

#[test]
fn a_connection_that_nobody_accepts_is_a_timeout() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: a system call on a descriptor that is open.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let address = listener.local_addr().unwrap();
    // The one place in its queue is taken, so that a further SYN is dropped, as in a network that drops all.
    let _taken = TcpStream::connect(address).unwrap();
    let get = format!("http::get(\"http://{address}/\", #{{ timeout_ms: 500 }})");
    fails(&home, &get, "timeout: ", "no answer within 500 ms: the TCP connection is not accepted");

    home.put(
        "opsh.toml",
        &format!("[limits]\nconnect_s = 2\n[host.far]\nssh = \"nobody@127.0.0.1\"\nport = {}\n", address.port()),
    );
    fails(
        &home,
        "host(\"far\").read([\"uptime\"])",
        "unreachable: ",
        "far has neither let opsh in nor refused it for 2 s",
    );
    // A change that was never sent has not happened.
    fails(
        &home,
        "host(\"far\").run([\"true\"])",
        "unreachable: ",
        "far has neither let opsh in nor refused it for 2 s",
    );
    let outcome = |record: &serde_json::Value| record["body"]["outcome"].as_str().map(String::from);
    let ends = home.records().into_iter().filter(|record| record["kind"] == "effect.end");
    assert_eq!(ends.filter_map(|record| outcome(&record)).collect::<Vec<_>>(), ["failed"]);
}

#[test]
fn several_that_wait_for_one_login_share_its_failure() {
    let home = Home::new();
    // An ssh that reads and says nothing: the login is neither let in nor refused.
    let port = says("");
    home.put("opsh.toml", &format!("[limits]\nconnect_s = 2\n[host.far]\nssh = \"nobody@127.0.0.1\"\nport = {port}\n"));
    let code = "let reads = []; for i in 0..40 { reads.push([\"host.read\", host(\"far\"), [\"uptime\"]]); }\n\
                let all = batch(reads, #{ partial: true });\n\
                for one in all { print(`${one.error.kind}: ${one.error.why}`); }";
    let ran = bounded(&home, &["--yes", &home.put("s.rhai", code)]).exits(0);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines, ["unreachable: far has neither let opsh in nor refused it for 2 s"; 40]);
    let logins = home.records().into_iter().filter(|record| record["kind"] == "host.login").count();
    assert!(logins <= 1, "one attempt for all of them, not {logins}");
}

#[test]
fn a_silent_name_server_is_a_timeout_of_the_name() {
    let Ok(_silent) = UdpSocket::bind("127.0.0.77:53") else {
        return crate::skip::skip("port 53 of this machine cannot be had");
    };
    let home = Home::new();
    let resolver = home.put("resolv.conf", "nameserver 127.0.0.77\noptions timeout:30 attempts:1\n");
    let get = "http::get(\"http://opsh.test/\", #{ timeout_ms: 500 })";
    let line = format!("try {{ {get} }} catch (error) {{ print(`${{error.kind}}: ${{error.why}}`); }}");
    let mut command = home.command(&[]);
    let opsh = command.get_program().to_owned();
    let mount = "mount --bind \"$0\" /etc/resolv.conf && exec timeout -s KILL 120 \"$@\"";
    let words = ["--mount", "--propagation", "private", "sh", "-c", mount, &resolver];
    let mut inside = Command::new("unshare");
    inside.args(words).arg(opsh).args(["-e", &line]).current_dir(home.0.path()).env_clear().stdin(Stdio::null());
    inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command = inside;
    let ran = Ran::of(command.output().unwrap());
    if ran.code != Some(0) && ran.err.contains("unshare") {
        return crate::skip::skip("no mount namespace can be made here");
    }
    assert!(ran.out.starts_with("timeout: no answer within 500 ms: the name is not resolved"), "{ran:?}");
}

#[test]
fn a_silent_git_server_is_waited_for_no_longer_than_the_deadline() {
    let home = Home::new();
    home.put("opsh.toml", "[limits]\ndeadline_s = 3\n");
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=o", "-c", "user.email=o@o"]).args(words).current_dir(home.0.path());
        assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success(), "git {words:?}");
    };
    git(&["init", "-q", "clone"]);
    git(&["-C", "clone", "commit", "-q", "--allow-empty", "-m", "one"]);
    git(&["-C", "clone", "remote", "add", "origin", &format!("git://127.0.0.1:{}/x.git", says(""))]);
    let fetch = format!("host(\"local\").repo(\"{}\").resolve(\"v1\")", home.path("clone").display());
    fails(&home, &fetch, "timeout: ", "not done within 3 s: waited ");
}

#[test]
fn a_wait_without_a_terminal_is_said_once_and_then_rarely() {
    let home = Home::new();
    let line = "http::get(\"http://127.0.0.1:PORT/\", #{ timeout_ms: 8000 })".replace("PORT", &says("").to_string());
    let ran = bounded(&home, &["-e", &line]).exits(1);
    let said: Vec<&str> = ran.err.lines().filter(|line| line.starts_with("… ")).collect();
    assert_eq!(said.len(), 1, "{}", ran.err);
    assert!(
        said[0].starts_with("… http.get  here  ") && said[0].contains(": waiting for 127.0.0.1 to answer"),
        "{said:?}"
    );
}
