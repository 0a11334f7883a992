//! `/app/server`: the API. `/health` is the constant the real one is: green as long as the process lives,
//! whatever the database or the code behind the API do.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use postgres::Client;

use crate::http::{json, Request, Response};
use crate::release::Release;
use crate::{db, log};

const ADDRESS: &str = "0.0.0.0:8080";
const SHIFTS: &str = "/api/v1/shifts";

struct App {
    release: Release,
    connection: Mutex<Option<Client>>,
}

pub fn main() -> i32 {
    if std::env::var("JWT_SECRET").unwrap_or_default().is_empty() {
        log::error("configuration is incomplete error=\"JWT_SECRET is not set\"");
        return 1;
    }
    let release = Release::read();
    log::info(&format!("Starting server version={} addr={ADDRESS}", release.version));
    std::thread::sleep(Duration::from_millis(release.setting("boot_ms", "0").parse().unwrap_or(0)));
    let listener = match TcpListener::bind(ADDRESS) {
        Ok(l) => l,
        Err(e) => {
            log::error(&format!("cannot listen addr={ADDRESS} error={}", log::quoted(&e.to_string())));
            return 1;
        }
    };
    log::info(&format!("Server started version={}", release.version));
    let app = Arc::new(App { release, connection: Mutex::new(None) });
    for stream in listener.incoming().flatten() {
        let app = Arc::clone(&app);
        // A client that goes away in the middle concerns nobody else.
        std::thread::spawn(move || drop(app.serve(stream)));
    }
    0
}

impl App {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let Some(request) = Request::read(&stream)? else { return Ok(()) };
        let began = Instant::now();
        let response = self.answer(&request);
        log::info(&format!(
            "HTTP request method={} path={} status={} duration={:.1}ms request_id={}",
            request.method,
            log::quoted(&request.path),
            response.status,
            began.elapsed().as_secs_f64() * 1000.0,
            request_id()
        ));
        response.write(&mut stream, request.method == "HEAD")
    }

    fn answer(&self, request: &Request) -> Response {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET" | "HEAD", "/health") => Response::new(200, r#"{"status":"ok"}"#),
            ("GET" | "HEAD", "/version") => {
                Response::new(200, format!("{{\"version\":{}}}", json(&self.release.version)))
            }
            ("GET" | "HEAD", SHIFTS) => self.reply(200, "failed to list shifts", |c| self.list(c)),
            ("POST", SHIFTS) => match request.parameter("name").filter(|n| !n.is_empty()) {
                Some(name) => self.reply(201, "failed to create shift", |c| self.create(c, &name)),
                None => problem(400, "INVALID_REQUEST", "name is required"),
            },
            (_, "/health" | "/version" | SHIFTS) => problem(405, "METHOD_NOT_ALLOWED", "method not allowed"),
            _ => problem(404, "NOT_FOUND", "not found"),
        }
    }

    /// The column this release's code believes in.
    fn column(&self) -> String {
        db::ident(self.release.setting("column", "name"))
    }

    fn list(&self, client: &mut Client) -> Result<String, postgres::Error> {
        let order = db::ident(self.release.setting("order_by", "id"));
        let rows = client.query(&format!("SELECT id, {} FROM shifts ORDER BY {order}", self.column()), &[])?;
        let items: Vec<String> = rows
            .iter()
            .map(|r| format!("{{\"id\":{},\"name\":{}}}", r.get::<_, i64>(0), json(r.get::<_, &str>(1))))
            .collect();
        Ok(format!("[{}]", items.join(",")))
    }

    fn create(&self, client: &mut Client, name: &str) -> Result<String, postgres::Error> {
        let sql = format!("INSERT INTO shifts ({}) VALUES ($1) RETURNING id", self.column());
        let id: i64 = client.query_one(&sql, &[&name])?.get(0);
        Ok(format!("{{\"id\":{id},\"name\":{}}}", json(name)))
    }

    fn reply(
        &self,
        good: u16,
        failure: &str,
        work: impl Fn(&mut Client) -> Result<String, postgres::Error>,
    ) -> Response {
        match self.with_database(work) {
            Ok(body) => Response::new(good, body),
            Err(e) => {
                log::error(&format!("{failure} error={}", log::quoted(&e)));
                problem(500, "INTERNAL_ERROR", "internal server error")
            }
        }
    }

    /// One connection, opened when first needed and again after it was lost.
    fn with_database<T>(&self, work: impl Fn(&mut Client) -> Result<T, postgres::Error>) -> Result<T, String> {
        let mut slot = self.connection.lock().unwrap_or_else(|broken| broken.into_inner());
        let mut fresh = false;
        loop {
            let mut client = match slot.take() {
                Some(c) if !c.is_closed() => c,
                _ => {
                    fresh = true;
                    db::connect()?
                }
            };
            match work(&mut client) {
                Err(_) if client.is_closed() && !fresh => continue,
                outcome => {
                    if !client.is_closed() {
                        *slot = Some(client);
                    }
                    return outcome.map_err(db::text);
                }
            }
        }
    }
}

fn problem(status: u16, code: &str, message: &str) -> Response {
    Response::new(status, format!("{{\"error\":{{\"code\":{},\"message\":{}}}}}", json(code), json(message)))
}

fn request_id() -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let mut x = nanos ^ (u64::from(std::process::id()) << 48);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    format!("{:016x}", x ^ (x >> 31))
}
