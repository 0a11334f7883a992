//! A Docker Engine that lies: its answers are long, have no end, or expand to much more than they are. opsh refuses them with
//! the bound, stays small, and its deadlines go on.

use crate::home::{Home, Ran};
use crate::sshd::Sshd;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

const VERSION: &str = r#"{"Version":"20.10","ApiVersion":"1.41","MinAPIVersion":"1.12"}"#;
const ONE: &str = r#"[{"Id":"c0ffee","Names":["/web-1"],"State":"running","Image":"web","ImageID":"sha256:1","Labels":{
    "com.docker.compose.project":"shop","com.docker.compose.service":"web","com.docker.compose.oneoff":"False",
    "com.docker.compose.container-number":"1","com.docker.compose.config-hash":"1"}}]"#;
const IMAGE: &str = r#"{"Id":"sha256:1"}"#;

/// Memory that opsh may take at most, in KiB. It takes a tenth of that when nobody lies.
const MOST_KIB: u64 = 700 << 10;

/// The answer to one request, without its head; `None` is 404.
type Answers = fn(&str, &mut dyn Write) -> Option<()>;

/// What an honest Engine with one container says.
fn honest(path: &str, to: &mut dyn Write) -> Option<()> {
    let text = match path {
        "/version" => VERSION,
        "/containers/c0ffee/json" => {
            r#"{"Id":"c0ffee","Name":"/web-1","Image":"sha256:1","State":{"Status":"running"}}"#
        }
        _ if path.starts_with("/containers/json") => ONE,
        _ if path.starts_with("/images/") => IMAGE,
        _ => return None,
    };
    to.write_all(text.as_bytes()).ok()
}

fn serve(stream: TcpStream, answers: Answers) -> Option<()> {
    let (mut requests, mut to) = (BufReader::new(stream.try_clone().ok()?), stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if requests.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let path = head.split(' ').nth(1)?.to_string();
        // Each answer ends with its connection: its length is nobody's business before.
        let mut body = Chunks(&mut to, false);
        let there = answers(&path, &mut body);
        body.end(there.is_some())?;
    }
}

/// A body in chunks behind a head that says so.
struct Chunks<'a>(&'a mut TcpStream, bool);

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if !std::mem::replace(&mut self.1, true) {
            self.0.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        }
        self.0.write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
        self.0.write_all(bytes)?;
        self.0.write_all(b"\r\n")?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Chunks<'_> {
    fn end(self, there: bool) -> Option<()> {
        let text: &[u8] = match (there, self.1) {
            (true, _) => b"0\r\n\r\n",
            (false, true) => return None,
            (false, false) => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        };
        self.0.write_all(text).ok()
    }
}

/// An operator's home, and a host on which `docker` leads to the liar.
struct Stage {
    home: Home,
    _sshd: Sshd,
}

impl Stage {
    fn set(answers: Answers) -> Option<Stage> {
        let home = Home::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || serve(stream, answers));
            }
        });
        let docker = home
            .put("docker", &format!("#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/{port}\ncat <&3 &\ncat >&3\nkill $!\n"));
        std::fs::set_permissions(docker, std::fs::Permissions::from_mode(0o755)).unwrap();
        let sshd = Sshd::start_with(&format!("SetEnv PATH={}:/usr/bin:/bin\n", home.0.path().display()))?;
        let stack = format!(
            "[limits]\ndeadline_s = 20\n[stack.shop]\nhost = \"web-0\"\ndir = \"{}\"\n\
             compose = {{ files = [\"compose.yml\"], project = \"shop\" }}\nservices = {{ web = {{}} }}\n",
            home.0.path().display()
        );
        home.put("opsh.toml", &[sshd.host(0, ""), stack].concat());
        Some(Stage { home, _sshd: sshd })
    }

    /// Runs lines of a script, which must end, and within its memory.
    #[track_caller]
    fn run(&self, lines: &str) -> Ran {
        let high = r#"print(host("local").read(["grep", "VmHWM:", "/proc/PID/status"]).out);"#;
        let script = self.home.put("s.rhai", &format!("{lines}\n{high}"));
        let mut opsh = self.home.command(&[]);
        let program = opsh.get_program().to_owned();
        let own = "sed \"s/PID/$$/\" \"$1\" >\"$1.own\" && ulimit -v 8000000 && exec \"$0\" --observe \"$1.own\"";
        let mut outer = Command::new("timeout");
        outer.args(["-s", "KILL", "150", "sh", "-c", own]).arg(program).arg(script).current_dir(self.home.0.path());
        outer.env_clear().envs(opsh.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
        opsh = outer;
        let ran = Ran::of(opsh.output().unwrap()).exits(0);
        let high = ran.out.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
        let high: u64 = high.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number");
        assert!(high < MOST_KIB, "{high} KiB\n{}{}", ran.out, ran.err);
        ran
    }

    /// The line fails with this in its reason.
    #[track_caller]
    fn fails(&self, line: &str, why: &str) {
        let ran = self.run(&format!("try {{ {line} }} catch (error) {{ print(`${{error.kind}}: ${{error.why}}`); }}"));
        assert!(ran.out.starts_with("failed: ") && ran.out.contains(why), "{why}:\n{}{}", ran.out, ran.err);
    }
}

#[test]
fn an_environment_of_two_million_variables_holds_up_no_read() {
    fn answers(path: &str, to: &mut dyn Write) -> Option<()> {
        if path != "/containers/c0ffee/json" {
            return honest(path, to);
        }
        to.write_all(br#"{"Id":"c0ffee","Config":{"Env":["A="#).ok()?;
        for block in 0..2_000 {
            let lines: String = (0..1_000).map(|n| format!(r#"","V{}=1"#, block * 1_000 + n)).collect();
            to.write_all(lines.as_bytes()).ok()?;
        }
        to.write_all(br#""]}}"#).ok()
    }
    let Some(stage) = Stage::set(answers) else { return };
    let ran = stage.run(r#"host("web-0").read(["true"]);"#);
    assert!(ran.err.contains("does not know yet which values are secret on web-0"), "{}", ran.err);
    stage.fails(r#"stack("shop").container("web")"#, "it is too large: more than 1000000 values");
}

#[test]
fn an_environment_of_many_secrets_is_refused_and_the_next_one_is_learned() {
    fn answers(path: &str, to: &mut dyn Write) -> Option<()> {
        if path.starts_with("/containers/json") {
            let other = ONE.replace("c0ffee", "beef").replace("web-1", "db-1");
            return to
                .write_all(format!("[{},{}]", &ONE[1..ONE.len() - 1], &other[1..other.len() - 1]).as_bytes())
                .ok();
        }
        match path {
            "/containers/beef/json" => {
                to.write_all(br#"{"Id":"beef","Config":{"Env":["DB_PASSWORD=liar-secret-71"]}}"#).ok()
            }
            "/containers/c0ffee/json" => {
                let lines: Vec<String> =
                    (0..20_000).map(|n| format!(r#""P{n}_PASSWORD=secret-of-a-liar-{n}""#)).collect();
                to.write_all(format!(r#"{{"Id":"c0ffee","Config":{{"Env":[{}]}}}}"#, lines.join(",")).as_bytes()).ok()
            }
            _ => honest(path, to),
        }
    }
    let Some(stage) = Stage::set(answers) else { return };
    let ran = stage.run(r#"print(host("web-0").read(["echo", "liar-secret-71"]).out);"#);
    assert!(!ran.out.contains("liar-secret-71"), "{}", ran.out);
    assert!(ran.err.contains("its environment has more than 10000 variables"), "{}", ran.err);
}

#[test]
fn an_answer_without_an_end_is_refused_with_its_bound() {
    fn answers(path: &str, to: &mut dyn Write) -> Option<()> {
        let (begin, piece) = match path {
            "/version" => (r#"{"ApiVersion":"1.41","Components":[{"Name":""}"#, r#",{"Name":""}"#),
            _ => return honest(path, to),
        };
        to.write_all(begin.as_bytes()).ok()?;
        let pieces = piece.repeat(8_000);
        loop {
            to.write_all(pieces.as_bytes()).ok()?;
        }
    }
    let Some(stage) = Stage::set(answers) else { return };
    stage.fails(r#"stack("shop").docker()"#, "it is too large: more than 32 MiB");
}

#[test]
fn an_answer_that_expands_is_refused_before_it_takes_memory() {
    fn answers(path: &str, to: &mut dyn Write) -> Option<()> {
        if !path.starts_with("/containers/json") {
            return honest(path, to);
        }
        let pieces = "[0],".repeat(100_000);
        to.write_all(b"[").ok()?;
        for _ in 0..75 {
            to.write_all(pieces.as_bytes()).ok()?;
        }
        to.write_all(b"[0]]").ok()
    }
    let Some(stage) = Stage::set(answers) else { return };
    stage.fails(r#"stack("shop").ps()"#, "it is too large: more than 1000000 values");
}

#[test]
fn an_honest_engine_is_believed() {
    let Some(stage) = Stage::set(honest) else { return };
    let ran = stage.run(r#"print(stack("shop").ps()[0].container);"#);
    assert!(ran.out.starts_with("web-1\n"), "{}{}", ran.out, ran.err);
}
