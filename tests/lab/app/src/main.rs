//! One static program under three names, as the image lays it out:
//! `/app/server` (the HTTP API), `/app/migrate` (the schema tool) and `/app/batch`.
//! The name it is called by decides which of them it is.

mod batch;
mod db;
mod flags;
mod http;
mod log;
mod migrate;
mod release;
mod server;

/// A process that is PID 1 ignores TERM unless it asks for it; without this every stop would take ten seconds.
extern "C" fn leave(_signal: libc::c_int) {
    // SAFETY: _exit is async-signal-safe.
    unsafe { libc::_exit(0) }
}

fn main() {
    let handler = leave as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler only calls _exit.
    unsafe {
        libc::signal(libc::SIGTERM, handler);
        libc::signal(libc::SIGINT, handler);
    }
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    let code = match program.rsplit('/').next() {
        Some("migrate") => migrate::main(&program, &words),
        Some("batch") => batch::main(),
        _ => server::main(),
    };
    std::process::exit(code);
}
