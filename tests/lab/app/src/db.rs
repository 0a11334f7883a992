//! The one way to the database: `DATABASE_URL`.

use std::error::Error;
use std::time::Duration;

use postgres::{Client, Config, NoTls};

pub fn connect() -> Result<Client, String> {
    let url = std::env::var("DATABASE_URL").unwrap_or_default();
    if url.is_empty() {
        return Err("DATABASE_URL is not set".into());
    }
    // The parser's own message may repeat the URL, and with it the password.
    let mut config: Config = url.parse().map_err(|_| "DATABASE_URL cannot be read".to_string())?;
    config.connect_timeout(Duration::from_secs(5)).application_name("vrc-shift");
    config.connect(NoTls).map_err(text)
}

/// The server's message and code when it sent one (as Go's pgx prints it), else the whole chain of causes.
pub fn text(e: postgres::Error) -> String {
    if let Some(d) = e.as_db_error() {
        return format!("{}: {} (SQLSTATE {})", d.severity(), d.message(), d.code().code());
    }
    let mut all = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        all = format!("{all}: {c}");
        cause = c.source();
    }
    all
}

/// An SQL identifier, quoted.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
