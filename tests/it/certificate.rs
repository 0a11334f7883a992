//! What `status` says of a certificate, by real handshakes with a server of openssl's.

use crate::home::Home;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A server on this machine whose certificate ends in so many days; killed when dropped.
struct Server {
    child: Child,
    port: String,
}

/// What `openssl ca` wants, which alone can make a certificate that has ended.
const AUTHORITY: &str = "[ca]\ndefault_ca = one\n[one]\ndatabase = index\nnew_certs_dir = .\nrand_serial = yes\n\
                         default_md = sha256\npolicy = names\nx509_extensions = extensions\n[names]\n\
                         commonName = supplied\n[extensions]\nsubjectAltName = DNS:localhost\n\
                         basicConstraints = CA:FALSE\n";

fn openssl(home: &Home, words: &str) {
    let mut command = Command::new("openssl");
    let ran = command.args(words.split(' ')).current_dir(home.0.path()).output().unwrap();
    assert!(ran.status.success(), "{words}: {}", String::from_utf8_lossy(&ran.stderr));
}

impl Server {
    /// `ca.pem` in the home vouches for it.
    fn start(home: &Home, days: i32) -> Server {
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        openssl(home, &format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority"));
        openssl(home, &format!("req {key} -keyout key.pem -out request.pem -subj /CN=localhost"));
        home.put("index", "");
        home.put("ca.cnf", AUTHORITY);
        let date = Command::new("date").args(["-u", "-d", &format!("{days} days"), "+%Y%m%d%H%M%SZ"]).output().unwrap();
        let (end, by) = (String::from_utf8(date.stdout).unwrap(), "-config ca.cnf -cert ca.pem -keyfile ca.key");
        let dates = format!("-startdate 20200101000000Z -enddate {}", end.trim());
        openssl(home, &format!("ca -batch -notext {by} {dates} -in request.pem -out cert.pem"));
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert", "cert.pem", "-key", "key.pem"]);
        command.current_dir(home.0.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| Some(line.unwrap().strip_prefix("ACCEPT 127.0.0.1:")?.to_string()));
        // Nobody reads what it says of each connection.
        std::thread::spawn(move || lines.for_each(drop));
        Server { child, port: port.expect("it listens") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `status` says of a stack with such a certificate: its verdict's reasons, and its row about it.
fn status(days: i32) -> (Vec<String>, Vec<String>) {
    let home = Home::new();
    let server = Server::start(&home, days);
    home.put(
        "opsh.toml",
        &format!(
            "[screen]\ntimezone = \"Asia/Tokyo\"\n[stack.shop]\nhost = \"local\"\ndir = \"/nowhere\"\n\
             compose = {{ files = [\"c.yml\"], project = \"shop\" }}\n\
             probe = [{{ url = \"https://localhost:{}/\", from = \"here\" }}]\n",
            server.port
        ),
    );
    let authority = home.path("ca.pem").display().to_string();
    let code = "stack(\"shop\").status()";
    let ran = home.run_with(&["--json", "-e", code], "SSL_CERT_FILE", &authority);
    let report = &ran.exits(0).json_lines()[0];
    let texts = |list: &Value, key: &str| -> Vec<String> {
        list.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_string()).collect()
    };
    let rows = report["rows"].as_array().unwrap().iter().filter(|row| row["what"] == "https");
    let said = rows.map(|row| row["said"].as_str().unwrap().to_string()).collect();
    let states = texts(&report["wrong"], "state").into_iter().zip(texts(&report["wrong"], "why"));
    let wrong = states.map(|(state, why)| format!("{state} {why}")).filter(|why| why.contains("localhost"));
    (wrong.collect(), said)
}

#[test]
fn a_certificate_that_lasts_is_a_row() {
    let (wrong, said) = status(90);
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(
        said.len() == 1 && said[0].contains("the certificate ends in 89 d") && said[0].contains(" JST, https://"),
        "{said:?}"
    );
}

#[test]
fn one_that_ends_within_two_weeks_is_a_warning() {
    let (wrong, said) = status(13);
    assert!(wrong.len() == 1 && wrong[0].starts_with("WARN https://localhost"), "{wrong:?}");
    assert!(wrong[0].contains("the certificate ends in 12 d") && said.len() == 1, "{wrong:?} {said:?}");
}

#[test]
fn one_that_has_ended_is_why_nothing_answers() {
    let (wrong, said) = status(-2);
    assert!(wrong.len() == 1 && wrong[0].starts_with("BAD https://localhost"), "{wrong:?}");
    assert!(wrong[0].contains("the certificate ended 2 d ago") && said.len() == 1, "{wrong:?} {said:?}");
}
